//! Bulk bodies: gathering segments into them, splitting them, and keeping of them what has to be sent again.
//!
//! Guarantees that a body is cut at the ends of items only, that every item of every batch keeps its segment and its number there, and that no item is lost or doubled by
//! gathering, halving, isolating or keeping. Owns the layout of a [`Batch`]. Pure: knows no server, no clock and no outcome.
//!
//! Nothing is done per item before something fails, and no byte is copied: a body is the list of its segments' buffers, mostly those that the consumer filled, which are written to the socket one
//! after the other and go back to where they came from when the last holder of a part of them is gone. Only keeping some items of many copies, and only those. (One contiguous body for each request was one more copy of
//! every record: it cost 0.13 of then 0.80 CPU seconds per million records of 300 bytes, in seven turns of `make bench` each way.)

use std::collections::BTreeSet;

use bytes::Bytes;

/// The number under which the sink knows a segment.
pub(crate) type SegmentKey = u64;

/// Consecutive items of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The segment.
    pub(crate) segment: SegmentKey,
    /// The number of the first item in its segment.
    pub(crate) first: u32,
    /// Action and source lines of these items.
    body: Bytes,
    /// Where each item ends in `body`.
    ends: Vec<u32>,
}

impl Part {
    /// A whole segment.
    fn whole(segment: SegmentKey, body: Bytes, ends: Vec<u32>) -> Self {
        Self { segment, first: 0, body, ends }
    }

    /// The number of items.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The lines of an item.
    fn item(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(number).copied().unwrap_or(start);
        self.body.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Divides the items: the first `count`, and the rest. Both share the buffer.
    fn split(mut self, count: usize) -> (Self, Self) {
        let mut ends = self.ends.split_off(count.min(self.ends.len()));
        let moved = self.ends.last().copied().unwrap_or(0);
        ends.iter_mut().for_each(|end| *end -= moved);
        // A segment counts its items in 32 bits, as its ends.
        let first = self.first + self.ends.len() as u32;
        let body = self.body.split_off(self.body.len().min(moved as usize));
        let right = Self { segment: self.segment, first, body, ends };
        (self, right)
    }
}

/// The body of one request, and whose items are in it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Tells batches apart; what is kept of a batch keeps its number.
    pub(crate) id: u64,
    /// The items; their lines one after the other are the body.
    pub(crate) parts: Vec<Part>,
    /// How often its items were tried without any progress.
    pub(crate) attempts: u32,
    /// Whether its items were counted as sent again.
    pub(crate) resent: bool,
}

/// Where an item of a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of its part in the batch.
    pub(crate) part: usize,
    /// Its segment.
    pub(crate) segment: SegmentKey,
    /// Its number in the segment.
    pub(crate) item: u32,
}

impl Batch {
    /// A batch that was never sent.
    fn new(id: u64, parts: Vec<Part>) -> Self {
        Self { id, parts, attempts: 0, resent: false }
    }

