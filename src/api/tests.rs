//! The API through its router, over hand-made snapshots: every path, every problem it can give, hostile requests; every answer is checked against the document's schemas.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use base64::Engine as _;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::write_tests::{Mood, MoodyStore, StubOutlook};
use super::{ActionError, Actions, ApiState, LogLevel, ProblemCode, RestartedPartition, RewindTo, RewoundPartition, StaticInfo, document, router};
use crate::config::{Dependency, HttpConfig};
use crate::dead_letters::{Cause, DeadLetter, DeadLetters, Error, LetterError, Query, Seen};
use crate::status::events::{Draft, EventData, EventKind, EventLog, Partitions, Severity};
use crate::status::series::Series;
use crate::status::versions;
use crate::status::{
    Component, Exit, ExitCause, Health, LastMinute, LostRange, Memory, Reason, ReasonCode, SinkTotals, Snapshot, Source, SourceError, SourceStatus,
    Task, TaskState, Topic, TopicStatus,
};
use crate::topic::{Origin, SourceKind, SourceRef, SpecFields, TopicName, TopicSpec};

pub(super) fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("a topic name")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(super) fn noon() -> Timestamp {
    at("2026-11-01T12:00:00Z")
}

fn reason(code: ReasonCode) -> Reason {
    Reason { code, message: "it\nbroke".to_owned(), remedy: "repair it".to_owned(), since_at: noon() }
}

pub(super) fn task(topic: &str, partition: i32, state: TaskState, lag: Option<i64>) -> Task {
    let health = match state {
        TaskState::Failed | TaskState::Stalled => Health::Down,
        TaskState::Backoff | TaskState::Waiting => Health::Degraded,
        _ => Health::Ok,
    };
    let exit = Exit { at: noon(), cause: ExitCause::Panicked, message: "boom".to_owned(), offset: Some(7) };
    Task {
        topic: name(topic),
        partition,
        instance: (state != TaskState::Unassigned).then(|| "host-1".to_owned()),
        state,
        health,
        reason: (health != Health::Ok).then(|| reason(ReasonCode::Crashed)),
        since_at: noon(),
        incarnation: 1,
        restarts_total: u64::try_from(partition).unwrap_or(0),
        consecutive_failures: 0,
        next_restart_at: None,
        last_exit: Some(exit.clone()),
        recent_exits: vec![exit],
        position: Some(10),
        committed: Some(9),
        committed_at: Some(noon()),
        high_watermark: lag.map(|lag| lag + 9),
        lag,
        lag_seconds: lag.map(|_| 0.5),
        indexed_total: 5,
        dead_lettered_total: 1,
        skipped_total: 0,
        retried_total: 2,
        lost_total: 3,
        lost: vec![LostRange { from: 0, to: 3, at: noon() }],
        records_per_second: 1.25,
        restarts_by_cause: BTreeMap::from([(ExitCause::Panicked, 1)]),
        oldest_unsettled_seconds: 0.25,
        version: 0,
    }
}

pub(super) fn topic(text: &str, state: TaskState, lag: Option<i64>, kind: SourceKind) -> Topic {
    Topic {
        name: name(text),
        spec: TopicSpec::default(),
        overrides: SpecFields::default(),
        spec_origin: BTreeMap::from([("index".to_owned(), Origin::Default)]),
        sources: vec![SourceRef { kind, detail: None, key: Some("k".to_owned()), revision: (kind == SourceKind::Store).then_some(12) }],
        paused: None,
        status: TopicStatus {
            state,
            health: if state == TaskState::Failed { Health::Down } else { Health::Ok },
            reason: (state == TaskState::Failed).then(|| reason(ReasonCode::Rejected)),
            partitions: 2,
            tasks: BTreeMap::from([("running".to_owned(), 1)]),
            restarts_total: 3,
            lag,
            lag_seconds: lag.map(|_| 0.5),
            indexed_total: 10,
            dead_lettered_total: 1,
            skipped_total: 0,
            lost_total: 3,
            records_per_second: 2.5,
        },
        last_minute: LastMinute::default(),
        version: 0,
    }
}

fn component(name: &str, state: TaskState) -> Component {
    let is_running = state == TaskState::Running;
    Component {
        name: name.to_owned(),
        state,
        health: if is_running { Health::Ok } else { Health::Degraded },
        reason: (!is_running).then(|| reason(ReasonCode::KafkaUnreachable)),
        since_at: noon(),
        restarts_total: 0,
        last_exit: None,
    }
}

pub(super) fn source(kind: SourceKind, status: SourceStatus) -> Source {
    let error = (status == SourceStatus::Error).then(|| SourceError { message: "malformed".to_owned(), line: Some(3), since_at: noon() });
    Source {
        kind,
        detail: Some("config.yaml".to_owned()),
        status,
        topics: 2,
        revision: None,
        content_hash: Some("abc".to_owned()),
        read_at: Some(noon()),
        changed_at: None,
        error,
    }
}

pub(super) fn snapshot() -> Snapshot {
    let mut snapshot = unstamped();
    versions::stamp(&Snapshot { topics: Vec::new(), tasks: Vec::new(), ..snapshot.clone() }, &mut snapshot);
    snapshot
}

fn unstamped() -> Snapshot {
    Snapshot {
        taken_at: noon(),
        topics: vec![
            topic("app_log", TaskState::Running, Some(5), SourceKind::File),
            topic("golang_log", TaskState::Running, None, SourceKind::Store),
            topic("orders", TaskState::Running, Some(50), SourceKind::File),
        ],
        tasks: vec![
            task("app_log", 0, TaskState::Running, Some(5)),
            task("golang_log", 0, TaskState::Running, None),
            task("golang_log", 1, TaskState::Unassigned, Some(1)),
            task("orders", 0, TaskState::Running, Some(20)),
            task("orders", 1, TaskState::Running, Some(30)),
        ],
        last_version: 0,
        sources: vec![source(SourceKind::File, SourceStatus::Ok), source(SourceKind::Store, SourceStatus::Ok)],
        components: vec![component("kafka", TaskState::Running), component("sink", TaskState::Running)],
        memory: Memory { limit_bytes: 4, prefetch_bytes: 1, in_flight_bytes: 2, peak_bytes: 3 },
        sink: SinkTotals {
            requests: BTreeMap::from([("ok".to_owned(), 4)]),
            duration_buckets: vec![(0.1, 3), (1.0, 4), (f64::INFINITY, 4)],
            duration_sum_seconds: 0.75,
            duration_count: 4,
        },
        dead_letters_bytes: 99,
        dead_letters_max_bytes: 100,
        invariant_violations: BTreeMap::new(),
        needs_restart: vec!["kafka".to_owned()],
        warnings: vec!["the group has another member".to_owned()],
        store_revision: 0,
        first_list: true,
        draining: false,
        assignments: BTreeMap::new(),
        recreations: BTreeMap::new(),
        marks: Arc::default(),
        events: events(),
        series: Series::default(),
    }
}

/// Three events, the newest last.
fn events() -> EventLog {
    let draft = |second: i8, severity, kind, topic: Option<&str>, partition, message: &str, data| Draft {
        at: noon() + SignedDuration::from_secs(i64::from(second)),
        severity,
        kind,
        topic: topic.map(name),
        partition,
        message: message.to_owned(),
        data,
    };
    let exited = EventData::Exited { cause: ExitCause::Panicked, offset: None, restarts_total: 1 };
    let assigned = EventData::Partitions(Partitions { partitions: vec![0, 1], count: 2 });
    let drafts = vec![
        draft(0, Severity::Info, EventKind::Assigned, Some("orders"), None, "2 partitions assigned", assigned),
        draft(1, Severity::Warning, EventKind::TaskExited, Some("orders"), Some(1), "boom\n\u{1b}[2J", exited),
        draft(2, Severity::Info, EventKind::TopicRemoved, Some("app_log"), None, "gone", EventData::Nothing {}),
    ];
    EventLog::new(noon()).with(drafts, "host-1")
}

