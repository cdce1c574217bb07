//! Self-checks: what must never happen is looked for while it works, and counted.
//!
//! Guarantees that each check compares two values that come about independently of each other, costs a comparison or two for each chunk or each turn and nothing for a record, and changes nothing: a violation is counted
//! and logged, and the part goes on. Owns the counts. The fault matrix (`tests/faults`) requires that all of them are zero after each of its rows, and that the mistakes it makes on purpose raise them. What only an
//! outsider can see (whether a document is in the index, whether a secret is in a log) is not here but in that matrix alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::error;

use crate::topic::TopicPartition;

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// An offset is committed past the watermark that the task has published.
    CommittedPastSettled,
    /// A task says that offsets are settled which were never handed to it.
    SettledPastHanded,
    /// A watermark went back within one epoch.
    WatermarkWentBack,
    /// A task's new life in the same epoch begins elsewhere than at the watermark of the one before.
    StartedElsewhere,
    /// Records came in an order that is not the log's, or twice.
    OffsetsOutOfOrder,
    /// Nothing is pending, and yet the records taken in are not as many as those indexed, dead-lettered and skipped.
    RecordsUnaccounted,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::CommittedPastSettled,
        Self::SettledPastHanded,
        Self::WatermarkWentBack,
        Self::StartedElsewhere,
        Self::OffsetsOutOfOrder,
        Self::RecordsUnaccounted,
    ];

    /// Its name in metrics, events and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CommittedPastSettled => "committed_past_settled",
            Self::SettledPastHanded => "settled_past_handed",
            Self::WatermarkWentBack => "watermark_went_back",
            Self::StartedElsewhere => "started_elsewhere",
            Self::OffsetsOutOfOrder => "offsets_out_of_order",
            Self::RecordsUnaccounted => "records_unaccounted",
        }
    }
}

/// The counts of violations, for those who look and for the snapshot. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct SelfChecks {
    counts: Arc<[AtomicU64; Invariant::ALL.len()]>,
}

impl SelfChecks {
    /// Counts a violation unless `holds`. The log gets the first one and then each that doubles the count: what is wrong at every turn must not bury everything else.
    pub fn check(&self, invariant: Invariant, holds: bool, key: &TopicPartition, found: i64, bound: i64) {
        if holds {
            return;
        }
        let Some(count) = self.counts.get(invariant as usize) else { return };
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            let invariant = invariant.as_str();
            error!(invariant, topic = %key.topic, partition = key.partition, found, bound, count, "what must never happen did; please report it");
        }
    }

    /// Each invariant's name and how often it was violated since the start, zeros too.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let of = |(invariant, count): (&Invariant, &AtomicU64)| (invariant.as_str().to_owned(), count.load(Ordering::Relaxed));
        Invariant::ALL.iter().zip(self.counts.iter()).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_counted_under_its_own_name_and_what_holds_is_not() {
        let checks = SelfChecks::default();
        let key = TopicPartition::new("orders".parse().expect("a name"), 3);
        for (number, invariant) in (1..).zip(Invariant::ALL) {
            for _ in 0..number {
                checks.check(invariant, false, &key, 2, 1);
            }
            checks.check(invariant, true, &key, 1, 2);
        }
        let expected: BTreeMap<String, u64> = (1..).zip(Invariant::ALL).map(|(number, invariant)| (invariant.as_str().to_owned(), number)).collect();
        assert_eq!(checks.counts(), expected);
        assert_eq!(expected.len(), Invariant::ALL.len(), "two share a name");
    }
}
