//! The store: topics and pauses that the API writes, the log of their changes, and the facts of topics.
//!
//! # What every [`TopicStore`] guarantees
//!
//! One shared suite (`suite::contract`) holds each implementation to this, the embedded file ([`local`]) and etcd ([`EtcdStore`](super::etcd::EtcdStore)) alike:
//!
//! * A write that was answered with `Ok` is durable, and only a durable write shows in a view.
//! * Revisions grow: each write of a topic or a pause has a larger one than all before, and it is the entry's `revision` until the next write of the entry, even if the value is
//!   the same. They may leave gaps (in etcd other keys use them too).
//! * A [`Precondition`] is checked and the write done in one step; of several writers with the same precondition one succeeds.
//! * Each write of a topic or a pause leaves one [`Change`] with what was before and after, written in the write's own transaction: there is no write without its change and no change
//!   without its write. The newest [`KEPT_CHANGES`] are kept.
//! * Facts are created and replaced by compare-and-swap: every caller is answered with what is stored, its own or another's, so all instances use the same. Facts outlive their
//!   topic's entry. They are not part of views.
//! * A view is complete and of one moment; views never go back. After a write the views reach its revision: in the embedded store before the write is answered, in etcd when the
//!   watch brings it, so whoever needs to read its own write waits for [`StoreView::revision`].
//! * An entry that cannot be read keeps its last good value in the view, and [`StoreView::source`] names it. A view that could not be read again stays.
//! * [`StoreError::Unavailable`] after a write means that nothing was written, [`StoreError::OutcomeUnknown`] that it may show in a later view; repeating it under the same
//!   precondition is safe.
//! * A store whose past has changed (it was restored, or emptied) keeps the view of before and refuses writes with [`StoreError::Stale`] until [`TopicStore::confirm`].
//!
//! Does not decide what a topic's spec becomes: that is [`merge`](super::merge).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::status::{Change, ChangeAction, Pause, Source, SourceStatus};
use crate::topic::{Facts, SourceKind, SpecFields, TopicName};

pub mod local;
#[cfg(any(test, feature = "failpoints"))]
#[doc(hidden)]
pub mod suite;

/// How many changes a store keeps, the newest ones.
pub const KEPT_CHANGES: usize = 1000;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreView {
    /// Whether reading the store was tried: before that the view says nothing. True also when the first try failed and the view is the last good one, or empty.
    pub is_ready: bool,
    /// Every write of a topic or a pause up to this revision is in the view.
    pub revision: i64,
    /// Topics' entries by name.
    pub topics: BTreeMap<TopicName, Stored<SpecFields>>,
    /// Pauses by the topic's name.
    pub pauses: BTreeMap<TopicName, Stored<Pause>>,
    /// How reading the store goes.
    pub source: Source,
}

impl StoreView {
    /// The view before the store was read. `detail` says what store it is.
    pub fn unread(detail: &str) -> Self {
        let source = Source {
            kind: SourceKind::Store,
            detail: Some(detail.to_owned()),
            status: SourceStatus::Ok,
            topics: 0,
            revision: None,
            content_hash: None,
            read_at: None,
            changed_at: None,
            error: None,
        };
        Self { is_ready: false, revision: 0, topics: BTreeMap::new(), pauses: BTreeMap::new(), source }
    }
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

/// The turns of a writer that wants to write whatever is there, and finds each time that somebody else was faster.
///
/// Guarantees that many writers who meet at one entry all get through: after each lost race a writer waits for a time that is left to chance, out of a span that doubles, so that they no longer meet. Without the waits, 20
/// writers on 3 instances made one of them lose 16 races in a row within a minute (row 59 of the fault matrix).
#[derive(Debug)]
pub struct Races {
    lost: u32,
    until: Instant,
}

impl Races {
    const FIRST_SPAN: Duration = Duration::from_millis(5);
    const MOST_DOUBLINGS: u32 = 6;
    /// For all turns together: less than any client waits for an answer.
    const WITHIN: Duration = Duration::from_secs(5);

    /// Before the first turn.
    #[expect(clippy::new_without_default, reason = "it begins to measure time")]
    pub fn new() -> Self {
        Self { lost: 0, until: Instant::now() + Self::WITHIN }
    }

