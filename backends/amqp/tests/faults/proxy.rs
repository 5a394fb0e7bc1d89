//! A network that fails when it is told to: everything goes through it, until it is cut or falls silent.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the broker's client to RabbitMQ.
    There,
    Back,
}

/// What happens to bytes of one way.
#[derive(Debug)]
struct Direction {
    /// So many bytes go through before all connections are cut; negative for no end.
    left: AtomicI64,
}

#[derive(Debug)]
struct State {
    port: u16,
    there: Direction,
    back: Direction,
    silent: tokio::sync::watch::Sender<bool>,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

/// The network in front of a node.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let direction = || Direction {
            left: AtomicI64::new(-1),
        };
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new(State {
                port,
                there: direction(),
                back: direction(),
                silent: tokio::sync::watch::Sender::new(false),
                connections: Mutex::default(),
            }),
        };
        let state = Arc::clone(&proxy.state);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let connection = tokio::spawn(Arc::clone(&state).connect(client));
                state.connections().push(connection);
            }
        });
        proxy
    }

    /// Cuts all connections at once.
    pub(crate) fn cut(&self) {
        self.state.cut();
    }

    /// Lets so many bytes more go that way, and cuts all connections then.
    pub(crate) fn cut_after(&self, way: Way, bytes: i64) {
        self.state
            .direction(way)
            .left
            .store(bytes, Ordering::SeqCst);
    }

    /// Whether the cut that was ordered is still to come. It is called off.
    pub(crate) fn call_off(&self) -> bool {
        [Way::There, Way::Back]
            .map(|way| self.state.direction(way).left.swap(-1, Ordering::SeqCst) >= 0)
            .contains(&true)
    }

    /// Swallows every byte from now on, and lets nobody know; or lets all go through again.
    pub(crate) fn fall_silent(&self, silent: bool) {
        self.state.silent.send_replace(silent);
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
        let mut silent = self.silent.subscribe();
        loop {
            let Ok(read @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            if *silent.borrow_and_update() {
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
