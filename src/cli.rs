//! The commands that talk to a running drover over its HTTP API; [`Command::Replay`], which talks to the sink's server; and [`Command::Token`], which talks to nobody.
//!
//! Guarantees: data goes to stdout, messages to stderr; every request ends in time; exit codes are those of the design, section 7 (0 ok, 1 failed, 2 usage, 3 unhealthy with `--fail-on`,
//! 4 not found, 5 conflict, 69 unreachable, 78 bad configuration; of a replay also 130 interrupted); no text of a server reaches the terminal raw.
//! Does nothing that `curl` could not do: there is no other way in.
//!
//! | to find | look in |
//! |---|---|
//! | requests, time-outs, the token, pages of lists | `client` |
//! | what is told when something goes wrong, exit codes | `failure` |
//! | tables, JSON, YAML, colours | `output`, `document` |
//! | verdict and findings | `status` |
//! | topics, their changes, dry runs | `topics` |
//! | rewinds and their confirmation | `rewind` |
//! | looking again and again | `watch` |
//! | waiting until it is done | `wait` |
//! | tasks, events, dead letters, sources | `tasks`, `events`, `letters`, `sources` |
//! | new tokens for the API | `token` |
//! | the probe for containers | `healthcheck` |
//! | sending what the file sink wrote | `replay` |

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;

mod client;
mod document;
mod events;
mod failure;
mod healthcheck;
mod letters;
mod output;
mod replay;
mod rewind;
mod sources;
mod status;
mod tasks;
mod token;
mod topics;
mod wait;
mod watch;

use client::{Client, List, Patience, Trust};
use document::Document;
use failure::Failure;
use output::{Output, Printer};

use crate::table::Table;

/// A command that asks a server and ends.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows how drover is: the verdict, what is wrong, and what helps
    Status(status::StatusArgs),
    /// Lists, adds, changes and removes topics
    Topics(topics::TopicsArgs),
    /// Lists the tasks, one per topic and partition, and restarts one
    Tasks(tasks::TasksArgs),
    /// Lists what happened, and follows it
    Events(events::EventsArgs),
    /// Lists the records that nobody would take, with the reason
    DeadLetters(letters::LettersArgs),
    /// Lists the sources of topics, and confirms one that was restored
    Sources(sources::SourcesArgs),
    /// Sends what the file sink wrote to Elasticsearch or OpenSearch
    Replay(replay::ReplayArgs),
    /// Makes a token for the API, and the line for the file of tokens
    Token(token::TokenArgs),
    /// Asks a probe: exit code 0 when it is well, else 1
    Healthcheck(healthcheck::HealthcheckArgs),
}

/// Where drover is and how its answers are printed.
#[derive(Debug, Args)]
struct Connection {
    /// The address of a running drover
    #[arg(
        long,
        env = "DROVER_SERVER",
        value_name = "URL",
        default_value = DEFAULT_SERVER,
        value_parser = client::server_url,
        global = true,
        help_heading = "Connection and output"
    )]
    server: Url,
    /// A file with the token for it
    #[arg(long, env = "DROVER_TOKEN_FILE", value_name = "FILE", global = true, help_heading = "Connection and output")]
    token_file: Option<PathBuf>,
    /// How data is printed
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = false, global = true, help_heading = "Connection and output")]
    output: Output,
}

/// Where a drover listens that was not told otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// A server to ask and a way to print.
struct Context {
    client: Client,
    printer: Printer,
    /// Between two looks; `None` = one look is enough.
    every: Option<Duration>,
}

impl Context {
    fn new(connection: Connection) -> Result<Self, Failure> {
        Self::watching(connection, None)
    }

    /// For looks that [`watch::run`] repeats.
    fn watching(connection: Connection, every: Option<Duration>) -> Result<Self, Failure> {
        let patience = if every.is_some() { Patience::LOOK } else { Patience::default() };
        let client = Client::new(connection.server, connection.token_file.as_deref(), Trust::Verified, patience)?;
        Ok(Self { client, printer: Printer::new(connection.output, every.is_some()), every })
    }

