//! Thousands of topics: what a reload costs, and that a change of one topic costs no more than that topic. On a Kafka of its own, since its metadata is everybody's burden.

use std::fmt::Write as _;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use serde_json::json;

use crate::harness::drover::Drover;
use crate::harness::kafka::Kafka;

/// Topics, each of one partition.
const TOPICS: usize = 3000;
/// Of these, so many are in the store and the rest in the file.
const STORED: usize = 100;
/// CPU seconds from a reload of all topics, none of which was known, to all of them running. The goal is 2 s. The release build, which `DROVER_BENCH_BINARY` names, takes 6.7 s, about half of it in
/// librdkafka (join, metadata, and fetches in which it looks topics up one by one), the rest admission: a look-up of offsets and a durable write for each topic. The test build is not optimised.
const RELOAD_CPU: f64 = 10.0;
const RELOAD_CPU_UNOPTIMISED: f64 = 30.0;
const RUNNING_WITHIN: Duration = Duration::from_secs(240);

fn name(number: usize) -> String {
    format!("many.{number:04}")
}

fn create_topics(kafka: &Kafka, count: usize) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().expect("an admin client");
    let names: Vec<String> = (0..count).map(name).collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(120))).request_timeout(Some(Duration::from_secs(120)));
    for some in names.chunks(500) {
        let topics: Vec<NewTopic<'_>> = some.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
        let results = futures::executor::block_on(admin.create_topics(&topics, &options)).expect("an answer");
        for result in results {
            result.expect("a new topic");
        }
    }
}

fn config(kafka: &Kafka, topics: std::ops::Range<usize>, label: &str) -> String {
    let mut text = format!(
        "kafka: {{brokers: [\"{}\"], group_id: many, properties: {{session.timeout.ms: 6000}}}}\nelasticsearch: {{urls: [\"http://127.0.0.1:9\"]}}\ntopics:\n",
        kafka.bootstrap()
    );
    for number in topics {
        let labels = if number == STORED { format!(", labels: {{case: \"{label}\"}}") } else { String::new() };
        writeln!(text, "  - {{topic: {}{labels}}}", name(number)).expect("a text");
    }
    text
}

fn running(drover: &Drover) -> usize {
    let metrics = drover.get_text("/metrics");
    let line = metrics.lines().find(|line| line.starts_with("drover_tasks{state=\"running\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map_or(0, |count| count as usize)
}

/// What the process uses per second while nothing happens.
fn idle_cpu(drover: &mut Drover) -> f64 {
    let before = (drover.cpu_seconds(), std::time::Instant::now());
    drover.wait_for("some idle time passes", Duration::from_secs(30), |_| (before.1.elapsed() >= Duration::from_secs(5)).then_some(()));
    (drover.cpu_seconds() - before.0) / before.1.elapsed().as_secs_f64()
}

/// CPU seconds, without those of idling, until `condition` holds.
fn cost(drover: &mut Drover, idle: f64, what: &str, mut condition: impl FnMut(&Drover) -> bool) -> f64 {
    let before = (drover.cpu_seconds(), std::time::Instant::now());
    // Looking costs too: a page of metrics for thousands of partitions is megabytes.
    let mut look_at = before.1;
    drover.wait_for(what, RUNNING_WITHIN, |drover| {
        if look_at.elapsed() < Duration::from_secs(1) {
            return None;
        }
        look_at = std::time::Instant::now();
        condition(drover).then_some(())
    });
    let (cpu, seconds) = (drover.cpu_seconds() - before.0, before.1.elapsed().as_secs_f64());
    println!("{what}: {cpu:.2} CPU seconds, {seconds:.1} s, of which {:.2} idle", idle * seconds);
    cpu - idle * seconds
}

#[test]
fn three_thousand_topics_cost_seconds_and_one_costs_nothing() {
    let kafka = Kafka::start().unwrap_or_else(|reason| panic!("{reason}"));
    create_topics(&kafka, TOPICS + 1);
    let binary = std::env::var_os("DROVER_BENCH_BINARY").map(std::path::PathBuf::from);
    let most = if binary.is_some() { RELOAD_CPU } else { RELOAD_CPU_UNOPTIMISED };
    let empty = config(&kafka, 0..0, "");
    let empty = empty.replace("topics:\n", "topics: []\n");
    let mut drover = match &binary {
        Some(binary) => Drover::launch_binary(binary, &empty, &[("DROVER_LOG", "warn")]),
        None => Drover::launch(&empty, &[("DROVER_LOG", "warn")]),
    };
    drover.wait_ready();
    let idle_before = idle_cpu(&mut drover);

    drover.replace_config(&config(&kafka, STORED..TOPICS, "first"));
    let all_of_the_file = cost(&mut drover, idle_before, "every topic of the file runs", |drover| running(drover) == TOPICS - STORED);
    let idle = idle_cpu(&mut drover);
    println!("idle with {} tasks: {:.1} % of a core", TOPICS - STORED, idle * 100.0);
    for number in 0..STORED {
        let answer = drover.put(&format!("/api/v1/topics/{}", name(number)), &json!({"format": "json"}));
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let stored = cost(&mut drover, idle, "every topic of the store runs", |drover| running(drover) == TOPICS);
    println!("{STORED} stored topics: {stored:.2} CPU seconds after the last answer");

    let last = name(TOPICS);
    let before = drover.cpu_seconds();
    let answer = drover.put(&format!("/api/v1/topics/{last}"), &json!({}));
    assert_eq!((answer.status, answer.header("drover-applied")), (201, None), "{}", answer.text());
    let written = drover.cpu_seconds() - before;
    let one = cost(&mut drover, idle, "one more topic runs", |drover| running(drover) == TOPICS + 1) + written;
    let reload = {
        let hash = drover.get("/api/v1/sources")["items"][0]["content_hash"].clone();
        drover.replace_config(&config(&kafka, STORED..TOPICS, "second"));
        cost(&mut drover, idle, "a reload that changes one label is in force", |drover| {
            drover.get("/api/v1/sources")["items"][0]["content_hash"] != hash
        })
    };
    println!("all of the file {all_of_the_file:.2}, one more {one:.2}, one changed label {reload:.2} CPU seconds");
    assert!(all_of_the_file <= most, "{all_of_the_file:.2} CPU seconds for {} topics", TOPICS - STORED);
    assert!(one <= all_of_the_file / 4.0 + 0.5, "one topic costs {one:.2} CPU seconds, all of them {all_of_the_file:.2}");
    assert!(drover.terminate(Duration::from_secs(60)).success());
}
