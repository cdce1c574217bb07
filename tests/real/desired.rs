//! The desired state changes while everything runs: in the file, in the collector's etcd keys, in the store by `etcdctl` and by the API. A real etcd for each test.
//!
//! | to find | look in |
//! |---|---|
//! | the file and the collector's keys | [`sources`] |
//! | the store, and what goes wrong with etcd | [`store`] |
//! | pauses, rewinds, start offsets | [`flow`] |

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::checker::{Content, Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::etcd::Etcd;
use crate::harness::http::Answer;
use crate::harness::producer::{Ledger, Producer, Record};
use crate::harness::servers::Servers;

mod flow;
mod sources;
mod store;

/// More than a catch-up of these amounts takes on two busy cores.
const CAUGHT_UP: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
/// How soon the wanted topics follow a change of any source.
const FOLLOWS: Duration = Duration::from_secs(5);
/// A clean stop.
const STOPPED: Duration = Duration::from_secs(25);

/// A configuration with this etcd; `more` are lines before the topics, `topics` lines of the native list.
fn config(servers: &Servers, etcd: &Etcd, group: &str, more: &str, topics: &[&str]) -> String {
    let list: String = topics.iter().map(|topic| format!("  - {{topic: {topic}, format: json}}\n")).collect();
    let topics = if list.is_empty() { "topics: []\n".to_owned() } else { format!("topics:\n{list}") };
    format!(
        "kafka: {{brokers: [\"{}\"], group_id: {group}, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"{}\"]}}\netcd: {{endpoints: [\"{}\"]}}\ndead_letters: {{index: {group}-letters}}\n{more}\n{topics}",
        servers.kafka.bootstrap(),
        servers.elasticsearch.url(),
        etcd.url()
    )
}

/// The value of one of the collector's keys.
fn key_value(topics: &[&str]) -> String {
    let entries: Vec<Value> = topics.iter().map(|topic| json!({"path": "./logs", "topic": topic})).collect();
    Value::Array(entries).to_string()
}

fn send(producer: &Producer, topic: &str, partitions: i32, range: std::ops::Range<i32>) {
    for number in range {
        let value = format!(r#"{{"number":{number},"text":"{}"}}"#, "z".repeat(100));
        producer.send(Record::new(topic, value.as_bytes()).to(number % partitions));
    }
}

/// Compares everything that was produced for one topic with what is in its index, in the dead letters and committed.
#[track_caller]
fn assert_topic_kept(servers: &Servers, group: &str, topic: &str, content: Content, ledger: &Ledger, drover: &Drover) {
    let id = servers.kafka.topic_id(topic);
    let committed = servers.kafka.committed(group, topic);
    let generation = Generation { index: Some(topic), content, committed, ..Generation::new(topic, &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan(topic);
    let letters: Vec<_> = drover.letters().into_iter().filter(|letter| letter.id.starts_with(&id)).collect();
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &letters });
}

/// The topics that the API lists, in the order of their names.
fn listed(drover: &Drover) -> Option<Vec<String>> {
    let answer = drover.try_request("GET", "/api/v1/topics?limit=1000&sort=name", None).ok()?;
    let page = (answer.status == 200).then(|| answer.json())?;
    page["items"].as_array()?.iter().map(|topic| topic["name"].as_str().map(str::to_owned)).collect()
}

/// Waits until exactly these topics are wanted.
#[track_caller]
fn wait_listed(drover: &mut Drover, topics: &[&str]) {
    let mut expected: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
    expected.sort();
    drover.wait_for(&format!("the topics are {expected:?}"), FOLLOWS, |drover| (listed(drover)? == expected).then_some(()));
}

/// Waits until every partition of the topic has a running task.
#[track_caller]
fn wait_running(drover: &mut Drover, topic: &str) {
    drover.wait_for(&format!("{topic} runs"), SOON, |drover| {
        let status = drover.topic(topic)?["status"].take();
        let partitions = status["partitions"].as_u64().filter(|count| *count > 0)?;
        (status["tasks"]["running"].as_u64()? == partitions).then_some(())
    });
}

#[track_caller]
fn wait_indexed(drover: &mut Drover, topic: &str, count: u64) {
    drover.wait_for(&format!("{count} records of {topic} are settled"), CAUGHT_UP, |drover| {
        (drover.topic(topic)?["status"]["indexed_total"].as_u64()? >= count).then_some(())
    });
}

/// Sends records and waits until this process has indexed so many more: the topic flows.
#[track_caller]
fn assert_flows(drover: &mut Drover, producer: &Producer, topic: &str, numbers: std::ops::Range<i32>) {
    let indexed = |drover: &Drover| drover.topic(topic).and_then(|topic| topic["status"]["indexed_total"].as_u64());
    let before = drover.wait_for("the topic is there", SOON, indexed);
    let count = numbers.len() as u64;
    send(producer, topic, 1, numbers);
    producer.flush();
    wait_indexed(drover, topic, before + count);
}

/// Incarnation and restarts of each task of a topic: what must not change when other topics do.
fn lives(drover: &Drover, topic: &str) -> BTreeMap<u64, (Value, Value)> {
    let page = drover.get(&format!("/api/v1/tasks?topic={topic}&limit=1000"));
    let rows = page["items"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| (row["partition"].as_u64().expect("a partition"), (row["incarnation"].clone(), row["restarts_total"].clone()))).collect()
}

/// One row of `/sources`, by its kind and, for a key, its name.
fn source(drover: &Drover, kind: &str, key: Option<&str>) -> Option<Value> {
    let answer = drover.try_request("GET", "/api/v1/sources", None).ok()?;
    let page = (answer.status == 200).then(|| answer.json())?;
    let is_it = |row: &&Value| row["kind"] == kind && key.is_none_or(|key| row["detail"] == key);
    page["items"].as_array()?.iter().find(is_it).cloned()
}

/// Waits until a source has this status, and returns its row.
#[track_caller]
fn wait_source(drover: &mut Drover, kind: &str, key: Option<&str>, status: &str, deadline: Duration) -> Value {
    drover.wait_for(&format!("source {kind} {} is {status}", key.unwrap_or_default()), deadline, |drover| {
        source(drover, kind, key).filter(|row| row["status"] == status)
    })
}

/// A request with a JSON body and one more header.
#[track_caller]
fn send_with(drover: &Drover, method: &str, path: &str, header: (&str, &str), body: &Value) -> Answer {
    drover.request(method, path, &[("content-type", "application/json"), header], Some(body.to_string().into_bytes()))
}

/// The problem code of an answer.
fn code(answer: &Answer) -> String {
    answer.json()["code"].as_str().unwrap_or_default().to_owned()
}
