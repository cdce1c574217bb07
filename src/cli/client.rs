//! The HTTP client of the commands.
//!
//! Guarantees: every request ends in time; a token is sent to the named server only, never along a redirect; no path segment can leave its place; an answer that is not drover's is told
//! apart from drover's own; loopback addresses are never asked through a proxy. Who asks again and again asks for what is new only, by the tags of the last answers ([`Client::begin_round`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, Url, redirect};

use super::document::Document;
use super::failure::{Failure, Refusal};
use crate::table::{self, escape};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take. The API bounds its own actions at 30 s and its stores well below.
const TIMEOUT: Duration = Duration::from_secs(45);
/// Bytes of an answer that are read: a page of 1,000 topics or dead letters is below 16 MiB.
const MAX_ANSWER: usize = 64 << 20;
/// Bytes of a token's file that are read.
const MAX_TOKEN: usize = 4096;
/// The same for one of many looks, so that a server which hangs is soon told.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// What the API says to a tag that is still right.
const NOT_MODIFIED: u16 = 304;
/// Rows that one request of a list asks for, the most that the API gives.
const PAGE: &str = "1000";

/// Fields by which a document of drover's is told from a foreign one.
pub(super) type Marks = &'static [&'static str];

pub(super) const INFO: Marks = &["version", "instance"];
pub(super) const TOPIC: Marks = &["name", "status"];
pub(super) const TASK: Marks = &["topic", "partition", "state"];
pub(super) const SOURCE: Marks = &["kind", "status"];
/// What became of one partition of a restart or a rewind.
pub(super) const PARTITION: Marks = &["partition", "error"];
pub(super) const DRY_RUN: Marks = &["valid", "would"];

/// One of the API's lists.
#[derive(Debug)]
pub(super) struct List {
    pub(super) path: &'static [&'static str],
    pub(super) marks: Marks,
}

pub(super) const TOPICS: List = List { path: &["api", "v1", "topics"], marks: TOPIC };
pub(super) const TASKS: List = List { path: &["api", "v1", "tasks"], marks: TASK };
pub(super) const EVENTS: List = List { path: &["api", "v1", "events"], marks: &["id", "kind", "message"] };
pub(super) const LETTERS: List = List { path: &["api", "v1", "dead-letters"], marks: &["id", "cause"] };

/// A server's address, checked: `http` or `https`, a host, no credentials, no query, no fragment.
pub(super) fn server_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write it as http://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("write it as http://HOST:PORT or https://HOST:PORT".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it contains credentials; drover takes a token from --token-file".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has a query or a fragment; write it as http://HOST:PORT".to_owned());
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether the server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// As usual.
    Verified,
    /// Not at all: for our own address on this host, whose name no certificate has.
    Unverified,
}

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    pub(super) answer: Duration,
}

impl Patience {
    /// Of a look that another one follows.
    pub(super) const LOOK: Self = Self { connect: CONNECT_TIMEOUT, answer: LOOK_TIMEOUT };
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: CONNECT_TIMEOUT, answer: TIMEOUT }
    }
}

/// A client of one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    patience: Patience,
    /// `None` until somebody asks in rounds.
    rounds: RefCell<Option<Rounds>>,
}

/// An answer that has a tag.
#[derive(Debug)]
struct Tagged {
    tag: HeaderValue,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Answers of this round and of the one before, by address: what a round does not ask for is forgotten with the next one.
#[derive(Debug, Default)]
struct Rounds {
    before: HashMap<Url, Tagged>,
    now: HashMap<Url, Tagged>,
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Request<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    /// A request for a path, given by its segments.
    pub(super) fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self { method, path, query: Vec::new(), headers: HeaderMap::new(), body: None }
    }

    pub(super) fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn query(mut self, query: Vec<(&'static str, String)>) -> Self {
        self.query.extend(query);
        self
    }

    /// Only says what would happen.
    pub(super) fn dry_run(self, is_dry_run: bool) -> Self {
        if is_dry_run { self.query(vec![("dry_run", "true".to_owned())]) } else { self }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    pub(super) fn json(mut self, body: &serde_json::Value) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Some(body.to_string().into_bytes());
        self
    }
}

/// What drover answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// Whether the instance has the change already.
    pub(super) is_applied: bool,
    /// The document; `None` without a body.
    pub(super) document: Option<Document>,
}

