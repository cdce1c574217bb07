//! Pauses, rewinds and start offsets: what changes the flow of a topic and not the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    CAUGHT_UP, FOLLOWS, SOON, STOPPED, assert_flows, assert_topic_kept, config, key_value, lives, send, wait_indexed, wait_listed, wait_running,
};
use crate::harness::checker::{Content, Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::producer::{Producer, Record};
use crate::harness::servers;
use crate::harness::wait::{holds_for, wait_until};

/// Whether the topic is paused, and shows by whom and why.
fn is_paused(drover: &Drover, topic: &str) -> bool {
    drover.topic(topic).is_some_and(|shown| shown["status"]["state"] == "paused" && shown["paused"].is_object())
}

#[test]
fn a_paused_topic_stays_paused_over_restarts_and_changes_until_its_time_is_up() {
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let (paused, other) = ("des-paused", "des-beside-paused");
    for topic in [paused, other] {
        servers.kafka.create_topic(topic, 2);
    }
    let with = |topics: &[&str]| config(&servers, &etcd, paused, "etcdkeys: [des-key]", topics);
    let mut drover = Drover::start(&with(&[paused]), &[]);
    let producer = Producer::new(&servers.kafka);
    send(&producer, paused, 2, 0..1_000);
    producer.flush();
    drover.wait_caught_up(paused, CAUGHT_UP);

    let path = format!("/api/v1/topics/{paused}/pause");
    let answer = drover.put(&path, &json!({"reason": "index maintenance"}));
    assert_eq!((answer.status, &answer.json()["paused"]["reason"]), (200, &json!("index maintenance")), "{}", answer.text());
    let since = answer.json()["paused"]["since_at"].clone();
    assert!(etcd.get(&format!("drover/pauses/{paused}")).is_some());
    drover.wait_for("the topic is paused", SOON, |drover| is_paused(drover, paused).then_some(()));
    wait_until("what was settled is committed", SOON, || (servers.kafka.committed(paused, paused).values().sum::<i64>() == 1_000).then_some(()));
    send(&producer, paused, 2, 1_000..3_000);
    producer.flush();

    // Other sources change, also for this topic.
    drover.replace_config(&with(&[paused, other]));
    wait_listed(&mut drover, &[other, paused]);
    etcd.put("des-key", &key_value(&[paused]));
    drover.wait_for("the key names it too", FOLLOWS, |drover| (drover.topic(paused)?["sources"].as_array()?.len() == 2).then_some(()));
    let put = drover.put(&format!("/api/v1/topics/{paused}"), &json!({"labels": {"team": "a"}}));
    assert_eq!((put.status, &put.json()["paused"]["since_at"]), (201, &since), "{}", put.text());
    wait_running(&mut drover, other);
    let nothing_moves = |drover: &Drover| is_paused(drover, paused) && servers.elasticsearch.count(paused) == 1_000;
    holds_for("nothing is indexed", Duration::from_secs(3), || nothing_moves(&drover));

    // A clean restart, a kill, and one without etcd.
    assert_eq!(drover.terminate(STOPPED).code(), Some(0), "{}", drover.log());
    drover.restart();
    drover.wait_for("the topic is paused after a restart", SOON, |drover| is_paused(drover, paused).then_some(()));
    drover.kill9();
    etcd.stop();
    drover.restart();
    drover.wait_for("the topic is paused after a kill, without etcd", SOON, |drover| is_paused(drover, paused).then_some(()));
    wait_running(&mut drover, other);
    holds_for("nothing is indexed", Duration::from_secs(3), || nothing_moves(&drover));
    etcd.start_again();
    drover.wait_for("the store is written again", SOON, |drover| {
        let until = Timestamp::now() + Duration::from_secs(4);
        (drover.put(&path, &json!({"reason": "almost done", "until_at": until.to_string()})).status == 200).then_some(())
    });
    let shown = drover.topic(paused).expect("the topic");
    assert_eq!((&shown["paused"]["since_at"], &shown["paused"]["reason"]), (&since, &json!("almost done")), "{shown}");
    let until: Timestamp = shown["paused"]["until_at"].as_str().and_then(|text| text.parse().ok()).expect("a time");
    wait_until("the time is up", SOON, || {
        if servers.elasticsearch.count(paused) > 1_000 {
            assert!(Timestamp::now() >= until, "resumed before its time");
        }
        (Timestamp::now() >= until).then_some(())
    });
    drover.wait_for("it resumes by itself", SOON, |drover| drover.topic(paused)?["paused"].is_null().then_some(()));
    drover.wait_caught_up(paused, CAUGHT_UP);
    assert_eq!(servers.elasticsearch.count(paused), 3_000);
    assert_topic_kept(&servers, paused, paused, Content::Json, &producer.ledger(), &drover);

    // Paused and resumed by hand.
    assert_eq!(drover.put(&path, &json!({})).status, 200);
    drover.wait_for("the topic is paused", SOON, |drover| is_paused(drover, paused).then_some(()));
    assert_eq!(drover.delete(&path).status, 204);
    assert_flows(&mut drover, &producer, paused, 3_000..3_100);
}

/// Rows of a rewind by partition: from, to, records.
fn moves(answer: &Value) -> BTreeMap<i64, (i64, i64, i64)> {
    let rows = answer["items"].as_array().unwrap_or_else(|| panic!("no items in {answer}"));
    let number = |row: &Value, field: &str| row[field].as_i64().unwrap_or_else(|| panic!("no {field} in {row}"));
    rows.iter().map(|row| (number(row, "partition"), (number(row, "from"), number(row, "to"), number(row, "records")))).collect()
}

#[test]
fn a_rewind_to_a_time_writes_the_same_documents_again_also_when_killed_in_the_middle() {
    const PARTITIONS: i32 = 3;
    const RECORDS: i32 = 60_000;
    /// Records from this number on are at or after the time.
    const FIRST: i32 = 12_000;
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let (topic, other) = ("des-rewound", "des-beside-rewound");
    servers.kafka.create_topic(topic, PARTITIONS);
    servers.kafka.create_topic(other, 1);
    let producer = Producer::new(&servers.kafka);
    let begin = Timestamp::now().as_millisecond() - 3_600_000;
    for number in 0..RECORDS {
        let value = format!(r#"{{"number":{number},"text":"{}"}}"#, "r".repeat(100));
        let record = Record::new(topic, value.as_bytes()).to(number % PARTITIONS);
        producer.send(Record { timestamp_ms: Some(begin + i64::from(number)), ..record });
    }
    producer.flush();
    let mut drover = Drover::start(&config(&servers, &etcd, topic, "", &[topic, other]), &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    wait_running(&mut drover, other);
    let of_other = lives(&drover, other);
    assert_eq!(servers.elasticsearch.count(topic), RECORDS as u64);
    // Whatever is written from now on is written again.
    servers.elasticsearch.delete_index(topic);
    wait_until("everything is committed", SOON, || (servers.kafka.committed(topic, topic) == servers.kafka.end_offsets(topic)).then_some(()));

    let time = Timestamp::from_millisecond(begin + i64::from(FIRST)).expect("a time");
    let body = json!({"to": {"timestamp": time.to_string()}});
    let path = format!("/api/v1/topics/{topic}/rewind");
    let dry = drover.post(&format!("{path}?dry_run=true"), Some(&body));
    assert_eq!(dry.status, 200, "{}", dry.text());
    let told = moves(&dry.json());
    let (end, first) = (i64::from(RECORDS / PARTITIONS), i64::from(FIRST / PARTITIONS));
    assert_eq!(told, (0..i64::from(PARTITIONS)).map(|partition| (partition, (end, first, end - first))).collect());
    assert_eq!(servers.kafka.committed(topic, topic), servers.kafka.end_offsets(topic), "a dry run changes nothing");
    let done = drover.post(&path, Some(&body));
    assert_eq!(done.status, 202, "{}", done.text());
    assert_eq!(moves(&done.json()), told);
    // Killed as soon as a part of it is there again.
    drover.wait_for("some records came again", SOON, |_| (servers.elasticsearch.count(topic) > 0).then_some(()));
    drover.kill9();
    let written_before_the_kill = servers.elasticsearch.count(topic);
    assert!(written_before_the_kill < (RECORDS - FIRST) as u64, "the kill came too late to prove anything");
    drover.restart();
    drover.wait_caught_up(topic, CAUGHT_UP);

    let ledger = producer.ledger();
    let id = servers.kafka.topic_id(topic);
    let before_the_time: BTreeSet<_> =
        ledger.acked.iter().filter(|acked| acked.offset < first).map(|acked| (acked.partition, acked.offset)).collect();
    let committed = servers.kafka.committed(topic, topic);
    assert_eq!(before_the_time.len(), FIRST as usize);
    let generation = Generation { index: Some(topic), skipped: before_the_time, committed, ..Generation::new(topic, &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan(topic);
    assert_eq!(documents.len(), (RECORDS - FIRST) as usize);
    assert_kept(&Evidence { generations: &[generation], unknown: &[], documents: &documents, letters: &[] });
    let changes = drover.get(&format!("/api/v1/changes?topic={topic}"));
    assert_eq!((&changes["items"][0]["action"], changes["items"].as_array().map(Vec::len)), (&json!("rewind"), Some(1)), "{changes}");

    // One partition to its beginning, while the others and the other topic go on.
    let of_topic = lives(&drover, topic);
    let done = drover.post(&path, Some(&json!({"to": "earliest", "partitions": [1]})));
    assert_eq!(moves(&done.json()), BTreeMap::from([(1, (end, 0, end))]), "{}", done.text());
    drover.wait_for("its first records are there", SOON, |_| {
        (servers.elasticsearch.count(topic) == (RECORDS - FIRST) as u64 + first as u64).then_some(())
    });
    drover.wait_caught_up(topic, CAUGHT_UP);
    let after = lives(&drover, topic);
    assert_eq!((&after[&0], &after[&2]), (&of_topic[&0], &of_topic[&2]));
    assert_eq!(lives(&drover, other), of_other);
}

#[test]
fn nothing_produced_after_the_first_start_is_skipped_by_latest() {
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let topic = "des-latest";
    servers.kafka.create_topic(topic, 2);
    let old = Producer::new(&servers.kafka);
    send(&old, topic, 2, 0..1_000);
    old.flush();
    let configuration = config(&servers, &etcd, topic, "defaults: {start: latest}", &[topic]);
    let mut drover = Drover::start(&configuration, &[]);
    wait_running(&mut drover, topic);
    // Before anything was read, and so before any commit of a position that was reached.
    drover.kill9();
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 2, 1_000..2_000);
    producer.flush();
    servers.kafka.add_partitions(topic, 4);
    let grown = Producer::new(&servers.kafka);
    send(&grown, topic, 4, 2_000..4_000);
    grown.flush();
    // Another host: nothing but etcd and Kafka know of the first start.
    fs::remove_dir_all(drover.folder().join("data")).expect("the data folder");
    wait_until("the dead member has left the group", SOON, || (servers.kafka.group_members(topic) == 0).then_some(()));
    servers.kafka.delete_group(topic);
    drover.restart();
    wait_indexed(&mut drover, topic, 3_000);
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_eq!(lives(&drover, topic).len(), 4);

    let (first, second) = (producer.ledger(), grown.ledger());
    let acked = [first.acked, second.acked].concat();
    let id = servers.kafka.topic_id(topic);
    let committed = servers.kafka.committed(topic, topic);
    let generation = Generation { index: Some(topic), committed, ..Generation::new(topic, &id, &acked) };
    let documents = servers.elasticsearch.scan(topic);
    assert_eq!(documents.len(), 3_000);
    assert_kept(&Evidence { generations: &[generation], unknown: &[], documents: &documents, letters: &[] });
}
