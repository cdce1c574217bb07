//! The file sink and `drover replay`: what the whole program writes, and what of it reaches a server later.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use drover::app::{End, StartError};
use serde_json::Value;

use crate::end_to_end::{App, World};
use crate::harness::http;
use crate::harness::process::free_port;
use crate::harness::wait::wait_until;
use crate::sink::stub::{Answer, ItemRule, StubServer};

const SOON: Duration = Duration::from_secs(30);
/// For a second start on the mock cluster: the group waits for the session of the member that left.
const SHORT_SESSION: &str = ", session.timeout.ms: 6000";

/// A configuration that writes to `out` beside it.
fn configure(world: &World, topics: &str) {
    let text = format!(
        "kafka: {{brokers: ['{}'], properties: {{fetch.wait.max.ms: 10{SHORT_SESSION}}}}}\nsink: {{file: out}}\n\
         supervision: {{shutdown_timeout: 10s, drain_timeout: 1s}}\ntopics: {topics}\n",
        world.broker.addresses()
    );
    fs::write(world.config_path(), text).expect("a file in our folder");
}

/// Every file below a sink's folder by its path in there, save the lock.
fn files(out: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(out).expect("a folder").flatten().filter(|entry| entry.path().is_dir()) {
        for file in fs::read_dir(folder.path()).expect("a folder").flatten() {
            let name = format!("{}/{}", folder.file_name().to_string_lossy(), file.file_name().to_string_lossy());
            found.insert(name, fs::read_to_string(file.path()).expect("text"));
        }
    }
    found
}

/// How often each document, by index and id, is in the files. Fails when they hold anything but pairs of lines.
fn written(out: &Path) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for (name, content) in files(out) {
        assert!(content.ends_with('\n'), "{name} ends in the middle of a line");
        let lines: Vec<&str> = content.lines().collect();
        for pair in lines.chunks(2) {
            let [action, source] = pair else { panic!("{name} ends in the middle of a pair") };
            let action: Value = serde_json::from_str(action).unwrap_or_else(|error| panic!("{name}: {error}: {action}"));
            let names = action.get("index").or(action.get("create")).expect("an operation");
            let index = names["_index"].as_str().expect("an index").to_owned();
            assert!(name.starts_with(&format!("{index}/")), "{index} in {name}");
            serde_json::from_str::<Value>(source).unwrap_or_else(|error| panic!("{name}: {error}: {source}"));
            *found.entry((index, names["_id"].as_str().expect("an id").to_owned())).or_default() += 1;
        }
    }
    found
}

/// Waits until the API answers, ready or not.
fn await_there(app: &App) {
    wait_until("the API answers", SOON, || http::send("GET", &format!("{}/livez", app.url), &[], None).ok());
}

/// How a run of the program ended and what it said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn drover(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    for name in ["DROVER_CONFIG", "DROVER_LISTEN", "DROVER_LOG", "FAILPOINTS"] {
        command.env_remove(name);
    }
    let output = command.output().expect("the program");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn replay(out: &Path, to: &str, more: &[&str]) -> Said {
    let out = out.to_string_lossy();
    let said = drover(Path::new("."), &[&["replay", &out, "--to", to], more].concat());
    assert_eq!(said.stdout, "", "{said:?}");
    said
}

