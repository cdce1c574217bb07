//! Operation × (success, each declared problem): every answer that `openapi/openapi.json` declares is provoked, each body is valid under the checked-in schema, and nothing undeclared is ever answered.
//!
//! One test walks the document, asks, and compares what was seen with what is declared. What no request can provoke stands in [`WITHOUT_FAULT`], with the reason; an entry there that could be provoked fails, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::watch;

use super::auth::tests::{closed, guarding};
use super::tests::{Answer, StubLetters, assert_declared, checked_in, declared_codes, letter, snapshot, task};
use super::write_tests::{Bench, Mood, Rewinder, StubOutlook, moody};
use super::{ActionError, Actions, ApiState, KafkaTopic, LogLevel, Outlook, Preview, RestartedPartition, RewindTo, RewoundPartition, router};
use crate::dead_letters::redrive::{self, RedriveOrders};
use crate::dead_letters::{DeadLetter, Query};
use crate::desired::DesiredTopic;
use crate::status::{Snapshot, Task, TaskState};
use crate::topic::TopicName;

/// `internal` is a defect of drover, which answers by the one layer around all routes. Here no port that could have one is between the request and the snapshot, which is a value.
const NO_PORT: &str = "answers from the snapshot alone, which is a value and cannot panic";
/// Declared answers that no test can provoke without a fault in drover itself.
const WITHOUT_FAULT: [(&str, &str, &str); 11] = [
    ("list_topics", "internal", NO_PORT),
    ("get_topic", "internal", NO_PORT),
    ("get_topic_series", "internal", NO_PORT),
    ("list_tasks", "internal", NO_PORT),
    ("get_task", "internal", NO_PORT),
    ("list_events", "internal", NO_PORT),
    ("stream_events", "internal", NO_PORT),
    ("list_sources", "internal", NO_PORT),
    ("get_info", "internal", NO_PORT),
    ("list_instances", "internal", NO_PORT),
    ("get_openapi", "internal", "answers with bytes of the program"),
];

/// A change in the log of [`Mood`]'s store: the entry of `stored` was made by it.
const CHANGE: &str = "01JF8Z5Q4W9G2M7XKTB3N6VRHD";
const NO_CHANGE: &str = "01JF8Z5Q4W9G2M7XKTB3N6VRHC";

/// An operation of the document.
#[derive(Debug, Clone)]
struct Operation {
    id: String,
    method: String,
    template: String,
}

/// What every operation is asked with where nothing else is said: there is such a topic, task, letter, change and kind, and it is answered with success.
impl Operation {
    fn path(&self) -> String {
        let id = if self.template.contains("/changes/") { CHANGE } else { "filed:0:1" };
        self.template.replace("{topic}", "stored").replace("{partition}", "0").replace("{id}", id).replace("{kind}", "store")
    }

    fn body(&self) -> &'static str {
        match self.id.as_str() {
            "put_topic" | "patch_topic" => "{}",
            "rewind_topic" | "rewind_task" => r#"{"to": "latest"}"#,
            "set_log_level" => r#"{"filter": "info"}"#,
            _ => "",
        }
    }

    fn success(&self) -> &'static str {
        match self.id.as_str() {
            "delete_topic" | "resume_topic" | "delete_dead_letter" | "revert_change" => "204",
            "restart_topic" | "restart_task" | "rewind_topic" | "rewind_task" | "confirm_source" | "redrive_dead_letters" | "redrive_dead_letter" => {
                "202"
            }
            _ => "200",
        }
    }

    fn is_change(&self) -> bool {
        self.method != "GET"
    }
}

/// What was declared and what was seen, by operation.
struct Contract {
    operations: BTreeMap<String, Operation>,
    declared: BTreeSet<(String, String)>,
    seen: BTreeSet<(String, String)>,
    /// Answers that were not the expected ones.
    wrong: Vec<String>,
}

/// One request.
#[derive(Default, Clone)]
struct Asked<'a> {
    path: Option<String>,
    headers: Vec<(&'a str, &'a str)>,
    body: Option<&'a str>,
}

