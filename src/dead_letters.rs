//! Dead letters: records that no server will take, kept with the reason until someone decides.
//!
//! Guarantees of every [`DeadLetters`] store: what [`DeadLetters::put`] has answered is durable; the same id is one entry however often it is put; a store that is full or
//! cannot be written refuses and the caller waits, so an offset never moves past a letter that is not safe; a letter leaves by [`DeadLetters::delete`], which someone asked for, or by
//! [`DeadLetters::remove_seen`] after its document was sent, and then only as it was when it was read. One shared suite (`suite::contract`) holds each store to this. Owns the letter's
//! form, and the queue of redrives ([`redrive`]). Does not decide what is dead, and sends nothing: that is the pipeline.

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::time_text;
use crate::topic::TopicName;

pub mod elasticsearch;
pub mod local;
pub mod redrive;
#[cfg(any(test, feature = "failpoints"))]
#[doc(hidden)]
pub mod suite;

/// Why a record is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The server refused the document for good.
    Rejected,
    /// The record crashed its task, alone, again and again.
    CrashLoop,
    /// The document is larger than the server takes.
    TooLarge,
    /// The record has no value and the topic wants to know.
    Tombstone,
    /// The record is not what the topic's format asks for.
    Format,
}

impl Cause {
    /// The cause on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::CrashLoop => "crash_loop",
            Self::TooLarge => "too_large",
            Self::Tombstone => "tombstone",
            Self::Format => "format",
        }
    }
}

/// What the server said; for causes without a server's answer the type is the cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LetterError {
    /// The error's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The error's text.
    pub reason: String,
    /// The HTTP status of the item.
    pub status: Option<u16>,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// The id of the document that the record would have become.
    pub id: String,
    /// The topic.
    pub topic: TopicName,
    /// The topic's UUID, or `null` where brokers have none.
    pub topic_id: Option<String>,
    /// The partition's number.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp.
    #[serde(with = "time_text::option")]
    pub timestamp: Option<Timestamp>,
    /// The index that it was meant for.
    pub index: String,
    /// The record's key.
    pub key_base64: Option<String>,
    /// The record's value; cut in lists.
    pub payload_base64: Option<String>,
    /// The value's whole length in bytes.
    pub payload_bytes: u64,
    /// Whether `payload_base64` is cut: in lists, where it is long; by id, where the store could not keep the payload, so that the letter cannot be redriven.
    pub truncated: bool,
    /// What the server said.
    pub error: LetterError,
    /// Why the record is dead.
    pub cause: Cause,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first died.
    #[serde(with = "time_text")]
    pub first_at: Timestamp,
    /// When it last died.
    #[serde(with = "time_text")]
    pub last_at: Timestamp,
    /// The last redrive that failed.
    #[serde(with = "time_text::option")]
    pub redriven_at: Option<Timestamp>,
}

/// What a letter inherits from the one that was kept under its id before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Past {
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// When it first died.
    #[serde(with = "time_text")]
    pub(crate) first_at: Timestamp,
    /// The last redrive that failed.
    #[serde(with = "time_text::option", default)]
    pub(crate) redriven_at: Option<Timestamp>,
}

/// A letter as someone has read it: what changes whenever it is put again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The letter's id.
    pub id: String,
    /// How often it had been tried.
    pub attempts: u32,
    /// When it had last died.
    pub last_at: Timestamp,
}

impl DeadLetter {
    /// What of this letter tells whether it was put again since.
    pub fn seen(&self) -> Seen {
        Seen { id: self.id.clone(), attempts: self.attempts, last_at: self.last_at }
    }

    /// Whether the letter, as a store has it, holds its payload, so that the record can be formatted again.
    pub fn is_whole(&self) -> bool {
        !self.truncated
    }

    /// What a later letter inherits from this one.
    pub(crate) fn past(&self) -> Past {
        Past { attempts: self.attempts, first_at: self.first_at, redriven_at: self.redriven_at }
    }

    /// Makes this letter the successor of what was kept under its id.
    pub(crate) fn succeed(&mut self, past: Past) {
        self.first_at = past.first_at;
        self.attempts = self.attempts.saturating_add(past.attempts);
        self.redriven_at = self.redriven_at.or(past.redriven_at);
    }
}

/// Which letters a list holds. Letters are ordered by topic, partition and offset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Only this topic's.
    pub topic: Option<TopicName>,
    /// Only this partition's.
    pub partition: Option<i32>,
    /// Only errors of this type.
    pub error_type: Option<String>,
    /// Only letters whose `last_at` is not before.
    pub since: Option<Timestamp>,
    /// Only letters whose `last_at` is before.
    pub until: Option<Timestamp>,
    /// Only letters after this one: topic, partition, offset, id. Letters of one place (the topic was re-created) differ in their ids.
    pub after: Option<(TopicName, i32, i64, String)>,
    /// At most this many.
    pub limit: usize,
}

impl Query {
    /// Whether the letter passes the filters that only the letter itself can answer: its error and its time.
    pub(crate) fn admits(&self, letter: &DeadLetter) -> bool {
        self.admits_death(&letter.error.kind, letter.last_at)
    }

    /// Whether a letter that died of this at this time passes the filters about that.
    pub(crate) fn admits_death(&self, error_type: &str, last_at: Timestamp) -> bool {
        self.error_type.as_ref().is_none_or(|kind| error_type == kind)
            && self.since.is_none_or(|since| last_at >= since)
            && self.until.is_none_or(|until| last_at < until)
    }
}

/// Why a store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured size is reached.
    #[error("the dead-letter store is full: {used} of {limit} bytes")]
    Full {
        /// Bytes in use.
        used: u64,
        /// The configured limit.
        limit: u64,
    },
    /// The store cannot be read or written.
    #[error("the dead-letter store is not available: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What helps.
        remedy: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What helps.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Full { .. } => "redrive or delete dead letters, or raise dead_letters.max_bytes",
            Self::Unavailable { remedy, .. } => remedy,
        }
    }
}

/// A store of dead letters; see the module for what every implementation guarantees.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps these letters durably. A letter whose id is known replaces the old one but keeps its `first_at`, its `redriven_at` unless there is a new one, and the attempts of
    /// both add up. Letters that are all known are taken even when the store is full.
    ///
    /// `Ok` means that all of them are durable and [`Error::Full`] that none was written. After [`Error::Unavailable`] some may have been kept, so the caller puts the
    /// same letters again until the answer is `Ok`; the attempts of those count once more.
    fn put(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>>;

    /// As [`DeadLetters::put`], of letters that are still there: one that was deleted meanwhile stays deleted. For letters whose redrive failed.
    fn put_known(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>>;

    /// The letters that match, in order, with whole payloads.
    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>>;

    /// How many letters match the filters; `after` and `limit` have no part in it. A store may compare times by whole milliseconds.
    fn count(&self, query: Query) -> BoxFuture<'_, Result<u64, Error>>;

    /// One letter, whole.
    fn get(&self, id: &str) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>>;

    /// Removes the letter of this id, whatever it is by now; `false` when there is none.
    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Error>>;

    /// Removes each of these letters that is still as it was seen; one that was put again since stays, so that a death which happened meanwhile is not forgotten. Answers how
    /// many were removed. After [`Error::Unavailable`] some may have been.
    fn remove_seen(&self, seen: Vec<Seen>) -> BoxFuture<'_, Result<usize, Error>>;

    /// Bytes in use, as counted against `dead_letters.max_bytes`.
    fn bytes(&self) -> u64;
}
