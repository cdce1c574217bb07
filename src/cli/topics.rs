//! Topics: the list, one of them, and every change of one.
//!
//! Guarantees that a change says on stderr what was done and prints on stdout what is there now; that a dry run ends with the exit code which the change itself would have.

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;
use serde_json::{Map, Value, json};

use super::client::{Answer, DRY_RUN, PARTITION, Request, TOPIC, TOPICS};
use super::document::Document;
use super::failure::{Failure, Refusal};
use super::output::tell;
use super::wait::{self, WaitArgs};
use super::watch::{self, WatchArgs};
use super::{Connection, Context, counted, given, rewind};
use crate::status::TaskState;
use crate::table::Table;
use crate::topic::TopicName;

/// The status with which the API says that nothing is left to show.
const NO_CONTENT: u16 = 204;

/// The command `topics`.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Lists the topics: what is wanted, who wants it and what it does
    #[command(
        after_long_help = "Examples:\n  drover topics list\n  drover topics list --state waiting\n  drover topics list --sort=-lag,name -o json\n  drover topics list --watch"
    )]
    List(ListArgs),
    /// Shows one topic: its status, and each field of its spec with where it comes from
    #[command(after_long_help = "Example:\n  drover topics get orders")]
    Get(GetArgs),
    /// Adds a topic, or replaces what was added before, as a whole
    #[command(
        after_long_help = "Fields that are not given come from the other sources or are built in.\nExamples:\n  drover topics add orders --format json --index 'orders-{date}'\n  drover topics add orders --label team=shop --create-only --wait\n  drover topics add orders --start 2026-01-31T00:00:00Z --dry-run"
    )]
    Add(Box<AddArgs>),
    /// Removes a topic that was added; committed offsets stay, so that adding it again goes on there
    #[command(after_long_help = "Examples:\n  drover topics remove orders --dry-run\n  drover topics remove orders --wait")]
    Remove(TryArgs),
    /// Pauses a topic of any source: its tasks stop; nothing is lost
    #[command(
        after_long_help = "What the tasks have read and not settled yet is read again when the topic is resumed, and gets the same ids.\nExamples:\n  drover topics pause orders --reason 'index maintenance'\n  drover topics pause orders --until 2h --wait"
    )]
    Pause(PauseArgs),
    /// Lifts a topic's pause
    #[command(after_long_help = "Example:\n  drover topics resume orders --wait")]
    Resume(TryArgs),
    /// Restarts every task of a topic: each ends and goes on at its watermark
    #[command(after_long_help = "Examples:\n  drover topics restart orders\n  drover topics restart orders --wait --timeout 2m")]
    Restart(TryArgs),
    /// Moves a topic's partitions to another offset, to index records again or to skip some
    #[command(
        after_long_help = "Shows what would happen and asks first; without a terminal it wants --yes.\nExamples:\n  drover topics rewind orders --to earliest --dry-run\n  drover topics rewind orders --to 2026-01-31T00:00:00Z --partition 0 --partition 3\n  drover topics rewind orders --to 1000 --partition 2 --yes"
    )]
    Rewind(rewind::RewindArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only topics whose name contains this text, in any case
    #[arg(long = "match", value_name = "TEXT")]
    text: Option<String>,
    /// Only topics in this state
    #[arg(long, value_parser = PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str)))]
    state: Option<String>,
    /// Only topics that this kind of source names
    #[arg(long, value_parser = PossibleValuesParser::new(["file", "etcd", "store"]))]
    source: Option<String>,
    /// Fields to order by, each with `-` for descending, such as --sort=-lag,name
    #[arg(long, value_name = "FIELDS", allow_hyphen_values = true)]
    sort: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
struct GetArgs {
    /// The topic's name
    name: TopicName,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
struct TryArgs {
    /// The topic's name
    name: TopicName,
    /// Only says what would happen
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The topic's name
    name: TopicName,
    /// Template of the index name: {topic}, {date} or {date:%Y.%m} and literal text
    #[arg(long, value_name = "TEMPLATE", allow_hyphen_values = true)]
    index: Option<String>,
    /// How a record becomes a document
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "json", "text", "classic"]))]
    format: Option<String>,
    /// Whether the kafka object is added to documents
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "on", "off"]))]
    metadata: Option<String>,
    /// The bulk operation; data streams need create
    #[arg(long, value_parser = PossibleValuesParser::new(["index", "create"]))]
    operation: Option<String>,
    /// An ingest pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Where a partition without a committed offset starts: earliest, latest or a time
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    start: Option<String>,
    /// What happens to a record without a value
    #[arg(long, value_parser = PossibleValuesParser::new(["skip", "dead_letter"]))]
    tombstones: Option<String>,
    /// What a permanent rejection does
    #[arg(long, value_parser = PossibleValuesParser::new(["dead_letter", "stop"]))]
    on_reject: Option<String>,
    /// Free text shown with the topic; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only says what would happen
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Fails with exit code 5 when it was added before
    #[arg(long)]
    create_only: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct PauseArgs {
    /// The topic's name
    name: TopicName,
    /// Why, in your words
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// When it ends by itself: a time, or a span from now such as 2h
    #[arg(long, value_name = "TIME|SPAN", value_parser = until, allow_hyphen_values = true)]
    until: Option<Timestamp>,
    /// Only says what would happen
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write a label as KEY=VALUE".to_owned()),
    }
}

