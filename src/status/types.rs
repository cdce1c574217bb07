//! The wire types of the read side. Times are RFC 3339 UTC, durations seconds, offsets plain integers, `null` means not known.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::events::{EventLog, Marks};
use super::series::Series;
use super::time_text;
use crate::topic::{Origin, SourceKind, SourceRef, SpecFields, TopicName, TopicPartition, TopicSpec};

/// The state of a task; a topic's is its worst task's. The order is from worst to best, as a topic shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Gave up: a fatal error, or a rejection under `on_reject: stop`.
    Failed,
    /// Pending work and no progress although its dependencies are well.
    Stalled,
    /// Crashed; restarts at `next_restart_at`.
    Backoff,
    /// A dependency is not there; `reason` names it.
    Waiting,
    /// Finishing what it holds before it stops.
    Draining,
    /// Being started.
    Starting,
    /// At work.
    Running,
    /// Paused by an operator.
    Paused,
    /// Another instance has the partition, or no one yet.
    Unassigned,
    /// Stopped, because the instance shuts down.
    Stopped,
}

impl TaskState {
    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stalled => "stalled",
            Self::Backoff => "backoff",
            Self::Waiting => "waiting",
            Self::Draining => "draining",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Unassigned => "unassigned",
            Self::Stopped => "stopped",
        }
    }

    /// Every state, from worst to best.
    pub const ALL: [Self; 10] = [
        Self::Failed,
        Self::Stalled,
        Self::Backoff,
        Self::Waiting,
        Self::Draining,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Unassigned,
        Self::Stopped,
    ];
}

/// Whether someone has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing is wrong.
    Ok,
    /// Something waits or restarts; it is expected to recover by itself.
    Degraded,
    /// Someone has to act.
    Down,
}

/// Why a task does not run, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// No broker answers.
    KafkaUnreachable,
    /// No node of the sink answers.
    SinkUnreachable,
    /// The sink refuses for pressure or for its own state.
    SinkRejecting,
    /// The sink answers slower than records arrive.
    SinkSlow,
    /// Kafka has no topic of this name.
    TopicMissing,
    /// Kafka does not let us read the topic.
    TopicForbidden,
    /// The index has a write or read-only block.
    IndexBlocked,
    /// The index is closed.
    IndexClosed,
    /// The cluster's limit of shards is reached.
    ShardLimit,
    /// User, password, key or certificate are refused.
    Credentials,
    /// The dead-letter store is full.
    DeadLettersFull,
    /// The dead-letter store cannot be written.
    DeadLettersUnavailable,
    /// The sink answers with an error that drover does not know.
    UnknownError,
    /// A record was rejected under `on_reject: stop`.
    Rejected,
    /// Pending work and no progress.
    NoProgress,
    /// The task crashed.
    Crashed,
    /// The memory limit is reached.
    Memory,
}

impl ReasonCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KafkaUnreachable => "kafka_unreachable",
            Self::SinkUnreachable => "sink_unreachable",
            Self::SinkRejecting => "sink_rejecting",
            Self::SinkSlow => "sink_slow",
            Self::TopicMissing => "topic_missing",
            Self::TopicForbidden => "topic_forbidden",
            Self::IndexBlocked => "index_blocked",
            Self::IndexClosed => "index_closed",
            Self::ShardLimit => "shard_limit",
            Self::Credentials => "credentials",
            Self::DeadLettersFull => "dead_letters_full",
            Self::DeadLettersUnavailable => "dead_letters_unavailable",
            Self::UnknownError => "unknown_error",
            Self::Rejected => "rejected",
            Self::NoProgress => "no_progress",
            Self::Crashed => "crashed",
            Self::Memory => "memory",
        }
    }
}

/// Why something is not well, what to do about it, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reason {
    /// A stable code.
    pub code: ReasonCode,
    /// What happened, for people.
    pub message: String,
    /// What helps.
    pub remedy: String,
    /// Since when.
    #[serde(with = "time_text")]
    pub since_at: Timestamp,
}

