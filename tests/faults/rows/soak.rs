//! The long run: faults of the other rows in an order that a seed makes, one or two at a time, and after each of them everything must come back by itself.
//!
//! Two instances share the topics. One lives through everything that happens to the servers, and its memory is measured; the other is killed, stopped and made to crash besides. The schedule is drawn before anything
//! happens and depends on the seed alone; how far a run gets depends on the machine. The first breach ends the run, so that the last step that was printed is the one to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::http;
use crate::harness::kafka::try_committed_watch;
use crate::harness::producer::{Ledger, Producer, Record};
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::wait::try_wait_until;
use crate::run::{CAUGHT_UP, Ending, Load, Row, Run, SOON, Setup, Topic, both, rows, send};

use super::process::port_of;
use super::sources::listed;

/// Its number in the matrix.
pub(crate) const NUMBER: u32 = 70;

pub(super) const ROWS: &[Row] = &[Row { number: NUMBER, name: "random faults of all kinds for an hour", is_quick: false, run: soak }];

/// How long, unless `SOAK` names other minutes. The matrix has a day.
const MINUTES: u32 = 60;
/// What memory may rise by, over the measured part of the run, on the line through all samples: pages that the allocator keeps for a while move a single sample by more than that.
const MOST_RISE_BYTES: f64 = (24 << 20) as f64;
/// The first part of the run warms up and is not measured.
const WARM_UP: f64 = 1.0 / 3.0;
/// Topics that come and go.
const GUESTS: usize = 4;
/// Partitions of the topic that grows.
const MOST_PARTITIONS: i32 = 16;
/// After a long fault, everything that was produced meanwhile, on two busy cores.
const RECOVERED: Duration = Duration::from_secs(180);

/// For how long a soak was asked for.
pub(crate) fn minutes() -> Option<u32> {
    let text = std::env::var("SOAK").ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("SOAK={text}: {error}")))
}

/// What a connection is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Kafka,
    Elasticsearch,
    Etcd,
}

/// What happens, and ends after a while.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// SIGKILL of the second instance, whose next life has these failpoints.
    Killed(&'static str),
    /// SIGSTOP of the second instance.
    Paused,
    /// SIGTERM of the second instance, which is started again.
    Stopped,
    /// SIGKILL of a server, which is started again.
    ServerKilled(Server),
    /// SIGSTOP of a server.
    ServerPaused(Server),
    /// All connections of both instances to a server.
    Connections(Server, Mode),
    /// The setting of an index that makes it take nothing.
    IndexBlocked(&'static str),
    IndexClosed,
    /// etcd forgets what a watch may still want.
    Compacted,
    /// A topic comes or goes through the API.
    Guest(usize),
    /// The same around us.
    GuestAround(usize),
    /// A topic gets two more partitions.
    Grown,
}

impl Fault {
    /// Two faults at one time have different targets.
    fn target(self) -> &'static str {
        match self {
            Self::Killed(_) | Self::Paused | Self::Stopped => "us",
            Self::ServerKilled(Server::Kafka) | Self::ServerPaused(Server::Kafka) | Self::Connections(Server::Kafka, _) => "Kafka",
            Self::ServerKilled(Server::Elasticsearch)
            | Self::ServerPaused(Server::Elasticsearch)
            | Self::Connections(Server::Elasticsearch, _)
            | Self::IndexBlocked(_)
            | Self::IndexClosed => "Elasticsearch",
            Self::ServerKilled(Server::Etcd) | Self::ServerPaused(Server::Etcd) | Self::Connections(Server::Etcd, _) | Self::Compacted => "etcd",
            Self::Guest(_) | Self::GuestAround(_) | Self::Grown => "topics",
        }
    }

    fn draw(rng: &mut StdRng) -> Self {
        let server = [Server::Kafka, Server::Elasticsearch, Server::Etcd][rng.random_range(0..3)];
        match rng.random_range(0..20) {
            0..3 => {
                Self::Killed(["", "", "partition_task=60*off->1*panic(boom)->off", "poll=400*off->1*panic(poll boom)->off"][rng.random_range(0..4)])
            }
            3 => Self::Paused,
            4 => Self::Stopped,
            5..7 => Self::ServerKilled(server),
            7..9 => Self::ServerPaused(server),
            9..13 => Self::Connections(
                server,
                [
                    Mode::Cut,
                    Mode::BlackHole,
                    Mode::HalfOpen,
                    Mode::Truncate(rng.random_range(0..2_000)),
                    Mode::Delay(Duration::from_millis(rng.random_range(50..2_000))),
                    Mode::Slow(rng.random_range(20_000..200_000)),
                ][rng.random_range(0..6)],
            ),
            13 => Self::IndexBlocked(["index.blocks.write", "index.blocks.read_only", "index.blocks.read_only_allow_delete"][rng.random_range(0..3)]),
            14 => Self::IndexClosed,
            15 => Self::Compacted,
            16..18 => Self::Guest(rng.random_range(0..GUESTS)),
            18 => Self::GuestAround(rng.random_range(0..GUESTS)),
            _ => Self::Grown,
        }
    }
}

