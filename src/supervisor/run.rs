//! The actor that owns the lives: it alone starts, kills and joins them, and publishes what it sees.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::decide::{self, CrashPlace, Joined, Kill, Next, Stall};
use super::ledger::{Entry, Ledger, LedgerError};
use super::{Command, Progress, Ready, RestartError, Settings, SlotView, SupervisorHandle, TaskContext, TaskError, View, Work};
use crate::causes::chain;
use crate::status::{Exit, ExitCause, ReasonCode, TaskState};

/// How often lives are looked at for stalls and health.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Views are published at most this often; a storm of transitions is one view.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);
/// The pause between two views is at least so many times what the last one took to build: with ten thousand keys that is some milliseconds.
const PUBLISH_SHARE: u32 = 10;
/// What aborted lives get to come to their next await, and a slow ledger to finish, once the time for stopping is over.
const LAST_GRACE: Duration = Duration::from_millis(500);
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
    /// Told to end; joined or aborted before anything else happens to the key. With `at_once` someone acted meanwhile, and the next life has no backoff.
    Ending { life: Life, kill: Kill, abort_at: Instant, at_once: bool },
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
    /// Work does not come, and killing did not help: it is left alone.
    is_silent: bool,
}

struct Slot<W: Work> {
    /// `None` once the key is not wanted: the slot goes when its life has ended.
    wanted: Option<W::Spec>,
    phase: Phase,
    since_at: Timestamp,
    incarnation: u64,
    entry: Entry,
    failure: Option<ReasonCode>,
    place: CrashPlace,
    /// Kills in a row because work did not come.
    starved_kills: u32,
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
    /// Exactly the keys in [`Phase::Starting`].
    starting: BTreeSet<W::Key>,
    /// When backoffs end and aborts are due. A time that no longer applies stays until it has come and does nothing then.
    timers: BTreeSet<(Instant, W::Key)>,
    lives: JoinSet<Result<(), TaskError>>,
    keys: HashMap<tokio::task::Id, W::Key>,
    wake: Arc<Notify>,
    unsaved: BTreeSet<W::Key>,
    changed: bool,
    publish_at: Instant,
}

