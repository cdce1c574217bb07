//! What happens when things break: outages, closed indices, records that crash their task, hangs, instances that come and go, topics that are re-created, records that retention removes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::harness::checker::{Content, Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::kafka::committed_watch;
use crate::harness::producer::{Ledger, Producer, Record};
use crate::harness::servers::{self, Servers};
use crate::harness::wait::{holds_for, try_wait_until, wait_until};

const CAUGHT_UP: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(60);
/// How long an outage lasts.
const OUTAGE: Duration = Duration::from_secs(30);
/// `limits.memory` by default, and what a process may have beside it.
const MOST_RESIDENT: u64 = (256 + 100) << 20;

fn config(servers: &Servers, group: &str, topics: &str, more: &str) -> String {
    format!(
        "kafka: {{brokers: [\"{}\"], group_id: {group}, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"{}\"]}}\n{more}\ntopics:\n{topics}\n",
        servers.kafka.bootstrap(),
        servers.elasticsearch.url()
    )
}

fn send(producer: &Producer, topic: &str, partitions: i32, range: std::ops::Range<i32>) {
    for number in range {
        let value = format!(r#"{{"number":{number},"text":"{}"}}"#, "z".repeat(100));
        producer.send(Record::new(topic, value.as_bytes()).to(number % partitions));
    }
}

/// Compares everything that was produced for one topic with what is in its index, in the dead letters and committed.
#[track_caller]
fn assert_topic_kept(servers: &Servers, group: &str, topic: &str, ledger: &Ledger, drover: &Drover) {
    let id = servers.kafka.topic_id(topic);
    let committed = servers.kafka.committed(group, topic);
    let generation = Generation { index: Some(topic), committed, ..Generation::new(topic, &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan(topic);
    let letters: Vec<_> = drover.letters().into_iter().filter(|letter| letter.id.starts_with(&id)).collect();
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &letters });
}

fn rows(drover: &Drover, topic: &str) -> Vec<Value> {
    // A process that was paused may have closed the connection under the request.
    let answer = drover.try_request("GET", &format!("/api/v1/tasks?topic={topic}&limit=1000"), None);
    answer.ok().filter(|answer| answer.status == 200).and_then(|answer| answer.json()["items"].as_array().cloned()).unwrap_or_default()
}

#[track_caller]
fn assert_no_restarts(drover: &Drover, topic: &str) {
    for row in rows(drover, topic) {
        assert_eq!((&row["restarts_total"], &row["incarnation"]), (&json!(0), &json!(1)), "{row}");
    }
}

/// Waits until every task of a topic waits for this reason.
#[track_caller]
fn wait_waiting(drover: &mut Drover, topic: &str, code: &str) {
    drover.wait_for(&format!("all tasks of {topic} wait: {code}"), SOON, |drover| {
        let rows = rows(drover, topic);
        let is_waiting = |row: &Value| row["state"] == "waiting" && row["reason"]["code"] == code;
        (!rows.is_empty() && rows.iter().all(is_waiting)).then_some(())
    });
}

#[track_caller]
fn wait_indexed(drover: &mut Drover, topic: &str, at_least: u64) {
    drover.wait_for(&format!("{at_least} records of {topic} are settled"), SOON, |drover| {
        (drover.topic(topic)?["status"]["indexed_total"].as_u64()? >= at_least).then_some(())
    });
}

#[test]
fn an_outage_of_elasticsearch_is_a_state_and_costs_no_restart() {
    let servers = servers::alone();
    let topic = "sup-sink-out";
    servers.kafka.create_topic(topic, 4);
    let producer = Producer::new(&servers.kafka);
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), ""), &[]);
    send(&producer, topic, 4, 0..20_000);
    wait_indexed(&mut drover, topic, 1_000);
    servers.elasticsearch.stop();
    send(&producer, topic, 4, 20_000..200_000);
    producer.flush();
    wait_waiting(&mut drover, topic, "sink_unreachable");
    holds_for("drover is alive and restarts nothing", OUTAGE, || {
        let live = drover.try_request("GET", "/livez", None).is_ok_and(|answer| answer.status == 200);
        live && rows(&drover, topic).iter().all(|row| row["restarts_total"] == 0 && row["state"] == "waiting")
    });
    let health = drover.get_text("/healthz?verbose");
    assert!(health.contains("sink") && health.contains("degraded"), "{health}");
    servers.elasticsearch.start_again();
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_no_restarts(&drover, topic);
    assert_topic_kept(&servers, topic, topic, &producer.ledger(), &drover);
    assert!(drover.peak_resident_bytes() <= MOST_RESIDENT, "{} MiB", drover.peak_resident_bytes() >> 20);
}

