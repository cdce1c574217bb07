//! The store of a single instance, in an embedded database file.
//!
//! Guarantees what [`TopicStore`] asks for, by one writer at a time: a write, its revision and its change are one transaction, and its view is published after the commit and before
//! the answer. The view is the one before with one entry changed, so a write costs no reading of the other entries. After a commit whose outcome is not known the tables are read
//! anew, at once or at the next write. A file that holds an entry which drover cannot read is not opened: at that moment there is no last good value to keep, and leaving the entry out
//! would stop a topic that someone wants. A change that cannot be read is left out of lists, with a warning: nothing depends on it. Owns the file's tables.
//!
//! Nothing ever waits for [`TopicStore::confirm`] here. The file is this process's own from opening to the end, so its past cannot change meanwhile; what it holds at opening is what
//! counts.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use futures::future::{BoxFuture, ready};
use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableHandle, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tracing::warn;
use ulid::Ulid;

use super::{Author, ChangesQuery, KEPT_CHANGES, Precondition, PutOutcome, StoreError, StoreView, Stored, TopicStore};
use crate::causes::chain;
use crate::embedded::{Abort, EmbeddedFile, Fault, begin_write, off_runtime};
use crate::status::{Change, ChangeAction, Pause, Source, SourceStatus};
use crate::topic::{Facts, SourceKind, SpecFields, TopicName};

/// Topics are some hundred bytes each.
const CACHE_BYTES: usize = 1 << 20;

/// The revision of the last write, and the value as JSON.
type Row = (i64, &'static [u8]);
type Entries = TableDefinition<'static, &'static str, Row>;

/// Specs by the topic's name.
const TOPICS: Entries = TableDefinition::new("topics");
/// Pauses by the topic's name.
const PAUSES: Entries = TableDefinition::new("pauses");
/// Changes by id, so in their order; the revision is the row's and `null` in the value.
const CHANGES: Entries = TableDefinition::new("changes");
/// Facts by the topic's name, as JSON.
const FACTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("facts");
/// Numbers about the tables.
const NUMBERS: TableDefinition<'static, &str, i64> = TableDefinition::new("numbers");
/// The revision of the last write.
const REVISION: &str = "revision";

type Attempt<T> = Result<T, Abort<StoreError>>;
/// How a transaction is committed.
type Commit = fn(WriteTransaction) -> Result<(), redb::CommitError>;

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable { what: fault.what, source: fault.source }
    }
}

/// Topics, pauses, changes and facts in an embedded database file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: EmbeddedFile,
    views: watch::Sender<Arc<StoreView>>,
    /// Held from the beginning of a write until its view is published.
    writer: Mutex<()>,
}

/// What is changed, and by whom.
struct Request {
    topic: TopicName,
    action: ChangeAction,
    author: Author,
}

/// What a write did in its transaction.
struct Written<T> {
    answer: T,
    before: Option<Value>,
    after: Option<Value>,
    effect: Effect,
}

/// What a write does to the view.
enum Effect {
    TopicPut(Stored<SpecFields>),
    TopicAndPauseGone,
    PausePut(Stored<Pause>),
    PauseGone,
    /// No entry moves.
    Noted,
}

/// An entry that was put, as the next reader of the table finds it.
struct Put<T> {
    outcome: PutOutcome,
    before: Option<Value>,
    after: Value,
    stored: Stored<T>,
}

impl LocalStore {
    /// Opens or creates the file; one of an older version gets the tables that it does not have. Fails when another process has it open, and when an entry in it cannot be read.
    pub fn open(path: &Path) -> Result<(Self, watch::Receiver<Arc<StoreView>>), StoreError> {
        let file = EmbeddedFile::open(path, CACHE_BYTES)?;
        let view = file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(FACTS)?;
            transaction.open_table(CHANGES)?;
            let view = read_view(&transaction, Timestamp::now())?;
            transaction.commit()?;
            Ok::<_, Abort<StoreError>>(view)
        })?;
        let (views, receiver) = watch::channel(Arc::new(view));
        Ok((Self { inner: Arc::new(Inner { file, views, writer: Mutex::default() }) }, receiver))
    }

    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Database) -> Attempt<T> + Send + 'static) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        off_runtime(move || inner.file.with(read)).await
    }

    async fn change<T: Send + 'static>(
        &self,
        request: Request,
        write: impl FnOnce(&WriteTransaction, &TopicName, i64) -> Attempt<Written<T>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write(move |inner| inner.change(&request, WriteTransaction::commit, write)).await
    }

    async fn write<T: Send + 'static>(&self, write: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        let finished = off_runtime(move || Ok(write(&inner))).await;
        // The work itself was interrupted, wherever it was.
        finished.unwrap_or_else(|interruption| Err(outcome_unknown(interruption)))
    }
}

