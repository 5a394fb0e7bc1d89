//! Configuration: as written, then as meant.
//!
//! The layers are, each over the one before: the compiled-in defaults, the operator's file, the environment, the flags.
//! [`RawConfig`] is what serde reads of them; [`RawConfig::resolve`] turns it into [`Config`]: it reads the policy file
//! and looks up the names of hosts, and opens nothing. [`Config::check_files`] reads the certificates of connections.

mod check;
pub mod declared;
mod listeners;
mod secrets;
mod unused;
mod websocket;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

pub use self::check::check_text;

use self::declared::Declared;
use self::listeners::{RawAdmin, Server, address, tls_files};
use self::secrets::one_line;
use self::websocket::RawWebSocket;
use crate::bridges::{Rule, check_rules};
use crate::http::BasePath;
use crate::http::auth::ClientIds;
use crate::http::cors::Cors;
use crate::http::identity::Identity;
use crate::http::policy::Policy;
use crate::keystone::{KeystoneConfig, TrusteeConfig};
use crate::messaging::limits::Limits;
use crate::messaging::quotas::Quotas;
use crate::messaging::{PUBLIC_KEY, check_keys};
use crate::server::TlsFiles;
use crate::{admin, keystone, notifications, telemetry};

/// The reference of all keys, and their defaults.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// The default pool where nobody names one.
const DEFAULT_STORE: &str = "sqlite:data/isimud.db";

