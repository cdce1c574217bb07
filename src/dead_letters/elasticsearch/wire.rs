//! What is sent to the server and what is read of its answers. Pure.
//!
//! Guarantees that an answer which is not whole, or not one of Elasticsearch or OpenSearch, is a [`Trouble`] and never taken for "nothing there"; that a bulk body never creates an
//! index. Owns the mapping and the remedies. Uses nothing that only one of Elasticsearch 8 and 9 and OpenSearch 2 and 3 has, and no scripts.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tracing::warn;

use super::super::{DeadLetter, Past, Query, Seen};
use crate::sink::answer::{self, ErrorText, Failure, Reading, Sent};
use crate::sink::classify::{self, ItemClass};

/// What a letter counts for beside its payload: its key, its names, the error's text. The measured ones of one small key have about 700 bytes.
pub(super) const BYTES_BESIDE_PAYLOAD: u64 = 1024;

/// The longest `error.type` that can be searched for, in characters. Lucene refuses a term of more than 32,766 bytes, and a character has at most 4 of them.
const LONGEST_KEYWORD: u32 = 8191;

/// The id of the guard; see [`Batch`]. There is never a document under it.
const GUARD_ID: &str = "drover-guard";

/// An `error.status` and `attempts` are integers in the mapping.
const MOST_ATTEMPTS: u32 = i32::MAX.unsigned_abs();

/// Why the server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Trouble {
    status: Option<u16>,
    kind: String,
    text: String,
    /// The answer began and is not whole, or longer than it may be.
    pub(super) is_broken: bool,
}

impl Trouble {
    /// No answer, or none that can be read.
    pub(super) fn without_answer(text: String) -> Self {
        Self { status: None, kind: String::new(), text: answer::for_people(&text), is_broken: false }
    }

    /// The answer is not whole.
    pub(super) fn broken(text: String) -> Self {
        Self { is_broken: true, ..Self::without_answer(text) }
    }

    /// Something that passes by itself.
    pub(super) fn passing(text: String) -> Self {
        Self { status: Some(409), ..Self::without_answer(text) }
    }

    /// A request that was refused.
    pub(super) fn refused(status: u16, body: &[u8]) -> Self {
        Self::new(status, &answer::read_refusal(body))
    }

    fn new(status: u16, error: &ErrorText<'_>) -> Self {
        let text = answer::for_people(&format!("status {status}, {error}"));
        Self { status: Some(status), kind: error.kind.to_string(), text, is_broken: false }
    }

    fn unreadable(error: &serde_json::Error) -> Self {
        Self { kind: "unreadable".to_owned(), ..Self::without_answer(format!("the answer is not one of Elasticsearch or OpenSearch: {error}")) }
    }

    /// Whether the index does not exist.
    pub(super) fn is_missing_index(&self) -> bool {
        self.kind == "index_not_found_exception"
    }

    /// Whether the request was longer than the server, or a proxy before it, takes.
    pub(super) fn is_too_large(&self) -> bool {
        self.status == Some(413)
    }

    /// Whether the index was created by somebody else meanwhile.
    pub(super) fn is_existing_index(&self) -> bool {
        self.kind == "resource_already_exists_exception"
    }

    /// Whether the index has no shard that answers, as in the moment after its creation.
    pub(super) fn is_starting(&self) -> bool {
        self.kind == "no_shard_available_action_exception" || (self.status == Some(503) && self.kind == "search_phase_execution_exception")
    }

    /// Whether we may not do this.
    pub(super) fn is_forbidden(&self) -> bool {
        self.status == Some(403) && self.kind != "cluster_block_exception"
    }

    /// What helps.
    pub(super) fn remedy(&self) -> &'static str {
        match (self.status, self.kind.as_str()) {
            (_, "unreadable") => {
                "check that elasticsearch.urls names Elasticsearch or OpenSearch itself (path prefix, proxy, login page); drover goes on by itself"
            }
            (None, _) => "check that the nodes in elasticsearch.urls can be reached; drover goes on by itself",
            (_, "index_closed_exception") => "open the index of the dead letters (POST /<index>/_open); drover goes on by itself",
            (_, "cluster_block_exception") => {
                "remove the block of the dead letters' index (index.blocks.*), or free disk space on the data nodes; drover goes on by itself"
            }
            (_, "validation_exception") => {
                "the cluster takes no further index: delete or close indices, or raise cluster.max_shards_per_node; drover goes on by itself"
            }
            (_, "invalid_index_name_exception") => "change dead_letters.index to a name that the server accepts",
            (Some(401 | 403), _) => {
                "check the sink's credentials, and that they may create, read, write and refresh dead_letters.index; drover goes on by itself"
            }
            (Some(413), _) => {
                "a letter is larger than the server, or a proxy before it, takes: raise http.max_content_length or the proxy's body limit (even without the record's value and key); drover goes on by itself"
            }
            (Some(408 | 409 | 429 | 500..=599), _) => "the server is under pressure or not ready; drover goes on by itself",
            (Some(400), _) => {
                "the index of the dead letters has another mapping than drover's: name another one in dead_letters.index, or delete it; drover goes on by itself"
            }
            _ => "look at the server's log, and check that elasticsearch.urls names Elasticsearch or OpenSearch itself; drover goes on by itself",
        }
    }
}

