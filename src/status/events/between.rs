//! Which difference between two snapshots is which event.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::marks::TaskMark;
use super::{Draft, EventData, EventKind, Partitions, Severity, Wanted};
use crate::status::{Exit, ExitCause, Reason, ReasonCode, Snapshot, Source, SourceStatus, Task, TaskState, Topic};
use crate::topic::{TopicName, TopicPartition, TopicSpec};

/// The name of the consumer's component.
pub const CONSUMER: &str = "kafka";

/// More events of one kind at one moment are one: a tenth of what the log keeps.
const MANY: usize = 100;
/// Partitions that one event lists.
const LISTED_PARTITIONS: usize = 1000;
/// Percent of the dead-letter store's limit from which it is nearly full.
const NEARLY_FULL_PERCENT: u128 = 80;
/// The supervisor's view may lag behind an end by some milliseconds, so an end may be older than the first snapshot that could have shown its task.
const VIEW_LAG: SignedDuration = SignedDuration::from_secs(1);

/// What happened between two consecutive snapshots, in order of time. `next` has its marks already ([`super::follow`]).
pub fn between(previous: &Snapshot, next: &Snapshot) -> Vec<Draft> {
    let mut drafts = Vec::new();
    add_sources(previous, next, &mut drafts);
    add_topics(previous, next, &mut drafts);
    add_recreations(previous, next, &mut drafts);
    add_parts(previous, next, &mut drafts);
    add_assignments(previous, next, &mut drafts);
    add_tasks(previous, next, &mut drafts);
    add_counters(previous, next, &mut drafts);
    drafts.sort_by_key(|draft| draft.at);
    fold(drafts)
}

impl Draft {
    fn new(at: Timestamp, severity: Severity, kind: EventKind, message: String, data: EventData) -> Self {
        Self { at, severity, kind, topic: None, partition: None, message, data }
    }

    fn of_topic(mut self, topic: &TopicName) -> Self {
        self.topic = Some(topic.clone());
        self
    }

    fn of_task(self, task: &Task) -> Self {
        let mut draft = self.of_topic(&task.topic);
        draft.partition = Some(task.partition);
        draft
    }

    /// Names the partition, if it is only one.
    fn of_partitions(self, topic: &TopicName, numbers: &[i32]) -> Self {
        let mut draft = self.of_topic(topic);
        draft.partition = match numbers {
            [only] => Some(*only),
            _ => None,
        };
        draft
    }
}

impl Partitions {
    fn of(numbers: &[i32]) -> Self {
        Self { partitions: numbers.iter().take(LISTED_PARTITIONS).copied().collect(), count: numbers.len() }
    }
}

fn add_sources(previous: &Snapshot, next: &Snapshot, drafts: &mut Vec<Draft>) {
    for source in &next.sources {
        let before = previous.sources.iter().find(|known| known.kind == source.kind && known.detail == source.detail);
        let was = before.map(|known| known.status);
        if was == Some(source.status) {
            continue;
        }
        let is_unwell = |status: SourceStatus| matches!(status, SourceStatus::Error | SourceStatus::Stale);
        let (severity, kind, message) = if is_unwell(source.status) {
            (Severity::Warning, EventKind::SourceFailed, failed_source(source))
        } else if source.status == SourceStatus::Ok && was.is_some_and(is_unwell) {
            (Severity::Info, EventKind::SourceRecovered, format!("the source is read again and names {} topics", source.topics))
        } else {
            continue;
        };
        let line = source.error.as_ref().and_then(|error| error.line);
        let data = EventData::Source { source: source.kind, detail: source.detail.clone(), status: source.status, line };
        drafts.push(Draft::new(next.taken_at, severity, kind, message, data));
    }
}

fn failed_source(source: &Source) -> String {
    match (&source.error, source.status) {
        (Some(error), _) => format!("the source cannot be used, its last good list stays in force: {}", error.message),
        (None, SourceStatus::Stale) => "the source went back in time and is held back until it is confirmed".to_owned(),
        (None, _) => "the source cannot be used, its last good list stays in force".to_owned(),
    }
}

