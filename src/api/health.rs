//! What the probes say, derived from the snapshot. Pure: time is a parameter.
//!
//! Guarantees: liveness looks at our own loops only, so an outage elsewhere never restarts an instance; readiness looks outside only where the configuration asks for it;
//! health is the worst of tasks, topics, parts and sources, and a source in error is `degraded`, because its last good list stays in force. A topic most of whose records become dead
//! letters is `degraded` here, although its tasks do what they are told and are well.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Dependency;
use crate::status::{Component, Health, ReasonCode, Snapshot, Source, SourceError, SourceStatus, Task, TaskState, Topic, time_text};
use crate::topic::SourceKind;

/// A loop that has not turned for this long is taken for dead.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// Topics that one report lists by name; the rest is counted.
const MAX_NAMED_TOPICS: usize = 100;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthReport {
    /// The worst of the checks.
    pub status: Health,
    /// Every check.
    pub checks: Vec<Check>,
}

/// One thing that a probe looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    #[schema(example = "component/sink")]
    pub name: String,
    /// How it is.
    pub status: Health,
    /// What is wrong, for people; `null` when nothing is.
    pub detail: Option<String>,
    /// What helps.
    pub remedy: Option<String>,
    /// Since when.
    #[serde(with = "time_text::option")]
    pub since_at: Option<Timestamp>,
}

impl Check {
    fn well(name: impl Into<String>) -> Self {
        Self { name: name.into(), status: Health::Ok, detail: None, remedy: None, since_at: None }
    }

    fn down(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status: Health::Down, detail: Some(detail.into()), ..Self::well(name) }
    }

    fn that(is_well: bool, name: &str, detail: &str) -> Self {
        if is_well { Self::well(name) } else { Self::down(name, detail) }
    }
}

impl HealthReport {
    fn of(checks: Vec<Check>) -> Self {
        Self { status: checks.iter().map(|check| check.status).max().unwrap_or(Health::Ok), checks }
    }
}

/// Whether the loops turn: each with the time since its last turn.
pub(super) fn liveness(beats: impl Iterator<Item = (String, Duration)>) -> HealthReport {
    let check = |(name, silence): (String, Duration)| {
        if silence < SILENCE { Check::well(name) } else { Check::down(name, format!("no turn for {} s", silence.as_secs())) }
    };
    HealthReport::of(beats.map(check).collect())
}

/// Whether the instance can do its work.
pub(super) fn readiness(snapshot: &Snapshot, required: &[Dependency]) -> HealthReport {
    let mut checks = vec![
        // A configuration with problems ends the process at its start, and a reload keeps the last good one.
        Check::well("configuration"),
        Check::that(snapshot.first_list, "first_list", "there is no list of topics from any source yet"),
        Check::that(!snapshot.draining, "draining", "the instance is shutting down"),
    ];
    checks.extend(required.iter().map(|dependency| match dependency {
        Dependency::Kafka => required_component(snapshot, "kafka"),
        Dependency::Sink => required_component(snapshot, "sink"),
        Dependency::Etcd => required_etcd(snapshot),
    }));
    HealthReport::of(checks)
}

fn required_component(snapshot: &Snapshot, name: &str) -> Check {
    match snapshot.components.iter().find(|component| component.name == name) {
        Some(component) if component.state == TaskState::Running => Check::well(name),
        Some(component) => Check { status: Health::Down, ..component_check(name.to_owned(), component) },
        None => Check::down(name, "not started yet"),
    }
}

fn required_etcd(snapshot: &Snapshot) -> Check {
    let in_etcd = |source: &&Source| source.kind != SourceKind::File && source.status != SourceStatus::Disabled;
    let bad = snapshot.sources.iter().filter(in_etcd).find(|source| source.status != SourceStatus::Ok);
    match bad {
        Some(source) => Check { status: Health::Down, name: "etcd".to_owned(), ..source_check(source) },
        None => Check::that(snapshot.sources.iter().any(|source| in_etcd(&source)), "etcd", "not read yet"),
    }
}

/// How the instance is as a whole: the worst of its parts, sources, topics and tasks.
pub(super) fn overall(snapshot: &Snapshot) -> HealthReport {
    let mut checks: Vec<Check> = Vec::new();
    checks.extend(snapshot.components.iter().map(|component| component_check(format!("component/{}", component.name), component)));
    checks.extend(snapshot.sources.iter().filter(|source| source.status != SourceStatus::Disabled).map(source_check));
    checks.extend(tasks_checks(snapshot));
    let mut unwell: Vec<_> = snapshot.topics.iter().filter(|topic| topic.status.health != Health::Ok).collect();
    unwell.sort_by_key(|topic| (std::cmp::Reverse(topic.status.health), topic.status.state));
    let unnamed = unwell.len().saturating_sub(MAX_NAMED_TOPICS);
    checks.extend(unwell.iter().take(MAX_NAMED_TOPICS).map(|topic| {
        let reason = topic.status.reason.as_ref();
        Check {
            name: format!("topic/{}", topic.name),
            status: topic.status.health,
            detail: Some(reason.map_or_else(|| topic.status.state.as_str().to_owned(), |reason| reason.message.clone())),
            remedy: reason.map(|reason| reason.remedy.clone()),
            since_at: reason.map(|reason| reason.since_at),
        }
    }));
    if unnamed > 0 {
        // The named ones are the worst, so the last of them bounds the rest.
        let status = unwell.get(MAX_NAMED_TOPICS).map_or(Health::Degraded, |topic| topic.status.health);
        checks.push(Check { status, detail: Some(format!("{unnamed} more topics are not well")), ..Check::well("topics") });
    }
    checks.extend(dead_letters_checks(snapshot));
    HealthReport::of(checks)
}

