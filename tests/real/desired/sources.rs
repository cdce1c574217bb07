//! The file and the collector's keys.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use drover::app::{self, End, Options};
use serde_json::{Value, json};

use super::{
    CAUGHT_UP, FOLLOWS, SOON, assert_flows, assert_topic_kept, config, key_value, listed, lives, send, source, wait_listed, wait_running, wait_source,
};
use crate::harness::checker::Content;
use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::http;
use crate::harness::log::NoLog;
use crate::harness::process::free_port;
use crate::harness::producer::Producer;
use crate::harness::servers;
use crate::harness::wait::{holds_for, wait_until};

#[test]
fn a_topic_in_the_file_and_in_two_keys_is_consumed_once() {
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let (both, in_file, in_etcd) = ("des-both", "des-in-file", "des-in-etcd");
    for topic in [both, in_file, in_etcd] {
        servers.kafka.create_topic(topic, 3);
    }
    etcd.put("collectlogkey1", &key_value(&[both, in_etcd]));
    etcd.put("collectlogkey2", &key_value(&[both]));
    // The collector's file, but for the group, which other tests must not share.
    let file = format!(
        r#"catsyslog:
  logpath: ./logs/
  loglevel: debug
collectlogs:
  - logpath: D:\logs\golang
    logtopic: {both}
  - logpath: D:\logs\dir2
    logtopic: {in_file}
etcdkeys:
  - collectlogkey1
  - collectlogkey2
etcdconfig:
  - {}
elasticconfig:
  elasticaddr: "{}/"
  typestr: catlog
kafka: {{brokers: ["{}"], group_id: {both}, properties: {{session.timeout.ms: 6000}}}}
dead_letters: {{index: {both}-letters}}
"#,
        etcd.address(),
        servers.elasticsearch.url(),
        servers.kafka.bootstrap()
    );
    let producer = Producer::new(&servers.kafka);
    for topic in [both, in_file, in_etcd] {
        send(&producer, topic, 3, 0..3_000);
    }
    producer.flush();
    let mut drover = Drover::start(&file, &[]);
    for topic in [both, in_file, in_etcd] {
        drover.wait_caught_up(topic, CAUGHT_UP);
        let shown = drover.topic(topic).expect("the topic");
        let status = &shown["status"];
        assert_eq!((&status["partitions"], &status["indexed_total"]), (&json!(3), &json!(3_000)), "{shown}");
        assert_eq!((&shown["spec"]["format"], &shown["overrides"]), (&json!("classic"), &json!({})), "{shown}");
        assert_eq!(lives(&drover, topic).len(), 3);
        assert_topic_kept(&servers, both, topic, Content::Classic, &producer.ledger(), &drover);
    }
    let named_by = |topic: &str| -> Vec<(Value, Value)> {
        let sources = drover.topic(topic).expect("the topic")["sources"].take();
        let rows = sources.as_array().expect("sources").clone();
        rows.iter().map(|row| (row["kind"].clone(), if row["kind"] == "file" { row["detail"].clone() } else { row["key"].clone() })).collect()
    };
    let key1 = (json!("etcd"), json!("collectlogkey1"));
    assert_eq!(named_by(both), [(json!("file"), json!("collectlogs[0]")), key1.clone(), (json!("etcd"), json!("collectlogkey2"))]);
    assert_eq!(named_by(in_file), [(json!("file"), json!("collectlogs[1]"))]);
    assert_eq!(named_by(in_etcd), [key1]);
    // It stays until the last source lets go of it.
    let before = lives(&drover, both);
    etcd.put("collectlogkey1", "[]");
    wait_listed(&mut drover, &[both, in_file]);
    assert_eq!(lives(&drover, both), before);
}

/// Puts the content where Kubernetes puts the next version of a mounted configuration, and swaps the link to it.
fn swap_as_kubernetes_does(folder: &Path, version: &str, content: &str) {
    let data = folder.join(format!("..{version}"));
    fs::create_dir(&data).expect("a new folder");
    fs::write(data.join("config.yaml"), content).expect("a file in it");
    let link = folder.join("..data_tmp");
    symlink(format!("..{version}"), &link).expect("a link");
    fs::rename(link, folder.join("..data")).expect("a rename");
}

