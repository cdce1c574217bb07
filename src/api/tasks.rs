//! Tasks: the list, one of them, and its restart.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use utoipa::{IntoParams, ToSchema};

use super::dry_run::{self, DryRun, DryRunParameter};
use super::extract::{self, NoBody, Params, TaskPath};
use super::list::{Key, Paging, Rows, Scope, SortField};
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::{ActionError, ProblemCode, Shared, document, pages, write};
use crate::status::{Task, TaskState};
use crate::topic::TopicName;

/// How long an action may take. A restart waits for the old life to end, which the supervisor bounds well below this.
const ACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A page of tasks.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only in the document; `list::Rows` is what goes out")]
pub(super) struct TaskList {
    /// The tasks.
    items: Vec<Task>,
    /// The cursor of the next page; `null` on the last.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

/// What tasks can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TaskSort {
    Topic,
    Partition,
    State,
    Health,
    Instance,
    Lag,
    LagSeconds,
    RestartsTotal,
    SinceAt,
    RecordsPerSecond,
}

impl SortField for TaskSort {
    const ALL: &'static [Self] = &[
        Self::Topic,
        Self::Partition,
        Self::State,
        Self::Health,
        Self::Instance,
        Self::Lag,
        Self::LagSeconds,
        Self::RestartsTotal,
        Self::SinceAt,
        Self::RecordsPerSecond,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Partition => "partition",
            Self::State => "state",
            Self::Health => "health",
            Self::Instance => "instance",
            Self::Lag => "lag",
            Self::LagSeconds => "lag_seconds",
            Self::RestartsTotal => "restarts_total",
            Self::SinceAt => "since_at",
            Self::RecordsPerSecond => "records_per_second",
        }
    }
}

fn sort_key(task: &Task, field: TaskSort) -> Key<'_> {
    match field {
        TaskSort::Topic => Key::text(task.topic.as_str()),
        TaskSort::Partition => Key::Number(i64::from(task.partition)),
        TaskSort::State => Key::Number(task.state as i64),
        TaskSort::Health => Key::Number(task.health as i64),
        TaskSort::Instance => task.instance.as_deref().map_or(Key::Unknown, Key::text),
        TaskSort::Lag => Key::maybe(task.lag),
        TaskSort::LagSeconds => Key::fraction(task.lag_seconds),
        TaskSort::RestartsTotal => Key::count(task.restarts_total),
        TaskSort::SinceAt => Key::Number(task.since_at.as_millisecond()),
        TaskSort::RecordsPerSecond => Key::fraction(Some(task.records_per_second)),
    }
}

/// The query of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the fields of the page are read through `paging`; here they are documented")]
struct TasksParameters {
    /// Only this topic's tasks
    topic: Option<TopicName>,
    /// Only tasks in this state
    state: Option<TaskState>,
    /// Only this instance's tasks
    instance: Option<String>,
    /// Only tasks with at least this many restarts
    #[param(minimum = 0)]
    min_restarts: Option<u64>,
    /// Only tasks whose lag is known and at least this
    #[param(minimum = 0)]
    min_lag: Option<u64>,
    /// Fields to order by, each with `-` for descending; states from worst to best, unknown values last: `topic`, `partition`, `state`, `health`, `instance`, `lag`, `lag_seconds`,
    /// `restarts_total`, `since_at`, `records_per_second`
    #[param(example = "-lag,topic")]
    sort: Option<String>,
    /// Rows of a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
    /// `next` of the page before; filters and order must stay the same
    cursor: Option<String>,
}

struct TasksQuery {
    topic: Option<TopicName>,
    state: Option<TaskState>,
    instance: Option<String>,
    min_restarts: Option<u64>,
    min_lag: Option<u64>,
    paging: Paging<TaskSort>,
}

impl TasksQuery {
    fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let mut params = Params::of(uri, "tasks")?;
        let query = Self {
            topic: params.take("topic", extract::topic),
            state: params.take("state", |text| extract::one_of(&TaskState::ALL, TaskState::as_str, text)),
            instance: params.take("instance", extract::any),
            min_restarts: params.take("min_restarts", extract::count),
            min_lag: params.take("min_lag", extract::count),
            paging: Paging::take(&mut params, 2),
        };
        params.finish()?;
        Ok(query)
    }

    fn matches(&self, task: &Task) -> bool {
        let lag = task.lag.and_then(|lag| u64::try_from(lag).ok());
        self.topic.as_ref().is_none_or(|topic| task.topic == *topic)
            && self.state.is_none_or(|state| task.state == state)
            && self.instance.as_ref().is_none_or(|instance| task.instance.as_ref() == Some(instance))
            && self.min_restarts.is_none_or(|least| task.restarts_total >= least)
            && self.min_lag.is_none_or(|least| lag.is_some_and(|lag| lag >= least))
    }
}

problems!(ListProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal);
problems!(ItemProblems: InvalidRequest NotFound NotAcceptable MisdirectedRequest ValidationFailed Internal);
problems!(RestartProblems: InvalidRequest Forbidden NotFound NotAcceptable TaskNotRestartable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal ShuttingDown OutcomeUnknown);

