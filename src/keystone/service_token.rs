//! The token with which the service asks Keystone about other tokens: got once, renewed before it ends or when Keystone
//! refuses it, by one request at a time.
//!
//! Source: `docs/compatibility/keystone.md` section 6.1.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};
use isimud_contract::{Clock, Timestamp};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::cache::Mode;
use super::client::{SUBJECT_TOKEN, Undecided};
use super::health::Fault;
use super::metrics::{self, Metrics};
use super::settings::Settings;
use super::single_flight::{Joined, SingleFlight};
use super::transport::{Ask, Transport};
use super::{REQUEST_TIMEOUT, endpoint};
use crate::dates;

/// A token with less than this left is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// How long nothing is tried after Keystone has refused the credentials, or a renewal has failed while the token still
/// works. Keystone may lock a user after some wrong passwords.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The service's own token.
#[derive(Debug)]
pub(super) struct ServiceToken {
    /// The token, marked as sensitive so that nothing shows it.
    pub(super) value: HeaderValue,
    expires_at: Timestamp,
    /// The moment from which on it is renewed.
    renew_at: Timestamp,
    current: Uri,
    allow_expired: Uri,
}

impl ServiceToken {
    /// Returns the URL at which tokens are validated.
    pub(super) fn validation_uri(&self, mode: Mode) -> &Uri {
        match mode {
            Mode::Current => &self.current,
            Mode::AllowExpired => &self.allow_expired,
        }
    }
}

type Renewal = Result<Arc<ServiceToken>, Undecided>;

/// Has the token, and renews it.
#[derive(Debug)]
pub(super) struct ServiceTokens {
    source: Arc<Source>,
    renewals: SingleFlight<(), Renewal>,
}

#[derive(Debug)]
struct Source {
    transport: Arc<Transport>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    token: Option<Arc<ServiceToken>>,
    /// The last failure, and until when nothing is tried again because of it.
    failed: Option<(Undecided, Timestamp)>,
    /// URLs of version 3 that were discovered.
    discovered: HashMap<Uri, Uri>,
    /// Whether the log says that the catalogue has no endpoint of Keystone's.
    is_missing_told: bool,
    /// The log has told that tokens go to it in clear.
    is_clear_told: bool,
}

impl ServiceTokens {
    pub(super) fn new(
        settings: &Settings,
        transport: &Arc<Transport>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let source = Source {
            transport: Arc::clone(transport),
            settings: settings.clone(),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            state: Mutex::default(),
        };
        Self {
            source: Arc::new(source),
            renewals: SingleFlight::new(1),
        }
    }

    /// Returns a token that is not the one that Keystone has refused, until the deadline at the latest. Callers that need
    /// a new one at the same time get the same one.
    pub(super) async fn get(
        &self,
        refused: Option<&Arc<ServiceToken>>,
        deadline: Instant,
    ) -> Renewal {
        if let Some(known) = self.source.known(refused) {
            return known;
        }
        let source = Arc::clone(&self.source);
        let joined = self.renewals.join(
            (),
            || self.source.known(refused),
            |_| async move { Some(source.renew().await) },
        );
        let waiting = match joined {
            Joined::Ready(known) => return known,
            Joined::Began(waiting) | Joined::Shared(waiting) => waiting,
            Joined::Full => return Err(Undecided::new(Fault::Unreachable, "it is asked already")),
        };
        let renewed = match timeout_at(deadline, waiting.result()).await {
            Ok(Some(renewed)) => renewed,
            Ok(None) => Err(Undecided::new(Fault::Unreachable, "the service stops")),
            Err(_) => {
                let why = "it does not give the service a token in time";
                Err(Undecided::new(Fault::Unreachable, why))
            }
        };
        match (renewed, self.source.unexpired(refused)) {
            // A token that is to be renewed soon is still a token.
            (Err(_), Some(token)) => Ok(token),
            (renewed, _) => renewed,
        }
    }
}

