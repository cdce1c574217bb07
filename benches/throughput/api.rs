//! The tables of the API: how fast it answers while ingest has the whole machine, with ten thousand tasks and tokens, beside an axum handler that does nothing; and what streams cost ingest.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::contenders;
use crate::data::{self, DataSet, Filled, JSON_300};
use crate::endpoint::{Content, Endpoint};
use crate::harness::drover::Drover;
use crate::harness::http;
use crate::harness::process::{Process, RunFolder, User, cpu_seconds_of_threads, free_port};
use crate::harness::wait::wait_until;
use crate::latency::quantile;
use crate::machine::Busy;
use crate::options::Options;
use crate::plot::{Bar, Panel};
use crate::report::{self, Section, Spread, Table};
use crate::streams::{self, Streams};
use crate::tasks::{Many, PARTITIONS_OF_A_TOPIC, running};

/// What keeps the machine busy; long enough that it is seldom rewound.
const BACKLOG: DataSet = DataSet { topic: "backlog", records: 12_000_000, ..JSON_300 };
/// The share of the backlog after which it is rewound, so that it never ends.
const REWOUND_AFTER: f64 = 0.8;
const TOKEN: &str = "drover_a_token_of_the_bench_and_of_nothing_else";
const LIST: &str = "/api/v1/tasks?limit=1000";
/// Rows of that list, if there are so many.
const LISTED: usize = 1000;
/// Rounds of requests do not follow each other at once, so that they meet snapshots of every age, and the machine is ingest's.
const ROUND_EVERY: Duration = Duration::from_millis(20);
const RUNNING_WITHIN: Duration = Duration::from_secs(600);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// How many streams are read at once.
const STREAMS: usize = 200;
/// After the backlog has been rewound, before ingest is measured: a phase has no rewind in it, and the backlog does not end in it.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// The first argument of the process that is compared with.
pub const BARE: &str = "bare";

/// Who answers, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    List,
    Unchanged,
    Livez,
    Bare,
}

const ASKED: [Ask; 4] = [Ask::List, Ask::Unchanged, Ask::Livez, Ask::Bare];

/// Serves `ok` under `/` until it is killed: an axum handler and nothing else, as [axum's first example](https://docs.rs/axum/latest/axum/#example) has it.
pub fn serve_bare(arguments: &[String]) {
    let port: u16 = arguments.first().and_then(|port| port.parse().ok()).expect("bare PORT");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("a free port");
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "ok" }));
        axum::serve(listener, router).await.expect("no error of the listener");
    });
}

/// Everybody of a run.
struct Stage<'a> {
    drover: Drover,
    bare: Process,
    bare_port: u16,
    endpoint: &'a Endpoint,
    backlog: Filled,
    tasks: usize,
    _folder: RunFolder,
}

/// Runs both tables, over the topics that the table of many tasks has as well.
pub fn run(options: &Options, many: &Many, endpoint: &Endpoint) {
    let topics = options.pick(1_000, 50);
    let backlog = data::fill(&many.kafka, BACKLOG, options.records(BACKLOG.records).max(options.pick(1, 3_000_000)));
    let stage = Stage::start(many, topics, backlog, endpoint);
    let is_over = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        scope.spawn(|| keep_reading(&stage, &is_over));
        let _over = Over(&is_over);
        wait_until("the backlog is read", RUNNING_WITHIN, || (endpoint.documents() > backlog.records / 10).then_some(()));
        answers(&stage, many, options)
    });
    let streams = streams(&stage, many, options);
    report::publish(&answers_section(&answers, &stage, options), options);
    report::publish(&streams_section(&streams, &stage, options), options);
}

