//! TLS of a listener.
//!
//! The certificate and its key are read again when their files change, and on SIGHUP. Connections that are open keep what
//! they were opened with; new ones get what is there now. Files that cannot be used, as while a program is writing them,
//! leave the old pair in place.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Activity, Connection};
use crate::live::Live;
use crate::pem;

/// Encrypted bytes of a connection that the system has not taken. It is as with those that are not encrypted: what is in
/// it counts as sent.
const MAX_BUFFER_BYTES: usize = 16 << 10;

/// How often the files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The oldest version of TLS that clients may speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2, and 1.3.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 alone.
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls12 => &BOTH,
            Self::Tls13 => &BOTH[..1],
        }
    }
}

/// Where the certificate of a listener is, and what it asks of clients. Files are in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities, one of which has to have signed the certificate of a client; without any, clients need none.
    pub client_ca: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// Why files cannot be used.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    fn of(path: &Path, why: impl fmt::Display) -> Self {
        Self(format!("cannot use {}: {why}", path.display()))
    }
}

impl TlsFiles {
    /// Reads the files, and checks that the key is that of the certificate.
    fn load(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.min_version.versions())
            .map_err(|error| TlsError(error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                pem::trust(&mut roots, path).map_err(|why| TlsError::of(path, why))?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.build();
                builder
                    .with_client_cert_verifier(verifier.map_err(|error| TlsError::of(path, error))?)
            }
        };
        let key = pem::private_key(&self.key).map_err(|why| TlsError::of(&self.key, why))?;
        let chain = pem::certificates(&self.cert).map_err(|why| TlsError::of(&self.cert, why))?;
        let built = builder.with_single_cert(chain, key);
        let mut config = built.map_err(|error| {
            TlsError::of(
                &self.cert,
                format!("{error} (its key is {})", self.key.display()),
            )
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A client that comes back need not be remembered here.
        config.ticketer = ring::Ticketer::new().map_err(|error| TlsError(error.to_string()))?;
        Ok(config)
    }

    /// What changes when one of the files does.
    fn stamp(&self) -> Stamp {
        let files = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        let stamps = files.into_iter().flatten().map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((
                metadata.ino(),
                metadata.size(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ))
        });
        stamps.collect()
    }
}

/// Inode, size and time of change of each file.
type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

/// The certificate of a listener.
pub struct Tls {
    config: Live<ServerConfig>,
    source: Mutex<Source>,
}

/// Where it was read last.
struct Source {
    files: TlsFiles,
    stamp: Stamp,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. An error names the one that cannot be used.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        // Before they are read: what changes meanwhile is read again.
        let stamp = files.stamp();
        Ok(Self {
            config: Live::new(files.load()?),
            source: Mutex::new(Source { files, stamp }),
        })
    }

    /// Reads these files, from now on. What cannot be used is logged as an error, and changes nothing but which files are
    /// looked at.
    pub fn reload(&self, files: TlsFiles) {
        let mut source = self.source();
        source.stamp = files.stamp();
        source.files = files;
        match source.files.load() {
            Ok(config) => {
                self.config.set(config);
                tracing::info!(cert = %source.files.cert.display(), "TLS certificate loaded");
            }
            Err(error) => {
                tracing::error!(%error, "cannot load the TLS certificate, keeping the old one");
            }
        }
    }

    /// Reads the files again whenever they have changed, for as long as it is polled.
    pub(crate) async fn watch(&self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let files = {
                let source = self.source();
                (source.files.stamp() != source.stamp).then(|| source.files.clone())
            };
            if let Some(files) = files {
                self.reload(files);
            }
        }
    }

    fn source(&self) -> std::sync::MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Agrees on keys with a client.
    pub(super) async fn accept(
        &self,
        connection: Connection,
        activity: Activity,
    ) -> io::Result<Encrypted> {
        let acceptor = TlsAcceptor::from(self.config.get());
        let accepted = acceptor.accept_with(connection, |session| {
            session.set_buffer_limit(Some(MAX_BUFFER_BYTES));
        });
        match accepted.await {
            Ok(stream) => Ok(Encrypted { stream, activity }),
            Err(error) => {
                tracing::debug!(%error, "a client does not complete the TLS handshake");
                Err(error)
            }
        }
    }
}

/// An encrypted connection of a client.
pub(super) struct Encrypted {
    stream: TlsStream<Connection>,
    activity: Activity,
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        match &read {
            Poll::Ready(Ok(())) if into.filled().len() > before => self.activity.has_received(),
            // Clients leave without the farewell of TLS, and a connection that the server ends reads as one that has been
            // left. HTTP says itself where a request ends.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Ok(()));
            }
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
