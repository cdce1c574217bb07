//! The fields of a body, one by one. Pure.
//!
//! Guarantees that everything that is wrong with a body is told at once, each mistake with its JSON pointer, and that a [`SpecFields`] made here holds only what every reader of the store
//! accepts. A field that is `null` counts as not given.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::body::kind;
use super::{FieldError, RewindTo, text};
use crate::topic::{IndexTemplate, SpecFields, Start};

/// Errors that one answer lists.
pub(super) const MAX_ERRORS: usize = 20;
/// Characters of a client's own text that an error repeats.
const MAX_QUOTED: usize = 60;
/// Elasticsearch bounds no pipeline's name by itself; a name is part of a path there, and paths of HTTP requests have at most 4 KiB.
const MAX_PIPELINE: usize = 512;
/// Labels of a topic: enough for every scheme in use, little enough for a list of a thousand topics.
const MAX_LABELS: usize = 64;
/// Characters of a label's name.
const MAX_LABEL_NAME: usize = 128;
/// Characters of a label's value.
const MAX_LABEL_VALUE: usize = 1024;
/// Characters of a pause's reason.
const MAX_REASON: usize = 1000;
/// Partitions that a rewind names: a body of 64 KiB, the default limit, hardly holds more.
const MAX_PARTITIONS: usize = 10_000;

/// Why a value is not what its field takes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    code: &'static str,
    detail: String,
}

impl Wrong {
    fn invalid(detail: impl Into<String>) -> Self {
        Self { code: "invalid", detail: detail.into() }
    }

    fn kind(wanted: &str, value: &Value) -> Self {
        Self { code: "type", detail: format!("it is {wanted}, not {}", kind(value)) }
    }
}

/// The fields of an object that are not taken yet, and what was wrong with the others.
struct Fields {
    /// The pointer of the object.
    place: String,
    values: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    fn of(values: Map<String, Value>) -> Self {
        Self { place: String::new(), values, errors: Vec::new() }
    }

    /// Takes a field; `None` when it is absent, `null` or wrong.
    fn take<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Result<T, Wrong>) -> Option<T> {
        let value = self.value(name)?;
        read(&value).map_err(|wrong| self.error(&[name], wrong)).ok()
    }

    fn value(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    fn error(&mut self, path: &[&str], wrong: Wrong) {
        let pointer = path.iter().fold(self.place.clone(), |place, part| format!("{place}/{}", token(part)));
        self.errors.push(FieldError { pointer, code: wrong.code.to_owned(), detail: wrong.detail });
    }

    /// What was wrong, with every field that nobody took.
    fn finish(mut self) -> Vec<FieldError> {
        let unknown: Vec<String> = self.values.keys().take(MAX_ERRORS).cloned().collect();
        for name in unknown {
            self.error(&[&name], Wrong { code: "unknown", detail: "there is no such field here".to_owned() });
        }
        self.errors.truncate(MAX_ERRORS);
        self.errors
    }
}

/// A part of a JSON pointer (RFC 6901).
fn token(part: &str) -> String {
    text::bounded(part, MAX_QUOTED).replace('~', "~0").replace('/', "~1")
}

fn string(value: &Value) -> Result<&str, Wrong> {
    value.as_str().ok_or_else(|| Wrong::kind("a text", value))
}

/// A text that parses.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: &Value) -> Result<T, Wrong> {
    string(value)?.parse().map_err(|error: T::Err| Wrong::invalid(text::bounded(&error.to_string(), 300)))
}

fn index(value: &Value) -> Result<IndexTemplate, Wrong> {
    IndexTemplate::parse(string(value)?).map_err(|error| Wrong::invalid(text::bounded(&error.to_string(), 300)))
}

/// One of a closed list of names.
fn choice<T: DeserializeOwned>(names: &[&str], value: &Value) -> Result<T, Wrong> {
    string(value)?;
    serde_json::from_value(value.clone()).map_err(|_| Wrong::invalid(format!("it is one of {}", names.join(", "))))
}