impl<'a> Stage<'a> {
    fn start(many: &Many, topics: usize, backlog: Filled, endpoint: &'a Endpoint) -> Self {
        endpoint.reset(Content::Whole);
        let folder = RunFolder::new("api", User::Same);
        let hash: String = Sha256::digest(TOKEN).iter().map(|byte| format!("{byte:02x}")).collect();
        let tokens = folder.write("tokens.yaml", &format!("tokens:\n  - {{name: bench, role: write, sha256: \"{hash}\"}}\n"));
        let config = format!(
            "kafka: {{brokers: [\"{}\"], group_id: api}}\nelasticsearch: {{urls: [\"http://{}\"]}}\nauth: {{tokens_file: {}}}\ntopics:\n{}  - {{topic: {}, format: json}}\n",
            many.kafka.bootstrap(),
            endpoint.address(),
            tokens.display(),
            many.config_of(topics),
            backlog.set.topic
        );
        let bare_port = free_port();
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args([BARE, &bare_port.to_string()]);
        let bare = Process::start(&folder, "bare", command);
        wait_until("the bare handler answers", ANSWERED_WITHIN, || TcpStream::connect((Ipv4Addr::LOCALHOST, bare_port)).ok());
        let tasks = topics * PARTITIONS_OF_A_TOPIC as usize + backlog.set.partitions as usize;
        let mut drover = Drover::launch_binary(&contenders::binary(), &config, &[("DROVER_LOG", "warn")]);
        drover.wait_for(&format!("{tasks} tasks run"), RUNNING_WITHIN, |drover| {
            thread::sleep(Duration::from_millis(500));
            (running(drover) == Some(tasks)).then_some(())
        });
        assert_eq!(drover.request("GET", LIST, &[], None).status, 401, "nobody is let in without a token");
        Self { drover, bare, bare_port, endpoint, backlog, tasks, _folder: folder }
    }

    /// Has the backlog read from its beginning.
    fn rewind(&self) {
        let url = format!("{}/api/v1/topics/{}/rewind", self.drover.url(), self.backlog.set.topic);
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = json!({"to": "earliest"}).to_string().into_bytes();
        http::send("POST", &url, &headers, Some(body)).expect("an answer").ok();
    }

    fn port_of(&self, ask: Ask) -> u16 {
        if ask == Ask::Bare { self.bare_port } else { self.drover.port() }
    }
}

/// Ends the reading, also when something panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Begins with the backlog anew before it ends, until told to stop.
fn keep_reading(stage: &Stage<'_>, is_over: &AtomicBool) {
    let rewound_after = (stage.backlog.records as f64 * REWOUND_AFTER) as u64;
    let mut next = rewound_after;
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
        if stage.endpoint.documents() >= next {
            stage.rewind();
            next = stage.endpoint.documents() + rewound_after;
        }
    }
}

/// A client that can do what is needed here, and costs next to nothing.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What was answered; the body is in the connection's buffer.
struct Answer {
    status: u16,
    tag: Option<String>,
}

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(ANSWERED_WITHIN)).expect("a socket");
        Self { stream, buffer: Vec::new() }
    }

    fn ask(&mut self, path: &str, tag: Option<&str>) -> Answer {
        let condition = tag.map(|tag| format!("If-None-Match: {tag}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\nAccept: */*\r\n{condition}\r\n");
        self.stream.write_all(request.as_bytes()).expect("a request");
        self.buffer.clear();
        let head_end = loop {
            self.read_more();
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_end]).into_owned();
        let header = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while self.buffer.len() < head_end + length {
            self.read_more();
        }
        self.buffer.drain(..head_end);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, tag: header("etag") }
    }

    fn read_more(&mut self) {
        let mut piece = [0; 64 * 1024];
        let read = self.stream.read(&mut piece).expect("an answer");
        assert!(read > 0, "the connection was closed within an answer");
        self.buffer.extend_from_slice(&piece[..read]);
    }
}

/// Seconds of each answer, in no order.
#[derive(Default)]
struct Samples {
    lists: Vec<f64>,
    unchanged: Vec<f64>,
    livez: Vec<f64>,
    bare: Vec<f64>,
    /// Lists that were asked for with the tag of the answer before and had changed since.
    changed: usize,
}

