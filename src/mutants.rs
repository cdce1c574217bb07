//! Mistakes on purpose: each is a way to break the promise that the fault matrix (`make faults`) must notice, or its checker is worth nothing.
//!
//! Guarantees that nothing of it is in a build without the feature `failpoints`, and that none is in force unless `FAILPOINTS` names it with `=return`.

/// Offsets are committed as soon as they are read.
pub(crate) const COMMIT_BEFORE_SETTLING: &str = "mutant_commit_before_settling";
/// Partition and offset stand in a document's id without a separator, so that two records share one.
pub(crate) const ID_WITHOUT_SEPARATOR: &str = "mutant_id_without_separator";
/// A bulk request with status 200 counts as success, whatever its items say.
pub(crate) const ITEM_ERRORS_IGNORED: &str = "mutant_item_errors_ignored";
/// What an index forbids is passed over.
pub(crate) const FORBIDDEN_SKIPPED: &str = "mutant_forbidden_skipped";
/// A task that crashed goes on where its predecessor had read to.
pub(crate) const NO_REWIND: &str = "mutant_no_rewind";
/// The watermark passes a dead record before its letter is durable.
pub(crate) const LETTER_AFTER_COMMIT: &str = "mutant_letter_after_commit";
/// A re-created topic keeps the ids of the old one, so that "is there already" (409) is said of other records.
pub(crate) const OLD_IDS_KEPT: &str = "mutant_old_ids_kept";
/// Results for an earlier life of a partition move the watermark of the present one.
pub(crate) const LATE_RESULTS_ACCEPTED: &str = "mutant_late_results_accepted";

/// Whether this mistake is made.
#[cfg(feature = "failpoints")]
pub(crate) fn is_on(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    false
}

/// Whether this mistake is made: never.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) const fn is_on(_name: &str) -> bool {
    false
}
