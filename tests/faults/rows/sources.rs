//! Faults of the desired state: a configuration file that is torn, swapped and taken away, an etcd that is full, restored, filled with garbage, cut off or suddenly asks who we are, many writers at once. What runs must not change by it, and what is wanted in the end must run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::checker::Content;
use crate::harness::drover::Drover;
use crate::harness::etcd::{Cluster, Etcd, Version};
use crate::harness::http::{self, Answer};
use crate::harness::producer::Producer;
use crate::harness::wait::try_wait_until;
use crate::run::{CANARY, Ending, Load, Row, Run, SOON, Setup, Topic, both, let_pass, rows, send};

use super::control::{put, source, source_status, staged};

pub(super) const ROWS: &[Row] = &[
    Row { number: 55, name: "each member of etcd in turn is cut off from the others", is_quick: false, run: minority },
    Row { number: 57, name: "etcd is full (NOSPACE)", is_quick: true, run: no_space },
    Row { number: 58, name: "etcd asks for users while we run, tokens run out, our user is deleted", is_quick: false, run: authentication },
    Row { number: 59, name: "20 concurrent writers on 3 instances, one topic", is_quick: true, run: concurrent_writers },
    Row { number: 61, name: "etcd is restored from an old snapshot, then emptied", is_quick: true, run: restored },
    Row { number: 62, name: "garbage, huge and unreadable entries below the prefix", is_quick: true, run: garbage },
    Row { number: 63, name: "config.yaml is torn, swapped, taken away and written 1,000 times a second", is_quick: false, run: config_file },
    Row { number: 64, name: "one topic in the file, in a key and in the store, removed one after the other", is_quick: true, run: named_by_all },
];

/// From the end of a change of the file to its being in force: the poll of 2 s, and a busy machine.
const FILE_FOLLOWS: Duration = Duration::from_secs(6);
/// From a change in etcd to its being in force, while etcd is well.
const ETCD_FOLLOWS: Duration = Duration::from_secs(5);
/// What is in force after this is what a full read found, whatever a watch has lost.
const READ_AGAIN: Duration = Duration::from_secs(75);
/// For any answer of the API about its store.
const ANSWERED: Duration = Duration::from_secs(20);

/// The topics that the API lists.
pub(super) fn listed(drover: &Drover) -> Option<BTreeSet<String>> {
    let answer = drover.try_request("GET", "/api/v1/topics?limit=1000", None).ok().filter(|answer| answer.status == 200)?;
    answer.json()["items"].as_array()?.iter().map(|topic| topic["name"].as_str().map(str::to_owned)).collect()
}

fn names(topics: &[&Topic]) -> BTreeSet<String> {
    topics.iter().map(|topic| topic.name.clone()).collect()
}

/// Waits until exactly these topics are wanted.
fn wait_listed(run: &mut Run<'_>, drover: &Drover, topics: &[&Topic], within: Duration) {
    let expected = names(topics);
    run.wait("I9", &format!("the topics are {expected:?}"), within, || (listed(drover)? == expected).then_some(()));
}

/// Claims that exactly these topics stay wanted.
fn keep_listed(run: &mut Run<'_>, drover: &Drover, topics: &[&Topic], span: Duration) {
    let expected = names(topics);
    let other = try_wait_until(span, || listed(drover).filter(|found| *found != expected));
    run.claim("I9", other.is_none(), || format!("{expected:?} are to be kept, and there are {other:?}"));
}

/// Waits until a source has this status and, where it is not well, says why and since when.
fn wait_source(run: &mut Run<'_>, drover: &Drover, kind: &str, status: &str, within: Duration) {
    let mut last = Value::Null;
    let is_there = try_wait_until(within, || {
        last = source(drover, kind);
        (last["status"] == status).then_some(())
    });
    run.claim("I10", is_there.is_some(), || format!("{kind} is to be {status} within {within:?}: {last}"));
    let is_told = status == "ok" || last["error"]["message"].as_str().is_some_and(|text| !text.is_empty()) && last["error"]["since_at"].is_string();
    run.claim("I10", is_told, || format!("{kind} does not say why and since when: {last}"));
}

fn code(answer: &Answer) -> String {
    serde_json::from_slice::<Value>(&answer.body).ok().and_then(|body| body["code"].as_str().map(str::to_owned)).unwrap_or_default()
}

fn path(topic: &Topic) -> String {
    format!("/api/v1/topics/{}", topic.name)
}

