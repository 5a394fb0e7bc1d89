//! HTTP to Keystone: bounded connections, a time limit for every step, and no redirect followed.
//!
//! Source: `docs/compatibility/keystone.md` sections 6.3 and 12.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};
use tower::Service;

use super::settings::Settings;
use super::tls;

/// The number of connections to Keystone. One of them is kept for the service's own token, for which validations wait.
const MAX_CONNECTIONS: usize = 32;

/// How long a connection without a request is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read. A validation takes 2 KiB, a catalogue of a large cloud some hundred.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The wait before a request is repeated whose connection failed.
const RETRY_DELAY: Duration = Duration::from_millis(100);

const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("isimud/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The client that all requests to Keystone go through.
#[derive(Debug)]
pub(super) struct Transport {
    client: Client<Connector, Full<Bytes>>,
    connections: Semaphore,
    timeout: Duration,
    retries: u32,
}

/// A request to Keystone. Its headers may hold tokens, which are marked as sensitive, and its body a password.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

/// An answer of Keystone.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer, in words for the log. It never holds a header or a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection was not made: the request may be repeated.
    Connection(String),
    /// The connection ended before an answer: a request that would do the same again may be repeated.
    Closed(String),
    /// There was no complete answer in time.
    TimedOut(&'static str),
    /// The answer cannot be read.
    Unreadable(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connection(why) | Self::Closed(why) | Self::Unreadable(why) => f.write_str(why),
            Self::TimedOut(why) => f.write_str(why),
        }
    }
}

impl Transport {
    /// Creates a client and reads the files of certificates. Fails with a sentence that names the file.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let config = tls::client_config(&settings.tls)?;
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
        let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
        let connector = Connector {
            https,
            timeout: settings.connect_timeout,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_CONNECTIONS)
            .build(connector);
        Ok(Self {
            client,
            connections: Semaphore::new(MAX_CONNECTIONS - 1),
            timeout: settings.timeout,
            retries: settings.retries,
        })
    }

    /// Returns how long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for the right to use a connection for a validation, until the deadline at the latest.
    pub(super) async fn connection(
        &self,
        deadline: Instant,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, Failure> {
        let busy = Failure::TimedOut("all connections to it were busy for too long");
        match timeout_at(deadline, self.connections.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(busy),
        }
    }

    /// Sends a request and reads its answer, until the deadline at the latest. The caller holds a connection
    /// ([`Transport::connection`]), or is the one that renews the service's token.
    ///
    /// A request is repeated only when its connection failed before an answer, and one that creates something only when
    /// there was no connection. A redirect is an answer like any other.
    pub(super) async fn send(&self, ask: &Ask, deadline: Instant) -> Result<Answer, Failure> {
        let mut failures = 0;
        loop {
            let sent = self.send_once(ask, deadline).await;
            let may_repeat = failures < self.retries && Instant::now() + RETRY_DELAY < deadline;
            match sent {
                Err(Failure::Connection(_)) if may_repeat => {
                    failures += 1;
                    sleep(RETRY_DELAY).await;
                }
                Err(Failure::Closed(_)) if may_repeat && !ask.creates() => {
                    failures += 1;
                    sleep(RETRY_DELAY).await;
                }
                sent => return sent,
            }
        }
    }

    async fn send_once(&self, ask: &Ask, deadline: Instant) -> Result<Answer, Failure> {
        let deadline = deadline.min(Instant::now() + self.timeout);
        let late = Failure::TimedOut("it does not answer in time");
        match timeout_at(deadline, self.exchange(ask)).await {
            Ok(answer) => answer,
            Err(_) => Err(late),
        }
    }

    async fn exchange(&self, ask: &Ask) -> Result<Answer, Failure> {
        let response = self.client.request(ask.request()).await;
        let response = response.map_err(|error| of_client(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| {
            Failure::Unreadable(format!(
                "its answer cannot be read: {}",
                with_causes(&*error)
            ))
        })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

impl Ask {
    /// Whether it leaves something behind at Keystone that a second one would leave again. A token is nothing of the kind.
    fn creates(&self) -> bool {
        self.method == Method::POST && !self.uri.path().ends_with("/auth/tokens")
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, USER_AGENT_VALUE);
        headers.insert(ACCEPT, JSON);
        if !self.body.is_empty() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        headers.extend(self.headers.iter().cloned());
        request
    }
}

/// What a failure of the client means. A time-out while connecting is one of the connection.
fn of_client(error: &hyper_util::client::legacy::Error) -> Failure {
    let why = with_causes(error);
    match error.is_connect() {
        true => Failure::Connection(format!("there is no connection to it: {why}")),
        false => Failure::Closed(format!("it closes the connection without an answer: {why}")),
    }
}

fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// Opens connections within the time limit, which counts the name's look-up, TCP and TLS.
#[derive(Debug, Clone)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

/// The time limit of a connection has passed.
#[derive(Debug)]
struct ConnectTimedOut;

impl std::fmt::Display for ConnectTimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it does not accept the connection in time")
    }
}

impl StdError for ConnectTimedOut {}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        let timeout = self.timeout;
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectTimedOut.into()),
            }
        })
    }
}
