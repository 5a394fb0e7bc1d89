//! The sections `[keystone]` and `[trustee]`, as they are meant: checked, complete, and without texts that are not set.
//!
//! Every refusal is a sentence that names the key and lists what it accepts; none repeats a secret.
//!
//! Source: `docs/compatibility/keystone.md` section 14.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;

use super::cache::CacheLimits;
use super::config::{KeystoneConfig, TrusteeConfig};
use super::credentials::{Credentials, DomainRef, ProjectRef, UserRef};
use super::tls;
use crate::notifications::Password;

/// The longest time limit of one step: all of a request's steps together may take ten seconds.
const MAX_TIMEOUT_SECS: u64 = 10;

/// The section `[keystone]`, as it is meant: complete, and right as far as can be told without asking Keystone.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) auth_url: Uri,
    /// The value of `WWW-Authenticate`.
    pub(super) challenge: HeaderValue,
    pub(super) interface: &'static str,
    pub(super) region: Option<String>,
    pub(super) service_type: String,
    pub(super) credentials: Credentials,
    pub(super) tls: TlsSettings,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) cache: CacheLimits,
    pub(super) service_token_roles: Vec<String>,
    /// The roles of trusts; empty for all of the user's.
    pub(super) trust_roles: Vec<String>,
}

/// How connections to Keystone are protected, by files that are read when the client is made.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsSettings {
    pub(super) ca_file: Option<PathBuf>,
    /// The certificate and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    pub(super) insecure: bool,
}

/// The section `[trustee]`, as it is meant.
#[derive(Debug, Clone)]
pub struct TrusteeSettings {
    /// The URL of Keystone.
    pub auth_url: Uri,
    pub(super) credentials: Credentials,
}

impl Settings {
    /// Reads the files of certificates and keys. Fails with a sentence that names the key and the file that cannot be used.
    pub fn check_files(&self) -> Result<(), String> {
        match self.tls.ca_file.is_none() && self.tls.client.is_none() {
            true => Ok(()),
            false => tls::client_config(&self.tls).map(drop),
        }
    }
}

impl KeystoneConfig {
    /// Puts the secrets that stand in files in their places. Fails with a sentence when a file cannot be read or is empty,
    /// or when a secret is set twice.
    pub fn read_secrets(&mut self) -> Result<(), String> {
        let secrets = [
            ("keystone.password", &mut self.password, &self.password_file),
            (
                "keystone.application_credential_secret",
                &mut self.application_credential_secret,
                &self.application_credential_secret_file,
            ),
        ];
        for (key, secret, file) in secrets {
            read_secret(key, secret, file)?;
        }
        Ok(())
    }

    /// Says what was written is meant to be. Fails with a sentence that names the key and lists what it accepts.
    ///
    /// Opens nothing: files of certificates are read by [`Settings::check_files`], and when the authenticator is made.
    pub fn resolve(&self) -> Result<Settings, String> {
        let auth_url = url("keystone.auth_url", &self.auth_url)?;
        let public_url = match self.public_url.as_str() {
            "" => self.auth_url.as_str(),
            public_url => {
                url("keystone.public_url", public_url)?;
                public_url
            }
        };
        let challenge = HeaderValue::try_from(format!("Keystone uri=\"{public_url}\""))
            .map_err(|_| "keystone.public_url must be an http or https URL".to_owned())?;
        if self.service_type.is_empty() {
            return Err(
                "keystone.service_type must not be empty; the usual one is \"messaging\"".into(),
            );
        }
        let roles = &self.service_token_roles;
        if roles.is_empty() || roles.iter().any(String::is_empty) {
            return Err(
                "keystone.service_token_roles must name at least one role: without roles any token would count as a \
                 service token"
                    .into(),
            );
        }
        if self.trust_roles.iter().any(String::is_empty) {
            return Err("keystone.trust_roles must not name an empty role".into());
        }
        self.check_ranges()?;
        Ok(Settings {
            auth_url,
            challenge,
            interface: interface(&self.interface)?,
            region: Some(self.region.clone()).filter(|region| !region.is_empty()),
            service_type: self.service_type.clone(),
            credentials: self.credentials()?,
            tls: self.tls()?,
            connect_timeout: Duration::from_secs(self.connect_timeout_secs),
            timeout: Duration::from_secs(self.timeout_secs),
            retries: self.retries,
            cache: CacheLimits {
                fresh: Duration::from_secs(self.cache_secs),
                stale_grace: Duration::from_secs(self.stale_grace_secs),
                negative: Duration::from_secs(self.negative_cache_secs),
                entries: self.cache_entries,
            },
            service_token_roles: roles.clone(),
            trust_roles: self.trust_roles.clone(),
        })
    }

