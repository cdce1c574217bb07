//! Faults inside the brokers: damaged logs, coordinators that refuse, access that is taken away, brokers that stay down or come back with less than they had.

use std::time::Duration;

use rand::Rng as _;

use serde_json::{Value, json};

use crate::harness::coordinator::{Refusal, Request};
use crate::harness::drover::Drover;
use crate::harness::kafka::{Damage, try_committed_watch};
use crate::harness::producer::{Ledger, Producer, Record};
use crate::harness::wait::try_wait_until;
use crate::run::{CANARY, CAUGHT_UP, Ending, Load, Row, Run, SOON, Setup, Topic, both, let_pass, rows, send};

pub(super) const ROWS: &[Row] = &[
    Row { number: 16, name: "the broker is away for two minutes, at the start and under load", is_quick: false, run: long_outages },
    Row { number: 19, name: "the coordinator refuses commits and heartbeats, with six errors", is_quick: false, run: refused },
    Row { number: 24, name: "KIP-848, and the coordinator is silent for longer than a session", is_quick: false, run: coordinator_silent },
    Row { number: 31, name: "the password is changed, access to a topic and to the group is taken away", is_quick: false, run: access_lost },
    Row { number: 32, name: "record batches on the broker's disk are damaged", is_quick: true, run: damaged },
    Row { number: 34, name: "logs come back shorter than they were, as after an unclean election, and grow again", is_quick: true, run: cut_off },
    Row { number: 34, name: "logs are cut off and grow past the commits again while nobody looks", is_quick: true, run: cut_off_unseen },
    Row { number: 34, name: "logs are cut off below records that still wait for the sink", is_quick: false, run: cut_off_unsettled },
];

/// How long each outage of row 16 lasts: long enough for every backoff of ours and of librdkafka to have reached its longest pause.
const OUTAGE: Duration = Duration::from_secs(120);