/// What is wrong with the configuration, in one line.
#[derive(Debug)]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The configuration as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    server: Server,
    websocket: RawWebSocket,
    admin: RawAdmin,
    store: StoreUri,
    management: StoreUri,
    pooling: Pooling,
    bridging: Bridging,
    log: Log,
    access: Access,
    messages: Messages,
    limits: Limits,
    quotas: Quotas,
    notifications: notifications::Settings,
    signed_url: SignedUrl,
    cors: RawCors,
    keystone: KeystoneConfig,
    trustee: TrusteeConfig,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedUrl {
    secret_key: notifications::Password,
    secret_key_file: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreUri {
    uri: String,
    uri_file: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pooling {
    default_store: bool,
    file: String,
    sqlite_folder: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bridging {
    rules: Vec<RawRule>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    from: String,
    to: String,
    rate: Option<u32>,
    dead_letter: Option<String>,
}

impl Bridging {
    fn resolve(&self) -> Result<Vec<Rule>, ConfigError> {
        let wrong = |why| ConfigError(format!("bridging.rules is invalid: {why}"));
        let parse = |rule: &RawRule| {
            Rule::parse(&rule.from, &rule.to, rule.rate, rule.dead_letter.as_deref())
        };
        let rules: Result<Vec<Rule>, String> = self.rules.iter().map(parse).collect();
        let rules = rules.map_err(wrong)?;
        check_rules(&rules).map_err(wrong)?;
        Ok(rules)
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
    /// Requests slower than so many milliseconds are warnings.
    pub slow_ms: u64,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Access {
    authentication: Authentication,
    admin_api: bool,
    policy_file: String,
    client_id: ClientIdRule,
    min_client_id_length: usize,
    max_client_id_length: usize,
    legacy_identity_headers: bool,
    trusted_proxies: Vec<String>,
    proxy_secret: notifications::Password,
    proxy_secret_file: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Authentication {
    None,
    Keystone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientIdRule {
    Strict,
    Off,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Messages {
    checksums: bool,
    delete_with_claim_ids: bool,
    encryption_keys: Vec<String>,
    encryption_keys_file: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCors {
    allowed_origins: Vec<String>,
    allow_credentials: bool,
    expose_headers: Vec<String>,
    max_age_secs: u64,
    allow_methods: Vec<String>,
    allow_headers: Vec<String>,
}

/// The configuration as it is meant: complete, and right as far as can be told without opening anything.
#[derive(Debug)]
pub struct Config {
    /// Where the API is served.
    pub listen: SocketAddr,
    /// Where WebSockets have a listener of their own, if anywhere.
    pub websocket_listen: Option<SocketAddr>,
    /// What holds for WebSockets.
    pub websocket: crate::websocket::Settings,
    /// Where operators look, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// What is asked of operators there.
    pub admin: admin::Settings,
    /// What links begin with.
    pub base_path: BasePath,
    /// The certificate of the API's listener; without one it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The same of the admin listener.
    pub admin_tls: Option<TlsFiles>,
    /// How long requests under way may take when the server stops.
    pub shutdown_grace: Duration,
    /// How long connections have to send one more request when the server stops.
    pub idle_grace: Duration,
    /// How long the head of a request may take to arrive.
    pub header_timeout: Duration,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// For how long the rate of an answer is measured.
    pub answer_timeout: Duration,
    /// Bytes a second that a client has to take of its answer.
    pub min_answer_rate: u64,
    /// The default pool.
    pub store: String,
    /// The management store, where it is another place.
    pub management: Option<String>,
    /// Whether queues without a flavor go to the default pool when no other takes them.
    pub default_store_takes_queues: bool,
    /// Where pools that are registered over the API may have their files; beside those of the stores when it is empty.
    pub sqlite_folder: PathBuf,
    /// Pools and flavors that a file declares.
    pub declared: Declared,
    /// Which queues are bridged, always.
    pub bridges: Vec<Rule>,
    /// What is logged.
    pub log: Log,
    /// Who may do what.
    pub policy: Arc<Policy>,
    /// What a client id may be.
    pub client_ids: ClientIds,
    /// Whether health, pools and flavors are served.
    pub admin_api: bool,
    /// Whom to ask about tokens, where tokens say who asks.
    pub keystone: Option<keystone::Settings>,
    /// For whom trust subscriptions create their trusts, where there is somebody.
    pub trustee: Option<keystone::TrusteeSettings>,
    /// What is wrong with these two sections and works all the same.
    pub keystone_warnings: Vec<String>,
    /// Whose word counts about who asks, where tokens do not say it.
    pub identity: Identity,
    /// Store checksums.
    pub checksums: bool,
    /// Bulk deletes must name claims.
    pub delete_with_claim_ids: bool,
    /// Pass phrases of encrypted queues.
    pub encryption_keys: Vec<String>,
    /// What clients may ask for.
    pub limits: Limits,
    /// What projects may use.
    pub quotas: Quotas,
    /// How notifications are sent.
    pub notifications: notifications::Settings,
    /// What pre-signed access is signed with; empty for none.
    pub signing_key: notifications::Password,
    /// Which pages of other origins may call.
    pub cors: Option<Cors>,
}

/// What the command line says; it comes last.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin-listen`.
    pub admin_listen: Option<String>,
    /// `--store`.
    pub store: Option<String>,
    /// `--management`.
    pub management: Option<String>,
}

impl RawConfig {
    /// Reads all layers.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let mut layers = Figment::from(Toml::string(DEFAULTS));
        if let Some(path) = &flags.config {
            // Read here as well, because figment takes a file that cannot be read for an empty one.
            std::fs::read_to_string(path).map_err(|error| {
                ConfigError(format!("cannot read the file {}: {error}", path.display()))
            })?;
            layers = layers.merge(Toml::file_exact(path));
        }
        layers = layers.merge(Env::prefixed("ISIMUD__").split("__"));
        for (key, value) in [
            ("server.listen", &flags.listen),
            ("server.admin_listen", &flags.admin_listen),
            ("store.uri", &flags.store),
            ("management.uri", &flags.management),
        ] {
            if let Some(value) = value {
                layers = layers.merge(Serialized::default(key, value));
                if key.ends_with(".uri") {
                    // It comes last, also after a file that has the URI.
                    layers = layers.merge(Serialized::default(&format!("{key}_file"), ""));
                }
            }
        }
        layers
            .extract()
            .map_err(|error| ConfigError(format!("invalid configuration: {}", one_line(&error))))
    }

    /// Puts the secrets that stand in files in their places.
    fn read_secrets(&mut self) -> Result<(), ConfigError> {
        let take = |value: &mut String| std::mem::take(value);
        let StoreUri { uri, uri_file } = &mut self.store;
        *uri = secrets::resolve("store.uri", take(uri), DEFAULT_STORE, uri_file)?;
        let StoreUri { uri, uri_file } = &mut self.management;
        *uri = secrets::resolve("management.uri", take(uri), "", uri_file)?;
        let SignedUrl {
            secret_key,
            secret_key_file,
        } = &mut self.signed_url;
        let key = take(&mut secret_key.0);
        secret_key.0 = secrets::resolve("signed_url.secret_key", key, "", secret_key_file)?;
        let mail = &mut self.notifications.mail;
        let password = take(&mut mail.smtp_password.0);
        let key = "notifications.mail.smtp_password";
        mail.smtp_password.0 = secrets::resolve(key, password, "", &mail.smtp_password_file)?;
        let access = &mut self.access;
        let (key, secret) = ("access.proxy_secret", take(&mut access.proxy_secret.0));
        access.proxy_secret.0 = secrets::resolve(key, secret, "", &access.proxy_secret_file)?;
        if self.access.authentication == Authentication::Keystone {
            self.keystone.read_secrets().map_err(ConfigError)?;
            self.trustee.read_secrets().map_err(ConfigError)?;
        }
        let messages = &mut self.messages;
        messages.encryption_keys = secrets::resolve_lines(
            "messages.encryption_keys",
            std::mem::take(&mut messages.encryption_keys),
            &[PUBLIC_KEY],
            &messages.encryption_keys_file,
        )?;
        Ok(())
    }

    /// Says what was written is meant to be.
    pub fn resolve(mut self) -> Result<Config, ConfigError> {
        self.read_secrets()?;
        let access = self.access;
        let policy = match access.policy_file.as_str() {
            "" => Policy::default(),
            path => {
                Policy::load(Path::new(path)).map_err(|error| ConfigError(error.to_string()))?
            }
        };
        check_keys(&self.messages.encryption_keys).map_err(|error| {
            ConfigError(format!("messages.encryption_keys is invalid: {error}"))
        })?;
        telemetry::filter(&self.log)?;
        self.limits
            .check()
            .map_err(|error| ConfigError(error.to_string()))?;
        self.quotas
            .check()
            .map_err(|error| ConfigError(error.to_string()))?;
        self.notifications.check().map_err(ConfigError)?;
        let server = &self.server;
        for (key, secs) in [
            ("shutdown_grace_secs", server.shutdown_grace_secs),
            ("header_timeout_secs", server.header_timeout_secs),
            ("body_timeout_secs", server.body_timeout_secs),
            ("answer_timeout_secs", server.answer_timeout_secs),
        ] {
            if secs > 86_400 {
                return Err(ConfigError(format!("server.{key} must be at most 86400")));
            }
        }
        if server.answer_timeout_secs == 0 {
            return Err(ConfigError(
                "server.answer_timeout_secs must be at least 1".into(),
            ));
        }
        if server.min_answer_rate > 1 << 30 {
            return Err(ConfigError(
                "server.min_answer_rate must be at most 1073741824".into(),
            ));
        }
        if server.idle_grace_ms > 60_000 {
            return Err(ConfigError(
                "server.idle_grace_ms must be at most 60000".into(),
            ));
        }
        if access.min_client_id_length > access.max_client_id_length {
            let sentence = "access.min_client_id_length is above access.max_client_id_length";
            return Err(ConfigError(sentence.into()));
        }
        let cors = self.cors;
        if cors.allow_credentials && cors.allowed_origins.iter().any(|origin| origin == "*") {
            let sentence = "cors.allowed_origins has \"*\" while cors.allow_credentials is true: any page could act for \
                            whoever visits it; name the origins, or set cors.allow_credentials = false";
            return Err(ConfigError(sentence.into()));
        }
        let admin_listen = match self.server.admin_listen.as_str() {
            "" => None,
            text => Some(address("server.admin_listen", text)?),
        };
        let (server, admin) = (&self.server, &self.admin);
        let tls = tls_files(
            "server",
            [
                &server.tls_cert_file,
                &server.tls_key_file,
                &server.tls_client_ca_file,
            ],
            server.tls_min_version,
        )?;
        let admin_tls = tls_files(
            "admin",
            [
                &admin.tls_cert_file,
                &admin.tls_key_file,
                &admin.tls_client_ca_file,
            ],
            server.tls_min_version,
        )?;
        let keystone = match access.authentication {
            Authentication::None => None,
            Authentication::Keystone => Some(self.keystone.resolve().map_err(ConfigError)?),
        };
        let trustee = match &keystone {
            // An application credential cannot use trusts: then there are no trust subscriptions.
            Some(settings) => match self.trustee.resolve(settings) {
                Err(_) if !self.trustee.has_user() && self.keystone.is_application_credential() => {
                    None
                }
                resolved => Some(resolved.map_err(ConfigError)?),
            },
            None => None,
        };
        let keystone_warnings = match keystone {
            None => Vec::from_iter(unused::without_keystone(&self.keystone, &self.trustee)),
            Some(_) => {
                let mut warnings = self.keystone.warnings();
                warnings.extend(unused::without_trustee(&self.trustee));
                warnings
            }
        };
        let base_path = BasePath::parse(&server.base_path).ok_or_else(|| {
            ConfigError(format!(
                "server.base_path is no path such as /messaging: '{}'",
                server.base_path
            ))
        })?;
        let (websocket_listen, websocket) = self.websocket.resolve()?;
        Ok(Config {
            websocket_listen,
            websocket,
            admin_api: access.admin_api,
            keystone,
            trustee,
            keystone_warnings,
            base_path,
            tls,
            admin_tls,
            listen: address("server.listen", &self.server.listen)?,
            admin_listen,
            admin: self.admin.resolve(admin_listen)?,
            shutdown_grace: Duration::from_secs(self.server.shutdown_grace_secs),
            idle_grace: Duration::from_millis(self.server.idle_grace_ms),
            header_timeout: Duration::from_secs(self.server.header_timeout_secs),
            body_timeout: Duration::from_secs(self.server.body_timeout_secs),
            answer_timeout: Duration::from_secs(self.server.answer_timeout_secs),
            min_answer_rate: self.server.min_answer_rate,
            management: Some(self.management.uri)
                .filter(|uri| !uri.is_empty() && *uri != self.store.uri),
            store: self.store.uri,
            declared: match self.pooling.file.as_str() {
                "" => Declared::default(),
                path => Declared::load(Path::new(path))?,
            },
            default_store_takes_queues: self.pooling.default_store,
            sqlite_folder: self.pooling.sqlite_folder.into(),
            bridges: self.bridging.resolve()?,
            log: self.log,
            policy: Arc::new(policy),
            client_ids: match access.client_id {
                ClientIdRule::Strict => ClientIds::Uuid,
                ClientIdRule::Off => {
                    ClientIds::Text(access.min_client_id_length..=access.max_client_id_length)
                }
            },
            identity: Identity::new(
                access.legacy_identity_headers,
                &access.trusted_proxies,
                &access.proxy_secret.0,
            )
            .map_err(ConfigError)?,
            checksums: self.messages.checksums,
            delete_with_claim_ids: self.messages.delete_with_claim_ids,
            encryption_keys: self.messages.encryption_keys,
            limits: self.limits,
            quotas: self.quotas,
            notifications: self.notifications,
            signing_key: self.signed_url.secret_key,
            cors: (!cors.allowed_origins.is_empty()).then(|| Cors {
                allowed_origins: cors.allowed_origins,
                allow_credentials: cors.allow_credentials,
                expose_headers: cors.expose_headers.join(","),
                max_age: cors.max_age_secs.to_string(),
                allow_methods: cors.allow_methods,
                allow_headers: cors.allow_headers,
            }),
        })
    }
}

impl Config {
    /// What works and is not as it should be where the service is relied on, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.listen.ip().to_canonical().is_loopback()
            && !self.identity.is_guarded()
            && self.keystone.is_none()
        {
            warnings.push(format!(
                "whoever reaches {} is believed what X-Project-Id and X-Roles say: set access.trusted_proxies or \
                 access.proxy_secret",
                self.listen
            ));
        }
        warnings.extend(self.keystone_warnings.iter().cloned());
        if let Some(warning) = &self.admin.warning {
            warnings.push(format!("admin.tokens_file: {warning}"));
        }
        if self.encryption_keys.iter().any(|key| key == PUBLIC_KEY) {
            warnings.push(
                "messages.encryption_keys has the key that everybody knows: whoever can read the store reads encrypted \
                 queues; set a key of your own"
                    .to_owned(),
            );
        }
        warnings
    }

    /// Reads all layers, and says what they mean.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        RawConfig::load(flags)?.resolve()
    }
}