fn at<'a>(path: impl Into<String>) -> Asked<'a> {
    Asked { path: Some(path.into()), ..Asked::default() }
}

fn with<'a>(headers: &[(&'a str, &'a str)]) -> Asked<'a> {
    Asked { headers: headers.to_vec(), ..Asked::default() }
}

impl<'a> Asked<'a> {
    fn body(self, body: &'a str) -> Self {
        Self { body: Some(body), ..self }
    }

    fn headers(self, headers: &[(&'a str, &'a str)]) -> Self {
        Self { headers: headers.to_vec(), ..self }
    }
}

impl Contract {
    fn new() -> Self {
        let mut operations = BTreeMap::new();
        let mut declared = BTreeSet::new();
        for (template, item) in checked_in()["paths"].as_object().expect("paths") {
            for (method, described) in item.as_object().expect("operations") {
                let id = described["operationId"].as_str().expect("an id").to_owned();
                for (status, response) in described["responses"].as_object().expect("responses") {
                    let codes = declared_codes(response);
                    let outcomes = if codes.is_empty() { vec![status.clone()] } else { codes };
                    declared.extend(outcomes.into_iter().map(|outcome| (id.clone(), outcome)));
                }
                operations.insert(id.clone(), Operation { id, method: method.to_uppercase(), template: template.clone() });
            }
        }
        assert!(operations.len() >= 35 && declared.len() > 300, "{} operations, {} answers", operations.len(), declared.len());
        Self { operations, declared, seen: BTreeSet::new(), wrong: Vec::new() }
    }

    fn declares(&self, operation: &Operation, outcome: &str) -> bool {
        self.declared.contains(&(operation.id.clone(), outcome.to_owned()))
    }

    /// Asks, and checks that the answer is declared and valid; whether it is `expected` (a status, or a problem's code) is told at the end.
    async fn ask(&mut self, state: &ApiState, id: &str, asked: Asked<'_>, expected: &str) {
        let operation = self.operations.get(id).unwrap_or_else(|| panic!("there is no operation {id}")).clone();
        let path = asked.path.unwrap_or_else(|| operation.path());
        let body = asked.body.unwrap_or_else(|| operation.body());
        let mut request = Request::builder().method(operation.method.as_str()).uri(&path);
        let is_given = |header: &str| asked.headers.iter().any(|(name, _)| *name == header);
        if !is_given("host") {
            request = request.header("host", "localhost:8080");
        }
        if !body.is_empty() && !is_given("content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in &asked.headers {
            request = request.header(*name, *value);
        }
        let answer = answer_of(state, request.body(Body::from(body.to_owned())).expect("a request")).await;
        let shown = format!("{} {path} {:?}", operation.method, asked.headers);
        let outcome = match answer.header("content-type") {
            "application/problem+json" => answer.json()["code"].as_str().expect("a code").to_owned(),
            _ => answer.status.as_str().to_owned(),
        };
        if outcome != expected {
            self.wrong.push(format!("{id}: {shown}: {expected} was expected: {}", String::from_utf8_lossy(&answer.body)));
        }
        assert_declared(&operation.method, &operation.template, &answer);
        assert!(self.declares(&operation, &outcome), "{id} does not declare {outcome}: {shown}");
        self.seen.insert((operation.id, outcome));
    }

    /// The same with every operation: `expected` where it is declared, and success where it is not, as nothing there could be wrong.
    async fn ask_all(&mut self, state: &ApiState, asked: impl Fn(&Operation) -> Option<Asked<'static>>, expected: &str) {
        for operation in self.operations.values().cloned().collect::<Vec<_>>() {
            let Some(asked) = asked(&operation) else { continue };
            let expected = if self.declares(&operation, expected) { expected } else { operation.success() };
            self.ask(state, &operation.id, asked, expected).await;
        }
    }

