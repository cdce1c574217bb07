//! Dead letters: the list and one of them.
//!
//! Guarantees that a list is small however large the records are: keys and payloads are cut at [`LISTED_BYTES`], and whole ones are held only a few at a time while the list is made.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{self, LetterPath, Params};
use super::list::{self, Key, Scope};
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::{ProblemCode, Shared, document};
use crate::dead_letters::{DeadLetter, Error, Query};
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
    let query = Query {
        topic: params.take("topic", extract::topic),
        partition: params.take("partition", extract::partition),
        error_type: params.take("error_type", extract::any),
        since: params.take("since", extract::time),
        until: params.take("until", extract::time),
        limit: params.limit(),
        after: None,
    };
    let after = list::take_cursor(&mut params, 4);
    params.finish()?;
    let after = after.map(place).transpose()?;
    Ok((Query { after, ..query }, fingerprint))
}

/// The place that a cursor's keys name.
fn place(keys: Vec<Key>) -> Result<(TopicName, i32, i64, String), ApiError> {
    let place = match keys.as_slice() {
        [Key::Text(topic), Key::Number(partition), Key::Number(offset), Key::Text(id)] => {
            TopicName::new(topic).ok().zip(i32::try_from(*partition).ok()).map(|(topic, partition)| (topic, partition, *offset, id.clone()))
        }
        _ => None,
    };
    place.ok_or_else(|| ApiError::at(ProblemCode::InvalidRequest, "/query/cursor", "it is not a cursor of this list"))
}

problems!(ListProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal StoreUnavailable);
problems!(ItemProblems: InvalidRequest NotFound NotAcceptable MisdirectedRequest ValidationFailed Internal StoreUnavailable);

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
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters/{id}",
    tag = "dead-letters",
    params(("id" = String, Path, description = "The id of the document that the record would have become: `{topic_id}:{partition}:{offset}`", example = "HK2wYQabcdefghijklmnop:3:123")),
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
    letter.map(Json).ok_or_else(|| ApiError::new(ProblemCode::NotFound, format!("there is no dead letter {id}")))
}

/// The store's answer, or a problem; the cause goes to the log, where it may name files and servers.
async fn in_time<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(STORE_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(error = %text::bounded(&error.to_string(), 500), cause = %text::bounded(&cause, 500), "the dead-letter store cannot be read");
            Err(ApiError::new(ProblemCode::StoreUnavailable, "the dead-letter store cannot be read; the log has the cause"))
        }
        Err(_) => {
            Err(ApiError::new(ProblemCode::StoreUnavailable, format!("the dead-letter store did not answer within {} s", STORE_TIMEOUT.as_secs())))
        }
    }
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
