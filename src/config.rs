//! What a configuration file says: raw text → a tree with positions → a validated [`Config`].
//!
//! Guarantees: a [`Config`] is complete and legal; every problem of a file is reported at once, with its path, line, column and remedy; unknown keys of the native form are
//! errors, those of the collector's dialect warnings; secrets ([`Secret`]) never appear in a problem, in `Debug` or in a comparison's output; files that the configuration names can be opened.
//! Validation does no network I/O and reads no file but the configuration, what it names with `file:`, and the API's certificate and key. Which sources a topic has in the end is [`desired::merge`](crate::desired::merge)'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::topic::{SpecFields, TopicName};

mod address;
pub mod check;
mod dialect;
mod native;
mod properties;
mod reader;
pub(crate) use reader::parse_duration;
pub mod tls;
pub mod tokens;
mod topics;
mod tree;

/// The configuration file that nobody has to name.
pub const DEFAULT_PATH: &str = "config.yaml";

/// One thing that is wrong, with its place and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The place in the document, such as `topics[1].index`; empty for the file as a whole.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong.
    pub detail: String,
    /// What helps.
    pub remedy: String,
}

/// Why a file gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file has problems.
    #[error("{path} has {} problem(s)", .problems.len())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl LoadError {
    /// The problems found in the file; empty when it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

/// A configuration and what was noted about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The validated configuration.
    pub config: Config,
    /// What is worth a look but no error.
    pub warnings: Vec<Problem>,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub content_hash: String,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A validated configuration. Paths are absolute or relative to the working directory; durations and sizes are resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the API and the page listen.
    pub listen: SocketAddr,
    /// This instance's name; `None` means host name and port.
    pub instance: Option<String>,
    /// How other instances reach this one.
    pub advertise_url: Option<String>,
    /// The folder of the embedded store, the dead letters and the restart ledger.
    pub data_dir: PathBuf,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// Where documents go.
    pub sink: SinkConfig,
    /// etcd, when it is configured.
    pub etcd: Option<EtcdConfig>,
    /// Keys in etcd that hold topics in the collector's form.
    pub etcd_keys: Vec<String>,
    /// Dead letters.
    pub dead_letters: DeadLettersConfig,
    /// Supervision.
    pub supervision: SupervisionConfig,
    /// Bytes of memory for librdkafka's prefetch, records and bulk bodies together.
    pub memory: u64,
    /// The file with the API's tokens.
    pub tokens_file: Option<PathBuf>,
    /// TLS of the API.
    pub tls: Option<TlsConfig>,
    /// Host names under which the API answers, besides the loopback ones.
    pub allowed_hosts: Vec<String>,
    /// Limits of the HTTP server.
    pub http: HttpConfig,
    /// What readiness asks of the outside.
    pub readiness_require: Vec<Dependency>,
    /// Whether metrics carry the partition.
    pub metrics_per_partition: bool,
    /// The log filter.
    pub log_level: Option<String>,
    /// Spec fields for every topic.
    pub defaults: SpecFields,
    /// The topics that the file names, in its order.
    pub topics: Vec<FileTopic>,
}

/// Kafka's section.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port`.
    pub brokers: Vec<String>,
    /// The consumer group.
    pub group_id: String,
    /// Allow-listed librdkafka properties; any of them may be secret.
    pub properties: BTreeMap<String, Secret>,
}

/// Where documents go.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkConfig {
    /// Elasticsearch or OpenSearch.
    Elasticsearch(ElasticsearchConfig),
    /// Replayable bulk files.
    File {
        /// The folder.
        dir: PathBuf,
    },
}

/// The section of Elasticsearch or OpenSearch.
#[derive(Debug, Clone, PartialEq)]
pub struct ElasticsearchConfig {
    /// The nodes.
    pub urls: Vec<String>,
    /// How we say who we are.
    pub auth: SinkAuth,
    /// A private CA, PEM.
    pub ca_file: Option<PathBuf>,
    /// A client certificate and its key, PEM.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// Bytes of one bulk body.
    pub max_bytes: u64,
    /// How long a body waits to fill.
    pub linger: Duration,
    /// Requests at once.
    pub in_flight: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whether bodies are compressed.
    pub compression: Compression,
}

