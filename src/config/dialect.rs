//! The dialect of the Go collector that drover replaces: `catsyslog`, `collectlogs`, `etcdkeys`, `etcdconfig`, `kafkaconfig`, `elasticconfig`.
//!
//! Guarantees that a file which that collector reads is read with the same meaning: keys in any case at every level, unknown keys inside its sections ignored (with a warning), several
//! entries for one topic allowed, schemes of etcd's addresses optional. A section that the native form gives too is not read at all (with a warning). Does not decide what a dialect entry
//! means for a topic's spec: that is the merge.

use super::address::{self, Mistake};
use super::reader::{Placed, Reader, Section};
use super::topics::{PlacedTopic, topic_name};
use super::tree::{Node, Value};
use super::{EtcdConfig, native};

/// What a section gave.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found<T> {
    /// It is not there.
    Absent,
    /// It is there and wrong; the problem is reported.
    Wrong,
    /// It says this.
    Value(T),
}

/// Which native sections there are, by name.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NativeSections {
    pub(super) kafka: bool,
    /// `elasticsearch` or `sink`.
    pub(super) sink: Option<&'static str>,
    pub(super) etcd: bool,
}

/// What the dialect's keys of a file say.
pub(super) struct Dialect<'n> {
    pub(super) brokers: Found<Vec<String>>,
    pub(super) urls: Found<Vec<String>>,
    pub(super) etcd: Option<EtcdConfig>,
    pub(super) etcd_keys: Vec<String>,
    pub(super) log_level: Option<String>,
    pub(super) topics: Vec<PlacedTopic<'n>>,
    /// Where the keys in etcd are named.
    pub(super) keys: Option<Placed<'n>>,
    /// Whether the dialect names an etcd.
    pub(super) is_etcd_named: bool,
}

/// Takes the dialect's keys from the top of the document.
pub(super) fn read<'n>(reader: &mut Reader<'_>, top: &mut Section<'n>, native: NativeSections) -> Dialect<'n> {
    let log_level = reader.take_in_any_case(top, "catsyslog").and_then(|(path, node)| log_level(reader, &path, node));
    let topics = reader.take_in_any_case(top, "collectlogs").map(|(path, node)| topics(reader, &path, node)).unwrap_or_default();
    let keys = reader.take_in_any_case(top, "etcdkeys");
    let etcd_keys = keys.as_ref().map(|(path, node)| etcd_keys(reader, path, node)).unwrap_or_default();
    let config = reader.take_in_any_case(top, "etcdconfig");
    let is_etcd_named = config.is_some();
    let etcd = config.filter(|place| !overridden(reader, place, native.etcd.then_some("etcd"))).and_then(|(path, node)| etcd(reader, &path, node));
    let kafka = reader.take_in_any_case(top, "kafkaconfig").filter(|place| !overridden(reader, place, native.kafka.then_some("kafka")));
    let brokers = kafka.map_or(Found::Absent, |(path, node)| brokers(reader, &path, node));
    let elastic = reader.take_in_any_case(top, "elasticconfig").filter(|place| !overridden(reader, place, native.sink));
    let urls = elastic.map_or(Found::Absent, |(path, node)| urls(reader, &path, node));
    Dialect { brokers, urls, etcd, etcd_keys, log_level, topics, keys, is_etcd_named }
}

fn overridden(reader: &mut Reader<'_>, (path, node): &Placed<'_>, native: Option<&'static str>) -> bool {
    let Some(native) = native else { return false };
    let detail = format!("'{native}' is used instead of {path}, which is not read");
    reader.warning(node.problem(path, detail, format!("remove {path}, or move what it says to '{native}'")));
    true
}

fn log_level(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<String> {
    let mut section = reader.section(path, node)?;
    // Where the collector wrote its own log; ours goes to stderr.
    let _ = reader.take_in_any_case(&mut section, "logpath");
    let level = reader.take_in_any_case(&mut section, "loglevel");
    reader.ignore_unknown(&section);
    let (path, node) = level?;
    let text = reader.text(&path, node)?;
    let Some(level) = equivalent_level(&text) else {
        reader.warning(node.problem(&path, "this is no level of the log and is ignored", "write debug, info, warn or error"));
        return None;
    };
    Some(level.to_owned())
}

/// Our level for one of the collector's (those of zap).
fn equivalent_level(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "dpanic" | "panic" | "fatal" => "error",
        _ => return None,
    })
}

