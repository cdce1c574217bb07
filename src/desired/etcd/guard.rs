//! Whether etcd is still the one of before. Pure.
//!
//! Guarantees: an etcd that was emptied, restored from an older backup or replaced by another cluster is told apart from one where keys were removed, by any of four signs: another cluster id,
//! a revision below one that was seen, another [identity](super::layout::Layout::identity), a known key with a smaller revision than before. The cluster id alone does not do: etcd makes it from
//! the members' names and addresses, so an emptied etcd has the same one.

use std::collections::BTreeMap;

use super::content::FullRead;

/// What is remembered of etcd, over restarts too.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Past {
    /// The cluster's id.
    pub(super) cluster_id: u64,
    /// The newest revision that was seen.
    pub(super) revision: i64,
    /// The value of the identity key, once it was seen.
    pub(super) identity: Option<Vec<u8>>,
}

/// Why a full read is of another past than this one; `None` where nothing says so. `revisions` are those of the entries as they were known.
pub(super) fn another_past(past: &Past, revisions: &BTreeMap<Vec<u8>, i64>, read: &FullRead) -> Option<String> {
    if let Some(why) = header_of_another_past(past, read.cluster_id, read.revision) {
        return Some(why);
    }
    if past.identity.is_some() && past.identity != read.identity {
        return Some("etcd's content is not the one of before: its identity key is missing or another".to_owned());
    }
    let went_back = |key: &[u8], revision: i64| revisions.get(key).is_some_and(|known| revision < *known);
    if read.store.iter().any(|entry| went_back(&entry.key, entry.revision)) {
        return Some("etcd's content is older than before: entries have smaller revisions than they had".to_owned());
    }
    None
}

/// The same for what every answer tells.
pub(super) fn header_of_another_past(past: &Past, cluster_id: u64, revision: i64) -> Option<String> {
    if cluster_id != past.cluster_id {
        return Some(format!("etcd is another cluster than before: its id is {cluster_id:x}, it was {:x}", past.cluster_id));
    }
    (revision < past.revision).then(|| format!("etcd went back in time: its revision is {revision}, it was {}", past.revision))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::content::RawEntry;
    use super::*;

    fn past() -> Past {
        Past { cluster_id: 7, revision: 100, identity: Some(b"I".to_vec()) }
    }

    fn read(cluster_id: u64, revision: i64, identity: Option<&[u8]>, entry_revision: i64) -> FullRead {
        let store = vec![RawEntry { key: b"drover/topics/a".to_vec(), value: Some(b"{}".to_vec()), revision: entry_revision }];
        FullRead { cluster_id, revision, identity: identity.map(<[u8]>::to_vec), store, keys: BTreeMap::new() }
    }

    fn known() -> BTreeMap<Vec<u8>, i64> {
        BTreeMap::from([(b"drover/topics/a".to_vec(), 50), (b"drover/topics/gone".to_vec(), 60)])
    }

    #[test]
    fn each_sign_alone_is_enough() {
        let cases = [
            (read(8, 100, Some(b"I"), 50), "another cluster"),
            (read(7, 99, Some(b"I"), 50), "went back in time"),
            (read(7, 200, None, 50), "identity"),
            (read(7, 200, Some(b"J"), 50), "identity"),
            (read(7, 200, Some(b"I"), 49), "smaller revisions"),
        ];
        for (read, sign) in cases {
            let why = another_past(&past(), &known(), &read).expect("another past");
            assert!(why.contains(sign), "{why}");
        }
    }

    #[test]
    fn removed_keys_are_no_other_past() {
        assert_eq!(another_past(&past(), &known(), &read(7, 100, Some(b"I"), 50)), None);
        let empty = FullRead { store: Vec::new(), ..read(7, 101, Some(b"I"), 50) };
        assert_eq!(another_past(&past(), &known(), &empty), None);
    }

    #[test]
    fn an_identity_that_was_never_seen_proves_nothing() {
        let past = Past { identity: None, ..past() };
        assert_eq!(another_past(&past, &known(), &read(7, 100, Some(b"I"), 50)), None);
        assert_eq!(another_past(&past, &known(), &read(7, 100, None, 50)), None);
    }

    proptest! {
        #[test]
        fn going_on_is_never_taken_for_going_back(ahead in 0..1000i64, moved in 0..1000i64) {
            let read = read(7, 100 + ahead, Some(b"I"), 50 + moved);
            prop_assert_eq!(another_past(&past(), &known(), &read), None);
        }

        #[test]
        fn a_smaller_revision_is_always_seen(back in 1..100i64) {
            prop_assert!(another_past(&past(), &known(), &read(7, 100 - back, Some(b"I"), 50)).is_some());
        }
    }
}
