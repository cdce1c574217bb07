//! From a record to its two bulk lines: the action and the source.
//!
//! Guarantees: for any bytes whatsoever the two lines hold exactly two LFs, each at the end of its line, and no CR; sources made by us
//! (`text`, `classic`, the `kafka` object) are legal JSON; a `json` record is passed on byte for byte except that LF and CR become spaces; the
//! id depends on topic, partition and offset only, so a repeated record overwrites itself. Nothing is allocated per document besides the growth
//! of the body: what is the same for all records of an index is kept ready. Pure: no clock, no I/O. Decides which records have no document
//! (tombstones, `json` that is no object); what the server thinks of a document is the sink's business.
//!
//! A value that is passed on as it is needs no copy: [`Formatter::fill`] writes its action line into the room that the chunk left before it, as much as [`Formatter::headroom`] says.
//!
//! Measured with records of 300 bytes on one core of a shared AMD EPYC, release build, nanoseconds per record: `json` 55 (with a date in the
//! index 57, pretty-printed 60, with metadata 430), `auto` with JSON 380, `classic` 97 (with 60 quotes to escape 410, Chinese text 290), `text`
//! 146, `text` without metadata 96.

mod scan;
mod write;

use std::collections::VecDeque;
use std::ops::Range;

use crate::dead_letters::Cause;
use crate::kafka::chunk::{Headroom, Record, Slot};
use crate::mutants;
use crate::topic::{Format, IndexTemplate, Metadata, Operation, Tombstones, TopicName, TopicSpec};

use scan::{ObjectFacts, scan_object};
use write::{TimeWriter, decimal, escaped, escaped_lossy, has_line_ends, quoted, quoted_base64, sayable, without_line_ends};

/// The name of the object that says where a document came from.
const METADATA_FIELD: &str = "kafka";
/// How many indices besides the current one have their action lines kept. Around midnight records of two days alternate, and late producers add a few more.
const KEPT_ACTIONS: usize = 7;
/// Stands for no offset in a line that no record had yet.
const NO_OFFSET: i64 = -1;
/// Room for everything around the value, so that the body grows at most once per record: the longest index name (255) and id, and small change.
const AROUND: usize = 512;

/// What one record became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formatted {
    /// Two lines were appended.
    Document,
    /// A tombstone under the policy `skip`; nothing was appended.
    Skipped,
    /// The record has no document; nothing was appended.
    Dead {
        /// Why, as the dead letter says it.
        cause: Cause,
        /// The same in words.
        reason: String,
    },
}

/// Formats the records of one partition; made once per life of a task.
#[derive(Debug)]
pub struct Formatter {
    topic: TopicName,
    template: IndexTemplate,
    format: Format,
    tombstones: Tombstones,
    with_metadata: WithMetadata,
    lines: Lines,
    current: Action,
    /// The last ones used besides the current.
    others: VecDeque<Action>,
    times: TimeWriter,
    metadata_left_out: u64,
}

/// Which documents get the `kafka` object.
#[derive(Debug, Clone, Copy)]
struct WithMetadata {
    text: bool,
    json: bool,
    classic: bool,
}

/// The parts of the lines that are the same for all records of the partition.
#[derive(Debug)]
struct Lines {
    /// `{"index":{"_index":"`
    action_head: Vec<u8>,
    /// `Hx..:3:`, to which the offset is appended.
    id_head: Vec<u8>,
    /// What follows the offset: `"}}` and LF, with the pipeline where there is one.
    action_tail: Vec<u8>,
    /// `{"Topic":"golang_log","Log":"`
    classic_head: Vec<u8>,
    /// `"kafka":{"topic":"golang_log","partition":3,"offset":`
    metadata_head: Vec<u8>,
}

/// The action line of one index, as the last record had it.
#[derive(Debug)]
struct Action {
    bucket: i64,
    index: String,
    line: Vec<u8>,
    /// The offset that the line has.
    offset: i64,
    /// Where its digits begin and end.
    digits: Range<usize>,
}

impl Formatter {
    /// A formatter of the records of one partition. `id_base` is the first part of their document ids (`Facts::id_base`).
    pub fn new(topic: &TopicName, partition: i32, id_base: &str, spec: &TopicSpec) -> Self {
        let lines = Lines::new(topic, partition, id_base, spec);
        let current = Action::new(&lines, &spec.index, topic, None);
        Self {
            topic: topic.clone(),
            template: spec.index.clone(),
            format: spec.format,
            tombstones: spec.tombstones,
            with_metadata: WithMetadata {
                text: spec.metadata != Metadata::Off,
                json: spec.metadata == Metadata::On,
                // The collector's documents have three fields; more only where someone asks for them.
                classic: spec.metadata == Metadata::On,
            },
            lines,
            current,
            others: VecDeque::new(),
            times: TimeWriter::new(),
            metadata_left_out: 0,
        }
    }

