//! Listening, and stopping without leaving a request unanswered.
//!
//! ```text
//! serving     connections are kept for further requests
//! finishing   from the signal to stop, for the idle grace at the most: every answer says that it is the last one of its
//!             connection (`Connection: close`); connections that wait to be accepted are served as well
//! closing     nobody can connect any more; connections that have no request end, those that have one when it is answered
//! ```
//!
//! A connection ends only when the socket has nothing more to read: a request that was sent before is answered.
//!
//! No client holds more than its part of the server. How many connections there are, in all and from one address, is
//! bounded (`table`); each has so much time for a head, for a body (`http::body`) and for taking its answer
//! (`min_rate`); and the bytes that are under way on all of them have a budget (`http::budget`). The listener for
//! operators has places and descriptors of its own (`spare`), and answers when all others are taken.

mod connection;
mod drain;
mod full;
mod head;
mod min_rate;
mod spare;
mod table;
mod tls;

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderValue, Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) use connection::Occupation;
use connection::{Activity, Connection, Phase};
pub(crate) use drain::TrackedBody;
pub(crate) use min_rate::MinRate;
use spare::{Spare, is_out_of_descriptors};
pub(crate) use table::ConnectionLimits;
use table::Table;
pub use tls::{Tls, TlsError, TlsFiles, TlsVersion};

use crate::http::OnTheWay;
use crate::spell::Spell;
use crate::telemetry::Traffic;

use crate::admin::guard::Peer;

/// Answers requests of many connections.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// The same for the requests of one connection.
    fn for_peer(self, peer: IpAddr) -> Self;

    fn answer(
        self,
        request: Request<TrackedBody>,
    ) -> impl Future<Output = axum::http::Response<Body>> + Send;
}

impl Answer for crate::http::Api {
    fn for_peer(self, peer: IpAddr) -> Self {
        Self::for_peer(self, peer)
    }

    fn answer(
        self,
        request: Request<TrackedBody>,
    ) -> impl Future<Output = axum::http::Response<Body>> + Send {
        Self::answer(self, request)
    }
}

impl Answer for axum::Router {
    fn for_peer(self, peer: IpAddr) -> Self {
        self.layer(axum::Extension(Peer(peer)))
    }

    async fn answer(mut self, request: Request<TrackedBody>) -> axum::http::Response<Body> {
        let Ok(response) = tower::Service::call(&mut self, request.map(Body::new)).await;
        response
    }
}

/// The time limits of a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// The time that the head of a request may take.
    pub(crate) header: Duration,
    /// How slowly an answer may be taken.
    pub(crate) min_rate: MinRate,
    /// The time that connections have to send one more request once the server is told to stop.
    pub(crate) idle: Duration,
    /// The time that requests under way may take after that.
    pub(crate) shutdown: Duration,
}

/// For whom a listener keeps descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserve {
    /// For connections of its own.
    ForItself(usize),
    /// For everything else in the process.
    ForOthers(usize),
}

/// Accepts connections.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    table: Arc<Table>,
    tls: Option<Arc<Tls>>,
    spare: Spare,
    is_for_others: bool,
    /// Without descriptors for new connections.
    starved: Spell,
}

/// The largest part of a request or an answer that is kept for a connection beside the budgets: a head, or what has
/// arrived of a body and was not looked at yet.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of an answer that the system may have taken for a connection and not sent. It would take megabytes.
const MAX_UNSENT_BYTES: u32 = 128 << 10;

/// How long to wait before connections are accepted again where there was no descriptor for one.
const RETRY_DELAY: Duration = Duration::from_millis(50);

impl Acceptor {
    /// Lets so many connections in, and keeps so many descriptors for the time when there are no others.
    pub(crate) fn new(
        listener: TcpListener,
        limits: ConnectionLimits,
        reserve: Reserve,
        tls: Option<Arc<Tls>>,
        traffic: Traffic,
    ) -> Self {
        let (Reserve::ForItself(spare) | Reserve::ForOthers(spare)) = reserve;
        // Connections inherit both from their listener.
        let socket = socket2::SockRef::from(&listener);
        let set = socket.set_tcp_nodelay(true);
        if let Err(error) = set.and_then(|()| socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)) {
            tracing::debug!(%error, "an option of the listener's socket could not be set");
        }
        Self {
            listener,
            table: Table::new(limits, traffic),
            tls,
            spare: Spare::new(spare),
            is_for_others: matches!(reserve, Reserve::ForOthers(_)),
            starved: Spell::default(),
        }
    }

    /// Serves connections until `end` is ready.
    async fn accept_until(
        &mut self,
        serve: &(impl Fn(&Arc<Table>, TcpStream, IpAddr) + Sync),
        end: impl Future<Output = ()> + Send,
    ) {
        let mut end = pin!(end);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut end => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    serve(&self.table, stream, peer.ip());
                    self.recover();
                }
                Err(error) if is_out_of_descriptors(&error) => {
                    if self.starved.note() {
                        tracing::error!(%error, "out of file descriptors: cannot accept connections");
                    }
                    let starved = self.starve();
                    tokio::select! {
                        biased;
                        () = &mut end => return,
                        () = starved => {}
                    }
                }
                Err(error) => refuse(&error, &self.starved).await,
            }
        }
    }

    /// Waits for a descriptor: one that was kept for this, or one that a connection lets go on which nothing is asked. What
    /// is kept for others is theirs until there is enough for all.
    async fn starve(&mut self) {
        if !self.is_for_others && self.spare.give() {
            return;
        }
        self.table.make_room();
        self.spare.give_all();
        loop {
            tokio::time::sleep(RETRY_DELAY).await;
            if !self.is_for_others || self.spare.refill() {
                return;
            }
            self.spare.give_all();
        }
    }

    /// Keeps descriptors again for the next time.
    fn recover(&mut self) {
        self.spare.refill();
        if let Some(count) = self.starved.ended() {
            tracing::info!(count, "file descriptors are available again");
        }
    }
}

