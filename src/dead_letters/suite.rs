//! What every [`DeadLetters`] store has to pass; see [`super`] for the promises. Each check gets an empty store.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use jiff::Timestamp;

use super::{Cause, DeadLetter, DeadLetters, Error, LetterError, Query, Seen};
use crate::topic::{TopicName, document_id};

/// A limit that no check but those about limits reaches.
const ROOMY: u64 = 64 << 20;

/// Runs all checks, one after the other. `make` gives an empty store that takes so many bytes.
pub async fn contract(make: impl AsyncFn(u64) -> Arc<dyn DeadLetters>) {
    an_empty_store_has_nothing(&*make(ROOMY).await).await;
    a_letter_comes_back_as_it_was_put(&*make(ROOMY).await).await;
    a_letter_put_again_is_one_entry_that_remembers(&*make(ROOMY).await).await;
    one_id_twice_in_a_put_is_one_entry(&*make(ROOMY).await).await;
    letters_put_at_once_are_all_kept(&*make(ROOMY).await).await;
    attempts_of_writers_at_once_add_up(&*make(ROOMY).await).await;
    two_letters_of_a_recreated_topic_do_not_overwrite_each_other(&*make(ROOMY).await).await;
    a_letter_that_moved_leaves_nothing_at_its_old_place(&*make(ROOMY).await).await;
    pages_hold_every_letter_once_and_in_order(&*make(ROOMY).await).await;
    filters_leave_out_what_they_must(&*make(ROOMY).await).await;
    a_deleted_letter_is_gone_and_so_are_its_bytes(&*make(ROOMY).await).await;
    a_letter_that_died_again_is_not_removed_by_who_saw_it_before(&*make(ROOMY).await).await;
    writers_and_a_redrive_of_one_letter_lose_no_death(&*make(ROOMY).await).await;
    a_failed_redrive_keeps_the_letter_and_brings_no_deleted_one_back(&*make(ROOMY).await).await;
    counts_are_those_of_lists(&*make(ROOMY).await).await;
    a_full_store_refuses_what_is_new_and_takes_what_it_has(&*make(20_000).await).await;
    a_full_store_takes_letters_again_when_one_is_deleted(&*make(20_000).await).await;
}

/// A legal time.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a legal time")
}

/// A legal topic.
pub fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("a legal name")
}

/// A letter of the topic's first life.
pub fn letter(topic: &str, partition: i32, offset: i64) -> DeadLetter {
    letter_of("base", topic, partition, offset)
}

/// A letter of the life of a topic that `id_base` stands for.
pub fn letter_of(id_base: &str, topic: &str, partition: i32, offset: i64) -> DeadLetter {
    let letter = DeadLetter {
        id: document_id(&format!("{id_base}-{topic}"), partition, offset),
        topic: name(topic),
        topic_id: Some(id_base.to_owned()),
        partition,
        offset,
        timestamp: Some(at(5)),
        index: "an-index".to_owned(),
        key_base64: None,
        payload_base64: None,
        payload_bytes: 0,
        truncated: false,
        error: LetterError { kind: "document_parsing_exception".to_owned(), reason: "no".to_owned(), status: Some(400) },
        cause: Cause::Rejected,
        attempts: 1,
        first_at: at(100),
        last_at: at(100),
        redriven_at: None,
    };
    with_payload(letter, &[0, 1, 2, 3, 4])
}

/// The letter with this payload.
pub fn with_payload(letter: DeadLetter, payload: &[u8]) -> DeadLetter {
    DeadLetter { payload_base64: Some(STANDARD.encode(payload)), payload_bytes: payload.len() as u64, ..letter }
}

/// Every letter, as far as a thousand.
pub fn query() -> Query {
    Query { limit: 1000, ..Query::default() }
}

/// All letters that match, page by page.
pub async fn pages(store: &dyn DeadLetters, query: Query) -> Vec<DeadLetter> {
    let mut found: Vec<DeadLetter> = Vec::new();
    loop {
        let after = found.last().map(|last| (last.topic.clone(), last.partition, last.offset, last.id.clone())).or(query.after.clone());
        let page = store.list(Query { after, ..query.clone() }).await.expect("lists");
        assert!(page.len() <= query.limit);
        let is_last = page.len() < query.limit;
        found.extend(page);
        if is_last {
            return found;
        }
    }
}

