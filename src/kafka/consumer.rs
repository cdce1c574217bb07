//! The consumer thread: it alone polls, assigns, seeks and commits.
//!
//! One turn of the loop: serve librdkafka's events, follow the subscription, answer the tasks, deliver what is held, commit, publish, and then, if there is memory and nobody is blocked, take
//! what has come and hand it out. Back-pressure for everybody is not taking anything: librdkafka's queue fills, fetching stops, membership is kept. A partition that is blocked
//! alone is paused, which throws its prefetch away; therefore only after [`BLOCKED_ALONE`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::chunk::{Chunk, ChunkBuilder, Headroom};
use super::client::{self, ASKED_AT_ONCE, Events, GroupEvent};
use super::ffi::{self, Batch, CommitQueue, CommitResult, Message, OwnQueue};
use super::handle::{Command, ConsumerHandle, Intake, OpenError, RewindError, Subscription, Waker};
use super::lookups::is_about_a_topic;
use super::start::{self, Known};
use super::{ConsumerView, PartitionView, TopicPlan};
use crate::config::KafkaConfig;
use crate::invariants::{Invariant, SelfChecks};
use crate::memory::{Budget, Buffers};
use crate::mutants;
use crate::own_thread;
use crate::status::{LostRange, Reason, ReasonCode};
use crate::topic::{TopicName, TopicPartition};

mod history;
mod rewind;

use history::{LeaderEpochs, NO_LEADER_EPOCH};

/// Messages of one turn: large turns make long runs of one partition.
const TURN_MESSAGES: usize = 10_000;
/// Messages that are taken at once: what librdkafka touches for each of them is still in the caches when it is copied and released.
const BATCH_MESSAGES: usize = 1_000;
/// Bytes of one batch, by the size of the records before: a thousand of a megabyte each would pass any budget at once.
const BATCH_BYTES: usize = 4 << 20;
/// Messages of the first batch, of which nothing is known: `message.max.bytes` is 1 MB by default.
const FIRST_BATCH: usize = 4;
/// Bytes after which a turn takes no further batch: the budget is looked at between turns only, and ten thousand records of 60 KB would pass any.
const TURN_BYTES: usize = 16 << 20;
/// How long the first batch of a turn may take to fill: the latency of a quiet topic.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// How long the thread sleeps when it must not take anything; tasks wake it earlier.
const IDLE_WAIT: Duration = Duration::from_millis(5);
/// A chunk is handed over before it has more bytes than this, so that it fits into a buffer of exactly this size. 128 to 512 KiB cost the same CPU (`make bench`); smaller ones are handed over
/// earlier.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait in a mailbox.
const MAILBOX_CHUNKS: usize = 4;
/// How long everybody waits for one blocked partition before it is paused alone.
const BLOCKED_ALONE: Duration = Duration::from_millis(200);
/// How often changed watermarks are committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the commits before giving partitions back may take.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often positions are published.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);
/// How long one question to the brokers may take on this thread.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a question is asked before the consumer is built again.
const ASK_TRIES: u32 = 3;
/// Lost ranges that are kept for each partition.
const LOST_RANGES: usize = 20;

/// How the consumer is set up.
#[derive(Clone)]
pub struct ConsumerSettings {
    /// Kafka's section of the configuration.
    pub kafka: KafkaConfig,
    /// Bytes that librdkafka may prefetch.
    pub prefetch_bytes: u64,
    /// How long a revoked partition may take to settle.
    pub drain_timeout: Duration,
    /// Memory for what is taken from librdkafka.
    pub budget: Budget,
    /// Where chunks get their buffers.
    pub buffers: Buffers,
    /// What must never happen.
    pub checks: SelfChecks,
    /// Whether waiting for revoked partitions to settle makes sense.
    pub sink_is_well: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Why the consumer ended. It is then built again: the last resort, an event of the instance, no restart of a task.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The settings are not usable.
    #[error("the Kafka client cannot be made")]
    Create(#[source] KafkaError),
    /// librdkafka gave up.
    #[error("the Kafka client failed for good: {0}")]
    Fatal(String),
    /// A call that must work did not.
    #[error("cannot {what}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: KafkaError,
    },
    /// The thread could not be started or vanished.
    #[error("the consumer has no thread")]
    Thread(#[source] std::io::Error),
}

/// The consumer: settings and ends of channels that outlive each of its lives.
pub struct Consumer {
    inner: Arc<Inner>,
}

struct Inner {
    settings: ConsumerSettings,
    commands: Mutex<mpsc::UnboundedReceiver<Command>>,
    subscription: watch::Receiver<Subscription>,
    intake: watch::Receiver<bool>,
    view: watch::Sender<Arc<ConsumerView>>,
    beat: watch::Sender<tokio::time::Instant>,
    answers: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    waker: Arc<Waker>,
    epochs: AtomicU64,
    lost: Mutex<BTreeMap<TopicPartition, Lost>>,
}

#[derive(Debug, Clone, Default)]
struct Lost {
    ranges: Vec<LostRange>,
    total: u64,
}

impl Consumer {
    /// A consumer that does nothing yet, and its handle.
    pub fn new(settings: ConsumerSettings) -> (Self, ConsumerHandle) {
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (subscription, subscription_receiver) = watch::channel(Subscription::default());
        let (intake, intake_receiver) = watch::channel(true);
        let (view, view_receiver) = watch::channel(Arc::new(ConsumerView::default()));
        let (beat, beat_receiver) = watch::channel(tokio::time::Instant::now());
        let waker = Arc::new(Waker::default());
        let answers = Arc::new(AtomicU64::new(0));
        let looks = Arc::new(AtomicU64::new(0));
        let inner = Inner {
            settings,
            commands: Mutex::new(command_receiver),
            subscription: subscription_receiver,
            intake: intake_receiver,
            view,
            beat,
            answers: answers.clone(),
            looks: looks.clone(),
            waker: waker.clone(),
            epochs: AtomicU64::new(0),
            lost: Mutex::new(BTreeMap::new()),
        };
        let handle = ConsumerHandle { commands, subscription, intake, view: view_receiver, beat: beat_receiver, answers, looks, waker };
        (Self { inner: Arc::new(inner) }, handle)
    }

