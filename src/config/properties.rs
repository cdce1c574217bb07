//! The Kafka client's properties that a configuration may set.
//!
//! Guarantees an allow-list: a property that loads code, runs a command, or belongs to drover's own promises (commits, offsets, the group) is refused by name and with the reason. Values
//! are checked as far as the client library would check them at its start, so that the mistake has a line. Names and bounds are those of `CONFIGURATION.md` of
//! librdkafka 2.12.1. Owns no connection.

use std::collections::BTreeMap;

use super::Secret;
use super::reader::{Reader, nearest};
use super::tree::{Node, printable};

/// What values a property takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Any text that is not empty.
    Text,
    /// A file that can be read; relative to the configuration.
    File,
    /// A file or a folder that can be read.
    FileOrFolder,
    /// A whole number between two bounds.
    Whole(u64, u64),
    /// `true` or `false`.
    Boolean,
    /// One of these words, in any case.
    OneOf(&'static [&'static str]),
    /// A SASL mechanism that this build speaks.
    Mechanism,
}

use Kind::{Boolean, File, FileOrFolder, Mechanism, OneOf, Text, Whole};

/// The largest whole number of the client library.
const MAX_INT: u64 = i32::MAX as u64;
/// `session.timeout.ms` unless it is set.
const DEFAULT_SESSION_TIMEOUT_MS: u64 = 45_000;
/// `max.poll.interval.ms` unless it is set.
const DEFAULT_POLL_INTERVAL_MS: u64 = 300_000;

