//! Questions to the brokers that need no group: what topics are, where they begin and end.
//!
//! Guarantees that each question has a deadline and never creates a topic. Uses a client of its own, so that a slow answer never holds up the consumer thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use sha2::{Digest as _, Sha256};

use super::client::{self, ASKED_AT_ONCE};
use super::ffi::{self, Description};
use super::start::{self, Known};
use crate::config::KafkaConfig;
use crate::topic::{Start, TopicName, TopicPartition};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What Kafka says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicLook {
    /// It is there.
    Exists {
        /// Its UUID as Kafka prints it; `None` where brokers have none.
        topic_id: Option<String>,
        /// Number of partitions.
        partitions: i32,
    },
    /// There is no topic of this name.
    Missing,
    /// We may not know about it.
    Forbidden,
    /// The brokers answer with another error.
    Unknown(String),
}

/// What lies ahead of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The partition's number.
    pub partition: i32,
    /// The offset that it would go on with.
    pub next: i64,
    /// The first offset that Kafka still has.
    pub low: i64,
    /// The offset after the last record.
    pub high: i64,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The client cannot be made from these settings.
    #[error("the Kafka client cannot be made")]
    Create(#[source] KafkaError),
    /// The brokers did not answer in time, or refused.
    #[error("{what} was not answered: {detail}")]
    Unanswered {
        /// The question.
        what: &'static str,
        /// What librdkafka says.
        detail: String,
    },
}

#[derive(Default)]
struct Quiet {
    failure: client::LastFailure,
}

impl ClientContext for Quiet {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.failure.hear(facility, message);
        // The consumer's client meets the same brokers and says it louder.
        tracing::debug!(facility, "librdkafka (look-ups): {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = %error, reason, "librdkafka (look-ups) reports an error");
    }
}

impl ConsumerContext for Quiet {}

/// Where the UUIDs of topics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicIds {
    /// The brokers are asked.
    Brokers,
    /// There are none. For brokers that never answer when asked, as librdkafka's mock cluster.
    Absent,
    /// Made from the number of a mock cluster's life and the topic's name: [`MockBroker::topic_ids`](super::mock::MockBroker::topic_ids). The topics of the cluster's next life are other ones.
    OfLife([u8; 16]),
}

impl TopicIds {
    /// The UUID of a topic that exists, where it is not the brokers' to tell; 22 characters, as Kafka prints one.
    fn of(self, name: &TopicName) -> Option<String> {
        let Self::OfLife(life) = self else { return None };
        let digest = Sha256::new().chain_update(life).chain_update(name.as_str()).finalize();
        let (uuid, _) = digest.split_first_chunk::<16>()?;
        Some(URL_SAFE_NO_PAD.encode(uuid))
    }
}

/// Asks the brokers. Cloning shares the client.
#[derive(Clone)]
pub struct Lookups {
    client: Arc<BaseConsumer<Quiet>>,
    topic_ids: TopicIds,
}

impl Lookups {
    /// A client for questions; connects when the first is asked.
    pub fn new(config: &KafkaConfig, topic_ids: TopicIds) -> Result<Self, LookupError> {
        let mut settings = client::base(config);
        // Committed offsets can be asked for by group without being a member: nothing subscribes here.
        // The end of a partition is its high watermark, not the last stable offset.
        settings.set("isolation.level", "read_uncommitted");
        settings.set("group.id", &config.group_id);
        for name in ["group.protocol", "group.instance.id", "session.timeout.ms", "max.poll.interval.ms"] {
            settings.remove(name);
        }
        let client = settings.create_with_context(Quiet::default()).map_err(LookupError::Create)?;
        Ok(Self { client: Arc::new(client), topic_ids })
    }

    /// What Kafka says of each of these topics.
    pub async fn describe(&self, names: Vec<TopicName>) -> Result<BTreeMap<TopicName, TopicLook>, LookupError> {
        let this = self.clone();
        blocking("the look-up of topics", move || this.describe_now(&names)).await
    }

    fn describe_now(&self, names: &[TopicName]) -> Result<BTreeMap<TopicName, TopicLook>, LookupError> {
        self.serve();
        if self.topic_ids != TopicIds::Brokers {
            return self.describe_by_metadata(names);
        }
        let mut looks = BTreeMap::new();
        if names.is_empty() {
            return Ok(looks);
        }
        let texts: Vec<&str> = names.iter().map(TopicName::as_str).collect();
        let described = ffi::describe_topics(&self.client, &texts, TIMEOUT).map_err(|(_, detail)| self.silent("the look-up of topics", detail))?;
        for description in described {
            let Ok(name) = TopicName::new(&description.name) else { continue };
            looks.insert(name, look(description));
        }
        Ok(looks)
    }

