//! Reading the answer to a bulk request.
//!
//! Guarantees that an answer counts as success only when it is whole JSON and has exactly as many items as were sent, each of them with a status of success; whatever
//! else comes back (a page with status 200, a cut or reordered answer, too few items, a contradiction) is [`Reading::Unusable`], which means that nothing
//! is known about any item and the request has to be sent again. Owns [`PATH`], the form of the answer that we ask for. Does not judge errors.
//!
//! The usual answer is not parsed. With `filter_path` the server writes it without spaces and in one order:
//!
//! ```text
//! {"errors":false,"items":[{"index":{"status":201}},{"create":{"status":201}}]}
//! ```
//!
//! so a comparison of bytes from the first to the last proves all of the above at once: stricter than a search for `"errors":false` with a count of `"status"`, and
//! without an allocation. Any deviation, also a harmless one of another server, falls back to the parser. Asking for `items.*.status` costs 26 bytes per
//! document on the wire and hardly any CPU on either side; without it a success could not be told from a cut or short answer.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

/// Path and query of a bulk request; the query keeps in the answer what this module reads.
pub(crate) const PATH: &str = "/_bulk?filter_path=errors,items.*.status,items.*.error";

/// The longest text that is kept of an answer, in bytes.
const MAX_TEXT_BYTES: usize = 2048;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading<'a> {
    /// Every item is there.
    AllWell,
    /// The items that failed, in order, at least one; the others are there.
    Failures(Vec<Failure<'a>>),
    /// Nothing can be concluded, because of this.
    Unusable(String),
}

/// One failed item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure<'a> {
    /// The item's number in the request, from 0.
    pub(crate) position: usize,
    /// The item's status.
    pub(crate) status: u16,
    /// Whether its operation was `create`.
    pub(crate) create: bool,
    /// The error.
    pub(crate) error: ErrorText<'a>,
}

/// An error as the server words it. The type is empty when there is none.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct ErrorText<'a> {
    /// The type.
    pub(crate) kind: Cow<'a, str>,
    /// The reason.
    pub(crate) reason: Cow<'a, str>,
    /// The reason of the cause.
    pub(crate) cause: Option<Cow<'a, str>>,
}

impl ErrorText<'_> {
    /// The reason and its cause, cut to a length that can be kept.
    pub(crate) fn text(&self) -> String {
        match &self.cause {
            Some(cause) if !self.reason.contains(cause.as_ref()) => shorten(&format!("{}: {cause}", self.reason)).into_owned(),
            _ => shorten(&self.reason).into_owned(),
        }
    }
}

impl fmt::Display for ErrorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_empty() {
            return f.write_str(&self.text());
        }
        write!(f, "{}: {}", shorten(&self.kind), self.text())
    }
}

/// Which operations a request had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// `index` and `create`, the only ones that write documents.
    Documents,
    /// `update` and `delete` too: dead letters are changed and removed.
    Any,
}

/// Reads the answer (status 200) to a request of `expected` items.
pub(crate) fn read(body: &[u8], expected: usize, sent: Sent) -> Reading<'_> {
    if is_plain_success(body, expected) {
        return Reading::AllWell;
    }
    let answer: BulkAnswer<'_> = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return Reading::Unusable(format!("the answer is not that of a bulk request ({error}): {}", excerpt(body))),
    };
    if answer.items.count != expected {
        return Reading::Unusable(format!("the answer has {} items for {expected} that were sent", answer.items.count));
    }
    if sent == Sent::Documents && answer.items.changes > 0 {
        return Reading::Unusable(format!("the answer has {} items for operations that were not sent", answer.items.changes));
    }
    match (answer.errors, answer.items.failures.is_empty()) {
        (false, true) => Reading::AllWell,
        (true, true) => Reading::Unusable("the answer says that there are errors and has none".to_owned()),
        (_, false) => Reading::Failures(answer.items.failures),
    }
}

/// Reads the body of a refused request. Without an error that can be read, the type is empty and the reason is an excerpt.
pub(crate) fn read_refusal(body: &[u8]) -> ErrorText<'_> {
    match serde_json::from_slice::<RefusalAnswer<'_>>(body) {
        Ok(answer) => answer.error.into_text(),
        Err(_) => ErrorText { reason: Cow::Owned(excerpt(body)), ..ErrorText::default() },
    }
}

