//! A proxy before a real broker that makes its group coordinator refuse commits and heartbeats, each with an error of one's choice, or answer nothing.
//!
//! Guarantees that what is refused was not carried out: the generation in the request is changed on its way, so that the coordinator itself refuses it, and only the error's number is changed on the way back. Everything
//! else passes as it is. Knows no more of Kafka's protocol than it needs for that: the beginning of two requests, and their answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// What a member asks its coordinator for. The numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// `OffsetCommit`.
    Commit = 8,
    /// `Heartbeat`.
    Heartbeat = 12,
}

impl Request {
    /// The first version whose strings and arrays are compact.
    fn first_compact_version(self) -> i16 {
        match self {
            Self::Commit => 8,
            Self::Heartbeat => 4,
        }
    }
}

/// Errors of a coordinator, with the protocol's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// `COORDINATOR_LOAD_IN_PROGRESS`.
    Loading = 14,
    /// `COORDINATOR_NOT_AVAILABLE`.
    NotAvailable = 15,
    /// `NOT_COORDINATOR`.
    NotCoordinator = 16,
    /// `ILLEGAL_GENERATION`.
    IllegalGeneration = 22,
    /// `UNKNOWN_MEMBER_ID`.
    UnknownMember = 25,
    /// `REBALANCE_IN_PROGRESS`.
    Rebalance = 27,
}

#[derive(Debug, Default)]
struct Shared {
    upstream: u16,
    refusing: Mutex<Option<(Request, Refusal)>>,
    is_silent: AtomicBool,
    swallowed: AtomicU32,
    refused: Mutex<BTreeMap<(Request, Refusal), u32>>,
    is_over: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// Everything that only a coordinator answers: commits and committed offsets, who it is, joining, heartbeats and leaving, and the heartbeat of KIP-848.
const GROUP_REQUESTS: [i16; 8] = [8, 9, 10, 11, 12, 13, 14, 68];

/// See the module.
#[derive(Debug)]
pub struct Coordinator {
    port: u16,
    shared: Arc<Shared>,
}

impl Coordinator {
    /// On this port, before the broker's port `upstream`.
    pub fn at(port: u16, upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| panic!("the proxy's port {port}: {error}"));
        let shared = Arc::new(Shared { upstream, ..Shared::default() });
        let told = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if told.is_over.load(Ordering::Relaxed) {
                    return;
                }
                serve(client, &told);
            }
        });
        Self { port, shared }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Refuses these requests from now on; `None`: nothing.
    pub fn refuse(&self, what: Option<(Request, Refusal)>) {
        *self.shared.refusing.lock().expect("no panic while switching") = what;
    }

    /// From now on whatever a member asks its coordinator for is swallowed, while records are fetched as before; or not any more.
    pub fn be_silent(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// How many requests were swallowed.
    pub fn swallowed(&self) -> u32 {
        self.shared.swallowed.load(Ordering::Relaxed)
    }

    /// How many requests were refused so.
    pub fn refused(&self, request: Request, refusal: Refusal) -> u32 {
        self.shared.refused.lock().expect("no panic while counting").get(&(request, refusal)).copied().unwrap_or(0)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for stream in self.shared.streams.lock().expect("no panic while ending").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// By correlation id: what was refused, and in which version.
type Refused = BTreeMap<i32, (Request, Refusal, i16)>;

/// One connection: two directions, each with a thread.
fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.upstream)) else { return };
    let clones = [&client, &server, &client, &server].map(|stream| stream.set_nodelay(true).and_then(|()| stream.try_clone()));
    let [Ok(client_reader), Ok(server_writer), Ok(client_writer), Ok(server_reader)] = clones else { return };
    shared.streams.lock().expect("no panic while serving").extend([client, server]);
    let asked: Arc<Mutex<Refused>> = Arc::default();
    let (told, noted) = (shared.clone(), asked.clone());
    std::thread::spawn(move || {
        pump(client_reader, server_writer, |frame| {
            let key = Reader { frame, at: 0 }.short().unwrap_or_default();
            if told.is_silent.load(Ordering::Relaxed) && GROUP_REQUESTS.contains(&key) {
                told.swallowed.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            let refusing = *told.refusing.lock().expect("no panic while refusing");
            if let Some((request, refusal)) = refusing
                && let Some((correlation, version)) = spoil(frame, request)
            {
                noted.lock().expect("no panic while noting").insert(correlation, (request, refusal, version));
            }
            true
        });
    });
    let told = shared.clone();
    std::thread::spawn(move || {
        pump(server_reader, client_writer, |frame| {
            let correlation = Reader { frame, at: 0 }.int().unwrap_or_default();
            let asked = asked.lock().expect("no panic while answering").remove(&correlation);
            if let Some((request, refusal, version)) = asked
                && replace_errors(frame, request, version, refusal as i16).is_some()
            {
                *told.refused.lock().expect("no panic while counting").entry((request, refusal)).or_default() += 1;
            }
            true
        });
    });
}

