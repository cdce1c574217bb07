//! `POST /api/v1/changes/{id}/revert`: what a change has made becomes again what it was before.
//!
//! Guarantees that nobody else's change is undone on the way: a change is reverted only while what it made is what is there, else 412 says so. The revert is a change of its own, with its author, and can be reverted
//! like any other. A rewind is not reverted: records that were read meanwhile would be told nothing of it, and `before` has the offsets for another rewind.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::dry_run::{DryRun, DryRunAction, DryRunParameter};
use super::edit::{self, TopicOrDryRun};
use super::extract::{ChangePath, NoBody};
use super::problem::{ApiError, problems};
use super::write::{self, By};
use super::{FieldError, ProblemCode, Shared, pause};
use crate::desired::DesiredTopic;
use crate::desired::store::{Author, ChangesQuery, KEPT_CHANGES, Precondition, StoreError};
use crate::status::{Change, ChangeAction, Pause};
use crate::topic::SpecFields;

problems!(RevertProblems: InvalidRequest Forbidden NotFound NotAcceptable PreconditionFailed PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal StoreUnavailable StoreStale OutcomeUnknown);

/// What has to be written.
enum Target {
    /// The store's entry: these fields, or none, under this precondition.
    Entry(Option<SpecFields>, Precondition),
    /// The pause.
    Pause(Option<Pause>),
}

