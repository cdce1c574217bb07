//! The layering table of the design: who must not use whom, read from the `use` lines and paths of the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// A part of `src`, and what its production code must not name.
const MUST_NOT: &[(&str, &[&str])] = &[
    (
        "topic",
        &["tokio", "crate::config", "crate::desired", "crate::kafka", "crate::pipeline", "crate::sink", "crate::status", "crate::api", "crate::app"],
    ),
    (
        "status",
        &[
            "tokio",
            "crate::config",
            "crate::desired",
            "crate::kafka",
            "crate::pipeline",
            "crate::sink",
            "crate::api",
            "crate::app",
            "crate::supervisor",
        ],
    ),
    ("config", &["tokio", "reqwest", "hyper", "std::net::Tcp", "rdkafka", "elasticsearch::"]),
    (
        "supervisor",
        &["crate::topic", "crate::kafka", "crate::desired", "crate::sink", "crate::api", "rdkafka", "etcd_client", "hyper", "axum", "reqwest"],
    ),
    ("desired", &["crate::supervisor", "crate::api", "crate::app", "rdkafka", "axum"]),
    ("desired/merge.rs", &["tokio", "async ", "Timestamp::now", "Instant::now"]),
    ("reconcile.rs", &["rdkafka", "etcd_client", "axum", "elasticsearch"]),
    ("kafka", &["etcd_client", "axum", "elasticsearch", "crate::api", "crate::app", "crate::pipeline", "crate::desired"]),
    ("pipeline", &["rdkafka", "hyper", "reqwest", "axum", "elasticsearch", "crate::api", "crate::app", "crate::desired"]),
    ("pipeline/ledger.rs", &["tokio", "async ", "Timestamp::now", "Instant::now"]),
    ("pipeline/format.rs", &["tokio", "async ", "Timestamp::now", "Instant::now"]),
    ("sink", &["rdkafka", "axum", "crate::kafka", "crate::pipeline", "crate::api", "crate::app"]),
    ("sink/classify.rs", &["tokio", "async ", "Timestamp::now", "Instant::now"]),
    ("sink/answer.rs", &["tokio", "async ", "Timestamp::now", "Instant::now"]),
    ("dead_letters", &["rdkafka", "axum", "crate::kafka", "crate::pipeline", "crate::api", "crate::app"]),
    ("table.rs", &["tokio", "crate::"]),
    (
        "cli",
        &["rdkafka", "axum", "etcd_client", "crate::api", "crate::app", "crate::kafka", "crate::pipeline", "crate::desired", "crate::supervisor"],
    ),
    ("api", &["rdkafka", "elasticsearch::", "Mutex", "RwLock", "crate::app", "crate::pipeline"]),
];

/// Who may start tasks.
const MAY_SPAWN: &[&str] = &["app", "supervisor"];

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(part: &str) -> Vec<PathBuf> {
    let root = source_root();
    let mut found = Vec::new();
    for path in [root.join(part), root.join(format!("{part}.rs"))] {
        collect(&path, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        collect(&entry.path(), found);
    }
}

/// The lines of production code, without comments, with their numbers.
fn production_lines(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).expect("a readable source file");
    let production = text.split("#[cfg(test)]").next().unwrap_or_default();
    let is_code = |line: &str| !line.trim_start().starts_with("//");
    production.lines().enumerate().filter(|(_, line)| is_code(line)).map(|(index, line)| (index + 1, line.to_owned())).collect()
}

#[test]
fn a_module_that_uses_what_it_must_not_is_named() {
    let mut broken = Vec::new();
    for (part, forbidden) in MUST_NOT {
        let files = rust_files(part.trim_end_matches(".rs"));
        assert!(!files.is_empty(), "the table names {part}, which does not exist");
        for file in files {
            for (number, line) in production_lines(&file) {
                for name in *forbidden {
                    if line.contains(name) {
                        broken.push(format!("{}:{number}: must not use {name}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_task_started_outside_supervisor_and_app_is_named() {
    let mut broken = Vec::new();
    for file in rust_files("") {
        let relative = file.strip_prefix(source_root()).expect("below src").to_string_lossy().into_owned();
        if MAY_SPAWN.iter().any(|part| relative.starts_with(part)) {
            continue;
        }
        for (number, line) in production_lines(&file) {
            // Blocking calls may go to the blocking pool from anywhere; they are awaited where they are made.
            let starts_a_task = line.contains("tokio::spawn(") || line.contains("task::spawn(") || line.contains("spawn_local(");
            if starts_a_task {
                broken.push(format!("{relative}:{number}: {}", line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn unsafe_code_outside_the_ffi_module_is_named() {
    let mut broken = Vec::new();
    for file in rust_files("") {
        if file.ends_with("kafka/ffi.rs") {
            continue;
        }
        for (number, line) in production_lines(&file) {
            if line.contains("unsafe ") || line.contains("unsafe{") {
                broken.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
