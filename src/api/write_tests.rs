//! The write side through its router: a real embedded store whose views become snapshots as in the program, and stores that fail in every way that the contract allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use futures::future::{BoxFuture, join_all};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::tests::{Answer, StubLetters, assert_declared, assert_problem, letter, name, noon, send, snapshot, source, state as read_state, task};
use super::{ActionError, Actions, ApiState, KafkaTopic, Outlook, Preview, ProblemCode, RestartedPartition, RewindTo, RewoundPartition, document};
use crate::dead_letters::DeadLetter;
use crate::dead_letters::redrive::Order;
use crate::desired::merge::{self, Entry, Inputs, Says};
use crate::desired::store::local::LocalStore;
use crate::desired::store::{Author, ChangesQuery, Precondition, PutOutcome, StoreError, StoreView, Stored, TopicStore};
use crate::desired::{Desired, DesiredTopic};
use crate::status::derive::{self, TopicInput};
use crate::status::{Change, ChangeAction, LastMinute, Pause, Snapshot, SourceStatus, Task, TaskState, Topic};
use crate::topic::{Facts, SourceKind, SourceRef, SpecFields, TopicName, TopicPartition, TopicSpec};

/// How a store behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mood {
    /// Nothing can be read or written.
    Unavailable,
    /// Writes get no answer.
    OutcomeUnknown,
    /// It was restored.
    Stale,
    /// It never answers.
    Silent,
    /// It never answers a write.
    SilentAfterReading,
    /// It takes writes, and no view ever shows them.
    Deaf,
    /// Someone else always writes first.
    Contended,
    /// It has a defect.
    Panicking,
}

/// A store that holds the entry of the topic `stored` at revision 5, the change that made it and the pause of `filed`, and otherwise follows its mood.
#[derive(Debug)]
pub(super) struct MoodyStore {
    mood: Mood,
    views: watch::Sender<Arc<StoreView>>,
    /// Keeps the snapshots that it never reaches.
    snapshots: Option<watch::Sender<Arc<Snapshot>>>,
}

impl MoodyStore {
    pub(super) fn new(mood: Mood) -> Self {
        let topics = BTreeMap::from([(name("stored"), stored_entry())]);
        let pause = Pause { reason: None, actor: "me".to_owned(), since_at: noon(), until_at: None };
        let pauses = BTreeMap::from([(name("filed"), Stored { key: "pauses/filed".to_owned(), revision: 4, value: pause })]);
        let view = StoreView { is_ready: true, revision: 5, topics, pauses, source: source(SourceKind::Store, SourceStatus::Ok) };
        Self { mood, views: watch::Sender::new(Arc::new(view)), snapshots: None }
    }

    async fn read<T>(&self, answer: T) -> Result<T, StoreError> {
        match self.mood {
            Mood::Unavailable => Err(unavailable()),
            Mood::Silent => std::future::pending().await,
            Mood::Panicking => panic!("planted-secret in a panic"),
            _ => Ok(answer),
        }
    }

    async fn write<T>(&self, answer: T) -> Result<T, StoreError> {
        match self.mood {
            Mood::Unavailable => Err(unavailable()),
            Mood::OutcomeUnknown => Err(StoreError::OutcomeUnknown { what: "planted-secret".to_owned(), source: "planted-secret".into() }),
            Mood::Stale => Err(StoreError::Stale),
            Mood::Silent | Mood::SilentAfterReading => std::future::pending().await,
            Mood::Deaf => Ok(answer),
            Mood::Contended => Err(StoreError::Conflict { current: Some(6) }),
            Mood::Panicking => panic!("planted-secret in a panic"),
        }
    }
}

fn stored_entry() -> Stored<SpecFields> {
    Stored { key: "topics/stored".to_owned(), revision: 5, value: SpecFields::default() }
}

/// The change that made the entry.
fn stored_change() -> Change {
    Change {
        id: "01JF8Z5Q4W9G2M7XKTB3N6VRHD".to_owned(),
        revision: Some(5),
        at: noon(),
        actor: "me".to_owned(),
        source: "api".to_owned(),
        request_id: None,
        topic: name("stored"),
        action: ChangeAction::Put,
        before: None,
        after: Some(json!({})),
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { what: "planted-secret".to_owned(), source: "planted-secret".into() }
}

impl TopicStore for MoodyStore {
    fn facts<'a>(&'a self, _: &'a TopicName) -> BoxFuture<'a, Result<Option<Facts>, StoreError>> {
        Box::pin(self.read(None))
    }

    fn create_facts<'a>(&'a self, _: &'a TopicName, facts: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        Box::pin(self.write(facts))
    }

    fn replace_facts<'a>(&'a self, _: &'a TopicName, _: Facts, new: Facts) -> BoxFuture<'a, Result<Facts, StoreError>> {
        Box::pin(self.write(new))
    }

    fn topic<'a>(&'a self, topic: &'a TopicName) -> BoxFuture<'a, Result<Option<Stored<SpecFields>>, StoreError>> {
        Box::pin(self.read((topic.as_str() == "stored").then(stored_entry)))
    }

    fn put_topic<'a>(
        &'a self,
        topic: &'a TopicName,
        _: SpecFields,
        _: Precondition,
        _: ChangeAction,
        _: Author,
    ) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(self.write(PutOutcome { revision: 7, created: topic.as_str() != "stored" }))
    }

    fn delete_topic<'a>(&'a self, _: &'a TopicName, _: Precondition, _: Author) -> BoxFuture<'a, Result<i64, StoreError>> {
        Box::pin(self.write(7))
    }

    fn put_pause<'a>(&'a self, _: &'a TopicName, _: Pause, _: Author) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(self.write(PutOutcome { revision: 7, created: true }))
    }

    fn delete_pause<'a>(&'a self, _: &'a TopicName, _: Author) -> BoxFuture<'a, Result<i64, StoreError>> {
        Box::pin(self.write(7))
    }

    fn note<'a>(
        &'a self,
        _: &'a TopicName,
        _: ChangeAction,
        _: Option<Value>,
        _: Option<Value>,
        _: Author,
    ) -> BoxFuture<'a, Result<i64, StoreError>> {
        Box::pin(self.write(7))
    }

    fn changes(&self, _: ChangesQuery) -> BoxFuture<'_, Result<Vec<Change>, StoreError>> {
        Box::pin(self.read(vec![stored_change()]))
    }

    fn confirm(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            match self.mood {
                Mood::Stale => Ok(()),
                _ => self.write(()).await,
            }
        })
    }

    fn views(&self) -> watch::Receiver<Arc<StoreView>> {
        self.views.subscribe()
    }
}

/// What would happen, and what Kafka has.
#[derive(Debug)]
pub(super) struct StubOutlook {
    is_kafka_there: bool,
    /// What was asked for last.
    asked: watch::Sender<Option<Option<Arc<DesiredTopic>>>>,
}

impl Default for StubOutlook {
    fn default() -> Self {
        Self { is_kafka_there: true, asked: watch::Sender::new(None) }
    }
}

impl StubOutlook {
    pub(super) fn without_kafka() -> Self {
        Self { is_kafka_there: false, ..Self::default() }
    }
}

impl Outlook for StubOutlook {
    fn kafka_topics(&self) -> BoxFuture<'_, Result<Vec<KafkaTopic>, String>> {
        let topics = [("Orders", 3), ("app_log", 12), ("orders", 1)];
        let found = topics.map(|(name, partitions)| KafkaTopic { name: name.to_owned(), partitions }).to_vec();
        let answer = if self.is_kafka_there { Ok(found) } else { Err("all brokers\ndown".to_owned()) };
        Box::pin(async move { answer })
    }

    fn preview<'a>(&'a self, topic: &'a TopicName, after: Option<Arc<DesiredTopic>>) -> BoxFuture<'a, Preview> {
        self.asked.send_replace(Some(after.clone()));
        let key = vec![TopicPartition::new(topic.clone(), 0)];
        let is_wanted = after.is_some_and(|topic| topic.paused.is_none());
        let (start, stop) = if is_wanted { (key, Vec::new()) } else { (Vec::new(), key) };
        Box::pin(async move {
            let warnings = vec![("topic_missing", "Kafka has no such topic".to_owned())];
            Preview { partitions: Some(1), records_to_read: Some(42), start, stop, restart: Vec::new(), warnings }
        })
    }
}

/// What a rewind asked for.
type Rewind = (TopicName, Option<Vec<i32>>, RewindTo, bool);

/// Moves partition 0 from 50, and no other.
#[derive(Debug, Default)]
pub(super) struct Rewinder {
    is_kafka_down: bool,
    asked: watch::Sender<Vec<Rewind>>,
}

impl Actions for Rewinder {
    fn restart_task<'a>(&'a self, _: &'a TopicName, _: i32) -> BoxFuture<'a, Result<Task, ActionError>> {
        panic!("a dry run restarted a task")
    }

    fn restart_topic<'a>(&'a self, _: &'a TopicName) -> BoxFuture<'a, Result<Vec<RestartedPartition>, ActionError>> {
        panic!("a dry run restarted tasks")
    }

