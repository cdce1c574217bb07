//! What `drover check-config` prints, and how a configuration that cannot be used is told.
//!
//! Guarantees one entry for each problem, with file, line, column and remedy; no control character from the file reaches the terminal; the JSON form has the same content. Asks no server.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::{Config, DEMO_BROKERS, LoadError, Loaded, Problem, base_of, parse, read, tokens, tree};

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: `{valid, problems, warnings}`, and `unreachable` when the servers were asked.
    Json,
}

/// The file can be used.
const EXIT_VALID: u8 = 0;
/// A server that the file names does not answer (sysexits' `EX_UNAVAILABLE`).
const EXIT_UNREACHABLE: u8 = 69;
/// The file cannot be used (sysexits' `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;
/// What helps when the configuration itself cannot be read at a start.
const NAME_THE_FILE: &str = "name the configuration file with --config or DROVER_CONFIG";

/// What helps when the file of tokens cannot be read.
const NAME_THE_TOKENS: &str = "name the file of tokens with auth.tokens_file, and see that drover's user may read it";

/// A server that does not answer, or does not have what the file names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreachable {
    /// `kafka`, `etcd`, `elasticsearch`, or `sink` for the folder of a file sink.
    pub server: &'static str,
    /// What is wrong.
    pub detail: String,
    /// What helps.
    pub remedy: String,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    valid: bool,
    problems: &'a [Problem],
    warnings: &'a [Problem],
    /// Absent when nobody asked the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<&'a [Unreachable]>,
}

/// The report of a file that was checked; it ends in a line break. `valid` speaks of the file alone; `unreachable` is what a probe of the servers found, and `None` without one. The
/// code is 78 for a file that cannot be used, 69 when a server does not answer, else 0.
pub fn report(path: &Path, result: &Result<Loaded, LoadError>, unreachable: Option<&[Unreachable]>, format: Format) -> (String, u8) {
    let code = match (result, unreachable) {
        (Err(_), _) => EXIT_CONFIG,
        (Ok(_), Some([_, ..])) => EXIT_UNREACHABLE,
        (Ok(_), _) => EXIT_VALID,
    };
    let text = match (format, result) {
        (Format::Json, Ok(loaded)) => json(&Report { valid: true, problems: &[], warnings: &loaded.warnings, unreachable }),
        (Format::Json, Err(error)) => json(&Report { valid: false, problems: &problems_of(error, path), warnings: &[], unreachable }),
        (Format::Text, Ok(loaded)) => valid_text(path, loaded, unreachable.unwrap_or_default()),
        (Format::Text, Err(error)) => format!("{}\n", text_of(error, remedy_for(error, path))),
    };
    (text, code)
}

/// A configuration that cannot be used, with all its problems, for the terminal; without a line break at its end.
pub fn text(error: &LoadError) -> String {
    text_of(error, NAME_THE_FILE)
}

/// The same, with what helps against a file that cannot be read.
fn text_of(error: &LoadError, remedy: &str) -> String {
    let path = match error {
        LoadError::Unreadable { .. } => {
            let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(" ({cause})"));
            return one_line(&format!("{error}{cause}; {remedy}"));
        }
        LoadError::Invalid { path, .. } => path,
    };
    let mut out = String::new();
    for problem in error.problems() {
        out.push_str(&entry(path, "", problem));
    }
    out.push_str(&format!("{}: {}", shown(path), counted(error.problems().len(), "problem")));
    out
}

/// Checks a file, and the file of tokens that it names, with the process's environment. `now` is the time that is proposed as `start:` where the collector's topics have none.
pub fn check(path: &Path, now: Timestamp) -> Result<Loaded, LoadError> {
    let bytes = read(path)?;
    let is_of_demo = Cell::new(false);
    let environment = |name: &str| std::env::var(name).ok().or_else(|| stand_in(name, &is_of_demo));
    let mut loaded = parse(&bytes, base_of(path), &environment).map_err(|problems| LoadError::Invalid { path: path.to_owned(), problems })?;
    if is_of_demo.get() {
        loaded.warnings.push(demo_note(&bytes));
    }
    if starts_like_the_collector(&loaded.config) {
        loaded.warnings.push(start_note(&bytes, now));
    }
    if let Some(tokens) = &loaded.config.tokens_file {
        tokens::load(tokens, &|name| std::env::var(name).ok())?;
    }
    Ok(loaded)
}

/// A demo has no cluster, and so no address of one, until it runs: the rest of its file can be checked all the same.
fn stand_in(name: &str, is_used: &Cell<bool>) -> Option<String> {
    (name == DEMO_BROKERS).then(|| {
        is_used.set(true);
        "127.0.0.1:1".to_owned()
    })
}

