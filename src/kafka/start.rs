//! Where a partition starts: a pure decision over what is committed, what the facts say and what Kafka still has.

/// What is known of a partition when it is assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known<'a> {
    /// The committed offset and the topic id that the commit carries, which is empty for commits of other programs.
    pub(super) committed: Option<(i64, &'a str)>,
    /// Whether the commit says under which leader its last record was written, so that the broker is asked whether its log still has that record.
    pub(super) is_verified: bool,
    /// The topic's id of today, where brokers have ids.
    pub(super) topic_id: Option<&'a str>,
    /// The start offset in the facts; `None` for a partition that appeared later.
    pub(super) fact: Option<i64>,
    /// The first offset that Kafka still has.
    pub(super) low: i64,
    /// The offset after the last one.
    pub(super) high: i64,
}

/// Where to start, and what was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// The offset to assign.
    pub(super) offset: i64,
    /// The committed offset, if it belongs to this topic.
    pub(super) committed: Option<i64>,
    /// Offsets that were to be read but that Kafka removed: from inclusive, to exclusive.
    pub(super) lost: Option<(i64, i64)>,
}

/// Chooses the start offset: a commit of this very topic, else the facts, else the beginning; moved to what Kafka still has.
pub(super) fn choose(known: Known<'_>) -> Start {
    let committed = known.committed.filter(|(_, commit_id)| belongs(commit_id, known.topic_id)).map(|(offset, _)| offset);
    let wanted = committed.or(known.fact).unwrap_or(known.low);
    if wanted < known.low {
        return Start { offset: known.low, committed, lost: Some((wanted, known.low)) };
    }
    // Past the end: the log was truncated, or its topic was re-created and the look-up of its id is still to come. A broker that is asked says from where on the log is another one.
    let offset = if committed.is_some() && known.is_verified { wanted } else { wanted.min(known.high) };
    Start { offset, committed, lost: None }
}

/// A commit without an id was made by another program or under brokers without ids; there is nothing to compare.
fn belongs(commit_id: &str, topic_id: Option<&str>) -> bool {
    match topic_id {
        Some(topic_id) => commit_id.is_empty() || commit_id == topic_id,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known<'static> = Known { committed: None, is_verified: false, topic_id: Some("A"), fact: Some(5), low: 0, high: 100 };

    #[test]
    fn a_commit_of_another_incarnation_of_the_topic_is_not_used() {
        let old = Known { committed: Some((50, "B")), ..KNOWN };
        assert_eq!(choose(old), Start { offset: 5, committed: None, lost: None });
        assert_eq!(choose(Known { committed: Some((50, "A")), ..KNOWN }).offset, 50);
        assert_eq!(choose(Known { committed: Some((50, "")), ..KNOWN }).offset, 50);
        assert_eq!(choose(Known { committed: Some((50, "B")), topic_id: None, ..KNOWN }).offset, 50);
    }

    #[test]
    fn what_retention_removed_is_reported_as_lost() {
        let known = Known { committed: Some((3, "A")), low: 10, ..KNOWN };
        assert_eq!(choose(known), Start { offset: 10, committed: Some(3), lost: Some((3, 10)) });
        assert_eq!(choose(Known { low: 10, ..KNOWN }).lost, Some((5, 10)));
    }

    #[test]
    fn a_partition_that_appeared_later_starts_at_its_beginning() {
        assert_eq!(choose(Known { fact: None, low: 7, ..KNOWN }), Start { offset: 7, committed: None, lost: None });
    }

    #[test]
    fn a_commit_past_the_end_starts_at_the_end() {
        assert_eq!(choose(Known { committed: Some((500, "A")), ..KNOWN }).offset, 100);
    }

    #[test]
    fn a_commit_past_the_end_that_the_broker_can_judge_is_left_to_it() {
        assert_eq!(choose(Known { committed: Some((500, "A")), is_verified: true, ..KNOWN }).offset, 500);
        assert_eq!(choose(Known { committed: Some((500, "B")), is_verified: true, ..KNOWN }).offset, 5, "the commit is of another topic");
    }
}
