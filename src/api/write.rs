//! What every change of the store has in common: who asks, deadlines, problems, the audit, and reading one's own write.
//!
//! Guarantees: no request waits for a store longer than [`STORE_TIMEOUT`], and a write whose answer did not come by then is `outcome-unknown`, never `store-unavailable`; an answer to a
//! write shows what was written, because it waits until the snapshot has the write's revision, or carries `drover-applied: false` and shows what the write makes of the topic;
//! every write leaves one line in the log. Causes from below stay in the log.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::auth::{self, Caller};
use super::context::RequestId;
use super::extract::{self, Params};
use super::precondition::{self, Preconditions};
use super::problem::ApiError;
use super::text::{self, Form};
use super::{FieldError, ProblemCode, Shared};
use crate::desired::store::{Author, StoreError, Stored};
use crate::desired::{Desired, DesiredTopic};
use crate::status::derive::{self, TopicInput};
use crate::status::{ChangeAction, Snapshot, Topic};
use crate::topic::{SourceKind, SpecFields, TopicName, TopicSpec};

/// How long a store may take for one request.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer waits for the local list to reach the write (the design, section 6.1).
const APPLIED_WITHIN: Duration = Duration::from_secs(2);
/// Says `false` where the local list has not reached the write yet.
const APPLIED: HeaderName = HeaderName::from_static("drover-applied");

/// The author of what the request changes.
#[derive(Debug)]
pub(super) struct By(pub(super) Author);

impl FromRequestParts<Shared> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Infallible> {
        Ok(Self(author(parts)))
    }
}

/// The one place that says who a request comes from.
fn author(parts: &Parts) -> Author {
    let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
    let actor = parts.extensions.get::<Caller>().map_or(auth::NOBODY, |Caller(holder)| &holder.name);
    Author { actor: actor.to_owned(), source: "api", request_id }
}

/// What a changing request says besides its body.
#[derive(Debug)]
pub(super) struct Asked {
    /// Only say what would happen.
    pub(super) is_dry_run: bool,
    /// What must hold.
    pub(super) preconditions: Preconditions,
}

impl Asked {
    /// Reads the query and the headers.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self, ApiError> {
        let is_dry_run = dry_run(uri, headers)?;
        Ok(Self { is_dry_run, preconditions: Preconditions::of(headers)? })
    }
}

/// Reads `dry_run`, where there are no preconditions.
pub(super) fn dry_run(uri: &Uri, headers: &HeaderMap) -> Result<bool, ApiError> {
    text::negotiate(headers, &[Form::Json])?;
    let mut params = Params::of(uri, "")?;
    let is_dry_run = params.take("dry_run", extract::switch).unwrap_or(false);
    params.finish()?;
    Ok(is_dry_run)
}

/// The answer of a read, in time.
pub(super) async fn read<T>(request: impl Future<Output = Result<T, StoreError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(STORE_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(problem),
        Err(_) => Err(ApiError::new(ProblemCode::StoreUnavailable, format!("the store did not answer within {} s", STORE_TIMEOUT.as_secs()))),
    }
}

/// The answer of a write, in time.
pub(super) async fn write<T>(request: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STORE_TIMEOUT, request).await {
        Ok(answer) => answer,
        Err(elapsed) => {
            Err(StoreError::OutcomeUnknown { what: format!("no answer within {} s", STORE_TIMEOUT.as_secs()), source: Box::new(elapsed) })
        }
    }
}

/// What a store's error is on the wire; its cause goes to the log.
pub(super) fn problem(error: StoreError) -> ApiError {
    let (code, detail) = match &error {
        StoreError::Unavailable { .. } => (ProblemCode::StoreUnavailable, "the store cannot be read or written, and nothing was changed; the log has the cause".to_owned()),
        StoreError::OutcomeUnknown { .. } => (
            ProblemCode::OutcomeUnknown,
            "the store did not say whether the change was made; repeat the request under the same precondition, or look at the topic first".to_owned(),
        ),
        StoreError::Stale => (
            ProblemCode::StoreStale,
            "the store was replaced or restored, and nothing was changed; look at GET /api/v1/sources, then take it as it is with POST /api/v1/sources/store/confirm".to_owned(),
        ),
        StoreError::Conflict { current } => (ProblemCode::PreconditionFailed, precondition::state_of(*current)),
        StoreError::NotFound => (ProblemCode::NotFound, "the store has no such entry".to_owned()),
    };
    if matches!(error, StoreError::Unavailable { .. } | StoreError::OutcomeUnknown { .. } | StoreError::Stale) {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(error = %text::bounded(&error.to_string(), 500), cause = %text::bounded(&cause, 500), "the store did not do what was asked");
    }
    ApiError::new(code, detail)
}