/// The mapping: unknown fields are kept and not indexed, and no value of a letter can be refused.
///
/// `ignore_above` because a server's error type has no limit; `ignore_malformed` because a record's timestamp may be one that the server's dates do not have.
pub(super) fn mapping() -> Value {
    let keyword = json!({"type": "keyword"});
    let date = json!({"type": "date", "ignore_malformed": true});
    json!({
        "dynamic": false,
        "properties": {
            "id": keyword,
            "topic": keyword,
            "topic_id": keyword,
            "partition": {"type": "integer"},
            "offset": {"type": "long"},
            "timestamp": date,
            "index": keyword,
            "key_base64": {"type": "binary"},
            "payload_base64": {"type": "binary"},
            "payload_bytes": {"type": "long"},
            "truncated": {"type": "boolean"},
            "error": {
                "properties": {
                    "type": {"type": "keyword", "ignore_above": LONGEST_KEYWORD},
                    "reason": {"type": "text"},
                    "status": {"type": "integer"},
                },
            },
            "cause": keyword,
            "attempts": {"type": "integer"},
            "first_at": date,
            "last_at": date,
            "redriven_at": date,
        },
    })
}

/// The body that creates the index: one shard, a replica as soon as there is a second node, every answered write on disk, and no ingest pipeline of some template.
pub(super) fn new_index() -> Value {
    let settings = json!({
        "number_of_shards": 1,
        "auto_expand_replicas": "0-1",
        "translog.durability": "request",
        "default_pipeline": "_none",
    });
    json!({"settings": {"index": settings}, "mappings": mapping()})
}

/// The beginning of a path: the index's name, with everything encoded that has a meaning in a URL.
pub(super) fn index_path(index: &str) -> String {
    let mut path = String::from("/");
    for byte in index.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// What is known of a letter that is in the index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Known {
    seq_no: i64,
    primary_term: i64,
    payload_bytes: u64,
    /// `None` when the document under the id is no letter.
    past: Option<Past>,
    last_at: Option<Timestamp>,
}

impl Known {
    /// Whether the letter is still as it was seen.
    pub(super) fn is(&self, seen: &Seen) -> bool {
        self.past.is_some_and(|past| past.attempts == seen.attempts) && self.last_at == Some(seen.last_at)
    }

    /// Bytes that it counts for.
    pub(super) fn counted_bytes(&self) -> u64 {
        counted_bytes(self.payload_bytes)
    }
}

/// The query of a look-up by [`ids`] that [`read_known`] reads.
pub(super) const KNOWN_QUERY: &str = "_mget?_source_includes=attempts,first_at,last_at,redriven_at,payload_bytes";

/// Asks for documents by id, as they are now.
pub(super) fn ids<'a>(ids: impl Iterator<Item = &'a str>) -> Value {
    json!({"ids": ids.collect::<Vec<_>>()})
}

#[derive(Deserialize)]
struct Looked<'a> {
    #[serde(borrow)]
    docs: Vec<LookedUp<'a>>,
}

#[derive(Deserialize)]
struct LookedUp<'a> {
    #[serde(rename = "_id", default)]
    id: String,
    #[serde(rename = "_seq_no", default)]
    seq_no: i64,
    #[serde(rename = "_primary_term", default)]
    primary_term: i64,
    #[serde(default)]
    found: Option<bool>,
    #[serde(rename = "_source", borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Refused<'a> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(borrow, default)]
    reason: std::borrow::Cow<'a, str>,
}

