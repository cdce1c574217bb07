//! What every [`TopicStore`] has to pass; see [`super`] for the promises. Uses topics of its own, so it can run on a store that holds others, once and while nobody else writes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Author, ChangesQuery, KEPT_CHANGES, Precondition, PutOutcome, StoreError, StoreView, TopicStore};
use crate::status::{Change, ChangeAction, Pause, SourceStatus};
use crate::topic::{Facts, Format, IndexTemplate, OnReject, SourceKind, SpecFields, Start, TopicName};

/// A view must show a write within this time, also through a watch.
const DEADLINE: Duration = Duration::from_secs(10);

/// Runs all checks but the long [`kept_changes`], one after the other; panics at the first promise that is broken.
pub async fn contract(store: &dyn TopicStore) {
    creators_of_facts_get_the_same_facts(store).await;
    facts_are_replaced_only_by_who_knew_them(store).await;
    a_topic_is_stored_exactly_as_given(store).await;
    a_stale_writer_is_told_the_current_revision(store).await;
    of_writers_at_once_one_creates(store).await;
    a_removed_topic_loses_its_pause_and_keeps_its_facts(store).await;
    a_pause_needs_no_entry(store).await;
    views_never_go_back(store).await;
    a_topic_is_read_as_it_is_now(store).await;
    each_write_leaves_one_change(store).await;
    a_refused_write_leaves_no_change(store).await;
    a_note_moves_no_entry(store).await;
    pages_of_changes_are_complete_and_in_order(store).await;
    a_confirmation_that_nothing_waits_for_does_nothing(store).await;
}

/// Checks what is left of the changes after more than [`KEPT_CHANGES`] writes, which it does one after the other; panics where a promise is broken.
pub async fn kept_changes(store: &dyn TopicStore) {
    let topic = name("kept");
    let mut revisions = Vec::new();
    for _ in 0..KEPT_CHANGES + 5 {
        revisions.push(put(store, &topic).await.revision);
    }
    let newest: Vec<i64> = revisions.into_iter().rev().take(KEPT_CHANGES).collect();
    let all = ChangesQuery { limit: KEPT_CHANGES * 2, ..ChangesQuery::default() };
    let only_the_newest_are_left = async {
        loop {
            let kept: Vec<i64> = changes(store, all.clone()).await.iter().map(revision_of).collect();
            assert!(kept.starts_with(&newest), "a change that had to be kept is gone: {} are left", kept.len());
            if kept.len() == newest.len() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, only_the_newest_are_left).await.expect("old changes go in time");
}

pub(crate) fn facts(topic_id: &str) -> Facts {
    Facts {
        topic_id: Some(topic_id.to_owned()),
        id_base: topic_id.to_owned(),
        partitions: 2,
        start_offsets: BTreeMap::from([(0, 17), (1, i64::MAX)]),
        first_seen_at: "2026-01-31T00:00:00.123456789Z".parse().expect("a legal time"),
    }
}

pub(crate) fn fields() -> SpecFields {
    SpecFields {
        index: Some(IndexTemplate::parse("logs-{date}").expect("a legal template")),
        format: Some(Format::Json),
        start: Some(Start::At("2026-01-31T00:00:00.5Z".parse().expect("a legal time"))),
        on_reject: Some(OnReject::Stop),
        labels: Some(BTreeMap::from([("team".to_owned(), "日志 \"x\"".to_owned())])),
        ..SpecFields::default()
    }
}

pub(crate) fn pause() -> Pause {
    let since_at: Timestamp = "2026-01-31T00:00:00.250Z".parse().expect("a legal time");
    Pause { reason: Some("maintenance".to_owned()), actor: "me".to_owned(), since_at, until_at: Some(since_at) }
}

fn name(text: &str) -> TopicName {
    TopicName::new(&format!("suite.{text}")).expect("a legal name")
}

pub(crate) fn author() -> Author {
    Author { actor: "me".to_owned(), source: "api", request_id: Some("req-1".to_owned()) }
}

async fn put(store: &dyn TopicStore, topic: &TopicName) -> PutOutcome {
    store.put_topic(topic, fields(), Precondition::Any, ChangeAction::Put, author()).await.expect("written")
}

async fn changes(store: &dyn TopicStore, query: ChangesQuery) -> Vec<Change> {
    store.changes(query).await.expect("reads")
}

async fn changes_of(store: &dyn TopicStore, topic: &TopicName) -> Vec<Change> {
    changes(store, ChangesQuery { topic: Some(topic.clone()), before: None, limit: KEPT_CHANGES }).await
}

fn revision_of(change: &Change) -> i64 {
    change.revision.expect("a listed change has its revision")
}

/// The first view that has this revision.
async fn view_at(store: &dyn TopicStore, revision: i64) -> Arc<StoreView> {
    let mut views = store.views();
    let waited = tokio::time::timeout(DEADLINE, views.wait_for(|view| view.revision >= revision)).await;
    let view = waited.expect("no view with the revision in time").expect("the store lives").clone();
    assert!(view.is_ready);
    assert_eq!((view.source.kind, view.source.status, view.source.topics), (SourceKind::Store, SourceStatus::Ok, view.topics.len()));
    view
}

async fn creators_of_facts_get_the_same_facts(store: &dyn TopicStore) {
    let topic = name("creators");
    assert_eq!(store.facts(&topic).await.expect("reads"), None);
    let creations = ["X", "Y", "Z"].map(|topic_id| store.create_facts(&topic, facts(topic_id)));
    let answers: Vec<Facts> = join_all(creations).await.into_iter().map(|answer| answer.expect("facts")).collect();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(store.facts(&topic).await.expect("reads"), Some(answers[0].clone()));
    assert_eq!(store.create_facts(&topic, facts("W")).await.expect("facts"), answers[0]);
}

async fn facts_are_replaced_only_by_who_knew_them(store: &dyn TopicStore) {
    let topic = name("replacers");
    assert!(matches!(store.replace_facts(&topic, facts("X"), facts("Y")).await, Err(StoreError::NotFound)));
    store.create_facts(&topic, facts("X")).await.expect("facts");
    assert_eq!(store.replace_facts(&topic, facts("X"), facts("Y")).await.expect("facts"), facts("Y"));
    assert_eq!(store.replace_facts(&topic, facts("X"), facts("Z")).await.expect("facts"), facts("Y"));
    assert_eq!(store.facts(&topic).await.expect("reads"), Some(facts("Y")));
    let replacements = ["P", "Q"].map(|topic_id| store.replace_facts(&topic, facts("Y"), facts(topic_id)));
    let answers: Vec<Facts> = join_all(replacements).await.into_iter().map(|answer| answer.expect("facts")).collect();
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], facts("Y"));
}

