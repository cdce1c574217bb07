//! The connection to etcd: one cheap-to-clone handle whose calls always end.
//!
//! Guarantees: every call ends within [`REQUEST_TIMEOUT`] per attempt; a call that was never sent is tried again at once, one that may have been sent only if it reads; a refused token is
//! renewed once per call; an error says whether the call was never sent, refused, or left without an answer. `ConnectOptions` holds the password and shows it in `Debug`, so it is never
//! formatted here. Knows no keys: those belong to the users.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, GetResponse, Identity, KeyValue, ResponseHeader, TlsOptions, Txn, TxnResponse,
    WatchOptions, WatchStream,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::SetupError;
use crate::config::EtcdConfig;

/// How long one attempt may take. Members answer within milliseconds, an election takes one to two seconds.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A server refuses pings that come more often than every 5 s (`DefaultGRPCKeepAliveMinTime`).
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A page or a watch message may hold many values of up to 1.5 MiB each; the client's own limit is 4 MiB.
const MAX_DECODED_BYTES: usize = 64 << 20;

/// The balancer goes on choosing a dead member, so a call that met it is repeated at once. With one of three members dead a quarter of all calls meet it.
const ATTEMPTS: u32 = 3;

/// What etcd gave or refused, as text. Never holds credentials: etcd does not repeat them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
#[error("{}", .fate.text())]
pub(super) struct CallError {
    /// What became of the call.
    pub(super) fate: Fate,
    /// Whether another member might answer at once.
    is_unavailable: bool,
    #[source]
    cause: Cause,
}

/// What became of a call without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There was no connection to send it on.
    NeverSent,
    /// etcd refused it, so it had no effect; after [`Refusal::NoSpace`] only if reading says so.
    Refused(Refusal),
    /// It was sent, or may have been, and nothing more is known.
    NoAnswer,
}

/// Why etcd refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The quota is used up.
    NoSpace,
    /// The token expired, or users were changed since it was given.
    Token,
    /// The answer is larger than we take.
    AnswerTooLarge,
    /// Anything else: permission, a request that is too large, a compacted revision.
    Other,
}

impl Fate {
    fn text(self) -> &'static str {
        match self {
            Self::NeverSent => "etcd cannot be reached",
            Self::Refused(Refusal::NoSpace) => {
                "etcd's space quota is used up: free it with etcdctl compact, then etcdctl defrag, then etcdctl alarm disarm, or raise --quota-backend-bytes"
            }
            Self::Refused(_) => "etcd refused the request",
            Self::NoAnswer => "etcd does not answer",
        }
    }
}

impl CallError {
    fn new(fate: Fate, cause: impl Into<String>) -> Self {
        Self { fate, is_unavailable: false, cause: Cause(cause.into()) }
    }

    /// No answer within the time for it.
    pub(super) fn timed_out() -> Self {
        Self::new(Fate::NoAnswer, "no answer in time")
    }

    /// An answer that breaks etcd's protocol, or a setting that cannot work.
    pub(super) fn nonsense(what: &str) -> Self {
        Self::new(Fate::Refused(Refusal::Other), what)
    }

    /// The error and its cause in one line.
    pub(super) fn line(&self) -> String {
        format!("{self}: {}", self.cause)
    }

    fn may_repeat(&self, effect: Effect) -> bool {
        match self.fate {
            Fate::NeverSent => true,
            Fate::NoAnswer => self.is_unavailable && effect == Effect::Reads,
            Fate::Refused(_) => false,
        }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        let Error::GRpcStatus(status) = error else {
            // The client's own errors come before anything is sent, except a broken transport, which comes as a status too.
            return Self::new(Fate::NoAnswer, error.to_string());
        };
        let code = i32::from(status.code());
        let cause = std::error::Error::source(&status);
        let fate = sort(code, status.message(), cause.is_some_and(never_connected));
        let deepest = cause.map(deepest_text).filter(|text| !status.message().contains(text.as_str()));
        let text = deepest.map_or_else(|| status.message().to_owned(), |text| format!("{}: {text}", status.message()));
        Self { fate, is_unavailable: code == UNAVAILABLE, cause: Cause(text) }
    }
}

// gRPC's status codes, https://grpc.github.io/grpc/core/md_doc_statuscodes.html
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// What became of a call that ended with this status. Pure. The texts are etcd's (`api/v3rpc/rpctypes/error.go`), which are part of its API.
fn sort(code: i32, message: &str, never_connected: bool) -> Fate {
    if never_connected {
        return Fate::NeverSent;
    }
    if message.contains("invalid auth token") || message.contains("revision of auth store is old") || message.contains("user name is empty") {
        return Fate::Refused(Refusal::Token);
    }
    match code {
        RESOURCE_EXHAUSTED if message.contains("database space exceeded") => Fate::Refused(Refusal::NoSpace),
        OUT_OF_RANGE if message.contains("message length too large") => Fate::Refused(Refusal::AnswerTooLarge),
        INVALID_ARGUMENT | NOT_FOUND | PERMISSION_DENIED | RESOURCE_EXHAUSTED | FAILED_PRECONDITION | OUT_OF_RANGE | UNIMPLEMENTED
        | UNAUTHENTICATED => Fate::Refused(Refusal::Other),
        _ => Fate::NoAnswer,
    }
}

