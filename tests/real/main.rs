//! Tests against a real Kafka and a real Elasticsearch. Not part of a plain `cargo test`; `make test` runs them, and a server that cannot be started is a failure.

#[path = "../harness/mod.rs"]
mod harness;
mod main_job;
mod smoke;
mod supervised;
mod surface;
