//! What an error of the server means: one table for items and one for whole requests, both total.
//!
//! Guarantees that every `(status, error type, reason)` has exactly one class, and that a class which gives a document up ([`ItemClass::Poison`],
//! [`RequestClass::Poison`]) needs an error that the table knows: what it does not know is [`Unknown`](ItemClass::Unknown), which is sent again and shown, never
//! dropped. Owns the table and the remedies. Does not read answers, count attempts or wait.
//!
//! A type decides before a status does, because the numbers differ between versions (a closed index is 400 today and was 403; a flood-stage block is 429 today and was 403).
//! Where only the text tells two cases apart, the text is compared with the type that the server gives it: a reason may quote a document, and a document must
//! not be able to park an index.

use crate::mutants;
use crate::status::ReasonCode;

/// Where the work of an operator is needed: a code and what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// The reason's code.
    pub(crate) code: ReasonCode,
    /// What helps.
    pub(crate) remedy: &'static str,
}

/// What the error of one item means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemClass {
    /// The document is there.
    Settled,
    /// The server could not take it now; it is sent again.
    Retry,
    /// The server will never take it.
    Poison,
    /// It is larger than the server takes.
    TooLarge,
    /// Its index takes nothing before somebody has acted.
    Operator(Obstacle),
    /// Not in the table: it is sent again, and somebody is told.
    Unknown,
}

/// What the refusal of a whole request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// The server is under pressure or not ready.
    Retry,
    /// The body is larger than the server takes.
    TooLarge,
    /// Some item makes the server refuse all of them.
    Poison,
    /// Some index takes nothing before somebody has acted.
    Operator(Obstacle),
    /// We may not do this, whatever the items are.
    Credentials,
    /// Not in the table.
    Unknown,
}

/// What helps when the server refuses who we are or what we may do.
pub(crate) const CREDENTIALS_REMEDY: &str =
    "check the sink's username and password, api_key or client certificate, and that they may write to the index";

/// What helps against an error that the table does not know.
pub(crate) const UNKNOWN_REMEDY: &str =
    "drover does not know this error and sends the documents again; look at the server's log; a forward rewind of the task skips them";

/// What helps when something answers that is not the server.
pub(crate) const ADDRESS_REMEDY: &str =
    "check that elasticsearch.urls names Elasticsearch or OpenSearch itself (path prefix, proxy, login page); drover goes on by itself";

/// What helps when something refuses bodies that the server itself would take.
pub(crate) const BODY_LIMIT_REMEDY: &str = "something before the server refuses even small bodies: raise the body limit of the proxy (such as nginx's client_max_body_size) or the server's http.max_content_length; drover goes on by itself";

/// What helps when a whole request was refused for a reason that the table does not know. `is_page` tells whether the body was a page.
pub(crate) fn unknown_remedy(status: u16, is_page: bool) -> &'static str {
    if is_page || matches!(status, 300..=399 | 404 | 405) { ADDRESS_REMEDY } else { UNKNOWN_REMEDY }
}

const BLOCKED: Obstacle = Obstacle {
    code: ReasonCode::IndexBlocked,
    remedy: "remove the block (index.blocks.write, index.blocks.read_only), or name another index in the topic's spec; drover goes on by itself",
};
const DISK_FULL: Obstacle = Obstacle {
    code: ReasonCode::IndexBlocked,
    remedy: "free disk space on the data nodes; the flood-stage block is released below the high watermark, and drover goes on by itself",
};
const CLOSED: Obstacle = Obstacle {
    code: ReasonCode::IndexClosed,
    remedy: "open the index (POST /<index>/_open), or name another index in the topic's spec; drover goes on by itself",
};
const SHARD_LIMIT: Obstacle = Obstacle {
    code: ReasonCode::ShardLimit,
    remedy: "delete or close indices, raise cluster.max_shards_per_node, or use fewer indices in the topic's index template; drover goes on by itself",
};
const FORBIDDEN: Obstacle =
    Obstacle { code: ReasonCode::Credentials, remedy: "let drover's user write to and create this index; drover goes on by itself" };
const MISSING_INDEX: Obstacle = Obstacle {
    code: ReasonCode::IndexBlocked,
    remedy: "create the index, or allow its automatic creation (action.auto_create_index); drover goes on by itself",
};
const ILLEGAL_INDEX: Obstacle =
    Obstacle { code: ReasonCode::IndexBlocked, remedy: "change `index` in the topic's spec to a name that the server accepts" };
