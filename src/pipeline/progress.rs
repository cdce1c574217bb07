//! What a partition task publishes while it works: a few atomics, so that neither the supervisor nor the status ever takes a lock that the pipeline holds.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::kafka::EndsView;
use crate::sink::SinkHandle;
use crate::status::Reason;
use crate::supervisor::Progress;
use crate::topic::TopicPartition;

/// Means that an offset, a time or a position is not known.
const UNKNOWN: i64 = i64::MIN;

/// Ages are measured from here, on the monotonic clock.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Where to look whether records of a partition are there that do not come.
#[derive(Debug)]
pub(super) struct Silence {
    pub(super) key: TopicPartition,
    pub(super) ends: watch::Receiver<Arc<EndsView>>,
}

/// The progress of one partition, over all lives of its task.
#[derive(Debug)]
pub struct PartitionProgress {
    sink: SinkHandle,
    silence: Option<Silence>,
    indexed: AtomicU64,
    dead_lettered: AtomicU64,
    skipped: AtomicU64,
    retried: AtomicU64,
    position: AtomicI64,
    watermark: AtomicI64,
    watermark_timestamp_ms: AtomicI64,
    offset: AtomicI64,
    /// Of the last life.
    epoch: AtomicU64,
    pending: AtomicBool,
    /// Milliseconds since [`ORIGIN`] at which the oldest pending record was taken in.
    oldest_ms: AtomicI64,
    condition: ArcSwapOption<Reason>,
}

impl PartitionProgress {
    pub(super) fn new(sink: SinkHandle, silence: Option<Silence>) -> Self {
        // The origin lies before everything that is measured from it.
        LazyLock::force(&ORIGIN);
        Self {
            sink,
            silence,
            indexed: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            position: AtomicI64::new(UNKNOWN),
            watermark: AtomicI64::new(UNKNOWN),
            watermark_timestamp_ms: AtomicI64::new(UNKNOWN),
            offset: AtomicI64::new(UNKNOWN),
            epoch: AtomicU64::new(0),
            pending: AtomicBool::new(false),
            oldest_ms: AtomicI64::new(UNKNOWN),
            condition: ArcSwapOption::empty(),
        }
    }

    /// Records indexed.
    pub fn indexed(&self) -> u64 {
        self.indexed.load(Ordering::Relaxed)
    }

    /// Records dead-lettered.
    pub fn dead_lettered(&self) -> u64 {
        self.dead_lettered.load(Ordering::Relaxed)
    }

    /// Records skipped by a policy.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Records sent more than once.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// The offset after the last record taken in; `None` before the first life.
    pub fn position(&self) -> Option<i64> {
        known(self.position.load(Ordering::Relaxed))
    }

    /// The timestamp of the record at the watermark, or of the last one below it, in milliseconds since 1970.
    pub fn watermark_timestamp_ms(&self) -> Option<i64> {
        known(self.watermark_timestamp_ms.load(Ordering::Relaxed))
    }

    /// Why the task waits, if it does.
    pub fn condition(&self) -> Option<Reason> {
        self.condition.load().as_deref().cloned()
    }

    /// How long the oldest record that was taken in and is not settled has been held, in seconds; 0 when there is none.
    pub fn oldest_unsettled_seconds(&self) -> f64 {
        match known(self.oldest_ms.load(Ordering::Relaxed)) {
            Some(taken_ms) => ((now_ms() - taken_ms).max(0)) as f64 / 1000.0,
            None => 0.0,
        }
    }

    /// A new life begins at `start`. Answers where it must begin: at the watermark of the life before, if that was of the same epoch.
    pub(super) fn begin(&self, epoch: u64, start: i64) -> i64 {
        let is_same = self.epoch.swap(epoch, Ordering::Relaxed) == epoch;
        let due = if is_same { known(self.watermark.load(Ordering::Relaxed)).unwrap_or(start) } else { start };
        self.position.store(start, Ordering::Relaxed);
        self.watermark.store(start, Ordering::Relaxed);
        self.offset.store(UNKNOWN, Ordering::Relaxed);
        self.oldest_ms.store(UNKNOWN, Ordering::Relaxed);
        self.pending.store(false, Ordering::Relaxed);
        self.condition.store(None);
        due
    }

    /// The watermark alone: a life that ends says where the next one begins.
    pub(super) fn ends_at(&self, watermark: i64) {
        self.watermark.store(watermark, Ordering::Relaxed);
    }

    /// There is work from now on, although nothing is in the ledger yet.
    pub(super) fn busy(&self) {
        self.pending.store(true, Ordering::Relaxed);
    }

    /// The record that is touched now.
    pub(super) fn at(&self, offset: i64) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    pub(super) fn count(&self, indexed: u64, dead_lettered: u64, skipped: u64) {
        self.indexed.fetch_add(indexed, Ordering::Relaxed);
        self.dead_lettered.fetch_add(dead_lettered, Ordering::Relaxed);
        self.skipped.fetch_add(skipped, Ordering::Relaxed);
    }

    /// Counts records that an operator's rewind passed over.
    pub fn count_skipped(&self, records: u64) {
        self.count(0, 0, records);
    }

    pub(super) fn count_retried(&self, retried: u64) {
        self.retried.fetch_add(retried, Ordering::Relaxed);
    }

    pub(super) fn set(&self, state: State) {
        self.position.store(state.position, Ordering::Relaxed);
        self.watermark.store(state.watermark, Ordering::Relaxed);
        self.pending.store(state.pending, Ordering::Relaxed);
        self.oldest_ms.store(state.oldest_ms.unwrap_or(UNKNOWN), Ordering::Relaxed);
        if let Some(timestamp_ms) = state.timestamp_ms {
            self.watermark_timestamp_ms.store(timestamp_ms, Ordering::Relaxed);
        }
    }

    pub(super) fn wait_for(&self, condition: Option<Reason>) {
        self.condition.store(condition.map(Arc::new));
    }
}

/// Where a task stands.
pub(super) struct State {
    pub(super) position: i64,
    pub(super) watermark: i64,
    pub(super) pending: bool,
    pub(super) oldest_ms: Option<i64>,
    pub(super) timestamp_ms: Option<i64>,
}

/// Now, in milliseconds since [`ORIGIN`].
pub(super) fn now_ms() -> i64 {
    i64::try_from(ORIGIN.elapsed().as_millis()).unwrap_or(i64::MAX)
}

fn known(value: i64) -> Option<i64> {
    (value != UNKNOWN).then_some(value)
}

impl Progress for PartitionProgress {
    fn settled(&self) -> u64 {
        self.indexed() + self.dead_lettered() + self.skipped()
    }

    fn pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    fn excused(&self) -> bool {
        self.condition.load().is_some() || !self.sink.is_well()
    }

    fn starved(&self) -> bool {
        self.silence.as_ref().is_some_and(|silence| silence.ends.borrow().silent.contains(&silence.key))
    }

    fn watermark(&self) -> Option<i64> {
        known(self.watermark.load(Ordering::Relaxed))
    }

    fn offset(&self) -> Option<i64> {
        known(self.offset.load(Ordering::Relaxed))
    }
}
