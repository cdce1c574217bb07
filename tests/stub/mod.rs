//! A stub of a bulk server: enough of `_bulk` to test against, and a script for everything that can go wrong.
//!
//! It listens on a free loopback port, keeps every indexed document by index and id with the number of its writes, and answers as Elasticsearch does: `create` of a known id is an item
//! error 409, a source that is no JSON is one with 400, `filter_path` makes the answer small. A script, asked once for each bulk request, can let it fail instead.
//! It uses nothing of drover's, so that unit tests and integration tests can both include this file.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION};
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// One document as it was last written.
#[derive(Debug, Clone)]
pub struct Document {
    pub source: String,
    /// How often it was written: 2 and more after a repetition.
    pub writes: u32,
}

/// One item of a bulk request.
#[derive(Debug, Clone)]
pub struct ItemView {
    /// `index` or `create`.
    pub operation: String,
    pub index: String,
    pub id: String,
    pub pipeline: Option<String>,
    pub source: String,
}

/// A bulk request as the script sees it.
#[derive(Debug, Clone)]
pub struct RequestView {
    /// Its number, from 0.
    pub number: usize,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// Bytes of the body as it was sent.
    pub bytes: usize,
    pub items: Vec<ItemView>,
    /// The body, unpacked.
    pub body: Bytes,
}

impl RequestView {
    /// Whether some item's source contains the text.
    pub fn contains(&self, text: &str) -> bool {
        self.items.iter().any(|item| item.source.contains(text))
    }
}

/// What the server does with a bulk request. "Applied" means that the documents are stored.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Applied and confirmed.
    Normal,
    /// Applied by the server with this address instead of here, whose answer is given.
    Forward(String),
    /// Items that a rule meets fail, the others are applied and confirmed.
    Items(Vec<ItemRule>),
    /// Not applied; this status and body.
    Refuse { status: u16, body: String },
    /// Applied, but answered with this status, type and body.
    Instead { status: u16, content_type: &'static str, body: String },
    /// Not applied; the connection ends without an answer.
    Cut,
    /// Applied; the connection ends without an answer.
    CutAfterApply,
    /// Applied; the connection ends in the middle of the answer.
    CutMidway,
    /// Applied; the answer lacks its last items.
    ShortBy(usize),
    /// Applied; the answer says that it is gzip and is not.
    GzipGarbage,
    /// Not applied; an answer with this status that goes on for ever.
    Endless { status: u16 },
    /// Applied; so many mebibytes of spaces, packed small.
    GzipBomb { mebibytes: usize },
    /// Not applied; the client is sent elsewhere.
    Redirect { status: u16, location: String },
    /// Not applied, no answer ever.
    Hang,
    /// The answer comes later.
    After(Duration, Box<Answer>),
}

impl Answer {
    /// Not applied; an error as Elasticsearch words it.
    pub fn error(status: u16, error_type: &str, reason: &str) -> Self {
        let body = serde_json::json!({"error": {"root_cause": [], "type": error_type, "reason": reason}, "status": status});
        Self::Refuse { status, body: body.to_string() }
    }

    /// Items whose source contains `text` fail.
    pub fn item_error(text: &str, status: u16, error_type: &str, reason: &str) -> Self {
        Self::Items(vec![ItemRule { containing: text.to_owned(), status, error_type: error_type.to_owned(), reason: reason.to_owned() }])
    }

    /// Applied, but answered with a page.
    pub fn html(status: u16) -> Self {
        Self::Instead { status, content_type: "text/html", body: "<html><body>it works</body></html>".to_owned() }
    }
}

/// Which items fail, and how.
#[derive(Debug, Clone)]
pub struct ItemRule {
    pub containing: String,
    pub status: u16,
    pub error_type: String,
    pub reason: String,
}

type Script = Arc<dyn Fn(&RequestView) -> Answer + Send + Sync>;

/// A running stub. Dropped, it ends.
pub struct StubServer {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
}

