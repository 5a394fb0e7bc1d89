//! What a request must pass before its action: who asks, for which project, how often, and whether a policy lets it.
//!
//! The rules are those of the REST API, which the action stands for by its method and path: the same authenticator and access
//! rules, signatures, quotas and policies. What differs is how a refusal is worded (spec: websocket.md 1 and 4).

use std::sync::atomic::Ordering;

use axum::http::{HeaderMap, StatusCode};
use isimud_contract::{ProjectId, QueueKey, QueueName};

use super::action::{Action, text};
use super::reply::Refusal;
use super::request::Request;
use super::session::Standing;
use super::socket::Socket;
use crate::http::auth::{empty_project, invalid_queue};
use crate::http::policy::Credentials;
use crate::http::under_way;
use crate::keystone::{Caller, RequestParts};
use crate::messaging::quotas::TooSoon;
use crate::signature::Presented;

/// What a request is about, and for whom it is done.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) project: ProjectId,
    /// The queue that it names; none where its action names none.
    pub(super) queue: Option<QueueKey>,
    asker: Asker,
}

impl Scope {
    /// The queue of an action that has one.
    pub(super) fn queue(&self) -> Result<&QueueKey, Refusal> {
        let queue = self.queue.as_ref();
        queue.ok_or_else(|| Refusal::from(invalid_queue()))
    }

    /// The user whose token it is.
    pub(super) fn user(&self) -> Option<&str> {
        match &self.asker {
            Asker::Token(caller) => Some(caller.user_id()),
            Asker::Signed | Asker::Said => None,
        }
    }
}

/// A request that does not pass.
#[derive(Debug)]
pub(super) enum Denied {
    Refused(Refusal),
    /// The client's token is not good any more.
    Ended,
}

impl<T: Into<Refusal>> From<T> for Denied {
    fn from(refusal: T) -> Self {
        Self::Refused(refusal.into())
    }
}

/// Who asks.
#[derive(Debug)]
enum Asker {
    Token(Caller),
    /// A signature stands for the token.
    Signed,
    /// Whom the handshake named.
    Said,
}

/// Lets a request through, or says why not.
pub(super) async fn admit(socket: &Socket, request: &Request<'_>) -> Result<Scope, Denied> {
    let app = &socket.hub.app;
    let name = request.body.get("queue_name").and_then(text);
    let path = request
        .action
        .path_of(name.as_deref().unwrap_or_default(), &request.body);
    let named = request.header("X-Project-ID").unwrap_or_default();
    let asker = identify(socket, request, named, &path).await?;
    if named.is_empty() {
        return Err(empty_project().into());
    }
    let project = ProjectId::parse(named).map_err(|_| Refusal::from(invalid_queue()))?;
    let queue = match request.action.has_queue() {
        false => None,
        true => {
            let name = QueueName::parse(name.as_deref().unwrap_or_default());
            let name = name.map_err(|_| Refusal::from(invalid_queue()))?;
            Some(QueueKey::new(project.clone(), name))
        }
    };
    socket.admitted.store(true, Ordering::Relaxed);
    socket.enter(&project)?;
    if let Err(TooSoon(wait)) = app.messaging.admit(&project) {
        let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let error =
            "This project has sent more requests than it may. Please wait before the next one.";
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, error)
            .after(secs.max(1))
            .into());
    }
    let scope = Scope {
        project,
        queue,
        asker,
    };
    if !allows(socket, &scope, request.action) {
        return Err(not_authorized().into());
    }
    under_way::check(app, &scope.project)?;
    Ok(scope)
}

/// Whether a policy lets the asker do what the action stands for.
fn allows(socket: &Socket, scope: &Scope, action: &Action) -> bool {
    let (said, project) = (&socket.handshake.said, scope.project.as_str());
    let credentials = match &scope.asker {
        Asker::Token(caller) => Credentials::of_token(caller, project),
        Asker::Signed => Credentials::of_headers("", project, ""),
        Asker::Said => Credentials::of_headers(&said.roles, project, &said.user),
    };
    let policy = socket.hub.app.policy.get();
    let rule = policy.rule(action.rule);
    rule.is_none_or(|rule| policy.allows(rule, &credentials))
}

/// Whether the asker of one action may also do another one on its queue.
pub(super) fn may(socket: &Socket, scope: &Scope, action: &str) -> bool {
    let Some((action, queue)) = Action::find(action).zip(scope.queue.as_ref()) else {
        return false;
    };
    let path = action.path.replace("{queue}", queue.name.as_str());
    is_within_rules(socket, &scope.asker, action, &path) && allows(socket, scope, action)
}

/// Whether the access rules of an application credential allow the request that the action stands for.
fn is_within_rules(socket: &Socket, asker: &Asker, action: &Action, path: &str) -> bool {
    let (Some(keystone), Asker::Token(caller)) = (&socket.hub.app.keystone, asker) else {
        return true;
    };
    let none = HeaderMap::new();
    let stands_for = RequestParts {
        method: &action.method,
        path,
        headers: &none,
        base_path: &socket.handshake.base_path,
    };
    keystone.may(caller, stands_for)
}

/// A policy does not let the asker.
pub(super) fn not_authorized() -> Refusal {
    let error = "You are not authorized to complete this action.";
    Refusal::new(StatusCode::FORBIDDEN, error)
}

/// Finds out who asks, and whether they may ask for the project that they name.
async fn identify(
    socket: &Socket,
    request: &Request<'_>,
    named: &str,
    path: &str,
) -> Result<Asker, Denied> {
    let app = &socket.hub.app;
    if let Some(keystone) = &app.keystone {
        match socket.session.standing(keystone, &app.signer).await {
            Standing::Unknown => {}
            Standing::Ended => return Err(Denied::Ended),
            Standing::Doubtful(secs) => {
                let error = "Authentication failed.";
                let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
                return Err(refusal.after(secs).into());
            }
            Standing::Known(caller) => {
                let is_theirs = caller.project().is_some_and(|its| *its.id == *named);
                let asker = Asker::Token(caller);
                if !is_theirs || !is_within_rules(socket, &asker, request.action, path) {
                    return Err(Refusal::other_project().into());
                }
                return Ok(asker);
            }
        }
    }
    if let Some(signature) = request.header("URL-Signature") {
        let (paths, methods) = (
            request.list_header("URL-Paths"),
            request.list_header("URL-Methods"),
        );
        let presented = Presented {
            signature,
            paths: &paths,
            methods: &methods,
            expires: request.header("URL-Expires").unwrap_or_default(),
            project: Some(named),
        };
        let method = request.action.method.as_str();
        let fit = app.signer.judge(presented, method, path);
        return match fit.filter(|_| request.action.may_be_signed) {
            Some(_) => Ok(Asker::Signed),
            None => Err(Refusal::not_authenticated().into()),
        };
    }
    if socket.needs_authentication() {
        return Err(Refusal::not_authenticated().into());
    }
    // Where a proxy vouches for its clients it names their project in the handshake.
    let vouched = socket.handshake.said.project.as_deref();
    if app.identity.is_guarded() && vouched != Some(named) {
        return Err(Refusal::other_project().into());
    }
    Ok(Asker::Said)
}
