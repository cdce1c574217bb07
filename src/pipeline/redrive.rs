//! Redrives: dead letters that are sent again because someone asked for it.
//!
//! Guarantees: a letter is formatted under its topic's spec of today, with the document id that it always had, so a redrive that is repeated, or that meets another, writes the same document; a letter leaves
//! its store only after its document is settled, and only if it did not die again meanwhile; a try that fails keeps the letter, with the new reason and the time of the try; a letter that crashes the formatter
//! ends no other. Letters come in pages of bounded size, outside of the pipeline's memory budget. An order of many letters takes those that match when it was given, each once. Owns what is done
//! with each letter. Does not touch offsets: between documents there is no order. A topic that is paused is not in the way, since a redrive is someone's explicit act.
//!
//! What is left as it was, and told in the log: a letter whose topic no source names any more, one without its whole payload, and, when the sink does not answer for `PATIENCE`, this letter and the rest
//! of the order. A record's headers are not in a letter, so that the `kafka` object of a redriven document has none. After a restart of the process orders are forgotten, and nothing else.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::format::{Formatted, Formatter};
use super::letters::Death;
use crate::causes::chain;
use crate::dead_letters::redrive::{Order, RedriveOrders};
use crate::dead_letters::{Cause, DeadLetter, DeadLetters, Error, LetterError, Query};
use crate::kafka::chunk::ChunkBuilder;
use crate::memory::Charge;
use crate::sink::{Outcome, Reply, Segment, SinkHandle};
use crate::topic::{TopicName, TopicSpec};

/// How long the sink may take for one request of ours before the order is given up. Longer than a bulk request's timeout, with a few tries.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries after the sink was started again.
const LOST_PAUSE: Duration = Duration::from_millis(500);
/// Tries at the store, and the pause after the first; it doubles.
const STORE_TRIES: u32 = 5;
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Letters of the first page, and of any page. An index is refreshed and searched for each page, so a page should not be small.
const FIRST_PAGE: usize = 16;
const LARGEST_PAGE: usize = 256;
/// Base64 of keys and values that a page should have; its documents are held beside it.
const PAGE_BYTES: usize = 8 << 20;

/// Finds a topic's effective spec; `None` when no source names the topic.
pub type SpecOf = Arc<dyn Fn(&TopicName) -> Option<Arc<TopicSpec>> + Send + Sync>;

/// Carries redrives out.
pub struct Redriver {
    orders: Mutex<RedriveOrders>,
    letters: Arc<dyn DeadLetters>,
    sink: SinkHandle,
    spec_of: SpecOf,
}

/// What became of letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    /// Their documents are settled.
    redriven: usize,
    /// They died again.
    failed: usize,
    /// They cannot be sent.
    left: usize,
    /// The sink did not answer.
    unanswered: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.redriven += other.redriven;
        self.failed += other.failed;
        self.left += other.left;
        self.unanswered += other.unanswered;
    }
}

/// A letter that became a document again.
struct Item {
    letter: DeadLetter,
    lines: Vec<u8>,
}

/// What a letter becomes under today's spec.
enum Prepared {
    /// Two lines for this index.
    Document { lines: Vec<u8>, index: String },
    /// Nothing: the topic's policy skips such records now.
    Skipped,
    /// It dies before it is sent.
    Dead(Death),
    /// It cannot be formatted, because of this.
    Left(&'static str),
}

/// The letters of one request after it.
#[derive(Default)]
struct Verdicts {
    settled: Vec<DeadLetter>,
    failed: Vec<DeadLetter>,
    unanswered: usize,
}

impl Redriver {
    /// Takes `orders`, reads and changes `letters`, and sends through `sink`.
    pub fn new(orders: RedriveOrders, letters: Arc<dyn DeadLetters>, sink: SinkHandle, spec_of: SpecOf) -> Self {
        Self { orders: Mutex::new(orders), letters, sink, spec_of }
    }

