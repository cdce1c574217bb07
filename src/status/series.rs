//! The last quarter of an hour of every topic, for plots.
//!
//! Guarantees bounded memory (some tens of bytes for a topic and a sample, of which there are as many as fit into [`REACH`]), and that what is published never changes: a sample is shared by all snapshots that hold it. A clock that is set back or forward leaves a
//! gap or an early sample, nothing else. Pure: the time is a parameter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Topic;
use crate::topic::TopicName;

/// The distance of two samples.
pub const STEP: Duration = Duration::from_secs(5);
/// How far back the samples reach.
pub const REACH: Duration = Duration::from_secs(15 * 60);
/// Samples that are kept.
const KEPT: usize = (REACH.as_secs() / STEP.as_secs()) as usize;

/// The newest samples. Cloning it is cheap.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Oldest first.
    samples: Arc<VecDeque<Arc<Sample>>>,
}

/// All topics at one moment.
#[derive(Debug, PartialEq)]
struct Sample {
    at: Timestamp,
    /// Ordered by name.
    topics: Vec<(TopicName, Point)>,
}

/// One topic at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Records behind; `None` where that was not known.
    pub lag: Option<i64>,
    /// Records settled per second.
    pub records_per_second: f64,
    /// Restarts of its tasks.
    pub restarts_total: u64,
}

impl Series {
    /// The series with a sample of these topics at its end, when it is time for one. `topics` are ordered by name.
    pub fn with(&self, topics: &[Topic], now: Timestamp) -> Self {
        let is_too_soon = self.samples.back().is_some_and(|newest| now.duration_since(newest.at).unsigned_abs() < STEP);
        if is_too_soon {
            return self.clone();
        }
        let point = |topic: &Topic| {
            let status = &topic.status;
            let point = Point { lag: status.lag, records_per_second: status.records_per_second, restarts_total: status.restarts_total };
            (topic.name.clone(), point)
        };
        let mut samples = (*self.samples).clone();
        samples.push_back(Arc::new(Sample { at: now, topics: topics.iter().map(point).collect() }));
        samples.drain(..samples.len().saturating_sub(KEPT));
        Self { samples: Arc::new(samples) }
    }

    /// The topic's points of the last `window` before `now`, oldest first, the newest of each `step`. `None`: the topic was not there then.
    pub fn of(&self, topic: &TopicName, window: Duration, step: Duration, now: Timestamp) -> Vec<(Timestamp, Option<Point>)> {
        let step_ms = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        let mut points: Vec<(Timestamp, Option<Point>)> = Vec::new();
        let mut last_step = None;
        for sample in self.samples.iter().filter(|sample| now.duration_since(sample.at).unsigned_abs() <= window) {
            let found = sample.topics.binary_search_by(|(name, _)| name.cmp(topic)).ok();
            let point = found.and_then(|place| sample.topics.get(place)).map(|(_, point)| *point);
            let number = sample.at.as_millisecond().div_euclid(step_ms);
            if last_step == Some(number) {
                points.pop();
            }
            last_step = Some(number);
            points.push((sample.at, point));
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::derive::{self, TopicInput};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_268_800 + second).expect("a time")
    }

    fn name(text: &str) -> TopicName {
        TopicName::new(text).expect("legal")
    }

    fn topic(text: &str, restarts_total: u64) -> Topic {
        let input = TopicInput {
            name: name(text),
            spec: crate::topic::TopicSpec::default(),
            overrides: crate::topic::SpecFields::default(),
            spec_origin: std::collections::BTreeMap::new(),
            sources: Vec::new(),
            paused: None,
            partitions: None,
            missing: None,
            last_minute: crate::status::LastMinute::default(),
        };
        let mut topic = derive::topic(input, &[]);
        topic.status.restarts_total = restarts_total;
        topic
    }

    fn restarts(points: &[(Timestamp, Option<Point>)]) -> Vec<Option<u64>> {
        points.iter().map(|(_, point)| point.map(|point| point.restarts_total)).collect()
    }

    #[test]
    fn a_topic_that_was_not_there_yet_has_gaps_and_no_zeros() {
        let series = Series::default().with(&[topic("a", 1)], at(0)).with(&[topic("a", 2), topic("b", 7)], at(5));
        assert_eq!(restarts(&series.of(&name("b"), REACH, STEP, at(5))), [None, Some(7)]);
        assert_eq!(restarts(&series.of(&name("a"), REACH, STEP, at(5))), [Some(1), Some(2)]);
    }

    #[test]
    fn frequent_looks_and_long_runs_keep_no_more_samples() {
        let mut series = Series::default();
        for half_second in 0..4000 {
            let now = at(0) + Duration::from_millis(half_second * 500);
            series = series.with(&[topic("a", half_second)], now);
        }
        assert_eq!(series.samples.len(), KEPT);
        let points = series.of(&name("a"), REACH, STEP, at(2000));
        assert_eq!(points.len(), KEPT);
        assert!(points.windows(2).all(|pair| pair[1].0 > pair[0].0));
    }

    #[test]
    fn a_coarse_step_shows_the_newest_of_each() {
        let mut series = Series::default();
        for sample in 0..12 {
            series = series.with(&[topic("a", sample)], at(5 * i64::try_from(sample).expect("small")));
        }
        let points = series.of(&name("a"), REACH, Duration::from_secs(30), at(60));
        assert_eq!(restarts(&points), [Some(5), Some(11)]);
        assert_eq!(restarts(&series.of(&name("a"), Duration::from_secs(10), STEP, at(60))), [Some(10), Some(11)]);
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing() {
        let series = Series::default().with(&[topic("a", 1)], at(10_000)).with(&[topic("a", 2)], at(0)).with(&[topic("a", 3)], at(5));
        assert_eq!(restarts(&series.of(&name("a"), REACH, STEP, at(5))), [Some(2), Some(3)]);
    }
}
