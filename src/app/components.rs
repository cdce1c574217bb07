//! The instance's long-running parts as supervised children.
//!
//! Guarantees that a part that ends, fails or panics is started again with backoff, and is shown with its restarts. A restarted sink or consumer ends no partition task:
//! their handles stay valid. Owns the names of the parts and how each one's body is run; what the bodies do is theirs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::supervisor::{NoProgress, TaskContext, TaskError, Work};

/// A part of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Component {
    /// Reads the configuration file again.
    ConfigFile,
    /// Reads the API's tokens again.
    Tokens,
    /// Reads the API's certificate again.
    Tls,
    /// Watches etcd.
    Etcd,
    /// Merges the sources.
    Desired,
    /// Makes the running set what is wanted.
    Reconcile,
    /// The consumer thread.
    Consumer,
    /// Asks for the ends of the partitions.
    LogEnds,
    /// The sink.
    Sink,
    /// Counts the dead letters in the sink.
    DeadLetters,
    /// Sends dead letters again.
    Redrive,
    /// Builds the snapshot.
    Status,
    /// The HTTP server.
    Api,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigFile => "config_file",
            Self::Tokens => "tokens",
            Self::Tls => "tls",
            Self::Etcd => "etcd",
            Self::Desired => "desired",
            Self::Reconcile => "reconcile",
            Self::Consumer => "kafka",
            Self::LogEnds => "log_ends",
            Self::Sink => "sink",
            Self::DeadLetters => "dead_letters",
            Self::Redrive => "redrive",
            Self::Status => "status",
            Self::Api => "api",
        })
    }
}

/// Makes one life of a part: a future that ends when it is cancelled.
pub(super) type Body = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<(), TaskError>> + Send + Sync>;

/// All parts by name, as work for a supervisor.
#[derive(Default, Clone)]
pub(super) struct Components {
    bodies: BTreeMap<Component, Body>,
}

impl Components {
    /// Adds a part: what it is, and one life of it.
    pub(super) fn serve<T, F, Life>(&mut self, component: Component, part: T, life: F)
    where
        T: Send + Sync + 'static,
        F: Fn(Arc<T>, CancellationToken) -> Life + Send + Sync + 'static,
        Life: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        let part = Arc::new(part);
        self.bodies.insert(component, Arc::new(move |cancel| Box::pin(life(part.clone(), cancel))));
    }

    /// The names of all parts that were added, as the set a supervisor is told to run.
    pub(super) fn wanted(&self) -> BTreeMap<Component, ()> {
        self.bodies.keys().map(|component| (*component, ())).collect()
    }
}

impl Work for Components {
    type Key = Component;
    type Spec = ();
    type Progress = NoProgress;

    fn progress(&self, _key: &Component) -> Arc<NoProgress> {
        Arc::new(NoProgress)
    }

    fn run(&self, key: Component, _spec: (), context: TaskContext<NoProgress>) -> BoxFuture<'static, Result<(), TaskError>> {
        let body = self.bodies.get(&key).cloned();
        Box::pin(async move {
            let Some(body) = body else { return Err(TaskError::fatal("no such part")) };
            context.ready();
            body(context.cancel.clone()).await
        })
    }
}
