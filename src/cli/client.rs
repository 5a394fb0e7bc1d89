//! Asks the admin listener of a running service, with a token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use isimud::admin::local;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failure;

/// How long an answer may take: a pool of many queues is sent away in one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The environment variable that has a token. The command line has none: others can read it.
const TOKEN_VARIABLE: &str = "ISIMUD_ADMIN_TOKEN";
/// The one that names a file with it.
const TOKEN_FILE_VARIABLE: &str = "ISIMUD_ADMIN_TOKEN_FILE";

/// Where the service is asked, and who asks.
#[derive(Debug, Args)]
pub(super) struct AdminEndpoint {
    /// The admin listener of the service: host:port (what --admin-listen says there), or https://host:port.
    #[arg(long, value_name = "ADDR")]
    admin: String,
    /// A file with the authority that signed the certificate of an https listener, in PEM [default: those of the machine].
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A file that has a token for it [default: what ISIMUD_ADMIN_TOKEN_FILE or ISIMUD_ADMIN_TOKEN says; on the machine of
    /// the service its own].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AdminEndpoint {
    /// The token that the user has named, if he has.
    fn named_token(&self) -> Result<Option<String>, Failure> {
        let named = || std::env::var_os(TOKEN_FILE_VARIABLE).filter(|file| !file.is_empty());
        if let Some(file) = self
            .token_file
            .clone()
            .or_else(|| named().map(PathBuf::from))
        {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("cannot read the token in {}: {error}", file.display()))?;
            return Ok(Some(text.trim().to_owned()));
        }
        Ok(std::env::var(TOKEN_VARIABLE)
            .ok()
            .filter(|token| !token.is_empty()))
    }

    /// The listener's host and port, and whether it speaks TLS.
    fn host(&self) -> (&str, bool) {
        match self.admin.split_once("://") {
            Some(("https", host)) => (host.trim_end_matches('/'), true),
            Some(("http", host)) => (host.trim_end_matches('/'), false),
            _ => (&self.admin, false),
        }
    }

    /// Agrees on keys with the service, which has to show a certificate for its host.
    async fn encrypt(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                isimud::pem::trust(&mut roots, path)
                    .map_err(|why| format!("cannot use the file {}: {why}", path.display()))?;
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connected = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        Ok(connected.map_err(|error| format!("cannot speak TLS with {host}: {error}"))?)
    }

    /// A connection to the service, and the address that it is to: a name may have several, and another user of the machine
    /// may listen at one of them.
    async fn connect(&self) -> Result<(TcpStream, SocketAddr), Failure> {
        let (admin, _) = self.host();
        let told = |error: std::io::Error| format!("no admin listener answers at {admin}: {error}");
        let mut last = None;
        for address in lookup_host(admin).await.map_err(told)? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => last = Some(error),
            }
        }
        let why = last.unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
        Err(told(why).into())
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// Why there is no answer that would help.
pub(super) enum RequestError {
    /// Nobody answers.
    NoAnswer(String),
    /// The service cannot do it now.
    Busy(String),
    /// The service will not do it.
    Refused(String),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NoAnswer(why) | RequestError::Busy(why) | RequestError::Refused(why) => {
                why.into()
            }
        }
    }
}

/// Asks for a change, which a document says.
pub(super) async fn ask(
    endpoint: &AdminEndpoint,
    method: &str,
    path: &str,
    asked: &Value,
) -> Result<Value, RequestError> {
    send(endpoint, method, path, asked.to_string()).await
}

/// Asks how something is.
pub(super) async fn look(
    endpoint: &AdminEndpoint,
    path: &str,
    named: &[(&str, &str)],
) -> Result<Value, RequestError> {
    let mut target = path.to_owned();
    for (name, value) in named {
        target.push(if target.contains('?') { '&' } else { '?' });
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        target.push_str(&format!("{name}={value}"));
    }
    send(endpoint, "GET", &target, String::new()).await
}

async fn send(
    endpoint: &AdminEndpoint,
    method: &str,
    target: &str,
    body: String,
) -> Result<Value, RequestError> {
    let refused = |why: Failure| RequestError::Refused(why.to_string());
    let token = endpoint.named_token().map_err(refused)?;
    let mut answer = exchange(endpoint, method, target, &body, token.as_deref()).await?;
    if answer.0 == StatusCode::UNAUTHORIZED && token.is_none() {
        // The service makes a new token at each start, and may have been started between the look for it and its answer.
        answer = exchange(endpoint, method, target, &body, None).await?;
    }
    let (status, document) = answer;
    if status.is_success() {
        return Ok(document);
    }
    let why = document["error"]
        .as_str()
        .unwrap_or("the service refused it")
        .to_owned();
    Err(match status {
        StatusCode::SERVICE_UNAVAILABLE => RequestError::Busy(why),
        _ => RequestError::Refused(why),
    })
}

async fn exchange(
    endpoint: &AdminEndpoint,
    method: &str,
    target: &str,
    body: &str,
    token: Option<&str>,
) -> Result<(StatusCode, Value), RequestError> {
    let no_answer = |why: String| RequestError::NoAnswer(why);
    let answered =
        tokio::time::timeout(REQUEST_TIMEOUT, once(endpoint, method, target, body, token)).await;
    answered
        .map_err(|_| no_answer("the service does not answer".into()))?
        .map_err(|error| no_answer(error.to_string()))
}

async fn once(
    endpoint: &AdminEndpoint,
    method: &str,
    target: &str,
    body: &str,
    token: Option<&str>,
) -> Result<(StatusCode, Value), Failure> {
    let (admin, is_encrypted) = endpoint.host();
    let (stream, address) = endpoint.connect().await?;
    // A token that lies on this machine is for whoever listens at that very address.
    let token = match token {
        Some(token) => Some(token.to_owned()),
        None => local::find(address),
    };
    let stream: Pin<Box<dyn Stream>> = match is_encrypted {
        true => Box::pin(endpoint.encrypt(admin, stream).await?),
        false => Box::pin(stream),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", admin);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, serde_json::from_slice(&body)?))
}
