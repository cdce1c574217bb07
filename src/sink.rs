//! The sink: where documents go.
//!
//! Guarantees: every submitted [`Segment`] gets exactly one [`Outcome`], also when the sink is restarted ([`Outcome::Lost`]); an outcome `Settled` means that the server, or the disk, has confirmed
//! or the server finally refused every item of it. Owns the contract between pipeline and sink, and one sender ([`SinkHandle`]). Does not know Kafka, offsets or records: an item is an action line and a source line.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::status::{Reason, ReasonCode};

pub(crate) mod answer;
mod bulk;
pub(crate) mod classify;
pub mod elasticsearch;
pub mod file;
pub(crate) mod node;
mod pace;
mod segments;
mod stats;
mod trouble;

pub use stats::SinkStats;

/// Bulk lines made from one chunk, to be sent in order.
#[derive(Debug)]
pub struct Segment {
    /// Action and source lines of all items, each ending in LF.
    pub body: Bytes,
    /// The end of each item in `body`; an item is its action line and its source line.
    pub ends: Vec<u32>,
    /// Send it in a request of its own: it probes whether its index accepts documents again, or hunts a culprit.
    pub alone: bool,
    /// The submitter can do nothing more until this is settled, so lingering for more only costs time.
    pub hurry: bool,
    /// Where the outcome goes.
    pub reply: Reply,
}

/// The address of one segment's outcome. Dropped unanswered, it answers [`Outcome::Lost`].
#[derive(Debug)]
pub struct Reply {
    ticket: u64,
    to: Option<mpsc::UnboundedSender<(u64, Outcome)>>,
}

impl Reply {
    /// An address at `to`; `ticket` comes back with the outcome.
    pub fn new(ticket: u64, to: mpsc::UnboundedSender<(u64, Outcome)>) -> Self {
        Self { ticket, to: Some(to) }
    }

    /// Delivers the outcome; nobody listening any more is no error (a late result of an ended incarnation).
    pub fn send(mut self, outcome: Outcome) {
        if let Some(to) = self.to.take() {
            // The receiver is gone when the task was restarted: its successor reads the records again.
            let _ = to.send((self.ticket, outcome));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let _ = to.send((self.ticket, Outcome::Lost));
        }
    }
}

/// What became of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every item is indexed, or refused for good and listed here.
    Settled {
        /// The refused items.
        rejected: Vec<Rejection>,
        /// How many items had to be sent more than once.
        retried: u32,
    },
    /// An operator has to act before this index takes documents; nothing of the segment counts as settled.
    Parked {
        /// What is wrong.
        cause: ParkCause,
        /// The number of an item that was refused for it: a document to probe with.
        item: u32,
    },
    /// The sink was restarted and forgot the segment: submit it again.
    Lost,
}

/// An item that the server refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The item's number in its segment.
    pub item: u32,
    /// Whether the document was too large, else it was refused for what it says.
    pub too_large: bool,
    /// The server's error type.
    pub error_type: String,
    /// The server's error text.
    pub reason: String,
    /// The item's status, or the request's where the request was refused for this item.
    pub status: Option<u16>,
}

/// Why an index takes no documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkCause {
    /// A stable code, such as `index_closed`.
    pub code: ReasonCode,
    /// The server's error type and text.
    pub message: String,
    /// What helps.
    pub remedy: String,
}

/// How the sink as a whole is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SinkHealth {
    /// Why requests do not get through; `None` when they do.
    pub trouble: Option<Reason>,
}

/// A small handle to the sink. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct SinkHandle {
    segments: mpsc::Sender<Segment>,
    health: watch::Receiver<SinkHealth>,
}

impl SinkHandle {
    /// The handle of a sink that reads `segments` and publishes `health`.
    pub fn new(segments: mpsc::Sender<Segment>, health: watch::Receiver<SinkHealth>) -> Self {
        Self { segments, health }
    }

    /// Waits for room in the sink's queue.
    ///
    /// Cancel-safe: dropped while it waits, it loses nothing but its place among those who wait. This is the way for a task that has other things to do meanwhile.
    pub async fn reserve(&self) -> Permit {
        Permit { room: self.segments.clone().reserve_owned().await.ok() }
    }

    /// Hands a segment over; waits while the sink's queue is full. A sink that has ended for good answers [`Outcome::Lost`].
    ///
    /// Dropped while it waits, it drops the segment, which answers `Lost`: nothing is forgotten, but the segment has to be made again. See [`reserve`](Self::reserve).
    pub async fn submit(&self, segment: Segment) {
        // A failed send drops the segment, and its reply with it answers `Lost`.
        let _ = self.segments.send(segment).await;
    }

    /// How the sink is doing now.
    pub fn health(&self) -> SinkHealth {
        self.health.borrow().clone()
    }

    /// Whether requests get through.
    pub fn is_well(&self) -> bool {
        self.health.borrow().trouble.is_none()
    }
}

/// Room for one segment in the sink's queue; dropped, it gives the room back.
#[derive(Debug)]
pub struct Permit {
    /// `None` when the sink has ended for good.
    room: Option<mpsc::OwnedPermit<Segment>>,
}

impl Permit {
    /// Hands a segment over at once. A sink that has ended for good answers [`Outcome::Lost`].
    pub fn submit(self, segment: Segment) {
        if let Some(room) = self.room {
            room.send(segment);
        }
    }
}

#[cfg(test)]
mod corpus_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(room: usize) -> (SinkHandle, mpsc::Receiver<Segment>) {
        let (segments, queue) = mpsc::channel(room);
        let (_, health) = watch::channel(SinkHealth::default());
        (SinkHandle::new(segments, health), queue)
    }

    fn segment(ticket: u64, to: &mpsc::UnboundedSender<(u64, Outcome)>) -> Segment {
        Segment { body: b"{}\n{}\n".to_vec().into(), ends: vec![6], alone: false, hurry: false, reply: Reply::new(ticket, to.clone()) }
    }

    #[tokio::test]
    async fn a_segment_for_a_sink_that_is_gone_is_answered() {
        let (to, mut outcomes) = mpsc::unbounded_channel();
        let (handle, queue) = handle(1);
        drop(queue);
        handle.submit(segment(1, &to)).await;
        handle.reserve().await.submit(segment(2, &to));
        assert_eq!(outcomes.recv().await, Some((1, Outcome::Lost)));
        assert_eq!(outcomes.recv().await, Some((2, Outcome::Lost)));
    }

    #[tokio::test]
    async fn waiting_for_room_can_be_given_up_without_a_loss() {
        let (to, mut outcomes) = mpsc::unbounded_channel();
        let (handle, mut queue) = handle(1);
        handle.reserve().await.submit(segment(1, &to));
        assert!(futures::poll!(Box::pin(handle.reserve())).is_pending());
        let taken = queue.recv().await.expect("the first segment");
        handle.reserve().await.submit(segment(2, &to));
        drop(taken);
        assert_eq!(outcomes.recv().await, Some((1, Outcome::Lost)));
        drop(queue.recv().await.expect("the second segment"));
        assert_eq!(outcomes.recv().await, Some((2, Outcome::Lost)));
    }

    #[tokio::test]
    async fn a_submission_given_up_is_answered() {
        let (to, mut outcomes) = mpsc::unbounded_channel();
        let (handle, _queue) = handle(1);
        handle.submit(segment(1, &to)).await;
        let mut waiting = Box::pin(handle.submit(segment(2, &to)));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(waiting);
        assert_eq!(outcomes.recv().await, Some((2, Outcome::Lost)));
    }
}
