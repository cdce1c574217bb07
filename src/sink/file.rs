//! The file sink: what would be sent, in replayable `_bulk` files, one folder per index.
//!
//! Guarantees: an item is settled only when its two lines are on the disk, with the folder and the name that lead to them; what the disk refuses is written again, without a limit of attempts, and
//! [`SinkHealth`] says why; no file holds half a pair in front of another one. A restarted [`run`](FileSink::run) answers what was in work with [`Outcome::Lost`] and goes on with the queue. Owns
//! gathering, retries and the sink's health; the files are those of `file/disk.rs`, their lines of `file/lines.rs`. Does not know Kafka, offsets or dead letters, and refuses no document: what a server says comes with
//! `drover replay`.
//!
//! How a segment goes through: it is gathered with what else comes within 50 ms, unless enough is there or one is in a hurry; then each index's pieces are written and flushed once. Meanwhile
//! the queue fills, so that a busy sink flushes seldom and an idle one soon. An item that is written again after a crash of drover is in the files twice under the same id, which replaying makes one.
//!
//! | what the disk says | what is done |
//! |---|---|
//! | durable | the pieces' items are settled |
//! | an index's own folder cannot be used | the segment is parked: others go on |
//! | anything else, such as a full disk | nothing more is taken; written again after a wait; trouble |

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::answer;
use super::bulk::{self, SegmentKey};
use super::pace::Backoff;
use super::segments::OpenSegments;
use super::stats::{RequestOutcome, SinkStats};
use super::trouble::{Announcement, Announcer, Trouble};
use super::{Outcome, ParkCause, Segment, SinkHandle, SinkHealth};
use crate::causes::chain;
use crate::status::{Reason, ReasonCode};

mod disk;
pub(crate) mod lines;

pub use super::elasticsearch::RunError;
pub use disk::SetupError;
use disk::{Appended, Disk, DiskError, Limits};

/// How a finished file's name ends.
pub(crate) const SUFFIX: &str = ".ndjson";
/// What follows on that while the file is written to.
pub(crate) const OPEN_SUFFIX: &str = ".part";

/// Segments that wait in the queue; their bytes are in the submitters' budget.
const QUEUE: usize = 16;
/// How long the first of a group waits for others: twenty flushes in a second for a trickle over any number of partitions, and nothing that a reader would notice.
const LINGER: Duration = Duration::from_millis(50);
/// Bytes that are enough for a group.
const GROUP_BYTES: usize = 8 << 20;
/// A file is full at this size.
const ROTATE_BYTES: u64 = 64 << 20;
/// Files that are open at once; the usual limit of a process is 1024.
const OPEN_FILES: usize = 128;
/// Between tries while the disk refuses.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(10) };

/// Bytes that the sink may hold besides what waits in its queue: a group, and the segment that makes it full.
pub const BYTES_IN_WORK: u64 = 2 * GROUP_BYTES as u64;

/// The sink. Made once; [`run`](Self::run) is its life, and may be called again after one has ended.
#[derive(Debug)]
pub struct FileSink {
    /// Held by whoever writes, on a thread that may block.
    disk: Arc<std::sync::Mutex<Disk>>,
    retry: Backoff,
    /// Held by the life that runs; the queue outlives it.
    segments: Mutex<mpsc::Receiver<Segment>>,
    health: watch::Sender<SinkHealth>,
    stats: Arc<SinkStats>,
}

impl FileSink {
    /// A sink that writes below `dir`, a handle to it, and its counters. Makes the folder, locks it, and repairs what an end without warning left there; this blocks.
    pub fn new(dir: &Path) -> Result<(Arc<Self>, SinkHandle, Arc<SinkStats>), SetupError> {
        Self::with_limits(dir, Limits { rotate_bytes: ROTATE_BYTES, open_files: OPEN_FILES }, RETRY)
    }

    fn with_limits(dir: &Path, limits: Limits, retry: Backoff) -> Result<(Arc<Self>, SinkHandle, Arc<SinkStats>), SetupError> {
        let disk = Disk::open(dir, limits, Timestamp::now())?;
        let (submit, segments) = mpsc::channel(QUEUE);
        let (health, health_view) = watch::channel(SinkHealth::default());
        let stats = Arc::new(SinkStats::default());
        let sink = Self { disk: Arc::new(std::sync::Mutex::new(disk)), retry, segments: Mutex::new(segments), health, stats: stats.clone() };
        Ok((Arc::new(sink), SinkHandle::new(submit, health_view), stats))
    }

