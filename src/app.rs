//! The composition root: builds the parts, starts them in order, stops them in order.
//!
//! Guarantees the order. Start: configuration → stores → sink, consumer, tasks → sources, reconciliation → API. Stop: readiness off → intake off → what is in work settles →
//! tasks end → offsets are committed and the group is left → the API last, so that the drain can be watched; all under one deadline, and what did not stop in time is named.
//! A second signal ends the process at once. Owns no rule about topics, records or HTTP: only the wiring.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{self, ApiState, LogLevel, StaticInfo};
use crate::causes::chain;
use crate::config::check::Unreachable;
use crate::config::{Config, KafkaConfig, Loaded, Secret};
use crate::desired::file::FileSource;
use crate::desired::{Desired, Merger};
use crate::invariants::SelfChecks;
use crate::kafka::{Consumer, ConsumerHandle, ConsumerSettings, LogEnds, Lookups, TopicIds, TopicLook};
use crate::memory::{Budget, Buffers};
use crate::pipeline::redrive::{Redriver, SpecOf};
use crate::pipeline::{Mishaps, PartitionWork};
use crate::reconcile::{Reconciler, TopicsView};
use crate::sink::SinkHandle;
use crate::sink::file::SetupError;
use crate::status::Snapshot;
use crate::supervisor::{NoLedger, Settings, Supervisor, SupervisorHandle, TaskError};
use crate::topic::TopicName;

mod actions;
mod api_thread;
mod components;
mod observe;
mod outlook;
mod sinks;
mod stores;

use components::{Component, Components};
use stores::Stores;

/// What librdkafka may prefetch: as fast as four times as much (`fetch` of one partition is on top).
const PREFETCH_BYTES: u64 = 16 << 20;
/// How many times the bodies in flight may be held in records and segments. Requests are sent from the segments themselves, which with their chunks and the room in both are about twice and a
/// half the bytes that are sent; so this is the requests in flight, one that is gathered, and a little that is on the way to it.
const WAITING_BODIES: u64 = 4;
/// Unused buffers of chunks and segments that are kept: what comes back between two bulk answers.
const IDLE_BUFFER_BYTES: usize = 32 << 20;
/// Parts of the instance are tried again at least this often: without one of them nothing works.
const PART_BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What a run is told beside its configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file's path.
    pub config_path: PathBuf,
    /// Listen here instead of where the file says.
    pub listen: Option<SocketAddr>,
    /// Listen on an address that others can reach although there are no tokens.
    pub insecure: bool,
    /// Where topic UUIDs come from.
    pub topic_ids: TopicIds,
    /// Values that the configuration may name as `${NAME}`, in front of the process's environment; the same as when it was loaded, since the file is read again.
    pub variables: BTreeMap<String, String>,
    /// Librdkafka's settings of the group member, where the configuration says nothing about them.
    pub member_settings: BTreeMap<String, String>,
    /// Crashes on purpose, in the demo.
    pub mishaps: Option<Mishaps>,
    /// The log's filter, which belongs to whoever has begun the log.
    pub log_level: Arc<dyn LogLevel>,
}

impl Options {
    /// The options of `drover run` with nothing but a configuration.
    pub fn new(config_path: PathBuf, log_level: Arc<dyn LogLevel>) -> Self {
        Self {
            config_path,
            listen: None,
            insecure: false,
            topic_ids: TopicIds::Brokers,
            variables: BTreeMap::new(),
            member_settings: BTreeMap::new(),
            mishaps: None,
            log_level,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything stopped in time.
    Clean,
    /// The deadline passed with work left, or something did not stop.
    Leftovers,
}

/// Why drover does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is open to others and nothing guards it.
    #[error(
        "{0} can be reached by others and there are no tokens; name a file of tokens with `auth.tokens_file` (see `drover token --help`), listen on a loopback address, or say --insecure if something else guards it"
    )]
    OpenToOthers(SocketAddr),
    /// The file of the API's tokens cannot be used.
    #[error("the API's tokens cannot be used: {0}")]
    Tokens(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose another address with `listen:` or --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The data directory or something in it cannot be used.
    #[error(
        "cannot use the data directory {path}; a broken file there can be moved away: without store.redb start offsets are decided anew where nothing is committed, without dead-letters.redb its letters are gone, without restarts.redb counts begin again"
    )]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part refuses its settings.
    #[error("cannot set up {part}")]
    Setup {
        /// The part.
        part: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder of the file sink cannot be used.
    #[error(transparent)]
    SinkFolder(SetupError),
}