fn demo_note(bytes: &[u8]) -> Problem {
    let text = String::from_utf8_lossy(bytes);
    let reference = format!("${{{DEMO_BROKERS}}}");
    let place = text.lines().enumerate().find_map(|(line, content)| content.find(&reference).map(|column| (line + 1, column + 1)));
    let (line, column) = place.unwrap_or((1, 1));
    let number = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    Problem {
        path: String::new(),
        line: number(line),
        column: number(column),
        detail: format!("this is the configuration of a demo: `drover demo` sets {DEMO_BROKERS} to its own cluster, so no broker was looked at"),
        remedy: "start it with `drover demo`; for `drover run` write the addresses of your Kafka".to_owned(),
    }
}

/// Whether a topic in the collector's dialect has no `start` of its own or by default.
fn starts_like_the_collector(config: &Config) -> bool {
    if config.defaults.start.is_some() {
        return false;
    }
    let has_start = |fields: &crate::topic::SpecFields| fields.start.is_some();
    let with_start: BTreeSet<_> =
        config.topics.iter().filter(|topic| topic.native.as_ref().is_some_and(has_start)).map(|topic| &topic.name).collect();
    config.topics.iter().any(|topic| topic.native.is_none() && !with_start.contains(&topic.name))
}

fn start_note(bytes: &[u8], now: Timestamp) -> Problem {
    // Whole seconds, rounded down: a second that is read twice is better than one that is not read.
    let start = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let (path, line, column) = place_of_topics(bytes);
    Problem {
        path,
        line,
        column,
        detail: "the collector kept no offsets, so without a `start` the first run (`earliest`) indexes all that Kafka still holds again, beside the collector's old documents".to_owned(),
        remedy: format!("to index only what arrives from now on, add this line under `defaults:`, and stop the collector after that time: start: {start}"),
    }
}

/// Path, line and column of `collectlogs`.
fn place_of_topics(bytes: &[u8]) -> (String, u32, u32) {
    let Ok(tree::Node { value: tree::Value::Map(entries), .. }) = tree::parse(bytes) else { return (String::new(), 1, 1) };
    let key = entries.iter().map(|(key, _)| key).find(|key| key.text().is_some_and(|text| text.eq_ignore_ascii_case("collectlogs")));
    key.map_or((String::new(), 1, 1), |key| (key.text().unwrap_or_default().to_owned(), key.line, key.column))
}

/// The problems, one by one. `checked` is the file that was to be checked; a place in another one, which it names, begins with that file.
fn problems_of(error: &LoadError, checked: &Path) -> Vec<Problem> {
    match error {
        LoadError::Invalid { path, problems } if path == checked => problems.clone(),
        LoadError::Invalid { path, problems } => {
            let in_file = |problem: &Problem| {
                let separator = if problem.path.is_empty() { "" } else { ": " };
                Problem { path: format!("{}{separator}{}", path.display(), problem.path), ..problem.clone() }
            };
            problems.iter().map(in_file).collect()
        }
        LoadError::Unreadable { path, source } => vec![Problem {
            path: if path == checked { String::new() } else { path.display().to_string() },
            line: 1,
            column: 1,
            detail: format!("cannot read {}: {source}", path.display()),
            remedy: remedy_for(error, checked).to_owned(),
        }],
    }
}

/// What helps against a file that cannot be read: the configuration itself, or the file of tokens that it names.
fn remedy_for(error: &LoadError, checked: &Path) -> &'static str {
    match error {
        LoadError::Unreadable { path, .. } if path != checked => NAME_THE_TOKENS,
        _ => NAME_THE_FILE,
    }
}

fn json(report: &Report<'_>) -> String {
    match serde_json::to_string_pretty(report) {
        Ok(text) => format!("{text}\n"),
        // Strings and numbers always serialise; if they did not, an invalid report must not read as a valid one.
        Err(error) => format!("{{\"valid\": false, \"problems\": [], \"warnings\": [], \"error\": {:?}}}\n", error.to_string()),
    }
}

fn valid_text(path: &Path, loaded: &Loaded, unreachable: &[Unreachable]) -> String {
    let mut out = String::new();
    for warning in &loaded.warnings {
        out.push_str(&entry(path, "warning: ", warning));
    }
    for Unreachable { server, detail, remedy } in unreachable {
        let _ = writeln!(out, "{}", one_line(&format!("{server}: {detail}: {remedy}")));
    }
    let names: BTreeSet<_> = loaded.config.topics.iter().map(|topic| &topic.name).collect();
    let _ = write!(out, "{} is valid: {}", shown(path), counted(names.len(), "topic"));
    if !loaded.warnings.is_empty() {
        let _ = write!(out, ", {}", counted(loaded.warnings.len(), "warning"));
    }
    if !unreachable.is_empty() {
        let _ = write!(out, ", but {} failed", counted(unreachable.len(), "probe"));
    }
    out.push('\n');
    out
}