impl<W: Work> Supervisor<W> {
    /// A supervisor of `work`. `name` is for logs. Exits and counts that the ledger holds are taken up again.
    pub fn new(name: &'static str, work: Arc<W>, settings: Settings, ledger: Arc<dyn Ledger>) -> (Self, SupervisorHandle<W>) {
        let (sender, commands) = mpsc::unbounded_channel();
        let (view, views) = watch::channel(Arc::new(BTreeMap::new()));
        let loaded = catch_unwind(AssertUnwindSafe(|| ledger.load())).unwrap_or_else(|payload| Err(panicked("reading it", payload.as_ref())));
        let known = loaded.unwrap_or_else(|error| {
            error!(supervisor = name, error = %error, cause = %error.source, "the restart ledger cannot be read, counts begin again");
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
            starting: BTreeSet::new(),
            timers: BTreeSet::new(),
            lives: JoinSet::new(),
            keys: HashMap::new(),
            wake: Arc::new(Notify::new()),
            unsaved: BTreeSet::new(),
            changed: false,
            publish_at: Instant::now(),
        };
        (supervisor, SupervisorHandle { commands: sender, view: views })
    }

    /// Supervises until it is told to stop or every handle is gone.
    pub async fn run(mut self) {
        let wake = self.wake.clone();
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut saving: Option<BoxFuture<'static, ()>> = None;
        let (reply, timeout) = loop {
            self.start_queued();
            if self.changed && Instant::now() >= self.publish_at {
                self.publish();
            }
            if saving.is_none() {
                saving = self.next_save();
            }
            let timer = self.next_timer();
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
        let (incarnation, mut entry) = self.past.remove(&key).unwrap_or_else(|| (0, self.known.remove(&key.to_string()).unwrap_or_default()));
        // It starts at once, whatever it waited for before it was removed or the process ended.
        entry.next_restart_at = None;
        let slot = Slot {
            wanted: Some(spec),
            phase: Phase::Queued,
            since_at: Timestamp::now(),
            incarnation,
            entry,
            failure: None,
            place: CrashPlace::default(),
            starved_kills: 0,
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
        match &mut slot.phase {
            Phase::Starting(_) | Phase::Running(_) => self.kill(key, Kill::Unwanted),
            Phase::Ending { at_once, .. } => *at_once = true,
            Phase::Queued | Phase::Backoff { .. } | Phase::Failed if unwanted => self.forget(key),
            Phase::Queued => {}
            // A new spec is a new chance.
            Phase::Backoff { .. } | Phase::Failed => self.enqueue(key),
        }
    }

    fn restart(&mut self, key: &W::Key) -> Result<u64, RestartError> {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.wanted.is_some()) else { return Err(RestartError::Unknown) };
        let next = slot.incarnation + 1;
        match &mut slot.phase {
            Phase::Starting(_) | Phase::Running(_) => self.kill(key, Kill::Requested),
            Phase::Ending { at_once, .. } => *at_once = true,
            Phase::Queued => {}
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
                slot.phase = Phase::Ending { life, kill, abort_at, at_once: false };
                slot.since_at = Timestamp::now();
                self.starting.remove(key);
                self.timers.insert((abort_at, key.clone()));
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
        while self.starting.len() < self.settings.starts_at_once {
            let Some(key) = self.queue.pop_front() else { return };
            self.start(&key);
        }
    }

    /// Starts a queued key. One that left the queue's phase since it was queued has nothing to start.
    fn start(&mut self, key: &W::Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(spec) = slot.wanted.clone().filter(|_| matches!(slot.phase, Phase::Queued)) else { return };
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
        // Making the future is inside the task too, so that a panic there is a panic of the life.
        let abort = self.lives.spawn(async move { work.run(life_key, spec, context).await });
        self.keys.insert(abort.id(), key.clone());
        let settled = slot.progress.settled();
        let now = Instant::now();
        slot.phase = Phase::Starting(Life { cancel, abort, ready, began: now, settled_at_begin: settled, settled, moved: now, is_silent: false });
        slot.since_at = Timestamp::now();
        self.starting.insert(key.clone());
        self.changed = true;
        debug!(supervisor = self.name, key = %key, incarnation = slot.incarnation, care = ?slot.place.care, "task starts");
    }

    fn note_ready(&mut self) {
        for key in std::mem::take(&mut self.starting) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            match std::mem::replace(&mut slot.phase, Phase::Queued) {
                Phase::Starting(mut life) if life.ready.is_ready.load(Ordering::Acquire) => {
                    // Nothing could stall before: the time of the start is no part of a stall.
                    life.moved = Instant::now();
                    slot.phase = Phase::Running(life);
                    slot.since_at = Timestamp::now();
                    self.changed = true;
                }
                other => {
                    slot.phase = other;
                    self.starting.insert(key);
                }
            }
        }
    }

    fn joined(&mut self, joined: Result<(tokio::task::Id, Result<(), TaskError>), JoinError>) {
        let (id, joined) = match joined {
            Ok((id, Ok(()))) => (id, Joined::Returned),
            Ok((id, Err(error))) => (id, Joined::Failed { message: chain(&error), fatal: error.fatal }),
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
        self.starting.remove(key);
        let (kill, at_once) = match &slot.phase {
            Phase::Ending { kill, at_once, .. } => (Some(*kill), *at_once),
            _ => (None, false),
        };
        let verdict = decide::verdict(joined, kill);
        let is_crash = verdict.cause == ExitCause::Panicked || (verdict.cause == ExitCause::Error && verdict.next == Next::Backoff);
        let offset = slot.progress.offset();
        if is_crash {
            slot.place = slot.place.crashed(slot.progress.watermark(), offset, slot.place.care, self.settings.crash_loop_after);
        }
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
        let next = if at_once { Next::Restart } else { verdict.next };
        match next {
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
                let until = Instant::now() + pause;
                slot.phase = Phase::Backoff { until };
                self.timers.insert((until, key.clone()));
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
            let is_pending = slot.progress.pending();
            let has_work = is_pending || slot.progress.starved();
            if settled != life.settled {
                slot.starved_kills = 0;
            }
            if settled != life.settled || !has_work || slot.progress.excused() {
                life.settled = settled;
                life.moved = now;
            }
            let is_stalled = now.duration_since(life.moved) >= self.settings.stall_after;
            match is_stalled.then(|| decide::stall(is_pending, slot.starved_kills)) {
                Some(Stall::Kill(kill)) => {
                    slot.starved_kills += u32::from(kill == Kill::Starved);
                    stalled.push((key.clone(), kill));
                    continue;
                }
                shown => {
                    let is_silent = shown == Some(Stall::Show);
                    if life.is_silent != is_silent {
                        life.is_silent = is_silent;
                        slot.since_at = Timestamp::now();
                        self.changed = true;
                    }
                    if is_silent {
                        continue;
                    }
                }
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
        for (key, kill) in stalled {
            warn!(supervisor = self.name, key = %key, work_comes = kill == Kill::Stalled, "task has work and makes no progress, it is killed");
            self.kill(&key, kill);
        }
    }

    /// Does what has become due: restarts after backoff, aborts of lives that did not end.
    fn due(&mut self) {
        let now = Instant::now();
        while let Some((at, key)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, key));
                return;
            }
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            match &mut slot.phase {
                Phase::Backoff { until } if *until <= now => self.enqueue(&key),
                Phase::Ending { life, abort_at, .. } if *abort_at <= now => life.abort.abort(),
                _ => {}
            }
        }
    }

    fn next_timer(&self) -> Instant {
        let idle = Instant::now() + Duration::from_secs(3600);
        let due = self.timers.first().map_or(idle, |(at, _)| *at);
        if self.changed { due.min(self.publish_at) } else { due }
    }

    /// A write of everything that is unsaved; `None` when nothing is.
    fn next_save(&mut self) -> Option<BoxFuture<'static, ()>> {
        if self.unsaved.is_empty() {
            return None;
        }
        let mut entries = Vec::with_capacity(self.unsaved.len());
        for key in std::mem::take(&mut self.unsaved) {
            let current = self.slots.get(&key).map(|slot| &slot.entry);
            if let Some(entry) = current.or_else(|| self.past.get(&key).map(|(_, entry)| entry)) {
                entries.push((key.to_string(), entry.clone()));
            }
        }
        Some(Box::pin(save(self.name, self.ledger.clone(), entries)))
    }

    fn publish(&mut self) {
        let began = Instant::now();
        self.changed = false;
        let view = self.slots.iter().map(|(key, slot)| (key.clone(), slot.view())).collect();
        self.view.send_replace(Arc::new(view));
        let now = Instant::now();
        self.publish_at = now + PUBLISH_INTERVAL.max(now.duration_since(began) * PUBLISH_SHARE);
    }

    /// Ends all lives, saves what is unsaved, and answers who did not end in time.
    async fn stop(mut self, reply: Option<oneshot::Sender<Vec<W::Key>>>, timeout: Duration, saving: Option<BoxFuture<'static, ()>>) {
        let deadline = Instant::now() + timeout;
        let mut replies: Vec<_> = reply.into_iter().collect();
        let keys: Vec<W::Key> = self.slots.keys().cloned().collect();
        for key in &keys {
            self.want(key, None);
        }
        self.publish();
        self.join_lives(deadline, &mut replies).await;
        let leftovers: Vec<W::Key> = self.slots.keys().cloned().collect();
        if !leftovers.is_empty() {
            self.lives.abort_all();
            self.join_lives(Instant::now() + LAST_GRACE, &mut replies).await;
        }
        let saves_end = deadline.max(Instant::now() + LAST_GRACE);
        let saves = async {
            if let Some(save) = saving {
                save.await;
            }
            if let Some(save) = self.next_save() {
                save.await;
            }
        };
        if tokio::time::timeout_at(saves_end, saves).await.is_err() {
            error!(supervisor = self.name, "the restart ledger was not written in time, the last counts may be lost");
        }
        self.publish();
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            refuse(command, &mut replies);
        }
        for reply in replies {
            // Nobody waiting for the answer any more changes nothing.
            let _ = reply.send(leftovers.clone());
        }
    }

