//! Settled records per second, as the mean of the last ten seconds.
//!
//! Guarantees: a counter that starts again at 0, since its task was replaced, neither makes the rate negative nor loses what was counted; what was there before the first look
//! counts for nothing; memory is bounded however often it is asked. Pure: the clock is a parameter.

use std::collections::VecDeque;
use std::time::Duration;

/// The span of the mean (the design, section 6).
const WINDOW: Duration = Duration::from_secs(10);
/// Samples closer together than this are not kept: at most 40 of them are.
const RESOLUTION: Duration = Duration::from_millis(250);
/// A mean over less than this would show single bulk answers as bursts.
const SHORTEST_SPAN: Duration = Duration::from_secs(1);

/// The rate of one growing counter.
#[derive(Debug, Clone, Default)]
pub struct RateMeter {
    samples: VecDeque<Sample>,
    last_counter: Option<u64>,
    total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    elapsed: Duration,
    total: u64,
}

impl RateMeter {
    /// Takes the counter's value `settled` at `elapsed` on any monotonic clock; answers the mean of the last 10 s in units per second.
    pub fn observe(&mut self, elapsed: Duration, settled: u64) -> f64 {
        let grown = match self.last_counter {
            None => 0,
            Some(last) if settled >= last => settled - last,
            // The counter began again.
            Some(_) => settled,
        };
        self.last_counter = Some(settled);
        self.total = self.total.saturating_add(grown);
        let newest = Sample { elapsed, total: self.total };
        if self.samples.back().is_none_or(|last| elapsed.saturating_sub(last.elapsed) >= RESOLUTION) {
            self.samples.push_back(newest);
        }
        // The oldest sample kept is the newest one that is at least as old as the window.
        while self.samples.get(1).is_some_and(|second| elapsed.saturating_sub(second.elapsed) >= WINDOW) {
            self.samples.pop_front();
        }
        self.samples.front().map_or(0.0, |oldest| mean(oldest, &newest))
    }
}

fn mean(oldest: &Sample, newest: &Sample) -> f64 {
    let span = newest.elapsed.saturating_sub(oldest.elapsed).max(SHORTEST_SPAN);
    let grown = newest.total.saturating_sub(oldest.total);
    // Exact up to 2^53 records in ten seconds.
    grown as f64 / span.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn what_was_there_before_the_first_look_is_no_burst() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.observe(millis(0), 1_000_000), 0.0);
        assert_eq!(meter.observe(millis(2000), 1_000_010), 5.0);
    }

    #[test]
    fn a_steady_stream_has_its_own_rate() {
        let mut meter = RateMeter::default();
        let rates: Vec<f64> = (0..=60).map(|tick| meter.observe(millis(tick * 500), tick * 50)).collect();
        assert_eq!(rates.last(), Some(&100.0));
        assert_eq!(rates[4], 100.0);
    }

    #[test]
    fn a_stream_that_stops_is_forgotten_after_the_window() {
        let mut meter = RateMeter::default();
        meter.observe(millis(0), 0);
        assert_eq!(meter.observe(millis(1000), 1000), 1000.0);
        assert_eq!(meter.observe(millis(10_000), 1000), 100.0);
        meter.observe(millis(11_000), 1000);
        assert_eq!(meter.observe(millis(21_000), 1000), 0.0);
    }

    #[test]
    fn a_counter_that_begins_again_is_neither_negative_nor_a_burst() {
        let mut meter = RateMeter::default();
        meter.observe(millis(0), 5000);
        meter.observe(millis(1000), 5010);
        assert_eq!(meter.observe(millis(2000), 10), 10.0);
    }

    #[test]
    fn frequent_looks_keep_no_more_samples() {
        let mut meter = RateMeter::default();
        for tick in 0..60_000 {
            meter.observe(millis(tick), tick);
        }
        assert!(meter.samples.len() <= 42, "{} samples", meter.samples.len());
        assert_eq!(meter.observe(millis(60_000), 60_000), 1000.0);
    }

    proptest! {
        #[test]
        fn a_rate_is_never_negative_nor_infinite(steps in prop::collection::vec((0..20_000_u64, any::<u64>()), 1..200)) {
            let mut meter = RateMeter::default();
            let mut elapsed = Duration::ZERO;
            for (step, counter) in steps {
                elapsed += millis(step);
                let rate = meter.observe(elapsed, counter);
                prop_assert!(rate.is_finite() && rate >= 0.0);
            }
        }
    }
}