fn until(text: &str) -> Result<Timestamp, String> {
    let Ok(span) = super::span(text) else {
        return super::time(text).map_err(|_| "write a time as 2026-01-31T06:00:00Z or a span from now as 30m or 2h".to_owned());
    };
    Timestamp::now().checked_add(span).map_err(|_| "that is too far away".to_owned())
}

/// The path of a topic, and of what is below it.
pub(super) fn path<'a>(name: &'a TopicName, below: Option<&'a str>) -> Vec<&'a str> {
    ["api", "v1", "topics", name.as_str()].into_iter().chain(below).collect()
}

pub(super) async fn run(arguments: TopicsArgs) -> Result<(), Failure> {
    let context = Context::watching(arguments.connection, arguments.command.every())?;
    match arguments.command {
        TopicsCommand::List(filter) => {
            let query = filter.query();
            watch::run(&context, async || context.list(&TOPICS, &query, COLUMNS, row).await).await
        }
        TopicsCommand::Get(topic) => watch::run(&context, async || get(&context, &topic.name).await).await,
        TopicsCommand::Add(topic) => add(&context, *topic).await,
        TopicsCommand::Remove(topic) => remove(&context, &topic).await,
        TopicsCommand::Pause(pause) => lay_pause(&context, &pause).await,
        TopicsCommand::Resume(topic) => resume(&context, &topic).await,
        TopicsCommand::Restart(topic) => restart(&context, &topic).await,
        TopicsCommand::Rewind(arguments) => rewind::run(&context, &arguments).await,
    }
}

const COLUMNS: [&str; 9] = ["NAME", "STATE", "HEALTH", "TASKS", "LAG", "RATE", "RESTARTS", "INDEX", "SOURCES"];

impl TopicsCommand {
    /// Between two looks, of a command that looks.
    fn every(&self) -> Option<Duration> {
        match self {
            Self::List(arguments) => arguments.watch.every(),
            Self::Get(arguments) => arguments.watch.every(),
            _ => None,
        }
    }
}

impl ListArgs {
    fn query(self) -> Vec<(&'static str, String)> {
        given([("q", self.text), ("state", self.state), ("source", self.source), ("sort", self.sort)])
    }
}

async fn get(context: &Context, name: &TopicName) -> Result<(), Failure> {
    let document = context.client.get(&path(name, None), TOPIC).await?;
    context.printer.show(&document, details)
}

fn row(topic: &Document) -> [String; 9] {
    let mut sources: Vec<String> = topic.items("sources").iter().map(|source| source.cell("kind")).collect();
    sources.dedup();
    let running = topic.number("status.tasks.running").unwrap_or(0);
    [
        topic.cell("name"),
        topic.cell("status.state"),
        topic.cell("status.health"),
        format!("{running}/{}", topic.cell("status.partitions")),
        topic.cell("status.lag"),
        topic.fraction("status.records_per_second"),
        topic.cell("status.restarts_total"),
        topic.cell("spec.index"),
        sources.join(","),
    ]
}

