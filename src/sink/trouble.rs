//! What is wrong with the sink, gathered from what its requests met.
//!
//! Guarantees one answer at any time, the worst that holds: refused credentials, no answer, an unknown error, refusal for pressure. Owns when a trouble begins and ends: what concerns
//! every request ends with the first that gets through; what concerns one batch ends when that batch does, so that it stays visible while others
//! succeed. Does not publish, wait or count tries.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::classify::CREDENTIALS_REMEDY;
use crate::status::ReasonCode;

/// One trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: ReasonCode,
    pub(crate) message: String,
    pub(crate) since: Instant,
}

impl Trouble {
    /// What helps.
    pub(crate) fn remedy(&self) -> &'static str {
        match self.code {
            ReasonCode::Credentials => CREDENTIALS_REMEDY,
            ReasonCode::SinkUnreachable => "check that a node of the sink runs and can be reached from here; drover goes on by itself",
            ReasonCode::SinkRejecting => {
                "the server is overloaded or not ready: look at its health and thread pools; drover sends less and goes on by itself"
            }
            _ => "drover does not know this error and sends the documents again; look at the server's log; a forward rewind of the task skips them",
        }
    }

    /// From bad to less bad.
    fn rank(&self) -> u8 {
        match self.code {
            ReasonCode::Credentials => 0,
            ReasonCode::SinkUnreachable => 1,
            ReasonCode::UnknownError => 2,
            _ => 3,
        }
    }
}

/// All troubles that hold.
#[derive(Debug)]
pub(crate) struct Troubles {
    /// Refusal has to last this long before it is worth telling: servers refuse for moments under normal load.
    rejecting_after: Duration,
    /// No answer, or refused credentials.
    outage: Option<Trouble>,
    /// Whole requests are refused for pressure.
    pressure: Option<Trouble>,
    /// Batches of which items fail again and again.
    batches: BTreeMap<u64, Trouble>,
}

impl Troubles {
    pub(crate) fn new(rejecting_after: Duration) -> Self {
        Self { rejecting_after, outage: None, pressure: None, batches: BTreeMap::new() }
    }

    /// No request gets through, for this code.
    pub(crate) fn outage(&mut self, code: ReasonCode, message: String, now: Instant) {
        renew(&mut self.outage, code, message, now);
    }

    /// Requests get an answer again.
    pub(crate) fn answered(&mut self) {
        self.outage = None;
    }

    /// Requests are refused for pressure.
    pub(crate) fn pressure(&mut self, message: String, now: Instant) {
        renew(&mut self.pressure, ReasonCode::SinkRejecting, message, now);
    }

    /// A request was accepted.
    pub(crate) fn accepted(&mut self) {
        self.pressure = None;
    }

    /// Items of this batch fail.
    pub(crate) fn batch(&mut self, id: u64, code: ReasonCode, message: String, now: Instant) {
        let mut trouble = self.batches.remove(&id);
        renew(&mut trouble, code, message, now);
        self.batches.extend(trouble.map(|trouble| (id, trouble)));
    }

    /// Nothing of this batch fails any more, or the batch is gone.
    pub(crate) fn batch_ended(&mut self, id: u64) {
        self.batches.remove(&id);
    }

    /// The worst trouble that is worth telling.
    pub(crate) fn worst(&self, now: Instant) -> Option<&Trouble> {
        let all = self.outage.iter().chain(self.pressure.iter()).chain(self.batches.values());
        let worth_telling = |trouble: &&Trouble| trouble.code != ReasonCode::SinkRejecting || now >= trouble.since + self.rejecting_after;
        all.filter(worth_telling).min_by_key(|trouble| (trouble.rank(), trouble.since))
    }
}

/// The same trouble keeps its beginning.
fn renew(slot: &mut Option<Trouble>, code: ReasonCode, message: String, now: Instant) {
    let since = slot.as_ref().filter(|trouble| trouble.code == code).map_or(now, |trouble| trouble.since);
    *slot = Some(Trouble { code, message, since });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(3);

    fn code(troubles: &Troubles, now: Instant) -> Option<ReasonCode> {
        troubles.worst(now).map(|trouble| trouble.code)
    }

    #[test]
    fn a_moment_of_pressure_alarms_nobody() {
        let now = Instant::now();
        let mut troubles = Troubles::new(LATER);
        troubles.pressure("429".to_owned(), now);
        assert_eq!(code(&troubles, now), None);
        troubles.pressure("429".to_owned(), now + LATER);
        assert_eq!(code(&troubles, now + LATER), Some(ReasonCode::SinkRejecting));
        troubles.accepted();
        assert_eq!(code(&troubles, now + LATER), None);
    }

    #[test]
    fn an_unknown_error_of_one_batch_is_not_hidden_by_the_success_of_others() {
        let now = Instant::now();
        let mut troubles = Troubles::new(LATER);
        troubles.batch(1, ReasonCode::UnknownError, "odd".to_owned(), now);
        troubles.answered();
        troubles.accepted();
        assert_eq!(code(&troubles, now), Some(ReasonCode::UnknownError));
        troubles.batch_ended(1);
        assert_eq!(code(&troubles, now), None);
    }

    #[test]
    fn the_worst_trouble_is_told_and_keeps_its_beginning() {
        let now = Instant::now();
        let mut troubles = Troubles::new(LATER);
        troubles.batch(1, ReasonCode::UnknownError, "odd".to_owned(), now);
        troubles.outage(ReasonCode::SinkUnreachable, "refused".to_owned(), now);
        troubles.outage(ReasonCode::SinkUnreachable, "timeout".to_owned(), now + LATER);
        let worst = troubles.worst(now + LATER).unwrap();
        assert_eq!((worst.code, worst.message.as_str(), worst.since), (ReasonCode::SinkUnreachable, "timeout", now));
        troubles.outage(ReasonCode::Credentials, "401".to_owned(), now + LATER);
        assert_eq!(code(&troubles, now + LATER), Some(ReasonCode::Credentials));
    }
}