/// 412, from the precondition that does not hold.
pub(super) fn precondition_failed(error: FieldError) -> ApiError {
    ApiError::with_errors(ProblemCode::PreconditionFailed, vec![error])
}

/// 422, from everything that is wrong with a body.
pub(super) fn invalid(errors: Vec<FieldError>) -> ApiError {
    ApiError::with_errors(ProblemCode::ValidationFailed, errors)
}

/// The wanted topics. Before the first list nobody can say which sources name a topic.
pub(super) fn desired(state: &Shared) -> Result<Arc<Desired>, ApiError> {
    let desired = state.desired.borrow().clone();
    desired.ok_or_else(|| ApiError::new(ProblemCode::StoreUnavailable, "the sources of topics are still being read; try again in a moment"))
}

/// The topic's entry as the store has it now.
pub(super) async fn entry(state: &Shared, name: &TopicName) -> Result<Option<Stored<SpecFields>>, ApiError> {
    read(state.store.topic(name)).await
}

/// The topic as the sources want it, also where only the store knows of it yet; 404 where nothing names it.
pub(super) async fn named(state: &Shared, name: &TopicName) -> Result<Arc<DesiredTopic>, ApiError> {
    let desired = desired(state)?;
    if let Some(topic) = desired.topics.get(name) {
        return Ok(Arc::clone(topic));
    }
    // The list may lag behind a write of another instance.
    let stored = entry(state, name).await?;
    let topic = stored.and_then(|stored| desired.inputs.topic_with(name, Some(&stored), Timestamp::now()));
    topic.map(Arc::new).ok_or_else(|| not_named(name))
}

/// 404 for a topic that no source names.
pub(super) fn not_named(name: &TopicName) -> ApiError {
    ApiError::at(ProblemCode::NotFound, "/path/topic", format!("no source names the topic {name}"))
}

/// The line that a change leaves in the log.
pub(super) fn audit(action: ChangeAction, topic: &TopicName, author: &Author, revision: Option<i64>) {
    let action = action_name(action);
    let request_id = author.request_id.as_deref().unwrap_or("-");
    tracing::info!(action, %topic, actor = %text::bounded(&author.actor, 100), request_id, revision, "topic changed");
}

/// An action on the wire.
pub(super) fn action_name(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Put => "put",
        ChangeAction::Patch => "patch",
        ChangeAction::Delete => "delete",
        ChangeAction::Pause => "pause",
        ChangeAction::Resume => "resume",
        ChangeAction::Rewind => "rewind",
        ChangeAction::Revert => "revert",
    }
}

/// Waits until the snapshot has everything up to the revision; `false` when it does not come in time.
pub(super) async fn applied(state: &Shared, revision: i64) -> bool {
    let mut snapshots = state.snapshot.clone();
    let reached = snapshots.wait_for(|snapshot| snapshot.store_revision >= revision);
    matches!(tokio::time::timeout(APPLIED_WITHIN, reached).await, Ok(Ok(_)))
}

/// The topic as the snapshot shows it.
pub(super) fn shown(snapshot: &Snapshot, name: &TopicName) -> Option<Topic> {
    snapshot.topics.iter().find(|topic| topic.name == *name).cloned()
}

/// The topic as it will be shown: what is wanted from now on, with what is known of its tasks.
pub(super) fn projected(state: &Shared, name: &TopicName, wanted: &DesiredTopic) -> Topic {
    let snapshot = state.now();
    let before = snapshot.topics.iter().find(|topic| topic.name == *name);
    let tasks: Vec<_> = snapshot.tasks.iter().filter(|task| task.topic == *name).cloned().collect();
    let input = TopicInput {
        name: name.clone(),
        spec: TopicSpec::clone(&wanted.spec),
        overrides: wanted.overrides.clone(),
        spec_origin: wanted.origin.clone(),
        sources: wanted.sources.clone(),
        paused: wanted.paused.clone(),
        partitions: before.map(|topic| topic.status.partitions),
        missing: before.and_then(|topic| topic.status.reason.clone()),
        last_minute: before.map(|topic| topic.last_minute).unwrap_or_default(),
    };
    derive::topic(input, &tasks)
}

/// The tag of a topic: its store entry's revision.
pub(super) fn etag(topic: &Topic) -> String {
    let stored = topic.sources.iter().find(|source| source.kind == SourceKind::Store);
    precondition::tag(stored.and_then(|source| source.revision))
}

/// An answer with a topic.
pub(super) fn topic_answer(status: StatusCode, topic: Topic, is_applied: bool) -> Response {
    let response = (status, [(header::ETAG, etag(&topic))], Json(topic)).into_response();
    marked(response, is_applied)
}

/// The answer, marked where the local list has not reached the write.
pub(super) fn marked(mut response: Response, is_applied: bool) -> Response {
    if !is_applied {
        response.headers_mut().insert(APPLIED, HeaderValue::from_static("false"));
    }
    response
}