/// Whether the cause is that no connection was made.
fn never_connected(cause: &(dyn std::error::Error + 'static)) -> bool {
    let mut current = Some(cause);
    while let Some(error) = current {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)) {
            return true;
        }
        // Texts of hyper-util's connector.
        let text = error.to_string();
        if text.starts_with("tcp connect error") || text.starts_with("dns error") {
            return true;
        }
        current = error.source();
    }
    false
}

fn deepest_text(cause: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = cause;
    while let Some(next) = deepest.source() {
        deepest = next;
    }
    deepest.to_string()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
}

/// The handle.
#[derive(Clone)]
pub(super) struct Etcd(Arc<Inner>);

struct Inner {
    endpoints: Vec<String>,
    options: ConnectOptions,
    /// The same without user and password.
    options_without_user: ConnectOptions,
    slot: Mutex<Slot>,
}

/// The present client; made at the first use, and anew when its token was refused.
#[derive(Default)]
struct Slot {
    generation: u64,
    client: Option<Client>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.0.endpoints).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Reads the files that the configuration names; connects to nothing.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, SetupError> {
        let options_without_user = options(config)?;
        let options = match &config.credentials {
            Some((user, password)) => options_without_user.clone().with_user(user.clone(), password.expose()),
            None => options_without_user.clone(),
        };
        Ok(Self(Arc::new(Inner { endpoints: config.endpoints.clone(), options, options_without_user, slot: Mutex::default() })))
    }

    /// A linearizable read, unless the options say otherwise.
    pub(super) async fn get(&self, key: impl Into<Vec<u8>>, options: GetOptions) -> Result<Answer, CallError> {
        let key = key.into();
        let response = self
            .call(Effect::Reads, |client| {
                let (key, options) = (key.clone(), options.clone());
                async move { client.kv_client().max_decoding_message_size(MAX_DECODED_BYTES).get(key, Some(options)).await }
            })
            .await?;
        Answer::new(response)
    }

    /// A transaction that may write.
    pub(super) async fn txn(&self, txn: Txn) -> Result<TxnResponse, CallError> {
        self.call(Effect::Writes, |client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        })
        .await
    }

    /// Opens a stream with one watcher. The client must be kept as long as the stream.
    pub(super) async fn watch(&self, key: impl Into<Vec<u8>>, options: WatchOptions) -> Result<(Client, WatchStream), CallError> {
        let key = key.into();
        self.call(Effect::Reads, |client| {
            let (key, options) = (key.clone(), options.clone());
            async move {
                let stream = client.watch_client().max_decoding_message_size(MAX_DECODED_BYTES).watch(key, Some(options)).await?;
                Ok((client, stream))
            }
        })
        .await
    }

    /// Makes the next call authenticate again.
    pub(super) async fn renew_token(&self) {
        let generation = self.0.slot.lock().await.generation;
        self.forget(generation).await;
    }

    async fn call<T, F, Fut>(&self, effect: Effect, send: F) -> Result<T, CallError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut attempt = 1;
        let mut token_is_new = false;
        loop {
            let (generation, client) = timeout(REQUEST_TIMEOUT, self.client()).await.map_err(|_| CallError::timed_out())??;
            let error = match timeout(REQUEST_TIMEOUT, send(client)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => CallError::from(error),
                Err(_) => CallError::timed_out(),
            };
            if error.fate == Fate::Refused(Refusal::Token) && !token_is_new {
                token_is_new = true;
                self.forget(generation).await;
                continue;
            }
            if attempt == ATTEMPTS || !error.may_repeat(effect) {
                return Err(error);
            }
            attempt += 1;
        }
    }

    async fn client(&self) -> Result<(u64, Client), CallError> {
        let mut slot = self.0.slot.lock().await;
        if let Some(client) = &slot.client {
            return Ok((slot.generation, client.clone()));
        }
        let client = self.connect().await?;
        slot.generation += 1;
        slot.client = Some(client.clone());
        Ok((slot.generation, client))
    }

    /// With credentials this authenticates, without it sends nothing.
    async fn connect(&self) -> Result<Client, CallError> {
        match Client::connect(&self.0.endpoints, Some(self.0.options.clone())).await {
            Ok(client) => Ok(client),
            // As etcd's own clients do: credentials are no error where etcd asks for none (yet).
            Err(Error::GRpcStatus(status)) if status.message().contains("authentication is not enabled") => {
                Ok(Client::connect(&self.0.endpoints, Some(self.0.options_without_user.clone())).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn forget(&self, generation: u64) {
        let mut slot = self.0.slot.lock().await;
        if slot.generation == generation {
            slot.client = None;
        }
    }
}

/// A read's answer whose header is there.
#[derive(Debug)]
pub(super) struct Answer {
    /// The header.
    pub(super) header: ResponseHeader,
    /// The entries.
    pub(super) kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub(super) more: bool,
    /// How many there are without the limit.
    pub(super) count: i64,
}

impl Answer {
    fn new(mut response: GetResponse) -> Result<Self, CallError> {
        let header = response.take_header().ok_or_else(|| CallError::nonsense("the answer has no header"))?;
        Ok(Self { header, more: response.more(), count: response.count(), kvs: response.take_kvs() })
    }
}

fn options(config: &EtcdConfig) -> Result<ConnectOptions, SetupError> {
    let options = ConnectOptions::new()
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        .with_keep_alive_while_idle(true)
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        // A member that lost its leader then breaks the watch, instead of keeping it silent for ever.
        .with_require_leader(true);
    let with_tls = config.endpoints.iter().filter(|endpoint| endpoint.starts_with("https://")).count();
    if with_tls == 0 {
        return Ok(options);
    }
    if with_tls < config.endpoints.len() {
        let cause = Cause("one client speaks to all members in the same way".to_owned());
        return Err(SetupError::new("etcd.endpoints has both http:// and https:// addresses", cause));
    }
    let mut tls = match &config.ca_file {
        Some(path) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem(path)?)),
        None => TlsOptions::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &config.client_identity {
        tls = tls.identity(Identity::from_pem(pem(certificate)?, pem(key)?));
    }
    Ok(options.with_tls(tls))
}

fn pem(path: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|error| SetupError::new(format!("cannot read {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoints: &[&str]) -> EtcdConfig {
        let endpoints = endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect();
        EtcdConfig { endpoints, prefix: "drover".to_owned(), credentials: None, ca_file: None, client_identity: None }
    }

    #[test]
    fn an_answer_that_is_a_refusal_is_not_an_unknown_outcome() {
        let cases = [
            (8, "etcdserver: mvcc: database space exceeded", Fate::Refused(Refusal::NoSpace)),
            (8, "etcdserver: too many requests", Fate::Refused(Refusal::Other)),
            (7, "etcdserver: permission denied", Fate::Refused(Refusal::Other)),
            (3, "etcdserver: request is too large", Fate::Refused(Refusal::Other)),
            (16, "etcdserver: invalid auth token", Fate::Refused(Refusal::Token)),
            (3, "etcdserver: revision of auth store is old", Fate::Refused(Refusal::Token)),
            (11, "etcdserver: mvcc: required revision has been compacted", Fate::Refused(Refusal::Other)),
            (11, "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes", Fate::Refused(Refusal::AnswerTooLarge)),
            (14, "etcdserver: request timed out", Fate::NoAnswer),
            (4, "context deadline exceeded", Fate::NoAnswer),
            (1, "Timeout expired", Fate::NoAnswer),
            (2, "h2 protocol error: broken pipe", Fate::NoAnswer),
        ];
        for (code, message, expected) in cases {
            assert_eq!(sort(code, message, false), expected, "{message}");
        }
        assert_eq!(sort(14, "tcp connect error", true), Fate::NeverSent);
    }

    #[test]
    fn a_write_that_may_have_been_sent_is_not_sent_again() {
        let unavailable = CallError { is_unavailable: true, ..CallError::new(Fate::NoAnswer, "broken pipe") };
        assert!(unavailable.may_repeat(Effect::Reads) && !unavailable.may_repeat(Effect::Writes));
        assert!(CallError::new(Fate::NeverSent, "refused").may_repeat(Effect::Writes));
        assert!(!CallError::timed_out().may_repeat(Effect::Reads), "a member that hangs costs the whole timeout each time");
        assert!(!CallError::nonsense("permission denied").may_repeat(Effect::Reads));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_call_that_was_never_sent() {
        let etcd = Etcd::new(&config(&["http://127.0.0.1:1"])).expect("legal");
        let error = etcd.txn(Txn::new()).await.expect_err("nobody listens");
        assert_eq!(error.fate, Fate::NeverSent, "{error:?}");
        assert!(error.line().contains("etcd cannot be reached: ") && error.line().contains("refused"), "{}", error.line());
    }

    #[tokio::test]
    async fn the_password_is_in_no_debug_text_and_no_error() {
        let mut config = config(&["http://127.0.0.1:1"]);
        config.credentials = Some(("root".to_owned(), crate::config::Secret::new("hunter2".to_owned())));
        let etcd = Etcd::new(&config).expect("legal");
        let error = etcd.get("a", GetOptions::new()).await.expect_err("nobody listens");
        assert!(!format!("{etcd:?} {error:?} {}", error.line()).contains("hunter2"));
    }

    #[test]
    fn members_with_and_without_tls_are_refused_together() {
        let error = Etcd::new(&config(&["http://a:1", "https://b:1"])).expect_err("mixed");
        assert!(error.to_string().contains("both http:// and https://"), "{error}");
    }

    #[test]
    fn a_missing_ca_file_is_named() {
        let config = EtcdConfig { ca_file: Some("/nowhere/ca.pem".into()), ..config(&["https://a:1"]) };
        assert!(Etcd::new(&config).expect_err("missing").to_string().contains("/nowhere/ca.pem"));
    }
}
