//! librdkafka's mock cluster as a broker inside this process: what `drover demo` reads from.
//!
//! Guarantees: needs no server and no file; what is produced never waits (a record for which there is no room is refused and counted); memory is bounded, since the cluster keeps 5 MiB or 100 000
//! batches of each partition and drops the oldest. Owns the cluster and the only producer. Keeps nothing when it is dropped: the next one is another cluster, whose topics are other topics under
//! the same names, and [`MockBroker::topic_ids`] says so.
//!
//! The cluster binds loopback ports of its own choice, which other programs may use. It does not answer `DescribeTopics`, `ListGroups` and the creation of topics by clients, and answers questions about
//! times with the end of the partition. Librdkafka calls the interface experimental.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tracing::debug;

use super::{TopicIds, ffi};
use crate::topic::TopicName;

/// How long records of one partition are gathered. The cluster searches its batches from the oldest on for each partition of each fetch (`rd_kafka_mock_msgset_find`) and drops the oldest when a
/// partition has 5 MiB, so that few and large ones cost less: with 100 ms and compression the search took 7 % of a core after 25 minutes, and was still growing.
const LINGER_MS: &str = "1000";
/// What may wait for the cluster, which is in this process: a few seconds of any demo.
const QUEUE_KIB: &str = "4096";
/// Reports that are taken at once.
const MOST_REPORTS: usize = 10_000;
/// What is in the producer's queue gets this long at the end.
const LAST_FLUSH: Duration = Duration::from_millis(500);

/// What cannot be done with the mock cluster.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// It does not start.
    #[error("the mock cluster cannot be started")]
    Start(#[source] KafkaError),
    /// A topic is refused.
    #[error("the mock cluster does not create topic {topic}")]
    Topic {
        /// The topic.
        topic: TopicName,
        /// Why not.
        #[source]
        source: KafkaError,
    },
}

/// A record to be produced.
#[derive(Debug, Clone, Copy)]
pub struct Produced<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key, which also decides the partition; without one any partition gets it.
    pub key: Option<&'a str>,
    /// The value.
    pub payload: &'a [u8],
    /// The record's time in milliseconds since 1970.
    pub timestamp_ms: i64,
}

#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, "librdkafka (mock cluster): {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(error = %error, reason, "librdkafka (mock cluster) reports an error");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A Kafka cluster of one broker, and a producer to it.
pub struct MockBroker {
    producer: BaseProducer<Deliveries>,
    life: [u8; 16],
}

impl MockBroker {
    /// Starts a new, empty cluster.
    pub fn start() -> Result<Self, MockError> {
        let mut settings = ClientConfig::new();
        settings
            .set("test.mock.num.brokers", "1")
            .set("client.id", "drover-demo")
            .set("linger.ms", LINGER_MS)
            // What Java producers do; the default of librdkafka sends similar keys to few partitions.
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            // A report that nobody has taken keeps its records in the queue.
            .set("delivery.report.only.error", "true")
            .set("log.connection.close", "false");
        let producer = settings.create_with_context(Deliveries::default()).map_err(MockError::Start)?;
        let broker = Self { producer, life: rand::random() };
        // There is one member; waiting three seconds for others only delays the first documents.
        ffi::delay_the_first_join(broker.producer.client(), 0);
        Ok(broker)
    }

    /// Where clients connect: `host:port`, comma-separated.
    pub fn addresses(&self) -> String {
        self.producer.client().mock_cluster().map_or_else(String::new, |cluster| cluster.bootstrap_servers())
    }

    /// The identity of this cluster's topics: another one in each life.
    pub fn topic_ids(&self) -> TopicIds {
        TopicIds::OfLife(self.life)
    }

