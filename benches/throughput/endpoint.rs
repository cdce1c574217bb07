//! A `_bulk` endpoint that checks, counts and throws away, much cheaper than anybody who writes to it: blocking sockets, one thread per connection, no JSON.
//!
//! A document is two lines, of which the second is hashed ([`checksum`]). The answer is `"errors":false` with one item for each, the short ones that `filter_path` leaves when the request has one, else
//! items as Elasticsearch writes them. A body in gzip is unpacked. Documents that begin with [`PROBE`] are noted with the time at which their request was answered.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use flate2::bufread::MultiGzDecoder;
use memchr::memmem::Finder;

use crate::checksum;

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;
const SHORT_ITEM: &str = r#"{"index":{"status":201}},"#;
const FULL_ITEM: &str = r#"{"index":{"_index":"bench","_id":"AAAAAAAAAAAAAAAAAAAAAA:0:0000000","_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}},"#;
/// How a document begins whose arrival is noted; its number follows.
pub const PROBE: &[u8] = br#"{"probe":"#;

/// Which part of a document is the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole,
    /// What follows this, up to the next quotation mark.
    Field(&'static str),
}

/// When a probe was acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The probe's number.
    pub probe: u64,
    /// When the answer to its request had been written.
    pub at: Instant,
}

/// What has arrived since the last [`Endpoint::reset`].
#[derive(Debug)]
struct Counters {
    content: Mutex<Content>,
    documents: AtomicU64,
    bulks: AtomicU64,
    bytes: AtomicU64,
    checksum: AtomicU64,
    times: Mutex<Option<(Instant, Instant)>>,
    arrivals: Mutex<Vec<Arrival>>,
}

/// The endpoint.
#[derive(Debug)]
pub struct Endpoint {
    port: u16,
    counters: Arc<Counters>,
}

const NO_PANIC: &str = "no panic while a counter is held";

impl Endpoint {
    /// Listens on a free loopback port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        let counters = Arc::new(Counters {
            content: Mutex::new(Content::Whole),
            documents: AtomicU64::new(0),
            bulks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            checksum: AtomicU64::new(0),
            times: Mutex::new(None),
            arrivals: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&counters);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = Arc::clone(&shared);
                // A connection that ends in the middle of a request is counted as far as whole requests go.
                thread::spawn(move || drop(serve(stream, &connection)));
            }
        });
        Self { port, counters }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forgets what has arrived, and says what the record is in the documents to come.
    pub fn reset(&self, content: Content) {
        for counter in [&self.counters.documents, &self.counters.bulks, &self.counters.bytes, &self.counters.checksum] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.counters.content.lock().expect(NO_PANIC) = content;
        *self.counters.times.lock().expect(NO_PANIC) = None;
        self.counters.arrivals.lock().expect(NO_PANIC).clear();
    }

    /// Documents so far.
    pub fn documents(&self) -> u64 {
        self.counters.documents.load(Ordering::Acquire)
    }

    /// Requests so far.
    pub fn bulks(&self) -> u64 {
        self.counters.bulks.load(Ordering::Relaxed)
    }

    /// Bytes of all bodies as they were sent.
    pub fn bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }

    /// The sum of the records' hashes.
    pub fn checksum(&self) -> u64 {
        self.counters.checksum.load(Ordering::Relaxed)
    }

    /// Seconds from the start of the first bulk request to the end of the last one.
    pub fn seconds(&self) -> f64 {
        let times = *self.counters.times.lock().expect(NO_PANIC);
        times.map_or(0.0, |(first, last)| (last - first).as_secs_f64())
    }

    /// The probes that have been acknowledged, in the order of their answers; a repeated one is there twice.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.counters.arrivals.lock().expect(NO_PANIC).clone()
    }
}

struct Request {
    is_bulk: bool,
    is_head: bool,
    is_filtered: bool,
    is_gzip: bool,
    length: Option<usize>,
    is_chunked: bool,
    wants_continue: bool,
}

fn serve(stream: TcpStream, counters: &Counters) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(READ_BYTES, stream);
    let mut answer = Vec::new();
    let mut documents = Documents::default();
    while let Some(request) = read_head(&mut reader)? {
        let started = Instant::now();
        if request.wants_continue {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        documents.begin(*counters.content.lock().expect(NO_PANIC));
        let bytes = read_body(&mut reader, &request, &mut documents)?;
        answer.clear();
        if !request.is_bulk {
            write_other_answer(&mut answer, request.is_head);
            writer.write_all(&answer)?;
            continue;
        }
        write_bulk_answer(&mut answer, documents.count as usize, request.is_filtered);
        // Noted before the answer, so that nobody who has an answer is missing in the count; the probes' times are those after it.
        note(counters, started, &documents, bytes);
        writer.write_all(&answer)?;
        if !documents.probes.is_empty() {
            let at = Instant::now();
            counters.arrivals.lock().expect(NO_PANIC).extend(documents.probes.iter().map(|probe| Arrival { probe: *probe, at }));
        }
    }
    Ok(())
}

fn note(counters: &Counters, started: Instant, documents: &Documents, bytes: u64) {
    counters.bulks.fetch_add(1, Ordering::Relaxed);
    counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    counters.checksum.fetch_add(documents.checksum, Ordering::Relaxed);
    let now = Instant::now();
    let mut times = counters.times.lock().expect(NO_PANIC);
    *times = Some((times.map_or(started, |(first, _)| first), now));
    drop(times);
    counters.documents.fetch_add(documents.count, Ordering::Release);
}

/// Looks at the lines of a body as its pieces come.
struct Documents {
    content: Content,
    finder: Finder<'static>,
    /// The beginning of a line that the last piece did not end.
    line: Vec<u8>,
    is_source: bool,
    count: u64,
    checksum: u64,
    probes: Vec<u64>,
}

