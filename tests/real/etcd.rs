//! drover's etcd side against a real etcd: the store's contract, and what the views say while etcd is killed, stopped, filled, compacted, emptied and given nonsense.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drover::config::{self, EtcdConfig, Secret};
use drover::desired::etcd::{self, EtcdStore};
use drover::desired::file::FileView;
use drover::desired::keys::KeysView;
use drover::desired::store::{Author, ChangesQuery, Precondition, StoreError, StoreView, TopicStore, suite};
use drover::status::{ChangeAction, SourceStatus};
use drover::topic::{Facts, Format, SpecFields, TopicName};
use futures::StreamExt;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::harness::etcd::{Etcd, Version};
use crate::harness::process::free_port;
use crate::harness::wait::holds_for;

/// A change of a key shows in a view.
const SOON: Duration = Duration::from_secs(5);
/// An outage is noticed and over: the longest is a stopped process, 15 s of silence and one call.
const EVENTUALLY: Duration = Duration::from_secs(40);

/// The etcd side of one instance.
pub(crate) struct Side {
    pub(crate) store: Arc<EtcdStore>,
    pub(crate) views: watch::Receiver<Arc<StoreView>>,
    keys: watch::Receiver<Arc<KeysView>>,
    file: watch::Sender<FileView>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Side {
    fn start(etcd: &Etcd, folder: &TempDir, keys: &[&str]) -> Self {
        Self::start_with(&etcd_config(etcd), &folder.path().join("etcd-cache.redb"), keys)
    }

    pub(crate) fn start_with(config: &EtcdConfig, cache: &Path, keys: &[&str]) -> Self {
        let (file, views_of_file) = watch::channel(file_view(keys));
        let parts = etcd::open(config, views_of_file, cache).expect("legal settings");
        let cancel = CancellationToken::new();
        let (source, token) = (parts.source, cancel.clone());
        let task = tokio::spawn(async move { source.run(token).await });
        let views = parts.store.views();
        Self { views, store: parts.store, keys: parts.keys, file, cancel, task }
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.task.await.expect("no panic");
    }

    pub(crate) async fn view(&self, what: &str, within: Duration, condition: impl FnMut(&Arc<StoreView>) -> bool) -> Arc<StoreView> {
        let mut views = self.views.clone();
        let waited = timeout(within, views.wait_for(condition)).await.map(|view| view.expect("the store lives").clone());
        waited.unwrap_or_else(|_| panic!("waited {within:?} in vain until {what}: {:?}", self.views.borrow().source))
    }

    async fn keys_view(&self, what: &str, condition: impl FnMut(&Arc<KeysView>) -> bool) -> Arc<KeysView> {
        let mut keys = self.keys.clone();
        let waited = timeout(SOON, keys.wait_for(condition)).await.map(|view| view.expect("the source lives").clone());
        waited.unwrap_or_else(|_| panic!("waited in vain until {what}: {:?}", self.keys.borrow()))
    }

    pub(crate) async fn ready(&self) -> Arc<StoreView> {
        self.view("the first view is there", Duration::from_secs(7), |view| view.is_ready).await
    }

    pub(crate) async fn put(&self, topic: &str) -> Result<i64, StoreError> {
        self.store
            .put_topic(&name(topic), SpecFields::default(), Precondition::Any, ChangeAction::Put, author())
            .await
            .map(|outcome| outcome.revision)
    }

    async fn changes(&self) -> Vec<drover::status::Change> {
        let query = ChangesQuery { limit: 10_000, ..ChangesQuery::default() };
        self.store.changes(query).await.expect("the changes")
    }
}

fn etcd_config(etcd: &Etcd) -> EtcdConfig {
    EtcdConfig { endpoints: vec![etcd.url()], prefix: "drover".to_owned(), credentials: None, ca_file: None, client_identity: None }
}

fn file_view(keys: &[&str]) -> FileView {
    let text =
        format!("kafka: {{brokers: ['a:1']}}\nelasticsearch: {{urls: ['http://e:1']}}\netcd: {{endpoints: ['http://h:1']}}\netcdkeys: {keys:?}\n");
    let loaded = config::parse(text.as_bytes(), Path::new("."), &|_| None).expect("a legal configuration");
    FileView::new(Path::new("config.yaml"), &loaded, Timestamp::now())
}

pub(crate) fn new_folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("a legal name")
}

