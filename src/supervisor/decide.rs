//! What follows from an end: pure decisions over values. Time and chance are parameters.

use std::time::Duration;

use crate::status::{ExitCause, ReasonCode};

use super::{Care, Settings};

/// Why the supervisor told a life to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// An operator asked for a restart.
    Requested,
    /// The watchdog: work was pending.
    Stalled,
    /// The watchdog: work was there and did not come.
    Starved,
    /// The key is not wanted any more, or under another spec.
    Unwanted,
}

/// So many kills in a row for work that does not come, without anything settled in between; then another life would change nothing (the design, section 5: a hanging transaction is
/// legitimately silent).
pub const STARVED_KILLS: u32 = 2;

/// What the watchdog makes of a life that has settled nothing for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// Kill it.
    Kill(Kill),
    /// Leave it alone and show it.
    Show,
}

/// What follows for a life that has settled nothing for too long: whether its work is pending, else it does not come; and how often it was killed for that in a row.
pub fn stall(is_pending: bool, starved_kills: u32) -> Stall {
    match (is_pending, starved_kills) {
        (true, _) => Stall::Kill(Kill::Stalled),
        (false, kills) if kills < STARVED_KILLS => Stall::Kill(Kill::Starved),
        (false, _) => Stall::Show,
    }
}

/// How a life was found when it was joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It returned without an error.
    Returned,
    /// It returned an error; a code means that no other life would do better.
    Failed {
        /// The error's text.
        message: String,
        /// The reason, for a fatal one.
        fatal: Option<ReasonCode>,
    },
    /// It panicked.
    Panicked {
        /// The panic's text.
        message: String,
    },
    /// It was aborted because it did not end when it was told to.
    Aborted,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A new life at once, if the key is still wanted.
    Restart,
    /// A new life after a backoff, if the key is still wanted.
    Backoff,
    /// No new life until someone acts.
    Fail(ReasonCode),
}

/// The end of a life: what it is called, what is said about it, and what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The end's name.
    pub cause: ExitCause,
    /// The error's or the panic's text, or why it was told to end.
    pub message: String,
    /// What happens next.
    pub next: Next,
}

/// Names an end and decides what follows. Every way a life can end is one row.
pub fn verdict(joined: Joined, kill: Option<Kill>) -> Verdict {
    let (cause, message, next) = match (joined, kill) {
        (Joined::Panicked { message }, Some(Kill::Requested | Kill::Unwanted)) => (ExitCause::Panicked, message, Next::Restart),
        (Joined::Panicked { message }, _) => (ExitCause::Panicked, message, Next::Backoff),
        (Joined::Returned, None) => (ExitCause::Completed, "the task returned although its stream has no end".to_owned(), Next::Backoff),
        (Joined::Failed { message, fatal: Some(code) }, None) => (ExitCause::Error, message, Next::Fail(code)),
        (Joined::Failed { message, fatal: None }, None) => (ExitCause::Error, message, Next::Backoff),
        (Joined::Aborted, None) => (ExitCause::Error, "the task was aborted".to_owned(), Next::Backoff),
        (_, Some(Kill::Requested)) => (ExitCause::Requested, "an operator asked for a restart".to_owned(), Next::Restart),
        (Joined::Aborted, Some(Kill::Stalled | Kill::Starved)) => {
            (ExitCause::Stalled, "no progress with pending work; the task did not react and was aborted".to_owned(), Next::Backoff)
        }
        (_, Some(Kill::Stalled)) => (ExitCause::Stalled, "no progress with pending work".to_owned(), Next::Backoff),
        (_, Some(Kill::Starved)) => (ExitCause::Stalled, "there was work and none of it came".to_owned(), Next::Backoff),
        (_, Some(Kill::Unwanted)) => (ExitCause::Cancelled, "told to stop".to_owned(), Next::Restart),
    };
    Verdict { cause, message, next }
}

/// Whether an end counts as a restart when a new life follows, and whether as a failure.
pub fn counts(cause: ExitCause) -> (bool, bool) {
    match cause {
        ExitCause::Completed | ExitCause::Error | ExitCause::Panicked | ExitCause::Stalled => (true, true),
        ExitCause::Requested => (true, false),
        ExitCause::Cancelled => (false, false),
    }
}

/// The backoff after `failures` failures in a row (at least 1): full jitter over a doubling, capped span. `chance` is from 0 up to 1.
pub fn backoff(settings: &Settings, failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let span = settings.backoff_first.saturating_mul(1 << doublings).min(settings.backoff_max);
    span.mul_f64(chance.clamp(0.0, 1.0))
}

