//! The routes with their OpenAPI document, and what answers have in common.
//!
//! Guarantees that a route and its description are registered together, that the document is the same text at every build, and that the served document is the checked-in file, byte
//! for byte; a test fails when that file is not what the routes generate. Every property of an answer is `required`: what is not known is present as `null`.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::OpenApi;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, RefOr, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{self, problems};
use super::text::{self, Form, Table};
use super::{FieldError, Problem, ProblemCode, Shared, auth};
use super::{changes, dead_letters, edit, events, instance, kafka, log_level, metrics, pause, probes, revert, rewind, series, stream, tasks, topics};
use crate::config::HttpConfig;
use crate::status::Health;

/// The name of the security scheme.
const BEARER: &str = "bearer_token";
/// The document as it is checked in.
const CHECKED_IN: &[u8] = include_bytes!("../../openapi/openapi.json");

/// Schemas whose absent fields mean something: they are given by clients, stored as given, or were not asked for.
const SPARSE_SCHEMAS: [&str; 6] = ["SpecFields", "TopicPatch", "PauseBody", "TopicRewind", "TaskRewind", "SeriesColumns"];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "drover",
        version = "1.0.0",
        description = "Keeps Kafka topics flowing into Elasticsearch or OpenSearch. Times are RFC 3339 UTC and end in `_at`; durations are seconds and end in `_seconds`; \
                       offsets are plain integers; `null` means not known. Every error except a probe's own is an `application/problem+json`.",
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "/", description = "The instance that served this document")),
    components(schemas(Problem, ProblemCode, FieldError)),
    tags(
        (name = "dead-letters", description = "Records that no server would take"),
        (name = "events", description = "What happened: the supervision's events"),
        (name = "instance", description = "The instance, its parts and the sources of its topics"),
        (name = "probes", description = "Liveness, readiness, health and metrics"),
        (name = "tasks", description = "The supervised workers, one per partition"),
        (name = "topics", description = "The managed topics"),
    ),
)]
struct Base;

/// Every documented route.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(topics::list_topics))
        .routes(routes!(topics::get_topic, edit::put_topic, edit::patch_topic, edit::delete_topic))
        .routes(routes!(pause::pause_topic, pause::resume_topic))
        .routes(routes!(topics::restart_topic))
        .routes(routes!(rewind::rewind_topic))
        .routes(routes!(series::get_topic_series))
        .routes(routes!(tasks::list_tasks))
        .routes(routes!(tasks::get_task))
        .routes(routes!(tasks::restart_task))
        .routes(routes!(rewind::rewind_task))
        .routes(routes!(changes::list_changes))
        .routes(routes!(revert::revert_change))
        .routes(routes!(events::list_events))
        .routes(routes!(stream::stream_events))
        .routes(routes!(dead_letters::list_dead_letters))
        .routes(routes!(dead_letters::get_dead_letter, dead_letters::delete_dead_letter))
        .routes(routes!(dead_letters::redrive_dead_letters))
        .routes(routes!(dead_letters::redrive_dead_letter))
        .routes(routes!(instance::list_sources))
        .routes(routes!(instance::confirm_source))
        .routes(routes!(instance::get_info))
        .routes(routes!(instance::list_instances))
        .routes(routes!(log_level::get_log_level, log_level::set_log_level))
        .routes(routes!(kafka::list_kafka_topics))
        .routes(routes!(probes::get_livez))
        .routes(routes!(probes::get_readyz))
        .routes(routes!(probes::get_healthz))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(get_openapi))
}

/// The document that the routes generate.
pub fn document() -> utoipa::openapi::OpenApi {
    let (_, mut document) = routes().split_for_parts();
    let schemas = document.components.iter_mut().flat_map(|components| components.schemas.iter_mut());
    for (name, schema) in schemas {
        if let RefOr::T(Schema::Object(object)) = schema
            && !SPARSE_SCHEMAS.contains(&name.as_str())
        {
            object.required = object.properties.keys().cloned().collect();
        }
    }
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten() {
            operation.parameters.iter_mut().flatten().for_each(never_null);
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                body.content.values_mut().for_each(without_null);
            }
        }
    }
    secure(&mut document);
    document
}