#[test]
fn an_outage_of_kafka_is_a_state_and_costs_no_restart() {
    let servers = servers::alone();
    let topic = "sup-kafka-out";
    servers.kafka.create_topic(topic, 4);
    let producer = Producer::new(&servers.kafka);
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), ""), &[]);
    send(&producer, topic, 4, 0..20_000);
    producer.flush();
    wait_indexed(&mut drover, topic, 1_000);
    servers.kafka.stop();
    wait_waiting(&mut drover, topic, "kafka_unreachable");
    holds_for("drover is alive and restarts nothing", OUTAGE, || {
        let live = drover.try_request("GET", "/livez", None).is_ok_and(|answer| answer.status == 200);
        live && rows(&drover, topic).iter().all(|row| row["restarts_total"] == 0 && row["reason"]["code"] == "kafka_unreachable")
    });
    servers.kafka.start_again();
    send(&producer, topic, 4, 20_000..40_000);
    producer.flush();
    drover.wait_for("everything is indexed", CAUGHT_UP, |_| {
        servers.elasticsearch.refresh(topic);
        (servers.elasticsearch.count(topic) >= producer.acked() as u64).then_some(())
    });
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert!(rows(&drover, topic).iter().all(|row| row["restarts_total"] == 0));
    assert_topic_kept(&servers, topic, topic, &producer.ledger(), &drover);
}

#[test]
fn a_closed_index_parks_its_topic_only_and_holds_no_memory() {
    let servers = servers::together();
    let (closed, other) = ("sup-closed", "sup-beside-closed");
    for topic in [closed, other] {
        servers.kafka.create_topic(topic, 3);
    }
    servers.elasticsearch.create_index(closed, &json!({}));
    servers.elasticsearch.close_index(closed);
    let producer = Producer::new(&servers.kafka);
    send(&producer, closed, 3, 0..30_000);
    producer.flush();
    let topics = format!("  - {{topic: {closed}, format: json}}\n  - {{topic: {other}, format: json}}");
    let mut drover = Drover::start(&config(&servers, closed, &topics, ""), &[]);
    wait_waiting(&mut drover, closed, "index_closed");
    send(&producer, other, 3, 0..60_000);
    producer.flush();
    drover.wait_caught_up(other, CAUGHT_UP);
    let status = drover.topic(closed).expect("the parked topic")["status"].clone();
    assert_eq!((&status["state"], &status["indexed_total"], &status["restarts_total"]), (&json!("waiting"), &json!(0), &json!(0)), "{status}");
    assert!(status["reason"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("open")), "{status}");
    drover.wait_for("nothing is held", SOON, |drover| {
        let held = drover.get("/api/v1/info")["memory"]["in_flight_bytes"].as_u64()?;
        (held < 4096).then_some(())
    });
    servers.elasticsearch.open_index(closed);
    drover.wait_caught_up(closed, CAUGHT_UP);
    assert_no_restarts(&drover, closed);
    assert_no_restarts(&drover, other);
    let ledger = producer.ledger();
    assert_topic_kept(&servers, closed, closed, &ledger, &drover);
    assert_topic_kept(&servers, closed, other, &ledger, &drover);
}

