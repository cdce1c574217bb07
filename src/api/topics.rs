//! Topics: the list, one of them, and the restart of all its tasks.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::dry_run::{self, DryRun, DryRunParameter};
use super::extract::{self, NoBody, Params, TopicPath};
use super::list::{Key, Paging, Rows, Scope, SortField};
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::{RestartedPartition, Shared, document, pages, write};
use crate::status::{Task, TaskState, Topic};
use crate::topic::{SourceKind, TopicName};

/// A page of topics.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only in the document; `list::Rows` is what goes out")]
pub(super) struct TopicList {
    /// The topics.
    items: Vec<Topic>,
    /// The cursor of the next page; `null` on the last.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

/// What became of each task.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RestartList {
    /// One row per partition.
    items: Vec<RestartedPartition>,
}

/// What topics can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TopicSort {
    Name,
    State,
    Health,
    Partitions,
    Lag,
    LagSeconds,
    RestartsTotal,
    IndexedTotal,
    DeadLetteredTotal,
    RecordsPerSecond,
}

impl SortField for TopicSort {
    const ALL: &'static [Self] = &[
        Self::Name,
        Self::State,
        Self::Health,
        Self::Partitions,
        Self::Lag,
        Self::LagSeconds,
        Self::RestartsTotal,
        Self::IndexedTotal,
        Self::DeadLetteredTotal,
        Self::RecordsPerSecond,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Health => "health",
            Self::Partitions => "partitions",
            Self::Lag => "lag",
            Self::LagSeconds => "lag_seconds",
            Self::RestartsTotal => "restarts_total",
            Self::IndexedTotal => "indexed_total",
            Self::DeadLetteredTotal => "dead_lettered_total",
            Self::RecordsPerSecond => "records_per_second",
        }
    }
}

fn sort_key(topic: &Topic, field: TopicSort) -> Key<'_> {
    let status = &topic.status;
    match field {
        TopicSort::Name => Key::text(topic.name.as_str()),
        // States and healths sort by how bad they are: ascending shows the worst state first, descending the worst health.
        TopicSort::State => Key::Number(status.state as i64),
        TopicSort::Health => Key::Number(status.health as i64),
        TopicSort::Partitions => Key::count(u64::try_from(status.partitions).unwrap_or(u64::MAX)),
        TopicSort::Lag => Key::maybe(status.lag),
        TopicSort::LagSeconds => Key::fraction(status.lag_seconds),
        TopicSort::RestartsTotal => Key::count(status.restarts_total),
        TopicSort::IndexedTotal => Key::count(status.indexed_total),
        TopicSort::DeadLetteredTotal => Key::count(status.dead_lettered_total),
        TopicSort::RecordsPerSecond => Key::fraction(Some(status.records_per_second)),
    }
}

/// The query of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the fields of the page are read through `paging`; here they are documented")]
struct TopicsParameters {
    /// Only topics whose name contains this text, in any case
    q: Option<String>,
    /// Only topics in this state
    state: Option<TaskState>,
    /// Only topics that this kind of source names
    source: Option<SourceKind>,
    /// Fields to order by, each with `-` for descending; states from worst to best, unknown values last: `name`, `state`, `health`, `partitions`, `lag`, `lag_seconds`,
    /// `restarts_total`, `indexed_total`, `dead_lettered_total`, `records_per_second`
    #[param(example = "-lag,name")]
    sort: Option<String>,
    /// Rows of a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
    /// `next` of the page before; filters and order must stay the same
    cursor: Option<String>,
}

struct TopicsQuery {
    name_contains: Option<String>,
    state: Option<TaskState>,
    source: Option<SourceKind>,
    paging: Paging<TopicSort>,
}

impl TopicsQuery {
    fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let mut params = Params::of(uri, "topics")?;
        let query = Self {
            name_contains: params.take("q", extract::any).map(|text| text.to_ascii_lowercase()),
            state: params.take("state", |text| extract::one_of(&TaskState::ALL, TaskState::as_str, text)),
            source: params.take("source", |text| extract::one_of(&SOURCE_KINDS, source_kind, text)),
            paging: Paging::take(&mut params, 1),
        };
        params.finish()?;
        Ok(query)
    }

    fn matches(&self, topic: &Topic) -> bool {
        self.name_contains.as_ref().is_none_or(|text| topic.name.as_str().to_ascii_lowercase().contains(text.as_str()))
            && self.state.is_none_or(|state| topic.status.state == state)
            && self.source.is_none_or(|kind| topic.sources.iter().any(|source| source.kind == kind))
    }
}

/// Every kind of source.
pub(super) const SOURCE_KINDS: [SourceKind; 3] = [SourceKind::File, SourceKind::Etcd, SourceKind::Store];

/// The kind of a source on the wire.
pub(super) fn source_kind(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::File => "file",
        SourceKind::Etcd => "etcd",
        SourceKind::Store => "store",
    }
}

problems!(ListProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal);
problems!(ItemProblems: InvalidRequest NotFound NotAcceptable MisdirectedRequest ValidationFailed Internal);
problems!(RestartProblems: InvalidRequest Forbidden NotFound NotAcceptable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal ShuttingDown OutcomeUnknown);