/// The topics at least half of whose records of the last minute became dead letters.
fn dead_letters_checks(snapshot: &Snapshot) -> Vec<Check> {
    let is_losing = |topic: &&Topic| {
        let minute = topic.last_minute;
        minute.dead_lettered > 0 && minute.dead_lettered >= minute.settled.saturating_sub(minute.dead_lettered)
    };
    let losing: Vec<&Topic> = snapshot.topics.iter().filter(is_losing).collect();
    let check = |topic: &&Topic| Check {
        status: Health::Degraded,
        detail: Some(format!("{} of {} records of the last minute became dead letters", topic.last_minute.dead_lettered, topic.last_minute.settled)),
        remedy: Some(format!("look at /api/v1/dead-letters?topic={}", topic.name)),
        ..Check::well(format!("dead_letters/{}", topic.name))
    };
    let mut checks: Vec<Check> = losing.iter().take(MAX_NAMED_TOPICS).map(check).collect();
    let unnamed = losing.len().saturating_sub(MAX_NAMED_TOPICS);
    if unnamed > 0 {
        let detail = format!("at least half of the records of {unnamed} more topics became dead letters in the last minute");
        checks.push(Check {
            status: Health::Degraded,
            detail: Some(detail),
            remedy: Some("look at /api/v1/dead-letters".to_owned()),
            ..Check::well("dead_letters")
        });
    }
    checks
}

fn component_check(name: String, component: &Component) -> Check {
    if component.health == Health::Ok && component.reason.is_none() {
        return Check { since_at: Some(component.since_at), ..Check::well(name) };
    }
    let reason = component.reason.as_ref();
    let exit = component.last_exit.as_ref().map(|exit| exit.message.clone());
    Check {
        name,
        status: component.health,
        detail: reason.map(|reason| reason.message.clone()).or(exit).or_else(|| Some(component.state.as_str().to_owned())),
        remedy: reason.map(|reason| reason.remedy.clone()),
        since_at: Some(reason.map_or(component.since_at, |reason| reason.since_at)),
    }
}

/// What is wrong with a source, and where in its file.
pub(super) fn source_error(error: &SourceError) -> String {
    match error.line {
        Some(line) => format!("line {line}: {}", error.message),
        None => error.message.clone(),
    }
}

fn source_check(source: &Source) -> Check {
    let kind = super::topics::source_kind(source.kind);
    let name = source.detail.as_ref().map_or_else(|| format!("source/{kind}"), |detail| format!("source/{kind}/{detail}"));
    let (status, without_error, remedy) = match source.status {
        SourceStatus::Ok | SourceStatus::Disabled => return Check::well(name),
        SourceStatus::Stale => (
            Health::Degraded,
            "it went back in time and waits for a confirmation",
            "POST /api/v1/sources/store/confirm if it was replaced or restored on purpose",
        ),
        SourceStatus::Error => {
            (Health::Degraded, "it cannot be read", "repair it; until then the last good list is in force, and drover looks again by itself")
        }
    };
    Check {
        name,
        status,
        detail: Some(source.error.as_ref().map_or_else(|| without_error.to_owned(), source_error)),
        remedy: Some(remedy.to_owned()),
        since_at: source.error.as_ref().map(|error| error.since_at),
    }
}

/// The tasks that are not well, one check per reason, because each has a remedy of its own.
fn tasks_checks(snapshot: &Snapshot) -> Vec<Check> {
    let mut by_reason: BTreeMap<Option<ReasonCode>, Vec<&Task>> = BTreeMap::new();
    for task in snapshot.tasks.iter().filter(|task| task.health != Health::Ok) {
        by_reason.entry(task.reason.as_ref().map(|reason| reason.code)).or_default().push(task);
    }
    if by_reason.is_empty() {
        return vec![Check::well("tasks")];
    }
    by_reason.iter().map(|(code, tasks)| tasks_check(*code, tasks, snapshot.tasks.len())).collect()
}

/// The tasks that are not well for one reason, out of `all`.
fn tasks_check(code: Option<ReasonCode>, tasks: &[&Task], all: usize) -> Check {
    let mut counts: Vec<String> = Vec::new();
    for state in TaskState::ALL {
        let count = tasks.iter().filter(|task| task.state == state).count();
        if count > 0 {
            counts.push(format!("{count} {}", state.as_str()));
        }
    }
    let oldest = tasks.iter().min_by_key(|task| task.since_at);
    Check {
        status: tasks.iter().map(|task| task.health).max().unwrap_or(Health::Ok),
        detail: Some(format!("of {all} tasks {}", counts.join(", "))),
        remedy: oldest.and_then(|task| task.reason.as_ref()).map(|reason| reason.remedy.clone()),
        since_at: oldest.map(|task| task.since_at),
        ..Check::well(code.map_or_else(|| "tasks".to_owned(), |code| format!("tasks/{}", code.as_str())))
    }
}
