//! Faults of the process and its tasks: killed, paused, told to stop, panicking, hanging.

use std::time::{Duration, Instant};

use rand::Rng as _;
use serde_json::json;

use crate::harness::producer::{Producer, Record};
use crate::harness::proxy::{Mode, Proxy};
use crate::run::{Ending, Load, Row, Run, SOON, Setup, let_pass, rows, send};

pub(super) const ROWS: &[Row] = &[
    Row { number: 1, name: "SIGKILL at 50 random moments", is_quick: false, run: fifty_kills },
    Row { number: 2, name: "SIGSTOP below the session timeout", is_quick: true, run: short_pause },
    Row { number: 3, name: "SIGSTOP longer than the session, another instance takes over (zombie)", is_quick: true, run: zombie },
    Row { number: 4, name: "SIGTERM under load with a sink slower than the deadline", is_quick: true, run: slow_stop },
    Row { number: 5, name: "two SIGTERMs", is_quick: true, run: two_signals },
    Row { number: 6, name: "a partition task panics once", is_quick: true, run: panics_once },
    Row { number: 7, name: "a record that always crashes its task", is_quick: true, run: crash_loop },
    Row { number: 8, name: "a task waits for ever", is_quick: true, run: hangs },
    Row { number: 9, name: "a task blocks a thread", is_quick: true, run: blocks_a_thread },
    Row { number: 10, name: "the poll loop is stuck", is_quick: false, run: stuck_poll },
    Row { number: 11, name: "the consumer thread panics", is_quick: true, run: consumer_panics },
];

fn fifty_kills(run: &mut Run<'_>) {
    let topic = run.topic("main", 12);
    // A static member: its successor need not wait until the session of the dead one is over.
    let setup = Setup { properties: ", group.instance.id: one".to_owned(), ..Setup::new(run, &[&topic]) };
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    for _ in 0..50 {
        let_pass(Duration::from_millis(run.rng.random_range(0..2_500)));
        run.kill(&mut drover);
        drover.restart_without_waiting();
    }
    drover.wait_ready();
    run.finish_load(drover, &setup, &topic, load);
}

fn short_pause(run: &mut Run<'_>) {
    let topic = run.topic("main", 6);
    let setup = Setup::new(run, &[&topic]);
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait_indexed(&drover, &topic, 1_000);
    let assigned = |drover: &crate::harness::drover::Drover| drover.get("/api/v1/events?kind=assigned&limit=1000")["items"].as_array().map(Vec::len);
    let before = assigned(&drover);
    for _ in 0..3 {
        drover.pause();
        let_pass(Duration::from_millis(3_500));
        drover.resume();
        let_pass(Duration::from_secs(2));
    }
    run.wait_indexed(&drover, &topic, 10_000);
    let after = assigned(&drover);
    run.claim("I7", before == after, || format!("a pause below the session timeout cost an assignment: {before:?}, then {after:?}"));
    run.finish_load(drover, &setup, &topic, load);
}

