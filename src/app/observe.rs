//! The observer: gathers what every part publishes and replaces the one snapshot that all readers share.
//!
//! Guarantees that the snapshot is built by one writer, from values that the parts publish, without a lock that the pipeline takes. Owns the rate meters and the first sight of each
//! partition. Derives nothing itself: the rules are [`crate::status::derive`]'s and [`crate::status::events`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::components::{Component as Part, Components};
use crate::api::{TlsView, TokensView};
use crate::dead_letters::DeadLetters;
use crate::desired::Desired;
use crate::desired::file::FileView;
use crate::invariants::SelfChecks;
use crate::kafka::{ConsumerHandle, ConsumerView, EndsView, PartitionView};
use crate::memory::Budget;
use crate::pipeline::{PartitionProgress, PartitionWork};
use crate::reconcile::TopicsView;
use crate::sink::{SinkHandle, SinkStats};
use crate::status::derive::{self, PartitionInput, ProgressInput, SlotInput, TaskInput, TopicInput};
use crate::status::events::{self, EventLog, Marks};
use crate::status::rate::{Counter, RATE_WINDOW, Window};
use crate::status::series::Series;
use crate::status::versions;
use crate::status::{Component, LastMinute, Memory, Reason, SinkTotals, Snapshot, Task, TaskState, Topic};
use crate::supervisor::{NoProgress, Progress as _, SlotView, SupervisorHandle};
use crate::topic::{TopicName, TopicPartition};

/// How often the snapshot is replaced.
const INTERVAL: Duration = Duration::from_millis(500);
/// The time over which dead letters are compared with everything that a topic settled.
const LAST_MINUTE: Duration = Duration::from_secs(60);

/// Everything that the snapshot is made from.
pub(super) struct Observer {
    pub(super) instance: String,
    pub(super) desired: watch::Receiver<Option<Arc<Desired>>>,
    pub(super) file: watch::Receiver<FileView>,
    pub(super) topics: watch::Receiver<Arc<TopicsView>>,
    pub(super) tasks: SupervisorHandle<PartitionWork>,
    pub(super) work: Arc<PartitionWork>,
    pub(super) components: SupervisorHandle<Components>,
    pub(super) consumer: ConsumerHandle,
    pub(super) ends: watch::Receiver<Arc<EndsView>>,
    pub(super) sink: SinkHandle,
    pub(super) sink_stats: Arc<SinkStats>,
    pub(super) checks: SelfChecks,
    pub(super) budget: Budget,
    pub(super) memory_limit: u64,
    pub(super) prefetch_bytes: u64,
    pub(super) dead_letters: Arc<dyn DeadLetters>,
    pub(super) dead_letters_max_bytes: u64,
    /// Whether other instances know the same topics, by etcd.
    pub(super) shares_topics: bool,
    /// How reading the API's tokens goes.
    pub(super) tokens: Option<watch::Receiver<TokensView>>,
    /// How reading the API's certificate goes.
    pub(super) tls: Option<watch::Receiver<TlsView>>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) out: watch::Sender<Arc<Snapshot>>,
    /// The moment of the last snapshot, for liveness.
    pub(super) beat: watch::Sender<Instant>,
}

/// What readers see before the first snapshot is taken.
pub(super) fn first_snapshot(memory_limit: u64, prefetch_bytes: u64, now: Timestamp) -> Snapshot {
    Snapshot {
        taken_at: now,
        topics: Vec::new(),
        tasks: Vec::new(),
        last_version: 0,
        sources: Vec::new(),
        components: Vec::new(),
        memory: Memory { limit_bytes: memory_limit, prefetch_bytes, in_flight_bytes: 0, peak_bytes: 0 },
        sink: SinkTotals::default(),
        dead_letters_bytes: 0,
        dead_letters_max_bytes: 0,
        invariant_violations: BTreeMap::new(),
        needs_restart: Vec::new(),
        warnings: Vec::new(),
        store_revision: 0,
        first_list: false,
        draining: false,
        assignments: BTreeMap::new(),
        recreations: BTreeMap::new(),
        marks: Arc::new(Marks::default()),
        events: EventLog::new(now),
        series: Series::default(),
    }
}

/// The counters of one partition.
#[derive(Default)]
struct Counters {
    settled: Counter,
    dead_lettered: Counter,
}