impl StartError {
    /// The process's exit code: 78 for configuration, 1 for what another process holds.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::OpenToOthers(_) | Self::Tokens(_) | Self::Setup { .. } => 78,
            Self::Listen { .. } | Self::DataDir { .. } | Self::SinkFolder(_) => 1,
        }
    }
}

/// Enough threads for tasks and bulk requests beside librdkafka's own; more cores do not help a stream that one consumer thread reads.
pub fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}

/// Runs until `signals` yields the name of a signal, and then stops in order; the next one ends it at once.
pub async fn run(loaded: Loaded, options: Options, signals: impl Stream<Item = &'static str> + Unpin) -> Result<End, StartError> {
    Ok(Instance::start(&loaded, &options)?.run(signals).await)
}

/// A started instance.
pub struct Instance {
    running: Running,
    address: SocketAddr,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown_timeout: Duration,
}

impl Instance {
    /// Starts everything; needs a runtime.
    pub fn start(loaded: &Loaded, options: &Options) -> Result<Self, StartError> {
        let config = &loaded.config;
        let wanted = options.listen.unwrap_or(config.listen);
        refuse_an_open_address(config, wanted, options.insecure)?;
        for warning in &loaded.warnings {
            warn!(path = warning.path, line = warning.line, detail = warning.detail, "configuration warning");
        }
        let listen = |source| StartError::Listen { address: wanted, source };
        let listener = std::net::TcpListener::bind(wanted).map_err(listen)?;
        // Another one where port 0 was asked for.
        let address = listener.local_addr().map_err(listen)?;
        let (running, snapshots) = start(loaded, options, listener)?;
        info!(address = %address, instance = running.instance, topics = config.topics.len(), "drover is up");
        Ok(Self { running, address, snapshots, shutdown_timeout: config.supervision.shutdown_timeout })
    }

    /// Where the API and the page are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the API answers from; the last one stays when the instance has ended.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Runs until `signals` yields the name of a signal, and then stops in order; the next one ends it at once.
    pub async fn run(self, mut signals: impl Stream<Item = &'static str> + Unpin) -> End {
        tokio::select! {
            signal = signals.next() => info!(signal, "stopping"),
            () = self.running.supervisors_ended() => error!("a supervisor has ended by itself, stopping"),
        }
        tokio::select! {
            end = self.running.stop(self.shutdown_timeout) => end,
            Some(signal) = signals.next() => {
                warn!(signal, "told to stop a second time, leaving at once");
                End::Leftovers
            }
        }
    }
}

/// Asks the servers that a configuration names whether they answer and Kafka whether it has the topics; says what is wrong with those that do not.
pub async fn probe(config: &Config) -> Vec<Unreachable> {
    let mut silent = Vec::new();
    let names = config.topics.iter().map(|topic| topic.name.clone()).collect();
    let looks = match Lookups::new(&config.kafka, TopicIds::Brokers) {
        Ok(lookups) => lookups.describe(names).await,
        Err(error) => Err(error),
    };
    match looks {
        Err(error) => {
            let remedy = "check that the brokers run, and what kafka.brokers and kafka.properties say".to_owned();
            silent.push(Unreachable { server: "kafka", detail: chain(&error), remedy });
        }
        Ok(looks) => silent.extend(looks.iter().filter_map(|(name, look)| without_topic(name, look))),
    }
    if let Some(etcd) = &config.etcd
        && let Err(error) = crate::desired::etcd::probe(etcd).await
    {
        let remedy = "check that the members run, and the addresses, credentials and certificates under etcd".to_owned();
        silent.push(Unreachable { server: "etcd", detail: error, remedy });
    }
    silent.extend(sinks::probe(&config.sink).await);
    silent
}

/// What is wrong when Kafka does not show this topic.
fn without_topic(name: &TopicName, look: &TopicLook) -> Option<Unreachable> {
    let (detail, remedy) = match look {
        TopicLook::Exists { .. } => return None,
        TopicLook::Missing => (format!("topic {name} does not exist in Kafka"), "create it, or remove it here"),
        TopicLook::Forbidden => (format!("topic {name} may not be read by this user"), "allow it to describe and read the topic"),
        TopicLook::Unknown(text) => (format!("Kafka does not describe topic {name} ({text})"), "try again, and look at the brokers' logs"),
    };
    Some(Unreachable { server: "kafka", detail, remedy: remedy.to_owned() })
}

