//! Dead letters: the list and one of them; deleting one, and asking for redrives.
//!
//! Guarantees that what can be said at once of a redrive is said at once: no such letter, no payload, a topic that nothing manages. What comes of it is seen in the letter: it is gone, or `redriven_at` is the
//! time of the try. A redrive of many takes those that had died when it was accepted. Guarantees that a list is small however large the records are: keys and payloads are cut at [`LISTED_BYTES`], and whole ones are held only a few at a time while the list is made.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{self, LetterPath, NoBody, Params};
use super::list::{self, Key, Scope};
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::write::{self, By};
use super::{ProblemCode, Shared, document};
use crate::dead_letters::redrive::Refused;
use crate::dead_letters::{DeadLetter, Error, Query};
use crate::desired::store::Author;
use crate::topic::TopicName;

/// Bytes of a payload in a list.
const LISTED_BYTES: usize = 4096;
/// Characters of a server's reason in a table.
const TABLE_REASON: usize = 80;
/// Letters that are held whole at once while a list is made: with Kafka's default of 1 MiB per record, 16 MiB.
const WHOLE_AT_ONCE: usize = 16;
/// How long the store may take for one request.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterList {
    /// The letters, by topic, partition and offset; keys and payloads are cut at 4 KiB, and then `truncated` is true.
    items: Vec<DeadLetter>,
    /// The cursor of the next page; `null` on the last.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

/// The query of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `parse`")]
struct DeadLettersParameters {
    /// Only this topic's
    topic: Option<TopicName>,
    /// Only this partition's
    #[param(minimum = 0)]
    partition: Option<i32>,
    /// Only errors of this type
    #[param(example = "document_parsing_exception")]
    error_type: Option<String>,
    /// Only letters that last died at this time or later
    since: Option<Timestamp>,
    /// Only letters that last died before this time
    until: Option<Timestamp>,
    /// Rows of a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
    /// `next` of the page before; filters must stay the same
    cursor: Option<String>,
}

fn parse(uri: &Uri) -> Result<(Query, String), ApiError> {
    let mut params = Params::of(uri, "dead-letters")?;
    let fingerprint = params.fingerprint().to_owned();
    let query = Query { limit: params.limit(), ..filters(&mut params) };
    let after = list::take_cursor(&mut params, 4);
    params.finish()?;
    let after = after.map(place).transpose()?;
    Ok((Query { after, ..query }, fingerprint))
}

/// The filters, which a list and a redrive have in common.
fn filters(params: &mut Params) -> Query {
    Query {
        topic: params.take("topic", extract::topic),
        partition: params.take("partition", extract::partition),
        error_type: params.take("error_type", extract::any),
        since: params.take("since", extract::time),
        until: params.take("until", extract::time),
        ..Query::default()
    }
}

/// The place that a cursor's keys name.
fn place(keys: Vec<Key<'_>>) -> Result<(TopicName, i32, i64, String), ApiError> {
    let place = match keys.as_slice() {
        [Key::Text(topic), Key::Number(partition), Key::Number(offset), Key::Text(id)] => {
            TopicName::new(topic).ok().zip(i32::try_from(*partition).ok()).map(|(topic, partition)| (topic, partition, *offset, id.to_string()))
        }
        _ => None,
    };
    place.ok_or_else(|| ApiError::at(ProblemCode::InvalidRequest, "/query/cursor", "it is not a cursor of this list"))
}

problems!(ListProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal StoreUnavailable);
problems!(ItemProblems: InvalidRequest NotFound NotAcceptable MisdirectedRequest ValidationFailed Internal StoreUnavailable);
problems!(DeleteProblems: InvalidRequest Forbidden NotFound NotAcceptable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal StoreUnavailable OutcomeUnknown);
problems!(RedriveProblems: InvalidRequest Forbidden NotAcceptable TopicNotManaged PayloadTooLarge UnsupportedMediaType MisdirectedRequest RateLimited Internal StoreUnavailable ShuttingDown);
problems!(RedriveOneProblems: InvalidRequest Forbidden NotFound NotAcceptable TopicNotManaged PayloadGone PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed RateLimited Internal StoreUnavailable ShuttingDown);

