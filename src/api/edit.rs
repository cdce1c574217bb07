//! A topic's entry in the store: written whole, patched, removed.
//!
//! Guarantees: what is answered with success is durable; of several writers under one precondition one succeeds and the others get 412; a patch without a precondition never undoes
//! another's; nothing is written that some reader of the store would refuse.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::dry_run::{self, DryRun, DryRunAction, DryRunParameter};
use super::extract::{NoBody, TopicPath};
use super::precondition;
use super::problem::{ApiError, problems};
use super::write::{self, Asked, By};
use super::{FieldError, ProblemCode, Shared, body, fields};
use crate::desired::store::{Author, Precondition, PutOutcome, Races, StoreError, Stored};
use crate::desired::{Desired, DesiredTopic};
use crate::status::{ChangeAction, Topic};
use crate::topic::{Format, Metadata, OnReject, Operation, SpecFields, Tombstones, TopicName};

/// The topic, or with `dry_run=true` what would happen.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only in the document")]
pub(super) enum TopicOrDryRun {
    /// The topic as `GET` shows it.
    Topic(Box<Topic>),
    /// What would happen.
    DryRun(Box<DryRun>),
}

/// A merge patch (RFC 7396) of the fields that the store holds: a field that is left out stays, `null` removes one.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documented here, read by `fields::patched`")]
pub(super) struct TopicPatch {
    /// Template of the index name: `{topic}`, `{date}` or `{date:%Y.%m}` (the record's own time, UTC) and literal text.
    #[schema(example = "orders-{date}")]
    index: Option<String>,
    /// How a record becomes a document.
    format: Option<Format>,
    /// Whether the `kafka` object is added.
    metadata: Option<Metadata>,
    /// The bulk operation.
    operation: Option<Operation>,
    /// Name of an ingest pipeline.
    pipeline: Option<String>,
    /// Where a partition without a committed offset starts.
    #[schema(example = "earliest")]
    start: Option<String>,
    /// What happens to a record without a value.
    tombstones: Option<Tombstones>,
    /// What a permanent rejection does.
    on_reject: Option<OnReject>,
    /// Labels to set or, with `null`, to remove.
    labels: Option<BTreeMap<String, Option<String>>>,
}

problems!(ChangeProblems: InvalidRequest Forbidden NotAcceptable PreconditionFailed PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal StoreUnavailable StoreStale OutcomeUnknown);
problems!(DeleteProblems: InvalidRequest Forbidden NotFound NotAcceptable TopicNotManaged PreconditionFailed PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal StoreUnavailable StoreStale OutcomeUnknown);

/// How an entry is changed.
enum Edit {
    /// It becomes exactly these fields.
    Put(SpecFields),
    /// It is patched.
    Patch(Map<String, Value>),
}

impl Edit {
    fn action(&self) -> ChangeAction {
        match self {
            Self::Put(_) => ChangeAction::Put,
            Self::Patch(_) => ChangeAction::Patch,
        }
    }

    /// The entry's fields after the change.
    fn applied_to(&self, current: Option<&Stored<SpecFields>>) -> Result<SpecFields, Vec<FieldError>> {
        match self {
            Self::Put(fields) => Ok(fields.clone()),
            Self::Patch(patch) => {
                let nothing = SpecFields::default();
                fields::patched(current.map_or(&nothing, |stored| &stored.value), patch)
            }
        }
    }
}

