//! Dead letters: the list, one of them, sending them again, and deleting them.
//!
//! Guarantees that nothing is deleted, and not all is sent again, which was not named one by one or confirmed by `--yes` or at a terminal.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;

use super::client::{Answer, LETTERS, Request};
use super::document::Document;
use super::failure::Failure;
use super::output::{self, tell};
use super::wait::{self, Bar, Look, Told, WaitArgs};
use super::watch::{self, WatchArgs};
use super::{Connection, Context, counted, given};
use crate::table::Table;
use crate::topic::TopicName;

/// Letters that one look of a wait asks for.
const ASKED_AT_ONCE: usize = 100;

/// The command `dead-letters`.
#[derive(Debug, Args)]
pub struct LettersArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: LettersCommand,
}

#[derive(Debug, Subcommand)]
enum LettersCommand {
    /// Lists the dead letters, by topic, partition and offset
    #[command(
        after_long_help = "Keys and payloads are in `-o json` and `-o yaml`, cut at 4 KiB.\nExamples:\n  drover dead-letters list --topic orders\n  drover dead-letters list --error-type document_parsing_exception -o json"
    )]
    List(ListArgs),
    /// Shows one dead letter, whole
    #[command(after_long_help = "Example:\n  drover dead-letters get HK2wYQabcdefghijklmnop:3:123")]
    Get(IdArgs),
    /// Sends dead letters again: formatted by the topic's spec of today, under the same id; what succeeds is gone from the list
    #[command(
        after_long_help = "The server goes on after the answer; `drover dead-letters list` shows what is left, and --wait stays until every letter was tried: exit code 1 when one was refused again.\nExamples:\n  drover dead-letters redrive HK2wYQabcdefghijklmnop:3:123\n  drover dead-letters redrive --topic orders --error-type strict_dynamic_mapping_exception\n  drover dead-letters redrive --topic orders --wait\n  drover dead-letters redrive --all --yes"
    )]
    Redrive(RedriveArgs),
    /// Deletes dead letters; their records are then in Kafka only, as long as that keeps them
    #[command(
        after_long_help = "Examples:\n  drover dead-letters delete HK2wYQabcdefghijklmnop:3:123\n  drover dead-letters delete --topic orders --until 2026-01-31T00:00:00Z"
    )]
    Delete(Chosen),
}

