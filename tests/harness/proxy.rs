//! A TCP proxy that can be told at run time how to misbehave, in front of a real server.
//!
//! Guarantees: bytes are never changed or swapped, only held, cut or swallowed; a mode is in force for what is read from now on, at most [`LOOK_EVERY`] after the switch; dropping the proxy cuts everything. Does not
//! know what it carries.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::process::free_port;

/// How often a connection that is silent or held looks at the mode.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What is read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// What is remembered of a connection's beginning.
const HEAD_BYTES: usize = 4 << 10;

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// All are reset, new ones as soon as they are accepted.
    Cut,
    /// Answers come this much later.
    Delay(Duration),
    /// All are open, and nothing passes in either direction until the mode changes; then what was held passes.
    BlackHole,
    /// Requests pass, answers are swallowed; the connection is reset when the mode changes.
    HalfOpen,
    /// Requests pass; the first answer resets its connection after this many bytes of it. 0: the answer is lost after the server has acted.
    Truncate(usize),
    /// At most this many bytes a second pass in each direction.
    Slow(usize),
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    mode: Mutex<Mode>,
    unwanted: Mutex<Option<Vec<u8>>>,
    is_over: AtomicBool,
    accepted: AtomicU64,
    reset: AtomicU64,
}

impl Shared {
    fn mode(&self) -> Mode {
        if self.is_over.load(Ordering::Relaxed) { Mode::Cut } else { *self.mode.lock().expect("no panic while switching") }
    }

    /// Whether what a client has sent makes it one that is to be cut off.
    fn is_unwanted(&self, sent: &[u8]) -> bool {
        let unwanted = self.unwanted.lock().expect("no panic while switching");
        unwanted.as_ref().is_some_and(|words| sent.windows(words.len()).any(|window| window == words))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy on a free port before the loopback port `upstream`.
    pub fn before(upstream: u16) -> Self {
        Self::at(free_port(), upstream)
    }

    /// A proxy on this port.
    pub fn at(port: u16, upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| panic!("the proxy's port {port}: {error}"));
        listener.set_nonblocking(true).expect("a listener of ours");
        let shared = Arc::new(Shared {
            upstream,
            mode: Mutex::new(Mode::Pass),
            unwanted: Mutex::new(None),
            is_over: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            reset: AtomicU64::new(0),
        });
        let told = shared.clone();
        std::thread::spawn(move || accept(&listener, &told));
        Self { port, shared }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Behaves like this from now on.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("no panic while switching") = mode;
    }

    /// From now on resets every connection whose client sends these words, or has sent them among its first 4 KiB: so one of several clients is cut off.
    pub fn refuse(&self, words: Option<&str>) {
        *self.shared.unwanted.lock().expect("no panic while switching") = words.map(|words| words.as_bytes().to_vec());
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections the proxy has reset.
    pub fn reset(&self) -> u64 {
        self.shared.reset.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_over.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        if shared.mode() == Mode::Cut {
            shared.reset.fetch_add(1, Ordering::Relaxed);
            reset_when_closed(&client);
            continue;
        }
        let connection = shared.clone();
        std::thread::spawn(move || serve(client, &connection));
    }
}

/// One connection: two directions, each with a thread.
fn serve(client: TcpStream, shared: &Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.upstream)) else {
        reset_when_closed(&client);
        return;
    };
    for stream in [&client, &server] {
        let ready = stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).and_then(|()| stream.set_read_timeout(Some(LOOK_EVERY)));
        if ready.is_err() {
            return;
        }
    }
    let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let is_cut = Arc::new(AtomicBool::new(false));
    let requests = Pump { from: from_client, to: to_server, is_answers: false, shared: shared.clone(), is_cut: is_cut.clone(), head: Vec::new() };
    let answers = Pump { from: server, to: client, is_answers: true, shared: shared.clone(), is_cut, head: Vec::new() };
    let other = std::thread::spawn(move || requests.run());
    answers.run();
    let _ = other.join();
}

struct Pump {
    from: TcpStream,
    to: TcpStream,
    is_answers: bool,
    shared: Arc<Shared>,
    /// The connection is to be reset, whoever of the two noticed.
    is_cut: Arc<AtomicBool>,
    /// The first bytes, in the direction of requests.
    head: Vec<u8>,
}

impl Pump {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut has_swallowed = false;
        loop {
            if has_swallowed && self.shared.mode() != Mode::HalfOpen || self.shared.mode() == Mode::Cut || self.shared.is_unwanted(&self.head) {
                self.cut();
            }
            if self.is_cut.load(Ordering::Relaxed) {
                reset_when_closed(&self.from);
                reset_when_closed(&self.to);
                return;
            }
            let read = match self.from.read(&mut buffer) {
                Ok(0) => {
                    let _ = self.to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => continue,
                Err(_) => {
                    self.is_cut.store(true, Ordering::Relaxed);
                    continue;
                }
            };
            if has_swallowed && self.shared.mode() != Mode::HalfOpen {
                // It came while we waited for it: a connection that has lost bytes carries no more.
                continue;
            }
            let Some(bytes) = buffer.get(..read) else { return };
            if !self.is_answers {
                self.head.extend(bytes.iter().take(HEAD_BYTES - self.head.len().min(HEAD_BYTES)));
                if self.shared.is_unwanted(bytes) {
                    self.cut();
                    continue;
                }
            }
            has_swallowed |= self.carry(bytes);
        }
    }

