//! Kafka.
pub mod budget;
pub mod chunk;
