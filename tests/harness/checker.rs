//! Checks drover's promise over plain values: the ledger of what Kafka acknowledged, the documents of the index, the dead letters and the committed offsets.
//!
//! *Complete*: every acknowledged record is indexed, dead-lettered, or skipped by a policy that the test names. *Single*: a record is at most one document, or one letter, and every
//! document and letter is a record's. *Commit-safe*: nothing below a committed offset is unsettled. *Content*: what is stored is what was sent. No I/O; the tests at the end prove that it bites.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::producer::{Acked, Hash, Sent, hash};

/// One document of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The index.
    pub index: String,
    /// The document's id.
    pub id: String,
    /// The source, byte for byte.
    pub source: Vec<u8>,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The id of the document that it would have become.
    pub id: String,
    /// Why it is dead.
    pub cause: String,
    /// The server's error type.
    pub error_type: String,
    /// The payload's hash; `None` when the payload is cut or absent.
    pub hash: Option<Hash>,
}

/// What a topic's documents look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The record's bytes.
    Json,
    /// The record's object with a `kafka` object beside it.
    JsonWithKafka,
    /// `message` or `message_base64`.
    Text,
    /// `Topic`, `Log`, `Id`.
    Classic,
}

/// One life of a topic: from its creation to its deletion.
#[derive(Debug, Clone)]
pub struct Generation<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The base of its document ids.
    pub id: &'a str,
    /// The index of all its documents; `None` does not check it.
    pub index: Option<&'a str>,
    /// What its documents look like.
    pub content: Content,
    /// The ledger's acknowledged records; those of other topics are passed over.
    pub acked: &'a [Acked],
    /// Committed offsets, **read before** the documents were.
    pub committed: BTreeMap<i32, i64>,
    /// Partition and offset of what a policy or a rewind skips.
    pub skipped: BTreeSet<(i32, i64)>,
}

impl<'a> Generation<'a> {
    /// A topic with `json` documents, nothing committed and nothing skipped.
    pub fn new(topic: &'a str, id: &'a str, acked: &'a [Acked]) -> Self {
        Self { topic, id, index: None, content: Content::Json, acked, committed: BTreeMap::new(), skipped: BTreeSet::new() }
    }
}

/// Everything that is compared.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    /// The topics' lives.
    pub generations: &'a [Generation<'a>],
    /// Sends without an acknowledgement: they may have become documents.
    pub unknown: &'a [Sent],
    /// All documents of the indices concerned.
    pub documents: &'a [Document],
    /// All dead letters.
    pub letters: &'a [Letter],
}

/// One breach of the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged by Kafka, and nowhere.
    Missing {
        /// The document id that it should have.
        id: String,
    },
    /// More than one document with one id.
    Doubled {
        /// The id.
        id: String,
        /// Where.
        indices: Vec<String>,
    },
    /// A document and a dead letter.
    IndexedAndDead {
        /// The id.
        id: String,
    },
    /// A document or letter of no record.
    Foreign {
        /// Its id.
        id: String,
        /// Its index, or `dead letters`.
        index: String,
    },
    /// In another index than the topic's.
    WrongIndex {
        /// The id.
        id: String,
        /// Where it is.
        index: String,
    },
    /// Not what was sent.
    WrongContent {
        /// The id.
        id: String,
        /// The difference.
        detail: String,
    },
    /// Below the committed offset and not settled.
    CommittedPastUnsettled {
        /// The id that it should have.
        id: String,
        /// The committed offset.
        committed: i64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { id } => write!(f, "missing: {id} was acknowledged and is nowhere"),
            Self::Doubled { id, indices } => write!(f, "doubled: {id} is in {}", indices.join(", ")),
            Self::IndexedAndDead { id } => write!(f, "indexed and dead: {id}"),
            Self::Foreign { id, index } => write!(f, "foreign: {id} in {index} is no record's"),
            Self::WrongIndex { id, index } => write!(f, "wrong index: {id} is in {index}"),
            Self::WrongContent { id, detail } => write!(f, "wrong content: {id}: {detail}"),
            Self::CommittedPastUnsettled { id, committed } => write!(f, "not commit-safe: {id} is not settled and {committed} is committed"),
        }
    }
}

