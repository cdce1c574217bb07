//! Waiting until what was asked for is so: `--wait` of the commands that change something.
//!
//! Guarantees an end: at the deadline with what is missing, or earlier where waiting cannot help. A server that does not answer meanwhile is waited for until the deadline too. The
//! progress goes to stderr, and nowhere where that is no terminal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::client::{TASKS, TOPIC};
use super::document::Document;
use super::failure::Failure;
use super::{Context, counted, topics};
use crate::table::escape;
use crate::topic::TopicName;

/// Between two looks.
const POLL: Duration = Duration::from_millis(250);
/// Between two turns of the spinner.
const TURN: Duration = Duration::from_millis(120);

/// Whether to wait, and how long.
#[derive(Debug, Args)]
pub(super) struct WaitArgs {
    /// Waits until it is so: until every task runs, has stopped or is gone, or every dead letter was tried
    #[arg(long)]
    wait: bool,
    /// How long it waits before it ends with exit code 1; what was asked for goes on
    #[arg(long, alias = "wait-timeout", value_name = "SPAN", default_value = "60s", requires = "wait", value_parser = super::span, allow_hyphen_values = true)]
    timeout: Duration,
}

impl WaitArgs {
    /// How long to wait; `None` = not at all.
    pub(super) fn within(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is so.
    Done,
    /// So many of so many; what is missing, for people.
    NotYet { done: usize, of: usize, what: String },
    /// It never will be by itself; for people.
    Never(String),
}

/// What tells who waited in vain.
pub(super) struct Told {
    /// What is not so, such as `orders does not run`.
    pub(super) not_so: String,
    /// What is left to do.
    pub(super) remedy: String,
}

/// Waits until every task of the topic that this drover has runs, in the given lives (partition and incarnation) or later ones.
pub(super) async fn until_running(context: &Context, name: &TopicName, lives: &[(i64, i64)], within: Duration) -> Result<(), Failure> {
    until(within, told(name, "does not run"), async || {
        let tasks = tasks_of(context, name).await?;
        let mut seen = running(&tasks, lives);
        if !matches!(seen, Seen::Other(Look::NotYet { .. })) && !matches!(seen, Seen::Paused) {
            return Ok(seen.into());
        }
        // The topic knows why it has no tasks, and whether a pause is still in force: tasks follow it.
        let topic = context.client.get(&topics::path(name, None), TOPIC).await?;
        if let Seen::Paused = seen {
            let is_lifted = *topic.at("paused") == Document::Null;
            let what = "the pause is lifted, and its tasks begin".to_owned();
            return Ok(if is_lifted { Look::NotYet { done: 0, of: tasks.len(), what } } else { seen.into() });
        }
        if tasks.is_empty()
            && let Seen::Other(Look::NotYet { what, .. }) = &mut seen
            && let Some(why) = topic.text("status.reason.message")
        {
            why.clone_into(what);
        }
        Ok(seen.into())
    })
    .await
}

/// Waits until no task of the topic that this drover has reads any more.
pub(super) async fn until_stopped(context: &Context, name: &TopicName, within: Duration) -> Result<(), Failure> {
    until(within, told(name, "has not stopped"), async || Ok(stopped(&tasks_of(context, name).await?))).await
}

/// Waits until this drover has no task of the topic any more.
pub(super) async fn until_gone(context: &Context, name: &TopicName, within: Duration) -> Result<(), Failure> {
    let mut most = 0;
    until(within, told(name, "still has tasks"), async || {
        let tasks = tasks_of(context, name).await?;
        most = most.max(tasks.len());
        let what = format!("{} of {name} left", counted(tasks.len(), "task"));
        Ok(if tasks.is_empty() { Look::Done } else { Look::NotYet { done: most - tasks.len(), of: most, what } })
    })
    .await
}

fn told(name: &TopicName, what: &str) -> Told {
    Told { not_so: format!("{name} {what}"), remedy: format!("drover goes on trying, and `drover topics get {name}` shows how it is") }
}

/// Looks until it is so, or until the deadline.
pub(super) async fn until(within: Duration, told: Told, mut look: impl AsyncFnMut() -> Result<Look, Failure>) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = Bar::new();
    let outcome = loop {
        let is_late = started.elapsed() >= within;
        match look().await {
            Ok(Look::Done) => break Ok(()),
            Ok(Look::Never(why)) => break Err(Failure::Failed(format!("{}: {why}", told.not_so))),
            Ok(Look::NotYet { what, .. }) if is_late => {
                break Err(Failure::Failed(format!("{} after {within:?}: {what}; {}", told.not_so, told.remedy)));
            }
            Ok(Look::NotYet { done, of, what }) => {
                bar.at(done, of);
                bar.tell(&what);
            }
            Err(failure) if !is_late && failure.may_pass(true) => bar.tell(&failure.brief()),
            Err(failure) => break Err(failure),
        }
        tokio::time::sleep(POLL).await;
    };
    bar.clear();
    outcome
}

