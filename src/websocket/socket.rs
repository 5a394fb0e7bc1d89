//! A socket, as everything but its own loop sees it: who is at the other end, what it listens to, what is sent to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use isimud_contract::{ProjectId, QueueKey, SubscriptionId};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::WebSockets;
use super::acks::Acks;
use super::encoding::Encoding;
use super::outgoing::{Frame, Outgoing};
use super::reply::Refusal;
use super::session::{Handshake, Session};

/// Projects that a socket counts for at once: those that it asked for last.
const MAX_PROJECTS: usize = 8;

/// A subscription that a socket has made.
#[derive(Debug, Clone)]
pub(super) struct Subscribed {
    pub(super) source: QueueKey,
    /// How long the client wants it.
    pub(super) until: Instant,
    /// When it is renewed.
    pub(super) renew_at: Instant,
    /// What it has claimed, where its messages are claimed for it, and the task that does so.
    pub(super) acks: Option<(Arc<Acks>, AbortHandle)>,
}

/// A socket that is open.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: Uuid,
    pub(super) hub: Arc<WebSockets>,
    pub(super) handshake: Handshake,
    pub(super) session: Session,
    pub(super) outgoing: Outgoing,
    /// Some request of it was let through.
    pub(super) admitted: AtomicBool,
    /// What it counts for.
    projects: Mutex<Vec<ProjectId>>,
    subscriptions: Mutex<HashMap<SubscriptionId, Subscribed>>,
    /// Pushed messages are MessagePack: the last request for a subscription was.
    pushes_binary: AtomicBool,
}

impl Socket {
    pub(super) fn new(hub: Arc<WebSockets>, handshake: Handshake) -> Self {
        let limits = hub.settings.limits;
        Self {
            id: Uuid::new_v4(),
            hub,
            handshake,
            session: Session::default(),
            outgoing: Outgoing::new(limits.unsent, limits.unsent_bytes),
            admitted: AtomicBool::new(false),
            projects: Mutex::default(),
            subscriptions: Mutex::default(),
            pushes_binary: AtomicBool::new(false),
        }
    }

    /// Whether a client has to prove who it is before it is answered.
    pub(super) fn needs_authentication(&self) -> bool {
        let app = &self.hub.app;
        app.keystone.is_some() || app.identity.is_guarded() && !self.handshake.is_trusted
    }

    /// Whether it has neither proven who it is nor shown a signature, and has to.
    pub(super) fn is_unknown(&self) -> bool {
        self.needs_authentication()
            && !self.session.is_known()
            && !self.admitted.load(Ordering::Relaxed)
    }

    /// Counts the socket for a project, if that may have one more.
    pub(super) fn enter(&self, project: &ProjectId) -> Result<(), Refusal> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if projects.contains(project) {
            return Ok(());
        }
        if !self.hub.count_in(project) {
            let error = "This project has as many sockets open as it may have.";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, error).after(1));
        }
        if projects.len() == MAX_PROJECTS {
            self.hub.count_out(&projects.remove(0));
        }
        projects.push(project.clone());
        Ok(())
    }

    /// Its subscriptions.
    pub(super) fn subscriptions(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Subscribed>> {
        self.subscriptions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has pushed messages be written like a request for a subscription.
    pub(super) fn push_in(&self, encoding: Encoding) {
        let is_binary = encoding == Encoding::Binary;
        self.pushes_binary.store(is_binary, Ordering::Relaxed);
    }

    /// How pushed messages are written.
    pub(super) fn push_encoding(&self) -> Encoding {
        match self.pushes_binary.load(Ordering::Relaxed) {
            true => Encoding::Binary,
            false => Encoding::Text,
        }
    }

    /// What it has claimed of a queue.
    pub(super) fn acks_of(&self, source: &QueueKey) -> Option<Arc<Acks>> {
        let subscriptions = self.subscriptions();
        let mut of_it = subscriptions.values().filter(|one| one.source == *source);
        of_it.find_map(|one| one.acks.as_ref().map(|(acks, _)| Arc::clone(acks)))
    }

    /// Pushes a message, if its client may have it now and takes what it is sent.
    pub(super) fn push(&self, message: Message) -> bool {
        !self.session.is_doubtful() && self.outgoing.push(Frame::new(message, None)).is_ok()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let projects = self.projects.get_mut();
        for project in projects.unwrap_or_else(PoisonError::into_inner) {
            self.hub.count_out(project);
        }
        self.hub.leave();
    }
}
