//! The rows that are built, and those that are not, with the reason.

mod brokers;
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
        [process::ROWS, kafka::ROWS, brokers::ROWS, sink::ROWS, nodes::ROWS, control::ROWS, sources::ROWS, machine::ROWS, markup::ROWS, soak::ROWS]
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
    not(56, "lease lost", "not built: there is no lease before scale-out"),
    not(71, "rolling upgrade from an older binary", "not built: there is no older release"),
];
