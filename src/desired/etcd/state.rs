//! What the mirror knows, and what it says of it: the views. Pure; time is a parameter.
//!
//! Guarantees: a list is only replaced by what was read whole from an etcd with the same past, or by what an operator confirmed; whatever else happens, the list of before stays and the
//! sources say what is wrong and since when. Owns what must outlive the process ([`Saved`]).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::content::{Content, FullRead, KeyEntry, RawEntry, hash};
use super::guard::{self, Past};
use super::layout::Layout;
use crate::desired::keys::KeysView;
use crate::desired::merge::{Entry, Says};
use crate::desired::store::{StoreView, Stored};
use crate::status::{Pause, Source, SourceError, SourceStatus};
use crate::topic::{SourceKind, SourceRef, SpecFields, TopicName};

/// What ends the wait of an etcd whose past has changed.
const REMEDY: &str = "check that this etcd is meant, then POST /api/v1/sources/store/confirm";

/// What the mirror knows.
#[derive(Debug)]
pub(super) struct State {
    layout: Layout,
    /// What is in force.
    content: Content,
    past: Option<Past>,
    is_ready: bool,
    /// When what is in force was saved, until etcd was read.
    saved_at: Option<Timestamp>,
    read_at: Option<Timestamp>,
    changed_at: Option<Timestamp>,
    content_hash: Option<String>,
    outage: Option<SourceError>,
    stale: Option<SourceError>,
    confirmed: bool,
    /// Whether what must outlive the process has changed since it was given out.
    is_unsaved: bool,
}

/// What a full read led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in force; what to warn about.
    Taken(Vec<String>),
    /// It is of another past and held back; whether that is news.
    Held {
        /// Why.
        why: String,
        /// Whether the read before said something else.
        is_news: bool,
    },
}

impl State {
    pub(super) fn new(layout: Layout, saved: Option<Saved>) -> Self {
        let mut state = Self {
            layout,
            content: Content::default(),
            past: None,
            is_ready: false,
            saved_at: None,
            read_at: None,
            changed_at: None,
            content_hash: None,
            outage: None,
            stale: None,
            confirmed: false,
            is_unsaved: false,
        };
        if let Some(saved) = saved.filter(|saved| saved.root == state.layout.root()) {
            state.saved_at = Some(saved.at);
            state.read_at = Some(saved.at);
            state.changed_at = saved.changed_at;
            state.past = Some(saved.past.clone());
            state.content = saved.into_content(&state.layout);
            state.content_hash = Some(content_hash(&state.content));
        }
        state
    }

    pub(super) fn past(&self) -> Option<&Past> {
        self.past.as_ref()
    }