impl Default for Documents {
    fn default() -> Self {
        let (line, probes) = (Vec::new(), Vec::new());
        Self { content: Content::Whole, finder: Finder::new(""), line, is_source: false, count: 0, checksum: 0, probes }
    }
}

impl Documents {
    fn begin(&mut self, content: Content) {
        if content != self.content {
            self.content = content;
            self.finder = Finder::new(if let Content::Field(name) = content { name } else { "" });
        }
        self.line.clear();
        self.is_source = false;
        self.count = 0;
        self.checksum = 0;
        self.probes.clear();
    }

    fn take(&mut self, piece: &[u8]) {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            if self.line.is_empty() {
                self.end_line(&piece[from..end]);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&piece[from..end]);
                self.end_line(&line);
                line.clear();
                self.line = line;
            }
            from = end + 1;
        }
        self.line.extend_from_slice(&piece[from..]);
    }

    fn end_line(&mut self, line: &[u8]) {
        if self.is_source {
            self.count += 1;
            self.checksum = self.checksum.wrapping_add(checksum::of(self.record_in(line)));
            if let Some(rest) = line.strip_prefix(PROBE) {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
                self.probes.push(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
            }
        }
        self.is_source = !self.is_source;
    }

    fn record_in<'a>(&self, document: &'a [u8]) -> &'a [u8] {
        let Content::Field(name) = self.content else { return document };
        let Some(start) = self.finder.find(document) else { return &[] };
        let value = &document[start + name.len()..];
        &value[..memchr::memchr(b'"', value).unwrap_or(value.len())]
    }
}

/// `None` when the client has closed the connection between requests.
fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let is_bulk = path.ends_with("_bulk");
    let mut request = Request {
        is_bulk,
        is_head: method == "HEAD",
        is_filtered: target.contains("filter_path"),
        is_gzip: false,
        length: None,
        is_chunked: false,
        wants_continue: false,
    };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let lower = line.trim().to_ascii_lowercase();
        let Some((name, value)) = lower.split_once(':') else { return Ok(Some(request)) };
        match name {
            "content-length" => request.length = value.trim().parse().ok(),
            "content-encoding" => request.is_gzip = value.contains("gzip"),
            "transfer-encoding" => request.is_chunked = value.contains("chunked"),
            "expect" => request.wants_continue = true,
            _ => {}
        }
    }
}

/// Reads one body and returns how many bytes it has, packed or not.
fn read_body(reader: &mut BufReader<TcpStream>, request: &Request, documents: &mut Documents) -> io::Result<u64> {
    if !request.is_gzip {
        return read_pieces(reader, request, |piece| documents.take(piece));
    }
    let mut packed = Vec::new();
    let bytes = read_pieces(reader, request, |piece| packed.extend_from_slice(piece))?;
    let mut unpacked = BufReader::with_capacity(READ_BYTES, MultiGzDecoder::new(packed.as_slice()));
    loop {
        let piece = unpacked.fill_buf()?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        let taken = piece.len();
        documents.take(piece);
        unpacked.consume(taken);
    }
}

fn read_pieces(reader: &mut BufReader<TcpStream>, request: &Request, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    if !request.is_chunked {
        return read_length(reader, request.length.unwrap_or(0), &mut take);
    }
    let mut bytes = 0;
    let mut size_line = String::new();
    loop {
        size_line.clear();
        reader.read_line(&mut size_line)?;
        let digits = size_line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        bytes += read_length(reader, size, &mut take)?;
        reader.read_exact(&mut [0; 2])?;
        if size == 0 {
            return Ok(bytes);
        }
    }
}

fn read_length(reader: &mut BufReader<TcpStream>, length: usize, take: &mut impl FnMut(&[u8])) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = buffer.len().min(left);
        take(&buffer[..taken]);
        reader.consume(taken);
        left -= taken;
    }
    Ok(length as u64)
}

fn write_bulk_answer(answer: &mut Vec<u8>, count: usize, is_filtered: bool) {
    let (start, item) = if is_filtered { (r#"{"errors":false,"items":["#, SHORT_ITEM) } else { (r#"{"took":0,"errors":false,"items":["#, FULL_ITEM) };
    // Without the last comma.
    let items_length = (count * item.len()).saturating_sub(1);
    write_head(answer, start.len() + items_length + 2);
    answer.extend_from_slice(start.as_bytes());
    let mut left = items_length;
    let repeated = repeated(item, is_filtered);
    while left > 0 {
        let taken = left.min(repeated.len());
        answer.extend_from_slice(&repeated[..taken]);
        left -= taken;
    }
    answer.extend_from_slice(b"]}");
}

/// A whole number of items in one piece.
fn repeated(item: &str, is_filtered: bool) -> &'static [u8] {
    static SHORT: OnceLock<Vec<u8>> = OnceLock::new();
    static FULL: OnceLock<Vec<u8>> = OnceLock::new();
    let cell = if is_filtered { &SHORT } else { &FULL };
    cell.get_or_init(|| item.repeat(32 * 1024).into_bytes())
}

fn write_other_answer(answer: &mut Vec<u8>, is_head: bool) {
    let body = br#"{"version":{"number":"8.19.0","build_flavor":"default"},"tagline":"You Know, for Search","status":"green","acknowledged":true}"#;
    write_head(answer, body.len());
    if !is_head {
        answer.extend_from_slice(body);
    }
}

fn write_head(answer: &mut Vec<u8>, length: usize) {
    let head = format!("HTTP/1.1 200 OK\r\nX-Elastic-Product: Elasticsearch\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    answer.extend_from_slice(head.as_bytes());
}
