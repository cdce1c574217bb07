//! Faults of a cluster's nodes and of what a cluster refuses: one node dead, no master, pressure, bodies that it will not have.
//!
//! The nodes are gates before the one real Elasticsearch, which keeps the documents ([`crate::harness::gate`]); what they refuse is in the words of Elasticsearch 8.19.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use serde_json::{Value, json};

use crate::harness::drover::Drover;
use crate::harness::elasticsearch::{Elasticsearch, Product};
use crate::harness::gate::{Answer, Gate};
use crate::harness::producer::{Producer, Record, hash};
use crate::harness::proxy::{Mode, Proxy};
use crate::run::{CANARY, Ending, Row, Run, SOON, Setup, Topic, rows, send};

use super::process::port_of;

pub(super) const ROWS: &[Row] = &[
    Row { number: 38, name: "one of three nodes is killed, comes back, then falls silent", is_quick: true, run: one_node_dead },
    Row { number: 39, name: "429 for a minute, for whole requests and for items", is_quick: false, run: storm_of_429 },
    Row { number: 44, name: "field explosion, with the mapping's limit reached", is_quick: true, run: field_explosion },
    Row { number: 45, name: "a server that takes 256 KB: batches and one document are too large", is_quick: false, run: too_large },
    Row { number: 46, name: "one item makes the server refuse the whole request with 400", is_quick: true, run: refused_by_one_item },
    Row { number: 48, name: "the password is rotated, then the right to write is taken away", is_quick: false, run: credentials },
    Row { number: 49, name: "two of three nodes are killed and the third has no master", is_quick: true, run: no_master },
];

fn three_gates(run: &Run<'_>) -> [Gate; 3] {
    [(); 3].map(|()| Gate::before(&run.servers.elasticsearch.url()))
}

/// How long a gate of row 38 takes for a request: so long that the nodes, not this machine, say how fast it goes.
const SERVED_IN: Duration = Duration::from_millis(150);
/// What is measured with, some 6 MB of bodies.
const MEASURED_WITH: i32 = 20_000;
/// What must be left of the rate with two of three nodes.
const LEAST_SHARE: f64 = 0.6;

fn one_node_dead(run: &mut Run<'_>) {
    let topic = run.topic("main", 6);
    let gates = three_gates(run);
    gates.iter().for_each(|gate| gate.pass_after(SERVED_IN));
    let proxy = Proxy::before(port_of(&gates[2].url()));
    let setup = Setup {
        sink: [gates[0].url(), gates[1].url(), proxy.url()].join("\", \""),
        sink_options: ", bulk: {max_bytes: 64KiB, in_flight: 3, timeout: 5s}".to_owned(),
        ..Setup::new(run, &[&topic])
    };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    let mut sent = 0;
    let mut measure = |run: &mut Run<'_>, drover: &Drover, records: i32| {
        let began = Instant::now();
        send(&producer, &mut run.rng, &topic.name, 6, sent..sent + records);
        producer.flush();
        run.wait_committed("I7", &setup.group, &topic);
        sent += records;
        let rate = f64::from(records) / began.elapsed().as_secs_f64();
        let waiting = rows(drover, &topic.name).into_iter().find(|row| row["state"] != "running");
        run.claim("I10", waiting.is_none(), || format!("a task does not run beside two nodes that are well: {waiting:?}"));
        rate
    };
    // The first round makes the index and warms everything up.
    measure(run, &drover, MEASURED_WITH);
    let with_all = measure(run, &drover, MEASURED_WITH);
    gates[0].kill();
    run.counts.kills += 1;
    let without_dead = measure(run, &drover, MEASURED_WITH);
    gates[0].start_again();
    gates[0].pass_after(SERVED_IN);
    let with_all_again = measure(run, &drover, MEASURED_WITH);
    let back = gates[0].requests();
    run.claim("I7", back > 0, || "a node that came back got no request".to_owned());
    proxy.set(Mode::BlackHole);
    // The request that it holds is waited for until its timeout, which is the length of a whole round of the others.
    let without_silent = measure(run, &drover, 3 * MEASURED_WITH);
    proxy.set(Mode::Pass);
    println!(
        "    records a second: {with_all:.0} with all, {without_dead:.0} without a dead one, {with_all_again:.0}, {without_silent:.0} without a silent one"
    );
    for (what, rate) in [("dead", without_dead), ("silent", without_silent)] {
        run.claim("I7", rate >= with_all * LEAST_SHARE, || format!("{with_all:.0} records a second, and {rate:.0} with one of three nodes {what}"));
    }
    // Each time a node goes, what is on its way is sent again; later it is asked for something small first.
    let retried: u64 = rows(&drover, &topic.name).iter().filter_map(|row| row["retried_total"].as_u64()).sum();
    let retried_most = u64::from(MEASURED_WITH.unsigned_abs()) / 4;
    run.claim("I7", (1..=retried_most).contains(&retried), || format!("{retried} records were sent again"));
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 0..=0 });
    no_letter(run);
}

