//! The segments in work: how many items each still waits for, and the outcome it gets.
//!
//! Guarantees that a segment is answered once: `Settled` when its last item is, `Parked` at the first item that needs an operator, and `Lost`, by its reply's own drop,
//! when this table is dropped. What arrives for a segment that was answered is ignored. Outcomes leave with [`OpenSegments::deliver`], so that who gets one finds counters and health
//! already up to date. Does no I/O and knows no batch.

use std::collections::HashMap;

use super::bulk::SegmentKey;
use super::{Outcome, ParkCause, Rejection, Reply};

#[derive(Debug)]
struct OpenSegment {
    reply: Reply,
    unsettled: usize,
    rejected: Vec<Rejection>,
    retried: u32,
}

/// All segments that have no outcome yet.
#[derive(Debug, Default)]
pub(crate) struct OpenSegments {
    segments: HashMap<SegmentKey, OpenSegment>,
    outcomes: Vec<(Reply, Outcome)>,
    last_key: SegmentKey,
}

impl OpenSegments {
    /// A new segment of `items` items, at least one.
    pub(crate) fn open(&mut self, reply: Reply, items: usize) -> SegmentKey {
        self.last_key += 1;
        self.segments.insert(self.last_key, OpenSegment { reply, unsettled: items, rejected: Vec::new(), retried: 0 });
        self.last_key
    }

    /// Whether the segment has no outcome yet.
    pub(crate) fn is_open(&self, key: SegmentKey) -> bool {
        self.segments.contains_key(&key)
    }

    /// Whether nothing is in work.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// So many items are indexed.
    pub(crate) fn settle(&mut self, key: SegmentKey, items: usize) {
        let Some(segment) = self.segments.get_mut(&key) else { return };
        segment.unsettled = segment.unsettled.saturating_sub(items);
        if segment.unsettled > 0 {
            return;
        }
        if let Some(mut segment) = self.segments.remove(&key) {
            segment.rejected.sort_by_key(|rejection| rejection.item);
            let outcome = Outcome::Settled { rejected: segment.rejected, retried: segment.retried };
            self.outcomes.push((segment.reply, outcome));
        }
    }

    /// An item is refused for good.
    pub(crate) fn reject(&mut self, key: SegmentKey, rejection: Rejection) {
        if let Some(segment) = self.segments.get_mut(&key) {
            segment.rejected.push(rejection);
        }
        self.settle(key, 1);
    }

    /// So many items are about to be sent a second time.
    pub(crate) fn resent(&mut self, key: SegmentKey, items: usize) {
        if let Some(segment) = self.segments.get_mut(&key) {
            segment.retried = segment.retried.saturating_add(u32::try_from(items).unwrap_or(u32::MAX));
        }
    }

    /// The index of this item takes nothing.
    pub(crate) fn park(&mut self, key: SegmentKey, cause: ParkCause, item: u32) {
        if let Some(segment) = self.segments.remove(&key) {
            self.outcomes.push((segment.reply, Outcome::Parked { cause, item }));
        }
    }

    /// Sends the outcomes that have been reached.
    pub(crate) fn deliver(&mut self) {
        for (reply, outcome) in self.outcomes.drain(..) {
            reply.send(outcome);
        }
    }
}
