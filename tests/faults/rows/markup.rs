//! Text that would like to be more than text: markup, terminal sequences and line breaks in everything that others may write, and a secret in everything that may quote one.

use std::path::Path;

use serde_json::json;

use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::gate::{Answer, Gate};
use crate::harness::http;
use crate::harness::producer::{Producer, Record};
use crate::run::{CANARY, Ending, Row, Run, SOON, Setup, Topic, send};

pub(super) const ROWS: &[Row] =
    &[Row { number: 68, name: "markup, terminal sequences, line breaks and a secret in every input", is_quick: true, run: markup }];

/// A script, a colour, a forged line of a log, a right-to-left override.
const MARKUP: &str = "<script>alert('row68')</script>\u{1b}[31m\r\nforged level=ERROR\u{7f}\u{9b}31m\u{202e}";
/// What of it is harmless in a text and must not be in a page.
const SCRIPT: &str = "<script>alert('row68')";
/// Records that the mapping refuses, whose values its error quotes.
const REFUSED: usize = 5;

fn markup(run: &mut Run<'_>) {
    let etcd = Etcd::start(Version::System, &[]);
    let topic = run.topic("main", 2);
    run.servers.elasticsearch.create_strict_index(&topic.name, &json!({"number": {"type": "long"}, "text": {"type": "keyword"}}));
    let gate = Gate::before(&run.servers.elasticsearch.url());
    let setup = Setup {
        sink: gate.url(),
        properties: format!(", sasl.username: drover, sasl.password: {CANARY}"),
        more: format!("etcd: {{endpoints: [\"{}\"], prefix: drover}}\ndead_letters: {{store: local}}", etcd.url()),
        ..Setup::new(run, &[&topic])
    };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &topic.name, 2, 0..1_000);
    for _ in 0..REFUSED {
        let value = json!({ "number": MARKUP }).to_string();
        let headers: [(&str, Option<&[u8]>); 1] = [(MARKUP, Some(MARKUP.as_bytes()))];
        producer.send(Record { key: Some(MARKUP.as_bytes()), headers: &headers, ..Record::new(&topic.name, value.as_bytes()).to(0) });
    }
    producer.flush();
    run.wait_committed("I7", &setup.group, &topic);
    look(run, &drover, &topic);

    // The reasons of a server that nobody has seen before, and the address that another sends us to.
    gate.answer(|_| Some(Answer::error(500, MARKUP, MARKUP)));
    told(run, &drover, &topic, &producer, 1_000, "row68");
    let elsewhere = format!("http://drover:{CANARY}@127.0.0.1:1/_bulk?token={CANARY}#{CANARY}");
    gate.answer(move |_| Some(Answer::Redirect { status: 307, location: elsewhere.clone() }));
    told(run, &drover, &topic, &producer, 1_100, "redirects");
    gate.pass();

    attack_api(run, &drover, &topic);
    for kind in ["topics", "pauses", "facts", "changes", "instances"] {
        etcd.put(&format!("drover/{kind}/{MARKUP}"), MARKUP);
        etcd.put(&format!("drover/{kind}/{}", topic.name.replace("main", "other")), &json!({ MARKUP: MARKUP }).to_string());
    }
    run.wait("I10", "the source says that an entry is no entry", SOON, || {
        let sources = drover.get("/api/v1/sources");
        sources["items"].as_array()?.iter().any(|source| source["kind"] == "store" && !source["error"].is_null()).then_some(())
    });
    look(run, &drover, &topic);
    let kept: Vec<_> = etcd.get_prefix("").into_iter().filter(|(key, entry)| format!("{key}{entry:?}").contains(CANARY)).collect();
    run.claim("I12", kept.is_empty(), || format!("etcd holds the secret: {kept:?}"));
    let files = files_with(&drover.folder().join("data"), CANARY.as_bytes());
    run.claim("I12", files.is_empty(), || format!("the data folder holds the secret: {files:?}"));
    let log = drover.log();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 0..=0 });
    // Otherwise nothing has come through to be looked at.
    let quoted = run.evidence.letters.iter().flatten().filter(|letter| letter["error"]["reason"].to_string().contains(SCRIPT)).count();
    run.claim("I5", quoted == REFUSED, || format!("{quoted} of {REFUSED} letters quote what the server quoted"));
    run.claim("I10", log.contains("row68"), || "the log does not tell of the server's error".to_owned());
}

/// A few more records, until the topic says this of the sink.
fn told(run: &mut Run<'_>, drover: &Drover, topic: &Topic, producer: &Producer, first: i32, text: &str) {
    send(producer, &mut run.rng, &topic.name, 2, first..first + 100);
    producer.flush();
    run.wait("I10", &format!("the topic says why nothing goes on: {text}"), SOON, || {
        let reason = drover.topic(&topic.name)?["status"]["reason"].take();
        (reason["code"] == "unknown_error" && reason["message"].as_str()?.contains(text)).then_some(())
    });
    look(run, drover, topic);
}

