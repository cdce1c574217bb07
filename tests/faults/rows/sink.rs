//! Faults of Elasticsearch: gone, silent, cut off in the middle, closed, blocked, full; and of the place for what it will never take.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::producer::{Producer, Record};
use crate::harness::proxy::{Mode, Proxy};
use crate::run::{Ending, Load, Row, Run, SOON, Setup, Topic, let_pass, rows, send};

use super::process::port_of;

pub(super) const ROWS: &[Row] = &[
    Row { number: 35, name: "Elasticsearch is killed in the middle of bulk requests and started again", is_quick: false, run: killed },
    Row { number: 36, name: "answers are lost after Elasticsearch has acted", is_quick: true, run: answers_lost },
    Row { number: 37, name: "a black hole, then a half-open connection, then SIGSTOP", is_quick: false, run: black_hole },
    Row { number: 40, name: "flood-stage block of one index", is_quick: true, run: flood_stage },
    Row { number: 41, name: "write block, read-only and closed index", is_quick: true, run: blocked },
    Row { number: 42, name: "shard limit reached", is_quick: true, run: shard_limit },
    Row { number: 43, name: "one in a thousand documents does not fit the mapping", is_quick: true, run: mapping_conflict },
    Row { number: 47, name: "answers that end in the middle", is_quick: true, run: truncated },
    Row {
        number: 50,
        name: "the index is deleted while answers are on their way, and an operator rewinds",
        is_quick: true,
        run: deleted_and_rewound,
    },
    Row { number: 51, name: "the dead-letter store is full", is_quick: true, run: letters_full },
];

fn proxied(run: &Run<'_>) -> Proxy {
    Proxy::before(port_of(&run.servers.elasticsearch.url()))
}

fn killed(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let setup = Setup::new(run, &[&topic]);
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    run.servers.elasticsearch.kill();
    run.counts.kills += 1;
    run.wait_reason(&drover, &topic, "sink_unreachable");
    run.endure(&drover, &topic, Duration::from_secs(10));
    run.servers.elasticsearch.start_again();
    let_pass(Duration::from_secs(3));
    run.finish_load(drover, &setup, &topic, load);
}

