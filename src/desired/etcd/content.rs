//! What etcd's keys say: raw keys and values become topics, pauses and the collector's lists. Pure.
//!
//! Guarantees: an entry that cannot be read keeps its last good value and is named, and harms no other; an entry that is gone is gone; what was applied twice changes nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::collector::{self, shown};
use super::layout::{Layout, Place};
use crate::desired::store::Stored;
use crate::status::{Pause, SourceError};
use crate::topic::{SpecFields, TopicName};

/// A key as it is in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawEntry {
    /// The key.
    pub(super) key: Vec<u8>,
    /// The value; `None` for a removal.
    pub(super) value: Option<Vec<u8>>,
    /// The revision of the last write, or of the removal.
    pub(super) revision: i64,
}

/// Everything that one full read brought, all of it at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FullRead {
    /// The cluster's id.
    pub(super) cluster_id: u64,
    /// The revision.
    pub(super) revision: i64,
    /// The value of the identity key.
    pub(super) identity: Option<Vec<u8>>,
    /// The entries of the topics' and the pauses' folders.
    pub(super) store: Vec<RawEntry>,
    /// The collector's keys, those that were asked for; without a value where the key is not there.
    pub(super) keys: BTreeMap<String, RawEntry>,
}

/// One of the collector's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyEntry {
    /// The last good list.
    pub(super) topics: Vec<TopicName>,
    /// The revision of the value that the list is from; `None` where the key is not there.
    pub(super) revision: Option<i64>,
    /// The hash of that value.
    pub(super) content_hash: Option<String>,
    /// When the list was seen to change.
    pub(super) changed_at: Timestamp,
    /// What is wrong with the value that is there now.
    pub(super) error: Option<SourceError>,
    /// Events up to this revision are in.
    pub(super) applied: i64,
}

/// What is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Topics' entries.
    pub(super) topics: BTreeMap<TopicName, Stored<SpecFields>>,
    /// Pauses.
    pub(super) pauses: BTreeMap<TopicName, Stored<Pause>>,
    /// The collector's keys.
    pub(super) keys: BTreeMap<String, KeyEntry>,
    /// Entries of the store that cannot be read now, by key.
    pub(super) unreadable: BTreeMap<Vec<u8>, SourceError>,
    /// The revision of each entry of the store, readable or not.
    pub(super) revisions: BTreeMap<Vec<u8>, i64>,
    /// Writes of topics and pauses up to this revision are in.
    pub(super) revision: i64,
}

impl Content {
    /// Takes a full read in place of everything; answers what to warn about.
    pub(super) fn replace(&mut self, layout: &Layout, read: &FullRead, now: Timestamp) -> Vec<String> {
        let revisions: BTreeMap<Vec<u8>, i64> = read.store.iter().map(|entry| (entry.key.clone(), entry.revision)).collect();
        self.unreadable.retain(|key, _| revisions.contains_key(key));
        self.topics.retain(|_, stored| revisions.contains_key(stored.key.as_bytes()));
        self.pauses.retain(|_, stored| revisions.contains_key(stored.key.as_bytes()));
        let mut warnings = Vec::new();
        for entry in &read.store {
            if self.revisions.get(&entry.key) != Some(&entry.revision) {
                self.put(layout, entry, now, &mut warnings);
            }
        }
        self.revisions = revisions;
        self.revision = self.revision.max(read.revision);
        self.keys.retain(|key, _| read.keys.contains_key(key));
        for (key, entry) in &read.keys {
            self.take_key(key, entry, now, &mut warnings);
            if let Some(known) = self.keys.get_mut(key) {
                known.applied = known.applied.max(read.revision);
            }
        }
        warnings
    }

    /// Takes the events of one message of the watch, in their order; answers what to warn about.
    pub(super) fn apply(&mut self, layout: &Layout, events: &[RawEntry], now: Timestamp) -> Vec<String> {
        let before = self.revision;
        let mut warnings = Vec::new();
        for event in events {
            let key = std::str::from_utf8(&event.key).ok();
            if let Some(key) = key.filter(|key| self.keys.get(*key).is_some_and(|known| event.revision > known.applied)) {
                self.take_key(key, event, now, &mut warnings);
            }
            if event.revision <= before || layout.place(&event.key) == Place::Foreign {
                continue;
            }
            if event.value.is_some() {
                self.put(layout, event, now, &mut warnings);
            } else {
                self.remove(layout, &event.key);
            }
            self.revision = self.revision.max(event.revision);
        }
        warnings
    }