/// The places of the letters that match.
pub async fn places(store: &dyn DeadLetters, query: Query) -> Vec<(String, i32, i64)> {
    let letters = store.list(query).await.expect("lists");
    letters.into_iter().map(|letter| (letter.topic.to_string(), letter.partition, letter.offset)).collect()
}

async fn an_empty_store_has_nothing(store: &dyn DeadLetters) {
    assert_eq!(store.list(query()).await.expect("lists"), []);
    store.put(Vec::new()).await.expect("nothing to keep");
    for id in ["base-a:0:1", "", "..", "a/b?c#d", "%2e", "\u{0}", "ü"] {
        assert_eq!(store.get(id).await.expect("reads"), None, "{id:?}");
        assert!(!store.delete(id).await.expect("nothing to delete"), "{id:?}");
    }
    assert_eq!(store.remove_seen(Vec::new()).await.expect("nothing to remove"), 0);
    assert_eq!(store.remove_seen(vec![letter("a", 0, 1).seen()]).await.expect("nothing to remove"), 0);
    store.put_known(vec![letter("a", 0, 1)]).await.expect("nothing to change");
    assert_eq!((store.count(query()).await.expect("counts"), store.bytes()), (0, 0));
}

async fn a_letter_comes_back_as_it_was_put(store: &dyn DeadLetters) {
    let plain = letter("a", 0, 1);
    let mut odd = with_payload(letter("a.b-C_d", i32::MAX, i64::MAX), &[0xff, 0xfe, 0, b'"', b'\n', 0x80]);
    odd.topic_id = None;
    odd.key_base64 = Some(STANDARD.encode([0xff, 0xff]));
    odd.timestamp = Some(at(253_402_207_200));
    odd.error = LetterError { kind: "x".repeat(40_000), reason: "\"ümlaut\u{2028}\n\u{7f}".repeat(5000), status: None };
    odd.cause = Cause::CrashLoop;
    odd.attempts = 7;
    odd.redriven_at = Some("2026-03-01T10:00:00.123Z".parse().expect("a legal time"));
    let bare = DeadLetter { payload_base64: None, payload_bytes: 0, timestamp: None, cause: Cause::Tombstone, ..letter("b", 0, 0) };
    let early = DeadLetter { timestamp: Some(at(-100_000_000_000)), ..letter("c", 0, i64::MIN) };
    let all = [plain, odd, bare, early];
    store.put(all.to_vec()).await.expect("kept");
    for letter in &all {
        assert_eq!(store.get(&letter.id).await.expect("reads").as_ref(), Some(letter));
    }
    assert_eq!(store.list(query()).await.expect("lists"), all);
    assert!(store.bytes() > 0);
}

async fn a_letter_put_again_is_one_entry_that_remembers(store: &dyn DeadLetters) {
    let first = DeadLetter { redriven_at: Some(at(150)), ..letter("a", 0, 1) };
    store.put(vec![first]).await.expect("kept");
    let bytes = store.bytes();
    let again = DeadLetter { first_at: at(200), last_at: at(200), attempts: 2, cause: Cause::TooLarge, ..letter("a", 0, 1) };
    store.put(vec![again.clone(), letter("a", 0, 2)]).await.expect("kept");
    let expected = DeadLetter { first_at: at(100), attempts: 3, redriven_at: Some(at(150)), ..again };
    assert_eq!(store.get(&expected.id).await.expect("reads"), Some(expected.clone()));
    assert_eq!(store.list(query()).await.expect("lists"), [expected.clone(), letter("a", 0, 2)]);
    assert!(store.bytes() > bytes);
    let redriven = DeadLetter { redriven_at: Some(at(300)), attempts: u32::MAX, ..letter("a", 0, 1) };
    store.put(vec![redriven]).await.expect("kept");
    let found = store.get(&expected.id).await.expect("reads").expect("the letter");
    assert_eq!((found.first_at, found.redriven_at), (at(100), Some(at(300))));
    assert!(found.attempts > 1 << 30, "{}", found.attempts);
}