impl LookedUp<'_> {
    /// The document's source; `None` when there is none.
    fn source(&self) -> Result<Option<&RawValue>, Trouble> {
        if let Some(error) = self.error {
            let refused: Refused<'_> = serde_json::from_str(error.get()).map_err(|error| Trouble::unreadable(&error))?;
            // The answer has no status for each document.
            let is_passing = classify::item(400, &refused.kind, &refused.reason, false) == ItemClass::Retry;
            let status = if is_passing { 503 } else { 400 };
            return Err(Trouble::new(status, &ErrorText { kind: refused.kind.into(), reason: refused.reason, cause: None }));
        }
        match (self.found, self.source) {
            (Some(true), Some(source)) => Ok(Some(source)),
            (Some(false), _) => Ok(None),
            _ => Err(Trouble::without_answer(format!("the answer does not say whether {} is there", self.id))),
        }
    }
}

fn looked_up(body: &[u8], asked: usize) -> Result<Vec<LookedUp<'_>>, Trouble> {
    let looked: Looked<'_> = serde_json::from_slice(body).map_err(|error| Trouble::unreadable(&error))?;
    if looked.docs.len() != asked {
        return Err(Trouble::without_answer(format!("the answer has {} documents for {asked} ids", looked.docs.len())));
    }
    Ok(looked.docs)
}

/// Reads the answer to a look-up of so many ids: what is there, by id.
pub(super) fn read_known(body: &[u8], asked: usize) -> Result<Vec<(String, Known)>, Trouble> {
    #[derive(Deserialize)]
    struct Size {
        #[serde(default)]
        payload_bytes: u64,
    }
    #[derive(Deserialize)]
    struct Last {
        #[serde(with = "crate::status::time_text")]
        last_at: Timestamp,
    }
    let mut known = Vec::new();
    for document in looked_up(body, asked)? {
        let Some(source) = document.source()? else { continue };
        let past = serde_json::from_str::<Past>(source.get()).ok();
        let payload_bytes = serde_json::from_str::<Size>(source.get()).map_or(0, |size| size.payload_bytes);
        let last_at = serde_json::from_str::<Last>(source.get()).map(|last| last.last_at).ok();
        let (seq_no, primary_term) = (document.seq_no, document.primary_term);
        known.push((document.id, Known { seq_no, primary_term, payload_bytes, past, last_at }));
    }
    Ok(known)
}

/// Reads the answer to a look-up of one id.
pub(super) fn read_letter(body: &[u8]) -> Result<Option<Result<DeadLetter, serde_json::Error>>, Trouble> {
    let documents = looked_up(body, 1)?;
    let Some(document) = documents.first() else { return Ok(None) };
    Ok(document.source()?.map(|source| serde_json::from_str(source.get())))
}

/// Bytes that a letter counts for.
pub(super) fn counted_bytes(payload_bytes: u64) -> u64 {
    payload_bytes.saturating_add(BYTES_BESIDE_PAYLOAD)
}

/// How many bytes these letters add to the index, and whether some of them are new.
pub(super) fn growth(letters: &[DeadLetter], known: &HashMap<String, Known>) -> (i64, bool) {
    let mut added: i64 = 0;
    let mut has_new = false;
    for letter in letters {
        let old = known.get(&letter.id).map(|known| counted_bytes(known.payload_bytes));
        has_new |= old.is_none();
        let new = i64::try_from(counted_bytes(letter.payload_bytes)).unwrap_or(i64::MAX);
        added = added.saturating_add(new).saturating_sub(i64::try_from(old.unwrap_or(0)).unwrap_or(i64::MAX));
    }
    (added, has_new)
}

/// The letters of one request: `index` of what is known, under the condition that it has not changed, and `create` of the rest.
///
/// The first item is a guard. It asks for an alias (`require_alias`), and both servers create no index for a request in which any item does; so an index that vanished comes back by
/// [`new_index`] and never with a mapping that the server guessed. The guard itself always fails: either the name is no alias, or its condition names a document that is not there.
#[derive(Debug)]
pub(super) struct Batch {
    /// The body.
    pub(super) body: Vec<u8>,
    /// The places of the letters in the list that they were taken from.
    places: Vec<usize>,
}

/// What another writer, or whoever deleted the index, does to an item between the look-up and the write.
const PASSED_BY_OTHERS: [&str; 3] = ["version_conflict_engine_exception", "index_not_found_exception", "document_missing_exception"];

/// What became of a batch: the places of the letters to try again. All others are kept.
pub(super) type Conflicts = Vec<usize>;

