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

/// How large a body may be. A refusal halves the size, requests of that size that are accepted give it back.
#[derive(Debug, Clone)]
pub(crate) struct BodySize {
    most: usize,
    least: usize,
    limit: usize,
    accepted: u32,
}

impl BodySize {
    /// Accepted requests of about the present size before a larger one is tried: a limit that stays costs one refused request in 17.
    const BEFORE_RISE: u32 = 16;

    /// At most `most` bytes; refusals lower that to `least` and not below.
    pub(crate) fn new(most: usize, least: usize) -> Self {
        Self { most, least, limit: most, accepted: 0 }
    }

    /// How large a body may be now, in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The server refused a body of this size. Whether the limit is lower now.
    pub(crate) fn refused(&mut self, bytes: usize) -> bool {
        self.accepted = 0;
        let half = bytes / 2;
        if half >= self.limit || self.limit <= self.least {
            return false;
        }
        self.limit = half.max(self.least);
        true
    }

    /// The server accepted a body of this size. Small ones prove nothing.
    pub(crate) fn accepted(&mut self, bytes: usize) {
        if self.limit >= self.most || bytes < self.limit / 2 {
            return;
        }
        self.accepted += 1;
        if self.accepted >= Self::BEFORE_RISE {
            self.accepted = 0;
            self.limit = self.limit.saturating_mul(2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_secs(5);

    #[test]
    fn one_refusal_of_a_body_does_not_make_bodies_small_for_ever() {
        let mut size = BodySize::new(1 << 20, 64 << 10);
        assert!(size.refused(1 << 20));
        assert!(size.refused(512 << 10));
        assert!(!size.refused(1 << 20), "under way with the one that lowered it");
        assert_eq!(size.limit(), 256 << 10);
        for _ in 0..100 {
            size.accepted(1000);
        }
        assert_eq!(size.limit(), 256 << 10, "small bodies prove nothing");
        for _ in 0..15 {
            size.accepted(200 << 10);
        }
        assert_eq!(size.limit(), 256 << 10);
        size.accepted(200 << 10);
        assert_eq!(size.limit(), 512 << 10);
        for _ in 0..64 {
            size.accepted(1 << 20);
        }
        assert_eq!(size.limit(), 1 << 20, "never above what is configured");
        for _ in 0..20 {
            let limit = size.limit();
            size.refused(limit);
        }
        assert_eq!(size.limit(), 64 << 10);
    }

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
