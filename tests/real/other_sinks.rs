//! The main job and the sink's own faults on the other servers that speak the bulk API, one after the other: two Java servers with their heaps are enough.
//!
//! What differs between them is what drover classifies: error types, how a closed index and a data stream answer.

use std::time::Duration;

use serde_json::json;

use crate::harness::checker::{Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::elasticsearch::{Elasticsearch, Product};
use crate::harness::kafka::Kafka;
use crate::harness::producer::{Producer, Record};
use crate::harness::servers;
use crate::main_job::{collectors_configuration, config, refused_for_good};

/// More than each of these takes on two busy cores.
const WITHIN: Duration = Duration::from_secs(120);

#[test]
fn elasticsearch_9_gets_every_record_once_and_its_refusals_are_understood() {
    on(Product::Elasticsearch9, "es9");
}

#[test]
fn opensearch_3_gets_every_record_once_and_its_refusals_are_understood() {
    on(Product::OpenSearch3, "os3");
}

fn on(product: Product, prefix: &str) {
    if !product.is_there() {
        return;
    }
    let servers = servers::alone();
    servers.elasticsearch.stop();
    let sink = Elasticsearch::start(product).unwrap_or_else(|reason| panic!("{reason}"));
    let name = |end: &str| format!("{prefix}-{end}");
    collectors_configuration(&servers.kafka, &sink, [&name("golang_log"), &name("logdir2")]);
    refused_for_good(&servers.kafka, &sink, &name("refused"));
    a_closed_index_parks(&servers.kafka, &sink, &name("closed"));
    a_data_stream_takes_each_record_once(&servers.kafka, &sink, &name("stream"));
    letters_in_the_sink(&servers.kafka, &sink, &name("letters"));
}

fn send(producer: &Producer, topic: &str, numbers: std::ops::Range<i32>) {
    for number in numbers {
        producer.send(Record::new(topic, format!(r#"{{"@timestamp":"2026-01-31T12:00:00Z","number":{number}}}"#).as_bytes()).to(number % 2));
    }
    producer.flush();
}

fn a_closed_index_parks(kafka: &Kafka, sink: &Elasticsearch, topic: &str) {
    kafka.create_topic(topic, 2);
    let producer = Producer::new(kafka);
    send(&producer, topic, 0..1_000);
    let mut drover = Drover::start(&config(kafka, sink, topic, &format!("  - {{topic: {topic}, format: json}}")), &[]);
    drover.wait_caught_up(topic, WITHIN);
    sink.close_index(topic);
    send(&producer, topic, 1_000..2_000);
    drover.wait_for("the topic waits for its index", WITHIN, |drover| {
        let status = drover.topic(topic)?["status"].clone();
        (status["state"] == "waiting" && status["reason"]["code"] == "index_closed").then_some(())
    });
    sink.open_index(topic);
    drover.wait_caught_up(topic, WITHIN);
    assert_everything(kafka, sink, topic, topic, &producer, &drover);
    assert_eq!(drover.topic(topic).expect("the topic")["status"]["restarts_total"], 0);
}

fn a_data_stream_takes_each_record_once(kafka: &Kafka, sink: &Elasticsearch, topic: &str) {
    sink.put_template(
        topic,
        &json!({"index_patterns": [format!("{topic}*")], "data_stream": {}, "template": {"settings": {"number_of_replicas": 0}}}),
    );
    kafka.create_topic(topic, 2);
    let producer = Producer::new(kafka);
    send(&producer, topic, 0..1_000);
    let mut drover = Drover::start(&config(kafka, sink, topic, &format!("  - {{topic: {topic}, format: json, operation: create}}")), &[]);
    drover.wait_caught_up(topic, WITHIN);
    // From the beginning again: each record meets its own document.
    let rewound = drover.post(&format!("/api/v1/topics/{topic}/rewind"), Some(&json!({"to": "earliest"})));
    assert_eq!(rewound.status, 202, "{}", rewound.text());
    drover.wait_for("every record is settled a second time", WITHIN, |drover| {
        (drover.topic(topic)?["status"]["indexed_total"].as_u64()? >= 2_000).then_some(())
    });
    drover.wait_caught_up(topic, WITHIN);
    assert_everything(kafka, sink, topic, topic, &producer, &drover);
}

fn letters_in_the_sink(kafka: &Kafka, sink: &Elasticsearch, topic: &str) {
    let letters = format!("{topic}-dead");
    kafka.create_topic(topic, 2);
    sink.create_strict_index(topic, &json!({"number": {"type": "long"}}));
    let producer = Producer::new(kafka);
    for number in 0..100 {
        let value = if number % 10 == 7 { b"\xff\x00 no JSON".to_vec() } else { format!(r#"{{"number":{number}}}"#).into_bytes() };
        producer.send(Record::new(topic, &value).to(number % 2));
    }
    producer.flush();
    let topics = format!("  - {{topic: {topic}, format: json}}\ndead_letters: {{store: elasticsearch, index: {letters}}}");
    let mut drover = Drover::start(&config(kafka, sink, topic, &topics), &[]);
    drover.wait_caught_up(topic, WITHIN);
    assert_eq!(sink.count(&letters), 10);
    assert_everything(kafka, sink, topic, topic, &producer, &drover);
}

fn assert_everything(kafka: &Kafka, sink: &Elasticsearch, topic: &str, group: &str, producer: &Producer, drover: &Drover) {
    let ledger = producer.ledger();
    let id = kafka.topic_id(topic);
    let generation = Generation { committed: kafka.committed(group, topic), ..Generation::new(topic, &id, &ledger.acked) };
    let documents = sink.scan(topic);
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });
}
