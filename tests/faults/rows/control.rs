//! Faults of the control plane: etcd gone, silent, compacted, answering too late; an API under attack. The records must not notice.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::drover::Drover;
use crate::harness::etcd::{Etcd, Version};
use crate::harness::producer::{Ledger, Producer};
use crate::harness::proxy::{Mode, Proxy};
use crate::run::{Ending, Load, Row, Run, SOON, Setup, Topic, both, let_pass, rows, send};

use super::process::port_of;

pub(super) const ROWS: &[Row] = &[
    Row { number: 52, name: "etcd is killed, and back after 10 s", is_quick: true, run: etcd_killed },
    Row { number: 53, name: "etcd is stopped by SIGSTOP for 20 s", is_quick: true, run: etcd_paused },
    Row { number: 54, name: "etcd is compacted while our watch is cut", is_quick: true, run: etcd_compacted },
    Row { number: 60, name: "etcd acts, and its answer is lost", is_quick: true, run: etcd_answer_lost },
    Row { number: 65, name: "500 silent connections and 100 that drip", is_quick: true, run: slow_clients },
    Row { number: 66, name: "a body of 64 MB, one without end, deep JSON", is_quick: true, run: large_bodies },
    Row { number: 67, name: "cross-site requests and foreign hosts", is_quick: true, run: cross_site },
    Row { number: 69, name: "the API is flooded while an instance joins and leaves", is_quick: true, run: flooded },
];

/// A topic of the file under load, an etcd, and the prefix below it.
pub(super) struct Stage {
    pub(super) etcd: Etcd,
    pub(super) main: Topic,
    pub(super) setup: Setup,
    pub(super) drover: Drover,
    pub(super) load: Load,
    /// What another load has sent to the topics that are added.
    pub(super) earlier: Option<Ledger>,
}

fn stage(run: &mut Run<'_>, before: impl FnOnce(&Etcd) -> String) -> Stage {
    let etcd = Etcd::start(Version::System, &[]);
    let more = format!("etcd: {{endpoints: [\"{}\"], prefix: drover}}", before(&etcd));
    staged(run, etcd, more)
}

/// The same with this etcd and these sections.
pub(super) fn staged(run: &mut Run<'_>, etcd: Etcd, more: String) -> Stage {
    let main = run.topic("main", 3);
    let setup = Setup { more, ..Setup::new(run, &[&main]) };
    let drover = run.start(&setup);
    run.observe(&setup.group, &main);
    let load = Load::start(run, &main);
    run.wait_indexed(&drover, &main, 500);
    Stage { etcd, main, setup, drover, load, earlier: None }
}

impl Stage {
    /// After the fault: a topic that is added is run, with its records, and the promise was kept.
    fn end(self, run: &mut Run<'_>, added: &Topic) {
        let producer = Producer::new(&run.servers.kafka);
        self.end_with(run, &producer, &[added]);
    }

    /// The same with more than one topic, whose producer may have sent before.
    pub(super) fn end_with(self, run: &mut Run<'_>, producer: &Producer, added: &[&Topic]) {
        for topic in added {
            send(producer, &mut run.rng, &topic.name, topic.partitions, 0..1_000);
            producer.flush();
            run.wait("I9", &format!("{} runs", topic.name), SOON, || {
                let rows = rows(&self.drover, &topic.name);
                (!rows.is_empty() && rows.iter().all(|row| row["state"] == "running")).then_some(())
            });
        }
        let ledger = both(both(self.load.end(), producer.ledger()), self.earlier.unwrap_or_default());
        let topics: Vec<&Topic> = std::iter::once(&self.main).chain(added.iter().copied()).collect();
        run.finish(self.drover, &Ending { group: &self.setup.group, topics: &topics, ledger: &ledger, restarts: 0..=0 });
    }
}

pub(super) fn put(drover: &Drover, topic: &str) -> u16 {
    drover.put(&format!("/api/v1/topics/{topic}"), &json!({"format": "json"})).status
}

fn etcd_killed(run: &mut Run<'_>) {
    let stage = stage(run, Etcd::url);
    let added = run.topic("added", 2);
    stage.etcd.kill();
    run.counts.kills += 1;
    let status = put(&stage.drover, &added.name);
    run.claim("I10", matches!(status, 503 | 504), || format!("a change without etcd is answered with {status}"));
    run.endure(&stage.drover, &stage.main, Duration::from_secs(10));
    let running = rows(&stage.drover, &stage.main.name).iter().filter(|row| row["state"] == "running").count();
    run.claim("I9", running == 3, || format!("{running} of 3 tasks run without etcd"));
    stage.etcd.start_again();
    run.wait("I9", "a change is taken again", SOON, || (put(&stage.drover, &added.name) / 100 == 2).then_some(()));
    stage.end(run, &added);
}

