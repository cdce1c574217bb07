//! How fast to try: waiting times between tries, and how many requests at once.
//!
//! Guarantees that a waiting time is never longer than its cap, that at least one request is always allowed, and that the number allowed never exceeds the configured one. Pure: time and
//! chance are parameters.

use std::time::Duration;

use tokio::time::Instant;

/// Exponential waiting times with full jitter.
///
/// A wait is a random share of `base · 2^attempt`, so that many who failed together do not come back together
/// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// The longest wait before the first retry.
    pub(crate) base: Duration,
    /// The longest wait.
    pub(crate) cap: Duration,
}

impl Backoff {
    /// The wait before try number `attempt`, from 0; `chance` is from 0 to 1.
    pub(crate) fn wait(&self, attempt: u32, chance: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.cap);
        ceiling.mul_f64(chance.clamp(0.0, 1.0))
    }
}

/// How many requests may be under way. Pressure halves the number, quiet gives it back one by one.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    most: usize,
    limit: usize,
    changed_at: Option<Instant>,
    step: Duration,
}

impl Pace {
    /// At most `most` requests; the limit changes once in `step` at most.
    pub(crate) fn new(most: usize, step: Duration) -> Self {
        let most = most.max(1);
        Self { most, limit: most, changed_at: None, step }
    }

    /// How many requests may be under way now.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The server asks for less. What several requests report together counts once.
    pub(crate) fn pressure(&mut self, now: Instant) {
        let just_lowered = self.limit < self.most && self.changed_at.is_some_and(|at| now < at + self.step);
        if !just_lowered {
            self.limit = (self.limit / 2).max(1);
            self.changed_at = Some(now);
        }
    }

    /// The server took a request.
    pub(crate) fn accepted(&mut self, now: Instant) {
        if self.limit < self.most && self.changed_at.is_none_or(|at| now >= at + self.step) {
            self.limit += 1;
            self.changed_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_secs(5);

    #[test]
    fn pressure_halves_once_for_all_who_report_it() {
        let now = Instant::now();
        let mut pace = Pace::new(8, STEP);
        pace.pressure(now);
        pace.pressure(now);
        assert_eq!(pace.limit(), 4);
        for step in 1..9 {
            pace.pressure(now + STEP * step);
        }
        assert_eq!(pace.limit(), 1);
    }

    #[test]
    fn quiet_gives_the_requests_back_slowly() {
        let now = Instant::now();
        let mut pace = Pace::new(3, STEP);
        pace.pressure(now);
        pace.accepted(now);
        assert_eq!(pace.limit(), 1);
        for step in 1..9 {
            pace.accepted(now + STEP * step);
        }
        assert_eq!(pace.limit(), 3);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_its_cap(attempt: u32, chance in -1.0f64..2.0) {
            let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };
            let wait = backoff.wait(attempt, chance);
            prop_assert!(wait <= backoff.cap);
            prop_assert!(attempt > 0 || wait <= backoff.base);
        }
    }
}
