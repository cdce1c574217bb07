//! The store in etcd: written by the API and by `etcdctl`, and what goes wrong with etcd.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    CAUGHT_UP, FOLLOWS, SOON, STOPPED, assert_flows, code, config, key_value, listed, lives, send_with, source, wait_indexed, wait_listed,
    wait_running, wait_source,
};
use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::producer::Producer;
use crate::harness::servers;
use crate::harness::wait::{holds_for, wait_until};

/// How long a request may take whatever etcd does: the store's limit and some more.
const ANSWERED: Duration = Duration::from_secs(15);
/// How soon an etcd that does not answer is noticed: keep-alive after 10 s, its answer within 5 s, and a moment.
const NOTICED: Duration = Duration::from_secs(25);
/// How soon drover is well again when etcd is.
const RECOVERED: Duration = Duration::from_secs(20);

fn stored(etcd: &Etcd, topic: &str) -> Option<Value> {
    etcd.get(&format!("drover/topics/{topic}")).map(|entry| serde_json::from_str(&entry.value).expect("JSON in the store"))
}

fn a_topic_put_over_http_lives_in_etcd(version: Version) {
    let servers = servers::together();
    let etcd = Etcd::start(version, &[]);
    let marker = if version == Version::System { "a" } else { "b" };
    let [group, by_api, by_etcdctl] = ["base", "api", "ctl"].map(|name| format!("des-put-{marker}-{name}"));
    for topic in [&group, &by_api, &by_etcdctl] {
        servers.kafka.create_topic(topic, 1);
    }
    let configuration = config(&servers, &etcd, &group, "", &[&group]);
    let mut drover = Drover::start(&configuration, &[]);
    let mut other = Drover::start(&configuration, &[]);
    let producer = Producer::new(&servers.kafka);
    let path = format!("/api/v1/topics/{by_api}");

    let created = drover.put(&path, &json!({"format": "json"}));
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(created.header("location"), Some(path.as_str()));
    let kept = etcd.get_prefix("drover/");
    let entry = kept.get(&format!("drover/topics/{by_api}")).unwrap_or_else(|| panic!("{kept:?}"));
    assert_eq!(serde_json::from_str::<Value>(&entry.value).expect("JSON"), json!({"format": "json"}));
    let tag = format!("\"r{}\"", entry.mod_revision);
    assert_eq!(created.header("etag"), Some(tag.as_str()));
    // One's own write is read back at once, another's soon.
    assert_eq!((created.header("drover-applied"), &drover.topic(&by_api).expect("the topic")["overrides"]), (None, &json!({"format": "json"})));
    wait_listed(&mut other, &[&group, &by_api]);
    producer_flows(&mut drover, &mut other, &producer, &by_api, 0..100);

    // Racing writers with the same precondition, each at another instance: one wins, and what is stored is the winner's.
    for round in 0..5 {
        let tag = etcd.get(&format!("drover/topics/{by_api}")).map(|entry| format!("\"r{}\"", entry.mod_revision)).expect("the entry");
        let start = Barrier::new(2);
        let race = |drover: &Drover, name: &str| {
            start.wait();
            let answer = send_with(
                drover,
                "PUT",
                &path,
                ("if-match", &tag),
                &json!({"format": "json", "labels": {"winner": name, "round": round.to_string()}}),
            );
            (answer.status, code(&answer))
        };
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(|| race(&other, "second"));
            (race(&drover, "first"), second.join().expect("an answer"))
        });
        let winner = match (first.0, second.0) {
            (200, 412) => "first",
            (412, 200) => "second",
            _ => panic!("{first:?} and {second:?}"),
        };
        assert!([&first.1, &second.1].contains(&&"precondition-failed".to_owned()), "{first:?} and {second:?}");
        assert_eq!(stored(&etcd, &by_api).expect("the entry")["labels"], json!({"winner": winner, "round": round.to_string()}));
    }
    let unfit = send_with(&drover, "PUT", &path, ("if-none-match", "*"), &json!({}));
    assert_eq!(unfit.status, 412, "{}", unfit.text());
    drop(other);

    // etcdctl writes as well as the API.
    let entry_key = format!("drover/topics/{by_etcdctl}");
    etcd.put(&entry_key, r#"{"format": "json", "labels": {"by": "etcdctl"}}"#);
    wait_listed(&mut drover, &[&group, &by_api, &by_etcdctl]);
    for topic in [&group, &by_api, &by_etcdctl] {
        wait_running(&mut drover, topic);
    }
    let before: Vec<_> = [&group, &by_api, &by_etcdctl].map(|topic| lives(&drover, topic)).into();
    let shown = drover.topic(&by_etcdctl).expect("the topic");
    assert_eq!((&shown["sources"][0]["kind"], &shown["sources"][0]["key"]), (&json!("store"), &json!(entry_key)), "{shown}");

    // What cannot be read is told, and harms nothing.
    let broken: [(&str, &[u8]); 7] = [
        (&entry_key, b"{not JSON"),
        (&entry_key, br#"{"format": "xml"}"#),
        (&entry_key, br#"{"frmat": "json"}"#),
        (&entry_key, b"\xff\xfe"),
        ("drover/topics/des-put-new", b"[]"),
        ("drover/topics/des/put/deep", b"{}"),
        ("drover/topics/..", b"{}"),
    ];
    for (key, value) in broken {
        etcd.put_bytes(key, value);
        let row = drover.wait_for(&format!("{key} is reported"), FOLLOWS, |drover| {
            let row = source(drover, "store", None)?;
            row["error"]["message"].as_str()?.contains(key).then_some(row)
        });
        assert!(row["error"]["since_at"].is_string(), "{row}");
        assert_eq!(listed(&drover).expect("a list"), [by_api.as_str(), &group, &by_etcdctl].map(str::to_owned));
        if key == entry_key {
            assert_eq!(drover.topic(&by_etcdctl).expect("the topic")["overrides"]["labels"], json!({"by": "etcdctl"}));
            etcd.put(&entry_key, r#"{"format": "json", "labels": {"by": "etcdctl"}}"#);
        } else {
            etcd.delete(key);
        }
        wait_source(&mut drover, "store", None, "ok", FOLLOWS);
    }
    assert_eq!([&group, &by_api, &by_etcdctl].map(|topic| lives(&drover, topic)).to_vec(), before);

    // Both are restarted.
    assert_eq!(drover.terminate(STOPPED).code(), Some(0), "{}", drover.log());
    etcd.stop();
    etcd.start_again();
    drover.restart();
    wait_listed(&mut drover, &[&group, &by_api, &by_etcdctl]);
    assert_flows(&mut drover, &producer, &by_api, 100..200);
    drover.wait_caught_up(&by_api, CAUGHT_UP);
    assert_eq!(servers.elasticsearch.count(&by_api), 200);

    let changes = drover.get(&format!("/api/v1/changes?topic={by_api}"));
    let actions: Vec<_> = changes["items"].as_array().expect("items").iter().map(|change| change["action"].as_str().unwrap_or_default()).collect();
    assert_eq!(actions, ["put"; 6], "{changes}");
    let deleted = drover.delete(&path);
    assert_eq!((deleted.status, stored(&etcd, &by_api)), (204, None), "{}", deleted.text());
    wait_listed(&mut drover, &[&group, &by_etcdctl]);
}

/// Sends records and waits until the two instances together have indexed them.
#[track_caller]
fn producer_flows(drover: &mut Drover, other: &mut Drover, producer: &Producer, topic: &str, numbers: std::ops::Range<i32>) {
    let count = numbers.len() as u64;
    super::send(producer, topic, 1, numbers);
    producer.flush();
    let indexed = |drover: &Drover| drover.topic(topic).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or_default();
    wait_until("one of two instances has indexed the records", SOON, || (indexed(drover) + indexed(other) >= count).then_some(()));
}

#[test]
fn a_topic_put_over_http_lives_in_the_systems_etcd() {
    a_topic_put_over_http_lives_in_etcd(Version::System);
}

#[test]
fn a_topic_put_over_http_lives_in_the_built_etcd() {
    if Version::Built.is_there() {
        a_topic_put_over_http_lives_in_etcd(Version::Built);
    }
}

/// Puts a topic while etcd is in trouble. Returns the answer's status; whatever it is, it came in time and its code is one of the two truthful ones.
#[track_caller]
fn put_in_trouble(drover: &Drover, topic: &str) -> u16 {
    let started = Instant::now();
    let answer = drover.put(&format!("/api/v1/topics/{topic}"), &json!({"format": "json"}));
    let code = code(&answer);
    assert!(started.elapsed() < ANSWERED, "{:?}", started.elapsed());
    assert!(matches!((answer.status, code.as_str()), (503, "store-unavailable") | (504, "outcome-unknown")), "{}", answer.text());
    answer.status
}

/// What must be there after an answer: a 503 says that nothing was written.
#[track_caller]
fn assert_truthful(etcd: &Etcd, topic: &str, status: u16) {
    if status == 503 {
        assert_eq!(stored(etcd, topic), None, "answered 503");
    } else {
        etcd.delete(&format!("drover/topics/{topic}"));
    }
}

/// Waits until both rows of etcd are well, and the API and `etcdctl` can change the list again.
#[track_caller]
fn assert_recovered(drover: &mut Drover, etcd: &Etcd, topics: &[&str], extra: &str) {
    wait_source(drover, "store", None, "ok", RECOVERED);
    wait_source(drover, "etcd", Some("des-key"), "ok", RECOVERED);
    let path = format!("/api/v1/topics/{extra}");
    let put = drover.put(&path, &json!({"format": "json"}));
    assert_eq!(put.status, 201, "{}", put.text());
    etcd.put("des-key", &key_value(&[topics[1], "des-never-created"]));
    let mut expected = topics.to_vec();
    expected.extend([extra, "des-never-created"]);
    wait_listed(drover, &expected);
    etcd.put("des-key", &key_value(&[topics[1]]));
    assert_eq!(drover.delete(&path).status, 204);
    wait_listed(drover, topics);
}

fn no_trouble_of_etcd_stops_a_topic(version: Version) {
    let servers = servers::together();
    let etcd = Etcd::start(version, &["--quota-backend-bytes=16777216"]);
    let marker = if version == Version::System { "a" } else { "b" };
    let [in_file, in_key, in_store, extra] = ["file", "key", "store", "extra"].map(|name| format!("des-trouble-{marker}-{name}"));
    let topics = [in_file.as_str(), &in_key, &in_store];
    for topic in topics {
        servers.kafka.create_topic(topic, 1);
    }
    etcd.put("des-key", &key_value(&[&in_key]));
    etcd.put(&format!("drover/topics/{in_store}"), r#"{"format": "json"}"#);
    let mut drover = Drover::start(&config(&servers, &etcd, &in_file, "etcdkeys: [des-key]", &[&in_file]), &[]);
    for topic in topics {
        wait_running(&mut drover, topic);
    }
    let before = topics.map(|topic| lives(&drover, topic));
    let producer = Producer::new(&servers.kafka);
    let mut numbers = (0..).step_by(50).map(|first| first..first + 50);
    let mut all_flow = |drover: &mut Drover| {
        let range = numbers.next().expect("more numbers");
        for topic in topics {
            assert_flows(drover, &producer, topic, range.clone());
        }
    };

    etcd.kill();
    for kind in ["store", "etcd"] {
        let row = wait_source(&mut drover, kind, None, "error", NOTICED);
        assert!(row["error"]["since_at"].is_string() && row["error"]["message"].is_string(), "{row}");
    }
    let status = put_in_trouble(&drover, &extra);
    all_flow(&mut drover);
    let health = drover.get_text("/healthz?verbose");
    assert!(health.contains("degraded") && health.contains("etcd"), "{health}");
    etcd.start_again();
    assert_truthful(&etcd, &extra, status);
    assert_recovered(&mut drover, &etcd, &topics, &extra);

    etcd.pause();
    let status = put_in_trouble(&drover, &extra);
    all_flow(&mut drover);
    wait_source(&mut drover, "store", None, "error", NOTICED);
    etcd.resume();
    wait_source(&mut drover, "store", None, "ok", RECOVERED);
    assert_truthful(&etcd, &extra, status);
    assert_recovered(&mut drover, &etcd, &topics, &extra);

    // While drover sleeps, the connection breaks and the revision at which its watches would go on is compacted.
    drover.pause();
    etcd.kill();
    etcd.start_again();
    etcd.put("des-key", &key_value(&[&in_key, "des-never-created"]));
    etcd.put(&format!("drover/topics/{extra}"), "{}");
    etcd.delete(&format!("drover/topics/{extra}"));
    etcd.compact();
    drover.resume();
    drover.wait_for("what the watch missed is there", RECOVERED, |drover| {
        listed(drover).filter(|topics| topics.iter().any(|topic| topic == "des-never-created")).map(|_| ())
    });
    etcd.put("des-key", &key_value(&[&in_key]));
    assert_recovered(&mut drover, &etcd, &topics, &extra);

    etcd.fill();
    let status = put_in_trouble(&drover, &extra);
    assert_eq!(status, 503, "etcd refused the write for sure");
    all_flow(&mut drover);
    etcd.make_room();
    assert_truthful(&etcd, &extra, status);
    assert_recovered(&mut drover, &etcd, &topics, &extra);
    all_flow(&mut drover);

    // A topic may lose its partitions while drover sleeps; nothing else is a reason for another life.
    let after = topics.map(|topic| lives(&drover, topic));
    let restarts = |lives: &[std::collections::BTreeMap<u64, (Value, Value)>]| -> Vec<Value> {
        lives.iter().flat_map(|rows| rows.values().map(|(_, restarts)| restarts.clone())).collect()
    };
    assert_eq!(restarts(&after), restarts(&before));
}

#[test]
fn no_trouble_of_the_systems_etcd_stops_a_topic() {
    no_trouble_of_etcd_stops_a_topic(Version::System);
}

#[test]
fn no_trouble_of_the_built_etcd_stops_a_topic() {
    if Version::Built.is_there() {
        no_trouble_of_etcd_stops_a_topic(Version::Built);
    }
}

fn an_emptied_etcd_stops_nothing_until_that_is_confirmed(version: Version, empty: fn(&Etcd), marker: &str) {
    let servers = servers::together();
    let etcd = Etcd::start(version, &[]);
    let [in_file, in_key, in_store] = ["file", "key", "store"].map(|name| format!("des-empty-{marker}-{name}"));
    let topics = [in_file.as_str(), &in_key, &in_store];
    for topic in topics {
        servers.kafka.create_topic(topic, 1);
    }
    let mut drover = Drover::start(&config(&servers, &etcd, &in_file, "etcdkeys: [des-key]", &[&in_file]), &[]);
    etcd.put("des-key", &key_value(&[&in_key]));
    let revision_before = etcd.get("des-key").expect("the key").mod_revision;
    let path = format!("/api/v1/topics/{in_store}");
    assert_eq!(drover.put(&path, &json!({"format": "json"})).status, 201);
    wait_listed(&mut drover, &topics);
    for topic in topics {
        wait_running(&mut drover, topic);
    }
    let before = topics.map(|topic| lives(&drover, topic));

    empty(&etcd);
    for kind in ["store", "etcd"] {
        let row = wait_source(&mut drover, kind, None, "stale", RECOVERED);
        assert!(row["error"]["since_at"].is_string(), "{row}");
    }
    let refused = drover.put(&path, &json!({"format": "json", "labels": {"a": "b"}}));
    assert_eq!((refused.status, code(&refused).as_str()), (503, "store-stale"), "{}", refused.text());
    // Somebody fills the new one, by chance with the revision that the key had: that is no confirmation.
    while etcd.revision() + 1 < revision_before {
        etcd.put("filling", "");
    }
    etcd.put("des-key", "[]");
    assert_eq!(etcd.get("des-key").map(|entry| entry.mod_revision), Some(revision_before));
    holds_for("every topic is kept", FOLLOWS, || {
        let is_kept = listed(&drover).is_some_and(|listed| listed.len() == topics.len());
        is_kept && source(&drover, "store", None).is_some_and(|row| row["status"] == "stale")
    });
    assert_eq!(topics.map(|topic| lives(&drover, topic)), before);
    let producer = Producer::new(&servers.kafka);
    for topic in topics {
        assert_flows(&mut drover, &producer, topic, 0..50);
    }

    // A restart is no confirmation either.
    assert_eq!(drover.terminate(STOPPED).code(), Some(0), "{}", drover.log());
    drover.restart();
    wait_source(&mut drover, "store", None, "stale", RECOVERED);
    wait_listed(&mut drover, &topics);
    for topic in topics {
        assert_flows(&mut drover, &producer, topic, 50..100);
    }

    let confirmed = drover.post("/api/v1/sources/store/confirm", None);
    assert_eq!(confirmed.status, 202, "{}", confirmed.text());
    wait_source(&mut drover, "store", None, "ok", FOLLOWS);
    let confirmed = drover.post("/api/v1/sources/etcd/confirm", None);
    assert_eq!(confirmed.status, 202, "{}", confirmed.text());
    wait_source(&mut drover, "etcd", Some("des-key"), "ok", FOLLOWS);
    wait_listed(&mut drover, &[&in_file]);
    assert_eq!(drover.put(&path, &json!({"format": "json"})).status, 201);
    wait_listed(&mut drover, &[&in_file, &in_store]);
    wait_running(&mut drover, &in_store);
    // It resumes where it was.
    assert_flows(&mut drover, &producer, &in_store, 100..150);
    assert_eq!(servers.elasticsearch.count(&in_store), 150);
}

#[test]
fn an_emptied_etcd_of_the_system_stops_nothing_until_that_is_confirmed() {
    an_emptied_etcd_stops_nothing_until_that_is_confirmed(Version::System, Etcd::start_empty, "a");
}

#[test]
fn an_emptied_built_etcd_stops_nothing_until_that_is_confirmed() {
    if Version::Built.is_there() {
        an_emptied_etcd_stops_nothing_until_that_is_confirmed(Version::Built, Etcd::start_empty_as_another_cluster, "b");
    }
}

#[test]
fn without_etcd_at_the_start_the_file_and_the_last_good_lists_run() {
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let (in_file, in_key, in_store) = ("des-start-file", "des-start-key", "des-start-store");
    let topics = [in_file, in_key, in_store];
    for topic in topics {
        servers.kafka.create_topic(topic, 1);
    }
    etcd.put("des-key", &key_value(&[in_key]));
    etcd.put(&format!("drover/topics/{in_store}"), r#"{"format": "json"}"#);
    etcd.stop();
    let configuration = config(&servers, &etcd, in_file, "etcdkeys: [des-key]", &[in_file]);
    let producer = Producer::new(&servers.kafka);

    // The first start ever: there is the file and nothing else.
    let mut drover = Drover::start(&configuration, &[]);
    wait_listed(&mut drover, &[in_file]);
    wait_source(&mut drover, "store", None, "error", SOON);
    let health = drover.get_text("/healthz?verbose");
    assert!(health.contains("degraded") && health.contains("etcd"), "{health}");
    etcd.start_again();
    drover.wait_for("etcd's topics are there", RECOVERED, |drover| (listed(drover)?.len() == topics.len()).then_some(()));
    for topic in topics {
        assert_flows(&mut drover, &producer, topic, 0..50);
    }
    assert_eq!(drover.terminate(STOPPED).code(), Some(0), "{}", drover.log());

    // The next one has the last good lists.
    etcd.kill();
    drover.restart();
    for (kind, key) in [("store", None), ("etcd", Some("des-key"))] {
        let row = wait_source(&mut drover, kind, key, "error", SOON);
        assert!(row["error"]["message"].is_string() && row["topics"] == 1, "{row}");
    }
    wait_listed(&mut drover, &topics);
    for topic in topics {
        assert_flows(&mut drover, &producer, topic, 50..100);
        assert_eq!(servers.elasticsearch.count(topic), 100);
    }
    etcd.start_again();
    for kind in ["store", "etcd"] {
        wait_source(&mut drover, kind, None, "ok", RECOVERED);
    }
    wait_indexed(&mut drover, in_store, 50);
}