#[test]
fn a_record_that_always_crashes_is_tried_alone_and_given_up() {
    let servers = servers::together();
    let topic = "sup-poison";
    servers.kafka.create_topic(topic, 3);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 3, 0..1_500);
    producer.send(Record::new(topic, br#"{"text":"POISON-PILL"}"#).to(1));
    send(&producer, topic, 3, 1_500..3_000);
    producer.flush();
    let patience = "supervision: {crash_loop_after: 3, backoff_max: 1s}";
    let environment = [("FAILPOINTS", "format_record=return(POISON-PILL)")];
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), patience), &environment);
    drover.wait_caught_up(topic, CAUGHT_UP);
    let letters = drover.get(&format!("/api/v1/dead-letters?topic={topic}"))["items"].as_array().cloned().unwrap_or_default();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["cause"], &letters[0]["partition"], &letters[0]["offset"]), (&json!("crash_loop"), &json!(1), &json!(500)));
    for row in rows(&drover, topic) {
        let is_hit = row["partition"] == 1;
        // Three crashes in company, one alone.
        assert_eq!(row["restarts_total"], json!(if is_hit { 4 } else { 0 }), "{row}");
        if is_hit {
            assert_eq!((&row["last_exit"]["cause"], &row["last_exit"]["offset"]), (&json!("panicked"), &json!(500)), "{row}");
        }
    }
    assert_topic_kept(&servers, topic, topic, &producer.ledger(), &drover);

    // What the operator has seen is still there after a SIGKILL.
    drover.set_environment(&[]);
    drover.kill9();
    drover.restart();
    drover.wait_for("the counts are back", SOON, |drover| {
        let task = drover.task(topic, 1)?;
        (task["restarts_total"] == 4 && task["last_exit"]["cause"] == "panicked" && task["recent_exits"].as_array()?.len() == 4).then_some(())
    });
    assert_eq!(drover.get(&format!("/api/v1/dead-letters?topic={topic}"))["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_task_that_waits_for_ever_is_killed_and_restarted() {
    let servers = servers::together();
    let topic = "sup-hang";
    servers.kafka.create_topic(topic, 3);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 3, 0..3_000);
    producer.flush();
    let environment = [("FAILPOINTS", "partition_task=1*return(hang)->off")];
    let patience = "supervision: {stall_after: 3s, backoff_max: 1s}";
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), patience), &environment);
    drover.wait_for("one task is seen stalled", SOON, |drover| rows(drover, topic).iter().any(|row| row["state"] == "stalled").then_some(()));
    drover.wait_caught_up(topic, CAUGHT_UP);
    let restarted: Vec<_> = rows(&drover, topic).into_iter().filter(|row| row["restarts_total"] != 0).collect();
    assert_eq!(restarted.len(), 1, "{restarted:?}");
    assert_eq!((&restarted[0]["restarts_total"], &restarted[0]["last_exit"]["cause"]), (&json!(1), &json!("stalled")));
    assert_topic_kept(&servers, topic, topic, &producer.ledger(), &drover);
}

#[test]
fn a_panic_of_the_sink_restarts_the_sink_and_no_task() {
    let servers = servers::together();
    let topic = "sup-sink-panic";
    servers.kafka.create_topic(topic, 3);
    let producer = Producer::new(&servers.kafka);
    let environment = [("FAILPOINTS", "sink_send=2*off->1*panic(sink boom)->off")];
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), ""), &environment);
    send(&producer, topic, 3, 0..100_000);
    producer.flush();
    drover.wait_caught_up(topic, CAUGHT_UP);
    let sink = drover.wait_for("the sink was restarted", SOON, |drover| {
        let info = drover.get("/api/v1/info");
        let sink = info["components"].as_array()?.iter().find(|part| part["name"] == "sink")?.clone();
        (sink["restarts_total"] == 1).then_some(sink)
    });
    assert!(sink["last_exit"]["message"].as_str().is_some_and(|message| message.contains("sink boom")), "{sink}");
    assert_no_restarts(&drover, topic);
    assert_topic_kept(&servers, topic, topic, &producer.ledger(), &drover);
}

/// Reads the committed offsets again and again; they must never move backwards.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<usize>,
}

impl Sampler {
    fn start(servers: &Servers, group: &'static str, topic: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let mut committed = committed_watch(&servers.kafka.client(), group, topic);
        let thread = std::thread::spawn(move || {
            let mut last: BTreeMap<i32, i64> = BTreeMap::new();
            let mut samples = 0;
            while !told.load(Ordering::Relaxed) {
                for (partition, offset) in committed() {
                    let before = last.insert(partition, offset).unwrap_or(-1);
                    assert!(offset >= before, "partition {partition}: committed {before}, then {offset}");
                }
                samples += 1;
                let _ = try_wait_until(Duration::from_millis(100), || told.load(Ordering::Relaxed).then_some(()));
            }
            samples
        });
        Self { stop, thread }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("committed offsets never move backwards")
    }
}

/// Produces at a steady pace until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Ledger>,
}

