//! Notifications over HTTP.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::http::uri::{Authority, Scheme};
use hyper::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use isimud_contract::{Clock, MessageId, Metadata, Subscription};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::Outcome;
use super::connect::{Connector, Forbidden, PROJECT};
use super::requirements::is_reserved;
use super::webhook_signature::{Secret, WEBHOOK_SECRET};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;
/// How much of an answer is read, so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How long that may take.
const ANSWER_BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest pause that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// The header by which a server of this service knows a notification, and refuses it: else they could go round for ever.
pub(crate) const HOP: &str = "isimud-hop";

const USER_AGENT_NAME: &str = concat!("isimud/", env!("CARGO_PKG_VERSION"));

const NOT_A_TARGET: &str = "the subscriber is not a URI that can be sent to";

/// The header of Keystone's tokens.
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// One attempt to send a notification.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    pub(crate) subscription: &'a Subscription,
    /// Where it goes.
    pub(crate) target: &'a str,
    pub(crate) id: MessageId,
    /// The number of the attempt, from 1.
    pub(crate) attempt: usize,
    pub(crate) body: Bytes,
}

/// Sends notifications over HTTP.
#[derive(Debug)]
pub(crate) struct Webhooks {
    client: Client<Connector, Full<Bytes>>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl Webhooks {
    /// Sends through connections of `connector`; a request may take so long in all.
    pub(crate) fn new(connector: Connector, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(32)
            .build(connector);
        Self {
            client,
            timeout,
            clock,
        }
    }

    /// Sends a notification once and says what became of it.
    pub(crate) async fn push(&self, push: &Push<'_>) -> Outcome {
        let Some((mut uri, mut headers)) = self.prepare(push) else {
            return Outcome::Refused(NOT_A_TARGET.into());
        };
        let end = Instant::now() + self.timeout;
        for _ in 0..=MAX_REDIRECTS {
            let request = request(uri.clone(), headers.clone(), push.body.clone());
            let response = match self.exchange(push, request, end).await {
                Ok(response) => response,
                Err(outcome) => return outcome,
            };
            let redirect = redirect(&uri, &response);
            let outcome = of_answer(&response);
            drain(response).await;
            match redirect {
                None => return outcome,
                Some(Err(why)) => return Outcome::Refused(why),
                Some(Ok(next)) => {
                    // What the subscriber sets is meant for whom it names, and for nobody else.
                    if next.authority() != uri.authority() {
                        headers = own_headers();
                        self.mark(&mut headers, push);
                    }
                    uri = next;
                }
            }
        }
        failed("too many redirects".into())
    }

    /// The same with a token, which goes to the receiver and no further: a redirect is not followed (quirk Q-KS-11). Also
    /// says whether the receiver refuses the token.
    pub(crate) async fn push_with_token(
        &self,
        push: &Push<'_>,
        token: &HeaderValue,
    ) -> (Outcome, bool) {
        let Some((uri, mut headers)) = self.prepare(push) else {
            return (Outcome::Refused(NOT_A_TARGET.into()), false);
        };
        let mut token = token.clone();
        token.set_sensitive(true);
        headers.insert(TOKEN, token);
        let request = request(uri, headers, push.body.clone());
        let end = Instant::now() + self.timeout;
        let response = match self.exchange(push, request, end).await {
            Ok(response) => response,
            Err(outcome) => return (outcome, false),
        };
        let is_refused = response.status() == StatusCode::UNAUTHORIZED;
        let outcome = match response.status().is_redirection() {
            true => Outcome::Refused(format!(
                "it answers {}, and a notification with a token is not redirected",
                response.status()
            )),
            false => of_answer(&response),
        };
        drain(response).await;
        (outcome, is_refused)
    }

    /// Where a notification goes, and its headers; `None` where that is no address of HTTP.
    fn prepare(&self, push: &Push<'_>) -> Option<(Uri, HeaderMap)> {
        let mut uri = target(push.target)?;
        let mut headers = headers(&push.subscription.options);
        if let Some(credentials) = credentials(&mut uri) {
            headers.entry(AUTHORIZATION).or_insert(credentials);
        }
        self.mark(&mut headers, push);
        Some((uri, headers))
    }

    async fn exchange(
        &self,
        push: &Push<'_>,
        request: Request<Full<Bytes>>,
        end: Instant,
    ) -> Result<Response<Incoming>, Outcome> {
        let project = push.subscription.source.project.clone();
        let asking = PROJECT.scope(project, self.client.request(request));
        match timeout_at(end, asking).await {
            Err(_) => Err(failed("no answer in time".into())),
            Ok(Err(error)) => Err(of_error(&error)),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// Adds what names the notification and lets the receiver check it; no option of the subscriber can change that.
    fn mark(&self, headers: &mut HeaderMap, push: &Push<'_>) {
        let moment = self.clock.now();
        let options = &push.subscription.options;
        let secret = options.get(WEBHOOK_SECRET).and_then(Value::as_str);
        let signature = secret
            .and_then(Secret::parse)
            .map(|secret| secret.sign(push.id, moment, &push.body));
        let marks = [
            ("webhook-id", Some(push.id.to_string())),
            (
                "webhook-timestamp",
                Some(moment.0.div_euclid(1000).to_string()),
            ),
            ("webhook-signature", signature),
            (
                "isimud-subscription-id",
                Some(push.subscription.id.to_string()),
            ),
            ("isimud-attempt", Some(push.attempt.to_string())),
            (HOP, Some("1".to_owned())),
        ];
        for (name, value) in marks {
            headers.remove(name);
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

fn failed(why: String) -> Outcome {
    Outcome::Failed { why, after: None }
}

/// A subscriber's address, if it is one of HTTP with a host.
fn target(subscriber: &str) -> Option<Uri> {
    let uri: Uri = subscriber.parse().ok()?;
    let mut parts = uri.into_parts();
    parts
        .authority
        .as_ref()
        .filter(|authority| !authority.host().is_empty())?;
    let scheme = parts.scheme?;
    parts.scheme = Some(match scheme.as_str().to_ascii_lowercase().as_str() {
        "http" => Scheme::HTTP,
        "https" => Scheme::HTTPS,
        _ => return None,
    });
    Uri::from_parts(parts).ok()
}

/// Takes the credentials out of an address.
fn credentials(uri: &mut Uri) -> Option<HeaderValue> {
    let mut parts = uri.clone().into_parts();
    let authority = parts.authority.take()?;
    let (who, place) = authority.as_str().rsplit_once('@')?;
    let who: Vec<u8> = percent_encoding::percent_decode_str(who).collect();
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(who))).ok();
    parts.authority = Some(place.parse::<Authority>().ok()?);
    *uri = Uri::from_parts(parts).ok()?;
    value
}

/// The headers of every notification.
fn own_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_NAME));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers
}

/// The headers of a notification: ours, over them those of the subscriber, without those that frame the request or say
/// who asks.
fn headers(options: &Metadata) -> HeaderMap {
    let mut headers = own_headers();
    let framing = [
        HOST,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        CONNECTION,
        UPGRADE,
        TE,
        TRAILER,
    ];
    let wanted = options.get("post_headers").and_then(Value::as_object);
    for (name, value) in wanted.into_iter().flatten() {
        let name = HeaderName::try_from(name)
            .ok()
            .filter(|name| !framing.contains(name) && !is_reserved(name.as_str()));
        let value = value
            .as_str()
            .and_then(|value| HeaderValue::from_str(value).ok());
        if let (Some(name), Some(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    headers
}

fn request(uri: Uri, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// What an answer means: 2xx is delivered; a client's error is final, as the notification will not be another; what may
/// pass is tried again (quirk Q-SUB-1).
fn of_answer(response: &Response<Incoming>) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::Delivered;
    }
    let why = format!("it answers {status}");
    let may_pass = matches!(status.as_u16(), 408 | 425 | 429);
    if status.is_client_error() && !may_pass {
        return Outcome::Refused(why);
    }
    let secs = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Outcome::Failed {
        why,
        after: secs
            .map(Duration::from_secs)
            .map(|pause| pause.min(MAX_RETRY_AFTER)),
    }
}

fn of_error(error: &hyper_util::client::legacy::Error) -> Outcome {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<Forbidden>() {
            return Outcome::Refused(error.to_string());
        }
        why = format!("{why}: {error}");
        cause = error.source();
    }
    failed(why)
}

/// Where an answer sends the notification. It stays a POST (quirk Q-SUB-12), and what came over TLS stays on TLS.
fn redirect(from: &Uri, response: &Response<Incoming>) -> Option<Result<Uri, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let next = if location.starts_with('/') && !location.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = location.parse().ok();
        Uri::from_parts(parts).ok()
    } else {
        target(location)
    };
    let next = next?;
    let leaves_tls = from.scheme() == Some(&Scheme::HTTPS) && next.scheme() != Some(&Scheme::HTTPS);
    Some(if leaves_tls {
        Err("it redirects from https to http".to_owned())
    } else {
        Ok(next)
    })
}