#[test]
fn what_a_torn_end_and_a_second_start_leave_is_replayed_whole() {
    let mut world = World::new(&[("orders", 2), ("app_log", 1)]);
    configure(
        &world,
        "[{topic: orders, format: json}, {topic: app_log, format: text, index: 'Logs-{topic}-{date}', operation: create, pipeline: p}]",
    );
    let out = world.folder.path().join("out");
    world.produce_numbers("orders", 0..3000);
    world.produce("app_log", 0, (0..100).map(|number| format!("line {number} with \"quotes\",\nbreaks and \u{1F980}")));
    let app = world.start();
    let orders = world.await_caught_up(&app, "orders");
    world.await_caught_up(&app, "app_log");
    assert_eq!((&orders["indexed_total"], &orders["health"]), (&3000.into(), &"ok".into()));
    assert_eq!(world.stop(app).0, End::Clean);
    let first = files(&out);
    assert!(
        first.keys().all(|name| name.ends_with("-00000001.ndjson"))
            && first.contains_key(first.keys().find(|name| name.starts_with("logs-app_log-")).expect("folded")),
        "{:?}",
        first.keys()
    );

    // As an end without warning leaves it: under the name of an open file, with a half pair of a batch that was not settled.
    let (name, _) = first.iter().find(|(name, _)| name.starts_with("orders/")).expect("a file");
    let torn = out.join(format!("{name}.part"));
    fs::rename(out.join(name), &torn).expect("our own file");
    OpenOptions::new().append(true).open(&torn).expect("it").write_all(b"{\"index\":{\"_index\":\"orders\",\"_id\":\"orders:0:9").expect("room");
    world.produce_numbers("orders", 3000..3100);
    let app = world.start();
    world.await_caught_up(&app, "orders");
    assert_eq!(world.stop(app).0, End::Clean);
    let expected: BTreeMap<(String, String), usize> = {
        let orders = world.broker.ids("orders").into_iter().map(|id| ("orders".to_owned(), id));
        let index = written(&out).into_keys().find(|(index, _)| index.starts_with("logs-")).expect("a dated index").0;
        orders.chain(world.broker.ids("app_log").into_iter().map(|id| (index.clone(), id))).map(|document| (document, 1)).collect()
    };
    assert_eq!(written(&out), expected);

    for writes in 1..=2 {
        let said = replay(&out, &world.stub.url(), &[]);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), "replayed 3200 documents from 3 files, 0 refused\n"), "{said:?}");
        let documents = world.stub.documents();
        assert_eq!(documents.keys().cloned().collect::<Vec<_>>().len(), expected.len());
        for ((index, id), document) in &documents {
            assert!(expected.contains_key(&(index.clone(), id.clone())), "{index} {id}");
            if index == "orders" {
                assert_eq!((document.source.as_bytes(), document.writes), (world.broker.value(id).expect("no tombstone"), writes));
            }
        }
    }
    let pipelines: Vec<_> = world
        .stub
        .seen()
        .iter()
        .flat_map(|request| request.items.clone())
        .filter(|item| item.operation == "create")
        .map(|item| item.pipeline)
        .collect();
    assert!(pipelines.len() == 200 && pipelines.iter().all(|pipeline| pipeline.as_deref() == Some("p")), "{}", pipelines.len());
}

#[cfg(feature = "failpoints")]
#[test]
fn a_full_disk_is_shown_and_nothing_is_committed_until_there_is_room() {
    let mut world = World::new(&[("orders", 1)]);
    configure(&world, "[{topic: orders, format: json}]");
    let out = world.folder.path().join("out");
    fail::cfg("file_sink_write", &format!("return({})", out.display())).expect("a failpoint");
    world.produce_numbers("orders", 0..50);
    let app = world.launch();
    await_there(&app);
    app.await_waiting("orders", |code| code == "sink_unreachable");
    let task = app.task("orders", 0);
    assert!(task["reason"]["message"].as_str().is_some_and(|text| text.contains("out/orders")), "{task}");
    assert!(task["reason"]["remedy"].as_str().is_some_and(|text| text.contains("make room")), "{task}");
    assert_eq!((&task["committed"], &task["indexed_total"]), (&Value::Null, &0.into()));
    fail::remove("file_sink_write");
    world.await_caught_up(&app, "orders");
    assert_eq!(world.stop(app).0, End::Clean);
    let expected: BTreeMap<_, _> = world.broker.ids("orders").into_iter().map(|id| (("orders".to_owned(), id), 1)).collect();
    assert_eq!(written(&out), expected);
}

#[test]
fn a_folder_that_cannot_be_used_refuses_the_start_by_name() {
    let world = World::new(&[]);
    configure(&world, "[]");
    fs::write(world.folder.path().join("out"), "").expect("a file");
    let error = world.ended(world.launch()).expect_err("no folder");
    assert!(matches!(error, StartError::SinkFolder(_)) && error.exit_code() == 1, "{error}");
    assert!(error.to_string().contains("/out of sink.file") && error.to_string().contains("name another folder"), "{error}");
    let config = "kafka: {brokers: ['127.0.0.1:1']}\nsink: {file: out}\ntopics: [{topic: orders}]\n";
    fs::write(world.config_path(), config).expect("a file");
    let said = drover(world.folder.path(), &["check-config", "--probe", "-o", "json"]);
    let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let servers: Vec<&Value> = report["unreachable"].as_array().expect("a list").iter().map(|entry| &entry["server"]).collect();
    assert_eq!((said.code, servers), (Some(69), vec![&Value::from("kafka"), &Value::from("sink")]), "{report}");
    fs::remove_file(world.folder.path().join("out")).expect("our own file");
    let said = drover(world.folder.path(), &["check-config", "--probe", "-o", "json"]);
    assert!(!said.stdout.contains("\"sink\""), "{said:?}");
    assert!(!world.folder.path().join("out").exists(), "a probe left something behind");
}