#[test]
fn a_file_edited_in_any_way_is_followed_and_other_topics_go_on() {
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let base = "des-file-base";
    let others = ["des-file-in-place", "des-file-renamed", "des-file-linked", "des-file-linked-again", "des-file-key"];
    for topic in [base].iter().chain(&others) {
        servers.kafka.create_topic(topic, 1);
    }
    etcd.put("des/key", &key_value(&[others[4]]));
    let with = |more: &str, topics: &[&str]| config(&servers, &etcd, base, more, topics);
    let mut drover = Drover::start(&with("", &[base]), &[]);
    wait_running(&mut drover, base);
    let before = lives(&drover, base);
    let folder = drover.folder().to_owned();
    let path = folder.join("config.yaml");

    fs::write(&path, with("", &[base, others[0]])).expect("an edit in place");
    wait_listed(&mut drover, &[base, others[0]]);
    drover.replace_config(&with("", &[base, others[1]]));
    wait_listed(&mut drover, &[base, others[1]]);

    // What Kubernetes mounts: the file is a link into a folder that is itself a link.
    swap_as_kubernetes_does(&folder, "one", &with("", &[base, others[2]]));
    symlink("..data/config.yaml", folder.join("config.yaml.link")).expect("a link");
    fs::rename(folder.join("config.yaml.link"), &path).expect("a rename");
    wait_listed(&mut drover, &[base, others[2]]);
    swap_as_kubernetes_does(&folder, "two", &with("", &[base, others[3]]));
    fs::remove_dir_all(folder.join("..one")).expect("the old version goes");
    wait_listed(&mut drover, &[base, others[3]]);

    // Only the list of keys changes.
    swap_as_kubernetes_does(&folder, "three", &with("etcdkeys: [des/key]", &[base, others[3]]));
    wait_listed(&mut drover, &[base, others[3], others[4]]);
    wait_running(&mut drover, others[4]);
    swap_as_kubernetes_does(&folder, "four", &with("", &[base, others[3]]));
    wait_listed(&mut drover, &[base, others[3]]);

    // A broken file, then none at all: the last good list, and why and since when.
    swap_as_kubernetes_does(&folder, "five", &format!("{}nonsense: [", with("", &[base])));
    let broken = wait_source(&mut drover, "file", None, "error", FOLLOWS);
    assert!(broken["error"]["message"].as_str().is_some_and(|message| !message.is_empty()) && broken["error"]["since_at"].is_string(), "{broken}");
    fs::remove_dir_all(folder.join("..five")).expect("the content goes");
    holds_for("the last good list is kept", FOLLOWS, || listed(&drover).is_some_and(|topics| topics == [base, others[3]]));
    let gone = source(&drover, "file", None).expect("the file's row");
    assert_eq!((&gone["status"], &gone["error"]["since_at"]), (&json!("error"), &broken["error"]["since_at"]), "{gone}");
    swap_as_kubernetes_does(&folder, "six", &with("", &[base]));
    wait_listed(&mut drover, &[base]);
    wait_source(&mut drover, "file", None, "ok", FOLLOWS);
    assert_eq!(lives(&drover, base), before);
    assert_flows(&mut drover, &Producer::new(&servers.kafka), base, 0..100);
}