/// Serves until `stop` is ready; then answers what is sent within the idle grace, takes no more connections and finishes
/// what runs.
pub(crate) async fn listen(
    mut acceptor: Acceptor,
    front_end: impl Answer,
    timeouts: Timeouts,
    stop: impl Future<Output = ()> + Send,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(timeouts.header)
        .max_buf_size(MAX_BUFFER_BYTES);
    // Every connection has a receiver, so that the phase is closed when no connection is left.
    let (phase, _) = watch::channel(Phase::Serving);
    let tls = acceptor.tls.clone();
    let serve = |table: &Arc<Table>, stream, peer| {
        let served = Served {
            table: Arc::clone(table),
            tls: tls.clone(),
            handshake_timeout: timeouts.header,
            min_rate: timeouts.min_rate,
            phase: phase.subscribe(),
        };
        serve(stream, peer, &http, &front_end, served);
    };

    acceptor.accept_until(&serve, stop).await;
    phase.send_replace(Phase::Finishing);
    let finished = async {
        // Late is as good as closed: the grace is over.
        drop(tokio::time::timeout(timeouts.idle, phase.closed()).await);
    };
    acceptor.accept_until(&serve, finished).await;
    accept_rest(acceptor, &serve);
    phase.send_replace(Phase::Closing);
    let closed = tokio::time::timeout(timeouts.shutdown, phase.closed()).await;
    if closed.is_err() {
        tracing::warn!("some requests were not finished in time");
    }
}

/// Connections that wait to be accepted, at the most: as many as tokio has the system keep.
const BACKLOG: usize = 1024;

/// Serves the connections that wait to be accepted, and lets go of the address.
fn accept_rest(acceptor: Acceptor, serve: &impl Fn(&Arc<Table>, TcpStream, IpAddr)) {
    let Acceptor {
        listener, table, ..
    } = acceptor;
    // By the system's own call: it knows of each, also of those that the runtime has not heard of yet.
    let accepted = listener.into_std().and_then(|listener| {
        for _ in 0..BACKLOG {
            let (stream, peer) = listener.accept()?;
            stream.set_nonblocking(true)?;
            serve(&table, TcpStream::from_std(stream)?, peer.ip());
        }
        Ok(())
    });
    if let Err(error) = accepted
        && error.kind() != io::ErrorKind::WouldBlock
    {
        tracing::debug!(%error, "a connection could not be accepted any more");
    }
}

/// What the connections of a listener have in common.
struct Served {
    table: Arc<Table>,
    tls: Option<Arc<Tls>>,
    handshake_timeout: Duration,
    min_rate: MinRate,
    phase: watch::Receiver<Phase>,
}

fn serve(
    stream: TcpStream,
    peer: IpAddr,
    http: &http1::Builder,
    front_end: &impl Answer,
    served: Served,
) {
    let Served {
        table,
        tls,
        handshake_timeout,
        min_rate,
        phase,
    } = served;
    let activity = Activity::default();
    let slot = match table.admit(peer, &activity) {
        Ok(slot) => slot,
        // A client that expects TLS understands no answer without it.
        Err(_) if tls.is_some() => return,
        Err(full) => return full::turn_away(stream, full, &table.turned_away),
    };
    let front_end = front_end.clone().for_peer(peer);
    let stream = Connection::new(
        stream,
        activity.clone(),
        phase.clone(),
        min_rate,
        table,
        slot,
    );
    let begun = activity.clone();
    let service = service_fn(move |request| {
        let refused = head::refuse(&request);
        let (mut request, unread) = drain::track(request);
        if request.headers().contains_key(UPGRADE) {
            let occupation = Occupation(activity.clone());
            request.extensions_mut().insert(occupation);
        }
        let (activity, phase) = (activity.clone(), phase.clone());
        let busy = activity.begin();
        let front_end = front_end.clone();
        async move {
            let mut answer = match refused {
                Some(refused) => refused,
                None => {
                    let mut answer = front_end.answer(request).await;
                    unread.drain(&mut answer, &activity);
                    answer
                }
            };
            let is_last = *phase.borrow() != Phase::Serving;
            if is_last && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            let on_the_way = answer.extensions_mut().remove::<OnTheWay>();
            Ok::<_, std::convert::Infallible>(answer.map(|body| busy.until_sent(body, on_the_way)))
        }
    });
    let Some(tls) = tls else {
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { log_early_end(connection.with_upgrades().await) });
        return;
    };
    let http = http.clone();
    tokio::spawn(async move {
        let accepting = tls.accept(stream.encrypted(), begun);
        match tokio::time::timeout(handshake_timeout, accepting).await {
            Ok(Ok(stream)) => {
                let connection = http.serve_connection(TokioIo::new(stream), service);
                log_early_end(connection.with_upgrades().await);
            }
            Ok(Err(_)) => {}
            Err(_) => tracing::debug!("a client does not complete the TLS handshake in time"),
        }
    });
}

