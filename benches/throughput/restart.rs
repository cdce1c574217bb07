//! The table of restarts: how long a partition is silent when its task or its instance ends.
//!
//! A release build has no failpoints, so a task is ended through the API. What follows is a crash's way: join the old task, reposition to the watermark, read on; only the backoff, which a crash adds on
//! purpose, is not there.

use std::time::{Duration, Instant};

use crate::contenders;
use crate::data::{self, PARTITIONS};
use crate::endpoint::{Content, Endpoint};
use crate::harness::drover::Drover;
use crate::harness::kafka::Kafka;
use crate::harness::wait::wait_until;
use crate::machine::Busy;
use crate::options::Options;
use crate::plot::{Bar, Panel};
use crate::probes::{Journey, Probes};
use crate::report::{self, Section, Spread, Table};

/// 100 a second in each partition: a silence is known to 10 ms, and to the linger of 10 ms.
const PER_SECOND: u32 = 1200;
/// What is looked at after a restart of a task.
const WINDOW: Duration = Duration::from_secs(2);
/// Kafka notices a dead member after this; librdkafka's default is 45 s.
const SESSION_TIMEOUT_MS: u32 = 6000;
const SOON: Duration = Duration::from_secs(120);

/// Runs the table.
pub fn run(options: &Options, kafka: &Kafka, endpoint: &Endpoint) {
    let (restarts, foreign) = task_restarts(kafka, endpoint, options.pick(10, 3));
    let times = options.pick(3, 1);
    let terminated: Vec<Takeover> = (0..times).map(|time| takeover(kafka, endpoint, Ending::Terminated, time)).collect();
    let killed: Vec<Takeover> = (0..times).map(|time| takeover(kafka, endpoint, Ending::Killed, time)).collect();
    let rows = [
        ("no restart: the longest silence of a partition", spread(restarts.iter().map(|restart| restart.before))),
        ("restart of one task: its own silence", spread(restarts.iter().map(|restart| restart.own))),
        ("restart of one task: the longest silence of another", spread(restarts.iter().map(|restart| restart.others))),
        ("start of the process to its first record", spread(terminated.iter().chain(&killed).map(|takeover| takeover.start))),
        ("SIGTERM: the longest silence of its partitions", spread(terminated.iter().map(|takeover| takeover.taken_over))),
        ("SIGTERM: the longest silence of the other's partitions", spread(terminated.iter().map(|takeover| takeover.kept))),
        ("SIGKILL: the longest silence of its partitions", spread(killed.iter().map(|takeover| takeover.taken_over))),
        ("SIGKILL: the longest silence of the other's partitions", spread(killed.iter().map(|takeover| takeover.kept))),
    ];
    let mut table = Table::new(&["what", "seconds"]);
    let mut panel = Panel { title: "Seconds (less is better)".to_owned(), decimals: 2, bars: Vec::new() };
    for (what, value) in rows {
        table.row(vec![what.to_owned(), value.text(3)]);
        panel.bars.push(Bar { label: what.to_owned(), value, is_ours: true });
    }
    let notes = format!(
        "{PER_SECOND} records a second over {PARTITIONS} partitions, `linger: 10ms`; medians, in brackets lowest and highest of {} restarts of a task and {times} ends of an instance each. A silence is the time \
         between two acknowledged records of a partition. After SIGTERM the member leaves its group, and the others learn of it at their next heartbeat, every 3 s. After SIGKILL Kafka itself waits for `session.timeout.ms`, here {SESSION_TIMEOUT_MS}, before anybody may take over; librdkafka's default is 45000. How quiet the machine was is of the restarts of tasks.",
        restarts.len()
    );
    report::publish(&Section { name: "restart", table, notes, panels: vec![panel], foreign }, options);
}

fn spread(values: impl Iterator<Item = Duration>) -> Spread {
    Spread::of(values.map(|value| value.as_secs_f64()))
}

fn config(kafka: &Kafka, endpoint: &Endpoint, topic: &str) -> String {
    format!(
        "kafka: {{brokers: [\"{}\"], group_id: {topic}, properties: {{session.timeout.ms: {SESSION_TIMEOUT_MS}}}}}\nelasticsearch: {{urls: [\"http://{}\"], bulk: {{linger: 10ms}}}}\ntopics:\n  - {{topic: {topic}, format: json}}\n",
        kafka.bootstrap(),
        endpoint.address()
    )
}

fn launch(config: &str) -> Drover {
    Drover::launch_binary(&contenders::binary(), config, &[("DROVER_LOG", "warn")])
}

struct TaskRestart {
    before: Duration,
    own: Duration,
    others: Duration,
}