fn topics<'n>(reader: &mut Reader<'_>, path: &str, node: &'n Node) -> Vec<PlacedTopic<'n>> {
    let mut topics = Vec::new();
    for (place, item) in reader.list(path, node) {
        let Some(mut section) = reader.section(&place, item) else { continue };
        // The collector read log files from there; drover reads the topic that it filled.
        let _ = reader.take_in_any_case(&mut section, "logpath");
        let name = reader.take_in_any_case(&mut section, "logtopic");
        reader.ignore_unknown(&section);
        let Some((name_path, name_node)) = name else {
            reader.problem(item.problem(&section.place_of("logtopic"), "the topic's name is missing", "add logtopic: NAME, or remove the entry"));
            continue;
        };
        if let Some(name) = topic_name(reader, &name_path, name_node) {
            topics.push(PlacedTopic::in_dialect(name, place, name_path, name_node));
        }
    }
    topics
}

fn etcd_keys(reader: &mut Reader<'_>, path: &str, node: &Node) -> Vec<String> {
    reader.list(path, node).into_iter().filter_map(|(path, item)| reader.name(&path, item)).collect()
}

fn etcd(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<EtcdConfig> {
    let with_scheme = |text: &str| if text.contains("://") { address::url(text) } else { address::url(&format!("http://{text}")) };
    let endpoints = addresses(reader, path, node, with_scheme)?;
    Some(EtcdConfig { endpoints, prefix: native::DEFAULT_ETCD_PREFIX.to_owned(), credentials: None, ca_file: None, client_identity: None })
}

fn brokers(reader: &mut Reader<'_>, path: &str, node: &Node) -> Found<Vec<String>> {
    let Some(mut section) = reader.section(path, node) else { return Found::Wrong };
    let given = reader.take_in_any_case(&mut section, "kafkaaddr");
    reader.ignore_unknown(&section);
    let Some((path, node)) = given else {
        reader.problem(node.problem(&section.place_of("kafkaaddr"), "no Kafka brokers are named", "add kafkaaddr: \"HOST:9092\""));
        return Found::Wrong;
    };
    addresses(reader, &path, node, address::host_port).map_or(Found::Wrong, Found::Value)
}

fn urls(reader: &mut Reader<'_>, path: &str, node: &Node) -> Found<Vec<String>> {
    let Some(mut section) = reader.section(path, node) else { return Found::Wrong };
    let given = reader.take_in_any_case(&mut section, "elasticaddr");
    if let Some((path, node)) = reader.take_in_any_case(&mut section, "typestr") {
        reader.warning(node.problem(
            &path,
            "mapping types are obsolete and typestr is not used",
            "remove it; documents have no type since Elasticsearch 8",
        ));
    }
    reader.ignore_unknown(&section);
    let Some((path, node)) = given else {
        reader.problem(node.problem(
            &section.place_of("elasticaddr"),
            "no address of Elasticsearch is named",
            "add elasticaddr: \"http://HOST:9200/\"",
        ));
        return Found::Wrong;
    };
    addresses(reader, &path, node, address::url).map_or(Found::Wrong, Found::Value)
}

/// Addresses as a list, or as one text with commas. `None` when one of them is wrong or there is none.
fn addresses(reader: &mut Reader<'_>, path: &str, node: &Node, check: impl Fn(&str) -> Result<String, Mistake>) -> Option<Vec<String>> {
    let items = match &node.value {
        Value::List(_) => reader.list(path, node),
        Value::Scalar { .. } | Value::Map(_) => vec![(path.to_owned(), node)],
    };
    let mut all_legal = true;
    let mut accepted = Vec::new();
    for (path, item) in items {
        let Some(text) = reader.text(&path, item) else {
            all_legal = false;
            continue;
        };
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match check(part) {
                Ok(address) => accepted.push(address),
                Err(Mistake { detail, remedy }) => {
                    all_legal = false;
                    reader.problem(item.problem(&path, detail, remedy));
                }
            }
        }
    }
    if all_legal && accepted.is_empty() {
        reader.problem(node.problem(path, "no address is named", "write one or more addresses, separated by commas"));
        return None;
    }
    all_legal.then_some(accepted)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Loaded, Problem, SinkConfig, parse};

    /// A file of the collector, as its documentation has it.
    const COLLECTORS_OWN: &str = r#"catsyslog: {logpath: ./logs/, loglevel: debug}      # accepted; loglevel sets ours unless overridden
