//! The store in etcd: every write one transaction.
//!
//! Guarantees, beyond the [contract](crate::desired::store): a write reads linearizably first and is then done only if the entry is still the one that was read, so what its change says of before is right; a write without
//! an answer is looked for by its change, and only where that is not found the outcome counts as unknown; no write may have been sent twice. While etcd has another past than we know nothing is
//! written, also before the mirror has noticed. Owns the log of changes. The views are the mirror's.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, SortOrder, SortTarget, Txn, TxnOp};
use futures::future::{BoxFuture, try_join};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};
use ulid::Ulid;

use super::Shared;
use super::client::{Answer, CallError, Fate, Refusal};
use super::collector::shown;
use super::guard;
use super::layout::end_of;
use crate::causes;
use crate::desired::store::{Author, ChangesQuery, KEPT_CHANGES, Precondition, PutOutcome, Races, StoreError, StoreView, Stored, TopicStore};
use crate::status::{Change, ChangeAction, Pause};
use crate::topic::{Facts, SpecFields, TopicName};

/// How long a write without an answer is looked for.
const READ_BACK_WITHIN: Duration = Duration::from_secs(2);
/// How long the mirror may take to take in what was confirmed: one full read.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// How long a write's answer may wait for old changes to be removed.
const PRUNE_WITHIN: Duration = Duration::from_secs(1);
/// What the API writes is smaller. Anything can stand in etcd, and writing over it must not fail because the change is too large for a request.
const MAX_LOGGED_BYTES: usize = 128 << 10;
/// Changes of one page: some hundred bytes each, at most twice an API body.
const CHANGES_PAGE: i64 = 200;

/// Topics, pauses, changes and facts in etcd.
#[derive(Debug)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

type Attempt<T> = Result<T, StoreError>;

/// An entry as it was read before a write.
#[derive(Debug)]
struct Before {
    /// The entry, if there is one.
    entry: Option<KeyValue>,
    /// An id for the change, greater than those of all changes there are.
    change_id: Ulid,
}

impl Before {
    fn revision(&self) -> Option<i64> {
        self.entry.as_ref().map(KeyValue::mod_revision)
    }

    /// The value for the log of changes, as it is: also one that drover cannot read.
    fn value(&self) -> Option<serde_json::Value> {
        let value = self.entry.as_ref()?.value();
        if value.len() > MAX_LOGGED_BYTES {
            return Some(serde_json::Value::String(format!("{} bytes, too many to keep", value.len())));
        }
        let as_text = |_| serde_json::Value::String(String::from_utf8_lossy(value).into_owned());
        Some(serde_json::from_slice(value).unwrap_or_else(as_text))
    }

    /// Nobody has written the entry since.
    fn still_holds(&self, key: &str) -> Compare {
        Compare::mod_revision(key, CompareOp::Equal, self.revision().unwrap_or(0))
    }
}

/// What a transaction led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It was done, under this revision.
    At(i64),
    /// Somebody else was faster.
    Lost,
}

impl EtcdStore {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Reads an entry, unless etcd has another past than we know.
    async fn read(&self, key: &str) -> Attempt<Answer> {
        let past = self.shared.with_state(|state| if state.is_stale() { Err(StoreError::Stale) } else { Ok(state.past().cloned()) })?;
        let known = self.shared.with_state(|state| state.revision_of(key));
        let answer = self.shared.etcd.get(key, GetOptions::new()).await.map_err(|error| unavailable("reading etcd", error))?;
        let (cluster_id, revision) = (answer.header.cluster_id(), answer.header.revision());
        let header = past.and_then(|past| guard::header_of_another_past(&past, cluster_id, revision));
        let entry_went_back = answer.kvs.first().zip(known).is_some_and(|(entry, known)| entry.mod_revision() < known);
        if header.is_some() || entry_went_back {
            debug!(reason = header, key, "etcd is not the one of before, the mirror looks at once");
            self.shared.wake.notify_one();
            return Err(StoreError::Stale);
        }
        Ok(answer)
    }