    /// Writes what is submitted, until cancelled; then it finishes its files, and what is in work is answered `Lost`.
    ///
    /// May be called again after it has ended or panicked. A second call while the first one runs waits for its end.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), RunError> {
        let mut segments = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            segments = self.segments.lock() => segments,
        };
        let end = Life::new(self).run(&mut segments, &cancel).await;
        self.with_disk(Disk::close).await;
        end
    }

    /// Does something with the files on a thread that may block; `None` when the runtime ends before. A panic there is one here.
    async fn with_disk<T: Send + 'static>(&self, work: impl FnOnce(&mut Disk) -> T + Send + 'static) -> Option<T> {
        let disk = self.disk.clone();
        // What a panic has left half done is known as such by the disk itself, which cuts it off.
        let done = tokio::task::spawn_blocking(move || work(&mut disk.lock().unwrap_or_else(PoisonError::into_inner))).await;
        match done {
            Ok(value) => Some(value),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }
}

/// Whether the folder of a file sink can be written to, or made. Leaves nothing behind; this blocks.
///
/// # Errors
///
/// A text for people.
pub fn probe(dir: &Path) -> Result<(), String> {
    disk::probe(dir).map_err(|error| format!("the folder {} cannot be written to: {error}", dir.display()))
}

/// Consecutive items of one segment for one folder.
#[derive(Debug)]
struct Piece {
    segment: SegmentKey,
    first: u32,
    items: usize,
    bytes: Bytes,
}

/// One life of the sink: everything that a panic forgets.
struct Life<'a> {
    sink: &'a FileSink,
    open: OpenSegments,
    /// What is gathered or has to be written again, by folder.
    group: BTreeMap<String, Vec<Piece>>,
    group_bytes: usize,
    /// The group is complete as it is.
    hurry: bool,
    attempts: u32,
    trouble: Option<Trouble>,
    announcer: Announcer,
}

impl<'a> Life<'a> {
    fn new(sink: &'a FileSink) -> Self {
        Self {
            sink,
            open: OpenSegments::default(),
            group: BTreeMap::new(),
            group_bytes: 0,
            hurry: false,
            attempts: 0,
            trouble: None,
            announcer: Announcer::default(),
        }
    }