/// A record's place: base of the ids, partition, offset.
type Place<'a> = (&'a str, i32, i64);

/// All breaches, in no particular order.
pub fn check(evidence: &Evidence<'_>) -> Vec<Violation> {
    let records = records_by_place(evidence.generations);
    let mut violations = Vec::new();
    let mut documents: HashMap<Place<'_>, Vec<&Document>> = HashMap::new();
    for document in evidence.documents {
        match place_of(&document.id).filter(|place| records.contains_key(place)) {
            Some(place) => documents.entry(place).or_default().push(document),
            None if is_of_an_unknown_send(evidence, document) => {}
            None => violations.push(Violation::Foreign { id: document.id.clone(), index: document.index.clone() }),
        }
    }
    let mut dead = HashSet::new();
    for letter in evidence.letters {
        match place_of(&letter.id).and_then(|place| Some((place, records.get(&place)?))) {
            Some((place, (_, acked))) => {
                dead.insert(place);
                if letter.hash.is_some() && letter.hash != acked.sent.hash {
                    violations
                        .push(Violation::WrongContent { id: letter.id.clone(), detail: "the dead letter's payload is not what was sent".to_owned() });
                }
            }
            None if evidence.unknown.iter().any(|sent| sent.hash.is_some() && sent.hash == letter.hash) => {}
            None => violations.push(Violation::Foreign { id: letter.id.clone(), index: "dead letters".to_owned() }),
        }
    }
    for (place, (generation, acked)) in &records {
        let found = documents.get(place).map(Vec::as_slice).unwrap_or_default();
        let is_skipped = generation.skipped.contains(&(place.1, place.2));
        check_record(*place, generation, acked, found, dead.contains(place), is_skipped, &mut violations);
    }
    violations
}

/// Panics with the first breaches when there are any.
#[track_caller]
pub fn assert_kept(evidence: &Evidence<'_>) {
    let violations = check(evidence);
    let shown: Vec<String> = violations.iter().take(20).map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{} breaches of the promise, the first:\n{}", violations.len(), shown.join("\n"));
}

fn check_record(
    place: Place<'_>,
    generation: &Generation<'_>,
    acked: &Acked,
    found: &[&Document],
    is_dead: bool,
    is_skipped: bool,
    violations: &mut Vec<Violation>,
) {
    let id = id_of(place);
    let is_settled = !found.is_empty() || is_dead || is_skipped;
    if !is_settled {
        violations.push(Violation::Missing { id: id.clone() });
        let committed = generation.committed.get(&place.1).copied().unwrap_or(0);
        if place.2 < committed {
            violations.push(Violation::CommittedPastUnsettled { id: id.clone(), committed });
        }
    }
    if found.len() > 1 {
        violations.push(Violation::Doubled { id: id.clone(), indices: found.iter().map(|document| document.index.clone()).collect() });
    }
    if is_dead && !found.is_empty() {
        violations.push(Violation::IndexedAndDead { id: id.clone() });
    }
    for document in found {
        if generation.index.is_some_and(|index| index != document.index) {
            violations.push(Violation::WrongIndex { id: id.clone(), index: document.index.clone() });
        }
        if let Err(detail) = compare(generation, acked, document) {
            violations.push(Violation::WrongContent { id: id.clone(), detail });
        }
    }
}

