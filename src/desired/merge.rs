//! The merge of all sources into one list, field by field. Pure.
//!
//! Guarantees that a topic appears once however many sources name it, and that each field of its spec comes from the strongest source that gives it:
//! built-in < the file's `defaults` < an entry in the collector's dialect (only `format: classic`) < a native entry < a store entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::store::{StoreView, Stored};
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

/// Everything that is merged, as the sources say it at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    /// The file's `defaults`.
    pub defaults: Arc<SpecFields>,
    /// The places of the file and of the etcd keys that name each topic, the file's first.
    pub named: Arc<BTreeMap<TopicName, Vec<Entry>>>,
    /// The store.
    pub store: Arc<StoreView>,
}

impl Inputs {
    /// The inputs of these lists; `entries` is in the order of their strength, the weakest first.
    pub fn new(defaults: SpecFields, entries: impl IntoIterator<Item = Entry>, store: Arc<StoreView>) -> Self {
        let mut named: BTreeMap<TopicName, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            named.entry(entry.name.clone()).or_default().push(entry);
        }
        Self { defaults: Arc::new(defaults), named: Arc::new(named), store }
    }

    /// What this topic is when the store has `entry` for it; `None` where nothing names it then.
    pub fn topic_with(&self, name: &TopicName, entry: Option<&Stored<SpecFields>>, now: Timestamp) -> Option<DesiredTopic> {
        let mut layers = Layers::default();
        for place in self.named.get(name).into_iter().flatten() {
            layers.add(place);
        }
        if let Some(stored) = entry {
            layers.add_stored(stored);
        }
        if layers.sources.is_empty() {
            return None;
        }
        let pause = self.store.pauses.get(name).map(|stored| &stored.value).filter(|pause| is_in_force(pause, now));
        Some(layers.resolve(&self.defaults, pause.cloned()))
    }

    /// Every topic that some source names.
    fn names(&self) -> impl Iterator<Item = &TopicName> {
        let only_stored = self.store.topics.keys().filter(|name| !self.named.contains_key(*name));
        self.named.keys().chain(only_stored)
    }

    /// Whether these inputs say of this topic just what `before` said, judged without resolving it: by its places and by the revisions of its entry and its pause.
    fn says_the_same(&self, before: &Self, name: &TopicName) -> bool {
        let revisions = |inputs: &Self| {
            let entry = inputs.store.topics.get(name).map(|stored| stored.revision);
            (entry, inputs.store.pauses.get(name).map(|stored| stored.revision))
        };
        let same_places = Arc::ptr_eq(&self.named, &before.named) || self.named.get(name) == before.named.get(name);
        same_places && revisions(self) == revisions(before)
    }
}

/// The union of all entries and the store's topics, by name. A pause whose end has come is none. `before` is what was merged last: a topic of which nothing
/// has changed since keeps its very value and costs a comparison.
pub fn merge(
    inputs: &Inputs,
    before: Option<(&Inputs, &BTreeMap<TopicName, Arc<DesiredTopic>>)>,
    now: Timestamp,
) -> BTreeMap<TopicName, Arc<DesiredTopic>> {
    // Defaults reach into every topic.
    let before = before.filter(|(last, _)| last.defaults == inputs.defaults);
    let kept = |name: &TopicName| {
        let (last, topics) = before?;
        let topic = topics.get(name)?;
        let pause_stands = topic.paused.as_ref().is_none_or(|pause| is_in_force(pause, now));
        (pause_stands && inputs.says_the_same(last, name)).then(|| topic.clone())
    };
    let topic = |name: &TopicName| {
        let topic = kept(name).or_else(|| inputs.topic_with(name, inputs.store.topics.get(name), now).map(Arc::new))?;
        Some((name.clone(), topic))
    };
    inputs.names().filter_map(topic).collect()
}

/// When the next pause ends by itself.
pub fn next_end_of_a_pause(store: &StoreView, now: Timestamp) -> Option<Timestamp> {
    store.pauses.values().filter_map(|stored| stored.value.until_at).filter(|end| *end > now).min()
}

