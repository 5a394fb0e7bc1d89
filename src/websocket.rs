//! WebSocket: the second transport, by the same rules as the first (spec: websocket.md).
//!
//! ```text
//! handshake     whether a request becomes a socket: at "/" of the API's listener, or on a listener of its own
//! connection    the loop of one socket: reads, asks, answers in order, pushes, pings, closes
//!   encoding    text and binary messages to JSON and back (msgpack)
//!   request     what a message asks for      action   the actions, and the requests of the REST API that they stand for
//!   gate        who asks, and may they: session, policies, quotas, signatures
//!   actions     what they do: calls of the same functions as the REST API's
//!   reply       what is said to it
//! outgoing      what a socket has not taken yet, bounded
//! subscribers   subscriptions of sockets, over all servers (notifications::mailboxes)
//! acks          those whose messages are claimed for the socket
//! ```
//!
//! A socket is one task, and has one request under way: answers are in the order of the requests, and a slow one holds up
//! nobody but its own socket. It reads ahead a little, no faster than it may, and then stops to read: what a client sends too
//! much stays in the client's own system. What it does not take is bounded as well, and ends with the socket.

mod acks;
mod action;
mod actions;
mod connection;
mod encoding;
mod gate;
mod handshake;
mod msgpack;
mod outgoing;
mod pace;
mod reply;
mod request;
mod session;
mod settings;
mod socket;
mod subscribers;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use isimud_contract::{ProjectId, SubscriptionId};
use tokio::sync::{Notify, watch};

pub use self::handshake::Origins;
pub use self::settings::{Limits, Settings};

use self::handshake::Refused;
use self::session::Handshake;
use self::socket::Socket;
use crate::http::auth::RequestHeaders;
use crate::http::{Api, App};
use crate::notifications::Mailboxes;
use crate::server::{Answer, Occupation, TrackedBody};
use crate::telemetry::SocketMetrics;

/// How long a connection may take to become a socket once that was agreed on.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// The sockets of this server.
#[derive(Debug)]
pub struct WebSockets {
    app: Arc<App>,
    settings: Settings,
    metrics: SocketMetrics,
    mailboxes: Arc<Mailboxes>,
    open: AtomicUsize,
    /// How many sockets each project has.
    projects: Mutex<HashMap<ProjectId, usize>>,
    subscribers: Mutex<HashMap<SubscriptionId, Arc<Socket>>>,
    /// Wakes who empties the mailbox: there is a subscription.
    wake: Notify,
    stop: watch::Sender<bool>,
}

impl WebSockets {
    /// Sockets on top of the application; none is open yet.
    pub(crate) fn new(app: Arc<App>, settings: Settings, mailboxes: Arc<Mailboxes>) -> Arc<Self> {
        let sockets = Arc::new(Self {
            metrics: app.metrics.sockets().clone(),
            app,
            settings,
            mailboxes: Arc::clone(&mailboxes),
            open: AtomicUsize::new(0),
            projects: Mutex::default(),
            subscribers: Mutex::default(),
            wake: Notify::new(),
            stop: watch::Sender::new(false),
        });
        let local: Arc<dyn crate::notifications::LocalSockets> = Arc::clone(&sockets) as _;
        mailboxes.connect(Arc::downgrade(&local));
        sockets
    }

    /// Has all sockets finish the request that is under way and close (1001), and takes no more.
    pub(crate) fn close(&self) {
        self.stop.send_replace(true);
    }

