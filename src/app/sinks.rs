//! The sink that the configuration chooses.
//!
//! Guarantees that the rest of the program sees one sink: a handle, counters, and a body that is run as a part. Connects to nothing; a folder is made, locked and repaired.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::config::SinkConfig;
use crate::config::check::Unreachable;
use crate::sink::elasticsearch::{self, ElasticsearchSink, RunError};
use crate::sink::file::{self, FileSink};
use crate::sink::{SinkHandle, SinkStats};

/// A sink that was made, and what the others need of it.
pub(super) struct Made {
    pub(super) sink: Sink,
    pub(super) handle: SinkHandle,
    pub(super) stats: Arc<SinkStats>,
    /// Bytes of the bodies that are under way at once.
    pub(super) bodies: u64,
}

/// One of the sinks.
pub(super) enum Sink {
    Elasticsearch(Arc<ElasticsearchSink>),
    File(Arc<FileSink>),
}

impl Sink {
    /// One life of it.
    pub(super) async fn run(&self, cancel: CancellationToken) -> Result<(), RunError> {
        match self {
            Self::Elasticsearch(sink) => sink.run(cancel).await,
            Self::File(sink) => sink.run(cancel).await,
        }
    }
}

/// Makes the configured sink.
pub(super) fn make(config: &SinkConfig) -> Result<Made, StartError> {
    match config {
        SinkConfig::Elasticsearch(config) => {
            let made = ElasticsearchSink::new(config).map_err(|error| StartError::Setup { part: "elasticsearch", source: error.into() });
            let (sink, handle, stats) = made?;
            Ok(Made { sink: Sink::Elasticsearch(sink), handle, stats, bodies: config.max_bytes * config.in_flight as u64 })
        }
        SinkConfig::File { dir } => {
            let (sink, handle, stats) = FileSink::new(dir).map_err(StartError::SinkFolder)?;
            Ok(Made { sink: Sink::File(sink), handle, stats, bodies: file::BYTES_IN_WORK })
        }
    }
}

/// What is wrong with the configured sink.
pub(super) async fn probe(config: &SinkConfig) -> Option<Unreachable> {
    match config {
        SinkConfig::Elasticsearch(config) => elasticsearch::probe(config).await.err().map(|detail| {
            let remedy = "check that the nodes run, and the addresses, credentials and certificates under elasticsearch".to_owned();
            Unreachable { server: "elasticsearch", detail, remedy }
        }),
        SinkConfig::File { dir } => file::probe(dir).err().map(|detail| {
            let remedy = "let drover's user create and write the folder, or name another one under sink.file".to_owned();
            Unreachable { server: "sink", detail, remedy }
        }),
    }
}