fn is_in_force(pause: &Pause, now: Timestamp) -> bool {
    pause.until_at.is_none_or(|end| end > now)
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
    fn add(&mut self, entry: &Entry) {
        self.sources.push(entry.source.clone());
        let origin = match entry.source.kind {
            SourceKind::File => Origin::File,
            SourceKind::Etcd => Origin::Etcd,
            SourceKind::Store => Origin::Store,
        };
        match &entry.says {
            // The file comes first, so a topic named by the file and by etcd keeps the file as the origin of its format.
            Says::Dialect => self.dialect = self.dialect.or(Some(origin)),
            Says::Native(fields) => self.native = Some(fields.clone()),
        }
    }

    fn add_stored(&mut self, stored: &Stored<SpecFields>) {
        let key = Some(stored.key.clone());
        self.sources.push(SourceRef { kind: SourceKind::Store, detail: None, key, revision: Some(stored.revision) });
        self.store = Some(stored.value.clone());
    }

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

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).expect("a legal name")
    }

    fn entry(topic: &str, kind: SourceKind, detail: &str, says: Says) -> Entry {
        let source = SourceRef { kind, detail: Some(detail.to_owned()), key: None, revision: None };
        Entry { name: name(topic), source, says }
    }

    fn store() -> StoreView {
        StoreView { is_ready: true, ..StoreView::unread("embedded") }
    }

    fn stored<T>(topic: &str, revision: i64, value: T) -> (TopicName, Stored<T>) {
        (name(topic), Stored { key: format!("topics/{topic}"), revision, value })
    }

    fn pause(until_at: Option<Timestamp>) -> Pause {
        Pause { reason: None, actor: "me".to_owned(), since_at: NOW, until_at }
    }

    fn merged(defaults: SpecFields, entries: &[Entry], store: StoreView) -> BTreeMap<TopicName, Arc<DesiredTopic>> {
        merge(&Inputs::new(defaults, entries.to_vec(), Arc::new(store)), None, NOW)
    }

    #[test]
    fn a_topic_named_twice_appears_once_and_shows_both_places() {
        let entries = [
            entry("log", SourceKind::File, "collectlogs[0]", Says::Dialect),
            entry("log", SourceKind::File, "topics[0]", Says::Native(SpecFields { start: Some(Start::Latest), ..SpecFields::default() })),
            entry("log", SourceKind::Etcd, "collectlogkey1", Says::Dialect),
        ];
        let merged = merged(SpecFields::default(), &entries, store());
        assert_eq!(merged.len(), 1);
        let topic = &merged["log"];
        assert_eq!(topic.sources.len(), 3);
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
        let mut store = store();
        let overrides = SpecFields { tombstones: Some(Tombstones::DeadLetter), ..SpecFields::default() };
        store.topics.extend([stored("a", 7, overrides.clone())]);
        let merged = merged(defaults, &entries, store);
        assert_eq!(
            (merged["a"].spec.format, merged["a"].spec.start, merged["a"].spec.tombstones),
            (Format::Json, Start::Latest, Tombstones::DeadLetter)
        );
        assert_eq!((merged["a"].origin["tombstones"], &merged["a"].overrides), (Origin::Store, &overrides));
        assert_eq!((merged["b"].spec.format, merged["b"].spec.start), (Format::Classic, Start::Latest));
    }

    #[test]
    fn a_topic_stays_until_no_source_names_it() {
        let mut both = store();
        both.topics.extend([stored("a", 1, SpecFields::default())]);
        let entries = [entry("a", SourceKind::Etcd, "key", Says::Dialect)];
        let inputs = Inputs::new(SpecFields::default(), entries, Arc::new(both));
        let entry = inputs.store.topics.get("a");
        assert_eq!(inputs.topic_with(&name("a"), entry, NOW).map(|topic| topic.sources.len()), Some(2));
        assert_eq!(inputs.topic_with(&name("a"), None, NOW).map(|topic| topic.sources.len()), Some(1));
        assert_eq!(inputs.topic_with(&name("b"), None, NOW), None);
    }

    #[test]
    fn a_pause_ends_when_its_time_has_come() {
        let end = Timestamp::from_second(10).expect("a time");
        let mut paused = store();
        paused.topics.extend([stored("a", 1, SpecFields::default()), stored("b", 1, SpecFields::default())]);
        paused.pauses.extend([stored("a", 2, pause(Some(end))), stored("b", 3, pause(None)), stored("gone", 4, pause(Some(end)))]);
        let inputs = Inputs::new(SpecFields::default(), [], Arc::new(paused));
        let before = merge(&inputs, None, NOW);
        assert!(before["a"].paused.is_some() && before["b"].paused.is_some() && before.len() == 2);
        assert_eq!(next_end_of_a_pause(&inputs.store, NOW), Some(end));
        let after = merge(&inputs, Some((&inputs, &before)), end);
        assert!(after["a"].paused.is_none() && after["b"].paused.is_some());
        assert_eq!(next_end_of_a_pause(&inputs.store, end), None);
    }

    #[test]
    fn what_did_not_change_keeps_its_value_and_what_did_is_made_anew() {
        let mut old = store();
        old.topics.extend([stored("a", 1, SpecFields::default()), stored("b", 2, SpecFields::default()), stored("c", 3, SpecFields::default())]);
        let mut new = old.clone();
        new.topics.extend([stored("b", 9, SpecFields { format: Some(Format::Text), ..SpecFields::default() })]);
        new.topics.remove("c");
        new.pauses.extend([stored("a", 10, pause(None))]);
        let [last, next] =
            [old, new].map(|view| Inputs::new(SpecFields::default(), [entry("f", SourceKind::File, "topics[0]", Says::Dialect)], Arc::new(view)));
        let before = merge(&last, None, NOW);
        let after = merge(&next, Some((&last, &before)), NOW);
        assert_eq!(after, merge(&next, None, NOW));
        assert!(Arc::ptr_eq(&before["f"], &after["f"]) && !Arc::ptr_eq(&before["b"], &after["b"]) && !Arc::ptr_eq(&before["a"], &after["a"]));
        let other_defaults = Inputs { defaults: Arc::new(SpecFields { format: Some(Format::Json), ..SpecFields::default() }), ..next.clone() };
        let changed = merge(&other_defaults, Some((&next, &after)), NOW);
        assert_eq!(changed["a"].spec.format, Format::Json);
    }
}