    async fn run(mut self, segments: &mut mpsc::Receiver<Segment>, cancel: &CancellationToken) -> Result<(), RunError> {
        self.publish();
        loop {
            let first = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                segment = segments.recv() => segment,
            };
            let Some(first) = first else { return Err(RunError::HandlesGone) };
            self.take(first);
            let until = Instant::now() + LINGER;
            while !self.hurry && self.group_bytes < GROUP_BYTES {
                let next = tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Ok(()),
                    segment = segments.recv() => segment,
                    () = tokio::time::sleep_until(until) => None,
                };
                let Some(next) = next else { break };
                self.take(next);
            }
            self.hurry = false;
            if !self.write_group(cancel).await {
                return Ok(());
            }
        }
    }

    fn take(&mut self, segment: Segment) {
        let Segment { body, ends, alone, hurry, reply } = segment;
        self.hurry |= hurry || alone;
        if body.is_empty() && ends.is_empty() {
            reply.send(Outcome::Settled { rejected: Vec::new(), retried: 0 });
            return;
        }
        let runs = if bulk::is_well_formed(&body, &ends) { lines::runs(&body, &ends) } else { None };
        let Some(runs) = runs else {
            // A fault of ours that nobody could read either. Its reply answers `Lost`.
            error!(bytes = body.len(), items = ends.len(), "a segment does not describe its own items");
            return;
        };
        let key = self.open.open(reply, ends.len());
        self.group_bytes += body.len();
        for run in runs {
            let piece = Piece { segment: key, first: run.first, items: run.items, bytes: body.slice(run.bytes) };
            self.group.entry(run.folder).or_default().push(piece);
        }
    }

    /// Writes until nothing of the group is left; `false` when cancelled before.
    async fn write_group(&mut self, cancel: &CancellationToken) -> bool {
        loop {
            let work: Vec<(String, Vec<Bytes>)> = self.group.iter().map(|(folder, pieces)| (folder.clone(), bytes_of(pieces))).collect();
            let started = Instant::now();
            let append = move |disk: &mut Disk| -> Vec<(String, Appended)> {
                let appended = work.into_iter().map(|(folder, pieces)| {
                    let result = disk.append(&folder, &pieces);
                    (folder, result)
                });
                appended.collect()
            };
            let Some(results) = self.sink.with_disk(append).await else { return false };
            let mut trouble = None;
            for (folder, appended) in results {
                trouble = self.appended(&folder, appended).or(trouble);
            }
            let outcome = if trouble.is_some() { RequestOutcome::Retry } else { RequestOutcome::Ok };
            self.sink.stats.record(outcome, started.elapsed());
            self.tell(trouble.as_ref());
            self.open.deliver();
            if self.group.is_empty() {
                self.group_bytes = 0;
                self.attempts = 0;
                return true;
            }
            let wait = self.sink.retry.wait(self.attempts, rand::random());
            self.attempts = self.attempts.saturating_add(1);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return false,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Settles what is durable in one folder; the error is left when the rest has to be written again.
    fn appended(&mut self, folder: &str, appended: Appended) -> Option<DiskError> {
        let mut pieces = self.group.remove(folder)?;
        let rest = pieces.split_off(appended.durable.min(pieces.len()));
        for piece in pieces {
            self.open.settle(piece.segment, piece.items);
        }
        let error = appended.error?;
        if error.is_of_the_index() {
            for piece in rest {
                let message = answer::for_people(&chain(&error));
                self.open.park(piece.segment, ParkCause { code: ReasonCode::IndexBlocked, message, remedy: FOLDER_REMEDY.to_owned() }, piece.first);
            }
            return None;
        }
        if self.attempts == 0 {
            for piece in &rest {
                self.open.resent(piece.segment, piece.items);
            }
        }
        self.group.insert(folder.to_owned(), rest);
        Some(error)
    }

    /// The disk refuses, or takes everything again.
    fn tell(&mut self, error: Option<&DiskError>) {
        let Some(error) = error else {
            if self.trouble.take().is_some() {
                self.publish();
            }
            return;
        };
        let message = answer::for_people(&chain(error));
        let since = self.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        self.trouble = Some(Trouble { code: ReasonCode::SinkUnreachable, message, since, remedy: remedy(error) });
        self.publish();
    }

    /// Tells everybody how the sink is doing, when that has changed.
    fn publish(&mut self) {
        let trouble = self.trouble.as_ref();
        self.sink.health.send_if_modified(|health| {
            let before = health.trouble.take();
            let is_new = before.is_some() != trouble.is_some();
            health.trouble = trouble.map(|trouble| Reason {
                code: trouble.code,
                message: trouble.message.clone(),
                remedy: trouble.remedy.to_owned(),
                since_at: before.map_or_else(Timestamp::now, |reason| reason.since_at),
            });
            is_new
        });
        match (self.announcer.next(trouble, Instant::now()), trouble) {
            (Some(Announcement::Trouble), Some(trouble)) => {
                warn!(code = trouble.code.as_str(), error = %trouble.message, remedy = trouble.remedy, "the sink is in trouble");
            }
            (Some(Announcement::Well), _) => info!("the sink is well again"),
            _ => {}
        }
    }
}

fn bytes_of(pieces: &[Piece]) -> Vec<Bytes> {
    pieces.iter().map(|piece| piece.bytes.clone()).collect()
}

const FOLDER_REMEDY: &str =
    "make it a folder that drover's user can write to, or choose another `index` in the topic's spec; drover goes on by itself";

/// What usually helps against a disk that says this.
fn remedy(error: &DiskError) -> &'static str {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.source.kind() {
        StorageFull | QuotaExceeded => "make room where sink.file writes to; drover goes on by itself",
        ReadOnlyFilesystem => {
            "let drover write where sink.file says; the system may have made the disk read-only after an error; drover goes on by itself"
        }
        _ => "look at the disk that sink.file writes to and at the system's log; drover goes on by itself",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::sink::Reply;

    const SOON: Duration = Duration::from_secs(20);

    fn limits() -> Limits {
        Limits { rotate_bytes: 1 << 20, open_files: 4 }
    }

    fn quick() -> Backoff {
        Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(50) }
    }

    /// A sink that runs, and the outcomes of what is submitted to it.
    struct Bench {
        dir: tempfile::TempDir,
        sink: Arc<FileSink>,
        handle: SinkHandle,
        stats: Arc<SinkStats>,
        cancel: CancellationToken,
        life: JoinHandle<Result<(), RunError>>,
        to: mpsc::UnboundedSender<(u64, Outcome)>,
        outcomes: mpsc::UnboundedReceiver<(u64, Outcome)>,
    }

    impl Bench {
        fn start() -> Self {
            let dir = tempfile::tempdir().expect("a folder");
            let (sink, handle, stats) = FileSink::with_limits(dir.path(), limits(), quick()).expect("a sink");
            let (to, outcomes) = mpsc::unbounded_channel();
            let cancel = CancellationToken::new();
            let life = life(&sink, &cancel);
            Self { dir, sink, handle, stats, cancel, life, to, outcomes }
        }

        /// Submits items, each an index and an id.
        async fn submit(&self, ticket: u64, items: &[(&str, &str)], hurry: bool) {
            let mut body = Vec::new();
            let mut ends = Vec::new();
            for (index, id) in items {
                body.extend_from_slice(item(index, id).as_bytes());
                ends.push(body.len() as u32);
            }
            let reply = Reply::new(ticket, self.to.clone());
            self.handle.submit(Segment { body: body.into(), ends, alone: false, hurry, reply }).await;
        }

        async fn outcome(&mut self) -> (u64, Outcome) {
            tokio::time::timeout(SOON, self.outcomes.recv()).await.expect("an outcome in time").expect("a sender")
        }

        async fn await_trouble(&self, is_well: bool) -> SinkHealth {
            let mut health = self.sink.health.subscribe();
            let found = tokio::time::timeout(SOON, health.wait_for(|health| health.trouble.is_none() == is_well)).await;
            found.expect("in time").expect("a sink").clone()
        }

        /// The text of an index's files, with their names' ends.
        fn files(&self, index: &str) -> Vec<(bool, String)> {
            let mut paths: Vec<PathBuf> =
                fs::read_dir(self.dir.path().join(index)).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
            paths.sort();
            paths.iter().map(|path| (path.to_string_lossy().ends_with(OPEN_SUFFIX), fs::read_to_string(path).expect("text"))).collect()
        }

        async fn end(self) -> tempfile::TempDir {
            self.cancel.cancel();
            assert_eq!(self.life.await.expect("no panic"), Ok(()));
            self.dir
        }
    }

    fn life(sink: &Arc<FileSink>, cancel: &CancellationToken) -> JoinHandle<Result<(), RunError>> {
        let (sink, cancel) = (sink.clone(), cancel.clone());
        tokio::spawn(async move { sink.run(cancel).await })
    }

    fn item(index: &str, id: &str) -> String {
        format!("{{\"index\":{{\"_index\":\"{index}\",\"_id\":\"{id}\"}}}}\n{{\"id\":\"{id}\"}}\n")
    }

    fn settled() -> Outcome {
        Outcome::Settled { rejected: Vec::new(), retried: 0 }
    }

    #[tokio::test]
    async fn what_is_settled_is_in_the_files() {
        let mut bench = Bench::start();
        bench.submit(1, &[("a", "1"), ("b", "2"), ("a", "3")], false).await;
        assert_eq!(bench.outcome().await, (1, settled()));
        assert_eq!(bench.files("a"), [(true, item("a", "1") + &item("a", "3"))]);
        assert_eq!(bench.files("b"), [(true, item("b", "2"))]);
        assert_eq!(bench.stats.totals().requests["ok"], 1);
        let (dir, index) = (bench.end().await, "a");
        let names: Vec<_> = fs::read_dir(dir.path().join(index)).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert!(names.len() == 1 && names[0].to_string_lossy().ends_with("-00000001.ndjson"), "{names:?}");
    }

    #[tokio::test]
    async fn a_trickle_of_many_partitions_is_flushed_together() {
        let mut bench = Bench::start();
        for ticket in 0..10 {
            bench.submit(ticket, &[("a", &ticket.to_string())], false).await;
        }
        for _ in 0..10 {
            assert_eq!(bench.outcome().await.1, settled());
        }
        let flushes = bench.stats.totals().requests["ok"];
        assert!(flushes <= 2, "{flushes} flushes for what came at once");
        bench.end().await;
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_used_parks_its_own_index_only() {
        let mut bench = Bench::start();
        fs::write(bench.dir.path().join("a"), "").expect("a file");
        bench.submit(1, &[("b", "1"), ("a", "2")], true).await;
        let (_, outcome) = bench.outcome().await;
        let Outcome::Parked { cause, item: 1 } = outcome else { panic!("{outcome:?}") };
        assert!(cause.code == ReasonCode::IndexBlocked && cause.message.contains("/a") && !cause.remedy.is_empty(), "{cause:?}");
        assert!(bench.handle.is_well());
        bench.submit(2, &[("b", "3")], true).await;
        assert_eq!(bench.outcome().await, (2, settled()));
        fs::remove_file(bench.dir.path().join("a")).expect("it");
        bench.submit(3, &[("a", "2")], true).await;
        assert_eq!(bench.outcome().await, (3, settled()));
        bench.end().await;
    }

    #[tokio::test]
    async fn an_index_that_names_a_way_out_stays_inside() {
        let mut bench = Bench::start();
        bench.submit(1, &[("..", "1"), ("../../x", "2"), (".lock", "3")], true).await;
        assert_eq!(bench.outcome().await, (1, settled()));
        let mut names: Vec<String> =
            fs::read_dir(bench.dir.path()).expect("a folder").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names, [".lock", "_..", "_.._.._x", "_.lock"]);
        bench.end().await;
    }

    #[tokio::test]
    async fn segments_that_say_nothing_or_nonsense_are_answered() {
        let mut bench = Bench::start();
        bench.submit(1, &[], true).await;
        assert_eq!(bench.outcome().await, (1, settled()));
        for (ticket, body, ends) in [(2, b"{}".to_vec(), vec![7]), (3, b"{}\n{}\n".to_vec(), vec![6])] {
            let reply = Reply::new(ticket, bench.to.clone());
            bench.handle.submit(Segment { body: body.into(), ends, alone: false, hurry: true, reply }).await;
            assert_eq!(bench.outcome().await, (ticket, Outcome::Lost));
        }
        bench.end().await;
    }

    #[tokio::test]
    async fn a_sink_without_handles_ends_when_its_work_is_done() {
        let Bench { handle, to, mut outcomes, life, dir, .. } = Bench::start();
        let body = item("a", "1").into_bytes();
        let ends = vec![body.len() as u32];
        handle.submit(Segment { body: body.into(), ends, alone: false, hurry: false, reply: Reply::new(1, to.clone()) }).await;
        drop(handle);
        assert_eq!(outcomes.recv().await, Some((1, settled())));
        assert_eq!(life.await.expect("no panic"), Err(RunError::HandlesGone));
        drop(dir);
    }

    #[cfg(feature = "failpoints")]
    #[tokio::test]
    async fn a_full_disk_is_told_and_loses_and_doubles_nothing() {
        let scenario = fail::FailScenario::setup();
        let mut bench = Bench::start();
        bench.submit(1, &[("kept", "0")], true).await;
        assert_eq!(bench.outcome().await, (1, settled()));
        fail::cfg("file_sink_write", &format!("return({}/full)", bench.dir.path().display())).expect("a failpoint");
        bench.submit(2, &[("kept", "1"), ("full", "2")], true).await;
        let health = bench.await_trouble(false).await;
        let reason = health.trouble.expect("a trouble");
        assert_eq!(reason.code, ReasonCode::SinkUnreachable);
        assert!(reason.message.contains("full") && reason.remedy.contains("make room"), "{reason:?}");
        assert!(bench.outcomes.try_recv().is_err(), "settled although it is not written");
        fail::remove("file_sink_write");
        let (ticket, outcome) = bench.outcome().await;
        assert_eq!((ticket, outcome), (2, Outcome::Settled { rejected: Vec::new(), retried: 1 }));
        bench.await_trouble(true).await;
        assert_eq!(bench.files("kept"), [(true, item("kept", "0") + &item("kept", "1"))]);
        assert_eq!(bench.files("full"), [(true, item("full", "2"))]);
        bench.end().await;
        scenario.teardown();
    }

    #[cfg(feature = "failpoints")]
    #[tokio::test]
    async fn a_panic_costs_no_document_and_leaves_no_half_pair() {
        let scenario = fail::FailScenario::setup();
        let Bench { dir, sink, handle, life: first, cancel, to, mut outcomes, .. } = Bench::start();
        let submit = |ticket: u64, id: &str| {
            let body = item("a", id).into_bytes();
            let ends = vec![body.len() as u32];
            handle.submit(Segment { body: body.into(), ends, alone: false, hurry: true, reply: Reply::new(ticket, to.clone()) })
        };
        submit(1, "0").await;
        assert_eq!(outcomes.recv().await, Some((1, settled())));
        fail::cfg("file_sink_panic", &format!("return({})", dir.path().display())).expect("a failpoint");
        submit(2, "1").await;
        assert!(first.await.expect_err("a panic").is_panic());
        fail::remove("file_sink_panic");
        assert_eq!(outcomes.recv().await, Some((2, Outcome::Lost)));
        let second = life(&sink, &cancel);
        submit(3, "1").await;
        assert_eq!(outcomes.recv().await, Some((3, settled())));
        cancel.cancel();
        assert_eq!(second.await.expect("no panic"), Ok(()));
        let paths: Vec<PathBuf> = fs::read_dir(dir.path().join("a")).expect("a folder").flatten().map(|entry| entry.path()).collect();
        assert_eq!(paths.iter().map(|path| fs::read_to_string(path).expect("text")).collect::<Vec<_>>(), [item("a", "0") + &item("a", "1")]);
        scenario.teardown();
    }
}
