//! The table of preconditions: operation × `If-Match` × `If-None-Match` × where the topic is named, with the answer of every cell. What is refused changes nothing, and a dry run says the same beforehand.

use axum::http::StatusCode;
use futures::future::join_all;
use serde_json::{Value, json};

use super::ProblemCode;
use super::tests::{Answer, assert_declared, assert_problem, name};
use super::write_tests::Bench;
use crate::desired::store::{Author, Precondition, TopicStore as _};
use crate::status::ChangeAction;
use crate::topic::SpecFields;

const TOPIC: &str = "/api/v1/topics/{topic}";

/// Where the topic is named, and by which name the bench's file knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    topic: &'static str,
    has_entry: bool,
}

const NOWHERE: Place = Place { topic: "orders", has_entry: false };
const FILE: Place = Place { topic: "filed", has_entry: false };
const STORE: Place = Place { topic: "orders", has_entry: true };
const BOTH: Place = Place { topic: "filed", has_entry: true };

/// Rows: `If-Match`, in which `CURRENT` stands for the tag of the entry, or `"r0"` where there is none.
const IF_MATCH: [(&str, &[&str]); 9] = [
    ("absent", &[]),
    ("current", &["CURRENT"]),
    ("stale", &["\"r999999\""]),
    ("star", &["*"]),
    ("weak", &["W/CURRENT"]),
    ("malformed", &["r5"]),
    ("several with the current one", &["\"r999999\", CURRENT"]),
    ("several without it", &["\"r999998\", \"r999999\", W/CURRENT"]),
    ("two headers", &["\"r999999\"", "CURRENT"]),
];
/// Columns: `If-None-Match`.
const IF_NONE_MATCH: [(&str, &[&str]); 6] =
    [("absent", &[]), ("star", &["*"]), ("current", &["CURRENT"]), ("weak", &["W/CURRENT"]), ("another", &["\"r999999\""]), ("malformed", &["\"r5"])];

