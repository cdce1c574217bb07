//! What the demo shows: a banner, a line of progress on a terminal, and a last word. Everything goes to standard error.
//!
//! Guarantees that lines of the log, written through [`Screen::writer`], stand above the line of progress and never tear it. Without a terminal there is no such line. Texts are functions over values.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::net::SocketAddr;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::records::{ORDERS, PAYMENTS};
use crate::status::{Snapshot, TaskState};

/// Where the demo shows something.
#[derive(Clone)]
pub struct Screen {
    progress: Option<ProgressBar>,
}

impl Screen {
    /// Standard error, with a line of progress if that is a terminal.
    pub fn stderr() -> Self {
        if !io::stderr().is_terminal() {
            return Self { progress: None };
        }
        let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner:.green} {wide_msg}") {
            progress.set_style(style);
        }
        Self { progress: Some(progress) }
    }

    /// The log filter where nobody chose one: on a terminal only what is wrong; else the ordinary log without librdkafka's chatter about a cluster that is in the same process.
    pub fn log_filter(&self) -> &'static str {
        if self.progress.is_some() { "warn" } else { "info,drover::kafka::client=warn" }
    }

    /// Where the log goes.
    pub fn writer(&self) -> Above {
        Above { screen: self.clone() }
    }

    /// Prints a text above the line of progress.
    pub fn print(&self, text: &str) {
        // Nobody is left to tell when standard error is closed.
        let _ = self.write_above(format!("{text}\n").as_bytes());
    }

    /// Shows how far things are.
    pub fn show(&self, counts: &Counts) {
        if let Some(progress) = &self.progress {
            progress.set_message(counts.line());
            progress.tick();
        }
    }

    /// Takes the line of progress away.
    pub fn finish(&self) {
        if let Some(progress) = &self.progress {
            progress.finish_and_clear();
        }
    }

    fn write_above(&self, bytes: &[u8]) -> io::Result<()> {
        let write = || io::stderr().write_all(bytes);
        match &self.progress {
            Some(progress) => progress.suspend(write),
            None => write(),
        }
    }
}

/// Writes above the line of progress; for the log.
pub struct Above {
    screen: Screen,
}

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.screen.write_above(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// How far things are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    /// Records that were produced in the topics that drover has.
    pub produced: u64,
    /// Documents in the output, since the start.
    pub indexed: u64,
    /// Records in the dead letters, since the start.
    pub dead_lettered: u64,
    /// Restarts of tasks, over all starts.
    pub restarts: u64,
    /// Settled records per second.
    pub per_second: f64,
    /// Tasks, and how many of them run.
    pub tasks: usize,
    /// Tasks that run.
    pub running: usize,
}

impl Counts {
    /// What a snapshot says, and how many records were produced by topic.
    pub fn of(snapshot: &Snapshot, produced: &BTreeMap<&'static str, u64>) -> Self {
        let mut counts = Self::default();
        for topic in &snapshot.topics {
            counts.produced += produced.get(topic.name.as_str()).copied().unwrap_or_default();
            counts.indexed += topic.status.indexed_total;
            counts.dead_lettered += topic.status.dead_lettered_total;
            counts.restarts += topic.status.restarts_total;
            counts.per_second += topic.status.records_per_second;
        }
        counts.tasks = snapshot.tasks.len();
        counts.running = snapshot.tasks.iter().filter(|task| task.state == TaskState::Running).count();
        counts
    }

    fn line(&self) -> String {
        let Self { tasks, running, .. } = self;
        format!(
            "{} produced, {} indexed, {:.0}/s, tasks {running}/{tasks}, {}, {}",
            grouped(self.produced),
            grouped(self.indexed),
            self.per_second,
            counted(self.restarts, "restart"),
            counted(self.dead_lettered, "dead letter"),
        )
    }
}

/// What the banner tells.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Where the page is.
    pub address: SocketAddr,
    /// The demo's folder.
    pub dir: &'a Path,
    /// Whether there was a start before.
    pub goes_on: bool,
    /// Whether nothing crashes on purpose.
    pub calm: bool,
}

/// Where to look and what to try.
pub fn banner(place: &Place<'_>) -> String {
    let url = format!("http://{}", reachable(place.address));
    let dir = place.dir.display();
    let start = if place.goes_on {
        "Topics, pauses, dead letters, restart counts and output of the last start are kept; the Kafka cluster is a new one, so its topics are read from their beginning."
    } else {
        "A Kafka cluster in this process, a web shop that produces 200 records a second, and files instead of Elasticsearch."
    };
    let crashes =
        if place.calm { "Nothing crashes on purpose." } else { "Every half minute a task crashes on purpose and comes back (--calm: none does)." };
    format!(
        "\
drover demo
  {start}
  {crashes}

  page          {url}/
  tasks         curl -H 'Accept: text/plain' {url}/api/v1/tasks
  add a topic   curl -X PUT -H 'Content-Type: application/json' -d '{{\"format\": \"json\"}}' {url}/api/v1/topics/{PAYMENTS}
  pause one     curl -X PUT -H 'Content-Type: application/json' -d '{{\"reason\": \"a look\"}}' {url}/api/v1/topics/{ORDERS}/pause
  go on         curl -X DELETE {url}/api/v1/topics/{ORDERS}/pause
  dead letters  curl {url}/api/v1/dead-letters
  events        curl {url}/api/v1/events
  output        {dir}/out
  configuration {dir}/config.yaml (edit it: topics follow within two seconds)
  stop          Ctrl-C; the next start goes on where this one was
"
    )
}

/// What was done and what to do next; `program` starts drover.
pub fn farewell(counts: &Counts, dir: &Path, program: &str) -> String {
    let dir = dir.display();
    format!(
        "\
drover demo: stopped. {} produced, {} indexed into {dir}/out, {}, {} in all
  send it to Elasticsearch or OpenSearch: {program} replay {dir}/out --to http://127.0.0.1:9200
  go on: {program} demo --dir {dir}
  forget everything: rm -r {dir}",
        grouped(counts.produced),
        grouped(counts.indexed),
        counted(counts.dead_lettered, "dead letter"),
        counted(counts.restarts, "restart"),
    )
}

/// An address that a browser on this machine can open.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut shown = address;
    if shown.ip().is_unspecified() {
        let loopback = if shown.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        shown.set_ip(loopback);
    }
    shown
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(count))
}

/// Thousands with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts: Vec<String> = [0, 999, 1_000, 12_345, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn the_line_says_what_happened() {
        let counts = Counts { produced: 12_345, indexed: 11_000, dead_lettered: 1, restarts: 2, per_second: 198.6, tasks: 8, running: 7 };
        assert_eq!(counts.line(), "12,345 produced, 11,000 indexed, 199/s, tasks 7/8, 2 restarts, 1 dead letter");
    }

    #[test]
    fn the_banner_names_an_address_that_can_be_opened() {
        let place = |address: &str| Place { address: address.parse().expect("an address"), dir: Path::new("d"), goes_on: false, calm: true };
        assert!(banner(&place("0.0.0.0:81")).contains(" http://127.0.0.1:81/\n"));
        assert!(banner(&place("[::]:81")).contains(" http://[::1]:81/\n"));
        assert!(banner(&place("10.0.0.1:81")).contains(" http://10.0.0.1:81/\n"));
    }
}
