//! What a row works with: topics and instances of its own on the shared servers, a load, watchers, and one ending that compares everything.
//!
//! Guarantees that a fault never ends the run: what does not come in time is a breach that is noted, and a panic is caught and told. A mutated run waits for less, since most of what it waits for never comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::harness::checker::{self, Content, Generation};
use crate::harness::drover::Drover;
use crate::harness::elasticsearch::Elasticsearch;
use crate::harness::http;
use crate::harness::kafka::try_committed_watch;
use crate::harness::producer::{Ledger, Producer, Record};
use crate::harness::servers::{Alone, Servers};
use crate::harness::wait::try_wait_until;
use crate::invariants::Evidence;
use crate::observer::Observer;

/// For a catch-up of what a row produces, beside a compiler.
pub(crate) const CAUGHT_UP: Duration = Duration::from_secs(120);
/// For a state to show.
pub(crate) const SOON: Duration = Duration::from_secs(45);
/// A mutated run waits no longer than this for anything.
const MUTANT_PATIENCE: Duration = Duration::from_secs(10);
/// For a clean stop: the default `shutdown_timeout`, and a little.
const STOPPED: Duration = Duration::from_secs(27);
/// `limits.memory` by default, and what the process may have beside it.
const MOST_RESIDENT_BYTES: u64 = (256 + 100) << 20;
/// Sockets to three servers and the API's clients, the store and the log.
const MOST_OPEN_FILES: usize = 256;
/// The password of every row; it must not show up anywhere.
pub(crate) const CANARY: &str = "canary-3f9b2c71";

/// One row of the matrix.
pub(crate) struct Row {
    /// Its number in the matrix.
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    /// Whether a selection may contain it: below a minute.
    pub(crate) is_quick: bool,
    pub(crate) run: fn(&mut Run<'_>),
}

/// What is counted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) seed: u32,
    pub(crate) records: usize,
    pub(crate) documents: usize,
    pub(crate) dead_letters: usize,
    pub(crate) restarts: u64,
    pub(crate) kills: u32,
    pub(crate) samples: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, documents, dead_letters, restarts, kills, samples, .. } = self;
        write!(f, "{records} records, {documents} documents, {dead_letters} dead letters, {restarts} task restarts, {kills} kills, {samples} samples")
    }
}

/// One life of a topic of a row.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    /// The base of its document ids, as the broker keeps it.
    pub(crate) id: String,
    /// What is skipped or lost with notice.
    pub(crate) skipped: BTreeSet<(i32, i64)>,
    /// What its documents look like.
    pub(crate) content: Content,
}

/// What an instance is started with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) bootstrap: String,
    /// The URL of the sink; of several nodes, with `", "` between them.
    pub(crate) sink: String,
    pub(crate) group: String,
    /// `None` leaves it to the brokers, which the protocol of KIP-848 wants.
    pub(crate) session_ms: Option<u32>,
    /// More properties of librdkafka, such as `, group.instance.id: one`.
    pub(crate) properties: String,
    /// More of the sink's section, such as `, bulk: {timeout: 5s}`.
    pub(crate) sink_options: String,
    /// The list of topics, a line each.
    pub(crate) topics: String,
    /// More sections.
    pub(crate) more: String,
    /// Failpoints of the row.
    pub(crate) failpoints: String,
    /// More variables of its environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Setup {
    /// The plain one for these topics: `json`, the index is the topic's name.
    pub(crate) fn new(run: &Run<'_>, topics: &[&Topic]) -> Self {
        Self {
            bootstrap: run.servers.kafka.bootstrap(),
            sink: run.elasticsearch().url(),
            group: format!("{}-group", run.label),
            session_ms: Some(6_000),
            properties: String::new(),
            sink_options: String::new(),
            topics: topics.iter().map(|topic| format!("  - {{topic: {}, format: json}}\n", topic.name)).collect(),
            more: String::new(),
            failpoints: String::new(),
            environment: Vec::new(),
        }
    }

    pub(crate) fn yaml(&self) -> String {
        let Self { bootstrap, sink, group, session_ms, properties, sink_options, topics, more, .. } = self;
        let session = session_ms.map(|session_ms| format!("session.timeout.ms: {session_ms}")).unwrap_or_else(|| "client.id: drover".to_owned());
        format!(
            "kafka: {{brokers: [\"{bootstrap}\"], group_id: {group}, properties: {{{session}{properties}}}}}\n\
             elasticsearch: {{urls: [\"{sink}\"], username: drover, password: {CANARY}{sink_options}}}\n{more}\ntopics:\n{topics}"
        )
    }
}

