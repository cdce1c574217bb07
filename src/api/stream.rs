//! `GET /api/v1/stream`: what changes, as it changes, as server-sent events or lines of JSON.
//!
//! Guarantees: a client that applies `snapshot` and then every frame in order sees what `GET /api/v1/topics` shows, at most a second late; a client that comes back with the id of its last frame gets what
//! came after it, or `resync` and a new `snapshot` when that is not kept any more; frames are made once, whatever the number of clients, and only while there is one; a client that reads slowly costs nothing but its
//! connection, since each one has a place in the shared log and no queue of its own, and is told `resync` when the log has passed it; all streams end with `bye` as soon as the server stops.
//!
//! Owns the log of frames. Starts nothing: whoever waits for a snapshot first makes its frames. Numbers of single tasks (offsets, lag, rates) do not make frames, or a thousand busy partitions would fill every
//! connection: a task's frame says that its state, its reason, its life or its restarts are others, and `GET /api/v1/tasks` has the numbers.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::auth::{self, Caller, TokensView};
use super::extract::{self, Params};
use super::problem::{ApiError, problems};
use super::text::{self, Offer};
use super::{ProblemCode, Shared, document};
use crate::status::events::{Event, EventKind};
use crate::status::{Snapshot, Task, Topic, time_text};
use crate::topic::TopicName;

/// Frames that are kept for clients that come back or read slowly.
const KEPT_FRAMES: usize = 4096;
/// Bytes of the data of frames that are kept; with both forms that they go out in, three times as many.
const KEPT_BYTES: usize = 4 << 20;
/// Data from here on goes out as it is, between its head and its tail, instead of in one piece with them.
const LARGE: usize = 64 << 10;
/// How often a topic's frame may come when only its numbers changed.
const NUMBERS_EVERY: Duration = Duration::from_secs(1);
/// A line without meaning keeps proxies and clients from taking silence for an end.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A stream ends after this time, so that clients of a fleet spread again over what answers.
const LONGEST: Duration = Duration::from_secs(3600);
/// When a browser tries again, in milliseconds.
const RETRY_MS: u32 = 3000;
/// Streams at once, as a part of `http.max_connections`: the rest stays for requests that end.
const MOST_STREAMS_PART: usize = 2;

/// Cancelled when the server stops; in the extensions of each of its requests.
#[derive(Debug, Clone)]
pub(super) struct Closing(pub(super) CancellationToken);

/// What a frame tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FrameKind {
    /// The first frame: who answers.
    Hello,
    /// Everything that the stream is about, as it is now.
    Snapshot,
    /// A task as it is now.
    Task,
    /// A topic as it is now.
    Topic,
    /// Something happened; a topic that is not managed any more is told so.
    Event,
    /// What came before is not kept any more: a snapshot follows.
    Resync,
    /// The server ends the stream.
    Bye,
}

impl FrameKind {
    /// Those that a client may choose from.
    const CHOICE: [Self; 3] = [Self::Task, Self::Topic, Self::Event];

    fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Snapshot => "snapshot",
            Self::Task => "task",
            Self::Topic => "topic",
            Self::Event => "event",
            Self::Resync => "resync",
            Self::Bye => "bye",
        }
    }
}

/// One event of the stream as `text/event-stream`: what a client has of its lines `id:`, `event:` and `data:`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only in the document")]
pub(super) struct StreamEvent {
    /// As in a line of `application/x-ndjson`.
    #[schema(example = "mhfbl2o0-17")]
    id: String,
    /// What the event tells.
    event: FrameKind,
    /// The text of the JSON object that a line of `application/x-ndjson` has here.
    data: String,
}

/// One line of the stream as `application/x-ndjson`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamLine {
    /// `<epoch>-<seq>`: the run of the process, and the place in its stream. Send the last one as `Last-Event-ID` to go on behind it.
    #[schema(example = "mhfbl2o0-17")]
    id: String,
    /// What the line tells.
    event: FrameKind,
    /// `hello`: `instance, version, taken_at`; `snapshot`: `taken_at, topics, tasks`; `task`, `topic`, `event`: the resource; `resync` and `bye`: `reason`.
    #[schema(value_type = Object)]
    data: serde_json::Value,
}

/// A change, as it goes out.
#[derive(Debug)]
struct Frame {
    seq: u64,
    kind: FrameKind,
    topic: Option<TopicName>,
    data: Bytes,
    /// As it goes out; every client of a form sends the same bytes.
    sse: OnceLock<Bytes>,
    lines: OnceLock<Bytes>,
}

impl Frame {
    fn new(seq: u64, kind: FrameKind, topic: Option<TopicName>, data: Bytes) -> Self {
        Self { seq, kind, topic, data, sse: OnceLock::new(), lines: OnceLock::new() }
    }

    fn written(&self, wire: Wire, epoch: &str) -> Bytes {
        let form = match wire {
            Wire::Sse => &self.sse,
            Wire::Lines => &self.lines,
        };
        form.get_or_init(|| wire.frame(epoch, self.seq, self.kind, &self.data)).clone()
    }
}