fn one(topic: &Document) -> Table {
    let mut table = Table::new(&COLUMNS);
    table.row(row(topic));
    table
}

/// One topic, field by field; fields of the spec with where they come from.
fn details(topic: &Document) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE", "FROM"]);
    let mut fact = |label: &str, value: String| table.row([label.to_owned(), value, String::new()]);
    fact("name", topic.cell("name"));
    fact("state", topic.cell("status.state"));
    fact("health", topic.cell("status.health"));
    for (label, field) in [("reason", "code"), ("message", "message"), ("remedy", "remedy")] {
        let value = topic.cell(&format!("status.reason.{field}"));
        if !value.is_empty() {
            fact(label, value);
        }
    }
    if *topic.at("paused") != Document::Null {
        let until = topic.time("paused.until_at");
        let until = if until.is_empty() { String::new() } else { format!(" until {until}") };
        fact("paused", format!("by {} since {}{until}", topic.cell("paused.actor"), topic.time("paused.since_at")));
        fact("pause reason", topic.cell("paused.reason"));
    }
    let tasks: Vec<String> = topic.fields("status.tasks").iter().map(|(state, count)| format!("{} {state}", count.cell(""))).collect();
    fact("partitions", topic.cell("status.partitions"));
    fact("tasks", tasks.join(", "));
    fact("lag", topic.cell("status.lag"));
    fact("lag seconds", topic.fraction("status.lag_seconds"));
    fact("records per second", topic.fraction("status.records_per_second"));
    for (label, field) in [
        ("restarts", "restarts_total"),
        ("indexed", "indexed_total"),
        ("dead-lettered", "dead_lettered_total"),
        ("skipped", "skipped_total"),
        ("lost", "lost_total"),
    ] {
        fact(label, topic.cell(&format!("status.{field}")));
    }
    for (field, value) in topic.fields("spec") {
        table.row([format!("spec.{field}"), value.cell(""), topic.cell(&format!("spec_origin.{field}"))]);
    }
    for source in topic.items("sources") {
        let place = if source.cell("detail").is_empty() { source.cell("key") } else { source.cell("detail") };
        let revision = source.number("revision").map(|revision| format!(" at revision {revision}")).unwrap_or_default();
        table.row(["named by".to_owned(), format!("{place}{revision}"), source.cell("kind")]);
    }
    table
}

async fn add(context: &Context, topic: AddArgs) -> Result<(), Failure> {
    let route = path(&topic.name, None);
    let put = |is_dry_run: bool| {
        let request = Request::new(Method::PUT, &route).dry_run(is_dry_run).json(&Value::Object(fields(&topic)));
        if topic.create_only { request.header(IF_NONE_MATCH, "*") } else { request }
    };
    let advised = |failure: Failure| {
        let advice = "it was added before; leave out --create-only to replace it";
        if topic.create_only { failure.advised("precondition-failed", advice) } else { failure }
    };
    let lives = match topic.wait.within() {
        Some(_) => lives_to_begin(context, &topic.name, put(true)).await?,
        None => Vec::new(),
    };
    let answer = context.client.send(put(topic.dry_run)).await.map_err(advised)?;
    if topic.dry_run {
        return show_dry_run(context, answer).map_err(advised);
    }
    let document = context.client.one(answer.document, TOPIC)?;
    tell(&format!("{} {}", if answer.status == 201 { "added" } else { "replaced" }, topic.name));
    tell_if_late(answer.is_applied);
    let Some(within) = topic.wait.within() else { return context.printer.show(&document, one) };
    wait::until_running(context, &topic.name, &lives, within).await?;
    show_now(context, &topic.name).await
}

