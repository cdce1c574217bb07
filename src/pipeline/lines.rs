//! The bulk lines of a whole chunk.
//!
//! Guarantees that each record of the chunk is one item of the lines, in order, or named among those that became none, and that the same chunk becomes the same lines again. Where every value is
//! passed on as it is, the chunk's own buffer becomes the lines; else they are copied into another. Pure, save for the buffer it takes.

use bytes::Bytes;

use super::format::{Formatted, Formatter};
use crate::dead_letters::Cause;
use crate::kafka::chunk::Chunk;
use crate::memory::Buffers;

/// What an action line and a document's frame add to a record, roughly; the body grows where it is more.
const ROOM_PER_RECORD: usize = 160;

/// What a chunk became.
#[derive(Debug)]
pub struct Lines {
    /// Action and source lines of all items.
    pub body: Bytes,
    /// Where each item ends in the body.
    pub ends: Vec<u32>,
    /// The records that became no item.
    pub others: Others,
    /// The bytes that the body holds besides the chunk's own buffer.
    pub copied_bytes: u64,
}

/// Records of a chunk that became no item.
#[derive(Debug, Default)]
pub struct Others {
    /// Their numbers in the chunk, in order.
    pub numbers: Vec<u32>,
    /// Those that have no document, with why.
    pub deaths: Vec<(u32, Cause, String)>,
    /// How many were skipped.
    pub skipped: u64,
}

impl Others {
    fn skip(&mut self, number: u32) {
        self.numbers.push(number);
        self.skipped += 1;
    }
}

/// Makes the lines of `chunk`. `at` is told each offset before its record is touched.
pub fn of_chunk(chunk: &mut Chunk, formatter: &mut Formatter, buffers: &Buffers, mut at: impl FnMut(i64)) -> Lines {
    if fill(chunk, formatter, &mut at) { in_place(chunk) } else { copy(chunk, formatter, buffers, &mut at) }
}

/// Writes all action lines into the chunk; `false` when some of its records need a copy.
fn fill(chunk: &mut Chunk, formatter: &mut Formatter, at: &mut impl FnMut(i64)) -> bool {
    // What is shared was filled before.
    let Some(mut slots) = chunk.slots() else { return true };
    slots.all(|mut slot| {
        at(slot.offset);
        formatter.fill(&mut slot)
    })
}

fn in_place(chunk: &mut Chunk) -> Lines {
    let mut ends = Vec::with_capacity(chunk.len());
    let mut others = Others::default();
    for (number, end) in (0_u32..).zip(chunk.ends()) {
        match end {
            Some(end) => ends.push(end),
            None => others.skip(number),
        }
    }
    Lines { body: chunk.share(), ends, others, copied_bytes: 0 }
}

fn copy(chunk: &Chunk, formatter: &mut Formatter, buffers: &Buffers, at: &mut impl FnMut(i64)) -> Lines {
    let mut body = buffers.take(chunk.bytes() + chunk.len() * ROOM_PER_RECORD);
    let mut ends = Vec::with_capacity(chunk.len());
    let mut others = Others::default();
    for (number, record) in (0_u32..).zip(chunk.records()) {
        at(record.offset);
        match formatter.append(&record, &mut body) {
            // A body longer than 4 GiB cannot come from a chunk of at most 1 GiB.
            Formatted::Document => ends.push(u32::try_from(body.len()).unwrap_or(u32::MAX)),
            Formatted::Skipped => others.skip(number),
            Formatted::Dead { cause, reason } => {
                others.numbers.push(number);
                others.deaths.push((number, cause, reason));
            }
        }
    }
    Lines { copied_bytes: body.capacity() as u64, body: Bytes::from_owner(body), ends, others }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::chunk::{ChunkBuilder, Headroom};
    use crate::memory::Budget;
    use crate::topic::{Format, TopicName, TopicSpec};

    fn formatter() -> Formatter {
        let spec = TopicSpec { format: Format::Json, ..TopicSpec::default() };
        Formatter::new(&TopicName::new("orders").expect("legal"), 3, "id", &spec)
    }

    fn chunk(values: &[Option<&str>], headroom: Option<Headroom>) -> Chunk {
        let mut builder = ChunkBuilder::default();
        builder.leave_room(headroom);
        for (offset, value) in (7..).zip(values) {
            builder.push(offset, 1, None, value.map(str::as_bytes), std::iter::empty());
        }
        builder.finish(Budget::new(1).charge(0))
    }

    /// The lines of these values, made twice; and whether they are the chunk's own bytes.
    fn lines(values: &[Option<&str>]) -> (Lines, bool) {
        let (mut formatter, buffers) = (formatter(), Buffers::new(0));
        let mut chunk = chunk(values, formatter.headroom());
        let mut offsets = Vec::new();
        let first = of_chunk(&mut chunk, &mut formatter, &buffers, |offset| offsets.push(offset));
        assert!((7..7 + values.len() as i64).all(|offset| offsets.contains(&offset)), "not told of each record");
        let again = of_chunk(&mut chunk, &mut formatter, &buffers, |_| {});
        assert_eq!((&again.body, &again.ends, &again.others.numbers), (&first.body, &first.ends, &first.others.numbers));
        (first, chunk.slots().is_none())
    }

    #[test]
    fn a_tombstone_among_documents_needs_no_copy() {
        let (lines, is_in_place) = lines(&[Some("{}"), None, Some(r#"{"a":1}"#)]);
        assert!(is_in_place);
        assert_eq!((lines.copied_bytes, lines.others.skipped, lines.others.numbers), (0, 1, vec![1]));
        let text = "{\"index\":{\"_index\":\"orders\",\"_id\":\"id:3:7\"}}\n{}\n{\"index\":{\"_index\":\"orders\",\"_id\":\"id:3:9\"}}\n{\"a\":1}\n";
        assert_eq!(String::from_utf8_lossy(&lines.body), text);
        assert_eq!(lines.ends.last().copied(), Some(text.len() as u32));
    }

    #[test]
    fn one_record_that_needs_a_copy_costs_the_others_nothing_but_the_copy() {
        let (lines, is_in_place) = lines(&[Some("{}"), Some("no object"), None, Some("{\n}")]);
        assert!(!is_in_place && lines.copied_bytes > 0);
        assert_eq!((lines.ends.len(), lines.others.skipped, lines.others.numbers), (2, 1, vec![1, 2]));
        assert!(matches!(lines.others.deaths.as_slice(), [(1, Cause::Format, _)]));
        assert!(lines.body.ends_with(b"\"id:3:10\"}}\n{ }\n"), "{}", String::from_utf8_lossy(&lines.body));
    }
}
