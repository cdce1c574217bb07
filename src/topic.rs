//! The domain's values: names, specs, document ids, facts and sources of topics.
//!
//! Guarantees: a [`TopicName`] is one that Kafka accepts and that is nobody's internal topic; an [`IndexTemplate`] renders legal index
//! names only; a [`TopicSpec`] has every field resolved. Owns the vocabulary that every other module speaks. Does no I/O, has no clock, and is
//! not async: parsing and rendering are pure functions.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod index;

pub use index::{IndexTemplate, IndexTemplateError};

/// Kafka's limit on the length of a topic name, in bytes (`org.apache.kafka.common.internals.Topic`).
pub const MAX_TOPIC_NAME_BYTES: usize = 249;

/// Topics that belong to Kafka itself; they hold no documents and are refused.
const INTERNAL_TOPICS: [&str; 4] = ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

/// A Kafka topic name: 1 to 249 bytes of `[a-zA-Z0-9._-]`, neither `.` nor `..`, and not one of Kafka's internal topics.
///
/// Cheap to clone: the text is shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(
    value_type = String,
    description = "A Kafka topic name: 1 to 249 bytes of `[a-zA-Z0-9._-]`, neither `.` nor `..`, and not one of Kafka's internal topics.",
    pattern = "^[a-zA-Z0-9._-]{1,249}$",
    example = "golang_log"
)]
pub struct TopicName(Arc<str>);

/// Why a text is not a topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// The name is empty.
    #[error("a topic name must not be empty")]
    Empty,
    /// The name is longer than Kafka allows.
    #[error("a topic name has at most {MAX_TOPIC_NAME_BYTES} characters, this one has {0}")]
    TooLong(usize),
    /// `.` and `..` are reserved by Kafka.
    #[error("'.' and '..' are not topic names")]
    Dots,
    /// A character outside Kafka's alphabet; shown escaped.
    #[error("a topic name consists of letters, digits, '.', '_' and '-'; it must not contain {0:?}")]
    Character(char),
    /// One of Kafka's own topics.
    #[error("'{0}' is one of Kafka's internal topics and holds no documents")]
    Internal(String),
}

impl TopicName {
    /// Checks `name` by Kafka's own alphabet and length.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        if name.is_empty() {
            return Err(TopicNameError::Empty);
        }
        if let Some(character) = name.chars().find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-')) {
            return Err(TopicNameError::Character(character));
        }
        if name.len() > MAX_TOPIC_NAME_BYTES {
            return Err(TopicNameError::TooLong(name.len()));
        }
        if name == "." || name == ".." {
            return Err(TopicNameError::Dots);
        }
        if INTERNAL_TOPICS.contains(&name) {
            return Err(TopicNameError::Internal(name.to_owned()));
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TopicName {
    type Err = TopicNameError;
    fn from_str(name: &str) -> Result<Self, TopicNameError> {
        Self::new(name)
    }
}

impl Serialize for TopicName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TopicName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// One partition of one topic: the key of a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: TopicName, partition: i32) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// How a record becomes a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The record is a JSON object and is passed on byte for byte.
    Json,
    /// The record is text and becomes `message`.
    Text,
    /// A record that parses as a JSON object is treated as `json`, any other as `text`.
    #[default]
    Auto,
    /// `{"Topic", "Log", "Id"}`, as the collector that drover replaces wrote it.
    Classic,
}

/// Whether the `kafka` object is added to the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metadata {
    /// On for text, off for JSON.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The bulk operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Writes the document whether or not it exists.
    #[default]
    Index,
    /// Writes the document only if its id is new; data streams need it.
    Create,
}

/// What happens to a record without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tombstones {
    /// It is skipped and counted.
    #[default]
    Skip,
    /// It goes to the dead letters.
    DeadLetter,
}

/// What a permanent rejection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// The record goes to the dead letters and the partition goes on.
    #[default]
    DeadLetter,
    /// The task becomes `failed`; nothing is lost.
    Stop,
}

/// Where a partition without a committed offset starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest record that Kafka still has.
    #[default]
    Earliest,
    /// At the end, as it was when the topic was first seen.
    Latest,
    /// At the first record whose timestamp is not older.
    At(Timestamp),
}

/// The text is neither `earliest`, nor `latest`, nor an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'start' is \"earliest\", \"latest\" or an RFC 3339 time such as 2026-01-31T00:00:00Z")]
pub struct StartError;