    /// One life: joins the group and consumes until cancelled, then commits and leaves. A panic of the thread is a panic of this future.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), ConsumerError> {
        let inner = self.inner.clone();
        own_thread::live("drover-consumer", &cancel, move |stop| inner.live(&stop)).await.map_err(ConsumerError::Thread)?
    }
}

impl Inner {
    fn live(&self, stop: &CancellationToken) -> Result<(), ConsumerError> {
        // A life that was told to end and has not yet holds the lock: two never overlap.
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        self.waker.set(std::thread::current());
        let mut session = Session::new(self)?;
        let result = session.run(&mut commands, stop);
        if result.is_ok() {
            session.commit_all();
        }
        let trouble = session.trouble.clone();
        drop(session);
        let intake_over = !*self.intake.borrow();
        self.view.send_replace(Arc::new(ConsumerView { partitions: BTreeMap::new(), trouble, surprises: 0, intake_over }));
        result
    }

    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn note_lost(&self, key: &TopicPartition, from: i64, to: i64) {
        warn!(topic = %key.topic, partition = key.partition, from, to, records = to - from, "kafka removed records before they were read");
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = lost.entry(key.clone()).or_default();
        entry.total += u64::try_from(to - from).unwrap_or(0);
        entry.ranges.push(LostRange { from, to, at: Timestamp::now() });
        if entry.ranges.len() > LOST_RANGES {
            entry.ranges.remove(0);
        }
    }

    fn lost(&self, key: &TopicPartition) -> Lost {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }
}

/// One assigned partition.
struct Partition {
    epoch: u64,
    topic_id: Option<String>,
    headers: bool,
    start: i64,
    /// After the last record taken from librdkafka.
    position: i64,
    /// After the last chunk that went into the present mailbox.
    handed: i64,
    watermark: Arc<AtomicI64>,
    /// The watermark as it was last looked at, for the self-checks.
    seen: i64,
    committed: Option<i64>,
    committed_at: Option<Timestamp>,
    /// What the commit on its way says.
    commit_sent: Option<i64>,
    mailbox: Option<mpsc::Sender<Chunk>>,
    builder: ChunkBuilder,
    held: VecDeque<Chunk>,
    blocked_since: Option<Instant>,
    /// The task closed its intake: nothing is fetched until it opens another.
    closed: bool,
    paused: bool,
    /// librdkafka's own position when it was last asked for, which also passes what is never delivered; not to be trusted for more than silence.
    native_position: i64,
    /// A record has come since the partition was moved last. Before that librdkafka's own position may still be that of before: it is reset while the fetch of before is being
    /// stopped, and an error counts in it as if it were a record.
    is_under_way: bool,
    /// An error has come since the partition was moved last. What follows it is not taken: it may lie behind records that did not come.
    is_broken: bool,
    unreadable: Option<Unreadable>,
    leader_epochs: LeaderEpochs,
    /// When the broker is asked next whether its log still has what the position is behind: set while that has to happen, and nothing is taken until it has.
    verify_at: Option<Instant>,
    /// How often that was done because the position was past the log's end; zero when a record has come since.
    verified_past_end: u32,
}

/// What the group has committed for a partition.
struct Commit {
    offset: i64,
    metadata: String,
    leader_epoch: i32,
}

/// Records that cannot be read where the partition stands.
struct Unreadable {
    offset: i64,
    reason: Reason,
    retry_at: Instant,
}

impl Partition {
    fn watermark(&self) -> i64 {
        self.watermark.load(Ordering::Acquire)
    }

    fn is_blocked(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a task takes its records and nothing holds them back.
    fn is_read(&self) -> bool {
        self.mailbox.is_some() && !self.closed && !self.paused && !self.is_blocked() && self.unreadable.is_none()
    }

    /// Whether everything that was taken for a task is settled, or its task is gone with it and will read it again.
    fn is_settled(&self) -> bool {
        let is_done = self.held.is_empty() && self.watermark() >= self.handed;
        is_done || self.mailbox.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// What should be committed, if it is more than what is.
    fn uncommitted(&self) -> Option<i64> {
        let watermark = if mutants::is_on(mutants::COMMIT_BEFORE_SETTLING) { self.position } else { self.watermark() };
        let known = self.commit_sent.or(self.committed).unwrap_or(self.start);
        (watermark > known).then_some(watermark)
    }

    /// Compares what the task says with what it was given and what it said before.
    fn look_at_watermark(&mut self, key: &TopicPartition, checks: &SelfChecks) {
        let watermark = self.watermark();
        checks.check(Invariant::SettledPastHanded, watermark <= self.handed, key, watermark, self.handed);
        checks.check(Invariant::WatermarkWentBack, watermark >= self.seen, key, watermark, self.seen);
        self.seen = watermark;
    }

    /// Goes on at `offset`, wherever it was before.
    fn stand_at(&mut self, offset: i64) {
        self.position = offset;
        self.native_position = offset;
        self.is_under_way = false;
        self.leader_epochs.cut(offset);
    }

    fn finish_chunk(&mut self, budget: &Budget) {
        if self.builder.is_empty() {
            return;
        }
        self.builder.fit();
        let charge = budget.charge(self.builder.held_bytes());
        self.held.push_back(self.builder.finish(charge));
    }

    /// Puts what is held into the mailbox, as far as there is room.
    fn deliver(&mut self) {
        let Some(mailbox) = self.mailbox.clone() else { return };
        while let Some(chunk) = self.held.pop_front() {
            let next_offset = chunk.next_offset();
            match mailbox.try_send(chunk) {
                Ok(()) => self.handed = next_offset,
                Err(mpsc::error::TrySendError::Full(chunk)) => {
                    self.held.push_front(chunk);
                    return;
                }
                Err(mpsc::error::TrySendError::Closed(chunk)) => {
                    // The task has ended; its successor opens a mailbox of its own.
                    self.held.push_front(chunk);
                    self.mailbox = None;
                    return;
                }
            }
        }
        self.blocked_since = None;
    }

    /// Forgets what is on the way to the task and has not reached its mailbox.
    fn stop_intake(&mut self) {
        self.held.clear();
        self.builder.clear();
        self.blocked_since = None;
    }

    /// Forgets what is on the way to the task, which will be read again, and ends its mailbox.
    fn drop_held(&mut self) {
        self.mailbox = None;
        self.stop_intake();
    }
}

/// One life of the consumer: a group member and what it has.
struct Session<'a> {
    inner: &'a Inner,
    partitions: BTreeMap<TopicPartition, Partition>,
    subscribed: Subscription,
    trouble: Option<Reason>,
    /// How many questions had been answered when the trouble was last noticed.
    answers_at_trouble: u64,
    /// How many look-ups of topics had been answered then; `None` where such an answer says nothing of the trouble.
    looks_at_trouble: Option<u64>,
    /// How often an offset or a topic was not as expected, which may mean that the topic was re-created.
    surprises: u64,
    changed: bool,
    next_commit: Instant,
    next_publish: Instant,
    /// Partitions that fell out of range and could not be moved yet.
    out_of_range: Vec<TopicPartition>,
    /// Partitions whose log was cut off, with its end, that could not be moved back yet; and when that is tried again.
    truncated: BTreeMap<TopicPartition, i64>,
    next_truncated: Instant,
    /// Declared before the consumer: the queues are destroyed first.
    queue: OwnQueue<Events>,
    commits: CommitQueue<Events>,
    consumer: Arc<BaseConsumer<Events>>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // Closing gives the partitions back from inside librdkafka's close; there is nobody to ask any more.
        self.consumer.client().context().close();
    }
}

