//! What is refused before a handler sees it: a foreign `Host`, a request without the token that it needs, a change from a foreign page, a body that announces itself as too large.
//!
//! Guarantees that a page on another site can neither read through a rebound DNS name (its `Host` is not ours: 421) nor change anything (403). Programs send
//! neither `Sec-Fetch-Site` nor `Origin` and pass. Probes and metrics are exempt from the check of `Host`, because a kubelet sends the pod's address.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;

use super::auth::{self, Caller};
use super::problem::ApiError;
use super::{ProblemCode, Shared};

/// Paths that answer under any host.
const OPEN_PATHS: [&str; 4] = ["/livez", "/readyz", "/healthz", "/metrics"];

/// What is read of a refused body at the most, and how long that may take.
const MOST_DISCARDED: usize = 4 << 20;
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// Whether the path is a probe's or the metrics'.
pub(super) fn is_open_path(path: &str) -> bool {
    OPEN_PATHS.contains(&path)
}

/// Lets a request through or answers for it.
pub(super) async fn check(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let tokens = state.tokens.as_ref().map(|views| views.borrow().value.clone());
    let caller = tokens.as_ref().and_then(|tokens| auth::caller(request.headers(), tokens));
    let mut response = match refusal(&request, &state, caller.as_ref()) {
        None => {
            request.extensions_mut().extend(extensions_of(caller.as_ref()));
            next.run(request).await
        }
        Some(error) => {
            // A client that waits to be told to go on has sent nothing.
            if !request.headers().contains_key(header::EXPECT) {
                let _ = tokio::time::timeout(DISCARD_WITHIN, discard(request.into_body())).await;
            }
            error.into_response()
        }
    };
    response.extensions_mut().extend(extensions_of(caller.as_ref()));
    response
}

/// What tells handlers and the log who asks.
fn extensions_of(caller: Option<&Caller>) -> Extensions {
    let mut extensions = Extensions::new();
    if let Some(caller) = caller {
        extensions.insert(caller.clone());
    }
    extensions
}

/// Reads a refused body away, up to a bound: a connection that is closed on a client that is still sending is reset, and the client never sees why it was refused.
async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    while bytes < MOST_DISCARDED
        && let Some(Ok(chunk)) = chunks.next().await
    {
        bytes += chunk.len();
    }
}

fn refusal(request: &Request, state: &Shared, caller: Option<&Caller>) -> Option<ApiError> {
    let headers = request.headers();
    let path = request.uri().path();
    if !is_open_path(path) && !is_own_host(request.uri(), headers, &state.allowed_hosts) {
        let remedy = "the API answers under loopback names and those in allowed_hosts; add the name there";
        return Some(ApiError::new(ProblemCode::MisdirectedRequest, remedy));
    }
    if state.tokens.is_some()
        && let Some(error) = auth::refusal(auth::needed(request.method(), path, &state.http), caller, headers)
    {
        return Some(error);
    }
    if request.method().is_safe() {
        return None;
    }
    if is_cross_site(headers) {
        return Some(ApiError::new(ProblemCode::Forbidden, "a page of another site must not change anything here"));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|length| length.parse::<u64>().ok());
    let max_body = state.http.max_body;
    if announced.is_some_and(|length| length > max_body) {
        return Some(ApiError::new(ProblemCode::PayloadTooLarge, format!("a body has at most {max_body} bytes")));
    }
    None
}

/// Whether every name that the request gives for its host is ours.
fn is_own_host(uri: &Uri, headers: &HeaderMap, allowed_hosts: &[String]) -> bool {
    let mut names = Vec::new();
    for value in headers.get_all(header::HOST) {
        let Ok(text) = value.to_str() else { return false };
        names.push(text);
    }
    if let Some(authority) = uri.authority() {
        names.push(authority.as_str());
    }
    // HTTP/1.0 needs no host; a browser always sends one, but a request without any proves nothing.
    !names.is_empty() && names.iter().all(|name| is_allowed(name, allowed_hosts))
}

fn is_allowed(authority: &str, allowed_hosts: &[String]) -> bool {
    let Some(host) = host_name(authority) else { return false };
    if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return true;
    }
    allowed_hosts.iter().filter_map(|allowed| host_name(allowed)).any(|allowed| allowed == host)
}

/// The host of `host[:port]` in lower case, without brackets and trailing dot; `None` for what is none, such as an authority with a user.
fn host_name(authority: &str) -> Option<String> {
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let authority = authority.trim();
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let rest_is_legal = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| rest_is_legal).map(|address| address.to_string());
    }
    let host = match authority.split_once(':') {
        Some((host, port)) if is_port(port) => host,
        // An allow-listed IPv6 address may be written without brackets.
        Some(_) => return authority.parse::<Ipv6Addr>().ok().map(|address| address.to_string()),
        None => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    (!host.is_empty() && host.chars().all(is_legal)).then(|| host.to_ascii_lowercase())
}

/// Whether a browser says that the request comes from elsewhere: by `Sec-Fetch-Site`, or, from browsers without it, by an `Origin` that is not the host.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter().peekable();
    if sites.peek().is_some() {
        // `same-site` includes other ports of this machine, which are other programs.
        return !sites.all(|site| site == "same-origin" || site == "none");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (origin, host) {
        (Some(origin), Some(host)) => !origin.eq_ignore_ascii_case(host),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn own(host: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        is_allowed(host, &allowed)
    }

    #[test]
    fn a_rebound_name_is_not_ours() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "user@localhost",
            "localhost:80:80",
            "",
            "127.0.0.1.nip.io",
            "[::2]",
            "[::1",
            "[::1]x",
            "10.0.0.1",
        ] {
            assert!(!own(host, &[]), "{host}");
        }
    }

    #[test]
    fn loopback_and_allowed_names_are_ours() {
        for host in ["localhost", "LOCALHOST:8080", "localhost.", "127.0.0.1", "127.8.9.1:1", "[::1]", "[::1]:8080"] {
            assert!(own(host, &[]), "{host}");
        }
        assert!(own("Drover.Example:443", &["drover.example"]));
        assert!(own("drover.example", &["drover.example:8080"]));
        assert!(own("[fd00::1]:80", &["fd00::1"]));
        assert!(!own("other.example", &["drover.example"]));
    }

    #[test]
    fn a_second_host_cannot_hide_behind_the_first() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(is_own_host(&Uri::from_static("/"), &headers, &[]));
        assert!(!is_own_host(&Uri::from_static("http://evil.example/"), &headers, &[]));
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(!is_own_host(&Uri::from_static("/"), &headers, &[]));
        assert!(!is_own_host(&Uri::from_static("/"), &HeaderMap::new(), &[]));
    }

    #[test]
    fn a_foreign_page_is_recognised_with_and_without_fetch_metadata() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            is_cross_site(&headers)
        };
        assert!(!with(&[]));
        assert!(!with(&[("sec-fetch-site", "same-origin")]));
        assert!(!with(&[("sec-fetch-site", "none")]));
        assert!(with(&[("sec-fetch-site", "cross-site")]));
        assert!(with(&[("sec-fetch-site", "same-site")]));
        assert!(with(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
        assert!(!with(&[("origin", "http://localhost:8080"), ("host", "localhost:8080")]));
        assert!(with(&[("origin", "http://localhost:9090"), ("host", "localhost:8080")]));
        assert!(with(&[("origin", "null"), ("host", "localhost")]));
    }
}
