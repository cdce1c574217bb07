//! From what the parts publish to what an operator sees: the one place where a task's and a topic's state, health, reason and lag are decided.
//!
//! Guarantees: the same inputs give the same row; a state names what is worst, and a reason comes with every state that needs someone to look. Pure: plain values in, plain
//! values out, the time is a parameter. Owns no memory: what a row was before is handed in.
//!
//! The state of a task, first match wins:
//!
//! | situation | state |
//! |---|---|
//! | the old life still ends (revoked, paused or at shutdown) | `draining`, `stopped` |
//! | the partition is not ours, Kafka is in trouble | `waiting` |
//! | the partition is not ours | `unassigned` |
//! | the topic is paused | `paused` |
//! | no life yet | `starting` |
//! | a life is running, but the task itself, Kafka or (with work to send) the sink says why nothing goes on | `waiting` |
//! | a life is running, and what Kafka has there cannot be read: not by us, or by nobody | `waiting`, `stalled` |
//! | a life | as the supervisor says |

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Exit, ExitCause, Health, LastMinute, LostRange, Pause, Reason, ReasonCode, Task, TaskState, Topic, TopicStatus};
use crate::topic::{Origin, SourceRef, SpecFields, TopicName, TopicSpec};

/// How long a task may be starting before that is worth a look, in seconds (the design, section 6).
const STARTING_SECONDS: f64 = 60.0;

/// What the supervisor says of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotInput {
    /// `starting`, `running`, `stalled`, `backoff`, `draining`, `failed` or `stopped`.
    pub state: TaskState,
    /// Since when.
    pub since_at: Timestamp,
    /// The number of the current or last life.
    pub incarnation: u64,
    /// Restarts ever.
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
    /// Why it is `failed`, as the life that gave up named it.
    pub failure: Option<ReasonCode>,
}

/// What a task publishes while it works.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProgressInput {
    /// Records indexed since the process started.
    pub indexed: u64,
    /// Records dead-lettered since the process started.
    pub dead_lettered: u64,
    /// Records skipped by a policy since the process started.
    pub skipped: u64,
    /// Records sent again since the process started.
    pub retried: u64,
    /// The offset after the last record that the task read.
    pub position: Option<i64>,
    /// The lowest offset that is not settled.
    pub watermark: Option<i64>,
    /// The timestamp of the record at the watermark, in milliseconds since 1970; negative where the record has none.
    pub watermark_timestamp_ms: Option<i64>,
    /// Why the task itself does not go on, such as `index_closed`: it is parked.
    pub condition: Option<Reason>,
    /// Whether it holds records that are not settled.
    pub pending: bool,
    /// How long the oldest record that was read but not settled has been held, in seconds; 0 when it holds none.
    pub oldest_unsettled_seconds: f64,
}

/// What the consumer says of a partition that is assigned to this instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionInput {
    /// The resolved start offset, from which lag is counted while nothing is committed.
    pub start: i64,
    /// The offset after the last record that the consumer handed on.
    pub position: Option<i64>,
    /// The committed offset.
    pub committed: Option<i64>,
    /// When it was committed.
    pub committed_at: Option<Timestamp>,
    /// The end of the partition; `None` until the broker has answered.
    pub high_watermark: Option<i64>,
    /// Why what Kafka has at the position cannot be read; `None` when it can, or nothing is there.
    pub unreadable: Option<Reason>,
    /// Ranges that Kafka removed before they were read, newest last.
    pub lost: Vec<LostRange>,
    /// Records in all such ranges since the process started.
    pub lost_total: u64,
}

/// Everything that one task's row is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInput {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number.
    pub partition: i32,
    /// This instance's name.
    pub instance: String,
    /// The state and its `since_at` in the row before; `None` at first sight.
    pub previous: Option<(TaskState, Timestamp)>,
    /// What the supervisor says; `None` when it has nothing of this key.
    pub slot: Option<SlotInput>,
    /// What the task publishes.
    pub progress: Option<ProgressInput>,
    /// What the consumer says; `None` when the partition is not assigned to this instance.
    pub assignment: Option<PartitionInput>,
    /// Why Kafka does not answer.
    pub kafka_trouble: Option<Reason>,
    /// Why the sink takes nothing.
    pub sink_trouble: Option<Reason>,
    /// Since when the topic is paused.
    pub paused_at: Option<Timestamp>,
    /// Settled records per second.
    pub records_per_second: f64,
}

