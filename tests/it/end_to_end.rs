//! The whole program in one process: librdkafka's mock cluster, the real application with its embedded stores, and the stub of a bulk server. Everything is asked over HTTP, as an operator would.
//!
//! The mock cluster has no topic ids, so the base of the document ids is the topic's name. It keeps 5 MiB for each partition. A group that its last member has left waits for the session timeout less
//! a second before anyone else gets partitions (`rd_kafka_mock_cgrp_classic_rebalance`), so tests with a second start shorten that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover::app::{self, End, Options, StartError};
use drover::config;
use drover::kafka::TopicIds;
use futures::channel::mpsc;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rdkafka::ClientConfig;
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::future_producer::FutureProducerContext;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::harness::http::{self, Answer};
use crate::harness::log::NoLog;
use crate::harness::process::free_port;
use crate::harness::wait::wait_until;
use crate::sink::stub::{self, ItemRule, StubServer};

/// For tests with a second start. It leaves room for one heartbeat that is late: they come every 3 s.
pub(crate) const SHORT_SESSION: &str = ", session.timeout.ms: 6000";

/// Longer than anything here takes when all is well, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What the test's own application writes to its log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Makes this the log of the calling thread for as long as that lives.
    fn follow_this_thread(&self) {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).with_writer(move || log.clone()).finish();
        std::mem::forget(tracing::subscriber::set_default(subscriber));
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A mock cluster with a ledger of what was produced: the place in a partition's list is the offset.
pub(crate) struct Broker {
    /// Owns the cluster.
    producer: FutureProducer,
    ledger: BTreeMap<(String, i32), Vec<Option<Vec<u8>>>>,
}

impl Broker {
    fn new() -> Self {
        let mut settings = ClientConfig::new();
        // Compressed, because the cluster keeps only so many bytes.
        settings.set("test.mock.num.brokers", "1").set("compression.type", "zstd").set("message.max.bytes", "4000000").set("linger.ms", "5");
        // Longer pauses, on a busy machine two or three after each other, are as long as a test waits.
        settings.set("reconnect.backoff.max.ms", "1000");
        let producer: FutureProducer = settings.create().expect("a mock cluster");
        let broker = Self { producer, ledger: BTreeMap::new() };
        // Without this the first member of a group waits three seconds for others.
        broker.delay_the_first_join(0);
        broker
    }

    /// How long the first member of a group waits for others.
    fn delay_the_first_join(&self, milliseconds: i32) {
        // SAFETY: the cluster belongs to the producer's client, which lives; the call only stores a number.
        unsafe {
            let cluster = rdkafka::bindings::rd_kafka_handle_mock_cluster(self.producer.client().native_ptr());
            rdkafka::bindings::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, milliseconds);
        }
    }

    fn cluster(&self) -> MockCluster<'_, FutureProducerContext<DefaultClientContext>> {
        self.producer.client().mock_cluster().expect("the producer's cluster")
    }

    pub(crate) fn addresses(&self) -> String {
        self.cluster().bootstrap_servers()
    }

    fn create_topic(&mut self, topic: &str, partitions: i32) {
        self.cluster().create_topic(topic, partitions, 1).expect("a new topic");
        for partition in 0..partitions {
            self.ledger.insert((topic.to_owned(), partition), Vec::new());
        }
    }

    /// Every document id of the topic's records, as drover has to make them.
    pub(crate) fn ids(&self, topic: &str) -> BTreeSet<String> {
        let own = self.ledger.iter().filter(|((name, _), _)| name == topic);
        own.flat_map(|((name, partition), records)| (0..records.len()).map(move |offset| format!("{name}:{partition}:{offset}"))).collect()
    }

    /// The value of the record that an id names.
    pub(crate) fn value(&self, id: &str) -> Option<&[u8]> {
        let mut parts = id.split(':');
        let topic = parts.next().expect("a topic").to_owned();
        let partition = parts.next().and_then(|text| text.parse().ok()).expect("a partition");
        let offset: usize = parts.next().and_then(|text| text.parse().ok()).expect("an offset");
        self.ledger[&(topic, partition)][offset].as_deref()
    }
}

/// One test's world: a broker, a bulk server, a folder, and the runtime on which the application runs.
pub(crate) struct World {
    pub(crate) broker: Broker,
    pub(crate) stub: StubServer,
    pub(crate) folder: tempfile::TempDir,
    log: Log,
    runtime: Option<Runtime>,
}

impl World {
    pub(crate) fn new(topics: &[(&str, i32)]) -> Self {
        let log = Log::default();
        let thread_log = log.clone();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().on_thread_start(move || thread_log.follow_this_thread()).build().expect("a runtime");
        let stub = runtime.block_on(StubServer::start());
        let mut broker = Broker::new();
        for (topic, partitions) in topics {
            broker.create_topic(topic, *partitions);
        }
        Self { broker, stub, folder: tempfile::tempdir().expect("a folder"), log, runtime: Some(runtime) }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is taken at the end only")
    }

    /// Produces to one partition and waits until all of it is there.
    pub(crate) fn produce<V: Into<Vec<u8>>>(&mut self, topic: &str, partition: i32, values: impl IntoIterator<Item = V>) {
        self.produce_any(topic, partition, values.into_iter().map(|value| Some(value.into())));
    }

    fn produce_any(&mut self, topic: &str, partition: i32, values: impl IntoIterator<Item = Option<Vec<u8>>>) {
        let ledger = self.broker.ledger.get_mut(&(topic.to_owned(), partition)).expect("a topic that was created");
        let first = ledger.len();
        ledger.extend(values);
        let mut deliveries = Vec::new();
        for value in &ledger[first..] {
            let mut record = FutureRecord::<(), [u8]>::to(topic).partition(partition);
            record.payload = value.as_deref();
            deliveries.push(self.broker.producer.send_result(record).map_err(|(error, _)| error).expect("room in the producer's queue"));
        }
        let runtime = self.runtime.as_ref().expect("it is taken at the end only");
        let delivered =
            runtime.block_on(async { tokio::time::timeout(SOON, futures::future::join_all(deliveries)).await }).expect("delivered in time");
        for (offset, delivery) in (first..).zip(delivered) {
            let delivery = delivery.expect("the producer lives").expect("delivered");
            assert_eq!(usize::try_from(delivery.offset).expect("an offset"), offset, "records of {topic}/{partition} were appended in another order");
        }
    }