/// `FILE:LINE:COLUMN: path: detail` and below it what helps.
fn entry(file: &Path, kind: &str, problem: &Problem) -> String {
    let Problem { path, line, column, detail, remedy } = problem;
    let separator = if path.is_empty() { "" } else { ": " };
    let head = one_line(&format!("{}:{line}:{column}: {kind}{path}{separator}{detail}", file.display()));
    format!("{head}\n    {}\n", one_line(remedy))
}

fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const COLLECTORS: &str =
        "kafkaconfig: {kafkaaddr: 'a:1'}\nelasticconfig: {elasticaddr: 'http://e:1'}\nCollectLogs: [{logtopic: t}, {logtopic: u}]\n";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).expect("a file");
        (folder, path)
    }

    fn checked(text: &str, format: Format) -> (String, u8) {
        let (_folder, path) = file(text);
        let now = "2026-01-31T10:20:30.987654Z".parse().expect("a time");
        let (report, code) = report(&path, &check(&path, now), None, format);
        (report.replace(&path.display().to_string(), "config.yaml"), code)
    }

    #[test]
    fn a_demos_configuration_is_checked_although_its_cluster_is_not_there() {
        let demo = include_str!("../demo/config.yaml");
        let (report, code) = checked(demo, Format::Text);
        assert_eq!(code, 0, "{report}");
        assert!(report.contains("config.yaml:10:14: ") && report.contains("start it with `drover demo`"), "{report}");
        // What else is wrong with it is found.
        let (report, code) = checked(&demo.replace("demo_orders-{date}", "{date:yyyy.MM.dd}"), Format::Text);
        assert!(code == 78 && report.contains("topics[0].index: ") && report.contains("%Y.%m.%d"), "{report}");
        let error = parse(demo.as_bytes(), Path::new("/d"), &|_| None).expect_err("the variable is not set");
        assert!(error.len() == 1 && error[0].remedy.contains("`drover demo` sets it"), "{error:?}");
    }

    #[test]
    fn every_problem_is_printed_with_file_line_column_and_remedy() {
        let (report, code) = checked("kafka:\n  brokres: [a]\nelasticsearch: {urls: ['http://e:1']}\nsink: {file: out}\n", Format::Text);
        let lines: Vec<&str> = report.lines().collect();
        assert_eq!(code, 78);
        assert_eq!(
            lines,
            [
                "config.yaml:2:3: kafka.brokers: no Kafka brokers are named",
                "    add brokers: [\"HOST:9092\"]; beside a kafka section kafkaconfig is not read",
                "config.yaml:2:3: kafka.brokres: 'brokres' is not known here",
                "    did you mean 'brokers'?",
                "config.yaml:4:7: sink: 'sink' is given together with 'elasticsearch' on line 3",
                "    keep one of the two",
                "config.yaml: 3 problems",
            ]
        );
    }

    #[test]
    fn json_has_exactly_the_documented_fields() {
        let (report, code) = checked("kafka: {brokers: ['a:1']}\n", Format::Json);
        let value: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!((code, value["valid"].as_bool()), (78, Some(false)));
        let problem = value["problems"][0].as_object().expect("a problem");
        let fields: BTreeSet<&str> = problem.keys().map(String::as_str).collect();
        assert_eq!(fields, ["path", "line", "column", "detail", "remedy"].into());
        assert_eq!((problem["path"].as_str(), problem["line"].as_u64()), (Some("elasticsearch.urls"), Some(1)));
    }

    #[test]
    fn a_problem_of_the_file_of_tokens_names_that_file() {
        let config = "kafka: {brokers: ['a:1']}\nelasticsearch: {urls: ['http://e:1']}\nauth: {tokens_file: tokens.yaml}\n";
        let (folder, path) = file(config);
        let tokens = folder.path().join("tokens.yaml");
        let problem = |expected_code: u8| {
            let result = check(&path, Timestamp::UNIX_EPOCH);
            let (json, code) = report(&path, &result, None, Format::Json);
            assert_eq!(code, expected_code);
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            (value["problems"][0].clone(), report(&path, &result, None, Format::Text).0)
        };
        assert_eq!(problem(78).0["path"], "auth.tokens_file", "a file that is not there is a problem of the configuration");
        std::fs::write(&tokens, " ".repeat(2 << 20)).expect("a file");
        let (unreadable, text) = problem(78);
        assert_eq!(unreadable["path"], tokens.display().to_string());
        assert!(unreadable["remedy"].as_str().is_some_and(|remedy| remedy.contains("auth.tokens_file")), "{unreadable}");
        assert!(text.contains("auth.tokens_file") && !text.contains("--config"), "{text}");
        std::fs::write(&tokens, "tokens: [{name: a, role: admin, sha256: x}]\n").expect("a file");
        let (wrong, text) = problem(78);
        assert_eq!((&wrong["path"], &wrong["line"]), (&format!("{}: tokens[0].role", tokens.display()).into(), &1.into()));
        assert!(text.starts_with(&format!("{}:1:", tokens.display())), "{text}");
        std::fs::write(&tokens, "tokens: []\n").expect("a file");
        assert_eq!(report(&path, &check(&path, Timestamp::UNIX_EPOCH), None, Format::Json).1, 0);
    }

    #[test]
    fn the_collectors_file_is_told_where_to_start() {
        let (report, code) = checked(COLLECTORS, Format::Text);
        assert_eq!(code, 0, "{report}");
        assert!(report.contains("config.yaml:3:1: warning: CollectLogs: the collector kept no offsets"), "{report}");
        assert!(report.contains("start: 2026-01-31T10:20:30Z\n") && report.contains("earliest"), "{report}");
        assert!(report.ends_with("config.yaml is valid: 2 topics, 1 warning\n"), "{report}");

        let (json, code) = checked(COLLECTORS, Format::Json);
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((code, value["valid"].as_bool(), value["warnings"].as_array().map(Vec::len)), (0, Some(true), Some(1)));
    }

    #[test]
    fn the_proposed_start_is_accepted_and_silences_the_note() {
        let (with_default, code) = checked(&format!("{COLLECTORS}defaults:\n  start: 2026-01-31T10:20:30Z\n"), Format::Text);
        assert_eq!((code, with_default.as_str()), (0, "config.yaml is valid: 2 topics\n"));
        let (one_left, _) = checked(&format!("{COLLECTORS}topics: [{{topic: t, start: latest}}]\n"), Format::Text);
        assert!(one_left.contains("kept no offsets"), "{one_left}");
        let (none_left, _) = checked(&format!("{COLLECTORS}topics: [{{topic: t, start: latest}}, {{topic: u, start: earliest}}]\n"), Format::Text);
        assert!(!none_left.contains("kept no offsets"), "{none_left}");
    }

    #[test]
    fn a_server_that_does_not_answer_is_part_of_the_report() {
        let (_folder, path) = file("kafka: {brokers: ['a:1']}\nelasticsearch: {urls: ['http://e:1']}\ntopics: [{topic: t}]\n");
        let result = check(&path, Timestamp::UNIX_EPOCH);
        let silent = [Unreachable {
            server: "kafka",
            detail: "topic t does not exist in Kafka".to_owned(),
            remedy: "create it,\nor remove it here".to_owned(),
        }];
        let (text, code) = report(&path, &result, Some(&silent), Format::Text);
        let expected = format!(
            "kafka: topic t does not exist in Kafka: create it,\u{fffd}or remove it here\n{} is valid: 1 topic, but 1 probe failed\n",
            path.display()
        );
        assert_eq!((code, text), (69, expected));
        let (json, code) = report(&path, &result, Some(&silent), Format::Json);
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let expected = serde_json::json!([{"server": "kafka", "detail": silent[0].detail, "remedy": silent[0].remedy}]);
        assert_eq!((code, &value["unreachable"], &value["valid"]), (69, &expected, &true.into()));
        let (json, code) = report(&path, &result, Some(&[]), Format::Json);
        assert!(code == 0 && json.contains("\"unreachable\": []"), "{json}");
    }

    #[test]
    fn what_is_no_readable_file_is_told_in_both_forms() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in [folder.path().join("missing.yaml"), folder.path().to_owned()] {
            let (text, code) = report(&path, &check(&path, Timestamp::UNIX_EPOCH), None, Format::Text);
            assert_eq!(code, 78);
            assert!(text.contains("--config") && text.lines().count() == 1, "{text}");
            let (json, code) = report(&path, &check(&path, Timestamp::UNIX_EPOCH), None, Format::Json);
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            assert_eq!((code, value["valid"].as_bool(), value["problems"].as_array().map(Vec::len)), (78, Some(false), Some(1)));
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_pipe_a_device_and_a_loop_of_links_do_not_hang_the_check() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b, socket) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("socket"));
        std::os::unix::fs::symlink(&a, &b).expect("a link");
        std::os::unix::fs::symlink(&b, &a).expect("a link");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        for path in [a, socket, pipe, PathBuf::from("/dev/zero")] {
            let (text, code) = report(&path, &check(&path, Timestamp::UNIX_EPOCH), None, Format::Text);
            assert_eq!(code, 78, "{text}");
        }
    }

    #[test]
    fn control_characters_of_the_file_do_not_reach_the_terminal() {
        let (report, _) =
            checked("\"a\\e[31mb\": 1\nkafka: {brokers: ['a:1']}\ntopics: [{topic: \"x\\e\"}, {topic: t, format: \"\\e[2J\"}]\n", Format::Text);
        assert!(!report.chars().any(|c| c.is_control() && c != '\n'), "{report:?}");
    }
}