    fn subscribers(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Arc<Socket>>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for one more socket, if there is one.
    fn join(&self) -> bool {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if before >= self.settings.limits.sockets {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.metrics.open.inc();
        true
    }

    fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.open.dec();
    }

    /// Counts a socket for a project, if that may have one more.
    fn count_in(&self, project: &ProjectId) -> bool {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let count = projects.get(project).copied().unwrap_or(0);
        let has_room = count < self.settings.limits.sockets_per_project;
        if has_room {
            projects.insert(project.clone(), count + 1);
        }
        has_room
    }

    fn count_out(&self, project: &ProjectId) {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = projects.get_mut(project) {
            *count -= 1;
            if *count == 0 {
                projects.remove(project);
            }
        }
    }

    /// Answers a handshake, and serves the socket if it becomes one. `is_trusted` says that the request is from an address
    /// whose word counts about who asks.
    fn upgrade<B>(self: &Arc<Self>, request: &mut Request<B>, is_trusted: bool) -> Response<Body> {
        let accepted = self.check(request, is_trusted);
        let (answer, handshake) = match accepted {
            Ok(accepted) => accepted,
            Err(refused) => {
                self.metrics.refused(refused.reason);
                return refused.answer();
            }
        };
        let occupation = request.extensions().get::<Occupation>().cloned();
        let upgrading = hyper::upgrade::on(request);
        // Whatever becomes of it from here on, the place is given back with the socket.
        let socket = Arc::new(Socket::new(Arc::clone(self), handshake));
        let busy = occupation.map(|occupation| occupation.begin());
        tokio::spawn(async move {
            match tokio::time::timeout(UPGRADE_TIMEOUT, upgrading).await {
                Ok(Ok(stream)) => connection::serve(TokioIo::new(stream), socket).await,
                Ok(Err(error)) => tracing::debug!(%error, "a connection did not become a socket"),
                Err(_) => tracing::debug!("a connection did not become a socket in time"),
            }
            drop(busy);
        });
        answer
    }

    fn check<B>(
        &self,
        request: &Request<B>,
        is_trusted: bool,
    ) -> Result<(Response<Body>, Handshake), Refused> {
        let answer = handshake::accept(request, &self.settings.origins)?;
        let (app, headers) = (&self.app, request.headers());
        let is_trusted = is_trusted && app.identity.is_shown_secret(headers);
        let counts = is_trusted && app.keystone.is_none();
        let said = match counts {
            false => Ok(Default::default()),
            true => RequestHeaders::read(headers, &app.identity, None).identity(),
        };
        let said = said
            .map_err(|problem| Refused::new("identity", problem.status(), problem.description()))?;
        if *self.stop.borrow() {
            let sentence = "The server stops.";
            return Err(Refused::new(
                "stopping",
                StatusCode::SERVICE_UNAVAILABLE,
                sentence,
            ));
        }
        if !self.join() {
            let sentence = "There are as many sockets as there may be. Please try again later.";
            return Err(Refused::new(
                "full",
                StatusCode::SERVICE_UNAVAILABLE,
                sentence,
            ));
        }
        let handshake = Handshake {
            is_trusted,
            said,
            base_path: app.base_path.to_string(),
        };
        Ok((answer, handshake))
    }
}

/// The API's listener: requests, and sockets at its root.
#[derive(Debug, Clone)]
pub(crate) struct ApiWithSockets {
    pub(crate) api: Api,
    /// None where sockets have a listener of their own alone.
    pub(crate) sockets: Option<Arc<WebSockets>>,
}

impl Answer for ApiWithSockets {
    fn for_peer(self, peer: IpAddr) -> Self {
        Self {
            api: self.api.for_peer(peer),
            ..self
        }
    }

    async fn answer(self, mut request: Request<TrackedBody>) -> Response<Body> {
        if let Some(sockets) = &self.sockets
            && handshake::is_asked_for(&request)
            && self.api.is_root(&request)
        {
            return sockets.upgrade(&mut request, self.api.is_trusted);
        }
        self.api.answer(request).await
    }
}

/// A listener for sockets alone, at any path.
#[derive(Debug, Clone)]
pub(crate) struct SocketListener {
    sockets: Arc<WebSockets>,
    is_trusted: bool,
}

impl SocketListener {
    pub(crate) fn new(sockets: Arc<WebSockets>) -> Self {
        Self {
            sockets,
            is_trusted: false,
        }
    }
}

impl Answer for SocketListener {
    fn for_peer(self, peer: IpAddr) -> Self {
        let is_trusted = self.sockets.app.identity.trusts(Some(peer));
        Self { is_trusted, ..self }
    }

    async fn answer(self, mut request: Request<TrackedBody>) -> Response<Body> {
        self.sockets.upgrade(&mut request, self.is_trusted)
    }
}