    fn finish(self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        let excepted: BTreeSet<(String, String)> = WITHOUT_FAULT.iter().map(|(id, outcome, _)| ((*id).to_owned(), (*outcome).to_owned())).collect();
        let missing: Vec<_> = self.declared.difference(&self.seen).filter(|pair| !excepted.contains(*pair)).collect();
        assert!(missing.is_empty(), "declared, and provoked by nothing: {missing:#?}");
        let needless: Vec<_> = excepted.iter().filter(|pair| self.seen.contains(*pair) || !self.declared.contains(*pair)).collect();
        assert!(needless.is_empty(), "excepted, but provoked or not declared: {needless:?}");
    }
}

/// An answer with the beginning of its body: a stream has no end.
async fn answer_of(state: &ApiState, request: Request<Body>) -> Answer {
    use futures::StreamExt as _;
    use tower::ServiceExt as _;

    let is_stream = request.uri().path() == "/api/v1/stream";
    let response = router(state.clone()).oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    if is_stream && parts.status == StatusCode::OK {
        let mut frames = body.into_data_stream();
        let first = frames.next().await.expect("a frame").expect("bytes").to_vec();
        // Of lines each is JSON; of server-sent events the document describes what a client makes of them.
        let is_lines = parts.headers["content-type"] == "application/x-ndjson";
        return Answer { status: parts.status, headers: parts.headers, body: if is_lines { first } else { Vec::new() } };
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// What the supervisor answers.
#[derive(Debug, Clone)]
enum Way {
    Refuses(ActionError),
    Silent,
    Panics,
}

/// Ports that answer in one way.
#[derive(Debug)]
struct Port(Way);

impl Port {
    async fn answer<T>(&self) -> Result<T, ActionError> {
        match &self.0 {
            Way::Refuses(error) => Err(error.clone()),
            Way::Silent => std::future::pending().await,
            Way::Panics => panic!("planted-secret in a panic"),
        }
    }
}

impl Actions for Port {
    fn restart_task<'a>(&'a self, _: &'a TopicName, _: i32) -> BoxFuture<'a, Result<Task, ActionError>> {
        self.answer().boxed()
    }

    fn restart_topic<'a>(&'a self, _: &'a TopicName) -> BoxFuture<'a, Result<Vec<RestartedPartition>, ActionError>> {
        self.answer().boxed()
    }

    fn rewind<'a>(
        &'a self,
        _: &'a TopicName,
        _: Option<Vec<i32>>,
        _: RewindTo,
        _: bool,
    ) -> BoxFuture<'a, Result<Vec<RewoundPartition>, ActionError>> {
        self.answer().boxed()
    }
}

impl Outlook for Port {
    fn kafka_topics(&self) -> BoxFuture<'_, Result<Vec<KafkaTopic>, String>> {
        panic!("planted-secret in a panic")
    }

    fn preview<'a>(&'a self, _: &'a TopicName, _: Option<Arc<DesiredTopic>>) -> BoxFuture<'a, Preview> {
        panic!("planted-secret in a panic")
    }
}

impl LogLevel for Port {
    fn filter(&self) -> String {
        panic!("planted-secret in a panic")
    }

    fn set(&self, _: &str) -> Result<(), String> {
        panic!("planted-secret in a panic")
    }
}

/// Does what it is asked.
#[derive(Debug)]
struct Obedient;

impl Actions for Obedient {
    fn restart_task<'a>(&'a self, topic: &'a TopicName, partition: i32) -> BoxFuture<'a, Result<Task, ActionError>> {
        let answer =
            if topic.as_str() == "stored" { Ok(task(topic.as_str(), partition, TaskState::Starting, Some(1))) } else { Err(ActionError::NotFound) };
        async { answer }.boxed()
    }

    fn restart_topic<'a>(&'a self, _: &'a TopicName) -> BoxFuture<'a, Result<Vec<RestartedPartition>, ActionError>> {
        async { Ok(vec![RestartedPartition { partition: 0, incarnation: Some(2), error: None }]) }.boxed()
    }

