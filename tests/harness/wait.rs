//! Waiting on conditions. The only sleep of the tests is the poll interval in here.

use std::time::{Duration, Instant};

/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Waits until `condition` gives a value. Panics with `what` at the deadline.
#[track_caller]
pub fn wait_until<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match try_wait_until(deadline, condition) {
        Some(value) => value,
        None => panic!("waited {deadline:?} in vain until {what}"),
    }
}

/// Waits until `condition` gives a value; `None` at the deadline. The condition is looked at once more after the deadline, so a slow look is no failure of its own.
pub fn try_wait_until<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        let late = started.elapsed() >= deadline;
        if let Some(value) = condition() {
            return Some(value);
        }
        if late {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Shows that `condition` stays true for `span`, looking all the time. Panics with `what` as soon as it does not.
#[track_caller]
pub fn holds_for(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let broken = try_wait_until(span, || (!condition()).then_some(()));
    assert!(broken.is_none(), "did not hold for {span:?}: {what}");
}