async fn one_id_twice_in_a_put_is_one_entry(store: &dyn DeadLetters) {
    let later = DeadLetter { first_at: at(300), last_at: at(300), ..letter("a", 0, 1) };
    store.put(vec![letter("a", 0, 1), letter("a", 0, 2), later.clone()]).await.expect("kept");
    let expected = DeadLetter { first_at: at(100), attempts: 2, ..later };
    assert_eq!(store.list(query()).await.expect("lists"), [expected, letter("a", 0, 2)]);
}

async fn letters_put_at_once_are_all_kept(store: &dyn DeadLetters) {
    let puts = (0..20).map(|offset| store.put(vec![letter("a", 0, offset), letter("b", 0, offset)]));
    for result in join_all(puts).await {
        result.expect("kept");
    }
    assert_eq!(places(store, query()).await.len(), 40);
}

async fn attempts_of_writers_at_once_add_up(store: &dyn DeadLetters) {
    let puts = (0..4).map(|writer| store.put(vec![DeadLetter { last_at: at(100 + writer), attempts: 10, ..letter("a", 0, 1) }]));
    for result in join_all(puts).await {
        result.expect("kept");
    }
    let found = store.get(&letter("a", 0, 1).id).await.expect("reads").expect("the letter");
    assert_eq!((found.attempts, found.first_at), (40, at(100)));
}

async fn two_letters_of_a_recreated_topic_do_not_overwrite_each_other(store: &dyn DeadLetters) {
    store.put(vec![letter_of("old", "a", 0, 1), letter_of("new", "a", 0, 1), letter("a", 0, 2)]).await.expect("kept");
    let all = store.list(query()).await.expect("lists");
    assert_eq!(all.iter().map(|letter| letter.id.as_str()).collect::<Vec<_>>(), ["new-a:0:1", "old-a:0:1", "base-a:0:2"]);
    // A page that ends between the two is followed by one that begins with the second.
    let after = Some((name("a"), 0, 1, "new-a:0:1".to_owned()));
    let next = store.list(Query { limit: 1, after, ..query() }).await.expect("lists");
    assert_eq!(next.iter().map(|letter| letter.id.as_str()).collect::<Vec<_>>(), ["old-a:0:1"]);
}

async fn a_letter_that_moved_leaves_nothing_at_its_old_place(store: &dyn DeadLetters) {
    store.put(vec![letter("a", 0, 1)]).await.expect("kept");
    let bytes = store.bytes();
    store.put(vec![DeadLetter { offset: 2, ..letter("a", 0, 1) }]).await.expect("kept");
    assert_eq!((places(store, query()).await, store.bytes()), (vec![("a".to_owned(), 0, 2)], bytes));
}

async fn pages_hold_every_letter_once_and_in_order(store: &dyn DeadLetters) {
    // In order: names by bytes, numbers by value.
    let mut expected = Vec::new();
    for topic in ["A", "a", "a-b", "a.b", "a_b", "aa", "b"] {
        for partition in [0, 2, 10] {
            expected.extend([0, 9, 10, 100].map(|offset| letter(topic, partition, offset)));
        }
    }
    store.put(expected.iter().rev().cloned().collect()).await.expect("kept");
    for limit in [1, 7, 84, 85] {
        let found = pages(store, Query { limit, ..query() }).await;
        assert_eq!(found, expected, "pages of {limit}");
    }
    let after = Some((name("a"), 2, 9, String::new()));
    let found = pages(store, Query { topic: Some(name("a")), limit: 2, after, ..query() }).await;
    let of_topic: Vec<i64> = found.iter().map(|letter| letter.offset).collect();
    assert_eq!(of_topic, [9, 10, 100, 0, 9, 10, 100]);
}

