//! Trusts: a user (the trustor) lets the service (the trustee) act in the user's name in one project, so that
//! notifications can carry a token of the user.
//!
//! ```text
//! create    as the user: the trust of a new subscription, with the user's roles or those of keystone.trust_roles
//! check     as the trustee: whether a trust that a client names is the client's own
//! token     as the trustee, within the trust: kept until a minute before its end, got by one request at a time
//! delete    as the user, by a token of the trust: the trustee's own token may not
//! ```
//!
//! Source: `docs/compatibility/keystone.md` section 11.

mod trustee;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use isimud_contract::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::trustee::{
    Keystone, State, TrustKey, by_name, document, key, reason, refusal, undecided,
};
use super::REQUEST_TIMEOUT;
use super::authenticator::{Authenticator, Tokens};
use super::breaker::Breaker;
use super::client::{DEFAULT_RETRY_AFTER, SERVICE_TOKEN, Undecided};
use super::identity::{Caller, lower};
use super::lru::Lru;
use super::settings::{Settings, TrusteeSettings};
use super::single_flight::{Joined, SingleFlight};
use super::transport::Ask;
use crate::dates;
use crate::notifications::{NoTrustToken, TrustTokens};

/// A token with less than this left is renewed.
const RENEW_BEFORE: Duration = Duration::from_mins(1);

/// How long nothing is tried after Keystone has refused the trustee's password. Keystone may lock a user after some wrong
/// ones.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Requests about trusts that run at once. Most connections are left to the validations of clients' tokens.
const MAX_REQUESTS: usize = 8;

/// Trusts whose tokens are got at once, or wait for it.
const MAX_PENDING: usize = 1000;

/// Tokens of trusts that are kept, and their bytes.
const MAX_TOKENS: usize = 10_000;
const MAX_TOKEN_BYTES: usize = 8 << 20;

/// How long a refusal of Keystone's holds for the next who ask for a token of that trust, and how long a token is kept though
/// the receiver refuses it, where the one before was refused too. Else each notification would cost Keystone a password.
const REFUSAL_TTL: Duration = Duration::from_mins(1);

/// The trustee's password is not tried again to explain a refusal when it was right so long ago.
const LOGIN_TTL: Duration = Duration::from_secs(10);

/// Trusts that wait to be deleted. The others end when they expire.
const MAX_DELETIONS: usize = 10_000;

/// How often the deletion of a trust is tried while Keystone makes no decision. The pause between the first two is given, and
/// each later one is twice as long: about ten minutes in all.
const MAX_DELETION_ATTEMPTS: u32 = 8;
const FIRST_DELETION_PAUSE: Duration = Duration::from_secs(5);

/// The longest id of a trust; Keystone's have 32 characters.
const MAX_ID_BYTES: usize = 64;

/// How often a trust is asked for whose end Keystone has already.
const MAX_ATTEMPTS: usize = 3;

/// The part of a reason of Keystone's that is passed on, in characters.
const MAX_REASON_CHARS: usize = 300;

const ACCESS_RULES: HeaderName = HeaderName::from_static("openstack-identity-access-rules");

/// Why there is no trust, or no token of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustError {
    /// Keystone refuses it, for this reason. Trying again does not change it.
    Refused(String),
    /// The trust is not one that the caller may name.
    Foreign,
    /// Keystone made no decision; it may be asked again after so many seconds.
    Unavailable {
        /// What happened, without any secret.
        why: String,
        /// See above.
        retry_after: u64,
    },
}

impl std::fmt::Display for TrustError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "Keystone refuses it: {why}"),
            Self::Foreign => f.write_str("the trust is not the caller's"),
            Self::Unavailable { why, .. } => write!(f, "Keystone cannot be asked: {why}"),
        }
    }
}

impl std::error::Error for TrustError {}

impl From<Undecided> for TrustError {
    fn from(undecided: Undecided) -> Self {
        Self::Unavailable {
            why: undecided.why.to_string(),
            retry_after: undecided.retry_after,
        }
    }
}

fn unavailable(why: impl Into<String>) -> TrustError {
    TrustError::Unavailable {
        why: why.into(),
        retry_after: DEFAULT_RETRY_AFTER,
    }
}