/// The last minute of one topic, over all its partitions.
struct Minute {
    settled: Window,
    dead_lettered: Window,
}

/// What one partition settled since the snapshot before.
#[derive(Clone, Copy, Default)]
struct Step {
    settled: u64,
    dead_lettered: u64,
}

/// What the observer remembers between two snapshots.
#[derive(Default)]
struct Memories {
    /// As many as the pipeline keeps counters of progress: those of a topic that is not wanted any more outlive it, and so must what was seen of them.
    counters: BTreeMap<TopicPartition, Counters>,
    rates: BTreeMap<TopicPartition, Window>,
    minutes: BTreeMap<TopicName, Minute>,
    /// State and since when, as the last snapshot showed them.
    rows: BTreeMap<TopicPartition, (TaskState, Timestamp)>,
}

impl Observer {
    /// Replaces the snapshot on a timer and when the wanted topics or the set of tasks change, until cancelled.
    pub(super) async fn run(&self, cancel: CancellationToken) {
        let started = Instant::now();
        let mut memories = Memories::default();
        let mut slots = self.tasks.view();
        let mut desired = self.desired.clone();
        let mut tasks_are_gone = false;
        let mut list_is_over = false;
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
                // Who has changed a topic waits to see it.
                changed = desired.changed(), if !list_is_over => match changed {
                    Ok(()) => desired.mark_unchanged(),
                    Err(_) => list_is_over = true,
                },
                changed = slots.changed(), if !tasks_are_gone => match changed {
                    Ok(()) => {
                        // A storm of transitions is one snapshot.
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        slots.mark_unchanged();
                    }
                    // The tasks' supervisor has ended because the process stops, which can be watched to its end.
                    Err(_) => tasks_are_gone = true,
                },
            }
            // The snapshot before is the memory of the events, so that they survive a restart of the observer.
            let previous = self.out.borrow().clone();
            let mut snapshot = self.take(&previous, &mut memories, started.elapsed(), Timestamp::now());
            events::follow(&previous, &mut snapshot, &self.instance);
            versions::stamp(&previous, &mut snapshot);
            for warning in snapshot.warnings.iter().filter(|warning| !previous.warnings.contains(warning)) {
                warn!("{warning}");
            }
            self.out.send_replace(Arc::new(snapshot));
            self.beat.send_replace(Instant::now());
        }
    }

    fn take(&self, previous: &Snapshot, memories: &mut Memories, elapsed: Duration, now: Timestamp) -> Snapshot {
        let desired = self.desired.borrow().clone();
        let topics_view = self.topics.borrow().clone();
        let consumer = self.consumer.view().borrow().clone();
        let slots = self.tasks.view().borrow().clone();
        let file = self.file.borrow().clone();
        let sink_trouble = self.sink.health().trouble;
        let ends = self.ends.borrow().clone();
        let kafka_trouble = consumer.trouble.clone().or_else(|| ends.trouble.clone()).or_else(|| topics_view.trouble.clone());

        let mut tasks: Vec<Task> = Vec::new();
        let mut topics: Vec<Topic> = Vec::new();
        for (name, wanted) in desired.iter().flat_map(|desired| &desired.topics) {
            let first_task = tasks.len();
            let mut step = Step::default();
            let paused_at = wanted.paused.as_ref().map(|pause| pause.since_at);
            for partition in partitions_of(name, &topics_view, &consumer, &slots) {
                let slot = slots.get(&partition);
                let counts = slot.map(|slot| (slot.progress.settled(), slot.progress.dead_lettered()));
                let (rate, own_step) = memories.rate(&partition, counts, elapsed);
                step = step.and(own_step);
                let input = TaskInput {
                    previous: memories.rows.get(&partition).copied(),
                    topic: name.clone(),
                    partition: partition.partition,
                    instance: self.instance.clone(),
                    slot: slot.map(slot_input),
                    progress: match slot {
                        Some(slot) => Some(progress_input(&slot.progress)),
                        // Without a task nothing is in work, but the counts are since the process started.
                        None => self.work.known_progress(&partition).map(|progress| past_counts(&progress)),
                    },
                    assignment: consumer.partitions.get(&partition).map(|view| partition_input(view, ends.ends.get(&partition).copied())),
                    kafka_trouble: topics_view.absent.get(name).or(kafka_trouble.as_ref()).cloned(),
                    sink_trouble: sink_trouble.clone(),
                    paused_at,
                    records_per_second: rate,
                };
                let mut task = derive::task(input, now);
                if slot.is_none()
                    && let Some(before) = row_of(previous, &partition)
                {
                    derive::keep_past(&mut task, before);
                }
                memories.rows.insert(partition, (task.state, task.since_at));
                tasks.push(task);
            }
            let own_tasks = tasks.get(first_task..).unwrap_or_default();
            let input = TopicInput {
                name: name.clone(),
                spec: (*wanted.spec).clone(),
                overrides: wanted.overrides.clone(),
                spec_origin: wanted.origin.clone(),
                sources: wanted.sources.clone(),
                paused: wanted.paused.clone(),
                partitions: topics_view.partitions.get(name).and_then(|count| usize::try_from(*count).ok()),
                missing: topics_view.absent.get(name).or(kafka_trouble.as_ref()).cloned(),
                last_minute: memories.last_minute(name, step, elapsed),
            };
            topics.push(derive::topic(input, own_tasks));
        }
        memories.forget(|topic| desired.as_ref().is_some_and(|desired| desired.topics.contains_key(topic)));

        let series = previous.series.with(&topics, now);
        Snapshot {
            taken_at: now,
            topics,
            tasks,
            last_version: previous.last_version,
            sources: desired.as_ref().map(|desired| desired.sources.clone()).unwrap_or_default(),
            components: self.component_rows(&kafka_trouble, &sink_trouble, now),
            memory: Memory {
                limit_bytes: self.memory_limit,
                prefetch_bytes: self.prefetch_bytes,
                in_flight_bytes: self.budget.used(),
                peak_bytes: self.budget.peak(),
            },
            sink: self.sink_stats.totals(),
            dead_letters_bytes: self.dead_letters.bytes(),
            dead_letters_max_bytes: self.dead_letters_max_bytes,
            invariant_violations: self.checks.counts(),
            needs_restart: file.needs_restart,
            warnings: self.warnings(ends.members),
            store_revision: desired.as_ref().map_or(0, |desired| desired.store_revision()),
            first_list: desired.is_some(),
            draining: *self.draining.borrow(),
            assignments: consumer.partitions.iter().map(|(partition, view)| (partition.clone(), view.epoch)).collect(),
            recreations: topics_view.recreations.clone(),
            marks: previous.marks.clone(),
            events: previous.events.clone(),
            series,
        }
    }

    /// What an operator should know although nothing is wrong yet.
    fn warnings(&self, members: usize) -> Vec<String> {
        let mut warnings = if self.shares_topics { Vec::new() } else { lonely(members) };
        let trouble = self.tokens.as_ref().and_then(|views| views.borrow().error.clone());
        warnings.extend(trouble.map(|error| format!("the file of tokens cannot be used, the tokens of before stay in force: {error}")));
        let trouble = self.tls.as_ref().and_then(|views| views.borrow().error.clone());
        warnings.extend(trouble.map(|error| format!("the API's TLS files cannot be used, the certificate of before stays in force: {error}")));
        warnings
    }

    /// The long-running parts; an outage of Kafka or of the sink is shown by the part that meets it.
    fn component_rows(&self, kafka_trouble: &Option<Reason>, sink_trouble: &Option<Reason>, now: Timestamp) -> Vec<Component> {
        let view = self.components.view().borrow().clone();
        let mut rows = Vec::with_capacity(view.len());
        for (part, slot) in view.iter() {
            let trouble = match part {
                Part::Consumer => kafka_trouble.as_ref(),
                Part::Sink => sink_trouble.as_ref(),
                _ => None,
            };
            rows.push(component_row(*part, slot, trouble, now));
        }
        rows
    }
}

