//! `dry_run=true`: what a request would do, without doing it.
//!
//! Guarantees that a dry run writes nothing, and that its answer is 200 whenever the body parses: what would be refused is listed under `errors` with `valid` false, and then nothing
//! would happen.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::fields::{self, MAX_ERRORS};
use super::problem::ApiError;
use super::{FieldError, Preview, Shared};
use crate::desired::store::Stored;
use crate::desired::{Desired, DesiredTopic};
use crate::status::{Task, TaskState, Topic};
use crate::topic::{Origin, SourceKind, SpecFields, TopicName, TopicPartition, TopicSpec};

/// How long Kafka may take for a look ahead; the port bounds itself well below this.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(15);

/// The query of an operation that can be tried.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `write::dry_run`")]
pub(super) struct DryRunParameter {
    /// Only say what would happen, and change nothing; the answer is 200 whenever the body parses
    #[param(default = false)]
    dry_run: Option<bool>,
}

/// What would become of the stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DryRunAction {
    /// It would be there for the first time.
    Create,
    /// It would be changed.
    Update,
    /// Nothing would be written.
    None,
    /// It would be removed.
    Delete,
}

/// What the request would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DryRun {
    /// Whether the request would be taken.
    valid: bool,
    /// What would become of the stored object: the entry, or the pause.
    action: DryRunAction,
    /// Why it would be refused: what is wrong with the body, and preconditions that do not hold.
    errors: Vec<FieldError>,
    /// What is worth knowing before it is done.
    warnings: Vec<Warning>,
    /// What the topic would be.
    resolved: Resolved,
    /// What would happen to tasks here.
    would: Would,
}

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Warning {
    /// A stable code, such as `topic_missing`, `index_collision` or `shadows_other_source`.
    #[schema(example = "topic_missing")]
    code: String,
    /// What it means here, for people.
    detail: String,
}

impl Warning {
    pub(super) fn new(code: &str, detail: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into() }
    }
}

/// What the topic would be; each `null` where that is not known or nothing would be left.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Resolved {
    /// The effective spec.
    spec: Option<TopicSpec>,
    /// The index of a record that is written now.
    #[schema(example = "orders-2026.01.31")]
    index_example: Option<String>,
    /// Number of partitions.
    partitions: Option<i64>,
    /// Records between where its partitions would go on and their ends.
    records_to_read: Option<i64>,
}

/// What would happen to tasks here, each named `topic/partition`.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Would {
    /// Tasks that would start.
    start: Vec<String>,
    /// Tasks that would stop.
    stop: Vec<String>,
    /// Tasks that would be restarted.
    restart: Vec<String>,
}

impl DryRun {
    /// The request would be refused, and nothing would happen.
    pub(super) fn refused(mut errors: Vec<FieldError>, warnings: Vec<Warning>) -> Self {
        errors.truncate(MAX_ERRORS);
        Self { valid: false, action: DryRunAction::None, errors, warnings, resolved: Resolved::default(), would: Would::default() }
    }

    /// The request would be answered with this error.
    pub(super) fn refused_by(error: ApiError) -> Self {
        Self::refused(error.into_errors(), Vec::new())
    }

    /// The topic would become `after`; `None` = nothing would name it any more.
    pub(super) async fn of_change(
        state: &Shared,
        name: &TopicName,
        action: DryRunAction,
        after: Option<std::sync::Arc<DesiredTopic>>,
        mut warnings: Vec<Warning>,
    ) -> Self {
        let now = Timestamp::now();
        let spec = after.as_ref().map(|topic| TopicSpec::clone(&topic.spec));
        let preview = tokio::time::timeout(PREVIEW_TIMEOUT, state.outlook.preview(name, after)).await.unwrap_or_else(|_| Preview {
            warnings: vec![("preview_unavailable", format!("what would happen was not found out within {} s", PREVIEW_TIMEOUT.as_secs()))],
            ..Preview::default()
        });
        warnings.extend(preview.warnings.into_iter().map(|(code, detail)| Warning::new(code, detail)));
        let resolved = Resolved {
            index_example: spec.as_ref().map(|spec| spec.index.render(name, Some(now.as_millisecond()))),
            spec,
            partitions: preview.partitions.map(i64::from),
            records_to_read: preview.records_to_read,
        };
        let would = Would { start: names(&preview.start), stop: names(&preview.stop), restart: names(&preview.restart) };
        Self { valid: true, action, errors: Vec::new(), warnings, resolved, would }
    }

