//! Chunks: consecutive records of one partition, the unit that crosses from the consumer thread to a partition task.
//!
//! Guarantees that a chunk's records are in offset order, all of one partition and one life of its mailbox, and that `next_offset` is past all of them. Payloads are
//! copied once; a record is a few numbers that point to where it lies, so nothing is allocated per record. Knows nothing of rdkafka.
//!
//! Values lie one after the other in one buffer, keys and headers in another. Where a task asks for [`Headroom`], each value has free bytes before it and an LF after it: what the task writes
//! there makes lines of the whole buffer, and the buffer itself is sent. (A second copy of every record, into a body of its own, was 6 % of the CPU, and half of what a record held until it was settled.)

use bytes::Bytes;

use crate::memory::{Buffer, Buffers, Charge};

/// A smaller chunk is copied rather than kept in a buffer that is much too large for it.
const WORTH_COPYING: usize = 32 << 10;

/// How many bytes are left free before each value: these, and one for each decimal digit of the record's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom(pub u16);

impl Headroom {
    fn before(self, offset: i64) -> u16 {
        // An offset has at most 19 digits.
        let digits = offset.max(0).checked_ilog10().unwrap_or(0) as u16 + 1;
        self.0.saturating_add(digits)
    }
}

/// Consecutive records of one partition. Offsets may have gaps (compaction, transactions), so `next_offset` is explicit.
#[derive(Debug)]
pub struct Chunk {
    values: Values,
    /// Keys and headers.
    beside: Vec<u8>,
    records: Vec<RecordMeta>,
    next_offset: i64,
    /// The memory this chunk holds; the pipeline resizes it to what formatting adds and drops it when the records are settled.
    pub charge: Charge,
}

/// The values, with what is around them.
#[derive(Debug)]
enum Values {
    /// The chunk's alone: the room before the values may be written to.
    Own(Buffer),
    /// Lines, of which others hold parts.
    Shared(Bytes),
}

/// Where a record's parts lie in the chunk's buffers.
#[derive(Debug, Clone, Copy)]
struct RecordMeta {
    offset: i64,
    timestamp_ms: i64,
    /// Where the value ends. It starts behind its headroom, and that where the record before ends.
    value_end: u32,
    /// Where key and headers end in the other buffer; the key starts where the headers before end.
    key_end: u32,
    headers_end: u32,
    /// Free bytes before the value; with some, an LF follows the value.
    headroom: u16,
    has_key: bool,
    has_value: bool,
}

impl RecordMeta {
    /// Where the record ends among the values.
    fn end(&self) -> u32 {
        self.value_end.saturating_add(u32::from(self.headroom > 0))
    }
}

/// A place in both buffers.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    value: u32,
    beside: u32,
}

impl Place {
    fn after(meta: &RecordMeta) -> Self {
        Self { value: meta.end(), beside: meta.headers_end }
    }
}

/// A record whose lines may be written where it lies.
#[derive(Debug)]
pub struct Slot<'a> {
    /// The record's offset.
    pub offset: i64,
    /// Milliseconds since 1970; `None` where the record has none.
    pub timestamp_ms: Option<i64>,
    /// The free bytes before the value; none where no room was asked for, and where there is no value.
    pub head: &'a mut [u8],
    /// The value's bytes; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// One record, borrowed from its chunk.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The record's offset.
    pub offset: i64,
    /// Milliseconds since 1970; `None` where the record has none.
    pub timestamp_ms: Option<i64>,
    /// The key's bytes; `None` for a null key.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

/// One header, borrowed from its record. A null value is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's name.
    pub name: &'a str,
    /// Its bytes.
    pub value: Option<&'a [u8]>,
}

/// Fills a chunk, one record after the other. It begins each chunk with the room that the one before needed, so that a steady stream does not grow its buffers again and again.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    buffers: Option<Buffers>,
    headroom: Option<Headroom>,
    values: Buffer,
    beside: Vec<u8>,
    records: Vec<RecordMeta>,
    next_offset: i64,
    expected_bytes: usize,
    expected_beside: usize,
    expected_records: usize,
}

impl ChunkBuilder {
    /// A builder that takes its buffers from `buffers`.
    pub fn new(buffers: Buffers) -> Self {
        Self { buffers: Some(buffers), ..Self::default() }
    }

    /// What is left free before the values from the next record on.
    pub fn leave_room(&mut self, headroom: Option<Headroom>) {
        self.headroom = headroom;
    }

    /// Forgets what was appended.
    pub fn clear(&mut self) {
        self.values = Buffer::default();
        self.beside.clear();
        self.records.clear();
        self.next_offset = 0;
    }

