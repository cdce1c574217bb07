//! Looks at the committed offsets from outside while a fault lasts: ten times a second it reads them, and only then asks the index for the records right below them.
//!
//! Guarantees that what it reports was true at that moment: the index is asked by id, which needs no refresh, and an index that cannot be asked proves nothing. A record that is in neither the index nor, in the
//! end, in the dead letters of before the sample, was committed too early. Does not look at all records: the checker does, at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::http;
use crate::harness::kafka::{Kafka, try_committed_watch};
use crate::harness::wait::try_wait_until;

/// Between two samples.
const EVERY: Duration = Duration::from_millis(100);
/// Records below each committed offset that are asked for.
const DEPTH: i64 = 500;
/// How long an answer of the broker is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What one partition may have to report.
const MOST_REPORTS: usize = 20;

/// A record that was committed and not in the index.
#[derive(Debug, Clone)]
struct Early {
    id: String,
    partition: i32,
    offset: i64,
    committed: i64,
    at_ms: u128,
}

#[derive(Debug, Default)]
struct Found {
    samples: usize,
    early: Vec<Early>,
    backwards: Vec<String>,
}

/// See the module.
pub(crate) struct Observer {
    is_over: Arc<AtomicBool>,
    may_go_back: Arc<AtomicBool>,
    found: Arc<Mutex<Found>>,
    thread: JoinHandle<()>,
}

/// What the observer has seen, in words.
pub(crate) struct Seen {
    pub(crate) samples: usize,
    pub(crate) early_commits: Vec<String>,
}

impl Observer {
    /// Watches one topic of a group, whose documents have ids that begin with `id_base` in the index of the same name.
    pub(crate) fn start(kafka: &Kafka, sink: &str, group: &str, topic: &str, id_base: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let may_go_back = Arc::new(AtomicBool::new(false));
        let found = Arc::new(Mutex::new(Found::default()));
        let mut committed = try_committed_watch(&kafka.client(), group, topic, ANSWER_WITHIN);
        let url = format!("{sink}/{topic}/_mget?_source=false");
        let (told, allowed, notes, id_base) = (is_over.clone(), may_go_back.clone(), found.clone(), id_base.to_owned());
        let thread = std::thread::spawn(move || {
            let mut last: BTreeMap<i32, i64> = BTreeMap::new();
            while !told.load(Ordering::Relaxed) {
                if let Ok(offsets) = committed() {
                    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                    sample(&offsets, &mut last, &id_base, &url, at_ms, allowed.load(Ordering::Relaxed), &notes);
                }
                let _ = try_wait_until(EVERY, || told.load(Ordering::Relaxed).then_some(()));
            }
        });
        Self { is_over, may_go_back, found, thread }
    }

    /// Somebody rewinds, or the topic is re-created: offsets may go back from now on.
    pub(crate) fn allow_going_back(&self) {
        self.may_go_back.store(true, Ordering::Relaxed);
    }

    /// Ends, and judges what was seen by the letters and the skipped offsets.
    pub(crate) fn end(self, letters: &[Value], skipped: &BTreeSet<(i32, i64)>) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            return Seen { samples: 0, early_commits: vec!["the observer itself has failed".to_owned()] };
        }
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let first_at: BTreeMap<&str, u128> =
            letters.iter().filter_map(|letter| Some((letter["id"].as_str()?, milliseconds(&letter["first_at"])?))).collect();
        let is_early = |early: &&Early| {
            let is_dead = first_at.get(early.id.as_str()).is_some_and(|first_at| *first_at <= early.at_ms);
            !is_dead && !skipped.contains(&(early.partition, early.offset))
        };
        let mut early_commits = found.backwards;
        let told = |early: &Early| format!("{} was committed ({}) when it was not in the index", early.id, early.committed);
        early_commits.extend(found.early.iter().filter(is_early).map(told));
        Seen { samples: found.samples, early_commits }
    }
}

fn milliseconds(at: &Value) -> Option<u128> {
    let at: jiff::Timestamp = at.as_str()?.parse().ok()?;
    u128::try_from(at.as_millisecond()).ok()
}

fn sample(
    offsets: &BTreeMap<i32, i64>,
    last: &mut BTreeMap<i32, i64>,
    id_base: &str,
    url: &str,
    at_ms: u128,
    may_go_back: bool,
    found: &Mutex<Found>,
) {
    let mut asked = Vec::new();
    let mut backwards = Vec::new();
    for (partition, committed) in offsets {
        let before = last.insert(*partition, *committed).unwrap_or(0);
        if *committed < before && !may_go_back {
            backwards.push(format!("partition {partition}: {before} was committed, and then {committed}"));
        }
        let from = before.max(committed - DEPTH);
        asked.extend((from..*committed).map(|offset| (*partition, offset, *committed)));
    }
    // Once offsets may go back, what lies below them may have been deleted on purpose.
    let absent = if asked.is_empty() || may_go_back { Some(Vec::new()) } else { absent(url, id_base, &asked) };
    let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.backwards.extend(backwards);
    let Some(absent) = absent else { return };
    found.samples += 1;
    let room = MOST_REPORTS.saturating_sub(found.early.len());
    // Letters look absent too; the end tells them apart, so of those more may be kept.
    let early = absent.into_iter().take(room.max(1) * 100);
    found.early.extend(early.map(|(partition, offset, committed)| Early {
        id: format!("{id_base}:{partition}:{offset}"),
        partition,
        offset,
        committed,
        at_ms,
    }));
}

/// Which of these are not there; `None` when that cannot be told now.
fn absent(url: &str, id_base: &str, asked: &[(i32, i64, i64)]) -> Option<Vec<(i32, i64, i64)>> {
    let ids: Vec<String> = asked.iter().map(|(partition, offset, _)| format!("{id_base}:{partition}:{offset}")).collect();
    let answer = http::send_json("POST", url, Some(&json!({"ids": ids}))).ok()?;
    if answer.status != 200 {
        return None;
    }
    let documents = answer.json()["docs"].as_array()?.clone();
    let mut absent = Vec::new();
    for (document, place) in documents.iter().zip(asked) {
        match (document["found"].as_bool(), document["error"]["type"].as_str()) {
            (Some(true), _) => {}
            (Some(false), _) | (None, Some("index_not_found_exception")) => absent.push(*place),
            _ => return None,
        }
    }
    Some(absent)
}