    fn put(&mut self, layout: &Layout, entry: &RawEntry, now: Timestamp, warnings: &mut Vec<String>) {
        self.revisions.insert(entry.key.clone(), entry.revision);
        let value = entry.value.as_deref().unwrap_or_default();
        let problem = match layout.place(&entry.key) {
            Place::Topic(name) => store_value(&mut self.topics, name, entry, value),
            Place::Pause(name) => store_value(&mut self.pauses, name, entry, value),
            Place::Misplaced(why) => Err(why),
            Place::Foreign => Ok(()),
        };
        let Err(problem) = problem else {
            self.unreadable.remove(&entry.key);
            return;
        };
        let message = format!("the entry {} is not readable: {problem}", shown(&String::from_utf8_lossy(&entry.key)));
        warnings.push(message.clone());
        let since_at = self.unreadable.get(&entry.key).map_or(now, |known| known.since_at);
        self.unreadable.insert(entry.key.clone(), SourceError { message, line: None, since_at });
    }

    fn remove(&mut self, layout: &Layout, key: &[u8]) {
        self.revisions.remove(key);
        self.unreadable.remove(key);
        match layout.place(key) {
            Place::Topic(name) => drop(self.topics.remove(&name)),
            Place::Pause(name) => drop(self.pauses.remove(&name)),
            Place::Misplaced(_) | Place::Foreign => {}
        }
    }

    fn take_key(&mut self, key: &str, entry: &RawEntry, now: Timestamp, warnings: &mut Vec<String>) {
        let known = self.keys.get(key);
        let revision = entry.value.as_ref().map(|_| entry.revision);
        // The hash too: another etcd that an operator confirmed may have another value at the same revision.
        let content_hash = entry.value.as_deref().map(hash);
        let is_known = |known: &&KeyEntry| known.revision == revision && known.content_hash == content_hash && known.error.is_none();
        if let Some(known) = known.filter(is_known) {
            let applied = known.applied.max(entry.revision);
            self.keys.entry(key.to_owned()).and_modify(|known| known.applied = applied);
            return;
        }
        let parsed = entry.value.as_deref().map_or_else(|| Ok(collector::List::default()), collector::parse);
        let next = match parsed {
            Ok(list) => {
                warnings.extend(list.warnings.iter().map(|warning| format!("{}: {warning}", shown(key))));
                let unchanged = known.filter(|known| known.topics == list.topics);
                KeyEntry {
                    changed_at: unchanged.map_or(now, |known| known.changed_at),
                    topics: list.topics,
                    revision,
                    content_hash,
                    error: None,
                    applied: entry.revision,
                }
            }
            Err(problem) => {
                let message = format!("the value of {} is not readable, its last good list stays in force: {problem}", shown(key));
                let known_error = known.and_then(|known| known.error.as_ref());
                if known_error.is_none_or(|known| known.message != message) {
                    warnings.push(message.clone());
                }
                let since_at = known_error.map_or(now, |known| known.since_at);
                let error = Some(SourceError { message, line: None, since_at });
                match known {
                    Some(known) => KeyEntry { error, applied: entry.revision, ..known.clone() },
                    None => KeyEntry { topics: Vec::new(), revision: None, content_hash: None, changed_at: now, error, applied: entry.revision },
                }
            }
        };
        self.keys.insert(key.to_owned(), next);
    }

    /// The oldest trouble with an entry of the store, and how many more there are.
    pub(super) fn trouble(&self) -> Option<SourceError> {
        let oldest = self.unreadable.values().min_by_key(|error| error.since_at)?;
        let more = self.unreadable.len() - 1;
        let tail = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        Some(SourceError { message: format!("{}{tail}", oldest.message), ..oldest.clone() })
    }
}

fn store_value<T: DeserializeOwned>(
    entries: &mut BTreeMap<TopicName, Stored<T>>,
    name: TopicName,
    entry: &RawEntry,
    value: &[u8],
) -> Result<(), String> {
    // serde would take an array for the fields in their order.
    if value.trim_ascii_start().first() != Some(&b'{') {
        return Err("this is not a JSON object".to_owned());
    }
    let value = serde_json::from_slice(value).map_err(|error| shown(&error.to_string()))?;
    let key = String::from_utf8_lossy(&entry.key).into_owned();
    entries.insert(name, Stored { key, revision: entry.revision, value });
    Ok(())
}

