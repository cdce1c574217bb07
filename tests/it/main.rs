//! The hermetic tests: no server, no network beyond loopback, quick.

#[path = "../harness/mod.rs"]
mod harness;
mod layering;
mod openapi;
mod sink;
