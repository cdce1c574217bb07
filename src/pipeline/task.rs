//! One life of a partition task.
//!
//! It takes chunks, formats their records into segments, hands them to the sink, and moves the watermark as outcomes come back. At most [`MOST_SEGMENTS`] segments or [`MOST_BYTES`] lie past the
//! watermark; then it reads nothing, its mailbox fills, and the consumer stops fetching. It waits in two places besides: *parked*, when an index takes no documents (then it holds one
//! document to probe with and nothing else), and at a dead-letter store that does not take letters.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::PartitionSpec;
use super::failpoints;
use super::format::{Formatted, Formatter};
use super::ledger::Ledger;
use super::letters::{self, Death};
use super::lines::{self, Lines, Others};
use super::mishaps::Mishaps;
use super::probes::Probes;
use super::progress::{PartitionProgress, State, now_ms};
use crate::causes::chain;
use crate::dead_letters::{self, Cause, DeadLetter, DeadLetters};
use crate::invariants::{Invariant, SelfChecks};
use crate::kafka::chunk::{Chunk, Record};
use crate::kafka::{ConsumerHandle, Intake};
use crate::memory::Buffers;
use crate::mutants;
use crate::sink::{Outcome, ParkCause, Rejection, Reply, Segment, SinkHandle};
use crate::status::{Reason, ReasonCode};
use crate::supervisor::{Care, Progress as _, TaskContext, TaskError};
use crate::topic::{OnReject, TopicPartition};

/// Segments past the watermark.
const MOST_SEGMENTS: usize = 64;
/// Bytes past the watermark.
const MOST_BYTES: u64 = 32 << 20;
/// The first and the longest pause between two probes of a parked index, and between two tries at the dead-letter store.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often a task says in the log that records went to the dead letters.
const LETTERS_TOLD_EVERY: Duration = Duration::from_secs(60);
/// A parked partition holds no document larger than this to probe with, if another one goes to the same index.
const LARGE_PROBE_BYTES: usize = 16 << 10;
/// The ticket of a probe; the ledger's tickets count up from 0.
const PROBE: u64 = u64::MAX;

/// What a task works with.
pub(super) struct Parts {
    pub(super) consumer: ConsumerHandle,
    pub(super) sink: SinkHandle,
    pub(super) dead_letters: Arc<dyn DeadLetters>,
    pub(super) buffers: Buffers,
    pub(super) checks: SelfChecks,
    pub(super) mishaps: Option<Mishaps>,
    pub(super) probes: Probes,
}

/// What the ledger keeps of a chunk until it is settled.
struct Kept {
    chunk: Chunk,
    others: Others,
    taken_ms: i64,
}

impl Kept {
    /// The record that became the document with this number.
    fn record_of(&self, item: u32) -> Option<Record<'_>> {
        let mut record = item;
        for gap in &self.others.numbers {
            if *gap > record {
                break;
            }
            record += 1;
        }
        self.chunk.record(record as usize)
    }
}

/// Why the loop stopped before it was cancelled.
enum Halt {
    /// Told to end.
    Cancelled,
    /// An error.
    Failed(TaskError),
}

impl From<TaskError> for Halt {
    fn from(error: TaskError) -> Self {
        Self::Failed(error)
    }
}

struct Task {
    parts: Parts,
    key: TopicPartition,
    spec: PartitionSpec,
    cancel: CancellationToken,
    progress: Arc<PartitionProgress>,
    formatter: Formatter,
    ledger: Ledger<Kept>,
    account: Account,
    intake: Intake,
    /// The stream of chunks has ended: what is in work is finished, nothing new comes.
    ended: bool,
    outcomes: mpsc::UnboundedReceiver<(u64, Outcome)>,
    reply_to: mpsc::UnboundedSender<(u64, Outcome)>,
    /// The next segment for the sink, while the sink's queue is full.
    outbox: Option<Segment>,
    parkings: u32,
    /// Letters since the last line about them, and when that was.
    untold_letters: u64,
    told_letters_at: Option<Instant>,
    care: Care,
    /// Below this offset records go one by one.
    careful_until: i64,
}