    /// The number of items.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// The length of the body in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.body.len()).sum()
    }

    /// The body in pieces; shares the batch's buffers.
    pub(crate) fn body(&self) -> Vec<Bytes> {
        self.parts.iter().map(|part| part.body.clone()).collect()
    }

    /// Takes in the items of another batch, behind its own. It has been tried as often as the one that was tried more.
    pub(crate) fn join(&mut self, other: Self) {
        self.attempts = self.attempts.max(other.attempts);
        self.resent &= other.resent;
        self.parts.extend(other.parts);
    }

    /// Some of its parts, as a batch of its own.
    fn of_parts(&self, id: u64, parts: Vec<Part>) -> Self {
        Self { id, parts, attempts: 0, resent: self.resent }
    }

    /// Two batches with half of the items each; one alone when there is one item only.
    pub(crate) fn halves(mut self, new_id: &mut impl FnMut() -> u64) -> Vec<Self> {
        let half = self.len() / 2;
        if half == 0 {
            return vec![self];
        }
        let mut left = Vec::new();
        let mut right = Vec::new();
        let mut wanted = half;
        for part in std::mem::take(&mut self.parts) {
            if part.len() <= wanted {
                wanted -= part.len();
                left.push(part);
            } else if wanted == 0 {
                right.push(part);
            } else {
                let (before, after) = part.split(wanted);
                wanted = 0;
                left.push(before);
                right.push(after);
            }
        }
        vec![self.of_parts(new_id(), left), self.of_parts(new_id(), right)]
    }

    /// One batch for each segment.
    pub(crate) fn by_segment(mut self, new_id: &mut impl FnMut() -> u64) -> Vec<Self> {
        let mut batches = Vec::new();
        let mut group: Vec<Part> = Vec::new();
        for part in std::mem::take(&mut self.parts) {
            if group.last().is_some_and(|last| last.segment != part.segment) {
                batches.push(self.of_parts(new_id(), std::mem::take(&mut group)));
            }
            group.push(part);
        }
        if !group.is_empty() {
            batches.push(self.of_parts(new_id(), group));
        }
        batches
    }

    /// Whether it holds items of one segment only.
    pub(crate) fn has_one_segment(&self) -> bool {
        self.parts.windows(2).all(|pair| matches!(pair, [left, right] if left.segment == right.segment))
    }

    /// Where each part begins, as positions of items, for [`item_at`](Self::item_at).
    pub(crate) fn part_starts(&self) -> Vec<usize> {
        let lengths = self.parts.iter().map(Part::len);
        lengths
            .scan(0, |next, len| {
                let start = *next;
                *next += len;
                Some(start)
            })
            .collect()
    }

    /// The item at `position`.
    pub(crate) fn item_at(&self, part_starts: &[usize], position: usize) -> Option<Place> {
        let part_number = part_starts.partition_point(|start| *start <= position).checked_sub(1)?;
        let part = self.parts.get(part_number)?;
        let in_part = position - part_starts.get(part_number)?;
        (in_part < part.len()).then_some(Place { part: part_number, segment: part.segment, item: part.first + in_part as u32 })
    }

    /// Whether an item's operation is `create`; the pipeline writes its action lines without spaces.
    pub(crate) fn is_create(&self, place: Place) -> bool {
        let part = self.parts.get(place.part);
        let lines = part.map(|part| part.item(place.item.saturating_sub(part.first) as usize)).unwrap_or_default();
        lines.starts_with(br#"{"create":"#)
    }

    /// Only the items at these positions, which are in order, in a body of their own; the whole batch unchanged when that is all of them.
    pub(crate) fn keep(self, positions: &[usize]) -> Self {
        if positions.len() == self.len() {
            return self;
        }
        let mut copy = Copying::default();
        let mut wanted = positions.iter().copied().peekable();
        let mut before = 0;
        for part in &self.parts {
            while let Some(position) = wanted.next_if(|position| *position < before + part.len()) {
                let number = position - before;
                copy.item(part, number);
            }
            before += part.len();
        }
        Self { parts: copy.finish(), ..self }
    }

    /// Without the items of segments that are not `wanted` any more.
    pub(crate) fn without(mut self, mut wanted: impl FnMut(SegmentKey) -> bool) -> Self {
        let gone: BTreeSet<SegmentKey> = self.parts.iter().map(|part| part.segment).filter(|segment| !wanted(*segment)).collect();
        if !gone.is_empty() {
            self.parts.retain(|part| !gone.contains(&part.segment));
        }
        self
    }
}

/// Single items, copied into one buffer: few items of many would otherwise keep all buffers that they come from.
#[derive(Default)]
struct Copying {
    bytes: Vec<u8>,
    runs: Vec<Run>,
}

/// Copied items that follow each other in their segment.
struct Run {
    segment: SegmentKey,
    first: u32,
    /// Where it starts in the buffer.
    start: usize,
    ends: Vec<u32>,
}

impl Copying {
    fn item(&mut self, from: &Part, number: usize) {
        let start = self.bytes.len();
        let lines = from.item(number);
        self.bytes.extend_from_slice(lines);
        let number_in_segment = from.first + number as u32;
        let continues = self.runs.last_mut().filter(|last| last.segment == from.segment && last.first + last.ends.len() as u32 == number_in_segment);
        match continues {
            Some(last) => last.ends.push((self.bytes.len() - last.start) as u32),
            None => self.runs.push(Run { segment: from.segment, first: number_in_segment, start, ends: vec![lines.len() as u32] }),
        }
    }