/// The frames of this run of the process, shared by all streams.
#[derive(Debug)]
pub struct StreamLog {
    /// Changed by whichever stream looks first; nobody waits for it to change, since the snapshots say when to look.
    frames: watch::Sender<Frames>,
    streams: Arc<()>,
}

impl Default for StreamLog {
    fn default() -> Self {
        Self { frames: watch::Sender::new(Frames::default()), streams: Arc::default() }
    }
}

#[derive(Debug, Default)]
struct Frames {
    /// What the frames have told of so far.
    told: Option<Arc<Snapshot>>,
    /// What the topics' frames have told of so far, numbers included.
    numbers: Option<Arc<Snapshot>>,
    numbers_at: Option<Instant>,
    /// Oldest first; their numbers have no gaps.
    kept: VecDeque<Arc<Frame>>,
    bytes: usize,
    last_seq: u64,
    /// The snapshot that clients without a filter are given.
    whole: Option<(Arc<Snapshot>, Bytes)>,
}

/// What lies behind a place in the log.
enum Behind {
    Frames(Vec<Arc<Frame>>),
    /// Some of it is not kept any more, or was never made.
    Gone,
}

impl StreamLog {
    /// Does something with the frames, alone.
    fn with<T>(&self, act: impl FnOnce(&mut Frames) -> T) -> Option<T> {
        let mut outcome = None;
        self.frames.send_modify(|frames| outcome = Some(act(frames)));
        outcome
    }

    /// A place for one more stream, unless there are `most`.
    fn enter(&self, most: usize) -> Option<Arc<()>> {
        let place = self.streams.clone();
        // The log itself holds one.
        (Arc::strong_count(&place) <= most + 1).then_some(place)
    }
}

impl Frames {
    /// Makes the frames between the snapshot before and this one.
    fn advance(&mut self, next: &Arc<Snapshot>, now: Instant) {
        let Some(before) = self.told.clone() else {
            self.begin(next, now);
            return;
        };
        if Arc::ptr_eq(&before, next) {
            return;
        }
        if before.events.epoch() != next.events.epoch() {
            // The gap in the numbers makes those who listen start over.
            *self = Self { last_seq: self.last_seq + 1, ..Self::default() };
            self.begin(next, now);
            return;
        }
        let known = before.events.last_seq();
        let fresh: Vec<&Arc<Event>> = next.events.events().iter().filter(|event| event.seq > known).collect();
        let is_whole = fresh.first().is_none_or(|first| first.seq == known + 1) && !fresh.iter().any(|event| hides_a_removal(event));
        if !is_whole {
            // Clients would not hear of what is gone: everybody starts over. The gap in the numbers makes them.
            *self = Self { last_seq: self.last_seq + 1, ..Self::default() };
            self.begin(next, now);
            return;
        }
        let shows_numbers = self.numbers_at.is_none_or(|at| now.duration_since(at) >= NUMBERS_EVERY);
        let base = if shows_numbers { self.numbers.clone().unwrap_or_else(|| before.clone()) } else { before.clone() };
        for topic in changed(
            &base.topics,
            &next.topics,
            |old, new| old.name.cmp(&new.name),
            |old, new| if shows_numbers { old == new } else { is_same_topic(old, new) },
        ) {
            self.push(FrameKind::Topic, Some(topic.name.clone()), topic);
        }
        for task in changed(&before.tasks, &next.tasks, |old, new| (&old.topic, old.partition).cmp(&(&new.topic, new.partition)), is_same_task) {
            self.push(FrameKind::Task, Some(task.topic.clone()), task);
        }
        for event in fresh {
            self.push(FrameKind::Event, event.topic.clone(), &**event);
        }
        if shows_numbers {
            self.numbers = Some(next.clone());
            self.numbers_at = Some(now);
        }
        self.told = Some(next.clone());
    }

    fn begin(&mut self, next: &Arc<Snapshot>, now: Instant) {
        self.told = Some(next.clone());
        self.numbers = Some(next.clone());
        self.numbers_at = Some(now);
    }

    fn push(&mut self, kind: FrameKind, topic: Option<TopicName>, resource: &impl Serialize) {
        // Resources are made of maps with text keys and always serialise.
        let data = Bytes::from(serde_json::to_vec(resource).unwrap_or_default());
        self.last_seq += 1;
        self.bytes += data.len();
        self.kept.push_back(Arc::new(Frame::new(self.last_seq, kind, topic, data)));
        while self.kept.len() > KEPT_FRAMES || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.data.len();
        }
    }

    /// The frames after this place, at most `most`.
    fn behind(&self, seq: u64, most: usize) -> Behind {
        if seq == self.last_seq {
            return Behind::Frames(Vec::new());
        }
        let Some(first) = self.kept.front().map(|frame| frame.seq).filter(|first| seq < self.last_seq && *first <= seq + 1) else {
            return Behind::Gone;
        };
        let skip = usize::try_from(seq + 1 - first).unwrap_or(usize::MAX);
        Behind::Frames(self.kept.iter().skip(skip).take(most).cloned().collect())
    }

    /// What `snapshot` holds for this filter. Without one it is the same bytes for everybody.
    fn snapshot(&mut self, filter: &Filter) -> Bytes {
        let Some(told) = self.told.clone() else { return Bytes::from_static(b"null") };
        if filter.is_none() {
            if let Some((of, bytes)) = &self.whole
                && Arc::ptr_eq(of, &told)
            {
                return bytes.clone();
            }
            let bytes = filter.snapshot(&told);
            self.whole = Some((told, bytes.clone()));
            return bytes;
        }
        filter.snapshot(&told)
    }
}

