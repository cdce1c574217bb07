//! Events: what happened, newest first.
//!
//! Guarantees that following `next` shows every event that is still kept exactly once while new ones come in. A cursor of an earlier run of the process is honest about it: nothing of
//! that run is left, so its page is empty.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{self, Params};
use super::list::{self, Key, Scope};
use super::problem::{ApiError, problems};
use super::text::{self, Form, Table};
use super::{ProblemCode, Shared, document};
use crate::status::events::{Event, EventKind, EventLog, Severity};
use crate::topic::TopicName;

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventList {
    /// The events, newest first.
    items: Vec<Event>,
    /// The cursor of the next page; `null` on the last.
    next: Option<String>,
    /// Whose view this is.
    scope: Scope,
}

/// The query of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documented here, read by `EventsQuery::parse`")]
struct EventsParameters {
    /// Only this topic's
    topic: Option<TopicName>,
    /// Only events of this kind
    kind: Option<EventKind>,
    /// Only events of this severity
    severity: Option<Severity>,
    /// Only events at this time or later
    since: Option<Timestamp>,
    /// Rows of a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u16>,
    /// `next` of the page before; filters must stay the same
    cursor: Option<String>,
}

struct EventsQuery {
    topic: Option<TopicName>,
    kind: Option<EventKind>,
    severity: Option<Severity>,
    since: Option<Timestamp>,
    limit: usize,
    /// Epoch and number of the last event of the page before.
    after: Option<(String, u64)>,
    fingerprint: String,
}

impl EventsQuery {
    fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let mut params = Params::of(uri, "events")?;
        let fingerprint = params.fingerprint().to_owned();
        let query = Self {
            topic: params.take("topic", extract::topic),
            kind: params.take("kind", |text| extract::one_of(&EventKind::ALL, EventKind::as_str, text)),
            severity: params.take("severity", |text| extract::one_of(&Severity::ALL, Severity::as_str, text)),
            since: params.take("since", extract::time),
            limit: params.limit(),
            after: None,
            fingerprint,
        };
        let after = list::take_cursor(&mut params, 2);
        params.finish()?;
        let after = after.map(place).transpose()?;
        Ok(Self { after, ..query })
    }

    fn matches(&self, event: &Event) -> bool {
        self.topic.as_ref().is_none_or(|topic| event.topic.as_ref() == Some(topic))
            && self.kind.is_none_or(|kind| event.kind == kind)
            && self.severity.is_none_or(|severity| event.severity == severity)
            && self.since.is_none_or(|since| event.at >= since)
    }

    /// The page, and the cursor of the next one.
    fn page<'a>(&self, log: &'a EventLog) -> (Vec<&'a Event>, Option<String>) {
        let below = match &self.after {
            None => u64::MAX,
            Some((epoch, seq)) if epoch == log.epoch() => *seq,
            Some(_) => 0,
        };
        let newest_first = log.events().iter().rev().map(|event| &**event);
        let mut matching = newest_first.filter(|event| event.seq < below && self.matches(event));
        let page: Vec<&Event> = matching.by_ref().take(self.limit).collect();
        let has_more = matching.next().is_some();
        let last = if has_more { page.last() } else { None };
        let next = last.map(|event| list::cursor(&self.fingerprint, vec![Key::text(log.epoch()), Key::count(event.seq)]));
        (page, next)
    }
}

/// The place that a cursor's keys name.
fn place(keys: Vec<Key<'_>>) -> Result<(String, u64), ApiError> {
    let place = match keys.as_slice() {
        [Key::Text(epoch), Key::Number(seq)] => u64::try_from(*seq).ok().map(|seq| (epoch.to_string(), seq)),
        _ => None,
    };
    place.ok_or_else(|| ApiError::at(ProblemCode::InvalidRequest, "/query/cursor", "it is not a cursor of this list"))
}

problems!(ListProblems: InvalidRequest NotAcceptable MisdirectedRequest Internal);

/// Lists the events
///
/// What happened, newest first: the newest 1,000 of the running process. More than 100 events of one kind at one moment are one. With `Accept: text/plain` the answer is a table for
/// people.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    params(EventsParameters),
    responses(
        (status = 200, description = "A page of events", headers(("x-request-id" = String, description = "The request's id")),
            content((EventList = "application/json"), (String = "text/plain"))),
        ListProblems,
    ),
)]
pub(super) async fn list_events(State(state): State<Shared>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = text::negotiate(&headers, &[Form::Json, Form::Text])?;
    let query = EventsQuery::parse(&uri)?;
    let snapshot = state.now();
    let (page, next) = query.page(&snapshot.events);
    let body = match form {
        Form::Json => document::json(&EventList { items: page.into_iter().cloned().collect(), next, scope: Scope::Instance })?,
        Form::Text => table(&page, next.as_deref()).into_bytes(),
    };
    Ok(document::answer(form, body))
}

fn table(events: &[&Event], next: Option<&str>) -> String {
    let mut table = Table::new(&["AT", "SEVERITY", "KIND", "TOPIC", "PARTITION", "MESSAGE"]);
    for event in events {
        table.row([
            format!("{:.0}", event.at),
            event.severity.as_str().to_owned(),
            event.kind.as_str().to_owned(),
            text::cell(event.topic.as_ref()),
            text::cell(event.partition),
            event.message.clone(),
        ]);
    }
    document::table_with_next(&table, next)
}
