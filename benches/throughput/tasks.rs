//! The table of many tasks: what hundreds to ten thousand partitions cost while nothing happens, and what a change of one topic costs beside them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::contenders;
use crate::endpoint::{Content, Endpoint};
use crate::harness::drover::Drover;
use crate::harness::kafka::Kafka;
use crate::harness::wait::wait_until;
use crate::latency::quantile;
use crate::machine::{self, Busy};
use crate::options::Options;
use crate::plot::{Bar, Panel};
use crate::report::{self, Section, Spread, Table};

/// The broker's heap: with the harness's 1 GiB it is short of memory at ten thousand partitions.
const HEAP: &str = "-Xmx2g";
pub const PARTITIONS_OF_A_TOPIC: i32 = 10;
const TOPICS_AT_ONCE: usize = 100;
/// Ten thousand partitions take the broker several minutes beside a compiler.
const CREATED_WITHIN: Duration = Duration::from_secs(900);
const CALL_WITHIN: Duration = Duration::from_secs(5);
const RUNNING_WITHIN: Duration = Duration::from_secs(600);
/// Looking is work for the program too: a page of metrics names every partition.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Requests of each kind, one after the other, each on a connection of its own.
const REQUESTS: usize = 300;

/// What was measured at one size.
struct Row {
    tasks: usize,
    start_seconds: f64,
    start_cpu: f64,
    threads: u64,
    resident: u64,
    peak: u64,
    idle_cpu: f64,
    add: f64,
    remove: f64,
    touched: usize,
    /// Seconds of each answer, in no order.
    lists: Vec<f64>,
    unchanged: Vec<f64>,
    livez: Vec<f64>,
    foreign: f64,
}

/// A broker with the topics of these tables.
#[derive(Debug)]
pub struct Many {
    /// The broker.
    pub kafka: Kafka,
}

impl Many {
    /// Starts the broker and creates its topics, which takes minutes.
    pub fn start(options: &Options) -> Self {
        let kafka = Kafka::start_with_heap(HEAP).unwrap_or_else(|reason| panic!("{reason}"));
        create_topics(&kafka, most_topics(options) + sizes(options).len() + 1);
        Self { kafka }
    }

    /// The first so many of them as lines of a configuration.
    pub fn config_of(&self, topics: usize) -> String {
        (0..topics).map(|number| format!("  - {{topic: {}, format: json}}\n", name(number))).collect()
    }
}

fn sizes(options: &Options) -> &'static [usize] {
    options.pick(&[100, 1_000, 10_000], &[100, 500])
}

fn most_topics(options: &Options) -> usize {
    sizes(options).iter().max().copied().unwrap_or(0) / PARTITIONS_OF_A_TOPIC as usize
}

/// Runs the table.
pub fn run(options: &Options, many: &Many, endpoint: &Endpoint) {
    let (sizes, most) = (sizes(options), most_topics(options));
    // Uncounted: the first group of a new broker waits for the broker's own topics, ten seconds and more on a busy machine.
    measure(many, endpoint, sizes[0], most + sizes.len(), 1);
    let mut rows = Vec::new();
    for (number, tasks) in sizes.iter().enumerate() {
        let row = measure(many, endpoint, *tasks, most + number, options.pick(60, 10));
        println!("{tasks} tasks: all running after {:.1} s, idle {:.1} % of a core", row.start_seconds, row.idle_cpu * 100.0);
        rows.push(row);
    }
    report::publish(&section(&rows, options.pick(60, 10)), options);
}

fn name(number: usize) -> String {
    format!("many.{number:04}")
}

fn create_topics(kafka: &Kafka, count: usize) {
    let admin: AdminClient<DefaultClientContext> = kafka.client().create().expect("an admin client");
    let names: Vec<String> = (0..count).map(name).collect();
    let options = AdminOptions::new().operation_timeout(Some(CREATED_WITHIN)).request_timeout(Some(CREATED_WITHIN));
    let started = Instant::now();
    for some in names.chunks(TOPICS_AT_ONCE) {
        let topics: Vec<NewTopic<'_>> = some.iter().map(|name| NewTopic::new(name, PARTITIONS_OF_A_TOPIC, TopicReplication::Fixed(1))).collect();
        let results = futures::executor::block_on(admin.create_topics(&topics, &options)).expect("an answer");
        for result in results {
            result.expect("a new topic");
        }
    }
    wait_until_served(kafka, &names);
    println!("{count} topics of {PARTITIONS_OF_A_TOPIC} partitions created in {:.0} s", started.elapsed().as_secs_f64());
}

