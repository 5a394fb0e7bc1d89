//! Loads servers over HTTP and says how many requests they answer for a second of processor time.
//!
//! # What is measured
//!
//! Every server is a process of its own. While one is loaded the others stay up and idle, and the rounds of a
//! scenario go from server to server, so that a machine that slows down slows all of them. For each window the
//! generator reads the processor time of the server's process from `/proc` (user and system, all threads) and the time
//! that each exchange took. The tables show medians over the rounds.
//!
//! `baseline` is an HTTP handler that does nothing and answers with as many bytes ([`baseline`]). The share of the
//! baseline's requests per CPU-second is the number to watch: HTTP, the kernel's sockets and the machine are in both.
//!
//! On Redis (`--redis`) the Redis process is charged to whom it works for. `redis-baseline` is a handler that runs the
//! driver's scripts through one connection and does nothing else ([`scripted`]); with `--reference` the reference
//! implementation takes its turns on the same Redis, in a database of its own.
//!
//! On RabbitMQ (`--rabbitmq`) its process is charged in the same way, with the journal (`amqp`) and without
//! (`amqp-unlisted`). Beside the service stand the bare client and RabbitMQ's own API over HTTP ([`rabbit`]), and what is
//! compared is cycles, since those have no claims that would take two requests.
//!
//! # What is not
//!
//! The generator is a closed loop: each connection sends its next request when it has read the last answer, so a slow
//! server is asked less often, and p50 at 64 connections is mostly queueing. It runs on one thread of the same
//! machine, beside the server; the requests a second are what the two of them reach together. `--connections 1` shows
//! the time of a lone request. Client libraries, TLS and the network are left out.
//!
//! # The map
//!
//! ```text
//! main.rs      flags; which servers, scenarios, rounds
//! server.rs    a server as a child process: start, processor time, stop
//! baseline.rs  the server that does nothing
//! redis.rs     a Redis of the bench's own
//! rabbit.rs    a RabbitMQ of its own, and who uses it without a service
//! scripted.rs  the server that does nothing but run scripts on it
//! reference.rs the reference implementation on it
//! wire.rs      a connection: request bytes out, an HTTP/1.1 answer in, timed
//! zaqar.rs     the requests of the API, and what a right answer is
//! drive.rs     the closed loop over all connections
//! scenario.rs  what clients do: post, claim and delete, list, ...
//! depth.rs     does an operation cost more in a deep queue (`--depth`)
//! report.rs    medians and tables
//! ```

mod baseline;
mod depth;
mod drive;
mod rabbit;
mod redis;
mod reference;
mod report;
#[path = "../../backends/amqp/benches/rivals/mod.rs"]
mod rivals;
mod scenario;
mod scripted;
mod server;
mod wire;
mod zaqar;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::drive::Pool;
use crate::rabbit::{Rabbit, Turn};
use crate::redis::Redis;
use crate::report::{Table, Window};
use crate::scenario::{Scenario, Stage};
use crate::server::{Attached, Ground, Kind, Server};