/// The first list changes nothing: what was managed before is not known.
fn add_topics(previous: &Snapshot, next: &Snapshot, drafts: &mut Vec<Draft>) {
    if !previous.first_list || !next.first_list {
        return;
    }
    let before: BTreeMap<&TopicName, &Topic> = previous.topics.iter().map(|topic| (&topic.name, topic)).collect();
    let after: BTreeSet<&TopicName> = next.topics.iter().map(|topic| &topic.name).collect();
    for topic in &previous.topics {
        if !after.contains(&topic.name) {
            let message = "the topic is not managed any more".to_owned();
            drafts.push(Draft::new(next.taken_at, Severity::Info, EventKind::TopicRemoved, message, EventData::Nothing {}).of_topic(&topic.name));
        }
    }
    for topic in &next.topics {
        let draft = match before.get(&topic.name) {
            None => {
                let data = EventData::Added { sources: topic.sources.iter().map(|source| source.kind).collect() };
                Draft::new(next.taken_at, Severity::Info, EventKind::TopicAdded, "the topic is managed now".to_owned(), data)
            }
            Some(known) => match changed(known, topic, next.taken_at) {
                Some(draft) => draft,
                None => continue,
            },
        };
        drafts.push(draft.of_topic(&topic.name));
    }
}

fn changed(before: &Topic, after: &Topic, at: Timestamp) -> Option<Draft> {
    let mut fields = changed_fields(&before.spec, &after.spec);
    let message = match (&before.paused, &after.paused) {
        (None, Some(pause)) => format!("the topic is paused by {}", pause.actor),
        (Some(_), None) => "the topic is not paused any more".to_owned(),
        _ => format!("the topic's {} changed", if fields.is_empty() { "pause".to_owned() } else { fields.join(", ") }),
    };
    if before.paused != after.paused {
        fields.push("paused");
    }
    if fields.is_empty() {
        return None;
    }
    let wanted = |topic: &Topic| Box::new(Wanted { spec: topic.spec.clone(), paused: topic.paused.clone() });
    let data = EventData::Changed { fields, before: wanted(before), after: wanted(after) };
    Some(Draft::new(at, Severity::Info, EventKind::TopicChanged, message, data))
}

fn changed_fields(before: &TopicSpec, after: &TopicSpec) -> Vec<&'static str> {
    let differences = [
        ("index", before.index != after.index),
        ("format", before.format != after.format),
        ("metadata", before.metadata != after.metadata),
        ("operation", before.operation != after.operation),
        ("pipeline", before.pipeline != after.pipeline),
        ("start", before.start != after.start),
        ("tombstones", before.tombstones != after.tombstones),
        ("on_reject", before.on_reject != after.on_reject),
        ("labels", before.labels != after.labels),
    ];
    differences.into_iter().filter(|(_, is_different)| *is_different).map(|(field, _)| field).collect()
}

fn add_recreations(previous: &Snapshot, next: &Snapshot, drafts: &mut Vec<Draft>) {
    for (topic, recreation) in &next.recreations {
        if previous.recreations.get(topic) == Some(recreation) {
            continue;
        }
        let message = "the topic was deleted and created again; it is read from its beginning, under new document ids".to_owned();
        let data = EventData::Recreated { before: recreation.before.clone(), after: recreation.after.clone() };
        drafts.push(Draft::new(recreation.at, Severity::Warning, EventKind::TopicRecreated, message, data).of_topic(topic));
    }
}

fn add_parts(previous: &Snapshot, next: &Snapshot, drafts: &mut Vec<Draft>) {
    let consumer = |snapshot: &Snapshot| snapshot.components.iter().find(|part| part.name == CONSUMER).cloned();
    let restarts_before = consumer(previous).map_or(0, |part| part.restarts_total);
    if let Some(part) = consumer(next).filter(|part| part.restarts_total > restarts_before) {
        let exit = part.last_exit.as_ref();
        let message = format!("the consumer was started again{}", exit.map(|exit| format!(", it {}", ending(exit))).unwrap_or_default());
        let data = EventData::Rebuilt { restarts_total: part.restarts_total, cause: exit.map(|exit| exit.cause) };
        drafts.push(Draft::new(next.taken_at, Severity::Warning, EventKind::ConsumerRebuilt, message, data));
    }
    if is_nearly_full(next) && !is_nearly_full(previous) {
        let (bytes, max_bytes) = (next.dead_letters_bytes, next.dead_letters_max_bytes);
        let message = format!("the dead-letter store has {bytes} of {max_bytes} bytes; when it is full, topics with rejected records wait");
        drafts.push(Draft::new(
            next.taken_at,
            Severity::Warning,
            EventKind::DeadLettersNearlyFull,
            message,
            EventData::DeadLetters { bytes, max_bytes },
        ));
    }
}