/// The user for whom a trust is created, with the token of the request. Never shows the token.
#[derive(Debug, Clone)]
pub struct Trustor {
    user: Box<str>,
    project: Box<str>,
    token: HeaderValue,
    /// The names of the token's roles, in lower case.
    roles: Vec<Box<str>>,
    /// Whether the token is one of an application credential or of a trust, which may allow less than the user may.
    is_delegated: bool,
    /// Whether access rules limit the token. A token of a trust would not be limited by them.
    has_access_rules: bool,
}

impl Trustor {
    /// Returns the caller of a request with its token. `None` when there is no user's token, or none of a project.
    pub fn of_request(caller: &Caller, headers: &HeaderMap) -> Option<Self> {
        Self::of_tokens(caller, &Tokens::of_request(headers).ok()?)
    }

    /// Returns the caller with the tokens that were proven to be theirs. `None` when they are of no project.
    pub fn of_tokens(caller: &Caller, tokens: &Tokens) -> Option<Self> {
        let identity = caller.identity();
        let credential = identity.application_credential.as_ref();
        Some(Self {
            user: caller.user_id().into(),
            project: caller.project()?.id.clone(),
            token: tokens.user.clone(),
            roles: caller.roles().map(Box::from).collect(),
            is_delegated: credential.is_some() || identity.trust.is_some(),
            has_access_rules: credential.is_some_and(|one| one.access_rules.is_some()),
        })
    }

    /// Reports whether the user's token may allow less than the user may: by an application credential or a trust.
    pub fn is_delegated(&self) -> bool {
        self.is_delegated
    }

    /// Reports whether a trust is this user's, as far as the token goes.
    fn has_given(&self, trust: &Value, trustee: &str) -> bool {
        let has = |role: &Value| {
            let name = role["name"].as_str().map(lower);
            name.is_some_and(|name| self.roles.contains(&name))
        };
        // Without impersonation its tokens would be the trustee's own, and show the receiver what only the service may see.
        trust["impersonation"] == true
            && trust["trustor_user_id"] == *self.user
            && trust["project_id"] == *self.project
            && trust["trustee_user_id"] == *trustee
            && trust["roles"]
                .as_array()
                .is_some_and(|roles| roles.iter().all(has))
    }

    /// Returns the user's id.
    pub fn user_id(&self) -> &str {
        &self.user
    }
}

/// Creates trusts, gets their tokens and deletes them. Its methods may be called from any task, at once.
#[derive(Debug)]
pub struct Trusts {
    keystone: Arc<Keystone>,
    pending: SingleFlight<TrustKey, Result<HeaderValue, TrustError>>,
    /// The trusts that wait to be deleted, or are being deleted.
    deletions: Mutex<HashSet<String>>,
    deletion_pause: Duration,
}

impl Trusts {
    /// Prepares to ask the Keystone of an authenticator, through its connections; asks nothing yet.
    pub fn new(
        authenticator: &Authenticator,
        settings: &Settings,
        trustee: TrusteeSettings,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = State {
            discovered: None,
            trustee: None,
            refused: None,
            tokens: Lru::new(MAX_TOKENS, MAX_TOKEN_BYTES),
            recent: Lru::new(MAX_TOKENS, MAX_TOKEN_BYTES),
            logged_in: None,
        };
        let keystone = Keystone {
            transport: Arc::clone(authenticator.transport()),
            breaker: Breaker::new(Arc::clone(&clock)),
            clock,
            auth_url: trustee.auth_url,
            credentials: trustee.credentials,
            roles: settings.trust_roles.clone(),
            requests: Semaphore::new(MAX_REQUESTS),
            login: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            metrics: Arc::clone(authenticator.counters()),
        };
        Self {
            keystone: Arc::new(keystone),
            pending: SingleFlight::new(MAX_PENDING),
            deletions: Mutex::default(),
            deletion_pause: FIRST_DELETION_PAUSE,
        }
    }

