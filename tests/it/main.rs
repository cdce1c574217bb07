//! The hermetic tests: no server, no network beyond loopback, quick.

mod cli;
mod config_errors;
mod connections;
mod demo;
mod end_to_end;
mod file_sink;
#[path = "../harness/mod.rs"]
mod harness;
mod layering;
mod openapi;
mod parking;
mod sink;
mod tls;
mod tokens;
