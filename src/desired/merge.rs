//! The merge of all sources into one list, field by field. Pure.
//!
//! Guarantees that a topic appears once however many sources name it, and that each field of its spec comes from the strongest source that gives it:
//! built-in < the file's `defaults` < an entry in the collector's dialect (only `format: classic`) < a native entry < a store entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::StoreView;
use crate::status::Pause;
use crate::topic::{Format, Origin, SourceKind, SourceRef, SpecFields, TopicName, TopicSpec};

/// A wanted topic.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredTopic {
    /// The effective spec.
    pub spec: Arc<TopicSpec>,
    /// Which source gave each field, by the field's name.
    pub origin: BTreeMap<String, Origin>,
    /// What the store's entry holds.
    pub overrides: SpecFields,
    /// The places that name the topic.
    pub sources: Vec<SourceRef>,
    /// The pause laid over the topic.
    pub paused: Option<Pause>,
}

/// One place in a source that names a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The topic.
    pub name: TopicName,
    /// The place.
    pub source: SourceRef,
    /// What the place says.
    pub says: Says,
}

/// What an entry gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Says {
    /// An entry in the collector's dialect: the topic, as `format: classic`.
    Dialect,
    /// A native entry with these fields.
    Native(SpecFields),
}

/// The union of all entries and the store's topics, by name.
pub fn merge(defaults: &SpecFields, entries: &[Entry], store: &StoreView) -> BTreeMap<TopicName, Arc<DesiredTopic>> {
    let mut merged: BTreeMap<TopicName, Layers> = BTreeMap::new();
    for entry in entries {
        let layers = merged.entry(entry.name.clone()).or_default();
        layers.sources.push(entry.source.clone());
        let origin = match entry.source.kind {
            SourceKind::File => Origin::File,
            SourceKind::Etcd => Origin::Etcd,
            SourceKind::Store => Origin::Store,
        };
        match &entry.says {
            // The file is read first, so a topic named by the file and by etcd keeps the file as the origin of its format.
            Says::Dialect => layers.dialect = layers.dialect.or(Some(origin)),
            Says::Native(fields) => layers.native = Some(fields.clone()),
        }
    }
    for (name, stored) in &store.topics {
        let layers = merged.entry(name.clone()).or_default();
        let key = Some(stored.key.clone());
        layers.sources.push(SourceRef { kind: SourceKind::Store, detail: None, key, revision: Some(stored.revision) });
        layers.store = Some(stored.value.clone());
    }
    let resolve = |(name, layers): (TopicName, Layers)| {
        let paused = store.pauses.get(&name).map(|stored| stored.value.clone());
        (name, Arc::new(layers.resolve(defaults, paused)))
    };
    merged.into_iter().map(resolve).collect()
}

/// What the sources say of one topic.
#[derive(Debug, Default)]
struct Layers {
    sources: Vec<SourceRef>,
    dialect: Option<Origin>,
    native: Option<SpecFields>,
    store: Option<SpecFields>,
}

impl Layers {
    fn resolve(self, defaults: &SpecFields, paused: Option<Pause>) -> DesiredTopic {
        let mut resolved = Resolved::default();
        resolved.lay(defaults, Origin::File);
        if let Some(origin) = self.dialect {
            resolved.lay(&SpecFields { format: Some(Format::Classic), ..SpecFields::default() }, origin);
        }
        if let Some(native) = &self.native {
            resolved.lay(native, Origin::File);
        }
        if let Some(stored) = &self.store {
            resolved.lay(stored, Origin::Store);
        }
        DesiredTopic {
            spec: Arc::new(resolved.spec),
            origin: resolved.origin,
            overrides: self.store.unwrap_or_default(),
            sources: self.sources,
            paused,
        }
    }
}

struct Resolved {
    spec: TopicSpec,
    origin: BTreeMap<String, Origin>,
}

