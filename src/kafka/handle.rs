//! What other parts hold of the consumer: a handle with verbs, and one task's intake of one partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::Thread;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::chunk::{Chunk, Headroom};
use super::{ConsumerView, TopicPlan};
use crate::topic::{TopicName, TopicPartition};

/// The complete subscription.
pub(super) type Subscription = Arc<BTreeMap<TopicName, TopicPlan>>;

/// What a task asks the consumer thread for.
pub(super) enum Command {
    /// Deliver from the watermark on to a new mailbox.
    Open {
        partition: TopicPartition,
        epoch: u64,
        /// What its chunks leave free before values.
        headroom: Option<Headroom>,
        /// Whether it is assigned again first.
        afresh: bool,
        reply: oneshot::Sender<Result<Intake, OpenError>>,
    },
    /// Deliver nothing more until the next `Open`, and drop what is held.
    Close { partition: TopicPartition, epoch: u64 },
    /// Commit this offset, whatever was committed before, and go on there under a new epoch.
    Rewind { partition: TopicPartition, offset: i64, reply: oneshot::Sender<Result<i64, RewindError>> },
}

/// Why a partition was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewindError {
    /// This instance does not have the partition.
    #[error("the partition is not assigned to this instance")]
    NotAssigned,
    /// The brokers refused the commit. Nothing has changed.
    #[error("Kafka refused to commit the offset: {0}")]
    Refused(String),
    /// The commit was not answered. The partition goes on where it was; after a restart it may begin at the offset.
    #[error("Kafka did not answer the commit of the offset; the partition goes on where it was, but the offset may be committed: repeat the rewind")]
    Unanswered,
    /// The partition was moved, and the consumer then failed; it is started again and begins at the offset.
    #[error("the consumer is not running")]
    Stopped,
}

/// Why there is no intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The partition is not assigned to this process, or under a newer epoch.
    #[error("the partition is not assigned to this instance any more")]
    Gone,
    /// The partition could not be moved to its watermark.
    #[error("the partition could not be moved to its watermark")]
    Reposition,
    /// The consumer is being started again.
    #[error("the consumer is not running")]
    Stopped,
}

/// Lets the tasks wake the consumer thread.
#[derive(Debug, Default)]
pub(super) struct Waker {
    thread: ArcSwapOption<Thread>,
}

impl Waker {
    pub(super) fn set(&self, thread: Thread) {
        self.thread.store(Some(Arc::new(thread)));
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.load().as_ref() {
            thread.unpark();
        }
    }
}

/// One task's stream of one partition, from the watermark on. Dropping it ends the delivery.
#[derive(Debug)]
pub struct Intake {
    pub(super) chunks: mpsc::Receiver<Chunk>,
    pub(super) watermark: Arc<AtomicI64>,
    pub(super) start: i64,
    pub(super) waker: Arc<Waker>,
}

impl Intake {
    /// The offset of the first record to come, at the earliest.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The next chunk; `None` when the delivery has ended: the partition is being revoked, or the process stops. Cancel-safe.
    pub async fn next(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.recv().await;
        // There is room in the mailbox now, which the thread may be waiting for.
        self.waker.wake();
        chunk
    }

    /// Where the task says what may be committed.
    pub fn watermark(&self) -> Watermark {
        Watermark { offset: self.watermark.clone() }
    }
}

/// Where one epoch of a partition publishes its watermark. When the epoch has ended nobody reads it any more.
#[derive(Debug, Clone)]
pub struct Watermark {
    offset: Arc<AtomicI64>,
}

impl Watermark {
    /// Everything below `offset` is settled.
    pub fn advance(&self, offset: i64) {
        self.offset.store(offset, Ordering::Release);
    }
}

/// A small handle to the consumer thread; it outlives restarts of it. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct ConsumerHandle {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) subscription: watch::Sender<Subscription>,
    pub(super) intake: watch::Sender<bool>,
    pub(super) view: watch::Receiver<Arc<ConsumerView>>,
    pub(super) beat: watch::Receiver<Instant>,
    pub(super) answers: Arc<AtomicU64>,
    pub(super) looks: Arc<AtomicU64>,
    pub(super) waker: Arc<Waker>,
}

impl ConsumerHandle {
    /// Makes exactly these topics be consumed. The same set again changes nothing.
    pub fn subscribe(&self, topics: Arc<BTreeMap<TopicName, TopicPlan>>) {
        self.subscription.send_if_modified(|current| {
            let is_new = *current != topics;
            if is_new {
                *current = topics;
            }
            is_new
        });
    }

    /// A mailbox of this partition that begins at its watermark. What an earlier mailbox got and did not settle comes again. Its chunks leave
    /// `headroom` before values, but for records that were taken before. `afresh` assigns the partition again: for one whose records do not
    /// come.
    pub async fn open(&self, partition: &TopicPartition, epoch: u64, headroom: Option<Headroom>, afresh: bool) -> Result<Intake, OpenError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Open { partition: partition.clone(), epoch, headroom, afresh, reply }).map_err(|_| OpenError::Stopped)?;
        self.waker.wake();
        answer.await.map_err(|_| OpenError::Stopped)?
    }

    /// Ends the delivery without giving the partition away; nothing of it is held or fetched until it is opened again.
    pub fn close(&self, partition: &TopicPartition, epoch: u64) {
        // A consumer that has ended delivers nothing anyway.
        let _ = self.commands.send(Command::Close { partition: partition.clone(), epoch });
        self.waker.wake();
    }

    /// Moves a partition: commits `offset`, the only commit that may go backwards, and reads on there under a new epoch, which ends the task's life. Answers the watermark of
    /// before. What the old life still settles counts no more.
    pub async fn rewind(&self, partition: &TopicPartition, offset: i64) -> Result<i64, RewindError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Rewind { partition: partition.clone(), offset, reply }).map_err(|_| RewindError::Stopped)?;
        self.waker.wake();
        answer.await.map_err(|_| RewindError::Stopped)?
    }

    /// Ends all deliveries for good: the process stops. Commits go on.
    pub fn stop_intake(&self) {
        self.intake.send_replace(false);
        self.waker.wake();
    }

    /// Says that the brokers have answered for our partitions: an outage that the thread has seen is over.
    pub(super) fn note_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that the brokers have answered what topics there are: whoever asks is let in, which says nothing of the group.
    pub(crate) fn note_look(&self) {
        self.looks.fetch_add(1, Ordering::Relaxed);
    }

    /// The moment of the thread's last turn, for liveness.
    pub fn beat(&self) -> watch::Receiver<Instant> {
        self.beat.clone()
    }

    /// Every published view; the newest is there at once.
    pub fn view(&self) -> watch::Receiver<Arc<ConsumerView>> {
        self.view.clone()
    }
}
