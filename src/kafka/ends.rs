//! The ends of the assigned partitions, asked for in one question every few seconds: what lag is measured against, and whether Kafka answers at all.

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
    /// The partitions that have records behind the place where they wait for some, and nothing of ours holds them back. Ordinary for a moment; what it means over time is the watchdog's affair.
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
                    let silent = silent(&self.consumer.view().borrow(), &ends);
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

/// The partitions that wait before their end. The view is newer than the ends, so that what came in between is no silence.
fn silent(view: &ConsumerView, ends: &BTreeMap<TopicPartition, i64>) -> BTreeSet<TopicPartition> {
    if view.trouble.is_some() {
        return BTreeSet::new();
    }
    let is_silent = |key: &TopicPartition, waits_at: Option<i64>| waits_at.is_some_and(|at| ends.get(key).is_some_and(|end| at < *end));
    view.partitions.iter().filter(|(key, partition)| is_silent(key, partition.waits_at)).map(|(key, _)| key.clone()).collect()
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

    fn waiting(waits_at: Option<i64>) -> PartitionView {
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
            lost: Vec::new(),
            lost_total: 0,
        }
    }

    #[test]
    fn only_a_partition_that_is_read_and_lies_behind_its_end_is_silent() {
        let partitions = BTreeMap::from([
            (key(0), waiting(Some(10))),
            // Control records end it.
            (key(1), waiting(Some(12))),
            // Blocked, paused, parked or without a task.
            (key(2), waiting(None)),
            // The brokers did not answer for it.
            (key(3), waiting(Some(10))),
        ]);
        let ends = BTreeMap::from([(key(0), 12), (key(1), 12), (key(2), 12)]);
        let view = ConsumerView { partitions, ..ConsumerView::default() };
        assert_eq!(silent(&view, &ends), BTreeSet::from([key(0)]));
        let away = ConsumerView { trouble: Some(unreachable("gone", Timestamp::now())), ..view };
        assert_eq!(silent(&away, &ends), BTreeSet::new());
    }
}
