//! What comes from files and is read again while drover runs: the tokens, and the certificate with its key.
//!
//! Guarantees that what was read last and could be used stays in force; that files which are broken or gone change nothing, and the view says so until they can be used again. A hash of the content decides
//! whether it is new, whichever way it was changed. Owns nothing of the files' form: whoever reads them brings that along.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the content is compared.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// What was read once.
pub(super) struct Reading<T> {
    pub(super) value: T,
    /// The same for the same content.
    pub(super) content_hash: String,
}

/// What is in force, and how reading goes.
#[derive(Debug)]
pub struct View<T> {
    /// As read last.
    pub value: Arc<T>,
    /// Why the files cannot be used now; the value is that of before. For people.
    pub error: Option<String>,
    content_hash: String,
}

impl<T> View<T> {
    pub(super) fn new(reading: Reading<T>) -> Self {
        Self { value: Arc::new(reading.value), error: None, content_hash: reading.content_hash }
    }

    /// Takes the result of one reading; whether anything is different. Pure.
    fn apply(&mut self, result: Result<Reading<T>, String>) -> bool {
        match result {
            Ok(reading) if reading.content_hash == self.content_hash => self.error.take().is_some(),
            Ok(reading) => {
                *self = Self::new(reading);
                true
            }
            Err(error) => {
                let told = Some(error);
                let is_same = self.error == told;
                self.error = told;
                !is_same
            }
        }
    }
}

/// Reads again and again.
pub struct Reread<T> {
    what: &'static str,
    read: Box<dyn Fn() -> Result<Reading<T>, String> + Send + Sync>,
    out: watch::Sender<View<T>>,
}

impl<T> Reread<T> {
    /// Goes on from a first reading. `what` is said in the log when it is read anew.
    pub(super) fn after(
        first: Reading<T>,
        what: &'static str,
        read: impl Fn() -> Result<Reading<T>, String> + Send + Sync + 'static,
    ) -> (Self, watch::Receiver<View<T>>) {
        let (out, views) = watch::channel(View::new(first));
        (Self { what, read: Box::new(read), out }, views)
    }

    /// Reads until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => self.read_again(),
            }
        }
    }

    pub(super) fn read_again(&self) {
        let result = (self.read)();
        let is_different = self.out.send_if_modified(|view| view.apply(result));
        // Trouble is one of the instance's warnings, and told with them.
        if is_different && self.out.borrow().error.is_none() {
            tracing::info!(what = self.what, "read again");
        }
    }
}
