//! Neighbours that ask who calls: Kafka, Elasticsearch and etcd with passwords, keys, certificates and a private CA.
//!
//! Each case goes the whole way. Records are indexed with the credentials; without the right ones drover waits, says so, restarts nothing and says little; when that is mended, on the server or in the file, it goes on and
//! every record is there once. No password or key is in the log, in anything that the API shows, or in a file that drover writes.
//!
//! | to find | look in |
//! |---|---|
//! | SASL by PLAIN and SCRAM, TLS, client certificates | [`kafka`] |
//! | passwords, API keys, a private CA, client certificates | [`elasticsearch`] |
//! | passwords over TLS, tokens that expire, client certificates | [`etcd`] |

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::checker::{Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::elasticsearch::Elasticsearch;
use crate::harness::kafka::Kafka;
use crate::harness::producer::{Producer, Record};
use crate::harness::servers::{self, Servers};
use crate::harness::wait::holds_for;

mod elasticsearch;
mod etcd;
mod kafka;

/// More than a catch-up of these amounts takes on two busy cores; while the sink's credentials are refused it is asked every ten to thirty seconds.
const CAUGHT_UP: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(60);
/// How long wrong credentials are watched.
const QUIET: Duration = Duration::from_secs(3);
/// Lines of the log in that time. A client of Kafka names each broken connection, and makes a new one every five seconds at most.
const MOST_LINES: usize = 10;
const STOPPED: Duration = Duration::from_secs(25);
const PARTITIONS: i32 = 2;
/// Lines of a configuration by which a stop gives up soon on records that nobody takes.
const STOP: &str = "supervision: {drain_timeout: 200ms}\n";

/// A case, and how a failure names it.
type Case = (&'static str, fn(&Servers));

/// Runs cases beside each other, since each spends most of its time waiting. Fails when one does.
fn at_once(cases: &[Case]) {
    let servers = servers::together();
    thread::scope(|scope| {
        for (name, case) in cases {
            let servers: &Servers = &servers;
            thread::Builder::new().name((*name).to_owned()).spawn_scoped(scope, move || case(servers)).expect("a thread");
        }
    });
}

/// One topic and what was sent to it; the group, and the index, have its name.
struct Flow<'a> {
    kafka: &'a Kafka,
    topic: &'static str,
    producer: Producer,
    sent: i32,
}

impl<'a> Flow<'a> {
    fn new(kafka: &'a Kafka, topic: &'static str) -> Self {
        kafka.create_topic(topic, PARTITIONS);
        Self::of_a_topic_to_come(kafka, topic)
    }

    fn of_a_topic_to_come(kafka: &'a Kafka, topic: &'static str) -> Self {
        Self { kafka, topic, producer: Producer::new(kafka), sent: 0 }
    }

    fn send(&mut self) {
        for number in self.sent..self.sent + 300 {
            self.producer.send(Record::new(self.topic, format!(r#"{{"number":{number}}}"#).as_bytes()).to(number % PARTITIONS));
        }
        self.sent += 300;
        self.producer.flush();
    }

    /// Sends records and waits until they are settled.
    #[track_caller]
    fn flows(&mut self, drover: &mut Drover) {
        self.send();
        drover.wait_caught_up(self.topic, CAUGHT_UP);
    }

    /// More records, with every detail in the log; then the stop, every record compared, and nobody has heard a secret.
    #[track_caller]
    fn ends_well(mut self, mut drover: Drover, sink: &Elasticsearch, secrets: &[&str]) {
        drover.put("/api/v1/log-level", &json!({"filter": "trace"})).ok();
        self.flows(&mut drover);
        drover.put("/api/v1/log-level", &json!({"filter": "info"})).ok();
        let letters = drover.letters();
        shows_none_of(&drover, self.topic, secrets);
        assert_eq!(drover.terminate(STOPPED).code(), Some(0), "{}", drover.log());
        tells_none_of(&drover, secrets);
        let (ledger, id) = (self.producer.ledger(), self.kafka.topic_id_on_disk(self.topic));
        let committed = self.kafka.committed(self.topic, self.topic);
        let generation = Generation { index: Some(self.topic), committed, ..Generation::new(self.topic, &id, &ledger.acked) };
        let documents = sink.scan(self.topic);
        assert_eq!((documents.len() as i32, letters.len()), (self.sent, 0));
        assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &letters });
    }
}

/// The reason of a topic that waits; `None` while it does not.
fn reason(drover: &Drover, topic: &str) -> Option<Value> {
    let status = drover.topic(topic)?["status"].take();
    (status["state"] == "waiting" && status["restarts_total"] == 0).then(|| status["reason"].clone())
}

/// Waits until a topic waits for this reason. Answers the reason.
#[track_caller]
fn is_told(drover: &mut Drover, topic: &str, code: &str) -> Value {
    let told =
        drover.wait_for(&format!("{topic} waits because of {code}"), SOON, |drover| reason(drover, topic).filter(|reason| reason["code"] == code));
    assert!(told["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{told}");
    told
}

/// The same, and shows that the topic goes on to wait quietly.
#[track_caller]
fn waits(drover: &mut Drover, topic: &str, code: &str) -> Value {
    let told = is_told(drover, topic, code);
    is_quiet(drover, |drover| reason(drover, topic).is_some_and(|reason| reason["code"] == code));
    told
}

/// Shows that a state lasts, that nothing is restarted meanwhile, and that the log does not fill.
#[track_caller]
fn is_quiet(drover: &Drover, lasts: impl Fn(&Drover) -> bool) {
    let lines = drover.log().lines().count();
    let restarts = |drover: &Drover| {
        let parts = drover.get("/api/v1/info")["components"].take();
        parts.as_array().expect("parts").iter().map(|part| part["restarts_total"].as_u64().expect("a number")).sum::<u64>()
    };
    holds_for("nothing changes", QUIET, || lasts(drover) && restarts(drover) == 0);
    let lines = drover.log().lines().count() - lines;
    assert!(lines <= MOST_LINES, "{lines} lines in {QUIET:?}: {}", drover.log());
}

/// Replaces the file, which names this part anew; the part is told to wait for the next start, which follows.
#[track_caller]
fn mends(drover: &mut Drover, config: &str, part: &str) {
    drover.replace_config(config);
    drover.wait_for("the file is read again", SOON, |drover| (drover.get("/api/v1/info")["needs_restart"] == json!([part])).then_some(()));
    // With records that nobody takes it says by its exit code that something is left.
    drover.terminate(STOPPED);
    drover.restart();
}

/// What `drover check-config --probe` says of the present file, which must be that something is wrong.
#[track_caller]
fn probe(drover: &Drover) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    let output = command.args(["check-config", "--probe"]).arg(drover.folder().join("config.yaml")).output().expect("the program");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{said}");
    said
}

/// Asks for everything that the API shows.
#[track_caller]
fn shows_none_of(drover: &Drover, topic: &str, secrets: &[&str]) {
    let lists = ["info", "topics", "tasks", "sources", "events", "instances", "changes", "dead-letters", "log-level", "kafka/topics"];
    let mut paths: Vec<String> = lists.iter().map(|list| format!("/api/v1/{list}")).collect();
    paths.extend([format!("/api/v1/topics/{topic}"), format!("/api/v1/tasks/{topic}/0"), format!("/api/v1/topics/{topic}/series?metric=lag")]);
    paths.extend(["/healthz?verbose", "/readyz?verbose", "/metrics", "/openapi.json", "/"].map(str::to_owned));
    for path in paths {
        let shown = drover.request("GET", &path, &[], None).text();
        assert!(!shown.is_empty(), "{path}");
        has_none_of(&shown, secrets, &path);
    }
}

/// Reads everything that drover has written.
#[track_caller]
fn tells_none_of(drover: &Drover, secrets: &[&str]) {
    has_none_of(&drover.log(), secrets, "the log");
    let mut folders = vec![drover.folder().join("data")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            has_none_of(&String::from_utf8_lossy(&bytes), secrets, &path.display().to_string());
        }
    }
}

#[track_caller]
fn has_none_of(text: &str, secrets: &[&str], place: &str) {
    for secret in secrets {
        let found = text.lines().find(|line| line.contains(secret));
        assert!(found.is_none(), "{place} has a secret: {found:?}");
    }
}

/// A path as YAML.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}
