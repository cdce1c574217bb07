//! One embedded database file: how the store, the dead letters and the restart ledger use redb.
//!
//! Guarantees: a file is used by one process at a time, and a second open says so; what a write transaction has committed survives a crash of the machine (fsync), and opening
//! after a crash does not walk the whole file; after an I/O error, such as a full disk, the file is opened anew at the next use, since redb refuses all further work on a file
//! that once failed; blocking calls stay off the runtime's threads. Owns the handle. Knows no table: those belong to the users.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, WriteTransaction};
use tokio::task::{JoinError, spawn_blocking};
use tracing::warn;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What could not be done with a file, and why. Users turn it into their own error.
#[derive(Debug)]
pub(crate) struct Fault {
    /// What was tried, with the file's path.
    pub(crate) what: String,
    /// Why it failed.
    pub(crate) source: BoxError,
}

impl Fault {
    fn new(what: String, source: impl Into<BoxError>) -> Self {
        Self { what, source: source.into() }
    }
}

/// Why work inside a transaction ends without effect: the database failed, or the user's own rules refused.
pub(crate) enum Abort<R> {
    /// The database failed.
    Database(redb::Error),
    /// The user's own answer.
    Refused(R),
}

impl<R, E: Into<redb::Error>> From<E> for Abort<R> {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// One database file, opened exclusively.
pub(crate) struct EmbeddedFile {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` after an error, until the next use.
    database: Mutex<Option<Arc<Database>>>,
}

impl EmbeddedFile {
    /// Opens or creates the file and its directory. redb keeps up to `cache_bytes` of it in memory.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Self, Fault> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|error| Fault::new(format!("creating the directory {}", directory.display()), error))?;
        }
        let database = open_database(path, cache_bytes)?;
        Ok(Self { path: path.to_owned(), cache_bytes, database: Mutex::new(Some(Arc::new(database))) })
    }

    /// Does `work` with the database on this thread.
    pub(crate) fn with<T, R: From<Fault>>(&self, work: impl FnOnce(&Database) -> Result<T, Abort<R>>) -> Result<T, R> {
        let database = self.database()?;
        let error = match work(&database) {
            Ok(value) => return Ok(value),
            Err(Abort::Refused(refusal)) => return Err(refusal),
            Err(Abort::Database(error)) => error,
        };
        self.forget(&database);
        Err(Fault::new(format!("using {}", self.path.display()), error).into())
    }

    fn handle(&self) -> MutexGuard<'_, Option<Arc<Database>>> {
        // The guarded value is whole at any moment, so a panic elsewhere leaves nothing half done.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> Result<Arc<Database>, Fault> {
        let mut handle = self.handle();
        if let Some(database) = &*handle {
            return Ok(database.clone());
        }
        let database = Arc::new(open_database(&self.path, self.cache_bytes)?);
        warn!(path = %self.path.display(), "embedded database opened again after an error");
        *handle = Some(database.clone());
        Ok(database)
    }

    /// Gives up a database that failed; it closes when its last user is done.
    fn forget(&self, failed: &Arc<Database>) {
        let mut handle = self.handle();
        if handle.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            *handle = None;
        }
    }
}

impl std::fmt::Debug for EmbeddedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

fn open_database(path: &Path, cache_bytes: usize) -> Result<Database, Fault> {
    // redb may panic on a file that something else has altered (`Builder::set_check_integrity_on_open`).
    let opened = catch_unwind(AssertUnwindSafe(|| Database::builder().set_cache_size(cache_bytes).create(path)));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error @ redb::DatabaseError::DatabaseAlreadyOpen)) => {
            Err(Fault::new(format!("{} is in use: another drover uses this data_dir", path.display()), error))
        }
        Ok(Err(error)) => Err(Fault::new(format!("opening {}", path.display()), error)),
        Err(_) => Err(Fault::new(format!("opening {}", path.display()), "the file is damaged")),
    }
}

/// Begins a transaction whose commit is durable.
pub(crate) fn begin_write(database: &Database) -> Result<WriteTransaction, redb::TransactionError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Does blocking work on a thread that may block. It goes on to its end even if nobody waits for the answer any more.
pub(crate) async fn off_runtime<T, R>(work: impl FnOnce() -> Result<T, R> + Send + 'static) -> Result<T, R>
where
    T: Send + 'static,
    R: From<Fault> + Send + 'static,
{
    spawn_blocking(work).await.unwrap_or_else(|error| Err(interrupted(error).into()))
}

fn interrupted(error: JoinError) -> Fault {
    Fault::new("finishing work on an embedded database".to_owned(), error)
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("t");

    impl From<Fault> for String {
        fn from(fault: Fault) -> Self {
            format!("{}: {}", fault.what, fault.source)
        }
    }

    fn put(file: &EmbeddedFile, value: u64) -> Result<(), String> {
        file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(TABLE)?.insert("k", value)?;
            transaction.commit()?;
            Ok(())
        })
    }

    fn get(file: &EmbeddedFile) -> Result<Option<u64>, String> {
        file.with(|database| Ok(database.begin_read()?.open_table(TABLE)?.get("k")?.map(|value| value.value())))
    }

    #[test]
    fn a_second_user_of_the_file_is_told_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new/folder/a.redb");
        let first = EmbeddedFile::open(&path, 1 << 20).expect("a new file");
        let fault = EmbeddedFile::open(&path, 1 << 20).expect_err("in use");
        assert!(fault.what.contains("another drover uses this data_dir"), "{}", fault.what);
        drop(first);
        assert!(EmbeddedFile::open(&path, 1 << 20).is_ok());
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.redb");
        for content in ["no database at all".repeat(1000).into_bytes(), b"x".to_vec()] {
            fs::write(&path, content).expect("written");
            let fault = EmbeddedFile::open(&path, 1 << 20).expect_err("not a database");
            assert!(fault.what.contains("a.redb"), "{}", fault.what);
        }
    }

    #[test]
    fn a_file_that_failed_once_is_usable_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = EmbeddedFile::open(&directory.path().join("a.redb"), 1 << 20).expect("a new file");
        put(&file, 1).expect("written");
        let failing = file.with(|_| Err::<(), _>(Abort::<String>::Database(redb::Error::Io(std::io::Error::other("no space left")))));
        assert!(failing.expect_err("failed").contains("no space left"));
        assert!(file.handle().is_none());
        assert_eq!(get(&file), Ok(Some(1)));
        assert_eq!(put(&file, 2), Ok(()));
        assert_eq!(get(&file), Ok(Some(2)));
    }

    #[test]
    fn refused_work_has_no_effect() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = EmbeddedFile::open(&directory.path().join("a.redb"), 1 << 20).expect("a new file");
        put(&file, 1).expect("written");
        let refused: Result<(), String> = file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(TABLE)?.insert("k", 9)?;
            Err(Abort::Refused("no".to_owned()))
        });
        assert_eq!(refused, Err("no".to_owned()));
        assert_eq!(get(&file), Ok(Some(1)));
    }
}
