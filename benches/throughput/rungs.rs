//! Hand-written librdkafka loops: the price that drover is compared with. No group, no commits, no supervision, no retries; nothing of drover's code.
//!
//! * *count*: `rd_kafka_consume_batch_queue` over all partitions, count, destroy.
//! * *build*: the same, with an action line and the payload appended to a body of 8 MiB, which is thrown away when it is full.
//! * *send*: the same, with two threads that have a connection each and POST the bodies.
//! * *poll*: as *send*, but with records taken one by one through the safe API: what batches save.

#![allow(unsafe_code, reason = "batch consumption is not in the safe API")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_message_destroy, rd_kafka_message_t, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer,
    rd_kafka_resp_err_t,
};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::contenders::BULK_BYTES;

/// The rung that only counts.
pub const COUNT: &str = "count";
/// The rung that builds bodies.
pub const BUILD: &str = "build";
/// The rung that builds and sends bodies.
pub const SEND: &str = "send";
/// The rung that does the same with records taken one by one.
pub const POLL: &str = "poll";
/// What a rung prints before the seconds.
pub const DONE: &str = "rung done ";

/// Records taken at once.
const BATCH: usize = 10_000;
/// Requests at once, as drover's default.
const IN_FLIGHT: usize = 2;

struct Arguments {
    rung: String,
    bootstrap: String,
    topic: String,
    partitions: i32,
    records: u64,
    endpoint: String,
}

/// `count|build|send|poll BOOTSTRAP TOPIC PARTITIONS RECORDS ENDPOINT`; prints [`DONE`] and waits to be killed.
pub fn run(arguments: &[String]) {
    let [rung, bootstrap, topic, partitions, records, endpoint, ..] = arguments else {
        panic!("rung NAME BOOTSTRAP TOPIC PARTITIONS RECORDS ENDPOINT")
    };
    let arguments = Arguments {
        rung: rung.clone(),
        bootstrap: bootstrap.clone(),
        topic: topic.clone(),
        partitions: partitions.parse().expect("a number of partitions"),
        records: records.parse().expect("a number of records"),
        endpoint: endpoint.clone(),
    };
    let seconds = if arguments.rung == POLL { poll(&arguments) } else { consume(&arguments) };
    println!("{DONE}{seconds}");
    loop {
        thread::park();
    }
}

fn consume(arguments: &Arguments) -> f64 {
    let consumer = assigned_consumer(arguments);
    // SAFETY: the consumer outlives the queue, which is destroyed below.
    let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    let mut messages: Vec<*mut rd_kafka_message_t> = vec![std::ptr::null_mut(); BATCH];
    let mut sender = match arguments.rung.as_str() {
        COUNT => None,
        BUILD => Some(Bodies::to_nobody(&arguments.topic)),
        SEND => Some(Bodies::to(&arguments.endpoint, &arguments.topic)),
        other => panic!("there is no rung {other}"),
    };
    let mut started: Option<Instant> = None;
    let mut seen = 0;
    while seen < arguments.records {
        // SAFETY: the buffer has room for BATCH pointers.
        let count = unsafe { rd_kafka_consume_batch_queue(queue, 1000, messages.as_mut_ptr(), BATCH) };
        let count = usize::try_from(count).expect("no error from the queue");
        if count > 0 && started.is_none() {
            started = Some(Instant::now());
        }
        for message in &messages[..count] {
            // SAFETY: librdkafka has filled `count` pointers; each message is ours until it is destroyed.
            unsafe {
                let record = &**message;
                assert_eq!(record.err, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "an error instead of a record");
                if let Some(sender) = &mut sender {
                    let payload = std::slice::from_raw_parts(record.payload.cast::<u8>(), record.len);
                    sender.append(record.partition, record.offset, payload);
                }
                rd_kafka_message_destroy(*message);
            }
            seen += 1;
        }
    }
    if let Some(sender) = sender {
        sender.finish();
    }
    let seconds = started.map_or(0.0, |at| at.elapsed().as_secs_f64());
    // SAFETY: got above, not used any more.
    unsafe { rd_kafka_queue_destroy(queue) };
    seconds
}

