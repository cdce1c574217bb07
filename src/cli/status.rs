//! The command `status`: the verdict, what is wrong and what helps, and the sums over all topics.

use clap::{Args, ValueEnum};

use super::client::{INFO, TOPICS};
use super::document::Document;
use super::failure::Failure;
use super::watch::{self, WatchArgs};
use super::{Connection, Context, counted};
use crate::table::{Table, escape};

/// The command `status`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "With -o json: {healthz, info, topics}, the first two as GET /healthz and GET /api/v1/info answer.\nExamples:\n  drover status\n  drover status --fail-on degraded && echo well\n  drover status --watch"
)]
pub struct StatusArgs {
    #[command(flatten)]
    connection: Connection,
    /// Ends with exit code 3 when drover is that bad or worse
    #[arg(long, value_enum, value_name = "HEALTH", conflicts_with = "watch")]
    fail_on: Option<FailOn>,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Something waits or restarts, or someone has to act
    Degraded,
    /// Someone has to act
    Down,
}

impl FailOn {
    /// An unknown word is a health that a later version has; nobody can say that it is good.
    fn is_met(self, health: &str) -> bool {
        match self {
            Self::Degraded => health != "ok",
            Self::Down => !matches!(health, "ok" | "degraded"),
        }
    }
}

/// Sums over all topics.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    topics: i64,
    paused: i64,
    partitions: i64,
    running: i64,
    /// `None` once a topic's is not known.
    lag: Option<i64>,
    records_per_second: f64,
    restarts: i64,
    dead_lettered: i64,
    lost: i64,
}

impl Totals {
    fn add(&mut self, topic: &Document) {
        let number = |path: &str| topic.number(path).unwrap_or(0);
        self.topics += 1;
        self.paused += i64::from(*topic.at("paused") != Document::Null);
        self.partitions = self.partitions.saturating_add(number("status.partitions"));
        self.running = self.running.saturating_add(number("status.tasks.running"));
        self.lag = self.lag.zip(topic.number("status.lag")).map(|(sum, lag)| sum.saturating_add(lag));
        if let Document::Number(rate) = topic.at("status.records_per_second") {
            self.records_per_second += rate.as_f64().unwrap_or(0.0);
        }
        self.restarts = self.restarts.saturating_add(number("status.restarts_total"));
        self.dead_lettered = self.dead_lettered.saturating_add(number("status.dead_lettered_total"));
        self.lost = self.lost.saturating_add(number("status.lost_total"));
    }

    fn document(&self) -> Document {
        let number = |value: i64| Document::Number(value.into());
        let rate = serde_json::Number::from_f64(self.records_per_second).map_or(Document::Null, Document::Number);
        let fields = [
            ("count", number(self.topics)),
            ("paused", number(self.paused)),
            ("partitions", number(self.partitions)),
            ("running", number(self.running)),
            ("lag", self.lag.map_or(Document::Null, number)),
            ("records_per_second", rate),
            ("restarts_total", number(self.restarts)),
            ("dead_lettered_total", number(self.dead_lettered)),
            ("lost_total", number(self.lost)),
        ];
        object(fields)
    }
}

