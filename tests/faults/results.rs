//! The report of a run: a line for each row on the terminal, and `RESULTS.md` after a whole run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::invariants::{self, INVARIANTS};
use crate::mutants::{self, Mutant};
use crate::rows;
use crate::run::{Counts, Row, Run};

/// Breaches of a row that are shown.
const SHOWN: usize = 5;

/// What became of one row or mutant.
#[derive(Debug)]
pub(crate) struct Entry {
    label: String,
    name: String,
    is_mutant: bool,
    took: Duration,
    counts: Counts,
    notes: Vec<String>,
    looked_at: Vec<&'static str>,
    /// What was wrong with a row; of a mutant, why it counts as survived.
    wrong: Vec<String>,
    /// Why a row says nothing at all: this machine lacks something.
    not_run: Option<String>,
    /// What caught a mutant.
    caught_by: Vec<&'static str>,
}

impl Entry {
    /// A row: every breach is wrong.
    pub(crate) fn of_row(row: &Row, run: Run<'_>, panicked: Option<String>, took: Duration) -> Self {
        let breaches = invariants::breaches(&run.evidence);
        let mut wrong: Vec<String> = breaches.iter().take(SHOWN).map(|(id, what)| format!("{id}: {what}")).collect();
        if breaches.len() > SHOWN {
            wrong.push(format!("and {} more breaches", breaches.len() - SHOWN));
        }
        wrong.extend(panicked.map(|message| format!("the row stopped: {message}")));
        if run.evidence.violations.is_none() && wrong.is_empty() && run.not_run.is_none() {
            wrong.push("the row has ended without asking the checker".to_owned());
        }
        Self {
            label: row.number.to_string(),
            name: row.name.to_owned(),
            is_mutant: false,
            took,
            counts: run.counts,
            notes: run.notes,
            looked_at: invariants::looked_at(&run.evidence),
            wrong,
            not_run: run.not_run,
            caught_by: Vec::new(),
        }
    }