/// One step of the schedule.
#[derive(Debug, Clone, Copy)]
struct Step {
    first: Fault,
    second: Option<Fault>,
    lasts: Duration,
}

impl Step {
    fn draw(rng: &mut StdRng) -> Self {
        let first = Fault::draw(rng);
        let second = Fault::draw(rng);
        let is_double = rng.random_bool(0.4) && second.target() != first.target();
        Self { first, second: is_double.then_some(second), lasts: Duration::from_millis(rng.random_range(500..12_000)) }
    }

    fn faults(self) -> impl DoubleEndedIterator<Item = Fault> {
        std::iter::once(self.first).chain(self.second)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.first)?;
        if let Some(second) = self.second {
            write!(f, " and {second:?}")?;
        }
        write!(f, " for {:.1} s", self.lasts.as_secs_f32())
    }
}

/// What one look at a process found.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    resident_bytes: f64,
    threads: usize,
    open_files: usize,
}

impl Sample {
    fn of(drover: &Drover, since: Instant) -> Self {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", drover.id())).map_or(0, Iterator::count);
        Self {
            seconds: since.elapsed().as_secs_f64(),
            resident_bytes: drover.resident_bytes() as f64,
            threads: count("task"),
            open_files: count("fd"),
        }
    }
}

/// Bytes a second, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.seconds), mean(|sample| sample.resident_bytes));
    let (above, below) = samples.iter().fold((0.0, 0.0), |(above, below), sample| {
        let from_mean = sample.seconds - x;
        (above + from_mean * (sample.resident_bytes - y), below + from_mean * from_mean)
    });
    if below == 0.0 { 0.0 } else { above / below }
}

/// The stage of the run.
struct Soak<'run, 'servers> {
    run: &'run mut Run<'servers>,
    etcd: Etcd,
    proxies: [Proxy; 3],
    setup: Setup,
    steady: Drover,
    other: Drover,
    /// Lives of the other instance that were told to crash once.
    crashes: u64,
    blocked: Topic,
    grown: Topic,
    guests: Vec<Topic>,
    wanted: BTreeSet<usize>,
    producer: Producer,
    to_grown: Ledger,
    sent: i32,
    happened: BTreeMap<String, usize>,
}