/// Writes a topic's entry in the store
///
/// Stores exactly the fields of the body; `{}` is fine, and every field that is left out comes from the other sources or is built in. `If-None-Match: *` only creates, `If-Match` with the
/// tag of `GET` only changes what the client has seen (`"r0"`: there is no entry; `*`: there is one). The answer waits at most 2 s until the instance itself has the change; if it has
/// not by then, it carries `drover-applied: false`. A topic that Kafka lacks is stored and waits.
#[utoipa::path(
    put,
    path = "/api/v1/topics/{topic}",
    tag = "topics",
    params(
        ("topic" = TopicName, Path, description = "The topic's name"),
        DryRunParameter,
        ("if-match" = Option<String>, Header, description = "Only if the store's entry has one of these tags", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, example = json!("\"r12\"")),
        ("if-none-match" = Option<String>, Header, description = "`*`: only if the store has no entry", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, example = json!("*")),
    ),
    request_body(content = SpecFields, content_type = "application/json", example = json!({"index": "orders-{date}", "format": "json"})),
    responses(
        (status = 200, description = "The entry was written, or what would happen", body = TopicOrDryRun, headers(
            ("etag" = String, description = "Revision of the store's entry"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        (status = 201, description = "The store had no entry before", body = Topic, headers(
            ("etag" = String, description = "Revision of the store's entry"),
            ("location" = String, description = "The topic's path"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        ChangeProblems,
    ),
)]
pub(super) async fn put_topic(
    State(state): State<Shared>,
    path: Result<TopicPath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(&uri, &headers)?;
    let values = body::required_object(request, &state, &[body::JSON]).await?;
    change(&state, path, &asked, author, fields::spec(values).map(Edit::Put)).await
}

/// Changes fields of a topic's entry in the store
///
/// The body is a merge patch of what the store holds (`overrides`): fields that are left out stay, `null` removes one, labels merge one by one. A topic without an entry gets one. Without
/// `If-Match` the patch is applied to whatever is stored at that moment, so that two patches of different fields never undo each other.
#[utoipa::path(
    patch,
    path = "/api/v1/topics/{topic}",
    tag = "topics",
    params(
        ("topic" = TopicName, Path, description = "The topic's name"),
        DryRunParameter,
        ("if-match" = Option<String>, Header, description = "Only if the store's entry has one of these tags", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, example = json!("\"r12\"")),
        ("if-none-match" = Option<String>, Header, description = "`*`: only if the store has no entry", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, example = json!("*")),
    ),
    request_body(content(
        (TopicPatch = "application/merge-patch+json", example = json!({"format": "json", "pipeline": null, "labels": {"team": "payments"}})),
        (TopicPatch = "application/json", example = json!({"format": "json", "pipeline": null, "labels": {"team": "payments"}})),
    )),
    responses(
        (status = 200, description = "The entry was changed, or what would happen", body = TopicOrDryRun, headers(
            ("etag" = String, description = "Revision of the store's entry"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        (status = 201, description = "The store had no entry before", body = Topic, headers(
            ("etag" = String, description = "Revision of the store's entry"),
            ("location" = String, description = "The topic's path"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        ChangeProblems,
    ),
)]
pub(super) async fn patch_topic(
    State(state): State<Shared>,
    path: Result<TopicPath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::of(&uri, &headers)?;
    let patch = body::required_object(request, &state, &[body::MERGE_PATCH, body::JSON]).await?;
    change(&state, path, &asked, author, Ok(Edit::Patch(patch))).await
}

/// Writes, or says what would happen.
async fn change(
    state: &Shared,
    path: Result<TopicPath, ApiError>,
    asked: &Asked,
    author: Author,
    edit: Result<Edit, Vec<FieldError>>,
) -> Result<Response, ApiError> {
    let desired = write::desired(state)?;
    if asked.is_dry_run {
        return Ok(try_change(state, &desired, path, asked, edit).await.into_response());
    }
    let TopicPath(name) = path?;
    let edit = edit.map_err(write::invalid)?;
    let mut races = Races::new();
    loop {
        let (current, precondition) = match &edit {
            // What is there does not matter, and may even be unreadable.
            Edit::Put(_) if asked.preconditions.is_empty() => (None, Precondition::Any),
            _ => {
                let current = write::entry(state, &name).await?;
                let revision = current.as_ref().map(|stored| stored.revision);
                asked.preconditions.check(revision).map_err(write::precondition_failed)?;
                (current, revision.map_or(Precondition::Absent, Precondition::Revision))
            }
        };
        let (fields, _) = outcome_of(&edit, &desired, &name, current.as_ref()).map_err(write::invalid)?;
        let written = write::write(state.store.put_topic(&name, fields.clone(), precondition, edit.action(), author.clone())).await;
        match written {
            Ok(outcome) => {
                write::audit(edit.action(), &name, &author, Some(outcome.revision));
                return Ok(answer_written(state, &name, fields, outcome).await);
            }
            // Someone else was faster; whether the preconditions still hold is seen in the next turn.
            Err(StoreError::Conflict { .. }) if races.again().await => {}
            Err(StoreError::Conflict { .. }) => return Err(kept_changing()),
            Err(error) => return Err(write::problem(error)),
        }
    }
}

/// No 412: the client's preconditions, if there are any, hold.
fn kept_changing() -> ApiError {
    ApiError::new(ProblemCode::StoreUnavailable, "nothing was changed, because others kept changing the topic's entry; try again")
}

/// The entry's fields and the topic after the change, or all that is wrong with it.
fn outcome_of(
    edit: &Edit,
    desired: &Desired,
    name: &TopicName,
    current: Option<&Stored<SpecFields>>,
) -> Result<(SpecFields, Option<DesiredTopic>), Vec<FieldError>> {
    let fields = edit.applied_to(current)?;
    let after = with_entry(desired, name, &fields, current.map_or(0, |stored| stored.revision));
    if let Some(Err(error)) = after.as_ref().map(|topic| topic.spec.index.check(name)) {
        let detail = format!("{error}; give the topic an index of its own");
        return Err(vec![FieldError { pointer: "/index".to_owned(), code: "invalid".to_owned(), detail }]);
    }
    Ok((fields, after))
}

/// The topic with this entry.
fn with_entry(desired: &Desired, name: &TopicName, fields: &SpecFields, revision: i64) -> Option<DesiredTopic> {
    let present = desired.inputs.store.topics.get(name);
    let key = present.map_or_else(|| format!("topics/{name}"), |stored| stored.key.clone());
    desired.inputs.topic_with(name, Some(&Stored { key, revision, value: fields.clone() }), Timestamp::now())
}

/// Answers a write with the topic as the snapshot shows it, or as it will.
async fn answer_written(state: &Shared, name: &TopicName, fields: SpecFields, outcome: PutOutcome) -> Response {
    let is_applied = write::applied(state, outcome.revision).await;
    let shown = if is_applied { write::shown(&state.now(), name) } else { None };
    let projected = || {
        let desired = write::desired(state).ok()?;
        let wanted = with_entry(&desired, name, &fields, outcome.revision)?;
        Some(write::projected(state, name, &wanted))
    };
    let status = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = match shown.or_else(projected) {
        Some(topic) => write::topic_answer(status, topic, is_applied),
        // A topic with an entry is always named; should it not be, the write is still told.
        None => write::marked((status, [(header::ETAG, precondition::tag(Some(outcome.revision)))]).into_response(), is_applied),
    };
    if outcome.created
        && let Ok(location) = HeaderValue::from_str(&format!("/api/v1/topics/{name}"))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Makes the entry what it was before a change: these fields, or none.
pub(super) async fn restore(
    state: &Shared,
    name: &TopicName,
    fields: Option<SpecFields>,
    precondition: Precondition,
    author: Author,
) -> Result<Response, ApiError> {
    let desired = write::desired(state)?;
    match fields {
        Some(fields) => {
            let (fields, _) = outcome_of(&Edit::Put(fields), &desired, name, None).map_err(write::invalid)?;
            let action = ChangeAction::Revert;
            let outcome =
                write::write(state.store.put_topic(name, fields.clone(), precondition, action, author.clone())).await.map_err(write::problem)?;
            write::audit(action, name, &author, Some(outcome.revision));
            Ok(answer_written(state, name, fields, outcome).await)
        }
        None => {
            let remaining = without_entry(&desired, name);
            let revision = write::write(state.store.delete_topic(name, precondition, author.clone())).await.map_err(write::problem)?;
            write::audit(ChangeAction::Delete, name, &author, Some(revision));
            Ok(answer_removed(state, name, remaining, revision).await)
        }
    }
}

/// The topic with this entry, or with none; `None` where nothing names it then.
pub(super) fn preview(state: &Shared, name: &TopicName, fields: Option<SpecFields>) -> Result<Option<DesiredTopic>, ApiError> {
    let desired = write::desired(state)?;
    Ok(match fields {
        Some(fields) => with_entry(&desired, name, &fields, 0),
        None => without_entry(&desired, name),
    })
}

async fn try_change(
    state: &Shared,
    desired: &Desired,
    path: Result<TopicPath, ApiError>,
    asked: &Asked,
    edit: Result<Edit, Vec<FieldError>>,
) -> DryRun {
    let name = match path {
        Ok(TopicPath(name)) => name,
        Err(error) => {
            let mut errors = error.into_errors();
            errors.extend(edit.and_then(|edit| edit.applied_to(None)).err().unwrap_or_default());
            return DryRun::refused(errors, Vec::new());
        }
    };
    let (current, mut warnings) = dry_run::entry(state, &name).await;
    let mut errors: Vec<FieldError> = asked.preconditions.check(current.as_ref().map(|stored| stored.revision)).err().into_iter().collect();
    let (fields, after) = match edit.and_then(|edit| outcome_of(&edit, desired, &name, current.as_ref())) {
        Ok((fields, Some(after))) if errors.is_empty() => (fields, after),
        Ok(_) => return DryRun::refused(errors, warnings),
        Err(wrong) => {
            errors.extend(wrong);
            return DryRun::refused(errors, warnings);
        }
    };
    warnings.extend(dry_run::warnings(desired, &name, &fields, &after, Timestamp::now()));
    let action = match current {
        None => DryRunAction::Create,
        Some(stored) if stored.value == fields => DryRunAction::None,
        Some(_) => DryRunAction::Update,
    };
    DryRun::of_change(state, &name, action, Some(Arc::new(after)), warnings).await
}

/// Removes a topic's entry from the store
///
/// A topic that only the store names is not consumed any more: 204. One that other sources name too goes on as they want it: 200 with the topic. A pause goes with the entry. Committed
/// offsets stay, so a topic that is added again goes on where it was; Kafka's topic and the index are never touched. A topic that only other sources name cannot be removed here (409),
/// but it can be paused.
#[utoipa::path(
    delete,
    path = "/api/v1/topics/{topic}",
    tag = "topics",
    params(
        ("topic" = TopicName, Path, description = "The topic's name"),
        DryRunParameter,
        ("if-match" = Option<String>, Header, description = "Only if the store's entry has one of these tags", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, example = json!("\"r12\"")),
        ("if-none-match" = Option<String>, Header, description = "Only if the store's entry has none of these tags", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#, example = json!("\"r12\"")),
    ),
    responses(
        (status = 200, description = "The entry was removed and other sources still name the topic, or what would happen", body = TopicOrDryRun, headers(
            ("etag" = String, description = "`\"r0\"`: there is no entry"),
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        (status = 204, description = "The entry was removed, and nothing names the topic any more", headers(
            ("drover-applied" = String, description = "`false` when the instance does not have the change yet, else absent"),
            ("x-request-id" = String, description = "The request's id"))),
        DeleteProblems,
    ),
)]
pub(super) async fn delete_topic(
    State(state): State<Shared>,
    path: Result<TopicPath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    _: NoBody,
) -> Result<Response, ApiError> {
    let asked = Asked::of(&uri, &headers)?;
    let desired = write::desired(&state)?;
    if asked.is_dry_run {
        return Ok(try_delete(&state, &desired, path, &asked).await.into_response());
    }
    let TopicPath(name) = path?;
    let mut races = Races::new();
    loop {
        let remaining = without_entry(&desired, &name);
        let Some(stored) = write::entry(&state, &name).await? else { return Err(nothing_to_remove(&name, remaining.as_ref())) };
        asked.preconditions.check(Some(stored.revision)).map_err(write::precondition_failed)?;
        let removed = write::write(state.store.delete_topic(&name, Precondition::Revision(stored.revision), author.clone())).await;
        match removed {
            Ok(revision) => {
                write::audit(ChangeAction::Delete, &name, &author, Some(revision));
                return Ok(answer_removed(&state, &name, remaining, revision).await);
            }
            // Changed or removed meanwhile: look again.
            Err(StoreError::Conflict { .. } | StoreError::NotFound) if races.again().await => {}
            Err(StoreError::Conflict { .. } | StoreError::NotFound) => return Err(kept_changing()),
            Err(error) => return Err(write::problem(error)),
        }
    }
}

/// What the other sources make of the topic; the pause goes with the entry.
fn without_entry(desired: &Desired, name: &TopicName) -> Option<DesiredTopic> {
    let remaining = desired.inputs.topic_with(name, None, Timestamp::now())?;
    Some(DesiredTopic { paused: None, ..remaining })
}

fn nothing_to_remove(name: &TopicName, elsewhere: Option<&DesiredTopic>) -> ApiError {
    let Some(topic) = elsewhere else { return write::not_named(name) };
    let places = dry_run::places(topic).join(", ");
    let remedy = format!("the topic is named by {places} and not by the store: remove it there, or pause it with PUT /api/v1/topics/{name}/pause");
    ApiError::new(ProblemCode::TopicNotManaged, remedy)
}

async fn answer_removed(state: &Shared, name: &TopicName, remaining: Option<DesiredTopic>, revision: i64) -> Response {
    let is_applied = write::applied(state, revision).await;
    let Some(remaining) = remaining else { return write::marked(StatusCode::NO_CONTENT.into_response(), is_applied) };
    let shown = if is_applied { write::shown(&state.now(), name) } else { None };
    let topic = shown.unwrap_or_else(|| write::projected(state, name, &remaining));
    write::topic_answer(StatusCode::OK, topic, is_applied)
}

async fn try_delete(state: &Shared, desired: &Desired, path: Result<TopicPath, ApiError>, asked: &Asked) -> DryRun {
    let name = match path {
        Ok(TopicPath(name)) => name,
        Err(error) => return DryRun::refused_by(error),
    };
    let (current, warnings) = dry_run::entry(state, &name).await;
    let remaining = without_entry(desired, &name);
    let Some(stored) = current else { return DryRun::refused(nothing_to_remove(&name, remaining.as_ref()).into_errors(), warnings) };
    if let Err(error) = asked.preconditions.check(Some(stored.revision)) {
        return DryRun::refused(vec![error], warnings);
    }
    DryRun::of_change(state, &name, DryRunAction::Delete, remaining.map(Arc::new), warnings).await
}