    /// Creates a trust of a user for the service, in the project of the token and for so long, and returns its id.
    pub async fn create(&self, trustor: &Trustor, life: Duration) -> Result<String, TrustError> {
        const WHAT: &str = "the request for a trust";
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let keystone = &self.keystone;
        let trustee = keystone.trustee(None, deadline).await?;
        let roles = match keystone.roles.is_empty() {
            true => match keystone.roles_of(&trustor.token, deadline).await {
                // The token of a trust does not tell them. It gives no trust either, and Keystone says why.
                Err(TrustError::Refused(_)) if trustor.is_delegated => by_name(&trustor.roles),
                roles => roles?,
            },
            false => by_name(&keystone.roles),
        };
        for attempt in 1.. {
            let trust = json!({"trust": {
                "expires_at": expiry(keystone.clock.wall().after(life), fastrand::u32(..1000)),
                "impersonation": true,
                "project_id": trustor.project,
                "roles": roles,
                "trustee_user_id": trustee.id,
                "trustor_user_id": trustor.user,
            }});
            let ask = Ask {
                method: Method::POST,
                uri: keystone.resource("/OS-TRUST/trusts", deadline).await?,
                headers: vec![(SERVICE_TOKEN, trustor.token.clone())],
                body: Bytes::from(trust.to_string()),
            };
            let answer = keystone.send(&ask, deadline).await?;
            match answer.status {
                status if status.is_success() => {
                    let document = document(&answer);
                    let id = document["trust"]["id"].as_str().filter(|id| is_id(id));
                    return id.map(str::to_owned).ok_or_else(|| {
                        unavailable("it answers the request for a trust without an id")
                    });
                }
                // There is one that ends at the same microsecond.
                StatusCode::CONFLICT if attempt < MAX_ATTEMPTS => {}
                StatusCode::CONFLICT => return Err(undecided(&answer, WHAT).into()),
                _ => return Err(refusal(&answer, WHAT)),
            }
        }
        Err(unavailable("it was asked too often"))
    }