    /// Waits for the next turn after a lost one; `false` when the time for all of them is up.
    pub async fn again(&mut self) -> bool {
        let wait = self.span().mul_f64(rand::random());
        self.lost += 1;
        if Instant::now() + wait > self.until {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    /// The wait is at most this.
    fn span(&self) -> Duration {
        Self::FIRST_SPAN * (1 << self.lost.min(Self::MOST_DOUBLINGS))
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

/// Who asks for a change, and on which occasion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Who: a token's name, or `anonymous`.
    pub actor: String,
    /// Through what: `api`.
    pub source: &'static str,
    /// The request's id.
    pub request_id: Option<String>,
}

/// Which changes a list holds, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangesQuery {
    /// Only this topic's.
    pub topic: Option<TopicName>,
    /// Only changes older than the one with this id.
    pub before: Option<String>,
    /// At most this many.
    pub limit: usize,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be read or written, or holds something that drover cannot read. Nothing was written.
    #[error("the store is not available: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A write got no answer: it may have been done, or be done later.
    #[error("whether the store was written is not known: {what}")]
    OutcomeUnknown {
        /// What was tried.
        what: String,
        /// Why there is no answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store is not the one of before, or went back in time, and nobody has confirmed that this is meant.
    #[error("the store was replaced or restored, and waits for a confirmation")]
    Stale,
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

    /// The topic's entry as it is now, also where the views lag behind.
    fn topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Option<Stored<SpecFields>>, StoreError>>;

    /// Writes the topic's entry: exactly these fields. `action` is what the change is called: put, patch or revert.
    fn put_topic<'a>(
        &'a self,
        topic: &'a TopicName,
        fields: SpecFields,
        precondition: Precondition,
        action: ChangeAction,
        author: Author,
    ) -> BoxFuture<'a, Result<PutOutcome, StoreError>>;

    /// Removes the topic's entry, and its pause with it; answers the revision of the removal. [`StoreError::NotFound`] where there is no entry, whatever the precondition.
    fn delete_topic<'a>(&'a self, topic: &'a TopicName, precondition: Precondition, author: Author) -> BoxFuture<'a, Result<i64, StoreError>>;

    /// Lays a pause over the topic, whichever source names it, in place of the one before.
    fn put_pause<'a>(&'a self, topic: &'a TopicName, pause: Pause, author: Author) -> BoxFuture<'a, Result<PutOutcome, StoreError>>;

    /// Lifts the topic's pause; answers the revision of the removal. [`StoreError::NotFound`] where there is none.
    fn delete_pause<'a>(&'a self, topic: &'a TopicName, author: Author) -> BoxFuture<'a, Result<i64, StoreError>>;

    /// Logs a change that writes no entry: a rewind, with the offsets by partition before and after. Answers its revision.
    fn note<'a>(
        &'a self,
        topic: &'a TopicName,
        action: ChangeAction,
        before: Option<serde_json::Value>,
        after: Option<serde_json::Value>,
        author: Author,
    ) -> BoxFuture<'a, Result<i64, StoreError>>;

    /// The changes that match, the newest first.
    fn changes(&self, query: ChangesQuery) -> BoxFuture<'_, Result<Vec<Change>, StoreError>>;

    /// Takes the store as it is now, although it is not the one of before. Nothing where nothing waits for it.
    fn confirm(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Every view; the newest is there at once.
    fn views(&self) -> watch::Receiver<Arc<StoreView>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_loses_every_race_gives_up_in_time_after_more_races_than_there_are_writers() {
        let began = Instant::now();
        let mut races = Races::new();
        let mut turns = 0;
        while races.again().await {
            turns += 1;
        }
        assert!(began.elapsed() <= Races::WITHIN, "{:?}", began.elapsed());
        // Waits of at most 320 ms each.
        assert!(turns > 15, "{turns}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_wait_is_short_enough_for_two_writers() {
        let began = Instant::now();
        assert!(Races::new().again().await);
        assert!(began.elapsed() <= Races::FIRST_SPAN + Duration::from_millis(1), "{:?}", began.elapsed());
    }
}