/// The controller answers before the broker serves all of what it has created; until then a new topic "cannot begin yet", which is the broker's time and not drover's.
fn wait_until_served(kafka: &Kafka, names: &[String]) {
    let look_up = || -> BaseConsumer { kafka.client().set("group.id", "bench-look-up").create().expect("a consumer") };
    let mut consumer = look_up();
    for name in names {
        wait_until(&format!("{name} is served"), CREATED_WITHIN, || {
            let served = consumer.fetch_watermarks(name, PARTITIONS_OF_A_TOPIC - 1, CALL_WITHIN);
            if served.is_err() {
                // A client that has once been told of no leader was seen to keep to that for minutes.
                consumer = look_up();
            }
            served.ok()
        });
    }
}

fn measure(many: &Many, endpoint: &Endpoint, tasks: usize, spare: usize, idle_seconds: u64) -> Row {
    endpoint.reset(Content::Whole);
    let kafka = &many.kafka;
    let config = format!(
        "kafka: {{brokers: [\"{}\"], group_id: many-{tasks}-{spare}}}\nelasticsearch: {{urls: [\"http://{}\"]}}\ntopics:\n{}",
        kafka.bootstrap(),
        endpoint.address(),
        many.config_of(tasks / PARTITIONS_OF_A_TOPIC as usize)
    );
    let started = Instant::now();
    let mut drover = Drover::launch_binary(&contenders::binary(), &config, &[("DROVER_LOG", "warn")]);
    wait_for_running(&mut drover, tasks);
    let (start_seconds, start_cpu) = (started.elapsed().as_secs_f64(), drover.cpu_seconds());

    let (busy, before, idle_from) = (Busy::begin(kafka, &drover), drover.cpu_seconds(), Instant::now());
    thread::sleep(Duration::from_secs(idle_seconds));
    let idle_cpu = (drover.cpu_seconds() - before) / idle_from.elapsed().as_secs_f64();
    let foreign = busy.foreign(kafka, &drover);
    let (threads, resident) = (machine::threads_of(drover.id()), machine::resident_bytes_of(drover.id()));

    let lives = lives(&drover);
    assert_eq!(lives.len(), tasks, "the list of tasks is complete");
    let (lists, unchanged, livez) =
        (seconds_of(|| list(&drover)), unchanged(&drover), seconds_of(|| assert_eq!(drover.get_text("/livez").trim(), "ok")));
    let topic = name(spare);
    let add = change(&mut drover, tasks + PARTITIONS_OF_A_TOPIC as usize, |drover| {
        let answer = drover.put(&format!("/api/v1/topics/{topic}"), &json!({"format": "json"}));
        assert_eq!(answer.status, 201, "{}", answer.text());
    });
    let remove = change(&mut drover, tasks, |drover| {
        let answer = drover.delete(&format!("/api/v1/topics/{topic}"));
        assert_eq!(answer.status, 204, "{}", answer.text());
    });
    let after = self::lives(&drover);
    let touched = lives.iter().filter(|(task, life)| after.get(*task) != Some(*life)).count();
    let peak = drover.peak_resident_bytes();
    Row { tasks, start_seconds, start_cpu, threads, resident, peak, idle_cpu, add, remove, touched, lists, unchanged, livez, foreign }
}

const LIST: &str = "/api/v1/tasks?limit=1000";

