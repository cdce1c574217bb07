//! `make instructions`: how many machine instructions a record costs on drover's own way, from the chunk to the settled offset.
//!
//! Does what a partition task and the sink do for `DROVER_INSTRUCTIONS_RECORDS` (100000) records of 300 bytes: format them, enter them into the ledger, gather them into bulk bodies, send these to an
//! endpoint in this process, read the answers, settle. Without Kafka, so that the count depends on the code and hardly on the moment: `.ci/instructions.sh` runs it under callgrind with and
//! without records and prints the difference. A change that costs more than 5 % of it needs a reason.
//! With `DROVER_INSTRUCTIONS_COPY` set, records are copied as where they do not pass as they are.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use drover::config::{Compression, ElasticsearchConfig, SinkAuth};
use drover::kafka::chunk::{Chunk, ChunkBuilder};
use drover::memory::{Budget, Buffers};
use drover::pipeline::format::Formatter;
use drover::pipeline::ledger::Ledger;
use drover::pipeline::lines::{self, Lines};
use drover::sink::elasticsearch::ElasticsearchSink;
use drover::sink::{Outcome, Reply, Segment};
use drover::topic::{Format, TopicName, TopicSpec};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const RECORDS_OF_A_CHUNK: usize = 1000;
const BYTES_OF_A_RECORD: usize = 300;
const ID_BASE: &str = "HK2wYQ4qQ3uJf1mT0xZ9-A";
/// Chunks under way, as a task has them.
const WINDOW: usize = 8;

fn main() {
    let records = match std::env::var("DROVER_INSTRUCTIONS_RECORDS") {
        Ok(text) => text.parse().expect("DROVER_INSTRUCTIONS_RECORDS is a number"),
        Err(_) => 100_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let settled = runtime.block_on(run(records, &endpoint()));
    println!("{settled} records settled");
}

/// A server that confirms everything and looks at nothing; its URL.
fn endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || confirm(stream));
        }
    });
    url
}

fn confirm(stream: TcpStream) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
        let items = memchr::memchr_iter(b'\n', &body).count() / 2;
        let confirmations = vec![r#"{"index":{"status":201}}"#; items].join(",");
        let answer = format!(r#"{{"errors":false,"items":[{confirmations}]}}"#);
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).ok()?;
    }
}

fn configuration(url: &str) -> ElasticsearchConfig {
    ElasticsearchConfig {
        urls: vec![url.to_owned()],
        auth: SinkAuth::Anonymous,
        ca_file: None,
        client_identity: None,
        max_bytes: 8 << 20,
        linger: Duration::from_millis(250),
        in_flight: 2,
        timeout: Duration::from_secs(60),
        compression: Compression::Off,
    }
}

async fn run(records: usize, url: &str) -> usize {
    let (sink, handle, _stats) = ElasticsearchSink::new(&configuration(url)).expect("a sink");
    let cancel = CancellationToken::new();
    let life = tokio::spawn({
        let cancel = cancel.clone();
        async move { sink.run(cancel).await }
    });
    let buffers = Buffers::new(64 << 20);
    let budget = Budget::new(256 << 20);
    let mut builder = ChunkBuilder::new(buffers.clone());
    let spec = TopicSpec { format: Format::Json, ..TopicSpec::default() };
    let mut formatter = Formatter::new(&TopicName::new("orders").expect("legal"), 3, ID_BASE, &spec);
    builder.leave_room(formatter.headroom().filter(|_| std::env::var_os("DROVER_INSTRUCTIONS_COPY").is_none()));
    let mut ledger: Ledger<Chunk> = Ledger::new(0);
    let (to, mut outcomes) = mpsc::unbounded_channel();
    let value = format!(r#"{{"message":"{}"}}"#, "x".repeat(BYTES_OF_A_RECORD - 14));
    let (mut sent, mut settled) = (0, 0);
    while settled < records {
        while sent < records && ledger.pending() < WINDOW {
            let count = RECORDS_OF_A_CHUNK.min(records - sent);
            for offset in sent..sent + count {
                builder.push(i64::try_from(offset).expect("an offset"), 1_767_268_800_123, None, Some(value.as_bytes()), std::iter::empty());
            }
            sent += count;
            let mut chunk = builder.finish(budget.charge(builder.held_bytes()));
            let Lines { body, ends, .. } = lines::of_chunk(&mut chunk, &mut formatter, &buffers, |_| {});
            assert_eq!(ends.len(), count);
            let ticket = ledger.push(chunk.next_offset(), chunk.charge.bytes(), chunk);
            let hurry = ledger.pending() >= WINDOW || sent == records;
            handle.submit(Segment { body, ends, alone: false, hurry, reply: Reply::new(ticket, to.clone()) }).await;
        }
        let (ticket, outcome) = outcomes.recv().await.expect("an outcome");
        assert_eq!(outcome, Outcome::Settled { rejected: Vec::new(), retried: 0 });
        settled += ledger.settle(ticket).expect("a ticket of ours").len();
    }
    assert_eq!(ledger.watermark(), i64::try_from(records).expect("an offset"));
    cancel.cancel();
    life.await.expect("no panic").expect("cancelled");
    settled
}
