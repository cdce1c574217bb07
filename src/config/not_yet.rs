//! What a configuration may say and this version does not do yet.
//!
//! Guarantees that each such setting is a problem with its place and remedy, in the same report as every other: refused, rather than left out silently.

use super::Problem;
use super::tree::Node;

/// A setting that is known and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotYet {
    /// `tls`.
    Tls,
}

/// The problem of a setting that this version does not do yet.
pub(super) fn problem(what: NotYet, path: &str, node: &Node) -> Problem {
    let (detail, remedy) = match what {
        NotYet::Tls => ("this version does not serve TLS yet", "remove it and put a TLS proxy in front"),
    };
    node.problem(path, detail, remedy)
}
