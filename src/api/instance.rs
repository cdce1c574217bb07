//! The instance: what it is, how its parts are, and the sources of its topics.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{self, Caller};
use super::extract::{NoBody, Params, SourcePath};
use super::list::Scope;
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::write::{self, By};
use super::{Shared, document, health, topics};
use crate::config::tokens::Role;
use crate::status::{Component, Health, Memory, Source, SourceStatus, time_text};
use crate::topic::SourceKind;

/// The instance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Info {
    /// The program.
    #[schema(example = "drover")]
    name: String,
    /// The program's version.
    version: String,
    /// The instance's name.
    instance: String,
    /// When the process started.
    #[serde(with = "time_text")]
    started_at: Timestamp,
    /// The worst of its tasks, topics, parts and sources.
    health: Health,
    /// Whether it shuts down.
    draining: bool,
    /// The consumer group.
    group_id: String,
    /// Number of configured bootstrap servers.
    brokers: usize,
    /// The folder of the embedded store, the dead letters and the restart ledger.
    data_dir: String,
    /// The supervised parts: the consumer, the sink, the watchers, the API.
    components: Vec<Component>,
    /// Fields of the configuration whose new value takes effect at the next start.
    needs_restart: Vec<String>,
    /// What an operator should know although nothing is wrong yet.
    warnings: Vec<String>,
    /// Configured limits.
    limits: Limits,
    /// Memory held.
    memory: Memory,
    /// Who asks.
    caller: CallerInfo,
}

/// Who asks, and what they may do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallerInfo {
    /// The name of the token; `anonymous` where there are none.
    #[schema(example = "grafana")]
    name: String,
    /// What it may do: `read` looks, `write` changes things, too. Where there are no tokens everybody may change things.
    role: CallerRole,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CallerRole {
    /// Look at everything.
    Read,
    /// Change things, too.
    Write,
}

impl CallerInfo {
    fn of(caller: Option<&Caller>) -> Self {
        match caller {
            Some(Caller(holder)) => {
                Self { name: holder.name.clone(), role: if holder.role == Role::Read { CallerRole::Read } else { CallerRole::Write } }
            }
            None => Self { name: auth::NOBODY.to_owned(), role: CallerRole::Write },
        }
    }
}

/// Configured limits.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Limits {
    /// Bytes for librdkafka's prefetch, records and bulk bodies together.
    memory_bytes: u64,
    /// Connections to the API at once.
    max_connections: usize,
    /// Bytes of a request's body.
    max_body_bytes: u64,
    /// Seconds that a request's head may take.
    header_timeout_seconds: f64,
}

/// All sources of topics.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SourceList {
    /// The sources.
    items: Vec<Source>,
    /// Always `null`: there is one page.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

problems!(InstanceProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal);

/// Shows the instance
///
/// Its version, its supervised parts with their restarts, its limits, what of the configuration waits for a restart, and what the caller may do here.
#[utoipa::path(
    get,
    path = "/api/v1/info",
    tag = "instance",
    responses(
        (status = 200, description = "The instance", body = Info, headers(("x-request-id" = String, description = "The request's id"))),
        InstanceProblems,
    ),
)]
pub(super) async fn get_info(
    State(state): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    caller: Option<Extension<Caller>>,
) -> Result<Json<Info>, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    let snapshot = state.now();
    let info = &state.info;
    Ok(Json(Info {
        name: info.name.clone(),
        version: info.version.clone(),
        instance: info.instance.clone(),
        started_at: info.started_at,
        health: health::overall(&snapshot).status,
        draining: snapshot.draining,
        group_id: info.group_id.clone(),
        brokers: info.brokers,
        data_dir: info.data_dir.clone(),
        components: snapshot.components.clone(),
        needs_restart: snapshot.needs_restart.clone(),
        warnings: snapshot.warnings.clone(),
        limits: Limits {
            memory_bytes: info.memory_bytes,
            max_connections: state.http.max_connections,
            max_body_bytes: state.http.max_body,
            header_timeout_seconds: state.http.header_timeout.as_secs_f64(),
        },
        memory: snapshot.memory,
        caller: CallerInfo::of(caller.as_deref()),
    }))
}

/// A member of the group that runs drover.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Instance {
    /// Its name.
    #[schema(example = "host-1")]
    instance: String,
    /// Whether it is the one that answers.
    is_self: bool,
    /// The program's version.
    version: String,
    /// When the process started.
    #[serde(with = "time_text")]
    started_at: Timestamp,
    /// The worst of its tasks, topics, parts and sources.
    health: Health,
    /// Whether it shuts down.
    draining: bool,
    /// Partitions that it has.
    partitions: usize,
    /// Its tasks by state.
    tasks: BTreeMap<String, usize>,
    /// Records settled per second.
    records_per_second: f64,
}

/// The instances.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InstanceList {
    /// The instances.
    items: Vec<Instance>,
    /// Always `null`: there is one page.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

