//! What is wrong with the sink, gathered from what its requests met.
//!
//! Guarantees one answer at any time, the worst that holds: refused credentials, no answer, an unknown error, refusal for pressure. Owns when a trouble begins and ends: what concerns
//! every request ends with the first that gets through; what concerns one batch ends when that batch does, so that it stays visible while others
//! succeed. Also decides which changes are worth a line in the log ([`Announcer`]). Messages are for people: one line each, bounded. Does not publish, wait or count tries.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::answer;
use super::classify::{CREDENTIALS_REMEDY, UNKNOWN_REMEDY};
use crate::status::ReasonCode;

/// One trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: ReasonCode,
    pub(crate) message: String,
    pub(crate) since: Instant,
    /// What helps.
    pub(crate) remedy: &'static str,
}

/// How often a trouble with the same code is told in the log at most.
const TELL_AGAIN: Duration = Duration::from_secs(60);

impl Trouble {
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

/// What usually helps against a trouble of this code.
fn usual_remedy(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::Credentials => CREDENTIALS_REMEDY,
        ReasonCode::SinkUnreachable => "check that a node of the sink runs and can be reached from here; drover goes on by itself",
        ReasonCode::SinkRejecting => {
            "the server is overloaded or not ready: look at its health and thread pools; drover sends less and goes on by itself"
        }
        _ => UNKNOWN_REMEDY,
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
        renew(&mut self.outage, code, &message, usual_remedy(code), now);
    }

    /// Requests get an answer again.
    pub(crate) fn answered(&mut self) {
        self.outage = None;
    }

    /// Requests are refused for pressure.
    pub(crate) fn pressure(&mut self, message: String, now: Instant) {
        renew(&mut self.pressure, ReasonCode::SinkRejecting, &message, usual_remedy(ReasonCode::SinkRejecting), now);
    }

    /// A request was accepted.
    pub(crate) fn accepted(&mut self) {
        self.pressure = None;
    }

    /// Items of this batch fail.
    pub(crate) fn batch(&mut self, id: u64, code: ReasonCode, message: &str, now: Instant) {
        self.renew_batch(id, code, message, usual_remedy(code), now);
    }

    /// This whole batch fails in an unknown way, against which `remedy` helps.
    pub(crate) fn unknown(&mut self, id: u64, message: &str, remedy: &'static str, now: Instant) {
        self.renew_batch(id, ReasonCode::UnknownError, message, remedy, now);
    }

    fn renew_batch(&mut self, id: u64, code: ReasonCode, message: &str, remedy: &'static str, now: Instant) {
        let mut trouble = self.batches.remove(&id);
        renew(&mut trouble, code, message, remedy, now);
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
fn renew(slot: &mut Option<Trouble>, code: ReasonCode, message: &str, remedy: &'static str, now: Instant) {
    let since = slot.as_ref().filter(|trouble| trouble.code == code).map_or(now, |trouble| trouble.since);
    *slot = Some(Trouble { code, message: answer::for_people(message), since, remedy });
}

/// A line for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// A trouble has begun or has another text.
    Trouble,
    /// The trouble that was told is over.
    Well,
}

/// What was told, so that a trouble which lasts or flickers does not fill the log.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    told: Option<(ReasonCode, String)>,
    told_at: BTreeMap<ReasonCode, Instant>,
}

impl Announcer {
    /// What to tell, if anything: a change once in [`TELL_AGAIN`] for each code, an end only of what was told.
    pub(crate) fn next(&mut self, worst: Option<&Trouble>, now: Instant) -> Option<Announcement> {
        let Some(trouble) = worst else { return self.told.take().map(|_| Announcement::Well) };
        let is_told = self.told.as_ref().is_some_and(|(code, message)| *code == trouble.code && *message == trouble.message);
        let is_too_soon = self.told_at.get(&trouble.code).is_some_and(|at| now < *at + TELL_AGAIN);
        if is_told || is_too_soon {
            return None;
        }
        self.told = Some((trouble.code, trouble.message.clone()));
        self.told_at.insert(trouble.code, now);
        Some(Announcement::Trouble)
    }
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
        troubles.batch(1, ReasonCode::UnknownError, "odd", now);
        troubles.answered();
        troubles.accepted();
        assert_eq!(code(&troubles, now), Some(ReasonCode::UnknownError));
        troubles.batch_ended(1);
        assert_eq!(code(&troubles, now), None);
    }

    #[test]
    fn a_trouble_that_lasts_or_flickers_does_not_fill_the_log() {
        let start = Instant::now();
        let mut troubles = Troubles::new(LATER);
        let mut announcer = Announcer::default();
        let mut lines = Vec::new();
        for second in 0..150 {
            let now = start + Duration::from_secs(second);
            troubles.unknown(1, &format!("try {second}"), UNKNOWN_REMEDY, now);
            lines.extend(announcer.next(troubles.worst(now), now).map(|line| (second, line)));
            lines.extend(announcer.next(troubles.worst(now), now).map(|line| (second, line)));
            if second % 10 == 9 {
                troubles.batch_ended(1);
                lines.extend(announcer.next(troubles.worst(now), now).map(|line| (second, line)));
            }
        }
        let expected = [0, 60, 120].into_iter().flat_map(|second| [(second, Announcement::Trouble), (second + 9, Announcement::Well)]);
        assert_eq!(lines, expected.collect::<Vec<_>>());
    }

    #[test]
    fn another_trouble_is_told_at_once() {
        let now = Instant::now();
        let mut troubles = Troubles::new(LATER);
        let mut announcer = Announcer::default();
        troubles.unknown(1, "odd", UNKNOWN_REMEDY, now);
        assert_eq!(announcer.next(troubles.worst(now), now), Some(Announcement::Trouble));
        troubles.outage(ReasonCode::SinkUnreachable, "refused".to_owned(), now);
        assert_eq!(announcer.next(troubles.worst(now), now), Some(Announcement::Trouble));
        assert_eq!(announcer.next(troubles.worst(now), now), None);
    }

    #[test]
    fn the_worst_trouble_is_told_and_keeps_its_beginning() {
        let now = Instant::now();
        let mut troubles = Troubles::new(LATER);
        troubles.batch(1, ReasonCode::UnknownError, "odd", now);
        troubles.outage(ReasonCode::SinkUnreachable, "refused".to_owned(), now);
        troubles.outage(ReasonCode::SinkUnreachable, "timeout".to_owned(), now + LATER);
        let worst = troubles.worst(now + LATER).unwrap();
        assert_eq!((worst.code, worst.message.as_str(), worst.since), (ReasonCode::SinkUnreachable, "timeout", now));
        troubles.outage(ReasonCode::Credentials, "401".to_owned(), now + LATER);
        assert_eq!(code(&troubles, now + LATER), Some(ReasonCode::Credentials));
    }
}
