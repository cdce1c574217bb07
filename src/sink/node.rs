//! The nodes of the sink: one client for each, and which of them to ask next.
//!
//! Guarantees that a node which does not answer, or not as it should, is left alone for a while, longer each time, and is first asked for anything small when it may be back; that credentials never appear in an error
//! or a log line; that the system's proxy settings are not used; that no more of an answer is kept than a limit in proportion to what was sent; that a redirect is
//! reported and not followed, since it would carry documents to a place that nobody configured. Owns the only use of the `elasticsearch` crate and of the client. Does not read answers.
//!
//! Requests go through `reqwest` directly, on which the `elasticsearch` crate builds: the crate's response gives its body only as a whole and unpacks gzip on the way, so a server
//! that never ends its answer, or sends a bomb, would fill the memory; and its transport follows redirects. Of the crate remain addresses, headers and
//! certificates. The settings of the client are those that its transport would make.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use elasticsearch::cert::Certificate;
use elasticsearch::http::Url;
use elasticsearch::http::headers::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use flate2::write::GzEncoder;
use hyper::body::{Frame, SizeHint};
use reqwest::{Body, Client, Identity, Method, RequestBuilder, Response};
use tokio::time::Instant;

use super::answer;
use super::pace::Backoff;
use crate::config::{Compression, ElasticsearchConfig, SinkAuth};

/// How long a node may take to answer something small.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How much is read of an answer that refuses, or to something small: an error of the server is a few KiB.
const MAX_SMALL_ANSWER_BYTES: usize = 64 << 10;

/// How often a node that somebody else tries is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why the sink cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no node.
    #[error("the sink has no nodes; name at least one in elasticsearch.urls")]
    NoNodes,
    /// An address is not one of a node. The address is not shown: it may hold a password.
    #[error("elasticsearch.urls[{position}] is not the address of a node ({problem}); write it like http://127.0.0.1:9200")]
    Url {
        /// The place in the list, from 0.
        position: usize,
        /// What is wrong.
        problem: String,
    },
    /// A certificate or key file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold certificates.
    #[error("{path} holds no usable PEM certificate")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: elasticsearch::Error,
    },
    /// The credentials have characters that no HTTP header may have.
    #[error("the sink's credentials cannot be sent in an HTTP header; check them for line breaks and control characters")]
    Credentials,
    /// The client refuses its settings, such as a client certificate without its key.
    #[error("cannot build a client for the sink; check client_cert and client_key")]
    Client {
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// The server has answered.
    Answered {
        /// The status.
        status: u16,
        /// The whole body; of a status that is no success, at most its first 64 KiB.
        body: Bytes,
    },
    /// The server sends us elsewhere; says where.
    Redirected(String),
    /// The answer began and is not whole, not readable or longer than any answer could be.
    Broken(String),
    /// No answer: refused, cut before it, or too late.
    NoAnswer(String),
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its address, without credentials.
    pub(crate) url: String,
    /// The same, ending in a slash: what requests are relative to.
    base: Url,
    client: Client,
    compression: Compression,
}

