//! Opens what drover keeps its state in: the store of topics, the dead letters, the restart ledger.
//!
//! Guarantees the choice of the design: etcd where one is configured, else the embedded file, behind one contract; dead letters in the sink where partitions may move to other
//! instances, else beside the embedded file. Connects to nothing: who runs later waits for servers.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::StartError;
use crate::config::{Config, DeadLetterStore, SinkConfig};
use crate::dead_letters::DeadLetters;
use crate::dead_letters::elasticsearch::ElasticsearchDeadLetters;
use crate::dead_letters::local::LocalDeadLetters;
use crate::desired::etcd::{self, EtcdSource};
use crate::desired::file::FileView;
use crate::desired::keys::KeysView;
use crate::desired::store::TopicStore;
use crate::desired::store::local::LocalStore;
use crate::supervisor::RedbLedger;

/// Everything that outlives the process.
pub(super) struct Stores {
    pub(super) topics: Arc<dyn TopicStore>,
    pub(super) keys: watch::Receiver<Arc<KeysView>>,
    /// Watches etcd, where there is one.
    pub(super) etcd: Option<EtcdSource>,
    pub(super) dead_letters: Arc<dyn DeadLetters>,
    /// Counts the letters in the sink, where they are kept there.
    pub(super) letters_in_sink: Option<Arc<ElasticsearchDeadLetters>>,
    pub(super) ledger: RedbLedger,
}

impl Stores {
    /// Opens all of them under the configured `data_dir`.
    pub(super) fn open(config: &Config, file: watch::Receiver<FileView>) -> Result<Self, StartError> {
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir).map_err(|error| in_data_dir(data_dir, error))?;
        let ledger = RedbLedger::open(&data_dir.join("restarts.redb")).map_err(|error| in_data_dir(data_dir, error))?;
        let (dead_letters, letters_in_sink) = dead_letters(config)?;
        let Some(section) = &config.etcd else {
            let (store, _) = LocalStore::open(&data_dir.join("store.redb")).map_err(|error| in_data_dir(data_dir, error))?;
            return Ok(Self { topics: Arc::new(store), keys: KeysView::none(), etcd: None, dead_letters, letters_in_sink, ledger });
        };
        let parts =
            etcd::open(section, file, &data_dir.join("etcd-cache.redb")).map_err(|error| StartError::Setup { part: "etcd", source: error.into() })?;
        Ok(Self { topics: parts.store, keys: parts.keys, etcd: Some(parts.source), dead_letters, letters_in_sink, ledger })
    }
}

type Letters = (Arc<dyn DeadLetters>, Option<Arc<ElasticsearchDeadLetters>>);

fn dead_letters(config: &Config) -> Result<Letters, StartError> {
    let limit = config.dead_letters.max_bytes;
    let (DeadLetterStore::Elasticsearch, SinkConfig::Elasticsearch(sink)) = (config.dead_letter_store(), &config.sink) else {
        // Letters in a sink that is no server are refused by the configuration.
        let letters =
            LocalDeadLetters::open(&config.data_dir.join("dead-letters.redb"), limit).map_err(|error| in_data_dir(&config.data_dir, error))?;
        return Ok((Arc::new(letters), None));
    };
    let letters = ElasticsearchDeadLetters::new(sink, &config.dead_letters.index, limit);
    let letters = Arc::new(letters.map_err(|error| StartError::Setup { part: "dead_letters", source: error.into() })?);
    Ok((letters.clone(), Some(letters)))
}

fn in_data_dir(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StartError {
    StartError::DataDir { path: path.to_owned(), source: error.into() }
}
