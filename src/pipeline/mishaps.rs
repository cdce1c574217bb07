//! Crashes on purpose: how `drover demo` shows what supervision does. `drover run` has no such value, so nothing of it is in force there.
//!
//! Guarantees that an ordered crash happens once, before anything of a chunk is formatted: it costs a life of the task and no record, since the chunk is read again. When one is ordered is the
//! demo's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the exit of a crashed task says.
pub const MESSAGE: &str = "the demo crashed this task on purpose; `drover demo --calm` does not";

/// An order for one crash. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Mishaps {
    is_due: Arc<AtomicBool>,
}

impl Mishaps {
    /// The task that gets the next chunk of records, whichever it is, shall panic. A crash that is ordered and has not happened stays one.
    pub fn order(&self) {
        self.is_due.store(true, Ordering::Relaxed);
    }

    /// Panics when a crash is due.
    pub(super) fn strike(&self) {
        if self.is_due.swap(false, Ordering::Relaxed) {
            panic!("{MESSAGE}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn an_ordered_crash_happens_once() {
        let mishaps = Mishaps::default();
        let strikes = || {
            let shared = mishaps.clone();
            catch_unwind(move || shared.strike()).is_err()
        };
        assert!(!strikes(), "a crash that nobody ordered");
        mishaps.order();
        mishaps.order();
        assert_eq!([strikes(), strikes(), strikes()], [true, false, false]);
    }
}
