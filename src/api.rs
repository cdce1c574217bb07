//! The HTTP API: what is wanted, what is done and what has changed; restarts and rewinds; the probes, the metrics and the OpenAPI document.
//!
//! Guarantees: every answer comes from one immutable [`Snapshot`], so no request waits for the pipeline; every 4xx and 5xx except a probe's own is an
//! `application/problem+json` of one shape ([`Problem`]) with the request's id; names are checked by Kafka's alphabet before any use; unknown query parameters are
//! refused by name; text from outside is escaped in tables and logs; a slow, silent or greedy client cannot hold the server. Owns the wire form of lists, cursors and problems, and the
//! accept loop ([`serve`]). Takes no lock that the pipeline takes and starts no task. What it may ask for comes through small ports: [`Actions`], [`Outlook`], [`TopicStore`],
//! [`DeadLetters`], [`RedriveQueue`] and [`LogLevel`].
//!
//! | to find | look in |
//! |---|---|
//! | routes, tags, the document | this file and `document` |
//! | problem codes and their statuses | `problem` |
//! | query parameters, paths | `extract` |
//! | bodies, and what their fields mean | `body`, `fields` |
//! | a topic's entry in the store: put, patch, delete | `edit` |
//! | what all changes share: author, deadlines, reading one's own write | `write` |
//! | `If-Match`, `If-None-Match` | `precondition` |
//! | `dry_run=true` | `dry_run` |
//! | a change made undone | `revert` |
//! | order, pages, cursors | `list` |
//! | tags of pages, and the pages written last | `pages` |
//! | `Accept`, tables, escaping | `text` |
//! | the status page and its files | `page` |
//! | request ids, access log, security headers | `context` |
//! | `Host` allow-list, cross-site requests, size of bodies | `guard` |
//! | tokens, roles, the file of tokens | `auth` |
//! | the log's filter | `log_level` |
//! | the last minutes of a topic | `series` |
//! | the stream of changes | `stream` |
//! | connections and their limits | `serve` |
//! | the answer to a head that is no request | `refusals` |
//! | the certificate, read again | `tls` |
//! | how tokens and certificate are read again | `reread` |

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::ToSchema;

use crate::config::{Dependency, HttpConfig};
use crate::dead_letters::DeadLetters;
use crate::dead_letters::redrive::RedriveQueue;
use crate::desired::store::TopicStore;
use crate::desired::{Desired, DesiredTopic};
use crate::status::{Snapshot, Task, TaskState};
use crate::topic::{TopicName, TopicPartition};

mod auth;
mod body;
mod changes;
mod context;
mod dead_letters;
mod document;
mod dry_run;
mod edit;
mod events;
mod extract;
mod fields;
mod guard;
mod health;
mod instance;
mod kafka;
mod list;
mod log_level;
mod metrics;
mod page;
mod pages;
mod pause;
mod precondition;
mod probes;
mod problem;
mod refusals;
mod reread;
mod revert;
mod rewind;
mod series;
mod serve;
mod stream;
mod tasks;
mod text;
mod tls;
mod topics;
mod write;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod precondition_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod write_tests;

pub use auth::{TokensView, tokens_file};
pub use document::{document, document_text};
pub use health::{Check, HealthReport};
pub use log_level::LogLevel;
pub use pages::Pages;
pub use problem::{FieldError, Problem, ProblemCode};
pub use reread::Reread;
pub use serve::serve;
pub use stream::StreamLog;
pub use tls::{TlsView, tls_files};

/// What the API may ask the supervisor for.
pub trait Actions: Send + Sync + 'static {
    /// Restarts one task and answers with it.
    fn restart_task<'a>(&'a self, topic: &'a TopicName, partition: i32) -> BoxFuture<'a, Result<Task, ActionError>>;

    /// Restarts every task of a topic and answers with one row each.
    fn restart_topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Vec<RestartedPartition>, ActionError>>;

    /// Moves the committed offsets of a topic's partitions (all of them, or those named), and the tasks with them; with `dry_run` only says what would happen. One row each, in
    /// order; a row with an error was not moved.
    fn rewind<'a>(
        &'a self,
        topic: &'a TopicName,
        partitions: Option<Vec<i32>>,
        to: RewindTo,
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Vec<RewoundPartition>, ActionError>>;
}

/// Where a rewind goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewindTo {
    /// To this offset.
    Offset(i64),
    /// To the first record that is not older.
    Timestamp(Timestamp),
    /// To the first record that Kafka still has.
    Earliest,
    /// Past the last record.
    Latest,
}

/// One partition's row in the answer to a rewind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RewoundPartition {
    /// The partition's number.
    pub partition: i32,
    /// Where it was; `null` when that is not known.
    pub from: Option<i64>,
    /// Where it is now, or would be; `null` when that is not known.
    pub to: Option<i64>,
    /// `from` - `to`: how many offsets are read again, negative when so many are skipped.
    pub records: Option<i64>,
    /// Why it was not moved; `null` when it was, or would be.
    pub error: Option<String>,
}

/// What the API asks of Kafka and of the plan without changing anything.
pub trait Outlook: Send + Sync + 'static {
    /// All topics that Kafka lets us see, without its internal ones, by name. The error is for people.
    fn kafka_topics(&self) -> BoxFuture<'_, Result<Vec<KafkaTopic>, String>>;

    /// What would happen if the topic became this; `None` = it is named nowhere any more. What Kafka does not tell in time is `None` with a warning.
    fn preview<'a>(&'a self, topic: &'a TopicName, after: Option<Arc<DesiredTopic>>) -> BoxFuture<'a, Preview>;
}

