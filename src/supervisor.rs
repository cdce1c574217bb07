//! A keyed supervisor: keeps one life running for each wanted key, and notices every way a life can end.
//!
//! Guarantees: at most one life per key exists at a time, since the next begins only after the one before was joined; each end is one of [`ExitCause`] and handled in one match
//! ([`decide`]); restarts back off with full jitter, capped, and the backoff is reset by health, not by starting; a life that said it is ready, has pending work, is not excused and settles
//! nothing for `stall_after` is killed, while a start may take as long as it needs; one that work does not come to is killed likewise, but after [`decide::STARVED_KILLS`] such kills it is left alone and shown as stalled; counts and exits are kept in a [`Ledger`] over restarts of the process. Owns the lives, their incarnations and their
//! state; publishes immutable views. Does not know what a key is or what a life does: no Kafka, no topics, no HTTP.
//!
//! | to find | look in |
//! |---|---|
//! | what follows from an end, how long the backoff is | [`decide`] |
//! | starting, killing, joining, publishing | [`run`] |
//! | what survives the process | [`ledger`] |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::status::{Exit, ExitCause, ReasonCode, TaskState};

pub mod decide;
pub mod ledger;
pub mod run;

pub use ledger::{Ledger, NoLedger, RedbLedger};
pub use run::Supervisor;

/// What a life publishes while it works, without a lock: the supervisor reads it to tell health from a stall, and after the end to say where it was.
pub trait Progress: Send + Sync + 'static {
    /// Whether [`Progress::settled`] means anything; where it does not, time alone counts as health.
    const MEASURED: bool = true;

    /// Pieces of work finished so far, over all lives of the key.
    fn settled(&self) -> u64;

    /// Whether there is work that should be going on.
    fn pending(&self) -> bool;

    /// Whether the work waits for a dependency that is known to be away: then nothing is a stall.
    fn excused(&self) -> bool;

    /// Whether work is known to be there that does not come, so that nothing is [`pending`](Self::pending).
    fn starved(&self) -> bool {
        false
    }

    /// Everything below this offset is finished; crashes are counted per watermark.
    fn watermark(&self) -> Option<i64>;

    /// The offset that is worked on just now.
    fn offset(&self) -> Option<i64>;
}

/// The progress of work that has none to show.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    const MEASURED: bool = false;

    fn settled(&self) -> u64 {
        0
    }

    fn pending(&self) -> bool {
        false
    }

    fn excused(&self) -> bool {
        false
    }

    fn watermark(&self) -> Option<i64> {
        None
    }

    fn offset(&self) -> Option<i64> {
        None
    }
}

/// What a supervisor runs.
pub trait Work: Send + Sync + 'static {
    /// Names a life.
    type Key: Ord + Clone + fmt::Display + Send + Sync + 'static;
    /// What a life needs to know; another value means another life.
    type Spec: Clone + PartialEq + Send + Sync + 'static;
    /// What a life publishes.
    type Progress: Progress;

    /// The place where all lives of a key publish, one after the other.
    fn progress(&self, key: &Self::Key) -> Arc<Self::Progress>;

    /// One life. It must end soon after `context.cancel`; a life that does not is aborted.
    fn run(&self, key: Self::Key, spec: Self::Spec, context: TaskContext<Self::Progress>) -> BoxFuture<'static, Result<(), TaskError>>;
}

/// What a life is given.
pub struct TaskContext<P> {
    /// Fires when the life has to end.
    pub cancel: CancellationToken,
    /// The number of this life, from 1; unique for the key while the process runs.
    pub incarnation: u64,
    /// Where this life publishes.
    pub progress: Arc<P>,
    /// How careful this life has to be.
    pub care: Care,
    ready: Arc<Ready>,
}

impl<P> TaskContext<P> {
    /// A context for a life that nobody supervises, for tests and tools.
    pub fn detached(cancel: CancellationToken, progress: Arc<P>, care: Care) -> Self {
        Self { cancel, incarnation: 1, progress, care, ready: Arc::new(Ready::default()) }
    }

    /// Says that the life is at work: it counts as `running` from now on and makes room for the next start.
    pub fn ready(&self) {
        self.ready.is_ready.store(true, Ordering::Release);
        self.ready.wake.notify_one();
    }
}

#[derive(Default)]
struct Ready {
    is_ready: AtomicBool,
    wake: Arc<Notify>,
}

/// What the crashes before this life ask of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Care {
    /// Nothing.
    #[default]
    None,
    /// The same place crashed again and again: go on one record at a time and publish each offset before it is touched.
    OneByOne,
    /// This record crashed alone: give it up, then go on one record at a time.
    GiveUp(i64),
}