/// Says where a token is sent and which operations need one. Every token may read, so that only changes can be refused for its role, which they declare themselves.
fn secure(document: &mut utoipa::openapi::OpenApi) {
    let described = "A token whose hash is in the file that `auth.tokens_file` names; `drover token` makes one. The role `read` is enough for GET and HEAD, everything else needs `write`. \
                     Without such a file the API is open, and drover listens on loopback addresses only unless it is told otherwise.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(described)).build();
    document.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    // With tokens or open, as the instance was started.
    document.security = Some(vec![SecurityRequirement::default(), SecurityRequirement::new::<_, _, String>(BEARER, [])]);
    // Probes and metrics can be closed.
    let closed = HttpConfig { open_probes: false, open_metrics: false, max_connections: 0, max_body: 0, header_timeout: Duration::ZERO };
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            match auth::needed(&method, path, &closed) {
                None => operation.security = Some(Vec::new()),
                Some(_) => operation.responses.responses.extend(problem::responses(&[ProblemCode::Unauthorized])),
            }
        }
    }
}

/// A parameter that may be left out is described as one that may be `null`, which a header or a query can only spell as a text.
fn never_null(parameter: &mut RefOr<Parameter>) {
    if let RefOr::T(parameter) = parameter
        && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
        && let SchemaType::Array(types) = &object.schema_type
        && let [kind, Type::Null] = types.as_slice()
    {
        object.schema_type = SchemaType::Type(kind.clone());
    }
}

/// A body that may be left out is described as one that may be `null`; but `null` is a body, and no operation takes it.
fn without_null(content: &mut RefOr<Content>) {
    if let RefOr::T(content) = content
        && let Some(RefOr::T(Schema::OneOf(choices))) = &content.schema
        && let [RefOr::Ref(body), RefOr::T(Schema::Object(_))] = choices.items.as_slice()
    {
        content.schema = Some(RefOr::Ref(body.clone()));
    }
}

/// The document as it is checked in: indented JSON, line feeds, one at the end.
pub fn document_text() -> String {
    // The document is made of maps with text keys and always serialises.
    let mut text = document().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

problems!(DocumentProblems: MisdirectedRequest Internal);

/// Gives this document
///
/// The same bytes as `openapi/openapi.json` of this version.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "instance",
    responses(
        (status = 200, description = "The OpenAPI document", body = serde_json::Value, content_type = "application/json", headers(("etag" = String, description = "Tag of the document"))),
        (status = 304, description = "The document is the one that `If-None-Match` names"),
        DocumentProblems,
    ),
)]
pub(super) async fn get_openapi(headers: HeaderMap) -> Response {
    let etag = format!("\"{}\"", digest(CHECKED_IN));
    let caching = [(header::ETAG, etag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if is_known(&headers, &etag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, "application/json")], CHECKED_IN).into_response()
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, super::problem::ApiError> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer does not serialise");
        super::problem::ApiError::new(ProblemCode::Internal, "the answer cannot be written; the log has the details under the request's id")
    })
}

/// An answer in one of several forms.
pub(super) fn answer(form: Form, body: impl Into<Body>) -> Response {
    let media_type = match form {
        Form::Json => "application/json",
        Form::Text => text::PLAIN,
    };
    ([(header::CONTENT_TYPE, media_type), (header::VARY, "accept")], body.into()).into_response()
}

/// Whether `If-None-Match` names the tag, by RFC 9110's weak comparison.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let mut given = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    given.any(|tag| tag.trim() == "*" || bare(tag) == bare(etag))
}

fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The first 16 bytes of a hash, for a tag.
pub(super) fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A table, and how to get the rest of it.
pub(super) fn table_with_next(table: &Table, next: Option<&str>) -> String {
    let mut rendered = table.render();
    if let Some(cursor) = next {
        rendered.push_str(&format!("# there are more rows: raise limit, or add cursor={cursor}\n"));
    }
    rendered
}

/// A health on the wire.
pub(super) fn health_name(health: Health) -> &'static str {
    match health {
        Health::Ok => "ok",
        Health::Degraded => "degraded",
        Health::Down => "down",
    }
}
