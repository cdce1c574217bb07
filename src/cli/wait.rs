//! Waiting until a topic's tasks run.
//!
//! Guarantees an end: at the deadline with what is missing, or earlier where waiting cannot help.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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

/// What the tasks of a topic look like.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// All that are here run.
    Running,
    /// Not yet; for people.
    NotYet(String),
    /// They never will by themselves; for people.
    Never(String),
}

/// Waits until every task of the topic that this drover has runs, in the given lives (partition and incarnation) or later ones.
pub(super) async fn until_running(context: &Context, name: &TopicName, lives: &[(i64, i64)], within: Duration) -> Result<(), Failure> {
    let started = Instant::now();
    // Draws on stderr, and nothing where that is no terminal.
    let spinner = ProgressBar::new_spinner().with_style(style()).with_finish(ProgressFinish::AndClear);
    spinner.enable_steady_tick(TURN);
    let outcome = loop {
        let mut tasks = Vec::new();
        let query = [("topic", name.to_string())];
        context
            .client
            .pages(&TASKS, &query, |page| {
                tasks.extend_from_slice(page.items("items"));
                Ok(())
            })
            .await?;
        match look(&tasks, lives) {
            Look::Running => break Ok(()),
            Look::Never(why) => break Err(Failure::Failed(format!("{name} does not run: {why}"))),
            Look::NotYet(what) if tasks.is_empty() => {
                let why = without_tasks(context, name).await?.unwrap_or(what);
                if started.elapsed() >= within {
                    break Err(too_late(name, &why, within));
                }
                spinner.set_message(escape(&format!("{name}: {why}")));
            }
            Look::NotYet(what) if started.elapsed() >= within => {
                break Err(too_late(name, &what, within));
            }
            Look::NotYet(what) => spinner.set_message(escape(&format!("{name}: {what}"))),
        }
        tokio::time::sleep(POLL).await;
    };
    spinner.finish_and_clear();
    outcome
}

fn too_late(name: &TopicName, what: &str, within: Duration) -> Failure {
    Failure::Failed(format!("{name} does not run after {within:?}: {what}; drover goes on trying, and `drover topics get {name}` shows how it is"))
}

/// Why a topic has no tasks; `None` when nothing is known.
async fn without_tasks(context: &Context, name: &TopicName) -> Result<Option<String>, Failure> {
    let topic = context.client.get(&topics::path(name, None), TOPIC).await?;
    Ok(topic.text("status.reason.message").map(str::to_owned))
}

fn style() -> ProgressStyle {
    // The template is ours; should it ever be wrong, the default is good enough.
    ProgressStyle::with_template("{spinner} {msg} ({elapsed})").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn look(tasks: &[Document], lives: &[(i64, i64)]) -> Look {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    let mut reasons: Vec<String> = Vec::new();
    let mut running = 0;
    for task in tasks {
        let state = task.cell("state");
        let wanted = lives.iter().find(|(partition, _)| task.number("partition") == Some(*partition)).map_or(0, |(_, incarnation)| *incarnation);
        let is_new = task.number("incarnation").unwrap_or(0) >= wanted;
        if state == "failed" && is_new {
            return Look::Never(format!("partition {} failed: {}", task.cell("partition"), task.cell("reason.message")));
        }
        if state == "paused" {
            return Look::Never("it is paused; lift that with `drover topics resume`".to_owned());
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
        return Look::Running;
    }
    let mut what = format!("{running} of {} running", counted(tasks.len(), "task"));
    if let Some(reason) = reasons.first() {
        what.push_str(&format!("; {reason}"));
    }
    Look::NotYet(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(partition: i64, state: &str, incarnation: i64) -> Document {
        let text = format!(r#"{{"partition":{partition},"state":"{state}","incarnation":{incarnation},"reason":null}}"#);
        serde_json::from_str(&text).expect("JSON")
    }

    #[test]
    fn a_life_that_is_still_the_old_one_does_not_count() {
        assert_eq!(look(&[task(0, "running", 1)], &[(0, 2)]), Look::NotYet("0 of 1 task running".to_owned()));
        assert_eq!(look(&[task(0, "running", 2)], &[(0, 2)]), Look::Running);
    }

    #[test]
    fn partitions_of_others_are_not_waited_for_and_none_at_all_is_not_enough() {
        assert_eq!(look(&[task(0, "running", 1), task(1, "unassigned", 0)], &[]), Look::Running);
        assert!(matches!(look(&[task(0, "unassigned", 0)], &[]), Look::NotYet(_)));
        assert!(matches!(look(&[], &[]), Look::NotYet(_)));
    }

    #[test]
    fn what_never_runs_is_not_waited_for() {
        assert!(matches!(look(&[task(0, "running", 1), task(1, "paused", 1)], &[]), Look::Never(_)));
        assert!(matches!(look(&[task(0, "failed", 2)], &[(0, 2)]), Look::Never(_)));
        assert!(matches!(look(&[task(0, "failed", 1)], &[(0, 2)]), Look::NotYet(_)));
    }
}
