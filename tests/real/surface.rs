//! The HTTP surface over a running drover with real servers: every documented path answers in the documented shape, and every mistake is a problem.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::drover::Drover;
use crate::harness::http::Answer;
use crate::harness::producer::{Producer, Record};
use crate::harness::servers;

/// The keys of an object, for comparing shapes.
fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"], &body["status"]), (status, &json!(code), &json!(status)), "{body}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(body["type"], format!("urn:drover:problem:{code}"));
    assert_eq!(keys(&body), BTreeSet::from(["type", "title", "status", "detail", "code", "request_id", "errors"]), "{body}");
}

#[test]
fn every_documented_path_answers_as_the_document_says_and_every_mistake_is_a_problem() {
    let servers = servers::together();
    servers.kafka.create_topic("surface", 2);
    let producer = Producer::new(&servers.kafka);
    for number in 0..100 {
        producer.send(Record::new("surface", format!(r#"{{"number":{number}}}"#).as_bytes()).to(number % 2));
    }
    producer.send(Record::new("surface", b"not JSON").to(1));
    producer.flush();
    let file = format!(
        "kafka: {{brokers: [\"{}\"], group_id: surface}}\nelasticsearch: {{urls: [\"{}\"]}}\ntopics: [{{topic: surface, format: json}}, {{topic: surface-absent}}]\n",
        servers.kafka.bootstrap(),
        servers.elasticsearch.url()
    );
    let mut drover = Drover::start(&file, &[]);
    drover.wait_caught_up("surface", Duration::from_secs(60));

    let topics = drover.get("/api/v1/topics");
    assert_eq!(keys(&topics), BTreeSet::from(["items", "next", "scope"]));
    let topic = drover.get("/api/v1/topics/surface");
    assert_eq!(keys(&topic), BTreeSet::from(["name", "spec", "overrides", "spec_origin", "sources", "paused", "status"]));
    let status = [
        "state",
        "health",
        "reason",
        "partitions",
        "tasks",
        "restarts_total",
        "lag",
        "lag_seconds",
        "indexed_total",
        "dead_lettered_total",
        "skipped_total",
        "lost_total",
        "records_per_second",
    ];
    assert_eq!(keys(&topic["status"]), BTreeSet::from(status));
    assert_eq!((&topic["status"]["indexed_total"], &topic["status"]["dead_lettered_total"]), (&json!(100), &json!(1)));
    let task = drover.get("/api/v1/tasks/surface/1");
    let expected = [
        "topic",
        "partition",
        "instance",
        "state",
        "health",
        "reason",
        "since_at",
        "incarnation",
        "restarts_total",
        "consecutive_failures",
        "next_restart_at",
        "last_exit",
        "recent_exits",
        "position",
        "committed",
        "committed_at",
        "high_watermark",
        "lag",
        "lag_seconds",
        "indexed_total",
        "dead_lettered_total",
        "skipped_total",
        "retried_total",
        "lost_total",
        "lost",
        "records_per_second",
    ];
    assert_eq!(keys(&task), BTreeSet::from(expected));
    assert_eq!((&task["position"], &task["committed"], &task["high_watermark"], &task["lag"]), (&json!(51), &json!(51), &json!(51), &json!(0)));
    let tasks = drover.get("/api/v1/tasks?topic=surface&sort=-partition&limit=1");
    assert_eq!((&tasks["items"][0]["partition"], tasks["next"].is_string()), (&json!(1), true));
    let table = drover.get_text("/api/v1/tasks");
    assert!(table.starts_with("TOPIC    PARTITION  STATE"), "{table}");
    assert!(drover.get_text("/api/v1/topics").lines().any(|line| line.starts_with("surface-absent") && line.contains("waiting")));

    let letter = drover.get("/api/v1/dead-letters")["items"][0].clone();
    assert_eq!(letter["id"], format!("{}:1:50", servers.kafka.topic_id("surface")));
    assert_eq!(drover.get(&format!("/api/v1/dead-letters/{}", letter["id"].as_str().unwrap_or_default()))["cause"], "format");
    let sources = drover.get("/api/v1/sources");
    let source = ["kind", "detail", "status", "topics", "revision", "content_hash", "read_at", "changed_at", "error"];
    assert_eq!(keys(&sources["items"][0]), BTreeSet::from(source));
    assert_eq!((&sources["items"][0]["kind"], &sources["items"][0]["topics"]), (&json!("file"), &json!(2)));
    let info = drover.get("/api/v1/info");
    assert_eq!((&info["name"], &info["version"]), (&json!("drover"), &json!(env!("CARGO_PKG_VERSION"))));
    let health = drover.get("/healthz");
    assert_eq!((keys(&health), &health["status"]), (BTreeSet::from(["status", "checks"]), &json!("degraded")));
    assert!(drover.get_text("/livez?verbose").contains("livez ok"));
    assert!(drover.get_text("/readyz").contains("ok"));
    let metrics = drover.get_text("/metrics");
    for line in [
        "drover_records_indexed_total{topic=\"surface\",partition=\"0\"} 50",
        "drover_records_dead_lettered_total{topic=\"surface\",partition=\"1\"} 1",
        "drover_lag_records{topic=\"surface\",partition=\"0\"} 0",
        "drover_tasks{state=\"running\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let document = drover.get("/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");

    let restarted = drover.post("/api/v1/tasks/surface/0/restart", None);
    assert_eq!((restarted.status, &restarted.json()["incarnation"]), (202, &json!(2)));
    let restarted = drover.post("/api/v1/topics/surface/restart", None);
    assert_eq!((restarted.status, restarted.json()["items"].as_array().map(Vec::len)), (202, Some(2)));
    drover.wait_for("the task runs again", Duration::from_secs(30), |drover| {
        let task = drover.task("surface", 0)?;
        (task["state"] == "running" && task["incarnation"] == 3 && task["consecutive_failures"] == 0).then_some(())
    });

    for (method, path, status, code) in [
        ("GET", "/api/v1/topics/nowhere", 404, "not-found"),
        ("GET", "/api/v1/tasks/surface/7", 404, "not-found"),
        ("GET", "/api/v1/nothing", 404, "not-found"),
        ("GET", "/api/v1/dead-letters/unknown:0:0", 404, "not-found"),
        ("GET", "/api/v1/topics/a%2fb", 422, "validation-failed"),
        ("GET", "/api/v1/topics?limit=0", 400, "invalid-request"),
        ("GET", "/api/v1/tasks?state=dancing", 400, "invalid-request"),
        ("DELETE", "/api/v1/sources", 405, "method-not-allowed"),
        ("POST", "/api/v1/tasks/surface-absent/0/restart", 404, "not-found"),
    ] {
        let answer = drover.request(method, path, &[], None);
        assert_problem(&answer, status, code);
    }
    assert_problem(&drover.request("GET", "/api/v1/topics", &[("accept", "image/png")], None), 406, "not-acceptable");
    assert_problem(&drover.request("GET", "/api/v1/topics", &[("host", "evil.example")], None), 421, "misdirected-request");
    let cross_site = [("sec-fetch-site", "cross-site")];
    assert_problem(&drover.request("POST", "/api/v1/tasks/surface/0/restart", &cross_site, None), 403, "forbidden");
    let large = vec![b'x'; 1 << 20];
    let answer = drover.request("POST", "/api/v1/tasks/surface/0/restart", &[("content-type", "application/json")], Some(large));
    assert_problem(&answer, 413, "payload-too-large");
}
