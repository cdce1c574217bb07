//! The accept loop: HTTP/1.1, plain or by TLS, with limits on everything that a client can drag out.
//!
//! Guarantees: at most `max_connections` at once and one that is being closed, the rest waits in the system's backlog; at the limit a new connection takes the place of the one
//! that has been open longest without a request, so that silent clients do not keep probes waiting, and with a request on every connection it waits; a TLS handshake, a request's head, and the pause between two requests, last at most `header_timeout`;
//! a client that does not read its answer for [`WRITE_TIMEOUT`] is cut off; heads are bounded, and what is refused there (400, 431) is a problem as any other, see `refusals`; a connection that is over is closed once the client has closed it, or after [`LINGER`], so that no answer is
//! lost. Cancelled,
//! it stops accepting, lets answers that are under way finish for at most [`GRACE`] and returns; silent clients are not waited for.
//!
//! All connections are driven by the one task that runs [`serve`]: the control plane answers from memory, and so nothing needs to be spawned, joined or leaked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::refusals::Holding;
use super::stream::Closing;
use super::{ApiState, refusals};

/// How long answers that are under way may take once the API stops.
const GRACE: Duration = Duration::from_secs(2);
/// How long a client may refuse to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to close its side of a connection that is over.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that such a client may still send.
const MOST_LINGERED: usize = 4 << 20;
/// Bytes of a request's head; far above what browsers send.
pub(super) const MAX_HEAD_BYTES: usize = 32 << 10;
/// The pause after an error of the listener itself, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// How often such an error is told in the log at most.
const ACCEPT_ERROR_TOLD_EVERY: Duration = Duration::from_secs(60);

/// The address of the client, in a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves the API on `listener` until cancelled.
///
/// The listener may be a clone: the socket stays open for the next life of this part, and clients wait in its backlog meanwhile. The error is the listener's own.
pub async fn serve(listener: std::net::TcpListener, state: ApiState, cancel: CancellationToken) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let header_timeout = state.http.header_timeout;
    let max_connections = state.http.max_connections.max(1);
    let tls = state.tls.clone();
    let router = super::router(state);

    let mut silent = Silent::default();
    let mut connections = FuturesUnordered::new();
    let mut paused_until: Option<Instant> = None;
    let mut told_at: Option<Instant> = None;
    loop {
        let has_place = connections.len() < max_connections || (connections.len() == max_connections && silent.is_any(max_connections));
        let has_room = has_place && paused_until.is_none();
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(()) = connections.next(), if !connections.is_empty() => {}
            () = tokio::time::sleep_until(paused_until.unwrap_or_else(Instant::now)), if paused_until.is_some() => paused_until = None,
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, peer)) => {
                    if connections.len() >= max_connections {
                        silent.close_longest();
                    }
                    // The certificate that is in force now.
                    let acceptor = tls.as_ref().map(|views| TlsAcceptor::from(views.borrow().value.clone()));
                    connections.push(connection(stream, peer, acceptor, router.clone(), header_timeout, silent.enter(), cancel.clone()));
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    if told_at.is_none_or(|at| at.elapsed() >= ACCEPT_ERROR_TOLD_EVERY) {
                        tracing::warn!(%error, "cannot accept connections; trying again");
                        told_at = Some(Instant::now());
                    }
                    paused_until = Some(Instant::now() + ACCEPT_PAUSE);
                }
            },
        }
    }
    drop(listener);
    let drain = async { while connections.next().await.is_some() {} };
    if tokio::time::timeout(GRACE, drain).await.is_err() {
        tracing::info!("connections that did not finish in time are closed");
    }
    Ok(())
}

/// Whether the error is about one connection that ended before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// Connections in the order in which they came, among them those that had no request yet. The accept loop alone owns it.
#[derive(Debug, Default)]
struct Silent(VecDeque<Arc<Guest>>);

/// One connection, as the accept loop sees it.
#[derive(Debug, Default)]
struct Guest {
    /// It has a request, or is gone.
    has_spoken: AtomicBool,
    /// Ends the connection.
    closer: CancellationToken,
}

impl Silent {
    fn enter(&mut self) -> Arc<Guest> {
        let guest = Arc::new(Guest::default());
        self.0.push_back(guest.clone());
        guest
    }

