//! Bodies: read within their limits, and parsed strictly.
//!
//! Guarantees that a body is one whole JSON object in UTF-8 without a key given twice (of which a lenient reader would silently drop one), of a type that the operation takes, at most
//! `http.max_body` bytes and there in time; everything else is refused by kind: 400, 413 or 415. What the object's fields mean is read by `fields`.

use std::fmt;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::problem::ApiError;
use super::{ProblemCode, Shared, text};

/// The type of most bodies.
pub(super) const JSON: &str = "application/json";
/// A JSON merge patch (RFC 7396).
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// Characters of a client's key that an error repeats.
const MAX_QUOTED: usize = 60;

/// The request's body as an object; `None` for an empty one.
pub(super) async fn object(request: Request, state: &Shared, accepted: &[&str]) -> Result<Option<Map<String, Value>>, ApiError> {
    let given = media_type(request.headers());
    let body = bytes(request, state).await?;
    if body.is_empty() {
        return Ok(None);
    }
    if !accepted.iter().any(|known| given.eq_ignore_ascii_case(known)) {
        return Err(ApiError::new(ProblemCode::UnsupportedMediaType, format!("send the body as {}", accepted.join(" or "))));
    }
    parse(&body).map(Some)
}

/// The same where a body must be given.
pub(super) async fn required_object(request: Request, state: &Shared, accepted: &[&str]) -> Result<Map<String, Value>, ApiError> {
    let object = object(request, state, accepted).await?;
    object.ok_or_else(|| ApiError::new(ProblemCode::InvalidRequest, "a body is needed: a JSON object, {} where nothing is to be said"))
}

/// The whole body, within the limit on its size and within `http.header_timeout`.
pub(super) async fn bytes(request: Request, state: &Shared) -> Result<Bytes, ApiError> {
    let within = state.http.header_timeout;
    let Ok(read) = tokio::time::timeout(within, Bytes::from_request(request, state)).await else {
        return Err(ApiError::new(ProblemCode::InvalidRequest, format!("the body did not arrive within {} s", within.as_secs_f64())));
    };
    read.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(cause) if cause.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(ProblemCode::PayloadTooLarge, format!("a body has at most {} bytes", state.http.max_body))
        }
        _ => ApiError::new(ProblemCode::InvalidRequest, "the body ended before it was complete"),
    })
}

/// The body's type without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_owned()
}

fn parse(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let Strict(value) = serde_json::from_slice(body)
        .map_err(|error| ApiError::new(ProblemCode::InvalidRequest, format!("the body is not JSON: {}", text::bounded(&error.to_string(), 200))))?;
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(ApiError::new(ProblemCode::InvalidRequest, format!("the body is {}, and must be an object", kind(&other)))),
    }
}

/// What a value is, for people.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A JSON value in which no object has a key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StrictSeed.deserialize(deserializer).map(Self)
    }
}

struct StrictSeed;

impl<'de> DeserializeSeed<'de> for StrictSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictSeed {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(StrictSeed)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key '{}' is there twice", text::bounded(&key, MAX_QUOTED))));
            }
            object.insert(key, entries.next_value_seed(StrictSeed)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_one_object_is_refused() {
        for body in [
            "",
            " ",
            "null",
            "[]",
            "1",
            "\"{}\"",
            "{",
            "{} {}",
            "{\"a\":1,}",
            "{'a':1}",
            "\u{feff}{}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":{\"b\":1,\"b\":2}}",
            "{\"a\":[{\"b\":1,\"b\":2}]}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1e999}",
            "{\"a\":NaN}",
        ] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(parse(deep.as_bytes()).is_err());
        assert!(parse(b" {\"a\": {\"b\": [1, null, true]}, \"b\": 1.5} ").is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_reads_as_usual(body in "[{}\\[\\]\",:a0-9 ]{0,24}") {
            if let Ok(fields) = parse(body.as_bytes()) {
                prop_assert_eq!(serde_json::from_str::<Value>(&body).ok(), Some(Value::Object(fields)));
            }
        }
    }
}