/// Partition and incarnation of the lives that begin because of a change, which is tried for that where there are tasks. The ones before may still run when the change is stored, and would be taken for them.
async fn lives_to_begin(context: &Context, name: &TopicName, change: Request<'_>) -> Result<Vec<(i64, i64)>, Failure> {
    let tasks = wait::tasks_of(context, name).await?;
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let would = context.client.one(context.client.send(change).await?.document, DRY_RUN)?;
    let ended: Vec<String> = would.items("would.restart").iter().map(|task| task.cell("")).collect();
    let lives = tasks.iter().filter(|task| ended.contains(&format!("{}/{}", task.cell("topic"), task.cell("partition"))));
    Ok(lives.filter_map(|task| Some((task.number("partition")?, task.number("incarnation")? + 1))).collect())
}

/// The fields of the spec that were given.
fn fields(topic: &AddArgs) -> Map<String, Value> {
    let texts = [
        ("index", &topic.index),
        ("format", &topic.format),
        ("metadata", &topic.metadata),
        ("operation", &topic.operation),
        ("pipeline", &topic.pipeline),
        ("start", &topic.start),
        ("tombstones", &topic.tombstones),
        ("on_reject", &topic.on_reject),
    ];
    let mut fields: Map<String, Value> =
        texts.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| (name.to_owned(), json!(value)))).collect();
    if !topic.labels.is_empty() {
        let labels: Map<String, Value> = topic.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        fields.insert("labels".to_owned(), Value::Object(labels));
    }
    fields
}

async fn remove(context: &Context, topic: &TryArgs) -> Result<(), Failure> {
    let answer = context.client.send(Request::new(Method::DELETE, &path(&topic.name, None)).dry_run(topic.dry_run)).await?;
    if topic.dry_run {
        return show_dry_run(context, answer);
    }
    if answer.status == NO_CONTENT {
        tell_if_late(answer.is_applied);
        tell(&format!("removed {}", topic.name));
        return match topic.wait.within() {
            Some(within) => wait::until_gone(context, &topic.name, within).await,
            None => Ok(()),
        };
    }
    let document = context.client.one(answer.document, TOPIC)?;
    tell_if_late(answer.is_applied);
    let places: Vec<String> = document
        .items("sources")
        .iter()
        .map(|source| format!("{} {}{}", source.cell("kind"), source.cell("detail"), source.cell("key")))
        .map(|place| place.trim_end().to_owned())
        .collect();
    tell(&format!("removed what was added; {} goes on, because it is also named by {}", topic.name, places.join(", ")));
    let Some(within) = topic.wait.within() else { return context.printer.show(&document, one) };
    wait::until_running(context, &topic.name, &[], within).await?;
    show_now(context, &topic.name).await
}

async fn lay_pause(context: &Context, pause: &PauseArgs) -> Result<(), Failure> {
    let mut body = Map::new();
    if let Some(reason) = &pause.reason {
        body.insert("reason".to_owned(), json!(reason));
    }
    if let Some(until) = pause.until {
        body.insert("until_at".to_owned(), json!(until.to_string()));
    }
    let route = path(&pause.name, Some("pause"));
    let answer = context.client.send(Request::new(Method::PUT, &route).dry_run(pause.dry_run).json(&Value::Object(body))).await?;
    if pause.dry_run {
        return show_dry_run(context, answer);
    }
    let document = context.client.one(answer.document, TOPIC)?;
    tell_if_late(answer.is_applied);
    let end = document.time("paused.until_at");
    let end = if end.is_empty() { String::new() } else { format!(" until {end}") };
    tell(&format!("paused {}{end}", pause.name));
    let Some(within) = pause.wait.within() else { return context.printer.show(&document, one) };
    wait::until_stopped(context, &pause.name, within).await?;
    show_now(context, &pause.name).await
}

/// Prints the topic as it is now, after a wait.
async fn show_now(context: &Context, name: &TopicName) -> Result<(), Failure> {
    let document = context.client.get(&path(name, None), TOPIC).await?;
    context.printer.show(&document, one)
}