    async fn read_before(&self, key: &str) -> Attempt<Before> {
        let folder = self.shared.layout.changes();
        let newest = GetOptions::new().with_range(end_of(&folder)).with_sort(SortTarget::Key, SortOrder::Descend).with_limit(1).with_keys_only();
        let newest = async { self.shared.etcd.get(folder.clone(), newest).await.map_err(|error| unavailable("reading the changes", error)) };
        let (mut entry, newest) = try_join(self.read(key), newest).await?;
        let last = newest.kvs.first().and_then(|entry| entry.key().strip_prefix(folder.as_bytes())).and_then(change_id);
        Ok(Before { entry: entry.kvs.pop(), change_id: id_after(Ulid::new(), last) })
    }

    /// Does `operations` together with the change, if the entry is the one of before.
    async fn write(&self, key: &str, before: &Before, mut operations: Vec<TxnOp>, change: &Change) -> Attempt<Written> {
        let change_key = self.shared.layout.change(&change.id);
        operations.push(TxnOp::put(change_key.clone(), encode(change)?, None));
        failpoint(key);
        let result = self.shared.etcd.txn(Txn::new().when([before.still_holds(key)]).and_then(operations)).await;
        let error = match result {
            Ok(response) if !response.succeeded() => return Ok(Written::Lost),
            Ok(response) => {
                let revision = response.header().map(etcd_client::ResponseHeader::revision);
                let revision = revision.ok_or_else(|| unknown("writing etcd", CallError::nonsense("the answer has no header")))?;
                self.prune().await;
                return Ok(Written::At(revision));
            }
            Err(error) => error,
        };
        match error.fate {
            Fate::NeverSent | Fate::Refused(Refusal::Token | Refusal::AnswerTooLarge | Refusal::Other) => Err(unavailable("writing etcd", error)),
            Fate::Refused(Refusal::NoSpace) => self.read_back(&change_key).await.map_or_else(|| Err(unavailable("writing etcd", error)), done),
            Fate::NoAnswer => self.read_back(&change_key).await.map_or_else(|| Err(unknown("writing etcd", error)), done),
        }
    }

    /// The revision under which a key was written, if it is there.
    async fn read_back(&self, key: &str) -> Option<i64> {
        let answer = timeout(READ_BACK_WITHIN, self.shared.etcd.get(key, GetOptions::new().with_keys_only())).await.ok()?.ok()?;
        answer.kvs.first().map(KeyValue::mod_revision)
    }

    async fn put<T: Serialize>(
        &self,
        key: String,
        value: &T,
        precondition: Precondition,
        topic: &TopicName,
        action: ChangeAction,
        author: Author,
    ) -> Attempt<PutOutcome> {
        let json = encode(value)?;
        let mut races = Races::new();
        loop {
            let before = self.read_before(&key).await?;
            precondition.check(before.revision())?;
            let change = change(&before, topic, action, before.value(), as_value(value)?, &author);
            let operations = vec![TxnOp::put(key.clone(), json.clone(), None)];
            if let Written::At(revision) = self.write(&key, &before, operations, &change).await? {
                return Ok(PutOutcome { revision, created: before.entry.is_none() });
            }
            if !races.again().await {
                return Err(too_many_races());
            }
        }
    }

    /// Removes the entry `key`, and `others` with it.
    async fn delete(
        &self,
        key: String,
        others: &[String],
        precondition: Precondition,
        topic: &TopicName,
        action: ChangeAction,
        author: Author,
    ) -> Attempt<i64> {
        let mut races = Races::new();
        loop {
            let before = self.read_before(&key).await?;
            if before.entry.is_none() {
                return Err(StoreError::NotFound);
            }
            precondition.check(before.revision())?;
            let change = change(&before, topic, action, before.value(), None, &author);
            let operations = std::iter::once(&key).chain(others).map(|key| TxnOp::delete(key.clone(), None)).collect();
            if let Written::At(revision) = self.write(&key, &before, operations, &change).await? {
                return Ok(revision);
            }
            if !races.again().await {
                return Err(too_many_races());
            }
        }
    }

