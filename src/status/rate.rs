//! What counters grew by in a window of time: settled records per second over ten seconds, and sums over a minute.
//!
//! Guarantees: a counter that starts again at 0, since its task was replaced, neither makes the rate negative nor loses what was counted; what was there before the first look
//! counts for nothing, and so does what is there after a time without the counter, such as a topic that is removed and added again; memory is bounded however often it is asked.
//! Pure: the clock is a parameter.

use std::collections::VecDeque;
use std::time::Duration;

/// The span of a rate (the design, section 6).
pub const RATE_WINDOW: Duration = Duration::from_secs(10);
/// A window keeps no more samples than about this, at equal distances.
const SAMPLES: u32 = 40;
/// A mean over less than this would show single bulk answers as bursts.
const SHORTEST_SPAN: Duration = Duration::from_secs(1);

/// One growing counter, looked at again and again.
#[derive(Debug, Clone, Copy, Default)]
pub enum Counter {
    /// Never looked at.
    #[default]
    Unseen,
    /// There, with its value; 0 while it is awaited for the first time, since it will begin there.
    Present(u64),
    /// Not there any more, with its last value.
    Away(u64),
}

impl Counter {
    /// What the counter grew by since the look before; `None` stands for a counter that is not there. A counter that is there at the first look, or again after a time away, has its
    /// zero point there.
    pub fn growth(&mut self, value: Option<u64>) -> u64 {
        let before = *self;
        let Some(now) = value else {
            *self = match before {
                Self::Unseen | Self::Present(0) => Self::Present(0),
                Self::Present(last) | Self::Away(last) => Self::Away(last),
            };
            return 0;
        };
        *self = Self::Present(now);
        match before {
            Self::Present(last) if now >= last => now - last,
            Self::Unseen => 0,
            Self::Away(last) if now >= last => 0,
            // The counter began again.
            Self::Present(_) | Self::Away(_) => now,
        }
    }
}

/// The growth of the last while.
#[derive(Debug, Clone)]
pub struct Window {
    span: Duration,
    samples: VecDeque<Sample>,
    newest: Sample,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    elapsed: Duration,
    total: u64,
}

impl Window {
    /// An empty window over the last `span`.
    pub fn over(span: Duration) -> Self {
        Self { span, samples: VecDeque::new(), newest: Sample::default() }
    }

    /// Adds what was counted since the call before; `elapsed` is the time on any monotonic clock. What comes with the first call was counted before the window and is left out.
    pub fn add(&mut self, elapsed: Duration, growth: u64) {
        let newest = Sample { elapsed, total: self.newest.total.saturating_add(growth) };
        self.newest = newest;
        if self.samples.back().is_none_or(|last| elapsed.saturating_sub(last.elapsed) >= self.span / SAMPLES) {
            self.samples.push_back(newest);
        }
        // The oldest sample kept is the newest one that is at least as old as the window.
        while self.samples.get(1).is_some_and(|second| elapsed.saturating_sub(second.elapsed) >= self.span) {
            self.samples.pop_front();
        }
    }

    /// What was added in the last `span`.
    pub fn sum(&self) -> u64 {
        self.samples.front().map_or(0, |oldest| self.newest.total.saturating_sub(oldest.total))
    }

    /// The mean of the last `span`, in units per second.
    pub fn per_second(&self) -> f64 {
        let Some(oldest) = self.samples.front() else { return 0.0 };
        let covered = self.newest.elapsed.saturating_sub(oldest.elapsed).max(SHORTEST_SPAN);
        // Exact up to 2^53 records in ten seconds.
        self.sum() as f64 / covered.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A counter and its rate, as the observer holds them.
    struct RateMeter {
        counter: Counter,
        window: Window,
    }

    impl Default for RateMeter {
        fn default() -> Self {
            Self { counter: Counter::default(), window: Window::over(RATE_WINDOW) }
        }
    }

    impl RateMeter {
        fn observe(&mut self, elapsed: Duration, value: u64) -> f64 {
            self.look(elapsed, Some(value))
        }

        fn look(&mut self, elapsed: Duration, value: Option<u64>) -> f64 {
            let growth = self.counter.growth(value);
            self.window.add(elapsed, growth);
            self.window.per_second()
        }
    }

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
    fn a_topic_that_is_added_again_with_its_old_counter_is_no_burst() {
        let mut meter = RateMeter::default();
        meter.observe(millis(0), 5060);
        meter.look(millis(1000), None);
        assert_eq!(meter.observe(millis(2000), 5080), 0.0);
        assert_eq!(meter.observe(millis(4000), 5100), 5.0);
    }

    #[test]
    fn the_first_records_of_a_new_task_are_counted() {
        let mut meter = RateMeter::default();
        meter.look(millis(0), None);
        meter.look(millis(500), None);
        assert_eq!(meter.observe(millis(1000), 600), 600.0);
    }

    #[test]
    fn a_minute_forgets_what_is_older() {
        let mut window = Window::over(Duration::from_secs(60));
        window.add(millis(0), 7);
        window.add(millis(1000), 10);
        assert_eq!(window.sum(), 10);
        for second in 2..=60 {
            window.add(millis(second * 1000), 1);
        }
        assert_eq!(window.sum(), 69);
        for second in 61..=200 {
            window.add(millis(second * 1000), 0);
        }
        assert_eq!(window.sum(), 0);
        assert!(window.samples.len() <= 42, "{} samples", window.samples.len());
    }

    #[test]
    fn frequent_looks_keep_no_more_samples() {
        let mut meter = RateMeter::default();
        for tick in 0..60_000 {
            meter.observe(millis(tick), tick);
        }
        assert!(meter.window.samples.len() <= 42, "{} samples", meter.window.samples.len());
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
