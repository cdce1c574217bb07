use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::Response;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::super::reread::POLL_INTERVAL;
use super::*;
use crate::api::tests::{Answer, assert_declared, assert_problem, snapshot, state};
use crate::api::{ApiState, document, router};

const READER: &str = "drover_reader-token";
const WRITER: &str = "drover_writer-token";

fn line(name: &str, role: Role, token: &str) -> String {
    format!("  - {{name: {name}, role: {}, sha256: {}}}\n", role.as_str(), tokens::hash(token.as_bytes()))
}

fn both() -> String {
    format!("tokens:\n{}{}", line("grafana", Role::Read, READER), line("ci", Role::Write, WRITER))
}

fn view(text: &str) -> TokensView {
    let tokens = tokens::parse(text.as_bytes(), std::path::Path::new("."), &|_| None).expect("legal");
    TokensView::new(Reading { value: tokens, content_hash: tokens::hash(text.as_bytes()) })
}

fn guarded() -> ApiState {
    guarding(state())
}

/// The same API with both tokens.
pub(in crate::api) fn guarding(state: ApiState) -> ApiState {
    ApiState { tokens: Some(watch::channel(view(&both())).1), ..state }
}

pub(in crate::api) fn closed(state: ApiState) -> ApiState {
    let http = HttpConfig { open_probes: false, open_metrics: false, ..state.http.clone() };
    ApiState { http, ..state }
}

