//! The harness itself, without drover: what is produced can be read back, what is indexed can be found, and faults are real ones.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::harness::etcd::{Etcd, Version};
use crate::harness::producer::{Producer, Record, hash};
use crate::harness::servers;
use crate::harness::wait::wait_until;

#[test]
fn a_ledger_that_differs_from_the_topic_is_noticed() {
    let servers = servers::together();
    servers.kafka.create_topic("smoke-ledger", 3);
    let producer = Producer::new(&servers.kafka);
    let count = 120_000;
    for number in 0..count {
        let value = format!(r#"{{"number":{number},"padding":"{}"}}"#, "x".repeat(200));
        producer.send(Record::new("smoke-ledger", value.as_bytes()).to(number % 3));
    }
    producer.flush();
    let ledger = producer.ledger();
    assert_eq!(ledger.acked.len(), count as usize);
    assert_eq!(ledger.unknown.len(), 0);

    let sent: BTreeMap<_, _> = ledger.acked.iter().map(|acked| ((acked.partition, acked.offset), acked.sent.hash)).collect();
    let read = servers.kafka.read_all("smoke-ledger");
    let found: BTreeMap<_, _> = read.iter().map(|record| ((record.partition, record.offset), record.value.as_deref().map(hash))).collect();
    assert_eq!(sent.len(), count as usize);
    assert!(sent == found, "{} sent, {} read", sent.len(), found.len());
    assert_eq!(servers.kafka.end_offsets("smoke-ledger"), BTreeMap::from([(0, 40_000), (1, 40_000), (2, 40_000)]));
}

#[test]
fn topics_can_be_grown_trimmed_deleted_and_created_again_with_another_id() {
    let servers = servers::together();
    let kafka = &servers.kafka;
    kafka.create_topic("smoke-topic", 1);
    let first_id = kafka.topic_id("smoke-topic");
    assert_eq!(first_id.len(), 22, "{first_id}");
    kafka.add_partitions("smoke-topic", 2);
    let producer = Producer::new(kafka);
    for number in 0..10u8 {
        producer.send(Record::new("smoke-topic", &[number]).to(0));
    }
    producer.send(Record { topic: "smoke-topic", partition: Some(1), key: Some(b"key"), headers: &[("name", Some(b"value"))], ..Record::default() });
    producer.flush();
    kafka.delete_records("smoke-topic", 0, 4);
    assert_eq!(kafka.watermarks("smoke-topic"), BTreeMap::from([(0, (4, 10)), (1, (0, 1))]));
    assert_eq!(kafka.read_all("smoke-topic").len(), 7);
    assert_eq!(kafka.committed("smoke-group", "smoke-topic"), BTreeMap::new());
    kafka.delete_topic("smoke-topic");
    kafka.create_topic("smoke-topic", 1);
    assert_ne!(kafka.topic_id("smoke-topic"), first_id);
}

#[test]
fn documents_come_back_byte_for_byte() {
    let servers = servers::together();
    let elasticsearch = &servers.elasticsearch;
    assert_eq!(elasticsearch.count("smoke-absent"), 0);
    assert_eq!(elasticsearch.scan("smoke-absent").len(), 0);
    elasticsearch.create_strict_index("smoke-documents", &json!({"n": {"type": "long"}}));
    let mut body = String::new();
    for number in 0..25_000 {
        body.push_str(&format!("{{\"index\":{{\"_id\":\"{number}\"}}}}\n{{\"n\":  {number}}}\n"));
    }
    let url = format!("{}/smoke-documents/_bulk", elasticsearch.url());
    let answer =
        crate::harness::http::send("POST", &url, &[("content-type", "application/x-ndjson")], Some(body.into_bytes())).expect("an answer").ok();
    assert_eq!(answer.json()["errors"], false);
    let documents = elasticsearch.scan("smoke-documents");
    assert_eq!(documents.len(), 25_000);
    for document in &documents {
        assert_eq!(document.source, format!("{{\"n\":  {}}}", document.id).into_bytes());
    }
    let ids = ["7".to_owned(), "absent".to_owned(), "24999".to_owned()];
    let found: Vec<String> = elasticsearch.documents("smoke-documents", &ids).into_iter().map(|document| document.id).collect();
    assert_eq!(found, ["7", "24999"]);
    let refused = elasticsearch.request("PUT", "/smoke-documents/_doc/bad", Some(&json!({"other": 1})));
    assert_eq!(refused.status, 400);
    elasticsearch.close_index("smoke-documents");
    assert_eq!(elasticsearch.request("GET", "/smoke-documents/_count", None).status, 400);
    elasticsearch.open_index("smoke-documents");
    wait_until("the opened index counts", Duration::from_secs(20), || {
        let answer = elasticsearch.request("GET", "/smoke-documents/_count", None);
        (answer.status == 200 && answer.json()["count"] == 25_000).then_some(())
    });
    elasticsearch.delete_index("smoke-documents");
}

#[test]
fn servers_that_were_stopped_or_killed_come_back_with_what_they_had() {
    let servers = servers::alone();
    servers.kafka.create_topic("smoke-restart", 1);
    let producer = Producer::new(&servers.kafka);
    producer.send(Record::new("smoke-restart", b"before"));
    producer.flush();
    servers.elasticsearch.create_index("smoke-restart", &json!({}));
    servers.elasticsearch.request("PUT", "/smoke-restart/_doc/1", Some(&json!({"a": 1}))).ok();

    servers.kafka.kill();
    servers.elasticsearch.stop();
    producer.send(Record::new("smoke-restart", b"meanwhile"));
    servers.kafka.start_again();
    servers.elasticsearch.start_again();
    producer.flush();
    let values: Vec<_> = servers.kafka.read_all("smoke-restart").into_iter().filter_map(|record| record.value).collect();
    assert_eq!(values, [b"before".to_vec(), b"meanwhile".to_vec()]);
    wait_until("the document is there again", Duration::from_secs(20), || (servers.elasticsearch.count("smoke-restart") == 1).then_some(()));
}

/// Every fault that the tests of the desired state use, on one version of etcd.
fn etcd_faults(version: Version) {
    let etcd = Etcd::start(version, &["--quota-backend-bytes=16777216"]);
    etcd.put("smoke/a", r#"[{"path": "x"}]"#);
    etcd.put_bytes("smoke/b", &[0xff, b'\n']);
    assert_eq!(etcd.get("smoke/a").map(|entry| entry.value).as_deref(), Some(r#"[{"path": "x"}]"#));
    assert_eq!(etcd.get_prefix("smoke/").into_keys().collect::<Vec<_>>(), ["smoke/a", "smoke/b"]);
    let before = etcd.revision();
    etcd.kill();
    assert!(etcd.try_etcdctl(&["--command-timeout=1s", "put", "smoke/c", "refused"], None).is_err());
    etcd.start_again();
    assert_eq!(etcd.revision(), before);
    etcd.compact();
    assert!(etcd.try_etcdctl(&["get", "smoke/a", &format!("--rev={}", before - 1)], None).is_err_and(|reason| reason.contains("compacted")));
    etcd.fill();
    assert!(etcd.try_put("smoke/c", b"refused").is_err_and(|reason| reason.contains("database space exceeded")));
    etcd.make_room();
    etcd.put("smoke/c", "taken");
    etcd.pause();
    assert!(etcd.try_etcdctl(&["--command-timeout=1s", "put", "smoke/d", "late"], None).is_err());
    etcd.resume();
    etcd.start_empty();
    assert_eq!((etcd.get_prefix("smoke/").len(), etcd.revision()), (0, 1));
}

#[test]
fn faults_of_the_systems_etcd_are_real_ones() {
    etcd_faults(Version::System);
}

#[test]
fn faults_of_the_built_etcd_are_real_ones() {
    if Version::Built.is_there() {
        etcd_faults(Version::Built);
    }
}
