//! Fills the topic, in batches of up to 1 MB with lz4, as a well-behaved producer does.

use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::Plan;
use crate::harness::kafka::Kafka;

/// Produces the plan's records evenly over its partitions and returns the seconds it took.
pub fn fill(kafka: &Kafka, plan: &Plan) -> f64 {
    let mut config = kafka.client();
    config.set("compression.type", "lz4").set("linger.ms", "100").set("batch.size", "1000000").set("batch.num.messages", "100000");
    config.set("queue.buffering.max.messages", "1000000").set("queue.buffering.max.kbytes", "524288");
    let producer: BaseProducer = config.create().expect("a producer");
    let started = Instant::now();
    let mut record = Vec::with_capacity(plan.bytes);
    for number in 0..plan.records {
        write_record(&mut record, number, plan.bytes);
        let partition = i32::try_from(number % plan.partitions.unsigned_abs() as u64).expect("a partition");
        loop {
            let message = BaseRecord::<(), [u8]>::to(plan.topic).partition(partition).payload(record.as_slice());
            match producer.send(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => producer.poll(Duration::from_millis(50)),
                Err((error, _)) => panic!("a record is refused: {error}"),
            }
        }
        if number % 10_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).expect("all records are acknowledged");
    let stored: i64 = kafka.end_offsets(plan.topic).values().sum();
    assert_eq!(u64::try_from(stored).ok(), Some(plan.records), "the topic holds every record");
    started.elapsed().as_secs_f64()
}

/// A log-like JSON object of exactly `bytes` bytes (at least 120) that differs from record to record.
fn write_record(record: &mut Vec<u8>, number: u64, bytes: usize) {
    use std::io::Write as _;
    const WORDS: [&str; 16] = [
        "accepted", "request", "from", "client", "session", "expired", "while", "reading", "upstream", "timeout", "retry", "queue", "worker",
        "finished", "order", "payment",
    ];
    record.clear();
    let level = ["INFO", "WARN", "DEBUG", "ERROR"][(number % 4) as usize];
    let _ = write!(record, r#"{{"seq":{number},"level":"{level}","host":"host-{}","message":""#, number % 97);
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while record.len() < bytes.saturating_sub(2) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        record.extend_from_slice(WORDS[(state % 16) as usize].as_bytes());
        record.push(b' ');
    }
    record.truncate(bytes.saturating_sub(2));
    record.extend_from_slice(b"\"}");
}