/// How a row ends.
pub(crate) struct Ending<'t> {
    pub(crate) group: &'t str,
    /// The present lives of all topics.
    pub(crate) topics: &'t [&'t Topic],
    pub(crate) ledger: &'t Ledger,
    /// How many task restarts the fault explains, all topics together.
    pub(crate) restarts: RangeInclusive<u64>,
}

/// What a row has, and what it has found.
pub(crate) struct Run<'a> {
    pub(crate) servers: &'a Servers,
    pub(crate) rng: StdRng,
    pub(crate) evidence: Evidence,
    pub(crate) counts: Counts,
    pub(crate) label: String,
    /// Why the row cannot be carried out on this machine; then it is neither well nor failed.
    pub(crate) not_run: Option<String>,
    /// What is to be told beside the counts.
    pub(crate) notes: Vec<String>,
    mutant: Option<&'static str>,
    /// Where the documents are, if not on the shared server.
    own_sink: Option<Arc<Elasticsearch>>,
    observers: Vec<(Topic, Observer)>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(servers: &'a Alone, number: u32, seed: u32, mutant: Option<&'static str>) -> Self {
        // The same row runs for several mutants on the same servers.
        let mark = mutant.map_or_else(String::new, |name| format!("-{}", name.trim_start_matches("mutant_").replace('_', "-")));
        Self {
            servers,
            rng: StdRng::seed_from_u64(u64::from(seed) << 32 | u64::from(number)),
            evidence: Evidence::default(),
            counts: Counts { seed, ..Counts::default() },
            label: format!("row{number}{mark}"),
            not_run: None,
            notes: Vec::new(),
            mutant,
            own_sink: None,
            observers: Vec::new(),
        }
    }

    /// Runs a row to its end or to its panic, whose message is the answer.
    pub(crate) fn carry_out(&mut self, row: &Row) -> Option<String> {
        let outcome = catch_unwind(AssertUnwindSafe(|| (row.run)(self)));
        for (_, observer) in self.observers.drain(..) {
            observer.end(&[], &BTreeSet::new());
        }
        let panic = outcome.err()?;
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some(text.unwrap_or_else(|| "a panic without words".to_owned()))
    }

    pub(crate) fn is_mutated(&self) -> bool {
        self.mutant.is_some()
    }

    /// Before anything else: this server takes and keeps the row's documents.
    pub(crate) fn use_sink(&mut self, started: Result<Elasticsearch, String>) -> Arc<Elasticsearch> {
        let sink = Arc::new(started.unwrap_or_else(|reason| panic!("{reason}")));
        self.own_sink = Some(sink.clone());
        sink
    }

    fn elasticsearch(&self) -> &Elasticsearch {
        self.own_sink.as_deref().unwrap_or(&self.servers.elasticsearch)
    }

    /// Creates a topic of this row.
    pub(crate) fn topic(&self, name: &str, partitions: i32) -> Topic {
        let name = format!("{}-{name}", self.label);
        self.servers.kafka.create_topic(&name, partitions);
        self.life_of(&name, partitions)
    }

    /// The present life of a topic that is there.
    pub(crate) fn life_of(&self, name: &str, partitions: i32) -> Topic {
        let id = self.servers.kafka.topic_id_on_disk(name);
        Topic { name: name.to_owned(), partitions, id, skipped: BTreeSet::new(), content: Content::Json }
    }

    /// Starts an instance and waits until it is ready.
    pub(crate) fn start(&self, setup: &Setup) -> Drover {
        let failpoints = self.failpoints(setup);
        Drover::start(&setup.yaml(), &environment(setup, &failpoints))
    }

    /// Starts an instance without waiting.
    pub(crate) fn launch(&self, setup: &Setup) -> Drover {
        let failpoints = self.failpoints(setup);
        Drover::launch(&setup.yaml(), &environment(setup, &failpoints))
    }

    fn failpoints(&self, setup: &Setup) -> String {
        let mutant = self.mutant.map(|name| format!("{name}=return"));
        let all: Vec<String> = [Some(setup.failpoints.clone()), mutant].into_iter().flatten().filter(|text| !text.is_empty()).collect();
        all.join(";")
    }

    /// SIGKILL, counted.
    pub(crate) fn kill(&mut self, drover: &mut Drover) {
        self.counts.kills += 1;
        drover.kill9();
    }

    /// Watches the committed offsets of a topic until the ending.
    pub(crate) fn observe(&mut self, group: &str, topic: &Topic) {
        let observer = Observer::start(&self.servers.kafka, &self.elasticsearch().admin_url(), group, &topic.name, &topic.id);
        self.observers.push((topic.clone(), observer));
    }

    /// From now on committed offsets may go back.
    pub(crate) fn allow_going_back(&self) {
        self.observers.iter().for_each(|(_, observer)| observer.allow_going_back());
    }

    /// An observed instance with records that keep coming, once this many of them are indexed.
    pub(crate) fn under_load(&mut self, setup: &Setup, topic: &Topic, at_least: u64) -> (Drover, Load) {
        let drover = self.start(setup);
        self.observe(&setup.group, topic);
        let load = Load::start(self, topic);
        self.wait_indexed(&drover, topic, at_least);
        (drover, load)
    }

    /// Notes whether an invariant held here.
    pub(crate) fn claim(&mut self, invariant: &'static str, holds: bool, otherwise: impl FnOnce() -> String) {
        let found = self.evidence.claims.entry(invariant).or_default();
        if !holds {
            found.push(otherwise());
        }
    }

    /// Waits until a condition gives a value; that it does in time is this invariant.
    pub(crate) fn wait<T>(&mut self, invariant: &'static str, what: &str, within: Duration, condition: impl FnMut() -> Option<T>) -> Option<T> {
        let within = if self.is_mutated() { within.min(MUTANT_PATIENCE) } else { within };
        let value = try_wait_until(within, condition);
        self.claim(invariant, value.is_some(), || format!("waited {within:?} in vain until {what}"));
        value
    }

    /// Waits until so many records of a topic are indexed by this life of this instance.
    pub(crate) fn wait_indexed(&mut self, drover: &Drover, topic: &Topic, at_least: u64) {
        let what = format!("{at_least} records of {} are indexed", topic.name);
        self.wait("I7", &what, SOON, || (drover.topic(&topic.name)?["status"]["indexed_total"].as_u64()? >= at_least).then_some(()));
    }

    /// Waits until every task of a topic waits for this reason.
    pub(crate) fn wait_reason(&mut self, drover: &Drover, topic: &Topic, code: &str) {
        let what = format!("all tasks of {} wait: {code}", topic.name);
        self.wait("I10", &what, SOON, || {
            let rows = rows(drover, &topic.name);
            let is_waiting = |row: &Value| row["state"] == "waiting" && row["reason"]["code"] == code;
            (!rows.is_empty() && rows.iter().all(is_waiting)).then_some(())
        });
    }

    /// Waits until the group has committed everything of a topic, by Kafka's own account, and answers whether it has.
    pub(crate) fn wait_committed(&mut self, invariant: &'static str, group: &str, topic: &Topic) -> bool {
        let kafka = &self.servers.kafka;
        let mut committed = try_committed_watch(&kafka.client(), group, &topic.name, SOON);
        let all = self.wait(invariant, &format!("everything of {} is committed", topic.name), CAUGHT_UP, || {
            let committed = committed().ok()?;
            let ends = kafka.end_offsets(&topic.name);
            ends.iter().all(|(partition, end)| *end == committed.get(partition).copied().unwrap_or(0)).then_some(())
        });
        all.is_some()
    }

    /// Lets a fault last, while the process must stay alive and restart nothing.
    pub(crate) fn endure(&mut self, drover: &Drover, topic: &Topic, span: Duration) {
        let span = if self.is_mutated() { span.min(MUTANT_PATIENCE) } else { span };
        let mut wrong = Vec::new();
        let _ = try_wait_until(span, || {
            if !http::send("GET", &format!("{}/livez", drover.url()), &[], None).is_ok_and(|answer| answer.status == 200) {
                wrong.push("the process did not call itself alive".to_owned());
            }
            if let Some(row) = rows(drover, &topic.name).iter().find(|row| row["restarts_total"] != 0) {
                wrong.push(format!("a task was restarted: {row}"));
            }
            (!wrong.is_empty()).then_some(())
        });
        self.claim("I10", wrong.is_empty(), || wrong.join("; "));
    }

    /// Compares everything: lag, restarts, memory, documents, letters, offsets, secrets; then ends the instance.
    pub(crate) fn finish(&mut self, drover: Drover, ending: &Ending<'_>) {
        self.finish_with_former(drover, ending, &[]);
    }

    /// Ends the load and then the row, for a fault that explains no restart.
    pub(crate) fn finish_load(&mut self, drover: Drover, setup: &Setup, topic: &Topic, load: Load) {
        let ledger = load.end();
        self.finish(drover, &Ending { group: &setup.group, topics: &[topic], ledger: &ledger, restarts: 0..=0 });
    }

    /// The same for topics that had former lives, each with a ledger of its own: both speak of the same partitions and offsets.
    pub(crate) fn finish_with_former(&mut self, mut drover: Drover, ending: &Ending<'_>, former: &[(&Topic, &Ledger)]) {
        let newest: BTreeMap<&str, &Topic> = ending.topics.iter().map(|topic| (topic.name.as_str(), *topic)).collect();
        self.evidence.is_caught_up = true;
        for topic in newest.values() {
            self.evidence.is_caught_up &= self.wait_committed("I7", ending.group, topic);
            if self.evidence.is_caught_up {
                self.wait("I10", &format!("the API shows no lag of {}", topic.name), SOON, || {
                    (drover.topic(&topic.name)?["status"]["lag"].as_u64()? == 0).then_some(())
                });
            }
        }
        let rows: Vec<Value> = newest.keys().flat_map(|name| rows(&drover, name)).collect();
        let restarts = rows.iter().filter_map(|row| row["restarts_total"].as_u64()).sum();
        self.counts.restarts = restarts;
        self.claim("I7", ending.restarts.contains(&restarts), || format!("{restarts} task restarts, {:?} are explained: {rows:?}", ending.restarts));
        let resident = drover.peak_resident_bytes();
        self.claim("I8", resident <= MOST_RESIDENT_BYTES, || format!("{} MiB resident", resident >> 20));
        let open_files = drover.open_files();
        self.claim("I8", open_files <= MOST_OPEN_FILES, || format!("{open_files} open files"));

        self.evidence.self_checks = self_checks(&drover);
        if !self.is_mutated() {
            let raised = self.evidence.self_checks.clone();
            self.claim("I1", raised.is_empty(), || format!("self-checks were raised: {raised:?}"));
        }

        let letters: Vec<Value> = letters(&drover);
        self.check(ending, &newest, former, &letters);
        for what in ["/api/v1/info", "/metrics", "/healthz?verbose", "/api/v1/events?limit=1000"] {
            let shown = drover.request("GET", what, &[], None).text();
            self.claim("I12", !shown.contains(CANARY), || format!("{what} shows the sink's password"));
        }
        // A mutant has been judged, and need not end well.
        if !self.is_mutated() {
            self.stop(&mut drover, ending, newest.keys());
        }
    }

    fn check(&mut self, ending: &Ending<'_>, newest: &BTreeMap<&str, &Topic>, former: &[(&Topic, &Ledger)], letters: &[Value]) {
        let kafka = &self.servers.kafka;
        // Before the documents are read.
        let committed: BTreeMap<&str, BTreeMap<i32, i64>> = newest.keys().map(|name| (*name, kafka.committed(ending.group, name))).collect();
        let documents: Vec<_> = newest.keys().flat_map(|name| self.elasticsearch().scan(name)).collect();
        let is_ours = |letter: &&Value| newest.contains_key(letter["topic"].as_str().unwrap_or_default());
        let letters: Vec<Value> = letters.iter().filter(is_ours).cloned().collect();
        let life = |topic: &'_ Topic, ledger: &'_ Ledger| (topic.clone(), ledger.acked.clone());
        let lives: Vec<_> =
            former.iter().map(|(topic, ledger)| life(topic, ledger)).chain(ending.topics.iter().map(|topic| life(topic, ending.ledger))).collect();
        let generations: Vec<Generation<'_>> = lives
            .iter()
            .map(|(topic, acked)| {
                let is_newest = newest.get(topic.name.as_str()).is_some_and(|newest| newest.id == topic.id);
                let committed = committed.get(topic.name.as_str()).filter(|_| is_newest).cloned().unwrap_or_default();
                let (index, content, skipped) = (Some(topic.name.as_str()), topic.content, topic.skipped.clone());
                Generation { index, content, committed, skipped, ..Generation::new(&topic.name, &topic.id, acked) }
            })
            .collect();
        let found: Vec<checker::Letter> = letters.iter().map(crate::harness::drover::letter).collect();
        let evidence = checker::Evidence { generations: &generations, unknown: &ending.ledger.unknown, documents: &documents, letters: &found };
        let violations = checker::check(&evidence);
        self.counts.records += ending.ledger.acked.len() + former.iter().map(|(_, ledger)| ledger.acked.len()).sum::<usize>();
        self.counts.documents += documents.len();
        self.counts.dead_letters += letters.len();
        for (topic, observer) in self.observers.drain(..) {
            let skipped = ending.topics.iter().find(|known| known.id == topic.id).map(|known| known.skipped.clone()).unwrap_or_default();
            let seen = observer.end(&letters, &skipped);
            self.counts.samples += seen.samples;
            self.evidence.samples += seen.samples;
            self.evidence.early_commits.extend(seen.early_commits);
        }
        self.evidence.violations.get_or_insert_default().extend(violations);
        self.evidence.letters.get_or_insert_default().extend(letters);
    }

    fn stop<'t>(&mut self, drover: &mut Drover, ending: &Ending<'_>, names: impl Iterator<Item = &'t &'t str>) {
        drover.signal(libc::SIGTERM);
        let status = drover.wait_end(STOPPED);
        self.claim("I11", status.is_some_and(|status| status.code() == Some(0)), || format!("after SIGTERM: {status:?}"));
        for name in names {
            let (committed, ends) = (self.servers.kafka.committed(ending.group, name), self.servers.kafka.end_offsets(name));
            let is_all = ends.iter().all(|(partition, end)| committed.get(partition).copied().unwrap_or(0) == *end);
            self.claim("I11", is_all, || format!("{name}: committed {committed:?}, ends {ends:?}"));
        }
        let log = drover.log();
        self.claim("I12", !log.contains(CANARY), || "the log shows the sink's password".to_owned());
    }
}

