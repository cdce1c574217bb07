//! Arguments, logging, the runtime and exit codes. No logic.
//!
//! Guarantees one line of the log for each event: what records, servers and files say cannot begin a line of its own or steer a terminal.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use drover::demo::screen::Screen;
use drover::demo::{Demo, DemoOptions};
use drover::{api, app, cli, config};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};

/// librdkafka allocates in its broker threads and frees in ours; one allocator that also replaces C's serves both (10 to 20 % of CPU, measured).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keeps Kafka topics flowing into Elasticsearch or OpenSearch.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, args_conflicts_with_subcommands = true, after_long_help = EXIT_CODES)]
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
    /// Shows drover at work without any server: a Kafka cluster in this process, made-up records, files
    Demo(DemoArgs),
    /// Checks a configuration file and prints every problem with its place and remedy
    CheckConfig(CheckArgs),
    #[command(flatten)]
    Client(Box<cli::Command>),
    /// Prints the OpenAPI document
    Openapi,
    /// Prints the completions for a shell
    #[command(after_long_help = "Example:\n  drover completions bash > /etc/bash_completion.d/drover")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file
    #[arg(long, env = "DROVER_CONFIG", default_value = config::DEFAULT_PATH, value_name = "FILE")]
    config: PathBuf,
    /// The address of the API and the page, instead of the configuration's
    // Read by `run` alone: what the environment says of a run must not keep any other command from working.
    #[arg(long, env = "DROVER_LISTEN", value_name = "ADDR")]
    listen: Option<String>,
    /// Allows an address that others can reach although there are no tokens
    #[arg(long)]
    insecure: bool,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// The folder for the configuration, the state and the output; the next start goes on with it
    #[arg(long, default_value = "./drover-demo", value_name = "DIR")]
    dir: PathBuf,
    /// The address of the API and the page [default: the configuration's, at first 127.0.0.1:8080]
    #[arg(long, env = "DROVER_LISTEN", value_name = "ADDR", value_parser = config::listen_address)]
    listen: Option<SocketAddr>,
    /// Allows an address that others can reach although there are no tokens
    #[arg(long)]
    insecure: bool,
    /// Crashes no task on purpose
    #[arg(long)]
    calm: bool,
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
/// What the exit codes mean (the design, section 7).
const EXIT_CODES: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 unhealthy with --fail-on, 4 not found, 5 conflict, 69 unreachable, 78 bad configuration.

Examples:
  drover run --config /etc/drover/config.yaml
  drover topics add orders --format json --wait
  drover status --server http://10.0.0.7:8080";
/// What helps who has no configuration yet.
const WITHOUT_CONFIGURATION: &str = "\
To see drover at work without any server:     drover demo
To begin with a configuration:                copy config.example.yaml to config.yaml, then drover check-config
To ask a drover that runs already:            drover status --server http://HOST:PORT
All commands:                                 drover --help";
/// What blocking calls get to end, once everything else has.
const LAST_GRACE: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    // Faults that FAILPOINTS names are in force until the process ends.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(arguments) => run(arguments),
        Command::Demo(arguments) => demo(arguments),
        Command::CheckConfig(arguments) => check_config(&arguments),
        Command::Client(command) => client(*command),
        Command::Openapi => ExitCode::from(cli::print(&api::document_text())),
        Command::Completions { shell } => completions(shell),
    }
}

