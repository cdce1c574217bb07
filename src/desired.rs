//! Desired state: which topics drover must keep flowing, and under which spec.
//!
//! Guarantees: what is published is always a complete list; a source that cannot be read keeps its last good list, and the status says so and since when; an unreadable
//! source is never an empty one; a pause ends at its time without anybody's help. Owns the sources ([`mod@file`], [`etcd`] with the collector's [`keys`], [`store`]) and their
//! [`merge`](mod@merge). Does not touch Kafka and starts no task: it says what is wanted, [`reconcile`](crate::reconcile) makes it so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::status::Source;
use crate::topic::{SpecFields, TopicName};

pub mod etcd;
pub mod file;
pub mod keys;
pub mod merge;
pub mod store;

pub use merge::DesiredTopic;

use file::FileView;
use keys::KeysView;
use merge::Inputs;
use store::{StoreView, Stored};

/// A pause that ends late is looked at again this often: the clock of the wall may be set meanwhile.
const LOOK_AT_PAUSES: Duration = Duration::from_secs(60);

/// The complete list of wanted topics.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Grows with every change of the list.
    pub revision: u64,
    /// Wanted topics by name.
    pub topics: BTreeMap<TopicName, Arc<DesiredTopic>>,
    /// How each source is doing.
    pub sources: Vec<Source>,
    /// What the list was made from.
    pub inputs: Inputs,
}

impl Desired {
    /// Every write of the store up to this revision is in the list.
    pub fn store_revision(&self) -> i64 {
        self.inputs.store.revision
    }

    /// What the topic would be if the store had this entry for it, or none; `None` where nothing would name it.
    pub fn with_entry(&self, name: &TopicName, entry: Option<SpecFields>, now: Timestamp) -> Option<Arc<DesiredTopic>> {
        let present = self.inputs.store.topics.get(name);
        let stored = entry.map(|value| Stored {
            key: present.map_or_else(|| format!("topics/{name}"), |stored| stored.key.clone()),
            revision: present.map_or(0, |stored| stored.revision),
            value,
        });
        self.inputs.topic_with(name, stored.as_ref(), now).map(Arc::new)
    }
}

/// Merges the sources whenever one of them changes, and when a pause ends. `None` is published until every source has given a first list.
#[derive(Debug)]
pub struct Merger {
    file: watch::Receiver<FileView>,
    keys: watch::Receiver<Arc<KeysView>>,
    store: watch::Receiver<Arc<StoreView>>,
    out: watch::Sender<Option<Arc<Desired>>>,
}

impl Merger {
    /// A merger of these sources; the receiver sees every merged list.
    pub fn new(
        file: watch::Receiver<FileView>,
        keys: watch::Receiver<Arc<KeysView>>,
        store: watch::Receiver<Arc<StoreView>>,
    ) -> (Self, watch::Receiver<Option<Arc<Desired>>>) {
        let (out, desired) = watch::channel(None);
        (Self { file, keys, store, out }, desired)
    }

    /// Publishes a merged list at once and after each change, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let (mut file, mut keys, mut store) = (self.file.clone(), self.keys.clone(), self.store.clone());
        loop {
            let now = Timestamp::now();
            let file_view = file.borrow_and_update().clone();
            let keys_view = keys.borrow_and_update().clone();
            let store_view = store.borrow_and_update().clone();
            let wait = until_a_pause_ends(&store_view, now);
            self.publish(&file_view, &keys_view, store_view, now);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = changed(&mut file) => {}
                () = changed(&mut keys) => {}
                () = changed(&mut store) => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn publish(&self, file: &FileView, keys: &KeysView, store: Arc<StoreView>, now: Timestamp) {
        if !keys.is_ready || !store.is_ready {
            return;
        }
        let mut sources = vec![file.source.clone()];
        sources.extend(keys.sources.iter().cloned());
        sources.push(store.source.clone());
        let entries = file.entries().into_iter().chain(keys.entries.iter().cloned());
        self.out.send_if_modified(|current| {
            let mut inputs = Inputs::new(file.config.defaults.clone(), entries, store);
            let last = current.as_deref();
            if let Some(last) = last.filter(|last| last.inputs.named == inputs.named) {
                inputs.named = last.inputs.named.clone();
            }
            let topics = merge::merge(&inputs, last.map(|last| (&last.inputs, &last.topics)), now);
            let Some(last) = last else {
                *current = Some(Arc::new(Desired { revision: 1, topics, sources, inputs }));
                return true;
            };
            let same_topics = last.topics == topics;
            if same_topics && last.sources == sources && last.store_revision() == inputs.store.revision {
                return false;
            }
            let revision = last.revision + u64::from(!same_topics);
            *current = Some(Arc::new(Desired { revision, topics, sources, inputs }));
            true
        });
    }
}

/// Waits for the next value. Who publishes nothing any more, as the keys where there is no etcd, is waited for in vain.
async fn changed<T>(views: &mut watch::Receiver<T>) {
    if views.changed().await.is_err() {
        std::future::pending().await
    }
}

fn until_a_pause_ends(store: &StoreView, now: Timestamp) -> Duration {
    let Some(end) = merge::next_end_of_a_pause(store, now) else { return LOOK_AT_PAUSES };
    // A moment later, so that the end has come for sure.
    let wait = Duration::try_from(end.duration_since(now)).unwrap_or_default() + Duration::from_millis(1);
    wait.min(LOOK_AT_PAUSES)
}