/// The same rules as the configuration file has for one word.
fn pipeline(value: &Value) -> Result<String, Wrong> {
    let name = string(value)?;
    if name.is_empty() {
        return Err(Wrong::invalid("it is empty; leave it out, or send null, for no pipeline"));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err(Wrong::invalid("it must not contain control characters, nor begin or end with white space"));
    }
    if name.len() > MAX_PIPELINE {
        return Err(Wrong::invalid(format!("it has at most {MAX_PIPELINE} bytes")));
    }
    Ok(name.to_owned())
}

fn time(value: &Value) -> Result<Timestamp, Wrong> {
    string(value)?.parse().map_err(|_| Wrong::invalid("it is an RFC 3339 time such as 2026-01-31T00:00:00Z"))
}

fn short_text(value: &Value) -> Result<String, Wrong> {
    let text = string(value)?;
    if text.chars().count() > MAX_REASON {
        return Err(Wrong::invalid(format!("it has at most {MAX_REASON} characters")));
    }
    Ok(text.to_owned())
}

/// The names of the spec's fields.
const SPEC_FIELDS: [&str; 9] = ["index", "format", "metadata", "operation", "pipeline", "start", "tombstones", "on_reject", "labels"];

/// The fields of a spec.
pub(super) fn spec(values: Map<String, Value>) -> Result<SpecFields, Vec<FieldError>> {
    let mut fields = Fields::of(values);
    let spec = SpecFields {
        index: fields.take("index", index),
        format: fields.take("format", |value| choice(&["json", "text", "auto", "classic"], value)),
        metadata: fields.take("metadata", |value| choice(&["auto", "on", "off"], value)),
        operation: fields.take("operation", |value| choice(&["index", "create"], value)),
        pipeline: fields.take("pipeline", pipeline),
        start: fields.take("start", parsed::<Start>),
        tombstones: fields.take("tombstones", |value| choice(&["skip", "dead_letter"], value)),
        on_reject: fields.take("on_reject", |value| choice(&["dead_letter", "stop"], value)),
        labels: labels(&mut fields),
    };
    let errors = fields.finish();
    if errors.is_empty() { Ok(spec) } else { Err(errors) }
}

fn labels(fields: &mut Fields) -> Option<BTreeMap<String, String>> {
    let value = fields.value("labels")?;
    let Value::Object(given) = value else {
        fields.error(&["labels"], Wrong::kind("an object of texts", &value));
        return None;
    };
    if given.len() > MAX_LABELS {
        fields.error(&["labels"], Wrong::invalid(format!("a topic has at most {MAX_LABELS} labels")));
        return None;
    }
    let mut labels = BTreeMap::new();
    for (name, value) in given {
        match label(&name, &value) {
            Ok(text) => {
                labels.insert(name, text);
            }
            Err(wrong) => fields.error(&["labels", &name], wrong),
        }
    }
    Some(labels)
}

fn label(name: &str, value: &Value) -> Result<String, Wrong> {
    if name.is_empty() || name.chars().count() > MAX_LABEL_NAME {
        return Err(Wrong::invalid(format!("a label's name has 1 to {MAX_LABEL_NAME} characters")));
    }
    let text = string(value)?;
    if text.chars().count() > MAX_LABEL_VALUE {
        return Err(Wrong::invalid(format!("a label has at most {MAX_LABEL_VALUE} characters")));
    }
    Ok(text.to_owned())
}

/// The fields of `stored` after the merge patch (RFC 7396).
pub(super) fn patched(stored: &SpecFields, patch: &Map<String, Value>) -> Result<SpecFields, Vec<FieldError>> {
    let mut merged = object_of(stored);
    merge_into(&mut merged, patch);
    let unknown_removals = patch.iter().filter(|(name, value)| value.is_null() && !SPEC_FIELDS.contains(&name.as_str()));
    for (name, value) in unknown_removals {
        // A removed field that does not exist is as wrong as one that is set: most likely it is misspelt. Put back, it is found with the others.
        merged.insert(name.clone(), value.clone());
    }
    spec(merged)
}