/// A topic as Kafka has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KafkaTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
}

/// What a change of a topic would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preview {
    /// Number of partitions; `None` where Kafka does not tell, or has no such topic.
    pub partitions: Option<i32>,
    /// How many records lie between where its partitions would go on and their ends.
    pub records_to_read: Option<i64>,
    /// Tasks that would start here.
    pub start: Vec<TopicPartition>,
    /// Tasks that would stop here.
    pub stop: Vec<TopicPartition>,
    /// Tasks that would be restarted here.
    pub restart: Vec<TopicPartition>,
    /// What is worth knowing: code and text, such as `topic_missing`.
    pub warnings: Vec<(&'static str, String)>,
}

/// Why an action was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is no such topic or task.
    #[error("there is no such task")]
    NotFound,
    /// The task is in a state in which there is nothing to restart.
    #[error("a task that is {} cannot be restarted", .0.as_str())]
    NotRestartable(TaskState),
    /// The instance shuts down.
    #[error("the instance is shutting down")]
    ShuttingDown,
    /// Kafka does not answer.
    #[error("{0}")]
    KafkaUnavailable(String),
}

/// One partition's row in the answer to a topic's restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RestartedPartition {
    /// The partition's number.
    pub partition: i32,
    /// The number of the task's new life; `null` when it was not restarted.
    pub incarnation: Option<u64>,
    /// Why it was not restarted; `null` when it was.
    pub error: Option<String>,
}

/// The instance as it was started; shown by `GET /api/v1/info`. Holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticInfo {
    /// The program, `drover`.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The instance's name.
    pub instance: String,
    /// When the process started.
    pub started_at: Timestamp,
    /// The consumer group.
    pub group_id: String,
    /// Number of configured bootstrap servers.
    pub brokers: usize,
    /// The folder of the embedded store, the dead letters and the restart ledger.
    pub data_dir: String,
    /// Limit on librdkafka's prefetch, records and bulk bodies together, in bytes.
    pub memory_bytes: u64,
}

/// The liveness of one of the instance's own loops: its name, and the moment of its last turn.
pub type Beat = (String, watch::Receiver<Instant>);

/// Everything the API answers from. Cloning it is cheap.
#[derive(Clone)]
pub struct ApiState {
    /// The newest view of the instance.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The wanted topics as merged last; `None` before the first list.
    pub desired: watch::Receiver<Option<Arc<Desired>>>,
    /// Where topics and pauses are written.
    pub store: Arc<dyn TopicStore>,
    /// What may be asked of Kafka and of the plan.
    pub outlook: Arc<dyn Outlook>,
    /// The dead letters.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Where redrives of them are asked for.
    pub redrives: RedriveQueue,
    /// What may be asked of the supervisor.
    pub actions: Arc<dyn Actions>,
    /// The instance as it was started.
    pub info: Arc<StaticInfo>,
    /// The loops that `/livez` watches.
    pub beats: Vec<Beat>,
    /// What `/readyz` asks of the outside.
    pub readiness_require: Vec<Dependency>,
    /// The log's filter.
    pub log_level: Arc<dyn LogLevel>,
    /// The pages of lists that were written last.
    pub pages: Arc<Pages>,
    /// What the streams of changes have in common.
    pub stream: Arc<StreamLog>,
    /// The certificate and the key; `None` = plain HTTP.
    pub tls: Option<watch::Receiver<TlsView>>,
    /// The tokens; `None` where everybody may do everything.
    pub tokens: Option<watch::Receiver<TokensView>>,
    /// Host names under which the API answers, besides the loopback ones.
    pub allowed_hosts: Vec<String>,
    /// Limits of the HTTP server.
    pub http: HttpConfig,
    /// Whether metrics carry the partition.
    pub metrics_per_partition: bool,
}

/// The state as handlers see it.
type Shared = Arc<ApiState>;

impl ApiState {
    fn now(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }
}

/// The whole API as one service.
///
/// Outermost is what gives every answer its id, its security headers and, when it is an error, its problem; inside it a panic becomes an answer, and requests from
/// where none should come are refused before any handler sees them.
pub fn router(state: ApiState) -> Router {
    let shared = Arc::new(state);
    let max_body = usize::try_from(shared.http.max_body).unwrap_or(usize::MAX);
    let (documented, _) = document::routes().split_for_parts();
    documented
        .merge(page::routes())
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(max_body))
        .layer(from_fn_with_state(Arc::clone(&shared), guard::check))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(from_fn(context::finish))
        .with_state(shared)
}

/// Points a person who opens the bare address to what is there.
async fn index() -> impl IntoResponse {
    let pointer = "drover\n\n/api/v1/topics\n/api/v1/tasks\n/api/v1/events\n/api/v1/stream\n/api/v1/dead-letters\n/api/v1/changes\n/api/v1/kafka/topics\n/api/v1/sources\n/api/v1/info\n/healthz?verbose\n/metrics\n/openapi.json\n";
    ([(header::CONTENT_TYPE, text::PLAIN)], pointer)
}

async fn no_such_path() -> problem::ApiError {
    problem::ApiError::new(ProblemCode::NotFound, "there is nothing under this path; /openapi.json lists what there is")
}
