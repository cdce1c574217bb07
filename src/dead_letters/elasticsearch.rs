//! The dead letters of all instances, in one index of the sink: Elasticsearch or OpenSearch.
//!
//! Guarantees what [`DeadLetters`] asks for. A letter is durable when the bulk answer confirms it: the index is created with the server's default of an fsync before each
//! answer (`index.translog.durability: request`). Letters are merged under optimistic concurrency (`if_seq_no`, `create`), so what two instances write about one id at once is one entry in
//! which the attempts add up. [`Error::Full`] is said before anything is written. The index is created with drover's own mapping, at the first write and again when it has
//! vanished, and never by the server's guess. Nothing here runs scripts.
//!
//! What is weaker than in an embedded file:
//!
//! * A put is no transaction: after [`Error::Unavailable`] some of its letters may be there. They are put again, and their attempts then count once more; so do those of a
//!   request whose answer was lost.
//! * The size is an estimate: the sum of the payloads and a flat `wire::BYTES_BESIDE_PAYLOAD` for the rest of each letter. It is counted by the server when it is older than
//!   [`COUNT_EVERY`], and again before a letter is refused; between two counts what this process writes is added. Several instances may pass the limit by what they write within one [`COUNT_EVERY`].
//! * A letter is 4/3 of its record's size and some, and may be more than the server, or a proxy before it, takes in one request (413). Then it is kept without its payload, and if that is not
//!   enough without its key, marked `truncated`: place, reason and size are there, the record is in Kafka as long as that keeps it, and the letter cannot be redriven. A payload
//!   that was kept before stays. Only a letter that is refused even so keeps its partition waiting. The payload's whole size counts against the limit all the same.
//!
//! A letter is seen by id at once. A list refreshes the index before it searches, so it shows every letter that was put before; where the refresh is forbidden, it lags by the
//! index's refresh interval (1 s). A letter that cannot be read back is left out of lists with a warning.
//!
//! Owns its own connections to the nodes, apart from the bulk sink's: a sink that is slow or busy must not keep letters waiting.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::wire::{Batch, Form, Known, Trouble};
use super::{DeadLetter, DeadLetters, Error, Query, Seen};
use crate::config::ElasticsearchConfig;
use crate::sink::elasticsearch::SetupError;
use crate::sink::node::{self, Exchange, Node};

mod wire;

/// How old the count of bytes may be when something is written.
pub const COUNT_EVERY: Duration = Duration::from_secs(30);
/// How old it may be when a letter is refused for it.
const COUNT_BEFORE_REFUSAL: Duration = Duration::from_secs(1);

/// How long the server may take for something small.
const SMALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take for letters with their payloads, and to create the index: it waits up to 30 s for the first shard by itself.
const LARGE_TIMEOUT: Duration = Duration::from_secs(40);

/// Ids of one look-up.
const IDS_AT_ONCE: usize = 500;
/// Letters of one page of a search, while they are small; see [`PAGE_BYTES`].
const PAGE: usize = 100;
/// The longest answer to a search for several letters; for one of them it is [`LETTER_BYTES`].
const PAGE_BYTES: usize = 32 << 20;
/// The longest answer that holds one letter. The server takes no document above `http.max_content_length`, which is 100 MiB unless it is changed.
const LETTER_BYTES: usize = 128 << 20;
/// The longest answer to anything else: 500 letters without their payloads have less than 200 KiB.
const SMALL_BYTES: usize = 4 << 20;

/// How often a letter is merged anew because another writer was quicker, and how often an index is asked whose shard has not started.
const ROUNDS: u32 = 10;
/// The wait before the second round, at most; it doubles, up to [`ROUND_WAIT_MAX`].
const ROUND_WAIT: Duration = Duration::from_millis(20);
const ROUND_WAIT_MAX: Duration = Duration::from_millis(500);

/// Dead letters in an index. Connects to nothing before it is used.
#[derive(Debug)]
pub struct ElasticsearchDeadLetters {
    nodes: Vec<Node>,
    /// The node that answered last.
    preferred: AtomicUsize,
    index: String,
    /// The index as a path.
    path: String,
    max_bytes: u64,
    body_bytes: usize,
    bulk_timeout: Duration,
    /// Whether the index is known to have the mapping.
    is_checked: AtomicBool,
    usage: Mutex<Usage>,
    counting: tokio::sync::Mutex<()>,
}

/// What is known about the size of the index.
#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    counted: u64,
    counted_at: Option<Instant>,
    /// What this process has added since.
    added: i64,
}

impl Usage {
    fn bytes(&self) -> u64 {
        self.counted.saturating_add_signed(self.added)
    }
}

impl ElasticsearchDeadLetters {
    /// Letters in `index` on the sink's nodes, with its credentials, up to `max_bytes`. Reads certificate files, connects to nothing.
    pub fn new(sink: &ElasticsearchConfig, index: &str, max_bytes: u64) -> Result<Self, SetupError> {
        Ok(Self {
            nodes: node::clients(sink)?,
            preferred: AtomicUsize::new(0),
            index: index.to_owned(),
            path: wire::index_path(index),
            max_bytes,
            body_bytes: usize::try_from(sink.max_bytes).unwrap_or(usize::MAX),
            bulk_timeout: sink.timeout,
            is_checked: AtomicBool::new(false),
            usage: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
        })
    }