impl Load {
    fn start(producer: Producer, topic: &'static str, partitions: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                send(&producer, topic, partitions, number..number + 100);
                number += 100;
                let _ = try_wait_until(Duration::from_millis(50), || told.load(Ordering::Relaxed).then_some(()));
            }
            producer.flush();
            producer.ledger()
        });
        Self { stop, thread }
    }

    fn end(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the producer")
    }
}

#[track_caller]
fn wait_has_partitions(drover: &mut Drover, topic: &str) {
    drover.wait_for("this instance runs a part of the partitions", SOON, |drover| {
        rows(drover, topic).iter().any(|row| row["state"] == "running" && row["indexed_total"].as_u64() > Some(0)).then_some(())
    });
}

#[test]
fn an_instance_that_joins_and_leaves_five_times_loses_and_doubles_nothing() {
    let servers = servers::together();
    let topic = "sup-rebalance";
    servers.kafka.create_topic(topic, 6);
    let file = config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), "");
    let mut first = Drover::start(&file, &[]);
    let load = Load::start(Producer::new(&servers.kafka), topic, 6);
    wait_has_partitions(&mut first, topic);
    let sampler = Sampler::start(&servers, topic, topic);
    for _ in 0..5 {
        let mut second = Drover::start(&file, &[]);
        wait_has_partitions(&mut second, topic);
        assert_eq!(second.terminate(Duration::from_secs(25)).code(), Some(0), "{}", second.log());
    }
    let ledger = load.end();
    first.wait_for("the first instance has everything again", SOON, |drover| {
        rows(drover, topic).iter().all(|row| row["state"] == "running").then_some(())
    });
    first.wait_caught_up(topic, CAUGHT_UP);
    assert!(sampler.end() > 10);
    // A rebalance counts nowhere.
    assert!(rows(&first, topic).iter().all(|row| row["restarts_total"] == 0), "{:?}", rows(&first, topic));
    assert_topic_kept(&servers, topic, topic, &ledger, &first);
}

#[test]
fn a_zombies_late_results_are_dropped() {
    let servers = servers::together();
    let topic = "sup-zombie";
    servers.kafka.create_topic(topic, 6);
    let file = config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), "");
    let mut first = Drover::start(&file, &[]);
    let load = Load::start(Producer::new(&servers.kafka), topic, 6);
    wait_has_partitions(&mut first, topic);
    let mut zombie = Drover::start(&file, &[]);
    wait_has_partitions(&mut zombie, topic);
    first.wait_for("it warns that the group has another member and there is no etcd", SOON, |drover| {
        drover.get("/api/v1/info")["warnings"][0].as_str().is_some_and(|warning| warning.contains("2 members")).then_some(())
    });
    let sampler = Sampler::start(&servers, topic, topic);
    zombie.pause();
    first.wait_for("the first instance takes everything over", SOON, |drover| {
        rows(drover, topic).iter().all(|row| row["state"] == "running").then_some(())
    });
    wait_indexed(&mut first, topic, 1);
    zombie.resume();
    zombie.wait_for("the zombie has rejoined", SOON, |drover| {
        let rows = rows(drover, topic);
        let running = rows.iter().filter(|row| row["state"] == "running").count();
        (running > 0 && running < rows.len()).then_some(())
    });
    let ledger = load.end();
    wait_until("both together have everything", CAUGHT_UP, || {
        let ends = servers.kafka.end_offsets(topic);
        (servers.kafka.committed(topic, topic) == ends).then_some(())
    });
    assert!(sampler.end() > 10);
    assert_topic_kept(&servers, topic, topic, &ledger, &first);
}

