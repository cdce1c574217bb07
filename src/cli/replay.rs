//! `drover replay`: sends what the file sink wrote.
//!
//! Guarantees: folders and files go in name order, each pair of lines byte for byte, through the bulk sink itself, so that retries, halving and what counts as a refusal are the same as in a run; a
//! document that is refused for good is named, and then the exit code is 1; nothing waits for ever, and nothing is deleted. Memory is bounded: a file is read as it is sent. Owns the walk over the
//! folder and the messages. Sending the same folder twice is harmless, since every document has its id.
//!
//! One thread that may block reads; at most [`MOST_BYTES`] of what it read wait for their outcome. What is parked, because its index takes no documents for now, is read from its file again and sent
//! alone after a pause.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counted;
use crate::causes::chain;
use crate::config::{self, ElasticsearchConfig, SinkConfig};
use crate::sink::answer::for_people;
use crate::sink::elasticsearch::ElasticsearchSink;
use crate::sink::file::lines::{self, Pairs, Step};
use crate::sink::file::{OPEN_SUFFIX, SUFFIX};
use crate::sink::{Outcome, Rejection, Reply, Segment, SinkHandle};
use crate::status::{Reason, ReasonCode};

/// Everything was sent and taken.
const EXIT_OK: u8 = 0;
/// Something was refused, or could not be read.
const EXIT_FAILED: u8 = 1;
/// The folder or the address is none.
const EXIT_USAGE: u8 = 2;
/// Nobody answers (sysexits' `EX_UNAVAILABLE`).
const EXIT_UNREACHABLE: u8 = 69;
/// The configuration cannot be used (sysexits' `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;
/// Somebody has interrupted it: what shells give a program that SIGINT (2) has ended, 128 + 2.
const EXIT_INTERRUPTED: u8 = 130;

/// Bytes of one segment; a single larger pair is one alone.
const SEGMENT_BYTES: usize = 1 << 20;
/// Bytes that wait for their outcome: two full bodies under way and one that is gathered.
const MOST_BYTES: u64 = 32 << 20;
/// The first and the longest pause before a parked segment is tried again.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the sink's health is looked at.
const TICK: Duration = Duration::from_millis(200);
/// The least time that a request may take, however short the wait.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Between two drawings of the bar.
const DRAWINGS_PER_SECOND: u8 = 5;

/// Sends what the file sink wrote to Elasticsearch or OpenSearch.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The folder that `sink: {file: DIR}` names; nothing in it is deleted
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The server
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// A configuration whose elasticsearch section has the credentials, certificates and bulk settings; its URLs are not used
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Seconds to go on trying while nothing gets through; no request takes longer either
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = seconds, allow_hyphen_values = true)]
    pub wait: u64,
}

fn seconds(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a number of seconds, such as 60".to_owned())
}

/// Runs the command; messages go to stderr. The exit code: 0 when every document was taken, 1 when some were refused or could not be read, 2 for a folder or an address that is none, 69 when the
/// server cannot be reached, 78 for a configuration that cannot be used, 130 when it was interrupted.
pub(super) async fn run(arguments: ReplayArgs) -> u8 {
    match replay(&arguments).await {
        Ok(code) => code,
        Err(Failure { code, message }) => {
            eprintln!("{message}");
            code
        }
    }
}

/// Why it ended early.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