async fn filters_leave_out_what_they_must(store: &dyn DeadLetters) {
    let error = LetterError { kind: "format".to_owned(), reason: "r".to_owned(), status: None };
    let last_at = "1970-01-01T00:08:20.250Z".parse().expect("a legal time");
    let other = DeadLetter { error, last_at, ..letter("b", 2, 7) };
    store.put(vec![letter("a", 0, 1), letter("a", 1, 1), letter("aa", 0, 1), letter("b", 1, 1), other]).await.expect("kept");
    let a0 = ("a".to_owned(), 0, 1);
    let a1 = ("a".to_owned(), 1, 1);
    let b2 = ("b".to_owned(), 2, 7);
    let just_after = "1970-01-01T00:08:20.250000001Z".parse().expect("a legal time");
    let only_b2 = std::slice::from_ref(&b2);
    assert_eq!(places(store, Query { topic: Some(name("a")), ..query() }).await, [a0, a1.clone()]);
    assert_eq!(places(store, Query { topic: Some(name("a")), partition: Some(1), ..query() }).await, std::slice::from_ref(&a1));
    assert_eq!(places(store, Query { partition: Some(2), ..query() }).await, only_b2);
    assert_eq!(places(store, Query { partition: Some(1), limit: 1, ..query() }).await, [a1]);
    assert_eq!(places(store, Query { error_type: Some("format".to_owned()), ..query() }).await, only_b2);
    assert_eq!(places(store, Query { error_type: Some("Format".to_owned()), ..query() }).await, []);
    assert_eq!(places(store, Query { since: Some(last_at), ..query() }).await, only_b2);
    assert_eq!(places(store, Query { since: Some(just_after), ..query() }).await, []);
    assert_eq!(places(store, Query { until: Some(last_at), ..query() }).await.len(), 4);
    assert_eq!(places(store, Query { until: Some(just_after), ..query() }).await.len(), 5);
    assert_eq!(places(store, Query { since: Some(at(100)), until: Some(at(101)), ..query() }).await.len(), 4);
    // Those that a filter leaves out take no room in a page.
    assert_eq!(places(store, Query { until: Some(just_after), since: Some(at(101)), limit: 1, ..query() }).await, only_b2);
    assert_eq!(places(store, Query { limit: 0, ..query() }).await, []);
    assert_eq!(places(store, Query { topic: Some(name("a")), after: Some((name("b"), 0, 0, String::new())), ..query() }).await, []);
}

async fn a_deleted_letter_is_gone_and_so_are_its_bytes(store: &dyn DeadLetters) {
    store.put(vec![letter("a", 0, 1), letter("a", 0, 2)]).await.expect("kept");
    let both = store.bytes();
    assert!(store.delete(&letter("a", 0, 1).id).await.expect("deletes"));
    assert!(!store.delete(&letter("a", 0, 1).id).await.expect("is gone"));
    assert_eq!(store.get(&letter("a", 0, 1).id).await.expect("reads"), None);
    assert_eq!(store.list(query()).await.expect("lists"), [letter("a", 0, 2)]);
    assert_eq!(store.bytes(), both / 2);
    // Its past is forgotten with it.
    store.put(vec![letter("a", 0, 1)]).await.expect("kept");
    assert_eq!(store.get(&letter("a", 0, 1).id).await.expect("reads"), Some(letter("a", 0, 1)));
    assert_eq!(store.bytes(), both);
}

async fn a_letter_that_died_again_is_not_removed_by_who_saw_it_before(store: &dyn DeadLetters) {
    let letters: Vec<DeadLetter> = (0..3).map(|offset| letter("a", 0, offset)).collect();
    store.put(letters.clone()).await.expect("kept");
    // At the same moment, of the same error: only the attempts tell.
    store.put(vec![letters[1].clone()]).await.expect("kept");
    let seen: Vec<Seen> = letters.iter().map(DeadLetter::seen).collect();
    assert_eq!(store.remove_seen(seen.clone()).await.expect("removes"), 2);
    let left = store.list(query()).await.expect("lists");
    assert_eq!(left, [DeadLetter { attempts: 2, ..letters[1].clone() }]);
    assert_eq!(store.remove_seen(seen).await.expect("removes"), 0);
    assert_eq!(store.remove_seen(vec![left[0].seen()]).await.expect("removes"), 1);
    assert_eq!((store.list(query()).await.expect("lists"), store.bytes()), (Vec::new(), 0));
}

async fn writers_and_a_redrive_of_one_letter_lose_no_death(store: &dyn DeadLetters) {
    store.put(vec![letter("a", 0, 1)]).await.expect("kept");
    // Whoever comes first: the second death is there afterwards, unless the redrive saw it.
    for round in 0..20 {
        let before = store.get(&letter("a", 0, 1).id).await.expect("reads").expect("a letter");
        let died_again = DeadLetter { last_at: at(200 + round), ..letter("a", 0, 1) };
        let (put, removed) = futures::future::join(store.put(vec![died_again.clone()]), store.remove_seen(vec![before.seen()])).await;
        put.expect("kept");
        removed.expect("removes, or leaves it");
        let after = store.get(&before.id).await.expect("reads").expect("the letter of the last death");
        assert_eq!(after.last_at, died_again.last_at);
    }
}