fn records_by_place<'a>(generations: &'a [Generation<'a>]) -> HashMap<Place<'a>, (&'a Generation<'a>, &'a Acked)> {
    let mut records = HashMap::new();
    for generation in generations {
        for acked in generation.acked.iter().filter(|acked| &*acked.sent.topic == generation.topic) {
            records.insert((generation.id, acked.partition, acked.offset), (generation, acked));
        }
    }
    records
}

fn is_of_an_unknown_send(evidence: &Evidence<'_>, document: &Document) -> bool {
    let Some((base, _, _)) = place_of(&document.id) else { return false };
    let Some(generation) = evidence.generations.iter().find(|generation| generation.id == base) else { return false };
    let Ok(payload) = payload_of(generation.content, &document.source) else { return false };
    let stored = hash(&payload);
    evidence.unknown.iter().any(|sent| &*sent.topic == generation.topic && sent.hash == Some(stored))
}

/// Base, partition and offset of a document id.
fn place_of(id: &str) -> Option<Place<'_>> {
    let mut parts = id.rsplitn(3, ':');
    let offset = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    Some((parts.next()?, partition, offset))
}

fn id_of((base, partition, offset): Place<'_>) -> String {
    format!("{base}:{partition}:{offset}")
}

fn compare(generation: &Generation<'_>, acked: &Acked, document: &Document) -> Result<(), String> {
    if generation.content == Content::JsonWithKafka {
        return compare_with_kafka(acked, document);
    }
    let payload = payload_of(generation.content, &document.source)?;
    if acked.sent.hash != Some(hash(&payload)) {
        let sent = acked.sent.value.as_deref().map(String::from_utf8_lossy);
        return Err(format!("sent {sent:?}, stored {:?}", String::from_utf8_lossy(&document.source)));
    }
    if generation.content == Content::Classic {
        let source: Value = serde_json::from_slice(&document.source).map_err(|error| error.to_string())?;
        if source["Topic"] != generation.topic || source["Id"] != document.id.as_str() {
            return Err(format!("Topic or Id is wrong: {source}"));
        }
    }
    Ok(())
}

/// Needs a value that was small enough to be kept.
fn compare_with_kafka(acked: &Acked, document: &Document) -> Result<(), String> {
    let sent = acked.sent.value.as_deref().ok_or("the sent value was not kept, so it cannot be compared")?;
    let sent: Value = serde_json::from_slice(sent).map_err(|error| format!("the sent value is no JSON: {error}"))?;
    let mut stored: Value = serde_json::from_slice(&document.source).map_err(|error| error.to_string())?;
    let kafka = stored.as_object_mut().and_then(|object| object.remove("kafka")).unwrap_or_default();
    if kafka["partition"] != acked.partition || kafka["offset"] != acked.offset {
        return Err(format!("the kafka object is wrong: {kafka}"));
    }
    if stored != sent {
        return Err(format!("sent {sent}, stored {stored}"));
    }
    Ok(())
}