#[test]
fn an_unreadable_key_keeps_its_topics_and_an_empty_or_deleted_one_drops_them() {
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let (base, first, second) = ("des-key-base", "des-key-first", "des-key-second");
    for topic in [base, first, second] {
        servers.kafka.create_topic(topic, 1);
    }
    let mut drover = Drover::start(&config(&servers, &etcd, base, "etcdkeys: [des-key-a, /des/key-b]", &[base]), &[]);
    wait_running(&mut drover, base);
    let before = lives(&drover, base);
    assert_eq!(source(&drover, "etcd", Some("des-key-a")).expect("a row for a key that is not there")["topics"], 0);

    etcd.put("des-key-a", &key_value(&[first]));
    wait_listed(&mut drover, &[base, first]);
    wait_running(&mut drover, first);
    let of_first = lives(&drover, first);
    etcd.put("/des/key-b", &key_value(&[second]));
    wait_listed(&mut drover, &[base, first, second]);

    let good_revision = source(&drover, "etcd", Some("des-key-a")).expect("the key's row")["revision"].clone();
    let (mut since, mut last_message) = (None, String::new());
    for broken in [&b"[{"[..], b"{\"topic\": \"x\"}", b"[{\"topic\": 7}]", b"\xff\xfe", b""] {
        etcd.put_bytes("des-key-a", broken);
        let row = drover.wait_for("the key's trouble is shown", FOLLOWS, |drover| {
            let row = source(drover, "etcd", Some("des-key-a"))?;
            (row["status"] == "error" && row["error"]["message"] != last_message).then_some(row)
        });
        last_message = row["error"]["message"].as_str().expect("why").to_owned();
        let since_now = row["error"]["since_at"].as_str().expect("since when").to_owned();
        assert_eq!(since.get_or_insert(since_now.clone()), &since_now, "{row}");
        // What is in force, and that it is the list of that revision.
        assert_eq!((&row["topics"], &row["revision"]), (&json!(1), &good_revision), "{row}");
    }
    holds_for("the last good list is kept", FOLLOWS, || listed(&drover).is_some_and(|topics| topics == [base, first, second]));
    assert_eq!(source(&drover, "etcd", Some("/des/key-b")).expect("the other key's row")["status"], "ok");

    // Unknown fields, other spellings, the same topic twice: as the collector took them.
    let lenient = json!([{"path": "p", "topic": first, "ttl": 5}, {"Path": "q", "Topic": first}]);
    etcd.put("des-key-a", &lenient.to_string());
    let row = wait_source(&mut drover, "etcd", Some("des-key-a"), "ok", FOLLOWS);
    assert!(row["error"].is_null(), "{row}");
    assert_eq!(lives(&drover, first), of_first);
    assert_flows(&mut drover, &Producer::new(&servers.kafka), first, 0..50);
    assert_eq!(servers.elasticsearch.count(first), 50);

    etcd.put("des-key-a", "[]");
    wait_listed(&mut drover, &[base, second]);
    etcd.delete("/des/key-b");
    wait_listed(&mut drover, &[base]);
    for key in ["des-key-a", "/des/key-b"] {
        wait_source(&mut drover, "etcd", Some(key), "ok", FOLLOWS);
    }
    assert_eq!(lives(&drover, base), before);
}

/// What the process holds now.
#[derive(Debug)]
struct Held {
    threads: usize,
    descriptors: usize,
    resident_bytes: u64,
}

fn held(drover: &Drover) -> Held {
    let process = format!("/proc/{}", drover.id());
    let count = |name: &str| fs::read_dir(format!("{process}/{name}")).expect("a running process").count();
    let statm = fs::read_to_string(format!("{process}/statm")).expect("a running process");
    // The second number are resident pages of 4 KiB (proc(5)).
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("resident pages");
    Held { threads: count("task"), descriptors: count("fd"), resident_bytes: pages * 4096 }
}

/// Adds and removes a topic in turn.
fn reload(etcd: &Etcd, drover: &mut Drover, base: &str, other: &str, times: usize) {
    for number in 0..times {
        let (value, topics) = if number % 2 == 0 { (key_value(&[other]), vec![base, other]) } else { (key_value(&[]), vec![base]) };
        etcd.put("des-leak", &value);
        wait_listed(drover, &topics);
    }
}

