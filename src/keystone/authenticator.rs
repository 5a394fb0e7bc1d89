//! Decides who asks: from the token of a request to the identity that it proves, or to the answer that it gets.
//!
//! Source: `docs/compatibility/keystone.md` sections 2, 3, 7 and 8.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use isimud_contract::Clock;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::REQUEST_TIMEOUT;
use super::access_rules::RequestTarget;
use super::cache::Mode;
use super::decision::{Decision, Refusal};
use super::health::KeystoneState;
use super::identity::{Caller, Identity};
use super::metrics::{self, Metrics, Sample, Value};
use super::settings::Settings;
use super::transport::Transport;
use super::validator::{Validated, Validator};

const USER_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const OLDER_USER_TOKEN: HeaderName = HeaderName::from_static("x-storage-token");
const SERVICE_TOKEN: HeaderName = HeaderName::from_static("x-service-token");
const SIGNATURE: HeaderName = HeaderName::from_static("url-signature");

/// The longest token. Fernet tokens have about 200 characters, signed ones (JWS) some 1,500; what is longer is asked about
/// nowhere, for servers in front of Keystone close connections over it.
const MAX_TOKEN_BYTES: usize = 2048;

/// What the authenticator reads of a request. Headers of identity are not among it.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The request method.
    pub method: &'a Method,
    /// The request path without its query, as routes see it: percent-encoded, one slash in front.
    pub path: &'a str,
    /// The headers, of which the tokens and `URL-Signature` are read.
    pub headers: &'a HeaderMap,
    /// The path prefix that a proxy in front removed (`server.base_path`); empty where there is none.
    pub base_path: &'a str,
}

/// The tokens of a request or of a WebSocket `authenticate`, checked for their form alone. Never shows one.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub(super) user: HeaderValue,
    service: Option<HeaderValue>,
}

/// The tokens cannot be those of anybody: there is no user's token, or one has a form that no token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Tokens {
    /// Takes tokens as they are written; white space around them does not count, an empty one is none.
    pub fn new(user: &[u8], service: Option<&[u8]>) -> Result<Self, Malformed> {
        Ok(Self {
            user: token(user)?.ok_or(Malformed)?,
            service: service.map(token).transpose()?.flatten(),
        })
    }

    /// Reads the tokens of a request: the user's from `X-Auth-Token`, else from `X-Storage-Token`.
    pub fn of_request(headers: &HeaderMap) -> Result<Self, Malformed> {
        let user = match header(headers, &USER_TOKEN)? {
            Some(user) => Some(user),
            None => header(headers, &OLDER_USER_TOKEN)?,
        };
        Ok(Self {
            user: user.ok_or(Malformed)?,
            service: header(headers, &SERVICE_TOKEN)?,
        })
    }
}

/// Reads a header that has a token. The same header twice is no token: the reference joins them, and the whole fails.
fn header(headers: &HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, Malformed> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => token(value.as_bytes()),
        (Some(_), Some(_)) => Err(Malformed),
    }
}

/// Reads a token. Keystone makes tokens of letters, digits and a few signs; what else is sent is not passed on to it.
fn token(text: &[u8]) -> Result<Option<HeaderValue>, Malformed> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_TOKEN_BYTES
        || !text.iter().all(u8::is_ascii_graphic)
        || text.contains(&b',')
    {
        return Err(Malformed);
    }
    let mut token = HeaderValue::from_bytes(text).map_err(|_| Malformed)?;
    token.set_sensitive(true);
    Ok(Some(token))
}

/// What tokens prove.
#[derive(Debug, Clone)]
pub enum Proof {
    /// They are those of this caller. Access rules have not been looked at.
    Caller(Caller),
    /// One of them is bad.
    Refused,
    /// Keystone made no decision; a client may try again after so many seconds.
    Undecided(u64),
}

/// Authenticates requests by Keystone's tokens. May be used from any task, at once.
#[derive(Debug)]
pub struct Authenticator {
    validator: Validator,
    challenge: HeaderValue,
    service_type: String,
    service_roles: Vec<String>,
    cached_for: Duration,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    /// Creates an authenticator and reads the files of certificates; asks Keystone nothing yet. Fails with a sentence that
    /// names the key and the file.
    pub fn new(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let metrics = Arc::new(Metrics::default());
        Ok(Self {
            validator: Validator::new(settings, clock, &metrics)?,
            challenge: settings.challenge.clone(),
            service_type: settings.service_type.clone(),
            service_roles: settings.service_token_roles.clone(),
            cached_for: settings.cache.fresh,
            metrics,
        })
    }

    /// Decides about a request, within ten seconds. Must run on a Tokio runtime; may be dropped at any time.
    pub async fn authenticate(&self, request: RequestParts<'_>) -> Decision {
        if request.path == "/" || request.method == Method::OPTIONS {
            return Decision::Anonymous;
        }
        if request.headers.contains_key(SIGNATURE) {
            return Decision::Signed;
        }
        let decision = self.decide(request).await;
        metrics::add(match &decision {
            Decision::Refused(_) => &self.metrics.refused,
            Decision::Unavailable(_) => &self.metrics.unavailable,
            _ => &self.metrics.authenticated,
        });
        decision
    }