/// Credentials for the sink.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkAuth {
    /// None.
    Anonymous,
    /// User and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An API key, as the server prints it (base64 of `id:key`).
    ApiKey(Secret),
}

/// Compression of bulk bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Off,
    /// gzip, level 1.
    Gzip,
}

/// etcd's section.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdConfig {
    /// The members, as URLs.
    pub endpoints: Vec<String>,
    /// The prefix of our keys.
    pub prefix: String,
    /// User and password.
    pub credentials: Option<(String, Secret)>,
    /// A private CA, PEM.
    pub ca_file: Option<PathBuf>,
    /// A client certificate and its key, PEM.
    pub client_identity: Option<(PathBuf, PathBuf)>,
}

/// The dead letters' section.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLettersConfig {
    /// Where they are to be kept; see [`Config::dead_letter_store`].
    pub store: Option<DeadLetterStore>,
    /// The index, in the sink.
    pub index: String,
    /// Bytes that the store may hold.
    pub max_bytes: u64,
}

/// Where dead letters are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterStore {
    /// In the data directory.
    Local,
    /// In an index of the sink.
    Elasticsearch,
}

/// Supervision's section.
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisionConfig {
    /// Pending work without progress for this long is a stall.
    pub stall_after: Duration,
    /// The longest backoff.
    pub backoff_max: Duration,
    /// Crashes at one record before it is tried alone.
    pub crash_loop_after: u32,
    /// How long the whole shutdown may take.
    pub shutdown_timeout: Duration,
    /// How long a revoked partition may take to settle.
    pub drain_timeout: Duration,
}

/// The API's TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub key_file: PathBuf,
}

/// Limits of the HTTP server.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Whether probes answer without a token.
    pub open_probes: bool,
    /// Whether metrics answer without a token.
    pub open_metrics: bool,
    /// Connections at once.
    pub max_connections: usize,
    /// Bytes of a request's body.
    pub max_body: u64,
    /// How long a request's head may take.
    pub header_timeout: Duration,
}

/// A server that readiness may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// Kafka.
    Kafka,
    /// The sink.
    Sink,
    /// etcd.
    Etcd,
}

/// A topic that the file names at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct FileTopic {
    /// The topic.
    pub name: TopicName,
    /// The place, such as `topics[1]` or `collectlogs[0]`.
    pub place: String,
    /// The native entry's fields; `None` for an entry in the collector's dialect.
    pub native: Option<SpecFields>,
}

impl Config {
    /// Where dead letters are kept: where the configuration says, else in the sink with etcd, since a partition may move to another instance, and locally without. A sink that
    /// writes files has no index to keep them in.
    pub fn dead_letter_store(&self) -> DeadLetterStore {
        match (self.dead_letters.store, &self.etcd, &self.sink) {
            (Some(store), ..) => store,
            (None, Some(_), SinkConfig::Elasticsearch(_)) => DeadLetterStore::Elasticsearch,
            (None, ..) => DeadLetterStore::Local,
        }
    }

    /// Whether others than this machine can reach the API although it has no tokens.
    pub fn open_to_others(&self) -> bool {
        !self.listen.ip().is_loopback() && self.tokens_file.is_none()
    }

    /// The sections whose values differ and take effect only at a start.
    pub fn cold_differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            ("listen", self.listen == other.listen),
            ("instance", self.instance == other.instance),
            ("advertise_url", self.advertise_url == other.advertise_url),
            ("data_dir", self.data_dir == other.data_dir),
            ("kafka", self.kafka == other.kafka),
            (if matches!(self.sink, SinkConfig::File { .. }) { "sink" } else { "elasticsearch" }, self.sink == other.sink),
            ("etcd", self.etcd == other.etcd),
            ("dead_letters", self.dead_letters == other.dead_letters),
            ("supervision", self.supervision == other.supervision),
            ("limits", self.memory == other.memory),
            ("auth", self.tokens_file == other.tokens_file),
            ("tls", self.tls == other.tls),
            ("allowed_hosts", self.allowed_hosts == other.allowed_hosts),
            ("http", self.http == other.http),
            ("readiness", self.readiness_require == other.readiness_require),
            ("metrics", self.metrics_per_partition == other.metrics_per_partition),
            ("log_level", self.log_level == other.log_level),
        ];
        pairs.iter().filter(|(_, same)| !same).map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// Where values come from that the file only names.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment, with `variables` in front of it.