/// Everything but the tasks that a topic's row is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicInput {
    /// The topic's name.
    pub name: TopicName,
    /// The effective spec.
    pub spec: TopicSpec,
    /// What the store holds.
    pub overrides: SpecFields,
    /// Where each field of the spec comes from.
    pub spec_origin: BTreeMap<String, Origin>,
    /// The places that name the topic.
    pub sources: Vec<SourceRef>,
    /// The pause laid over the topic.
    pub paused: Option<Pause>,
    /// Number of partitions; `None` while Kafka has not told it.
    pub partitions: Option<usize>,
    /// Why the topic may have no tasks: Kafka lacks or forbids it, or does not answer.
    pub missing: Option<Reason>,
    /// What became of its records in the last minute.
    pub last_minute: LastMinute,
}

/// A state, why, and since when by the word of whoever caused it (`None`: nobody can say).
struct Finding {
    state: TaskState,
    reason: Option<Reason>,
    caused_at: Option<Timestamp>,
}

impl Finding {
    fn new(state: TaskState, caused_at: Option<Timestamp>) -> Self {
        Self { state, reason: None, caused_at }
    }

    fn waiting(reason: &Reason) -> Self {
        Self { state: TaskState::Waiting, caused_at: Some(reason.since_at), reason: Some(reason.clone()) }
    }
}

/// The row of one task.
pub fn task(input: TaskInput, now: Timestamp) -> Task {
    let finding = find(&input);
    let since_at = since(&finding, input.previous, now);
    let is_ours = input.assignment.is_some() || matches!(finding.state, TaskState::Draining | TaskState::Stopped);
    let progress = input.progress.unwrap_or_default();
    let lag = input.assignment.as_ref().and_then(lag);
    let lag_seconds = lag_seconds(lag, input.assignment.as_ref(), &progress, now);
    let assignment = input.assignment.unwrap_or_default();
    let slot = input.slot;
    Task {
        topic: input.topic,
        partition: input.partition,
        instance: is_ours.then_some(input.instance),
        state: finding.state,
        health: health(finding.state, since_at, now),
        reason: finding.reason,
        since_at,
        incarnation: slot.as_ref().map_or(0, |slot| slot.incarnation),
        restarts_total: slot.as_ref().map_or(0, |slot| slot.restarts_total),
        restarts_by_cause: slot.as_ref().map(|slot| slot.restarts_by_cause.clone()).unwrap_or_default(),
        consecutive_failures: slot.as_ref().map_or(0, |slot| slot.consecutive_failures),
        next_restart_at: slot.as_ref().and_then(|slot| slot.next_restart_at),
        last_exit: slot.as_ref().and_then(|slot| slot.last_exit.clone()),
        recent_exits: slot.map(|slot| slot.recent_exits).unwrap_or_default(),
        position: progress.position.or(assignment.position),
        committed: assignment.committed,
        committed_at: assignment.committed_at,
        high_watermark: assignment.high_watermark,
        lag,
        lag_seconds,
        indexed_total: progress.indexed,
        dead_lettered_total: progress.dead_lettered,
        skipped_total: progress.skipped,
        retried_total: progress.retried,
        lost_total: assignment.lost_total,
        lost: assignment.lost,
        records_per_second: input.records_per_second,
        oldest_unsettled_seconds: progress.oldest_unsettled_seconds,
        version: 0,
    }
}

/// What a row without a life keeps of the row before: a paused topic's restarts and exits are no less true while nothing runs, and a counter that falls to 0 and comes back would be
/// counted again by whoever watches it.
pub fn keep_past(row: &mut Task, before: &Task) {
    row.incarnation = before.incarnation;
    row.restarts_total = before.restarts_total;
    row.restarts_by_cause = before.restarts_by_cause.clone();
    row.last_exit = before.last_exit.clone();
    row.recent_exits = before.recent_exits.clone();
}

