//! The bulk sink for Elasticsearch and OpenSearch.
//!
//! Guarantees: an item is settled only when the server has confirmed it in an answer that is whole; an item is given up only for an error that the table of
//! `sink::classify` knows as final; everything else is sent again, without a limit of attempts, and [`SinkHealth`] says why. Only failed items are sent again. Items of different
//! segments share requests, their fates are separate. A restarted [`run`](ElasticsearchSink::run) answers what was in work with [`Outcome::Lost`] and goes on with
//! the queue. Owns gathering, requests, retries and the sink's health. Does not know Kafka, offsets or dead letters.
//!
//! How a segment goes through: it is gathered with others until a body is full, or the first of them has waited for `linger`, or one is in a `hurry`; the batch is sent
//! when fewer than the allowed requests are under way, to the node that is well and has the fewest of them. Then:
//!
//! | what comes back | what is done |
//! |---|---|
//! | success | the segments' items are settled |
//! | some items failed | item by item: settled, sent again alone, rejected, or the segment parked |
//! | no answer | the node is left alone for a while; the next one gets the batch at once; without any, it waits |
//! | 429, 500 to 599, no answer to this request (a page, a cut answer), while another node is well | the node is left alone for a while; the next one gets the batch at once |
//! | 429, 502, 503, 504 of all nodes | the batch waits, and fewer requests are sent |
//! | 429 for all of its items | the batch joins others that wait for that, and fewer requests are sent |
//! | 413 | halved, down to the single item that is too large; later bodies are smaller until that size is accepted for a while; below 64 KiB: unknown error |
//! | 400 | halved, down to the culprit |
//! | 401, 403 | the batch waits longer; nothing is parked or given up |
//! | a redirect | not followed; the batch waits; unknown error |
//! | anything else | the batch waits; unknown error |
//!
//! Batches that wait hold no request slot, so one that fails for ever stops no other; while the sink as a whole is in trouble no new segments are taken beyond one batch for each slot.
//! The order between requests does not matter, since each document has its own id.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::answer::{self, ErrorText, Failure, Reading, Sent};
use super::bulk::{self, Batch, Gathering, Part, Place};
use super::classify::{self, ItemClass, Obstacle, RequestClass};
use super::node::{self, Exchange, Node, NodeHealth, PING_TIMEOUT};
use super::pace::{Backoff, BodySize, Pace};
use super::segments::OpenSegments;
use super::stats::{RequestOutcome, SinkStats};
use super::trouble::{Announcement, Announcer, Troubles};
use super::{Outcome, ParkCause, Rejection, Segment, SinkHandle, SinkHealth};
use crate::config::ElasticsearchConfig;
use crate::mutants;
use crate::status::{Reason, ReasonCode};

pub use super::node::SetupError;

/// Segments that wait in the queue; their bytes are in the submitters' budget.
const QUEUE: usize = 16;

/// However small the bodies that a server takes, smaller ones are not tried, and no smaller item is too large: no server has such a limit by itself (Elasticsearch's is 100 MB), so
/// whatever refuses this size is a fault on the way, and would refuse every document.
const SMALLEST_MAX_BYTES: usize = 64 << 10;

/// Why [`ElasticsearchSink::run`] ended without being told to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Every [`SinkHandle`] is gone and nothing is in work.
    #[error("nobody holds a handle of the sink any more")]
    HandlesGone,
}

/// Waiting times that only tests change.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    /// Between tries of a batch.
    retry: Backoff,
    /// While credentials are refused: an operator acts in minutes, and a server may lock an account that fails too often.
    credentials: Backoff,
    /// Before a dead node is tried.
    node: Backoff,
    /// How long refusal for pressure has to last before it is told.
    rejecting_after: Duration,
    /// Between changes of the number of requests at once.
    pace_step: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            retry: Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) },
            credentials: Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(30) },
            node: Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) },
            rejecting_after: Duration::from_secs(3),
            pace_step: Duration::from_secs(5),
        }
    }
}

/// The sink. Made once; [`run`](Self::run) is its life, and may be called again after one has ended.
#[derive(Debug)]
pub struct ElasticsearchSink {
    nodes: Vec<Arc<Node>>,
    max_bytes: usize,
    linger: Duration,
    in_flight: usize,
    timeout: Duration,
    tuning: Tuning,
    /// Held by the life that runs; the queue outlives it.
    segments: Mutex<mpsc::Receiver<Segment>>,
    health: watch::Sender<SinkHealth>,
    stats: Arc<SinkStats>,
}

impl ElasticsearchSink {
    /// A sink, a handle to it, and its counters. Reads the certificate files; connects to nothing.
    pub fn new(config: &ElasticsearchConfig) -> Result<(Arc<Self>, SinkHandle, Arc<SinkStats>), SetupError> {
        Self::with_tuning(config, Tuning::default())
    }

    fn with_tuning(config: &ElasticsearchConfig, tuning: Tuning) -> Result<(Arc<Self>, SinkHandle, Arc<SinkStats>), SetupError> {
        let nodes = node::clients(config)?.into_iter().map(Arc::new).collect();
        let (submit, segments) = mpsc::channel(QUEUE);
        let (health, health_view) = watch::channel(SinkHealth::default());
        let stats = Arc::new(SinkStats::default());
        let sink = Self {
            nodes,
            max_bytes: usize::try_from(config.max_bytes).unwrap_or(usize::MAX),
            linger: config.linger,
            in_flight: config.in_flight.max(1),
            timeout: config.timeout,
            tuning,
            segments: Mutex::new(segments),
            health,
            stats: stats.clone(),
        };
        Ok((Arc::new(sink), SinkHandle::new(submit, health_view), stats))
    }

    /// Sends what is submitted, until cancelled; then it ends at once, and what is in work is answered `Lost`.
    ///
    /// May be called again after it has ended or panicked. A second call while the first one runs waits for its end.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), RunError> {
        let mut segments = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            segments = self.segments.lock() => segments,
        };
        Life::new(self).run(&mut segments, &cancel).await
    }
}

/// Asks the nodes in turn whether one answers. Any answer counts, save one that refuses the credentials.
///
/// # Errors
///
/// A text for people: what each node said, or that the credentials are refused.
pub async fn probe(config: &ElasticsearchConfig) -> Result<(), String> {
    let nodes = node::clients(config).map_err(|error| error.to_string())?;
    let mut refusals = Vec::new();
    for node in &nodes {
        match node.ask("/_cluster/health", PING_TIMEOUT).await {
            Exchange::Answered { status: status @ (401 | 403), body } => {
                let error = answer::for_people(&answer::read_refusal(&body).to_string());
                return Err(format!("{} refuses the credentials with status {status} ({error})", node.url));
            }
            Exchange::Answered { .. } | Exchange::Broken(_) => return Ok(()),
            Exchange::Redirected(message) | Exchange::NoAnswer(message) => refusals.push(answer::for_people(&message)),
        }
    }
    Err(refusals.join("; "))
}

/// A request that has ended.
struct Landed {
    batch: Batch,
    node: usize,
    exchange: Exchange,
    took: Duration,
}

/// A node that failed before was asked for something small.
struct Proved {
    node: usize,
    exchange: Exchange,
}

/// Why a batch waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Nobody answers or lets us in; the first answer ends it.
    Outage,
    /// The sink refuses everything.
    Pressure,
    /// The sink had no room for its items; others may find some.
    Crowded,
    /// Something about its own items; others go on.
    Own,
}

struct Waiting {
    batch: Batch,
    until: Instant,
    hold: Hold,
}

/// One life of the sink: everything that a panic forgets.
struct Life<'a> {
    sink: &'a ElasticsearchSink,
    open: OpenSegments,
    gathering: Gathering,
    /// When the gathered body goes out although it is not full.
    gathered_until: Option<Instant>,
    ready: VecDeque<Batch>,
    waiting: Vec<Waiting>,
    flights: FuturesUnordered<BoxFuture<'static, Landed>>,
    /// Beside the requests and not among them: a silent node would hold a slot for most of the time.
    proofs: FuturesUnordered<BoxFuture<'static, Proved>>,
    nodes: NodeHealth,
    pace: Pace,
    troubles: Troubles,
    announcer: Announcer,
    /// The configured size of a body, or less where the server refused that.
    body_size: BodySize,
    /// Whether a smaller size was told: it rises and falls again while the limit stays.
    told_body_size: bool,
    last_batch: u64,
}

