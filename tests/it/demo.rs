//! `drover demo` as people start it: that it needs nothing, shows what it promises, stops cleanly and goes on at the next start; and what it says when it cannot start.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::{self, Answer};
use crate::harness::process::{Process, RunFolder, User, free_port};
use crate::harness::wait::{holds_for, wait_until};

/// Longer than anything here takes when all is well, also on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// What someone who looks on has patience for; the cluster takes two seconds to let a member join again.
const A_SHORT_WAIT: Duration = Duration::from_secs(15);
/// Past the first crash on purpose, which comes 8 to 13 s after the start.
const PAST_THE_FIRST_CRASH: Duration = Duration::from_secs(15);

/// A demo that runs.
struct Demo {
    process: Process,
    port: u16,
    folder: RunFolder,
}

impl Demo {
    /// Starts a demo in `folder` and waits until it is ready.
    fn start(folder: RunFolder, options: &[&str]) -> Self {
        let mut demo = Self::launch(folder, options, |_| ());
        demo.wait_until("the demo is ready", |demo| demo.ask("GET", "/readyz", None).filter(|answer| answer.status == 200).map(drop));
        demo
    }

    /// Starts a demo in `folder` and waits for nothing.
    fn launch(folder: RunFolder, options: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let mut arguments = vec!["--dir", "demo", "--listen", &listen];
        arguments.extend_from_slice(options);
        let mut command = command(&arguments);
        prepare(&mut command);
        let process = Process::start(&folder, "drover", command);
        Self { process, port, folder }
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
        http::send_json(method, &format!("http://127.0.0.1:{}{path}", self.port), body).ok()
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.ask("GET", path, None).filter(|answer| answer.status == 200).map(|answer| answer.json())
    }

    fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).and_then(|mut list| list["items"].as_array_mut().map(std::mem::take)).unwrap_or_default()
    }

    #[track_caller]
    fn must(&self, method: &str, path: &str, body: Option<&Value>) {
        let answer = self.ask(method, path, body).expect("an answer");
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
    }

    /// Waits on a condition; a demo that ends meanwhile fails at once.
    #[track_caller]
    fn wait_until<T>(&mut self, what: &str, mut condition: impl FnMut(&Self) -> Option<T>) -> T {
        wait_until(what, SOON, || {
            let ended = self.process.ended();
            assert!(ended.is_none(), "the demo ended with {ended:?} while waiting until {what}: {}", self.log());
            condition(self)
        })
    }

    /// The field of a topic's status as a number; 0 while it is not there.
    fn count(&self, topic: &str, field: &str) -> u64 {
        self.get(&format!("/api/v1/topics/{topic}")).and_then(|topic| topic["status"][field].as_u64()).unwrap_or_default()
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        self.items("/api/v1/events?limit=1000").into_iter().filter(|event| event["kind"] == kind).collect()
    }

    fn restarts(&self) -> u64 {
        self.items("/api/v1/tasks?limit=1000").iter().filter_map(|task| task["restarts_total"].as_u64()).sum()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.process.log_path()).expect("the demo's output")
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("demo")
    }

    /// SIGTERM; asserts the clean end and gives the folder back.
    #[track_caller]
    fn stop(mut self) -> RunFolder {
        let status = self.process.terminate(SOON).expect("the demo ends");
        assert_eq!(status.code(), Some(0), "{}", self.log());
        let open: Vec<PathBuf> =
            files(&self.dir().join("out")).into_iter().filter(|file| file.extension().is_some_and(|end| end == "part")).collect();
        assert_eq!(open, [] as [PathBuf; 0], "files are left open");
        self.folder
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.arg("demo").args(arguments);
    for name in ["DROVER_CONFIG", "DROVER_LISTEN", "DROVER_LOG", "FAILPOINTS"] {
        command.env_remove(name);
    }
    command
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        if entry.file_type().expect("a type").is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// The ids of all documents in the output, as often as they are there.
fn ids(dir: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    for file in files(&dir.join("out")).into_iter().filter(|file| file.extension().is_some_and(|end| end == "ndjson")) {
        let text = fs::read_to_string(&file).expect("UTF-8");
        for action in text.lines().step_by(2) {
            let action: Value = serde_json::from_str(action).unwrap_or_else(|error| panic!("{}: {error}: {action}", file.display()));
            ids.push(action["index"]["_id"].as_str().expect("an id").to_owned());
        }
    }
    ids
}

/// Runs the demo, which cannot start, to its end.
#[track_caller]
fn refused(folder: &RunFolder, arguments: &[&str]) -> (Option<i32>, String) {
    let name = "refused";
    let mut process = Process::start(folder, name, command(arguments));
    let status = process.wait(SOON).unwrap_or_else(|| panic!("{arguments:?} runs"));
    let log = process.log_path().to_owned();
    let said = fs::read_to_string(&log).expect("its output");
    fs::remove_file(log).expect("our own file");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
    (status.code(), said)
}

#[test]
fn a_task_that_crashes_comes_back_and_nothing_is_left_open_at_the_end() {
    let mut demo = Demo::start(RunFolder::new("demo", User::Same), &[]);
    assert!(demo.log().contains(&format!("http://127.0.0.1:{}/", demo.port)), "the page is not named: {}", demo.log());
    for topic in ["demo_orders", "demo_app_log"] {
        demo.wait_until(&format!("records of {topic} are indexed by four tasks"), |demo| {
            (demo.count(topic, "indexed_total") > 50 && demo.count(topic, "partitions") == 4).then_some(())
        });
    }
    // Unmanaged topics are offered, and show documents as soon as they are added.
    let offered = demo.get("/api/v1/kafka/topics").expect("topics").to_string();
    assert!(offered.contains("demo_payments") && offered.contains("demo_clickstream"), "{offered}");
    demo.must("PUT", "/api/v1/topics/demo_payments", Some(&json!({"format": "json"})));
    let added = Instant::now();
    demo.wait_until("payments are indexed", |demo| (demo.count("demo_payments", "indexed_total") > 0).then_some(()));
    assert!(added.elapsed() < A_SHORT_WAIT, "someone who adds a topic waits {:?} for its documents", added.elapsed());
    let letter = demo.wait_until("a cut-off order is a dead letter", |demo| demo.items("/api/v1/dead-letters").pop());
    assert_eq!((&letter["topic"], &letter["cause"]), (&json!("demo_orders"), &json!("format")), "{letter}");

    let crashed = demo.wait_until("a task has crashed and runs again", |demo| {
        let tasks = demo.items("/api/v1/tasks?limit=1000");
        tasks.into_iter().find(|task| task["restarts_total"].as_u64() >= Some(1) && task["state"] == "running")
    });
    assert_eq!(crashed["last_exit"]["cause"], "panicked", "{crashed}");
    assert!(crashed["last_exit"]["message"].as_str().is_some_and(|message| message.contains("on purpose")), "{crashed}");
    let place = format!("/api/v1/tasks/{}/{}", crashed["topic"].as_str().expect("a topic"), crashed["partition"]);
    let indexed = crashed["indexed_total"].as_u64().expect("a count");
    demo.wait_until("it goes on", |demo| (demo.get(&place)?["indexed_total"].as_u64()? > indexed).then_some(()));
    demo.wait_until("the crash is an event", |demo| {
        let is_it = |event: &Value| event["topic"] == crashed["topic"] && event["partition"] == crashed["partition"];
        demo.events("task_exited").iter().any(is_it).then_some(())
    });

    let log = demo.log();
    // What the cluster does not answer must not be asked for all the time.
    assert!(!log.contains("kafka does not answer") && !log.contains("could not be looked up"), "{log}");
    let folder = demo.stop();
    assert!(!ids(&folder.path().join("demo")).is_empty());
}

#[test]
fn a_second_start_goes_on_with_what_the_first_one_left() {
    let mut demo = Demo::start(RunFolder::new("demo", User::Same), &["--calm"]);
    demo.wait_until("tasks run", |demo| (demo.count("demo_app_log", "indexed_total") > 0).then_some(()));
    demo.must("PUT", "/api/v1/topics/demo_payments", Some(&json!({"format": "json"})));
    demo.wait_until("payments are indexed", |demo| (demo.count("demo_payments", "indexed_total") > 0).then_some(()));
    demo.wait_until("there is a dead letter", |demo| demo.items("/api/v1/dead-letters").pop());
    demo.must("POST", "/api/v1/tasks/demo_app_log/2/restart", None);
    demo.wait_until("the restart is counted", |demo| (demo.get("/api/v1/tasks/demo_app_log/2")?["restarts_total"] == 1).then_some(()));
    demo.must("PUT", "/api/v1/topics/demo_orders/pause", Some(&json!({"reason": "a look"})));
    let letters = demo.items("/api/v1/dead-letters?limit=1000").len();
    let folder = demo.stop();
    let first: BTreeSet<String> = ids(&folder.path().join("demo")).into_iter().collect();
    assert!(first.len() > 100, "{} documents", first.len());

    let mut demo = Demo::start(folder, &["--calm"]);
    demo.wait_until("the topic that was added goes on", |demo| (demo.count("demo_payments", "indexed_total") > 0).then_some(()));
    demo.wait_until("log lines go on", |demo| (demo.count("demo_app_log", "indexed_total") > 0).then_some(()));
    assert_eq!(demo.get("/api/v1/topics/demo_orders").expect("the topic")["paused"]["reason"], "a look");
    assert_eq!(demo.get("/api/v1/tasks/demo_app_log/2").expect("the task")["restarts_total"], 1);
    assert!(demo.items("/api/v1/dead-letters?limit=1000").len() >= letters, "dead letters are gone");
    let renewed = demo.wait_until("the new topics are told as such", |demo| {
        let events = demo.events("topic_recreated");
        let topics: BTreeSet<String> = events.iter().filter_map(|event| event["topic"].as_str().map(str::to_owned)).collect();
        ["demo_app_log", "demo_payments"].iter().all(|topic| topics.contains(*topic)).then_some(topics)
    });
    assert!(!renewed.contains("demo_clickstream"), "a topic that nobody manages: {renewed:?}");
    let folder = demo.stop();

    // Within one start the restart and the pause may write again what was not settled, under the same id; two starts never share one.
    let all: BTreeSet<String> = ids(&folder.path().join("demo")).into_iter().collect();
    assert!(first.is_subset(&all), "output of the first start is gone");
    let second: BTreeSet<&str> = all.difference(&first).filter_map(|id| id.split(':').next()).collect();
    let before: BTreeSet<&str> = first.iter().filter_map(|id| id.split(':').next()).collect();
    assert!(!second.is_empty() && second.is_disjoint(&before), "{second:?} {before:?}");
    // Everything is read from its beginning.
    assert!(second.iter().all(|base| (0..4).any(|partition| all.contains(&format!("{base}:{partition}:0")))), "{second:?}");
}

#[test]
fn in_a_calm_demo_nothing_crashes() {
    let mut demo = Demo::start(RunFolder::new("demo", User::Same), &["--calm"]);
    demo.wait_until("tasks run", |demo| (demo.count("demo_app_log", "indexed_total") > 0).then_some(()));
    holds_for("no restart", PAST_THE_FIRST_CRASH, || demo.restarts() == 0);
    assert!(demo.count("demo_orders", "indexed_total") > 100, "nothing was indexed");
    assert_eq!(demo.events("task_exited"), [] as [Value; 0]);
    demo.stop();
}

#[test]
fn a_second_demo_in_the_same_folder_is_told_so() {
    let demo = Demo::start(RunFolder::new("demo", User::Same), &["--calm"]);
    let (code, said) = refused(&demo.folder, &["--dir", "demo", "--listen", &format!("127.0.0.1:{}", free_port())]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another demo uses the folder demo") && said.contains("--dir") && said.lines().count() == 1, "{said}");
    demo.stop();
}

#[test]
fn a_used_port_is_told_with_the_option() {
    let folder = RunFolder::new("demo", User::Same);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, said) = refused(&folder, &["--dir", "demo", "--listen", &address]);
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains(&address) && last.contains("--listen") && last.contains("in use"), "{said}");
}