/// Lists the tasks
///
/// One row per topic and partition. Partitions that this instance does not have are `unassigned`, with `instance` `null`. With `Accept: text/plain` the answer is a
/// table for people.
#[utoipa::path(
    get,
    path = "/api/v1/tasks",
    tag = "tasks",
    params(TasksParameters),
    responses(
        (status = 200, description = "A page of tasks", headers(("etag" = String, description = "Weak tag of this page"), ("x-request-id" = String, description = "The request's id")),
            content((TaskList = "application/json"), (String = "text/plain"))),
        (status = 304, description = "The page is the one that `If-None-Match` names", headers(("etag" = String, description = "Weak tag of this page"))),
        ListProblems,
    ),
)]
pub(super) async fn list_tasks(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    let query = TasksQuery::parse(&uri)?;
    let snapshot = state.now();
    let matching = snapshot.tasks.iter().filter(|task| query.matches(task));
    let (page, next) = query.paging.page(matching, sort_key, |task| [Key::text(task.topic.as_str()), Key::Number(i64::from(task.partition))]);
    let tag = pages::tag(&state.info.instance, &snapshot, &uri, form, page.iter().map(|task| task.version), next.is_some());
    let write = || match form {
        Form::Json => document::json(&Rows::of(&page, next.as_deref())),
        Form::Text => Ok(table(&page, next.as_deref()).into_bytes()),
    };
    state.pages.answer(&headers, form, tag, write)
}

fn table(tasks: &[&Task], next: Option<&str>) -> String {
    let mut table = Table::new(&["TOPIC", "PARTITION", "STATE", "INSTANCE", "LAG", "RATE", "RESTARTS", "SINCE", "REASON"]);
    for task in tasks {
        table.row([
            task.topic.to_string(),
            task.partition.to_string(),
            task.state.as_str().to_owned(),
            text::cell(task.instance.as_ref()),
            text::cell(task.lag),
            format!("{:.1}", task.records_per_second),
            task.restarts_total.to_string(),
            format!("{:.0}", task.since_at),
            text::cell(task.reason.as_ref().map(|reason| reason.code.as_str())),
        ]);
    }
    document::table_with_next(&table, next)
}

/// Shows one task
///
/// With `recent_exits`: how its last lives ended.
#[utoipa::path(
    get,
    path = "/api/v1/tasks/{topic}/{partition}",
    tag = "tasks",
    params(("topic" = TopicName, Path, description = "The topic's name"), ("partition" = i32, Path, description = "The partition's number", minimum = 0)),
    responses(
        (status = 200, description = "The task", body = Task, headers(("x-request-id" = String, description = "The request's id"))),
        ItemProblems,
    ),
)]
pub(super) async fn get_task(
    State(state): State<Shared>,
    TaskPath(topic, partition): TaskPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<Task>, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    let snapshot = state.now();
    let task = snapshot.tasks.iter().find(|task| task.topic == topic && task.partition == partition);
    task.cloned().map(Json).ok_or_else(|| not_there(&topic, partition))
}

/// 404 for a task that is not there.
pub(super) fn not_there(topic: &TopicName, partition: i32) -> ApiError {
    ApiError::at(ProblemCode::NotFound, "/path/partition", format!("there is no task for {topic}/{partition}"))
}

/// Restarts one task
///
/// The task ends completely and begins its next life at its watermark. The restart counts in `restarts_total`, not in `consecutive_failures`.
#[utoipa::path(
    post,
    path = "/api/v1/tasks/{topic}/{partition}/restart",
    tag = "tasks",
    params(
        ("topic" = TopicName, Path, description = "The topic's name"),
        ("partition" = i32, Path, description = "The partition's number", minimum = 0),
        DryRunParameter,
    ),
    responses(
        (status = 200, description = "What would happen, with `dry_run=true`", body = DryRun, headers(("x-request-id" = String, description = "The request's id"))),
        (status = 202, description = "The task in its new life", body = Task, headers(("x-request-id" = String, description = "The request's id"))),
        RestartProblems,
    ),
)]
pub(super) async fn restart_task(
    State(state): State<Shared>,
    path: Result<TaskPath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    if write::dry_run(&uri, &headers)? {
        return Ok(try_restart(&state, path).unwrap_or_else(DryRun::refused_by).into_response());
    }
    let TaskPath(topic, partition) = path?;
    let task = in_time(state.actions.restart_task(&topic, partition)).await?;
    Ok((StatusCode::ACCEPTED, Json(task)).into_response())
}

fn try_restart(state: &Shared, path: Result<TaskPath, ApiError>) -> Result<DryRun, ApiError> {
    let TaskPath(name, partition) = path?;
    let snapshot = state.now();
    let task = snapshot.tasks.iter().find(|task| task.topic == name && task.partition == partition);
    let task = task.ok_or_else(|| not_there(&name, partition))?;
    if !dry_run::is_restartable(task) {
        return Err(ActionError::NotRestartable(task.state).into());
    }
    let topic = write::shown(&snapshot, &name).ok_or_else(|| write::not_named(&name))?;
    Ok(DryRun::of_restart(&topic, &[task]))
}

/// The outcome of an action, or that it is not known.
pub(super) async fn in_time<T>(action: impl Future<Output = Result<T, ActionError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(ACTION_TIMEOUT, action).await {
        Ok(outcome) => outcome.map_err(ApiError::from),
        Err(_) => {
            let detail = format!("there was no answer within {} s; look at the task before asking again", ACTION_TIMEOUT.as_secs());
            Err(ApiError::new(ProblemCode::OutcomeUnknown, detail))
        }
    }
}