#[test]
fn two_processes_do_not_write_to_one_folder() {
    let world = World::new(&[]);
    configure(&world, "[]");
    let app = world.launch();
    await_there(&app);
    let config = "kafka: {brokers: ['127.0.0.1:1']}\nsink: {file: out}\ndata_dir: other\n";
    fs::write(world.folder.path().join("second.yaml"), config).expect("a file");
    let said = drover(world.folder.path(), &["run", "--config", "second.yaml", "--listen", &format!("127.0.0.1:{}", free_port())]);
    assert!(said.code == Some(1) && said.stderr.contains("another drover writes to the folder"), "{said:?}");
    world.stop(app);
}

/// A folder as the file sink leaves it, with so many documents in the index `a`.
fn folder_with(documents: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let index = folder.path().join("a");
    fs::create_dir(&index).expect("a folder");
    let pair = |id: usize| format!("{{\"index\":{{\"_index\":\"a\",\"_id\":\"a:0:{id}\"}}}}\n{{\"n\":{id},\"text\":\"number {id}.\"}}\n");
    let file = index.join("20260131T120000Z-00000001.ndjson");
    fs::write(&file, (0..documents).map(pair).collect::<String>()).expect("a file");
    (folder, file)
}

/// A stub that answers from threads of its own.
struct Server {
    stub: StubServer,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let stub = runtime.block_on(StubServer::start());
        stub.forget_requests();
        Self { stub, _runtime: runtime }
    }
}

#[test]
fn a_document_that_is_refused_is_named_and_the_rest_is_sent() {
    let server = Server::start();
    let (folder, file) = folder_with(30_000);
    let rule = |text: &str, reason: &str| ItemRule {
        containing: text.to_owned(),
        status: 400,
        error_type: "document_parsing_exception".to_owned(),
        reason: reason.to_owned(),
    };
    server.stub.script(move |_| Answer::Items(vec![rule("number 7.", "no \u{1b}[2J number"), rule("number 29999.", "no number")]));
    let said = replay(folder.path(), &server.stub.url(), &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<&str> = said.stderr.lines().collect();
    let expected = |line: usize, id: usize, reason: &str| {
        format!("{}:{line}: refused: id a:0:{id}, index a, status 400, document_parsing_exception: {reason}", file.display())
    };
    assert!(lines.len() == 3 && lines.contains(&expected(15, 7, "no \u{fffd}[2J number").as_str()), "{lines:#?}");
    assert!(lines.contains(&expected(59_999, 29_999, "no number").as_str()), "{lines:#?}");
    assert_eq!(lines[2], "replayed 29998 documents from 1 file, 2 refused");
    assert_eq!(server.stub.document_count(), 29_998);
}

#[test]
fn a_damaged_file_is_named_and_the_next_one_is_sent() {
    let server = Server::start();
    let (folder, file) = folder_with(10);
    OpenOptions::new().append(true).open(&file).expect("it").write_all(b"rubbish\n").expect("room");
    let next = file.with_file_name("20260131T120000Z-00000002.ndjson.part");
    fs::write(&next, "{\"create\":{\"_index\":\"a\",\"_id\":\"b\"}}\n{}\n{\"create\":{\"_ind").expect("a file");
    let said = replay(folder.path(), &server.stub.url(), &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let damaged = format!("{}:21: this is no action line", file.display());
    let torn = format!("{}:3: skipped a torn end", next.display());
    assert!(said.stderr.contains(&damaged) && said.stderr.contains(&torn), "{said:?}");
    assert_eq!(server.stub.document_count(), 11);
    fs::remove_file(&file).expect("our own file");
    assert_eq!(replay(folder.path(), &server.stub.url(), &[]).code, Some(0), "a torn end alone is no failure");
}

#[test]
fn a_port_where_nobody_answers_is_69_after_the_wait() {
    let (folder, _) = folder_with(100_000);
    let said = replay(folder.path(), "http://127.0.0.1:1", &["--wait", "1"]);
    assert_eq!(said.code, Some(69), "{said:?}");
    let lines: Vec<&str> = said.stderr.lines().collect();
    assert!(lines[0].ends_with("; trying for 1 s") && lines[0].contains("127.0.0.1:1"), "{lines:#?}");
    assert!(!said.stderr.contains("by itself") && said.stderr.matches("check that the server runs").count() == 1, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("replayed 0 documents")), "{lines:#?}");
}

#[test]
fn a_closed_index_is_waited_for_and_then_named() {
    let server = Server::start();
    let (folder, file) = folder_with(1000);
    server.stub.script(|_| Answer::item_error("number 3.", 400, "index_closed_exception", "closed"));
    let said = replay(folder.path(), &server.stub.url(), &["--wait", "1"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let told = format!("{}:7: index_closed_exception: closed; open the index (POST /<index>/_open); trying for 1 s", file.display());
    let given_up = format!("{}:7: not taken for 1 s", file.display());
    let lines: Vec<&str> = said.stderr.lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1], lines.len()), (told.as_str(), given_up.as_str(), 3), "{said:?}");
    server.stub.script(|request| match request.number % 3 {
        0 => Answer::Normal,
        _ => Answer::item_error("number 3.", 400, "index_closed_exception", "closed"),
    });
    let said = replay(folder.path(), &server.stub.url(), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.ends_with("replayed 1000 documents from 1 file, 0 refused\n"), "{said:?}");
    assert_eq!(server.stub.document_count(), 1000);
}