    /// Removes the oldest changes beyond [`KEPT_CHANGES`], as well as it goes: the next write tries again.
    async fn prune(&self) {
        match timeout(PRUNE_WITHIN, self.try_prune()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error = error.line(), "old changes could not be removed"),
            Err(_) => debug!("old changes could not be removed in time"),
        }
    }

    async fn try_prune(&self) -> Result<(), CallError> {
        let folder = self.shared.layout.changes();
        let all = GetOptions::new().with_range(end_of(&folder));
        let count = self.shared.etcd.get(folder.clone(), all.clone().with_count_only()).await?.count;
        let excess = count - i64::try_from(KEPT_CHANGES).unwrap_or(i64::MAX);
        if excess <= 0 {
            return Ok(());
        }
        let oldest = all.with_sort(SortTarget::Key, SortOrder::Ascend).with_limit(excess).with_keys_only();
        let answer = self.shared.etcd.get(folder.clone(), oldest).await?;
        let Some(last) = answer.kvs.last() else { return Ok(()) };
        let mut end = last.key().to_vec();
        end.push(0);
        self.shared.etcd.txn(Txn::new().and_then([TxnOp::delete(folder, Some(DeleteOptions::new().with_range(end)))])).await?;
        Ok(())
    }

    async fn list_changes(&self, query: ChangesQuery) -> Attempt<Vec<Change>> {
        let folder = self.shared.layout.changes();
        let mut end = query.before.as_ref().map_or_else(|| end_of(&folder), |id| self.shared.layout.change(id).into_bytes());
        let wanted = query.limit.min(KEPT_CHANGES);
        let mut found = Vec::new();
        // `before` comes from outside; an end before the beginning would be a range of everything.
        while found.len() < wanted && end.as_slice() > folder.as_bytes() {
            let options = GetOptions::new().with_range(end).with_sort(SortTarget::Key, SortOrder::Descend).with_limit(CHANGES_PAGE);
            let page = self.shared.etcd.get(folder.clone(), options).await.map_err(|error| unavailable("reading the changes", error))?;
            found.extend(page.kvs.iter().filter_map(read_change).filter(|change| query.topic.as_ref().is_none_or(|topic| change.topic == *topic)));
            match page.kvs.last() {
                Some(last) if page.more => end = last.key().to_vec(),
                _ => break,
            }
        }
        found.truncate(wanted);
        Ok(found)
    }

    /// The facts in etcd, written through to the cache.
    async fn read_facts(&self, topic: &TopicName) -> Attempt<(Option<Facts>, i64)> {
        let key = self.shared.layout.facts(topic);
        let answer = self.read(&key).await?;
        let entry = answer.kvs.first();
        let facts = entry.map(|entry| decode(&key, entry.value())).transpose()?;
        self.keep_facts(key, facts.clone()).await;
        Ok((facts, entry.map_or(0, KeyValue::mod_revision)))
    }

    async fn keep_facts(&self, key: String, facts: Option<Facts>) {
        if let Err(error) = self.shared.cache.keep_facts(key, facts).await {
            warn!(error = causes::chain(&error), "a topic's facts could not be kept for work without etcd");
        }
    }

    async fn facts_or_cached(&self, topic: &TopicName) -> Attempt<Option<Facts>> {
        let error = match self.read_facts(topic).await {
            Ok((facts, _)) => return Ok(facts),
            Err(error) => error,
        };
        match self.shared.cache.facts(self.shared.layout.facts(topic)).await {
            Ok(Some(facts)) => Ok(Some(facts)),
            Ok(None) => Err(error),
            Err(cache_error) => {
                warn!(error = causes::chain(&cache_error), "the kept facts of a topic could not be read");
                Err(error)
            }
        }
    }

    /// Writes facts if the entry has this revision (0 for none); answers what is stored then.
    async fn write_facts(&self, topic: &TopicName, revision: i64, facts: Facts) -> Attempt<Facts> {
        let key = self.shared.layout.facts(topic);
        let still_holds = Compare::mod_revision(key.clone(), CompareOp::Equal, revision);
        let write = TxnOp::put(key.clone(), encode(&facts)?, None);
        match self.shared.etcd.txn(Txn::new().when([still_holds]).and_then([write])).await {
            Ok(response) if response.succeeded() => {
                self.keep_facts(key, Some(facts.clone())).await;
                Ok(facts)
            }
            // Somebody else was faster.
            Ok(_) => self.read_facts(topic).await?.0.ok_or(StoreError::NotFound),
            Err(error) if error.fate == Fate::NoAnswer => match timeout(READ_BACK_WITHIN, self.read_facts(topic)).await {
                Ok(Ok((Some(stored), at))) if at > revision => Ok(stored),
                _ => Err(unknown("writing facts", error)),
            },
            Err(error) => Err(unavailable("writing facts", error)),
        }
    }

    async fn take_as_it_is(&self) -> Attempt<()> {
        let mut views = self.shared.views.subscribe();
        let waits = self.shared.with_state(|state| {
            state.confirm();
            state.is_stale()
        });
        if !waits {
            return Ok(());
        }
        self.shared.wake.notify_one();
        let taken = async {
            while self.shared.with_state(|state| state.is_stale()) {
                if views.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(CONFIRM_WITHIN, taken).await.is_ok() {
            return Ok(());
        }
        self.shared.with_state(super::state::State::withdraw);
        Err(unavailable("reading etcd as it is now", CallError::timed_out()))
    }
}

impl TopicStore for EtcdStore {
    fn facts<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Option<Facts>, StoreError>> {
        Box::pin(self.facts_or_cached(topic))
    }

    fn create_facts<'a>(&'a self, topic: &'a TopicName, facts: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        Box::pin(async move {
            match self.read_facts(topic).await? {
                (Some(stored), _) => Ok(stored),
                (None, _) => self.write_facts(topic, 0, facts).await,
            }
        })
    }

    fn replace_facts<'a>(&'a self, topic: &'a TopicName, old: Facts, new: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        Box::pin(async move {
            match self.read_facts(topic).await? {
                (None, _) => Err(StoreError::NotFound),
                (Some(stored), revision) if stored == old => self.write_facts(topic, revision, new).await,
                (Some(stored), _) => Ok(stored),
            }
        })
    }

    fn topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Option<Stored<SpecFields>>, StoreError>> {
        Box::pin(async move {
            let key = self.shared.layout.topic(topic);
            let Some(entry) = self.read(&key).await?.kvs.pop() else { return Ok(None) };
            let value = decode(&key, entry.value())?;
            Ok(Some(Stored { key, revision: entry.mod_revision(), value }))
        })
    }

    fn put_topic<'a>(
        &'a self,
        topic: &'a TopicName,
        fields: SpecFields,
        precondition: Precondition,
        action: ChangeAction,
        author: Author,
    ) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(async move { self.put(self.shared.layout.topic(topic), &fields, precondition, topic, action, author).await })
    }

    fn delete_topic<'a>(&'a self, topic: &'a TopicName, precondition: Precondition, author: Author) -> BoxFuture<'a, Result<i64, StoreError>> {
        Box::pin(async move {
            let pause = self.shared.layout.pause(topic);
            self.delete(self.shared.layout.topic(topic), &[pause], precondition, topic, ChangeAction::Delete, author).await
        })
    }

    fn put_pause<'a>(&'a self, topic: &'a TopicName, pause: Pause, author: Author) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(async move { self.put(self.shared.layout.pause(topic), &pause, Precondition::Any, topic, ChangeAction::Pause, author).await })
    }

    fn delete_pause<'a>(&'a self, topic: &'a TopicName, author: Author) -> BoxFuture<'a, Result<i64, StoreError>> {
        Box::pin(async move {
            let key = self.shared.layout.pause(topic);
            self.delete(key, &[], Precondition::Any, topic, ChangeAction::Resume, author).await
        })
    }

    fn note<'a>(
        &'a self,
        topic: &'a TopicName,
        action: ChangeAction,
        before: Option<serde_json::Value>,
        after: Option<serde_json::Value>,
        author: Author,
    ) -> BoxFuture<'a, Result<i64, StoreError>> {
        Box::pin(async move {
            let key = self.shared.layout.topic(topic);
            let mut races = Races::new();
            loop {
                let read = self.read_before(&key).await?;
                let change = change(&read, topic, action, before.clone(), after.clone(), &author);
                if let Written::At(revision) = self.write(&key, &read, Vec::new(), &change).await? {
                    return Ok(revision);
                }
                if !races.again().await {
                    return Err(too_many_races());
                }
            }
        })
    }

    fn changes(&self, query: ChangesQuery) -> BoxFuture<'_, Result<Vec<Change>, StoreError>> {
        Box::pin(self.list_changes(query))
    }

    fn confirm(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.take_as_it_is())
    }

    fn views(&self) -> watch::Receiver<Arc<StoreView>> {
        self.shared.views.subscribe()
    }
}

