//! The actor that owns the lives: it alone starts, kills and joins them, and publishes what it sees.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::decide::{self, CrashPlace, Joined, Kill, Next};
use super::ledger::{Entry, Ledger};
use super::{Command, Progress, Ready, RestartError, Settings, SlotView, SupervisorHandle, TaskContext, TaskError, View, Work};
use crate::status::{Exit, ExitCause, ReasonCode, TaskState};

/// How often lives are looked at for stalls and health.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Views are published at most this often; a storm of transitions is one view.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);
/// Ends that are kept for each key.
const RECENT_EXITS: usize = 10;

/// What one key's life is doing.
enum Phase {
    /// Waits for its turn to start.
    Queued,
    /// Started, not yet at work.
    Starting(Life),
    /// At work.
    Running(Life),
    /// Told to end; joined or aborted before anything else happens to the key.
    Ending { life: Life, kill: Kill, abort_at: Instant },
    /// Waits to start again.
    Backoff { until: Instant },
    /// Given up.
    Failed,
}

struct Life {
    cancel: CancellationToken,
    abort: AbortHandle,
    ready: Arc<Ready>,
    began: Instant,
    settled_at_begin: u64,
    settled: u64,
    moved: Instant,
}

struct Slot<W: Work> {
    /// `None` once the key is not wanted: the slot goes when its life has ended.
    wanted: Option<W::Spec>,
    /// The spec of the present life.
    running: Option<W::Spec>,
    phase: Phase,
    since_at: Timestamp,
    incarnation: u64,
    entry: Entry,
    failure: Option<ReasonCode>,
    place: CrashPlace,
    progress: Arc<W::Progress>,
}

/// Keeps one life running for each wanted key; see the module above.
pub struct Supervisor<W: Work> {
    name: &'static str,
    work: Arc<W>,
    settings: Settings,
    ledger: Arc<dyn Ledger>,
    commands: mpsc::UnboundedReceiver<Command<W>>,
    view: watch::Sender<View<W>>,
    slots: BTreeMap<W::Key, Slot<W>>,
    /// Numbers of lives of keys that are not wanted now: a number is never used twice.
    past: BTreeMap<W::Key, (u64, Entry)>,
    known: BTreeMap<String, Entry>,
    queue: VecDeque<W::Key>,
    lives: JoinSet<Result<(), TaskError>>,
    keys: HashMap<tokio::task::Id, W::Key>,
    wake: Arc<Notify>,
    unsaved: BTreeSet<W::Key>,
    changed: bool,
}

impl<W: Work> Supervisor<W> {
    /// A supervisor of `work`. `name` is for logs. Exits and counts that the ledger holds are taken up again.
    pub fn new(name: &'static str, work: Arc<W>, settings: Settings, ledger: Arc<dyn Ledger>) -> (Self, SupervisorHandle<W>) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (view, views) = watch::channel(Arc::new(BTreeMap::new()));
        let known = ledger.load().unwrap_or_else(|error| {
            error!(supervisor = name, error = %error, "the restart ledger cannot be read, counts begin again");
            BTreeMap::new()
        });
        let supervisor = Self {
            name,
            work,
            settings,
            ledger,
            commands,
            view,
            slots: BTreeMap::new(),
            past: BTreeMap::new(),
            known,
            queue: VecDeque::new(),
            lives: JoinSet::new(),
            keys: HashMap::new(),
            wake: Arc::new(Notify::new()),
            unsaved: BTreeSet::new(),
            changed: false,
        };
        (supervisor, SupervisorHandle { commands: sender, view: views })
    }