/// The same with `BaseConsumer::poll`, which gives one record a call.
fn poll(arguments: &Arguments) -> f64 {
    let consumer = assigned_consumer(arguments);
    let mut sender = Bodies::to(&arguments.endpoint, &arguments.topic);
    let mut started: Option<Instant> = None;
    let mut seen = 0;
    while seen < arguments.records {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        let message = message.expect("a record");
        started.get_or_insert_with(Instant::now);
        sender.append(message.partition(), message.offset(), message.payload().expect("a value"));
        seen += 1;
    }
    sender.finish();
    started.map_or(0.0, |at| at.elapsed().as_secs_f64())
}

/// librdkafka's options as drover's.
fn assigned_consumer(arguments: &Arguments) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &arguments.bootstrap)
        .set("group.id", "bench-rung")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    config
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.queue.backoff.ms", "10")
        .set("check.crcs", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..arguments.partitions {
        list.add_partition_offset(&arguments.topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("an assignment");
    consumer
}

/// A body in the making, and the threads that send finished ones.
struct Bodies {
    index: String,
    body: Vec<u8>,
    senders: Option<Senders>,
}

struct Senders {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Bodies {
    fn to_nobody(index: &str) -> Self {
        Self { index: index.to_owned(), body: Vec::with_capacity(BULK_BYTES), senders: None }
    }

    fn to(endpoint: &str, index: &str) -> Self {
        let (full, bodies) = sync_channel::<Vec<u8>>(0);
        let (used, empty) = sync_channel::<Vec<u8>>(IN_FLIGHT + 1);
        for _ in 0..IN_FLIGHT {
            used.send(Vec::with_capacity(BULK_BYTES)).expect("room for every body");
        }
        let bodies = Arc::new(Mutex::new(bodies));
        let threads = (0..IN_FLIGHT).map(|_| {
            let (bodies, used, endpoint) = (Arc::clone(&bodies), used.clone(), endpoint.to_owned());
            thread::spawn(move || send_bodies(&endpoint, &bodies, &used))
        });
        let threads = threads.collect();
        Self { index: index.to_owned(), body: Vec::with_capacity(BULK_BYTES), senders: Some(Senders { full, empty, threads }) }
    }

    fn append(&mut self, partition: i32, offset: i64, payload: &[u8]) {
        // Longer than any action line of this benchmark.
        const ACTION_BYTES: usize = 128;
        if self.body.len() + payload.len() + ACTION_BYTES > BULK_BYTES {
            self.hand_over();
        }
        let _ = writeln!(self.body, r#"{{"index":{{"_index":"{}","_id":"AAAAAAAAAAAAAAAAAAAAAA:{partition}:{offset}"}}}}"#, self.index);
        self.body.extend_from_slice(payload);
        self.body.push(b'\n');
    }

    fn hand_over(&mut self) {
        let Some(senders) = &self.senders else {
            std::hint::black_box(self.body.as_slice());
            self.body.clear();
            return;
        };
        let next = senders.empty.recv().expect("the senders live");
        let body = std::mem::replace(&mut self.body, next);
        senders.full.send(body).expect("the senders live");
    }

    fn finish(mut self) {
        if !self.body.is_empty() {
            self.hand_over();
        }
        let Some(senders) = self.senders else { return };
        drop(senders.full);
        for thread in senders.threads {
            thread.join().expect("a sender that did not panic");
        }
    }
}

fn send_bodies(endpoint: &str, bodies: &Mutex<Receiver<Vec<u8>>>, used: &SyncSender<Vec<u8>>) {
    let mut stream = TcpStream::connect(endpoint).expect("the endpoint");
    stream.set_nodelay(true).expect("a socket option");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut answer = Vec::new();
    loop {
        let next = bodies.lock().expect("no panic while waiting").recv();
        let Ok(mut body) = next else { return };
        let head = format!(
            "POST /_bulk?filter_path=errors,items.*.status,items.*.error HTTP/1.1\r\nHost: {endpoint}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("the endpoint reads");
        stream.write_all(&body).expect("the endpoint reads");
        read_answer(&mut reader, &mut answer);
        assert!(answer.starts_with(br#"{"errors":false"#), "the endpoint refused a body");
        body.clear();
        if used.send(body).is_err() {
            return;
        }
    }
}

fn read_answer(reader: &mut BufReader<TcpStream>, answer: &mut Vec<u8>) {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a head");
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    answer.resize(length, 0);
    reader.read_exact(answer).expect("a body");
}
