//! The API on a runtime of its own, in a thread of its own.
//!
//! Guarantees that nothing which the pipeline computes keeps a probe or a page waiting: the API competes for a processor as any thread does, and not for a turn on a runtime thread that is formatting a chunk. With
//! ten thousand tasks and ingest on both processors the 99th percentile of `GET /livez` is that of a handler that does nothing; on the pipeline's runtime it was twice that (`benches/README.md`). And `/livez`
//! can be asked when the pipeline's runtime hangs, which is when it has something to say.
//!
//! Owns the runtime, which ends with this life of the part.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiState};
use crate::own_thread;

/// What blocking calls get to end, whose requests were given up.
const LAST_GRACE: Duration = Duration::from_millis(100);

/// Serves the API until cancelled. The error is the listener's, or that no thread can be had.
pub(super) async fn serve(listener: TcpListener, state: ApiState, cancel: CancellationToken) -> io::Result<()> {
    let life = |stop| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(api::serve(listener, state, stop));
        runtime.shutdown_timeout(LAST_GRACE);
        result
    };
    own_thread::live("drover-api", &cancel, life).await?
}