/// One life, from the partition's watermark on until it is cancelled.
pub(super) async fn run(parts: Parts, key: TopicPartition, spec: PartitionSpec, context: TaskContext<PartitionProgress>) -> Result<(), TaskError> {
    let cancel = context.cancel.clone();
    let formatter = Formatter::new(&key.topic, key.partition, &spec.facts.id_base, &spec.topic);
    let opened = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        opened = parts.consumer.open(&key, spec.epoch, formatter.headroom(), context.progress.starved()) => opened,
    };
    let intake = match opened {
        Ok(intake) => intake,
        Err(error) => {
            // The assignment has changed; the supervisor will be told and ends this life. Until then it must not hold up the start of others.
            context.ready();
            debug!(topic = %key.topic, partition = key.partition, error = %error, "no intake, waiting to be ended");
            cancel.cancelled().await;
            return Ok(());
        }
    };
    // Where the life before was when it ended; a crash lies at or before it.
    let reached = crate::supervisor::Progress::offset(&*context.progress).max(context.progress.position()).unwrap_or(i64::MIN);
    let careful_until = if context.care == Care::None { i64::MIN } else { reached.saturating_add(1) };
    let (reply_to, outcomes) = mpsc::unbounded_channel();
    let mut task = Task {
        formatter,
        ledger: Ledger::new(intake.start()),
        account: Account::default(),
        progress: context.progress.clone(),
        care: context.care,
        parts,
        key,
        spec,
        cancel,
        intake,
        ended: false,
        outcomes,
        reply_to,
        outbox: None,
        parkings: 0,
        untold_letters: 0,
        told_letters_at: None,
        careful_until,
    };
    let (start, due) = (task.ledger.position(), task.progress.begin(task.spec.epoch, task.ledger.position()));
    task.parts.checks.check(Invariant::StartedElsewhere, start == due, &task.key, start, due);
    context.ready();
    match task.flow().await {
        Ok(()) | Err(Halt::Cancelled) => Ok(()),
        Err(Halt::Failed(error)) => Err(error),
    }
}

