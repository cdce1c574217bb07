//! The report: a table on the terminal, and between its markers in `README.md`, with a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::machine;
use crate::options::Options;
use crate::plot::Panel;

/// The share of the machine that others may have in a run that counts: the rounds differ by more anyway.
pub const QUIET: f64 = 0.05;

/// Median, lowest and highest of the rounds.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// In the middle; of an even number of values the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

impl Spread {
    /// Panics when there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] };
        Self { median, lowest: values[0], highest: values[values.len() - 1] }
    }

    /// `median (lowest–highest)` with so many decimals.
    pub fn text(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$}–{:.decimals$})", self.median, self.lowest, self.highest)
    }
}

/// A table with a head.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows: Vec::new() }
    }

    /// One row more, of as many cells as the head has.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a row as wide as its head");
        self.rows.push(cells);
    }

    /// In Markdown, with columns as wide as their widest cell, so that it can be read on a terminal too.
    pub fn markdown(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for (number, line) in lines().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(text, "| {cell:<width$} ");
            }
            text.push_str("|\n");
            if number == 0 {
                for width in &widths {
                    let _ = write!(text, "|{}", "-".repeat(width + 2));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// One table with what belongs to it.
#[derive(Debug)]
pub struct Section {
    /// The name of its markers, and of its plot.
    pub name: &'static str,
    /// The table.
    pub table: Table,
    /// What a reader of the figures must know, one paragraph.
    pub notes: String,
    /// The panels of its plot; none, no plot.
    pub panels: Vec<Panel>,
    /// The largest share of the machine that others had during a run.
    pub foreign: f64,
}

/// Prints a section and puts it in its place. The hand-written part of `README.md` is the repository's.
pub fn publish(section: &Section, options: &Options) {
    let table = section.table.markdown();
    println!("\n{}\n\n{table}", section.name);
    fs::create_dir_all(options.out.join("plots")).unwrap_or_else(|error| panic!("{}: {error}", options.out.display()));
    let mut text = format!("{}\n\n{table}\n", conditions(section, options));
    if !section.panels.is_empty() {
        let file = format!("plots/{}.svg", section.name);
        write(&options.out.join(&file), &crate::plot::svg(&section.panels));
        let _ = writeln!(text, "![{}]({file})\n", section.name);
    }
    if !section.notes.is_empty() {
        let _ = writeln!(text, "{}\n", section.notes);
    }
    let path = options.out.join("README.md");
    if !path.exists() {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/README.md");
        fs::copy(&original, &path).unwrap_or_else(|error| panic!("{}: {error}", original.display()));
    }
    let old = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let new = replaced(&old, section.name, &text).unwrap_or_else(|| panic!("{} has no markers of {}", path.display(), section.name));
    write(&path, &new);
    println!("written into {}", path.display());
}

fn conditions(section: &Section, options: &Options) -> String {
    let on = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    let quick = if options.is_quick { "**A quick run, to try the bench itself: its figures say nothing.** " } else { "" };
    let foreign = section.foreign * 100.0;
    let quiet = if section.foreign > QUIET { " **The machine was not quiet: do not use these figures.**" } else { "" };
    let (machine, versions) = (machine::words(), machine::versions());
    format!(
        "{quick}{on}, `{}`. {machine}. {versions}. Other programs had at most {foreign:.0} % of the machine during a run.{quiet}",
        command(options)
    )
}

/// The command that repeats this run.
fn command(options: &Options) -> String {
    let table = match options.tables.as_slice() {
        [one] if one == "peers" => return format!("make bench-peers{}", if options.is_quick { " BENCH=quick" } else { "" }),
        tables if tables == crate::options::ON_MANY_TOPICS => {
            return format!("make bench-tasks{}", if options.is_quick { " BENCH=quick" } else { "" });
        }
        tables if tables == crate::options::USUAL => String::new(),
        tables => format!(" BENCH_TABLE={}", tables.join(",")),
    };
    let quick = if options.is_quick { " BENCH=quick" } else { "" };
    format!("make bench{quick}{table}")
}

/// The text with what is between the markers of `name` replaced.
fn replaced(text: &str, name: &str, between: &str) -> Option<String> {
    let (start, end) = (format!("<!-- bench:{name} -->"), format!("<!-- /bench:{name} -->"));
    let (before, rest) = text.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}\n\n{between}{end}{after}"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
