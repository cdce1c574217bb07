//! The tables of throughput: everybody in a table takes turns over the same topics, round after round, so that a slow minute of the machine hits all of them.

use crate::contenders::{self, Contender, Outcome, R2, drover, rung};
use crate::data::{self, DataSet, Filled};
use crate::endpoint::Endpoint;
use crate::harness::kafka::Kafka;
use crate::options::Options;
use crate::peers;
use crate::plot::{Bar, Panel};
use crate::report::{self, Section, Spread, Table};
use crate::rungs;

/// One row: who reads what.
#[derive(Debug, Clone, Copy)]
struct Case {
    set: DataSet,
    contender: Contender,
    target: Target,
}

/// How far from R2 a row may be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    None,
    /// At most so many times R2's CPU.
    Cpu(f64),
    /// The same, and at least this share of its rate.
    CpuAndRate(f64, f64),
    /// At most so many MiB in every round.
    Peak(f64),
}

/// What drover must stay within where it passes records through.
const PASS_THROUGH: Target = Target::CpuAndRate(1.0 / 0.9, 0.9);
/// What it must stay within beside its `limits.memory` of 256 MiB, in MiB, where there are few partitions and where there are a thousand.
const BESIDE_LIMIT: Target = Target::Peak(256.0 + 100.0);
const BESIDE_LIMIT_OF_1000: Target = Target::Peak(256.0 + 256.0);
/// What it must stay within where it writes a new document around each record.
const WRAPPED: Target = Target::Cpu(1.3);

const DROVER_JSON: Contender = drover("drover, json", "json", "off");
const DROVER_AUTO: Contender = drover("drover, auto", "auto", "off");

/// A table of throughput.
struct Ladder {
    name: &'static str,
    cases: Vec<Case>,
    notes: String,
}

fn case(set: DataSet, contender: Contender, target: Target) -> Case {
    Case { set, contender, target }
}

fn usual() -> Vec<Ladder> {
    let main = data::JSON_300;
    let reference = |set| case(set, R2, Target::None);
    let json = |set| case(set, DROVER_JSON, PASS_THROUGH);
    vec![
        Ladder {
            name: "main",
            cases: vec![
                case(main, rung("R0: consumes, counts", rungs::COUNT), Target::None),
                case(main, rung("R1: R0, and builds bodies", rungs::BUILD), Target::None),
                reference(main),
                case(main, rung("R3: R2, records one by one", rungs::POLL), Target::None),
                json(main),
            ],
            notes: String::new(),
        },
        Ladder { name: "sizes", cases: vec![reference(main), json(main), reference(data::JSON_1024), json(data::JSON_1024)], notes: String::new() },
        Ladder {
            name: "compression",
            cases: vec![
                reference(main),
                json(main),
                reference(data::JSON_300_NONE),
                json(data::JSON_300_NONE),
                reference(data::JSON_300_ZSTD),
                json(data::JSON_300_ZSTD),
            ],
            notes: "Compression is the producer's, of the batches in Kafka.".to_owned(),
        },
        Ladder {
            name: "formats",
            cases: vec![
                reference(data::TEXT_200),
                case(data::TEXT_200, drover("drover, text", "text", "off"), WRAPPED),
                case(data::TEXT_200, drover("drover, classic", "classic", "off"), WRAPPED),
                reference(main),
                json(main),
                case(main, DROVER_AUTO, Target::None),
            ],
            notes: "R2 sends the text as it is, which no Elasticsearch would take: it is the price of moving the same records. `text` and `classic` send more bytes, see the column of bytes a record.".to_owned(),
        },
        Ladder {
            name: "gzip",
            cases: vec![reference(main), json(main), case(main, drover("drover, json, gzip", "json", "gzip"), Target::None)],
            notes: "The endpoint unpacks on the same machine, in the same time. CPU is what gzip costs; the rate would differ where the network is the limit.".to_owned(),
        },
        Ladder {
            name: "memory",
            cases: vec![
                case(data::LAG_OF_1, DROVER_JSON, BESIDE_LIMIT),
                case(data::LAG_OF_12, DROVER_JSON, BESIDE_LIMIT),
                case(data::LAG_OF_1000, DROVER_JSON, BESIDE_LIMIT_OF_1000),
            ],
            notes: "300 B JSON, lz4. `limits.memory` is the default, 256 MiB: the peak may be 100 MiB more, and 256 MiB more with 1,000 partitions.".to_owned(),
        },
    ]
}

