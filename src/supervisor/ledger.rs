//! The restart ledger: what a supervisor remembers of its keys over restarts of the process.
//!
//! Guarantees: what [`Ledger::save`] has answered is durable; of two saves of one key the later call wins, whatever their order on disk would have been; an entry that cannot be
//! read is skipped with a warning and never keeps anything from starting. Owns the form of an entry. Decides nothing: when to save is the supervisor's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::embedded::{Abort, EmbeddedFile, Fault, begin_write, off_runtime};
use crate::status::{Exit, ExitCause, time_text};

/// Entries are some hundred bytes; the cache need not hold them all.
const CACHE_BYTES: usize = 1 << 20;

/// Entries by key, as JSON.
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("restarts");

/// What is remembered of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Restarts ever.
    pub restarts_total: u64,
    /// The same by the cause of the end before.
    pub restarts_by_cause: BTreeMap<ExitCause, u64>,
    /// Failures since the last healthy time.
    pub consecutive_failures: u32,
    /// The last end.
    pub last_exit: Option<Exit>,
    /// The newest ends, newest first; at most 10, which the supervisor sees to.
    pub recent_exits: Vec<Exit>,
    /// When the next life begins, in backoff.
    #[serde(with = "time_text::option")]
    pub next_restart_at: Option<Timestamp>,
}

/// The ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the restart ledger is not available: {what}")]
pub struct LedgerError {
    /// What was tried.
    pub what: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl From<Fault> for LedgerError {
    fn from(fault: Fault) -> Self {
        Self { what: fault.what, source: fault.source }
    }
}

/// Where entries are kept; see the module for what every implementation guarantees.
pub trait Ledger: Send + Sync + 'static {
    /// All readable entries by key. Blocks; for the start.
    fn load(&self) -> Result<BTreeMap<String, Entry>, LedgerError>;

    /// Keeps the entry of `key`. It counts from the call on, not from the first poll of the future.
    fn save(&self, key: &str, entry: &Entry) -> BoxFuture<'_, Result<(), LedgerError>>;
}

/// A ledger that keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLedger;

impl Ledger for NoLedger {
    fn load(&self) -> Result<BTreeMap<String, Entry>, LedgerError> {
        Ok(BTreeMap::new())
    }

    fn save(&self, _key: &str, _entry: &Entry) -> BoxFuture<'_, Result<(), LedgerError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A ledger in an embedded database file. Saves that come while another is written are written together.
#[derive(Debug, Clone)]
pub struct RedbLedger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: EmbeddedFile,
    /// Entries that are not written yet.
    unwritten: Mutex<BTreeMap<String, Entry>>,
    /// Held by who writes.
    writer: Mutex<()>,
}

impl RedbLedger {
    /// Opens or creates the file.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = EmbeddedFile::open(path, CACHE_BYTES)?;
        file.with(|database| -> Result<(), Abort<LedgerError>> {
            let transaction = begin_write(database)?;
            transaction.open_table(ENTRIES)?;
            transaction.commit()?;
            Ok(())
        })?;
        Ok(Self { inner: Arc::new(Inner { file, unwritten: Mutex::default(), writer: Mutex::default() }) })
    }
}

impl Ledger for RedbLedger {
    fn load(&self) -> Result<BTreeMap<String, Entry>, LedgerError> {
        self.inner.file.with(|database| {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            let mut entries = BTreeMap::new();
            for row in table.iter()? {
                let (key, value) = row?;
                match serde_json::from_slice(value.value()) {
                    Ok(entry) => {
                        entries.insert(key.value().to_owned(), entry);
                    }
                    Err(error) => warn!(key = key.value(), error = %error, "entry of the restart ledger is not readable, its counts begin again"),
                }
            }
            Ok(entries)
        })
    }

    fn save(&self, key: &str, entry: &Entry) -> BoxFuture<'_, Result<(), LedgerError>> {
        lock(&self.inner.unwritten).insert(key.to_owned(), entry.clone());
        let inner = self.inner.clone();
        Box::pin(off_runtime(move || inner.write()))
    }
}

impl Inner {
    /// Writes everything that is not written yet. Who finds nothing left was served by the writer before.
    fn write(&self) -> Result<(), LedgerError> {
        let _writer = lock(&self.writer);
        let entries = std::mem::take(&mut *lock(&self.unwritten));
        if entries.is_empty() {
            return Ok(());
        }
        let result = self.file.with(|database| write_entries(database, &entries));
        if result.is_err() {
            let mut unwritten = lock(&self.unwritten);
            for (key, entry) in entries {
                // A newer entry of the same key may have come meanwhile.
                unwritten.entry(key).or_insert(entry);
            }
        }
        result
    }
}