/// Lists dead letters
///
/// Records that no server would take, with the reason, by topic, partition and offset. With `Accept: text/plain` the answer is a table for people, without keys and payloads.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters",
    tag = "dead-letters",
    params(DeadLettersParameters),
    responses(
        (status = 200, description = "A page of dead letters", headers(("x-request-id" = String, description = "The request's id")),
            content((DeadLetterList = "application/json"), (String = "text/plain"))),
        ListProblems,
    ),
)]
pub(super) async fn list_dead_letters(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    let (query, fingerprint) = parse(&uri)?;
    let limit = query.limit;
    let mut items = in_time(collect(&state, query)).await?;
    let has_more = items.len() > limit;
    items.truncate(limit);
    let last = if has_more { items.last() } else { None };
    let next = last.map(|letter| {
        let keys =
            vec![Key::text(letter.topic.as_str()), Key::Number(i64::from(letter.partition)), Key::Number(letter.offset), Key::text(&letter.id)];
        list::cursor(&fingerprint, keys)
    });
    let body = match form {
        Form::Json => document::json(&DeadLetterList { items, next, scope: Scope::Instance })?,
        Form::Text => table(&items, next.as_deref()).into_bytes(),
    };
    Ok(document::answer(form, body))
}

fn table(letters: &[DeadLetter], next: Option<&str>) -> String {
    let mut table = Table::new(&["ID", "CAUSE", "ERROR", "STATUS", "TOPIC", "PARTITION", "OFFSET", "ATTEMPTS", "LAST", "REASON"]);
    for letter in letters {
        table.row([
            letter.id.clone(),
            letter.cause.as_str().to_owned(),
            letter.error.kind.clone(),
            text::cell(letter.error.status),
            letter.topic.to_string(),
            letter.partition.to_string(),
            letter.offset.to_string(),
            letter.attempts.to_string(),
            format!("{:.0}", letter.last_at),
            text::cut(&letter.error.reason, TABLE_REASON),
        ]);
    }
    document::table_with_next(&table, next)
}

/// The letters of a page and one more, cut, a few whole ones at a time.
async fn collect(state: &Shared, query: Query) -> Result<Vec<DeadLetter>, Error> {
    let wanted = query.limit.saturating_add(1);
    let mut letters: Vec<DeadLetter> = Vec::new();
    let mut after = query.after.clone();
    while letters.len() < wanted {
        let asked = (wanted - letters.len()).min(WHOLE_AT_ONCE);
        let batch = state.dead_letters.list(Query { limit: asked, after: after.clone(), ..query.clone() }).await?;
        let is_last = batch.len() < asked;
        letters.extend(batch.into_iter().map(cut));
        after = letters.last().map(|letter| (letter.topic.clone(), letter.partition, letter.offset, letter.id.clone()));
        if is_last {
            break;
        }
    }
    Ok(letters)
}

/// A letter as a list shows it.
fn cut(mut letter: DeadLetter) -> DeadLetter {
    for field in [&mut letter.payload_base64, &mut letter.key_base64] {
        if let Some(shorter) = field.as_deref().and_then(cut_base64) {
            *field = Some(shorter);
            letter.truncated = true;
        }
    }
    letter
}

/// The first [`LISTED_BYTES`] bytes of a base64 text; `None` when it holds no more than that.
fn cut_base64(encoded: &str) -> Option<String> {
    // Whole groups of four characters that hold the wanted bytes.
    let kept = LISTED_BYTES.div_ceil(3) * 4;
    let head = encoded.get(..kept)?;
    let mut bytes = STANDARD.decode(head).ok()?;
    if encoded.len() == kept && bytes.len() <= LISTED_BYTES {
        return None;
    }
    bytes.truncate(LISTED_BYTES);
    Some(STANDARD.encode(bytes))
}

