//! Desired state: which topics drover must keep flowing, and under which spec.
//!
//! Guarantees: what is published is always a complete list; a source that cannot be read keeps its last good list, and the status says so and since when; an unreadable
//! source is never an empty one. Owns the sources ([`mod@file`], [`store`]) and their [`merge`]. Does not touch Kafka and starts no task: it says what is wanted,
//! [`reconcile`](crate::reconcile) makes it so.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::status::Source;
use crate::topic::TopicName;

pub mod file;
pub mod merge;
pub mod store;

pub use merge::DesiredTopic;

/// The complete list of wanted topics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Desired {
    /// Grows with every change of the list.
    pub revision: u64,
    /// Wanted topics by name.
    pub topics: BTreeMap<TopicName, Arc<DesiredTopic>>,
    /// How each source is doing.
    pub sources: Vec<Source>,
}

/// Merges the sources whenever one of them changes. `None` is published until every source has given a first list.
#[derive(Debug)]
pub struct Merger {
    file: watch::Receiver<file::FileView>,
    store: watch::Receiver<store::StoreView>,
    out: watch::Sender<Option<Arc<Desired>>>,
}

impl Merger {
    /// A merger of these sources; the receiver sees every merged list.
    pub fn new(file: watch::Receiver<file::FileView>, store: watch::Receiver<store::StoreView>) -> (Self, watch::Receiver<Option<Arc<Desired>>>) {
        let (out, desired) = watch::channel(None);
        (Self { file, store, out }, desired)
    }

    /// Publishes a merged list at once and after each change, until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut file = self.file.clone();
        let mut store = self.store.clone();
        loop {
            self.publish(&file.borrow_and_update().clone(), &store.borrow_and_update().clone());
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = file.changed() => if changed.is_err() { return },
                changed = store.changed() => if changed.is_err() { return },
            }
        }
    }

    fn publish(&self, file: &file::FileView, store: &store::StoreView) {
        let topics = merge::merge(&file.config.defaults, &file.entries(), store);
        let sources = vec![file.source.clone(), store_source(store)];
        self.out.send_if_modified(|current| {
            let previous = current.as_ref();
            if previous.is_some_and(|desired| desired.topics == topics && desired.sources == sources) {
                return false;
            }
            let revision = previous.map_or(1, |desired| desired.revision + u64::from(desired.topics != topics));
            *current = Some(Arc::new(Desired { revision, topics, sources }));
            true
        });
    }
}

fn store_source(store: &store::StoreView) -> Source {
    Source {
        kind: crate::topic::SourceKind::Store,
        detail: Some("embedded".to_owned()),
        status: crate::status::SourceStatus::Ok,
        topics: store.topics.len(),
        revision: Some(store.revision),
        content_hash: None,
        read_at: None,
        changed_at: None,
        error: None,
    }
}