/// Names of the signals that come.
pub type Signals = futures::stream::BoxStream<'static, &'static str>;

/// The signals that ask this process to stop: SIGTERM and SIGINT.
pub fn signals() -> std::io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(Box::pin(futures::stream::poll_fn(move |context| {
        if terminate.poll_recv(context).is_ready() {
            return std::task::Poll::Ready(Some("SIGTERM"));
        }
        interrupt.poll_recv(context).map(|_| Some("SIGINT"))
    })))
}

/// The command line may choose another address than the file, so that this is no problem of the file.
fn refuse_an_open_address(config: &Config, address: SocketAddr, insecure: bool) -> Result<(), StartError> {
    let is_open = !address.ip().is_loopback() && config.tokens_file.is_none();
    if is_open && !insecure {
        return Err(StartError::OpenToOthers(address));
    }
    Ok(())
}

/// The parts of a running instance, as far as stopping needs them.
struct Running {
    instance: String,
    draining: watch::Sender<bool>,
    wanted: BTreeMap<Component, ()>,
    components: SupervisorHandle<Components>,
    tasks: SupervisorHandle<PartitionWork>,
    consumer: ConsumerHandle,
    sink: SinkHandle,
    drain_timeout: Duration,
    supervisors: CancellationToken,
}

fn start(loaded: &Loaded, options: &Options, listener: std::net::TcpListener) -> Result<(Running, watch::Receiver<Arc<Snapshot>>), StartError> {
    let config = &loaded.config;
    let now = Timestamp::now();
    // The first thing, so that a start which is refused leaves nothing behind.
    let tokens = config.tokens_file.clone().map(|path| api::tokens_file(path, options.variables.clone())).transpose().map_err(StartError::Tokens)?;
    let (tokens_file, token_views) = tokens.unzip();
    let tls = config.tls.clone().map(api::tls_files).transpose().map_err(|error| StartError::Setup { part: "tls", source: error.into() })?;
    let (tls_files, tls_views) = tls.unzip();
    let (file, file_views) = FileSource::new(options.config_path.clone(), options.variables.clone(), loaded, now);
    let Stores { topics: store, keys, etcd, dead_letters, letters_in_sink, ledger } = Stores::open(config, file_views.clone())?;

    let sinks::Made { sink, handle: sink_handle, stats: sink_stats, bodies } = sinks::make(&config.sink)?;
    let setup = |part: &'static str| move |error: Box<dyn std::error::Error + Send + Sync>| StartError::Setup { part, source: error };
    let lookups = Lookups::new(&config.kafka, options.topic_ids).map_err(|error| setup("kafka")(error.into()))?;
    // What waits behind full requests makes nothing faster; the configured limit is for those who raise the requests' size or number.
    let budget = Budget::new(config.memory.saturating_sub(PREFETCH_BYTES + bodies).min(bodies * WAITING_BODIES));
    let buffers = Buffers::new(IDLE_BUFFER_BYTES);
    let checks = SelfChecks::default();
    let sink_of_consumer = sink_handle.clone();
    let sink_of_stop = sink_handle.clone();
    let (consumer, consumer_handle) = Consumer::new(ConsumerSettings {
        kafka: member_config(&config.kafka, &options.member_settings),
        prefetch_bytes: PREFETCH_BYTES,
        drain_timeout: config.supervision.drain_timeout,
        budget: budget.clone(),
        buffers: buffers.clone(),
        checks: checks.clone(),
        sink_is_well: Arc::new(move || sink_of_consumer.is_well()),
    });
    let (ends, ends_views) = LogEnds::new(lookups.clone(), consumer_handle.clone(), config.kafka.group_id.clone());

    let (redrives, redrive_orders) = crate::dead_letters::redrive::queue();

    let work = PartitionWork::new(consumer_handle.clone(), sink_handle.clone(), dead_letters.clone(), buffers, checks.clone());
    let work = Arc::new(work.with_mishaps(options.mishaps.clone()).with_ends(ends_views.clone()));
    let patience = &config.supervision;
    let task_settings = Settings {
        backoff_max: patience.backoff_max,
        stall_after: patience.stall_after,
        crash_loop_after: patience.crash_loop_after,
        ..Settings::default()
    };
    let (task_supervisor, tasks) = Supervisor::new("tasks", work.clone(), task_settings, Arc::new(ledger));

    let shares_topics = etcd.is_some();
    let (merger, desired) = Merger::new(file_views.clone(), keys, store.views());
    let (topics, topics_views) = watch::channel(Arc::new(TopicsView::default()));
    let (reconcile_beat, reconcile_beats) = watch::channel(Instant::now());
    let reconciler = Reconciler {
        desired: desired.clone(),
        store: store.clone(),
        lookups: lookups.clone(),
        consumer: consumer_handle.clone(),
        tasks: tasks.clone(),
        view: topics,
        beat: reconcile_beat,
    };

    let redriver = Redriver::new(redrive_orders, dead_letters.clone(), sink_handle.clone(), spec_of(desired.clone()));

    let instance = config.instance.clone().unwrap_or_else(|| default_instance(&listener));
    let (draining, draining_views) = watch::channel(false);
    let (snapshots, snapshot) = watch::channel(Arc::new(observe::first_snapshot(config.memory, PREFETCH_BYTES, now)));
    let (observe_beat, observe_beats) = watch::channel(Instant::now());
    let state = ApiState {
        snapshot: snapshot.clone(),
        desired: desired.clone(),
        store: store.clone(),
        outlook: Arc::new(outlook::Ahead { lookups: lookups.clone(), store, consumer: consumer_handle.clone(), desired: desired.clone() }),
        dead_letters: dead_letters.clone(),
        redrives,
        actions: Arc::new(actions::TaskActions {
            tasks: tasks.clone(),
            work: work.clone(),
            consumer: consumer_handle.clone(),
            lookups,
            snapshot: snapshot.clone(),
        }),
        info: Arc::new(StaticInfo {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: instance.clone(),
            started_at: now,
            group_id: config.kafka.group_id.clone(),
            brokers: config.kafka.brokers.len(),
            data_dir: config.data_dir.display().to_string(),
            memory_bytes: config.memory,
        }),
        beats: vec![
            (Component::Consumer.to_string(), consumer_handle.beat()),
            (Component::Reconcile.to_string(), reconcile_beats),
            (Component::Status.to_string(), observe_beats),
        ],
        log_level: options.log_level.clone(),
        pages: Arc::default(),
        stream: Arc::default(),
        readiness_require: config.readiness_require.clone(),
        tls: tls_views.clone(),
        tokens: token_views.clone(),
        allowed_hosts: config.allowed_hosts.clone(),
        http: config.http.clone(),
        metrics_per_partition: config.metrics_per_partition,
    };

    let mut parts = Components::default();
    parts.serve(Component::ConfigFile, file, |file, cancel| async move {
        file.run(cancel).await;
        Ok(())
    });
    if let Some(tokens) = tokens_file {
        parts.serve(Component::Tokens, tokens, |tokens, cancel| async move {
            tokens.run(cancel).await;
            Ok(())
        });
    }
    if let Some(files) = tls_files {
        parts.serve(Component::Tls, files, |files, cancel| async move {
            files.run(cancel).await;
            Ok(())
        });
    }
    if let Some(etcd) = etcd {
        parts.serve(Component::Etcd, etcd, |etcd, cancel| async move {
            etcd.run(cancel).await;
            Ok(())
        });
    }
    if let Some(letters) = letters_in_sink {
        parts.serve(Component::DeadLetters, letters, |letters, cancel| async move {
            letters.run(cancel).await;
            Ok(())
        });
    }
    parts.serve(Component::Redrive, redriver, |redriver, cancel| async move {
        redriver.run(cancel).await;
        Ok(())
    });
    parts.serve(Component::Desired, merger, |merger, cancel| async move {
        merger.run(cancel).await;
        Ok(())
    });
    parts.serve(Component::Reconcile, reconciler, |reconciler, cancel| async move {
        reconciler.run(cancel).await;
        Ok(())
    });
    parts.serve(Component::Consumer, consumer, |consumer, cancel| async move {
        consumer.run(cancel).await.map_err(|error| TaskError::caused("the consumer ended", error))
    });
    parts.serve(Component::LogEnds, ends, |ends, cancel| async move {
        ends.run(cancel).await;
        Ok(())
    });
    parts.serve(
        Component::Sink,
        sink,
        |sink, cancel| async move { sink.run(cancel).await.map_err(|error| TaskError::caused("the sink ended", error)) },
    );
    parts.serve(Component::Api, (listener, state), |api, cancel| async move {
        let listener = api.0.try_clone().map_err(|error| TaskError::caused("the listener cannot be shared", error))?;
        api_thread::serve(listener, api.1.clone(), cancel).await.map_err(|error| TaskError::caused("the server ended", error))
    });
    let observer_slot: Arc<std::sync::OnceLock<observe::Observer>> = Arc::default();
    parts.serve(Component::Status, observer_slot.clone(), |observer, cancel| async move {
        // Set below, before the first part starts.
        let Some(observer) = observer.get() else { return Err(TaskError::fatal("the observer was not set")) };
        observer.run(cancel).await;
        Ok(())
    });
    let wanted = parts.wanted();
    let part_settings = Settings { backoff_max: PART_BACKOFF_MAX, ..Settings::default() };
    let (part_supervisor, components) = Supervisor::new("parts", Arc::new(parts), part_settings, Arc::new(NoLedger));
    let observer = observe::Observer {
        instance: instance.clone(),
        desired,
        file: file_views,
        topics: topics_views,
        tasks: tasks.clone(),
        work,
        components: components.clone(),
        consumer: consumer_handle.clone(),
        ends: ends_views,
        sink: sink_handle,
        sink_stats,
        checks,
        budget,
        memory_limit: config.memory,
        prefetch_bytes: PREFETCH_BYTES,
        dead_letters,
        dead_letters_max_bytes: config.dead_letters.max_bytes,
        shares_topics,
        tokens: token_views,
        tls: tls_views,
        draining: draining_views,
        out: snapshots,
        beat: observe_beat,
    };
    // The cell is new, so setting it cannot fail.
    let _ = observer_slot.set(observer);

    let supervisors = CancellationToken::new();
    for supervisor in [futures::future::Either::Left(task_supervisor.run()), futures::future::Either::Right(part_supervisor.run())] {
        let ended = supervisors.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = ended;
            supervisor.await;
        });
    }
    components.apply(wanted.clone());
    let running = Running {
        instance,
        draining,
        wanted,
        components,
        tasks,
        consumer: consumer_handle,
        sink: sink_of_stop,
        drain_timeout: config.supervision.drain_timeout,
        supervisors,
    };
    Ok((running, snapshot))
}

