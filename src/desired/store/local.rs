//! The store of a single instance, in an embedded database file.
//!
//! Guarantees what [`TopicStore`] asks for. The revision grows in the write's own transaction; the view is made in that transaction and published after its commit, by one writer
//! at a time. A file that holds an entry which drover cannot read is not opened: leaving the entry out would stop a topic that someone wants. Owns the file's tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Precondition, PutOutcome, StoreError, StoreView, Stored, TopicStore};
use crate::embedded::{Abort, EmbeddedFile, Fault, begin_write, off_runtime};
use crate::status::Pause;
use crate::topic::{Facts, SpecFields, TopicName};

/// Topics are some hundred bytes each.
const CACHE_BYTES: usize = 1 << 20;

/// The revision of the last write, and the value as JSON.
type Row = (i64, &'static [u8]);
/// Entries by the topic's name.
type Entries = TableDefinition<'static, &'static str, Row>;

const TOPICS: Entries = TableDefinition::new("topics");
const PAUSES: Entries = TableDefinition::new("pauses");
/// Facts by the topic's name, as JSON.
const FACTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("facts");
/// Numbers about the tables.
const NUMBERS: TableDefinition<'static, &str, i64> = TableDefinition::new("numbers");
/// The revision of the last write.
const REVISION: &str = "revision";

type Attempt<T> = Result<T, Abort<StoreError>>;

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable { what: fault.what, source: fault.source }
    }
}

/// Topics, pauses and facts in an embedded database file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: EmbeddedFile,
    views: watch::Sender<StoreView>,
    /// Held from the beginning of a write until its view is published.
    writer: Mutex<()>,
}

impl LocalStore {
    /// Opens or creates the file. Fails when another process has it open, and when an entry in it cannot be read.
    pub fn open(path: &Path) -> Result<(Self, watch::Receiver<StoreView>), StoreError> {
        let file = EmbeddedFile::open(path, CACHE_BYTES)?;
        let view = file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(FACTS)?;
            let view = read_view(&transaction)?;
            transaction.commit()?;
            Ok::<_, Abort<StoreError>>(view)
        })?;
        let (views, receiver) = watch::channel(view);
        Ok((Self { inner: Arc::new(Inner { file, views, writer: Mutex::default() }) }, receiver))
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        off_runtime(move || work(&inner)).await
    }
}

impl Inner {
    /// Changes topics or pauses under the next revision.
    fn change<T>(&self, change: impl FnOnce(&WriteTransaction, i64) -> Attempt<T>) -> Result<T, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, view) = self.file.with(|database| {
            let transaction = begin_write(database)?;
            let revision = next_revision(&transaction)?;
            let answer = change(&transaction, revision)?;
            let view = read_view(&transaction)?;
            transaction.commit()?;
            Ok::<_, Abort<StoreError>>((answer, view))
        })?;
        self.views.send_replace(view);
        Ok(answer)
    }

    /// Stores the facts that `decide` makes of the stored ones, if any; answers what is stored then.
    fn settle_facts(&self, topic: &TopicName, decide: impl FnOnce(Option<Facts>) -> Result<Decision, StoreError>) -> Result<Facts, StoreError> {
        self.file.with(|database| {
            let transaction = begin_write(database)?;
            let facts = {
                let mut table = transaction.open_table(FACTS)?;
                let known = table.get(topic.as_str())?.map(|json| decode("facts", topic.as_str(), json.value())).transpose()?;
                match decide(known).map_err(Abort::Refused)? {
                    Decision::Keep(known) => return Ok(known),
                    Decision::Store(facts) => {
                        table.insert(topic.as_str(), encode(&facts)?.as_slice())?;
                        facts
                    }
                }
            };
            transaction.commit()?;
            Ok(facts)
        })
    }
}

/// What becomes of a topic's facts.
enum Decision {
    Keep(Facts),
    Store(Facts),
}

impl TopicStore for LocalStore {
    fn facts<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Option<Facts>, StoreError>> {
        let topic = topic.clone();
        Box::pin(self.run(move |inner| inner.file.with(|database| read_facts(database, &topic))))
    }

