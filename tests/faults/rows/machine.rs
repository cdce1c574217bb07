//! Faults of the machine: no descriptors left, a clock that jumps, too little memory.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::harness::drover::Drover;
use crate::harness::process::{MemoryGroup, RunFolder, User};
use crate::harness::producer::{Producer, Record};
use crate::harness::proxy::{Mode, Proxy};
use crate::run::{Ending, Row, Run, SOON, Setup, Topic, let_pass, rows};

use super::process::port_of;

pub(super) const ROWS: &[Row] = &[
    Row { number: 12, name: "a control group with 320 MiB, large records and a sink that is slow, then silent", is_quick: false, run: little_memory },
    Row { number: 13, name: "no descriptor is left for the API and the sink", is_quick: true, run: no_descriptors },
    Row { number: 14, name: "the clock jumps by an hour, there and back", is_quick: false, run: clock_jumps },
];

/// What the kernel lets the process have, the cache of its files included: its own limit of 64 MiB and what else a process of this build takes beside large records (200 MiB were seen).
const GROUP_BYTES: u64 = 320 << 20;
/// Records of 512 KiB, together far more than the group has: read without holding back they would kill it.
const LARGE_RECORDS: usize = 800;

fn little_memory(run: &mut Run<'_>) {
    let group = match MemoryGroup::new(GROUP_BYTES) {
        Ok(group) => group,
        Err(reason) => {
            run.not_run = Some(format!("this machine has no control group of version 1 for memory that may be written: {reason}"));
            return;
        }
    };
    let topic = run.topic("main", 4);
    let proxy = Proxy::before(port_of(&run.servers.elasticsearch.url()));
    let setup = Setup {
        sink: proxy.url(),
        sink_options: ", bulk: {max_bytes: 4MiB, timeout: 20s}".to_owned(),
        more: "limits: {memory: 64MiB}".to_owned(),
        ..Setup::new(run, &[&topic])
    };
    let mut drover = run.start(&setup);
    group.add(drover.id());
    run.observe(&setup.group, &topic);
    proxy.set(Mode::BlackHole);
    let producer = Producer::new(&run.servers.kafka);
    for number in (0_i32..).take(LARGE_RECORDS) {
        let value = format!(r#"{{"number":{number},"text":"{}"}}"#, "m".repeat(512 << 10));
        producer.send(Record::new(&topic.name, value.as_bytes()).to(number % 4));
    }
    producer.flush();
    run.endure(&drover, &topic, Duration::from_secs(15));
    proxy.set(Mode::Delay(Duration::from_millis(500)));
    run.wait_committed("I7", &setup.group, &topic);
    let ended = drover.wait_end(Duration::ZERO);
    println!("    {} MiB in the group at most; ended: {ended:?}", group.peak_bytes() >> 20);
    run.claim("I8", ended.is_none(), || format!("it has ended: {ended:?}"));
    if ended.is_some() {
        return;
    }
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 0..=0 });
}

/// How long descriptors are missing.
const WITHOUT: Duration = Duration::from_secs(20);
/// The share of one processor that the process may use meanwhile: it reads a few records until its memory is full, and then waits. A loop around a failing call takes a whole one.
const MOST_BUSY: f64 = 0.5;
/// Lines that it may log meanwhile.
const MOST_LINES: usize = 20;

