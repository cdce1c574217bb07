//! The dead letters of one instance, in an embedded database file.
//!
//! Guarantees what [`DeadLetters`] asks for, and all or none of a put also after an error: one transaction with fsync per [`DeadLetters::put`], ids unique, [`Error::Full`] before anything is written. A list reads no more of
//! the file than the topic and partition that it is asked for. Owns the file's tables. A letter that cannot be read back is left out of lists with a warning.
//!
//! Letters are keyed by topic, partition, offset and id: after a topic was re-created two letters may share the first three. `bytes` counts what is stored in the tables; the
//! file is larger by free pages, which later letters use again.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};
use serde::Deserialize;
use tracing::warn;

use super::{DeadLetter, DeadLetters, Error, Query, Seen};
use crate::embedded::{Abort, EmbeddedFile, Fault, begin_write, off_runtime};

/// Letters are written once and seldom read; the cache holds the pages above them.
const CACHE_BYTES: usize = 4 << 20;

/// What helps when the file cannot be read or written.
const REMEDY: &str = "check the store of the dead letters: disk space and rights of data_dir";

/// Topic, partition, offset, id.
type Key<'a> = (&'a str, i32, i64, &'a str);
/// Topic, partition, offset.
type Place<'a> = (&'a str, i32, i64);

/// Letters in the order of lists, as JSON.
const LETTERS: TableDefinition<'_, Key<'_>, &[u8]> = TableDefinition::new("letters");
/// Where the letter of an id is.
const PLACES: TableDefinition<'_, &str, Place<'_>> = TableDefinition::new("places");
/// Numbers about the tables.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Bytes in `letters` and `places`.
const BYTES: &str = "bytes";

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Unavailable { what: fault.what, remedy: REMEDY, source: fault.source }
    }
}

/// Dead letters in an embedded database file. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalDeadLetters {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: EmbeddedFile,
    max_bytes: u64,
    bytes: AtomicU64,
    /// Held by who writes, so that `bytes` follows the commits in their order.
    writer: Mutex<()>,
}

impl LocalDeadLetters {
    /// Opens or creates the file, which takes letters up to `max_bytes`. A file in which there is more already is opened and takes no new ones.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, Error> {
        let file = EmbeddedFile::open(path, CACHE_BYTES)?;
        let bytes = file.with(|database| -> Result<u64, Abort<Error>> {
            let transaction = begin_write(database)?;
            transaction.open_table(LETTERS)?;
            transaction.open_table(PLACES)?;
            let bytes = transaction.open_table(NUMBERS)?.get(BYTES)?.map_or(0, |bytes| bytes.value());
            transaction.commit()?;
            Ok(bytes)
        })?;
        Ok(Self { inner: Arc::new(Inner { file, max_bytes, bytes: AtomicU64::new(bytes), writer: Mutex::default() }) })
    }
}

impl DeadLetters for LocalDeadLetters {
    fn put(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>> {
        let inner = self.inner.clone();
        Box::pin(off_runtime(move || inner.put(letters, Strangers::Welcome)))
    }

    fn put_known(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>> {
        let inner = self.inner.clone();
        Box::pin(off_runtime(move || inner.put(letters, Strangers::LeftOut)))
    }

    fn count(&self, query: Query) -> BoxFuture<'_, Result<u64, Error>> {
        let inner = self.inner.clone();
        Box::pin(off_runtime(move || inner.file.with(|database| count(database, &query))))
    }

    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Error>> {
        let inner = self.inner.clone();
        let id = id.to_owned();
        Box::pin(off_runtime(move || Ok(inner.remove(&[id], |_, _| true)? > 0)))
    }

    fn remove_seen(&self, seen: Vec<Seen>) -> BoxFuture<'_, Result<usize, Error>> {
        let inner = self.inner.clone();
        Box::pin(off_runtime(move || {
            let ids: Vec<String> = seen.iter().map(|seen| seen.id.clone()).collect();
            inner.remove(&ids, |number, letter| letter.map(DeadLetter::seen).as_ref() == seen.get(number))
        }))
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>> {
        let inner = self.inner.clone();
        Box::pin(off_runtime(move || inner.file.with(|database| list(database, &query))))
    }

    fn get(&self, id: &str) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>> {
        let inner = self.inner.clone();
        let id = id.to_owned();
        Box::pin(off_runtime(move || inner.file.with(|database| get(database, &id))))
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }
}

/// What happens to letters that the store does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strangers {
    Welcome,
    LeftOut,
}