impl<'a> Life<'a> {
    fn new(sink: &'a ElasticsearchSink) -> Self {
        Self {
            sink,
            open: OpenSegments::default(),
            gathering: Gathering::default(),
            gathered_until: None,
            ready: VecDeque::new(),
            waiting: Vec::new(),
            flights: FuturesUnordered::new(),
            proofs: FuturesUnordered::new(),
            nodes: NodeHealth::new(sink.nodes.len(), sink.tuning.node),
            pace: Pace::new(sink.in_flight, sink.tuning.pace_step),
            troubles: Troubles::new(sink.tuning.rejecting_after),
            announcer: Announcer::default(),
            body_size: BodySize::new(sink.max_bytes, SMALLEST_MAX_BYTES),
            told_body_size: false,
            last_batch: 0,
        }
    }

    async fn run(mut self, segments: &mut mpsc::Receiver<Segment>, cancel: &CancellationToken) -> Result<(), RunError> {
        let mut handles_gone = false;
        loop {
            let now = Instant::now();
            self.move_due(now);
            self.launch(now);
            if handles_gone && self.open.is_empty() {
                return Err(RunError::HandlesGone);
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                Some(landed) = self.flights.next(), if !self.flights.is_empty() => {
                    self.land(landed);
                    self.publish();
                    self.open.deliver();
                }
                Some(proved) = self.proofs.next(), if !self.proofs.is_empty() => {
                    self.proved(proved);
                    self.publish();
                }
                segment = segments.recv(), if !handles_gone && self.takes_more() => match segment {
                    Some(segment) => self.take(segment),
                    None => handles_gone = true,
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Whether the queue is read: not while batches that nothing of their own keeps back already wait for every slot.
    fn takes_more(&self) -> bool {
        let held = self.waiting.iter().filter(|waiting| matches!(waiting.hold, Hold::Outage | Hold::Pressure)).count();
        self.ready.len() + held < self.sink.in_flight
    }

    fn take(&mut self, segment: Segment) {
        let Segment { body, ends, alone, hurry, reply } = segment;
        if body.is_empty() && ends.is_empty() {
            reply.send(Outcome::Settled { rejected: Vec::new(), retried: 0 });
            return;
        }
        if !bulk::is_well_formed(&body, &ends) {
            // A fault of ours that no server would understand either. Its reply answers `Lost`.
            error!(bytes = body.len(), items = ends.len(), "a segment does not describe its own items");
            return;
        }
        let key = self.open.open(reply, ends.len());
        let max_bytes = self.body_size.limit();
        if alone || body.len() > max_bytes {
            let pieces = bulk::alone(key, body, ends, max_bytes, &mut counter(&mut self.last_batch));
            self.ready.extend(pieces);
            return;
        }
        if self.gathering.bytes() + body.len() > max_bytes {
            self.flush();
        }
        if self.gathering.is_empty() {
            self.gathered_until = Some(Instant::now() + self.sink.linger);
        }
        self.gathering.add(key, body, ends);
        if hurry || self.gathering.bytes() >= max_bytes {
            self.flush();
        }
    }

    /// Makes what was gathered ready to be sent.
    fn flush(&mut self) {
        self.gathered_until = None;
        self.ready.extend(self.gathering.take(&mut counter(&mut self.last_batch)));
    }

    /// Makes ready what has waited long enough.
    fn move_due(&mut self, now: Instant) {
        if self.gathered_until.is_some_and(|until| until <= now) {
            self.flush();
        }
        for waiting in self.waiting.extract_if(.., |waiting| waiting.until <= now) {
            self.ready.push_back(waiting.batch);
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).chain(self.gathered_until).min()
    }

    /// Starts as many requests as are allowed, and asks the nodes that may be back for something small.
    fn launch(&mut self, now: Instant) {
        if !self.ready.is_empty() {
            self.ask_for_proof(now);
        }
        while self.flights.len() < self.pace.limit() {
            let Some(batch) = self.ready.pop_front() else { return };
            let id = batch.id;
            let batch = batch.without(|segment| self.open.is_open(segment));
            if batch.parts.is_empty() {
                self.troubles.batch_ended(id);
                self.publish();
                continue;
            }
            let pick = self.nodes.pick();
            let Some((number, node)) = pick.and_then(|number| Some((number, self.sink.nodes.get(number)?.clone()))) else {
                let until = self.nodes.next_chance(now);
                self.waiting.push(Waiting { batch, until, hold: Hold::Outage });
                continue;
            };
            let timeout = self.sink.timeout;
            self.flights.push(Box::pin(async move {
                let started = Instant::now();
                let exchange = send(&node, &batch, timeout).await;
                Landed { batch, node: number, exchange, took: started.elapsed() }
            }));
        }
    }

    fn ask_for_proof(&mut self, now: Instant) {
        while let Some(number) = self.nodes.next_to_prove(now) {
            let Some(node) = self.sink.nodes.get(number).cloned() else { continue };
            let timeout = PING_TIMEOUT.min(self.sink.timeout);
            self.proofs.push(Box::pin(async move { Proved { node: number, exchange: node.ask("/", timeout).await } }));
        }
    }

    /// Any answer is a proof: whether it takes documents, the next request shows.
    fn proved(&mut self, proved: Proved) {
        let Proved { node, exchange } = proved;
        let Exchange::NoAnswer(message) = exchange else {
            self.nodes.proved(node);
            // While some node is well, what waits does so for credentials.
            if !self.nodes.any_well() {
                self.end_outage_waits();
            }
            return;
        };
        let now = Instant::now();
        self.leave_out(node, &message, now);
        if !self.nodes.any_well() {
            self.troubles.outage(ReasonCode::SinkUnreachable, message, now);
        }
    }

    fn end_outage_waits(&mut self) {
        for waiting in self.waiting.extract_if(.., |waiting| waiting.hold == Hold::Outage) {
            self.ready.push_back(waiting.batch);
        }
    }

    /// Does what the end of a request asks for.
    fn land(&mut self, landed: Landed) {
        let Landed { batch, node, exchange, took } = landed;
        let now = Instant::now();
        self.nodes.ended(node);
        let outcome = match exchange {
            Exchange::NoAnswer(message) => self.no_answer(batch, node, message, now),
            Exchange::Broken(message) => self.doubtful(batch, node, message, classify::UNKNOWN_REMEDY, now),
            Exchange::Redirected(message) => self.doubtful(batch, node, message, classify::ADDRESS_REMEDY, now),
            Exchange::Answered { status, body } if (200..300).contains(&status) => self.bulk_answer(batch, node, &body, now),
            Exchange::Answered { status, body } => {
                let error = answer::read_refusal(&body);
                let remedy = classify::unknown_remedy(status, answer::is_page(&body));
                self.refused(batch, node, status, &error, remedy, now)
            }
        };
        self.sink.stats.record(outcome, took);
    }

    /// A node has answered with something else than a refusal of the credentials: what waited for that need not wait longer.
    fn reached(&mut self, node: usize) {
        if self.nodes.answered(node) && self.sink.nodes.len() > 1 {
            info!(node = self.url_of(node), "a node of the sink answers again");
        }
        self.troubles.answered();
        self.end_outage_waits();
    }

    fn url_of(&self, node: usize) -> &str {
        self.sink.nodes.get(node).map_or("", |node| node.url.as_str())
    }

    /// A node is left alone for a while. Told once, and only where there are others: an outage of all is told as such.
    fn leave_out(&mut self, node: usize, message: &str, now: Instant) {
        if self.nodes.failed(node, now, chance()) && self.sink.nodes.len() > 1 {
            warn!(node = self.url_of(node), error = %answer::for_people(message), "a node of the sink is left out until it answers as it should");
        }
    }

    /// The next node gets the batch at once: that the refusal or the odd answer is this node's own is likely while another is well. A batch that no node takes ends at the last of them.
    fn hand_over(&mut self, mut batch: Batch, node: usize, message: &str, now: Instant) -> RequestOutcome {
        debug!(error = %answer::for_people(message), items = batch.len(), "another node is asked");
        self.leave_out(node, message, now);
        self.count_resent(&mut batch);
        self.ready.push_front(batch);
        RequestOutcome::Retry
    }

    /// What came back is no answer of the server to this request.
    fn doubtful(&mut self, batch: Batch, node: usize, message: String, remedy: &'static str, now: Instant) -> RequestOutcome {
        if self.nodes.another_is_well(node) {
            return self.hand_over(batch, node, &message, now);
        }
        self.reached(node);
        self.unknown(batch, message, remedy, now);
        RequestOutcome::Retry
    }

    fn no_answer(&mut self, mut batch: Batch, node: usize, message: String, now: Instant) -> RequestOutcome {
        debug!(error = %answer::for_people(&message), items = batch.len(), "a bulk request got no answer");
        self.leave_out(node, &message, now);
        self.count_resent(&mut batch);
        if self.nodes.any_well() {
            self.ready.push_front(batch);
        } else {
            self.troubles.outage(ReasonCode::SinkUnreachable, message, now);
            let until = self.nodes.next_chance(now);
            self.waiting.push(Waiting { batch, until, hold: Hold::Outage });
        }
        RequestOutcome::Unreachable
    }

    fn bulk_answer(&mut self, batch: Batch, node: usize, body: &[u8], now: Instant) -> RequestOutcome {
        let reading = match answer::read(body, batch.len(), Sent::Documents) {
            Reading::Failures(_) if mutants::is_on(mutants::ITEM_ERRORS_IGNORED) => Reading::AllWell,
            reading => reading,
        };
        match reading {
            Reading::AllWell => {
                self.reached(node);
                self.accepted(now);
                self.body_size.accepted(batch.bytes());
                self.troubles.batch_ended(batch.id);
                for part in &batch.parts {
                    self.open.settle(part.segment, part.len());
                }
                RequestOutcome::Ok
            }
            Reading::Failures(failures) => {
                self.reached(node);
                self.body_size.accepted(batch.bytes());
                self.items_failed(batch, &failures, now);
                RequestOutcome::Partial
            }
            Reading::Unusable(message) => {
                let remedy = if answer::is_page(body) { classify::ADDRESS_REMEDY } else { classify::UNKNOWN_REMEDY };
                self.doubtful(batch, node, message, remedy, now)
            }
        }
    }

    fn accepted(&mut self, now: Instant) {
        self.pace.accepted(now);
        self.troubles.accepted();
    }

    /// Judges the failed items; the others are settled.
    fn items_failed(&mut self, batch: Batch, failures: &[Failure<'_>], now: Instant) {
        let mut again = Again::default();
        let part_starts = batch.part_starts();
        let mut settled: Vec<usize> = batch.parts.iter().map(Part::len).collect();
        for failure in failures {
            let Some(place) = batch.item_at(&part_starts, failure.position) else { continue };
            let class = match batch.is_create(place) {
                create if create == failure.create => classify::item(failure.status, &failure.error.kind, &failure.error.reason, create),
                // An answer to something else than was sent.
                _ => ItemClass::Unknown,
            };
            let Place { part, segment, item } = place;
            if class != ItemClass::Settled {
                settled.iter_mut().skip(part).take(1).for_each(|items| *items -= 1);
            }
            match class {
                ItemClass::Settled => {}
                ItemClass::Retry => again.pressure(failure),
                ItemClass::Unknown => again.unknown(failure),
                ItemClass::Poison => self.open.reject(segment, rejection(item, false, failure.status, &failure.error)),
                ItemClass::TooLarge => self.open.reject(segment, rejection(item, true, failure.status, &failure.error)),
                ItemClass::Operator(obstacle) => self.open.park(segment, park_cause(obstacle, &failure.error), item),
            }
        }
        let progress = failures.len() < batch.len() || again.positions.len() < failures.len();
        if progress {
            self.accepted(now);
        }
        for (part, items) in batch.parts.iter().zip(settled) {
            self.open.settle(part.segment, items);
        }
        self.send_again(batch, again, progress, now);
    }

    /// Waits with the items that have to be sent again, save those of segments that have their outcome.
    fn send_again(&mut self, batch: Batch, again: Again, progress: bool, now: Instant) {
        let id = batch.id;
        let mut batch = batch.keep(&again.positions).without(|segment| self.open.is_open(segment));
        if batch.parts.is_empty() {
            self.troubles.batch_ended(id);
            return;
        }
        if progress {
            batch.attempts = 0;
        }
        if again.under_pressure {
            self.pace.pressure(now);
        }
        debug!(error = %answer::for_people(&again.message), items = batch.len(), "items have to be sent again");
        self.troubles.batch(id, again.code(), &again.message, now);
        self.count_resent(&mut batch);
        if again.under_pressure && !progress {
            self.wait_for_room(batch, now);
        } else {
            self.wait(batch, Hold::Own, self.sink.tuning.retry, now);
        }
    }

    /// All of the batch was refused for pressure. It joins what waits for the same reason, as far as one body holds that: a server without room is not asked more often because many small batches wait.
    fn wait_for_room(&mut self, batch: Batch, now: Instant) {
        let most = self.body_size.limit();
        let joined = self.waiting.iter_mut().find(|waiting| waiting.hold == Hold::Crowded && waiting.batch.bytes() + batch.bytes() <= most);
        match joined {
            Some(waiting) => {
                self.troubles.batch_ended(batch.id);
                waiting.batch.join(batch);
            }
            None => self.wait(batch, Hold::Crowded, self.sink.tuning.retry, now),
        }
    }

    /// A whole request was refused. `remedy` is what helps if the reason is unknown.
    fn refused(&mut self, mut batch: Batch, node: usize, status: u16, error: &ErrorText<'_>, remedy: &'static str, now: Instant) -> RequestOutcome {
        let class = classify::request(status, &error.kind, &error.reason);
        debug!(status, error = %answer::for_people(&error.to_string()), ?class, items = batch.len(), "a bulk request was refused");
        let message = format!("status {status}: {error}");
        if class == RequestClass::Credentials {
            self.nodes.answered(node);
            self.troubles.outage(ReasonCode::Credentials, message, now);
            self.count_resent(&mut batch);
            self.wait(batch, Hold::Outage, self.sink.tuning.credentials, now);
            return RequestOutcome::Rejected;
        }
        let may_be_the_node = matches!(class, RequestClass::Retry | RequestClass::Unknown) && (status == 429 || status >= 500);
        if may_be_the_node && self.nodes.another_is_well(node) {
            return self.hand_over(batch, node, &message, now);
        }
        self.reached(node);
        match class {
            RequestClass::Retry => {
                self.pace.pressure(now);
                self.troubles.pressure(message, now);
                self.troubles.batch_ended(batch.id);
                self.count_resent(&mut batch);
                self.wait(batch, Hold::Pressure, self.sink.tuning.retry, now);
                RequestOutcome::Retry
            }
            RequestClass::TooLarge if batch.bytes() < SMALLEST_MAX_BYTES => {
                self.unknown(batch, message, classify::BODY_LIMIT_REMEDY, now);
                RequestOutcome::Retry
            }
            RequestClass::TooLarge => {
                self.lower_max_bytes(&batch);
                self.narrow(batch, true, status, error);
                RequestOutcome::Rejected
            }
            RequestClass::Poison => {
                self.narrow(batch, false, status, error);
                RequestOutcome::Rejected
            }
            RequestClass::Operator(obstacle) => {
                self.isolate(batch, obstacle, error);
                RequestOutcome::Rejected
            }
            RequestClass::Credentials | RequestClass::Unknown => {
                self.unknown(batch, message, remedy, now);
                RequestOutcome::Retry
            }
        }
    }

    /// Looks for the item that makes the server refuse the request: halves it, or has found it.
    fn narrow(&mut self, mut batch: Batch, too_large: bool, status: u16, error: &ErrorText<'_>) {
        self.troubles.batch_ended(batch.id);
        if batch.len() == 1 {
            if let Some(place) = batch.item_at(&batch.part_starts(), 0) {
                self.open.reject(place.segment, rejection(place.item, too_large, status, error));
            }
            return;
        }
        self.count_resent(&mut batch);
        for half in batch.halves(&mut counter(&mut self.last_batch)).into_iter().rev() {
            self.ready.push_front(half);
        }
    }

    /// Looks for the segment whose index makes the server refuse the request: separates them, or parks the only one.
    fn isolate(&mut self, mut batch: Batch, obstacle: Obstacle, error: &ErrorText<'_>) {
        self.troubles.batch_ended(batch.id);
        if batch.has_one_segment() {
            if let Some(place) = batch.item_at(&batch.part_starts(), 0) {
                self.open.park(place.segment, park_cause(obstacle, error), place.item);
            }
            return;
        }
        self.count_resent(&mut batch);
        self.ready.extend(batch.by_segment(&mut counter(&mut self.last_batch)));
    }

    /// Nothing is known about the batch. A warning is given by [`publish`](Self::publish), once for the trouble and not for each try.
    fn unknown(&mut self, mut batch: Batch, message: String, remedy: &'static str, now: Instant) {
        let error = answer::for_people(&message);
        debug!(%error, items = batch.len(), attempts = batch.attempts, "a bulk request ended in an unknown way; it is sent again");
        self.troubles.unknown(batch.id, &message, remedy, now);
        self.count_resent(&mut batch);
        self.wait(batch, Hold::Own, self.sink.tuning.retry, now);
    }

    fn wait(&mut self, mut batch: Batch, hold: Hold, backoff: Backoff, now: Instant) {
        let until = now + backoff.wait(batch.attempts, chance());
        batch.attempts = batch.attempts.saturating_add(1);
        self.waiting.push(Waiting { batch, until, hold });
    }

    fn count_resent(&mut self, batch: &mut Batch) {
        if batch.resent {
            return;
        }
        batch.resent = true;
        for part in &batch.parts {
            self.open.resent(part.segment, part.len());
        }
    }

    /// The server takes less than we send: later bodies are at most half of this one.
    fn lower_max_bytes(&mut self, batch: &Batch) {
        let was_full_size = self.body_size.limit() >= self.sink.max_bytes;
        if batch.len() < 2 || !self.body_size.refused(batch.bytes()) {
            return;
        }
        let (bytes, max_bytes) = (batch.bytes(), self.body_size.limit());
        if was_full_size && !self.told_body_size {
            self.told_body_size = true;
            warn!(bytes, max_bytes, "the server refuses bodies of this size; smaller ones are sent, and larger ones tried now and then");
        } else {
            debug!(bytes, max_bytes, "the server refuses bodies of this size; smaller ones are sent");
        }
    }

    /// Tells everybody how the sink is doing, when that has changed.
    fn publish(&mut self) {
        let now = Instant::now();
        let worst = self.troubles.worst(now);
        self.sink.health.send_if_modified(|health| {
            let before = health.trouble.take();
            let same_code = before.as_ref().map(|reason| reason.code) == worst.map(|trouble| trouble.code);
            health.trouble = worst.map(|trouble| Reason {
                code: trouble.code,
                message: trouble.message.clone(),
                remedy: trouble.remedy.to_owned(),
                since_at: before.filter(|_| same_code).map_or_else(Timestamp::now, |reason| reason.since_at),
            });
            // A new wording of the same trouble wakes nobody; who looks sees it.
            !same_code
        });
        match (self.announcer.next(worst, now), worst) {
            (Some(Announcement::Trouble), Some(trouble)) => {
                warn!(code = trouble.code.as_str(), error = %trouble.message, remedy = trouble.remedy, "the sink is in trouble");
            }
            (Some(Announcement::Well), _) => info!("the sink is well again"),
            _ => {}
        }
    }
}

/// Items to be sent again, and why.
#[derive(Default)]
struct Again {
    positions: Vec<usize>,
    under_pressure: bool,
    unknown: bool,
    message: String,
}

impl Again {
    fn pressure(&mut self, failure: &Failure<'_>) {
        self.positions.push(failure.position);
        self.under_pressure |= failure.status == 429;
        if self.message.is_empty() {
            self.message = failure.error.to_string();
        }
    }

    fn unknown(&mut self, failure: &Failure<'_>) {
        self.positions.push(failure.position);
        if !self.unknown {
            self.unknown = true;
            self.message = format!("status {}: {}", failure.status, failure.error);
        }
    }

    fn code(&self) -> ReasonCode {
        if self.unknown { ReasonCode::UnknownError } else { ReasonCode::SinkRejecting }
    }
}

async fn send(node: &Node, batch: &Batch, timeout: Duration) -> Exchange {
    fail_point!("sink_send");
    node.bulk(batch.body(), batch.len(), timeout).await
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

fn rejection(item: u32, too_large: bool, status: u16, error: &ErrorText<'_>) -> Rejection {
    Rejection { item, too_large, error_type: answer::shorten(&error.kind).into_owned(), reason: error.text(), status: Some(status) }
}

fn park_cause(obstacle: Obstacle, error: &ErrorText<'_>) -> ParkCause {
    ParkCause { code: obstacle.code, message: answer::for_people(&error.to_string()), remedy: obstacle.remedy.to_owned() }
}

/// Numbers for batches.
fn counter(last: &mut u64) -> impl FnMut() -> u64 {
    move || {
        *last += 1;
        *last
    }
}

fn chance() -> f64 {
    rand::random()
}

#[cfg(test)]
#[path = "../../tests/stub/mod.rs"]
mod stub;

#[cfg(test)]
mod tests {
    use super::stub::{Answer, ItemRule, StubServer};
    use super::*;
    use crate::config::{Compression, SinkAuth};
    use crate::sink::Reply;

    const SOON: Duration = Duration::from_secs(20);

    fn quick() -> Tuning {
        let short = Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(100) };
        Tuning { retry: short, credentials: short, node: short, rejecting_after: Duration::from_millis(50), pace_step: Duration::from_millis(50) }
    }

    fn configuration(urls: Vec<String>) -> ElasticsearchConfig {
        ElasticsearchConfig {
            urls,
            auth: SinkAuth::Anonymous,
            ca_file: None,
            client_identity: None,
            max_bytes: 1 << 20,
            linger: Duration::from_millis(20),
            in_flight: 2,
            timeout: Duration::from_secs(10),
            compression: Compression::Off,
        }
    }

    /// A sink that runs, and the outcomes of what is submitted to it.
    struct Bench {
        handle: SinkHandle,
        stats: Arc<SinkStats>,
        to: mpsc::UnboundedSender<(u64, Outcome)>,
        outcomes: mpsc::UnboundedReceiver<(u64, Outcome)>,
        cancel: CancellationToken,
        life: tokio::task::JoinHandle<Result<(), RunError>>,
    }

    impl Bench {
        fn start(config: &ElasticsearchConfig) -> Self {
            let (sink, handle, stats) = ElasticsearchSink::with_tuning(config, quick()).unwrap();
            let cancel = CancellationToken::new();
            let token = cancel.clone();
            let life = tokio::spawn(async move { sink.run(token).await });
            let (to, outcomes) = mpsc::unbounded_channel();
            Self { handle, stats, to, outcomes, cancel, life }
        }

        fn against(server: &StubServer) -> Self {
            Self::start(&configuration(vec![server.url()]))
        }

        async fn submit(&self, ticket: u64, index: &str, sources: &[&str]) {
            self.handle.submit(segment(ticket, index, sources, &self.to)).await;
        }

        async fn submit_alone(&self, ticket: u64, index: &str, sources: &[&str]) {
            let segment = Segment { alone: true, ..segment(ticket, index, sources, &self.to) };
            self.handle.submit(segment).await;
        }

        async fn outcome(&mut self) -> (u64, Outcome) {
            tokio::time::timeout(SOON, self.outcomes.recv()).await.expect("an outcome in time").expect("an outcome")
        }

        /// The outcomes of this many segments, by ticket.
        async fn outcomes(&mut self, count: usize) -> Vec<(u64, Outcome)> {
            let mut outcomes = Vec::new();
            while outcomes.len() < count {
                outcomes.push(self.outcome().await);
            }
            outcomes.sort_by_key(|(ticket, _)| *ticket);
            outcomes
        }

        /// Waits until the sink tells this code, or none.
        async fn trouble(&self, code: Option<ReasonCode>) -> Option<Reason> {
            let mut health = self.handle.health.clone();
            let reached = tokio::time::timeout(SOON, health.wait_for(|health| health.trouble.as_ref().map(|reason| reason.code) == code)).await;
            reached.unwrap_or_else(|_| panic!("expected {code:?}, got {:?}", self.handle.health())).expect("a sink").trouble.clone()
        }

        async fn end(self) {
            self.cancel.cancel();
            assert_eq!(self.life.await.expect("no panic"), Ok(()));
        }
    }

    fn segment(ticket: u64, index: &str, sources: &[&str], to: &mpsc::UnboundedSender<(u64, Outcome)>) -> Segment {
        let mut body = Vec::new();
        let mut ends = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let operation = if index.starts_with("stream") { "create" } else { "index" };
            let action = format!("{{\"{operation}\":{{\"_index\":\"{index}\",\"_id\":\"{ticket}:{number}\"}}}}\n");
            body.extend_from_slice(action.as_bytes());
            body.extend_from_slice(format!("{{\"m\":\"{source}\"}}\n").as_bytes());
            ends.push(body.len() as u32);
        }
        Segment { body: body.into(), ends, alone: false, hurry: false, reply: Reply::new(ticket, to.clone()) }
    }

    fn settled(retried: u32) -> Outcome {
        Outcome::Settled { rejected: Vec::new(), retried }
    }

    async fn until(condition: impl Fn() -> bool) {
        let reached = tokio::time::timeout(SOON, async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        reached.await.expect("the condition in time");
    }

    #[tokio::test]
    async fn segments_of_several_partitions_share_a_request() {
        let server = StubServer::start().await;
        let mut bench = Bench::start(&ElasticsearchConfig { linger: Duration::from_millis(300), ..configuration(vec![server.url()]) });
        for ticket in 1..=3 {
            bench.submit(ticket, "a", &["x", "y"]).await;
        }
        assert_eq!(bench.outcomes(3).await, [(1, settled(0)), (2, settled(0)), (3, settled(0))]);
        assert_eq!((server.request_count(), server.document_count()), (1, 6));
        let seen = server.seen();
        assert_eq!(seen[0].headers["content-type"], "application/x-ndjson");
        // Not every proxy takes a body whose length is not said.
        assert_eq!(seen[0].headers["content-length"], seen[0].bytes.to_string().as_str());
        assert!(!seen[0].headers.contains_key("transfer-encoding"));
        assert!(!seen[0].headers.contains_key("x-elastic-client-meta"));
        assert_eq!(bench.stats.totals().requests["ok"], 1);
        bench.end().await;
    }

    #[tokio::test]
    async fn compressed_bodies_arrive_whole() {
        let server = StubServer::start().await;
        let mut bench = Bench::start(&ElasticsearchConfig { compression: Compression::Gzip, ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["compressible"; 1000]).await;
        assert_eq!(bench.outcome().await, (1, settled(0)));
        let seen = server.seen();
        assert_eq!(seen[0].headers["content-encoding"], "gzip");
        assert!(server.document_count() == 1000 && seen[0].bytes < 20_000, "{} bytes", seen[0].bytes);
        bench.end().await;
    }

    #[tokio::test]
    async fn a_segment_in_a_hurry_does_not_wait_for_more() {
        let server = StubServer::start().await;
        let mut bench = Bench::start(&ElasticsearchConfig { linger: Duration::from_secs(3600), ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["x"]).await;
        let segment = Segment { hurry: true, ..segment(2, "a", &["y"], &bench.to) };
        bench.handle.submit(segment).await;
        assert_eq!(bench.outcomes(2).await, [(1, settled(0)), (2, settled(0))]);
        bench.submit_alone(3, "a", &["z"]).await;
        assert_eq!(bench.outcome().await, (3, settled(0)));
        bench.end().await;
    }

    #[tokio::test]
    async fn a_probe_for_a_parked_index_shares_its_request_with_nobody() {
        let server = StubServer::start().await;
        let mut bench = Bench::start(&ElasticsearchConfig { linger: Duration::from_millis(200), ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["x"]).await;
        bench.submit_alone(2, "b", &["y"]).await;
        bench.submit(3, "a", &["z"]).await;
        bench.outcomes(3).await;
        for request in server.seen() {
            let mixed = request.items.iter().any(|item| item.index == "b") && request.items.iter().any(|item| item.index == "a");
            assert!(!mixed, "{request:?}");
        }
        bench.end().await;
    }

    #[tokio::test]
    async fn only_failed_items_are_sent_again() {
        let server = StubServer::start().await;
        server.script(|request| match request.number {
            0 | 1 => Answer::item_error("busy", 429, "es_rejected_execution_exception", "queue full"),
            _ => Answer::Normal,
        });
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &["fine", "busy 1", "fine", "busy 2"]).await;
        assert_eq!(bench.outcome().await, (1, settled(2)));
        let sent: Vec<usize> = server.seen().iter().map(|request| request.items.len()).collect();
        assert_eq!(sent, [4, 2, 2]);
        assert_eq!(server.seen()[2].items[1].id, "1:3");
        assert!(server.documents().values().all(|document| document.writes == 1));
        bench.end().await;
    }

    #[tokio::test]
    async fn many_small_batches_that_find_no_room_come_back_together() {
        const BATCHES: u64 = 8;
        let server = StubServer::start().await;
        let met = std::sync::Mutex::new(std::collections::BTreeSet::new());
        server.script(move |request| {
            let mut met = met.lock().unwrap();
            met.extend(request.items.iter().map(|item| item.id.clone()));
            match met.len() < BATCHES as usize {
                true => Answer::item_error("", 429, "es_rejected_execution_exception", "queue full"),
                false => Answer::Normal,
            }
        });
        let mut bench = Bench::against(&server);
        for ticket in 1..=BATCHES {
            bench.submit_alone(ticket, "a", &["busy"]).await;
        }
        let outcomes = bench.outcomes(BATCHES as usize).await;
        assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Settled { rejected, .. } if rejected.is_empty())), "{outcomes:?}");
        assert_eq!(server.document_count(), BATCHES as usize);
        let largest = server.seen().iter().map(|request| request.items.len()).max();
        assert!(largest > Some(1), "each was sent again alone");
        assert!(server.documents().values().all(|document| document.writes == 1));
        bench.end().await;
    }

    #[tokio::test]
    async fn a_rejected_item_does_not_hold_its_neighbours_up() {
        let server = StubServer::start().await;
        server.script(|_| Answer::item_error("bad", 400, "document_parsing_exception", "failed to parse field [n]"));
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &["fine", "bad", "fine"]).await;
        bench.submit(2, "a", &["fine"]).await;
        let outcomes = bench.outcomes(2).await;
        let rejection = Rejection {
            item: 1,
            too_large: false,
            error_type: "document_parsing_exception".to_owned(),
            reason: "failed to parse field [n]".to_owned(),
            status: Some(400),
        };
        assert_eq!(outcomes, [(1, Outcome::Settled { rejected: vec![rejection], retried: 0 }), (2, settled(0))]);
        assert!(bench.handle.is_well());
        bench.end().await;
    }

    #[tokio::test]
    async fn every_item_can_be_rejected() {
        let server = StubServer::start().await;
        server.script(|_| Answer::item_error("bad", 400, "mapper_parsing_exception", "no"));
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &["bad", "bad"]).await;
        let (_, outcome) = bench.outcome().await;
        assert!(matches!(outcome, Outcome::Settled { rejected, .. } if rejected.iter().map(|rejection| rejection.item).eq([0, 1])));
        bench.end().await;
    }

    #[tokio::test]
    async fn a_blocked_index_parks_its_segment_and_no_other() {
        let server = StubServer::start().await;
        server.script(|_| {
            let rule = |containing: &str, status, error_type: &str, reason: &str| ItemRule {
                containing: containing.to_owned(),
                status,
                error_type: error_type.to_owned(),
                reason: reason.to_owned(),
            };
            Answer::Items(vec![
                rule("blocked", 403, "cluster_block_exception", "index [b] blocked by: [FORBIDDEN/8/index write (api)];"),
                rule("busy", 429, "es_rejected_execution_exception", "queue full"),
            ])
        });
        let mut bench = Bench::start(&ElasticsearchConfig { linger: Duration::from_millis(200), ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["fine"]).await;
        bench.submit(2, "b", &["fine", "blocked", "busy"]).await;
        bench.submit(3, "a", &["fine"]).await;
        let outcomes = bench.outcomes(3).await;
        assert_eq!(outcomes[0], (1, settled(0)));
        assert!(
            matches!(&outcomes[1].1, Outcome::Parked { cause, .. } if cause.code == ReasonCode::IndexBlocked && cause.message.contains("FORBIDDEN/8"))
        );
        assert_eq!(outcomes[2], (3, settled(0)));
        assert_eq!(server.request_count(), 1, "a busy item of a parked segment is not sent again");
        assert!(bench.handle.is_well(), "one index is not the sink");
        bench.end().await;
    }

    #[tokio::test]
    async fn a_refusal_for_one_index_is_not_blamed_on_the_others() {
        let server = StubServer::start().await;
        server.script(|request| match request.contains("lost") {
            true => Answer::error(404, "index_not_found_exception", "no such index [b]"),
            false => Answer::Normal,
        });
        let mut bench = Bench::start(&ElasticsearchConfig { linger: Duration::from_millis(200), ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["fine"]).await;
        bench.submit(2, "b", &["lost", "lost"]).await;
        bench.submit(3, "a", &["fine"]).await;
        let outcomes = bench.outcomes(3).await;
        assert_eq!(outcomes[0], (1, settled(1)));
        assert!(matches!(outcomes[1].1, Outcome::Parked { .. }));
        assert_eq!(outcomes[2], (3, settled(1)));
        bench.end().await;
    }

    #[tokio::test]
    async fn a_bad_item_that_fails_the_whole_request_is_found() {
        let server = StubServer::start().await;
        server.script(|request| match request.contains("poison") {
            true => Answer::error(400, "action_request_validation_exception", "id is too long"),
            false => Answer::Normal,
        });
        let mut bench = Bench::start(&ElasticsearchConfig { linger: Duration::from_millis(200), ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["1", "2", "3", "4", "5"]).await;
        bench.submit(2, "a", &["6", "poison", "8"]).await;
        let outcomes = bench.outcomes(2).await;
        assert_eq!(outcomes[0], (1, settled(5)));
        let Outcome::Settled { rejected, .. } = &outcomes[1].1 else { panic!("{outcomes:?}") };
        assert_eq!(rejected.iter().map(|rejection| (rejection.item, rejection.status)).collect::<Vec<_>>(), [(1, Some(400))]);
        assert_eq!(server.document_count(), 7);
        bench.end().await;
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_halved_and_only_its_largest_item_given_up() {
        let server = StubServer::start().await;
        server.script(|request| match request.bytes > 100_000 {
            true => Answer::Refuse { status: 413, body: "too large".to_owned() },
            false => Answer::Normal,
        });
        let huge = "x".repeat(200_000);
        let mut sources = vec!["fine"; 30];
        sources[13] = &huge;
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &sources).await;
        let (_, outcome) = bench.outcome().await;
        let Outcome::Settled { rejected, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(rejected.iter().map(|rejection| (rejection.item, rejection.too_large)).collect::<Vec<_>>(), [(13, true)]);
        assert_eq!(server.document_count(), 29);
        bench.end().await;
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_every_size_gives_no_document_up() {
        let server = StubServer::start().await;
        server.script(|_| Answer::Refuse { status: 413, body: "<html>413 Request Entity Too Large</html>".to_owned() });
        let mut bench = Bench::against(&server);
        let source = "x".repeat(10_000);
        bench.submit(1, "a", &[source.as_str(); 20]).await;
        bench.submit_alone(2, "a", &["tiny"]).await;
        let reason = bench.trouble(Some(ReasonCode::UnknownError)).await.unwrap();
        assert!(reason.message.contains("413") && reason.remedy.contains("client_max_body_size"), "{reason:?}");
        until(|| server.request_count() >= 20).await;
        server.heal();
        for (_, outcome) in bench.outcomes(2).await {
            assert!(matches!(&outcome, Outcome::Settled { rejected, .. } if rejected.is_empty()), "{outcome:?}");
        }
        assert_eq!(server.document_count(), 21);
        bench.trouble(None).await;
        bench.end().await;
    }

    #[tokio::test]
    async fn bodies_are_large_again_after_a_limit_is_gone() {
        let server = StubServer::start().await;
        server.script(|request| match request.bytes > 300_000 {
            true => Answer::Refuse { status: 413, body: "too large".to_owned() },
            false => Answer::Normal,
        });
        let mut bench = Bench::against(&server);
        let source = "x".repeat(10_000);
        let sources = [source.as_str(); 100];
        bench.submit(1, "a", &sources).await;
        bench.outcome().await;
        server.heal();
        for ticket in 2.. {
            bench.submit(ticket, "a", &sources).await;
            bench.outcome().await;
            if server.seen().last().is_some_and(|request| request.bytes > 1_000_000) {
                break;
            }
            assert!(ticket < 40, "bodies stay small");
        }
        bench.end().await;
    }

    #[tokio::test]
    async fn an_answer_without_end_does_not_fill_the_memory() {
        for endless in [Answer::Endless { status: 200 }, Answer::GzipBomb { mebibytes: 64 }] {
            let server = StubServer::start().await;
            let first = endless.clone();
            server.script(move |_| first.clone());
            let mut bench = Bench::against(&server);
            bench.submit(1, "a", &["x"]).await;
            let reason = bench.trouble(Some(ReasonCode::UnknownError)).await.unwrap();
            assert!(reason.message.contains("is longer than"), "{endless:?}: {}", reason.message);
            server.heal();
            assert_eq!(bench.outcome().await, (1, settled(1)));
            bench.end().await;
        }
    }

    #[tokio::test]
    async fn a_refusal_without_end_is_still_a_refusal() {
        let server = StubServer::start().await;
        server.script(|_| Answer::Endless { status: 401 });
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &["x"]).await;
        bench.trouble(Some(ReasonCode::Credentials)).await;
        server.heal();
        assert_eq!(bench.outcome().await, (1, settled(1)));
        bench.end().await;
    }

    #[tokio::test]
    async fn answers_of_something_else_are_blamed_on_the_address() {
        let page = Answer::Refuse { status: 500, body: "<!DOCTYPE html><title>login</title>".to_owned() };
        let missing = Answer::Refuse { status: 404, body: "404 page not found".to_owned() };
        for answer in [Answer::html(200), page, missing] {
            let server = StubServer::start().await;
            let script = answer.clone();
            server.script(move |_| script.clone());
            let bench = Bench::against(&server);
            bench.submit(1, "a", &["x"]).await;
            let reason = bench.trouble(Some(ReasonCode::UnknownError)).await.unwrap();
            assert!(reason.remedy.contains("login page") && !reason.remedy.contains("rewind"), "{answer:?}: {}", reason.remedy);
            bench.end().await;
        }
    }

    #[tokio::test]
    async fn a_redirect_is_told_and_not_followed() {
        let elsewhere = StubServer::start().await;
        let server = StubServer::start().await;
        let location = format!("{}/es/_bulk?token=hunter2", elsewhere.url());
        server.script(move |_| Answer::Redirect { status: 307, location: location.clone() });
        let bench = Bench::against(&server);
        bench.submit(1, "a", &["x"]).await;
        let reason = bench.trouble(Some(ReasonCode::UnknownError)).await.unwrap();
        let told = format!("redirects to {}/es/ (status 307); use that address", elsewhere.url());
        assert!(reason.message.contains(&told) && !reason.message.contains("hunter2"), "{}", reason.message);
        assert!(reason.remedy.contains("elasticsearch.urls"), "{}", reason.remedy);
        until(|| server.request_count() >= 2).await;
        assert_eq!(elsewhere.request_count(), 0);
        bench.end().await;
    }

    #[tokio::test]
    async fn a_servers_text_cannot_forge_lines_for_people() {
        let forged = "no\n2026-01-01 ERROR forged \u{1b}[2J";
        let server = StubServer::start().await;
        server.script(move |request| match request.contains("odd") {
            true => Answer::item_error("odd", 400, "brand_new_exception", forged),
            false => Answer::item_error("closed", 400, "index_closed_exception", forged),
        });
        let mut bench = Bench::against(&server);
        bench.submit_alone(1, "a", &["odd"]).await;
        let reason = bench.trouble(Some(ReasonCode::UnknownError)).await.unwrap();
        assert!(reason.message.contains("forged") && !reason.message.contains(char::is_control), "{:?}", reason.message);
        bench.submit_alone(2, "a", &["closed"]).await;
        let (_, outcome) = bench.outcome().await;
        assert!(matches!(&outcome, Outcome::Parked { cause, .. } if !cause.message.contains(char::is_control)), "{outcome:?}");
        bench.end().await;
    }

    #[tokio::test]
    async fn an_error_that_stays_does_not_fill_the_log() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).with_writer(move || writer.clone()).finish();
        // While a process has one subscriber only, `tracing` asks the thread that first reaches a line whether anybody listens, and remembers its no for all: other tests run meanwhile.
        let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
        // The test's runtime has one thread, so the sink runs on this one and its lines come here.
        let _guard = tracing::subscriber::set_default(subscriber);
        let server = StubServer::start().await;
        server.script(|_| Answer::html(500));
        let mut bench = Bench::against(&server);
        for ticket in 1..=5 {
            bench.submit_alone(ticket, "a", &["x"]).await;
        }
        until(|| server.request_count() >= 40).await;
        server.heal();
        bench.outcomes(5).await;
        bench.trouble(None).await;
        until(|| log.text().contains("the sink is well again")).await;
        let text = log.text();
        assert_eq!(text.matches("the sink is in trouble").count(), 1, "{text}");
        assert!(text.lines().count() <= 3, "{text}");
        bench.end().await;
    }

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_segment_larger_than_a_body_is_cut_at_its_items() {
        let server = StubServer::start().await;
        let mut bench = Bench::start(&ElasticsearchConfig { max_bytes: 300, ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["fine"; 40]).await;
        assert_eq!(bench.outcome().await, (1, settled(0)));
        assert_eq!(server.document_count(), 40);
        assert!(server.seen().iter().all(|request| request.bytes <= 300) && server.request_count() > 5);
        bench.end().await;
    }

    #[tokio::test]
    async fn a_response_lost_after_the_documents_were_stored_doubles_nothing() {
        let ways = [
            Answer::CutAfterApply,
            Answer::CutMidway,
            Answer::GzipGarbage,
            Answer::ShortBy(1),
            Answer::html(200),
            Answer::html(500),
            Answer::html(502),
        ];
        for lost in ways {
            let server = StubServer::start().await;
            let first = lost.clone();
            server.script(move |request| if request.number == 0 { first.clone() } else { Answer::Normal });
            let mut bench = Bench::against(&server);
            bench.submit(1, "a", &["x", "y"]).await;
            bench.submit(2, "stream", &["x", "y"]).await;
            for (_, outcome) in bench.outcomes(2).await {
                assert!(matches!(&outcome, Outcome::Settled { rejected, .. } if rejected.is_empty()), "{lost:?}: {outcome:?}");
            }
            assert_eq!(server.document_count(), 4, "{lost:?}");
            assert!(server.request_count() >= 2, "{lost:?} was taken for a success");
            bench.trouble(None).await;
            bench.end().await;
        }
    }

    #[tokio::test]
    async fn an_unknown_error_is_shown_and_never_given_up() {
        let server = StubServer::start().await;
        server.script(|_| Answer::item_error("odd", 400, "brand_new_exception", "surprise"));
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &["odd", "fine"]).await;
        let reason = bench.trouble(Some(ReasonCode::UnknownError)).await.unwrap();
        assert!(reason.message.contains("brand_new_exception: surprise"), "{}", reason.message);
        bench.submit(2, "a", &["fine"]).await;
        assert_eq!(bench.outcome().await, (2, settled(0)), "others go on");
        let again = bench.trouble(Some(ReasonCode::UnknownError)).await.unwrap();
        assert_eq!(again.since_at, reason.since_at);
        server.heal();
        assert_eq!(bench.outcome().await, (1, settled(1)));
        bench.trouble(None).await;
        bench.end().await;
    }

    #[tokio::test]
    async fn requests_that_fail_for_ever_leave_room_for_others() {
        let server = StubServer::start().await;
        server.script(|request| if request.contains("odd") { Answer::html(500) } else { Answer::Normal });
        let mut bench = Bench::against(&server);
        for ticket in 1..=6 {
            bench.submit_alone(ticket, "a", &["odd"]).await;
        }
        bench.trouble(Some(ReasonCode::UnknownError)).await;
        bench.submit(7, "a", &["fine"]).await;
        assert_eq!(bench.outcome().await, (7, settled(0)));
        bench.end().await;
    }

    #[tokio::test]
    async fn refused_credentials_wait_and_give_nothing_up() {
        for status in [401, 403] {
            let server = StubServer::start().await;
            server.script(move |_| Answer::error(status, "security_exception", "missing authentication credentials"));
            let mut bench = Bench::against(&server);
            bench.submit(1, "a", &["x"]).await;
            let reason = bench.trouble(Some(ReasonCode::Credentials)).await.unwrap();
            assert!(reason.message.contains("security_exception") && !reason.remedy.is_empty());
            until(|| server.request_count() >= 3).await;
            server.heal();
            assert_eq!(bench.outcome().await, (1, settled(1)));
            bench.trouble(None).await;
            bench.end().await;
        }
    }

    #[tokio::test]
    async fn pressure_lowers_the_requests_and_is_told_when_it_lasts() {
        let server = StubServer::start().await;
        server.script(|_| Answer::error(429, "es_rejected_execution_exception", "queue full"));
        let mut bench = Bench::start(&ElasticsearchConfig { in_flight: 4, ..configuration(vec![server.url()]) });
        for ticket in 1..=4 {
            bench.submit_alone(ticket, "a", &["x"]).await;
        }
        bench.trouble(Some(ReasonCode::SinkRejecting)).await;
        server.heal();
        assert_eq!(bench.outcomes(4).await.len(), 4);
        bench.trouble(None).await;
        assert!(bench.stats.totals().requests["retry"] >= 4);
        bench.end().await;
    }

    #[tokio::test]
    async fn a_dead_node_costs_no_batch() {
        let dead = StubServer::start().await;
        dead.stop();
        let server = StubServer::start().await;
        let mut bench = Bench::start(&configuration(vec![dead.url(), server.url()]));
        for ticket in 1..=20 {
            bench.submit_alone(ticket, "a", &["x"]).await;
        }
        assert_eq!(bench.outcomes(20).await.len(), 20);
        assert_eq!(server.document_count(), 20);
        assert!(bench.handle.is_well());
        let revived = StubServer::start_at(dead.address()).await;
        for ticket in 21.. {
            bench.submit_alone(ticket, "a", &["x"]).await;
            bench.outcome().await;
            if revived.request_count() > 0 {
                break;
            }
        }
        bench.end().await;
    }

    /// Two nodes of which one does this: everything goes to the other, and the bad one is tried now and then until it is well.
    async fn one_bad_node_of_two(bad: Answer, timeout: Duration) {
        const SEGMENTS: u64 = 40;
        let (sick, well) = (StubServer::start().await, StubServer::start().await);
        let answer = bad.clone();
        sick.script(move |_| answer.clone());
        let mut bench = Bench::start(&ElasticsearchConfig { timeout, ..configuration(vec![sick.url(), well.url()]) });
        for ticket in 1..=SEGMENTS {
            bench.submit_alone(ticket, "a", &["x"]).await;
            let (_, outcome) = bench.outcome().await;
            assert!(matches!(&outcome, Outcome::Settled { rejected, .. } if rejected.is_empty()), "{bad:?}: {outcome:?}");
        }
        assert_eq!(well.document_count(), SEGMENTS as usize, "{bad:?}");
        // A tenth of a second between two tries at most, and none of them for ever.
        assert!(sick.request_count() < SEGMENTS as usize / 2, "{bad:?}: {} requests to a node that is left out", sick.request_count());
        assert!(bench.handle.is_well(), "{bad:?}: one node is not the sink: {:?}", bench.handle.health());
        sick.heal();
        let before = sick.request_count();
        for ticket in SEGMENTS + 1.. {
            assert!(ticket < 5000, "{bad:?}: a node that is well again gets no work");
            bench.submit_alone(ticket, "a", &["x"]).await;
            bench.outcome().await;
            if sick.request_count() > before + 5 {
                break;
            }
        }
        bench.end().await;
    }

    #[tokio::test]
    async fn a_node_that_refuses_everything_is_left_out_and_comes_back() {
        for status in [429, 500, 502, 503, 504] {
            one_bad_node_of_two(Answer::error(status, "anything_exception", "not now"), SOON).await;
        }
        one_bad_node_of_two(Answer::Refuse { status: 503, body: "<html>503</html>".to_owned() }, SOON).await;
    }

    #[tokio::test]
    async fn a_node_that_gives_no_usable_answer_is_left_out_and_comes_back() {
        for answer in [Answer::html(200), Answer::CutMidway, Answer::Cut, Answer::ShortBy(1), Answer::GzipGarbage] {
            one_bad_node_of_two(answer, SOON).await;
        }
    }

    #[tokio::test]
    async fn a_node_that_hangs_is_left_out_and_comes_back() {
        one_bad_node_of_two(Answer::Hang, Duration::from_millis(100)).await;
    }

    #[tokio::test]
    async fn nodes_that_all_refuse_everything_are_pressure_on_the_sink() {
        let servers = [StubServer::start().await, StubServer::start().await];
        for server in &servers {
            server.script(|_| Answer::error(503, "master_not_discovered_exception", ""));
        }
        let mut bench = Bench::start(&configuration(servers.iter().map(StubServer::url).collect()));
        bench.submit(1, "a", &["x"]).await;
        bench.trouble(Some(ReasonCode::SinkRejecting)).await;
        servers.iter().for_each(StubServer::heal);
        assert_eq!(bench.outcome().await, (1, settled(1)));
        bench.trouble(None).await;
        bench.end().await;
    }

    #[tokio::test]
    async fn a_document_that_breaks_every_node_stops_no_other() {
        let servers = [StubServer::start().await, StubServer::start().await, StubServer::start().await];
        for server in &servers {
            server.script(|request| match request.contains("breaks") {
                true => Answer::error(500, "null_pointer_exception", ""),
                false => Answer::Normal,
            });
        }
        let mut bench = Bench::start(&configuration(servers.iter().map(StubServer::url).collect()));
        bench.submit_alone(1, "a", &["breaks"]).await;
        bench.trouble(Some(ReasonCode::UnknownError)).await;
        for ticket in 2..=50 {
            bench.submit_alone(ticket, "a", &["x"]).await;
            assert_eq!(bench.outcome().await.0, ticket, "one that is never given up held another up");
        }
        servers.iter().for_each(StubServer::heal);
        assert_eq!(bench.outcome().await, (1, settled(1)));
        bench.end().await;
    }

    #[tokio::test]
    async fn an_answer_about_another_operation_settles_nothing() {
        let server = StubServer::start().await;
        server.script(|request| match request.number {
            0 => Answer::Instead {
                status: 200,
                content_type: "application/json",
                body: r#"{"errors":true,"items":[{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"there"}}}]}"#
                    .to_owned(),
            },
            _ => Answer::Normal,
        });
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &["x"]).await;
        assert_eq!(bench.outcome().await, (1, settled(1)));
        assert_eq!(server.request_count(), 2);
        bench.end().await;
    }

    #[tokio::test]
    async fn an_outage_is_told_and_ends_by_itself() {
        let gone = StubServer::start().await;
        let address = gone.address();
        gone.stop();
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        let mut bench = Bench::start(&configuration(vec![gone.url()]));
        bench.submit(1, "a", &["x"]).await;
        let reason = bench.trouble(Some(ReasonCode::SinkUnreachable)).await.unwrap();
        assert!(reason.message.contains(&address.to_string()), "{}", reason.message);
        let server = StubServer::start_at(address).await;
        assert_eq!(bench.outcome().await, (1, settled(1)));
        bench.trouble(None).await;
        assert_eq!(server.document_count(), 1);
        assert!(bench.stats.totals().requests["unreachable"] >= 1);
        bench.end().await;
    }

    #[tokio::test]
    async fn an_outage_does_not_empty_the_queue_into_memory() {
        let gone = StubServer::start().await;
        let address = gone.address();
        gone.stop();
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        let bench = Bench::start(&configuration(vec![gone.url()]));
        let most = 2 * configuration(Vec::new()).in_flight + QUEUE + 2;
        let mut submitted = 0;
        loop {
            let permit = tokio::time::timeout(Duration::from_millis(300), bench.handle.reserve()).await;
            let Ok(permit) = permit else { break };
            submitted += 1;
            assert!(submitted <= most, "the sink takes segments although nothing gets through");
            permit.submit(Segment { alone: true, ..segment(submitted as u64, "a", &["x"], &bench.to) });
        }
        bench.end().await;
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_given_up_after_the_timeout() {
        let server = StubServer::start().await;
        server.script(|request| if request.number == 0 { Answer::Hang } else { Answer::Normal });
        let mut bench = Bench::start(&ElasticsearchConfig { timeout: Duration::from_millis(200), ..configuration(vec![server.url()]) });
        bench.submit(1, "a", &["x"]).await;
        assert_eq!(bench.outcome().await, (1, settled(1)));
        bench.end().await;
    }

    #[tokio::test]
    async fn cancelling_answers_what_is_in_work() {
        let server = StubServer::start().await;
        server.script(|_| Answer::Hang);
        let mut bench = Bench::against(&server);
        bench.submit(1, "a", &["x"]).await;
        until(|| server.request_count() == 1).await;
        bench.cancel.cancel();
        assert_eq!(bench.outcome().await, (1, Outcome::Lost));
        assert_eq!(bench.life.await.expect("no panic"), Ok(()));
    }

    #[tokio::test]
    async fn a_sink_without_handles_ends_when_its_work_is_done() {
        let server = StubServer::start().await;
        let Bench { handle, to, mut outcomes, life, .. } = Bench::against(&server);
        handle.submit(segment(1, "a", &["x"], &to)).await;
        drop(handle);
        assert_eq!(outcomes.recv().await, Some((1, settled(0))));
        assert_eq!(life.await.expect("no panic"), Err(RunError::HandlesGone));
    }

    #[tokio::test]
    async fn segments_that_say_nothing_or_nonsense_are_answered() {
        let server = StubServer::start().await;
        let mut bench = Bench::against(&server);
        let empty = Segment { body: Vec::new().into(), ends: Vec::new(), alone: false, hurry: false, reply: Reply::new(1, bench.to.clone()) };
        bench.handle.submit(empty).await;
        assert_eq!(bench.outcome().await, (1, settled(0)));
        let nonsense = Segment { body: b"{}".to_vec().into(), ends: vec![7], alone: false, hurry: false, reply: Reply::new(2, bench.to.clone()) };
        bench.handle.submit(nonsense).await;
        assert_eq!(bench.outcome().await, (2, Outcome::Lost));
        bench.end().await;
    }

    #[tokio::test]
    async fn credentials_are_sent_and_not_shown() {
        let server = StubServer::start().await;
        let auth = SinkAuth::Basic { username: "drover".to_owned(), password: crate::config::Secret::new("hunter2".to_owned()) };
        let config = ElasticsearchConfig { auth, ..configuration(vec![server.url()]) };
        let mut bench = Bench::start(&config);
        bench.submit(1, "a", &["x"]).await;
        bench.outcome().await;
        assert_eq!(server.seen()[0].headers["authorization"], "Basic ZHJvdmVyOmh1bnRlcjI=");
        let (sink, _, _) = ElasticsearchSink::new(&config).unwrap();
        let shown = format!("{sink:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("ZHJvdmVyOmh1bnRlcjI="), "{shown}");
        bench.end().await;
    }

    #[tokio::test]
    async fn a_probe_says_why_nobody_answers() {
        let server = StubServer::start().await;
        server.answer_others(503);
        assert_eq!(probe(&configuration(vec![server.url()])).await, Ok(()));
        server.answer_others(401);
        let refused = probe(&configuration(vec![server.url()])).await.unwrap_err();
        assert!(refused.contains("401"), "{refused}");
        let address = server.address();
        server.stop();
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        let unreachable = probe(&configuration(vec![server.url()])).await.unwrap_err();
        assert!(unreachable.contains(&address.to_string()), "{unreachable}");
    }
}
