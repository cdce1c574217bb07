//! The value of one of the collector's keys: `[{"path": "...", "topic": "..."}]`. Pure.
//!
//! Guarantees: a list is whole or refused, so a damaged value never looks like a shorter list; names of fields may be written in any case, as the collector's JSON decoder took them; a
//! topic named twice is there once; no input panics.

use serde_json::{Map, Value};

use crate::topic::TopicName;

/// Texts from outside are cut to this many characters in messages.
const SHOWN_CHARACTERS: usize = 80;

/// What a value says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct List {
    /// The topics in the order of the value, each once.
    pub(super) topics: Vec<TopicName>,
    /// What was left out of account.
    pub(super) warnings: Vec<String>,
}

/// Reads a value; the error is for people.
pub(super) fn parse(value: &[u8]) -> Result<List, String> {
    let elements: Vec<Value> = serde_json::from_slice(value).map_err(|error| format!("this is not a JSON array: {}", shown(&error.to_string())))?;
    let mut list = List::default();
    for (index, element) in elements.iter().enumerate() {
        let Value::Object(fields) = element else {
            return Err(format!("[{index}] is not an object"));
        };
        let topic = topic(fields).map_err(|problem| format!("[{index}].topic: {problem}"))?;
        list.warnings.extend(unknown_fields(fields).map(|name| format!("[{index}] has an unknown field {}, which is ignored", shown(name))));
        if !list.topics.contains(&topic) {
            list.topics.push(topic);
        }
    }
    Ok(list)
}

fn topic(fields: &Map<String, Value>) -> Result<TopicName, String> {
    let any_case = || fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("topic")).map(|(_, value)| value);
    match fields.get("topic").or_else(any_case) {
        Some(Value::String(name)) => TopicName::new(name).map_err(|error| error.to_string()),
        Some(_) => Err("this is not a string".to_owned()),
        None => Err("it is missing".to_owned()),
    }
}

fn unknown_fields(fields: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let is_known = |name: &str| name.eq_ignore_ascii_case("topic") || name.eq_ignore_ascii_case("path");
    fields.keys().map(String::as_str).filter(move |name| !is_known(name))
}

/// A text from outside for a message: escaped and cut.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(value: &str) -> Vec<String> {
        parse(value.as_bytes()).expect("legal").topics.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_collector_took_is_taken() {
        assert_eq!(names(r#"[{"path":"D:\\logs\\a","topic":"a"},{"Path":"","TOPIC":"b"},{"topic":"a","path":1}]"#), ["a", "b"]);
        assert_eq!(names(" [ ] "), [""; 0]);
        assert_eq!(names(r#"[{"Topic":"x","topic":"y"}]"#), ["y"]);
    }

    #[test]
    fn an_unknown_field_is_a_warning() {
        let list = parse(br#"[{"topic":"a","logtopic\u001b":"b"}]"#).expect("legal");
        assert_eq!(list.topics.len(), 1);
        assert_eq!(list.warnings, ["[0] has an unknown field logtopic\\u{1b}, which is ignored"]);
    }

    #[test]
    fn a_damaged_value_is_not_a_shorter_list() {
        for value in ["", "null", "{}", "[", "[1]", "[{}]", r#"[{"topic":1}]"#, r#"[{"topic":null}]"#, r#"[{"topic":"a"},{"topic":"a b"}]"#, "[]x"] {
            assert!(parse(value.as_bytes()).is_err(), "{value}");
        }
        assert!(parse(b"[{\"topic\":\"\xff\"}]").is_err());
        assert_eq!(parse(br#"[{"topic":"a"},{"topic":"../b"}]"#).expect_err("illegal").split(':').next(), Some("[1].topic"));
    }

    proptest! {
        #[test]
        fn no_value_panics_and_no_topic_is_named_twice(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&value);
        }

        #[test]
        fn every_legal_name_is_there_once(names in prop::collection::vec("[a-c]{1,2}", 0..20)) {
            let value = serde_json::to_vec(&names.iter().map(|name| serde_json::json!({"topic": name, "path": ""})).collect::<Vec<_>>()).expect("JSON");
            let topics = parse(&value).expect("legal").topics;
            let mut unique: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
            unique.sort_unstable();
            let mut expected: Vec<&str> = names.iter().map(String::as_str).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(unique, expected);
        }
    }
}
