//! Offsets that are not what one expects: commits that expired, control records, transactions that hang or are aborted, compacted topics.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::harness::drover::Drover;
use crate::harness::producer::{Producer, Record};
use crate::harness::servers::{self, Servers};
use crate::harness::wait::{holds_for, try_wait_until, wait_until};

/// More than a catch-up of these amounts takes on two busy cores.
const CAUGHT_UP: Duration = Duration::from_secs(120);
/// For one call of a transactional producer.
const CALL_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(25);

/// Quick to call a silence a stall, where there must be none.
const HASTY: &str = "stall_after: 2s";
/// A broker that is busy with compaction may take seconds for an answer.
const PATIENT: &str = "stall_after: 30s";

fn config(servers: &Servers, group: &str, supervision: &str, topic: &str) -> String {
    format!(
        "kafka: {{brokers: [\"{}\"], group_id: {group}, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"{}\"]}}\n\
         supervision: {{{supervision}}}\ntopics: [{topic}]\n",
        servers.kafka.bootstrap(),
        servers.elasticsearch.url()
    )
}

fn value(number: usize) -> String {
    format!(r#"{{"number":{number}}}"#)
}

/// The `number` of each document.
fn numbers(servers: &Servers, topic: &str) -> BTreeSet<u64> {
    let documents = servers.elasticsearch.scan(topic);
    let count = documents.len();
    let number = |source: &[u8]| serde_json::from_slice::<Value>(source).expect("JSON")["number"].as_u64().expect("a number");
    let numbers: BTreeSet<u64> = documents.iter().map(|document| number(&document.source)).collect();
    assert_eq!(numbers.len(), count, "a record is there under two ids");
    numbers
}

#[test]
fn expired_commits_start_where_the_topic_was_first_seen_and_double_nothing() {
    let servers = servers::together();
    let topic = "off-expired";
    servers.kafka.create_topic(topic, 2);
    let producer = Producer::new(&servers.kafka);
    let send = |range: std::ops::Range<usize>| {
        for number in range {
            producer.send(Record::new(topic, value(number).as_bytes()).to((number % 2) as i32));
        }
        producer.flush();
    };
    send(0..1_000);
    let mut drover = Drover::start(&config(&servers, topic, PATIENT, &format!("{{topic: {topic}, format: json, start: latest}}")), &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    send(1_000..2_000);
    drover.wait_for("what came after the start is settled", CAUGHT_UP, |drover| {
        (drover.topic(topic)?["status"]["indexed_total"].as_u64()? == 1_000).then_some(())
    });
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_eq!(drover.terminate(STOP_WITHIN).code(), Some(0), "{}", drover.log());
    // Kafka does this seven days after the last member has left.
    servers.kafka.delete_group(topic);
    assert!(servers.kafka.committed(topic, topic).is_empty());
    send(2_000..2_500);
    drover.restart();
    drover.wait_for("everything after the first sight is settled again", CAUGHT_UP, |drover| {
        (drover.topic(topic)?["status"]["indexed_total"].as_u64()? == 1_500).then_some(())
    });
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_eq!(numbers(&servers, topic), (1_000..2_500).collect());
    assert_eq!(servers.kafka.committed(topic, topic), servers.kafka.end_offsets(topic));
}

/// A producer that has not begun a transaction yet.
fn transactional(servers: &Servers, id: &str) -> BaseProducer {
    let mut settings = servers.kafka.client();
    settings.set("transactional.id", id).set("transaction.timeout.ms", "120000").set("message.timeout.ms", "60000");
    let producer: BaseProducer = settings.create().expect("a producer");
    producer.init_transactions(CALL_WITHIN).expect("a transactional producer");
    producer
}

fn begin(producer: &BaseProducer, topic: &str, range: std::ops::Range<usize>) {
    producer.begin_transaction().expect("begun");
    for number in range {
        let value = value(number);
        producer.send(BaseRecord::<(), str>::to(topic).partition(0).payload(&value)).map_err(|(error, _)| error).expect("room in the queue");
    }
    producer.flush(CALL_WITHIN).expect("all are with the broker");
}

#[test]
fn aborted_records_are_never_seen_and_control_records_are_no_lag() {
    let servers = servers::together();
    let topic = "off-control";
    servers.kafka.create_topic(topic, 1);
    let mut drover = Drover::start(&config(&servers, topic, HASTY, &format!("{{topic: {topic}, format: json}}")), &[]);
    let producer = transactional(&servers, "off-control");
    begin(&producer, topic, 0..100);
    producer.commit_transaction(CALL_WITHIN).expect("committed");
    begin(&producer, topic, 100..200);
    producer.abort_transaction(CALL_WITHIN).expect("aborted");
    begin(&producer, topic, 200..300);
    producer.commit_transaction(CALL_WITHIN).expect("committed");
    drover.wait_for("the committed ones are settled", CAUGHT_UP, |drover| {
        (drover.topic(topic)?["status"]["indexed_total"].as_u64()? == 200).then_some(())
    });
    drover.wait_caught_up(topic, CAUGHT_UP);
    // The topic ends in a control record, which is committed too.
    wait_until("the very end is committed", CAUGHT_UP, || (servers.kafka.committed(topic, topic) == servers.kafka.end_offsets(topic)).then_some(()));
    drover.kill9();
    drover.restart();
    drover.wait_caught_up(topic, CAUGHT_UP);
    holds_for("a topic without anything to read stalls nothing", Duration::from_secs(6), || {
        drover.task(topic, 0).is_none_or(|task| task["state"] == "running" && task["restarts_total"] == 0)
    });
    assert_eq!(numbers(&servers, topic), (0..100).chain(200..300).collect());
}

#[test]
fn a_hanging_transaction_holds_its_partition_back_and_is_no_stall() {
    let servers = servers::together();
    let topic = "off-hanging";
    servers.kafka.create_topic(topic, 1);
    let mut drover = Drover::start(&config(&servers, topic, HASTY, &format!("{{topic: {topic}, format: json}}")), &[]);
    let hanging = transactional(&servers, "off-hanging");
    begin(&hanging, topic, 0..100);
    let behind = Producer::new(&servers.kafka);
    for number in 100..200 {
        behind.send(Record::new(topic, value(number).as_bytes()).to(0));
    }
    behind.flush();
    drover.wait_for("the task runs", CAUGHT_UP, |drover| drover.task(topic, 0).filter(|task| task["state"] == "running"));
    let mut last = Value::Null;
    let broken = try_wait_until(Duration::from_secs(8), || {
        last = drover.task(topic, 0).unwrap_or_default();
        let is_quiet = last["state"] == "running" && last["restarts_total"] == 0 && last["indexed_total"] == 0;
        (!is_quiet).then_some(())
    });
    assert!(broken.is_none(), "{last:#}");
    hanging.commit_transaction(CALL_WITHIN).expect("committed");
    drover.wait_for("both are settled", CAUGHT_UP, |drover| (drover.topic(topic)?["status"]["indexed_total"].as_u64()? == 200).then_some(()));
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_eq!(numbers(&servers, topic), (0..200).collect());
}

#[test]
fn a_compacted_topic_is_read_over_its_gaps() {
    let servers = servers::together();
    let topic = "off-compacted";
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0.001"), ("max.compaction.lag.ms", "100")];
    servers.kafka.create_topic_with(topic, 1, &settings);
    let producer = Producer::new(&servers.kafka);
    let mut sent = 0_u64;
    // Each round rolls a segment, and the cleaner comes by now and then.
    wait_until("the cleaner has made gaps", CAUGHT_UP, || {
        for key in 0..50 {
            let (key, value) = (format!("key-{key}"), value(usize::try_from(sent).expect("small")));
            producer.send(Record { topic, partition: Some(0), key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..Record::default() });
            sent += 1;
        }
        producer.flush();
        let left = servers.kafka.read_all(topic).len() as u64;
        (sent >= 500 && left < sent).then_some(())
    });
    let mut drover = Drover::start(&config(&servers, topic, PATIENT, &format!("{{topic: {topic}, format: json}}")), &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    // The cleaner may go on meanwhile: what is there now was there when drover read, and nothing was ever there that was not sent.
    let left: BTreeSet<u64> = servers
        .kafka
        .read_all(topic)
        .iter()
        .filter_map(|record| serde_json::from_slice::<Value>(record.value.as_deref()?).ok()?["number"].as_u64())
        .collect();
    let found = numbers(&servers, topic);
    assert!(found.is_superset(&left) && found.iter().all(|number| *number < sent) && (found.len() as u64) < sent, "{} of {sent}", found.len());
    assert_eq!(servers.kafka.committed(topic, topic), servers.kafka.end_offsets(topic));
    let status = drover.topic(topic).expect("the topic")["status"].clone();
    assert_eq!((&status["lost_total"], &status["restarts_total"]), (&json!(0), &json!(0)), "gaps are no loss");
}