async fn replay(arguments: &ReplayArgs) -> Result<u8, Failure> {
    let config = destination(arguments)?;
    let dir = arguments.dir.clone();
    let files = blocking(move || files_of(&dir)).await?;
    let (sink, handle, _) = ElasticsearchSink::new(&config).map_err(|error| Failure::new(EXIT_CONFIG, chain(&error)))?;
    let total = files.iter().map(|file| file.bytes).sum();
    let bar = bar(total);
    let files: Arc<[SourceFile]> = files.into();
    let (chunks, read) = mpsc::channel(2);
    let reader = tokio::task::spawn_blocking({
        let files = files.clone();
        move || read_files(&files, &chunks)
    });
    let cancel = CancellationToken::new();
    let (to, outcomes) = mpsc::unbounded_channel();
    let mut sending = Sending {
        files,
        handle,
        to,
        bar: bar.clone(),
        patience: Duration::from_secs(arguments.wait),
        in_work: BTreeMap::new(),
        bytes: 0,
        next_ticket: 0,
        outbox: VecDeque::new(),
        parked: VecDeque::new(),
        told_trouble: None,
        told_parking: None,
        last_progress: Instant::now(),
        tally: Tally::default(),
    };
    let ended = tokio::select! {
        ended = sending.run(read, outcomes) => ended.map(|()| End::Done),
        Ok(()) = tokio::signal::ctrl_c() => Ok(End::Interrupted),
        // It only ends when it is cancelled, or its handles are gone.
        _ = sink.run(cancel) => Err(Failure::new(EXIT_FAILED, "the sink has ended by itself")),
    };
    let tally = sending.tally;
    drop(reader);
    bar.finish_and_clear();
    let documents = counted(tally.taken, "document");
    let summary = format!("replayed {documents} from {}, {} refused", counted(tally.files, "file"), tally.refused);
    match ended {
        Ok(End::Done) => {
            eprintln!("{summary}");
            Ok(if tally.refused > 0 || tally.is_damaged { EXIT_FAILED } else { EXIT_OK })
        }
        Ok(End::Interrupted) => {
            eprintln!("interrupted: {documents} sent so far, {} refused; run it again: nothing is doubled", tally.refused);
            Ok(EXIT_INTERRUPTED)
        }
        Err(failure) => {
            eprintln!("{summary}, then it stopped");
            Err(failure)
        }
    }
}

/// How the sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Interrupted,
}

/// Where it goes and how.
fn destination(arguments: &ReplayArgs) -> Result<ElasticsearchConfig, Failure> {
    let config = configured(arguments)?;
    let longest = Duration::from_secs(arguments.wait).max(TIMEOUT_MIN);
    Ok(ElasticsearchConfig { timeout: config.timeout.min(longest), ..config })
}

fn configured(arguments: &ReplayArgs) -> Result<ElasticsearchConfig, Failure> {
    let plain = ElasticsearchConfig::at(&arguments.to).map_err(|error| Failure::new(EXIT_USAGE, format!("--to: {error}")))?;
    let Some(path) = &arguments.config else { return Ok(plain) };
    let loaded = config::load(path, &|name| std::env::var(name).ok()).map_err(|error| Failure::new(EXIT_CONFIG, config::check::text(&error)))?;
    match loaded.config.sink {
        SinkConfig::Elasticsearch(configured) => Ok(ElasticsearchConfig { urls: plain.urls, linger: plain.linger, ..configured }),
        SinkConfig::File { .. } => {
            let message = format!("{} has no elasticsearch section to take credentials from; name another file, or leave --config away", shown(path));
            Err(Failure::new(EXIT_CONFIG, message))
        }
    }
}

/// A file to send.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SourceFile {
    path: PathBuf,
    bytes: u64,
}

impl SourceFile {
    /// Whether somebody may be writing to it, or was when it ended.
    fn is_open_ended(&self) -> bool {
        self.path.to_string_lossy().ends_with(OPEN_SUFFIX)
    }

    /// Opens it, also when it was finished in the meantime.
    fn open(&self) -> io::Result<File> {
        let opened = File::open(&self.path);
        let is_gone = opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        match self.path.to_string_lossy().strip_suffix(OPEN_SUFFIX) {
            Some(finished) if is_gone => File::open(finished),
            _ => opened,
        }
    }

