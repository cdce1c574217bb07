//! `make bench`: how fast, and for how much CPU and memory, records get from a real Kafka to a `_bulk` endpoint that throws them away.
//!
//! Every contender is a process of its own that does the whole job on the same topic and the same endpoint; they take turns in one run, so that a slow minute of the machine hits all of them.
//! The rungs are the price list: a hand-written librdkafka loop that only counts (R0), and one that builds bulk bodies and sends them (R2). drover is judged by its distance from R2.
//!
//! Environment: `DROVER_BENCH_RECORDS` (3000000), `DROVER_BENCH_BYTES` (300), `DROVER_BENCH_PARTITIONS` (12), `DROVER_BENCH_ROUNDS` (3), `DROVER_BENCH_BINARY` (another build of drover),
//! `DROVER_BENCH_ONLY` (one contender).

mod contenders;
mod endpoint;
#[path = "../../tests/harness/mod.rs"]
mod harness;
mod load;
mod rungs;

use std::fmt::Write as _;

use contenders::{Contender, Outcome};
use endpoint::Endpoint;
use harness::kafka::Kafka;

/// The same allocator as drover's, for the rungs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic.
    pub topic: &'static str,
    /// Records in the topic.
    pub records: u64,
    /// Bytes of a record.
    pub bytes: usize,
    /// Partitions of the topic.
    pub partitions: i32,
    /// How often each contender runs.
    pub rounds: usize,
}

impl Plan {
    fn from_environment() -> Self {
        Self {
            topic: "bench",
            records: number("DROVER_BENCH_RECORDS", 3_000_000),
            bytes: number("DROVER_BENCH_BYTES", 300) as usize,
            partitions: i32::try_from(number("DROVER_BENCH_PARTITIONS", 12)).expect("a number of partitions"),
            rounds: number("DROVER_BENCH_ROUNDS", 3) as usize,
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => otherwise,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(position) = arguments.iter().position(|argument| argument == "rung") {
        rungs::run(&arguments[position + 1..]);
        return;
    }
    let plan = Plan::from_environment();
    let contenders = chosen_contenders();
    let kafka = Kafka::start().unwrap_or_else(|reason| panic!("{reason}"));
    kafka.create_topic(plan.topic, plan.partitions);
    let seconds = load::fill(&kafka, &plan);
    println!("{} records of {} bytes in {} partitions, produced in {seconds:.1} s", plan.records, plan.bytes, plan.partitions);

    let endpoint = Endpoint::start();
    // One uncounted pass, so that the first contender does not pay for the page cache.
    contenders::run(contenders::warm_up(), &plan, &kafka, &endpoint, 0);
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); contenders.len()];
    for round in 1..=plan.rounds {
        for (contender, results) in contenders.iter().zip(&mut outcomes) {
            let outcome = contenders::run(*contender, &plan, &kafka, &endpoint, round);
            println!("round {round}  {}", line(contender.name, &plan, std::slice::from_ref(&outcome)));
            results.push(outcome);
        }
    }
    println!("\n{}", HEADER);
    for (contender, results) in contenders.iter().zip(&outcomes) {
        println!("{}", line(contender.name, &plan, results));
    }
    println!("medians, in brackets lowest and highest of {} rounds; CPU is user and system time of the whole process, start included", plan.rounds);
}

fn chosen_contenders() -> Vec<Contender> {
    let all = contenders::all();
    let Ok(only) = std::env::var("DROVER_BENCH_ONLY") else { return all };
    let chosen: Vec<Contender> = all.into_iter().filter(|contender| contender.name.starts_with(&only)).collect();
    assert!(!chosen.is_empty(), "no contender's name starts with {only}");
    chosen
}

const HEADER: &str = "contender                     K events/s                MB/s  CPU-s per million        peak MiB  bulks  records a bulk  broker CPU-s/M  endpoint CPU-s/M";

fn line(name: &str, plan: &Plan, outcomes: &[Outcome]) -> String {
    let millions = plan.records as f64 / 1e6;
    let rate = Spread::of(outcomes, |outcome| plan.records as f64 / outcome.seconds / 1e3);
    let cpu = Spread::of(outcomes, |outcome| outcome.cpu_seconds / millions);
    let peak = Spread::of(outcomes, |outcome| outcome.peak_bytes as f64 / (1024.0 * 1024.0));
    let bulks = Spread::of(outcomes, |outcome| outcome.bulks as f64).median;
    let mut text = String::new();
    let _ = write!(text, "{name:<28}{:>24}{:>8.0}{:>19}{:>16}", rate.text(0), rate.median * 1e3 * plan.bytes as f64 / 1e6, cpu.text(2), peak.text(0));
    let per_bulk = if bulks > 0.0 { plan.records as f64 / bulks } else { 0.0 };
    let broker = Spread::of(outcomes, |outcome| outcome.broker_cpu_seconds / millions).median;
    let endpoint = Spread::of(outcomes, |outcome| outcome.endpoint_cpu_seconds / millions).median;
    let _ = write!(text, "{bulks:>7.0}{per_bulk:>16.0}{broker:>16.2}{endpoint:>18.2}");
    let repeated: u64 = outcomes.iter().map(|outcome| outcome.documents.saturating_sub(plan.records)).sum();
    if repeated > 0 {
        let _ = write!(text, "  {repeated} documents more than records");
    }
    text
}

/// Median, lowest and highest.
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    fn of(outcomes: &[Outcome], value: impl Fn(&Outcome) -> f64) -> Self {
        let mut values: Vec<f64> = outcomes.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], lowest: values[0], highest: values[values.len() - 1] }
    }

    fn text(&self, digits: usize) -> String {
        if self.lowest == self.highest {
            return format!("{:.digits$}", self.median);
        }
        format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.lowest, self.highest)
    }
}