/// Names, fields, headers and queries; what is taken is shown from then on.
fn attack_api(run: &mut Run<'_>, drover: &Drover, topic: &Topic) {
    let path = format!("/api/v1/topics/{}", topic.name);
    let mut answers = vec![
        drover.put(&path, &json!({"format": "json", "labels": {SCRIPT: MARKUP, "team": MARKUP}})),
        drover.put(&path, &json!({"format": MARKUP, MARKUP: MARKUP})),
        drover.put(&path, &json!({"format": "json", "index": MARKUP})),
        drover.put(&format!("{path}/pause"), &json!({"reason": MARKUP})),
    ];
    let encoded: String = MARKUP.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let plain = "%3Cscript%3Ealert('row68')%3C/script%3E";
    for text in [encoded.as_str(), plain] {
        for path in [
            "topics/",
            "topics?sort=",
            "topics?cursor=",
            "tasks?topic=",
            "dead-letters/",
            "dead-letters?cause=",
            "events?kind=",
            "sources/",
            "no-such-thing/",
        ] {
            answers.extend(drover.try_request("GET", &format!("/api/v1/{path}{text}"), None));
            answers.extend(drover.try_request("PUT", &format!("/api/v1/{path}{text}"), Some(&json!({}))));
        }
        answers.extend(drover.try_request("GET", &format!("/{text}"), None));
    }
    let bearer = format!("Bearer {CANARY}");
    for name in ["x-request-id", "user-agent", "referer", "x-forwarded-for", "x-forwarded-user", "if-match", "accept", "host"] {
        let headers = [(name, SCRIPT), ("authorization", bearer.as_str())];
        answers.extend(http::send("GET", &format!("{}{path}", drover.url()), &headers, None));
    }
    for answer in &answers {
        judge(run, "an answer to it", answer);
    }
    let paused = drover.topic(&topic.name).map(|topic| topic["paused"].clone());
    let is_paused = paused.as_ref().is_some_and(|paused| !paused.is_null());
    look(run, drover, topic);
    if is_paused {
        let resumed = drover.delete(&format!("{path}/pause")).status;
        run.claim("I10", resumed / 100 == 2, || format!("the pause cannot be ended: {resumed}"));
    }
}

/// Everything that is shown, in every form in which it is.
fn look(run: &mut Run<'_>, drover: &Drover, topic: &Topic) {
    let task = format!("/api/v1/tasks/{}/0", topic.name);
    let one = format!("/api/v1/topics/{}", topic.name);
    let lists = [
        "/api/v1/topics",
        "/api/v1/tasks",
        "/api/v1/dead-letters",
        "/api/v1/events?limit=1000",
        "/api/v1/sources",
        "/api/v1/changes",
        "/api/v1/info",
    ];
    let others = ["/api/v1/kafka/topics", "/healthz?verbose", "/readyz?verbose", "/metrics", "/", "/openapi.json", task.as_str(), one.as_str()];
    for path in lists.into_iter().chain(others) {
        for form in ["application/json", "text/plain", "text/html"] {
            let answer = drover.request("GET", path, &[("accept", form)], None);
            judge(run, &format!("{path} as {form}"), &answer);
        }
    }
    let letters = drover.get("/api/v1/dead-letters");
    if let Some(id) = letters["items"].as_array().and_then(|items| items.first()).and_then(|letter| letter["id"].as_str()) {
        judge(run, "a dead letter", &drover.request("GET", &format!("/api/v1/dead-letters/{id}"), &[], None));
    }
    let log = drover.log();
    let steering = log.chars().find(|character| *character != '\n' && steers(*character));
    run.claim("I12", steering.is_none(), || format!("the log has {steering:?}"));
    let forged = log.lines().find(|line| line.trim_start().starts_with("forged"));
    run.claim("I12", forged.is_none(), || format!("a line of the log is a record's: {forged:?}"));
    run.claim("I12", !log.contains(CANARY), || "the log shows the secret".to_owned());
}

/// No secret, nothing that steers a terminal, no script where a browser would run it.
fn judge(run: &mut Run<'_>, what: &str, answer: &http::Answer) {
    let text = answer.text();
    let headers = format!("{:?}", answer.headers);
    run.claim("I12", !text.contains(CANARY) && !headers.contains(CANARY), || format!("{what} shows the secret"));
    let media_type = answer.header("content-type").unwrap_or_default();
    // JSON escapes control characters, and what is beyond ASCII is the reader's to show.
    let is_json = media_type.contains("json");
    let steering = text.chars().find(|character| {
        if is_json { character.is_ascii_control() && !matches!(character, '\n' | '\u{7f}') } else { *character != '\n' && steers(*character) }
    });
    run.claim("I12", steering.is_none() || media_type.starts_with("text/html"), || format!("{what} ({media_type}) has {steering:?}"));
    if media_type.starts_with("text/html") {
        run.claim("I12", !text.contains(SCRIPT), || format!("{what} is a page with the script in it"));
    } else {
        let is_firm = text.is_empty() || answer.header("x-content-type-options") == Some("nosniff");
        run.claim("I12", is_firm, || format!("{what} ({media_type}) may be taken for a page"));
        let forged = text.lines().find(|line| !is_json && line.trim_start().starts_with("forged"));
        run.claim("I12", forged.is_none(), || format!("a line of {what} is a record's: {forged:?}"));
    }
}

/// Whether a terminal obeys it.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The files below a folder that contain these bytes.
fn files_with(folder: &Path, wanted: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted)) {
            found.push(path);
        }
    }
    found
}
