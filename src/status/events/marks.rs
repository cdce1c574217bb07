//! What has been told: marks that only rise, kept while a partition is elsewhere.
//!
//! A row loses its counts and its ends when its partition leaves this instance, and has them again when it returns. The marks stay, so that what returns is not news. They are never
//! dropped: there is one for each partition that this process has ever had, as in the supervisor.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::status::{Exit, LostRange, Snapshot, Task};
use crate::topic::{TopicName, TopicPartition};

/// What may go on without end, such as tombstones, is told at most this often; the next event has the sum.
const TELL_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// What has been told of every partition and counter. Carried from one snapshot to the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Marks {
    pub(super) tasks: BTreeMap<TopicPartition, TaskMark>,
    /// Records skipped by policy, per topic.
    pub(super) skipped: BTreeMap<TopicName, Told>,
    /// Violations by the invariant's name.
    pub(super) invariants: BTreeMap<String, Told>,
}

/// The highest and newest of everything that a partition's rows have shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TaskMark {
    pub(super) incarnation: u64,
    pub(super) newest_exit: Option<Exit>,
    pub(super) newest_lost: Option<LostRange>,
    pub(super) lost_total: u64,
    skipped_total: u64,
}

/// What the last event about a counter said, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) total: u64,
    at: Timestamp,
}

impl TaskMark {
    fn covers(&self, task: &Task) -> bool {
        let is_known_exit = task.recent_exits.first().is_none_or(|newest| self.newest_exit.as_ref() == Some(newest));
        let is_known_range = task.lost.last().is_none_or(|newest| self.newest_lost.as_ref() == Some(newest));
        is_known_exit
            && is_known_range
            && self.incarnation >= task.incarnation
            && self.lost_total >= task.lost_total
            && self.skipped_total >= task.skipped_total
    }

    fn raise(&mut self, task: &Task) {
        self.incarnation = self.incarnation.max(task.incarnation);
        self.lost_total = self.lost_total.max(task.lost_total);
        self.skipped_total = self.skipped_total.max(task.skipped_total);
        if let Some(newest) = task.recent_exits.first() {
            self.newest_exit = Some(newest.clone());
        }
        if let Some(newest) = task.lost.last() {
            self.newest_lost = Some(newest.clone());
        }
    }
}

/// The marks after `next` was seen. The same value when nothing rose.
pub(super) fn after(before: &Arc<Marks>, next: &Snapshot) -> Arc<Marks> {
    let mut marks = before.clone();
    for task in &next.tasks {
        let key = TopicPartition::new(task.topic.clone(), task.partition);
        let is_known = marks.tasks.get(&key).is_some_and(|mark| mark.covers(task));
        if !is_known {
            Arc::make_mut(&mut marks).tasks.entry(key).or_default().raise(task);
        }
    }
    for (topic, total) in skipped_by_topic(&marks) {
        if let Some(told) = tell(marks.skipped.get(&topic), total, next.taken_at) {
            Arc::make_mut(&mut marks).skipped.insert(topic, told);
        }
    }
    for (invariant, count) in &next.invariant_violations {
        if let Some(told) = tell(marks.invariants.get(invariant), *count, next.taken_at) {
            Arc::make_mut(&mut marks).invariants.insert(invariant.clone(), told);
        }
    }
    marks
}

fn skipped_by_topic(marks: &Marks) -> BTreeMap<TopicName, u64> {
    let mut totals: BTreeMap<TopicName, u64> = BTreeMap::new();
    for (partition, mark) in marks.tasks.iter().filter(|(_, mark)| mark.skipped_total > 0) {
        let total = totals.entry(partition.topic.clone()).or_default();
        *total = total.saturating_add(mark.skipped_total);
    }
    totals
}

/// The new mark of a counter; `None` when it did not rise, or when the last event is too young.
fn tell(known: Option<&Told>, total: u64, now: Timestamp) -> Option<Told> {
    let is_news = total > known.map_or(0, |told| told.total);
    // The absolute value: a clock that was set back silences nothing for long.
    let is_too_soon = known.is_some_and(|told| now.duration_since(told.at).abs() < TELL_AGAIN_AFTER);
    (is_news && !is_too_soon).then_some(Told { total, at: now })
}
