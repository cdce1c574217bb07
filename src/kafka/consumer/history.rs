//! What stands in the way of reading on, and whether the log is still the one that was read.
//!
//! Guarantees that a partition goes on only behind records that its log still has: everything that gives librdkafka a position is followed by a question to the broker with the leader epoch of the record before
//! it, and nothing is taken until librdkafka has that question. Where the log was cut off (an unclean election, a disk that lost its end), commits and task go back to where it differs. Records that cannot be read hold their
//! partition, and what Kafka has removed is reported. Owns the leader epochs and these decisions; moving is [`Session::move_to`], commits that go back are [`rewind`](super::rewind).
//!
//! librdkafka 2.12 compares a position with the leader's log when it seeks with a leader epoch and when the leader changes, never when it assigns (`rd_kafka_toppar_fetch_start`). So an assignment begins inside the log, and a
//! seek follows. A partition whose fetch was out of range takes no seek.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{info, warn};

use super::{ASK_TIMEOUT, ConsumerError, Move, Session, Unreadable};
use crate::kafka::client::{self, Truncation};
use crate::kafka::ffi;
use crate::kafka::start::{self, Known};
use crate::status::{Reason, ReasonCode};
use crate::topic::TopicPartition;

/// A leader epoch that is not known.
pub(super) const NO_LEADER_EPOCH: i32 = -1;
/// How often records that could not be read are asked for again: another replica may lead the partition by then.
const UNREADABLE_RETRY: Duration = Duration::from_secs(5);
/// How often a partition that takes no seek yet is tried again: until then librdkafka carries out its assignment.
const VERIFY_RETRY: Duration = Duration::from_millis(100);
/// Partitions of one seek: librdkafka looks through all of them for each answer.
const VERIFIED_AT_ONCE: usize = 500;
/// How often a broker is asked where a log differs that ends before the position. One that never says counts as having none of the epochs.
const VERIFICATIONS: u32 = 3;

/// The leader epochs of the records below a position, each with the first offset under it, in rising order. A commit carries the epoch of its last record, and so does each move: by it a broker knows which history is meant.
#[derive(Debug, Default)]
pub(super) struct LeaderEpochs(VecDeque<(i64, i32)>);

impl LeaderEpochs {
    /// The record at `offset` was written under `leader_epoch`. Offsets come in rising order.
    pub(super) fn note(&mut self, offset: i64, leader_epoch: i32) {
        if self.0.back().is_none_or(|(_, known)| *known != leader_epoch) {
            self.0.push_back((offset, leader_epoch));
        }
    }

    /// The leader epoch of the last record below `offset`; negative where it is not known.
    pub(super) fn below(&self, offset: i64) -> i32 {
        self.0.iter().rev().find(|(first, _)| *first < offset).map_or(NO_LEADER_EPOCH, |(_, epoch)| *epoch)
    }

    /// Forgets what no move or commit at or above `offset` needs.
    pub(super) fn forget_below(&mut self, offset: i64) {
        while self.0.get(1).is_some_and(|(first, _)| *first < offset) {
            self.0.pop_front();
        }
    }

    /// Forgets the records from `offset` on.
    pub(super) fn cut(&mut self, offset: i64) {
        self.0.retain(|(first, _)| *first < offset);
    }

    /// Forgets everything: what was read belongs to no log that there is.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Session<'_> {
    /// Has the broker compare its log with what is behind the position, for each of these partitions.
    pub(super) fn verify(&mut self, keys: &[TopicPartition]) -> Result<(), ConsumerError> {
        for keys in keys.chunks(VERIFIED_AT_ONCE) {
            let positions: Vec<(&TopicPartition, i64)> = keys.iter().filter_map(|key| Some((key, self.partitions.get(key)?.position))).collect();
            let is_sought = self.seek(&positions)?;
            for ((key, _), is_sought) in positions.iter().zip(is_sought) {
                let Some(partition) = self.partitions.get_mut(*key) else { continue };
                partition.verify_at = (!is_sought).then(|| Instant::now() + VERIFY_RETRY);
                partition.is_broken &= !is_sought;
            }
        }
        Ok(())
    }

    /// Seeks, with the leader epoch of the record before each offset: which of them librdkafka took, in the same order. It takes those that are being fetched.
    pub(super) fn seek(&self, targets: &[(&TopicPartition, i64)]) -> Result<Vec<bool>, ConsumerError> {
        let mut list = TopicPartitionList::with_capacity(targets.len());
        let mut leader_epochs = Vec::with_capacity(targets.len());
        for (key, offset) in targets {
            let added = list.add_partition(key.topic.as_str(), key.partition).set_offset(Offset::Offset(*offset));
            added.map_err(|source| ConsumerError::Call { what: "name an offset", source })?;
            leader_epochs.push(self.partitions.get(*key).map_or(NO_LEADER_EPOCH, |partition| partition.leader_epochs.below(*offset)));
        }
        ffi::set_leader_epochs(&mut list, &leader_epochs);
        Ok(match self.consumer.seek_partitions(list, ASK_TIMEOUT) {
            Ok(answer) => answer.elements().iter().map(|element| element.error().is_ok()).collect(),
            Err(_) => vec![false; targets.len()],
        })
    }

