//! The command line: flags, a signal to stop at, exit codes.

mod cli;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use isimud::clock::SteadyClock;
use isimud::config::{Config, Flags};
use isimud::telemetry::LogLevel;
use isimud::{Reloader, drivers, http, telemetry};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Room for documents that are as deeply nested as the API allows: they are read by recursion.
const STACK: usize = 8 << 20;

/// One Zaqar API in front of any broker.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve the API (what happens without a command, too).
    Serve(Serve),
    /// Import queues and messages from another service.
    #[cfg(feature = "import")]
    Import(isimud::import::Import),
    /// Print the OpenAPI description of the API.
    Openapi,
    /// Queues of a running service.
    #[command(subcommand)]
    Queues(cli::Queues),
    /// Pools of a running service.
    #[command(subcommand)]
    Pools(cli::Pools),
    /// Have messages flow from one queue to another, in any pools, until the first is empty.
    Bridge(cli::Bridge),
    /// Tokens for operators.
    #[command(subcommand)]
    Token(cli::Token),
    /// Configurations.
    #[command(subcommand)]
    Config(ConfigAction),
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Translate the configuration of a Zaqar.
    Import(cli::zaqar_conf::Import),
}

#[derive(Debug, Args)]
struct Serve {
    /// Where to serve the API [default: 127.0.0.1:8888].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where to serve metrics, liveness and readiness [default: nowhere].
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// URI of the message store [default: sqlite:data/isimud.db].
    #[arg(long, value_name = "URI")]
    store: Option<String>,
    /// URI of the management store (queue metadata) [default: same as --store].
    #[arg(long, value_name = "URI")]
    management: Option<String>,
    /// A configuration file; config/default.toml lists all keys.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, and stop.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let done = match command.action {
        Some(Action::Openapi) => openapi(),
        Some(Action::Queues(action)) => ask(cli::queues(action)),
        Some(Action::Pools(action)) => ask(cli::pools(action)),
        Some(Action::Bridge(action)) => ask(cli::bridge(action)),
        Some(Action::Token(action)) => cli::token(action),
        Some(Action::Config(ConfigAction::Import(import))) => return translate(&import),
        #[cfg(feature = "import")]
        Some(Action::Import(import)) => return take_over(import),
        Some(Action::Serve(serve)) => run(serve),
        None => run(command.serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&*error),
    }
}

fn failure(error: &dyn std::error::Error) -> ExitCode {
    output::complain(error.to_string().replace('\n', " "));
    ExitCode::FAILURE
}

/// Translates the configuration of a Zaqar. The exit code is that of the translation.
fn translate(import: &cli::zaqar_conf::Import) -> ExitCode {
    let server = cli::zaqar_conf::Server {
        defaults: isimud::config::DEFAULTS,
        operations: &http::policy::operations(),
        check_policies: |text| http::policy::check(text).map_err(|error| error.to_string()),
        check_store: |uri| drivers::check(uri).map_err(|error| error.to_string()),
        check: |text| isimud::config::check_text(text).map_err(|error| error.to_string()),
    };
    let surroundings = cli::zaqar_conf::Surroundings::of_process();
    let outcome = match cli::zaqar_conf::run(import, server, &surroundings) {
        Ok(outcome) => outcome,
        Err(error) => {
            error.sentences.iter().for_each(output::complain);
            return ExitCode::from(error.code);
        }
    };
    eprint!("{}", outcome.report);
    for command in outcome.next {
        eprintln!("next: {command}");
    }
    match output::print(outcome.printed.unwrap_or_default()) {
        Ok(()) => ExitCode::from(outcome.code),
        Err(error) => failure(&error),
    }
}

/// The exit code of an import that left something behind.
#[cfg(feature = "import")]
const LEFT_BEHIND: u8 = 3;

#[cfg(feature = "import")]
fn take_over(import: isimud::import::Import) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    match runtime.block_on(import_until_told(import)) {
        Ok(isimud::import::Outcome { report, error }) => {
            // What was done is told also of an import that did not come to its end.
            if !report.is_empty()
                && let Err(error) = output::print(&report)
            {
                return failure(&error);
            }
            match error {
                Some(error) => failure(&error),
                None if report.is_complete() => ExitCode::SUCCESS,
                None => ExitCode::from(LEFT_BEHIND),
            }
        }
        Err(error) => failure(&*error),
    }
}

/// Imports; at the first signal it stores what it has read and ends, at the second it ends at once.
#[cfg(feature = "import")]
async fn import_until_told(
    import: isimud::import::Import,
) -> Result<isimud::import::Outcome, Failure> {
    let stop = isimud::import::Stop::default();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let told = stop.clone();
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if is_first {
                eprintln!(
                    "isimud: the import ends with what it has read; once more ends it at once"
                );
                told.tell();
            }
        }
        std::process::exit(1);
    });
    Ok(isimud::import::run(import, stop).await?)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .build()
}