    /// Prints a whole list: of a table each page as it comes, of a document all pages in one.
    async fn list<const N: usize>(
        &self,
        list: &List,
        query: &[(&'static str, String)],
        columns: [&str; N],
        row: impl Fn(&Document) -> [String; N],
    ) -> Result<(), Failure> {
        let mut table = Table::new(&columns);
        let mut whole: Option<Document> = None;
        let gather = |page: Document| {
            if self.printer.is_table() {
                // Only cells are kept, so that the largest list takes little memory; a table's columns are known with its last row.
                page.items("items").iter().for_each(|item| table.row(row(item)));
                return Ok(());
            }
            join(&mut whole, page);
            Ok(())
        };
        self.client.pages(list, query, gather).await?;
        match whole {
            Some(document) => self.printer.show(&document, |_| Table::new(&columns)),
            None => self.printer.rows(&mut table),
        }
    }
}

/// Appends a page's items to those before; the last page's `next`, which is `null`, stays.
fn join(whole: &mut Option<Document>, page: Document) {
    let Some(Document::Object(fields)) = whole else {
        *whole = Some(page);
        return;
    };
    let Document::Object(more) = page else { return };
    for (name, value) in more {
        let Some((_, before)) = fields.iter_mut().find(|(field, _)| *field == name) else { continue };
        match (before, value) {
            (Document::List(items), Document::List(new)) => items.extend(new),
            (before, value) => *before = value,
        }
    }
}

/// Runs a command and tells on stderr why it failed; the exit code.
pub async fn run(command: Command) -> u8 {
    let outcome = match command {
        Command::Status(arguments) => status::run(arguments).await,
        Command::Topics(arguments) => topics::run(arguments).await,
        Command::Tasks(arguments) => tasks::run(arguments).await,
        Command::Events(arguments) => events::run(arguments).await,
        Command::DeadLetters(arguments) => letters::run(arguments).await,
        Command::Sources(arguments) => sources::run(arguments).await,
        Command::Token(arguments) => token::run(&arguments),
        Command::Replay(arguments) => return replay::run(arguments).await,
        Command::Healthcheck(arguments) => return healthcheck::run(arguments).await,
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            output::tell_lines(&failure.message());
            failure.exit_code()
        }
    }
}

/// Writes to stdout; the exit code. A reader that has closed its end is no failure.
pub fn print(text: &str) -> u8 {
    match output::write(text) {
        Ok(()) => 0,
        Err(failure) => {
            output::tell_lines(&failure.message());
            failure.exit_code()
        }
    }
}

/// A time in RFC 3339, such as `2026-01-31T06:00:00Z`.
fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write a time as 2026-01-31T06:00:00Z".to_owned())
}

/// A span of time, such as `30s` or `1h30m`.
fn span(text: &str) -> Result<Duration, String> {
    let span: Option<SignedDuration> = text.parse().ok();
    let span = span.and_then(|span| Duration::try_from(span).ok()).filter(|span| !span.is_zero());
    span.ok_or_else(|| "write a span of time as 30s, 5m or 1h30m".to_owned())
}

/// The number of a partition, such as `3`.
fn partition(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write the number of a partition, such as 0 or 3".to_owned())
}

/// The query's pairs whose value is given.
fn given<const N: usize>(pairs: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    pairs.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
}

/// `1 task`, `2 tasks`.
fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Document {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn pages_become_one_document_whose_next_is_null() {
        let mut whole = None;
        join(&mut whole, page(r#"{"items":[1,2],"next":"c","scope":"instance"}"#));
        join(&mut whole, page(r#"{"items":[3],"next":null,"scope":"instance"}"#));
        assert_eq!(whole, Some(page(r#"{"items":[1,2,3],"next":null,"scope":"instance"}"#)));
    }

    #[test]
    fn a_partition_is_a_number_from_0() {
        assert_eq!(partition("11"), Ok(11));
        for text in ["x", "-1", "", "99999999999"] {
            assert!(partition(text).is_err_and(|message| message.contains("number of a partition")), "{text}");
        }
    }

    #[test]
    fn spans_are_positive_and_have_a_unit() {
        assert_eq!(span("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(span("30s"), Ok(Duration::from_secs(30)));
        for text in ["30", "", "-5m", "0s", "soon"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
