//! The configuration file as a source of topics, read again while drover runs.
//!
//! Guarantees: a changed content takes effect within the polling interval, whichever way it was changed (in place, by renaming another file over it, by swapping a
//! symlink), since only a hash of the content decides; a file that is missing, unreadable or malformed leaves the last good list in force, and the source's status says
//! what is wrong and since when. Fields that only take effect at a start keep their running values and are listed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::merge::{Entry, Says};
use crate::config::{self, Config, LoadError, Loaded};
use crate::status::{Source, SourceError, SourceStatus};
use crate::topic::{SourceKind, SourceRef};

/// How often the content is compared.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// What the file said last, and how reading it goes.
#[derive(Debug, Clone)]
pub struct FileView {
    /// The last good configuration; only its topics and defaults follow the file.
    pub config: Arc<Config>,
    /// The source's status.
    pub source: Source,
    /// Fields whose new value takes effect at the next start.
    pub needs_restart: Vec<String>,
}

impl FileView {
    /// The view of a file that was just loaded.
    pub fn new(path: &Path, loaded: &Loaded, now: Timestamp) -> Self {
        let source = Source {
            kind: SourceKind::File,
            detail: Some(path.display().to_string()),
            status: SourceStatus::Ok,
            topics: topic_count(&loaded.config),
            revision: None,
            content_hash: Some(loaded.content_hash.clone()),
            read_at: Some(now),
            changed_at: Some(now),
            error: None,
        };
        Self { config: Arc::new(loaded.config.clone()), source, needs_restart: Vec::new() }
    }

    /// The file's topics in the order of the file.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.config.topics.len());
        for topic in &self.config.topics {
            let source = SourceRef { kind: SourceKind::File, detail: Some(topic.place.clone()), key: None, revision: None };
            let says = match &topic.native {
                Some(fields) => Says::Native(fields.clone()),
                None => Says::Dialect,
            };
            entries.push(Entry { name: topic.name.clone(), source, says });
        }
        entries
    }
}

/// Watches one configuration file.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    variables: BTreeMap<String, String>,
    running: Arc<Config>,
    out: watch::Sender<FileView>,
}

impl FileSource {
    /// A watcher of `path`, whose content at the start was `loaded`. What `variables` name wins over the process's environment, as it must have when `path` was loaded.
    pub fn new(path: PathBuf, variables: BTreeMap<String, String>, loaded: &Loaded, now: Timestamp) -> (Self, watch::Receiver<FileView>) {
        let view = FileView::new(&path, loaded, now);
        let running = view.config.clone();
        let (out, views) = watch::channel(view);
        (Self { path, variables, running, out }, views)
    }

    /// Reads the file again and again until cancelled.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.read_again(Timestamp::now());
        }
    }

    fn read_again(&self, now: Timestamp) {
        let result = config::load(&self.path, &config::environment(&self.variables));
        self.out.send_if_modified(|view| apply(view, result, &self.running, now));
    }
}

/// Takes the result of one reading into the view; whether readers must be told. Pure.
fn apply(view: &mut FileView, result: Result<Loaded, LoadError>, running: &Config, now: Timestamp) -> bool {
    match result {
        Ok(loaded) => {
            let same_content = view.source.content_hash.as_deref() == Some(loaded.content_hash.as_str());
            if same_content && view.source.error.is_none() {
                view.source.read_at = Some(now);
                return false;
            }
            let needs_restart = running.cold_differences(&loaded.config);
            info!(topics = loaded.config.topics.len(), needs_restart = needs_restart.join(","), "configuration file read again");
            for warning in &loaded.warnings {
                warn!(path = warning.path, line = warning.line, detail = warning.detail, "configuration warning");
            }
            view.source.status = SourceStatus::Ok;
            view.source.error = None;
            view.source.topics = topic_count(&loaded.config);
            view.source.content_hash = Some(loaded.content_hash);
            view.source.read_at = Some(now);
            if !same_content {
                view.source.changed_at = Some(now);
            }
            view.config = Arc::new(loaded.config);
            view.needs_restart = needs_restart;
            true
        }
        Err(error) => {
            let (message, line) = describe(&error);
            let known = view.source.error.as_ref();
            if known.is_some_and(|known| known.message == message && known.line == line) {
                return false;
            }
            warn!(error = message, line, "configuration file is not usable, its last good list stays in force");
            let since_at = known.map_or(now, |known| known.since_at);
            view.source.status = SourceStatus::Error;
            view.source.error = Some(SourceError { message, line, since_at });
            true
        }
    }
}

/// The first problem as text and line, and how many more there are; for a file that cannot be read, why not.
fn describe(error: &LoadError) -> (String, Option<u32>) {
    let problems = error.problems();
    let Some(first) = problems.first() else {
        let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        return (format!("{error}{cause}"), None);
    };
    let more = problems.len() - 1;
    let tail = if more == 0 { String::new() } else { format!(" (and {more} more; see `drover check-config`)") };
    let separator = if first.path.is_empty() { "" } else { ": " };
    (format!("{}{separator}{}{tail}", first.path, first.detail), Some(first.line))
}

fn topic_count(config: &Config) -> usize {
    let mut names: Vec<_> = config.topics.iter().map(|topic| &topic.name).collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: Option<&str>) -> (String, Option<u32>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        if let Some(text) = text {
            std::fs::write(&path, text).expect("a file");
        }
        describe(&config::load(&path, &|_| None).expect_err("not usable"))
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_the_systems_cause() {
        let (message, line) = described(None);
        assert!(message.starts_with("cannot read ") && message.contains("config.yaml: No such file or directory"), "{message}");
        assert!(line.is_none() && !message.contains("--config"), "{message}");
    }

    #[test]
    fn a_problem_of_the_file_as_a_whole_does_not_begin_with_a_colon() {
        let (message, line) = described(Some("{"));
        assert!(line.is_some() && !message.starts_with(':') && !message.is_empty(), "{message}");
        let (message, _) = described(Some("listen: nowhere\nkafka: {brokers: ['a:1']}\nelasticsearch: {urls: ['http://e:1']}\n"));
        assert_eq!(message, "listen: this is not an address with a port");
    }
}