    fn rewind<'a>(
        &'a self,
        topic: &'a TopicName,
        partitions: Option<Vec<i32>>,
        to: RewindTo,
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Vec<RewoundPartition>, ActionError>> {
        async move { Rewinder::default().rewind(topic, partitions, to, dry_run).await }.boxed()
    }
}

/// The API with what must live as long as it: whoever takes the orders of redrives, and whoever makes snapshots, with which a stream ends.
struct Well {
    state: ApiState,
    orders: RedriveOrders,
    _snapshots: watch::Sender<Arc<Snapshot>>,
}

/// The API where everything is well: the topic `stored` with task 0 running and 1 of nobody, letters of `filed` and of `gone`.
fn well(mood: Mood) -> Well {
    let state = moody(mood);
    let tasks = vec![task("stored", 0, TaskState::Running, Some(1)), task("stored", 1, TaskState::Unassigned, None)];
    let view = Snapshot { tasks, ..Snapshot::clone(&state.snapshot.borrow()) };
    let without_payload = DeadLetter { payload_base64: None, truncated: true, ..letter("filed", 9, b"x") };
    let mut letters = vec![letter("filed", 1, b"x"), without_payload, letter("gone", 1, b"x")];
    letters.iter_mut().for_each(|letter| letter.last_at = Timestamp::UNIX_EPOCH);
    let (redrives, orders) = redrive::queue();
    let (snapshots, snapshot) = watch::channel(Arc::new(view));
    let state = ApiState { snapshot, dead_letters: Arc::new(StubLetters(letters)), redrives, actions: Arc::new(Obedient), ..state };
    Well { state, orders, _snapshots: snapshots }
}

fn acting(way: Way) -> ApiState {
    ApiState { actions: Arc::new(Port(way)), ..well(Mood::Deaf).state }
}

/// What every operation has in common: success, and the problems of its path, query, headers and body.
async fn provoke_what_all_have(contract: &mut Contract) {
    let Well { state, orders: _orders, _snapshots } = well(Mood::Deaf);
    contract.ask_all(&state, |_| Some(Asked::default()), "success").await;
    contract.ask_all(&state, |operation| Some(at(format!("{}?nope=1", operation.path()))), "invalid-request").await;
    contract.ask_all(&state, |_| Some(with(&[("accept", "image/png")])), "not-acceptable").await;
    contract.ask_all(&state, |_| Some(with(&[("host", "evil.example")])), "misdirected-request").await;
    contract.ask_all(&state, |_| Some(with(&[("sec-fetch-site", "cross-site")])), "forbidden").await;
    let typed = |operation: &Operation| operation.is_change().then(|| with(&[("content-type", "text/plain")]).body("x"));
    contract.ask_all(&state, typed, "unsupported-media-type").await;
    contract.ask_all(&state, |operation| operation.is_change().then(|| with(&[("content-length", "10000000")])), "payload-too-large").await;
    let misnamed = |operation: &Operation| {
        let (before, rest) = operation.template.split_once('{')?;
        let (_, after) = rest.split_once('}')?;
        Some(at(format!("{before}a%20b{}", after.replace("{partition}", "0"))))
    };
    contract.ask_all(&state, misnamed, "validation-failed").await;
    let absent = |operation: &Operation| {
        let path = operation.template.replace("{topic}", "nowhere").replace("{partition}", "0").replace("{kind}", "store");
        let path = path.replace("{id}", if path.contains("/changes/") { NO_CHANGE } else { "filed:0:77" });
        let may_be_absent = operation.template.contains('{') && !["put_topic", "patch_topic", "confirm_source"].contains(&operation.id.as_str());
        may_be_absent.then(|| at(path))
    };
    contract.ask_all(&state, absent, "not-found").await;

    let guarded = guarding(closed(state));
    contract.ask_all(&guarded, |_| Some(Asked::default()), "unauthorized").await;
    contract.ask_all(&guarded, |_| Some(with(&[("authorization", "Bearer drover_reader-token")])), "forbidden").await;
    contract.ask_all(&guarded, |_| Some(with(&[("authorization", "Bearer drover_writer-token")])), "success").await;
}

