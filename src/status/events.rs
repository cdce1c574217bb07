//! What happened: supervision events, derived from the difference of two consecutive snapshots.
//!
//! Guarantees: no part of the pipeline knows of events, since [`between()`] reads them off what every part publishes anyway; what is short lived is found all the same where the
//! snapshot keeps it (ends of tasks, lost ranges, counters); no partition that comes and goes is told of twice, because [`Marks`] remember what was told; no storm pushes
//! everything else out of the [`EventLog`], because many events of one kind at one moment are one, and what never ceases is told once a minute. Pure: the time is that of the
//! snapshot, or of the end or the lost range itself. Does not log: the parts do.
//!
//! | to find | look in |
//! |---|---|
//! | which difference is which event | `between` |
//! | what has been told of each partition and counter | `marks` |
//! | the event's form, the log | this file |

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ExitCause, Pause, ReasonCode, Snapshot, SourceStatus, time_text};
use crate::topic::{SourceKind, TopicName, TopicSpec};

mod between;
mod marks;
#[cfg(test)]
mod tests;

pub use between::{CONSUMER, between};
pub use marks::Marks;

/// The newest events that are kept.
pub const KEPT_EVENTS: usize = 1000;
/// Characters of a message: the texts of servers and panics have no limit of their own.
const MAX_MESSAGE: usize = 500;

/// Whether someone has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It belongs to normal work.
    Info,
    /// It is expected to recover by itself.
    Warning,
    /// Someone has to act, or something is lost.
    Error,
}

impl Severity {
    /// Every severity.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// The severity on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What happened, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A life of a task began.
    TaskStarted,
    /// A life of a task ended.
    TaskExited,
    /// A task had work and made no progress.
    TaskStalled,
    /// A task, or a topic that has none, waits for something that is not there.
    TaskParked,
    /// Kafka removed records before they were read.
    RecordsLost,
    /// Records were skipped by a policy.
    RecordsSkipped,
    /// A topic was deleted and created again under its name.
    TopicRecreated,
    /// A topic is managed now.
    TopicAdded,
    /// A topic's spec or pause is another.
    TopicChanged,
    /// A topic is not managed any more.
    TopicRemoved,
    /// A source of topics cannot be used; its last good list stays in force.
    SourceFailed,
    /// A source of topics can be used again.
    SourceRecovered,
    /// Partitions came to this instance.
    Assigned,
    /// Partitions left this instance.
    Revoked,
    /// The consumer was started again.
    ConsumerRebuilt,
    /// The dead-letter store is nearly full.
    DeadLettersNearlyFull,
    /// What must never happen did.
    InvariantViolated,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::TaskStarted,
        Self::TaskExited,
        Self::TaskStalled,
        Self::TaskParked,
        Self::RecordsLost,
        Self::RecordsSkipped,
        Self::TopicRecreated,
        Self::TopicAdded,
        Self::TopicChanged,
        Self::TopicRemoved,
        Self::SourceFailed,
        Self::SourceRecovered,
        Self::Assigned,
        Self::Revoked,
        Self::ConsumerRebuilt,
        Self::DeadLettersNearlyFull,
        Self::InvariantViolated,
    ];

    /// The kind on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskStarted => "task_started",
            Self::TaskExited => "task_exited",
            Self::TaskStalled => "task_stalled",
            Self::TaskParked => "task_parked",
            Self::RecordsLost => "records_lost",
            Self::RecordsSkipped => "records_skipped",
            Self::TopicRecreated => "topic_recreated",
            Self::TopicAdded => "topic_added",
            Self::TopicChanged => "topic_changed",
            Self::TopicRemoved => "topic_removed",
            Self::SourceFailed => "source_failed",
            Self::SourceRecovered => "source_recovered",
            Self::Assigned => "assigned",
            Self::Revoked => "revoked",
            Self::ConsumerRebuilt => "consumer_rebuilt",
            Self::DeadLettersNearlyFull => "dead_letters_nearly_full",
            Self::InvariantViolated => "invariant_violated",
        }
    }
}

