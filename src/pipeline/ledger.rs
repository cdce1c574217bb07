//! The ledger of one partition's offsets: what was taken in, and up to where everything is settled.
//!
//! Guarantees: the watermark is the lowest offset that is not settled, so it never passes an unsettled one; it never goes back; it equals the position when nothing is
//! pending. Entries may be settled in any order. Owns what the caller wants kept until then (the chunk). Every operation takes constant time, spread over the
//! entries' lives. Knows neither Kafka nor time.

use std::collections::VecDeque;

/// See the module. `T` is what is kept per entry until it is settled.
#[derive(Debug)]
pub struct Ledger<T> {
    /// In offset order. The first one is never settled: settled entries leave as soon as nothing unsettled is before them.
    entries: VecDeque<Entry<T>>,
    /// The ticket of the first entry; the others follow without gaps.
    first_ticket: u64,
    position: i64,
    pending: usize,
    bytes: u64,
}

#[derive(Debug)]
struct Entry<T> {
    /// The position before this entry. Offsets between it and the entry's first record were delivered and held nothing.
    start: i64,
    bytes: u64,
    /// `None` once it is settled.
    kept: Option<T>,
}

impl<T> Ledger<T> {
    /// An empty ledger; `start` is the offset that is taken in next.
    pub fn new(start: i64) -> Self {
        Self { entries: VecDeque::new(), first_ticket: 0, position: start, pending: 0, bytes: 0 }
    }

    /// Takes in everything from the position up to `next_offset` (exclusive) as one entry that holds `bytes`. The answer names it in [`Ledger::settle`]; tickets increase and
    /// are never used again. A `next_offset` below the position leaves the position where it is.
    pub fn push(&mut self, next_offset: i64, bytes: u64, kept: T) -> u64 {
        let ticket = self.first_ticket + self.entries.len() as u64;
        self.entries.push_back(Entry { start: self.position, bytes, kept: Some(kept) });
        self.pass(next_offset);
        self.pending += 1;
        self.bytes += bytes;
        ticket
    }

    /// Notes that everything below `next_offset` was delivered and what was not pushed needs no work: control records, compacted offsets.
    pub fn pass(&mut self, next_offset: i64) {
        self.position = self.position.max(next_offset);
    }

    /// What is kept for an entry that is not settled.
    pub fn get(&self, ticket: u64) -> Option<&T> {
        self.entries.get(self.place(ticket)?)?.kept.as_ref()
    }

    /// What is kept for an entry that is not settled.
    pub fn get_mut(&mut self, ticket: u64) -> Option<&mut T> {
        let place = self.place(ticket)?;
        self.entries.get_mut(place)?.kept.as_mut()
    }

    /// What is kept for the entry at the watermark, if anything is pending.
    pub fn first(&self) -> Option<&T> {
        self.entries.front()?.kept.as_ref()
    }

    /// Whether this entry is the one at the watermark.
    pub fn is_first(&self, ticket: u64) -> bool {
        self.pending > 0 && ticket == self.first_ticket
    }

    /// Settles an entry and gives back what was kept. `None` for a ticket that is unknown, settled already, or forgotten by [`Ledger::clear_to_watermark`].
    pub fn settle(&mut self, ticket: u64) -> Option<T> {
        let place = self.place(ticket)?;
        let entry = self.entries.get_mut(place)?;
        let kept = entry.kept.take()?;
        self.pending -= 1;
        self.bytes -= entry.bytes;
        while self.entries.front().is_some_and(|first| first.kept.is_none()) {
            self.entries.pop_front();
            self.first_ticket += 1;
        }
        Some(kept)
    }

    /// The lowest offset that is not settled; the position when nothing is pending. Everything below it may be committed.
    pub fn watermark(&self) -> i64 {
        self.entries.front().map_or(self.position, |first| first.start)
    }

