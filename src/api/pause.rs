//! The pause of a topic: laid over it, whichever source names it, and lifted.
//!
//! Guarantees that both are idempotent: a pause that is laid again keeps since when the topic is paused, and lifting none is no error.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::dry_run::{DryRun, DryRunAction, DryRunParameter};
use super::edit::TopicOrDryRun;
use super::extract::{NoBody, TopicPath};
use super::problem::{ApiError, problems};
use super::write::{self, By};
use super::{FieldError, Shared, body, fields};
use crate::desired::DesiredTopic;
use crate::desired::store::{Author, StoreError};
use crate::status::{ChangeAction, Pause};
use crate::topic::TopicName;

/// A pause.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documented here, read by `fields::pause`")]
pub(super) struct PauseBody {
    /// Why, in your words: at most 1,000 characters.
    #[schema(example = "index maintenance", max_length = 1000)]
    reason: Option<String>,
    /// When it ends by itself; without it the topic stays paused until someone lifts the pause.
    #[schema(example = "2030-01-31T06:00:00Z")]
    until_at: Option<Timestamp>,
}

problems!(PauseProblems: InvalidRequest Forbidden NotFound NotAcceptable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal StoreUnavailable StoreStale OutcomeUnknown);

/// Pauses a topic
///
/// Works on the topics of every source. Tasks stop at their watermark; what they held and had not settled is read again when the topic is resumed, under the same ids. A pause that is laid again replaces reason and end and keeps
/// `since_at`. The body may be empty.
#[utoipa::path(
    put,
    path = "/api/v1/topics/{topic}/pause",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The topic's name"), DryRunParameter),
    request_body(content = Option<PauseBody>, content_type = "application/json", example = json!({"reason": "index maintenance", "until_at": "2030-01-31T06:00:00Z"})),
    responses(
        (status = 200, description = "The paused topic, or what would happen", body = TopicOrDryRun, headers(
            ("etag" = String, description = "Revision of the store's entry"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        PauseProblems,
    ),
)]
pub(super) async fn pause_topic(
    State(state): State<Shared>,
    path: Result<TopicPath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    request: Request,
) -> Result<Response, ApiError> {
    let is_dry_run = write::dry_run(&uri, &headers)?;
    let values = body::object(request, &state, &[body::JSON]).await?.unwrap_or_default();
    let now = Timestamp::now();
    if is_dry_run {
        return Ok(try_pause(&state, path, values, &author.actor, now).await.into_response());
    }
    let TopicPath(name) = path?;
    let asked = fields::pause(values, now).map_err(write::invalid)?;
    let topic = write::named(&state, &name).await?;
    let pause = renewed(running(&state, &name, now).as_ref(), asked, &author.actor, now);
    lay(&state, &name, &topic, pause, author).await
}

/// Lays this pause over the topic and answers with it.
pub(super) async fn lay(state: &Shared, name: &TopicName, topic: &DesiredTopic, pause: Pause, author: Author) -> Result<Response, ApiError> {
    let outcome = write::write(state.store.put_pause(name, pause.clone(), author.clone())).await.map_err(write::problem)?;
    write::audit(ChangeAction::Pause, name, &author, Some(outcome.revision));
    let is_applied = write::applied(state, outcome.revision).await;
    let shown = if is_applied { write::shown(&state.now(), name) } else { None };
    let shown = shown.unwrap_or_else(|| write::projected(state, name, &with_pause(topic, Some(pause))));
    Ok(write::topic_answer(StatusCode::OK, shown, is_applied))
}

/// Lifts a topic's pause
///
/// 204 also when there is none. Tasks go on at their watermarks.
#[utoipa::path(
    delete,
    path = "/api/v1/topics/{topic}/pause",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The topic's name"), DryRunParameter),
    responses(
        (status = 200, description = "What would happen, with `dry_run=true`", body = DryRun, headers(("x-request-id" = String, description = "The request's id"))),
        (status = 204, description = "The topic is not paused", headers(
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        PauseProblems,
    ),
)]
pub(super) async fn resume_topic(
    State(state): State<Shared>,
    path: Result<TopicPath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    _: NoBody,
) -> Result<Response, ApiError> {
    if write::dry_run(&uri, &headers)? {
        return Ok(try_resume(&state, path).await.into_response());
    }
    let TopicPath(name) = path?;
    write::named(&state, &name).await?;
    let revision = match write::write(state.store.delete_pause(&name, author.clone())).await {
        Ok(revision) => revision,
        Err(StoreError::NotFound) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => return Err(write::problem(error)),
    };
    write::audit(ChangeAction::Resume, &name, &author, Some(revision));
    let is_applied = write::applied(&state, revision).await;
    Ok(write::marked(StatusCode::NO_CONTENT.into_response(), is_applied))
}

/// The pause that is in force, as the store was last seen.
fn running(state: &Shared, name: &TopicName, now: Timestamp) -> Option<Pause> {
    let views = state.store.views();
    let view = views.borrow();
    let pause = view.pauses.get(name).map(|stored| stored.value.clone());
    pause.filter(|pause| pause.until_at.is_none_or(|until_at| until_at > now))
}

/// The pause that is asked for, since when it began.
fn renewed(running: Option<&Pause>, asked: (Option<String>, Option<Timestamp>), actor: &str, now: Timestamp) -> Pause {
    let (reason, until_at) = asked;
    Pause { reason, actor: actor.to_owned(), since_at: running.map_or(now, |pause| pause.since_at), until_at }
}

fn with_pause(topic: &DesiredTopic, paused: Option<Pause>) -> DesiredTopic {
    DesiredTopic { paused, ..topic.clone() }
}

async fn try_pause(state: &Shared, path: Result<TopicPath, ApiError>, values: Map<String, Value>, actor: &str, now: Timestamp) -> DryRun {
    let (found, asked) = (find(state, path).await, fields::pause(values, now));
    let (name, topic, asked) = match (found, asked) {
        (Ok((name, topic)), Ok(asked)) => (name, topic, asked),
        (found, asked) => {
            let mut errors: Vec<FieldError> = found.err().map(ApiError::into_errors).unwrap_or_default();
            errors.extend(asked.err().unwrap_or_default());
            return DryRun::refused(errors, Vec::new());
        }
    };
    let running = running(state, &name, now);
    let pause = renewed(running.as_ref(), asked, actor, now);
    let action = match &running {
        None => DryRunAction::Create,
        Some(before) if *before == pause => DryRunAction::None,
        Some(_) => DryRunAction::Update,
    };
    DryRun::of_change(state, &name, action, Some(Arc::new(with_pause(&topic, Some(pause)))), Vec::new()).await
}

async fn try_resume(state: &Shared, path: Result<TopicPath, ApiError>) -> DryRun {
    let (name, topic) = match find(state, path).await {
        Ok(found) => found,
        Err(error) => return DryRun::refused_by(error),
    };
    let is_paused = state.store.views().borrow().pauses.contains_key(&name);
    let action = if is_paused { DryRunAction::Delete } else { DryRunAction::None };
    DryRun::of_change(state, &name, action, Some(Arc::new(with_pause(&topic, None))), Vec::new()).await
}

async fn find(state: &Shared, path: Result<TopicPath, ApiError>) -> Result<(TopicName, Arc<DesiredTopic>), ApiError> {
    let TopicPath(name) = path?;
    let topic = write::named(state, &name).await?;
    Ok((name, topic))
}