/// How far something is, on stderr; nothing where that is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(1).with_style(style()).with_finish(ProgressFinish::AndClear);
        bar.enable_steady_tick(TURN);
        Self(bar)
    }

    /// So many of so many are done.
    pub(super) fn at(&self, done: usize, of: usize) {
        // Of nothing nothing is done, while a bar of length 0 is a full one.
        self.0.set_length(u64::try_from(of.max(1)).unwrap_or(u64::MAX));
        self.0.set_position(u64::try_from(done).unwrap_or(u64::MAX));
        self.0.set_prefix(format!("{done}/{of}"));
    }

    fn tell(&self, what: &str) {
        self.0.set_message(escape(what));
    }

    /// Takes it away, before anything else is told.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    // The template is ours; should it ever be wrong, the default is good enough.
    let style = ProgressStyle::with_template("{spinner} {bar:20} {prefix} {elapsed} {wide_msg}");
    style.map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("━╸─"))
}

/// The topic's tasks, page by page.
pub(super) async fn tasks_of(context: &Context, name: &TopicName) -> Result<Vec<Document>, Failure> {
    let mut tasks = Vec::new();
    let query = [("topic", name.to_string())];
    let gather = |page: Document| {
        tasks.extend_from_slice(page.items("items"));
        Ok(())
    };
    context.client.pages(&TASKS, &query, gather).await?;
    Ok(tasks)
}

/// What tasks that should run look like.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Paused,
    Other(Look),
}

impl From<Seen> for Look {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Paused => Self::Never("it is paused; lift that with `drover topics resume`".to_owned()),
            Seen::Other(look) => look,
        }
    }
}

fn running(tasks: &[Document], lives: &[(i64, i64)]) -> Seen {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    let mut reasons: Vec<String> = Vec::new();
    let mut running = 0;
    for task in tasks {
        let state = task.cell("state");
        let wanted = lives.iter().find(|(partition, _)| task.number("partition") == Some(*partition)).map_or(0, |(_, incarnation)| *incarnation);
        let is_new = task.number("incarnation").unwrap_or(0) >= wanted;
        if state == "failed" && is_new {
            return Seen::Other(Look::Never(format!("partition {} failed: {}", task.cell("partition"), task.cell("reason.message"))));
        }
        if state == "paused" {
            return Seen::Paused;
        }
        if state == "running" && is_new {
            running += 1;
        }
        if let Some(message) = task.text("reason.message")
            && !reasons.iter().any(|known| known == message)
        {
            reasons.push(message.to_owned());
        }
        *states.entry(state).or_default() += 1;
    }
    // Partitions that another instance has are its own matter.
    let elsewhere = states.remove("unassigned").unwrap_or(0);
    let here = tasks.len() - elsewhere;
    if running > 0 && running == here {
        return Seen::Other(Look::Done);
    }
    let mut what = format!("{running} of {} running", counted(tasks.len(), "task"));
    if let Some(reason) = reasons.first() {
        what.push_str(&format!("; {reason}"));
    }
    Seen::Other(Look::NotYet { done: running, of: tasks.len(), what })
}

fn stopped(tasks: &[Document]) -> Look {
    let is_still = |task: &&Document| matches!(task.text("state"), Some("paused" | "stopped" | "unassigned"));
    let done = tasks.iter().filter(is_still).count();
    let of = tasks.len();
    if done == of { Look::Done } else { Look::NotYet { done, of, what: format!("{done} of {} stopped", counted(of, "task")) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(partition: i64, state: &str, incarnation: i64) -> Document {
        let text = format!(r#"{{"partition":{partition},"state":"{state}","incarnation":{incarnation},"reason":null}}"#);
        serde_json::from_str(&text).expect("JSON")
    }

    fn look(tasks: &[Document], lives: &[(i64, i64)]) -> Look {
        running(tasks, lives).into()
    }

    #[test]
    fn a_life_that_is_still_the_old_one_does_not_count() {
        let what = "0 of 1 task running".to_owned();
        assert_eq!(look(&[task(0, "running", 1)], &[(0, 2)]), Look::NotYet { done: 0, of: 1, what });
        assert_eq!(look(&[task(0, "running", 2)], &[(0, 2)]), Look::Done);
    }

    #[test]
    fn partitions_of_others_are_not_waited_for_and_none_at_all_is_not_enough() {
        assert_eq!(look(&[task(0, "running", 1), task(1, "unassigned", 0)], &[]), Look::Done);
        assert!(matches!(look(&[task(0, "unassigned", 0)], &[]), Look::NotYet { .. }));
        assert!(matches!(look(&[], &[]), Look::NotYet { .. }));
    }

    #[test]
    fn what_never_runs_is_not_waited_for() {
        assert!(matches!(look(&[task(0, "running", 1), task(1, "paused", 1)], &[]), Look::Never(_)));
        assert!(matches!(look(&[task(0, "failed", 2)], &[(0, 2)]), Look::Never(_)));
        assert!(matches!(look(&[task(0, "failed", 1)], &[(0, 2)]), Look::NotYet { .. }));
    }

    #[test]
    fn a_topic_has_stopped_when_no_task_reads_any_more() {
        let what = "1 of 2 tasks stopped".to_owned();
        assert_eq!(stopped(&[task(0, "draining", 1), task(1, "paused", 1)]), Look::NotYet { done: 1, of: 2, what });
        assert_eq!(stopped(&[task(0, "unassigned", 0), task(1, "paused", 1)]), Look::Done);
        assert_eq!(stopped(&[]), Look::Done);
    }
}
