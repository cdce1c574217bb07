//! Bad configuration files: every mistake has a place in the file and a remedy, no bytes panic, and no secret is shown.
//!
//! An expectation says the `topics` of a legal file, or the `problems` of a bad one, and its `warnings`, each as `[path, line]`; which `environment` it is read in; and what must `never` be shown.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::corpus;

/// A value of the environment that the seeds use for their secrets.
const SECRET: &str = "hunter2-canary";

fn places(problems: &[Problem]) -> Value {
    problems.iter().map(|problem| json!([problem.path, problem.line])).collect()
}

/// Everything that people get to see of a reading.
fn shown(result: &Result<Loaded, Vec<Problem>>) -> String {
    match result {
        Ok(loaded) => format!("{loaded:?}"),
        Err(problems) => format!("{problems:?}"),
    }
}

fn read(bytes: &[u8], variables: &BTreeMap<String, String>) -> Result<Loaded, Vec<Problem>> {
    parse(bytes, Path::new("/nonexistent"), &environment(variables))
}

#[test]
fn every_bad_configuration_of_the_corpus_is_told_where_it_is_wrong() {
    let mut wrong = Vec::new();
    for case in corpus::cases("config") {
        let variables: BTreeMap<String, String> = serde_json::from_value(case.expected["environment"].clone()).unwrap_or_default();
        let bytes = case.bytes();
        let result = read(&bytes, &variables);
        let mut actual = match &result {
            Ok(loaded) => {
                let topics: Vec<&str> = loaded.config.topics.iter().map(|topic| topic.name.as_str()).collect();
                let topics = if topics.len() > 20 { json!(topics.len()) } else { json!(topics) };
                json!({"topics": topics, "warnings": places(&loaded.warnings)})
            }
            Err(problems) => json!({"problems": places(problems)}),
        };
        for field in ["environment", "never"] {
            if !case.expected[field].is_null() {
                actual[field] = case.expected[field].clone();
            }
        }
        if actual != case.expected {
            wrong.push(format!("{}: {actual} instead of {}\n    {}", case.name, case.expected, shown(&result).chars().take(600).collect::<String>()));
        }
        for secret in case.expected["never"].as_array().into_iter().flatten() {
            assert!(!shown(&result).contains(secret.as_str().expect("a text")), "{}: a secret is shown: {}", case.name, shown(&result));
        }
        holds_for_any(&bytes, &variables);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn holds_for_any(bytes: &[u8], variables: &BTreeMap<String, String>) {
    let lines = 1 + u32::try_from(bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count()).expect("a small file");
    let result = read(bytes, variables);
    let (problems, is_error) = match &result {
        Ok(loaded) => (&loaded.warnings, false),
        Err(problems) => (problems, true),
    };
    assert!(!is_error || !problems.is_empty(), "a file without a problem was refused");
    for problem in problems {
        assert!(!problem.detail.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
        // The end of the file may be told as the line after its last one.
        assert!((1..=lines + 1).contains(&problem.line) && problem.column >= 1, "no such place in {lines} lines: {problem:?}");
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        assert!(is_plain(&problem.path) && is_plain(&problem.detail) && is_plain(&problem.remedy), "it steers the terminal: {problem:?}");
        let field = problem.path.rsplit('.').next().unwrap_or_default();
        if matches!(field, "password" | "api_key" | "sasl.password") || problem.path.ends_with("sasl.password") {
            assert!(!problem.detail.contains(SECRET) && !problem.remedy.contains(SECRET), "a secret is shown: {problem:?}");
        }
    }
}

#[test]
fn no_half_of_a_file_panics_or_is_refused_without_a_place() {
    for case in corpus::cases("config").into_iter().filter(|case| case.name.starts_with("good_")) {
        let bytes = case.bytes();
        for cut in 0..bytes.len() {
            holds_for_any(&bytes[..cut], &BTreeMap::new());
        }
    }
}

#[test]
fn fuzz_config() {
    let seeds: Vec<Vec<u8>> = corpus::cases("config").iter().map(corpus::Case::bytes).collect();
    let variables = BTreeMap::from([("DROVER_SECRET".to_owned(), SECRET.to_owned()), ("X".to_owned(), "x".to_owned())]);
    corpus::fuzz("config", &seeds, |input| holds_for_any(input, &variables));
}