    fn rewind<'a>(
        &'a self,
        topic: &'a TopicName,
        partitions: Option<Vec<i32>>,
        to: RewindTo,
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Vec<RewoundPartition>, ActionError>> {
        self.asked.send_modify(|asked| asked.push((topic.clone(), partitions.clone(), to, dry_run)));
        let is_kafka_down = self.is_kafka_down;
        Box::pin(async move {
            if is_kafka_down {
                return Err(ActionError::KafkaUnavailable("all brokers down".to_owned()));
            }
            let row = |partition| match partition {
                0 => RewoundPartition { partition, from: Some(50), to: Some(20), records: Some(30), error: None },
                _ => RewoundPartition { partition, from: None, to: None, records: None, error: Some("not assigned".to_owned()) },
            };
            Ok(partitions.unwrap_or_else(|| vec![0, 1]).into_iter().map(row).collect())
        })
    }
}

/// What the file and the collector's keys name: `filed` with an index, `dialect`, and `keyed` in etcd.
fn inputs(view: Arc<StoreView>) -> Inputs {
    let place = |kind, detail: &str| SourceRef { kind, detail: Some(detail.to_owned()), key: None, revision: None };
    let index = serde_json::from_value(json!({"index": "from-file"})).expect("fields");
    let entries = vec![
        Entry { name: name("filed"), source: place(SourceKind::File, "topics[0]"), says: Says::Native(index) },
        Entry { name: name("dialect"), source: place(SourceKind::File, "collectlogs[0]"), says: Says::Dialect },
        Entry { name: name("keyed"), source: place(SourceKind::Etcd, "collectlogkey1"), says: Says::Dialect },
    ];
    Inputs::new(SpecFields::default(), entries, view)
}

fn desired(view: Arc<StoreView>) -> Arc<Desired> {
    let inputs = inputs(view);
    let topics = merge::merge(&inputs, None, Timestamp::now());
    Arc::new(Desired { revision: 1, topics, sources: Vec::new(), inputs })
}

fn seen(desired: &Desired) -> Arc<Snapshot> {
    let row = |(name, topic): (&TopicName, &Arc<DesiredTopic>)| -> Topic {
        let input = TopicInput {
            name: name.clone(),
            spec: TopicSpec::clone(&topic.spec),
            overrides: topic.overrides.clone(),
            spec_origin: topic.origin.clone(),
            sources: topic.sources.clone(),
            paused: topic.paused.clone(),
            partitions: None,
            missing: None,
            last_minute: LastMinute::default(),
        };
        derive::topic(input, &[])
    };
    let topics = desired.topics.iter().map(row).collect();
    let sources = vec![source(SourceKind::File, SourceStatus::Ok), source(SourceKind::Store, SourceStatus::Ok)];
    Arc::new(Snapshot { topics, tasks: Vec::new(), sources, store_revision: desired.store_revision(), ..snapshot() })
}

/// The API over a real store, whose views become lists and snapshots.
pub(super) struct Bench {
    pub(super) state: ApiState,
    pub(super) store: LocalStore,
    outlook: Arc<StubOutlook>,
    /// Ends with the bench.
    _follower: JoinSet<()>,
    _directory: TempDir,
}

impl Bench {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, mut views) = LocalStore::open(&directory.path().join("store.redb")).expect("a store");
        let first = desired(views.borrow_and_update().clone());
        let (snapshots, snapshot) = watch::channel(seen(&first));
        let (lists, list) = watch::channel(Some(first));
        let mut follower = JoinSet::new();
        follower.spawn(async move {
            while views.changed().await.is_ok() {
                let newest = desired(views.borrow_and_update().clone());
                snapshots.send_replace(seen(&newest));
                lists.send_replace(Some(newest));
            }
        });
        let outlook = Arc::new(StubOutlook::default());
        let mut state = ApiState { snapshot, desired: list, store: Arc::new(store.clone()), outlook: outlook.clone(), ..read_state() };
        state.http.max_body = 64 << 10;
        Self { state, store, outlook, _follower: follower, _directory: directory }
    }

    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        ask(&self.state, method, path, headers, body.as_bytes()).await
    }

    async fn put(&self, topic: &str, body: &str) -> Answer {
        self.ask("PUT", &format!("/api/v1/topics/{topic}"), &[], body).await
    }

    async fn get(&self, topic: &str) -> Answer {
        self.ask("GET", &format!("/api/v1/topics/{topic}"), &[], "").await
    }

    /// Everything that a write would change.
    pub(super) async fn content(&self) -> (Arc<StoreView>, Vec<Change>) {
        let view = self.store.views().borrow().clone();
        (view, self.store.changes(ChangesQuery { limit: 1000, ..ChangesQuery::default() }).await.expect("readable"))
    }
}

/// Sends a request to the API; a body is JSON unless its headers say otherwise.
pub(super) async fn ask(state: &ApiState, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path).header("host", "localhost:8080");
    if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(state, request.body(Body::from(body.to_vec())).expect("a request")).await
}

/// The API over a store in a mood.
pub(super) fn moody(mood: Mood) -> ApiState {
    let mut store = MoodyStore::new(mood);
    let list = desired(store.views.borrow().clone());
    let (snapshots, snapshot) = watch::channel(seen(&list));
    store.snapshots = Some(snapshots);
    let mut state = ApiState { snapshot, desired: watch::channel(Some(list)).1, store: Arc::new(store), ..read_state() };
    state.http.max_body = 64 << 10;
    state
}

const TOPIC: &str = "/api/v1/topics/{topic}";
const PAUSE: &str = "/api/v1/topics/{topic}/pause";