fn no_descriptors(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let proxy = Proxy::before(port_of(&run.servers.elasticsearch.url()));
    let setup = Setup { sink: proxy.url(), ..Setup::new(run, &[&topic]) };
    let (mut drover, load) = run.under_load(&setup, &topic, 2_000);
    drover.limit_open_files(drover.open_files() + 4);
    // More than there is room for; those that are not accepted wait in the system's backlog, which holds 128.
    let clients: Vec<TcpStream> = (0..100).filter_map(|_| TcpStream::connect(("127.0.0.1", port_of(&drover.url()))).ok()).collect();
    run.wait("I8", "nothing more can be opened", SOON, || drover.log().contains("Too many open files").then_some(()));
    // The sink's connections end, and it cannot make new ones. Kafka's stay.
    proxy.set(Mode::Cut);
    let_pass(Duration::from_secs(1));
    proxy.set(Mode::Pass);
    let (lines, busy) = (drover.log().lines().count(), drover.cpu_seconds());
    let_pass(WITHOUT);
    let (lines, busy) = (drover.log().lines().count() - lines, (drover.cpu_seconds() - busy) / WITHOUT.as_secs_f64());
    println!("    without descriptors: {lines} lines, {busy:.2} of a processor");
    run.claim("I8", busy <= MOST_BUSY, || format!("{busy:.2} of a processor while nothing can be opened"));
    run.claim("I8", lines <= MOST_LINES, || format!("{lines} lines of log in {WITHOUT:?}"));
    let ended = drover.wait_end(Duration::ZERO);
    run.claim("I10", ended.is_none(), || format!("it has ended: {ended:?}"));
    // The limit stays: what was taken is given back, and that must do.
    drop(clients);
    run.wait("I10", "the API answers again", SOON, || {
        drover.try_request("GET", "/livez", None).is_ok_and(|answer| answer.status == 200).then_some(())
    });
    let indexed = drover.topic(&topic.name).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or(0);
    run.wait_indexed(&drover, &topic, indexed + 5_000);
    drover.limit_open_files(1_024);
    run.finish_load(drover, &setup, &topic, load);
}

/// Builds what makes the clock jump, see `clock.c`.
fn clock_library(folder: &RunFolder) -> PathBuf {
    let library = folder.path().join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");
    let built = Command::new("gcc").args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(source).output();
    let built = built.unwrap_or_else(|error| panic!("gcc: {error}; run: bash .ci/prerequisites.sh"));
    assert!(built.status.success(), "{source}: {}", String::from_utf8_lossy(&built.stderr));
    library
}

/// How far the clock of the process is ahead, by the time that it gives its last commit. (The `date` of its answers would not do: hyper keeps one until the clock has passed it.)
fn ahead(drover: &Drover, topic: &Topic) -> Option<SignedDuration> {
    let committed_at: Timestamp = drover.task(&topic.name, 0)?["committed_at"].as_str()?.parse().ok()?;
    Some(committed_at.duration_since(Timestamp::now()))
}

fn clock_jumps(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let folder = RunFolder::new("clock", User::Same);
    let clock = folder.write("clock", "0");
    let environment = vec![("LD_PRELOAD", clock_library(&folder).display().to_string()), ("DROVER_TEST_CLOCK", clock.display().to_string())];
    let setup = Setup { environment, ..Setup::new(run, &[&topic]) };
    let (drover, load) = run.under_load(&setup, &topic, 2_000);
    for hours in [1, 0, -1, 0] {
        let jump = format!("{hours} h");
        folder.write("clock", &(hours * 3_600).to_string());
        run.wait("I10", &format!("the process's clock is ahead by {jump}"), SOON, || {
            let off = ahead(&drover, &topic)? - SignedDuration::from_hours(hours);
            (off.abs() < SignedDuration::from_mins(1)).then_some(())
        });
        let indexed = drover.topic(&topic.name).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or(0);
        run.endure(&drover, &topic, Duration::from_secs(8));
        run.wait_indexed(&drover, &topic, indexed + 4_000);
        sane(run, &drover, &topic, &jump);
    }
    run.finish_load(drover, &setup, &topic, load);
}

/// No task is taken for stalled or late, and no time is negative.
fn sane(run: &mut Run<'_>, drover: &Drover, topic: &Topic, jump: &str) {
    let tasks = rows(drover, &topic.name);
    let is_well = |row: &serde_json::Value| row["state"] == "running" && row["lag_seconds"].as_f64().is_none_or(|seconds| seconds >= 0.0);
    run.claim("I10", tasks.len() == 3 && tasks.iter().all(is_well), || format!("after {jump}: {tasks:?}"));
    let metrics = drover.get_text("/metrics");
    let negative = metrics.lines().find(|line| !line.starts_with('#') && line.rsplit(' ').next().is_some_and(|value| value.starts_with('-')));
    run.claim("I10", negative.is_none(), || format!("after {jump}: {negative:?}"));
}