impl<'a> Session<'a> {
    fn new(inner: &'a Inner) -> Result<Self, ConsumerError> {
        let settings = &inner.settings;
        let config = client::consumer(&settings.kafka, settings.prefetch_bytes);
        let consumer: BaseConsumer<Events> = config.create_with_context(Events::default()).map_err(ConsumerError::Create)?;
        let consumer = Arc::new(consumer);
        let now = Instant::now();
        Ok(Self {
            inner,
            partitions: BTreeMap::new(),
            subscribed: Subscription::default(),
            trouble: None,
            answers_at_trouble: 0,
            looks_at_trouble: None,
            surprises: 0,
            changed: true,
            next_commit: now,
            next_publish: now,
            out_of_range: Vec::new(),
            truncated: BTreeMap::new(),
            next_truncated: now,
            queue: OwnQueue::new(consumer.clone()),
            commits: CommitQueue::new(consumer.clone()),
            consumer,
        })
    }

    fn run(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>, stop: &CancellationToken) -> Result<(), ConsumerError> {
        let mut batch = Batch::new(BATCH_MESSAGES);
        batch.limit_to(FIRST_BATCH);
        while !stop.is_cancelled() {
            self.inner.beat.send_replace(tokio::time::Instant::now());
            fail::fail_point!("poll");
            self.serve_events()?;
            self.follow_subscription()?;
            while let Ok(command) = commands.try_recv() {
                self.serve(command)?;
            }
            self.deliver_held()?;
            self.forgive_an_outage();
            self.commit_if_due();
            self.publish_if_due();
            if !self.may_take() {
                std::thread::park_timeout(IDLE_WAIT);
                continue;
            }
            self.take_turn(&mut batch)?;
        }
        Ok(())
    }

    /// Takes what is there, up to [`TURN_MESSAGES`], or waits for something; then finishes and delivers the chunks.
    fn take_turn(&mut self, batch: &mut Batch) -> Result<(), ConsumerError> {
        let mut errors = Vec::new();
        let mut wait = BATCH_WAIT;
        let mut taken = 0;
        for _ in 0..TURN_MESSAGES / BATCH_MESSAGES {
            self.queue.consume(wait, batch);
            let bytes = self.hand_out(batch, &mut errors);
            taken += bytes;
            let has_more = batch.is_full();
            if let Some(messages) = next_batch(bytes, batch.len()) {
                batch.limit_to(messages);
            }
            if !has_more || taken >= TURN_BYTES {
                break;
            }
            wait = Duration::ZERO;
        }
        let budget = self.inner.settings.budget.clone();
        for partition in self.partitions.values_mut() {
            partition.finish_chunk(&budget);
            if partition.is_blocked() {
                partition.deliver();
            }
        }
        for (key, code, text) in errors {
            self.partition_error(&key, code, &text)?;
        }
        Ok(())
    }

    fn may_take(&self) -> bool {
        *self.inner.intake.borrow()
            && self.inner.settings.budget.has_room()
            && !self.partitions.values().any(|partition| partition.is_blocked() && !partition.paused)
    }

    /// Serves librdkafka's main queue, which carries events only: records come through the own queue.
    fn serve_events(&mut self) -> Result<(), ConsumerError> {
        let consumer = self.consumer.clone();
        for _ in 0..100 {
            match consumer.poll(Duration::ZERO) {
                None => break,
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Err(ConsumerError::Fatal(client::fatal_text(code))),
                Some(Err(error)) => self.note_error(&error),
                // Forwarding is set before assigning, so this does not happen; if it does, the record must not be skipped.
                Some(Ok(message)) => {
                    let Some(key) = self.key(rdkafka::Message::topic(&message), rdkafka::Message::partition(&message)) else { continue };
                    let offset = rdkafka::Message::offset(&message);
                    warn!(topic = %key.topic, partition = key.partition, offset, "a record came on the main queue, the partition is read again from there");
                    self.queue.take_over(key.topic.as_str(), key.partition);
                    let position = self.partitions.get(&key).map(|partition| partition.position);
                    if let Some(position) = position {
                        self.reposition(&key, position, Move::Seek)?;
                    }
                }
            }
        }
        for event in consumer.client().context().take_group() {
            match event {
                GroupEvent::Assign(list) => self.assign(&list)?,
                GroupEvent::Revoke(list) => self.revoke(&list)?,
            }
        }
        while let Some(result) = self.commits.next(Duration::ZERO) {
            self.note_commit(result);
        }
        Ok(())
    }

