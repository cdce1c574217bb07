//! librdkafka's configuration, and its events as plain values.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tracing::{debug, info, warn};

use crate::config::KafkaConfig;
use crate::status::ReasonCode;

/// What librdkafka may fetch of one partition in one request. 256 KiB to 1 MiB cost the same CPU; larger ones only memory.
const FETCH_PARTITION_BYTES: u32 = 1 << 20;

/// Partitions that one question to the brokers is about. librdkafka looks for each partition of an answer in the whole list that was asked for, one after the other
/// (`rd_kafka_topic_partition_list_find`): ten thousand at once cost most of a second of a processor, 40 times 250 cost a fortieth of that.
pub(super) const ASKED_AT_ONCE: usize = 250;

/// Settings that every client of ours shares. Never log it: it holds secrets.
pub(super) fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", config.brokers.join(","))
        .set("client.id", "drover")
        // A typo in the list must not create a topic.
        .set("allow.auto.create.topics", "false")
        // An idle connection that the broker closed is no error.
        .set("log.connection.close", "false")
        .set("reconnect.backoff.max.ms", "5000");
    for (name, value) in &config.properties {
        client.set(name, value.expose());
    }
    client
}

/// Whether the group follows the newer protocol, in which the broker assigns.
pub(super) fn is_kip_848(config: &KafkaConfig) -> bool {
    config.properties.get("group.protocol").is_some_and(|value| value.expose() == "consumer")
}

/// The group member's settings.
pub(super) fn consumer(config: &KafkaConfig, prefetch_bytes: u64) -> ClientConfig {
    let mut client = base(config);
    let is_set = |name: &str| config.properties.contains_key(name);
    if !is_kip_848(config) {
        client.set("partition.assignment.strategy", "cooperative-sticky");
    }
    if !is_set("queued.max.messages.kbytes") {
        client.set("queued.max.messages.kbytes", (prefetch_bytes / 1024).max(64).to_string());
    }
    if !is_set("fetch.message.max.bytes") {
        client.set("fetch.message.max.bytes", FETCH_PARTITION_BYTES.to_string());
    }
    if !is_set("fetch.max.bytes") {
        // One answer of one broker; librdkafka wants it to be no smaller than one partition's share.
        client.set("fetch.max.bytes", prefetch_bytes.clamp(u64::from(FETCH_PARTITION_BYTES), 50 << 20).to_string());
    }
    if !is_set("fetch.queue.backoff.ms") {
        // With a small queue the default of a second stalls partitions for a second at a time.
        client.set("fetch.queue.backoff.ms", "1");
    }
    client
        .set("group.id", &config.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Where to start is our decision, and a lost range must be seen.
        .set("auto.offset.reset", "error")
        // Not even for the position past control records: a batch that contains the end of a partition moves librdkafka's own position one too far (librdkafka #4844, fixed in 2.13.2), and
        // the pause inside its next rebalance goes on from there, one record later.
        .set("enable.partition.eof", "false")
        // Else a value that a disk or a network has changed becomes a document; no cost was measured.
        .set("check.crcs", "true")
        .set("topic.metadata.refresh.interval.ms", "15000");
    client
}

/// What happened to the assignment, in the order of the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupEvent {
    /// These partitions are ours from now on; they must be assigned.
    Assign(Vec<(String, i32)>),
    /// These partitions must be given back.
    Revoke(Vec<(String, i32)>),
}

/// Gathers events while the consumer polls; the thread takes them right after. librdkafka waits with the rebalance until assign or unassign is called, which need not happen inside the callback.
#[derive(Default)]
pub(super) struct Events {
    group: Mutex<Vec<GroupEvent>>,
    failure: LastFailure,
    closing: AtomicBool,
}

impl Events {
    pub(super) fn take_group(&self) -> Vec<GroupEvent> {
        std::mem::take(&mut *self.group.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What librdkafka said of its last broken connection.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.failure.get()
    }

    /// The connections work again: how an earlier one broke explains nothing any more.
    pub(super) fn forget_failure(&self) {
        self.failure.forget();
    }

    /// From now on partitions are given back without asking: the consumer is being closed.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// The text of the last broken connection: the errors that follow from it ("all brokers are down") do not say why.
#[derive(Default)]
pub(super) struct LastFailure {
    text: Mutex<Option<String>>,
}

impl LastFailure {
    /// Takes a line of librdkafka's log into account.
    pub(super) fn hear(&self, facility: &str, message: &str) {
        if facility == "FAIL" {
            // The line begins with the thread's name in brackets.
            let text = message.split_once("]: ").map_or(message, |(_, text)| text);
            *self.text.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
        }
    }

    pub(super) fn get(&self) -> Option<String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.failure.hear(facility, message);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                warn!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Debug => debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Errors come back from polling too, where they are handled.
        debug!(error = %error, reason, "librdkafka reports an error");
    }
}

impl ConsumerContext for Events {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let list = partitions.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        let is_assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            if !is_assign && let Err(error) = consumer.incremental_unassign(partitions) {
                debug!(error = %error, "partitions could not be given back while closing");
            }
            return;
        }
        let event = if is_assign { GroupEvent::Assign(list) } else { GroupEvent::Revoke(list) };
        self.group.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// The text of an error that ends the client for good, with what helps where that is known.
pub(super) fn fatal_text(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId => {
            format!("{code}: another process uses the same group.instance.id; give each its own")
        }
        _ => code.to_string(),
    }
}