async fn resume(context: &Context, topic: &TryArgs) -> Result<(), Failure> {
    let answer = context.client.send(Request::new(Method::DELETE, &path(&topic.name, Some("pause"))).dry_run(topic.dry_run)).await?;
    if topic.dry_run {
        return show_dry_run(context, answer);
    }
    if answer.status != NO_CONTENT {
        return Err(context.client.not_drover(format!("status {} to the end of a pause", answer.status)));
    }
    tell_if_late(answer.is_applied);
    tell(&format!("resumed {}", topic.name));
    match topic.wait.within() {
        Some(within) => wait::until_running(context, &topic.name, &[], within).await,
        None => Ok(()),
    }
}

async fn restart(context: &Context, topic: &TryArgs) -> Result<(), Failure> {
    let answer = context.client.send(Request::new(Method::POST, &path(&topic.name, Some("restart"))).dry_run(topic.dry_run)).await?;
    if topic.dry_run {
        return show_dry_run(context, answer);
    }
    let document = context.client.many(answer.document, PARTITION)?;
    let rows = document.items("items");
    let lives: Vec<(i64, i64)> = rows.iter().filter_map(|row| row.number("partition").zip(row.number("incarnation"))).collect();
    tell(&format!("restarted {} of {}", lives.len(), counted(rows.len(), "task")));
    context.printer.show(&document, |document| {
        let mut table = Table::new(&["PARTITION", "INCARNATION", "ERROR"]);
        for row in document.items("items") {
            table.row([row.cell("partition"), row.cell("incarnation"), row.cell("error")]);
        }
        table
    })?;
    let failed = rows.len().saturating_sub(lives.len());
    if failed > 0 || rows.is_empty() {
        return Err(Failure::Failed(format!("{} of {} not restarted", counted(failed, "task"), topic.name)));
    }
    match topic.wait.within() {
        Some(within) => wait::until_running(context, &topic.name, &lives, within).await,
        None => Ok(()),
    }
}

/// Says when the instance has not taken a change yet.
fn tell_if_late(is_applied: bool) {
    if !is_applied {
        tell("the change is stored; this instance has not taken it yet");
    }
}

/// Prints what would happen; a failure when it would be refused.
fn show_dry_run(context: &Context, answer: Answer) -> Result<(), Failure> {
    let document = context.client.one(answer.document, DRY_RUN)?;
    context.printer.show(&document, dry_run)?;
    Refusal::of_dry_run(&document).map_or(Ok(()), |refusal| Err(Failure::Refused(Box::new(refusal))))
}

fn dry_run(document: &Document) -> Table {
    let mut table = Table::new(&["WOULD", "VALUE"]);
    let mut fact = |label: &str, value: String| table.row([label.to_owned(), value]);
    fact("be taken", if *document.at("valid") == Document::Flag(true) { "yes" } else { "no" }.to_owned());
    fact("change the entry", document.cell("action"));
    for (label, field) in [("start", "would.start"), ("stop", "would.stop"), ("restart", "would.restart")] {
        let tasks: Vec<String> = document.items(field).iter().map(|task| task.cell("")).collect();
        let shown = if tasks.is_empty() { String::new() } else { format!("{}: {}", counted(tasks.len(), "task"), tasks.join(" ")) };
        fact(label, shown);
    }
    fact("write to", document.cell("resolved.index_example"));
    fact("have partitions", document.cell("resolved.partitions"));
    fact("read records", document.cell("resolved.records_to_read"));
    for warning in document.items("warnings") {
        fact("warn", format!("{} ({})", warning.cell("detail"), warning.cell("code")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_needs_a_key_and_may_hold_more_equals_signs() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a="), Ok(("a".to_owned(), String::new())));
        assert!(label("=b").is_err() && label("ab").is_err());
    }

    #[test]
    fn the_end_of_a_pause_is_a_time_or_a_span_from_now() {
        assert_eq!(until("2030-01-31T06:00:00Z"), Ok("2030-01-31T06:00:00Z".parse().expect("a time")));
        let before = Timestamp::now();
        let end = until("2h").expect("a span");
        assert!(end.duration_since(before) >= Duration::from_secs(7200).try_into().expect("a span"));
        assert!(until("tomorrow").is_err());
    }
}