impl Source {
    /// Returns what needs no request: a token, or a failure that is to be left alone for a moment.
    fn known(&self, refused: Option<&Arc<ServiceToken>>) -> Option<Renewal> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let state = self.lock();
        let failed = state.failed.as_ref().filter(|(_, until)| now < *until);
        let token = state.token.as_ref().filter(|token| {
            let is_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, token));
            let end = match failed {
                Some(_) => token.expires_at,
                None => token.renew_at,
            };
            !is_refused && wall < end
        });
        match (token, failed) {
            (Some(token), _) => Some(Ok(Arc::clone(token))),
            (None, Some((undecided, _))) if undecided.fault != Fault::Unreachable => {
                Some(Err(undecided.clone()))
            }
            _ => None,
        }
    }

    fn unexpired(&self, refused: Option<&Arc<ServiceToken>>) -> Option<Arc<ServiceToken>> {
        let wall = self.clock.wall();
        let token = self.lock().token.clone()?;
        let is_refused = refused.is_some_and(|refused| Arc::ptr_eq(refused, &token));
        (!is_refused && wall < token.expires_at).then_some(token)
    }

    /// Gets a new token and keeps it, or the failure.
    async fn renew(&self) -> Renewal {
        let renewed = self.request(Instant::now() + REQUEST_TIMEOUT).await;
        let until = self.clock.now().after(RETRY_DELAY);
        let mut state = self.lock();
        match &renewed {
            Ok(token) => {
                metrics::add(&self.metrics.renewals);
                state.token = Some(Arc::clone(token));
                state.failed = None;
            }
            Err(undecided) => {
                metrics::add(&self.metrics.failed_renewals);
                state.failed = Some((undecided.clone(), until));
            }
        }
        renewed
    }

    async fn request(&self, deadline: Instant) -> Renewal {
        const WHAT: &str = "the request for a token of the service user";
        let v3 = self.version_3(&self.settings.auth_url, deadline).await?;
        let ask = Ask {
            method: Method::POST,
            uri: resource(&v3, "/auth/tokens")?,
            headers: Vec::new(),
            body: Bytes::from(self.settings.credentials.request().to_string()),
        };
        let answer = self.transport.send(&ask, deadline).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return Err(Undecided::of_answer(Fault::Credentials, WHAT, &answer));
            }
            StatusCode::FORBIDDEN => {
                return Err(Undecided::of_answer(Fault::Permission, WHAT, &answer));
            }
            _ => return Err(Undecided::of_answer(Fault::Unreachable, WHAT, &answer)),
        }
        let strange = |why: &'static str| Undecided::new(Fault::Unreachable, why);
        let mut value =
            answer.headers.get(SUBJECT_TOKEN).cloned().ok_or_else(|| {
                strange("it answers the request for a token without X-Subject-Token")
            })?;
        value.set_sensitive(true);
        let document: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| strange("it answers the request for a token with what is not JSON"))?;
        let token = &document["token"];
        let expires_at = token["expires_at"].as_str().and_then(dates::parse);
        let expires_at = expires_at
            .ok_or_else(|| strange("it answers the request for a token without expires_at"))?;
        let v3 = self
            .validation_endpoint(&token["catalog"], v3, deadline)
            .await?;
        // A token that lives for minutes only is not renewed all the time.
        let life = expires_at.since(self.clock.wall());
        Ok(Arc::new(ServiceToken {
            value,
            expires_at,
            renew_at: expires_at.before(RENEW_BEFORE.min(life / 4)),
            current: resource(&v3, "/auth/tokens?nocatalog")?,
            allow_expired: resource(&v3, "/auth/tokens?nocatalog&allow_expired=1")?,
        }))
    }

    /// Finds where tokens are validated: Keystone's endpoint in the service's own catalogue, else where the token comes
    /// from.
    async fn validation_endpoint(
        &self,
        catalogue: &Value,
        auth: Uri,
        deadline: Instant,
    ) -> Result<Uri, Undecided> {
        let Settings {
            interface, region, ..
        } = &self.settings;
        let found = endpoint::from_catalogue(catalogue, interface, region.as_deref());
        let was_told = std::mem::replace(&mut self.lock().is_missing_told, found.is_none());
        match found {
            Some(endpoint) => {
                let is_weaker =
                    auth.scheme_str() == Some("https") && endpoint.scheme_str() == Some("http");
                if is_weaker && !std::mem::replace(&mut self.lock().is_clear_told, true) {
                    tracing::warn!(
                        "keystone.auth_url is https, and Keystone's own endpoint of interface {interface} is http: tokens are \
                         sent there in clear; choose another with keystone.interface"
                    );
                }
                self.version_3(&endpoint, deadline).await
            }
            None => {
                if !was_told {
                    let region = region.as_deref().unwrap_or("any");
                    tracing::warn!(
                        "the catalogue has no endpoint of Keystone with interface {interface} in region {region}: tokens \
                         are validated at keystone.auth_url"
                    );
                }
                Ok(auth)
            }
        }
    }

    /// Finds the URL of version 3. What was discovered once is kept, what was guessed is not.
    async fn version_3(&self, base: &Uri, deadline: Instant) -> Result<Uri, Undecided> {
        let guess = || {
            let unusable = || Undecided::new(Fault::Unreachable, "its URL cannot be used");
            endpoint::guess(base).ok_or_else(unusable)
        };
        if endpoint::is_version_3(base) {
            return guess();
        }
        let known = self.lock().discovered.get(base).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let ask = Ask {
            method: Method::GET,
            uri: base.clone(),
            headers: Vec::new(),
            body: Bytes::new(),
        };
        let answer = self.transport.send(&ask, deadline).await?;
        let is_document = matches!(answer.status, StatusCode::OK | StatusCode::MULTIPLE_CHOICES);
        let found = is_document.then(|| endpoint::from_discovery(base, &answer.body));
        match found.flatten() {
            Some(v3) => {
                self.lock().discovered.insert(base.clone(), v3.clone());
                Ok(v3)
            }
            None => guess(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resource(v3: &Uri, path_and_query: &str) -> Result<Uri, Undecided> {
    let unusable = || Undecided::new(Fault::Unreachable, "its URL cannot be used");
    endpoint::resource(v3, path_and_query).ok_or_else(unusable)
}
