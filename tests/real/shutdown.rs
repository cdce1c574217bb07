//! The end of the process in its cases: a sink that hangs, a second signal, a rebalance under way, a consumer thread that hangs.

use std::time::{Duration, Instant};

use crate::harness::checker::{Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::producer::{Producer, Record};
use crate::harness::servers::{self, Servers};

/// More than a catch-up of these amounts takes on two busy cores.
const CAUGHT_UP: Duration = Duration::from_secs(120);

fn config(servers: &Servers, topic: &str, supervision: &str) -> String {
    format!(
        "kafka: {{brokers: [\"{}\"], group_id: {topic}, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"{}\"], bulk: {{timeout: 30s}}}}\n\
         supervision: {{{supervision}}}\ntopics: [{{topic: {topic}, format: json}}]\n",
        servers.kafka.bootstrap(),
        servers.elasticsearch.url()
    )
}

fn send(producer: &Producer, topic: &str, partitions: i32, range: std::ops::Range<i32>) {
    for number in range {
        producer.send(Record::new(topic, format!(r#"{{"number":{number}}}"#).as_bytes()).to(number % partitions));
    }
    producer.flush();
}

#[track_caller]
fn assert_all_kept(servers: &Servers, topic: &str, producer: &Producer, drover: &Drover) {
    let ledger = producer.ledger();
    let id = servers.kafka.topic_id(topic);
    let generation = Generation { committed: servers.kafka.committed(topic, topic), ..Generation::new(topic, &id, &ledger.acked) };
    let documents = servers.elasticsearch.scan(topic);
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });
}

/// A drover with 1,000 records settled and 1,000 on their way to a sink that hangs.
fn with_a_hanging_sink(servers: &Servers, topic: &str, supervision: &str) -> (Producer, Drover) {
    servers.kafka.create_topic(topic, 2);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 2, 0..1_000);
    let mut drover = Drover::start(&config(servers, topic, supervision), &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    servers.elasticsearch.pause();
    send(&producer, topic, 2, 1_000..2_000);
    drover.wait_for("records are on their way", CAUGHT_UP, |drover| {
        let position = |partition| drover.task(topic, partition)?["position"].as_i64();
        (position(0)? == 1_000 && position(1)? == 1_000).then_some(())
    });
    (producer, drover)
}

#[test]
fn a_sink_that_hangs_does_not_hold_the_process_past_its_deadline() {
    let servers = servers::alone();
    let topic = "shut-hanging";
    let (producer, mut drover) = with_a_hanging_sink(&servers, topic, "shutdown_timeout: 5s, drain_timeout: 2s");
    let told = Instant::now();
    let status = drover.terminate(Duration::from_secs(20));
    let took = told.elapsed();
    assert_eq!(status.code(), Some(1), "{}", drover.log());
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert!(drover.log().contains("not everything that was read could be settled in time"), "{}", drover.log());
    servers.elasticsearch.resume();
    drover.restart();
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_all_kept(&servers, topic, &producer, &drover);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let servers = servers::alone();
    let topic = "shut-twice";
    let (producer, mut drover) = with_a_hanging_sink(&servers, topic, "shutdown_timeout: 60s, drain_timeout: 50s");
    drover.signal(libc::SIGTERM);
    drover.wait_for("it drains, and says so", CAUGHT_UP, |drover| {
        let answer = drover.try_request("GET", "/readyz", None).ok()?;
        (answer.status == 503).then_some(())
    });
    let told = Instant::now();
    drover.signal(libc::SIGINT);
    let status = drover.wait_end(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", drover.log());
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
    servers.elasticsearch.resume();
    drover.restart();
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_all_kept(&servers, topic, &producer, &drover);
}

#[test]
fn a_stop_while_the_group_is_rebalancing_is_clean() {
    let servers = servers::together();
    let topic = "shut-rebalance";
    servers.kafka.create_topic(topic, 6);
    let producer = Producer::new(&servers.kafka);
    let file = config(&servers, topic, "shutdown_timeout: 20s");
    let mut running = Drover::start(&file, &[]);
    for round in 0..4 {
        send(&producer, topic, 6, round * 3_000..(round + 1) * 3_000);
        // The newcomer asks to join at about the time at which the other is told to leave.
        let newcomer = Drover::launch(&file, &[]);
        let mut leaving = std::mem::replace(&mut running, newcomer);
        assert_eq!(leaving.terminate(Duration::from_secs(25)).code(), Some(0), "{}", leaving.log());
        running.wait_ready();
    }
    running.wait_for("the last one has everything", CAUGHT_UP, |drover| {
        let status = drover.topic(topic)?["status"].clone();
        (status["tasks"]["running"] == 6).then_some(())
    });
    running.wait_caught_up(topic, CAUGHT_UP);
    assert_all_kept(&servers, topic, &producer, &running);
}

#[test]
fn a_consumer_thread_that_hangs_is_told_by_liveness_and_costs_nothing() {
    let servers = servers::together();
    let topic = "shut-stuck";
    servers.kafka.create_topic(topic, 2);
    let producer = Producer::new(&servers.kafka);
    send(&producer, topic, 2, 0..1_000);
    // After some turns the thread sleeps for an hour.
    let mut drover = Drover::start(&config(&servers, topic, "shutdown_timeout: 5s"), &[("FAILPOINTS", "poll=60*off->sleep(3600000)")]);
    let answer = drover.wait_for("liveness tells", Duration::from_secs(90), |drover| {
        let answer = drover.try_request("GET", "/livez", None).ok()?;
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.text().contains("kafka") && answer.text().contains("no turn for"), "{}", answer.text());
    // Who restarts it because of that waits for no more than the deadline.
    assert_eq!(drover.terminate(Duration::from_secs(20)).code(), Some(1), "{}", drover.log());
    drover.set_environment(&[]);
    drover.restart();
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_all_kept(&servers, topic, &producer, &drover);
}