/// One request; the body of the answer is not read, since a stream has no end.
async fn open(state: &ApiState, method: &str, path: &str, authorization: &[&str]) -> Response {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost").header("accept", "*/*");
    for value in authorization {
        request = request.header("authorization", *value);
    }
    router(state.clone()).oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible")
}

async fn ask(state: &ApiState, method: &str, path: &str, authorization: &[&str]) -> Answer {
    let (parts, body) = open(state, method, path, authorization).await.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Every operation of the document: method, template, and a path of something that is there.
fn operations() -> Vec<(String, String, String)> {
    let document = serde_json::to_value(document()).expect("a document");
    let mut operations = Vec::new();
    for (template, item) in document["paths"].as_object().expect("paths") {
        let path = template.replace("{topic}", "orders").replace("{partition}", "0").replace("{id}", "other:0:1").replace("{kind}", "file");
        assert!(!path.contains('{'), "{path}");
        for method in item.as_object().expect("an item").keys().filter(|key| ["get", "put", "post", "delete", "patch"].contains(&key.as_str())) {
            operations.push((method.to_uppercase(), template.clone(), path.clone()));
        }
    }
    assert!(operations.len() > 30, "{operations:?}");
    operations
}

#[tokio::test]
async fn each_operation_opens_to_its_role_alone() {
    let guarded = closed(guarded());
    let (mut reads, mut writes) = (0, 0);
    for (method, template, path) in operations() {
        let is_public = template == "/openapi.json";
        for wrong in [&[][..], &["Bearer drover_other"], &["Basic Y2k6Y2k="], &["Bearer"], &[READER], &[&bearer(READER), &bearer(READER)]] {
            let response = open(&guarded, &method, &path, wrong).await;
            if is_public {
                assert_eq!(response.status(), StatusCode::OK, "{path} {wrong:?}");
                continue;
            }
            let (parts, body) = response.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body").to_vec();
            let answer = Answer { status: parts.status, headers: parts.headers, body };
            assert_problem(&answer, ProblemCode::Unauthorized);
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
            assert_declared(&method, &template, &answer);
        }
        let status = open(&guarded, &method, &path, &[&bearer(WRITER)]).await.status();
        assert!(!matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), "{method} {path}: {status}");
        let response = open(&guarded, &method, &path, &[&bearer(READER)]).await;
        if method == "GET" {
            reads += 1;
            assert!(!matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), "{method} {path}");
            continue;
        }
        writes += 1;
        let answer = ask(&guarded, &method, &path, &[&bearer(READER)]).await;
        assert_problem(&answer, ProblemCode::Forbidden);
        assert_declared(&method, &template, &answer);
        assert_eq!(answer.json()["detail"], "the token 'grafana' has the role read, and this needs the role write");
        assert_eq!(answer.header("www-authenticate"), "");
    }
    assert!(reads > 15 && writes > 10, "{reads} {writes}");
}

#[tokio::test]
async fn without_tokens_everybody_may_do_everything_and_a_token_is_not_looked_at() {
    for (method, _, path) in operations() {
        for authorization in [&[][..], &["Bearer x"], &["Basic x"]] {
            let status = open(&state(), &method, &path, authorization).await.status();
            assert!(!matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn who_asks_learns_what_they_may_do() {
    let caller = async |state: &ApiState, authorization: &[&str]| {
        let answer = ask(state, "GET", "/api/v1/info", authorization).await;
        assert_declared("GET", "/api/v1/info", &answer);
        answer.json()["caller"].clone()
    };
    let guarded = guarded();
    assert_eq!(caller(&guarded, &[&bearer(READER)]).await, serde_json::json!({"name": "grafana", "role": "read"}));
    assert_eq!(caller(&guarded, &[&bearer(WRITER)]).await["role"], "write");
    assert_eq!(caller(&state(), &[]).await, serde_json::json!({"name": "anonymous", "role": "write"}));
}

#[tokio::test]
async fn with_an_empty_list_nobody_gets_in() {
    let nobody = ApiState { tokens: Some(watch::channel(view("tokens: []")).1), ..state() };
    assert_eq!(ask(&nobody, "GET", "/api/v1/info", &[&bearer(READER)]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_is_open_stays_open_and_the_rest_is_not_told_apart() {
    let guarded = guarded();
    for path in ["/livez", "/readyz", "/healthz", "/metrics", "/openapi.json", "/"] {
        for authorization in [&[][..], &["Bearer wrong"]] {
            assert_eq!(ask(&guarded, "GET", path, authorization).await.status, StatusCode::OK, "{path}");
            assert_eq!(ask(&guarded, "HEAD", path, authorization).await.status, StatusCode::OK, "{path}");
        }
    }
    for path in ["/api/v1/none", "/none", "/livez/", "//livez", "/LIVEZ", "/api/v1/topics/none", "/assets", "/%6civez", "/metrics/../api/v1/info"] {
        let answer = ask(&guarded, "GET", path, &[]).await;
        assert_problem(&answer, ProblemCode::Unauthorized);
    }
    assert_eq!(ask(&guarded, "GET", "/assets/../api/v1/info", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(&guarded, "HEAD", "/api/v1/info", &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&guarded, "HEAD", "/api/v1/info", &[&bearer(READER)]).await.status, StatusCode::OK);
    let half = closed(state());
    assert_eq!(ask(&half, "GET", "/metrics", &[]).await.status, StatusCode::OK, "closed is a matter of tokens, and there are none");
}

#[tokio::test]
async fn a_foreign_page_or_host_gets_nothing_with_a_token_either() {
    let guarded = guarded();
    for (header, value, code) in [("host", "evil.example", ProblemCode::MisdirectedRequest), ("sec-fetch-site", "cross-site", ProblemCode::Forbidden)]
    {
        let host = if header == "host" { value } else { "localhost" };
        let mut request = Request::put("/api/v1/topics/orders").header("host", host).header("authorization", bearer(WRITER));
        if header != "host" {
            request = request.header(header, value);
        }
        let response = router(guarded.clone()).oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible");
        assert_eq!(response.status(), code.status(), "{header}");
    }
}

#[tokio::test]
async fn the_page_shows_nothing_of_the_instance_to_whoever_has_no_token() {
    let guarded = guarded();
    let page = async |authorization: &[&str]| {
        let mut request = Request::get("/?lang=en").header("host", "localhost").header("accept", "text/html");
        for value in authorization {
            request = request.header("authorization", *value);
        }
        let response = router(guarded.clone()).oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        String::from_utf8(body.to_vec()).expect("UTF-8")
    };
    for wrong in [&[][..], &["Bearer wrong"]] {
        let shown = page(wrong).await;
        assert!(shown.contains("/src/main.js") && shown.contains("token"), "{shown}");
        for told in ["orders", "golang_log", "host-1", "broke", "class=\"verdict"] {
            assert!(!shown.contains(told), "{told}");
        }
    }
    let shown = page(&[&bearer(READER)]).await;
    assert!(shown.contains("orders") && shown.contains("host-1"), "{shown}");
}

#[tokio::test]
async fn a_token_that_is_taken_out_opens_nothing_more_and_ends_its_streams() {
    use futures::StreamExt as _;

    let (tokens, views) = watch::channel(view(&both()));
    // A stream ends with the snapshots, too.
    let (_snapshots, snapshot) = watch::channel(Arc::new(snapshot()));
    let guarded = ApiState { tokens: Some(views), snapshot, ..state() };
    let response = open(&guarded, "GET", "/api/v1/stream", &[&bearer(READER)]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let other = open(&guarded, "GET", "/api/v1/stream", &[&bearer(WRITER)]).await;

    // The same name and role with another token: the old one is not in force any more.
    tokens.send_replace(view(&format!("tokens:\n{}{}", line("grafana", Role::Read, "drover_new"), line("ci", Role::Write, WRITER))));
    let whole = tokio::time::timeout(Duration::from_secs(20), axum::body::to_bytes(response.into_body(), usize::MAX)).await;
    let whole = String::from_utf8(whole.expect("the stream ends").expect("a body").to_vec()).expect("UTF-8");
    assert!(whole.contains("bye") && whole.contains("not in force any more"), "{whole}");
    let answer = ask(&guarded, "GET", "/api/v1/info", &[&bearer(READER)]).await;
    assert_problem(&answer, ProblemCode::Unauthorized);
    assert_eq!(ask(&guarded, "GET", "/api/v1/info", &[&bearer("drover_new")]).await.status, StatusCode::OK);
    // The other one goes on.
    let mut frames = other.into_body().into_data_stream();
    for _ in 0..3 {
        let frame = tokio::time::timeout(Duration::from_secs(20), frames.next()).await.expect("a frame").expect("a frame").expect("bytes");
        assert!(!String::from_utf8_lossy(&frame).contains("bye"), "{frame:?}");
    }
    assert!(futures::poll!(frames.next()).is_pending());
}

#[test]
fn a_file_that_breaks_or_goes_while_it_runs_changes_nothing_and_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    std::fs::write(&path, both()).expect("a file");
    let (file, views) = tokens_file(path.clone(), BTreeMap::new()).expect("tokens");
    let known = || views.borrow().value.holder(READER.as_bytes()).is_some();
    let error = || views.borrow().error.clone();
    file.read_again();
    assert!(known() && error().is_none());

    std::fs::write(&path, "").expect("a file");
    file.read_again();
    assert!(known() && error().is_some_and(|error| error.contains("tokens.yaml, line 1: tokens: no tokens")), "{:?}", error());
    std::fs::write(&path, format!("tokens: [{{name: a, role: write, sha256: {WRITER}}}]")).expect("a file");
    file.read_again();
    assert!(known() && error().is_some_and(|error| error.contains("tokens[0].sha256") && !error.contains(WRITER)), "{:?}", error());
    std::fs::remove_file(&path).expect("a file");
    file.read_again();
    assert!(known() && error().is_some_and(|error| error.contains("No such file")), "{:?}", error());

    // The same content as before the trouble ends the trouble.
    std::fs::write(&path, both()).expect("a file");
    file.read_again();
    assert!(known() && error().is_none());
    // A swapped link is another content.
    std::fs::write(folder.path().join("next.yaml"), "tokens: []").expect("a file");
    std::fs::remove_file(&path).expect("a file");
    std::os::unix::fs::symlink("next.yaml", &path).expect("a link");
    file.read_again();
    assert!(!known() && error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_in_force_within_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    std::fs::write(&path, both()).expect("a file");
    let (file, mut views) = tokens_file(path.clone(), BTreeMap::new()).expect("tokens");
    let cancel = CancellationToken::new();
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::fs::write(&path, "tokens: []").expect("a file");
        let gone = views.wait_for(|view| view.value.is_empty());
        tokio::time::timeout(POLL_INTERVAL * 2, gone).await.expect("in time").expect("watched");
        cancel.cancel();
    };
    tokio::join!(file.run(cancel.clone()), change);
}

#[test]
fn a_missing_or_broken_file_refuses_the_start_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.yaml");
    let error = tokens_file(path.clone(), BTreeMap::new()).map(drop).expect_err("missing");
    assert!(error.contains("tokens.yaml") && error.contains("No such file"), "{error}");
    std::fs::write(&path, "tokens:\n  - {name: a}\n").expect("a file");
    let error = tokens_file(path, BTreeMap::new()).map(drop).expect_err("broken");
    assert!(error.contains("line 2: tokens[0].role: this is missing (and 1 more"), "{error}");
}

const HTTP: HttpConfig = HttpConfig { open_probes: true, open_metrics: true, max_connections: 1, max_body: 1, header_timeout: Duration::ZERO };

#[test]
fn each_probe_and_the_metrics_close_on_their_own() {
    let role = |path: &str, open_probes: bool, open_metrics: bool| needed(&Method::GET, path, &HttpConfig { open_probes, open_metrics, ..HTTP });
    for probe in ["/livez", "/readyz", "/healthz"] {
        assert_eq!((role(probe, true, false), role(probe, false, true)), (None, Some(Role::Read)), "{probe}");
    }
    assert_eq!((role("/metrics", false, true), role("/metrics", true, false)), (None, Some(Role::Read)));
}

proptest! {
    #[test]
    fn whatever_is_not_open_by_name_needs_a_role(path in "/[ -~]{0,40}", method in "(GET|HEAD|OPTIONS|TRACE|PUT|POST|DELETE|PATCH|CONNECT|X-OTHER)") {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let is_open = ["/", "/openapi.json", "/livez", "/readyz", "/healthz", "/metrics"].contains(&path.as_str()) || path.starts_with("/assets/");
        let role = needed(&method, &path, &HTTP);
        prop_assert_eq!(role.is_none(), is_open);
        if !is_open {
            let is_read = ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&method.as_str());
            prop_assert_eq!(role, Some(if is_read { Role::Read } else { Role::Write }));
        }
    }

    #[test]
    fn no_authorization_panics_or_opens(value in proptest::collection::vec(any::<u8>(), 0..60)) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value);
        let view = view(&both());
        let caller = caller(&headers, &view.value);
        prop_assert!(caller.is_none());
        prop_assert!(refusal(Some(Role::Read), caller.as_ref(), &headers).is_some());
        prop_assert!(refusal(None, caller.as_ref(), &headers).is_none());
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_the_token_as_it_is(scheme in "[Bb][Ee][Aa][Rr][Ee][Rr]", spaces in " {1,3}", token in "[!-~]{1,60}") {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("{scheme}{spaces}{token}")).expect("a header"));
        prop_assert_eq!(presented(&headers), Ok(Some(token.as_bytes())));
    }
}