/// Looks all the time at whether a topic's tasks run, each in its first life: what a fault of the desired state must not touch.
struct Vigil {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Vigil {
    fn over(drover: &Drover, topic: &Topic) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, partitions) = (is_over.clone(), usize::try_from(topic.partitions).unwrap_or_default());
        let (tasks, ready) = (format!("{}/api/v1/tasks?topic={}&limit=1000", drover.url(), topic.name), format!("{}/readyz", drover.url()));
        let thread = std::thread::spawn(move || {
            let (mut looks, mut wrong) = (0, Vec::new());
            while !told.load(Ordering::Relaxed) {
                let seen = http::send("GET", &tasks, &[], None).map(|answer| answer.json()["items"].clone());
                let is_well = |row: &Value| row["state"] == "running" && row["incarnation"] == 1 && row["restarts_total"] == 0;
                let are_well = |items: &Value| items.as_array().is_some_and(|items| items.len() == partitions && items.iter().all(is_well));
                if !seen.as_ref().is_ok_and(are_well) {
                    wrong.push(format!("{seen:?}"));
                }
                if !http::send("GET", &ready, &[], None).is_ok_and(|answer| answer.status == 200) {
                    wrong.push("it does not call itself ready".to_owned());
                }
                looks += 1;
                let _ = try_wait_until(Duration::from_millis(100), || told.load(Ordering::Relaxed).then_some(()));
            }
            (looks, wrong)
        });
        Self { is_over, thread }
    }

    fn end(self, run: &mut Run<'_>) {
        self.is_over.store(true, Ordering::Relaxed);
        let (looks, wrong) = self.thread.join().unwrap_or_else(|_| (0, vec!["the look-out itself has failed".to_owned()]));
        run.claim("I9", looks > 0 && wrong.is_empty(), || {
            format!("in {} of {looks} looks the tasks did not run on: {:?}", wrong.len(), wrong.first())
        });
    }
}

fn etcd_section(url: &str) -> String {
    format!("etcd: {{endpoints: [\"{url}\"], prefix: drover}}")
}

/// The value of one of the collector's keys.
fn key_value(topics: &[&Topic]) -> String {
    let entries: Vec<Value> = topics.iter().map(|topic| json!({"path": "./logs", "topic": topic.name})).collect();
    Value::Array(entries).to_string()
}

// ---- the file

/// What is done to the file; what it had before is `good`.
struct Damage {
    words: &'static str,
    begin: fn(&Path, &str),
}

const DAMAGES: [Damage; 9] = [
    Damage { words: "truncated", begin: |file, _| fs::write(file, "").expect("our file") },
    Damage { words: "written half", begin: |file, good| fs::write(file, half(good)).expect("our file") },
    Damage { words: "no YAML", begin: |file, good| fs::write(file, format!("{good}nonsense: [")).expect("our file") },
    Damage { words: "not UTF-8", begin: |file, good| fs::write(file, [b"# \xff\xfe\n".as_slice(), good.as_bytes()].concat()).expect("our file") },
    Damage { words: "with an unknown key", begin: |file, good| fs::write(file, format!("{good}nonsense: 1\n")).expect("our file") },
    Damage { words: "not to be read (000)", begin: |file, _| fs::set_permissions(file, fs::Permissions::from_mode(0o000)).expect("our file") },
    Damage { words: "deleted", begin: |file, _| fs::remove_file(file).expect("our file") },
    Damage {
        words: "a folder",
        begin: |file, _| {
            fs::remove_file(file).expect("our file");
            fs::create_dir(file).expect("our folder");
        },
    },
    Damage {
        words: "a link in a circle",
        begin: |file, _| {
            fs::remove_file(file).expect("our file");
            symlink("config.yaml", file).expect("our folder");
        },
    },
];

/// Up to the middle of the last topic's mapping: a cut between two lines would be a shorter list and nothing else.
fn half(good: &str) -> &str {
    let last = good.rfind("{topic").unwrap_or(good.len() / 2);
    good.get(..last + 4).unwrap_or(good)
}

/// Puts the content where a mounted configuration has its next version, and swaps the link to it.
fn swap_link(folder: &Path, version: &str, content: &str) {
    fs::create_dir(folder.join(version)).expect("our folder");
    fs::write(folder.join(version).join("config.yaml"), content).expect("a file in it");
    symlink(version, folder.join("data.new")).expect("a link");
    fs::rename(folder.join("data.new"), folder.join("data.now")).expect("a rename");
}

fn config_file(run: &mut Run<'_>) {
    let (main, extra) = (run.topic("main", 3), run.topic("extra", 2));
    let setup = Setup::new(run, &[&main]);
    let (without, with) = (setup.yaml(), Setup::new(run, &[&main, &extra]).yaml());
    let (drover, load) = run.under_load(&setup, &main, 500);
    let vigil = Vigil::over(&drover, &main);
    let (folder, file) = (drover.folder().to_owned(), drover.folder().join("config.yaml"));

    drover.replace_config(&with);
    wait_listed(run, &drover, &[&main, &extra], FILE_FOLLOWS);
    let mut has_extra = true;
    for damage in &DAMAGES {
        let (now, next) = if has_extra { (&with, &without) } else { (&without, &with) };
        (damage.begin)(&file, now);
        let told = source_within(&drover, "file", "error", FILE_FOLLOWS);
        run.claim("I10", told.is_some(), || format!("the file is {}, and its source says {}", damage.words, source(&drover, "file")));
        let kept: &[&Topic] = if has_extra { &[&main, &extra] } else { &[&main] };
        keep_listed(run, &drover, kept, Duration::from_secs(1));
        if file.is_dir() {
            fs::remove_dir(&file).expect("our folder");
        }
        drover.replace_config(next);
        has_extra = !has_extra;
        let wanted: &[&Topic] = if has_extra { &[&main, &extra] } else { &[&main] };
        wait_listed(run, &drover, wanted, FILE_FOLLOWS);
        wait_source(run, &drover, "file", "ok", FILE_FOLLOWS);
    }

    swap_link(&folder, "one", &with);
    symlink("data.now/config.yaml", folder.join("config.yaml.link")).expect("a link");
    fs::rename(folder.join("config.yaml.link"), &file).expect("a rename");
    wait_listed(run, &drover, &[&main, &extra], FILE_FOLLOWS);
    swap_link(&folder, "two", &without);
    fs::remove_dir_all(folder.join("one")).expect("our folder");
    wait_listed(run, &drover, &[&main], FILE_FOLLOWS);

    let written = storm(&drover, &file, [&without, &with], Duration::from_secs(6));
    run.claim("I9", written >= 1_000, || format!("the file was written only {written} times in 6 s"));
    wait_listed(run, &drover, &[&main, &extra], FILE_FOLLOWS);
    wait_source(run, &drover, "file", "ok", FILE_FOLLOWS);
    vigil.end(run);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &extra.name, 2, 0..2_000);
    producer.flush();
    let ledger = both(load.end(), producer.ledger());
    run.finish(drover, &Ending { group: &setup.group, topics: &[&main, &extra], ledger: &ledger, restarts: 0..=0 });
}