/// The server's allocator, for the baseline too: it is no part of what the two are compared for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A failure ends the run; its text is all that is left to say.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures servers of the messaging API, beside an HTTP handler that does nothing.
#[derive(Debug, Parser)]
struct Options {
    /// The servers to start [default: baseline,memory,durable].
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// The servers baseline,redis-baseline,redis, on a Redis that is started here (needs redis-server).
    #[arg(long)]
    redis: bool,
    /// The same, and the reference implementation.
    #[arg(long)]
    reference: bool,
    /// The servers baseline,lapin,amqp,amqp-unlisted,management, on a RabbitMQ that is started here (needs
    /// rabbitmq-server).
    #[arg(long)]
    rabbitmq: bool,
    /// A server that runs already, and the processes whose time it costs: NAME=ADDRESS@PID[+PID...].
    #[arg(long, value_name = "SERVER")]
    attach: Vec<Attached>,
    /// A token of Keystone's that all requests carry. The attached servers that know it answer for its project.
    #[arg(long)]
    token: Option<String>,
    /// Only these scenarios.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCENARIO")]
    only: Vec<Scenario>,
    /// Instead of the scenarios: the same operations in queues of different depth (takes minutes).
    #[arg(long)]
    depth: bool,
    /// Keep-alive connections, all busy.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Windows a scenario and server; medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of a window.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    window: f64,
    /// Messages laid in before a window that uses them up; the window ends when they are gone.
    #[arg(long, default_value_t = 400_000, value_name = "MESSAGES")]
    stock: u64,
    /// Folder for the databases. What `durable` costs depends on the disk under it.
    #[arg(long, value_name = "FOLDER", default_value = env!("CARGO_TARGET_TMPDIR"))]
    data: PathBuf,
    /// The virtual environment with the reference implementation and uWSGI.
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/../reference-venv"))]
    reference_venv: PathBuf,
    /// Be the no-op server.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    serve_baseline: Option<SocketAddr>,
    /// Be the server that does nothing but run scripts.
    #[arg(long, hide = true, value_name = "URI")]
    on_redis: Option<String>,
    /// Be the bare client of RabbitMQ.
    #[arg(long, hide = true, value_name = "URI")]
    on_rabbit: Option<String>,
    /// Be a client of RabbitMQ's own API over HTTP.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    on_management: Option<SocketAddr>,
    /// Passed by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A server and the connections to it.
struct Target {
    server: Server,
    pool: Pool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match (
        options.serve_baseline,
        &options.on_redis,
        &options.on_rabbit,
    ) {
        (Some(address), Some(redis), _) => scripted::serve(address, redis),
        (Some(address), None, Some(rabbit)) => {
            let callers = options.connections.into();
            rabbit::serve(address, rabbit, options.on_management, callers)
        }
        (Some(address), None, None) => baseline::serve(address),
        _ => load(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the generator on this thread alone, until it is done or interrupted. Either way the servers end with it.
fn load(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = run(options) => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    })
}

async fn run(options: &Options) -> Result<()> {
    let redis = options
        .servers()
        .iter()
        .any(|kind| kind.on_redis())
        .then(|| Redis::start(&options.data))
        .transpose()?;
    let redis = redis.as_ref();
    let rabbit = options
        .servers()
        .iter()
        .any(|kind| kind.on_rabbit())
        .then(Rabbit::start)
        .transpose()?;
    let mut targets = start(options, redis, rabbit.as_ref()).await?;
    if options.depth {
        println!("{}", report::depth_header(options.connections));
        for target in targets.iter_mut().filter(|target| target.server.keeps) {
            depth::compare(target, redis).await?;
        }
    } else {
        let sync = server::sync_time(&options.data)?;
        println!("{}", report::header(options, sync));
        for scenario in options.scenarios() {
            measure(scenario, &mut targets, redis, options).await?;
        }
    }
    for Target { server, pool } in targets {
        drop(pool);
        server.stop()?;
    }
    Ok(())
}

/// Starts every server that was asked for and connects to it.
async fn start(
    options: &Options,
    redis: Option<&Redis>,
    rabbit: Option<&Rabbit>,
) -> Result<Vec<Target>> {
    let ground = Ground {
        data: &options.data,
        redis,
        rabbit,
        connections: options.connections,
        reference: &options.reference_venv,
    };
    if let Some(token) = &options.token {
        zaqar::send_token(token);
    }
    let mut servers = Vec::new();
    for kind in options.servers() {
        servers.push(Server::start(kind, &ground).await?);
    }
    servers.extend(options.attach.iter().cloned().map(Server::from));
    let mut targets = Vec::new();
    for server in servers {
        let pool = Pool::open(server.address, options.connections).await?;
        targets.push(Target { server, pool });
    }
    Ok(targets)
}

/// Takes the rounds of one scenario from server to server and prints its table.
async fn measure(
    scenario: Scenario,
    targets: &mut [Target],
    redis: Option<&Redis>,
    options: &Options,
) -> Result<()> {
    let window = Duration::try_from_secs_f64(options.window)?;
    let mut table = Table::new(scenario.title());
    for _ in 0..options.rounds {
        for target in &mut *targets {
            if target.server.is_rival && Turn::beside(scenario).is_none() {
                continue;
            }
            let window = play(scenario, target, options.stock, window)
                .await
                .map_err(|error| target.server.failure(&format!("failed: {error}")))?;
            redis.map(Redis::rest).transpose()?;
            table.add(&target.server.name, window);
        }
    }
    println!("{table}");
    Ok(())
}

/// One window on one server.
async fn play(
    scenario: Scenario,
    Target { server, pool }: &mut Target,
    stock: u64,
    window: Duration,
) -> Result<Window> {
    let stock = stock / if server.slow { 20 } else { 1 };
    let stock = stock / if server.on_rabbit { 10 } else { 1 };
    if let Some(turn) = Turn::beside(scenario).filter(|_| server.is_rival) {
        if turn == Turn::Take {
            rabbit::lay_in(pool, stock).await?;
        }
        rabbit::play_on(pool, turn, window / 10).await?;
        let before = server.cost()?;
        let outcome = rabbit::play_on(pool, turn, window).await?;
        return Ok(Window::new(&outcome, server.cost()?.since(before), 0));
    }
    let stage = Stage::set(scenario, pool, stock, server.slow).await?;
    stage.play(pool, window / 10).await?; // caches, allocators and branch predictors warm up
    let (before, refused) = (server.cost()?, stage.refused());
    let outcome = stage.play(pool, window).await?;
    let cost = server.cost()?.since(before);
    let refused = stage.refused() - refused;
    stage.clear(pool, server.keeps).await?;
    Ok(Window::new(&outcome, cost, refused))
}

impl Options {
    fn servers(&self) -> Vec<Kind> {
        use Kind::{Amqp, AmqpUnlisted, Baseline, Lapin, Management};
        let mut servers = match (self.servers.is_empty(), self.redis || self.reference) {
            (false, _) => self.servers.clone(),
            (true, true) => vec![Kind::Baseline, Kind::RedisBaseline, Kind::Redis],
            (true, false) if self.rabbitmq => vec![Baseline, Lapin, Amqp, AmqpUnlisted, Management],
            (true, false) => vec![Kind::Baseline, Kind::Memory, Kind::Durable],
        };
        if self.reference && !servers.contains(&Kind::Reference) {
            servers.push(Kind::Reference);
        }
        servers
    }

    fn scenarios(&self) -> Vec<Scenario> {
        if self.only.is_empty() && self.rabbitmq {
            vec![Scenario::Post, Scenario::ClaimDelete, Scenario::Pop]
        } else if self.only.is_empty() {
            clap::ValueEnum::value_variants().to_vec()
        } else {
            self.only.clone()
        }
    }
}