    /// The revision of the store's entry as the mirror knows it.
    pub(super) fn revision_of(&self, key: &str) -> Option<i64> {
        self.content.revisions.get(key.as_bytes()).copied()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub(super) fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// The next read is taken whatever its past. Nothing where nothing waits for that.
    pub(super) fn confirm(&mut self) {
        self.confirmed = self.stale.is_some();
    }

    /// Takes back [`Self::confirm`].
    pub(super) fn withdraw(&mut self) {
        self.confirmed = false;
    }

    /// Takes a full read, or holds it back.
    pub(super) fn take(&mut self, read: &FullRead, now: Timestamp) -> Verdict {
        self.is_ready = true;
        self.outage = None;
        let why = self.past.as_ref().and_then(|past| guard::another_past(past, &self.content.revisions, read));
        if let Some(why) = why
            && !self.confirmed
        {
            let message = format!("{why}; the last good list stays in force: {REMEDY}");
            let since_at = self.stale.as_ref().map_or(now, |known| known.since_at);
            let is_news = self.stale.as_ref().is_none_or(|known| known.message != message);
            self.stale = Some(SourceError { message, line: None, since_at });
            return Verdict::Held { why, is_news };
        }
        if self.confirmed {
            self.content = Content { keys: std::mem::take(&mut self.content.keys), ..Content::default() };
            self.content.keys.values_mut().for_each(|key| key.applied = 0);
        }
        let known_identity = self.past.take().filter(|_| !self.confirmed).and_then(|past| past.identity);
        (self.stale, self.confirmed, self.saved_at) = (None, false, None);
        self.past = Some(Past { cluster_id: read.cluster_id, revision: read.revision, identity: read.identity.clone().or(known_identity) });
        let warnings = self.content.replace(&self.layout, read, now);
        self.note_content(now);
        self.is_unsaved = true;
        Verdict::Taken(warnings)
    }

    /// Takes the events of one message of the watch.
    pub(super) fn apply(&mut self, events: &[RawEntry], now: Timestamp) -> Vec<String> {
        let warnings = self.content.apply(&self.layout, events, now);
        if !events.is_empty() {
            self.note_content(now);
            self.is_unsaved = true;
        }
        warnings
    }

    /// Takes note of what an answer's header tells; whether it is of the past that we know.
    pub(super) fn header(&mut self, cluster_id: u64, revision: i64) -> bool {
        let Some(past) = &mut self.past else { return true };
        if guard::header_of_another_past(past, cluster_id, revision.max(past.revision)).is_some() {
            return false;
        }
        if revision > past.revision {
            past.revision = revision;
            self.is_unsaved = true;
        }
        true
    }

    /// The identity key was written by us.
    pub(super) fn identified(&mut self, identity: Vec<u8>) {
        if let Some(past) = &mut self.past {
            past.identity = Some(identity);
            self.is_unsaved = true;
        }
    }

    /// Takes note that etcd could not be read.
    pub(super) fn failed(&mut self, problem: &str, now: Timestamp) {
        self.is_ready = true;
        let list = match self.saved_at {
            Some(at) => format!("the last good list of {at:.0} is in force"),
            None if self.past.is_some() => "the last good list stays in force".to_owned(),
            None => "there is no last good list".to_owned(),
        };
        let since_at = self.outage.as_ref().map_or(now, |known| known.since_at);
        self.outage = Some(SourceError { message: format!("{problem}; {list}"), line: None, since_at });
    }

    fn note_content(&mut self, now: Timestamp) {
        let hash = content_hash(&self.content);
        self.read_at = Some(now);
        if self.content_hash.as_ref() != Some(&hash) {
            self.content_hash = Some(hash);
            self.changed_at = Some(now);
        }
    }

    /// What is wrong with everything at once: a changed past weighs more than an outage.
    fn common_trouble(&self) -> Option<(SourceStatus, SourceError)> {
        let stale = self.stale.clone().map(|error| (SourceStatus::Stale, error));
        stale.or_else(|| self.outage.clone().map(|error| (SourceStatus::Error, error)))
    }

    pub(super) fn store_view(&self) -> StoreView {
        let trouble = self.common_trouble().or_else(|| self.content.trouble().map(|error| (SourceStatus::Error, error)));
        let source = Source {
            kind: SourceKind::Store,
            detail: Some(format!("etcd {}", self.layout.root())),
            status: trouble.as_ref().map_or(SourceStatus::Ok, |(status, _)| *status),
            topics: self.content.topics.len(),
            revision: Some(self.content.revision),
            content_hash: self.content_hash.clone(),
            read_at: self.read_at,
            changed_at: self.changed_at,
            error: trouble.map(|(_, error)| error),
        };
        StoreView {
            is_ready: self.is_ready,
            revision: self.content.revision,
            topics: self.content.topics.clone(),
            pauses: self.content.pauses.clone(),
            source,
        }
    }

    /// The view of these keys, in their order. A key that was never read is an empty list.
    pub(super) fn keys_view(&self, keys: &[String]) -> KeysView {
        let mut view = KeysView { is_ready: self.is_ready, entries: Vec::new(), sources: Vec::new() };
        let common = self.common_trouble();
        for (index, key) in keys.iter().enumerate() {
            if keys.iter().take(index).any(|earlier| earlier == key) {
                continue;
            }
            let known = self.content.keys.get(key);
            view.entries.extend(known.into_iter().flat_map(|known| entries(key, known)));
            let trouble = common.clone().or_else(|| known.and_then(|known| known.error.clone()).map(|error| (SourceStatus::Error, error)));
            view.sources.push(Source {
                kind: SourceKind::Etcd,
                detail: Some(key.clone()),
                status: trouble.as_ref().map_or(SourceStatus::Ok, |(status, _)| *status),
                topics: known.map_or(0, |known| known.topics.len()),
                revision: known.and_then(|known| known.revision),
                content_hash: known.and_then(|known| known.content_hash.clone()),
                read_at: self.read_at.filter(|_| known.is_some()),
                changed_at: known.map(|known| known.changed_at),
                error: trouble.map(|(_, error)| error),
            });
        }
        view
    }

    /// What must outlive the process, if it has changed since the last call.
    pub(super) fn unsaved(&mut self) -> Option<Saved> {
        std::mem::take(&mut self.is_unsaved).then(|| self.saved()).flatten()
    }

    /// What the last call of [`Self::unsaved`] gave is not saved after all.
    pub(super) fn save_again(&mut self) {
        self.is_unsaved = true;
    }

    /// What must outlive the process; `None` before etcd was ever read.
    fn saved(&self) -> Option<Saved> {
        let past = self.past.clone()?;
        let topics = self.content.topics.iter().map(|(name, stored)| (name.clone(), (stored.revision, stored.value.clone()))).collect();
        let pauses = self.content.pauses.iter().map(|(name, stored)| (name.clone(), (stored.revision, stored.value.clone()))).collect();
        let keys = self.content.keys.iter().map(|(key, known)| (key.clone(), SavedKey::new(known))).collect();
        let at = self.read_at?;
        Some(Saved { root: self.layout.root(), past, at, changed_at: self.changed_at, revision: self.content.revision, topics, pauses, keys })
    }
}

fn entries<'a>(key: &'a str, known: &'a KeyEntry) -> impl Iterator<Item = Entry> + 'a {
    let source = SourceRef { kind: SourceKind::Etcd, detail: None, key: Some(key.to_owned()), revision: known.revision };
    known.topics.iter().map(move |name| Entry { name: name.clone(), source: source.clone(), says: Says::Dialect })
}

/// A hash of the topics and pauses that are in force.
fn content_hash(content: &Content) -> String {
    let topics: Vec<_> = content.topics.values().map(|stored| (&stored.key, stored.revision)).collect();
    let pauses: Vec<_> = content.pauses.values().map(|stored| (&stored.key, stored.revision)).collect();
    hash(format!("{topics:?}{pauses:?}").as_bytes())
}

/// The last good lists and the past they are of, as they are kept over restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    root: String,
    past: Past,
    at: Timestamp,
    changed_at: Option<Timestamp>,
    revision: i64,
    topics: BTreeMap<TopicName, (i64, SpecFields)>,
    pauses: BTreeMap<TopicName, (i64, Pause)>,
    keys: BTreeMap<String, SavedKey>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedKey {
    topics: Vec<TopicName>,
    revision: Option<i64>,
    content_hash: Option<String>,
    changed_at: Timestamp,
}

impl SavedKey {
    fn new(known: &KeyEntry) -> Self {
        Self { topics: known.topics.clone(), revision: known.revision, content_hash: known.content_hash.clone(), changed_at: known.changed_at }
    }
}

impl Saved {
    fn into_content(self, layout: &Layout) -> Content {
        let topics: BTreeMap<_, _> = self.topics.into_iter().map(|(name, value)| (name.clone(), stored(layout.topic(&name), value))).collect();
        let pauses: BTreeMap<_, _> = self.pauses.into_iter().map(|(name, value)| (name.clone(), stored(layout.pause(&name), value))).collect();
        let of_topics = topics.values().map(|stored| (stored.key.clone().into_bytes(), stored.revision));
        let revisions = of_topics.chain(pauses.values().map(|stored| (stored.key.clone().into_bytes(), stored.revision))).collect();
        let keys = self.keys.into_iter().map(|(key, saved)| {
            let SavedKey { topics, revision, content_hash, changed_at } = saved;
            (key, KeyEntry { topics, revision, content_hash, changed_at, error: None, applied: 0 })
        });
        Content { topics, pauses, keys: keys.collect(), unreadable: BTreeMap::new(), revisions, revision: self.revision }
    }
}

fn stored<T>(key: String, (revision, value): (i64, T)) -> Stored<T> {
    Stored { key, revision, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_770_000_000 + second).expect("a time")
    }

