//! The memory budget: one count of bytes held by records, segments and bulk bodies over all partitions.
//!
//! Guarantees that every byte taken is given back exactly once, by dropping its [`Charge`]. Taking never blocks: who drains the broker's queue asks
//! [`Budget::has_room`] before, so the overshoot is at most one drain. Does not count librdkafka's own prefetch; the composition root subtracts that
//! from `limits.memory` before it makes the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared count of bytes in use and their limit. Cloning shares the count.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { inner: Arc::new(Inner { limit, used: AtomicU64::new(0), peak: AtomicU64::new(0) }) }
    }

    /// Whether more may be taken. A record larger than what is free is admitted alone once the rest is given back: an empty budget always has room.
    pub fn has_room(&self) -> bool {
        let used = self.used();
        used == 0 || used < self.inner.limit
    }

    /// Takes `bytes`, whether or not there is room.
    pub fn charge(&self, bytes: u64) -> Charge {
        let used = self.inner.used.fetch_add(bytes, Ordering::AcqRel) + bytes;
        self.inner.peak.fetch_max(used, Ordering::Relaxed);
        Charge { budget: self.clone(), bytes }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.inner.used.load(Ordering::Acquire)
    }

    /// The most bytes that were in use at once.
    pub fn peak(&self) -> u64 {
        self.inner.peak.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.inner.limit
    }
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
}

impl Charge {
    /// A charge of nothing, on a budget of its own.
    pub fn none() -> Self {
        Budget::new(0).charge(0)
    }

    /// Corrects the number of bytes held, up or down.
    pub fn resize(&mut self, bytes: u64) {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let used = self.budget.inner.used.fetch_add(more, Ordering::AcqRel) + more;
            self.budget.inner.peak.fetch_max(used, Ordering::Relaxed);
        } else {
            self.budget.inner.used.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }

    /// The number of bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.inner.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.charge(60);
        assert!(budget.has_room());
        let second = budget.charge(60);
        assert!(!budget.has_room());
        first.resize(10);
        assert_eq!(budget.used(), 70);
        first.resize(30);
        drop(second);
        assert_eq!(budget.used(), 30);
        drop(first);
        assert_eq!((budget.used(), budget.peak()), (0, 120));
    }

    #[test]
    fn a_record_larger_than_the_limit_is_admitted_alone() {
        let budget = Budget::new(10);
        assert!(budget.has_room());
        let large = budget.charge(1000);
        assert!(!budget.has_room());
        drop(large);
        assert!(budget.has_room());
    }
}
