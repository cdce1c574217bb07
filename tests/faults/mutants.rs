//! Mistakes on purpose (`src/mutants.rs`), each with the row that must notice it and the invariants of which it breaks at least one. A mutant that survives fails the run.

use std::time::Instant;

use crate::harness::servers::Alone;
use crate::results::Entry;
use crate::rows;
use crate::run::Run;

/// One mistake.
pub(crate) struct Mutant {
    /// The failpoint.
    pub(crate) name: &'static str,
    pub(crate) words: &'static str,
    /// The row that must notice it.
    pub(crate) row: u32,
    /// One of these must be broken.
    pub(crate) breaks: &'static [&'static str],
    /// The self-check of the process that must notice it as well, where one can.
    pub(crate) self_check: Option<&'static str>,
}

/// All of them.
pub(crate) const ALL: &[Mutant] = &[
    Mutant {
        name: "mutant_commit_before_settling",
        words: "commits what was read, not what is settled",
        row: 41,
        breaks: &["I3"],
        self_check: Some("committed_past_settled"),
    },
    Mutant {
        name: "mutant_id_without_separator",
        words: "writes partition and offset of an id without a separator",
        row: 6,
        breaks: &["I1"],
        self_check: None,
    },
    Mutant {
        name: "mutant_item_errors_ignored",
        words: "takes a bulk answer with status 200 for success",
        row: 43,
        breaks: &["I1"],
        self_check: None,
    },
    Mutant {
        name: "mutant_forbidden_skipped",
        words: "passes over items that an index forbids (403)",
        row: 41,
        breaks: &["I1", "I3"],
        self_check: None,
    },
    Mutant {
        name: "mutant_no_rewind",
        words: "goes on after a crash where the crashed task had read to",
        row: 6,
        breaks: &["I1"],
        self_check: Some("started_elsewhere"),
    },
    Mutant {
        name: "mutant_letter_after_commit",
        words: "writes the dead letter after the offset has passed",
        row: 51,
        breaks: &["I1", "I3"],
        self_check: None,
    },
    Mutant {
        name: "mutant_old_ids_kept",
        words: "takes 409 for success where a re-created topic has the ids of the old one",
        row: 27,
        breaks: &["I1"],
        self_check: None,
    },
    Mutant {
        name: "mutant_late_results_accepted",
        words: "lets results for an earlier life move the watermark of the present one",
        row: 50,
        breaks: &["I1"],
        self_check: None,
    },
];

/// Runs the mutant's row with the mistake made.
pub(crate) fn run(mutant: &Mutant, servers: &Alone, seed: u32) -> Entry {
    println!("{} in row {} …", mutant.name, mutant.row);
    let started = Instant::now();
    let row =
        rows::all().find(|row| row.number == mutant.row).unwrap_or_else(|| panic!("{} names row {}, which is not built", mutant.name, mutant.row));
    let mut run = Run::new(servers, row.number, seed, Some(mutant.name));
    let panicked = run.carry_out(row);
    servers.kafka.recover();
    servers.elasticsearch.recover();
    Entry::of_mutant(mutant, run, panicked, started.elapsed())
}
