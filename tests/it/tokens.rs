//! Tokens, as those who use them do: made by the command, sent by the client commands, taken out of the file while the program runs; and a token never shows up anywhere.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::drover::Drover;
use crate::harness::http;
use crate::harness::process::free_port;
use crate::harness::wait::wait_until;

/// Longer than anything here takes when all is well, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);
const UNREACHABLE: &str = "kafka: {brokers: ['127.0.0.1:1']}\nelasticsearch: {urls: ['http://127.0.0.1:1']}\nsupervision: {shutdown_timeout: 5s}\n";

fn drover(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    for name in ["DROVER_CONFIG", "DROVER_LISTEN", "DROVER_LOG", "DROVER_SERVER", "DROVER_TOKEN_FILE", "FAILPOINTS"] {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).output().expect("the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A token as the command made it.
struct Made {
    token: String,
    line: String,
    sha256: String,
}

fn made(name: &str, role: &str) -> Made {
    let output = drover(&["token", name, "--role", role, "-o", "json"]);
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let field = |field: &str| said[field].as_str().expect("a text").to_owned();
    assert_eq!((field("name").as_str(), field("role").as_str()), (name, role));
    let sha256 = field("sha256");
    Made { token: field("token"), line: format!("  - {{name: {name}, role: {role}, sha256: {sha256}}}\n"), sha256 }
}

fn write(path: &Path, lines: &[&str]) {
    let next = path.with_extension("next");
    fs::write(&next, format!("tokens:\n{}", lines.concat())).expect("a file");
    fs::rename(next, path).expect("a rename in our folder");
}

#[test]
fn what_the_command_prints_is_what_the_file_takes() {
    let output = drover(&["token", "ci", "--role", "write"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{output:?}");
    let token = out.trim_end();
    assert!(token.starts_with("drover_") && token.len() == 50 && out.lines().count() == 1, "{out}");
    assert!(!err.contains(token), "the token is on the terminal although it was sent elsewhere: {err}");
    let line = err.lines().last().expect("a line");
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("tokens.yaml"), format!("tokens:\n{line}\n")).expect("a file");
    let config = folder.path().join("config.yaml");
    fs::write(&config, format!("{UNREACHABLE}auth: {{tokens_file: tokens.yaml}}\ntopics: [{{topic: orders}}]\n")).expect("a file");
    let checked = drover(&["check-config", config.to_str().expect("UTF-8")]);
    assert!(checked.status.success(), "{checked:?}");
    for wrong in [&["token"][..], &["token", "a b"], &["token", "anonymous"], &["token", "ci", "--role", "admin"]] {
        assert_eq!(drover(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_broken_file_of_tokens_refuses_the_start_and_is_found_by_check_config() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.yaml");
    let config_path = config.to_str().expect("UTF-8");
    fs::write(&config, format!("{UNREACHABLE}auth: {{tokens_file: tokens.yaml}}\n")).expect("a file");
    fs::write(folder.path().join("tokens.yaml"), "tokens:\n  - {name: ci, role: write, sha256: drover_planted-secret}\n").expect("a file");
    let (checked, started) = (drover(&["check-config", config_path]), drover(&["run", "--config", config_path]));
    assert_eq!((checked.status.code(), started.status.code()), (Some(78), Some(78)), "{checked:?} {started:?}");
    assert!(text(&checked.stdout).contains("tokens.yaml:2:") && text(&checked.stdout).contains(": tokens[0].sha256: "), "{checked:?}");
    assert!(text(&started.stderr).contains("tokens.yaml, line 2: tokens[0].sha256: "), "{started:?}");
    assert!(!text(&[checked.stdout, checked.stderr, started.stdout, started.stderr].concat()).contains("planted-secret"));
    assert!(!folder.path().join("data").exists(), "a start that was refused left something behind");
}

#[test]
fn tokens_guard_a_running_drover_change_while_it_runs_and_show_up_nowhere() {
    let (reader, writer, next) = (made("grafana", "read"), made("ci", "write"), made("ops", "write"));
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens.yaml");
    write(&tokens, &[&reader.line, &writer.line]);
    let config = format!("{UNREACHABLE}auth: {{tokens_file: '{}'}}\n", tokens.display());
    let mut running = Drover::start(&config, &[("DROVER_LOG", "trace")]);
    let mut shown = String::new();
    let mut ask = |running: &Drover, method: &str, path: &str, token: Option<&str>, body: Option<Value>| {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("accept", "application/json, text/plain"), ("content-type", "application/json")];
        headers.extend(bearer.iter().map(|bearer| ("authorization", bearer.as_str())));
        let answer = running.request(method, path, &headers, body.map(|body| body.to_string().into_bytes()));
        shown.push_str(&format!("{:?}\n{}\n", answer.headers, answer.text()));
        answer
    };

    let refused = ask(&running, "GET", "/api/v1/topics", None, None);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(ask(&running, "GET", "/api/v1/topics", Some(&reader.token[1..]), None).status, 401);
    assert_eq!(ask(&running, "GET", "/api/v1/topics", Some(&reader.sha256), None).status, 401, "the hash is no token");
    assert_eq!(ask(&running, "GET", "/api/v1/topics", Some(&reader.token), None).status, 200);
    assert_eq!(ask(&running, "PUT", "/api/v1/topics/orders", Some(&reader.token), Some(json!({}))).status, 403);
    assert_eq!(ask(&running, "PUT", "/api/v1/topics/orders", Some(&writer.token), Some(json!({}))).status, 201);
    let paused = ask(&running, "PUT", "/api/v1/topics/orders/pause", Some(&writer.token), Some(json!({})));
    assert_eq!((paused.status, &paused.json()["paused"]["actor"]), (200, &json!("ci")));
    let changes = ask(&running, "GET", "/api/v1/changes", Some(&reader.token), None).json();
    let actors: Vec<&Value> = changes["items"].as_array().expect("items").iter().map(|change| &change["actor"]).collect();
    assert_eq!(actors, ["ci", "ci"], "{changes}");

    // The commands send it.
    let token_file = folder.path().join("token");
    fs::write(&token_file, format!("{}\n", reader.token)).expect("a file");
    let url = running.url();
    let listed = drover(&["topics", "list", "--server", &url, "--token-file", token_file.to_str().expect("UTF-8")]);
    assert!(listed.status.success() && text(&listed.stdout).contains("orders"), "{listed:?}");
    let refused = drover(&["topics", "list", "--server", &url]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("--token-file"), "{refused:?}");

    // Taken out, and another one put in, while it runs.
    write(&tokens, &[&reader.line, &next.line]);
    wait_until("the token is not in force any more", SOON, || {
        (ask(&running, "GET", "/api/v1/topics", Some(&writer.token), None).status == 401).then_some(())
    });
    assert_eq!(ask(&running, "DELETE", "/api/v1/topics/orders/pause", Some(&next.token), None).status, 204);
    // A file that breaks locks nobody out, and is told.
    fs::write(&tokens, format!("tokens: [{{name: x, role: write, sha256: {}}}]\n", writer.token)).expect("a file");
    wait_until("the broken file is told", SOON, || {
        let info = ask(&running, "GET", "/api/v1/info", Some(&reader.token), None).ok().json();
        info["warnings"].as_array()?.iter().any(|warning| warning.as_str().is_some_and(|text| text.contains("tokens[0].sha256"))).then_some(())
    });
    for path in ["/api/v1/info", "/api/v1/changes", "/api/v1/events", "/api/v1/sources", "/metrics", "/healthz?verbose", "/openapi.json", "/"] {
        ask(&running, "GET", path, Some(&next.token), None).ok();
    }
    let status = running.terminate(SOON);
    assert!(status.success(), "{status}");

    let log = running.log();
    for actor in ["actor=\"ci\"", "actor=\"ops\"", "actor=\"grafana\""] {
        assert!(log.lines().any(|line| line.contains(actor) && line.contains("request answered")), "{actor}:\n{log}");
    }
    let mut places = vec![("the log".to_owned(), log.into_bytes()), ("what was answered".to_owned(), shown.into_bytes())];
    for entry in fs::read_dir(running.folder().join("data")).expect("a data folder").flatten() {
        places.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap_or_default()));
    }
    for (place, bytes) in places {
        for secret in [&reader, &writer, &next].map(|made| made.token.as_bytes()) {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "a token is in {place}");
        }
    }
}

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn with_tokens_an_address_that_others_reach_needs_no_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let reader = made("grafana", "read");
    write(&folder.path().join("tokens.yaml"), &[&reader.line]);
    fs::write(folder.path().join("config.yaml"), format!("{UNREACHABLE}auth: {{tokens_file: tokens.yaml}}\n")).expect("a file");
    let port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(["run", "--listen", &format!("0.0.0.0:{port}")]).current_dir(folder.path()).stdin(Stdio::null());
    for name in ["DROVER_CONFIG", "DROVER_LOG", "FAILPOINTS"] {
        command.env_remove(name);
    }
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
    let _running = Running(child);
    let ask = |path: &str, headers: &[(&str, &str)]| http::send("GET", &format!("http://127.0.0.1:{port}{path}"), headers, None).ok();
    wait_until("it answers", SOON, || ask("/livez", &[]).filter(|answer| answer.status == 200));
    assert_eq!(ask("/api/v1/info", &[]).map(|answer| answer.status), Some(401));
    let bearer = format!("Bearer {}", reader.token);
    assert_eq!(ask("/api/v1/info", &[("authorization", &bearer)]).map(|answer| answer.status), Some(200));
}
