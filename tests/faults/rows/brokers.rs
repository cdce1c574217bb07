//! Faults inside the brokers: damaged logs, coordinators that refuse, access that is taken away, brokers that stay down or come back with less than they had.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::drover::Drover;
use crate::harness::kafka::Damage;
use crate::harness::producer::{Producer, Record};
use crate::run::{Ending, Row, Run, SOON, Setup, Topic, rows, send};

pub(super) const ROWS: &[Row] = &[Row { number: 32, name: "record batches on the broker's disk are damaged", is_quick: true, run: damaged }];

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
