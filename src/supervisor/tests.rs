//! The supervisor with scripted lives, under paused time: an hour of backoff costs nothing, and every wait ends at the moment it should or not at all.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::ledger::{Entry, LedgerError};
use super::*;

/// Longer than anything that is waited for.
const DAY: Duration = Duration::from_secs(86_400);
/// A chance of missing a backoff's view, because jitter made it shorter than the interval of views, is 10 ms in this.
const LONG: Duration = Duration::from_secs(2_000);

type Life = Box<dyn FnOnce(TaskContext<Shown>) -> BoxFuture<'static, Result<(), TaskError>> + Send>;

/// The progress of a scripted life.
#[derive(Debug)]
struct Shown {
    settled: AtomicU64,
    pending: AtomicBool,
    starved: AtomicBool,
    excused: AtomicBool,
    watermark: AtomicI64,
    offset: AtomicI64,
}

impl Default for Shown {
    fn default() -> Self {
        Self { settled: 0.into(), pending: false.into(), starved: false.into(), excused: false.into(), watermark: (-1).into(), offset: (-1).into() }
    }
}

impl Shown {
    fn settle(&self) {
        self.settled.fetch_add(1, Ordering::SeqCst);
    }

    fn at(&self, watermark: i64, offset: i64) {
        self.watermark.store(watermark, Ordering::SeqCst);
        self.offset.store(offset, Ordering::SeqCst);
    }
}

fn known(value: i64) -> Option<i64> {
    (value >= 0).then_some(value)
}

impl Progress for Shown {
    fn settled(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }

    fn pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    fn excused(&self) -> bool {
        self.excused.load(Ordering::SeqCst)
    }

    fn starved(&self) -> bool {
        self.starved.load(Ordering::SeqCst)
    }

    fn watermark(&self) -> Option<i64> {
        known(self.watermark.load(Ordering::SeqCst))
    }

    fn offset(&self) -> Option<i64> {
        known(self.offset.load(Ordering::SeqCst))
    }
}

#[derive(Debug, Clone)]
struct Start {
    key: u8,
    spec: &'static str,
    incarnation: u64,
    care: Care,
    at: Instant,
}

/// What happened, as the lives themselves saw it.
#[derive(Default)]
struct Seen {
    starts: Vec<Start>,
    ends: Vec<(u8, Instant)>,
    alive: HashMap<(u8, u64), (Arc<Ready>, CancellationToken)>,
    most_of_one_key: usize,
    most_starting: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exists as long as its life's future does.
struct Alive {
    seen: Arc<Mutex<Seen>>,
    key: u8,
    incarnation: u64,
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        seen.alive.remove(&(self.key, self.incarnation));
        seen.ends.push((self.key, Instant::now()));
    }
}

/// Runs the next scripted life of a key; without a script, one of `otherwise`.
struct Fake {
    seen: Arc<Mutex<Seen>>,
    scripts: Mutex<HashMap<u8, VecDeque<Life>>>,
    shown: Mutex<HashMap<u8, Arc<Shown>>>,
    otherwise: Mutex<Box<dyn FnMut() -> Life + Send>>,
}

impl Fake {
    fn new() -> Self {
        Self {
            seen: Arc::default(),
            scripts: Mutex::default(),
            shown: Mutex::default(),
            otherwise: Mutex::new(Box::new(|| Box::new(|context| Box::pin(obedient(context))))),
        }
    }

    /// The key's next life without a script yet.
    fn script<F: Future<Output = Result<(), TaskError>> + Send + 'static>(
        &self,
        key: u8,
        life: impl FnOnce(TaskContext<Shown>) -> F + Send + 'static,
    ) {
        lock(&self.scripts).entry(key).or_default().push_back(Box::new(move |context| Box::pin(life(context))));
    }

    fn starts(&self) -> Vec<Start> {
        lock(&self.seen).starts.clone()
    }

    fn shown(&self, key: u8) -> Arc<Shown> {
        lock(&self.shown).entry(key).or_default().clone()
    }

    fn end_of(&self, key: u8, index: usize) -> Instant {
        lock(&self.seen).ends.iter().filter(|(of, _)| *of == key).nth(index).expect("ended").1
    }
}

impl Work for Fake {
    type Key = u8;
    type Spec = &'static str;
    type Progress = Shown;

    fn progress(&self, key: &u8) -> Arc<Shown> {
        self.shown(*key)
    }

    fn run(&self, key: u8, spec: &'static str, context: TaskContext<Shown>) -> BoxFuture<'static, Result<(), TaskError>> {
        let incarnation = context.incarnation;
        let alive = Alive { seen: self.seen.clone(), key, incarnation };
        {
            let mut seen = lock(&self.seen);
            seen.starts.push(Start { key, spec, incarnation, care: context.care, at: Instant::now() });
            seen.alive.insert((key, incarnation), (context.ready.clone(), context.cancel.clone()));
            let of_this_key = seen.alive.keys().filter(|(other, _)| *other == key).count();
            let is_starting = |(ready, cancel): &&(Arc<Ready>, CancellationToken)| !ready.is_ready.load(Ordering::SeqCst) && !cancel.is_cancelled();
            let starting = seen.alive.values().filter(is_starting).count();
            seen.most_of_one_key = seen.most_of_one_key.max(of_this_key);
            seen.most_starting = seen.most_starting.max(starting);
        }
        let scripted = lock(&self.scripts).get_mut(&key).and_then(VecDeque::pop_front);
        let life = scripted.unwrap_or_else(|| (lock(&self.otherwise))());
        let future = life(context);
        Box::pin(async move {
            let _alive = alive;
            future.await
        })
    }
}

async fn obedient(context: TaskContext<Shown>) -> Result<(), TaskError> {
    context.ready();
    context.cancel.cancelled().await;
    Ok(())
}

async fn deaf(context: TaskContext<Shown>) -> Result<(), TaskError> {
    context.ready();
    std::future::pending().await
}

async fn crashing(context: TaskContext<Shown>) -> Result<(), TaskError> {
    context.ready();
    Err(TaskError::new("boom"))
}

async fn hopeless(context: TaskContext<Shown>) -> Result<(), TaskError> {
    context.ready();
    Err(TaskError::stop(ReasonCode::Rejected, "never"))
}

/// Ends three seconds after it was told to.
async fn slow_to_end(context: TaskContext<Shown>) -> Result<(), TaskError> {
    context.ready();
    context.cancel.cancelled().await;
    sleep(Duration::from_secs(3)).await;
    Ok(())
}

async fn panicking_when_told(context: TaskContext<Shown>) -> Result<(), TaskError> {
    context.ready();
    context.cancel.cancelled().await;
    panic!("on the way out")
}

/// Has work, does none of it, and takes three seconds to end.
async fn stalling(context: TaskContext<Shown>) -> Result<(), TaskError> {
    context.progress.pending.store(true, Ordering::SeqCst);
    slow_to_end(context).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fault {
    #[default]
    None,
    LoadFails,
    LoadPanics,
    SaveFails,
    SavePanicsAtOnce,
    SavePanicsLater,
    SaveHangs,
}

/// A ledger in memory.
#[derive(Default)]
struct Memory {
    entries: Mutex<BTreeMap<String, Entry>>,
    saves: AtomicUsize,
    fault: Fault,
}

impl Memory {
    fn faulty(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, ..Self::default() })
    }