fn source_within(drover: &Drover, kind: &str, status: &str, within: Duration) -> Option<()> {
    try_wait_until(within, || (source_status(drover, kind) == status).then_some(()))
}

/// Writes the file about 1,000 times a second, in place and by renaming, in turn with each content; the last is the second one's.
fn storm(drover: &Drover, file: &Path, contents: [&str; 2], span: Duration) -> u32 {
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < span {
        if u128::from(written) >= began.elapsed().as_millis() {
            let_pass(Duration::from_millis(1));
            continue;
        }
        let content = format!("{}# {written}\n", if written % 2 == 0 { contents[0] } else { contents[1] });
        if written % 3 == 0 {
            drover.replace_config(&content);
        } else {
            fs::write(file, content).expect("our file");
        }
        written += 1;
    }
    drover.replace_config(&format!("{}# the last\n", contents[1]));
    written
}

fn named_by_all(run: &mut Run<'_>) {
    let etcd = Etcd::start(Version::System, &[]);
    // In the collector's dialect everywhere, and so of the same format whoever names it.
    let shared = Topic { content: Content::Classic, ..run.topic("shared", 2) };
    etcd.put("fault-key", &key_value(&[&shared]));
    etcd.put(&format!("drover/topics/{}", shared.name), "{}");
    let more = format!("{}\netcdkeys: [fault-key]", etcd_section(&etcd.url()));
    let in_file = format!("collectlogs: [{{logpath: ./logs, logtopic: {}}}]\n", shared.name);
    let mut stage = staged(run, etcd, format!("{more}\n{in_file}"));
    let named_by = |drover: &Drover| -> Option<Vec<String>> {
        let topic = drover.topic(&shared.name)?;
        topic["sources"].as_array()?.iter().map(|source| source["kind"].as_str().map(str::to_owned)).collect()
    };
    let wait_named = |run: &mut Run<'_>, drover: &Drover, kinds: &[&str]| {
        run.wait("I10", &format!("{} is named by {kinds:?}", shared.name), FILE_FOLLOWS, || (named_by(drover)? == kinds).then_some(()));
    };
    wait_named(run, &stage.drover, &["file", "etcd", "store"]);
    run.wait("I9", "it runs", SOON, || (rows(&stage.drover, &shared.name).iter().filter(|row| row["state"] == "running").count() == 2).then_some(()));
    // Consumed once, however many name it: the row's ending compares the documents. From now on nothing may touch it.
    let vigils = [Vigil::over(&stage.drover, &stage.main), Vigil::over(&stage.drover, &shared)];
    let second = Load::start(run, &shared);
    let gone = stage.drover.delete(&path(&shared));
    run.claim("I10", gone.status == 200, || format!("DELETE while others name it: {} {}", gone.status, gone.text()));
    wait_named(run, &stage.drover, &["file", "etcd"]);
    let refused = stage.drover.delete(&path(&shared));
    let is_refused = refused.status == 409 && code(&refused) == "topic-not-managed";
    run.claim("I10", is_refused, || format!("DELETE of what the store does not have: {} {}", refused.status, refused.text()));
    stage.drover.replace_config(&Setup { more, ..stage.setup.clone() }.yaml());
    wait_named(run, &stage.drover, &["etcd"]);
    keep_listed(run, &stage.drover, &[&stage.main, &shared], Duration::from_secs(3));
    let [of_main, of_shared] = vigils;
    of_shared.end(run);
    stage.etcd.delete("fault-key");
    wait_listed(run, &stage.drover, &[&stage.main], ETCD_FOLLOWS);
    run.wait("I9", "no task of it is left", SOON, || rows(&stage.drover, &shared.name).is_empty().then_some(()));
    of_main.end(run);
    // It goes on where it was, with what came meanwhile.
    let back = stage.drover.put(&path(&shared), &json!({"format": "classic"}));
    run.claim("I10", back.status == 201, || format!("PUT of a topic that nobody names: {} {}", back.status, back.text()));
    wait_named(run, &stage.drover, &["store"]);
    let producer = Producer::new(&run.servers.kafka);
    stage.earlier = Some(second.end());
    stage.end_with(run, &producer, &[&shared]);
}

// ---- etcd