async fn a_failed_redrive_keeps_the_letter_and_brings_no_deleted_one_back(store: &dyn DeadLetters) {
    store.put(vec![letter("a", 0, 1), letter("a", 0, 2)]).await.expect("kept");
    assert!(store.delete(&letter("a", 0, 2).id).await.expect("deletes"));
    let bytes = store.bytes();
    let failed = |offset| {
        let error = LetterError { kind: "strict_dynamic_mapping_exception".to_owned(), reason: "again".to_owned(), status: Some(400) };
        DeadLetter { error, first_at: at(300), last_at: at(300), redriven_at: Some(at(300)), ..letter("a", 0, offset) }
    };
    store.put_known(vec![failed(1), failed(2)]).await.expect("kept");
    let expected = DeadLetter { first_at: at(100), attempts: 2, ..failed(1) };
    assert_eq!(store.list(query()).await.expect("lists"), [expected]);
    assert_eq!(store.get(&letter("a", 0, 2).id).await.expect("reads"), None);
    assert!(store.bytes() < bytes + 300, "{} after {bytes}", store.bytes());
}

async fn counts_are_those_of_lists(store: &dyn DeadLetters) {
    let error = LetterError { kind: "format".to_owned(), reason: "r".to_owned(), status: None };
    let other = DeadLetter { error, last_at: at(500), ..letter("b", 2, 7) };
    store.put(vec![letter("a", 0, 1), letter("a", 1, 1), letter("aa", 0, 1), letter("b", 1, 1), other]).await.expect("kept");
    let after = Some((name("b"), 0, 0, String::new()));
    for (asked, expected) in [
        (query(), 5),
        (Query { topic: Some(name("a")), ..query() }, 2),
        (Query { topic: Some(name("a")), partition: Some(1), ..query() }, 1),
        (Query { partition: Some(1), ..query() }, 2),
        (Query { error_type: Some("format".to_owned()), ..query() }, 1),
        (Query { since: Some(at(500)), ..query() }, 1),
        (Query { until: Some(at(101)), ..query() }, 4),
        (Query { topic: Some(name("c")), ..query() }, 0),
        (Query { after, limit: 1, ..query() }, 5),
    ] {
        assert_eq!(store.count(asked.clone()).await.expect("counts"), expected, "{asked:?}");
    }
}

async fn a_full_store_takes_letters_again_when_one_is_deleted(store: &dyn DeadLetters) {
    let large = |offset| with_payload(letter("a", 0, offset), &[7; 11_000]);
    store.put(vec![large(1)]).await.expect("kept");
    assert!(matches!(store.put(vec![large(2)]).await, Err(Error::Full { .. })));
    assert!(store.delete(&large(1).id).await.expect("deletes"));
    store.put(vec![large(2)]).await.expect("there is room again");
    assert_eq!(store.remove_seen(vec![large(2).seen()]).await.expect("removes"), 1);
    store.put(vec![large(3)]).await.expect("there is room again");
    assert_eq!(places(store, query()).await, [("a".to_owned(), 0, 3)]);
}

/// The store takes 20,000 bytes: one large letter, and not two, whether it counts payloads or their base64.
async fn a_full_store_refuses_what_is_new_and_takes_what_it_has(store: &dyn DeadLetters) {
    let large = |offset| with_payload(letter("a", 0, offset), &[7; 11_000]);
    store.put(vec![large(1)]).await.expect("kept");
    let bytes = store.bytes();
    assert!((11_000..20_000).contains(&bytes), "{bytes}");
    let refused = store.put(vec![large(1), large(2)]).await;
    assert!(matches!(refused, Err(Error::Full { used, limit: 20_000 }) if used == bytes), "{refused:?}");
    let found = store.list(query()).await.expect("lists");
    assert_eq!((found, store.bytes()), (vec![large(1)], bytes));
    // What it has may even grow.
    let larger = with_payload(letter("a", 0, 1), &[7; 25_000]);
    store.put(vec![larger]).await.expect("kept already");
    assert!(store.bytes() > 20_000);
    let refused = store.put(vec![letter("a", 0, 3)]).await;
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    assert_eq!(places(store, query()).await.len(), 1);
}