impl Client {
    /// A client of `base`. Fails on a token's file that cannot be used.
    pub(super) fn new(base: Url, token_file: Option<&Path>, trust: Trust, patience: Patience) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        if let Some(path) = token_file {
            headers.insert(AUTHORIZATION, bearer(path)?);
            if base.scheme() == "http" && !is_loopback(&base) {
                super::output::tell(&format!("drover: the token goes to {base} in the clear; use https there"));
            }
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .connect_timeout(patience.connect)
            .timeout(patience.answer)
            .danger_accept_invalid_certs(trust == Trust::Unverified);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Failure::Failed(format!("the HTTP client cannot start: {}", crate::causes::chain(&error))))?;
        Ok(Self { http, base, patience, rounds: RefCell::default() })
    }

    /// Begins to ask for everything anew. From the first round on, lists that did not change since the round before are not sent again by the server.
    pub(super) fn begin_round(&self) {
        let mut rounds = self.rounds.borrow_mut();
        let rounds = rounds.get_or_insert_default();
        rounds.before = std::mem::take(&mut rounds.now);
    }

    /// The server's address, for people.
    pub(super) fn server(&self) -> String {
        escape(self.base.as_str().trim_end_matches('/'))
    }

    fn url(&self, request: &Request<'_>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(request.path);
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        url
    }

    /// Asks the API. What it refuses is a failure.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Answer, Failure> {
        let (status, headers, body) = self.exchange(&request).await?;
        let document = self.document(status, &headers, &body)?;
        let is_applied = headers.get("drover-applied").is_none_or(|value| value != "false");
        if (200..300).contains(&status) {
            return Ok(Answer { status, is_applied, document });
        }
        let refusal = document.as_ref().and_then(|document| Refusal::of_problem(status, document));
        let refusal = refusal.ok_or_else(|| self.not_drover(format!("status {status} without a problem of drover's")))?;
        Err(Failure::Refused(Box::new(refusal)))
    }

    /// Asks the API for a document.
    pub(super) async fn get(&self, path: &[&str], marks: Marks) -> Result<Document, Failure> {
        self.one(self.send(Request::get(path)).await?.document, marks)
    }

    /// An answer's document, when it is one of drover's.
    pub(super) fn one(&self, document: Option<Document>, marks: Marks) -> Result<Document, Failure> {
        let document = document.ok_or_else(|| self.not_drover("an answer without a body".to_owned()))?;
        match document.lacks(marks) {
            None => Ok(document),
            Some(mark) => Err(self.not_drover(format!("an answer without `{mark}`"))),
        }
    }

    /// An answer's list, when it is one of drover's.
    pub(super) fn many(&self, document: Option<Document>, marks: Marks) -> Result<Document, Failure> {
        let document = document.unwrap_or(Document::Null);
        let Document::List(items) = document.at("items") else { return Err(self.not_drover("a list without items".to_owned())) };
        match items.iter().find_map(|item| item.lacks(marks)) {
            None => Ok(document),
            Some(mark) => Err(self.not_drover(format!("a list with an item without `{mark}`"))),
        }
    }

    /// A probe's status and report; a probe that is not well answers 503.
    pub(super) async fn probe(&self, name: &str) -> Result<(u16, Document), Failure> {
        let (status, headers, body) = self.exchange(&Request::get(&[name])).await?;
        let document = self.document(status, &headers, &body)?.unwrap_or(Document::Null);
        if let Some(refusal) = Refusal::of_problem(status, &document) {
            return Err(Failure::Refused(Box::new(refusal)));
        }
        if document.text("status").is_none() || !matches!(document.at("checks"), Document::List(_)) {
            return Err(self.not_drover(format!("{name} answered status {status} without a health report")));
        }
        Ok((status, document))
    }

    /// Reads a list page by page and gives each page away as it comes.
    pub(super) async fn pages(
        &self,
        list: &List,
        query: &[(&'static str, String)],
        mut page: impl FnMut(Document) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        loop {
            let document = self.page(list, query, PAGE, cursor.as_deref()).await?;
            let next = document.text("next").map(str::to_owned);
            page(document)?;
            match next {
                None => return Ok(()),
                Some(same) if cursor.as_ref() == Some(&same) => {
                    return Err(self.not_drover("a list whose next page is the one before".to_owned()));
                }
                Some(_) => cursor = next,
            }
        }
    }

    /// One page of a list.
    pub(super) async fn page(&self, list: &List, query: &[(&'static str, String)], limit: &str, cursor: Option<&str>) -> Result<Document, Failure> {
        let mut asked = query.to_vec();
        asked.push(("limit", limit.to_owned()));
        asked.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        self.many(self.send(Request::get(list.path).query(asked)).await?.document, list.marks)
    }

    async fn exchange(&self, request: &Request<'_>) -> Result<(u16, HeaderMap, Vec<u8>), Failure> {
        let url = self.url(request);
        let is_read = request.method == Method::GET;
        let known = self.rounds.borrow_mut().as_mut().filter(|_| is_read).and_then(|rounds| rounds.before.remove(&url));
        let mut sent = self.http.request(request.method.clone(), url.clone()).headers(request.headers.clone());
        if let Some(known) = &known {
            sent = sent.header(IF_NONE_MATCH, known.tag.clone());
        }
        if let Some(body) = &request.body {
            sent = sent.body(body.clone());
        }
        let mut response = sent.send().await.map_err(|error| self.no_answer(&request.method, error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.no_answer(&request.method, error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(self.not_drover(format!("an answer of more than {} MiB", MAX_ANSWER >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        if let Some(known) = known.filter(|_| status == NOT_MODIFIED) {
            let answer = (200, known.headers.clone(), known.body.clone());
            self.keep(url, known);
            return Ok(answer);
        }
        // A strong tag of the API names an entry of the store, not what is shown of it.
        if let Some(tag) = headers.get(ETAG).filter(|tag| is_read && status == 200 && tag.as_bytes().starts_with(b"W/")) {
            self.keep(url, Tagged { tag: tag.clone(), headers: headers.clone(), body: body.clone() });
        }
        Ok((status, headers, body))
    }

    fn keep(&self, url: Url, answer: Tagged) {
        if let Some(rounds) = self.rounds.borrow_mut().as_mut() {
            rounds.now.insert(url, answer);
        }
    }

    fn document(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<Option<Document>, Failure> {
        if body.is_empty() && (200..300).contains(&status) {
            return Ok(None);
        }
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
        let is_json = media_type.starts_with("application/json") || media_type.starts_with("application/problem+json");
        if !is_json {
            return Err(self.not_drover(format!("status {status} with {}", table::bounded(media_type, 60))));
        }
        serde_json::from_slice(body).map(Some).map_err(|error| self.not_drover(format!("status {status} with broken JSON ({error})")))
    }

    pub(super) fn not_drover(&self, what: String) -> Failure {
        Failure::NotDrover { server: self.server(), what }
    }

    fn no_answer(&self, method: &Method, error: reqwest::Error) -> Failure {
        let why = self.why(&error);
        // Before there is a connection nothing was sent.
        if *method == Method::GET || error.is_connect() {
            return Failure::Unreachable { server: self.server(), why };
        }
        Failure::Unknown { server: self.server(), why }
    }

    /// The last cause, which is the operating system's, the resolver's or the TLS library's; reqwest's own texts repeat the address.
    fn why(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() {
            let waited = if error.is_connect() { self.patience.connect } else { self.patience.answer };
            return format!("no answer within {} s", waited.as_secs());
        }
        let mut last = error.source();
        while let Some(cause) = last {
            if let Some(system) = cause.downcast_ref::<io::Error>()
                && system.kind() == io::ErrorKind::ConnectionRefused
            {
                return "connection refused".to_owned();
            }
            match cause.source() {
                Some(deeper) => last = Some(deeper),
                None => break,
            }
        }
        let text = last.map_or_else(|| error.to_string(), ToString::to_string);
        if text.contains("certificate") { format!("{text}; a private authority's certificates are read from SSL_CERT_FILE") } else { text }
    }
}

/// The header that a token's file makes.
fn bearer(path: &Path) -> Result<HeaderValue, Failure> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| Failure::Setting(format!("the token's file {shown} cannot be read: {error}")))?;
    if bytes.len() > MAX_TOKEN {
        return Err(Failure::Setting(format!("the token's file {shown} has more than {MAX_TOKEN} bytes; it holds the token and nothing else")));
    }
    let text = String::from_utf8_lossy(&bytes);
    let token = text.trim();
    let is_token = !token.is_empty() && token.chars().all(|character| character.is_ascii_graphic());
    if !is_token {
        return Err(Failure::Setting(format!("the token's file {shown} does not hold one token on one line")));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Failure::Setting(format!("the token in {shown} is none")))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(base: &str) -> Client {
        Client::new(server_url(base).expect("a URL"), None, Trust::Verified, Patience::default()).expect("a client")
    }

    #[test]
    fn a_name_stays_one_segment_of_the_path() {
        let request = Request::get(&["api", "v1", "dead-letters", "a/../b?x#y:3"]).query(vec![("since", "2026-01-31T00:00:00+02:00".to_owned())]);
        assert_eq!(
            client("http://h:1/base/").url(&request).as_str(),
            "http://h:1/base/api/v1/dead-letters/a%2F..%2Fb%3Fx%23y:3?since=2026-01-31T00%3A00%3A00%2B02%3A00"
        );
        assert_eq!(client("http://h:1").url(&Request::get(&["livez"])).as_str(), "http://h:1/livez");
    }

    #[test]
    fn an_address_that_is_none_or_holds_a_secret_is_refused() {
        for text in ["", "127.0.0.1:8080", "localhost:8080", "ftp://h", "http://u:p@h", "http://h?x=1", "http://h#x", "http://"] {
            assert!(server_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_loopback_address_is_told_by_its_host() {
        for (text, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://localhost.example.org", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&server_url(text).expect("a URL")), expected, "{text}");
        }
    }

    #[test]
    fn a_token_file_with_anything_but_one_token_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        for (content, is_good) in
            [("abc\n", true), ("  abc-._~+/=  \n", true), ("", false), ("\n", false), ("a b", false), ("a\nb", false), ("t\u{e9}", false)]
        {
            std::fs::write(&path, content).expect("a file");
            assert_eq!(bearer(&path).is_ok(), is_good, "{content:?}");
        }
        std::fs::write(&path, "x".repeat(MAX_TOKEN + 1)).expect("a file");
        assert!(bearer(&path).is_err());
        assert!(bearer(&folder.path().join("none")).is_err_and(|failure| failure.exit_code() == 78));
    }
}