#[test]
fn a_recreated_topic_is_read_from_its_beginning_and_overwrites_nothing() {
    let servers = servers::together();
    let topic = "sup-recreated";
    servers.kafka.create_topic(topic, 2);
    let old_id = servers.kafka.topic_id(topic);
    let before = Producer::new(&servers.kafka);
    send(&before, topic, 2, 0..5_000);
    before.flush();
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), ""), &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    servers.kafka.delete_topic(topic);
    servers.kafka.create_topic(topic, 2);
    let new_id = servers.kafka.topic_id(topic);
    assert_ne!(old_id, new_id);
    // A producer of the old incarnation would go on at the old topic's leader epoch; a new one does not.
    let after = Producer::new(&servers.kafka);
    send(&after, topic, 2, 100_000..103_000);
    after.flush();
    let (old, new) = (before.ledger(), after.ledger());
    drover.wait_for("everything of both is indexed", CAUGHT_UP, |_| {
        servers.elasticsearch.refresh(topic);
        (servers.elasticsearch.count(topic) >= 8_000).then_some(())
    });
    drover.wait_caught_up(topic, CAUGHT_UP);
    let committed = servers.kafka.committed(topic, topic);
    let generations = [Generation::new(topic, &old_id, &old.acked), Generation { committed, ..Generation::new(topic, &new_id, &new.acked) }];
    let documents = servers.elasticsearch.scan(topic);
    assert_kept(&Evidence { generations: &generations, unknown: &[], documents: &documents, letters: &drover.letters() });
    let told = drover.get(&format!("/api/v1/events?kind=topic_recreated&topic={topic}"));
    assert_eq!(told["items"].as_array().map(Vec::len), Some(1), "{told}");

    // The same while drover is not there.
    assert_eq!(drover.terminate(Duration::from_secs(25)).code(), Some(0));
    servers.kafka.delete_topic(topic);
    servers.kafka.create_topic(topic, 2);
    let newest_id = servers.kafka.topic_id(topic);
    let newest = Producer::new(&servers.kafka);
    send(&newest, topic, 2, 200_000..201_000);
    newest.flush();
    drover.restart();
    drover.wait_for("everything of all three is indexed", CAUGHT_UP, |_| {
        servers.elasticsearch.refresh(topic);
        (servers.elasticsearch.count(topic) >= 9_000).then_some(())
    });
    let newest = newest.ledger();
    let generations =
        [Generation::new(topic, &old_id, &old.acked), Generation::new(topic, &new_id, &new.acked), Generation::new(topic, &newest_id, &newest.acked)];
    let documents = servers.elasticsearch.scan(topic);
    assert_kept(&Evidence { generations: &generations, unknown: &[], documents: &documents, letters: &drover.letters() });
}

