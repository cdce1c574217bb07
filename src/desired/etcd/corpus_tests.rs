//! Bad values and keys in etcd: each is named and keeps its last good value, and harms no other.
//!
//! An expectation says what the value is put `as`: one of the collector's keys (`collector`), or an entry of the store under `key` (or `key_hex`). What has to come of it: for the collector
//! `topics` and the number of `warnings`, for the store the `entries` that are there, or for both an `error` whose message contains that text.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::collector;
use super::content::{Content, FullRead, RawEntry};
use super::layout::Layout;
use crate::corpus;

const GOOD_KEY: &[u8] = b"drover/topics/good";
const COLLECTOR_KEY: &str = "collectlogkey1";

fn now() -> Timestamp {
    "2026-02-01T00:00:00Z".parse().expect("a time")
}

fn entry(key: &[u8], value: &[u8], revision: i64) -> RawEntry {
    RawEntry { key: key.to_vec(), value: Some(value.to_vec()), revision }
}

/// A store with one good topic and a good list.
fn content(layout: &Layout) -> Content {
    let mut content = Content::default();
    let keys = BTreeMap::from([(COLLECTOR_KEY.to_owned(), entry(COLLECTOR_KEY.as_bytes(), br#"[{"path":"","topic":"listed"}]"#, 2))]);
    let store = vec![entry(GOOD_KEY, br#"{"format":"json"}"#, 1)];
    let warnings = content.replace(layout, &FullRead { cluster_id: 1, revision: 2, identity: None, store, keys }, now());
    assert!(warnings.is_empty(), "{warnings:?}");
    content
}

fn is_tame(text: &str) -> bool {
    !text.chars().any(char::is_control) && text.chars().count() < 1000
}

/// Puts a value where one of the collector's keys was good: what is in force then.
fn put_list(value: &[u8]) -> Value {
    let layout = Layout::new("drover");
    let mut content = content(&layout);
    let warnings = content.apply(&layout, &[entry(COLLECTOR_KEY.as_bytes(), value, 3)], now());
    assert!(warnings.iter().all(|warning| is_tame(warning)), "{warnings:?}");
    let known = &content.keys[COLLECTOR_KEY];
    let topics: Vec<&str> = known.topics.iter().map(|topic| topic.as_str()).collect();
    match &known.error {
        Some(error) => {
            assert_eq!(topics, ["listed"], "the last good list is not in force");
            assert_eq!(warnings, std::slice::from_ref(&error.message));
            json!({"error": error.message})
        }
        None if topics.len() > 20 => json!({"topics": topics.len(), "warnings": warnings.len()}),
        None => json!({"topics": topics, "warnings": warnings.len()}),
    }
}

/// Puts an entry into the store: what is there then.
fn put_entry(key: &[u8], value: &[u8]) -> Value {
    let layout = Layout::new("drover");
    let mut content = content(&layout);
    let warnings = content.apply(&layout, &[entry(key, value, 3)], now());
    assert!(warnings.iter().all(|warning| is_tame(warning)), "{warnings:?}");
    assert!(content.topics.keys().any(|topic| topic.as_str() == "good"), "an entry harmed another one");
    assert_eq!(content.keys[COLLECTOR_KEY].topics.len(), 1, "an entry harmed a list");
    match content.trouble() {
        Some(error) => {
            assert_eq!((warnings.len(), content.topics.len(), content.pauses.len()), (1, 1, 0), "an entry that is not readable is in force");
            json!({"error": error.message})
        }
        None => {
            let others = content.topics.keys().map(|topic| topic.as_str()).filter(|topic| *topic != "good").map(|topic| format!("topic {topic}"));
            let pauses = content.pauses.keys().map(|topic| format!("pause {topic}"));
            json!({"entries": others.chain(pauses).collect::<Vec<_>>()})
        }
    }
}

fn key_of(expected: &Value) -> Vec<u8> {
    match expected["key_hex"].as_str() {
        Some(hex) => corpus::bytes_of(&json!([{"hex": hex}])),
        None => expected["key"].as_str().expect("a key").as_bytes().to_vec(),
    }
}

#[test]
fn every_bad_value_of_the_corpus_is_named_and_harms_no_other() {
    let mut wrong = Vec::new();
    for case in corpus::cases("etcd") {
        let value = case.bytes();
        let actual = match case.expected["as"].as_str() {
            Some("collector") => put_list(&value),
            Some("store") => put_entry(&key_of(&case.expected), &value),
            other => panic!("{}: put as what? {other:?}", case.name),
        };
        let fits = match case.expected["error"].as_str() {
            Some(part) => actual["error"].as_str().is_some_and(|message| message.contains(part)),
            None => ["topics", "warnings", "entries", "error"].iter().all(|field| actual[*field] == case.expected[*field]),
        };
        if !fits {
            wrong.push(format!("{}: {actual} instead of {}", case.name, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn fuzz_etcd() {
    let seeds: Vec<Vec<u8>> = corpus::cases("etcd").iter().map(corpus::Case::bytes).collect();
    corpus::fuzz("etcd", &seeds, |input| {
        put_list(input);
        if let Ok(list) = collector::parse(input) {
            let elements = serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(input).expect("a list was read from it").len();
            assert!(list.topics.len() <= elements, "topics from nowhere");
        }
        put_entry(b"drover/topics/t", input);
        put_entry(b"drover/pauses/t", input);
        put_entry(&[b"drover/topics/", input].concat(), b"{}");
    });
}
