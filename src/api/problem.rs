//! What every error looks like: one enum of codes, one match to statuses, one shape on the wire.
//!
//! Guarantees that a code's status is the same in the answer and in the OpenAPI document, because both come from [`ProblemCode::status`]. An [`ApiError`] becomes a response
//! without a body; `context` renders it when it knows the request's id. Details never hold a cause's text from below: that goes to the log.

use std::any::Any;
use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Object, Ref, RefOr, ResponseBuilder};

use super::{ActionError, text};

/// The media type of every problem.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// The body or the query does not parse.
    InvalidRequest,
    /// A token is missing or unknown.
    Unauthorized,
    /// The request is understood and not allowed.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// No form that the client accepts exists.
    NotAcceptable,
    /// The topic is named by other sources only, or, where it must be managed, by none.
    TopicNotManaged,
    /// The task is in a state in which there is nothing to restart.
    TaskNotRestartable,
    /// The dead letter's payload is not kept.
    PayloadGone,
    /// A precondition does not hold.
    PreconditionFailed,
    /// The body is larger than allowed.
    PayloadTooLarge,
    /// The body is of a type that the path does not take.
    UnsupportedMediaType,
    /// The host that was asked for is not one of ours.
    MisdirectedRequest,
    /// The request parses and says something illegal.
    ValidationFailed,
    /// Too many requests.
    RateLimited,
    /// The request's head is longer than allowed, or has too many headers.
    RequestHeaderFieldsTooLarge,
    /// A defect of drover.
    Internal,
    /// The store does not answer.
    StoreUnavailable,
    /// The store went back in time and waits for a confirmation.
    StoreStale,
    /// Kafka does not answer.
    KafkaUnavailable,
    /// The instance that has the task does not answer.
    InstanceUnreachable,
    /// The instance shuts down.
    ShuttingDown,
    /// Whether the change was made is not known.
    OutcomeUnknown,
}

impl ProblemCode {
    /// Every code.
    pub const ALL: [Self; 23] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::TopicNotManaged,
        Self::TaskNotRestartable,
        Self::PayloadGone,
        Self::PreconditionFailed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::MisdirectedRequest,
        Self::ValidationFailed,
        Self::RateLimited,
        Self::RequestHeaderFieldsTooLarge,
        Self::Internal,
        Self::StoreUnavailable,
        Self::StoreStale,
        Self::KafkaUnavailable,
        Self::InstanceUnreachable,
        Self::ShuttingDown,
        Self::OutcomeUnknown,
    ];

    /// The HTTP status of the code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::TopicNotManaged | Self::TaskNotRestartable | Self::PayloadGone => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::ValidationFailed => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::RequestHeaderFieldsTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::StoreUnavailable | Self::StoreStale | Self::KafkaUnavailable | Self::InstanceUnreachable | Self::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotAcceptable => "not-acceptable",
            Self::TopicNotManaged => "topic-not-managed",
            Self::TaskNotRestartable => "task-not-restartable",
            Self::PayloadGone => "payload-gone",
            Self::PreconditionFailed => "precondition-failed",
            Self::PayloadTooLarge => "payload-too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::MisdirectedRequest => "misdirected-request",
            Self::ValidationFailed => "validation-failed",
            Self::RateLimited => "rate-limited",
            Self::RequestHeaderFieldsTooLarge => "request-header-fields-too-large",
            Self::Internal => "internal",
            Self::StoreUnavailable => "store-unavailable",
            Self::StoreStale => "store-stale",
            Self::KafkaUnavailable => "kafka-unavailable",
            Self::InstanceUnreachable => "instance-unreachable",
            Self::ShuttingDown => "shutting-down",
            Self::OutcomeUnknown => "outcome-unknown",
        }
    }

    /// A short text for people, the same for every problem of this code.
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request does not parse",
            Self::Unauthorized => "A valid token is needed",
            Self::Forbidden => "The request is not allowed",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "The path does not have this method",
            Self::NotAcceptable => "No acceptable form exists",
            Self::TopicNotManaged => "The topic is not managed here",
            Self::TaskNotRestartable => "The task cannot be restarted in its state",
            Self::PayloadGone => "The payload is not kept",
            Self::PreconditionFailed => "The precondition does not hold",
            Self::PayloadTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body's type is not supported",
            Self::MisdirectedRequest => "This host is not served here",
            Self::ValidationFailed => "The request says something illegal",
            Self::RateLimited => "Too many requests",
            Self::RequestHeaderFieldsTooLarge => "The request's head is too large",
            Self::Internal => "drover failed",
            Self::StoreUnavailable => "The store does not answer",
            Self::StoreStale => "The store waits for a confirmation",
            Self::KafkaUnavailable => "Kafka does not answer",
            Self::InstanceUnreachable => "The other instance does not answer",
            Self::ShuttingDown => "The instance shuts down",
            Self::OutcomeUnknown => "Whether it was done is not known",
        }
    }

    /// The code that stands for a status which a layer below gave without one.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::NOT_ACCEPTABLE => Self::NotAcceptable,
            StatusCode::PRECONDITION_FAILED => Self::PreconditionFailed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::MISDIRECTED_REQUEST => Self::MisdirectedRequest,
            StatusCode::UNPROCESSABLE_ENTITY => Self::ValidationFailed,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::RequestHeaderFieldsTooLarge,
            client if client.is_client_error() => Self::InvalidRequest,
            _ => Self::Internal,
        }
    }

    /// Seconds after which trying again makes sense.
    fn retry_after_seconds(self) -> Option<u32> {
        match self {
            Self::RateLimited => Some(1),
            Self::StoreUnavailable | Self::KafkaUnavailable | Self::InstanceUnreachable | Self::ShuttingDown => Some(5),
            _ => None,
        }
    }
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The place as a JSON pointer: `/query/limit`, `/path/topic`, `/header/if-match`, or a place in the body; empty for the request as a whole.
    #[schema(example = "/query/limit")]
    pub pointer: String,
    /// A stable code: `unknown`, `repeated`, `missing`, `type`, `invalid`, or a problem's code.
    #[schema(example = "invalid")]
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