async fn provoke_a_defect(contract: &mut Contract) {
    let Well { state, orders: _orders, _snapshots } = well(Mood::Panicking);
    let port = Arc::new(Port(Way::Panics));
    let state = ApiState { actions: port.clone(), outlook: port.clone(), log_level: port, ..state };
    let has_none = |operation: &Operation| WITHOUT_FAULT.iter().any(|(id, _, _)| *id == operation.id) || !operation.template.starts_with("/api/v1/");
    let asked = |operation: &Operation| match operation.id.as_str() {
        _ if has_none(operation) => None,
        "list_dead_letters" | "redrive_dead_letters" => Some(at(format!("{}?error_type=panics", operation.path()))),
        "get_dead_letter" | "delete_dead_letter" | "redrive_dead_letter" => Some(at(operation.path().replace("filed:0:1", "panics:0:0"))),
        _ => Some(Asked::default()),
    };
    contract.ask_all(&state, asked, "internal").await;
}

async fn provoke_what_reads_have(contract: &mut Contract) {
    let Well { state, orders: _orders, _snapshots } = well(Mood::Deaf);
    let text = [("accept", "text/plain")];
    for id in ["list_topics", "list_tasks", "list_events", "list_dead_letters", "list_changes", "list_kafka_topics", "list_sources", "list_instances"]
    {
        contract.ask(&state, id, with(&text), "200").await;
    }
    for id in ["get_livez", "get_readyz", "get_healthz"] {
        contract.ask(&state, id, with(&[("accept", "application/json")]), "200").await;
        contract.ask(&state, id, with(&text), "200").await;
    }
    contract.ask(&state, "stream_events", with(&[("accept", "application/x-ndjson")]), "200").await;
    for id in ["list_topics", "list_tasks", "get_openapi"] {
        contract.ask(&state, id, with(&[("if-none-match", "*")]), "304").await;
    }

    let long_ago = tokio::time::Instant::now().checked_sub(std::time::Duration::from_secs(31)).expect("a clock that ran for a while");
    let silent = ApiState { beats: vec![("status".to_owned(), watch::channel(long_ago).1)], ..state.clone() };
    contract.ask(&silent, "get_livez", Asked::default(), "503").await;
    let mut unwell = Snapshot { draining: true, ..snapshot() };
    unwell.topics[0] = super::tests::topic("app_log", TaskState::Failed, None, crate::topic::SourceKind::File);
    unwell.tasks[0] = task("app_log", 0, TaskState::Failed, None);
    let unwell = ApiState { snapshot: watch::channel(Arc::new(unwell)).1, ..state.clone() };
    for accept in ["application/json", "text/plain"] {
        contract.ask(&unwell, "get_readyz", with(&[("accept", accept)]), "503").await;
        contract.ask(&unwell, "get_healthz", with(&[("accept", accept)]), "503").await;
    }
    let without_kafka = ApiState { outlook: Arc::new(StubOutlook::without_kafka()), ..state.clone() };
    contract.ask(&without_kafka, "list_kafka_topics", Asked::default(), "kafka-unavailable").await;
    let mut full = state.clone();
    full.http.max_connections = 1;
    use tower::ServiceExt as _;
    let request = Request::get("/api/v1/stream").header("host", "localhost").body(Body::empty()).expect("a request");
    let _held = router(full.clone()).oneshot(request).await.expect("infallible");
    contract.ask(&full, "stream_events", Asked::default(), "rate-limited").await;
}

