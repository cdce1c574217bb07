//! Kafka: one consumer-group member per process, and questions to the brokers.
//!
//! Guarantees: one thread ([`Consumer`]) alone polls, assigns, seeks and commits; every partition is assigned at an explicit offset; only watermarks are committed, never a position; a
//! mailbox gets the records of one partition in order, without a hole, from the watermark on; nothing that belongs to an ended assignment is committed. Owns everything of rdkafka: no
//! other module names it. Does not know formats, documents or why a topic is wanted.
//!
//! | to find | look in |
//! |---|---|
//! | the thread: polling, back-pressure, commits, revoke | [`consumer`](self) (`consumer.rs`) |
//! | moving a partition by an operator's will | `consumer/rewind.rs` |
//! | where a partition starts | `start.rs`, pure |
//! | what tasks hold: [`ConsumerHandle`], [`Intake`] | `handle.rs` |
//! | topics, UUIDs, offsets, log ends | [`Lookups`] |
//! | librdkafka's configuration and events | `client.rs` |
//! | the cluster of the demo | [`mock`] |
//! | unsafe calls | `ffi.rs` |

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::status::{LostRange, Reason};
use crate::topic::TopicPartition;

pub mod chunk;
mod client;
mod consumer;
mod ends;
mod ffi;
mod handle;
mod lookups;
pub mod mock;
mod start;

pub use consumer::{Consumer, ConsumerError, ConsumerSettings};
pub use ends::{EndsView, LogEnds};
pub use handle::{ConsumerHandle, Intake, OpenError, RewindError};
pub use lookups::{Ahead, LookupError, Lookups, TopicIds, TopicLook};

/// What the consumer needs to know of one subscribed topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// The topic's UUID; commits that were made under another one are not used.
    pub topic_id: Option<String>,
    /// The start offset of each partition that was there at first sight; later ones start at their beginning.
    pub start_offsets: BTreeMap<i32, i64>,
    /// Whether headers are copied.
    pub headers: bool,
}

/// What the consumer has, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConsumerView {
    /// The assigned partitions.
    pub partitions: BTreeMap<TopicPartition, PartitionView>,
    /// Why the consumer is not well.
    pub trouble: Option<Reason>,
    /// How often an offset or a topic was not as expected: a reason to look the topics up again, since one may have been re-created.
    pub surprises: u64,
    /// Whether the intake has ended: no task gets more than it has when this is shown.
    pub intake_over: bool,
}

/// One assigned partition.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionView {
    /// Grows with every assignment; results of an older epoch count no more.
    pub epoch: u64,
    /// The UUID of the topic that it is read as, where the subscription names one.
    pub topic_id: Option<String>,
    /// Where this assignment started.
    pub start: i64,
    /// The offset after the last record that was taken from librdkafka.
    pub position: i64,
    /// Everything below it is settled.
    pub watermark: i64,
    /// Whether everything that was taken for the task is settled, or is to be read again by the next.
    pub settled: bool,
    /// Where it waits for records, while nothing of ours holds it back: after the last record and the control records behind it. `None` while it is not being read.
    pub waits_at: Option<i64>,
    /// The committed offset.
    pub committed: Option<i64>,
    /// When it was committed by this process.
    pub committed_at: Option<Timestamp>,
    /// Why the records that come next cannot be read, while they cannot.
    pub unreadable: Option<Reason>,
    /// Offsets that Kafka removed before they were read.
    pub lost: Vec<LostRange>,
    /// Their number.
    pub lost_total: u64,
}