    /// Some bytes of it.
    fn read_again(&self, start: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// Everything to send: the folder's own files, then those of its folders, each in name order.
fn files_of(dir: &Path) -> Result<Vec<SourceFile>, Failure> {
    const REMEDY: &str = "name the folder that `sink: {file: DIR}` names";
    let unreadable = |path: &Path, error: io::Error| {
        let is_none = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        Failure::new(if is_none { EXIT_USAGE } else { EXIT_FAILED }, format!("cannot read the folder {}: {error}; {REMEDY}", shown(path)))
    };
    let (mut files, folders) = inside(dir).map_err(|error| unreadable(dir, error))?;
    let mut deeper = Vec::new();
    for folder in folders {
        let (more, below) = inside(&folder).map_err(|error| unreadable(&folder, error))?;
        files.extend(more);
        deeper.extend(below);
    }
    if !files.is_empty() {
        return Ok(files);
    }
    let has_files = |folder: &&PathBuf| inside(folder).is_ok_and(|(files, _)| !files.is_empty());
    let remedy = match deeper.iter().find(has_files).and_then(|folder| folder.parent()) {
        Some(folder) => format!("{} has some: name that folder", shown(folder)),
        None => REMEDY.to_owned(),
    };
    Err(Failure::new(EXIT_FAILED, format!("there is no {SUFFIX} file in {} or its folders; {remedy}", shown(dir))))
}

/// The files of a folder that the sink may have written, and its folders, each in name order.
fn inside(dir: &Path) -> io::Result<(Vec<SourceFile>, Vec<PathBuf>)> {
    let (folders, others): (Vec<PathBuf>, Vec<PathBuf>) = entries(dir)?.into_iter().partition(|path| path.is_dir());
    Ok((others.into_iter().filter_map(source_file).collect(), folders))
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn source_file(path: PathBuf) -> Option<SourceFile> {
    let name = path.to_string_lossy();
    let is_ours = name.ends_with(SUFFIX) || name.ends_with(OPEN_SUFFIX);
    let bytes = std::fs::metadata(&path).ok().filter(|about| is_ours && about.is_file())?.len();
    Some(SourceFile { path, bytes })
}

/// Where the items of a segment come from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    /// The number of the file.
    file: usize,
    /// Where they start in it.
    start: u64,
    length: usize,
    /// The number of their first line, from 1; every item has two lines.
    first_line: u64,
    items: usize,
}

/// What the reading thread has to say.
#[derive(Debug)]
enum Found {
    /// Items to send, and where each ends.
    Items { origin: Origin, body: Vec<u8>, ends: Vec<u32> },
    /// A file was read to its end.
    FileEnd,
    /// The last pair of a file that was not finished is not whole.
    TornEnd { file: usize, line: u64 },
    /// This file cannot be read on from here.
    Damaged { file: usize, line: u64, what: String },
}

/// Reads all files in order, until the receiver is gone.
fn read_files(files: &[SourceFile], out: &mpsc::Sender<Found>) {
    for number in 0..files.len() {
        if read_file(files, number, out).is_none() {
            return;
        }
    }
}

/// Reads one file; `None` when nobody listens any more.
fn read_file(files: &[SourceFile], number: usize, out: &mpsc::Sender<Found>) -> Option<()> {
    let source = files.get(number)?;
    let send = |found: Found| out.blocking_send(found).ok();
    let file = match source.open() {
        Ok(file) => file,
        Err(error) => return send(Found::Damaged { file: number, line: 1, what: error.to_string() }),
    };
    let mut pairs = Pairs::new(BufReader::with_capacity(1 << 18, file));
    loop {
        let origin = Origin { file: number, start: pairs.offset(), length: 0, first_line: pairs.lines() + 1, items: 0 };
        let mut body = Vec::new();
        let mut ends = Vec::new();
        let last = loop {
            match pairs.next(&mut body) {
                Ok(Step::Pair) => ends.push(u32::try_from(body.len()).unwrap_or(u32::MAX)),
                other => break other.map(Some),
            }
            if body.len() >= SEGMENT_BYTES {
                break Ok(None);
            }
        };
        if !ends.is_empty() {
            send(Found::Items { origin: Origin { length: body.len(), items: ends.len(), ..origin }, body, ends })?;
        }
        let line = pairs.lines() + 1;
        match last {
            Ok(None | Some(Step::Pair)) => {}
            Ok(Some(Step::End)) => return send(Found::FileEnd),
            Ok(Some(Step::Broken)) if source.is_open_ended() && is_last_pair(source, pairs.offset()) => {
                send(Found::TornEnd { file: number, line })?;
                return send(Found::FileEnd);
            }
            Ok(Some(Step::Broken)) => {
                let what = "this is no action line with `_index` and `_id` and a source line".to_owned();
                return send(Found::Damaged { file: number, line, what });
            }
            Err(error) => return send(Found::Damaged { file: number, line, what: error.to_string() }),
        }
    }
}

/// Whether at most one pair, or a part of one, begins here: at most one line break is not the file's last byte.
fn is_last_pair(source: &SourceFile, start: u64) -> bool {
    let mut rest = Vec::new();
    // A torn end is at most what was being written at once; a longer one is damage.
    let read = source.open().and_then(|mut file| file.seek(SeekFrom::Start(start)).and_then(|_| file.take(MOST_BYTES).read_to_end(&mut rest)));
    read.is_ok() && memchr::memchr_iter(b'\n', rest.strip_suffix(b"\n").unwrap_or(&rest)).count() <= 1
}

#[derive(Debug, Default)]
struct Tally {
    taken: usize,
    refused: usize,
    files: usize,
    is_damaged: bool,
}

/// A segment that waits until its index takes documents.
#[derive(Debug)]
struct Parked {
    origin: Origin,
    /// The file and line of a document that was refused for it.
    place: String,
    pause: Duration,
    again_at: Instant,
}

struct Sending {
    files: Arc<[SourceFile]>,
    handle: SinkHandle,
    to: mpsc::UnboundedSender<(u64, Outcome)>,
    bar: ProgressBar,
    patience: Duration,
    in_work: BTreeMap<u64, (Origin, Duration)>,
    bytes: u64,
    next_ticket: u64,
    /// What the sink's queue has no room for yet.
    outbox: VecDeque<Segment>,
    parked: VecDeque<Parked>,
    /// What was told last.
    told_trouble: Option<(ReasonCode, String)>,
    told_parking: Option<String>,
    last_progress: Instant,
    tally: Tally,
}

impl Sending {
    async fn run(&mut self, mut read: mpsc::Receiver<Found>, mut outcomes: mpsc::UnboundedReceiver<(u64, Outcome)>) -> Result<(), Failure> {
        let handle = self.handle.clone();
        let mut ticks = tokio::time::interval(TICK);
        let mut is_all_read = false;
        while !is_all_read || !self.in_work.is_empty() || !self.parked.is_empty() {
            let has_room = !is_all_read && self.bytes < MOST_BYTES && self.outbox.is_empty() && self.parked.is_empty();
            tokio::select! {
                biased;
                Some((ticket, outcome)) = outcomes.recv() => self.outcome(ticket, outcome).await?,
                _ = ticks.tick() => {
                    self.look_at_the_sink()?;
                    self.send_parked().await?;
                }
                permit = handle.reserve(), if !self.outbox.is_empty() => {
                    if let Some(segment) = self.outbox.pop_front() {
                        permit.submit(segment);
                    }
                }
                found = read.recv(), if has_room => match found {
                    Some(found) => self.found(found),
                    None => is_all_read = true,
                },
            }
        }
        Ok(())
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Items { origin, body, ends } => {
                if self.in_work.is_empty() {
                    // Reading may have been slow; the sink has had nothing to do.
                    self.last_progress = Instant::now();
                }
                self.submit(origin, body, ends, PAUSE_FIRST, false);
            }
            Found::FileEnd => self.tally.files += 1,
            Found::TornEnd { file, line } => {
                let place = self.place(file, line);
                self.say(&format!("{place}: skipped a torn end: it was never settled, and the record comes again when drover runs"));
            }
            Found::Damaged { file, line, what } => {
                self.tally.is_damaged = true;
                let place = self.place(file, line);
                self.say(&format!("{place}: {}; the rest of this file is not sent", for_people(&what)));
            }
        }
    }

    fn submit(&mut self, origin: Origin, body: Vec<u8>, ends: Vec<u32>, pause: Duration, alone: bool) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.bytes += body.len() as u64;
        self.in_work.insert(ticket, (origin, pause));
        // With this much on the way nothing more is read, so the sink need not wait for more.
        let hurry = self.bytes >= MOST_BYTES;
        self.outbox.push_back(Segment { body: body.into(), ends, alone, hurry, reply: Reply::new(ticket, self.to.clone()) });
    }