    /// Counts the bytes in use now and again, so that [`DeadLetters::bytes`] knows what others write. Without it the count is as old as the last write.
    pub async fn run(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let counted = async {
                if let Err(trouble) = self.count_when_older(COUNT_EVERY).await {
                    debug!(index = self.index, error = %trouble, "dead letters cannot be counted");
                }
                tokio::time::sleep(COUNT_EVERY).await;
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = counted => {}
            }
        }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, what: &str, trouble: Trouble) -> Error {
        Error::Unavailable { what: format!("the index {} cannot be {what}", self.index), remedy: trouble.remedy(), source: Box::new(trouble) }
    }

    async fn put_all(&self, letters: Vec<DeadLetter>, strangers: Strangers) -> Result<(), Error> {
        let mut left = one_for_each_id(letters);
        let mut is_admitted = false;
        for round in 0..ROUNDS {
            if left.is_empty() {
                return Ok(());
            }
            if round > 0 {
                pause(round).await;
            }
            let known = patiently(|| self.known(&left, strangers)).await.map_err(|trouble| self.unavailable("read", trouble))?;
            if strangers == Strangers::LeftOut {
                left.retain(|letter| known.contains_key(&letter.id));
            }
            if !is_admitted {
                self.admit(&left, &known).await?;
                is_admitted = true;
            }
            left = self.write(left, &known).await?;
        }
        if left.is_empty() {
            return Ok(());
        }
        let trouble = Trouble::passing(format!("{} letters were changed by others {ROUNDS} times in a row", left.len()));
        Err(self.unavailable("written", trouble))
    }

    /// What the index holds of these letters. Creates the index when it is missing and new letters are welcome.
    async fn known(&self, letters: &[DeadLetter], strangers: Strangers) -> Result<HashMap<String, Known>, Trouble> {
        let ids: Vec<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
        let Some(known) = self.look_up(&ids).await? else {
            if strangers == Strangers::Welcome {
                self.create_index().await?;
            }
            return Ok(HashMap::new());
        };
        if !self.is_checked.load(Ordering::Relaxed) {
            self.put_mapping().await?;
        }
        Ok(known)
    }

    /// What the index holds under these ids; `None` when there is no index.
    async fn look_up(&self, ids: &[&str]) -> Result<Option<HashMap<String, Known>>, Trouble> {
        let path = format!("{}/{}", self.path, wire::KNOWN_QUERY);
        let mut known = HashMap::new();
        for some in ids.chunks(IDS_AT_ONCE) {
            let body = wire::ids(some.iter().copied());
            let answer = self.ask(Method::POST, &path, Some(&body), SMALL_BYTES, SMALL_TIMEOUT).await;
            match answer.and_then(|answer| wire::read_known(&answer, some.len())) {
                Ok(found) => known.extend(found),
                Err(trouble) if trouble.is_missing_index() => return Ok(None),
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(Some(known))
    }

    /// Removes the letters of these ids that `is_meant` names, by number and as they are now; answers how many.
    async fn remove(&self, ids: Vec<String>, is_meant: impl Fn(usize, &Known) -> bool) -> Result<usize, Error> {
        let mut removed = 0;
        // The server refuses to look for an empty id, and no letter has it.
        let mut left: Vec<(usize, String)> = ids.into_iter().enumerate().filter(|(_, id)| !id.is_empty()).collect();
        for round in 0..ROUNDS {
            if left.is_empty() {
                return Ok(removed);
            }
            if round > 0 {
                pause(round).await;
            }
            let asked: Vec<&str> = left.iter().map(|(_, id)| id.as_str()).collect();
            let known = patiently(|| self.look_up(&asked)).await.map_err(|trouble| self.unavailable("read", trouble))?.unwrap_or_default();
            left.retain(|(number, id)| known.get(id).is_some_and(|known| is_meant(*number, known)));
            let (gone, again) = self.erase(left, &known).await?;
            removed += gone;
            left = again;
        }
        if left.is_empty() {
            return Ok(removed);
        }
        let trouble = Trouble::passing(format!("{} letters were changed by others {ROUNDS} times in a row", left.len()));
        Err(self.unavailable("written", trouble))
    }

    /// Removes letters as they are known; answers how many, and those that another writer changed meanwhile.
    async fn erase(&self, letters: Vec<(usize, String)>, known: &HashMap<String, Known>) -> Result<(usize, Vec<(usize, String)>), Error> {
        let mut batch = Batch::new(&self.index);
        for (place, (_, id)) in letters.iter().enumerate() {
            if let Some(known) = known.get(id) {
                batch.push(place, &wire::removal(&self.index, id, known));
            }
        }
        if batch.is_empty() {
            return Ok((0, Vec::new()));
        }
        let sent = letters.len();
        let mut again = self.send(batch).await.map_err(|trouble| self.unavailable("written", trouble))?.into_iter().peekable();
        let mut freed: i64 = 0;
        let mut left = Vec::new();
        for (place, letter) in letters.into_iter().enumerate() {
            if again.next_if_eq(&place).is_some() {
                left.push(letter);
            } else if let Some(known) = known.get(&letter.1) {
                freed = freed.saturating_add(i64::try_from(known.counted_bytes()).unwrap_or(i64::MAX));
            }
        }
        let mut usage = self.usage();
        usage.added = usage.added.saturating_sub(freed);
        Ok((sent - left.len(), left))
    }

    async fn create_index(&self) -> Result<(), Trouble> {
        match self.ask(Method::PUT, &self.path, Some(&wire::new_index()), SMALL_BYTES, LARGE_TIMEOUT).await {
            Ok(_) => {
                info!(index = self.index, "the index of the dead letters is created");
                self.is_checked.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(trouble) if trouble.is_existing_index() => self.put_mapping().await,
            Err(trouble) => Err(trouble),
        }
    }

    /// Makes sure that an index which was there has the mapping: nothing happens when it has, and one that contradicts is refused, since its letters could not be listed.
    async fn put_mapping(&self) -> Result<(), Trouble> {
        let path = format!("{}/_mapping", self.path);
        match self.ask(Method::PUT, &path, Some(&wire::mapping()), SMALL_BYTES, LARGE_TIMEOUT).await {
            Ok(_) => {}
            // To write documents is enough; who made the index knows its mapping.
            Err(trouble) if trouble.is_forbidden() => {
                debug!(index = self.index, error = %trouble, "the mapping of the dead letters cannot be checked")
            }
            Err(trouble) => return Err(trouble),
        }
        self.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Counts the letters in, or refuses them: a full store takes those that it has.
    async fn admit(&self, letters: &[DeadLetter], known: &HashMap<String, Known>) -> Result<(), Error> {
        let (growth, has_new) = wire::growth(letters, known);
        for age in [COUNT_EVERY, COUNT_BEFORE_REFUSAL] {
            patiently(|| self.count_when_older(age)).await.map_err(|trouble| self.unavailable("counted", trouble))?;
            let mut usage = self.usage();
            if !has_new || usage.bytes().saturating_add_signed(growth) <= self.max_bytes {
                usage.added = usage.added.saturating_add(growth);
                return Ok(());
            }
        }
        Err(Error::Full { used: self.usage().bytes(), limit: self.max_bytes })
    }

    /// Counts anew when the last count is older than that. What is written meanwhile may be counted twice until the next time, and never not at all.
    async fn count_when_older(&self, age: Duration) -> Result<(), Trouble> {
        let is_young = |usage: &Usage| usage.counted_at.is_some_and(|at| at.elapsed() < age);
        if is_young(&self.usage()) {
            return Ok(());
        }
        let _turn = self.counting.lock().await;
        let before = *self.usage();
        if is_young(&before) {
            return Ok(());
        }
        let counted = self.count().await?;
        let mut usage = self.usage();
        let added = usage.added.saturating_sub(before.added);
        *usage = Usage { counted, counted_at: Some(Instant::now()), added };
        Ok(())
    }

    async fn count(&self) -> Result<u64, Trouble> {
        self.refresh().await;
        let path = format!("{}/{SEARCH}", self.path);
        match self.ask(Method::POST, &path, Some(&wire::count()), SMALL_BYTES, SMALL_TIMEOUT).await {
            Ok(answer) => wire::read_count(&answer),
            Err(trouble) if trouble.is_missing_index() => Ok(0),
            Err(trouble) => Err(trouble),
        }
    }

    /// Writes the letters; answers those that another writer changed meanwhile, or whose index vanished.
    async fn write(&self, letters: Vec<DeadLetter>, known: &HashMap<String, Known>) -> Result<Vec<DeadLetter>, Error> {
        let mut again = Vec::new();
        let mut batch = Batch::new(&self.index);
        for (place, letter) in letters.iter().enumerate() {
            let lines = self.lines(letter, known, Form::Whole)?;
            if !batch.is_empty() && batch.body.len().saturating_add(lines.len()) > self.body_bytes {
                again.extend(self.send_or_shorten(std::mem::replace(&mut batch, Batch::new(&self.index)), &letters, known).await?);
            }
            batch.push(place, &lines);
        }
        again.extend(self.send_or_shorten(batch, &letters, known).await?);
        // In order, as batches and the failures in an answer are.
        let mut again = again.into_iter().peekable();
        Ok(letters.into_iter().enumerate().filter_map(|(place, letter)| again.next_if_eq(&place).map(|_| letter)).collect())
    }

    fn lines(&self, letter: &DeadLetter, known: &HashMap<String, Known>, form: Form) -> Result<Vec<u8>, Error> {
        wire::lines(&self.index, letter, known.get(&letter.id), form).map_err(|error| Error::Unavailable {
            what: format!("the letter {} has no JSON form", letter.id),
            remedy: "report this as a defect",
            source: Box::new(error),
        })
    }

    /// Sends a batch; when it is too large for the server, each of its letters alone, and one that is too large even so in a shorter form.
    async fn send_or_shorten(&self, batch: Batch, letters: &[DeadLetter], known: &HashMap<String, Known>) -> Result<wire::Conflicts, Error> {
        let places = batch.places().to_vec();
        match self.send(batch).await {
            Err(trouble) if trouble.is_too_large() => {}
            answer => return answer.map_err(|trouble| self.unavailable("written", trouble)),
        }
        let is_alone = places.len() == 1;
        let mut again = Vec::new();
        for place in places {
            let Some(letter) = letters.get(place) else { continue };
            let forms = if is_alone { &Form::ALL[1..] } else { &Form::ALL[..] };
            again.extend(self.send_in_some_form(place, letter, known, forms).await?);
        }
        Ok(again)
    }

    /// Sends one letter in the first of these forms that the server does not find too large.
    async fn send_in_some_form(
        &self,
        place: usize,
        letter: &DeadLetter,
        known: &HashMap<String, Known>,
        forms: &[Form],
    ) -> Result<wire::Conflicts, Error> {
        let mut last = Trouble::passing("there is no form to send".to_owned());
        for form in forms {
            let mut batch = Batch::new(&self.index);
            batch.push(place, &self.lines(letter, known, *form)?);
            match self.send(batch).await {
                Err(trouble) if trouble.is_too_large() => last = trouble,
                Err(trouble) => return Err(self.unavailable("written", trouble)),
                Ok(conflicts) => {
                    if *form != Form::Whole && conflicts.is_empty() {
                        warn!(
                            index = self.index,
                            id = letter.id,
                            topic = %letter.topic,
                            partition = letter.partition,
                            offset = letter.offset,
                            payload_bytes = letter.payload_bytes,
                            "the dead letter is too large for the server and is kept without its payload; the record is in Kafka as long as that keeps it"
                        );
                    }
                    return Ok(conflicts);
                }
            }
        }
        Err(self.unavailable("written", last))
    }

    async fn send(&self, mut batch: Batch) -> Result<wire::Conflicts, Trouble> {
        fail::fail_point!("dead_letters_bulk");
        let body = Bytes::from(std::mem::take(&mut batch.body));
        let answer = self.on_some_node(|node| node.bulk(vec![body.clone()], batch.items(), self.bulk_timeout)).await?;
        batch.read(&answer)
    }

    async fn count_matching(&self, query: &Query) -> Result<u64, Trouble> {
        self.refresh().await;
        let path = format!("{}/{SEARCH}", self.path);
        let body = wire::matching(query);
        match patiently(|| self.ask(Method::POST, &path, Some(&body), SMALL_BYTES, SMALL_TIMEOUT)).await {
            Ok(answer) => wire::read_total(&answer),
            Err(trouble) if trouble.is_missing_index() => Ok(0),
            Err(trouble) => Err(trouble),
        }
    }

    async fn list_all(&self, query: Query) -> Result<Vec<DeadLetter>, Trouble> {
        let mut found = Vec::new();
        let mut after = query.after.as_ref().map(wire::sort_values);
        let mut page_size = PAGE;
        let path = format!("{}/{SEARCH}", self.path);
        if query.limit > 0 {
            self.refresh().await;
        }
        while found.len() < query.limit {
            let size = page_size.min(query.limit - found.len());
            let limit = if size == 1 { LETTER_BYTES } else { PAGE_BYTES };
            let body = wire::search(&query, after.as_ref(), size);
            let page = match patiently(|| self.ask(Method::POST, &path, Some(&body), limit, LARGE_TIMEOUT)).await {
                Ok(answer) => wire::read_page(&answer)?,
                Err(trouble) if trouble.is_missing_index() => break,
                // Large letters come a few at a time.
                Err(trouble) if trouble.is_broken && size > 1 => {
                    page_size = size / 2;
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            found.extend(page.letters.into_iter().filter(|letter| query.admits(letter)));
            if page.hits < size {
                break;
            }
            after = page.last;
        }
        Ok(found)
    }

    /// Makes what is written visible to searches. When that is refused, lists and counts lag; whatever is wrong besides, the search that follows says.
    async fn refresh(&self) {
        let path = format!("{}/_refresh", self.path);
        if let Err(trouble) = self.ask(Method::POST, &path, None, SMALL_BYTES, SMALL_TIMEOUT).await {
            debug!(index = self.index, error = %trouble, "the index of the dead letters is not refreshed");
        }
    }

    async fn get_one(&self, id: &str) -> Result<Option<DeadLetter>, Error> {
        // The server refuses to look for it, and no letter has it.
        if id.is_empty() {
            return Ok(None);
        }
        let path = format!("{}/_mget", self.path);
        let body = wire::ids(std::iter::once(id));
        let asked = async || {
            let answer = self.ask(Method::POST, &path, Some(&body), LETTER_BYTES, LARGE_TIMEOUT).await;
            answer.and_then(|answer| wire::read_letter(&answer))
        };
        match patiently(asked).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(letter))) => Ok(Some(letter)),
            Ok(Some(Err(error))) => Err(Error::Unavailable {
                what: format!("the letter {id} is not readable"),
                remedy: "look at the document in the index, and delete it if it is none of drover's",
                source: Box::new(error),
            }),
            Err(trouble) if trouble.is_missing_index() => Ok(None),
            Err(trouble) => Err(self.unavailable("read", trouble)),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>, limit: usize, timeout: Duration) -> Result<Bytes, Trouble> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.on_some_node(|node| node.send(method.clone(), path, body.clone(), limit, timeout)).await
    }

    /// The answer of the first node that gives one, beginning with the one that answered last. Everything that is asked here may be asked twice: writes carry a condition.
    async fn on_some_node<'a, F: Future<Output = Exchange>>(&'a self, request: impl Fn(&'a Node) -> F) -> Result<Bytes, Trouble> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = Trouble::without_answer("there is no node".to_owned());
        for step in 0..self.nodes.len() {
            let number = (first + step) % self.nodes.len();
            let Some(node) = self.nodes.get(number) else { continue };
            match request(node).await {
                Exchange::Answered { status: 200..=299, body } => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return Ok(body);
                }
                Exchange::Answered { status, body } => return Err(Trouble::refused(status, &body)),
                Exchange::Broken(text) => return Err(Trouble::broken(text)),
                Exchange::Redirected(text) => return Err(Trouble::without_answer(text)),
                Exchange::NoAnswer(text) => last = Trouble::without_answer(text),
            }
        }
        Err(last)
    }
}

/// A search that fails as a whole when some shard does: a list must not have holes.
const SEARCH: &str = "_search?allow_partial_search_results=false";

impl DeadLetters for ElasticsearchDeadLetters {
    fn put(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.put_all(letters, Strangers::Welcome))
    }

    fn put_known(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.put_all(letters, Strangers::LeftOut))
    }

    fn count(&self, query: Query) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move { self.count_matching(&query).await.map_err(|trouble| self.unavailable("read", trouble)) })
    }

    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Error>> {
        let id = id.to_owned();
        Box::pin(async move { Ok(self.remove(vec![id], |_, _| true).await? > 0) })
    }

    fn remove_seen(&self, seen: Vec<Seen>) -> BoxFuture<'_, Result<usize, Error>> {
        Box::pin(async move {
            let ids = seen.iter().map(|seen| seen.id.clone()).collect();
            self.remove(ids, |number, known| seen.get(number).is_some_and(|seen| known.is(seen))).await
        })
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>> {
        Box::pin(async move { self.list_all(query).await.map_err(|trouble| self.unavailable("read", trouble)) })
    }

    fn get(&self, id: &str) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>> {
        let id = id.to_owned();
        Box::pin(async move { self.get_one(&id).await })
    }

    /// Bytes in use: 0 before the first count.
    fn bytes(&self) -> u64 {
        self.usage().bytes()
    }
}