/// The table in the module's docs.
fn find(input: &TaskInput) -> Finding {
    let slot = input.slot.as_ref();
    if let Some(slot) = slot.filter(|slot| matches!(slot.state, TaskState::Draining | TaskState::Stopped)) {
        return Finding::new(slot.state, Some(slot.since_at));
    }
    if input.assignment.is_none() {
        return input.kafka_trouble.as_ref().map_or(Finding::new(TaskState::Unassigned, None), Finding::waiting);
    }
    if let Some(paused_at) = input.paused_at {
        return Finding::new(TaskState::Paused, Some(paused_at));
    }
    match slot {
        None => Finding { state: TaskState::Starting, reason: input.kafka_trouble.clone(), caused_at: None },
        Some(slot) if slot.state == TaskState::Running => match (obstacle(input), unreadable(input)) {
            (Some(reason), _) => Finding::waiting(reason),
            // Who forbids it can allow it again; what is broken needs repair.
            (None, Some(reason)) if reason.code != ReasonCode::NoProgress => Finding::waiting(reason),
            (None, Some(reason)) => Finding { state: TaskState::Stalled, caused_at: Some(reason.since_at), reason: Some(reason.clone()) },
            (None, None) => Finding::new(TaskState::Running, Some(slot.since_at)),
        },
        Some(slot) => Finding { state: slot.state, reason: supervisor_reason(slot, input), caused_at: Some(slot.since_at) },
    }
}

/// What keeps a running task from going on: its own reason is the most exact one, and an unreachable sink matters only to who has something to send.
fn obstacle(input: &TaskInput) -> Option<&Reason> {
    let progress = input.progress.as_ref();
    let condition = progress.and_then(|progress| progress.condition.as_ref());
    let is_pending = progress.is_some_and(|progress| progress.pending);
    let sink_trouble = input.sink_trouble.as_ref().filter(|_| is_pending);
    condition.or(input.kafka_trouble.as_ref()).or(sink_trouble)
}

/// What cannot be read where the task goes on. Restarting it does not help, and it does not pass by waiting as an outage does.
fn unreadable(input: &TaskInput) -> Option<&Reason> {
    input.assignment.as_ref().and_then(|assignment| assignment.unreadable.as_ref())
}

/// Why a task is in a state that the supervisor decided.
fn supervisor_reason(slot: &SlotInput, input: &TaskInput) -> Option<Reason> {
    let last_words = slot.last_exit.as_ref().map(last_words).unwrap_or_default();
    let (code, message, remedy) = match slot.state {
        TaskState::Starting => return input.kafka_trouble.clone(),
        TaskState::Backoff if slot.last_exit.as_ref().is_some_and(|exit| exit.cause == ExitCause::Stalled) => (
            ReasonCode::NoProgress,
            format!("the task had work and made no progress, it was ended{last_words}"),
            "it is started again by itself; if this repeats, look at the sink's latency and at this partition's records",
        ),
        TaskState::Backoff => (
            ReasonCode::Crashed,
            format!("the task ended{last_words}"),
            "it is started again by itself; if this repeats, the message and the offset say where it breaks",
        ),
        TaskState::Stalled => (
            ReasonCode::NoProgress,
            "there is work and no progress, and restarting did not help".to_owned(),
            "look for a hanging transaction on this partition, then restart the task",
        ),
        TaskState::Failed => failed(slot, &last_words),
        _ => return None,
    };
    Some(Reason { code, message, remedy: remedy.to_owned(), since_at: slot.since_at })
}

fn failed(slot: &SlotInput, last_words: &str) -> (ReasonCode, String, &'static str) {
    match slot.failure.unwrap_or(ReasonCode::Crashed) {
        ReasonCode::Rejected => (
            ReasonCode::Rejected,
            format!("a record was rejected for good, and on_reject is stop{last_words}"),
            "correct the index's mapping, or set on_reject to dead_letter, or rewind past the record; then restart the task",
        ),
        code => (code, format!("the task gave up{last_words}"), "correct what the message names, then restart the task"),
    }
}

/// How the last life ended, as the tail of a sentence.
fn last_words(exit: &Exit) -> String {
    let place = exit.offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default();
    format!(" ({}{place}): {}", exit.cause.as_str(), exit.message)
}

/// Since when the row is in its state.
///
/// A cause may be older than the state (the supervisor counts a task as running all through an outage), so a state that is not the one before begins now unless its cause
/// is newer than what was there. A waiting task keeps its moment when only the reason changes: the reason has its own.
fn since(finding: &Finding, previous: Option<(TaskState, Timestamp)>, now: Timestamp) -> Timestamp {
    let Some((state, since_at)) = previous else {
        return finding.caused_at.unwrap_or(now);
    };
    let is_same = state == finding.state;
    if is_same && state == TaskState::Waiting {
        return since_at;
    }
    match finding.caused_at {
        Some(caused_at) if caused_at > since_at => caused_at,
        _ if is_same => since_at,
        _ => now,
    }
}

