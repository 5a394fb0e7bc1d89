//! How a connection is made: to the next of the hosts that answers, with TLS where that is asked for.
//!
//! The client runs a connection on a thread of its own, which ends with its socket. So the socket is kept at hand: a
//! connection that has fallen silent, or an attempt that came to nothing, is cut off there, and what the server held for
//! it is free at once.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_compat::{Compat, CompatExt};
use isimud_contract::{Error, Result};
use lapin::tcp::{AsyncTcpStream, RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;

use crate::config::{Config, Host, TlsConfig};
use crate::error::{too_late, while_connecting};

type Stream = AsyncTcpStream<Compat<TcpStream>>;

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Config,
    /// What the server shows operators.
    name: &'static str,
}

impl Connector {
    pub(crate) fn new(config: Config, name: &'static str) -> Self {
        Self { config, name }
    }

    /// How long making a connection may take: there must be time left for the call that needs it.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.config.timeout / 2
    }

    /// Tries the hosts in their order, beginning with the one of that number. The time is shared among them.
    pub(crate) async fn connect(&self, first: usize) -> Result<(Connection, SocketHandle)> {
        let hosts = &self.config.hosts;
        let share = self.attempt_timeout() / hosts.len().max(1) as u32;
        let mut told = too_late();
        for at in 0..hosts.len() {
            let host = &hosts[(first + at) % hosts.len()];
            match tokio::time::timeout(share, self.connect_to(host)).await {
                Ok(Ok(made)) => return Ok(made),
                Ok(Err(error)) => told = error,
                Err(_) => told = too_late(),
            }
        }
        Err(told)
    }

    async fn connect_to(&self, host: &Host) -> Result<(Connection, SocketHandle)> {
        let tls = self
            .config
            .tls
            .then(|| tls(&self.config.tls_config))
            .transpose()?;
        let handle = SocketHandle::default();
        let attempt = Attempt(Some(handle.clone()));
        let address = (host.name.clone(), host.port);
        let open = async move |_: AMQPUri, _| open(&address, tls.as_ref(), &handle).await;
        let runtime = lapin::runtime::default_runtime().map_err(while_connecting)?;
        let properties = ConnectionProperties::default()
            .with_connection_name(format!("isimud {}", self.name).into());
        let connection = Connection::connector(self.uri(host), runtime, open, properties)
            .await
            .map_err(while_connecting)?;
        let handle = attempt.succeeded();
        Ok((connection, handle))
    }

    fn uri(&self, host: &Host) -> AMQPUri {
        AMQPUri {
            // What is below the protocol is made here.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.config.user.clone(),
                    password: self.config.password.0.clone(),
                },
                host: host.name.clone(),
                port: host.port,
            },
            vhost: self.config.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: u16::try_from(self.config.heartbeat.as_secs()).ok(),
                ..AMQPQueryString::default()
            },
        }
    }
}

async fn open(
    address: &(String, u16),
    tls: Option<&RustlsConnector>,
    handle: &SocketHandle,
) -> lapin::Result<Stream> {
    let stream = TcpStream::connect((address.0.as_str(), address.1)).await?;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    handle.attach(stream.try_clone()?)?;
    let stream = AsyncTcpStream::Plain(TcpStream::from_std(stream)?.compat());
    match tls {
        Some(tls) => Ok(stream.into_rustls(tls, &address.0).await?),
        None => Ok(stream),
    }
}

/// Refuses TLS files that cannot be used, before anybody asks for them.
pub(crate) fn check(config: &Config) -> Result<()> {
    if config.tls {
        tls(&config.tls_config)?;
    }
    Ok(())
}

fn tls(tls_config: &TlsConfig) -> Result<RustlsConnector> {
    let refused = |error: io::Error| {
        Error::invalid("a certificate or key of the AMQP store cannot be used").caused_by(error)
    };
    let trust = match &tls_config.ca {
        Some(file) => RustlsConnectorConfig::default()
            .with_parsable_certificates(certificates(file).map_err(refused)?),
        None => RustlsConnectorConfig::new_with_native_certs().map_err(refused)?,
    };
    let connector = match &tls_config.client_cert {
        Some((chain, key)) => certificates(chain)
            .and_then(|chain| trust.connector_with_single_cert(chain, private_key(key)?)),
        None => trust.connector_with_no_client_auth(),
    };
    connector.map_err(refused)
}

fn private_key(file: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| {
        let why = match error {
            pem::Error::NoItemsFound | pem::Error::Base64Decode(_) => {
                "it has no private key in PEM (one with a pass phrase cannot be used)".to_owned()
            }
            other => other.to_string(),
        };
        io::Error::other(format!("{}: {why}", file.display()))
    })
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let named = |error: String| io::Error::other(format!("{}: {error}", file.display()));
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|error| named(error.to_string()))?
        .collect();
    let all = all.map_err(|error| named(error.to_string()))?;
    if all.is_empty() {
        return Err(named("there is no certificate in it".into()));
    }
    Ok(all)
}

/// The socket of a connection, to cut it off.
#[derive(Clone, Default)]
pub(crate) struct SocketHandle(Arc<Mutex<Socket>>);

#[derive(Default)]
enum Socket {
    #[default]
    None,
    Open(std::net::TcpStream),
    Aborted,
}

impl SocketHandle {
    fn attach(&self, socket: std::net::TcpStream) -> io::Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Socket::Aborted) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *slot = Socket::Open(socket);
        Ok(())
    }

    /// Ends the connection without a word.
    pub(crate) fn abort(&self) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Socket::Open(socket) = std::mem::replace(&mut *slot, Socket::Aborted) {
            // It may be closed already; then there is nothing to do.
            socket.shutdown(Shutdown::Both).ok();
        }
    }
}

impl fmt::Debug for SocketHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketHandle")
    }
}

/// An attempt to connect. Unless it succeeds, nothing is left of it.
struct Attempt(Option<SocketHandle>);

impl Attempt {
    fn succeeded(mut self) -> SocketHandle {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.abort();
        }
    }
}
