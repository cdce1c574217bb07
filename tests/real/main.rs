//! Tests against a real Kafka, Elasticsearch and etcd. Not part of a plain `cargo test`; `make test` runs them, and a server that cannot be started is a failure.

mod contract;
mod dead_letters;
mod desired;
mod etcd;
#[path = "../harness/mod.rs"]
mod harness;
mod main_job;
mod many_topics;
mod offsets;
mod other_sinks;
mod replay;
mod secured;
mod shutdown;
mod smoke;
mod supervised;
mod surface;