/// Why a life ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    message: String,
    fatal: Option<ReasonCode>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TaskError {
    /// An error after which another life may do better.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), fatal: None, source: None }
    }

    /// The same with its cause.
    pub fn caused(message: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { message: message.into(), fatal: None, source: Some(Box::new(source)) }
    }

    /// An error that no other life would get around: the key is `failed` until someone acts.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::stop(ReasonCode::Crashed, message)
    }

    /// The same for a named reason.
    pub fn stop(code: ReasonCode, message: impl Into<String>) -> Self {
        Self { message: message.into(), fatal: Some(code), source: None }
    }
}

/// How patient a supervisor is.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The first backoff is up to this long; each further one up to twice as long.
    pub backoff_first: Duration,
    /// No backoff is longer.
    pub backoff_max: Duration,
    /// A life that has worked this long, and settled something where that is measured, ends the series of failures.
    pub healthy_after: Duration,
    /// Work that is pending or does not come, not excused and nothing settled for this long is a stall.
    pub stall_after: Duration,
    /// So many crashes at one watermark make the next life careful.
    pub crash_loop_after: u32,
    /// Lives that may be starting at once.
    pub starts_at_once: usize,
    /// A cancelled life that has not ended after this long is aborted.
    pub abort_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_secs(300),
            healthy_after: Duration::from_secs(30),
            stall_after: Duration::from_secs(60),
            crash_loop_after: 5,
            starts_at_once: 64,
            abort_after: Duration::from_secs(5),
        }
    }
}

/// What is known of one key.
#[derive(Debug)]
pub struct SlotView<P> {
    /// What its life does.
    pub state: TaskState,
    /// Since when.
    pub since_at: Timestamp,
    /// The number of the current or last life, 0 before the first.
    pub incarnation: u64,
    /// Restarts ever, over restarts of the process.
    pub restarts_total: u64,
    /// The same by the cause of the end before.
    pub restarts_by_cause: BTreeMap<ExitCause, u64>,
    /// Failures since the last healthy time.
    pub consecutive_failures: u32,
    /// When the next life begins, in backoff.
    pub next_restart_at: Option<Timestamp>,
    /// The last end.
    pub last_exit: Option<Exit>,
    /// The newest ends, newest first.
    pub recent_exits: Vec<Exit>,
    /// Why it is `failed`, as a code.
    pub failure: Option<ReasonCode>,
    /// Where its lives publish.
    pub progress: Arc<P>,
}

impl<P> Clone for SlotView<P> {
    fn clone(&self) -> Self {
        Self {
            state: self.state,
            since_at: self.since_at,
            incarnation: self.incarnation,
            restarts_total: self.restarts_total,
            restarts_by_cause: self.restarts_by_cause.clone(),
            consecutive_failures: self.consecutive_failures,
            next_restart_at: self.next_restart_at,
            last_exit: self.last_exit.clone(),
            recent_exits: self.recent_exits.clone(),
            failure: self.failure,
            progress: self.progress.clone(),
        }
    }
}

/// All keys of a supervisor at one moment.
pub type View<W> = Arc<BTreeMap<<W as Work>::Key, SlotView<<W as Work>::Progress>>>;

/// Why a key cannot be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// Nothing of this name is wanted.
    #[error("nothing of this name is running")]
    Unknown,
    /// The supervisor has ended or is ending.
    #[error("everything is being stopped")]
    Stopped,
}

enum Command<W: Work> {
    Apply(BTreeMap<W::Key, W::Spec>),
    Restart(W::Key, oneshot::Sender<Result<u64, RestartError>>),
    Stop(oneshot::Sender<Vec<W::Key>>, Duration),
}

/// A small handle to a supervisor. Cloning it is cheap.
pub struct SupervisorHandle<W: Work> {
    commands: mpsc::UnboundedSender<Command<W>>,
    view: watch::Receiver<View<W>>,
}

impl<W: Work> Clone for SupervisorHandle<W> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), view: self.view.clone() }
    }
}

impl<W: Work> SupervisorHandle<W> {
    /// Makes exactly these keys run. Applying the same set again changes nothing.
    pub fn apply(&self, wanted: BTreeMap<W::Key, W::Spec>) {
        // A supervisor that has ended runs nothing any more, which is what an ended process wants.
        let _ = self.commands.send(Command::Apply(wanted));
    }

    /// Ends the life of `key` and begins the next one without backoff; answers the number of the next life. Counted as a restart, not as a failure.
    pub async fn restart(&self, key: &W::Key) -> Result<u64, RestartError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Restart(key.clone(), reply)).map_err(|_| RestartError::Stopped)?;
        answer.await.map_err(|_| RestartError::Stopped)?
    }

    /// Ends all lives and then the supervisor; answers the keys that did not end within `timeout`.
    pub async fn stop(&self, timeout: Duration) -> Vec<W::Key> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stop(reply, timeout)).is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Every published view; the newest is there at once.
    pub fn view(&self) -> watch::Receiver<View<W>> {
        self.view.clone()
    }
}

#[cfg(test)]
mod tests;