fn long_outages(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let setup = Setup::new(run, &[&topic]);
    run.servers.kafka.stop();
    let drover = run.start(&setup);
    outage(run, &drover, &topic);
    run.servers.kafka.start_again();
    let first = Load::start(run, &topic);
    run.observe(&setup.group, &topic);
    run.wait_indexed(&drover, &topic, 2_000);
    // What it read last is not committed, and what comes meanwhile would only fill the producer.
    let first = first.end();
    run.servers.kafka.kill();
    run.counts.kills += 1;
    outage(run, &drover, &topic);
    run.servers.kafka.start_again();
    let second = Load::start(run, &topic);
    let indexed = drover.topic(&topic.name).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or(0);
    run.wait_indexed(&drover, &topic, indexed + 2_000);
    let ledger = both(first, second.end());
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

/// Says of the topic all the while that Kafka is not there, is alive, and says little in the log.
fn outage(run: &mut Run<'_>, drover: &Drover, topic: &Topic) {
    let is_told = |drover: &Drover| {
        let status = drover.topic(&topic.name).map(|mut topic| topic["status"].take()).unwrap_or_default();
        if status["state"] == "waiting" && status["reason"]["code"] == "kafka_unreachable" { Ok(()) } else { Err(status) }
    };
    run.wait("I10", "the topic waits for Kafka", SOON, || is_told(drover).ok());
    let lines = drover.log().lines().count();
    let mut other = None;
    let told_otherwise = holds(OUTAGE, || is_told(drover).map_err(|status| other = Some(status)).is_ok());
    run.claim("I10", told_otherwise, || format!("during the outage the topic was shown as {other:?}"));
    let lines = drover.log().lines().count() - lines;
    run.claim("I8", lines <= 120, || format!("{lines} lines of log in {OUTAGE:?}"));
    println!("    {lines} lines of log in an outage of {OUTAGE:?}");
    run.endure(drover, topic, Duration::from_secs(1));
}

/// Whether something stays true.
fn holds(span: Duration, mut condition: impl FnMut() -> bool) -> bool {
    try_wait_until(span, || (!condition()).then_some(())).is_none()
}

fn access_lost(run: &mut Run<'_>) {
    let (topic, other) = (run.topic("main", 2), run.topic("other", 2));
    let (user, password, wrong) = (run.label.clone(), format!("{CANARY}-kafka"), "another-password");
    run.servers.kafka.set_password(&user, &password);
    let properties = format!(", security.protocol: SASL_PLAINTEXT, sasl.mechanism: SCRAM-SHA-256, sasl.username: {user}, sasl.password: {password}");
    let setup = Setup { bootstrap: run.servers.kafka.secured(), properties, ..Setup::new(run, &[&topic, &other]) };
    let (drover, load) = run.under_load(&setup, &topic, 1_000);
    let beside = Load::start(run, &other);
    run.wait_indexed(&drover, &other, 1_000);

    run.servers.kafka.set_password(&user, wrong);
    for refused in [&topic, &other] {
        run.wait_reason(&drover, refused, "credentials");
    }
    quiet(run, &drover, &topic, "a wrong password");
    run.servers.kafka.set_password(&user, &password);
    goes_on(run, &drover, &[&topic, &other]);

    for operation in ["Read", "All"] {
        run.servers.kafka.deny(&user, operation, ["--topic", &topic.name]);
        // It is not subscribed to any more, and so it has no tasks.
        run.wait("I10", &format!("the topic is told to be forbidden ({operation})"), SOON, || {
            let status = drover.topic(&topic.name)?["status"].take();
            (status["state"] == "waiting" && status["reason"]["code"] == "topic_forbidden").then_some(())
        });
        goes_on(run, &drover, &[&other]);
        quiet(run, &drover, &topic, &format!("{operation} denied"));
        run.servers.kafka.allow_again(&user, operation, ["--topic", &topic.name]);
        goes_on(run, &drover, &[&topic, &other]);
    }

    run.servers.kafka.deny(&user, "Read", ["--group", &setup.group]);
    run.wait_reason(&drover, &topic, "credentials");
    quiet(run, &drover, &topic, "a forbidden group");
    run.servers.kafka.allow_again(&user, "Read", ["--group", &setup.group]);
    goes_on(run, &drover, &[&topic, &other]);
    let ledger = both(load.end(), beside.end());
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic, &other], ledger: &ledger, restarts: 0..=0 });
}

/// Some seconds without a restart and with little to say.
fn quiet(run: &mut Run<'_>, drover: &Drover, topic: &Topic, what: &str) {
    let lines = drover.log().lines().count();
    run.endure(drover, topic, Duration::from_secs(6));
    let lines = drover.log().lines().count() - lines;
    run.claim("I8", lines <= 40, || format!("{lines} lines of log in 6 s about {what}"));
}

/// Waits until more records of each topic are indexed.
fn goes_on(run: &mut Run<'_>, drover: &Drover, topics: &[&Topic]) {
    for topic in topics {
        let indexed = drover.topic(&topic.name).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or(0);
        run.wait_indexed(drover, topic, indexed + 1_000);
    }
}

