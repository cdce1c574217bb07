//! Which rows are others than before, so that nobody has to write or compare a page to know whether it changed.
//!
//! Guarantees that two rows of one run of the process with the same version look the same in every answer of the API, and that a row which looks the same from one snapshot to the next keeps
//! its version. What only the metrics and the health report show of a row does not count.

use std::cmp::Ordering;
use std::mem;

use super::{Snapshot, Task, Topic};

/// Gives each row of `next` the version of the same row of `previous`, or a new one where it looks different. Both have their rows in order.
pub fn stamp(previous: &Snapshot, next: &mut Snapshot) {
    let mut last = previous.last_version;
    stamp_rows(&previous.topics, &mut next.topics, &mut last);
    stamp_rows(&previous.tasks, &mut next.tasks, &mut last);
    next.last_version = last;
}

/// A row that has a version.
trait Row {
    /// Where it stands among the others.
    fn place(&self, other: &Self) -> Ordering;

    /// Whether answers show the same of both.
    fn looks_like(&mut self, other: &Self) -> bool;

    fn version(&mut self) -> &mut u64;
}

fn stamp_rows<R: Row + Clone>(previous: &[R], next: &mut [R], last: &mut u64) {
    let mut old = previous.iter().peekable();
    for row in next {
        while old.next_if(|candidate| candidate.place(row).is_lt()).is_some() {}
        if let Some(before) = old.peek().filter(|candidate| candidate.place(row).is_eq())
            && row.looks_like(before)
        {
            continue;
        }
        *last += 1;
        *row.version() = *last;
    }
}

impl Row for Topic {
    fn place(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }

    /// Leaves the other's version here, which stays when they look alike.
    fn looks_like(&mut self, other: &Self) -> bool {
        self.version = other.version;
        let last_minute = mem::replace(&mut self.last_minute, other.last_minute);
        let is_alike = self == other;
        self.last_minute = last_minute;
        is_alike
    }

    fn version(&mut self) -> &mut u64 {
        &mut self.version
    }
}

impl Row for Task {
    fn place(&self, other: &Self) -> Ordering {
        (&self.topic, self.partition).cmp(&(&other.topic, other.partition))
    }

    /// Leaves the other's version here, which stays when they look alike. The restarts by cause, which are not shown, change only with those that are.
    fn looks_like(&mut self, other: &Self) -> bool {
        self.version = other.version;
        let oldest_unsettled_seconds = mem::replace(&mut self.oldest_unsettled_seconds, other.oldest_unsettled_seconds);
        let is_alike = self == other;
        self.oldest_unsettled_seconds = oldest_unsettled_seconds;
        is_alike
    }

    fn version(&mut self) -> &mut u64 {
        &mut self.version
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::status::LastMinute;
    use crate::status::derive::{self, TaskInput};
    use crate::topic::TopicName;

    fn task(topic: &str, partition: i32) -> Task {
        let input = TaskInput {
            topic: TopicName::new(topic).expect("a legal name"),
            partition,
            instance: "host-1".to_owned(),
            previous: None,
            slot: None,
            progress: None,
            assignment: None,
            kafka_trouble: None,
            sink_trouble: None,
            paused_at: None,
            records_per_second: 0.0,
        };
        derive::task(input, Timestamp::UNIX_EPOCH)
    }

    /// The rows of the next snapshot with their versions, and the highest one.
    fn stamped(previous: &[Task], last: u64, next: &[Task]) -> (Vec<Task>, u64) {
        let (mut rows, mut last) = (next.to_vec(), last);
        stamp_rows(previous, &mut rows, &mut last);
        (rows, last)
    }

    fn versions(rows: &[Task]) -> Vec<u64> {
        rows.iter().map(|row| row.version).collect()
    }

    #[test]
    fn only_what_looks_different_gets_another_version() {
        let (first, last) = stamped(&[], 0, &[task("a", 0), task("a", 1), task("b", 0)]);
        assert_eq!(versions(&first), [1, 2, 3]);
        let mut next = first.clone();
        next[1].lag = Some(7);
        // Only in the metrics.
        next[2].oldest_unsettled_seconds = 1.5;
        let (second, last) = stamped(&first, last, &next);
        assert_eq!((versions(&second), last), (vec![1, 4, 3], 4));
        assert_eq!(second[2].oldest_unsettled_seconds, 1.5);
        let (third, _) = stamped(&second, last, &[task("a", 0), task("a", 1), task("aa", 0), task("b", 0)]);
        assert_eq!(versions(&third), [1, 5, 6, 3], "what looks as it did two snapshots ago is still another than before");
    }

    #[test]
    fn a_topics_last_minute_is_no_change() {
        let input = derive::TopicInput {
            name: TopicName::new("a").expect("a legal name"),
            spec: crate::topic::TopicSpec::default(),
            overrides: crate::topic::SpecFields::default(),
            spec_origin: std::collections::BTreeMap::new(),
            sources: Vec::new(),
            paused: None,
            partitions: None,
            missing: None,
            last_minute: LastMinute::default(),
        };
        let mut before = derive::topic(input, &[]);
        before.version = 3;
        let counted = LastMinute { settled: 5, dead_lettered: 1 };
        let mut rows = vec![Topic { last_minute: counted, version: 0, ..before.clone() }];
        let mut last = 3;
        stamp_rows(std::slice::from_ref(&before), &mut rows, &mut last);
        assert_eq!((rows[0].version, rows[0].last_minute, last), (3, counted, 3));
    }

    proptest! {
        #[test]
        fn no_two_rows_that_look_different_share_a_version(steps in prop::collection::vec(prop::collection::btree_map(0..6_i32, 0..3_i64, 0..6), 1..12)) {
            let mut seen: std::collections::BTreeMap<u64, (i32, Option<i64>)> = std::collections::BTreeMap::new();
            let (mut rows, mut last) = (Vec::new(), 0);
            for step in steps {
                let next: Vec<Task> = step.into_iter().map(|(partition, lag)| Task { lag: Some(lag), ..task("a", partition) }).collect();
                (rows, last) = stamped(&rows, last, &next);
                for row in &rows {
                    prop_assert!(row.version > 0 && row.version <= last);
                    prop_assert_eq!(*seen.entry(row.version).or_insert((row.partition, row.lag)), (row.partition, row.lag));
                }
            }
        }
    }
}