fn answers_lost(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let proxy = proxied(run);
    let setup = Setup { sink: proxy.url(), ..Setup::new(run, &[&topic]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    for _ in 0..5 {
        proxy.set(Mode::Truncate(0));
        let_pass(Duration::from_secs(1));
        proxy.set(Mode::Pass);
        let_pass(Duration::from_secs(2));
    }
    run.claim("I7", proxy.reset() > 0, || "the proxy has cut nothing".to_owned());
    let ledger = load.end();
    run.wait_committed("I7", &setup.group, &topic);
    let retried: u64 = rows(&drover, &topic.name).iter().filter_map(|row| row["retried_total"].as_u64()).sum();
    run.claim("I10", retried > 0, || "answers were lost and nothing is said to have been sent again".to_owned());
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

fn truncated(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let proxy = proxied(run);
    let setup = Setup { sink: proxy.url(), ..Setup::new(run, &[&topic]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    // In the head, after it, and within the items.
    for bytes in [10, 60, 200, 500, 1_500] {
        proxy.set(Mode::Truncate(bytes));
        let_pass(Duration::from_secs(1));
        proxy.set(Mode::Pass);
        let_pass(Duration::from_secs(2));
    }
    run.claim("I7", proxy.reset() > 0, || "the proxy has cut nothing".to_owned());
    run.finish_load(drover, &setup, &topic, load);
}

fn black_hole(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let proxy = proxied(run);
    let setup = Setup { sink: proxy.url(), sink_options: ", bulk: {timeout: 5s}".to_owned(), ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 1_000);
    for mode in [Mode::BlackHole, Mode::HalfOpen] {
        proxy.set(mode);
        run.endure(&drover, &topic, Duration::from_secs(15));
        proxy.set(Mode::Pass);
        let_pass(Duration::from_secs(5));
    }
    run.servers.elasticsearch.pause();
    run.endure(&drover, &topic, Duration::from_secs(15));
    run.servers.elasticsearch.resume();
    run.finish_load(drover, &setup, &topic, load);
}

/// What an index can be told, the reason that must show, and how it ends.
struct Obstacle {
    code: &'static str,
    begin: fn(&Run<'_>, &str),
    end: fn(&Run<'_>, &str),
}

fn block(run: &Run<'_>, index: &str, name: &str, value: &Value) {
    run.servers.elasticsearch.put_settings(index, &json!({ name: value }));
}

fn blocked(run: &mut Run<'_>) {
    let obstacles = [
        Obstacle {
            code: "index_blocked",
            begin: |run, index| block(run, index, "index.blocks.write", &json!(true)),
            end: |run, index| block(run, index, "index.blocks.write", &Value::Null),
        },
        Obstacle {
            code: "index_blocked",
            begin: |run, index| block(run, index, "index.blocks.read_only", &json!(true)),
            end: |run, index| block(run, index, "index.blocks.read_only", &Value::Null),
        },
        Obstacle {
            code: "index_closed",
            begin: |run, index| run.servers.elasticsearch.close_index(index),
            end: |run, index| run.servers.elasticsearch.open_index(index),
        },
    ];
    obstructed(run, &obstacles);
}

fn flood_stage(run: &mut Run<'_>) {
    let obstacle = Obstacle {
        code: "index_blocked",
        begin: |run, index| block(run, index, "index.blocks.read_only_allow_delete", &json!(true)),
        end: |run, index| block(run, index, "index.blocks.read_only_allow_delete", &Value::Null),
    };
    obstructed(run, &[obstacle]);
}

/// One topic's index takes nothing while another's does; each obstacle in turn, and no dead letter.
fn obstructed(run: &mut Run<'_>, obstacles: &[Obstacle]) {
    let (main, other) = (run.topic("main", 3), run.topic("other", 3));
    run.servers.elasticsearch.create_index(&main.name, &json!({}));
    let setup = Setup::new(run, &[&main, &other]);
    let drover = run.start(&setup);
    run.observe(&setup.group, &main);
    let producer = Producer::new(&run.servers.kafka);
    let taken = if run.is_mutated() { 1 } else { obstacles.len() };
    for (round, obstacle) in (0_i32..).zip(&obstacles[..taken]) {
        (obstacle.begin)(run, &main.name);
        for topic in [&main, &other] {
            send(&producer, &mut run.rng, &topic.name, 3, round * 3_000..round * 3_000 + 3_000);
        }
        producer.flush();
        run.wait_reason(&drover, &main, obstacle.code);
        run.wait_committed("I6", &setup.group, &other);
        (obstacle.end)(run, &main.name);
        run.wait_committed("I7", &setup.group, &main);
    }
    run.finish(drover, &Ending { group: &setup.group, topics: &[&main, &other], ledger: &producer.ledger(), restarts: 0..=0 });
    let letters = run.evidence.letters.iter().flatten().count();
    run.claim("I5", letters == 0, || format!("{letters} dead letters of records that nothing is wrong with"));
}

fn shard_limit(run: &mut Run<'_>) {
    let (main, other) = (run.topic("main", 2), run.topic("other", 2));
    run.servers.elasticsearch.create_index(&other.name, &json!({}));
    run.servers.elasticsearch.put_cluster_settings(&json!({"cluster.max_shards_per_node": 1}));
    let setup = Setup::new(run, &[&main, &other]);
    let drover = run.start(&setup);
    let producer = Producer::new(&run.servers.kafka);
    for topic in [&main, &other] {
        send(&producer, &mut run.rng, &topic.name, 2, 0..2_000);
    }
    producer.flush();
    run.wait_reason(&drover, &main, "shard_limit");
    run.wait_committed("I6", &setup.group, &other);
    run.servers.elasticsearch.put_cluster_settings(&json!({"cluster.max_shards_per_node": null}));
    run.finish(drover, &Ending { group: &setup.group, topics: &[&main, &other], ledger: &producer.ledger(), restarts: 0..=0 });
    let letters = run.evidence.letters.iter().flatten().count();
    run.claim("I5", letters == 0, || format!("{letters} dead letters of records that nothing is wrong with"));
}

fn mapping_conflict(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    run.servers.elasticsearch.create_strict_index(&topic.name, &json!({"number": {"type": "long"}, "text": {"type": "keyword"}}));
    let setup = Setup::new(run, &[&topic]);
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    for round in 0..5 {
        send(&producer, &mut run.rng, &topic.name, 3, round * 999..round * 999 + 999);
        let value = format!(r#"{{"number":"not a number {round}"}}"#);
        producer.send(Record::new(&topic.name, value.as_bytes()).to(round % 3));
    }
    producer.flush();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 0..=0 });
    let told: Vec<Value> = run.evidence.letters.iter().flatten().map(|letter| letter["error"].clone()).collect();
    let is_right = told.len() == 5 && told.iter().all(|error| error["status"] == 400 && error["type"] == "document_parsing_exception");
    run.claim("I5", is_right, || format!("five letters with the server's reason, and there are {told:?}"));
}

fn deleted_and_rewound(run: &mut Run<'_>) {
    let topic = run.topic("main", 2);
    let proxy = proxied(run);
    let setup = Setup { sink: proxy.url(), ..Setup::new(run, &[&topic]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &topic.name, 2, 0..10_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &topic);
    run.allow_going_back();
    // Answers come late enough for everything that follows to happen before them.
    proxy.set(Mode::Delay(Duration::from_secs(20)));
    send(&producer, &mut run.rng, &topic.name, 2, 10_000..14_000);
    producer.flush();
    let servers = run.servers;
    run.wait("I7", "the server has acted on what is on its way", SOON, || (servers.elasticsearch.count(&topic.name) >= 14_000).then_some(()));
    servers.elasticsearch.delete_index(&topic.name);
    let answer = drover.post(&format!("/api/v1/topics/{}/rewind", topic.name), Some(&json!({"to": "earliest"})));
    run.claim("I10", answer.status == 202, || format!("the rewind: {} {}", answer.status, answer.text()));
    proxy.set(Mode::Pass);
    // The commit of the rewind is not the end: everything is read again.
    let_pass(Duration::from_secs(2));
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 0..=0 });
}

fn letters_full(run: &mut Run<'_>) {
    let (full, other) = (run.topic("full", 1), run.topic("other", 1));
    let setup = Setup { more: "dead_letters: {max_bytes: 1MiB}".to_owned(), ..Setup::new(run, &[&full, &other]) };
    let producer = Producer::new(&run.servers.kafka);
    fill(run, &producer, &full, &other);
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &full);
    if run.is_mutated() {
        // With letters that come late an offset has passed them by now.
        let kafka = &run.servers.kafka;
        run.wait("I7", "something is committed", SOON, || kafka.committed(&setup.group, &full.name).values().any(|offset| *offset > 0).then_some(()));
    } else {
        run.wait_reason(&drover, &full, "dead_letters_full");
        run.wait_committed("I6", &setup.group, &other);
    }
    run.kill(&mut drover);
    drover.replace_config(&Setup { more: "dead_letters: {max_bytes: 64MiB}".to_owned(), ..setup.clone() }.yaml());
    drover.restart();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&full, &other], ledger: &producer.ledger(), restarts: 0..=0 });
    let letters = run.evidence.letters.iter().flatten().count();
    run.claim("I5", letters == 1_000, || format!("{letters} letters of 1000 records that are no JSON"));
}

/// Every second record of one topic is dead, and together they are more than the store takes; the other topic is well.
fn fill(run: &mut Run<'_>, producer: &Producer, full: &Topic, other: &Topic) {
    for number in 0..2_000 {
        let value = if number % 2 == 0 { format!("not JSON {number} {}", "n".repeat(1_000)) } else { format!(r#"{{"number":{number}}}"#) };
        producer.send(Record::new(&full.name, value.as_bytes()));
    }
    send(producer, &mut run.rng, &other.name, 1, 0..2_000);
    producer.flush();
}
