//! What an operator sees: states, health, reasons, exits, and the snapshot that the API, the page and the metrics read.
//!
//! Guarantees that a task's and a topic's state and health are derived in one place ([`derive`]) from plain values, and that a [`Snapshot`] never changes
//! once published. Owns the wire form of section "HTTP API" of the OpenAPI document. Has no clock, no locks, no async: time is a parameter.

pub mod derive;
mod types;

pub use types::*;
