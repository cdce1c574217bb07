//! The commands as an operator runs them: the built program against scripted answers, and against a whole drover on a mock cluster.
//!
//! The expected output is in `golden/cli`, made from the API documents in `golden/cli/api`. `UPDATE_GOLDEN=1` writes it anew; look at the difference before it is kept.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::end_to_end::{SHORT_SESSION, World};
use crate::harness::process::free_port;
use crate::harness::wait::wait_until;

mod live;

/// Longer than anything here takes when all is well, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/cli")
}

fn document(name: &str) -> String {
    fs::read_to_string(golden().join("api").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One answer of the scripted server.
#[derive(Clone)]
struct Scripted {
    status: u16,
    media_type: &'static str,
    headers: &'static str,
    body: String,
}

impl Scripted {
    fn json(status: u16, body: impl Into<String>) -> Self {
        Self { status, media_type: "application/json", headers: "", body: body.into() }
    }

    fn file(name: &str) -> Self {
        Self::json(200, document(name))
    }

    fn problem(status: u16, code: &str, errors: &str) -> Self {
        let body = format!(
            r#"{{"type":"urn:drover:problem:{code}","title":"A title","status":{status},"detail":"what happened\u001b[31m","code":"{code}","request_id":"01REQUEST","errors":{errors}}}"#
        );
        Self { status, media_type: "application/problem+json", headers: "", body }
    }
}

/// Answers one connection after the other as its script says, by `METHOD PATH?QUERY`, and notes what was asked.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(script: impl Fn(&str) -> Option<Scripted> + Send + 'static) -> Self {
        Self::at("127.0.0.1:0", script)
    }

    fn at(address: &str, script: impl Fn(&str) -> Option<Scripted> + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (log, end) = (Arc::clone(&asked), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                // A client that goes away is no matter of the server's.
                let _ = stream.and_then(|stream| answer(stream, &script, &log));
            }
        });
        Self { address, asked, is_over, thread: Some(thread) }
    }

    fn of(answers: &[(&'static str, Scripted)]) -> Self {
        let answers = answers.to_vec();
        Self::start(move |asked| answers.iter().find(|(route, _)| *route == asked).map(|(_, answer)| answer.clone()))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Method, path and query, and after a blank each header of interest and the body.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn answer(stream: TcpStream, script: &dyn Fn(&str) -> Option<Scripted>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SOON))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut parts = first.split(' ');
    let route = format!("{} {}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut noted = route.clone();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.trim_end().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.parse().unwrap_or(0);
        }
        if lower.starts_with("authorization:") || lower.starts_with("if-none-match:") {
            noted.push_str(&format!(" [{}]", line.trim_end()));
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    noted.push_str(&format!(" {}", String::from_utf8_lossy(&body)));
    log.lock().expect("no panic").push(noted.trim_end().to_owned());

    let answer = script(&route).unwrap_or_else(|| Scripted::json(500, format!("{{\"not scripted\": {route:?}}}")));
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {} X\r\ncontent-type: {}\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n",
        answer.status,
        answer.media_type,
        answer.body.len(),
        answer.headers
    )?;
    stream.write_all(answer.body.as_bytes())
}

fn command(server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["DROVER_CONFIG", "DROVER_LISTEN", "DROVER_TOKEN_FILE", "DROVER_LOG", "FAILPOINTS", "NO_COLOR", "http_proxy", "HTTP_PROXY"] {
        command.env_remove(name);
    }
    command.env("DROVER_SERVER", server).env("TERM", "xterm");
    command
}

fn drover(server: &str, arguments: &[&str]) -> Output {
    command(server, arguments).output().expect("the program starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The output of a command that must succeed.
#[track_caller]
fn ok(server: &str, arguments: &[&str]) -> String {
    let output = drover(server, arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

#[track_caller]
fn check_golden(name: &str, text: &str) {
    let path = golden().join(name);
    let is_unsafe =
        |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{200b}'..='\u{200f}'));
    assert!(!text.chars().any(is_unsafe), "{name} holds a raw control character: {text:?}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("a golden file");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert_eq!(text, expected, "{name} differs; UPDATE_GOLDEN=1 writes it anew\n{text}");
}

/// A drover as the fixed documents show it.
fn fixed() -> Server {
    Server::of(&[
        ("GET /healthz", Scripted::file("healthz.json")),
        ("GET /api/v1/info", Scripted::file("info.json")),
        ("GET /api/v1/topics?limit=1000", Scripted::file("topics-1.json")),
        ("GET /api/v1/topics?limit=1000&cursor=c1", Scripted::file("topics-2.json")),
        ("GET /api/v1/topics/orders", Scripted::file("topic.json")),
        ("PUT /api/v1/topics/orders", Scripted { status: 201, headers: "drover-applied: false\r\n", ..Scripted::file("topic.json") }),
        ("PUT /api/v1/topics/orders?dry_run=true", Scripted::file("dry-run.json")),
        ("PUT /api/v1/topics/orders/pause", Scripted::file("topic.json")),
        ("DELETE /api/v1/topics/orders", Scripted::file("topic.json")),
        ("DELETE /api/v1/topics/gone", Scripted { status: 204, media_type: "text/plain", headers: "", body: String::new() }),
        ("DELETE /api/v1/topics/orders/pause", Scripted { status: 204, media_type: "text/plain", headers: "", body: String::new() }),
        ("POST /api/v1/topics/orders/restart", Scripted { status: 202, ..Scripted::file("restart.json") }),
        ("POST /api/v1/topics/orders/rewind?dry_run=true", Scripted::file("rewind.json")),
        ("POST /api/v1/topics/orders/rewind", Scripted { status: 202, ..Scripted::file("rewind.json") }),
        ("GET /api/v1/tasks?limit=1000", Scripted::file("tasks.json")),
        ("GET /api/v1/tasks/orders/0", Scripted::file("task.json")),
        ("POST /api/v1/tasks/orders/0/restart", Scripted { status: 202, ..Scripted::file("task.json") }),
        ("GET /api/v1/events?limit=1000", Scripted::file("events.json")),
        ("GET /api/v1/events?limit=100", Scripted::file("events.json")),
        ("GET /api/v1/dead-letters?limit=1000", Scripted::file("dead-letters.json")),
        ("GET /api/v1/dead-letters?topic=orders&limit=1000", Scripted::file("dead-letters.json")),
        ("GET /api/v1/dead-letters/HK2wYQabcdefghijklmnop:3:123", Scripted::file("dead-letter.json")),
        ("POST /api/v1/dead-letters/HK2wYQabcdefghijklmnop:3:123/redrive", Scripted::json(202, r#"{"accepted":1}"#)),
        ("POST /api/v1/dead-letters/redrive?topic=orders&error_type=e", Scripted::json(202, r#"{"accepted":2}"#)),
        ("POST /api/v1/dead-letters/redrive?dry_run=true", Scripted::json(200, r#"{"accepted":1000}"#)),
        ("POST /api/v1/dead-letters/redrive", Scripted::json(202, r#"{"accepted":1000}"#)),
        (
            "DELETE /api/v1/dead-letters/HK2wYQabcdefghijklmnop:3:123",
            Scripted { status: 204, media_type: "text/plain", headers: "", body: String::new() },
        ),
        ("DELETE /api/v1/dead-letters/HK2wYQabcdefghijklmnop:3:9", Scripted::problem(404, "not-found", "[]")),
        ("GET /api/v1/sources", Scripted::file("sources.json")),
        ("POST /api/v1/sources/etcd/confirm", Scripted { status: 202, ..Scripted::file("sources.json") }),
    ])
}

#[test]
fn a_table_that_loses_a_column_or_lets_a_control_character_through_differs() {
    let server = fixed();
    for (name, arguments) in [
        ("status.txt", "status"),
        ("topics-list.txt", "topics list"),
        ("topics-get.txt", "topics get orders"),
        ("topics-add.txt", "topics add orders"),
        ("topics-add-dry-run.txt", "topics add orders --dry-run"),
        ("topics-pause.txt", "topics pause orders"),
        ("topics-remove.txt", "topics remove orders"),
        ("topics-restart.txt", "topics restart orders"),
        ("topics-rewind.txt", "topics rewind orders --to earliest --dry-run"),
        ("topics-rewind-moved.txt", "topics rewind orders --to earliest --yes"),
        ("topics-resume.txt", "topics resume orders"),
        ("topics-remove-gone.txt", "topics remove gone"),
        ("tasks.txt", "tasks"),
        ("tasks-get.txt", "tasks get orders 0"),
        ("tasks-restart.txt", "tasks restart orders 0"),
        ("events.txt", "events"),
        ("events-newest.txt", "events -n 1"),
        ("dead-letters.txt", "dead-letters list"),
        ("dead-letters-get.txt", "dead-letters get HK2wYQabcdefghijklmnop:3:123"),
        ("dead-letters-redrive.txt", "dead-letters redrive --topic orders --error-type e"),
        ("dead-letters-redrive-all.txt", "dead-letters redrive --all --yes"),
        ("dead-letters-delete.txt", "dead-letters delete --topic orders --yes"),
        ("sources.txt", "sources"),
        ("sources-confirm.txt", "sources confirm etcd"),
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = drover(&server.url(), &arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        let messages = stderr(&output);
        let separator = if messages.is_empty() { "" } else { "--- on stderr\n" };
        check_golden(name, &format!("{}{separator}{messages}", stdout(&output)));
    }
}

#[test]
fn json_and_yaml_say_what_the_api_said_in_its_order() {
    let server = fixed();
    for (name, arguments, source) in [
        ("topic", "topics get orders", Some("topic.json")),
        ("tasks", "tasks", Some("tasks.json")),
        ("events", "events", Some("events.json")),
        ("dead-letters", "dead-letters list", Some("dead-letters.json")),
        ("sources", "sources", Some("sources.json")),
        ("topics", "topics list", None),
        ("status", "status", None),
    ] {
        let words = |form: &'static str| arguments.split(' ').chain(["-o", form]).collect::<Vec<_>>();
        let json = ok(&server.url(), &words("json"));
        check_golden(&format!("{name}.json"), &json);
        check_golden(&format!("{name}.yaml"), &ok(&server.url(), &words("yaml")));
        let printed: Value = serde_json::from_str(&json).expect("JSON");
        if let Some(source) = source {
            assert_eq!(printed, serde_json::from_str::<Value>(&document(source)).expect("JSON"), "{name}");
        }
        if name == "topics" {
            let names: Vec<&str> = printed["items"].as_array().expect("items").iter().filter_map(|item| item["name"].as_str()).collect();
            assert_eq!((names, &printed["next"]), (vec!["golang_log", "orders"], &Value::Null));
        }
    }
}

#[test]
fn a_change_sends_what_was_given_and_nothing_else() {
    let server = fixed();
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "s3cret\n").expect("a file");
    let token = token.display().to_string();
    let long = "topics add orders --index orders-{date} --format json --metadata on --operation create --pipeline p --start latest --tombstones skip \
                --on-reject stop --label a=b --label c= --create-only";
    let mut with_token: Vec<&str> = long.split_whitespace().collect();
    with_token.extend(["--token-file", &token]);
    ok(&server.url(), &with_token);
    ok(&server.url(), &["topics", "pause", "orders", "--reason", "a b", "--until", "2030-01-31T06:00:00Z"]);
    ok(&server.url(), &["topics", "rewind", "orders", "--to", "5", "--partition", "0", "--partition", "10", "--yes"]);
    ok(&server.url(), &["topics", "rewind", "orders", "--to", "2026-01-31T00:00:00Z", "--dry-run"]);
    assert_eq!(
        server.asked(),
        [
            r#"PUT /api/v1/topics/orders [if-none-match: *] [authorization: Bearer s3cret] {"format":"json","index":"orders-{date}","labels":{"a":"b","c":""},"metadata":"on","on_reject":"stop","operation":"create","pipeline":"p","start":"latest","tombstones":"skip"}"#,
            r#"PUT /api/v1/topics/orders/pause {"reason":"a b","until_at":"2030-01-31T06:00:00Z"}"#,
            r#"POST /api/v1/topics/orders/rewind {"partitions":[0,10],"to":{"offset":5}}"#,
            r#"POST /api/v1/topics/orders/rewind?dry_run=true {"to":{"timestamp":"2026-01-31T00:00:00Z"}}"#,
        ]
    );
}

#[test]
fn dead_letters_that_nobody_chose_or_confirmed_stay() {
    let id = "HK2wYQabcdefghijklmnop:3:123";
    // Named one by one they need no confirmation.
    let server = fixed();
    let redriven: Value = serde_json::from_str(&ok(&server.url(), &["dead-letters", "redrive", id, id, "-o", "json"])).expect("JSON");
    assert_eq!(redriven, serde_json::json!({"accepted": 2}));
    ok(&server.url(), &["dead-letters", "delete", id]);
    let (redrive, delete) = (format!("POST /api/v1/dead-letters/{id}/redrive"), format!("DELETE /api/v1/dead-letters/{id}"));
    assert_eq!(server.asked(), [redrive.as_str(), &redrive, &delete]);

    let server = fixed();
    for words in
        ["delete", "redrive", "delete --all x", "redrive --topic a --all", "delete --topic a x", "redrive --all", "delete --all", "delete --topic a"]
    {
        let arguments: Vec<&str> = ["dead-letters"].into_iter().chain(words.split(' ')).collect();
        let output = drover(&server.url(), &arguments);
        assert_eq!(code(&output), 2, "{words}: {output:?}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    assert_eq!(code(&drover(&server.url(), &["dead-letters", "delete", "HK2wYQabcdefghijklmnop:3:9"])), 4);

    for (typed, expected, requests) in [("n\n", 1, 1), ("\u{4}", 1, 1), ("y\n", 0, 3)] {
        let server = fixed();
        let (code, shown) = at_terminal(command(&server.url(), &["dead-letters", "delete", "--all"]), typed);
        assert_eq!((code, server.asked().len()), (expected, requests), "{typed:?}: {shown}");
        assert!(shown.contains("delete 2 dead letters? their records are then in Kafka only, as long as that keeps them [y/N]"), "{shown}");
    }
    for (typed, expected, requests) in [("n\n", 1, 1), ("y\n", 0, 2)] {
        let server = fixed();
        let (code, shown) = at_terminal(command(&server.url(), &["dead-letters", "redrive", "--all"]), typed);
        assert_eq!((code, server.asked().len()), (expected, requests), "{typed:?}: {shown}");
        assert!(shown.contains("send every dead letter again? there are 1000 now [y/N]"), "{shown}");
    }
    let gone = refused(Scripted::problem(409, "payload-gone", "[]"), &["dead-letters", "redrive", id]);
    assert_eq!(gone.0, 5, "{gone:?}");
}

#[test]
fn a_filter_reaches_the_api_and_what_it_says_no_to_is_told() {
    let server = Server::start(|_| Some(Scripted::json(200, r#"{"items":[],"next":null,"scope":"instance"}"#)));
    assert_eq!(
        ok(&server.url(), &["tasks", "--topic", "a", "--state", "backoff", "--min-lag", "5", "--sort=-lag,topic", "--instance", "h 1"])
            .lines()
            .count(),
        1
    );
    ok(&server.url(), &["topics", "list", "--match", "x&y", "--source", "etcd"]);
    ok(&server.url(), &["dead-letters", "list", "--error-type", "e", "--partition", "3", "--since", "2026-01-31T02:00:00+02:00"]);
    assert_eq!(
        server.asked(),
        [
            "GET /api/v1/tasks?topic=a&state=backoff&instance=h+1&min_lag=5&sort=-lag%2Ctopic&limit=1000",
            "GET /api/v1/topics?q=x%26y&source=etcd&limit=1000",
            "GET /api/v1/dead-letters?partition=3&error_type=e&since=2026-01-31T00%3A00%3A00Z&limit=1000",
        ]
    );
}

/// The exit code and the messages of a command whose every request gets this answer.
fn refused(answer: Scripted, arguments: &[&str]) -> (i32, String) {
    let server = Server::start(move |_| Some(answer.clone()));
    let output = drover(&server.url(), arguments);
    assert_eq!(stdout(&output), "", "data of a command that failed");
    (code(&output), stderr(&output).replace(&server.url(), "URL"))
}

#[test]
fn a_dead_server_is_69_and_says_what_helps() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let output = drover(&url, &["topics", "list"]);
    let message =
        format!("drover: cannot reach {url}: connection refused; is drover running there? give its address with --server or DROVER_SERVER\n");
    assert_eq!((code(&output), stderr(&output)), (69, message));
    assert_eq!(code(&drover(&url, &["topics", "add", "orders"])), 69, "nothing was sent, so nothing is unknown");
}

#[test]
fn an_unknown_topic_is_4() {
    let (code, message) = refused(
        Scripted::problem(404, "not-found", r#"[{"pointer":"/path/topic","code":"not-found","detail":"no source\nnames it"}]"#),
        &["topics", "get", "x"],
    );
    assert_eq!(code, 4);
    assert_eq!(
        message,
        "drover: A title: what happened\\u{1b}[31m\n  /path/topic: no source\\nnames it (not-found)\n  code not-found, status 404, request 01REQUEST\n"
    );
}

#[test]
fn a_topic_of_other_sources_is_5() {
    let (code, message) = refused(Scripted::problem(409, "topic-not-managed", "[]"), &["topics", "remove", "x"]);
    assert!(code == 5 && message.contains("code topic-not-managed, status 409"), "{code} {message}");
}

#[test]
fn a_topic_that_is_there_already_is_told_with_what_replaces_it() {
    let refusal = Scripted::problem(412, "precondition-failed", "[]");
    let (_, with) = refused(refusal.clone(), &["topics", "add", "x", "--create-only"]);
    let (_, without) = refused(refusal, &["topics", "add", "x"]);
    let advice = "it was added before; leave out --create-only to replace it";
    assert!(with.contains(advice) && !without.contains(advice), "{with} {without}");
}

#[test]
fn a_change_that_something_else_answered_is_not_called_done() {
    let empty = Scripted { status: 200, media_type: "text/plain", headers: "", body: String::new() };
    let foreign = [Scripted::json(200, "{}"), Scripted::json(201, r#"{"tagline":"You Know, for Search"}"#), Scripted::json(200, "[]"), empty];
    for (answer, words) in foreign.iter().flat_map(|answer| {
        [
            "topics add x",
            "topics add x --wait",
            "topics add x --dry-run",
            "topics remove x",
            "topics pause x",
            "topics resume x",
            "topics restart x",
            "topics rewind x --to 0 --yes",
            "topics get x",
            "tasks restart x 0",
            "tasks get x 0",
            "sources confirm etcd",
        ]
        .map(|words| (answer, words))
    }) {
        let words: Vec<&str> = words.split(' ').collect();
        let (code, message) = refused(answer.clone(), &words);
        assert!(code == 69 && message.starts_with("drover: URL does not answer as drover does: "), "{words:?} {}: {message}", answer.body);
        assert_eq!(message.lines().count(), 1, "{words:?}: {message}");
    }
    for words in ["topics list", "tasks", "events", "dead-letters list", "sources", "topics restart x"] {
        let (code, message) = refused(Scripted::json(200, r#"{"items":[{"id":1}],"next":null}"#), &words.split(' ').collect::<Vec<_>>());
        assert!(code == 69 && message.contains("a list with an item without `"), "{words}: {message}");
    }
}

#[test]
fn a_value_that_begins_with_a_hyphen_is_told_what_it_should_be() {
    for (words, what) in [
        ("topics rewind x --to -5", "write earliest, latest, an offset"),
        ("topics rewind x --to 0 --partition -1", "write the number of a partition"),
        ("topics pause x --until -1h", "a span from now as 30m or 2h"),
        ("topics add x --wait --timeout -1s", "write a span of time"),
        ("dead-letters list --since -1h", "write a time as"),
        ("dead-letters list --partition -1", "write the number of a partition"),
        ("events --since -1h", "write a time as"),
        ("replay x --to http://127.0.0.1:1 --wait -1", "write a number of seconds"),
        ("tasks restart x y", "write the number of a partition"),
        ("tasks restart x -1", "write the number of a partition"),
    ] {
        let output = drover("http://127.0.0.1:1", &words.split(' ').collect::<Vec<_>>());
        assert!(code(&output) == 2 && stderr(&output).contains(what), "{words}: {output:?}");
    }
    let server = fixed();
    ok(&server.url(), &["topics", "add", "orders", "--index", "-x", "--start", "-1h"]);
    assert_eq!(server.asked(), [r#"PUT /api/v1/topics/orders {"index":"-x","start":"-1h"}"#]);
}

#[test]
fn a_precondition_that_does_not_hold_is_5() {
    let (code, message) = refused(Scripted::problem(412, "precondition-failed", "[]"), &["topics", "add", "x", "--create-only"]);
    assert!(code == 5 && message.contains("code precondition-failed, status 412"), "{code} {message}");
}

#[test]
fn an_illegal_spec_is_1_and_names_every_place() {
    let errors = r#"[{"pointer":"/index","code":"invalid","detail":"a"},{"pointer":"/start","code":"invalid","detail":"b"}]"#;
    let (code, message) = refused(Scripted::problem(422, "validation-failed", errors), &["topics", "add", "x", "--index", "{"]);
    assert!(code == 1 && message.contains("  /index: a (invalid)\n  /start: b (invalid)\n"), "{code} {message}");
}

#[test]
fn a_store_that_does_not_answer_is_1() {
    let (code, message) = refused(Scripted::problem(503, "store-unavailable", "[]"), &["topics", "pause", "x"]);
    assert!(code == 1 && message.contains("status 503"), "{code} {message}");
}

#[test]
fn something_else_that_answers_there_is_named() {
    let html = Scripted { status: 200, media_type: "text/html", headers: "", body: "<html>".to_owned() };
    for (answer, what) in [
        (html.clone(), "status 200 with text/html"),
        (Scripted { status: 502, ..html }, "status 502 with text/html"),
        (Scripted::json(404, r#"{"error":"no such index"}"#), "status 404 without a problem of drover's"),
        (Scripted::json(200, r#"{"tagline":"You Know, for Search"}"#), "a list without items"),
        (Scripted::json(200, "{"), "status 200 with broken JSON (EOF while parsing an object at line 1 column 1)"),
        (
            Scripted { status: 302, media_type: "text/html", headers: "location: http://127.0.0.1:1/\r\n", body: "x".to_owned() },
            "status 302 with text/html",
        ),
    ] {
        let (code, message) = refused(answer, &["topics", "list"]);
        assert_eq!(code, 69);
        assert_eq!(message, format!("drover: URL does not answer as drover does: {what}; give drover's address with --server or DROVER_SERVER\n"));
    }
}

#[test]
fn a_connection_that_breaks_after_a_change_was_sent_is_not_called_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 64];
        let _ = stream.read(&mut head);
    });
    let output = drover(&url, &["topics", "pause", "x"]);
    thread.join().expect("no panic");
    assert!(code(&output) == 69 && stderr(&output).contains("whether it was done is not known"), "{output:?}");
}

#[test]
fn usage_is_2_and_settings_are_78() {
    let server = fixed();
    for arguments in [
        &["topics", "get", ".."][..],
        &["topics", "get", "a/b"],
        &["topics", "rewind", "orders", "--to", "yesterday"],
        &["topics", "add", "orders", "--label", "x"],
        &["tasks", "--state", "tired"],
        &["status", "--server", "ftp://x"],
        &["topics"],
    ] {
        let output = drover(&server.url(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {output:?}");
    }
    let output = drover(&server.url(), &["topics", "rewind", "orders", "--to", "earliest"]);
    assert!(code(&output) == 2 && stderr(&output).contains("--yes") && stdout(&output).is_empty(), "{output:?}");
    let output = drover(&server.url(), &["status", "--token-file", "/none"]);
    assert!(code(&output) == 78 && stderr(&output).contains("/none"), "{output:?}");
    assert_eq!(server.asked(), [""; 0], "none of them asks the server");
}

#[test]
fn fail_on_ends_with_3_after_it_has_printed() {
    let server = fixed();
    let output = drover(&server.url(), &["status", "--fail-on", "degraded"]);
    assert_eq!((code(&output), stderr(&output)), (3, "drover is degraded\n".replace("drover", "drover: drover")));
    assert!(stdout(&output).contains("component/sink"));
    assert_eq!(code(&drover(&server.url(), &["status", "--fail-on", "down"])), 0);
}

#[test]
fn a_dry_run_that_would_be_refused_has_the_code_of_the_refusal() {
    let body = r#"{"valid":false,"action":"none","errors":[{"pointer":"/header/if-none-match","code":"precondition-failed","detail":"there is one"}],"warnings":[],"resolved":{},"would":{}}"#;
    let server = Server::start(move |_| Some(Scripted::json(200, body)));
    let output = drover(&server.url(), &["topics", "add", "x", "--create-only", "--dry-run"]);
    assert_eq!(code(&output), 5);
    assert!(
        stdout(&output).contains("be taken") && stderr(&output).contains("This would be refused: /header/if-none-match: there is one"),
        "{output:?}"
    );
}

#[test]
fn a_partition_that_was_not_moved_or_restarted_makes_1() {
    let rewound = r#"{"items":[{"partition":0,"from":1,"to":0,"records":1,"error":null},{"partition":1,"from":null,"to":null,"records":null,"error":"it is not here"}]}"#;
    let server = Server::start(move |_| Some(Scripted::json(202, rewound)));
    let output = drover(&server.url(), &["topics", "rewind", "x", "--to", "0", "--yes"]);
    assert!(code(&output) == 1 && stderr(&output).contains("1 of 2 partitions"), "{output:?}");
    assert!(stdout(&output).contains("it is not here"), "{output:?}");
    let output = drover(&server.url(), &["topics", "restart", "x"]);
    assert!(code(&output) == 1 && stderr(&output).contains("2 tasks of x not restarted"), "{output:?}");
}

#[test]
fn a_healthcheck_is_0_on_200_else_1_with_one_line() {
    let report = |status: &str| {
        format!(
            r#"{{"status":"{status}","checks":[{{"name":"first_list","status":"{status}","detail":"none\nyet","remedy":null,"since_at":null}}]}}"#
        )
    };
    let server = Server::of(&[
        ("GET /livez", Scripted::json(200, report("ok"))),
        ("GET /healthz", Scripted::json(200, report("degraded"))),
        ("GET /readyz", Scripted::json(503, report("down"))),
    ]);
    for path in ["livez", "healthz"] {
        let output = drover(&server.url(), &["healthcheck", "--path", path]);
        assert_eq!((code(&output), stdout(&output), stderr(&output)), (0, String::new(), String::new()));
    }
    let output = drover(&server.url(), &["healthcheck"]);
    assert_eq!((code(&output), stderr(&output)), (1, "drover: readyz answers 503: first_list is down: none\\nyet\n".to_owned()));

    let dead = format!("http://127.0.0.1:{}", free_port());
    let output = drover(&dead, &["healthcheck"]);
    assert_eq!((code(&output), stderr(&output)), (1, format!("drover: {dead} does not answer: connection refused\n")));
}

#[test]
fn a_healthcheck_without_a_server_asks_where_the_configuration_listens() {
    let server = Server::of(&[("GET /readyz", Scripted::json(200, r#"{"status":"ok","checks":[]}"#))]);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("c.yaml");
    let port = server.address.rsplit(':').next().expect("a port").to_owned();
    fs::write(&config, format!("listen: 0.0.0.0:{port}\nkafka: {{brokers: ['127.0.0.1:1']}}\nelasticsearch: {{urls: ['http://127.0.0.1:1']}}\n"))
        .expect("a file");
    let asked = |config: &Path, listen: Option<&str>| {
        let mut command = command("", &["healthcheck"]);
        command.env_remove("DROVER_SERVER").env("DROVER_CONFIG", config).current_dir(folder.path());
        listen.map(|listen| command.env("DROVER_LISTEN", listen));
        command.output().expect("the program starts")
    };
    let output = asked(&config, None);
    assert_eq!(code(&output), 0, "{output:?}");
    let output = asked(&folder.path().join("none.yaml"), Some(&format!("0.0.0.0:{port}")));
    assert_eq!(code(&output), 0, "{output:?}");
    let output = asked(&folder.path().join("none.yaml"), None);
    assert!(code(&output) == 1 && stderr(&output).contains("none.yaml") && stderr(&output).lines().count() == 1, "{output:?}");
}

#[test]
fn a_drover_without_configuration_says_how_to_begin() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = command("", &[]).env_remove("DROVER_SERVER").current_dir(folder.path()).output().expect("the program starts");
    let message = stderr(&output);
    assert_eq!(code(&output), 78);
    assert!(["config.yaml", "drover demo", "check-config", "--help"].iter().all(|hint| message.contains(hint)), "{message}");
}

#[test]
fn environment_variables_of_a_run_do_not_disturb_other_commands() {
    let server = fixed();
    for listen in ["0.0.0.0:1", "localhost:1", "nonsense"] {
        let output =
            command(&server.url(), &["topics", "list"]).env("DROVER_CONFIG", "x.yaml").env("DROVER_LISTEN", listen).output().expect("it starts");
        assert_eq!(code(&output), 0, "{output:?}");
    }
}

#[test]
fn an_address_that_is_none_is_told_and_is_2() {
    for arguments in [
        &["run", "--listen", "localhost:1"][..],
        &["--listen", "localhost:1"],
        &["demo", "--listen", "localhost:1"],
        &["healthcheck", "--listen", "localhost:1"],
    ] {
        let output = drover("http://127.0.0.1:1", arguments);
        assert!(code(&output) == 2 && stderr(&output).contains("a name is no address to listen on; write 127.0.0.1:1"), "{arguments:?}: {output:?}");
    }
}

#[test]
fn every_command_has_a_summary_and_an_example() {
    let help = |words: &[&str]| ok("http://127.0.0.1:1", &[words, &["--help"]].concat());
    for (parent, commands) in [
        (&[][..], &["status", "topics", "tasks", "events", "dead-letters", "sources", "replay", "healthcheck", "openapi", "completions"][..]),
        (&["topics"], &["list", "get", "add", "remove", "pause", "resume", "restart", "rewind"]),
        (&["tasks"], &["get", "restart"]),
        (&["dead-letters"], &["list", "get", "redrive", "delete"]),
    ] {
        let summary = help(parent);
        for command in commands {
            let line = summary.lines().find(|line| line.trim_start().starts_with(&format!("{command} ")));
            assert!(line.is_some_and(|line| line.trim().len() > command.len() + 10), "no summary of {command} in {summary}");
        }
    }
    for words in [
        "status",
        "topics list",
        "topics add",
        "topics rewind",
        "tasks",
        "tasks restart",
        "events",
        "dead-letters list",
        "dead-letters get",
        "dead-letters redrive",
        "dead-letters delete",
        "sources confirm",
        "healthcheck",
        "completions",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        assert!(help(&words).contains("\n  drover "), "no example for {words:?}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(ok("http://127.0.0.1:1", &["completions", shell]).contains("dead-letters"), "{shell}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let mut child = command("http://127.0.0.1:1", &["openapi"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // The document is larger than a pipe holds.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}

/// The two ends of a pseudo-terminal: ours and the program's.
fn terminal() -> (fs::File, OwnedFd) {
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: both integers live; the other arguments may be null.
    let result = unsafe { libc::openpty(&raw mut ours, &raw mut theirs, std::ptr::null_mut(), std::ptr::null(), std::ptr::null()) };
    assert_eq!(result, 0, "no pseudo-terminal: {}", std::io::Error::last_os_error());
    // SAFETY: openpty gave us both descriptors, and nobody else has them.
    unsafe { (fs::File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// Runs a command at a terminal on which `typed` is typed; the exit code and all that was shown.
fn at_terminal(mut command: Command, typed: &str) -> (i32, String) {
    let (mut ours, theirs) = terminal();
    let duplicate = || theirs.try_clone().expect("a descriptor");
    let mut child = command.stdin(duplicate()).stdout(duplicate()).stderr(duplicate()).spawn().expect("it starts");
    // The command holds copies too.
    drop((command, theirs));
    ours.write_all(typed.as_bytes()).expect("a terminal");
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    // Reading fails when the program's end is closed.
    while let Ok(count @ 1..) = ours.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
    }
    let status = child.wait().expect("it ends");
    (status.code().expect("no signal"), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn colours_are_for_terminals_whose_owner_wants_them() {
    let server = fixed();
    let (code, shown) = at_terminal(command(&server.url(), &["tasks"]), "");
    assert!(code == 0 && shown.contains("\u{1b}[32mrunning\u{1b}[0m") && shown.contains("\u{1b}[33mbackoff\u{1b}[0m"), "{shown:?}");
    let mut without = command(&server.url(), &["tasks"]);
    without.env("NO_COLOR", "1");
    let (_, shown) = at_terminal(without, "");
    assert!(shown.contains("backoff") && !shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn a_rewind_that_nobody_confirmed_moves_nothing() {
    for (typed, expected, requests) in [("n\n", 1, 1), ("\n", 1, 1), ("\u{4}", 1, 1), ("yes\n", 0, 2)] {
        let server = fixed();
        let (code, shown) = at_terminal(command(&server.url(), &["topics", "rewind", "orders", "--to", "earliest"]), typed);
        assert_eq!(code, expected, "{typed:?}: {shown}");
        assert!(shown.contains("move 2 partitions of orders? 1000 records are indexed again, 7 records are SKIPPED [y/N]"), "{shown}");
        let asked = server.asked();
        assert_eq!(asked.len(), requests, "{typed:?}: {asked:?}");
        assert!(asked[0].starts_with("POST /api/v1/topics/orders/rewind?dry_run=true"), "{asked:?}");
    }
}

#[test]
fn following_shows_each_event_once_and_survives_a_restart() {
    let event = |id: &str, message: &str| {
        format!(
            r#"{{"id":"{id}","at":"2026-01-31T00:00:00Z","severity":"info","kind":"assigned","topic":null,"partition":null,"instance":"h","message":"{message}","data":{{}}}}"#
        )
    };
    let list = |events: &[String]| Scripted::json(200, format!(r#"{{"items":[{}],"next":null,"scope":"instance"}}"#, events.join(",")));
    let html = Scripted { status: 200, media_type: "text/html", headers: "", body: "the end".to_owned() };
    let looks = [
        list(&[event("A-2", "second"), event("A-1", "first")]),
        list(&[event("A-2", "second"), event("A-1", "first")]),
        list(&[event("A-4", "fourth"), event("A-3", "third"), event("A-2", "second")]),
        list(&[event("B-1", "another run")]),
        html,
    ];
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |_| looks.get(count.fetch_add(1, Ordering::SeqCst)).cloned());
    let output = drover(&server.url(), &["events", "--follow", "-n", "1", "-o", "json"]);
    assert_eq!(code(&output), 69, "what is not drover any more ends it");
    let messages: Vec<String> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON")["message"].as_str().expect("a message").to_owned())
        .collect();
    assert_eq!(messages, ["second", "third", "fourth", "another run"]);
}

#[test]
fn waiting_ends_at_its_deadline_and_says_why_nothing_runs() {
    let topic = r#"{"name":"x","sources":[],"status":{"state":"waiting","reason":{"code":"topic_missing","message":"Kafka has no topic\nx","remedy":"create it"}}}"#;
    let server = Server::of(&[
        ("PUT /api/v1/topics/x", Scripted::json(201, topic)),
        ("GET /api/v1/topics/x", Scripted::json(200, topic)),
        ("GET /api/v1/tasks?topic=x&limit=1000", Scripted::json(200, r#"{"items":[],"next":null,"scope":"instance"}"#)),
    ]);
    let output = drover(&server.url(), &["topics", "add", "x", "--wait", "--timeout", "300ms"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("added x\ndrover: x does not run after 300ms: Kafka has no topic\\nx;"), "{output:?}");
}

#[test]
fn the_commands_do_their_work_on_a_whole_drover() {
    let mut world = World::new(&[("orders", 2), ("logs", 1)]);
    world.produce_numbers("orders", 0..200);
    // A new subscription makes the mock cluster wait for the session's time-out.
    world.configure_with("[{topic: logs}]", "10s", SHORT_SESSION);
    let app = world.start();
    let url = app.url.clone();

    let added = ok(&url, &["topics", "add", "orders", "--format", "json", "--label", "team=shop", "--create-only", "--wait"]);
    let row: Vec<&str> = added.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!((row[0], row[1], row[3]), ("orders", "running", "2/2"), "{added}");
    assert_eq!(code(&drover(&url, &["topics", "add", "orders", "--create-only"])), 5);
    assert_eq!(code(&drover(&url, &["topics", "add", "orders", "--create-only", "--dry-run"])), 5);
    let illegal = drover(&url, &["topics", "add", "other", "--index", "{topik}", "--start", "soon"]);
    assert!(code(&illegal) == 1 && stderr(&illegal).contains("/index") && stderr(&illegal).contains("/start"), "{illegal:?}");
    world.await_caught_up(&app, "orders");

    let listed = ok(&url, &["topics", "list", "--source", "store"]);
    assert!(listed.lines().count() == 2 && listed.contains("orders"), "{listed}");
    let labels: Value = serde_json::from_str(&ok(&url, &["topics", "get", "orders", "-o", "json"])).expect("JSON");
    assert_eq!(labels["spec"]["labels"]["team"], "shop");

    let paused = ok(&url, &["topics", "pause", "logs", "--reason", "维护", "--until", "2h", "--wait"]);
    assert!(paused.contains("paused") && paused.contains("0/1"), "{paused}");
    assert!(ok(&url, &["topics", "get", "logs"]).contains("维护"));
    assert_eq!(code(&drover(&url, &["topics", "restart", "logs"])), 1, "a paused task is not restarted");
    ok(&url, &["topics", "resume", "logs", "--wait"]);
    assert!(ok(&url, &["topics", "list", "--match", "logs"]).contains("1/1"), "it runs again");

    let foreseen: Value =
        serde_json::from_str(&ok(&url, &["topics", "rewind", "orders", "--to", "earliest", "--dry-run", "-o", "json"])).expect("JSON");
    let records: i64 = foreseen["items"].as_array().expect("items").iter().filter_map(|row| row["records"].as_i64()).sum();
    assert_eq!(records, 200);
    ok(&url, &["topics", "rewind", "orders", "--to", "0", "--partition", "1", "--yes", "--wait"]);
    world.await_caught_up(&app, "orders");

    ok(&url, &["topics", "restart", "orders", "--wait"]);
    ok(&url, &["tasks", "restart", "orders", "0"]);
    assert_eq!(code(&drover(&url, &["tasks", "get", "orders", "7"])), 4);
    let tasks: Value = serde_json::from_str(&ok(&url, &["tasks", "--topic", "orders", "-o", "json"])).expect("JSON");
    assert_eq!(tasks["items"][0]["restarts_total"], 2);

    let lives = || -> Vec<i64> {
        let tasks: Value = serde_json::from_str(&ok(&url, &["tasks", "--topic", "orders", "-o", "json"])).expect("JSON");
        tasks["items"].as_array().expect("items").iter().map(|task| task["incarnation"].as_i64().expect("a number")).collect()
    };
    let before = lives();
    ok(&url, &["topics", "add", "orders", "--format", "json", "--label", "team=shop", "--index", "orders-again", "--wait"]);
    let after = lives();
    assert!(
        after.len() == 2 && after.iter().zip(&before).all(|(new, old)| new > old),
        "the lives under the old spec were waited for: {before:?}, {after:?}"
    );

    let status = wait_until("the status is ok", SOON, || {
        let output = drover(&url, &["status", "--fail-on", "degraded"]);
        (code(&output) == 0).then(|| stdout(&output))
    });
    assert!(status.starts_with("ok  drover") && status.contains("component/kafka"), "{status}");
    let events = ok(&url, &["events", "--topic", "orders"]);
    assert!(events.contains("topic_added") && events.contains("task_started"), "{events}");
    assert!(ok(&url, &["sources"]).contains("config.yaml"));
    ok(&url, &["sources", "confirm", "store"]);
    assert_eq!(ok(&url, &["dead-letters", "list"]).lines().count(), 1);
    ok(&url, &["healthcheck"]);

    ok(&url, &["topics", "remove", "orders", "--dry-run"]);
    ok(&url, &["topics", "remove", "orders", "--wait"]);
    assert_eq!(ok(&url, &["tasks", "--topic", "orders"]).lines().count(), 1, "its tasks are gone");
    assert_eq!(code(&drover(&url, &["topics", "get", "orders"])), 4);
    let elsewhere = drover(&url, &["topics", "remove", "logs"]);
    assert!(code(&elsewhere) == 5 && stderr(&elsewhere).contains("topic-not-managed"), "{elsewhere:?}");
    world.stop(app);
}