fn soak(run: &mut Run<'_>) {
    let span = Duration::from_secs(u64::from(minutes().unwrap_or(MINUTES)) * 60);
    let mut schedule = StdRng::seed_from_u64(run.rng.random());
    let (main, blocked, grown) = (run.topic("main", 6), run.topic("blocked", 3), run.topic("grown", 2));
    let guests: Vec<Topic> = (0..GUESTS).map(|number| run.topic(&format!("guest{number}"), 2)).collect();
    let etcd = Etcd::start(Version::System, &[]);
    let proxies = [run.servers.kafka.proxy(), Proxy::before(port_of(&run.servers.elasticsearch.url())), Proxy::before(port_of(&etcd.url()))];
    run.servers.elasticsearch.create_index(&blocked.name, &json!({}));
    let label = run.label.clone();
    let setup = Setup {
        bootstrap: proxies[0].address(),
        sink: proxies[1].url(),
        sink_options: ", bulk: {timeout: 10s}".to_owned(),
        more: format!(
            "etcd: {{endpoints: [\"{}\"], prefix: drover}}\ndead_letters: {{index: {label}-letters}}\nlimits: {{memory: 64MiB}}\nsupervision: {{backoff_max: 5s}}",
            proxies[2].url()
        ),
        ..Setup::new(run, &[&main, &blocked, &grown])
    };
    let (steady, other) = (run.start(&setup), run.start(&setup));
    for topic in [&main, &blocked] {
        run.observe(&setup.group, topic);
    }
    let loads = [Load::paced(run, &main, 15), Load::paced(run, &blocked, 5)];
    let producer = Producer::new(&run.servers.kafka);
    let mut soak = Soak {
        run,
        etcd,
        proxies,
        setup,
        steady,
        other,
        crashes: 0,
        blocked,
        grown,
        guests,
        wanted: BTreeSet::new(),
        producer,
        to_grown: Ledger::default(),
        sent: 0,
        happened: BTreeMap::new(),
    };
    let began = Instant::now();
    let mut samples = Vec::new();
    let mut steps = 0;
    soak.recover(&main);
    while began.elapsed() < span && soak.is_unbroken() {
        let step = Step::draw(&mut schedule);
        steps += 1;
        println!("  {:5.0} s, step {steps}: {step}", began.elapsed().as_secs_f32());
        soak.carry_out(step);
        soak.recover(&main);
        samples.push(Sample::of(&soak.steady, began));
    }
    soak.run.notes.push(format!("{steps} steps in {:.0} minutes: {}", began.elapsed().as_secs_f32() / 60.0, counted(&soak.happened)));
    soak.judge_samples(&samples);
    soak.end(&main, loads);
}

fn counted(happened: &BTreeMap<String, usize>) -> String {
    let each: Vec<String> = happened.iter().map(|(what, count)| format!("{count} {what}")).collect();
    each.join(", ")
}

impl Soak<'_, '_> {
    fn is_unbroken(&self) -> bool {
        self.run.evidence.claims.values().all(Vec::is_empty)
    }

    fn proxy(&self, server: Server) -> &Proxy {
        &self.proxies[server as usize]
    }

    /// Lets the faults begin, last and end; whoever is not the target calls itself alive all the while.
    fn carry_out(&mut self, step: Step) {
        for fault in step.faults() {
            *self.happened.entry(fault.kind()).or_default() += 1;
            self.begin(fault);
        }
        let is_ours_hit = step.faults().any(|fault| fault.target() == "us");
        let urls: Vec<String> = std::iter::once(self.steady.url()).chain((!is_ours_hit).then(|| self.other.url())).collect();
        let mut dead = None;
        let _ = try_wait_until(step.lasts, || {
            dead = urls.iter().find_map(|url| {
                let answer = http::send("GET", &format!("{url}/livez"), &[], None);
                (!answer.as_ref().is_ok_and(|answer| answer.status == 200)).then(|| format!("{url}/livez: {answer:?}"))
            });
            dead.is_some().then_some(())
        });
        self.run.claim("I10", dead.is_none(), || format!("through the faults of others it did not call itself alive: {dead:?}"));
        // What needs the servers for its end comes after their return.
        let mut ends: Vec<Fault> = step.faults().collect();
        ends.sort_by_key(|fault| !matches!(fault, Fault::ServerKilled(_) | Fault::ServerPaused(_) | Fault::Connections(..)));
        for fault in ends {
            self.end_fault(fault);
        }
    }

