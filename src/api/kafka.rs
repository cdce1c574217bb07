//! The topics that Kafka has, for whoever adds one.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{self, Params};
use super::list::{Key, Paging, Scope, SortField};
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::{KafkaTopic, ProblemCode, Shared, document};

/// How long Kafka may take.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(15);

/// A page of Kafka's topics.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KafkaTopicList {
    /// The topics, by name unless `sort` says otherwise.
    items: Vec<KafkaTopic>,
    /// The cursor of the next page; `null` on the last.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

/// What Kafka's topics can be ordered by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum KafkaTopicSort {
    Name,
    Partitions,
}

impl SortField for KafkaTopicSort {
    const ALL: &'static [Self] = &[Self::Name, Self::Partitions];

    fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Partitions => "partitions",
        }
    }
}

fn sort_key(topic: &KafkaTopic, field: KafkaTopicSort) -> Key<'_> {
    match field {
        KafkaTopicSort::Name => Key::text(&topic.name),
        KafkaTopicSort::Partitions => Key::Number(i64::from(topic.partitions)),
    }
}

/// The query of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by the handler")]
struct KafkaTopicsParameters {
    /// Only topics whose name contains this text, in any case
    q: Option<String>,
    /// Fields to order by, each with `-` for descending: `name`, `partitions`
    #[param(example = "-partitions,name")]
    sort: Option<String>,
    /// Rows of a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
    /// `next` of the page before; filters and order must stay the same
    cursor: Option<String>,
}

problems!(ListProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal KafkaUnavailable);

/// Lists the topics that Kafka has
///
/// With their number of partitions, without Kafka's internal ones; whether they are managed or not. With `Accept: text/plain` the answer is a table for people.
#[utoipa::path(
    get,
    path = "/api/v1/kafka/topics",
    tag = "topics",
    params(KafkaTopicsParameters),
    responses(
        (status = 200, description = "A page of Kafka's topics", headers(("x-request-id" = String, description = "The request's id")),
            content((KafkaTopicList = "application/json"), (String = "text/plain"))),
        ListProblems,
    ),
)]
pub(super) async fn list_kafka_topics(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    let mut params = Params::of(&uri, "kafka-topics")?;
    let name_contains = params.take("q", extract::any).map(|text| text.to_ascii_lowercase());
    let paging = Paging::<KafkaTopicSort>::take(&mut params, 1);
    params.finish()?;

    let topics = topics(&state).await?;
    let is_wanted = |topic: &&KafkaTopic| name_contains.as_ref().is_none_or(|text| topic.name.to_ascii_lowercase().contains(text.as_str()));
    let (page, next) = paging.page(topics.iter().filter(is_wanted), sort_key, |topic| [Key::text(&topic.name)]);
    let body = match form {
        Form::Json => document::json(&KafkaTopicList { items: page.into_iter().cloned().collect(), next, scope: Scope::Instance })?,
        Form::Text => table(&page, next.as_deref()).into_bytes(),
    };
    Ok(document::answer(form, body))
}

async fn topics(state: &Shared) -> Result<Vec<KafkaTopic>, ApiError> {
    let detail = match tokio::time::timeout(KAFKA_TIMEOUT, state.outlook.kafka_topics()).await {
        Ok(Ok(topics)) => return Ok(topics),
        Ok(Err(error)) => text::bounded(&error, 300),
        Err(_) => format!("Kafka did not answer within {} s", KAFKA_TIMEOUT.as_secs()),
    };
    Err(ApiError::new(ProblemCode::KafkaUnavailable, detail))
}

fn table(topics: &[&KafkaTopic], next: Option<&str>) -> String {
    let mut table = Table::new(&["NAME", "PARTITIONS"]);
    for topic in topics {
        table.row([topic.name.clone(), topic.partitions.to_string()]);
    }
    document::table_with_next(&table, next)
}
