//! What a configuration may say and this version does not do yet.
//!
//! Guarantees that each such setting is a problem with its place and remedy, in the same report as every other: refused, rather than left out silently.

use super::Problem;
use super::tree::Node;

/// A setting that is known and refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotYet {
    /// `auth.tokens_file`.
    Tokens,
    /// `tls`.
    Tls,
}

/// The problem of a setting that this version does not do yet.
pub(super) fn problem(what: NotYet, path: &str, node: &Node) -> Problem {
    let (detail, remedy) = match what {
        NotYet::Tokens => ("tokens are not checked by this version yet", "remove it and guard the address in another way"),
        NotYet::Tls => ("this version does not serve TLS yet", "remove it and put a TLS proxy in front"),
    };
    node.problem(path, detail, remedy)
}