fn is_nearly_full(snapshot: &Snapshot) -> bool {
    let (bytes, max_bytes) = (u128::from(snapshot.dead_letters_bytes), u128::from(snapshot.dead_letters_max_bytes));
    // Nothing is known of a store without a limit, such as the one before the first snapshot.
    max_bytes > 0 && bytes * 100 >= max_bytes * NEARLY_FULL_PERCENT
}

/// A partition whose epoch is another was away in between.
fn add_assignments(previous: &Snapshot, next: &Snapshot, drafts: &mut Vec<Draft>) {
    let differences = [
        (EventKind::Revoked, "revoked", only_in(&previous.assignments, &next.assignments)),
        (EventKind::Assigned, "assigned", only_in(&next.assignments, &previous.assignments)),
    ];
    for (kind, verb, by_topic) in differences {
        for (topic, numbers) in by_topic {
            let message = format!("{} {verb}", counted(numbers.len(), "partition"));
            let data = EventData::Partitions(Partitions::of(&numbers));
            drafts.push(Draft::new(next.taken_at, Severity::Info, kind, message, data).of_partitions(topic, &numbers));
        }
    }
}

/// The assignments that are in `these` and not, under the same epoch, in `those`.
fn only_in<'a>(these: &'a BTreeMap<TopicPartition, u64>, those: &BTreeMap<TopicPartition, u64>) -> BTreeMap<&'a TopicName, Vec<i32>> {
    let mut by_topic: BTreeMap<&TopicName, Vec<i32>> = BTreeMap::new();
    for (partition, epoch) in these {
        if those.get(partition) != Some(epoch) {
            by_topic.entry(&partition.topic).or_default().push(partition.partition);
        }
    }
    by_topic
}

fn add_tasks(previous: &Snapshot, next: &Snapshot, drafts: &mut Vec<Draft>) {
    let mut parked = Parked::default();
    let mut started: BTreeMap<&TopicName, Vec<&Task>> = BTreeMap::new();
    for task in &next.tasks {
        let mark = previous.marks.tasks.get(&TopicPartition::new(task.topic.clone(), task.partition));
        add_lost(mark, task, next.taken_at, drafts);
        add_ends(previous, mark, task, next.taken_at, drafts);
        if let Some(reason) = newly_waiting(previous, task) {
            parked.entry((&task.topic, reason.code)).or_insert_with(|| (reason, Vec::new())).1.push(task.partition);
        }
        if task.incarnation > mark.map_or(0, |mark| mark.incarnation) {
            started.entry(&task.topic).or_default().push(task);
        }
    }
    for (topic, tasks) in started {
        drafts.push(starts(topic, &tasks, next.taken_at));
    }
    for topic in &next.topics {
        if let Some(reason) = newly_waiting_topic(previous, topic) {
            parked.entry((&topic.name, reason.code)).or_insert_with(|| (reason, Vec::new()));
        }
    }
    for ((topic, code), (reason, numbers)) in parked {
        let waiting = if numbers.is_empty() { "the topic waits".to_owned() } else { format!("{} waiting", counted(numbers.len(), "task")) };
        let data = EventData::Parked { partitions: Partitions::of(&numbers), code, remedy: reason.remedy.clone() };
        let message = format!("{waiting}: {}", reason.message);
        drafts.push(Draft::new(next.taken_at, Severity::Warning, EventKind::TaskParked, message, data).of_partitions(topic, &numbers));
    }
}

/// The partitions that began to wait, by topic and reason, with the first one's reason.
type Parked<'a> = BTreeMap<(&'a TopicName, ReasonCode), (&'a Reason, Vec<i32>)>;

fn row<'a>(snapshot: &'a Snapshot, task: &Task) -> Option<&'a Task> {
    // A snapshot's rows are in this order.
    let found = snapshot.tasks.binary_search_by(|row| (&row.topic, row.partition).cmp(&(&task.topic, task.partition)));
    found.ok().and_then(|index| snapshot.tasks.get(index))
}

