//! Other programs that bring Kafka's records to Elasticsearch, for `make bench-peers`. `benches/peers/build.sh` fetches and builds them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::endpoint::Endpoint;
use crate::harness::kafka::Kafka;
use crate::harness::process::RunFolder;
use crate::machine;

/// One program with one configuration.
#[derive(Debug)]
pub struct Peer {
    /// Its name in the table.
    pub name: &'static str,
    /// Whether it writes documents anew, so that they are not byte for byte the records.
    pub encodes_again: bool,
    program: &'static str,
    /// The arguments, with `@CONFIG@` and `@FOLDER@`.
    arguments: &'static [&'static str],
    config_name: &'static str,
    /// With `@BROKER@`, `@ENDPOINT@`, `@PORT@`, `@TOPIC@`, `@GROUP@` and `@FOLDER@`.
    config: &'static str,
}

/// Everybody, all with requests of about 8 MiB and two of them at once, as far as they can be told.
const PEERS: &[Peer] = &[
    Peer {
        name: "rsyslog, raw",
        encodes_again: false,
        program: "rsyslogd",
        arguments: &["-n", "-f", "@CONFIG@", "-i", "@FOLDER@/rsyslog.pid"],
        config_name: "rsyslog.conf",
        config: include_str!("../peers/rsyslog.conf"),
    },
    Peer {
        name: "gohangout, raw",
        encodes_again: false,
        program: "gohangout",
        arguments: &["--config", "@CONFIG@", "--worker", "2"],
        config_name: "gohangout.yaml",
        config: include_str!("../peers/gohangout.yaml"),
    },
    Peer {
        name: "gohangout, JSON",
        encodes_again: true,
        program: "gohangout",
        arguments: &["--config", "@CONFIG@", "--worker", "2"],
        config_name: "gohangout-json.yaml",
        config: include_str!("../peers/gohangout-json.yaml"),
    },
    Peer {
        name: "file.d",
        encodes_again: true,
        program: "file.d",
        arguments: &["--config", "@CONFIG@", "--http", "off"],
        config_name: "file.d.yaml",
        config: include_str!("../peers/file.d.yaml"),
    },
    Peer {
        name: "go-stash",
        encodes_again: true,
        program: "stash",
        arguments: &["-f", "@CONFIG@"],
        config_name: "go-stash.yaml",
        config: include_str!("../peers/go-stash.yaml"),
    },
];

/// How a peer is started for one run.
pub fn command(peer: &Peer, folder: &RunFolder, kafka: &Kafka, endpoint: &Endpoint, topic: &str, group: &str) -> Command {
    let path = folder.path().display().to_string();
    let values = [
        ("@BROKER@", kafka.bootstrap()),
        ("@ENDPOINT@", format!("http://{}", endpoint.address())),
        ("@PORT@", endpoint.port().to_string()),
        ("@TOPIC@", topic.to_owned()),
        ("@GROUP@", group.to_owned()),
        ("@FOLDER@", path),
    ];
    let filled = |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
    let config = folder.write(peer.config_name, &filled(peer.config));
    let mut command = Command::new(program(peer.program).unwrap_or_else(|| panic!("{} was there a moment ago", peer.program)));
    command.args(peer.arguments.iter().map(|argument| filled(argument).replace("@CONFIG@", &config.display().to_string())));
    command
}

/// Those whose program is there, and those whose is not.
pub fn found_and_missing() -> (Vec<&'static Peer>, Vec<&'static Peer>) {
    PEERS.iter().partition(|peer| program(peer.program).is_some())
}

/// Who is in the table in which version, and who is not.
pub fn notes() -> String {
    let (found, missing) = found_and_missing();
    let rsyslog = found.iter().find(|peer| peer.program == "rsyslogd").and_then(|peer| program(peer.program));
    let printed = rsyslog.map(|path| machine::printed(&path.display().to_string(), &["-v"]));
    let version = printed.iter().flat_map(|text| text.split_whitespace()).nth(1).unwrap_or("not there");
    let mut notes = format!("rsyslog is {version}, the others are as in `benches/peers/build.sh`.");
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|peer| peer.name).collect();
        let _ = write!(notes, " Left out because they could not be fetched or built: {}.", names.join("; "));
    }
    notes
}

/// The program in the folder that `BENCH_PEERS` names, else on the path.
fn program(name: &str) -> Option<PathBuf> {
    let built = std::env::var_os("BENCH_PEERS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    // As root's, where rsyslogd is.
    let system = [PathBuf::from("/usr/sbin")];
    built.into_iter().chain(std::env::split_paths(&path)).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}