impl Batch {
    /// An empty one.
    pub(super) fn new(index: &str) -> Self {
        let guard = json!({"index": {"_index": index, "_id": GUARD_ID, "if_seq_no": 0, "if_primary_term": 1, "require_alias": true}});
        Self { body: format!("{guard}\n{{}}\n").into_bytes(), places: Vec::new() }
    }

    /// Whether there is no letter in it.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The places of the letters in the list that they were taken from, in order.
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// How many items the request has.
    pub(super) fn items(&self) -> usize {
        self.places.len() + 1
    }

    /// Adds the lines of the letter at `place`.
    pub(super) fn push(&mut self, place: usize, lines: &[u8]) {
        self.body.extend_from_slice(lines);
        self.places.push(place);
    }

    /// Reads the answer (status 200).
    pub(super) fn read(&self, body: &[u8]) -> Result<Conflicts, Trouble> {
        match answer::read(body, self.items(), Sent::Any) {
            Reading::AllWell => Ok(Vec::new()),
            Reading::Unusable(text) => Err(Trouble::broken(text)),
            Reading::Failures(failures) => self.conflicts(&failures),
        }
    }

    fn conflicts(&self, failures: &[Failure<'_>]) -> Result<Conflicts, Trouble> {
        let mut again = Vec::new();
        for failure in failures {
            // The guard is item 0.
            let Some(place) = failure.position.checked_sub(1).and_then(|number| self.places.get(number)) else { continue };
            let kind = failure.error.kind.as_ref();
            // What was to be removed is gone already: looked up again, it is no longer meant.
            let is_gone = failure.status == 404 && kind.is_empty();
            if !is_gone && !PASSED_BY_OTHERS.contains(&kind) {
                return Err(Trouble::new(failure.status, &failure.error));
            }
            again.push(*place);
        }
        Ok(again)
    }
}

/// How much of a letter is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it.
    Whole,
    /// All but the record's value.
    WithoutPayload,
    /// Neither value nor key, and no more than 2 KiB of each text of the server.
    Bare,
}

impl Form {
    /// Every form, the longest first.
    pub(super) const ALL: [Self; 3] = [Self::Whole, Self::WithoutPayload, Self::Bare];
}

/// What a shorter form says nothing about, so that what was kept before stays.
const LEFT_OUT: [&str; 4] = ["payload_base64", "key_base64", "payload_bytes", "truncated"];

/// The action line and the source line of a letter, merged with what is known of it.
pub(super) fn lines(index: &str, letter: &DeadLetter, known: Option<&Known>, form: Form) -> Result<Vec<u8>, serde_json::Error> {
    let mut merged = shortened(letter, form);
    let past = known.and_then(|known| known.past);
    if let Some(past) = past {
        merged.succeed(past);
    }
    merged.attempts = merged.attempts.min(MOST_ATTEMPTS);
    let place = |known: &Known| json!({"_index": index, "_id": letter.id, "if_seq_no": known.seq_no, "if_primary_term": known.primary_term});
    let (action, source) = match known {
        Some(known) if past.is_some() && form != Form::Whole => {
            let mut fields = serde_json::to_value(&merged)?;
            if let Some(fields) = fields.as_object_mut() {
                LEFT_OUT.iter().for_each(|name| drop(fields.remove(*name)));
            }
            (json!({"update": place(known)}), serde_json::to_vec(&json!({"doc": fields}))?)
        }
        Some(known) => (json!({"index": place(known)}), serde_json::to_vec(&merged)?),
        None => (json!({"create": {"_index": index, "_id": letter.id}}), serde_json::to_vec(&merged)?),
    };
    let mut lines = serde_json::to_vec(&action)?;
    lines.push(b'\n');
    lines.extend_from_slice(&source);
    lines.push(b'\n');
    Ok(lines)
}

/// The letter in this form.
fn shortened(letter: &DeadLetter, form: Form) -> DeadLetter {
    if form == Form::Whole {
        return letter.clone();
    }
    let mut short = DeadLetter { payload_base64: None, ..letter.clone() };
    // A record without a value loses nothing by it.
    short.truncated |= letter.payload_base64.is_some();
    if form == Form::Bare {
        short.truncated |= letter.key_base64.is_some();
        short.key_base64 = None;
        short.error.kind = answer::shorten(&letter.error.kind).into_owned();
        short.error.reason = answer::shorten(&letter.error.reason).into_owned();
    }
    short
}

