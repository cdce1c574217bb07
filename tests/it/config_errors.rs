//! The program as its users start it: what it says about a wrong configuration or a wrong environment, with which exit code, how it ends, and what it never says.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::drover::Drover;
use crate::harness::process::free_port;
use crate::harness::wait::{try_wait_until, wait_until};

/// Longer than the program takes to say what is wrong, also on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// A file that is usable although nobody answers at its addresses.
const UNREACHABLE: &str = "kafka: {brokers: ['127.0.0.1:1']}\nelasticsearch: {urls: ['http://127.0.0.1:1']}\ntopics: [{topic: orders}]\n";

/// A folder with a configuration, in which the program is run.
struct Folder(tempfile::TempDir);

/// How a run ended and what it said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Folder {
    fn new(config: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        fs::write(folder.path("config.yaml"), config).expect("a file");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program in here to its end.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.stdout(File::create(&out).expect("a file")).stderr(File::create(&err).expect("a file"));
        for name in ["DROVER_CONFIG", "DROVER_LISTEN", "DROVER_LOG", "FAILPOINTS"] {
            command.env_remove(name);
        }
        let mut child = command.envs(environment.iter().copied()).spawn().expect("the program");
        let ended = try_wait_until(SOON, || child.try_wait().expect("our own child"));
        if ended.is_none() {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
        }
        let said = Said { code: ended.and_then(|status| status.code()), stdout: text(&out), stderr: text(&err) };
        assert!(ended.is_some(), "{arguments:?} did not end: {said:?}");
        said
    }

    /// Runs `drover run` on the configuration with an address of its own.
    fn start(&self) -> Said {
        self.run(&["run", "--listen", &format!("127.0.0.1:{}", free_port())], &[])
    }
}

fn text(path: &Path) -> String {
    String::from_utf8(fs::read(path).expect("the output")).expect("UTF-8")
}

#[test]
fn a_missing_file_is_named_with_the_option() {
    let folder = Folder::new(UNREACHABLE);
    fs::remove_file(folder.path("config.yaml")).expect("our own file");
    for (arguments, environment, named) in [
        (vec!["run", "--config", "elsewhere.yaml"], vec![], "elsewhere.yaml"),
        (vec!["--config", "elsewhere.yaml"], vec![], "elsewhere.yaml"),
        (vec!["run"], vec![("DROVER_CONFIG", "from-environment.yaml")], "from-environment.yaml"),
        (vec![], vec![], "config.yaml"),
        (vec!["check-config", "elsewhere.yaml"], vec![], "elsewhere.yaml"),
    ] {
        let said = folder.run(&arguments, &environment);
        let message = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.code, Some(78), "{arguments:?}: {said:?}");
        assert!(message.contains(named) && message.contains("--config") && message.contains("No such file"), "{arguments:?}: {said:?}");
        // Who named no file may have none yet, and is told how to begin.
        let is_told_how = message.contains("drover demo") && message.contains("drover check-config");
        assert_eq!(
            (message.lines().count(), is_told_how),
            if arguments.is_empty() && environment.is_empty() { (5, true) } else { (1, false) },
            "{arguments:?}: {said:?}"
        );
    }
    assert!(!folder.path("data").exists(), "a start that was refused left something behind");
}

#[test]
fn a_broken_file_is_told_with_line_and_column() {
    let folder = Folder::new("kafka:\n  brokers: [a:1\nelasticsearch: {urls: ['http://e:1']}\n");
    let said = folder.run(&["run", "--config", "config.yaml"], &[]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(78), ""), "{said:?}");
    let place: Vec<&str> = said.stderr.lines().next().unwrap_or_default().splitn(4, ':').collect();
    assert_eq!(place[0], "config.yaml", "{said:?}");
    let numbers: Vec<u32> = place[1..3].iter().map(|number| number.parse().unwrap_or_else(|_| panic!("no FILE:LINE:COLUMN: {said:?}"))).collect();
    assert!((2..=3).contains(&numbers[0]), "{said:?}");
}

/// Five mistakes of four kinds; with the line and column of each.
const FIVE_MISTAKES: &str = "\
listen: nowhere
kafka:
  brokers: []
  properties: {plugin.library.paths: evil.so}
elasticsearch: {urls: ['ftp://e:1']}
topics:
  - {topic: orders, formt: json}
";
const FIVE_PLACES: [(&str, u32, u32); 5] =
    [("listen", 1, 9), ("kafka.brokers", 3, 12), ("kafka.properties", 4, 16), ("elasticsearch.urls[0]", 5, 24), ("topics[0].formt", 7, 21)];

