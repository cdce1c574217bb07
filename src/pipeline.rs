//! From a record to a document, and when a record counts as settled.
//!
//! Guarantees: the watermark that a task publishes never passes a record that is not indexed, dead-lettered or skipped by a policy; dead letters are durable before it does; a task that ends in
//! whatever way has lost nothing, since the next life begins at the watermark. Owns the partition task (`task.rs`), the formats ([`mod@format`]) and the lines of a chunk ([`lines`]) and the offset ledger ([`ledger`]). Knows neither
//! rdkafka nor HTTP: chunks come from the consumer's [`Intake`](crate::kafka::Intake), documents go to the [sink](crate::sink).
//!
//! Nothing per record crosses a channel, allocates or wakes a task: chunks come in, segments go out, and one outcome comes back for each segment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::dead_letters::DeadLetters;
use crate::invariants::SelfChecks;
use crate::kafka::{ConsumerHandle, EndsView};
use crate::memory::Buffers;
use crate::sink::SinkHandle;
use crate::supervisor::{TaskContext, TaskError, Work};
use crate::topic::{Facts, TopicPartition, TopicSpec};

mod failpoints;
pub mod format;
pub mod ledger;
mod letters;
pub mod lines;
pub mod mishaps;
mod probes;
pub mod progress;
pub mod redrive;
mod task;

pub use mishaps::Mishaps;
pub use progress::PartitionProgress;
use progress::Silence;

/// What one task needs to know. Another value is another life.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionSpec {
    /// The assignment that the task belongs to.
    pub epoch: u64,
    /// How records become documents.
    pub topic: Arc<TopicSpec>,
    /// The base of the document ids.
    pub facts: Arc<Facts>,
}

/// The work of all partition tasks, for a supervisor.
pub struct PartitionWork {
    consumer: ConsumerHandle,
    sink: SinkHandle,
    dead_letters: Arc<dyn DeadLetters>,
    buffers: Buffers,
    checks: SelfChecks,
    mishaps: Option<Mishaps>,
    probes: probes::Probes,
    /// Where it is seen that records of a partition do not come.
    ends: Option<watch::Receiver<Arc<EndsView>>>,
    /// Counts go on when a partition leaves and comes back.
    progress: Mutex<BTreeMap<TopicPartition, Arc<PartitionProgress>>>,
}

impl PartitionWork {
    /// Tasks between this consumer and this sink; their segments get their buffers from `buffers`, and what must never happen in them is counted in `checks`.
    pub fn new(consumer: ConsumerHandle, sink: SinkHandle, dead_letters: Arc<dyn DeadLetters>, buffers: Buffers, checks: SelfChecks) -> Self {
        Self {
            consumer,
            sink,
            dead_letters,
            buffers,
            checks,
            mishaps: None,
            probes: probes::Probes::default(),
            ends: None,
            progress: Mutex::new(BTreeMap::new()),
        }
    }

    /// The same, with silence noticed where `ends` shows it.
    pub fn with_ends(self, ends: watch::Receiver<Arc<EndsView>>) -> Self {
        Self { ends: Some(ends), ..self }
    }
}

impl PartitionWork {
    /// The same with crashes on purpose, for the demo.
    pub fn with_mishaps(self, mishaps: Option<Mishaps>) -> Self {
        Self { mishaps, ..self }
    }

    /// The counts of a partition that had a task in this process, whether or not it has one now.
    pub fn known_progress(&self, key: &TopicPartition) -> Option<Arc<PartitionProgress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

impl Work for PartitionWork {
    type Key = TopicPartition;
    type Spec = PartitionSpec;
    type Progress = PartitionProgress;

    fn progress(&self, key: &TopicPartition) -> Arc<PartitionProgress> {
        let mut known = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let silence = || self.ends.clone().map(|ends| Silence { key: key.clone(), ends });
        known.entry(key.clone()).or_insert_with(|| Arc::new(PartitionProgress::new(self.sink.clone(), silence()))).clone()
    }

    fn run(&self, key: TopicPartition, spec: PartitionSpec, context: TaskContext<PartitionProgress>) -> BoxFuture<'static, Result<(), TaskError>> {
        let parts = task::Parts {
            consumer: self.consumer.clone(),
            sink: self.sink.clone(),
            dead_letters: self.dead_letters.clone(),
            buffers: self.buffers.clone(),
            checks: self.checks.clone(),
            mishaps: self.mishaps.clone(),
            probes: self.probes.clone(),
        };
        Box::pin(task::run(parts, key, spec, context))
    }
}
