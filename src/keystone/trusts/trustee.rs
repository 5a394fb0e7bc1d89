//! The trustee at Keystone: it logs in, learns where to ask, gets tokens of trusts, and remembers them.
//!
//! Source: `docs/compatibility/keystone.md` section 11.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};
use isimud_contract::{Clock, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{
    ACCESS_RULES, LOGIN_TTL, MAX_REASON_CHARS, REFUSAL_TTL, RENEW_BEFORE, RETRY_DELAY, TrustError,
    unavailable,
};
use crate::dates;
use crate::keystone::breaker::Breaker;
use crate::keystone::client::{SERVICE_TOKEN, SUBJECT_TOKEN, Undecided};
use crate::keystone::credentials::Credentials;
use crate::keystone::health::Fault;
use crate::keystone::lru::Lru;
use crate::keystone::metrics::Metrics;
use crate::keystone::transport::{Answer, Ask, Transport};
use crate::keystone::{REQUEST_TIMEOUT, endpoint};

/// The digest of a trust's id.
pub(super) type TrustKey = [u8; 32];

/// What is asked of Keystone.
#[derive(Debug)]
pub(super) struct Keystone {
    pub(super) transport: Arc<Transport>,
    pub(super) breaker: Breaker,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) auth_url: Uri,
    pub(super) credentials: Credentials,
    /// The names of the roles that a trust has; empty for all of the user's.
    pub(super) roles: Vec<String>,
    pub(super) requests: Semaphore,
    /// Held while the trustee gets a token.
    pub(super) login: tokio::sync::Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Debug)]
pub(super) struct State {
    /// The URL of version 3, once it was discovered.
    pub(super) discovered: Option<Uri>,
    pub(super) trustee: Option<Arc<Trustee>>,
    /// A refusal of the trustee's password, and until when nothing is tried again because of it.
    pub(super) refused: Option<(TrustError, Timestamp)>,
    pub(super) tokens: Lru<TrustKey, TrustToken>,
    /// What came of the trusts that were asked about a moment ago.
    pub(super) recent: Lru<TrustKey, (Recent, Timestamp)>,
    /// When the trustee's password was last accepted.
    pub(super) logged_in: Option<Timestamp>,
}

/// Why a trust is not asked about again for a while.
#[derive(Debug, Clone)]
pub(super) enum Recent {
    /// Keystone has refused its token, for this reason.
    Refused(TrustError),
    /// It has a new token because the receiver has refused the one before.
    Renewed,
}

/// The trustee with a token that has no scope.
#[derive(Debug)]
pub(super) struct Trustee {
    pub(super) id: Box<str>,
    pub(super) token: TrustToken,
}

/// A token, marked as sensitive so that nothing shows it.
#[derive(Debug, Clone)]
pub(super) struct TrustToken {
    pub(super) value: HeaderValue,
    /// The moment from which on it is renewed.
    pub(super) renew_at: Timestamp,
}

impl Keystone {
    /// Returns a token of a trust that needs no request.
    pub(super) fn known(
        &self,
        key: TrustKey,
        refused: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        let now = self.clock.wall();
        let mut state = self.lock();
        let token = state.tokens.get(&key)?;
        let is_usable = now < token.renew_at && refused != Some(&token.value);
        is_usable.then(|| token.value.clone())
    }