    /// The offset that is taken in next: past everything pushed or passed.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// How many entries are not settled.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The bytes of the entries that are not settled.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Forgets everything past the watermark, which becomes the position: it has to be taken in again, also what was settled behind the first unsettled offset. Gives back
    /// what was kept, in offset order. Results that still come in for forgotten tickets are ignored by [`Ledger::settle`].
    pub fn clear_to_watermark(&mut self) -> Vec<T> {
        self.position = self.watermark();
        self.first_ticket += self.entries.len() as u64;
        self.pending = 0;
        self.bytes = 0;
        self.entries.drain(..).filter_map(|entry| entry.kept).collect()
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        usize::try_from(ticket.checked_sub(self.first_ticket)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_result_out_of_order_does_not_move_the_watermark() {
        let mut ledger = Ledger::new(10);
        let first = ledger.push(20, 5, "first");
        let second = ledger.push(30, 7, "second");
        assert_eq!(ledger.settle(second), Some("second"));
        assert_eq!((ledger.watermark(), ledger.position(), ledger.pending(), ledger.bytes()), (10, 30, 1, 5));
        assert_eq!(ledger.settle(first), Some("first"));
        assert_eq!((ledger.watermark(), ledger.pending(), ledger.bytes()), (30, 0, 0));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_second_result_for_one_entry_changes_nothing() {
        let mut ledger = Ledger::new(0);
        let first = ledger.push(1, 1, ());
        let second = ledger.push(2, 1, ());
        assert_eq!(ledger.settle(second), Some(()));
        assert_eq!(ledger.settle(second), None);
        assert_eq!(ledger.get(second), None);
        assert_eq!(ledger.settle(99), None);
        assert_eq!((ledger.pending(), ledger.bytes(), ledger.watermark()), (1, 1, 0));
        assert_eq!(ledger.settle(first), Some(()));
        assert_eq!(ledger.settle(first), None);
        assert_eq!(ledger.watermark(), 2);
    }

    #[test]
    fn control_records_at_the_end_are_passed_when_nothing_is_pending() {
        let mut ledger = Ledger::new(0);
        let ticket = ledger.push(5, 1, ());
        ledger.pass(7);
        assert_eq!((ledger.watermark(), ledger.position()), (0, 7));
        ledger.settle(ticket);
        assert_eq!(ledger.watermark(), 7);
        ledger.pass(9);
        ledger.pass(3);
        assert_eq!((ledger.watermark(), ledger.position()), (9, 9));
    }

    #[test]
    fn a_late_result_after_parking_does_not_settle_what_is_read_again() {
        let mut ledger = Ledger::new(0);
        let first = ledger.push(10, 1, 'a');
        let second = ledger.push(20, 1, 'b');
        let third = ledger.push(30, 1, 'c');
        ledger.settle(second);
        assert_eq!(ledger.clear_to_watermark(), ['a', 'c']);
        assert_eq!((ledger.position(), ledger.watermark(), ledger.pending(), ledger.bytes()), (0, 0, 0, 0));
        let again = ledger.push(10, 1, 'a');
        assert!(again > third);
        for late in [first, second, third] {
            assert_eq!(ledger.settle(late), None);
        }
        assert_eq!(ledger.watermark(), 0);
        assert_eq!(ledger.get_mut(again).map(|kept| std::mem::replace(kept, 'z')), Some('a'));
        assert_eq!(ledger.settle(again), Some('z'));
        assert_eq!(ledger.watermark(), 10);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push {
            gap: i64,
            records: i64,
            bytes: u64,
        },
        Pass {
            by: i64,
        },
        /// A number that picks one of all tickets ever given out, so that settled and forgotten ones come up too.
        Settle {
            pick: prop::sample::Index,
        },
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3i64, 0..4i64, 0..100u64).prop_map(|(gap, records, bytes)| Step::Push { gap, records, bytes }),
            1 => (-3..4i64).prop_map(|by| Step::Pass { by }),
            6 => any::<prop::sample::Index>().prop_map(|pick| Step::Settle { pick }),
            1 => Just(Step::Clear),
        ]
    }

    /// One offset after the other, without any cleverness.
    struct Model {
        /// Offsets taken in and not settled.
        unsettled: BTreeSet<i64>,
        position: i64,
        /// Per ticket: its offsets and bytes while it is not settled.
        open: Vec<Option<(Vec<i64>, u64)>>,
    }

    impl Model {
        fn watermark(&self) -> i64 {
            self.unsettled.first().copied().unwrap_or(self.position)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn the_watermark_is_the_lowest_unsettled_offset(start in 0..1000i64, steps in prop::collection::vec(step(), 0..80)) {
            let mut ledger = Ledger::new(start);
            let mut tickets: Vec<u64> = Vec::new();
            let mut model = Model { unsettled: BTreeSet::new(), position: start, open: Vec::new() };
            for step in steps {
                let before = ledger.watermark();
                match step {
                    Step::Push { gap, records, bytes } => {
                        // An entry covers the gap before its records as well: until it is settled, nobody says that the gap held nothing.
                        let next_offset = model.position + gap + records;
                        let offsets: Vec<i64> = (model.position..next_offset).collect();
                        let ticket = ledger.push(next_offset, bytes, model.open.len());
                        prop_assert!(tickets.last().is_none_or(|last| *last < ticket));
                        tickets.push(ticket);
                        model.unsettled.extend(&offsets);
                        model.open.push(Some((offsets, bytes)));
                        model.position = next_offset;
                    }
                    Step::Pass { by } => {
                        let next_offset = model.position + by;
                        ledger.pass(next_offset);
                        model.position = model.position.max(next_offset);
                    }
                    Step::Settle { pick } => {
                        if tickets.is_empty() { continue }
                        let number = pick.index(tickets.len());
                        let was_open = model.open[number].take();
                        prop_assert_eq!(ledger.get(tickets[number]).copied(), was_open.is_some().then_some(number));
                        prop_assert_eq!(ledger.settle(tickets[number]), was_open.is_some().then_some(number));
                        for offset in was_open.map(|(offsets, _)| offsets).unwrap_or_default() {
                            model.unsettled.remove(&offset);
                        }
                    }
                    Step::Clear => {
                        let open: Vec<usize> = (0..model.open.len()).filter(|&number| model.open[number].is_some()).collect();
                        prop_assert_eq!(ledger.clear_to_watermark(), open);
                        model.position = before;
                        model.unsettled.clear();
                        model.open.fill(None);
                    }
                }
                let pending: Vec<u64> = model.open.iter().flatten().map(|(_, bytes)| *bytes).collect();
                prop_assert!(ledger.watermark() >= before, "the watermark went back");
                prop_assert!(ledger.watermark() <= model.watermark(), "the watermark passed an unsettled offset");
                prop_assert_eq!(ledger.position(), model.position);
                prop_assert_eq!(ledger.pending(), pending.len());
                prop_assert_eq!(ledger.bytes(), pending.iter().sum::<u64>());
                prop_assert_eq!(ledger.is_empty(), pending.is_empty());
                if pending.is_empty() {
                    prop_assert_eq!(ledger.watermark(), ledger.position());
                }
                // An entry without offsets may hold the watermark back; without such entries it is exactly the model's.
                if model.open.iter().flatten().all(|(offsets, _)| !offsets.is_empty()) {
                    prop_assert_eq!(ledger.watermark(), model.watermark());
                }
            }
            for (number, ticket) in tickets.iter().enumerate() {
                prop_assert_eq!(ledger.settle(*ticket).is_some(), model.open[number].is_some());
            }
            prop_assert_eq!(ledger.watermark(), model.position);
        }
    }
}