fn merge_into(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(inner) => {
                let mut merged = match target.remove(name) {
                    Some(Value::Object(present)) => present,
                    _ => Map::new(),
                };
                merge_into(&mut merged, inner);
                target.insert(name.clone(), Value::Object(merged));
            }
            other => {
                target.insert(name.clone(), other.clone());
            }
        }
    }
}

fn object_of(fields: &SpecFields) -> Map<String, Value> {
    match serde_json::to_value(fields) {
        Ok(Value::Object(object)) => object,
        // Fields are texts and maps of texts and always serialise as an object.
        _ => Map::new(),
    }
}

/// The names of the fields that are given.
pub(super) fn given(fields: &SpecFields) -> Vec<String> {
    object_of(fields).keys().cloned().collect()
}

/// What a pause's body asks for: its reason and its end.
pub(super) fn pause(values: Map<String, Value>, now: Timestamp) -> Result<(Option<String>, Option<Timestamp>), Vec<FieldError>> {
    let mut fields = Fields::of(values);
    let reason = fields.take("reason", short_text);
    let until_at = fields.take("until_at", |value| {
        let until_at = time(value)?;
        if until_at <= now { Err(Wrong::invalid("it is in the past; a pause ends later than now, or never without it")) } else { Ok(until_at) }
    });
    let errors = fields.finish();
    if errors.is_empty() { Ok((reason, until_at)) } else { Err(errors) }
}

/// What a filter's body asks for. `check` says why a text is none.
pub(super) fn log_filter(values: Map<String, Value>, check: impl FnOnce(&str) -> Result<(), String>) -> Result<String, Vec<FieldError>> {
    let mut fields = Fields::of(values);
    if !fields.has("filter") {
        fields.error(&["filter"], Wrong { code: "missing", detail: "a filter is needed, such as info,drover::sink=debug".to_owned() });
    }
    let filter = fields.take("filter", |value| {
        let filter = string(value)?;
        check(filter).map(|()| filter.to_owned()).map_err(Wrong::invalid)
    });
    let errors = fields.finish();
    filter.filter(|_| errors.is_empty()).ok_or(errors)
}

/// What a rewind's body asks for: where to, and which partitions (`None`: all). A single task's has no `partitions`.
pub(super) fn rewind(values: Map<String, Value>, is_for_one_task: bool) -> Result<(RewindTo, Option<Vec<i32>>), Vec<FieldError>> {
    let mut fields = Fields::of(values);
    let to = rewind_to(&mut fields);
    let partitions = if is_for_one_task { None } else { partitions(&mut fields) };
    let errors = fields.finish();
    match to {
        Some(to) if errors.is_empty() => Ok((to, partitions)),
        _ => Err(errors),
    }
}

const TARGETS: &str = "it is \"earliest\", \"latest\", {\"offset\": 0} or {\"timestamp\": \"2026-01-31T00:00:00Z\"}";

fn rewind_to(fields: &mut Fields) -> Option<RewindTo> {
    match fields.value("to") {
        None => {
            fields.error(&["to"], Wrong { code: "missing", detail: TARGETS.to_owned() });
            None
        }
        Some(Value::Object(target)) => rewind_target(fields, target),
        Some(Value::String(end)) => match end.as_str() {
            "earliest" => Some(RewindTo::Earliest),
            "latest" => Some(RewindTo::Latest),
            _ => {
                fields.error(&["to"], Wrong::invalid(TARGETS));
                None
            }
        },
        Some(other) => {
            fields.error(&["to"], Wrong { code: "type", detail: format!("{TARGETS}, not {}", kind(&other)) });
            None
        }
    }
}