fn etcd_paused(run: &mut Run<'_>) {
    let stage = stage(run, Etcd::url);
    let added = run.topic("added", 2);
    stage.etcd.pause();
    run.endure(&stage.drover, &stage.main, Duration::from_secs(20));
    let told = source_status(&stage.drover, "store");
    run.claim("I10", told != "ok", || format!("a store that is silent for 20 s is {told}"));
    stage.etcd.resume();
    // Around us: the watch must show it.
    stage.etcd.put(&format!("drover/topics/{}", added.name), r#"{"format": "json"}"#);
    stage.end(run, &added);
}

/// The row of a source, `null` where there is none.
pub(super) fn source(drover: &Drover, kind: &str) -> Value {
    let sources = drover.get("/api/v1/sources");
    let source = sources["items"].as_array().and_then(|items| items.iter().find(|source| source["kind"] == kind).cloned());
    source.unwrap_or_default()
}

pub(super) fn source_status(drover: &Drover, kind: &str) -> String {
    source(drover, kind)["status"].as_str().unwrap_or("not there").to_owned()
}

fn etcd_compacted(run: &mut Run<'_>) {
    let mut proxy = None;
    let stage = stage(run, |etcd| proxy.insert(Proxy::before(port_of(&etcd.url()))).url());
    let proxy = proxy.expect("made at the start");
    let (added, removed) = (run.topic("added", 2), run.topic("removed", 2));
    run.wait("I9", "the topic that will go is taken", SOON, || (put(&stage.drover, &removed.name) / 100 == 2).then_some(()));
    run.wait("I9", "the topic that will go is there", SOON, || (!rows(&stage.drover, &removed.name).is_empty()).then_some(()));
    proxy.set(Mode::Cut);
    let_pass(Duration::from_secs(1));
    stage.etcd.put(&format!("drover/topics/{}", added.name), r#"{"format": "json"}"#);
    stage.etcd.delete(&format!("drover/topics/{}", removed.name));
    for number in 0..20 {
        stage.etcd.put("other/key", &number.to_string());
    }
    stage.etcd.compact();
    let_pass(Duration::from_secs(3));
    proxy.set(Mode::Pass);
    run.wait("I9", "the topic that went is gone", SOON, || stage.drover.topic(&removed.name).is_none().then_some(()));
    stage.end(run, &added);
}

fn etcd_answer_lost(run: &mut Run<'_>) {
    let mut proxy = None;
    let stage = stage(run, |etcd| proxy.insert(Proxy::before(port_of(&etcd.url()))).url());
    let proxy = proxy.expect("made at the start");
    let added = run.topic("added", 2);
    proxy.set(Mode::HalfOpen);
    let status = put(&stage.drover, &added.name);
    run.claim("I10", matches!(status, 503 | 504), || format!("a change whose outcome nobody knows is answered with {status}"));
    proxy.set(Mode::Pass);
    // Whatever became of it, the API and etcd agree, and the same change is taken.
    let key = format!("drover/topics/{}", added.name);
    run.wait("I10", "the API shows what etcd has", SOON, || {
        let shown = stage.drover.topic(&added.name).is_some();
        (stage.etcd.get(&key).is_some() == shown).then_some(())
    });
    run.wait("I9", "the change is taken", SOON, || (put(&stage.drover, &added.name) / 100 == 2).then_some(()));
    stage.end(run, &added);
}

/// A topic under load, and the API is asked beside it: records must go on.
fn under_attack(run: &mut Run<'_>, attack: impl FnOnce(&mut Run<'_>, &Drover)) {
    let topic = run.topic("main", 3);
    let setup = Setup::new(run, &[&topic]);
    let (drover, load) = run.under_load(&setup, &topic, 500);
    let indexed = |drover: &Drover| drover.topic(&topic.name).and_then(|topic| topic["status"]["indexed_total"].as_u64()).unwrap_or(0);
    let (before, began) = (indexed(&drover), Instant::now());
    attack(run, &drover);
    let_pass(Duration::from_secs(1));
    let (after, span) = (indexed(&drover), began.elapsed().as_secs());
    // Produced are 2,000 a second; half of it is progress on two busy cores.
    run.claim("I6", after >= before + span * 500, || format!("{} records in {span} s beside the attack", after - before));
    run.finish_load(drover, &setup, &topic, load);
}

fn connect(drover: &Drover) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port_of(&drover.url()))).expect("a connection to the API");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream
}