/// Whether a state needs someone to look.
pub fn health(state: TaskState, since_at: Timestamp, now: Timestamp) -> Health {
    match state {
        TaskState::Failed | TaskState::Stalled => Health::Down,
        TaskState::Backoff | TaskState::Waiting => Health::Degraded,
        TaskState::Starting if seconds_between(since_at, now) > STARTING_SECONDS => Health::Degraded,
        TaskState::Starting | TaskState::Draining | TaskState::Running | TaskState::Paused | TaskState::Unassigned | TaskState::Stopped => Health::Ok,
    }
}

fn lag(assignment: &PartitionInput) -> Option<i64> {
    let end = assignment.high_watermark?;
    let done = assignment.committed.unwrap_or(assignment.start);
    Some(end.saturating_sub(done).max(0))
}

/// Age of the record at the watermark. 0 with no lag, and when only the commit of what is settled is still to come.
fn lag_seconds(lag: Option<i64>, assignment: Option<&PartitionInput>, progress: &ProgressInput, now: Timestamp) -> Option<f64> {
    let end = assignment.and_then(|assignment| assignment.high_watermark);
    let all_settled = progress.watermark.zip(end).is_some_and(|(watermark, end)| watermark >= end);
    if lag? == 0 || all_settled {
        return Some(0.0);
    }
    let milliseconds = progress.watermark_timestamp_ms.filter(|milliseconds| *milliseconds >= 0)?;
    let written_at = Timestamp::from_millisecond(milliseconds).ok()?;
    Some(seconds_between(written_at, now))
}

/// At least 0: clocks of other machines may be ahead.
fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64().max(0.0)
}

/// The row of one topic; `tasks` are its own.
pub fn topic(input: TopicInput, tasks: &[Task]) -> Topic {
    let status = topic_status(&input, tasks);
    Topic {
        name: input.name,
        spec: input.spec,
        overrides: input.overrides,
        spec_origin: input.spec_origin,
        sources: input.sources,
        paused: input.paused,
        status,
        last_minute: input.last_minute,
        version: 0,
    }
}

fn topic_status(input: &TopicInput, tasks: &[Task]) -> TopicStatus {
    // States are ordered from worst to best, so the worst is the least.
    let worst = tasks.iter().map(|task| task.state).min();
    let worst_reason = tasks.iter().filter(|task| Some(task.state) == worst).find_map(|task| task.reason.clone());
    let state = match (&input.paused, worst) {
        (Some(_), _) => TaskState::Paused,
        (None, Some(worst)) => worst,
        (None, None) => TaskState::Waiting,
    };
    let health_without_tasks = if state == TaskState::Waiting { Health::Degraded } else { Health::Ok };
    let mut by_state: BTreeMap<String, usize> = BTreeMap::new();
    for task in tasks {
        *by_state.entry(task.state.as_str().to_owned()).or_default() += 1;
    }
    TopicStatus {
        state,
        health: tasks.iter().map(|task| task.health).max().unwrap_or(health_without_tasks),
        reason: if tasks.is_empty() { input.missing.clone() } else { worst_reason },
        partitions: if tasks.is_empty() { 0 } else { input.partitions.unwrap_or(tasks.len()) },
        tasks: by_state,
        restarts_total: sum(tasks, |task| task.restarts_total),
        lag: topic_lag(tasks),
        lag_seconds: tasks.iter().filter_map(|task| task.lag_seconds).max_by(f64::total_cmp),
        indexed_total: sum(tasks, |task| task.indexed_total),
        dead_lettered_total: sum(tasks, |task| task.dead_lettered_total),
        skipped_total: sum(tasks, |task| task.skipped_total),
        lost_total: sum(tasks, |task| task.lost_total),
        // An empty sum of floats is -0.0.
        records_per_second: tasks.iter().map(|task| task.records_per_second).sum::<f64>() + 0.0,
    }
}

fn sum(tasks: &[Task], value: impl Fn(&Task) -> u64) -> u64 {
    tasks.iter().map(value).fold(0, u64::saturating_add)
}