    async fn outcome(&mut self, ticket: u64, outcome: Outcome) -> Result<(), Failure> {
        let Some((origin, pause)) = self.in_work.remove(&ticket) else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(origin.length as u64);
        match outcome {
            Outcome::Settled { rejected, .. } => {
                self.last_progress = Instant::now();
                self.bar.inc(origin.length as u64);
                self.tally.taken += origin.items.saturating_sub(rejected.len());
                self.tally.refused += rejected.len();
                if !rejected.is_empty() {
                    self.tell_refusals(&origin, &rejected).await?;
                }
            }
            Outcome::Parked { cause, item } => {
                let place = self.place(origin.file, origin.first_line + 2 * u64::from(item));
                if self.told_parking.as_ref() != Some(&cause.message) {
                    self.say(&format!("{place}: {}; {}; trying for {} s", cause.message, for_replay(&cause.remedy), self.patience.as_secs()));
                    self.told_parking = Some(cause.message.clone());
                }
                self.parked.push_back(Parked { origin, place, pause, again_at: Instant::now() + pause });
            }
            Outcome::Lost => {
                let place = self.place(origin.file, origin.first_line);
                return Err(Failure::new(EXIT_FAILED, format!("{place}: the sink could not send from here on")));
            }
        }
        Ok(())
    }

