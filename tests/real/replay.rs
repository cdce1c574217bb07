//! The file sink and `drover replay` between a real Kafka and a real Elasticsearch.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::checker::{Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::http;
use crate::harness::process::{Process, RunFolder, User, free_port};
use crate::harness::producer::{Producer, Record};
use crate::harness::servers;
use crate::harness::wait::wait_until;

/// More than a catch-up of these amounts takes on two busy cores.
const CAUGHT_UP: Duration = Duration::from_secs(120);
const TOPIC: &str = "replayed";

/// Replays a folder; what was said on stderr.
fn replay(out: &Path, to: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_drover")).arg("replay").arg(out).args(["--to", to]).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// The names of an index's files.
fn names(out: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(out.join(TOPIC)).expect("the index's folder");
    let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_was_written_between_kills_is_replayed_once_and_again() {
    let servers = servers::together();
    servers.kafka.create_topic(TOPIC, 6);
    let producer = Producer::new(&servers.kafka);
    let config = format!(
        "kafka: {{brokers: [\"{}\"], group_id: {TOPIC}, properties: {{session.timeout.ms: 6000}}}}\nsink: {{file: out}}\ntopics: [{{topic: {TOPIC}, format: json}}]\n",
        servers.kafka.bootstrap()
    );
    let mut drover = Drover::start(&config, &[]);
    let mut number = 0;
    for _ in 0..3 {
        for _ in 0..20_000 {
            let value = format!(r#"{{"number":{number},"text":"{}"}}"#, "y".repeat(120));
            producer.send(Record::new(TOPIC, value.as_bytes()).to(number % 6));
            number += 1;
        }
        drover.wait_for("some of it is written", Duration::from_secs(60), |drover| {
            (drover.topic(TOPIC)?["status"]["indexed_total"].as_u64()? > 1_000).then_some(())
        });
        drover.kill9();
        drover.restart();
    }
    producer.flush();
    drover.wait_caught_up(TOPIC, CAUGHT_UP);
    let letters = drover.letters();
    assert_eq!(drover.terminate(Duration::from_secs(25)).code(), Some(0), "{}", drover.log());
    assert_eq!(servers.kafka.committed(TOPIC, TOPIC), servers.kafka.end_offsets(TOPIC));

    let out = drover.folder().join("out");
    let before = names(&out);
    assert!(before.len() >= 2 && before.iter().all(|name| name.ends_with(".ndjson")), "{before:?}");
    let ledger = producer.ledger();
    assert_eq!(ledger.acked.len(), 60_000);
    let id = servers.kafka.topic_id(TOPIC);
    let committed = servers.kafka.committed(TOPIC, TOPIC);
    for _ in 0..2 {
        let said = replay(&out, &servers.elasticsearch.url());
        assert!(said.starts_with("replayed ") && said.ends_with(&format!(" documents from {} files, 0 refused\n", before.len())), "{said}");
        servers.elasticsearch.refresh(TOPIC);
        assert_eq!(servers.elasticsearch.count(TOPIC), 60_000);
        let documents = servers.elasticsearch.scan(TOPIC);
        let generation = Generation { index: Some(TOPIC), committed: committed.clone(), ..Generation::new(TOPIC, &id, &ledger.acked) };
        assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &letters });
    }
    assert_eq!(names(&out), before, "replaying changes nothing");
}

/// The demo's indices begin with this.
const DEMO: &str = "demo_*";

/// Runs a demo in `folder` until it has written `records`, and stops it.
fn run_demo(folder: &RunFolder, records: u64) {
    let port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(["demo", "--dir", "demo", "--listen", &format!("127.0.0.1:{port}")]);
    let mut process = Process::start(folder, "demo", command);
    wait_until("the demo has written enough", CAUGHT_UP, || {
        let answer = http::send_json("GET", &format!("http://127.0.0.1:{port}/api/v1/topics"), None).ok().filter(|answer| answer.status == 200)?;
        let indexed = |topic: &Value| topic["status"]["indexed_total"].as_u64().unwrap_or_default();
        let topics = answer.json();
        (topics["items"].as_array()?.iter().map(indexed).sum::<u64>() >= records).then_some(())
    });
    let status = process.terminate(Duration::from_secs(30)).expect("it stops when it is told to");
    assert_eq!(status.code(), Some(0), "{}", process.log_tail());
}

/// The ids in the files below `out`, each in its action line.
fn written_ids(out: &Path) -> BTreeSet<String> {
    let folders = std::fs::read_dir(out).expect("the output").flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).expect("an index's folder").flatten()).map(|entry| entry.path());
    let mut ids = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("UTF-8");
        for action in text.lines().step_by(2) {
            let action: Value = serde_json::from_str(action).expect("an action line");
            let id = action["index"]["_id"].as_str().expect("an id").to_owned();
            ids.insert(id);
        }
    }
    ids
}

#[test]
fn what_two_demos_wrote_arrives_in_elasticsearch_document_by_document() {
    let servers = servers::together();
    let folder = RunFolder::new("demo", User::Same);
    run_demo(&folder, 1_000);
    let out = folder.path().join("demo/out");
    let first = written_ids(&out);
    run_demo(&folder, 500);
    let ids = written_ids(&out);
    assert!(first.len() >= 1_000 && ids.len() >= first.len() + 500 && ids.is_superset(&first), "{} and {}", first.len(), ids.len());
    replay(&out, &servers.elasticsearch.url());
    servers.elasticsearch.refresh(DEMO);
    let documents = servers.elasticsearch.scan(DEMO);
    assert_eq!(documents.len(), ids.len());
    assert_eq!(documents.into_iter().map(|document| document.id).collect::<BTreeSet<_>>(), ids);
}