impl Samples {
    fn of(&self, ask: Ask) -> &[f64] {
        match ask {
            Ask::List => &self.lists,
            Ask::Unchanged => &self.unchanged,
            Ask::Livez => &self.livez,
            Ask::Bare => &self.bare,
        }
    }
}

struct Answers {
    kept_alive: Samples,
    new: Samples,
    /// Thousand records per second meanwhile.
    rate: f64,
    foreign: f64,
}

fn answers(stage: &Stage<'_>, many: &Many, options: &Options) -> Answers {
    let rounds = options.pick(2_000, 200);
    let (busy, from, before) = (Busy::begin(&many.kafka, &stage.drover), Instant::now(), stage.endpoint.documents());
    let kept_alive = ask_all(stage, rounds, true);
    let new = ask_all(stage, rounds, false);
    let rate = (stage.endpoint.documents() - before) as f64 / from.elapsed().as_secs_f64() / 1e3;
    Answers { kept_alive, new, rate, foreign: busy.foreign(&many.kafka, &stage.drover) }
}

/// Each round asks everybody once, and begins with another one.
fn ask_all(stage: &Stage<'_>, rounds: usize, is_kept_alive: bool) -> Samples {
    let mut kept = ASKED.map(|ask| Connection::open(stage.port_of(ask)));
    let mut samples = Samples::default();
    let mut tag = None;
    let started = Instant::now();
    for round in 0..rounds {
        thread::sleep((started + ROUND_EVERY * round as u32).saturating_duration_since(Instant::now()));
        for position in 0..ASKED.len() {
            let index = (position + round) % ASKED.len();
            let ask = ASKED[index];
            let asked_at = Instant::now();
            if !is_kept_alive {
                kept[index] = Connection::open(stage.port_of(ask));
            }
            let connection = &mut kept[index];
            let answer = match ask {
                Ask::List => connection.ask(LIST, None),
                Ask::Unchanged => connection.ask(LIST, tag.as_deref()),
                Ask::Livez => connection.ask("/livez", None),
                Ask::Bare => connection.ask("/", None),
            };
            let seconds = asked_at.elapsed().as_secs_f64();
            note(&mut samples, ask, seconds, &answer, &connection.buffer, stage.tasks.min(LISTED));
            tag = answer.tag.or(tag);
        }
    }
    assert!(
        samples.unchanged.len() >= rounds / 3,
        "a list is asked for more often than it changes, and was unchanged {} times",
        samples.unchanged.len()
    );
    samples
}

/// Notes the time of an answer that is what was asked for.
fn note(samples: &mut Samples, ask: Ask, seconds: f64, answer: &Answer, body: &[u8], listed: usize) {
    match ask {
        Ask::List => {
            assert_eq!(answer.status, 200, "{LIST}");
            // Reading all of them would take the machine from ingest.
            if samples.lists.len().is_multiple_of(50) {
                let page: Value = serde_json::from_slice(body).expect("JSON");
                assert_eq!(page["items"].as_array().map(Vec::len), Some(listed), "{LIST}");
            }
            samples.lists.push(seconds);
        }
        Ask::Unchanged if answer.status == 304 => samples.unchanged.push(seconds),
        Ask::Unchanged => samples.changed += 1,
        Ask::Livez => {
            assert_eq!((answer.status, body.trim_ascii()), (200, b"ok".as_slice()), "/livez");
            samples.livez.push(seconds);
        }
        Ask::Bare => {
            assert_eq!((answer.status, body), (200, b"ok".as_slice()), "the bare handler");
            samples.bare.push(seconds);
        }
    }
}

/// What each phase has shown.
struct Phases {
    without: Vec<Phase>,
    with: Vec<Phase>,
    /// Frames that each stream got in a second, and megabytes that all of them had read before the phase.
    frames: f64,
    snapshots_megabytes: f64,
    foreign: f64,
}