/// Lists the managed topics
///
/// What is wanted, who wants it and what it does, one row per topic. With `Accept: text/plain` the answer is a table for people. The weak `ETag` changes with any value of the page.
#[utoipa::path(
    get,
    path = "/api/v1/topics",
    tag = "topics",
    params(TopicsParameters),
    responses(
        (status = 200, description = "A page of topics", headers(("etag" = String, description = "Weak tag of this page"), ("x-request-id" = String, description = "The request's id")),
            content((TopicList = "application/json"), (String = "text/plain"))),
        (status = 304, description = "The page is the one that `If-None-Match` names", headers(("etag" = String, description = "Weak tag of this page"))),
        ListProblems,
    ),
)]
pub(super) async fn list_topics(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    let query = TopicsQuery::parse(&uri)?;
    let snapshot = state.now();
    let matching = snapshot.topics.iter().filter(|topic| query.matches(topic));
    let (page, next) = query.paging.page(matching, sort_key, |topic| [Key::text(topic.name.as_str())]);
    let tag = pages::tag(&state.info.instance, &snapshot, &uri, form, page.iter().map(|topic| topic.version), next.is_some());
    let write = || match form {
        Form::Json => document::json(&Rows::of(&page, next.as_deref())),
        Form::Text => Ok(table(&page, next.as_deref()).into_bytes()),
    };
    state.pages.answer(&headers, form, tag, write)
}

fn table(topics: &[&Topic], next: Option<&str>) -> String {
    let mut table = Table::new(&["NAME", "STATE", "HEALTH", "TASKS", "LAG", "RATE", "RESTARTS", "INDEX", "SOURCES"]);
    for topic in topics {
        let status = &topic.status;
        let running = status.tasks.get(TaskState::Running.as_str()).copied().unwrap_or(0);
        let mut sources: Vec<&str> = topic.sources.iter().map(|source| source_kind(source.kind)).collect();
        sources.dedup();
        table.row([
            topic.name.to_string(),
            status.state.as_str().to_owned(),
            document::health_name(status.health).to_owned(),
            format!("{running}/{}", status.partitions),
            text::cell(status.lag),
            format!("{:.1}", status.records_per_second),
            status.restarts_total.to_string(),
            topic.spec.index.as_str().to_owned(),
            sources.join(","),
        ]);
    }
    document::table_with_next(&table, next)
}

/// Shows one topic
///
/// The `ETag` names the revision of the store's entry, `"r0"` without one; it covers the spec, not the status, and so `If-None-Match` is ignored.
#[utoipa::path(
    get,
    path = "/api/v1/topics/{topic}",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The topic's name")),
    responses(
        (status = 200, description = "The topic", body = Topic, headers(("etag" = String, description = "Revision of the store's entry"), ("x-request-id" = String, description = "The request's id"))),
        ItemProblems,
    ),
)]
pub(super) async fn get_topic(State(state): State<Shared>, TopicPath(name): TopicPath, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    let topic = write::shown(&state.now(), &name).ok_or_else(|| write::not_named(&name))?;
    Ok(write::topic_answer(StatusCode::OK, topic, true))
}

/// Restarts every task of a topic
///
/// Each task ends completely and begins its next life at its watermark. Rows whose task cannot be restarted say why. Restarts count in `restarts_total`.
#[utoipa::path(
    post,
    path = "/api/v1/topics/{topic}/restart",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The topic's name"), DryRunParameter),
    responses(
        (status = 200, description = "What would happen, with `dry_run=true`", body = DryRun, headers(("x-request-id" = String, description = "The request's id"))),
        (status = 202, description = "What became of each task", body = RestartList, headers(("x-request-id" = String, description = "The request's id"))),
        RestartProblems,
    ),
)]
pub(super) async fn restart_topic(
    State(state): State<Shared>,
    path: Result<TopicPath, ApiError>,
    uri: Uri,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    if write::dry_run(&uri, &headers)? {
        return Ok(try_restart(&state, path).into_response());
    }
    let TopicPath(name) = path?;
    if !state.now().topics.iter().any(|topic| topic.name == name) {
        return Err(write::not_named(&name));
    }
    let items = super::tasks::in_time(state.actions.restart_topic(&name)).await?;
    Ok((StatusCode::ACCEPTED, Json(RestartList { items })).into_response())
}

fn try_restart(state: &Shared, path: Result<TopicPath, ApiError>) -> DryRun {
    let snapshot = state.now();
    let found = path.and_then(|TopicPath(name)| write::shown(&snapshot, &name).ok_or_else(|| write::not_named(&name)));
    let topic = match found {
        Ok(topic) => topic,
        Err(error) => return DryRun::refused_by(error),
    };
    let is_meant = |task: &&Task| task.topic == topic.name && dry_run::is_restartable(task);
    let tasks: Vec<&Task> = snapshot.tasks.iter().filter(is_meant).collect();
    DryRun::of_restart(&topic, &tasks)
}