    fn begin(&mut self, fault: Fault) {
        let servers = self.run.servers;
        match fault {
            Fault::Killed(failpoints) => {
                self.run.kill(&mut self.other);
                let environment = if failpoints.is_empty() { Vec::new() } else { vec![("FAILPOINTS", failpoints)] };
                self.other.set_environment(&environment);
                // A panic of the consumer thread is no task's restart.
                self.crashes += u64::from(failpoints.starts_with("partition_task"));
                self.other.restart_without_waiting();
            }
            Fault::Paused => self.other.pause(),
            Fault::Stopped => {
                self.other.signal(libc::SIGTERM);
            }
            Fault::ServerKilled(server) => {
                self.run.counts.kills += 1;
                match server {
                    Server::Kafka => servers.kafka.kill(),
                    Server::Elasticsearch => servers.elasticsearch.kill(),
                    Server::Etcd => self.etcd.kill(),
                }
            }
            Fault::ServerPaused(Server::Kafka) => servers.kafka.pause(),
            Fault::ServerPaused(Server::Elasticsearch) => servers.elasticsearch.pause(),
            Fault::ServerPaused(Server::Etcd) => self.etcd.pause(),
            Fault::Connections(server, mode) => self.proxy(server).set(mode),
            Fault::IndexBlocked(setting) => servers.elasticsearch.put_settings(&self.blocked.name, &json!({ setting: true })),
            Fault::IndexClosed => servers.elasticsearch.close_index(&self.blocked.name),
            Fault::Compacted => self.etcd.compact(),
            Fault::Guest(number) => {
                self.turn(number);
                self.ask(number);
            }
            Fault::GuestAround(number) => {
                self.turn(number);
                let key = format!("drover/topics/{}", self.guests[number].name);
                // Under another fault it may fail; then the API does it afterwards.
                let _ = if self.wanted.contains(&number) {
                    self.etcd.try_put(&key, br#"{"format": "json"}"#)
                } else {
                    self.etcd.try_etcdctl(&["del", &key], None).map(|_| ())
                };
            }
            Fault::Grown => {}
        }
    }

    fn end_fault(&mut self, fault: Fault) {
        let servers = self.run.servers;
        match fault {
            Fault::Killed(_) | Fault::Compacted | Fault::Guest(_) | Fault::GuestAround(_) => {}
            Fault::Paused => self.other.resume(),
            Fault::Stopped => {
                let status = self.other.wait_end(Duration::from_secs(27));
                // 1 is said with leftovers, which a sink that is away explains.
                self.run.claim("I11", status.is_some_and(|status| matches!(status.code(), Some(0 | 1))), || format!("after SIGTERM: {status:?}"));
                self.other.set_environment(&[]);
                self.other.restart_without_waiting();
            }
            Fault::ServerKilled(Server::Kafka) => servers.kafka.start_again(),
            Fault::ServerKilled(Server::Elasticsearch) => servers.elasticsearch.start_again(),
            Fault::ServerKilled(Server::Etcd) => self.etcd.start_again(),
            Fault::ServerPaused(Server::Kafka) => servers.kafka.resume(),
            Fault::ServerPaused(Server::Elasticsearch) => servers.elasticsearch.resume(),
            Fault::ServerPaused(Server::Etcd) => self.etcd.resume(),
            Fault::Connections(server, _) => self.proxy(server).set(Mode::Pass),
            Fault::IndexBlocked(setting) => servers.elasticsearch.put_settings(&self.blocked.name, &json!({ setting: Value::Null })),
            Fault::IndexClosed => servers.elasticsearch.open_index(&self.blocked.name),
            Fault::Grown => {
                if self.grown.partitions < MOST_PARTITIONS {
                    self.grown.partitions += 2;
                    servers.kafka.add_partitions(&self.grown.name, self.grown.partitions as usize);
                }
                // By a producer of its own: one that lives long learns of them late.
                self.send_to_grown();
            }
        }
    }

    /// A topic comes or goes, with records for it at the same time.
    fn turn(&mut self, number: usize) {
        if !self.wanted.remove(&number) {
            self.wanted.insert(number);
        }
        let first = self.sent;
        self.sent += 200;
        let name = self.guests[number].name.clone();
        send(&self.producer, &mut self.run.rng, &name, 2, first..first + 200);
        // No object: dead, cause `format`.
        self.producer.send(Record::new(&name, format!("no JSON {first}").as_bytes()).to(0));
    }

    fn send_to_grown(&mut self) {
        let producer = Producer::new(&self.run.servers.kafka);
        let first = self.sent;
        self.sent += 600;
        send(&producer, &mut self.run.rng, &self.grown.name, self.grown.partitions, first..first + 600);
        producer.flush();
        self.to_grown = both(std::mem::take(&mut self.to_grown), producer.ledger());
    }

    /// Asks one of the two for what is wanted of a guest; whether that is so now.
    fn ask(&mut self, number: usize) -> bool {
        let path = format!("/api/v1/topics/{}", self.guests[number].name);
        let is_wanted = self.wanted.contains(&number);
        let answer = if is_wanted {
            self.steady.try_request("PUT", &path, Some(&json!({"format": "json"})))
        } else {
            self.steady.try_request("DELETE", &path, None)
        };
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let is_honest = matches!((is_wanted, status), (true, 200 | 201) | (false, 204 | 404) | (_, 503 | 504));
        self.run.claim("I10", is_honest, || format!("{path}, wanted: {is_wanted}: {answer:?}"));
        matches!(status, 200 | 201 | 204 | 404)
    }

    /// Everything comes back by itself: both instances, the wanted topics, and what was produced until now is committed.
    fn recover(&mut self, main: &Topic) {
        let ended = self.other.wait_end(Duration::ZERO);
        self.run.claim("I7", ended.is_none(), || format!("the instance has ended by itself: {ended:?}"));
        let (steady, other) = (self.steady.url(), self.other.url());
        for url in [&steady, &other] {
            self.run.wait("I7", &format!("{url} is ready"), RECOVERED, || {
                http::send("GET", &format!("{url}/readyz"), &[], None).ok().filter(|answer| answer.status == 200)
            });
        }
        // The last resort, for which no fault of a server is a reason.
        let rebuilt = self.steady.get("/api/v1/events?kind=consumer_rebuilt");
        let is_none = rebuilt["items"].as_array().is_some_and(Vec::is_empty);
        self.run.claim("I7", is_none, || format!("the consumer was built again: {rebuilt}"));
        let deadline = Instant::now() + RECOVERED;
        for number in 0..GUESTS {
            while !self.ask(number) && self.is_unbroken() {
                let late = Instant::now() > deadline;
                self.run.claim("I9", !late, || format!("no change is taken for {RECOVERED:?}"));
                let _ = try_wait_until::<()>(Duration::from_millis(200), || None);
            }
        }
        let guests = self.wanted.iter().map(|number| &self.guests[*number]);
        let topics: Vec<Topic> = [main, &self.blocked, &self.grown].into_iter().chain(guests).cloned().collect();
        let expected: BTreeSet<String> = topics.iter().map(|topic| topic.name.clone()).collect();
        for drover in [&self.steady, &self.other] {
            self.run.wait("I9", &format!("{} lists {expected:?}", drover.url()), CAUGHT_UP, || (listed(drover)? == expected).then_some(()));
        }
        let kafka = &self.run.servers.kafka;
        for topic in &topics {
            let ends = kafka.end_offsets(&topic.name);
            let mut committed = try_committed_watch(&kafka.client(), &self.setup.group, &topic.name, SOON);
            self.run.wait("I7", &format!("{} is committed up to {ends:?}", topic.name), RECOVERED, || {
                let committed = committed().ok()?;
                ends.iter().all(|(partition, end)| committed.get(partition).copied().unwrap_or(0) >= *end).then_some(())
            });
        }
    }

    /// The line through the samples of the instance that lived through everything does not rise, nor do its threads and open files.
    fn judge_samples(&mut self, samples: &[Sample]) {
        let from = samples.last().map_or(0.0, |last| last.seconds * WARM_UP);
        let measured: Vec<Sample> = samples.iter().filter(|sample| sample.seconds >= from).copied().collect();
        let (Some(first), Some(last)) = (measured.first(), measured.last()) else { return };
        let slope = slope(&measured);
        let rise = slope * (last.seconds - first.seconds);
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        self.run.notes.push(format!(
            "memory of the instance that lived through all: {:.0} MiB after the warm-up, {:.0} MiB at the end, slope {:+.1} MiB an hour over {} samples; {} and {} threads, {} and {} open files",
            mebibytes(first.resident_bytes),
            mebibytes(last.resident_bytes),
            mebibytes(slope * 3_600.0),
            measured.len(),
            first.threads,
            last.threads,
            first.open_files,
            last.open_files
        ));
        self.run.claim("I8", rise <= MOST_RISE_BYTES, || format!("memory rises: {:+.1} MiB over {} samples", mebibytes(rise), measured.len()));
        // Connections come and go; a leak of one for each fault would be more.
        let is_even = |first: usize, last: usize| last <= first + 20;
        self.run.claim("I8", is_even(first.threads, last.threads), || format!("{} threads, then {}", first.threads, last.threads));
        self.run.claim("I8", is_even(first.open_files, last.open_files), || format!("{} open files, then {}", first.open_files, last.open_files));
    }

    /// All topics are wanted again, and the promise was kept for every record of the whole time.
    fn end(mut self, main: &Topic, loads: [Load; 2]) {
        self.wanted = (0..GUESTS).collect();
        self.recover(main);
        let topics: Vec<Topic> = [main, &self.blocked, &self.grown].into_iter().chain(&self.guests).cloned().collect();
        let [of_main, of_blocked] = loads.map(Load::end);
        self.producer.flush();
        let restarts = |drover: &Drover| -> u64 {
            topics.iter().flat_map(|topic| rows(drover, &topic.name)).filter_map(|row| row["restarts_total"].as_u64()).sum()
        };
        let counted = restarts(&self.other);
        self.run.claim("I7", counted <= self.crashes, || {
            format!("{counted} task restarts of the instance that was made to crash {} times", self.crashes)
        });
        self.run.notes.push(format!("{counted} task restarts where {} lives were told to crash once", self.crashes));
        let status = self.other.terminate(Duration::from_secs(27));
        self.run.claim("I11", status.code() == Some(0), || format!("the other instance: {status}"));
        let ledger = both(both(of_main, of_blocked), both(self.producer.ledger(), self.to_grown));
        let all: Vec<&Topic> = topics.iter().collect();
        self.run.finish(self.steady, &Ending { group: &self.setup.group, topics: &all, ledger: &ledger, restarts: 0..=0 });
    }
}

impl Fault {
    /// For counting.
    fn kind(self) -> String {
        match self {
            Self::Killed("") => "SIGKILL of us".to_owned(),
            Self::Killed(_) => "SIGKILL of us, and a panic in the next life".to_owned(),
            Self::Paused => "SIGSTOP of us".to_owned(),
            Self::Stopped => "SIGTERM of us".to_owned(),
            Self::ServerKilled(server) => format!("SIGKILL of {server:?}"),
            Self::ServerPaused(server) => format!("SIGSTOP of {server:?}"),
            Self::Connections(server, _) => format!("broken connections to {server:?}"),
            Self::IndexBlocked(_) | Self::IndexClosed => "blocked indices".to_owned(),
            Self::Compacted => "compactions".to_owned(),
            Self::Guest(_) | Self::GuestAround(_) => "topics added or removed".to_owned(),
            Self::Grown => "times more partitions".to_owned(),
        }
    }
}