struct State {
    documents: Mutex<HashMap<(String, String), Document>>,
    script: Mutex<Script>,
    seen: Mutex<Vec<RequestView>>,
    remember: Mutex<bool>,
    requests: AtomicUsize,
    under_way: AtomicUsize,
    most_at_once: AtomicUsize,
    items: AtomicUsize,
    other_status: AtomicU16,
}

impl StubServer {
    /// Starts on a free port of the loopback address.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address")).await
    }

    /// Starts at this address, such as that of a stub which has been stopped.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let state = Arc::new(State {
            documents: Mutex::default(),
            script: Mutex::new(Arc::new(|_| Answer::Normal)),
            seen: Mutex::default(),
            remember: Mutex::new(true),
            requests: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            other_status: AtomicU16::new(200),
        });
        let stop = CancellationToken::new();
        let address = listener.local_addr().expect("the listener's address");
        tokio::spawn(accept(listener, state.clone(), stop.clone()));
        Self { address, state, stop }
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the script decides what happens to bulk requests.
    pub fn script(&self, script: impl Fn(&RequestView) -> Answer + Send + Sync + 'static) {
        *lock(&self.state.script) = Arc::new(script);
    }

    /// From now on everything succeeds.
    pub fn heal(&self) {
        self.script(|_| Answer::Normal);
    }

    /// The status of everything that is no bulk request, except `GET /`, which is 405 as in builds of the server without that module.
    pub fn answer_others(&self, status: u16) {
        self.state.other_status.store(status, Ordering::SeqCst);
    }

    /// Stops keeping the requests, for tests with many of them. The counts go on.
    pub fn forget_requests(&self) {
        *lock(&self.state.remember) = false;
        lock(&self.state.seen).clear();
    }

    /// The bulk requests that came, in order.
    pub fn seen(&self) -> Vec<RequestView> {
        lock(&self.state.seen).clone()
    }

    /// How many bulk requests came.
    pub fn request_count(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// How many items came in all bulk requests, repetitions included.
    pub fn item_count(&self) -> usize {
        self.state.items.load(Ordering::SeqCst)
    }

    /// The most bulk requests that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.state.most_at_once.load(Ordering::SeqCst)
    }

    /// How many documents there are.
    pub fn document_count(&self) -> usize {
        lock(&self.state.documents).len()
    }

    /// One document.
    pub fn document(&self, index: &str, id: &str) -> Option<Document> {
        lock(&self.state.documents).get(&(index.to_owned(), id.to_owned())).cloned()
    }

    /// All documents by index and id.
    pub fn documents(&self) -> HashMap<(String, String), Document> {
        lock(&self.state.documents).clone()
    }

    /// Ends: the port is free, every connection is cut.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for StubServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A value whose lock was held during a panic is still good for a test.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(serve(stream, state.clone(), stop.clone()));
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, stop: CancellationToken) {
    let service = service_fn(move |request| answer(request, state.clone()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        // An error is a connection that was cut, by a script or by the client.
        _ = connection => {}
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> io::Result<Response<Body>> {
    let is_bulk = request.method() == Method::POST && request.uri().path().ends_with("/_bulk");
    if !is_bulk {
        let status = if request.uri().path() == "/" { 405 } else { state.other_status.load(Ordering::SeqCst) };
        return Ok(respond(status, "application/json", r#"{"status":"green"}"#));
    }
    let _under_way = UnderWay::enter(&state);
    bulk(request, &state).await
}

/// Counts requests that are under way.
struct UnderWay<'a>(&'a State);

impl<'a> UnderWay<'a> {
    fn enter(state: &'a State) -> Self {
        let now = state.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn bulk(request: Request<Incoming>, state: &State) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.map_err(io::Error::other)?;
    let types: Vec<_> = head.headers.get_all(CONTENT_TYPE).iter().collect();
    if types.len() != 1 || types.first().is_none_or(|value| *value != "application/x-ndjson" && *value != "application/json") {
        return Ok(respond(406, "application/json", &format!(r#"{{"error":"Content-Type header {types:?} is not supported","status":406}}"#)));
    }
    let bytes = body.len();
    let body = if head.headers.contains_key(CONTENT_ENCODING) { unzip(&body)? } else { body };
    let number = state.requests.fetch_add(1, Ordering::SeqCst);
    let items = match items(&body) {
        Ok(items) => items,
        Err(reason) => {
            let error = serde_json::json!({"error": {"type": "illegal_argument_exception", "reason": reason}, "status": 400});
            return Ok(respond(400, "application/json", &error.to_string()));
        }
    };
    state.items.fetch_add(items.len(), Ordering::SeqCst);
    let target = head.uri.path_and_query().map_or_else(String::new, |target| target.as_str().to_owned());
    let view = RequestView { number, target, headers: head.headers, bytes, items, body };
    let script = lock(&state.script).clone();
    let mut answer = script(&view);
    if *lock(&state.remember) {
        lock(&state.seen).push(view.clone());
    }
    while let Answer::After(wait, later) = answer {
        tokio::time::sleep(wait).await;
        answer = *later;
    }
    follow(answer, &view, state).await
}

async fn follow(answer: Answer, view: &RequestView, state: &State) -> io::Result<Response<Body>> {
    let small = view.target.contains("filter_path=");
    let cut = || Err(io::Error::other("cut by the script"));
    match answer {
        Answer::Normal => Ok(respond(200, "application/json", &confirmation(&apply(view, &[], state), small))),
        Answer::Forward(server) => forward(view, &server).await,
        Answer::Items(rules) => Ok(respond(200, "application/json", &confirmation(&apply(view, &rules, state), small))),
        Answer::Refuse { status, body } => Ok(respond(status, "application/json", &body)),
        Answer::Instead { status, content_type, body } => {
            apply(view, &[], state);
            Ok(respond(status, content_type, &body))
        }
        Answer::Cut => cut(),
        Answer::CutAfterApply => {
            apply(view, &[], state);
            cut()
        }
        Answer::CutMidway => {
            let whole = confirmation(&apply(view, &[], state), small);
            let (half, _) = whole.split_at(whole.len() / 2);
            Ok(respond_in_part(whole.len(), half))
        }
        Answer::ShortBy(missing) => {
            let mut results = apply(view, &[], state);
            results.truncate(results.len().saturating_sub(missing));
            Ok(respond(200, "application/json", &confirmation(&results, small)))
        }
        Answer::GzipGarbage => {
            apply(view, &[], state);
            let mut response = respond(200, "application/json", "this is no gzip");
            response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().expect("a header value"));
            Ok(response)
        }
        Answer::Endless { status } => {
            let pieces = futures::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b' '; 16 << 10])));
            let mut response = respond(status, "application/json", "");
            *response.body_mut() = Body::from_stream(pieces);
            Ok(response)
        }
        Answer::GzipBomb { mebibytes } => {
            apply(view, &[], state);
            let mut response = respond(200, "application/json", "");
            response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().expect("a header value"));
            *response.body_mut() = Body::from(zip(mebibytes)?);
            Ok(response)
        }
        Answer::Redirect { status, location } => {
            let mut response = respond(status, "text/plain", "elsewhere");
            response.headers_mut().insert(LOCATION, location.parse().expect("a header value"));
            Ok(response)
        }
        Answer::Hang => std::future::pending().await,
        Answer::After(..) => unreachable!("waited for before"),
    }
}

/// A server that does not answer is a connection that is cut.
async fn forward(view: &RequestView, server: &str) -> io::Result<Response<Body>> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    let client = CLIENT.get_or_init(|| reqwest::Client::builder().no_proxy().build().expect("a client"));
    let request = client.post(format!("{server}{}", view.target)).header(CONTENT_TYPE, "application/x-ndjson").body(view.body.clone());
    let answer = request.send().await.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let text = answer.text().await.map_err(io::Error::other)?;
    Ok(respond(status, "application/json", &text))
}

/// So many mebibytes of spaces, packed.
fn zip(mebibytes: usize) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..mebibytes {
        io::Write::write_all(&mut encoder, &[b' '; 1 << 20])?;
    }
    encoder.finish()
}