#[test]
fn every_problem_is_told_at_once() {
    let folder = Folder::new(FIVE_MISTAKES);
    for arguments in [["run", "--config", "config.yaml"], ["check-config", "--config", "config.yaml"]] {
        let said = folder.run(&arguments, &[]);
        let message = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.code, Some(78), "{said:?}");
        for (path, line, column) in FIVE_PLACES {
            let head = format!("config.yaml:{line}:{column}: {path}");
            assert!(message.lines().any(|found| found.starts_with(&head)), "no {head} in:\n{message}");
        }
        assert!(message.ends_with("config.yaml: 5 problems\n"), "{message}");
    }
}

#[test]
fn check_config_tells_programs_what_it_tells_people() {
    let folder = Folder::new(FIVE_MISTAKES);
    let said = folder.run(&["check-config", "-o", "json"], &[]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(78), ""), "{said:?}");
    let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(report["valid"], false);
    let problems = report["problems"].as_array().expect("problems");
    for (problem, (path, line, column)) in problems.iter().zip(FIVE_PLACES) {
        assert!(problem["path"].as_str().is_some_and(|found| found.starts_with(path)), "{problem}");
        assert_eq!((&problem["line"], &problem["column"]), (&line.into(), &column.into()), "{problem}");
        assert!(["detail", "remedy"].iter().all(|field| problem[field].as_str().is_some_and(|text| !text.is_empty())), "{problem}");
    }
    assert_eq!(problems.len(), 5, "{report}");
}

#[test]
fn a_good_file_is_valid_and_so_is_the_example() {
    let folder = Folder::new(UNREACHABLE);
    let said = folder.run(&["check-config", "-o", "json"], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((&report["valid"], report["problems"].as_array().map(Vec::len)), (&true.into(), Some(0)));
    let said = folder.run(&["check-config"], &[]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "config.yaml is valid: 1 topic\n"), "{said:?}");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.example.yaml");
    let said = folder.run(&["check-config", example], &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    // A probe asks the servers, too.
    let said = folder.run(&["check-config", "--probe"], &[]);
    assert_eq!(said.code, Some(69), "{said:?}");
    assert!(said.stdout.starts_with("kafka: ") && said.stdout.contains("\nelasticsearch: "), "{said:?}");
    assert!(said.stdout.ends_with("config.yaml is valid: 1 topic, but 2 probes failed\n"), "{said:?}");
}

#[test]
fn a_probe_that_fails_is_told_to_programs() {
    let said = Folder::new(UNREACHABLE).run(&["check-config", "--probe", "-o", "json"], &[]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(69), ""), "{said:?}");
    let report: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let silent = report["unreachable"].as_array().expect("a list");
    let servers: Vec<&Value> = silent.iter().map(|entry| &entry["server"]).collect();
    assert_eq!(servers, ["kafka", "elasticsearch"], "{report}");
    assert!(silent.iter().all(|entry| ["detail", "remedy"].iter().all(|field| entry[field].as_str().is_some_and(|text| !text.is_empty()))));
    assert_eq!((&report["valid"], &report["problems"], &report["warnings"]), (&true.into(), &Value::Array(vec![]), &Value::Array(vec![])));
}

#[test]
fn what_run_refuses_check_config_refuses_too() {
    for (text, path) in [
        ("sink: {}\n", "sink.file"),
        ("tls: {cert_file: c.pem, key_file: k.pem}\n", "tls.cert_file"),
        ("tls: {cert_file: config.yaml, key_file: config.yaml}\n", "tls.cert_file"),
        ("auth: {tokens_file: t}\n", "auth.tokens_file"),
        ("sink: {file: out}\ndead_letters: {store: elasticsearch}\n", "dead_letters.store"),
        ("readiness: {require: [etcd]}\n", "readiness.require[0]"),
        ("elasticsearch: {urls: ['http://127.0.0.1:1'], ca_file: none.pem}\n", "elasticsearch.ca_file"),
        ("kafka: {brokers: ['127.0.0.1:1'], properties: {ssl.ca.location: none.pem}}\n", "kafka.properties.ssl.ca.location"),
        ("kafka: {brokers: ['127.0.0.1:1'], properties: {session.timeout.ms: 300001}}\n", "kafka.properties"),
    ] {
        let is_in = |section: &str| text.starts_with(section);
        let kept: Vec<&str> = UNREACHABLE
            .lines()
            .filter(|line| !(line.starts_with("kafka") && is_in("kafka") || line.starts_with("elastic") && (is_in("elastic") || is_in("sink"))))
            .collect();
        let folder = Folder::new(&format!("{text}{}\n", kept.join("\n")));
        let checked = folder.run(&["check-config"], &[]);
        let started = folder.start();
        assert_eq!((checked.code, started.code), (Some(78), Some(78)), "{checked:?} {started:?}");
        assert!(checked.stdout.contains(&format!(": {path}: ")), "{checked:?}");
        assert_eq!(checked.stdout, started.stderr, "{text}");
        assert!(!folder.path("data").exists(), "a start that was refused left something behind");
    }
}