    /// These tasks of a topic would be restarted.
    pub(super) fn of_restart(topic: &Topic, tasks: &[&Task]) -> Self {
        let resolved = Resolved {
            index_example: Some(topic.spec.index.render(&topic.name, Some(Timestamp::now().as_millisecond()))),
            spec: Some(topic.spec.clone()),
            partitions: i64::try_from(topic.status.partitions).ok(),
            records_to_read: topic.status.lag,
        };
        let restart = tasks.iter().map(|task| format!("{}/{}", task.topic, task.partition)).collect();
        let would = Would { restart, ..Would::default() };
        Self { valid: true, action: DryRunAction::None, errors: Vec::new(), warnings: Vec::new(), resolved, would }
    }
}

impl IntoResponse for DryRun {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

fn names(tasks: &[TopicPartition]) -> Vec<String> {
    tasks.iter().map(ToString::to_string).collect()
}

/// Whether a restart of the task would be taken: it has a life to end.
pub(super) fn is_restartable(task: &Task) -> bool {
    task.instance.is_some() && !matches!(task.state, TaskState::Paused | TaskState::Unassigned | TaskState::Draining | TaskState::Stopped)
}

/// The topic's entry as the store has it; where the store does not answer, as it was last seen, with a warning.
pub(super) async fn entry(state: &Shared, name: &TopicName) -> (Option<Stored<SpecFields>>, Vec<Warning>) {
    match super::write::entry(state, name).await {
        Ok(stored) => (stored, Vec::new()),
        Err(_) => {
            let last_seen = state.store.views().borrow().topics.get(name).cloned();
            let warning = Warning::new("store_unavailable", "the store does not answer; this was made from its last known content");
            (last_seen, vec![warning])
        }
    }
}

/// What is worth knowing of a topic that gets this entry. Pure.
pub(super) fn warnings(desired: &Desired, name: &TopicName, fields: &SpecFields, after: &DesiredTopic, now: Timestamp) -> Vec<Warning> {
    let shadowed = shadowed(desired, name, fields, now);
    shadowed.into_iter().chain(collision(desired, name, after, now)).collect()
}

/// Fields of the entry that another source gives too.
fn shadowed(desired: &Desired, name: &TopicName, fields: &SpecFields, now: Timestamp) -> Option<Warning> {
    let without = desired.inputs.topic_with(name, None, now)?;
    let is_given = |field: &String| matches!(without.origin.get(field), Some(Origin::File | Origin::Etcd));
    let shadowed: Vec<String> = fields::given(fields).into_iter().filter(is_given).collect();
    if shadowed.is_empty() {
        return None;
    }
    let detail = format!("the store's entry takes the place of {} from {}", shadowed.join(", "), places(&without).join(", "));
    Some(Warning::new("shadows_other_source", detail))
}

/// Another topic whose records go to the same index.
fn collision(desired: &Desired, name: &TopicName, after: &DesiredTopic, now: Timestamp) -> Option<Warning> {
    let at = Some(now.as_millisecond());
    let index = after.spec.index.render(name, at);
    let mut others = desired.topics.iter().filter(|(other, topic)| *other != name && topic.spec.index.render(other, at) == index);
    let (first, _) = others.next()?;
    let more = match others.count() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Some(Warning::new("index_collision", format!("the index {index} also takes the records of {first}{more}")))
}

/// The places besides the store that name a topic, for people.
pub(super) fn places(topic: &DesiredTopic) -> Vec<String> {
    let elsewhere = topic.sources.iter().filter(|source| source.kind != SourceKind::Store);
    elsewhere
        .map(|source| {
            let place = source.detail.as_deref().or(source.key.as_deref()).unwrap_or_default();
            format!("{} {place}", super::topics::source_kind(source.kind)).trim_end().to_owned()
        })
        .collect()
}
