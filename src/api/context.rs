//! What surrounds every request: its id, its log line, its problem, its security headers.
//!
//! Guarantees that each answer carries `x-request-id`, the client's own when that is harmless; that errors from any layer are problems; that nothing is cached or framed by
//! accident. Probes and metrics are logged at `debug`, because they come every few seconds.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::auth::Caller;
use super::guard::is_open_path;
use super::serve::Peer;
use super::{problem, text};

/// The header of a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a client.
const MAX_REQUEST_ID: usize = 64;
/// Characters of a path that are logged.
const MAX_LOGGED_PATH: usize = 300;

/// What every answer carries unless its handler says otherwise. The API's answers are no documents, so nothing may be loaded from them.
const DEFAULT_HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The request's id, for whoever handles the request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// The outermost layer.
pub(super) async fn finish(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());

    let span = tracing::info_span!("request", %request_id);
    let response = next.run(request).instrument(span).await;
    let actor = response.extensions().get::<Caller>().map(|Caller(holder)| text::bounded(&holder.name, 100));
    let actor = actor.as_deref().unwrap_or("-");
    let mut response = complete(response, &request_id);

    let status = response.status().as_u16();
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let shown_path = text::bounded(&path, MAX_LOGGED_PATH);
    let shown_method = text::bounded(method.as_str(), 20);
    let peer = peer.as_deref().unwrap_or("-");
    if response.status().is_server_error() && !is_open_path(&path) {
        tracing::warn!(request_id, actor, peer, method = shown_method, path = shown_path, status, milliseconds, "request failed");
    } else if method.is_safe() {
        tracing::debug!(request_id, actor, peer, method = shown_method, path = shown_path, status, milliseconds, "request answered");
    } else {
        tracing::info!(request_id, actor, peer, method = shown_method, path = shown_path, status, milliseconds, "request answered");
    }

    if method == Method::HEAD {
        // Problems are rendered outside the router, which empties only its own answers to HEAD.
        *response.body_mut() = Body::empty();
    }
    response
}

/// The answer as it goes out: an error is a problem, and the headers are there that every answer has.
pub(super) fn complete(response: Response, request_id: &str) -> Response {
    let mut response = problem::finish(response, request_id);
    let headers = response.headers_mut();
    for (name, value) in DEFAULT_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

/// The client's id when it is short and harmless, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if is_harmless(id) => id.to_owned(),
        _ => new_request_id(),
    }
}

/// An id for a request that brought none.
pub(super) fn new_request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn is_harmless(id: &str) -> bool {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_replaced() {
        for id in ["", "a b", "a\tb", "a/b", "<script>", &"a".repeat(65)] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).expect("a header"));
            let made = request_id(&headers);
            assert_ne!(made, id);
            assert!(is_harmless(&made), "{made}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("trace-1.a_B"));
        assert_eq!(request_id(&headers), "trace-1.a_B");
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
    async fn a_log_line_carries_the_id_and_cannot_be_forged() {
        use tower::ServiceExt as _;

        let (lines, logged) = std::sync::mpsc::channel();
        let lines = Lines(lines);
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).with_writer(move || lines.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let router = axum::Router::new().fallback(|| async { axum::http::StatusCode::NOT_FOUND }).layer(axum::middleware::from_fn(finish));
        let request = axum::http::Request::post("/a%0Ab\u{202e}").header("x-request-id", "trace-1").body(Body::empty()).expect("a request");
        router.oneshot(request).await.expect("infallible");

        let log: String = logged.try_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
        let line = log.lines().find(|line| line.contains("request answered")).expect("a log line");
        for part in ["trace-1", "POST", "/a%0Ab", "404"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains('\u{202e}'), "{line}");
    }
}
