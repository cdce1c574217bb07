//! Faults of Kafka: brokers that die, stop or are cut off, topics that come, go, grow and lose records, members that come and go.

use std::time::{Duration, Instant};

use rand::Rng as _;

use crate::harness::producer::{Producer, Record};
use crate::harness::proxy::{Mode, Proxy};
use crate::run::{CAUGHT_UP, Ending, Load, Row, Run, SOON, Setup, Topic, both, let_pass, rows, send};

use super::process::port_of;

pub(super) const ROWS: &[Row] = &[
    Row { number: 15, name: "the broker is killed and comes back after 20 s", is_quick: false, run: broker_killed },
    Row { number: 17, name: "the broker is stopped by SIGSTOP for 60 s", is_quick: false, run: broker_paused },
    Row { number: 18, name: "connections to Kafka are reset every 2 s, then slow", is_quick: false, run: kafka_cut },
    Row { number: 20, name: "two more instances join and leave", is_quick: false, run: instances_come_and_go },
    Row { number: 21, name: "the sink is silent for longer than max.poll.interval.ms", is_quick: true, run: poll_interval },
    Row { number: 22, name: "the same group.instance.id twice", is_quick: true, run: same_member_twice },
    Row { number: 23, name: "SIGKILL of a static member, started again at once", is_quick: true, run: static_member },
    Row { number: 25, name: "the topic comes 10 s after the start", is_quick: true, run: topic_comes },
    Row { number: 26, name: "a topic is deleted and stays away", is_quick: true, run: topic_goes },
    Row { number: 27, name: "a topic is deleted and created again", is_quick: true, run: topic_recreated },
    Row { number: 28, name: "partitions 2 to 6 while producing", is_quick: true, run: partitions_added },
    Row { number: 29, name: "retention removes records that were not read yet", is_quick: true, run: retention },
    Row { number: 30, name: "the group's committed offsets are deleted", is_quick: true, run: group_deleted },
    Row { number: 33, name: "records of 10 MB, 1 byte, 0 bytes and none", is_quick: true, run: sizes },
];

fn broker_killed(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let setup = Setup::new(run, &[&topic]);
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    run.servers.kafka.kill();
    run.counts.kills += 1;
    run.wait_reason(&drover, &topic, "kafka_unreachable");
    run.endure(&drover, &topic, Duration::from_secs(20));
    run.servers.kafka.start_again();
    let_pass(Duration::from_secs(5));
    run.finish_load(drover, &setup, &topic, load);
}

fn broker_paused(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let setup = Setup::new(run, &[&topic]);
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    run.servers.kafka.pause();
    run.endure(&drover, &topic, Duration::from_secs(60));
    run.servers.kafka.resume();
    let_pass(Duration::from_secs(5));
    run.finish_load(drover, &setup, &topic, load);
}

