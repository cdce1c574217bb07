//! The metrics, rendered from the snapshot in Prometheus' text format 0.0.4.
//!
//! Guarantees that a scrape sees one consistent moment and that series of what is gone disappear: nothing is registered, everything is derived. Each name has one `HELP` and one
//! `TYPE` line and all its samples follow them. What is not known has no sample. Partitions of other instances have none either, so that sums over instances count each once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Shared;
use super::topics::source_kind;
use crate::status::{ExitCause, Snapshot, SourceStatus, Task, TaskState};
use crate::topic::TopicName;

/// Prometheus' text format.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Gives the metrics
///
/// Prometheus' text format 0.0.4.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "probes",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
)]
pub(super) async fn get_metrics(State(state): State<Shared>) -> impl IntoResponse {
    let rendered = render(&state.now(), &state.info.version, state.metrics_per_partition);
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], rendered)
}

/// Counts and gauges of a partition, or of a topic where metrics do not carry the partition.
#[derive(Debug, Default)]
struct Row {
    indexed: u64,
    dead_lettered: u64,
    skipped: u64,
    retried: u64,
    lost: u64,
    restarts: BTreeMap<ExitCause, u64>,
    lag: Option<i64>,
    lag_seconds: Option<f64>,
    oldest_unsettled_seconds: f64,
}

impl Row {
    fn of(task: &Task) -> Self {
        Self {
            indexed: task.indexed_total,
            dead_lettered: task.dead_lettered_total,
            skipped: task.skipped_total,
            retried: task.retried_total,
            lost: task.lost_total,
            restarts: task.restarts_by_cause.clone(),
            lag: task.lag,
            lag_seconds: task.lag_seconds,
            oldest_unsettled_seconds: task.oldest_unsettled_seconds,
        }
    }

    /// Sums, and the largest of ages; unknown when any part is.
    fn add(&mut self, other: Self) {
        self.indexed = self.indexed.saturating_add(other.indexed);
        self.dead_lettered = self.dead_lettered.saturating_add(other.dead_lettered);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.retried = self.retried.saturating_add(other.retried);
        self.lost = self.lost.saturating_add(other.lost);
        for (cause, count) in other.restarts {
            let sum = self.restarts.entry(cause).or_default();
            *sum = sum.saturating_add(count);
        }
        self.lag = self.lag.zip(other.lag).map(|(a, b)| a.saturating_add(b));
        self.lag_seconds = self.lag_seconds.zip(other.lag_seconds).map(|(a, b)| a.max(b));
        self.oldest_unsettled_seconds = self.oldest_unsettled_seconds.max(other.oldest_unsettled_seconds);
    }
}