    /// Appends the action line and the source line of `record` to `out`, each ending in LF. Unless the answer is [`Formatted::Document`], `out` is left as it was.
    pub fn append(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Formatted {
        let Some(value) = record.value else { return self.tombstone() };
        #[cfg(feature = "failpoints")]
        crash_if_asked(value);
        let document = match self.plan(value) {
            Ok(document) => document,
            Err(reason) => return Formatted::Dead { cause: Cause::Format, reason },
        };
        out.reserve(value.len() + AROUND);
        self.action(record, out);
        match document {
            Document::Json(facts) => self.json(record, value, facts, out),
            Document::Text => self.text(record, value, out),
            Document::Classic => self.classic(record, value, out),
        }
        out.push(b'\n');
        Formatted::Document
    }

    /// The room that [`fill`](Self::fill) needs before each value; `None` where values are not passed on as they are.
    pub fn headroom(&self) -> Option<Headroom> {
        let passes_on = matches!(self.format, Format::Json | Format::Auto) && !self.with_metadata.json;
        let around_digits = self.current.digits.start + self.lines.action_tail.len();
        u16::try_from(around_digits).ok().filter(|_| passes_on).map(Headroom)
    }

    /// Writes the action line of a record into the room before its value. `false` where that makes no lines of it: the value is not passed on as it is, has line ends, or the room is not
    /// that of this record's index; then [`append`](Self::append) says what becomes of it. A tombstone under the policy `skip` needs nothing.
    pub fn fill(&mut self, slot: &mut Slot<'_>) -> bool {
        let Some(value) = slot.value else { return self.tombstones == Tombstones::Skip };
        if slot.head.is_empty() || self.with_metadata.json {
            return false;
        }
        #[cfg(feature = "failpoints")]
        crash_if_asked(value);
        if !matches!(self.plan(value), Ok(Document::Json(_))) || has_line_ends(value) {
            return false;
        }
        self.go_to(slot.timestamp_ms);
        let line = self.current.line_of(slot.offset, &self.lines.action_tail);
        if line.len() != slot.head.len() {
            return false;
        }
        slot.head.copy_from_slice(line);
        true
    }

    /// The index that a record with this timestamp goes to (milliseconds since 1970; `None` where the record has none).
    pub fn index_of(&mut self, timestamp_ms: Option<i64>) -> &str {
        self.go_to(timestamp_ms);
        &self.current.index
    }

    /// How many JSON records had a field `kafka` of their own, so that ours was left out although metadata is on.
    pub fn metadata_left_out(&self) -> u64 {
        self.metadata_left_out
    }

    fn tombstone(&self) -> Formatted {
        match self.tombstones {
            Tombstones::Skip => Formatted::Skipped,
            Tombstones::DeadLetter => Formatted::Dead { cause: Cause::Tombstone, reason: "the record has no value".to_owned() },
        }
    }

    /// Decides how `value` is written; the error says why it cannot be.
    fn plan(&self, value: &[u8]) -> Result<Document, String> {
        match self.format {
            Format::Json if is_braced(value) => Ok(Document::Json(None)),
            Format::Json => Err(why_not_braced(value)),
            Format::Text => Ok(Document::Text),
            Format::Classic => Ok(Document::Classic),
            Format::Auto if !is_braced(value) || std::str::from_utf8(value).is_err() => Ok(Document::Text),
            Format::Auto => Ok(scan_object(value, METADATA_FIELD).map_or(Document::Text, |facts| Document::Json(Some(facts)))),
        }
    }

    fn action(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        self.go_to(record.timestamp_ms);
        out.extend_from_slice(self.current.line_of(record.offset, &self.lines.action_tail));
    }

    /// Makes the action of records with this timestamp the current one.
    fn go_to(&mut self, timestamp_ms: Option<i64>) {
        let bucket = self.template.bucket(timestamp_ms);
        if bucket != self.current.bucket {
            self.change_action(bucket, timestamp_ms);
        }
    }

    #[cold]
    fn change_action(&mut self, bucket: i64, timestamp_ms: Option<i64>) {
        let kept = self.others.iter().position(|action| action.bucket == bucket).and_then(|place| self.others.remove(place));
        let next = kept.unwrap_or_else(|| Action::new(&self.lines, &self.template, &self.topic, timestamp_ms));
        self.others.push_front(std::mem::replace(&mut self.current, next));
        self.others.truncate(KEPT_ACTIONS);
    }

    /// `facts` are those of the value where it was scanned already.
    fn json(&mut self, record: &Record<'_>, value: &[u8], facts: Option<ObjectFacts>, out: &mut Vec<u8>) {
        let start = out.len();
        without_line_ends(out, value);
        if !self.with_metadata.json {
            return;
        }
        // Scanned as it will be sent. What is no legal object is passed on as it is: the server's refusal says best what is wrong with it.
        let sent = out.get(start..).unwrap_or_default();
        let Some(facts) = facts.or_else(|| scan_object(sent, METADATA_FIELD)) else { return };
        if facts.has_field {
            self.metadata_left_out += 1;
            return;
        }
        let Some(close) = memchr::memrchr(b'}', sent) else { return };
        let tail_length = sent.len() - close;
        out.truncate(start + close);
        if !facts.is_empty {
            out.push(b',');
        }
        self.metadata(record, out);
        // The closing brace and the white space after it, as they came.
        without_line_ends(out, value.get(value.len() - tail_length..).unwrap_or_default());
    }

    fn text(&mut self, record: &Record<'_>, value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.times.write(out, sayable(record.timestamp_ms).unwrap_or(0));
        out.extend_from_slice(b"\",");
        text_or_base64(out, "message", value);
        if self.with_metadata.text {
            out.push(b',');
            self.metadata(record, out);
        }
        out.push(b'}');
    }

    fn classic(&mut self, record: &Record<'_>, value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lines.classic_head);
        let text = std::str::from_utf8(value);
        match text {
            Ok(text) => escaped(out, text),
            Err(_) => escaped_lossy(out, value),
        }
        out.extend_from_slice(b"\",\"Id\":\"");
        out.extend_from_slice(&self.lines.id_head);
        decimal(out, record.offset);
        out.push(b'"');
        if text.is_err() {
            out.extend_from_slice(b",\"LogBase64\":");
            quoted_base64(out, value);
        }
        if self.with_metadata.classic {
            out.push(b',');
            self.metadata(record, out);
        }
        out.push(b'}');
    }

    /// `"kafka":{"topic":..,"partition":..,"offset":..,"timestamp":..,"key":..,"headers":[..]}`; what the record has not is `null`, no headers are `[]`.
    fn metadata(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lines.metadata_head);
        decimal(out, record.offset);
        match sayable(record.timestamp_ms) {
            Some(time) => {
                out.extend_from_slice(b",\"timestamp\":\"");
                self.times.write(out, time);
                out.extend_from_slice(b"\",");
            }
            None => out.extend_from_slice(b",\"timestamp\":null,"),
        }
        nullable(out, "key", record.key);
        out.extend_from_slice(b",\"headers\":[");
        for (number, header) in record.headers().enumerate() {
            out.extend_from_slice(if number == 0 { b"{\"name\":" } else { b",{\"name\":" });
            quoted(out, header.name);
            out.push(b',');
            nullable(out, "value", header.value);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
}

/// How a value is written.
enum Document {
    Json(Option<ObjectFacts>),
    Text,
    Classic,
}

impl Lines {
    fn new(topic: &TopicName, partition: i32, id_base: &str, spec: &TopicSpec) -> Self {
        let operation = match spec.operation {
            Operation::Index => "index",
            Operation::Create => "create",
        };
        let mut id_head = Vec::new();
        escaped(&mut id_head, id_base);
        id_head.push(b':');
        decimal(&mut id_head, i64::from(partition));
        if !mutants::is_on(mutants::ID_WITHOUT_SEPARATOR) {
            id_head.push(b':');
        }

        let mut action_tail = b"\"".to_vec();
        if let Some(pipeline) = &spec.pipeline {
            action_tail.extend_from_slice(b",\"pipeline\":");
            quoted(&mut action_tail, pipeline);
        }
        action_tail.extend_from_slice(b"}}\n");

        let mut classic_head = b"{\"Topic\":".to_vec();
        quoted(&mut classic_head, topic.as_str());
        classic_head.extend_from_slice(b",\"Log\":\"");

        let mut metadata_head = format!("\"{METADATA_FIELD}\":{{\"topic\":").into_bytes();
        quoted(&mut metadata_head, topic.as_str());
        metadata_head.extend_from_slice(b",\"partition\":");
        decimal(&mut metadata_head, i64::from(partition));
        metadata_head.extend_from_slice(b",\"offset\":");

        let action_head = format!("{{\"{operation}\":{{\"_index\":").into_bytes();
        Self { action_head, id_head, action_tail, classic_head, metadata_head }
    }
}

impl Action {
    fn new(lines: &Lines, template: &IndexTemplate, topic: &TopicName, timestamp_ms: Option<i64>) -> Self {
        let index = template.render(topic, timestamp_ms);
        let mut line = lines.action_head.clone();
        quoted(&mut line, &index);
        line.extend_from_slice(b",\"_id\":\"");
        line.extend_from_slice(&lines.id_head);
        let digits = line.len()..line.len();
        Self { bucket: template.bucket(timestamp_ms), index, line, offset: NO_OFFSET, digits }
    }

    /// The line for `offset`. Mostly it is the next one, and only the last digit changes.
    fn line_of(&mut self, offset: i64, tail: &[u8]) -> &[u8] {
        let is_next = self.offset >= 0 && self.offset.checked_add(1) == Some(offset);
        if !(is_next && self.line.get_mut(self.digits.clone()).is_some_and(count_up)) {
            self.line.truncate(self.digits.start);
            decimal(&mut self.line, offset);
            self.digits.end = self.line.len();
            self.line.extend_from_slice(tail);
        }
        self.offset = offset;
        &self.line
    }
}

/// Adds one to a decimal number; false when it needs one digit more.
fn count_up(digits: &mut [u8]) -> bool {
    for digit in digits.iter_mut().rev() {
        if *digit != b'9' {
            *digit += 1;
            return true;
        }
        *digit = b'0';
    }
    false
}

/// Whether `value` may be a JSON object, by its first and last byte alone.
fn is_braced(value: &[u8]) -> bool {
    ends(value) == Some((b'{', b'}'))
}

/// The first and the last byte that is no JSON white space.
fn ends(value: &[u8]) -> Option<(u8, u8)> {
    let is_black = |byte: &&u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    Some((*value.iter().find(is_black)?, *value.iter().rfind(is_black)?))
}

#[cold]
fn why_not_braced(value: &[u8]) -> String {
    match ends(value) {
        Some((b'{', last)) => format!("not a JSON object: it ends with byte 0x{last:02x}, not with '}}'"),
        Some((first, _)) => format!("not a JSON object: it begins with byte 0x{first:02x}, not with '{{'"),
        None => "not a JSON object: the value is empty".to_owned(),
    }
}

/// `"name":"text"`, or `"name_base64":"..."` where the bytes are not UTF-8.
fn text_or_base64(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            out.extend_from_slice(b"\":");
            quoted(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"_base64\":");
            quoted_base64(out, bytes);
        }
    }
}