/// Why a task of this instance waits, if it did not wait for the same before.
fn newly_waiting<'a>(previous: &Snapshot, task: &'a Task) -> Option<&'a Reason> {
    let reason = task.reason.as_ref().filter(|_| task.state == TaskState::Waiting && task.instance.is_some())?;
    let before = row(previous, task).filter(|row| row.state == TaskState::Waiting && row.instance.is_some());
    let is_old = before.and_then(|row| row.reason.as_ref()).is_some_and(|known| known.code == reason.code);
    (!is_old).then_some(reason)
}

/// The same for a topic that has no tasks: Kafka lacks it, or does not let us read it.
fn newly_waiting_topic<'a>(previous: &Snapshot, topic: &'a Topic) -> Option<&'a Reason> {
    let waiting = |topic: &Topic| topic.status.state == TaskState::Waiting && topic.status.tasks.is_empty();
    let reason = topic.status.reason.as_ref().filter(|_| waiting(topic))?;
    let found = previous.topics.binary_search_by(|known| known.name.cmp(&topic.name)).ok();
    let before = found.and_then(|index| previous.topics.get(index)).filter(|known| waiting(known));
    let is_old = before.and_then(|known| known.status.reason.as_ref()).is_some_and(|known| known.code == reason.code);
    (!is_old).then_some(reason)
}

fn starts(topic: &TopicName, tasks: &[&Task], at: Timestamp) -> Draft {
    let numbers: Vec<i32> = tasks.iter().map(|task| task.partition).collect();
    let (message, incarnation) = match tasks {
        [only] => (format!("life {} of the task began", only.incarnation), Some(only.incarnation)),
        _ => (format!("{} started", counted(tasks.len(), "task")), None),
    };
    let data = EventData::Started { partitions: Partitions::of(&numbers), incarnation };
    Draft::new(at, Severity::Info, EventKind::TaskStarted, message, data).of_partitions(topic, &numbers)
}

/// The ends of lives since the mark, and the stalls. A stall may have been seen before its end, or only by it.
fn add_ends(previous: &Snapshot, mark: Option<&TaskMark>, task: &Task, now: Timestamp, drafts: &mut Vec<Draft>) {
    let exits: Vec<&Exit> = new_exits(mark, task, previous.taken_at).collect();
    let is_stalled = task.state == TaskState::Stalled;
    if exits.is_empty() && !is_stalled {
        return;
    }
    let mut is_stall_told = row(previous, task).is_some_and(|row| row.state == TaskState::Stalled);
    for (index, exit) in exits.iter().enumerate().rev() {
        if exit.cause == ExitCause::Stalled && !is_stall_told {
            drafts.push(stalled(task, exit.at));
        }
        is_stall_told = false;
        let gave_up = index == 0 && task.state == TaskState::Failed;
        drafts.push(exited(task, exit, gave_up));
    }
    if is_stalled && !is_stall_told {
        drafts.push(stalled(task, now));
    }
}

/// The ends that are newer than the mark, newest first. At first sight old ends come out of the ledger, and only young ones are news.
fn new_exits<'a>(mark: Option<&'a TaskMark>, task: &'a Task, first_sight: Timestamp) -> impl Iterator<Item = &'a Exit> {
    let newest_known = mark.and_then(|mark| mark.newest_exit.as_ref());
    let has_lived = mark.is_some_and(|mark| mark.incarnation > 0);
    let is_young = move |exit: &Exit| exit.at.duration_since(first_sight) >= -VIEW_LAG;
    let unknown = task.recent_exits.iter().take_while(move |exit| newest_known != Some(*exit));
    unknown.filter(move |exit| newest_known.is_some() || has_lived || is_young(exit))
}

fn exited(task: &Task, exit: &Exit, gave_up: bool) -> Draft {
    let severity = match exit.cause {
        _ if gave_up => Severity::Error,
        ExitCause::Requested | ExitCause::Cancelled => Severity::Info,
        ExitCause::Completed | ExitCause::Error | ExitCause::Panicked | ExitCause::Stalled => Severity::Warning,
    };
    let message =
        if gave_up { format!("the task gave up and is not started again: it {}", ending(exit)) } else { format!("the task {}", ending(exit)) };
    let data = EventData::Exited { cause: exit.cause, offset: exit.offset, restarts_total: task.restarts_total };
    Draft::new(exit.at, severity, EventKind::TaskExited, message, data).of_task(task)
}

/// How a life ended, as the tail of a sentence.
fn ending(exit: &Exit) -> String {
    let place = exit.offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default();
    format!("ended ({}{place}): {}", exit.cause.as_str(), exit.message)
}