impl Inner {
    /// Does a write under the next revision, logs its change, and publishes the view.
    fn change<T>(
        &self,
        request: &Request,
        commit: Commit,
        write: impl FnOnce(&WriteTransaction, &TopicName, i64) -> Attempt<Written<T>>,
    ) -> Result<T, StoreError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        let is_committing = Cell::new(false);
        let done = self.file.with(|database| {
            let transaction = begin_write(database)?;
            let previous = self.view_of(&transaction, now)?;
            let revision = previous.revision.saturating_add(1);
            transaction.open_table(NUMBERS)?.insert(REVISION, revision)?;
            let Written { answer, before, after, effect } = write(&transaction, &request.topic, revision)?;
            log_change(&transaction, request, revision, now, before, after)?;
            let view = next_view(&previous, &request.topic, effect, revision, now);
            is_committing.set(true);
            commit(transaction)?;
            Ok::<_, Abort<StoreError>>((answer, view))
        });
        match done {
            Ok((answer, view)) => {
                self.views.send_replace(Arc::new(view));
                Ok(answer)
            }
            Err(error) if is_committing.get() => {
                self.show_what_is_stored(now);
                Err(outcome_unknown(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The view of the tables as this transaction sees them: the published one, unless a commit of unknown outcome was done after all.
    fn view_of(&self, transaction: &WriteTransaction, now: Timestamp) -> Attempt<Arc<StoreView>> {
        let published = self.views.borrow().clone();
        let stored = stored_revision(transaction)?;
        if stored == published.revision {
            return Ok(published);
        }
        if stored < published.revision {
            // redb holds the file open and locked; only opening it anew after an error can find another one.
            let what = "the store's file went back, so it was replaced while in use; a restart takes it as it is".to_owned();
            let source = format!("its revision is {stored}, and was {}", published.revision).into();
            return Err(Abort::Refused(StoreError::Unavailable { what, source }));
        }
        let mut view = read_view(transaction, now)?;
        view.source.changed_at = Some(now);
        Ok(Arc::new(view))
    }

    /// After a commit of unknown outcome. Where the file cannot be read now, the next write does it.
    fn show_what_is_stored(&self, now: Timestamp) {
        let read = self.file.with(|database| self.view_of(&begin_write(database)?, now));
        match read {
            Ok(view) => {
                self.views.send_replace(view);
            }
            Err(error) => warn!(error = chain(&error), "store is not readable after a failed commit"),
        }
    }

    /// Stores the facts that `decide` makes of the stored ones, if any; answers what is stored then.
    fn settle_facts(&self, topic: &TopicName, decide: impl FnOnce(Option<Facts>) -> Result<Decision, StoreError>) -> Result<Facts, StoreError> {
        let is_committing = Cell::new(false);
        let settled = self.file.with(|database| {
            let transaction = begin_write(database)?;
            let facts = {
                let mut table = transaction.open_table(FACTS)?;
                let known = table.get(topic.as_str())?.map(|json| decode(FACTS.name(), topic.as_str(), json.value())).transpose()?;
                match decide(known).map_err(Abort::Refused)? {
                    Decision::Keep(known) => return Ok(known),
                    Decision::Store(facts) => {
                        table.insert(topic.as_str(), encode(&facts)?.as_slice())?;
                        facts
                    }
                }
            };
            is_committing.set(true);
            transaction.commit()?;
            Ok(facts)
        });
        settled.map_err(|error| if is_committing.get() { outcome_unknown(error) } else { error })
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
        Box::pin(self.read(move |database| read_facts(database, &topic)))
    }

    fn create_facts<'a>(&'a self, topic: &'a TopicName, facts: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        let topic = topic.clone();
        let decide = |known: Option<Facts>| Ok(known.map_or(Decision::Store(facts), Decision::Keep));
        Box::pin(self.write(move |inner| inner.settle_facts(&topic, decide)))
    }

    fn replace_facts<'a>(&'a self, topic: &'a TopicName, old: Facts, new: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        let topic = topic.clone();
        let decide = move |known: Option<Facts>| match known {
            None => Err(StoreError::NotFound),
            Some(known) if known == old => Ok(Decision::Store(new)),
            Some(known) => Ok(Decision::Keep(known)),
        };
        Box::pin(self.write(move |inner| inner.settle_facts(&topic, decide)))
    }

    fn topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Option<Stored<SpecFields>>, StoreError>> {
        let topic = topic.clone();
        Box::pin(self.read(move |database| read_topic(database, &topic)))
    }

    fn put_topic<'a>(
        &'a self,
        topic: &'a TopicName,
        fields: SpecFields,
        precondition: Precondition,
        action: ChangeAction,
        author: Author,
    ) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        let request = Request { topic: topic.clone(), action, author };
        Box::pin(self.change(request, move |transaction, topic, revision| {
            let entry = put(transaction, TOPICS, topic, &fields, precondition, revision)?;
            Ok(Written { answer: entry.outcome, before: entry.before, after: Some(entry.after), effect: Effect::TopicPut(entry.stored) })
        }))
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName, precondition: Precondition, author: Author) -> BoxFuture<'a, Result<i64, StoreError>> {
        let request = Request { topic: topic.clone(), action: ChangeAction::Delete, author };
        Box::pin(self.change(request, move |transaction, topic, revision| {
            let before = delete(transaction, TOPICS, topic, precondition)?;
            transaction.open_table(PAUSES)?.remove(topic.as_str())?;
            Ok(Written { answer: revision, before: Some(before), after: None, effect: Effect::TopicAndPauseGone })
        }))
    }

    fn put_pause<'a>(&'a self, topic: &'a TopicName, pause: Pause, author: Author) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        let request = Request { topic: topic.clone(), action: ChangeAction::Pause, author };
        Box::pin(self.change(request, move |transaction, topic, revision| {
            let entry = put(transaction, PAUSES, topic, &pause, Precondition::Any, revision)?;
            Ok(Written { answer: entry.outcome, before: entry.before, after: Some(entry.after), effect: Effect::PausePut(entry.stored) })
        }))
    }

    fn delete_pause<'a>(&'a self, topic: &'a TopicName, author: Author) -> BoxFuture<'a, Result<i64, StoreError>> {
        let request = Request { topic: topic.clone(), action: ChangeAction::Resume, author };
        Box::pin(self.change(request, move |transaction, topic, revision| {
            let before = delete(transaction, PAUSES, topic, Precondition::Any)?;
            Ok(Written { answer: revision, before: Some(before), after: None, effect: Effect::PauseGone })
        }))
    }

    fn note<'a>(
        &'a self,
        topic: &'a TopicName,
        action: ChangeAction,
        before: Option<Value>,
        after: Option<Value>,
        author: Author,
    ) -> BoxFuture<'a, Result<i64, StoreError>> {
        let request = Request { topic: topic.clone(), action, author };
        Box::pin(self.change(request, move |_, _, revision| Ok(Written { answer: revision, before, after, effect: Effect::Noted })))
    }

    fn changes(&self, query: ChangesQuery) -> BoxFuture<'_, Result<Vec<Change>, StoreError>> {
        Box::pin(self.read(move |database| read_changes(database, &query)))
    }

    fn confirm(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }

    fn views(&self) -> watch::Receiver<Arc<StoreView>> {
        self.inner.views.subscribe()
    }
}

