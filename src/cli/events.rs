//! Events: what happened, in the order in which it did, and what happens from now on.
//!
//! Guarantees that following shows every event that is still kept exactly once, also over a restart of drover, and goes on by itself after drover was away.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;

use super::client::EVENTS;
use super::document::Document;
use super::failure::Failure;
use super::output::tell;
use super::{Connection, Context, given};
use crate::status::events::{EventKind, KEPT_EVENTS, Severity};
use crate::table::Table;
use crate::topic::TopicName;

/// Between two looks for new events.
const POLL: Duration = Duration::from_secs(1);
/// Events that are shown before following when nobody says how many.
const BEFORE_FOLLOWING: usize = 10;
/// Columns of time, severity, kind, topic and partition, so that rows which come later still line up.
const WIDTHS: [usize; 5] = [20, 8, 16, 20, 9];
const COLUMNS: [&str; 6] = ["AT", "SEVERITY", "KIND", "TOPIC", "PARTITION", "MESSAGE"];

/// The command `events`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "The oldest comes first; the order in `-o json` and `-o yaml` without --follow is the API's: the newest first.\nExamples:\n  drover events --severity error\n  drover events --follow --topic orders\n  drover events --follow -o json | jq .message"
)]
pub struct EventsArgs {
    #[command(flatten)]
    connection: Connection,
    /// Goes on with what happens from now on, until it is interrupted; with `-o json` each event is one line
    #[arg(short, long)]
    follow: bool,
    /// Only the newest so many; without it all that are kept, with --follow 10
    #[arg(short = 'n', long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Only this topic's
    #[arg(long, value_name = "NAME")]
    topic: Option<TopicName>,
    /// Only events of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(EventKind::ALL.map(EventKind::as_str)))]
    kind: Option<String>,
    /// Only events of this severity
    #[arg(long, value_parser = PossibleValuesParser::new(Severity::ALL.map(Severity::as_str)))]
    severity: Option<String>,
    /// Only events at this time or later
    #[arg(long, value_name = "TIME", value_parser = super::time, allow_hyphen_values = true)]
    since: Option<Timestamp>,
}

/// The place of an event: the run of drover that it belongs to, and its number there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    epoch: String,
    number: u64,
}

impl Place {
    fn of(event: &Document) -> Option<Self> {
        let (epoch, number) = event.text("id")?.rsplit_once('-')?;
        Some(Self { epoch: epoch.to_owned(), number: number.parse().ok()? })
    }

    /// Whether an event at `self` is no news to who has seen `seen`.
    fn is_seen(&self, seen: &Self) -> bool {
        self.epoch == seen.epoch && self.number <= seen.number
    }
}

pub(super) async fn run(arguments: EventsArgs) -> Result<(), Failure> {
    let context = Context::new(arguments.connection)?;
    let query = given([
        ("topic", arguments.topic.map(|topic| topic.to_string())),
        ("kind", arguments.kind),
        ("severity", arguments.severity),
        ("since", arguments.since.map(|time| time.to_string())),
    ]);
    if arguments.follow {
        return follow(&context, &query, arguments.limit.unwrap_or(BEFORE_FOLLOWING)).await;
    }
    let limit = arguments.limit.unwrap_or(KEPT_EVENTS);
    let mut whole = None;
    context
        .client
        .pages(&EVENTS, &query, |page| {
            super::join(&mut whole, page);
            Ok(())
        })
        .await?;
    let mut document = whole.unwrap_or(Document::Null);
    if let Document::Object(fields) = &mut document
        && let Some((_, Document::List(items))) = fields.iter_mut().find(|(name, _)| name == "items")
    {
        items.truncate(limit);
    }
    context.printer.show(&document, |document| {
        let mut table = Table::new(&COLUMNS);
        document.items("items").iter().rev().for_each(|event| table.row(row(event)));
        table
    })
}

fn row(event: &Document) -> [String; 6] {
    [event.time("at"), event.cell("severity"), event.cell("kind"), event.cell("topic"), event.cell("partition"), event.cell("message")]
}

async fn follow(context: &Context, query: &[(&'static str, String)], before: usize) -> Result<(), Failure> {
    let mut table = Table::new(&COLUMNS);
    table.reserve(&WIDTHS);
    let mut fresh = newest(context, query, None).await?;
    let mut seen = fresh.first().and_then(Place::of);
    fresh.truncate(before);
    print(context, &mut table, &fresh)?;
    let mut is_away = false;
    loop {
        tokio::time::sleep(POLL).await;
        match newest(context, query, seen.as_ref()).await {
            Ok(events) => {
                if is_away {
                    tell("drover: it answers again");
                }
                is_away = false;
                seen = events.first().and_then(Place::of).or(seen);
                print(context, &mut table, &events)?;
            }
            Err(failure) if failure.may_pass(false) => {
                if !is_away {
                    tell(&format!("drover: {}; trying again every {} s", failure.brief(), POLL.as_secs()));
                }
                is_away = true;
            }
            Err(other) => return Err(other),
        }
    }
}

/// The events that are new to who has seen `seen`, newest first.
async fn newest(context: &Context, query: &[(&'static str, String)], seen: Option<&Place>) -> Result<Vec<Document>, Failure> {
    let mut fresh: Vec<Document> = Vec::new();
    let mut cursor: Option<String> = None;
    // The first page is small, because most looks find nothing.
    let mut limit = "100";
    loop {
        let page = context.client.page(&EVENTS, query, limit, cursor.as_deref()).await?;
        for event in page.items("items") {
            let is_seen = Place::of(event).zip(seen).is_some_and(|(place, seen)| place.is_seen(seen));
            if is_seen {
                return Ok(fresh);
            }
            fresh.push(event.clone());
        }
        cursor = page.text("next").map(str::to_owned);
        limit = "1000";
        if cursor.is_none() || fresh.len() > KEPT_EVENTS {
            return Ok(fresh);
        }
    }
}

/// Prints events that are given newest first, oldest first.
fn print(context: &Context, table: &mut Table, newest_first: &[Document]) -> Result<(), Failure> {
    for event in newest_first.iter().rev() {
        if context.printer.is_table() {
            table.row(row(event));
        } else {
            context.printer.show_next(event)?;
        }
    }
    if context.printer.is_table() { context.printer.rows(table) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(id: &str) -> Option<Place> {
        Place::of(&Document::Object(vec![("id".to_owned(), Document::Text(id.to_owned()))]))
    }

    #[test]
    fn an_event_of_another_run_is_always_new() {
        let seen = place("01J-ABC-7").expect("a place");
        assert!(place("01J-ABC-7").is_some_and(|event| event.is_seen(&seen)));
        assert!(place("01J-ABC-8").is_some_and(|event| !event.is_seen(&seen)));
        assert!(place("01K-ABC-1").is_some_and(|event| !event.is_seen(&seen)));
        assert_eq!(place("nothing"), None);
    }
}
