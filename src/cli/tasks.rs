//! Tasks: the list, one of them with how its lives ended, and its restart.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use reqwest::Method;

use super::client::{Request, TASK, TASKS};
use super::document::Document;
use super::failure::Failure;
use super::output::tell;
use super::watch::{self, WatchArgs};
use super::{Connection, Context, given};
use crate::status::TaskState;
use crate::table::Table;
use crate::topic::TopicName;

/// The command `tasks`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "Examples:\n  drover tasks --state backoff\n  drover tasks --topic orders --sort=-lag\n  drover tasks --topic orders --watch=5\n  drover tasks get orders 3\n  drover tasks restart orders 3"
)]
pub struct TasksArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    filter: TasksFilter,
    #[command(subcommand)]
    command: Option<TasksCommand>,
}

#[derive(Debug, Args)]
struct TasksFilter {
    /// Only this topic's tasks
    #[arg(long, value_name = "NAME")]
    topic: Option<TopicName>,
    /// Only tasks in this state
    #[arg(long, value_parser = PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str)))]
    state: Option<String>,
    /// Only this instance's tasks
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Only tasks with at least this many restarts
    #[arg(long, value_name = "COUNT")]
    min_restarts: Option<u64>,
    /// Only tasks whose lag is known and at least this
    #[arg(long, value_name = "RECORDS")]
    min_lag: Option<u64>,
    /// Fields to order by, each with `-` for descending, such as --sort=-lag,topic
    #[arg(long, value_name = "FIELDS", allow_hyphen_values = true)]
    sort: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Subcommand)]
enum TasksCommand {
    /// Shows one task, with how its last lives ended
    #[command(after_long_help = "Example:\n  drover tasks get orders 3")]
    Get(GetArgs),
    /// Restarts one task: it ends and goes on at its watermark
    #[command(after_long_help = "Example:\n  drover tasks restart orders 3")]
    Restart(OneTask),
}

#[derive(Debug, Args)]
struct GetArgs {
    #[command(flatten)]
    task: OneTask,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
struct OneTask {
    /// The topic's name
    topic: TopicName,
    /// The partition's number
    #[arg(value_parser = super::partition, allow_negative_numbers = true)]
    partition: u32,
}

pub(super) async fn run(arguments: TasksArgs) -> Result<(), Failure> {
    match arguments.command {
        None => {
            let context = Context::watching(arguments.connection, arguments.filter.watch.every())?;
            let query = arguments.filter.query();
            watch::run(&context, async || context.list(&TASKS, &query, COLUMNS, row).await).await
        }
        Some(TasksCommand::Get(GetArgs { task, watch })) => {
            let context = Context::watching(arguments.connection, watch.every())?;
            watch::run(&context, async || get(&context, &task).await).await
        }
        Some(TasksCommand::Restart(task)) => restart(&Context::new(arguments.connection)?, &task).await,
    }
}

const COLUMNS: [&str; 9] = ["TOPIC", "PARTITION", "STATE", "INSTANCE", "LAG", "RATE", "RESTARTS", "SINCE", "REASON"];

impl TasksFilter {
    fn query(self) -> Vec<(&'static str, String)> {
        given([
            ("topic", self.topic.map(|topic| topic.to_string())),
            ("state", self.state),
            ("instance", self.instance),
            ("min_restarts", self.min_restarts.map(|least| least.to_string())),
            ("min_lag", self.min_lag.map(|least| least.to_string())),
            ("sort", self.sort),
        ])
    }
}

async fn get(context: &Context, task: &OneTask) -> Result<(), Failure> {
    let partition = task.partition.to_string();
    let document = context.client.get(&["api", "v1", "tasks", task.topic.as_str(), &partition], TASK).await?;
    context.printer.show(&document, details)
}

fn row(task: &Document) -> [String; 9] {
    [
        task.cell("topic"),
        task.cell("partition"),
        task.cell("state"),
        task.cell("instance"),
        task.cell("lag"),
        task.fraction("records_per_second"),
        task.cell("restarts_total"),
        task.time("since_at"),
        task.cell("reason.code"),
    ]
}

async fn restart(context: &Context, task: &OneTask) -> Result<(), Failure> {
    let partition = task.partition.to_string();
    let path = ["api", "v1", "tasks", task.topic.as_str(), &partition, "restart"];
    let answer = context.client.send(Request::new(Method::POST, &path)).await?;
    let document = context.client.one(answer.document, TASK)?;
    tell(&format!("restarted {}/{partition}: life {}", task.topic, document.cell("incarnation")));
    context.printer.show(&document, details)
}

/// One task, field by field.
fn details(task: &Document) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for field in ["topic", "partition", "instance", "state", "health"] {
        table.row([field.to_owned(), task.cell(field)]);
    }
    for field in ["reason.code", "reason.message", "reason.remedy"] {
        if !task.cell(field).is_empty() {
            table.row([field.replace("reason.code", "reason").replace("reason.", ""), task.cell(field)]);
        }
    }
    table.row(["since".to_owned(), task.time("since_at")]);
    for (label, field) in [
        ("incarnation", "incarnation"),
        ("restarts", "restarts_total"),
        ("consecutive failures", "consecutive_failures"),
        ("position", "position"),
        ("committed", "committed"),
        ("high watermark", "high_watermark"),
        ("lag", "lag"),
        ("indexed", "indexed_total"),
        ("dead-lettered", "dead_lettered_total"),
        ("skipped", "skipped_total"),
        ("retried", "retried_total"),
        ("lost", "lost_total"),
    ] {
        table.row([label.to_owned(), task.cell(field)]);
    }
    table.row(["lag seconds".to_owned(), task.fraction("lag_seconds")]);
    table.row(["records per second".to_owned(), task.fraction("records_per_second")]);
    table.row(["next restart".to_owned(), task.time("next_restart_at")]);
    for exit in task.items("recent_exits") {
        let offset = exit.number("offset").map(|offset| format!(" at offset {offset}")).unwrap_or_default();
        let message = exit.text("message").filter(|message| !message.is_empty()).map(|message| format!(": {message}")).unwrap_or_default();
        table.row([format!("exit {}", exit.time("at")), format!("{}{offset}{message}", exit.cell("cause"))]);
    }
    table
}