/// An error as RFC 9457 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:drover:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:drover:problem:not-found")]
    pub kind: String,
    /// A short text, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time, for people.
    pub detail: String,
    /// What a program tells problems apart by.
    pub code: ProblemCode,
    /// The request's id, also in the header `x-request-id` and in the log.
    pub request_id: String,
    /// What is wrong, place by place; empty where the request as a whole is.
    pub errors: Vec<FieldError>,
}

/// An error on its way to becoming a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldError>,
}

/// Marks an error response that is meant as it is: a probe's.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotAProblem;

impl ApiError {
    pub(super) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new() }
    }

    /// An error with the places that caused it; the detail names the first.
    pub(super) fn with_errors(code: ProblemCode, errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map_or_else(|| code.title().to_owned(), |first| format!("{}: {}", first.pointer, first.detail));
        Self { code, detail, errors }
    }

    /// An error at one place.
    pub(super) fn at(code: ProblemCode, pointer: &str, detail: impl Into<String>) -> Self {
        let field_code = match code {
            ProblemCode::InvalidRequest | ProblemCode::ValidationFailed => "invalid",
            other => other.as_str(),
        };
        Self::with_errors(code, vec![FieldError { pointer: pointer.to_owned(), code: field_code.to_owned(), detail: detail.into() }])
    }

    /// Whether it is drover's or a server's, and not the request's.
    pub(super) fn is_server_error(&self) -> bool {
        self.code.status().is_server_error()
    }

    /// What is wrong, place by place; an error of the request as a whole stands at the root.
    pub(super) fn into_errors(self) -> Vec<FieldError> {
        if self.errors.is_empty() {
            return vec![FieldError { pointer: String::new(), code: self.code.as_str().to_owned(), detail: self.detail }];
        }
        self.errors
    }

    fn render(self, request_id: &str) -> Response {
        let problem = Problem {
            kind: format!("urn:drover:problem:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail,
            code: self.code,
            request_id: request_id.to_owned(),
            errors: self.errors,
        };
        // A problem is text and numbers only and always serialises; an empty body would still carry the status.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.code.status();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.code == ProblemCode::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.code.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ActionError> for ApiError {
    fn from(error: ActionError) -> Self {
        let code = match error {
            ActionError::NotFound => ProblemCode::NotFound,
            ActionError::NotRestartable(_) => ProblemCode::TaskNotRestartable,
            ActionError::ShuttingDown => ProblemCode::ShuttingDown,
            ActionError::KafkaUnavailable(_) => ProblemCode::KafkaUnavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// Turns every error response into a problem with the request's id, whoever made it; leaves the rest and the probes' own answers alone.
pub(super) fn finish(mut response: Response, request_id: &str) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.extensions().get::<NotAProblem>().is_some() {
        return response;
    }
    let error = response.extensions_mut().remove::<ApiError>().unwrap_or_else(|| {
        let code = ProblemCode::of_status(status);
        ApiError::new(code, code.title())
    });
    let mut rendered = error.render(request_id);
    for (name, value) in response.headers() {
        let describes_the_old_body = *name == header::CONTENT_TYPE || *name == header::CONTENT_LENGTH;
        if !describes_the_old_body {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

/// A handler panicked: a defect, logged with its text, answered without it.
pub(super) fn from_panic(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(message = %text::bounded(message, 500), "a request handler panicked");
    ApiError::new(ProblemCode::Internal, "the request hit a defect; the log has the details under the request's id").into_response()
}

/// The responses of these codes for the OpenAPI document; codes of one status share a response.
pub(super) fn responses(codes: &[ProblemCode]) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let mut by_status: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for code in codes {
        by_status.entry(code.status().as_u16().to_string()).or_default().push(code.as_str());
    }
    let response = |codes: Vec<&str>| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        RefOr::T(ResponseBuilder::new().description(format!("Problem `{}`", codes.join("` or `"))).content(MEDIA_TYPE, content).build())
    };
    let mut responses: BTreeMap<_, _> = by_status.into_iter().map(|(status, codes)| (status, response(codes))).collect();
    if let Some(RefOr::T(unauthorized)) = responses.get_mut("401") {
        let challenge = HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some("`Bearer`")).build();
        unauthorized.headers.insert("www-authenticate".to_owned(), RefOr::T(challenge));
    }
    responses
}

/// Declares a named set of problems that an operation can answer with.
macro_rules! problems {
    ($name:ident: $($code:ident)+) => {
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                $crate::api::problem::responses(&[$($crate::api::problem::ProblemCode::$code),+])
            }
        }
    };
}
pub(super) use problems;