    /// Supervises until it is told to stop or every handle is gone.
    pub async fn run(mut self) {
        let wake = self.wake.clone();
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut saving: Option<BoxFuture<'static, ()>> = None;
        let mut published = Instant::now();
        let (reply, timeout) = loop {
            self.start_queued();
            if self.changed && published.elapsed() >= PUBLISH_INTERVAL {
                self.publish();
                published = Instant::now();
            }
            if saving.is_none() {
                saving = self.next_save();
            }
            let timer = self.next_timer(published);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Apply(wanted)) => self.apply(wanted),
                    Some(Command::Restart(key, reply)) => {
                        // Nobody waiting for the answer any more changes nothing.
                        let _ = reply.send(self.restart(&key));
                    }
                    Some(Command::Stop(reply, timeout)) => break (Some(reply), timeout),
                    None => break (None, self.settings.abort_after),
                },
                Some(joined) = self.lives.join_next_with_id(), if !self.lives.is_empty() => self.joined(joined),
                () = wake.notified() => self.note_ready(),
                () = async { if let Some(save) = saving.as_mut() { save.await } }, if saving.is_some() => saving = None,
                _ = watch.tick() => self.watch(),
                () = tokio::time::sleep_until(timer) => self.due(),
            }
        };
        self.stop(reply, timeout, saving).await;
    }

    fn apply(&mut self, wanted: BTreeMap<W::Key, W::Spec>) {
        let gone: Vec<W::Key> = self.slots.keys().filter(|key| !wanted.contains_key(key)).cloned().collect();
        for key in gone {
            self.want(&key, None);
        }
        for (key, spec) in wanted {
            if self.slots.contains_key(&key) {
                self.want(&key, Some(spec));
            } else {
                self.add(key, spec);
            }
        }
    }

    fn add(&mut self, key: W::Key, spec: W::Spec) {
        let (incarnation, entry) = self.past.remove(&key).unwrap_or_else(|| (0, self.known.remove(&key.to_string()).unwrap_or_default()));
        let slot = Slot {
            wanted: Some(spec),
            running: None,
            phase: Phase::Queued,
            since_at: Timestamp::now(),
            incarnation,
            entry,
            failure: None,
            place: CrashPlace::default(),
            progress: self.work.progress(&key),
        };
        self.slots.insert(key.clone(), slot);
        self.queue.push_back(key);
        self.changed = true;
    }

    /// Changes what is wanted of a key that has a slot.
    fn want(&mut self, key: &W::Key, spec: Option<W::Spec>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let respec = spec.is_some() && slot.wanted != spec;
        let unwanted = spec.is_none();
        if !respec && !unwanted {
            return;
        }
        slot.wanted = spec;
        self.changed = true;
        match &slot.phase {
            Phase::Starting(_) | Phase::Running(_) => self.kill(key, Kill::Unwanted),
            Phase::Ending { .. } => {}
            Phase::Queued | Phase::Backoff { .. } | Phase::Failed if unwanted => self.forget(key),
            Phase::Queued => {}
            // A new spec is a new chance.
            Phase::Backoff { .. } | Phase::Failed => self.enqueue(key),
        }
    }

    fn restart(&mut self, key: &W::Key) -> Result<u64, RestartError> {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.wanted.is_some()) else { return Err(RestartError::Unknown) };
        let next = slot.incarnation + 1;
        match &slot.phase {
            Phase::Starting(_) | Phase::Running(_) => self.kill(key, Kill::Requested),
            Phase::Ending { .. } | Phase::Queued => {}
            Phase::Backoff { .. } | Phase::Failed => {
                self.count_restart(key, ExitCause::Requested);
                self.enqueue(key);
            }
        }
        Ok(next)
    }

    fn kill(&mut self, key: &W::Key, kill: Kill) {
        let abort_at = Instant::now() + self.settings.abort_after;
        let Some(slot) = self.slots.get_mut(key) else { return };
        match std::mem::replace(&mut slot.phase, Phase::Queued) {
            Phase::Starting(life) | Phase::Running(life) => {
                life.cancel.cancel();
                slot.phase = Phase::Ending { life, kill, abort_at };
                slot.since_at = Timestamp::now();
            }
            other => slot.phase = other,
        }
        self.changed = true;
    }

    fn enqueue(&mut self, key: &W::Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.phase = Phase::Queued;
        slot.since_at = Timestamp::now();
        slot.failure = None;
        slot.entry.next_restart_at = None;
        self.queue.push_back(key.clone());
        self.changed = true;
    }

    /// Drops the slot of a key that is not wanted and has no life.
    fn forget(&mut self, key: &W::Key) {
        if let Some(slot) = self.slots.remove(key) {
            self.past.insert(key.clone(), (slot.incarnation, slot.entry));
        }
        self.changed = true;
    }

    fn start_queued(&mut self) {
        let mut starting = self.slots.values().filter(|slot| matches!(slot.phase, Phase::Starting(_))).count();
        while starting < self.settings.starts_at_once {
            let Some(key) = self.queue.pop_front() else { return };
            starting += usize::from(self.start(&key));
        }
    }

    fn start(&mut self, key: &W::Key) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let Some(spec) = slot.wanted.clone().filter(|_| matches!(slot.phase, Phase::Queued)) else { return false };
        slot.incarnation += 1;
        let cancel = CancellationToken::new();
        let ready = Arc::new(Ready { is_ready: false.into(), wake: self.wake.clone() });
        let context = TaskContext {
            cancel: cancel.clone(),
            incarnation: slot.incarnation,
            progress: slot.progress.clone(),
            care: slot.place.care,
            ready: ready.clone(),
        };
        let work = self.work.clone();
        let life_key = key.clone();
        let life_spec = spec.clone();
        // Making the future is inside the task too, so that a panic there is a panic of the life.
        let abort = self.lives.spawn(async move { work.run(life_key, life_spec, context).await });
        self.keys.insert(abort.id(), key.clone());
        let settled = slot.progress.settled();
        let now = Instant::now();
        slot.running = Some(spec);
        slot.phase = Phase::Starting(Life { cancel, abort, ready, began: now, settled_at_begin: settled, settled, moved: now });
        slot.since_at = Timestamp::now();
        self.changed = true;
        debug!(supervisor = self.name, key = %key, incarnation = slot.incarnation, care = ?slot.place.care, "task starts");
        true
    }

    fn note_ready(&mut self) {
        for slot in self.slots.values_mut() {
            let is_ready = matches!(&slot.phase, Phase::Starting(life) if life.ready.is_ready.load(std::sync::atomic::Ordering::Acquire));
            if !is_ready {
                continue;
            }
            if let Phase::Starting(life) = std::mem::replace(&mut slot.phase, Phase::Queued) {
                slot.phase = Phase::Running(life);
                slot.since_at = Timestamp::now();
                self.changed = true;
            }
        }
    }

    fn joined(&mut self, joined: Result<(tokio::task::Id, Result<(), TaskError>), JoinError>) {
        let (id, joined) = match joined {
            Ok((id, Ok(()))) => (id, Joined::Returned),
            Ok((id, Err(error))) => (id, Joined::Failed { message: error.chain(), fatal: error.fatal }),
            Err(error) => {
                let id = error.id();
                match error.try_into_panic() {
                    Ok(panic) => (id, Joined::Panicked { message: panic_text(panic.as_ref()) }),
                    Err(_) => (id, Joined::Aborted),
                }
            }
        };
        let Some(key) = self.keys.remove(&id) else { return };
        self.ended(&key, joined);
    }

    /// The life of `key` is over, completely.
    fn ended(&mut self, key: &W::Key, joined: Joined) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let kill = match &slot.phase {
            Phase::Ending { kill, .. } => Some(*kill),
            _ => None,
        };
        let verdict = decide::verdict(joined, kill);
        let is_crash = verdict.cause == ExitCause::Panicked || (verdict.cause == ExitCause::Error && verdict.next == Next::Backoff);
        let offset = slot.progress.offset();
        if is_crash {
            slot.place = slot.place.crashed(slot.progress.watermark(), offset, slot.place.care, self.settings.crash_loop_after);
        }
        slot.running = None;
        if verdict.cause != ExitCause::Cancelled {
            let exit = Exit { at: Timestamp::now(), cause: verdict.cause, message: verdict.message.clone(), offset };
            match verdict.cause {
                ExitCause::Requested => info!(supervisor = self.name, key = %key, incarnation = slot.incarnation, "task ended for a restart"),
                _ => {
                    warn!(supervisor = self.name, key = %key, incarnation = slot.incarnation, cause = verdict.cause.as_str(), offset, message = verdict.message, "task ended");
                }
            }
            slot.entry.last_exit = Some(exit.clone());
            slot.entry.recent_exits.insert(0, exit);
            slot.entry.recent_exits.truncate(RECENT_EXITS);
            self.unsaved.insert(key.clone());
        }
        self.changed = true;
        if slot.wanted.is_none() {
            return self.forget(key);
        }
        let (_, is_failure) = decide::counts(verdict.cause);
        if is_failure {
            slot.entry.consecutive_failures = slot.entry.consecutive_failures.saturating_add(1);
        }
        match verdict.next {
            Next::Fail(code) => {
                slot.phase = Phase::Failed;
                slot.failure = Some(code);
                slot.since_at = Timestamp::now();
                error!(supervisor = self.name, key = %key, code = code.as_str(), message = verdict.message, "task failed and is not restarted");
            }
            Next::Restart => {
                self.count_restart(key, verdict.cause);
                self.enqueue(key);
            }
            Next::Backoff => {
                let pause = decide::backoff(&self.settings, slot.entry.consecutive_failures, rand::random());
                slot.phase = Phase::Backoff { until: Instant::now() + pause };
                slot.since_at = Timestamp::now();
                slot.entry.next_restart_at = SignedDuration::try_from(pause).ok().and_then(|pause| Timestamp::now().checked_add(pause).ok());
                self.count_restart(key, verdict.cause);
            }
        }
    }

    fn count_restart(&mut self, key: &W::Key, cause: ExitCause) {
        let (is_restart, _) = decide::counts(cause);
        let Some(slot) = self.slots.get_mut(key).filter(|_| is_restart) else { return };
        slot.entry.restarts_total += 1;
        *slot.entry.restarts_by_cause.entry(cause).or_default() += 1;
        self.unsaved.insert(key.clone());
    }

    /// Kills lives that stall, and ends the series of failures of those that are well.
    fn watch(&mut self) {
        let now = Instant::now();
        let mut stalled = Vec::new();
        for (key, slot) in &mut self.slots {
            let Phase::Running(life) = &mut slot.phase else { continue };
            let settled = slot.progress.settled();
            if settled != life.settled || !slot.progress.pending() || slot.progress.excused() {
                life.settled = settled;
                life.moved = now;
            }
            if now.duration_since(life.moved) >= self.settings.stall_after {
                stalled.push(key.clone());
                continue;
            }
            let has_settled = !W::Progress::MEASURED || settled > life.settled_at_begin;
            let is_healthy = has_settled && now.duration_since(life.began) >= self.settings.healthy_after;
            if is_healthy && (slot.entry.consecutive_failures > 0 || slot.place != CrashPlace::default()) {
                slot.entry.consecutive_failures = 0;
                slot.place = CrashPlace::default();
                self.unsaved.insert(key.clone());
                self.changed = true;
            }
        }
        for key in stalled {
            warn!(supervisor = self.name, key = %key, "task makes no progress with pending work and is killed");
            self.kill(&key, Kill::Stalled);
        }
    }

    /// Does what has become due: restarts after backoff, aborts of lives that did not end.
    fn due(&mut self) {
        let now = Instant::now();
        let mut restarts = Vec::new();
        for (key, slot) in &mut self.slots {
            match &mut slot.phase {
                Phase::Backoff { until } if *until <= now => restarts.push(key.clone()),
                Phase::Ending { life, abort_at, .. } if *abort_at <= now => {
                    life.abort.abort();
                    *abort_at = now + self.settings.abort_after;
                }
                _ => {}
            }
        }
        for key in restarts {
            self.enqueue(&key);
        }
    }

    fn next_timer(&self, published: Instant) -> Instant {
        let mut next = Instant::now() + Duration::from_secs(3600);
        if self.changed {
            next = next.min(published + PUBLISH_INTERVAL);
        }
        for slot in self.slots.values() {
            match &slot.phase {
                Phase::Backoff { until } => next = next.min(*until),
                Phase::Ending { abort_at, .. } => next = next.min(*abort_at),
                _ => {}
            }
        }
        next
    }

    fn next_save(&mut self) -> Option<BoxFuture<'static, ()>> {
        let key = self.unsaved.pop_first()?;
        let entry = match self.slots.get(&key) {
            Some(slot) => slot.entry.clone(),
            None => self.past.get(&key)?.1.clone(),
        };
        let ledger = self.ledger.clone();
        Some(Box::pin(async move {
            let name = key.to_string();
            let save = AssertUnwindSafe(ledger.save(&name, &entry)).catch_unwind().await;
            match save {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error!(key = name, error = %error, "the restart ledger cannot be written, counts may be lost with the process"),
                Err(_) => error!(key = name, "writing the restart ledger panicked"),
            }
        }))
    }

    fn publish(&mut self) {
        self.changed = false;
        let view = self.slots.iter().map(|(key, slot)| (key.clone(), slot.view())).collect();
        self.view.send_replace(Arc::new(view));
    }

    /// Ends all lives, saves what is unsaved, and answers who did not end in time.
    async fn stop(mut self, reply: Option<oneshot::Sender<Vec<W::Key>>>, timeout: Duration, saving: Option<BoxFuture<'static, ()>>) {
        let deadline = Instant::now() + timeout;
        let keys: Vec<W::Key> = self.slots.keys().cloned().collect();
        for key in &keys {
            self.want(key, None);
        }
        self.publish();
        while !self.lives.is_empty() {
            match tokio::time::timeout_at(deadline, self.lives.join_next_with_id()).await {
                Ok(Some(joined)) => self.joined(joined),
                Ok(None) => break,
                Err(_) => {
                    // One more chance for lives that only wait: an abort ends them at their next await.
                    self.lives.abort_all();
                    break;
                }
            }
        }
        let leftovers: Vec<W::Key> = self.slots.keys().cloned().collect();
        if let Some(save) = saving {
            save.await;
        }
        while let Some(save) = self.next_save() {
            save.await;
        }
        self.publish();
        if let Some(reply) = reply {
            // Nobody waiting for the answer any more changes nothing.
            let _ = reply.send(leftovers);
        }
    }
}

impl<W: Work> Slot<W> {
    fn view(&self) -> SlotView<W::Progress> {
        let state = match &self.phase {
            Phase::Queued | Phase::Starting(_) => TaskState::Starting,
            Phase::Running(_) => TaskState::Running,
            Phase::Ending { kill: Kill::Stalled, .. } => TaskState::Stalled,
            Phase::Ending { .. } => TaskState::Draining,
            Phase::Backoff { .. } => TaskState::Backoff,
            Phase::Failed => TaskState::Failed,
        };
        SlotView {
            state,
            since_at: self.since_at,
            incarnation: self.incarnation,
            restarts_total: self.entry.restarts_total,
            restarts_by_cause: self.entry.restarts_by_cause.clone(),
            consecutive_failures: self.entry.consecutive_failures,
            next_restart_at: self.entry.next_restart_at,
            last_exit: self.entry.last_exit.clone(),
            recent_exits: self.entry.recent_exits.clone(),
            failure: self.failure,
            progress: self.progress.clone(),
        }
    }
}

/// A panic's text; a payload that is no text has none.
fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        return (*text).to_owned();
    }
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without a message".to_owned())
}
