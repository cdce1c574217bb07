//! What the commands print: data on stdout as table, JSON or YAML, messages on stderr.
//!
//! Guarantees that nothing panics when a reader closes its end; that colours are used on a terminal only, and not when `NO_COLOR` is set; that tables are never cut.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;

use super::document::Document;
use super::failure::Failure;
use crate::table::Table;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Output {
    /// A table for people
    #[default]
    Table,
    /// The API's document as JSON
    Json,
    /// The API's document as YAML
    Yaml,
}

/// Columns whose words are coloured.
const COLOURED: [&str; 5] = ["STATE", "HEALTH", "STATUS", "SEVERITY", "VERDICT"];
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";

/// Prints in one form.
#[derive(Debug)]
pub(super) struct Printer {
    output: Output,
    is_terminal: bool,
    is_coloured: bool,
    /// What was printed since the last look, where that is shown as a whole.
    frame: Option<RefCell<String>>,
}

impl Printer {
    pub(super) fn new(output: Output, is_framed: bool) -> Self {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let is_terminal = io::stdout().is_terminal();
        Self { output, is_terminal, is_coloured: is_terminal && !is_refused && !is_dumb, frame: is_framed.then(RefCell::default) }
    }

    /// Prints text that is harmless already.
    pub(super) fn write(&self, text: &str) -> Result<(), Failure> {
        match &self.frame {
            Some(frame) => {
                frame.borrow_mut().push_str(text);
                Ok(())
            }
            None => write(text),
        }
    }

    /// What was printed since the last time, where it is kept.
    pub(super) fn take_frame(&self) -> String {
        self.frame.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// Whether people read it.
    pub(super) fn is_table(&self) -> bool {
        self.output == Output::Table
    }

    /// Prints a document: as it is, or what `table` makes of it.
    pub(super) fn show(&self, document: &Document, table: impl FnOnce(&Document) -> Table) -> Result<(), Failure> {
        // Frames that nobody looks at are a stream for a program.
        if self.frame.is_some() && !self.is_terminal && !self.is_table() {
            return self.show_next(document);
        }
        match self.output {
            Output::Table => self.rows(&mut table(document)),
            Output::Json => self.write(&document.json().map_err(Failure::Failed)?),
            Output::Yaml => self.write(&document.yaml().map_err(Failure::Failed)?),
        }
    }

    /// Prints a document of a stream: a line of JSON, or a document of YAML. Rows of a table are printed by [`Printer::rows`].
    pub(super) fn show_next(&self, document: &Document) -> Result<(), Failure> {
        match self.output {
            Output::Table => Ok(()),
            Output::Json => self.write(&document.json_line().map_err(Failure::Failed)?),
            Output::Yaml => self.write(&format!("---\n{}", document.yaml().map_err(Failure::Failed)?)),
        }
    }

    /// Prints the rows that a table has gathered since the last time.
    pub(super) fn rows(&self, table: &mut Table) -> Result<(), Failure> {
        let is_coloured = self.is_coloured;
        self.write(&table.drain(&|column, cell| if is_coloured { colour(column, cell) } else { None }))
    }

    /// A word of health, coloured.
    pub(super) fn health(&self, word: &str) -> String {
        let shown = crate::table::escape(word);
        match colour("HEALTH", word) {
            Some(code) if self.is_coloured => format!("\u{1b}[{code}m{shown}\u{1b}[0m"),
            _ => shown,
        }
    }
}

fn colour(column: &str, cell: &str) -> Option<&'static str> {
    if !COLOURED.contains(&column) {
        return None;
    }
    match cell {
        "ok" | "running" => Some(GREEN),
        "degraded" | "waiting" | "backoff" | "starting" | "draining" | "stale" | "warning" | "paused" => Some(YELLOW),
        "down" | "failed" | "stalled" | "error" => Some(RED),
        _ => None,
    }
}

/// Writes to stdout.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Tells something on stderr, on one line. Nobody there is no failure.
pub(super) fn tell(message: &str) {
    tell_lines(&format!("{}\n", crate::table::escape(message)));
}

/// Tells something on stderr that is harmless already.
pub(super) fn tell_lines(lines: &str) {
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

/// Whether someone can be asked.
pub(super) fn is_at_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks at the terminal; everything but a yes is a no.
pub(super) fn is_confirmed(question: &str) -> bool {
    tell_lines(&crate::table::escape(question));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    if read.is_err() || !answer.ends_with('\n') {
        tell("");
    }
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_health_in_their_columns_are_coloured() {
        assert_eq!(colour("HEALTH", "down"), Some(RED));
        assert_eq!(colour("STATE", "running"), Some(GREEN));
        assert_eq!(colour("NAME", "down"), None);
        assert_eq!(colour("STATE", "unassigned"), None);
    }
}
