//! What notifications cost: processor time for a delivery, beside a bare HTTP client that posts the same bodies; and the
//! time of a post, with and without subscribers.
//!
//! The server and the bare client are processes of their own, whose time is read from `/proc`; the receiver is a thread
//! of this one. A delivery's time is that of posting and delivering, less that of posting as much to a queue that nobody
//! listens to: writing the outbox and the lines is in it, HTTP to the receiver is in it, the client's own post is not.
//!
//! Posts are timed at a steady rate, below what the machine can do: a closed loop would time the queue in front of two
//! processors that also deliver.
//!
//! ```text
//! cargo bench --bench notifications                      in memory and on disk, 1 and 20 subscribers
//! cargo bench --bench notifications -- --messages 50000
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The server's allocator, for the bare client too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A failure ends the run; its text is all that is left to say.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The unit of processor time in `/proc/<pid>/stat`: `getconf CLK_TCK`, 100 on every Linux of our day.
const TICKS_PER_SEC: f64 = 100.0;
/// Bytes of text in a message's body.
const TEXT: usize = 200;

#[derive(Debug, Parser)]
struct Options {
    /// Notifications of a round.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Posts a second while posts are timed.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Be the bare client: ADDRESS and how many.
    #[arg(long, hide = true, num_args = 2)]
    bare: Option<Vec<String>>,
    /// Passed by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.bare {
        Some(words) => bare(words),
        None => run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notify: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let receiver = Receiver::start()?;
    let bare = rate_of_bare(&receiver, options.messages)?;
    println!("bare client: {bare:.0} posts per CPU-second");
    for (name, store) in [("memory", "sqlite::memory:"), ("disk", "sqlite:isimud.db")] {
        for subscribers in [1, 20] {
            let rate = deliveries(&receiver, store, subscribers, options.messages)?;
            println!(
                "{name}, {subscribers} subscribers: {rate:.0} deliveries per CPU-second, {:.0} % of the bare client",
                100.0 * rate / bare
            );
        }
        let alone = times(&receiver, store, 0, options.rate)?;
        let heard = times(&receiver, store, 1, options.rate)?;
        println!("{name}, time of a post: {alone} alone, {heard} with a subscriber");
    }
    Ok(())
}

/// The document of a notification of `number`.
fn body(number: u64) -> Value {
    json!({"n": number, "text": "x".repeat(TEXT)})
}

/// Posts what notifications would say, one after the other, and prints the processor time that it took.
fn bare(words: &[String]) -> Result<()> {
    let [address, count] = words else {
        return Err("an address and a number".into());
    };
    let (address, count): (SocketAddr, u64) = (address.parse()?, count.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        for number in 0..count {
            let document = json!({"ttl": 3600, "body": body(number), "Message_Type": "Notification", "queue_name": "q"});
            let request = Request::post(format!("http://{address}/bare"))
                .header("content-type", "application/json")
                .body(Full::from(document.to_string()))?;
            client.request(request).await?.into_body().collect().await?;
        }
        println!("{}", cpu(std::process::id())?);
        Ok(())
    })
}

