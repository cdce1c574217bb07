//! Clients that read `GET /api/v1/stream`: many of them in one thread, so that reading costs the machine little.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How the frames of the stream begin that are counted. A frame's head is never divided among two pieces of the answer, but among two readings.
const SNAPSHOT: &[u8] = b"\nevent: snapshot\n";
const FRAMES: [&[u8]; 3] = [b"\nevent: topic\n", b"\nevent: task\n", b"\nevent: event\n"];

/// The name of the thread that reads.
pub const THREAD: &str = "streams";

/// What one client has got.
#[derive(Debug, Default)]
struct Got {
    snapshots: AtomicUsize,
    frames: AtomicU64,
    bytes: AtomicU64,
    ends: AtomicUsize,
}

/// The clients; closed when dropped.
#[derive(Debug)]
pub struct Streams {
    got: Vec<Arc<Got>>,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// Opens so many streams of the drover on a port.
    pub fn open(port: u16, token: &'static str, count: usize) -> Self {
        let got: Vec<Arc<Got>> = (0..count).map(|_| Arc::default()).collect();
        let (close, closed) = oneshot::channel();
        let clients = got.clone();
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                for got in clients {
                    tokio::spawn(async move {
                        // An error of the connection is an end too.
                        let _ = read(port, token, &got).await;
                        got.ends.fetch_add(1, Ordering::Relaxed);
                    });
                }
                let _ = closed.await;
            });
        };
        let thread = thread::Builder::new().name(THREAD.to_owned()).spawn(body).expect("a thread");
        Self { got, close: Some(close), thread: Some(thread) }
    }

    /// How many have got a snapshot.
    pub fn with_snapshot(&self) -> usize {
        self.got.iter().filter(|got| got.snapshots.load(Ordering::Relaxed) > 0).count()
    }

    /// Frames behind the snapshots, of each client.
    pub fn frames_of_each(&self) -> Vec<u64> {
        self.got.iter().map(|got| got.frames.load(Ordering::Relaxed)).collect()
    }

    /// Frames behind the snapshots, of all clients.
    pub fn frames(&self) -> u64 {
        self.frames_of_each().iter().sum()
    }

    /// Bytes of all clients.
    pub fn bytes(&self) -> u64 {
        self.got.iter().map(|got| got.bytes.load(Ordering::Relaxed)).sum()
    }

    /// How many streams have ended.
    pub fn ended(&self) -> usize {
        self.got.iter().filter(|got| got.ends.load(Ordering::Relaxed) > 0).count()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // The receiver is gone when the thread has panicked, which joining it shows.
        let _ = self.close.take().map(|close| close.send(()));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the streams' thread has panicked");
        }
    }
}

async fn read(port: u16, token: &str, got: &Got) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 64 * 1024];
    // The end of the last reading, in which a head may have begun.
    let mut kept = 0;
    loop {
        let read = stream.read(&mut buffer[kept..]).await?;
        if read == 0 {
            return Ok(());
        }
        let piece = &buffer[..kept + read];
        let count = |needle: &[u8]| {
            // A head that was there in full the last time is not counted again.
            memchr::memmem::find_iter(piece, needle).filter(|at| at + needle.len() > kept).count()
        };
        got.snapshots.fetch_add(count(SNAPSHOT), Ordering::Relaxed);
        got.frames.fetch_add(FRAMES.iter().map(|needle| count(needle) as u64).sum(), Ordering::Relaxed);
        got.bytes.fetch_add(read as u64, Ordering::Relaxed);
        let rest = (kept + read).min(SNAPSHOT.len());
        buffer.copy_within(kept + read - rest..kept + read, 0);
        kept = rest;
    }
}
