//! The file of the last good lists and facts, for a start and for work without etcd.
//!
//! Guarantees: what was saved survives a crash; a file that is damaged is put aside and named in the log, since all of it can be read from etcd again. Blocking calls stay off the runtime's threads. Decides nothing
//! about what is good.

use std::path::Path;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use tracing::warn;

use super::SetupError;
use super::state::Saved;
use crate::embedded::{Abort, EmbeddedFile, Fault, begin_write, off_runtime};
use crate::topic::Facts;

/// A few hundred bytes for each topic.
const CACHE_BYTES: usize = 1 << 20;

/// One row: the JSON of [`Saved`].
const LISTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("lists");
const LISTS_ROW: &str = "last_good";
/// Facts as JSON by their key in etcd.
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct CacheError {
    what: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl From<Fault> for CacheError {
    fn from(fault: Fault) -> Self {
        Self { what: fault.what, source: fault.source }
    }
}

/// The file; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Cache(Arc<EmbeddedFile>);

type Attempt<T> = Result<T, Abort<CacheError>>;

impl Cache {
    /// Opens or creates the file, and reads the last good lists where they can be read.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Saved>), SetupError> {
        let cache = Self(Arc::new(open_file(path)?));
        let json = cache.0.with(read_lists).map_err(|error: CacheError| SetupError::new(error.what, error.source))?;
        let saved = json.and_then(|json| match serde_json::from_slice(&json) {
            Ok(saved) => Some(saved),
            Err(error) => {
                warn!(path = %path.display(), %error, "the last good lists of etcd cannot be read, and are not used");
                None
            }
        });
        Ok((cache, saved))
    }

    /// Saves the lists.
    pub(super) async fn save(&self, saved: Saved) -> Result<(), CacheError> {
        self.change(move |transaction| {
            let json = encode(&saved)?;
            transaction.open_table(LISTS)?.insert(LISTS_ROW, json.as_slice())?;
            Ok(())
        })
        .await
    }

    /// The facts under this key of etcd, if they were ever read.
    pub(super) async fn facts(&self, key: String) -> Result<Option<Facts>, CacheError> {
        let file = self.0.clone();
        let json = off_runtime(move || {
            file.with(|database| -> Attempt<Option<Vec<u8>>> {
                let table = database.begin_read()?.open_table(FACTS)?;
                Ok(table.get(key.as_str())?.map(|json| json.value().to_vec()))
            })
        });
        // Facts of an older form count as none.
        Ok(json.await?.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    /// Keeps what etcd holds under this key.
    pub(super) async fn keep_facts(&self, key: String, facts: Option<Facts>) -> Result<(), CacheError> {
        self.change(move |transaction| {
            let mut table = transaction.open_table(FACTS)?;
            match facts {
                Some(facts) => drop(table.insert(key.as_str(), encode(&facts)?.as_slice())?),
                None => drop(table.remove(key.as_str())?),
            }
            Ok(())
        })
        .await
    }

    async fn change(&self, change: impl FnOnce(&redb::WriteTransaction) -> Attempt<()> + Send + 'static) -> Result<(), CacheError> {
        let file = self.0.clone();
        off_runtime(move || {
            file.with(|database| {
                let transaction = begin_write(database)?;
                change(&transaction)?;
                transaction.commit()?;
                Ok(())
            })
        })
        .await
    }
}

fn open_file(path: &Path) -> Result<EmbeddedFile, SetupError> {
    let fault = match EmbeddedFile::open(path, CACHE_BYTES) {
        Ok(file) => return Ok(file),
        Err(fault) => fault,
    };
    let is_in_use = matches!(fault.source.downcast_ref(), Some(redb::DatabaseError::DatabaseAlreadyOpen));
    let aside = path.with_extension("damaged");
    if is_in_use || std::fs::rename(path, &aside).is_err() {
        return Err(SetupError::new(fault.what, fault.source));
    }
    warn!(path = %path.display(), aside = %aside.display(), error = %fault.source, "the file of etcd's last good lists is damaged and was put aside");
    EmbeddedFile::open(path, CACHE_BYTES).map_err(|fault| SetupError::new(fault.what, fault.source))
}

fn read_lists(database: &redb::Database) -> Attempt<Option<Vec<u8>>> {
    let transaction = begin_write(database)?;
    transaction.open_table(FACTS)?;
    let json = transaction.open_table(LISTS)?.get(LISTS_ROW)?.map(|json| json.value().to_vec());
    transaction.commit()?;
    Ok(json)
}

fn encode(value: &impl serde::Serialize) -> Attempt<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Abort::Refused(CacheError { what: "writing a value that has no JSON form".to_owned(), source: Box::new(error) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::store::suite;

    #[tokio::test]
    async fn facts_survive_the_process_until_etcd_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("etcd-cache.redb");
        let (cache, saved) = Cache::open(&path).expect("opens");
        assert_eq!(saved, None);
        cache.keep_facts("drover/facts/a".to_owned(), Some(suite::facts("X"))).await.expect("kept");
        assert!(Cache::open(&path).expect_err("in use").to_string().contains("another drover uses this data_dir"));
        drop(cache);
        let (cache, _) = Cache::open(&path).expect("opens again");
        assert_eq!(cache.facts("drover/facts/a".to_owned()).await.expect("reads"), Some(suite::facts("X")));
        cache.keep_facts("drover/facts/a".to_owned(), None).await.expect("kept");
        assert_eq!(cache.facts("drover/facts/a".to_owned()).await.expect("reads"), None);
    }

    #[tokio::test]
    async fn a_damaged_cache_does_not_keep_drover_from_starting() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("etcd-cache.redb");
        std::fs::write(&path, b"not a database".repeat(1000)).expect("written");
        let (_cache, saved) = Cache::open(&path).expect("opens");
        assert_eq!(saved, None);
        assert!(path.with_extension("damaged").exists());
    }
}
