//! What the API may ask for, put to the supervisor and the consumer.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::api::{ActionError, Actions, RestartedPartition, RewindTo, RewoundPartition};
use crate::kafka::{Ahead, ConsumerHandle, Lookups};
use crate::pipeline::PartitionWork;
use crate::status::{Snapshot, Task, TaskState};
use crate::supervisor::{RestartError, SupervisorHandle, Work as _};
use crate::topic::{Start, TopicName, TopicPartition};

/// The API's port to the partition tasks.
pub(super) struct TaskActions {
    pub(super) tasks: SupervisorHandle<PartitionWork>,
    pub(super) work: Arc<PartitionWork>,
    pub(super) consumer: ConsumerHandle,
    pub(super) lookups: Lookups,
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl TaskActions {
    fn find(&self, topic: &TopicName, partition: i32) -> Result<Task, ActionError> {
        let snapshot = self.snapshot.borrow().clone();
        let task = snapshot.tasks.iter().find(|task| task.topic == *topic && task.partition == partition);
        task.cloned().ok_or(ActionError::NotFound)
    }

    async fn restart(&self, topic: &TopicName, partition: i32) -> Result<Task, ActionError> {
        let mut task = self.find(topic, partition)?;
        let incarnation = self.tasks.restart(&TopicPartition::new(topic.clone(), partition)).await.map_err(|error| match error {
            RestartError::Unknown => ActionError::NotRestartable(task.state),
            RestartError::Stopped => ActionError::ShuttingDown,
        })?;
        // The snapshot follows within its interval; the answer already says what was done.
        task.incarnation = incarnation;
        task.restarts_total += 1;
        task.state = TaskState::Starting;
        Ok(task)
    }
}

impl TaskActions {
    async fn rewind(
        &self,
        topic: &TopicName,
        partitions: Option<Vec<i32>>,
        to: RewindTo,
        dry_run: bool,
    ) -> Result<Vec<RewoundPartition>, ActionError> {
        let snapshot = self.snapshot.borrow().clone();
        if !snapshot.topics.iter().any(|known| known.name == *topic) {
            return Err(ActionError::NotFound);
        }
        let existing: Vec<i32> = snapshot.tasks.iter().filter(|task| task.topic == *topic).map(|task| task.partition).collect();
        let mut wanted = partitions.unwrap_or_else(|| existing.clone());
        wanted.sort_unstable();
        wanted.dedup();
        let count = existing.iter().max().map_or(0, |last| last + 1);
        let targets = self.targets(topic, count, to).await?;
        let view = self.consumer.view().borrow().clone();
        let mut rows = Vec::with_capacity(wanted.len());
        for partition in wanted {
            let key = TopicPartition::new(topic.clone(), partition);
            let from = view.partitions.get(&key).map(|state| state.watermark);
            let target = targets.get(&partition).map_or_else(|| Err("the topic has no such partition".to_owned()), Clone::clone);
            rows.push(match (from, target) {
                (None, Ok(_)) => failed(partition, None, "the partition is not assigned to this instance".to_owned()),
                (from, Err(error)) => failed(partition, from, error),
                (Some(from), Ok(to)) if dry_run => moved(partition, from, to),
                (Some(from), Ok(to)) => self.rewind_one(&key, from, to).await,
            });
        }
        Ok(rows)
    }

    async fn rewind_one(&self, key: &TopicPartition, from: i64, to: i64) -> RewoundPartition {
        match self.consumer.rewind(key, to).await {
            Ok(before) => {
                let skipped = u64::try_from(to.saturating_sub(before)).unwrap_or(0);
                if skipped > 0 {
                    self.work.progress(key).count_skipped(skipped);
                }
                moved(key.partition, before, to)
            }
            Err(error) => failed(key.partition, Some(from), error.to_string()),
        }
    }

    /// The offset of each partition that `to` means, or why it cannot be.
    async fn targets(&self, topic: &TopicName, partitions: i32, to: RewindTo) -> Result<BTreeMap<i32, Result<i64, String>>, ActionError> {
        let unavailable = |error: crate::kafka::LookupError| ActionError::KafkaUnavailable(error.to_string());
        let ahead = self.lookups.outlook(topic, None, partitions, BTreeMap::new()).await.map_err(unavailable)?;
        let start = match to {
            RewindTo::Offset(offset) => return Ok(ahead.iter().map(|ahead| (ahead.partition, in_range(offset, ahead))).collect()),
            RewindTo::Earliest => return Ok(ahead.iter().map(|ahead| (ahead.partition, Ok(ahead.low))).collect()),
            RewindTo::Latest => return Ok(ahead.iter().map(|ahead| (ahead.partition, Ok(ahead.high))).collect()),
            RewindTo::Timestamp(time) => Start::At(time),
        };
        let offsets = self.lookups.offsets(topic, partitions, start).await.map_err(unavailable)?;
        Ok(offsets.into_iter().map(|(partition, offset)| (partition, Ok(offset))).collect())
    }
}

fn in_range(offset: i64, ahead: &Ahead) -> Result<i64, String> {
    if (ahead.low..=ahead.high).contains(&offset) {
        return Ok(offset);
    }
    Err(format!("the partition has the offsets {} to {}", ahead.low, ahead.high))
}

fn moved(partition: i32, from: i64, to: i64) -> RewoundPartition {
    RewoundPartition { partition, from: Some(from), to: Some(to), records: Some(from.saturating_sub(to)), error: None }
}

fn failed(partition: i32, from: Option<i64>, error: String) -> RewoundPartition {
    RewoundPartition { partition, from, to: None, records: None, error: Some(error) }
}

impl Actions for TaskActions {
    fn rewind<'a>(
        &'a self,
        topic: &'a TopicName,
        partitions: Option<Vec<i32>>,
        to: RewindTo,
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Vec<RewoundPartition>, ActionError>> {
        Box::pin(self.rewind(topic, partitions, to, dry_run))
    }

    fn restart_task<'a>(&'a self, topic: &'a TopicName, partition: i32) -> BoxFuture<'a, Result<Task, ActionError>> {
        Box::pin(self.restart(topic, partition))
    }

    fn restart_topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Vec<RestartedPartition>, ActionError>> {
        Box::pin(async move {
            let snapshot = self.snapshot.borrow().clone();
            if !snapshot.topics.iter().any(|known| known.name == *topic) {
                return Err(ActionError::NotFound);
            }
            let mut rows = Vec::new();
            for task in snapshot.tasks.iter().filter(|task| task.topic == *topic) {
                let result = self.restart(topic, task.partition).await;
                rows.push(RestartedPartition {
                    partition: task.partition,
                    incarnation: result.as_ref().ok().map(|task| task.incarnation),
                    error: result.err().map(|error| error.to_string()),
                });
            }
            Ok(rows)
        })
    }
}