    /// Sends what was parked long enough.
    async fn send_parked(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(parked) = self.parked.front()
            && now >= self.last_progress + self.patience
        {
            // The cause was told when it was parked.
            return Err(Failure::new(EXIT_FAILED, format!("{}: not taken for {} s", parked.place, self.patience.as_secs())));
        }
        while self.parked.front().is_some_and(|parked| parked.again_at <= now) {
            let Some(Parked { origin, pause, .. }) = self.parked.pop_front() else { break };
            let body = self.read_again(&origin).await?;
            let ends = ends_of(&body);
            self.submit(origin, body, ends, (pause * 2).min(PAUSE_MAX), true);
        }
        Ok(())
    }

    /// Says what is wrong as soon as it is, and gives up when it lasts.
    fn look_at_the_sink(&mut self) -> Result<(), Failure> {
        let Some(Reason { code, message, remedy, .. }) = self.handle.health().trouble else { return Ok(()) };
        if code == ReasonCode::Credentials {
            return Err(Failure::new(EXIT_FAILED, format!("{message}; name a configuration with the right credentials by --config")));
        }
        let has_patience = self.in_work.is_empty() || Instant::now() < self.last_progress + self.patience;
        let seconds = self.patience.as_secs();
        let is_told = self.told_trouble.as_ref().is_some_and(|(told, _)| *told == code);
        if !is_told {
            let trying = if has_patience { format!("; trying for {seconds} s") } else { String::new() };
            self.say(&format!("{message}; {}{trying}", for_replay(&remedy)));
            self.told_trouble = Some((code, message.clone()));
        }
        if has_patience {
            return Ok(());
        }
        let place = self.in_work.values().next().map(|(origin, _)| self.place(origin.file, origin.first_line)).unwrap_or_default();
        let is_the_same = self.told_trouble.as_ref().is_some_and(|(_, told)| *told == message);
        let last = if is_the_same { String::new() } else { format!(": {message}") };
        let code = if code == ReasonCode::SinkUnreachable { EXIT_UNREACHABLE } else { EXIT_FAILED };
        Err(Failure::new(code, format!("{place}: nothing has got through from here on for {seconds} s{last}")))
    }