async fn a_topic_is_stored_exactly_as_given(store: &dyn TopicStore) {
    let topic = name("exact");
    for given in [fields(), SpecFields::default()] {
        let outcome = store.put_topic(&topic, given.clone(), Precondition::Any, ChangeAction::Put, author()).await.expect("written");
        let view = view_at(store, outcome.revision).await;
        let stored = &view.topics[&topic];
        assert_eq!((stored.revision, &stored.value), (outcome.revision, &given));
        assert!(stored.key.ends_with("topics/suite.exact"), "{}", stored.key);
    }
}

async fn a_stale_writer_is_told_the_current_revision(store: &dyn TopicStore) {
    let topic = name("stale");
    let conflict = |result: Result<_, StoreError>| match result {
        Err(StoreError::Conflict { current }) => current,
        other => panic!("expected a conflict, got {other:?}"),
    };
    assert_eq!(conflict(store.put_topic(&topic, fields(), Precondition::Revision(1), ChangeAction::Put, author()).await), None);
    let first = store.put_topic(&topic, fields(), Precondition::Absent, ChangeAction::Put, author()).await.expect("written");
    assert!(first.created);
    assert_eq!(conflict(store.put_topic(&topic, fields(), Precondition::Absent, ChangeAction::Put, author()).await), Some(first.revision));
    let second = store.put_topic(&topic, fields(), Precondition::Revision(first.revision), ChangeAction::Put, author()).await.expect("written");
    assert!(!second.created && second.revision > first.revision);
    assert_eq!(
        conflict(store.put_topic(&topic, fields(), Precondition::Revision(first.revision), ChangeAction::Put, author()).await),
        Some(second.revision)
    );
    let stale_removal = store.delete_topic(&topic, Precondition::Revision(first.revision), author()).await;
    assert!(matches!(stale_removal, Err(StoreError::Conflict { current }) if current == Some(second.revision)), "{stale_removal:?}");
    let removal = store.delete_topic(&topic, Precondition::Revision(second.revision), author()).await.expect("removed");
    assert!(removal > second.revision);
    assert!(matches!(store.delete_topic(&topic, Precondition::Revision(second.revision), author()).await, Err(StoreError::NotFound)));
}