    fn create_facts<'a>(&'a self, topic: &'a TopicName, facts: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        let topic = topic.clone();
        let decide = |known: Option<Facts>| Ok(known.map_or(Decision::Store(facts), Decision::Keep));
        Box::pin(self.run(move |inner| inner.settle_facts(&topic, decide)))
    }

    fn replace_facts<'a>(&'a self, topic: &'a TopicName, old: Facts, new: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        let topic = topic.clone();
        let decide = move |known: Option<Facts>| match known {
            None => Err(StoreError::NotFound),
            Some(known) if known == old => Ok(Decision::Store(new)),
            Some(known) => Ok(Decision::Keep(known)),
        };
        Box::pin(self.run(move |inner| inner.settle_facts(&topic, decide)))
    }

    fn put_topic<'a>(
        &'a self,
        topic: &'a TopicName,
        fields: SpecFields,
        precondition: Precondition,
    ) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        let topic = topic.clone();
        Box::pin(self.run(move |inner| inner.change(|transaction, revision| put(transaction, TOPICS, &topic, &fields, precondition, revision))))
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName, precondition: Precondition) -> BoxFuture<'a, Result<i64, StoreError>> {
        let topic = topic.clone();
        Box::pin(self.run(move |inner| {
            inner.change(|transaction, revision| {
                delete(transaction, TOPICS, &topic, precondition)?;
                transaction.open_table(PAUSES)?.remove(topic.as_str())?;
                Ok(revision)
            })
        }))
    }

    fn put_pause<'a>(&'a self, topic: &'a TopicName, pause: Pause) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        let topic = topic.clone();
        Box::pin(self.run(move |inner| inner.change(|transaction, revision| put(transaction, PAUSES, &topic, &pause, Precondition::Any, revision))))
    }

    fn delete_pause<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<i64, StoreError>> {
        let topic = topic.clone();
        Box::pin(self.run(move |inner| {
            inner.change(|transaction, revision| {
                delete(transaction, PAUSES, &topic, Precondition::Any)?;
                Ok(revision)
            })
        }))
    }

    fn views(&self) -> watch::Receiver<StoreView> {
        self.inner.views.subscribe()
    }
}

fn next_revision(transaction: &WriteTransaction) -> Attempt<i64> {
    let mut numbers = transaction.open_table(NUMBERS)?;
    let last = numbers.get(REVISION)?.map_or(0, |revision| revision.value());
    let next = last.saturating_add(1);
    numbers.insert(REVISION, next)?;
    Ok(next)
}

fn put(
    transaction: &WriteTransaction,
    entries: Entries,
    topic: &TopicName,
    value: &impl Serialize,
    precondition: Precondition,
    revision: i64,
) -> Attempt<PutOutcome> {
    let mut table = transaction.open_table(entries)?;
    let current = table.get(topic.as_str())?.map(|row| row.value().0);
    precondition.check(current).map_err(Abort::Refused)?;
    table.insert(topic.as_str(), (revision, encode(value)?.as_slice()))?;
    Ok(PutOutcome { revision, created: current.is_none() })
}

fn delete(transaction: &WriteTransaction, entries: Entries, topic: &TopicName, precondition: Precondition) -> Attempt<()> {
    let mut table = transaction.open_table(entries)?;
    let Some(current) = table.remove(topic.as_str())?.map(|row| row.value().0) else {
        return Err(Abort::Refused(StoreError::NotFound));
    };
    precondition.check(Some(current)).map_err(Abort::Refused)
}

/// Everything in the tables as this transaction sees them.
fn read_view(transaction: &WriteTransaction) -> Attempt<StoreView> {
    let revision = transaction.open_table(NUMBERS)?.get(REVISION)?.map_or(0, |revision| revision.value());
    Ok(StoreView { revision, topics: read_entries(transaction, TOPICS, "topics")?, pauses: read_entries(transaction, PAUSES, "pauses")? })
}

fn read_entries<T: DeserializeOwned>(transaction: &WriteTransaction, entries: Entries, folder: &str) -> Attempt<BTreeMap<TopicName, Stored<T>>> {
    let table = transaction.open_table(entries)?;
    let mut read = BTreeMap::new();
    for row in table.iter()? {
        let (name, value) = row?;
        let name = name.value();
        let (revision, json) = value.value();
        let topic = TopicName::new(name).map_err(|error| unreadable(folder, name, error))?;
        read.insert(topic, Stored { key: format!("{folder}/{name}"), revision, value: decode(folder, name, json)? });
    }
    Ok(read)
}

fn read_facts(database: &Database, topic: &TopicName) -> Attempt<Option<Facts>> {
    let table = database.begin_read()?.open_table(FACTS)?;
    table.get(topic.as_str())?.map(|json| decode("facts", topic.as_str(), json.value())).transpose()
}

