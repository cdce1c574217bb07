//! What must hold, whatever breaks: one list, used by every row.
//!
//! Guarantees that an invariant is either checked over evidence or said not to have been looked at; silence is no success. Pure. How evidence comes about is [`crate::run`]'s and [`crate::observer`]'s affair.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::checker::Violation;

/// One invariant: its number, its words, and what breaks it. `None`: this row has no evidence for it.
pub(crate) struct Invariant {
    pub(crate) id: &'static str,
    pub(crate) words: &'static str,
    pub(crate) check: fn(&Evidence) -> Option<Vec<String>>,
}

/// What a row has gathered.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The checker's answer over producer's ledger, documents, letters and committed offsets; `None` until it was asked.
    pub(crate) violations: Option<Vec<Violation>>,
    /// The group has committed everything before the checker was asked: what is missing then will not come.
    pub(crate) is_caught_up: bool,
    /// How many times the observer has compared committed offsets with the index, and what it found.
    pub(crate) samples: usize,
    pub(crate) early_commits: Vec<String>,
    /// The dead letters as the API shows them.
    pub(crate) letters: Option<Vec<Value>>,
    /// What the instance has counted of its own self-checks when the row ended, by name; only those that are not zero.
    pub(crate) self_checks: BTreeMap<String, u64>,
    /// What a row itself has looked at: by invariant, what was wrong. An empty list: all was well.
    pub(crate) claims: BTreeMap<&'static str, Vec<String>>,
}

/// All of them. The numbers are those of the fault matrix.
pub(crate) const INVARIANTS: [Invariant; 12] = [
    Invariant { id: "I1", words: "every acknowledged record is indexed, dead-lettered, or skipped by a named policy", check: complete },
    Invariant { id: "I2", words: "no record is two documents, none is indexed and dead, no document is of no record", check: single },
    Invariant {
        id: "I3",
        words: "at any sample nothing below a committed offset is unsettled, and commits go back only by a rewind",
        check: commit_safe,
    },
    Invariant { id: "I4", words: "what is stored is what was sent, in the right index", check: content },
    Invariant { id: "I5", words: "each dead letter names its record and the reason, and is durable before the offset moves past it", check: letters },
    Invariant { id: "I6", words: "other partitions and topics go on", check: |evidence| claimed(evidence, "I6") },
    Invariant {
        id: "I7",
        words: "afterwards the lag returns to zero by itself, with as many restarts as the fault explains",
        check: |evidence| claimed(evidence, "I7"),
    },
    Invariant { id: "I8", words: "memory and open files stay bounded", check: |evidence| claimed(evidence, "I8") },
    Invariant {
        id: "I9",
        words: "what runs becomes what is wanted; an unreadable source is not an empty one",
        check: |evidence| claimed(evidence, "I9"),
    },
    Invariant {
        id: "I10",
        words: "the API tells the truth: alive through others' faults, the cause by name, unknown is called unknown",
        check: |evidence| claimed(evidence, "I10"),
    },
    Invariant { id: "I11", words: "SIGTERM ends it with exit 0, and what is settled is committed", check: |evidence| claimed(evidence, "I11") },
    Invariant { id: "I12", words: "no secret in logs or answers", check: |evidence| claimed(evidence, "I12") },
];

/// All breaches with the invariant's number.
pub(crate) fn breaches(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let of = |invariant: &Invariant| {
        let found = (invariant.check)(evidence).unwrap_or_default();
        found.into_iter().map(|what| (invariant.id, what)).collect::<Vec<_>>()
    };
    INVARIANTS.iter().flat_map(of).collect()
}

/// The numbers of those that were looked at.
pub(crate) fn looked_at(evidence: &Evidence) -> Vec<&'static str> {
    INVARIANTS.iter().filter(|invariant| (invariant.check)(evidence).is_some()).map(|invariant| invariant.id).collect()
}

fn complete(evidence: &Evidence) -> Option<Vec<String>> {
    with_claims(evidence, "I1", of_kind(evidence, |violation| matches!(violation, Violation::Missing { .. })))
}

fn single(evidence: &Evidence) -> Option<Vec<String>> {
    let is_double =
        |violation: &Violation| matches!(violation, Violation::Doubled { .. } | Violation::IndexedAndDead { .. } | Violation::Foreign { .. });
    with_claims(evidence, "I2", of_kind(evidence, is_double))
}

fn commit_safe(evidence: &Evidence) -> Option<Vec<String>> {
    let mut found = of_kind(evidence, |violation| matches!(violation, Violation::CommittedPastUnsettled { .. }));
    if let Some(found) = &mut found {
        found.extend(evidence.early_commits.iter().cloned());
    }
    with_claims(evidence, "I3", found)
}

fn content(evidence: &Evidence) -> Option<Vec<String>> {
    with_claims(evidence, "I4", of_kind(evidence, |violation| matches!(violation, Violation::WrongContent { .. } | Violation::WrongIndex { .. })))
}

fn letters(evidence: &Evidence) -> Option<Vec<String>> {
    let found = evidence.letters.as_ref().map(|letters| letters.iter().filter_map(lacks).collect());
    with_claims(evidence, "I5", found)
}

/// What a dead letter lacks.
fn lacks(letter: &Value) -> Option<String> {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let is_whole = is_text(&letter["id"])
        && is_text(&letter["topic"])
        && letter["partition"].is_u64()
        && letter["offset"].is_u64()
        && is_text(&letter["timestamp"])
        && (letter["payload_base64"].is_string() || letter["cause"] == "tombstone")
        && letter["payload_bytes"].is_u64()
        && ["rejected", "crash_loop", "too_large", "tombstone", "format"].iter().any(|cause| letter["cause"] == *cause)
        && is_text(&letter["error"]["type"])
        && is_text(&letter["error"]["reason"])
        && letter["attempts"].as_u64() >= Some(1);
    (!is_whole).then(|| format!("a letter lacks something: {letter}"))
}

fn of_kind(evidence: &Evidence, is_meant: impl Fn(&Violation) -> bool) -> Option<Vec<String>> {
    let violations = evidence.violations.as_ref()?;
    Some(violations.iter().filter(|violation| is_meant(violation)).map(ToString::to_string).collect())
}

fn claimed(evidence: &Evidence, id: &str) -> Option<Vec<String>> {
    evidence.claims.get(id).cloned()
}

fn with_claims(evidence: &Evidence, id: &str, found: Option<Vec<String>>) -> Option<Vec<String>> {
    match (found, claimed(evidence, id)) {
        (None, claims) => claims,
        (found, None) => found,
        (Some(mut found), Some(claims)) => {
            found.extend(claims);
            Some(found)
        }
    }
}