async fn of_writers_at_once_one_creates(store: &dyn TopicStore) {
    let topic = name("writers");
    let writes = (0..5).map(|_| store.put_topic(&topic, fields(), Precondition::Absent, ChangeAction::Put, author()));
    let results = join_all(writes).await;
    let winners: Vec<i64> = results.iter().filter_map(|result| result.as_ref().ok()).map(|outcome| outcome.revision).collect();
    assert_eq!(winners.len(), 1);
    let told = results.iter().filter(|result| matches!(result, Err(StoreError::Conflict { current }) if *current == winners.first().copied()));
    assert_eq!(told.count(), 4);
    let logged: Vec<i64> = changes_of(store, &topic).await.iter().map(revision_of).collect();
    assert_eq!(logged, winners);
}

async fn a_removed_topic_loses_its_pause_and_keeps_its_facts(store: &dyn TopicStore) {
    let topic = name("removed");
    store.create_facts(&topic, facts("X")).await.expect("facts");
    put(store, &topic).await;
    let paused = store.put_pause(&topic, pause(), author()).await.expect("written");
    let view = view_at(store, paused.revision).await;
    assert!(view.topics.contains_key(&topic) && view.pauses.contains_key(&topic));
    let removal = store.delete_topic(&topic, Precondition::Any, author()).await.expect("removed");
    let view = view_at(store, removal).await;
    assert!(!view.topics.contains_key(&topic) && !view.pauses.contains_key(&topic));
    assert_eq!(store.facts(&topic).await.expect("reads"), Some(facts("X")));
}

async fn a_pause_needs_no_entry(store: &dyn TopicStore) {
    let topic = name("paused");
    let first = store.put_pause(&topic, pause(), author()).await.expect("written");
    let again = store.put_pause(&topic, Pause { until_at: None, ..pause() }, author()).await.expect("written");
    assert!(first.created && !again.created && again.revision > first.revision);
    let view = view_at(store, again.revision).await;
    assert_eq!((view.topics.contains_key(&topic), &view.pauses[&topic].value), (false, &Pause { until_at: None, ..pause() }));
    let lifted = store.delete_pause(&topic, author()).await.expect("lifted");
    assert!(!view_at(store, lifted).await.pauses.contains_key(&topic));
    assert!(matches!(store.delete_pause(&topic, author()).await, Err(StoreError::NotFound)));
}

async fn views_never_go_back(store: &dyn TopicStore) {
    let topics: Vec<TopicName> = (0..20).map(|number| name(&format!("many-{number}"))).collect();
    let mut views = store.views();
    let mut last = views.borrow_and_update().clone();
    let writes = join_all(topics.iter().map(|topic| put(store, topic)));
    let watching = async {
        let mut seen = 0;
        while seen < topics.len() {
            views.changed().await.expect("the store lives");
            let view = views.borrow_and_update().clone();
            assert!(view.revision >= last.revision, "{} after {}", view.revision, last.revision);
            assert!(view.revision > last.revision || view.topics == last.topics, "two views of one revision");
            let count = topics.iter().filter(|topic| view.topics.contains_key(*topic)).count();
            assert!(count >= seen, "a topic was gone again");
            (last, seen) = (view, count);
        }
    };
    let (outcomes, watched) = futures::future::join(writes, tokio::time::timeout(DEADLINE, watching)).await;
    watched.expect("all topics in a view in time");
    for (topic, outcome) in topics.iter().zip(outcomes) {
        let logged: Vec<i64> = changes_of(store, topic).await.iter().map(revision_of).collect();
        assert_eq!(logged, [outcome.revision]);
    }
}