type Labels = Vec<(&'static str, String)>;

/// A text of metrics in the making.
#[derive(Default)]
struct Page {
    out: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, String)], value: &str) {
        self.out.push_str(name);
        if !labels.is_empty() {
            let pairs: Vec<String> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escape(text))).collect();
            let _ = write!(self.out, "{{{}}}", pairs.join(","));
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// One family over all rows.
    fn rows(&mut self, rows: &[(Labels, Row)], name: &str, kind: &str, help: &str, value: impl Fn(&Row) -> Option<String>) {
        self.family(name, kind, help);
        for (labels, row) in rows {
            if let Some(value) = value(row) {
                self.sample(name, labels, &value);
            }
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A number as Prometheus reads it.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

/// The text of a scrape.
pub(super) fn render(snapshot: &Snapshot, version: &str, is_per_partition: bool) -> String {
    let mut page = Page::default();
    page.family("drover_build_info", "gauge", "The program's version; always 1.");
    page.sample("drover_build_info", &[("version", version.to_owned())], "1");

    page.family("drover_tasks", "gauge", "Tasks by state.");
    for state in TaskState::ALL {
        let count = snapshot.tasks.iter().filter(|task| task.state == state).count();
        page.sample("drover_tasks", &[("state", state.as_str().to_owned())], &count.to_string());
    }

    task_families(&mut page, &rows(&snapshot.tasks, is_per_partition));
    sink_families(&mut page, snapshot);
    instance_families(&mut page, snapshot);
    page.out
}

fn rows(tasks: &[Task], is_per_partition: bool) -> Vec<(Labels, Row)> {
    let mut sums: BTreeMap<(&TopicName, Option<i32>), Row> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.state != TaskState::Unassigned) {
        let row = Row::of(task);
        match sums.entry((&task.topic, is_per_partition.then_some(task.partition))) {
            Entry::Occupied(mut sum) => sum.get_mut().add(row),
            Entry::Vacant(place) => {
                place.insert(row);
            }
        }
    }
    let labelled = |((topic, partition), row): ((&TopicName, Option<i32>), Row)| {
        let mut labels = vec![("topic", topic.to_string())];
        labels.extend(partition.map(|partition| ("partition", partition.to_string())));
        (labels, row)
    };
    sums.into_iter().map(labelled).collect()
}

fn task_families(page: &mut Page, rows: &[(Labels, Row)]) {
    let counter = |value: u64| Some(value.to_string());
    page.rows(rows, "drover_records_indexed_total", "counter", "Records indexed.", |row| counter(row.indexed));
    page.rows(rows, "drover_records_dead_lettered_total", "counter", "Records put into the dead letters.", |row| counter(row.dead_lettered));
    page.rows(rows, "drover_records_skipped_total", "counter", "Records skipped by a policy.", |row| counter(row.skipped));
    page.rows(rows, "drover_records_retried_total", "counter", "Records sent again.", |row| counter(row.retried));
    page.rows(rows, "drover_records_lost_total", "counter", "Records that Kafka removed before they were read.", |row| counter(row.lost));

    page.family("drover_task_restarts_total", "counter", "Restarts of tasks by the cause of the exit before them.");
    for (labels, row) in rows {
        for (cause, count) in &row.restarts {
            let mut with_cause = labels.clone();
            with_cause.push(("cause", cause.as_str().to_owned()));
            page.sample("drover_task_restarts_total", &with_cause, &count.to_string());
        }
    }

    page.rows(rows, "drover_lag_records", "gauge", "Records between the committed offset and the end of the partition.", |row| {
        row.lag.map(|lag| lag.to_string())
    });
    page.rows(rows, "drover_lag_seconds", "gauge", "Age of the record at the watermark; 0 when nothing is left.", |row| row.lag_seconds.map(number));
    page.rows(rows, "drover_oldest_unsettled_seconds", "gauge", "How long the oldest record that was read but not settled has been held.", |row| {
        Some(number(row.oldest_unsettled_seconds))
    });
}

fn sink_families(page: &mut Page, snapshot: &Snapshot) {
    let sink = &snapshot.sink;
    let name = "drover_bulk_request_duration_seconds";
    page.family(name, "histogram", "Durations of bulk requests.");
    for (bound, count) in sink.duration_buckets.iter().filter(|(bound, _)| bound.is_finite()) {
        page.sample(&format!("{name}_bucket"), &[("le", number(*bound))], &count.to_string());
    }
    page.sample(&format!("{name}_bucket"), &[("le", "+Inf".to_owned())], &sink.duration_count.to_string());
    page.sample(&format!("{name}_sum"), &[], &number(sink.duration_sum_seconds));
    page.sample(&format!("{name}_count"), &[], &sink.duration_count.to_string());

    page.family("drover_bulk_requests_total", "counter", "Bulk requests by outcome.");
    for (outcome, count) in &sink.requests {
        page.sample("drover_bulk_requests_total", &[("outcome", outcome.clone())], &count.to_string());
    }
}

fn instance_families(page: &mut Page, snapshot: &Snapshot) {
    let memory = &snapshot.memory;
    page.family("drover_memory_bytes", "gauge", "Memory held for records, and its limit.");
    let kinds =
        [("limit", memory.limit_bytes), ("prefetch", memory.prefetch_bytes), ("in_flight", memory.in_flight_bytes), ("peak", memory.peak_bytes)];
    for (kind, bytes) in kinds {
        page.sample("drover_memory_bytes", &[("kind", kind.to_owned())], &bytes.to_string());
    }

    page.family("drover_dead_letters_bytes", "gauge", "Bytes in the dead-letter store.");
    page.sample("drover_dead_letters_bytes", &[], &snapshot.dead_letters_bytes.to_string());
    page.family("drover_dead_letters_max_bytes", "gauge", "Bytes that the dead-letter store takes; 0 while that is not known.");
    page.sample("drover_dead_letters_max_bytes", &[], &snapshot.dead_letters_max_bytes.to_string());

    page.family("drover_source_up", "gauge", "Whether every source of this kind was read and understood.");
    let mut up: BTreeMap<&'static str, bool> = BTreeMap::new();
    for source in snapshot.sources.iter().filter(|source| source.status != SourceStatus::Disabled) {
        let is_up = up.entry(source_kind(source.kind)).or_insert(true);
        *is_up &= source.status == SourceStatus::Ok;
    }
    for (kind, is_up) in up {
        page.sample("drover_source_up", &[("kind", kind.to_owned())], if is_up { "1" } else { "0" });
    }

    page.family("drover_invariant_violations_total", "counter", "Violations of what must never happen.");
    for (invariant, count) in &snapshot.invariant_violations {
        page.sample("drover_invariant_violations_total", &[("invariant", invariant.clone())], &count.to_string());
    }
}