/// `etcd_write KEY`: between reading an entry and writing it.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables, reason = "only tests inject faults"))]
fn failpoint(key: &str) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(&format!("etcd_write {key}"));
}

#[expect(clippy::unnecessary_wraps, reason = "stands where a result does")]
fn done(revision: i64) -> Attempt<Written> {
    Ok(Written::At(revision))
}

fn change(
    before: &Before,
    topic: &TopicName,
    action: ChangeAction,
    value_before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
    author: &Author,
) -> Change {
    Change {
        id: before.change_id.to_string(),
        revision: None,
        at: Timestamp::now(),
        actor: author.actor.clone(),
        source: author.source.to_owned(),
        request_id: author.request_id.clone(),
        topic: topic.clone(),
        action,
        before: value_before,
        after,
    }
}

/// The id of a change from its key's last part; `None` for what is no id.
fn change_id(name: &[u8]) -> Option<Ulid> {
    Ulid::from_string(std::str::from_utf8(name).ok()?).ok()
}

/// An id that is greater than the last one, also where the clock of who wrote that is ahead of ours. Pure.
fn id_after(fresh: Ulid, last: Option<Ulid>) -> Ulid {
    match last {
        Some(last) if last >= fresh => last.increment().unwrap_or(fresh),
        _ => fresh,
    }
}