/// `+`: as without preconditions; `-`: 412; `!`: 400.
type Grid = [&'static str; IF_MATCH.len()];

/// The store has no entry: the tag is `"r0"`, and `*` is nothing.
const WITHOUT_ENTRY: Grid = [
    // absent star current weak another malformed
    "++--+!", // absent
    "++--+!", // current
    "-----!", // stale
    "-----!", // star
    "-----!", // weak
    "!!!!!!", // malformed
    "++--+!", // several with the current one
    "-----!", // several without it
    "++--+!", // two headers
];
/// The store has an entry.
const WITH_ENTRY: Grid = [
    // absent star current weak another malformed
    "+---+!", // absent
    "+---+!", // current
    "-----!", // stale
    "+---+!", // star
    "-----!", // weak
    "!!!!!!", // malformed
    "+---+!", // several with the current one
    "-----!", // several without it
    "+---+!", // two headers
];
/// There is nothing to remove, whatever the preconditions say of it.
const NOTHING_TO_REMOVE: Grid = ["+++++!", "+++++!", "+++++!", "+++++!", "+++++!", "!!!!!!", "+++++!", "+++++!", "+++++!"];

/// What is answered where nothing stands against it.
#[derive(Debug, Clone, Copy)]
enum Otherwise {
    Done(StatusCode),
    Refused(ProblemCode),
}

fn author() -> Author {
    Author { actor: "me".to_owned(), source: "api", request_id: None }
}

/// Makes the store as the cell wants it; answers with the tag.
async fn prepare(bench: &Bench, place: Place) -> String {
    let topic = name(place.topic);
    let entry = bench.store.topic(&topic).await.expect("readable");
    match (place.has_entry, entry) {
        (true, Some(entry)) => format!("\"r{}\"", entry.revision),
        (true, None) => {
            let fields: SpecFields = serde_json::from_value(json!({"format": "json"})).expect("fields");
            let put = bench.store.put_topic(&topic, fields, Precondition::Any, ChangeAction::Put, author()).await.expect("written");
            format!("\"r{}\"", put.revision)
        }
        (false, Some(_)) => {
            bench.store.delete_topic(&topic, Precondition::Any, author()).await.expect("removed");
            "\"r0\"".to_owned()
        }
        (false, None) => "\"r0\"".to_owned(),
    }
}

async fn check_cells(method: &str, place: Place, grid: &Grid, otherwise: Otherwise) -> usize {
    let body = if method == "DELETE" { "" } else { r#"{"labels": {"team": "x"}}"# };
    let path = format!("/api/v1/topics/{}", place.topic);
    let bench = Bench::new();
    let mut cells = 0;
    for ((if_match, if_match_values), row) in IF_MATCH.iter().zip(grid) {
        for ((if_none_match, if_none_match_values), sign) in IF_NONE_MATCH.iter().zip(row.chars()) {
            let cell = format!("{method} {place:?} If-Match {if_match}, If-None-Match {if_none_match}");
            let current = prepare(&bench, place).await;
            let values: Vec<(&str, String)> = [("if-match", if_match_values), ("if-none-match", if_none_match_values)]
                .iter()
                .flat_map(|(header, values)| values.iter().map(|value| (*header, value.replace("CURRENT", &current))))
                .collect();
            let headers: Vec<(&str, &str)> = values.iter().map(|(header, value)| (*header, value.as_str())).collect();
            let before = bench.content().await;

            let tried = bench.ask(method, &format!("{path}?dry_run=true"), &headers, body).await;
            let answer = bench.ask(method, &path, &headers, body).await;
            assert_declared(method, TOPIC, &tried);
            assert_declared(method, TOPIC, &answer);
            match (sign, otherwise) {
                ('!', _) => {
                    assert_refused(&answer, ProblemCode::InvalidRequest, &cell);
                    assert_refused(&tried, ProblemCode::InvalidRequest, &cell);
                    assert!(answer.json()["errors"][0]["pointer"].as_str().is_some_and(|pointer| pointer.starts_with("/header/if-")), "{cell}");
                }
                ('-', _) => {
                    assert_refused(&answer, ProblemCode::PreconditionFailed, &cell);
                    assert_eq!(tried.json()["errors"][0]["code"], "precondition-failed", "{cell}: {}", tried.text());
                }
                (_, Otherwise::Refused(code)) => {
                    assert_refused(&answer, code, &cell);
                    assert_eq!(tried.json()["errors"][0]["code"], code.as_str(), "{cell}: {}", tried.text());
                }
                (_, Otherwise::Done(status)) => {
                    assert_eq!(answer.status, status, "{cell}: {}", answer.text());
                    assert_eq!((tried.status, &tried.json()["valid"]), (StatusCode::OK, &json!(true)), "{cell}: {}", tried.text());
                    assert_ne!(bench.content().await, before, "{cell}: nothing was changed");
                }
            }
            let is_refused = !answer.status.is_success();
            assert!(!is_refused || bench.content().await == before, "{cell}: what was refused changed something");
            cells += 1;
        }
    }
    cells
}

fn assert_refused(answer: &Answer, code: ProblemCode, cell: &str) {
    assert_eq!(answer.status, code.status(), "{cell}: {}", answer.text());
    assert_problem(answer, code);
}

#[tokio::test]
async fn every_cell_of_the_table_of_preconditions_answers_as_written_and_what_is_refused_changes_nothing() {
    let done = Otherwise::Done;
    let groups = [
        ("PUT", NOWHERE, &WITHOUT_ENTRY, done(StatusCode::CREATED)),
        ("PUT", FILE, &WITHOUT_ENTRY, done(StatusCode::CREATED)),
        ("PUT", STORE, &WITH_ENTRY, done(StatusCode::OK)),
        ("PUT", BOTH, &WITH_ENTRY, done(StatusCode::OK)),
        ("PATCH", NOWHERE, &WITHOUT_ENTRY, done(StatusCode::CREATED)),
        ("PATCH", FILE, &WITHOUT_ENTRY, done(StatusCode::CREATED)),
        ("PATCH", STORE, &WITH_ENTRY, done(StatusCode::OK)),
        ("PATCH", BOTH, &WITH_ENTRY, done(StatusCode::OK)),
        ("DELETE", NOWHERE, &NOTHING_TO_REMOVE, Otherwise::Refused(ProblemCode::NotFound)),
        ("DELETE", FILE, &NOTHING_TO_REMOVE, Otherwise::Refused(ProblemCode::TopicNotManaged)),
        ("DELETE", STORE, &WITH_ENTRY, done(StatusCode::NO_CONTENT)),
        ("DELETE", BOTH, &WITH_ENTRY, done(StatusCode::OK)),
    ];
    // Each on a store of its own, side by side: most of the time goes to the disk.
    let counts = join_all(groups.map(|(method, place, grid, otherwise)| check_cells(method, place, grid, otherwise))).await;
    let cells: usize = counts.into_iter().sum();
    assert_eq!(cells, 12 * IF_MATCH.len() * IF_NONE_MATCH.len());
}

/// A pause is no part of what the tag covers, and a revert has a precondition of its own: that what the change made is still there. A header that speaks of the tag stops neither.
#[tokio::test]
async fn a_pause_and_a_revert_take_no_preconditions_by_header() {
    let bench = Bench::new();
    let headers = [[("if-match", "\"r999999\"")], [("if-match", "*")], [("if-match", "r5")], [("if-none-match", "*")]];
    for stale in &headers {
        for topic in ["filed", "orders"] {
            prepare(&bench, if topic == "filed" { FILE } else { STORE }).await;
            let pause = format!("/api/v1/topics/{topic}/pause");
            let paused = bench.ask("PUT", &pause, stale, "").await;
            assert_eq!((paused.status, &paused.json()["paused"]["actor"]), (StatusCode::OK, &json!("anonymous")), "{stale:?}");
            let resumed = bench.ask("DELETE", &pause, stale, "").await;
            assert_eq!(resumed.status, StatusCode::NO_CONTENT, "{stale:?}");
            let shown = bench.ask("GET", &format!("/api/v1/topics/{topic}"), &[], "").await;
            assert_eq!(shown.json()["paused"], Value::Null, "{stale:?}");
        }
        bench.ask("PATCH", "/api/v1/topics/orders", &[], r#"{"format": "text"}"#).await;
        let changed = bench.newest_change().await;
        let path = format!("/api/v1/changes/{changed}/revert");
        assert_eq!(bench.ask("POST", &path, stale, "").await.status, StatusCode::OK, "{stale:?}");
        let before = bench.content().await;
        let again = bench.ask("POST", &path, &[], "").await;
        assert_problem(&again, ProblemCode::PreconditionFailed);
        assert_eq!(bench.content().await, before, "a revert that was refused changed something");
        bench.ask("DELETE", "/api/v1/topics/orders", &[], "").await;
    }
}