fn log_early_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection that could not be accepted is the client's fault, or the system lacks something: then a pause gives it the
/// time to have it again.
async fn refuse(error: &io::Error, starved: &Spell) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        if starved.note() {
            tracing::error!(%error, "cannot accept connections");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Socket;

    use axum::Router;
    use axum::routing::get;
    use tokio::sync::oneshot;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    /// A listener with a page, and what stops it.
    async fn start(
        idle: Duration,
    ) -> (
        std::net::SocketAddr,
        oneshot::Sender<()>,
        impl Future<Output = ()> + Send,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let page = Router::new().route("/", get(|| async { "page" }));
        let timeouts = Timeouts {
            header: TIMEOUT,
            min_rate: MinRate {
                within: TIMEOUT,
                least: 1,
            },
            idle,
            shutdown: TIMEOUT,
        };
        let (stop, stopped) = oneshot::channel();
        let limits = ConnectionLimits {
            most: 100,
            ..ConnectionLimits::default()
        };
        let acceptor = Acceptor::new(
            listener,
            limits,
            Reserve::ForItself(0),
            None,
            Traffic::default(),
        );
        let listening = listen(acceptor, page, timeouts, async { drop(stopped.await) });
        (address, stop, listening)
    }

    fn connect(address: std::net::SocketAddr) -> Socket {
        let socket = Socket::connect(address).expect("a connection");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        socket
    }

    /// Reads one answer in another thread, as this one serves.
    async fn answer(mut socket: Socket) -> (Socket, String) {
        let read = tokio::task::spawn_blocking(move || {
            let (mut text, mut bytes) = (String::new(), [0; 1024]);
            while !text.ends_with("page") {
                match socket.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(read) => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
                    Err(error) => return (socket, format!("{text}{error}")),
                }
            }
            (socket, text)
        });
        read.await.expect("it is read")
    }

    #[tokio::test]
    async fn a_request_that_was_sent_before_its_connection_closes_is_answered() {
        let (address, stop, listening) = start(Duration::ZERO).await;
        let listening = tokio::spawn(listening);
        let mut used = connect(address);
        used.write_all(REQUEST).expect("it is sent");
        let (mut used, first) = answer(used).await;
        assert!(!first.contains("connection: close"), "{first}");
        // Nobody is served between here and the stop: this thread does not wait.
        used.write_all(REQUEST).expect("it is sent");
        let mut fresh = connect(address);
        fresh.write_all(REQUEST).expect("it is sent");
        let idle = connect(address);
        stop.send(()).expect("it listens");
        for socket in [used, fresh] {
            let (_, text) = answer(socket).await;
            assert!(text.contains("connection: close"), "{text}");
            assert!(text.ends_with("page"), "{text}");
        }
        let (_, text) = answer(idle).await;
        assert_eq!(text, "");
        listening.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_request_that_has_begun_is_waited_for_and_an_idle_connection_is_not() {
        let (address, stop, listening) = start(Duration::ZERO).await;
        let listening = tokio::spawn(listening);
        let (begun, unread) = REQUEST.split_at(10);
        let mut slow = connect(address);
        slow.write_all(begun).expect("it is sent");
        let idle = connect(address);
        stop.send(()).expect("it listens");
        let (_, text) = answer(idle).await;
        assert_eq!(text, "", "the idle connection is closed");
        assert!(!listening.is_finished());
        slow.write_all(unread).expect("it is sent");
        let (_, text) = answer(slow).await;
        assert!(text.ends_with("page"), "{text}");
        listening.await.expect("it ends");
    }

    #[tokio::test]
    async fn an_idle_connection_may_ask_once_more_within_the_grace() {
        let (address, stop, listening) = start(TIMEOUT).await;
        let listening = tokio::spawn(listening);
        let mut used = connect(address);
        used.write_all(REQUEST).expect("it is sent");
        let (mut used, _) = answer(used).await;
        stop.send(()).expect("it listens");
        tokio::task::yield_now().await;
        used.write_all(REQUEST).expect("it is sent");
        let (_, text) = answer(used).await;
        assert!(text.contains("connection: close"), "{text}");
        assert!(text.ends_with("page"), "{text}");
        // Without a connection the rest of the grace is not waited for.
        listening.await.expect("it ends");
    }
}