/// What happens to letters that the index does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strangers {
    Welcome,
    LeftOut,
}

/// Asks again for a short while, as long as the shard of a new index has not started: whoever created it waits for that, and others may be quicker.
async fn patiently<T, F: Future<Output = Result<T, Trouble>>>(request: impl Fn() -> F) -> Result<T, Trouble> {
    for round in 1..ROUNDS {
        match request().await {
            Err(trouble) if trouble.is_starting() => pause(round).await,
            answer => return answer,
        }
    }
    request().await
}

/// A pause by chance, so that those who collided do not collide again.
async fn pause(round: u32) {
    let longest = ROUND_WAIT.saturating_mul(1 << round.min(16)).min(ROUND_WAIT_MAX);
    tokio::time::sleep(longest.mul_f64(rand::random::<f64>())).await;
}

/// Letters of one id made one, each the successor of the one before.
fn one_for_each_id(letters: Vec<DeadLetter>) -> Vec<DeadLetter> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<DeadLetter> = Vec::with_capacity(letters.len());
    for mut letter in letters {
        match places.entry(letter.id.clone()) {
            Entry::Vacant(free) => {
                free.insert(kept.len());
                kept.push(letter);
            }
            Entry::Occupied(place) => {
                if let Some(before) = kept.get_mut(*place.get()) {
                    letter.succeed(before.past());
                    *before = letter;
                }
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::super::suite::{self, letter, query};
    use super::*;
    use crate::config::{Compression, SinkAuth};

    /// What happens to the next request whose path contains a text, instead of the usual.
    #[derive(Debug, Clone)]
    enum Instead {
        Answer(u16, String),
        /// Another writer replaces every document first.
        AnotherWriter,
        /// Done, and the connection ends without an answer.
        CutAfterwards,
    }

    /// As much of an index as the store uses, in memory. `tests/real` shows that a real server does the same.
    #[derive(Default)]
    struct Fake {
        /// Sequence number and source by id; `None` while there is no index.
        documents: Option<BTreeMap<String, (i64, Value)>>,
        seq_no: i64,
        script: Vec<(&'static str, Instead)>,
        requests: Vec<String>,
        /// The longest body that is taken, as a proxy has it.
        longest: Option<usize>,
    }

    impl Fake {
        fn next_seq_no(&mut self) -> i64 {
            self.seq_no += 1;
            self.seq_no
        }

        fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
            let missing = json!({"error": {"type": "index_not_found_exception", "reason": "no such index [letters]"}, "status": 404});
            match (method, path.split('?').next().unwrap_or_default()) {
                ("PUT", "/letters") => {
                    self.documents.get_or_insert_default();
                    (200, json!({"acknowledged": true}))
                }
                ("POST", "/_bulk") => (200, self.bulk(body)),
                ("POST", "/letters/_mget") => (200, self.look_up(body)),
                _ if self.documents.is_none() => (404, missing),
                ("PUT", "/letters/_mapping") | ("POST", "/letters/_refresh") => (200, json!({"acknowledged": true})),
                ("POST", "/letters/_search") => (200, self.search(&serde_json::from_slice(body).expect("JSON"))),
                _ => panic!("{method} {path}"),
            }
        }

        fn look_up(&self, body: &[u8]) -> Value {
            let asked: Value = serde_json::from_slice(body).expect("JSON");
            let document = |id: &Value| match &self.documents {
                None => json!({"_id": id, "error": {"type": "index_not_found_exception", "reason": "no such index"}}),
                Some(documents) => match documents.get(id.as_str().expect("an id")) {
                    Some((seq_no, source)) => json!({"_id": id, "_seq_no": seq_no, "_primary_term": 1, "found": true, "_source": source}),
                    None => json!({"_id": id, "found": false}),
                },
            };
            json!({"docs": asked["ids"].as_array().expect("ids").iter().map(document).collect::<Vec<_>>()})
        }

        fn bulk(&mut self, body: &[u8]) -> Value {
            let lines: Vec<Value> = body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
            let mut lines = lines.iter();
            let mut items = Vec::new();
            while let Some(action) = lines.next() {
                let source = if action.get("delete").is_some() { &Value::Null } else { lines.next().expect("a source") };
                items.push(self.item(action, source));
            }
            json!({"errors": true, "items": items})
        }

        fn item(&mut self, action: &Value, source: &Value) -> Value {
            let (operation, meta) = action.as_object().and_then(|action| action.iter().next()).expect("an action");
            let failure = |status: u16, kind: &str| json!({operation: {"status": status, "error": {"type": kind, "reason": "r"}}});
            let id = meta["_id"].as_str().expect("an id");
            let seq_no = self.next_seq_no();
            let Some(documents) = &mut self.documents else { return failure(404, "index_not_found_exception") };
            if meta["require_alias"] == true {
                return failure(404, "index_not_found_exception");
            }
            let expected = meta["if_seq_no"].as_i64();
            if documents.get(id).map(|document| document.0) != expected {
                return failure(409, "version_conflict_engine_exception");
            }
            match operation.as_str() {
                "delete" => drop(documents.remove(id)),
                "update" => {
                    let (last, document) = documents.get_mut(id).expect("has a sequence number");
                    *last = seq_no;
                    document.as_object_mut().expect("an object").extend(source["doc"].as_object().expect("an object").clone());
                }
                _ => drop(documents.insert(id.to_owned(), (seq_no, source.clone()))),
            }
            json!({operation: {"status": 201}})
        }

        fn search(&self, body: &Value) -> Value {
            let documents = self.documents.as_ref().expect("an index");
            if let (true, Some(filters)) = (body["size"] == 0, body["query"]["bool"]["filter"].as_array()) {
                let total = documents.values().filter(|document| filters.iter().all(|filter| passes(filter, &document.1))).count();
                return json!({"timed_out": false, "hits": {"total": {"value": total, "relation": "eq"}, "hits": []}});
            }
            if body["size"] == 0 {
                let sum: f64 = documents.values().filter_map(|document| document.1["payload_bytes"].as_f64()).sum();
                return json!({"timed_out": false, "hits": {"total": {"value": documents.len(), "relation": "eq"}, "hits": []}, "aggregations": {"payload": {"value": sum}}});
            }
            let place = |source: &Value| (text(&source["topic"]), source["partition"].as_i64(), source["offset"].as_i64(), text(&source["id"]));
            let after = body["search_after"].as_array().map(|after| (text(&after[0]), after[1].as_i64(), after[2].as_i64(), text(&after[3])));
            let filters = body["query"]["bool"]["filter"].as_array().expect("filters");
            let mut found: Vec<&Value> =
                documents.values().map(|document| &document.1).filter(|source| filters.iter().all(|filter| passes(filter, source))).collect();
            found.retain(|source| after.as_ref().is_none_or(|after| place(source) > *after));
            found.sort_by_key(|source| place(source));
            found.truncate(body["size"].as_u64().expect("a size") as usize);
            let hit = |source: &&Value| json!({"_id": source["id"], "_source": source, "sort": [source["topic"], source["partition"], source["offset"], source["id"]]});
            json!({"timed_out": false, "hits": {"hits": found.iter().map(hit).collect::<Vec<_>>()}})
        }
    }

    fn text(value: &Value) -> String {
        value.as_str().unwrap_or_default().to_owned()
    }

    fn passes(filter: &Value, source: &Value) -> bool {
        if let Some(term) = filter["term"].as_object() {
            return term.iter().all(|(field, value)| source.pointer(&format!("/{}", field.replace('.', "/"))) == Some(value));
        }
        let range = &filter["range"]["last_at"];
        let last_at = text(&source["last_at"]).parse::<jiff::Timestamp>().expect("a time").as_millisecond();
        range["gte"].as_i64().is_none_or(|from| last_at >= from) && range["lte"].as_i64().is_none_or(|to| last_at <= to)
    }

    struct Server {
        fake: Arc<Mutex<Fake>>,
        url: String,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            let fake = Arc::new(Mutex::new(Fake::default()));
            let state = fake.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = state.clone();
                    let service = service_fn(move |request| respond(request, state.clone()));
                    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
            });
            Self { fake, url }
        }

        fn fake(&self) -> MutexGuard<'_, Fake> {
            self.fake.lock().expect("no panic in the fake")
        }

        fn script(&self, path: &'static str, instead: Instead) {
            self.fake().script.push((path, instead));
        }

        fn refuse(&self, path: &'static str, status: u16, kind: &str) {
            self.script(path, Instead::Answer(status, json!({"error": {"type": kind, "reason": "because"}, "status": status}).to_string()));
        }

        fn store(&self, max_bytes: u64) -> ElasticsearchDeadLetters {
            store(&[&self.url], max_bytes)
        }

        fn requests(&self, part: &str) -> usize {
            self.fake().requests.iter().filter(|request| request.contains(part)).count()
        }
    }

    async fn respond(request: Request<Incoming>, state: Arc<Mutex<Fake>>) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.map_err(io::Error::other)?;
        let path = head.uri.to_string();
        let mut fake = state.lock().map_err(|_| io::Error::other("a panic"))?;
        fake.requests.push(format!("{} {path}", head.method));
        let place = fake.script.iter().position(|(part, _)| path.contains(part));
        let instead = place.map(|place| fake.script.remove(place).1);
        if let Some(Instead::Answer(status, text)) = instead {
            return Ok(response(status, text));
        }
        if let Some(Instead::AnotherWriter) = instead {
            let seq_no = fake.next_seq_no();
            fake.documents.iter_mut().flat_map(BTreeMap::values_mut).for_each(|document| document.0 = seq_no);
        }
        if fake.longest.is_some_and(|longest| body.len() > longest) {
            return Ok(response(413, "<html>413 Request Entity Too Large</html>".to_owned()));
        }
        let (status, answer) = fake.answer(head.method.as_str(), &path, &body);
        match instead {
            Some(Instead::CutAfterwards) => Err(io::Error::other("cut")),
            _ => Ok(response(status, answer.to_string())),
        }
    }

    fn response(status: u16, text: String) -> Response<Body> {
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status.try_into().expect("a status");
        response
    }

    fn store(urls: &[&str], max_bytes: u64) -> ElasticsearchDeadLetters {
        let config = ElasticsearchConfig {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            auth: SinkAuth::Anonymous,
            ca_file: None,
            client_identity: None,
            max_bytes: 2000,
            linger: Duration::ZERO,
            in_flight: 1,
            timeout: Duration::from_secs(10),
            compression: Compression::Off,
        };
        ElasticsearchDeadLetters::new(&config, "letters", max_bytes).expect("a store")
    }

    /// The text of the cause and the remedy.
    fn unavailable(result: Result<impl std::fmt::Debug, Error>) -> (String, &'static str) {
        match result {
            Err(error @ Error::Unavailable { .. }) => (std::error::Error::source(&error).expect("a cause").to_string(), error.remedy()),
            other => panic!("not unavailable: {other:?}"),
        }
    }

    #[tokio::test]
    async fn the_store_keeps_the_contract() {
        let servers = Mutex::new(Vec::new());
        suite::contract(async |max_bytes| {
            let server = Server::start().await;
            let store: Arc<dyn DeadLetters> = Arc::new(server.store(max_bytes));
            servers.lock().expect("no panic").push(server);
            store
        })
        .await;
    }

    #[tokio::test]
    async fn what_the_server_refuses_is_told_with_a_remedy_and_waits() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        for (status, kind, expected) in [
            (403, "security_exception", "credentials"),
            (401, "security_exception", "credentials"),
            (403, "cluster_block_exception", "remove the block"),
            (400, "index_closed_exception", "_open"),
            (429, "es_rejected_execution_exception", "under pressure"),
            (503, "", "under pressure"),
            (400, "illegal_argument_exception", "mapping"),
            (405, "", "elasticsearch.urls"),
        ] {
            for path in ["/_mget", "/_bulk"] {
                server.refuse(path, status, kind);
                let (text, remedy) = unavailable(store.put(vec![letter("a", 0, 2)]).await);
                assert!(text.contains(&status.to_string()) && text.contains(kind) && remedy.contains(expected), "{text}: {remedy}");
            }
            server.refuse("/_search", status, kind);
            let (_, remedy) = unavailable(store.list(query()).await);
            assert!(remedy.contains(expected), "{remedy}");
        }
        let limit = json!({"error": {"type": "validation_exception", "reason": "this action would add [2] shards"}, "status": 400}).to_string();
        server.fake().documents = None;
        server.script("/letters", Instead::Answer(404, json!({"error": {"type": "index_not_found_exception", "reason": "r"}}).to_string()));
        server.script("/letters", Instead::Answer(400, limit));
        let (_, remedy) = unavailable(store.put(vec![letter("a", 0, 2)]).await);
        assert!(remedy.contains("max_shards_per_node"), "{remedy}");
        store.put(vec![letter("a", 0, 2)]).await.expect("kept");
        assert_eq!(store.list(query()).await.expect("lists"), [letter("a", 0, 2)]);
    }

    #[tokio::test]
    async fn a_letter_too_large_for_the_server_is_kept_without_its_payload_and_its_neighbours_whole() {
        let server = Server::start().await;
        server.fake().longest = Some(4000);
        let store = server.store(1 << 30);
        let large = suite::with_payload(letter("a", 0, 2), &[1; 5000]);
        let large_key = DeadLetter { key_base64: Some("A".repeat(8000)), ..suite::with_payload(letter("a", 0, 3), &[1; 5000]) };
        store.put(vec![letter("a", 0, 1), large.clone(), large_key.clone(), letter("a", 0, 4)]).await.expect("kept");
        let without_payload = DeadLetter { payload_base64: None, truncated: true, ..large.clone() };
        let without_key = DeadLetter { payload_base64: None, truncated: true, key_base64: None, ..large_key };
        assert_eq!(store.list(query()).await.expect("lists"), [letter("a", 0, 1), without_payload.clone(), without_key, letter("a", 0, 4)]);
        assert!(!without_payload.is_whole());

        // It remembers like any other.
        store.put(vec![large]).await.expect("kept");
        let expected = DeadLetter { attempts: 2, ..without_payload };
        assert_eq!(store.get(&expected.id).await.expect("reads"), Some(expected));
    }

    #[tokio::test]
    async fn a_payload_that_was_kept_is_not_given_up_when_the_server_takes_less() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        let large = suite::with_payload(letter("a", 0, 1), &[1; 5000]);
        store.put(vec![large.clone()]).await.expect("kept");
        server.fake().longest = Some(4000);
        let again = DeadLetter { last_at: suite::at(300), cause: crate::dead_letters::Cause::TooLarge, ..large };
        store.put(vec![again.clone()]).await.expect("kept");
        assert_eq!(store.get(&again.id).await.expect("reads"), Some(DeadLetter { attempts: 2, ..again }));
    }

    #[tokio::test]
    async fn a_letter_that_is_too_large_even_without_its_payload_waits_with_a_remedy() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        server.fake().longest = Some(200);
        let (text, remedy) = unavailable(store.put(vec![letter("a", 0, 2)]).await);
        assert!(text.contains("413") && remedy.contains("http.max_content_length"), "{text}: {remedy}");
    }

    #[tokio::test]
    async fn a_removal_that_meets_a_writer_looks_again() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        for _ in 0..3 {
            server.script("/_bulk", Instead::AnotherWriter);
        }
        assert!(store.delete("base-a:0:1").await.expect("deleted in the fourth round"));
        assert_eq!((store.get("base-a:0:1").await.expect("reads"), store.bytes()), (None, 0));
    }

    #[tokio::test]
    async fn an_item_that_is_refused_fails_the_put_and_the_put_again_keeps_all() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        let guard = json!({"index": {"status": 404, "error": {"type": "index_not_found_exception", "reason": "r"}}});
        let refused = json!({"create": {"status": 400, "error": {"type": "document_parsing_exception", "reason": "r"}}});
        server.script("/_bulk", Instead::Answer(200, json!({"errors": true, "items": [guard, refused]}).to_string()));
        let (text, remedy) = unavailable(store.put(vec![letter("a", 0, 2)]).await);
        assert!(text.contains("document_parsing_exception") && remedy.contains("mapping"), "{text}: {remedy}");
        store.put(vec![letter("a", 0, 2)]).await.expect("kept");
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_never_taken_for_nothing_there() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        for body in ["<html>it works</html>", "{}", "", r#"{"docs":[]}"#, r#"{"docs":[{"_id":"base-a:0:1"}]}"#, r#"{"errors":false,"items":[]}"#] {
            let answer = || Instead::Answer(200, body.to_owned());
            server.script("/_mget", answer());
            unavailable(store.get("base-a:0:1").await);
            server.script("/_search", answer());
            unavailable(store.list(query()).await);
            server.script("/_bulk", answer());
            unavailable(store.put(vec![letter("a", 0, 2)]).await);
        }
        server.refuse("/_mget", 404, "");
        unavailable(store.get("base-a:0:1").await);
        assert_eq!(store.get("base-a:0:1").await.expect("reads"), Some(letter("a", 0, 1)));
    }

    #[tokio::test]
    async fn a_lost_answer_loses_no_letter_and_counts_it_once_more_at_most() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        for offset in [1, 2] {
            server.script("/_bulk", Instead::CutAfterwards);
            while store.put(vec![letter("a", 0, offset)]).await.is_err() {}
        }
        let attempts: Vec<u32> = store.list(query()).await.expect("lists").iter().map(|letter| letter.attempts).collect();
        assert_eq!(attempts, [2, 2]);
    }

    #[tokio::test]
    async fn a_letter_that_others_change_all_the_time_is_given_up_after_a_while() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        for _ in 0..3 {
            server.script("/_bulk", Instead::AnotherWriter);
        }
        store.put(vec![letter("a", 0, 1)]).await.expect("kept in the fourth round");
        for _ in 0..ROUNDS {
            server.script("/_bulk", Instead::AnotherWriter);
        }
        let (text, _) = unavailable(store.put(vec![letter("a", 0, 1)]).await);
        assert!(text.contains("changed by others"), "{text}");
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        assert_eq!(store.get("base-a:0:1").await.expect("reads").map(|letter| letter.attempts), Some(3));
    }

    #[tokio::test]
    async fn a_shard_that_has_not_started_is_waited_for() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        let starting = "no_shard_available_action_exception";
        let looked_up = json!({"docs": [{"_id": "base-a:0:1", "error": {"type": starting, "reason": "r"}}]}).to_string();
        server.script("/_mget", Instead::Answer(200, looked_up.clone()));
        server.refuse("/_search", 503, "search_phase_execution_exception");
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        server.refuse("/_search", 503, starting);
        assert_eq!(store.list(query()).await.expect("lists"), [letter("a", 0, 1)]);
        server.script("/_mget", Instead::Answer(200, looked_up.clone()));
        assert_eq!(store.get("base-a:0:1").await.expect("reads"), Some(letter("a", 0, 1)));
        for _ in 0..ROUNDS {
            server.script("/_mget", Instead::Answer(200, looked_up.clone()));
        }
        let (text, remedy) = unavailable(store.put(vec![letter("a", 0, 1)]).await);
        assert!(text.contains(starting) && remedy.contains("not ready"), "{text}: {remedy}");
    }

    #[tokio::test]
    async fn a_node_that_is_gone_is_passed_over_and_not_asked_first_again() {
        let server = Server::start().await;
        let store = store(&["http://127.0.0.1:1", &server.url], 1 << 30);
        store.put(vec![letter("a", 0, 1)]).await.expect("kept");
        assert_eq!(store.preferred.load(Ordering::Relaxed), 1);
        let alone = super::tests::store(&["http://127.0.0.1:1"], 1 << 30);
        let (_, remedy) = unavailable(alone.put(vec![letter("a", 0, 1)]).await);
        assert!(remedy.contains("can be reached"), "{remedy}");
        assert_eq!(alone.bytes(), 0);
    }

    #[tokio::test]
    async fn large_puts_go_in_bodies_of_the_configured_size() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        // A letter has some 600 bytes of the 2000; one alone may have more.
        let mut letters: Vec<DeadLetter> = (0..6).map(|offset| letter("a", 0, offset)).collect();
        letters.push(suite::with_payload(letter("a", 0, 6), &[1; 5000]));
        store.put(letters.clone()).await.expect("kept");
        assert!((3..=5).contains(&server.requests("/_bulk")), "{}", server.requests("/_bulk"));
        assert_eq!(store.list(query()).await.expect("lists"), letters);
    }

    #[tokio::test]
    async fn an_answer_too_long_for_a_page_comes_in_smaller_ones() {
        let server = Server::start().await;
        let store = server.store(1 << 30);
        let letters: Vec<DeadLetter> = (0..3).map(|offset| suite::with_payload(letter("a", 0, offset), &vec![1; 9 << 20])).collect();
        for letter in &letters {
            store.put(vec![letter.clone()]).await.expect("kept");
        }
        assert!(store.list(query()).await.expect("lists") == letters);
    }

    #[tokio::test]
    async fn a_count_is_taken_seldom_and_again_before_a_refusal() {
        let server = Server::start().await;
        let store = server.store(10_000);
        for offset in 0..9 {
            store.put(vec![letter("a", 0, offset)]).await.expect("kept");
        }
        assert_eq!(server.requests("/_search"), 1);
        assert_eq!(store.bytes(), 9 * (1024 + 5));
        let refused = store.put(vec![letter("a", 0, 9)]).await;
        assert!(matches!(refused, Err(Error::Full { used: 9261, limit: 10_000 })), "{refused:?}");
        // Somebody made room.
        server.fake().documents = Some(BTreeMap::new());
        store.usage().counted_at = None;
        store.put(vec![letter("a", 0, 9)]).await.expect("kept");
        assert_eq!(store.bytes(), 1024 + 5);
    }

    #[tokio::test]
    async fn what_others_write_is_counted_while_this_one_writes_nothing() {
        let server = Server::start().await;
        server.store(1 << 30).put(vec![letter("a", 0, 1)]).await.expect("kept");
        let store = server.store(1 << 30);
        let cancel = CancellationToken::new();
        let seen = async {
            while store.bytes() == 0 {
                tokio::task::yield_now().await;
            }
            cancel.cancel();
        };
        let both = futures::future::join(store.run(cancel.clone()), seen);
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("counted and ended");
        assert_eq!(store.bytes(), 1024 + 5);
    }
}