/// The view after a write: the one before with one entry changed.
fn next_view(previous: &StoreView, topic: &TopicName, effect: Effect, revision: i64, now: Timestamp) -> StoreView {
    let mut view = previous.clone();
    let moves_an_entry = !matches!(effect, Effect::Noted);
    match effect {
        Effect::TopicPut(stored) => {
            view.topics.insert(topic.clone(), stored);
        }
        Effect::TopicAndPauseGone => {
            view.topics.remove(topic);
            view.pauses.remove(topic);
        }
        Effect::PausePut(stored) => {
            view.pauses.insert(topic.clone(), stored);
        }
        Effect::PauseGone => {
            view.pauses.remove(topic);
        }
        Effect::Noted => {}
    }
    let changed_at = if moves_an_entry { Some(now) } else { previous.source.changed_at };
    view.revision = revision;
    view.source = readable_source(view.topics.len(), revision, now, changed_at);
    view
}

/// The status of a store that could be read.
fn readable_source(topics: usize, revision: i64, read_at: Timestamp, changed_at: Option<Timestamp>) -> Source {
    Source {
        kind: SourceKind::Store,
        detail: Some("embedded".to_owned()),
        status: SourceStatus::Ok,
        topics,
        revision: Some(revision),
        content_hash: None,
        read_at: Some(read_at),
        changed_at,
        error: None,
    }
}

