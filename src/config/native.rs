//! The native form of the configuration: every key, its default and its bounds.
//!
//! Guarantees that each value of a [`Config`] is within bounds and fits the others. A file may mix native keys with those of the [`dialect`]: a key at the top is native if it is
//! spelt exactly as one, else the dialect's if it is one in any case, else an error. Inside native sections unknown keys are errors; inside the dialect's they are warnings.
//! Owns the defaults. Reads nothing but the tree and, by the [`Reader`], what it names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::address::{self, Mistake};
use super::dialect::{self, Found, NativeSections};
use super::reader::{Placed, Reader, Section};
use super::tls::{self, TlsError};
use super::topics::{self, PlacedTopic};
use super::tree::Node;
use super::{
    Compression, Config, DeadLetterStore, DeadLettersConfig, Dependency, ElasticsearchConfig, EtcdConfig, HttpConfig, KafkaConfig, NoAddress, Secret,
    SinkAuth, SinkConfig, SupervisionConfig, TlsConfig, properties,
};
use crate::topic::{IndexTemplate, TopicName};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_GROUP: &str = "drover";
pub(super) const DEFAULT_ETCD_PREFIX: &str = "drover";
const DEFAULT_DEAD_LETTER_INDEX: &str = "drover-dead-letters";
const DEFAULT_DEAD_LETTER_BYTES: u64 = GIB;
const DEFAULT_BULK_BYTES: u64 = 8 * MIB;
/// Servers refuse bodies above `http.max_content_length`, which is 100 MiB unless it is changed.
const MAX_BULK_BYTES: u64 = 100 * MIB;
const DEFAULT_LINGER: Duration = Duration::from_millis(250);
const DEFAULT_IN_FLIGHT: usize = 2;
const DEFAULT_BULK_TIMEOUT: Duration = MINUTE;
const DEFAULT_MEMORY: u64 = 256 * MIB;
/// What the Kafka client may prefetch, which `limits.memory` has to hold beside the bulk bodies.
const PREFETCH_BYTES: u64 = 16 * MIB;

