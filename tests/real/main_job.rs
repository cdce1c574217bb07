//! The main job: records from a real Kafka become documents in a real Elasticsearch, each once, and an operator sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::checker::{Content, Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::elasticsearch::Elasticsearch;
use crate::harness::kafka::Kafka;
use crate::harness::producer::{Producer, Record};
use crate::harness::servers;

/// More than a catch-up of these amounts takes on two busy cores.
const CAUGHT_UP: Duration = Duration::from_secs(120);

pub(crate) fn config(kafka: &Kafka, sink: &Elasticsearch, group: &str, topics: &str) -> String {
    format!(
        "kafka: {{brokers: [\"{}\"], group_id: {group}, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"{}\"]}}\ntopics:\n{topics}\n",
        kafka.bootstrap(),
        sink.url()
    )
}

/// Values that trip up what is not careful: one of them for each record number.
fn value_of(number: i32) -> Vec<u8> {
    match number % 1000 {
        1 => br#"{"level":"info","looks":"like JSON"}"#.to_vec(),
        2 => br#"quotes " and \ backslashes \" and a tab	"#.to_vec(),
        3 => b"two\nlines\r\nand {\"index\":{}}\n".to_vec(),
        4 => format!("中文日志 第{number}行").into_bytes(),
        5 => format!("emoji 🦀 and \u{2028} and \u{7f} {number}").into_bytes(),
        6 => Vec::new(),
        7 => vec![0xff, 0xfe, b'a', 0xc3, b'"', 0x00, 0x80],
        8 if number < 10_000 => vec![b'x'; 100 * 1024],
        _ => format!("2026-01-31T12:00:00Z INFO request {number} took {} ms", number % 997).into_bytes(),
    }
}

#[test]
fn the_collectors_own_configuration_indexes_every_record_once() {
    let servers = servers::together();
    collectors_configuration(&servers.kafka, &servers.elasticsearch, ["main_golang_log", "main_logdir2"]);
}

/// The main job, into `sink`.
pub(crate) fn collectors_configuration(kafka: &Kafka, sink: &Elasticsearch, topics: [&str; 2]) {
    for topic in topics {
        kafka.create_topic(topic, 12);
    }
    let producer = Producer::new(kafka);
    let send = |range: std::ops::Range<i32>| {
        for number in range {
            let value = value_of(number);
            producer.send(Record::new(topics[(number % 2) as usize], &value).to(number / 2 % 12));
        }
    };
    send(0..70_000);
    producer.flush();

    // The collector's file as it is in its repository, but for addresses and without etcd.
    let file = format!(
        r#"catsyslog:
  logpath: ./logs/
  loglevel: debug
collectlogs:
  - logpath: D:\logs\golang
    logtopic: {}
  - logpath: D:\logs\dir2
    logtopic: {}
kafkaconfig:
  kafkaaddr: "{}"
elasticconfig:
  elasticaddr: "{}/"
  typestr: catlog
"#,
        topics[0],
        topics[1],
        kafka.bootstrap(),
        sink.url()
    );
    let mut drover = Drover::start(&file, &[]);
    send(70_000..120_000);
    producer.flush();
    for topic in topics {
        drover.wait_caught_up(topic, CAUGHT_UP);
    }

    let ledger = producer.ledger();
    assert_eq!(ledger.acked.len(), 120_000);
    let mut documents = Vec::new();
    let mut generations = Vec::new();
    let ids: Vec<String> = topics.iter().map(|topic| kafka.topic_id(topic)).collect();
    for (topic, id) in topics.iter().zip(&ids) {
        let generation = Generation {
            index: Some(topic),
            content: Content::Classic,
            committed: kafka.committed("drover", topic),
            ..Generation::new(topic, id, &ledger.acked)
        };
        assert_eq!(generation.committed, kafka.end_offsets(topic));
        generations.push(generation);
        let found = sink.scan(topic);
        assert_eq!(found.len(), 60_000, "{topic}");
        documents.extend(found);
    }
    assert_kept(&Evidence { generations: &generations, unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });

    // The collector wrote partition and offset together without a separator, and gave both of these the id 110.
    let pair = [format!("{}:1:10", ids[0]), format!("{}:11:0", ids[0])];
    let found = sink.documents(topics[0], &pair);
    assert_eq!(found.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(), pair);
    for document in found {
        let source: Value = serde_json::from_slice(&document.source).expect("a JSON document");
        assert_eq!((&source["Topic"], &source["Id"]), (&json!(topics[0]), &json!(document.id)));
    }

    let status = drover.terminate(Duration::from_secs(25));
    assert_eq!(status.code(), Some(0), "{}", drover.log());
    for topic in topics {
        assert_eq!(kafka.committed("drover", topic), kafka.end_offsets(topic));
    }
}