struct Phase {
    /// Thousand records per second.
    rate: f64,
    /// Processors that the API's thread and the clients' had.
    processors: f64,
}

fn streams(stage: &Stage<'_>, many: &Many, options: &Options) -> Phases {
    let (pairs, span) = options.pick((20, Duration::from_secs(6)), (2, Duration::from_secs(4)));
    let busy = Busy::begin(&many.kafka, &stage.drover);
    let (mut without, mut with, mut frames, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
    for number in 0..pairs {
        let alone = || {
            stage.rewind();
            thread::sleep(SETTLED_AFTER);
            phase(stage, span)
        };
        let mut beside = || {
            let streams = Streams::open(stage.drover.port(), TOKEN, STREAMS);
            wait_until("every stream has its snapshot", ANSWERED_WITHIN, || (streams.with_snapshot() == STREAMS).then_some(()));
            stage.rewind();
            thread::sleep(SETTLED_AFTER);
            bytes += streams.bytes();
            let before = streams.frames();
            let phase = phase(stage, span);
            let quietest = streams.frames_of_each().into_iter().min();
            assert!(quietest > Some(0) && streams.ended() == 0, "every stream gets frames to its end: {quietest:?}, {} ended", streams.ended());
            frames += streams.frames() - before;
            phase
        };
        // Whoever is second finds the machine as the first left it.
        if number % 2 == 0 {
            without.push(alone());
            with.push(beside());
        } else {
            with.push(beside());
            without.push(alone());
        }
    }
    Phases {
        without,
        with,
        frames: frames as f64 / (STREAMS * pairs) as f64 / span.as_secs_f64(),
        snapshots_megabytes: bytes as f64 / pairs as f64 / 1e6,
        foreign: busy.foreign(&many.kafka, &stage.drover),
    }
}

/// Looks on for a while.
fn phase(stage: &Stage<'_>, span: Duration) -> Phase {
    let used = || cpu_seconds_of_threads(stage.drover.id(), "drover-api") + cpu_seconds_of_threads(std::process::id(), streams::THREAD);
    let (from, before, used_before) = (Instant::now(), stage.endpoint.documents(), used());
    thread::sleep(span);
    let seconds = from.elapsed().as_secs_f64();
    let phase = Phase { rate: (stage.endpoint.documents() - before) as f64 / seconds / 1e3, processors: (used() - used_before) / seconds };
    assert!(phase.rate > 0.0, "ingest stands still");
    phase
}

/// The text of a target and whether it is met, where that can be said.
fn verdict(target: &str, is_met: bool, is_judged: bool) -> String {
    match (is_judged, is_met) {
        (false, _) => target.to_owned(),
        (true, true) => format!("{target}: met"),
        (true, false) => format!("{target}: **missed**"),
    }
}

fn is_judged(foreign: f64, options: &Options) -> bool {
    !options.is_quick && foreign <= report::QUIET
}

fn answers_section(answers: &Answers, stage: &Stage<'_>, options: &Options) -> Section {
    let is_judged = is_judged(answers.foreign, options);
    let mut table = Table::new(&["request", "connections", "p50 ms", "p99 ms", "highest ms", "p99 / bare", "target", "samples"]);
    let mut panel = Panel { title: "Milliseconds: p50, the line from lowest to p99 (less is better)".to_owned(), decimals: 2, bars: Vec::new() };
    for (samples, connections) in [(&answers.kept_alive, "kept alive"), (&answers.new, "new")] {
        let p99_of = |ask| quantile(samples.of(ask), 0.99) * 1e3;
        for (ask, name) in [
            (Ask::List, format!("`GET {LIST}`")),
            (Ask::Unchanged, "the same, 304".to_owned()),
            (Ask::Livez, "`GET /livez`".to_owned()),
            (Ask::Bare, "a bare axum handler".to_owned()),
        ] {
            let seconds = samples.of(ask);
            let (half, p99, ratio) = (quantile(seconds, 0.5) * 1e3, p99_of(ask), p99_of(ask) / p99_of(Ask::Bare));
            let target = match ask {
                Ask::List => verdict("p99 < 15 ms", p99 < 15.0, is_judged),
                Ask::Unchanged => verdict("p99 < 1 ms", p99 < 1.0, is_judged),
                Ask::Livez => verdict("p99 ≤ 2 × bare", ratio <= 2.0, is_judged),
                Ask::Bare => String::new(),
            };
            let label = format!("{}, {connections}", name.replace('`', ""));
            table.row(vec![
                name,
                connections.to_owned(),
                format!("{half:.2}"),
                format!("{p99:.2}"),
                format!("{:.2}", quantile(seconds, 1.0) * 1e3),
                format!("{ratio:.1}"),
                target,
                seconds.len().to_string(),
            ]);
            let value = Spread { median: half, lowest: quantile(seconds, 0.0) * 1e3, highest: p99 };
            panel.bars.push(Bar { label, value, is_ours: ask != Ask::Bare });
        }
    }
    let changed = answers.kept_alive.changed + answers.new.changed;
    let notes = format!(
        "{} tasks, tokens, one broker; {:.0} K events/s were read from a topic of {} partitions meanwhile, which had the processors to themselves otherwise. Every {} ms one request of each kind, one after the other, by a \
         client on the same machine; from before the request, or the connection, to the last byte of the answer. The bare handler is a process of its own that answers `ok` by axum and tokio as they come. The \
         304s are those of {} requests with the tag of the answer before; the other {changed} found another page, since the topic that is read is on it.",
        stage.tasks,
        answers.rate,
        stage.backlog.set.partitions,
        ROUND_EVERY.as_millis(),
        answers.kept_alive.unchanged.len() + answers.new.unchanged.len() + changed,
    );
    Section { name: "api", table, notes, panels: vec![panel], foreign: answers.foreign }
}

fn streams_section(phases: &Phases, stage: &Stage<'_>, options: &Options) -> Section {
    let is_judged = is_judged(phases.foreign, options);
    let rates = |phases: &[Phase]| Spread::of(phases.iter().map(|phase| phase.rate));
    let percents = |phases: &[Phase]| Spread::of(phases.iter().map(|phase| phase.processors * 100.0));
    let (without, with) = (rates(&phases.without), rates(&phases.with));
    let pairs = Spread::of(phases.with.iter().zip(&phases.without).map(|(with, without)| with.rate / without.rate));
    let mut table = Table::new(&["streams", "K events/s", "rate / rate without", "target", "% of a core for streams"]);
    table.row(vec!["0".to_owned(), without.text(0), "1.00".to_owned(), String::new(), percents(&phases.without).text(1)]);
    let target = verdict("≥ 0.95", pairs.median >= 0.95, is_judged);
    table.row(vec![STREAMS.to_string(), with.text(0), pairs.text(2), target, percents(&phases.with).text(1)]);
    let bar = |label: &str, value, is_ours| Bar { label: label.to_owned(), value, is_ours };
    let bars = vec![bar("without streams", without, false), bar(&format!("beside {STREAMS} streams"), with, true)];
    let panel = Panel { title: "Thousand events per second (more is better)".to_owned(), decimals: 0, bars };
    let notes = format!(
        "The same drover. Medians, in brackets lowest and highest of {} phases of each kind by turns; the ratio is that of neighbours. Before each phase the topic is rewound. The last column is what the API's thread and the clients' had of a core; whatever a stream costs is there. All clients read `GET /api/v1/stream` and everything that comes: first a snapshot of {} tasks, together \
         {:.0} MB, which is not in the figures, then {:.1} frames a second each.",
        phases.with.len(),
        stage.tasks,
        phases.snapshots_megabytes,
        phases.frames,
    );
    Section { name: "streams", table, notes, panels: vec![panel], foreign: phases.foreign }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.bare.kill();
    }
}