fn decode<T: DeserializeOwned>(folder: &str, name: &str, json: &[u8]) -> Attempt<T> {
    serde_json::from_slice(json).map_err(|error| unreadable(folder, name, error))
}

fn unreadable(folder: &str, name: &str, error: impl std::error::Error + Send + Sync + 'static) -> Abort<StoreError> {
    Abort::Refused(StoreError::Unavailable { what: format!("the entry {folder}/{name} is not readable"), source: Box::new(error) })
}

fn encode(value: &impl Serialize) -> Attempt<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| {
        Abort::Refused(StoreError::Unavailable { what: "writing a value that has no JSON form".to_owned(), source: Box::new(error) })
    })
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).expect("a legal name")
    }

    fn write_raw(store: &LocalStore, entries: Entries, key: &str, json: &str) {
        let written: Result<(), StoreError> = store.inner.file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(entries)?.insert(key, (1, json.as_bytes()))?;
            transaction.commit()?;
            Ok(())
        });
        written.expect("written");
    }

    #[tokio::test]
    async fn the_embedded_store_breaks_no_promise_of_the_contract() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, _views) = LocalStore::open(&directory.path().join("store.redb")).expect("opens");
        suite::contract(&store).await;
    }

    #[tokio::test]
    async fn everything_survives_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        let (store, views) = LocalStore::open(&path).expect("opens");
        assert_eq!(*views.borrow(), StoreView::default());
        store.put_topic(&name("a"), suite::fields(), Precondition::Any).await.expect("written");
        store.put_topic(&name("b"), suite::fields(), Precondition::Any).await.expect("written");
        store.put_pause(&name("b"), suite::pause()).await.expect("written");
        store.create_facts(&name("a"), suite::facts("X")).await.expect("written");
        let removed = store.delete_topic(&name("a"), Precondition::Any).await.expect("removed");
        let before = views.borrow().clone();
        assert_eq!((before.revision, before.topics.len(), before.pauses.len()), (removed, 1, 1));
        drop((store, views));

        let (reopened, views) = LocalStore::open(&path).expect("opens again");
        assert_eq!(*views.borrow(), before);
        assert_eq!(reopened.facts(&name("a")).await.expect("reads"), Some(suite::facts("X")));
        let outcome = reopened.put_topic(&name("c"), suite::fields(), Precondition::Absent).await.expect("written");
        assert!(outcome.revision > removed, "a revision was used twice");
    }

    #[tokio::test]
    async fn a_write_shows_in_the_view_before_it_is_answered() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, views) = LocalStore::open(&directory.path().join("store.redb")).expect("opens");
        let outcome = store.put_topic(&name("a"), suite::fields(), Precondition::Any).await.expect("written");
        let stored = views.borrow().topics.get("a").cloned();
        assert_eq!(stored, Some(Stored { key: "topics/a".to_owned(), revision: outcome.revision, value: suite::fields() }));
    }

    #[tokio::test]
    async fn a_refused_write_uses_no_revision_and_publishes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, mut views) = LocalStore::open(&directory.path().join("store.redb")).expect("opens");
        store.put_topic(&name("a"), suite::fields(), Precondition::Any).await.expect("written");
        views.mark_unchanged();
        let before = views.borrow().clone();
        assert!(store.put_topic(&name("a"), SpecFields::default(), Precondition::Absent).await.is_err());
        assert!(store.delete_topic(&name("a"), Precondition::Revision(99)).await.is_err());
        assert!(store.delete_pause(&name("a")).await.is_err());
        assert!(!views.has_changed().expect("the store lives"));
        let outcome = store.put_topic(&name("b"), suite::fields(), Precondition::Any).await.expect("written");
        assert_eq!((outcome.revision, &views.borrow().topics["a"]), (before.revision + 1, &before.topics["a"]));
    }

    #[test]
    fn a_second_drover_on_the_same_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        let _first = LocalStore::open(&path).expect("opens");
        let error = LocalStore::open(&path).expect_err("in use");
        assert!(error.to_string().contains("another drover uses this data_dir"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn an_unreadable_entry_does_not_silently_stop_its_topic() {
        for (key, json) in [("a", "{\"indx\": 1}"), ("a/b", "{}")] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("store.redb");
            let (store, views) = LocalStore::open(&path).expect("opens");
            write_raw(&store, TOPICS, key, json);
            drop((store, views));
            let error = LocalStore::open(&path).expect_err("not readable");
            assert!(error.to_string().contains(&format!("topics/{key}")), "{error}");
        }
    }
}
