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

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything stopped in time.
    Clean,
    /// The deadline passed with work left, or something did not stop.
    Leftovers,
}

/// Why drover does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is open to others and nothing guards it.
    #[error(
        "{0} can be reached by others and there are no tokens; listen on a loopback address, configure auth.tokens_file, or say --insecure if something else guards it"
    )]
    OpenToOthers(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose another address with `listen:` or --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The data directory or something in it cannot be used.
    #[error("cannot use the data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part refuses its settings.
    #[error("cannot set up {part}")]
    Setup {
        /// The part.
        part: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The configuration asks for what this version does not have.
    #[error("{0}")]
    Unsupported(String),
}

impl StartError {
    /// The process's exit code: 78 for configuration, 1 for what another process holds.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OpenToOthers(_) | Self::Unsupported(_) | Self::Setup { .. } => 78,
            Self::Listen { .. } | Self::DataDir { .. } => 1,
        }
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Enough threads for bulk requests and the API beside librdkafka's own; more cores do not help a stream that one consumer thread reads.
pub fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}
