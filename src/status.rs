//! What an operator sees: states, health, reasons, exits, and the snapshot that the API, the page and the metrics read.
//!
//! Guarantees that a task's and a topic's state and health are derived in one place ([`mod@derive`]) from plain values, that what happened is read off two snapshots in one place
//! ([`events`]), and that a [`Snapshot`] never changes once published. Owns the wire form of the OpenAPI document's read side. Has no clock, no locks, no async: time is a parameter.

pub mod derive;
pub mod events;
pub mod rate;
pub mod series;
mod types;
pub mod versions;

pub use types::*;

/// Times on the wire: RFC 3339 UTC with milliseconds.
pub mod time_text {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a time.
    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{time:.3}"))
    }

    /// Reads a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }

    /// Times that may be unknown.
    pub mod option {
        use jiff::Timestamp;
        use serde::{Deserialize, Deserializer, Serializer};

        /// Writes a time or `null`.
        pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        /// Reads a time or `null`.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
        }
    }
}
