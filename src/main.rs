//! Arguments, logging, the runtime and exit codes. No logic.
//!
//! Guarantees one line of the log for each event: what records, servers and files say cannot begin a line of its own or steer a terminal.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use drover::{api, app, config};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// librdkafka allocates in its broker threads and frees in ours; one allocator that also replaces C's serves both (10 to 20 % of CPU, measured).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps Kafka topics flowing into Elasticsearch or OpenSearch.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs drover (the default)
    Run(RunArgs),
    /// Checks a configuration file and prints every problem with its place and remedy
    CheckConfig(CheckArgs),
    /// Prints the OpenAPI document
    Openapi,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file
    #[arg(long, env = "DROVER_CONFIG", default_value = "config.yaml", value_name = "FILE")]
    config: PathBuf,
    /// The address of the API and the page, instead of the configuration's
    #[arg(long, env = "DROVER_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Allows an address that others can reach although there are no tokens
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The configuration file
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The configuration file
    #[arg(long, env = "DROVER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also asks the servers that the file names whether they answer
    #[arg(long)]
    probe: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The configuration is not usable (sysexits' `EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;
/// What blocking calls get to end, once everything else has.
const LAST_GRACE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    // Faults that FAILPOINTS names are in force until the process ends.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(arguments) => run(arguments),
        Command::CheckConfig(arguments) => check_config(&arguments),
        Command::Openapi => {
            print!("{}", api::document_text());
            ExitCode::SUCCESS
        }
    }
}

fn run(arguments: RunArgs) -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    let loaded = match config::load(&arguments.config, &environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{}", config::check::text(&error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    start_logging(loaded.config.log_level.as_deref());
    log_panics();
    let options = app::Options { config_path: arguments.config, listen: arguments.listen, insecure: arguments.insecure, topic_ids: true };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(app::worker_threads()).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("drover: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let signals = app::signals().map_err(|source| app::StartError::Setup { part: "signal handling", source: source.into() })?;
        app::run(loaded, options, signals).await
    });
    // Questions to servers that do not answer have threads of their own, which are not waited for.
    runtime.shutdown_timeout(LAST_GRACE);
    match result {
        Ok(app::End::Clean) => ExitCode::SUCCESS,
        Ok(app::End::Leftovers) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("drover: {}", drover::causes::chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn check_config(arguments: &CheckArgs) -> ExitCode {
    let path = arguments.file.as_ref().or(arguments.config.as_ref());
    let path = path.cloned().unwrap_or_else(|| PathBuf::from("config.yaml"));
    let format = if arguments.output == Output::Json { config::check::Format::Json } else { config::check::Format::Text };
    let result = config::check::check(&path, jiff::Timestamp::now());
    let mut unreachable = None;
    if let Ok(loaded) = &result
        && arguments.probe
    {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("drover: the runtime cannot start: {error}");
                return ExitCode::FAILURE;
            }
        };
        unreachable = Some(runtime.block_on(app::probe(&loaded.config)));
    }
    let (report, code) = config::check::report(&path, &result, unreachable.as_deref(), format);
    print!("{report}");
    ExitCode::from(code)
}

/// A panic is one line of the log, with its place; what follows from it is the supervisor's.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(message, place, "panicked");
    }));
}

/// Logs go to stderr; `DROVER_LOG` wins over the file's level.
fn start_logging(configured: Option<&str>) {
    let filter = EnvFilter::try_from_env("DROVER_LOG").unwrap_or_else(|_| EnvFilter::new(configured.unwrap_or("info")));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().fmt_fields(OneLine).with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).init();
}

/// Formats fields and messages as the default does, with control characters escaped. Colours of the level and the time come from elsewhere and stay.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut escaping = Escaping(writer);
        let mut visitor = DefaultVisitor::new(Writer::new(&mut escaping), true);
        fields.record(&mut visitor);
        visitor.finish()
    }
}

/// Writes control characters, and the line breaks of Unicode, as Rust writes them in source text.
struct Escaping<'writer>(Writer<'writer>);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_harmful = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        let mut rest = text;
        while let Some(at) = rest.find(is_harmful) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            let mut after = from.chars();
            if let Some(harmful) = after.next() {
                write!(self.0, "{}", harmful.escape_default())?;
            }
            rest = after.as_str();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(ansi: bool, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().fmt_fields(OneLine).with_writer(move || writer.clone()).with_ansi(ansi).finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    const FORGED: &str = "end\n2026-01-31T00:00:00Z ERROR forged\r\u{1b}[2J\u{9b}1m\u{2028}é";

    #[test]
    fn a_text_that_forges_a_line_or_steers_the_terminal_is_escaped() {
        let error = io::Error::other(FORGED);
        let cause: &(dyn std::error::Error + 'static) = &error;
        let log = logged(false, || {
            let span = tracing::info_span!("part", name = %FORGED);
            let _inside = span.enter();
            tracing::warn!(shown = %FORGED, debug = ?FORGED, text = FORGED, cause, "said {FORGED}");
        });
        let (line, rest) = log.split_once('\n').expect("a line");
        assert_eq!(rest, "");
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{2028}'), "{line:?}");
        assert!(line.contains("said end\\n2026-01-31T00:00:00Z ERROR forged\\r") && line.contains("shown=end\\n") && line.contains('é'), "{line}");
    }

    #[test]
    fn on_a_terminal_only_the_formatters_own_colours_are_left() {
        let log = logged(true, || tracing::warn!(shown = %FORGED, "said {FORGED}"));
        assert_eq!(log.matches('\n').count(), 1, "{log:?}");
        assert!(log.contains("\u{1b}[33m") && !log.contains("\u{1b}[2J") && !log.contains('\u{9b}'), "{log:?}");
    }
}
