//! The dead-letter store in a real Elasticsearch: the contract that every store has, and what only a server can do to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover::config::{Compression, ElasticsearchConfig, SinkAuth};
use drover::dead_letters::elasticsearch::ElasticsearchDeadLetters;
use drover::dead_letters::suite::{self, letter, name, pages, query, with_payload};
use drover::dead_letters::{DeadLetter, DeadLetters, Error, Query};
use serde_json::{Value, json};

use crate::harness::checker::{Evidence, Generation, assert_kept};
use crate::harness::drover::Drover;
use crate::harness::elasticsearch::Elasticsearch;
use crate::harness::producer::{Producer, Record};
use crate::harness::servers;
use crate::main_job;

/// More than a catch-up, or a redrive, of a thousand records takes on two busy cores.
const CAUGHT_UP: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

fn configuration(server: &Elasticsearch) -> ElasticsearchConfig {
    ElasticsearchConfig {
        // The first node is never there.
        urls: vec!["http://127.0.0.1:1".to_owned(), server.url()],
        auth: SinkAuth::Anonymous,
        ca_file: None,
        client_identity: None,
        max_bytes: 1 << 20,
        linger: Duration::ZERO,
        in_flight: 1,
        timeout: Duration::from_secs(30),
        compression: Compression::Gzip,
    }
}

fn store(server: &Elasticsearch, index: &str) -> ElasticsearchDeadLetters {
    ElasticsearchDeadLetters::new(&configuration(server), index, 1 << 30).expect("a store")
}

fn mapping(server: &Elasticsearch, index: &str) -> Value {
    server.request("GET", &format!("/{index}/_mapping"), None).ok().json()[index]["mappings"].clone()
}

/// The mapping as the design fixes it, as the server gives it back.
fn expected_mapping() -> Value {
    let keyword = json!({"type": "keyword"});
    let date = json!({"type": "date", "ignore_malformed": true});
    json!({
        "dynamic": "false",
        "properties": {
            "id": keyword, "topic": keyword, "topic_id": keyword, "index": keyword, "cause": keyword,
            "error": {"properties": {
                "type": {"type": "keyword", "ignore_above": 8191}, "reason": {"type": "text"}, "status": {"type": "integer"},
            }},
            "partition": {"type": "integer"}, "attempts": {"type": "integer"}, "offset": {"type": "long"}, "payload_bytes": {"type": "long"},
            "timestamp": date, "first_at": date, "last_at": date, "redriven_at": date,
            "key_base64": {"type": "binary"}, "payload_base64": {"type": "binary"}, "truncated": {"type": "boolean"},
        },
    })
}

fn unavailable(result: Result<impl std::fmt::Debug, Error>) -> (String, &'static str) {
    match result {
        Err(error @ Error::Unavailable { .. }) => (std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default(), error.remedy()),
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn an_index_keeps_the_contract_of_every_store() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    let made = AtomicUsize::new(0);
    suite::contract(async |max_bytes| {
        let index = format!("letters-contract-{}", made.fetch_add(1, Ordering::Relaxed));
        let store: Arc<dyn DeadLetters> = Arc::new(ElasticsearchDeadLetters::new(&configuration(server), &index, max_bytes).expect("a store"));
        store
    })
    .await;
    assert_eq!(mapping(server, "letters-contract-1"), expected_mapping());
    assert_eq!(server.request("GET", "/letters-contract-0", None).status, 404, "reading creates no index");
    for number in 1..made.into_inner() {
        server.delete_index(&format!("letters-contract-{number}"));
    }
}

#[tokio::test]
async fn any_bytes_and_a_large_record_come_back_whole_to_another_instance() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    server.delete_index("letters-bytes");
    let all_bytes: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1_500_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let odd = with_payload(letter("bytes", 0, 1), &all_bytes);
    let mut letters = vec![odd];
    // More than the 32 MiB of one page's answer.
    letters.extend((2..22).map(|offset| with_payload(letter("bytes", 0, offset), &large)));
    store(server, "letters-bytes").put(letters.clone()).await.expect("kept");

    let other = store(server, "letters-bytes");
    for letter in [&letters[0], &letters[20]] {
        assert!(other.get(&letter.id).await.expect("reads").as_ref() == Some(letter), "{}", letter.id);
    }
    let listed = other.list(query()).await.expect("lists");
    assert!(listed == letters, "{} letters", listed.len());
    assert_eq!(other.bytes(), 0, "nothing is counted before it is needed");
    other.put(vec![letter("bytes", 1, 1)]).await.expect("kept");
    assert_eq!(other.bytes(), 256 + 20 * 1_500_000 + 5 + 22 * 1024);
    server.delete_index("letters-bytes");
}