#[test]
fn a_port_in_use_ends_the_start_with_the_remedy() {
    let folder = Folder::new(UNREACHABLE);
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder.local_addr().expect("an address").to_string();
    let said = folder.run(&["run", "--listen", &address], &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let last = said.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(&address) && last.contains("--listen") && last.contains("in use"), "{said:?}");
    assert!(!folder.path("data").exists(), "a start that was refused left something behind");
}

#[test]
fn an_address_that_others_reach_needs_a_word() {
    for (config, arguments) in
        [(format!("listen: 0.0.0.0:1\n{UNREACHABLE}"), vec!["run"]), (UNREACHABLE.to_owned(), vec!["run", "--listen", "[::]:1"])]
    {
        let said = Folder::new(&config).run(&arguments, &[]);
        assert_eq!(said.code, Some(78), "{said:?}");
        let last = said.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("--insecure") && last.contains("auth.tokens_file"), "{said:?}");
    }
}

#[test]
fn a_data_dir_that_cannot_be_used_is_named() {
    let folder = Folder::new("");
    fs::write(folder.path("a-file"), "").expect("a file");
    fs::create_dir_all(folder.path("odd/store.redb")).expect("a folder where a file should be");
    // Nobody may write below /sys, root neither.
    for data_dir in ["a-file", "a-file/below", "odd", "/sys/kernel", "/sys/kernel/drover"] {
        fs::write(folder.path("config.yaml"), format!("data_dir: {data_dir}\n{UNREACHABLE}")).expect("a file");
        let said = folder.start();
        assert_eq!(said.code, Some(1), "{data_dir}: {said:?}");
        let last = said.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("data directory") && last.contains(data_dir), "{data_dir}: {said:?}");
    }
}

#[test]
fn a_data_dir_that_another_instance_uses_is_named() {
    let first = Drover::start(UNREACHABLE, &[]);
    let data_dir = first.folder().join("data");
    let said = Folder::new(&format!("data_dir: {}\n{UNREACHABLE}", data_dir.display())).start();
    assert_eq!(said.code, Some(1), "{said:?}");
    let last = said.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("another drover uses this data_dir") && last.contains(&data_dir.display().to_string()), "{said:?}");
    assert_eq!(first.request("GET", "/livez", &[], None).status, 200);
}

/// Secrets, and every form in which they could be sent or shown.
struct Planted {
    secrets: Vec<String>,
}

impl Planted {
    fn new(secrets: &[&str]) -> Self {
        Self { secrets: secrets.iter().map(|secret| (*secret).to_owned()).collect() }
    }