/// SHA-256 in hexadecimal.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAUSE: &str = r#"{"reason":null,"actor":"me","since_at":"2026-01-31T00:00:00Z"}"#;

    fn now() -> Timestamp {
        "2026-02-01T00:00:00Z".parse().expect("a time")
    }

    fn layout() -> Layout {
        Layout::new("drover")
    }

    fn entry(key: &str, value: &str, revision: i64) -> RawEntry {
        RawEntry { key: key.as_bytes().to_vec(), value: Some(value.as_bytes().to_vec()), revision }
    }

    fn removal(key: &str, revision: i64) -> RawEntry {
        RawEntry { key: key.as_bytes().to_vec(), value: None, revision }
    }

    fn read(revision: i64, store: &[RawEntry], keys: &[RawEntry]) -> FullRead {
        let keys = keys.iter().map(|entry| (String::from_utf8(entry.key.clone()).expect("UTF-8"), entry.clone())).collect();
        FullRead { cluster_id: 1, revision, identity: None, store: store.to_vec(), keys }
    }

    fn topics(content: &Content) -> Vec<&str> {
        content.topics.keys().map(TopicName::as_str).collect()
    }

    #[test]
    fn an_unreadable_entry_keeps_its_last_good_value_and_harms_no_other() {
        let mut content = Content::default();
        let good = [entry("drover/topics/a", r#"{"format":"json"}"#, 3), entry("drover/topics/b", "{}", 4), entry("drover/pauses/a", PAUSE, 5)];
        assert_eq!(content.replace(&layout(), &read(5, &good, &[]), now()), [""; 0]);
        let last_good = content.topics["a"].clone();
        for (revision, value) in (6..).zip(["{", r#"{"formt":"json"}"#, "\u{1b}[31m", "[]"]) {
            let warnings = content.apply(&layout(), &[entry("drover/topics/a", value, revision)], now());
            assert_eq!(warnings.len(), 1);
            assert_eq!((&content.topics["a"], topics(&content)), (&last_good, vec!["a", "b"]));
            let message = content.trouble().expect("named").message;
            assert!(message.starts_with("the entry drover/topics/a is not readable: ") && !message.contains('\u{1b}'), "{message}");
        }
        content.apply(&layout(), &[entry("drover/topics/a", r#"{"format":"text"}"#, 20)], now());
        assert_eq!((content.trouble(), content.topics["a"].revision), (None, 20));
    }

    #[test]
    fn strange_keys_are_reported_and_gone_when_they_are_removed() {
        let mut content = Content::default();
        let strange = [
            entry("drover/topics/", "{}", 3),
            entry("drover/topics/a/b", "{}", 4),
            RawEntry { key: b"drover/topics/\xff\x1b".to_vec(), value: Some(b"{}".to_vec()), revision: 5 },
            entry("drover/topics/ok", "{}", 6),
        ];
        content.replace(&layout(), &read(6, &strange, &[]), now());
        assert_eq!(topics(&content), ["ok"]);
        assert!(content.trouble().expect("named").message.ends_with("(and 2 more)"), "{:?}", content.trouble());
        content.apply(&layout(), &[removal("drover/topics/", 7), removal("drover/topics/a/b", 8)], now());
        content.replace(&layout(), &read(9, &strange[3..], &[]), now());
        assert_eq!(content.trouble(), None);
    }

    #[test]
    fn a_removed_key_is_an_empty_list_and_a_damaged_one_is_not() {
        let mut content = Content::default();
        let list = r#"[{"path":"p","topic":"x"},{"path":"p","topic":"y"}]"#;
        content.replace(&layout(), &read(5, &[], &[entry("k", list, 5), removal("missing", 0)]), now());
        assert_eq!((content.keys["k"].topics.len(), content.keys["k"].revision), (2, Some(5)));
        assert_eq!((content.keys["missing"].topics.len(), content.keys["missing"].revision, &content.keys["missing"].error), (0, None, &None));
        content.apply(&layout(), &[entry("k", "[{", 6)], now());
        assert_eq!((content.keys["k"].topics.len(), content.keys["k"].revision), (2, Some(5)));
        assert!(content.keys["k"].error.is_some());
        content.apply(&layout(), &[removal("k", 7)], now());
        assert_eq!((content.keys["k"].topics.len(), content.keys["k"].revision, &content.keys["k"].error), (0, None, &None));
        content.apply(&layout(), &[entry("k", list, 8)], now());
        content.apply(&layout(), &[entry("k", "[]", 9)], now());
        assert_eq!((content.keys["k"].topics.len(), content.keys["k"].revision), (0, Some(9)));
    }

    #[test]
    fn a_damaged_value_that_is_mended_to_what_it_was_is_no_error_any_more() {
        let mut content = Content::default();
        let list = r#"[{"topic":"x"}]"#;
        content.replace(&layout(), &read(5, &[], &[entry("k", list, 5)]), now());
        content.apply(&layout(), &[entry("k", "oops", 6)], now());
        assert_eq!(content.replace(&layout(), &read(6, &[], &[entry("k", "oops", 6)]), now()), [""; 0], "warned about again");
        content.apply(&layout(), &[entry("k", list, 7)], now());
        assert_eq!((&content.keys["k"].error, content.keys["k"].revision), (&None, Some(7)));
    }

    #[test]
    fn another_value_at_a_known_revision_is_read() {
        let mut content = Content::default();
        content.replace(&layout(), &read(5, &[], &[entry("k", r#"[{"topic":"x"}]"#, 2)]), now());
        // As after a confirmation: what is known stays, and everything may be of another etcd.
        content.keys.values_mut().for_each(|known| known.applied = 0);
        content.replace(&layout(), &read(2, &[], &[entry("k", "[]", 2)]), now());
        assert_eq!((content.keys["k"].topics.len(), content.keys["k"].revision), (0, Some(2)));
    }

    #[test]
    fn a_key_that_is_no_longer_asked_for_is_forgotten() {
        let mut content = Content::default();
        content.replace(&layout(), &read(5, &[], &[entry("k", r#"[{"topic":"x"}]"#, 5)]), now());
        content.replace(&layout(), &read(6, &[], &[]), now());
        assert!(content.keys.is_empty());
    }

    #[test]
    fn an_old_event_does_not_undo_a_newer_read() {
        let mut content = Content::default();
        content.replace(&layout(), &read(9, &[entry("drover/topics/a", "{}", 9)], &[entry("k", "[]", 8)]), now());
        let after = content.clone();
        content.apply(&layout(), &[removal("drover/topics/a", 7), entry("k", r#"[{"topic":"x"}]"#, 7)], now());
        assert_eq!(content, after);
    }

    fn history() -> impl Strategy<Value = Vec<(u8, u8)>> {
        prop::collection::vec((0..6u8, 0..4u8), 0..40)
    }

    fn event(step: (u8, u8), revision: i64) -> RawEntry {
        let keys = ["drover/topics/a", "drover/topics/b", "drover/pauses/a", "drover/topics/a/b", "k", "drover/status/x"];
        let key = keys[usize::from(step.0)];
        match step.1 {
            0 => removal(key, revision),
            1 => entry(key, "{", revision),
            _ if key == "k" => entry(key, r#"[{"topic":"x"}]"#, revision),
            _ if key.contains("pauses") => entry(key, PAUSE, revision),
            _ => entry(key, "{}", revision),
        }
    }

    proptest! {
        /// A watch from the start and a full read at the end agree, whatever happened, except that last good values need the watch.
        #[test]
        fn a_read_changes_nothing_after_a_complete_watch(steps in history()) {
            let mut watched = Content::default();
            watched.replace(&layout(), &read(1, &[], &[removal("k", 0)]), now());
            let mut raw: BTreeMap<Vec<u8>, RawEntry> = BTreeMap::new();
            let mut last = 1;
            for (revision, step) in (2..).zip(&steps) {
                let event = event(*step, revision);
                watched.apply(&layout(), std::slice::from_ref(&event), now());
                if event.value.is_some() { raw.insert(event.key.clone(), event); } else { raw.remove(&event.key); }
                last = revision;
            }
            let k = raw.remove(&b"k"[..]).unwrap_or_else(|| removal("k", 0));
            raw.retain(|key, _| layout().place(key) != Place::Foreign);
            let store: Vec<RawEntry> = raw.into_values().collect();
            let mut again = watched.clone();
            again.replace(&layout(), &read(last, &store, &[k]), now());
            prop_assert_eq!(&again.topics, &watched.topics);
            prop_assert_eq!(&again.pauses, &watched.pauses);
            prop_assert_eq!(&again.unreadable, &watched.unreadable);
            prop_assert_eq!(&again.revisions, &watched.revisions);
            prop_assert_eq!(&again.keys["k"].topics, &watched.keys["k"].topics);
            prop_assert_eq!(again.keys["k"].error.is_some(), watched.keys["k"].error.is_some());
        }
    }
}