/// Partitions of one topic: how many, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partitions {
    /// The numbers in order, at most 1,000 of them.
    pub partitions: Vec<i32>,
    /// How many there are.
    pub count: usize,
}

/// What is wanted of a topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Wanted {
    /// The effective spec.
    pub spec: TopicSpec,
    /// The pause, if the topic is paused.
    pub paused: Option<Pause>,
}

/// The facts of an event, for programs; which fields there are depends on the kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EventData {
    /// `topic_removed`, and many events of one kind have none of their own.
    Nothing {},
    /// `assigned`, `revoked`.
    Partitions(Partitions),
    /// `task_started`.
    Started {
        /// Whose lives began.
        #[serde(flatten)]
        partitions: Partitions,
        /// The number of the life; `null` when there are several.
        incarnation: Option<u64>,
    },
    /// `task_exited`.
    Exited {
        /// How the life ended.
        cause: ExitCause,
        /// The offset that it worked on.
        offset: Option<i64>,
        /// Restarts ever.
        restarts_total: u64,
    },
    /// `task_stalled`.
    Stalled {
        /// The offset after the last record that was read.
        position: Option<i64>,
        /// The committed offset.
        committed: Option<i64>,
    },
    /// `task_parked`.
    Parked {
        /// Whose tasks wait.
        #[serde(flatten)]
        partitions: Partitions,
        /// Why.
        code: ReasonCode,
        /// What helps.
        remedy: String,
    },
    /// `records_lost`: `from` inclusive, `to` exclusive; both `null` for records in ranges that are not listed any more.
    Lost {
        /// The first lost offset.
        from: Option<i64>,
        /// The offset after the last lost one.
        to: Option<i64>,
        /// How many.
        records: u64,
    },
    /// `records_skipped`.
    Skipped {
        /// Records since the event of this kind before, or since the process started.
        records: u64,
        /// Records since the process started.
        skipped_total: u64,
    },
    /// `topic_recreated`: the first part of the document ids.
    Recreated {
        /// Of the topic that was deleted.
        before: String,
        /// Of the topic that is there now.
        after: String,
    },
    /// `topic_added`.
    Added {
        /// The sources that name the topic.
        sources: Vec<SourceKind>,
    },
    /// `topic_changed`.
    Changed {
        /// The fields that differ: those of the spec, and `paused`.
        fields: Vec<&'static str>,
        /// What was wanted.
        before: Box<Wanted>,
        /// What is wanted.
        after: Box<Wanted>,
    },
    /// `source_failed`, `source_recovered`.
    Source {
        /// Which kind of source.
        source: SourceKind,
        /// The file's path or the key.
        detail: Option<String>,
        /// How it is doing now.
        status: SourceStatus,
        /// The line in a file.
        line: Option<u32>,
    },
    /// `consumer_rebuilt`.
    Rebuilt {
        /// Restarts of the consumer since the process started.
        restarts_total: u64,
        /// How the life before ended.
        cause: Option<ExitCause>,
    },
    /// `dead_letters_nearly_full`.
    DeadLetters {
        /// Bytes in the store.
        bytes: u64,
        /// The configured limit.
        max_bytes: u64,
    },
    /// `invariant_violated`.
    Invariant {
        /// The invariant's name.
        invariant: String,
        /// Violations since the process started.
        count: u64,
    },
    /// Many events of any kind at one moment.
    Many {
        /// How many.
        events: usize,
        /// Of how many topics.
        topics: usize,
    },
}