    fn layout() -> Layout {
        Layout::new("drover")
    }

    fn read(revision: i64, topics: &[(&str, i64)], keys: &[(&str, &str, i64)]) -> FullRead {
        let store = topics.iter().map(|&(name, revision)| {
            let key = format!("drover/topics/{name}").into_bytes();
            RawEntry { key, value: Some(b"{}".to_vec()), revision }
        });
        let keys = keys.iter().map(|&(key, value, revision)| {
            let value = (!value.is_empty()).then(|| value.as_bytes().to_vec());
            (key.to_owned(), RawEntry { key: key.as_bytes().to_vec(), value, revision })
        });
        FullRead { cluster_id: 7, revision, identity: Some(b"I".to_vec()), store: store.collect(), keys: keys.collect() }
    }

    fn topics(state: &State) -> Vec<String> {
        state.store_view().topics.keys().map(ToString::to_string).collect()
    }

    fn full() -> State {
        let mut state = State::new(layout(), None);
        let verdict = state.take(&read(10, &[("a", 5), ("b", 6)], &[("k", r#"[{"topic":"x"}]"#, 7)]), at(0));
        assert_eq!(verdict, Verdict::Taken(Vec::new()));
        state
    }

    fn over_a_restart(state: &State) -> State {
        let json = serde_json::to_vec(&state.saved().expect("something to save")).expect("JSON");
        State::new(layout(), Some(serde_json::from_slice(&json).expect("what was saved")))
    }

    #[test]
    fn nothing_is_ready_before_the_first_try() {
        let mut state = State::new(layout(), None);
        assert!(!state.store_view().is_ready && !state.keys_view(&[]).is_ready);
        state.failed("etcd cannot be reached", at(1));
        let view = state.store_view();
        assert!(view.is_ready && view.topics.is_empty());
        assert_eq!((view.source.status, view.source.detail.as_deref()), (SourceStatus::Error, Some("etcd drover/")));
        assert!(view.source.error.expect("told").message.ends_with("there is no last good list"));
    }

    #[test]
    fn an_outage_keeps_the_list_and_its_beginning_and_ends_by_itself() {
        let mut state = full();
        state.failed("etcd does not answer", at(1));
        state.failed("etcd cannot be reached", at(2));
        let error = state.store_view().source.error.expect("told");
        assert_eq!((error.since_at, error.message.as_str()), (at(1), "etcd cannot be reached; the last good list stays in force"));
        assert_eq!(topics(&state), ["a", "b"]);
        let keys = state.keys_view(&["k".to_owned()]);
        assert_eq!((keys.entries.len(), keys.sources[0].status, keys.sources[0].topics), (1, SourceStatus::Error, 1));
        state.take(&read(11, &[("a", 5)], &[("k", "", 0)]), at(3));
        assert_eq!((state.store_view().source.error, topics(&state)), (None, vec!["a".to_owned()]));
        assert!(state.keys_view(&["k".to_owned()]).entries.is_empty());
    }

    #[test]
    fn a_start_without_etcd_runs_the_last_good_list_and_says_of_when_it_is() {
        let mut state = over_a_restart(&full());
        assert!(!state.store_view().is_ready);
        state.failed("etcd cannot be reached", at(100));
        let view = state.store_view();
        assert_eq!(topics(&state), ["a", "b"]);
        assert_eq!((view.revision, view.topics["a"].revision, view.topics["a"].key.as_str()), (10, 5, "drover/topics/a"));
        let message = view.source.error.expect("told").message;
        assert_eq!(message, format!("etcd cannot be reached; the last good list of {:.0} is in force", at(0)));
        let keys = state.keys_view(&["k".to_owned()]);
        assert_eq!(keys.entries[0].source, SourceRef { kind: SourceKind::Etcd, detail: None, key: Some("k".to_owned()), revision: Some(7) });
    }

    #[test]
    fn an_emptied_etcd_stops_nothing_until_it_is_confirmed() {
        for restarted in [false, true] {
            let mut state = full();
            if restarted {
                state = over_a_restart(&state);
            }
            let emptied = FullRead { identity: None, ..read(1, &[], &[("k", "", 0)]) };
            let Verdict::Held { is_news: true, .. } = state.take(&emptied, at(1)) else { panic!("taken") };
            let Verdict::Held { is_news: false, .. } = state.take(&emptied, at(2)) else { panic!("taken, or news again") };
            let view = state.store_view();
            assert_eq!((view.source.status, topics(&state)), (SourceStatus::Stale, vec!["a".to_owned(), "b".to_owned()]));
            let error = view.source.error.expect("told");
            assert!(error.message.contains("POST /api/v1/sources/store/confirm") && error.since_at == at(1), "{error:?}");
            assert_eq!(state.keys_view(&["k".to_owned()]).sources[0].status, SourceStatus::Stale);
            assert!(state.is_stale());
            state.confirm();
            assert_eq!(state.take(&emptied, at(3)), Verdict::Taken(Vec::new()));
            assert!(!state.is_stale() && topics(&state).is_empty() && state.keys_view(&["k".to_owned()]).entries.is_empty());
            assert_eq!(state.past().map(|past| past.revision), Some(1));
            assert!(matches!(state.take(&read(2, &[("c", 2)], &[("k", r#"[{"topic":"z"}]"#, 2)]), at(4)), Verdict::Taken(_)));
            assert_eq!(topics(&state), ["c"]);
            assert_eq!(state.keys_view(&["k".to_owned()]).entries.len(), 1);
        }
    }

    #[test]
    fn views_go_on_after_a_confirmed_step_back() {
        let mut state = full();
        let emptied = FullRead { identity: None, ..read(1, &[], &[("k", "", 0)]) };
        state.take(&emptied, at(1));
        state.confirm();
        state.take(&emptied, at(2));
        let event = RawEntry { key: b"drover/topics/new".to_vec(), value: Some(b"{}".to_vec()), revision: 2 };
        state.apply(&[event, RawEntry { key: b"k".to_vec(), value: Some(br#"[{"topic":"z"}]"#.to_vec()), revision: 3 }], at(3));
        assert_eq!(topics(&state), ["new"]);
        assert_eq!(state.keys_view(&["k".to_owned()]).entries.len(), 1);
    }

    #[test]
    fn an_etcd_that_comes_back_as_it_was_needs_no_confirmation() {
        let mut state = full();
        let other = FullRead { cluster_id: 8, ..read(500, &[], &[]) };
        assert!(matches!(state.take(&other, at(1)), Verdict::Held { .. }));
        assert!(matches!(state.take(&read(12, &[("a", 5), ("b", 6)], &[]), at(2)), Verdict::Taken(_)));
        assert_eq!(state.store_view().source.status, SourceStatus::Ok);
    }

    #[test]
    fn a_confirmation_that_nothing_waits_for_does_not_wait_for_the_next_accident() {
        let mut state = full();
        state.confirm();
        let emptied = FullRead { identity: None, ..read(1, &[], &[]) };
        assert!(matches!(state.take(&emptied, at(1)), Verdict::Held { .. }));
    }

    #[test]
    fn only_news_is_saved() {
        let mut state = full();
        assert!(state.unsaved().is_some());
        assert!(state.header(7, 10) && state.unsaved().is_none());
        assert!(state.header(7, 11) && state.unsaved().is_some_and(|saved| saved.past.revision == 11));
        state.save_again();
        assert!(state.unsaved().is_some());
        state.failed("etcd cannot be reached", at(1));
        assert!(state.unsaved().is_none());
    }

    #[test]
    fn a_stream_of_another_cluster_is_found_out_and_a_member_behind_is_not() {
        let mut state = full();
        assert!(state.header(7, 3));
        assert_eq!(state.past().map(|past| past.revision), Some(10));
        assert!(!state.header(8, 20));
    }

    #[test]
    fn another_prefix_does_not_inherit_the_last_good_lists() {
        let saved = full().saved();
        let state = State::new(Layout::new("other"), saved);
        assert!(state.past().is_none() && state.store_view().topics.is_empty());
    }

    #[test]
    fn a_key_that_is_named_twice_or_never_read_is_one_row() {
        let state = full();
        let view = state.keys_view(&["k".to_owned(), "new".to_owned(), "k".to_owned()]);
        assert_eq!(view.sources.iter().map(|source| source.detail.clone().expect("a key")).collect::<Vec<_>>(), ["k", "new"]);
        assert_eq!((view.entries.len(), view.sources[1].topics), (1, 0));
    }
}