impl Node {
    /// Sends a bulk body of so many items, given in pieces.
    pub(crate) async fn bulk(&self, body: Vec<Bytes>, items: usize, timeout: Duration) -> Exchange {
        let limit = answer_limit(items, body.iter().map(Bytes::len).sum());
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let body = match self.compression {
            Compression::Off => Body::wrap(Pieces::new(body)),
            Compression::Gzip => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                match gzip(body).await {
                    Ok(compressed) => Body::from(compressed),
                    Err(error) => return Exchange::Broken(format!("a body cannot be compressed: {error}")),
                }
            }
        };
        let Ok(url) = self.base.join(answer::PATH.trim_start_matches('/')) else { return self.no_url(answer::PATH) };
        self.exchange(self.client.post(url).headers(headers).body(body), limit, timeout).await
    }

    /// Asks for something small; only whether there is an answer matters.
    pub(crate) async fn ask(&self, path: &str, timeout: Duration) -> Exchange {
        let Ok(url) = self.base.join(path.trim_start_matches('/')) else { return self.no_url(path) };
        self.exchange(self.client.get(url), MAX_SMALL_ANSWER_BYTES, timeout).await
    }

    /// Sends one request with a JSON body, or without any. Of an answer that succeeds at most `limit` bytes are taken; a longer one is [`Exchange::Broken`].
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Bytes>, limit: usize, timeout: Duration) -> Exchange {
        let Ok(url) = self.base.join(path.trim_start_matches('/')) else { return self.no_url(path) };
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body);
        }
        self.exchange(request, limit, timeout).await
    }

    async fn exchange(&self, request: RequestBuilder, limit: usize, timeout: Duration) -> Exchange {
        let mut response = match request.timeout(timeout).send().await {
            Ok(response) => response,
            Err(error) => return Exchange::NoAnswer(self.describe(&error, timeout)),
        };
        let status = response.status().as_u16();
        if let Some(target) = redirect_target(&response) {
            return Exchange::Redirected(format!("{} redirects to {target} (status {status}); use that address", self.url));
        }
        let succeeded = response.status().is_success();
        let limit = if succeeded { limit } else { MAX_SMALL_ANSWER_BYTES };
        match read_at_most(&mut response, limit).await {
            Ok((body, true)) => Exchange::Answered { status, body },
            // The beginning of a refusal says enough.
            Ok((body, false)) if !succeeded => Exchange::Answered { status, body },
            Ok((_, false)) => Exchange::Broken(format!("{}: the answer with status {status} is longer than {limit} bytes", self.url)),
            Err(error) if error.is_timeout() => Exchange::NoAnswer(self.describe(&error, timeout)),
            Err(error) => Exchange::Broken(format!("the answer with status {status} is not whole: {}", self.describe(&error, timeout))),
        }
    }

    fn no_url(&self, path: &str) -> Exchange {
        Exchange::NoAnswer(format!("{} and {path} make no address", self.url))
    }

    fn describe(&self, error: &reqwest::Error, timeout: Duration) -> String {
        if error.is_timeout() {
            return format!("{} gave no answer within {} s", self.url, timeout.as_secs_f32());
        }
        format!("{}: {}", self.url, innermost(error))
    }
}

/// The most bytes that an answer to so many items may have.
///
/// A confirmation is some 30 bytes for each item and an error some hundreds; an error may quote its document, also twice (in its reason and in that of the cause).
fn answer_limit(items: usize, sent_bytes: usize) -> usize {
    const BASE: usize = 1 << 20;
    const FOR_EACH_ITEM: usize = 1 << 10;
    items.saturating_mul(FOR_EACH_ITEM).saturating_add(sent_bytes.saturating_mul(2)).saturating_add(BASE)
}

/// The unpacked body up to `limit` bytes, and whether that is all of it.
async fn read_at_most(response: &mut Response, limit: usize) -> Result<(Bytes, bool), reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(chunk.get(..room).unwrap_or_default());
            return Ok((body.freeze(), false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), true))
}

/// Where a redirect leads, as the address of a node would be written: without credentials, query and the path that we asked for.
fn redirect_target(response: &Response) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let Ok(mut target) = response.url().join(location) else { return Some(location.to_owned()) };
    target.set_query(None);
    target.set_fragment(None);
    // Both fail only for addresses that can have no credentials.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    let text = target.to_string();
    Some(text.strip_suffix("_bulk").map_or_else(|| text.clone(), str::to_owned))
}

