//! The HTTP API: the read side, the restarts, the probes, the metrics and the OpenAPI document.
//!
//! Guarantees: every answer comes from one immutable [`Snapshot`], so no request waits for the pipeline; every 4xx and 5xx except a probe's own is an
//! `application/problem+json` of one shape ([`Problem`]) with the request's id; names are checked by Kafka's alphabet before any use; unknown query parameters are
//! refused by name; text from outside is escaped in tables and logs; a slow, silent or greedy client cannot hold the server. Owns the wire form of lists, cursors and problems, and the
//! accept loop ([`serve`]). Takes no lock and starts no task. What it may ask for comes through small ports: [`Actions`] and
//! [`DeadLetters`].
//!
//! | to find | look in |
//! |---|---|
//! | routes, tags, the document | this file and `document` |
//! | problem codes and their statuses | `problem` |
//! | query parameters, paths, bodies | `extract` |
//! | order, pages, cursors | `list` |
//! | `Accept`, tables, escaping | `text` |
//! | request ids, access log, security headers | `context` |
//! | `Host` allow-list, cross-site requests, size of bodies | `guard` |
//! | connections and their limits | `serve` |

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::ToSchema;

use crate::config::{Dependency, HttpConfig};
use crate::dead_letters::DeadLetters;
use crate::status::{Snapshot, Task, TaskState};
use crate::topic::TopicName;

mod context;
mod dead_letters;
mod document;
mod events;
mod extract;
mod guard;
mod health;
mod instance;
mod list;
mod metrics;
mod probes;
mod problem;
mod serve;
mod tasks;
mod text;
mod topics;

#[cfg(test)]
mod tests;

pub use document::{document, document_text};
pub use health::{Check, HealthReport};
pub use problem::{FieldError, Problem, ProblemCode};
pub use serve::serve;

/// What the API may ask the supervisor for.
pub trait Actions: Send + Sync + 'static {
    /// Restarts one task and answers with it.
    fn restart_task<'a>(&'a self, topic: &'a TopicName, partition: i32) -> BoxFuture<'a, Result<Task, ActionError>>;

    /// Restarts every task of a topic and answers with one row each.
    fn restart_topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Vec<RestartedPartition>, ActionError>>;
}

/// Why an action was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
    /// The dead letters.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// What may be asked of the supervisor.
    pub actions: Arc<dyn Actions>,
    /// The instance as it was started.
    pub info: Arc<StaticInfo>,
    /// The loops that `/livez` watches.
    pub beats: Vec<Beat>,
    /// What `/readyz` asks of the outside.
    pub readiness_require: Vec<Dependency>,
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
        .route("/", get(index))
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(max_body))
        .layer(from_fn_with_state(Arc::clone(&shared), guard::check))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .layer(from_fn(context::finish))
        .with_state(shared)
}

/// Points a person who opens the bare address to what is there.
async fn index() -> impl IntoResponse {
    let pointer = "drover\n\n/api/v1/topics\n/api/v1/tasks\n/api/v1/events\n/api/v1/dead-letters\n/api/v1/sources\n/api/v1/info\n/healthz?verbose\n/metrics\n/openapi.json\n";
    ([(header::CONTENT_TYPE, text::PLAIN)], pointer)
}

async fn no_such_path() -> problem::ApiError {
    problem::ApiError::new(ProblemCode::NotFound, "there is nothing under this path; /openapi.json lists what there is")
}
