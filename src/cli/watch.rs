//! Looking again and again: `--watch` of the commands that show something.
//!
//! Guarantees: at a terminal each frame is written at once from the top, so that nothing flickers and nothing of the frame before stays, and no line is wider than the terminal; the terminal
//! is left as it was found, whether the watch is interrupted or fails; elsewhere what is printed is repeated whole. A server that does not answer is told, and waited for; Ctrl-C and SIGTERM
//! end the watch with exit code 0.

use std::cell::RefCell;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use console::{Term, measure_text_width, truncate_str};
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Context;
use super::failure::Failure;
use super::output::{self, tell};
use crate::table::escape;

/// Between two looks, in seconds: the shortest keeps a drover from being asked without a pause, the longest is a day.
const SHORTEST: f64 = 0.1;
const LONGEST: f64 = 86_400.0;
/// Enters the alternate screen, and hides the cursor there.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[2J";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// A terminal that knows them shows a frame only when it is whole (https://gist.github.com/christianparpart/d8a62cc1ab659194337d73e399004036); others pass them over.
const BEGIN_FRAME: &str = "\u{1b}[?2026h\u{1b}[H";
const END_FRAME: &str = "\u{1b}[J\u{1b}[?2026l";
const ERASE_REST: &str = "\u{1b}[K";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Shows it again every so many seconds until it is interrupted, at a terminal in place; without a number every 2
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
}

impl WatchArgs {
    /// Between two looks; `None` = one look is enough.
    pub(super) fn every(&self) -> Option<Duration> {
        self.watch
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|number| (SHORTEST..=LONGEST).contains(number));
    number.map(Duration::from_secs_f64).ok_or_else(|| format!("write seconds from {SHORTEST} to {LONGEST}, such as 5 or 0.5"))
}

/// Looks once, or again and again where that is asked for.
pub(super) async fn run(context: &Context, look: impl AsyncFn() -> Result<(), Failure>) -> Result<(), Failure> {
    let Some(every) = context.every else { return look().await };
    let cannot = |error: io::Error| Failure::Failed(format!("signals cannot be heard: {error}"));
    // Heard before the screen is entered, so that no signal can end the program inside it.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut resized = signal(SignalKind::window_change()).map_err(cannot)?;
    let view = View {
        server: context.client.server(),
        every,
        is_table: context.printer.is_table(),
        screen: Screen::enter()?,
        latest: RefCell::new(Latest::default()),
    };
    let outcome = tokio::select! {
        outcome = repeat(context, &view, &mut resized, &look) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    view.leave()?;
    outcome
}

async fn repeat(context: &Context, view: &View, resized: &mut Signal, look: &impl AsyncFn() -> Result<(), Failure>) -> Result<(), Failure> {
    loop {
        context.client.begin_round();
        let outcome = look().await;
        let frame = context.printer.take_frame();
        match outcome {
            Ok(()) => view.show(frame)?,
            Err(failure) if failure.may_pass(view.has_shown()) => view.wait_for(&failure)?,
            Err(failure) => return Err(failure),
        }
        let pause = tokio::time::sleep(view.every);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = resized.recv() => view.draw()?,
            }
        }
    }
}

/// What was seen last.
#[derive(Default)]
struct Latest {
    frame: Option<(String, Timestamp)>,
    /// Why there is nothing newer, and since when.
    trouble: Option<(String, Timestamp)>,
}

/// Where frames go.
struct View {
    server: String,
    every: Duration,
    is_table: bool,
    /// `None` where nobody looks.
    screen: Option<Screen>,
    latest: RefCell<Latest>,
}

impl View {
    fn has_shown(&self) -> bool {
        self.latest.borrow().frame.is_some()
    }

    fn show(&self, frame: String) -> Result<(), Failure> {
        if self.screen.is_none() {
            let is_next = self.has_shown();
            // Documents have separators of their own.
            let separator = if is_next && self.is_table { "\n" } else { "" };
            output::write(&format!("{separator}{frame}"))?;
        }
        let was_away = {
            let mut latest = self.latest.borrow_mut();
            latest.frame = Some((if self.screen.is_some() { frame } else { String::new() }, Timestamp::now()));
            latest.trouble.take().is_some()
        };
        if was_away && self.screen.is_none() {
            tell("drover: it answers again");
        }
        self.draw()
    }

    fn wait_for(&self, failure: &Failure) -> Result<(), Failure> {
        let is_new = {
            let mut latest = self.latest.borrow_mut();
            let since = latest.trouble.as_ref().map(|(_, since)| *since);
            latest.trouble = Some((failure.brief(), since.unwrap_or_else(Timestamp::now)));
            since.is_none()
        };
        if is_new && self.screen.is_none() {
            tell(&format!("drover: {}; trying again every {} s", failure.brief(), self.every.as_secs_f64()));
        }
        self.draw()
    }