/// Acts by the partition that it is asked for.
struct StubActions;

impl Actions for StubActions {
    fn restart_task<'a>(&'a self, topic: &'a TopicName, partition: i32) -> BoxFuture<'a, Result<Task, ActionError>> {
        Box::pin(async move {
            match partition {
                0 => Ok(task(topic.as_str(), partition, TaskState::Starting, Some(1))),
                1 => Err(ActionError::NotRestartable(TaskState::Paused)),
                2 => Err(ActionError::ShuttingDown),
                3 => std::future::pending().await,
                4 => panic!("planted-secret in a panic"),
                _ => Err(ActionError::NotFound),
            }
        })
    }

    fn restart_topic<'a>(&'a self, _: &'a TopicName) -> BoxFuture<'a, Result<Vec<RestartedPartition>, ActionError>> {
        let rows = vec![
            RestartedPartition { partition: 0, incarnation: Some(2), error: None },
            RestartedPartition { partition: 1, incarnation: None, error: Some("paused".to_owned()) },
        ];
        Box::pin(async move { Ok(rows) })
    }

    fn rewind<'a>(
        &'a self,
        _: &'a TopicName,
        _: Option<Vec<i32>>,
        _: RewindTo,
        _: bool,
    ) -> BoxFuture<'a, Result<Vec<RewoundPartition>, ActionError>> {
        Box::pin(async { Err(ActionError::ShuttingDown) })
    }
}

/// Letters in order; the id `broken:0:0` stands for a store that fails, `panics:0:0` for one with a defect.
pub(super) struct StubLetters(pub(super) Vec<DeadLetter>);

pub(super) fn letter(topic: &str, offset: i64, payload: &[u8]) -> DeadLetter {
    DeadLetter {
        id: format!("{topic}:0:{offset}"),
        topic: name(topic),
        topic_id: None,
        partition: 0,
        offset,
        timestamp: None,
        index: topic.to_owned(),
        key_base64: None,
        payload_base64: Some(base64::engine::general_purpose::STANDARD.encode(payload)),
        payload_bytes: u64::try_from(payload.len()).unwrap_or(0),
        truncated: false,
        error: LetterError { kind: "document_parsing_exception".to_owned(), reason: "no".to_owned(), status: Some(400) },
        cause: Cause::Rejected,
        attempts: 1,
        first_at: noon(),
        last_at: noon(),
        redriven_at: None,
    }
}

impl DeadLetters for StubLetters {
    fn put(&self, _: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Vec<DeadLetter>, Error>> {
        assert!(query.limit <= 16, "whole letters are held only a few at a time");
        assert_ne!(query.error_type.as_deref(), Some("panics"), "planted-secret in a panic");
        if query.error_type.as_deref() == Some("broken") {
            return Box::pin(async { Err(broken()) });
        }
        let place = |letter: &DeadLetter| (letter.topic.clone(), letter.partition, letter.offset, letter.id.clone());
        let is_wanted = |letter: &&DeadLetter| {
            query.topic.as_ref().is_none_or(|topic| letter.topic == *topic)
                && query.partition.is_none_or(|partition| letter.partition == partition)
                && query.error_type.as_ref().is_none_or(|kind| letter.error.kind == *kind)
                && query.since.is_none_or(|since| letter.last_at >= since)
                && query.until.is_none_or(|until| letter.last_at < until)
                && query.after.as_ref().is_none_or(|after| place(letter) > *after)
        };
        let found = self.0.iter().filter(is_wanted).take(query.limit).cloned().collect();
        Box::pin(async move { Ok(found) })
    }

    fn get(&self, id: &str) -> BoxFuture<'_, Result<Option<DeadLetter>, Error>> {
        assert_ne!(id, "panics:0:0", "planted-secret in a panic");
        if id == "broken:0:0" {
            return Box::pin(async { Err(broken()) });
        }
        let found = self.0.iter().find(|letter| letter.id == id).cloned();
        Box::pin(async move { Ok(found) })
    }

    fn put_known(&self, _: Vec<DeadLetter>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn count(&self, query: Query) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            let query = Query { limit: 16, after: None, ..query };
            Ok(self.list(query).await?.len() as u64)
        })
    }

    fn delete(&self, id: &str) -> BoxFuture<'_, Result<bool, Error>> {
        if id == "silent:0:0" {
            return Box::pin(std::future::pending());
        }
        let id = id.to_owned();
        Box::pin(async move { Ok(self.get(&id).await?.is_some()) })
    }

    fn remove_seen(&self, _: Vec<Seen>) -> BoxFuture<'_, Result<usize, Error>> {
        Box::pin(async { Ok(0) })
    }

    fn bytes(&self) -> u64 {
        99
    }
}

fn broken() -> Error {
    Error::Unavailable { what: "read".to_owned(), remedy: "look at the store", source: "planted-secret".into() }
}

/// A log filter that takes everything but `refused=info`.
#[derive(Debug)]
struct FixedLog(watch::Sender<String>);

impl LogLevel for FixedLog {
    fn filter(&self) -> String {
        self.0.borrow().clone()
    }

    fn set(&self, filter: &str) -> Result<(), String> {
        if filter == "refused=info" {
            return Err("refused".to_owned());
        }
        self.0.send_replace(filter.to_owned());
        Ok(())
    }
}

pub(super) fn state() -> ApiState {
    with_snapshot(snapshot())
}

fn with_snapshot(snapshot: Snapshot) -> ApiState {
    let letters: Vec<DeadLetter> = (0..40).map(|offset| letter("orders", offset, &[b'x'; 5000])).chain([letter("other", 1, b"small")]).collect();
    ApiState {
        snapshot: watch::channel(Arc::new(snapshot)).1,
        desired: watch::channel(None).1,
        store: Arc::new(MoodyStore::new(Mood::Deaf)),
        outlook: Arc::new(StubOutlook::default()),
        dead_letters: Arc::new(StubLetters(letters)),
        redrives: crate::dead_letters::redrive::queue().0,
        pages: Arc::default(),
        actions: Arc::new(StubActions),
        info: Arc::new(StaticInfo {
            name: "drover".to_owned(),
            version: "0.1.0".to_owned(),
            instance: "host-1".to_owned(),
            started_at: noon(),
            group_id: "drover".to_owned(),
            brokers: 1,
            data_dir: "./data".to_owned(),
            memory_bytes: 4,
        }),
        beats: vec![("reconcile".to_owned(), watch::channel(Instant::now()).1)],
        log_level: Arc::new(FixedLog(watch::Sender::new("info".to_owned()))),
        stream: Arc::default(),
        readiness_require: Vec::new(),
        tls: None,
        tokens: None,
        allowed_hosts: vec!["drover.example".to_owned()],
        http: HttpConfig { open_probes: true, open_metrics: true, max_connections: 4, max_body: 64, header_timeout: Duration::from_millis(300) },
        metrics_per_partition: true,
    }
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a readable header"))
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn names(&self, field: &str) -> Vec<String> {
        let json = self.json();
        let items = json["items"].as_array().expect("a list");
        items.iter().map(|item| item[field].as_str().map_or_else(|| item[field].to_string(), ToOwned::to_owned)).collect()
    }
}

pub(super) async fn send(state: &ApiState, request: Request<Body>) -> Answer {
    let response = router(state.clone()).oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn ask(state: &ApiState, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:8080");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(state, request.body(Body::empty()).expect("a request")).await
}

async fn get(path: &str) -> Answer {
    ask(&state(), "GET", path, &[]).await
}

/// The document as it is checked in.
pub(super) fn checked_in() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_str(include_str!("../../openapi/openapi.json")).expect("JSON"))
}