    fn finish(self) -> Vec<Part> {
        let mut rest = Bytes::from(self.bytes);
        let runs = self.runs.into_iter().map(|run| {
            let bytes = run.ends.last().copied().unwrap_or(0) as usize;
            Part { segment: run.segment, first: run.first, body: rest.split_to(bytes.min(rest.len())), ends: run.ends }
        });
        runs.collect()
    }
}

/// The body that is being gathered.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    bytes: usize,
    parts: Vec<Part>,
}

impl Gathering {
    /// Whether nothing was gathered.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes gathered so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a segment.
    pub(crate) fn add(&mut self, segment: SegmentKey, body: Bytes, ends: Vec<u32>) {
        self.bytes += body.len();
        self.parts.push(Part::whole(segment, body, ends));
    }

    /// Takes what was gathered; `None` when that is nothing.
    pub(crate) fn take(&mut self, new_id: &mut impl FnMut() -> u64) -> Option<Batch> {
        if self.is_empty() {
            return None;
        }
        self.bytes = 0;
        Some(Batch::new(new_id(), std::mem::take(&mut self.parts)))
    }
}

/// Whether a segment's ends describe its body: increasing, the last one at the body's end, at least one.
pub(crate) fn is_well_formed(body: &[u8], ends: &[u32]) -> bool {
    let increases = ends.windows(2).all(|pair| matches!(pair, [left, right] if left < right));
    increases && ends.first().is_some_and(|first| *first > 0) && ends.last().is_some_and(|last| *last as usize == body.len())
}

