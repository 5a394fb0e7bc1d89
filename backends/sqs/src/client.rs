//! The client of SQS: how it is made, and when it is made anew.
//!
//! It is made at the first call, because credentials may have to be fetched, and forgotten when AWS refuses them, so
//! that a profile or a token that somebody has renewed meanwhile is used without a restart.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{
    Builder, Credentials, Region, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use isimud_contract::{Error, Result};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::Config;
use crate::error::{Fault, What, closed, from_sdk};

/// How often a call is tried at the most, the first time included. Only the client repeats calls; the driver repeats
/// what a batch that was answered says of single entries.
const ATTEMPTS: u32 = 4;

/// Makes calls, with credentials that are renewed.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) config: Config,
    http: SharedHttpClient,
    client: RwLock<State>,
}

#[derive(Debug)]
enum State {
    None,
    Made(Client),
    Closed,
}

impl Account {
    /// Prepares calls; nothing is sent. A `ca_file` that cannot be used is refused here.
    pub(crate) fn new(config: Config) -> Result<Arc<Self>> {
        let http = http_client(&config)?;
        Ok(Arc::new(Self {
            config,
            http,
            client: RwLock::new(State::None),
        }))
    }

    /// The client, made if there is none.
    pub(crate) async fn client(&self) -> Result<Client> {
        match &*self.client.read().unwrap_or_else(PoisonError::into_inner) {
            State::Made(client) => return Ok(client.clone()),
            State::Closed => return Err(closed()),
            State::None => {}
        }
        let client = self.make().await;
        let mut state = self.client.write().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Made(first) => Ok(first.clone()),
            State::Closed => Err(closed()),
            State::None => {
                *state = State::Made(client.clone());
                Ok(client)
            }
        }
    }

    /// Reads what became of a call, and forgets the client if its credentials were refused.
    pub(crate) fn told<E>(&self, error: SdkError<E>) -> Fault
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let fault = from_sdk(error);
        if fault.what == What::Rejected {
            let mut state = self.client.write().unwrap_or_else(PoisonError::into_inner);
            if matches!(*state, State::Made(_)) {
                *state = State::None;
            }
        }
        fault
    }

    /// Lets go of connections. Later calls answer `Unavailable`.
    pub(crate) fn close(&self) {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = State::Closed;
    }

    async fn make(&self) -> Client {
        let config = &self.config;
        let mut loader: ConfigLoader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(config.region.clone()))
            .http_client(self.http.clone());
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(login) = &config.login {
            let (key, secret) = (&login.key, &login.secret);
            loader = loader.credentials_provider(Credentials::new(key, secret, None, None, "test"));
        }
        let shared = loader.load().await;
        let mut builder = Builder::from(&shared)
            .retry_config(retries(config.timeout))
            .timeout_config(limits(config.timeout, Duration::ZERO))
            // It cuts long polls off; the time limits above bound every call.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &config.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Client::from_conf(builder.build())
    }
}

fn retries(timeout: Duration) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff((timeout / 20).min(Duration::from_millis(100)))
        .with_max_backoff(timeout / 4)
}

/// The time limits of a call that SQS itself may keep waiting.
pub(crate) fn limits(timeout: Duration, wait: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout((timeout / 2).min(Duration::from_secs(3)))
        // One attempt that hangs leaves time for another.
        .operation_attempt_timeout(timeout / 2 + wait)
        .operation_timeout(timeout + wait)
        .build()
}

fn http_client(config: &Config) -> Result<SharedHttpClient> {
    let builder =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let Some(path) = &config.authorities else {
        return Ok(builder.build_https());
    };
    let trust = TrustStore::empty()
        .with_native_roots(false)
        .with_pem_certificate(authorities(path)?);
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| refused(path, error.to_string()))?;
    Ok(builder.tls_context(tls).build_https())
}

/// Refuses a `ca_file` that cannot be used.
pub(crate) fn check_files(config: &Config) -> Result<()> {
    let path = config.authorities.as_deref();
    path.map_or(Ok(()), |path| authorities(path).map(drop))
}

fn authorities(path: &Path) -> Result<Vec<u8>> {
    let pem = std::fs::read(path).map_err(|error| refused(path, error.to_string()))?;
    check(&pem).map_err(|why| refused(path, why))?;
    Ok(pem)
}

fn refused(path: &Path, why: String) -> Error {
    Error::invalid("the certificates of 'ca_file' cannot be used in the SQS store URI")
        .with("file", path.display())
        .with("cause", why)
}

/// The client library panics at the first request over certificates that it cannot read.
fn check(pem: &[u8]) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    if store.is_empty() {
        return Err("it has no certificate in PEM".into());
    }
    Ok(())
}