#[test]
fn a_folder_that_cannot_be_used_is_told_with_the_option() {
    let folder = RunFolder::new("demo", User::Same);
    folder.write("file", "");
    // Nobody can make a folder in /proc, not even root.
    for dir in ["file", "file/below", "/proc/drover-demo"] {
        let (code, said) = refused(&folder, &["--dir", dir]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(dir) && said.contains("--dir") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_broken_configuration_in_the_folder_is_told_with_its_line_and_kept() {
    let folder = RunFolder::new("demo", User::Same);
    let text = "kafka: {brokers: ['${DROVER_DEMO_BROKERS}']}\nsink: {file: ./out}\ntopics:\n  - {topic: demo_orders, formt: json}\n";
    let config = folder.write("demo/config.yaml", text);
    let (code, said) = refused(&folder, &["--dir", "demo"]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.starts_with("demo/config.yaml:4:") && said.contains("formt"), "{said}");
    assert_eq!(fs::read_to_string(config).expect("the file"), text);
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let folder = RunFolder::new("demo", User::Same);
    let (code, said) = refused(&folder, &["--dir", "demo", "--listen", &format!("0.0.0.0:{}", free_port())]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("--insecure"), "{said}");
}

#[test]
fn an_edited_configuration_takes_effect_while_the_demo_runs() {
    let mut demo = Demo::start(RunFolder::new("demo", User::Same), &["--calm"]);
    demo.wait_until("tasks run", |demo| (demo.count("demo_app_log", "indexed_total") > 0).then_some(()));
    let config = demo.dir().join("config.yaml");
    let text = fs::read_to_string(&config).expect("the configuration");
    let edited = text.replace("# - topic: demo_clickstream\n#   format: text", "  - topic: demo_clickstream\n    format: text");
    assert_ne!(edited, text);
    fs::write(&config, edited).expect("our own file");
    demo.wait_until("clicks are indexed", |demo| (demo.count("demo_clickstream", "indexed_total") > 0).then_some(()));
    let info = demo.get("/api/v1/info").expect("info");
    assert_eq!(info["needs_restart"], json!([]), "the address of the cluster was not found again");
    demo.stop();
}

/// Every thread of the pipeline's runtime is held for ever by a record, as an endless loop would. Whoever restarts the process has to be told, by a thread that is not held.
#[cfg(feature = "failpoints")]
#[test]
fn liveness_tells_of_a_runtime_whose_threads_all_hang() {
    let hang = |command: &mut Command| {
        command.env("FAILPOINTS", "format_record=sleep(3600000)");
    };
    let mut demo = Demo::launch(RunFolder::new("demo", User::Same), &["--calm"], hang);
    let told = demo.wait_until("the silence is told", |demo| demo.ask("GET", "/livez?verbose", None).filter(|answer| answer.status == 503));
    assert!(told.text().contains("down: no turn for"), "{}", told.text());
    demo.process.kill();
}