/// Reads the whole document. `None` when Kafka, the sink or the data directory is missing or wrong; every reason is reported. Other wrong values are reported and read as their defaults,
/// so that one pass finds all problems.
pub(super) fn read(reader: &mut Reader<'_>, root: &Node) -> Option<Config> {
    let mut top = reader.section("", root)?;
    let kafka_place = top.take("kafka");
    let elasticsearch_place = top.take("elasticsearch");
    let sink_place = top.take("sink");
    let etcd_place = top.take("etcd");
    let native_sink = if elasticsearch_place.is_some() { Some("elasticsearch") } else { sink_place.as_ref().map(|_| "sink") };
    let native = NativeSections { kafka: kafka_place.is_some(), sink: native_sink, etcd: etcd_place.is_some() };
    let dialect = dialect::read(reader, &mut top, native);

    let kafka = kafka(reader, root, kafka_place, dialect.brokers);
    let sink = sink(reader, root, elasticsearch_place, sink_place, dialect.urls);
    let is_etcd_named = etcd_place.is_some() || dialect.is_etcd_named;
    let etcd = etcd_place.and_then(|(path, node)| etcd(reader, &path, node)).or(dialect.etcd);
    if let Some((path, node)) = dialect.keys.as_ref().filter(|_| !is_etcd_named) {
        let detail = "keys in etcd are named and no etcd is: they are not read";
        reader.warning(node.problem(path, detail, "add etcdconfig: [HOST:2379], or remove them"));
    }

    let listen_place = top.take("listen");
    let listen = listen_place.as_ref().and_then(|(path, node)| listen_address(reader, path, node)).unwrap_or(DEFAULT_LISTEN);
    let instance = top.take("instance").and_then(|(path, node)| reader.name(&path, node));
    let advertise_url = top.take("advertise_url").and_then(|(path, node)| checked(reader, &path, node, address::url));
    let data_dir = match top.take("data_dir") {
        Some((path, node)) => reader.path(&path, node),
        None => Some(reader.beside("data")),
    };
    let log_level = top.take("log_level").and_then(|(path, node)| log_level(reader, &path, node)).or(dialect.log_level);
    let allowed_hosts = top.take("allowed_hosts").map(|(path, node)| checked_list(reader, &path, node, address::host)).unwrap_or_default();
    let dead_letters = dead_letters(reader, &mut top, sink.as_ref());
    let supervision = supervision(reader, &mut top);
    let memory = memory(reader, root, &mut top, sink.as_ref());
    let tokens_file = tokens_file(reader, &mut top);
    let tls = tls_files(reader, &mut top);
    let http = http(reader, &mut top);
    let readiness_require = readiness(reader, &mut top, is_etcd_named);
    let metrics_per_partition = metrics(reader, &mut top);

    let default_fields = reader.child(&mut top, "defaults");
    let defaults = topics::defaults(reader, default_fields);
    let topics_place = top.take("topics");
    let mut topics = topics_place.map(|(path, node)| topics::native(reader, &path, node)).unwrap_or_default();
    topics.extend(dialect.topics);
    topics.sort_by_key(|placed| placed.node.line);
    topics::check_indices(reader, &topics, &defaults);
    reader.refuse_unknown(&top);

    let config = Config {
        listen,
        instance,
        advertise_url,
        data_dir: data_dir?,
        kafka: kafka?,
        sink: sink?,
        etcd,
        etcd_keys: dialect.etcd_keys,
        dead_letters,
        supervision,
        memory,
        tokens_file,
        tls,
        allowed_hosts,
        http,
        readiness_require,
        metrics_per_partition,
        log_level,
        defaults,
        topics: topics.into_iter().map(|placed: PlacedTopic<'_>| placed.topic).collect(),
    };
    note(reader, root, &config, listen_place.as_ref());
    Some(config)
}

/// What is legal and yet worth a look.
fn note(reader: &mut Reader<'_>, root: &Node, config: &Config, listen: Option<&Placed<'_>>) {
    if let Some((path, node)) = listen.filter(|_| config.open_to_others()) {
        let detail = "others can reach this address and there are no tokens: drover run needs --insecure";
        reader.warning(node.problem(
            path,
            detail,
            "add auth: {tokens_file: FILE}, listen on a loopback address, or guard this one in another way and say --insecure",
        ));
    }
    if let Some((path, node)) = listen.filter(|_| !config.listen.ip().is_loopback() && config.tokens_file.is_some() && config.tls.is_none()) {
        let detail = "others can reach this address, and tokens go to it unencrypted";
        reader.warning(node.problem(path, detail, "add tls: {cert_file: FILE, key_file: FILE}, or listen on a loopback address behind a TLS proxy"));
    }
    if config.topics.is_empty() {
        reader.warning(root.problem("topics", "the file names no topics", "add topics: [{topic: NAME}]"));
    }
}

fn listen_address(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<SocketAddr> {
    let text = reader.text(path, node)?;
    let address = super::listen_address(&text);
    address.map_err(|NoAddress { detail, remedy }| reader.problem(node.problem(path, detail, remedy))).ok()
}

/// A text whose form is checked.
fn checked(reader: &mut Reader<'_>, path: &str, node: &Node, check: impl Fn(&str) -> Result<String, Mistake>) -> Option<String> {
    let text = reader.text(path, node)?;
    match check(&text) {
        Ok(accepted) => Some(accepted),
        Err(Mistake { detail, remedy }) => {
            reader.problem(node.problem(path, detail, remedy));
            None
        }
    }
}

fn checked_list(reader: &mut Reader<'_>, path: &str, node: &Node, check: impl Fn(&str) -> Result<String, Mistake>) -> Vec<String> {
    reader.list(path, node).into_iter().filter_map(|(path, item)| checked(reader, &path, item, &check)).collect()
}

/// A list of addresses that must not be empty.
fn addresses(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    owner: &Node,
    key: &'static str,
    missing: &Mistake,
    check: impl Fn(&str) -> Result<String, Mistake>,
) -> Option<Vec<String>> {
    let given = section.take(key);
    let Some((path, node)) = given else {
        reader.problem(owner.problem(&section.place_of(key), missing.detail, missing.remedy));
        return None;
    };
    let items = reader.list(&path, node);
    if matches!(&node.value, super::tree::Value::List(items) if items.is_empty()) {
        reader.problem(node.problem(&path, missing.detail, missing.remedy));
    }
    let accepted: Vec<String> = items.into_iter().filter_map(|(path, item)| checked(reader, &path, item, &check)).collect();
    if accepted.is_empty() { None } else { Some(accepted) }
}

fn kafka(reader: &mut Reader<'_>, root: &Node, given: Option<Placed<'_>>, dialect: Found<Vec<String>>) -> Option<KafkaConfig> {
    const MISSING: Mistake =
        Mistake { detail: "no Kafka brokers are named", remedy: "add brokers: [\"HOST:9092\"]; beside a kafka section kafkaconfig is not read" };
    let Some((path, node)) = given else {
        return match dialect {
            Found::Value(brokers) => Some(KafkaConfig { brokers, group_id: DEFAULT_GROUP.to_owned(), properties: Default::default() }),
            Found::Wrong => None,
            Found::Absent => {
                reader.problem(root.problem("kafka.brokers", MISSING.detail, "add kafka: {brokers: [\"HOST:9092\"]}"));
                None
            }
        };
    };
    let mut section = reader.section(&path, node)?;
    let brokers = addresses(reader, &mut section, node, "brokers", &MISSING, address::host_port);
    let group_id = section.take("group_id").map_or_else(|| Some(DEFAULT_GROUP.to_owned()), |(path, node)| reader.name(&path, node));
    let properties = section.take("properties").map(|(path, node)| properties::read(reader, &path, node)).unwrap_or_default();
    reader.refuse_unknown(&section);
    Some(KafkaConfig { brokers: brokers?, group_id: group_id?, properties })
}

fn sink(
    reader: &mut Reader<'_>,
    root: &Node,
    elasticsearch_place: Option<Placed<'_>>,
    file_place: Option<Placed<'_>>,
    dialect: Found<Vec<String>>,
) -> Option<SinkConfig> {
    if let (Some((_, elasticsearch)), Some((path, file))) = (&elasticsearch_place, &file_place) {
        let detail = format!("'sink' is given together with 'elasticsearch' on line {}", elasticsearch.line);
        reader.problem(file.problem(path, detail, "keep one of the two"));
    }
    let file = file_place.as_ref().and_then(|(path, node)| file_sink(reader, path, node));
    if let Some((path, node)) = elasticsearch_place {
        return elasticsearch(reader, &path, node).map(SinkConfig::Elasticsearch);
    }
    if file_place.is_some() {
        return file;
    }
    match dialect {
        Found::Value(urls) => Some(SinkConfig::Elasticsearch(ElasticsearchConfig::new(urls))),
        Found::Wrong => None,
        Found::Absent => {
            let detail = "nothing says where documents go";
            reader.problem(root.problem(
                "elasticsearch.urls",
                detail,
                "add elasticsearch: {urls: [\"http://HOST:9200\"]}, or sink: {file: FOLDER} to write files",
            ));
            None
        }
    }
}

fn file_sink(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<SinkConfig> {
    let mut section = reader.section(path, node)?;
    let file = section.take("file");
    reader.refuse_unknown(&section);
    let Some((path, node)) = file else {
        reader.problem(node.problem(
            &section.place_of("file"),
            "the folder is missing",
            "write file: FOLDER, or remove sink and configure elasticsearch",
        ));
        return None;
    };
    reader.path(&path, node).map(|dir| SinkConfig::File { dir })
}

impl ElasticsearchConfig {
    /// Anonymous access to one node, everything else as built in.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, and what helps.
    pub fn at(url: &str) -> Result<Self, String> {
        match address::url(url) {
            Ok(url) => Ok(Self::new(vec![url])),
            Err(Mistake { detail, remedy }) => Err(format!("{detail}; {remedy}")),
        }
    }

    /// Anonymous access to `urls`, everything else as built in.
    fn new(urls: Vec<String>) -> Self {
        Self {
            urls,
            auth: SinkAuth::Anonymous,
            ca_file: None,
            client_identity: None,
            max_bytes: DEFAULT_BULK_BYTES,
            linger: DEFAULT_LINGER,
            in_flight: DEFAULT_IN_FLIGHT,
            timeout: DEFAULT_BULK_TIMEOUT,
            compression: Compression::Off,
        }
    }
}

fn elasticsearch(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<ElasticsearchConfig> {
    const MISSING: Mistake = Mistake {
        detail: "no address of Elasticsearch is named",
        remedy: "add urls: [\"http://HOST:9200\"]; beside an elasticsearch section elasticconfig is not read",
    };
    let mut section = reader.section(path, node)?;
    let urls = addresses(reader, &mut section, node, "urls", &MISSING, address::url);
    let auth = sink_auth(reader, &mut section);
    let ca_file = section.take("ca_file").and_then(|(path, node)| reader.file(&path, node));
    let client_identity = client_identity(reader, &mut section);
    let mut bulk = reader.child(&mut section, "bulk");
    reader.refuse_unknown(&section);

    let defaults = ElasticsearchConfig::new(Vec::new());
    let max_bytes = bulk.take("max_bytes").and_then(|(path, node)| reader.size(&path, node, 64 * KIB, MAX_BULK_BYTES));
    let linger = bulk.take("linger").and_then(|(path, node)| reader.duration(&path, node, Duration::ZERO, MINUTE));
    let in_flight = bulk.take("in_flight").and_then(|(path, node)| count(reader, &path, node, 64));
    let timeout = bulk.take("timeout").and_then(|(path, node)| reader.duration(&path, node, SECOND, HOUR));
    let compression = bulk.take("compression").and_then(|(path, node)| compression(reader, &path, node));
    reader.refuse_unknown(&bulk);

    let urls = urls?;
    if auth != SinkAuth::Anonymous && urls.iter().any(|url| address::is_plain_and_remote(url)) {
        let detail = "credentials are sent unencrypted: one of the URLs is http and not on this machine";
        reader.warning(node.problem(path, detail, "use https"));
    }
    Some(ElasticsearchConfig {
        urls,
        auth,
        ca_file,
        client_identity,
        max_bytes: max_bytes.unwrap_or(defaults.max_bytes),
        linger: linger.unwrap_or(defaults.linger),
        in_flight: in_flight.unwrap_or(defaults.in_flight),
        timeout: timeout.unwrap_or(defaults.timeout),
        compression: compression.unwrap_or(defaults.compression),
    })
}

fn compression(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<Compression> {
    match reader.text(path, node)?.to_ascii_lowercase().as_str() {
        "off" | "none" | "false" | "no" => Some(Compression::Off),
        "gzip" => Some(Compression::Gzip),
        _ => {
            reader.problem(node.problem(path, "this is no compression that drover knows", "write off or gzip"));
            None
        }
    }
}

/// A number from 1.
fn count(reader: &mut Reader<'_>, path: &str, node: &Node, most: u64) -> Option<usize> {
    reader.number(path, node, 1, most).and_then(|number| usize::try_from(number).ok())
}

fn sink_auth(reader: &mut Reader<'_>, section: &mut Section<'_>) -> SinkAuth {
    let has_basic = section.has("username") || section.has("password");
    let user = section.take("username");
    let basic = credentials(reader, section);
    if let (Some((name, _)), Some((path, node))) = (&basic, user)
        && name.contains(':')
    {
        reader.problem(node.problem(&path, "a username must not contain ':'", "HTTP ends the name at the first colon; use another user"));
    }
    let Some((path, node)) = section.take("api_key") else {
        return basic.map_or(SinkAuth::Anonymous, |(username, password)| SinkAuth::Basic { username, password });
    };
    if has_basic {
        reader.problem(node.problem(&path, "api_key is given together with username or password", "keep one of the two"));
    }
    let Some(key) = reader.secret(&path, node) else { return SinkAuth::Anonymous };
    if !key.expose().chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_')) {
        let remedy = "write the value that the server printed as `encoded`: base64 of id:key";
        reader.problem(node.problem(&path, "this is not an encoded API key", remedy));
    }
    SinkAuth::ApiKey(key)
}

/// Two keys that only make sense together. Reports the one that is missing.
fn pair<'n>(reader: &mut Reader<'_>, section: &mut Section<'n>, first: &'static str, second: &'static str) -> Option<(Placed<'n>, Placed<'n>)> {
    let (first_place, second_place) = (section.take(first), section.take(second));
    let (given, missing) = match (first_place, second_place) {
        (Some(first_place), Some(second_place)) => return Some((first_place, second_place)),
        (None, None) => return None,
        (Some((_, node)), None) => ((first, node), second),
        (None, Some((_, node))) => ((second, node), first),
    };
    let (name, node) = given;
    reader.problem(node.problem(
        &section.place_of(missing),
        format!("{name} is given and {missing} is missing"),
        format!("add {missing}, or remove {name}"),
    ));
    None
}

fn credentials(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Option<(String, Secret)> {
    let ((user_path, user_node), (password_path, password_node)) = pair(reader, section, "username", "password")?;
    let username = reader.name(&user_path, user_node);
    let password = reader.secret(&password_path, password_node);
    Some((username?, password?))
}

fn client_identity(reader: &mut Reader<'_>, section: &mut Section<'_>) -> Option<(PathBuf, PathBuf)> {
    let ((cert_path, cert_node), (key_path, key_node)) = pair(reader, section, "client_cert", "client_key")?;
    let certificate = reader.file(&cert_path, cert_node);
    let key = reader.file(&key_path, key_node);
    Some((certificate?, key?))
}

fn etcd(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<EtcdConfig> {
    const MISSING: Mistake = Mistake { detail: "no etcd members are named", remedy: "add endpoints: [\"http://HOST:2379\"]" };
    let mut section = reader.section(path, node)?;
    let endpoints = addresses(reader, &mut section, node, "endpoints", &MISSING, address::url);
    let prefix = section.take("prefix").map_or_else(|| Some(DEFAULT_ETCD_PREFIX.to_owned()), |(path, node)| etcd_prefix(reader, &path, node));
    let credentials = credentials(reader, &mut section);
    let ca_file = section.take("ca_file").and_then(|(path, node)| reader.file(&path, node));
    let client_identity = client_identity(reader, &mut section);
    reader.refuse_unknown(&section);
    Some(EtcdConfig { endpoints: endpoints?, prefix: prefix?, credentials, ca_file, client_identity })
}

fn etcd_prefix(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<String> {
    let text = reader.name(path, node)?;
    if text.split('/').skip(usize::from(text.starts_with('/'))).any(str::is_empty) {
        reader.problem(node.problem(path, "the prefix ends in a slash or has two in a row", "write it as drover or /team/drover"));
        return None;
    }
    Some(text)
}

fn dead_letters(reader: &mut Reader<'_>, top: &mut Section<'_>, sink: Option<&SinkConfig>) -> DeadLettersConfig {
    let mut section = reader.child(top, "dead_letters");
    let store_place = section.take("store");
    let store = store_place.as_ref().and_then(|(path, node)| dead_letter_store(reader, path, node));
    if let (Some(DeadLetterStore::Elasticsearch), Some(SinkConfig::File { .. }), Some((path, node))) = (store, sink, &store_place) {
        let detail = "dead letters are to go into an index, and the sink writes files";
        reader.problem(node.problem(path, detail, "write store: local, or configure elasticsearch instead of sink"));
    }
    let index = section.take("index").and_then(|(path, node)| plain_index(reader, &path, node));
    let max_bytes = section.take("max_bytes").and_then(|(path, node)| reader.size(&path, node, MIB, 1024 * GIB));
    reader.refuse_unknown(&section);
    DeadLettersConfig {
        store,
        index: index.unwrap_or_else(|| DEFAULT_DEAD_LETTER_INDEX.to_owned()),
        max_bytes: max_bytes.unwrap_or(DEFAULT_DEAD_LETTER_BYTES),
    }
}

fn dead_letter_store(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<DeadLetterStore> {
    match reader.text(path, node)?.as_str() {
        "local" => Some(DeadLetterStore::Local),
        "elasticsearch" => Some(DeadLetterStore::Elasticsearch),
        _ => {
            reader.problem(node.problem(path, "this is no store of dead letters", "write local or elasticsearch"));
            None
        }
    }
}

/// The name of one index: legal as it stands, without placeholders.
fn plain_index(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<String> {
    let text = reader.text(path, node)?;
    let any_topic = TopicName::new("t").ok()?;
    let is_legal = !text.contains(['{', '}']) && IndexTemplate::parse(&text).is_ok_and(|template| template.render(&any_topic, None) == text);
    if !is_legal {
        let remedy = "write one name in lower case, without placeholders, that begins with a letter or a digit";
        reader.problem(node.problem(path, "this is not the name of an index", remedy));
        return None;
    }
    Some(text)
}

fn supervision(reader: &mut Reader<'_>, top: &mut Section<'_>) -> SupervisionConfig {
    let mut section = reader.child(top, "supervision");
    let stall_after = section.take("stall_after").and_then(|(path, node)| reader.duration(&path, node, SECOND, DAY));
    let backoff_max = section.take("backoff_max").and_then(|(path, node)| reader.duration(&path, node, 100 * MILLISECOND, DAY));
    let crash_loop_after = section.take("crash_loop_after").and_then(|(path, node)| reader.number(&path, node, 1, 1000));
    let shutdown_timeout = section.take("shutdown_timeout").and_then(|(path, node)| reader.duration(&path, node, SECOND, HOUR));
    let drain_place = section.take("drain_timeout");
    let drain_timeout = drain_place.as_ref().and_then(|(path, node)| reader.duration(path, node, 100 * MILLISECOND, 10 * MINUTE));
    reader.refuse_unknown(&section);
    let config = SupervisionConfig {
        stall_after: stall_after.unwrap_or(MINUTE),
        backoff_max: backoff_max.unwrap_or(5 * MINUTE),
        crash_loop_after: crash_loop_after.and_then(|number| u32::try_from(number).ok()).unwrap_or(5),
        shutdown_timeout: shutdown_timeout.unwrap_or(25 * SECOND),
        drain_timeout: drain_timeout.unwrap_or(5 * SECOND),
    };
    if let Some((path, node)) = drain_place.filter(|_| config.drain_timeout > config.shutdown_timeout) {
        let detail = format!("drain_timeout is longer than shutdown_timeout ({:?}), inside of which it has to end", config.shutdown_timeout);
        reader.problem(node.problem(&path, detail, "make it shorter, or shutdown_timeout longer"));
    }
    config
}

fn memory(reader: &mut Reader<'_>, root: &Node, top: &mut Section<'_>, sink: Option<&SinkConfig>) -> u64 {
    let mut section = reader.child(top, "limits");
    let place = section.take("memory");
    let memory = place.as_ref().and_then(|(path, node)| reader.size(path, node, 32 * MIB, 1024 * GIB)).unwrap_or(DEFAULT_MEMORY);
    reader.refuse_unknown(&section);
    let Some(SinkConfig::Elasticsearch(sink)) = sink else { return memory };
    let bodies = sink.max_bytes.saturating_mul(u64::try_from(sink.in_flight).unwrap_or(u64::MAX));
    let needed = PREFETCH_BYTES.saturating_add(bodies);
    if needed > memory {
        let detail = format!(
            "{memory} bytes are too few: elasticsearch.bulk asks for {} bodies of {} bytes, and Kafka's prefetch takes {PREFETCH_BYTES}",
            sink.in_flight, sink.max_bytes
        );
        let remedy = format!("set limits.memory to at least {needed}, or make elasticsearch.bulk.max_bytes or in_flight smaller");
        let problem = match &place {
            Some((path, node)) => node.problem(path, detail, remedy),
            None => root.problem("limits.memory", detail, remedy),
        };
        reader.problem(problem);
    }
    memory
}

fn tokens_file(reader: &mut Reader<'_>, top: &mut Section<'_>) -> Option<PathBuf> {
    let mut section = reader.child(top, "auth");
    let place = section.take("tokens_file");
    reader.refuse_unknown(&section);
    let (path, node) = place?;
    reader.file(&path, node)
}

fn tls_files(reader: &mut Reader<'_>, top: &mut Section<'_>) -> Option<TlsConfig> {
    let (path, node) = top.take("tls")?;
    let mut section = reader.section(&path, node)?;
    let pair = pair(reader, &mut section, "cert_file", "key_file");
    reader.refuse_unknown(&section);
    let ((cert_path, cert_node), (key_path, key_node)) = pair?;
    let cert_file = reader.file(&cert_path, cert_node);
    let key_file = reader.file(&key_path, key_node);
    let config = TlsConfig { cert_file: cert_file?, key_file: key_file? };
    match tls::load(&config) {
        Ok(_) => {}
        Err(TlsError::Certificate(detail)) => {
            reader.problem(cert_node.problem(&cert_path, detail, "name a PEM file with the certificate and those that lead to the authority's"))
        }
        Err(TlsError::Key(detail)) => {
            reader.problem(key_node.problem(&key_path, detail, "name a PEM file with the certificate's own key, without a passphrase"))
        }
    }
    Some(config)
}

fn http(reader: &mut Reader<'_>, top: &mut Section<'_>) -> HttpConfig {
    let mut section = reader.child(top, "http");
    let open_probes = section.take("open_probes").and_then(|(path, node)| reader.boolean(&path, node));
    let open_metrics = section.take("open_metrics").and_then(|(path, node)| reader.boolean(&path, node));
    let max_connections = section.take("max_connections").and_then(|(path, node)| count(reader, &path, node, 65_536));
    let max_body = section.take("max_body").and_then(|(path, node)| reader.size(&path, node, KIB, 16 * MIB));
    let header_timeout = section.take("header_timeout").and_then(|(path, node)| reader.duration(&path, node, 100 * MILLISECOND, 5 * MINUTE));
    reader.refuse_unknown(&section);
    HttpConfig {
        open_probes: open_probes.unwrap_or(true),
        open_metrics: open_metrics.unwrap_or(true),
        max_connections: max_connections.unwrap_or(1024),
        max_body: max_body.unwrap_or(64 * KIB),
        header_timeout: header_timeout.unwrap_or(10 * SECOND),
    }
}

fn readiness(reader: &mut Reader<'_>, top: &mut Section<'_>, is_etcd_named: bool) -> Vec<Dependency> {
    let mut section = reader.child(top, "readiness");
    let place = section.take("require");
    reader.refuse_unknown(&section);
    let mut required = Vec::new();
    for (path, item) in place.map(|(path, node)| reader.list(&path, node)).unwrap_or_default() {
        let Some(text) = reader.text(&path, item) else { continue };
        let dependency = match text.as_str() {
            "kafka" => Dependency::Kafka,
            "sink" => Dependency::Sink,
            "etcd" => Dependency::Etcd,
            _ => {
                reader.problem(item.problem(&path, "readiness knows no such server", "write kafka, sink or etcd"));
                continue;
            }
        };
        if dependency == Dependency::Etcd && !is_etcd_named {
            reader.problem(item.problem(&path, "readiness waits for etcd and none is configured", "remove it, or add an etcd section"));
        }
        if !required.contains(&dependency) {
            required.push(dependency);
        }
    }
    required
}

fn metrics(reader: &mut Reader<'_>, top: &mut Section<'_>) -> bool {
    let mut section = reader.child(top, "metrics");
    let per_partition = section.take("per_partition").and_then(|(path, node)| reader.boolean(&path, node));
    reader.refuse_unknown(&section);
    per_partition.unwrap_or(true)
}

/// A level, or `TARGET=LEVEL` several times. The filter itself would take any word for a target and then log nothing else.
fn log_level(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = reader.text(path, node)?.to_ascii_lowercase();
    let is_target = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'));
    let is_legal = text.split(',').all(|part| match part.trim().split_once('=') {
        None => LEVELS.contains(&part.trim()),
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
    });
    if !is_legal {
        reader.problem(node.problem(
            path,
            "this is not a level of the log",
            "write error, warn, info, debug or trace, or info,drover::kafka=debug for a part",
        ));
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::tree::Value;
    use crate::config::{Loaded, Problem, parse};
    use crate::topic::{Format, Start};

    const SERVERS: &str = "kafka: {brokers: ['a:1']}\nelasticsearch: {urls: ['http://e:1']}\n";
    const EXAMPLE: &str = include_str!("../../config.example.yaml");
    const SECRET: &str = "hunter2";

    fn environment(name: &str) -> Option<String> {
        match name {
            "PASSWORD" | "DROVER_KAFKA_PASSWORD" | "DROVER_ES_PASSWORD" | "DROVER_ETCD_PASSWORD" | "DROVER_ES_API_KEY" => Some(SECRET.to_owned()),
            "LOOKS_LIKE_A_FILE" => Some("file:/nowhere".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
        parse(text.as_bytes(), Path::new("/etc/drover"), &environment)
    }

    /// The problems of a file that is wrong; each has a place and a remedy.
    fn problems(text: &str) -> Vec<Problem> {
        let problems = load(text).expect_err(text);
        assert!(!problems.is_empty(), "{text}");
        for problem in &problems {
            assert!(problem.line > 0 && problem.column > 0 && !problem.detail.is_empty() && !problem.remedy.is_empty(), "{text}: {problem:?}");
        }
        problems
    }

    fn places(text: &str) -> Vec<(String, u32)> {
        problems(text).into_iter().map(|problem| (problem.path, problem.line)).collect()
    }

    /// The example with every line in use that is commented out.
    fn whole_example() -> String {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with("# ") && (rest.starts_with("  ") || rest.starts_with(|c: char| c.is_ascii_lowercase())) => {
                rest.to_owned()
            }
            _ => line.to_owned(),
        };
        EXAMPLE.lines().map(uncomment).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_minimal_file_has_the_documented_defaults() {
        let config = load(&format!("{SERVERS}topics: [{{topic: t}}]\n")).expect("legal").config;
        let SinkConfig::Elasticsearch(sink) = &config.sink else { panic!("a server") };
        assert_eq!((config.listen.to_string().as_str(), config.data_dir.as_path()), ("127.0.0.1:8080", Path::new("/etc/drover/data")));
        assert_eq!((config.kafka.group_id.as_str(), config.kafka.properties.len()), ("drover", 0));
        assert_eq!((sink.max_bytes, sink.linger, sink.in_flight, sink.timeout), (8 << 20, Duration::from_millis(250), 2, Duration::from_secs(60)));
        assert_eq!((sink.compression, &sink.auth), (Compression::Off, &SinkAuth::Anonymous));
        let supervision = &config.supervision;
        assert_eq!((supervision.stall_after, supervision.backoff_max), (Duration::from_secs(60), Duration::from_secs(300)));
        assert_eq!(
            (supervision.crash_loop_after, supervision.shutdown_timeout, supervision.drain_timeout),
            (5, Duration::from_secs(25), Duration::from_secs(5))
        );
        assert_eq!((config.memory, config.dead_letters.max_bytes, config.dead_letters.store), (256 << 20, 1 << 30, None));
        assert_eq!(config.dead_letters.index, "drover-dead-letters");
        let http = &config.http;
        assert_eq!((http.open_probes, http.open_metrics, http.max_connections, http.max_body), (true, true, 1024, 65_536));
        assert_eq!((http.header_timeout, config.metrics_per_partition, config.readiness_require.len()), (Duration::from_secs(10), true, 0));
    }

    #[test]
    fn the_example_loads_and_gives_the_defaults() {
        let loaded = load(EXAMPLE).expect("the example");
        assert_eq!(loaded.warnings, []);
        let config = loaded.config;
        let topics: Vec<_> = config.topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(topics, ["golang_log", "orders"]);
        let minimal = load("kafka: {brokers: ['127.0.0.1:9092']}\nelasticsearch: {urls: ['http://127.0.0.1:9200']}\n").expect("legal").config;
        let shown = Config {
            topics: Vec::new(),
            defaults: Default::default(),
            log_level: None,
            dead_letters: DeadLettersConfig { store: None, ..config.dead_letters.clone() },
            ..config.clone()
        };
        assert_eq!(shown, minimal);
        assert_eq!(config.defaults.start, Some(Start::Earliest));
    }

    #[test]
    fn a_field_that_the_example_does_not_show_is_named() {
        let whole = whole_example();
        let root = super::super::tree::parse(whole.as_bytes()).expect("YAML");
        let mut shown = Vec::new();
        paths("", &root, &mut shown);
        let sections = [
            (
                "",
                "listen instance advertise_url data_dir log_level kafka elasticsearch sink etcd dead_letters supervision limits defaults topics auth tls allowed_hosts http readiness metrics",
            ),
            ("kafka.", "brokers group_id properties"),
            ("elasticsearch.", "urls username password api_key ca_file client_cert client_key bulk"),
            ("elasticsearch.bulk.", "max_bytes linger in_flight timeout compression"),
            ("sink.", "file"),
            ("etcd.", "endpoints prefix username password ca_file client_cert client_key"),
            ("dead_letters.", "store index max_bytes"),
            ("supervision.", "stall_after backoff_max crash_loop_after shutdown_timeout drain_timeout"),
            ("limits.", "memory"),
            ("defaults.", "start"),
            ("topics[].", "topic index format metadata operation pipeline tombstones on_reject labels"),
            ("auth.", "tokens_file"),
            ("tls.", "cert_file key_file"),
            ("http.", "open_probes open_metrics max_connections max_body header_timeout"),
            ("readiness.", "require"),
            ("metrics.", "per_partition"),
        ];
        for (section, keys) in sections {
            for key in keys.split(' ') {
                assert!(shown.contains(&format!("{section}{key}")), "{section}{key} is not shown");
            }
        }
        // With every field in use, only what excludes each other and what is not there is wrong: the fields are all known and their values legal.
        let wrong: Vec<String> = places(&whole).into_iter().map(|(path, _)| path).collect();
        let expected = [
            "kafka.properties.ssl.ca.location",
            "elasticsearch.api_key",
            "elasticsearch.ca_file",
            "elasticsearch.client_cert",
            "elasticsearch.client_key",
            "sink",
            "etcd.ca_file",
            "etcd.client_cert",
            "etcd.client_key",
            "auth.tokens_file",
            "tls.cert_file",
            "tls.key_file",
        ];
        assert_eq!(wrong, expected);
    }

    fn paths(prefix: &str, node: &Node, out: &mut Vec<String>) {
        match &node.value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    let path = format!("{prefix}{}", key.text().unwrap_or_default());
                    match &value.value {
                        Value::Map(_) => paths(&format!("{path}."), value, out),
                        Value::List(items) => items.iter().for_each(|item| paths(&format!("{path}[]."), item, out)),
                        Value::Scalar { .. } => {}
                    }
                    out.push(path);
                }
            }
            Value::List(_) | Value::Scalar { .. } => {}
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_helps() {
        for text in ["", "# only a comment\n", "---\n", "topics: [{topic: t}]\n", "kafka:\nelasticsearch: ~\n"] {
            let found = problems(text);
            let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, ["kafka.brokers", "elasticsearch.urls"], "{text:?}");
            assert!(found[0].remedy.contains("kafka:") && found[1].remedy.contains("elasticsearch:"), "{found:?}");
        }
        assert_eq!(problems("kafka: {brokers: []}\nelasticsearch: {urls: []}\n").len(), 2);
    }

    #[test]
    fn a_document_that_is_no_mapping_is_refused() {
        for text in ["[a]", "just a text", "- topic: t\n", "%YAML 1.2\n---\n- a\n", "a: b: c\n", "{"] {
            assert_eq!(problems(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn every_wrong_value_has_its_place() {
        for (text, path) in [
            ("listen: 8080", "listen"),
            ("listen: localhost:8080", "listen"),
            ("listen: 127.0.0.1:70000", "listen"),
            ("instance: ''", "instance"),
            ("instance: [a]", "instance"),
            ("advertise_url: host:80", "advertise_url"),
            ("data_dir: ''", "data_dir"),
            ("data_dir: {a: b}", "data_dir"),
            ("log_level: loud", "log_level"),
            ("log_level: drover=loud", "log_level"),
            ("dead_letters: {store: s3}", "dead_letters.store"),
            ("dead_letters: {store: elasticsearch, size: 1}", "dead_letters.size"),
            ("dead_letters: {index: Dead}", "dead_letters.index"),
            ("dead_letters: {index: 'dead-{date}'}", "dead_letters.index"),
            ("dead_letters: {index: '..'}", "dead_letters.index"),
            ("dead_letters: {max_bytes: -1}", "dead_letters.max_bytes"),
            ("dead_letters: {max_bytes: 1e9}", "dead_letters.max_bytes"),
            ("dead_letters: {max_bytes: .nan}", "dead_letters.max_bytes"),
            ("supervision: {stall_after: 60}", "supervision.stall_after"),
            ("supervision: {stall_after: 0s}", "supervision.stall_after"),
            ("supervision: {backoff_max: 1.5m}", "supervision.backoff_max"),
            ("supervision: {crash_loop_after: 0}", "supervision.crash_loop_after"),
            ("supervision: {crash_loop_after: 0x10}", "supervision.crash_loop_after"),
            ("supervision: {crash_loop_after: 1_000}", "supervision.crash_loop_after"),
            ("supervision: {shutdown_timeout: 99999999999999999999h}", "supervision.shutdown_timeout"),
            ("supervision: {drain_timeout: 30s}", "supervision.drain_timeout"),
            ("supervision: fast", "supervision"),
            ("supervision: []", "supervision"),
            ("limits: {memory: 1KiB}", "limits.memory"),
            ("limits: {memory: lots}", "limits.memory"),
            ("http: {max_connections: 0}", "http.max_connections"),
            ("http: {open_probes: maybe}", "http.open_probes"),
            ("http: {max_body: 1GiB}", "http.max_body"),
            ("readiness: {require: kafka}", "readiness.require"),
            ("readiness: {require: [redis]}", "readiness.require[0]"),
            ("readiness: {require: [kafka, etcd]}", "readiness.require[1]"),
            ("metrics: {per_partition: 2}", "metrics.per_partition"),
            ("allowed_hosts: ['http://h']", "allowed_hosts[0]"),
            ("etcd: {prefix: a}", "etcd.endpoints"),
            ("etcd: {endpoints: ['http://h:1'], prefix: a//b}", "etcd.prefix"),
            ("etcd: {endpoints: ['http://h:1'], username: a}", "etcd.password"),
            ("defaults: {start: yesterday}", "defaults.start"),
            ("defaults: {topic: t}", "defaults.topic"),
            ("topics: {topic: t}", "topics"),
            ("topics: [t]", "topics[0]"),
            ("topics: [~]", "topics[0]"),
            ("topics: [[t]]", "topics[0]"),
            ("topics: [{index: a}]", "topics[0].topic"),
            ("topics: [{topic: [a]}]", "topics[0].topic"),
            ("topics: [{topic: {a: b}}]", "topics[0].topic"),
            ("topics: [{topic: ''}]", "topics[0].topic"),
            ("topics: [{topic: 'a b'}]", "topics[0].topic"),
            ("topics: [{topic: '..'}]", "topics[0].topic"),
            ("topics: [{topic: __consumer_offsets}]", "topics[0].topic"),
            ("topics: [{topic: 日志}]", "topics[0].topic"),
            ("topics: [{topic: t, format: xml}]", "topics[0].format"),
            ("topics: [{topic: t, metadata: maybe}]", "topics[0].metadata"),
            ("topics: [{topic: t, operation: update}]", "topics[0].operation"),
            ("topics: [{topic: t, start: 2026-01-31}]", "topics[0].start"),
            ("topics: [{topic: t, index: '{host}'}]", "topics[0].index"),
            ("topics: [{topic: t, index: ../x}]", "topics[0].index"),
            ("topics: [{topic: ___}]", "topics[0].topic"),
            ("topics: [{topic: ___, index: '{topic}'}]", "topics[0].index"),
            ("topics: [{topic: t, labels: [a]}]", "topics[0].labels"),
            ("topics: [{topic: t, labels: {a: [b]}}]", "topics[0].labels.a"),
            ("topics: [{topic: t, indx: a}]", "topics[0].indx"),
            ("Topics: []", "Topics"),
            ("unheard_of: 1", "unheard_of"),
        ] {
            assert_eq!(places(&format!("{SERVERS}{text}\n")), [(path.to_owned(), 3)], "{text}");
        }
    }

    #[test]
    fn every_wrong_server_has_its_place() {
        let sink = "elasticsearch: {urls: ['http://e:1']}";
        for (kafka, path) in [
            ("[a:1]", "kafka"),
            ("{brokers: 'a:1'}", "kafka.brokers"),
            ("{brokers: [a]}", "kafka.brokers[0]"),
            ("{brokers: ['a:1', 'b:0']}", "kafka.brokers[1]"),
            ("{brokers: ['PLAINTEXT://a:1']}", "kafka.brokers[0]"),
            ("{brokers: ['a:1'], group_id: ''}", "kafka.group_id"),
            ("{brokers: ['a:1'], properties: {enable.auto.commit: true}}", "kafka.properties.enable.auto.commit"),
            ("{brokers: ['a:1'], properties: [a]}", "kafka.properties"),
        ] {
            assert_eq!(places(&format!("{sink}\nkafka: {kafka}\n")), [(path.to_owned(), 2)], "{kafka}");
        }
        for (sink, path) in [
            ("elasticsearch: 'http://e:1'", "elasticsearch"),
            ("elasticsearch: {urls: ['e:1']}", "elasticsearch.urls[0]"),
            ("elasticsearch: {urls: ['http://user:hunter2@e:1']}", "elasticsearch.urls[0]"),
            ("elasticsearch: {urls: ['http://e:1'], username: a}", "elasticsearch.password"),
            ("elasticsearch: {urls: ['http://e:1'], password: a}", "elasticsearch.username"),
            ("elasticsearch: {urls: ['http://e:1'], username: 'a:b', password: c}", "elasticsearch.username"),
            ("elasticsearch: {urls: ['http://e:1'], username: a, password: b, api_key: c}", "elasticsearch.api_key"),
            ("elasticsearch: {urls: ['http://e:1'], api_key: 'id:hunter2'}", "elasticsearch.api_key"),
            ("elasticsearch: {urls: ['http://e:1'], client_key: a}", "elasticsearch.client_cert"),
            ("elasticsearch: {urls: ['http://e:1'], bulk: {max_bytes: 1GiB}}", "elasticsearch.bulk.max_bytes"),
            ("elasticsearch: {urls: ['http://e:1'], bulk: {max_bytes: 100MiB, in_flight: 4}}", "limits.memory"),
            ("elasticsearch: {urls: ['http://e:1'], bulk: {linger: 1}}", "elasticsearch.bulk.linger"),
            ("elasticsearch: {urls: ['http://e:1'], bulk: {compression: zstd}}", "elasticsearch.bulk.compression"),
            ("elasticsearch: {urls: ['http://e:1'], bulk: {size: 1}}", "elasticsearch.bulk.size"),
            ("sink: {}", "sink.file"),
            ("sink: {file: ''}", "sink.file"),
            ("sink: {file: b, rotate: 1}", "sink.rotate"),
        ] {
            let kafka = if sink.starts_with('{') { "" } else { "kafka: {brokers: ['a:1']}\n" };
            let paths: Vec<String> = places(&format!("{kafka}{sink}\n")).into_iter().map(|(path, _)| path).collect();
            assert_eq!(paths, [path], "{sink}");
        }
    }

    #[test]
    fn files_and_keys_that_are_missing_are_told_in_one_report() {
        let text = "\
kafka: {brokers: ['a:1']}
sink: {file: out}
dead_letters: {store: local}
etcd: {endpoints: ['http://h:1']}
auth: {tokens_file: tokens.yaml}
tls:
  cert_file: c.pem
readiness: {require: [kafka, etcd]}
topics: [{topic: t, formt: json}]
";
        let expected = [("auth.tokens_file", 5), ("tls.key_file", 7), ("topics[0].formt", 9)];
        assert_eq!(places(text), expected.map(|(path, line)| (path.to_owned(), line)));
    }

    #[test]
    fn an_address_that_others_reach_is_noted_with_and_without_tokens() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("tokens.yaml"), "").expect("a file");
        for (text, noted) in [
            ("listen: 0.0.0.0:1", Some("no tokens")),
            ("listen: 0.0.0.0:1\nauth: {tokens_file: tokens.yaml}", Some("unencrypted")),
            ("listen: 127.0.0.1:1\nauth: {tokens_file: tokens.yaml}", None),
            ("auth: {tokens_file: tokens.yaml}", None),
        ] {
            let text = format!("kafka: {{brokers: ['a:1']}}\nelasticsearch: {{urls: ['http://e:1']}}\ntopics: [{{topic: t}}]\n{text}\n");
            let loaded = parse(text.as_bytes(), folder.path(), &environment).expect(&text);
            let details: Vec<&str> = loaded.warnings.iter().map(|warning| warning.detail.as_str()).collect();
            assert!(details.len() == usize::from(noted.is_some()) && noted.is_none_or(|noted| details[0].contains(noted)), "{text}: {details:?}");
        }
    }

    #[test]
    fn dead_letters_cannot_go_into_the_index_of_a_sink_that_writes_files() {
        let found = problems("kafka: {brokers: ['a:1']}\nsink: {file: out}\ndead_letters: {store: elasticsearch}\n");
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (problem.path.as_str(), problem.line, problem.remedy.as_str()),
            ("dead_letters.store", 3, "write store: local, or configure elasticsearch instead of sink")
        );
    }

    #[test]
    fn dead_letters_are_kept_where_a_moved_partition_finds_them() {
        let etcd = "etcd: {endpoints: ['http://h:1']}\n";
        for (more, expected) in [
            (String::new(), DeadLetterStore::Local),
            (etcd.to_owned(), DeadLetterStore::Elasticsearch),
            (format!("{etcd}dead_letters: {{store: local}}\n"), DeadLetterStore::Local),
            ("dead_letters: {store: elasticsearch}\n".to_owned(), DeadLetterStore::Elasticsearch),
        ] {
            let text = format!("kafka: {{brokers: ['a:1']}}\nelasticsearch: {{urls: ['http://e:1']}}\n{more}");
            let config = load(&text).expect(&text).config;
            assert_eq!(config.dead_letter_store(), expected, "{more}");
            let to_files = Config { sink: SinkConfig::File { dir: "out".into() }, ..config };
            if to_files.dead_letters.store.is_none() {
                assert_eq!(to_files.dead_letter_store(), DeadLetterStore::Local, "{more}");
            }
        }
    }

    #[test]
    fn a_file_that_is_named_and_not_readable_is_told_with_key_and_path() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::write(folder.path().join(name), "PEM").expect("a file");
        }
        let text = |ca: &str, cert: &str, key: &str| {
            format!(
                "kafka: {{brokers: ['a:1'], properties: {{ssl.ca.location: {ca}, ssl.certificate.location: {cert}, ssl.key.location: {key}}}}}\nelasticsearch: {{urls: ['https://e:1'], ca_file: {ca}, client_cert: {cert}, client_key: {key}}}\n"
            )
        };
        let parsed = |text: &str| parse(text.as_bytes(), folder.path(), &environment);
        parsed(&text("ca.pem", "cert.pem", "key.pem")).expect("all files are there");
        // A folder of CAs is what OpenSSL takes, too.
        parsed("kafka: {brokers: ['a:1'], properties: {ssl.ca.location: .}}\nelasticsearch: {urls: ['http://e:1']}\n").expect("a folder");

        let found = parsed(&text("no-ca.pem", "no-cert.pem", ".")).expect_err("none is there");
        let told: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        let keys = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"].map(|key| format!("kafka.properties.{key}"));
        assert_eq!(told, [&keys[0], &keys[1], &keys[2], "elasticsearch.ca_file", "elasticsearch.client_cert", "elasticsearch.client_key"]);
        for (problem, cause) in found.iter().zip(["no-ca.pem: No such file", "no-cert.pem: No such file", "not a regular file"].iter().cycle()) {
            assert!(problem.detail.contains(cause) && problem.detail.contains(&folder.path().display().to_string()), "{problem:?}");
        }
    }

    #[test]
    fn a_key_that_is_written_where_its_path_belongs_is_not_shown() {
        let text = "kafka: {brokers: ['a:1'], properties: {ssl.key.location: '-----BEGIN PRIVATE KEY----- hunter2'}}\nelasticsearch: {urls: ['http://e:1']}\n";
        let found = problems(text);
        assert!(found.len() == 1 && found[0].path == "kafka.properties.ssl.key.location", "{found:?}");
        assert!(!format!("{found:?}").contains(SECRET), "{found:?}");
    }

    #[test]
    fn all_problems_of_a_file_are_reported_in_its_order() {
        let text = "listen: nowhere\nkafka: {brokers: [a], group: b}\nelasticsearch: {url: c}\ntopics:\n  - topic: ok\n  - topic: not ok\n    format: xml\nfoo: 1\n";
        let lines: Vec<u32> = problems(text).iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 2, 2, 3, 3, 6, 7, 8]);
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_nearest_one() {
        for (text, remedy) in
            [("kafak: {}", "'kafka'"), ("Kafka: {}", "'kafka'"), ("limits: {memroy: 1GiB}", "'memory'"), ("collectlog: []", "'collectlogs'")]
        {
            let found = problems(&format!("{SERVERS}{text}\n"));
            assert!(found.len() == 1 && found[0].remedy == format!("did you mean {remedy}?"), "{found:?}");
        }
    }

    #[test]
    fn a_topic_that_is_named_twice_is_refused_with_both_lines() {
        let found = problems(&format!("{SERVERS}topics:\n  - topic: a\n  - topic: b\n  - topic: a\n"));
        assert!(found.len() == 1 && found[0].line == 6 && found[0].path == "topics[2].topic", "{found:?}");
        assert!(found[0].detail.contains("line 4") && found[0].detail.contains("line 6"), "{found:?}");
    }

    #[test]
    fn topics_that_differ_only_by_case_are_noted() {
        let loaded = load(&format!("{SERVERS}topics: [{{topic: Orders}}, {{topic: orders}}, {{topic: other}}]\n")).expect("legal");
        assert!(loaded.warnings.len() == 1 && loaded.warnings[0].detail.contains("'Orders'"), "{:?}", loaded.warnings);
    }

    #[test]
    fn words_that_yaml_takes_for_something_else_stay_texts() {
        let names = ["no", "on", "1e3", "0x10", "007", "1_000", "2026-01-31", ".5", "'null'"];
        let list: Vec<String> = names.iter().map(|name| format!("  - topic: {name}\n")).collect();
        let config = load(&format!("{SERVERS}topics:\n{}", list.concat())).expect("legal").config;
        let read: Vec<&str> = config.topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(read, names.map(|name| name.trim_matches('\'')));
    }

    #[test]
    fn merge_keys_and_anchors_carry_spec_fields() {
        let text = format!("{SERVERS}topics:\n  - &base {{topic: a, format: json, start: latest}}\n  - {{<<: *base, topic: b, start: earliest}}\n");
        let config = load(&text).expect("legal").config;
        let b = config.topics[1].native.as_ref().expect("native");
        assert_eq!((config.topics[1].name.as_str(), b.format, b.start), ("b", Some(Format::Json), Some(Start::Earliest)));
    }

    #[test]
    fn values_come_from_variables_and_files() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("password"), format!("{SECRET}\r\n")).expect("a file");
        let text = "kafka: {brokers: ['a:1'], properties: {security.protocol: sasl_ssl, sasl.mechanism: PLAIN, sasl.username: u, sasl.password: '${PASSWORD}'}}\nelasticsearch: {urls: ['https://e:1'], username: a, password: file:password}\n";
        let config = parse(text.as_bytes(), folder.path(), &environment).expect("legal").config;
        let SinkConfig::Elasticsearch(sink) = &config.sink else { panic!("a server") };
        let SinkAuth::Basic { password, .. } = &sink.auth else { panic!("a password") };
        assert_eq!((password.expose(), config.kafka.properties["sasl.password"].expose()), (SECRET, SECRET));
        assert!(!format!("{config:?}").contains(SECRET));
    }

    #[test]
    fn a_variable_that_is_missing_or_empty_is_named() {
        let with =
            |password: &str| format!("kafka: {{brokers: ['a:1']}}\nelasticsearch: {{urls: ['https://e:1'], username: a, password: '{password}'}}\n");
        assert!(problems(&with("${NOT_SET}"))[0].detail.contains("NOT_SET"));
        assert!(problems(&with("${EMPTY}"))[0].detail.contains("empty"));
        assert!(problems(&with("file:not-there"))[0].detail.contains("not-there"));
        assert!(problems(&with("${open"))[0].detail.contains('}'));
        let config = load(&with("${LOOKS_LIKE_A_FILE}")).expect("a password that only looks like a file").config;
        assert!(
            matches!(config.sink, SinkConfig::Elasticsearch(ElasticsearchConfig { auth: SinkAuth::Basic { password, .. }, .. }) if password.expose() == "file:/nowhere")
        );
    }

    #[test]
    fn a_planted_secret_never_appears_in_a_problem_a_warning_or_debug() {
        for text in [
            "kafka: {brokers: ['user:hunter2@a:1']}",
            "kafka: {brokers: ['a:1'], properties: {sasl.passwrd: hunter2}}",
            "kafka: {brokers: ['a:1'], properties: {sasl.password: [hunter2]}}",
            "kafka: {brokers: ['a:1'], properties: {sasl.password=hunter2: }}",
            "kafka: {brokers: ['a:1'], properties: {security.protocol: hunter2, sasl.mechanism: hunter2, session.timeout.ms: hunter2}}",
            "kafka: {brokers: ['a:1'], properties: {sasl.mechanism: PLAIN, sasl.username: u, sasl.password: hunter2}}",
            "elasticsearch: {urls: ['http://u:hunter2@e:1']}",
            "elasticsearch: {urls: ['http://u:hunt/er2@e:1', 'u:hunter2@e:1', 'hunter2']}",
            "elasticsearch: {urls: ['http://e:1'], username: u, password: hunter2, api_key: hunter2}",
            "elasticsearch: {urls: ['http://e:1'], api_key: ':hunter2'}",
            "elasticsearch: {urls: ['http://e:1'], {password:hunter2}}",
            "elasticsearch: {urls: ['http://e:1'], password:hunter2}",
            "elasticsearch: {urls: ['http://e:1'], username: u, password: '$x${hunter2 }'}",
            "elasticsearch: {urls: ['http://e:1'], username: u, password: \"${PASSWORD}\", pasword: hunter2}",
            "elasticsearch: {urls: ['http://e:1'], username: u, password: hunter2\n",
            "etcd: {endpoints: ['http://u:hunter2@h:1'], username: u, password: hunter2}",
            "etcdconfig: ['u:hunter2@h:1']",
            "kafkaconfig: {kafkaaddr: 'u:hunter2@a:1', password: hunter2}",
            "elasticconfig: {elasticaddr: 'http://u:hunter2@e:1'}",
            "listen: ${PASSWORD}\nlog_level: ${PASSWORD}\nlimits: {memory: '${PASSWORD}'}",
            "topics: [{topic: t, format: '${PASSWORD}', start: '${PASSWORD}', index: '{${PASSWORD}}'}]",
            "topics:\n  - topic: t\n    password: hunter2\n   bad: indentation",
            "password: hunter2\n\"unterminated: hunter2",
        ] {
            for file in [text.to_owned(), format!("{SERVERS}{text}\n"), format!("{text}\nsink: {{file: out}}\n")] {
                let shown = format!("{:?}", load(&file));
                assert!(!shown.contains(SECRET) && !shown.contains("er2@"), "{file}\n{shown}");
            }
        }
        let loaded = load(
            "kafka: {brokers: ['a:1'], properties: {sasl.mechanism: PLAIN, sasl.username: u, sasl.password: hunter2}}\nelasticsearch: {urls: ['http://e:1'], api_key: hunter2}\netcd: {endpoints: ['http://h:1'], username: u, password: hunter2}\n",
        );
        let shown = format!("{:?}", loaded.expect("legal"));
        assert!(!shown.contains(SECRET), "{shown}");
    }

    #[test]
    fn credentials_in_the_clear_and_an_open_address_are_noted() {
        let text = "listen: 0.0.0.0:8080\nkafka: {brokers: ['a:1']}\nelasticsearch: {urls: ['http://e:1'], username: a, password: b}\ntopics: [{topic: t}]\n";
        let noted: Vec<String> = load(text).expect("legal").warnings.into_iter().map(|warning| warning.path).collect();
        assert_eq!(noted, ["listen", "elasticsearch"]);
    }

    #[test]
    fn keys_in_an_etcd_that_nobody_names_are_noted() {
        let loaded = load(&format!("{SERVERS}topics: [{{topic: t}}]\netcdkeys: [a]\n")).expect("legal");
        assert!(loaded.warnings.len() == 1 && loaded.warnings[0].path == "etcdkeys", "{:?}", loaded.warnings);
        for text in ["etcd: {endpoints: ['http://h:1'], username: u, password: p, prefix: /team/drover}", "etcdconfig: [h:1]"] {
            let loaded = load(&format!("{SERVERS}topics: [{{topic: t}}]\netcdkeys: [a]\n{text}\n")).expect(text);
            assert!(loaded.warnings.is_empty() && loaded.config.etcd.is_some() && loaded.config.etcd_keys == ["a"], "{:?}", loaded.warnings);
        }
    }

    #[test]
    fn a_byte_order_mark_and_carriage_returns_change_nothing() {
        let windows = format!("\u{feff}{}", EXAMPLE.replace('\n', "\r\n"));
        assert_eq!(load(&windows).expect("legal").config, load(EXAMPLE).expect("legal").config);
    }

    #[test]
    fn a_hundred_thousand_topics_load() {
        let list: String = (0..100_000).map(|number| format!("  - topic: t{number}\n")).collect();
        assert_eq!(load(&format!("{SERVERS}topics:\n{list}")).expect("legal").config.topics.len(), 100_000);
    }

    #[test]
    fn a_file_that_is_cut_at_any_byte_gives_a_configuration_or_problems() {
        let whole = whole_example();
        let (mut legal, mut wrong) = (0, 0);
        for text in [EXAMPLE, &whole] {
            for end in 0..text.len() {
                match parse(&text.as_bytes()[..end], Path::new("/etc/drover"), &environment) {
                    Ok(_) => legal += 1,
                    Err(problems) => {
                        assert!(problems.iter().all(|problem| !problem.remedy.is_empty()) && !problems.is_empty(), "cut at {end}");
                        wrong += 1;
                    }
                }
            }
        }
        assert!(legal > 0 && wrong > 0);
    }

    proptest! {
        #[test]
        fn no_change_of_a_byte_panics(at in 0..EXAMPLE.len(), byte in any::<u8>()) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            if let Err(problems) = parse(&bytes, Path::new("/etc/drover"), &environment) {
                prop_assert!(!problems.is_empty());
            }
        }

        #[test]
        fn no_values_panic(key in "(listen|kafka|elasticsearch|sink|etcd|limits|topics|defaults|http|collectlogs|kafkaconfig|etcdkeys)", value in "[a-z0-9:\\-{}\\[\\],'\" ./$]{0,40}") {
            if let Err(problems) = load(&format!("{SERVERS}{key}: {value}\n")) {
                prop_assert!(!problems.is_empty());
            }
        }
    }
}
