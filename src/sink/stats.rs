//! Counts of what the sink has done, for the metrics.
//!
//! Guarantees that counting never blocks and that a total never goes back. Owns the names of the outcomes and the buckets of the durations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::status::SinkTotals;

/// Upper bounds of the request durations in seconds: from a loopback answer to the usual timeout of a minute.
const BUCKETS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestOutcome {
    /// Every item is there.
    Ok,
    /// Some items failed.
    Partial,
    /// It has to be sent again as it is.
    Retry,
    /// The server refused it as a whole.
    Rejected,
    /// There was no answer.
    Unreachable,
}

impl RequestOutcome {
    const ALL: [Self; 5] = [Self::Ok, Self::Partial, Self::Retry, Self::Rejected, Self::Unreachable];

    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::Retry => "retry",
            Self::Rejected => "rejected",
            Self::Unreachable => "unreachable",
        }
    }
}

/// What a sink has done since it was made.
#[derive(Debug, Default)]
pub struct SinkStats {
    ok: AtomicU64,
    partial: AtomicU64,
    retry: AtomicU64,
    rejected: AtomicU64,
    unreachable: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

impl SinkStats {
    /// Counts a request.
    pub(crate) fn record(&self, outcome: RequestOutcome, took: Duration) {
        self.counter(outcome).fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().zip(&self.buckets).find(|(bound, _)| seconds <= **bound);
        if let Some((_, counter)) = bucket {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The totals now.
    pub fn totals(&self) -> SinkTotals {
        let mut below = 0;
        let duration_buckets = BUCKETS.iter().zip(&self.buckets).map(|(bound, counter)| {
            below += counter.load(Ordering::Relaxed);
            (*bound, below)
        });
        SinkTotals {
            duration_buckets: duration_buckets.collect(),
            requests: RequestOutcome::ALL
                .iter()
                .map(|outcome| (outcome.as_str().to_owned(), self.counter(*outcome).load(Ordering::Relaxed)))
                .collect(),
            duration_sum_seconds: Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64(),
            duration_count: self.count.load(Ordering::Relaxed),
        }
    }

    fn counter(&self, outcome: RequestOutcome) -> &AtomicU64 {
        match outcome {
            RequestOutcome::Ok => &self.ok,
            RequestOutcome::Partial => &self.partial,
            RequestOutcome::Retry => &self.retry,
            RequestOutcome::Rejected => &self.rejected,
            RequestOutcome::Unreachable => &self.unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_slower_than_all_buckets_is_still_counted() {
        let stats = SinkStats::default();
        stats.record(RequestOutcome::Ok, Duration::from_millis(7));
        stats.record(RequestOutcome::Ok, Duration::from_millis(300));
        stats.record(RequestOutcome::Unreachable, Duration::from_secs(90));
        let totals = stats.totals();
        assert_eq!(totals.requests.get("ok"), Some(&2));
        assert_eq!(totals.requests.get("unreachable"), Some(&1));
        assert_eq!(totals.requests.len(), 5);
        assert_eq!(totals.duration_buckets.first(), Some(&(0.005, 0)));
        assert_eq!(totals.duration_buckets.get(1), Some(&(0.01, 1)));
        assert_eq!(totals.duration_buckets.last(), Some(&(60.0, 2)));
        assert_eq!(totals.duration_count, 3);
        assert!((totals.duration_sum_seconds - 90.307).abs() < 0.001);
    }
}