fn rate_of_bare(receiver: &Receiver, count: u64) -> Result<f64> {
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .args(["--bare", &receiver.address.to_string(), &count.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let secs: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
    Ok(count as f64 / secs)
}

/// Seconds of processor time that a process has used.
fn cpu(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").ok_or("no end of a name")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / TICKS_PER_SEC)
}

/// Deliveries for a second of processor time.
fn deliveries(receiver: &Receiver, store: &str, subscribers: u64, count: u64) -> Result<f64> {
    let posts = count / subscribers;
    let mut spent = [0.0; 2];
    for (round, subscribed) in [0, subscribers].into_iter().enumerate() {
        let server = Server::start(store)?;
        let mut client = server.client()?;
        server.subscribe(&mut client, receiver, subscribed)?;
        let (before, seen) = (cpu(server.process.id())?, receiver.count());
        for first in (0..posts).step_by(20) {
            let messages: Vec<Value> = (first..first + 20)
                .map(|number| json!({"ttl": 3600, "body": body(number)}))
                .collect();
            client.send(
                "POST",
                "/v2/queues/q/messages",
                &json!({"messages": messages}),
            )?;
        }
        receiver.wait_for(seen + posts.div_ceil(20) * 20 * subscribed)?;
        if subscribed > 0 {
            // The last deletes come after the last deliveries.
            thread::sleep(Duration::from_millis(300));
        }
        spent[round] = cpu(server.process.id())? - before;
    }
    Ok((posts.div_ceil(20) * 20 * subscribers) as f64 / (spent[1] - spent[0]))
}

/// The times of posts at a steady rate, in milliseconds.
fn times(receiver: &Receiver, store: &str, subscribers: u64, rate: u32) -> Result<String> {
    let server = Server::start(store)?;
    let mut client = server.client()?;
    server.subscribe(&mut client, receiver, subscribers)?;
    let pace = Duration::from_secs(1) / rate;
    let mut times = Vec::new();
    let start = Instant::now();
    for number in 0..rate * 10 {
        let due = start + pace * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let document = json!({"messages": [{"ttl": 3600, "body": body(number.into())}]});
        let sent = Instant::now();
        client.send("POST", "/v2/queues/q/messages", &document)?;
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1000.0;
    Ok(format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99)))
}

/// A receiver that answers at once and counts.
struct Receiver {
    address: SocketAddr,
    count: Arc<AtomicU64>,
}

impl Receiver {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let count = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&count);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counting = Arc::clone(&counting);
                thread::spawn(move || answer(stream, &counting));
            }
        });
        Ok(Self { address, count })
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn wait_for(&self, count: u64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(300);
        while self.count() < count {
            if Instant::now() > end {
                return Err(format!("only {} of {count} came", self.count()).into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn answer(stream: TcpStream, count: &AtomicU64) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).ok()?;
        count.fetch_add(1, Ordering::SeqCst);
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .ok()?;
    }
}

/// The server, in a folder of its own. It ends with the value.
struct Server {
    address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Server {
    fn start(store: &str) -> Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let process = Command::new(env!("CARGO_BIN_EXE_isimud"))
            .args(["--listen", &address.to_string(), "--store", store])
            .env("ISIMUD__NOTIFICATIONS__ALLOWED_NETWORKS", "[\"127.0.0.1\"]")
            .env("ISIMUD__NOTIFICATIONS__MAX_PER_SECOND_PER_HOST", "0")
            .env("ISIMUD__NOTIFICATIONS__MAX_PER_SECOND_PER_PROJECT", "0")
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            address,
            process,
            _folder: folder,
        };
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > end {
                return Err("the server does not start".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn client(&self) -> Result<Caller> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        Ok(Caller(BufReader::new(stream)))
    }

    fn subscribe(&self, client: &mut Caller, receiver: &Receiver, count: u64) -> Result<()> {
        client.send("PUT", "/v2/queues/q", &json!({}))?;
        for number in 0..count {
            let subscriber = format!("http://{}/{number}", receiver.address);
            client.send(
                "POST",
                "/v2/queues/q/subscriptions",
                &json!({"subscriber": subscriber}),
            )?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// A connection to the server.
struct Caller(BufReader<TcpStream>);

impl Caller {
    /// Sends a request and reads the answer, which has to be a 2xx.
    fn send(&mut self, method: &str, path: &str, document: &Value) -> Result<()> {
        let body = document.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nClient-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\n\
             X-Project-Id: p\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length) = (String::new(), 0);
        self.0.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        if !status.starts_with("HTTP/1.1 2") {
            return Err(format!(
                "{method} {path}: {status}{}",
                String::from_utf8_lossy(&answer)
            )
            .into());
        }
        Ok(())
    }
}
