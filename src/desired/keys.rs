//! Topics in the collector's etcd keys.

use std::sync::Arc;

use tokio::sync::watch;

use super::merge::Entry;
use crate::status::Source;

/// What the keys say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeysView {
    /// Whether reading them was tried: before that the view says nothing. True also when the first try failed and the view is the last good one, or empty.
    pub is_ready: bool,
    /// The topics that the keys name, key by key.
    pub entries: Vec<Entry>,
    /// One row for each key.
    pub sources: Vec<Source>,
}

impl KeysView {
    /// The views where there is no etcd: one, ready and empty.
    pub fn none() -> watch::Receiver<Arc<Self>> {
        watch::channel(Arc::new(Self { is_ready: true, ..Self::default() })).1
    }
}