fn write_entries(database: &redb::Database, entries: &BTreeMap<String, Entry>) -> Result<(), Abort<LedgerError>> {
    let transaction = begin_write(database)?;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        for (key, entry) in entries {
            let json = serde_json::to_vec(entry).map_err(|error| Abort::Refused(not_json(key, error)))?;
            table.insert(key.as_str(), json.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn not_json(key: &str, error: serde_json::Error) -> LedgerError {
    LedgerError { what: format!("the entry of {key} has no JSON form"), source: Box::new(error) }
}

/// The guarded values are whole at any moment, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    fn exit(second: i64) -> Exit {
        let at = Timestamp::from_second(second).expect("a legal time");
        Exit { at, cause: ExitCause::Panicked, message: format!("boom {second}"), offset: Some(second) }
    }

    fn entry(restarts_total: u64) -> Entry {
        Entry {
            restarts_total,
            restarts_by_cause: BTreeMap::from([(ExitCause::Panicked, restarts_total), (ExitCause::Stalled, 1)]),
            consecutive_failures: 3,
            last_exit: Some(exit(5)),
            recent_exits: vec![exit(5), exit(4)],
            next_restart_at: Some(Timestamp::from_second(77).expect("a legal time")),
        }
    }

    #[tokio::test]
    async fn counts_survive_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("restarts.redb");
        let ledger = RedbLedger::open(&path).expect("opens");
        assert_eq!(ledger.load().expect("reads"), BTreeMap::new());
        ledger.save("a/0", &entry(1)).await.expect("saved");
        ledger.save("a/0", &entry(2)).await.expect("saved");
        ledger.save("b/1", &entry(7)).await.expect("saved");
        drop(ledger);
        let reopened = RedbLedger::open(&path).expect("opens again");
        assert_eq!(reopened.load().expect("reads"), BTreeMap::from([("a/0".to_owned(), entry(2)), ("b/1".to_owned(), entry(7))]));
    }

    #[tokio::test]
    async fn the_later_call_wins_whichever_is_awaited_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let ledger = RedbLedger::open(&directory.path().join("restarts.redb")).expect("opens");
        let mut saves: Vec<_> = (1..=20).map(|count| ledger.save("a/0", &entry(count))).collect();
        saves.reverse();
        for result in join_all(saves).await {
            result.expect("saved");
        }
        assert_eq!(ledger.load().expect("reads")["a/0"], entry(20));
    }

    #[tokio::test]
    async fn a_broken_entry_costs_only_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let ledger = RedbLedger::open(&directory.path().join("restarts.redb")).expect("opens");
        ledger.save("good", &entry(4)).await.expect("saved");
        let broken: Result<(), LedgerError> = ledger.inner.file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(ENTRIES)?.insert("broken", b"{\"restarts_total\": \"many\"".as_slice())?;
            transaction.open_table(ENTRIES)?.insert("old", b"{\"restarts_total\": 9}".as_slice())?;
            transaction.commit()?;
            Ok(())
        });
        broken.expect("written");
        let entries = ledger.load().expect("reads");
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["good", "old"]);
        assert_eq!(entries["old"], Entry { restarts_total: 9, ..Entry::default() });
    }

    #[tokio::test]
    async fn an_entry_that_could_not_be_written_is_written_with_the_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let ledger = RedbLedger::open(&directory.path().join("restarts.redb")).expect("opens");
        // Another table type under the same name makes every write fail.
        swap_table(&ledger, true);
        assert!(ledger.save("first", &entry(1)).await.is_err());
        swap_table(&ledger, false);
        ledger.save("next", &entry(2)).await.expect("saved");
        assert_eq!(ledger.load().expect("reads").len(), 2);
    }

    fn swap_table(ledger: &RedbLedger, to_wrong_type: bool) {
        const WRONG: TableDefinition<'_, u64, u64> = TableDefinition::new("restarts");
        let swapped: Result<(), LedgerError> = ledger.inner.file.with(|database| {
            let transaction = begin_write(database)?;
            if to_wrong_type {
                transaction.delete_table(ENTRIES)?;
                transaction.open_table(WRONG)?;
            } else {
                transaction.delete_table(WRONG)?;
                transaction.open_table(ENTRIES)?;
            }
            transaction.commit()?;
            Ok(())
        });
        swapped.expect("swapped");
    }

    #[tokio::test]
    async fn no_ledger_remembers_nothing() {
        NoLedger.save("a", &entry(1)).await.expect("saved");
        assert_eq!(NoLedger.load().expect("reads"), BTreeMap::new());
    }

    #[test]
    fn a_second_supervisor_on_the_same_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("restarts.redb");
        let _first = RedbLedger::open(&path).expect("opens");
        let error = RedbLedger::open(&path).expect_err("in use");
        assert!(error.to_string().contains("another drover uses this data_dir"), "{error}");
    }
}