fn kafka_cut(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let proxy = run.servers.kafka.proxy();
    let setup = Setup { bootstrap: proxy.address(), ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    for _ in 0..10 {
        proxy.set(Mode::Cut);
        let_pass(Duration::from_millis(200));
        proxy.set(Mode::Pass);
        let_pass(Duration::from_millis(1_800));
    }
    run.claim("I7", proxy.reset() > 0, || "the proxy has reset nothing".to_owned());
    let indexed = || drover.topic(&topic.name).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or(0);
    let before = indexed();
    proxy.set(Mode::Delay(Duration::from_millis(200)));
    let_pass(Duration::from_secs(5));
    proxy.set(Mode::Slow(100_000));
    let_pass(Duration::from_secs(10));
    let after = indexed();
    run.claim("I7", after > before, || format!("no progress over a slow connection: {before}, then {after}"));
    proxy.set(Mode::BlackHole);
    let_pass(Duration::from_secs(8));
    proxy.set(Mode::Pass);
    run.finish_load(drover, &setup, &topic, load);
}

fn instances_come_and_go(run: &mut Run<'_>) {
    let topic = run.topic("main", 12);
    let setup = Setup::new(run, &[&topic]);
    let first = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait_indexed(&first, &topic, 1_000);
    for round in 0..3 {
        let mut second = run.start(&setup);
        let mut third = run.start(&setup);
        run.wait("I7", "all three have a part", SOON, || {
            let counts: Vec<usize> =
                [&first, &second, &third].map(|drover| rows(drover, &topic.name).iter().filter(|row| row["state"] == "running").count()).into();
            (counts.iter().sum::<usize>() == 12 && counts.iter().all(|count| *count > 0)).then_some(())
        });
        let_pass(Duration::from_millis(run.rng.random_range(0..2_000)));
        if round == 1 {
            run.kill(&mut second);
        } else {
            let status = second.terminate(Duration::from_secs(27));
            run.claim("I11", status.code() == Some(0), || format!("a member that leaves: {status}"));
        }
        let status = third.terminate(Duration::from_secs(27));
        run.claim("I11", status.code() == Some(0), || format!("a member that leaves: {status}"));
    }
    let ledger = load.end();
    run.finish(first, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

fn poll_interval(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let proxy = Proxy::before(port_of(&run.servers.elasticsearch.url()));
    let properties = ", max.poll.interval.ms: 7000".to_owned();
    let setup = Setup { sink: proxy.url(), properties, ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 1_000);
    proxy.set(Mode::BlackHole);
    run.endure(&drover, &topic, Duration::from_secs(16));
    proxy.set(Mode::Pass);
    let ledger = load.end();
    let revoked = drover.get("/api/v1/events?kind=revoked")["items"].as_array().map_or(0, Vec::len);
    run.claim("I7", revoked == 0, || format!("a silent sink cost the membership: {revoked} revocations"));
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

fn same_member_twice(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let setup = Setup { properties: ", group.instance.id: one".to_owned(), ..Setup::new(run, &[&topic]) };
    let mut first = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait_indexed(&first, &topic, 1_000);
    let second = run.launch(&setup);
    run.wait_indexed(&second, &topic, 1);
    // Each takes the place of the other; neither may die of it or restart without a pause.
    let_pass(Duration::from_secs(8));
    let ended = first.wait_end(Duration::ZERO);
    run.claim("I7", ended.is_none(), || format!("the first has ended: {ended:?}"));
    let lines = first.log().lines().count() + second.log().lines().count();
    run.claim("I8", lines < 2_000, || format!("{lines} lines of log about it"));
    run.kill(&mut first);
    let ledger = load.end();
    run.finish(second, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

fn static_member(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    // A session so long that waiting for its end would be noticed.
    let setup = Setup { session_ms: Some(45_000), properties: ", group.instance.id: one".to_owned(), ..Setup::new(run, &[&topic]) };
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait_indexed(&drover, &topic, 1_000);
    for _ in 0..3 {
        run.kill(&mut drover);
        let killed = Instant::now();
        drover.restart();
        run.wait_indexed(&drover, &topic, 100);
        let took = killed.elapsed();
        run.claim("I7", took < Duration::from_secs(20), || format!("{took:?} until it indexed again"));
    }
    run.finish_load(drover, &setup, &topic, load);
}

fn topic_comes(run: &mut Run<'_>) {
    let present = run.topic("present", 2);
    let name = format!("{}-late", run.label);
    let mut setup = Setup::new(run, &[&present]);
    setup.topics += &format!("  - {{topic: {name}, format: json}}\n");
    let drover = run.start(&setup);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &present.name, 2, 0..2_000);
    producer.flush();
    run.wait_committed("I6", &setup.group, &present);
    run.wait("I10", "the missing topic is said to be missing", SOON, || {
        let status = drover.topic(&name)?["status"].take();
        (status["state"] == "waiting" && status["reason"]["code"] == "topic_missing").then_some(())
    });
    let_pass(Duration::from_secs(8));
    let late = run.topic("late", 3);
    send(&producer, &mut run.rng, &late.name, 3, 0..2_000);
    producer.flush();
    let ending = Ending { group: &setup.group, topics: &[&present, &late], ledger: &producer.ledger(), restarts: 0..=0 };
    run.finish(drover, &ending);
}

fn topic_goes(run: &mut Run<'_>) {
    let (gone, other) = (run.topic("gone", 2), run.topic("other", 2));
    let setup = Setup::new(run, &[&gone, &other]);
    let drover = run.start(&setup);
    run.observe(&setup.group, &other);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &gone.name, 2, 0..2_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &gone);
    let load = Load::start(run, &other);
    run.wait_indexed(&drover, &other, 500);
    run.servers.kafka.delete_topic(&gone.name);
    run.wait("I10", "the deleted topic is said to be missing", SOON, || {
        let status = drover.topic(&gone.name)?["status"].take();
        (status["state"] == "waiting" && status["reason"]["code"] == "topic_missing").then_some(())
    });
    let indexed = |drover: &crate::harness::drover::Drover| drover.topic(&other.name).and_then(|topic| topic["status"]["indexed_total"].as_u64());
    let (before, lines) = (indexed(&drover), drover.log().lines().count());
    let_pass(Duration::from_secs(10));
    let (after, more_lines) = (indexed(&drover), drover.log().lines().count());
    run.claim("I6", after > before, || format!("the other topic: {before:?}, then {after:?}"));
    run.claim("I8", more_lines - lines < 100, || format!("{} lines of log in 10 s", more_lines - lines));
    let ledger = load.end();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&other], ledger: &ledger, restarts: 0..=0 });
}

fn topic_recreated(run: &mut Run<'_>) {
    let old = run.topic("main", 2);
    let mut setup = Setup::new(run, &[&old]);
    // `create` makes the server say of every document whether one is there under its id already.
    setup.topics = format!("  - {{topic: {}, format: json, operation: create}}\n", old.name);
    let drover = run.start(&setup);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &old.name, 2, 0..5_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &old);
    run.servers.kafka.delete_topic(&old.name);
    run.servers.kafka.create_topic(&old.name, 2);
    let new = run.life_of(&old.name, 2);
    run.claim("I2", old.id != new.id, || "the new topic has the old one's id".to_owned());
    // A producer of the old topic would go on at the old one's leader epoch.
    let successor = Producer::new(&run.servers.kafka);
    send(&successor, &mut run.rng, &new.name, 2, 100_000..103_000);
    successor.flush();
    let told = || drover.get(&format!("/api/v1/events?kind=topic_recreated&topic={}", new.name))["items"].as_array().map(Vec::len);
    // Not by the patience of a mutated run: the look-up comes every 15 s.
    let is_told = crate::harness::wait::try_wait_until(SOON, || (told() == Some(1)).then_some(())).is_some();
    run.claim("I10", is_told, || format!("the new topic was told {:?} times", told()));
    // Both ledgers speak of the same partitions and offsets, so each is compared with its own topic's life.
    run.wait_committed("I7", &setup.group, &new);
    let ending = Ending { group: &setup.group, topics: &[&new], ledger: &successor.ledger(), restarts: 0..=0 };
    run.finish_with_former(drover, &ending, &[(&old, &producer.ledger())]);
}

