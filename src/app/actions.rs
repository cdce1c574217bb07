//! What the API may ask for, put to the supervisor.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::api::{ActionError, Actions, RestartedPartition};
use crate::pipeline::PartitionWork;
use crate::status::{Snapshot, Task, TaskState};
use crate::supervisor::{RestartError, SupervisorHandle};
use crate::topic::{TopicName, TopicPartition};

/// The API's port to the partition tasks.
pub(super) struct TaskActions {
    pub(super) tasks: SupervisorHandle<PartitionWork>,
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

impl Actions for TaskActions {
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