fn peers() -> Ladder {
    let main = data::JSON_300;
    let mut cases = vec![case(main, R2, Target::None), case(main, DROVER_JSON, PASS_THROUGH)];
    cases.extend(peers::found_and_missing().0.into_iter().map(|peer| case(main, contenders::peer(peer), Target::None)));
    Ladder {
        name: "peers",
        cases,
        notes: "Those whose name ends in *raw* pass records through as drover does. Of the others only the number of documents is checked, since they write each document anew. ".to_owned() + &peers::notes(),
    }
}

/// Runs the wanted tables of throughput, each topic being filled once.
pub fn run(options: &Options, kafka: &Kafka, endpoint: &Endpoint) {
    let mut filled: Vec<Filled> = Vec::new();
    let mut ladders: Vec<Ladder> = usual().into_iter().filter(|ladder| options.wants(ladder.name)).collect();
    if options.wants("peers") {
        ladders.push(peers());
    }
    for ladder in ladders {
        for case in &ladder.cases {
            if filled.iter().all(|done| done.set.topic != case.set.topic) {
                let new = data::fill(kafka, case.set, options.records(case.set.records));
                // One uncounted pass, so that the first contender does not pay for the page cache.
                contenders::run(rung("warm-up", rungs::COUNT), &new, kafka, endpoint, "bench-warm-up");
                filled.push(new);
            }
        }
        let outcomes = measure(&ladder, options, &filled, kafka, endpoint);
        report::publish(&section(&ladder, &outcomes, options), options);
    }
}

/// Outcomes by case, in the order of the rounds. Each round begins with another case, so that nobody always follows the same one.
fn measure(ladder: &Ladder, options: &Options, filled: &[Filled], kafka: &Kafka, endpoint: &Endpoint) -> Vec<Vec<Outcome>> {
    let count = ladder.cases.len();
    let mut outcomes = vec![Vec::new(); count];
    for round in 0..options.rounds {
        for position in 0..count {
            let index = (position + round) % count;
            let case = ladder.cases[index];
            let topic = filled.iter().find(|done| done.set.topic == case.set.topic).expect("every topic has been filled");
            let group = format!("bench-{}-{round}-{index}", ladder.name);
            let outcome = contenders::run(case.contender, topic, kafka, endpoint, &group);
            let (rate, cpu, foreign) = (outcome.rate(), outcome.cpu(), outcome.foreign * 100.0);
            println!(
                "{} {}: {}, {}: {rate:.0} K/s, {cpu:.2} CPU-s/M, others {foreign:.0} %",
                ladder.name,
                round + 1,
                case.contender.name,
                case.set.name
            );
            outcomes[index].push(outcome);
        }
    }
    outcomes
}

