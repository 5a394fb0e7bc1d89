//! The loop of one socket.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::actions::{self, Outcome};
use super::encoding::Encoding;
use super::outgoing::{Frame, Overfull};
use super::pace::Pace;
use super::session::Standing;
use super::socket::Socket;

/// How long a client may take to prove who it is.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a message before that.
const MAX_UNKNOWN_BYTES: usize = 64 << 10;
/// How long a client may take to agree that its socket is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the request that is under way may take when the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// What a socket reads at once, and collects before it writes: it has this memory for as long as it is open.
const BUFFER_BYTES: usize = 4 << 10;
/// Bytes a second that a client has to take of a large message, beyond the time that it has for any.
const MIN_RATE: usize = 64 << 10;

/// Codes of our own, as applications have them (RFC 6455, 7.4.2).
const AUTHENTICATION_EXPIRED: u16 = 4003;
const NOT_AUTHENTICATED: u16 = 4004;
const TOO_SLOW: u16 = 4008;
const IDLE: u16 = 4009;
const SILENT: u16 = 4010;

/// Why a socket ends.
#[derive(Debug)]
enum End {
    /// Its client closed it, or is gone.
    Client,
    /// The server closes it: the reason for the metrics, the code, and the text for the client.
    Server(&'static str, u16, String),
}

impl End {
    fn server(reason: &'static str, code: u16, text: &str) -> Self {
        Self::Server(reason, code, text.to_owned())
    }

    fn expired() -> Self {
        Self::server(
            "authentication_expired",
            AUTHENTICATION_EXPIRED,
            "Authentication expired.",
        )
    }