const NOT_WRITABLE: Obstacle =
    Obstacle { code: ReasonCode::IndexBlocked, remedy: "give the alias a write index, or name an index instead of the alias in the topic's spec" };
const DATA_STREAM: Obstacle =
    Obstacle { code: ReasonCode::IndexBlocked, remedy: "set `operation: create` in the topic's spec: a data stream takes nothing else" };
const MISSING_PIPELINE: Obstacle = Obstacle {
    code: ReasonCode::IndexBlocked,
    remedy: "create the ingest pipeline, or change `pipeline` in the topic's spec; drover goes on by itself",
};

/// Types of errors that speak about the document, at whatever status. `fail_processor_exception` and `ingest_processor_exception` come with 500 as well: an ingest pipeline
/// refused this document.
const POISON_TYPES: [&str; 19] = [
    "action_request_validation_exception",
    "array_index_out_of_bounds_exception",
    "date_time_exception",
    "date_time_parse_exception",
    "document_parsing_exception",
    "fail_processor_exception",
    "ingest_processor_exception",
    "input_coercion_exception",
    "json_parse_exception",
    "mapper_exception",
    "mapper_parsing_exception",
    "max_bytes_length_exceeded_exception",
    "number_format_exception",
    "parse_exception",
    "parsing_exception",
    "routing_missing_exception",
    "script_exception",
    "strict_dynamic_mapping_exception",
    "x_content_parse_exception",
];

/// Types of errors that pass by themselves: pressure, elections, shards that move, races at the creation of an index.
const RETRY_TYPES: [&str; 23] = [
    "already_closed_exception",
    "cluster_manager_throttling_exception",
    "circuit_breaking_exception",
    "connect_transport_exception",
    "engine_closed_exception",
    "es_rejected_execution_exception",
    "failed_to_commit_cluster_state_exception",
    "index_primary_shard_not_allocated_exception",
    "index_shard_closed_exception",
    "master_not_discovered_exception",
    "cluster_manager_not_discovered_exception",
    "no_shard_available_action_exception",
    "node_closed_exception",
    "node_disconnected_exception",
    "node_not_connected_exception",
    "not_master_exception",
    "process_cluster_event_timeout_exception",
    "receive_timeout_transport_exception",
    "rejected_execution_exception",
    "resource_already_exists_exception",
    "shard_not_found_exception",
    "timeout_exception",
    "unavailable_shards_exception",
];

/// The class of an item's error. `create` tells whether the item's operation was `create`.
pub(crate) fn item(status: u16, error_type: &str, reason: &str, create: bool) -> ItemClass {
    if (200..300).contains(&status) {
        // Only items with an error come here, and a success has none: which half of that is true, nobody knows.
        return ItemClass::Unknown;
    }
    if status == 403 && mutants::is_on(mutants::FORBIDDEN_SKIPPED) {
        return ItemClass::Settled;
    }
    if error_type == "version_conflict_engine_exception" {
        // Our ids are our own: what is there under one of them is this document. Other operations of ours carry no version that could conflict.
        return if create && status == 409 { ItemClass::Settled } else { ItemClass::Unknown };
    }
    if let Some(obstacle) = obstacle(status, error_type, reason) {
        return ItemClass::Operator(obstacle);
    }
    if RETRY_TYPES.contains(&error_type) {
        return ItemClass::Retry;
    }
    if POISON_TYPES.contains(&error_type) {
        return ItemClass::Poison;
    }
    match (status, error_type) {
        (413, _) => ItemClass::TooLarge,
        // Field limits, immense terms, changed mappings, timestamps outside a time series' range: what is left of this type is about the document.
        (400, "illegal_argument_exception") => ItemClass::Poison,
        (408 | 429 | 502..=504, _) => ItemClass::Retry,
        _ => ItemClass::Unknown,
    }
}

