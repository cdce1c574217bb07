//! The log's filter at run time.
//!
//! Guarantees that a filter which does not parse changes nothing, and that a change is told in the log before and after it. It lasts until the process ends: what is to last is `log_level` in the file.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::Params;
use super::problem::{ApiError, problems};
use super::text::{self, Form};
use super::write::{self, By};
use super::{FieldError, Shared, body, fields};

/// Characters of a filter.
const MAX_FILTER: usize = 1000;
/// Directives of a filter: each is looked at for every line.
const MAX_DIRECTIVES: usize = 50;

/// Where the log's filter is read and set.
pub trait LogLevel: std::fmt::Debug + Send + Sync + 'static {
    /// The filter in force.
    fn filter(&self) -> String;

    /// Puts a filter in force; the error says why it is none.
    fn set(&self, filter: &str) -> Result<(), String>;
}

/// The log's filter.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogFilter {
    /// A level (`error`, `warn`, `info`, `debug`, `trace` or `off`), or several directives with commas between them: a level, or a module and its level.
    #[schema(example = "info,drover::sink=debug", min_length = 1, max_length = 1000)]
    filter: String,
}

problems!(ReadProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal);
problems!(SetProblems: InvalidRequest Forbidden NotAcceptable PayloadTooLarge UnsupportedMediaType MisdirectedRequest ValidationFailed Internal);

/// Shows the log's filter
#[utoipa::path(
    get,
    path = "/api/v1/log-level",
    tag = "instance",
    description = "The filter in force: of the configuration, of `DROVER_LOG`, or as it was set since.",
    responses(
        (status = 200, description = "The filter", body = LogFilter, headers(("x-request-id" = String, description = "The request's id"))),
        ReadProblems,
    ),
)]
pub(super) async fn get_log_level(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Json<LogFilter>, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    Ok(Json(LogFilter { filter: state.log_level.filter() }))
}

/// Sets the log's filter
///
/// In force at once and until the process ends; what is to last belongs into `log_level` of the configuration. Directives of parts that are not there do nothing.
#[utoipa::path(
    put,
    path = "/api/v1/log-level",
    tag = "instance",
    request_body(content = LogFilter, content_type = "application/json", example = json!({"filter": "info,drover::sink=debug"})),
    responses(
        (status = 200, description = "The filter that is in force now", body = LogFilter, headers(("x-request-id" = String, description = "The request's id"))),
        SetProblems,
    ),
)]
pub(super) async fn set_log_level(
    State(state): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    By(author): By,
    request: Request,
) -> Result<Json<LogFilter>, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    Params::of(&uri, "")?.finish()?;
    let values = body::required_object(request, &state, &[body::JSON]).await?;
    let filter = fields::log_filter(values, checked).map_err(write::invalid)?;
    let before = state.log_level.filter();
    let actor = text::bounded(&author.actor, 100);
    let request_id = author.request_id.as_deref().unwrap_or("-").to_owned();
    tracing::info!(before, after = filter, %actor, request_id, "the log's filter changes");
    let refused = |detail: String| FieldError { pointer: "/filter".to_owned(), code: "invalid".to_owned(), detail: text::bounded(&detail, 300) };
    state.log_level.set(&filter).map_err(|detail| write::invalid(vec![refused(detail)]))?;
    tracing::info!(before, after = filter, %actor, request_id, "the log's filter has changed");
    Ok(Json(LogFilter { filter: state.log_level.filter() }))
}

/// A bare word that is no level would be taken for a module whose every line is wanted, which nobody means by `banana`.
fn checked(filter: &str) -> Result<(), String> {
    if filter.chars().count() > MAX_FILTER || filter.split(',').count() > MAX_DIRECTIVES {
        return Err(format!("it is longer than {MAX_FILTER} characters or {MAX_DIRECTIVES} directives"));
    }
    // Spaces around a comma are fine, line ends are not: the filter is a line of the log and of the answer.
    for directive in filter.split(',').map(|directive| directive.trim_matches(' ')) {
        let (target, level) = directive.split_once('=').map_or((None, directive), |(target, level)| (Some(target), level));
        let is_level = ["error", "warn", "info", "debug", "trace", "off"].iter().any(|known| level.eq_ignore_ascii_case(known));
        let is_module = |target: &str| !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-'));
        if !is_level || !target.is_none_or(is_module) {
            let shown = text::bounded(directive, 60);
            return Err(format!("\"{shown}\" is neither a level (error, warn, info, debug, trace, off) nor module=level"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_module() {
        for filter in ["info", "INFO", "off", "warn,drover::sink=debug", "drover=trace, rdkafka=off"] {
            assert_eq!(checked(filter), Ok(()), "{filter}");
        }
        for filter in
            ["", "banana", "info,", "drover::sink=loud", "=debug", "drover[span{a=b}]=debug", "drover sink=debug", &"info,".repeat(60), "info\n"]
        {
            assert!(checked(filter).is_err(), "{filter}");
        }
    }
}