fn no_space(run: &mut Run<'_>) {
    let etcd = Etcd::start(Version::System, &["--quota-backend-bytes=16777216"]);
    let (kept, gone, added) = (run.topic("kept", 2), run.topic("gone", 1), run.topic("added", 2));
    for topic in [&kept, &gone] {
        etcd.put(&format!("drover/topics/{}", topic.name), r#"{"format": "json"}"#);
    }
    let more = etcd_section(&etcd.url());
    let stage = staged(run, etcd, more);
    wait_listed(run, &stage.drover, &[&stage.main, &kept, &gone], ETCD_FOLLOWS);
    run.wait("I9", "it runs", SOON, || (rows(&stage.drover, &kept.name).iter().filter(|row| row["state"] == "running").count() == 2).then_some(()));
    let vigils = [Vigil::over(&stage.drover, &stage.main), Vigil::over(&stage.drover, &kept)];
    stage.etcd.fill();
    for method in ["PUT", "DELETE"] {
        let began = Instant::now();
        let (topic, body) = if method == "PUT" { (&added, Some(json!({"format": "json"}))) } else { (&kept, None) };
        let answer = stage.drover.try_request(method, &path(topic), body.as_ref());
        let is_clear = answer.as_ref().is_ok_and(|answer| answer.status == 503 && code(answer) == "store-unavailable") && began.elapsed() < ANSWERED;
        run.claim("I10", is_clear, || format!("{method} to a full etcd after {:?}: {answer:?}", began.elapsed()));
    }
    run.claim("I10", stage.drover.log().contains("space quota"), || "the log does not say that etcd is full".to_owned());
    let is_there = stage.etcd.get(&format!("drover/topics/{}", added.name)).is_some();
    run.claim("I10", !is_there, || "it said 503 and wrote".to_owned());
    for what in [path(&kept), "/api/v1/topics".to_owned(), "/api/v1/changes".to_owned()] {
        let answer = stage.drover.request("GET", &what, &[], None);
        run.claim("I10", answer.status == 200, || format!("{what} with a full etcd: {} {}", answer.status, answer.text()));
    }
    // Under the alarm etcd still deletes, and we follow.
    stage.etcd.delete(&format!("drover/topics/{}", gone.name));
    wait_listed(run, &stage.drover, &[&stage.main, &kept], ETCD_FOLLOWS);
    keep_listed(run, &stage.drover, &[&stage.main, &kept], Duration::from_secs(5));
    stage.etcd.make_room();
    run.wait("I9", "a change is taken again", SOON, || (put(&stage.drover, &added.name) / 100 == 2).then_some(()));
    vigils.into_iter().for_each(|vigil| vigil.end(run));
    let producer = Producer::new(&run.servers.kafka);
    stage.end_with(run, &producer, &[&kept, &added]);
}

fn restored(run: &mut Run<'_>) {
    let etcd = Etcd::start(Version::System, &[]);
    let (old, new, in_key) = (run.topic("old", 2), run.topic("new", 2), run.topic("key", 1));
    etcd.put("fault-key", &key_value(&[]));
    let more = format!("{}\netcdkeys: [fault-key]", etcd_section(&etcd.url()));
    let stage = staged(run, etcd, more);
    let producer = Producer::new(&run.servers.kafka);
    run.wait("I9", "a change is taken", SOON, || (put(&stage.drover, &old.name) / 100 == 2).then_some(()));
    let snapshot = stage.etcd.save_snapshot();
    run.wait("I9", "a change is taken", SOON, || (put(&stage.drover, &new.name) / 100 == 2).then_some(()));
    // The dialect's own format would be `classic`.
    stage.etcd.put("fault-key", &key_value(&[&in_key]));
    let all = [&stage.main, &old, &new, &in_key];
    wait_listed(run, &stage.drover, &all, ETCD_FOLLOWS);
    let is_running =
        |topic: &Topic| rows(&stage.drover, &topic.name).iter().filter(|row| row["state"] == "running").count() as i32 == topic.partitions;
    run.wait("I9", "all run", SOON, || all.iter().all(|topic| is_running(topic)).then_some(()));
    let vigils: Vec<Vigil> = [&stage.main, &old].map(|topic| Vigil::over(&stage.drover, topic)).into();
    let of_new = Vigil::over(&stage.drover, &new);

    // Back to before `new` and the key's content.
    stage.etcd.restore(&snapshot);
    hold_until_confirmed(run, &stage.drover, &all, &new);
    send(&producer, &mut run.rng, &new.name, 2, 10_000..11_000);
    producer.flush();
    run.wait_committed("I9", &stage.setup.group, &new);
    of_new.end(run);
    confirm(run, &stage.drover);
    wait_listed(run, &stage.drover, &[&stage.main, &old], ETCD_FOLLOWS);
    run.wait("I9", "a change is taken again", SOON, || (put(&stage.drover, &new.name) / 100 == 2).then_some(()));
    wait_listed(run, &stage.drover, &[&stage.main, &old, &new], ETCD_FOLLOWS);

    stage.etcd.start_empty();
    hold_until_confirmed(run, &stage.drover, &[&stage.main, &old, &new], &new);
    let [of_main, of_old] = <[Vigil; 2]>::try_from(vigils).unwrap_or_else(|_| unreachable!("two were made"));
    of_old.end(run);
    confirm(run, &stage.drover);
    wait_listed(run, &stage.drover, &[&stage.main], ETCD_FOLLOWS);
    of_main.end(run);
    for topic in [&old, &new] {
        run.wait("I9", "a change is taken again", SOON, || (put(&stage.drover, &topic.name) / 100 == 2).then_some(()));
    }
    stage.end_with(run, &producer, &[&old, &new]);
}

/// An etcd with another past: both its sources say so, nothing is written, nothing stops.
fn hold_until_confirmed(run: &mut Run<'_>, drover: &Drover, kept: &[&Topic], topic: &Topic) {
    for kind in ["store", "etcd"] {
        wait_source(run, drover, kind, "stale", SOON);
    }
    let answer = drover.put(&path(topic), &json!({"format": "json"}));
    run.claim("I10", answer.status == 503 && code(&answer) == "store-stale", || {
        format!("PUT before a confirmation: {} {}", answer.status, answer.text())
    });
    keep_listed(run, drover, kept, Duration::from_secs(5));
}

fn confirm(run: &mut Run<'_>, drover: &Drover) {
    let answer = drover.post("/api/v1/sources/store/confirm", None);
    run.claim("I10", answer.status == 202, || format!("the confirmation: {} {}", answer.status, answer.text()));
    wait_source(run, drover, "store", "ok", SOON);
}

fn garbage(run: &mut Run<'_>) {
    let etcd = Etcd::start(Version::System, &[]);
    let (good, added) = (run.topic("good", 2), run.topic("added", 2));
    etcd.put(&format!("drover/topics/{}", good.name), r#"{"format": "json"}"#);
    etcd.put("fault-key", &key_value(&[&good]));
    let more = format!("{}\netcdkeys: [fault-key]", etcd_section(&etcd.url()));
    let stage = staged(run, etcd, more);
    run.wait("I9", "it runs", SOON, || (rows(&stage.drover, &good.name).iter().filter(|row| row["state"] == "running").count() == 2).then_some(()));
    let vigils = [Vigil::over(&stage.drover, &stage.main), Vigil::over(&stage.drover, &good)];
    let huge = vec![b'x'; 1_400_000];
    let deep = "[".repeat(100_000);
    let entries: Vec<(String, &[u8])> = vec![
        (format!("drover/topics/{}", good.name), b"{\"format\": \"json\", \"fromat\": 1}"),
        ("drover/topics/not-json".to_owned(), b"{"),
        ("drover/topics/null".to_owned(), b"null"),
        ("drover/topics/empty".to_owned(), b""),
        ("drover/topics/binary".to_owned(), b"\xff\xfe\x00\x01"),
        ("drover/topics/huge".to_owned(), &huge),
        ("drover/topics/deep".to_owned(), deep.as_bytes()),
        ("drover/topics/a/b".to_owned(), b"{}"),
        ("drover/topics/".to_owned(), b"{}"),
        ("drover/topics/..".to_owned(), b"{}"),
        ("drover/topics/<script>alert(1)</script>".to_owned(), b"{}"),
        ("drover/topics/\u{1b}[31m\r\nred".to_owned(), b"{}"),
        ("drover/topics/__consumer_offsets".to_owned(), b"{}"),
        (format!("drover/topics/{}", "n".repeat(300)), b"{}"),
        (format!("drover/pauses/{}", good.name), b"\xff"),
        ("drover/pauses/huge".to_owned(), &huge),
        ("drover/facts/nonsense".to_owned(), b"nonsense"),
        ("drover/nonsense".to_owned(), b"nonsense"),
        ("fault-key".to_owned(), b"[{\"topic\": "),
    ];
    for (key, value) in &entries {
        stage.etcd.put_bytes(key, value);
    }
    // Keys of any bytes: `etcdctl` takes them as arguments.
    put_key_of_any_bytes(&stage.etcd, b"drover/topics/\xff\xfe");
    for kind in ["store", "etcd"] {
        wait_source(run, &stage.drover, kind, "error", ETCD_FOLLOWS);
    }
    let told = source(&stage.drover, "store")["error"]["message"].as_str().unwrap_or_default().to_owned();
    run.claim("I10", told.contains("drover/") && told.contains("more)") && told.len() < 2_000, || format!("what is wrong: {told}"));
    let raw = stage.drover.request("GET", "/api/v1/sources", &[], None).text() + &stage.drover.log();
    run.claim("I12", !raw.contains('\u{1b}'), || "an escape sequence of a key is shown as it is".to_owned());
    // What is good beside it is taken, from outside and through the API.
    stage.etcd.put(&format!("drover/topics/{}", added.name), r#"{"format": "json"}"#);
    wait_listed(run, &stage.drover, &[&stage.main, &good, &added], ETCD_FOLLOWS);
    keep_listed(run, &stage.drover, &[&stage.main, &good, &added], Duration::from_secs(5));
    let mended = stage.drover.put(&path(&good), &json!({"format": "json"}));
    run.claim("I10", mended.status == 200, || format!("PUT over a broken entry: {} {}", mended.status, mended.text()));
    for (key, _) in entries.iter().skip(1) {
        stage.etcd.delete(key);
    }
    delete_key_of_any_bytes(&stage.etcd, b"drover/topics/\xff\xfe");
    for kind in ["store", "etcd"] {
        wait_source(run, &stage.drover, kind, "ok", ETCD_FOLLOWS);
    }
    vigils.into_iter().for_each(|vigil| vigil.end(run));
    let producer = Producer::new(&run.servers.kafka);
    stage.end_with(run, &producer, &[&good, &added]);
}

fn put_key_of_any_bytes(etcd: &Etcd, key: &[u8]) {
    any_bytes(etcd, "put", &json!({"key": base64(key), "value": base64(b"{}")}));
}

fn delete_key_of_any_bytes(etcd: &Etcd, key: &[u8]) {
    any_bytes(etcd, "deleterange", &json!({"key": base64(key)}));
}

/// etcd's gateway for JSON: an argument of a program is text.
fn any_bytes(etcd: &Etcd, what: &str, body: &Value) {
    let answer = http::send_json("POST", &format!("{}/v3/kv/{what}", etcd.url()), Some(body)).unwrap_or_else(|reason| panic!("{reason}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn authentication(run: &mut Run<'_>) {
    let etcd = Etcd::start(Version::System, &["--auth-token-ttl=3"]);
    let more = format!("etcd: {{endpoints: [\"{}\"], prefix: drover, username: drover, password: {CANARY}}}", etcd.url());
    let (early, around, late) = (run.topic("early", 1), run.topic("around", 1), run.topic("late", 1));
    let stage = staged(run, etcd, more);
    let vigil = Vigil::over(&stage.drover, &stage.main);
    // A user and a password where none is asked for are no error.
    run.wait("I9", "a change is taken", SOON, || (put(&stage.drover, &early.name) / 100 == 2).then_some(()));
    let (admin, ours) = ("--user=root:root-of-the-row", format!("drover:{CANARY}"));
    for arguments in [
        &["user", "add", "root:root-of-the-row"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "drover"],
        &["role", "grant-permission", "drover", "--prefix=true", "readwrite", "drover/"],
        &["user", "add", &ours],
        &["user", "grant-role", "drover", "drover"],
        &["auth", "enable"],
    ] {
        stage.etcd.etcdctl(arguments);
    }
    run.wait("I9", "a change is taken with a user", SOON, || (put(&stage.drover, &early.name) / 100 == 2).then_some(()));
    // Each of these comes with a token that is too old by now.
    for round in 0..3 {
        let_pass(Duration::from_secs(5));
        let began = Instant::now();
        let answer = stage.drover.put(&path(&early), &json!({"format": "json", "labels": {"round": round.to_string()}}));
        run.claim("I10", answer.status == 200, || format!("PUT with an old token: {} {} after {:?}", answer.status, answer.text(), began.elapsed()));
    }
    stage.etcd.etcdctl(&[admin, "put", &format!("drover/topics/{}", around.name), r#"{"format": "json"}"#]);
    wait_listed(run, &stage.drover, &[&stage.main, &early, &around], READ_AGAIN);

    stage.etcd.etcdctl(&[admin, "user", "delete", "drover"]);
    let began = Instant::now();
    let refused = stage.drover.put(&path(&late), &json!({"format": "json"}));
    let is_clear = refused.status == 503 && began.elapsed() < ANSWERED;
    run.claim("I10", is_clear, || format!("PUT of a deleted user: {} {} after {:?}", refused.status, refused.text(), began.elapsed()));
    wait_source(run, &stage.drover, "store", "error", READ_AGAIN);
    keep_listed(run, &stage.drover, &[&stage.main, &early, &around], Duration::from_secs(5));
    stage.etcd.etcdctl(&[admin, "user", "add", &ours]);
    stage.etcd.etcdctl(&[admin, "user", "grant-role", "drover", "drover"]);
    wait_source(run, &stage.drover, "store", "ok", SOON);
    run.wait("I9", "a change is taken again", SOON, || (put(&stage.drover, &late.name) / 100 == 2).then_some(()));
    vigil.end(run);
    let producer = Producer::new(&run.servers.kafka);
    stage.end_with(run, &producer, &[&early, &around, &late]);
}

fn minority(run: &mut Run<'_>) {
    let cluster = Cluster::start(Version::System);
    let main = run.topic("main", 3);
    let added: Vec<Topic> = (0..cluster.len() * 2).map(|number| run.topic(&format!("added{number}"), 1)).collect();
    let more = format!("etcd: {{endpoints: {:?}, prefix: drover}}", cluster.urls());
    let setup = Setup { more, ..Setup::new(run, &[&main]) };
    let (drover, load) = run.under_load(&setup, &main, 500);
    let vigil = Vigil::over(&drover, &main);
    let mut wanted = vec![&main];
    for isolated in 0..cluster.len() {
        let (around, through) = (&added[isolated * 2], &added[isolated * 2 + 1]);
        let majority = cluster.member((isolated + 1) % cluster.len());
        cluster.isolate(isolated);
        run.wait("I9", "the majority takes a change", SOON, || {
            majority.try_put(&format!("drover/topics/{}", around.name), br#"{"format": "json"}"#).ok()
        });
        let began = Instant::now();
        wanted.push(around);
        // The watch may be at the member that is alone, and must not stay there.
        wait_listed(run, &drover, &wanted, SOON);
        run.notes.push(format!("member {isolated} alone: what the majority took was in force after {:.1} s", began.elapsed().as_secs_f32()));
        // Otherwise the row would prove nothing.
        let is_alone = || cluster.member(isolated).try_etcdctl(&["--command-timeout=2s", "get", "x"], None).is_err();
        run.claim("I9", try_wait_until(SOON, || is_alone().then_some(())).is_some(), || format!("member {isolated} still has the others"));
        let mut answers = Vec::new();
        let is_taken = try_wait_until(SOON, || {
            let began = Instant::now();
            let answer = drover.put(&path(through), &json!({"format": "json"}));
            answers.push((answer.status, code(&answer), began.elapsed()));
            (answer.status / 100 == 2).then_some(())
        });
        run.claim("I9", is_taken.is_some(), || format!("no change is taken while member {isolated} is alone: {answers:?}"));
        let is_clear = |(status, code, took): &(u16, String, Duration)| {
            *took < ANSWERED && matches!((*status, code.as_str()), (200 | 201, _) | (503, "store-unavailable") | (504, "outcome-unknown"))
        };
        run.claim("I10", answers.iter().all(is_clear), || format!("answers while member {isolated} is alone: {answers:?}"));
        let (tries, took) = (answers.len(), answers.last().map_or(Duration::ZERO, |(_, _, took)| *took));
        run.notes.push(format!("member {isolated} alone: a change was taken at attempt {tries}, in {took:?}"));
        wanted.push(through);
        wait_listed(run, &drover, &wanted, SOON);
        run.claim("I9", is_alone(), || format!("member {isolated} was alone for a part of its time only"));
        cluster.rejoin();
        run.wait("I9", "the member is back", SOON, || cluster.member(isolated).try_etcdctl(&["get", "x"], None).ok());
    }
    wait_source(run, &drover, "store", "ok", SOON);
    vigil.end(run);
    let producer = Producer::new(&run.servers.kafka);
    for topic in &added {
        send(&producer, &mut run.rng, &topic.name, 1, 0..200);
    }
    producer.flush();
    let ledger = both(load.end(), producer.ledger());
    run.finish(drover, &Ending { group: &setup.group, topics: &wanted, ledger: &ledger, restarts: 0..=0 });
}

// ---- writers

/// Writers at one time.
const WRITERS: usize = 20;
/// Writers that read, add one and write under `If-Match`; the others patch a label of their own.
const COUNTERS: usize = 12;
/// Successes of each writer.
const EACH: usize = 6;

/// What a writer has done.
#[derive(Debug, Default)]
struct Written {
    /// The marks of what was answered with success.
    marks: Vec<String>,
    /// How often somebody else was faster.
    refused: usize,
    wrong: Vec<String>,
}

fn concurrent_writers(run: &mut Run<'_>) {
    let etcd = Etcd::start(Version::System, &[]);
    let (contended, raced) = (run.topic("contended", 2), run.topic("raced", 1));
    let more = etcd_section(&etcd.url());
    etcd.put(&format!("drover/topics/{}", contended.name), r#"{"format": "json"}"#);
    let stage = staged(run, etcd, more);
    let mut others = [run.start(&stage.setup), run.start(&stage.setup)];
    let urls: Vec<String> = [&stage.drover, &others[0], &others[1]].map(Drover::url).into();
    for url in &urls {
        run.wait("I9", "every instance knows the topic", SOON, || {
            http::send("GET", &format!("{url}{}", path(&contended)), &[], None).ok().filter(|answer| answer.status == 200)
        });
    }
    let written: Vec<Written> = at_once(|number| {
        let url = format!("{}{}", urls[number % urls.len()], path(&contended));
        if number < COUNTERS { count_up(&url, number) } else { patch_label(&url, number) }
    });
    for (number, writer) in written.iter().enumerate() {
        let is_well = writer.wrong.is_empty() && writer.marks.len() == EACH;
        run.claim("I10", is_well, || format!("writer {number}: {} of {EACH} changes, {:?}", writer.marks.len(), writer.wrong));
    }
    let refused: usize = written.iter().map(|writer| writer.refused).sum();
    run.claim("I10", refused > 0, || "20 writers never met".to_owned());
    run.notes
        .push(format!("{} changes were taken, 412 was answered {refused} times", written.iter().map(|writer| writer.marks.len()).sum::<usize>()));
    judge_changes(run, &stage.drover, &stage.etcd, &urls, &contended, &written);

    for round in 0..4 {
        let of_all = |method: &str, headers: &[(&str, &str)], body: Option<&str>| -> BTreeMap<u16, usize> {
            let answers = at_once(|number| {
                let url = format!("{}{}", urls[number % urls.len()], path(&raced));
                http::send(method, &url, headers, body.map(|body| body.as_bytes().to_vec())).map_or(0, |answer| answer.status)
            });
            answers.into_iter().fold(BTreeMap::new(), |mut counts, status| {
                *counts.entry(status).or_default() += 1;
                counts
            })
        };
        let created = of_all("PUT", &[("content-type", "application/json"), ("if-none-match", "*")], Some(r#"{"format": "json"}"#));
        run.claim("I10", created == BTreeMap::from([(201, 1), (412, WRITERS - 1)]), || format!("round {round}: 20 create one topic: {created:?}"));
        let removed = of_all("DELETE", &[], None);
        run.claim("I10", removed == BTreeMap::from([(204, 1), (404, WRITERS - 1)]), || format!("round {round}: 20 remove one topic: {removed:?}"));
        let stale = of_all("PUT", &[("content-type", "application/json"), ("if-match", "\"r1\"")], Some("{}"));
        run.claim("I10", stale == BTreeMap::from([(412, WRITERS)]), || format!("round {round}: 20 write what is not there: {stale:?}"));
    }
    let refused = stage.drover.delete(&path(&stage.main));
    run.claim("I10", refused.status == 409 && code(&refused) == "topic-not-managed", || format!("DELETE of the file's topic: {}", refused.status));
    for other in &mut others {
        let status = other.terminate(Duration::from_secs(27));
        run.claim("I11", status.code() == Some(0), || format!("another instance: {status}"));
    }
    drop(others);
    let producer = Producer::new(&run.servers.kafka);
    stage.end_with(run, &producer, &[&contended]);
}

/// Does something in all writers at one time.
fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let begin = std::sync::Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        let start = |number| {
            let (begin, work) = (&begin, &work);
            scope.spawn(move || {
                begin.wait();
                work(number)
            })
        };
        let threads: Vec<_> = (0..WRITERS).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
    })
}

/// Reads the counter, adds one, writes it under the tag of what was read.
fn count_up(url: &str, number: usize) -> Written {
    let mut written = Written::default();
    let _ = try_wait_until(SOON, || {
        while written.wrong.len() < 3 && written.marks.len() < EACH {
            let Some((tag, mut labels)) = read_labels(url) else {
                written.wrong.push("the topic cannot be read".to_owned());
                continue;
            };
            let count: u64 = labels["n"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            let mark = format!("writer {number} change {}", written.marks.len());
            labels["n"] = json!((count + 1).to_string());
            labels["by"] = json!(mark);
            let body = json!({"format": "json", "labels": labels}).to_string().into_bytes();
            match http::send("PUT", url, &[("content-type", "application/json"), ("if-match", &tag)], Some(body)) {
                Ok(answer) if answer.status == 200 => written.marks.push(mark),
                Ok(answer) if answer.status == 412 && code(&answer) == "precondition-failed" => {
                    written.refused += 1;
                    // The others must get their turn, and the deadline its.
                    return None;
                }
                other => written.wrong.push(format!("{other:?}")),
            }
        }
        Some(())
    });
    written
}

fn read_labels(url: &str) -> Option<(String, Value)> {
    let answer = http::send("GET", url, &[], None).ok().filter(|answer| answer.status == 200)?;
    let labels = answer.json()["overrides"]["labels"].take();
    Some((answer.header("etag")?.to_owned(), if labels.is_object() { labels } else { json!({}) }))
}

/// Patches one label without a precondition: it must never undo another's change, and be taken at once.
fn patch_label(url: &str, number: usize) -> Written {
    let mut written = Written::default();
    for change in 0..EACH {
        let body = json!({"labels": {(format!("w{number}")): change.to_string()}}).to_string().into_bytes();
        match http::send("PATCH", url, &[("content-type", "application/merge-patch+json")], Some(body)) {
            Ok(answer) if answer.status == 200 => written.marks.push(format!("w{number} {change}")),
            other => written.wrong.push(format!("PATCH without a precondition: {other:?}")),
        }
    }
    written
}

/// The log of changes is a serial order that contains every change that was answered with success and no other, and its end is what everybody shows.
fn judge_changes(run: &mut Run<'_>, drover: &Drover, etcd: &Etcd, urls: &[String], topic: &Topic, written: &[Written]) {
    let page = drover.get(&format!("/api/v1/changes?topic={}&limit=1000", topic.name));
    let mut changes = page["items"].as_array().cloned().unwrap_or_default();
    changes.reverse();
    let mut before = json!({"format": "json"});
    let mut revision = 0;
    let mut marks = Vec::new();
    for change in &changes {
        run.claim("I9", change["before"] == before, || format!("a lost update: {before} was there, and a change says of before {change}"));
        let own = change["revision"].as_i64().unwrap_or(0);
        run.claim("I9", own > revision, || format!("after revision {revision} comes {change}"));
        let (old, new) = (&before["labels"], &change["after"]["labels"]);
        marks.extend(if change["action"] == "put" {
            let count = |labels: &Value| labels["n"].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            run.claim("I9", count(new) == count(old) + 1, || format!("a counter goes from {old} to {new}"));
            new["by"].as_str().map(str::to_owned)
        } else {
            let is_changed = |(name, value): &(&String, &Value)| old[name.as_str()] != **value;
            let changed: Vec<_> = new.as_object().into_iter().flatten().filter(is_changed).collect();
            run.claim("I9", changed.len() == 1, || format!("a patch of one label makes {new} of {old}"));
            changed.first().map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or_default()))
        });
        (before, revision) = (change["after"].clone(), own);
    }
    let mut answered: Vec<String> = written.iter().flat_map(|writer| writer.marks.clone()).collect();
    answered.sort();
    marks.sort();
    run.claim("I10", answered == marks, || format!("answered with success and logged differ: {} and {}", answered.len(), marks.len()));
    let stored = etcd.get(&format!("drover/topics/{}", topic.name));
    let is_last = |entry: &crate::harness::etcd::Entry| {
        entry.mod_revision == revision && serde_json::from_str::<Value>(&entry.value).is_ok_and(|value| value == before)
    };
    run.claim("I9", stored.as_ref().is_some_and(is_last), || format!("etcd has {stored:?}, the log ends with {before} at {revision}"));
    let expected = format!("\"r{revision}\"");
    for url in urls {
        run.wait("I9", &format!("{url} shows {expected}"), ETCD_FOLLOWS, || {
            let (tag, labels) = read_labels(&format!("{url}{}", path(topic)))?;
            (tag == expected && labels == before["labels"]).then_some(())
        });
    }
}
