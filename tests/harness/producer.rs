//! A producer that remembers what the broker acknowledged: the ledger that the checker trusts.
//!
//! Guarantees: the ledger only grows; an entry in [`Ledger::acked`] was acknowledged with `acks=all` at exactly this place; a send without an acknowledgement is in
//! [`Ledger::unknown`] and may or may not be in the topic.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use sha2::{Digest, Sha256};

use super::kafka::Kafka;
use super::wait::try_wait_until;

/// Values up to this size are kept whole, so that a difference can be shown.
const KEPT_BYTES: usize = 4096;
/// For everything that was handed over.
const FLUSH_WITHIN: Duration = Duration::from_secs(120);

/// The SHA-256 of a value.
pub type Hash = [u8; 32];

/// The SHA-256 of `bytes`.
pub fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// What was handed to the producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The topic.
    pub topic: Arc<str>,
    /// The value's hash; `None` for a tombstone.
    pub hash: Option<Hash>,
    /// The value, when it is small.
    pub value: Option<Box<[u8]>>,
}

/// What the broker acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acked {
    /// What was sent.
    pub sent: Sent,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Everything that one producer sent.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Acknowledged, in the order of the acknowledgements.
    pub acked: Vec<Acked>,
    /// Sent, and then an error: it may be in the topic.
    pub unknown: Vec<Sent>,
}

/// One record to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None` lets the partitioner choose.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970; `None` is now.
    pub timestamp_ms: Option<i64>,
    /// Headers.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> Record<'a> {
    /// A record with a value and nothing else.
    pub fn new(topic: &'a str, value: &'a [u8]) -> Self {
        Self { topic, value: Some(value), ..Self::default() }
    }

    /// The same for one partition.
    pub fn to(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

struct Recorder {
    ledger: Arc<Mutex<Ledger>>,
}

impl ClientContext for Recorder {}

impl ProducerContext for Recorder {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let mut ledger = self.ledger.lock().expect("no panic while recording");
        match result {
            Ok(message) => ledger.acked.push(Acked { sent: *sent, partition: message.partition(), offset: message.offset() }),
            Err(_) => ledger.unknown.push(*sent),
        }
    }
}

/// A producer with its ledger.
pub struct Producer {
    inner: ThreadedProducer<Recorder>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Producer {
    /// An idempotent producer with `acks=all` that gathers batches.
    pub fn new(kafka: &Kafka) -> Self {
        Self::with(kafka, &[])
    }

    /// The same with librdkafka properties of one's own.
    pub fn with(kafka: &Kafka, properties: &[(&str, &str)]) -> Self {
        let mut config = kafka.client();
        config.set("enable.idempotence", "true").set("linger.ms", "20").set("batch.num.messages", "10000").set("message.max.bytes", "16000000");
        config.set("queue.buffering.max.messages", "200000").set("queue.buffering.max.kbytes", "262144");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let inner = config.create_with_context(Recorder { ledger: Arc::clone(&ledger) }).expect("a producer");
        Self { inner, ledger }
    }

    /// Hands one record over; waits while the queue is full.
    #[track_caller]
    pub fn send(&self, record: Record<'_>) {
        let kept = record.value.filter(|value| value.len() <= KEPT_BYTES).map(Box::from);
        let mut opaque = Box::new(Sent { topic: Arc::from(record.topic), hash: record.value.map(hash), value: kept });
        let handed_over = try_wait_until(FLUSH_WITHIN, || {
            let mut message = BaseRecord::<[u8], [u8], Box<Sent>>::with_opaque_to(record.topic, opaque.clone());
            message.partition = record.partition;
            message.key = record.key;
            message.payload = record.value;
            message.timestamp = record.timestamp_ms;
            if !record.headers.is_empty() {
                message.headers = Some(headers(record.headers));
            }
            match self.inner.send(message) {
                Ok(()) => Some(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    opaque = returned.delivery_opaque;
                    None
                }
                Err((error, _)) => panic!("a record for {} is refused: {error}", record.topic),
            }
        });
        assert!(handed_over.is_some(), "the producer's queue stayed full for {FLUSH_WITHIN:?}");
    }

    /// Waits until everything that was handed over is acknowledged or has failed.
    #[track_caller]
    pub fn flush(&self) {
        self.inner.flush(FLUSH_WITHIN).unwrap_or_else(|error| panic!("records are still on their way after {FLUSH_WITHIN:?}: {error}"));
    }

    /// The ledger as it is now.
    pub fn ledger(&self) -> Ledger {
        self.ledger.lock().expect("no panic while recording").clone()
    }

    /// How many records are acknowledged now.
    pub fn acked(&self) -> usize {
        self.ledger.lock().expect("no panic while recording").acked.len()
    }
}

fn headers(pairs: &[(&str, Option<&[u8]>)]) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    for (key, value) in pairs {
        headers = headers.insert(Header { key, value: *value });
    }
    headers
}