/// A failed commit may have reached the disk all the same.
fn outcome_unknown(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { what, source } => StoreError::OutcomeUnknown { what, source },
        other => other,
    }
}

fn put<T: Serialize + DeserializeOwned>(
    transaction: &WriteTransaction,
    entries: Entries,
    topic: &TopicName,
    value: &T,
    precondition: Precondition,
    revision: i64,
) -> Attempt<Put<T>> {
    let (folder, name) = (entries.name(), topic.as_str());
    let mut table = transaction.open_table(entries)?;
    let current = table.get(name)?.map(|row| decode_row::<Value>(folder, name, row.value())).transpose()?;
    precondition.check(current.as_ref().map(|stored| stored.revision)).map_err(Abort::Refused)?;
    let json = encode(value)?;
    table.insert(name, (revision, json.as_slice()))?;
    Ok(Put {
        outcome: PutOutcome { revision, created: current.is_none() },
        before: current.map(|stored| stored.value),
        after: decode(folder, name, &json)?,
        // Read back rather than taken as given: a value that does not read back is refused now, not at the next opening, and what JSON rounds is rounded in the view, too.
        stored: decode_row(folder, name, (revision, &json))?,
    })
}

/// Removes an entry and answers what it was.
fn delete(transaction: &WriteTransaction, entries: Entries, topic: &TopicName, precondition: Precondition) -> Attempt<Value> {
    let name = topic.as_str();
    let mut table = transaction.open_table(entries)?;
    let removed = table.remove(name)?.map(|row| decode_row::<Value>(entries.name(), name, row.value())).transpose()?;
    let Some(removed) = removed else {
        return Err(Abort::Refused(StoreError::NotFound));
    };
    precondition.check(Some(removed.revision)).map_err(Abort::Refused)?;
    Ok(removed.value)
}

/// Logs what a write did, and forgets the oldest change beyond [`KEPT_CHANGES`].
fn log_change(
    transaction: &WriteTransaction,
    request: &Request,
    revision: i64,
    now: Timestamp,
    before: Option<Value>,
    after: Option<Value>,
) -> Attempt<()> {
    let mut table = transaction.open_table(CHANGES)?;
    let last = table.last()?.and_then(|(id, _)| Ulid::from_string(id.value()).ok());
    let id = id_after(last, Ulid::from_datetime(SystemTime::from(now))).to_string();
    let change = Change {
        id,
        revision: None,
        at: now,
        actor: request.author.actor.clone(),
        source: request.author.source.to_owned(),
        request_id: request.author.request_id.clone(),
        topic: request.topic.clone(),
        action: request.action,
        before,
        after,
    };
    table.insert(change.id.as_str(), (revision, encode(&change)?.as_slice()))?;
    while table.len()? > KEPT_CHANGES as u64 {
        table.pop_first()?;
    }
    Ok(())
}

/// `fresh`, or the successor of `last` where the clock stands still or went back: ids order as revisions do, also over restarts.
fn id_after(last: Option<Ulid>, fresh: Ulid) -> Ulid {
    match last {
        Some(last) if fresh <= last => last.increment().unwrap_or_else(|| Ulid::from_parts(last.timestamp_ms().saturating_add(1), fresh.random())),
        _ => fresh,
    }
}

fn stored_revision(transaction: &WriteTransaction) -> Attempt<i64> {
    Ok(transaction.open_table(NUMBERS)?.get(REVISION)?.map_or(0, |revision| revision.value()))
}

/// Everything in the tables as this transaction sees them.
fn read_view(transaction: &WriteTransaction, now: Timestamp) -> Attempt<StoreView> {
    let revision = stored_revision(transaction)?;
    let topics = read_entries(transaction, TOPICS)?;
    let pauses = read_entries(transaction, PAUSES)?;
    let source = readable_source(topics.len(), revision, now, None);
    Ok(StoreView { is_ready: true, revision, topics, pauses, source })
}

