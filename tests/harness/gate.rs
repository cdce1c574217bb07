//! A node of the sink that can be told what to answer, before a real server that keeps the documents: the checker reads them there.
//!
//! Guarantees: what no script refuses is answered by the real server; a killed gate refuses connections and comes back on its port. Not for use inside an asynchronous test. Does not decide what a server would say:
//! the rows do, in the words of Elasticsearch.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;

use super::process::free_port;
use super::wait::wait_until;

#[path = "../stub/mod.rs"]
pub mod stub;

use stub::StubServer;
#[allow(unused_imports, reason = "each test target uses its own part")]
pub use stub::{Answer, RequestView};

/// From the end of a gate until its port is free, and from its start until it listens.
const SWITCHED_WITHIN: Duration = Duration::from_secs(10);

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime"))
}

/// See the module.
pub struct Gate {
    port: u16,
    upstream: String,
    server: Mutex<StubServer>,
}

impl Gate {
    /// A gate on a free port before the server with this URL.
    pub fn before(upstream: &str) -> Self {
        let port = free_port();
        let upstream = upstream.trim_end_matches('/').to_owned();
        let server = Mutex::new(open(port, &upstream));
        Self { port, upstream, server }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on bulk requests get this answer; `None` is the real server's.
    pub fn answer(&self, script: impl Fn(&RequestView) -> Option<Answer> + Send + Sync + 'static) {
        let upstream = self.upstream.clone();
        self.with(|server| server.script(move |view| script(view).unwrap_or_else(|| Answer::Forward(upstream.clone()))));
    }

    /// From now on everything is answered by the real server, this much later.
    pub fn pass_after(&self, wait: Duration) {
        let upstream = self.upstream.clone();
        self.answer(move |_| Some(Answer::After(wait, Box::new(Answer::Forward(upstream.clone())))));
    }

    /// From now on everything is answered by the real server.
    pub fn pass(&self) {
        self.answer(|_| None);
    }

    /// How many bulk requests came since the start.
    pub fn requests(&self) -> usize {
        self.with(|server| server.request_count())
    }

    /// Cuts every connection and refuses new ones.
    pub fn kill(&self) {
        self.with(|server| server.stop());
        let address = format!("127.0.0.1:{}", self.port);
        wait_until("the gate's port is free", SWITCHED_WITHIN, || std::net::TcpStream::connect(&address).is_err().then_some(()));
    }

    /// The next life of a killed gate; everything passes.
    pub fn start_again(&self) {
        let server = open(self.port, &self.upstream);
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    fn with<T>(&self, act: impl FnOnce(&StubServer) -> T) -> T {
        act(&self.server.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open(port: u16, upstream: &str) -> StubServer {
    let server = runtime().block_on(StubServer::start_at(([127, 0, 0, 1], port).into()));
    server.forget_requests();
    let upstream = upstream.to_owned();
    server.script(move |_| Answer::Forward(upstream.clone()));
    server
}