    /// Whether nothing was appended and no offset was passed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.next_offset == 0
    }

    /// Whether a record with this many bytes at this offset would make the chunk longer than `limit`.
    pub fn would_exceed(&self, limit: usize, offset: i64, record_bytes: usize) -> bool {
        let around = self.headroom.map_or(0, |headroom| usize::from(headroom.before(offset)) + 1);
        self.values.len() + self.beside.len() + record_bytes + around > limit
    }

    /// Number of records appended so far.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Appends a record. `headers` yields name and value; pass an empty iterator where nobody wants them. `timestamp_ms` below 0 means none.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        if self.records.is_empty() {
            match &self.buffers {
                Some(buffers) => self.values = buffers.take(self.expected_bytes),
                None => self.values.reserve(self.expected_bytes),
            }
            self.beside.reserve(self.expected_beside);
            self.records.reserve(self.expected_records);
        }
        let headroom = self.headroom.filter(|_| value.is_some()).map_or(0, |headroom| headroom.before(offset));
        let value_end = self.push_value(value.unwrap_or_default(), headroom);
        self.beside.extend_from_slice(key.unwrap_or_default());
        let key_end = self.beside.len();
        for (name, header_value) in headers {
            push_header(&mut self.beside, name, header_value);
        }
        self.records.push(RecordMeta {
            offset,
            timestamp_ms,
            value_end: position(value_end),
            key_end: position(key_end),
            headers_end: position(self.beside.len()),
            headroom,
            has_key: key.is_some(),
            has_value: value.is_some(),
        });
        self.next_offset = offset + 1;
    }

    /// Appends a value with what is around it; answers where it ends.
    fn push_value(&mut self, value: &[u8], headroom: u16) -> usize {
        if headroom == 0 {
            self.values.extend_from_slice(value);
            return self.values.len();
        }
        let start = self.values.len() + usize::from(headroom);
        // At once, so that the three that follow find their room.
        self.values.reserve(usize::from(headroom) + value.len() + 1);
        self.values.resize(start, 0);
        self.values.extend_from_slice(value);
        self.values.push(b'\n');
        start + value.len()
    }

    /// Notes that everything below `next_offset` was delivered: control records and compacted ones leave no record behind.
    pub fn pass(&mut self, next_offset: i64) {
        self.next_offset = self.next_offset.max(next_offset);
    }

    /// The bytes that the finished chunk will hold: buffers as they are, not as they are filled.
    pub fn held_bytes(&self) -> u64 {
        let records = self.records.capacity() * size_of::<RecordMeta>();
        u64::try_from(self.values.capacity() + self.beside.capacity() + records).unwrap_or(u64::MAX)
    }

    /// Gives back room that was expected and not needed, where that costs little: a large chunk that is not full keeps its room rather than being copied again.
    pub fn fit(&mut self) {
        if self.values.len() < WORTH_COPYING && self.values.capacity() > 2 * self.values.len() + 4096 {
            self.values = Buffer::from(self.values.to_vec());
        }
        if self.beside.capacity() > 2 * self.beside.len() + 4096 {
            self.beside.shrink_to_fit();
        }
        if self.records.capacity() > 2 * self.records.len() + 64 {
            self.records.shrink_to_fit();
        }
    }

    /// The finished chunk; the builder is empty again.
    pub fn finish(&mut self, charge: Charge) -> Chunk {
        let values = std::mem::take(&mut self.values);
        let beside = std::mem::take(&mut self.beside);
        let records = std::mem::take(&mut self.records);
        // One small chunk between large ones, as at the end of a turn, must not make the next one grow its buffers from there.
        self.expected_bytes = values.len().max(self.expected_bytes / 2);
        self.expected_beside = beside.len().max(self.expected_beside / 2);
        self.expected_records = records.len().max(self.expected_records / 2);
        Chunk { values: Values::Own(values), beside, records, next_offset: std::mem::take(&mut self.next_offset), charge }
    }
}

impl Values {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Own(buffer) => buffer,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Chunk {
    /// How many bytes a builder may gather before it must be finished: positions in the buffers are 32 bits, and one record more has to fit.
    pub const MAX_BYTES: usize = 1 << 30;

    /// A chunk of nothing, which holds no memory.
    pub fn empty() -> Self {
        Self { values: Values::Own(Buffer::default()), beside: Vec::new(), records: Vec::new(), next_offset: 0, charge: Charge::none() }
    }

    /// Number of records; may be 0 when the chunk only passes offsets.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the chunk has no records.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys, values and headers, and of what is around the values.
    pub fn bytes(&self) -> usize {
        self.values.as_slice().len() + self.beside.len()
    }