    /// Joins lives until there are none or the time is over. Meanwhile views go on and commands are refused.
    async fn join_lives(&mut self, deadline: Instant, replies: &mut Vec<oneshot::Sender<Vec<W::Key>>>) {
        while !self.lives.is_empty() {
            tokio::select! {
                Some(joined) = self.lives.join_next_with_id() => self.joined(joined),
                Some(command) = self.commands.recv() => refuse(command, replies),
                () = tokio::time::sleep_until(self.publish_at), if self.changed => self.publish(),
                () = tokio::time::sleep_until(deadline) => return,
            }
        }
    }
}

/// What a supervisor that is stopping does with a command: who asks for the stop too gets the same answer later.
fn refuse<W: Work>(command: Command<W>, replies: &mut Vec<oneshot::Sender<Vec<W::Key>>>) {
    match command {
        Command::Apply(_) => {}
        Command::Restart(_, reply) => {
            // Nobody waiting for the answer any more changes nothing.
            let _ = reply.send(Err(RestartError::Stopped));
        }
        Command::Stop(reply, _) => replies.push(reply),
    }
}

/// Saves entries. A ledger that fails or panics costs counts and nothing else.
async fn save(supervisor: &'static str, ledger: Arc<dyn Ledger>, entries: Vec<(String, Entry)>) {
    let mut saves = Vec::with_capacity(entries.len());
    // All are handed over before the first is awaited, so that the ledger can write them together.
    for (key, entry) in &entries {
        saves.push((key, catch_unwind(AssertUnwindSafe(|| ledger.save(key, entry)))));
    }
    let mut failed = 0_usize;
    let mut first = None;
    for (key, handed_over) in saves {
        let result = match handed_over {
            Ok(save) => AssertUnwindSafe(save).catch_unwind().await.unwrap_or_else(|payload| Err(panicked("writing it", payload.as_ref()))),
            Err(payload) => Err(panicked("writing it", payload.as_ref())),
        };
        if let Err(error) = result {
            failed += 1;
            first.get_or_insert((key, error));
        }
    }
    if let Some((key, error)) = first {
        error!(supervisor, key, failed, error = %error, cause = %error.source, "the restart ledger cannot be written, counts may be lost with the process");
    }
}

fn panicked(what: &str, payload: &(dyn std::any::Any + Send)) -> LedgerError {
    LedgerError { what: format!("{what} panicked"), source: panic_text(payload).into() }
}

impl<W: Work> Slot<W> {
    fn view(&self) -> SlotView<W::Progress> {
        let state = match &self.phase {
            Phase::Queued | Phase::Starting(_) => TaskState::Starting,
            Phase::Running(life) if life.is_silent => TaskState::Stalled,
            Phase::Running(_) => TaskState::Running,
            Phase::Ending { kill: Kill::Stalled | Kill::Starved, .. } => TaskState::Stalled,
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
