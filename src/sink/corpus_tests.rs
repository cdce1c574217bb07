//! Bad answers to bulk requests: none of them may settle an item that the server has not confirmed, or give up one that it may still take.
//!
//! An expectation has the `status` of the answer (200 where it says none) and the operations that were `sent`. For a status of success it says `settled`, `unusable`, or by position what the class of
//! each failed item is; for another one the class of the `request`.

use serde_json::{Map, Value, json};

use super::answer::{self, Reading};
use super::classify::{self, ItemClass, RequestClass};
use crate::corpus;

fn item_class(class: ItemClass) -> String {
    match class {
        ItemClass::Operator(obstacle) => format!("operator: {}", obstacle.code.as_str()),
        class => format!("{class:?}").to_lowercase(),
    }
}

fn request_class(class: RequestClass) -> String {
    match class {
        RequestClass::Operator(obstacle) => format!("operator: {}", obstacle.code.as_str()),
        class => format!("{class:?}").to_lowercase(),
    }
}

fn actual(expected: &Value, body: &[u8]) -> Value {
    let status = u16::try_from(expected["status"].as_u64().unwrap_or(200)).expect("a status");
    if !(200..300).contains(&status) {
        let error = answer::read_refusal(body);
        return request_class(classify::request(status, &error.kind, &error.reason)).into();
    }
    let sent = expected["sent"].as_array().expect("what was sent").len();
    match answer::read(body, sent, answer::Sent::Documents) {
        Reading::AllWell => "settled".into(),
        Reading::Unusable(message) => {
            assert!(!message.is_empty());
            "unusable".into()
        }
        Reading::Failures(failures) => {
            let classes = failures.iter().map(|failure| {
                let class = classify::item(failure.status, &failure.error.kind, &failure.error.reason, failure.create);
                (failure.position.to_string(), item_class(class).into())
            });
            Value::Object(classes.collect::<Map<_, _>>())
        }
    }
}

#[test]
fn every_bad_answer_of_the_corpus_means_what_is_expected() {
    let mut wrong = Vec::new();
    for case in corpus::cases("bulk_answers") {
        let body = case.bytes();
        let actual = actual(&case.expected, &body);
        if actual != case.expected["meaning"] {
            wrong.push(format!("{}: {actual} instead of {}", case.name, case.expected["meaning"]));
        }
        holds_for_any(&body);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the answer confirms the item, as a reader sees it who knows nothing of ours.
fn is_confirmed(item: &Value) -> bool {
    let Some((operation, result)) = item.as_object().filter(|item| item.len() == 1).and_then(|item| item.iter().next()) else { return false };
    let is_success = result["status"].as_u64().is_some_and(|status| (200..300).contains(&status)) && result.get("error").is_none_or(Value::is_null);
    matches!(operation.as_str(), "index" | "create") && is_success
}

/// Whether the answer says that our own document is there already.
fn is_own_conflict(item: &Value) -> bool {
    item["create"]["status"] == 409 && item["create"]["error"]["type"] == "version_conflict_engine_exception"
}

/// Errors that are final for a document, as the design lists them; what else gives a document up is a fault.
fn is_final(error: &Value) -> bool {
    error["type"].as_str().is_some_and(|kind| kind.ends_with("_exception"))
}

fn holds_for_any(body: &[u8]) {
    for expected in 1..=4 {
        let reading = answer::read(body, expected, answer::Sent::Documents);
        if matches!(reading, Reading::Unusable(_)) {
            continue;
        }
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok(), "an answer that is no JSON was used");
        // Some JSON, such as halves of surrogates in fields that nobody reads, has no value.
        let Ok(answer) = serde_json::from_slice::<Value>(body) else { continue };
        let items = answer["items"].as_array().expect("items");
        assert_eq!(items.len(), expected, "an answer for another number of items was used");
        let failures = match reading {
            Reading::Failures(failures) => failures,
            _ => Vec::new(),
        };
        for (position, item) in items.iter().enumerate() {
            let Some(failure) = failures.iter().find(|failure| failure.position == position) else {
                assert!(is_confirmed(item), "settled without a confirmation: {item}");
                continue;
            };
            assert!(!is_confirmed(item), "a confirmed item failed: {item}");
            match classify::item(failure.status, &failure.error.kind, &failure.error.reason, failure.create) {
                ItemClass::Settled => assert!(is_own_conflict(item), "settled without a confirmation: {item}"),
                ItemClass::Poison => assert!(is_final(&item["index"]["error"]) || is_final(&item["create"]["error"]), "given up: {item}"),
                ItemClass::TooLarge => assert_eq!(failure.status, 413),
                ItemClass::Retry | ItemClass::Operator(_) | ItemClass::Unknown => {}
            }
        }
    }
    let error = answer::read_refusal(body);
    let shown = answer::for_people(&error.to_string());
    assert!(shown.chars().count() <= 501 && !shown.chars().any(char::is_control), "{shown}");
    for status in [302, 400, 401, 403, 404, 405, 413, 429, 500, 503] {
        let class = classify::request(status, &error.kind, &error.reason);
        if class == RequestClass::Poison {
            assert!(status == 400 && error.kind.ends_with("_exception"), "{status}: a search for a culprit because of {error:?}");
        }
        if status == 413 {
            assert_eq!(class, RequestClass::TooLarge);
        }
    }
}

#[test]
fn fuzz_bulk_answers() {
    let mut seeds: Vec<Vec<u8>> = corpus::cases("bulk_answers").iter().map(corpus::Case::bytes).collect();
    for items in 1..=4 {
        let item = json!({"index": {"status": 201}});
        seeds.push(json!({"errors": false, "items": vec![item; items]}).to_string().into_bytes());
        let failure = json!({"create": {"status": 409, "error": {"type": "version_conflict_engine_exception", "reason": "there"}}});
        seeds.push(json!({"errors": true, "items": vec![failure; items]}).to_string().into_bytes());
    }
    corpus::fuzz("bulk_answers", &seeds, holds_for_any);
}
