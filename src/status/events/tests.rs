use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::marks;
use super::*;
use crate::status::derive::{self, PartitionInput, SlotInput, TaskInput, TopicInput};
use crate::status::series::Series;
use crate::status::{
    Component, Exit, Health, LastMinute, LostRange, Memory, Reason, Recreation, SinkTotals, Source, SourceError, Task, TaskState, Topic,
};
use crate::topic::{Format, SourceRef, SpecFields, TopicPartition};

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a legal time")
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("a topic name")
}

fn exit(second: i64, cause: ExitCause) -> Exit {
    Exit { at: at(second), cause, message: "boom".to_owned(), offset: Some(41) }
}

fn reason(code: ReasonCode) -> Reason {
    Reason { code, message: "it is not there".to_owned(), remedy: "bring it back".to_owned(), since_at: at(NOW - 5) }
}

/// A running task of this instance in its first life.
fn task(topic: &str, partition: i32) -> Task {
    let slot = SlotInput {
        state: TaskState::Running,
        since_at: at(NOW - 100),
        incarnation: 1,
        restarts_total: 0,
        restarts_by_cause: BTreeMap::new(),
        consecutive_failures: 0,
        next_restart_at: None,
        last_exit: None,
        recent_exits: Vec::new(),
        failure: None,
    };
    let input = TaskInput {
        topic: name(topic),
        partition,
        instance: "host-1".to_owned(),
        previous: None,
        slot: Some(slot),
        progress: None,
        assignment: Some(PartitionInput::default()),
        kafka_trouble: None,
        sink_trouble: None,
        paused_at: None,
        records_per_second: 0.0,
    };
    derive::task(input, at(NOW))
}

/// The row that is left when the partition is elsewhere.
fn away(topic: &str, partition: i32) -> Task {
    Task { instance: None, state: TaskState::Unassigned, incarnation: 0, lost_total: 0, ..task(topic, partition) }
}

fn topic(text: &str) -> Topic {
    let input = TopicInput {
        name: name(text),
        spec: TopicSpec::default(),
        overrides: SpecFields::default(),
        spec_origin: BTreeMap::new(),
        sources: vec![SourceRef { kind: SourceKind::File, detail: None, key: None, revision: None }],
        paused: None,
        partitions: None,
        missing: None,
        last_minute: LastMinute::default(),
    };
    derive::topic(input, &[])
}

fn source(status: SourceStatus) -> Source {
    let error = (status == SourceStatus::Error).then(|| SourceError { message: "malformed".to_owned(), line: Some(3), since_at: at(NOW) });
    let detail = Some("config.yaml".to_owned());
    Source { kind: SourceKind::File, detail, status, topics: 2, revision: None, content_hash: None, read_at: None, changed_at: None, error }
}

fn consumer(restarts_total: u64) -> Component {
    Component {
        name: CONSUMER.to_owned(),
        state: TaskState::Running,
        health: Health::Ok,
        reason: None,
        since_at: at(NOW),
        restarts_total,
        last_exit: (restarts_total > 0).then(|| exit(NOW, ExitCause::Error)),
    }
}

/// A snapshot whose marks cover its tasks, as if it had been seen for a while.
fn with_tasks(tasks: Vec<Task>) -> Snapshot {
    let mut snapshot = Snapshot {
        taken_at: at(NOW),
        topics: Vec::new(),
        tasks,
        last_version: 0,
        sources: Vec::new(),
        components: vec![consumer(0)],
        memory: Memory { limit_bytes: 0, prefetch_bytes: 0, in_flight_bytes: 0, peak_bytes: 0 },
        sink: SinkTotals::default(),
        dead_letters_bytes: 0,
        dead_letters_max_bytes: 100,
        invariant_violations: BTreeMap::new(),
        needs_restart: Vec::new(),
        warnings: Vec::new(),
        store_revision: 0,
        first_list: true,
        draining: false,
        assignments: BTreeMap::new(),
        recreations: BTreeMap::new(),
        marks: Arc::default(),
        events: EventLog::new(at(NOW)),
        series: Series::default(),
    };
    snapshot.marks = marks::after(&snapshot.marks, &snapshot);
    snapshot
}