/// As [`text_or_base64`]; `"name":null` for none.
fn nullable(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":null");
        return;
    };
    text_or_base64(out, name, bytes);
}

/// The failpoint `format_record=return(TEXT)`: a record that contains TEXT crashes its task.
#[cfg(feature = "failpoints")]
fn crash_if_asked(value: &[u8]) {
    fail::fail_point!("format_record", |text| {
        if text.is_some_and(|text| memchr::memmem::find(value, text.as_bytes()).is_some()) {
            panic!("failpoint format_record");
        }
    });
}

#[cfg(test)]
mod corpus_tests;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::kafka::chunk::{Chunk, ChunkBuilder};
    use crate::memory::Budget;
    use crate::topic::document_id;

    const NOON: i64 = 1_767_268_800_123; // 2026-01-01T12:00:00.123Z
    const ID_BASE: &str = "HK2wYQ4qQ3uJf1mT0xZ9-A";

    type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];

    fn chunk(offset: i64, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: Headers<'_>) -> Chunk {
        let mut builder = ChunkBuilder::default();
        builder.push(offset, timestamp_ms, key, value, headers.iter().copied());
        builder.finish(Budget::new(1).charge(0))
    }

    fn spec(format: Format, metadata: Metadata) -> TopicSpec {
        TopicSpec { format, metadata, ..TopicSpec::default() }
    }

    fn formatter(spec: &TopicSpec) -> Formatter {
        Formatter::new(&TopicName::new("Orders").expect("legal"), 3, ID_BASE, spec)
    }

    /// Formats one record behind something that is already there, and gives back action and source.
    fn lines(formatter: &mut Formatter, chunk: &Chunk) -> Result<(Vec<u8>, Vec<u8>), Formatted> {
        let mut out = b"before\n".to_vec();
        let formatted = formatter.append(&chunk.record(0).expect("a record"), &mut out);
        let added = out.strip_prefix(b"before\n").expect("what was there stays");
        if formatted != Formatted::Document {
            assert!(added.is_empty(), "something was appended");
            return Err(formatted);
        }
        assert!(!added.contains(&b'\r'));
        let parts: Vec<&[u8]> = added.split(|&byte| byte == b'\n').collect();
        assert_eq!(parts.len(), 3, "exactly two LFs");
        assert!(parts[2].is_empty());
        Ok((parts[0].to_vec(), parts[1].to_vec()))
    }

    fn source_of(spec: &TopicSpec, chunk: &Chunk) -> Result<Vec<u8>, Formatted> {
        lines(&mut formatter(spec), chunk).map(|(_, source)| source)
    }

    fn source_text(spec: &TopicSpec, value: &[u8]) -> String {
        String::from_utf8(source_of(spec, &chunk(42, NOON, None, Some(value), &[])).expect("a document")).expect("UTF-8")
    }

    fn parsed(source: &[u8]) -> Value {
        let value: Value = serde_json::from_slice(source).expect("JSON");
        assert!(value.is_object());
        value
    }

    fn cause(spec: &TopicSpec, value: Option<&[u8]>) -> Option<Cause> {
        match source_of(spec, &chunk(42, NOON, None, value, &[])) {
            Err(Formatted::Dead { cause, reason }) => {
                assert!(!reason.is_empty());
                Some(cause)
            }
            _ => None,
        }
    }

    #[test]
    fn the_action_names_index_id_and_pipeline() {
        let record = chunk(42, NOON, None, Some(b"{}"), &[]);
        let action = |spec: &TopicSpec| String::from_utf8(lines(&mut formatter(spec), &record).expect("a document").0).expect("UTF-8");
        assert_eq!(action(&TopicSpec::default()), r#"{"index":{"_index":"orders","_id":"HK2wYQ4qQ3uJf1mT0xZ9-A:3:42"}}"#);
        let spec = TopicSpec {
            operation: Operation::Create,
            pipeline: Some("a \"b\"\n".to_owned()),
            index: IndexTemplate::parse("x-{topic}-{date}").expect("legal"),
            ..TopicSpec::default()
        };
        assert_eq!(action(&spec), r#"{"create":{"_index":"x-orders-2026.01.01","_id":"HK2wYQ4qQ3uJf1mT0xZ9-A:3:42","pipeline":"a \"b\"\n"}}"#);
    }

    #[test]
    fn counting_up_writes_the_same_ids_as_writing_them_out() {
        let mut formatter = formatter(&spec(Format::Json, Metadata::Auto));
        let starts = [0, 8, 95, 998, 1_000, 99_999, 1_234_567_889, i64::MAX - 4];
        for offset in starts.into_iter().flat_map(|start| (start..=start + 3).chain([start + 3, start, start + 2])) {
            let (action, _) = lines(&mut formatter, &chunk(offset, NOON, None, Some(b"{}"), &[])).expect("a document");
            assert_eq!(parsed(&action)["index"]["_id"], json!(document_id(ID_BASE, 3, offset)));
        }
    }

    /// The lines of all records, written where they lie; `None` where one of them needs a copy.
    fn filled(formatter: &mut Formatter, chunk: &mut Chunk) -> Option<Vec<u8>> {
        let is_filled = chunk.slots().expect("not shared").all(|mut slot| formatter.fill(&mut slot));
        is_filled.then(|| chunk.share().to_vec())
    }

    fn roomy_chunk(headroom: Option<Headroom>, records: &[(i64, i64, Option<Vec<u8>>)]) -> Chunk {
        let mut builder = ChunkBuilder::default();
        builder.leave_room(headroom);
        for (offset, timestamp_ms, value) in records {
            builder.push(*offset, *timestamp_ms, Some(b"key"), value.as_deref(), std::iter::empty());
        }
        builder.finish(Budget::new(1).charge(0))
    }

    #[test]
    fn what_is_not_passed_on_as_it_is_is_not_written_in_place() {
        let one = |value: &[u8]| vec![(7, NOON, Some(value.to_vec()))];
        let json = spec(Format::Json, Metadata::Auto);
        let in_place = |spec: &TopicSpec, records: &[(i64, i64, Option<Vec<u8>>)]| {
            let mut formatter = formatter(spec);
            let mut chunk = roomy_chunk(formatter.headroom(), records);
            filled(&mut formatter, &mut chunk).is_some()
        };
        assert!(in_place(&json, &one(b"{}")));
        assert!(in_place(&json, &[(7, NOON, None)]), "a tombstone that is skipped");
        for value in [&b"{\n}"[..], b"{\r}", b"[]", b"", b"text"] {
            assert!(!in_place(&json, &one(value)), "{}", String::from_utf8_lossy(value));
        }
        assert!(!in_place(&TopicSpec { tombstones: Tombstones::DeadLetter, ..json.clone() }, &[(7, NOON, None)]));
        assert!(!in_place(&spec(Format::Json, Metadata::On), &one(b"{}")));
        assert!(in_place(&spec(Format::Auto, Metadata::Auto), &one(b"{}")));
        assert!(!in_place(&spec(Format::Auto, Metadata::Auto), &one(b"{")));
        assert!(!in_place(&spec(Format::Text, Metadata::Auto), &one(b"{}")));
        assert!(!in_place(&spec(Format::Classic, Metadata::Auto), &one(b"{}")));
    }

    #[test]
    fn room_that_was_left_for_another_index_is_not_filled() {
        let mut of_before = formatter(&spec(Format::Json, Metadata::Auto));
        let records = [(7, NOON, Some(b"{}".to_vec()))];
        let mut chunk = roomy_chunk(of_before.headroom(), &records);
        let renamed = TopicSpec { index: IndexTemplate::parse("{topic}-2").expect("legal"), ..TopicSpec::default() };
        assert_eq!(filled(&mut formatter(&TopicSpec { format: Format::Json, ..renamed }), &mut chunk), None);
        let mut chunk = roomy_chunk(None, &records);
        assert_eq!(filled(&mut of_before, &mut chunk), None);
    }

    #[test]
    fn alternating_days_never_mix_up_their_indices() {
        let template = IndexTemplate::parse("{topic}-{date}").expect("legal");
        let mut formatter = formatter(&TopicSpec { index: template.clone(), ..TopicSpec::default() });
        let topic = TopicName::new("Orders").expect("legal");
        for step in 0..200i64 {
            let time = Some(NOON + (step * 7 % 13) * 86_400_000).filter(|_| step % 5 != 0);
            assert_eq!(formatter.index_of(time), template.render(&topic, time));
            let (action, _) = lines(&mut formatter, &chunk(step, time.unwrap_or(-1), None, Some(b"{}"), &[])).expect("a document");
            assert_eq!(parsed(&action)["index"]["_index"], json!(template.render(&topic, time)));
        }
        assert!(formatter.others.len() <= KEPT_ACTIONS);
    }

    #[test]
    fn pretty_printed_json_becomes_one_line_and_nothing_else_changes() {
        let spec = spec(Format::Json, Metadata::Auto);
        assert_eq!(source_text(&spec, b" {\r\n  \"a\": 1.00,\n\t\"a\": \"\\n\"\r\n}\n"), " {    \"a\": 1.00, \t\"a\": \"\\n\"  } ");
    }

    #[test]
    fn json_that_is_no_object_is_a_dead_letter() {
        let spec = spec(Format::Json, Metadata::Auto);
        for value in ["", " \n", "[]", "null", "1", "\"{}\"", "{", "}", "{\"a\":1", "x{}", "{}x", "\u{feff}{}", "}{"] {
            assert_eq!(cause(&spec, Some(value.as_bytes())), Some(Cause::Format), "{value:?}");
        }
        assert_eq!(cause(&spec, Some(b"{not parsed}")), None);
    }

    #[test]
    fn a_tombstone_follows_the_policy_in_every_format() {
        for format in [Format::Json, Format::Text, Format::Auto, Format::Classic] {
            let mut spec = spec(format, Metadata::Auto);
            let tombstone = chunk(1, NOON, Some(b"key"), None, &[]);
            assert_eq!(source_of(&spec, &tombstone), Err(Formatted::Skipped));
            spec.tombstones = Tombstones::DeadLetter;
            assert_eq!(cause(&spec, None), Some(Cause::Tombstone));
        }
    }

    #[test]
    fn an_empty_value_is_no_tombstone() {
        assert_eq!(source_text(&spec(Format::Text, Metadata::Off), b""), r#"{"@timestamp":"2026-01-01T12:00:00.123Z","message":""}"#);
        assert_eq!(source_text(&spec(Format::Auto, Metadata::Off), b""), r#"{"@timestamp":"2026-01-01T12:00:00.123Z","message":""}"#);
        assert_eq!(source_text(&spec(Format::Classic, Metadata::Auto), b""), r#"{"Topic":"Orders","Log":"","Id":"HK2wYQ4qQ3uJf1mT0xZ9-A:3:42"}"#);
        assert_eq!(cause(&spec(Format::Json, Metadata::Auto), Some(b"")), Some(Cause::Format));
    }

    #[test]
    fn text_says_where_it_came_from() {
        let record =
            chunk(42, NOON, Some(b"k\"1"), Some("caf\u{e9}\n\u{2028}".as_bytes()), &[("trace", Some(b"1")), ("none", None), ("raw", Some(b"\xff"))]);
        let source = parsed(&source_of(&spec(Format::Text, Metadata::Auto), &record).expect("a document"));
        assert_eq!(
            source,
            json!({"@timestamp": "2026-01-01T12:00:00.123Z", "message": "caf\u{e9}\n\u{2028}", "kafka": {"topic": "Orders", "partition": 3, "offset": 42,
                "timestamp": "2026-01-01T12:00:00.123Z", "key": "k\"1",
                "headers": [{"name": "trace", "value": "1"}, {"name": "none", "value": null}, {"name": "raw", "value_base64": "/w=="}]}})
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_in_base64() {
        let record = chunk(42, -1, Some(b"\xff\xfe"), Some(b"a\xc3"), &[]);
        let source = parsed(&source_of(&spec(Format::Text, Metadata::Auto), &record).expect("a document"));
        assert_eq!(
            source,
            json!({"@timestamp": "1970-01-01T00:00:00.000Z", "message_base64": "YcM=", "kafka": {"topic": "Orders", "partition": 3, "offset": 42,
                "timestamp": null, "key_base64": "//4=", "headers": []}})
        );
    }

    #[test]
    fn a_timestamp_in_microseconds_does_not_make_the_document_unindexable() {
        let record = chunk(42, NOON * 1000, None, Some(b"a"), &[]);
        let source = parsed(&source_of(&spec(Format::Text, Metadata::Auto), &record).expect("a document"));
        assert_eq!((&source["@timestamp"], &source["kafka"]["timestamp"]), (&json!("1970-01-01T00:00:00.000Z"), &Value::Null));
        let template = IndexTemplate::parse("{topic}-{date}").expect("legal");
        assert_eq!(formatter(&TopicSpec { index: template, ..TopicSpec::default() }).index_of(Some(NOON * 1000)), "orders-1970.01.01");
    }

    #[test]
    fn classic_documents_look_like_the_collectors() {
        let classic = spec(Format::Classic, Metadata::Auto);
        assert_eq!(source_text(&classic, b"a \"b\""), r#"{"Topic":"Orders","Log":"a \"b\"","Id":"HK2wYQ4qQ3uJf1mT0xZ9-A:3:42"}"#);
        assert_eq!(
            source_text(&classic, b"a\xe2\x82"),
            "{\"Topic\":\"Orders\",\"Log\":\"a\u{FFFD}\u{FFFD}\",\"Id\":\"HK2wYQ4qQ3uJf1mT0xZ9-A:3:42\",\"LogBase64\":\"YeKC\"}"
        );
        assert_eq!(parsed(source_text(&spec(Format::Classic, Metadata::On), b"a").as_bytes())["kafka"]["offset"], json!(42));
    }

    #[test]
    fn metadata_is_put_into_json_without_touching_the_rest() {
        let on = spec(Format::Json, Metadata::On);
        let kafka = r#""kafka":{"topic":"Orders","partition":3,"offset":42,"timestamp":"2026-01-01T12:00:00.123Z","key":null,"headers":[]}"#;
        assert_eq!(source_text(&on, b"{\"a\":1}\n"), format!("{{\"a\":1,{kafka}}} "));
        assert_eq!(source_text(&on, b" { \n}"), format!(" {{  {kafka}}}"));
        assert_eq!(source_text(&spec(Format::Auto, Metadata::On), b"{\"a\":1}"), format!("{{\"a\":1,{kafka}}}"));
        // A raw line end inside a string is illegal until it is a space.
        assert_eq!(source_text(&on, b"{\"a\":\"\n\"}"), format!("{{\"a\":\" \",{kafka}}}"));
    }

    #[test]
    fn a_records_own_kafka_field_wins_and_is_counted() {
        for format in [Format::Json, Format::Auto] {
            let mut formatter = formatter(&spec(format, Metadata::On));
            for own in [r#"{"kafka":1}"#, r#"{"a":{},"\u006bafka":{}}"#] {
                let (_, source) = lines(&mut formatter, &chunk(1, NOON, None, Some(own.as_bytes()), &[])).expect("a document");
                assert_eq!(source, own.as_bytes());
            }
            lines(&mut formatter, &chunk(1, NOON, None, Some(br#"{"a":{"kafka":1}}"#), &[])).expect("a document");
            assert_eq!(formatter.metadata_left_out(), 2);
        }
        let mut off = formatter(&spec(Format::Json, Metadata::Auto));
        lines(&mut off, &chunk(1, NOON, None, Some(br#"{"kafka":1}"#), &[])).expect("a document");
        assert_eq!(off.metadata_left_out(), 0);
    }

    #[test]
    fn json_that_does_not_parse_is_left_to_the_server() {
        let on = spec(Format::Json, Metadata::On);
        for value in ["{\"a\":}", "{} {}", "{\"a\":1}{\"b\":2}", "{x}"] {
            assert_eq!(source_text(&on, value.as_bytes()), value);
        }
    }

    #[test]
    fn auto_takes_for_json_only_what_parses() {
        let auto = spec(Format::Auto, Metadata::Auto);
        assert_eq!(source_text(&auto, b" {\"a\":\n1} "), " {\"a\": 1} ");
        let nested = format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000));
        for value in ["[]", "1", "{", "{\"a\":}", "{} {}", "{\"a\":\"\n\"}", nested.as_str()] {
            assert_eq!(parsed(source_text(&auto, value.as_bytes()).as_bytes())["message"], json!(value));
        }
        assert_eq!(parsed(source_text(&auto, b"{\"a\":\"\xff\"}").as_bytes())["message_base64"], json!("eyJhIjoi/yJ9"));
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn the_failpoint_crashes_on_the_named_text_only() {
        let scenario = fail::FailScenario::setup();
        fail::cfg("format_record", "return(a poisonous text)").expect("a legal action");
        let crashes = |value: &str| std::panic::catch_unwind(|| source_text(&spec(Format::Text, Metadata::Off), value.as_bytes())).is_err();
        assert!(crashes("with a poisonous text inside"));
        assert!(!crashes("harmless"));
        scenario.teardown();
    }

    /// Bytes of all kinds: any, text, and JSON objects with something broken now and then.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let object = prop::collection::btree_map(prop_oneof![Just("kafka".to_owned()), any::<String>()], any::<String>(), 0..4);
        let json = (object, any::<bool>()).prop_map(|(fields, pretty)| {
            let value = json!(fields);
            if pretty { format!("\r\n{value:#}\n").into_bytes() } else { value.to_string().into_bytes() }
        });
        let line_ends = prop::collection::vec(prop::sample::select(b"{}\r\n\"\\a \xff".to_vec()), 0..40);
        let braced = line_ends.clone().prop_map(|inner| [b"{", &inner[..], b"}"].concat());
        prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes), json, line_ends, braced]
    }

    fn any_spec() -> impl Strategy<Value = TopicSpec> {
        let format = prop::sample::select(vec![Format::Json, Format::Text, Format::Auto, Format::Classic]);
        let metadata = prop::sample::select(vec![Metadata::Auto, Metadata::On, Metadata::Off]);
        let pipeline = prop::option::of(any::<String>());
        let operation = prop::sample::select(vec![Operation::Index, Operation::Create]);
        (format, metadata, pipeline, operation).prop_map(|(format, metadata, pipeline, operation)| TopicSpec {
            pipeline,
            operation,
            ..spec(format, metadata)
        })
    }

    /// The bytes under `name` or `name_base64`, of which exactly one is there.
    fn payload(object: &Value, name: &str) -> Vec<u8> {
        let base64 = object.get(format!("{name}_base64"));
        assert_ne!(object.get(name).is_some(), base64.is_some());
        match base64 {
            Some(encoded) => STANDARD.decode(encoded.as_str().expect("text")).expect("base64"),
            None => object[name].as_str().expect("text").as_bytes().to_vec(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn lines_in_place_are_the_lines_of_a_copy(
            values in prop::collection::vec((1i64..500, any::<bool>(), prop_oneof![Just(None), Just(Some("{}".to_owned())), "\\{[a-z]{0,9}\\}".prop_map(Some)]), 1..40),
            first in 0i64..2_000,
            index in prop_oneof![Just("{topic}"), Just("x-{topic}-{date}"), Just("a")],
        ) {
            let spec = TopicSpec { index: IndexTemplate::parse(index).expect("legal"), ..spec(Format::Json, Metadata::Auto) };
            let mut offset = first;
            let records: Vec<_> = values.into_iter().map(|(step, is_next_day, value)| {
                offset += step;
                (offset, if is_next_day { NOON + 86_400_000 } else { NOON }, value.map(String::into_bytes))
            }).collect();
            let mut formatter = formatter(&spec);
            let mut chunk = roomy_chunk(formatter.headroom(), &records);
            let mut copy = Vec::new();
            let mut ends = Vec::new();
            for record in chunk.records() {
                let formatted = formatter.append(&record, &mut copy);
                ends.push((formatted == Formatted::Document).then_some(copy.len() as u32));
            }
            prop_assert_eq!(filled(&mut formatter, &mut chunk), Some(copy));
            prop_assert_eq!(chunk.ends().collect::<Vec<_>>(), ends);
        }

        #[test]
        fn no_bytes_break_the_lines(
            spec in any_spec(), value in bytes(), key in prop::option::of(bytes()), names in prop::collection::vec((any::<String>(), prop::option::of(bytes())), 0..3),
            offset in 0..=i64::MAX, timestamp in prop_oneof![-1..4_000_000_000_000i64, any::<i64>()],
        ) {
            let headers: Vec<(&str, Option<&[u8]>)> = names.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let record = chunk(offset, timestamp, key.as_deref(), Some(&value), &headers);
            let mut formatter = formatter(&spec);
            let (action, source) = match lines(&mut formatter, &record) {
                Ok(lines) => lines,
                Err(formatted) => {
                    let is_format = matches!(formatted, Formatted::Dead { cause: Cause::Format, .. });
                    prop_assert!(spec.format == Format::Json && is_format);
                    return Ok(());
                }
            };
            let action = parsed(&action);
            let inside = action.get(if spec.operation == Operation::Index { "index" } else { "create" }).expect("the operation");
            let id = document_id(ID_BASE, 3, offset);
            prop_assert_eq!(&inside["_id"], &json!(id));
            prop_assert_eq!(&inside["_index"], &json!("orders"));
            prop_assert_eq!(inside.get("pipeline").and_then(Value::as_str), spec.pipeline.as_deref());

            let one_line: Vec<u8> = value.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect();
            if spec.format == Format::Json && spec.metadata != Metadata::On {
                prop_assert_eq!(source, one_line);
                return Ok(());
            }
            if spec.format == Format::Json && serde_json::from_slice::<Value>(&one_line).is_err() {
                // Illegal JSON stays as it is; strings that are not UTF-8 are the only difference between the two parsers.
                prop_assert!(source == one_line || std::str::from_utf8(&value).is_err());
                return Ok(());
            }
            let document = parsed(&source);
            let original = serde_json::from_slice::<Value>(&value).ok().filter(Value::is_object);
            let as_json = spec.format == Format::Json || (spec.format == Format::Auto && original.is_some());
            if as_json {
                let mut expected: Value = serde_json::from_slice(&one_line).expect("JSON");
                let has_own = expected.get("kafka").is_some();
                prop_assert_eq!(formatter.metadata_left_out(), u64::from(has_own && spec.metadata == Metadata::On));
                if spec.metadata == Metadata::On && !has_own {
                    expected["kafka"] = document["kafka"].clone();
                }
                prop_assert_eq!(&document, &expected);
                if has_own || spec.metadata != Metadata::On { return Ok(()) }
            } else if spec.format == Format::Classic {
                prop_assert_eq!(&document["Id"], &json!(id));
                prop_assert_eq!(&document["Topic"], &json!("Orders"));
                prop_assert_eq!(document.get("LogBase64").is_some(), std::str::from_utf8(&value).is_err());
                match document.get("LogBase64") {
                    Some(encoded) => prop_assert_eq!(&STANDARD.decode(encoded.as_str().expect("text")).expect("base64"), &value),
                    None => prop_assert_eq!(document["Log"].as_str().map(str::as_bytes), Some(&value[..])),
                }
            } else {
                prop_assert_eq!(payload(&document, "message"), value);
            }
            let expected_metadata = spec.metadata == Metadata::On || (spec.metadata == Metadata::Auto && !as_json && spec.format != Format::Classic);
            prop_assert_eq!(document.get("kafka").is_some(), expected_metadata);
            if !expected_metadata { return Ok(()) }
            let kafka = &document["kafka"];
            prop_assert_eq!((&kafka["topic"], &kafka["partition"], &kafka["offset"]), (&json!("Orders"), &json!(3), &json!(offset)));
            match &key {
                Some(key) => prop_assert_eq!(&payload(kafka, "key"), key),
                None => prop_assert!(kafka["key"].is_null()),
            }
            let written = kafka["headers"].as_array().expect("headers");
            prop_assert_eq!(written.len(), names.len());
            for (header, (name, value)) in written.iter().zip(&names) {
                prop_assert_eq!(header["name"].as_str(), Some(name.as_str()));
                match value {
                    Some(value) => prop_assert_eq!(&payload(header, "value"), value),
                    None => prop_assert!(header["value"].is_null()),
                }
            }
        }
    }
}