/// Whether the server ends it, with or without an answer, before the read times out.
fn is_closed(stream: &mut TcpStream) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_or_else(|error| !matches!(error.kind(), WouldBlock | TimedOut), |_| true)
}

fn slow_clients(run: &mut Run<'_>) {
    under_attack(run, |run, drover| {
        let silent: Vec<TcpStream> = (0..500).map(|_| connect(drover)).collect();
        let mut dripping: Vec<TcpStream> = (0..100).map(|_| connect(drover)).collect();
        for letter in b"GET / HTTP" {
            for stream in &mut dripping {
                // The server may have given up on it, which is what it should do.
                let _ = stream.write_all(&[*letter]);
            }
            let asked = Instant::now();
            let status = drover.request("GET", "/api/v1/topics", &[], None).status;
            let took = asked.elapsed();
            run.claim("I10", status == 200 && took < Duration::from_secs(2), || format!("{status} after {took:?} beside slow clients"));
            let_pass(Duration::from_millis(1_200));
        }
        let closed = dripping.iter_mut().take(3).map(is_closed).filter(|is_closed| *is_closed).count();
        run.claim("I8", closed == 3, || format!("{closed} of 3 dripping connections were closed by the server"));
        drop(silent);
    });
}

fn large_bodies(run: &mut Run<'_>) {
    under_attack(run, |run, drover| {
        let path = "/api/v1/topics/orders";
        let json = [("content-type", "application/json")];
        // A server that refuses early may close before it has read everything; that is an answer too.
        let large = crate::harness::http::send("PUT", &format!("{}{path}", drover.url()), &json, Some(vec![b'x'; 64 << 20]));
        let is_refused = large.as_ref().map_or(true, |answer| answer.status == 413);
        run.claim("I10", is_refused, || format!("64 MB: {large:?}"));
        let mut endless = connect(drover);
        let head = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut sent = 0_usize;
        let mut failed = endless.write_all(head.as_bytes()).is_err();
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        while !failed && sent < 64 << 20 {
            failed = endless.write_all(&chunk).is_err();
            sent += chunk.len();
        }
        run.claim("I8", failed, || "a body without end was taken for 64 MB".to_owned());
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000)).into_bytes();
        let answer = drover.request("PUT", path, &json, Some(deep));
        run.claim("I10", answer.status == 400, || format!("deep JSON: {} {}", answer.status, answer.text()));
        let alive = drover.request("GET", "/livez", &[], None).status;
        run.claim("I10", alive == 200, || format!("afterwards /livez: {alive}"));
    });
}

fn cross_site(run: &mut Run<'_>) {
    under_attack(run, |run, drover| {
        let foreign = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("content-type", "application/json")];
        let status = drover.request("PUT", "/api/v1/topics/orders", &foreign, Some(b"{}".to_vec())).status;
        run.claim("I10", status == 403, || format!("a cross-site PUT: {status}"));
        let status = drover.request("GET", "/api/v1/topics", &[("host", "evil.example")], None).status;
        run.claim("I10", status == 421, || format!("a foreign host: {status}"));
        let status = drover.request("PUT", "/api/v1/topics/..%2f..%2fetc", &[("content-type", "application/json")], Some(b"{}".to_vec())).status;
        run.claim("I10", status == 422, || format!("a name that is a path: {status}"));
        let topics: Value = drover.get("/api/v1/topics");
        run.claim("I9", topics["items"].as_array().map(Vec::len) == Some(1), || format!("{topics}"));
    });
}

fn flooded(run: &mut Run<'_>) {
    let topic = run.topic("main", 6);
    let setup = Setup::new(run, &[&topic]);
    let (drover, load) = run.under_load(&setup, &topic, 500);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let url = format!("{}/api/v1/tasks?limit=1000", drover.url());
    let asked = std::thread::scope(|scope| {
        let ask = || {
            let mut asked = 0_u32;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                if crate::harness::http::send("GET", &url, &[], None).is_ok_and(|answer| answer.status == 200) {
                    asked += 1;
                }
            }
            asked
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for _ in 0..2 {
            let mut second = run.start(&setup);
            run.wait("I6", "the second instance has a part", SOON, || {
                let running = rows(&second, &topic.name).iter().filter(|row| row["state"] == "running").count();
                (running == 3).then_some(())
            });
            let status = second.terminate(Duration::from_secs(27));
            run.claim("I11", status.code() == Some(0), || format!("the second instance: {status}"));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap_or(0)).sum::<u32>()
    });
    run.claim("I10", asked > 100, || format!("{asked} answers under the flood"));
    run.finish_load(drover, &setup, &topic, load);
}