fn task_restarts(kafka: &Kafka, endpoint: &Endpoint, count: usize) -> (Vec<TaskRestart>, f64) {
    let topic = "restarts";
    kafka.create_topic(topic, PARTITIONS);
    endpoint.reset(Content::Whole);
    let mut drover = launch(&config(kafka, endpoint, topic));
    drover.wait_ready();
    let probes = Probes::start(kafka, topic, PER_SECOND);
    probes.wait_flowing(endpoint);
    let busy = Busy::begin(kafka, &drover);
    let mut moments: Vec<(i32, Instant)> = Vec::new();
    for number in 0..count {
        let partition = data::partition_of(number as u64);
        // The window before, in which nothing is done.
        std::thread::sleep(WINDOW);
        let (life, at) = (incarnation(&drover, topic, partition), Instant::now());
        drover.post(&format!("/api/v1/tasks/{topic}/{partition}/restart"), None).ok();
        moments.push((partition, at));
        std::thread::sleep(WINDOW);
        assert!(incarnation(&drover, topic, partition) > life, "{topic}/{partition} has not been restarted");
    }
    let foreign = busy.foreign(kafka, &drover);
    let journey = probes.finish(endpoint);
    (moments.into_iter().map(|(partition, at)| task_restart(&journey, partition, at)).collect(), foreign)
}

fn incarnation(drover: &Drover, topic: &str, partition: i32) -> u64 {
    let task = drover.task(topic, partition).unwrap_or_else(|| panic!("there is no task of {topic}/{partition}"));
    task["incarnation"].as_u64().expect("a number")
}

fn task_restart(journey: &Journey, partition: i32, at: Instant) -> TaskRestart {
    let longest = |partitions: &mut dyn Iterator<Item = i32>, from, to| {
        let silences = partitions.map(|one| journey.silence(one, from, to));
        silences.max().unwrap_or_default()
    };
    TaskRestart {
        // Half a window before the restart, so that its own silence does not reach in.
        before: longest(&mut (0..PARTITIONS), at.checked_sub(WINDOW).unwrap_or(at), at.checked_sub(WINDOW / 2).unwrap_or(at)),
        own: journey.silence(partition, at, at + WINDOW),
        others: longest(&mut (0..PARTITIONS).filter(|other| *other != partition), at, at + WINDOW),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Terminated,
    Killed,
}

struct Takeover {
    /// From the start of a process without rivals to its first acknowledged record.
    start: Duration,
    /// The longest silence of a partition that the ended instance had, and the other has now.
    taken_over: Duration,
    /// The longest silence of a partition that the other had all the time.
    kept: Duration,
}

fn takeover(kafka: &Kafka, endpoint: &Endpoint, ending: Ending, time: usize) -> Takeover {
    let topic = format!("takeover-{ending:?}-{time}").to_lowercase();
    kafka.create_topic(&topic, PARTITIONS);
    endpoint.reset(Content::Whole);
    let config = config(kafka, endpoint, &topic);
    let probes = Probes::start(kafka, &topic, PER_SECOND);
    let started = Instant::now();
    let mut first = launch(&config);
    let start = wait_until("a first record arrives", SOON, || endpoint.arrivals().first().map(|arrival| arrival.at - started));
    probes.wait_flowing(endpoint);
    let mut second = launch(&config);
    second.wait_ready();
    let theirs = second.wait_for("each instance runs half of the partitions", SOON, |second| {
        let (one, other) = (running(&first, &topic), running(second, &topic));
        (one.len() + other.len() == PARTITIONS as usize && !other.is_empty() && !one.is_empty()).then_some(one)
    });
    // What the rebalance interrupted flows again.
    let settled = Instant::now();
    wait_for_each(endpoint, &probes, 0..PARTITIONS, settled);
    let at = Instant::now();
    match ending {
        Ending::Terminated => first.signal(libc::SIGTERM),
        Ending::Killed => first.kill9(),
    }
    first.wait_end(SOON).expect("the instance ends");
    // What was sent before may have been acknowledged by the ending instance.
    wait_for_each(endpoint, &probes, theirs.iter().copied(), Instant::now());
    let until = Instant::now();
    let journey = probes.finish(endpoint);
    let longest = |is_theirs: bool| {
        let partitions = (0..PARTITIONS).filter(|partition| theirs.contains(partition) == is_theirs);
        partitions.map(|partition| journey.silence(partition, at, until)).max().unwrap_or_default()
    };
    Takeover { start, taken_over: longest(true), kept: longest(false) }
}

/// Waits until a probe sent after `from` has arrived in each of the partitions.
fn wait_for_each(endpoint: &Endpoint, probes: &Probes, partitions: impl Iterator<Item = i32> + Clone, from: Instant) {
    wait_until("every partition flows", SOON, || {
        let journey = Journey { sent: probes.sent(), arrivals: endpoint.arrivals() };
        partitions.clone().all(|partition| journey.resumed_after(partition, from).is_some()).then_some(())
    });
}

/// The partitions whose tasks run in this instance.
fn running(drover: &Drover, topic: &str) -> Vec<i32> {
    let tasks = drover.get(&format!("/api/v1/tasks?topic={topic}&limit=1000"));
    let items = tasks["items"].as_array().expect("items");
    let running = items.iter().filter(|task| task["state"] == "running");
    running.map(|task| i32::try_from(task["partition"].as_i64().expect("a partition")).expect("a partition")).collect()
}