    fn draw(&self) -> Result<(), Failure> {
        match &self.screen {
            Some(screen) => screen.draw(&self.lines()),
            None => Ok(()),
        }
    }

    /// What is on the screen: how it stands with the watch, and the last frame.
    fn lines(&self) -> Vec<String> {
        let latest = self.latest.borrow();
        let every = self.every.as_secs_f64();
        let at = latest.frame.as_ref().map(|(_, at)| format!("{at:.0}"));
        let head = match (&latest.trouble, at) {
            (None, at) => format!("{}  {}  every {every} s, until Ctrl-C", self.server, at.unwrap_or_default()),
            (Some((why, since)), None) => format!("{RED}{}{PLAIN}, since {since:.0}; trying again every {every} s", escape(why)),
            (Some((why, since)), Some(at)) => format!("{RED}{}{PLAIN}, since {since:.0}; below is how it was at {at}", escape(why)),
        };
        let frame = latest.frame.as_ref().map_or("", |(frame, _)| frame.as_str());
        [head, String::new()].into_iter().chain(frame.lines().map(str::to_owned)).collect()
    }

    /// Gives the terminal back, with what was shown last.
    fn leave(&self) -> Result<(), Failure> {
        let Some(screen) = &self.screen else { return Ok(()) };
        screen.leave();
        let mut text = screen.cut(&self.lines()).join("\n");
        text.push('\n');
        output::write(&text)
    }
}

/// The terminal's alternate screen; left when it is dropped.
struct Screen {
    terminal: Term,
    is_entered: std::cell::Cell<bool>,
}

impl Screen {
    /// Enters it; `None` where stdout is no terminal, or one that can only append.
    fn enter() -> Result<Option<Self>, Failure> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if !io::stdout().is_terminal() || is_dumb {
            return Ok(None);
        }
        output::write(ENTER)?;
        Ok(Some(Self { terminal: Term::stdout(), is_entered: std::cell::Cell::new(true) }))
    }

    /// The lines as far as they fit.
    fn cut(&self, lines: &[String]) -> Vec<String> {
        let (rows, columns) = self.terminal.size();
        cut(lines, usize::from(rows), usize::from(columns))
    }

    fn draw(&self, lines: &[String]) -> Result<(), Failure> {
        let (_, columns) = self.terminal.size();
        let columns = usize::from(columns);
        // A line that fills its row has no rest, and erasing would take its last column.
        let erased = |line: String| if measure_text_width(&line) < columns { line + ERASE_REST } else { line };
        let shown: Vec<String> = self.cut(lines).into_iter().map(erased).collect();
        output::write(&format!("{BEGIN_FRAME}{}{END_FRAME}", shown.join("\n")))
    }

    fn leave(&self) {
        if self.is_entered.replace(false) {
            // A terminal that is gone needs nothing.
            let _ = output::write(LEAVE);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The lines as far as they fit into so many rows and columns; what is left out is counted. Pure.
fn cut(lines: &[String], rows: usize, columns: usize) -> Vec<String> {
    let fit = |line: &String| truncate_str(line, columns.max(1), "…").into_owned();
    let rows = rows.max(1);
    if lines.len() <= rows {
        return lines.iter().map(fit).collect();
    }
    let hidden = lines.len() - (rows - 1);
    let mut shown: Vec<String> = lines.iter().take(rows - 1).map(fit).collect();
    shown.push(fit(&format!("… and {hidden} more lines")));
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_line_wider_than_the_terminal_cannot_wrap_and_shift_the_rest() {
        assert_eq!(cut(&lines(&["日志日志", "ab"]), 5, 5), lines(&["日志…", "ab"]));
        assert_eq!(cut(&lines(&["\u{1b}[31mfailed\u{1b}[0m x"]), 5, 4), lines(&["\u{1b}[31mfai…\u{1b}[0m"]));
    }

    #[test]
    fn rows_that_do_not_fit_are_counted() {
        assert_eq!(cut(&lines(&["a", "b", "c", "d"]), 3, 80), lines(&["a", "b", "… and 2 more lines"]));
        assert_eq!(cut(&lines(&["a", "b", "c"]), 3, 80), lines(&["a", "b", "c"]));
    }

    #[test]
    fn a_watch_without_a_pause_is_refused() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "", "2s", "1e99"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_is_larger_than_the_terminal(texts in proptest::collection::vec("[a-z日é\u{301}🦀 ]{0,40}", 0..12), rows in 0..8usize, columns in 0..30usize) {
            let shown = cut(&texts, rows, columns);
            prop_assert!(shown.len() <= rows.max(1));
            prop_assert!(shown.iter().all(|line| measure_text_width(line) <= columns.max(1)), "{shown:?}");
        }
    }
}
