//! What a request says, checked: query parameters and path segments.
//!
//! Guarantees that a parameter nobody asked for, one given twice and one of the wrong form are 400 `invalid-request` that names it, all of them at once; that a path's topic and
//! partition are legal before a handler sees them, else 422 `validation-failed`. Bodies are read by `body`.

use std::collections::BTreeMap;
use std::fmt::Display;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::problem::ApiError;
use super::{FieldError, ProblemCode, Shared, body, text, topics};
use crate::topic::{SourceKind, TopicName};

/// Rows of a page when the client does not say.
pub(super) const DEFAULT_LIMIT: usize = 100;
/// Rows of a page at most.
pub(super) const MAX_LIMIT: usize = 1000;
/// Errors that one answer lists; a query of ten thousand unknown parameters is told about the first few.
const MAX_ERRORS: usize = 20;
/// Characters of a client's own text that an error repeats.
const MAX_QUOTED: usize = 60;

/// The parameters of a query, taken one by one; [`Params::finish`] refuses what is left.
pub(super) struct Params {
    values: BTreeMap<String, Vec<String>>,
    fingerprint: String,
    errors: Vec<FieldError>,
}

impl Params {
    /// The parameters of a path; `resource` tells cursors of different lists apart.
    pub(super) fn of(uri: &Uri, resource: &str) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::new(ProblemCode::InvalidRequest, "the query does not parse as name=value pairs"))?;
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in pairs {
            values.entry(name).or_default().push(value);
        }
        let fingerprint = fingerprint(resource, &values);
        Ok(Self { values, fingerprint, errors: Vec::new() })
    }

    /// Takes a parameter; `None` when it is absent or wrong, and then [`Params::finish`] says so.
    pub(super) fn take<T, E: Display>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let mut values = self.values.remove(name)?;
        let value = values.pop()?;
        if !values.is_empty() {
            self.error(name, "repeated", "give it once");
            return None;
        }
        parse(&value).map_err(|error| self.error(name, "invalid", &error.to_string())).ok()
    }

    /// Takes `limit`.
    pub(super) fn limit(&mut self) -> usize {
        let parse = |text: &str| match text.parse::<usize>() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            _ => Err(format!("it is a number from 1 to {MAX_LIMIT}")),
        };
        self.take("limit", parse).unwrap_or(DEFAULT_LIMIT)
    }

    /// What a cursor is bound to: the list and everything that selects and orders its rows.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Refuses the query when anything in it was wrong or is not known.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        let unknown: Vec<String> = self.values.keys().take(MAX_ERRORS).cloned().collect();
        for name in unknown {
            self.error(&name, "unknown", "there is no such parameter here");
        }
        self.errors.truncate(MAX_ERRORS);
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::with_errors(ProblemCode::InvalidRequest, self.errors)) }
    }

    fn error(&mut self, name: &str, code: &str, detail: &str) {
        let pointer = format!("/query/{}", text::bounded(name, MAX_QUOTED));
        self.errors.push(FieldError { pointer, code: code.to_owned(), detail: detail.to_owned() });
    }
}

fn fingerprint(resource: &str, values: &BTreeMap<String, Vec<String>>) -> String {
    let mut hash = Sha256::new();
    hash.update(resource);
    for (name, value) in values.iter().filter(|(name, _)| !matches!(name.as_str(), "limit" | "cursor")) {
        // Lengths keep neighbours apart.
        hash.update(format!("|{}:{name}={value:?}", name.len()));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A topic's name in a query.
pub(super) fn topic(name: &str) -> Result<TopicName, crate::topic::TopicNameError> {
    TopicName::new(name)
}

/// A number from 0 that the document's `int64` can hold.
pub(super) fn count(text: &str) -> Result<u64, &'static str> {
    text.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok()).ok_or("it is a whole number from 0")
}

/// A partition's number.
pub(super) fn partition(text: &str) -> Result<i32, &'static str> {
    match text.parse::<i32>() {
        // One partition has one spelling: no sign, no leading zeros.
        Ok(partition) if partition >= 0 && partition.to_string() == text => Ok(partition),
        _ => Err("a partition is a whole number from 0"),
    }
}

/// A time.
pub(super) fn time(text: &str) -> Result<Timestamp, &'static str> {
    text.parse().map_err(|_| "it is an RFC 3339 time such as 2026-01-31T00:00:00Z (write '+' as %2B)")
}

/// A switch.
pub(super) fn switch(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "it is true or false")
}

/// Any text.
pub(super) fn any(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.to_owned())
}

/// A value out of a closed list, by its name on the wire.
pub(super) fn one_of<T: Copy>(all: &[T], name_of: impl Fn(T) -> &'static str, text: &str) -> Result<T, String> {
    all.iter().copied().find(|value| name_of(*value) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|value| name_of(*value)).collect();
        format!("it is one of {}", names.join(", "))
    })
}

/// The topic that a path names.
#[derive(Debug)]
pub(super) struct TopicPath(pub(super) TopicName);

/// The task that a path names.
#[derive(Debug)]
pub(super) struct TaskPath(pub(super) TopicName, pub(super) i32);

/// The dead letter that a path names.
#[derive(Debug)]
pub(super) struct LetterPath(pub(super) String);

/// The change that a path names.
#[derive(Debug)]
pub(super) struct ChangePath(pub(super) String);

/// The kind of source that a path names.
#[derive(Debug)]
pub(super) struct SourcePath(pub(super) SourceKind);

