//! `If-Match` and `If-None-Match` on a topic's entry in the store. Pure.
//!
//! Guarantees RFC 9110's comparisons: a weak tag never matches in `If-Match`; every header that is given must hold. What they are compared with is the store's entry, whose tag is
//! `"r<revision>"`; a topic without one has `"r0"`, and `*` means an entry, so `If-None-Match: *` creates and `If-Match: *` only changes.

use axum::http::{HeaderMap, HeaderName, header};

use super::problem::ApiError;
use super::{FieldError, ProblemCode};

/// The tag of an entry with this revision; `None` = there is no entry.
pub(super) fn tag(revision: Option<i64>) -> String {
    format!("\"r{}\"", revision.unwrap_or(0))
}

/// What the client wants to hold before anything is changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    List(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    /// With its quotes.
    quoted: String,
}

impl Preconditions {
    /// The preconditions of a request; 400 where a header is no list of tags.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        Ok(Self { if_match: read(headers, &header::IF_MATCH)?, if_none_match: read(headers, &header::IF_NONE_MATCH)? })
    }

    /// Whether nothing is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// Checks them against the entry's revision, `None` where there is no entry.
    pub(super) fn check(&self, current: Option<i64>) -> Result<(), FieldError> {
        let current_tag = tag(current);
        if let Some(tags) = &self.if_match {
            let holds = match tags {
                Tags::Any => current.is_some(),
                Tags::List(list) => list.iter().any(|tag| !tag.is_weak && tag.quoted == current_tag),
            };
            if !holds {
                return Err(failed("/header/if-match", current));
            }
        }
        if let Some(tags) = &self.if_none_match {
            let matches = match tags {
                Tags::Any => current.is_some(),
                Tags::List(list) => list.iter().any(|tag| tag.quoted == current_tag),
            };
            if matches {
                return Err(failed("/header/if-none-match", current));
            }
        }
        Ok(())
    }
}

fn failed(pointer: &str, current: Option<i64>) -> FieldError {
    FieldError { pointer: pointer.to_owned(), code: ProblemCode::PreconditionFailed.as_str().to_owned(), detail: state_of(current) }
}

/// How the entry is, for people.
pub(super) fn state_of(current: Option<i64>) -> String {
    match current {
        Some(_) => format!("the store's entry is at {}", tag(current)),
        None => format!("the store has no entry for this topic, which is {}", tag(None)),
    }
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let mut list: Option<Vec<Tag>> = None;
    for value in headers.get_all(name) {
        let tags = value.to_str().ok().and_then(parse);
        match tags {
            None => {
                let detail = "it is a list of tags in double quotes, such as \"r12\", or *";
                return Err(ApiError::at(ProblemCode::InvalidRequest, &format!("/header/{name}"), detail));
            }
            Some(Tags::Any) => return Ok(Some(Tags::Any)),
            Some(Tags::List(more)) => list.get_or_insert_default().extend(more),
        }
    }
    Ok(list.map(Tags::List))
}

/// Reads `*`, or tags separated by commas; a comma may also be inside a tag.
fn parse(text: &str) -> Option<Tags> {
    if text.trim() == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    let mut rest = text.trim();
    loop {
        let (is_weak, after) = rest.strip_prefix("W/").map_or((false, rest), |after| (true, after));
        let (opaque, after) = after.strip_prefix('"')?.split_once('"')?;
        if opaque.contains(|character: char| character == ' ' || character.is_control()) {
            return None;
        }
        tags.push(Tag { is_weak, quoted: format!("\"{opaque}\"") });
        let after = after.trim_start();
        if after.is_empty() {
            return Some(Tags::List(tags));
        }
        rest = after.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(HeaderName, &str)]) -> Result<Preconditions, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).expect("a header"));
        }
        Preconditions::of(&headers)
    }

    fn holds(name: HeaderName, value: &str, current: Option<i64>) -> bool {
        of(&[(name, value)]).expect("readable").check(current).is_ok()
    }

    #[test]
    fn a_stale_tag_does_not_match() {
        for (value, current, expected) in [
            ("\"r5\"", Some(5), true),
            ("\"r5\"", Some(6), false),
            ("\"r5\"", None, false),
            ("\"r0\"", None, true),
            ("\"r0\"", Some(5), false),
            ("*", Some(5), true),
            ("*", None, false),
            ("W/\"r5\"", Some(5), false),
            ("W/\"r5\", \"r5\"", Some(5), true),
            ("\"x,y\" ,\"r5\"", Some(5), true),
            ("\"R5\"", Some(5), false),
            ("\"r05\"", Some(5), false),
        ] {
            assert_eq!(holds(header::IF_MATCH, value, current), expected, "If-Match: {value} at {current:?}");
        }
        for (value, current, expected) in [
            ("*", None, true),
            ("*", Some(5), false),
            ("\"r5\"", Some(5), false),
            ("W/\"r5\"", Some(5), false),
            ("\"r4\"", Some(5), true),
            ("\"r0\"", None, false),
        ] {
            assert_eq!(holds(header::IF_NONE_MATCH, value, current), expected, "If-None-Match: {value} at {current:?}");
        }
    }

    #[test]
    fn several_headers_are_one_list_and_every_kind_must_hold() {
        assert!(of(&[(header::IF_MATCH, "\"r4\""), (header::IF_MATCH, "\"r5\"")]).expect("readable").check(Some(5)).is_ok());
        assert!(of(&[(header::IF_MATCH, "\"r5\""), (header::IF_NONE_MATCH, "*")]).expect("readable").check(Some(5)).is_err());
        assert!(of(&[]).expect("readable").is_empty());
    }

    #[test]
    fn a_header_that_is_no_list_of_tags_is_told_and_not_ignored() {
        for value in ["r5", "", "5", "\"r5", "r5\"", "\"r5\" \"r6\"", "\"r5\",", ",", "w/\"r5\"", "\"r 5\"", "*, \"r5\""] {
            assert!(of(&[(header::IF_MATCH, value)]).is_err(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(value in "[ -~]{0,40}") {
            let _ = of(&[(header::IF_MATCH, &value)]);
        }

        #[test]
        fn exactly_one_of_the_two_stars_holds(current in proptest::option::of(1..100i64)) {
            prop_assert_ne!(holds(header::IF_MATCH, "*", current), holds(header::IF_NONE_MATCH, "*", current));
        }
    }
}
