//! A steady trickle of numbered records, and when each was sent and acknowledged.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, Producer};

use crate::data;
use crate::endpoint::{Arrival, Endpoint, PROBE};
use crate::harness::kafka::Kafka;
use crate::harness::wait::wait_until;

const NO_PANIC: &str = "no panic while a time is noted";
/// Of what is sent last.
const ARRIVED_WITHIN: Duration = Duration::from_secs(120);

/// The trickle. Probe `n` goes to partition [`data::partition_of`]`(n)`.
#[derive(Debug)]
pub struct Probes {
    sent: Arc<Mutex<Vec<Instant>>>,
    has_to_stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probes {
    /// Sends so many records a second, evenly spaced, until it is told to stop.
    pub fn start(kafka: &Kafka, topic: &str, per_second: u32) -> Self {
        let mut config = kafka.client();
        // Each record is on its way at once: the producer's waiting is not drover's.
        config.set("linger.ms", "0");
        let producer: BaseProducer = config.create().expect("a producer");
        let sent = Arc::new(Mutex::new(Vec::new()));
        let has_to_stop = Arc::new(AtomicBool::new(false));
        let (times, stop, topic) = (Arc::clone(&sent), Arc::clone(&has_to_stop), topic.to_owned());
        let thread = thread::spawn(move || {
            let started = Instant::now();
            let interval = Duration::from_secs(1) / per_second;
            let mut number = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                // What is late is sent at once, so that the rate stays.
                thread::sleep((started + interval * number).saturating_duration_since(Instant::now()));
                let record = record(u64::from(number));
                times.lock().expect(NO_PANIC).push(Instant::now());
                data::send(&producer, &topic, data::partition_of(u64::from(number)), record.as_bytes());
                producer.poll(Duration::ZERO);
                number += 1;
            }
            producer.flush(Duration::from_secs(30)).expect("every probe is in Kafka");
        });
        Self { sent, has_to_stop, thread: Some(thread) }
    }

    /// When each probe so far was sent.
    pub fn sent(&self) -> Vec<Instant> {
        self.sent.lock().expect(NO_PANIC).clone()
    }

    /// Waits until every partition has had a probe acknowledged, so that what follows is not the start.
    pub fn wait_flowing(&self, endpoint: &Endpoint) {
        wait_until("probes of every partition arrive", ARRIVED_WITHIN, || {
            let mut seen: Vec<i32> = endpoint.arrivals().iter().map(|arrival| data::partition_of(arrival.probe)).collect();
            seen.sort_unstable();
            seen.dedup();
            (seen.len() == data::PARTITIONS as usize).then_some(())
        });
    }

    /// Stops sending and waits until everything has arrived. Panics when a probe is missing: then no figure is worth anything.
    pub fn finish(mut self, endpoint: &Endpoint) -> Journey {
        self.stop();
        let sent = self.sent();
        let arrivals = wait_until("every probe has arrived", ARRIVED_WITHIN, || {
            let journey = Journey { sent: sent.clone(), arrivals: endpoint.arrivals() };
            (journey.first_arrivals().len() == sent.len()).then_some(journey.arrivals)
        });
        Journey { sent, arrivals }
    }

    /// Stops sending and says when each was sent.
    pub fn stop_sending(mut self) -> Vec<Instant> {
        self.stop();
        self.sent()
    }

    fn stop(&mut self) {
        self.has_to_stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the producing thread did not panic");
        }
    }
}

/// A JSON object of about 300 bytes.
fn record(number: u64) -> String {
    let mut record = String::from_utf8(PROBE.to_vec()).expect("ASCII");
    let _ = write!(record, "{number},\"message\":\"{}\"}}", "a line of a log ".repeat(16).trim_end());
    record
}

/// When the probes were sent, and when they were acknowledged.
#[derive(Debug)]
pub struct Journey {
    /// By number.
    pub sent: Vec<Instant>,
    /// In the order of the answers.
    pub arrivals: Vec<Arrival>,
}

impl Journey {
    /// When each probe was acknowledged first.
    pub fn first_arrivals(&self) -> BTreeMap<u64, Instant> {
        let mut first = BTreeMap::new();
        for arrival in &self.arrivals {
            first.entry(arrival.probe).or_insert(arrival.at);
        }
        first
    }

    /// Seconds from sent to acknowledged, of the probes sent in a span of time.
    pub fn latencies(&self, from: Instant, to: Instant) -> Vec<f64> {
        let first = self.first_arrivals();
        let in_span = self.sent.iter().enumerate().filter(|(_, sent)| (from..to).contains(*sent));
        in_span.filter_map(|(number, sent)| Some((*first.get(&(number as u64))? - *sent).as_secs_f64())).collect()
    }

    /// The longest time in which nothing of a partition was acknowledged, of those that overlap a span.
    pub fn silence(&self, partition: i32, from: Instant, to: Instant) -> Duration {
        let times: Vec<Instant> =
            self.arrivals.iter().filter(|arrival| data::partition_of(arrival.probe) == partition).map(|arrival| arrival.at).collect();
        let gaps = times.windows(2).filter(|pair| pair[1] > from && pair[0] < to).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// From `from` to the first acknowledgement of a probe of a partition that was sent afterwards.
    pub fn resumed_after(&self, partition: i32, from: Instant) -> Option<Duration> {
        let is_later = |probe: u64| self.sent.get(probe as usize).is_some_and(|sent| *sent >= from);
        let of_partition = self.arrivals.iter().filter(|arrival| data::partition_of(arrival.probe) == partition);
        of_partition.filter(|arrival| is_later(arrival.probe)).map(|arrival| arrival.at - from).min()
    }
}