    fn note_error(&mut self, error: &KafkaError) {
        let Some(mut told) = error.rdkafka_error_code().and_then(client::trouble) else {
            debug!(error = %error, "kafka reports an error");
            return;
        };
        let failure = self.consumer.client().context().last_failure();
        if told.0 == ReasonCode::KafkaUnreachable && failure.as_deref().is_some_and(client::is_refused_certificate) {
            told = client::REFUSED;
        }
        let (code, remedy) = told;
        let known = self.trouble.as_ref().map(|known| (known.code, known.since_at));
        if code == ReasonCode::KafkaUnreachable && known.is_some_and(|(known, _)| known == ReasonCode::Credentials) {
            // Refused credentials end in closed connections, which are not the cause.
            return;
        }
        let message = match failure.filter(|_| code != ReasonCode::UnknownError) {
            Some(failure) => format!("{error}; the last connection failed with: {failure}"),
            None => error.to_string(),
        };
        let since_at = match known {
            Some((known, since_at)) if known == code => since_at,
            _ => {
                warn!(error = message, code = code.as_str(), "kafka is in trouble");
                Timestamp::now()
            }
        };
        self.trouble = Some(Reason { code, message, remedy: remedy.to_owned(), since_at });
        self.answers_at_trouble = self.inner.answers.load(Ordering::Relaxed);
        let is_the_groups = error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed);
        self.looks_at_trouble = (!is_the_groups).then(|| self.inner.looks.load(Ordering::Relaxed));
        self.changed = true;
    }

    /// Brokers that have answered a question since the last error are reachable again, also when there is nothing to consume that would show it.
    fn forgive_an_outage(&mut self) {
        let is_outage = self.trouble.as_ref().is_some_and(|trouble| matches!(trouble.code, ReasonCode::KafkaUnreachable | ReasonCode::Credentials));
        let is_answered = self.inner.answers.load(Ordering::Relaxed) > self.answers_at_trouble;
        // Without partitions nobody asks for their ends.
        let is_let_in = self.partitions.is_empty() && self.looks_at_trouble.is_some_and(|before| self.inner.looks.load(Ordering::Relaxed) > before);
        if is_outage && (is_answered || is_let_in) {
            info!("kafka answers again");
            self.trouble = None;
            self.consumer.client().context().forget_failure();
            self.changed = true;
        }
    }

    fn follow_subscription(&mut self) -> Result<(), ConsumerError> {
        let wanted = self.inner.subscription.borrow().clone();
        if wanted == self.subscribed || !self.may_change_subscription() {
            return Ok(());
        }
        if !wanted.keys().eq(self.subscribed.keys()) {
            let names: Vec<&str> = wanted.keys().map(TopicName::as_str).collect();
            info!(topics = names.len(), "subscription changes");
            if names.is_empty() {
                self.consumer.unsubscribe();
            } else {
                self.consumer.subscribe(&names).map_err(|source| ConsumerError::Call { what: "subscribe", source })?;
            }
        }
        let mut renewed = Vec::new();
        for (key, partition) in &mut self.partitions {
            let Some(plan) = wanted.get(&key.topic) else { continue };
            partition.headers = plan.headers;
            if partition.topic_id != plan.topic_id {
                renewed.push((key.clone(), plan.clone()));
            }
        }
        self.subscribed = wanted;
        for (key, plan) in renewed {
            self.renew(&key, &plan)?;
        }
        Ok(())
    }

    /// Whether librdkafka takes another subscription now. While the group is being joined for the first time, or anew after the membership was lost, it does not: librdkafka 2.12.1 ends the
    /// process when the metadata of a new topic is not there yet (`rd_kafka_cgrp_modify_subscription` asserts its join state, and `RD_KAFKA_CGRP_REBALANCING`, which would put the change
    /// off, counts only members that have an id). So a change waits until the member has its id; the newest one is taken then. The protocol of KIP-848 has no such state.
    fn may_change_subscription(&self) -> bool {
        self.subscribed.is_empty() || client::is_kip_848(&self.inner.settings.kafka) || ffi::has_member_id(&self.consumer)
    }

    /// The topic was re-created: what is held belongs to the old one, and so does every commit. The new one is read from its start under a new epoch.
    fn renew(&mut self, key: &TopicPartition, plan: &TopicPlan) -> Result<(), ConsumerError> {
        let epoch = self.inner.next_epoch();
        let Some(partition) = self.partitions.get_mut(key) else { return Ok(()) };
        let start = plan.start_offsets.get(&key.partition).copied().unwrap_or(0);
        partition.drop_held();
        partition.epoch = epoch;
        partition.topic_id = plan.topic_id.clone();
        partition.start = start;
        partition.handed = start;
        partition.watermark = Arc::new(AtomicI64::new(start));
        partition.seen = start;
        partition.committed = None;
        partition.committed_at = None;
        partition.commit_sent = None;
        partition.unreadable = None;
        // They are of the old topic.
        partition.leader_epochs.clear();
        self.changed = true;
        self.reposition(key, start, Move::Seek)
    }

    fn serve(&mut self, command: Command) -> Result<(), ConsumerError> {
        match command {
            Command::Open { partition: key, epoch, headroom, afresh, reply } => {
                let result = self.open(&key, epoch, headroom, afresh);
                // The task may have been cancelled meanwhile; then the mailbox is closed, which delivering notices.
                match result {
                    Ok(intake) => drop(reply.send(Ok(intake))),
                    Err(OpenFailure::Task(error)) => drop(reply.send(Err(error))),
                    Err(OpenFailure::Session(error)) => {
                        drop(reply.send(Err(OpenError::Reposition)));
                        return Err(error);
                    }
                }
            }
            Command::Rewind { partition: key, offset, reply } => {
                // Whoever asked may have gone; what was done stays done.
                match self.rewind(&key, offset) {
                    Ok(result) => drop(reply.send(result)),
                    Err(error) => {
                        drop(reply.send(Err(RewindError::Stopped)));
                        return Err(error);
                    }
                }
            }
            Command::Close { partition: key, epoch } => {
                let Some(partition) = self.partitions.get_mut(&key).filter(|partition| partition.epoch == epoch) else { return Ok(()) };
                partition.drop_held();
                partition.closed = true;
                partition.handed = partition.watermark();
                self.pause(&key)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, key: &TopicPartition, epoch: u64, headroom: Option<Headroom>, afresh: bool) -> Result<Intake, OpenFailure> {
        if !*self.inner.intake.borrow() {
            return Err(OpenFailure::Task(OpenError::Stopped));
        }
        let Some(partition) = self.partitions.get_mut(key).filter(|partition| partition.epoch == epoch) else {
            return Err(OpenFailure::Task(OpenError::Gone));
        };
        let watermark = if mutants::is_on(mutants::NO_REWIND) { partition.handed } else { partition.watermark() };
        partition.closed = false;
        // What was handed to the task before is gone with it. What is still held begins where the task begins only if nothing was handed.
        if afresh {
            warn!(topic = %key.topic, partition = key.partition, offset = watermark, "nothing came although there are records, the partition is assigned again");
            partition.drop_held();
            self.move_to(key, watermark, Move::Assign { from: watermark }).map_err(OpenFailure::Session)?;
        } else if partition.handed != watermark || partition.paused {
            partition.drop_held();
            self.reposition(key, watermark, Move::Seek).map_err(OpenFailure::Session)?;
        }
        let Some(partition) = self.partitions.get_mut(key) else { return Err(OpenFailure::Task(OpenError::Gone)) };
        let (mailbox, chunks) = mpsc::channel(MAILBOX_CHUNKS);
        partition.mailbox = Some(mailbox);
        partition.builder.leave_room(headroom);
        partition.handed = watermark;
        partition.deliver();
        Ok(Intake { chunks, watermark: partition.watermark.clone(), start: watermark, waker: self.inner.waker.clone() })
    }

    /// Moves a partition to `offset` and lets it be fetched. Records of before do not come any more.
    ///
    /// A closed partition only takes note of the offset: fetched now, its records would be dropped, and whoever opens it moves it.
    fn reposition(&mut self, key: &TopicPartition, offset: i64, how: Move) -> Result<(), ConsumerError> {
        if let Some(partition) = self.partitions.get_mut(key).filter(|partition| partition.closed) {
            partition.stand_at(offset);
            return self.pause(key);
        }
        self.move_to(key, offset, how)
    }

    fn move_to(&mut self, key: &TopicPartition, offset: i64, how: Move) -> Result<(), ConsumerError> {
        // Seeking works only while the partition is being fetched.
        let is_sought = how == Move::Seek && self.seek(&[(key, offset)])?.first().is_some_and(|is_sought| *is_sought);
        let mut target = TopicPartitionList::with_capacity(1);
        let from = if let Move::Assign { from } = how { from } else { offset };
        let fill = target.add_partition_offset(key.topic.as_str(), key.partition, Offset::Offset(from));
        fill.map_err(|source| ConsumerError::Call { what: "name an offset", source })?;
        if !is_sought {
            debug!(topic = %key.topic, partition = key.partition, offset, "partition is assigned again");
            let unassigned = self.consumer.incremental_unassign(&target);
            let assigned = unassigned.and_then(|()| self.queue.assign(&target));
            assigned.map_err(|source| ConsumerError::Call { what: "move a partition", source })?;
        }
        let Some(partition) = self.partitions.get_mut(key) else { return Ok(()) };
        partition.stand_at(offset);
        partition.is_broken = false;
        let has_to_verify = !is_sought && partition.leader_epochs.below(offset) != NO_LEADER_EPOCH;
        partition.verify_at = has_to_verify.then(Instant::now);
        if partition.paused {
            partition.paused = false;
            // Only what is paused may be resumed: resuming a running partition would make librdkafka drop what it has fetched.
            self.consumer.resume(&target).map_err(|source| ConsumerError::Call { what: "resume a partition", source })?;
        }
        Ok(())
    }

    fn pause(&mut self, key: &TopicPartition) -> Result<(), ConsumerError> {
        let Some(partition) = self.partitions.get_mut(key).filter(|partition| !partition.paused) else { return Ok(()) };
        partition.paused = true;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(key.topic.as_str(), key.partition);
        self.consumer.pause(&list).map_err(|source| ConsumerError::Call { what: "pause a partition", source })
    }

    fn deliver_held(&mut self) -> Result<(), ConsumerError> {
        let now = Instant::now();
        let mut blocked = 0;
        let mut to_pause = Vec::new();
        let mut to_resume = Vec::new();
        let mut to_verify = Vec::new();
        for (key, partition) in &mut self.partitions {
            // Opening a closed partition moves it, which verifies it.
            if partition.verify_at.is_some_and(|at| at <= now) && !partition.closed {
                to_verify.push(key.clone());
            }
            if partition.is_blocked() {
                partition.deliver();
            }
            if partition.is_blocked() {
                blocked += 1;
                let since = *partition.blocked_since.get_or_insert(now);
                if !partition.paused && now.duration_since(since) >= BLOCKED_ALONE {
                    to_pause.push(key.clone());
                }
            } else if partition.paused
                && !partition.closed
                && partition.unreadable.as_ref().is_none_or(|unreadable| now >= unreadable.retry_at)
                && partition.mailbox.as_ref().is_some_and(|mailbox| mailbox.capacity() > 0)
            {
                to_resume.push((key.clone(), partition.position));
            }
        }
        // When everybody is blocked, not taking anything is enough and keeps the prefetch.
        if blocked < self.partitions.len() {
            for key in to_pause {
                debug!(topic = %key.topic, partition = key.partition, "partition is blocked alone and is paused");
                self.pause(&key)?;
            }
        }
        for (key, position) in to_resume {
            self.reposition(&key, position, Move::Seek)?;
        }
        self.verify(&to_verify)?;
        for key in std::mem::take(&mut self.out_of_range) {
            self.move_into_range(&key)?;
        }
        if now >= self.next_truncated {
            self.next_truncated = now + COMMIT_INTERVAL;
            for (key, end) in std::mem::take(&mut self.truncated) {
                self.follow_truncation(&key, end)?;
            }
        }
        Ok(())
    }

    /// Distributes a batch to the partitions' chunks; how many bytes that were. Nothing here allocates per record.
    fn hand_out(&mut self, batch: &Batch, errors: &mut Vec<(TopicPartition, RDKafkaErrorCode, String)>) -> usize {
        let mut taken = 0;
        let budget = self.inner.settings.budget.clone();
        let mut run: Option<(Message<'_>, Option<(TopicPartition, &mut Partition)>)> = None;
        let mut got_something = false;
        for message in batch.messages() {
            if !matches!(&run, Some((first, _)) if first.same_partition(&message)) {
                drop(run.take());
                let key = key_in(&self.subscribed, message.topic(), message.partition());
                let target = key.and_then(|key| self.partitions.get_mut(&key).map(|partition| (key, partition)));
                run = Some((message, target));
            }
            let Some((_, Some((key, partition)))) = &mut run else { continue };
            if partition.is_broken {
                continue;
            }
            if let Some(code) = message.error() {
                partition.is_under_way = false;
                partition.is_broken = true;
                errors.push((key.clone(), code, message.error_text()));
                continue;
            }
            let offset = message.offset();
            if offset < partition.position || partition.closed || partition.verify_at.is_some() {
                continue;
            }
            if partition.unreadable.take().is_some() {
                info!(topic = %key.topic, partition = key.partition, offset, "the records can be read again");
                self.changed = true;
            }
            got_something = true;
            taken += message.bytes();
            partition.is_under_way = true;
            partition.verified_past_end = 0;
            partition.position = offset + 1;
            partition.leader_epochs.note(offset, message.leader_epoch());
            if partition.builder.would_exceed(CHUNK_BYTES, offset, message.bytes()) {
                partition.finish_chunk(&budget);
                partition.deliver();
            }
            if partition.headers {
                let headers = message.headers().map(|(name, value)| (std::str::from_utf8(name).unwrap_or("\u{fffd}"), value));
                partition.builder.push(offset, message.timestamp_ms(), message.key(), message.value(), headers);
            } else {
                partition.builder.push(offset, message.timestamp_ms(), message.key(), message.value(), std::iter::empty());
            }
        }
        drop(run);
        if got_something && self.trouble.take().is_some() {
            info!("kafka delivers again");
            self.consumer.client().context().forget_failure();
            self.changed = true;
        }
        taken
    }

    fn assign(&mut self, list: &[(String, i32)]) -> Result<(), ConsumerError> {
        let mut keys: Vec<TopicPartition> = list.iter().filter_map(|(topic, partition)| self.key(topic, *partition)).collect();
        // A fetch names a topic anew wherever the next partition is another topic's, in the order in which partitions were started, and librdkafka looks each name of the answer up in a list of
        // all topics (`rd_kafka_topic_find_by_topic_id`). The assignor deals out one partition of each topic after the other. So librdkafka's source says; a profile gave that look-up 1 %.
        keys.sort_unstable();
        info!(partitions = keys.len(), "partitions assigned");
        let committed = self.committed(&keys)?;
        let lows = self.offsets(&keys, Offset::Beginning)?;
        let highs = self.offsets(&keys, Offset::End)?;
        let mut assignment = TopicPartitionList::with_capacity(keys.len());
        let mut to_verify = Vec::new();
        for key in keys {
            let plan = self.subscribed.get(&key.topic).cloned();
            let topic_id = plan.as_ref().and_then(|plan| plan.topic_id.clone());
            let commit = committed.get(&key);
            let leader_epoch = commit.map_or(NO_LEADER_EPOCH, |commit| commit.leader_epoch);
            let known = Known {
                committed: commit.map(|commit| (commit.offset, commit.metadata.as_str())),
                is_verified: leader_epoch != NO_LEADER_EPOCH,
                topic_id: topic_id.as_deref(),
                fact: plan.as_ref().and_then(|plan| plan.start_offsets.get(&key.partition)).copied(),
                low: lows.get(&key).copied().unwrap_or(0),
                high: highs.get(&key).copied().unwrap_or(i64::MAX),
            };
            let start = start::choose(known);
            if let Some((from, to)) = start.lost {
                self.inner.note_lost(&key, from, to);
            }
            debug!(topic = %key.topic, partition = key.partition, offset = start.offset, committed = start.committed, "partition starts");
            let added = assignment.add_partition(key.topic.as_str(), key.partition).set_offset(Offset::Offset(start.offset.min(known.high)));
            added.map_err(|source| ConsumerError::Call { what: "name an offset", source })?;
            let mut partition = Partition {
                epoch: self.inner.next_epoch(),
                topic_id,
                headers: plan.is_some_and(|plan| plan.headers),
                start: start.offset,
                position: start.offset,
                handed: start.offset,
                watermark: Arc::new(AtomicI64::new(start.offset)),
                seen: start.offset,
                committed: start.committed,
                committed_at: None,
                commit_sent: None,
                mailbox: None,
                builder: ChunkBuilder::new(self.inner.settings.buffers.clone()),
                held: VecDeque::new(),
                blocked_since: None,
                closed: false,
                paused: false,
                native_position: start.offset,
                is_under_way: false,
                is_broken: false,
                unreadable: None,
                leader_epochs: LeaderEpochs::default(),
                verify_at: None,
                verified_past_end: 0,
            };
            if start.committed == Some(start.offset) && leader_epoch != NO_LEADER_EPOCH {
                partition.leader_epochs.note(start.offset - 1, leader_epoch);
                partition.verify_at = Some(Instant::now());
                to_verify.push(key.clone());
            }
            self.partitions.insert(key, partition);
        }
        // An empty list must be answered too.
        self.queue.assign(&assignment).map_err(|source| ConsumerError::Call { what: "assign partitions", source })?;
        self.verify(&to_verify)?;
        self.publish();
        Ok(())
    }

    fn committed(&self, keys: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Commit>, ConsumerError> {
        let mut committed = BTreeMap::new();
        for some in keys.chunks(ASKED_AT_ONCE) {
            committed.append(&mut self.committed_of(some)?);
        }
        Ok(committed)
    }

    /// The same in one question.
    fn committed_of(&self, keys: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Commit>, ConsumerError> {
        let mut query = TopicPartitionList::with_capacity(keys.len());
        for key in keys {
            query.add_partition(key.topic.as_str(), key.partition);
        }
        let answer = self
            .tries(|| self.consumer.committed_offsets(query.clone(), ASK_TIMEOUT))
            .map_err(|source| ConsumerError::Call { what: "read committed offsets", source })?;
        let details = ffi::commit_metadata(&answer).into_iter().zip(ffi::leader_epochs(&answer));
        let mut committed = BTreeMap::new();
        for (element, (metadata, leader_epoch)) in answer.elements().iter().zip(details) {
            let code = element.error().err();
            if let Some(source) = code {
                return Err(ConsumerError::Call { what: "read a committed offset", source });
            }
            if let (Offset::Offset(offset), Some(key)) = (element.offset(), self.key(element.topic(), element.partition())) {
                committed.insert(key, Commit { offset, metadata, leader_epoch });
            }
        }
        Ok(committed)
    }

    fn offsets(&self, keys: &[TopicPartition], which: Offset) -> Result<BTreeMap<TopicPartition, i64>, ConsumerError> {
        let mut offsets = BTreeMap::new();
        for some in keys.chunks(ASKED_AT_ONCE) {
            offsets.append(&mut self.offsets_of(some, which)?);
        }
        Ok(offsets)
    }

    /// The same in one question.
    fn offsets_of(&self, keys: &[TopicPartition], which: Offset) -> Result<BTreeMap<TopicPartition, i64>, ConsumerError> {
        let ask = || {
            let mut query = TopicPartitionList::with_capacity(keys.len());
            for key in keys {
                query.add_partition(key.topic.as_str(), key.partition).set_offset(which)?;
            }
            self.consumer.offsets_for_times(query, ASK_TIMEOUT)
        };
        let answer = self.tries(ask).map_err(|source| ConsumerError::Call { what: "read the range of the partitions", source })?;
        let mut offsets = BTreeMap::new();
        for element in answer.elements() {
            if let (Ok(()), Offset::Offset(offset), Some(key)) = (element.error(), element.offset(), self.key(element.topic(), element.partition())) {
                offsets.insert(key, offset);
            }
        }
        Ok(offsets)
    }

    fn revoke(&mut self, list: &[(String, i32)]) -> Result<(), ConsumerError> {
        let is_lost = self.consumer.assignment_lost();
        let keys: Vec<TopicPartition> = list.iter().filter_map(|(topic, partition)| self.key(topic, *partition)).collect();
        info!(partitions = keys.len(), lost = is_lost, "partitions revoked");
        for key in &keys {
            if let Some(partition) = self.partitions.get_mut(key) {
                partition.stop_intake();
            }
        }
        if !is_lost {
            self.await_settled(&keys);
            self.commit(&keys);
            self.await_commits();
        }
        let mut native = TopicPartitionList::with_capacity(list.len());
        let mut paused = TopicPartitionList::new();
        for (topic, partition) in list {
            native.add_partition(topic, *partition);
        }
        for key in &keys {
            // A pause would survive in librdkafka until the partition comes back.
            if self.partitions.remove(key).is_some_and(|partition| partition.paused) {
                paused.add_partition(key.topic.as_str(), key.partition);
            }
        }
        if paused.count() > 0 {
            self.consumer.resume(&paused).map_err(|source| ConsumerError::Call { what: "resume partitions", source })?;
        }
        self.consumer.incremental_unassign(&native).map_err(|source| ConsumerError::Call { what: "unassign partitions", source })?;
        self.publish();
        Ok(())
    }

    /// Waits until what the tasks of these partitions got is settled, at most as long as a drain may take.
    fn await_settled(&self, keys: &[TopicPartition]) {
        let deadline = Instant::now() + self.inner.settings.drain_timeout;
        let is_settled = |key: &TopicPartition| self.partitions.get(key).is_none_or(Partition::is_settled);
        while Instant::now() < deadline && (self.inner.settings.sink_is_well)() && !keys.iter().all(is_settled) {
            std::thread::park_timeout(IDLE_WAIT);
        }
    }

    fn commit_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + COMMIT_INTERVAL;
        self.pass_control_records();
        let keys: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        self.commit(&keys);
    }

    /// Tells the tasks of offsets that hold no records of ours: librdkafka's position also passes control records and compacted offsets, which are never delivered. Everything below it has
    /// been handed out, since it moves with the batches that this thread takes; but see [`Partition::is_under_way`].
    fn pass_control_records(&mut self) {
        let Ok(positions) = self.consumer.position() else { return };
        let budget = self.inner.settings.budget.clone();
        for element in positions.elements() {
            let Offset::Offset(position) = element.offset() else { continue };
            let Some(partition) = self.key(element.topic(), element.partition()).and_then(|key| self.partitions.get_mut(&key)) else { continue };
            partition.native_position = position;
            if position <= partition.position || !partition.is_under_way || !partition.is_read() {
                continue;
            }
            partition.position = position;
            partition.builder.pass(position);
            partition.finish_chunk(&budget);
            partition.deliver();
        }
    }

    fn commit_all(&mut self) {
        let keys: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        self.commit(&keys);
        self.await_commits();
    }

    /// Sends a commit of the watermarks that moved. Each commit carries the topic's id, so that it is recognised when the topic was re-created meanwhile, and the leader epoch of its last record, so that a log that was
    /// cut off below it is.
    fn commit(&mut self, keys: &[TopicPartition]) {
        let mut offsets = TopicPartitionList::new();
        let mut leader_epochs = Vec::new();
        for key in keys {
            let Some(partition) = self.partitions.get_mut(key) else { continue };
            let Some(watermark) = partition.uncommitted() else { continue };
            leader_epochs.push(partition.leader_epochs.below(watermark));
            partition.leader_epochs.forget_below(watermark);
            let mut element = offsets.add_partition(key.topic.as_str(), key.partition);
            if element.set_offset(Offset::Offset(watermark)).is_err() {
                continue;
            }
            if let Some(topic_id) = &partition.topic_id {
                element.set_metadata(topic_id);
            }
            let settled = partition.watermark();
            self.inner.settings.checks.check(Invariant::CommittedPastSettled, watermark <= settled, key, watermark, settled);
            partition.commit_sent = Some(watermark);
        }
        if offsets.count() == 0 {
            return;
        }
        ffi::set_leader_epochs(&mut offsets, &leader_epochs);
        fail::fail_point!("commit");
        if let Err(code) = self.commits.send(&offsets) {
            warn!(code = %code, "offsets could not be committed, the next commit covers them");
            self.partitions.values_mut().for_each(|partition| partition.commit_sent = None);
        }
    }

    /// Waits for the results of the commits that are on their way.
    fn await_commits(&mut self) {
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        while self.partitions.values().any(|partition| partition.commit_sent.is_some()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(result) = self.commits.next(left) else {
                // Nothing is lost: the records are read again, and written again under the same ids.
                warn!("the last commit was not answered");
                return;
            };
            self.note_commit(result);
        }
    }

    fn note_commit(&mut self, result: CommitResult) {
        match result.error {
            None => {}
            // The group is being joined anew, which happens at every change of the subscription.
            Some(code @ (RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::UnknownMemberId)) => {
                debug!(code = %code, "a commit came in the middle of a rebalance, the next one covers it");
            }
            Some(code) => warn!(code = %code, "a commit failed, the next one covers it"),
        }
        for (topic, number, offset, error) in result.offsets {
            let Some(partition) = self.key(&topic, number).and_then(|key| self.partitions.get_mut(&key)) else { continue };
            // An answer to a commit of before this assignment says nothing about it.
            if partition.commit_sent != Some(offset) {
                continue;
            }
            partition.commit_sent = None;
            if result.error.is_none() && error.is_none() {
                partition.committed = Some(offset);
                partition.committed_at = Some(Timestamp::now());
                self.changed = true;
            }
        }
    }

    fn publish_if_due(&mut self) {
        // While the process stops somebody waits for the last records to settle.
        let is_stopping = !*self.inner.intake.borrow();
        if self.changed || is_stopping || Instant::now() >= self.next_publish {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.changed = false;
        self.next_publish = Instant::now() + PUBLISH_INTERVAL;
        let may_take = self.may_take();
        for (key, partition) in &mut self.partitions {
            partition.look_at_watermark(key, &self.inner.settings.checks);
        }
        let view = |(key, partition): (&TopicPartition, &Partition)| {
            let lost = self.inner.lost(key);
            let view = PartitionView {
                epoch: partition.epoch,
                topic_id: partition.topic_id.clone(),
                start: partition.start,
                position: partition.position,
                watermark: partition.watermark(),
                settled: partition.is_settled(),
                waits_at: (partition.is_read() && may_take).then_some(partition.position.max(partition.native_position)),
                committed: partition.committed,
                committed_at: partition.committed_at,
                unreadable: partition.unreadable.as_ref().map(|unreadable| unreadable.reason.clone()),
                lost: lost.ranges,
                lost_total: lost.total,
            };
            (key.clone(), view)
        };
        let view = ConsumerView {
            // Before the partitions, so that none of them gets more after they were looked at.
            intake_over: !*self.inner.intake.borrow(),
            partitions: self.partitions.iter().map(view).collect(),
            trouble: self.trouble.clone(),
            surprises: self.surprises,
        };
        self.inner.view.send_if_modified(|current| {
            let is_new = **current != view;
            if is_new {
                *current = Arc::new(view);
            }
            is_new
        });
    }

    /// Asks until an answer comes, a few times. The thread is alive while it waits.
    fn tries<T>(&self, mut ask: impl FnMut() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
        let mut tried = 1;
        loop {
            self.inner.beat.send_replace(tokio::time::Instant::now());
            match ask() {
                Err(error) if tried < ASK_TRIES => {
                    warn!(error = %error, tried, "kafka does not answer, asking again");
                    if is_about_a_topic(&error) {
                        self.learn_topics();
                    }
                    tried += 1;
                }
                result => return result,
            }
        }
    }

    /// Another member of the group may hear of new partitions first and give us some. This client says at once that there are none until it has new metadata, which it then keeps.
    fn learn_topics(&self) {
        self.inner.beat.send_replace(tokio::time::Instant::now());
        if let Err(error) = self.consumer.fetch_metadata(None, ASK_TIMEOUT) {
            debug!(error = %error, "the topics cannot be asked for");
        }
    }

    fn key(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        key_in(&self.subscribed, topic, partition)
    }
}

/// How a partition is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// By seeking, where that works.
    Seek,
    /// By taking it out of the assignment and into it again, which renews everything that librdkafka keeps for it.
    Assign {
        /// Where fetching begins until the position is verified: inside the log.
        from: i64,
    },
}

/// Why a mailbox could not be opened: the task's affair, or the end of the session.
enum OpenFailure {
    Task(OpenError),
    Session(ConsumerError),
}

/// The name as it is shared, or a new one for a topic that has just left the subscription.
fn key_in(subscribed: &Subscription, topic: &str, partition: i32) -> Option<TopicPartition> {
    let name = match subscribed.get_key_value(topic) {
        Some((name, _)) => name.clone(),
        None => TopicName::new(topic).ok()?,
    };
    Some(TopicPartition::new(name, partition))
}
/// How many messages the next batch has, when the one before had so many of so many bytes; `None` where there was none.
fn next_batch(bytes: usize, messages: usize) -> Option<usize> {
    if messages == 0 {
        return None;
    }
    let fitting = BATCH_BYTES.saturating_mul(messages).checked_div(bytes).unwrap_or(BATCH_MESSAGES);
    Some(fitting.min(BATCH_MESSAGES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_large_records_are_not_taken_at_once() {
        assert_eq!(next_batch(300 * 1_000, 1_000), Some(1_000));
        assert_eq!(next_batch(4 * (512 << 10), 4), Some(8));
        assert_eq!(next_batch(5 << 20, 1), Some(0), "which is one for a batch");
        assert_eq!(next_batch(0, 0), None);
        assert_eq!(next_batch(0, 7), Some(1_000), "tombstones");
    }
}