/// How a task's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// It returned, which a task of an endless stream never should.
    Completed,
    /// It returned an error.
    Error,
    /// It panicked.
    Panicked,
    /// The watchdog killed it.
    Stalled,
    /// An operator asked for a restart.
    Requested,
    /// It was told to stop.
    Cancelled,
}

impl ExitCause {
    /// The cause on the wire and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Panicked => "panicked",
            Self::Stalled => "stalled",
            Self::Requested => "requested",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One end of a task's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    /// When.
    #[serde(with = "time_text")]
    pub at: Timestamp,
    /// How.
    pub cause: ExitCause,
    /// The error's or the panic's text.
    pub message: String,
    /// The offset the task worked on, where it is known.
    pub offset: Option<i64>,
}

/// Offsets that Kafka removed before they were read: `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LostRange {
    /// The first lost offset.
    pub from: i64,
    /// The offset after the last lost one.
    pub to: i64,
    /// When it was noticed.
    #[serde(with = "time_text")]
    pub at: Timestamp,
}

/// One supervised task: the worker of one partition.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Task {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number.
    pub partition: i32,
    /// The instance that has the partition; `null` when no asked instance has it.
    pub instance: Option<String>,
    /// What the task does.
    pub state: TaskState,
    /// Whether someone has to look.
    pub health: Health,
    /// Why it does not run.
    pub reason: Option<Reason>,
    /// Since when it is in this state.
    #[serde(with = "time_text")]
    pub since_at: Timestamp,
    /// The number of the current life, from 1; 0 before the first.
    pub incarnation: u64,
    /// Restarts ever, over restarts of the process.
    pub restarts_total: u64,
    /// Failures since the last healthy time.
    pub consecutive_failures: u32,
    /// When the next life begins, in backoff.
    #[serde(with = "time_text::option")]
    pub next_restart_at: Option<Timestamp>,
    /// The last end.
    pub last_exit: Option<Exit>,
    /// The newest ends, newest first.
    pub recent_exits: Vec<Exit>,
    /// The offset after the last record that was read.
    pub position: Option<i64>,
    /// The committed offset.
    pub committed: Option<i64>,
    /// When it was committed.
    #[serde(with = "time_text::option")]
    pub committed_at: Option<Timestamp>,
    /// The end of the partition.
    pub high_watermark: Option<i64>,
    /// Records between the committed offset and the end.
    pub lag: Option<i64>,
    /// Age of the record at the watermark, in seconds; 0 when nothing is left.
    pub lag_seconds: Option<f64>,
    /// Records indexed since the process started.
    pub indexed_total: u64,
    /// Records dead-lettered since the process started.
    pub dead_lettered_total: u64,
    /// Records skipped by a policy since the process started.
    pub skipped_total: u64,
    /// Records sent again since the process started.
    pub retried_total: u64,
    /// Records that Kafka removed before they were read, since the process started.
    pub lost_total: u64,
    /// The lost ranges, newest last.
    pub lost: Vec<LostRange>,
    /// Settled records per second, mean of 10 s.
    pub records_per_second: f64,
    /// Restarts by the cause of the exit before them; only the metrics tell them apart.
    #[serde(skip)]
    #[schema(ignore)]
    pub restarts_by_cause: BTreeMap<ExitCause, u64>,
    /// How long the oldest record that was read but not settled has been held, in seconds; only in the metrics.
    #[serde(skip)]
    #[schema(ignore)]
    pub oldest_unsettled_seconds: f64,
    /// Another one when the row looks different, see [`super::versions`].
    #[serde(skip)]
    #[schema(ignore)]
    pub version: u64,
}