fn unzip(body: &[u8]) -> io::Result<Bytes> {
    let mut plain = Vec::new();
    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut plain)?;
    Ok(Bytes::from(plain))
}

/// Pairs of action and source lines.
fn items(body: &Bytes) -> Result<Vec<ItemView>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Action {
        Index(Meta),
        Create(Meta),
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Meta {
        _index: String,
        _id: String,
        pipeline: Option<String>,
    }
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let text = text.strip_suffix('\n').ok_or("The bulk request must be terminated by a newline [\\n]")?;
    let mut lines = text.split('\n');
    let mut items = Vec::new();
    while let Some(action) = lines.next() {
        let source = lines.next().ok_or("an action without a source")?;
        let action: Action =
            serde_json::from_str(action).map_err(|error| format!("Malformed action/metadata line [{}]: {error}", items.len() * 2 + 1))?;
        let (operation, meta) = match action {
            Action::Index(meta) => ("index", meta),
            Action::Create(meta) => ("create", meta),
        };
        items.push(ItemView {
            operation: operation.to_owned(),
            index: meta._index,
            id: meta._id,
            pipeline: meta.pipeline,
            source: source.to_owned(),
        });
    }
    Ok(items)
}

/// The result of one item: operation, status, and error type and reason.
struct ItemResult<'a> {
    item: &'a ItemView,
    status: u16,
    error: Option<(String, String)>,
}