    #[track_caller]
    fn assert_absent(&self, place: &str, text: &str) {
        for secret in &self.secrets {
            let forms = [secret.clone(), STANDARD.encode(secret), STANDARD.encode(format!("drover:{secret}")), hexadecimal(secret)];
            for form in forms {
                let line = text.lines().find(|line| line.contains(&form));
                assert!(line.is_none(), "a secret is in {place}: {line:?}");
            }
        }
    }
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_planted_secret_that_shows_up_anywhere_is_named() {
    let planted = Planted::new(&["Xk1-from-environment", "Xk2-in-the-file", "Xk3-from-a-file"]);
    let config = "\
kafka:
  brokers: ['127.0.0.1:1']
  properties:
    security.protocol: sasl_plaintext
    sasl.mechanism: PLAIN
    sasl.username: drover
    sasl.password: ${PLANTED}
    ssl.key.password: Xk2-in-the-file
elasticsearch:
  urls: ['http://127.0.0.1:1']
  username: drover
  password: file:password
supervision: {shutdown_timeout: 10s}
topics: [{topic: orders}]
";
    let environment = [("PLANTED", "Xk1-from-environment"), ("DROVER_LOG", "debug")];
    let mut drover = Drover::launch(&config.replace("file:password", "Xk3-from-a-file"), &environment);
    drover.wait_ready();
    drover.wait_for("the troubles are shown", SOON, |drover| {
        let health = drover.get("/api/v1/info");
        (health["components"].as_array()?.iter().any(|part| part["reason"]["code"] == "kafka_unreachable")).then_some(())
    });
    for path in [
        "/api/v1/info",
        "/api/v1/sources",
        "/api/v1/topics",
        "/api/v1/topics/orders",
        "/api/v1/tasks",
        "/api/v1/dead-letters",
        "/metrics",
        "/livez",
        "/readyz",
        "/healthz",
        "/healthz?verbose",
        "/openapi.json",
        "/api/v1/nothing",
    ] {
        for accept in ["application/json", "text/plain"] {
            let answer = drover.request("GET", path, &[("accept", accept)], None);
            planted.assert_absent(path, &format!("{:?}\n{}", answer.headers, answer.text()));
        }
    }
    // A reload that fails, and one that changes secrets, are told without them.
    drover.replace_config(&config.replace("sasl.password: ${PLANTED}", "sasl.password: [Xk1-from-environment"));
    drover.wait_for("the broken file is told", SOON, |drover| {
        let sources = drover.get("/api/v1/sources");
        planted.assert_absent("/api/v1/sources", &sources.to_string());
        (sources["items"].as_array()?.iter().any(|source| source["status"] == "error")).then_some(())
    });
    drover.replace_config(&config.replace("file:password", "Xk2-in-the-file"));
    drover.wait_for("the changed secret needs a restart", SOON, |drover| {
        let info = drover.get("/api/v1/info");
        planted.assert_absent("/api/v1/info", &info.to_string());
        (!info["needs_restart"].as_array()?.is_empty()).then_some(())
    });
    drover.terminate(Duration::from_secs(20));
    let log = drover.log();
    assert!(log.contains("DEBUG") && log.contains("sasl"), "the log is not at its most talkative:\n{log}");
    planted.assert_absent("the log", &log);

    // A file that is refused or probed: with each secret right beside the mistake.
    let folder = Folder::new("");
    fs::write(folder.path("password"), "Xk3-from-a-file\n").expect("a file");
    for broken in [
        config.to_owned(),
        config.replace("topics: [", "topics: {"),
        config.replace("sasl.password: ${PLANTED}", "sasl.password: {a: Xk1-from-environment}"),
        config.replace("sasl.password: ${PLANTED}", "sasl.password: ${Xk1-from-environment}"),
        config.replace("sasl.password: ${PLANTED}", "sasl.passwort: Xk1-from-environment"),
        config.replace("http://127.0.0.1:1", "http://drover:Xk2-in-the-file@127.0.0.1:1"),
        config.replace("'127.0.0.1:1'", "'drover:Xk2-in-the-file@127.0.0.1:1'"),
        config.replace("  username: drover\n  password", "  api_key: 'Xk2-in-the-file !'\n  password"),
        config.replace("  username: drover\n  password", "  username: drover\n  password: Xk3-from-a-file\n  password"),
        config.replace("sasl.username: drover", "sasl.username: \"drover"),
    ] {
        fs::write(folder.path("config.yaml"), &broken).expect("a file");
        for arguments in [vec!["check-config"], vec!["check-config", "-o", "json"], vec!["check-config", "--probe"]] {
            let said = folder.run(&arguments, &environment);
            let expected = if broken != config {
                78
            } else if arguments.contains(&"--probe") {
                69
            } else {
                0
            };
            assert_eq!(said.code, Some(expected), "{arguments:?} on\n{broken}\n{said:?}");
            planted.assert_absent(&format!("what {arguments:?} says on\n{broken}\n"), &format!("{}{}", said.stdout, said.stderr));
        }
    }
}

#[test]
fn a_sigterm_while_no_server_answers_ends_in_time() {
    let config = format!("supervision: {{shutdown_timeout: 4s, drain_timeout: 1s}}\n{UNREACHABLE}");
    let mut drover = Drover::start(&config, &[]);
    let asked = Instant::now();
    let status = drover.terminate(Duration::from_secs(20));
    let took = asked.elapsed();
    // The deadline is the program's, the rest is for a busy machine.
    assert!(took < Duration::from_secs(6), "{took:?}\n{}", drover.log());
    // Nothing was read, so nothing can be left.
    assert_eq!(status.code(), Some(0), "{}", drover.log());
}

#[test]
fn a_second_sigterm_ends_at_once() {
    // Brokers that take the connection and say nothing: questions to them are waited for.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address").to_string();
    let config = format!("supervision: {{shutdown_timeout: 60s}}\n{}", UNREACHABLE.replacen("127.0.0.1:1", &address, 1));
    let mut drover = Drover::start(&config, &[]);
    wait_until("a question is under way", SOON, || silent.accept().ok());
    drover.signal(libc::SIGTERM);
    drover.wait_for("the stop has begun", SOON, |drover| drover.log().contains("stopping").then_some(()));
    let asked = Instant::now();
    drover.signal(libc::SIGTERM);
    let status = drover.wait_end(SOON).expect("an end");
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(1), "{}", drover.log());
    assert!(took < Duration::from_secs(1), "{took:?}\n{}", drover.log());
}