/// What a topic does, over all its partitions.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TopicStatus {
    /// The worst task's state; `paused` wins.
    pub state: TaskState,
    /// The worst task's health.
    pub health: Health,
    /// The worst task's reason.
    pub reason: Option<Reason>,
    /// Number of partitions.
    pub partitions: usize,
    /// Number of tasks by state.
    pub tasks: BTreeMap<String, usize>,
    /// Sum of the tasks' restarts.
    pub restarts_total: u64,
    /// Sum of the tasks' lags; `null` if any is not known.
    pub lag: Option<i64>,
    /// The largest of the tasks'.
    pub lag_seconds: Option<f64>,
    /// Sum of the tasks'.
    pub indexed_total: u64,
    /// Sum of the tasks'.
    pub dead_lettered_total: u64,
    /// Sum of the tasks'.
    pub skipped_total: u64,
    /// Sum of the tasks'.
    pub lost_total: u64,
    /// Sum of the tasks'.
    pub records_per_second: f64,
}

/// A pause of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Who.
    pub actor: String,
    /// Since when.
    #[serde(with = "time_text")]
    pub since_at: Timestamp,
    /// When it ends by itself.
    #[serde(with = "time_text::option", default)]
    pub until_at: Option<Timestamp>,
}

/// What was done to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAction {
    /// The store's entry was written as a whole.
    Put,
    /// Fields of the store's entry were changed.
    Patch,
    /// The store's entry was removed.
    Delete,
    /// A pause was laid over the topic, or changed.
    Pause,
    /// The pause was lifted.
    Resume,
    /// Partitions were moved to other offsets.
    Rewind,
    /// The store's entry was set to what it was before another change.
    Revert,
}

/// One change of a topic: who, when, what was before and what after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// A ULID: ids of later changes are greater.
    #[schema(example = "01JF8Z5Q4W9G2M7XKTB3N6VRHC")]
    pub id: String,
    /// The store's revision that the change made; `null` inside the store, where the key's own revision says it.
    #[serde(default)]
    pub revision: Option<i64>,
    /// When.
    #[serde(with = "time_text")]
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// Through what: `api`.
    pub source: String,
    /// The request's id.
    pub request_id: Option<String>,
    /// The topic.
    pub topic: TopicName,
    /// What was done.
    pub action: ChangeAction,
    /// What was there before: the entry's fields, the pause, or offsets by partition; `null` for nothing.
    #[schema(value_type = Option<Object>)]
    pub before: Option<serde_json::Value>,
    /// What is there since.
    #[schema(value_type = Option<Object>)]
    pub after: Option<serde_json::Value>,
}

/// A managed topic: what is wanted, who wants it, and what it does.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Topic {
    /// The topic's name.
    pub name: TopicName,
    /// The effective spec.
    pub spec: TopicSpec,
    /// What the store holds.
    pub overrides: SpecFields,
    /// Where each field of the spec comes from.
    pub spec_origin: BTreeMap<String, Origin>,
    /// The places that name the topic.
    pub sources: Vec<SourceRef>,
    /// The pause, if the topic is paused.
    pub paused: Option<Pause>,
    /// What it does.
    pub status: TopicStatus,
    /// What became of its records in the last minute; only the health report tells.
    #[serde(skip)]
    #[schema(ignore)]
    pub last_minute: LastMinute,
    /// Another one when the row looks different, see [`super::versions`].
    #[serde(skip)]
    #[schema(ignore)]
    pub version: u64,
}

/// Records of a topic in the last 60 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastMinute {
    /// Records indexed, dead-lettered or skipped.
    pub settled: u64,
    /// Those of them that were dead-lettered.
    pub dead_lettered: u64,
}

/// How a source of topics is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceStatus {
    /// Read and understood.
    Ok,
    /// Held back until confirmed, because it went back in time.
    Stale,
    /// Not readable or malformed; its last good list stays in force.
    Error,
    /// Not configured.
    Disabled,
}

/// What is wrong with a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SourceError {
    /// What is wrong.
    pub message: String,
    /// The line, in a file.
    pub line: Option<u32>,
    /// Since when.
    #[serde(with = "time_text")]
    pub since_at: Timestamp,
}