    /// Whether one has no request yet; forgets those that have.
    fn is_any(&mut self, max_connections: usize) -> bool {
        while self.0.front().is_some_and(|guest| guest.has_spoken.load(Ordering::Relaxed)) {
            self.0.pop_front();
        }
        if self.0.len() > 2 * max_connections {
            self.0.retain(|guest| !guest.has_spoken.load(Ordering::Relaxed));
        }
        !self.0.is_empty()
    }

    fn close_longest(&mut self) {
        if let Some(guest) = self.0.pop_front() {
            guest.closer.cancel();
        }
    }
}

impl Guest {
    fn leave(&self) {
        self.has_spoken.store(true, Ordering::Relaxed);
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    header_timeout: Duration,
    place: Arc<Guest>,
    cancel: CancellationToken,
) {
    // Answers are small and complete; waiting to fill a packet only delays them. A failure costs only that.
    let _ = stream.set_nodelay(true);
    let stream = match tls {
        None => Either::Left(stream),
        Some(acceptor) => {
            let outcome = tokio::select! {
                outcome = tokio::time::timeout(header_timeout, acceptor.accept(stream)) => outcome,
                () = cancel.cancelled() => return place.leave(),
                () = place.closer.cancelled() => return place.leave(),
            };
            match outcome {
                Ok(Ok(stream)) => Either::Right(stream),
                Ok(Err(error)) => {
                    tracing::debug!(%error, %peer, "a TLS handshake failed");
                    return place.leave();
                }
                Err(_) => {
                    tracing::debug!(%peer, "a TLS handshake took too long");
                    return place.leave();
                }
            }
        }
    };
    let service = service_fn(|request: Request<Incoming>| {
        place.leave();
        answer(router.clone(), request, peer, Closing(cancel.clone()))
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(MAX_HEAD_BYTES).half_close(false);
    let mut connection = builder.serve_connection(TokioIo::new(Holding::new(WriteDeadline::new(stream, WRITE_TIMEOUT))), service);
    let outcome = tokio::select! {
        outcome = &mut connection => Some(outcome),
        () = cancel.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await.inspect_err(|error| tracing::debug!(%error, %peer, "a connection ended early")).ok();
            None
        }
        () = place.closer.cancelled() => {
            tracing::debug!(%peer, "a connection without a request is closed to make room");
            None
        }
    };
    place.leave();
    if let Some(Err(error)) = &outcome {
        tracing::debug!(%error, %peer, "a connection ended early");
    }
    // What was answered may still be on its way: in full, or because the head was refused.
    let is_http2 = matches!(&outcome, Some(Err(error)) if error.is_parse_version_h2());
    let is_answered = outcome.is_some_and(|outcome| outcome.map_or_else(|error| error.is_parse(), |()| true));
    if is_answered {
        let farewell = async {
            let (mut stream, held) = connection.into_parts().io.into_inner().into_parts();
            // A client that speaks HTTP/2 without having asked whether we do is the one that hyper refuses without a word.
            let refused = held.or(is_http2.then_some(StatusCode::BAD_REQUEST));
            let is_told = match refused {
                Some(status) => refusals::answer(&mut stream, status).await.is_ok(),
                None => true,
            };
            if is_told {
                linger(stream).await;
            }
        };
        tokio::select! {
            () = farewell => {}
            () = cancel.cancelled() => {}
        }
    }
}

/// Waits until the client has closed its side, too, and reads away what it still sends. A connection that is closed on bytes which nobody read is reset, and the reset overtakes the answer: the client would never see why
/// its request was refused.
async fn linger(mut stream: impl AsyncRead + Unpin) {
    let read_away = async {
        let mut buffer = [0; 4096];
        let mut bytes = 0;
        while bytes < MOST_LINGERED
            && let Ok(read @ 1..) = stream.read(&mut buffer).await
        {
            bytes += read;
        }
    };
    // Whoever sends on and on, or nothing, is cut off.
    let _ = tokio::time::timeout(LINGER, read_away).await;
}

async fn answer(router: Router, request: Request<Incoming>, peer: SocketAddr, closing: Closing) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    // An answer without end has to end itself when the server stops.
    request.extensions_mut().insert(closing);
    router.oneshot(request).await
}

/// A stream that fails when nothing can be written for too long.
struct WriteDeadline<S> {
    stream: S,
    within: Duration,
    blocked: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    fn new(stream: S, within: Duration) -> Self {
        Self { stream, within, blocked: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.blocked = None;
            return outcome;
        }
        let within = self.within;
        let deadline = self.blocked.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, outcome)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::api::tests::state;

