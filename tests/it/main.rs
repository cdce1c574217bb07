//! The hermetic tests: no server, no network beyond loopback, quick.

mod config_errors;
mod end_to_end;
#[path = "../harness/mod.rs"]
mod harness;
mod layering;
mod openapi;
mod sink;