    async fn tell_refusals(&self, origin: &Origin, rejected: &[Rejection]) -> Result<(), Failure> {
        let body = self.read_again(origin).await?;
        let ends = ends_of(&body);
        for rejection in rejected {
            let number = rejection.item as usize;
            let start = number.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0) as usize;
            let action = body.get(start..).and_then(lines::action_of_item);
            let (index, id) = action.map_or_else(Default::default, |action| (action.index, action.id));
            let status = rejection.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let place = self.place(origin.file, origin.first_line + 2 * u64::from(rejection.item));
            let text = format!("refused: id {id}, index {index}, status {status}, {}: {}", rejection.error_type, rejection.reason);
            self.say(&format!("{place}: {}", for_people(&text)));
        }
        Ok(())
    }

    async fn read_again(&self, origin: &Origin) -> Result<Vec<u8>, Failure> {
        let place = self.place(origin.file, origin.first_line);
        let Some(source) = self.files.get(origin.file).cloned() else { return Err(Failure::new(EXIT_FAILED, place)) };
        let (start, length) = (origin.start, origin.length);
        blocking(move || {
            source.read_again(start, length).map_err(|error| Failure::new(EXIT_FAILED, format!("{place}: cannot be read again: {error}")))
        })
        .await
    }

    /// A file and a line, as compilers name them.
    fn place(&self, file: usize, line: u64) -> String {
        self.files.get(file).map_or_else(|| line.to_string(), |file| format!("{}:{line}", shown(&file.path)))
    }

    /// A line on stderr, above the bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

/// What remedies for a drover that runs say, and what of it is true here: the files name the index, `--to` the server, and it does not go on for ever.
const REWORDED: [(&str, &str); 13] = [
    ("check that a node of the sink runs", "check that the server runs"),
    ("; drover sends less and goes on by itself", ""),
    (", and drover goes on by itself", ""),
    ("; drover goes on by itself", ""),
    ("; a forward rewind of the task skips them", ""),
    ("drover does not know this error and sends the documents again", "drover does not know this error"),
    ("elasticsearch.urls", "--to"),
    (", or name another index in the topic's spec", ""),
    (", raise cluster.max_shards_per_node, or use fewer indices in the topic's index template", ", or raise cluster.max_shards_per_node"),
    (", or change `pipeline` in the topic's spec", ", or change `pipeline` in the action lines of the files"),
    ("change `index` in the topic's spec", "change `_index` in the action lines of the files"),
    ("name an index instead of the alias in the topic's spec", "name an index instead of the alias in the action lines of the files"),
    ("set `operation: create` in the topic's spec", "write `create` instead of `index` in the action lines of the files"),
];

/// A remedy in the words of this command.
fn for_replay(remedy: &str) -> String {
    REWORDED.iter().fold(remedy.to_owned(), |text, (running, here)| text.replace(running, here))
}

/// Where each pair of lines ends.
fn ends_of(body: &[u8]) -> Vec<u32> {
    memchr::memchr_iter(b'\n', body).skip(1).step_by(2).map(|at| u32::try_from(at + 1).unwrap_or(u32::MAX)).collect()
}

/// A path for people.
fn shown(path: &Path) -> String {
    for_people(&path.display().to_string())
}

/// Does something on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Failure::new(EXIT_FAILED, error.to_string())),
    }
}

/// Bytes done, rate and what is left; nothing where stderr is no terminal.
fn bar(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(DRAWINGS_PER_SECOND));
    // A template that is wrong shows the default bar.
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}{left}") {
        bar.set_style(style.with_key("left", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that cannot be written shows nothing here.
            let _ = out.write_str(&left(state.per_sec(), state.eta()));
        }));
    }
    bar
}

