//! The probes. Text by default, details with `?verbose`, JSON by `Accept`; a probe never answers 406 and never with a problem of its own.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;
use utoipa::IntoParams;

use super::health::{self, HealthReport};
use super::problem::NotAProblem;
use super::text::{self, Form};
use super::{Shared, document};
use crate::status::Health;

/// The query of a probe. Others are ignored: a probe must not fail for how it is asked.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `is_verbose`")]
struct ProbeParameters {
    /// Lists every check
    #[param(allow_reserved, example = "")]
    verbose: Option<String>,
}

/// Tells whether the instance's own loops turn
///
/// Looks at nothing outside, so that an outage elsewhere restarts nothing.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "probes",
    params(ProbeParameters),
    responses(
        (status = 200, description = "Every loop turns", content((String = "text/plain"), (HealthReport = "application/json"))),
        (status = 503, description = "A loop is silent", content((String = "text/plain"), (HealthReport = "application/json"))),
    ),
)]
pub(super) async fn get_livez(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let now = Instant::now();
    let silences = state.beats.iter().map(|(name, beat)| (name.clone(), now.saturating_duration_since(*beat.borrow())));
    answer("livez", &health::liveness(silences), &uri, &headers)
}

/// Tells whether the instance can do its work
///
/// The configuration is valid, a first list of topics was there, no shutdown is under way; and what `readiness.require` names is there.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "probes",
    params(ProbeParameters),
    responses(
        (status = 200, description = "Ready", content((String = "text/plain"), (HealthReport = "application/json"))),
        (status = 503, description = "Not ready", content((String = "text/plain"), (HealthReport = "application/json"))),
    ),
)]
pub(super) async fn get_readyz(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    answer("readyz", &health::readiness(&state.now(), &state.readiness_require), &uri, &headers)
}

/// Tells how everything is
///
/// The worst of tasks, topics, parts and sources; `degraded` recovers by itself and is 200.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "probes",
    params(ProbeParameters),
    responses(
        (status = 200, description = "`ok` or `degraded`", content((String = "text/plain"), (HealthReport = "application/json"))),
        (status = 503, description = "`down`: someone has to act", content((String = "text/plain"), (HealthReport = "application/json"))),
    ),
)]
pub(super) async fn get_healthz(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    answer("healthz", &health::overall(&state.now()), &uri, &headers)
}

fn answer(probe: &str, report: &HealthReport, uri: &Uri, headers: &HeaderMap) -> Response {
    let form = text::preferred(headers, &[Form::Text, Form::Json]).unwrap_or(Form::Text);
    let body = match form {
        // A report is text only and always serialises.
        Form::Json => serde_json::to_vec(report).unwrap_or_default(),
        Form::Text => plain(probe, report, is_verbose(uri)).into_bytes(),
    };
    let status = if report.status == Health::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let mut response = (status, document::answer(form, body)).into_response();
    response.extensions_mut().insert(NotAProblem);
    response
}

fn is_verbose(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| pair == "verbose" || (pair.starts_with("verbose=") && !matches!(pair, "verbose=false" | "verbose=0")))
}

/// One word; every check when asked, and when something is down.
fn plain(probe: &str, report: &HealthReport, is_verbose: bool) -> String {
    let word = document::health_name(report.status);
    if !is_verbose && report.status != Health::Down {
        return format!("{word}\n");
    }
    let mut out = String::new();
    for check in &report.checks {
        let mark = match check.status {
            Health::Ok => '+',
            Health::Degraded => '!',
            Health::Down => '-',
        };
        out.push_str(&format!("[{mark}]{} {}", text::escape(&check.name), document::health_name(check.status)));
        for part in [&check.detail, &check.remedy].into_iter().flatten() {
            out.push_str(": ");
            out.push_str(&text::escape(part));
        }
        out.push('\n');
    }
    out.push_str(&format!("{probe} {word}\n"));
    out
}