type Failure = Box<dyn std::error::Error>;

fn ask(what: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(what)
}

fn openapi() -> Result<(), Failure> {
    output::line(http::openapi::document().to_pretty_json()?)?;
    Ok(())
}

fn run(serve: Serve) -> Result<(), Failure> {
    let Serve {
        listen,
        admin_listen,
        store,
        management,
        config,
        check,
    } = serve;
    let flags = Flags {
        config,
        listen,
        admin_listen,
        store,
        management,
    };
    let config = Config::load(&flags)?;
    for uri in std::iter::once(&config.store).chain(&config.management) {
        drivers::check(uri)?;
        drivers::check_files(uri)?;
    }
    drivers::check_management(config.management.as_ref().unwrap_or(&config.store))?;
    config.check_files()?;
    for (name, pool) in &config.declared.pools {
        let (uri, options) = (pool.uri.as_deref(), pool.options.clone());
        drivers::check_pool(uri.unwrap_or_default(), &options.unwrap_or_default())
            .map_err(|error| format!("pool '{name}': {error}"))?;
    }
    if check {
        return check_config(&config);
    }
    let level = telemetry::start_logging(&config.log)?;
    runtime()?.block_on(serve_until_told(&config, flags, level))
}

/// Says what a start would say, as far as that can be known without opening anything.
fn check_config(config: &Config) -> Result<(), Failure> {
    let mut notes = Vec::new();
    for uri in std::iter::once(&config.store).chain(&config.management) {
        let note = drivers::inspect(uri)?;
        notes.extend(note.map(|note| format!("{}: {note}", drivers::shown(uri))));
    }
    for (name, pool) in &config.declared.pools {
        let (uri, options) = (pool.uri.as_deref(), pool.options.clone());
        let note = drivers::inspect_pool(uri.unwrap_or_default(), &options.unwrap_or_default())
            .map_err(|error| format!("pool '{name}': {error}"))?;
        notes.extend(note.map(|note| format!("pool '{name}': {note}")));
    }
    for warning in config.warnings() {
        output::complain(format!("warning: {warning}"));
    }
    for note in notes {
        output::line(note)?;
    }
    output::line("configuration OK")?;
    Ok(())
}

async fn serve_until_told(config: &Config, flags: Flags, level: LogLevel) -> Result<(), Failure> {
    // Before all else: from here on it is no reason to end.
    let hangup = signal(SignalKind::hangup())?;
    ignore_what_means_nothing()?;
    // The ports first: a second server on the same port must not touch the store.
    let listener = bind(config.listen).await?;
    let admin = match config.admin_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let websocket = match config.websocket_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let service = isimud::open(config, Arc::new(SteadyClock::default()))?;
    tokio::spawn(reload_when_told(hangup, flags, level, service.reloader()));
    let (say_stop, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => signals += 1,
                _ = interrupt.recv() => signals += 1,
            }
            if signals > 1 {
                tracing::warn!("second signal received, exiting immediately");
                std::process::exit(1);
            }
            tracing::info!("stopping: finishing requests under way");
            say_stop.send_replace(true);
        }
    });
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    tracing::info!(address = %listener.local_addr()?, store = drivers::shown(&config.store), "serving");
    if let Some(websocket) = &websocket {
        tracing::info!(address = %websocket.local_addr()?, "serving WebSockets");
    }
    let listeners = isimud::Listeners {
        api: listener,
        admin,
        websocket,
    };
    isimud::serve(config, service, listeners, stop).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Has signals that other programs give a meaning (SIGUSR1, SIGUSR2, SIGALRM) end nothing here: a script that rotates logs
/// may send one to every service. A handler that was registered once stays, also when nobody listens to it.
fn ignore_what_means_nothing() -> std::io::Result<()> {
    for kind in [
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::alarm(),
    ] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// On SIGHUP reads the configuration again, and takes over what can be changed while the service runs.
async fn reload_when_told(mut hangup: Signal, flags: Flags, level: LogLevel, service: Reloader) {
    while hangup.recv().await.is_some() {
        let again = flags.clone();
        // It reads files and looks up names.
        let loaded = tokio::task::spawn_blocking(move || Config::load(&again)).await;
        let loaded = loaded.map_err(|error| error.to_string());
        let taken = loaded
            .and_then(|config| config.map_err(|error| error.to_string()))
            .and_then(|config| {
                level.set(&config.log).map_err(|error| error.to_string())?;
                service.reload(&config);
                Ok(())
            });
        match taken {
            Ok(()) => tracing::info!(
                "the configuration was read again: policies, limits, quotas, TLS certificates, tokens of operators and log.level are as it says now; everything else needs a restart"
            ),
            Err(error) => tracing::error!(%error, "reload failed: the configuration is unchanged"),
        }
    }
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}").into())
}