fn partitions_added(run: &mut Run<'_>) {
    let mut topic = run.topic("main", 2);
    let setup = Setup::new(run, &[&topic]);
    let (drover, load) = run.under_load(&setup, &topic, 1_000);
    // One of two members hears of new partitions first, and may give the other some.
    let mut other = run.start(&setup);
    let running = |drover: &crate::harness::drover::Drover| rows(drover, &topic.name).iter().filter(|row| row["state"] == "running").count();
    run.wait("I9", "both have one", SOON, || (running(&drover) == 1 && running(&other) == 1).then_some(()));
    run.servers.kafka.add_partitions(&topic.name, 6);
    // At once: what they get before we know of them must not be passed over.
    let second = Load::start(run, &Topic { partitions: 6, ..topic.clone() });
    run.wait("I9", "six tasks run", SOON, || (running(&drover) + running(&other) == 6).then_some(()));
    let_pass(Duration::from_secs(3));
    for drover in [&drover, &other] {
        let rebuilt = drover.get("/api/v1/events?kind=consumer_rebuilt");
        let is_none = rebuilt["items"].as_array().is_some_and(Vec::is_empty);
        run.claim("I7", is_none, || format!("new partitions cost a consumer: {rebuilt}"));
    }
    let status = other.terminate(Duration::from_secs(27));
    run.claim("I11", status.code() == Some(0), || format!("the other instance: {status}"));
    topic.partitions = 6;
    let ledger = both(load.end(), second.end());
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

fn retention(run: &mut Run<'_>) {
    let mut topic = run.topic("main", 1);
    let setup = Setup::new(run, &[&topic]);
    let mut drover = run.start(&setup);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &topic.name, 1, 0..1_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &topic);
    drover.terminate(Duration::from_secs(27));
    send(&producer, &mut run.rng, &topic.name, 1, 1_000..5_000);
    producer.flush();
    let gap = run.rng.random_range(1_001..3_000);
    run.servers.kafka.delete_records(&topic.name, 0, gap);
    drover.restart();
    run.wait("I10", "the gap is told", SOON, || {
        let task = drover.task(&topic.name, 0)?;
        (task["lost_total"].as_i64() == Some(gap - 1_000) && task["lost"][0]["from"] == 1_000 && task["lost"][0]["to"] == gap).then_some(())
    });
    run.wait_committed("I7", &setup.group, &topic);
    // And while it runs, and its index takes nothing.
    run.servers.elasticsearch.close_index(&topic.name);
    send(&producer, &mut run.rng, &topic.name, 1, 5_000..8_000);
    producer.flush();
    run.wait_reason(&drover, &topic, "index_closed");
    let second = run.rng.random_range(5_001..7_500);
    run.servers.kafka.delete_records(&topic.name, 0, second);
    run.servers.elasticsearch.open_index(&topic.name);
    run.wait("I10", "the second gap is told", CAUGHT_UP, || {
        (drover.task(&topic.name, 0)?["lost_total"].as_i64() == Some(gap - 1_000 + second - 5_000)).then_some(())
    });
    topic.skipped = (1_000..gap).chain(5_000..second).map(|offset| (0, offset)).collect();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 0..=0 });
}