fn with_topics(topics: Vec<Topic>) -> Snapshot {
    Snapshot { topics, ..with_tasks(Vec::new()) }
}

/// The snapshot half a second later, after a change.
fn later(previous: &Snapshot, change: impl FnOnce(&mut Snapshot)) -> Snapshot {
    let mut next = previous.clone();
    next.taken_at = previous.taken_at + SignedDuration::from_millis(500);
    change(&mut next);
    follow(previous, &mut next, "host-1");
    next
}

/// What happened between the snapshot before and this one.
fn news(previous: &Snapshot, next: &Snapshot) -> Vec<Event> {
    next.events.events().iter().filter(|event| event.seq > previous.events.last_seq()).map(|event| Event::clone(event)).collect()
}

/// What a change leads to.
fn events(previous: &Snapshot, change: impl FnOnce(&mut Snapshot)) -> Vec<Event> {
    news(previous, &later(previous, change))
}

#[track_caller]
fn only(events: Vec<Event>, kind: EventKind) -> Event {
    assert_eq!(kinds(&events), [kind], "{events:#?}");
    events.into_iter().next().expect("one event")
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

fn partitions(numbers: &[i32]) -> Partitions {
    Partitions { partitions: numbers.to_vec(), count: numbers.len() }
}

fn key(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(name(topic), partition)
}

#[test]
fn a_first_start_is_told() {
    let event = only(events(&with_tasks(Vec::new()), |next| next.tasks = vec![task("a", 3)]), EventKind::TaskStarted);
    assert_eq!((event.topic, event.partition, event.severity), (Some(name("a")), Some(3), Severity::Info));
    assert_eq!(event.data, EventData::Started { partitions: partitions(&[3]), incarnation: Some(1) });
}

#[test]
fn starts_of_many_partitions_are_one_event_per_topic() {
    let news = events(&with_tasks(Vec::new()), |next| {
        next.tasks = (0..5000).map(|partition| task("a", partition)).chain([task("b", 0), task("b", 1)]).collect();
    });
    assert_eq!(kinds(&news), [EventKind::TaskStarted, EventKind::TaskStarted]);
    assert_eq!((news[0].partition, news[1].partition), (None, None));
    assert_eq!(news[0].message, "5000 tasks started");
    assert!(
        matches!(&news[0].data, EventData::Started { partitions, incarnation: None } if partitions.count == 5000 && partitions.partitions.len() == 1000)
    );
    assert_eq!(news[1].data, EventData::Started { partitions: partitions(&[0, 1]), incarnation: None });
}

#[test]
fn a_crash_and_a_restart_between_two_snapshots_are_both_seen() {
    let news = events(&with_tasks(vec![task("a", 0)]), |next| {
        next.tasks[0].incarnation = 3;
        next.tasks[0].recent_exits = vec![exit(NOW + 2, ExitCause::Error), exit(NOW + 1, ExitCause::Panicked)];
    });
    let exits: Vec<&Event> = news.iter().filter(|event| event.kind == EventKind::TaskExited).collect();
    assert_eq!(news.len(), 3, "{news:#?}");
    assert_eq!(exits.iter().map(|event| event.at).collect::<Vec<_>>(), [at(NOW + 1), at(NOW + 2)]);
    assert_eq!(exits[0].data, EventData::Exited { cause: ExitCause::Panicked, offset: Some(41), restarts_total: 0 });
    assert_eq!((exits[0].severity, exits[0].message.as_str()), (Severity::Warning, "the task ended (panicked at offset 41): boom"));
}

#[test]
fn a_task_that_gave_up_is_an_error() {
    let event = only(
        events(&with_tasks(vec![task("a", 0)]), |next| {
            next.tasks[0].state = TaskState::Failed;
            next.tasks[0].recent_exits = vec![exit(NOW, ExitCause::Error)];
        }),
        EventKind::TaskExited,
    );
    assert_eq!(event.severity, Severity::Error);
    assert!(event.message.contains("gave up"), "{}", event.message);
}

#[test]
fn an_end_that_an_operator_asked_for_is_no_warning() {
    let change = |next: &mut Snapshot| next.tasks[0].recent_exits = vec![exit(NOW, ExitCause::Requested)];
    assert_eq!(only(events(&with_tasks(vec![task("a", 0)]), change), EventKind::TaskExited).severity, Severity::Info);
}

#[test]
fn ends_of_an_earlier_process_are_not_told_again() {
    let mut old = task("a", 0);
    old.recent_exits = vec![exit(NOW - 3600, ExitCause::Panicked)];
    assert_eq!(kinds(&events(&with_tasks(Vec::new()), |next| next.tasks = vec![old])), [EventKind::TaskStarted]);
}

#[test]
fn a_task_that_crashed_before_it_was_first_seen_is_told() {
    let mut new = task("a", 0);
    new.recent_exits = vec![exit(NOW, ExitCause::Panicked), exit(NOW - 3600, ExitCause::Error)];
    let news = events(&with_tasks(Vec::new()), |next| next.tasks = vec![new]);
    assert_eq!(kinds(&news), [EventKind::TaskExited, EventKind::TaskStarted]);
}

#[test]
fn a_clock_that_was_set_back_hides_no_end() {
    let mut crashed = task("a", 0);
    crashed.recent_exits = vec![exit(NOW, ExitCause::Panicked)];
    let change = |next: &mut Snapshot| next.tasks[0].recent_exits.insert(0, exit(NOW - 7200, ExitCause::Error));
    assert_eq!(only(events(&with_tasks(vec![crashed]), change), EventKind::TaskExited).at, at(NOW - 7200));
}

#[test]
fn a_partition_that_comes_back_brings_no_old_news() {
    let mut busy = task("a", 0);
    busy.incarnation = 4;
    busy.recent_exits = vec![exit(NOW, ExitCause::Panicked)];
    busy.lost = vec![LostRange { from: 0, to: 3, at: at(NOW) }];
    busy.lost_total = 3;
    busy.skipped_total = 7;
    let here = with_tasks(vec![busy.clone()]);
    let gone = later(&here, |next| next.tasks = vec![away("a", 0)]);
    let back = later(&gone, |next| next.tasks = vec![busy.clone()]);
    assert_eq!(news(&gone, &back), []);
    busy.incarnation = 5;
    busy.lost.push(LostRange { from: 9, to: 10, at: at(NOW + 1) });
    busy.lost_total = 4;
    let onward = events(&back, |next| next.tasks = vec![busy]);
    assert_eq!(kinds(&onward), [EventKind::RecordsLost, EventKind::TaskStarted]);
}

#[test]
fn a_stall_is_told_once_whether_or_not_a_snapshot_shows_it() {
    let well = with_tasks(vec![task("a", 0)]);
    let seen = later(&well, |next| next.tasks[0].state = TaskState::Stalled);
    assert_eq!(only(news(&well, &seen), EventKind::TaskStalled).severity, Severity::Error);
    let ended = |next: &mut Snapshot| {
        next.tasks[0].state = TaskState::Backoff;
        next.tasks[0].recent_exits = vec![exit(NOW, ExitCause::Stalled)];
    };
    assert_eq!(kinds(&events(&seen, ended)), [EventKind::TaskExited]);
    assert_eq!(kinds(&events(&well, ended)), [EventKind::TaskStalled, EventKind::TaskExited]);
    let stays = later(&seen, |next| next.tasks[0].lag = Some(9));
    assert_eq!(news(&seen, &stays), []);
    let stalls_again = events(&stays, |next| next.tasks[0].recent_exits = vec![exit(NOW, ExitCause::Requested)]);
    assert_eq!(kinds(&stalls_again), [EventKind::TaskExited, EventKind::TaskStalled]);
}

#[test]
fn waiting_tasks_are_one_event_per_topic_and_reason() {
    let parked = |next: &mut Snapshot| {
        for (index, row) in next.tasks.iter_mut().enumerate() {
            row.state = TaskState::Waiting;
            row.reason = Some(reason(if index == 2 { ReasonCode::IndexClosed } else { ReasonCode::SinkUnreachable }));
        }
    };
    let well = with_tasks(vec![task("a", 0), task("a", 1), task("a", 2)]);
    let waiting = later(&well, parked);
    let first = news(&well, &waiting);
    assert_eq!(kinds(&first), [EventKind::TaskParked, EventKind::TaskParked]);
    let remedy = "bring it back".to_owned();
    assert_eq!(first[0].data, EventData::Parked { partitions: partitions(&[0, 1]), code: ReasonCode::SinkUnreachable, remedy });
    assert_eq!((first[1].partition, first[1].message.as_str()), (Some(2), "1 task waiting: it is not there"));

    assert_eq!(events(&waiting, |next| next.tasks[0].reason.as_mut().expect("a reason").message = "still".to_owned()), []);
    let other = |next: &mut Snapshot| next.tasks[0].reason = Some(reason(ReasonCode::Credentials));
    assert_eq!(only(events(&waiting, other), EventKind::TaskParked).partition, Some(0));
}

#[test]
fn a_partition_of_nobody_does_not_wait() {
    let unassigned = |next: &mut Snapshot| {
        next.tasks[0] = Task { state: TaskState::Waiting, reason: Some(reason(ReasonCode::KafkaUnreachable)), ..away("a", 0) };
    };
    assert_eq!(events(&with_tasks(vec![away("a", 0)]), unassigned), []);
}

#[test]
fn a_topic_that_kafka_lacks_is_told_once() {
    let before = with_topics(vec![topic("a")]);
    let missing = later(&before, |next| next.topics[0].status.reason = Some(reason(ReasonCode::TopicMissing)));
    let event = only(news(&before, &missing), EventKind::TaskParked);
    assert_eq!((event.topic, event.partition, event.message.as_str()), (Some(name("a")), None, "the topic waits: it is not there"));
    assert_eq!(events(&missing, |_| ()), []);
}

#[test]
fn each_lost_range_is_told_with_its_own_time() {
    let range = |from: i64, second: i64| LostRange { from, to: from + 2, at: at(second) };
    let mut known = task("a", 0);
    known.lost = vec![range(0, NOW - 9)];
    known.lost_total = 2;
    let news = events(&with_tasks(vec![known]), |next| {
        next.tasks[0].lost.extend([range(10, NOW + 1), range(20, NOW + 2)]);
        next.tasks[0].lost_total = 6;
    });
    assert_eq!(kinds(&news), [EventKind::RecordsLost, EventKind::RecordsLost]);
    assert_eq!((news[0].at, news[1].at, news[0].severity), (at(NOW + 1), at(NOW + 2), Severity::Error));
    assert_eq!(news[0].data, EventData::Lost { from: Some(10), to: Some(12), records: 2 });
    assert_eq!(news[0].message, "Kafka removed 2 records before they were read: offsets 10 to 11");
}

#[test]
fn lost_ranges_that_are_not_listed_any_more_are_counted() {
    let event = only(events(&with_tasks(vec![task("a", 0)]), |next| next.tasks[0].lost_total = 5), EventKind::RecordsLost);
    assert_eq!(event.data, EventData::Lost { from: None, to: None, records: 5 });
}

#[test]
fn a_stream_of_tombstones_is_told_once_a_minute_with_the_sum() {
    let mut snapshot = with_tasks(vec![task("a", 0), task("a", 1)]);
    let mut told = Vec::new();
    for _ in 0..121 {
        let next = later(&snapshot, |next| {
            next.tasks[0].skipped_total += 1;
            next.tasks[1].skipped_total += 2;
        });
        told.extend(news(&snapshot, &next));
        snapshot = next;
    }
    assert_eq!(kinds(&told), [EventKind::RecordsSkipped, EventKind::RecordsSkipped]);
    assert_eq!(told[0].data, EventData::Skipped { records: 3, skipped_total: 3 });
    assert_eq!(told[1].data, EventData::Skipped { records: 360, skipped_total: 363 });
    assert_eq!(told[0].partition, None);
}

#[test]
fn what_was_skipped_last_is_told_although_nothing_follows() {
    let first = later(&with_tasks(vec![task("a", 0)]), |next| next.tasks[0].skipped_total = 1);
    let second = later(&first, |next| next.tasks[0].skipped_total = 2);
    assert_eq!(news(&first, &second), []);
    let minute = events(&second, |next| next.taken_at = first.taken_at + SignedDuration::from_secs(60));
    assert_eq!(only(minute, EventKind::RecordsSkipped).data, EventData::Skipped { records: 1, skipped_total: 2 });
}

#[test]
fn a_topic_that_was_recreated_while_nothing_ran_is_told() {
    let recreation = Recreation { before: "X".to_owned(), after: "Y".to_owned(), at: at(NOW - 1) };
    let first = later(&with_topics(Vec::new()), |next| {
        next.recreations.insert(name("a"), recreation.clone());
    });
    let event = only(news(&with_topics(Vec::new()), &first), EventKind::TopicRecreated);
    assert_eq!((event.at, event.severity), (at(NOW - 1), Severity::Warning));
    assert_eq!(event.data, EventData::Recreated { before: "X".to_owned(), after: "Y".to_owned() });
    let again = events(&first, |next| {
        next.recreations.insert(name("a"), Recreation { before: "Y".to_owned(), after: "Z".to_owned(), at: at(NOW + 1) });
    });
    assert_eq!(kinds(&again), [EventKind::TopicRecreated]);
}

#[test]
fn topics_that_come_go_and_change_are_told() {
    let before = with_topics(vec![topic("changed"), topic("removed"), topic("same")]);
    let news = events(&before, |next| {
        next.topics[0].spec.format = Format::Classic;
        next.topics.remove(1);
        next.topics.insert(0, topic("added"));
    });
    let told: Vec<(EventKind, &str)> = news.iter().map(|event| (event.kind, event.topic.as_ref().map_or("", TopicName::as_str))).collect();
    assert_eq!(told, [(EventKind::TopicRemoved, "removed"), (EventKind::TopicAdded, "added"), (EventKind::TopicChanged, "changed")]);
    assert_eq!(news[1].data, EventData::Added { sources: vec![SourceKind::File] });
    let EventData::Changed { fields, before, after } = &news[2].data else { panic!("{:?}", news[2]) };
    assert_eq!((fields.as_slice(), before.spec.format, after.spec.format), (["format"].as_slice(), Format::Auto, Format::Classic));
    assert_eq!(news[2].message, "the topic's format changed");
}

#[test]
fn the_first_list_adds_no_topic() {
    let before = Snapshot { first_list: false, ..with_topics(Vec::new()) };
    let first = later(&before, |next| {
        next.first_list = true;
        next.topics = vec![topic("a")];
    });
    assert_eq!(news(&before, &first), []);
}

#[test]
fn a_pause_is_a_change_of_the_topic() {
    let pause = Pause { reason: None, actor: "ann".to_owned(), since_at: at(NOW), until_at: None };
    let before = with_topics(vec![topic("a")]);
    let paused = later(&before, |next| next.topics[0].paused = Some(pause));
    let event = only(news(&before, &paused), EventKind::TopicChanged);
    assert_eq!(event.message, "the topic is paused by ann");
    assert!(matches!(&event.data, EventData::Changed { fields, .. } if fields.as_slice() == ["paused"]));
    assert_eq!(only(events(&paused, |next| next.topics[0].paused = None), EventKind::TopicChanged).message, "the topic is not paused any more");
}

#[test]
fn a_source_that_fails_and_recovers_is_told() {
    let well = Snapshot { sources: vec![source(SourceStatus::Ok)], ..with_topics(Vec::new()) };
    let failed = later(&well, |next| next.sources = vec![source(SourceStatus::Error)]);
    let event = only(news(&well, &failed), EventKind::SourceFailed);
    let detail = Some("config.yaml".to_owned());
    assert_eq!(event.data, EventData::Source { source: SourceKind::File, detail, status: SourceStatus::Error, line: Some(3) });
    assert_eq!(event.severity, Severity::Warning);
    assert!(event.message.ends_with("malformed"), "{}", event.message);
    assert_eq!(kinds(&events(&failed, |next| next.sources = vec![source(SourceStatus::Ok)])), [EventKind::SourceRecovered]);
}

#[test]
fn a_source_that_is_broken_from_the_start_is_told_and_a_good_one_is_no_recovery() {
    let nothing = with_topics(Vec::new());
    assert_eq!(kinds(&events(&nothing, |next| next.sources = vec![source(SourceStatus::Stale)])), [EventKind::SourceFailed]);
    assert_eq!(events(&nothing, |next| next.sources = vec![source(SourceStatus::Ok)]), []);
    let failed = later(&nothing, |next| next.sources = vec![source(SourceStatus::Error)]);
    assert_eq!(events(&failed, |next| next.sources = vec![source(SourceStatus::Disabled)]), []);
}

#[test]
fn assignments_are_one_event_per_topic() {
    let before = Snapshot { assignments: BTreeMap::from([(key("a", 0), 1), (key("a", 1), 2), (key("b", 0), 3)]), ..with_topics(Vec::new()) };
    let news = events(&before, |next| next.assignments = BTreeMap::from([(key("b", 0), 3), (key("c", 0), 4), (key("c", 1), 5)]));
    assert_eq!(kinds(&news), [EventKind::Revoked, EventKind::Assigned]);
    assert_eq!((news[0].topic.as_ref(), news[1].topic.as_ref()), (Some(&name("a")), Some(&name("c"))));
    assert_eq!(news[0].data, EventData::Partitions(partitions(&[0, 1])));
    assert_eq!(news[1].data, EventData::Partitions(partitions(&[0, 1])));
    assert_eq!((news[1].partition, news[1].message.as_str()), (None, "2 partitions assigned"));
}

#[test]
fn a_partition_that_was_away_between_two_snapshots_is_revoked_and_assigned() {
    let before = Snapshot { assignments: BTreeMap::from([(key("a", 0), 1)]), ..with_topics(Vec::new()) };
    let news = events(&before, |next| next.assignments = BTreeMap::from([(key("a", 0), 2)]));
    assert_eq!(kinds(&news), [EventKind::Revoked, EventKind::Assigned]);
    assert_eq!(news[0].partition, Some(0));
}

#[test]
fn a_consumer_that_was_started_again_is_told() {
    let event = only(events(&with_topics(Vec::new()), |next| next.components = vec![consumer(2)]), EventKind::ConsumerRebuilt);
    assert_eq!(event.data, EventData::Rebuilt { restarts_total: 2, cause: Some(ExitCause::Error) });
    assert!(event.message.ends_with("boom"), "{}", event.message);
    assert_eq!(events(&with_topics(Vec::new()), |next| next.components = Vec::new()), []);
}

#[test]
fn a_store_is_nearly_full_from_four_fifths_on_and_once() {
    let before = with_topics(Vec::new());
    assert_eq!(events(&before, |next| next.dead_letters_bytes = 79), []);
    let nearly = later(&before, |next| next.dead_letters_bytes = 80);
    assert_eq!(only(news(&before, &nearly), EventKind::DeadLettersNearlyFull).data, EventData::DeadLetters { bytes: 80, max_bytes: 100 });
    assert_eq!(events(&nearly, |next| next.dead_letters_bytes = 100), []);
    let unknown = Snapshot { dead_letters_max_bytes: 0, ..with_topics(Vec::new()) };
    assert_eq!(events(&unknown, |next| next.dead_letters_bytes = 1), []);
}

#[test]
fn a_store_that_is_nearly_full_at_the_start_is_told() {
    let before = Snapshot { dead_letters_max_bytes: 0, ..with_topics(Vec::new()) };
    let start = |next: &mut Snapshot| (next.dead_letters_bytes, next.dead_letters_max_bytes) = (u64::MAX, u64::MAX);
    assert_eq!(kinds(&events(&before, start)), [EventKind::DeadLettersNearlyFull]);
}

#[test]
fn a_violated_invariant_is_an_error() {
    let before = with_topics(Vec::new());
    let violated = later(&before, |next| {
        next.invariant_violations.insert("watermark".to_owned(), 1);
    });
    let event = only(news(&before, &violated), EventKind::InvariantViolated);
    assert_eq!((event.severity, event.data), (Severity::Error, EventData::Invariant { invariant: "watermark".to_owned(), count: 1 }));
    let again = |next: &mut Snapshot| {
        next.invariant_violations.insert("watermark".to_owned(), 3);
    };
    assert_eq!(events(&violated, again), []);
    let minute = later(&violated, |next| next.taken_at = violated.taken_at + SignedDuration::from_secs(61));
    assert_eq!(kinds(&events(&minute, again)), [EventKind::InvariantViolated]);
}

#[test]
fn a_storm_does_not_push_everything_else_out_of_the_log() {
    let tasks: Vec<Task> = (0..50).flat_map(|topic| (0..4).map(move |partition| task(&format!("t{topic:02}"), partition))).collect();
    let before = Snapshot { sources: vec![source(SourceStatus::Ok)], ..with_tasks(tasks) };
    let news = events(&before, |next| {
        next.sources = vec![source(SourceStatus::Error)];
        for row in &mut next.tasks {
            row.recent_exits = vec![exit(NOW + 1, ExitCause::Panicked)];
        }
        next.tasks[7].state = TaskState::Failed;
    });
    assert_eq!(kinds(&news), [EventKind::SourceFailed, EventKind::TaskExited]);
    assert_eq!((news[1].severity, &news[1].topic, &news[1].data), (Severity::Error, &None, &EventData::Many { events: 200, topics: 50 }));
    assert!(news[1].message.contains("t00: the task ended (panicked at offset 41): boom"), "{}", news[1].message);
}

#[test]
fn the_log_keeps_the_newest_and_its_numbers_never_repeat() {
    let draft = |number: usize| Draft {
        at: at(NOW),
        severity: Severity::Info,
        kind: EventKind::TopicRemoved,
        topic: None,
        partition: None,
        message: number.to_string(),
        data: EventData::Nothing {},
    };
    let empty = EventLog::new(at(NOW));
    let log = (0..KEPT_EVENTS + 5).fold(empty.clone(), |log, number| log.with(vec![draft(number)], "host-1"));
    assert_eq!((log.events().len(), log.last_seq(), empty.events().len()), (KEPT_EVENTS, 1005, 0));
    let newest = log.events().last().expect("events");
    assert_eq!((newest.id.as_str(), newest.message.as_str()), (format!("{}-1005", log.epoch()).as_str(), "1004"));
    assert_eq!(log.events().first().map(|event| event.seq), Some(6));
    assert_eq!(EventLog::new(Timestamp::UNIX_EPOCH).epoch(), "0");
    assert_eq!(EventLog::new(at(36)).epoch(), "rs0");
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let mut crashed = task("a", 0);
    crashed.recent_exits = vec![Exit { message: "日".repeat(5000), ..exit(NOW, ExitCause::Panicked) }];
    let event = only(events(&with_tasks(vec![task("a", 0)]), |next| next.tasks = vec![crashed]), EventKind::TaskExited);
    assert_eq!(event.message.chars().count(), MAX_MESSAGE + 1);
    assert!(event.message.ends_with('…'));
}

#[test]
fn codes_on_the_wire_are_the_documented_ones() {
    for kind in EventKind::ALL {
        assert_eq!(serde_json::to_value(kind).expect("a text"), kind.as_str());
    }
    for severity in Severity::ALL {
        assert_eq!(serde_json::to_value(severity).expect("a text"), severity.as_str());
    }
    let started = EventData::Started { partitions: partitions(&[1]), incarnation: None };
    assert_eq!(serde_json::to_value(started).expect("an object"), serde_json::json!({"partitions": [1], "count": 1, "incarnation": null}));
    assert_eq!(serde_json::to_value(EventData::Nothing {}).expect("an object"), serde_json::json!({}));
}

/// A row that may be in any state, with any history.
fn any_task(partition: i32) -> impl Strategy<Value = Task> {
    let state = prop_oneof![
        Just(TaskState::Running),
        Just(TaskState::Waiting),
        Just(TaskState::Stalled),
        Just(TaskState::Failed),
        Just(TaskState::Unassigned)
    ];
    let cause = prop_oneof![Just(ExitCause::Panicked), Just(ExitCause::Stalled), Just(ExitCause::Requested)];
    let exits = proptest::collection::vec((NOW - 2..NOW + 2, cause), 0..3);
    (state, 0..3_u64, exits, 0..3_i64, 0..3_u64, any::<bool>()).prop_map(move |(state, incarnation, exits, lost, skipped, is_ours)| Task {
        state,
        incarnation,
        instance: is_ours.then(|| "host-1".to_owned()),
        reason: (state == TaskState::Waiting).then(|| reason(ReasonCode::SinkSlow)),
        recent_exits: exits.into_iter().map(|(second, cause)| exit(second, cause)).collect(),
        lost: (0..lost).map(|from| LostRange { from, to: from + 1, at: at(NOW) }).collect(),
        lost_total: u64::try_from(lost).unwrap_or(0) * 2,
        skipped_total: skipped,
        ..task("a", partition)
    })
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let status = prop_oneof![Just(SourceStatus::Ok), Just(SourceStatus::Error), Just(SourceStatus::Stale)];
    let tasks = (any_task(0), any_task(1), any_task(2));
    (tasks, status, 0..101_u64, 0..3_u64, any::<bool>(), proptest::collection::btree_map(0..3_i32, 0..3_u64, 0..3)).prop_map(
        |(tasks, status, bytes, violations, first_list, assigned)| Snapshot {
            sources: vec![source(status)],
            topics: vec![topic("a"), topic("b")],
            components: vec![consumer(violations)],
            dead_letters_bytes: bytes,
            invariant_violations: BTreeMap::from([("watermark".to_owned(), violations)]),
            assignments: assigned.into_iter().map(|(partition, epoch)| (key("a", partition), epoch)).collect(),
            first_list,
            ..with_tasks(vec![tasks.0, tasks.1, tasks.2])
        },
    )
}

proptest! {
    #[test]
    fn nothing_happens_between_a_snapshot_and_itself(first in any_snapshot(), second in any_snapshot()) {
        let seen = later(&first, |next| *next = Snapshot { taken_at: next.taken_at, events: next.events.clone(), ..second });
        prop_assert_eq!(between(&seen, &seen), Vec::new());
    }

    #[test]
    fn events_are_told_in_order_of_time_and_numbered_without_gaps(first in any_snapshot(), second in any_snapshot()) {
        let next = later(&first, |next| *next = Snapshot { taken_at: next.taken_at, events: next.events.clone(), ..second });
        let news = news(&first, &next);
        prop_assert!(news.is_sorted_by_key(|event| event.at));
        let ids: Vec<String> = news.iter().map(|event| event.id.clone()).collect();
        let expected: Vec<String> = (1..=news.len()).map(|seq| format!("{}-{seq}", next.events.epoch())).collect();
        prop_assert_eq!(ids, expected);
    }
}
