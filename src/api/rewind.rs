//! Rewinds: partitions go on at another offset.
//!
//! Guarantees that what was moved is told, row by row, and left in the log of changes with the offsets before and after. The move itself is the port's; a log that cannot be written does
//! not undo it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::dry_run::DryRunParameter;
use super::extract::{TaskPath, TopicPath};
use super::problem::{ApiError, problems};
use super::write::{self, By};
use super::{ActionError, RewindTo, RewoundPartition, Shared, body, fields, tasks, text};
use crate::desired::store::Author;
use crate::status::{ChangeAction, TaskState};
use crate::topic::TopicName;

/// What became of each partition.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RewindList {
    /// One row per partition.
    items: Vec<RewoundPartition>,
}

/// Where a topic's partitions are to go on.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documented here, read by `fields::rewind`")]
pub(super) struct TopicRewind {
    /// Where to.
    to: RewindTarget,
    /// Only these partitions; all without it.
    #[schema(example = json!([0, 3]))]
    partitions: Option<Vec<u32>>,
}

/// Where a task's partition is to go on.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documented here, read by `fields::rewind`")]
pub(super) struct TaskRewind {
    /// Where to.
    to: RewindTarget,
}

/// A place in a partition.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only in the document")]
pub(super) enum RewindTarget {
    /// One of its ends.
    End(RewindEnd),
    /// An offset.
    Offset(ToOffset),
    /// A time.
    Timestamp(ToTimestamp),
}

/// An end of a partition.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only in the document")]
pub(super) enum RewindEnd {
    /// The first record that Kafka still has.
    Earliest,
    /// Past the last record.
    Latest,
}

/// An offset.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only in the document")]
pub(super) struct ToOffset {
    /// The offset of the next record to read.
    #[schema(minimum = 0)]
    offset: i64,
}

/// A time.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only in the document")]
pub(super) struct ToTimestamp {
    /// The next record to read is the first that is not older.
    timestamp: Timestamp,
}

problems!(TopicProblems: InvalidRequest Forbidden NotFound NotAcceptable TaskNotRestartable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal KafkaUnavailable ShuttingDown OutcomeUnknown);
problems!(TaskProblems: InvalidRequest Forbidden NotFound NotAcceptable TaskNotRestartable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal KafkaUnavailable ShuttingDown OutcomeUnknown);

/// Moves a topic's partitions to another offset
///
/// Backwards, records are indexed again under the same ids; forwards, they are skipped. Each task ends at its watermark, the new offset is committed, and the task goes on there. Rows with
/// an `error` were not moved. `dry_run=true` answers with the same rows and moves nothing.
#[utoipa::path(
    post,
    path = "/api/v1/topics/{topic}/rewind",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The topic's name"), DryRunParameter),
    request_body(content = TopicRewind, content_type = "application/json", example = json!({"to": {"timestamp": "2026-01-31T00:00:00Z"}, "partitions": [0, 3]})),
    responses(
        (status = 200, description = "What would become of each partition", body = RewindList, headers(("x-request-id" = String, description = "The request's id"))),
        (status = 202, description = "What became of each partition", body = RewindList, headers(("x-request-id" = String, description = "The request's id"))),
        TopicProblems,
    ),
)]
pub(super) async fn rewind_topic(
    State(state): State<Shared>,
    TopicPath(name): TopicPath,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    request: Request,
) -> Result<Response, ApiError> {
    let is_dry_run = write::dry_run(&uri, &headers)?;
    let values = body::required_object(request, &state, &[body::JSON]).await?;
    let (to, partitions) = fields::rewind(values, false).map_err(write::invalid)?;
    if !state.now().topics.iter().any(|topic| topic.name == name) {
        return Err(write::not_named(&name));
    }
    rewind(&state, &name, partitions, to, is_dry_run, author).await
}

/// Moves a task's partition to another offset
///
/// As for a topic, for one partition of it.
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{topic}/{partition}/rewind",
    tag = "tasks",
    params(
        ("topic" = TopicName, Path, description = "The topic's name"),
        ("partition" = i32, Path, description = "The partition's number", minimum = 0),
        DryRunParameter,
    ),
    request_body(content = TaskRewind, content_type = "application/json", example = json!({"to": {"offset": 1000}})),
    responses(
        (status = 200, description = "What would become of the partition", body = RewindList, headers(("x-request-id" = String, description = "The request's id"))),
        (status = 202, description = "What became of the partition", body = RewindList, headers(("x-request-id" = String, description = "The request's id"))),
        TaskProblems,
    ),
)]
pub(super) async fn rewind_task(
    State(state): State<Shared>,
    TaskPath(name, partition): TaskPath,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    request: Request,
) -> Result<Response, ApiError> {
    let is_dry_run = write::dry_run(&uri, &headers)?;
    let values = body::required_object(request, &state, &[body::JSON]).await?;
    let (to, _) = fields::rewind(values, true).map_err(write::invalid)?;
    let snapshot = state.now();
    let task = snapshot.tasks.iter().find(|task| task.topic == name && task.partition == partition);
    match task.map(|task| task.state) {
        None => return Err(tasks::not_there(&name, partition)),
        Some(TaskState::Unassigned) => return Err(ActionError::NotRestartable(TaskState::Unassigned).into()),
        Some(_) => {}
    }
    rewind(&state, &name, Some(vec![partition]), to, is_dry_run, author).await
}

async fn rewind(
    state: &Shared,
    name: &TopicName,
    partitions: Option<Vec<i32>>,
    to: RewindTo,
    is_dry_run: bool,
    author: Author,
) -> Result<Response, ApiError> {
    let items = tasks::in_time(state.actions.rewind(name, partitions, to, is_dry_run)).await?;
    if is_dry_run {
        return Ok(Json(RewindList { items }).into_response());
    }
    let moved: Vec<&RewoundPartition> = items.iter().filter(|row| row.error.is_none()).collect();
    if !moved.is_empty() {
        let revision = note(state, name, &moved, &author).await;
        write::audit(ChangeAction::Rewind, name, &author, revision);
    }
    Ok((StatusCode::ACCEPTED, Json(RewindList { items })).into_response())
}

/// Leaves the move in the log of changes; `None` when that cannot be written.
async fn note(state: &Shared, name: &TopicName, moved: &[&RewoundPartition], author: &Author) -> Option<i64> {
    let before = offsets(moved, |row| row.from);
    let after = offsets(moved, |row| row.to);
    let noted = write::write(state.store.note(name, ChangeAction::Rewind, Some(before), Some(after), author.clone())).await;
    noted
        .inspect_err(|error| {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(topic = %name, error = %text::bounded(&error.to_string(), 500), cause = %text::bounded(&cause, 500), "a rewind is missing in the log of changes");
        })
        .ok()
}

/// Offsets by partition.
fn offsets(moved: &[&RewoundPartition], offset: impl Fn(&RewoundPartition) -> Option<i64>) -> Value {
    let by_partition: BTreeMap<i32, Option<i64>> = moved.iter().map(|row| (row.partition, offset(row))).collect();
    let named = by_partition.into_iter().map(|(partition, offset)| (partition.to_string(), offset.into()));
    Value::Object(named.collect())
}
