//! etcd as a source of topics: the collector's keys, and the store that the API writes.
//!
//! Guarantees: what is in force is what one full read at one revision found, followed by a watch (`mirror`); without etcd the last good lists stay in force, over a restart too (`cache`);
//! an etcd whose past has changed is held back until someone confirms it (`guard`); one entry that cannot be read harms no other (`content`). Owns the connection (`client`), the keys'
//! places (`layout`) and the file of the last good lists. Does not decide what the lists mean together: that is [`merge`](super::merge).

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::GetOptions;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::file::FileView;
use super::keys::KeysView;
use super::store::StoreView;
use crate::causes;
use crate::config::EtcdConfig;

use cache::Cache;
use client::Etcd;
use layout::Layout;
use state::{Saved, State};

mod cache;
mod client;
mod collector;
mod content;
#[cfg(test)]
mod corpus_tests;
mod guard;
mod layout;
mod mirror;
mod state;
mod store;

pub use store::EtcdStore;

/// Why etcd cannot be used at all, found before the first connection.
#[derive(Debug, thiserror::Error)]
#[error("etcd cannot be used: {what}")]
pub struct SetupError {
    what: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SetupError {
    fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}

/// What [`open`] makes.
#[derive(Debug)]
pub struct EtcdParts {
    /// Keeps the views up to date while it runs.
    pub source: EtcdSource,
    /// The store.
    pub store: Arc<EtcdStore>,
    /// The collector's keys.
    pub keys: watch::Receiver<Arc<KeysView>>,
}

/// Mirrors etcd's content into the views.
#[derive(Debug)]
pub struct EtcdSource {
    shared: Arc<Shared>,
}

/// Prepares etcd as a source; connects to nothing yet. `file` says which of the collector's keys are read, and `cache` is the file of the last good lists, for this process alone.
///
/// Fails when a PEM file cannot be read, when addresses with and without TLS are mixed, and when the cache is in use or cannot be written.
pub fn open(config: &EtcdConfig, file: watch::Receiver<FileView>, cache: &Path) -> Result<EtcdParts, SetupError> {
    let etcd = Etcd::new(config)?;
    let (cache, saved) = Cache::open(cache)?;
    let shared = Arc::new(Shared::new(etcd, Layout::new(&config.prefix), file, cache, saved));
    let keys = shared.keys.subscribe();
    Ok(EtcdParts { source: EtcdSource { shared: shared.clone() }, store: Arc::new(EtcdStore::new(shared)), keys })
}

impl EtcdSource {
    /// Keeps the views up to date until cancelled. May be run again after it has ended in any way. The first views are published at most 5 s after the first start.
    pub async fn run(&self, cancel: CancellationToken) {
        mirror::run(&self.shared, &cancel).await;
    }
}

/// Whether etcd answers and lets us read: `Err` says why not.
pub async fn probe(config: &EtcdConfig) -> Result<(), String> {
    let etcd = Etcd::new(config).map_err(|error| causes::chain(&error))?;
    let folder = Layout::new(&config.prefix).topics();
    let options = GetOptions::new().with_range(layout::end_of(&folder)).with_limit(1).with_keys_only();
    etcd.get(folder, options).await.map(drop).map_err(|error| error.line())
}

/// What the mirror and the store share.
#[derive(Debug)]
struct Shared {
    etcd: Etcd,
    layout: Layout,
    file: watch::Receiver<FileView>,
    cache: Cache,
    state: Mutex<State>,
    views: watch::Sender<Arc<StoreView>>,
    keys: watch::Sender<Arc<KeysView>>,
    /// Makes the mirror read everything at once.
    wake: Notify,
}

impl Shared {
    fn new(etcd: Etcd, layout: Layout, file: watch::Receiver<FileView>, cache: Cache, saved: Option<Saved>) -> Self {
        let state = State::new(layout.clone(), saved);
        let views = watch::Sender::new(Arc::new(state.store_view()));
        let keys = watch::Sender::new(Arc::new(state.keys_view(&[])));
        Self { etcd, layout, file, cache, state: Mutex::new(state), views, keys, wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic in the middle of a change the next full read makes the state whole again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.lock())
    }

    /// Changes the state and publishes what has become of it.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let wanted_keys = self.wanted_keys();
        let mut state = self.lock();
        let answer = change(&mut state);
        let (view, keys) = (state.store_view(), state.keys_view(&wanted_keys));
        // Under the lock, so views are published in the order of the changes.
        publish(&self.views, view, with_read_at_of);
        publish(&self.keys, keys, keys_with_read_at_of);
        answer
    }

    fn is_ready(&self) -> bool {
        self.with_state(|state| state.is_ready())
    }

    fn wanted_keys(&self) -> Vec<String> {
        self.file.borrow().config.etcd_keys.clone()
    }
}

/// Puts a view in place; that it was only read again is no news. `with_read_at_of` gives the first view the times of the second.
fn publish<V: Clone + PartialEq>(out: &watch::Sender<Arc<V>>, next: V, with_read_at_of: impl Fn(V, &V) -> V) {
    out.send_if_modified(|current| {
        let is_news = with_read_at_of((**current).clone(), &next) != next;
        *current = Arc::new(next);
        is_news
    });
}

fn with_read_at_of(mut view: StoreView, next: &StoreView) -> StoreView {
    view.source.read_at = next.source.read_at;
    view
}

fn keys_with_read_at_of(mut view: KeysView, next: &KeysView) -> KeysView {
    for (source, next) in view.sources.iter_mut().zip(&next.sources) {
        source.read_at = next.read_at;
    }
    view
}
