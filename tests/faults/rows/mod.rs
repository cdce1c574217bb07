//! The rows that are built, and those that are not, with the reason.

mod control;
mod kafka;
mod machine;
mod markup;
mod nodes;
mod process;
mod sink;
pub(crate) mod soak;
mod sources;

use crate::run::Row;

/// A row of the matrix that has no code.
pub(crate) struct NotBuilt {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
}

/// All rows that are built, by number.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    let mut rows: Vec<&'static Row> =
        [process::ROWS, kafka::ROWS, sink::ROWS, nodes::ROWS, control::ROWS, sources::ROWS, machine::ROWS, markup::ROWS, soak::ROWS]
            .into_iter()
            .flatten()
            .collect();
    rows.sort_by_key(|row| row.number);
    rows.into_iter()
}

/// The numbers of those that are not.
pub(crate) fn not_built() -> String {
    let numbers: Vec<String> = NOT_BUILT.iter().map(|row| row.number.to_string()).collect();
    numbers.join(", ")
}

const fn not(number: u32, name: &'static str, reason: &'static str) -> NotBuilt {
    NotBuilt { number, name, reason }
}

/// Told in `RESULTS.md`, so that nobody takes the matrix for complete.
pub(crate) const NOT_BUILT: &[NotBuilt] = &[
    not(16, "all brokers down for 10 minutes", "not built: row 15 with more time"),
    not(19, "coordinator errors on commit and heartbeat", "not built: needs librdkafka's mock cluster in another process"),
    not(24, "KIP-848 with an unreachable coordinator", "not built: needs more than one broker"),
    not(31, "access taken away, password changed", "not built: needs a broker with SASL"),
    not(32, "corrupt batch on disk", "not built yet; a partition that stays silent is tested in `tests/real/supervised`"),
    not(34, "unclean leader election, truncation", "not built: needs three brokers"),
    not(55, "minority partition of etcd", "not built: needs three members"),
    not(56, "lease lost", "not built: there is no lease before scale-out"),
    not(57, "NOSPACE of etcd", "not built here: in `tests/real`"),
    not(58, "etcd's authentication enabled while running", "not built here: `tests/real` lets tokens run out"),
    not(59, "20 concurrent writers on 3 instances", "not built here: the store's shared suite and `tests/real` have two writers on one topic"),
    not(61, "etcd restored from an old snapshot", "not built here: in `tests/real`"),
    not(62, "garbage below the prefix", "not built here: in `tests/real`"),
    not(63, "config.yaml replaced, truncated, swapped", "not built here: in `tests/real` and `tests/it`"),
    not(64, "one topic in file and etcd", "not built here: in `tests/real`"),
    not(70, "24 hours of random faults", "not built: rows run one after the other"),
    not(71, "rolling upgrade from an older binary", "not built: there is no older binary"),
    not(38, "one of three nodes dead", "not built: needs three nodes; the choice of nodes is tested against stubs"),
    not(39, "429 for 10 minutes", "not built here: a stub server answers 429 in the sink's own tests"),
    not(44, "field explosion", "not built yet; the mapping's limit is a refusal like row 43"),
    not(45, "413 for a batch and for one document", "not built here: a stub server answers 413 in the sink's own tests"),
    not(46, "whole-request 400 by one item", "not built here: the halving of a refused body is the sink's own tests' affair"),
    not(48, "password of Elasticsearch rotated", "not built: this distribution runs without security"),
    not(49, "no master", "not built: needs three nodes"),
    not(56, "lease lost", "not built: there is no lease before scale-out"),
    not(68, "canary markup in every input", "not built as a row: every row looks for its planted password (I12), markup is tested with the page"),
    not(71, "rolling upgrade from an older binary", "not built: there is no older release"),
];