fn run(arguments: RunArgs) -> ExitCode {
    let listen = arguments.listen.as_deref().map(config::listen_address).transpose().unwrap_or_else(|error| {
        let told = format!("the address of --listen or DROVER_LISTEN: {error}");
        Cli::command().error(clap::error::ErrorKind::ValueValidation, told).exit()
    });
    let environment = |name: &str| std::env::var(name).ok();
    let loaded = match config::load(&arguments.config, &environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{}", config::check::text(&error));
            let is_default = arguments.config == std::path::Path::new(config::DEFAULT_PATH);
            if is_default && matches!(error, config::LoadError::Unreadable { .. }) {
                eprintln!("{WITHOUT_CONFIGURATION}");
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let log_level = start_logging(loaded.config.log_level.as_deref());
    log_panics();
    let options = app::Options { listen, insecure: arguments.insecure, ..app::Options::new(arguments.config, log_level) };
    let result = until_signalled(async |signals| app::run(loaded, options, signals).await);
    match result {
        Ok(Ok(end)) => code_of(end),
        Ok(Err(error)) => {
            eprintln!("drover: {}", drover::causes::chain(&error));
            ExitCode::from(error.exit_code())
        }
        Err(code) => code,
    }
}

fn demo(arguments: DemoArgs) -> ExitCode {
    let DemoArgs { dir, listen, insecure, calm } = arguments;
    let program = std::env::args().next().unwrap_or_else(|| "drover".to_owned());
    let prepared = match Demo::prepare(DemoOptions { dir, listen, insecure, calm, program }) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("{}", error.text());
            return ExitCode::from(error.exit_code());
        }
    };
    let screen = Screen::stderr();
    let above = screen.clone();
    let log_level = start_logging_to(prepared.log_level().unwrap_or(screen.log_filter()), move || above.writer());
    log_panics();
    let result = until_signalled(async |signals| prepared.run(&screen, log_level, signals).await);
    match result {
        Ok(Ok(end)) => code_of(end),
        Ok(Err(error)) => {
            eprintln!("{}", error.text());
            ExitCode::from(error.exit_code())
        }
        Err(code) => code,
    }
}

/// Gives `work` a runtime and the signals that end it. An error is the exit code when there are none.
fn until_signalled<T>(work: impl AsyncFnOnce(app::Signals) -> T) -> Result<T, ExitCode> {
    let cannot = |what: &str, error: std::io::Error| {
        eprintln!("drover: {what}: {error}");
        ExitCode::FAILURE
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(app::worker_threads()).enable_all().build();
    let runtime = runtime.map_err(|error| cannot("the runtime cannot start", error))?;
    let result = runtime.block_on(async { Ok(work(app::signals()?).await) });
    // Questions to servers that do not answer have threads of their own, which are not waited for.
    runtime.shutdown_timeout(LAST_GRACE);
    result.map_err(|error| cannot("signals cannot be heard", error))
}

fn code_of(end: app::End) -> ExitCode {
    match end {
        app::End::Clean => ExitCode::SUCCESS,
        app::End::Leftovers => ExitCode::FAILURE,
    }
}

fn check_config(arguments: &CheckArgs) -> ExitCode {
    let path = arguments.file.as_ref().or(arguments.config.as_ref());
    let path = path.cloned().unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATH));
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

/// A command for a running drover.
fn client(command: cli::Command) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli::run(command));
            runtime.shutdown_timeout(LAST_GRACE);
            ExitCode::from(code)
        }
        Err(error) => {
            eprintln!("drover: the runtime cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "drover", &mut script);
    ExitCode::from(cli::print(&String::from_utf8_lossy(&script)))
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
fn start_logging(configured: Option<&str>) -> Arc<dyn api::LogLevel> {
    start_logging_to(configured.unwrap_or("info"), std::io::stderr)
}

/// The same through `writer`, which leads to stderr.
fn start_logging_to(filter: &str, writer: impl for<'writer> MakeWriter<'writer> + Send + Sync + 'static) -> Arc<dyn api::LogLevel> {
    let asked = std::env::var("DROVER_LOG").ok().filter(|text| !text.is_empty());
    let parsed = asked.as_deref().map(EnvFilter::try_new);
    let refused = parsed.as_ref().and_then(|parsed| parsed.as_ref().err()).map(ToString::to_string);
    let filter = parsed.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(filter));
    // https://no-color.org: set and not empty.
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|text| !text.is_empty());
    let has_colours = !is_plain && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let shown = filter.to_string();
    let log =
        tracing_subscriber::fmt().fmt_fields(OneLine).with_env_filter(filter).with_writer(writer).with_ansi(has_colours).with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    if let Some(error) = refused {
        tracing::warn!(error, "DROVER_LOG is no filter and is passed over; write it as info,drover::sink=debug");
    }
    Arc::new(RunningLog { shown: Mutex::new(shown), reload: Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())) })
}

/// The log that was begun, whose filter can be another.
struct RunningLog {
    shown: Mutex<String>,
    reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
}

impl fmt::Debug for RunningLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningLog").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl api::LogLevel for RunningLog {
    fn filter(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, filter: &str) -> Result<(), String> {
        let parsed = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        // Held over the change, so that two at once are shown in the order in which they came.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        (self.reload)(parsed)?;
        filter.clone_into(&mut shown);
        Ok(())
    }
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