    /// These values, to each of the topic's partitions, without waiting for one after the other.
    pub(crate) fn produce_to_each(&mut self, topic: &str, values: &[String]) {
        let mut deliveries = Vec::new();
        for ((_, partition), ledger) in self.broker.ledger.iter_mut().filter(|((name, _), _)| name == topic) {
            for value in values {
                ledger.push(Some(value.clone().into_bytes()));
                let record = FutureRecord::<(), [u8]>::to(topic).partition(*partition).payload(value.as_bytes());
                deliveries.push(self.broker.producer.send_result(record).map_err(|(error, _)| error).expect("room in the producer's queue"));
            }
        }
        let runtime = self.runtime.as_ref().expect("it is taken at the end only");
        let delivered = runtime.block_on(async { tokio::time::timeout(4 * SOON, futures::future::join_all(deliveries)).await });
        assert!(
            delivered.expect("delivered in time").into_iter().all(|delivery| delivery.is_ok_and(|answer| answer.is_ok())),
            "not all was delivered"
        );
    }

    /// Many small JSON records, `{"of":"TOPIC","n":N}`, evenly over the topic's partitions.
    pub(crate) fn produce_numbers(&mut self, topic: &str, numbers: std::ops::Range<usize>) {
        let partitions = self.broker.ledger.keys().filter(|(name, _)| name == topic).count();
        for partition in 0..partitions {
            let own = numbers.clone().filter(|number| number % partitions == partition);
            let values: Vec<String> = own.map(|number| format!(r#"{{"of":"{topic}","n":{number}}}"#)).collect();
            self.produce(topic, i32::try_from(partition).expect("a partition"), values);
        }
    }

    /// A configuration with these topics (a YAML list).
    pub(crate) fn configure(&self, topics: &str) {
        self.configure_with(topics, "10s", "");
    }

    /// The same with the time for stopping and further properties of the Kafka client.
    pub(crate) fn configure_with(&self, topics: &str, shutdown_timeout: &str, properties: &str) {
        let text = format!(
            "kafka: {{brokers: ['{}'], properties: {{fetch.wait.max.ms: 10{properties}}}}}\n\
             elasticsearch: {{urls: ['{}'], bulk: {{linger: 20ms, timeout: 10s}}}}\n\
             supervision: {{shutdown_timeout: {shutdown_timeout}, drain_timeout: 1s}}\n\
             topics: {topics}\n",
            self.broker.addresses(),
            self.stub.url(),
        );
        std::fs::write(self.config_path(), text).expect("a file in our folder");
    }

    pub(crate) fn config_path(&self) -> std::path::PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// Starts the application on the configuration without waiting.
    pub(crate) fn launch(&self) -> App {
        let loaded = config::load(&self.config_path(), &|_| None).unwrap_or_else(|error| panic!("{}", config::check::text(&error)));
        let port = free_port();
        let (signals, received) = mpsc::unbounded();
        let listen = Some(([127, 0, 0, 1], port).into());
        let options = Options { listen, topic_ids: TopicIds::Absent, ..Options::new(self.config_path(), Arc::new(NoLog)) };
        let life = self.runtime().spawn(app::run(loaded, options, received));
        App { url: format!("http://127.0.0.1:{port}"), signals, life }
    }

    /// Starts the application and waits until it is ready.
    pub(crate) fn start(&self) -> App {
        let app = self.launch();
        wait_until("the application is ready", SOON, || {
            assert!(!app.life.is_finished(), "it ended before it was ready");
            let answer = http::send("GET", &format!("{}/readyz", app.url), &[], None).ok()?;
            (answer.status == 200).then_some(())
        });
        app
    }

    /// Asks the application to stop; how it ended and after how long.
    pub(crate) fn stop(&self, app: App) -> (End, Duration) {
        let asked = Instant::now();
        app.signals.unbounded_send("SIGTERM").expect("it listens");
        let end = self.ended(app).expect("it had started");
        (end, asked.elapsed())
    }

    pub(crate) fn ended(&self, app: App) -> Result<End, StartError> {
        self.runtime().block_on(async { tokio::time::timeout(SOON, app.life).await }).expect("an end in time").expect("no panic")
    }

    /// The ids of the documents in one index.
    pub(crate) fn indexed(&self, index: &str) -> BTreeSet<String> {
        self.stub.documents().into_keys().filter(|(name, _)| name == index).map(|(_, id)| id).collect()
    }

    /// Waits until all of the topic's tasks run and have committed and shown everything that was produced; the topic's status then.
    pub(crate) fn await_caught_up(&self, app: &App, topic: &str) -> Value {
        let is_caught_up = |task: &Value| {
            let partition = i32::try_from(task["partition"].as_i64()?).ok()?;
            let records = self.broker.ledger.get(&(topic.to_owned(), partition))?.len();
            let is_committed = records == 0 || task["committed"] == records;
            Some(task["state"] == "running" && task["lag"] == 0 && task["high_watermark"] == records && is_committed)
        };
        let partitions = self.broker.ledger.keys().filter(|(name, _)| name == topic).count();
        wait_until(&format!("{topic} runs and has no lag"), SOON, || {
            let tasks = app.tasks(topic);
            let all = tasks.len() == partitions && tasks.iter().all(|task| is_caught_up(task) == Some(true));
            // Of a later snapshot, in which nothing can have become worse.
            all.then(|| app.status(topic))
        })
    }

    /// Waits until exactly the topic's records are in the index of its name.
    fn await_indexed(&self, topic: &str) {
        let expected = self.broker.ids(topic);
        wait_until(&format!("all of {topic} is indexed"), SOON, || (self.indexed(topic).len() >= expected.len()).then_some(()));
        assert_eq!(self.indexed(topic), expected);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.text();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the application's last words\n{}\n---", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A running application.
pub(crate) struct App {
    pub(crate) url: String,
    signals: mpsc::UnboundedSender<&'static str>,
    life: JoinHandle<Result<End, StartError>>,
}

impl App {
    pub(crate) fn request(&self, method: &str, path: &str) -> Answer {
        http::send(method, &format!("{}{path}", self.url), &[("accept", "application/json")], None)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn put(&self, path: &str, body: &str) -> Answer {
        self.send("PUT", path, body)
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body)
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        http::send(method, &format!("{}{path}", self.url), &[("content-type", "application/json")], Some(body.as_bytes().to_vec()))
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.request("GET", path).ok().json()
    }

    pub(crate) fn tasks(&self, topic: &str) -> Vec<Value> {
        self.get(&format!("/api/v1/tasks?topic={topic}&limit=1000"))["items"].as_array().expect("items").clone()
    }

    pub(crate) fn task(&self, topic: &str, partition: i32) -> Value {
        self.get(&format!("/api/v1/tasks/{topic}/{partition}"))
    }

    pub(crate) fn status(&self, topic: &str) -> Value {
        self.get(&format!("/api/v1/topics/{topic}"))["status"].clone()
    }

    /// Waits until each of the topic's tasks waits, for the reason that is asked for.
    pub(crate) fn await_waiting(&self, topic: &str, reason: impl Fn(&str) -> bool) {
        let fits = |task: &Value| task["state"] == "waiting" && task["reason"]["code"].as_str().is_some_and(&reason);
        wait_until(&format!("every task of {topic} waits"), SOON, || {
            let tasks = self.tasks(topic);
            (!tasks.is_empty() && tasks.iter().all(fits)).then_some(())
        });
    }

    /// Every dead letter.
    fn letters(&self) -> Vec<Value> {
        let mut letters = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/api/v1/dead-letters?limit=1000{cursor}"));
            letters.extend(page["items"].as_array().expect("items").iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return letters,
            }
        }
    }
}

fn sums(tasks: &[Value], field: &str) -> u64 {
    tasks.iter().map(|task| task[field].as_u64().unwrap_or_else(|| panic!("no {field} in {task}"))).sum()
}

/// Items whose source contains `text` fail, as an index of this state would make them.
fn rule(text: &str, status: u16, error_type: &str, reason: &str) -> ItemRule {
    ItemRule { containing: text.to_owned(), status, error_type: error_type.to_owned(), reason: reason.to_owned() }
}

#[test]
fn a_record_that_is_missing_doubled_or_under_another_id_is_named() {
    let mut world = World::new(&[("orders", 3), ("app_log", 2)]);
    world.configure("[{topic: orders, format: json}, {topic: app_log, format: text, index: 'logs-{topic}'}]");
    // Half of it is there before the start.
    world.produce_numbers("orders", 0..300);
    let lines = |from: usize| (from..from + 50).map(|number| format!("line {number} with \"quotes\" and \u{1F980}"));
    world.produce("app_log", 0, lines(0));
    let app = world.start();
    world.produce_numbers("orders", 300..600);
    world.produce("app_log", 1, lines(50));
    let orders = world.await_caught_up(&app, "orders");
    let app_log = world.await_caught_up(&app, "app_log");

    let documents = world.stub.documents();
    let expected: BTreeSet<(String, String)> = {
        let orders = world.broker.ids("orders").into_iter().map(|id| ("orders".to_owned(), id));
        orders.chain(world.broker.ids("app_log").into_iter().map(|id| ("logs-app_log".to_owned(), id))).collect()
    };
    assert_eq!(documents.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for ((index, id), document) in &documents {
        assert_eq!(document.writes, 1, "{id}");
        let value = world.broker.value(id).expect("no tombstone");
        if index == "orders" {
            assert_eq!(document.source.as_bytes(), value, "{id}");
            continue;
        }
        let source: Value = serde_json::from_str(&document.source).expect("JSON");
        let (place, offset) = id.rsplit_once(':').expect("an id");
        assert_eq!(source["message"].as_str().map(str::as_bytes), Some(value), "{id}");
        assert_eq!(format!("{}:{}", source["kafka"]["topic"].as_str().expect("a topic"), source["kafka"]["partition"]), place);
        assert_eq!(source["kafka"]["offset"].to_string(), offset);
    }

    assert_eq!((&orders["state"], &orders["health"], &orders["partitions"]), (&"running".into(), &"ok".into(), &3.into()));
    assert_eq!((&orders["indexed_total"], &orders["dead_lettered_total"], &orders["skipped_total"]), (&600.into(), &0.into(), &0.into()));
    assert_eq!((&app_log["indexed_total"], &app_log["restarts_total"]), (&100.into(), &0.into()));
    for task in app.tasks("orders") {
        assert_eq!((&task["state"], &task["incarnation"], &task["restarts_total"]), (&"running".into(), &1.into(), &0.into()), "{task}");
        assert_eq!((&task["position"], &task["committed"], &task["high_watermark"]), (&200.into(), &200.into(), &200.into()), "{task}");
        assert_eq!((&task["lag_seconds"], &task["retried_total"], &task["lost_total"]), (&0.0.into(), &0.into(), &0.into()), "{task}");
    }
    assert_eq!(app.get("/api/v1/tasks")["items"].as_array().map(Vec::len), Some(5));
    assert_eq!(app.get("/healthz")["status"], "ok");
    assert_eq!(world.stop(app).0, End::Clean);
    let log = world.log.text();
    let loud: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    assert!(loud.is_empty(), "a run in which nothing went wrong warns: {loud:#?}");
}

#[test]
fn answers_that_were_cut_after_the_documents_were_applied_double_nothing() {
    let mut world = World::new(&[("orders", 2), ("stream", 1)]);
    world.configure("[{topic: orders, format: json}, {topic: stream, format: json, operation: create}]");
    world.stub.script(|request| match request.number {
        0 => stub::Answer::CutAfterApply,
        1 => stub::Answer::CutMidway,
        2 => stub::Answer::ShortBy(1),
        _ => stub::Answer::Normal,
    });
    world.produce_numbers("orders", 0..200);
    world.produce_numbers("stream", 0..100);
    let app = world.start();
    let orders = world.await_caught_up(&app, "orders");
    let stream = world.await_caught_up(&app, "stream");
    assert_eq!((world.indexed("orders"), world.indexed("stream")), (world.broker.ids("orders"), world.broker.ids("stream")));
    assert!(world.stub.item_count() > 300, "the script made nothing be sent again");
    for ((_, id), document) in world.stub.documents() {
        assert_eq!(document.source.as_bytes(), world.broker.value(&id).expect("no tombstone"));
        assert!(document.writes == 1 || id.starts_with("orders"), "{id} was created {} times", document.writes);
    }
    let retried = sums(&app.tasks("orders"), "retried_total") + sums(&app.tasks("stream"), "retried_total");
    assert!(retried > 0);
    for (status, records) in [(orders, 200), (stream, 100)] {
        assert_eq!((&status["indexed_total"], &status["dead_lettered_total"], &status["restarts_total"]), (&records.into(), &0.into(), &0.into()));
    }
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_start_before_all_time_is_the_beginning() {
    let mut world = World::new(&[("orders", 2)]);
    world.configure("[{topic: orders, format: json, start: '0001-01-01T00:00:00Z'}]");
    world.produce_numbers("orders", 0..20);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    assert_eq!(world.indexed("orders"), world.broker.ids("orders"));
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_mapping_error_of_one_record_stops_neither_its_batch_nor_its_partition() {
    let mut world = World::new(&[("orders", 1)]);
    world.configure("[{topic: orders, format: json}]");
    world.stub.script(|_| stub::Answer::item_error("poison", 400, "document_parsing_exception", "failed to parse field [n]"));
    world.produce_numbers("orders", 0..20);
    world.produce("orders", 0, [r#"{"n":"poison"}"#]);
    world.produce_numbers("orders", 21..50);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    world.produce_numbers("orders", 50..60);
    let status = world.await_caught_up(&app, "orders");

    let mut alive = world.broker.ids("orders");
    alive.remove("orders:0:20");
    assert_eq!(world.indexed("orders"), alive);
    assert_eq!((&status["dead_lettered_total"], &status["skipped_total"], &status["health"]), (&1.into(), &0.into(), &"ok".into()));
    let task = app.task("orders", 0);
    assert_eq!((&task["committed"], &task["restarts_total"]), (&60.into(), &0.into()));

    let letters = app.letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = app.get("/api/v1/dead-letters/orders:0:20");
    assert_eq!(letter, letters[0]);
    assert_eq!(
        (&letter["topic"], &letter["partition"], &letter["offset"], &letter["index"]),
        (&"orders".into(), &0.into(), &20.into(), &"orders".into())
    );
    assert_eq!((&letter["cause"], &letter["error"]["status"]), (&"rejected".into(), &400.into()));
    assert_eq!((&letter["error"]["type"], &letter["error"]["reason"]), (&"document_parsing_exception".into(), &"failed to parse field [n]".into()));
    assert_eq!(letter["payload_base64"], STANDARD.encode(r#"{"n":"poison"}"#));
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_dead_letter_that_is_redriven_is_one_document_and_no_letter_any_more() {
    let mut world = World::new(&[("orders", 1), ("others", 1)]);
    world.configure("[{topic: orders, format: json}, {topic: others, format: json}]");
    world.stub.script(|_| stub::Answer::item_error("poison", 400, "document_parsing_exception", "failed to parse field [n]"));
    world.produce("orders", 0, [r#"{"n":"poison 0"}"#, r#"{"n":"poison 1"}"#, r#"{"n":2}"#]);
    world.produce("others", 0, [r#"{"n":"poison 0"}"#]);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    world.await_caught_up(&app, "others");
    assert_eq!(app.letters().len(), 3);

    // Still refused: the letter says when it was tried.
    assert_eq!(app.post("/api/v1/dead-letters/orders:0:0/redrive", "").status, 202);
    let tried = wait_until("the try that failed is told", SOON, || {
        Some(app.get("/api/v1/dead-letters/orders:0:0")).filter(|letter| !letter["redriven_at"].is_null())
    });
    assert_eq!((&tried["attempts"], &tried["redriven_at"]), (&2.into(), &tried["last_at"]));

    world.stub.heal();
    let accepted = app.post("/api/v1/dead-letters/redrive?topic=orders", "");
    assert_eq!((accepted.status, accepted.json()["accepted"].as_u64()), (202, Some(2)));
    wait_until("both are gone", SOON, || (app.letters().len() == 1).then_some(()));
    assert_eq!(world.indexed("orders"), world.broker.ids("orders"));
    assert_eq!(app.letters()[0]["id"], "others:0:0");
    assert_eq!(app.send("DELETE", "/api/v1/dead-letters/others:0:0", "").status, 204);
    assert_eq!(app.letters(), Vec::<Value>::new());
    let info = app.get("/api/v1/info");
    let part = info["components"].as_array().and_then(|parts| parts.iter().find(|part| part["name"] == "redrive").cloned());
    assert_eq!(part.map(|part| part["state"].clone()), Some("running".into()));
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_closed_index_parks_its_topic_and_no_other() {
    let mut world = World::new(&[("closed", 2), ("open", 2)]);
    world.configure("[{topic: closed, format: json}, {topic: open, format: json}]");
    world.stub.script(|_| stub::Answer::Items(vec![rule(r#""of":"closed""#, 400, "index_closed_exception", "closed")]));
    world.produce_numbers("closed", 0..400);
    world.produce_numbers("open", 0..400);
    let app = world.start();
    app.await_waiting("closed", |code| code == "index_closed");
    world.produce_numbers("open", 400..800);
    world.await_indexed("open");
    let open = world.await_caught_up(&app, "open");
    assert_eq!((&open["health"], &open["indexed_total"], &open["reason"]), (&"ok".into(), &800.into(), &Value::Null));

    let closed = app.status("closed");
    assert_eq!((&closed["state"], &closed["health"], &closed["reason"]["code"]), (&"waiting".into(), &"degraded".into(), &"index_closed".into()));
    assert!(closed["reason"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("_open")), "{closed}");
    assert_eq!((&closed["indexed_total"], &closed["dead_lettered_total"], &closed["lag"]), (&0.into(), &0.into(), &400.into()));
    for task in app.tasks("closed") {
        assert_eq!((&task["restarts_total"], &task["committed"]), (&0.into(), &Value::Null), "{task}");
    }
    assert_eq!(app.get("/healthz")["status"], "degraded");

    world.stub.heal();
    let closed = world.await_caught_up(&app, "closed");
    assert_eq!(world.indexed("closed"), world.broker.ids("closed"));
    assert_eq!((&closed["indexed_total"], &closed["dead_lettered_total"], &closed["restarts_total"]), (&400.into(), &0.into(), &0.into()));
    assert_eq!(app.letters(), Vec::<Value>::new());
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_sink_that_refuses_everything_for_a_while_costs_no_restart() {
    let mut world = World::new(&[("orders", 2)]);
    world.configure("[{topic: orders, format: json}]");
    world.stub.script(|_| stub::Answer::error(503, "unavailable_shards_exception", "primary shard is not active"));
    world.produce_numbers("orders", 0..500);
    let app = world.start();
    app.await_waiting("orders", |code| code.starts_with("sink_"));
    assert_eq!(app.get("/healthz")["status"], "degraded");
    assert_eq!(world.stub.document_count(), 0);
    world.stub.heal();
    let status = world.await_caught_up(&app, "orders");
    assert_eq!(world.indexed("orders"), world.broker.ids("orders"));
    assert_eq!((&status["restarts_total"], &status["indexed_total"], &status["dead_lettered_total"]), (&0.into(), &500.into(), &0.into()));
    assert!(app.tasks("orders").iter().all(|task| task["incarnation"] == 1 && task["consecutive_failures"] == 0));
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_sink_that_is_away_and_comes_back_costs_no_restart() {
    let mut world = World::new(&[("orders", 2)]);
    world.configure("[{topic: orders, format: json}]");
    let app = world.start();
    world.await_caught_up(&app, "orders");
    let address = world.stub.address();
    world.stub.stop();
    world.produce_numbers("orders", 0..500);
    app.await_waiting("orders", |code| code == "sink_unreachable");
    let sink = wait_until("the sink's row says so", SOON, || {
        let info = app.get("/api/v1/info");
        info["components"].as_array()?.iter().find(|part| part["name"] == "sink" && part["state"] == "waiting").cloned()
    });
    assert_eq!(sink["restarts_total"], 0);
    world.stub = world.runtime().block_on(StubServer::start_at(address));
    let status = world.await_caught_up(&app, "orders");
    assert_eq!(world.indexed("orders"), world.broker.ids("orders"));
    assert_eq!((&status["restarts_total"], &status["indexed_total"]), (&0.into(), &500.into()));
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn brokers_that_are_away_and_come_back_cost_no_restart() {
    let mut world = World::new(&[("orders", 2)]);
    world.configure("[{topic: orders, format: json}]");
    world.produce_numbers("orders", 0..100);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    world.broker.cluster().broker_down(-1).expect("brokers that can be stopped");
    app.await_waiting("orders", |code| code == "kafka_unreachable");
    world.broker.cluster().broker_up(-1).expect("brokers that can be started");
    world.produce_numbers("orders", 100..200);
    world.await_indexed("orders");
    let status = world.await_caught_up(&app, "orders");
    assert_eq!((&status["restarts_total"], &status["indexed_total"]), (&0.into(), &200.into()));
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_task_that_an_operator_restarts_in_the_middle_of_its_work_loses_and_doubles_nothing() {
    let mut world = World::new(&[("orders", 2)]);
    world.configure("[{topic: orders, format: json}]");
    let app = world.start();
    world.await_caught_up(&app, "orders");
    // Applied at once, confirmed late: the restart comes in between.
    world.stub.script(|_| stub::Answer::After(Duration::from_millis(700), Box::new(stub::Answer::Normal)));
    let seen = world.stub.request_count();
    world.produce_numbers("orders", 0..1000);
    wait_until("a request is under way", SOON, || (world.stub.request_count() > seen).then_some(()));
    let before = app.task("orders", 0);
    assert_eq!((&before["incarnation"], &before["restarts_total"]), (&1.into(), &0.into()));
    let answer = app.request("POST", "/api/v1/tasks/orders/0/restart");
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!((&answer.json()["incarnation"], &answer.json()["partition"]), (&2.into(), &0.into()));
    world.stub.heal();

    let status = world.await_caught_up(&app, "orders");
    assert_eq!(world.indexed("orders"), world.broker.ids("orders"));
    // What the first life sent and did not hear of is sent again under the same ids; it is counted once.
    assert_eq!((&status["indexed_total"], &status["dead_lettered_total"], &status["restarts_total"]), (&1000.into(), &0.into(), &1.into()));
    let task = app.task("orders", 0);
    assert_eq!((&task["incarnation"], &task["restarts_total"], &task["consecutive_failures"]), (&2.into(), &1.into(), &0.into()));
    assert_eq!((&task["last_exit"]["cause"], &task["recent_exits"].as_array().map(Vec::len)), (&"requested".into(), &Some(1)));
    let other = app.task("orders", 1);
    assert_eq!((&other["incarnation"], &other["restarts_total"], &other["last_exit"]), (&1.into(), &0.into(), &Value::Null));
    assert_eq!(app.request("POST", "/api/v1/tasks/orders/7/restart").status, 404);
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_restarted_topic_restarts_each_of_its_tasks_and_no_other() {
    let mut world = World::new(&[("orders", 3), ("other", 1)]);
    world.configure("[{topic: orders, format: json}, {topic: other, format: json}]");
    world.produce_numbers("orders", 0..300);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    world.await_caught_up(&app, "other");
    let answer = app.request("POST", "/api/v1/topics/orders/restart");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let items = answer.json()["items"].as_array().expect("items").clone();
    let rows: Vec<(i64, u64)> =
        items.iter().map(|row| (row["partition"].as_i64().expect("a number"), row["incarnation"].as_u64().expect("a number"))).collect();
    assert_eq!(rows, [(0, 2), (1, 2), (2, 2)]);
    assert!(items.iter().all(|row| row["error"].is_null()));
    world.produce_numbers("orders", 300..600);
    world.await_indexed("orders");
    let status = world.await_caught_up(&app, "orders");
    assert_eq!((&status["restarts_total"], &status["indexed_total"]), (&3.into(), &600.into()));
    assert_eq!(app.status("other")["restarts_total"], 0);
    assert!(world.stub.documents().values().all(|document| document.writes == 1), "an idle task's restart sent something again");
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_second_start_indexes_nothing_again() {
    let mut world = World::new(&[("orders", 3)]);
    world.configure_with("[{topic: orders, format: json}]", "10s", SHORT_SESSION);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    assert_eq!(app.request("POST", "/api/v1/tasks/orders/1/restart").status, 202);
    world.await_caught_up(&app, "orders");
    // The stop comes while records are on their way, and waits for them.
    world.stub.script(|_| stub::Answer::After(Duration::from_millis(500), Box::new(stub::Answer::Normal)));
    world.produce_numbers("orders", 0..300);
    wait_until("a request is under way", SOON, || (world.stub.request_count() > 0).then_some(()));
    let (end, _) = world.stop(app);
    assert_eq!(end, End::Clean);
    world.stub.heal();
    let sent_before = world.stub.item_count();
    assert_eq!(world.stub.document_count(), sent_before, "what was taken was sent once and settled");

    world.produce_numbers("orders", 300..360);
    let app = world.start();
    world.await_indexed("orders");
    world.await_caught_up(&app, "orders");
    assert_eq!(world.stub.item_count(), 360, "something was sent again");
    assert!(world.stub.documents().values().all(|document| document.writes == 1));
    assert!(app.tasks("orders").iter().all(|task| task["committed"] == 120));
    // Counts are kept over restarts of the process.
    let restarts: Vec<Value> = app.tasks("orders").iter().map(|task| task["restarts_total"].clone()).collect();
    assert_eq!(restarts, [0, 1, 0]);
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_second_instance_on_the_same_data_dir_is_refused_and_the_first_goes_on() {
    let mut world = World::new(&[("orders", 1)]);
    world.configure("[{topic: orders, format: json}]");
    let first = world.start();
    let error = world.ended(world.launch()).expect_err("the folder is in use");
    assert_eq!(error.exit_code(), 1);
    let text = drover::causes::chain(&error);
    let data_dir = world.folder.path().join("data");
    assert!(text.contains(&data_dir.display().to_string()) && text.contains("another drover uses this data_dir"), "{text}");
    world.produce_numbers("orders", 0..10);
    world.await_indexed("orders");
    assert_eq!(world.stop(first).0, End::Clean);
}

#[test]
fn a_stop_with_an_unreachable_sink_ends_in_time_and_names_what_is_left() {
    let mut world = World::new(&[("orders", 1), ("idle", 1)]);
    world.configure_with("[{topic: orders, format: json}, {topic: idle, format: json}]", "3s", SHORT_SESSION);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    world.await_caught_up(&app, "idle");
    let address = world.stub.address();
    world.stub.stop();
    world.produce_numbers("orders", 0..50);
    app.await_waiting("orders", |code| code == "sink_unreachable");
    let (end, took) = world.stop(app);
    assert_eq!(end, End::Leftovers);
    // The deadline is the application's, the rest is for a busy machine.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let log = world.log.text();
    let named: Vec<&str> = log.lines().filter(|line| line.contains("could be settled in time")).collect();
    assert!(named.len() == 1 && named[0].contains("orders/0"), "{named:?}");

    world.stub = world.runtime().block_on(StubServer::start_at(address));
    let app = world.start();
    world.await_indexed("orders");
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn topics_that_come_while_the_group_is_joined_do_not_end_the_process() {
    let mut world = World::new(&[("first", 1)]);
    world.broker.delay_the_first_join(3000);
    // The mock cluster lets members that join again wait for the session timeout less a second.
    world.configure_with("[{topic: first, format: json}]", "10s", SHORT_SESSION);
    let app = world.start();
    wait_until("the first topic is looked up", SOON, || (app.status("first")["partitions"] == 1).then_some(()));
    // Created now, so that the member has no metadata of them.
    for topic in ["second", "third"] {
        world.broker.create_topic(topic, 1);
        assert_eq!(app.put(&format!("/api/v1/topics/{topic}"), r#"{"format": "json"}"#).status, 201);
    }
    for topic in ["first", "second", "third"] {
        world.produce_numbers(topic, 0..10);
        world.await_indexed(topic);
    }
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_rewind_reads_the_same_documents_again_and_a_forward_one_is_counted() {
    let mut world = World::new(&[("orders", 2)]);
    world.configure("[{topic: orders, format: json}]");
    let app = world.start();
    world.produce_numbers("orders", 0..40);
    world.await_caught_up(&app, "orders");
    assert_eq!(world.indexed("orders"), world.broker.ids("orders"));

    let body = r#"{"to": {"offset": 5}, "partitions": [1]}"#;
    let planned = app.post("/api/v1/topics/orders/rewind?dry_run=true", body);
    assert_eq!((planned.status, &planned.json()["items"][0]["records"]), (200, &15.into()), "{}", planned.text());
    let done = app.post("/api/v1/topics/orders/rewind", body);
    assert_eq!((done.status, done.json()), (202, planned.json()));
    wait_until("the records were read again", SOON, || (app.task("orders", 1)["indexed_total"] == 35).then_some(()));
    assert_eq!((app.task("orders", 0)["indexed_total"].clone(), app.task("orders", 1)["restarts_total"].clone()), (20.into(), 0.into()));
    world.await_caught_up(&app, "orders");
    assert_eq!(world.indexed("orders"), world.broker.ids("orders"));

    // Past records that come while the topic is paused.
    assert_eq!(app.put("/api/v1/topics/orders/pause", "{}").status, 200);
    wait_until("the tasks have stopped", SOON, || (app.task("orders", 0)["state"] == "paused").then_some(()));
    assert_eq!(app.task("orders", 1)["indexed_total"], 35, "a paused task forgot what it had indexed");
    world.produce_numbers("orders", 40..60);
    let skipped = app.post("/api/v1/topics/orders/rewind", r#"{"to": "latest"}"#);
    let rows = skipped.json()["items"].as_array().cloned().unwrap_or_default();
    assert!(rows.len() == 2 && rows.iter().all(|row| row["records"] == -10 && row["error"].is_null()), "{}", skipped.text());
    assert_eq!(app.request("DELETE", "/api/v1/topics/orders/pause").status, 204);
    world.produce_numbers("orders", 60..62);
    wait_until("what comes later is indexed", SOON, || (world.indexed("orders").len() == 42).then_some(()));
    let status = app.status("orders");
    assert_eq!((&status["skipped_total"], &status["lag"]), (&20.into(), &0.into()), "{status}");
    let changes = app.get("/api/v1/changes?topic=orders");
    let actions: Vec<&str> = changes["items"].as_array().expect("items").iter().filter_map(|change| change["action"].as_str()).collect();
    assert_eq!(actions, ["resume", "rewind", "pause", "rewind"]);
    assert_eq!(world.stop(app).0, End::Clean);
}

#[test]
fn a_record_refused_under_on_reject_stop_fails_its_task_and_no_other() {
    let mut world = World::new(&[("strict", 2), ("orders", 1)]);
    world.configure("[{topic: strict, format: json, on_reject: stop}, {topic: orders, format: json}]");
    world.stub.script(|_| stub::Answer::item_error("poison", 400, "document_parsing_exception", "failed to parse field [n]"));
    let app = world.start();
    world.await_caught_up(&app, "strict");
    world.produce("strict", 0, [r#"{"n":0}"#, r#"{"n":"poison"}"#, r#"{"n":2}"#]);
    let task = wait_until("the task has failed", SOON, || Some(app.task("strict", 0)).filter(|task| task["state"] == "failed"));
    assert_eq!((&task["health"], &task["reason"]["code"]), (&"down".into(), &"rejected".into()));
    let message = task["reason"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("offset 1") && message.contains("document_parsing_exception"), "{message}");
    assert!(task["committed"].as_i64().unwrap_or(0) <= 1, "the refused record was committed: {task}");
    assert_eq!(app.request("GET", "/healthz").status, 503);

    world.produce("strict", 1, (0..20).map(|number| format!(r#"{{"n":{number}}}"#)));
    world.produce_numbers("orders", 0..20);
    world.await_indexed("orders");
    wait_until("the other partition goes on", SOON, || (app.task("strict", 1)["committed"] == 20).then_some(()));
    assert_eq!(app.task("strict", 1)["state"], "running");
    let task = app.task("strict", 0);
    assert_eq!((&task["state"], &task["restarts_total"]), (&"failed".into(), &0.into()), "a failed task was restarted by itself");
    assert_eq!(app.letters(), Vec::<Value>::new());

    // The mapping is corrected, and an operator says so.
    world.stub.heal();
    assert_eq!(app.request("POST", "/api/v1/tasks/strict/0/restart").status, 202);
    let status = world.await_caught_up(&app, "strict");
    assert_eq!(world.indexed("strict"), world.broker.ids("strict"));
    assert_eq!((&status["indexed_total"], &status["restarts_total"]), (&23.into(), &1.into()));
    assert_eq!(world.stop(app).0, End::Clean);
}

/// How many hostile values there are; they are the same in each run.
const HOSTILE: usize = 3000;

/// Values that a producer of a `json` topic might send by accident or on purpose; `None` is a tombstone.
fn hostile(random: &mut StdRng, number: usize) -> Option<Vec<u8>> {
    const DOCUMENTS: [&str; 5] = [
        r#"{"a":1}"#,
        r#" {"text":"\u0000\ud83e\udd80 \\ \" /","list":[1,2.5e-3,null,true,{}]} "#,
        "{\n  \"pretty\": \"printed\",\r\n  \"list\": [\n    1\n  ]\n}\n",
        "{\"line\":\"separators \u{2028}\u{2029}\u{85} and \u{feff}\"}",
        r#"{"a":{"b":{"c":"d"}},"a":"twice","_id":"mine","_index":"stolen"}"#,
    ];
    const INJECTIONS: [&str; 6] = [
        "{\"a\":1}\n{\"index\":{\"_index\":\"stolen\",\"_id\":\"1\"}}\n{\"b\":2}",
        "{\"a\":1}\r\n{\"delete\":{\"_index\":\"json\",\"_id\":\"json:0:0\"}}\r\n{}",
        "{\"index\":{\"_index\":\"stolen\",\"_id\":\"2\"}}\n{\"b\":2}\n",
        "}\n{\"create\":{\"_index\":\"stolen\",\"_id\":\"3\"}}\n{",
        "\n\n{\"a\":1}\n\n",
        "{\"update\":{\"_id\":\"json:0:0\",\"_index\":\"stolen\"}}",
    ];
    let document = DOCUMENTS.choose(random).expect("documents").as_bytes();
    let bytes = |random: &mut StdRng, most: usize| {
        let mut bytes = vec![0; random.random_range(0..most)];
        random.fill_bytes(&mut bytes);
        bytes
    };
    let value = match number % 12 {
        0 => bytes(random, 300),
        1 => [b"{".as_slice(), &bytes(random, 300), b"}"].concat(),
        2 | 3 => document.to_vec(),
        4 => INJECTIONS.choose(random).expect("injections").as_bytes().to_vec(),
        5 => {
            let depth = random.random_range(1..3000);
            let closed = if random.random_bool(0.5) { depth } else { depth - 1 };
            [r#"{"a":"#.repeat(depth).as_bytes(), b"1", "}".repeat(closed).as_bytes()].concat()
        }
        6 => [b"{\"nul\":\"".as_slice(), &vec![0; random.random_range(1..50)], b"\"}"].concat(),
        7 if random.random_bool(0.5) => return None,
        7 => b" \t\r\n\x0b\0"[..random.random_range(0..7)].to_vec(),
        8 => [b"{\"bytes\":\"".as_slice(), &bytes(random, 20), b"\"}"].concat(),
        9 => document[..random.random_range(0..document.len())].to_vec(),
        10 => {
            let mut changed = document.to_vec();
            let place = random.random_range(0..changed.len());
            changed[place] ^= 1 << random.random_range(0..8);
            changed
        }
        _ => [bytes(random, 3), document.to_vec(), bytes(random, 3)].concat(),
    };
    Some(value)
}

/// What has to become of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Indexed,
    /// Dead, with this cause.
    Dead(&'static str),
    Skipped,
}

fn fate(value: Option<&[u8]>) -> Fate {
    let Some(value) = value else { return Fate::Skipped };
    // JSON's white space, to which form feeds do not belong.
    let mut black = value.iter().filter(|byte| !b" \t\r\n".contains(byte));
    if !(black.clone().next() == Some(&b'{') && black.next_back() == Some(&b'}') && value.len() > 1) {
        return Fate::Dead("format");
    }
    // The server's part.
    let is_json = String::from_utf8(one_line(value)).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
    if is_json { Fate::Indexed } else { Fate::Dead("rejected") }
}

fn one_line(value: &[u8]) -> Vec<u8> {
    value.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

#[test]
fn a_record_of_hostile_bytes_that_vanishes_doubles_or_forges_a_document_is_named() {
    let mut world = World::new(&[("json", 3)]);
    world.configure("[{topic: json, format: json}]");
    world.stub.forget_requests();
    let mut random = StdRng::seed_from_u64(20_260_131);
    let mut values: [Vec<Option<Vec<u8>>>; 3] = Default::default();
    for number in 0..HOSTILE {
        let value = hostile(&mut random, number);
        values[number % 3].push(value);
    }
    // A megabyte that is a document, one that is not, and one that is no object; zeros compress, so that the cluster keeps them.
    let megabyte = "0".repeat(1_000_000);
    values[0].push(Some(format!(r#"{{"large":"{megabyte}"}}"#).into_bytes()));
    values[1].push(Some(format!("{{{megabyte}\n}}").into_bytes()));
    values[2].push(Some(megabyte.into_bytes()));
    for (partition, values) in (0..).zip(values) {
        world.produce_any("json", partition, values);
    }

    let app = world.start();
    let status = world.await_caught_up(&app, "json");
    let documents = world.stub.documents();
    let letters: BTreeMap<String, Value> =
        app.letters().into_iter().map(|letter| (letter["id"].as_str().expect("an id").to_owned(), letter)).collect();
    let ids = world.broker.ids("json");
    assert_eq!(ids.len(), HOSTILE + 3);

    let mut counts = [0_u64; 3];
    for id in &ids {
        let value = world.broker.value(id);
        let document = documents.get(&("json".to_owned(), id.clone()));
        let letter = letters.get(id);
        let shown = || String::from_utf8_lossy(&value.unwrap_or_default()[..value.unwrap_or_default().len().min(200)]).into_owned();
        match fate(value) {
            Fate::Indexed => {
                counts[0] += 1;
                assert!(letter.is_none(), "{id} is dead: {:?}", shown());
                let document = document.unwrap_or_else(|| panic!("{id} is not indexed: {:?}", shown()));
                assert_eq!(document.source.as_bytes(), one_line(value.expect("a value")), "{id}");
            }
            Fate::Dead(cause) => {
                counts[1] += 1;
                assert!(document.is_none(), "{id} is indexed: {:?}", shown());
                let letter = letter.unwrap_or_else(|| panic!("{id} is not dead: {:?}", shown()));
                let value = value.expect("a value");
                assert_eq!((&letter["cause"], &letter["payload_bytes"]), (&cause.into(), &value.len().into()), "{id}: {:?}", shown());
                let kept = STANDARD.decode(letter["payload_base64"].as_str().expect("a payload")).expect("base64");
                assert_eq!(kept, value[..value.len().min(4096)], "{id}");
            }
            Fate::Skipped => {
                counts[2] += 1;
                assert!(document.is_none() && letter.is_none(), "{id} is a tombstone");
            }
        }
    }
    // Nothing exists that no record asked for.
    assert_eq!((documents.len() as u64, letters.len() as u64), (counts[0], counts[1]));
    assert!(counts.iter().all(|count| *count > 50), "the generator is lopsided: {counts:?}");
    assert_eq!(
        (&status["indexed_total"], &status["dead_lettered_total"], &status["skipped_total"]),
        (&counts[0].into(), &counts[1].into(), &counts[2].into())
    );
    assert_eq!((&status["restarts_total"], &status["lost_total"]), (&0.into(), &0.into()));
    assert_eq!(world.stop(app).0, End::Clean);
}

/// Failpoints belong to the process, so this test has one of its own; it needs no server, since the consumer thread crashes before it meets one.
#[cfg(feature = "failpoints")]
#[test]
fn a_consumer_thread_that_panics_is_built_again_and_ends_nothing_else() {
    use crate::harness::drover::Drover;

    let config = "kafka: {brokers: ['127.0.0.1:1']}\nelasticsearch: {urls: ['http://127.0.0.1:1']}\nsupervision: {shutdown_timeout: 10s}\ntopics: [{topic: orders}]\n";
    let mut drover = Drover::start(config, &[("FAILPOINTS", "poll=2*panic(injected)")]);
    let part = drover.wait_for("the consumer was built again twice", SOON, |drover| {
        let info = drover.get("/api/v1/info");
        let part = info["components"].as_array()?.iter().find(|part| part["name"] == "kafka")?.clone();
        (part["restarts_total"] == 2 && part["state"] != "backoff").then_some(part)
    });
    assert_eq!((&part["last_exit"]["cause"], &part["last_exit"]["message"]), (&"panicked".into(), &"injected".into()), "{part}");
    assert_eq!(drover.request("GET", "/livez", &[], None).status, 200);
    let info = drover.get("/api/v1/info");
    for other in info["components"].as_array().expect("components").iter().filter(|part| part["name"] != "kafka") {
        assert_eq!(other["restarts_total"], 0, "{other}");
    }
    assert!(drover.terminate(Duration::from_secs(15)).success());
}