#[test]
fn ten_kills_at_random_moments_lose_and_double_nothing() {
    let servers = servers::together();
    servers.kafka.create_topic("main-killed", 12);
    let group = "main-killed";
    let producer = Producer::new(&servers.kafka);
    let mut drover = Drover::start(&config(&servers.kafka, &servers.elasticsearch, group, "  - {topic: main-killed, format: json}"), &[]);
    let mut number = 0;
    for round in 0..10_u64 {
        // Somewhere in the stream, by a fixed sequence: repeatable, and at another place of the pipeline each time.
        let span = 3_000 + 1_700 * ((round * 7) % 5);
        for _ in 0..span {
            let value = format!(r#"{{"number":{number},"text":"{}"}}"#, "y".repeat(120));
            producer.send(Record::new("main-killed", value.as_bytes()).to(number % 12));
            number += 1;
        }
        drover.wait_for("some of it is settled", Duration::from_secs(60), |drover| {
            let indexed = drover.topic("main-killed")?["status"]["indexed_total"].as_u64()?;
            (indexed > span / (round + 2)).then_some(())
        });
        drover.kill9();
        drover.restart();
    }
    producer.flush();
    drover.wait_caught_up("main-killed", CAUGHT_UP);
    let ledger = producer.ledger();
    let id = servers.kafka.topic_id("main-killed");
    let committed = servers.kafka.committed(group, "main-killed");
    let generation = Generation { index: Some("main-killed"), committed, ..Generation::new("main-killed", &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan("main-killed");
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });
    assert_eq!(drover.terminate(Duration::from_secs(25)).code(), Some(0), "{}", drover.log());
    assert_eq!(servers.kafka.committed(group, "main-killed"), servers.kafka.end_offsets("main-killed"));
}

#[test]
fn a_sigterm_under_load_commits_what_is_settled() {
    let servers = servers::together();
    servers.kafka.create_topic("main-stopped", 4);
    let producer = Producer::new(&servers.kafka);
    let mut drover = Drover::start(&config(&servers.kafka, &servers.elasticsearch, "main-stopped", "  - {topic: main-stopped, format: text}"), &[]);
    for number in 0..40_000 {
        producer.send(Record::new("main-stopped", format!("line {number}").as_bytes()).to(number % 4));
    }
    drover.wait_for("some of it is settled", Duration::from_secs(60), |drover| {
        (drover.topic("main-stopped")?["status"]["indexed_total"].as_u64()? > 0).then_some(())
    });
    assert_eq!(drover.terminate(Duration::from_secs(25)).code(), Some(0), "{}", drover.log());
    producer.flush();
    let committed = servers.kafka.committed("main-stopped", "main-stopped");
    let settled: i64 = committed.values().sum();
    servers.elasticsearch.refresh("main-stopped");
    // Everything that was settled is committed, and nothing else: no document is there that a restart would write again.
    assert_eq!(servers.elasticsearch.count("main-stopped"), settled as u64);
    drover.restart();
    drover.wait_caught_up("main-stopped", CAUGHT_UP);
    let ledger = producer.ledger();
    let id = servers.kafka.topic_id("main-stopped");
    let generation = Generation { content: Content::Text, ..Generation::new("main-stopped", &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan("main-stopped");
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });
}

#[test]
fn a_panic_restarts_one_task_and_disturbs_no_other() {
    let servers = servers::together();
    servers.kafka.create_topic("main-panic", 6);
    let producer = Producer::new(&servers.kafka);
    let config = config(&servers.kafka, &servers.elasticsearch, "main-panic", "  - {topic: main-panic, format: json}");
    let mut drover = Drover::start(&config, &[("FAILPOINTS", "partition_task=3*off->1*panic(boom)->off")]);
    drover.wait_for("all tasks run", Duration::from_secs(60), |drover| {
        let tasks = drover.topic("main-panic")?["status"]["tasks"].clone();
        (tasks["running"] == 6).then_some(())
    });
    for number in 0..30_000 {
        producer.send(Record::new("main-panic", format!(r#"{{"number":{number}}}"#).as_bytes()).to(number % 6));
    }
    producer.flush();
    drover.wait_caught_up("main-panic", CAUGHT_UP);
    let rows = drover.get("/api/v1/tasks?topic=main-panic");
    let rows = rows["items"].as_array().expect("items").clone();
    let (restarted, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["restarts_total"] != 0);
    assert_eq!((restarted.len(), others.len()), (1, 5), "{rows:?}");
    assert_eq!((&restarted[0]["restarts_total"], &restarted[0]["incarnation"]), (&json!(1), &json!(2)));
    assert_eq!(restarted[0]["last_exit"]["cause"], "panicked");
    assert!(restarted[0]["last_exit"]["message"].as_str().is_some_and(|message| message.contains("boom")), "{restarted:?}");
    assert!(others.iter().all(|row| row["incarnation"] == 1 && row["last_exit"].is_null()), "{others:?}");
    let ledger = producer.ledger();
    let id = servers.kafka.topic_id("main-panic");
    let committed = servers.kafka.committed("main-panic", "main-panic");
    let generation = Generation { committed, ..Generation::new("main-panic", &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan("main-panic");
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });
}

#[test]
fn a_document_refused_for_good_is_a_dead_letter_and_its_partition_goes_on() {
    let servers = servers::together();
    refused_for_good(&servers.kafka, &servers.elasticsearch, "main-refused");
}

/// Records of `topic` that `sink` refuses become dead letters with its own words.
pub(crate) fn refused_for_good(kafka: &Kafka, sink: &Elasticsearch, topic: &str) {
    kafka.create_topic(topic, 2);
    sink.create_strict_index(topic, &json!({"number": {"type": "long"}}));
    let producer = Producer::new(kafka);
    for number in 0..2_000 {
        let value = match number {
            100 => r#"{"number":"not a number"}"#.to_owned(),
            101 => r#"{"number":1,"unknown":true}"#.to_owned(),
            102 => "{\"number\": 1, broken}".to_owned(),
            103 => "no JSON at all".to_owned(),
            _ => format!(r#"{{"number":{number}}}"#),
        };
        producer.send(Record::new(topic, value.as_bytes()).to(number % 2));
    }
    producer.send(Record { topic, partition: Some(0), key: Some(b"gone"), ..Record::default() });
    producer.flush();
    let mut drover = Drover::start(&config(kafka, sink, topic, &format!("  - {{topic: {topic}, format: json}}")), &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    let page = drover.get(&format!("/api/v1/dead-letters?topic={topic}"));
    let letters = page["items"].as_array().expect("items").clone();
    let told: BTreeSet<_> = letters
        .iter()
        .map(|letter| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&letter["cause"]), text(&letter["error"]["type"]), letter["error"]["status"].as_u64())
        })
        .collect();
    let expected = [
        ("format", "format", None),
        ("rejected", sink.product().parsing_error(), Some(400)),
        ("rejected", "strict_dynamic_mapping_exception", Some(400)),
    ];
    assert_eq!(told, expected.map(|(cause, kind, status)| (cause.to_owned(), kind.to_owned(), status)).into(), "{letters:#?}");
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|letter| !letter["error"]["reason"].as_str().unwrap_or_default().is_empty()));
    let status = drover.topic(topic).expect("the topic")["status"].clone();
    assert_eq!((&status["indexed_total"], &status["dead_lettered_total"], &status["skipped_total"]), (&json!(1996), &json!(4), &json!(1)));

    let ledger = producer.ledger();
    let id = kafka.topic_id(topic);
    let generation =
        Generation { committed: kafka.committed(topic, topic), skipped: BTreeSet::from([(0, 1000)]), ..Generation::new(topic, &id, &ledger.acked) };
    let documents = sink.scan(topic);
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });
    let one = drover.get(&format!("/api/v1/dead-letters/{}", letters[0]["id"].as_str().expect("an id")));
    assert_eq!(one["payload_bytes"].as_u64(), letters[0]["payload_bytes"].as_u64());
}