fn section(ladder: &Ladder, outcomes: &[Vec<Outcome>], options: &Options) -> Section {
    let foreign = outcomes.iter().flatten().map(|outcome| outcome.foreign).fold(0.0, f64::max);
    let is_judged = !options.is_quick && foreign <= report::QUIET;
    let mut table = Table::new(&[
        "data",
        "contender",
        "K events/s",
        "CPU-s per million",
        "peak MiB",
        "threads",
        "rate / R2",
        "CPU / R2",
        "target",
        "bytes a record",
        "records a request",
        "broker CPU-s/M",
        "endpoint CPU-s/M",
    ]);
    let mut cpu = Panel { title: "CPU seconds per million events (less is better)".to_owned(), decimals: 2, bars: Vec::new() };
    let mut rate = Panel { title: "Thousand events per second (more is better)".to_owned(), decimals: 0, bars: Vec::new() };
    let mut peak = Panel { title: "Peak memory, MiB (less is better)".to_owned(), decimals: 0, bars: Vec::new() };
    let several_sets = ladder.cases.iter().any(|case| case.set != ladder.cases[0].set);
    for (case, rounds) in ladder.cases.iter().zip(outcomes) {
        let rates = spread(rounds, Outcome::rate);
        let cpus = spread(rounds, Outcome::cpu);
        let peaks = spread(rounds, |outcome| outcome.peak_bytes as f64 / f64::from(1 << 20));
        let ratios = ratios(ladder, outcomes, case, rounds);
        let per_record = spread(rounds, |outcome| outcome.body_bytes as f64 / outcome.records as f64).median;
        let per_request = spread(rounds, |outcome| outcome.records as f64 / outcome.bulks.max(1) as f64).median;
        let sends = rounds.iter().any(|outcome| outcome.bulks > 0);
        let of_sent = |value: f64| if sends { format!("{value:.0}") } else { "–".to_owned() };
        table.row(vec![
            case.set.name.to_owned(),
            case.contender.name.to_owned(),
            rates.text(0),
            cpus.text(2),
            peaks.text(0),
            spread(rounds, |outcome| outcome.threads as f64).text(0),
            ratios.map_or("–".to_owned(), |(rate, _)| rate.text(2)),
            ratios.map_or("–".to_owned(), |(_, cpu)| cpu.text(2)),
            verdict(case.target, is_judged.then(|| Measured { ratios: ratios.map(|(rate, cpu)| (rate.median, cpu.median)), peak: peaks.highest })),
            of_sent(per_record),
            of_sent(per_request),
            format!("{:.2}", spread(rounds, |outcome| outcome.broker_cpu_seconds / outcome.millions()).median),
            format!("{:.2}", spread(rounds, |outcome| outcome.endpoint_cpu_seconds / outcome.millions()).median),
        ]);
        let is_ours = case.contender.name.starts_with("drover");
        let label = if several_sets { format!("{}, {}", case.set.name, short(case.contender.name)) } else { case.contender.name.to_owned() };
        for (panel, value) in [(&mut cpu, cpus), (&mut rate, rates), (&mut peak, peaks)] {
            panel.bars.push(Bar { label: label.clone(), value, is_ours });
        }
    }
    let rounds = outcomes.first().map_or(0, Vec::len);
    let records: Vec<String> = outcomes.iter().flatten().map(|outcome| outcome.records.to_string()).collect();
    let (fewest, most) = (records.iter().min_by_key(|text| text.len()), records.iter().max_by_key(|text| text.len()));
    let records = match (fewest, most) {
        (Some(fewest), Some(most)) if fewest != most => format!("{fewest} to {most}"),
        (Some(fewest), _) => fewest.clone(),
        _ => String::new(),
    };
    let partitions = if several_sets && ladder.cases.iter().any(|case| case.set.partitions != data::PARTITIONS) {
        String::new()
    } else {
        format!(" in {} partitions", data::PARTITIONS)
    };
    let notes = format!("Medians, in brackets lowest and highest of {rounds} rounds over {records} records{partitions}. {}", ladder.notes);
    Section { name: ladder.name, table, notes: notes.trim_end().to_owned(), panels: vec![cpu, rate, peak], foreign }
}

/// `R2` of `R2: R1, and sends them`.
fn short(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

fn spread(rounds: &[Outcome], value: impl Fn(&Outcome) -> f64) -> Spread {
    Spread::of(rounds.iter().map(value))
}

/// Rate and CPU divided by R2's of the same data, round by round: what slows both in a round cancels.
fn ratios(ladder: &Ladder, outcomes: &[Vec<Outcome>], case: &Case, rounds: &[Outcome]) -> Option<(Spread, Spread)> {
    let is_reference = |other: &&Case| other.set == case.set && other.contender.name == R2.name;
    let position = ladder.cases.iter().position(|other| is_reference(&other))?;
    let pairs = || rounds.iter().zip(&outcomes[position]);
    let rate = Spread::of(pairs().map(|(outcome, reference)| outcome.rate() / reference.rate()));
    let cpu = Spread::of(pairs().map(|(outcome, reference)| outcome.cpu() / reference.cpu()));
    Some((rate, cpu))
}

/// What a target is compared with.
struct Measured {
    /// Rate and CPU divided by R2's, where R2 read the same data.
    ratios: Option<(f64, f64)>,
    /// The highest peak of all rounds, in MiB.
    peak: f64,
}

/// The target, and whether it is met; `None` where a figure says nothing.
fn verdict(target: Target, measured: Option<Measured>) -> String {
    let word = |is_met: Option<bool>| match is_met {
        Some(true) => ": met",
        Some(false) => ": **missed**",
        None => "",
    };
    let ratios = measured.as_ref().and_then(|measured| measured.ratios);
    match target {
        Target::None => String::new(),
        Target::Cpu(most) => format!("CPU ≤ {most:.2}{}", word(ratios.map(|(_, cpu)| cpu <= most))),
        Target::CpuAndRate(most, least) => {
            let (cpu, rate) = (word(ratios.map(|(_, cpu)| cpu <= most)), word(ratios.map(|(rate, _)| rate >= least)));
            format!("CPU ≤ {most:.2}{cpu}, rate ≥ {least:.2}{rate}")
        }
        Target::Peak(most) => format!("peak ≤ {most:.0}{}", word(measured.map(|measured| measured.peak <= most))),
    }
}