/// Carries whole frames, each through `change`, which says whether it is carried at all, until one side ends.
fn pump(mut from: TcpStream, mut to: TcpStream, mut change: impl FnMut(&mut [u8]) -> bool) {
    let mut carry = || {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut frame)?;
        if !change(&mut frame) {
            return Ok(());
        }
        to.write_all(&length)?;
        to.write_all(&frame)
    };
    while carry().is_ok() {}
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Changes the generation in such a request; correlation id and version of what was changed.
fn spoil(frame: &mut [u8], request: Request) -> Option<(i32, i16)> {
    let mut reader = Reader { frame, at: 0 };
    let (key, version, correlation) = (reader.short()?, reader.short()?, reader.int()?);
    if key != request as i16 {
        return None;
    }
    // The client's id is never compact.
    reader.text(false)?;
    let is_compact = version >= request.first_compact_version();
    reader.tags(is_compact)?;
    reader.text(is_compact)?;
    let at = reader.at;
    let generation = reader.int()?;
    frame[at..at + 4].copy_from_slice(&(generation + 1_000).to_be_bytes());
    Some((correlation, version))
}

/// Changes every error in the answer to such a request.
fn replace_errors(frame: &mut [u8], request: Request, version: i16, error: i16) -> Option<()> {
    let is_compact = version >= request.first_compact_version();
    let mut reader = Reader { frame, at: 0 };
    reader.int()?;
    reader.tags(is_compact)?;
    // Throttling.
    reader.int()?;
    let mut places = Vec::new();
    match request {
        Request::Heartbeat => places.push(reader.at),
        Request::Commit => {
            for _ in 0..reader.count(is_compact)? {
                reader.text(is_compact)?;
                for _ in 0..reader.count(is_compact)? {
                    reader.int()?;
                    places.push(reader.at);
                    reader.short()?;
                    reader.tags(is_compact)?;
                }
                reader.tags(is_compact)?;
            }
        }
    }
    places.iter().for_each(|at| frame[*at..*at + 2].copy_from_slice(&error.to_be_bytes()));
    Some(())
}

struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.frame.get(self.at..self.at + N)?.try_into().ok()?;
        self.at += N;
        Some(bytes)
    }

    fn short(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..).step_by(7).take(5) {
            let [byte] = self.take()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn count(&mut self, is_compact: bool) -> Option<usize> {
        if is_compact { self.varint()?.checked_sub(1) } else { usize::try_from(self.int()?).ok() }
    }

    fn text(&mut self, is_compact: bool) -> Option<()> {
        let length = if is_compact { self.varint()?.saturating_sub(1) } else { usize::try_from(self.short()?).unwrap_or(0) };
        self.at += length;
        Some(())
    }

    /// Where there are tags, clients and brokers send none here.
    fn tags(&mut self, are_there: bool) -> Option<()> {
        if are_there {
            let [count] = self.take()?;
            return (count == 0).then_some(());
        }
        Some(())
    }
}
