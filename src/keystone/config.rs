//! The sections `[keystone]` and `[trustee]`, as they are written; `settings` says what they mean.
//!
//! Source: `docs/compatibility/keystone.md` section 14. `tests` at the end compare the defaults with the reference of all
//! keys, `config/default.toml`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

// The type of all secrets of the configuration: its `Debug` shows three asterisks.
use crate::notifications::Password;

/// The section `[keystone]`, as it is written. Texts that are not set are empty.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeystoneConfig {
    /// The URL of Keystone, with or without a version: `http://keystone.internal:5000`.
    pub auth_url: String,
    /// The URL of Keystone that clients are told with a 401; empty for `auth_url`.
    pub public_url: String,
    /// The interface of Keystone's endpoint at which tokens are validated: public, internal or admin.
    pub interface: String,
    /// The region of that endpoint; empty for any.
    pub region: String,
    /// The type under which this service is registered in the catalogue; access rules name it.
    pub service_type: String,
    /// The service user, by name in a domain or by id.
    pub username: String,
    /// See `username`.
    pub user_id: String,
    /// The domain of the service user, by name.
    pub user_domain: String,
    /// The domain of the service user, by id.
    pub user_domain_id: String,
    /// The service user's password.
    pub password: Password,
    /// A file that has the password instead.
    pub password_file: PathBuf,
    /// The project in which the service user has its role, by name in a domain or by id.
    pub project: String,
    /// See `project`.
    pub project_id: String,
    /// The domain of the project, by name.
    pub project_domain: String,
    /// The domain of the project, by id.
    pub project_domain_id: String,
    /// An application credential in place of user, password and project.
    pub application_credential_id: String,
    /// Its secret.
    pub application_credential_secret: Password,
    /// A file that has the secret instead.
    pub application_credential_secret_file: PathBuf,
    /// A PEM file of the certificate authorities that may sign Keystone's certificate; empty for the machine's.
    pub ca_file: PathBuf,
    /// A PEM file of the certificate that this service shows to Keystone, and those that sign it.
    pub cert_file: PathBuf,
    /// A PEM file of that certificate's private key.
    pub key_file: PathBuf,
    /// Whether any certificate of Keystone is accepted: who can redirect connections can then be Keystone.
    pub insecure: bool,
    /// Seconds that a connection to Keystone may take, name look-up and TLS included: 1 to 10.
    pub connect_timeout_secs: u64,
    /// Seconds that an answer of Keystone may take: 1 to 10.
    pub timeout_secs: u64,
    /// How often a request is repeated whose connection failed before an answer: 0 to 3.
    pub retries: u32,
    /// Seconds for which a validated token counts without asking Keystone again: 0 (ask for every request) to 86400.
    pub cache_secs: u64,
    /// The number of tokens that are remembered: 1 to 10000000.
    pub cache_entries: usize,
    /// Seconds for which a refused token is remembered: 0 (not at all) to 60.
    pub negative_cache_secs: u64,
    /// Seconds for which a token whose `cache_secs` are over still counts while Keystone cannot be asked: 0 to 900.
    pub stale_grace_secs: u64,
    /// The roles of which a service token must have one.
    pub service_token_roles: Vec<String>,
    /// The roles that trusts of subscriptions have; empty for all of the user's.
    pub trust_roles: Vec<String>,
}

impl Default for KeystoneConfig {
    fn default() -> Self {
        let none = String::new;
        Self {
            auth_url: none(),
            public_url: none(),
            interface: "internal".to_owned(),
            region: none(),
            service_type: "messaging".to_owned(),
            username: none(),
            user_id: none(),
            user_domain: none(),
            user_domain_id: none(),
            password: Password(none()),
            password_file: PathBuf::new(),
            project: none(),
            project_id: none(),
            project_domain: none(),
            project_domain_id: none(),
            application_credential_id: none(),
            application_credential_secret: Password(none()),
            application_credential_secret_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            insecure: false,
            connect_timeout_secs: 2,
            timeout_secs: 5,
            retries: 1,
            cache_secs: 60,
            cache_entries: 50_000,
            negative_cache_secs: 5,
            stale_grace_secs: 0,
            service_token_roles: vec!["service".to_owned()],
            trust_roles: Vec::new(),
        }
    }
}

/// The section `[trustee]`, as it is written: the user that trust subscriptions make their trusts for. Where no user is
/// set it is the service user of `[keystone]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrusteeConfig {
    /// The URL of Keystone; empty for that of `[keystone]`.
    pub auth_url: String,
    /// The trustee, by name in a domain or by id.
    pub username: String,
    /// See `username`.
    pub user_id: String,
    /// The domain of the trustee, by name.
    pub user_domain: String,
    /// The domain of the trustee, by id.
    pub user_domain_id: String,
    /// The trustee's password.
    pub password: Password,
    /// A file that has the password instead.
    pub password_file: PathBuf,
}

impl Default for TrusteeConfig {
    fn default() -> Self {
        Self {
            auth_url: String::new(),
            username: String::new(),
            user_id: String::new(),
            user_domain: String::new(),
            user_domain_id: String::new(),
            password: Password(String::new()),
            password_file: PathBuf::new(),
        }
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