#[tokio::test]
async fn an_index_that_is_deleted_comes_back_with_its_mapping() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    let store = store(server, "letters-deleted");
    store.put(vec![letter("a", 0, 1)]).await.expect("kept");
    server.delete_index("letters-deleted");
    assert_eq!(store.get(&letter("a", 0, 1).id).await.expect("reads"), None);
    assert_eq!(store.list(query()).await.expect("lists"), []);
    store.put(vec![letter("a", 0, 2)]).await.expect("kept");
    assert_eq!(store.list(query()).await.expect("lists"), [letter("a", 0, 2)]);
    assert_eq!(mapping(server, "letters-deleted"), expected_mapping());
    server.delete_index("letters-deleted");
}

/// The moment between the look-up and the write, in which a plain bulk request would create the index with a guessed mapping.
#[tokio::test]
async fn an_index_that_is_deleted_just_before_the_write_is_not_guessed() {
    let servers = servers::alone();
    let server = &servers.elasticsearch;
    let store = store(server, "letters-race");
    store.put(vec![letter("a", 0, 1)]).await.expect("kept");
    let url = server.url();
    let left = AtomicUsize::new(2);
    fail::cfg_callback("dead_letters_bulk", move || {
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            crate::harness::http::send_json("DELETE", &format!("{url}/letters-race"), None).expect("an answer").ok();
        }
    })
    .expect("the failpoint");
    let result = store.put(vec![letter("a", 0, 1), letter("a", 0, 2)]).await;
    fail::remove("dead_letters_bulk");
    result.expect("kept");
    assert_eq!(store.list(query()).await.expect("lists"), [letter("a", 0, 1), letter("a", 0, 2)]);
    assert_eq!(mapping(server, "letters-race"), expected_mapping());
    server.delete_index("letters-race");
}

#[tokio::test]
async fn a_closed_or_blocked_index_keeps_letters_waiting_and_loses_none() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    let store = store(server, "letters-closed");
    store.put(vec![letter("a", 0, 1)]).await.expect("kept");

    server.close_index("letters-closed");
    let (text, remedy) = unavailable(store.put(vec![letter("a", 0, 2)]).await);
    assert!(text.contains("index_closed_exception") && remedy.contains("_open"), "{text}: {remedy}");
    let (text, _) = unavailable(store.list(query()).await);
    assert!(text.contains("index_closed_exception"), "{text}");
    let (text, _) = unavailable(store.get(&letter("a", 0, 1).id).await);
    assert!(text.contains("index_closed_exception"), "{text}");
    server.open_index("letters-closed");
    wait_for_put(&store, letter("a", 0, 2)).await;

    server.put_settings("letters-closed", &json!({"index.blocks.write": true}));
    let (text, remedy) = unavailable(store.put(vec![letter("a", 0, 3)]).await);
    assert!(text.contains("cluster_block_exception") && remedy.contains("index.blocks"), "{text}: {remedy}");
    assert_eq!(store.list(query()).await.expect("a blocked index can be read").len(), 2);
    server.put_settings("letters-closed", &json!({"index.blocks.write": null}));
    wait_for_put(&store, letter("a", 0, 3)).await;
    let offsets: Vec<i64> = store.list(query()).await.expect("lists").iter().map(|letter| letter.offset).collect();
    assert_eq!(offsets, [1, 2, 3]);
    server.delete_index("letters-closed");
}

