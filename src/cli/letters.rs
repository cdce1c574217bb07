//! Dead letters: the list.

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::client::LETTERS;
use super::document::Document;
use super::failure::Failure;
use super::{Connection, Context, given};
use crate::topic::TopicName;

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
    List(LettersFilter),
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

pub(super) async fn run(arguments: LettersArgs) -> Result<(), Failure> {
    let context = Context::new(arguments.connection)?;
    let LettersCommand::List(filter) = arguments.command;
    let query = given([
        ("topic", filter.topic.map(|topic| topic.to_string())),
        ("partition", filter.partition.map(|partition| partition.to_string())),
        ("error_type", filter.error_type),
        ("since", filter.since.map(|time| time.to_string())),
        ("until", filter.until.map(|time| time.to_string())),
    ]);
    let columns = ["ID", "CAUSE", "ERROR", "STATUS", "TOPIC", "PARTITION", "OFFSET", "ATTEMPTS", "LAST", "REASON"];
    context.list(&LETTERS, &query, columns, row).await
}

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
