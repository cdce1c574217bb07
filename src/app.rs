//! The composition root: builds the parts, starts them in order, stops them in order.
//!
//! Guarantees the order. Start: configuration → stores → sink, consumer, tasks → sources, reconciliation → API. Stop: readiness off → intake off → what is in work settles →
//! tasks end → offsets are committed and the group is left → the API last, so that the drain can be watched; all under one deadline, and what did not stop in time is named.
//! A second signal ends the process at once. Owns no rule about topics, records or HTTP: only the wiring.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::config::{Config, Loaded, SinkConfig};
use crate::dead_letters::DeadLetters;
use crate::dead_letters::local::LocalDeadLetters;
use crate::desired::Merger;
use crate::desired::file::FileSource;
use crate::desired::store::TopicStore;
use crate::desired::store::local::LocalStore;
use crate::kafka::budget::Budget;
use crate::kafka::{Consumer, ConsumerHandle, ConsumerSettings, Lookups};
use crate::pipeline::PartitionWork;
use crate::reconcile::{Reconciler, TopicsView};
use crate::sink::elasticsearch::ElasticsearchSink;
use crate::supervisor::ledger::RedbLedger;
use crate::supervisor::{NoLedger, Supervisor, SupervisorHandle, TaskError};

mod actions;
mod components;
mod observe;

use components::{Component, Components};

/// What librdkafka may prefetch: as fast as four times as much (`fetch` of one partition is on top).
const PREFETCH_BYTES: u64 = 16 << 20;

/// Command-line options of `drover run`.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file's path.
    pub config_path: PathBuf,
    /// Listen here instead of where the file says.
    pub listen: Option<SocketAddr>,
    /// Listen on an address that others can reach although there are no tokens.
    pub insecure: bool,
}