    /// Fails when Keystone has refused a token of the trust a moment ago, or when one is wanted because the receiver refuses
    /// the new one, too.
    pub(super) fn check_recent(&self, key: TrustKey, is_renewal: bool) -> Result<(), TrustError> {
        let now = self.clock.now();
        match self.lock().recent.get(&key) {
            Some((recent, at)) if now >= *at && now.since(*at) < REFUSAL_TTL => match recent {
                Recent::Refused(why) => Err(why.clone()),
                Recent::Renewed if is_renewal => Err(TrustError::Refused(
                    "the receiver refuses a token that is new".to_owned(),
                )),
                Recent::Renewed => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn note_recent(&self, key: TrustKey, recent: Recent) {
        let size = match &recent {
            Recent::Refused(why) => size_of::<TrustError>() + why.to_string().len(),
            Recent::Renewed => size_of::<TrustError>(),
        };
        let now = self.clock.now();
        self.lock().recent.insert(key, (recent, now), size);
    }

    /// Gets a token of a trust and keeps it. `is_renewal` says that the receiver has refused the one before.
    pub(super) async fn token(
        &self,
        key: TrustKey,
        id: &str,
        is_renewal: bool,
    ) -> Result<HeaderValue, TrustError> {
        const WHAT: &str = "the request for a token of a trust";
        self.check_refused()?;
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let mut request = self.credentials.request();
        request["auth"]["scope"] = json!({"OS-TRUST:trust": {"id": id}});
        let (answer, _) = self.authenticate(&request, WHAT, deadline).await?;
        let token = match answer {
            Ok(token) => token,
            Err(answer) => {
                self.lock().tokens.remove(&key);
                // With a wrong password there is no token either, and then it is not the trust's fault.
                if answer.status == StatusCode::UNAUTHORIZED {
                    self.confirm_password(deadline).await?;
                }
                let error = match answer.status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                        refusal(&answer, WHAT)
                    }
                    _ => undecided(&answer, WHAT).into(),
                };
                if let TrustError::Refused(_) = &error {
                    self.note_recent(key, Recent::Refused(error.clone()));
                }
                return Err(error);
            }
        };
        match is_renewal {
            true => self.note_recent(key, Recent::Renewed),
            false => drop(self.lock().recent.remove(&key)),
        }
        let size = token.value.len();
        self.lock().tokens.insert(key, token.clone(), size);
        Ok(token.value)
    }

    /// Returns the trustee with a token that is not the one that Keystone has refused.
    pub(super) async fn trustee(
        &self,
        refused: Option<&Arc<Trustee>>,
        deadline: Instant,
    ) -> Result<Arc<Trustee>, TrustError> {
        let known = || {
            let now = self.clock.wall();
            let state = self.lock();
            let trustee = state.trustee.as_ref()?;
            let is_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, trustee));
            (!is_refused && now < trustee.token.renew_at).then(|| Arc::clone(trustee))
        };
        if let Some(trustee) = known() {
            return Ok(trustee);
        }
        let Ok(_login) = timeout_at(deadline, self.login.lock()).await else {
            return Err(unavailable("it does not give the trustee a token in time"));
        };
        match known() {
            Some(trustee) => Ok(trustee),
            None => self.log_in(deadline).await,
        }
    }

    /// Fails when Keystone refuses the trustee's password. One caller at a time asks, and none when it was right a moment ago.
    async fn confirm_password(&self, deadline: Instant) -> Result<(), TrustError> {
        let Ok(_login) = timeout_at(deadline, self.login.lock()).await else {
            return Err(unavailable("it does not give the trustee a token in time"));
        };
        let now = self.clock.now();
        let logged_in = self.lock().logged_in;
        match logged_in.is_some_and(|at| now >= at && now.since(at) < LOGIN_TTL) {
            true => Ok(()),
            false => self.log_in(deadline).await.map(drop),
        }
    }

    /// Gets a token of the trustee without scope, and learns the trustee's id by it.
    pub(super) async fn log_in(&self, deadline: Instant) -> Result<Arc<Trustee>, TrustError> {
        const WHAT: &str = "the request for a token of the trustee";
        self.check_refused()?;
        let request = self.credentials.request();
        let (answer, document) = self.authenticate(&request, WHAT, deadline).await?;
        let token = match answer {
            Ok(token) => token,
            Err(answer) => {
                let refused = TrustError::from(undecided(&answer, WHAT));
                tracing::error!(error = %refused, user = self.credentials.name(), "trust subscriptions do not work: the trustee's credentials are refused");
                let until = self.clock.now().after(RETRY_DELAY);
                self.lock().refused = Some((refused.clone(), until));
                return Err(refused);
            }
        };
        let id = document["token"]["user"]["id"]
            .as_str()
            .ok_or_else(|| unavailable("it answers the request for a token without a user"))?;
        let trustee = Arc::new(Trustee {
            id: id.into(),
            token,
        });
        let mut state = self.lock();
        state.trustee = Some(Arc::clone(&trustee));
        state.refused = None;
        state.logged_in = Some(self.clock.now());
        Ok(trustee)
    }

    /// Fails when the trustee's password was refused a moment ago.
    pub(super) fn check_refused(&self) -> Result<(), TrustError> {
        let now = self.clock.now();
        match &self.lock().refused {
            Some((refused, until)) if now < *until => Err(refused.clone()),
            _ => Ok(()),
        }
    }

    /// Asks for a token. Returns it with its document, or the answer that has none because Keystone refuses it.
    pub(super) async fn authenticate(
        &self,
        request: &Value,
        what: &str,
        deadline: Instant,
    ) -> Result<(Result<TrustToken, Answer>, Value), TrustError> {
        let ask = Ask {
            method: Method::POST,
            uri: self.resource("/auth/tokens?nocatalog", deadline).await?,
            headers: Vec::new(),
            body: Bytes::from(request.to_string()),
        };
        let answer = self.send(&ask, deadline).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
                if reason(&answer).is_some() =>
            {
                return Ok((Err(answer), Value::Null));
            }
            _ => return Err(undecided(&answer, what).into()),
        }
        let document = document(&answer);
        let value = answer.headers.get(SUBJECT_TOKEN).cloned();
        let expires_at = document["token"]["expires_at"]
            .as_str()
            .and_then(dates::parse);
        let (Some(mut value), Some(expires_at)) = (value, expires_at) else {
            return Err(unavailable(format!(
                "it answers {what} without a token or its expiry"
            )));
        };
        value.set_sensitive(true);
        // A token that lives for minutes only is not renewed all the time.
        let life = expires_at.since(self.clock.wall());
        let renew_at = expires_at.before(RENEW_BEFORE.min(life / 4));
        Ok((Ok(TrustToken { value, renew_at }), document))
    }

    /// Returns the roles of a token, as Keystone names them. What is known of the token from its validation has them in
    /// lower case, and may be a minute old.
    pub(super) async fn roles_of(
        &self,
        token: &HeaderValue,
        deadline: Instant,
    ) -> Result<Vec<Value>, TrustError> {
        const WHAT: &str = "the request for the user's roles";
        let ask = Ask {
            method: Method::GET,
            uri: self.resource("/auth/tokens?nocatalog", deadline).await?,
            headers: vec![
                (SERVICE_TOKEN, token.clone()),
                (SUBJECT_TOKEN, token.clone()),
                (ACCESS_RULES, HeaderValue::from_static("1")),
            ],
            body: Bytes::new(),
        };
        let answer = self.send(&ask, deadline).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(&answer, WHAT));
        }
        let document = document(&answer);
        let roles = document["token"]["roles"].as_array().into_iter().flatten();
        let roles = roles.filter_map(|role| role["id"].as_str());
        Ok(roles.map(|id| json!({ "id": id })).collect())
    }

    /// Returns the URL of a resource of version 3. What was discovered once is kept, what was guessed is not.
    pub(super) async fn resource(
        &self,
        path_and_query: &str,
        deadline: Instant,
    ) -> Result<Uri, TrustError> {
        let v3 = self.version_3(deadline).await?;
        endpoint::resource(&v3, path_and_query).ok_or_else(|| unavailable("its URL cannot be used"))
    }

    pub(super) async fn version_3(&self, deadline: Instant) -> Result<Uri, TrustError> {
        let base = &self.auth_url;
        let guess = || endpoint::guess(base).ok_or_else(|| unavailable("its URL cannot be used"));
        if endpoint::is_version_3(base) {
            return guess();
        }
        if let Some(known) = self.lock().discovered.clone() {
            return Ok(known);
        }
        let ask = Ask {
            method: Method::GET,
            uri: base.clone(),
            headers: Vec::new(),
            body: Bytes::new(),
        };
        let answer = self.send(&ask, deadline).await?;
        let is_document = matches!(answer.status, StatusCode::OK | StatusCode::MULTIPLE_CHOICES);
        let found = is_document.then(|| endpoint::from_discovery(base, &answer.body));
        match found.flatten() {
            Some(v3) => {
                self.lock().discovered = Some(v3.clone());
                Ok(v3)
            }
            None => guess(),
        }
    }

    /// Sends a request, until the deadline at the latest, and counts what came of it. What says that Keystone cannot decide
    /// now is an error.
    pub(super) async fn send(&self, ask: &Ask, deadline: Instant) -> Result<Answer, TrustError> {
        let answer = self.exchange(ask, deadline).await;
        let status = answer.as_ref().ok().map(|answer| answer.status);
        self.metrics.note_trust(&ask.method, ask.uri.path(), status);
        answer
    }

    async fn exchange(&self, ask: &Ask, deadline: Instant) -> Result<Answer, TrustError> {
        let Ok(Ok(_turn)) = timeout_at(deadline, self.requests.acquire()).await else {
            return Err(unavailable("too many ask it about trusts"));
        };
        let permit = self.transport.connection(deadline).await;
        let _permit = permit.map_err(|failure| unavailable(failure.to_string()))?;
        let admission = self.breaker.admit().map_err(|retry_after| {
            let why = "it did not answer a moment ago".to_owned();
            TrustError::Unavailable { why, retry_after }
        })?;
        let failure = match self.transport.send(ask, deadline).await {
            Ok(answer) => match answer.status.as_u16() {
                408 | 429 | 500.. => undecided(&answer, "a request about trusts"),
                _ => {
                    admission.succeeded();
                    return Ok(answer);
                }
            },
            Err(failure) => Undecided::from(failure),
        };
        admission.failed(failure.retry_after);
        Err(failure.into())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names roles as Keystone takes them.
pub(super) fn by_name(names: &[impl AsRef<str>]) -> Vec<Value> {
    let names = names.iter().map(AsRef::as_ref);
    names.map(|name| json!({ "name": name })).collect()
}

pub(super) fn key(id: &str) -> TrustKey {
    Sha256::digest(id).into()
}

pub(super) fn document(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// What an answer means that is neither a success nor an outage: a refusal, where Keystone says so in its own words. A
/// proxy in front of it answers in others.
pub(super) fn refusal(answer: &Answer, what: &str) -> TrustError {
    match reason(answer) {
        Some(reason) if answer.status.is_client_error() => TrustError::Refused(reason),
        _ => undecided(answer, what).into(),
    }
}

/// Names an answer that is no decision.
pub(super) fn undecided(answer: &Answer, what: &str) -> Undecided {
    Undecided::of_answer(Fault::Unreachable, what, answer)
}

/// Reads the reason of an error document of Keystone's: `{"error": {"code": 403, "message": …}}`.
pub(super) fn reason(answer: &Answer) -> Option<String> {
    let document = document(answer);
    let error = &document["error"];
    if error["code"] != answer.status.as_u16() {
        return None;
    }
    let message = error["message"].as_str()?.chars();
    let plain = message.map(|sign| if sign.is_control() { ' ' } else { sign });
    Some(plain.take(MAX_REASON_CHARS).collect())
}