async fn provoke_what_dead_letters_have(contract: &mut Contract) {
    let Well { state, orders, _snapshots } = well(Mood::Deaf);
    contract.ask(&state, "redrive_dead_letters", at("/api/v1/dead-letters/redrive?dry_run=true"), "200").await;
    contract.ask(&state, "redrive_dead_letter", at("/api/v1/dead-letters/filed:0:9/redrive"), "payload-gone").await;
    contract.ask(&state, "redrive_dead_letter", at("/api/v1/dead-letters/gone:0:1/redrive"), "topic-not-managed").await;
    contract.ask(&state, "redrive_dead_letters", at("/api/v1/dead-letters/redrive?topic=gone"), "topic-not-managed").await;
    for id in ["get_dead_letter", "delete_dead_letter"] {
        contract.ask(&state, id, at("/api/v1/dead-letters/broken:0:0"), "store-unavailable").await;
    }
    contract.ask(&state, "redrive_dead_letter", at("/api/v1/dead-letters/broken:0:0/redrive"), "store-unavailable").await;
    contract.ask(&state, "list_dead_letters", at("/api/v1/dead-letters?error_type=broken"), "store-unavailable").await;
    contract.ask(&state, "redrive_dead_letters", at("/api/v1/dead-letters/redrive?error_type=broken"), "store-unavailable").await;
    contract.ask(&state, "delete_dead_letter", at("/api/v1/dead-letters/silent:0:0"), "outcome-unknown").await;

    while state.redrives.one("filed:0:1".to_owned()).is_ok() {}
    while state.redrives.many(Query::default()).is_ok() {}
    contract.ask(&state, "redrive_dead_letters", Asked::default(), "rate-limited").await;
    contract.ask(&state, "redrive_dead_letter", Asked::default(), "rate-limited").await;
    drop(orders);
    contract.ask(&state, "redrive_dead_letters", Asked::default(), "shutting-down").await;
    contract.ask(&state, "redrive_dead_letter", Asked::default(), "shutting-down").await;
}