/// Reverts a change
///
/// The topic's entry in the store, or its pause, becomes what it was before the change. Only while what the change made is still there (412 otherwise: revert the later change first, or write the topic). A rewind is not
/// reverted: rewind again, to the offsets in its `before`.
#[utoipa::path(
    post,
    path = "/api/v1/changes/{id}/revert",
    tag = "topics",
    params(("id" = String, Path, description = "The change's id", pattern = "^[a-zA-Z0-9]{26}$", example = "01JF8Z5Q4W9G2M7XKTB3N6VRHC"), DryRunParameter),
    responses(
        (status = 200, description = "The topic, or what would happen", body = TopicOrDryRun, headers(
            ("etag" = String, description = "Revision of the store's entry"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        (status = 201, description = "The store has an entry for the topic again", body = crate::status::Topic, headers(
            ("etag" = String, description = "Revision of the store's entry"),
            ("location" = String, description = "The topic's path"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        (status = 204, description = "Nothing names the topic any more, or its pause is lifted", headers(
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        RevertProblems,
    ),
)]
pub(super) async fn revert_change(
    State(state): State<Shared>,
    path: Result<ChangePath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    _: NoBody,
) -> Result<Response, ApiError> {
    let is_dry_run = write::dry_run(&uri, &headers)?;
    let now = Timestamp::now();
    let found = match path {
        Ok(ChangePath(id)) => find(&state, &id, now).await,
        Err(error) => Err(error),
    };
    match found {
        Ok((change, target)) if is_dry_run => Ok(try_revert(&state, &change, target).await?.into_response()),
        Ok((change, target)) => revert(&state, &change, target, author).await,
        Err(error) if is_dry_run && !error.is_server_error() => Ok(DryRun::refused_by(error).into_response()),
        Err(error) => Err(error),
    }
}

/// The change, and what reverting it would write.
async fn find(state: &Shared, id: &str, now: Timestamp) -> Result<(Change, Target), ApiError> {
    let changes = write::read(state.store.changes(ChangesQuery { topic: None, before: None, limit: KEPT_CHANGES })).await?;
    let Some(change) = changes.into_iter().find(|change| change.id == id) else {
        return Err(ApiError::at(ProblemCode::NotFound, "/path/id", format!("there is no change {id}; the newest {KEPT_CHANGES} are kept")));
    };
    let target = match change.action {
        ChangeAction::Put | ChangeAction::Patch | ChangeAction::Delete | ChangeAction::Revert => {
            let current = write::entry(state, &change.topic).await?;
            let made: Option<SpecFields> = read(&change, change.after.as_ref())?;
            if current.as_ref().map(|stored| &stored.value) != made.as_ref() {
                return Err(changed_since(&change));
            }
            let precondition = current.map_or(Precondition::Absent, |stored| Precondition::Revision(stored.revision));
            Target::Entry(read(&change, change.before.as_ref())?, precondition)
        }
        ChangeAction::Pause | ChangeAction::Resume => {
            let made: Option<Pause> = read(&change, change.after.as_ref())?;
            let present = state.store.views().borrow().pauses.get(&change.topic).map(|stored| stored.value.clone());
            if present != made {
                return Err(changed_since(&change));
            }
            let before: Option<Pause> = read(&change, change.before.as_ref())?;
            // A pause whose end has passed would be none.
            Target::Pause(before.filter(|pause| pause.until_at.is_none_or(|until_at| until_at > now)))
        }
        ChangeAction::Rewind => {
            let detail = "a rewind is not reverted; rewind again, to the offsets in its `before`";
            return Err(ApiError::at(ProblemCode::ValidationFailed, "/path/id", detail));
        }
    };
    Ok((change, target))
}

/// What a change holds. A store of a later version may hold what this one does not know.
fn read<T: DeserializeOwned>(change: &Change, value: Option<&Value>) -> Result<Option<T>, ApiError> {
    value.map(|value| serde_json::from_value(value.clone())).transpose().map_err(|error| {
        tracing::warn!(change = change.id, %error, "a change cannot be read");
        ApiError::at(
            ProblemCode::ValidationFailed,
            "/path/id",
            "what was there before is not readable for this version of drover; write the topic instead",
        )
    })
}

fn changed_since(change: &Change) -> ApiError {
    let topic = &change.topic;
    let detail = format!(
        "what this change made is not there any more; revert the later changes of {topic} first (GET /api/v1/changes?topic={topic}), or write the topic"
    );
    let error = FieldError { pointer: "/path/id".to_owned(), code: ProblemCode::PreconditionFailed.as_str().to_owned(), detail };
    write::precondition_failed(error)
}

async fn revert(state: &Shared, change: &Change, target: Target, author: Author) -> Result<Response, ApiError> {
    match target {
        Target::Entry(fields, precondition) => edit::restore(state, &change.topic, fields, precondition, author).await,
        Target::Pause(Some(before)) => {
            let topic = write::named(state, &change.topic).await?;
            pause::lay(state, &change.topic, &topic, before, author).await
        }
        Target::Pause(None) => match write::write(state.store.delete_pause(&change.topic, author.clone())).await {
            Ok(revision) => {
                write::audit(ChangeAction::Resume, &change.topic, &author, Some(revision));
                let is_applied = write::applied(state, revision).await;
                Ok(write::marked(StatusCode::NO_CONTENT.into_response(), is_applied))
            }
            Err(StoreError::NotFound) => Ok(StatusCode::NO_CONTENT.into_response()),
            Err(error) => Err(write::problem(error)),
        },
    }
}

async fn try_revert(state: &Shared, change: &Change, target: Target) -> Result<DryRun, ApiError> {
    let (action, after) = match target {
        Target::Entry(fields, _) => {
            let action = match (&change.after, &fields) {
                (_, None) => DryRunAction::Delete,
                (None, Some(_)) => DryRunAction::Create,
                (Some(_), Some(_)) => DryRunAction::Update,
            };
            (action, edit::preview(state, &change.topic, fields)?)
        }
        Target::Pause(pause) => {
            let topic = write::named(state, &change.topic).await?;
            let action = match (&change.after, &pause) {
                (None, None) => DryRunAction::None,
                (Some(_), None) => DryRunAction::Delete,
                (None, Some(_)) => DryRunAction::Create,
                (Some(_), Some(_)) => DryRunAction::Update,
            };
            (action, Some(DesiredTopic { paused: pause, ..(*topic).clone() }))
        }
    };
    Ok(DryRun::of_change(state, &change.topic, action, after.map(Arc::new), Vec::new()).await)
}
