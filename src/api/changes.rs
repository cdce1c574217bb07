//! The log of changes: who changed which topic when, newest first.
//!
//! Guarantees that following `next` shows every change that is still kept exactly once while new ones come in.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{self, Params};
use super::list::{self, Key, Scope};
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::write;
use super::{ProblemCode, Shared, document};
use crate::desired::store::ChangesQuery;
use crate::status::Change;
use crate::topic::TopicName;

/// A page of changes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangeList {
    /// The changes, newest first.
    items: Vec<Change>,
    /// The cursor of the next page; `null` on the last.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

/// The query of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `parse`")]
struct ChangesParameters {
    /// Only this topic's
    topic: Option<TopicName>,
    /// Rows of a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
    /// `next` of the page before; filters must stay the same
    cursor: Option<String>,
}

fn parse(uri: &Uri) -> Result<(ChangesQuery, String), ApiError> {
    let mut params = Params::of(uri, "changes")?;
    let fingerprint = params.fingerprint().to_owned();
    let topic = params.take("topic", extract::topic);
    let limit = params.limit();
    let after = list::take_cursor(&mut params, 1);
    params.finish()?;
    let before = after.map(place).transpose()?;
    Ok((ChangesQuery { topic, before, limit }, fingerprint))
}

/// The id that a cursor's key names.
fn place(keys: Vec<Key<'_>>) -> Result<String, ApiError> {
    match keys.as_slice() {
        [Key::Text(id)] if extract::is_change_id(id) => Ok(id.to_string()),
        _ => Err(ApiError::at(ProblemCode::InvalidRequest, "/query/cursor", "it is not a cursor of this list")),
    }
}

problems!(ListProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal StoreUnavailable);

/// Lists the changes
///
/// Who changed which topic when, and what was there before and after; the newest 1,000 are kept. With `Accept: text/plain` the answer is a table for people.
#[utoipa::path(
    get,
    path = "/api/v1/changes",
    tag = "topics",
    params(ChangesParameters),
    responses(
        (status = 200, description = "A page of changes", headers(("x-request-id" = String, description = "The request's id")),
            content((ChangeList = "application/json"), (String = "text/plain"))),
        ListProblems,
    ),
)]
pub(super) async fn list_changes(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    let (query, fingerprint) = parse(&uri)?;
    let limit = query.limit;
    // One more tells whether there is a next page.
    let mut items = write::read(state.store.changes(ChangesQuery { limit: limit.saturating_add(1), ..query })).await?;
    let has_more = items.len() > limit;
    items.truncate(limit);
    let last = if has_more { items.last() } else { None };
    let next = last.map(|change| list::cursor(&fingerprint, vec![Key::text(&change.id)]));
    let body = match form {
        Form::Json => document::json(&ChangeList { items, next, scope: Scope::Instance })?,
        Form::Text => table(&items, next.as_deref()).into_bytes(),
    };
    Ok(document::answer(form, body))
}

fn table(changes: &[Change], next: Option<&str>) -> String {
    let mut table = Table::new(&["AT", "TOPIC", "ACTION", "ACTOR", "SOURCE", "REVISION", "ID"]);
    for change in changes {
        table.row([
            format!("{:.0}", change.at),
            change.topic.to_string(),
            write::action_name(change.action).to_owned(),
            change.actor.clone(),
            change.source.clone(),
            text::cell(change.revision),
            change.id.clone(),
        ]);
    }
    document::table_with_next(&table, next)
}