/// The time that is left; nothing while nothing moves, when nobody knows it.
fn left(bytes_per_second: f64, eta: Duration) -> String {
    if bytes_per_second < 1.0 { String::new() } else { format!("  {:#} left", HumanDuration(eta)) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Compression, SinkAuth};
    use crate::sink::classify::{self, ItemClass};

    fn pair(id: &str) -> String {
        format!("{{\"index\":{{\"_index\":\"a\",\"_id\":\"{id}\"}}}}\n{{\"id\":\"{id}\"}}\n")
    }

    fn arguments(dir: &Path, to: &str) -> ReplayArgs {
        ReplayArgs { dir: dir.to_owned(), to: to.to_owned(), config: None, wait: 1 }
    }

    /// What the reading thread finds in files with these contents.
    fn found(contents: &[(&str, &str)]) -> Vec<Found> {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, content) in contents {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, content).expect("a file");
        }
        let files = files_of(dir.path()).expect("files");
        let (out, mut read) = mpsc::channel(1000);
        read_files(&files, &out);
        drop(out);
        std::iter::from_fn(|| read.try_recv().ok()).collect()
    }

    #[test]
    fn files_go_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["b/1.ndjson", "a/2.ndjson.part", "a/1.ndjson", "a/10.ndjson", "a/notes.txt", ".lock", "c.ndjson", "a/deep/1.ndjson"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, "x").expect("a file");
        }
        let names: Vec<String> =
            files_of(dir.path()).expect("files").iter().map(|file| shown(file.path.strip_prefix(dir.path()).expect("inside"))).collect();
        assert_eq!(names, ["c.ndjson", "a/1.ndjson", "a/10.ndjson", "a/2.ndjson.part", "b/1.ndjson"]);
    }

    #[test]
    fn a_folder_that_is_none_is_told_with_a_remedy() {
        let dir = tempfile::tempdir().expect("a folder");
        let empty = files_of(dir.path()).expect_err("nothing there");
        let missing = files_of(&dir.path().join("nowhere")).expect_err("no folder");
        assert_eq!((empty.code, missing.code), (EXIT_FAILED, EXIT_USAGE));
        assert!(empty.message.contains("sink: {file: DIR}") && missing.message.contains("nowhere"), "{empty:?} {missing:?}");
    }

    #[test]
    fn the_parent_of_a_sinks_folder_is_told_which_folder_is_meant() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("out");
        fs::create_dir_all(out.join("orders")).expect("a folder");
        fs::create_dir_all(dir.path().join("data/empty")).expect("a folder");
        fs::write(out.join("orders/1.ndjson"), "x").expect("a file");
        let refused = files_of(dir.path()).expect_err("its files are one folder deeper");
        assert!(refused.code == EXIT_FAILED && refused.message.ends_with(&format!("; {} has some: name that folder", shown(&out))), "{refused:?}");
    }

    #[test]
    fn no_remedy_speaks_of_a_topic_or_of_going_on() {
        let types = [
            "cluster_block_exception",
            "index_closed_exception",
            "index_not_found_exception",
            "invalid_index_name_exception",
            "security_exception",
            "validation_exception",
            "illegal_argument_exception",
        ];
        let reasons = [
            "blocked by: [FORBIDDEN/8/index write (api)];",
            "blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]",
            "this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;",
            "only write ops with an op_type of create are allowed in data streams",
            "no write index is defined for alias [a]",
            "pipeline with id [p] does not exist",
            "",
        ];
        let mut remedies = vec![classify::UNKNOWN_REMEDY, classify::ADDRESS_REMEDY, classify::BODY_LIMIT_REMEDY];
        for (error_type, reason) in types.iter().flat_map(|error_type| reasons.map(|reason| (error_type, reason))) {
            for status in [400, 403, 404, 429] {
                if let ItemClass::Operator(obstacle) = classify::item(status, error_type, reason, false) {
                    remedies.push(obstacle.remedy);
                }
            }
        }
        remedies.sort_unstable();
        remedies.dedup();
        assert!(remedies.len() >= 10, "{remedies:#?}");
        for remedy in remedies.into_iter().map(for_replay) {
            let is_foreign = ["rewind", "elasticsearch.urls", "by itself", "topic", "again"].iter().any(|word| remedy.contains(word));
            assert!(!is_foreign && !remedy.is_empty(), "{remedy}");
        }
    }

    #[test]
    fn no_time_is_left_to_tell_while_nothing_moves() {
        assert_eq!((left(0.0, Duration::ZERO), left(10.0, Duration::from_secs(5))), (String::new(), "  5s left".to_owned()));
    }

    #[test]
    fn a_request_takes_no_longer_than_the_wait() {
        let timeout = |wait| destination(&ReplayArgs { wait, ..arguments(Path::new("."), "http://a:1") }).expect("legal").timeout;
        assert_eq!([0, 5, 3600].map(timeout).map(|timeout| timeout.as_secs()), [1, 5, 60]);
    }

    #[test]
    fn a_torn_end_is_skipped_and_damage_is_not_taken_for_one() {
        let torn = pair("1") + "{\"index\":{\"_index\":\"a\",\"_id\":\"2\"}}\n{\"id\"";
        let found_torn = found(&[("a/1.ndjson.part", &torn)]);
        assert!(matches!(&found_torn[..], [Found::Items { .. }, Found::TornEnd { file: 0, line: 3 }, Found::FileEnd]), "{found_torn:?}");
        let finished = found(&[("a/1.ndjson", &torn)]);
        assert!(matches!(&finished[..], [Found::Items { .. }, Found::Damaged { line: 3, .. }]), "{finished:?}");
        let middle = found(&[("a/1.ndjson.part", &(pair("1") + "rubbish\n" + &pair("2")))]);
        assert!(matches!(&middle[..], [Found::Items { .. }, Found::Damaged { line: 3, .. }]), "{middle:?}");
    }

    #[test]
    fn a_large_file_is_cut_into_segments_that_know_where_they_come_from() {
        let pairs: Vec<String> = (0..50_000).map(|id| pair(&id.to_string())).collect();
        let text = pairs.concat();
        let mut read = String::new();
        let mut items = 0;
        for found in found(&[("a/1.ndjson", &text)]) {
            let Found::Items { origin, body, ends } = found else { continue };
            assert!(body.len() < SEGMENT_BYTES + 1000);
            assert_eq!((origin.start, origin.length, origin.first_line, origin.items), (read.len() as u64, body.len(), 2 * items + 1, ends.len()));
            assert_eq!(ends_of(&body), ends);
            items += ends.len() as u64;
            read.push_str(std::str::from_utf8(&body).expect("UTF-8"));
        }
        assert!(read == text, "something is missing or changed");
    }

    #[test]
    fn a_wrong_address_is_told_before_anything_is_read() {
        let refused = destination(&arguments(Path::new("nowhere"), "localhost:9200")).expect_err("no URL");
        assert!(refused.code == EXIT_USAGE && refused.message.starts_with("--to: ") && refused.message.contains("http://HOST:PORT"), "{refused:?}");
    }

    #[test]
    fn a_configuration_gives_everything_but_the_address() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.yaml");
        let with = |sink: &str| {
            fs::write(&path, format!("kafka: {{brokers: ['a:1']}}\n{sink}\n")).expect("a file");
            destination(&ReplayArgs { config: Some(path.clone()), ..arguments(dir.path(), "http://new:1/") })
        };
        let config = with("elasticsearch: {urls: ['https://old:1'], api_key: abc, bulk: {compression: gzip, linger: 50s}}").expect("legal");
        assert_eq!((config.urls, config.linger), (vec!["http://new:1".to_owned()], Duration::from_millis(250)));
        assert!(matches!(config.auth, SinkAuth::ApiKey(_)) && config.compression == Compression::Gzip);
        let without = with("sink: {file: out}").expect_err("no section");
        assert!(without.code == EXIT_CONFIG && without.message.contains("elasticsearch section"), "{without:?}");
        let broken = with("elasticsearch: {}").expect_err("no address");
        assert!(broken.code == EXIT_CONFIG && broken.message.contains("elasticsearch.urls"), "{broken:?}");
    }
}