    fn describe_by_metadata(&self, names: &[TopicName]) -> Result<BTreeMap<TopicName, TopicLook>, LookupError> {
        let metadata = self.client.fetch_metadata(None, TIMEOUT).map_err(|error| unanswered("the look-up of topics", error.to_string()))?;
        let mut looks = BTreeMap::new();
        for name in names {
            let topic = metadata.topics().iter().find(|topic| topic.name() == name.as_str());
            let look = match topic {
                Some(topic) if topic.error().is_none() => {
                    TopicLook::Exists { topic_id: self.topic_ids.of(name), partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX) }
                }
                Some(topic) => unavailable(topic.error().unwrap_or(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN).into(), String::new()),
                None => TopicLook::Missing,
            };
            looks.insert(name.clone(), look);
        }
        Ok(looks)
    }

    /// Where each partition of a topic starts under `start`.
    pub async fn offsets(&self, name: &TopicName, partitions: i32, start: Start) -> Result<BTreeMap<i32, i64>, LookupError> {
        let this = self.clone();
        let keys: Vec<TopicPartition> = (0..partitions).map(|partition| TopicPartition::new(name.clone(), partition)).collect();
        blocking("the look-up of start offsets", move || {
            let found = match start {
                Start::Earliest => this.list(&keys, Offset::Beginning)?,
                Start::Latest => this.list(&keys, Offset::End)?,
                // No record is from before 1970, and Kafka takes negative times for something else.
                Start::At(time) if time.as_millisecond() < 0 => this.list(&keys, Offset::Beginning)?,
                Start::At(time) => {
                    let mut found = this.list(&keys, Offset::Offset(time.as_millisecond()))?;
                    // A partition without a record at or after the time answers no offset: it starts at its end.
                    let missing: Vec<TopicPartition> = keys.iter().filter(|key| !found.contains_key(*key)).cloned().collect();
                    found.extend(this.list(&missing, Offset::End)?);
                    found
                }
            };
            match keys.iter().find(|key| !found.contains_key(*key)) {
                Some(key) => Err(unanswered("the look-up of start offsets", format!("no offset for partition {}", key.partition))),
                None => Ok(found.into_iter().map(|(key, offset)| (key.partition, offset)).collect()),
            }
        })
        .await
    }

    /// The end of each of these partitions. Partitions without an answer are left out.
    pub async fn ends(&self, keys: Vec<TopicPartition>) -> Result<BTreeMap<TopicPartition, i64>, LookupError> {
        let this = self.clone();
        blocking("the look-up of log ends", move || this.list(&keys, Offset::End)).await
    }

    /// The last stable offset of each of these partitions, behind which no transaction is open. Partitions without an answer are left out.
    pub async fn stable_ends(&self, keys: Vec<TopicPartition>) -> Result<BTreeMap<TopicPartition, i64>, LookupError> {
        let this = self.clone();
        let what = "the look-up of last stable offsets";
        blocking(what, move || {
            this.serve();
            let mut query = TopicPartitionList::with_capacity(keys.len());
            for key in &keys {
                query.add_partition(key.topic.as_str(), key.partition);
            }
            let found = ffi::stable_ends(&this.client, &query, TIMEOUT).map_err(|(_, detail)| this.silent(what, detail))?;
            let named = found
                .into_iter()
                .filter_map(|(topic, partition, offset)| Some((TopicPartition::new(TopicName::new(&topic).ok()?, partition), offset)));
            Ok(named.collect())
        })
        .await
    }

    /// All topics that the brokers show us, with their number of partitions, without Kafka's internal ones.
    pub async fn topics(&self) -> Result<BTreeMap<TopicName, i32>, LookupError> {
        let this = self.clone();
        blocking("the look-up of topics", move || {
            this.serve();
            let metadata = this.client.fetch_metadata(None, TIMEOUT).map_err(|error| this.silent("the look-up of topics", error.to_string()))?;
            let known = metadata.topics().iter().filter(|topic| topic.error().is_none());
            let named =
                known.filter_map(|topic| Some((TopicName::new(topic.name()).ok()?, i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))));
            Ok(named.collect())
        })
        .await
    }

    /// Where each partition of a topic would go on if it were assigned now, and its end: from the group's commits, `start_offsets` of the topic's facts, and what Kafka still has.
    pub async fn outlook(
        &self,
        name: &TopicName,
        topic_id: Option<String>,
        partitions: i32,
        start_offsets: BTreeMap<i32, i64>,
    ) -> Result<Vec<Ahead>, LookupError> {
        let this = self.clone();
        let keys: Vec<TopicPartition> = (0..partitions).map(|partition| TopicPartition::new(name.clone(), partition)).collect();
        blocking("the look-up of committed offsets", move || {
            let lows = this.list(&keys, Offset::Beginning)?;
            let highs = this.list(&keys, Offset::End)?;
            let committed = this.committed(&keys)?;
            let ahead = |key: &TopicPartition| {
                let commit = committed.get(&key.partition);
                let (low, high) = (*lows.get(key)?, *highs.get(key)?);
                let known = Known {
                    committed: commit.map(|(offset, metadata)| (*offset, metadata.as_str())),
                    is_verified: false,
                    topic_id: topic_id.as_deref(),
                    fact: start_offsets.get(&key.partition).copied(),
                    low,
                    high,
                };
                Some(Ahead { partition: key.partition, next: start::choose(known).offset, low, high })
            };
            Ok(keys.iter().filter_map(ahead).collect())
        })
        .await
    }

    /// The group's commits, with their metadata, by partition.
    fn committed(&self, keys: &[TopicPartition]) -> Result<BTreeMap<i32, (i64, String)>, LookupError> {
        let what = "the look-up of committed offsets";
        let mut query = TopicPartitionList::with_capacity(keys.len());
        for key in keys {
            query.add_partition(key.topic.as_str(), key.partition);
        }
        let answer = self.client.committed_offsets(query, TIMEOUT).map_err(|error| self.silent(what, error.to_string()))?;
        let metadata = ffi::commit_metadata(&answer);
        let mut committed = BTreeMap::new();
        for (element, metadata) in answer.elements().iter().zip(metadata) {
            if let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) {
                committed.insert(element.partition(), (offset, metadata));
            }
        }
        Ok(committed)
    }

    /// How many members the consumer group has. Groups of the newer protocol (KIP-848) are not told this way and answer 0.
    pub async fn group_members(&self, group: String) -> Result<usize, LookupError> {
        let this = self.clone();
        blocking("the look-up of the group", move || {
            this.serve();
            let groups =
                this.client.fetch_group_list(Some(&group), TIMEOUT).map_err(|error| unanswered("the look-up of the group", error.to_string()))?;
            Ok(groups.groups().iter().map(|found| found.members().len()).sum())
        })
        .await
    }

    /// Nobody answered; says why the last connection broke, if one did.
    fn silent(&self, what: &'static str, detail: String) -> LookupError {
        // The reason lies among the events that came while we waited.
        self.serve();
        match self.client.client().context().failure.get() {
            Some(failure) => unanswered(what, format!("{detail}; the last connection failed with: {failure}")),
            None => unanswered(what, detail),
        }
    }

    /// Offsets of these partitions.
    fn list(&self, keys: &[TopicPartition], which: Offset) -> Result<BTreeMap<TopicPartition, i64>, LookupError> {
        self.serve();
        let mut found = BTreeMap::new();
        for some in keys.chunks(ASKED_AT_ONCE) {
            found.append(&mut self.list_some(some, which)?);
        }
        Ok(found)
    }

    /// The same in one question. One topic that is gone fails all of it, so it is then asked topic by topic.
    fn list_some(&self, keys: &[TopicPartition], which: Offset) -> Result<BTreeMap<TopicPartition, i64>, LookupError> {
        let what = "the look-up of offsets";
        match self.ask(keys, which) {
            Ok(found) => Ok(found),
            Err(error) if is_about_a_topic(&error) => {
                let mut found = BTreeMap::new();
                for topic in keys.chunk_by(|left, right| left.topic == right.topic) {
                    match self.ask(topic, which) {
                        Ok(offsets) => found.extend(offsets),
                        Err(error) if is_about_a_topic(&error) => {}
                        Err(error) => return Err(self.silent(what, error.to_string())),
                    }
                }
                Ok(found)
            }
            Err(error) => Err(self.silent(what, error.to_string())),
        }
    }

    fn ask(&self, keys: &[TopicPartition], which: Offset) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
        let mut found = BTreeMap::new();
        if keys.is_empty() {
            return Ok(found);
        }
        let mut query = TopicPartitionList::with_capacity(keys.len());
        for key in keys {
            query.add_partition(key.topic.as_str(), key.partition).set_offset(which)?;
        }
        let answer = self.client.offsets_for_times(query, TIMEOUT)?;
        for element in answer.elements() {
            if let (Ok(()), Offset::Offset(offset), Ok(name)) = (element.error(), element.offset(), TopicName::new(element.topic())) {
                found.insert(TopicPartition::new(name, element.partition()), offset);
            }
        }
        Ok(found)
    }

    /// Lets librdkafka put away its events, which nobody needs.
    fn serve(&self) {
        for _ in 0..100 {
            if self.client.poll(Duration::ZERO).is_none() {
                return;
            }
        }
    }
}

/// Whether an error says something about a topic rather than about the brokers.
pub(super) fn is_about_a_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::TopicAuthorizationFailed))
}

fn look(description: Description) -> TopicLook {
    match description.error {
        None => TopicLook::Exists { topic_id: description.topic_id, partitions: description.partitions },
        Some((code, text)) => unavailable(code, text),
    }
}

fn unavailable(code: RDKafkaErrorCode, text: String) -> TopicLook {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => TopicLook::Missing,
        RDKafkaErrorCode::TopicAuthorizationFailed => TopicLook::Forbidden,
        _ => TopicLook::Unknown(if text.is_empty() { code.to_string() } else { text }),
    }
}

fn unanswered(what: &'static str, detail: String) -> LookupError {
    LookupError::Unanswered { what, detail }
}

async fn blocking<T: Send + 'static>(what: &'static str, ask: impl FnOnce() -> Result<T, LookupError> + Send + 'static) -> Result<T, LookupError> {
    match tokio::task::spawn_blocking(ask).await {
        Ok(result) => result,
        Err(error) => Err(unanswered(what, error.to_string())),
    }
}