#[test]
fn records_that_retention_removed_are_reported_and_the_rest_arrives() {
    let servers = servers::together();
    let topic = "sup-retention";
    servers.kafka.create_topic(topic, 1);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 1, 0..1_000);
    producer.flush();
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), ""), &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_eq!(drover.terminate(Duration::from_secs(25)).code(), Some(0));
    send(&producer, topic, 1, 1_000..3_000);
    producer.flush();
    // While it is stopped …
    servers.kafka.delete_records(topic, 0, 1_500);
    drover.restart();
    drover.wait_caught_up(topic, CAUGHT_UP);
    let task = drover.task(topic, 0).expect("the task");
    assert_eq!((&task["lost_total"], &task["lost"][0]["from"], &task["lost"][0]["to"]), (&json!(500), &json!(1_000), &json!(1_500)), "{task}");
    // … and while it runs but is parked.
    servers.elasticsearch.close_index(topic);
    send(&producer, topic, 1, 3_000..5_000);
    producer.flush();
    wait_waiting(&mut drover, topic, "index_closed");
    servers.kafka.delete_records(topic, 0, 3_700);
    servers.elasticsearch.open_index(topic);
    drover.wait_for("the gap is reported", CAUGHT_UP, |drover| (drover.task(topic, 0)?["lost_total"] == 1_200).then_some(()));
    drover.wait_caught_up(topic, CAUGHT_UP);
    let task = drover.task(topic, 0).expect("the task");
    assert_eq!((&task["lost_total"], &task["lost"][1]["from"], &task["lost"][1]["to"]), (&json!(1_200), &json!(3_000), &json!(3_700)), "{task}");
    assert_eq!(drover.topic(topic).expect("the topic")["status"]["lost_total"], 1_200);
    let metrics = drover.get_text("/metrics");
    assert!(metrics.contains(&format!("drover_records_lost_total{{topic=\"{topic}\",partition=\"0\"}} 1200")), "{metrics}");
    let events = drover.get(&format!("/api/v1/events?kind=records_lost&topic={topic}"));
    assert_eq!(events["items"][0]["data"], json!({"from": 3_000, "to": 3_700, "records": 700}), "{events}");
    assert_eq!(events["items"].as_array().map(Vec::len), Some(2), "{events}");

    let ledger = producer.ledger();
    let id = servers.kafka.topic_id(topic);
    let lost: BTreeSet<_> = (1_000..1_500).chain(3_000..3_700).map(|offset| (0, offset)).collect();
    let generation = Generation { skipped: lost, committed: servers.kafka.committed(topic, topic), ..Generation::new(topic, &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan(topic);
    assert_kept(&Evidence { generations: &[generation], unknown: &[], documents: &documents, letters: &drover.letters() });
}

#[test]
fn partitions_that_are_added_are_read_from_their_beginning() {
    let servers = servers::together();
    let topic = "sup-grown";
    servers.kafka.create_topic(topic, 2);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 2, 0..1_000);
    producer.flush();
    // `latest` decides for the partitions that are there at first sight only.
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json, start: latest}}"), ""), &[]);
    drover.wait_for("both tasks run", SOON, |drover| (drover.topic(topic)?["status"]["tasks"]["running"] == 2).then_some(()));
    servers.kafka.add_partitions(topic, 4);
    let grown = Producer::new(&servers.kafka);
    send(&grown, topic, 4, 1_000..3_000);
    grown.flush();
    drover.wait_for("four tasks run", SOON, |drover| (drover.topic(topic)?["status"]["tasks"]["running"] == 4).then_some(()));
    drover.wait_caught_up(topic, CAUGHT_UP);
    let ledger = grown.ledger();
    let id = servers.kafka.topic_id(topic);
    let generation = Generation { content: Content::Json, ..Generation::new(topic, &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan(topic);
    assert_eq!(documents.len(), 2_000);
    assert_kept(&Evidence { generations: &[generation], unknown: &[], documents: &documents, letters: &drover.letters() });
}

#[test]
fn a_task_that_stops_at_a_refused_record_stands_right_before_it() {
    let servers = servers::together();
    let topic = "sup-stop";
    servers.kafka.create_topic(topic, 1);
    servers.elasticsearch.create_strict_index(topic, &json!({"number": {"type": "long"}, "text": {"type": "keyword"}}));
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 1, 0..100);
    producer.send(Record::new(topic, br#"{"other":1}"#));
    send(&producer, topic, 1, 100..200);
    producer.flush();
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json, on_reject: stop}}"), ""), &[]);
    let task = drover.wait_for("the task has failed", SOON, |drover| drover.task(topic, 0).filter(|task| task["state"] == "failed"));
    assert_eq!(
        (&task["reason"]["code"], &task["last_exit"]["offset"], &task["indexed_total"]),
        (&json!("rejected"), &json!(100), &json!(100)),
        "{task}"
    );
    wait_until("everything before it is committed", SOON, || (servers.kafka.committed(topic, topic).get(&0) == Some(&100)).then_some(()));
    assert_eq!(drover.request("GET", "/healthz", &[], None).status, 503);
    // The operator allows the field and starts the task again.
    let mapping = servers.elasticsearch.request("PUT", &format!("/{topic}/_mapping"), Some(&json!({"properties": {"other": {"type": "long"}}})));
    assert_eq!(mapping.status, 200, "{}", mapping.text());
    assert_eq!(drover.post(&format!("/api/v1/tasks/{topic}/0/restart"), None).status, 202);
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_topic_kept(&servers, topic, topic, &producer.ledger(), &drover);
}

#[test]
fn a_deleted_topic_does_not_make_others_wait() {
    let servers = servers::together();
    let (deleted, other) = ("sup-deleted", "sup-beside-deleted");
    for topic in [deleted, other] {
        servers.kafka.create_topic(topic, 2);
    }
    let topics = format!("  - {{topic: {deleted}, format: json}}\n  - {{topic: {other}, format: json}}");
    let mut drover = Drover::start(&config(&servers, deleted, &topics, ""), &[]);
    drover.wait_for("all tasks run", SOON, |drover| {
        let is_running = |topic: &str| drover.topic(topic).is_some_and(|topic| topic["status"]["tasks"]["running"] == 2);
        (is_running(deleted) && is_running(other)).then_some(())
    });
    servers.kafka.delete_topic(deleted);
    holds_for("the other topic runs", Duration::from_secs(10), || rows(&drover, other).iter().all(|row| row["state"] == "running"));
    drover.wait_for("the deleted topic waits", SOON, |drover| {
        let status = drover.topic(deleted)?["status"].take();
        (status["state"] == "waiting" && status["reason"]["code"] == "topic_missing").then_some(())
    });
    let told = drover.get(&format!("/api/v1/events?kind=task_parked&topic={other}"));
    assert_eq!(told["items"], json!([]), "{told}");
}