impl Task {
    async fn flow(&mut self) -> Result<(), Halt> {
        loop {
            let has_room = self.has_room();
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return self.end().await,
                Some((ticket, outcome)) = self.outcomes.recv() => self.outcome(ticket, outcome).await?,
                permit = self.parts.sink.reserve(), if self.outbox.is_some() => {
                    if let Some(segment) = self.outbox.take() {
                        permit.submit(segment);
                    }
                }
                chunk = self.intake.next(), if has_room && !self.ended => match chunk {
                    Some(chunk) => self.take(chunk).await?,
                    None => self.ended = true,
                },
            }
        }
    }

    /// The life is over: results that are still to come are nobody's.
    async fn end(&mut self) -> Result<(), Halt> {
        while mutants::is_on(mutants::LATE_RESULTS_ACCEPTED) && !self.ledger.is_empty() {
            let Some((ticket, outcome)) = self.outcomes.recv().await else { break };
            self.outcome(ticket, outcome).await?;
        }
        Err(Halt::Cancelled)
    }

    fn has_room(&self) -> bool {
        self.outbox.is_none() && (self.ledger.is_empty() || (self.ledger.pending() < MOST_SEGMENTS && self.ledger.bytes() < MOST_BYTES))
    }

    async fn take(&mut self, mut chunk: Chunk) -> Result<(), Halt> {
        self.progress.busy();
        failpoints::partition_task(&self.key).await;
        if let Some(mishaps) = &self.parts.mishaps {
            mishaps.strike();
        }
        let (first, position) = (chunk.first_offset().unwrap_or(i64::MAX), self.ledger.position());
        self.parts.checks.check(Invariant::OffsetsOutOfOrder, first >= position, &self.key, first, position);
        self.account.taken += chunk.len() as u64;
        if chunk.is_empty() {
            self.ledger.pass(chunk.next_offset());
            self.publish();
            return Ok(());
        }
        if self.ledger.is_empty() && self.ledger.position() < self.careful_until {
            return self.take_one_by_one(chunk).await;
        }
        let taken_ms = now_ms();
        let Lines { body, ends, others, copied_bytes } = self.lines_of(&mut chunk);
        let bytes = chunk.charge.bytes() + copied_bytes;
        chunk.charge.resize(bytes);
        let ticket = self.ledger.push(chunk.next_offset(), bytes, Kept { chunk, others, taken_ms });
        self.publish();
        if ends.is_empty() {
            return self.settle(ticket, Vec::new()).await;
        }
        self.outbox = Some(self.segment(ticket, body, ends, false));
        Ok(())
    }

    fn segment(&self, ticket: u64, body: Bytes, ends: Vec<u32>, alone: bool) -> Segment {
        // Once the window is full nothing more comes from here until something settles.
        let hurry = alone || self.ledger.pending() >= MOST_SEGMENTS || self.ledger.bytes() >= MOST_BYTES;
        Segment { body, ends, alone, hurry, reply: Reply::new(ticket, self.reply_to.clone()) }
    }

    fn lines_of(&mut self, chunk: &mut Chunk) -> Lines {
        let progress = &self.progress;
        lines::of_chunk(chunk, &mut self.formatter, &self.parts.buffers, |offset| progress.at(offset))
    }

    async fn outcome(&mut self, ticket: u64, outcome: Outcome) -> Result<(), Halt> {
        if self.ledger.get(ticket).is_none() {
            // Of before a parking: those records come again.
            return Ok(());
        }
        match outcome {
            Outcome::Settled { rejected, retried } => {
                self.progress.count_retried(u64::from(retried));
                self.settle(ticket, rejected).await
            }
            Outcome::Lost => {
                self.send_again(ticket).await;
                Ok(())
            }
            Outcome::Parked { cause, item } => self.park(ticket, cause, item).await,
        }
    }

    /// The sink was started again and forgot the segment. Formatting is a function of the record, so it becomes the same bytes.
    async fn send_again(&mut self, ticket: u64) {
        let Some(kept) = self.ledger.get_mut(ticket) else { return };
        // The formatter needs the task, so the chunk leaves the ledger for a moment; nothing can settle it meanwhile.
        let mut chunk = std::mem::replace(&mut kept.chunk, Chunk::empty());
        let Lines { body, ends, .. } = self.lines_of(&mut chunk);
        if let Some(kept) = self.ledger.get_mut(ticket) {
            kept.chunk = chunk;
        }
        let segment = self.segment(ticket, body, ends, false);
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = self.parts.sink.submit(segment) => {}
        }
    }

    /// Everything of this entry is indexed, or dead and safe, or skipped: the watermark may pass it.
    async fn settle(&mut self, ticket: u64, rejected: Vec<Rejection>) -> Result<(), Halt> {
        if let Some(rejection) = rejected.first()
            && self.spec.topic.on_reject == OnReject::Stop
        {
            return Err(self.stop_at(ticket, rejection).await);
        }
        let letters = self.letters(ticket, &rejected);
        let dead = letters.len() as u64;
        let example = letters.first().map(|letter| (letter.offset, letter.error.kind.clone()));
        if dead > 0 && mutants::is_on(mutants::LETTER_AFTER_COMMIT) {
            self.ledger.settle(ticket);
            self.publish();
            tokio::time::sleep(MUTANT_LATENESS).await;
        }
        if dead > 0 && self.keep_letters(letters, Waiting::HoldsNothing).await? == Safe::Late {
            return Ok(());
        }
        let Some(kept) = self.ledger.settle(ticket) else { return Ok(()) };
        let indexed = kept.chunk.len() as u64 - dead.min(kept.chunk.len() as u64) - kept.others.skipped;
        self.tell_of_letters(dead, example);
        self.count(indexed, dead, kept.others.skipped);
        self.balance();
        self.parkings = 0;
        let last_timestamp_ms = kept.chunk.len().checked_sub(1).and_then(|last| kept.chunk.record(last)).and_then(|record| record.timestamp_ms);
        drop(kept);
        self.publish_with(last_timestamp_ms);
        Ok(())
    }

    /// Under `on_reject: stop`: what lies before the refused record is settled, as far as nothing else is pending there, and the watermark stands at the culprit.
    async fn stop_at(&mut self, ticket: u64, rejection: &Rejection) -> Halt {
        let Some(kept) = self.ledger.get(ticket) else { return Halt::Failed(refused(-1, rejection)) };
        let Some(culprit) = kept.record_of(rejection.item).map(|record| record.offset) else { return Halt::Failed(refused(-1, rejection)) };
        if self.ledger.is_first(ticket) {
            let before = kept.chunk.records().take_while(|record| record.offset < culprit).count() as u64;
            let items = u64::from(rejection.item);
            let deaths = self.letters(ticket, &[]).into_iter().filter(|letter| letter.offset < culprit).collect::<Vec<_>>();
            let dead = deaths.len() as u64;
            if dead > 0
                && let Err(halt) = self.keep_letters(deaths, Waiting::HoldsItsRecord).await
            {
                return halt;
            }
            self.progress.count(items, dead, before.saturating_sub(items + dead));
            self.intake.watermark().advance(culprit);
            self.progress.ends_at(culprit);
        }
        self.progress.at(culprit);
        Halt::Failed(refused(culprit, rejection))
    }

    fn letters(&mut self, ticket: u64, rejected: &[Rejection]) -> Vec<DeadLetter> {
        let Some(kept) = self.ledger.get(ticket) else { return Vec::new() };
        if kept.others.deaths.is_empty() && rejected.is_empty() {
            return Vec::new();
        }
        let now = Timestamp::now();
        let own = kept
            .others
            .deaths
            .iter()
            .filter_map(|(number, cause, reason)| Some((kept.chunk.record(*number as usize)?, Death::own(*cause, reason.clone()))));
        let refused = rejected.iter().filter_map(|rejection| Some((kept.record_of(rejection.item)?, Death::refused(rejection))));
        let mut letters = Vec::new();
        for (record, death) in own.chain(refused) {
            let index = self.formatter.index_of(record.timestamp_ms);
            letters.push(letters::letter(&self.key, &self.spec.facts, &record, index, death, now));
        }
        letters
    }

    /// Makes letters durable, however long it takes: the offset must not move past them before. A partition that has to wait for the store gives its memory back, and after [`Safe::Late`] reads
    /// again from the watermark: the same letters then come again, under the same ids.
    async fn keep_letters(&mut self, letters: Vec<DeadLetter>, waiting: Waiting) -> Result<Safe, Halt> {
        fail::fail_point!("dead_letter_write");
        let Err(error) = self.parts.dead_letters.put(letters.clone()).await else { return Ok(Safe::AtOnce) };
        warn!(topic = %self.key.topic, partition = self.key.partition, letters = letters.len(), error = chain(&error), "dead letters cannot be kept, the partition waits");
        if waiting == Waiting::HoldsNothing {
            self.release();
        }
        let mut reason = letters_reason(&error);
        for tries in 0.. {
            self.progress.wait_for(Some(reason.clone()));
            self.pause(tries).await?;
            match self.parts.dead_letters.put(letters.clone()).await {
                Ok(()) => break,
                Err(error) => reason = Reason { since_at: reason.since_at, ..letters_reason(&error) },
            }
        }
        info!(topic = %self.key.topic, partition = self.key.partition, letters = letters.len(), "dead letters are kept again");
        if waiting == Waiting::HoldsNothing {
            self.reopen().await?;
        }
        self.progress.wait_for(None);
        Ok(Safe::Late)
    }

    /// Gives everything back but the place in the partition.
    fn release(&mut self) {
        self.parts.consumer.close(&self.key, self.spec.epoch);
        self.outbox = None;
        self.ledger.clear_to_watermark();
        // What was given back comes again.
        self.account = Account::default();
        self.publish();
    }

    /// One line a minute says how many records died, so that a topic whose every record is refused does not look well in the log.
    fn tell_of_letters(&mut self, dead: u64, example: Option<(i64, String)>) {
        let Some((offset, error_type)) = example else { return };
        self.untold_letters += dead;
        if self.told_letters_at.is_some_and(|at| at.elapsed() < LETTERS_TOLD_EVERY) {
            return;
        }
        warn!(
            topic = %self.key.topic,
            partition = self.key.partition,
            records = self.untold_letters,
            offset,
            error_type,
            "records went to the dead letters; see /api/v1/dead-letters"
        );
        self.untold_letters = 0;
        self.told_letters_at = Some(Instant::now());
    }

    async fn pause(&self, tries: u32) -> Result<(), Halt> {
        let longest = PAUSE_FIRST.saturating_mul(1 << tries.min(16)).min(PAUSE_MAX);
        // Half of it fixed, half by chance: partitions that wait for the same thing must not all ask at once.
        let pause = longest.mul_f64(0.5 + 0.5 * rand::random::<f64>());
        tokio::select! {
            () = self.cancel.cancelled() => Err(Halt::Cancelled),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// An index takes no documents until someone acts: everything is given back but one document, which is tried again and again, alone.
    async fn park(&mut self, ticket: u64, cause: ParkCause, item: u32) -> Result<(), Halt> {
        let Some((lines, offset)) = self.probe_of(ticket, item) else { return Ok(()) };
        self.release();
        let mut reason = Reason { code: cause.code, message: cause.message, remedy: cause.remedy, since_at: Timestamp::now() };
        warn!(topic = %self.key.topic, partition = self.key.partition, offset, code = reason.code.as_str(), message = reason.message, "partition is parked");
        loop {
            self.progress.wait_for(Some(reason.clone()));
            self.pause(self.parkings).await?;
            self.parkings = self.parkings.saturating_add(1);
            match self.probe_in_turn(&lines).await? {
                Outcome::Settled { .. } => break,
                Outcome::Lost => {}
                Outcome::Parked { cause, .. } if cause.code == reason.code => reason.message = cause.message,
                Outcome::Parked { cause, .. } => {
                    reason = Reason { code: cause.code, message: cause.message, remedy: cause.remedy, since_at: Timestamp::now() }
                }
            }
        }
        info!(topic = %self.key.topic, partition = self.key.partition, offset, "the index takes documents again");
        self.reopen().await?;
        self.progress.wait_for(None);
        Ok(())
    }

    /// The lines of a document to probe with, and the offset of the record that was refused. That record's own document, or where it is large the smallest one for the same index: many
    /// partitions may be parked for a long time, and what they hold is in no budget.
    fn probe_of(&mut self, ticket: u64, item: u32) -> Option<(Vec<u8>, i64)> {
        let kept = self.ledger.get(ticket)?;
        let refused = kept.record_of(item)?;
        let mut chosen = refused;
        if length_of(&refused) > LARGE_PROBE_BYTES {
            let index = self.formatter.index_of(refused.timestamp_ms).to_owned();
            let documents = (0_u32..).zip(kept.chunk.records()).filter(|(number, _)| kept.others.numbers.binary_search(number).is_err());
            for (_, record) in documents {
                if length_of(&record) < length_of(&chosen) && self.formatter.index_of(record.timestamp_ms) == index {
                    chosen = record;
                }
            }
        }
        let mut lines = Vec::new();
        self.formatter.append(&chosen, &mut lines);
        lines.shrink_to_fit();
        Some((lines, refused.offset))
    }

    /// The same as [`probe`](Self::probe) when it is this partition's turn.
    async fn probe_in_turn(&mut self, lines: &[u8]) -> Result<Outcome, Halt> {
        let turn = tokio::select! {
            () = self.cancel.cancelled() => return Err(Halt::Cancelled),
            turn = self.parts.probes.turn() => turn,
        };
        let longest = tokio::time::sleep(Probes::LONGEST_TURN);
        let probe = self.probe(lines);
        tokio::pin!(longest, probe);
        tokio::select! {
            outcome = &mut probe => return outcome,
            () = &mut longest => drop(turn),
        }
        probe.await
    }

    /// Sends one document in a request of its own and waits for its outcome; what comes of earlier segments is ignored.
    async fn probe(&mut self, lines: &[u8]) -> Result<Outcome, Halt> {
        let end = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let segment = self.segment(PROBE, Bytes::copy_from_slice(lines), vec![end], true);
        tokio::select! {
            () = self.cancel.cancelled() => return Err(Halt::Cancelled),
            () = self.parts.sink.submit(segment) => {}
        }
        loop {
            let received = tokio::select! {
                () = self.cancel.cancelled() => return Err(Halt::Cancelled),
                received = self.outcomes.recv() => received,
            };
            match received {
                Some((PROBE, outcome)) => return Ok(outcome),
                Some(_) => {}
                // We hold a sender ourselves, so the channel does not close; if it did, nothing would be known of the probe.
                None => return Ok(Outcome::Lost),
            }
        }
    }

    async fn reopen(&mut self) -> Result<(), Halt> {
        let opened = tokio::select! {
            () = self.cancel.cancelled() => return Err(Halt::Cancelled),
            opened = self.parts.consumer.open(&self.key, self.spec.epoch, self.formatter.headroom(), false) => opened,
        };
        match opened {
            Ok(intake) => {
                self.ledger = Ledger::new(intake.start());
                self.intake = intake;
                // Outcomes of before the parking carry tickets that count from 0 again: they must not be taken for new ones.
                let (reply_to, outcomes) = mpsc::unbounded_channel();
                self.reply_to = reply_to;
                self.outcomes = outcomes;
                Ok(())
            }
            Err(error) => {
                debug!(topic = %self.key.topic, partition = self.key.partition, error = %error, "no intake, waiting to be ended");
                self.cancel.cancelled().await;
                Err(Halt::Cancelled)
            }
        }
    }

    /// After crashes at one place: each record alone, published before it is touched and settled before the next, so that a crash names its culprit.
    async fn take_one_by_one(&mut self, chunk: Chunk) -> Result<(), Halt> {
        let next_offset = chunk.next_offset();
        for number in 0..chunk.len() {
            let Some(record) = chunk.record(number) else { break };
            self.progress.at(record.offset);
            self.progress.set(State {
                position: record.offset + 1,
                watermark: self.ledger.watermark(),
                pending: true,
                oldest_ms: Some(now_ms()),
                timestamp_ms: record.timestamp_ms,
            });
            let is_given_up = self.care == Care::GiveUp(record.offset);
            self.settle_alone(&record, is_given_up).await?;
            self.ledger.pass(record.offset + 1);
            self.publish_with(record.timestamp_ms);
        }
        self.ledger.pass(next_offset);
        self.balance();
        self.publish();
        Ok(())
    }

    async fn settle_alone(&mut self, record: &Record<'_>, is_given_up: bool) -> Result<(), Halt> {
        let mut lines = Vec::new();
        let formatted = if is_given_up {
            warn!(topic = %self.key.topic, partition = self.key.partition, offset = record.offset, "record crashed its task alone and is given up");
            Formatted::Dead { cause: Cause::CrashLoop, reason: "the record crashed its task again and again, at last alone".to_owned() }
        } else {
            self.formatter.append(record, &mut lines)
        };
        let death = match formatted {
            Formatted::Skipped => {
                self.count(0, 0, 1);
                return Ok(());
            }
            Formatted::Dead { cause, reason } => Some(Death::own(cause, reason)),
            Formatted::Document => loop {
                let outcome = if self.parkings == 0 { self.probe(&lines).await? } else { self.probe_in_turn(&lines).await? };
                match outcome {
                    Outcome::Lost => {}
                    Outcome::Settled { rejected, retried } => {
                        self.parkings = 0;
                        self.progress.count_retried(u64::from(retried));
                        match rejected.first() {
                            Some(rejection) if self.spec.topic.on_reject == OnReject::Stop => {
                                return Err(Halt::Failed(refused(record.offset, rejection)));
                            }
                            Some(rejection) => break Some(Death::refused(rejection)),
                            None => break None,
                        }
                    }
                    Outcome::Parked { cause, .. } => {
                        let reason = Reason { code: cause.code, message: cause.message, remedy: cause.remedy, since_at: Timestamp::now() };
                        self.progress.wait_for(Some(reason));
                        self.pause(self.parkings).await?;
                        self.parkings = self.parkings.saturating_add(1);
                    }
                }
            },
        };
        self.progress.wait_for(None);
        match death {
            None => self.count(1, 0, 0),
            Some(death) => {
                let index = self.formatter.index_of(record.timestamp_ms);
                let letter = letters::letter(&self.key, &self.spec.facts, record, index, death, Timestamp::now());
                self.keep_letters(vec![letter], Waiting::HoldsItsRecord).await?;
                self.count(0, 1, 0);
            }
        }
        Ok(())
    }

    fn count(&mut self, indexed: u64, dead_lettered: u64, skipped: u64) {
        self.progress.count(indexed, dead_lettered, skipped);
        self.account.settled += indexed + dead_lettered + skipped;
    }

    /// Where nothing is pending, as many records must have become something as came in.
    fn balance(&self) {
        let Account { taken, settled } = self.account;
        let is_balanced = !self.ledger.is_empty() || taken == settled;
        self.parts.checks.check(Invariant::RecordsUnaccounted, is_balanced, &self.key, settled.cast_signed(), taken.cast_signed());
    }

    fn publish(&self) {
        self.publish_with(None);
    }

    /// Publishes where the task stands: to the consumer, which commits the watermark, and to the status.
    fn publish_with(&self, settled_timestamp_ms: Option<i64>) {
        let watermark = self.ledger.watermark();
        self.intake.watermark().advance(watermark);
        let first = self.ledger.first();
        self.progress.set(State {
            position: self.ledger.position(),
            watermark,
            pending: !self.ledger.is_empty(),
            oldest_ms: first.map(|kept| kept.taken_ms),
            timestamp_ms: first.and_then(|kept| kept.chunk.record(0)).map_or(settled_timestamp_ms, |record| record.timestamp_ms),
        });
    }
}

/// Records of one life, or since they were given back, to compare what came in with what became of it.
#[derive(Debug, Default, Clone, Copy)]
struct Account {
    taken: u64,
    settled: u64,
}

/// Longer than it takes until a watermark is committed.
const MUTANT_LATENESS: Duration = Duration::from_secs(10);

/// What a partition holds while it waits for the dead-letter store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The letters only.
    HoldsNothing,
    /// The one chunk that goes record by record.
    HoldsItsRecord,
}

fn length_of(record: &Record<'_>) -> usize {
    record.value.map_or(0, <[u8]>::len)
}

/// When letters became durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Safe {
    AtOnce,
    /// After waiting.
    Late,
}

fn refused(offset: i64, rejection: &Rejection) -> TaskError {
    let status = rejection.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    TaskError::stop(
        ReasonCode::Rejected,
        format!("the record at offset {offset} was refused for good (on_reject: stop): {} {}: {}", status, rejection.error_type, rejection.reason),
    )
}

fn letters_reason(error: &dead_letters::Error) -> Reason {
    let code = match error {
        dead_letters::Error::Full { .. } => ReasonCode::DeadLettersFull,
        dead_letters::Error::Unavailable { .. } => ReasonCode::DeadLettersUnavailable,
    };
    Reason { code, message: chain(error), remedy: error.remedy().to_owned(), since_at: Timestamp::now() }
}