    /// Answers whether the bytes were swallowed.
    fn carry(&mut self, bytes: &[u8]) -> bool {
        while self.shared.mode() == Mode::BlackHole && !self.is_cut.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        match self.shared.mode() {
            Mode::HalfOpen if self.is_answers => return true,
            Mode::Truncate(kept) if self.is_answers => {
                let _ = self.to.write_all(bytes.get(..kept).unwrap_or(bytes));
                // A whole answer that is shorter than this passes.
                if bytes.len() >= kept {
                    self.end();
                }
            }
            Mode::Delay(time) if self.is_answers => {
                let until = Instant::now() + time;
                while Instant::now() < until && matches!(self.shared.mode(), Mode::Delay(_)) {
                    std::thread::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())));
                }
                self.write(bytes);
            }
            Mode::Slow(bytes_per_second) => {
                for piece in bytes.chunks((bytes_per_second / 50).max(1)) {
                    self.write(piece);
                    if matches!(self.shared.mode(), Mode::Slow(_)) {
                        std::thread::sleep(LOOK_EVERY);
                    }
                }
            }
            _ => self.write(bytes),
        }
        false
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.to.write_all(bytes).is_err() {
            self.is_cut.store(true, Ordering::Relaxed);
        }
    }

    fn cut(&self) {
        if !self.is_cut.swap(true, Ordering::Relaxed) {
            self.shared.reset.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the connection after what was written: a reset would take that away from the reader.
    fn end(&self) {
        if !self.is_cut.load(Ordering::Relaxed) {
            self.shared.reset.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.to.shutdown(Shutdown::Both);
        let _ = self.from.shutdown(Shutdown::Both);
    }
}

/// The last close of this socket sends a reset instead of an orderly end.
fn reset_when_closed(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = libc::socklen_t::try_from(std::mem::size_of::<libc::linger>()).expect("a small struct");
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the option's value is a `linger` of the size that is given.
    unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);

    /// A server that answers every connection's first bytes with `answer`, and the proxy before it.
    fn before_a_server(answer: &'static [u8]) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                std::thread::spawn(move || {
                    let mut buffer = [0; 100];
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                        let _ = stream.write_all(answer);
                    }
                });
            }
        });
        Proxy::before(port)
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).expect("the proxy accepts");
        stream.set_read_timeout(Some(Duration::from_millis(400))).expect("a socket");
        stream
    }

    fn ask(stream: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
        stream.write_all(b"?").map_err(|error| error.kind())?;
        let mut buffer = [0; 100];
        let read = stream.read(&mut buffer).map_err(|error| error.kind())?;
        Ok(buffer[..read].to_vec())
    }

    #[test]
    fn each_mode_does_what_it_says() {
        let proxy = before_a_server(b"answer");
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream), Ok(b"answer".to_vec()));
        proxy.set(Mode::BlackHole);
        // What is asked before the proxy has looked at the mode is answered.
        super::super::wait::wait_until("the hole is black", IN_FORCE_WITHIN, || (ask(&mut stream) == Err(ErrorKind::WouldBlock)).then_some(()));
        proxy.set(Mode::Pass);
        let mut buffer = [0; 100];
        assert_eq!(stream.read(&mut buffer).expect("what was held comes"), 6);
        proxy.set(Mode::Delay(Duration::from_millis(200)));
        let asked = Instant::now();
        assert_eq!(ask(&mut stream), Ok(b"answer".to_vec()));
        assert!(asked.elapsed() >= Duration::from_millis(200));
        proxy.set(Mode::Truncate(3));
        assert_eq!(ask(&mut stream), Ok(b"ans".to_vec()));
        assert_eq!(ask(&mut stream).unwrap_or_default(), b"");
        assert_eq!(ask(&mut connect(&proxy)), Ok(b"ans".to_vec()));
        proxy.set(Mode::HalfOpen);
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream), Err(ErrorKind::WouldBlock));
        proxy.set(Mode::Pass);
        let told = super::super::wait::wait_until("the half-open connection ends", IN_FORCE_WITHIN, || {
            Some(ask(&mut stream)).filter(|told| *told != Err(ErrorKind::WouldBlock))
        });
        assert!(told.unwrap_or_default().is_empty());
        let mut stream = connect(&proxy);
        assert_eq!(ask(&mut stream), Ok(b"answer".to_vec()));
        let before = proxy.reset();
        proxy.set(Mode::Cut);
        super::super::wait::wait_until("the connection is cut", IN_FORCE_WITHIN, || ask(&mut stream).is_err().then_some(()));
        assert!(proxy.reset() > before);
    }

    #[test]
    fn only_the_client_that_is_refused_is_cut_off() {
        let proxy = before_a_server(b"answer");
        let (mut early, mut other) = (connect(&proxy), connect(&proxy));
        early.write_all(b"x-from: 1").expect("an open connection");
        let mut buffer = [0; 100];
        assert_eq!(early.read(&mut buffer).expect("an answer"), 6);
        assert_eq!(ask(&mut other), Ok(b"answer".to_vec()));
        proxy.refuse(Some("x-from: 1"));
        super::super::wait::wait_until("it is cut without sending anything", IN_FORCE_WITHIN, || match early.read(&mut buffer) {
            Ok(0) => Some(()),
            Ok(_) => None,
            Err(error) => (error.kind() == ErrorKind::ConnectionReset).then_some(()),
        });
        assert_eq!(ask(&mut other), Ok(b"answer".to_vec()));
        let mut late = connect(&proxy);
        late.write_all(b"x-from: 1").expect("an open connection");
        assert!(late.read(&mut buffer).map_or(true, |read| read == 0));
        proxy.refuse(None);
        let mut again = connect(&proxy);
        again.write_all(b"x-from: 1").expect("an open connection");
        assert_eq!(again.read(&mut buffer).expect("an answer"), 6);
    }
}
