//! Asks Keystone: whether a token is valid, and for the token that the service needs to ask.
//!
//! Source: `docs/compatibility/keystone.md` section 6.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use isimud_contract::{Clock, Timestamp};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::breaker::Breaker;
use super::cache::Mode;
use super::health::{Fault, Health};
use super::identity::Identity;
use super::metrics::{self, Metrics};
use super::service_token::ServiceTokens;
use super::settings::Settings;
use super::token::{self, Unusable};
use super::transport::{Answer, Ask, Failure, Transport};

pub(super) const SERVICE_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
pub(super) const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
const ACCESS_RULES: HeaderName = HeaderName::from_static("openstack-identity-access-rules");
const ACCESS_RULES_VERSION: HeaderValue = HeaderValue::from_static("1");

/// When a client may try again where Keystone does not say, in seconds.
pub(super) const DEFAULT_RETRY_AFTER: u64 = 5;

/// The longest time that Keystone may send clients away for, in seconds.
const MAX_RETRY_AFTER: u64 = 3600;

/// What Keystone says of a token.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// The token is valid.
    Valid(Arc<Identity>),
    /// The token is unknown, revoked or expired, or proves nothing any more.
    Invalid,
    /// Keystone made no decision.
    Undecided(Undecided),
}

/// No decision about a token. It is never the client's fault.
#[derive(Debug, Clone)]
pub(super) struct Undecided {
    pub(super) fault: Fault,
    /// When a client may try again, in seconds.
    pub(super) retry_after: u64,
    /// What happened, without any secret.
    pub(super) why: Arc<str>,
    /// Whether it says something about Keystone, and not about this one request.
    counts: bool,
}

impl Undecided {
    pub(super) fn new(fault: Fault, why: impl Into<Arc<str>>) -> Self {
        Self {
            fault,
            retry_after: DEFAULT_RETRY_AFTER,
            why: why.into(),
            counts: true,
        }
    }

    /// Names an answer that is no decision.
    pub(super) fn of_answer(fault: Fault, what: &str, answer: &Answer) -> Self {
        let status = answer.status;
        let mut undecided = Self::new(fault, format!("it answers {status} to {what}"));
        if let Some(secs) = retry_after(&answer.headers) {
            undecided.retry_after = secs;
        }
        undecided
    }

    fn not_counted(self) -> Self {
        Self {
            counts: false,
            ..self
        }
    }
}

impl From<Failure> for Undecided {
    fn from(failure: Failure) -> Self {
        Self::new(Fault::Unreachable, failure.to_string())
    }
}

/// Validations at once of tokens that were never good. Whoever sends many of them does not keep those waiting whose tokens
/// were good a minute ago.
const MAX_UNKNOWN: usize = 16;

/// The longest token whose failure is Keystone's own. Servers in front of it close connections over headers of 4 KiB, of
/// which the service's own token is a part.
const MAX_USUAL_TOKEN_BYTES: usize = 1536;

