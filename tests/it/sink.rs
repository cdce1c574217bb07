//! The bulk sink through its public interface, against a stub that answers as badly as servers do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover::config::{Compression, ElasticsearchConfig, SinkAuth};
use drover::sink::elasticsearch::{ElasticsearchSink, RunError};
use drover::sink::{Outcome, Reply, Segment, SinkHandle, SinkStats};
use drover::status::ReasonCode;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use crate::harness::gate::stub;

use stub::{Answer, StubServer};

const SOON: Duration = Duration::from_secs(30);

fn configuration(server: &StubServer) -> ElasticsearchConfig {
    ElasticsearchConfig {
        urls: vec![server.url()],
        auth: SinkAuth::Anonymous,
        ca_file: None,
        client_identity: None,
        max_bytes: 8 << 20,
        linger: Duration::from_millis(20),
        in_flight: 2,
        timeout: Duration::from_secs(10),
        compression: Compression::Off,
    }
}

/// A sink that runs, and the outcomes of what is submitted to it.
struct Bench {
    sink: Arc<ElasticsearchSink>,
    handle: SinkHandle,
    stats: Arc<SinkStats>,
    cancel: CancellationToken,
    to: mpsc::UnboundedSender<(u64, Outcome)>,
    outcomes: mpsc::UnboundedReceiver<(u64, Outcome)>,
}

impl Bench {
    fn new(config: &ElasticsearchConfig) -> Self {
        let (sink, handle, stats) = ElasticsearchSink::new(config).expect("a sink");
        let (to, outcomes) = mpsc::unbounded_channel();
        Self { sink, handle, stats, cancel: CancellationToken::new(), to, outcomes }
    }

    fn run(&self) -> JoinHandle<Result<(), RunError>> {
        let sink = self.sink.clone();
        let cancel = self.cancel.clone();
        tokio::spawn(async move { sink.run(cancel).await })
    }

    fn segment(&self, ticket: u64, operation: &str, sources: &[&str]) -> Segment {
        let mut body = Vec::new();
        let mut ends = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            body.extend_from_slice(
                format!("{{\"{operation}\":{{\"_index\":\"a\",\"_id\":\"{ticket}:{number}\"}}}}\n{{\"m\":\"{source}\"}}\n").as_bytes(),
            );
            ends.push(u32::try_from(body.len()).expect("a small body"));
        }
        Segment { body: body.into(), ends, alone: false, hurry: false, reply: Reply::new(ticket, self.to.clone()) }
    }

    async fn outcome(&mut self) -> (u64, Outcome) {
        tokio::time::timeout(SOON, self.outcomes.recv()).await.expect("an outcome in time").expect("an outcome")
    }

    async fn end(self, life: JoinHandle<Result<(), RunError>>) {
        self.cancel.cancel();
        assert_eq!(life.await.expect("no panic"), Ok(()));
    }
}

/// What a row of the table leads to.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Settled,
    SentAgain,
    Rejected,
    Parked(ReasonCode),
}