/// Many removals at one moment are one event, which does not name them.
fn hides_a_removal(event: &Event) -> bool {
    event.kind == EventKind::TopicRemoved && event.topic.is_none()
}

/// The rows of `next` that are new or not the same as in `before`; both are in `order`.
fn changed<'n, T>(before: &[T], next: &'n [T], order: impl Fn(&T, &T) -> Ordering, is_same: impl Fn(&T, &T) -> bool) -> Vec<&'n T> {
    let mut old = before.iter().peekable();
    let mut rows = Vec::new();
    for row in next {
        while old.next_if(|candidate| order(candidate, row).is_lt()).is_some() {}
        let is_known = old.peek().is_some_and(|candidate| order(candidate, row).is_eq() && is_same(candidate, row));
        if !is_known {
            rows.push(row);
        }
    }
    rows
}

/// Whether nothing but numbers differs.
fn is_same_topic(old: &Topic, new: &Topic) -> bool {
    let (was, is) = (&old.status, &new.status);
    was.state == is.state
        && was.health == is.health
        && was.reason == is.reason
        && was.partitions == is.partitions
        && was.restarts_total == is.restarts_total
        && old.spec == new.spec
        && old.overrides == new.overrides
        && old.sources == new.sources
        && old.paused == new.paused
}

/// Whether nothing but numbers differs.
fn is_same_task(old: &Task, new: &Task) -> bool {
    old.state == new.state
        && old.health == new.health
        && old.reason == new.reason
        && old.instance == new.instance
        && old.incarnation == new.incarnation
        && old.restarts_total == new.restarts_total
        && old.next_restart_at == new.next_restart_at
        && old.last_exit == new.last_exit
}

/// What a client wants to hear of.
#[derive(Debug, Clone, Default)]
struct Filter {
    topic: Option<TopicName>,
    /// `None`: all.
    kinds: Option<Vec<FrameKind>>,
}

impl Filter {
    fn is_none(&self) -> bool {
        self.topic.is_none() && self.kinds.is_none()
    }

    fn wants(&self, kind: FrameKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    fn lets_through(&self, frame: &Frame) -> bool {
        self.wants(frame.kind) && self.topic.as_ref().is_none_or(|topic| frame.topic.as_ref() == Some(topic))
    }

    fn snapshot(&self, snapshot: &Snapshot) -> Bytes {
        let is_ours = |topic: &TopicName| self.topic.as_ref().is_none_or(|wanted| wanted == topic);
        let body = SnapshotBody {
            taken_at: snapshot.taken_at,
            topics: snapshot.topics.iter().filter(|topic| self.wants(FrameKind::Topic) && is_ours(&topic.name)).collect(),
            tasks: snapshot.tasks.iter().filter(|task| self.wants(FrameKind::Task) && is_ours(&task.topic)).collect(),
        };
        Bytes::from(serde_json::to_vec(&body).unwrap_or_default())
    }
}

#[derive(Serialize)]
struct SnapshotBody<'s> {
    #[serde(with = "time_text")]
    taken_at: Timestamp,
    topics: Vec<&'s Topic>,
    tasks: Vec<&'s Task>,
}

#[derive(Serialize)]
struct HelloBody<'s> {
    instance: &'s str,
    version: &'s str,
    #[serde(with = "time_text")]
    taken_at: Timestamp,
}

/// How frames are written.
#[derive(Debug, Clone, Copy)]
enum Wire {
    Sse,
    Lines,
}

impl Offer for Wire {
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Sse => ("text", "event-stream"),
            Self::Lines => ("application", "x-ndjson"),
        }
    }
}

impl Wire {
    fn head(self, epoch: &str, seq: u64, kind: FrameKind) -> String {
        match self {
            Self::Sse => format!("id: {epoch}-{seq}\nevent: {}\ndata: ", kind.as_str()),
            Self::Lines => format!(r#"{{"id":"{epoch}-{seq}","event":"{}","data":"#, kind.as_str()),
        }
    }

    fn tail(self) -> &'static [u8] {
        match self {
            // JSON text has no line ends of its own.
            Self::Sse => b"\n\n",
            Self::Lines => b"}\n",
        }
    }