/// Stores what no rule meets.
fn apply<'a>(view: &'a RequestView, rules: &[ItemRule], state: &State) -> Vec<ItemResult<'a>> {
    let mut documents = lock(&state.documents);
    view.items.iter().map(|item| apply_item(item, rules, &mut documents)).collect()
}

fn apply_item<'a>(item: &'a ItemView, rules: &[ItemRule], documents: &mut HashMap<(String, String), Document>) -> ItemResult<'a> {
    let fails = |status: u16, error_type: &str, reason: &str| ItemResult { item, status, error: Some((error_type.to_owned(), reason.to_owned())) };
    if let Some(rule) = rules.iter().find(|rule| item.source.contains(&rule.containing)) {
        return fails(rule.status, &rule.error_type, &rule.reason);
    }
    let is_object = item.source.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(&item.source).is_ok();
    if !is_object {
        return fails(400, "document_parsing_exception", "failed to parse");
    }
    let key = (item.index.clone(), item.id.clone());
    let known = documents.get(&key).map_or(0, |document| document.writes);
    if known > 0 && item.operation == "create" {
        return fails(409, "version_conflict_engine_exception", "document already exists");
    }
    documents.insert(key, Document { source: item.source.clone(), writes: known + 1 });
    ItemResult { item, status: if known == 0 { 201 } else { 200 }, error: None }
}

/// The answer's body: as the server writes it with `filter_path=errors,items.*.status,items.*.error`, or whole.
fn confirmation(results: &[ItemResult<'_>], small: bool) -> String {
    let errors = results.iter().any(|result| result.error.is_some());
    let mut text = if small { format!(r#"{{"errors":{errors},"items":["#) } else { format!(r#"{{"took":1,"errors":{errors},"items":["#) };
    for (number, result) in results.iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        let ItemResult { item, status, error } = result;
        let meta = if small { String::new() } else { format!(r#""_index":"{}","_id":"{}","#, item.index, item.id) };
        text.push_str(&format!(r#"{{"{}":{{{meta}"status":{status}"#, item.operation));
        if let Some((error_type, reason)) = error {
            text.push_str(&format!(r#","error":{}"#, serde_json::json!({"type": error_type, "reason": reason})));
        }
        text.push_str("}}");
    }
    text.push_str("]}");
    text
}

fn respond(status: u16, content_type: &str, body: &str) -> Response<Body> {
    let status = StatusCode::from_u16(status).expect("a status");
    Response::builder().status(status).header(CONTENT_TYPE, content_type).body(Body::from(body.to_owned())).expect("a response")
}

/// Promises more bytes than it sends, then cuts.
fn respond_in_part(promised: usize, part: &str) -> Response<Body> {
    let pieces = [Ok(Bytes::from(part.to_owned())), Err(io::Error::other("cut by the script"))];
    let body = Body::from_stream(futures::stream::iter(pieces));
    Response::builder().header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, promised).body(body).expect("a response")
}