#[test]
fn a_server_that_never_answers_is_waited_for_no_longer_than_was_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (folder, _) = folder_with(1);
    let started = std::time::Instant::now();
    let said = replay(folder.path(), &format!("http://{}", listener.local_addr().expect("bound")), &["--wait", "1"]);
    assert_eq!(said.code, Some(69), "{said:?}");
    // The built-in time-out of a request is a minute.
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert!(said.stderr.contains("replayed 0 documents from 1 file, 0 refused, then it stopped"), "{said:?}");
}

#[test]
fn an_interrupted_replay_says_what_was_sent_and_that_it_may_be_repeated() {
    let server = Server::start();
    let (folder, _) = folder_with(10);
    let (asked, was_asked) = std::sync::mpsc::channel();
    server.stub.script(move |_| {
        // Only the first is waited for.
        let _ = asked.send(());
        Answer::error(429, "es_rejected_execution_exception", "queue full")
    });
    let url = server.stub.url();
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.arg("replay").arg(folder.path()).args(["--to", &url]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program");
    was_asked.recv_timeout(SOON).expect("it sends");
    let id = i32::try_from(child.id()).expect("a process id");
    // SAFETY: the child is ours and was not waited for, so its id is still its own.
    assert_eq!(unsafe { libc::kill(id, libc::SIGINT) }, 0);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.ends_with("interrupted: 0 documents sent so far, 0 refused; run it again: nothing is doubled\n"), "{said}");
}

#[test]
fn refused_credentials_are_told_at_once() {
    let server = Server::start();
    let (folder, _) = folder_with(10);
    server.stub.script(|_| Answer::error(401, "security_exception", "missing authentication credentials"));
    let said = replay(folder.path(), &server.stub.url(), &[]);
    assert!(said.code == Some(1) && said.stderr.contains("security_exception") && said.stderr.contains("--config"), "{said:?}");
}

#[test]
fn a_server_that_comes_back_gets_everything() {
    let server = Server::start();
    let (folder, _) = folder_with(200_000);
    // Refused, cut and answered too late by turns, before it takes what comes.
    server.stub.script(|request| match request.number {
        0 => Answer::error(429, "es_rejected_execution_exception", "queue full"),
        1 => Answer::CutAfterApply,
        2 => Answer::html(502),
        3 => Answer::error(413, "", "too large"),
        _ => Answer::Normal,
    });
    let said = replay(folder.path(), &server.stub.url(), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.ends_with("replayed 200000 documents from 1 file, 0 refused\n"), "{said:?}");
    assert_eq!(server.stub.document_count(), 200_000);
}

#[test]
fn what_cannot_be_replayed_is_told_with_what_can() {
    let (folder, _) = folder_with(1);
    let empty = tempfile::tempdir().expect("a folder");
    for (dir, to, code, said) in [
        (Path::new("/nowhere/at/all"), "http://127.0.0.1:1", 2, "sink: {file: DIR}"),
        (empty.path(), "http://127.0.0.1:1", 1, "sink: {file: DIR}"),
        (folder.path(), "localhost:9200", 2, "http://HOST:PORT"),
    ] {
        let found = replay(dir, to, &[]);
        assert!(found.code == Some(code) && found.stderr.contains(said), "{found:?}");
    }
    assert_eq!(files(folder.path()).len(), 1);
}
