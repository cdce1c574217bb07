//! Rewind: the one commit that may go backwards, because an operator asked for it, or because the log itself was cut off.
//!
//! Guarantees the order: first the commit is durable, then the partition moves, so a process that dies between the two begins at the new offset, and one that dies before it at the
//! old one. The partition gets a new epoch: its task is ended and begun again at the offset, and what the old life settles afterwards moves a watermark that nobody reads. Waits for
//! the broker inside the consumer thread, for at most [`COMMIT_TIMEOUT`]. Does not choose the offset.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{info, warn};

use super::{COMMIT_TIMEOUT, ConsumerError, Move, Session};
use crate::kafka::{RewindError, ffi};
use crate::mutants;
use crate::topic::TopicPartition;

impl Session<'_> {
    /// Commits `offset` and goes on there; answers the watermark of before.
    pub(super) fn rewind(&mut self, key: &TopicPartition, offset: i64) -> Result<Result<i64, RewindError>, ConsumerError> {
        if !self.partitions.contains_key(key) {
            return Ok(Err(RewindError::NotAssigned));
        }
        // An earlier commit that is answered later would be taken for this one's answer.
        self.await_commits();
        if let Err(error) = self.commit_target(key, offset) {
            warn!(topic = %key.topic, partition = key.partition, offset, error = %error, "a partition was not moved");
            return Ok(Err(error));
        }
        let epoch = self.inner.next_epoch();
        let Some(partition) = self.partitions.get_mut(key) else { return Ok(Err(RewindError::NotAssigned)) };
        let before = partition.watermark();
        partition.drop_held();
        partition.epoch = epoch;
        partition.start = offset;
        partition.handed = offset;
        if mutants::is_on(mutants::LATE_RESULTS_ACCEPTED) {
            partition.watermark.store(offset, Ordering::Release);
        } else {
            partition.watermark = Arc::new(AtomicI64::new(offset));
        }
        partition.seen = offset;
        partition.commit_sent = None;
        partition.committed = Some(offset);
        partition.committed_at = Some(jiff::Timestamp::now());
        partition.stand_at(offset);
        partition.unreadable = None;
        self.changed = true;
        info!(topic = %key.topic, partition = key.partition, from = before, to = offset, "partition moved, and its commits with it");
        self.reposition(key, offset, Move::Seek)?;
        Ok(Ok(before))
    }

    fn commit_target(&mut self, key: &TopicPartition, offset: i64) -> Result<(), RewindError> {
        let refused = |what: String| RewindError::Refused(what);
        let mut offsets = TopicPartitionList::with_capacity(1);
        let mut element = offsets.add_partition(key.topic.as_str(), key.partition);
        element.set_offset(Offset::Offset(offset)).map_err(|error| refused(error.to_string()))?;
        let partition = self.partitions.get_mut(key).ok_or(RewindError::NotAssigned)?;
        if let Some(topic_id) = &partition.topic_id {
            element.set_metadata(topic_id);
        }
        ffi::set_leader_epochs(&mut offsets, &[partition.leader_epochs.below(offset)]);
        self.commits.send(&offsets).map_err(|code| refused(code.to_string()))?;
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        loop {
            let Some(result) = self.commits.next(deadline.saturating_duration_since(Instant::now())) else { return Err(RewindError::Unanswered) };
            let own = result
                .offsets
                .iter()
                .find(|(topic, number, committed, _)| topic == key.topic.as_str() && *number == key.partition && *committed == offset);
            let Some((_, _, _, error)) = own else {
                self.note_commit(result);
                continue;
            };
            return match result.error.or(*error) {
                None => Ok(()),
                Some(code) => Err(refused(code.to_string())),
            };
        }
    }
}