pub fn environment(variables: &BTreeMap<String, String>) -> impl Fn(&str) -> Option<String> {
    |name: &str| variables.get(name).cloned().or_else(|| std::env::var(name).ok())
}

/// The variable that stands for a demo's own cluster in the configuration of a demo, which sets it.
pub const DEMO_BROKERS: &str = "DROVER_DEMO_BROKERS";

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}; {remedy}")]
pub struct NoAddress {
    /// What it is instead.
    pub detail: String,
    /// What helps.
    pub remedy: String,
}

/// An address to listen on, with its port. A name is none: it may stand for several, and for others tomorrow.
pub fn listen_address(text: &str) -> Result<SocketAddr, NoAddress> {
    text.parse().map_err(|_| {
        let is_name = |host: &str| host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':');
        let name = text.rsplit_once(':').filter(|(host, port)| is_name(host) && port.parse::<u16>().is_ok());
        match name {
            Some((host, port)) => {
                let address = if host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { "ADDRESS" };
                let detail = "this is a name, and a name is no address to listen on".to_owned();
                NoAddress { detail, remedy: format!("write {address}:{port}; 0.0.0.0:{port} and [::]:{port} are all addresses of this host") }
            }
            None => NoAddress {
                detail: "this is not an address with a port".to_owned(),
                remedy: "write ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:8080".to_owned(),
            },
        }
    })
}

/// Reads and validates a file.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Loaded, LoadError> {
    let bytes = read(path)?;
    parse(&bytes, base_of(path), environment).map_err(|problems| LoadError::Invalid { path: path.to_owned(), problems })
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    read_regular_file(path, tree::MAX_BYTES).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })
}

/// The folder that relative paths in a file are relative to.
fn base_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Reads a file of at most `most` bytes.
fn read_regular_file(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular_file(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        return Err(refusal(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Opens a file for reading. A pipe would block and a device might never end, so both are refused.
fn open_regular_file(path: &Path) -> std::io::Result<std::fs::File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(refusal("it is not a regular file".to_owned()));
    }
    std::fs::File::open(path)
}

fn refusal(what: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, what)
}

/// Validates a file's bytes; relative paths in it are relative to `base`.
pub fn parse(bytes: &[u8], base: &Path, environment: Environment<'_>) -> Result<Loaded, Vec<Problem>> {
    let root = tree::parse(bytes).map_err(|problem| vec![problem])?;
    let mut reader = reader::Reader::new(base, environment);
    let config = native::read(&mut reader, &root);
    let (mut problems, mut warnings) = reader.finish();
    for list in [&mut problems, &mut warnings] {
        list.sort_by_key(|problem| (problem.line, problem.column));
    }
    let content_hash = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings, content_hash }),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod corpus_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let servers = "kafka: {brokers: ['a:1']}\nelasticsearch: {urls: ['http://e:1']}\n";
        parse(format!("{servers}{text}\n").as_bytes(), Path::new("."), &|_| None).expect("legal").config
    }

    #[test]
    fn a_name_is_told_that_it_is_no_address() {
        assert_eq!(listen_address("127.0.0.1:1").map(|address| address.to_string()), Ok("127.0.0.1:1".to_owned()));
        assert!(listen_address("[::1]:8080").is_ok());
        let told = |text: &str| listen_address(text).expect_err("no address").to_string();
        assert!(told("localhost:8080").contains("a name is no address to listen on; write 127.0.0.1:8080"), "{}", told("localhost:8080"));
        assert!(told("drover.example:80").contains("write ADDRESS:80; 0.0.0.0:80 and [::]:80 are all"), "{}", told("drover.example:80"));
        for text in ["", "8080", ":8080", "localhost", "localhost:99999", "127.0.0.1:70000", "::1:x", "1.2.3:80"] {
            assert!(told(text).starts_with("this is not an address with a port; write ADDRESS:PORT"), "{text}: {}", told(text));
        }
    }

    #[test]
    fn a_changed_log_level_that_has_no_effect_yet_is_listed() {
        let before = config("log_level: info");
        assert_eq!(before.cold_differences(&config("log_level: debug")), ["log_level"]);
        assert_eq!(before.cold_differences(&config("log_level: info")), [""; 0]);
    }
}