fn read_entries<T: DeserializeOwned>(transaction: &WriteTransaction, entries: Entries) -> Attempt<BTreeMap<TopicName, Stored<T>>> {
    let folder = entries.name();
    let table = transaction.open_table(entries)?;
    let mut read = BTreeMap::new();
    for row in table.iter()? {
        let (name, value) = row?;
        let name = name.value();
        let topic = TopicName::new(name).map_err(|error| unreadable(folder, name, error))?;
        read.insert(topic, decode_row(folder, name, value.value())?);
    }
    Ok(read)
}

fn read_topic(database: &Database, topic: &TopicName) -> Attempt<Option<Stored<SpecFields>>> {
    let table = database.begin_read()?.open_table(TOPICS)?;
    table.get(topic.as_str())?.map(|row| decode_row(TOPICS.name(), topic.as_str(), row.value())).transpose()
}

fn read_facts(database: &Database, topic: &TopicName) -> Attempt<Option<Facts>> {
    let table = database.begin_read()?.open_table(FACTS)?;
    table.get(topic.as_str())?.map(|json| decode(FACTS.name(), topic.as_str(), json.value())).transpose()
}

fn read_changes(database: &Database, query: &ChangesQuery) -> Attempt<Vec<Change>> {
    let table = database.begin_read()?.open_table(CHANGES)?;
    let rows = match &query.before {
        Some(id) => table.range(..id.as_str())?,
        None => table.iter()?,
    };
    let mut changes = Vec::new();
    for row in rows.rev() {
        if changes.len() >= query.limit {
            break;
        }
        let (id, value) = row?;
        let (revision, json) = value.value();
        match serde_json::from_slice::<Change>(json) {
            Ok(change) if query.topic.as_ref().is_none_or(|topic| *topic == change.topic) => {
                changes.push(Change { revision: Some(revision), ..change });
            }
            Ok(_) => {}
            Err(error) => warn!(id = id.value(), error = %error, "change is not readable and left out"),
        }
    }
    Ok(changes)
}