/// One error of an item: operation, status, type, reason.
type Row = (&'static str, u16, &'static str, &'static str, Expected);

const ROWS: &[Row] = &[
    ("create", 409, "version_conflict_engine_exception", "document already exists", Expected::Settled),
    ("index", 429, "es_rejected_execution_exception", "queue capacity", Expected::SentAgain),
    ("index", 429, "circuit_breaking_exception", "data too large", Expected::SentAgain),
    ("index", 503, "unavailable_shards_exception", "primary shard is not active", Expected::SentAgain),
    ("index", 500, "null_pointer_exception", "", Expected::SentAgain),
    ("index", 400, "brand_new_exception", "surprise", Expected::SentAgain),
    ("index", 400, "document_parsing_exception", "failed to parse", Expected::Rejected),
    ("index", 400, "mapper_parsing_exception", "failed to parse", Expected::Rejected),
    ("index", 400, "strict_dynamic_mapping_exception", "not allowed", Expected::Rejected),
    ("index", 400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", Expected::Rejected),
    ("index", 400, "index_closed_exception", "closed", Expected::Parked(ReasonCode::IndexClosed)),
    ("index", 403, "cluster_block_exception", "index [a] blocked by: [FORBIDDEN/8/index write (api)];", Expected::Parked(ReasonCode::IndexBlocked)),
    (
        "index",
        429,
        "cluster_block_exception",
        "[TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]",
        Expected::Parked(ReasonCode::IndexBlocked),
    ),
    ("index", 404, "index_not_found_exception", "no such index [a]", Expected::Parked(ReasonCode::IndexBlocked)),
    ("index", 403, "security_exception", "unauthorized", Expected::Parked(ReasonCode::Credentials)),
    (
        "index",
        400,
        "validation_exception",
        "Validation Failed: 1: this action would add [2] shards, but this cluster has [1000]/[1000] maximum normal shards open;",
        Expected::Parked(ReasonCode::ShardLimit),
    ),
];

#[tokio::test]
async fn every_row_of_the_table_has_its_outcome() {
    for (operation, status, error_type, reason, expected) in ROWS.iter().copied() {
        let server = StubServer::start().await;
        server.script(move |request| match request.number {
            0 => Answer::item_error("culprit", status, error_type, reason),
            _ => Answer::Normal,
        });
        let mut bench = Bench::new(&configuration(&server));
        let life = bench.run();
        bench.handle.submit(bench.segment(1, operation, &["fine", "culprit"])).await;
        let (_, outcome) = bench.outcome().await;
        let fits = match (expected, &outcome) {
            (Expected::Settled, Outcome::Settled { rejected, retried: 0 }) => rejected.is_empty(),
            (Expected::SentAgain, Outcome::Settled { rejected, retried: 1 }) => rejected.is_empty() && server.document_count() == 2,
            (Expected::Rejected, Outcome::Settled { rejected, retried: 0 }) => {
                rejected.len() == 1 && rejected[0].item == 1 && rejected[0].error_type == error_type
            }
            (Expected::Parked(code), Outcome::Parked { cause, .. }) => {
                cause.code == code && cause.message.contains(error_type) && !cause.remedy.is_empty()
            }
            _ => false,
        };
        assert!(fits, "{status} {error_type}: {expected:?} expected, got {outcome:?}");
        bench.end(life).await;
    }
}

/// The failpoint belongs to the process, so it fires only for the thread of the test that armed it.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_sink_that_panics_forgets_its_work_and_nothing_else() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let server = StubServer::start().await;
    let mut bench = Bench::new(&configuration(&server));
    let mine = std::thread::current().id();
    let armed = AtomicBool::new(true);
    fail::cfg_callback("sink_send", move || {
        if std::thread::current().id() == mine && armed.swap(false, Ordering::SeqCst) {
            panic!("injected");
        }
    })
    .expect("a failpoint");
    let first_life = bench.run();
    bench.handle.submit(bench.segment(1, "index", &["in work"])).await;
    assert_eq!(bench.outcome().await, (1, Outcome::Lost));
    assert!(first_life.await.expect_err("a panic").is_panic());

    bench.handle.submit(bench.segment(2, "index", &["queued while nothing runs"])).await;
    let second_life = bench.run();
    assert_eq!(bench.outcome().await, (2, Outcome::Settled { rejected: Vec::new(), retried: 0 }));
    bench.handle.submit(bench.segment(1, "index", &["in work"])).await;
    assert_eq!(bench.outcome().await, (1, Outcome::Settled { rejected: Vec::new(), retried: 0 }));
    assert_eq!(server.document_count(), 2);
    fail::remove("sink_send");
    bench.end(second_life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_documents_do_not_take_long_or_many_requests() {
    const SEGMENTS: u64 = 100;
    const ITEMS: usize = 1000;
    let server = StubServer::start().await;
    server.forget_requests();
    let mut bench = Bench::new(&configuration(&server));
    let source = "x".repeat(300);
    let sources = vec![source.as_str(); ITEMS];
    let segments: Vec<Segment> = (0..SEGMENTS).map(|ticket| bench.segment(ticket, "index", &sources)).collect();
    let bytes: usize = segments.iter().map(|segment| segment.body.len()).sum();
    let life = bench.run();
    let started = Instant::now();
    let handle = bench.handle.clone();
    let submitting = tokio::spawn(async move {
        for segment in segments {
            handle.reserve().await.submit(segment);
        }
    });
    for _ in 0..SEGMENTS {
        let (_, outcome) = bench.outcome().await;
        assert_eq!(outcome, Outcome::Settled { rejected: Vec::new(), retried: 0 });
    }
    let took = started.elapsed();
    submitting.await.expect("all submitted");
    assert_eq!(server.document_count(), 100_000);
    assert_eq!(server.item_count(), 100_000, "nothing is sent twice");
    // Full bodies, save the last one and those that are cut at a segment's end.
    let least = bytes.div_ceil(8 << 20);
    assert!((least..=2 * least + 2).contains(&server.request_count()), "{} requests for {bytes} bytes", server.request_count());
    assert!(server.most_at_once() <= 2);
    assert_eq!(bench.stats.totals().duration_count, server.request_count() as u64);
    // The stub parses and stores every document and takes most of this time; slower than this would be a fault, not load.
    assert!(took < Duration::from_secs(15), "{took:?}");
    println!("{:.0} documents per second", 100_000.0 / took.as_secs_f64());
    bench.end(life).await;
}