    /// The offset after the last one that this chunk covers.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The offset of the first record, if there is one.
    pub fn first_offset(&self) -> Option<i64> {
        self.records.first().map(|meta| meta.offset)
    }

    /// The record at `index`, if it exists.
    pub fn record(&self, index: usize) -> Option<Record<'_>> {
        let before = index.checked_sub(1).and_then(|before| self.records.get(before));
        self.records.get(index).map(|meta| self.resolve(before.map_or(Place::default(), Place::after), meta))
    }

    /// All records in offset order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        let mut start = Place::default();
        self.records.iter().map(move |meta| self.resolve(std::mem::replace(&mut start, Place::after(meta)), meta))
    }

    /// All records in offset order, with the room before their values; `None` when the values are shared already.
    pub fn slots(&mut self) -> Option<impl Iterator<Item = Slot<'_>>> {
        let Values::Own(buffer) = &mut self.values else { return None };
        let mut rest = buffer.as_mut_slice();
        let mut start = 0_u32;
        Some(self.records.iter().map(move |meta| {
            let head = rest.split_off_mut(..usize::from(meta.headroom)).unwrap_or_default();
            let value_start = start.saturating_add(u32::from(meta.headroom));
            let tail = rest.split_off_mut(..meta.end().saturating_sub(value_start) as usize).unwrap_or_default();
            start = meta.end();
            // Without the LF, where there is one.
            let value = tail.get(..meta.value_end.saturating_sub(value_start) as usize).unwrap_or_default();
            Slot { offset: meta.offset, timestamp_ms: timestamp(meta), head, value: meta.has_value.then_some(value) }
        }))
    }

    /// The values with what is around them, to be held by others too. From now on the room before the values can not be written to.
    pub fn share(&mut self) -> Bytes {
        let shared = match std::mem::replace(&mut self.values, Values::Own(Buffer::default())) {
            Values::Own(buffer) => Bytes::from_owner(buffer),
            Values::Shared(bytes) => bytes,
        };
        self.values = Values::Shared(shared.clone());
        shared
    }

    /// For each record where it ends in what [`share`](Self::share) gives; `None` for a tombstone, which is not there.
    pub fn ends(&self) -> impl ExactSizeIterator<Item = Option<u32>> {
        self.records.iter().map(|meta| meta.has_value.then(|| meta.end()))
    }

    fn resolve(&self, start: Place, meta: &RecordMeta) -> Record<'_> {
        let values = self.values.as_slice();
        let value_start = start.value.saturating_add(u32::from(meta.headroom));
        Record {
            offset: meta.offset,
            timestamp_ms: timestamp(meta),
            key: meta.has_key.then(|| part(&self.beside, start.beside, meta.key_end)),
            value: meta.has_value.then(|| part(values, value_start, meta.value_end)),
            headers: part(&self.beside, meta.key_end, meta.headers_end),
        }
    }
}

fn timestamp(meta: &RecordMeta) -> Option<i64> {
    (meta.timestamp_ms >= 0).then_some(meta.timestamp_ms)
}

fn part(bytes: &[u8], from: u32, to: u32) -> &[u8] {
    bytes.get(from as usize..to as usize).unwrap_or_default()
}

impl<'a> Record<'a> {
    /// The record's headers, as far as the consumer was asked to copy them.
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.headers }
    }
}

/// Iterator over a record's headers.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let (name, rest) = take_block(self.rest)?;
        let (flag, rest) = rest.split_first()?;
        let (value, rest) = take_block(rest)?;
        self.rest = rest;
        Some(Header { name: std::str::from_utf8(name).ok()?, value: (*flag == 1).then_some(value) })
    }
}

fn push_header(data: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    push_block(data, name.as_bytes());
    data.push(u8::from(value.is_some()));
    push_block(data, value.unwrap_or_default());
}

fn push_block(data: &mut Vec<u8>, block: &[u8]) {
    data.extend_from_slice(&position(block.len()).to_le_bytes());
    data.extend_from_slice(block);
}