    fn frame(self, epoch: &str, seq: u64, kind: FrameKind, data: &[u8]) -> Bytes {
        [self.head(epoch, seq, kind).as_bytes(), data, self.tail()].concat().into()
    }

    /// The pieces of a frame, which share large data with those of all other clients.
    fn pieces(self, epoch: &str, seq: u64, kind: FrameKind, data: Bytes) -> Vec<Bytes> {
        if data.len() < LARGE {
            return vec![self.frame(epoch, seq, kind, &data)];
        }
        vec![self.head(epoch, seq, kind).into(), data, Bytes::from_static(self.tail())]
    }

    fn keep_alive(self) -> Bytes {
        match self {
            Self::Sse => Bytes::from_static(b":\n\n"),
            Self::Lines => Bytes::from_static(b"\n"),
        }
    }
}

/// Frames that are taken from the log at a time.
const BATCH: usize = 64;

/// One client's stream.
struct Client {
    state: Shared,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    filter: Filter,
    wire: Wire,
    closing: CancellationToken,
    tokens: Option<watch::Receiver<TokensView>>,
    caller: Option<Caller>,
    ends_at: Instant,
    next_keep_alive: Instant,
    /// The number of the last frame that was looked at.
    seq: u64,
    /// What goes out before the log is looked at again: at most a batch of shared frames.
    ready: VecDeque<Bytes>,
    is_over: bool,
    _place: Arc<()>,
}

impl Client {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.next_keep_alive = Instant::now() + KEEP_ALIVE;
                return Some(bytes);
            }
            if self.is_over {
                return None;
            }
            self.look();
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                () = self.closing.cancelled() => self.end("the instance stops"),
                () = auth::revoked(&mut self.tokens, self.caller.as_ref()) => self.end("the token is not in force any more"),
                () = tokio::time::sleep_until(self.ends_at) => self.end("the stream is an hour old: connect again"),
                changed = self.snapshots.changed() => if changed.is_err() {
                    self.end("the instance stops");
                },
                () = tokio::time::sleep_until(self.next_keep_alive) => self.ready.push_back(self.wire.keep_alive()),
            }
        }
    }

    /// Takes what the log holds behind this client's place.
    fn look(&mut self) {
        let newest = self.snapshots.borrow_and_update().clone();
        let epoch = newest.events.epoch();
        let stream = self.state.stream.clone();
        stream.with(|log| {
            log.advance(&newest, Instant::now());
            self.take(log, epoch);
        });
    }

    fn take(&mut self, log: &mut Frames, epoch: &str) {
        match log.behind(self.seq, BATCH) {
            Behind::Frames(frames) => {
                self.seq = frames.last().map_or(self.seq, |frame| frame.seq);
                let wanted = frames.iter().filter(|frame| self.filter.lets_through(frame));
                self.ready.extend(wanted.map(|frame| frame.written(self.wire, epoch)));
                // Nothing of the batch was wanted, and there may be more behind it.
                if self.ready.is_empty() && self.seq != log.last_seq {
                    self.snapshots.mark_changed();
                }
            }
            Behind::Gone => {
                self.seq = log.last_seq;
                let reason = br#"{"reason":"what came before is not kept any more"}"#;
                self.ready.push_back(self.wire.frame(epoch, self.seq, FrameKind::Resync, reason));
                self.ready.extend(self.wire.pieces(epoch, self.seq, FrameKind::Snapshot, log.snapshot(&self.filter)));
            }
        }
    }

    fn end(&mut self, reason: &str) {
        let epoch = self.snapshots.borrow().events.epoch().to_owned();
        let data = format!(r#"{{"reason":"{reason}"}}"#);
        self.ready.push_back(self.wire.frame(&epoch, self.seq, FrameKind::Bye, data.as_bytes()));
        self.is_over = true;
    }
}

/// The query of the stream.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `parse`")]
struct StreamParameters {
    /// Only this topic, its tasks and its events
    topic: Option<TopicName>,
    /// Only frames of these kinds, comma-separated, out of `task`, `topic` and `event`
    #[param(example = "topic,event")]
    kinds: Option<String>,
}

fn parse(uri: &Uri) -> Result<Filter, ApiError> {
    let mut params = Params::of(uri, "stream")?;
    let topic = params.take("topic", extract::topic);
    let kinds = params.take("kinds", |text| {
        text.split(',').map(|kind| extract::one_of(&FrameKind::CHOICE, FrameKind::as_str, kind)).collect::<Result<Vec<_>, _>>()
    });
    params.finish()?;
    Ok(Filter { topic, kinds })
}