/// The class of a refused request. `error_type` is empty when the answer has no error that can be read, as a proxy's page.
pub(crate) fn request(status: u16, error_type: &str, reason: &str) -> RequestClass {
    match (status, error_type) {
        (413, _) => return RequestClass::TooLarge,
        (401, _) => return RequestClass::Credentials,
        // A block of the whole cluster: all indices alike, so there is none to park.
        (_, "cluster_block_exception") => return RequestClass::Retry,
        (403, "" | "security_exception" | "authorization_exception") => return RequestClass::Credentials,
        (408 | 429 | 502..=504, _) => return RequestClass::Retry,
        _ => {}
    }
    if speaks_about_the_request(reason) {
        return RequestClass::Unknown;
    }
    if let Some(obstacle) = obstacle(status, error_type, reason) {
        return RequestClass::Operator(obstacle);
    }
    if RETRY_TYPES.contains(&error_type) {
        return RequestClass::Retry;
    }
    match status {
        403 => RequestClass::Credentials,
        400 if POISON_TYPES.contains(&error_type) || error_type == "illegal_argument_exception" => RequestClass::Poison,
        _ => RequestClass::Unknown,
    }
}

/// What an operator has to remove, if this is such an error.
fn obstacle(status: u16, error_type: &str, reason: &str) -> Option<Obstacle> {
    match error_type {
        "index_closed_exception" => Some(CLOSED),
        "index_not_found_exception" => Some(MISSING_INDEX),
        "invalid_index_name_exception" => Some(ILLEGAL_INDEX),
        "security_exception" | "authorization_exception" => Some(FORBIDDEN),
        "cluster_block_exception" | "index_create_block_exception" => block(status, reason),
        "illegal_argument_exception" | "validation_exception" => misconfiguration(reason),
        _ => None,
    }
}

/// Blocks that stay until somebody acts; one that says "service unavailable" is a cluster that starts or elects.
fn block(status: u16, reason: &str) -> Option<Obstacle> {
    if reason.contains("flood-stage") || reason.contains("TOO_MANY_REQUESTS") {
        return Some(DISK_FULL);
    }
    if reason.contains("index closed") {
        return Some(CLOSED);
    }
    (status != 503).then_some(BLOCKED)
}

/// Errors of these catch-all types that no other document of the index would escape.
fn misconfiguration(reason: &str) -> Option<Obstacle> {
    let shards =
        reason.starts_with("Validation Failed") && reason.contains("this action would add [") || reason.starts_with("this action would add [");
    if shards {
        return Some(SHARD_LIMIT);
    }
    if reason.starts_with("pipeline with id [") {
        return Some(MISSING_PIPELINE);
    }
    if reason.starts_with("only write ops with an op_type of create are allowed in data streams") {
        return Some(DATA_STREAM);
    }
    let alias =
        reason.starts_with("no write index is defined for alias [") || (reason.starts_with("Alias [") && reason.contains("more than one ind"));
    alias.then_some(NOT_WRITABLE)
}