    /// Longer than anything here takes when all is well, also on a busy machine.
    pub(in crate::api) const DEADLINE: Duration = Duration::from_secs(60);

    /// Runs `client` against a server of its own, and then stops the server.
    pub(in crate::api) async fn against<T>(state: ApiState, client: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let cancel = CancellationToken::new();
        let clients = async {
            let outcome = client(address).await;
            cancel.cancel();
            outcome
        };
        let both = async { tokio::join!(serve(listener, state, cancel.clone()), clients) };
        let (served, outcome) = tokio::time::timeout(DEADLINE, both).await.expect("the server and its client end in time");
        served.expect("served");
        outcome
    }

    /// Sends bytes and reads until the server closes.
    async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        read_all(&mut stream).await
    }

    async fn read_all(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        // A reset after the answer is an end too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    /// How long the server keeps a connection on which these bytes are sent, one by one where there is a pause between them, and then nothing; and what it answers.
    async fn kept_for(address: SocketAddr, bytes: &[u8], pause: Duration) -> (Duration, String) {
        let mut slow = TcpStream::connect(address).await.expect("connected");
        let began = Instant::now();
        let (mut reading, mut writing) = slow.split();
        let mut answer = Vec::new();
        let read = async {
            // A reset is an end too.
            let _ = reading.read_to_end(&mut answer).await;
        };
        let write = async {
            let size = if pause.is_zero() { bytes.len().max(1) } else { 1 };
            for piece in bytes.chunks(size) {
                if writing.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = read => {}
            () = write => {}
        }
        (began.elapsed(), String::from_utf8_lossy(&answer).into_owned())
    }

    #[tokio::test]
    async fn a_client_that_sends_its_head_slowly_or_not_to_its_end_is_cut_off_at_the_header_timeout() {
        let mut state = state();
        // Nobody has to make room.
        state.http.max_connections = 20;
        let header_timeout = state.http.header_timeout;
        against(state, async |address| {
            let endless = format!("GET /livez HTTP/1.1\r\nHost: {}", "x".repeat(2000));
            let none = Duration::ZERO;
            let drip = Duration::from_millis(20);
            let half = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n";
            // A timer that began anew with each byte would keep the first one for 40 s.
            let clients = [
                kept_for(address, endless.as_bytes(), drip),
                kept_for(address, half, none),
                kept_for(address, b"", none),
                kept_for(address, b"G", none),
            ];
            let (quick, kept) = tokio::join!(exchange(address, LIVEZ), futures::future::join_all(clients));
            assert!(quick.starts_with("HTTP/1.1 200"), "{quick}");
            for (kept_for, answer) in kept {
                assert!(
                    kept_for >= header_timeout && kept_for < header_timeout + DEADLINE / 2,
                    "{kept_for:?} with a header timeout of {header_timeout:?}"
                );
                assert!(!answer.contains("200 OK"), "{answer}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_body_that_comes_slowly_or_not_to_its_end_is_a_problem_at_the_same_timeout() {
        let state = state();
        let header_timeout = state.http.header_timeout;
        against(state, async |address| {
            let head = "POST /api/v1/tasks/orders/0/restart HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n";
            let expecting = format!("{head}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
            for request in [format!("{head}Content-Length: 2\r\n\r\n{{"), format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{"), expecting] {
                let (kept_for, answer) = kept_for(address, request.as_bytes(), Duration::ZERO).await;
                assert!(kept_for >= header_timeout && kept_for < header_timeout + DEADLINE / 2, "{kept_for:?}");
                let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
                assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid-request"), "{answer}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_without_a_request_does_not_keep_its_place() {
        let mut state = state();
        state.http.max_connections = 1;
        against(state, async |address| {
            let mut silent = TcpStream::connect(address).await.expect("connected");
            let waiting = exchange(address, LIVEZ).await;
            assert!(waiting.starts_with("HTTP/1.1 200"), "{waiting}");
            assert_eq!(read_all(&mut silent).await, "");
        })
        .await;
    }

    #[tokio::test]
    async fn silent_connections_at_the_limit_do_not_keep_a_probe_waiting() {
        let mut state = state();
        state.http.max_connections = 3;
        // Longer than the test may take: no connection makes room because its time is over.
        state.http.header_timeout = DEADLINE * 2;
        against(state, async |address| {
            let mut busy = TcpStream::connect(address).await.expect("connected");
            let head = b"POST /api/v1/tasks/orders/0/restart HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
            busy.write_all(head).await.expect("sent");
            let mut go_on = [0; 25];
            busy.read_exact(&mut go_on).await.expect("told to go on");
            let mut silent = Vec::new();
            for _ in 0..20 {
                silent.push(TcpStream::connect(address).await.expect("connected"));
            }
            let probe = exchange(address, LIVEZ).await;
            assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
            assert_eq!(read_all(&mut silent[0]).await, "", "the one that was silent longest made room");
            busy.write_all(b"{}").await.expect("sent");
            let answer = read_all(&mut busy).await;
            assert!(answer.starts_with("HTTP/1.1 202"), "a request under way keeps its place: {answer}");
        })
        .await;
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_after_its_answer() {
        against(state(), async |address| {
            let answer = exchange(address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_that_is_over_the_limit_of_a_body_is_answered_without_reading_it() {
        against(state(), async |address| {
            let request =
                b"POST /api/v1/tasks/orders/0/restart HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
            let answer = exchange(address, request).await;
            assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
            assert!(answer.contains("payload-too-large"), "{answer}");
        })
        .await;
    }

    #[tokio::test]
    async fn silent_clients_do_not_delay_the_stop() {
        let mut state = state();
        state.http.header_timeout = DEADLINE * 2;
        let stopped = async {
            against(state, async |address| {
                let silent = TcpStream::connect(address).await.expect("connected");
                let mut half = TcpStream::connect(address).await.expect("connected");
                half.write_all(b"GET /livez HTTP/1.1\r\n").await.expect("sent");
                assert!(exchange(address, LIVEZ).await.starts_with("HTTP/1.1 200"));
                (silent, half)
            })
            .await
        };
        let _held = tokio::time::timeout(GRACE + Duration::from_secs(5), stopped).await.expect("stopped in time");
    }

    #[tokio::test]
    async fn silent_streams_do_not_delay_the_stop_and_are_told() {
        let mut state = state();
        state.http.max_connections = 100;
        // Its sender must live: without one streams end by themselves.
        let (_snapshots, receiver) = tokio::sync::watch::channel(state.now());
        state.snapshot = receiver;
        let (stopped_at, mut streams) = against(state, async |address| {
            let mut streams = Vec::new();
            for _ in 0..20 {
                let mut stream = TcpStream::connect(address).await.expect("connected");
                stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
                let mut head = [0; 15];
                stream.read_exact(&mut head).await.expect("an answer");
                assert_eq!(&head, b"HTTP/1.1 200 OK");
                streams.push(stream);
            }
            (Instant::now(), streams)
        })
        .await;
        assert!(stopped_at.elapsed() < GRACE, "{:?}", stopped_at.elapsed());
        for stream in &mut streams {
            let rest = read_all(stream).await;
            assert!(rest.contains("event: bye"), "{rest}");
        }
    }

    #[tokio::test]
    async fn an_answer_under_way_survives_the_stop() {
        let mut state = state();
        state.http.header_timeout = DEADLINE;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let cancel = CancellationToken::new();
        let client = async {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let head = b"POST /api/v1/tasks/orders/0/restart HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
            stream.write_all(head).await.expect("sent");
            let mut go_on = [0; 25];
            // The handler asks for the body: the request is under way.
            stream.read_exact(&mut go_on).await.expect("told to go on");
            assert!(go_on.starts_with(b"HTTP/1.1 100"));
            cancel.cancel();
            stream.write_all(b"{}").await.expect("sent");
            read_all(&mut stream).await
        };
        let both = async { tokio::join!(serve(listener, state, cancel.clone()), client) };
        let (served, answer) = tokio::time::timeout(DEADLINE, both).await.expect("ended in time");
        served.expect("served");
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }

    #[tokio::test]
    async fn the_next_life_of_this_part_serves_the_same_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        for _ in 0..2 {
            let cancel = CancellationToken::new();
            let client = async {
                let answer = exchange(address, LIVEZ).await;
                cancel.cancel();
                answer
            };
            let (served, answer) = tokio::join!(serve(listener.try_clone().expect("a clone"), state(), cancel.clone()), client);
            served.expect("served");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (near, _far) = tokio::io::duplex(8);
        let mut guarded = WriteDeadline::new(near, WRITE_TIMEOUT);
        let error = guarded.write_all(&[0; 64]).await.expect_err("cut off");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