/// Without etcd each instance keeps its topics to itself, so others in its group know nothing of them.
fn lonely(members: usize) -> Vec<String> {
    if members < 2 {
        return Vec::new();
    }
    vec![format!(
        "the consumer group has {members} members and there is no etcd: each instance knows only the topics of its own file and data_dir; give them the same file, or run one instance"
    )]
}

impl Counters {
    /// What the partition settled since the look before; `counts` are its records settled and dead-lettered ever, unless it has no task.
    fn step(&mut self, counts: Option<(u64, u64)>) -> Step {
        Step {
            settled: self.settled.growth(counts.map(|(settled, _)| settled)),
            dead_lettered: self.dead_lettered.growth(counts.map(|(_, dead_lettered)| dead_lettered)),
        }
    }
}

impl Default for Minute {
    fn default() -> Self {
        Self { settled: Window::over(LAST_MINUTE), dead_lettered: Window::over(LAST_MINUTE) }
    }
}

impl Step {
    fn and(self, other: Self) -> Self {
        Self { settled: self.settled.saturating_add(other.settled), dead_lettered: self.dead_lettered.saturating_add(other.dead_lettered) }
    }
}

impl Memories {
    /// The rate of a partition and its last step, see [`Counters::step`].
    fn rate(&mut self, partition: &TopicPartition, counts: Option<(u64, u64)>, elapsed: Duration) -> (f64, Step) {
        let step = self.counters.entry(partition.clone()).or_default().step(counts);
        let rate = self.rates.entry(partition.clone()).or_insert_with(|| Window::over(RATE_WINDOW));
        rate.add(elapsed, step.settled);
        (rate.per_second(), step)
    }

