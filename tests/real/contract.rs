//! The API against its document on real servers: generated requests to a drover that consumes from a real Kafka and keeps its topics in a real etcd. What it indexes goes to files: no request reaches
//! the sink.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::kafka::Kafka;
use crate::harness::producer::{Producer, Record};
use crate::harness::wait::wait_until;

/// From the start to a list that is indexed, with dead letters.
const SOON: Duration = Duration::from_secs(60);

/// A new token and its line for the file.
fn made(name: &str, role: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_drover")).args(["token", name, "--role", role]).output().expect("the program");
    assert!(output.status.success(), "{output:?}");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (text(output.stdout).trim().to_owned(), text(output.stderr).lines().last().expect("a line").to_owned())
}

/// Minutes long and in need of Python's package registry, so it runs by its own name only.
#[test]
#[ignore = "run by DROVER_CONTRACT=real make test-contract"]
fn generated_requests_are_answered_as_declared() {
    let kafka = Kafka::start().expect("a Kafka");
    let etcd = Etcd::start(Version::System, &[]);
    for topic in ["contract-a", "contract-b"] {
        kafka.create_topic(topic, 4);
    }
    let producer = Producer::new(&kafka);
    for number in 0..200 {
        // Every tenth is no JSON and becomes a dead letter.
        let value = if number % 10 == 0 { "{broken".to_owned() } else { format!(r#"{{"number": {number}}}"#) };
        producer.send(Record::new("contract-a", value.as_bytes()).to(number % 4));
    }
    producer.flush();

    let (write_token, write_line) = made("contract", "write");
    let (read_token, read_line) = made("reader", "read");
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens.yaml");
    std::fs::write(&tokens, format!("tokens:\n{write_line}\n{read_line}\n")).expect("a file");
    let config = format!(
        "kafka: {{brokers: [\"{}\"], group_id: contract}}\nsink: {{file: out}}\netcd: {{endpoints: [\"{}\"]}}\nauth: {{tokens_file: '{}'}}\nhttp: {{open_metrics: false}}\ntopics: [{{topic: contract-a, format: json}}]\n",
        kafka.bootstrap(),
        etcd.url(),
        tokens.display()
    );
    let mut drover = Drover::start(&config, &[]);
    let bearer = format!("Bearer {read_token}");
    let has_letters = |drover: &Drover| {
        let answer = drover.request("GET", "/api/v1/dead-letters?limit=1", &[("authorization", &bearer)], None);
        answer.status == 200 && answer.json()["items"].as_array().is_some_and(|items| !items.is_empty())
    };
    wait_until("there are dead letters", SOON, || has_letters(&drover).then_some(()));

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let address = drover.url().trim_start_matches("http://").to_owned();
    let status = Command::new("bash").arg(root.join(".ci/contract-requests.sh")).args([&address, &write_token, &read_token]).status().expect("bash");
    assert!(status.success(), "{status}");
    assert!(drover.terminate(SOON).success());
}