collectlogs:
  - {logpath: D:\logs\golang, logtopic: golang_log}
  - {logpath: D:\logs\dir2, logtopic: logdir2}
etcdkeys: [collectlogkey1, collectlogkey2]
etcdconfig: [127.0.0.1:2379]                        # scheme optional
kafkaconfig: {kafkaaddr: "localhost:9092"}          # comma-separated list allowed
elasticconfig: {elasticaddr: "http://localhost:9200/", typestr: catlog}   # typestr: accepted, noted as obsolete
"#;

    fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
        parse(text.as_bytes(), Path::new("."), &|_| None)
    }

    fn config(text: &str) -> Config {
        load(text).expect("a legal file").config
    }

    fn urls(config: &Config) -> &[String] {
        match &config.sink {
            SinkConfig::Elasticsearch(sink) => &sink.urls,
            SinkConfig::File { .. } => &[],
        }
    }

    #[test]
    fn the_collectors_own_file_loads_unchanged() {
        let loaded = load(COLLECTORS_OWN).expect("the collector's own file");
        let config = &loaded.config;
        let topics: Vec<_> = config.topics.iter().map(|topic| (topic.name.as_str(), topic.place.as_str(), topic.native.is_none())).collect();
        assert_eq!(topics, [("golang_log", "collectlogs[0]", true), ("logdir2", "collectlogs[1]", true)]);
        assert_eq!((config.kafka.brokers.as_slice(), config.kafka.group_id.as_str()), (&["localhost:9092".to_owned()][..], "drover"));
        assert_eq!(urls(config), ["http://localhost:9200"]);
        assert_eq!(config.etcd.as_ref().map(|etcd| etcd.endpoints.as_slice()), Some(&["http://127.0.0.1:2379".to_owned()][..]));
        assert_eq!(config.etcd_keys, ["collectlogkey1", "collectlogkey2"]);
        assert_eq!(config.log_level.as_deref(), Some("debug"));
        let noted: Vec<&str> = loaded.warnings.iter().map(|warning| warning.path.as_str()).collect();
        assert_eq!(noted, ["elasticconfig.typestr"], "{:?}", loaded.warnings);
    }

    #[test]
    fn the_case_of_keys_does_not_matter_at_any_level() {
        let text = "KafkaConfig: {KafkaAddr: 'a:1, b:2,'}\nELASTICCONFIG: {ElasticAddr: 'http://e:1/'}\nCollectLogs: [{LogTopic: t, logPath: x}]\n";
        let loaded = load(text).expect("legal");
        assert_eq!(loaded.config.kafka.brokers, ["a:1", "b:2"]);
        assert_eq!((urls(&loaded.config), loaded.config.topics.len(), loaded.warnings.len()), (&["http://e:1".to_owned()][..], 1, 0));
    }

    #[test]
    fn two_spellings_of_one_key_are_refused() {
        let problems = load("kafkaconfig: {kafkaaddr: 'a:1'}\nKafkaConfig: {kafkaaddr: 'b:1'}\nelasticconfig: {elasticaddr: 'http://e:1'}\n")
            .expect_err("ambiguous");
        assert!(problems.len() == 1 && problems[0].line == 2 && problems[0].detail.contains("line 1"), "{problems:?}");
    }

    #[test]
    fn unknown_keys_inside_the_dialect_are_ignored_with_a_warning() {
        let text =
            "kafkaconfig: {kafkaaddr: 'a:1', version: 2}\nelasticconfig: {elasticaddr: 'http://e:1'}\ncollectlogs: [{logtopic: t, logtopc: u}]\n";
        let loaded = load(text).expect("legal");
        let noted: Vec<_> = loaded.warnings.iter().map(|warning| (warning.path.as_str(), warning.remedy.as_str())).collect();
        assert_eq!(noted, [("kafkaconfig.version", "remove it, nothing reads it"), ("collectlogs[0].logtopc", "did you mean 'logtopic'?")]);
    }

    #[test]
    fn a_topic_that_several_entries_name_keeps_every_place() {
        let text = "kafkaconfig: {kafkaaddr: 'a:1'}\nelasticconfig: {elasticaddr: 'http://e:1'}\ncollectlogs: [{logtopic: t}, {logtopic: t}]\ntopics: [{topic: t, format: json}]\n";
        let loaded = load(text).expect("legal");
        let places: Vec<_> = loaded.config.topics.iter().map(|topic| (topic.place.as_str(), topic.native.is_some())).collect();
        assert_eq!(places, [("collectlogs[0]", false), ("collectlogs[1]", false), ("topics[0]", true)]);
        assert_eq!(loaded.warnings, []);
    }

    #[test]
    fn a_native_section_wins_with_a_warning() {
        let text = "kafkaconfig: {kafkaaddr: 'not an address'}\nelasticconfig: {elasticaddr: 'http://e:1'}\nkafka: {brokers: ['b:2'], group_id: g}\nelasticsearch: {urls: ['http://f:2']}\ncollectlogs: [{logtopic: t}]\n";
        let loaded = load(text).expect("legal");
        assert_eq!(loaded.config.kafka.brokers, ["b:2"]);
        assert_eq!(urls(&loaded.config), ["http://f:2"]);
        let noted: Vec<_> = loaded.warnings.iter().map(|warning| (warning.path.as_str(), warning.line)).collect();
        assert_eq!(noted, [("kafkaconfig", 1), ("elasticconfig", 2)]);
    }

    #[test]
    fn a_level_of_our_own_wins_over_the_collectors() {
        let rest = "kafkaconfig: {kafkaaddr: 'a:1'}\nelasticconfig: {elasticaddr: 'http://e:1'}\n";
        assert_eq!(config(&format!("catsyslog: {{loglevel: Debug}}\nlog_level: warn\n{rest}")).log_level.as_deref(), Some("warn"));
        assert_eq!(config(&format!("catsyslog: {{loglevel: fatal}}\n{rest}")).log_level.as_deref(), Some("error"));
        assert_eq!(config(&format!("catsyslog: {{loglevel: loud}}\n{rest}")).log_level, None);
    }

    #[test]
    fn wrong_values_of_the_dialect_have_their_place() {
        let rest = "\nelasticconfig: {elasticaddr: 'http://e:1'}\n";
        for (text, path) in [
            ("kafkaconfig: {kafkaaddr: localhost}", "kafkaconfig.kafkaaddr"),
            ("kafkaconfig: {}", "kafkaconfig.kafkaaddr"),
            ("kafkaconfig: {kafkaaddr: ','}", "kafkaconfig.kafkaaddr"),
            ("kafkaconfig: localhost:9092", "kafkaconfig"),
            ("kafkaconfig: {kafkaaddr: 'a:1'}\ncollectlogs: [{logpath: x}]", "collectlogs[0].logtopic"),
            ("kafkaconfig: {kafkaaddr: 'a:1'}\ncollectlogs: [{logtopic: 'a/b'}]", "collectlogs[0].logtopic"),
            ("kafkaconfig: {kafkaaddr: 'a:1'}\ncollectlogs: [{logtopic: '___'}]", "collectlogs[0].logtopic"),
            ("kafkaconfig: {kafkaaddr: 'a:1'}\ncollectlogs: {logtopic: a}", "collectlogs"),
            ("kafkaconfig: {kafkaaddr: 'a:1'}\netcdconfig: ['h:99999']", "etcdconfig[0]"),
            ("kafkaconfig: {kafkaaddr: 'a:1'}\netcdkeys: ['']", "etcdkeys[0]"),
        ] {
            let problems = load(&format!("{text}{rest}")).expect_err(text);
            let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, [path], "{problems:?}");
        }
    }
}