fn list(drover: &Drover) {
    let answer = drover.request("GET", LIST, &[], None);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn seconds_of(mut ask: impl FnMut()) -> Vec<f64> {
    let timed = |_| {
        let started = Instant::now();
        ask();
        started.elapsed().as_secs_f64()
    };
    (0..REQUESTS).map(timed).collect()
}

/// Of those questions with the tag of the last answer that were answered with 304.
fn unchanged(drover: &Drover) -> Vec<f64> {
    let mut tag = String::new();
    let mut seconds = Vec::new();
    for _ in 0..2 * REQUESTS {
        let started = Instant::now();
        let answer = drover.request("GET", LIST, &[("if-none-match", &tag)], None);
        if answer.status == 304 {
            seconds.push(started.elapsed().as_secs_f64());
        }
        tag = answer.headers["etag"].to_str().expect("a tag").to_owned();
    }
    assert!(seconds.len() >= REQUESTS / 3, "an idle list is unchanged most of the time, and was {} times", seconds.len());
    seconds
}

/// Seconds from a change to its being in force.
fn change(drover: &mut Drover, tasks: usize, make: impl FnOnce(&Drover)) -> f64 {
    let started = Instant::now();
    make(drover);
    wait_for_running(drover, tasks);
    started.elapsed().as_secs_f64()
}

fn wait_for_running(drover: &mut Drover, tasks: usize) {
    let mut look_at = Instant::now();
    drover.wait_for(&format!("{tasks} tasks run"), RUNNING_WITHIN, |drover| {
        if Instant::now() < look_at {
            return None;
        }
        let count = running(drover);
        look_at = Instant::now() + LOOK_EVERY;
        (count == Some(tasks)).then_some(())
    });
}

/// How many tasks run; `None` while the process does not answer yet.
pub fn running(drover: &Drover) -> Option<usize> {
    let answer = drover.try_request("GET", "/metrics", None).ok()?;
    let metrics = answer.text();
    let line = metrics.lines().find(|line| line.starts_with("drover_tasks{state=\"running\"}"))?;
    line.rsplit(' ').next()?.parse::<f64>().ok().map(|count| count as usize)
}

/// What of a task changes when it is touched, by topic and partition: its incarnation, and since when it is in its state.
fn lives(drover: &Drover) -> BTreeMap<(String, i64), (Value, Value)> {
    let mut lives = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let mut page = drover.get(&format!("/api/v1/tasks?limit=1000{cursor}"));
        for task in page["items"].as_array_mut().expect("items") {
            let key = (task["topic"].as_str().expect("a topic").to_owned(), task["partition"].as_i64().expect("a partition"));
            lives.insert(key, (task["incarnation"].take(), task["since_at"].take()));
        }
        let Some(next) = page["next"].as_str() else { return lives };
        cursor = format!("&cursor={next}");
    }
}

fn section(rows: &[Row], idle_seconds: u64) -> Section {
    let mut table = Table::new(&[
        "tasks",
        "all running after s",
        "CPU-s for that",
        "threads",
        "MiB when idle",
        "peak MiB",
        "idle CPU, % of a core",
        "adding a topic, s",
        "removing it, s",
        "other tasks touched",
        "list of 1,000 tasks, ms",
        "the same unchanged (304), ms",
        "/livez, ms",
    ]);
    let latency = |seconds: &[f64]| format!("{:.1} / {:.1}", quantile(seconds, 0.5) * 1e3, quantile(seconds, 0.99) * 1e3);
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for row in rows {
        table.row(vec![
            row.tasks.to_string(),
            format!("{:.1}", row.start_seconds),
            format!("{:.1}", row.start_cpu),
            row.threads.to_string(),
            format!("{:.0}", mebibytes(row.resident)),
            format!("{:.0}", mebibytes(row.peak)),
            format!("{:.1}", row.idle_cpu * 100.0),
            format!("{:.1}", row.add),
            format!("{:.1}", row.remove),
            row.touched.to_string(),
            latency(&row.lists),
            latency(&row.unchanged),
            latency(&row.livez),
        ]);
    }
    let panel = |title: &str, decimals: usize, value: &dyn Fn(&Row) -> f64| Panel {
        title: title.to_owned(),
        decimals,
        bars: rows.iter().map(|row| Bar { label: format!("{} tasks", row.tasks), value: Spread::of([value(row)]), is_ours: true }).collect(),
    };
    let panels = vec![
        panel("Memory when idle, MiB", 0, &|row| mebibytes(row.resident)),
        panel("Threads", 0, &|row| row.threads as f64),
        panel("Idle CPU, % of a core", 1, &|row| row.idle_cpu * 100.0),
        panel("Adding a topic, seconds", 1, &|row| row.add),
    ];
    let notes = format!(
        "One run each. One broker (`{HEAP}`), topics of {PARTITIONS_OF_A_TOPIC} empty partitions, one drover, nobody else in its group. Idle: the mean of {idle_seconds} s. Added and removed is one topic of \
         {PARTITIONS_OF_A_TOPIC} partitions, through the API; the metrics are looked at every {} ms, so times are that exact, and the looking is in them. Touched is a task whose incarnation or state changed. The last columns are median / 99th percentile of {REQUESTS} requests, one after the other, each \
         on a new connection, while nothing is indexed.",
        LOOK_EVERY.as_millis()
    );
    let foreign = rows.iter().map(|row| row.foreign).fold(0.0, f64::max);
    Section { name: "tasks", table, notes, panels, foreign }
}