fn no_letter(run: &mut Run<'_>) {
    let letters = run.evidence.letters.iter().flatten().count();
    run.claim("I5", letters == 0, || format!("{letters} dead letters of records that nothing is wrong with"));
}

/// Half of the storm.
const STORM: Duration = Duration::from_secs(30);
/// Requests in a whole storm: two batches that wait up to 10 s between tries, and what the beginning needs to get there.
const MOST_REQUESTS_IN_STORM: usize = 120;

fn storm_of_429(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let gate = Gate::before(&run.servers.elasticsearch.url());
    // Shorter than the storm: who does not poll loses the partitions.
    let properties = ", max.poll.interval.ms: 10000".to_owned();
    let setup = Setup { sink: gate.url(), properties, ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    let assigned = assignments(&drover);
    let reason = "rejected execution of TimedRunnable on EsThreadPoolExecutor[name = node-1/write, queue capacity = 10000]";
    let before = gate.requests();
    gate.answer(move |_| Some(Answer::error(429, "es_rejected_execution_exception", reason)));
    run.wait_reason(&drover, &topic, "sink_rejecting");
    run.endure(&drover, &topic, STORM);
    gate.answer(move |_| Some(Answer::item_error("", 429, "es_rejected_execution_exception", reason)));
    run.wait_reason(&drover, &topic, "sink_rejecting");
    run.endure(&drover, &topic, STORM);
    let asked = gate.requests() - before;
    gate.pass();
    println!("    {asked} requests in the storm");
    run.claim("I7", asked <= MOST_REQUESTS_IN_STORM, || format!("{asked} requests in a minute of nothing but 429"));
    let afterwards = assignments(&drover);
    run.claim("I7", assigned.is_some() && assigned == afterwards, || {
        format!("the storm cost the membership: {assigned:?} assignments, then {afterwards:?}")
    });
    run.finish_load(drover, &setup, &topic, load);
    no_letter(run);
}

fn assignments(drover: &Drover) -> Option<usize> {
    drover.get("/api/v1/events?kind=assigned&limit=1000")["items"].as_array().map(Vec::len)
}

/// What the server will not have.
const CULPRIT: &str = "no-request-with-this";

fn refused_by_one_item(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let gate = Gate::before(&run.servers.elasticsearch.url());
    let setup = Setup { sink: gate.url(), ..Setup::new(run, &[&topic]) };
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    gate.answer(move |request| {
        request.contains(CULPRIT).then(|| {
            counted.fetch_add(1, Ordering::Relaxed);
            Answer::error(400, "x_content_parse_exception", "[1:1] unexpected end of input")
        })
    });
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    for round in 0..3 {
        let before = run.rng.random_range(1..2_999);
        send(&producer, &mut run.rng, &topic.name, 3, round * 3_000..round * 3_000 + before);
        let value = format!(r#"{{"number":{round},"text":"{CULPRIT}"}}"#);
        producer.send(Record::new(&topic.name, value.as_bytes()).to(round));
        send(&producer, &mut run.rng, &topic.name, 3, round * 3_000 + before..round * 3_000 + 3_000);
        producer.flush();
        run.wait_committed("I7", &setup.group, &topic);
    }
    let ledger = producer.ledger();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
    let is_culprit = |value: &[u8]| String::from_utf8_lossy(value).contains(CULPRIT);
    let culprits = ledger.acked.iter().filter(|acked| acked.sent.value.as_deref().is_some_and(is_culprit));
    let expected: BTreeSet<String> = culprits.map(|acked| id(&topic, acked.partition, acked.offset)).collect();
    let letters: Vec<Value> = run.evidence.letters.iter().flatten().cloned().collect();
    let dead: BTreeSet<String> = letters.iter().filter_map(|letter| letter["id"].as_str().map(str::to_owned)).collect();
    run.claim("I5", letters.len() == 3 && dead == expected, || format!("the three culprits are {expected:?}, dead are {dead:?}"));
    let is_told = |letter: &Value| letter["error"]["status"] == 400 && letter["error"]["type"] == "x_content_parse_exception";
    run.claim("I5", letters.iter().all(is_told), || format!("the letters do not say what the server said: {letters:?}"));
    // Halving 3,000 records takes twelve steps; the other half of each step passes.
    let refused = refused.load(Ordering::Relaxed);
    run.claim("I7", (3..=3 * 14).contains(&refused), || format!("{refused} requests were refused to find three culprits"));
}

fn id(topic: &Topic, partition: i32, offset: i64) -> String {
    format!("{}:{partition}:{offset}", topic.id)
}

fn no_master(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let gates = three_gates(run);
    let sink = gates.each_ref().map(Gate::url).join("\", \"");
    let setup = Setup { sink, ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    for gate in &gates[..2] {
        gate.kill();
        run.counts.kills += 1;
    }
    let block = || Answer::error(503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no master];");
    // The server waits for a master before it says this: a minute by default.
    gates[2].answer(move |_| Some(Answer::After(Duration::from_secs(2), Box::new(block()))));
    run.wait_reason(&drover, &topic, "sink_rejecting");
    run.endure(&drover, &topic, Duration::from_secs(10));
    gates[2].answer(|_| Some(Answer::item_error("", 503, "master_not_discovered_exception", "no master")));
    run.wait_reason(&drover, &topic, "sink_rejecting");
    run.endure(&drover, &topic, Duration::from_secs(5));
    gates[2].answer(|_| Some(Answer::item_error("", 503, "unavailable_shards_exception", "primary shard is not active Timeout: [1m]")));
    run.endure(&drover, &topic, Duration::from_secs(5));
    let asked = gates[2].requests();
    gates.iter().take(2).for_each(Gate::start_again);
    gates[2].pass();
    run.claim("I7", asked <= 200, || format!("{asked} requests at the node without a master"));
    run.wait("I7", "all three nodes are asked again", SOON, || {
        (gates[0].requests() > 0 && gates[1].requests() > 0 && gates[2].requests() > asked).then_some(())
    });
    run.finish_load(drover, &setup, &topic, load);
    no_letter(run);
}

/// Fields that the indices of row 44 may have, of which two are there from the beginning.
const FIELDS: usize = 20;
/// Records of row 44 with a field that no other has.
const EXPLODING: usize = 60;

fn field_explosion(run: &mut Run<'_>) {
    let (main, stopping) = (run.topic("main", 3), run.topic("stopping", 1));
    for topic in [&main, &stopping] {
        let properties = json!({"number": {"type": "long"}, "text": {"type": "keyword"}});
        let limit = json!({"index.mapping.total_fields.limit": FIELDS});
        run.servers.elasticsearch.create_index(&topic.name, &json!({"settings": limit, "mappings": {"properties": properties}}));
    }
    let topics = format!("  - {{topic: {}, format: json}}\n  - {{topic: {}, format: json, on_reject: stop}}\n", main.name, stopping.name);
    let setup = Setup { topics, ..Setup::new(run, &[&main, &stopping]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &main);
    let producer = Producer::new(&run.servers.kafka);
    for topic in [&main, &stopping] {
        for number in (0_i32..).take(EXPLODING) {
            send(&producer, &mut run.rng, &topic.name, topic.partitions, number * 50..number * 50 + 50);
            let value = format!(r#"{{"number":{number},"field_{}":{number}}}"#, run.rng.random::<u64>());
            producer.send(Record::new(&topic.name, value.as_bytes()).to(number % topic.partitions));
        }
    }
    producer.flush();
    // The policy of the one topic lets it go on; that of the other stops it, loses nothing and says why.
    run.wait_committed("I6", &setup.group, &main);
    let stopped = run.wait("I10", "the topic that stops at a refusal has stopped", SOON, || {
        let row = drover.task(&stopping.name, 0)?;
        (row["state"] == "failed").then_some(row)
    });
    let is_told = |row: &Value| row["reason"]["code"] == "rejected" && row["reason"]["message"].to_string().contains("Limit of total fields");
    run.claim("I10", stopped.as_ref().is_some_and(is_told), || format!("why it has stopped: {stopped:?}"));
    run.servers.elasticsearch.put_settings(&stopping.name, &json!({"index.mapping.total_fields.limit": 1_000}));
    let answer = drover.post(&format!("/api/v1/tasks/{}/0/restart", stopping.name), None);
    run.claim("I10", answer.status == 202, || format!("the restart after the limit was raised: {} {}", answer.status, answer.text()));
    run.finish(drover, &Ending { group: &setup.group, topics: &[&main, &stopping], ledger: &producer.ledger(), restarts: 0..=1 });
    let letters: Vec<Value> = run.evidence.letters.iter().flatten().cloned().collect();
    let is_of_main = |letter: &Value| {
        let reason = letter["error"]["reason"].as_str().unwrap_or_default();
        letter["topic"] == main.name.as_str() && letter["error"]["status"] == 400 && reason.contains("Limit of total fields")
    };
    let expected = EXPLODING - (FIELDS - 2);
    run.claim("I5", letters.len() == expected && letters.iter().all(is_of_main), || {
        format!("{expected} letters for the limit, and there are {letters:?}")
    });
}

/// What the server of row 45 takes.
const TAKEN_BYTES: usize = 256 << 10;

fn too_large(run: &mut Run<'_>) {
    run.use_sink(Elasticsearch::start_with(Product::Elasticsearch8, "http.max_content_length: 256kb"));
    let topic = run.topic("main", 3);
    let setup = Setup::new(run, &[&topic]);
    let producer = Producer::new(&run.servers.kafka);
    // Read in one go, so that there are bodies that the server does not take.
    send(&producer, &mut run.rng, &topic.name, 3, 0..15_000);
    let large = |bytes: usize| format!(r#"{{"text":"{}"}}"#, "l".repeat(bytes)).into_bytes();
    // The one fits a body of its own, the other does not.
    producer.send(Record::new(&topic.name, &large(TAKEN_BYTES - 2_000)).to(1));
    producer.send(Record::new(&topic.name, &large(TAKEN_BYTES)).to(1));
    send(&producer, &mut run.rng, &topic.name, 3, 15_000..30_000);
    producer.flush();
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    run.wait_committed("I7", &setup.group, &topic);
    let outcomes =
        |drover: &Drover| ["rejected", "ok"].map(|outcome| metric(drover, &format!("drover_bulk_requests_total{{outcome=\"{outcome}\"}}")));
    let [halved, _] = outcomes(&drover);
    run.claim("I7", halved >= 2, || format!("{halved} requests were refused as too large"));
    // Having learned what the server takes, it tries more now and then: one of 17.
    send(&producer, &mut run.rng, &topic.name, 3, 30_000..45_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &topic);
    let [refused, taken] = outcomes(&drover);
    println!("    refused as too large: {halved} requests at first, {} of {taken} in the end", refused);
    run.claim("I7", refused - halved <= 6, || {
        format!("{} more requests were refused by a server whose limit is known, {taken} taken", refused - halved)
    });
    let ledger = producer.ledger();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
    let culprit = ledger.acked.iter().find(|acked| acked.sent.value.is_none() && acked.sent.hash == Some(hash(&large(TAKEN_BYTES))));
    let expected: Vec<String> = culprit.map(|acked| id(&topic, acked.partition, acked.offset)).into_iter().collect();
    let letters: Vec<Value> = run.evidence.letters.iter().flatten().cloned().collect();
    let is_told =
        |letter: &Value| expected.iter().any(|id| letter["id"] == id.as_str()) && letter["cause"] == "too_large" && letter["error"]["status"] == 413;
    run.claim("I5", letters.len() == 1 && letters.iter().all(is_told), || format!("the one that is too large is {expected:?}, dead are {letters:?}"));
}

/// The value of one sample; 0 when it is not there.
fn metric(drover: &Drover, sample: &str) -> u64 {
    let text = drover.get_text("/metrics");
    text.lines().find_map(|line| line.strip_prefix(sample)).and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn credentials(run: &mut Run<'_>) {
    let sink = run.use_sink(Elasticsearch::start_secured(CANARY));
    let topic = run.topic("main", 3);
    let setup = Setup::new(run, &[&topic]);
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    for (password, may_write) in [("another one", true), (CANARY, false)] {
        sink.account(password, may_write);
        run.wait_reason(&drover, &topic, "credentials");
        run.endure(&drover, &topic, Duration::from_secs(8));
        sink.account(CANARY, true);
        let indexed = drover.topic(&topic.name).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or(0);
        run.wait_indexed(&drover, &topic, indexed + 5_000);
    }
    run.finish_load(drover, &setup, &topic, load);
    no_letter(run);
}