fn refused(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let coordinator = run.servers.kafka.coordinator();
    // A heartbeat comes every third of a session.
    let setup = Setup { bootstrap: coordinator.address(), ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    let mut committed = try_committed_watch(&run.servers.kafka.client(), &setup.group, &topic.name, SOON);
    let mut total = move || committed().map(|offsets| offsets.values().sum::<i64>()).unwrap_or(0);
    let refusals =
        [Refusal::Loading, Refusal::NotAvailable, Refusal::NotCoordinator, Refusal::IllegalGeneration, Refusal::UnknownMember, Refusal::Rebalance];
    for refusal in refusals {
        for request in [Request::Commit, Request::Heartbeat] {
            let what = format!("{request:?} refused by {refusal:?}");
            coordinator.refuse(Some((request, refusal)));
            // A member that is told to join again sends no second one before it has.
            run.wait("I7", &what, SOON, || (coordinator.refused(request, refusal) > 0).then_some(()));
            run.endure(&drover, &topic, Duration::from_secs(3));
            coordinator.refuse(None);
            let before = total();
            run.wait("I7", &format!("commits go on after {what}"), SOON, || (total() > before + 1_000).then_some(()));
        }
    }
    let lines = drover.log().lines().count();
    run.claim("I8", lines < 2_000, || format!("{lines} lines of log about twelve times three seconds"));
    run.finish_load(drover, &setup, &topic, load);
}

/// The kinds of damage, one for each of the first partitions; the last partition has none.
const DAMAGES: [Damage; 3] = [Damage::Value, Damage::Records, Damage::Format];

fn damaged(run: &mut Run<'_>) {
    let (mut main, other) = (run.topic("main", 4), run.topic("other", 2));
    let setup = Setup::new(run, &[&main, &other]);
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &main);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &main.name, 4, 0..4_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &main);
    let status = drover.terminate(Duration::from_secs(27));
    run.claim("I11", status.code() == Some(0), || format!("{status}"));
    // Three parts of each partition: one before the damage, one that holds it, one behind it.
    for part in 1..=3 {
        send(&producer, &mut run.rng, &main.name, 4, part * 4_000..(part + 1) * 4_000);
        producer.flush();
    }
    run.servers.kafka.stop();
    let damages: Vec<(i64, i64)> =
        (0..).zip(DAMAGES).map(|(partition, damage)| run.servers.kafka.damage(&main.name, partition, 2_500, damage)).collect();
    run.servers.kafka.start_again();
    // So short that a watchdog which takes this for its affair shows up as a restart.
    drover.replace_config(&Setup { more: "supervision: {stall_after: 10s}".to_owned(), ..setup.clone() }.yaml());
    drover.restart();
    for (partition, (first, _)) in (0..).zip(&damages) {
        run.wait("I10", &format!("partition {partition} is shown stalled at {first}"), SOON, || is_stuck(&drover, &main, partition, *first));
    }
    // Everything else goes on.
    send(&producer, &mut run.rng, &other.name, 2, 0..2_000);
    producer.send(Record::new(&main.name, br#"{"number":-1}"#).to(3));
    producer.flush();
    run.wait_committed("I6", &setup.group, &other);
    run.wait("I6", "the sound partition has no lag", SOON, || (drover.task(&main.name, 3)?["lag"] == 0).then_some(()));
    let lines = drover.log().lines().count();
    run.endure(&drover, &main, Duration::from_secs(15));
    let more_lines = drover.log().lines().count() - lines;
    run.claim("I8", more_lines < 60, || format!("{more_lines} lines of log in 15 s about three damaged batches"));
    for (partition, (first, last)) in (0..).zip(&damages) {
        let is_still = is_stuck(&drover, &main, partition, *first).is_some();
        run.claim("I10", is_still, || format!("not stalled any more: {:?}", drover.task(&main.name, partition)));
        pass_over(run, &drover, &main, partition, (*first, *last));
        main.skipped.extend((*first..=*last).map(|offset| (partition, offset)));
    }
    let changes = drover.get("/api/v1/changes?limit=100");
    let noted =
        changes["items"].as_array().map_or(0, |items| items.iter().filter(|item| item["action"] == "rewind" && item["topic"] == *main.name).count());
    run.claim("I10", noted == DAMAGES.len(), || format!("{noted} of {} rewinds are in the log of changes: {changes}", DAMAGES.len()));
    let skipped = drover.topic(&main.name).map(|topic| topic["status"]["skipped_total"].clone());
    run.claim("I10", skipped == Some(json!(main.skipped.len())), || {
        format!("{skipped:?} records are said to be skipped, and {} are", main.skipped.len())
    });
    run.finish(drover, &Ending { group: &setup.group, topics: &[&main, &other], ledger: &producer.ledger(), restarts: 0..=0 });
    let letters = run.evidence.letters.iter().flatten().count();
    run.claim("I5", letters == 0, || format!("{letters} dead letters of records that were never read"));
}

fn coordinator_silent(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let coordinator = run.servers.kafka.coordinator();
    let properties = ", group.protocol: consumer, socket.timeout.ms: 5000".to_owned();
    // The broker decides how long a session is: 45 s.
    let setup = Setup { bootstrap: coordinator.address(), session_ms: None, properties, ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    let mut committed = try_committed_watch(&run.servers.kafka.client(), &setup.group, &topic.name, SOON);
    coordinator.be_silent(true);
    // What was on its way passes.
    let_pass(Duration::from_secs(2));
    let before = committed().ok();
    run.endure(&drover, &topic, Duration::from_secs(58));
    let after = committed().ok();
    run.claim("I3", before.is_some() && before == after, || format!("commits without a coordinator: {before:?}, then {after:?}"));
    let is_behind = drover.topic(&topic.name).is_some_and(|topic| topic["status"]["lag"].as_u64() > Some(10_000));
    run.claim("I10", is_behind, || format!("nothing is committed for a minute, and the topic is shown as {:?}", drover.topic(&topic.name)));
    run.claim("I7", coordinator.swallowed() > 0, || "the coordinator was asked for nothing".to_owned());
    coordinator.be_silent(false);
    let before: i64 = before.unwrap_or_default().values().sum();
    run.wait("I7", "commits go on", CAUGHT_UP, || (committed().ok()?.values().sum::<i64>() > before + 1_000).then_some(()));
    run.finish_load(drover, &setup, &topic, load);
}

/// A member that stays meets the log when it has grown again.
fn cut_off(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    // Long enough for the member to stay one.
    let setup = Setup { session_ms: Some(120_000), ..Setup::new(run, &[&topic]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = settled(run, &setup, &topic, 0..20);
    let ends = cut_while_stopped(run, &topic, |run| run.wait_reason(&drover, &topic, "kafka_unreachable"));
    let ledger = grown_again(run, &topic, producer.ledger(), ends, GROWN);
    finish_anew(run, drover, &setup, &topic, &ledger);
}

/// The instance is gone when the log is cut off, and back when the log has grown past what was committed.
fn cut_off_unseen(run: &mut Run<'_>) {
    let topic = run.topic("unseen", 3);
    let setup = Setup::new(run, &[&topic]);
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = settled(run, &setup, &topic, 0..20);
    let ends = cut_while_stopped(run, &topic, |run| run.kill(&mut drover));
    let ledger = grown_again(run, &topic, producer.ledger(), ends, GROWN);
    drover.restart();
    finish_anew(run, drover, &setup, &topic, &ledger);
}

/// Half of the records are settled, the others have been taken and the index refuses them, when the log is cut off in the middle of those.
fn cut_off_unsettled(run: &mut Run<'_>) {
    let topic = run.topic("unsettled", 3);
    let setup = Setup { session_ms: Some(120_000), ..Setup::new(run, &[&topic]) };
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let first = settled(run, &setup, &topic, 0..10);
    run.servers.elasticsearch.put_settings(&topic.name, &json!({"index.blocks.write": true}));
    // It finds them all at once, in chunks that are few enough to be taken without waiting for the sink.
    drover.pause();
    let second = produced(run, &topic, 10..20);
    drover.resume();
    run.wait_reason(&drover, &topic, "index_blocked");
    let ends = cut_while_stopped(run, &topic, |run| {
        run.wait("I10", "the outage is noticed", SOON, || drover.log().contains("kafka is in trouble").then_some(()));
    });
    run.wait("I10", "both logs that were cut off are noticed", CAUGHT_UP, || {
        (drover.log().matches("kafka's log was cut off").count() >= 2).then_some(())
    });
    let old = both(first.ledger(), second.ledger());
    // Longer than what was cut off, since nobody can say whether that reached the index first.
    let ledger = grown_again(run, &topic, old, ends, [1_000, 600, 100]);
    run.servers.elasticsearch.put_settings(&topic.name, &json!({"index.blocks.write": null}));
    finish_anew(run, drover, &setup, &topic, &ledger);
}

/// A hundred records for each of three partitions and each part, in batches of their own.
fn produced(run: &mut Run<'_>, topic: &Topic, parts: std::ops::Range<i32>) -> Producer {
    let producer = Producer::new(&run.servers.kafka);
    for part in parts {
        send(&producer, &mut run.rng, &topic.name, 3, part * 300..(part + 1) * 300);
        producer.flush();
    }
    producer
}

fn settled(run: &mut Run<'_>, setup: &Setup, topic: &Topic, parts: std::ops::Range<i32>) -> Producer {
    let producer = produced(run, topic, parts);
    run.wait_committed("I7", &setup.group, topic);
    producer
}

/// With the broker stopped, two of the logs, of 2,000 records each, lose their last hundreds. Answers where they end now.
fn cut_while_stopped(run: &mut Run<'_>, topic: &Topic, while_stopped: impl FnOnce(&mut Run<'_>)) -> [i64; 2] {
    run.allow_going_back();
    run.servers.kafka.stop();
    while_stopped(run);
    let ends = [0, 1].map(|partition| run.servers.kafka.cut_off(&topic.name, partition, run.rng.random_range(1_500..1_900)));
    run.servers.kafka.start_again();
    ends
}

/// How many records each partition gets anew: one more than it had, one fewer; the last has lost nothing.
const GROWN: [i64; 3] = [1_000, 50, 100];

/// The ledger of what must be there.
fn grown_again(run: &mut Run<'_>, topic: &Topic, mut ledger: Ledger, ends: [i64; 2], anew: [i64; 3]) -> Ledger {
    let successor = Producer::new(&run.servers.kafka);
    for (partition, records) in (0..).zip(anew) {
        for number in 0..records {
            let value = format!(r#"{{"number":{number},"text":"after the election"}}"#);
            successor.send(Record::new(&topic.name, value.as_bytes()).to(partition));
        }
    }
    successor.flush();
    // What has another record in its place is gone; what has none stays as it was indexed.
    for (partition, (end, records)) in (0..).zip(ends.into_iter().zip(anew)) {
        ledger.acked.retain(|acked| acked.partition != partition || !(end..end + records).contains(&acked.offset));
    }
    both(ledger, successor.ledger())
}

fn finish_anew(run: &mut Run<'_>, drover: Drover, setup: &Setup, topic: &Topic, ledger: &Ledger) {
    run.wait_committed("I7", &setup.group, topic);
    let told = drover.log().matches("kafka's log was cut off").count();
    run.claim("I10", told >= 2, || format!("two logs were cut off, and {told} lines of log say so"));
    run.finish(drover, &Ending { group: &setup.group, topics: &[topic], ledger, restarts: 0..=0 });
}

/// Whether the task says that it stands before this offset, and why.
fn is_stuck(drover: &Drover, topic: &Topic, partition: i32, offset: i64) -> Option<()> {
    let task = drover.task(&topic.name, partition)?;
    let is_told = task["reason"]["message"].as_str().is_some_and(|message| message.contains(&offset.to_string()));
    let helps = task["reason"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("rewind"));
    (task["state"] == "stalled" && task["health"] == "down" && task["committed"] == offset && is_told && helps).then_some(())
}

/// What an operator does: a rewind that goes forward, behind the damaged batch.
fn pass_over(run: &mut Run<'_>, drover: &Drover, topic: &Topic, partition: i32, (first, last): (i64, i64)) {
    let path = format!("/api/v1/tasks/{}/{partition}/rewind", topic.name);
    let answer = drover.post(&path, Some(&json!({"to": {"offset": last + 1}})));
    let row: Value = answer.json()["items"][0].take();
    let is_done =
        answer.status == 202 && row["from"] == first && row["to"] == last + 1 && row["records"] == first - last - 1 && row["error"].is_null();
    run.claim("I10", is_done, || format!("the rewind over {first} to {last}: {} {}", answer.status, answer.text()));
    run.wait("I7", &format!("partition {partition} runs again"), SOON, || {
        rows(drover, &topic.name).iter().any(|row| row["partition"] == partition && row["state"] == "running" && row["lag"] == 0).then_some(())
    });
}