/// Puts it again and again, as a task does, until the store takes it.
async fn wait_for_put(store: &ElasticsearchDeadLetters, letter: DeadLetter) {
    wait_until("the store takes letters again", async || store.put(vec![letter.clone()]).await.ok()).await;
}

/// Waits until `condition` gives a value.
async fn wait_until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = tokio::time::Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < SOON, "waited {SOON:?} in vain until {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[tokio::test]
async fn an_index_that_the_server_guessed_is_refused_before_a_letter_is_lost_in_it() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    server.delete_index("letters-foreign");
    server.request("PUT", "/letters-foreign/_doc/x?refresh=true", Some(&json!({"topic": "a", "offset": 1}))).ok();
    let store = store(server, "letters-foreign");
    let (text, remedy) = unavailable(store.put(vec![letter("a", 0, 1)]).await);
    assert!(text.contains("cannot be changed from type") && remedy.contains("dead_letters.index"), "{text}: {remedy}");
    server.delete_index("letters-foreign");
    store.put(vec![letter("a", 0, 1)]).await.expect("kept");
    // A document that is no letter hides none, also where it lies under a letter's id.
    server.request("PUT", "/letters-foreign/_doc/x?refresh=true", Some(&json!({"topic": "a"}))).ok();
    let taken = letter("a", 0, 2);
    server.request("PUT", &format!("/letters-foreign/_doc/{}", taken.id), Some(&json!({"topic": 5}))).ok();
    unavailable(store.get(&taken.id).await);
    store.put(vec![taken.clone()]).await.expect("kept");
    assert_eq!(store.list(query()).await.expect("lists"), [letter("a", 0, 1), taken]);
    server.delete_index("letters-foreign");
}

#[tokio::test]
async fn thousands_of_letters_are_listed_in_order() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    server.delete_index("letters-many");
    let store = store(server, "letters-many");
    let mut letters: Vec<DeadLetter> = (0..2500).map(|number| letter("many", number % 3, i64::from(number / 3))).collect();
    store.put(letters.clone()).await.expect("kept");
    letters.sort_by_key(|letter| (letter.partition, letter.offset));
    let found = pages(&store, Query { limit: 1000, ..query() }).await;
    assert!(found == letters, "{} letters", found.len());
    let of_one = pages(&store, Query { topic: Some(name("many")), partition: Some(1), limit: 333, ..query() }).await;
    assert_eq!(of_one.len(), 833);
    // All at once they are known, and nothing is there twice.
    store.put(letters.clone()).await.expect("kept");
    let again = pages(&store, Query { limit: 1000, ..query() }).await;
    assert!(again.len() == 2500 && again.iter().all(|letter| letter.attempts == 2), "{} letters", again.len());
    server.delete_index("letters-many");
}

#[tokio::test]
async fn attempts_of_two_instances_add_up_from_the_first_letter_on() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    server.delete_index("letters-writers");
    let (one, other) = (store(server, "letters-writers"), store(server, "letters-writers"));
    let letters: Vec<DeadLetter> = (0..20).map(|offset| letter("a", 0, offset)).collect();
    let (first, second) = tokio::join!(one.put(letters.clone()), other.put(letters.iter().rev().cloned().collect()));
    first.expect("kept");
    second.expect("kept");
    let found = one.list(query()).await.expect("lists");
    let attempts: Vec<u32> = found.iter().map(|letter| letter.attempts).collect();
    assert_eq!(attempts, [2; 20]);
    server.delete_index("letters-writers");
}