/// The place that `Last-Event-ID` names in the run `epoch`; `None` for another run. Any other text is what a browser or a proxy made of it, and means the same as another run.
fn place(headers: &HeaderMap, epoch: &str) -> Option<u64> {
    let text = headers.get(LAST_EVENT_ID)?.to_str().ok()?;
    text.strip_prefix(epoch)?.strip_prefix('-')?.parse().ok()
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

problems!(StreamProblems: InvalidRequest NotAcceptable MisdirectedRequest RateLimited Internal);

/// Streams what changes
///
/// Server-sent events, or lines of JSON with `Accept: application/x-ndjson`: `hello`, then `snapshot`, then a frame for each change. A topic's frame comes at once when its state changes and at most once a second when
/// only its numbers do; a task's when its state, reason, life or restarts change; events as they happen. With `Last-Event-ID` the frames behind that id instead of a snapshot, or `resync` and a snapshot when they are
/// not kept any more. A topic that is not managed any more is told by its event. Silence is broken every 15 seconds by a comment (an empty line); after an hour, and when the instance stops, the last frame is `bye`.
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    tag = "events",
    params(StreamParameters, ("last-event-id" = Option<String>, Header, description = "The id of the last frame that was received")),
    responses(
        (status = 200, description = "The stream", headers(("x-request-id" = String, description = "The request's id")),
            content((StreamEvent = "text/event-stream"), (StreamLine = "application/x-ndjson"))),
        StreamProblems,
    ),
)]
pub(super) async fn stream_events(
    State(state): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    closing: Option<Extension<Closing>>,
    caller: Option<Extension<Caller>>,
) -> Result<Response, ApiError> {
    let wire = text::negotiate(&headers, &[Wire::Sse, Wire::Lines])?;
    let filter = parse(&uri)?;
    let most = (state.http.max_connections / MOST_STREAMS_PART).max(1);
    let Some(place_of_stream) = state.stream.enter(most) else {
        return Err(ApiError::new(ProblemCode::RateLimited, format!("there are {most} streams already, half of http.max_connections")));
    };
    let mut snapshots = state.snapshot.clone();
    let newest = snapshots.borrow_and_update().clone();
    let epoch = newest.events.epoch();
    let hello = HelloBody { instance: &state.info.instance, version: &state.info.version, taken_at: newest.taken_at };
    let hello = document::json(&hello)?;
    let asked = headers.contains_key(LAST_EVENT_ID).then(|| place(&headers, epoch));
    let first = state.stream.with(|log| {
        log.advance(&newest, Instant::now());
        let known = asked.flatten().filter(|seq| *seq <= log.last_seq);
        (known.unwrap_or(log.last_seq), known.is_none().then(|| log.snapshot(&filter)))
    });
    let Some((seq, snapshot)) = first else { return Err(ApiError::new(ProblemCode::Internal, "the stream has no frames")) };
    let mut ready = VecDeque::new();
    if matches!(wire, Wire::Sse) {
        ready.push_back(Bytes::from(format!("retry: {RETRY_MS}\n\n")));
    }
    ready.push_back(wire.frame(epoch, seq, FrameKind::Hello, &hello));
    if let Some(snapshot) = snapshot {
        if asked.is_some() {
            ready.push_back(wire.frame(epoch, seq, FrameKind::Resync, br#"{"reason":"the id is not of this run of the instance"}"#));
        }
        ready.extend(wire.pieces(epoch, seq, FrameKind::Snapshot, snapshot));
    }
    let now = Instant::now();
    let client = Client {
        snapshots,
        filter,
        wire,
        closing: closing.map(|Extension(Closing(token))| token).unwrap_or_default(),
        tokens: state.tokens.clone(),
        caller: caller.map(|Extension(caller)| caller),
        ends_at: now + LONGEST,
        next_keep_alive: now + KEEP_ALIVE,
        seq,
        ready,
        is_over: false,
        _place: place_of_stream,
        state,
    };
    let body = futures::stream::unfold(client, |mut client| async {
        let bytes = client.next().await?;
        Some((Ok::<_, Infallible>(bytes), client))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(&text::name_of(wire)) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    // A proxy that gathers or changes the answer would hold frames back.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, StatusCode};
    use futures::StreamExt as _;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::api::tests::{name, noon, snapshot, state};
    use crate::api::{ApiState, router};
    use crate::status::TaskState;
    use crate::status::events::{Draft, EventData, Severity};

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A server whose snapshots the test makes.
    struct Server {
        state: ApiState,
        snapshots: watch::Sender<Arc<Snapshot>>,
    }

    impl Server {
        fn new() -> Self {
            let (snapshots, receiver) = watch::channel(Arc::new(snapshot()));
            Self { state: ApiState { snapshot: receiver, ..state() }, snapshots }
        }

        fn change(&self, change: impl FnOnce(&mut Snapshot)) {
            let mut next = Snapshot::clone(&self.snapshots.borrow());
            change(&mut next);
            self.snapshots.send_replace(Arc::new(next));
        }

        async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Response {
            let mut request = Request::get(path).header("host", "localhost");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            router(self.state.clone()).oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible")
        }

        /// A client that reads lines.
        async fn follow(&self, path: &str, last_id: Option<&str>) -> Lines {
            let mut headers = vec![("accept", "application/x-ndjson")];
            headers.extend(last_id.map(|id| ("last-event-id", id)));
            let response = self.open(path, &headers).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["content-type"], "application/x-ndjson");
            Lines { body: Box::pin(response.into_body().into_data_stream()) }
        }
    }

    struct Lines {
        body: std::pin::Pin<Box<axum::body::BodyDataStream>>,
    }

    impl Lines {
        async fn next(&mut self) -> Option<Value> {
            let bytes = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("a frame in time")?.expect("no error");
            Some(serde_json::from_slice(&bytes).expect("a line of JSON"))
        }

        /// The next frame's event and id.
        async fn frame(&mut self) -> (String, String, Value) {
            let line = self.next().await.expect("a frame");
            let text = |field: &str| line[field].as_str().expect("a text").to_owned();
            (text("event"), text("id"), line["data"].clone())
        }

        async fn kinds(&mut self, count: usize) -> Vec<String> {
            let mut kinds = Vec::new();
            for _ in 0..count {
                kinds.push(self.frame().await.0);
            }
            kinds
        }
    }

    fn stalled(topic: &str) -> impl FnOnce(&mut Snapshot) {
        let topic = name(topic);
        move |snapshot| {
            for task in snapshot.tasks.iter_mut().filter(|task| task.topic == topic) {
                task.state = TaskState::Stalled;
            }
            for row in snapshot.topics.iter_mut().filter(|row| row.name == topic) {
                row.status.state = TaskState::Stalled;
            }
            let draft = Draft {
                at: noon(),
                severity: Severity::Error,
                kind: EventKind::TaskStalled,
                topic: Some(topic.clone()),
                partition: Some(0),
                message: "it stalls".to_owned(),
                data: EventData::Nothing {},
            };
            snapshot.events = snapshot.events.with(vec![draft], "host-1");
        }
    }

    #[tokio::test]
    async fn a_client_hears_of_each_change_once_and_in_order() {
        let server = Server::new();
        let mut client = server.follow("/api/v1/stream", None).await;
        assert_eq!(client.frame().await.0, "hello");
        let (kind, first_id, data) = client.frame().await;
        assert_eq!((kind.as_str(), data["topics"].as_array().map(Vec::len), data["tasks"].as_array().map(Vec::len)), ("snapshot", Some(3), Some(5)));
        server.change(stalled("orders"));
        assert_eq!(client.kinds(3).await, ["topic", "task", "task"]);
        let (kind, last_id, data) = client.frame().await;
        assert_eq!((kind.as_str(), &data["kind"], &data["topic"]), ("event", &Value::from("task_stalled"), &Value::from("orders")));
        assert_ne!(first_id, last_id);
        server.change(|snapshot| snapshot.taken_at = noon() + Duration::from_secs(1));
        server.change(stalled("app_log"));
        let (kind, _, data) = client.frame().await;
        assert_eq!((kind.as_str(), &data["name"]), ("topic", &Value::from("app_log")), "what has not changed made a frame");
    }

    #[tokio::test]
    async fn a_client_that_comes_back_gets_what_it_missed_and_no_snapshot() {
        let server = Server::new();
        let mut client = server.follow("/api/v1/stream", None).await;
        client.kinds(1).await;
        let (_, id, _) = client.frame().await;
        drop(client);
        // Nobody listens, and still nothing is missed.
        server.change(stalled("orders"));
        let mut again = server.follow("/api/v1/stream", Some(&id)).await;
        assert_eq!(again.kinds(5).await, ["hello", "topic", "task", "task", "event"]);
    }

    #[tokio::test]
    async fn an_id_of_another_run_or_of_no_stream_begins_anew() {
        let server = Server::new();
        let epoch = server.snapshots.borrow().events.epoch().to_owned();
        for id in ["other-0".to_owned(), "nonsense".to_owned(), format!("{epoch}-99999"), format!("{epoch}--1"), format!("{epoch}-")] {
            let mut client = server.follow("/api/v1/stream", Some(&id)).await;
            assert_eq!(client.kinds(3).await, ["hello", "resync", "snapshot"], "{id}");
        }
    }

    #[tokio::test]
    async fn a_client_that_the_log_has_passed_is_told_and_starts_over() {
        let server = Server::new();
        let mut slow = server.follow("/api/v1/stream", None).await;
        assert_eq!(slow.kinds(2).await, ["hello", "snapshot"]);
        server.state.stream.with(|log| {
            for _ in 0..2 * KEPT_FRAMES {
                log.push(FrameKind::Event, None, &"x".repeat(100));
            }
            assert_eq!(log.kept.len(), KEPT_FRAMES);
            for _ in 0..1000 {
                log.push(FrameKind::Event, None, &"x".repeat(100 << 10));
            }
            assert!(log.bytes <= KEPT_BYTES, "{} bytes", log.bytes);
        });
        server.change(|snapshot| snapshot.taken_at = noon() + Duration::from_secs(1));
        assert_eq!(slow.kinds(2).await, ["resync", "snapshot"]);
        server.change(stalled("orders"));
        assert_eq!(slow.kinds(1).await, ["topic"]);
    }

    #[tokio::test]
    async fn a_client_that_comes_back_when_the_log_has_passed_its_place_is_told_and_starts_over() {
        let server = Server::new();
        let mut client = server.follow("/api/v1/stream", None).await;
        client.kinds(1).await;
        let (_, id, _) = client.frame().await;
        drop(client);
        server.state.stream.with(|log| {
            for _ in 0..KEPT_FRAMES {
                log.push(FrameKind::Event, None, &"x");
            }
        });
        // The very first frame behind its place is still kept.
        let mut in_time = server.follow("/api/v1/stream", Some(&id)).await;
        assert_eq!(in_time.kinds(2).await, ["hello", "event"]);
        server.state.stream.with(|log| log.push(FrameKind::Event, None, &"x"));
        let mut late = server.follow("/api/v1/stream", Some(&id)).await;
        assert_eq!(late.kinds(3).await, ["hello", "resync", "snapshot"]);
        server.change(stalled("orders"));
        assert_eq!(late.kinds(1).await, ["topic"]);
    }

    #[tokio::test]
    async fn a_new_epoch_makes_those_who_listen_start_over() {
        let server = Server::new();
        let mut client = server.follow("/api/v1/stream", None).await;
        client.kinds(1).await;
        let (_, old_id, _) = client.frame().await;
        server.change(|snapshot| {
            snapshot.events = crate::status::events::EventLog::new(noon() + Duration::from_secs(60));
            snapshot.topics.truncate(1);
        });
        let (kind, new_id, _) = client.frame().await;
        assert_eq!(kind, "resync");
        let epoch = server.snapshots.borrow().events.epoch().to_owned();
        assert!(new_id.starts_with(&format!("{epoch}-")) && !old_id.starts_with(&epoch), "{old_id} {new_id}");
        let (kind, _, data) = client.frame().await;
        assert_eq!((kind.as_str(), data["topics"].as_array().map(Vec::len)), ("snapshot", Some(1)));
        let mut again = server.follow("/api/v1/stream", Some(&old_id)).await;
        assert_eq!(again.kinds(3).await, ["hello", "resync", "snapshot"]);
    }

    /// Over a connection, since that is where bytes for a slow client would gather.
    #[tokio::test]
    async fn a_client_that_does_not_read_costs_no_more_than_its_connection() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        const FRAME_BYTES: usize = 100 << 10;
        const FRAMES: usize = 3000;

        let mut server = Server::new();
        server.state.http.max_connections = 20;
        let state = server.state.clone();
        crate::api::serve::tests::against(state, async |address| {
            let mut slow = Vec::new();
            for _ in 0..5 {
                let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
                stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
                let mut head = [0; 15];
                stream.read_exact(&mut head).await.expect("an answer");
                slow.push(stream);
            }
            let text = "x".repeat(FRAME_BYTES);
            for number in 0..FRAMES {
                let bytes = server.state.stream.with(|log| {
                    log.push(FrameKind::Event, None, &text);
                    log.bytes
                });
                assert!(bytes.is_some_and(|bytes| bytes <= KEPT_BYTES), "{bytes:?}");
                let taken_at = noon() + Duration::from_millis(number as u64);
                server.change(|snapshot| snapshot.taken_at = taken_at);
                // The server's turn: whoever could take a frame takes it.
                tokio::task::yield_now().await;
            }
            for mut stream in slow {
                let mut read = 0;
                let mut tail = Vec::new();
                let mut buffer = vec![0; 64 << 10];
                while !tail.windows(15).any(|text| text == b"event: snapshot") || read < FRAME_BYTES {
                    let bytes = stream.read(&mut buffer).await.expect("bytes");
                    assert!(bytes > 0, "the stream ended");
                    read += bytes;
                    // Frames are longer than a read, so what is looked for is in the last two.
                    tail = [&tail[tail.len().saturating_sub(64)..], &buffer[..bytes]].concat();
                }
                // A batch, and what the system and the connection hold: far below the 300 MB that went by.
                assert!(read < 32 << 20, "{read} bytes were kept for one client");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn removals_that_no_event_names_make_everybody_start_over() {
        let server = Server::new();
        let mut client = server.follow("/api/v1/stream", None).await;
        client.kinds(2).await;
        server.change(|snapshot| {
            snapshot.topics.clear();
            let data = EventData::Many { events: 200, topics: 200 };
            let (kind, message) = (EventKind::TopicRemoved, "200 topics".to_owned());
            let draft = Draft { at: noon(), severity: Severity::Info, kind, topic: None, partition: None, message, data };
            snapshot.events = snapshot.events.with(vec![draft], "host-1");
        });
        assert_eq!(client.frame().await.0, "resync");
        let (kind, _, data) = client.frame().await;
        assert_eq!((kind.as_str(), data["topics"].as_array().map(Vec::len)), ("snapshot", Some(0)));
    }

    #[test]
    fn numbers_alone_make_a_frame_once_a_second() {
        let mut frames = Frames::default();
        let started = Instant::now();
        frames.advance(&Arc::new(snapshot()), started);
        let lagging = |lag: i64| {
            let mut next = snapshot();
            next.topics[2].status.lag = Some(lag);
            next.tasks[3].lag = Some(lag);
            Arc::new(next)
        };
        for step in 1..=9_u32 {
            frames.advance(&lagging(i64::from(step)), started + Duration::from_millis(100) * step);
        }
        assert_eq!(frames.kept.len(), 0);
        frames.advance(&lagging(10), started + Duration::from_secs(1));
        let kept: Vec<FrameKind> = frames.kept.iter().map(|frame| frame.kind).collect();
        assert_eq!(kept, [FrameKind::Topic], "a task's numbers made a frame, or the topic's did not");
        // What changed within the second is told in the next one, although the last step changed nothing.
        frames.advance(&lagging(11), started + Duration::from_millis(1100));
        frames.advance(&lagging(11), started + Duration::from_millis(2100));
        assert_eq!(frames.kept.len(), 2);
    }

    #[tokio::test]
    async fn a_filter_lets_through_what_was_asked_for() {
        let server = Server::new();
        let mut client = server.follow("/api/v1/stream?topic=orders&kinds=task,event", None).await;
        client.kinds(1).await;
        let (_, _, data) = client.frame().await;
        assert_eq!((data["topics"].as_array().map(Vec::len), data["tasks"].as_array().map(Vec::len)), (Some(0), Some(2)));
        server.change(stalled("app_log"));
        server.change(stalled("orders"));
        assert_eq!(client.kinds(3).await, ["task", "task", "event"]);
        for path in ["/api/v1/stream?kinds=hello", "/api/v1/stream?kinds=", "/api/v1/stream?topic=a%2Fb", "/api/v1/stream?nope=1"] {
            assert_eq!(server.open(path, &[]).await.status(), StatusCode::BAD_REQUEST, "{path}");
        }
        assert_eq!(server.open("/api/v1/stream", &[("accept", "application/json")]).await.status(), StatusCode::NOT_ACCEPTABLE);
    }

    #[tokio::test]
    async fn streams_leave_room_for_requests_that_end() {
        let server = Server::new();
        let most = server.state.http.max_connections / MOST_STREAMS_PART;
        let mut clients = Vec::new();
        for _ in 0..most {
            clients.push(server.follow("/api/v1/stream", None).await);
        }
        let refused = server.open("/api/v1/stream", &[]).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key("retry-after"));
        clients.pop();
        assert_eq!(server.open("/api/v1/stream", &[]).await.status(), StatusCode::OK, "a place is not given back");
    }

    #[tokio::test]
    async fn an_event_stream_is_one_that_browsers_and_proxies_leave_alone() {
        let server = Server::new();
        let response = server.open("/api/v1/stream", &[("accept", "text/event-stream")]).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let mut body = response.into_body().into_data_stream();
        let mut text = String::new();
        while text.matches("\n\n").count() < 3 {
            let bytes = tokio::time::timeout(DEADLINE, body.next()).await.expect("in time").expect("a frame").expect("no error");
            text.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
        let epoch = server.snapshots.borrow().events.epoch().to_owned();
        let frames: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(frames[0], "retry: 3000");
        assert!(frames[1].starts_with(&format!("id: {epoch}-0\nevent: hello\ndata: {{\"instance\":\"host-1\"")), "{}", frames[1]);
        assert!(frames[2].starts_with(&format!("id: {epoch}-0\nevent: snapshot\ndata: {{")), "{}", frames[2]);
        assert_eq!(frames[2].lines().count(), 3, "data of several lines");
    }

    #[tokio::test]
    async fn the_end_of_the_snapshots_ends_a_stream_with_bye() {
        let server = Server::new();
        let mut client = server.follow("/api/v1/stream", None).await;
        client.kinds(2).await;
        drop(server);
        assert_eq!(client.frame().await.0, "bye");
        assert_eq!(client.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_kept_alive_and_ends_after_an_hour() {
        let server = Server::new();
        let response = server.open("/api/v1/stream", &[("accept", "application/x-ndjson")]).await;
        let mut body = response.into_body().into_data_stream();
        let began = Instant::now();
        let mut empty_lines = 0;
        let mut last = Bytes::new();
        while let Some(bytes) = body.next().await {
            last = bytes.expect("no error");
            empty_lines += usize::from(last.as_ref() == b"\n");
        }
        assert!(began.elapsed() >= LONGEST && began.elapsed() < LONGEST + KEEP_ALIVE, "{:?}", began.elapsed());
        assert!(empty_lines >= 230, "{empty_lines} empty lines");
        assert!(last.starts_with(b"{") && last.windows(5).any(|text| text == b"\"bye\""), "{last:?}");
    }
}
