//! The store: topics and pauses that the API writes, and the facts of topics.
//!
//! # What every [`TopicStore`] guarantees
//!
//! One shared suite (`suite::contract`) holds each implementation to this, the embedded file ([`local`]) and etcd alike:
//!
//! * A write that was answered with `Ok` is durable, and only a durable write shows in a view.
//! * Revisions grow: each write of a topic or a pause has a larger one than all before, and it is the entry's `revision` until the next write of the entry, even if the value is
//!   the same. They may leave gaps (in etcd other keys use them too).
//! * A [`Precondition`] is checked and the write done in one step; of several writers with the same precondition one succeeds.
//! * Facts are created and replaced by compare-and-swap: every caller is answered with what is stored, its own or another's, so all instances use the same. Facts outlive their
//!   topic's entry. They are not part of views.
//! * A view is complete and of one moment; views never go back. After a write the views reach its revision: in the embedded store before the write is answered, in etcd when the
//!   watch brings it, so whoever needs to read its own write waits for [`StoreView::revision`].
//! * [`StoreError::Unavailable`] after a write means that its outcome is not known: it may show in a later view. Repeating it under the same precondition is safe.
//!
//! Does not decide what a topic's spec becomes (that is [`merge`](super::merge)), and knows no actor: who wrote what is the API's.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::status::Pause;
use crate::topic::{Facts, SpecFields, TopicName};

pub mod local;
#[cfg(test)]
pub(crate) mod suite;

/// A stored value with its key and the revision of its last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The key, such as `topics/orders`, with the prefix where the store has one.
    pub key: String,
    /// The revision of the last write.
    pub revision: i64,
    /// The value.
    pub value: T,
}

/// All topics and pauses of the store at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreView {
    /// Every write of a topic or a pause up to this revision is in the view.
    pub revision: i64,
    /// Topics' entries by name.
    pub topics: BTreeMap<TopicName, Stored<SpecFields>>,
    /// Pauses by the topic's name.
    pub pauses: BTreeMap<TopicName, Stored<Pause>>,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    Any,
    /// There is no entry.
    Absent,
    /// The entry has this revision.
    Revision(i64),
}

impl Precondition {
    /// Checks the precondition against the entry's revision, `None` where there is no entry.
    pub fn check(self, current: Option<i64>) -> Result<(), StoreError> {
        let holds = match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Revision(revision) => current == Some(revision),
        };
        if holds { Ok(()) } else { Err(StoreError::Conflict { current }) }
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutOutcome {
    /// The entry's revision from now on.
    pub revision: i64,
    /// Whether there was no entry before.
    pub created: bool,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be read or written, or holds something that drover cannot read.
    #[error("the store is not available: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The precondition does not hold.
    #[error("the entry was changed by someone else")]
    Conflict {
        /// The entry's revision; `None` where there is no entry.
        current: Option<i64>,
    },
    /// There is no such entry.
    #[error("there is no such entry")]
    NotFound,
}

/// Where topics, pauses and facts are kept; see the module for what every implementation guarantees.
pub trait TopicStore: Send + Sync + 'static {
    /// The topic's facts, if it was ever admitted.
    fn facts<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Option<Facts>, StoreError>>;

    /// Stores the first facts of a topic unless there are some; answers what is stored now.
    fn create_facts<'a>(&'a self, topic: &'a TopicName, facts: Facts) -> BoxFuture<'a, Result<Facts, StoreError>>;

    /// Replaces `old` by `new` unless someone else replaced it before; answers what is stored now. [`StoreError::NotFound`] where nothing is.
    fn replace_facts<'a>(&'a self, topic: &'a TopicName, old: Facts, new: Facts) -> BoxFuture<'a, Result<Facts, StoreError>>;

    /// Writes the topic's entry: exactly these fields.
    fn put_topic<'a>(&'a self, topic: &'a TopicName, fields: SpecFields, precondition: Precondition)
    -> BoxFuture<'a, Result<PutOutcome, StoreError>>;

    /// Removes the topic's entry, and its pause with it; answers the revision of the removal. [`StoreError::NotFound`] where there is no entry, whatever the precondition.
    fn delete_topic<'a>(&'a self, topic: &'a TopicName, precondition: Precondition) -> BoxFuture<'a, Result<i64, StoreError>>;

    /// Lays a pause over the topic, whichever source names it, in place of the one before.
    fn put_pause<'a>(&'a self, topic: &'a TopicName, pause: Pause) -> BoxFuture<'a, Result<PutOutcome, StoreError>>;

    /// Lifts the topic's pause; answers the revision of the removal. [`StoreError::NotFound`] where there is none.
    fn delete_pause<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<i64, StoreError>>;

    /// Every view; the newest is there at once.
    fn views(&self) -> watch::Receiver<StoreView>;
}