    fn last_minute(&mut self, topic: &TopicName, step: Step, elapsed: Duration) -> LastMinute {
        let minute = self.minutes.entry(topic.clone()).or_default();
        minute.settled.add(elapsed, step.settled);
        minute.dead_lettered.add(elapsed, step.dead_lettered);
        let dead_lettered = minute.dead_lettered.sum();
        // The two counters of a partition are not read at one moment.
        LastMinute { settled: minute.settled.sum().max(dead_lettered), dead_lettered }
    }

    fn forget(&mut self, is_wanted: impl Fn(&TopicName) -> bool) {
        for (_, counters) in self.counters.iter_mut().filter(|(partition, _)| !is_wanted(&partition.topic)) {
            counters.step(None);
        }
        self.rates.retain(|partition, _| is_wanted(&partition.topic));
        self.rows.retain(|partition, _| is_wanted(&partition.topic));
        self.minutes.retain(|topic, _| is_wanted(topic));
    }
}

/// Every partition that Kafka, the assignment or a task names.
fn partitions_of(
    name: &TopicName,
    topics: &TopicsView,
    consumer: &ConsumerView,
    slots: &BTreeMap<TopicPartition, SlotView<PartitionProgress>>,
) -> Vec<TopicPartition> {
    let first = TopicPartition::new(name.clone(), 0);
    let last = TopicPartition::new(name.clone(), i32::MAX);
    let count = topics.partitions.get(name).copied().unwrap_or(0);
    let mut partitions: Vec<TopicPartition> = (0..count).map(|partition| TopicPartition::new(name.clone(), partition)).collect();
    partitions.extend(consumer.partitions.range(first.clone()..=last.clone()).map(|(partition, _)| partition.clone()));
    partitions.extend(slots.range(first..=last).map(|(partition, _)| partition.clone()));
    partitions.sort_unstable();
    partitions.dedup();
    partitions
}

fn slot_input<P>(slot: &SlotView<P>) -> SlotInput {
    SlotInput {
        state: slot.state,
        since_at: slot.since_at,
        incarnation: slot.incarnation,
        restarts_total: slot.restarts_total,
        restarts_by_cause: slot.restarts_by_cause.clone(),
        consecutive_failures: slot.consecutive_failures,
        next_restart_at: slot.next_restart_at,
        last_exit: slot.last_exit.clone(),
        recent_exits: slot.recent_exits.clone(),
        failure: slot.failure,
    }
}

fn progress_input(progress: &PartitionProgress) -> ProgressInput {
    ProgressInput {
        indexed: progress.indexed(),
        dead_lettered: progress.dead_lettered(),
        skipped: progress.skipped(),
        retried: progress.retried(),
        position: progress.position(),
        watermark: progress.watermark(),
        watermark_timestamp_ms: progress.watermark_timestamp_ms(),
        condition: progress.condition(),
        pending: progress.pending(),
        oldest_unsettled_seconds: progress.oldest_unsettled_seconds(),
    }
}