#[test]
fn a_full_dead_letter_store_blocks_its_partition_only() {
    let servers = servers::together();
    let (full, other) = ("sup-letters-full", "sup-beside-full");
    for topic in [full, other] {
        servers.kafka.create_topic(topic, 1);
    }
    let producer = Producer::new(&servers.kafka);
    for number in 0..2_000 {
        let value = if number % 2 == 0 { format!("not JSON {number} {}", "n".repeat(1_000)) } else { format!(r#"{{"number":{number}}}"#) };
        producer.send(Record::new(full, value.as_bytes()));
    }
    send(&producer, other, 1, 0..2_000);
    producer.flush();
    let topics = format!("  - {{topic: {full}, format: json}}\n  - {{topic: {other}, format: json}}");
    let mut drover = Drover::start(&config(&servers, full, &topics, "dead_letters: {max_bytes: 1MiB}"), &[]);
    wait_waiting(&mut drover, full, "dead_letters_full");
    drover.wait_caught_up(other, CAUGHT_UP);
    drover.wait_for("nothing is held", SOON, |drover| (drover.get("/api/v1/info")["memory"]["in_flight_bytes"].as_u64()? < 4096).then_some(()));
    assert_no_restarts(&drover, full);
    // Every second record is dead; nothing is committed past letters that are not safe.
    let committed = servers.kafka.committed(full, full).get(&0).copied().unwrap_or(0);
    let letters = drover.letters();
    assert!(committed < 2_000 && letters.len() as i64 == (committed + 1) / 2, "{committed} committed, {} letters", letters.len());
    assert_eq!(drover.terminate(Duration::from_secs(25)).code(), Some(0), "{}", drover.log());
    drover.replace_config(&config(&servers, full, &topics, "dead_letters: {max_bytes: 64MiB}"));
    drover.restart();
    drover.wait_caught_up(full, CAUGHT_UP);
    assert_eq!(drover.letters().len(), 1_000);
    assert_topic_kept(&servers, full, full, &producer.ledger(), &drover);
}

#[test]
fn a_group_that_refuses_us_is_told_and_joined_as_soon_as_it_can_be() {
    let servers = servers::together();
    let topic = "sup-refused";
    servers.kafka.create_topic(topic, 1);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 1, 0..100);
    producer.flush();
    // A member with another assignor: the broker refuses a member that does not share one with it.
    let stranger: BaseConsumer = servers
        .kafka
        .client()
        .set("group.id", topic)
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", "6000")
        .create()
        .expect("a consumer");
    stranger.subscribe(&[topic]).expect("a subscription");
    wait_until("the stranger has the partition", SOON, || {
        let _ = stranger.poll(Duration::from_millis(50));
        stranger.assignment().is_ok_and(|assignment| assignment.count() == 1).then_some(())
    });
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: json}}"), ""), &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let poller = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            let _ = stranger.poll(Duration::from_millis(100));
        }
    });
    let reason = drover.wait_for("the refusal is told", SOON, |drover| {
        let reason = drover.topic(topic)?["status"]["reason"].take();
        (reason["message"].is_string()).then_some(reason)
    });
    assert!(reason["remedy"].as_str().is_some_and(|remedy| remedy.contains("group")), "{reason}");
    stop.store(true, Ordering::Relaxed);
    poller.join().expect("the stranger leaves");
    drover.wait_for("everything is indexed", CAUGHT_UP, |drover| (drover.topic(topic)?["status"]["indexed_total"] == 100).then_some(()));
    assert_topic_kept(&servers, topic, topic, &producer.ledger(), &drover);
}