/// Refusals of the request as such: an unknown parameter or a media type, where no item can be the culprit and a search for one would condemn them all.
fn speaks_about_the_request(reason: &str) -> bool {
    reason.contains("unrecognized parameter") || reason.contains("Content-Type header") || reason.starts_with("Failed to parse content-type")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn operator(code: ReasonCode) -> impl Fn(ItemClass) -> bool {
        move |class| matches!(class, ItemClass::Operator(obstacle) if obstacle.code == code)
    }

    /// An item's row: name, status, type, reason, class.
    type ItemRow = (&'static str, u16, &'static str, &'static str, ItemClass);
    /// A request's row.
    type RequestRow = (&'static str, u16, &'static str, &'static str, RequestClass);

    const FLOOD: &str =
        "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];";
    const SHARDS: &str =
        "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;";
    const SHARDS_BEFORE_8: &str =
        "Validation Failed: 1: this action would add [2] total shards, but this cluster currently has [1000]/[1000] maximum shards open;";

    /// One row for each line of the table of response classes (`sink::elasticsearch`), operation `index`.
    const ITEM_ROWS: &[ItemRow] = &[
        ("mapping conflict, before 8", 400, "mapper_parsing_exception", "failed to parse field [n]", ItemClass::Poison),
        ("mapping conflict", 400, "document_parsing_exception", "[1:6] failed to parse", ItemClass::Poison),
        ("strict mapping", 400, "strict_dynamic_mapping_exception", "mapping set to strict", ItemClass::Poison),
        ("ingest pipeline refuses", 500, "fail_processor_exception", "no", ItemClass::Poison),
        ("field limit", 400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", ItemClass::Poison),
        ("field limit, wrapped", 400, "mapper_parsing_exception", "Limit of total fields [1000] has been exceeded", ItemClass::Poison),
        ("immense term", 400, "illegal_argument_exception", "Document contains at least one immense term in field=\"k\"", ItemClass::Poison),
        ("shard limit", 400, "validation_exception", SHARDS, ItemClass::Operator(SHARD_LIMIT)),
        ("shard limit, other type", 400, "illegal_argument_exception", SHARDS, ItemClass::Operator(SHARD_LIMIT)),
        ("shard limit, old words", 400, "illegal_argument_exception", SHARDS_BEFORE_8, ItemClass::Operator(SHARD_LIMIT)),
        ("closed index", 400, "index_closed_exception", "closed", ItemClass::Operator(CLOSED)),
        ("closed index, before 6", 403, "index_closed_exception", "closed", ItemClass::Operator(CLOSED)),
        ("write block", 403, "cluster_block_exception", "blocked by: [FORBIDDEN/8/index write (api)];", ItemClass::Operator(BLOCKED)),
        ("read-only block", 403, "cluster_block_exception", "blocked by: [FORBIDDEN/5/index read-only (api)];", ItemClass::Operator(BLOCKED)),
        (
            "create-index block",
            403,
            "index_create_block_exception",
            "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];",
            ItemClass::Operator(BLOCKED),
        ),
        ("flood stage", 429, "cluster_block_exception", FLOOD, ItemClass::Operator(DISK_FULL)),
        (
            "cluster starts",
            503,
            "cluster_block_exception",
            "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered / initialized];",
            ItemClass::Retry,
        ),
        ("queue full", 429, "es_rejected_execution_exception", "queue capacity", ItemClass::Retry),
        ("queue full, OpenSearch", 429, "rejected_execution_exception", "queue capacity", ItemClass::Retry),
        ("circuit breaker", 429, "circuit_breaking_exception", "[parent] Data too large", ItemClass::Retry),
        ("shards unavailable", 503, "unavailable_shards_exception", "primary shard is not active", ItemClass::Retry),
        ("no master", 503, "master_not_discovered_exception", "", ItemClass::Retry),
        ("index missing", 404, "index_not_found_exception", "no such index [a]", ItemClass::Operator(MISSING_INDEX)),
        ("index name illegal", 400, "invalid_index_name_exception", "Invalid index name [A]", ItemClass::Operator(ILLEGAL_INDEX)),
        ("no right", 403, "security_exception", "unauthorized", ItemClass::Operator(FORBIDDEN)),
        ("pipeline missing", 400, "illegal_argument_exception", "pipeline with id [p] does not exist", ItemClass::Operator(MISSING_PIPELINE)),
        ("too large alone", 413, "", "", ItemClass::TooLarge),
        ("conflict of an operation without a version", 409, "version_conflict_engine_exception", "higher", ItemClass::Unknown),
        ("conflict with another status", 400, "version_conflict_engine_exception", "document already exists", ItemClass::Unknown),
        ("success with an error", 200, "", "odd", ItemClass::Unknown),
        ("success with a known error", 201, "mapper_parsing_exception", "x", ItemClass::Unknown),
        ("never seen", 400, "quantum_flux_exception", "x", ItemClass::Unknown),
        ("never seen, 500", 500, "null_pointer_exception", "", ItemClass::Unknown),
        ("no type", 400, "", "MapperParsingException[failed]", ItemClass::Unknown),
    ];

    const REQUEST_ROWS: &[RequestRow] = &[
        ("one bad item poisons all", 400, "action_request_validation_exception", "id is too long", RequestClass::Poison),
        ("malformed line", 400, "illegal_argument_exception", "Malformed action/metadata line [3]", RequestClass::Poison),
        ("never seen", 400, "quantum_flux_exception", "x", RequestClass::Unknown),
        ("a page", 400, "", "<html>", RequestClass::Unknown),
        ("no credentials", 401, "security_exception", "missing authentication credentials", RequestClass::Credentials),
        ("no credentials, of a proxy", 401, "", "Unauthorized", RequestClass::Credentials),
        ("no right", 403, "security_exception", "unauthorized", RequestClass::Credentials),
        ("no right, OpenSearch", 403, "authorization_exception", "no permissions", RequestClass::Credentials),
        ("index missing", 404, "index_not_found_exception", "no such index [a]", RequestClass::Operator(MISSING_INDEX)),
        ("wrong address", 404, "", "404 page not found", RequestClass::Unknown),
        ("too large", 413, "", "<html>", RequestClass::TooLarge),
        ("pressure", 429, "es_rejected_execution_exception", "rejected", RequestClass::Retry),
        ("circuit breaker", 429, "circuit_breaking_exception", "Data too large", RequestClass::Retry),
        ("unknown outcome", 500, "null_pointer_exception", "", RequestClass::Unknown),
        ("bad gateway", 502, "", "<html>", RequestClass::Retry),
        ("no master", 503, "master_not_discovered_exception", "", RequestClass::Retry),
        ("cluster starts", 503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered];", RequestClass::Retry),
        ("gateway timeout", 504, "", "", RequestClass::Retry),
        ("redirect", 302, "", "", RequestClass::Unknown),
    ];

    #[test]
    fn every_row_of_the_table_of_classes_holds() {
        for (name, status, error_type, reason, class) in ITEM_ROWS {
            assert_eq!(item(*status, error_type, reason, false), *class, "{name}");
        }
        assert_eq!(item(409, "version_conflict_engine_exception", "document already exists", true), ItemClass::Settled, "our own, created before");
        for (name, status, error_type, reason, class) in REQUEST_ROWS {
            assert_eq!(request(*status, error_type, reason), *class, "{name}");
        }
    }

    #[test]
    fn a_document_that_no_try_will_save_is_poison() {
        for error_type in POISON_TYPES {
            assert_eq!(item(400, error_type, "x", false), ItemClass::Poison, "{error_type}");
        }
        assert_eq!(item(500, "fail_processor_exception", "no", false), ItemClass::Poison);
        assert_eq!(item(400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", false), ItemClass::Poison);
        assert_eq!(item(413, "", "", false), ItemClass::TooLarge);
    }

    #[test]
    fn pressure_is_not_a_dead_letter() {
        for error_type in RETRY_TYPES {
            assert_eq!(item(503, error_type, "x", true), ItemClass::Retry, "{error_type}");
            assert_eq!(item(500, error_type, "x", false), ItemClass::Retry, "{error_type}");
        }
        for status in [408, 429, 502, 503, 504] {
            assert_eq!(item(status, "something_new_exception", "x", false), ItemClass::Retry, "{status}");
            assert_eq!(request(status, "", "<html>"), RequestClass::Retry, "{status}");
        }
        assert_eq!(item(400, "resource_already_exists_exception", "index [a/b] already exists", false), ItemClass::Retry);
    }

    #[test]
    fn a_closed_index_is_not_a_dead_letter() {
        let closed = operator(ReasonCode::IndexClosed);
        assert!(closed(item(400, "index_closed_exception", "closed", false)));
        assert!(closed(item(403, "index_closed_exception", "closed", true)));
        assert!(closed(item(403, "cluster_block_exception", "index [a] blocked by: [FORBIDDEN/4/index closed];", false)));
    }

    #[test]
    fn a_blocked_full_or_forbidden_index_is_parked() {
        let blocked = operator(ReasonCode::IndexBlocked);
        assert!(blocked(item(403, "cluster_block_exception", "index [a] blocked by: [FORBIDDEN/8/index write (api)];", false)));
        let flood = "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];";
        assert_eq!(item(429, "cluster_block_exception", flood, false), ItemClass::Operator(DISK_FULL));
        assert_eq!(item(403, "cluster_block_exception", flood, false), ItemClass::Operator(DISK_FULL));
        assert!(blocked(item(404, "index_not_found_exception", "no such index [a]", false)));
        assert!(blocked(item(400, "invalid_index_name_exception", "Invalid index name [A]", false)));
        assert!(operator(ReasonCode::Credentials)(item(403, "security_exception", "action [indices:data/write/bulk[s]] is unauthorized", false)));
        let starting = "blocked by: [SERVICE_UNAVAILABLE/1/state not recovered / initialized];";
        assert_eq!(item(503, "cluster_block_exception", starting, false), ItemClass::Retry);
    }

    #[test]
    fn what_is_wrong_with_the_index_is_not_blamed_on_its_documents() {
        let shards =
            "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;";
        for error_type in ["illegal_argument_exception", "validation_exception"] {
            assert!(operator(ReasonCode::ShardLimit)(item(400, error_type, shards, false)), "{error_type}");
        }
        assert_eq!(item(400, "illegal_argument_exception", "pipeline with id [p] does not exist", false), ItemClass::Operator(MISSING_PIPELINE));
        let stream = "only write ops with an op_type of create are allowed in data streams";
        assert_eq!(item(400, "illegal_argument_exception", stream, false), ItemClass::Operator(DATA_STREAM));
        let alias = "no write index is defined for alias [a]. The write index may be explicitly disabled";
        assert_eq!(item(400, "illegal_argument_exception", alias, false), ItemClass::Operator(NOT_WRITABLE));
    }

    #[test]
    fn a_document_that_quotes_an_operators_error_does_not_park_its_index() {
        let quoting = "failed to parse field [n]. Preview of field's value: 'Validation Failed: 1: this action would add [2] shards'";
        assert_eq!(item(400, "document_parsing_exception", quoting, false), ItemClass::Poison);
        assert_eq!(item(400, "illegal_argument_exception", quoting, false), ItemClass::Poison);
    }

    #[test]
    fn our_own_document_that_is_already_there_is_settled() {
        assert_eq!(item(409, "version_conflict_engine_exception", "document already exists", true), ItemClass::Settled);
        assert_eq!(item(409, "version_conflict_engine_exception", "current version is higher", false), ItemClass::Unknown);
    }

    #[test]
    fn an_error_that_nobody_knows_is_never_given_up() {
        assert_eq!(item(400, "something_new_exception", "x", false), ItemClass::Unknown);
        assert_eq!(item(500, "null_pointer_exception", "", false), ItemClass::Unknown);
        assert_eq!(item(200, "something_new_exception", "x", false), ItemClass::Unknown);
        assert_eq!(request(400, "", "<html>bad request</html>"), RequestClass::Unknown);
        assert_eq!(request(400, "something_new_exception", "x"), RequestClass::Unknown);
        assert_eq!(request(500, "null_pointer_exception", ""), RequestClass::Unknown);
        assert_eq!(request(404, "", "not found"), RequestClass::Unknown);
        assert_eq!(request(302, "", ""), RequestClass::Unknown);
    }

    #[test]
    fn a_refused_request_is_searched_for_a_culprit_only_when_an_item_can_be_it() {
        assert_eq!(request(400, "action_request_validation_exception", "id is too long"), RequestClass::Poison);
        assert_eq!(request(400, "illegal_argument_exception", "Malformed action/metadata line [1]"), RequestClass::Poison);
        assert_eq!(request(413, "", "too large"), RequestClass::TooLarge);
        let parameter = "request [/_bulk] contains unrecognized parameter: [filter_path]";
        assert_eq!(request(400, "illegal_argument_exception", parameter), RequestClass::Unknown);
    }

    #[test]
    fn refused_credentials_park_nothing_and_condemn_nothing() {
        assert_eq!(request(401, "security_exception", "missing authentication credentials"), RequestClass::Credentials);
        assert_eq!(request(403, "security_exception", "unauthorized"), RequestClass::Credentials);
        assert_eq!(request(403, "", "<html>forbidden</html>"), RequestClass::Credentials);
        assert_eq!(request(403, "cluster_block_exception", "blocked by: [FORBIDDEN/6/cluster read-only (api)];"), RequestClass::Retry);
        assert!(matches!(request(404, "index_not_found_exception", "no such index [a]"), RequestClass::Operator(_)));
    }

    proptest! {
        #[test]
        fn only_known_errors_give_a_document_up(status in 100u16..600, error_type in "[a-z_]{0,30}", reason in ".{0,60}", create: bool) {
            let known = POISON_TYPES.contains(&error_type.as_str()) || error_type == "illegal_argument_exception";
            if !known {
                prop_assert_ne!(item(status, &error_type, &reason, create), ItemClass::Poison);
                prop_assert_ne!(request(status, &error_type, &reason), RequestClass::Poison);
            }
            if !error_type.is_empty() && error_type != "version_conflict_engine_exception" {
                prop_assert_ne!(item(status, &error_type, &reason, create), ItemClass::Settled);
            }
        }

        #[test]
        fn a_refusal_of_the_request_itself_condemns_no_item(
            known in prop::sample::select(POISON_TYPES.to_vec()),
            illegal: bool,
            complaint in prop::sample::select(vec!["request [/_bulk] contains unrecognized parameter: [x]", "Content-Type header [a/b] is not supported"]),
        ) {
            let error_type = if illegal { "illegal_argument_exception" } else { known };
            prop_assert_eq!(request(400, error_type, complaint), RequestClass::Unknown);
        }
    }
}