/// An event that has no number yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// When.
    pub at: Timestamp,
    /// Whether someone has to look.
    pub severity: Severity,
    /// What happened.
    pub kind: EventKind,
    /// The topic, where there is one.
    pub topic: Option<TopicName>,
    /// The partition, where there is exactly one.
    pub partition: Option<i32>,
    /// What happened, for people.
    pub message: String,
    /// The same for programs.
    pub data: EventData,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Event {
    /// `<epoch>-<seq>`: the epoch names the run of the process, `seq` counts its events from 1.
    #[schema(example = "mhfbl2o0-17")]
    pub id: String,
    /// The `seq` of the id.
    #[serde(skip)]
    #[schema(ignore)]
    pub seq: u64,
    /// When.
    #[serde(with = "time_text")]
    pub at: Timestamp,
    /// Whether someone has to look.
    pub severity: Severity,
    /// What happened.
    pub kind: EventKind,
    /// The topic; `null` for what belongs to none, or to many.
    pub topic: Option<TopicName>,
    /// The partition; `null` for what belongs to none, or to many.
    pub partition: Option<i32>,
    /// The instance that saw it.
    pub instance: String,
    /// What happened, for people.
    pub message: String,
    /// The same for programs. `task_started`: `partitions, count, incarnation`; `task_exited`: `cause, offset, restarts_total`; `task_stalled`: `position, committed`;
    /// `task_parked`: `partitions, count, code, remedy`; `records_lost`: `from, to, records`; `records_skipped`: `records, skipped_total`; `topic_recreated`: `before, after` (the
    /// first part of the document ids); `topic_added`: `sources`; `topic_changed`: `fields, before, after`; `source_failed`, `source_recovered`: `source, detail, status, line`;
    /// `assigned`, `revoked`: `partitions, count`; `consumer_rebuilt`: `restarts_total, cause`; `dead_letters_nearly_full`: `bytes, max_bytes`; `invariant_violated`:
    /// `invariant, count`. More than 100 events of one kind at one moment are one, with `events, topics`.
    #[schema(value_type = Object)]
    pub data: EventData,
}

/// The newest events of this run of the process. A value: what is published never changes, and cloning it is cheap.
#[derive(Debug, Clone, PartialEq)]
pub struct EventLog {
    epoch: Arc<str>,
    last_seq: u64,
    /// Oldest first.
    events: Arc<[Arc<Event>]>,
}

impl EventLog {
    /// A log without events. `started_at` names the run: ids of another one never mean an event of this.
    pub fn new(started_at: Timestamp) -> Self {
        Self { epoch: base36(started_at.as_millisecond().unsigned_abs()).into(), last_seq: 0, events: Arc::new([]) }
    }

    /// The name of the run, the first part of every id.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The number of the newest event; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The events, oldest first. Their numbers have no gaps.
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// The log with these events, seen by `instance`, at its end.
    pub fn with(&self, drafts: Vec<Draft>, instance: &str) -> Self {
        if drafts.is_empty() {
            return self.clone();
        }
        let mut events: Vec<Arc<Event>> = self.events.to_vec();
        let mut seq = self.last_seq;
        for draft in drafts {
            seq += 1;
            events.push(Arc::new(self.event(draft, seq, instance)));
        }
        events.drain(..events.len().saturating_sub(KEPT_EVENTS));
        Self { epoch: self.epoch.clone(), last_seq: seq, events: events.into() }
    }

    fn event(&self, draft: Draft, seq: u64, instance: &str) -> Event {
        Event {
            id: format!("{}-{seq}", self.epoch),
            seq,
            at: draft.at,
            severity: draft.severity,
            kind: draft.kind,
            topic: draft.topic,
            partition: draft.partition,
            instance: instance.to_owned(),
            message: cut(draft.message),
            data: draft.data,
        }
    }
}

/// Carries marks and events over from the snapshot before to `next`, with what happened in between as `instance` saw it.
pub fn follow(previous: &Snapshot, next: &mut Snapshot, instance: &str) {
    next.marks = marks::after(&previous.marks, next);
    next.events = previous.events.with(between(previous, next), instance);
}

/// The first [`MAX_MESSAGE`] characters; a cut is marked.
fn cut(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// A number in digits and lower-case letters.
fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        digits.extend(char::from_digit(digit, 36));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}