/// Crashes at one place, counted over lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CrashPlace {
    watermark: Option<i64>,
    crashes: u32,
    /// What the next life has to do.
    pub care: Care,
}

impl CrashPlace {
    /// Takes a crash into account: the life's watermark, the offset it worked on, and whether it went one by one.
    pub fn crashed(self, watermark: Option<i64>, offset: Option<i64>, was: Care, crash_loop_after: u32) -> Self {
        let same_place = watermark.is_some() && watermark == self.watermark;
        let crashes = if same_place { self.crashes.saturating_add(1) } else { 1 };
        let care = match (was, offset) {
            // It was alone at its work, so the record at hand is the culprit.
            (Care::OneByOne | Care::GiveUp(_), Some(culprit)) => Care::GiveUp(culprit),
            _ if watermark.is_some() && crashes >= crash_loop_after => Care::OneByOne,
            _ => Care::None,
        };
        Self { watermark, crashes, care }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panicked() -> Joined {
        Joined::Panicked { message: "boom".to_owned() }
    }

    #[test]
    fn every_end_has_its_name_and_its_consequence() {
        let failed = |fatal| Joined::Failed { message: "no".to_owned(), fatal };
        let rows = [
            (Joined::Returned, None, ExitCause::Completed, Next::Backoff),
            (failed(None), None, ExitCause::Error, Next::Backoff),
            (failed(Some(ReasonCode::Rejected)), None, ExitCause::Error, Next::Fail(ReasonCode::Rejected)),
            (panicked(), None, ExitCause::Panicked, Next::Backoff),
            (Joined::Aborted, None, ExitCause::Error, Next::Backoff),
            (Joined::Returned, Some(Kill::Requested), ExitCause::Requested, Next::Restart),
            (failed(None), Some(Kill::Requested), ExitCause::Requested, Next::Restart),
            (Joined::Aborted, Some(Kill::Requested), ExitCause::Requested, Next::Restart),
            (panicked(), Some(Kill::Requested), ExitCause::Panicked, Next::Restart),
            (Joined::Returned, Some(Kill::Stalled), ExitCause::Stalled, Next::Backoff),
            (Joined::Aborted, Some(Kill::Stalled), ExitCause::Stalled, Next::Backoff),
            (panicked(), Some(Kill::Unwanted), ExitCause::Panicked, Next::Restart),
            (panicked(), Some(Kill::Stalled), ExitCause::Panicked, Next::Backoff),
            (Joined::Returned, Some(Kill::Unwanted), ExitCause::Cancelled, Next::Restart),
            (Joined::Aborted, Some(Kill::Unwanted), ExitCause::Cancelled, Next::Restart),
        ];
        for (joined, kill, cause, next) in rows {
            let verdict = verdict(joined.clone(), kill);
            assert_eq!((verdict.cause, verdict.next), (cause, next), "{joined:?} {kill:?}");
            assert!(!verdict.message.is_empty());
        }
    }

    #[test]
    fn the_backoff_doubles_up_to_its_cap() {
        let settings = Settings { backoff_first: Duration::from_millis(500), backoff_max: Duration::from_secs(300), ..Settings::default() };
        let longest = |failures| backoff(&settings, failures, 1.0);
        assert_eq!([longest(1), longest(2), longest(3)], [500, 1000, 2000].map(Duration::from_millis));
        assert_eq!((longest(20), longest(u32::MAX)), (Duration::from_secs(300), Duration::from_secs(300)));
        assert_eq!(backoff(&settings, 3, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_place_that_crashes_again_and_again_is_tried_alone_and_then_given_up() {
        let mut place = CrashPlace::default();
        for _ in 0..2 {
            place = place.crashed(Some(10), None, Care::None, 3);
            assert_eq!(place.care, Care::None);
        }
        place = place.crashed(Some(10), None, Care::None, 3);
        assert_eq!(place.care, Care::OneByOne);
        place = place.crashed(Some(12), Some(12), Care::OneByOne, 3);
        assert_eq!(place.care, Care::GiveUp(12));
        assert_eq!(place.crashed(Some(40), None, Care::None, 3).care, Care::None);
    }

    #[test]
    fn crashes_at_different_places_are_no_loop() {
        let mut place = CrashPlace::default();
        for watermark in 0..20 {
            place = place.crashed(Some(watermark), None, Care::None, 3);
            assert_eq!(place.care, Care::None);
        }
    }
}
