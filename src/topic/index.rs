//! Index name templates: `{topic}`, `{date}`, `{date:STRFTIME}` and literal text.
//!
//! Guarantees that a parsed template renders a legal index name for every topic and time. The rules are those of Elasticsearch's and OpenSearch's
//! create-index reference: lower case, at most 255 bytes, none of `\ / * ? " < > | , # :` and space, not beginning with `-`, `_` or `+`, not `.` or `..`.

use std::fmt;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{MAX_TOPIC_NAME_BYTES, TopicName};

/// The servers' limit on an index name, in bytes.
const MAX_INDEX_NAME_BYTES: usize = 255;
/// What `{date}` stands for.
const DEFAULT_DATE: &str = "%Y.%m.%d";

/// A template of index names; see the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTemplate {
    text: String,
    parts: Vec<Part>,
    bucket_seconds: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Topic,
    Date(String),
}

/// Why a text is not an index template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexTemplateError {
    /// Nothing was given.
    #[error("an index name must not be empty")]
    Empty,
    /// A brace without its partner.
    #[error("unbalanced brace in the index template; placeholders are {{topic}}, {{date}} and {{date:%Y.%m.%d}}")]
    Brace,
    /// A placeholder that does not exist.
    #[error("unknown placeholder {{{0}}}; use {{topic}}, {{date}} or {{date:%Y.%m.%d}}")]
    Placeholder(String),
    /// The date format is not one of strftime's.
    #[error("'{0}' is not a strftime format")]
    Date(String),
    /// The date format names nothing of a date, as in Java's `yyyy.MM.dd`.
    #[error("'{0}' has nothing of a date in it; write it with strftime's specifiers, such as %Y.%m.%d")]
    NoDate(String),
    /// A specifier that no index name is meant to have.
    #[error("{0} in the date of an index template: it may have the parts of a date, the hour and the minute, such as %Y, %m, %d, %V and %H")]
    Specifier(String),
    /// A character that no index name may have.
    #[error("an index name must not contain {0:?}")]
    Character(char),
    /// The rendered name cannot be made legal.
    #[error("the index template gives no legal index name")]
    Illegal,
    /// The rendered name is too long.
    #[error("an index name has at most {MAX_INDEX_NAME_BYTES} bytes, this template gives {0}")]
    TooLong(usize),
}

impl IndexTemplate {
    /// Parses a template. Literal text may be in upper case; rendering folds it.
    pub fn parse(text: &str) -> Result<Self, IndexTemplateError> {
        if text.is_empty() {
            return Err(IndexTemplateError::Empty);
        }
        let parts = split(text)?;
        let mut bucket_seconds = i64::MAX;
        for part in &parts {
            match part {
                Part::Topic => {}
                Part::Literal(literal) => {
                    if let Some(character) = literal.chars().find(|c| is_illegal(*c)) {
                        return Err(IndexTemplateError::Character(character));
                    }
                }
                Part::Date(format) => {
                    check_date(format)?;
                    let sample = format_time(format, Timestamp::UNIX_EPOCH).ok_or_else(|| IndexTemplateError::Date(format.clone()))?;
                    if let Some(character) = sample.chars().find(|c| is_illegal(*c)) {
                        return Err(IndexTemplateError::Character(character));
                    }
                    bucket_seconds = bucket_seconds.min(date_granularity_seconds(format));
                }
            }
        }
        let template = Self { text: text.to_owned(), parts, bucket_seconds };
        // Without {topic} the name is the same for every topic, so a name that folds to nothing is known now.
        if !template.parts.contains(&Part::Topic) {
            let sample = template.fill("", Timestamp::UNIX_EPOCH);
            if sample.is_empty() {
                return Err(IndexTemplateError::Illegal);
            }
            if sample.len() > MAX_INDEX_NAME_BYTES {
                return Err(IndexTemplateError::TooLong(sample.len()));
            }
        }
        Ok(template)
    }

    /// Whether this template gives legal names for `topic`; the error says why not.
    pub fn check(&self, topic: &TopicName) -> Result<(), IndexTemplateError> {
        let sample = self.fill(topic.as_str(), Timestamp::UNIX_EPOCH);
        if sample.is_empty() || sample == "." || sample == ".." {
            return Err(IndexTemplateError::Illegal);
        }
        if sample.len() > MAX_INDEX_NAME_BYTES {
            return Err(IndexTemplateError::TooLong(sample.len()));
        }
        Ok(())
    }