/// One segment as batches of its own, none larger than `max_bytes`, save those of a single item.
pub(crate) fn alone(segment: SegmentKey, body: Bytes, ends: Vec<u32>, max_bytes: usize, new_id: &mut impl FnMut() -> u64) -> Vec<Batch> {
    let mut rest = Part::whole(segment, body, ends);
    let mut batches = Vec::new();
    while rest.len() > 0 {
        let fitting = rest.ends.partition_point(|end| *end as usize <= max_bytes).max(1);
        let (piece, after) = rest.split(fitting);
        batches.push(Batch::new(new_id(), vec![piece]));
        rest = after;
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::Buffers;

    /// A segment whose items are their own names, of growing lengths.
    fn segment(key: SegmentKey, items: u32) -> (Vec<u8>, Vec<u32>) {
        let mut body = Vec::new();
        let mut ends = Vec::new();
        for item in 0..items {
            body.extend_from_slice(name(key, item).as_bytes());
            ends.push(body.len() as u32);
        }
        (body, ends)
    }

    fn name(key: SegmentKey, item: u32) -> String {
        format!("{key}/{item}{}\n", ".".repeat(item as usize % 7))
    }

    fn gathered(segments: &[u32]) -> Batch {
        let mut gathering = Gathering::default();
        for (key, items) in segments.iter().enumerate() {
            let (body, ends) = segment(key as u64, *items);
            gathering.add(key as u64, Bytes::from(body), ends);
        }
        gathering.take(&mut counter()).unwrap()
    }

    fn counter() -> impl FnMut() -> u64 {
        let mut last = 0;
        move || {
            last += 1;
            last
        }
    }

    /// The items that a batch says it holds; fails when the body holds something else.
    fn items(batch: &Batch) -> Vec<(SegmentKey, u32)> {
        let mut found = Vec::new();
        let mut body = String::new();
        let starts = batch.part_starts();
        for position in 0..batch.len() {
            let place = batch.item_at(&starts, position).unwrap();
            body.push_str(&name(place.segment, place.item));
            found.push((place.segment, place.item));
        }
        assert_eq!(String::from_utf8_lossy(&batch.body().concat()), body);
        assert_eq!(batch.bytes(), body.len());
        assert_eq!(batch.item_at(&starts, batch.len()), None);
        found
    }

    #[test]
    fn a_segments_buffer_goes_back_with_the_last_batch_that_needs_it() {
        let buffers = Buffers::new(1 << 20);
        let (lines, ends) = segment(7, 4);
        let mut body = buffers.take(lines.len());
        body.extend_from_slice(&lines);
        let address = body.as_ptr();
        let mut gathering = Gathering::default();
        gathering.add(7, Bytes::from_owner(body), ends);
        let mut halves = gathering.take(&mut counter()).unwrap().halves(&mut counter());
        let on_the_wire = halves.pop().unwrap().body();
        drop(halves);
        assert_ne!(buffers.take(lines.len()).as_ptr(), address, "still being sent");
        drop(on_the_wire);
        assert_eq!(buffers.take(lines.len()).as_ptr(), address);
    }

    #[test]
    fn what_is_kept_does_not_hold_the_buffers_of_the_rest() {
        let buffers = Buffers::new(1 << 20);
        let (lines, ends) = segment(7, 4);
        let mut body = buffers.take(lines.len());
        body.extend_from_slice(&lines);
        let address = body.as_ptr();
        let mut gathering = Gathering::default();
        gathering.add(7, Bytes::from_owner(body), ends);
        let kept = gathering.take(&mut counter()).unwrap().keep(&[2]);
        assert_eq!((items(&kept), buffers.take(lines.len()).as_ptr()), (vec![(7, 2)], address));
    }

    #[test]
    fn a_single_item_cannot_be_halved() {
        assert_eq!(gathered(&[1]).halves(&mut counter()).len(), 1);
    }

    #[test]
    fn a_segment_that_does_not_describe_itself_is_noticed() {
        assert!(is_well_formed(b"ab", &[1, 2]));
        assert!(!is_well_formed(b"ab", &[1]));
        assert!(!is_well_formed(b"ab", &[2, 1]));
        assert!(!is_well_formed(b"ab", &[0, 2]));
        assert!(!is_well_formed(b"ab", &[1, 3]));
        assert!(!is_well_formed(b"", &[]));
    }

    proptest! {
        #[test]
        fn halving_loses_and_doubles_nothing(segments in prop::collection::vec(1u32..9, 1..6), depth in 1usize..6) {
            let whole = gathered(&segments);
            let expected = items(&whole);
            let mut batches = vec![whole];
            let mut new_id = counter();
            for _ in 0..depth {
                batches = batches.into_iter().flat_map(|batch| batch.halves(&mut new_id)).collect();
            }
            prop_assert_eq!(batches.iter().flat_map(items).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn isolating_leaves_one_segment_in_each(segments in prop::collection::vec(1u32..9, 1..6)) {
            let whole = gathered(&segments);
            let expected = items(&whole);
            let batches = whole.by_segment(&mut counter());
            prop_assert!(batches.iter().all(Batch::has_one_segment));
            prop_assert_eq!(batches.len(), segments.len());
            prop_assert_eq!(batches.iter().flat_map(items).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn keeping_keeps_exactly_what_failed(segments in prop::collection::vec(1u32..9, 1..6), mask: u64) {
            let whole = gathered(&segments);
            let all = items(&whole);
            let positions: Vec<usize> = (0..all.len()).filter(|position| mask >> (position % 64) & 1 == 1).collect();
            let kept = whole.keep(&positions);
            prop_assert_eq!(items(&kept), positions.iter().map(|position| all[*position]).collect::<Vec<_>>());
            let again: Vec<usize> = (0..kept.len()).step_by(2).collect();
            let before = items(&kept);
            prop_assert_eq!(items(&kept.keep(&again)), before.into_iter().step_by(2).collect::<Vec<_>>());
        }

        #[test]
        fn a_segment_that_is_gone_is_not_sent(segments in prop::collection::vec(1u32..9, 1..6), mask: u64) {
            let whole = gathered(&segments);
            let wanted = |key: SegmentKey| mask >> key & 1 == 1;
            let expected: Vec<_> = items(&whole).into_iter().filter(|(key, _)| wanted(*key)).collect();
            prop_assert_eq!(items(&whole.without(wanted)), expected);
        }

        #[test]
        fn a_large_segment_is_cut_at_items_only(count in 1u32..60, max_bytes in 1usize..100) {
            let (body, ends) = segment(3, count);
            let batches = alone(3, Bytes::from(body), ends, max_bytes, &mut counter());
            prop_assert!(batches.iter().all(|batch| batch.bytes() <= max_bytes || batch.len() == 1));
            prop_assert_eq!(batches.iter().flat_map(items).collect::<Vec<_>>(), (0..count).map(|item| (3, item)).collect::<Vec<_>>());
        }
    }
}
