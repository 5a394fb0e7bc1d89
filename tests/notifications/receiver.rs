//! A receiver of notifications: an HTTP server that writes down what it gets and answers as it is told, badly too.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// With a status and these lines of the head.
    Status(u16, Vec<String>),
    /// Never: the connection stays open.
    Hang,
    /// A byte now and then.
    Drip,
    /// With half a head, and then no more.
    Cut,
    /// Not at all.
    Close,
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Self::Status(200, Vec::new())
    }
}

type Manner = dyn Fn(&Received, usize) -> Reply + Send + Sync;
/// Puts TLS on a connection, or nothing.
pub(crate) type Wrap = dyn Fn(TcpStream) -> Box<dyn Connection> + Send + Sync;

/// What a request comes over.
pub(crate) trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

/// A receiver that listens until it is let go of.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    seen: Mutex<BTreeMap<String, Vec<Received>>>,
    more: Condvar,
    manner: Box<Manner>,
    over: AtomicBool,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Received>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// Answers every request with 200.
    pub(crate) fn kind() -> Self {
        Self::with(|_, _| Reply::ok())
    }

    /// Answers as `manner` says, which hears how many requests for that path came before.
    pub(crate) fn with(manner: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", manner, |stream| Box::new(stream))
    }

    /// The same at an address, and over what `wrap` makes of a connection.
    pub(crate) fn at(
        address: &str,
        manner: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> Box<dyn Connection> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            more: Condvar::new(),
            manner: Box::new(manner),
            over: AtomicBool::new(false),
        });
        let wrap: Arc<Wrap> = Arc::new(wrap);
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (shared, wrap) = (Arc::clone(&accepting), Arc::clone(&wrap));
                thread::spawn(move || {
                    stream.set_nodelay(true).ok();
                    serve(wrap(stream), &shared)
                });
            }
        });
        Self { address, shared }
    }

    /// The address of a path here.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many came for a path so far.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.shared.seen().get(path).map_or(0, Vec::len)
    }

    /// Waits until so many came for a path, and returns them; fails when they do not come.
    #[track_caller]
    pub(crate) fn wait_for(&self, path: &str, count: usize, patience: Duration) -> Vec<Received> {
        let end = Instant::now() + patience;
        let mut seen = self.shared.seen();
        loop {
            let got = seen.get(path).map_or(0, Vec::len);
            if got >= count {
                return seen[path].clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{got} of {count} requests for {path} came");
            let waited = self.shared.more.wait_timeout(seen, left);
            seen = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // The listener is let go of when it next has a connection.
        TcpStream::connect(self.address).ok();
    }
}

fn serve(connection: Box<dyn Connection>, shared: &Shared) {
    let mut connection = BufReader::new(connection);
    while let Some(received) = read(&mut connection) {
        let before = {
            let mut seen = shared.seen();
            let of_path = seen.entry(received.path.clone()).or_default();
            of_path.push(received.clone());
            of_path.len() - 1
        };
        shared.more.notify_all();
        let out = connection.get_mut();
        let kept = match (shared.manner)(&received, before) {
            Reply::Status(status, lines) => {
                let mut head = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 2\r\n");
                for line in lines {
                    head.push_str(&format!("{line}\r\n"));
                }
                out.write_all(format!("{head}\r\nok").as_bytes())
                    .and_then(|()| out.flush())
                    .is_ok()
            }
            Reply::Hang => pause(shared, Duration::from_secs(600)),
            Reply::Drip => {
                let mut head = b"HTTP/1.1 200 OK\r\nx-slow: ".to_vec();
                head.resize(1000, b'x');
                head.iter().all(|byte| {
                    out.write_all(&[*byte]).and_then(|()| out.flush()).is_ok()
                        && pause(shared, Duration::from_millis(50))
                })
            }
            Reply::Cut => {
                // Whatever becomes of it, there is no more.
                out.write_all(b"HTTP/1.1 200 OK\r\ncontent-le")
                    .and_then(|()| out.flush())
                    .ok();
                false
            }
            Reply::Close => false,
        };
        if !kept {
            return;
        }
    }
}

/// Waits, unless the receiver is let go of meanwhile. Returns whether it is still there.
fn pause(shared: &Shared, span: Duration) -> bool {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if shared.over.load(Ordering::SeqCst) {
            return false;
        }
        thread::sleep(Duration::from_millis(20).min(span));
    }
    true
}

/// Reads a request; `None` when there are no more.
fn read(connection: &mut impl BufRead) -> Option<Received> {
    let mut line = String::new();
    connection
        .read_line(&mut line)
        .ok()
        .filter(|length| *length > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    connection.read_exact(&mut body).ok()?;
    Some(Received {
        at: Instant::now(),
        method,
        path,
        headers,
        body,
    })
}