async fn a_topic_is_read_as_it_is_now(store: &dyn TopicStore) {
    let topic = name("now");
    assert_eq!(store.topic(&topic).await.expect("reads"), None);
    for given in [fields(), SpecFields::default()] {
        let outcome = store.put_topic(&topic, given.clone(), Precondition::Any, ChangeAction::Put, author()).await.expect("written");
        let stored = store.topic(&topic).await.expect("reads").expect("an entry");
        assert_eq!((stored.revision, &stored.value), (outcome.revision, &given));
        assert_eq!(view_at(store, outcome.revision).await.topics.get(&topic), Some(&stored));
    }
    store.delete_topic(&topic, Precondition::Any, author()).await.expect("removed");
    assert_eq!(store.topic(&topic).await.expect("reads"), None);
}

fn as_json(value: &impl serde::Serialize) -> Option<Value> {
    Some(serde_json::to_value(value).expect("a JSON form"))
}

async fn each_write_leaves_one_change(store: &dyn TopicStore) {
    let topic = name("logged");
    let patched = SpecFields { on_reject: Some(OnReject::DeadLetter), ..fields() };
    let longer = Pause { until_at: None, ..pause() };
    let other = || Author { actor: "other".to_owned(), source: "api", request_id: None };
    let started_at = Timestamp::now();
    let revisions = [
        put(store, &topic).await.revision,
        store.put_topic(&topic, patched.clone(), Precondition::Any, ChangeAction::Patch, other()).await.expect("written").revision,
        store.put_topic(&topic, fields(), Precondition::Any, ChangeAction::Revert, author()).await.expect("written").revision,
        store.put_pause(&topic, pause(), author()).await.expect("paused").revision,
        store.put_pause(&topic, longer.clone(), other()).await.expect("paused").revision,
        store.delete_pause(&topic, author()).await.expect("lifted"),
        store.put_pause(&topic, pause(), author()).await.expect("paused").revision,
        store.delete_topic(&topic, Precondition::Any, other()).await.expect("removed"),
    ];
    let ended_at = Timestamp::now();
    let effects = [
        (ChangeAction::Put, author(), None, as_json(&fields())),
        (ChangeAction::Patch, other(), as_json(&fields()), as_json(&patched)),
        (ChangeAction::Revert, author(), as_json(&patched), as_json(&fields())),
        (ChangeAction::Pause, author(), None, as_json(&pause())),
        (ChangeAction::Pause, other(), as_json(&pause()), as_json(&longer)),
        (ChangeAction::Resume, author(), as_json(&longer), None),
        (ChangeAction::Pause, author(), None, as_json(&pause())),
        // The pause goes with the topic and is no change of its own.
        (ChangeAction::Delete, other(), as_json(&fields()), None),
    ];
    let logged = changes_of(store, &topic).await;
    assert_eq!(logged.len(), effects.len(), "{logged:?}");
    for (change, ((action, by, before, after), revision)) in logged.iter().rev().zip(effects.into_iter().zip(revisions)) {
        let expected = Change {
            id: change.id.clone(),
            revision: Some(revision),
            at: change.at,
            actor: by.actor,
            source: by.source.to_owned(),
            request_id: by.request_id,
            topic: topic.clone(),
            action,
            before,
            after,
        };
        assert_eq!(*change, expected);
        assert!(ulid::Ulid::from_string(&change.id).is_ok(), "{}", change.id);
        // Stored times are cut to milliseconds.
        assert!(change.at.as_millisecond() >= started_at.as_millisecond() && change.at <= ended_at, "{}", change.at);
    }
}

async fn a_refused_write_leaves_no_change(store: &dyn TopicStore) {
    let topic = name("refused");
    assert!(store.delete_topic(&topic, Precondition::Any, author()).await.is_err());
    assert!(store.delete_pause(&topic, author()).await.is_err());
    assert!(store.put_topic(&topic, fields(), Precondition::Revision(1), ChangeAction::Put, author()).await.is_err());
    assert_eq!(changes_of(store, &topic).await, []);
    put(store, &topic).await;
    let before = changes_of(store, &topic).await;
    assert!(store.put_topic(&topic, fields(), Precondition::Absent, ChangeAction::Put, author()).await.is_err());
    assert!(store.delete_topic(&topic, Precondition::Revision(1), author()).await.is_err());
    assert_eq!(changes_of(store, &topic).await, before);
    assert_eq!(before.len(), 1);
}