    /// Reports whether the service proves who it is with an application credential.
    pub fn is_application_credential(&self) -> bool {
        !self.application_credential_id.is_empty()
    }

    /// Names what works and is not as it should be where the service is relied on, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.insecure {
            warnings.push(
                "keystone.insecure is true: Keystone's certificate is not checked, and whoever can redirect connections \
                 to it can let in anybody as anybody"
                    .to_owned(),
            );
        }
        if self.auth_url.starts_with("http://") && !is_loopback(&self.auth_url) {
            warnings.push(
                "keystone.auth_url is not https: tokens and the service user's password cross the network in clear"
                    .to_owned(),
            );
        }
        warnings
    }

    fn check_ranges(&self) -> Result<(), String> {
        let entries = self.cache_entries as u64;
        for (key, value, least, most) in [
            (
                "connect_timeout_secs",
                self.connect_timeout_secs,
                1,
                MAX_TIMEOUT_SECS,
            ),
            ("timeout_secs", self.timeout_secs, 1, MAX_TIMEOUT_SECS),
            ("retries", self.retries.into(), 0, 3),
            ("cache_secs", self.cache_secs, 0, 86_400),
            ("cache_entries", entries, 1, 10_000_000),
            ("negative_cache_secs", self.negative_cache_secs, 0, 60),
            ("stale_grace_secs", self.stale_grace_secs, 0, 900),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!(
                    "keystone.{key} must be from {least} to {most}, not {value}"
                ));
            }
        }
        Ok(())
    }

    fn credentials(&self) -> Result<Credentials, String> {
        let id = &self.application_credential_id;
        let has_user = !self.username.is_empty() || !self.user_id.is_empty();
        if !id.is_empty() {
            if has_user {
                return Err("keystone.application_credential_id and keystone.username cannot both be set: an \
                            application credential says whose it is"
                    .into());
            }
            if self.application_credential_secret.0.is_empty() {
                return Err("keystone.application_credential_id needs keystone.application_credential_secret or \
                            keystone.application_credential_secret_file"
                    .into());
            }
            return Ok(Credentials::ApplicationCredential {
                id: id.clone(),
                secret: self.application_credential_secret.clone(),
            });
        }
        if !has_user {
            return Err("keystone needs the service user: set username (or user_id), password and project, or \
                        application_credential_id and application_credential_secret"
                .into());
        }
        let user = self.user_keys().user()?;
        if self.password.0.is_empty() {
            return Err(
                "keystone.username needs keystone.password or keystone.password_file".into(),
            );
        }
        let project = match (self.project_id.as_str(), self.project.as_str()) {
            ("", "") => {
                return Err("keystone.username needs keystone.project (or project_id): the project in which the \
                            service user has its role, usually \"service\""
                    .into());
            }
            ("", name) => ProjectRef::Name(
                name.to_owned(),
                domain(
                    "keystone.project",
                    &self.project_domain,
                    &self.project_domain_id,
                )?,
            ),
            (id, "") => ProjectRef::Id(id.to_owned()),
            _ => return Err("keystone.project and keystone.project_id cannot both be set".into()),
        };
        Ok(Credentials::Password {
            user,
            password: self.password.clone(),
            project: Some(project),
        })
    }

    fn user_keys(&self) -> UserKeys<'_> {
        UserKeys {
            section: "keystone",
            name: &self.username,
            id: &self.user_id,
            domain: &self.user_domain,
            domain_id: &self.user_domain_id,
        }
    }

    fn tls(&self) -> Result<TlsSettings, String> {
        let file = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        let client = match (file(&self.cert_file), file(&self.key_file)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                return Err(
                    "keystone.cert_file and keystone.key_file must both be set, or neither".into(),
                );
            }
        };
        Ok(TlsSettings {
            ca_file: file(&self.ca_file),
            client,
            insecure: self.insecure,
        })
    }
}