fn names(view: &StoreView) -> Vec<&str> {
    view.topics.keys().map(TopicName::as_str).collect()
}

fn author() -> Author {
    Author { actor: "me".to_owned(), source: "api", request_id: None }
}

fn facts(topic_id: &str) -> Facts {
    Facts {
        topic_id: Some(topic_id.to_owned()),
        id_base: topic_id.to_owned(),
        partitions: 1,
        start_offsets: BTreeMap::from([(0, 3)]),
        first_seen_at: "2026-01-31T00:00:00Z".parse().expect("a time"),
    }
}

async fn keeps_the_contract(version: Version) {
    if !version.is_there() {
        return;
    }
    let (etcd, folder) = (Etcd::start(version, &[]), new_folder());
    let side = Side::start(&etcd, &folder, &[]);
    side.ready().await;
    suite::contract(&*side.store).await;
    suite::kept_changes(&*side.store).await;
    assert!(etcd.get_prefix("drover/changes/").len() <= 1000, "changes beyond the kept ones stay in etcd");
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_of_the_system_breaks_no_promise_of_the_contract() {
    keeps_the_contract(Version::System).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_etcd_breaks_no_promise_of_the_contract() {
    keeps_the_contract(Version::Built).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_writing_one_topic_lose_no_update() {
    let (etcd, folders) = (Etcd::start(Version::System, &[]), [new_folder(), new_folder()]);
    let sides = folders.each_ref().map(|folder| Side::start(&etcd, folder, &[]));
    for side in &sides {
        side.ready().await;
    }
    let write = |number: usize| {
        let fields = SpecFields { labels: Some(BTreeMap::from([("n".to_owned(), number.to_string())])), ..SpecFields::default() };
        let store = &sides[number % 2].store;
        async move { store.put_topic(&name("t"), fields, Precondition::Any, ChangeAction::Put, author()).await }
    };
    let outcomes = futures::future::join_all((0..20).map(write)).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(outcomes.iter().flatten().filter(|outcome| outcome.created).count(), 1);
    // What each change says of before is what the one before it left.
    let mut before = None;
    let changes = sides[0].changes().await;
    assert_eq!(changes.len(), 20);
    for change in changes.iter().rev() {
        assert_eq!(change.before, before, "{change:?}");
        before.clone_from(&change.after);
    }
    assert!(changes.is_sorted_by(|newer, older| newer.id > older.id && newer.revision > older.revision));
    for side in sides {
        side.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_under_the_prefix_is_named_and_harms_no_other_entry() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    etcd.put("drover/topics/good", r#"{"format": "text"}"#);
    let side = Side::start(&etcd, &folder, &[]);
    let view = side.ready().await;
    assert_eq!((names(&view), view.source.status), (vec!["good"], SourceStatus::Ok));

    etcd.put("drover/topics/good", "{\"format\": \"text\", \"fromat\": 1}");
    etcd.put("drover/topics/a/b", "{}");
    etcd.put("drover/topics/", "{}");
    etcd.put("drover/topics/..", "{}");
    etcd.put("drover/topics/__consumer_offsets", "{}");
    etcd.put_bytes("drover/pauses/good", b"\xff\xfe\x00");
    etcd.put_bytes("drover/topics/huge", &vec![b'x'; 1_000_000]);
    etcd.put("drover/topics/other", "{}");
    let view = side.view("the good entry is there", SOON, |view| view.topics.contains_key("other")).await;
    assert_eq!(names(&view), ["good", "other"]);
    assert_eq!(view.topics["good"].value.format, Some(Format::Text), "the last good value is gone");
    let error = view.source.error.clone().expect("a source that names the trouble");
    assert!(error.message.starts_with("the entry drover/") && error.message.ends_with("(and 6 more)"), "{}", error.message);
    assert_eq!(view.source.status, SourceStatus::Error);
    let read = side.store.topic(&name("good")).await;
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");

    side.put("good").await.expect("a broken entry can be written over");
    side.put("huge").await.expect("a huge entry can be written over");
    for key in ["drover/topics/a/b", "drover/topics/", "drover/topics/..", "drover/topics/__consumer_offsets", "drover/pauses/good"] {
        etcd.delete(key);
    }
    side.view("all is well again", SOON, |view| view.source.status == SourceStatus::Ok).await;
    assert_eq!(side.changes().await[1].before.as_ref().and_then(|before| before.get("fromat")).cloned(), Some(1.into()));
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_collector_key_keeps_its_list_and_a_removed_one_is_empty() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    etcd.put("collectlogkey1", r#"[{"path":"D:\\logs\\a","topic":"a"},{"Path":"x","Topic":"b"},{"path":"y","topic":"a"}]"#);
    let side = Side::start(&etcd, &folder, &["collectlogkey1", "later"]);
    let topics = |view: &KeysView| view.entries.iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>();
    let view = side.keys_view("the list is there", |view| view.is_ready).await;
    assert_eq!((topics(&view), view.sources.len()), (vec!["a".to_owned(), "b".to_owned()], 2));
    let first = view.sources[0].clone();
    assert_eq!((first.status, first.topics, first.detail.as_deref()), (SourceStatus::Ok, 2, Some("collectlogkey1")));
    assert!(first.revision.is_some() && first.content_hash.is_some() && first.read_at.is_some() && first.changed_at.is_some());

    let mut good = first.revision;
    for damaged in [&b"[{\"topic\":"[..], b"null", b"[{\"topic\": \"a b\"}]", b"\xff"] {
        etcd.put_bytes("collectlogkey1", damaged);
        let view = side.keys_view("the damage is told", |view| view.sources[0].status == SourceStatus::Error).await;
        assert_eq!((topics(&view).len(), view.sources[0].revision), (2, good), "{}", String::from_utf8_lossy(damaged));
        assert_eq!(view.sources[1].status, SourceStatus::Ok);
        assert!(view.sources[0].error.as_ref().is_some_and(|error| error.message.contains("collectlogkey1")));
        etcd.put("collectlogkey1", r#"[{"topic":"a"},{"topic":"b"}]"#);
        let view = side.keys_view("it is mended", |view| view.sources[0].status == SourceStatus::Ok).await;
        assert!(view.sources[0].revision > good && topics(&view).len() == 2);
        good = view.sources[0].revision;
    }
    etcd.put("collectlogkey1", "[]");
    side.keys_view("an empty list is empty", |view| view.entries.is_empty()).await;
    etcd.put("collectlogkey1", r#"[{"topic":"c"}]"#);
    side.keys_view("the new list is there", |view| topics(view) == ["c"]).await;
    etcd.delete("collectlogkey1");
    let view = side.keys_view("a removed key is empty", |view| view.entries.is_empty()).await;
    assert_eq!((view.sources[0].status, view.sources[0].revision), (SourceStatus::Ok, None));

    // The keys themselves change while we run.
    etcd.put("another", r#"[{"topic":"d"}]"#);
    side.file.send_replace(file_view(&["another"]));
    let view = side.keys_view("the new key is read", |view| topics(view) == ["d"]).await;
    assert_eq!(view.sources.len(), 1);
    etcd.put("another", r#"[{"topic":"e"}]"#);
    side.keys_view("the new key is watched", |view| topics(view) == ["e"]).await;
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_etcd_stops_nothing_and_is_followed_again() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    let side = Side::start(&etcd, &folder, &["k"]);
    side.ready().await;
    side.put("a").await.expect("written");
    side.view("a is there", SOON, |view| view.topics.contains_key("a")).await;
    for round in 0..3 {
        etcd.kill();
        let view = side.view("the outage is told", EVENTUALLY, |view| view.source.status == SourceStatus::Error).await;
        assert!(view.topics.contains_key("a"));
        let message = &view.source.error.as_ref().expect("told").message;
        assert!(message.contains("etcd cannot be reached") && message.contains("stays in force"), "{message}");
        let began = Instant::now();
        assert!(matches!(side.put("b").await, Err(StoreError::Unavailable { .. })));
        assert!(began.elapsed() < Duration::from_secs(2), "a refused connection took {:?}", began.elapsed());
        etcd.start_again();
        let view = side.view("etcd is read again", EVENTUALLY, |view| view.source.status == SourceStatus::Ok).await;
        assert!(view.topics.contains_key("a") && !view.topics.contains_key("b"), "{:?}", names(&view));
        let topic = format!("round-{round}");
        etcd.put(&format!("drover/topics/{topic}"), "{}");
        side.view("the watch lives again", SOON, |view| view.topics.contains_key(topic.as_str())).await;
    }
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_answer_is_called_unknown_and_what_is_said_is_true() {
    let (etcd, folder) = (Arc::new(Etcd::start(Version::System, &[])), new_folder());
    let side = Side::start(&etcd, &folder, &[]);
    side.ready().await;
    side.put("a").await.expect("written");
    side.view("a is there", SOON, |view| view.topics.contains_key("a")).await;
    let (stopped, stop) = (AtomicBool::new(false), etcd.clone());
    let pause_once = move || {
        if !stopped.swap(true, Ordering::SeqCst) {
            stop.pause();
        }
    };
    fail::cfg_callback("etcd_write drover/topics/unanswered", pause_once).expect("a failpoint");
    let began = Instant::now();
    let answer = side.put("unanswered").await;
    assert!(matches!(answer, Err(StoreError::OutcomeUnknown { .. })), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Now nothing can be sent at all: the read before the write has no answer.
    let began = Instant::now();
    let answer = side.put("unsent").await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let view = side.view("the silence is noticed", EVENTUALLY, |view| view.source.status == SourceStatus::Error).await;
    assert_eq!(names(&view), ["a"]);
    etcd.resume();
    side.view("etcd is read again", EVENTUALLY, |view| view.source.status == SourceStatus::Ok).await;
    // Repeating is safe whether or not the first was done, and the change tells what it found.
    side.put("unanswered").await.expect("written");
    let view = side.view("the topic is there", SOON, |view| view.topics.contains_key("unanswered")).await;
    assert!(!view.topics.contains_key("unsent"));
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_done_but_not_answered_is_found_by_its_change() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    let proxy = Proxy::start(etcd.address()).await;
    let config = EtcdConfig { endpoints: vec![format!("http://{}", proxy.address)], ..etcd_config(&etcd) };
    let side = Side::start_with(&config, &folder.path().join("etcd-cache.redb"), &[]);
    side.ready().await;
    let holding = proxy.holding.clone();
    fail::cfg_callback("etcd_write drover/topics/late", move || {
        holding.send_replace(true);
    })
    .expect("a failpoint");
    let began = Instant::now();
    let revision = side.put("late").await.expect("found by its change");
    assert!(began.elapsed() > Duration::from_secs(4), "the answer was not held back");
    let view = side.view("the topic is there", EVENTUALLY, |view| view.topics.contains_key("late")).await;
    assert_eq!(view.topics["late"].revision, revision);
    assert_eq!(side.changes().await.len(), 1, "written twice");
    side.stop().await;
}

/// Passes bytes on; while it holds, none from the server to the client, until the client sends something long after.
struct Proxy {
    address: SocketAddr,
    holding: watch::Sender<bool>,
}

impl Proxy {
    /// A call's time of 5 s ends the silence of the client, first by cancelling the call and then by asking again.
    const SILENCE: Duration = Duration::from_secs(4);

    async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let holding = watch::Sender::new(false);
        let shared = holding.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                tokio::spawn(Self::pass(client, server, shared.clone()));
            }
        });
        Self { address, holding }
    }

    async fn pass(mut client: TcpStream, mut server: TcpStream, holding: watch::Sender<bool>) {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let mut held_since: Option<Instant> = None;
        let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            tokio::select! {
                read = from_client.read(&mut up) => {
                    let Ok(count @ 1..) = read else { return };
                    if *holding.borrow() && held_since.get_or_insert_with(Instant::now).elapsed() > Self::SILENCE {
                        holding.send_replace(false);
                    }
                    if to_server.write_all(&up[..count]).await.is_err() { return }
                }
                read = from_server.read(&mut down), if !*holding.borrow() => {
                    let Ok(count @ 1..) = read else { return };
                    if to_client.write_all(&down[..count]).await.is_err() { return }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compactions_lose_no_change() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    let side = Side::start(&etcd, &folder, &["k"]);
    side.ready().await;
    for number in 0..30 {
        etcd.put("drover/topics/a", &format!("{{\"labels\": {{\"n\": \"{number}\"}}}}"));
        if number % 3 == 0 {
            etcd.put("drover/topics/b", "{}");
            etcd.delete("drover/topics/b");
        }
        if number % 5 == 0 {
            etcd.compact();
        }
        if number == 12 {
            etcd.kill();
            etcd.start_again();
            etcd.compact();
        }
    }
    let is_last =
        |view: &Arc<StoreView>| view.topics.get("a").and_then(|stored| stored.value.labels.as_ref()).is_some_and(|labels| labels["n"] == "29");
    let view = side.view("the last value is there", EVENTUALLY, is_last).await;
    assert_eq!(names(&view), ["a"]);
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_is_told_with_its_remedy_and_recovers() {
    let (etcd, folder) = (Etcd::start(Version::System, &["--quota-backend-bytes=16777216"]), new_folder());
    let side = Side::start(&etcd, &folder, &[]);
    side.ready().await;
    side.put("a").await.expect("written");
    etcd.put("drover/topics/b", "{}");
    etcd.fill();
    let error = side.put("c").await.expect_err("no space");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(matches!(error, StoreError::Unavailable { .. }) && cause.contains("space quota") && cause.contains("alarm disarm"), "{error:?}");
    etcd.delete("drover/topics/b");
    let view = side.view("a removal still comes through", SOON, |view| !view.topics.contains_key("b")).await;
    assert_eq!((names(&view), view.source.status), (vec!["a"], SourceStatus::Ok));
    etcd.make_room();
    side.put("c").await.expect("there is room again");
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_etcd_is_not_taken_for_a_dead_one() {
    for version in [Version::System, Version::Built].into_iter().filter(|version| version.is_there()) {
        let (etcd, folder) = (Etcd::start(version, &[]), new_folder());
        let side = Side::start(&etcd, &folder, &["k"]);
        let read_at = side.ready().await.source.read_at;
        // A stream that counts as dead is opened anew after a full read.
        holds_for("nothing is read again", Duration::from_secs(17), || side.views.borrow().source.read_at == read_at);
        side.stop().await;
    }
}

async fn waits_for_a_confirmation(side: &Side, kept: &[&str]) {
    let view = side.view("the loss is noticed", EVENTUALLY, |view| view.is_ready && view.source.status == SourceStatus::Stale).await;
    assert_eq!(names(&view), kept);
    let message = &view.source.error.as_ref().expect("told").message;
    assert!(message.contains("/api/v1/sources/store/confirm"), "{message}");
    assert!(matches!(side.put("new").await, Err(StoreError::Stale)));
    assert!(matches!(side.store.create_facts(&name("new"), facts("X")).await, Err(StoreError::Stale)));
    assert!(matches!(side.store.delete_topic(&name("a"), Precondition::Any, author()).await, Err(StoreError::Stale)));
    let keys = side.keys_view("the collector's keys are stale too", |view| view.sources[0].status == SourceStatus::Stale).await;
    assert_eq!(keys.entries.len(), 1);
    side.store.confirm().await.expect("confirmed");
    let view = side.views.borrow().clone();
    assert_eq!((view.source.status, names(&view).contains(&"a")), (SourceStatus::Ok, false));
    assert!(side.keys.borrow().entries.is_empty());
    side.put("new").await.expect("written");
    side.view("the new topic is there", SOON, |view| view.topics.contains_key("new")).await;
    side.store.confirm().await.expect("nothing to confirm");
}

async fn with_content(etcd: &Etcd, folder: &TempDir) -> Side {
    etcd.put("k", r#"[{"topic":"from-key"}]"#);
    let side = Side::start(etcd, folder, &["k"]);
    side.ready().await;
    for topic in ["a", "b"] {
        side.put(topic).await.expect("written");
    }
    side.view("both topics are there", SOON, |view| view.topics.len() == 2).await;
    side
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_etcd_stops_nothing_until_it_is_confirmed() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    let side = with_content(&etcd, &folder).await;
    etcd.kill();
    etcd.start_empty();
    // Also before the mirror has looked, nothing is written.
    while side.views.borrow().source.status != SourceStatus::Stale {
        let answer = side.put("too-early").await;
        assert!(matches!(answer, Err(StoreError::Stale | StoreError::Unavailable { .. })), "{answer:?}");
    }
    waits_for_a_confirmation(&side, &["a", "b"]).await;
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_to_an_emptied_etcd_that_the_mirror_has_not_looked_at() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    with_content(&etcd, &folder).await.stop().await;
    etcd.kill();
    etcd.start_empty();
    let (_file, file) = watch::channel(file_view(&["k"]));
    let parts = etcd::open(&etcd_config(&etcd), file, &folder.path().join("etcd-cache.redb")).expect("legal settings");
    let written = parts.store.put_topic(&name("a"), SpecFields::default(), Precondition::Any, ChangeAction::Put, author()).await;
    assert!(matches!(written, Err(StoreError::Stale)), "{written:?}");
    let created = parts.store.create_facts(&name("a"), facts("X")).await;
    assert!(matches!(created, Err(StoreError::Stale)), "{created:?}");
    assert!(etcd.get_prefix("drover/").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_stops_nothing_until_it_is_confirmed() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    let side = with_content(&etcd, &folder).await;
    side.stop().await;
    etcd.kill();
    etcd.start_empty_as_another_cluster();
    let side = Side::start(&etcd, &folder, &["k"]);
    waits_for_a_confirmation(&side, &["a", "b"]).await;
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_etcd_whose_revisions_have_overtaken_ours_is_found_out() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    let side = with_content(&etcd, &folder).await;
    let revision = etcd.revision();
    side.stop().await;
    etcd.kill();
    etcd.start_empty();
    while etcd.revision() <= revision + 5 {
        etcd.put("anything", "x");
    }
    let side = Side::start(&etcd, &folder, &["k"]);
    waits_for_a_confirmation(&side, &["a", "b"]).await;
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_etcd_runs_the_last_good_lists() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    let side = with_content(&etcd, &folder).await;
    assert_eq!(side.store.create_facts(&name("a"), facts("X")).await.expect("facts"), facts("X"));
    side.stop().await;
    etcd.kill();
    let side = Side::start(&etcd, &folder, &["k"]);
    let view = side.ready().await;
    assert_eq!((names(&view), view.source.status), (vec!["a", "b"], SourceStatus::Error));
    let message = &view.source.error.as_ref().expect("told").message;
    assert!(message.contains("the last good list of 20"), "{message}");
    assert_eq!(side.keys_view("the list of the key is there", |view| view.is_ready).await.entries.len(), 1);
    assert_eq!(side.store.facts(&name("a")).await.expect("kept facts"), Some(facts("X")));
    assert!(matches!(side.store.facts(&name("b")).await, Err(StoreError::Unavailable { .. })));
    etcd.start_again();
    side.view("etcd is read", EVENTUALLY, |view| view.source.status == SourceStatus::Ok).await;
    side.put("c").await.expect("written");
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_without_etcd_is_ready_and_says_so() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    etcd.kill();
    let side = Side::start(&etcd, &folder, &["k"]);
    let view = side.ready().await;
    assert_eq!((view.topics.len(), view.source.status), (0, SourceStatus::Error));
    assert_eq!(side.keys_view("it is ready", |view| view.is_ready).await.sources[0].status, SourceStatus::Error);
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_more_than_one_page_is_read_whole() {
    let (etcd, folders) = (Etcd::start(Version::System, &[]), [new_folder(), new_folder()]);
    let side = Side::start(&etcd, &folders[0], &[]);
    side.ready().await;
    let writes = futures::stream::iter(0..1203).map(|number| {
        let side = &side;
        async move { side.put(&format!("topic-{number}")).await.expect("written") }
    });
    let last = writes.buffer_unordered(40).fold(0, |last, revision| async move { last.max(revision) }).await;
    let watched = side.view("all are there", SOON, |view| view.revision >= last).await;
    assert_eq!(watched.topics.len(), 1203);
    let other = Side::start(&etcd, &folders[1], &[]);
    assert_eq!(other.ready().await.topics, watched.topics);
    other.stop().await;
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_too_large_for_one_answer_are_read_in_smaller_pages() {
    let (etcd, folder) = (Etcd::start(Version::System, &[]), new_folder());
    // 70 MB; an answer may have 64 MiB.
    let value = format!("{{\"labels\": {{\"x\": \"{}\"}}}}", "y".repeat(1_400_000));
    for number in 0..50 {
        etcd.put_bytes(&format!("drover/topics/large-{number}"), value.as_bytes());
    }
    let side = Side::start(&etcd, &folder, &[]);
    let view = side.view("all is read", EVENTUALLY, |view| view.topics.len() == 50).await;
    assert_eq!(view.source.status, SourceStatus::Ok);
    side.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_too_old_is_renewed() {
    let (etcd, folder) = (Etcd::start(Version::System, &["--auth-token-ttl=3"]), new_folder());
    etcd.etcdctl(&["user", "add", "root:hunter2"]);
    etcd.etcdctl(&["user", "grant-role", "root", "root"]);
    etcd.etcdctl(&["auth", "enable"]);
    let config = |password: &str| {
        let credentials = Some(("root".to_owned(), Secret::new(password.to_owned())));
        EtcdConfig { credentials, ..etcd_config(&etcd) }
    };
    assert_eq!(etcd::probe(&config("hunter2")).await, Ok(()));
    let refused = etcd::probe(&config("wrong")).await.expect_err("a wrong password");
    assert!(refused.contains("authentication failed") && !refused.contains("wrong"), "{refused}");
    let refused = etcd::probe(&etcd_config(&etcd)).await.expect_err("no password");
    assert!(refused.contains("user name is empty"), "{refused}");

    let side = Side::start_with(&config("hunter2"), &folder.path().join("etcd-cache.redb"), &[]);
    assert_eq!(side.ready().await.source.status, SourceStatus::Ok);
    side.put("a").await.expect("written");
    let admin = "--user=root:hunter2";
    // Any change of users makes every token an old one.
    etcd.etcdctl(&[admin, "user", "add", "someone:else"]);
    side.put("b").await.expect("written with a new token");
    side.view("the watch lives or has a new token", EVENTUALLY, |view| view.topics.contains_key("b")).await;
    // The token of before expires in this time, and nobody notices.
    holds_for("etcd is read", Duration::from_secs(5), || side.views.borrow().source.status == SourceStatus::Ok);
    side.put("c").await.expect("written with a new token");
    side.view("the watch lives or has a new token", EVENTUALLY, |view| view.topics.contains_key("c")).await;
    side.stop().await;
}

/// A private CA, and certificates for 127.0.0.1 and for a client, as PEM files.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().expect("openssl is installed");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey rsa:2048 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=test-ca -days 2"));
    std::fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").expect("a file");
    for who in ["server", "client"] {
        openssl(&format!("req {key} -keyout {who}.key -out {who}.csr -subj /CN={who}"));
        openssl(&format!("x509 -req -in {who}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile san -days 2 -out {who}.pem"));
    }
    // etcd runs as another user.
    for file in ["ca.pem", "server.pem", "server.key"] {
        std::fs::set_permissions(folder.join(file), std::fs::Permissions::from_mode(0o644)).expect("a file of our own");
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("a folder of our own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_ca_and_a_client_certificate_open_an_etcd_that_asks_for_them() {
    let (etcd, pem, folder) = (Etcd::start(Version::System, &[]), new_folder(), new_folder());
    make_certificates(pem.path());
    let file = |name: &str| pem.path().join(name);
    let port = free_port();
    let listen = format!("--listen-client-urls={},https://127.0.0.1:{port}", etcd.url());
    let [server, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| file(name).display().to_string());
    let tls = [format!("--cert-file={server}"), format!("--key-file={key}"), format!("--trusted-ca-file={ca}"), "--client-cert-auth".to_owned()];
    let options: Vec<&str> = std::iter::once(&listen).chain(&tls).map(String::as_str).collect();
    etcd.set_options(&options);
    etcd.stop();
    etcd.start_again();

    let nobody = EtcdConfig { endpoints: vec![format!("https://127.0.0.1:{port}")], ..etcd_config(&etcd) };
    let stranger = EtcdConfig { ca_file: Some(file("ca.pem")), ..nobody.clone() };
    let known = EtcdConfig { client_identity: Some((file("client.pem"), file("client.key"))), ..stranger.clone() };
    assert!(etcd::probe(&nobody).await.expect_err("the CA is private").contains("UnknownIssuer"));
    assert!(etcd::probe(&stranger).await.is_err(), "etcd asks for a certificate");
    assert_eq!(etcd::probe(&known).await, Ok(()));
    let side = Side::start_with(&known, &folder.path().join("etcd-cache.redb"), &[]);
    assert_eq!(side.ready().await.source.status, SourceStatus::Ok);
    side.put("a").await.expect("written");
    side.view("the topic is there", SOON, |view| view.topics.contains_key("a")).await;
    side.stop().await;
}