/// The record's value as the document holds it.
fn payload_of(content: Content, source: &[u8]) -> Result<Vec<u8>, String> {
    let (plain, encoded) = match content {
        Content::Json | Content::JsonWithKafka => return Ok(source.to_vec()),
        Content::Text => ("message", "message_base64"),
        Content::Classic => ("Log", "LogBase64"),
    };
    let source: Value = serde_json::from_slice(source).map_err(|error| error.to_string())?;
    if let Some(encoded) = source[encoded].as_str() {
        return STANDARD.decode(encoded).map_err(|error| error.to_string());
    }
    source[plain].as_str().map(|text| text.as_bytes().to_vec()).ok_or_else(|| format!("no {plain} in {source}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const ID: &str = "HK2wYQabcdefghijklmnop";

    fn sent(value: &str) -> Sent {
        Sent { topic: Arc::from("orders"), hash: Some(hash(value.as_bytes())), value: Some(value.as_bytes().into()) }
    }

    fn acked(partition: i32, offset: i64) -> Acked {
        Acked { sent: sent(&value(partition, offset)), partition, offset }
    }

    fn value(partition: i32, offset: i64) -> String {
        format!(r#"{{"n": "{partition}-{offset}"}}"#)
    }

    fn document(partition: i32, offset: i64) -> Document {
        Document { index: "orders".to_owned(), id: format!("{ID}:{partition}:{offset}"), source: value(partition, offset).into_bytes() }
    }

    fn letter(partition: i32, offset: i64) -> Letter {
        let payload = Some(hash(value(partition, offset).as_bytes()));
        Letter {
            id: format!("{ID}:{partition}:{offset}"),
            cause: "rejected".to_owned(),
            error_type: "document_parsing_exception".to_owned(),
            hash: payload,
        }
    }

    /// Two partitions with three records each, all indexed and committed.
    struct Case {
        acked: Vec<Acked>,
        unknown: Vec<Sent>,
        documents: Vec<Document>,
        letters: Vec<Letter>,
        committed: BTreeMap<i32, i64>,
        skipped: BTreeSet<(i32, i64)>,
        content: Content,
    }

    impl Case {
        fn sound() -> Self {
            let places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)];
            Self {
                acked: places.iter().map(|(partition, offset)| acked(*partition, *offset)).collect(),
                unknown: Vec::new(),
                documents: places.iter().map(|(partition, offset)| document(*partition, *offset)).collect(),
                letters: Vec::new(),
                committed: BTreeMap::from([(0, 3), (1, 3)]),
                skipped: BTreeSet::new(),
                content: Content::Json,
            }
        }

        fn check(&self) -> Vec<Violation> {
            let generation = Generation {
                index: Some("orders"),
                content: self.content,
                committed: self.committed.clone(),
                skipped: self.skipped.clone(),
                ..Generation::new("orders", ID, &self.acked)
            };
            let generations = [generation];
            check(&Evidence { generations: &generations, unknown: &self.unknown, documents: &self.documents, letters: &self.letters })
        }
    }

    fn id(partition: i32, offset: i64) -> String {
        format!("{ID}:{partition}:{offset}")
    }

    #[test]
    fn a_sound_run_has_no_violation() {
        assert_eq!(Case::sound().check(), []);
    }

    #[test]
    fn a_missing_document_below_the_commit_is_two_violations() {
        let mut case = Case::sound();
        case.documents.remove(1);
        assert_eq!(case.check(), [Violation::Missing { id: id(0, 1) }, Violation::CommittedPastUnsettled { id: id(0, 1), committed: 3 }]);
    }

    #[test]
    fn a_missing_document_above_the_commit_is_only_missing() {
        let mut case = Case::sound();
        case.documents.remove(2);
        case.committed.insert(0, 2);
        assert_eq!(case.check(), [Violation::Missing { id: id(0, 2) }]);
    }

    #[test]
    fn a_commit_of_another_partition_does_not_count() {
        let mut case = Case::sound();
        case.documents.remove(5);
        case.committed = BTreeMap::from([(0, 3)]);
        assert_eq!(case.check(), [Violation::Missing { id: id(1, 2) }]);
    }

    #[test]
    fn a_document_in_two_indices_is_doubled_and_in_a_wrong_index() {
        let mut case = Case::sound();
        case.documents.push(Document { index: "orders-2".to_owned(), ..document(0, 0) });
        let indices = vec!["orders".to_owned(), "orders-2".to_owned()];
        assert_eq!(
            case.check(),
            [Violation::Doubled { id: id(0, 0), indices }, Violation::WrongIndex { id: id(0, 0), index: "orders-2".to_owned() }]
        );
    }

    #[test]
    fn wrong_content_is_shown() {
        let mut case = Case::sound();
        case.documents[3].source = b"{\"n\": \"1-1\"}".to_vec();
        let violations = case.check();
        assert!(matches!(violations.as_slice(), [Violation::WrongContent { id: found, .. }] if *found == id(1, 0)), "{violations:?}");
    }

    #[test]
    fn a_dead_letter_settles_but_not_beside_a_document() {
        let mut case = Case::sound();
        case.documents.remove(0);
        case.letters.push(letter(0, 0));
        assert_eq!(case.check(), []);
        case.documents.push(document(0, 0));
        assert_eq!(case.check(), [Violation::IndexedAndDead { id: id(0, 0) }]);
    }

    #[test]
    fn a_dead_letter_with_another_payload_is_wrong_content() {
        let mut case = Case::sound();
        case.documents.remove(0);
        case.letters.push(Letter { id: id(0, 0), ..letter(0, 1) });
        assert!(matches!(case.check().as_slice(), [Violation::WrongContent { .. }]));
    }

    #[test]
    fn only_a_named_skip_settles() {
        let mut case = Case::sound();
        case.documents.remove(0);
        case.skipped.insert((0, 0));
        assert_eq!(case.check(), []);
        case.skipped = BTreeSet::from([(1, 0)]);
        assert_eq!(case.check().len(), 2);
    }

    #[test]
    fn ids_that_run_together_are_foreign_and_leave_their_records_missing() {
        let mut case = Case::sound();
        case.documents[0].id = format!("{ID}00");
        let violations = case.check();
        assert!(violations.contains(&Violation::Foreign { id: format!("{ID}00"), index: "orders".to_owned() }));
        assert!(violations.contains(&Violation::Missing { id: id(0, 0) }));
    }

    #[test]
    fn a_document_of_an_earlier_life_of_the_topic_is_foreign_unless_that_life_is_named() {
        let mut case = Case::sound();
        let earlier = Document { id: "EARLIERLIFE0000000000A:0:0".to_owned(), ..document(0, 0) };
        case.documents.push(earlier.clone());
        assert_eq!(case.check(), [Violation::Foreign { id: earlier.id.clone(), index: earlier.index.clone() }]);
        let earlier_acked = [acked(0, 0)];
        let generations = [Generation::new("orders", "EARLIERLIFE0000000000A", &earlier_acked), Generation::new("orders", ID, &case.acked)];
        assert_eq!(check(&Evidence { generations: &generations, unknown: &[], documents: &case.documents, letters: &[] }), []);
    }

    #[test]
    fn an_unknown_send_may_appear_but_nothing_else() {
        let mut case = Case::sound();
        case.documents.push(document(0, 3));
        assert_eq!(case.check(), [Violation::Foreign { id: id(0, 3), index: "orders".to_owned() }]);
        case.unknown.push(sent(&value(0, 3)));
        assert_eq!(case.check(), []);
    }

    #[test]
    fn text_and_classic_documents_are_compared_by_their_payload() {
        let mut case = Case::sound();
        case.content = Content::Text;
        for document in &mut case.documents {
            let text = String::from_utf8(document.source.clone()).expect("text");
            document.source = serde_json::json!({"message": text, "@timestamp": "2026-01-01T00:00:00.000Z"}).to_string().into_bytes();
        }
        case.documents[0].source = serde_json::json!({"message_base64": STANDARD.encode(value(0, 0))}).to_string().into_bytes();
        assert_eq!(case.check(), []);

        let mut case = Case::sound();
        case.content = Content::Classic;
        for document in &mut case.documents {
            let text = String::from_utf8(document.source.clone()).expect("text");
            document.source = serde_json::json!({"Topic": "orders", "Log": text, "Id": document.id}).to_string().into_bytes();
        }
        assert_eq!(case.check(), []);
        let other = serde_json::json!({"Topic": "orders", "Log": value(0, 0), "Id": "other"});
        case.documents[0].source = other.to_string().into_bytes();
        assert!(matches!(case.check().as_slice(), [Violation::WrongContent { .. }]));
    }

    #[test]
    fn the_kafka_object_must_be_the_records_own() {
        let mut case = Case::sound();
        case.content = Content::JsonWithKafka;
        for (acked, document) in case.acked.iter().zip(&mut case.documents) {
            let mut object: Value = serde_json::from_slice(&document.source).expect("JSON");
            object["kafka"] = serde_json::json!({"partition": acked.partition, "offset": acked.offset});
            document.source = object.to_string().into_bytes();
        }
        assert_eq!(case.check(), []);
        case.documents[0].source = b"{\"n\": \"0-0\", \"kafka\": {\"partition\": 1, \"offset\": 0}}".to_vec();
        assert!(matches!(case.check().as_slice(), [Violation::WrongContent { .. }]));
    }
}