async fn a_note_moves_no_entry(store: &dyn TopicStore) {
    let topic = name("noted");
    put(store, &topic).await;
    let paused = store.put_pause(&topic, pause(), author()).await.expect("paused");
    let before = view_at(store, paused.revision).await;
    let offsets = [Some(json!({"0": 17, "1": i64::MAX})), Some(json!({"0": 0, "1": 5}))];
    let [from, to] = offsets.clone();
    let noted = store.note(&topic, ChangeAction::Rewind, from, to, author()).await.expect("noted");
    assert!(noted > paused.revision);
    let logged = changes_of(store, &topic).await;
    assert_eq!(logged.len(), 3, "{logged:?}");
    let rewind = &logged[0];
    assert_eq!((rewind.revision, rewind.action), (Some(noted), ChangeAction::Rewind));
    assert_eq!([&rewind.before, &rewind.after], [&offsets[0], &offsets[1]]);
    let later = put(store, &name("after-noted")).await;
    let after = view_at(store, later.revision).await;
    assert_eq!(after.topics.get(&topic), before.topics.get(&topic));
    assert_eq!(after.pauses.get(&topic), before.pauses.get(&topic));
    assert!(after.topics.contains_key(&topic) && after.pauses.contains_key(&topic));
}

/// All changes that match, in pages of this many.
async fn paged(store: &dyn TopicStore, topic: Option<&TopicName>, limit: usize) -> Vec<Change> {
    let mut read: Vec<Change> = Vec::new();
    loop {
        let before = read.last().map(|change| change.id.clone());
        let page = changes(store, ChangesQuery { topic: topic.cloned(), before, limit }).await;
        assert!(page.len() <= limit);
        if page.is_empty() {
            return read;
        }
        assert!(read.len() + page.len() <= KEPT_CHANGES, "pages come again");
        read.extend(page);
    }
}

async fn pages_of_changes_are_complete_and_in_order(store: &dyn TopicStore) {
    let topics = [name("paged-a"), name("paged-b")];
    let mut revisions: Vec<(TopicName, i64)> = Vec::new();
    for number in 0..20 {
        let topic = &topics[number % 2];
        revisions.push((topic.clone(), put(store, topic).await.revision));
    }
    revisions.reverse();
    for limit in [1, 3, 5, 20] {
        for topic in &topics {
            let listed: Vec<(TopicName, i64)> =
                paged(store, Some(topic), limit).await.iter().map(|change| (change.topic.clone(), revision_of(change))).collect();
            let expected: Vec<(TopicName, i64)> = revisions.iter().filter(|(written, _)| written == topic).cloned().collect();
            assert_eq!(listed, expected, "in pages of {limit}");
        }
    }
    let all = changes(store, ChangesQuery { limit: KEPT_CHANGES, ..ChangesQuery::default() }).await;
    assert_eq!(all.iter().take(20).map(|change| (change.topic.clone(), revision_of(change))).collect::<Vec<_>>(), revisions);
    assert_eq!(paged(store, None, 7).await, all);
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id), "ids do not go down");
    let distinct: BTreeSet<i64> = all.iter().map(revision_of).collect();
    assert_eq!(distinct.len(), all.len(), "two changes of one revision");
    assert_eq!(changes(store, ChangesQuery::default()).await, [], "a limit of nothing");
}

async fn a_confirmation_that_nothing_waits_for_does_nothing(store: &dyn TopicStore) {
    let topic = name("confirmed");
    let written = put(store, &topic).await;
    let before = view_at(store, written.revision).await;
    let logged = changes_of(store, &topic).await;
    store.confirm().await.expect("confirmed");
    assert_eq!(changes_of(store, &topic).await, logged);
    let later = put(store, &name("after-confirmed")).await;
    let after = view_at(store, later.revision).await;
    assert_eq!(after.topics.get(&topic), before.topics.get(&topic));
    assert_eq!(after.topics.len(), before.topics.len() + 1);
}
