//! The sections of the two listeners, `[server]` and `[admin]`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use isimud_contract::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::admin;
use crate::admin::tokens::Tokens;
use crate::server::{Tls, TlsFiles, TlsVersion};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) listen: String,
    pub(super) admin_listen: String,
    pub(super) shutdown_grace_secs: u64,
    pub(super) idle_grace_ms: u64,
    pub(super) header_timeout_secs: u64,
    pub(super) body_timeout_secs: u64,
    pub(super) answer_timeout_secs: u64,
    pub(super) min_answer_rate: u64,
    pub(super) tls_cert_file: PathBuf,
    pub(super) tls_key_file: PathBuf,
    pub(super) tls_client_ca_file: PathBuf,
    pub(super) tls_min_version: TlsVersion,
    pub(super) base_path: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAdmin {
    pub(super) tokens_file: String,
    pub(super) local_token: bool,
    pub(super) probes_only: bool,
    pub(super) metrics_open: bool,
    pub(super) hosts: Vec<String>,
    pub(super) tls_cert_file: PathBuf,
    pub(super) tls_key_file: PathBuf,
    pub(super) tls_client_ca_file: PathBuf,
}

impl RawAdmin {
    /// Reads the file of tokens. Refuses a listener that others can reach while nobody has a token.
    pub(super) fn resolve(
        self,
        listen: Option<SocketAddr>,
    ) -> Result<admin::Settings, ConfigError> {
        let tokens = match self.tokens_file.as_str() {
            "" => Tokens::default(),
            path => Tokens::load(Path::new(path))
                .map_err(|why| ConfigError(format!("admin.tokens_file is invalid: {why}")))?,
        };
        // The API goes on, and so do metrics and health where they need no token.
        let all_ended = !tokens.is_empty() && !tokens.is_some_valid(SystemClock.wall());
        let ended = all_ended.then(|| {
            format!(
                "every token of {} has expired: nobody can change anything until 'isimud token new' has made another",
                self.tokens_file
            )
        });
        let warnings = [Tokens::warning(Path::new(&self.tokens_file)), ended];
        let warnings: Vec<String> = warnings.into_iter().flatten().collect();
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        let reachable = listen.filter(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = reachable
            && tokens.is_empty()
            && !self.probes_only
        {
            return Err(ConfigError(format!(
                "server.admin_listen is {address}, which others can reach, and nobody has a token: name a file of tokens \
                 (admin.tokens_file, see 'isimud token new'), set admin.probes_only = true to serve metrics and health alone, \
                 or listen on 127.0.0.1"
            )));
        }
        Ok(admin::Settings {
            tokens,
            warning,
            hosts: self.hosts,
            metrics_open: self.metrics_open,
            probes_only: self.probes_only,
            local_token: self.local_token,
        })
    }
}

/// The files of a listener's TLS: certificate, key and authority of clients. They are read once, so that a start says which
/// of them cannot be used.
pub(super) fn tls_files(
    table: &str,
    [cert, key, client_ca]: [&PathBuf; 3],
    min_version: TlsVersion,
) -> Result<Option<TlsFiles>, ConfigError> {
    let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
    match (is_set(cert), is_set(key)) {
        (true, true) => {}
        (false, false) if !is_set(client_ca) => return Ok(None),
        (false, _) => return Err(ConfigError(format!("{table}.tls_cert_file is missing"))),
        (true, false) => return Err(ConfigError(format!("{table}.tls_key_file is missing"))),
    }
    let files = TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: Some(client_ca.clone()).filter(is_set),
        min_version,
    };
    Tls::open(files.clone()).map_err(|error| ConfigError(format!("TLS of [{table}]: {error}")))?;
    Ok(Some(files))
}

pub(super) fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    let resolved = text
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| ConfigError(format!("{key} is not an address (host:port): '{text}'")))
}
