//! Arguments, logging, the runtime and exit codes. No logic.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use drover::{api, app, config};
use tracing_subscriber::EnvFilter;

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
/// A server does not answer (sysexits' `EX_UNAVAILABLE`).
const EXIT_UNREACHABLE: u8 = 69;

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
            eprintln!("drover: {}", app::chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn check_config(arguments: &CheckArgs) -> ExitCode {
    let path = arguments.file.as_ref().or(arguments.config.as_ref());
    let path = path.cloned().unwrap_or_else(|| PathBuf::from("config.yaml"));
    let format = if arguments.output == Output::Json { config::check::Format::Json } else { config::check::Format::Text };
    let (report, code) = config::check::report(&path, format, jiff::Timestamp::now());
    print!("{report}");
    if code != 0 || !arguments.probe {
        return ExitCode::from(code);
    }
    let silent = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(app::probe(&path)),
        Err(error) => vec![format!("the runtime cannot start: {error}")],
    };
    for server in &silent {
        eprintln!("{server}");
    }
    if silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNREACHABLE) }
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
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).init();
}
