//! One Kafka and one Elasticsearch for all tests of a binary: they take about ten seconds to start.
//!
//! A test takes them [`together`] with others, or [`alone`] when it stops, pauses or kills one; after that both run again, whatever the test did.

use std::process::Command;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Instant;

use super::elasticsearch::{Elasticsearch, Product};
use super::kafka::Kafka;

/// Both servers.
#[derive(Debug)]
pub struct Servers {
    /// Kafka, one broker.
    pub kafka: Kafka,
    /// Elasticsearch 8, one node.
    pub elasticsearch: Elasticsearch,
}

static TURN: RwLock<()> = RwLock::new(());

fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Result<Servers, String>> = OnceLock::new();
    let started = SERVERS.get_or_init(|| {
        let started = Instant::now();
        let kafka = thread::spawn(Kafka::start);
        let elasticsearch = Elasticsearch::start(Product::Elasticsearch8);
        eprintln!("Kafka and Elasticsearch took {:.1} s to start", started.elapsed().as_secs_f32());
        Ok(Servers { kafka: kafka.join().unwrap_or_else(|_| Err("Kafka's start panicked".to_owned()))?, elasticsearch: elasticsearch? })
    });
    started.as_ref().unwrap_or_else(|reason| panic!("the real servers are not there: {reason}"))
}

/// The servers, while other tests use them too.
#[derive(Debug)]
pub struct Together {
    servers: &'static Servers,
    _turn: RwLockReadGuard<'static, ()>,
}

/// The servers, while no other test uses them.
#[derive(Debug)]
pub struct Alone {
    servers: &'static Servers,
    _turn: RwLockWriteGuard<'static, ()>,
}

/// Takes the servers together with other tests.
pub fn together() -> Together {
    let turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    Together { servers: servers(), _turn: turn }
}

/// Takes the servers for oneself, to do them harm.
pub fn alone() -> Alone {
    let turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
    Alone { servers: servers(), _turn: turn }
}

impl std::ops::Deref for Together {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        self.servers
    }
}

impl std::ops::Deref for Alone {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        self.servers
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.servers.kafka.recover();
        self.servers.elasticsearch.recover();
    }
}

/// The folder of a fetched server, fetched now when it is not there.
pub fn fetched(server: &str) -> Result<std::path::PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/fetch.sh");
    let output = Command::new("bash").args([script, server]).output().map_err(|error| format!("bash {script}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{server} cannot be fetched ({}): {messages}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The Java to run the servers with: `DROVER_TEST_JAVA_HOME`, else the one on the path, resolved because Elasticsearch wants a home.
pub fn java_home() -> Result<std::path::PathBuf, String> {
    if let Some(home) = std::env::var_os("DROVER_TEST_JAVA_HOME") {
        return Ok(home.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("java")).find(|java| java.is_file());
    let java = found.ok_or("there is no java on the path; run: bash .ci/prerequisites.sh")?;
    let real = java.canonicalize().map_err(|error| format!("{}: {error}", java.display()))?;
    let home = real.parent().and_then(std::path::Path::parent).ok_or_else(|| format!("{} is not in a Java home", real.display()))?;
    Ok(home.to_owned())
}

/// The home of a Java 21 or newer; `None` where it is left out, because there is none and nothing can fetch one.
pub fn newer_java_home() -> Result<Option<std::path::PathBuf>, String> {
    Ok(Some(fetched("java-21")?).filter(|home| !home.as_os_str().is_empty()))
}