#[derive(Debug, Args)]
struct IdArgs {
    /// The letter's id
    id: String,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    filter: LettersFilter,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
struct RedriveArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct LettersFilter {
    /// Only this topic's
    #[arg(long, value_name = "NAME")]
    topic: Option<TopicName>,
    /// Only this partition's
    #[arg(long, value_name = "NUMBER", value_parser = super::partition, allow_hyphen_values = true)]
    partition: Option<u32>,
    /// Only errors of this type
    #[arg(long, value_name = "TYPE")]
    error_type: Option<String>,
    /// Only letters that last died at this time or later
    #[arg(long, value_name = "TIME", value_parser = super::time, allow_hyphen_values = true)]
    since: Option<Timestamp>,
    /// Only letters that last died before this time
    #[arg(long, value_name = "TIME", value_parser = super::time, allow_hyphen_values = true)]
    until: Option<Timestamp>,
}

/// Letters: by id, by filters, or all.
#[derive(Debug, Args)]
struct Chosen {
    /// Ids of letters
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: LettersFilter,
    /// Every letter there is
    #[arg(long)]
    all: bool,
    /// Does it without asking
    #[arg(short, long)]
    yes: bool,
}

/// What was chosen.
enum Choice {
    Ids(Vec<String>),
    Filters(Vec<(&'static str, String)>),
    All,
}

impl LettersFilter {
    fn query(self) -> Vec<(&'static str, String)> {
        given([
            ("topic", self.topic.map(|topic| topic.to_string())),
            ("partition", self.partition.map(|partition| partition.to_string())),
            ("error_type", self.error_type),
            ("since", self.since.map(|time| time.to_string())),
            ("until", self.until.map(|time| time.to_string())),
        ])
    }
}

impl Chosen {
    fn choice(self) -> Result<Choice, Failure> {
        let filters = self.filter.query();
        match (self.ids.is_empty(), filters.is_empty(), self.all) {
            (false, true, false) => Ok(Choice::Ids(self.ids)),
            (true, false, false) => Ok(Choice::Filters(filters)),
            (true, true, true) => Ok(Choice::All),
            _ => Err(Failure::Usage("say which letters: by their ids, by filters such as --topic, or --all".to_owned())),
        }
    }
}

pub(super) async fn run(arguments: LettersArgs) -> Result<(), Failure> {
    let every = if let LettersCommand::List(list) = &arguments.command { list.watch.every() } else { None };
    let context = Context::watching(arguments.connection, every)?;
    match arguments.command {
        LettersCommand::List(list) => {
            let query = list.filter.query();
            watch::run(&context, async || context.list(&LETTERS, &query, COLUMNS, row).await).await
        }
        LettersCommand::Get(letter) => {
            let document = context.client.get(&path(&letter.id, None), LETTERS.marks).await?;
            context.printer.show(&document, details)
        }
        LettersCommand::Redrive(RedriveArgs { chosen, wait }) => redrive(&context, chosen, wait.within()).await,
        LettersCommand::Delete(chosen) => delete(&context, chosen).await,
    }
}

/// The path of a letter, and of what is below it.
fn path<'a>(id: &'a str, below: Option<&'a str>) -> Vec<&'a str> {
    LETTERS.path.iter().copied().chain([id]).chain(below).collect()
}

const COLUMNS: [&str; 10] = ["ID", "CAUSE", "ERROR", "STATUS", "TOPIC", "PARTITION", "OFFSET", "ATTEMPTS", "LAST", "REASON"];

fn row(letter: &Document) -> [String; 10] {
    [
        letter.cell("id"),
        letter.cell("cause"),
        letter.cell("error.type"),
        letter.cell("error.status"),
        letter.cell("topic"),
        letter.cell("partition"),
        letter.cell("offset"),
        letter.cell("attempts"),
        letter.time("last_at"),
        letter.cell("error.reason"),
    ]
}

/// One letter, field by field; key and payload as text where they are text.
fn details(letter: &Document) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (label, field) in [
        ("id", "id"),
        ("topic", "topic"),
        ("partition", "partition"),
        ("offset", "offset"),
        ("timestamp", "timestamp"),
        ("index", "index"),
        ("cause", "cause"),
        ("error", "error.type"),
        ("status", "error.status"),
        ("reason", "error.reason"),
        ("attempts", "attempts"),
        ("first died", "first_at"),
        ("last died", "last_at"),
        ("last redrive that failed", "redriven_at"),
        ("payload bytes", "payload_bytes"),
    ] {
        table.row([label.to_owned(), letter.cell(field)]);
    }
    for (label, field) in [("key", "key_base64"), ("payload", "payload_base64")] {
        if let Some(encoded) = letter.text(field) {
            let (suffix, shown) = as_text(encoded);
            table.row([format!("{label}{suffix}"), shown]);
        }
    }
    if *letter.at("truncated") == Document::Flag(true) {
        table.row(["payload".to_owned(), "not kept: too large for the store".to_owned()]);
    }
    table
}

/// Base64 as the text that it holds, and what to say about it.
fn as_text(encoded: &str) -> (&'static str, String) {
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or_else(|| (" in base64", encoded.to_owned()), |text| ("", text))
}

async fn redrive(context: &Context, chosen: Chosen, within: Option<Duration>) -> Result<(), Failure> {
    let is_sure = chosen.yes;
    let mut accepted: i64 = 0;
    let choice = chosen.choice()?;
    if let Choice::All = &choice {
        must_be_asked(is_sure)?;
        let count = if is_sure { 0 } else { count(context).await? };
        confirm(is_sure, || format!("send every dead letter again? there are {count} now"), "nothing was sent")?;
    }
    let waiting = if within.is_some() { letters_of(context, &choice).await? } else { VecDeque::new() };
    match choice {
        Choice::Ids(ids) => {
            for id in &ids {
                accepted += order(context, &path(id, Some("redrive")), Vec::new()).await?;
            }
        }
        Choice::Filters(filters) => accepted = order(context, &[LETTERS.path, &["redrive"]].concat(), filters).await?,
        Choice::All => accepted = order(context, &[LETTERS.path, &["redrive"]].concat(), Vec::new()).await?,
    }
    let letters = counted(usize::try_from(accepted).unwrap_or(0), "dead letter");
    let hint = if within.is_some() { "" } else { "; `drover dead-letters list` shows what is left" };
    tell(&format!("{letters} will be sent again{hint}"));
    let document = serde_json::from_value(serde_json::json!({ "accepted": accepted })).unwrap_or(Document::Null);
    context.printer.show(&document, |document| {
        let mut table = Table::new(&["ACCEPTED"]);
        table.row([document.cell("accepted")]);
        table
    })?;
    match within {
        Some(within) => until_tried(context, waiting, within).await,
        None => Ok(()),
    }
}

/// A letter before its redrive: its id, and when the last one failed.
type Waiting = (String, Option<String>);

/// The letters that were chosen.
async fn letters_of(context: &Context, choice: &Choice) -> Result<VecDeque<Waiting>, Failure> {
    let mut letters = VecDeque::new();
    let waiting = |letter: &Document| (letter.cell("id"), letter.text("redriven_at").map(str::to_owned));
    let filters = match choice {
        Choice::Ids(ids) => {
            for id in ids {
                letters.push_back(waiting(&context.client.get(&path(id, None), LETTERS.marks).await?));
            }
            return Ok(letters);
        }
        Choice::Filters(filters) => filters.as_slice(),
        Choice::All => &[],
    };
    let gather = |page: Document| {
        letters.extend(page.items("items").iter().map(waiting));
        Ok(())
    };
    context.client.pages(&LETTERS, filters, gather).await?;
    Ok(letters)
}

/// Waits until each letter is gone or was refused again; a failure when one was.
async fn until_tried(context: &Context, mut waiting: VecDeque<Waiting>, within: Duration) -> Result<(), Failure> {
    let of = waiting.len();
    let (mut refused, mut without_payload) = (0, 0);
    let told = Told {
        not_so: "not every dead letter was tried".to_owned(),
        remedy: "drover goes on, save with letters of topics that no source names; `drover dead-letters list` shows what is left".to_owned(),
    };
    wait::until(within, told, async || {
        // One turn over those that are left, or a part of them: the order in which they are tried is the server's.
        for _ in 0..waiting.len().min(ASKED_AT_ONCE) {
            let Some((id, before)) = waiting.pop_front() else { break };
            match context.client.get(&path(&id, None), LETTERS.marks).await {
                Ok(letter) if letter.text("redriven_at") != before.as_deref() => refused += 1,
                // Of a single letter it means that the store has no payload, and so nothing to send.
                Ok(letter) if *letter.at("truncated") == Document::Flag(true) => without_payload += 1,
                Ok(_) => waiting.push_back((id, before)),
                Err(Failure::Refused(refusal)) if refusal.is_not_found() => {}
                Err(failure) => {
                    waiting.push_front((id, before));
                    return Err(failure);
                }
            }
        }
        let done = of - waiting.len();
        let what = format!("{done} of {} tried, {refused} refused again", counted(of, "dead letter"));
        Ok(if waiting.is_empty() { Look::Done } else { Look::NotYet { done, of, what } })
    })
    .await?;
    if refused + without_payload > 0 {
        let letters = counted(of, "dead letter");
        let gone =
            if without_payload > 0 { format!(", {without_payload} not sent because the store could not keep the payload") } else { String::new() };
        return Err(Failure::Failed(format!("of {letters} {refused} refused again{gone}; `drover dead-letters list` shows why")));
    }
    tell(&format!("{} sent", counted(of, "dead letter")));
    Ok(())
}

/// How many dead letters there are.
async fn count(context: &Context) -> Result<i64, Failure> {
    let route = [LETTERS.path, &["redrive"]].concat();
    let answer = context.client.send(Request::new(Method::POST, &route).dry_run(true)).await?;
    accepted(context, answer)
}

/// Asks for a redrive; how many letters were accepted.
async fn order(context: &Context, route: &[&str], filters: Vec<(&'static str, String)>) -> Result<i64, Failure> {
    let answer = context.client.send(Request::new(Method::POST, route).query(filters)).await?;
    accepted(context, answer)
}

fn accepted(context: &Context, answer: Answer) -> Result<i64, Failure> {
    let accepted = answer.document.and_then(|document| document.number("accepted"));
    accepted.ok_or_else(|| context.client.not_drover("a redrive without a number of accepted letters".to_owned()))
}

async fn delete(context: &Context, chosen: Chosen) -> Result<(), Failure> {
    let is_sure = chosen.yes;
    let filters = match chosen.choice()? {
        Choice::Ids(ids) => {
            for id in &ids {
                context.client.send(Request::new(Method::DELETE, &path(id, None))).await?;
            }
            tell(&format!("deleted {}", counted(ids.len(), "dead letter")));
            return Ok(());
        }
        Choice::Filters(filters) => filters,
        Choice::All => Vec::new(),
    };
    must_be_asked(is_sure)?;
    let mut ids = Vec::new();
    let gather = |page: Document| {
        ids.extend(page.items("items").iter().map(|letter| letter.cell("id")));
        Ok(())
    };
    context.client.pages(&LETTERS, &filters, gather).await?;
    if ids.is_empty() {
        tell("there is no such dead letter");
        return Ok(());
    }
    let question = || format!("delete {}? their records are then in Kafka only, as long as that keeps them", counted(ids.len(), "dead letter"));
    confirm(is_sure, question, "nothing was deleted")?;
    let mut deleted = 0;
    let bar = Bar::new();
    for (done, id) in ids.iter().enumerate() {
        bar.at(done, ids.len());
        match context.client.send(Request::new(Method::DELETE, &path(id, None))).await {
            Ok(_) => deleted += 1,
            // A redrive was quicker.
            Err(Failure::Refused(refusal)) if refusal.is_not_found() => {}
            Err(failure) => {
                bar.clear();
                tell(&format!("deleted {} of {}", deleted, counted(ids.len(), "dead letter")));
                return Err(failure);
            }
        }
    }
    bar.clear();
    tell(&format!("deleted {}", counted(deleted, "dead letter")));
    Ok(())
}

/// A failure where nobody can be asked.
fn must_be_asked(is_sure: bool) -> Result<(), Failure> {
    if is_sure || output::is_at_terminal() {
        return Ok(());
    }
    Err(Failure::Usage("this concerns many dead letters: look with `drover dead-letters list`, then repeat with --yes".to_owned()))
}

fn confirm(is_sure: bool, question: impl FnOnce() -> String, otherwise: &str) -> Result<(), Failure> {
    must_be_asked(is_sure)?;
    if is_sure || output::is_confirmed(&format!("{} [y/N] ", question())) {
        return Ok(());
    }
    Err(Failure::Failed(otherwise.to_owned()))
}