/// Shows one dead letter, whole
///
/// Lists cut long payloads; here it is as it came from Kafka.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters/{id}",
    tag = "dead-letters",
    params(("id" = String, Path, description = "The id of the document that the record would have become: `{topic_id}:{partition}:{offset}`", pattern = "^[a-zA-Z0-9._-]{1,249}:(0|[1-9][0-9]{0,8}):(0|[1-9][0-9]{0,17})$", example = "HK2wYQabcdefghijklmnop:3:123")),
    responses(
        (status = 200, description = "The letter", body = DeadLetter, headers(("x-request-id" = String, description = "The request's id"))),
        ItemProblems,
    ),
)]
pub(super) async fn get_dead_letter(
    State(state): State<Shared>,
    LetterPath(id): LetterPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<DeadLetter>, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    let letter = in_time(state.dead_letters.get(&id)).await?;
    letter.map(Json).ok_or_else(|| no_such_letter(&id))
}

/// Deletes one dead letter
///
/// Its record is then in Kafka only, as long as that keeps it. A redrive of it that is under way may still index it.
#[utoipa::path(
    delete,
    path = "/api/v1/dead-letters/{id}",
    tag = "dead-letters",
    params(("id" = String, Path, description = "The letter's id", pattern = "^[a-zA-Z0-9._-]{1,249}:(0|[1-9][0-9]{0,8}):(0|[1-9][0-9]{0,17})$", example = "HK2wYQabcdefghijklmnop:3:123")),
    responses(
        (status = 204, description = "The letter is gone", headers(("x-request-id" = String, description = "The request's id"))),
        DeleteProblems,
    ),
)]
pub(super) async fn delete_dead_letter(
    State(state): State<Shared>,
    LetterPath(id): LetterPath,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    _: NoBody,
) -> Result<StatusCode, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    let Ok(answer) = tokio::time::timeout(STORE_TIMEOUT, state.dead_letters.delete(&id)).await else {
        let detail = "the dead-letter store did not say whether the letter was deleted; ask for it, or delete it again";
        return Err(ApiError::new(ProblemCode::OutcomeUnknown, detail));
    };
    if !answer.map_err(unavailable)? {
        return Err(no_such_letter(&id));
    }
    audit("delete", &author, &id, 1);
    Ok(StatusCode::NO_CONTENT)
}

/// How many letters a redrive takes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Redrive {
    /// Letters that matched when it was asked for. Those of topics that no source names, and those without their payload, stay as they are.
    accepted: u64,
}

/// The query of a redrive.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `filters`")]
struct RedriveParameters {
    /// Only this topic's
    topic: Option<TopicName>,
    /// Only this partition's
    #[param(minimum = 0)]
    partition: Option<i32>,
    /// Only errors of this type
    #[param(example = "document_parsing_exception")]
    error_type: Option<String>,
    /// Only letters that last died at this time or later
    since: Option<Timestamp>,
    /// Only letters that last died before this time
    until: Option<Timestamp>,
    /// Only say how many would be taken; the answer is 200
    #[param(default = false)]
    dry_run: Option<bool>,
}

/// Sends dead letters again
///
/// All that match, without a filter all there are: each is formatted under its topic's spec of today, under the id that it always had, and sent. Where that succeeds the letter is gone. Where it fails again the
/// letter stays, with the new error and with the time of the try in `redriven_at`. This goes on after the answer, page by page; an instance that is restarted meanwhile forgets the rest, and the
/// redrive can be asked for again. The topic's pause does not hold it up. `dry_run=true` counts them and sends nothing. Headers are not kept in a letter, so the documents' `kafka.headers` are empty.
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/redrive",
    tag = "dead-letters",
    params(RedriveParameters),
    responses(
        (status = 200, description = "How many letters would be taken", body = Redrive, headers(("x-request-id" = String, description = "The request's id"))),
        (status = 202, description = "The redrive is accepted", body = Redrive, headers(("x-request-id" = String, description = "The request's id"))),
        RedriveProblems,
    ),
)]
pub(super) async fn redrive_dead_letters(
    State(state): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    _: NoBody,
) -> Result<(StatusCode, Json<Redrive>), ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    let mut params = Params::of(&uri, "")?;
    let query = filters(&mut params);
    let is_dry_run = params.take("dry_run", extract::switch).unwrap_or(false);
    params.finish()?;
    let desired = write::desired(&state)?;
    if let Some(topic) = query.topic.as_ref().filter(|topic| !desired.topics.contains_key(*topic)) {
        return Err(not_managed(topic));
    }
    // What dies from now on, also by this redrive, is not part of it.
    let now = Timestamp::now();
    let query = Query { until: Some(query.until.map_or(now, |until| until.min(now))), ..query };
    let accepted = in_time(state.dead_letters.count(query.clone())).await?;
    if is_dry_run {
        return Ok((StatusCode::OK, Json(Redrive { accepted })));
    }
    if accepted > 0 {
        state.redrives.many(query).map_err(refused)?;
        audit("redrive", &author, uri.query().unwrap_or(""), accepted);
    }
    Ok((StatusCode::ACCEPTED, Json(Redrive { accepted })))
}