/// The client. Its methods may be called from any task, at once.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) transport: Arc<Transport>,
    tokens: ServiceTokens,
    breaker: Breaker,
    unknown: Semaphore,
    pub(super) health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Client {
    /// Creates a client; it asks nothing yet. Fails with a sentence when a file of certificates cannot be used.
    pub(super) fn new(
        settings: &Settings,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, String> {
        let transport = Arc::new(Transport::new(settings)?);
        let user = settings.credentials.name();
        let health = Arc::new(Health::new(Arc::clone(clock), Arc::clone(metrics), user));
        Ok(Self {
            tokens: ServiceTokens::new(settings, &transport, clock, metrics),
            transport,
            breaker: Breaker::new(Arc::clone(clock)),
            unknown: Semaphore::new(MAX_UNKNOWN),
            health,
            metrics: Arc::clone(metrics),
        })
    }

    /// Asks Keystone whether a token is valid, until the deadline at the latest. `is_unwanted` is asked once, when a
    /// connection is there: true ends the call without asking Keystone, and without a result. `was_good` says that Keystone
    /// has called the token valid before.
    pub(super) async fn validate(
        &self,
        token: &HeaderValue,
        mode: Mode,
        was_good: bool,
        deadline: Instant,
        is_unwanted: impl FnOnce() -> bool,
    ) -> Option<Verdict> {
        let permit = match self.connection(was_good, deadline).await {
            Ok(permit) => permit,
            // It says that many ask, which a breaker would not better.
            Err(failure) => return Some(Verdict::Undecided(failure.into())),
        };
        if is_unwanted() {
            return None;
        }
        let admission = match self.breaker.admit() {
            Ok(admission) => admission,
            Err(retry_after) => {
                let state = self.health.state();
                let fault = state.fault.unwrap_or(Fault::Unreachable);
                let mut undecided = Undecided::new(fault, state.reason);
                undecided.retry_after = retry_after;
                return Some(Verdict::Undecided(undecided));
            }
        };
        let start = Instant::now();
        let verdict = self.ask(token, mode, deadline).await;
        drop(permit);
        self.metrics.took(start.elapsed());
        match &verdict {
            Ok(decided) => {
                metrics::add(match decided {
                    Verdict::Valid(_) => &self.metrics.valid,
                    _ => &self.metrics.invalid,
                });
                admission.succeeded();
                self.health.succeeded();
            }
            Err(undecided) => {
                metrics::add(&self.metrics.undecided);
                // A request that Keystone cannot read says nothing of others: a hostile token must not cut them off. Nor does one
                // that had much less time than others, as so many waited before it.
                let is_usual = token.len() <= MAX_USUAL_TOKEN_BYTES;
                let is_hurried =
                    deadline.saturating_duration_since(start) < self.transport.timeout() / 2;
                if undecided.counts && is_usual && !is_hurried {
                    if admission.failed(undecided.retry_after) {
                        metrics::add(&self.metrics.breaker_openings);
                    }
                    self.health.failed(undecided.fault, &undecided.why);
                }
            }
        }
        Some(verdict.unwrap_or_else(Verdict::Undecided))
    }

    /// Waits for the right to ask, until the deadline at the latest.
    async fn connection(
        &self,
        was_good: bool,
        deadline: Instant,
    ) -> Result<(Option<SemaphorePermit<'_>>, SemaphorePermit<'_>), Failure> {
        let share = match was_good {
            true => None,
            false => match timeout_at(deadline, self.unknown.acquire()).await {
                Ok(Ok(share)) => Some(share),
                _ => return Err(Failure::TimedOut("too many unknown tokens are asked about")),
            },
        };
        Ok((share, self.transport.connection(deadline).await?))
    }

    /// Gets the service's own token, if it has none yet: says whether Keystone can be asked at all.
    pub(super) async fn check(&self, deadline: Instant) -> Result<(), Undecided> {
        let token = self.tokens.get(None, deadline).await;
        match &token {
            Ok(_) => self.health.succeeded(),
            Err(undecided) => self.health.failed(undecided.fault, &undecided.why),
        }
        token.map(drop)
    }

    async fn ask(
        &self,
        token: &HeaderValue,
        mode: Mode,
        deadline: Instant,
    ) -> Result<Verdict, Undecided> {
        let mut refused = None;
        // At most twice: a 401 is about the service's own token, which is renewed once.
        loop {
            let service = self.tokens.get(refused.as_ref(), deadline).await?;
            let uri = service.validation_uri(mode);
            let ask = Ask {
                method: Method::GET,
                uri: uri.clone(),
                headers: vec![
                    (SERVICE_TOKEN, service.value.clone()),
                    (SUBJECT_TOKEN, token.clone()),
                    (ACCESS_RULES, ACCESS_RULES_VERSION),
                ],
                body: Bytes::new(),
            };
            let answer = self.transport.send(&ask, deadline).await?;
            if let Some(date) = date(&answer.headers) {
                self.health.note_date(date);
            }
            if answer.status == StatusCode::UNAUTHORIZED && refused.is_none() {
                refused = Some(service);
                continue;
            }
            return judge(&answer);
        }
    }
}

/// Reads Keystone's answer to a validation (section 6.2).
fn judge(answer: &Answer) -> Result<Verdict, Undecided> {
    let undecided = |fault| Err(Undecided::of_answer(fault, "a validation", answer));
    match answer.status {
        StatusCode::OK => match token::parse(&answer.body) {
            Ok(identity) => Ok(Verdict::Valid(Arc::new(identity))),
            Err(Unusable::Bound) => Ok(Verdict::Invalid),
            Err(Unusable::TooLarge) => {
                tracing::debug!(
                    "a token is refused: its document has too many roles or access rules"
                );
                Ok(Verdict::Invalid)
            }
            Err(Unusable::NotAToken(why)) => Err(Undecided::new(Fault::Unreachable, why)),
        },
        // A proxy that knows no such path says 404 as well, but not in Keystone's words: that is no decision.
        StatusCode::NOT_FOUND if is_of_keystone(&answer.body) => Ok(Verdict::Invalid),
        StatusCode::UNAUTHORIZED => undecided(Fault::Credentials),
        StatusCode::FORBIDDEN => undecided(Fault::Permission),
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::URI_TOO_LONG
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            undecided(Fault::Unreachable).map_err(Undecided::not_counted)
        }
        _ => undecided(Fault::Unreachable),
    }
}