async fn segments(parts: &mut Parts) -> Result<BTreeMap<String, String>, ApiError> {
    let Path(segments) = Path::<BTreeMap<String, String>>::from_request_parts(parts, &())
        .await
        .map_err(|_| ApiError::at(ProblemCode::ValidationFailed, "/path", "a part of the path is not UTF-8"))?;
    Ok(segments)
}

fn segment<'a>(segments: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    segments.get(name).map_or("", String::as_str)
}

fn topic_segment(segments: &BTreeMap<String, String>) -> Result<TopicName, ApiError> {
    topic(segment(segments, "topic")).map_err(|error| ApiError::at(ProblemCode::ValidationFailed, "/path/topic", error.to_string()))
}

impl FromRequestParts<Shared> for TopicPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        topic_segment(&segments(parts).await?).map(Self)
    }
}

impl FromRequestParts<Shared> for TaskPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        let segments = segments(parts).await?;
        let topic = topic_segment(&segments)?;
        let partition =
            partition(segment(&segments, "partition")).map_err(|error| ApiError::at(ProblemCode::ValidationFailed, "/path/partition", error))?;
        Ok(Self(topic, partition))
    }
}

impl FromRequestParts<Shared> for SourcePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        let segments = segments(parts).await?;
        let kind = one_of(&topics::SOURCE_KINDS, topics::source_kind, segment(&segments, "kind"));
        kind.map(Self).map_err(|error| ApiError::at(ProblemCode::ValidationFailed, "/path/kind", error))
    }
}

impl FromRequestParts<Shared> for LetterPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        let segments = segments(parts).await?;
        let id = segment(&segments, "id");
        if !is_letter_id(id) {
            return Err(ApiError::at(ProblemCode::ValidationFailed, "/path/id", "a dead letter's id is topic_id:partition:offset"));
        }
        Ok(Self(id.to_owned()))
    }
}

impl FromRequestParts<Shared> for ChangePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, ApiError> {
        let segments = segments(parts).await?;
        let id = segment(&segments, "id");
        if !is_change_id(id) {
            return Err(ApiError::at(ProblemCode::ValidationFailed, "/path/id", "a change's id is a ULID: 26 letters and digits"));
        }
        Ok(Self(id.to_owned()))
    }
}

/// Whether the text has the form of a ULID.
pub(super) fn is_change_id(id: &str) -> bool {
    id.len() == 26 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether the text has the form of a document id, so that nothing else reaches a store.
fn is_letter_id(id: &str) -> bool {
    let mut parts = id.split(':');
    let (Some(base), Some(partition_part), Some(offset), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let is_offset = offset.parse::<i64>().is_ok_and(|number| number >= 0 && number.to_string() == offset);
    TopicName::new(base).is_ok() && partition(partition_part).is_ok() && is_offset
}

/// The body of an operation that takes none: nothing, or an empty JSON object.
#[derive(Debug)]
pub(super) struct NoBody;

impl FromRequest<Shared> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, ApiError> {
        match body::object(request, state, &[body::JSON]).await? {
            Some(fields) if !fields.is_empty() => {
                Err(ApiError::new(ProblemCode::InvalidRequest, "this operation has no fields; send no body, or {}"))
            }
            _ => Ok(Self),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_wrong_parameter_is_named_at_once() {
        let uri = Uri::from_static("/x?limit=0&topic=a%2Fb&nope=1&since=yesterday&partition=1&partition=2");
        let mut params = Params::of(&uri, "x").expect("pairs");
        assert_eq!(params.limit(), DEFAULT_LIMIT);
        assert_eq!(params.take("topic", topic), None);
        assert_eq!(params.take("since", time), None);
        assert_eq!(params.take("partition", partition), None);
        let error = params.finish().expect_err("refused");
        let shown = format!("{error:?}");
        for name in ["/query/limit", "/query/topic", "/query/nope", "/query/since", "/query/partition", "repeated", "unknown"] {
            assert!(shown.contains(name), "{name}: {shown}");
        }
    }

    #[test]
    fn a_flood_of_unknown_parameters_is_answered_briefly() {
        let query: Vec<String> = (0..10_000).map(|number| format!("p{number}=1")).collect();
        let uri: Uri = format!("/x?{}", query.join("&")).parse().unwrap_or_else(|_| Uri::from_static("/x?p1=1"));
        let params = Params::of(&uri, "x").expect("pairs");
        let shown = format!("{:?}", params.finish().expect_err("refused"));
        assert!(shown.matches("pointer").count() <= MAX_ERRORS, "{shown}");
    }

    #[test]
    fn a_partition_has_one_spelling() {
        assert_eq!(partition("0"), Ok(0));
        assert_eq!(partition("12"), Ok(12));
        for text in ["", "-1", "+1", "01", "1.0", "1e3", "2147483648", "٣", "0x1", " 1"] {
            assert!(partition(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_larger_than_documented_is_not_taken_for_a_filter_that_nothing_passes() {
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count("9223372036854775807"), Ok(9_223_372_036_854_775_807));
        for text in ["9223372036854775808", "-1", "", "1.0"] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_document_id_never_reaches_a_store() {
        assert!(is_letter_id("HK2wYQabcdefghijklmnop:3:123"));
        for id in ["", "a", "a:1", "a:1:2:3", "../a:1:2", "a:-1:2", "a:1:-2", "a:1:x", "a:1:9223372036854775808", "a\0:1:2", "..:1:2"] {
            assert!(!is_letter_id(id), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[ -~&&[^#]]{0,80}") {
            let Ok(uri) = format!("/x?{}", query.replace(' ', "+")).parse::<Uri>() else { return Ok(()) };
            if let Ok(mut params) = Params::of(&uri, "x") {
                let _ = params.limit();
                let _ = params.finish();
            }
        }
    }
}