/// A body that goes to the socket from the buffers it lies in. Its length is known before, so that the request says it: a body of unknown length is sent in HTTP's chunks, which not every proxy takes.
#[derive(Debug)]
struct Pieces {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Pieces {
    fn new(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into(), left }
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Compresses at level 1, on a thread where that may take its time: 8 MiB take tens of milliseconds, in which a thread of the runtime would answer nobody. The buffers are given back when it is done, also when nobody waits any more.
async fn gzip(body: Vec<Bytes>) -> std::io::Result<Bytes> {
    let compress = move || {
        let length: usize = body.iter().map(Bytes::len).sum();
        let mut encoder = GzEncoder::new(Vec::with_capacity(length / 4), flate2::Compression::fast());
        body.iter().try_for_each(|piece| encoder.write_all(piece))?;
        encoder.finish().map(Bytes::from)
    };
    tokio::task::spawn_blocking(compress).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// The text of the last cause: the ones around it only say that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Makes one client for each node. Reads certificate files, connects to nothing.
pub(crate) fn clients(config: &ElasticsearchConfig) -> Result<Vec<Node>, SetupError> {
    if config.urls.is_empty() {
        return Err(SetupError::NoNodes);
    }
    let authorization = authorization(&config.auth)?;
    let identity = config.client_identity.as_ref().map(|(certificate, key)| read_identity(certificate, key)).transpose()?;
    let mut nodes = Vec::with_capacity(config.urls.len());
    for (position, text) in config.urls.iter().enumerate() {
        let url = node_url(position, text)?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("drover/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(value) = &authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let mut builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).default_headers(headers);
        if let Some(pem) = &identity {
            builder = builder.identity(Identity::from_pem(pem).map_err(|source| SetupError::Client { source })?);
        }
        if let Some(path) = &config.ca_file {
            let pem = read(path)?;
            let chain = Certificate::from_pem(&pem).map_err(|source| SetupError::Certificate { path: path.clone(), source })?;
            builder = chain.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let client = builder.build().map_err(|source| SetupError::Client { source })?;
        nodes.push(Node { url: url.to_string(), base: with_slash(url), client, compression: config.compression });
    }
    Ok(nodes)
}

/// The address as that of a folder, so that paths are added to a prefix and do not replace its end.
fn with_slash(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

fn node_url(position: usize, text: &str) -> Result<Url, SetupError> {
    let refuse = |problem: String| SetupError::Url { position, problem };
    let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("it does not begin with http:// or https://".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it holds credentials, which belong in username and password".to_owned()));
    }
    Ok(url)
}

/// The header that says who we are. The transport's own way would leave no place for a client certificate beside it.
fn authorization(auth: &SinkAuth) -> Result<Option<HeaderValue>, SetupError> {
    let text = match auth {
        SinkAuth::Anonymous => return Ok(None),
        SinkAuth::Basic { username, password } => format!("Basic {}", BASE64.encode(format!("{username}:{}", password.expose()))),
        SinkAuth::ApiKey(key) => format!("ApiKey {}", key.expose()),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| SetupError::Credentials)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn read_identity(certificate: &Path, key: &Path) -> Result<Vec<u8>, SetupError> {
    let mut pem = read(certificate)?;
    pem.push(b'\n');
    pem.extend(read(key)?);
    Ok(pem)
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|source| SetupError::File { path: path.to_owned(), source })
}

/// Which nodes answer.
#[derive(Debug)]
pub(crate) struct NodeHealth {
    nodes: Vec<NodeState>,
    next: usize,
    backoff: Backoff,
}

#[derive(Debug, Default)]
struct NodeState {
    failures: u32,
    /// Bulk requests that have not ended.
    under_way: usize,
    /// When it is asked for something small at the earliest; `None`: it is well.
    dead_until: Option<Instant>,
    proof: Proof,
}

/// How far a node that failed is on its way back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It is left alone.
    #[default]
    None,
    /// It is asked for something small.
    Asked,
    /// It has answered that, and gets the next request.
    Given,
    /// A bulk request is trying it.
    Tried,
}

impl NodeHealth {
    /// `count` nodes, all believed to be well.
    pub(crate) fn new(count: usize, backoff: Backoff) -> Self {
        Self { nodes: (0..count).map(|_| NodeState::default()).collect(), next: 0, backoff }
    }

    /// The node for the next request: of those that may be asked the one with the fewest requests under way, in turn, so that a node that has fallen silent holds one request and not all of them. A node that was dead
    /// and has answered something small is tried by one request at a time.
    pub(crate) fn pick(&mut self) -> Option<usize> {
        let count = self.nodes.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        let may_be_asked = |number: &usize| self.nodes.get(*number).is_some_and(|node| node.dead_until.is_none() || node.proof == Proof::Given);
        let number = in_turn.filter(may_be_asked).min_by_key(|number| self.nodes.get(*number).map(|node| node.under_way))?;
        let node = self.nodes.get_mut(number)?;
        if node.dead_until.is_some() {
            node.proof = Proof::Tried;
        }
        node.under_way += 1;
        self.next = (number + 1) % count;
        Some(number)
    }

    /// A bulk request to the node has ended, whatever came of it.
    pub(crate) fn ended(&mut self, number: usize) {
        if let Some(node) = self.nodes.get_mut(number) {
            node.under_way = node.under_way.saturating_sub(1);
        }
    }

    /// A node that failed, was left alone long enough, and is to be asked for something small now. Gives each once.
    pub(crate) fn next_to_prove(&mut self, now: Instant) -> Option<usize> {
        let is_due = |node: &NodeState| node.proof == Proof::None && node.dead_until.is_some_and(|until| until <= now);
        let number = self.nodes.iter().position(is_due)?;
        self.nodes.get_mut(number)?.proof = Proof::Asked;
        Some(number)
    }

    /// The node has answered something small.
    pub(crate) fn proved(&mut self, number: usize) {
        if let Some(node) = self.nodes.get_mut(number).filter(|node| node.proof == Proof::Asked) {
            node.proof = Proof::Given;
        }
    }

    /// The node has answered as it should. Whether it was left out before.
    pub(crate) fn answered(&mut self, number: usize) -> bool {
        let Some(node) = self.nodes.get_mut(number) else { return false };
        let before = std::mem::take(node);
        node.under_way = before.under_way;
        before.dead_until.is_some()
    }

    /// The node did not answer, or not as it should; `chance` is from 0 to 1. Requests that were under way together count once. Whether it was believed to be well before.
    pub(crate) fn failed(&mut self, number: usize, now: Instant, chance: f64) -> bool {
        let backoff = self.backoff;
        let Some(node) = self.nodes.get_mut(number) else { return false };
        let was_well = node.dead_until.is_none();
        if !was_well && !matches!(node.proof, Proof::Asked | Proof::Tried) {
            return false;
        }
        let wait = backoff.wait(node.failures, chance);
        node.failures = node.failures.saturating_add(1);
        node.dead_until = Some(now + wait);
        node.proof = Proof::None;
        was_well
    }

    /// Whether some node besides this one is believed to be well.
    pub(crate) fn another_is_well(&self, number: usize) -> bool {
        self.nodes.iter().enumerate().any(|(other, node)| other != number && node.dead_until.is_none())
    }

    /// Whether some node is believed to be well.
    pub(crate) fn any_well(&self) -> bool {
        self.nodes.iter().any(|node| node.dead_until.is_none())
    }

    /// When to ask for a node again, while none may be asked.
    pub(crate) fn next_chance(&self, now: Instant) -> Instant {
        let left_alone = self.nodes.iter().filter(|node| node.proof == Proof::None).filter_map(|node| node.dead_until);
        left_alone.min().unwrap_or(now + LOOK_AGAIN).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

    fn configuration(urls: &[&str]) -> ElasticsearchConfig {
        ElasticsearchConfig {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            auth: SinkAuth::Anonymous,
            ca_file: None,
            client_identity: None,
            max_bytes: 1 << 20,
            linger: Duration::ZERO,
            in_flight: 1,
            timeout: Duration::from_secs(1),
            compression: Compression::Off,
        }
    }

    /// The next node, with its request ended at once.
    fn pick(health: &mut NodeHealth) -> Option<usize> {
        let node = health.pick()?;
        health.ended(node);
        Some(node)
    }

    #[test]
    fn a_dead_node_is_left_out_and_later_tried_by_one_request() {
        let now = Instant::now();
        let mut health = NodeHealth::new(2, BACKOFF);
        health.failed(0, now, 1.0);
        for _ in 0..3 {
            assert_eq!((pick(&mut health), health.next_to_prove(now)), (Some(1), None));
        }
        let later = now + BACKOFF.base;
        assert_eq!((health.next_to_prove(later), health.next_to_prove(later)), (Some(0), None), "it is asked once");
        assert_eq!([pick(&mut health), pick(&mut health)], [Some(1), Some(1)], "nobody waits for its answer");
        health.proved(0);
        assert_eq!([pick(&mut health), pick(&mut health), pick(&mut health)], [Some(0), Some(1), Some(1)]);
        health.answered(0);
        assert_eq!(pick(&mut health), Some(0));
    }

    #[test]
    fn a_node_that_fails_again_after_its_proof_is_left_alone_for_longer() {
        let now = Instant::now();
        let mut health = NodeHealth::new(2, BACKOFF);
        health.failed(0, now, 1.0);
        let later = now + BACKOFF.base;
        assert_eq!(health.next_to_prove(later), Some(0));
        health.proved(0);
        assert_eq!(pick(&mut health), Some(0));
        health.failed(0, later, 1.0);
        assert_eq!((pick(&mut health), health.next_to_prove(later + BACKOFF.base)), (Some(1), None));
        assert_eq!(health.next_to_prove(later + BACKOFF.base * 2), Some(0));
    }

    #[test]
    fn a_node_that_falls_silent_holds_one_request_and_not_every_slot() {
        let mut health = NodeHealth::new(3, BACKOFF);
        assert_eq!(health.pick(), Some(0));
        for _ in 0..10 {
            assert_ne!(pick(&mut health), Some(0));
        }
        health.ended(0);
        let asked: Vec<_> = (0..3).filter_map(|_| pick(&mut health)).collect();
        assert!(asked.contains(&0), "{asked:?}");
    }

    #[test]
    fn a_node_that_stays_dead_is_asked_less_and_less() {
        let mut now = Instant::now();
        let mut health = NodeHealth::new(1, BACKOFF);
        health.failed(0, now, 1.0);
        health.failed(0, now, 1.0);
        assert_eq!(health.next_chance(now), now + BACKOFF.base, "what failed together counts once");
        for failures in 1..20 {
            now = health.next_chance(now);
            assert_eq!((health.next_to_prove(now), health.pick()), (Some(0), None));
            health.failed(0, now, 1.0);
            assert_eq!(health.next_chance(now), now + BACKOFF.wait(failures, 1.0));
        }
        assert!(!health.any_well());
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_showing_it() {
        for url in ["", "nonsense", "ftp://127.0.0.1", "http://user:hunter2@127.0.0.1:9200", "http://"] {
            let error = clients(&configuration(&["http://127.0.0.1:9200", url])).expect_err(url);
            assert!(matches!(error, SetupError::Url { position: 1, .. }), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
        assert!(matches!(clients(&configuration(&[])), Err(SetupError::NoNodes)));
    }

    #[test]
    fn certificates_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").unwrap();
        let mut config = configuration(&["https://127.0.0.1:9200"]);
        config.ca_file = Some(folder.path().join("missing.pem"));
        assert!(matches!(clients(&config), Err(SetupError::File { .. })));
        config.ca_file = Some(empty.clone());
        assert!(matches!(clients(&config), Err(SetupError::Certificate { .. })));
        config.ca_file = None;
        config.client_identity = Some((empty.clone(), empty));
        assert!(matches!(clients(&config), Err(SetupError::Client { .. })));
    }

    #[test]
    fn a_password_that_breaks_the_header_is_refused_without_showing_it() {
        let mut config = configuration(&["http://127.0.0.1:9200"]);
        config.auth = SinkAuth::ApiKey(crate::config::Secret::new("hunter2\r\nx: y".to_owned()));
        let error = clients(&config).unwrap_err();
        assert!(matches!(error, SetupError::Credentials) && !format!("{error:?}").contains("hunter2"));
    }
}