    async fn decide(&self, request: RequestParts<'_>) -> Decision {
        let Ok(tokens) = Tokens::of_request(request.headers) else {
            return Decision::Refused(self.unauthorized());
        };
        match self.prove(&tokens).await {
            Proof::Caller(caller) if !self.may(&caller, request) => {
                Decision::Refused(self.unauthorized())
            }
            Proof::Caller(caller) if caller.project().is_none() => Decision::ProjectMissing(caller),
            Proof::Caller(caller) => Decision::Authenticated(caller),
            Proof::Refused => Decision::Refused(self.unauthorized()),
            Proof::Undecided(retry_after) => {
                Decision::Unavailable(Refusal::unavailable(retry_after))
            }
        }
    }

    /// Says whose tokens these are, within ten seconds. For connections that authenticate once and ask many times: the
    /// caller of this method also checks [`Authenticator::may`] for each request.
    ///
    /// A service token is validated first, as a good one lets the user's token be expired; a bad one, or one without a
    /// service role, refuses both (section 8).
    pub async fn prove(&self, tokens: &Tokens) -> Proof {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        let (mut service, mut mode, mut is_stale) = (None, Mode::Current, false);
        if let Some(token) = &tokens.service {
            match self
                .validator
                .validate(token, Mode::Current, deadline)
                .await
            {
                Validated::Good(identity, stale) if self.is_service(&identity) => {
                    (service, mode, is_stale) = (Some(identity), Mode::AllowExpired, stale);
                }
                Validated::Good(..) | Validated::Bad => return Proof::Refused,
                Validated::Undecided(retry_after) => return Proof::Undecided(retry_after),
            }
        }
        match self.validator.validate(&tokens.user, mode, deadline).await {
            Validated::Good(identity, stale) => Proof::Caller(Caller {
                identity,
                service,
                is_stale: is_stale || stale,
            }),
            Validated::Bad => Proof::Refused,
            Validated::Undecided(retry_after) => Proof::Undecided(retry_after),
        }
    }

    /// Reports whether the access rules of the caller's application credential, if it has any, allow a request. A request
    /// with a valid service token is not limited (section 7).
    pub fn may(&self, caller: &Caller, request: RequestParts<'_>) -> bool {
        let credential = caller.identity.application_credential.as_ref();
        let rules = credential.and_then(|credential| credential.access_rules.as_ref());
        let Some(rules) = rules.filter(|_| caller.service.is_none()) else {
            return true;
        };
        let path: Vec<u8> = percent_decode_str(request.path).collect();
        let target = RequestTarget {
            method: request.method.as_str(),
            path: &path,
            base_path: request.base_path,
        };
        rules.allow(&self.service_type, target)
    }

    /// For how long a proof counts before the tokens are to be proven again, where a connection is kept that long.
    pub fn cached_for(&self) -> Duration {
        self.cached_for
    }

    /// The answer 401 of this service; every 401 has the header of it, also one that is not the authenticator's.
    pub fn unauthorized(&self) -> Refusal {
        Refusal::unauthorized(&self.challenge)
    }

    /// Gets the service's own token, so that wrong credentials are found at the start and not by the first client. Fails
    /// with a sentence that names no secret; the service can go on, and tries again with each request.
    pub async fn check(&self) -> Result<(), String> {
        self.validator.check().await
    }

    /// Returns what is known of Keystone.
    pub fn keystone(&self) -> KeystoneState {
        self.validator.state()
    }

    /// Returns all counters and gauges, by name.
    pub fn metrics(&self) -> Vec<Sample> {
        let mut samples = self.metrics.samples();
        let size = self.validator.cache_size();
        let gauge = |name, help, value: usize| Sample {
            name,
            help,
            label: None,
            value: Value::Gauge(i64::try_from(value).unwrap_or(i64::MAX)),
        };
        samples.extend([
            gauge(
                "keystone_cache_entries",
                "Tokens in the cache",
                size.entries,
            ),
            gauge(
                "keystone_cache_bytes",
                "Bytes that tokens in the cache keep",
                size.bytes,
            ),
            gauge(
                "keystone_negative_cache_entries",
                "Refused tokens that are remembered",
                size.negative_entries,
            ),
            gauge(
                "keystone_pending_validations",
                "Validations that are under way or wait for a connection",
                self.validator.pending(),
            ),
            Sample {
                name: "keystone_cache_evictions",
                help: "Tokens that were dropped from the cache for want of room",
                label: None,
                value: Value::Counter(size.evicted),
            },
        ]);
        samples
    }

    /// Returns what is counted.
    pub(super) fn counters(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the connections to Keystone.
    pub(super) fn transport(&self) -> &Arc<Transport> {
        self.validator.transport()
    }

    fn is_service(&self, identity: &Identity) -> bool {
        self.service_roles
            .iter()
            .any(|role| identity.has_role(role))
    }
}

#[cfg(test)]
#[path = "authenticator/tests.rs"]
mod tests;