#[tokio::test]
async fn what_others_wrote_counts_and_room_that_they_make_is_noticed() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    server.delete_index("letters-full");
    let limited = || ElasticsearchDeadLetters::new(&configuration(server), "letters-full", 30_000).expect("a store");
    let large = |offset| with_payload(letter("a", 0, offset), &[1; 20_000]);
    limited().put(vec![large(1)]).await.expect("kept");
    let other = limited();
    let full = other.put(vec![large(2)]).await;
    assert!(matches!(full, Err(Error::Full { used: 21_024, limit: 30_000 })), "{full:?}");
    assert_eq!(other.list(query()).await.expect("lists"), [large(1)]);
    server.request("DELETE", &format!("/letters-full/_doc/{}", large(1).id), None).ok();
    wait_for_put(&other, large(2)).await;
    assert_eq!(other.bytes(), 21_024);
    server.delete_index("letters-full");
}

/// An address before the server that answers 413 to bodies of more than `longest` bytes, as a proxy with a limit does.
fn narrow(server: &Elasticsearch, longest: usize) -> String {
    let upstream = server.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is none of the test's business.
            let _ = pass_on(stream, &upstream, longest);
        }
    });
    url
}

fn pass_on(mut client: TcpStream, upstream: &str, longest: usize) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        assert!(!lower.starts_with("transfer-encoding:"), "{line}");
        if line.trim().is_empty() {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if length > longest {
        return client.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: 8\r\n\r\n<html>\r\n");
    }
    let mut server = TcpStream::connect(upstream)?;
    server.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    // The client must not send its next request on this connection.
    let status_end = answer.windows(2).position(|pair| pair == b"\r\n").expect("a status line");
    let (status, rest) = answer.split_at(status_end);
    client.write_all(&[status, b"\r\nconnection: close", rest].concat())
}

/// Bytes that do not become fewer when they are compressed.
fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8 ^ (number.wrapping_mul(40_503) >> 7) as u8).collect()
}

#[tokio::test]
async fn a_letter_too_large_for_a_proxy_is_kept_without_its_payload_and_one_that_was_kept_loses_nothing() {
    let servers = servers::together();
    let server = &servers.elasticsearch;
    server.delete_index("letters-large");
    let kept = with_payload(letter("a", 0, 1), &noise(80_000));
    store(server, "letters-large").put(vec![kept.clone()]).await.expect("kept");

    let config = ElasticsearchConfig { urls: vec![narrow(server, 10_000)], ..configuration(server) };
    let behind = ElasticsearchDeadLetters::new(&config, "letters-large", 1 << 30).expect("a store");
    let large = with_payload(letter("a", 0, 2), &noise(90_000));
    let again = DeadLetter { last_at: suite::at(300), ..kept.clone() };
    behind.put(vec![again.clone(), large.clone(), letter("a", 0, 3)]).await.expect("kept");

    let found = store(server, "letters-large").list(query()).await.expect("lists");
    let expected = [DeadLetter { attempts: 2, ..again }, DeadLetter { payload_base64: None, truncated: true, ..large }, letter("a", 0, 3)];
    assert!(found == expected, "{:?}", found.iter().map(|letter| (letter.offset, letter.attempts, letter.truncated)).collect::<Vec<_>>());
    server.delete_index("letters-large");
}

#[test]
fn a_mended_mapping_and_a_redrive_bring_every_local_letter_into_the_index() {
    mended_and_redriven("local", "redrive-local");
}

#[test]
fn a_mended_mapping_and_a_redrive_bring_every_letter_of_an_index_into_the_index() {
    mended_and_redriven("elasticsearch", "redrive-index");
}