fn group_deleted(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let setup = Setup::new(run, &[&topic]);
    let mut drover = run.start(&setup);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &topic.name, 3, 0..6_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &topic);
    let status = drover.terminate(Duration::from_secs(27));
    run.claim("I11", status.code() == Some(0), || format!("{status}"));
    run.servers.kafka.delete_group(&setup.group);
    send(&producer, &mut run.rng, &topic.name, 3, 6_000..9_000);
    producer.flush();
    drover.restart();
    // Everything is read again and becomes the same documents.
    run.wait_indexed(&drover, &topic, 9_000);
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 0..=0 });
}

fn sizes(run: &mut Run<'_>) {
    let mut topic = run.topic("main", 2);
    let setup = Setup::new(run, &[&topic]);
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    let large = format!(r#"{{"text":"{}"}}"#, "l ".repeat(5 << 20));
    for number in 0..3 {
        send(&producer, &mut run.rng, &topic.name, 2, number * 100..number * 100 + 100);
        producer.send(Record::new(&topic.name, large.as_bytes()).to(0));
        // Neither is a JSON object: dead, cause `format`.
        producer.send(Record::new(&topic.name, b"1").to(1));
        producer.send(Record::new(&topic.name, b"").to(1));
        producer.send(Record::new(&topic.name, b"{}").to(1));
        producer.send(Record { topic: &topic.name, partition: Some(0), key: Some(b"gone"), ..Record::default() });
    }
    producer.flush();
    let ledger = producer.ledger();
    topic.skipped = ledger.acked.iter().filter(|acked| acked.sent.hash.is_none()).map(|acked| (acked.partition, acked.offset)).collect();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
    let letters = run.evidence.letters.iter().flatten().count();
    run.claim("I5", letters == 6, || format!("{letters} letters of six records that are no objects"));
}
