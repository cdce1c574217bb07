//! Who is measured, and how: a process of its own, from the first to the last bulk request.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::data::Filled;
use crate::endpoint::{Content, Endpoint};
use crate::harness::drover::Drover;
use crate::harness::kafka::Kafka;
use crate::harness::process::{Process, RunFolder, User, cpu_seconds_of};
use crate::harness::wait::wait_until;
use crate::machine::{self, Ticks};
use crate::peers::{self, Peer};
use crate::rungs;

/// Bytes of a bulk request, for everybody.
pub const BULK_BYTES: usize = 8 * 1024 * 1024;
/// Far more than any contender needs for a whole run.
const RUN_WITHIN: Duration = Duration::from_secs(900);
/// Settling, committing and leaving the group after the last record.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// One contender.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Drover {
        format: &'static str,
        compression: &'static str,
    },
    /// This program again, as `rung NAME`.
    Rung(&'static str),
    Peer(&'static Peer),
}

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Records of the topic.
    pub records: u64,
    /// From the first to the last bulk request; of a rung that sends nothing, from the first to the last record.
    pub seconds: f64,
    /// User and system time of the process when the last document had arrived, start included.
    pub cpu_seconds: f64,
    /// Its most resident memory.
    pub peak_bytes: u64,
    /// The most threads that were seen.
    pub threads: u64,
    /// Bulk requests.
    pub bulks: u64,
    /// Bytes of their bodies as sent.
    pub body_bytes: u64,
    /// What the broker used meanwhile.
    pub broker_cpu_seconds: f64,
    /// What this process, which is the endpoint, used meanwhile.
    pub endpoint_cpu_seconds: f64,
    /// The share of the machine that others used meanwhile, and that was stolen from it.
    pub foreign: f64,
}

impl Outcome {
    /// Thousands of records per second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds / 1e3
    }

    /// CPU seconds per million records.
    pub fn cpu(&self) -> f64 {
        self.cpu_seconds / self.millions()
    }

    /// Millions of records.
    pub fn millions(&self) -> f64 {
        self.records as f64 / 1e6
    }
}

/// A rung by its name in the tables.
pub const fn rung(name: &'static str, rung: &'static str) -> Contender {
    Contender { name, kind: Kind::Rung(rung) }
}

/// drover with one format and one compression of bodies, by its name in the tables.
pub const fn drover(name: &'static str, format: &'static str, compression: &'static str) -> Contender {
    Contender { name, kind: Kind::Drover { format, compression } }
}

/// Somebody else's program.
pub const fn peer(peer: &'static Peer) -> Contender {
    Contender { name: peer.name, kind: Kind::Peer(peer) }
}

/// The reference: what the other rows are divided by.
pub const R2: Contender = rung("R2: R1, and sends them", rungs::SEND);

/// The path of the program under test: `DROVER_BENCH_BINARY`, else the one that was built with this bench.
pub fn binary() -> PathBuf {
    std::env::var_os("DROVER_BENCH_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_drover")), PathBuf::from)
}

/// Runs one contender once over a whole topic. Panics unless exactly the topic's records have arrived, where the contender sends them unchanged.
pub fn run(contender: Contender, filled: &Filled, kafka: &Kafka, endpoint: &Endpoint, group: &str) -> Outcome {
    endpoint.reset(content_of(contender));
    let run = Run { filled, kafka, endpoint, broker_before: kafka.cpu_seconds(), own_before: machine::own_cpu_seconds(), ticks: Ticks::now() };
    let outcome = match contender.kind {
        Kind::Drover { format, compression } => run_drover(&run, format, compression, group),
        Kind::Rung(rung) => run_rung(&run, rung),
        Kind::Peer(peer) => run_peer(&run, peer, group),
    };
    // Only now that the contender has ended: what it sends twice would have come until here.
    check(contender, filled, endpoint);
    outcome
}

/// One run, and the clocks at its beginning.
struct Run<'a> {
    filled: &'a Filled,
    kafka: &'a Kafka,
    endpoint: &'a Endpoint,
    broker_before: f64,
    own_before: f64,
    ticks: Ticks,
}

