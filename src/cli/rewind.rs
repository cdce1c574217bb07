//! Rewinds, the only command that can make drover skip records: looked at first, confirmed, then done.
//!
//! Guarantees that nothing is moved which was not confirmed by `--yes` or at a terminal, after the numbers of a dry run.

use clap::Args;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{PARTITION, Request};
use super::document::Document;
use super::failure::Failure;
use super::output::{is_at_terminal, is_confirmed, tell_lines};
use super::wait::{self, WaitArgs};
use super::{Context, counted, topics};
use crate::table::Table;
use crate::topic::TopicName;

#[derive(Debug, Args)]
pub(super) struct RewindArgs {
    /// The topic's name
    name: TopicName,
    /// Where the partitions go on: earliest, latest, an offset, or a time such as 2026-01-31T00:00:00Z
    #[arg(long, value_name = "WHERE", value_parser = target, required = true, allow_hyphen_values = true)]
    to: Target,
    /// Only this partition; may be given several times
    #[arg(long = "partition", value_name = "NUMBER", value_parser = super::partition, allow_hyphen_values = true)]
    partitions: Vec<u32>,
    /// Only says what would happen
    #[arg(long, conflicts_with_all = ["yes", "wait"])]
    dry_run: bool,
    /// Moves them without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Where a rewind goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Offset(u64),
    Time(Timestamp),
}

fn target(text: &str) -> Result<Target, String> {
    match text {
        "earliest" => return Ok(Target::Earliest),
        "latest" => return Ok(Target::Latest),
        _ => {}
    }
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if is_number { text.parse().map(Target::Offset).ok() } else { text.parse().map(Target::Time).ok() };
    parsed.ok_or_else(|| "write earliest, latest, an offset such as 1000, or a time such as 2026-01-31T00:00:00Z".to_owned())
}

impl Target {
    fn json(&self) -> Value {
        match self {
            Self::Earliest => json!("earliest"),
            Self::Latest => json!("latest"),
            Self::Offset(offset) => json!({ "offset": offset }),
            Self::Time(time) => json!({ "timestamp": time.to_string() }),
        }
    }
}

pub(super) async fn run(context: &Context, arguments: &RewindArgs) -> Result<(), Failure> {
    let asks = !arguments.dry_run && !arguments.yes;
    if asks && !is_at_terminal() {
        let message = "a rewind makes drover index records again or skip some: look with --dry-run, then repeat with --yes";
        return Err(Failure::Usage(message.to_owned()));
    }
    if arguments.dry_run {
        let foreseen = send(context, arguments, true).await?;
        context.printer.show(&foreseen, table)?;
        return outcome(&foreseen);
    }
    if asks {
        let foreseen = send(context, arguments, true).await?;
        tell_lines(&table(&foreseen).render());
        outcome(&foreseen)?;
        if !is_confirmed(&question(&arguments.name, &foreseen)) {
            return Err(Failure::Failed("nothing was moved".to_owned()));
        }
    }
    let moved = send(context, arguments, false).await?;
    context.printer.show(&moved, table)?;
    outcome(&moved)?;
    match arguments.wait.within() {
        Some(within) => wait::until_running(context, &arguments.name, &[], within).await,
        None => Ok(()),
    }
}

async fn send(context: &Context, arguments: &RewindArgs, is_dry_run: bool) -> Result<Document, Failure> {
    let mut body = Map::new();
    body.insert("to".to_owned(), arguments.to.json());
    if !arguments.partitions.is_empty() {
        body.insert("partitions".to_owned(), json!(arguments.partitions));
    }
    let route = topics::path(&arguments.name, Some("rewind"));
    let answer = context.client.send(Request::new(Method::POST, &route).dry_run(is_dry_run).json(&Value::Object(body))).await?;
    context.client.many(answer.document, PARTITION)
}

fn table(document: &Document) -> Table {
    let mut table = Table::new(&["PARTITION", "FROM", "TO", "RECORDS", "ERROR"]);
    for row in document.items("items") {
        table.row([row.cell("partition"), row.cell("from"), row.cell("to"), row.cell("records"), row.cell("error")]);
    }
    table
}

/// A failure when a partition was not moved, or would not be.
fn outcome(document: &Document) -> Result<(), Failure> {
    let rows = document.items("items");
    let failed = rows.iter().filter(|row| *row.at("error") != Document::Null).count();
    if rows.is_empty() {
        return Err(Failure::Failed("the topic has no partition to move".to_owned()));
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Failed(format!("{failed} of {} cannot be moved", counted(rows.len(), "partition")))) }
}

/// What is asked before anything is moved.
fn question(name: &TopicName, foreseen: &Document) -> String {
    let rows = foreseen.items("items");
    let again: i64 = rows.iter().filter_map(|row| row.number("records")).filter(|records| *records > 0).sum();
    let skipped: i64 = rows.iter().filter_map(|row| row.number("records")).filter(|records| *records < 0).map(i64::saturating_neg).sum();
    let unknown = rows.iter().filter(|row| row.number("records").is_none()).count();
    let mut parts = Vec::new();
    if again > 0 {
        parts.push(format!("{again} records are indexed again"));
    }
    if skipped > 0 {
        parts.push(format!("{skipped} records are SKIPPED"));
    }
    if unknown > 0 {
        parts.push(format!("for {} nobody knows how many", counted(unknown, "partition")));
    }
    let effect = if parts.is_empty() { "no record is affected".to_owned() } else { parts.join(", ") };
    format!("move {} of {name}? {effect} [y/N] ", counted(rows.len(), "partition"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_end_an_offset_or_a_time() {
        assert_eq!(target("earliest").map(|target| target.json()), Ok(json!("earliest")));
        assert_eq!(target("1000").map(|target| target.json()), Ok(json!({"offset": 1000})));
        assert_eq!(target("2026-01-31T01:00:00+01:00").map(|target| target.json()), Ok(json!({"timestamp": "2026-01-31T00:00:00Z"})));
        for text in ["", "-1", "1.5", "Earliest", "2026-01-31", "99999999999999999999"] {
            assert!(target(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_question_tells_skipped_records_from_repeated_ones() {
        let foreseen = serde_json::from_str(r#"{"items":[{"records":7},{"records":-5},{"records":null},{"records":0}]}"#).expect("JSON");
        let name = TopicName::new("orders").expect("a name");
        assert_eq!(
            question(&name, &foreseen),
            "move 4 partitions of orders? 7 records are indexed again, 5 records are SKIPPED, for 1 partition nobody knows how many [y/N] "
        );
    }
}