    /// The index name of a record of `topic` with this timestamp (milliseconds since 1970, `None` where the record has none: 1970-01-01).
    pub fn render(&self, topic: &TopicName, timestamp_ms: Option<i64>) -> String {
        let time = timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
        self.fill(topic.as_str(), time)
    }

    /// Records with the same bucket have the same index name, so a name can be kept until the bucket changes.
    pub fn bucket(&self, timestamp_ms: Option<i64>) -> i64 {
        if self.bucket_seconds == i64::MAX {
            return 0;
        }
        timestamp_ms.unwrap_or(0).div_euclid(1000).div_euclid(self.bucket_seconds)
    }

    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn fill(&self, topic: &str, time: Timestamp) -> String {
        let mut name = String::with_capacity(self.text.len() + MAX_TOPIC_NAME_BYTES / 4);
        for part in &self.parts {
            match part {
                Part::Literal(literal) => name.push_str(literal),
                Part::Topic => name.push_str(topic),
                Part::Date(format) => name.push_str(&format_time(format, time).unwrap_or_default()),
            }
        }
        fold(&name)
    }
}

impl Default for IndexTemplate {
    /// `{topic}`.
    fn default() -> Self {
        Self { text: "{topic}".to_owned(), parts: vec![Part::Topic], bucket_seconds: i64::MAX }
    }
}