fn environment<'t>(setup: &'t Setup, failpoints: &'t str) -> Vec<(&'static str, &'t str)> {
    let all = setup.environment.iter().map(|(name, value)| (*name, value.as_str())).chain([("FAILPOINTS", failpoints)]);
    all.filter(|(_, value)| !value.is_empty()).collect()
}

/// The tasks of a topic as the API shows them; none while it does not answer.
pub(crate) fn rows(drover: &Drover, topic: &str) -> Vec<Value> {
    let answer = drover.try_request("GET", &format!("/api/v1/tasks?topic={topic}&limit=1000"), None);
    answer.ok().filter(|answer| answer.status == 200).and_then(|answer| answer.json()["items"].as_array().cloned()).unwrap_or_default()
}

/// Violations that the instance has counted itself, by the invariant's name.
fn self_checks(drover: &Drover) -> BTreeMap<String, u64> {
    let page = drover.request("GET", "/metrics", &[], None).text();
    let counted = |line: &str| {
        let (invariant, count) = line.strip_prefix("drover_invariant_violations_total{invariant=\"")?.split_once("\"} ")?;
        Some((invariant.to_owned(), count.parse::<u64>().ok()?))
    };
    let all: BTreeMap<String, u64> = page.lines().filter_map(counted).collect();
    assert!(!all.is_empty(), "the metrics show no self-checks:\n{page}");
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Every dead letter, as the API shows it.
fn letters(drover: &Drover) -> Vec<Value> {
    let mut letters = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = drover.get(&format!("/api/v1/dead-letters?limit=1000{after}"));
        letters.extend(page["items"].as_array().cloned().unwrap_or_default());
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return letters;
        }
    }
}