impl std::str::FromStr for Start {
    type Err = StartError;
    fn from_str(text: &str) -> Result<Self, StartError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => time.parse().map(Self::At).map_err(|_| StartError),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::At(time) => write!(f, "{time}"),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The fields of a topic's spec that one source gives; what is `None` is left to the source below it.
///
/// This is the form of a native entry in the file, of a store entry, and of the API's bodies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecFields {
    /// Template of the index name: `{topic}`, `{date}` or `{date:%Y.%m}` (the record's own time, UTC) and literal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "orders-{date}")]
    pub index: Option<IndexTemplate>,
    /// How a record becomes a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Whether the `kafka` object is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// The bulk operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Name of an ingest pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Where a partition without a committed offset starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "earliest")]
    pub start: Option<Start>,
    /// What happens to a record without a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstones: Option<Tombstones>,
    /// What a permanent rejection does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_reject: Option<OnReject>,
    /// Free text shown in the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A topic's effective spec: every field resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct TopicSpec {
    /// Template of the index name.
    #[schema(value_type = String, example = "{topic}")]
    pub index: IndexTemplate,
    /// How a record becomes a document.
    pub format: Format,
    /// Whether the `kafka` object is added.
    pub metadata: Metadata,
    /// The bulk operation.
    pub operation: Operation,
    /// Name of an ingest pipeline.
    pub pipeline: Option<String>,
    /// Where a partition without a committed offset starts: `earliest`, `latest` or an RFC 3339 time.
    #[schema(value_type = String, example = "earliest")]
    pub start: Start,
    /// What happens to a record without a value.
    pub tombstones: Tombstones,
    /// What a permanent rejection does.
    pub on_reject: OnReject,
    /// Free text.
    pub labels: BTreeMap<String, String>,
}

/// Which source gave a field of the effective spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Built in.
    Default,
    /// `config.yaml`.
    File,
    /// One of the collector's etcd keys.
    Etcd,
    /// The store that the API writes to.
    Store,
}

/// The kind of a source of topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// `config.yaml`.
    File,
    /// The collector's etcd keys.
    Etcd,
    /// The store that the API writes to.
    Store,
}

/// One place that names a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct SourceRef {
    /// Which kind of source.
    pub kind: SourceKind,
    /// The place inside a file, such as `collectlogs[0]` or `topics[1]`.
    pub detail: Option<String>,
    /// The key in etcd or in the store.
    pub key: Option<String>,
    /// The revision of that key.
    pub revision: Option<i64>,
}

/// What is decided once per topic and kept: the base of its document ids, its identity and where its partitions started.
///
/// They make `start: latest`, ids and the detection of a re-created topic the same on every instance and after every restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The topic's UUID as Kafka prints it (22 characters, URL-safe base64); `None` where brokers have none.
    pub topic_id: Option<String>,
    /// The first part of every document id: `topic_id`, or the topic's name where brokers have no ids.
    pub id_base: String,
    /// The number of partitions at first sight; partitions beyond it start at their beginning.
    pub partitions: i32,
    /// The resolved start offset of each partition at first sight.
    pub start_offsets: BTreeMap<i32, i64>,
    /// When the topic was first seen.
    #[serde(with = "timestamp_text")]
    pub first_seen_at: Timestamp,
}

mod timestamp_text {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Appends the document id of a record, `{id_base}:{partition}:{offset}`.
///
/// `:` occurs neither in a topic's name nor in its id, so two records never share an id.
pub fn write_document_id(out: &mut Vec<u8>, id_base: &str, partition: i32, offset: i64) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{id_base}:{partition}:{offset}");
}

/// The document id of a record as text; see [`write_document_id`].
pub fn document_id(id_base: &str, partition: i32, offset: i64) -> String {
    format!("{id_base}:{partition}:{offset}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_outside_kafkas_alphabet_are_refused() {
        assert_eq!(TopicName::new(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::new("."), Err(TopicNameError::Dots));
        assert_eq!(TopicName::new(".."), Err(TopicNameError::Dots));
        assert_eq!(TopicName::new("a/b"), Err(TopicNameError::Character('/')));
        assert_eq!(TopicName::new("日志"), Err(TopicNameError::Character('日')));
        assert_eq!(TopicName::new(&"a".repeat(250)), Err(TopicNameError::TooLong(250)));
        assert!(matches!(TopicName::new("__consumer_offsets"), Err(TopicNameError::Internal(_))));
        assert!(TopicName::new(&"a".repeat(249)).is_ok());
        assert!(TopicName::new("golang_log").is_ok());
    }

    #[test]
    fn a_start_that_is_no_time_is_refused() {
        assert_eq!("yesterday".parse::<Start>(), Err(StartError));
        assert_eq!("latest".parse(), Ok(Start::Latest));
        assert_eq!("2026-01-31T00:00:00Z".parse::<Start>().map(|start| start.to_string()), Ok("2026-01-31T00:00:00Z".to_owned()));
    }

    #[test]
    fn an_unknown_spec_field_is_an_error() {
        assert!(serde_json::from_str::<SpecFields>(r#"{"indx": "a"}"#).is_err());
        assert!(serde_json::from_str::<SpecFields>(r#"{"index": "{topik}"}"#).is_err());
        assert!(serde_json::from_str::<SpecFields>("{}").is_ok_and(|fields| fields == SpecFields::default()));
    }

    #[test]
    fn ids_that_the_collector_confused_differ() {
        assert_ne!(document_id("t", 1, 10), document_id("t", 11, 0));
    }

    proptest! {
        #[test]
        fn ids_are_injective(a in ("[A-Za-z0-9_-]{22}", 0..1000i32, 0..i64::MAX), b in ("[A-Za-z0-9_-]{22}", 0..1000i32, 0..i64::MAX)) {
            let same_record = a == b;
            prop_assert_eq!(document_id(&a.0, a.1, a.2) == document_id(&b.0, b.1, b.2), same_record);
        }
    }
}