/// The action line that removes a letter as it is known.
pub(super) fn removal(index: &str, id: &str, known: &Known) -> Vec<u8> {
    let action = json!({"delete": {"_index": index, "_id": id, "if_seq_no": known.seq_no, "if_primary_term": known.primary_term}});
    format!("{action}\n").into_bytes()
}

/// A page of a list: at most `size` letters that match, after the one whose sort values are `after`.
///
/// Times are compared in whole milliseconds, as the server keeps them, so that this finds at least the letters that [`Query::admits`] admits.
pub(super) fn search(query: &Query, after: Option<&Value>, size: usize) -> Value {
    let mut body = json!({
        "size": size,
        "track_total_hits": false,
        "query": {"bool": {"filter": filters(query)}},
        "sort": [{"topic": "asc"}, {"partition": "asc"}, {"offset": "asc"}, {"id": "asc"}],
    });
    if let (Some(after), Some(fields)) = (after, body.as_object_mut()) {
        fields.insert("search_after".to_owned(), after.clone());
    }
    body
}

/// Asks how many letters match.
pub(super) fn matching(query: &Query) -> Value {
    json!({"size": 0, "track_total_hits": true, "query": {"bool": {"filter": filters(query)}}})
}

fn filters(query: &Query) -> Vec<Value> {
    let mut filter = Vec::new();
    if let Some(topic) = &query.topic {
        filter.push(json!({"term": {"topic": topic.as_str()}}));
    }
    if let Some(partition) = query.partition {
        filter.push(json!({"term": {"partition": partition}}));
    }
    if let Some(kind) = &query.error_type {
        filter.push(json!({"term": {"error.type": kind}}));
    }
    let mut range = serde_json::Map::new();
    range.extend(query.since.map(|since| ("gte".to_owned(), json!(whole_milliseconds(since)))));
    range.extend(query.until.map(|until| ("lte".to_owned(), json!(whole_milliseconds(until)))));
    if !range.is_empty() {
        range.insert("format".to_owned(), json!("epoch_millis"));
        filter.push(json!({"range": {"last_at": range}}));
    }
    filter
}

/// The sort values of a place in the list.
pub(super) fn sort_values((topic, partition, offset, id): &(crate::topic::TopicName, i32, i64, String)) -> Value {
    json!([topic.as_str(), partition, offset, id])
}

fn whole_milliseconds(time: Timestamp) -> i64 {
    let floor = time.as_nanosecond().div_euclid(1_000_000);
    i64::try_from(floor).unwrap_or(i64::MAX)
}

/// A page of a list as it was read.
#[derive(Debug)]
pub(super) struct Page {
    /// How many documents the server found.
    pub(super) hits: usize,
    /// The sort values of the last.
    pub(super) last: Option<Value>,
    /// The letters among them.
    pub(super) letters: Vec<DeadLetter>,
}

#[derive(Deserialize)]
struct Searched<'a, A> {
    #[serde(borrow)]
    hits: Hits<'a>,
    #[serde(default = "none")]
    aggregations: Option<A>,
    timed_out: bool,
}

fn none<A>() -> Option<A> {
    None
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(default)]
    total: Option<Total>,
    #[serde(borrow, default)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(rename = "_id", default)]
    id: String,
    #[serde(rename = "_source", borrow)]
    source: &'a RawValue,
    sort: Value,
}

/// Reads the answer to [`search`].
pub(super) fn read_page(body: &[u8]) -> Result<Page, Trouble> {
    let searched: Searched<'_, Value> = serde_json::from_slice(body).map_err(|error| Trouble::unreadable(&error))?;
    if searched.timed_out {
        return Err(Trouble::without_answer("the search was cut short by the server".to_owned()));
    }
    let hits = searched.hits.hits.len();
    let mut last = None;
    let mut letters = Vec::with_capacity(hits);
    for hit in searched.hits.hits {
        match serde_json::from_str(hit.source.get()) {
            Ok(letter) => letters.push(letter),
            Err(error) => warn!(id = answer::for_people(&hit.id), error = %error, "dead letter is not readable"),
        }
        last = Some(hit.sort);
    }
    Ok(Page { hits, last, letters })
}

/// Asks how many letters there are and what their payloads add up to.
pub(super) fn count() -> Value {
    json!({"size": 0, "track_total_hits": true, "aggs": {"payload": {"sum": {"field": "payload_bytes"}}}})
}