/// A thousand records that the mapping refuses become documents once it is mended, by one redrive with a filter; a record that it still refuses stays a letter and says so.
fn mended_and_redriven(store: &str, topic: &str) {
    let servers = servers::together();
    let (kafka, sink) = (&servers.kafka, &servers.elasticsearch);
    kafka.create_topic(topic, 3);
    sink.delete_index(&format!("letters-{topic}"));
    sink.create_strict_index(topic, &json!({"number": {"type": "long"}}));
    let producer = Producer::new(kafka);
    for number in 0..1_011 {
        let value = match number {
            0..1_000 => format!(r#"{{"number":{number},"unknown":true}}"#),
            1_000 => r#"{"number":"not a number"}"#.to_owned(),
            _ => format!(r#"{{"number":{number}}}"#),
        };
        producer.send(Record::new(topic, value.as_bytes()).to(number % 3));
    }
    producer.flush();
    let topics = format!("  - {{topic: {topic}, format: json}}");
    let config = format!("{}dead_letters: {{store: {store}, index: letters-{topic}}}\n", main_job::config(kafka, sink, topic, &topics));
    let mut drover = Drover::start(&config, &[]);
    drover.wait_caught_up(topic, CAUGHT_UP);
    assert_eq!(drover.letters().len(), 1_001);

    // Nothing is mended yet: the try is told, and nothing is lost.
    let refused = "strict_dynamic_mapping_exception";
    let first = drover.get(&format!("/api/v1/dead-letters?topic={topic}&error_type={refused}&limit=1"))["items"][0].clone();
    let path = format!("/api/v1/dead-letters/{}", first["id"].as_str().expect("an id"));
    let accepted = drover.post(&format!("{path}/redrive"), None);
    assert_eq!((accepted.status, accepted.json()), (202, json!({"accepted": 1})));
    let failed = drover.wait_for("the failed try is told", SOON, |drover| Some(drover.get(&path)).filter(|letter| !letter["redriven_at"].is_null()));
    assert_eq!((&failed["attempts"], &failed["error"]["type"], &failed["first_at"]), (&json!(2), &json!(refused), &first["first_at"]));
    assert!(failed["last_at"].as_str() > first["last_at"].as_str() && failed["payload_base64"] == first["payload_base64"], "{failed}");

    sink.request("PUT", &format!("/{topic}/_mapping"), Some(&json!({"properties": {"unknown": {"type": "boolean"}}}))).ok();
    // A paused topic is redriven too.
    assert_eq!(drover.put(&format!("/api/v1/topics/{topic}/pause"), &json!({})).status, 200);
    let accepted = drover.post(&format!("/api/v1/dead-letters/redrive?topic={topic}&error_type={refused}"), None);
    assert_eq!((accepted.status, accepted.json()), (202, json!({"accepted": 1_000})));
    drover.wait_for("every letter that the mapping takes now is gone", CAUGHT_UP, |drover| (drover.letters().len() == 1).then_some(()));
    sink.refresh(topic);
    assert_eq!(sink.count(topic), 1_010);

    let accepted = drover.post("/api/v1/dead-letters/redrive", None);
    assert_eq!((accepted.status, accepted.json()), (202, json!({"accepted": 1})));
    let left = drover.wait_for("what is refused still says so", SOON, |drover| {
        let letter = drover.get("/api/v1/dead-letters")["items"][0].clone();
        (!letter["redriven_at"].is_null()).then_some(letter)
    });
    assert_eq!((&left["error"]["type"], &left["attempts"]), (&json!(sink.product().parsing_error()), &json!(2)));

    let ledger = producer.ledger();
    let id = kafka.topic_id(topic);
    let generation = Generation { committed: kafka.committed(topic, topic), ..Generation::new(topic, &id, &ledger.acked) };
    let documents = sink.scan(topic);
    assert_kept(&Evidence { generations: &[generation], unknown: &ledger.unknown, documents: &documents, letters: &drover.letters() });

    let path = format!("/api/v1/dead-letters/{}", left["id"].as_str().expect("an id"));
    assert_eq!((drover.delete(&path).status, drover.delete(&path).status), (204, 404));
    assert_eq!(drover.letters().len(), 0);
    assert_eq!(drover.post(&format!("{path}/redrive"), None).status, 404);
    sink.delete_index(&format!("letters-{topic}"));
}