    /// An error came in the place of records.
    pub(super) fn partition_error(&mut self, key: &TopicPartition, code: RDKafkaErrorCode, text: &str) -> Result<(), ConsumerError> {
        self.surprises += 1;
        self.changed = true;
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => match client::truncation(text) {
                Some(Truncation::At(end)) => self.follow_truncation(key, end),
                Some(Truncation::UnknownEpoch) => {
                    if let Some(partition) = self.partitions.get_mut(key) {
                        partition.leader_epochs.clear();
                    }
                    self.move_into_range(key)
                }
                None => self.move_into_range(key),
            },
            _ => {
                if let Some((reason, remedy)) = client::obstacle(code) {
                    return self.hold_unreadable(key, reason, format!("{text} ({code})"), remedy);
                }
                warn!(topic = %key.topic, partition = key.partition, code = %code, "kafka cannot serve a partition: {text}");
                // The error has moved librdkafka's own position, which its next pause would go on from.
                match self.partitions.get(key).map(|partition| partition.position) {
                    Some(position) => self.reposition(key, position, Move::Seek),
                    None => Ok(()),
                }
            }
        }
    }

    /// What comes next cannot be read: the partition stays where it is, and asks again every now and then. Passing over it is an operator's decision.
    fn hold_unreadable(&mut self, key: &TopicPartition, code: ReasonCode, text: String, remedy: &str) -> Result<(), ConsumerError> {
        let Some(partition) = self.partitions.get_mut(key) else { return Ok(()) };
        let offset = partition.position;
        let since_at = match &partition.unreadable {
            Some(known) if known.offset == offset && known.reason.code == code => known.reason.since_at,
            _ => {
                warn!(topic = %key.topic, partition = key.partition, offset, code = code.as_str(), "records cannot be read, they are asked for again from time to time: {text}");
                Timestamp::now()
            }
        };
        let message = format!("the records from offset {offset} on cannot be read from Kafka: {text}");
        let reason = Reason { code, message, remedy: remedy.to_owned(), since_at };
        partition.unreadable = Some(Unreadable { offset, reason, retry_at: Instant::now() + UNREADABLE_RETRY });
        self.pause(key)
    }

    /// The log was cut off below the position, as after an unclean election: what is there from `end` on is another history, whose records are read from its first. An earlier history's documents with the same
    /// ids are overwritten by it.
    pub(super) fn follow_truncation(&mut self, key: &TopicPartition, end: i64) -> Result<(), ConsumerError> {
        let Some(partition) = self.partitions.get(key) else { return Ok(()) };
        // What is below the end and not settled yet is read again with it: its task is begun anew.
        let (position, target) = (partition.position, end.min(partition.watermark()));
        warn!(topic = %key.topic, partition = key.partition, position, end, from = target, "kafka's log was cut off, the records from its former end on are read anew");
        // Commits may have to go back, and the task with them: as by a rewind.
        if self.rewind(key, target)?.is_err() {
            self.truncated.insert(key.clone(), target);
        }
        Ok(())
    }

    /// The position is not in the log any more: goes on where the log begins, reports what is lost, and tells the task by passing the gap.
    pub(super) fn move_into_range(&mut self, key: &TopicPartition) -> Result<(), ConsumerError> {
        let Some(partition) = self.partitions.get(key) else { return Ok(()) };
        let position = partition.position;
        let watermarks = self.consumer.fetch_watermarks(key.topic.as_str(), key.partition, ASK_TIMEOUT);
        let (low, high) = match watermarks {
            Ok(watermarks) => watermarks,
            Err(error) => {
                warn!(topic = %key.topic, partition = key.partition, error = %error, "the range of a partition cannot be asked for, it is asked again");
                self.out_of_range.push(key.clone());
                return Ok(());
            }
        };
        if position > high && partition.leader_epochs.below(position) != NO_LEADER_EPOCH && partition.verified_past_end < VERIFICATIONS {
            // The log was cut off and may have grown since: asked with the leader epoch, the broker says from where on it is another one.
            if let Some(partition) = self.partitions.get_mut(key) {
                partition.verified_past_end += 1;
            }
            return self.reposition(key, position, Move::Assign { from: high });
        }
        let start = start::choose(Known { committed: Some((position, "")), is_verified: false, topic_id: None, fact: None, low, high });
        if let Some((from, to)) = start.lost {
            self.inner.note_lost(key, from, to);
        }
        if start.offset < position {
            return self.follow_truncation(key, start.offset);
        }
        if start.offset > position {
            info!(topic = %key.topic, partition = key.partition, from = position, to = start.offset, "partition was out of range and goes on elsewhere");
        }
        self.reposition(key, start.offset, Move::Seek)?;
        let budget = self.inner.settings.budget.clone();
        if let Some(partition) = self.partitions.get_mut(key)
            && start.offset > position
        {
            partition.builder.pass(start.offset);
            partition.finish_chunk(&budget);
            partition.deliver();
        }
        self.changed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_between_two_leaders_belongs_to_the_one_that_wrote_the_record_before_it() {
        let mut epochs = LeaderEpochs::default();
        assert_eq!(epochs.below(10), NO_LEADER_EPOCH);
        for (offset, epoch) in [(5, 1), (6, 1), (10, 1), (11, 4), (20, 4)] {
            epochs.note(offset, epoch);
        }
        assert_eq!([5, 6, 11, 12, 99].map(|offset| epochs.below(offset)), [NO_LEADER_EPOCH, 1, 1, 4, 4]);
    }

    #[test]
    fn what_is_cut_or_passed_is_forgotten_and_what_a_commit_needs_is_kept() {
        let mut epochs = LeaderEpochs::default();
        for (offset, epoch) in [(5, 1), (10, 2), (20, 3)] {
            epochs.note(offset, epoch);
        }
        epochs.forget_below(11);
        assert_eq!([10, 11, 21].map(|offset| epochs.below(offset)), [NO_LEADER_EPOCH, 2, 3], "records below 10 were of leader 1");
        epochs.cut(20);
        assert_eq!(epochs.below(99), 2);
        epochs.clear();
        assert_eq!(epochs.below(99), NO_LEADER_EPOCH);
    }
}
