//! The ends of the assigned partitions, asked for every few seconds: what lag is measured against, and whether Kafka answers at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ConsumerHandle, ConsumerView, Lookups};
use crate::status::{Reason, ReasonCode};
use crate::topic::TopicPartition;

/// How often the ends are asked for.
const INTERVAL: Duration = Duration::from_secs(2);
/// The group's members are asked for once in so many times.
const GROUP_EVERY: u32 = 5;

/// The ends of the partitions at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndsView {
    /// The offset after the last record of each partition that the brokers answered for; kept while they do not answer.
    pub ends: BTreeMap<TopicPartition, i64>,
    /// Why they do not answer.
    pub trouble: Option<Reason>,
    /// The partitions that wait, with nothing of ours to hold them back, at the place where they waited at the look before, although there are records behind it that no open transaction hides.
    /// How long that may last is the watchdog's affair.
    pub silent: BTreeSet<TopicPartition>,
    /// Members of the consumer group, this one among them, as far as brokers tell.
    pub members: usize,
}

/// Asks for the ends of what the consumer has.
pub struct LogEnds {
    lookups: Lookups,
    consumer: ConsumerHandle,
    group: String,
    out: watch::Sender<Arc<EndsView>>,
}

impl LogEnds {
    /// Ends of the partitions that `consumer`, a member of `group`, has. It is told when the brokers answer.
    pub fn new(lookups: Lookups, consumer: ConsumerHandle, group: String) -> (Self, watch::Receiver<Arc<EndsView>>) {
        let (out, view) = watch::channel(Arc::new(EndsView::default()));
        (Self { lookups, consumer, group, out }, view)
    }

    /// Asks again and again until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut waited = BTreeMap::new();
        for turn in (0..GROUP_EVERY).cycle() {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let keys: Vec<TopicPartition> = self.consumer.view().borrow().partitions.keys().cloned().collect();
            let is_question = !keys.is_empty();
            let known = EndsView::clone(&self.out.borrow());
            let answer = tokio::select! {
                () = cancel.cancelled() => return,
                answer = self.lookups.ends(keys) => answer,
            };
            let next = match answer {
                Ok(ends) => {
                    if is_question {
                        self.consumer.note_answer();
                    }
                    if known.trouble.is_some() {
                        info!("kafka answers again");
                    }
                    let now_waiting = waiting(&self.consumer.view().borrow(), &ends);
                    let suspects = still_waiting(&waited, &now_waiting);
                    waited = now_waiting;
                    let silent = tokio::select! {
                        () = cancel.cancelled() => return,
                        silent = self.silent(suspects) => silent,
                    };
                    EndsView { ends, trouble: None, silent, ..known }
                }
                Err(error) => {
                    let since_at = known.trouble.as_ref().map_or_else(Timestamp::now, |reason| reason.since_at);
                    if known.trouble.is_none() {
                        warn!(error = %error, "kafka does not answer");
                    }
                    EndsView { trouble: Some(unreachable(&error.to_string(), since_at)), silent: BTreeSet::new(), ..known }
                }
            };
            self.out.send_replace(Arc::new(next));
            if turn == 0 {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = self.count_members() => {}
                }
            }
        }
    }
}

impl LogEnds {
    /// Those of the suspects whose records an open transaction does not explain. Without an answer nobody is blamed.
    async fn silent(&self, suspects: BTreeMap<TopicPartition, i64>) -> BTreeSet<TopicPartition> {
        if suspects.is_empty() {
            return BTreeSet::new();
        }
        let Ok(stable) = self.lookups.stable_ends(suspects.keys().cloned().collect()).await else { return BTreeSet::new() };
        suspects.into_iter().filter(|(key, at)| stable.get(key).is_some_and(|end| at < end)).map(|(key, _)| key).collect()
    }

    async fn count_members(&self) {
        // Silence says nothing about the group; the question about the ends tells of an outage.
        let Ok(members) = self.lookups.group_members(self.group.clone()).await else { return };
        self.out.send_if_modified(|view| {
            let is_new = view.members != members;
            if is_new {
                *view = Arc::new(EndsView { members, ..EndsView::clone(view) });
            }
            is_new
        });
    }
}

/// Where partitions wait before their end. The view is newer than the ends, so that what came in between is no silence.
fn waiting(view: &ConsumerView, ends: &BTreeMap<TopicPartition, i64>) -> BTreeMap<TopicPartition, i64> {
    if view.trouble.is_some() {
        return BTreeMap::new();
    }
    let waits = view.partitions.iter().filter_map(|(key, partition)| Some((key, partition.waits_at?)));
    waits.filter(|(key, at)| ends.get(key).is_some_and(|end| at < end)).map(|(key, at)| (key.clone(), at)).collect()
}

/// What waits now where it waited before.
fn still_waiting(before: &BTreeMap<TopicPartition, i64>, now: &BTreeMap<TopicPartition, i64>) -> BTreeMap<TopicPartition, i64> {
    now.iter().filter(|(key, at)| before.get(key) == Some(at)).map(|(key, at)| (key.clone(), *at)).collect()
}

fn unreachable(error: &str, since_at: Timestamp) -> Reason {
    Reason {
        code: ReasonCode::KafkaUnreachable,
        message: format!("Kafka does not answer: {error}"),
        remedy: "check that the brokers run and that kafka.brokers names them".to_owned(),
        since_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::PartitionView;
    use crate::topic::TopicName;

    fn key(partition: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new("orders").expect("a name"), partition)
    }

    fn waiting_at(waits_at: Option<i64>) -> PartitionView {
        PartitionView {
            epoch: 1,
            topic_id: None,
            start: 0,
            position: 10,
            watermark: 10,
            settled: true,
            waits_at,
            committed: None,
            committed_at: None,
            unreadable: None,
            lost: Vec::new(),
            lost_total: 0,
        }
    }

    #[test]
    fn only_a_partition_that_is_read_and_stays_behind_its_end_is_a_suspect() {
        let partitions = BTreeMap::from([
            (key(0), waiting_at(Some(10))),
            // Control records end it.
            (key(1), waiting_at(Some(12))),
            // Blocked, paused, parked or without a task.
            (key(2), waiting_at(None)),
            // The brokers did not answer for it.
            (key(3), waiting_at(Some(10))),
            (key(4), waiting_at(Some(11))),
        ]);
        let ends = BTreeMap::from([(key(0), 12), (key(1), 12), (key(2), 12), (key(4), 12)]);
        let view = ConsumerView { partitions, ..ConsumerView::default() };
        let now = waiting(&view, &ends);
        assert_eq!(now, BTreeMap::from([(key(0), 10), (key(4), 11)]));
        // The other one has moved since.
        assert_eq!(still_waiting(&BTreeMap::from([(key(0), 10), (key(4), 10)]), &now), BTreeMap::from([(key(0), 10)]));
        assert_eq!(still_waiting(&BTreeMap::new(), &now), BTreeMap::new());
        let away = ConsumerView { trouble: Some(unreachable("gone", Timestamp::now())), ..view };
        assert_eq!(waiting(&away, &ends), BTreeMap::new());
    }
}