/// Lists the instances
///
/// This instance alone, as `scope` says: what others do is theirs to tell. With `Accept: text/plain` the answer is a table for people.
#[utoipa::path(
    get,
    path = "/api/v1/instances",
    tag = "instance",
    responses(
        (status = 200, description = "The instances", headers(("x-request-id" = String, description = "The request's id")),
            content((InstanceList = "application/json"), (String = "text/plain"))),
        InstanceProblems,
    ),
)]
pub(super) async fn list_instances(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    Params::of(&uri, "")?.finish()?;
    let snapshot = state.now();
    let mut tasks: BTreeMap<String, usize> = BTreeMap::new();
    for task in snapshot.tasks.iter().filter(|task| task.instance.is_some()) {
        *tasks.entry(task.state.as_str().to_owned()).or_default() += 1;
    }
    let instance = Instance {
        instance: state.info.instance.clone(),
        is_self: true,
        version: state.info.version.clone(),
        started_at: state.info.started_at,
        health: health::overall(&snapshot).status,
        draining: snapshot.draining,
        partitions: snapshot.assignments.len(),
        tasks,
        records_per_second: snapshot.topics.iter().map(|topic| topic.status.records_per_second).sum(),
    };
    let body = match form {
        Form::Json => document::json(&InstanceList { items: vec![instance], next: None, scope: Scope::Instance })?,
        Form::Text => instance_table(&instance).into_bytes(),
    };
    Ok(document::answer(form, body))
}

fn instance_table(instance: &Instance) -> String {
    let mut table = Table::new(&["INSTANCE", "HEALTH", "VERSION", "PARTITIONS", "TASKS", "RATE", "STARTED"]);
    let tasks: Vec<String> = instance.tasks.iter().map(|(state, count)| format!("{count} {state}")).collect();
    table.row([
        instance.instance.clone(),
        document::health_name(instance.health).to_owned(),
        instance.version.clone(),
        instance.partitions.to_string(),
        if tasks.is_empty() { "-".to_owned() } else { tasks.join(", ") },
        format!("{:.1}", instance.records_per_second),
        format!("{:.0}", instance.started_at),
    ]);
    table.render()
}

/// Lists the sources of topics
///
/// Each with its freshness and its error. A source with an error keeps its last good list in force. With `Accept: text/plain` the answer is a table for people.
#[utoipa::path(
    get,
    path = "/api/v1/sources",
    tag = "instance",
    responses(
        (status = 200, description = "The sources", headers(("x-request-id" = String, description = "The request's id")),
            content((SourceList = "application/json"), (String = "text/plain"))),
        InstanceProblems,
    ),
)]
pub(super) async fn list_sources(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    Params::of(&uri, "")?.finish()?;
    let snapshot = state.now();
    let body = match form {
        Form::Json => document::json(&SourceList { items: snapshot.sources.clone(), next: None, scope: Scope::Instance })?,
        Form::Text => table(&snapshot.sources).into_bytes(),
    };
    Ok(document::answer(form, body))
}

/// The sources of one kind.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfirmedSources {
    /// As they were before the confirmation is in force; `GET /api/v1/sources` shows when it is.
    items: Vec<Source>,
}

problems!(ConfirmProblems: InvalidRequest Forbidden NotAcceptable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal StoreUnavailable OutcomeUnknown);

/// Takes the sources of a kind as they are now
///
/// For a source that is `stale`: an etcd that was restored or replaced is held back, so that it does not stop every topic, until someone says that its content is meant. The collector's
/// keys and the store are in the same etcd and are taken together. Does nothing where nothing waits, and nothing ever waits in a file.
#[utoipa::path(
    post,
    path = "/api/v1/sources/{kind}/confirm",
    tag = "instance",
    params(("kind" = SourceKind, Path, description = "The kind of source")),
    responses(
        (status = 202, description = "The sources of this kind", body = ConfirmedSources, headers(("x-request-id" = String, description = "The request's id"))),
        ConfirmProblems,
    ),
)]
pub(super) async fn confirm_source(
    State(state): State<Shared>,
    SourcePath(kind): SourcePath,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    _: NoBody,
) -> Result<impl IntoResponse, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    if kind != SourceKind::File {
        write::write(state.store.confirm()).await.map_err(write::problem)?;
    }
    let request_id = author.request_id.as_deref().unwrap_or("-");
    tracing::info!(kind = topics::source_kind(kind), actor = %text::bounded(&author.actor, 100), request_id, "source confirmed");
    let snapshot = state.now();
    let items = snapshot.sources.iter().filter(|source| source.kind == kind).cloned().collect();
    Ok((StatusCode::ACCEPTED, Json(ConfirmedSources { items })))
}

fn table(sources: &[Source]) -> String {
    let mut table = Table::new(&["KIND", "DETAIL", "STATUS", "TOPICS", "READ", "ERROR"]);
    for source in sources {
        table.row([
            topics::source_kind(source.kind).to_owned(),
            text::cell(source.detail.as_ref()),
            status_name(source.status).to_owned(),
            source.topics.to_string(),
            text::cell(source.read_at.map(|read_at| format!("{read_at:.0}"))),
            text::cell(source.error.as_ref().map(health::source_error)),
        ]);
    }
    table.render()
}

/// A source's status on the wire.
fn status_name(status: SourceStatus) -> &'static str {
    match status {
        SourceStatus::Ok => "ok",
        SourceStatus::Stale => "stale",
        SourceStatus::Error => "error",
        SourceStatus::Disabled => "disabled",
    }
}