fn take_block(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// A position as 32 bits. Chunks are finished at [`Chunk::MAX_BYTES`] and a record is at most 1 GiB (`message.max.bytes`), so this never saturates.
fn position(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    #[test]
    fn parts_of_a_record_come_back_as_they_went_in() {
        let budget = Budget::new(1000);
        let mut builder = ChunkBuilder::default();
        assert!(builder.is_empty());
        builder.push(7, 1000, Some(b"key"), Some(b"value"), [("a", Some(&b"1"[..])), ("b", None)].into_iter());
        builder.push(9, -1, None, None, std::iter::empty());
        builder.push(10, 5, Some(b""), Some(b""), std::iter::empty());
        builder.pass(12);
        let chunk = builder.finish(budget.charge(10));
        assert!(builder.is_empty());
        assert_eq!((chunk.len(), chunk.first_offset(), chunk.next_offset()), (3, Some(7), 12));
        let records: Vec<_> = chunk.records().collect();
        assert_eq!((records[0].key, records[0].value, records[0].timestamp_ms), (Some(&b"key"[..]), Some(&b"value"[..]), Some(1000)));
        let headers: Vec<_> = records[0].headers().collect();
        assert_eq!(headers, [Header { name: "a", value: Some(b"1") }, Header { name: "b", value: None }]);
        assert_eq!((records[1].key, records[1].value, records[1].timestamp_ms), (None, None, None));
        assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), Some(&b""[..])));
        assert_eq!(records[2].headers().count(), 0);
        for (index, record) in records.iter().enumerate() {
            let alone = chunk.record(index).unwrap();
            assert_eq!((alone.offset, alone.key, alone.value), (record.offset, record.key, record.value));
            assert!(alone.headers().eq(record.headers()));
        }
    }

    /// A chunk of these values, keys aside, with room before each.
    fn roomy(values: &[(i64, Option<&[u8]>)], headroom: u16) -> Chunk {
        let mut builder = ChunkBuilder::default();
        builder.leave_room(Some(Headroom(headroom)));
        for (offset, value) in values {
            builder.push(*offset, 5, Some(b"key"), *value, [("name", Some(&b"header"[..]))].into_iter());
        }
        builder.finish(Budget::new(1000).charge(10))
    }

    #[test]
    fn what_is_written_before_the_values_makes_lines_and_changes_no_record() {
        let values = [(8, Some(&b"a"[..])), (9, None), (10, Some(&b"bc\n"[..])), (123, Some(&b""[..]))];
        let mut chunk = roomy(&values, 2);
        for slot in chunk.slots().expect("not shared") {
            slot.head.fill(b'-');
        }
        assert_eq!(chunk.ends().collect::<Vec<_>>(), [Some(5), None, Some(13), Some(19)]);
        let lines = chunk.share();
        assert_eq!(lines, b"---a\n----bc\n\n-----\n"[..]);
        assert!(chunk.slots().is_none());
        assert_eq!(chunk.share().as_ptr(), lines.as_ptr(), "copied");
        for (record, (offset, value)) in chunk.records().zip(values) {
            assert_eq!((record.offset, record.key, record.value), (offset, Some(&b"key"[..]), value));
            assert_eq!(record.headers().collect::<Vec<_>>(), [Header { name: "name", value: Some(b"header") }]);
        }
    }

    #[test]
    fn a_shared_buffer_goes_back_when_chunk_and_lines_are_gone() {
        let buffers = Buffers::new(1 << 20);
        let mut builder = ChunkBuilder::new(buffers.clone());
        builder.push(1, 1, None, Some(&[b'x'; 40 << 10]), std::iter::empty());
        let mut chunk = builder.finish(Budget::new(1).charge(0));
        let lines = chunk.share();
        let address = lines.as_ptr();
        drop(chunk);
        assert_ne!(buffers.take(100).as_ptr(), address, "still being sent");
        drop(lines);
        assert_eq!(buffers.take(100).as_ptr(), address);
    }

    #[test]
    fn a_record_that_would_make_the_buffer_grow_begins_the_next_chunk() {
        let mut builder = ChunkBuilder::default();
        builder.leave_room(Some(Headroom(70)));
        builder.push(99, 1, None, Some(&[b'x'; 100]), std::iter::empty());
        // 100 bytes, an LF, and room for two digits; the next has three.
        assert!(!builder.would_exceed(173 + 174, 100, 100));
        assert!(builder.would_exceed(173 + 173, 100, 100));
    }

    #[test]
    fn records_of_before_the_room_was_asked_for_have_none() {
        let mut builder = ChunkBuilder::default();
        builder.push(1, 1, None, Some(b"old"), std::iter::empty());
        builder.leave_room(Some(Headroom(3)));
        builder.push(2, 1, None, Some(b"new"), std::iter::empty());
        let mut chunk = builder.finish(Budget::new(1).charge(0));
        assert_eq!(chunk.slots().expect("not shared").map(|slot| slot.head.len()).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(chunk.records().map(|record| record.value).collect::<Vec<_>>(), [Some(&b"old"[..]), Some(b"new")]);
    }
}