#[test]
fn two_hundred_reloads_leak_no_thread_descriptor_or_memory() {
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let (base, comes_and_goes) = ("des-leak-base", "des-leak-other");
    for topic in [base, comes_and_goes] {
        servers.kafka.create_topic(topic, 4);
    }
    let mut drover = Drover::start(&config(&servers, &etcd, base, "etcdkeys: [des-leak]", &[base]), &[]);
    wait_running(&mut drover, base);
    let before = lives(&drover, base);
    // The first rounds fill caches and pools that stay.
    reload(&etcd, &mut drover, base, comes_and_goes, 40);
    let settle = |drover: &mut Drover| {
        drover.wait_for("only the base topic's tasks are left", SOON, |drover| {
            let page = drover.get("/api/v1/tasks?limit=1000");
            page["items"].as_array().is_some_and(|rows| rows.iter().all(|row| row["topic"] == base)).then_some(())
        });
        held(drover)
    };
    let warm = settle(&mut drover);
    reload(&etcd, &mut drover, base, comes_and_goes, 200);
    let after = settle(&mut drover);
    eprintln!("before 200 reloads {warm:?}, after them {after:?}");
    // Runtimes start and end a thread or a connection now and then; one per reload would be hundreds.
    assert!(after.threads <= warm.threads + 4, "{warm:?}, then {after:?}");
    assert!(after.descriptors <= warm.descriptors + 8, "{warm:?}, then {after:?}");
    assert!(after.resident_bytes <= warm.resident_bytes + (16 << 20), "{warm:?}, then {after:?}");
    assert_eq!(lives(&drover, base), before);
    assert_flows(&mut drover, &Producer::new(&servers.kafka), base, 0..100);
}

/// Adds a topic by its key, waits until all its tasks run, and removes it again.
fn start_and_end_tasks(etcd: &Etcd, url: &str, topic: &str, partitions: u64, times: usize) {
    let tasks = |state: &str| -> Option<u64> {
        let answer = http::send("GET", &format!("{url}/api/v1/tasks?topic={topic}&state={state}&limit=1000"), &[], None).ok()?;
        answer.json()["items"].as_array().map(|rows| rows.len() as u64)
    };
    for _ in 0..times {
        etcd.put("des-tasks", &key_value(&[topic]));
        wait_until("all tasks of the topic run", SOON, || (tasks("running") == Some(partitions)).then_some(()));
        etcd.put("des-tasks", "[]");
        wait_until("no task of the topic is left", SOON, || {
            let answer = http::send("GET", &format!("{url}/api/v1/tasks?topic={topic}"), &[], None).ok()?;
            answer.json()["items"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
    }
}

#[test]
fn two_hundred_tasks_that_came_and_went_leave_nothing_on_the_runtime() {
    const PARTITIONS: i32 = 10;
    let servers = servers::together();
    let etcd = Etcd::start(Version::System, &[]);
    let (base, topic) = ("des-tasks-base", "des-tasks-other");
    servers.kafka.create_topic(base, 1);
    servers.kafka.create_topic(topic, PARTITIONS);
    // In this process, because only its runtime can tell how many tasks are alive.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    fs::write(&path, config(&servers, &etcd, base, "etcdkeys: [des-tasks]", &[base])).expect("a file in our folder");
    let loaded = drover::config::load(&path, &|_| None).unwrap_or_else(|error| panic!("{}", drover::config::check::text(&error)));
    let (port, (signals, received)) = (free_port(), futures::channel::mpsc::unbounded());
    let options = Options { listen: Some(([127, 0, 0, 1], port).into()), ..Options::new(path, std::sync::Arc::new(NoLog)) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let life = runtime.spawn(app::run(loaded, options, received));
    let url = format!("http://127.0.0.1:{port}");

    start_and_end_tasks(&etcd, &url, topic, PARTITIONS as u64, 3);
    let before = runtime.metrics().num_alive_tasks();
    start_and_end_tasks(&etcd, &url, topic, PARTITIONS as u64, 20);
    // Connections have a task each, and one of them may come or go.
    wait_until("as many tasks are alive as before", SOON, || (runtime.metrics().num_alive_tasks() <= before + 4).then_some(()));
    signals.unbounded_send("SIGTERM").expect("it listens");
    let end = runtime.block_on(async { tokio::time::timeout(SOON, life).await }).expect("an end in time").expect("no panic");
    assert_eq!(end.expect("it had started"), End::Clean);
}