#[test]
fn a_lag_of_five_million_records_fits_into_the_memory_limit() {
    let servers = servers::together();
    let topic = "sup-memory";
    servers.kafka.create_topic(topic, 12);
    let started = Instant::now();
    let bootstrap = format!("bootstrap.servers={}", servers.kafka.bootstrap());
    let arguments = [
        "--topic",
        topic,
        "--num-records",
        "5000000",
        "--record-size",
        "200",
        "--throughput",
        "-1",
        "--producer-props",
        &bootstrap,
        "batch.size=500000",
        "linger.ms=50",
    ];
    servers.kafka.tool("org.apache.kafka.tools.ProducerPerformance", &arguments);
    eprintln!("5,000,000 records took {:.0} s to produce", started.elapsed().as_secs_f32());
    // A document of one text field; nothing of it is searched here.
    servers.elasticsearch.create_index(topic, &json!({"mappings": {"enabled": false}, "settings": {"refresh_interval": "-1"}}));
    let mut drover = Drover::start(&config(&servers, topic, &format!("  - {{topic: {topic}, format: text, metadata: off}}"), ""), &[]);
    // Elasticsearch is slower than drover: the sink is slow all the time.
    drover.wait_for("half a million records are settled", Duration::from_secs(180), |drover| {
        (drover.topic(topic)?["status"]["indexed_total"].as_u64()? > 500_000).then_some(())
    });
    let slow_sink = drover.peak_resident_bytes();
    assert!(slow_sink <= MOST_RESIDENT, "{} MiB with a slow sink", slow_sink >> 20);
    servers.elasticsearch.close_index(topic);
    wait_waiting(&mut drover, topic, "index_closed");
    holds_for("it stays parked", Duration::from_secs(10), || rows(&drover, topic).iter().all(|row| row["state"] == "waiting"));
    let parked = drover.peak_resident_bytes();
    assert!(parked <= MOST_RESIDENT, "{} MiB with a parked index", parked >> 20);
    eprintln!("peak with a slow sink {} MiB, with a parked index {} MiB", slow_sink >> 20, parked >> 20);
    servers.kafka.delete_topic(topic);
    servers.elasticsearch.delete_index(topic);
}

/// One partition with records that the consumer does not get after its first `deaf` assignments.
fn deaf(servers: &Servers, topic: &str, deaf: u32) -> (Producer, Drover) {
    servers.kafka.create_topic(topic, 1);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 1, 0..1_000);
    producer.flush();
    // An index that is made by the first request may take a busy server longer than the watchdog waits here, which would be another stall.
    servers.elasticsearch.create_index(topic, &json!({}));
    let file = config(servers, topic, &format!("  - {{topic: {topic}, format: json}}"), "supervision: {stall_after: 4s, backoff_max: 1s}\n");
    let drover = Drover::start(&file, &[("FAILPOINTS", &format!("deaf={deaf}*return"))]);
    (producer, drover)
}

#[test]
fn a_partition_whose_records_do_not_come_is_noticed_and_assigned_again() {
    let servers = servers::together();
    let topic = "sup-deaf";
    let (producer, mut drover) = deaf(&servers, topic, 1);
    drover.wait_caught_up(topic, CAUGHT_UP);
    let task = drover.task(topic, 0).expect("the task");
    assert_eq!((&task["last_exit"]["cause"], &task["restarts_total"], &task["state"]), (&json!("stalled"), &json!(1), &json!("running")), "{task}");
    let id = servers.kafka.topic_id(topic);
    let ledger = producer.ledger();
    let generation = Generation { committed: servers.kafka.committed(topic, topic), ..Generation::new(topic, &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan(topic);
    assert_kept(&Evidence { generations: &[generation], unknown: &[], documents: &documents, letters: &drover.letters() });
}

#[test]
fn a_partition_that_stays_silent_is_shown_and_left_alone_until_someone_acts() {
    let servers = servers::together();
    let topic = "sup-silent";
    let (_producer, mut drover) = deaf(&servers, topic, 3);
    let task = drover.wait_for("the third life is shown as stalled", CAUGHT_UP, |drover| {
        let task = drover.task(topic, 0)?;
        (task["state"] == "stalled" && task["incarnation"] == 3).then_some(task)
    });
    assert_eq!((&task["reason"]["code"], &task["health"], &task["restarts_total"]), (&json!("no_progress"), &json!("down"), &json!(2)), "{task}");
    assert!(task["reason"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("transaction")), "{task}");
    let answer = drover.post(&format!("/api/v1/tasks/{topic}/0/restart"), None);
    assert_eq!(answer.status, 202, "{}", answer.text());
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_eq!(drover.task(topic, 0).expect("the task")["state"], "running");
    assert_eq!(servers.elasticsearch.count(topic), 1_000);
}
