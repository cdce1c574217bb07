//! Topics as a configuration names them: native entries, spec fields and defaults.
//!
//! Guarantees that every topic of a [`Config`](super::Config) has a legal name, and an index template that gives a legal index name for it. Does not merge: one topic may stay in several places.

use std::collections::{BTreeMap, HashMap};

use super::FileTopic;
use super::reader::{Placed, Reader, Section, printable_line};
use super::tree::Node;
use crate::topic::{Format, IndexTemplate, Metadata, OnReject, Operation, SpecFields, Start, Tombstones, TopicName};

/// A topic with its place in the document.
pub(super) struct PlacedTopic<'n> {
    pub(super) topic: FileTopic,
    /// The path of its name.
    pub(super) path: String,
    /// Its name.
    pub(super) node: &'n Node,
    /// Its index template, where it has one of its own.
    index: Option<Placed<'n>>,
}

impl<'n> PlacedTopic<'n> {
    /// A topic in the collector's dialect; `place` is the entry's path, `path` its name's.
    pub(super) fn in_dialect(name: TopicName, place: String, path: String, node: &'n Node) -> Self {
        Self { topic: FileTopic { name, place, native: None }, path, node, index: None }
    }
}

/// Reads `defaults`.
pub(super) fn defaults(reader: &mut Reader<'_>, mut section: Section<'_>) -> SpecFields {
    let fields = spec_fields(reader, &mut section).0;
    reader.refuse_unknown(&section);
    fields
}

/// Reads the native list.
pub(super) fn native<'n>(reader: &mut Reader<'_>, path: &str, node: &'n Node) -> Vec<PlacedTopic<'n>> {
    let mut topics: Vec<PlacedTopic<'n>> = Vec::new();
    let mut first_lines: HashMap<TopicName, u32> = HashMap::new();
    for (place, item) in reader.list(path, node) {
        let Some(topic) = native_entry(reader, place, item) else { continue };
        if let Some(first) = first_lines.get(&topic.topic.name) {
            let detail = format!("topic '{}' is named twice, on line {first} and on line {}", topic.topic.name, topic.node.line);
            reader.problem(topic.node.problem(&topic.path, detail, "keep one of the two"));
            continue;
        }
        first_lines.insert(topic.topic.name.clone(), topic.node.line);
        topics.push(topic);
    }
    topics
}

fn native_entry<'n>(reader: &mut Reader<'_>, place: String, item: &'n Node) -> Option<PlacedTopic<'n>> {
    if item.text().is_some() {
        let detail = format!("a topic must be a mapping, not {}", item.kind());
        reader.problem(item.problem(&place, detail, "write it as - topic: NAME"));
        return None;
    }
    let mut section = reader.section(&place, item)?;
    let name = section.take("topic");
    let (fields, index) = spec_fields(reader, &mut section);
    reader.refuse_unknown(&section);
    let Some((path, node)) = name else {
        reader.problem(item.problem(&section.place_of("topic"), "the topic's name is missing", "add topic: NAME"));
        return None;
    };
    let name = topic_name(reader, &path, node)?;
    Some(PlacedTopic { topic: FileTopic { name, place, native: Some(fields) }, path, node, index })
}

/// A topic's name.
pub(super) fn topic_name(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<TopicName> {
    let text = reader.text(path, node)?;
    match TopicName::new(&text) {
        Ok(name) => Some(name),
        Err(error) => {
            reader.problem(node.problem(path, error.to_string(), "write the topic's name as Kafka shows it"));
            None
        }
    }
}

fn spec_fields<'n>(reader: &mut Reader<'_>, section: &mut Section<'n>) -> (SpecFields, Option<Placed<'n>>) {
    let index_place = section.take("index");
    let index = index_place.as_ref().and_then(|(path, node)| {
        reader.parsed::<IndexTemplate>(path, node, "write an index name, with {topic} and {date} or {date:%Y.%m} where it varies")
    });
    let fields = SpecFields {
        index,
        format: section.take("format").and_then(|(path, node)| reader.parsed::<Format>(&path, node, "write json, text, auto or classic")),
        metadata: section.take("metadata").and_then(|(path, node)| reader.parsed::<Metadata>(&path, node, "write auto, on or off")),
        operation: section.take("operation").and_then(|(path, node)| reader.parsed::<Operation>(&path, node, "write index or create")),
        pipeline: section.take("pipeline").and_then(|(path, node)| reader.name(&path, node)),
        start: section.take("start").and_then(|(path, node)| {
            reader.parsed::<Start>(&path, node, "write earliest, latest or a time with its zone, such as 2026-01-31T00:00:00Z")
        }),
        tombstones: section.take("tombstones").and_then(|(path, node)| reader.parsed::<Tombstones>(&path, node, "write skip or dead_letter")),
        on_reject: section.take("on_reject").and_then(|(path, node)| reader.parsed::<OnReject>(&path, node, "write dead_letter or stop")),
        labels: section.take("labels").and_then(|(path, node)| labels(reader, &path, node)),
    };
    (fields, index_place)
}

fn labels(reader: &mut Reader<'_>, path: &str, node: &Node) -> Option<BTreeMap<String, String>> {
    let section = reader.section(path, node)?;
    let mut labels = BTreeMap::new();
    for (key, value) in section.entries() {
        let name = printable_line(key.text().unwrap_or_default());
        let place = section.place_of(&super::tree::printable(&name));
        let text = if value.is_null() { Some(String::new()) } else { reader.text(&place, value) };
        labels.extend(text.map(|text| (name, text)));
    }
    Some(labels)
}

/// Checks the index of every topic, after all of them and the defaults are known.
pub(super) fn check_indices(reader: &mut Reader<'_>, topics: &[PlacedTopic<'_>], defaults: &SpecFields) {
    let fallback = defaults.index.clone().unwrap_or_default();
    let mut first_of_index: HashMap<String, &PlacedTopic<'_>> = HashMap::new();
    for placed in topics {
        let name = &placed.topic.name;
        let own = placed.topic.native.as_ref().and_then(|fields| fields.index.as_ref());
        let template = own.unwrap_or(&fallback);
        if let Err(error) = template.check(name) {
            let (path, node) = placed.index.as_ref().map_or((&placed.path, placed.node), |(path, node)| (path, *node));
            let detail = format!("topic '{name}': {}", printable_line(&error.to_string()));
            reader.problem(node.problem(path, detail, "give this topic an index of its own that is a legal name"));
            continue;
        }
        if !template.as_str().contains("{topic}") {
            continue;
        }
        let index = template.render(name, None);
        match first_of_index.get(&index) {
            Some(first) if first.topic.name != *name => {
                let detail = format!(
                    "topics '{}' (line {}) and '{name}' have the same index, since index names are in lower case",
                    first.topic.name, first.node.line
                );
                reader.warning(placed.node.problem(&placed.path, detail, "give one of the two an index of its own if that is not meant"));
            }
            Some(_) => {}
            None => {
                first_of_index.insert(index, placed);
            }
        }
    }
}