/// Sends one dead letter again
///
/// As for many. Afterwards the letter is gone, or says in `redriven_at` and `error` how the try ended.
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/{id}/redrive",
    tag = "dead-letters",
    params(("id" = String, Path, description = "The letter's id", pattern = "^[a-zA-Z0-9._-]{1,249}:(0|[1-9][0-9]{0,8}):(0|[1-9][0-9]{0,17})$", example = "HK2wYQabcdefghijklmnop:3:123")),
    responses(
        (status = 202, description = "The redrive is accepted", body = Redrive, headers(("x-request-id" = String, description = "The request's id"))),
        RedriveOneProblems,
    ),
)]
pub(super) async fn redrive_dead_letter(
    State(state): State<Shared>,
    LetterPath(id): LetterPath,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    _: NoBody,
) -> Result<(StatusCode, Json<Redrive>), ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    let desired = write::desired(&state)?;
    let letter = in_time(state.dead_letters.get(&id)).await?.ok_or_else(|| no_such_letter(&id))?;
    if !desired.topics.contains_key(&letter.topic) {
        return Err(not_managed(&letter.topic));
    }
    if !letter.is_whole() {
        let detail = "the store could not keep the payload, so the letter cannot be redriven; while Kafka has the record, a rewind of its partition to its offset reads it again";
        return Err(ApiError::new(ProblemCode::PayloadGone, detail));
    }
    state.redrives.one(id.clone()).map_err(refused)?;
    audit("redrive", &author, &id, 1);
    Ok((StatusCode::ACCEPTED, Json(Redrive { accepted: 1 })))
}

fn no_such_letter(id: &str) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("there is no dead letter {id}"))
}

fn not_managed(topic: &TopicName) -> ApiError {
    let detail = format!(
        "no source names the topic {topic}, so nothing says how its records become documents; add it again, paused if nothing else is to be read"
    );
    ApiError::new(ProblemCode::TopicNotManaged, detail)
}

fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Busy => ApiError::new(ProblemCode::RateLimited, "too many redrives wait; one redrive with filters takes many letters"),
        Refused::Stopping => ApiError::new(ProblemCode::ShuttingDown, "the instance is shutting down"),
    }
}

/// The line that an action leaves in the log.
fn audit(action: &str, author: &Author, what: &str, letters: u64) {
    let request_id = author.request_id.as_deref().unwrap_or("-");
    tracing::info!(action, what = %text::bounded(what, 500), letters, actor = %text::bounded(&author.actor, 100), request_id, "dead letters changed");
}

/// The store's answer, or a problem; the cause goes to the log, where it may name files and servers.
async fn in_time<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(STORE_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unavailable(error)),
        Err(_) => {
            Err(ApiError::new(ProblemCode::StoreUnavailable, format!("the dead-letter store did not answer within {} s", STORE_TIMEOUT.as_secs())))
        }
    }
}

fn unavailable(error: Error) -> ApiError {
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(error = %text::bounded(&error.to_string(), 500), cause = %text::bounded(&cause, 500), "the dead-letter store did not do what was asked");
    ApiError::new(ProblemCode::StoreUnavailable, "the dead-letter store cannot be read or written; the log has the cause")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cut_keeps_exactly_the_first_bytes(payload in proptest::collection::vec(any::<u8>(), 4080..4120)) {
            let cut = cut_base64(&STANDARD.encode(&payload));
            if payload.len() <= LISTED_BYTES {
                prop_assert_eq!(cut, None);
            } else {
                prop_assert_eq!(cut, Some(STANDARD.encode(payload.get(..LISTED_BYTES).unwrap_or_default())));
            }
        }
    }
}