impl Inner {
    fn put(&self, letters: Vec<DeadLetter>, strangers: Strangers) -> Result<(), Error> {
        if letters.is_empty() {
            return Ok(());
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.file.with(|database| write(database, letters, strangers, self.max_bytes))?;
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the letters of these ids that `is_meant` names, by number and as they are now (`None` where a letter cannot be read); answers how many.
    fn remove(&self, ids: &[String], is_meant: impl Fn(usize, Option<&DeadLetter>) -> bool) -> Result<usize, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (removed, bytes) = self.file.with(|database| remove(database, ids, &is_meant))?;
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(removed)
    }
}

/// Removes letters in one transaction; answers how many, and the bytes in use after it.
fn remove(database: &Database, ids: &[String], is_meant: &impl Fn(usize, Option<&DeadLetter>) -> bool) -> Result<(usize, u64), Abort<Error>> {
    let transaction = begin_write(database)?;
    let result = {
        let mut numbers = transaction.open_table(NUMBERS)?;
        let mut tables = Tables { letters: transaction.open_table(LETTERS)?, places: transaction.open_table(PLACES)? };
        let mut bytes = numbers.get(BYTES)?.map_or(0, |bytes| bytes.value());
        let mut removed = 0;
        for (number, id) in ids.iter().enumerate() {
            if !tables.peek(id)?.is_some_and(|letter| is_meant(number, letter.as_ref())) {
                continue;
            }
            if let Some((_, freed)) = tables.take(id)? {
                bytes = bytes.saturating_sub(freed);
                removed += 1;
            }
        }
        numbers.insert(BYTES, bytes)?;
        (removed, bytes)
    };
    transaction.commit()?;
    Ok(result)
}

/// Writes all letters in one transaction; answers the bytes in use after it.
fn write(database: &Database, letters: Vec<DeadLetter>, strangers: Strangers, limit: u64) -> Result<u64, Abort<Error>> {
    let transaction = begin_write(database)?;
    let bytes = {
        let mut numbers = transaction.open_table(NUMBERS)?;
        let mut tables = Tables { letters: transaction.open_table(LETTERS)?, places: transaction.open_table(PLACES)? };
        let used = numbers.get(BYTES)?.map_or(0, |bytes| bytes.value());
        let mut bytes = used;
        let mut has_new = false;
        for mut letter in letters {
            match tables.take(&letter.id)? {
                Some((old, old_bytes)) => {
                    bytes = bytes.saturating_sub(old_bytes);
                    if let Some(old) = old {
                        letter.succeed(old.past());
                    }
                }
                None if strangers == Strangers::LeftOut => continue,
                None => has_new = true,
            }
            bytes = bytes.saturating_add(tables.insert(&letter)?);
        }
        if has_new && bytes > limit {
            return Err(Abort::Refused(Error::Full { used, limit }));
        }
        numbers.insert(BYTES, bytes)?;
        bytes
    };
    transaction.commit()?;
    Ok(bytes)
}

struct Tables<'t> {
    letters: Table<'t, Key<'static>, &'static [u8]>,
    places: Table<'t, &'static str, Place<'static>>,
}