    /// Checks that a trust is of this user, in the project of the token, for the service, and allows no more than the token.
    /// `Foreign` when it is not so, or there is none.
    pub async fn check(&self, id: &str, trustor: &Trustor) -> Result<(), TrustError> {
        if !is_id(id) || trustor.has_access_rules {
            return Err(TrustError::Foreign);
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let keystone = &self.keystone;
        let mut refused = None;
        // At most twice: a 401 is about the trustee's token, which is renewed once.
        loop {
            let trustee = keystone.trustee(refused.as_ref(), deadline).await?;
            let path = format!("/OS-TRUST/trusts/{id}");
            let ask = Ask {
                method: Method::GET,
                uri: keystone.resource(&path, deadline).await?,
                headers: vec![(SERVICE_TOKEN, trustee.token.value.clone())],
                body: Bytes::new(),
            };
            let answer = keystone.send(&ask, deadline).await?;
            match answer.status {
                StatusCode::OK => {
                    let document = document(&answer);
                    return match trustor.has_given(&document["trust"], &trustee.id) {
                        true => Ok(()),
                        false => Err(TrustError::Foreign),
                    };
                }
                StatusCode::UNAUTHORIZED if refused.is_none() => refused = Some(trustee),
                StatusCode::FORBIDDEN | StatusCode::NOT_FOUND if reason(&answer).is_some() => {
                    return Err(TrustError::Foreign);
                }
                _ => return Err(undecided(&answer, "the request for a trust").into()),
            }
        }
    }

    /// Returns a token of a trust that is not the one that a receiver has refused. Callers that need one of the same trust
    /// at the same time get the same one.
    pub async fn token(
        &self,
        id: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, TrustError> {
        let key = key(id);
        let known = || self.keystone.known(key, refused);
        if let Some(token) = known() {
            return Ok(token);
        }
        self.keystone.check_recent(key, refused.is_some())?;
        let is_renewal = refused.is_some();
        let joined = self.pending.join(
            key,
            || known().map(Ok),
            |_| {
                let (keystone, id) = (Arc::clone(&self.keystone), id.to_owned());
                async move { Some(keystone.token(key, &id, is_renewal).await) }
            },
        );
        match joined {
            Joined::Ready(token) => token,
            Joined::Full => Err(unavailable("too many wait for it")),
            Joined::Began(waiting) | Joined::Shared(waiting) => {
                let token = waiting.result().await;
                token.unwrap_or_else(|| Err(unavailable("the service stops")))
            }
        }
    }

    /// Deletes trusts that the service created, in its own time: who no longer needs them does not wait. While Keystone does
    /// not answer, it is tried for about ten minutes. A trust that cannot be deleted is logged; it ends when it expires.
    pub fn delete_soon(self: &Arc<Self>, ids: Vec<String>) {
        let mut deletions = self.deletions();
        let room = MAX_DELETIONS.saturating_sub(deletions.len());
        if ids.len() > room {
            let left = ids.len() - room;
            tracing::warn!(
                left,
                "too many trusts are to be deleted: those that are left end when they expire"
            );
        }
        let mut ids = ids;
        ids.truncate(room);
        ids.retain(|id| deletions.insert(id.clone()));
        drop(deletions);
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if ids.is_empty() {
            return;
        }
        let trusts = Arc::clone(self);
        runtime.spawn(async move {
            let mut pause = trusts.deletion_pause;
            for attempt in 1..=MAX_DELETION_ATTEMPTS {
                ids = trusts
                    .delete_all(ids, attempt == MAX_DELETION_ATTEMPTS)
                    .await;
                if ids.is_empty() {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        });
    }

    /// Deletes trusts, and returns those of which Keystone has decided nothing, unless this was the last attempt.
    async fn delete_all(&self, ids: Vec<String>, is_last: bool) -> Vec<String> {
        let mut undecided = Vec::new();
        for id in ids {
            match self.delete(&id).await {
                Err(TrustError::Unavailable { .. }) if !is_last => {
                    undecided.push(id);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, trust = id, "cannot delete the trust of a subscription: it ends when it expires");
                }
                Ok(()) => {}
            }
            self.deletions().remove(&id);
        }
        undecided
    }

    async fn delete(&self, id: &str) -> Result<(), TrustError> {
        let keystone = &self.keystone;
        let mut refused = None;
        // At most twice: a token that was kept may be revoked.
        loop {
            let token = match self.token(id, refused.as_ref()).await {
                Ok(token) => token,
                // It has expired, or its user has deleted it.
                Err(TrustError::Refused(why)) => {
                    tracing::debug!(why, trust = id, "a trust cannot be used any more");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let deadline = Instant::now() + REQUEST_TIMEOUT;
            let path = format!("/OS-TRUST/trusts/{id}");
            let ask = Ask {
                method: Method::DELETE,
                uri: keystone.resource(&path, deadline).await?,
                headers: vec![(SERVICE_TOKEN, token.clone())],
                body: Bytes::new(),
            };
            let answer = keystone.send(&ask, deadline).await?;
            match answer.status {
                status if status.is_success() || status == StatusCode::NOT_FOUND => {
                    keystone.lock().tokens.remove(&key(id));
                    return Ok(());
                }
                StatusCode::UNAUTHORIZED if refused.is_none() => refused = Some(token),
                _ => return Err(refusal(&answer, "the deletion of a trust")),
            }
        }
    }

    fn deletions(&self) -> MutexGuard<'_, HashSet<String>> {
        self.deletions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TrustTokens for Trusts {
    async fn token(
        &self,
        trust: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, NoTrustToken> {
        Self::token(self, trust, refused)
            .await
            .map_err(|error| match error {
                TrustError::Unavailable { retry_after, .. } => NoTrustToken {
                    after: Some(Duration::from_secs(retry_after)),
                    why: error.to_string(),
                },
                TrustError::Refused(_) | TrustError::Foreign => NoTrustToken {
                    after: None,
                    why: error.to_string(),
                },
            })
    }
}

/// The end of a trust, to the microsecond: Keystone has no two trusts of the same users and project that end at the same
/// one, deleted ones included.
fn expiry(moment: Timestamp, micros: u32) -> String {
    let millis = moment.0.rem_euclid(1000);
    format!("{}.{millis:03}{micros:03}Z", dates::zoneless(moment))
}

/// Whether a text may be the id of a trust, and stand in a path.
fn is_id(id: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(is_part)
}

#[cfg(test)]
#[path = "trusts/tests.rs"]
mod tests;