/// At most [`MAX_TEXT_BYTES`] of a text, cut between characters.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// A text of the server for people and logs: one line of at most 500 characters, without any that steer a terminal.
///
/// 500 characters hold the server's type and reason; more makes a log hard to read and easy to fill.
pub(crate) fn for_people(text: &str) -> String {
    const MAX_CHARS: usize = 500;
    let mut shown: String = text.chars().take(MAX_CHARS).map(|character| if steers(character) { '\u{fffd}' } else { character }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters, line separators, and what changes the direction of a text.
fn steers(character: char) -> bool {
    let invisible =
        matches!(character, '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || invisible
}

/// Whether a body is a page and no answer of the server: something else listens there, or stands before it.
pub(crate) fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

/// Whether the answer is, byte for byte, the server's plain success for this many items.
fn is_plain_success(body: &[u8], expected: usize) -> bool {
    let Some(mut rest) = body.strip_prefix(br#"{"errors":false,"items":["#) else { return false };
    for number in 0..expected {
        if number > 0 {
            let Some(after) = rest.strip_prefix(b",") else { return false };
            rest = after;
        }
        let Some(after) = after_plain_item(rest) else { return false };
        rest = after;
    }
    rest == b"]}"
}

/// What follows an item that succeeded.
fn after_plain_item(text: &[u8]) -> Option<&[u8]> {
    let status = text.strip_prefix(br#"{"index":{"status":2"#).or_else(|| text.strip_prefix(br#"{"create":{"status":2"#))?;
    let (digits, after) = status.split_at_checked(2)?;
    digits.iter().all(u8::is_ascii_digit).then_some(())?;
    after.strip_prefix(b"}}")
}

/// The beginning of a body that is not what was expected.
fn excerpt(body: &[u8]) -> String {
    const EXCERPT_BYTES: usize = 200;
    let start = body.get(..EXCERPT_BYTES).unwrap_or(body);
    String::from_utf8_lossy(start).trim().to_owned()
}

#[derive(Deserialize)]
struct BulkAnswer<'a> {
    errors: bool,
    #[serde(borrow)]
    items: Items<'a>,
}

#[derive(Deserialize)]
struct RefusalAnswer<'a> {
    #[serde(borrow)]
    error: ErrorAnswer<'a>,
}

/// Only failures are kept: one failed item must not cost memory for the thousands beside it.
struct Items<'a> {
    count: usize,
    /// Those of `update` and `delete`.
    changes: usize,
    failures: Vec<Failure<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Items<'de>, A::Error> {
        let mut items = Items { count: 0, changes: 0, failures: Vec::new() };
        while let Some(item) = sequence.next_element::<ItemAnswer<'de>>()? {
            items.changes += usize::from(matches!(item, ItemAnswer::Update(_) | ItemAnswer::Delete(_)));
            items.failures.extend(item.into_failure(items.count));
            items.count += 1;
        }
        Ok(items)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ItemAnswer<'a> {
    #[serde(borrow)]
    Index(ItemResult<'a>),
    #[serde(borrow)]
    Create(ItemResult<'a>),
    /// See [`Sent::Any`].
    #[serde(borrow)]
    Update(ItemResult<'a>),
    #[serde(borrow)]
    Delete(ItemResult<'a>),
}

#[derive(Deserialize)]
struct ItemResult<'a> {
    status: u16,
    #[serde(borrow, default)]
    error: Option<ErrorAnswer<'a>>,
}

impl<'a> ItemAnswer<'a> {
    fn into_failure(self, position: usize) -> Option<Failure<'a>> {
        let (create, result) = match self {
            Self::Index(result) | Self::Update(result) | Self::Delete(result) => (false, result),
            Self::Create(result) => (true, result),
        };
        if (200..300).contains(&result.status) && result.error.is_none() {
            return None;
        }
        let error = result.error.map(ErrorAnswer::into_text).unwrap_or_default();
        Some(Failure { position, status: result.status, create, error })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorAnswer<'a> {
    Object {
        #[serde(borrow, rename = "type", default)]
        kind: Cow<'a, str>,
        #[serde(borrow, default)]
        reason: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        caused_by: Option<CauseAnswer<'a>>,
    },
    Text(#[serde(borrow)] Cow<'a, str>),
}

#[derive(Deserialize)]
struct CauseAnswer<'a> {
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

impl<'a> ErrorAnswer<'a> {
    fn into_text(self) -> ErrorText<'a> {
        match self {
            Self::Object { kind, reason, caused_by } => {
                ErrorText { kind, reason: reason.unwrap_or_default(), cause: caused_by.and_then(|cause| cause.reason) }
            }
            Self::Text(reason) => ErrorText { reason, ..ErrorText::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn success(items: usize) -> String {
        let item = |number: usize| if number.is_multiple_of(2) { r#"{"index":{"status":201}}"# } else { r#"{"create":{"status":200}}"# };
        format!(r#"{{"errors":false,"items":[{}]}}"#, (0..items).map(item).collect::<Vec<_>>().join(","))
    }

    fn is_unusable(body: &str, expected: usize) -> bool {
        matches!(read(body.as_bytes(), expected, Sent::Documents), Reading::Unusable(_))
    }

    #[test]
    fn a_text_that_steers_the_terminal_or_fills_the_log_is_tamed() {
        assert_eq!(for_people("a\u{1b}[2Jb\r\n2026 ERROR forged\u{202e}x"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}2026 ERROR forged\u{fffd}x");
        let long = for_people(&"é".repeat(10_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (501, true));
        assert_eq!(for_people(&"é".repeat(500)).chars().count(), 500);
    }

    #[test]
    fn an_answer_with_too_few_or_too_many_items_is_no_success() {
        assert_eq!(read(success(3).as_bytes(), 3, Sent::Documents), Reading::AllWell);
        assert!(is_unusable(&success(2), 3));
        assert!(is_unusable(&success(4), 3));
        assert!(is_unusable(r#"{"errors":false}"#, 3));
        assert!(is_unusable(r#"{"errors":false,"items":[]}"#, 3));
    }

    #[test]
    fn what_is_no_bulk_answer_is_no_success() {
        for body in [
            "",
            "{}",
            "null",
            "[]",
            "<html>it works</html>",
            r#"{"acknowledged":true}"#,
            "{\"errors\":false,\"items\":[{\"index\":{\"status\":201}}]}x",
        ] {
            assert!(is_unusable(body, 1), "{body}");
        }
        assert!(is_unusable(r#"{"errors":false,"items":[{"index":{}}]}"#, 1));
        assert!(is_unusable(r#"{"errors":true,"items":[{"index":{"status":201}}]}"#, 1));
        assert!(matches!(read(b"\x1f\x8b\xff\xff", 1, Sent::Documents), Reading::Unusable(_)));
    }

    #[test]
    fn a_flag_that_denies_its_items_errors_is_not_believed() {
        let body = r#"{"errors":false,"items":[{"index":{"status":429,"error":{"type":"x","reason":"y"}}}]}"#;
        assert!(matches!(read(body.as_bytes(), 1, Sent::Documents), Reading::Failures(failures) if failures.len() == 1));
        let no_error = r#"{"errors":false,"items":[{"index":{"status":503}}]}"#;
        assert!(matches!(read(no_error.as_bytes(), 1, Sent::Documents), Reading::Failures(_)));
        let with_error = r#"{"errors":false,"items":[{"index":{"status":200,"error":"odd"}}]}"#;
        assert!(matches!(read(with_error.as_bytes(), 1, Sent::Documents), Reading::Failures(_)));
    }

    #[test]
    fn an_unfiltered_or_spaced_success_is_still_a_success() {
        let full = r#"{ "took": 3, "errors": false, "items": [ {"index": {"_index": "a", "_id": "1", "_version": 1, "result": "created", "status": 201}} ] }"#;
        assert_eq!(read(full.as_bytes(), 1, Sent::Documents), Reading::AllWell);
    }

    #[test]
    fn only_failed_items_are_kept_with_their_place_and_text() {
        let body = r#"{"errors":true,"items":[{"index":{"status":201}},
            {"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"failed \"x\"","caused_by":{"type":"t","reason":"no number"}}}}]}"#;
        let Reading::Failures(failures) = read(body.as_bytes(), 2, Sent::Documents) else { panic!("failures expected") };
        let [failure] = failures.as_slice() else { panic!("one failure expected") };
        assert_eq!((failure.position, failure.status, failure.create), (1, 400, true));
        assert_eq!(failure.error.to_string(), "document_parsing_exception: failed \"x\": no number");
        assert!(matches!(failure.error.kind, Cow::Borrowed(_)), "texts without escapes are borrowed");
    }

    #[test]
    fn an_error_without_a_reason_is_read() {
        let body = r#"{"errors":true,"items":[{"index":{"status":500,"error":{"type":"null_pointer_exception","reason":null}}}]}"#;
        assert!(
            matches!(read(body.as_bytes(), 1, Sent::Documents), Reading::Failures(failures) if failures[0].error.kind == "null_pointer_exception")
        );
    }

    #[test]
    fn a_refusal_is_read_from_any_body() {
        let refusal = read_refusal(br#"{"error":{"root_cause":[],"type":"security_exception","reason":"no"},"status":403}"#);
        assert_eq!((refusal.kind.as_ref(), refusal.reason.as_ref()), ("security_exception", "no"));
        assert_eq!(read_refusal(br#"{"error":"Incorrect HTTP method","status":405}"#).reason, "Incorrect HTTP method");
        assert_eq!(read_refusal(b"<html>").to_string(), "<html>");
        assert_eq!(read_refusal(b""), ErrorText::default());
    }

    #[test]
    fn a_reason_as_long_as_a_document_is_cut() {
        let long = "ü".repeat(MAX_TEXT_BYTES);
        let error = ErrorText { reason: Cow::Borrowed(&long), ..ErrorText::default() };
        assert!(error.text().len() <= MAX_TEXT_BYTES + '…'.len_utf8());
    }

    proptest! {
        #[test]
        fn no_cut_of_a_success_is_a_success(items in 1usize..20, cut in 0usize..1000) {
            let whole = success(items);
            let cut = cut % whole.len();
            prop_assert!(is_unusable(&whole[..cut], items));
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_succeed(body in prop::collection::vec(any::<u8>(), 0..200), expected in 1usize..5) {
            prop_assert!(matches!(read(&body, expected, Sent::Documents), Reading::Unusable(_)));
            let _ = read_refusal(&body).to_string();
        }

        #[test]
        fn the_quick_look_never_says_more_than_the_parser(items in 1usize..8, at in 0usize..400, byte: u8) {
            let mut body = success(items).into_bytes();
            let at = at % body.len();
            body[at] = byte;
            if is_plain_success(&body, items) {
                let answer: BulkAnswer<'_> = serde_json::from_slice(&body).unwrap();
                prop_assert!(!answer.errors && answer.items.count == items && answer.items.failures.is_empty());
            }
        }
    }
}