    /// A mutant: it is caught when an invariant that it must break is broken. What is missing counts only when nothing more will come: otherwise impatience would catch everything.
    pub(crate) fn of_mutant(mutant: &Mutant, run: Run<'_>, panicked: Option<String>, took: Duration) -> Self {
        let breaches = invariants::breaches(&run.evidence);
        let counts = |id: &&'static str| (*id != "I1" || run.evidence.is_caught_up) && breaches.iter().any(|(broken, _)| broken == id);
        let caught_by: Vec<&'static str> = mutant.breaks.iter().copied().filter(counts).collect();
        let mut wrong = Vec::new();
        if caught_by.is_empty() {
            let seen: Vec<&str> = breaches.iter().map(|(id, _)| *id).collect();
            wrong.push(format!(
                "the mutant survived: none of {} was broken (broken were: {seen:?}; the row stopped: {panicked:?})",
                mutant.breaks.join(", ")
            ));
        }
        if let Some(expected) = mutant.self_check
            && !run.evidence.self_checks.contains_key(expected)
        {
            wrong.push(format!("the process has not noticed it itself: {expected} stayed at 0, raised were {:?}", run.evidence.self_checks));
        }
        Self {
            label: format!("mutant in {}", mutant.row),
            name: mutant.name.to_owned(),
            is_mutant: true,
            took,
            counts: run.counts,
            notes: run.notes,
            looked_at: invariants::looked_at(&run.evidence),
            wrong,
            not_run: run.not_run,
            caught_by,
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.wrong.is_empty() && self.not_run.is_none()
    }

    pub(crate) fn is_failed(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// One line, and what was wrong below it.
    pub(crate) fn print(&self) {
        let verdict = match (self.is_failed(), self.is_mutant) {
            (true, _) => "FAILED".to_owned(),
            (false, _) if self.not_run.is_some() => "NOT RUN".to_owned(),
            (false, true) => format!("caught by {}", self.caught_by.join(" ")),
            (false, false) => "ok".to_owned(),
        };
        println!("{} {}: {verdict}, {:.1} s, seed {}, {}", self.label, self.name, self.took.as_secs_f32(), self.counts.seed, self.counts);
        for what in self.not_run.iter().chain(&self.notes).chain(&self.wrong) {
            println!("    {what}");
        }
    }

    fn is_soak(&self) -> bool {
        self.label == rows::soak::NUMBER.to_string()
    }
}

/// Where the section about the soak begins; the next one ends it.
const SOAK: &str = "## Soak\n";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/RESULTS.md")
}

/// Writes `tests/faults/RESULTS.md`. What it says of a soak stays, unless there was one now.
pub(crate) fn write(entries: &[Entry], seed: u32, took: Duration) {
    let before = std::fs::read_to_string(path()).unwrap_or_default();
    let soak = entries.iter().find(|entry| entry.is_soak()).map(soak_section);
    let kept = soak_of(&before).map(|(_, section, _)| section.to_owned());
    let soak = soak.or(kept).unwrap_or_else(|| format!("{SOAK}\nRow {} has never run.\n\n", rows::soak::NUMBER));
    save(&text(entries, seed, took, &soak));
}

/// After a run that is no whole one, only what is told of the soak.
pub(crate) fn write_soak(entries: &[Entry]) {
    let Some(entry) = entries.iter().find(|entry| entry.is_soak()) else { return };
    let before = std::fs::read_to_string(path()).unwrap_or_default();
    match soak_of(&before) {
        Some((head, _, tail)) => save(&format!("{head}{}{tail}", soak_section(entry))),
        None => save(&format!("{before}\n{}", soak_section(entry))),
    }
}

/// What is before the section about the soak, the section, and what is after it.
fn soak_of(text: &str) -> Option<(&str, &str, &str)> {
    let (head, rest) = text.split_at(text.find(SOAK)?);
    let end = rest.get(SOAK.len()..)?.find("\n## ").map_or(rest.len(), |end| SOAK.len() + end + 1);
    let (section, tail) = rest.split_at(end);
    Some((head, section, tail))
}

fn soak_section(entry: &Entry) -> String {
    let counts = &entry.counts;
    let verdict = if entry.is_ok() { "ok".to_owned() } else { format!("**{}**", entry.wrong.join("; ")) };
    let mut text = format!(
        "{SOAK}\nRow {} last ran on {} with seed {} for {:.0} minutes: {verdict}. {counts}.\n\n",
        entry.label,
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        counts.seed,
        entry.took.as_secs_f32() / 60.0
    );
    for note in &entry.notes {
        let _ = writeln!(text, "* {note}");
    }
    text.push('\n');
    text
}

fn save(text: &str) {
    let path = path();
    if let Err(error) = std::fs::write(&path, text) {
        eprintln!("faults: {} cannot be written: {error}", path.display());
    } else {
        println!("faults: wrote {}", path.display());
    }
}

fn text(entries: &[Entry], seed: u32, took: Duration, soak: &str) -> String {
    let mut text = String::new();
    let (mut rows, mutants): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| !entry.is_mutant);
    // It has a section of its own.
    rows.retain(|entry| !entry.is_soak());
    let failed = entries.iter().filter(|entry| entry.is_failed()).count();
    let on = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let _ = writeln!(text, "# Faults and what became of the promise\n");
    let _ = writeln!(
        text,
        "Written by `make faults` on {on}, seed {seed} (`make faults SEED={seed}` repeats it), {:.0} s: {} rows, {} mutants, {failed} failed. Real Kafka 4.1, Elasticsearch 8.19 and etcd on one machine.\n",
        took.as_secs_f32(),
        rows.len(),
        mutants.len()
    );
    let _ = writeln!(text, "## Rows\n");
    let _ = writeln!(text, "| # | fault | result | s | records | documents | dead letters | task restarts | kills | samples | looked at |");
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|");
    for entry in &rows {
        let counts = &entry.counts;
        let result = match &entry.not_run {
            _ if entry.is_failed() => format!("**failed**: {}", cell(&entry.wrong.join("; "))),
            Some(reason) => format!("**not run**: {}", cell(reason)),
            None => "ok".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {result} | {:.0} | {} | {} | {} | {} | {} | {} | {} |",
            entry.label,
            entry.name,
            entry.took.as_secs_f32(),
            counts.records,
            counts.documents,
            counts.dead_letters,
            counts.restarts,
            counts.kills,
            counts.samples,
            entry.looked_at.join(" ")
        );
    }
    let _ =
        writeln!(text, "\nSamples: how often the side observer read the committed offsets and then found every record below them in the index.\n");
    let _ = writeln!(text, "## Mutants\n\nMistakes that are built in on purpose; each run must fail, or the checker is worth nothing.\n");
    let _ = writeln!(text, "| mutant | what it does wrong | row | result | s |\n|---|---|---|---|---|");
    for entry in &mutants {
        let result =
            if entry.is_ok() { format!("caught by {}", entry.caught_by.join(" ")) } else { format!("**{}**", cell(&entry.wrong.join("; "))) };
        let known = mutants::ALL.iter().find(|mutant| mutant.name == entry.name);
        let words = known.map_or("", |mutant| mutant.words);
        let row = known.map_or(0, |mutant| mutant.row);
        let _ = writeln!(text, "| `{}` | {words} | {row} | {result} | {:.0} |", entry.name, entry.took.as_secs_f32());
    }
    let _ = write!(text, "\n{soak}## Invariants\n\n");
    for invariant in &INVARIANTS {
        let _ = writeln!(text, "* **{}** {}", invariant.id, invariant.words);
    }
    let _ = writeln!(text, "\n## Rows of the matrix that are not built\n\n| # | fault | why not |\n|---|---|---|");
    for missing in rows::NOT_BUILT {
        let _ = writeln!(text, "| {} | {} | {} |", missing.number, missing.name, missing.reason);
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