/// Reads the answer to [`matching`]: how many there are.
pub(super) fn read_total(body: &[u8]) -> Result<u64, Trouble> {
    let searched: Searched<'_, Value> = serde_json::from_slice(body).map_err(|error| Trouble::unreadable(&error))?;
    match (searched.hits.total, searched.timed_out) {
        (Some(total), false) => Ok(total.value),
        _ => Err(Trouble::without_answer("the answer has no count".to_owned())),
    }
}

/// Reads the answer to [`count`]: bytes in use.
pub(super) fn read_count(body: &[u8]) -> Result<u64, Trouble> {
    #[derive(Deserialize)]
    struct Aggregations {
        payload: Sum,
    }
    #[derive(Deserialize)]
    struct Sum {
        value: f64,
    }
    let searched: Searched<'_, Aggregations> = serde_json::from_slice(body).map_err(|error| Trouble::unreadable(&error))?;
    match (searched.hits.total, searched.aggregations, searched.timed_out) {
        // A sum is a double: exact up to 8 PiB, and a cast keeps it in range.
        (Some(total), Some(found), false) => Ok((found.payload.value as u64).saturating_add(total.value.saturating_mul(BYTES_BESIDE_PAYLOAD))),
        _ => Err(Trouble::without_answer("the answer has no count".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dead_letters::suite::{at, letter, name, query};

    #[test]
    fn the_mapping_is_the_one_of_the_design() {
        let expected = json!({
            "dynamic": false,
            "properties": {
                "id": {"type": "keyword"}, "topic": {"type": "keyword"}, "topic_id": {"type": "keyword"}, "index": {"type": "keyword"}, "cause": {"type": "keyword"},
                "error": {"properties": {
                    "type": {"type": "keyword", "ignore_above": 8191}, "reason": {"type": "text"}, "status": {"type": "integer"},
                }},
                "partition": {"type": "integer"}, "attempts": {"type": "integer"}, "offset": {"type": "long"}, "payload_bytes": {"type": "long"},
                "timestamp": {"type": "date", "ignore_malformed": true}, "first_at": {"type": "date", "ignore_malformed": true},
                "last_at": {"type": "date", "ignore_malformed": true}, "redriven_at": {"type": "date", "ignore_malformed": true},
                "key_base64": {"type": "binary"}, "payload_base64": {"type": "binary"}, "truncated": {"type": "boolean"},
            },
        });
        assert_eq!(mapping(), expected);
        let letter_fields: Vec<String> =
            serde_json::to_value(letter("a", 0, 1)).expect("JSON").as_object().expect("an object").keys().cloned().collect();
        let mapped: Vec<String> = mapping()["properties"].as_object().expect("fields").keys().cloned().collect();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        // `payload_bytes` and all others: no field of a letter is left out.
        assert_eq!(sorted(mapped), sorted(letter_fields));
    }

    #[test]
    fn a_name_with_signs_of_a_path_stays_one_segment() {
        assert_eq!(index_path("drover-dead_letters.1"), "/drover-dead_letters.1");
        assert_eq!(index_path("a/b?c%d+e"), "/a%2Fb%3Fc%25d%2Be");
        assert_eq!(index_path("é"), "/%C3%A9");
    }

    #[test]
    fn a_body_begins_with_the_guard_and_carries_conditions() {
        let mut batch = Batch::new("dead");
        assert!(batch.is_empty());
        let old = Past { attempts: 4, first_at: at(50), redriven_at: None };
        let known = Known { seq_no: 7, primary_term: 2, payload_bytes: 5, past: Some(old), last_at: None };
        batch.push(3, &lines("dead", &letter("a", 0, 1), Some(&known), Form::Whole).expect("JSON"));
        batch.push(5, &lines("dead", &letter("a", 0, 2), None, Form::Whole).expect("JSON"));
        let body = String::from_utf8(batch.body.clone()).expect("text");
        let parsed: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(
            parsed[0],
            json!({"index": {"_index": "dead", "_id": "drover-guard", "if_seq_no": 0, "if_primary_term": 1, "require_alias": true}})
        );
        assert_eq!(parsed[1], json!({}));
        assert_eq!(parsed[2], json!({"index": {"_index": "dead", "_id": "base-a:0:1", "if_seq_no": 7, "if_primary_term": 2}}));
        assert_eq!((&parsed[3]["attempts"], &parsed[3]["first_at"]), (&json!(5), &json!("1970-01-01T00:00:50.000Z")));
        assert_eq!(parsed[4], json!({"create": {"_index": "dead", "_id": "base-a:0:2"}}));
        assert_eq!(parsed[5], serde_json::to_value(letter("a", 0, 2)).expect("JSON"));
        assert!(body.ends_with('\n') && parsed.len() == 6 && batch.items() == 3);
    }

    #[test]
    fn a_shorter_form_of_a_known_letter_leaves_what_was_kept_and_a_removal_has_its_condition() {
        let past = Some(Past { attempts: 4, first_at: at(50), redriven_at: None });
        let known = Known { seq_no: 7, primary_term: 2, payload_bytes: 5, past, last_at: Some(at(60)) };
        let parsed = |known: Option<&Known>, form| {
            let lines = lines("dead", &letter("a", 0, 1), known, form).expect("JSON");
            let lines: Vec<Value> = String::from_utf8(lines).expect("text").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            (lines[0].clone(), lines[1].clone())
        };
        let (action, source) = parsed(Some(&known), Form::WithoutPayload);
        assert_eq!(action, json!({"update": {"_index": "dead", "_id": "base-a:0:1", "if_seq_no": 7, "if_primary_term": 2}}));
        assert_eq!(source["doc"]["attempts"], 5);
        for field in LEFT_OUT {
            assert!(source["doc"].get(field).is_none(), "{field}");
        }
        let (action, source) = parsed(None, Form::Bare);
        assert!(action["create"].is_object(), "{action}");
        assert_eq!((&source["payload_base64"], &source["truncated"], &source["payload_bytes"]), (&Value::Null, &json!(true), &json!(5)));
        let foreign = Known { past: None, ..known };
        assert!(parsed(Some(&foreign), Form::Bare).0["index"].is_object());
        assert_eq!(
            String::from_utf8(removal("dead", "a:0:1", &foreign)).expect("text"),
            "{\"delete\":{\"_id\":\"a:0:1\",\"_index\":\"dead\",\"if_primary_term\":2,\"if_seq_no\":7}}\n"
        );
    }

    #[test]
    fn conflicts_and_a_vanished_index_are_tried_again_and_nothing_else() {
        let mut batch = Batch::new("dead");
        for place in [3, 5, 8] {
            batch.push(place, b"{}\n{}\n");
        }
        let answer = |items: Value| batch.read(json!({"errors": true, "items": items}).to_string().as_bytes());
        let failed = |status: u16, kind: &str| json!({"index": {"status": status, "error": {"type": kind, "reason": "r"}}});
        let guard = failed(404, "index_not_found_exception");
        let ok = json!({"create": {"status": 201}});
        assert_eq!(answer(json!([guard, ok, ok, ok])), Ok(vec![]));
        let conflict = failed(409, "version_conflict_engine_exception");
        assert_eq!(answer(json!([conflict, conflict, ok, guard])), Ok(vec![3, 8]));
        let blocked = answer(json!([guard, conflict, failed(403, "cluster_block_exception"), ok])).expect_err("blocked");
        assert!(blocked.remedy().contains("remove the block") && !blocked.is_forbidden(), "{blocked}");
        assert!(answer(json!([guard, ok, ok])).expect_err("too short").is_broken);
        assert_eq!(
            batch.read(
                br#"{"errors":false,"items":[{"index":{"status":201}},{"index":{"status":201}},{"index":{"status":201}},{"index":{"status":201}}]}"#
            ),
            Ok(vec![])
        );
    }

    #[test]
    fn a_look_up_tells_missing_documents_from_missing_answers() {
        let source = json!({"attempts": 2, "first_at": "1970-01-01T00:00:50.000Z", "last_at": "1970-01-01T00:00:51.000Z", "redriven_at": null, "payload_bytes": 9});
        let found = json!({"_id": "a", "_seq_no": 7, "_primary_term": 2, "found": true, "_source": source});
        let foreign = json!({"_id": "b", "_seq_no": 8, "_primary_term": 2, "found": true, "_source": {}});
        let absent = json!({"_id": "c", "found": false});
        let body = json!({"docs": [found, foreign, absent]}).to_string();
        let past = Past { attempts: 2, first_at: at(50), redriven_at: None };
        let expected = [
            ("a".to_owned(), Known { seq_no: 7, primary_term: 2, payload_bytes: 9, past: Some(past), last_at: Some(at(51)) }),
            ("b".to_owned(), Known { seq_no: 8, primary_term: 2, payload_bytes: 0, past: None, last_at: None }),
        ];
        assert_eq!(read_known(body.as_bytes(), 3).expect("reads"), expected);
        assert!(read_known(body.as_bytes(), 2).is_err());
        for (kind, remedy) in [("index_closed_exception", "_open"), ("no_shard_available_action_exception", "not ready")] {
            let body = json!({"docs": [{"_id": "a", "error": {"type": kind, "reason": "r"}}]}).to_string();
            let trouble = read_known(body.as_bytes(), 1).expect_err(kind);
            assert!(trouble.remedy().contains(remedy) && !trouble.is_missing_index(), "{trouble}: {}", trouble.remedy());
        }
        let body = json!({"docs": [{"_id": "a", "error": {"type": "index_not_found_exception", "reason": "no such index"}}]}).to_string();
        assert!(read_known(body.as_bytes(), 1).expect_err("missing").is_missing_index());
    }

    #[test]
    fn what_is_known_adds_only_what_it_grew_by() {
        let known = |payload_bytes| Known { seq_no: 1, primary_term: 1, payload_bytes, past: None, last_at: None };
        let letters = [letter("a", 0, 1), letter("a", 0, 2)];
        assert_eq!(growth(&letters, &HashMap::new()), (2 * (1024 + 5), true));
        let all = HashMap::from([(letters[0].id.clone(), known(100)), (letters[1].id.clone(), known(5))]);
        assert_eq!(growth(&letters, &all), (-95, false));
    }

    #[test]
    fn a_list_is_asked_for_in_order_and_after_a_place() {
        assert_eq!(
            search(&query(), None, 7),
            json!({
                "size": 7, "track_total_hits": false, "query": {"bool": {"filter": []}},
                "sort": [{"topic": "asc"}, {"partition": "asc"}, {"offset": "asc"}, {"id": "asc"}],
            })
        );
        let since = "1970-01-01T00:00:01.0009Z".parse().expect("a time");
        let all = Query {
            topic: Some(name("t")),
            partition: Some(3),
            error_type: Some("e".to_owned()),
            since: Some(since),
            until: Some(at(-1)),
            ..query()
        };
        let body = search(&all, Some(&sort_values(&(name("t"), 3, -1, "id".to_owned()))), 1);
        assert_eq!(body["search_after"], json!(["t", 3, -1, "id"]));
        let range = json!({"range": {"last_at": {"gte": 1000, "lte": -1000, "format": "epoch_millis"}}});
        assert_eq!(
            body["query"]["bool"]["filter"],
            json!([{"term": {"topic": "t"}}, {"term": {"partition": 3}}, {"term": {"error.type": "e"}}, range])
        );
    }

    #[test]
    fn a_search_that_was_cut_short_is_no_end_of_the_list() {
        let cut = json!({"timed_out": true, "hits": {"hits": []}}).to_string();
        assert!(read_page(cut.as_bytes()).is_err() && read_count(cut.as_bytes()).is_err());
        let counted = json!({"timed_out": false, "hits": {"total": {"value": 2}, "hits": []}, "aggregations": {"payload": {"value": 1.5e3}}});
        assert_eq!(read_count(counted.to_string().as_bytes()), Ok(1500 + 2048));
    }

    proptest! {
        #[test]
        fn the_servers_filter_leaves_out_no_letter_that_the_exact_one_admits(
            last_at in -4_000_000..4_000_000_i64, since in -4_000_000_000..4_000_000_000_i64, until in -4_000_000_000..4_000_000_000_i64,
        ) {
            let last_at = Timestamp::from_millisecond(last_at).expect("a time");
            let bounds = [since, until].map(|time| Timestamp::from_microsecond(time).expect("a time"));
            let query = Query { since: Some(bounds[0]), until: Some(bounds[1]), ..query() };
            let letter = DeadLetter { last_at, ..letter("a", 0, 1) };
            let body = search(&query, None, 1);
            let range = &body["query"]["bool"]["filter"][0]["range"]["last_at"];
            let kept = last_at.as_millisecond();
            let is_found = kept >= range["gte"].as_i64().expect("a bound") && kept <= range["lte"].as_i64().expect("a bound");
            prop_assert!(is_found || !query.admits(&letter));
        }

        #[test]
        fn no_answer_panics(body in proptest::collection::vec(any::<u8>(), 0..200), asked in 0..3_usize) {
            let _ = read_known(&body, asked);
            let _ = read_letter(&body);
            let _ = read_page(&body);
            let _ = read_count(&body);
            let _ = read_total(&body);
            // Random bytes confirm nothing.
            let is_refused = Batch::new("i").read(&body).is_err();
            prop_assert!(is_refused);
        }
    }
}
