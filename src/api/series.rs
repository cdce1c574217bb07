//! `GET /api/v1/topics/{topic}/series`: the last minutes of a topic as columns, the form that plots take.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{self, Params, TopicPath};
use super::problem::{ApiError, problems};
use super::text::{self, Form};
use super::{ProblemCode, Shared};
use crate::config::parse_duration;
use crate::status::series::{Point, REACH, STEP};
use crate::status::time_text;
use crate::topic::TopicName;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Lag,
    RecordsPerSecond,
    RestartsTotal,
}

impl Metric {
    const ALL: [Self; 3] = [Self::Lag, Self::RecordsPerSecond, Self::RestartsTotal];

    fn as_str(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::RecordsPerSecond => "records_per_second",
            Self::RestartsTotal => "restarts_total",
        }
    }
}

/// A moment, as a column's row is named.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
struct At(#[serde(with = "time_text")] Timestamp);

/// A topic's last minutes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TopicSeries {
    /// The topic's name.
    topic: TopicName,
    /// The distance of two rows in seconds; where the instance was not there, rows are missing.
    step_seconds: u64,
    /// The moments, oldest first.
    #[schema(value_type = Vec<Timestamp>)]
    at: Vec<At>,
    /// The columns, each as long as `at`; what was not known then is `null`.
    columns: SeriesColumns,
}

/// The columns that were asked for.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct SeriesColumns {
    /// Records behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<Vec<Option<i64>>>,
    /// Records settled per second, mean of 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    records_per_second: Option<Vec<Option<f64>>>,
    /// Restarts of the topic's tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    restarts_total: Option<Vec<Option<u64>>>,
}

/// The query of the series.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `SeriesQuery::parse`")]
struct SeriesParameters {
    /// The columns, comma-separated, out of `lag`, `records_per_second` and `restarts_total`; all by default
    #[param(example = "lag,restarts_total")]
    metric: Option<String>,
    /// How far back, 5s to 15m
    #[param(example = "15m", default = "15m")]
    window: Option<String>,
    /// The distance of two rows, 5s to 15m
    #[param(example = "5s", default = "5s")]
    step: Option<String>,
}

struct SeriesQuery {
    metrics: Vec<Metric>,
    window: Duration,
    step: Duration,
}

impl SeriesQuery {
    fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let mut params = Params::of(uri, "series")?;
        let metrics = params
            .take("metric", |text| text.split(',').map(|name| extract::one_of(&Metric::ALL, Metric::as_str, name)).collect::<Result<Vec<_>, _>>());
        let query = Self {
            metrics: metrics.unwrap_or_else(|| Metric::ALL.to_vec()),
            window: params.take("window", span).unwrap_or(REACH),
            step: params.take("step", span).unwrap_or(STEP),
        };
        params.finish()?;
        Ok(query)
    }
}

/// A span between two samples and all that are kept.
fn span(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).filter(|span| (STEP..=REACH).contains(span)).ok_or("it is a time from 5s to 15m, such as 90s")
}

problems!(SeriesProblems: InvalidRequest NotFound NotAcceptable MisdirectedRequest ValidationFailed Internal);

/// Shows the last minutes of a topic
///
/// Lag, rate and restarts as columns of equal length beside `at`, a sample every 5 seconds, kept for 15 minutes in memory: a restart of the instance begins anew. With a coarser `step` the newest sample of each step.
#[utoipa::path(
    get,
    path = "/api/v1/topics/{topic}/series",
    tag = "topics",
    params(("topic" = TopicName, Path, description = "The topic's name"), SeriesParameters),
    responses(
        (status = 200, description = "The series", body = TopicSeries, headers(("x-request-id" = String, description = "The request's id"))),
        SeriesProblems,
    ),
)]
pub(super) async fn get_topic_series(
    State(state): State<Shared>,
    TopicPath(name): TopicPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<TopicSeries>, ApiError> {
    text::negotiate(&headers, &[Form::Json])?;
    let query = SeriesQuery::parse(&uri)?;
    let snapshot = state.now();
    if snapshot.topics.binary_search_by(|topic| topic.name.cmp(&name)).is_err() {
        return Err(ApiError::new(ProblemCode::NotFound, format!("there is no managed topic {name}")));
    }
    let points = snapshot.series.of(&name, query.window, query.step, snapshot.taken_at);
    let wants = |metric| query.metrics.contains(&metric);
    Ok(Json(TopicSeries {
        topic: name,
        step_seconds: query.step.as_secs(),
        columns: SeriesColumns {
            lag: wants(Metric::Lag).then(|| column(&points, |point| point.lag)),
            records_per_second: wants(Metric::RecordsPerSecond).then(|| column(&points, |point| Some(point.records_per_second))),
            restarts_total: wants(Metric::RestartsTotal).then(|| column(&points, |point| Some(point.restarts_total))),
        },
        at: points.into_iter().map(|(at, _)| At(at)).collect(),
    }))
}

fn column<T>(points: &[(Timestamp, Option<Point>)], value: impl Fn(&Point) -> Option<T>) -> Vec<Option<T>> {
    points.iter().map(|(_, point)| point.as_ref().and_then(&value)).collect()
}
