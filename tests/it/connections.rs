//! Thousands of connections that do nothing: the API answers beside them, and they cost little.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::drover::Drover;

/// Longer than anything here takes when all is well, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// An answer beside 2,000 connections; a millisecond on an idle machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const IDLE: usize = 2000;
const CONFIG: &str = "kafka: {brokers: ['127.0.0.1:1']}\nelasticsearch: {urls: ['http://127.0.0.1:1']}\nsupervision: {shutdown_timeout: 5s}\n";

/// Raises the number of files that this process and those that it starts may have open; fails where even the hard limit is too low.
fn raise_open_files(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write one struct of ours.
    let is_set = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_cur.max(wanted.min(limit.rlim_max));
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    assert!(is_set && limit.rlim_cur >= wanted, "this test needs `ulimit -Hn` of at least {wanted}, and it is {}", limit.rlim_max);
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, SOON).expect("connected");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    stream
}

/// One request on a connection that stays open.
fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // The body of `/livez` is short and comes with the head.
    while !answer.windows(4).any(|text| text == b"\r\n\r\n") {
        let bytes = stream.read(&mut buffer).expect("an answer");
        assert!(bytes > 0, "closed without an answer");
        answer.extend_from_slice(&buffer[..bytes]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
}

/// Asks on new connections.
fn assert_answers(drover: &Drover) {
    for path in ["/livez", "/api/v1/topics", "/metrics"] {
        let began = Instant::now();
        let answer = drover.request("GET", path, &[("connection", "close")], None);
        assert_eq!(answer.status, 200, "{path}");
        assert!(began.elapsed() < ANSWERED_WITHIN, "{path}: {:?}", began.elapsed());
    }
}

#[test]
fn two_thousand_idle_connections_do_not_keep_the_api_from_answering() {
    raise_open_files(6000);
    let mut drover = Drover::start(&format!("{CONFIG}http: {{max_connections: 4000, header_timeout: 300s}}\n"), &[]);
    let address: SocketAddr = drover.url().trim_start_matches("http://").parse().expect("an address");
    let (resident, files) = (drover.resident_bytes(), drover.open_files());
    let mut idle = Vec::new();
    for number in 0..IDLE {
        let mut stream = connect(address);
        match number % 3 {
            // Says nothing, has asked something, is in the middle of a head.
            0 => {}
            1 => ask(&mut stream, "/livez"),
            _ => stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").expect("sent"),
        }
        idle.push(stream);
    }
    drover.wait_for("all of them are accepted", SOON, |drover| (drover.open_files() >= files + IDLE).then_some(()));
    assert_answers(&drover);
    // 32 KB each were measured, in a build without optimisation.
    let cost = drover.resident_bytes().saturating_sub(resident);
    assert!(cost < IDLE as u64 * (64 << 10), "{cost} bytes for {IDLE} connections");
    // Whoever has waited is served, whatever it did before.
    for (number, stream) in idle.iter_mut().enumerate().step_by(97) {
        if number % 3 < 2 {
            ask(stream, "/livez");
        }
    }
    drop(idle);
    drover.wait_for("their places are free again", SOON, |drover| (drover.open_files() < files + 50).then_some(()));
    assert!(drover.terminate(SOON).success());
}

#[test]
fn two_thousand_silent_connections_over_the_limit_do_not_either_and_stop_nothing() {
    raise_open_files(6000);
    // The limit is that of the configuration: 1,024.
    let mut drover = Drover::start(&format!("{CONFIG}http: {{header_timeout: 300s}}\n"), &[]);
    let address: SocketAddr = drover.url().trim_start_matches("http://").parse().expect("an address");
    let files = drover.open_files();
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| connect(address)).collect();
    drover.wait_for("as many as may be are accepted", SOON, |drover| (drover.open_files() >= files + 1000).then_some(()));
    assert_answers(&drover);
    assert!(drover.open_files() < files + 1100, "{} files, {files} before", drover.open_files());
    let began = Instant::now();
    assert!(drover.terminate(SOON).success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(idle);
}
