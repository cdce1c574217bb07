//! Sources of topics: the list, and the confirmation of one that went back in time.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::{Request, SOURCE};
use super::document::Document;
use super::failure::Failure;
use super::output::tell;
use super::watch::{self, WatchArgs};
use super::{Connection, Context};
use crate::table::Table;

/// The command `sources`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  drover sources\n  drover sources --watch\n  drover sources confirm etcd")]
pub struct SourcesArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(subcommand)]
    command: Option<SourcesCommand>,
}

#[derive(Debug, Subcommand)]
enum SourcesCommand {
    /// Takes the sources of a kind as they are now, after an etcd was restored or replaced on purpose
    #[command(
        after_long_help = "The collector's keys and the store are in the same etcd and are taken together.\nExample:\n  drover sources confirm etcd"
    )]
    Confirm {
        /// The kind of source
        #[arg(value_parser = PossibleValuesParser::new(["file", "etcd", "store"]))]
        kind: String,
    },
}

pub(super) async fn run(arguments: SourcesArgs) -> Result<(), Failure> {
    let Some(SourcesCommand::Confirm { kind }) = arguments.command else {
        let context = Context::watching(arguments.connection, arguments.watch.every())?;
        return watch::run(&context, async || look(&context).await).await;
    };
    if arguments.watch.every().is_some() {
        return Err(Failure::Usage("--watch shows the list; leave it out to confirm".to_owned()));
    }
    let context = Context::new(arguments.connection)?;
    let answer = context.client.send(Request::new(Method::POST, &["api", "v1", "sources", &kind, "confirm"])).await?;
    let document = context.client.many(answer.document, SOURCE)?;
    tell(&format!("confirmed {kind}: what follows is how it was before; `drover sources` shows when it is taken"));
    context.printer.show(&document, table)
}

async fn look(context: &Context) -> Result<(), Failure> {
    let document = context.client.send(Request::get(&["api", "v1", "sources"])).await?.document;
    let document = context.client.many(document, SOURCE)?;
    context.printer.show(&document, table)
}

fn table(sources: &Document) -> Table {
    let mut table = Table::new(&["KIND", "DETAIL", "STATUS", "TOPICS", "READ", "CHANGED", "ERROR"]);
    for source in sources.items("items") {
        let line = source.number("error.line").map(|line| format!("line {line}: ")).unwrap_or_default();
        table.row([
            source.cell("kind"),
            source.cell("detail"),
            source.cell("status"),
            source.cell("topics"),
            source.time("read_at"),
            source.time("changed_at"),
            format!("{line}{}", source.cell("error.message")),
        ]);
    }
    table
}