    fn entry(&self, key: &str) -> Entry {
        lock(&self.entries).get(key).cloned().unwrap_or_default()
    }
}

fn refused(what: &str) -> LedgerError {
    LedgerError { what: what.to_owned(), source: "no space left".into() }
}

impl Ledger for Memory {
    fn load(&self) -> Result<BTreeMap<String, Entry>, LedgerError> {
        match self.fault {
            Fault::LoadFails => Err(refused("reading")),
            Fault::LoadPanics => panic!("damaged"),
            _ => Ok(lock(&self.entries).clone()),
        }
    }

    fn save(&self, key: &str, entry: &Entry) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.saves.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::SaveFails => Box::pin(async { Err(refused("writing")) }),
            Fault::SavePanicsAtOnce => panic!("damaged"),
            Fault::SavePanicsLater => Box::pin(async { panic!("damaged") }),
            Fault::SaveHangs => Box::pin(std::future::pending()),
            _ => {
                lock(&self.entries).insert(key.to_owned(), entry.clone());
                Box::pin(std::future::ready(Ok(())))
            }
        }
    }
}

fn settings() -> Settings {
    Settings {
        backoff_first: LONG,
        backoff_max: LONG,
        healthy_after: Duration::from_secs(30),
        stall_after: Duration::from_secs(60),
        crash_loop_after: 3,
        starts_at_once: 64,
        abort_after: Duration::from_secs(5),
    }
}

/// Backoffs short enough for many crashes.
fn hasty() -> Settings {
    Settings { backoff_first: Duration::from_secs(1), backoff_max: Duration::from_secs(8), ..settings() }
}

struct Rig {
    fake: Arc<Fake>,
    handle: SupervisorHandle<Fake>,
    run: JoinHandle<()>,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        Self::with(settings, Arc::new(NoLedger))
    }

    fn with(settings: Settings, ledger: Arc<dyn Ledger>) -> Self {
        let fake = Arc::new(Fake::new());
        let (supervisor, handle) = Supervisor::new("test", fake.clone(), settings, ledger);
        Self { fake, handle, run: tokio::spawn(supervisor.run()) }
    }

    fn want(&self, wanted: &[(u8, &'static str)]) {
        self.handle.apply(wanted.iter().copied().collect());
    }

    async fn until(&self, what: &str, mut is_met: impl FnMut(&View<Fake>) -> bool) -> View<Fake> {
        let mut views = self.handle.view();
        let met = timeout(DAY, views.wait_for(|view| is_met(view))).await.unwrap_or_else(|_| panic!("never: {what}"));
        met.expect("supervised").clone()
    }

    async fn slot(&self, key: u8, what: &str, is_met: impl Fn(&SlotView<Shown>) -> bool) -> SlotView<Shown> {
        let view = self.until(what, |view| view.get(&key).is_some_and(&is_met)).await;
        view[&key].clone()
    }

    async fn state(&self, key: u8, state: TaskState) -> SlotView<Shown> {
        self.slot(key, state.as_str(), |slot| slot.state == state).await
    }

    async fn running(&self, key: u8, incarnation: u64) -> SlotView<Shown> {
        let what = format!("{key} runs its life {incarnation}");
        self.slot(key, &what, |slot| slot.state == TaskState::Running && slot.incarnation == incarnation).await
    }

    async fn gone(&self, key: u8) {
        self.until("gone", |view| !view.contains_key(&key)).await;
    }

    /// Lets so much time pass, and the views follow.
    async fn pass(&self, seconds: u64) -> View<Fake> {
        sleep(Duration::from_secs(seconds)).await;
        self.handle.view().borrow().clone()
    }

    /// Specs of the lives of key 1, in their order.
    fn specs(&self) -> Vec<&'static str> {
        self.fake.starts().iter().filter(|start| start.key == 1).map(|start| start.spec).collect()
    }

    async fn stop(self) {
        assert_eq!(self.handle.stop(Duration::from_secs(20)).await, Vec::<u8>::new());
        self.run.await.expect("the supervisor itself does not panic");
        let seen = lock(&self.fake.seen);
        assert!(seen.most_of_one_key <= 1, "two lives of one key at once");
        assert!(seen.alive.is_empty(), "a life outlived its supervisor");
        for key in seen.starts.iter().map(|start| start.key) {
            let numbers: Vec<u64> = seen.starts.iter().filter(|start| start.key == key).map(|start| start.incarnation).collect();
            assert!(numbers.is_sorted_by(|one, next| one < next), "numbers of {key}: {numbers:?}");
        }
    }
}