/// Only what counts since the process started.
fn past_counts(progress: &PartitionProgress) -> ProgressInput {
    ProgressInput {
        indexed: progress.indexed(),
        dead_lettered: progress.dead_lettered(),
        skipped: progress.skipped(),
        retried: progress.retried(),
        ..ProgressInput::default()
    }
}

/// A partition's row in a snapshot, whose rows are in order.
fn row_of<'a>(snapshot: &'a Snapshot, partition: &TopicPartition) -> Option<&'a Task> {
    let place = snapshot.tasks.binary_search_by(|task| (&task.topic, task.partition).cmp(&(&partition.topic, partition.partition)));
    snapshot.tasks.get(place.ok()?)
}

fn partition_input(view: &PartitionView, high_watermark: Option<i64>) -> PartitionInput {
    PartitionInput {
        start: view.start,
        position: Some(view.position),
        committed: view.committed,
        committed_at: view.committed_at,
        // The end was asked for some time ago; what was read since proves a later one. Else a task with records in hand could show no lag.
        high_watermark: high_watermark.map(|end| end.max(view.position)),
        unreadable: view.unreadable.clone().filter(|_| high_watermark.is_none_or(|end| end > view.position)),
        lost: view.lost.clone(),
        lost_total: view.lost_total,
    }
}

fn component_row(part: Part, slot: &SlotView<NoProgress>, trouble: Option<&Reason>, now: Timestamp) -> Component {
    let (state, since_at) = match (slot.state, trouble) {
        (TaskState::Running, Some(reason)) => (TaskState::Waiting, reason.since_at),
        (state, _) => (state, slot.since_at),
    };
    Component {
        name: part.to_string(),
        state,
        health: derive::health(state, since_at, now),
        reason: trouble.cloned(),
        since_at,
        restarts_total: slot.restarts_total,
        last_exit: slot.last_exit.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_in_hand_are_lag_before_the_brokers_are_asked_again() {
        let view = PartitionView {
            epoch: 1,
            topic_id: None,
            start: 0,
            position: 60,
            watermark: 50,
            settled: false,
            waits_at: None,
            committed: Some(50),
            committed_at: None,
            unreadable: None,
            lost: Vec::new(),
            lost_total: 0,
        };
        assert_eq!(partition_input(&view, Some(50)).high_watermark, Some(60));
        assert_eq!(partition_input(&view, Some(70)).high_watermark, Some(70));
        assert_eq!(partition_input(&view, None).high_watermark, None);
    }

    #[test]
    fn a_topic_that_is_removed_and_added_again_has_no_rate_from_before() {
        let orders = TopicPartition::new(TopicName::new("orders").expect("a topic name"), 0);
        let mut memories = Memories::default();
        memories.rate(&orders, Some((5060, 0)), Duration::ZERO);
        memories.forget(|_| false);
        // The topic is wanted again before its task is there; the count of its progress survived, and grew while the old task drained.
        memories.rate(&orders, None, Duration::from_secs(10));
        assert_eq!(memories.rate(&orders, Some((5080, 0)), Duration::from_secs(11)).0, 0.0);
    }

    #[test]
    fn dead_letters_of_all_partitions_count_for_a_minute() {
        let topic = TopicName::new("orders").expect("a topic name");
        let mut memories = Memories::default();
        let mut look = |second: u64, counts: [(u64, u64); 2]| {
            let mut step = Step::default();
            for (number, counts) in (0..).zip(counts) {
                let partition = TopicPartition::new(topic.clone(), number);
                step = step.and(memories.rate(&partition, Some(counts), Duration::from_secs(second)).1);
            }
            memories.last_minute(&topic, step, Duration::from_secs(second))
        };
        assert_eq!(look(0, [(100, 100), (50, 0)]), LastMinute::default());
        assert_eq!(look(2, [(110, 107), (52, 1)]), LastMinute { settled: 12, dead_lettered: 8 });
        assert_eq!(look(62, [(110, 107), (52, 1)]), LastMinute::default());
    }

    #[test]
    fn a_renamed_consumer_would_be_rebuilt_unseen() {
        assert_eq!(Part::Consumer.to_string(), events::CONSUMER);
    }
}
