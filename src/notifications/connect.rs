//! Connections to receivers: a name is resolved once, and only an address that is allowed is connected to.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::rt::TokioIo;
use isimud_contract::ProjectId;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::Service;

use super::address::{AddressPolicy, literal};
use super::resolve::Resolver;
use crate::pem;

/// Opens connections, with TLS where the scheme asks for it.
pub(crate) type Connector = HttpsConnector<Guarded>;

tokio::task_local! {
    /// The project for which a request is made; its lookups count as this project's.
    pub(crate) static PROJECT: ProjectId;
}

/// The listeners of this server, once they are known: no notification is sent to them.
pub(crate) type Own = Arc<OnceLock<Vec<SocketAddr>>>;

/// The address policy forbids every address of a host.
#[derive(Debug)]
pub(crate) struct Forbidden;

impl std::fmt::Display for Forbidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("notifications may not be sent to this address")
    }
}

impl std::error::Error for Forbidden {}

/// Opens TCP connections to addresses that are allowed.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    addresses: Arc<AddressPolicy>,
    resolver: Arc<Resolver>,
    own: Own,
    timeout: Duration,
}

/// Makes a connector that trusts the machine's certificate authorities, and those in a file, if there is one.
pub(crate) fn connector(
    addresses: AddressPolicy,
    own: Own,
    timeout: Duration,
    ca_file: &str,
) -> Result<Connector, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate authority of the machine cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    trust(&mut roots, ca_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let guarded = Guarded {
        addresses: Arc::new(addresses),
        resolver: Arc::new(Resolver::default()),
        own,
        timeout,
    };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    Ok(builder
        .https_or_http()
        .enable_http1()
        .wrap_connector(guarded))
}

/// Adds the authorities of a file, where one is named. Fails with a sentence that names it when it cannot be used.
pub(super) fn trust(roots: &mut RootCertStore, ca_file: &str) -> Result<(), String> {
    match ca_file.is_empty() {
        true => Ok(()),
        false => pem::trust(roots, Path::new(ca_file))
            .map_err(|why| format!("ca_file: cannot use the file {ca_file}: {why}")),
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let guarded = self.clone();
        // Here, as whoever waits for the connection later may be another task.
        let project = PROJECT.try_with(Clone::clone).ok();
        Box::pin(async move {
            let connecting = guarded.connect(project.as_ref(), &uri);
            let connecting = tokio::time::timeout(guarded.timeout, connecting);
            match connecting.await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

impl Guarded {
    async fn connect(&self, project: Option<&ProjectId>, uri: &Uri) -> Result<TcpStream, BoxError> {
        let host = uri.host().unwrap_or("");
        let is_secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let found: Vec<IpAddr> = match (literal(host), project) {
            (Some(address), _) => vec![address],
            (None, Some(project)) => self.resolver.resolve(project, host).await?,
            (None, None) => return Err("no project asks for this connection".into()),
        };
        let mut failed: BoxError = Forbidden.into();
        for address in found {
            let address = SocketAddr::new(address, port);
            if !self.addresses.allows(address.ip()) || self.is_own(address) {
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }

    /// Whether one of this server's own listeners is there.
    fn is_own(&self, target: SocketAddr) -> bool {
        let own = self.own.get().map_or(&[][..], Vec::as_slice);
        own.iter()
            .filter(|own| own.port() == target.port())
            .any(|own| {
                let (own, ip) = (own.ip().to_canonical(), target.ip().to_canonical());
                // A listener at all addresses is at each of this machine, and who connects to none means this one.
                own == ip || ip.is_unspecified() || own.is_unspecified() && is_of_this_machine(ip)
            })
    }
}

/// Whether an address is one of this machine's: only such a one can be taken.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}