/// Reads what is left of an answer, if it is little and comes soon; a connection whose answer was not read is closed.
async fn drain(response: Response<Incoming>) {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    drop(timeout(ANSWER_BODY_TIMEOUT, body.collect()).await);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_of_http_are_targets() {
        for (subscriber, uri) in [
            ("http://h", "http://h/"),
            ("HTTP://h:81/x?y=1#z", "http://h:81/x?y=1"),
            ("https://[::1]/", "https://[::1]/"),
        ] {
            assert_eq!(
                target(subscriber).map(|uri| uri.to_string()).as_deref(),
                Some(uri)
            );
        }
        for bad in [
            "http:",
            "https://",
            "http://:80/",
            "/x",
            "ftp://h/",
            "http://a b/",
        ] {
            assert_eq!(target(bad), None, "{bad}");
        }
    }

    #[test]
    fn credentials_leave_the_address() {
        let mut uri = target("http://me:p%40ss@h:1/x").expect("a target");
        let value = credentials(&mut uri).expect("credentials");
        assert_eq!(value, format!("Basic {}", STANDARD.encode("me:p@ss")));
        assert_eq!(uri.to_string(), "http://h:1/x");
        assert_eq!(credentials(&mut uri), None);
    }

    #[test]
    fn a_subscriber_sets_headers_but_not_the_frame() {
        let options = json!({"post_headers": {
            "X-Foo": "bar", "content-type": "text/plain", "Host": "other", "Content-Length": "3",
            "Transfer-Encoding": "chunked", "bad name": "x", "X-Project-Id": "victim", "X_Roles": "admin", "X-Bad": "a\nb", "X-Number": 1,
        }});
        let headers = headers(options.as_object().expect("an object"));
        let shown: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        assert_eq!(
            shown,
            [
                ("content-type", "text/plain"),
                ("user-agent", USER_AGENT_NAME),
                ("accept", "*/*"),
                ("x-foo", "bar")
            ]
        );
    }
}