/// The codes of the problems that a response of the document stands for; they are in its description.
pub(super) fn declared_codes(response: &Value) -> Vec<String> {
    if !response["content"]["application/problem+json"].is_object() {
        return Vec::new();
    }
    let description = response["description"].as_str().expect("a description");
    description.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// Checks that the answer is one that the document declares for the operation, of the declared type, schema and, if it is a problem, code.
pub(super) fn assert_declared(method: &str, template: &str, answer: &Answer) {
    let document = checked_in();
    let status = answer.status.as_u16().to_string();
    let response = &document["paths"][template][method.to_lowercase()]["responses"][&status];
    assert!(response.is_object(), "{method} {template} does not declare {status}: {}", answer.text());
    let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
    if answer.body.is_empty() {
        let is_stream = ["text/event-stream", "application/x-ndjson"].contains(&media_type);
        assert!(response.get("content").is_none() || is_stream, "{method} {template} {status} has no body");
        return;
    }
    let schema = &response["content"][media_type]["schema"];
    assert!(schema.is_object(), "{method} {template} {status} does not declare {media_type}");
    if media_type == "text/plain" {
        return;
    }
    let json = answer.json();
    let errors = violations(schema, &json);
    assert!(errors.is_empty(), "{method} {template} {status}: {errors:?}\n{json:#}");
    if media_type == "application/problem+json" {
        let code = json["code"].as_str().expect("a code").to_owned();
        assert!(declared_codes(response).contains(&code), "{method} {template} {status} does not declare {code}");
    }
}

thread_local! {
    /// Schemas of the document that are ready: making one so takes longer than anything else here, so each test, which has a thread of its own, does it once for each.
    static VALIDATORS: RefCell<BTreeMap<String, Rc<jsonschema::Validator>>> = const { RefCell::new(BTreeMap::new()) };
}

/// What is wrong with a value under a schema of the document.
fn violations(schema: &Value, json: &Value) -> Vec<String> {
    let ready = || {
        let mut root = schema.clone();
        root["components"] = checked_in()["components"].clone();
        Rc::new(jsonschema::draft202012::new(&root).expect("a schema"))
    };
    let validator = VALIDATORS.with_borrow_mut(|known| Rc::clone(known.entry(schema.to_string()).or_insert_with(ready)));
    validator.iter_errors(json).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

pub(super) fn assert_problem(answer: &Answer, code: ProblemCode) {
    assert_eq!(answer.status, code.status(), "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let json = answer.json();
    assert_eq!(json["code"], code.as_str());
    assert_eq!(json["type"], format!("urn:drover:problem:{}", code.as_str()));
    assert_eq!(json["status"], code.status().as_u16());
    assert_eq!(json["request_id"], answer.header("x-request-id"));
    assert!(!answer.header("x-request-id").is_empty());
    assert!(!answer.text().contains("planted-secret"));
}

#[tokio::test]
async fn every_read_answers_as_declared() {
    for (template, path) in [
        ("/api/v1/topics", "/api/v1/topics"),
        ("/api/v1/topics/{topic}", "/api/v1/topics/orders"),
        ("/api/v1/tasks", "/api/v1/tasks"),
        ("/api/v1/tasks/{topic}/{partition}", "/api/v1/tasks/golang_log/1"),
        ("/api/v1/events", "/api/v1/events"),
        ("/api/v1/dead-letters", "/api/v1/dead-letters"),
        ("/api/v1/dead-letters/{id}", "/api/v1/dead-letters/other:0:1"),
        ("/api/v1/changes", "/api/v1/changes"),
        ("/api/v1/kafka/topics", "/api/v1/kafka/topics"),
        ("/api/v1/sources", "/api/v1/sources"),
        ("/api/v1/info", "/api/v1/info"),
        ("/api/v1/instances", "/api/v1/instances"),
        ("/api/v1/log-level", "/api/v1/log-level"),
        ("/api/v1/topics/{topic}/series", "/api/v1/topics/orders/series"),
        ("/livez", "/livez"),
        ("/readyz", "/readyz"),
        ("/healthz", "/healthz"),
        ("/metrics", "/metrics"),
    ] {
        let answer = get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        assert_declared("GET", template, &answer);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(!answer.header("x-request-id").is_empty(), "{path}");
        assert!(!answer.header("cache-control").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn every_list_says_whose_view_it_is() {
    for path in [
        "/api/v1/topics",
        "/api/v1/tasks",
        "/api/v1/events",
        "/api/v1/dead-letters",
        "/api/v1/changes",
        "/api/v1/kafka/topics",
        "/api/v1/sources",
        "/api/v1/instances",
    ] {
        let json = get(path).await.json();
        assert_eq!(json["scope"], "instance", "{path}");
        assert!(json.get("next").is_some_and(Value::is_null), "{path}");
    }
}

#[tokio::test]
async fn unset_fields_are_present_as_null() {
    let json = get("/api/v1/tasks/golang_log/1").await.json();
    for field in ["instance", "reason", "next_restart_at"] {
        assert_eq!(json.get(field), Some(&Value::Null), "{field}");
    }
    let json = get("/api/v1/topics/orders").await.json();
    assert_eq!(json.get("paused"), Some(&Value::Null));
    assert_eq!(json["status"].get("reason"), Some(&Value::Null));
}

#[tokio::test]
async fn topics_are_filtered_and_ordered() {
    assert_eq!(get("/api/v1/topics").await.names("name"), ["app_log", "golang_log", "orders"]);
    assert_eq!(get("/api/v1/topics?q=LOG").await.names("name"), ["app_log", "golang_log"]);
    assert_eq!(get("/api/v1/topics?source=store").await.names("name"), ["golang_log"]);
    assert_eq!(get("/api/v1/topics?state=failed").await.names("name"), Vec::<String>::new());
    assert_eq!(get("/api/v1/topics?sort=-lag,name").await.names("name"), ["orders", "app_log", "golang_log"]);
}

#[tokio::test]
async fn tasks_are_filtered_and_ordered() {
    assert_eq!(get("/api/v1/tasks?topic=orders&sort=-lag").await.names("partition"), ["1", "0"]);
    assert_eq!(get("/api/v1/tasks?state=unassigned").await.names("topic"), ["golang_log"]);
    assert_eq!(get("/api/v1/tasks?instance=host-1&min_lag=20").await.names("topic"), ["orders", "orders"]);
    assert_eq!(get("/api/v1/tasks?min_restarts=1").await.names("topic"), ["golang_log", "orders"]);
    assert_eq!(get("/api/v1/tasks?topic=unknown").await.names("topic"), Vec::<String>::new());
}

#[tokio::test]
async fn events_are_newest_first_and_filtered() {
    let whole = get("/api/v1/events").await;
    assert_eq!(whole.names("kind"), ["topic_removed", "task_exited", "assigned"]);
    let exit = &whole.json()["items"][1];
    assert_eq!((&exit["partition"], &exit["severity"], &exit["instance"]), (&Value::from(1), &Value::from("warning"), &Value::from("host-1")));
    assert_eq!(exit["data"], serde_json::json!({"cause": "panicked", "offset": null, "restarts_total": 1}));
    assert!(exit["id"].as_str().is_some_and(|id| id.ends_with("-2")), "{exit}");
    assert_eq!(exit["at"], "2026-11-01T12:00:01.000Z");
    assert_eq!(whole.json()["items"][0]["data"], serde_json::json!({}));
    assert!(exit.get("seq").is_none());

    assert_eq!(get("/api/v1/events?topic=orders").await.names("kind"), ["task_exited", "assigned"]);
    assert_eq!(get("/api/v1/events?kind=assigned").await.names("topic"), ["orders"]);
    assert_eq!(get("/api/v1/events?severity=info").await.names("kind"), ["topic_removed", "assigned"]);
    assert_eq!(get("/api/v1/events?since=2026-11-01T12:00:01Z").await.names("kind"), ["topic_removed", "task_exited"]);
    assert_eq!(get("/api/v1/events?topic=orders&severity=error").await.names("kind"), Vec::<String>::new());
}

#[tokio::test]
async fn paging_events_shows_each_once_while_new_ones_come() {
    let first = get("/api/v1/events?limit=2").await;
    let next = first.json()["next"].as_str().expect("more").to_owned();
    assert_eq!(first.names("kind"), ["topic_removed", "task_exited"]);
    let grown = Snapshot {
        events: events().with(
            vec![Draft {
                at: noon(),
                severity: Severity::Info,
                kind: EventKind::TopicAdded,
                topic: None,
                partition: None,
                message: String::new(),
                data: EventData::Nothing {},
            }],
            "host-1",
        ),
        ..snapshot()
    };
    let path = format!("/api/v1/events?limit=2&cursor={next}");
    let second = ask(&with_snapshot(grown), "GET", &path, &[]).await;
    assert_declared("GET", "/api/v1/events", &second);
    assert_eq!(second.names("kind"), ["assigned"]);
    assert_eq!(second.json()["next"], Value::Null);

    let restarted = Snapshot { events: EventLog::new(noon() + SignedDuration::from_secs(1)).with(Vec::new(), "host-1"), ..snapshot() };
    let after_restart = ask(&with_snapshot(restarted), "GET", &path, &[]).await;
    assert_eq!((after_restart.status, after_restart.names("kind")), (StatusCode::OK, Vec::new()));
    let elsewhere = get(&format!("/api/v1/events?kind=assigned&cursor={next}")).await;
    assert_problem(&elsewhere, ProblemCode::InvalidRequest);
}

#[tokio::test]
async fn an_event_cannot_forge_a_row_of_the_table() {
    let answer = ask(&state(), "GET", "/api/v1/events?limit=2", &[("accept", "text/plain")]).await;
    assert_declared("GET", "/api/v1/events", &answer);
    let lines: Vec<&str> = answer.text().lines().collect();
    assert_eq!(lines[0], "AT                    SEVERITY  KIND           TOPIC    PARTITION  MESSAGE");
    assert_eq!(lines[1], "2026-11-01T12:00:02Z  info      topic_removed  app_log  -          gone");
    assert_eq!(lines[2], r"2026-11-01T12:00:01Z  warning   task_exited    orders   1          boom\n\u{1b}[2J");
    assert!(lines[3].starts_with("# there are more rows"), "{lines:?}");
}

#[tokio::test]
async fn following_next_reaches_every_row_once() {
    for (path, field, expected) in [
        ("/api/v1/events?topic=orders", "kind", vec!["task_exited", "assigned"]),
        ("/api/v1/tasks?sort=-lag", "topic", vec!["orders", "orders", "app_log", "golang_log", "golang_log"]),
        ("/api/v1/topics?q=o", "name", vec!["app_log", "golang_log", "orders"]),
    ] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for _ in 0..10 {
            let answer = get(&format!("{path}{separator}limit=1{cursor}")).await;
            seen.extend(answer.names(field));
            match answer.json()["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{path}");
    }
}

#[tokio::test]
async fn dead_letters_are_cut_in_lists_and_whole_by_id() {
    let first = get("/api/v1/dead-letters?topic=orders&limit=30").await;
    assert_declared("GET", "/api/v1/dead-letters", &first);
    let json = first.json();
    let engine = &base64::engine::general_purpose::STANDARD;
    let payload = |item: &Value| engine.decode(item["payload_base64"].as_str().expect("a payload")).expect("base64").len();
    assert_eq!(json["items"].as_array().map(Vec::len), Some(30));
    assert_eq!(payload(&json["items"][0]), 4096);
    assert_eq!(json["items"][0]["truncated"], true);
    assert_eq!(json["items"][0]["payload_bytes"], 5000);

    let next = json["next"].as_str().expect("more");
    let second = get(&format!("/api/v1/dead-letters?topic=orders&limit=30&cursor={next}")).await;
    let offsets = second.names("offset");
    assert_eq!(offsets.first().map(String::as_str), Some("30"));
    assert_eq!(offsets.len(), 10);
    assert_eq!(second.json()["next"], Value::Null);

    let whole = get("/api/v1/dead-letters/orders:0:3").await.json();
    assert_eq!(payload(&whole), 5000);
    assert_eq!(whole["truncated"], false);
    assert_eq!(get("/api/v1/dead-letters?topic=other").await.json()["items"][0]["truncated"], false);
    assert_eq!(get("/api/v1/dead-letters?since=2026-11-01T12:00:01Z").await.names("id"), Vec::<String>::new());
    assert_eq!(get("/api/v1/dead-letters?until=2026-11-01T12:00:00Z").await.names("id"), Vec::<String>::new());
}

#[tokio::test]
async fn a_page_that_the_client_has_is_not_sent_again() {
    for path in ["/api/v1/topics", "/api/v1/tasks"] {
        let first = get(path).await;
        let etag = first.header("etag").to_owned();
        assert!(etag.starts_with("W/\""), "{etag}");
        for given in [etag.clone(), format!("\"x\", {etag}"), "*".to_owned(), etag.trim_start_matches("W/").to_owned()] {
            let again = ask(&state(), "GET", path, &[("if-none-match", &given)]).await;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{path} {given}");
            assert!(again.body.is_empty());
            assert_eq!(again.header("etag"), etag);
            assert_declared("GET", path, &again);
        }
        let mut changed = snapshot();
        changed.topics.truncate(1);
        changed.tasks.truncate(1);
        let other = ask(&with_snapshot(changed), "GET", path, &[("if-none-match", &etag)]).await;
        assert_eq!(other.status, StatusCode::OK);
        assert_ne!(other.header("etag"), etag);

        let before = snapshot();
        let later = |change: fn(&mut Snapshot)| {
            let mut next = Snapshot { taken_at: noon() + SignedDuration::from_secs(1), ..before.clone() };
            change(&mut next);
            versions::stamp(&before, &mut next);
            with_snapshot(next)
        };
        let unchanged = ask(&later(|_| {}), "GET", path, &[("if-none-match", &etag)]).await;
        assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED, "{path}: the next snapshot shows the same");
        let moved = later(|next| {
            next.topics[1].status.lag = Some(7);
            next.tasks[2].lag = Some(7);
        });
        for path in [path.to_owned(), format!("{path}?sort=-lag"), format!("{path}?limit=2&sort=lag")] {
            let etag = get(&path).await.header("etag").to_owned();
            let changed = ask(&moved, "GET", &path, &[("if-none-match", &etag)]).await;
            assert_eq!((changed.status, changed.json()["items"].to_string().contains("\"lag\":7")), (StatusCode::OK, true), "{path}");
        }
        let (json, text) = (get(path).await, ask(&state(), "GET", path, &[("accept", "text/plain"), ("if-none-match", &etag)]).await);
        assert_eq!((json.header("etag"), text.status), (etag.as_str(), StatusCode::OK), "a table is not the JSON that the client has");
    }
}

#[tokio::test]
async fn a_topics_tag_is_its_store_revision_and_is_never_304() {
    assert_eq!(get("/api/v1/topics/orders").await.header("etag"), "\"r0\"");
    let stored = ask(&state(), "GET", "/api/v1/topics/golang_log", &[("if-none-match", "\"r12\"")]).await;
    assert_eq!(stored.status, StatusCode::OK);
    assert_eq!(stored.header("etag"), "\"r12\"");
}

#[tokio::test]
async fn tables_are_aligned_and_harmless() {
    let accept = [("accept", "text/plain")];
    let topics = ask(&state(), "GET", "/api/v1/topics?limit=2", &accept).await;
    assert_declared("GET", "/api/v1/topics", &topics);
    let lines: Vec<&str> = topics.text().lines().collect();
    assert_eq!(lines[0], "NAME        STATE    HEALTH  TASKS  LAG  RATE  RESTARTS  INDEX    SOURCES");
    assert_eq!(lines[1], "app_log     running  ok      1/2    5    2.5   3         {topic}  file");
    assert_eq!(lines[2], "golang_log  running  ok      1/2    -    2.5   3         {topic}  store");
    assert!(lines[3].starts_with("# there are more rows"), "{lines:?}");

    let mut hostile = snapshot();
    hostile.tasks = vec![task("orders", 0, TaskState::Backoff, Some(1))];
    hostile.tasks[0].instance = Some("evil\n\u{1b}[2J".to_owned());
    let tasks = ask(&with_snapshot(hostile), "GET", "/api/v1/tasks", &accept).await;
    assert_declared("GET", "/api/v1/tasks", &tasks);
    let lines: Vec<&str> = tasks.text().lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("TOPIC   PARTITION  STATE    INSTANCE"), "{lines:?}");
    assert!(lines[1].contains(r"evil\n\u{1b}[2J"), "{lines:?}");
    assert!(lines[1].ends_with("2026-11-01T12:00:00Z  crashed"), "{lines:?}");
}

#[tokio::test]
async fn dead_letters_and_sources_are_tables_for_people_too() {
    let accept = [("accept", "text/plain")];
    let mut state = state();
    let mut hostile = letter("other", 1, b"small");
    hostile.error = LetterError { kind: "a\nb".to_owned(), reason: format!("\u{1b}[2J{}", "x".repeat(200)), status: None };
    state.dead_letters = Arc::new(StubLetters(vec![letter("orders", 0, b"x"), letter("orders", 1, b"x"), hostile]));
    let letters = ask(&state, "GET", "/api/v1/dead-letters", &accept).await;
    assert_declared("GET", "/api/v1/dead-letters", &letters);
    let lines: Vec<&str> = letters.text().lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(
        lines[0],
        "ID          CAUSE     ERROR                       STATUS  TOPIC   PARTITION  OFFSET  ATTEMPTS  LAST                  REASON"
    );
    assert_eq!(lines[1], "orders:0:0  rejected  document_parsing_exception  400     orders  0          0       1         2026-11-01T12:00:00Z  no");
    assert!(lines[3].starts_with(r"other:0:1   rejected  a\nb                        -       other "), "{lines:?}");
    assert!(lines[3].ends_with(&format!(r"  \u{{1b}}[2J{}…", "x".repeat(70))), "{lines:?}");
    let page = ask(&state, "GET", "/api/v1/dead-letters?limit=1", &accept).await;
    assert!(page.text().lines().nth(2).is_some_and(|line| line.starts_with("# there are more rows")), "{}", page.text());

    let mut broken = source(SourceKind::File, SourceStatus::Error);
    broken.error = Some(SourceError { message: "mal\nformed".to_owned(), line: Some(3), since_at: noon() });
    let never_read = Source { detail: None, read_at: None, ..source(SourceKind::Store, SourceStatus::Ok) };
    let sources = ask(&with_snapshot(Snapshot { sources: vec![broken, never_read], ..snapshot() }), "GET", "/api/v1/sources", &accept).await;
    assert_declared("GET", "/api/v1/sources", &sources);
    let lines: Vec<&str> = sources.text().lines().collect();
    assert_eq!(lines[0], "KIND   DETAIL       STATUS  TOPICS  READ                  ERROR");
    assert_eq!(lines[1], r"file   config.yaml  error   2       2026-11-01T12:00:00Z  line 3: mal\nformed");
    assert_eq!(lines[2], "store  -            ok      2       -                     -");
}

#[tokio::test]
async fn restarts_answer_as_declared() {
    let topic = ask(&state(), "POST", "/api/v1/topics/orders/restart", &[]).await;
    assert_eq!(topic.status, StatusCode::ACCEPTED);
    assert_declared("POST", "/api/v1/topics/{topic}/restart", &topic);
    let task = ask(&state(), "POST", "/api/v1/tasks/orders/0/restart", &[]).await;
    assert_eq!(task.status, StatusCode::ACCEPTED);
    assert_declared("POST", "/api/v1/tasks/{topic}/{partition}/restart", &task);
    assert_eq!(task.json()["state"], "starting");
}

#[tokio::test(start_paused = true)]
async fn every_problem_of_a_restart_is_declared() {
    for (partition, code) in [
        (1, ProblemCode::TaskNotRestartable),
        (2, ProblemCode::ShuttingDown),
        (3, ProblemCode::OutcomeUnknown),
        (4, ProblemCode::Internal),
        (5, ProblemCode::NotFound),
    ] {
        let answer = ask(&state(), "POST", &format!("/api/v1/tasks/orders/{partition}/restart"), &[]).await;
        assert_problem(&answer, code);
        assert_declared("POST", "/api/v1/tasks/{topic}/{partition}/restart", &answer);
    }
    let unavailable = ask(&state(), "POST", "/api/v1/tasks/orders/2/restart", &[]).await;
    assert_eq!(unavailable.header("retry-after"), "5");
    let unknown = ask(&state(), "POST", "/api/v1/topics/unknown/restart", &[]).await;
    assert_problem(&unknown, ProblemCode::NotFound);
    assert_declared("POST", "/api/v1/topics/{topic}/restart", &unknown);
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_refused_by_kind() {
    for (content_type, body, expected) in [
        ("application/json", "{}".to_owned(), Ok(())),
        ("application/json; charset=utf-8", "{}".to_owned(), Ok(())),
        ("application/json", r#"{"a": 1}"#.to_owned(), Err(ProblemCode::InvalidRequest)),
        ("application/json", "{} x".to_owned(), Err(ProblemCode::InvalidRequest)),
        ("application/json", "\u{feff}{}".to_owned(), Err(ProblemCode::InvalidRequest)),
        ("application/x-www-form-urlencoded", "a=1".to_owned(), Err(ProblemCode::UnsupportedMediaType)),
        ("application/json", " ".repeat(65), Err(ProblemCode::PayloadTooLarge)),
    ] {
        for is_announced in [true, false] {
            let mut request = Request::post("/api/v1/tasks/orders/0/restart").header("host", "localhost").header("content-type", content_type);
            if is_announced {
                request = request.header("content-length", body.len());
            }
            let answer = send(&state(), request.body(Body::from(body.clone())).expect("a request")).await;
            assert_declared("POST", "/api/v1/tasks/{topic}/{partition}/restart", &answer);
            match expected {
                Ok(()) => assert_eq!(answer.status, StatusCode::ACCEPTED),
                Err(code) => assert_problem(&answer, code),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_not_waited_for() {
    let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = Request::post("/api/v1/tasks/orders/0/restart").header("host", "localhost").body(body).expect("a request");
    assert_problem(&send(&state(), request).await, ProblemCode::InvalidRequest);
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    for (template, query, pointer) in [
        ("/api/v1/topics", "limit=0", "/query/limit"),
        ("/api/v1/topics", "limit=1001", "/query/limit"),
        ("/api/v1/topics", "limit=99999999999999999999999", "/query/limit"),
        ("/api/v1/topics", "limit=ten", "/query/limit"),
        ("/api/v1/topics", "limit=", "/query/limit"),
        ("/api/v1/topics", "limit=1&limit=2", "/query/limit"),
        ("/api/v1/topics", "state=RUNNING", "/query/state"),
        ("/api/v1/topics", "source=zookeeper", "/query/source"),
        ("/api/v1/topics", "sort=size", "/query/sort"),
        ("/api/v1/topics", "cursor=%00", "/query/cursor"),
        ("/api/v1/topics", "Limit=1", "/query/Limit"),
        ("/api/v1/topics", "a%0Ab=1", r"/query/a\nb"),
        ("/api/v1/tasks", "topic=%2e%2e%2f", "/query/topic"),
        ("/api/v1/tasks", "min_lag=-1", "/query/min_lag"),
        ("/api/v1/tasks", "min_restarts=1.5", "/query/min_restarts"),
        ("/api/v1/tasks", "q=x", "/query/q"),
        ("/api/v1/events", "kind=TaskExited", "/query/kind"),
        ("/api/v1/events", "severity=fatal", "/query/severity"),
        ("/api/v1/events", "since=yesterday", "/query/since"),
        ("/api/v1/events", "topic=..", "/query/topic"),
        ("/api/v1/events", "limit=1001", "/query/limit"),
        ("/api/v1/events", "sort=at", "/query/sort"),
        ("/api/v1/events", "cursor=e30", "/query/cursor"),
        ("/api/v1/dead-letters", "partition=-1", "/query/partition"),
        ("/api/v1/dead-letters", "since=yesterday", "/query/since"),
        ("/api/v1/dead-letters", "until=", "/query/until"),
        ("/api/v1/dead-letters", "cursor=e30", "/query/cursor"),
        ("/api/v1/changes", "topic=a%2Fb", "/query/topic"),
        ("/api/v1/changes", "limit=0", "/query/limit"),
        ("/api/v1/changes", "cursor=e30", "/query/cursor"),
        ("/api/v1/changes", "sort=at", "/query/sort"),
        ("/api/v1/kafka/topics", "sort=size", "/query/sort"),
        ("/api/v1/kafka/topics", "state=running", "/query/state"),
        ("/api/v1/info", "x=1", "/query/x"),
        ("/api/v1/sources", "limit=1", "/query/limit"),
    ] {
        let answer = get(&format!("{template}?{query}")).await;
        assert_problem(&answer, ProblemCode::InvalidRequest);
        assert_declared("GET", template, &answer);
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{query}");
    }
    let item = get("/api/v1/topics/orders?verbose").await;
    assert_problem(&item, ProblemCode::InvalidRequest);
}

#[tokio::test]
async fn a_forged_place_in_a_cursor_of_dead_letters_is_refused() {
    let next = get("/api/v1/dead-letters?limit=1").await.json()["next"].as_str().expect("more").to_owned();
    let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let plain = String::from_utf8(engine.decode(next).expect("base64")).expect("text");
    let keys = "[\"orders\",0,0,\"orders:0:0\"]";
    for forged in [
        plain.replace("\"orders\"", "\"../x\""),
        plain.replace(keys, "[0,0,0,0]"),
        plain.replace(keys, "[\"orders\",0,0]"),
        plain.replace(keys, "[\"a\",9999999999,0,\"a:0:0\"]"),
    ] {
        assert_ne!(forged, plain);
        let answer = get(&format!("/api/v1/dead-letters?limit=1&cursor={}", engine.encode(forged))).await;
        assert_problem(&answer, ProblemCode::InvalidRequest);
    }
}

#[tokio::test]
async fn names_outside_kafkas_alphabet_are_refused_before_use() {
    for segment in
        ["%00", "%2e%2e%2f", "..%2f..%2fetc%2fpasswd", "%252e", "a%0d%0ab", "%ff", "a;b", "__consumer_offsets", "%E6%97%A5", &"a".repeat(250)]
    {
        let topic = get(&format!("/api/v1/topics/{segment}")).await;
        assert_problem(&topic, ProblemCode::ValidationFailed);
        assert_declared("GET", "/api/v1/topics/{topic}", &topic);
        let restart = ask(&state(), "POST", &format!("/api/v1/tasks/{segment}/0/restart"), &[]).await;
        assert_problem(&restart, ProblemCode::ValidationFailed);
    }
    for partition in ["-1", "x", "01", "%30%30", "2147483648", "%00"] {
        let task = get(&format!("/api/v1/tasks/orders/{partition}")).await;
        assert_problem(&task, ProblemCode::ValidationFailed);
        assert_declared("GET", "/api/v1/tasks/{topic}/{partition}", &task);
        assert_eq!(task.json()["errors"][0]["pointer"], "/path/partition");
    }
    let letter = get("/api/v1/dead-letters/..%2f..%2f_search").await;
    assert_problem(&letter, ProblemCode::ValidationFailed);
    assert_declared("GET", "/api/v1/dead-letters/{id}", &letter);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    for (template, path) in [
        ("/api/v1/topics/{topic}", "/api/v1/topics/unknown"),
        ("/api/v1/tasks/{topic}/{partition}", "/api/v1/tasks/orders/9"),
        ("/api/v1/dead-letters/{id}", "/api/v1/dead-letters/orders:0:999"),
    ] {
        let answer = get(path).await;
        assert_problem(&answer, ProblemCode::NotFound);
        assert_declared("GET", template, &answer);
    }
    for path in [
        "/api/v1",
        "/api/v1/",
        "/api/v2/topics",
        "/api/v1/topics/",
        "//api/v1/topics",
        "/api/v1//topics",
        "/../etc/passwd",
        "/favicon.ico",
        &format!("/{}", "a".repeat(30_000)),
    ] {
        assert_problem(&get(path).await, ProblemCode::NotFound);
    }
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    for (method, path, allowed) in [
        ("DELETE", "/api/v1/tasks", "GET,HEAD"),
        ("OPTIONS", "/api/v1/topics", "GET,HEAD"),
        ("TRACE", "/api/v1/topics", "GET,HEAD"),
        ("BREW", "/api/v1/topics", "GET,HEAD"),
        ("GET", "/api/v1/tasks/orders/0/restart", "POST"),
        ("POST", "/healthz", "GET,HEAD"),
        ("POST", "/", "GET,HEAD"),
        ("POST", "/api/v1/topics/orders", "GET,HEAD,PUT,PATCH,DELETE"),
        ("POST", "/api/v1/dead-letters/orders:0:1", "GET,HEAD,DELETE"),
        ("GET", "/api/v1/dead-letters/redrive", "POST"),
        ("GET", "/api/v1/topics/orders/pause", "PUT,DELETE"),
    ] {
        let answer = ask(&state(), method, path, &[]).await;
        assert_problem(&answer, ProblemCode::MethodNotAllowed);
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    for (path, status) in [("/api/v1/topics", 200), ("/api/v1/topics/unknown", 404), ("/healthz", 200), ("/openapi.json", 200), ("/nothing", 404)] {
        let answer = ask(&state(), "HEAD", path, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(answer.body.is_empty(), "{path}");
        assert!(!answer.header("content-type").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_form_that_does_not_exist_is_406_but_never_for_probes_and_metrics() {
    for (template, path) in [
        ("/api/v1/topics", "/api/v1/topics"),
        ("/api/v1/topics/{topic}", "/api/v1/topics/orders"),
        ("/api/v1/tasks", "/api/v1/tasks"),
        ("/api/v1/events", "/api/v1/events"),
        ("/api/v1/dead-letters", "/api/v1/dead-letters"),
        ("/api/v1/changes", "/api/v1/changes"),
        ("/api/v1/kafka/topics", "/api/v1/kafka/topics"),
        ("/api/v1/info", "/api/v1/info"),
        ("/api/v1/sources", "/api/v1/sources"),
    ] {
        let answer = ask(&state(), "GET", path, &[("accept", "image/png")]).await;
        assert_problem(&answer, ProblemCode::NotAcceptable);
        assert_declared("GET", template, &answer);
    }
    let text = ask(&state(), "GET", "/api/v1/info", &[("accept", "text/plain")]).await;
    assert_problem(&text, ProblemCode::NotAcceptable);
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        assert_eq!(ask(&state(), "GET", path, &[("accept", "image/png")]).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_foreign_host_reaches_only_probes_and_metrics() {
    for path in ["/api/v1/topics", "/openapi.json", "/", "/nothing"] {
        let answer = ask(&state(), "GET", path, &[("host", "evil.example")]).await;
        assert_problem(&answer, ProblemCode::MisdirectedRequest);
    }
    assert_eq!(ask(&state(), "GET", "/api/v1/topics", &[("host", "drover.example")]).await.status, StatusCode::OK);
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        assert_eq!(ask(&state(), "GET", path, &[("host", "10.1.2.3:8080")]).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let path = "/api/v1/tasks/orders/0/restart";
    let refused = ask(&state(), "POST", path, &[("sec-fetch-site", "cross-site")]).await;
    assert_problem(&refused, ProblemCode::Forbidden);
    assert_declared("POST", "/api/v1/tasks/{topic}/{partition}/restart", &refused);
    assert_problem(&ask(&state(), "POST", path, &[("origin", "http://evil.example")]).await, ProblemCode::Forbidden);
    assert_eq!(ask(&state(), "POST", path, &[("sec-fetch-site", "same-origin")]).await.status, StatusCode::ACCEPTED);
    assert_eq!(ask(&state(), "GET", "/api/v1/topics", &[("sec-fetch-site", "cross-site")]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_its_cause_stays_inside() {
    let list = get("/api/v1/dead-letters?error_type=broken").await;
    assert_problem(&list, ProblemCode::StoreUnavailable);
    assert_declared("GET", "/api/v1/dead-letters", &list);
    let item = get("/api/v1/dead-letters/broken:0:0").await;
    assert_problem(&item, ProblemCode::StoreUnavailable);
    assert_declared("GET", "/api/v1/dead-letters/{id}", &item);
}

#[tokio::test]
async fn a_request_id_is_kept_when_harmless() {
    let kept = ask(&state(), "GET", "/api/v1/topics/unknown", &[("x-request-id", "trace-1")]).await;
    assert_eq!(kept.header("x-request-id"), "trace-1");
    assert_problem(&kept, ProblemCode::NotFound);
    let replaced = ask(&state(), "GET", "/api/v1/topics", &[("x-request-id", "a b<script>")]).await;
    assert_ne!(replaced.header("x-request-id"), "a b<script>");
}

#[tokio::test]
async fn ten_thousand_parameters_are_answered_briefly() {
    let query: Vec<String> = (0..5_000).map(|number| format!("p{number}=1")).collect();
    let answer = get(&format!("/api/v1/topics?{}", query.join("&"))).await;
    assert_problem(&answer, ProblemCode::InvalidRequest);
    assert!(answer.body.len() < 8_000, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn a_silent_loop_fails_liveness_and_an_outage_does_not() {
    let mut unwell = snapshot();
    unwell.components = vec![component("kafka", TaskState::Waiting), component("sink", TaskState::Waiting)];
    unwell.tasks = vec![task("orders", 0, TaskState::Failed, None)];
    let mut state = with_snapshot(unwell);
    assert_eq!(ask(&state, "GET", "/livez", &[]).await.status, StatusCode::OK);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(31)).expect("a clock that ran for a while");
    state.beats.push(("status".to_owned(), watch::channel(long_ago).1));
    let answer = ask(&state, "GET", "/livez", &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_declared("GET", "/livez", &answer);
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert!(answer.text().contains("[+]reconcile ok\n[-]status down: no turn for 31 s"), "{}", answer.text());
}

#[tokio::test]
async fn readiness_looks_outside_only_when_told_to() {
    let mut outage = snapshot();
    outage.components = vec![component("kafka", TaskState::Waiting), component("sink", TaskState::Running)];
    let mut state = with_snapshot(outage);
    assert_eq!(ask(&state, "GET", "/readyz", &[]).await.status, StatusCode::OK);
    state.readiness_require = vec![Dependency::Sink, Dependency::Etcd];
    assert_eq!(ask(&state, "GET", "/readyz", &[]).await.status, StatusCode::OK);
    state.readiness_require = vec![Dependency::Kafka];
    let answer = ask(&state, "GET", "/readyz", &[("accept", "application/json")]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_declared("GET", "/readyz", &answer);
    assert_eq!(answer.json()["status"], "down");

    for (first_list, draining) in [(false, false), (true, true)] {
        let state = with_snapshot(Snapshot { first_list, draining, ..snapshot() });
        assert_eq!(ask(&state, "GET", "/readyz", &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn health_is_the_worst_of_everything() {
    assert_eq!(get("/healthz").await.text(), "ok\n");
    let degraded = with_snapshot(Snapshot { sources: vec![source(SourceKind::File, SourceStatus::Error)], ..snapshot() });
    let answer = ask(&degraded, "GET", "/healthz", &[]).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "degraded\n"));
    let verbose = ask(&degraded, "GET", "/healthz?verbose", &[]).await;
    assert!(
        verbose.text().contains("[!]source/file/config.yaml degraded: line 3: malformed: repair it; until then the last good list"),
        "{}",
        verbose.text()
    );

    let mut failed = snapshot();
    failed.topics[0] = topic("app_log", TaskState::Failed, None, SourceKind::File);
    failed.tasks[0] = task("app_log", 0, TaskState::Failed, None);
    let failed = with_snapshot(failed);
    let answer = ask(&failed, "GET", "/healthz", &[("accept", "application/json")]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_declared("GET", "/healthz", &answer);
    let json = answer.json();
    assert_eq!(json["status"], "down");
    let checks = json["checks"].as_array().expect("checks");
    assert!(checks.iter().any(|check| check["name"] == "topic/app_log" && check["remedy"] == "repair it"), "{json:#}");
    let text = ask(&failed, "GET", "/healthz", &[]).await;
    assert!(text.text().contains(r"[-]topic/app_log down: it\nbroke: repair it"), "{}", text.text());
}

#[tokio::test]
async fn a_topic_whose_every_record_becomes_a_dead_letter_is_not_healthy() {
    for (settled, dead_lettered, is_losing) in [(7, 7, true), (4, 2, true), (1, 1, true), (5, 2, false), (0, 0, false)] {
        let mut snapshot = snapshot();
        snapshot.topics[2].last_minute = LastMinute { settled, dead_lettered };
        let answer = ask(&with_snapshot(snapshot), "GET", "/healthz?verbose", &[]).await;
        assert_eq!(answer.status, StatusCode::OK);
        let line = format!(
            "[!]dead_letters/orders degraded: {dead_lettered} of {settled} records of the last minute became dead letters: look at /api/v1/dead-letters?topic=orders\n"
        );
        assert_eq!(answer.text().contains(&line), is_losing, "{}", answer.text());
        assert_eq!(answer.text().ends_with("healthz degraded\n"), is_losing, "{}", answer.text());
    }
}

#[tokio::test]
async fn tasks_that_are_unwell_for_different_reasons_do_not_share_a_remedy() {
    let unwell = |partition, code, remedy: &str| {
        let mut task = task("orders", partition, TaskState::Waiting, None);
        task.reason = Some(Reason { remedy: remedy.to_owned(), ..reason(code) });
        task
    };
    let tasks = vec![
        task("orders", 0, TaskState::Running, None),
        unwell(1, ReasonCode::IndexClosed, "open the index"),
        unwell(2, ReasonCode::TopicMissing, "create the topic"),
        unwell(3, ReasonCode::TopicMissing, "create the topic"),
    ];
    let answer = ask(&with_snapshot(Snapshot { tasks, ..snapshot() }), "GET", "/healthz?verbose", &[]).await;
    for line in [
        "[!]tasks/index_closed degraded: of 4 tasks 1 waiting: open the index\n",
        "[!]tasks/topic_missing degraded: of 4 tasks 2 waiting: create the topic\n",
    ] {
        assert!(answer.text().contains(line), "{}", answer.text());
    }
}

/// Checks the text format: every sample belongs to the family declared above it, and no family comes twice.
fn assert_prometheus(text: &str) {
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let family = help.split(' ').next().expect("a name").to_owned();
            assert!(!families.contains(&family), "{family} comes twice");
            families.push(family);
            continue;
        }
        if line.starts_with("# TYPE ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok() || value == "+Inf", "{line}");
        let sample = series.split('{').next().expect("a name");
        let family = families.last().expect("a family first");
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.strip_suffix(suffix)).unwrap_or(sample);
        assert!(family == sample || family == base, "{line} under {family}");
    }
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn metrics_have_the_promised_names_and_form() {
    let answer = get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    assert_prometheus(text);
    for line in [
        "drover_build_info{version=\"0.1.0\"} 1",
        "drover_tasks{state=\"running\"} 4",
        "drover_tasks{state=\"failed\"} 0",
        "drover_records_indexed_total{topic=\"orders\",partition=\"1\"} 5",
        "drover_records_dead_lettered_total{topic=\"orders\",partition=\"0\"} 1",
        "drover_records_skipped_total{topic=\"orders\",partition=\"0\"} 0",
        "drover_records_retried_total{topic=\"orders\",partition=\"0\"} 2",
        "drover_records_lost_total{topic=\"orders\",partition=\"0\"} 3",
        "drover_task_restarts_total{topic=\"orders\",partition=\"0\",cause=\"panicked\"} 1",
        "drover_lag_records{topic=\"orders\",partition=\"1\"} 30",
        "drover_lag_seconds{topic=\"orders\",partition=\"1\"} 0.5",
        "drover_oldest_unsettled_seconds{topic=\"orders\",partition=\"1\"} 0.25",
        "drover_bulk_request_duration_seconds_bucket{le=\"0.1\"} 3",
        "drover_bulk_request_duration_seconds_bucket{le=\"+Inf\"} 4",
        "drover_bulk_request_duration_seconds_sum 0.75",
        "drover_bulk_request_duration_seconds_count 4",
        "drover_bulk_requests_total{outcome=\"ok\"} 4",
        "drover_memory_bytes{kind=\"limit\"} 4",
        "drover_dead_letters_bytes 99",
        "drover_dead_letters_max_bytes 100",
        "drover_source_up{kind=\"file\"} 1",
        "# TYPE drover_invariant_violations_total counter",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    assert!(!text.contains("drover_lag_records{topic=\"golang_log\""), "an unknown lag has no sample, and another's partition none at all");
}

#[tokio::test]
async fn metrics_without_partitions_are_sums() {
    let mut state = state();
    state.metrics_per_partition = false;
    let answer = ask(&state, "GET", "/metrics", &[]).await;
    assert_prometheus(answer.text());
    assert!(!answer.text().contains("partition="));
    assert!(answer.text().contains("drover_lag_records{topic=\"orders\"} 50\n"));
    assert!(answer.text().contains("drover_task_restarts_total{topic=\"orders\",cause=\"panicked\"} 2\n"));
}

#[tokio::test]
async fn the_served_document_has_a_strong_tag() {
    let answer = get("/openapi.json").await;
    assert_eq!(answer.json()["openapi"], "3.1.0");
    let etag = answer.header("etag").to_owned();
    assert!(etag.starts_with('"'), "{etag}");
    let again = ask(&state(), "GET", "/openapi.json", &[("if-none-match", &etag)]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert_declared("GET", "/openapi.json", &again);
}

#[tokio::test]
async fn every_documented_parameter_is_known_and_every_operation_complete() {
    let document = serde_json::to_value(document()).expect("a document");
    assert_eq!(document["openapi"], "3.1.0");
    let tags: Vec<&Value> = document["tags"].as_array().expect("tags").iter().map(|tag| &tag["name"]).collect();
    let mut ids = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(!ids.contains(&id), "{id} comes twice");
            ids.push(id);
            assert!(operation["summary"].as_str().is_some_and(|summary| summary.len() <= 60), "{id}");
            assert!(tags.contains(&&operation["tags"][0]), "{id}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{id} {status}");
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query" && method == "get") {
                let name = parameter["name"].as_str().expect("a name");
                let answer = get(&format!("{path}?{name}=%00")).await;
                assert!(!answer.text().contains("\"unknown\""), "{path} documents {name} and does not know it");
            }
        }
    }
}

#[tokio::test]
async fn the_bare_address_points_to_the_paths() {
    let answer = get("/").await;
    assert_eq!(answer.status, StatusCode::OK);
    for path in answer.text().lines().filter(|line| line.starts_with('/')) {
        assert_eq!(get(path).await.status, StatusCode::OK, "{path}");
    }
}

#[test]
fn codes_on_the_wire_are_the_documented_ones() {
    for code in ProblemCode::ALL {
        assert_eq!(serde_json::to_value(code).expect("a text"), code.as_str());
        assert!(code.status().is_client_error() || code.status().is_server_error());
        assert!(!code.title().is_empty());
    }
}

#[tokio::test]
async fn a_series_has_columns_of_equal_length_and_only_those_asked_for() {
    let mut snapshot = snapshot();
    for second in [0, 5, 10] {
        snapshot.topics[2].status.restarts_total = second;
        snapshot.taken_at = noon() + SignedDuration::from_secs(i64::try_from(second).expect("small"));
        snapshot.series = snapshot.series.with(&snapshot.topics, snapshot.taken_at);
    }
    let state = with_snapshot(snapshot);
    let all = ask(&state, "GET", "/api/v1/topics/orders/series", &[]).await;
    assert_declared("GET", "/api/v1/topics/{topic}/series", &all);
    let json = all.json();
    assert_eq!((&json["topic"], &json["step_seconds"], json["at"].as_array().map(Vec::len)), (&Value::from("orders"), &Value::from(5), Some(3)));
    assert_eq!(json["columns"]["lag"], serde_json::json!([50, 50, 50]));
    assert_eq!(json["columns"]["restarts_total"], serde_json::json!([0, 5, 10]));
    assert_eq!(json["columns"]["records_per_second"].as_array().map(Vec::len), Some(3));
    let unknown = ask(&state, "GET", "/api/v1/topics/golang_log/series?metric=lag&window=5s&step=1m", &[]).await.json();
    assert_eq!((&unknown["columns"], &unknown["step_seconds"]), (&serde_json::json!({"lag": [null]}), &Value::from(60)));
    for query in ["metric=nope", "metric=", "window=1s", "window=16m", "step=0s", "step=5", "nope=1"] {
        let answer = ask(&state, "GET", &format!("/api/v1/topics/orders/series?{query}"), &[]).await;
        assert_problem(&answer, ProblemCode::InvalidRequest);
        assert_declared("GET", "/api/v1/topics/{topic}/series", &answer);
    }
    assert_problem(&ask(&state, "GET", "/api/v1/topics/nowhere/series", &[]).await, ProblemCode::NotFound);
}

#[tokio::test]
async fn the_instance_lists_itself() {
    let json = get("/api/v1/instances").await.json();
    let row = &json["items"][0];
    assert_eq!((&row["instance"], &row["is_self"], &row["tasks"]), (&Value::from("host-1"), &Value::from(true), &serde_json::json!({"running": 4})));
    let table = ask(&state(), "GET", "/api/v1/instances", &[("accept", "text/plain")]).await;
    assert!(table.text().starts_with("INSTANCE  HEALTH"), "{}", table.text());
    assert!(table.text().contains("4 running"), "{}", table.text());
}