/// Finds the effective spec of a topic in the list as merged last.
fn spec_of(desired: watch::Receiver<Option<Arc<Desired>>>) -> SpecOf {
    Arc::new(move |name| {
        let list = desired.borrow();
        list.as_ref().and_then(|list| list.topics.get(name)).map(|topic| topic.spec.clone())
    })
}

/// The configuration with `settings` where it says nothing.
fn member_config(config: &KafkaConfig, settings: &BTreeMap<String, String>) -> KafkaConfig {
    let mut member = config.clone();
    for (name, value) in settings {
        member.properties.entry(name.clone()).or_insert_with(|| Secret::new(value.clone()));
    }
    member
}

/// Host name and port.
fn default_instance(listener: &std::net::TcpListener) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
    match listener.local_addr() {
        Ok(address) => format!("{host}:{}", address.port()),
        Err(_) => host.to_owned(),
    }
}

impl Running {
    /// Ends when one of the supervisors has ended by itself, which only a fault in it can cause.
    async fn supervisors_ended(&self) {
        self.supervisors.cancelled().await;
    }

    /// Stops in order under one deadline; says whether anything was left.
    async fn stop(mut self, timeout: Duration) -> End {
        let deadline = Instant::now() + timeout;
        // What comes after settling needs time too.
        let settle_by = deadline - timeout.mul_f64(0.2);
        self.draining.send_replace(true);
        let first = [Component::ConfigFile, Component::Etcd, Component::Desired, Component::Reconcile, Component::Redrive];
        self.drop_parts(&first, deadline).await;
        self.consumer.stop_intake();
        let unsettled = self.await_settled(settle_by).await;
        for name in &unsettled {
            warn!(partition = name, "not everything that was read could be settled in time; it is read again at the next start");
        }
        let leftovers = self.tasks.stop(deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(5))).await;
        for name in &leftovers {
            error!(task = %name, "task did not end in time");
        }
        self.drop_parts(&[Component::Consumer], deadline).await;
        self.drop_parts(&[Component::Sink, Component::LogEnds], deadline).await;
        let remaining = self.components.stop(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(500))).await;
        for name in &remaining {
            error!(part = %name, "part did not end in time");
        }
        if unsettled.is_empty() && leftovers.is_empty() && remaining.is_empty() {
            info!("everything is settled, stopped");
            return End::Clean;
        }
        End::Leftovers
    }

    /// Ends these parts and waits until they have.
    async fn drop_parts(&mut self, parts: &[Component], deadline: Instant) {
        self.wanted.retain(|part, ()| !parts.contains(part));
        self.components.apply(self.wanted.clone());
        let mut view = self.components.view();
        let gone = view.wait_for(|slots| parts.iter().all(|part| !slots.contains_key(part)));
        if tokio::time::timeout_at(deadline, gone).await.is_err() {
            warn!(parts = parts.iter().map(Component::to_string).collect::<Vec<_>>().join(","), "parts did not end in time");
        }
    }

    /// Ends when the sink has been away for as long as a drain may take: waiting for it to settle anything makes no sense any more.
    async fn sink_stays_away(&self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        let mut away_since: Option<Instant> = None;
        loop {
            ticks.tick().await;
            if self.sink.is_well() {
                away_since = None;
            } else if away_since.get_or_insert_with(Instant::now).elapsed() >= self.drain_timeout {
                return;
            }
        }
    }

    /// Waits until everything that tasks got is settled; names the partitions where it is not.
    async fn await_settled(&self, deadline: Instant) -> Vec<String> {
        let mut view = self.consumer.view();
        // A view of before the intake ended may lack records that have reached the tasks since.
        let settled = view.wait_for(|view| {
            let is_settled = view.partitions.values().all(|partition| partition.settled);
            view.partitions.is_empty() || view.intake_over && is_settled
        });
        tokio::select! {
            settled = settled => if settled.is_ok() { return Vec::new() },
            () = tokio::time::sleep_until(deadline) => {}
            () = self.sink_stays_away() => {
                warn!(seconds = self.drain_timeout.as_secs(), "the sink does not take documents; what is in work is read again at the next start");
            }
        }
        let last = view.borrow().clone();
        last.partitions.iter().filter(|(_, partition)| !partition.settled).map(|(key, _)| key.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_missing_is_not_told_in_rusts_words() {
        let name = TopicName::new("orders").expect("a name");
        let told = without_topic(&name, &TopicLook::Missing).expect("a finding");
        assert_eq!(format!("{}: {}", told.detail, told.remedy), "topic orders does not exist in Kafka: create it, or remove it here");
        for look in [TopicLook::Forbidden, TopicLook::Unknown("leader not available".to_owned())] {
            let told = without_topic(&name, &look).expect("a finding");
            assert!(!told.detail.contains("Forbidden") && !told.detail.contains("Unknown("), "{told:?}");
        }
        assert_eq!(without_topic(&name, &TopicLook::Exists { topic_id: None, partitions: 1 }), None);
    }

    #[test]
    fn an_open_address_is_refused_until_something_guards_it() {
        let text = b"kafka: {brokers: ['a:1']}\nelasticsearch: {urls: ['http://e:1']}\n";
        let config = crate::config::parse(text, std::path::Path::new("."), &|_| None).expect("legal").config;
        let open = SocketAddr::from(([0, 0, 0, 0], 1));
        let error = refuse_an_open_address(&config, open, false).expect_err("open to others");
        assert!(error.to_string().contains("--insecure") && error.to_string().contains("auth.tokens_file"), "{error}");
        let guarded = Config { tokens_file: Some("tokens.yaml".into()), ..config.clone() };
        assert!(refuse_an_open_address(&guarded, open, false).is_ok() && !guarded.open_to_others());
        assert!(refuse_an_open_address(&config, open, true).is_ok() && refuse_an_open_address(&config, config.listen, false).is_ok());
    }
}