fn rewind_target(fields: &mut Fields, target: Map<String, Value>) -> Option<RewindTo> {
    let mut inner = Fields { place: "/to".to_owned(), values: target, errors: Vec::new() };
    let gives_both = inner.values.contains_key("offset") && inner.values.contains_key("timestamp");
    let offset = inner.take("offset", |value| match value.as_i64() {
        Some(offset) if offset >= 0 => Ok(offset),
        _ => Err(Wrong::invalid("an offset is a whole number from 0")),
    });
    let timestamp = inner.take("timestamp", time);
    let errors = inner.finish();
    let has_errors = !errors.is_empty();
    fields.errors.extend(errors);
    if has_errors {
        return None;
    }
    match (offset, timestamp) {
        (Some(offset), None) if !gives_both => Some(RewindTo::Offset(offset)),
        (None, Some(timestamp)) if !gives_both => Some(RewindTo::Timestamp(timestamp)),
        _ => {
            fields.error(&["to"], Wrong::invalid("give one of offset and timestamp"));
            None
        }
    }
}

fn partitions(fields: &mut Fields) -> Option<Vec<i32>> {
    let value = fields.value("partitions")?;
    let Value::Array(items) = value else {
        fields.error(&["partitions"], Wrong::kind("a list of numbers", &value));
        return None;
    };
    if items.is_empty() || items.len() > MAX_PARTITIONS {
        fields.error(&["partitions"], Wrong::invalid(format!("name 1 to {MAX_PARTITIONS} partitions, or leave it out for all")));
        return None;
    }
    let mut partitions = BTreeSet::new();
    for (position, item) in items.iter().enumerate() {
        let place = ["partitions", &position.to_string()];
        let Some(partition) = item.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0) else {
            fields.error(&place, Wrong::invalid("a partition is a whole number from 0"));
            continue;
        };
        if !partitions.insert(partition) {
            fields.error(&place, Wrong { code: "repeated", detail: "name each partition once".to_owned() });
        }
    }
    Some(partitions.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::topic::{Format, OnReject, Operation, Tombstones};

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    fn mistakes(result: Result<impl std::fmt::Debug, Vec<FieldError>>) -> Vec<(String, String)> {
        let errors = result.expect_err("refused");
        errors.into_iter().map(|error| (error.pointer, error.code)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned())).collect()
    }

    #[test]
    fn all_mistakes_of_a_spec_are_told_at_once() {
        let body = json!({
            "index": "a b", "format": "xml", "metadata": true, "operation": 1, "pipeline": " x", "start": "yesterday", "tombstones": "SKIP", "on_reject": [],
            "labels": {"a/b~c": 1, "": "x", "ok": "fine"}, "indx": "a",
        });
        let expected = [
            ("/index", "invalid"),
            ("/format", "invalid"),
            ("/metadata", "type"),
            ("/operation", "type"),
            ("/pipeline", "invalid"),
            ("/start", "invalid"),
            ("/tombstones", "invalid"),
            ("/on_reject", "type"),
            ("/labels/", "invalid"),
            ("/labels/a~1b~0c", "type"),
            ("/indx", "unknown"),
        ];
        let mut found = mistakes(spec(object(body)));
        let mut wanted = pairs(&expected);
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }

    #[test]
    fn every_value_of_every_field_is_understood() {
        let body = json!({
            "index": "{topic}-{date}", "format": "classic", "metadata": "off", "operation": "create", "pipeline": "geo ip", "start": "2026-01-31T00:00:00Z",
            "tombstones": "dead_letter", "on_reject": "stop", "labels": {"team": "payments"},
        });
        let fields = spec(object(body.clone())).expect("legal");
        assert_eq!((fields.format, fields.operation), (Some(Format::Classic), Some(Operation::Create)));
        assert_eq!((fields.tombstones, fields.on_reject), (Some(Tombstones::DeadLetter), Some(OnReject::Stop)));
        assert_eq!(object_of(&fields), object(body));
        for (field, names) in [
            ("format", vec!["json", "text", "auto", "classic"]),
            ("metadata", vec!["auto", "on", "off"]),
            ("operation", vec!["index", "create"]),
            ("start", vec!["earliest", "latest"]),
            ("tombstones", vec!["skip", "dead_letter"]),
            ("on_reject", vec!["dead_letter", "stop"]),
        ] {
            for name in names {
                assert!(spec(object(json!({field: name}))).is_ok(), "{field}: {name}");
            }
        }
    }

    #[test]
    fn null_is_not_given() {
        let nothing: Map<String, Value> = SPEC_FIELDS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        assert_eq!(spec(nothing), Ok(SpecFields::default()));
        assert_eq!(mistakes(spec(object(json!({"indx": null})))), pairs(&[("/indx", "unknown")]));
    }

    #[test]
    fn labels_are_bounded() {
        let many: BTreeMap<String, String> = (0..65).map(|number| (number.to_string(), String::new())).collect();
        assert_eq!(mistakes(spec(object(json!({"labels": many})))), pairs(&[("/labels", "invalid")]));
        assert!(spec(object(json!({"labels": {"a".repeat(128): "b".repeat(1024)}}))).is_ok());
        assert!(spec(object(json!({"labels": {"a".repeat(129): "b"}}))).is_err());
        assert!(spec(object(json!({"labels": {"a": "b".repeat(1025)}}))).is_err());
    }

    #[test]
    fn a_flood_of_unknown_fields_is_answered_briefly() {
        let flood: Map<String, Value> = (0..10_000).map(|number| (format!("x{number}"), Value::Null)).collect();
        assert_eq!(mistakes(spec(flood)).len(), MAX_ERRORS);
    }

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let stored = spec(object(json!({"index": "a", "format": "json", "labels": {"team": "x", "tier": "1"}}))).expect("legal");
        let patch = |patch: Value| patched(&stored, &object(patch));
        assert_eq!(patch(json!({})), Ok(stored.clone()));
        assert_eq!(patch(json!({"index": null})).map(|fields| given(&fields)), Ok(vec!["format".to_owned(), "labels".to_owned()]));
        assert_eq!(patch(json!({"pipeline": null})), Ok(stored.clone()));
        let merged = patch(json!({"labels": {"team": null, "zone": "b"}, "operation": "create"})).expect("legal");
        assert_eq!(merged.labels, Some(BTreeMap::from([("tier".to_owned(), "1".to_owned()), ("zone".to_owned(), "b".to_owned())])));
        assert_eq!((merged.operation, merged.format), (Some(Operation::Create), Some(Format::Json)));
        assert_eq!(patch(json!({"labels": null})).map(|fields| fields.labels), Ok(None));
        assert_eq!(mistakes(patch(json!({"indx": null, "format": "xml", "labels": {"a": {"b": null}}}))).len(), 3);
    }

    #[test]
    fn a_pause_that_is_over_before_it_begins_is_refused() {
        let now: Timestamp = "2026-11-01T12:00:00Z".parse().expect("a time");
        assert_eq!(pause(Map::new(), now), Ok((None, None)));
        let later = pause(object(json!({"reason": "x", "until_at": "2026-11-01T13:00:01+01:00"})), now).expect("legal");
        assert_eq!(later.1.map(|end| end > now), Some(true));
        for until_at in [json!("2026-11-01T12:00:00Z"), json!("2026-11-01T12:59:59+01:00"), json!("tomorrow"), json!("2026-11-02")] {
            assert_eq!(mistakes(pause(object(json!({"until_at": until_at})), now)), pairs(&[("/until_at", "invalid")]));
        }
        let wrong = json!({"reason": 1, "until_at": 5, "actor": "me"});
        assert_eq!(mistakes(pause(object(wrong), now)), pairs(&[("/reason", "type"), ("/until_at", "type"), ("/actor", "unknown")]));
        assert!(pause(object(json!({"reason": "r".repeat(1001)})), now).is_err());
    }

    #[test]
    fn a_rewind_names_exactly_one_place() {
        let read = |body: Value| rewind(object(body), false);
        assert_eq!(read(json!({"to": "earliest"})), Ok((RewindTo::Earliest, None)));
        assert_eq!(read(json!({"to": "latest", "partitions": [2, 0]})), Ok((RewindTo::Latest, Some(vec![0, 2]))));
        assert_eq!(read(json!({"to": {"offset": 7}, "partitions": null})), Ok((RewindTo::Offset(7), None)));
        assert_eq!(
            read(json!({"to": {"timestamp": "1970-01-01T00:00:01Z"}})),
            Ok((RewindTo::Timestamp(Timestamp::from_second(1).expect("a time")), None))
        );
        for (body, expected) in [
            (json!({}), vec![("/to", "missing")]),
            (json!({"to": "start"}), vec![("/to", "invalid")]),
            (json!({"to": 5}), vec![("/to", "type")]),
            (json!({"to": {}}), vec![("/to", "invalid")]),
            (json!({"to": {"offset": 1, "timestamp": "1970-01-01T00:00:01Z"}}), vec![("/to", "invalid")]),
            (json!({"to": {"offset": -1}}), vec![("/to/offset", "invalid")]),
            (json!({"to": {"offset": 1.5}}), vec![("/to/offset", "invalid")]),
            (json!({"to": {"offset": "1"}}), vec![("/to/offset", "invalid")]),
            (json!({"to": {"offset": 9_223_372_036_854_775_808_u64}}), vec![("/to/offset", "invalid")]),
            (json!({"to": {"timestamp": "noon", "ofset": 1}}), vec![("/to/timestamp", "invalid"), ("/to/ofset", "unknown")]),
            (json!({"to": "latest", "partitions": []}), vec![("/partitions", "invalid")]),
            (json!({"to": "latest", "partitions": 1}), vec![("/partitions", "type")]),
            (
                json!({"to": "latest", "partitions": [0, -1, 0, "1"]}),
                vec![("/partitions/1", "invalid"), ("/partitions/2", "repeated"), ("/partitions/3", "invalid")],
            ),
            (json!({"to": "latest", "force": true}), vec![("/force", "unknown")]),
        ] {
            assert_eq!(mistakes(read(body)), pairs(&expected));
        }
        assert_eq!(mistakes(rewind(object(json!({"to": "latest", "partitions": [0]})), true)), pairs(&[("/partitions", "unknown")]));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z{}/~ -]{0,8}".prop_map(Value::from),
            prop_oneof![Just("json"), Just("earliest"), Just("index"), Just("skip")].prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 12, 4, |inner| {
            let name = prop_oneof!["[a-z/~]{0,4}", Just("offset".to_owned())];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map(name, inner, 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    fn any_body() -> impl Strategy<Value = Map<String, Value>> {
        let name = prop_oneof![
            proptest::sample::select(SPEC_FIELDS.to_vec()).prop_map(ToOwned::to_owned),
            proptest::sample::select(vec!["to", "partitions", "reason", "until_at"]).prop_map(ToOwned::to_owned),
            "[a-z]{0,3}",
        ];
        proptest::collection::btree_map(name, any_json(), 0..6).prop_map(|entries| entries.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_accepted_can_be_stored_and_read_again(body in any_body()) {
            if let Ok(fields) = spec(body) {
                let stored = serde_json::to_string(&fields).expect("JSON");
                prop_assert_eq!(serde_json::from_str::<SpecFields>(&stored).expect("readable"), fields);
            }
        }

        #[test]
        fn no_body_panics(stored in any_body(), body in any_body()) {
            let stored = spec(stored).unwrap_or_default();
            let _ = patched(&stored, &body);
            let _ = pause(body.clone(), Timestamp::UNIX_EPOCH);
            let _ = rewind(body, false);
        }

        #[test]
        fn a_patch_of_all_fields_is_a_put(stored in any_body(), body in any_body()) {
            let (Ok(stored), Ok(wanted)) = (spec(stored), spec(body)) else { return Ok(()) };
            let mut patch = object_of(&wanted);
            for name in SPEC_FIELDS {
                patch.entry(name).or_insert(Value::Null);
            }
            // Labels merge, so those that are not wanted are removed by name.
            if let (Some(Value::Object(labels)), Some(present)) = (patch.get_mut("labels"), &stored.labels) {
                for name in present.keys() {
                    labels.entry(name.clone()).or_insert(Value::Null);
                }
            }
            prop_assert_eq!(patched(&stored, &patch), Ok(wanted));
        }
    }
}