impl Default for Resolved {
    fn default() -> Self {
        let names = ["index", "format", "metadata", "operation", "pipeline", "start", "tombstones", "on_reject", "labels"];
        Self { spec: TopicSpec::default(), origin: names.map(|name| (name.to_owned(), Origin::Default)).into() }
    }
}

impl Resolved {
    fn lay(&mut self, fields: &SpecFields, origin: Origin) {
        let SpecFields { index, format, metadata, operation, pipeline, start, tombstones, on_reject, labels } = fields;
        let spec = &mut self.spec;
        let mut note = |name: &str| {
            self.origin.insert(name.to_owned(), origin);
        };
        if let Some(index) = index {
            spec.index = index.clone();
            note("index");
        }
        if let Some(format) = format {
            spec.format = *format;
            note("format");
        }
        if let Some(metadata) = metadata {
            spec.metadata = *metadata;
            note("metadata");
        }
        if let Some(operation) = operation {
            spec.operation = *operation;
            note("operation");
        }
        if let Some(pipeline) = pipeline {
            spec.pipeline = Some(pipeline.clone());
            note("pipeline");
        }
        if let Some(start) = start {
            spec.start = *start;
            note("start");
        }
        if let Some(tombstones) = tombstones {
            spec.tombstones = *tombstones;
            note("tombstones");
        }
        if let Some(on_reject) = on_reject {
            spec.on_reject = *on_reject;
            note("on_reject");
        }
        if let Some(labels) = labels {
            spec.labels = labels.clone();
            note("labels");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Start, Tombstones};

    fn entry(name: &str, kind: SourceKind, detail: &str, says: Says) -> Entry {
        let source = SourceRef { kind, detail: Some(detail.to_owned()), key: None, revision: None };
        Entry { name: TopicName::new(name).expect("a legal name"), source, says }
    }

    #[test]
    fn a_topic_named_twice_appears_once_and_shows_both_places() {
        let entries = [
            entry("log", SourceKind::File, "collectlogs[0]", Says::Dialect),
            entry("log", SourceKind::File, "topics[0]", Says::Native(SpecFields { start: Some(Start::Latest), ..SpecFields::default() })),
        ];
        let merged = merge(&SpecFields::default(), &entries, &StoreView::default());
        assert_eq!(merged.len(), 1);
        let topic = &merged["log"];
        assert_eq!(topic.sources.len(), 2);
        assert_eq!((topic.spec.format, topic.origin["format"]), (Format::Classic, Origin::File));
        assert_eq!((topic.spec.start, topic.origin["start"]), (Start::Latest, Origin::File));
        assert_eq!((topic.spec.tombstones, topic.origin["tombstones"]), (Tombstones::Skip, Origin::Default));
    }

    #[test]
    fn a_stronger_source_wins_field_by_field() {
        let defaults = SpecFields { format: Some(Format::Text), start: Some(Start::Latest), ..SpecFields::default() };
        let native = SpecFields { format: Some(Format::Json), ..SpecFields::default() };
        let entries =
            [entry("a", SourceKind::File, "topics[0]", Says::Native(native)), entry("b", SourceKind::File, "collectlogs[0]", Says::Dialect)];
        let mut store = StoreView::default();
        let overrides = SpecFields { tombstones: Some(Tombstones::DeadLetter), ..SpecFields::default() };
        let a = TopicName::new("a").expect("a legal name");
        store.topics.insert(a, super::super::store::Stored { key: "topics/a".to_owned(), revision: 7, value: overrides.clone() });
        let merged = merge(&defaults, &entries, &store);
        assert_eq!(
            (merged["a"].spec.format, merged["a"].spec.start, merged["a"].spec.tombstones),
            (Format::Json, Start::Latest, Tombstones::DeadLetter)
        );
        assert_eq!((merged["a"].origin["tombstones"], &merged["a"].overrides), (Origin::Store, &overrides));
        assert_eq!((merged["b"].spec.format, merged["b"].spec.start), (Format::Classic, Start::Latest));
    }
}