impl Tables<'_> {
    /// The letter of this id; `Some(None)` where it cannot be read.
    fn peek(&self, id: &str) -> Result<Option<Option<DeadLetter>>, Abort<Error>> {
        let Some(place) = self.places.get(id)? else { return Ok(None) };
        let (topic, partition, offset) = place.value();
        let key = (topic, partition, offset, id);
        Ok(Some(self.letters.get(key)?.and_then(|json| decode(key, json.value()))))
    }

    /// Takes the letter of this id out: itself, unless it cannot be read, and the bytes that it used.
    fn take(&mut self, id: &str) -> Result<Option<(Option<DeadLetter>, u64)>, Abort<Error>> {
        let Some(place) = self.places.remove(id)? else { return Ok(None) };
        let (topic, partition, offset) = place.value();
        let key = (topic, partition, offset, id);
        let Some(json) = self.letters.remove(key)? else { return Ok(Some((None, 0))) };
        Ok(Some((decode(key, json.value()), used_bytes(key, json.value()))))
    }

    /// Puts a letter in whose id is free; answers the bytes that it uses.
    fn insert(&mut self, letter: &DeadLetter) -> Result<u64, Abort<Error>> {
        let json = serde_json::to_vec(letter).map_err(|error| {
            Abort::Refused(Error::Unavailable { what: format!("the letter {} has no JSON form", letter.id), remedy: REMEDY, source: Box::new(error) })
        })?;
        let place = (letter.topic.as_str(), letter.partition, letter.offset);
        let key = (place.0, place.1, place.2, letter.id.as_str());
        self.letters.insert(key, json.as_slice())?;
        self.places.insert(letter.id.as_str(), place)?;
        Ok(used_bytes(key, &json))
    }
}

/// The size of a letter's rows: the key and the value, and the id with the place.
fn used_bytes(key: Key<'_>, json: &[u8]) -> u64 {
    let numbers = size_of::<i32>() + size_of::<i64>();
    let (topic, _, _, id) = key;
    (2 * (topic.len() + numbers + id.len()) + json.len()) as u64
}

fn decode(key: Key<'_>, json: &[u8]) -> Option<DeadLetter> {
    let result = serde_json::from_slice(json);
    if let Err(error) = &result {
        let (topic, partition, offset, id) = key;
        warn!(topic, partition, offset, id, error = %error, "dead letter is not readable");
    }
    result.ok()
}

/// What a filter looks at besides the key; the rest of a letter is skipped without being copied.
#[derive(Deserialize)]
struct Death {
    error: DeathError,
    #[serde(with = "crate::status::time_text")]
    last_at: Timestamp,
}

#[derive(Deserialize)]
struct DeathError {
    #[serde(rename = "type")]
    kind: String,
}

fn count(database: &Database, query: &Query) -> Result<u64, Abort<Error>> {
    let query = Query { after: None, ..query.clone() };
    let mut found = 0;
    let table = database.begin_read()?.open_table(LETTERS)?;
    for row in table.range::<Key<'_>>(first_key(&query)..)? {
        let (key, value) = row?;
        let (topic, partition, offset, _) = key.value();
        if is_past(&query, (topic, partition, offset)) {
            break;
        }
        if query.partition.is_some_and(|wanted| wanted != partition) {
            continue;
        }
        let death: Option<Death> = serde_json::from_slice(value.value()).ok();
        found += u64::from(death.is_some_and(|death| query.admits_death(&death.error.kind, death.last_at)));
    }
    Ok(found)
}

fn list(database: &Database, query: &Query) -> Result<Vec<DeadLetter>, Abort<Error>> {
    let mut found: Vec<DeadLetter> = Vec::new();
    if query.limit == 0 {
        return Ok(found);
    }
    let table = database.begin_read()?.open_table(LETTERS)?;
    for row in table.range::<Key<'_>>(first_key(query)..)? {
        let (key, value) = row?;
        let (topic, partition, offset, id) = key.value();
        if found.len() >= query.limit || is_past(query, (topic, partition, offset)) {
            break;
        }
        let is_last_seen =
            query.after.as_ref().is_some_and(|after| (topic, partition, offset, id) == (after.0.as_str(), after.1, after.2, after.3.as_str()));
        if is_last_seen || query.partition.is_some_and(|wanted| wanted != partition) {
            continue;
        }
        if let Some(letter) = decode(key.value(), value.value()).filter(|letter| query.admits(letter)) {
            found.push(letter);
        }
    }
    Ok(found)
}