/// What a key's first life left behind, seen in its backoff.
async fn end_of_a_life<F: Future<Output = Result<(), TaskError>> + Send + 'static>(
    life: impl FnOnce(TaskContext<Shown>) -> F + Send + 'static,
) -> SlotView<Shown> {
    let rig = Rig::new(settings());
    rig.fake.script(1, life);
    rig.want(&[(1, "a")]);
    let slot = rig.state(1, TaskState::Backoff).await;
    let last = slot.last_exit.clone().expect("an exit");
    assert_eq!((slot.incarnation, slot.restarts_total, slot.consecutive_failures), (1, 1, 1));
    assert_eq!(slot.restarts_by_cause, BTreeMap::from([(last.cause, 1)]));
    assert_eq!(slot.recent_exits, [last]);
    assert_eq!(rig.running(1, 2).await.next_restart_at, None);
    rig.stop().await;
    slot
}

fn last(slot: &SlotView<Shown>) -> (ExitCause, &str) {
    let exit = slot.last_exit.as_ref().expect("an exit");
    (exit.cause, exit.message.as_str())
}

#[tokio::test(start_paused = true)]
async fn a_life_that_returns_is_restarted_as_completed() {
    let slot = end_of_a_life(|context| async move {
        context.ready();
        Ok(())
    })
    .await;
    assert_eq!(last(&slot).0, ExitCause::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_with_its_causes() {
    let slot = end_of_a_life(|_| async { Err(TaskError::caused("no answer", std::io::Error::other("reset by peer"))) }).await;
    assert_eq!(last(&slot), (ExitCause::Error, "no answer: reset by peer"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_with_a_literal_keeps_its_text() {
    let slot = end_of_a_life(|_| async { panic!("literal") }).await;
    assert_eq!(last(&slot), (ExitCause::Panicked, "literal"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_with_a_formatted_text_keeps_it_and_the_offset() {
    let slot = end_of_a_life(|context| async move {
        context.progress.at(10, 12);
        panic!("formatted {}", context.incarnation)
    })
    .await;
    assert_eq!(last(&slot), (ExitCause::Panicked, "formatted 1"));
    assert_eq!(slot.last_exit.expect("an exit").offset, Some(12));
}

#[tokio::test(start_paused = true)]
async fn a_panic_without_a_text_is_a_panic_too() {
    let slot = end_of_a_life(|_| async { std::panic::panic_any(7_u8) }).await;
    assert_eq!(last(&slot), (ExitCause::Panicked, "a panic without a message"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_there_is_a_future_is_the_panic_of_a_life() {
    let slot = end_of_a_life(|context| {
        if context.incarnation == 1 {
            panic!("too early");
        }
        obedient(context)
    })
    .await;
    assert_eq!(last(&slot), (ExitCause::Panicked, "too early"));
}

#[tokio::test(start_paused = true)]
async fn a_life_that_stalls_is_killed_and_restarted() {
    let rig = Rig::new(settings());
    rig.fake.script(1, stalling);
    let began = Instant::now();
    rig.want(&[(1, "a")]);
    let slot = rig.state(1, TaskState::Stalled).await;
    let waited = began.elapsed();
    assert!((60..62).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!((slot.incarnation, slot.restarts_total), (1, 0));
    let slot = rig.state(1, TaskState::Backoff).await;
    assert_eq!(last(&slot), (ExitCause::Stalled, "no progress with pending work"));
    assert_eq!((slot.restarts_by_cause, slot.consecutive_failures), (BTreeMap::from([(ExitCause::Stalled, 1)]), 1));
    rig.fake.shown(1).pending.store(false, Ordering::SeqCst);
    rig.running(1, 2).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_life_whose_work_does_not_come_is_killed_twice_and_then_left_alone_until_it_comes() {
    let rig = Rig::new(settings());
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    let shown = rig.fake.shown(1);
    shown.starved.store(true, Ordering::SeqCst);
    for incarnation in [2, 3] {
        let slot = rig.running(1, incarnation).await;
        assert_eq!(last(&slot), (ExitCause::Stalled, "there was work and none of it came"));
    }
    let slot = rig.state(1, TaskState::Stalled).await;
    sleep(LONG).await;
    let later = rig.state(1, TaskState::Stalled).await;
    assert_eq!((slot.incarnation, later.incarnation, later.restarts_total), (3, 3, 2), "it is left alone");
    // Something comes: it runs again, and the next silence has its two kills again.
    shown.settle();
    let slot = rig.running(1, 3).await;
    assert_eq!(slot.restarts_total, 2);
    rig.running(1, 4).await;
    shown.starved.store(false, Ordering::SeqCst);
    sleep(LONG).await;
    rig.running(1, 4).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_life_that_does_not_listen_is_aborted_and_only_then_replaced() {
    let rig = Rig::new(hasty());
    rig.fake.script(1, |context| {
        context.progress.pending.store(true, Ordering::SeqCst);
        deaf(context)
    });
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Stalled).await;
    let told = Instant::now();
    rig.fake.shown(1).pending.store(false, Ordering::SeqCst);
    let slot = rig.running(1, 2).await;
    assert_eq!(last(&slot).0, ExitCause::Stalled);
    assert!(last(&slot).1.contains("aborted"), "{:?}", last(&slot));
    let ended = rig.fake.end_of(1, 0);
    let listened_for = ended.duration_since(told);
    assert!(listened_for >= Duration::from_millis(4900) && listened_for < Duration::from_secs(6), "{listened_for:?}");
    assert!(rig.fake.starts()[1].at >= ended);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn progress_with_pending_work_is_no_stall() {
    let rig = Rig::new(settings());
    rig.fake.script(1, |context| async move {
        context.progress.pending.store(true, Ordering::SeqCst);
        context.ready();
        loop {
            sleep(Duration::from_secs(55)).await;
            context.progress.settle();
            if context.cancel.is_cancelled() {
                return Ok(());
            }
        }
    });
    rig.want(&[(1, "a")]);
    let view = rig.pass(3_000).await;
    assert_eq!((view[&1].state, view[&1].incarnation), (TaskState::Running, 1));
    rig.want(&[]);
    rig.gone(1).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn excused_work_never_stalls_until_the_excuse_is_over() {
    let rig = Rig::new(settings());
    rig.fake.shown(1).excused.store(true, Ordering::SeqCst);
    rig.fake.script(1, stalling);
    rig.want(&[(1, "a")]);
    let view = rig.pass(3_000).await;
    assert_eq!((view[&1].state, view[&1].incarnation), (TaskState::Running, 1));
    rig.fake.shown(1).excused.store(false, Ordering::SeqCst);
    let excuse_ended = Instant::now();
    rig.state(1, TaskState::Stalled).await;
    assert!(excuse_ended.elapsed() >= Duration::from_secs(59), "the excused time counted");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_start_is_no_part_of_a_stall() {
    let rig = Rig::new(settings());
    rig.fake.script(1, |context| async move {
        context.progress.pending.store(true, Ordering::SeqCst);
        sleep(Duration::from_secs(300)).await;
        context.ready();
        sleep(Duration::from_secs(50)).await;
        context.progress.pending.store(false, Ordering::SeqCst);
        context.cancel.cancelled().await;
        Ok(())
    });
    rig.want(&[(1, "a")]);
    let view = rig.pass(400).await;
    assert_eq!((view[&1].state, view[&1].incarnation, view[&1].restarts_total), (TaskState::Running, 1, 0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fatal_error_lasts_until_a_restart_is_asked_for() {
    let rig = Rig::new(settings());
    rig.fake.script(1, hopeless);
    rig.want(&[(1, "a")]);
    let slot = rig.state(1, TaskState::Failed).await;
    assert_eq!((slot.failure, last(&slot)), (Some(ReasonCode::Rejected), (ExitCause::Error, "never")));
    assert_eq!((slot.restarts_total, slot.consecutive_failures, slot.next_restart_at), (0, 1, None));
    rig.want(&[(1, "a")]);
    let view = rig.pass(10_000).await;
    assert_eq!((view[&1].state, view[&1].incarnation), (TaskState::Failed, 1));
    assert_eq!(rig.handle.restart(&1).await, Ok(2));
    let slot = rig.running(1, 2).await;
    assert_eq!((slot.failure, slot.restarts_by_cause), (None, BTreeMap::from([(ExitCause::Requested, 1)])));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fatal_error_lasts_until_a_new_spec() {
    let rig = Rig::new(settings());
    rig.fake.script(1, hopeless);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Failed).await;
    rig.want(&[(1, "b")]);
    let slot = rig.running(1, 2).await;
    assert_eq!((slot.failure, slot.restarts_total, rig.specs()), (None, 0, vec!["a", "b"]));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_key_given_another_spec_and_the_old_one_again_runs_under_the_old_one() {
    let rig = Rig::new(settings());
    rig.fake.script(1, hopeless);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Failed).await;
    rig.want(&[(1, "b")]);
    rig.want(&[(1, "a")]);
    rig.slot(1, "running again", |slot| slot.state == TaskState::Running && slot.incarnation >= 2).await;
    rig.pass(10).await;
    assert_eq!(rig.specs().last(), Some(&"a"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_requested_restart_of_a_running_life_has_no_backoff_and_is_no_failure() {
    let rig = Rig::new(settings());
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    let asked = Instant::now();
    assert_eq!(rig.handle.restart(&1).await, Ok(2));
    let slot = rig.running(1, 2).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(last(&slot).0, ExitCause::Requested);
    assert_eq!((slot.restarts_by_cause, slot.consecutive_failures), (BTreeMap::from([(ExitCause::Requested, 1)]), 0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_requested_restart_of_a_deaf_life_follows_its_abort() {
    let rig = Rig::new(settings());
    rig.fake.script(1, deaf);
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    let asked = Instant::now();
    assert_eq!(rig.handle.restart(&1).await, Ok(2));
    assert_eq!(last(&rig.running(1, 2).await).0, ExitCause::Requested);
    assert_eq!(asked.elapsed().as_secs(), 5);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_life_that_never_gets_ready_can_be_restarted() {
    let rig = Rig::new(settings());
    rig.fake.script(1, |context| async move {
        context.cancel.cancelled().await;
        Ok(())
    });
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Starting).await;
    assert_eq!(rig.handle.restart(&1).await, Ok(2));
    assert_eq!(rig.running(1, 2).await.restarts_total, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_requested_restart_cuts_the_backoff_short() {
    let rig = Rig::new(settings());
    rig.fake.script(1, crashing);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Backoff).await;
    let asked = Instant::now();
    assert_eq!(rig.handle.restart(&1).await, Ok(2));
    let slot = rig.running(1, 2).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!((slot.next_restart_at, slot.consecutive_failures), (None, 1));
    assert_eq!(slot.restarts_by_cause, BTreeMap::from([(ExitCause::Error, 1), (ExitCause::Requested, 1)]));
    // The backoff that was cut short does not come back.
    let view = rig.pass(2 * LONG.as_secs()).await;
    assert_eq!((view[&1].state, view[&1].incarnation), (TaskState::Running, 2));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn restarts_asked_for_while_a_life_ends_are_one_restart() {
    let rig = Rig::new(settings());
    rig.fake.script(1, slow_to_end);
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    for _ in 0..3 {
        assert_eq!(rig.handle.restart(&1).await, Ok(2));
    }
    assert_eq!(rig.state(1, TaskState::Draining).await.incarnation, 1);
    assert_eq!(rig.handle.restart(&1).await, Ok(2));
    assert_eq!(rig.running(1, 2).await.restarts_total, 1);
    assert_eq!(rig.pass(100).await[&1].incarnation, 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_asked_for_while_a_stalled_life_ends_has_no_backoff() {
    let rig = Rig::new(settings());
    rig.fake.script(1, stalling);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Stalled).await;
    rig.fake.shown(1).pending.store(false, Ordering::SeqCst);
    let asked = Instant::now();
    assert_eq!(rig.handle.restart(&1).await, Ok(2));
    let slot = rig.running(1, 2).await;
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert_eq!(last(&slot).0, ExitCause::Stalled);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_spec_while_a_stalled_life_ends_has_no_backoff() {
    let rig = Rig::new(settings());
    rig.fake.script(1, stalling);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Stalled).await;
    rig.fake.shown(1).pending.store(false, Ordering::SeqCst);
    let changed = Instant::now();
    rig.want(&[(1, "b")]);
    rig.running(1, 2).await;
    assert!(changed.elapsed() < Duration::from_secs(4), "{:?}", changed.elapsed());
    assert_eq!(rig.specs(), ["a", "b"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_something_unknown_is_refused() {
    let rig = Rig::new(settings());
    rig.fake.script(1, slow_to_end);
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    assert_eq!(rig.handle.restart(&9).await, Err(RestartError::Unknown));
    rig.want(&[]);
    assert_eq!(rig.handle.restart(&1).await, Err(RestartError::Unknown), "it ends and is not wanted");
    rig.gone(1).await;
    assert_eq!(rig.fake.starts().len(), 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_is_cancelled_and_that_is_neither_exit_nor_restart() {
    let memory = Arc::new(Memory::default());
    let rig = Rig::with(settings(), memory.clone());
    rig.want(&[(1, "a"), (2, "a")]);
    rig.running(1, 1).await;
    rig.want(&[(2, "a")]);
    rig.gone(1).await;
    rig.want(&[(1, "a"), (2, "a")]);
    let slot = rig.running(1, 2).await;
    assert_eq!((slot.restarts_total, slot.consecutive_failures, slot.last_exit), (0, 0, None));
    assert_eq!(rig.running(2, 1).await.restarts_total, 0, "the other key was not touched");
    rig.stop().await;
    assert_eq!(memory.saves.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_removed_in_backoff_is_gone_at_once_and_comes_back_with_its_past() {
    let rig = Rig::new(settings());
    rig.fake.script(1, crashing);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Backoff).await;
    rig.want(&[]);
    rig.gone(1).await;
    rig.pass(2 * LONG.as_secs()).await;
    assert_eq!(rig.fake.starts().len(), 1, "the backoff of a removed key starts nothing");
    rig.want(&[(1, "a")]);
    let slot = rig.running(1, 2).await;
    assert_eq!((slot.restarts_total, slot.consecutive_failures, slot.next_restart_at), (1, 1, None));
    assert_eq!(last(&slot), (ExitCause::Error, "boom"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_key_that_is_removed_and_wanted_again_starts_anew() {
    let rig = Rig::new(settings());
    rig.fake.script(1, hopeless);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Failed).await;
    rig.want(&[]);
    rig.gone(1).await;
    rig.want(&[(1, "a")]);
    assert_eq!(rig.running(1, 2).await.failure, None);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_wanted_again_while_its_life_ends_waits_for_that_end() {
    let rig = Rig::new(settings());
    rig.fake.script(1, slow_to_end);
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    rig.want(&[]);
    rig.state(1, TaskState::Draining).await;
    rig.want(&[(1, "a")]);
    rig.running(1, 2).await;
    assert!(rig.fake.starts()[1].at >= rig.fake.end_of(1, 0));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_spec_ends_the_life_and_is_no_restart() {
    let rig = Rig::new(settings());
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    rig.want(&[(1, "a")]);
    assert_eq!(rig.pass(10).await[&1].incarnation, 1, "the same spec changes nothing");
    rig.want(&[(1, "b")]);
    let slot = rig.running(1, 2).await;
    assert_eq!((slot.restarts_total, slot.consecutive_failures, slot.last_exit), (0, 0, None));
    assert_eq!(rig.specs(), ["a", "b"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_life_that_panics_on_its_way_out_does_not_delay_the_new_spec() {
    let rig = Rig::new(settings());
    rig.fake.script(1, panicking_when_told);
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    let changed = Instant::now();
    rig.want(&[(1, "b")]);
    let slot = rig.running(1, 2).await;
    assert!(changed.elapsed() < Duration::from_secs(1));
    assert_eq!(last(&slot), (ExitCause::Panicked, "on the way out"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_spec_and_the_old_one_again_is_one_new_life_under_the_old_one() {
    let rig = Rig::new(settings());
    rig.fake.script(1, slow_to_end);
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    rig.want(&[(1, "b")]);
    rig.state(1, TaskState::Draining).await;
    rig.want(&[(1, "a")]);
    rig.running(1, 2).await;
    rig.pass(100).await;
    assert_eq!(rig.specs(), ["a", "a"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_spec_in_backoff_starts_at_once() {
    let rig = Rig::new(settings());
    rig.fake.script(1, crashing);
    rig.want(&[(1, "a")]);
    rig.state(1, TaskState::Backoff).await;
    let changed = Instant::now();
    rig.want(&[(1, "b")]);
    let slot = rig.running(1, 2).await;
    assert!(changed.elapsed() < Duration::from_secs(1));
    assert_eq!((slot.next_restart_at, slot.restarts_total, rig.specs()), (None, 1, vec!["a", "b"]));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_spec_does_not_shorten_a_backoff() {
    let rig = Rig::new(settings());
    rig.fake.script(1, crashing);
    rig.want(&[(1, "a")]);
    let before = rig.state(1, TaskState::Backoff).await;
    rig.want(&[(1, "a")]);
    let began = Instant::now();
    rig.running(1, 2).await;
    let waited = Timestamp::now().duration_until(before.next_restart_at.expect("a time"));
    // The wall clock stood still meanwhile, so what it says is left is what was waited.
    assert!((waited.as_secs_f64() - began.elapsed().as_secs_f64()).abs() < 5.0, "{waited:?} {:?}", began.elapsed());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_spec_of_a_queued_key_is_the_only_one_that_starts() {
    let rig = Rig::new(Settings { starts_at_once: 1, ..settings() });
    rig.fake.script(0, |context| async move {
        context.cancel.cancelled().await;
        Ok(())
    });
    rig.want(&[(0, "a"), (1, "a")]);
    rig.state(1, TaskState::Starting).await;
    rig.want(&[(0, "a"), (1, "b")]);
    assert_eq!(rig.handle.restart(&1).await, Ok(1));
    rig.pass(10).await;
    assert_eq!(rig.specs(), Vec::<&str>::new());
    rig.want(&[(1, "b")]);
    rig.running(1, 1).await;
    assert_eq!(rig.specs(), ["b"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_lives_are_starting_at_once() {
    let rig = Rig::new(Settings { starts_at_once: 3, ..settings() });
    let wanted: Vec<(u8, &str)> = (0..10).map(|key| (key, "a")).collect();
    for (key, _) in &wanted {
        rig.fake.script(*key, |context| async move {
            sleep(Duration::from_secs(1)).await;
            obedient(context).await
        });
    }
    let began = Instant::now();
    rig.want(&wanted);
    rig.until("all run", |view| view.len() == 10 && view.values().all(|slot| slot.state == TaskState::Running)).await;
    assert_eq!(lock(&rig.fake.seen).most_starting, 3);
    assert_eq!(began.elapsed().as_secs(), 4, "ten in turns of three");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_life_that_ends_before_it_is_ready_makes_room() {
    let rig = Rig::new(Settings { starts_at_once: 1, ..settings() });
    rig.fake.script(0, |_| async { Err(TaskError::new("no start")) });
    rig.want(&[(0, "a"), (1, "a")]);
    rig.running(1, 1).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_backoff_grows_is_capped_and_is_told_in_advance() {
    let settings = hasty();
    let rig = Rig::new(settings.clone());
    for _ in 0..60 {
        rig.fake.script(1, crashing);
    }
    rig.want(&[(1, "a")]);
    let mut told = Vec::new();
    rig.until("sixty crashes", |view| {
        let Some(slot) = view.get(&1) else { return false };
        if slot.state == TaskState::Backoff {
            told.push(slot.next_restart_at.expect("a time").duration_since(slot.since_at).as_secs_f64());
        }
        slot.incarnation == 61 && slot.state == TaskState::Running
    })
    .await;
    let starts = rig.fake.starts();
    let waits: Vec<Duration> = (0..60).map(|life| starts[life + 1].at.duration_since(rig.fake.end_of(1, life))).collect();
    for (life, wait) in waits.iter().enumerate() {
        let longest = decide::backoff(&settings, u32::try_from(life).expect("small") + 1, 1.0);
        assert!(*wait <= longest + Duration::from_millis(2), "after failure {}: {wait:?}", life + 1);
    }
    // Fifty waits that are evenly spread up to eight seconds.
    assert!(waits[10..].iter().any(|wait| *wait > Duration::from_secs(4)), "{waits:?}");
    assert!(told.len() > 30, "only waits shorter than the interval of views go unseen: {}", told.len());
    assert!(told.iter().all(|wait| (0.0..9.0).contains(wait)), "{told:?}");
    let view = rig.handle.view().borrow().clone();
    assert_eq!((view[&1].restarts_total, view[&1].consecutive_failures), (60, 60));
    assert_eq!(view[&1].recent_exits.len(), 10);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn time_alone_is_no_health_but_time_with_settled_work_is() {
    let rig = Rig::new(hasty());
    for _ in 0..3 {
        rig.fake.script(1, |context| async move {
            context.progress.settle();
            crashing(context).await
        });
    }
    rig.want(&[(1, "a")]);
    assert_eq!(rig.running(1, 4).await.consecutive_failures, 3, "what the lives before settled is no health of this one");
    assert_eq!(rig.pass(3_000).await[&1].consecutive_failures, 3);
    rig.fake.shown(1).settle();
    let slot = rig.slot(1, "healthy", |slot| slot.consecutive_failures == 0).await;
    assert_eq!((slot.incarnation, slot.restarts_total), (4, 3));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn settled_work_right_after_the_start_is_no_health_yet() {
    let rig = Rig::new(hasty());
    for _ in 0..4 {
        rig.fake.script(1, |context| async move {
            context.ready();
            sleep(Duration::from_secs(20)).await;
            context.progress.settle();
            Err(TaskError::new("boom"))
        });
    }
    rig.want(&[(1, "a")]);
    assert_eq!(rig.running(1, 5).await.consecutive_failures, 4);
    rig.stop().await;
}

struct Timer;

impl Work for Timer {
    type Key = u8;
    type Spec = ();
    type Progress = NoProgress;

    fn progress(&self, _key: &u8) -> Arc<NoProgress> {
        Arc::new(NoProgress)
    }

    fn run(&self, _key: u8, _spec: (), context: TaskContext<NoProgress>) -> BoxFuture<'static, Result<(), TaskError>> {
        Box::pin(async move {
            context.ready();
            if context.incarnation == 1 {
                return Err(TaskError::new("boom"));
            }
            context.cancel.cancelled().await;
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_measured_time_alone_is_health() {
    let (supervisor, handle) = Supervisor::new("test", Arc::new(Timer), hasty(), Arc::new(NoLedger));
    let run = tokio::spawn(supervisor.run());
    handle.apply(BTreeMap::from([(1, ())]));
    let mut views = handle.view();
    timeout(DAY, views.wait_for(|view| view.get(&1).is_some_and(|slot| slot.incarnation == 2 && slot.consecutive_failures == 1)))
        .await
        .expect("in time")
        .expect("supervised");
    timeout(DAY, views.wait_for(|view| view.get(&1).is_some_and(|slot| slot.consecutive_failures == 0))).await.expect("in time").expect("supervised");
    assert_eq!(handle.stop(Duration::from_secs(1)).await, Vec::<u8>::new());
    run.await.expect("ended");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_tried_one_by_one_and_then_the_record_is_given_up() {
    let rig = Rig::new(hasty());
    for _ in 0..3 {
        rig.fake.script(1, |context| async move {
            context.progress.at(10, 14);
            panic!("poison")
        });
    }
    rig.fake.script(1, |context| async move {
        context.progress.at(11, 12);
        panic!("poison")
    });
    rig.fake.script(1, |context| async move {
        context.progress.at(13, 13);
        context.ready();
        sleep(Duration::from_secs(20)).await;
        context.progress.settle();
        sleep(Duration::from_secs(20)).await;
        Err(TaskError::new("something else"))
    });
    rig.want(&[(1, "a")]);
    rig.running(1, 6).await;
    let cares: Vec<Care> = rig.fake.starts().iter().map(|start| start.care).collect();
    assert_eq!(cares, [Care::None, Care::None, Care::None, Care::OneByOne, Care::GiveUp(12), Care::None], "health ended the care");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stalls_and_requested_restarts_are_no_crash_loop() {
    let rig = Rig::new(hasty());
    rig.fake.shown(1).at(10, 14);
    rig.want(&[(1, "a")]);
    for incarnation in 1..6 {
        rig.running(1, incarnation).await;
        assert_eq!(rig.handle.restart(&1).await, Ok(incarnation + 1));
    }
    rig.running(1, 6).await;
    rig.fake.shown(1).pending.store(true, Ordering::SeqCst);
    rig.running(1, 11).await;
    rig.fake.shown(1).pending.store(false, Ordering::SeqCst);
    assert!(rig.fake.starts().iter().all(|start| start.care == Care::None));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn counts_go_on_from_the_ledger() {
    let memory = Arc::new(Memory::default());
    let kept = Entry {
        restarts_total: 7,
        restarts_by_cause: BTreeMap::from([(ExitCause::Stalled, 7)]),
        consecutive_failures: 2,
        last_exit: None,
        recent_exits: Vec::new(),
        next_restart_at: Some(Timestamp::from_second(77).expect("a time")),
    };
    lock(&memory.entries).insert("1".to_owned(), kept);
    let rig = Rig::with(settings(), memory.clone());
    rig.fake.script(1, |context| async move {
        context.ready();
        sleep(Duration::from_secs(1)).await;
        panic!("boom")
    });
    rig.want(&[(1, "a"), (2, "a")]);
    let slot = rig.running(1, 1).await;
    assert_eq!((slot.restarts_total, slot.consecutive_failures, slot.next_restart_at), (7, 2, None));
    assert_eq!(rig.running(2, 1).await.restarts_total, 0);
    let slot = rig.state(1, TaskState::Backoff).await;
    assert_eq!((slot.restarts_total, slot.consecutive_failures), (8, 3));
    let saved = memory.entry("1");
    assert_eq!(saved.restarts_by_cause, BTreeMap::from([(ExitCause::Stalled, 7), (ExitCause::Panicked, 1)]));
    assert_eq!((saved.last_exit, saved.next_restart_at), (slot.last_exit, slot.next_restart_at));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_during_the_stop_is_in_the_ledger_when_the_stop_is_over() {
    let memory = Arc::new(Memory::default());
    let rig = Rig::with(settings(), memory.clone());
    rig.fake.script(1, panicking_when_told);
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    rig.stop().await;
    let saved = memory.entry("1");
    assert_eq!(saved.last_exit.map(|exit| (exit.cause, exit.message)), Some((ExitCause::Panicked, "on the way out".to_owned())));
    assert_eq!((saved.restarts_total, saved.consecutive_failures), (0, 0), "nothing followed it");
}

#[tokio::test(start_paused = true)]
async fn a_faulty_ledger_does_not_stop_supervision() {
    for fault in [Fault::LoadFails, Fault::LoadPanics, Fault::SaveFails, Fault::SavePanicsAtOnce, Fault::SavePanicsLater, Fault::SaveHangs] {
        let memory = Memory::faulty(fault);
        let rig = Rig::with(hasty(), memory.clone());
        for _ in 0..5 {
            rig.fake.script(1, crashing);
        }
        rig.want(&[(1, "a")]);
        assert_eq!(rig.running(1, 6).await.restarts_total, 5, "{fault:?}");
        assert!(memory.saves.load(Ordering::SeqCst) > 0, "{fault:?}");
        let stopped = Instant::now();
        rig.stop().await;
        assert!(stopped.elapsed() <= Duration::from_secs(21), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_phase_and_names_who_did_not_end() {
    let rig = Rig::new(Settings { starts_at_once: 1, ..settings() });
    rig.fake.script(1, deaf);
    rig.fake.script(2, crashing);
    rig.fake.script(3, hopeless);
    rig.fake.script(5, |context| async move {
        context.cancel.cancelled().await;
        Ok(())
    });
    rig.want(&[(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a"), (6, "a")]);
    rig.slot(5, "the last start", |slot| slot.incarnation == 1).await;
    let states: Vec<TaskState> = rig.handle.view().borrow().values().map(|slot| slot.state).collect();
    use TaskState::{Backoff, Failed, Running, Starting};
    assert_eq!(states, [Running, Backoff, Failed, Running, Starting, Starting]);
    let began = Instant::now();
    assert_eq!(rig.handle.stop(Duration::from_secs(3)).await, [1]);
    assert_eq!(began.elapsed().as_secs(), 3);
    rig.run.await.expect("the supervisor itself does not panic");
    assert!(lock(&rig.fake.seen).alive.is_empty(), "the deaf one was aborted");
    assert!(rig.fake.starts().iter().all(|start| start.key != 6), "nothing starts during a stop");
    assert!(rig.handle.view().borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_can_be_watched_and_refuses_everything_else() {
    let rig = Rig::new(settings());
    rig.fake.script(1, deaf);
    rig.fake.script(2, slow_to_end);
    rig.want(&[(1, "a"), (2, "a"), (3, "a")]);
    rig.until("all run", |view| view.len() == 3 && view.values().all(|slot| slot.state == TaskState::Running)).await;
    let began = Instant::now();
    let first = tokio::spawn({
        let handle = rig.handle.clone();
        async move { handle.stop(Duration::from_secs(10)).await }
    });
    rig.until("the third is gone first", |view| view.len() == 2 && view.values().all(|slot| slot.state == TaskState::Draining)).await;
    assert_eq!(rig.handle.restart(&1).await, Err(RestartError::Stopped));
    assert!(began.elapsed() < Duration::from_secs(1), "refused at once");
    rig.want(&[(4, "a")]);
    rig.gone(2).await;
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(rig.handle.stop(Duration::ZERO).await, [1], "who asks again gets the same answer");
    assert_eq!(first.await.expect("answered"), [1]);
    assert_eq!(rig.fake.starts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn handles_of_an_ended_supervisor_answer_stopped() {
    let rig = Rig::new(settings());
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    let handle = rig.handle.clone();
    let fake = rig.fake.clone();
    rig.stop().await;
    assert_eq!(handle.restart(&1).await, Err(RestartError::Stopped));
    assert_eq!(handle.stop(Duration::from_secs(9)).await, Vec::<u8>::new());
    handle.apply(BTreeMap::from([(1, "a")]));
    assert!(handle.view().borrow().is_empty());
    assert_eq!(fake.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_without_handles_ends_with_its_lives() {
    let rig = Rig::new(settings());
    rig.want(&[(1, "a")]);
    rig.running(1, 1).await;
    drop(rig.handle);
    timeout(DAY, rig.run).await.expect("in time").expect("the supervisor itself does not panic");
    assert!(lock(&rig.fake.seen).alive.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_transitions_is_few_views() {
    let rig = Rig::new(settings());
    let mut views = rig.handle.view();
    assert!(views.borrow_and_update().is_empty());
    let wanted: Vec<(u8, &str)> = (0..200).map(|key| (key, "a")).collect();
    rig.want(&wanted);
    let mut published = 0;
    while !(views.borrow().len() == 200 && views.borrow_and_update().values().all(|slot| slot.state == TaskState::Running)) {
        timeout(DAY, views.changed()).await.expect("in time").expect("supervised");
        published += 1;
    }
    assert!((1..10).contains(&published), "{published}");
    rig.stop().await;
}

/// A life of any kind, as chance has it.
fn any_life(chance: &mut StdRng) -> Life {
    let after = Duration::from_millis(chance.random_range(0..4_000));
    match chance.random_range(0..10) {
        0 => Box::new(|_| panic!("early")),
        1 => Box::new(|context| Box::pin(deaf(context))),
        2 => Box::new(|context| Box::pin(slow_to_end(context))),
        3 => Box::new(|context| Box::pin(hopeless(context))),
        4 => Box::new(|context| Box::pin(panicking_when_told(context))),
        5 => Box::new(move |context| {
            Box::pin(async move {
                context.cancel.cancelled().await;
                sleep(after).await;
                Err(TaskError::new("never ready"))
            })
        }),
        6 | 7 => Box::new(move |context| {
            Box::pin(async move {
                sleep(after / 4).await;
                context.ready();
                sleep(after).await;
                panic!("later")
            })
        }),
        _ => Box::new(|context| Box::pin(obedient(context))),
    }
}

async fn storm(seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let settings = Settings { starts_at_once: 2, stall_after: Duration::from_secs(3), abort_after: Duration::from_secs(2), ..hasty() };
    let memory = Arc::new(Memory::default());
    let rig = Rig::with(settings, memory);
    let mut lives = StdRng::seed_from_u64(seed.wrapping_add(1_000));
    *lock(&rig.fake.otherwise) = Box::new(move || any_life(&mut lives));
    for _ in 0..150 {
        let key = chance.random_range(0..4_u8);
        match chance.random_range(0..6) {
            0 | 1 => {
                let wanted: BTreeMap<u8, &str> = (0..4)
                    .filter(|_| chance.random_bool(0.7))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|key| (key, ["a", "b"][chance.random_range(0..2)]))
                    .collect();
                rig.handle.apply(wanted);
            }
            2 => {
                let _ = rig.handle.restart(&key).await;
            }
            3 => rig.fake.shown(key).pending.store(chance.random(), Ordering::SeqCst),
            _ => sleep(Duration::from_millis(chance.random_range(0..3_000))).await,
        }
        for slot in rig.handle.view().borrow().values() {
            assert_eq!(slot.restarts_total, slot.restarts_by_cause.values().sum::<u64>(), "seed {seed}");
            assert_eq!(slot.state == TaskState::Failed, slot.failure.is_some(), "seed {seed}");
            assert_eq!(slot.state == TaskState::Backoff, slot.next_restart_at.is_some(), "seed {seed}");
        }
    }
    *lock(&rig.fake.otherwise) = Box::new(|| Box::new(|context| Box::pin(obedient(context))));
    for key in 0..4 {
        rig.fake.shown(key).pending.store(false, Ordering::SeqCst);
    }
    rig.want(&[(0, "c"), (2, "c")]);
    rig.until(&format!("calm after seed {seed}"), |view| view.keys().eq([0, 2].iter()) && view.values().all(|slot| slot.state == TaskState::Running))
        .await;
    rig.pass(60).await;
    let starts = rig.fake.starts();
    for key in [0, 2] {
        assert_eq!(starts.iter().rfind(|start| start.key == key).map(|start| start.spec), Some("c"), "seed {seed}");
    }
    assert!(lock(&rig.fake.seen).most_starting <= 2, "seed {seed}");
    assert_eq!(lock(&rig.fake.seen).most_of_one_key, 1, "seed {seed}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_storm_of_commands_and_crashes_makes_two_lives_of_one_key() {
    for seed in 0..60 {
        storm(seed).await;
    }
}