async fn provoke_what_actions_have(contract: &mut Contract) {
    let Well { state, orders: _orders, _snapshots } = well(Mood::Deaf);
    let rewinds = ["rewind_topic", "rewind_task"];
    for id in ["restart_topic", "restart_task", "rewind_topic", "rewind_task"] {
        let path = contract.operations[id].path();
        contract.ask(&state, id, at(format!("{path}?dry_run=true")), "200").await;
        contract.ask(&acting(Way::Silent), id, Asked::default(), "outcome-unknown").await;
        contract.ask(&acting(Way::Refuses(ActionError::ShuttingDown)), id, Asked::default(), "shutting-down").await;
    }
    for id in rewinds {
        let down = acting(Way::Refuses(ActionError::KafkaUnavailable("all brokers down".to_owned())));
        contract.ask(&down, id, Asked::default(), "kafka-unavailable").await;
        contract.ask(&state, id, Asked::default().body(r#"{"to": "start"}"#), "validation-failed").await;
    }
    let paused = acting(Way::Refuses(ActionError::NotRestartable(TaskState::Paused)));
    for id in ["restart_task", "rewind_topic"] {
        contract.ask(&paused, id, Asked::default(), "task-not-restartable").await;
    }
    contract.ask(&state, "rewind_task", at("/api/v1/tasks/stored/1/rewind"), "task-not-restartable").await;
    contract.ask(&state, "set_log_level", Asked::default().body(r#"{"filter": 5}"#), "validation-failed").await;
}

async fn provoke_what_stores_have(contract: &mut Contract) {
    let written = ["put_topic", "patch_topic", "delete_topic", "pause_topic", "resume_topic", "revert_change"];
    for (mood, code) in [(Mood::Unavailable, "store-unavailable"), (Mood::OutcomeUnknown, "outcome-unknown"), (Mood::Stale, "store-stale")] {
        let Well { state, orders: _orders, _snapshots } = well(mood);
        for id in written {
            contract.ask(&state, id, Asked::default(), code).await;
        }
        if mood != Mood::Stale {
            contract.ask(&state, "confirm_source", Asked::default(), code).await;
        }
    }
    contract.ask(&well(Mood::Unavailable).state, "list_changes", Asked::default(), "store-unavailable").await;
}

/// What only a store that keeps what is written can answer.
async fn provoke_what_writes_have(contract: &mut Contract) {
    let bench = Bench::new();
    let state = &bench.state;
    for (id, topic) in [("put_topic", "put"), ("patch_topic", "patched")] {
        let path = format!("/api/v1/topics/{topic}");
        contract.ask(state, id, at(&path), "201").await;
        contract.ask(state, id, at(&path).body(r#"{"format": "json"}"#), "200").await;
        contract.ask(state, id, at(format!("{path}?dry_run=true")), "200").await;
        contract.ask(state, id, at(&path).headers(&[("if-none-match", "*")]), "precondition-failed").await;
        contract.ask(state, id, at(&path).body(r#"{"format": "xml"}"#), "validation-failed").await;
    }
    let merge_patch = [("content-type", "application/merge-patch+json")];
    contract.ask(state, "patch_topic", at("/api/v1/topics/put").headers(&merge_patch), "200").await;
    contract.ask(state, "delete_topic", at("/api/v1/topics/filed"), "topic-not-managed").await;
    contract.ask(state, "delete_topic", at("/api/v1/topics/put").headers(&[("if-match", "\"r0\"")]), "precondition-failed").await;
    contract.ask(state, "delete_topic", at("/api/v1/topics/put?dry_run=true"), "200").await;
    contract.ask(state, "put_topic", at("/api/v1/topics/filed"), "201").await;
    contract.ask(state, "delete_topic", at("/api/v1/topics/filed"), "200").await;
    contract.ask(state, "pause_topic", at("/api/v1/topics/filed/pause").body(r#"{"reason": "x"}"#), "200").await;
    contract.ask(state, "pause_topic", at("/api/v1/topics/filed/pause").body(r#"{"reason": 1}"#), "validation-failed").await;
    contract.ask(state, "resume_topic", at("/api/v1/topics/filed/pause?dry_run=true"), "200").await;
    contract.ask(state, "resume_topic", at("/api/v1/topics/filed/pause"), "204").await;

    let revert = async |bench: &Bench| format!("/api/v1/changes/{}/revert", bench.newest_change().await);
    contract.ask(state, "delete_topic", at("/api/v1/topics/put"), "204").await;
    let deleted = revert(&bench).await;
    contract.ask(state, "revert_change", at(format!("{deleted}?dry_run=true")), "200").await;
    contract.ask(state, "revert_change", at(&deleted), "201").await;
    contract.ask(state, "revert_change", at(&deleted), "precondition-failed").await;
    contract.ask(state, "patch_topic", at("/api/v1/topics/put").body(r#"{"format": "text"}"#), "200").await;
    contract.ask(state, "revert_change", at(revert(&bench).await), "200").await;
    contract.ask(state, "put_topic", at("/api/v1/topics/last"), "201").await;
    contract.ask(state, "revert_change", at(revert(&bench).await), "204").await;
    contract.ask(state, "list_changes", Asked::default(), "200").await;
}

fn runtime(is_paused: bool) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(is_paused).build().expect("a runtime")
}

#[test]
fn every_declared_answer_of_every_operation_is_provoked_and_no_other() {
    let mut contract = Contract::new();
    // Where time stands still, a port that never answers costs none.
    runtime(true).block_on(async {
        provoke_what_all_have(&mut contract).await;
        provoke_a_defect(&mut contract).await;
        provoke_what_reads_have(&mut contract).await;
        provoke_what_dead_letters_have(&mut contract).await;
        provoke_what_actions_have(&mut contract).await;
        provoke_what_stores_have(&mut contract).await;
    });
    runtime(false).block_on(provoke_what_writes_have(&mut contract));
    contract.finish();
}

/// A description that names another code than the answers have would make the table above lie.
#[test]
fn the_document_names_the_code_of_every_problem() {
    let known: BTreeSet<&str> = super::ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    for (template, item) in checked_in()["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let codes = declared_codes(response);
                let is_problem = response["content"]["application/problem+json"].is_object();
                assert_eq!(!codes.is_empty(), is_problem, "{method} {template} {status}");
                for code in codes {
                    let of_status = super::ProblemCode::ALL.iter().any(|known| known.as_str() == code && known.status().as_str() == status);
                    assert!(known.contains(code.as_str()) && of_status, "{method} {template} {status}: {code}");
                }
            }
        }
    }
}