const ALLOWED: &[(&str, Kind)] = &[
    ("client.id", Text),
    ("client.rack", Text),
    ("fetch.error.backoff.ms", Whole(0, 300_000)),
    // At least message.max.bytes, whose default this is.
    ("fetch.max.bytes", Whole(1_000_000, MAX_INT - 512)),
    ("fetch.message.max.bytes", Whole(1, 1_000_000_000)),
    ("fetch.min.bytes", Whole(1, 100_000_000)),
    ("fetch.queue.backoff.ms", Whole(0, 300_000)),
    ("fetch.wait.max.ms", Whole(0, 300_000)),
    ("group.instance.id", Text),
    ("group.protocol", OneOf(&["classic", "consumer"])),
    ("max.poll.interval.ms", Whole(1, 86_400_000)),
    ("metadata.max.age.ms", Whole(1, 86_400_000)),
    ("queued.max.messages.kbytes", Whole(1, 2_097_151)),
    ("sasl.mechanism", Mechanism),
    ("sasl.mechanisms", Mechanism),
    ("sasl.password", Text),
    ("sasl.username", Text),
    ("security.protocol", OneOf(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"])),
    ("session.timeout.ms", Whole(1, 3_600_000)),
    ("socket.blocking.max.ms", Whole(1, 60_000)),
    ("socket.connection.setup.timeout.ms", Whole(1000, MAX_INT)),
    ("socket.keepalive.enable", Boolean),
    ("socket.max.fails", Whole(0, 1_000_000)),
    ("socket.nagle.disable", Boolean),
    ("socket.receive.buffer.bytes", Whole(0, 100_000_000)),
    ("socket.send.buffer.bytes", Whole(0, 100_000_000)),
    ("socket.timeout.ms", Whole(10, 300_000)),
    ("ssl.ca.certificate.stores", Text),
    ("ssl.ca.location", FileOrFolder),
    ("ssl.ca.pem", Text),
    ("ssl.certificate.location", File),
    ("ssl.certificate.pem", Text),
    ("ssl.cipher.suites", Text),
    ("ssl.crl.location", File),
    ("ssl.curves.list", Text),
    ("ssl.endpoint.identification.algorithm", OneOf(&["none", "https"])),
    ("ssl.key.location", File),
    ("ssl.key.password", Text),
    ("ssl.key.pem", Text),
    ("ssl.keystore.location", File),
    ("ssl.keystore.password", Text),
    ("ssl.sigalgs.list", Text),
];

/// Mechanisms of this build. Kerberos runs `kinit` through a shell, and OAuth needs an HTTP client inside the library: neither is compiled in.
const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Properties that are part of drover's promises, with what helps.
const OWNED: &[(&str, &str)] = &[
    ("allow.auto.create.topics", "remove it: drover never creates topics"),
    ("auto.commit.interval.ms", "remove it: drover commits what is settled, every second"),
    ("auto.offset.reset", "use a topic's `start`, which is resolved once and kept"),
    ("bootstrap.servers", "write the addresses under kafka.brokers"),
    ("check.crcs", "remove it: drover checks every batch"),
    ("debug", "remove it; log_level sets what is logged"),
    ("enable.auto.commit", "remove it: drover commits only what is settled"),
    ("enable.auto.offset.store", "remove it: drover stores only what is settled"),
    ("enable.partition.eof", "remove it"),
    ("enable.random.seed", "remove it"),
    ("group.id", "write it as kafka.group_id"),
    ("heartbeat.interval.ms", "remove it; session.timeout.ms may be set"),
    ("isolation.level", "remove it: drover reads committed records only"),
    ("log_level", "write log_level at the top of the file"),
    ("max.partition.fetch.bytes", "remove it; its name here is fetch.message.max.bytes"),
    ("metadata.broker.list", "write the addresses under kafka.brokers"),
    ("offset.store.method", "remove it: offsets are kept in Kafka"),
    ("partition.assignment.strategy", "remove it: drover uses cooperative-sticky"),
    ("queued.min.messages", "use limits.memory and queued.max.messages.kbytes"),
    ("statistics.interval.ms", "remove it; drover has its own metrics"),
    ("topic.metadata.refresh.interval.ms", "use metadata.max.age.ms"),
];

/// Beginnings of properties that load code or run something, with what helps.
const DANGEROUS: &[(&str, &str, &str)] = &[
    ("plugin.library.paths", "it loads code", "remove it"),
    ("ssl.engine", "it loads code", "remove it; give keys as PEM files by ssl.key.location"),
    ("ssl.providers", "it loads code", "remove it"),
    ("sasl.kerberos", "it runs a command", "use SCRAM-SHA-512 or PLAIN: this build has no Kerberos"),
    ("sasl.oauthbearer", "it fetches tokens from where it says", "use SCRAM-SHA-512 or PLAIN: this build has no OAuth"),
    ("enable.sasl.oauthbearer", "it accepts tokens that nobody signed", "remove it"),
    ("enable.ssl.certificate.verification", "it switches the check of certificates off", "name the broker's CA: ssl.ca.location"),
];

/// Reads `kafka.properties`. Values are secret as a whole: whichever of them are is the client library's business.
pub(super) fn read(reader: &mut Reader<'_>, path: &str, node: &Node) -> BTreeMap<String, Secret> {
    let mut properties = BTreeMap::new();
    let Some(section) = reader.section(path, node) else { return properties };
    for (key, value) in section.entries() {
        let name = key.text().unwrap_or_default();
        let place = section.place_of(&printable(name));
        match ALLOWED.iter().find(|(allowed, _)| *allowed == name) {
            None => refuse(reader, &place, key, name),
            Some(_) if value.is_null() => {}
            Some((_, kind)) => {
                if let Some(text) = value_of(reader, &place, value, *kind) {
                    properties.insert(name.to_owned(), Secret::new(text));
                }
            }
        }
    }
    check_together(reader, path, node, &properties);
    properties
}

fn refuse(reader: &mut Reader<'_>, place: &str, key: &Node, name: &str) {
    if let Some((_, remedy)) = OWNED.iter().find(|(owned, _)| *owned == name) {
        reader.problem(key.problem(place, format!("drover sets {name} itself"), *remedy));
        return;
    }
    if let Some((_, danger, remedy)) = DANGEROUS.iter().find(|(beginning, _, _)| name.starts_with(beginning)) {
        reader.problem(key.problem(place, format!("{} is not allowed: {danger}", printable(name)), *remedy));
        return;
    }
    let names: Vec<&str> = ALLOWED.iter().map(|(allowed, _)| *allowed).collect();
    let remedy = match nearest(name, &names) {
        Some(near) => format!("did you mean '{near}'?"),
        None => "allowed are security.protocol, sasl.*, ssl.*, client.id, client.rack, group.protocol, group.instance.id, session.timeout.ms, max.poll.interval.ms, fetch.*, \
                 queued.max.messages.kbytes, socket.* and metadata.max.age.ms, as far as they load no code"
            .to_owned(),
    };
    reader.problem(key.problem(place, format!("'{}' is no property that may be set here", printable(name)), remedy));
}

fn value_of(reader: &mut Reader<'_>, place: &str, node: &Node, kind: Kind) -> Option<String> {
    match kind {
        Text => reader.secret(place, node).map(|secret| secret.expose().to_owned()),
        // The library's own word for "look where the system keeps them".
        FileOrFolder if node.text() == Some("probe") => Some("probe".to_owned()),
        File | FileOrFolder => {
            let file = if kind == File { reader.file(place, node)? } else { reader.file_or_folder(place, node)? };
            let text = file.to_str().map(str::to_owned);
            if text.is_none() {
                reader.problem(node.problem(place, "this path is not valid UTF-8", "move the file to a folder with a plain name"));
            }
            text
        }
        Whole(least, most) => reader.number(place, node, least, most).map(|number| number.to_string()),
        Boolean => reader.boolean(place, node).map(|flag| flag.to_string()),
        OneOf(words) => {
            let text = reader.text(place, node)?.to_ascii_lowercase();
            if !words.contains(&text.as_str()) {
                reader.problem(node.problem(place, "this is none of the values that it takes", format!("write one of {}", words.join(", "))));
                return None;
            }
            Some(text)
        }
        Mechanism => {
            let text = reader.text(place, node)?;
            if !MECHANISMS.contains(&text.as_str()) {
                reader.problem(node.problem(place, "this build does not speak this mechanism", format!("write one of {}", MECHANISMS.join(", "))));
                return None;
            }
            Some(text)
        }
    }
}

/// What the client library would refuse about values that are legal alone, and credentials that it would not use.
fn check_together(reader: &mut Reader<'_>, path: &str, node: &Node, properties: &BTreeMap<String, Secret>) {
    let get = |name: &str| properties.get(name).map(Secret::expose);
    let number = |name: &str| get(name).and_then(|text| text.parse::<u64>().ok());
    let has_key = |name: &str| matches!(&node.value, super::tree::Value::Map(entries) if entries.iter().any(|(key, _)| key.text() == Some(name)));
    if has_key("sasl.mechanism") && has_key("sasl.mechanisms") {
        reader.problem(node.problem(path, "sasl.mechanism and sasl.mechanisms are two names of one property", "keep one of the two"));
    }
    let uses_sasl = get("security.protocol").is_some_and(|protocol| protocol.starts_with("sasl_"));
    if uses_sasl {
        let has_mechanism = has_key("sasl.mechanism") || has_key("sasl.mechanisms");
        for (name, given) in
            [("sasl.mechanism", has_mechanism), ("sasl.username", has_key("sasl.username")), ("sasl.password", has_key("sasl.password"))]
        {
            if !given {
                let remedy =
                    if name == "sasl.mechanism" { format!("add sasl.mechanism: one of {}", MECHANISMS.join(", ")) } else { format!("add {name}") };
                reader.problem(node.problem(&format!("{path}.{name}"), format!("security.protocol asks for SASL and {name} is missing"), remedy));
            }
        }
    } else if get("sasl.password").is_some() && (get("security.protocol").is_some() || !has_key("security.protocol")) {
        let detail = "sasl.password is given and security.protocol does not use it";
        reader.warning(node.problem(path, detail, "set security.protocol to SASL_SSL, or remove the sasl.* properties"));
    }
    let uses_new_protocol = get("group.protocol") == Some("consumer");
    if uses_new_protocol && has_key("session.timeout.ms") {
        let detail = "session.timeout.ms cannot be set with group.protocol: consumer";
        reader.problem(node.problem(path, detail, "remove it; brokers decide it for this protocol"));
    }
    let session = number("session.timeout.ms").unwrap_or(DEFAULT_SESSION_TIMEOUT_MS);
    let says = |name: &str| matches!(&node.value, super::tree::Value::Map(entries) if entries.iter().any(|(key, value)| key.text() == Some(name) && !value.is_null()));
    let is_reported = says("max.poll.interval.ms") && get("max.poll.interval.ms").is_none();
    let poll = number("max.poll.interval.ms").unwrap_or(DEFAULT_POLL_INTERVAL_MS);
    if !uses_new_protocol && !is_reported && poll < session {
        let detail = format!("max.poll.interval.ms ({poll}) is shorter than session.timeout.ms ({session})");
        reader.problem(node.problem(path, detail, "set max.poll.interval.ms to at least as much, or session.timeout.ms to less"));
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;
    use crate::config::Problem;
    use crate::config::tree;

    fn read_text(text: &str) -> (BTreeMap<String, Secret>, Vec<Problem>, Vec<Problem>) {
        let node = tree::parse(text.as_bytes()).expect("YAML");
        let mut reader = Reader::new(std::path::Path::new("/etc/drover"), &|_| None);
        let properties = read(&mut reader, "kafka.properties", &node);
        let (problems, warnings) = reader.finish();
        (properties, problems, warnings)
    }

    #[test]
    fn a_property_that_loads_code_or_runs_something_is_refused() {
        for name in [
            "plugin.library.paths",
            "ssl.engine.location",
            "ssl.engine.id",
            "ssl.providers",
            "sasl.kerberos.kinit.cmd",
            "sasl.kerberos.principal",
            "sasl.oauthbearer.token.endpoint.url",
            "sasl.oauthbearer.assertion.file",
            "enable.sasl.oauthbearer.unsecure.jwt",
            "enable.ssl.certificate.verification",
        ] {
            let (properties, problems, _) = read_text(&format!("client.id: a\n{name}: x\n"));
            assert!(!properties.contains_key(name));
            let [problem] = problems.as_slice() else { panic!("{name}: {problems:?}") };
            assert!(problem.detail.contains("not allowed") && problem.line == 2, "{problem:?}");
        }
    }

    #[test]
    fn a_property_that_is_drovers_own_says_so() {
        for (name, _) in OWNED {
            let (_, problems, _) = read_text(&format!("{name}: x\n"));
            assert!(problems[0].detail.starts_with("drover sets"), "{problems:?}");
            assert_eq!(problems[0].path, format!("kafka.properties.{name}"));
        }
    }

    #[test]
    fn a_misspelt_property_is_recognised() {
        let (_, problems, _) = read_text("sasl.pasword: hunter2\nlinger.ms: 5\nssl.whatever: 1\n");
        assert_eq!(problems[0].remedy, "did you mean 'sasl.password'?");
        assert!(problems[1].remedy.contains("security.protocol") && problems[2].remedy.contains("ssl.*"), "{problems:?}");
        assert!(!format!("{problems:?}").contains("hunter2"));
    }

    #[test]
    fn values_that_the_client_would_refuse_at_its_start_have_a_line() {
        for text in [
            "session.timeout.ms: soon",
            "session.timeout.ms: 0",
            "security.protocol: tls",
            "socket.keepalive.enable: maybe",
            "sasl.mechanism: GSSAPI",
            "sasl.mechanism: scram-sha-256",
            "fetch.max.bytes: 100",
            "max.poll.interval.ms: 1000",
            "session.timeout.ms: 300001",
            "{max.poll.interval.ms: ~, session.timeout.ms: 300001}",
            "{max.poll.interval.ms: soon, session.timeout.ms: 300001}",
            "client.id: ''",
            "client.id: [a]",
            "{group.protocol: consumer, session.timeout.ms: 6000}",
            "{sasl.mechanism: PLAIN, sasl.mechanisms: PLAIN}",
        ] {
            let (_, problems, _) = read_text(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].line == 1 && !problems[0].remedy.is_empty(), "{problems:?}");
        }
    }

    #[test]
    fn sasl_without_credentials_is_refused_and_unused_credentials_are_noted() {
        let (_, problems, _) = read_text("security.protocol: SASL_SSL\n");
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["kafka.properties.sasl.mechanism", "kafka.properties.sasl.username", "kafka.properties.sasl.password"]);
        let (_, problems, warnings) = read_text("{sasl.mechanism: PLAIN, sasl.username: a, sasl.password: b}");
        assert!(problems.is_empty() && warnings.len() == 1, "{problems:?} {warnings:?}");
    }

    #[test]
    fn relative_paths_are_relative_to_the_configuration() {
        let (base, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::NamedTempFile::new().expect("a file"));
        std::fs::write(base.path().join("ca.pem"), "PEM").expect("a file");
        let text = format!("{{security.protocol: ssl, ssl.ca.location: ca.pem, ssl.key.location: {}}}", elsewhere.path().display());
        let node = tree::parse(text.as_bytes()).expect("YAML");
        let mut reader = Reader::new(base.path(), &|_| None);
        let properties = read(&mut reader, "kafka.properties", &node);
        let (problems, _) = reader.finish();
        assert!(problems.is_empty(), "{problems:?}");
        let expected = [base.path().join("ca.pem"), elsewhere.path().to_owned()].map(|path| path.display().to_string());
        assert_eq!([properties["ssl.ca.location"].expose(), properties["ssl.key.location"].expose()], expected);
        let (properties, _, _) = read_text("ssl.ca.location: probe");
        assert_eq!(properties["ssl.ca.location"].expose(), "probe");
    }

    /// The allow-list is the library's own vocabulary: none of its names is made up.
    #[test]
    fn an_allowed_property_that_the_client_does_not_know_is_named() {
        let mut unknown = Vec::new();
        for (name, _) in ALLOWED {
            let result = ClientConfig::new().set(*name, "1").create_native_config();
            if let Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) = result {
                unknown.push(*name);
            }
        }
        assert!(unknown.is_empty(), "{unknown:?}");
        let made_up = ClientConfig::new().set("made.up", "1").create_native_config();
        assert!(matches!(made_up, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))));
    }
}