impl fmt::Display for IndexTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for IndexTemplate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for IndexTemplate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn split(text: &str) -> Result<Vec<Part>, IndexTemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        if rest[open..].starts_with('}') {
            return Err(IndexTemplateError::Brace);
        }
        if open > 0 {
            parts.push(Part::Literal(rest[..open].to_owned()));
        }
        let inside = &rest[open + 1..];
        let close = inside.find('}').ok_or(IndexTemplateError::Brace)?;
        let placeholder = &inside[..close];
        parts.push(match placeholder.split_once(':') {
            None if placeholder == "topic" => Part::Topic,
            None if placeholder == "date" => Part::Date(DEFAULT_DATE.to_owned()),
            Some(("date", format)) if !format.is_empty() => Part::Date(format.to_owned()),
            _ => return Err(IndexTemplateError::Placeholder(placeholder.to_owned())),
        });
        rest = &inside[close + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

fn format_time(format: &str, time: Timestamp) -> Option<String> {
    strtime::format(format, &time.to_zoned(TimeZone::UTC)).ok()
}

/// Specifiers that index names are made with. Left out, among others: seconds and finer (`%S`, `%s`, `%f`, `%T`), with which nearly each record would get an index of its own, and zones,
/// since dates are UTC.
const DATE_SPECIFIERS: &str = "YCyGgmbBhdjUVWuwaAFHIpPM%";

/// Whether a format has specifiers, and only such as can be meant.
fn check_date(format: &str) -> Result<(), IndexTemplateError> {
    let mut rest = format;
    let mut has_date = false;
    while let Some((_, after)) = rest.split_once('%') {
        let bare = after.trim_start_matches(|c: char| matches!(c, '-' | '_' | '^' | '#') || c.is_ascii_digit());
        let Some(specifier) = bare.chars().next() else { return Err(IndexTemplateError::Date(format.to_owned())) };
        if !DATE_SPECIFIERS.contains(specifier) {
            let written = after.len() - bare.len() + specifier.len_utf8();
            return Err(IndexTemplateError::Specifier(format!("%{}", after.get(..written).unwrap_or_default())));
        }
        has_date |= specifier != '%';
        rest = bare.get(specifier.len_utf8()..).unwrap_or_default();
    }
    if has_date { Ok(()) } else { Err(IndexTemplateError::NoDate(format.to_owned())) }
}

/// The longest time for which `format` certainly prints the same: a day when it names only parts of a date, else a second.
fn date_granularity_seconds(format: &str) -> i64 {
    let mut directives = format.split('%').skip(1);
    let only_dates = directives.all(|directive| directive.starts_with(['Y', 'm', 'd', 'y', 'j', 'b', 'B', 'G', 'V', 'F', 'C']));
    if only_dates { 86_400 } else { 1 }
}

fn is_illegal(character: char) -> bool {
    matches!(character, '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ' ' | ',' | '#' | ':') || character.is_control()
}

/// Lower case, without the leading characters that no index may begin with, other illegal characters as `_`.
fn fold(name: &str) -> String {
    let lower = name.to_lowercase();
    let trimmed = lower.trim_start_matches(['-', '_', '+', '.']);
    trimmed.chars().map(|c| if is_illegal(c) { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(name: &str) -> TopicName {
        TopicName::new(name).expect("a legal name")
    }

    #[test]
    fn templates_that_cannot_be_legal_are_refused() {
        assert_eq!(IndexTemplate::parse(""), Err(IndexTemplateError::Empty));
        assert_eq!(IndexTemplate::parse("a b"), Err(IndexTemplateError::Character(' ')));
        assert_eq!(IndexTemplate::parse("a/b"), Err(IndexTemplateError::Character('/')));
        assert_eq!(IndexTemplate::parse("{topic"), Err(IndexTemplateError::Brace));
        assert_eq!(IndexTemplate::parse("topic}"), Err(IndexTemplateError::Brace));
        assert_eq!(IndexTemplate::parse("{host}"), Err(IndexTemplateError::Placeholder("host".to_owned())));
        assert_eq!(IndexTemplate::parse("{date:%H:%M}"), Err(IndexTemplateError::Character(':')));
        assert!(matches!(IndexTemplate::parse("{date:%}"), Err(IndexTemplateError::Date(_))));
        for (text, specifier) in [
            ("{date:%s}", "%s"),
            ("x-{date:%Y.%m.%d}-{date:%H%M%S}", "%S"),
            ("{date:%-f}", "%-f"),
            ("{date:%Y%!}", "%!"),
            ("{date:%z}", "%z"),
            ("{date:%日}", "%日"),
        ] {
            assert_eq!(IndexTemplate::parse(text), Err(IndexTemplateError::Specifier(specifier.to_owned())), "{text}");
        }
        for text in ["{date:yyyy.MM.dd}", "{date:%%Y}"] {
            assert!(matches!(IndexTemplate::parse(text), Err(IndexTemplateError::NoDate(_))), "{text}");
        }
        for text in ["{date:%Y.%m.%d}", "{date:%F}", "{date:%G-w%V}", "{date:%-d.%b}", "{date:%Y.%m.%d.%H}", "{date:%y%j}"] {
            assert!(IndexTemplate::parse(text).is_ok(), "{text}");
        }
        assert_eq!(IndexTemplate::parse("..."), Err(IndexTemplateError::Illegal));
        assert!(IndexTemplate::parse("{topic}").expect("legal").check(&topic("___")).is_err());
        let long = IndexTemplate::parse("prefix-{topic}").expect("legal");
        assert!(matches!(long.check(&topic(&"a".repeat(249))), Err(IndexTemplateError::TooLong(256))));
    }

    #[test]
    fn the_date_is_the_records_own() {
        let template = IndexTemplate::parse("Logs-{topic}-{date}").expect("legal");
        assert_eq!(template.render(&topic("Orders"), Some(1_767_225_600_000)), "logs-orders-2026.01.01");
        assert_eq!(template.render(&topic("Orders"), Some(1_767_225_599_999)), "logs-orders-2025.12.31");
        assert_eq!(template.render(&topic("Orders"), None), "logs-orders-1970.01.01");
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "[{}dte:%YmsZ日_0-9^-]{0,20}") {
            let _ = IndexTemplate::parse(&text);
        }

        #[test]
        fn every_checked_name_is_legal(name in "[a-zA-Z0-9._-]{1,249}", at in -1_000_000_000_000i64..4_000_000_000_000) {
            let Ok(topic) = TopicName::new(&name) else { return Ok(()) };
            for text in ["{topic}", "x-{topic}-{date}", "{date:%A}-{topic}"] {
                let template = IndexTemplate::parse(text).expect("legal");
                if template.check(&topic).is_err() { continue }
                let index = template.render(&topic, Some(at));
                prop_assert!(!index.is_empty() && index.len() <= MAX_INDEX_NAME_BYTES + 16);
                prop_assert!(!index.starts_with(['-', '_', '+']));
                prop_assert!(!index.chars().any(|c| is_illegal(c) || c.is_uppercase()));
            }
        }

        #[test]
        fn one_bucket_has_one_name(a in 0i64..4_000_000_000_000, b in 0i64..4_000_000_000_000) {
            let template = IndexTemplate::parse("{date:%Y-%m-%d}").expect("legal");
            let topic = topic("t");
            let same_name = template.render(&topic, Some(a)) == template.render(&topic, Some(b));
            prop_assert_eq!(template.bucket(Some(a)) == template.bucket(Some(b)), same_name);
        }
    }
}