impl Run<'_> {
    /// What it has cost until this moment, in which the last record has arrived.
    fn outcome(&self, id: u32, peak_bytes: u64, threads: u64) -> Outcome {
        let cpu_seconds = cpu_seconds_of(id);
        let broker_cpu_seconds = self.kafka.cpu_seconds() - self.broker_before;
        let endpoint_cpu_seconds = machine::own_cpu_seconds() - self.own_before;
        Outcome {
            records: self.filled.records,
            seconds: self.endpoint.seconds(),
            cpu_seconds,
            peak_bytes,
            threads,
            bulks: self.endpoint.bulks(),
            body_bytes: self.endpoint.bytes(),
            broker_cpu_seconds,
            endpoint_cpu_seconds,
            foreign: self.ticks.foreign_share(cpu_seconds + broker_cpu_seconds + endpoint_cpu_seconds),
        }
    }

    fn is_done(&self) -> Option<()> {
        (self.endpoint.documents() >= self.filled.records).then_some(())
    }
}

fn content_of(contender: Contender) -> Content {
    match contender.kind {
        Kind::Drover { format: "text", .. } => Content::Field(r#""message":""#),
        Kind::Drover { format: "classic", .. } => Content::Field(r#""Log":""#),
        _ => Content::Whole,
    }
}

fn check(contender: Contender, filled: &Filled, endpoint: &Endpoint) {
    let sends = !matches!(contender.kind, Kind::Rung(rungs::COUNT | rungs::BUILD));
    let expected = if sends { filled.records } else { 0 };
    let (name, topic, arrived) = (contender.name, filled.set.topic, endpoint.documents());
    assert_eq!(arrived, expected, "{name}: the endpoint has not as many documents as {topic} has records; no figure is worth anything");
    let is_unchanged = !matches!(contender.kind, Kind::Peer(peer) if peer.encodes_again);
    if sends && is_unchanged {
        assert_eq!(endpoint.checksum(), filled.checksum, "{name}: what arrived is not what {topic} holds; no figure is worth anything");
    }
}

fn run_drover(run: &Run<'_>, format: &str, compression: &str, group: &str) -> Outcome {
    let config = format!(
        "\
kafka: {{brokers: [\"{}\"], group_id: {group}}}
elasticsearch:
  urls: [\"http://{}\"]
  bulk: {{max_bytes: {BULK_BYTES}, compression: {compression}}}
topics:
  - {{topic: {}, format: {format}}}
",
        run.kafka.bootstrap(),
        run.endpoint.address(),
        run.filled.set.topic
    );
    let mut drover = Drover::launch_binary(&binary(), &config, &[("DROVER_LOG", "warn")]);
    let mut threads = 0;
    drover.wait_for("every record has arrived", RUN_WITHIN, |drover| {
        threads = threads.max(machine::threads_of(drover.id()));
        run.is_done()
    });
    let outcome = run.outcome(drover.id(), drover.peak_resident_bytes(), threads);
    drover.terminate(STOPPED_WITHIN);
    outcome
}

/// A rung prints the seconds between its first and its last record and then waits to be looked at.
fn run_rung(run: &Run<'_>, rung: &str) -> Outcome {
    let folder = RunFolder::new("rung", User::Same);
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    let (partitions, records) = (run.filled.set.partitions.to_string(), run.filled.records.to_string());
    command.args(["rung", rung, &run.kafka.bootstrap(), run.filled.set.topic, &partitions, &records, &run.endpoint.address()]);
    let mut process = Process::start(&folder, "rung", command);
    let mut threads = 0;
    let seconds = wait_until("the rung has read everything", RUN_WITHIN, || {
        assert!(process.ended().is_none(), "the rung ended early:\n{}", process.log_tail());
        threads = threads.max(machine::threads_of(process.id()));
        process.log_tail().lines().find_map(|line| line.strip_prefix(rungs::DONE)?.trim().parse::<f64>().ok())
    });
    let outcome = run.outcome(process.id(), process.peak_resident_bytes(), threads);
    let sends_nothing = matches!(rung, rungs::COUNT | rungs::BUILD);
    Outcome { seconds: if sends_nothing { seconds } else { outcome.seconds }, ..outcome }
}

fn run_peer(run: &Run<'_>, peer: &Peer, group: &str) -> Outcome {
    let folder = RunFolder::new("peer", User::Same);
    let command = peers::command(peer, &folder, run.kafka, run.endpoint, run.filled.set.topic, group);
    let mut process = Process::start(&folder, "peer", command);
    let mut threads = 0;
    wait_until(&format!("{} has sent every record", peer.name), RUN_WITHIN, || {
        assert!(process.ended().is_none(), "{} ended early:\n{}", peer.name, process.log_tail());
        threads = threads.max(machine::threads_of(process.id()));
        run.is_done()
    });
    let outcome = run.outcome(process.id(), process.peak_resident_bytes(), threads);
    // Some never end by themselves; they have nothing left to do.
    process.terminate(Duration::from_secs(5));
    outcome
}