fn zombie(run: &mut Run<'_>) {
    let topic = run.topic("main", 6);
    let setup = Setup::new(run, &[&topic]);
    let mut zombie = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait_indexed(&zombie, &topic, 1_000);
    zombie.pause();
    let heir = run.start(&setup);
    run.wait("I7", "the other instance has everything", SOON, || {
        let rows = rows(&heir, &topic.name);
        (rows.len() == 6 && rows.iter().all(|row| row["state"] == "running")).then_some(())
    });
    run.wait_indexed(&heir, &topic, 1_000);
    zombie.resume();
    run.wait("I7", "the zombie has rejoined", SOON, || rows(&zombie, &topic.name).iter().any(|row| row["state"] == "unassigned").then_some(()));
    run.wait("I7", "both have a part", SOON, || {
        let running = rows(&zombie, &topic.name).iter().filter(|row| row["state"] == "running").count();
        (running > 0 && running < 6).then_some(())
    });
    let ledger = load.end();
    drop(zombie);
    run.finish(heir, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

fn slow_stop(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let proxy = Proxy::before(port_of(&run.servers.elasticsearch.url()));
    let more = "supervision: {shutdown_timeout: 4s, drain_timeout: 1s}".to_owned();
    let setup = Setup { sink: proxy.url(), more, ..Setup::new(run, &[&topic]) };
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait_indexed(&drover, &topic, 1_000);
    proxy.set(Mode::Delay(Duration::from_secs(30)));
    let_pass(Duration::from_secs(2));
    let told = Instant::now();
    drover.signal(libc::SIGTERM);
    let status = drover.wait_end(Duration::from_secs(10));
    run.claim("I11", status.is_some_and(|status| status.code() == Some(1)), || {
        format!("with leftovers at the deadline: {status:?} after {:?}", told.elapsed())
    });
    proxy.set(Mode::Pass);
    drover.restart();
    run.finish_load(drover, &setup, &topic, load);
}

fn two_signals(run: &mut Run<'_>) {
    let topic = run.topic("main", 4);
    let proxy = Proxy::before(port_of(&run.servers.elasticsearch.url()));
    let setup = Setup { sink: proxy.url(), ..Setup::new(run, &[&topic]) };
    let mut drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait_indexed(&drover, &topic, 1_000);
    // Nothing settles, so the first signal alone would wait.
    proxy.set(Mode::BlackHole);
    let_pass(Duration::from_secs(1));
    drover.signal(libc::SIGTERM);
    let_pass(Duration::from_millis(500));
    drover.signal(libc::SIGTERM);
    let status = drover.wait_end(Duration::from_secs(3));
    run.claim("I11", status.is_some_and(|status| status.code() == Some(1)), || format!("three seconds after the second signal: {status:?}"));
    proxy.set(Mode::Pass);
    drover.restart();
    run.finish_load(drover, &setup, &topic, load);
}

fn panics_once(run: &mut Run<'_>) {
    let topic = run.topic("main", 12);
    let setup = Setup { failpoints: "partition_task=6*off->1*panic(boom)->off".to_owned(), ..Setup::new(run, &[&topic]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &topic.name, 12, 0..6_000);
    producer.flush();
    run.wait("I10", "the panic is told", SOON, || rows(&drover, &topic.name).iter().any(|row| row["last_exit"]["cause"] == "panicked").then_some(()));
    // So that the commits pass what the crash left behind.
    send(&producer, &mut run.rng, &topic.name, 12, 6_000..12_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &topic);
    let hit: Vec<_> = rows(&drover, &topic.name).into_iter().filter(|row| row["incarnation"] != 1).collect();
    let is_told = hit.len() == 1
        && hit
            .iter()
            .all(|row| row["last_exit"]["cause"] == "panicked" && row["last_exit"]["message"].as_str().is_some_and(|text| text.contains("boom")));
    run.claim("I6", is_told, || format!("one task panicked, and these have had another life: {hit:?}"));
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 1..=1 });
}

fn crash_loop(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let setup = Setup {
        failpoints: "format_record=return(POISON-PILL)".to_owned(),
        more: "supervision: {crash_loop_after: 3, backoff_max: 1s}".to_owned(),
        ..Setup::new(run, &[&topic])
    };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let producer = Producer::new(&run.servers.kafka);
    send(&producer, &mut run.rng, &topic.name, 3, 0..1_500);
    producer.send(Record::new(&topic.name, br#"{"text":"POISON-PILL"}"#).to(1));
    send(&producer, &mut run.rng, &topic.name, 3, 1_500..9_000);
    producer.flush();
    run.wait_committed("I7", &setup.group, &topic);
    let others: Vec<_> = rows(&drover, &topic.name).into_iter().filter(|row| row["partition"] != 1 && row["restarts_total"] != 0).collect();
    run.claim("I6", others.is_empty(), || format!("restarted beside the one that crashes: {others:?}"));
    // Three crashes in company, one alone.
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &producer.ledger(), restarts: 4..=4 });
    let causes: Vec<_> = run.evidence.letters.iter().flatten().map(|letter| letter["cause"].clone()).collect();
    run.claim("I5", causes == [json!("crash_loop")], || format!("the letters' causes are {causes:?}"));
}

fn hangs(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let setup = Setup {
        failpoints: "partition_task=3*off->1*return(hang)->off".to_owned(),
        more: "supervision: {stall_after: 3s, backoff_max: 1s}".to_owned(),
        ..Setup::new(run, &[&topic])
    };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait("I10", "the watchdog has killed one", SOON, || {
        rows(&drover, &topic.name).iter().any(|row| row["last_exit"]["cause"] == "stalled").then_some(())
    });
    let_pass(Duration::from_secs(2));
    let ledger = load.end();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 1..=1 });
}

fn blocks_a_thread(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let setup = Setup {
        failpoints: "partition_task=3*off->1*sleep(12000)->off".to_owned(),
        more: "supervision: {stall_after: 3s, backoff_max: 1s}".to_owned(),
        ..Setup::new(run, &[&topic])
    };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait("I10", "the watchdog has noticed", SOON, || {
        rows(&drover, &topic.name).iter().any(|row| row["state"] == "stalled" || row["last_exit"]["cause"] == "stalled").then_some(())
    });
    let others = rows(&drover, &topic.name).iter().filter(|row| row["state"] == "running").count();
    run.claim("I6", others == 2, || format!("{others} of the two others run"));
    let_pass(Duration::from_secs(12));
    let ledger = load.end();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 1..=1 });
}

fn stuck_poll(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let setup = Setup { failpoints: "poll=400*off->1*sleep(40000)->off".to_owned(), ..Setup::new(run, &[&topic]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait("I10", "the process says that its own loop is stuck", Duration::from_secs(60), || {
        let answer = drover.try_request("GET", "/livez", None).ok()?;
        (answer.status == 503).then_some(())
    });
    run.wait("I7", "the loop goes on and the process is alive again", Duration::from_secs(60), || {
        let answer = drover.try_request("GET", "/livez", None).ok()?;
        (answer.status == 200).then_some(())
    });
    let_pass(Duration::from_secs(2));
    let ledger = load.end();
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=3 });
}

fn consumer_panics(run: &mut Run<'_>) {
    let topic = run.topic("main", 3);
    let setup = Setup { failpoints: "poll=400*off->1*panic(poll boom)->off".to_owned(), ..Setup::new(run, &[&topic]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &topic);
    let load = Load::start(run, &topic);
    run.wait("I10", "the consumer's panic is told", SOON, || {
        let told = drover.get("/api/v1/events?kind=consumer_rebuilt");
        told["items"].as_array()?.iter().any(|event| event.to_string().contains("poll boom")).then_some(())
    });
    run.wait("I7", "all partitions run again", SOON, || {
        let rows = rows(&drover, &topic.name);
        (rows.len() == 3 && rows.iter().all(|row| row["state"] == "running")).then_some(())
    });
    let_pass(Duration::from_secs(2));
    let ledger = load.end();
    // It is an event of the instance and no task's restart.
    run.finish(drover, &Ending { group: &setup.group, topics: &[&topic], ledger: &ledger, restarts: 0..=0 });
}

/// The port of a loopback URL.
pub(super) fn port_of(url: &str) -> u16 {
    url.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {url}"))
}
