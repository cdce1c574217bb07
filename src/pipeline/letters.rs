//! Dead letters from records and the reasons they died of. Pure: time is a parameter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::dead_letters::{Cause, DeadLetter, LetterError};
use crate::kafka::chunk::Record;
use crate::sink::Rejection;
use crate::topic::{Facts, TopicPartition, document_id};

/// Why one record is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) cause: Cause,
    pub(super) error: LetterError,
}

impl Death {
    /// A death without a server's answer: the error's type is the cause.
    pub(super) fn own(cause: Cause, reason: String) -> Self {
        Self { cause, error: LetterError { kind: cause.as_str().to_owned(), reason, status: None } }
    }

    /// The server refused the document for good. A server need not say more than a status: Elasticsearch's 413 has no body.
    pub(super) fn refused(rejection: &Rejection) -> Self {
        let cause = if rejection.too_large { Cause::TooLarge } else { Cause::Rejected };
        let Rejection { error_type, reason, status, .. } = rejection;
        let kind = if error_type.is_empty() { cause.as_str() } else { error_type };
        let reason = match status {
            Some(status) if reason.is_empty() => format!("the server refused the document with status {status} and gave no reason"),
            _ => reason.clone(),
        };
        Self { cause, error: LetterError { kind: kind.to_owned(), reason, status: *status } }
    }
}

/// The letter of one record.
pub(super) fn letter(key: &TopicPartition, facts: &Facts, record: &Record<'_>, index: &str, death: Death, now: Timestamp) -> DeadLetter {
    DeadLetter {
        id: document_id(&facts.id_base, key.partition, record.offset),
        topic: key.topic.clone(),
        topic_id: facts.topic_id.clone(),
        partition: key.partition,
        offset: record.offset,
        timestamp: record.timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        index: index.to_owned(),
        key_base64: record.key.map(|bytes| STANDARD.encode(bytes)),
        payload_base64: record.value.map(|bytes| STANDARD.encode(bytes)),
        payload_bytes: record.value.map_or(0, |bytes| bytes.len() as u64),
        truncated: false,
        error: death.error,
        cause: death.cause,
        attempts: 1,
        first_at: now,
        last_at: now,
        redriven_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_words_is_a_letter_with_some() {
        let silent = Rejection { item: 0, too_large: true, error_type: String::new(), reason: String::new(), status: Some(413) };
        let LetterError { kind, reason, status } = Death::refused(&silent).error;
        assert_eq!((kind.as_str(), status), ("too_large", Some(413)));
        assert!(reason.contains("413"), "{reason}");
        let told = Rejection { error_type: "mapper_exception".to_owned(), reason: "why".to_owned(), too_large: false, ..silent };
        assert_eq!(Death::refused(&told).error, LetterError { kind: "mapper_exception".to_owned(), reason: "why".to_owned(), status: Some(413) });
    }
}