    /// What a group member needs beside its configuration. A member that joins again, as it does when its topics change, waits for the session timeout less a second in this cluster; with librdkafka's
    /// default of 45 s a topic that somebody adds would show nothing for a minute.
    pub fn member_settings(&self) -> BTreeMap<String, String> {
        [("session.timeout.ms", "3000"), ("heartbeat.interval.ms", "500")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Creates a topic.
    pub fn create_topic(&self, topic: &TopicName, partitions: i32) -> Result<(), MockError> {
        let Some(cluster) = self.producer.client().mock_cluster() else { return Ok(()) };
        cluster.create_topic(topic.as_str(), partitions, 1).map_err(|source| MockError::Topic { topic: topic.clone(), source })
    }

    /// Hands a record to the producer; false when there is no room for it.
    pub fn produce(&self, record: &Produced<'_>) -> bool {
        let mut message: BaseRecord<'_, str, [u8]> = BaseRecord::to(record.topic).payload(record.payload).timestamp(record.timestamp_ms);
        if let Some(key) = record.key {
            message = message.key(key);
        }
        match self.producer.send(message) {
            Ok(()) => true,
            Err((error, _)) => {
                let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                debug!(topic = record.topic, is_full, error = %error, "a record was not produced");
                false
            }
        }
    }

    /// Takes the producer's reports; to be called every now and then.
    pub fn serve(&self) {
        // One call takes one report, of one batch.
        for _ in 0..MOST_REPORTS {
            let waiting = self.producer.in_flight_count();
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() >= waiting {
                return;
            }
        }
    }

    /// Records that were handed over and did not reach the cluster.
    pub fn failed(&self) -> u64 {
        self.producer.context().failed.load(Ordering::Relaxed)
    }
}

impl Drop for MockBroker {
    fn drop(&mut self) {
        // Without it the client says in its log that messages were lost.
        if let Err(error) = self.producer.flush(LAST_FLUSH) {
            debug!(error = %error, "the last records did not reach the mock cluster");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::KafkaConfig;
    use crate::kafka::{Lookups, TopicLook};
    use crate::topic::Start;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).expect("a name")
    }

    fn lookups(broker: &MockBroker) -> Lookups {
        let config = KafkaConfig { brokers: vec![broker.addresses()], group_id: "group".to_owned(), properties: BTreeMap::new() };
        Lookups::new(&config, broker.topic_ids()).expect("a client")
    }

    async fn look(broker: &MockBroker, topic: &str) -> TopicLook {
        let looks = lookups(broker).describe(vec![name(topic)]).await.expect("an answer");
        looks[&name(topic)].clone()
    }

    #[tokio::test]
    async fn the_topics_of_another_life_are_other_topics() {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let broker = MockBroker::start().expect("a cluster");
            broker.create_topic(&name("a"), 4).expect("a topic");
            broker.create_topic(&name("b"), 1).expect("a topic");
            for (topic, count) in [("a", 4), ("b", 1)] {
                let TopicLook::Exists { topic_id, partitions } = look(&broker, topic).await else { panic!("{topic} is not there") };
                assert_eq!(partitions, count);
                let again = look(&broker, topic).await;
                assert_eq!(again, TopicLook::Exists { topic_id: topic_id.clone(), partitions: count }, "the id of a topic changed within a life");
                ids.push(topic_id.expect("an id"));
            }
            assert_eq!(look(&broker, "c").await, TopicLook::Missing);
        }
        assert!(ids.iter().all(|id| id.len() == 22 && !id.contains([':', '/', '+', '='])), "{ids:?}");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 4, "{ids:?}");
    }

    #[tokio::test]
    async fn reports_of_delivered_records_do_not_fill_the_queue() {
        let broker = MockBroker::start().expect("a cluster");
        let topic = name("a");
        broker.create_topic(&topic, 40).expect("a topic");
        let lookups = lookups(&broker);
        // Twice what the queue holds, in parts that it holds, and each part is delivered in at least forty batches.
        for round in 1..=8 {
            for _ in 0..1_000 {
                assert!(broker.produce(&Produced { topic: "a", key: None, payload: &[b'x'; 1_000], timestamp_ms: 0 }), "no room in round {round}");
            }
            let deadline = Instant::now() + Duration::from_secs(20);
            while lookups.offsets(&topic, 40, Start::Latest).await.expect("offsets").values().sum::<i64>() < round * 1_000 {
                assert!(Instant::now() < deadline, "the records do not arrive");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            broker.serve();
        }
        // The cluster has a batch a moment before the producer knows.
        let deadline = Instant::now() + Duration::from_secs(20);
        while broker.producer.in_flight_count() > 0 {
            assert!(Instant::now() < deadline, "{} reports are left", broker.producer.in_flight_count());
            tokio::time::sleep(Duration::from_millis(20)).await;
            broker.serve();
        }
        assert_eq!(broker.failed(), 0);
    }

    #[tokio::test]
    async fn a_produced_record_is_in_the_partition_of_its_key() {
        let broker = MockBroker::start().expect("a cluster");
        broker.create_topic(&name("a"), 4).expect("a topic");
        for _ in 0..20 {
            assert!(broker.produce(&Produced { topic: "a", key: Some("one key"), payload: b"value", timestamp_ms: 1_000 }));
        }
        let lookups = lookups(&broker);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            broker.serve();
            let ends = lookups.offsets(&name("a"), 4, Start::Latest).await.expect("offsets");
            if ends.values().sum::<i64>() == 20 {
                assert!(ends.values().any(|end| *end == 20), "records of one key are in several partitions: {ends:?}");
                break;
            }
            assert!(Instant::now() < deadline, "the records do not arrive: {ends:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(broker.failed(), 0);
    }
}
