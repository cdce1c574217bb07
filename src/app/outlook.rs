//! What the API asks of Kafka and of the plan without changing anything.
//!
//! Guarantees that a preview is made by the rules that the change itself would follow: [`reconcile::difference`] for tasks, the consumer's own choice of start offsets for what would be
//! read. Waits for Kafka for at most [`PATIENCE`] and says what it was not told. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::api::{KafkaTopic, Outlook, Preview};
use crate::desired::store::TopicStore;
use crate::desired::{Desired, DesiredTopic};
use crate::kafka::{ConsumerHandle, LookupError, Lookups, TopicLook};
use crate::reconcile;
use crate::topic::{TopicName, TopicPartition};

/// How long a preview waits for Kafka.
const PATIENCE: Duration = Duration::from_secs(5);

/// The API's view ahead.
pub(super) struct Ahead {
    pub(super) lookups: Lookups,
    pub(super) store: Arc<dyn TopicStore>,
    pub(super) consumer: ConsumerHandle,
    pub(super) desired: watch::Receiver<Option<Arc<Desired>>>,
}

impl Ahead {
    async fn preview(&self, topic: &TopicName, after: Option<Arc<DesiredTopic>>) -> Preview {
        let desired = self.desired.borrow().clone();
        let before = desired.as_ref().and_then(|desired| desired.topics.get(topic)).cloned();
        let assigned: Vec<i32> = {
            let first = TopicPartition::new(topic.clone(), 0);
            let last = TopicPartition::new(topic.clone(), i32::MAX);
            self.consumer.view().borrow().partitions.range(first..=last).map(|(key, _)| key.partition).collect()
        };
        let mut preview = Preview::default();
        let mut partitions = assigned;
        if let Some(after) = &after {
            match tokio::time::timeout(PATIENCE, self.look(topic, after, &mut preview)).await {
                Ok(Ok(existing)) if before.is_none() => partitions = existing,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    preview.warnings.push(("kafka_unreachable", format!("Kafka was asked about the topic and did not answer: {error}")))
                }
                Err(_) => preview.warnings.push(("kafka_unreachable", "Kafka was asked about the topic and did not answer in time".to_owned())),
            }
        }
        let difference = reconcile::difference(before.as_deref(), after.as_deref());
        let keys: Vec<TopicPartition> = partitions.into_iter().map(|partition| TopicPartition::new(topic.clone(), partition)).collect();
        match difference {
            reconcile::Difference::Nothing => {}
            reconcile::Difference::Start => preview.start = keys,
            reconcile::Difference::Stop => preview.stop = keys,
            reconcile::Difference::Restart => preview.restart = keys,
        }
        preview
    }

    /// The numbers of the topic's partitions; fills in what Kafka says of them.
    async fn look(&self, topic: &TopicName, after: &DesiredTopic, preview: &mut Preview) -> Result<Vec<i32>, LookupError> {
        let looks = self.lookups.describe(vec![topic.clone()]).await?;
        let (topic_id, partitions) = match looks.get(topic) {
            Some(TopicLook::Exists { topic_id, partitions }) => (topic_id.clone(), *partitions),
            Some(TopicLook::Forbidden) => {
                preview.warnings.push(("topic_forbidden", "Kafka does not let us read this topic; it waits until that is allowed".to_owned()));
                return Ok(Vec::new());
            }
            Some(TopicLook::Unknown(error)) => {
                preview.warnings.push(("topic_unknown", format!("Kafka does not describe this topic: {error}")));
                return Ok(Vec::new());
            }
            Some(TopicLook::Missing) | None => {
                preview.warnings.push(("topic_missing", "Kafka has no topic of this name; it is picked up as soon as it exists".to_owned()));
                return Ok(Vec::new());
            }
        };
        preview.partitions = Some(partitions);
        // Facts of another incarnation of the topic, or a store that does not answer, leave the spec's own start.
        let facts = self.store.facts(topic).await.ok().flatten().filter(|facts| topic_id.is_none() || facts.topic_id == topic_id);
        let start_offsets = match facts {
            Some(facts) => facts.start_offsets,
            None => self.lookups.offsets(topic, partitions, after.spec.start).await.unwrap_or_default(),
        };
        let ahead = self.lookups.outlook(topic, topic_id, partitions, start_offsets).await?;
        let records = ahead.iter().map(|ahead| ahead.high.saturating_sub(ahead.next).max(0)).fold(0_i64, i64::saturating_add);
        preview.records_to_read = Some(records);
        Ok((0..partitions).collect())
    }
}

impl Outlook for Ahead {
    fn kafka_topics(&self) -> BoxFuture<'_, Result<Vec<KafkaTopic>, String>> {
        Box::pin(async move {
            let topics: BTreeMap<TopicName, i32> = self.lookups.topics().await.map_err(|error| error.to_string())?;
            Ok(topics.into_iter().map(|(name, partitions)| KafkaTopic { name: name.to_string(), partitions }).collect())
        })
    }

    fn preview<'a>(&'a self, topic: &'a TopicName, after: Option<Arc<DesiredTopic>>) -> BoxFuture<'a, Preview> {
        Box::pin(self.preview(topic, after))
    }
}
