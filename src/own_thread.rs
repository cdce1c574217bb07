//! A life of a part on a thread of its own, for what must not wait for a turn on a runtime, or must not hold one up.
//!
//! Guarantees that the thread ends with its life: it is told to stop when the life is cancelled and also when it is dropped; that a panic there is a panic of the life, which the supervisor counts; that its log goes where
//! the log of whoever started it goes. Owns nothing: the thread's work is the part's.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::dispatcher;

/// Runs `life` on a new thread until it returns, which it does soon after its token is cancelled. The error is that no thread can be had.
pub(crate) async fn live<T: Send + 'static>(
    name: &str,
    cancel: &CancellationToken,
    life: impl FnOnce(CancellationToken) -> T + Send + 'static,
) -> io::Result<T> {
    let (done, finished) = oneshot::channel();
    let stop = cancel.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let log = dispatcher::get_default(Clone::clone);
    let body = move || {
        let result = dispatcher::with_default(&log, || catch_unwind(AssertUnwindSafe(|| life(stop))));
        // Nobody waits for the end of a life that was dropped.
        let _ = done.send(result);
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
    match finished.await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(io::Error::other("the thread is gone")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_panic_of_the_thread_is_a_panic_of_the_life() {
        let life = tokio::spawn(async { live::<()>("panics", &CancellationToken::new(), |_| panic!("boom")).await });
        let error = life.await.expect_err("a panic");
        assert_eq!(error.into_panic().downcast_ref::<&str>(), Some(&"boom"));
    }

    #[tokio::test]
    async fn a_life_that_is_dropped_leaves_no_thread_behind() {
        let (told, ended) = mpsc::channel();
        let (began, running) = oneshot::channel();
        let life = tokio::spawn(async move {
            let body = move |stop: CancellationToken| {
                began.send(std::thread::current().name().map(str::to_owned)).expect("it is waited for");
                futures::executor::block_on(stop.cancelled());
                told.send(()).expect("it is waited for");
            };
            live("drover-part", &CancellationToken::new(), body).await
        });
        assert_eq!(running.await.expect("a thread").as_deref(), Some("drover-part"));
        life.abort();
        tokio::task::spawn_blocking(move || ended.recv_timeout(SOON)).await.expect("no panic").expect("the thread was told to stop");
    }
}