/// The sum; not known when there is nothing to ask, or a task does not know.
fn topic_lag(tasks: &[Task]) -> Option<i64> {
    if tasks.is_empty() {
        return None;
    }
    tasks.iter().try_fold(0_i64, |total, task| Some(total.saturating_add(task.lag?)))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a legal time")
    }

    const NOW: i64 = 1_000_000;

    fn reason(code: ReasonCode, since: i64) -> Reason {
        Reason { code, message: "m".to_owned(), remedy: "r".to_owned(), since_at: at(since) }
    }

    fn exit(cause: ExitCause) -> Exit {
        Exit { at: at(NOW - 5), cause, message: "boom".to_owned(), offset: Some(41) }
    }

    fn slot(state: TaskState) -> SlotInput {
        SlotInput {
            state,
            since_at: at(NOW - 100),
            incarnation: 2,
            restarts_total: 1,
            restarts_by_cause: BTreeMap::from([(ExitCause::Panicked, 1)]),
            consecutive_failures: 1,
            next_restart_at: None,
            last_exit: Some(exit(ExitCause::Panicked)),
            recent_exits: vec![exit(ExitCause::Panicked)],
            failure: None,
        }
    }

    /// A partition of ours, running, with lag 60.
    fn input() -> TaskInput {
        TaskInput {
            topic: TopicName::new("t").expect("a legal name"),
            partition: 3,
            instance: "host-1".to_owned(),
            previous: None,
            slot: Some(slot(TaskState::Running)),
            progress: Some(ProgressInput {
                indexed: 7,
                position: Some(60),
                watermark: Some(45),
                watermark_timestamp_ms: Some((NOW - 20) * 1000),
                pending: true,
                oldest_unsettled_seconds: 1.5,
                ..ProgressInput::default()
            }),
            assignment: Some(PartitionInput { committed: Some(40), high_watermark: Some(100), ..PartitionInput::default() }),
            kafka_trouble: None,
            sink_trouble: None,
            paused_at: None,
            records_per_second: 1.0,
        }
    }

    fn derived(change: impl FnOnce(&mut TaskInput)) -> Task {
        let mut changed = input();
        change(&mut changed);
        task(changed, at(NOW))
    }

    fn with_slot(state: TaskState, change: impl FnOnce(&mut SlotInput)) -> Task {
        let mut changed = slot(state);
        change(&mut changed);
        derived(|input| input.slot = Some(changed))
    }

    fn code(row: &Task) -> Option<ReasonCode> {
        row.reason.as_ref().map(|reason| reason.code)
    }

    #[test]
    fn a_running_task_shows_all_that_its_parts_publish() {
        let row = derived(|_| {});
        assert_eq!((row.state, row.health, &row.reason), (TaskState::Running, Health::Ok, &None));
        assert_eq!((row.instance.as_deref(), row.since_at, row.incarnation), (Some("host-1"), at(NOW - 100), 2));
        assert_eq!((row.position, row.committed, row.high_watermark), (Some(60), Some(40), Some(100)));
        assert_eq!((row.lag, row.lag_seconds), (Some(60), Some(20.0)));
        assert_eq!((row.restarts_total, &row.restarts_by_cause), (1, &BTreeMap::from([(ExitCause::Panicked, 1)])));
        assert_eq!((row.indexed_total, row.oldest_unsettled_seconds, row.recent_exits.len()), (7, 1.5, 1));
    }

    #[test]
    fn a_partition_of_another_instance_has_no_instance_here() {
        let row = derived(|input| input.assignment = None);
        assert_eq!((row.state, row.health, row.instance), (TaskState::Unassigned, Health::Ok, None));
        assert_eq!((row.lag, row.lag_seconds, row.committed), (None, None, None));
    }

    #[test]
    fn an_unassigned_partition_is_not_well_while_kafka_is_away() {
        let row = derived(|input| {
            input.assignment = None;
            input.slot = None;
            input.kafka_trouble = Some(reason(ReasonCode::KafkaUnreachable, NOW - 9));
        });
        assert_eq!((row.state, row.health, code(&row)), (TaskState::Waiting, Health::Degraded, Some(ReasonCode::KafkaUnreachable)));
        assert_eq!(row.since_at, at(NOW - 9));
    }

    #[test]
    fn a_task_that_still_drains_is_not_called_paused_or_unassigned() {
        let row = derived(|input| {
            input.slot = Some(slot(TaskState::Draining));
            input.assignment = None;
            input.paused_at = Some(at(NOW));
        });
        assert_eq!((row.state, row.instance.as_deref()), (TaskState::Draining, Some("host-1")));
    }

    #[test]
    fn a_pause_beats_the_leftovers_of_the_old_life() {
        let row = derived(|input| {
            input.slot = Some(slot(TaskState::Backoff));
            input.paused_at = Some(at(NOW - 30));
        });
        assert_eq!((row.state, row.health, row.reason, row.since_at), (TaskState::Paused, Health::Ok, None, at(NOW - 30)));
    }

    #[test]
    fn a_paused_task_forgets_neither_its_restarts_nor_its_last_exit() {
        let before = derived(|_| {});
        let mut row = derived(|input| {
            input.slot = None;
            input.paused_at = Some(at(NOW - 1));
        });
        assert_eq!((row.restarts_total, row.last_exit.is_some()), (0, false));
        keep_past(&mut row, &before);
        assert_eq!((row.restarts_total, row.incarnation, &row.last_exit, &row.recent_exits), (1, 2, &before.last_exit, &before.recent_exits));
        assert_eq!((row.state, &row.restarts_by_cause), (TaskState::Paused, &before.restarts_by_cause));
    }

    #[test]
    fn a_parked_task_shows_its_own_reason_before_that_of_the_sink() {
        let row = derived(|input| {
            input.sink_trouble = Some(reason(ReasonCode::SinkUnreachable, NOW - 3));
            let progress = input.progress.as_mut().expect("progress");
            progress.condition = Some(reason(ReasonCode::IndexClosed, NOW - 7));
        });
        assert_eq!(
            (row.state, row.health, code(&row), row.since_at),
            (TaskState::Waiting, Health::Degraded, Some(ReasonCode::IndexClosed), at(NOW - 7))
        );
    }

    #[test]
    fn an_unreachable_sink_matters_only_to_a_task_with_work() {
        let trouble = reason(ReasonCode::SinkUnreachable, NOW - 3);
        let busy = derived(|input| input.sink_trouble = Some(trouble.clone()));
        assert_eq!((busy.state, code(&busy)), (TaskState::Waiting, Some(ReasonCode::SinkUnreachable)));
        let idle = derived(|input| {
            input.sink_trouble = Some(trouble);
            input.progress.as_mut().expect("progress").pending = false;
        });
        assert_eq!((idle.state, idle.reason), (TaskState::Running, None));
    }

    #[test]
    fn an_outage_does_not_hide_a_crash() {
        let row = derived(|input| {
            input.slot = Some(slot(TaskState::Backoff));
            input.kafka_trouble = Some(reason(ReasonCode::KafkaUnreachable, NOW - 3));
        });
        assert_eq!((row.state, code(&row)), (TaskState::Backoff, Some(ReasonCode::Crashed)));
    }

    #[test]
    fn a_crash_names_its_offset_and_its_message() {
        let row = with_slot(TaskState::Backoff, |_| {});
        assert_eq!((row.health, code(&row)), (Health::Degraded, Some(ReasonCode::Crashed)));
        let message = row.reason.expect("a reason").message;
        assert!(message.contains("panicked") && message.contains("offset 41") && message.contains("boom"), "{message}");
    }

    #[test]
    fn a_kill_by_the_watchdog_is_no_crash() {
        let row = with_slot(TaskState::Backoff, |slot| slot.last_exit = Some(exit(ExitCause::Stalled)));
        assert_eq!(code(&row), Some(ReasonCode::NoProgress));
        let stalled = with_slot(TaskState::Stalled, |_| {});
        assert_eq!((stalled.health, code(&stalled)), (Health::Down, Some(ReasonCode::NoProgress)));
    }

    #[test]
    fn a_failed_task_says_whether_a_rejection_stopped_it() {
        let rejected = with_slot(TaskState::Failed, |slot| slot.failure = Some(ReasonCode::Rejected));
        assert_eq!((rejected.health, code(&rejected)), (Health::Down, Some(ReasonCode::Rejected)));
        let other = with_slot(TaskState::Failed, |slot| slot.failure = None);
        assert_eq!((other.health, code(&other)), (Health::Down, Some(ReasonCode::Crashed)));
    }

    #[test]
    fn a_task_without_a_life_or_an_exit_still_has_a_row() {
        let row = derived(|input| {
            input.slot = None;
            input.progress = None;
        });
        assert_eq!((row.state, row.health, row.since_at, row.incarnation), (TaskState::Starting, Health::Ok, at(NOW), 0));
        assert_eq!((row.lag, row.lag_seconds), (Some(60), None));
        let unexplained = with_slot(TaskState::Backoff, |slot| slot.last_exit = None);
        assert_eq!(code(&unexplained), Some(ReasonCode::Crashed));
    }

    #[test]
    fn a_start_that_takes_too_long_is_degraded() {
        assert_eq!(health(TaskState::Starting, at(NOW - 60), at(NOW)), Health::Ok);
        assert_eq!(health(TaskState::Starting, at(NOW - 61), at(NOW)), Health::Degraded);
        assert_eq!(health(TaskState::Starting, at(NOW + 61), at(NOW)), Health::Ok);
    }

    #[test]
    fn a_task_that_runs_again_after_an_outage_runs_since_its_end() {
        let recovered = derived(|input| input.previous = Some((TaskState::Waiting, at(NOW - 50))));
        assert_eq!((recovered.state, recovered.since_at), (TaskState::Running, at(NOW)));
        let unchanged = derived(|input| input.previous = Some((TaskState::Running, at(NOW - 40))));
        assert_eq!(unchanged.since_at, at(NOW - 40));
        let started = derived(|input| input.previous = Some((TaskState::Starting, at(NOW - 200))));
        assert_eq!(started.since_at, at(NOW - 100));
    }

    #[test]
    fn a_waiting_task_keeps_its_moment_when_only_the_reason_changes() {
        let row = derived(|input| {
            input.previous = Some((TaskState::Waiting, at(NOW - 90)));
            input.kafka_trouble = Some(reason(ReasonCode::KafkaUnreachable, NOW - 3));
        });
        assert_eq!((row.since_at, row.reason.map(|reason| reason.since_at)), (at(NOW - 90), Some(at(NOW - 3))));
    }

    #[test]
    fn lag_counts_from_the_start_offset_while_nothing_is_committed() {
        let from_start = |committed, start, end| {
            let row = derived(|input| input.assignment = Some(PartitionInput { committed, start, high_watermark: end, ..PartitionInput::default() }));
            (row.lag, row.lag_seconds)
        };
        assert_eq!(from_start(None, 90, Some(100)).0, Some(10));
        assert_eq!(from_start(Some(100), 90, Some(100)), (Some(0), Some(0.0)));
        assert_eq!(from_start(Some(120), 90, Some(100)), (Some(0), Some(0.0)));
        assert_eq!(from_start(Some(90), 90, None), (None, None));
    }

    #[test]
    fn records_that_cannot_be_read_are_a_stall_with_its_reason_unless_something_else_is_wrong() {
        let told = reason(ReasonCode::NoProgress, NOW - 3);
        let unreadable = |input: &mut TaskInput| input.assignment.as_mut().expect("an assignment").unreadable = Some(told.clone());
        let row = derived(unreadable);
        assert_eq!((row.state, row.health, row.reason.as_ref()), (TaskState::Stalled, Health::Down, Some(&told)));
        let forbidden = derived(|input| {
            input.assignment.as_mut().expect("an assignment").unreadable = Some(reason(ReasonCode::TopicForbidden, NOW - 3));
        });
        assert_eq!((forbidden.state, code(&forbidden)), (TaskState::Waiting, Some(ReasonCode::TopicForbidden)));
        let during_an_outage = derived(|input| {
            unreadable(input);
            input.kafka_trouble = Some(reason(ReasonCode::KafkaUnreachable, NOW - 1));
        });
        assert_eq!((during_an_outage.state, code(&during_an_outage)), (TaskState::Waiting, Some(ReasonCode::KafkaUnreachable)));
    }

    #[test]
    fn a_commit_that_is_still_to_come_does_not_age() {
        let row = derived(|input| input.progress.as_mut().expect("progress").watermark = Some(100));
        assert_eq!((row.lag, row.lag_seconds), (Some(60), Some(0.0)));
    }

    #[test]
    fn a_record_without_a_timestamp_has_no_age() {
        let row = derived(|input| input.progress.as_mut().expect("progress").watermark_timestamp_ms = Some(-1));
        assert_eq!((row.lag, row.lag_seconds), (Some(60), None));
        let ahead = derived(|input| input.progress.as_mut().expect("progress").watermark_timestamp_ms = Some((NOW + 9) * 1000));
        assert_eq!(ahead.lag_seconds, Some(0.0));
    }

    fn topic_input() -> TopicInput {
        TopicInput {
            name: TopicName::new("t").expect("a legal name"),
            spec: TopicSpec::default(),
            overrides: SpecFields::default(),
            spec_origin: BTreeMap::new(),
            sources: Vec::new(),
            paused: None,
            partitions: Some(2),
            missing: None,
            last_minute: LastMinute::default(),
        }
    }

    #[test]
    fn a_topic_without_tasks_waits_and_says_why() {
        let missing = Some(reason(ReasonCode::TopicMissing, NOW - 1));
        let status = topic(TopicInput { missing, partitions: None, ..topic_input() }, &[]).status;
        assert_eq!((status.state, status.health, status.partitions), (TaskState::Waiting, Health::Degraded, 0));
        assert_eq!((status.tasks.len(), status.lag, status.lag_seconds), (0, None, None));
        assert_eq!(status.reason.map(|reason| reason.code), Some(ReasonCode::TopicMissing));
    }

    #[test]
    fn a_topic_is_as_bad_as_its_worst_task() {
        let fine = derived(|_| {});
        let broken = with_slot(TaskState::Failed, |slot| slot.failure = Some(ReasonCode::Rejected));
        let status = topic(topic_input(), &[fine, broken]).status;
        assert_eq!((status.state, status.health, status.partitions), (TaskState::Failed, Health::Down, 2));
        assert_eq!(status.reason.map(|reason| reason.code), Some(ReasonCode::Rejected));
        assert_eq!(status.tasks, BTreeMap::from([("failed".to_owned(), 1), ("running".to_owned(), 1)]));
        assert_eq!((status.restarts_total, status.lag, status.lag_seconds, status.indexed_total), (2, Some(120), Some(20.0), 14));
        assert_eq!(status.records_per_second, 2.0);
    }

    #[test]
    fn a_topic_does_not_claim_a_lag_that_one_task_does_not_know() {
        let tasks = [derived(|_| {}), derived(|input| input.assignment = None)];
        assert_eq!(topic(topic_input(), &tasks).status.lag, None);
    }

    #[test]
    fn a_pause_wins_over_the_worst_task() {
        let paused = Some(Pause { reason: None, actor: "me".to_owned(), since_at: at(NOW), until_at: None });
        let draining = derived(|input| input.slot = Some(slot(TaskState::Draining)));
        let status = topic(TopicInput { paused: paused.clone(), ..topic_input() }, &[draining]).status;
        assert_eq!((status.state, status.health), (TaskState::Paused, Health::Ok));
        let without_tasks = topic(TopicInput { paused, ..topic_input() }, &[]).status;
        assert_eq!((without_tasks.state, without_tasks.health, without_tasks.partitions), (TaskState::Paused, Health::Ok, 0));
    }

    fn any_state() -> impl Strategy<Value = TaskState> {
        prop::sample::select(TaskState::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn every_state_that_is_not_well_has_a_reason_and_no_lag_is_negative(
            slot_state in prop::option::of(any_state()),
            previous in prop::option::of((any_state(), 0..2 * NOW)),
            is_assigned: bool, is_paused: bool, is_kafka_away: bool, is_sink_away: bool, is_parked: bool, is_pending: bool,
            committed in prop::option::of(0..1000_i64), end in prop::option::of(0..1000_i64), timestamp in prop::option::of(-1..i64::MAX),
        ) {
            let row = derived(|input| {
                // `waiting`, `paused` and `unassigned` are never the supervisor's.
                let is_supervisors = |state: &TaskState| !matches!(state, TaskState::Waiting | TaskState::Paused | TaskState::Unassigned);
                input.slot = slot_state.filter(is_supervisors).map(slot);
                input.previous = previous.map(|(state, second)| (state, at(second)));
                input.paused_at = is_paused.then(|| at(NOW - 8));
                input.kafka_trouble = is_kafka_away.then(|| reason(ReasonCode::KafkaUnreachable, NOW - 3));
                input.sink_trouble = is_sink_away.then(|| reason(ReasonCode::SinkUnreachable, NOW - 3));
                input.assignment = is_assigned.then(|| PartitionInput { committed, high_watermark: end, ..PartitionInput::default() });
                let progress = input.progress.as_mut().expect("progress");
                progress.condition = is_parked.then(|| reason(ReasonCode::ShardLimit, NOW - 4));
                progress.pending = is_pending;
                progress.watermark_timestamp_ms = timestamp;
            });
            let needs_reason = matches!(row.state, TaskState::Failed | TaskState::Stalled | TaskState::Backoff | TaskState::Waiting);
            prop_assert_eq!(needs_reason && row.reason.is_none(), false);
            prop_assert!(row.lag.is_none_or(|lag| lag >= 0));
            prop_assert!(row.lag_seconds.is_none_or(|seconds| seconds >= 0.0));
            prop_assert!(row.lag != Some(0) || row.lag_seconds == Some(0.0));
            let again = task(TaskInput { previous: Some((row.state, row.since_at)), ..input() }, at(NOW) + SignedDuration::from_secs(1));
            prop_assert!(again.state != row.state || again.since_at >= row.since_at);
        }
    }
}