fn decode_row<T: DeserializeOwned>(folder: &str, name: &str, (revision, json): (i64, &[u8])) -> Attempt<Stored<T>> {
    Ok(Stored { key: format!("{folder}/{name}"), revision, value: decode(folder, name, json)? })
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
    use proptest::prelude::*;
    use redb::{CommitError, StorageError};
    use tempfile::TempDir;

    use super::super::suite;
    use super::*;
    use crate::topic::OnReject;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).expect("a legal name")
    }

    /// A new store; its file is gone with the directory.
    fn new_store() -> (TempDir, LocalStore, watch::Receiver<Arc<StoreView>>) {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, views) = LocalStore::open(&directory.path().join("store.redb")).expect("opens");
        (directory, store, views)
    }

    async fn put_topic(store: &LocalStore, topic: &str, precondition: Precondition) -> Result<PutOutcome, StoreError> {
        store.put_topic(&name(topic), suite::fields(), precondition, ChangeAction::Put, suite::author()).await
    }

    async fn all_changes(store: &LocalStore) -> Vec<Change> {
        store.changes(ChangesQuery { limit: usize::MAX, ..ChangesQuery::default() }).await.expect("reads")
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

    /// The view that opening the file now would give.
    fn fresh_view(store: &LocalStore) -> StoreView {
        let read: Result<StoreView, StoreError> = store.inner.file.with(|database| read_view(&begin_write(database)?, Timestamp::now()));
        read.expect("reads")
    }

    fn no_answer() -> Result<(), CommitError> {
        Err(CommitError::Storage(StorageError::Io(std::io::Error::other("no answer"))))
    }

    /// The view without the times of this process.
    fn without_times(view: &StoreView) -> StoreView {
        let source = Source { read_at: None, changed_at: None, ..view.source.clone() };
        StoreView { source, ..view.clone() }
    }

    #[tokio::test]
    async fn the_embedded_store_breaks_no_promise_of_the_contract() {
        let (_directory, store, _views) = new_store();
        suite::contract(&store).await;
    }

    #[tokio::test]
    async fn only_the_newest_changes_are_kept() {
        let (_directory, store, _views) = new_store();
        suite::kept_changes(&store).await;
        assert_eq!(all_changes(&store).await.len(), KEPT_CHANGES);
    }

    #[tokio::test]
    async fn everything_survives_the_process() {
        let (directory, store, views) = new_store();
        let empty = views.borrow().clone();
        assert_eq!((empty.is_ready, empty.revision, empty.topics.len(), empty.source.changed_at), (true, 0, 0, None));
        assert_eq!((empty.source.kind, empty.source.status, empty.source.detail.as_deref()), (SourceKind::Store, SourceStatus::Ok, Some("embedded")));
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        put_topic(&store, "b", Precondition::Any).await.expect("written");
        store.put_pause(&name("b"), suite::pause(), suite::author()).await.expect("written");
        store.create_facts(&name("a"), suite::facts("X")).await.expect("written");
        let removed = store.delete_topic(&name("a"), Precondition::Any, suite::author()).await.expect("removed");
        let before = views.borrow().clone();
        assert_eq!((before.revision, before.topics.len(), before.pauses.len()), (removed, 1, 1));
        let logged = all_changes(&store).await;
        assert_eq!(logged.len(), 4);
        drop((store, views));

        let (reopened, views) = LocalStore::open(&directory.path().join("store.redb")).expect("opens again");
        assert_eq!(without_times(&views.borrow()), without_times(&before));
        assert_eq!(views.borrow().source.changed_at, None);
        assert_eq!(all_changes(&reopened).await, logged);
        assert_eq!(reopened.facts(&name("a")).await.expect("reads"), Some(suite::facts("X")));
        let outcome = put_topic(&reopened, "c", Precondition::Absent).await.expect("written");
        assert!(outcome.revision > removed, "a revision was used twice");
    }

    #[tokio::test]
    async fn a_write_shows_in_the_view_before_it_is_answered() {
        let (_directory, store, views) = new_store();
        let started_at = Timestamp::now();
        let outcome = put_topic(&store, "a", Precondition::Any).await.expect("written");
        let view = views.borrow().clone();
        let stored = Stored { key: "topics/a".to_owned(), revision: outcome.revision, value: suite::fields() };
        assert_eq!(view.topics.get("a"), Some(&stored));
        assert_eq!((view.source.topics, view.source.revision), (1, Some(outcome.revision)));
        assert!(view.source.changed_at >= Some(started_at) && view.source.read_at >= Some(started_at), "{:?}", view.source);
    }

    #[tokio::test]
    async fn a_note_is_no_change_of_the_source() {
        let (_directory, store, views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        let before = views.borrow().clone();
        let noted = store.note(&name("a"), ChangeAction::Rewind, None, None, suite::author()).await.expect("noted");
        let after = views.borrow().clone();
        assert_eq!((after.revision, after.source.changed_at), (noted, before.source.changed_at));
        assert_eq!(after.topics, before.topics);
    }

    #[tokio::test]
    async fn a_refused_write_uses_no_revision_and_publishes_nothing() {
        let (_directory, store, mut views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        views.mark_unchanged();
        let before = views.borrow().clone();
        assert!(put_topic(&store, "a", Precondition::Absent).await.is_err());
        assert!(store.delete_topic(&name("a"), Precondition::Revision(99), suite::author()).await.is_err());
        assert!(store.delete_pause(&name("a"), suite::author()).await.is_err());
        assert!(!views.has_changed().expect("the store lives"));
        let outcome = put_topic(&store, "b", Precondition::Any).await.expect("written");
        assert_eq!((outcome.revision, &views.borrow().topics["a"]), (before.revision + 1, &before.topics["a"]));
    }

    /// Otherwise each write of one topic among 3,000 parses all of them. What something else did to the table shows whether it was read.
    #[tokio::test]
    async fn a_write_reads_no_other_entry() {
        let (_directory, store, views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        write_raw(&store, TOPICS, "unreadable", "{");
        put_topic(&store, "b", Precondition::Any).await.expect("written");
        assert_eq!(views.borrow().topics.keys().map(TopicName::as_str).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_commit_without_an_answer_is_not_said_to_have_failed() {
        let (_directory, store, views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        let commits: [(Commit, bool); 2] = [(|transaction| transaction.commit().and_then(|()| no_answer()), true), (|_| no_answer(), false)];
        for (number, (commit, is_done)) in commits.into_iter().enumerate() {
            let topic = name(&format!("unknown-{number}"));
            let request = Request { topic: topic.clone(), action: ChangeAction::Put, author: suite::author() };
            let before = views.borrow().clone();
            let write = |transaction: &WriteTransaction, topic: &TopicName, revision: i64| {
                let entry = put(transaction, TOPICS, topic, &suite::fields(), Precondition::Any, revision)?;
                Ok(Written { answer: (), before: None, after: None, effect: Effect::TopicPut(entry.stored) })
            };
            let result = store.inner.change(&request, commit, write);
            assert!(matches!(result, Err(StoreError::OutcomeUnknown { .. })), "{result:?}");
            let after = views.borrow().clone();
            assert_eq!(after.topics.contains_key(&topic), is_done);
            assert_eq!(after.revision, before.revision + i64::from(is_done));
            assert_eq!(all_changes(&store).await.iter().filter(|change| change.topic == topic).count(), usize::from(is_done));

            let later = put_topic(&store, "a", Precondition::Any).await.expect("the store works again");
            assert_eq!(later.revision, after.revision + 1);
            assert_eq!(without_times(&views.borrow()), without_times(&fresh_view(&store)));
        }
    }

    /// Where the file could not be read right after such a commit.
    #[tokio::test]
    async fn a_write_of_unknown_outcome_shows_with_the_next_write_at_the_latest() {
        let (_directory, store, views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        let unseen = views.borrow().clone();
        put_topic(&store, "b", Precondition::Any).await.expect("written");
        store.inner.views.send_replace(unseen);
        put_topic(&store, "c", Precondition::Any).await.expect("written");
        assert_eq!(without_times(&views.borrow()), without_times(&fresh_view(&store)));
        assert!(views.borrow().topics.contains_key("b"));
    }

    #[tokio::test]
    async fn a_file_that_went_back_does_not_empty_the_view() {
        let (_directory, store, views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        let mut ahead = StoreView::clone(&views.borrow());
        ahead.revision = 7;
        store.inner.views.send_replace(Arc::new(ahead.clone()));
        let error = put_topic(&store, "b", Precondition::Any).await.expect_err("refused");
        assert!(matches!(&error, StoreError::Unavailable { what, .. } if what.contains("replaced")), "{error}");
        assert_eq!(**views.borrow(), ahead);
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
            let (directory, store, views) = new_store();
            write_raw(&store, TOPICS, key, json);
            drop((store, views));
            let error = LocalStore::open(&directory.path().join("store.redb")).expect_err("not readable");
            assert!(error.to_string().contains(&format!("topics/{key}")), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unreadable_change_does_not_hide_the_others() {
        let (directory, store, views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        write_raw(&store, CHANGES, "01ARZ3NDEKTSV4RRFFQ69G5FAV", "{\"action\": \"unheard of\"}");
        drop((store, views));
        let (reopened, _views) = LocalStore::open(&directory.path().join("store.redb")).expect("opens");
        put_topic(&reopened, "b", Precondition::Any).await.expect("written");
        let topics: Vec<TopicName> = all_changes(&reopened).await.into_iter().map(|change| change.topic).collect();
        assert_eq!(topics, [name("b"), name("a")]);
    }

    #[tokio::test]
    async fn a_file_of_a_version_without_changes_opens() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        let old = Database::create(&path).expect("a new file");
        let transaction = old.begin_write().expect("begins");
        let json = encode(&suite::fields()).ok().expect("a JSON form");
        transaction.open_table(TOPICS).expect("a table").insert("a", (4, json.as_slice())).expect("written");
        transaction.open_table(PAUSES).expect("a table");
        transaction.open_table(FACTS).expect("a table");
        transaction.open_table(NUMBERS).expect("a table").insert(REVISION, 5).expect("written");
        transaction.commit().expect("written");
        drop(old);

        let (store, views) = LocalStore::open(&path).expect("opens");
        let view = views.borrow().clone();
        assert_eq!((view.revision, view.topics["a"].revision, &view.topics["a"].value), (5, 4, &suite::fields()));
        assert_eq!(all_changes(&store).await, []);
        let written = put_topic(&store, "a", Precondition::Revision(4)).await.expect("written");
        let logged = all_changes(&store).await;
        assert_eq!(logged.iter().map(|change| (change.revision, change.before.is_some())).collect::<Vec<_>>(), [(Some(written.revision), true)]);
    }

    /// A change of a moment when the clock was years ahead.
    #[tokio::test]
    async fn changes_stay_in_order_although_the_clock_went_back() {
        let (_directory, store, _views) = new_store();
        put_topic(&store, "a", Precondition::Any).await.expect("written");
        let mut ahead = all_changes(&store).await.remove(0);
        ahead.id = "7ZZZZZZZZZ0000000000000000".to_owned();
        write_raw(&store, CHANGES, &ahead.id, &serde_json::to_string(&ahead).expect("a JSON form"));
        put_topic(&store, "b", Precondition::Any).await.expect("written");
        put_topic(&store, "c", Precondition::Any).await.expect("written");
        let topics: Vec<TopicName> = all_changes(&store).await.into_iter().map(|change| change.topic).collect();
        assert_eq!(topics, ["c", "b", "a", "a"].map(name));
    }

    #[derive(Debug, Clone)]
    enum Write {
        PutTopic(SpecFields, Precondition),
        DeleteTopic,
        PutPause(Pause),
        DeletePause,
        Note,
    }

    fn any_fields() -> impl Strategy<Value = SpecFields> {
        let labels = proptest::collection::btree_map(".{0,4}", ".{0,4}", 0..3);
        let on_reject = prop_oneof![Just(OnReject::DeadLetter), Just(OnReject::Stop)];
        let fields = (proptest::option::of(".{0,4}"), proptest::option::of(on_reject), proptest::option::of(labels));
        fields.prop_map(|(pipeline, on_reject, labels)| SpecFields { pipeline, on_reject, labels, ..SpecFields::default() })
    }

    fn any_pause() -> impl Strategy<Value = Pause> {
        let time =
            || (0_i64..4_000_000_000_000_000_000).prop_map(|nanoseconds| Timestamp::from_nanosecond(nanoseconds.into()).expect("a legal time"));
        let pause = (proptest::option::of(".{0,4}"), time(), proptest::option::of(time()));
        pause.prop_map(|(reason, since_at, until_at)| Pause { reason, actor: "me".to_owned(), since_at, until_at })
    }

    fn any_write() -> impl Strategy<Value = Write> {
        let precondition = prop_oneof![Just(Precondition::Any), Just(Precondition::Absent), (1_i64..10).prop_map(Precondition::Revision)];
        prop_oneof![
            3 => (any_fields(), precondition).prop_map(|(fields, precondition)| Write::PutTopic(fields, precondition)),
            1 => Just(Write::DeleteTopic),
            2 => any_pause().prop_map(Write::PutPause),
            1 => Just(Write::DeletePause),
            1 => Just(Write::Note),
        ]
    }

    async fn is_written(store: &LocalStore, topic: &TopicName, write: Write) -> bool {
        let author = suite::author();
        match write {
            Write::PutTopic(fields, precondition) => store.put_topic(topic, fields, precondition, ChangeAction::Put, author).await.is_ok(),
            Write::DeleteTopic => store.delete_topic(topic, Precondition::Any, author).await.is_ok(),
            Write::PutPause(pause) => store.put_pause(topic, pause, author).await.is_ok(),
            Write::DeletePause => store.delete_pause(topic, author).await.is_ok(),
            Write::Note => store.note(topic, ChangeAction::Rewind, None, Some(Value::from(7)), author).await.is_ok(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Views are changed entry by entry, and must not drift away from the file.
        #[test]
        fn a_view_is_what_a_fresh_read_of_the_file_gives(writes in proptest::collection::vec((0..4_usize, any_write()), 1..25)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (_directory, store, views) = new_store();
                let mut written = 0;
                for (topic, write) in writes {
                    written += usize::from(is_written(&store, &name(["a", "b", "c", "d"][topic]), write).await);
                    prop_assert_eq!(without_times(&views.borrow()), without_times(&fresh_view(&store)));
                }
                prop_assert_eq!(all_changes(&store).await.len(), written);
                Ok(())
            })?;
        }

        #[test]
        fn an_id_is_greater_than_the_one_before(last in any::<u128>(), fresh in any::<u128>()) {
            let last = Ulid(last >> 1);
            prop_assert!(id_after(Some(last), Ulid(fresh)) > last);
            prop_assert_eq!(id_after(None, Ulid(fresh)), Ulid(fresh));
        }
    }

    #[test]
    fn ids_of_one_millisecond_do_not_run_out() {
        let last = Ulid::from_parts(5, u128::MAX);
        let next = id_after(Some(last), Ulid::from_parts(5, 3));
        assert!(next > last && next.timestamp_ms() == 6, "{next}");
    }
}
