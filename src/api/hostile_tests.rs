//! Hostile and broken requests, byte for byte over a connection: each gets a 4xx that is a problem, and none a 5xx, a connection that is dropped without a word, or one that hangs.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ApiState;
use super::ProblemCode::{self, *};
use super::auth::tests::guarding;
use super::serve::tests::{DEADLINE, against};
use super::write_tests::{Mood, moody};

/// What a request is answered with.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// A problem.
    Problem(ProblemCode),
    /// It is harmless, and answered as any other.
    Served(u16),
}
use Expected::{Problem, Served};

/// One request: its name, its bytes, what it gets.
type Row = (String, Vec<u8>, Expected);

fn row(name: &str, bytes: impl Into<Vec<u8>>, expected: Expected) -> Row {
    (name.to_owned(), bytes.into(), expected)
}

/// A GET with these lines in its head.
fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n")
}

/// A PUT of a topic with a JSON body.
fn put(body: &[u8]) -> Vec<u8> {
    put_as("Content-Type: application/json\r\n", body)
}

fn put_as(lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn with_host(host: &str) -> String {
    format!("GET /api/v1/info HTTP/1.1\r\n{host}Connection: close\r\n\r\n")
}

/// The API with a store that takes what it is given.
fn open_state() -> ApiState {
    let mut state = moody(Mood::Deaf);
    state.http.max_connections = 500;
    // Long enough for a machine that is busy, short enough to be waited for.
    state.http.header_timeout = Duration::from_secs(4);
    state
}

/// Bodies, and what says how they are to be read.
fn bodies() -> Vec<Row> {
    let gzip: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let deep = format!("{{\"labels\": {}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    vec![
        row("no content type", put_as("", b"{}"), Problem(UnsupportedMediaType)),
        row("a wrong content type", put_as("Content-Type: text/html\r\n", b"{}"), Problem(UnsupportedMediaType)),
        row("a content type that is none", put_as("Content-Type: \x01;;=\r\n", b"{}"), Problem(InvalidRequest)),
        row("a content type of bytes", put_as("Content-Type: \u{e9}\r\n", b"{}"), Problem(UnsupportedMediaType)),
        row("a charset", put_as("Content-Type: application/json; charset=utf-8\r\n", b"{}"), Served(201)),
        row("another charset", put_as("Content-Type: application/json; charset=utf-16\r\n", b"\xff\xfe{\0}\0"), Problem(InvalidRequest)),
        row("a byte order mark", put(b"\xef\xbb\xbf{}"), Problem(InvalidRequest)),
        row("text after the object", put(b"{} {}"), Problem(InvalidRequest)),
        row("a key twice", put(b"{\"index\": \"a\", \"index\": \"b\"}"), Problem(InvalidRequest)),
        row("no UTF-8", put(b"{\"index\": \"\xff\"}"), Problem(InvalidRequest)),
        row("a lone surrogate", put(b"{\"index\": \"\\ud800\"}"), Problem(InvalidRequest)),
        row("a deep body", put(deep.as_bytes()), Problem(InvalidRequest)),
        row("a number beyond all", put(b"{\"index\": 1e999}"), Problem(InvalidRequest)),
        row("an empty body", put(b""), Problem(InvalidRequest)),
        row("a compressed body", put_as("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", gzip), Problem(InvalidRequest)),
        row("a body over the limit", put(&vec![b' '; 70_000]), Problem(PayloadTooLarge)),
        row("a mebibyte", put(&vec![b' '; 1 << 20]), Problem(PayloadTooLarge)),
        row(
            "chunks over the limit",
            [
                b"PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_vec(),
                b"20000\r\n".to_vec(),
                vec![b' '; 0x20000],
                b"\r\n0\r\n\r\n".to_vec(),
            ]
            .concat(),
            Problem(PayloadTooLarge),
        ),
        row(
            "a chunk without a size",
            "PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
            Problem(InvalidRequest),
        ),
        row("a body that never comes although it was asked for", put_without_body("Expect: 100-continue\r\n"), Problem(InvalidRequest)),
        row("a body that never comes", put_without_body(""), Problem(InvalidRequest)),
        row("an expectation that nobody knows", put_as("Content-Type: application/json\r\nExpect: 200-maybe\r\n", b"{}"), Served(201)),
        row("two lengths", "PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", Problem(InvalidRequest)),
        row("a negative length", "PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", Problem(InvalidRequest)),
        row("a length beyond all", "PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n", Problem(InvalidRequest)),
        row("a length of 2^63", "PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775808\r\nExpect: 100-continue\r\n\r\n", Problem(PayloadTooLarge)),
    ]
}

fn put_without_body(lines: &str) -> String {
    format!(
        "PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\nConnection: close\r\n{lines}\r\n"
    )
}

/// Paths and queries.
fn paths() -> Vec<Row> {
    let mut rows = Vec::new();
    for segment in [
        "%00",
        "%2e%2e%2f",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "%252e%252e%252f",
        "a;b",
        "a%0d%0aX: y",
        "%ff",
        "%E6%97%A5",
        "a%20b",
        "%",
        "%zz",
        "__consumer_offsets",
    ] {
        rows.push(row(
            &format!("the topic {segment}"),
            get(&format!("/api/v1/topics/{}", segment.replace(' ', "%20")), ""),
            Problem(ValidationFailed),
        ));
    }
    for path in [
        "//api/v1/topics",
        "/api/v1//topics",
        "/api/v1/topics/../info",
        "/api/v1/topics/",
        "/./api/v1/info",
        "/API/v1/topics",
        "/assets/../../etc/passwd",
        "/assets/%2e%2e%2fCargo.toml",
        "/api/v1/topics;v=1",
    ] {
        rows.push(row(&format!("the path {path}"), get(path, ""), Problem(NotFound)));
    }
    let pairs = |count: usize| (0..count).map(|number| format!("p{number}=1")).collect::<Vec<_>>().join("&");
    rows.extend([
        row("a long path", get(&format!("/{}", "a".repeat(30_000)), ""), Problem(NotFound)),
        row("a path longer than a head", get(&format!("/{}", "a".repeat(60_000)), ""), Problem(RequestHeaderFieldsTooLarge)),
        row("a path longer than any", get(&format!("/{}", "a".repeat(70_000)), ""), Problem(RequestHeaderFieldsTooLarge)),
        row("3,000 parameters", get(&format!("/api/v1/topics?{}", pairs(3_000)), ""), Problem(InvalidRequest)),
        row("10,000 parameters", get(&format!("/api/v1/topics?{}", pairs(10_000)), ""), Problem(RequestHeaderFieldsTooLarge)),
        row("a parameter 7,000 times", get(&format!("/api/v1/topics?{}", ["q=1"; 7_000].join("&")), ""), Problem(InvalidRequest)),
        row("a parameter twice", get("/api/v1/topics?limit=1&limit=1", ""), Problem(InvalidRequest)),
        row("a parameter of bytes", get("/api/v1/topics?limit=%ff%00", ""), Problem(InvalidRequest)),
        row("a fragment", get("/api/v1/topics#x", ""), Served(200)),
        row("a path with a space", get("/api/v1/topics/a b", ""), Problem(InvalidRequest)),
        row("bytes in the path", b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Problem(InvalidRequest)),
    ]);
    rows
}

/// Methods, versions, heads.
fn heads() -> Vec<Row> {
    let many: String = (0..1000).map(|number| format!("h{number}: 1\r\n")).collect();
    let mut rows = vec![
        row("OPTIONS", "OPTIONS /api/v1/topics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", Problem(MethodNotAllowed)),
        row("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", Problem(NotFound)),
        row("TRACE", "TRACE /api/v1/topics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", Problem(MethodNotAllowed)),
        row("BREW", "BREW /api/v1/topics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", Problem(MethodNotAllowed)),
        row("CONNECT", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", Problem(NotFound)),
        row("a method of bytes", b"G\xffT / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Problem(InvalidRequest)),
        row("no method", " / HTTP/1.1\r\nHost: localhost\r\n\r\n", Problem(InvalidRequest)),
        row("HTTP/0.9", "GET /livez\r\n\r\n", Problem(InvalidRequest)),
        row("HTTP/3", "GET /livez HTTP/3.0\r\nHost: localhost\r\n\r\n", Problem(InvalidRequest)),
        row("HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0", Problem(InvalidRequest)),
        row(
            "h2c",
            get("/api/v1/info", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"),
            Served(200),
        ),
        row(
            "a web socket",
            get(
                "/api/v1/stream",
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAccept: application/json\r\n",
            ),
            Problem(NotAcceptable),
        ),
        row("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), Problem(InvalidRequest)),
        row("nothing but ends of lines", "\r\n".repeat(50_000), Problem(RequestHeaderFieldsTooLarge)),
        row("a NUL in a header", get("/livez", "A: \0\r\n"), Problem(InvalidRequest)),
        row("a header without a name", get("/livez", ": x\r\n"), Problem(InvalidRequest)),
        row("a space before the colon", get("/livez", "A : x\r\n"), Problem(InvalidRequest)),
        row("a folded header", get("/livez", "A: b\r\n c\r\n"), Problem(InvalidRequest)),
        row("a thousand headers", get("/livez", &many), Problem(RequestHeaderFieldsTooLarge)),
        row("a header of 64 KiB", get("/livez", &format!("A: {}\r\n", "a".repeat(64 << 10))), Problem(RequestHeaderFieldsTooLarge)),
        row("a header of 1 MiB", get("/livez", &format!("A: {}\r\n", "a".repeat(1 << 20))), Problem(RequestHeaderFieldsTooLarge)),
        row("a range", get("/openapi.json", "Range: bytes=0-10\r\n"), Served(200)),
        row("a hundred ranges", get("/openapi.json", &format!("Range: bytes={}\r\n", ["0-"; 100].join(","))), Served(200)),
    ];
    for value in ["r5", "\"r5", "5, *", "W/r5", "\"\u{e9}\"x", ""] {
        let lines = format!("Content-Type: application/json\r\nIf-Match: {value}\r\n");
        rows.push(row(&format!("If-Match: {value}"), put_as(&lines, b"{}"), Problem(InvalidRequest)));
    }
    for accept in ["image/png", "text/html;q=0", "a", "/", ""] {
        let expected = if accept.is_empty() { Served(200) } else { Problem(NotAcceptable) };
        rows.push(row(&format!("Accept: {accept}"), get("/api/v1/topics", &format!("Accept: {accept}\r\n")), expected));
    }
    rows
}

/// Who asks, and for whom.
fn hosts() -> Vec<Row> {
    let origin = |origin: &str| put_as(&format!("Content-Type: application/json\r\nOrigin: {origin}\r\n"), b"{}");
    vec![
        row("a host in upper case with a port", with_host("Host: LOCALHOST:8080\r\n"), Served(200)),
        row("a host with a dot at its end", with_host("Host: localhost.:8080\r\n"), Served(200)),
        row("a host with a user", with_host("Host: user@localhost\r\n"), Problem(MisdirectedRequest)),
        row("a foreign host", with_host("Host: evil.example\r\n"), Problem(MisdirectedRequest)),
        row("a host with two ports", with_host("Host: localhost:80:80\r\n"), Problem(MisdirectedRequest)),
        row("a host of bytes", with_host("Host: \u{e9}\r\n"), Problem(MisdirectedRequest)),
        row("an empty host", with_host("Host: \r\n"), Problem(MisdirectedRequest)),
        row("no host", with_host(""), Problem(MisdirectedRequest)),
        row("two hosts", with_host("Host: localhost\r\nHost: evil.example\r\n"), Problem(MisdirectedRequest)),
        row(
            "a whole address",
            "GET http://evil.example/api/v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            Problem(MisdirectedRequest),
        ),
        row("the origin null", origin("null"), Problem(Forbidden)),
        row("a foreign origin", origin("http://evil.example"), Problem(Forbidden)),
        row("another site", put_as("Content-Type: application/json\r\nSec-Fetch-Site: cross-site\r\n", b"{}"), Problem(Forbidden)),
        row("our own origin", origin("http://localhost"), Served(201)),
    ]
}

/// Tokens, where they are needed.
fn tokens() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, value) in [
        ("none", String::new()),
        ("an empty one", "Bearer ".to_owned()),
        ("one with spaces", "Bearer drover_writer token".to_owned()),
        ("one of bytes", "Bearer dr\u{f6}ver_writer-token".to_owned()),
        ("one of 20 kB", format!("Bearer {}", "x".repeat(20_000))),
        ("another scheme", "Basic Y2k6Y2k=".to_owned()),
        ("no scheme", "drover_writer-token".to_owned()),
        ("two at once", "Bearer drover_writer-token\r\nAuthorization: Bearer drover_writer-token".to_owned()),
    ] {
        let line = if value.is_empty() { String::new() } else { format!("Authorization: {value}\r\n") };
        rows.push(row(&format!("token: {name}"), get("/api/v1/info", &line), Problem(Unauthorized)));
        rows.push(row(
            &format!("token of a change: {name}"),
            put_as(&format!("Content-Type: application/json\r\n{line}"), b"{}"),
            Problem(Unauthorized),
        ));
    }
    rows.push(row(
        "token: one of 1 MiB",
        get("/api/v1/info", &format!("Authorization: Bearer {}\r\n", "x".repeat(1 << 20))),
        Problem(RequestHeaderFieldsTooLarge),
    ));
    rows.push(row("a body of 1 MiB without a token", put(&vec![b' '; 1 << 20]), Problem(Unauthorized)));
    rows.push(row("a good one", get("/api/v1/info", "Authorization: Bearer drover_writer-token\r\n"), Served(200)));
    rows
}

/// Sends the bytes and reads until the server closes; why there is no answer.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut reading, mut writing) = stream.split();
    let mut answer = Vec::new();
    let write = async {
        // A server that refuses early need not take the rest.
        let _ = writing.write_all(bytes).await;
    };
    let (_, read) = tokio::time::timeout(DEADLINE, async { tokio::join!(write, reading.read_to_end(&mut answer)) }).await.map_err(|_| "it hangs")?;
    read.map_err(|error| format!("{error} after {:?}", String::from_utf8_lossy(&answer)))?;
    Ok(answer)
}

/// What is wrong with an answer.
fn fault(answer: &[u8], expected: Expected) -> Option<String> {
    let text = String::from_utf8_lossy(answer);
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Some(format!("no whole head: {text:?}")) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).unwrap_or_default();
    let header = |name: &str| {
        head.lines().skip(1).filter_map(|line| line.split_once(": ")).find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    if let Some(length) = header("content-length").and_then(|length| length.parse::<usize>().ok())
        && length != body.len()
    {
        return Some(format!("a body of {} bytes instead of {length}", body.len()));
    }
    let is_right = match expected {
        Served(wanted) => status == wanted,
        Problem(code) => {
            let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            status == code.status().as_u16() && header("content-type") == Some("application/problem+json") && problem["code"] == code.as_str()
        }
    };
    let shown: String = text.chars().take(600).collect();
    (!is_right).then(|| format!("{expected:?} was expected: {shown:?}"))
}

/// Sends all rows, some at a time, and tells of all that were answered otherwise.
async fn check(state: ApiState, rows: Vec<Row>) {
    let faults = against(state, async |address| {
        let mut faults = Vec::new();
        for some in rows.chunks(40) {
            let answers = join_all(some.iter().map(|(_, bytes, _)| exchange(address, bytes))).await;
            for ((name, _, expected), answer) in some.iter().zip(answers) {
                let found = answer.map_or_else(Some, |answer| fault(&answer, *expected));
                faults.extend(found.map(|found| format!("{name}: {found}")));
            }
        }
        // It answers as before.
        let after = exchange(address, get("/livez", "").as_bytes()).await.expect("an answer");
        faults.extend(fault(&after, Served(200)));
        faults
    })
    .await;
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn a_body_that_makes_no_sense_is_a_problem() {
    check(open_state(), bodies()).await;
}

#[tokio::test]
async fn a_path_or_query_that_makes_no_sense_is_a_problem() {
    check(open_state(), paths()).await;
}

#[tokio::test]
async fn a_head_that_makes_no_sense_is_a_problem() {
    check(open_state(), heads()).await;
}

#[tokio::test]
async fn a_host_or_origin_that_is_not_ours_is_a_problem() {
    check(open_state(), hosts()).await;
}

#[tokio::test]
async fn a_token_that_is_none_is_a_problem() {
    check(guarding(open_state()), tokens()).await;
}

/// Whichever length a server believes, the bytes behind the first request must not become a second one.
#[tokio::test]
async fn no_request_hides_in_another() {
    against(open_state(), async |address| {
        let hidden = "GET /api/v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        ] {
            let request =
                format!("PUT /api/v1/topics/new HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}\r\n0\r\n\r\n{hidden}");
            let answer = exchange(address, request.as_bytes()).await.expect("an answer");
            let text = String::from_utf8_lossy(&answer);
            assert!(text.starts_with("HTTP/1.1 4"), "{lines}: {text}");
            assert_eq!(text.matches("HTTP/1.1 200").count(), 0, "{lines}: a second request hid in the first: {text}");
        }
    })
    .await;
}

/// Clients that ask for much and read nothing hold their own connection, and nobody else's answer.
#[tokio::test]
async fn clients_that_never_read_hold_up_nobody() {
    against(open_state(), async |address| {
        let mut deaf = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let many = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
            stream.write_all(many.as_bytes()).await.expect("sent");
            deaf.push(stream);
        }
        for _ in 0..20 {
            let answer = exchange(address, get("/api/v1/info", "").as_bytes()).await.expect("an answer");
            assert_eq!(fault(&answer, Served(200)), None);
        }
    })
    .await;
}