/// What an error of one partition says about it, so that asking again at once is of no use: the reason's code and the remedy; `None` for errors after which the partition is simply read again.
pub(super) fn obstacle(code: RDKafkaErrorCode) -> Option<(ReasonCode, &'static str)> {
    use RDKafkaErrorCode as Code;
    match code {
        // A checksum or a compressed batch that is wrong, a format that nobody knows; or the broker itself cannot make sense of its log.
        Code::BadMessage
        | Code::BadCompression
        | Code::NotImplemented
        | Code::InvalidMessage
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::MessageSizeTooLarge
        | Code::Unknown => Some((
            ReasonCode::NoProgress,
            "repair the broker's log, or let another replica lead the partition: it goes on by itself; or rewind the partition past the batch",
        )),
        Code::TopicAuthorizationFailed => Some((ReasonCode::TopicForbidden, "allow drover's user to read the topic: it goes on by itself")),
        _ => None,
    }
}

/// What a broker says of a log that is not the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truncation {
    /// By the history that was read, the log ends here.
    At(i64),
    /// The log has no record of that leader or an earlier one, as when the topic was created anew.
    UnknownEpoch,
}

/// Reads what a broker says of a position whose leader epoch is not, or no longer, that of its log. It comes in librdkafka's text only (`rd_kafka_toppar_handle_OffsetForLeaderEpoch`).
pub(super) fn truncation(text: &str) -> Option<Truncation> {
    if text.starts_with("No epoch found less or equal to") {
        return Some(Truncation::UnknownEpoch);
    }
    let (_, after) = text.strip_prefix("Partition log truncation detected").and_then(|text| text.split_once("broker end offset is "))?;
    after.split(' ').next()?.parse().ok().map(Truncation::At)
}

/// The brokers do not let us in, or are not the ones that we trust.
pub(super) const REFUSED: (ReasonCode, &str) = (ReasonCode::Credentials, "check the security settings under kafka.properties");

/// Whether a connection broke because the broker refused our certificate, or missed one. By TLS 1.3 it says so after the handshake, and librdkafka then reports a broken connection like any other.
pub(super) fn is_refused_certificate(failure: &str) -> bool {
    // RFC 8446, section 6.2: from bad_certificate to certificate_unknown, unknown_ca, access_denied, certificate_required.
    const ALERTS: [&str; 8] = ["42", "43", "44", "45", "46", "48", "49", "116"];
    // OpenSSL's text, as in "sslv3 alert bad certificate: SSL alert number 42 (after 1ms in state APIVERSION_QUERY)".
    let alert = failure.split_once("SSL alert number ").and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    alert.is_some_and(|number| ALERTS.contains(&number))
}

/// What an error of librdkafka says about the state of the world: the reason's code and the remedy; `None` for errors that pass by themselves or that concern one partition.
pub(super) fn trouble(code: RDKafkaErrorCode) -> Option<(ReasonCode, &'static str)> {
    use RDKafkaErrorCode as Code;
    match code {
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut | Code::CoordinatorNotAvailable => {
            Some((ReasonCode::KafkaUnreachable, "check that the brokers run and that kafka.brokers names them"))
        }
        Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL | Code::ClusterAuthorizationFailed => Some(REFUSED),
        Code::GroupAuthorizationFailed => Some((ReasonCode::Credentials, "allow drover's user to read the consumer group kafka.group_id")),
        Code::UnsupportedFeature | Code::InconsistentGroupProtocol | Code::UnsupportedAssignor => {
            Some((ReasonCode::UnknownError, "the group has members with another protocol; use a group of its own: kafka.group_id"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_that_was_cut_off_is_read_from_the_only_place_that_tells_it() {
        // `rd_kafka_toppar_handle_OffsetForLeaderEpoch` and `rd_kafka_offset_reset` of librdkafka 2.12.1.
        let text = "Partition log truncation detected at offset 2000 (leader epoch 3): broker end offset is 1600 (offset leader epoch 3). Reset to INVALID.: Local: Partition log truncation detected (broker 1)";
        assert_eq!(truncation(text), Some(Truncation::At(1_600)));
        let text = "No epoch found less or equal to offset 2000 (leader epoch 9): broker end offset is -1 (offset leader epoch -1). Reset using configured policy.: Local: Partition log truncation detected (broker 1)";
        assert_eq!(truncation(text), Some(Truncation::UnknownEpoch));
        assert_eq!(truncation("fetch failed due to requested offset not available on the broker: Broker: Offset out of range (broker 1)"), None);
    }

    #[test]
    fn a_refused_certificate_is_no_unreachable_broker() {
        let alert = |number: u32| {
            format!("ssl://b:1/bootstrap: Receive failed: error:0A000412:SSL routines::x: SSL alert number {number} (after 1ms in state UP)")
        };
        assert!([42, 45, 46, 48, 116].into_iter().all(|number| is_refused_certificate(&alert(number))));
        // close_notify, handshake_failure (no common version or suite), internal_error.
        assert!(![0, 40, 80, 420].into_iter().any(|number| is_refused_certificate(&alert(number))));
        assert!(!is_refused_certificate("b:1/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)"));
        assert!(!is_refused_certificate("SSL alert number "));
    }

    #[test]
    fn how_a_connection_broke_is_not_told_of_the_next_outage() {
        let failure = LastFailure::default();
        failure.hear("FAIL", "[thrd:b:1/1]: b:1/1: refused");
        assert_eq!(failure.get().as_deref(), Some("b:1/1: refused"));
        failure.forget();
        assert_eq!(failure.get(), None);
    }

    #[test]
    fn a_damaged_batch_needs_repair_and_a_forbidden_topic_permission() {
        let code = |error| obstacle(error).map(|(code, _)| code);
        assert_eq!(code(RDKafkaErrorCode::BadMessage), Some(ReasonCode::NoProgress));
        assert_eq!(code(RDKafkaErrorCode::TopicAuthorizationFailed), Some(ReasonCode::TopicForbidden));
        assert_eq!(code(RDKafkaErrorCode::UnknownTopicOrPartition), None);
    }
}
