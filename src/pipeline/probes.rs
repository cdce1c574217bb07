//! How many partitions ask at once whether their index takes documents again.
//!
//! Guarantees that parked partitions, however many, keep at most one request of the sink busy: one probe is under way at a time, over all partitions of the process, so that a thousand of them
//! leave the sink to those that can work. A probe that gets no outcome gives its turn up after a while ([`Probes::LONGEST_TURN`]): what keeps one index must not keep the others parked. Knows
//! no sink and no index.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns, shared by all partition tasks. Cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct Probes {
    turns: Arc<Semaphore>,
}

/// A turn, given back on drop.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Probes {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(1)) }
    }
}

impl Probes {
    /// How long a probe may keep its turn: ten times what a request of one document takes on a busy server.
    pub(super) const LONGEST_TURN: Duration = Duration::from_secs(5);

    /// Waits for a turn; first come, first served. Cancel-safe.
    pub(super) async fn turn(&self) -> Turn {
        // The semaphore is never closed; if it were, no probe would have to wait.
        Turn { _permit: self.turns.clone().acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_probe_waits_for_the_first_one() {
        let probes = Probes::default();
        let first = probes.turn().await;
        let mut second = Box::pin(probes.turn());
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(first);
        assert!(futures::poll!(second.as_mut()).is_ready());
    }
}