/// Sends records with numbers, of lengths that the seed makes.
pub(crate) fn send(producer: &Producer, rng: &mut StdRng, topic: &str, partitions: i32, numbers: std::ops::Range<i32>) {
    for number in numbers {
        let text = "z".repeat(rng.random_range(10..250));
        let value = format!(r#"{{"number":{number},"text":"{text}"}}"#);
        producer.send(Record::new(topic, value.as_bytes()).to(number % partitions));
    }
}

/// Produces at a steady pace until told to stop.
pub(crate) struct Load {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Ledger>,
}

impl Load {
    /// 2,000 records a second.
    pub(crate) fn start(run: &mut Run<'_>, topic: &Topic) -> Self {
        Self::paced(run, topic, 100)
    }

    /// So many records every 50 ms.
    pub(crate) fn paced(run: &mut Run<'_>, topic: &Topic, in_a_turn: i32) -> Self {
        let producer = Producer::new(&run.servers.kafka);
        let is_over = Arc::new(AtomicBool::new(false));
        let told = is_over.clone();
        let (name, partitions, mut rng) = (topic.name.clone(), topic.partitions, StdRng::seed_from_u64(run.rng.random()));
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                send(&producer, &mut rng, &name, partitions, number..number + in_a_turn);
                number += in_a_turn;
                let _ = try_wait_until(Duration::from_millis(50), || told.load(Ordering::Relaxed).then_some(()));
            }
            producer.flush();
            producer.ledger()
        });
        Self { is_over, thread }
    }

    /// Ends and waits until everything is acknowledged or has failed.
    pub(crate) fn end(self) -> Ledger {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer")
    }
}

/// Lets this much time pass under load.
pub(crate) fn let_pass(span: Duration) {
    let _ = try_wait_until::<()>(span, || None);
}

/// Two ledgers as one.
pub(crate) fn both(mut one: Ledger, other: Ledger) -> Ledger {
    one.acked.extend(other.acked);
    one.unknown.extend(other.unknown);
    one
}