impl TrusteeConfig {
    /// Puts the password in its place where it stands in a file; see [`KeystoneConfig::read_secrets`].
    pub fn read_secrets(&mut self) -> Result<(), String> {
        read_secret("trustee.password", &mut self.password, &self.password_file)
    }

    /// Reports whether a user is named; without one the service user of `keystone` is the trustee.
    pub fn has_user(&self) -> bool {
        !self.username.is_empty() || !self.user_id.is_empty()
    }

    /// Says what was written is meant to be: without a user, the service user of `keystone`, without its project.
    pub fn resolve(&self, keystone: &Settings) -> Result<TrusteeSettings, String> {
        let auth_url = match self.auth_url.as_str() {
            "" => keystone.auth_url.clone(),
            text => url("trustee.auth_url", text)?,
        };
        if !self.has_user() {
            return match &keystone.credentials {
                Credentials::Password { user, password, .. } => Ok(TrusteeSettings {
                    auth_url,
                    credentials: Credentials::Password {
                        user: user.clone(),
                        password: password.clone(),
                        project: None,
                    },
                }),
                Credentials::ApplicationCredential { .. } => Err(
                    "trustee.username (or user_id) must be set: an application credential cannot use trusts".into(),
                ),
            };
        }
        if self.password.0.is_empty() {
            return Err("trustee.username needs trustee.password or trustee.password_file".into());
        }
        let keys = UserKeys {
            section: "trustee",
            name: &self.username,
            id: &self.user_id,
            domain: &self.user_domain,
            domain_id: &self.user_domain_id,
        };
        Ok(TrusteeSettings {
            auth_url,
            credentials: Credentials::Password {
                user: keys.user()?,
                password: self.password.clone(),
                project: None,
            },
        })
    }
}

/// The keys that name a user.
struct UserKeys<'a> {
    section: &'static str,
    name: &'a str,
    id: &'a str,
    domain: &'a str,
    domain_id: &'a str,
}

impl UserKeys<'_> {
    fn user(&self) -> Result<UserRef, String> {
        let section = self.section;
        match (self.id, self.name) {
            (id, "") => Ok(UserRef::Id(id.to_owned())),
            ("", name) => {
                let domain = domain(&format!("{section}.user"), self.domain, self.domain_id)
                    .map_err(|error| error.replacen(".user needs", ".username needs", 1))?;
                Ok(UserRef::Name(name.to_owned(), domain))
            }
            _ => Err(format!(
                "{section}.username and {section}.user_id cannot both be set"
            )),
        }
    }
}

/// Reads a domain that is given by name or by id; a name alone says nothing of the user or the project in it.
fn domain(of: &str, name: &str, id: &str) -> Result<DomainRef, String> {
    match (name, id) {
        ("", "") => Err(format!(
            "{of} needs {of}_domain or {of}_domain_id, which is \"default\" in most clouds"
        )),
        ("", id) => Ok(DomainRef::Id(id.to_owned())),
        (name, "") => Ok(DomainRef::Name(name.to_owned())),
        _ => Err(format!("{of}_domain and {of}_domain_id cannot both be set")),
    }
}

fn interface(text: &str) -> Result<&'static str, String> {
    match text {
        "public" | "publicURL" => Ok("public"),
        "internal" | "internalURL" => Ok("internal"),
        "admin" | "adminURL" => Ok("admin"),
        _ => Err(format!(
            "keystone.interface must be public, internal or admin, not '{text}'"
        )),
    }
}

/// Reads the URL of Keystone. One with a user or a quotation mark in it is refused, as clients are shown it.
fn url(key: &str, text: &str) -> Result<Uri, String> {
    let wrong = || {
        format!(
            "{key} must be an http or https URL such as http://keystone.internal:5000, without a user, a query or \
             quotation marks"
        )
    };
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if !is_http
        || authority.is_empty()
        || authority.contains('@')
        || uri.query().is_some()
        || text.contains('"')
    {
        return Err(wrong());
    }
    Ok(uri)
}

fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Reads a secret from a file, where one is named; the line break at its end does not count.
fn read_secret(key: &str, secret: &mut Password, file: &Path) -> Result<(), String> {
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    if !secret.0.is_empty() {
        return Err(format!("{key} and {key}_file cannot both be set"));
    }
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{key}_file cannot be read: {}: {error}", file.display()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(format!("{key}_file is empty: {}", file.display()));
    }
    secret.0 = text.to_owned();
    Ok(())
}
