//! What every [`TopicStore`] has to pass; see [`super`] for the promises. Uses names of its own, so it can run on a store that holds other topics.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;

use super::{Precondition, StoreError, StoreView, TopicStore};
use crate::status::Pause;
use crate::topic::{Facts, Format, IndexTemplate, OnReject, SpecFields, Start, TopicName};

/// A view must show a write within this time, also through a watch.
const DEADLINE: Duration = Duration::from_secs(10);

/// Runs all checks, one after the other.
pub(crate) async fn contract(store: &dyn TopicStore) {
    creators_of_facts_get_the_same_facts(store).await;
    facts_are_replaced_only_by_who_knew_them(store).await;
    a_topic_is_stored_exactly_as_given(store).await;
    a_stale_writer_is_told_the_current_revision(store).await;
    of_writers_at_once_one_creates(store).await;
    a_removed_topic_loses_its_pause_and_keeps_its_facts(store).await;
    a_pause_needs_no_entry(store).await;
    views_never_go_back(store).await;
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

/// The first view that has this revision.
async fn view_at(store: &dyn TopicStore, revision: i64) -> StoreView {
    let mut views = store.views();
    let waited = tokio::time::timeout(DEADLINE, views.wait_for(|view| view.revision >= revision)).await;
    waited.expect("no view with the revision in time").expect("the store lives").clone()
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
        let outcome = store.put_topic(&topic, given.clone(), Precondition::Any).await.expect("written");
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
    assert_eq!(conflict(store.put_topic(&topic, fields(), Precondition::Revision(1)).await), None);
    let first = store.put_topic(&topic, fields(), Precondition::Absent).await.expect("written");
    assert!(first.created);
    assert_eq!(conflict(store.put_topic(&topic, fields(), Precondition::Absent).await), Some(first.revision));
    let second = store.put_topic(&topic, fields(), Precondition::Revision(first.revision)).await.expect("written");
    assert!(!second.created && second.revision > first.revision);
    assert_eq!(conflict(store.put_topic(&topic, fields(), Precondition::Revision(first.revision)).await), Some(second.revision));
    let stale_removal = store.delete_topic(&topic, Precondition::Revision(first.revision)).await;
    assert!(matches!(stale_removal, Err(StoreError::Conflict { current }) if current == Some(second.revision)), "{stale_removal:?}");
    let removal = store.delete_topic(&topic, Precondition::Revision(second.revision)).await.expect("removed");
    assert!(removal > second.revision);
    assert!(matches!(store.delete_topic(&topic, Precondition::Revision(second.revision)).await, Err(StoreError::NotFound)));
}

async fn of_writers_at_once_one_creates(store: &dyn TopicStore) {
    let topic = name("writers");
    let writes = (0..5).map(|_| store.put_topic(&topic, fields(), Precondition::Absent));
    let results = join_all(writes).await;
    let winners: Vec<i64> = results.iter().filter_map(|result| result.as_ref().ok()).map(|outcome| outcome.revision).collect();
    assert_eq!(winners.len(), 1);
    let told = results.iter().filter(|result| matches!(result, Err(StoreError::Conflict { current }) if *current == winners.first().copied()));
    assert_eq!(told.count(), 4);
}

async fn a_removed_topic_loses_its_pause_and_keeps_its_facts(store: &dyn TopicStore) {
    let topic = name("removed");
    store.create_facts(&topic, facts("X")).await.expect("facts");
    store.put_topic(&topic, fields(), Precondition::Any).await.expect("written");
    let paused = store.put_pause(&topic, pause()).await.expect("written");
    let view = view_at(store, paused.revision).await;
    assert!(view.topics.contains_key(&topic) && view.pauses.contains_key(&topic));
    let removal = store.delete_topic(&topic, Precondition::Any).await.expect("removed");
    let view = view_at(store, removal).await;
    assert!(!view.topics.contains_key(&topic) && !view.pauses.contains_key(&topic));
    assert_eq!(store.facts(&topic).await.expect("reads"), Some(facts("X")));
}

async fn a_pause_needs_no_entry(store: &dyn TopicStore) {
    let topic = name("paused");
    let first = store.put_pause(&topic, pause()).await.expect("written");
    let again = store.put_pause(&topic, Pause { until_at: None, ..pause() }).await.expect("written");
    assert!(first.created && !again.created && again.revision > first.revision);
    let view = view_at(store, again.revision).await;
    assert_eq!((view.topics.contains_key(&topic), &view.pauses[&topic].value), (false, &Pause { until_at: None, ..pause() }));
    let lifted = store.delete_pause(&topic).await.expect("lifted");
    assert!(!view_at(store, lifted).await.pauses.contains_key(&topic));
    assert!(matches!(store.delete_pause(&topic).await, Err(StoreError::NotFound)));
}

async fn views_never_go_back(store: &dyn TopicStore) {
    let topics: Vec<TopicName> = (0..20).map(|number| name(&format!("many-{number}"))).collect();
    let mut views = store.views();
    let start = views.borrow_and_update().revision;
    let writes = join_all(topics.iter().map(|topic| store.put_topic(topic, fields(), Precondition::Any)));
    let watching = async {
        let mut last = start;
        let mut seen = 0;
        while seen < topics.len() {
            views.changed().await.expect("the store lives");
            let view = views.borrow_and_update().clone();
            assert!(view.revision > last, "{} after {last}", view.revision);
            let count = topics.iter().filter(|topic| view.topics.contains_key(*topic)).count();
            assert!(count >= seen, "a topic was gone again");
            (last, seen) = (view.revision, count);
        }
    };
    let (results, watched) = futures::future::join(writes, tokio::time::timeout(DEADLINE, watching)).await;
    assert!(results.iter().all(Result::is_ok));
    watched.expect("all topics in a view in time");
}
