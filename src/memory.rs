//! Memory as a shared good: a budget of bytes in use, and buffers that are used again.
//!
//! Guarantees that every byte taken from a [`Budget`] is given back exactly once, by dropping its [`Charge`], and that a [`Buffer`] goes back to its [`Buffers`] by being dropped. Taking never blocks: who
//! drains the broker's queue asks [`Budget::has_room`] before, so the overshoot is at most one drain. Does not count librdkafka's own prefetch; the composition root subtracts
//! that from `limits.memory` before it makes the budget.
//!
//! Buffers are kept because fresh ones are dear: zeroing the pages of multi-megabyte allocations was a fifth of all CPU (a profile of `make bench`).

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

/// The smallest buffer worth keeping, in bytes: smaller ones the allocator itself keeps.
const SMALLEST_KEPT: usize = 64 << 10;

/// Buffers that were used and wait to be used again. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Buffers {
    shelf: Arc<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    keep_bytes: usize,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// Keeps at most `keep_bytes` of unused buffers.
    pub fn new(keep_bytes: usize) -> Self {
        Self { shelf: Arc::new(Shelf { keep_bytes, free: Mutex::default() }) }
    }

    /// An empty buffer with room for `capacity` bytes: a kept one of this size if there is one, else one of at most four times this size; of several the one used last, since it is still in the
    /// caches.
    pub fn take(&self, capacity: usize) -> Buffer {
        // Sizes in powers of two make what one user gives back fit the next.
        let wanted = capacity.max(SMALLEST_KEPT).next_power_of_two();
        let mut free = self.shelf.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.buffers.iter().rposition(|buffer| buffer.capacity() == wanted);
        let found = fitting.or_else(|| free.buffers.iter().rposition(|buffer| (wanted..=wanted.saturating_mul(4)).contains(&buffer.capacity())));
        let kept = found.map(|place| free.buffers.swap_remove(place));
        free.bytes -= kept.as_ref().map_or(0, Vec::capacity);
        drop(free);
        Buffer { bytes: kept.unwrap_or_else(|| Vec::with_capacity(wanted)), home: Some(self.shelf.clone()) }
    }
}

impl Shelf {
    fn put_back(&self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if size >= SMALLEST_KEPT && free.bytes + size <= self.keep_bytes {
            buffer.clear();
            free.bytes += size;
            free.buffers.push(buffer);
        }
    }
}

/// Bytes in a buffer that goes back to where it came from.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    home: Option<Arc<Shelf>>,
}

impl From<Vec<u8>> for Buffer {
    /// A buffer without a home: it is freed when it is dropped.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.put_back(std::mem::take(&mut self.bytes));
        }
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

    #[test]
    fn a_buffer_is_used_again_and_empty() {
        let buffers = Buffers::new(1 << 20);
        let mut first = buffers.take(100_000);
        first.extend_from_slice(b"secret");
        let address = first.as_ptr();
        drop(first);
        let second = buffers.take(90_000);
        assert_eq!((second.as_ptr(), second.len()), (address, 0));
        let third = buffers.take(90_000);
        assert_ne!(third.as_ptr(), address);
    }

    #[test]
    fn a_buffer_of_the_right_size_is_taken_before_a_larger_one() {
        let buffers = Buffers::new(1 << 20);
        let (small, large) = (buffers.take(100_000), buffers.take(200_000));
        let address = small.as_ptr();
        drop(small);
        drop(large);
        assert_eq!(buffers.take(100_000).as_ptr(), address);
    }

    #[test]
    fn no_more_is_kept_than_was_asked_for() {
        let buffers = Buffers::new(300_000);
        let held: Vec<Buffer> = (0..10).map(|_| buffers.take(131_072)).collect();
        drop(held);
        let free = buffers.shelf.free.lock().expect("not poisoned");
        assert_eq!((free.buffers.len(), free.bytes), (2, 262_144));
    }

    #[test]
    fn a_huge_buffer_is_not_wasted_on_a_small_need() {
        let buffers = Buffers::new(64 << 20);
        drop(buffers.take(16 << 20));
        assert!(buffers.take(100_000).capacity() < 1 << 20);
    }
}