/// The first key under which letters of this query can be.
fn first_key(query: &Query) -> Key<'_> {
    let first_of_topic = query.topic.as_ref().map_or("", |topic| topic.as_str());
    // Without a topic the partition says nothing about where to begin.
    let first_partition = query.topic.as_ref().and(query.partition).unwrap_or(i32::MIN);
    let first = (first_of_topic, first_partition, i64::MIN, "");
    let after = query.after.as_ref().map(|(topic, partition, offset, id)| (topic.as_str(), *partition, *offset, id.as_str()));
    after.map_or(first, |after| after.max(first))
}

/// Whether no letter at this place or behind it can match.
fn is_past(query: &Query, place: Place<'_>) -> bool {
    let Some(topic) = &query.topic else { return false };
    place.0 != topic.as_str() || query.partition.is_some_and(|partition| place.1 > partition)
}

fn get(database: &Database, id: &str) -> Result<Option<DeadLetter>, Abort<Error>> {
    let transaction = database.begin_read()?;
    let Some(place) = transaction.open_table(PLACES)?.get(id)? else { return Ok(None) };
    let (topic, partition, offset) = place.value();
    let Some(json) = transaction.open_table(LETTERS)?.get((topic, partition, offset, id))? else { return Ok(None) };
    let letter = serde_json::from_slice(json.value()).map_err(|error| {
        Abort::Refused(Error::Unavailable { what: format!("the letter {id} is not readable"), remedy: REMEDY, source: Box::new(error) })
    })?;
    Ok(Some(letter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dead_letters::suite::{self, letter, letter_of, name, places, query};
    use crate::topic::document_id;

    struct Bench {
        directory: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().expect("a directory") }
        }

        fn open(&self, max_bytes: u64) -> LocalDeadLetters {
            LocalDeadLetters::open(&self.directory.path().join("dead_letters.redb"), max_bytes).expect("opens")
        }
    }

    #[tokio::test]
    async fn the_store_keeps_the_contract() {
        let benches = Mutex::new(Vec::new());
        suite::contract(async |max_bytes| {
            let bench = Bench::new();
            let store: Arc<dyn DeadLetters> = Arc::new(bench.open(max_bytes));
            benches.lock().expect("no panic").push(bench);
            store
        })
        .await;
    }

    #[tokio::test]
    async fn letters_and_their_size_survive_the_process() {
        let bench = Bench::new();
        let store = bench.open(1 << 20);
        store.put(vec![letter("a", 0, 1), letter("a", 0, 2)]).await.expect("kept");
        let bytes = store.bytes();
        assert!(bytes > 2 * 300, "{bytes}");
        drop(store);
        let reopened = bench.open(1 << 20);
        assert_eq!(reopened.bytes(), bytes);
        assert_eq!(reopened.get("base-a:0:2").await.expect("reads"), Some(letter("a", 0, 2)));
        assert_eq!(reopened.get("base-a:0:3").await.expect("reads"), None);
    }

    #[tokio::test]
    async fn a_full_store_refuses_all_of_a_batch_and_writes_nothing() {
        let bench = Bench::new();
        let store = bench.open(1000);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        let bytes = store.bytes();
        let refused = store.put(vec![letter("a", 0, 2), letter("a", 0, 3)]).await;
        assert!(matches!(refused, Err(Error::Full { used, limit: 1000 }) if used == bytes), "{refused:?}");
        assert_eq!((places(&store, query()).await.len(), store.bytes()), (1, bytes));
        drop(store);
        assert_eq!(bench.open(1000).bytes(), bytes);
    }

    #[tokio::test]
    async fn a_full_store_still_takes_letters_that_it_has() {
        let bench = Bench::new();
        bench.open(1 << 20).put(vec![letter("a", 0, 1), letter("a", 0, 2)]).await.expect("kept");
        let store = bench.open(10);
        let longer = DeadLetter { index: "a-longer-name".to_owned(), ..letter("a", 0, 1) };
        store.put(vec![longer]).await.expect("kept already");
        let refused = store.put(vec![letter("a", 0, 1), letter("a", 0, 9)]).await;
        assert!(matches!(refused, Err(Error::Full { limit: 10, .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn a_broken_letter_hides_no_other_and_can_be_put_again() {
        let bench = Bench::new();
        let store = bench.open(1 << 20);
        store.put(vec![letter("a", 0, 1), letter("a", 0, 2)]).await.expect("kept");
        let bytes = store.bytes();
        let broken: Result<(), Error> = store.inner.file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(LETTERS)?.insert(("a", 0, 1, "base-a:0:1"), b"{".as_slice())?;
            transaction.commit()?;
            Ok(())
        });
        broken.expect("written");
        assert_eq!(places(&store, query()).await, [("a".to_owned(), 0, 2)]);
        assert!(matches!(store.get("base-a:0:1").await, Err(Error::Unavailable { .. })));
        assert_eq!(store.remove_seen(vec![letter("a", 0, 1).seen()]).await.expect("nobody has seen this one"), 0);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        assert_eq!(store.get("base-a:0:1").await.expect("reads"), Some(letter("a", 0, 1)));
        assert!(store.bytes() >= bytes);
    }

    #[tokio::test]
    async fn letters_put_at_once_are_all_counted() {
        let bench = Bench::new();
        let store = bench.open(1 << 20);
        let puts = (10..30).map(|offset| store.put(vec![letter("a", 0, offset)]));
        for result in futures::future::join_all(puts).await {
            result.expect("kept");
        }
        let bytes = store.bytes();
        drop(store);
        let reopened = bench.open(1 << 20);
        assert_eq!((reopened.bytes(), places(&reopened, query()).await.len()), (bytes, 20));
    }

    #[tokio::test]
    async fn a_broken_letter_can_be_deleted() {
        let bench = Bench::new();
        let store = bench.open(1 << 20);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        let broken: Result<(), Error> = store.inner.file.with(|database| {
            let transaction = begin_write(database)?;
            transaction.open_table(LETTERS)?.insert(("a", 0, 1, "base-a:0:1"), b"{".as_slice())?;
            transaction.commit()?;
            Ok(())
        });
        broken.expect("written");
        assert!(store.delete("base-a:0:1").await.expect("deletes"));
        assert_eq!(store.get("base-a:0:1").await.expect("reads"), None);
    }

    #[test]
    fn a_second_user_of_the_file_is_refused() {
        let bench = Bench::new();
        let _first = bench.open(1);
        let error = LocalDeadLetters::open(&bench.directory.path().join("dead_letters.redb"), 1).expect_err("in use");
        assert!(error.to_string().contains("another drover uses this data_dir"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn pages_hold_every_letter_once_and_in_order(
            mut wanted in prop::collection::btree_set((prop::sample::select(vec!["a", "a.b", "ab", "b"]), 0..3_i32, -1..6_i64, 0..2_u8), 0..40),
            limit in 1..7_usize,
            topic in prop::option::of(prop::sample::select(vec!["a", "ab", "c"])),
            partition in prop::option::of(0..3_i32),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let bench = Bench::new();
                let store = bench.open(1 << 20);
                let letters = wanted.iter().rev().map(|(topic, partition, offset, base)| letter_of(&base.to_string(), topic, *partition, *offset)).collect();
                store.put(letters).await.expect("kept");
                wanted.retain(|letter| topic.is_none_or(|topic| letter.0 == topic) && partition.is_none_or(|partition| letter.1 == partition));
                let expected: Vec<String> =
                    wanted.iter().map(|(topic, partition, offset, base)| document_id(&format!("{base}-{topic}"), *partition, *offset)).collect();
                let mut found = Vec::new();
                let mut after = None;
                loop {
                    let page = store.list(Query { topic: topic.map(name), partition, after, limit, ..Query::default() }).await.expect("lists");
                    let Some(last) = page.last() else { break };
                    after = Some((last.topic.clone(), last.partition, last.offset, last.id.clone()));
                    found.extend(page.into_iter().map(|letter| letter.id));
                }
                assert_eq!(found, expected);
            });
        }
    }
}
