//! Bad records: what each format makes of them, and that no bytes at all break the form of a bulk body.
//!
//! An expectation says by format what becomes of the record: `passed_on` (as it came, except that line ends are spaces), `message`, `message_base64`, `log`, `log_base64`, `dead_letter` (cause
//! `format`) or `skipped`; and whether what is passed on is `valid_json`, which the server would reject otherwise. A recipe may be an object with `value` (null: a tombstone), `key`, `headers` and
//! `timestamp_ms` instead of the value alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::*;
use crate::corpus::{self, Case, Input};
use crate::kafka::chunk::ChunkBuilder;
use crate::memory::Budget;
use crate::topic::document_id;

const ID_BASE: &str = "HK2wYQ4qQ3uJf1mT0xZ9-A";
const OFFSET: i64 = 42;

/// A record as a case describes it.
#[derive(Default)]
struct Described {
    value: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: i64,
}

impl Described {
    fn new(case: &Case) -> Self {
        let recipe = match &case.input {
            Input::Recipe(recipe) if recipe.is_object() => recipe,
            Input::Bytes(_) | Input::Recipe(_) => return Self::of_value(&case.bytes()),
        };
        let optional = |value: &Value| (!value.is_null()).then(|| corpus::bytes_of(value));
        let headers = recipe["headers"].as_array().into_iter().flatten();
        Self {
            value: optional(&recipe["value"]),
            key: optional(&recipe["key"]),
            headers: headers.map(|header| (header[0].as_str().expect("a name").to_owned(), optional(&header[1]))).collect(),
            timestamp_ms: recipe["timestamp_ms"].as_i64().unwrap_or(0),
        }
    }

    fn of_value(value: &[u8]) -> Self {
        Self { value: Some(value.to_vec()), ..Self::default() }
    }

    fn value(&self) -> &[u8] {
        self.value.as_deref().expect("no tombstone")
    }

    /// The source line, or what came instead. Everything that holds for any record is checked here.
    fn formatted(&self, spec: &TopicSpec) -> Result<Vec<u8>, Formatted> {
        let mut builder = ChunkBuilder::default();
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        builder.push(OFFSET, self.timestamp_ms, self.key.as_deref(), self.value.as_deref(), headers);
        let chunk = builder.finish(Budget::new(1).charge(0));
        let mut formatter = Formatter::new(&TopicName::new("Orders").expect("legal"), 3, ID_BASE, spec);
        let mut body = b"before\n".to_vec();
        let formatted = formatter.append(&chunk.record(0).expect("a record"), &mut body);
        let added = body.strip_prefix(b"before\n").expect("what was there stays");
        if formatted != Formatted::Document {
            assert!(added.is_empty(), "something was appended for a record without a document");
            return Err(formatted);
        }
        assert!(!added.contains(&b'\r'), "a CR");
        let lines: Vec<&[u8]> = added.split(|byte| *byte == b'\n').collect();
        let [action, source, []] = lines.as_slice() else { panic!("{} LFs instead of two", lines.len() - 1) };
        let action: Value = serde_json::from_slice(action).expect("an action in JSON");
        let operation = if spec.operation == Operation::Create { "create" } else { "index" };
        assert_eq!(action[operation]["_id"], document_id(ID_BASE, 3, OFFSET).as_str());
        Ok(source.to_vec())
    }
}

fn spec(format: Format, metadata: Metadata) -> TopicSpec {
    TopicSpec { format, metadata, ..TopicSpec::default() }
}

fn without_lines(value: &[u8]) -> Vec<u8> {
    value.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// What became of a record, in the words of the expectations. A document that holds anything else than the record panics.
fn outcome(record: &Described, format: Format) -> &'static str {
    // Metadata apart, so that what is passed on can be compared with what came.
    let metadata = if matches!(format, Format::Json | Format::Auto) { Metadata::Off } else { Metadata::Auto };
    let source = match record.formatted(&spec(format, metadata)) {
        Ok(source) => source,
        Err(Formatted::Skipped) => return "skipped",
        Err(Formatted::Dead { cause: Cause::Format, reason }) if !reason.is_empty() => return "dead_letter",
        Err(other) => panic!("{other:?}"),
    };
    if source == without_lines(record.value()) {
        assert!(format == Format::Json || is_json(&source), "{format:?} passed on what is no JSON");
        return "passed_on";
    }
    let document: Value = serde_json::from_slice(&source).expect("our own documents are JSON");
    let fields = if format == Format::Classic {
        ["Log", "LogBase64", "log", "log_base64"]
    } else {
        ["message", "message_base64", "message", "message_base64"]
    };
    let [text_field, base64_field, text, base64] = fields;
    if let Some(encoded) = document[base64_field].as_str() {
        assert_eq!(STANDARD.decode(encoded).expect("base64"), record.value());
        return base64;
    }
    assert_eq!(document[text_field].as_str().map(str::as_bytes), Some(record.value()));
    text
}

#[test]
fn every_bad_record_of_the_corpus_becomes_what_is_expected() {
    let mut wrong = Vec::new();
    for case in corpus::cases("records") {
        let record = Described::new(&case);
        let mut actual = json!({
            "json": outcome(&record, Format::Json),
            "auto": outcome(&record, Format::Auto),
            "text": outcome(&record, Format::Text),
            "classic": outcome(&record, Format::Classic),
        });
        if actual["json"] == "passed_on" {
            actual["valid_json"] = is_json(&without_lines(record.value())).into();
        }
        if actual != case.expected {
            wrong.push(format!("{}: {actual} instead of {}", case.name, case.expected));
        }
        for format in [Format::Json, Format::Auto, Format::Text, Format::Classic] {
            holds_for_any(&record, format);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever the record and the options: the body keeps its form, and what we write ourselves is JSON.
fn holds_for_any(record: &Described, format: Format) {
    for metadata in [Metadata::On, Metadata::Off] {
        for operation in [Operation::Index, Operation::Create] {
            let spec = TopicSpec { operation, ..spec(format, metadata) };
            let Ok(source) = record.formatted(&spec) else {
                assert!(record.value.is_none() || format == Format::Json, "{format:?} has a document for any value");
                continue;
            };
            let was_json = record.value.as_deref().is_some_and(|value| is_json(&without_lines(value)));
            if format != Format::Json || was_json {
                assert!(is_json(&source), "{format:?} {metadata:?}: what was JSON is none any more: {:?}", String::from_utf8_lossy(&source));
            }
        }
    }
}

#[test]
fn fuzz_records() {
    let seeds: Vec<Vec<u8>> = corpus::cases("records").iter().filter_map(|case| Described::new(case).value).collect();
    corpus::fuzz("records", &seeds, |input| {
        let (key, rest) = input.split_at(input.len().min(3));
        let record =
            Described { value: Some(rest.to_vec()), key: Some(key.to_vec()), headers: vec![("h".to_owned(), Some(input.to_vec()))], timestamp_ms: 1 };
        for format in [Format::Json, Format::Auto, Format::Text, Format::Classic] {
            outcome(&record, format);
            holds_for_any(&record, format);
        }
    });
}