/// Whether a body is an error document of Keystone's: `{"error": {"code": 404, …}}`.
fn is_of_keystone(body: &[u8]) -> bool {
    let document = serde_json::from_slice::<serde_json::Value>(body);
    document.is_ok_and(|document| document["error"]["code"] == 404)
}

/// Reads `Retry-After`, in seconds or as a date, within bounds.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let secs = match text.parse::<u64>() {
        Ok(secs) => secs,
        Err(_) => {
            let until = httpdate::parse_http_date(text).ok()?;
            let from = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
            until.duration_since(from).unwrap_or_default().as_secs()
        }
    };
    Some(secs.clamp(1, MAX_RETRY_AFTER))
}

/// Reads `Date`.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(text).ok()?;
    let since: Duration = date.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(0).after(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(HeaderName, &str)], body: &'static str) -> Answer {
        let header = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).unwrap())
        };
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(header).collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn only_200_and_keystones_404_are_decisions() {
        const NOT_FOUND: &str = r#"{"error": {"code": 404, "message": "…", "title": "Not Found"}}"#;
        const TOKEN: &str =
            r#"{"token": {"user": {"id": "u"}, "expires_at": "2035-01-01T00:00:00.000000Z"}}"#;
        assert!(matches!(
            judge(&answer(200, &[], TOKEN)),
            Ok(Verdict::Valid(_))
        ));
        assert!(matches!(
            judge(&answer(404, &[], NOT_FOUND)),
            Ok(Verdict::Invalid)
        ));
        for (status, body, fault, counts) in [
            (404, "<html>nginx</html>", Fault::Unreachable, true),
            (404, "{}", Fault::Unreachable, true),
            (200, "<html>login</html>", Fault::Unreachable, true),
            (
                200,
                r#"{"token": {"user": {"id": "u"}}}"#,
                Fault::Unreachable,
                true,
            ),
            (204, "", Fault::Unreachable, true),
            (300, "", Fault::Unreachable, true),
            (302, "", Fault::Unreachable, true),
            (400, "", Fault::Unreachable, false),
            (401, "", Fault::Credentials, true),
            (403, "", Fault::Permission, true),
            (408, "", Fault::Unreachable, true),
            (413, "", Fault::Unreachable, false),
            (429, "", Fault::Unreachable, true),
            (431, "", Fault::Unreachable, false),
            (500, NOT_FOUND, Fault::Unreachable, true),
            (503, "", Fault::Unreachable, true),
        ] {
            let undecided = judge(&answer(status, &[], body)).expect_err("it is no decision");
            assert_eq!(
                (undecided.fault, undecided.counts),
                (fault, counts),
                "{status}"
            );
            assert_eq!(undecided.retry_after, DEFAULT_RETRY_AFTER);
        }
    }

    #[test]
    fn retry_after_is_taken_over_within_bounds() {
        let today = "Sat, 28 Nov 2026 11:42:57 GMT";
        for (headers, secs) in [
            (&[(RETRY_AFTER, "30")][..], 30),
            (&[(RETRY_AFTER, "0")], 1),
            (&[(RETRY_AFTER, "99999999")], 3600),
            (&[(RETRY_AFTER, "-1")], 5),
            (&[(RETRY_AFTER, "soon")], 5),
            (
                &[
                    (RETRY_AFTER, "Sat, 28 Nov 2026 11:43:17 GMT"),
                    (DATE, today),
                ],
                20,
            ),
            (&[(RETRY_AFTER, "Sat, 28 Nov 2026 11:43:17 GMT")], 5),
            (&[], 5),
        ] {
            let undecided = judge(&answer(429, headers, "")).expect_err("it is no decision");
            assert_eq!(undecided.retry_after, secs, "{headers:?}");
        }
    }

    #[test]
    fn a_date_is_read() {
        let headers = answer(200, &[(DATE, "Thu, 01 Jan 1970 00:01:00 GMT")], "").headers;
        assert_eq!(date(&headers), Some(Timestamp(60_000)));
    }
}