fn stalled(task: &Task, at: Timestamp) -> Draft {
    let message = "the task had work and made no progress".to_owned();
    let data = EventData::Stalled { position: task.position, committed: task.committed };
    Draft::new(at, Severity::Error, EventKind::TaskStalled, message, data).of_task(task)
}

fn add_lost(mark: Option<&TaskMark>, task: &Task, now: Timestamp, drafts: &mut Vec<Draft>) {
    let newest_known = mark.and_then(|mark| mark.newest_lost.as_ref());
    let mut unlisted = task.lost_total.saturating_sub(mark.map_or(0, |mark| mark.lost_total));
    for range in task.lost.iter().rev().take_while(|range| newest_known != Some(*range)) {
        let records = u64::try_from(range.to.saturating_sub(range.from)).unwrap_or(0);
        unlisted = unlisted.saturating_sub(records);
        let message =
            format!("Kafka removed {} before they were read: offsets {} to {}", counted_u64(records), range.from, range.to.saturating_sub(1));
        let data = EventData::Lost { from: Some(range.from), to: Some(range.to), records };
        drafts.push(Draft::new(range.at, Severity::Error, EventKind::RecordsLost, message, data).of_task(task));
    }
    if unlisted > 0 {
        let message = format!("Kafka removed {} before they were read, in ranges that are not listed any more", counted_u64(unlisted));
        let data = EventData::Lost { from: None, to: None, records: unlisted };
        drafts.push(Draft::new(now, Severity::Error, EventKind::RecordsLost, message, data).of_task(task));
    }
}

/// Counters are told when their marks rise, which is at most once a minute.
fn add_counters(previous: &Snapshot, next: &Snapshot, drafts: &mut Vec<Draft>) {
    for (topic, told) in &next.marks.skipped {
        let before = previous.marks.skipped.get(topic).map_or(0, |told| told.total);
        if told.total > before {
            let records = told.total - before;
            let message = format!("{} skipped by the topic's policy", counted_u64(records));
            let data = EventData::Skipped { records, skipped_total: told.total };
            drafts.push(Draft::new(next.taken_at, Severity::Info, EventKind::RecordsSkipped, message, data).of_topic(topic));
        }
    }
    for (invariant, told) in &next.marks.invariants {
        let before = previous.marks.invariants.get(invariant).map_or(0, |told| told.total);
        if told.total > before {
            let message = format!("what must never happen did: {invariant}; please report it with the log");
            let data = EventData::Invariant { invariant: invariant.clone(), count: told.total };
            drafts.push(Draft::new(next.taken_at, Severity::Error, EventKind::InvariantViolated, message, data));
        }
    }
}

/// Makes one event of each kind that has more than [`MANY`], so that no storm pushes everything else out of the log. The rows still show each case.
fn fold(drafts: Vec<Draft>) -> Vec<Draft> {
    let mut by_kind: BTreeMap<EventKind, usize> = BTreeMap::new();
    for draft in &drafts {
        *by_kind.entry(draft.kind).or_default() += 1;
    }
    by_kind.retain(|_, count| *count > MANY);
    if by_kind.is_empty() {
        return drafts;
    }
    let (many, mut few): (Vec<Draft>, Vec<Draft>) = drafts.into_iter().partition(|draft| by_kind.contains_key(&draft.kind));
    for kind in by_kind.into_keys() {
        let same: Vec<&Draft> = many.iter().filter(|draft| draft.kind == kind).collect();
        few.extend(folded(kind, &same));
    }
    few.sort_by_key(|draft| draft.at);
    few
}

fn folded(kind: EventKind, same: &[&Draft]) -> Option<Draft> {
    let (first, last) = (same.first()?, same.last()?);
    let topics = same.iter().filter_map(|draft| draft.topic.as_ref()).collect::<BTreeSet<_>>().len();
    let severity = same.iter().map(|draft| draft.severity).max()?;
    let place = first.topic.as_ref().map(|topic| format!("{topic}: ")).unwrap_or_default();
    let message = format!("{} events of this kind at once; the first: {place}{}", same.len(), first.message);
    Some(Draft::new(last.at, severity, kind, message, EventData::Many { events: same.len(), topics }))
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn counted_u64(records: u64) -> String {
    if records == 1 { "1 record".to_owned() } else { format!("{records} records") }
}
