//! A thousand partitions that one index keeps parked, beside a topic that goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::distr::Alphanumeric;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::end_to_end::{App, World};
use crate::harness::http;
use crate::harness::wait::wait_until;
use crate::sink::stub::{Answer, ItemRule};

const PARTITIONS: i32 = 1000;
/// Longer than a thousand partitions take for anything, also on a busy machine.
const LONG: Duration = Duration::from_secs(180);
/// How long the server takes for each request: so long that the probes of all, each on its own, would keep it busy.
const SLOW: Duration = Duration::from_millis(100);
/// Records of the topic that goes on, in each of the two turns that are compared.
const TURN: usize = 20_000;

/// Bytes of a record of the topic that is parked: larger than a document that a parked partition keeps.
const PADDING: usize = 60_000;

fn padded(number: usize, padding: &str) -> String {
    format!(r#"{{"of":"parked","n":{number},"padding":"{padding}"}}"#)
}

fn memory(app: &App, kind: &str) -> u64 {
    let page = app.request("GET", "/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("drover_memory_bytes{{kind=\"{kind}\"}} ")).map(str::to_owned));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("no memory of kind {kind}"))
}

fn verbose_health(app: &App) -> String {
    http::send("GET", &format!("{}/healthz?verbose", app.url), &[("accept", "text/plain")], None).expect("an answer").text()
}

fn turn(world: &mut World, app: &App, numbers: std::ops::Range<usize>) -> Duration {
    let wanted = numbers.end;
    let started = Instant::now();
    world.produce_numbers("busy", numbers);
    wait_until("the topic that is not parked is indexed", LONG, || (world.indexed("busy").len() >= wanted).then_some(()));
    assert_eq!(app.status("busy")["health"], "ok");
    started.elapsed()
}

#[test]
fn a_thousand_parked_partitions_starve_nobody() {
    let mut world = World::new(&[("parked", PARTITIONS), ("busy", 2)]);
    world.stub.forget_requests();
    world.configure("[{topic: parked, format: json}, {topic: busy, format: json}]");
    let probes = Arc::new(AtomicUsize::new(0));
    let counted = probes.clone();
    let rule = ItemRule {
        containing: r#""of":"parked""#.to_owned(),
        status: 403,
        error_type: "cluster_block_exception".to_owned(),
        reason: "index [parked] blocked by: [FORBIDDEN/8/index write (api)];".to_owned(),
    };
    world.stub.script(move |request| {
        if request.contains(r#""of":"parked""#) && request.items.len() == 1 {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Answer::After(SLOW, Box::new(Answer::Items(vec![rule.clone()])))
    });
    // More than the budget has room for, if all of it were kept; random, since the client's prefetch is limited by what comes over the wire.
    let mut chance = StdRng::seed_from_u64(1);
    let mut padding = || (0..PADDING).map(|_| char::from(chance.sample(Alphanumeric))).collect::<String>();
    world.produce_to_each("parked", &[0, 1, 2, 3].map(|number| padded(number, &padding())));
    let app = world.start();
    let tasks = wait_until("all partitions are parked", LONG, || {
        let tasks = app.tasks("parked");
        let parked = |task: &Value| task["state"] == "waiting" && task["reason"]["code"] == "index_blocked";
        (tasks.len() == PARTITIONS as usize && tasks.iter().all(parked)).then_some(tasks)
    });

    // Cause and remedy, wherever one looks.
    let names_both = |reason: &Value| {
        let has = |field: &str, part: &str| reason[field].as_str().is_some_and(|text| text.contains(part));
        has("message", "FORBIDDEN/8") && has("remedy", "remove the block")
    };
    assert!(tasks.iter().all(|task| names_both(&task["reason"]) && task["restarts_total"] == 0 && task["committed"].is_null()));
    let status = app.status("parked");
    assert_eq!((&status["state"], &status["health"], &status["dead_lettered_total"]), (&"waiting".into(), &"degraded".into(), &0.into()));
    assert!(names_both(&status["reason"]), "{status}");
    let health = verbose_health(&app);
    assert!(health.contains("topic/parked") && health.contains("FORBIDDEN/8") && health.contains("remove the block"), "{health}");
    let events = app.get("/api/v1/events?topic=parked&limit=1000");
    let is_told =
        |event: &Value| event["kind"] == "task_parked" && event.to_string().contains("FORBIDDEN/8") && event.to_string().contains("remove the block");
    assert!(events["items"].as_array().is_some_and(|items| items.iter().any(is_told)), "{}", events["items"][0]);

    // Parked, they hold next to nothing.
    wait_until("the parked have given their memory back", LONG, || (memory(&app, "in_flight") < 1 << 20).then_some(()));
    assert!(memory(&app, "peak") <= memory(&app, "limit"), "{} of {}", memory(&app, "peak"), memory(&app, "limit"));

    let before = (Instant::now(), probes.load(Ordering::SeqCst));
    let beside_parked = turn(&mut world, &app, 0..TURN);
    let (took, sent) = (before.0.elapsed(), probes.load(Ordering::SeqCst) - before.1);
    // One at a time: no more than the server answers one after the other.
    let most = took.as_millis() / SLOW.as_millis() + 2;
    assert!((sent as u128) <= most, "{sent} probes in {took:?}");

    world.stub.heal();
    let expected = 4 * PARTITIONS as usize;
    wait_until("all that was parked is indexed", LONG, || (world.indexed("parked").len() == expected).then_some(()));
    assert_eq!(world.indexed("parked"), world.broker.ids("parked"));
    wait_until("nobody is parked any more", LONG, || app.tasks("parked").iter().all(|task| task["reason"].is_null()).then_some(()));
    assert_eq!(app.status("parked")["dead_lettered_total"], 0);
    world.stub.script(|_| Answer::After(SLOW, Box::new(Answer::Normal)));
    let alone = turn(&mut world, &app, TURN..2 * TURN);
    println!("{TURN} records took {beside_parked:?} beside {PARTITIONS} parked partitions and {alone:?} without; {sent} probes");
    // A third of the rate would still be theirs; a machine that does something else meanwhile must not fail this.
    assert!(beside_parked < 3 * alone + Duration::from_secs(2), "{beside_parked:?} beside parked partitions, {alone:?} without");
    world.stop(app);
}
