//! Chunks: consecutive records of one partition, the unit that crosses from the consumer thread to a partition task.
//!
//! Guarantees that a chunk's records are in offset order, all of one partition and one life of its mailbox, and that `next_offset` is past all of them. Payloads are
//! copied once, into one buffer; a record is a few numbers that point into it, so nothing is allocated per record. Knows nothing of rdkafka.

use crate::memory::{Buffer, Buffers, Charge};

/// A smaller chunk is copied rather than kept in a buffer that is much too large for it.
const WORTH_COPYING: usize = 32 << 10;

/// Consecutive records of one partition. Offsets may have gaps (compaction, transactions), so `next_offset` is explicit.
#[derive(Debug)]
pub struct Chunk {
    data: Buffer,
    records: Vec<RecordMeta>,
    next_offset: i64,
    /// The memory this chunk holds; the pipeline resizes it to what formatting adds and drops it when the records are settled.
    pub charge: Charge,
}

/// Where a record's parts lie in the chunk's buffer.
#[derive(Debug, Clone, Copy)]
struct RecordMeta {
    offset: i64,
    timestamp_ms: i64,
    /// End of key, value and headers in the buffer; each part starts where the one before ends, the key where the record before ends.
    key_end: u32,
    value_end: u32,
    headers_end: u32,
    has_key: bool,
    has_value: bool,
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
    data: Buffer,
    records: Vec<RecordMeta>,
    next_offset: i64,
    expected_bytes: usize,
    expected_records: usize,
}

impl ChunkBuilder {
    /// A builder that takes its buffers from `buffers`.
    pub fn new(buffers: Buffers) -> Self {
        Self { buffers: Some(buffers), ..Self::default() }
    }

    /// Forgets what was appended.
    pub fn clear(&mut self) {
        self.data = Buffer::default();
        self.records.clear();
        self.next_offset = 0;
    }

    /// Whether nothing was appended and no offset was passed.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.next_offset == 0
    }

    /// Bytes appended so far.
    pub fn bytes(&self) -> usize {
        self.data.len()
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
                Some(buffers) => self.data = buffers.take(self.expected_bytes),
                None => self.data.reserve(self.expected_bytes),
            }
            self.records.reserve(self.expected_records);
        }
        self.data.extend_from_slice(key.unwrap_or_default());
        let key_end = self.data.len();
        self.data.extend_from_slice(value.unwrap_or_default());
        let value_end = self.data.len();
        for (name, header_value) in headers {
            push_header(&mut self.data, name, header_value);
        }
        self.records.push(RecordMeta {
            offset,
            timestamp_ms,
            key_end: position(key_end),
            value_end: position(value_end),
            headers_end: position(self.data.len()),
            has_key: key.is_some(),
            has_value: value.is_some(),
        });
        self.next_offset = offset + 1;
    }

    /// Notes that everything below `next_offset` was delivered: control records and compacted ones leave no record behind.
    pub fn pass(&mut self, next_offset: i64) {
        self.next_offset = self.next_offset.max(next_offset);
    }

    /// The bytes that the finished chunk will hold: buffers as they are, not as they are filled.
    pub fn held_bytes(&self) -> u64 {
        let records = self.records.capacity() * size_of::<RecordMeta>();
        u64::try_from(self.data.capacity() + records).unwrap_or(u64::MAX)
    }

    /// Gives back room that was expected and not needed, where that costs little: a large chunk that is not full keeps its room rather than being copied again.
    pub fn fit(&mut self) {
        if self.data.len() < WORTH_COPYING && self.data.capacity() > 2 * self.data.len() + 4096 {
            self.data = Buffer::from(self.data.to_vec());
        }
        if self.records.capacity() > 2 * self.records.len() + 64 {
            self.records.shrink_to_fit();
        }
    }

    /// The finished chunk; the builder is empty again.
    pub fn finish(&mut self, charge: Charge) -> Chunk {
        let data = std::mem::take(&mut self.data);
        let records = std::mem::take(&mut self.records);
        // One small chunk between large ones, as at the end of a turn, must not make the next one grow its buffers from there.
        self.expected_bytes = data.len().max(self.expected_bytes / 2);
        self.expected_records = records.len().max(self.expected_records / 2);
        Chunk { data, records, next_offset: std::mem::take(&mut self.next_offset), charge }
    }
}

impl Chunk {
    /// How many bytes a builder may gather before it must be finished: positions in the buffer are 32 bits, and one record more has to fit.
    pub const MAX_BYTES: usize = 1 << 30;

    /// A chunk of nothing, which holds no memory.
    pub fn empty() -> Self {
        Self { data: Buffer::default(), records: Vec::new(), next_offset: 0, charge: Charge::none() }
    }

    /// Number of records; may be 0 when the chunk only passes offsets.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the chunk has no records.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.data.len()
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
        self.records.get(index).map(|meta| self.resolve(before.map_or(0, |before| before.headers_end), meta))
    }

    /// All records in offset order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        let mut start = 0;
        self.records.iter().map(move |meta| self.resolve(std::mem::replace(&mut start, meta.headers_end), meta))
    }

    fn resolve(&self, start: u32, meta: &RecordMeta) -> Record<'_> {
        let part = |from: u32, to: u32| self.data.get(from as usize..to as usize).unwrap_or_default();
        Record {
            offset: meta.offset,
            timestamp_ms: (meta.timestamp_ms >= 0).then_some(meta.timestamp_ms),
            key: meta.has_key.then(|| part(start, meta.key_end)),
            value: meta.has_value.then(|| part(meta.key_end, meta.value_end)),
            headers: part(meta.value_end, meta.headers_end),
        }
    }
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
}
