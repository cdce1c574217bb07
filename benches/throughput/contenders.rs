//! Who is measured, and how: a process of its own, from the first to the last bulk request.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::Plan;
use crate::endpoint::Endpoint;
use crate::harness::drover::Drover;
use crate::harness::kafka::Kafka;
use crate::harness::process::{Process, RunFolder, User};
use crate::harness::wait::wait_until;
use crate::rungs;

/// Bytes of a bulk request, for everybody.
pub const BULK_BYTES: usize = 8 * 1024 * 1024;
/// Far more than any contender needs for the default plan.
const RUN_WITHIN: Duration = Duration::from_secs(900);

/// One contender.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Drover,
    /// This program again, as `rung NAME`.
    Rung(&'static str),
}

/// What one run cost.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// From the first to the last bulk request; of a rung that sends nothing, from the first to the last record.
    pub seconds: f64,
    /// User and system time of the process when the last document had arrived.
    pub cpu_seconds: f64,
    /// Its most resident memory.
    pub peak_bytes: u64,
    /// Bulk requests.
    pub bulks: u64,
    /// Documents that arrived.
    pub documents: u64,
    /// What the broker used meanwhile.
    pub broker_cpu_seconds: f64,
    /// What this process, which is the endpoint, used meanwhile.
    pub endpoint_cpu_seconds: f64,
}

/// Everybody, in the order of a round.
pub fn all() -> Vec<Contender> {
    vec![
        Contender { name: "R0 librdkafka, counts only", kind: Kind::Rung(rungs::COUNT) },
        Contender { name: "R2 R0 + bodies + POST", kind: Kind::Rung(rungs::SEND) },
        Contender { name: "R3 R2 with records one by one", kind: Kind::Rung(rungs::POLL) },
        Contender { name: "drover", kind: Kind::Drover },
    ]
}

/// Reads everything once.
pub fn warm_up() -> Contender {
    Contender { name: "warm-up", kind: Kind::Rung(rungs::COUNT) }
}

/// Runs one contender once over the whole topic.
pub fn run(contender: Contender, plan: &Plan, kafka: &Kafka, endpoint: &Endpoint, round: usize) -> Outcome {
    endpoint.reset();
    let before = (kafka.cpu_seconds(), own_cpu_seconds());
    let (seconds, cpu_seconds, peak_bytes) = match contender.kind {
        Kind::Drover => run_drover(plan, kafka, endpoint, round),
        Kind::Rung(rung) => run_rung(rung, plan, kafka, endpoint),
    };
    Outcome {
        seconds,
        cpu_seconds,
        peak_bytes,
        bulks: endpoint.bulks(),
        documents: endpoint.documents(),
        broker_cpu_seconds: kafka.cpu_seconds() - before.0,
        endpoint_cpu_seconds: own_cpu_seconds() - before.1,
    }
}

fn run_drover(plan: &Plan, kafka: &Kafka, endpoint: &Endpoint, round: usize) -> (f64, f64, u64) {
    let binary = std::env::var_os("DROVER_BENCH_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_drover")), PathBuf::from);
    let config = format!(
        "\
kafka: {{brokers: [\"{}\"], group_id: bench-{round}}}
elasticsearch:
  urls: [\"http://{}\"]
  bulk: {{max_bytes: {BULK_BYTES}}}
topics:
  - {{topic: {}, format: json}}
",
        kafka.bootstrap(),
        endpoint.address(),
        plan.topic
    );
    let mut drover = Drover::launch_binary(&binary, &config, &[("DROVER_LOG", "warn")]);
    drover.wait_for("every record has arrived", RUN_WITHIN, |_| (endpoint.documents() >= plan.records).then_some(()));
    let measured = (endpoint.seconds(), drover.cpu_seconds(), drover.peak_resident_bytes());
    drover.terminate(Duration::from_secs(60));
    measured
}

/// A rung prints the seconds between its first and its last record and then waits to be looked at.
fn run_rung(rung: &str, plan: &Plan, kafka: &Kafka, endpoint: &Endpoint) -> (f64, f64, u64) {
    let folder = RunFolder::new("rung", User::Same);
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command.args(["rung", rung, &kafka.bootstrap(), plan.topic, &plan.partitions.to_string(), &plan.records.to_string(), &endpoint.address()]);
    let mut process = Process::start(&folder, "rung", command);
    let seconds = wait_until("the rung has read everything", RUN_WITHIN, || {
        assert!(process.ended().is_none(), "the rung ended early:\n{}", process.log_tail());
        process.log_tail().lines().find_map(|line| line.strip_prefix(rungs::DONE)?.trim().parse::<f64>().ok())
    });
    let seconds = if endpoint.documents() > 0 { endpoint.seconds() } else { seconds };
    (seconds, process.cpu_seconds(), process.peak_resident_bytes())
}

fn own_cpu_seconds() -> f64 {
    crate::harness::process::cpu_seconds_of(std::process::id())
}
