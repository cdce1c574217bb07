//! The data: what the topics hold. A record is a function of its number, so two runs read the same.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::checksum;
use crate::harness::kafka::Kafka;

/// Partitions of every topic but those of the tables of memory and of many tasks.
pub const PARTITIONS: i32 = 12;

/// What a record looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A JSON object on one line.
    Json,
    /// A log line of words, without a character that JSON would escape.
    Text,
}

/// One topic's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSet {
    /// The topic.
    pub topic: &'static str,
    /// Its name in a table.
    pub name: &'static str,
    /// Of each record.
    pub shape: Shape,
    /// Bytes of each record.
    pub bytes: usize,
    /// The producer's `compression.type`.
    pub codec: &'static str,
    /// Records of a whole run.
    pub records: u64,
    /// Its partitions.
    pub partitions: i32,
}

/// The main table's.
pub const JSON_300: DataSet = DataSet {
    topic: "json-300-lz4",
    name: "300 B JSON, lz4",
    shape: Shape::Json,
    bytes: 300,
    codec: "lz4",
    records: 6_000_000,
    partitions: PARTITIONS,
};
/// As the main table's, but larger records.
pub const JSON_1024: DataSet = DataSet { topic: "json-1024-lz4", name: "1 KiB JSON, lz4", bytes: 1024, records: 2_000_000, ..JSON_300 };
/// As the main table's, but not compressed.
pub const JSON_300_NONE: DataSet = DataSet { topic: "json-300-none", name: "300 B JSON, uncompressed", codec: "none", ..JSON_300 };
/// As the main table's, but compressed by zstd.
pub const JSON_300_ZSTD: DataSet = DataSet { topic: "json-300-zstd", name: "300 B JSON, zstd", codec: "zstd", ..JSON_300 };
/// Text, which drover wraps into an object.
pub const TEXT_200: DataSet = DataSet { topic: "text-200-lz4", name: "200 B text, lz4", shape: Shape::Text, bytes: 200, ..JSON_300 };

/// For memory: a lag of five million records.
pub const LAG_OF_1: DataSet = DataSet { topic: "lag-1", name: "5 million in 1 partition", records: 5_000_000, partitions: 1, ..JSON_300 };
/// The same in more partitions.
pub const LAG_OF_12: DataSet = DataSet { topic: "lag-12", name: "5 million in 12 partitions", partitions: 12, ..LAG_OF_1 };
/// The same in many.
pub const LAG_OF_1000: DataSet = DataSet { topic: "lag-1000", name: "5 million in 1,000 partitions", partitions: 1_000, ..LAG_OF_1 };

/// A filled topic.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    /// What it holds.
    pub set: DataSet,
    /// How many records.
    pub records: u64,
    /// The sum of their hashes, [`checksum::of`].
    pub checksum: u64,
}

/// Creates the topic and produces `records` records evenly over its partitions, in batches of up to 1 MB, as a well-behaved producer does.
pub fn fill(kafka: &Kafka, set: DataSet, records: u64) -> Filled {
    kafka.create_topic(set.topic, set.partitions);
    let mut config = kafka.client();
    config.set("compression.type", set.codec).set("linger.ms", "100").set("batch.size", "1000000").set("batch.num.messages", "100000");
    config.set("queue.buffering.max.messages", "1000000").set("queue.buffering.max.kbytes", "524288");
    let producer: BaseProducer = config.create().expect("a producer");
    let started = Instant::now();
    let mut record = Vec::with_capacity(set.bytes);
    let mut sum = 0_u64;
    for number in 0..records {
        write_record(&mut record, number, set);
        sum = sum.wrapping_add(checksum::of(&record));
        send(&producer, set.topic, partition_among(set.partitions, number), &record);
        if number % 10_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).expect("all records are acknowledged");
    let stored: i64 = kafka.end_offsets(set.topic).values().sum();
    assert_eq!(u64::try_from(stored).ok(), Some(records), "the topic holds every record");
    println!("{}: {records} records produced in {:.1} s", set.name, started.elapsed().as_secs_f64());
    Filled { set, records, checksum: sum }
}

/// The partition of a record of a topic with [`PARTITIONS`].
pub fn partition_of(number: u64) -> i32 {
    partition_among(PARTITIONS, number)
}

fn partition_among(partitions: i32, number: u64) -> i32 {
    i32::try_from(number % u64::from(partitions.unsigned_abs())).expect("a partition")
}

/// Hands one record over, and waits while the producer's queue is full.
pub fn send(producer: &BaseProducer, topic: &str, partition: i32, record: &[u8]) {
    loop {
        let message = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(record);
        match producer.send(message) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => producer.poll(Duration::from_millis(50)),
            Err((error, _)) => panic!("a record is refused: {error}"),
        };
    }
}

/// A log-like record of exactly `set.bytes` bytes (at least 120) that differs from record to record.
fn write_record(record: &mut Vec<u8>, number: u64, set: DataSet) {
    const WORDS: [&str; 16] = [
        "accepted", "request", "from", "client", "session", "expired", "while", "reading", "upstream", "timeout", "retry", "queue", "worker",
        "finished", "order", "payment",
    ];
    record.clear();
    let level = ["INFO", "WARN", "DEBUG", "ERROR"][(number % 4) as usize];
    let host = number % 97;
    let (written, end) = match set.shape {
        Shape::Json => (write!(record, r#"{{"seq":{number},"level":"{level}","host":"host-{host}","message":""#), r#""}"#),
        Shape::Text => (write!(record, "{level} host-{host} seq={number} "), ""),
    };
    written.expect("writing into memory");
    let words_end = set.bytes.saturating_sub(end.len());
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while record.len() < words_end {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        record.extend_from_slice(WORDS[(state % 16) as usize].as_bytes());
        record.push(b' ');
    }
    record.truncate(words_end);
    record.extend_from_slice(end.as_bytes());
}