#[tokio::test]
async fn a_topic_is_created_changed_and_shown() {
    let bench = Bench::new();
    let created = bench.put("orders", r#"{"index": "orders-{date}", "labels": {"team": "x"}}"#).await;
    assert_declared("PUT", TOPIC, &created);
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text());
    assert_eq!(created.header("location"), "/api/v1/topics/orders");
    assert_eq!(created.header("drover-applied"), "");
    let json = created.json();
    assert_eq!(json["overrides"], json!({"index": "orders-{date}", "labels": {"team": "x"}}));
    assert_eq!((&json["spec"]["index"], &json["spec_origin"]["index"]), (&json!("orders-{date}"), &json!("store")));
    assert_eq!((&json["spec"]["format"], &json["spec_origin"]["format"]), (&json!("auto"), &json!("default")));
    let shown = bench.get("orders").await;
    assert_eq!((shown.json(), shown.header("etag")), (json, created.header("etag")));

    let changed = bench.put("orders", r#"{"format": "json"}"#).await;
    assert_declared("PUT", TOPIC, &changed);
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.header("location"), "");
    assert_ne!(changed.header("etag"), created.header("etag"));
    assert_eq!(changed.json()["overrides"], json!({"format": "json"}), "a PUT keeps fields that it does not give");
    assert_eq!(bench.put("empty", "{}").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_store_entry_over_a_file_topic_is_created_and_removed_again() {
    let bench = Bench::new();
    assert_eq!(bench.get("filed").await.header("etag"), "\"r0\"");
    let created = bench.ask("PUT", "/api/v1/topics/filed", &[("if-none-match", "*")], r#"{"format": "text"}"#).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text());
    assert_eq!(created.json()["spec"]["index"], "from-file");
    let again = bench.ask("PUT", "/api/v1/topics/filed", &[("if-none-match", "*")], "{}").await;
    assert_problem(&again, ProblemCode::PreconditionFailed);
    assert_declared("PUT", TOPIC, &again);
    assert_eq!(again.json()["errors"][0]["pointer"], "/header/if-none-match");
    assert!(again.json()["detail"].as_str().is_some_and(|detail| detail.contains(created.header("etag"))), "{}", again.text());

    let pause = bench.ask("PUT", "/api/v1/topics/filed/pause", &[], "").await;
    assert_eq!(pause.json()["paused"]["actor"], "anonymous");
    let removed = bench.ask("DELETE", "/api/v1/topics/filed", &[], "").await;
    assert_declared("DELETE", TOPIC, &removed);
    assert_eq!((removed.status, removed.header("etag")), (StatusCode::OK, "\"r0\""), "{}", removed.text());
    let json = removed.json();
    assert_eq!(
        (&json["overrides"], &json["spec"]["format"], &json["paused"]),
        (&json!({}), &json!("auto"), &Value::Null),
        "the pause goes with the entry"
    );
    assert_eq!(bench.get("filed").await.json(), json);
}

#[tokio::test]
async fn what_a_removal_leaves_decides_the_answer() {
    let bench = Bench::new();
    let nowhere = bench.ask("DELETE", "/api/v1/topics/nowhere", &[], "").await;
    assert_problem(&nowhere, ProblemCode::NotFound);
    assert_declared("DELETE", TOPIC, &nowhere);
    for (topic, place) in [("filed", "file topics[0]"), ("keyed", "etcd collectlogkey1")] {
        let elsewhere = bench.ask("DELETE", &format!("/api/v1/topics/{topic}"), &[("if-match", "\"r9\"")], "").await;
        assert_problem(&elsewhere, ProblemCode::TopicNotManaged);
        assert_declared("DELETE", TOPIC, &elsewhere);
        let detail = elsewhere.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(place) && detail.contains(&format!("/api/v1/topics/{topic}/pause")), "{detail}");
    }
    let created = bench.put("orders", "{}").await;
    let removed = bench.ask("DELETE", "/api/v1/topics/orders", &[("if-match", created.header("etag"))], "{}").await;
    assert_declared("DELETE", TOPIC, &removed);
    assert_eq!((removed.status, removed.body.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(removed.header("drover-applied"), "");
    assert_problem(&bench.get("orders").await, ProblemCode::NotFound);
    assert_problem(&bench.ask("DELETE", "/api/v1/topics/orders", &[], "").await, ProblemCode::NotFound);
    assert_eq!(bench.put("orders", "{}").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_stale_precondition_changes_nothing() {
    let bench = Bench::new();
    let first = bench.put("orders", "{}").await.header("etag").to_owned();
    let current = bench.put("orders", r#"{"format": "json"}"#).await.header("etag").to_owned();
    let before = bench.content().await;
    let weak = format!("W/{current}");
    for (header, value) in [
        ("if-match", first.as_str()),
        ("if-match", "\"r0\""),
        ("if-match", weak.as_str()),
        ("if-none-match", "*"),
        ("if-none-match", current.as_str()),
    ] {
        for (method, body) in [("PUT", "{}"), ("PATCH", "{}"), ("DELETE", "")] {
            let refused = bench.ask(method, "/api/v1/topics/orders", &[(header, value)], body).await;
            assert_problem(&refused, ProblemCode::PreconditionFailed);
            assert_declared(method, TOPIC, &refused);
            assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.contains(&current)), "{}", refused.text());
        }
    }
    for (method, path, value) in [("PUT", "/api/v1/topics/new", "*"), ("PATCH", "/api/v1/topics/new", "\"r3\""), ("PUT", "/api/v1/topics/filed", "*")]
    {
        let refused = bench.ask(method, path, &[("if-match", value)], "{}").await;
        assert_problem(&refused, ProblemCode::PreconditionFailed);
        assert!(refused.text().contains(r#"\"r0\""#), "{}", refused.text());
    }
    for value in ["r5", "5", "\"r5", "\"r1\" \"r2\""] {
        let unreadable = bench.ask("PUT", "/api/v1/topics/orders", &[("if-match", value)], "{}").await;
        assert_problem(&unreadable, ProblemCode::InvalidRequest);
        assert_eq!(unreadable.json()["errors"][0]["pointer"], "/header/if-match");
    }
    assert_eq!(bench.content().await, before);
    for value in [current.as_str(), "*"] {
        let put = bench.ask("PUT", "/api/v1/topics/orders", &[("if-match", value)], "{}").await;
        assert_eq!(put.status, StatusCode::OK, "{}", put.text());
    }
    let list = format!("\"r1\", {}", bench.get("orders").await.header("etag"));
    assert_eq!(bench.ask("PATCH", "/api/v1/topics/orders", &[("if-match", &list)], "{}").await.status, StatusCode::OK);
    let absent = bench.ask("PATCH", "/api/v1/topics/new", &[("if-match", "\"r0\"")], "{}").await;
    assert_eq!(absent.status, StatusCode::CREATED, "\"r0\" is the tag of a topic without an entry");
}

#[tokio::test]
async fn a_patch_changes_only_what_it_names() {
    let bench = Bench::new();
    bench.put("orders", r#"{"index": "a", "format": "json", "labels": {"team": "x", "tier": "1"}}"#).await;
    let patched =
        bench.ask("PATCH", "/api/v1/topics/orders", &[], r#"{"index": null, "operation": "create", "labels": {"team": null, "zone": "b"}}"#).await;
    assert_declared("PATCH", TOPIC, &patched);
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.text());
    assert_eq!(patched.json()["overrides"], json!({"format": "json", "operation": "create", "labels": {"tier": "1", "zone": "b"}}));
    assert_eq!(patched.json()["spec"]["index"], "{topic}");

    let merge_patch = [("content-type", "application/merge-patch+json")];
    let created = bench.ask("PATCH", "/api/v1/topics/filed", &merge_patch, r#"{"format": "text"}"#).await;
    assert_declared("PATCH", TOPIC, &created);
    assert_eq!((created.status, created.header("location")), (StatusCode::CREATED, "/api/v1/topics/filed"));
    assert_eq!(created.json()["overrides"], json!({"format": "text"}), "a patch must not copy what other sources give");
    assert_eq!(bench.ask("PATCH", "/api/v1/topics/new", &merge_patch, "{}").await.status, StatusCode::CREATED);
    let put = bench.ask("PUT", "/api/v1/topics/filed", &merge_patch, "{}").await;
    assert_problem(&put, ProblemCode::UnsupportedMediaType);
    let changes = bench.content().await.1;
    let actions: Vec<ChangeAction> = changes.iter().rev().map(|change| change.action).collect();
    assert_eq!(actions, [ChangeAction::Put, ChangeAction::Patch, ChangeAction::Patch, ChangeAction::Patch]);
}

#[tokio::test]
async fn of_racing_writers_with_one_precondition_one_wins() {
    let bench = Bench::new();
    let etag = bench.put("orders", "{}").await.header("etag").to_owned();
    let bodies: Vec<String> = (0..8).map(|number| format!(r#"{{"labels": {{"writer": "{number}"}}}}"#)).collect();
    let headers = [("if-match", etag.as_str())];
    let answers = join_all(bodies.iter().map(|body| bench.ask("PUT", "/api/v1/topics/orders", &headers, body))).await;
    let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(bench.get("orders").await.json()["overrides"], won[0].json()["overrides"]);
    for lost in answers.iter().filter(|answer| answer.status != StatusCode::OK) {
        assert_problem(lost, ProblemCode::PreconditionFailed);
        assert!(lost.json()["detail"].as_str().is_some_and(|detail| detail.contains(won[0].header("etag"))), "{}", lost.text());
    }
    let creators = join_all((0..8).map(|_| bench.ask("PUT", "/api/v1/topics/new", &[("if-none-match", "*")], "{}"))).await;
    assert_eq!(creators.iter().filter(|answer| answer.status == StatusCode::CREATED).count(), 1);
}

#[tokio::test]
async fn patches_without_a_precondition_never_undo_each_other() {
    let bench = Bench::new();
    let bodies: Vec<String> = (0..8).map(|number| format!(r#"{{"labels": {{"l{number}": "x"}}}}"#)).collect();
    let answers = join_all(bodies.iter().map(|body| bench.ask("PATCH", "/api/v1/topics/orders", &[], body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count(), 1);
    assert!(answers.iter().all(|answer| answer.status.is_success()));
    let labels = bench.get("orders").await.json()["overrides"]["labels"].clone();
    assert_eq!(labels.as_object().map(serde_json::Map::len), Some(8), "{labels}");
}

#[tokio::test]
async fn a_pause_works_on_every_source_and_is_idempotent() {
    let bench = Bench::new();
    bench.put("orders", "{}").await;
    for topic in ["orders", "filed", "keyed", "dialect"] {
        let path = format!("/api/v1/topics/{topic}/pause");
        let paused = bench.ask("PUT", &path, &[], r#"{"reason": "maintenance", "until_at": "2999-01-01T00:00:00Z"}"#).await;
        assert_declared("PUT", PAUSE, &paused);
        assert_eq!((paused.status, paused.header("drover-applied")), (StatusCode::OK, ""), "{}", paused.text());
        let pause = paused.json()["paused"].clone();
        assert_eq!((&pause["reason"], &pause["until_at"]), (&json!("maintenance"), &json!("2999-01-01T00:00:00.000Z")));
        assert_eq!(paused.json()["status"]["state"], "paused");
        assert_eq!(paused.header("etag"), bench.get(topic).await.header("etag"), "a pause is not part of the entry");

        let again = bench.ask("PUT", &path, &[], "").await.json()["paused"].clone();
        assert_eq!(again, json!({"reason": null, "actor": "anonymous", "since_at": pause["since_at"], "until_at": null}));
        for _ in 0..2 {
            let resumed = bench.ask("DELETE", &path, &[], "").await;
            assert_declared("DELETE", PAUSE, &resumed);
            assert_eq!((resumed.status, resumed.header("drover-applied")), (StatusCode::NO_CONTENT, ""));
        }
        assert_eq!(bench.get(topic).await.json()["paused"], Value::Null);
    }
    for method in ["PUT", "DELETE"] {
        let nowhere = bench.ask(method, "/api/v1/topics/nowhere/pause", &[], "").await;
        assert_problem(&nowhere, ProblemCode::NotFound);
        assert_declared(method, PAUSE, &nowhere);
    }
    for body in [r#"{"until_at": "2001-01-01T00:00:00Z"}"#, r#"{"until_at": "soon"}"#, r#"{"until": null}"#, r#"{"reason": 1}"#] {
        let refused = bench.ask("PUT", "/api/v1/topics/filed/pause", &[], body).await;
        assert_problem(&refused, ProblemCode::ValidationFailed);
        assert_declared("PUT", PAUSE, &refused);
    }
}

#[tokio::test]
async fn a_pause_that_has_ended_lends_its_beginning_to_no_other() {
    let bench = Bench::new();
    let long_ago = Timestamp::now() - SignedDuration::from_secs(7200);
    let ended = Pause { reason: None, actor: "me".to_owned(), since_at: long_ago, until_at: Some(long_ago + SignedDuration::from_secs(60)) };
    let author = Author { actor: "me".to_owned(), source: "api", request_id: None };
    bench.store.put_pause(&name("filed"), ended, author).await.expect("written");
    let paused = bench.ask("PUT", "/api/v1/topics/filed/pause", &[], "").await.json();
    let since_at: Timestamp = paused["paused"]["since_at"].as_str().and_then(|text| text.parse().ok()).expect("a time");
    assert!(since_at > long_ago + SignedDuration::from_secs(3600), "{paused:#}");
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_what_would_happen() {
    let bench = Bench::new();
    bench.put("orders", r#"{"format": "json"}"#).await;
    bench.ask("PUT", "/api/v1/topics/keyed/pause", &[], "").await;
    let before = bench.content().await;
    for (method, path, body, valid, action) in [
        ("PUT", "topics/new", "{}", true, "create"),
        ("PUT", "topics/filed", "{}", true, "create"),
        ("PUT", "topics/orders", r#"{"format": "json"}"#, true, "none"),
        ("PUT", "topics/orders", "{}", true, "update"),
        ("PUT", "topics/a%2Fb", r#"{"format": "xml"}"#, false, "none"),
        ("PUT", "topics/new", r#"{"format": "xml", "indx": 1}"#, false, "none"),
        ("PATCH", "topics/orders", r#"{"format": null}"#, true, "update"),
        ("PATCH", "topics/orders", r#"{"pipeline": null}"#, true, "none"),
        ("PATCH", "topics/new", r#"{"labels": {"a": 1}}"#, false, "none"),
        ("DELETE", "topics/orders", "", true, "delete"),
        ("DELETE", "topics/filed", "", false, "none"),
        ("DELETE", "topics/nowhere", "", false, "none"),
        ("DELETE", "topics/..%2F", "", false, "none"),
        ("PUT", "topics/filed/pause", "", true, "create"),
        ("PUT", "topics/keyed/pause", r#"{"reason": "x"}"#, true, "update"),
        ("PUT", "topics/keyed/pause", "", true, "none"),
        ("PUT", "topics/filed/pause", r#"{"until_at": "2001-01-01T00:00:00Z"}"#, false, "none"),
        ("PUT", "topics/nowhere/pause", "", false, "none"),
        ("DELETE", "topics/keyed/pause", "", true, "delete"),
        ("DELETE", "topics/filed/pause", "", true, "none"),
        ("DELETE", "topics/nowhere/pause", "", false, "none"),
    ] {
        let answer = bench.ask(method, &format!("/api/v1/{path}?dry_run=true"), &[], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{method} {path} {body}: {}", answer.text());
        assert_declared(method, if path.ends_with("pause") { PAUSE } else { TOPIC }, &answer);
        let json = answer.json();
        assert_eq!((&json["valid"], &json["action"]), (&json!(valid), &json!(action)), "{method} {path} {body}: {json:#}");
        assert_eq!(json["errors"].as_array().map(Vec::is_empty), Some(valid), "{json:#}");
        assert_eq!(json["resolved"]["partitions"], if valid { json!(1) } else { Value::Null });
    }
    assert_eq!(bench.content().await, before);
    for (query, code) in [("dry_run=yes", ProblemCode::InvalidRequest), ("dryrun=true", ProblemCode::InvalidRequest)] {
        assert_problem(&bench.ask("PUT", &format!("/api/v1/topics/new?{query}"), &[], "{}").await, code);
    }
    assert_eq!(bench.ask("PUT", "/api/v1/topics/new?dry_run=false", &[], "{}").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_dry_run_shows_the_topic_and_warns() {
    let bench = Bench::new();
    bench.put("other", r#"{"index": "shared-{date}"}"#).await;
    let answer = bench.ask("PUT", "/api/v1/topics/filed?dry_run=true", &[], r#"{"index": "shared-{date}", "format": "text"}"#).await.json();
    let codes: Vec<&str> = answer["warnings"].as_array().expect("warnings").iter().filter_map(|warning| warning["code"].as_str()).collect();
    assert_eq!(codes, ["shadows_other_source", "index_collision", "topic_missing"], "{answer:#}");
    assert!(
        answer["warnings"][0]["detail"].as_str().is_some_and(|detail| detail.contains("index from file topics[0]") && !detail.contains("format"))
    );
    assert!(answer["warnings"][1]["detail"].as_str().is_some_and(|detail| detail.contains("other")));
    let today = Timestamp::now().strftime("shared-%Y.%m.%d").to_string();
    assert_eq!(answer["resolved"]["index_example"], json!(today));
    assert_eq!((&answer["resolved"]["spec"]["format"], &answer["resolved"]["records_to_read"]), (&json!("text"), &json!(42)));
    assert_eq!(answer["would"], json!({"start": ["filed/0"], "stop": [], "restart": []}));
    let asked = bench.outlook.asked.borrow().clone().flatten().expect("a topic");
    assert_eq!(asked.spec.index.as_str(), "shared-{date}");

    let paused = bench.ask("PUT", "/api/v1/topics/filed/pause?dry_run=true", &[], "").await.json();
    assert_eq!(paused["would"], json!({"start": [], "stop": ["filed/0"], "restart": []}));
    let removed = bench.ask("DELETE", "/api/v1/topics/other?dry_run=true", &[], "").await.json();
    assert_eq!((&removed["would"]["stop"], &removed["resolved"]["spec"]), (&json!(["other/0"]), &Value::Null));
    assert_eq!(bench.outlook.asked.borrow().clone(), Some(None));
}

#[tokio::test]
async fn a_dry_run_lists_preconditions_and_mistakes_together() {
    let bench = Bench::new();
    let answer = bench.ask("PUT", "/api/v1/topics/filed?dry_run=true", &[("if-match", "\"r9\"")], r#"{"format": "xml", "start": 1}"#).await;
    let found: Vec<String> =
        answer.json()["errors"].as_array().expect("errors").iter().map(|error| format!("{} {}", error["pointer"], error["code"])).collect();
    assert_eq!(found, [r#""/header/if-match" "precondition-failed""#, r#""/format" "invalid""#, r#""/start" "type""#]);
    let name = bench.ask("PUT", "/api/v1/topics/a%20b?dry_run=true", &[], r#"{"format": "xml"}"#).await.json();
    assert_eq!((&name["errors"][0]["pointer"], &name["errors"][1]["pointer"]), (&json!("/path/topic"), &json!("/format")));
    for (path, code) in [("filed", "topic-not-managed"), ("nowhere", "not-found")] {
        let answer = bench.ask("DELETE", &format!("/api/v1/topics/{path}?dry_run=true"), &[], "").await.json();
        assert_eq!(answer["errors"][0]["code"], code);
    }
    for body in ["", "[]", "{", "{\"a\":1,\"a\":2}"] {
        assert_problem(&bench.ask("PUT", "/api/v1/topics/filed?dry_run=true", &[], body).await, ProblemCode::InvalidRequest);
    }
}

#[tokio::test]
async fn restarts_can_be_tried() {
    let mut view = snapshot();
    view.tasks.push(task("orders", 2, TaskState::Paused, None));
    let state = ApiState { snapshot: watch::channel(Arc::new(view)).1, actions: Arc::new(Rewinder::default()), ..read_state() };
    let topic = ask(&state, "POST", "/api/v1/topics/orders/restart?dry_run=true", &[], b"").await;
    assert_declared("POST", "/api/v1/topics/{topic}/restart", &topic);
    assert_eq!(topic.json()["would"]["restart"], json!(["orders/0", "orders/1"]), "{}", topic.text());
    for (path, valid) in
        [("orders/0", true), ("orders/2", false), ("golang_log/1", false), ("orders/9", false), ("orders/x", false), ("a%20b/0", false)]
    {
        let task = ask(&state, "POST", &format!("/api/v1/tasks/{path}/restart?dry_run=true"), &[], b"{}").await;
        assert_declared("POST", "/api/v1/tasks/{topic}/{partition}/restart", &task);
        assert_eq!((task.status, &task.json()["valid"]), (StatusCode::OK, &json!(valid)), "{path}: {}", task.text());
    }
    let unknown = ask(&state, "POST", "/api/v1/topics/unknown/restart?dry_run=true", &[], b"").await;
    assert_eq!((unknown.status, &unknown.json()["errors"][0]["code"]), (StatusCode::OK, &json!("not-found")));
}

#[tokio::test]
async fn bodies_that_make_no_sense_are_refused_by_kind() {
    let bench = Bench::new();
    let before = bench.content().await;
    let too_large = format!("{}{{}}", " ".repeat(64 << 10));
    let mebibyte = format!(r#"{{"labels": {{"a": "{}"}}}}"#, "x".repeat(1 << 20));
    let cases: Vec<(&[u8], &str, ProblemCode)> = vec![
        (b"", "application/json", ProblemCode::InvalidRequest),
        (b" ", "application/json", ProblemCode::InvalidRequest),
        (b"null", "application/json", ProblemCode::InvalidRequest),
        (b"[]", "application/json", ProblemCode::InvalidRequest),
        (b"\"{}\"", "application/json", ProblemCode::InvalidRequest),
        (b"{", "application/json", ProblemCode::InvalidRequest),
        (b"{} {}", "application/json", ProblemCode::InvalidRequest),
        (b"{\"format\": \"json\", \"format\": \"text\"}", "application/json", ProblemCode::InvalidRequest),
        (b"{\"index\": \"\xff\"}", "application/json", ProblemCode::InvalidRequest),
        (b"{\"index\": \"\\ud800\"}", "application/json", ProblemCode::InvalidRequest),
        (b"\xef\xbb\xbf{}", "application/json", ProblemCode::InvalidRequest),
        (b"{}", "text/plain", ProblemCode::UnsupportedMediaType),
        (b"{}", "", ProblemCode::UnsupportedMediaType),
        (b"{}", "application/json-patch+json", ProblemCode::UnsupportedMediaType),
        (too_large.as_bytes(), "application/json", ProblemCode::PayloadTooLarge),
        (mebibyte.as_bytes(), "application/json", ProblemCode::PayloadTooLarge),
    ];
    for (body, content_type, code) in cases {
        for method in ["PUT", "PATCH"] {
            let answer = ask(&bench.state, method, "/api/v1/topics/new", &[("content-type", content_type)], body).await;
            assert_problem(&answer, code);
            assert_declared(method, TOPIC, &answer);
        }
    }
    for (body, pointers) in [
        (r#"{"indx": "a"}"#, vec!["/indx"]),
        (r#"{"index": 5, "format": "xml", "labels": {"a": null}}"#, vec!["/index", "/format", "/labels/a"]),
        (r#"{"index": "a b"}"#, vec!["/index"]),
        (r#"{"index": "{topik}"}"#, vec!["/index"]),
        (r#"{"index": ""}"#, vec!["/index"]),
        (r#"{"index": "..."}"#, vec!["/index"]),
        (r#"{"pipeline": "a\u0000b"}"#, vec!["/pipeline"]),
        (r#"{"start": "yesterday"}"#, vec!["/start"]),
        (r#"{"labels": []}"#, vec!["/labels"]),
        (r#"{"spec": {"index": "a"}}"#, vec!["/spec"]),
        (r#"{"brokers": "evil:9092", "kafka.properties": {}}"#, vec!["/brokers", "/kafka.properties"]),
    ] {
        let answer = bench.put("new", body).await;
        assert_problem(&answer, ProblemCode::ValidationFailed);
        assert_declared("PUT", TOPIC, &answer);
        let found: Vec<String> =
            answer.json()["errors"].as_array().expect("errors").iter().map(|error| error["pointer"].as_str().unwrap_or("").to_owned()).collect();
        assert_eq!(found, pointers, "{body}");
    }
    let nameless = bench.put("___", "{}").await;
    assert_problem(&nameless, ProblemCode::ValidationFailed);
    assert_eq!(nameless.json()["errors"][0]["pointer"], "/index", "the name gives no legal index");
    assert_eq!(bench.put("___", r#"{"index": "fine"}"#).await.status, StatusCode::CREATED);
    assert_eq!(bench.content().await.0.topics.len(), before.0.topics.len() + 1);
}

#[tokio::test]
async fn names_outside_kafkas_alphabet_never_reach_the_store() {
    let bench = Bench::new();
    let long = "a".repeat(250);
    for segment in [
        "%2e",
        "%2e%2e",
        "a%2Fb",
        "..%2F..%2Fetc",
        "%00",
        "a%0Ab",
        "%ff",
        "%E6%97%A5",
        "a%20b",
        "__consumer_offsets",
        "__transaction_state",
        long.as_str(),
    ] {
        for (method, tail) in [("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("PUT", "/pause"), ("DELETE", "/pause"), ("POST", "/rewind")] {
            let body = match (method, tail) {
                ("DELETE", _) => "",
                (_, "/rewind") => r#"{"to": "latest"}"#,
                _ => "{}",
            };
            let answer = bench.ask(method, &format!("/api/v1/topics/{segment}{tail}"), &[], body).await;
            assert_problem(&answer, ProblemCode::ValidationFailed);
            assert_eq!(answer.json()["errors"][0]["pointer"], if segment == "%ff" { "/path" } else { "/path/topic" });
        }
    }
    assert_eq!(bench.content().await.1, []);
    let longest = "a".repeat(249);
    assert_eq!(bench.put(&longest, "{}").await.status, StatusCode::CREATED);
    assert_eq!(bench.ask("DELETE", &format!("/api/v1/topics/{longest}"), &[], "").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_does_not_show_in_time_is_told_and_still_shown() {
    let state = moody(Mood::Deaf);
    for (topic, status, key, elsewhere) in [
        ("new", StatusCode::CREATED, "topics/new", 0),
        ("stored", StatusCode::OK, "topics/stored", 0),
        ("filed", StatusCode::CREATED, "topics/filed", 1),
    ] {
        let began = tokio::time::Instant::now();
        let put = ask(&state, "PUT", &format!("/api/v1/topics/{topic}"), &[], br#"{"format": "json"}"#).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_declared("PUT", TOPIC, &put);
        assert_eq!((put.status, put.header("drover-applied"), put.header("etag")), (status, "false", "\"r7\""), "{topic}: {}", put.text());
        let json = put.json();
        assert_eq!((&json["overrides"], &json["spec"]["format"]), (&json!({"format": "json"}), &json!("json")));
        assert_eq!(json["sources"][elsewhere], json!({"kind": "store", "detail": null, "key": key, "revision": 7}));
    }
    let both = ask(&state, "PATCH", "/api/v1/topics/stored", &[], b"{}").await;
    assert_eq!((both.status, both.header("drover-applied")), (StatusCode::OK, "false"));
    let gone = ask(&state, "DELETE", "/api/v1/topics/stored", &[], b"").await;
    assert_eq!((gone.status, gone.header("drover-applied")), (StatusCode::NO_CONTENT, "false"));
    let paused = ask(&state, "PUT", "/api/v1/topics/dialect/pause", &[], br#"{"reason": "x"}"#).await;
    assert_declared("PUT", PAUSE, &paused);
    assert_eq!(
        (paused.header("drover-applied"), &paused.json()["paused"]["reason"], &paused.json()["status"]["state"]),
        ("false", &json!("x"), &json!("paused"))
    );
    let resumed = ask(&state, "DELETE", "/api/v1/topics/filed/pause", &[], b"").await;
    assert_eq!((resumed.status, resumed.header("drover-applied")), (StatusCode::NO_CONTENT, "false"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_told_by_kind_and_its_cause_stays_inside() {
    for (mood, code) in [
        (Mood::Unavailable, ProblemCode::StoreUnavailable),
        (Mood::OutcomeUnknown, ProblemCode::OutcomeUnknown),
        (Mood::Stale, ProblemCode::StoreStale),
        (Mood::SilentAfterReading, ProblemCode::OutcomeUnknown),
    ] {
        let state = moody(mood);
        for (method, path, template, body) in [
            ("PUT", "/api/v1/topics/new", TOPIC, "{}"),
            ("PATCH", "/api/v1/topics/stored", TOPIC, "{}"),
            ("DELETE", "/api/v1/topics/stored", TOPIC, ""),
            ("PUT", "/api/v1/topics/filed/pause", PAUSE, ""),
            ("DELETE", "/api/v1/topics/filed/pause", PAUSE, ""),
        ] {
            let answer = ask(&state, method, path, &[], body.as_bytes()).await;
            assert_problem(&answer, code);
            assert_declared(method, template, &answer);
        }
    }
    let stale = ask(&moody(Mood::Stale), "PUT", "/api/v1/topics/new", &[], b"{}").await;
    assert!(stale.text().contains("/api/v1/sources/store/confirm"), "{}", stale.text());
}

#[tokio::test(start_paused = true)]
async fn a_writer_without_a_precondition_is_not_told_that_one_failed_where_others_always_write_first() {
    let state = moody(Mood::Contended);
    for (method, body) in [("PATCH", "{}"), ("DELETE", "")] {
        let began = tokio::time::Instant::now();
        let answer = ask(&state, method, "/api/v1/topics/stored", &[], body.as_bytes()).await;
        assert_problem(&answer, ProblemCode::StoreUnavailable);
        assert!(answer.text().contains("nothing was changed"), "{}", answer.text());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    // Whoever names a tag that is not there is told at once.
    let began = tokio::time::Instant::now();
    let stale = ask(&state, "PATCH", "/api/v1/topics/stored", &[("if-match", "\"r4\"")], b"{}").await;
    assert_problem(&stale, ProblemCode::PreconditionFailed);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_not_waited_for() {
    let state = moody(Mood::Silent);
    for (method, path, body, code) in [
        ("PUT", "/api/v1/topics/new", "{}", ProblemCode::OutcomeUnknown),
        ("PATCH", "/api/v1/topics/stored", "{}", ProblemCode::StoreUnavailable),
        ("DELETE", "/api/v1/topics/stored", "", ProblemCode::StoreUnavailable),
        ("PUT", "/api/v1/topics/filed/pause", "", ProblemCode::OutcomeUnknown),
        ("POST", "/api/v1/sources/store/confirm", "", ProblemCode::OutcomeUnknown),
        ("GET", "/api/v1/changes", "", ProblemCode::StoreUnavailable),
    ] {
        let began = tokio::time::Instant::now();
        assert_problem(&ask(&state, method, path, &[], body.as_bytes()).await, code);
        assert_eq!(began.elapsed(), Duration::from_secs(10), "{method} {path}");
    }
    let tried = ask(&state, "PUT", "/api/v1/topics/stored?dry_run=true", &[], b"{}").await;
    assert_eq!((tried.status, &tried.json()["action"]), (StatusCode::OK, &json!("none")), "{}", tried.text());
    assert_eq!(tried.json()["warnings"][0]["code"], "store_unavailable");
}

#[tokio::test]
async fn nothing_is_decided_before_the_sources_are_read() {
    let bench = Bench::new();
    let state = ApiState { desired: watch::channel(None).1, ..bench.state.clone() };
    for (method, path, body) in
        [("PUT", "/api/v1/topics/filed", "{}"), ("DELETE", "/api/v1/topics/filed", ""), ("PUT", "/api/v1/topics/filed/pause", "")]
    {
        let answer = ask(&state, method, path, &[], body.as_bytes()).await;
        assert_problem(&answer, ProblemCode::StoreUnavailable);
        assert_eq!(answer.header("retry-after"), "5");
    }
    assert_eq!(bench.content().await.1, []);
}

#[tokio::test]
async fn a_rewind_is_done_told_and_logged() {
    let bench = Bench::new();
    let rewinder = Arc::new(Rewinder::default());
    let tasks = vec![task("filed", 0, TaskState::Running, Some(1)), task("filed", 1, TaskState::Unassigned, None)];
    let view = Snapshot { tasks, ..Snapshot::clone(&bench.state.snapshot.borrow()) };
    let state = ApiState { actions: rewinder.clone(), snapshot: watch::channel(Arc::new(view)).1, ..bench.state.clone() };
    let path = "/api/v1/topics/filed/rewind";
    let tried = ask(&state, "POST", &format!("{path}?dry_run=true"), &[], br#"{"to": {"offset": 20}}"#).await;
    assert_declared("POST", "/api/v1/topics/{topic}/rewind", &tried);
    assert_eq!(tried.status, StatusCode::OK, "{}", tried.text());
    assert_eq!(bench.content().await.1, [], "a dry run is no change");

    let rewound = ask(&state, "POST", path, &[("x-request-id", "trace-1")], br#"{"to": {"offset": 20}, "partitions": [1, 0]}"#).await;
    assert_declared("POST", "/api/v1/topics/{topic}/rewind", &rewound);
    assert_eq!(rewound.status, StatusCode::ACCEPTED);
    assert_eq!(rewound.json()["items"][0], json!({"partition": 0, "from": 50, "to": 20, "records": 30, "error": null}));
    assert_eq!(rewound.json()["items"][1]["error"], "not assigned");
    let changes = bench.content().await.1;
    assert_eq!(changes.len(), 1);
    assert_eq!(
        (changes[0].action, changes[0].request_id.as_deref(), changes[0].actor.as_str()),
        (ChangeAction::Rewind, Some("trace-1"), "anonymous")
    );
    assert_eq!((&changes[0].before, &changes[0].after), (&Some(json!({"0": 50})), &Some(json!({"0": 20}))), "only what was moved");

    let one = ask(&state, "POST", "/api/v1/tasks/filed/0/rewind", &[], br#"{"to": "earliest"}"#).await;
    assert_declared("POST", "/api/v1/tasks/{topic}/{partition}/rewind", &one);
    assert_eq!((one.status, one.json()["items"].as_array().map(Vec::len)), (StatusCode::ACCEPTED, Some(1)));
    let asked = rewinder.asked.borrow().clone();
    let expected = [
        (name("filed"), None, RewindTo::Offset(20), true),
        (name("filed"), Some(vec![0, 1]), RewindTo::Offset(20), false),
        (name("filed"), Some(vec![0]), RewindTo::Earliest, false),
    ];
    assert_eq!(asked, expected);

    for (path, body, code) in [
        ("/api/v1/tasks/filed/1/rewind", r#"{"to": "earliest"}"#, ProblemCode::TaskNotRestartable),
        ("/api/v1/tasks/filed/7/rewind", r#"{"to": "earliest"}"#, ProblemCode::NotFound),
        ("/api/v1/tasks/filed/0/rewind", r#"{"to": "earliest", "partitions": [0]}"#, ProblemCode::ValidationFailed),
        ("/api/v1/tasks/filed/0/rewind", "", ProblemCode::InvalidRequest),
    ] {
        let answer = ask(&state, "POST", path, &[], body.as_bytes()).await;
        assert_problem(&answer, code);
        assert_declared("POST", "/api/v1/tasks/{topic}/{partition}/rewind", &answer);
    }
    for (path, body, code) in [
        ("/api/v1/topics/nowhere/rewind", r#"{"to": "latest"}"#, ProblemCode::NotFound),
        ("/api/v1/topics/filed/rewind", r#"{"to": "start"}"#, ProblemCode::ValidationFailed),
        ("/api/v1/topics/filed/rewind", "{}", ProblemCode::ValidationFailed),
        ("/api/v1/topics/filed/rewind", "", ProblemCode::InvalidRequest),
    ] {
        let answer = ask(&state, "POST", path, &[], body.as_bytes()).await;
        assert_problem(&answer, code);
        assert_declared("POST", "/api/v1/topics/{topic}/rewind", &answer);
    }
    assert_eq!(rewinder.asked.borrow().len(), 3, "a refused rewind reached Kafka");
}

#[tokio::test]
async fn a_rewind_without_kafka_is_503_and_one_without_its_log_is_done() {
    let mut state = ApiState { actions: Arc::new(Rewinder { is_kafka_down: true, ..Rewinder::default() }), ..moody(Mood::Unavailable) };
    let down = ask(&state, "POST", "/api/v1/topics/filed/rewind", &[], br#"{"to": "latest"}"#).await;
    assert_problem(&down, ProblemCode::KafkaUnavailable);
    assert_declared("POST", "/api/v1/topics/{topic}/rewind", &down);
    state.actions = Arc::new(Rewinder::default());
    let done = ask(&state, "POST", "/api/v1/topics/filed/rewind", &[], br#"{"to": "latest"}"#).await;
    assert_eq!(done.status, StatusCode::ACCEPTED, "{}", done.text());
}

#[tokio::test]
async fn changes_tell_who_did_what_when() {
    let bench = Bench::new();
    bench.ask("PUT", "/api/v1/topics/orders", &[("x-request-id", "trace-7")], r#"{"format": "json"}"#).await;
    bench.ask("PATCH", "/api/v1/topics/orders", &[], r#"{"format": "text"}"#).await;
    bench.ask("PUT", "/api/v1/topics/filed/pause", &[], "").await;
    bench.ask("DELETE", "/api/v1/topics/filed/pause", &[], "").await;
    bench.ask("DELETE", "/api/v1/topics/orders", &[], "").await;
    let all = bench.ask("GET", "/api/v1/changes", &[], "").await;
    assert_declared("GET", "/api/v1/changes", &all);
    assert_eq!(all.names("action"), ["delete", "resume", "pause", "patch", "put"]);
    let json = all.json();
    assert_eq!((&json["scope"], &json["next"]), (&json!("instance"), &Value::Null));
    let put = &json["items"][4];
    assert_eq!((&put["actor"], &put["source"], &put["request_id"]), (&json!("anonymous"), &json!("api"), &json!("trace-7")));
    assert_eq!((&put["before"], &put["after"]), (&Value::Null, &json!({"format": "json"})));
    assert_eq!((&json["items"][3]["before"], &json["items"][3]["after"]), (&json!({"format": "json"}), &json!({"format": "text"})));
    assert_eq!(bench.ask("GET", "/api/v1/changes?topic=filed", &[], "").await.names("action"), ["resume", "pause"]);

    let mut seen = Vec::new();
    let mut cursor = String::new();
    for _ in 0..5 {
        let page = bench.ask("GET", &format!("/api/v1/changes?topic=orders&limit=1{cursor}"), &[], "").await;
        seen.extend(page.names("action"));
        match page.json()["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["delete", "patch", "put"]);
    let elsewhere = bench.ask("GET", &format!("/api/v1/changes?limit=1{cursor}"), &[], "").await;
    assert_problem(&elsewhere, ProblemCode::InvalidRequest);

    let table = bench.ask("GET", "/api/v1/changes?limit=1", &[("accept", "text/plain")], "").await;
    assert_declared("GET", "/api/v1/changes", &table);
    let lines: Vec<&str> = table.text().lines().collect();
    assert!(lines[0].starts_with("AT                    TOPIC   ACTION  ACTOR      SOURCE  REVISION  ID"), "{lines:?}");
    assert!(lines[1].contains("  orders  delete  anonymous  api "), "{lines:?}");
    assert!(lines[2].starts_with("# there are more rows"), "{lines:?}");
}

const REVERT: &str = "/api/v1/changes/{id}/revert";

impl Bench {
    /// The id of the newest change.
    pub(super) async fn newest_change(&self) -> String {
        let changes = self.ask("GET", "/api/v1/changes?limit=1", &[], "").await.json();
        changes["items"][0]["id"].as_str().expect("an id").to_owned()
    }

    async fn revert(&self, id: &str, query: &str) -> Answer {
        let answer = self.ask("POST", &format!("/api/v1/changes/{id}/revert{query}"), &[], "").await;
        assert_declared("POST", REVERT, &answer);
        answer
    }
}

#[tokio::test]
async fn each_kind_of_change_is_reverted_and_the_revert_too() {
    let bench = Bench::new();
    bench.put("orders", r#"{"format": "json"}"#).await;
    let created = bench.newest_change().await;
    bench.ask("PATCH", "/api/v1/topics/orders", &[], r#"{"format": "text"}"#).await;
    let patched = bench.newest_change().await;

    let tried = bench.revert(&patched, "?dry_run=true").await.json();
    assert_eq!((&tried["valid"], &tried["action"], &tried["resolved"]["spec"]["format"]), (&json!(true), &json!("update"), &json!("json")));
    assert_eq!(bench.get("orders").await.json()["overrides"], json!({"format": "text"}), "a dry run changed something");
    let back = bench.revert(&patched, "").await;
    assert_eq!((back.status, &back.json()["overrides"]), (StatusCode::OK, &json!({"format": "json"})));
    let reverted = bench.newest_change().await;
    assert_eq!(bench.ask("GET", "/api/v1/changes?limit=1", &[], "").await.names("action"), ["revert"]);
    assert_eq!(bench.revert(&reverted, "").await.json()["overrides"], json!({"format": "text"}));

    // What the first change made is not there any more.
    assert_problem(&bench.revert(&created, "").await, ProblemCode::PreconditionFailed);
    let refused = bench.revert(&created, "?dry_run=true").await;
    assert_eq!((refused.status, &refused.json()["valid"]), (StatusCode::OK, &json!(false)));

    bench.ask("DELETE", "/api/v1/topics/orders", &[], "").await;
    let deleted = bench.newest_change().await;
    let again = bench.revert(&deleted, "").await;
    assert_eq!((again.status, &again.json()["overrides"]), (StatusCode::CREATED, &json!({"format": "text"})));
    assert_eq!(again.header("location"), "/api/v1/topics/orders");
    bench.put("other", "{}").await;
    let other = bench.newest_change().await;
    assert_eq!(bench.revert(&other, "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("other").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pause_is_reverted_to_the_one_before_it_and_to_none() {
    let bench = Bench::new();
    bench.ask("PUT", "/api/v1/topics/filed/pause", &[], r#"{"reason": "first"}"#).await;
    let first = bench.newest_change().await;
    bench.ask("PUT", "/api/v1/topics/filed/pause", &[], r#"{"reason": "second"}"#).await;
    let second = bench.newest_change().await;
    assert_problem(&bench.revert(&first, "").await, ProblemCode::PreconditionFailed);
    assert_eq!(bench.revert(&second, "").await.json()["paused"]["reason"], "first");
    assert_eq!(bench.revert(&first, "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("filed").await.json()["paused"], Value::Null);
    let resumed = bench.newest_change().await;
    assert_eq!(bench.revert(&resumed, "").await.json()["paused"]["reason"], "first");
}

#[tokio::test]
async fn what_cannot_be_reverted_says_why() {
    let bench = Bench::new();
    for id in ["x", "a/b", "%2e%2e", "01JF8Z5Q4W9G2M7XKTB3N6VRH%00"] {
        let answer = bench.ask("POST", &format!("/api/v1/changes/{}/revert", id.replace('/', "%2F")), &[], "").await;
        assert_problem(&answer, ProblemCode::ValidationFailed);
    }
    assert_problem(&bench.revert("01JF8Z5Q4W9G2M7XKTB3N6VRHC", "").await, ProblemCode::NotFound);
    let author = Author { actor: "me".to_owned(), source: "api", request_id: None };
    bench.store.note(&name("filed"), ChangeAction::Rewind, Some(json!({"0": 5})), Some(json!({"0": 1})), author).await.expect("noted");
    let rewound = bench.newest_change().await;
    assert_problem(&bench.revert(&rewound, "").await, ProblemCode::ValidationFailed);
    for (mood, code) in [(Mood::Unavailable, ProblemCode::StoreUnavailable), (Mood::Silent, ProblemCode::StoreUnavailable)] {
        let answer = ask(&moody(mood), "POST", "/api/v1/changes/01JF8Z5Q4W9G2M7XKTB3N6VRHC/revert", &[], b"").await;
        assert_problem(&answer, code);
    }
}

#[tokio::test]
async fn a_log_filter_is_set_shown_and_refused_when_it_is_none() {
    let bench = Bench::new();
    let set = bench.ask("PUT", "/api/v1/log-level", &[], r#"{"filter": "info,drover::sink=debug"}"#).await;
    assert_declared("PUT", "/api/v1/log-level", &set);
    assert_eq!((set.status, set.json()), (StatusCode::OK, json!({"filter": "info,drover::sink=debug"})));
    for (body, pointer) in [
        (r#"{"filter": "banana"}"#, "/filter"),
        (r#"{"filter": "refused=info"}"#, "/filter"),
        (r#"{"filter": 5}"#, "/filter"),
        (r#"{"filter": null}"#, "/filter"),
        ("{}", "/filter"),
        (r#"{"filter": "info", "more": 1}"#, "/more"),
    ] {
        let answer = bench.ask("PUT", "/api/v1/log-level", &[], body).await;
        assert_problem(&answer, ProblemCode::ValidationFailed);
        assert_declared("PUT", "/api/v1/log-level", &answer);
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{body}");
    }
    assert_problem(&bench.ask("PUT", "/api/v1/log-level", &[], "").await, ProblemCode::InvalidRequest);
    assert_eq!(bench.ask("GET", "/api/v1/log-level", &[], "").await.json(), json!({"filter": "info,drover::sink=debug"}));
}

#[tokio::test]
async fn a_stale_source_is_confirmed_and_a_healthy_one_does_not_mind() {
    let bench = Bench::new();
    for (kind, items) in [("store", 1), ("file", 1), ("etcd", 0), ("store", 1)] {
        let answer = bench.ask("POST", &format!("/api/v1/sources/{kind}/confirm"), &[], "").await;
        assert_declared("POST", "/api/v1/sources/{kind}/confirm", &answer);
        assert_eq!((answer.status, answer.json()["items"].as_array().map(Vec::len)), (StatusCode::ACCEPTED, Some(items)), "{}", answer.text());
    }
    let unknown = bench.ask("POST", "/api/v1/sources/zookeeper/confirm", &[], "").await;
    assert_problem(&unknown, ProblemCode::ValidationFailed);
    assert_declared("POST", "/api/v1/sources/{kind}/confirm", &unknown);
    assert_eq!(ask(&moody(Mood::Stale), "POST", "/api/v1/sources/etcd/confirm", &[], b"").await.status, StatusCode::ACCEPTED);
    let failed = ask(&moody(Mood::Unavailable), "POST", "/api/v1/sources/store/confirm", &[], b"").await;
    assert_problem(&failed, ProblemCode::StoreUnavailable);
    assert_declared("POST", "/api/v1/sources/{kind}/confirm", &failed);
}

#[tokio::test]
async fn kafkas_topics_are_listed_for_whoever_adds_one() {
    let state = moody(Mood::Deaf);
    let get = async |query: &str| ask(&state, "GET", &format!("/api/v1/kafka/topics{query}"), &[], b"").await;
    let all = get("").await;
    assert_declared("GET", "/api/v1/kafka/topics", &all);
    assert_eq!(all.names("name"), ["Orders", "app_log", "orders"]);
    assert_eq!(all.json()["items"][1], json!({"name": "app_log", "partitions": 12}));
    assert_eq!(get("?q=ORD").await.names("name"), ["Orders", "orders"]);
    let first = get("?q=ORD&limit=1").await;
    let next = first.json()["next"].as_str().expect("more").to_owned();
    assert_eq!(get(&format!("?q=ORD&limit=1&cursor={next}")).await.names("name"), ["orders"]);
    assert_eq!(get("?sort=-partitions").await.names("name"), ["app_log", "Orders", "orders"]);
    let table = ask(&state, "GET", "/api/v1/kafka/topics", &[("accept", "text/plain")], b"").await;
    assert!(table.text().starts_with("NAME     PARTITIONS\nOrders   3\n"), "{}", table.text());

    let down = ApiState { outlook: Arc::new(StubOutlook::without_kafka()), ..state.clone() };
    let answer = ask(&down, "GET", "/api/v1/kafka/topics", &[], b"").await;
    assert_problem(&answer, ProblemCode::KafkaUnavailable);
    assert_declared("GET", "/api/v1/kafka/topics", &answer);
}

/// The API over letters of `filed`, which a source names, and of `gone`, which none does; and the orders that it gives.
pub(super) fn letters_bench() -> (Bench, crate::dead_letters::redrive::RedriveOrders) {
    let mut bench = Bench::new();
    let without_payload = DeadLetter { payload_base64: None, truncated: true, ..letter("filed", 9, b"x") };
    let mut letters = vec![letter("filed", 1, b"x"), letter("filed", 2, b"x"), without_payload, letter("gone", 1, b"x")];
    letters.iter_mut().for_each(|letter| letter.last_at = Timestamp::UNIX_EPOCH);
    let (redrives, orders) = crate::dead_letters::redrive::queue();
    bench.state = ApiState { dead_letters: Arc::new(StubLetters(letters)), redrives, ..bench.state };
    (bench, orders)
}

const REDRIVE: &str = "/api/v1/dead-letters/redrive";
const REDRIVE_ONE: &str = "/api/v1/dead-letters/{id}/redrive";

#[tokio::test]
async fn a_redrive_is_accepted_and_its_order_holds_what_had_died_before() {
    let (bench, mut orders) = letters_bench();
    let before = Timestamp::now();
    let many = bench
        .ask("POST", &format!("{REDRIVE}?topic=filed&error_type=document_parsing_exception&partition=0&since=1970-01-01T00:00:00Z"), &[], "{}")
        .await;
    assert_eq!((many.status, many.json()), (StatusCode::ACCEPTED, json!({"accepted": 3})));
    assert_declared("POST", REDRIVE, &many);
    let all = bench.ask("POST", &format!("{REDRIVE}?until=2026-12-31T00:00:00Z"), &[], "").await;
    assert_eq!(all.json(), json!({"accepted": 4}));
    let none = bench.ask("POST", &format!("{REDRIVE}?partition=7"), &[], "").await;
    assert_eq!((none.status, none.json()), (StatusCode::ACCEPTED, json!({"accepted": 0})));
    let tried = bench.ask("POST", &format!("{REDRIVE}?topic=filed&dry_run=true"), &[], "").await;
    assert_eq!((tried.status, tried.json()), (StatusCode::OK, json!({"accepted": 3})), "it is counted and not ordered");
    assert_declared("POST", REDRIVE, &tried);
    let one = bench.ask("POST", "/api/v1/dead-letters/filed:0:2/redrive", &[], "").await;
    assert_eq!((one.status, one.json()), (StatusCode::ACCEPTED, json!({"accepted": 1})));
    assert_declared("POST", REDRIVE_ONE, &one);

    assert!(matches!(orders.next().await, Some(Order::One(id)) if id == "filed:0:2"));
    let Some(Order::Many(query)) = orders.next().await else { panic!("an order of many") };
    assert_eq!((query.topic, query.partition, query.error_type.as_deref()), (Some(name("filed")), Some(0), Some("document_parsing_exception")));
    assert!(query.since.is_some() && query.until.is_some_and(|until| until >= before && until <= Timestamp::now()), "{:?}", query.until);
    let Some(Order::Many(query)) = orders.next().await else { panic!("an order of many") };
    assert!(query.topic.is_none() && query.until.is_some_and(|until| until <= Timestamp::now()), "{:?}", query.until);
    drop(bench);
    assert!(orders.next().await.is_none(), "nothing is ordered where nothing matches");
}

#[tokio::test(start_paused = true)]
async fn every_problem_of_redrives_and_deletions_is_declared() {
    let (bench, orders) = letters_bench();
    let one = |id: &str| format!("/api/v1/dead-letters/{id}/redrive");
    for (path, template, code) in [
        (one("filed:0:77"), REDRIVE_ONE, ProblemCode::NotFound),
        (one("filed:0:9"), REDRIVE_ONE, ProblemCode::PayloadGone),
        (one("gone:0:1"), REDRIVE_ONE, ProblemCode::TopicNotManaged),
        (one("broken:0:0"), REDRIVE_ONE, ProblemCode::StoreUnavailable),
        (one("x"), REDRIVE_ONE, ProblemCode::ValidationFailed),
        (format!("{}?topic=filed", one("filed:0:1")), REDRIVE_ONE, ProblemCode::InvalidRequest),
        (format!("{REDRIVE}?topic=gone"), REDRIVE, ProblemCode::TopicNotManaged),
        (format!("{REDRIVE}?error_type=broken"), REDRIVE, ProblemCode::StoreUnavailable),
        (format!("{REDRIVE}?limit=5"), REDRIVE, ProblemCode::InvalidRequest),
        (format!("{REDRIVE}?partition=x"), REDRIVE, ProblemCode::InvalidRequest),
        (format!("{REDRIVE}?dry_run=perhaps"), REDRIVE, ProblemCode::InvalidRequest),
        (format!("{REDRIVE}?topic=gone&dry_run=true"), REDRIVE, ProblemCode::TopicNotManaged),
    ] {
        let answer = bench.ask("POST", &path, &[], "").await;
        assert_problem(&answer, code);
        assert_declared("POST", template, &answer);
    }
    let with_fields = bench.ask("POST", REDRIVE, &[], r#"{"topic":"filed"}"#).await;
    assert_problem(&with_fields, ProblemCode::InvalidRequest);
    assert_declared("POST", REDRIVE, &with_fields);
    let cross_site = bench.ask("POST", REDRIVE, &[("sec-fetch-site", "cross-site")], "").await;
    assert_problem(&cross_site, ProblemCode::Forbidden);
    assert_declared("POST", REDRIVE, &cross_site);

    // A flood is told to wait, and a stopping instance says so.
    while bench.ask("POST", REDRIVE, &[], "").await.status == StatusCode::ACCEPTED {}
    let busy = bench.ask("POST", REDRIVE, &[], "").await;
    assert_problem(&busy, ProblemCode::RateLimited);
    assert_declared("POST", REDRIVE, &busy);
    assert_eq!(busy.header("retry-after"), "1");
    drop(orders);
    for (path, template) in [(REDRIVE.to_owned(), REDRIVE), (one("filed:0:1"), REDRIVE_ONE)] {
        let stopping = bench.ask("POST", &path, &[], "").await;
        assert_problem(&stopping, ProblemCode::ShuttingDown);
        assert_declared("POST", template, &stopping);
    }

    let template = "/api/v1/dead-letters/{id}";
    let deleted = bench.ask("DELETE", "/api/v1/dead-letters/gone:0:1", &[], "").await;
    assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    assert_declared("DELETE", template, &deleted);
    for (id, code) in [
        ("filed:0:77", ProblemCode::NotFound),
        ("broken:0:0", ProblemCode::StoreUnavailable),
        ("silent:0:0", ProblemCode::OutcomeUnknown),
        ("x", ProblemCode::ValidationFailed),
    ] {
        let answer = bench.ask("DELETE", &format!("/api/v1/dead-letters/{id}"), &[], "").await;
        assert_problem(&answer, code);
        assert_declared("DELETE", template, &answer);
    }
}

#[tokio::test]
async fn a_redrive_before_the_first_list_does_not_call_a_topic_unmanaged() {
    let (bench, _orders) = letters_bench();
    let state = ApiState { desired: watch::channel(None).1, ..bench.state.clone() };
    for (path, template) in [(REDRIVE, REDRIVE), ("/api/v1/dead-letters/filed:0:1/redrive", REDRIVE_ONE)] {
        let answer = ask(&state, "POST", path, &[], b"").await;
        assert_problem(&answer, ProblemCode::StoreUnavailable);
        assert_declared("POST", template, &answer);
    }
}

#[tokio::test]
async fn every_documented_body_is_taken() {
    let bench = Bench::new();
    let tasks = vec![task("filed", 0, TaskState::Running, Some(1))];
    let view = Snapshot { tasks, ..Snapshot::clone(&bench.state.snapshot.borrow()) };
    let state = ApiState { actions: Arc::new(Rewinder::default()), snapshot: watch::channel(Arc::new(view)).1, ..bench.state.clone() };
    let document = serde_json::to_value(document()).expect("a document");
    let mut bodies = 0;
    for (template, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let Some(content) = operation["requestBody"]["content"].as_object() else { continue };
            for (media_type, described) in content {
                let example = &described["example"];
                assert!(example.is_object(), "{method} {template} has no example for {media_type}");
                let mut schema = described["schema"].clone();
                schema["components"] = document["components"].clone();
                let validator = jsonschema::draft202012::new(&schema).expect("a schema");
                let errors: Vec<String> = validator.iter_errors(example).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{method} {template}: {errors:?}");
                assert!(!validator.is_valid(&Value::Null), "{method} {template} describes null as a body");
                assert!(!validator.is_valid(&json!({"unknown": 1})), "{method} {template} does not say that unknown fields are refused");
                let path = template.replace("{topic}", "filed").replace("{partition}", "0");
                let body = example.to_string();
                let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
                let query = if parameters.iter().any(|parameter| parameter["name"] == "dry_run") { "?dry_run=true" } else { "" };
                let answer = ask(&state, &method.to_uppercase(), &format!("{path}{query}"), &[("content-type", media_type)], body.as_bytes()).await;
                assert_eq!(answer.status, StatusCode::OK, "{method} {template}: {}", answer.text());
                assert_ne!(answer.json()["valid"], false, "{method} {template}: {}", answer.text());
                bodies += 1;
            }
        }
    }
    assert!(bodies >= 6, "{bodies}");
}

#[test]
fn every_target_of_a_rewind_is_documented() {
    let document = serde_json::to_value(document()).expect("a document");
    let mut schema = document["components"]["schemas"]["TopicRewind"].clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    for to in [json!("earliest"), json!("latest"), json!({"offset": 0}), json!({"timestamp": "2026-01-31T00:00:00Z"})] {
        assert!(validator.is_valid(&json!({"to": to})), "{to}");
    }
    for to in [json!("start"), json!({}), json!({"offset": -1}), json!({"offset": 1, "timestamp": "2026-01-31T00:00:00Z"}), json!(5), Value::Null] {
        assert!(!validator.is_valid(&json!({"to": to})), "{to}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_writes_nothing() {
    let bench = Bench::new();
    for (method, path, body) in
        [("PUT", "/api/v1/topics/new", "{}"), ("PATCH", "/api/v1/topics/new", "{}"), ("PUT", "/api/v1/topics/filed/pause", "")]
    {
        let refused = bench.ask(method, path, &[("sec-fetch-site", "cross-site")], body).await;
        assert_problem(&refused, ProblemCode::Forbidden);
    }
    assert_eq!(bench.content().await.1, []);
}

/// Where a test's log lines go.
#[derive(Clone)]
struct Lines(std::sync::mpsc::Sender<Vec<u8>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_change_leaves_one_line_in_the_log() {
    let bench = Bench::new();
    let (lines, logged) = std::sync::mpsc::channel();
    let lines = Lines(lines);
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).with_writer(move || lines.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let id = [("x-request-id", "trace-9")];
    bench.ask("PUT", "/api/v1/topics/orders", &id, "{}").await;
    bench.ask("PATCH", "/api/v1/topics/orders", &id, "{}").await;
    bench.ask("PUT", "/api/v1/topics/orders/pause", &id, "").await;
    bench.ask("DELETE", "/api/v1/topics/orders/pause", &id, "").await;
    bench.ask("DELETE", "/api/v1/topics/orders", &id, "").await;
    bench.ask("DELETE", "/api/v1/topics/orders", &id, "").await;
    bench.ask("PUT", "/api/v1/topics/orders?dry_run=true", &id, "{}").await;
    let log: String = logged.try_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
    let changes: Vec<&str> = log.lines().filter(|line| line.contains("topic changed")).collect();
    assert_eq!(changes.len(), 5, "{log}");
    for (line, action) in changes.iter().zip(["put", "patch", "pause", "resume", "delete"]) {
        for part in [&format!("action=\"{action}\""), "topic=orders", "actor=anonymous", "request_id=\"trace-9\"", "revision="] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
