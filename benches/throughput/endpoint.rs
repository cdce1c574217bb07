//! A `_bulk` endpoint that counts and throws away, much cheaper than anybody who writes to it: blocking sockets, one thread per connection, no JSON.
//!
//! A document is two lines. The answer is `"errors":false` with one item for each, the short ones that `filter_path` leaves when the request has one, else items as Elasticsearch writes them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Instant;

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;
const SHORT_ITEM: &str = r#"{"index":{"status":201}},"#;
const FULL_ITEM: &str = r#"{"index":{"_index":"bench","_id":"AAAAAAAAAAAAAAAAAAAAAA:0:0000000","_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}},"#;

/// What has arrived since the last [`Endpoint::reset`].
#[derive(Debug, Default)]
struct Counters {
    documents: AtomicU64,
    bulks: AtomicU64,
    bytes: AtomicU64,
    times: Mutex<Option<(Instant, Instant)>>,
}

/// The endpoint.
#[derive(Debug)]
pub struct Endpoint {
    port: u16,
    counters: Arc<Counters>,
}

impl Endpoint {
    /// Listens on a free loopback port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        let counters = Arc::new(Counters::default());
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

    /// Forgets what has arrived.
    pub fn reset(&self) {
        for counter in [&self.counters.documents, &self.counters.bulks, &self.counters.bytes] {
            counter.store(0, Ordering::Relaxed);
        }
        *self.counters.times.lock().expect("no panic while noting a time") = None;
    }

    /// Documents so far.
    pub fn documents(&self) -> u64 {
        self.counters.documents.load(Ordering::Relaxed)
    }

    /// Requests so far.
    pub fn bulks(&self) -> u64 {
        self.counters.bulks.load(Ordering::Relaxed)
    }

    /// Seconds from the start of the first bulk request to the end of the last one.
    pub fn seconds(&self) -> f64 {
        let times = *self.counters.times.lock().expect("no panic while noting a time");
        times.map_or(0.0, |(first, last)| (last - first).as_secs_f64())
    }
}

struct Request {
    is_bulk: bool,
    is_head: bool,
    is_filtered: bool,
    length: Option<usize>,
    is_chunked: bool,
    wants_continue: bool,
}

fn serve(stream: TcpStream, counters: &Counters) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(READ_BYTES, stream);
    let mut answer = Vec::new();
    while let Some(request) = read_head(&mut reader)? {
        let started = Instant::now();
        if request.wants_continue {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (lines, bytes) = if request.is_chunked { read_chunks(&mut reader)? } else { read_lines(&mut reader, request.length.unwrap_or(0))? };
        answer.clear();
        if request.is_bulk {
            write_bulk_answer(&mut answer, lines as usize / 2, request.is_filtered);
            note(counters, started, lines / 2, bytes);
        } else {
            write_other_answer(&mut answer, request.is_head);
        }
        writer.write_all(&answer)?;
    }
    Ok(())
}

fn note(counters: &Counters, started: Instant, documents: u64, bytes: u64) {
    counters.bulks.fetch_add(1, Ordering::Relaxed);
    counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    let now = Instant::now();
    let mut times = counters.times.lock().expect("no panic while noting a time");
    *times = Some((times.map_or(started, |(first, _)| first), now));
    drop(times);
    counters.documents.fetch_add(documents, Ordering::Relaxed);
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
            "transfer-encoding" => request.is_chunked = value.contains("chunked"),
            "expect" => request.wants_continue = true,
            _ => {}
        }
    }
}

/// Line ends and bytes of a body of known length.
fn read_lines(reader: &mut BufReader<TcpStream>, length: usize) -> io::Result<(u64, u64)> {
    let mut left = length;
    let mut lines = 0;
    while left > 0 {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = buffer.len().min(left);
        lines += memchr::memchr_iter(b'\n', &buffer[..taken]).count() as u64;
        reader.consume(taken);
        left -= taken;
    }
    Ok((lines, length as u64))
}

fn read_chunks(reader: &mut BufReader<TcpStream>) -> io::Result<(u64, u64)> {
    let (mut lines, mut bytes) = (0, 0);
    let mut size_line = String::new();
    loop {
        size_line.clear();
        reader.read_line(&mut size_line)?;
        let digits = size_line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let (chunk_lines, chunk_bytes) = read_lines(reader, size)?;
        lines += chunk_lines;
        bytes += chunk_bytes;
        reader.read_exact(&mut [0; 2])?;
        if size == 0 {
            return Ok((lines, bytes));
        }
    }
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