    fn too_slow() -> Self {
        Self::server(
            "slow",
            TOO_SLOW,
            "The client takes what it is sent too slowly.",
        )
    }
}

type Asking = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Looking = Pin<Box<dyn Future<Output = Standing> + Send>>;

/// A socket that is open, and what is under way on it.
struct Connection<S> {
    stream: WebSocketStream<S>,
    socket: Arc<Socket>,
    pace: Pace,
    /// Requests that wait for the one before them.
    waiting: VecDeque<(Encoding, Bytes)>,
    waiting_bytes: usize,
    asking: Option<Asking>,
    looking: Option<Looking>,
    opened: Instant,
    heard: Instant,
    asked: Instant,
    next_ping: Instant,
    /// Until when the server waits for what is under way before it stops.
    stops_at: Option<Instant>,
}

/// Serves a socket until it is closed.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
    stream: S,
    socket: Arc<Socket>,
) {
    let hub = Arc::clone(&socket.hub);
    let limits = hub.settings.limits;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.message_bytes));
    let stream = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let now = Instant::now();
    let mut connection = Connection {
        stream,
        socket: Arc::clone(&socket),
        pace: Pace::new(&limits),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        asking: None,
        looking: None,
        opened: now,
        heard: now,
        asked: now,
        next_ping: now + hub.settings.ping,
        stops_at: None,
    };
    let end = connection.run(hub.stop.subscribe()).await;
    // What nobody will hear of ends here.
    connection.asking = None;
    tokio::join!(connection.close(end), hub.unsubscribe(&socket, |_| true));
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) -> End {
        loop {
            self.begin_next();
            if let Some(end) = self.due() {
                return end;
            }
            let may_read = self.may_read();
            let read_at = self.pace.next();
            let wake_at = self
                .wake_at()
                .min(match may_read && read_at > Instant::now() {
                    true => read_at,
                    false => self.next_ping,
                });
            let may_read = may_read && read_at <= Instant::now();
            let socket = Arc::clone(&self.socket);
            let done = tokio::select! {
                () = socket.outgoing.ready() => self.send().await,
                outcome = poll(&mut self.asking) => self.settle(outcome),
                standing = poll(&mut self.looking) => {
                    self.looking = None;
                    match standing {
                        Standing::Ended => Err(End::expired()),
                        _ => Ok(()),
                    }
                }
                message = self.stream.next(), if may_read => self.take(message),
                () = sleep_until(wake_at) => self.ping().await,
                () = told(&mut stop), if self.stops_at.is_none() => {
                    self.stops_at = Some(Instant::now() + STOP_TIMEOUT);
                    Ok(())
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Asks what is next, if nothing is under way and the answer before has been sent.
    fn begin_next(&mut self) {
        if self.asking.is_some() || !self.socket.outgoing.is_empty() {
            return;
        }
        if let Some((encoding, message)) = self.waiting.pop_front() {
            self.waiting_bytes -= message.len();
            let socket = Arc::clone(&self.socket);
            self.asking = Some(Box::pin(actions::answer(socket, encoding, message)));
        }
    }

    /// Whether one more message has room.
    fn may_read(&self) -> bool {
        let limits = self.socket.hub.settings.limits;
        let unanswered = self.waiting.len() + usize::from(self.asking.is_some());
        self.stops_at.is_none()
            && unanswered < limits.unanswered
            && self.waiting_bytes < limits.message_bytes
    }

    /// When something is to be done that nothing else wakes for.
    fn wake_at(&self) -> Instant {
        let mut at = self.next_ping;
        if let Some(stops_at) = self.stops_at {
            at = at.min(stops_at);
        }
        if self.socket.is_unknown() {
            at = at.min(self.opened + AUTHENTICATION_TIMEOUT);
        }
        if self.looking.is_none()
            && let Some(next) = self.next_look(Instant::now())
        {
            at = at.min(next);
        }
        at
    }

    /// When the token of the client is to be looked at again.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let app = &self.socket.hub.app;
        let keystone = app.keystone.as_ref()?;
        let is_used = !self.socket.subscriptions().is_empty();
        self.socket
            .session
            .next_look(keystone, &app.signer, now, is_used)
    }

    /// What has to end now; begins to look at the token where that is due.
    fn due(&mut self) -> Option<End> {
        let now = Instant::now();
        if let Some(stops_at) = self.stops_at {
            let is_idle = self.asking.is_none() && self.waiting.is_empty();
            if is_idle && self.socket.outgoing.is_empty() || stops_at <= now {
                return Some(self.stopped());
            }
        }
        if self.socket.is_unknown() && self.opened + AUTHENTICATION_TIMEOUT <= now {
            return Some(End::server(
                "not_authenticated",
                NOT_AUTHENTICATED,
                "Nobody has authenticated in time.",
            ));
        }
        let settings = &self.socket.hub.settings;
        if self.asked + settings.idle <= now
            && self.asking.is_none()
            && self.socket.subscriptions().is_empty()
        {
            return Some(End::server("idle", IDLE, "Nothing was asked for too long."));
        }
        if self.looking.is_none() && self.next_look(now).is_some_and(|at| at <= now) {
            let socket = Arc::clone(&self.socket);
            self.looking = Some(Box::pin(async move {
                let app = &socket.hub.app;
                match &app.keystone {
                    Some(keystone) => socket.session.standing(keystone, &app.signer).await,
                    None => Standing::Unknown,
                }
            }));
        }
        None
    }

    /// The server stops: clients come back at different moments.
    fn stopped(&self) -> End {
        let most = self.socket.hub.settings.reconnect.as_millis();
        let wait = fastrand::u64(..=u64::try_from(most).unwrap_or(0));
        End::Server(
            "stopped",
            CloseCode::Away.into(),
            format!("The server stops. Reconnect in {wait} ms."),
        )
    }

    /// Takes what came of a request.
    fn settle(&mut self, outcome: Outcome) -> Result<(), End> {
        self.asking = None;
        match outcome {
            Outcome::Answer(frame) => {
                self.socket.outgoing.answer(frame);
                Ok(())
            }
            Outcome::Ended => Err(End::expired()),
        }
    }

    /// Takes a message of the client.
    fn take(&mut self, message: Option<Result<Message, SocketError>>) -> Result<(), End> {
        let message = match message {
            None => return Err(End::Client),
            Some(Err(error)) => return Err(end_of(&error)),
            Some(Ok(message)) => message,
        };
        self.heard = Instant::now();
        self.pace.note(message.len());
        let (encoding, bytes) = match message {
            Message::Text(text) => (Encoding::Text, Bytes::from(text)),
            Message::Binary(bytes) => (Encoding::Binary, bytes),
            Message::Close(_) => return Err(End::Client),
            _ => return Ok(()),
        };
        if bytes.len() > MAX_UNKNOWN_BYTES && self.socket.is_unknown() {
            return Err(too_large());
        }
        self.asked = self.heard;
        self.waiting_bytes += bytes.len();
        self.waiting.push_back((encoding, bytes));
        Ok(())
    }

    /// Sends what there is to send.
    async fn send(&mut self) -> Result<(), End> {
        let frames = self.socket.outgoing.take();
        let frames = frames.map_err(|Overfull| End::too_slow())?;
        let bytes = frames.iter().map(Frame::bytes).sum::<usize>();
        let at_min_rate = Duration::from_secs((bytes / MIN_RATE) as u64);
        let stream = &mut self.stream;
        let sending = async {
            for frame in &frames {
                stream.feed(frame.message()).await?;
            }
            stream.flush().await
        };
        match timeout(self.socket.hub.settings.send_timeout + at_min_rate, sending).await {
            Ok(Ok(())) => {
                frames.into_iter().for_each(Frame::sent);
                Ok(())
            }
            Ok(Err(error)) => Err(end_of(&error)),
            Err(_) => Err(End::too_slow()),
        }
    }

    /// Pings, when it is time, and ends the socket of a client that has not been heard of since the ping before.
    async fn ping(&mut self) -> Result<(), End> {
        let (now, interval) = (Instant::now(), self.socket.hub.settings.ping);
        if now < self.next_ping {
            return Ok(());
        }
        self.next_ping = now + interval;
        // Who is not read cannot be heard.
        if !self.may_read() {
            self.heard = now;
        }
        if now.duration_since(self.heard) >= 2 * interval {
            return Err(End::server("silent", SILENT, "Pings are not answered."));
        }
        let ping = self.stream.send(Message::Ping(Bytes::new()));
        match timeout(self.socket.hub.settings.send_timeout, ping).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(end_of(&error)),
            Err(_) => Err(End::too_slow()),
        }
    }

    /// Closes the socket, and waits a moment for the client to agree.
    async fn close(&mut self, end: End) {
        let End::Server(reason, code, text) = end else {
            // The answer to a close of the client's goes out with the next read.
            let stream = &mut self.stream;
            let ending = async { while let Some(Ok(_)) = stream.next().await {} };
            drop(timeout(CLOSE_TIMEOUT, ending).await);
            return;
        };
        self.socket.hub.metrics.closed(reason);
        tracing::debug!(socket = %self.socket.id, reason, "a WebSocket is closed");
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::from(text),
        };
        let closing = async {
            self.stream.close(Some(frame)).await?;
            while let Some(read) = self.stream.next().await {
                read?;
            }
            Ok::<_, SocketError>(())
        };
        // Who does not agree in time is left.
        drop(timeout(CLOSE_TIMEOUT, closing).await);
    }
}

/// Waits until the server stops.
async fn told(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can say so any more, which is a reason to stop.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Polls what is under way; waits for ever where nothing is.
async fn poll<T>(under_way: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match under_way {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn too_large() -> End {
    End::server(
        "too_large",
        CloseCode::Size.into(),
        "The message is too large.",
    )
}

/// What an error of the protocol, or of the connection, ends a socket with.
fn end_of(error: &SocketError) -> End {
    match error {
        SocketError::Capacity(CapacityError::MessageTooLong { .. }) => too_large(),
        SocketError::Utf8(_) => End::server(
            "invalid",
            CloseCode::Invalid.into(),
            "The text is no UTF-8.",
        ),
        SocketError::Protocol(_) => End::server(
            "protocol",
            CloseCode::Protocol.into(),
            "This is not the protocol of WebSockets.",
        ),
        _ => End::Client,
    }
}
