//! `drover demo`: the real program with a Kafka cluster in the same process, a web shop that produces records, and files instead of a server.
//!
//! Guarantees that nothing is needed but a folder, that the pipeline, the supervision, the stores and the API are the ordinary ones of [`app`], and that a second start goes on with what the
//! first one left: topics, pauses, dead letters, restart counts and output. The cluster keeps nothing, so at each start its topics are other ones under the same names, and drover's own handling of re-created
//! topics applies: ids of documents never meet, and everything is read from its beginning. One process at a time uses the folder. Owns the folder's layout, the records and what is shown; decides nothing about
//! the pipeline save the crashes on purpose.
//!
//! ```text
//! <dir>/config.yaml   written at the first start, then the user's: edit it while the demo runs
//! <dir>/data          the embedded store, dead letters, the restart ledger
//! <dir>/out           bulk files, for `drover replay`
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::Stream;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::api::LogLevel;
use crate::app::{self, End, Instance, StartError};
use crate::config::{self, LoadError, Loaded};
use crate::kafka::mock::{MockBroker, MockError, Produced};
use crate::pipeline::Mishaps;
use crate::topic::TopicName;

pub mod records;
pub mod screen;

use records::{APP_LOG, CLICKS, CrashPlan, Generator, ORDERS, PAYMENTS, Rhythm};
use screen::{Counts, Place, Screen};

/// The cluster's topics and their partitions.
const TOPICS: [(&str, i32); 4] = [(ORDERS, 4), (APP_LOG, 4), (PAYMENTS, 2), (CLICKS, 2)];
/// How often records are produced.
const TICK: Duration = Duration::from_millis(100);
/// The progress is shown once in so many ticks.
const TICKS_PER_SHOW: u32 = 2;
/// The first start's configuration.
const CONFIG: &str = include_str!("demo/config.yaml");

/// What `drover demo` is told.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The folder for everything that is kept.
    pub dir: PathBuf,
    /// Listen here instead of where the folder's configuration says.
    pub listen: Option<SocketAddr>,
    /// Listen on an address that others can reach although there are no tokens.
    pub insecure: bool,
    /// Nothing crashes on purpose.
    pub calm: bool,
    /// What to type to start drover, for texts.
    pub program: String,
}

/// Why the demo does not start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The folder cannot be used.
    #[error("cannot use the folder {path}; choose another one with --dir")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another demo uses it.
    #[error("another demo uses the folder {0}; stop that one, or choose another folder with --dir (and another address with --listen)")]
    InUse(PathBuf),
    /// The configuration in the folder is not usable.
    #[error("{}", config::check::text(.0))]
    Config(#[source] LoadError),
    /// The cluster does not start.
    #[error("the demo has no Kafka cluster")]
    Cluster(#[source] MockError),
    /// drover itself does not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl DemoError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Folder { .. } | Self::InUse(_) | Self::Cluster(_) => 1,
            Self::Start(error) => error.exit_code(),
        }
    }

    /// What is printed.
    pub fn text(&self) -> String {
        match self {
            // It has its file and line already.
            Self::Config(error) => config::check::text(error),
            other => format!("drover: {}", crate::causes::chain(other)),
        }
    }
}

/// A demo that has everything it needs.
pub struct Demo {
    options: DemoOptions,
    config_path: PathBuf,
    loaded: Loaded,
    variables: BTreeMap<String, String>,
    broker: MockBroker,
    goes_on: bool,
    /// Held as long as the folder is used.
    _lock: File,
}

impl Demo {
    /// Takes the folder, starts the cluster and reads the configuration. Needs no runtime.
    pub fn prepare(options: DemoOptions) -> Result<Self, DemoError> {
        let lock = take_folder(&options.dir)?;
        let config_path = options.dir.join("config.yaml");
        let goes_on = write_config_once(&config_path).map_err(|source| DemoError::Folder { path: options.dir.clone(), source })?;
        let broker = start_cluster().map_err(DemoError::Cluster)?;
        let variables = BTreeMap::from([(config::DEMO_BROKERS.to_owned(), broker.addresses())]);
        let loaded = config::load(&config_path, &config::environment(&variables)).map_err(DemoError::Config)?;
        Ok(Self { options, config_path, loaded, variables, broker, goes_on, _lock: lock })
    }

    /// The log filter that the folder's configuration asks for.
    pub fn log_level(&self) -> Option<&str> {
        self.loaded.config.log_level.as_deref()
    }