    /// Carries orders out until it is cancelled; what is in work then is given up, and can be asked for again.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut orders = self.orders.lock().await;
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.serve(&mut orders) => cancel.cancelled().await,
        }
    }

    /// Ends when nobody can ask any more.
    async fn serve(&self, orders: &mut RedriveOrders) {
        while let Some(order) = orders.next().await {
            match order {
                Order::One(id) => self.one(&id).await,
                Order::Many(query) => self.many(query, orders).await,
            }
        }
    }

    async fn one(&self, id: &str) {
        match patiently(|| self.letters.get(id)).await {
            Ok(Some(letter)) => {
                let tally = self.send(vec![letter]).await;
                info!(id, redriven = tally.redriven, failed = tally.failed, left = tally.left + tally.unanswered, "dead letter was redriven");
            }
            Ok(None) => info!(id, "dead letter to redrive is gone"),
            Err(error) => warn!(id, error = chain(&error), "dead letter cannot be read and is not redriven; ask again"),
        }
    }

    async fn many(&self, query: Query, orders: &mut RedriveOrders) {
        let mut tally = Tally::default();
        let mut query = Query { after: None, limit: FIRST_PAGE, ..query };
        loop {
            while let Some(id) = orders.waiting_one() {
                self.one(&id).await;
            }
            let page = match patiently(|| self.letters.list(query.clone())).await {
                Ok(page) => page,
                Err(error) => {
                    warn!(redriven = tally.redriven, error = chain(&error), "dead letters cannot be read, the rest is not redriven; ask again");
                    return;
                }
            };
            let is_last = page.len() < query.limit;
            let next_limit = next_page(page.len(), page.iter().map(held_bytes).sum());
            query.after = page.last().map(|last| (last.topic.clone(), last.partition, last.offset, last.id.clone()));
            query.limit = next_limit;
            tally.add(self.send(page).await);
            if is_last || tally.unanswered > 0 {
                break;
            }
        }
        let Tally { redriven, failed, left, unanswered } = tally;
        if unanswered > 0 {
            warn!(redriven, failed, left, unanswered, "the sink does not answer, the rest of the dead letters is not redriven; ask again");
        } else {
            info!(redriven, failed, left, "dead letters were redriven");
        }
    }

    /// Sends these letters and does with each what its outcome says.
    async fn send(&self, page: Vec<DeadLetter>) -> Tally {
        let mut tally = Tally::default();
        let mut verdicts = Verdicts::default();
        let mut items: Vec<Item> = Vec::new();
        for mut letter in page {
            match self.prepare(&letter) {
                Prepared::Document { lines, index } => {
                    letter.index = index;
                    // Letters come by topic. One topic's parked index must not hold up another's letters.
                    if items.last().is_some_and(|last| last.letter.topic != letter.topic) {
                        self.deliver(std::mem::take(&mut items), &mut verdicts).await;
                    }
                    items.push(Item { letter, lines });
                }
                Prepared::Skipped => verdicts.settled.push(letter),
                Prepared::Dead(death) => verdicts.failed.push(died_again(letter, death.cause, death.error)),
                Prepared::Left(why) => {
                    tally.left += 1;
                    warn!(id = letter.id, topic = %letter.topic, why, "dead letter cannot be redriven and stays");
                }
            }
        }
        self.deliver(items, &mut verdicts).await;
        tally.redriven = verdicts.settled.len();
        tally.failed = verdicts.failed.len();
        tally.unanswered = verdicts.unanswered;
        self.keep(verdicts).await;
        tally
    }

    /// Tells the store. What it does not take leaves letters as they were: their redrive can be repeated.
    async fn keep(&self, verdicts: Verdicts) {
        let seen: Vec<_> = verdicts.settled.iter().map(DeadLetter::seen).collect();
        if !seen.is_empty() {
            match patiently(|| self.letters.remove_seen(seen.clone())).await {
                Ok(removed) if removed < seen.len() => {
                    info!(letters = seen.len() - removed, "dead letters died again, or were deleted, while they were redriven")
                }
                Ok(_) => {}
                Err(error) => warn!(letters = seen.len(), error = chain(&error), "redriven dead letters cannot be removed and stay"),
            }
        }
        if !verdicts.failed.is_empty()
            && let Err(error) = patiently(|| self.letters.put_known(verdicts.failed.clone())).await
        {
            warn!(letters = verdicts.failed.len(), error = chain(&error), "dead letters whose redrive failed stay as they were");
        }
    }

    fn prepare(&self, letter: &DeadLetter) -> Prepared {
        let Some(spec) = (self.spec_of)(&letter.topic) else { return Prepared::Left("no source names its topic") };
        if !letter.is_whole() {
            return Prepared::Left("its payload is not kept");
        }
        let place = format!(":{}:{}", letter.partition, letter.offset);
        let (Some(id_base), Ok(key), Ok(value)) = (letter.id.strip_suffix(&place), decoded(&letter.key_base64), decoded(&letter.payload_base64))
        else {
            return Prepared::Left("it is not one that drover wrote");
        };
        let mut builder = ChunkBuilder::default();
        let timestamp_ms = letter.timestamp.map_or(-1, Timestamp::as_millisecond);
        builder.push(letter.offset, timestamp_ms, key.as_deref(), value.as_deref(), std::iter::empty());
        let chunk = builder.finish(Charge::none());
        let Some(record) = chunk.record(0) else { return Prepared::Left("it is not one that drover wrote") };
        let mut lines = Vec::new();
        // Some letters are here because their records crash the formatter; each gets one of its own, so nothing is used after its panic.
        let formatted = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut formatter = Formatter::new(&letter.topic, letter.partition, id_base, &spec);
            let formatted = formatter.append(&record, &mut lines);
            (formatted, formatter.index_of(record.timestamp_ms).to_owned())
        }));
        match formatted {
            Ok((Formatted::Document, index)) => Prepared::Document { lines, index },
            Ok((Formatted::Skipped, _)) => Prepared::Skipped,
            Ok((Formatted::Dead { cause, reason }, _)) => Prepared::Dead(Death::own(cause, reason)),
            Err(_) => Prepared::Dead(Death::own(Cause::CrashLoop, "the record crashed its redrive too; the log has the panic".to_owned())),
        }
    }

    /// Sends the items of one topic together; where an index among them takes nothing, one by one.
    async fn deliver(&self, items: Vec<Item>, verdicts: &mut Verdicts) {
        if items.is_empty() {
            return;
        }
        // After one that got no answer the rest would wait as long each.
        if verdicts.unanswered > 0 {
            verdicts.unanswered += items.len();
            return;
        }
        match self.ask(&items, false).await {
            Some(Outcome::Parked { .. }) => {}
            outcome => return judge(items, outcome, verdicts),
        }
        for item in items {
            if verdicts.unanswered > 0 {
                verdicts.unanswered += 1;
                continue;
            }
            let item = vec![item];
            let outcome = self.ask(&item, true).await;
            judge(item, outcome, verdicts);
        }
    }

    /// The outcome of a segment of these items; `None` when there is none in time.
    async fn ask(&self, items: &[Item], alone: bool) -> Option<Outcome> {
        let asked = async {
            loop {
                let (reply_to, mut outcomes) = mpsc::unbounded_channel();
                self.sink.submit(segment(items, alone, Reply::new(0, reply_to))).await;
                match outcomes.recv().await {
                    Some((_, Outcome::Lost)) | None => tokio::time::sleep(LOST_PAUSE).await,
                    Some((_, outcome)) => return outcome,
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.ok()
    }
}

fn segment(items: &[Item], alone: bool, reply: Reply) -> Segment {
    let mut body = Vec::with_capacity(items.iter().map(|item| item.lines.len()).sum());
    let mut ends = Vec::with_capacity(items.len());
    for item in items {
        body.extend_from_slice(&item.lines);
        // A page is far below 4 GiB.
        ends.push(u32::try_from(body.len()).unwrap_or(u32::MAX));
    }
    Segment { body: Bytes::from(body), ends, alone, hurry: true, reply }
}

/// Sorts the letters of a segment by its outcome.
fn judge(items: Vec<Item>, outcome: Option<Outcome>, verdicts: &mut Verdicts) {
    let mut rejections = match outcome {
        Some(Outcome::Settled { rejected, .. }) => rejected.into_iter().peekable(),
        Some(Outcome::Parked { cause, .. }) => {
            for item in items {
                let error =
                    LetterError { kind: cause.code.as_str().to_owned(), reason: format!("{}: {}", cause.message, cause.remedy), status: None };
                let old_cause = item.letter.cause;
                verdicts.failed.push(died_again(item.letter, old_cause, error));
            }
            return;
        }
        Some(Outcome::Lost) | None => {
            verdicts.unanswered += items.len();
            return;
        }
    };
    for (number, item) in (0_u32..).zip(items) {
        match rejections.next_if(|rejection| rejection.item == number) {
            None => verdicts.settled.push(item.letter),
            Some(rejection) => {
                let death = Death::refused(&rejection);
                verdicts.failed.push(died_again(item.letter, death.cause, death.error));
            }
        }
    }
}

/// The letter after a try that failed; its store adds the attempts up and keeps when it first died.
fn died_again(letter: DeadLetter, cause: Cause, error: LetterError) -> DeadLetter {
    let now = Timestamp::now();
    DeadLetter { cause, error, attempts: 1, last_at: now, redriven_at: Some(now), ..letter }
}

fn decoded(base64: &Option<String>) -> Result<Option<Vec<u8>>, base64::DecodeError> {
    base64.as_deref().map(|text| STANDARD.decode(text)).transpose()
}

fn held_bytes(letter: &DeadLetter) -> usize {
    [&letter.key_base64, &letter.payload_base64].into_iter().flatten().map(String::len).sum()
}

/// How many letters the next page should have, when the last one had so many of so many bytes.
fn next_page(letters: usize, bytes: usize) -> usize {
    let each = bytes / letters.max(1);
    (PAGE_BYTES / each.max(1)).clamp(1, LARGEST_PAGE)
}

/// Asks a store a few times before its error counts.
async fn patiently<'a, T>(request: impl Fn() -> BoxFuture<'a, Result<T, Error>>) -> Result<T, Error> {
    for number in 1..STORE_TRIES {
        match request().await {
            Err(Error::Unavailable { .. }) => tokio::time::sleep(STORE_PAUSE.saturating_mul(1 << (number - 1))).await,
            answer => return answer,
        }
    }
    request().await
}

#[cfg(test)]
mod tests;