#[test]
fn a_missing_topic_silences_no_other_and_is_picked_up_when_it_comes() {
    let servers = servers::together();
    servers.kafka.create_topic("main-present", 1);
    let producer = Producer::new(&servers.kafka);
    producer.send(Record::new("main-present", b"{}"));
    producer.flush();
    let topics = "  - {topic: main-absent, format: json}\n  - {topic: main-present, format: json}";
    let mut drover = Drover::start(&config(&servers.kafka, &servers.elasticsearch, "main-absent", topics), &[]);
    drover.wait_caught_up("main-present", CAUGHT_UP);
    let absent = drover.topic("main-absent").expect("the missing topic");
    assert_eq!((&absent["status"]["state"], &absent["status"]["reason"]["code"]), (&json!("waiting"), &json!("topic_missing")));
    assert!(absent["status"]["reason"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("create")), "{absent}");
    assert_eq!((&absent["status"]["partitions"], &absent["status"]["tasks"]), (&json!(0), &json!({})));
    assert_eq!(drover.get("/healthz")["status"], "degraded");
    servers.kafka.create_topic("main-absent", 2);
    producer.send(Record::new("main-absent", b"{\"late\":1}").to(1));
    producer.flush();
    drover.wait_caught_up("main-absent", CAUGHT_UP);
    assert_eq!(servers.elasticsearch.scan("main-absent").len(), 1);
    assert_eq!(drover.topic("main-absent").expect("the topic")["status"]["state"], "running");
}