    /// Runs until `signals` yields, and stops in order.
    pub async fn run(
        self,
        screen: &Screen,
        log_level: Arc<dyn LogLevel>,
        signals: impl Stream<Item = &'static str> + Unpin,
    ) -> Result<End, DemoError> {
        let mishaps = Mishaps::default();
        let options = app::Options {
            listen: self.options.listen,
            insecure: self.options.insecure,
            topic_ids: self.broker.topic_ids(),
            variables: self.variables.clone(),
            member_settings: self.broker.member_settings(),
            mishaps: (!self.options.calm).then(|| mishaps.clone()),
            ..app::Options::new(self.config_path.clone(), log_level)
        };
        let instance = Instance::start(&self.loaded, &options)?;
        let dir = &self.options.dir;
        screen.print(&screen::banner(&Place { address: instance.address(), dir, goes_on: self.goes_on, calm: self.options.calm }));
        let snapshots = instance.snapshots();
        let mut shop = Shop::new(&self.broker, mishaps);
        let end = {
            let show = |produced: &BTreeMap<&'static str, u64>| screen.show(&Counts::of(&snapshots.borrow(), produced));
            tokio::select! {
                end = instance.run(signals) => end,
                never = shop.run(show) => match never {},
            }
        };
        screen.finish();
        let counts = Counts::of(&snapshots.borrow(), &shop.produced);
        screen.print(&screen::farewell(&counts, dir, &self.options.program));
        Ok(end)
    }
}

/// Produces records and orders crashes.
struct Shop<'a> {
    broker: &'a MockBroker,
    mishaps: Mishaps,
    generator: Generator,
    rhythm: Rhythm,
    crashes: CrashPlan,
    produced: BTreeMap<&'static str, u64>,
}

impl<'a> Shop<'a> {
    fn new(broker: &'a MockBroker, mishaps: Mishaps) -> Self {
        Self {
            broker,
            mishaps,
            generator: Generator::new(rand::random()),
            rhythm: Rhythm::default(),
            crashes: CrashPlan::new(rand::random()),
            produced: BTreeMap::new(),
        }
    }

    /// Never ends by itself.
    async fn run(&mut self, show: impl Fn(&BTreeMap<&'static str, u64>)) -> std::convert::Infallible {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in (0..TICKS_PER_SHOW).cycle() {
            ticks.tick().await;
            self.turn(started.elapsed());
            if turn == 0 {
                show(&self.produced);
            }
        }
        std::future::pending().await
    }

    fn turn(&mut self, now: Duration) {
        if self.crashes.due(now) {
            self.mishaps.order();
        }
        for _ in 0..self.rhythm.due(now) {
            let time = Timestamp::now();
            let record = self.generator.next_record(time);
            let produced =
                Produced { topic: record.topic, key: record.key.as_deref(), payload: &record.payload, timestamp_ms: time.as_millisecond() };
            if self.broker.produce(&produced) {
                *self.produced.entry(record.topic).or_default() += 1;
            }
        }
        self.broker.serve();
    }
}

fn start_cluster() -> Result<MockBroker, MockError> {
    let broker = MockBroker::start()?;
    for (topic, partitions) in TOPICS {
        // The names are legal: a test takes each of them.
        if let Ok(topic) = TopicName::new(topic) {
            broker.create_topic(&topic, partitions)?;
        }
    }
    Ok(broker)
}

/// Makes the folder and takes it for this process.
fn take_folder(dir: &Path) -> Result<File, DemoError> {
    let failed = |source| DemoError::Folder { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join(".lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DemoError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Writes the configuration unless there is one; whether there was.
fn write_config_once(path: &Path) -> io::Result<bool> {
    if path.try_exists()? {
        return Ok(true);
    }
    // Whole or not at all: a first start that is killed here leaves nothing behind that the next would take for the user's.
    let new = path.with_extension("yaml.new");
    fs::write(&new, CONFIG)?;
    fs::rename(&new, path)?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_configuration_is_legal_and_names_topics_of_the_cluster() {
        let variables = BTreeMap::from([(config::DEMO_BROKERS.to_owned(), "127.0.0.1:1".to_owned())]);
        let loaded = config::parse(CONFIG.as_bytes(), Path::new("/d"), &config::environment(&variables)).expect("legal");
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.config.kafka.brokers, ["127.0.0.1:1"]);
        let named: Vec<&str> = loaded.config.topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(named, [ORDERS, APP_LOG]);
        for (topic, _) in TOPICS {
            assert!(TopicName::new(topic).is_ok(), "{topic}");
        }
    }

    #[test]
    fn a_configuration_that_was_edited_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        assert!(!write_config_once(&path).expect("written"));
        fs::write(&path, "edited").expect("a file");
        assert!(write_config_once(&path).expect("kept"));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "edited");
    }

    #[test]
    fn a_folder_is_taken_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let taken = take_folder(folder.path()).expect("free");
        let error = take_folder(folder.path()).expect_err("taken");
        assert!(matches!(error, DemoError::InUse(_)) && error.text().contains("--dir"), "{}", error.text());
        drop(taken);
        take_folder(folder.path()).expect("free again");
    }
}