/// A change as it is stored; one that cannot be read is left out of lists.
fn read_change(entry: &KeyValue) -> Option<Change> {
    match serde_json::from_slice::<Change>(entry.value()) {
        Ok(change) => Some(Change { revision: Some(entry.mod_revision()), ..change }),
        Err(error) => {
            warn!(key = shown(&String::from_utf8_lossy(entry.key())), %error, "a change in etcd is not readable");
            None
        }
    }
}

fn unavailable(what: &str, error: CallError) -> StoreError {
    StoreError::Unavailable { what: what.to_owned(), source: Box::new(error) }
}

fn unknown(what: &str, error: CallError) -> StoreError {
    StoreError::OutcomeUnknown { what: what.to_owned(), source: Box::new(error) }
}

fn too_many_races() -> StoreError {
    unavailable("writing etcd", CallError::nonsense("others were faster each time"))
}

fn decode<T: DeserializeOwned>(key: &str, json: &[u8]) -> Attempt<T> {
    serde_json::from_slice(json)
        .map_err(|error| StoreError::Unavailable { what: format!("the entry {} is not readable", shown(key)), source: Box::new(error) })
}

fn encode(value: &impl Serialize) -> Attempt<Vec<u8>> {
    serde_json::to_vec(value).map_err(no_json)
}

fn as_value(value: &impl Serialize) -> Attempt<Option<serde_json::Value>> {
    serde_json::to_value(value).map(Some).map_err(no_json)
}

fn no_json(error: serde_json::Error) -> StoreError {
    StoreError::Unavailable { what: "writing a value that has no JSON form".to_owned(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_also_behind_a_clock_that_is_ahead() {
        let now = Ulid::new();
        let ahead = Ulid::from_parts(now.timestamp_ms() + 60_000, 7);
        assert_eq!(id_after(now, None), now);
        assert!(id_after(now, Some(ahead)) > ahead);
        assert!(id_after(now, Some(now)) > now);
        assert_eq!(id_after(ahead, Some(now)), ahead);
    }

    #[test]
    fn what_is_no_id_does_not_count() {
        let id = Ulid::new();
        assert_eq!(change_id(id.to_string().as_bytes()), Some(id));
        for name in [&b""[..], b"x", b"\xff", b"01JF8Z5Q4W9G2M7XKTB3N6VRHC/x"] {
            assert_eq!(change_id(name), None);
        }
    }
}
