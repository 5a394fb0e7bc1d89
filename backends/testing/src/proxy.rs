//! A network that fails when it is told to: everything goes through it, until it is cut or falls silent.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    There,
    /// From the server to the client.
    Back,
}

/// What happens to bytes of one way.
#[derive(Debug)]
struct Direction {
    /// So many bytes go through before all connections are cut; negative for no end.
    left: AtomicI64,
    is_silent: AtomicBool,
}

#[derive(Debug)]
struct State {
    port: u16,
    there: Direction,
    back: Direction,
    is_shut: AtomicBool,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

/// The network in front of a server.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// Starts it on the runtime at hand, in front of a port of this machine.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the proxy works");
        let direction = || Direction {
            left: AtomicI64::new(-1),
            is_silent: AtomicBool::new(false),
        };
        let proxy = Self {
            port: listener.local_addr().expect("the proxy works").port(),
            state: Arc::new(State {
                port,
                there: direction(),
                back: direction(),
                is_shut: AtomicBool::new(false),
                connections: Mutex::default(),
            }),
        };
        let state = Arc::clone(&proxy.state);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("the proxy works");
                let mut connections = state.connections();
                if !state.is_shut.load(Ordering::SeqCst) {
                    connections.push(tokio::spawn(Arc::clone(&state).connect(client)));
                }
            }
        });
        proxy
    }

    /// The same where there is no runtime, on a thread of its own.
    pub fn standalone(port: u16) -> Self {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                sender.send(Self::before(port).await).ok();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().expect("the proxy works")
    }

    /// Cuts all connections and takes no others, or takes them again.
    pub fn shut(&self, shut: bool) {
        self.state.is_shut.store(shut, Ordering::SeqCst);
        if shut {
            self.cut();
        }
    }

    /// Cuts all connections at once.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Lets so many bytes more go that way, and cuts all connections then.
    pub fn cut_after(&self, way: Way, bytes: i64) {
        self.state
            .direction(way)
            .left
            .store(bytes, Ordering::SeqCst);
    }

    /// Whether the cut that was ordered is still to come. It is called off.
    pub fn call_off(&self) -> bool {
        [Way::There, Way::Back]
            .map(|way| self.state.direction(way).left.swap(-1, Ordering::SeqCst) >= 0)
            .contains(&true)
    }

    /// Swallows every byte of that way from now on, and lets nobody know; or lets all go through again.
    pub fn fall_silent(&self, way: Way, silent: bool) {
        let direction = self.state.direction(way);
        direction.is_silent.store(silent, Ordering::SeqCst);
    }
}

impl State {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn direction(&self, way: Way) -> &Direction {
        match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        }
    }

    fn cut(&self) {
        for connection in self.connections().drain(..) {
            connection.abort();
        }
    }

    async fn connect(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.port)).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = self.carry(Way::There, from_client, to_server) => {}
            () = self.carry(Way::Back, from_server, to_client) => {}
        }
    }

    async fn carry(&self, way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let Ok(read @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            if self.direction(way).is_silent.load(Ordering::SeqCst) {
                // What was swallowed never comes, so the rest of the connection would make no sense either.
                std::future::pending::<()>().await;
            }
            let (count, cut) = self.direction(way).take(read);
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            if cut {
                self.cut();
                return;
            }
        }
    }
}

impl Direction {
    /// How many of these bytes go through, and whether those are the last.
    fn take(&self, bytes: usize) -> (usize, bool) {
        let bytes = bytes as i64;
        let update = |left: i64| (left >= 0).then(|| if left <= bytes { -1 } else { left - bytes });
        match self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, update)
        {
            Ok(left) if left <= bytes => (left as usize, true),
            _ => (bytes as usize, false),
        }
    }
}
