//! The fault matrix: the program against real servers, one fault after the other, and after each of them the whole promise.
//!
//! `make faults` runs every row and every mutant and writes `tests/faults/RESULTS.md`; `make faults ROW=23` (or `ROW=3,29`, `ROW=mutants`, or a mutant's name) runs some, `SEED=…` repeats a run. `make test-faults` runs
//! a selection that the seed makes, for at most five minutes. A row's number is that of the matrix; [`rows::NOT_BUILT`] says what is missing and why. Row 70, the soak of an hour, runs only when it is asked for: `make faults ROW=70`, or with the minutes,
//! `SOAK=10`. A row that this machine
//! cannot carry out is `NOT RUN`, with the reason, and counts neither as passed nor as failed.
//!
//! | to find | look in |
//! |---|---|
//! | what must hold, as one list | [`invariants`] |
//! | what a row works with, and how it ends | [`run`] |
//! | who looks at the committed offsets meanwhile | [`observer`] |
//! | the rows | [`rows`] |
//! | mistakes on purpose that a row must notice | [`mutants`] |
//! | the report | [`results`] |

#[path = "../harness/mod.rs"]
mod harness;
mod invariants;
mod mutants;
mod observer;
mod results;
mod rows;
mod run;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use harness::servers;
use mutants::Mutant;
use results::Entry;
use run::{Row, Run};

/// A selection begins nothing after this: the longest row of it takes about a minute.
const SELECTION_BEGINS_WITHIN: Duration = Duration::from_secs(220);
/// Mutants of a selection.
const SELECTED_MUTANTS: usize = 3;

fn main() -> ExitCode {
    let seed = number("SEED").unwrap_or_else(rand::random::<u32>);
    let wanted = std::env::var("ROW").unwrap_or_default();
    let is_selection = std::env::var("FAULTS").is_ok_and(|what| what == "selection");
    let mut rng = StdRng::seed_from_u64(u64::from(seed));
    let (mut rows, mut mutants): (Vec<&Row>, Vec<&Mutant>) = (rows::all().collect(), mutants::ALL.iter().collect());
    if rows::soak::minutes().is_none() && wanted.is_empty() || is_selection {
        rows.retain(|row| row.number != rows::soak::NUMBER);
    }
    if !wanted.is_empty() {
        let names: Vec<&str> = wanted.split(',').map(str::trim).collect();
        rows.retain(|row| names.contains(&row.number.to_string().as_str()));
        mutants.retain(|mutant| names.contains(&"mutants") || names.contains(&mutant.name));
        if rows.is_empty() && mutants.is_empty() {
            eprintln!("faults: there is no row or mutant {wanted}; not built are {}", rows::not_built());
            return ExitCode::from(2);
        }
    } else if is_selection {
        rows.retain(|row| row.is_quick);
        rows.shuffle(&mut rng);
        mutants.shuffle(&mut rng);
        mutants.truncate(SELECTED_MUTANTS);
    }
    println!("faults: seed {seed}, {} rows, {} mutants; repeat with SEED={seed}", rows.len(), mutants.len());

    let started = Instant::now();
    // A panic is a row's failure and is told with it.
    let servers = servers::alone();
    let mut entries = Vec::new();
    for mutant in mutants {
        entries.push(mutants::run(mutant, &servers, seed));
        entries.last().into_iter().for_each(Entry::print);
    }
    for row in rows {
        if is_selection && started.elapsed() > SELECTION_BEGINS_WITHIN {
            println!("faults: time is up, {} and what would follow is left to `make faults`", row.number);
            break;
        }
        entries.push(run_row(row, &servers, seed));
        entries.last().into_iter().for_each(Entry::print);
    }
    drop(servers);
    let failed = entries.iter().filter(|entry| entry.is_failed()).count();
    let passed = entries.iter().filter(|entry| entry.is_ok()).count();
    let not_run = entries.len() - failed - passed;
    println!("faults: {passed} passed, {failed} failed, {not_run} not run, {:.0} s, seed {seed}", started.elapsed().as_secs_f32());
    if wanted.is_empty() && !is_selection {
        results::write(&entries, seed, started.elapsed());
    } else {
        results::write_soak(&entries);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_row(row: &Row, servers: &servers::Alone, seed: u32) -> Entry {
    println!("row {} {} …", row.number, row.name);
    let started = Instant::now();
    let mut run = Run::new(servers, row.number, seed, None);
    let panicked = run.carry_out(row);
    servers.kafka.recover();
    servers.elasticsearch.recover();
    Entry::of_row(row, run, panicked, started.elapsed())
}

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}