/// One source of topics, with its freshness and error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Source {
    /// Which kind.
    pub kind: SourceKind,
    /// The file's path or the key.
    pub detail: Option<String>,
    /// How it is doing.
    pub status: SourceStatus,
    /// Number of topics that it names.
    pub topics: usize,
    /// The revision that was read.
    pub revision: Option<i64>,
    /// A hash of what was read.
    pub content_hash: Option<String>,
    /// When it was last read.
    #[serde(with = "time_text::option")]
    pub read_at: Option<Timestamp>,
    /// When its content last changed.
    #[serde(with = "time_text::option")]
    pub changed_at: Option<Timestamp>,
    /// What is wrong.
    pub error: Option<SourceError>,
}

/// A long-running part of the instance: the consumer, the sink, a watcher, the API.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Component {
    /// The part's name.
    pub name: String,
    /// What it does.
    pub state: TaskState,
    /// Whether someone has to look.
    pub health: Health,
    /// Why it is not well.
    pub reason: Option<Reason>,
    /// Since when it is in this state.
    #[serde(with = "time_text")]
    pub since_at: Timestamp,
    /// Restarts since the process started.
    pub restarts_total: u64,
    /// The last end.
    pub last_exit: Option<Exit>,
}

/// Memory held, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Memory {
    /// The configured limit.
    pub limit_bytes: u64,
    /// What librdkafka may prefetch.
    pub prefetch_bytes: u64,
    /// Records, segments and bulk bodies in work.
    pub in_flight_bytes: u64,
    /// The most that was in work at once.
    pub peak_bytes: u64,
}

/// What the sink has done since the process started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct SinkTotals {
    /// Requests by outcome: `ok`, `partial`, `retry`, `rejected`, `unreachable`.
    pub requests: BTreeMap<String, u64>,
    /// Upper bounds in seconds and cumulative counts of the request durations.
    pub duration_buckets: Vec<(f64, u64)>,
    /// Sum of the request durations in seconds.
    pub duration_sum_seconds: f64,
    /// Number of requests that were timed.
    pub duration_count: u64,
}

/// A topic that was deleted and created again under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recreation {
    /// The first part of the document ids of the topic that was deleted.
    pub before: String,
    /// The same of the topic that is there now.
    pub after: String,
    /// When it was noticed.
    pub at: Timestamp,
}

/// Everything the read side answers from: one consistent view of the instance at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Managed topics by name.
    pub topics: Vec<Topic>,
    /// Tasks by topic and partition.
    pub tasks: Vec<Task>,
    /// The highest version that any row has had in this run of the process.
    pub last_version: u64,
    /// Sources of topics.
    pub sources: Vec<Source>,
    /// Long-running parts.
    pub components: Vec<Component>,
    /// Memory held.
    pub memory: Memory,
    /// The sink's totals.
    pub sink: SinkTotals,
    /// Bytes in the dead-letter store.
    pub dead_letters_bytes: u64,
    /// Its configured limit.
    pub dead_letters_max_bytes: u64,
    /// Violations of invariants that must never happen, by the invariant's name.
    pub invariant_violations: BTreeMap<String, u64>,
    /// Fields of the configuration whose new value takes effect at the next start.
    pub needs_restart: Vec<String>,
    /// What an operator should know although nothing is wrong yet.
    pub warnings: Vec<String>,
    /// Every write of the store up to this revision is in the topics; 0 before the first list.
    pub store_revision: i64,
    /// Whether a first merged list of topics was there.
    pub first_list: bool,
    /// Whether the instance shuts down.
    pub draining: bool,
    /// The partitions that this instance has; the number grows with every assignment of a partition.
    pub assignments: BTreeMap<TopicPartition, u64>,
    /// The topics that this process found to be re-created, with the newest time each.
    pub recreations: BTreeMap<TopicName, Recreation>,
    /// What the events have told.
    pub marks: Arc<Marks>,
    /// The newest events.
    pub events: EventLog,
    /// The last quarter of an hour.
    pub series: Series,
}