fn object<const N: usize>(fields: [(&str, Document); N]) -> Document {
    Document::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

pub(super) async fn run(arguments: StatusArgs) -> Result<(), Failure> {
    let context = Context::watching(arguments.connection, arguments.watch.every())?;
    watch::run(&context, async || look(&context, arguments.fail_on).await).await
}

async fn look(context: &Context, fail_on: Option<FailOn>) -> Result<(), Failure> {
    let (_, healthz) = context.client.probe("healthz").await?;
    let info = context.client.get(&["api", "v1", "info"], INFO).await?;
    let mut totals = Totals { lag: Some(0), ..Totals::default() };
    let sum = |page: Document| {
        page.items("items").iter().for_each(|topic| totals.add(topic));
        Ok(())
    };
    context.client.pages(&TOPICS, &[], sum).await?;

    let verdict = healthz.cell("status");
    let whole = object([("healthz", healthz), ("info", info), ("topics", totals.document())]);
    if context.printer.is_table() {
        show(context, &whole)?;
    } else {
        context.printer.show(&whole, |_| Table::new(&[]))?;
    }
    match fail_on {
        Some(limit) if limit.is_met(&verdict) => Err(Failure::Unwell(verdict)),
        _ => Ok(()),
    }
}

/// For people: the verdict first, then what is wrong, then the rest.
fn show(context: &Context, whole: &Document) -> Result<(), Failure> {
    let verdict = context.printer.health(&whole.cell("healthz.status"));
    let facts = format!("drover {}, instance {}, since {}", whole.cell("info.version"), whole.cell("info.instance"), whole.time("info.started_at"));
    let shutting_down = if *whole.at("info.draining") == Document::Flag(true) { ", shutting down" } else { "" };
    context.printer.write(&format!("{verdict}  {}{shutting_down}\n", escape(&facts)))?;
    for check in whole.items("healthz.checks").iter().filter(|check| check.text("status") != Some("ok")) {
        context.printer.write(&finding(context, check))?;
    }
    for warning in whole.items("info.warnings") {
        context.printer.write(&format!("\nnote: {}\n", escape(&warning.cell(""))))?;
    }
    let waiting: Vec<String> = whole.items("info.needs_restart").iter().filter_map(|field| field.text("")).map(escape).collect();
    if !waiting.is_empty() {
        context.printer.write(&format!(
            "\nnote: {} changed in the configuration and take effect at the next start: {}\n",
            counted(waiting.len(), "field"),
            waiting.join(", ")
        ))?;
    }
    context.printer.write("\n")?;
    context.printer.rows(&mut checks(whole))?;
    context.printer.write("\n")?;
    context.printer.rows(&mut sums(whole))
}

fn finding(context: &Context, check: &Document) -> String {
    let since = check.time("since_at");
    let since = if since.is_empty() { String::new() } else { format!(" since {since}") };
    let mut out = format!("\n{}  {}{}\n", context.printer.health(&check.cell("status")), escape(&check.cell("name")), escape(&since));
    if let Some(detail) = check.text("detail") {
        out.push_str(&format!("  {}\n", escape(detail)));
    }
    if let Some(remedy) = check.text("remedy") {
        out.push_str(&format!("  what helps: {}\n", escape(remedy)));
    }
    out
}

fn checks(whole: &Document) -> Table {
    let mut table = Table::new(&["CHECK", "STATUS", "SINCE"]);
    for check in whole.items("healthz.checks") {
        table.row([check.cell("name"), check.cell("status"), check.time("since_at")]);
    }
    table
}

fn sums(whole: &Document) -> Table {
    let mut table = Table::new(&["TOPICS", "PAUSED", "TASKS", "LAG", "RATE", "RESTARTS", "DEAD-LETTERED", "LOST"]);
    table.row([
        whole.cell("topics.count"),
        whole.cell("topics.paused"),
        format!("{}/{}", whole.cell("topics.running"), whole.cell("topics.partitions")),
        whole.cell("topics.lag"),
        whole.fraction("topics.records_per_second"),
        whole.cell("topics.restarts_total"),
        whole.cell("topics.dead_lettered_total"),
        whole.cell("topics.lost_total"),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fail_on_is_met_by_that_health_and_worse() {
        let met = |limit: FailOn| ["ok", "degraded", "down", "unheard-of"].map(|health| limit.is_met(health));
        assert_eq!(met(FailOn::Degraded), [false, true, true, true]);
        assert_eq!(met(FailOn::Down), [false, false, true, true]);
    }

    #[test]
    fn one_unknown_lag_makes_the_sum_unknown() {
        let topic = |lag: &str| serde_json::from_str(&format!(r#"{{"paused":null,"status":{{"lag":{lag},"partitions":2}}}}"#)).expect("JSON");
        let mut totals = Totals { lag: Some(0), ..Totals::default() };
        totals.add(&topic("5"));
        assert_eq!((totals.lag, totals.partitions), (Some(5), 2));
        totals.add(&topic("null"));
        totals.add(&topic("1"));
        assert_eq!((totals.lag, totals.topics), (None, 3));
    }
}
