//! Who asks: Keystone, and the trustee of trust subscriptions (spec: zaqar-conf.md 2).

use super::super::ini::normalized;
use super::super::value::Value;
use super::{Kind, Mapper, Taken};

const GROUP: &str = "keystone_authtoken";

/// Retries that the server makes at the most.
const MAX_RETRIES: i64 = 3;

/// Credentials: an option of an authentication plugin, its key for Keystone, and its key for the trustee.
type Credential = (&'static str, &'static str, Option<&'static str>);

const CREDENTIALS: [Credential; 11] = [
    ("auth_url", "keystone.auth_url", Some("trustee.auth_url")),
    ("username", "keystone.username", Some("trustee.username")),
    ("user_id", "keystone.user_id", Some("trustee.user_id")),
    (
        "user_domain_name",
        "keystone.user_domain",
        Some("trustee.user_domain"),
    ),
    (
        "user_domain_id",
        "keystone.user_domain_id",
        Some("trustee.user_domain_id"),
    ),
    ("project_name", "keystone.project", None),
    ("project_id", "keystone.project_id", None),
    ("project_domain_name", "keystone.project_domain", None),
    ("project_domain_id", "keystone.project_domain_id", None),
    (
        "application_credential_id",
        "keystone.application_credential_id",
        Some("trustee.application_credential_id"),
    ),
    (
        "application_credential_name",
        "keystone.application_credential_name",
        Some("trustee.application_credential_name"),
    ),
];

const SECRETS: [(&str, &str, &str); 2] = [
    ("password", "keystone.password", "trustee.password"),
    (
        "application_credential_secret",
        "keystone.application_credential_secret",
        "trustee.application_credential_secret",
    ),
];

const PLUGINS: [&str; 3] = ["password", "v3password", "v3applicationcredential"];

/// Options that releases of many years ago read.
const DEAD: [&str; 10] = [
    "identity_uri",
    "auth_host",
    "auth_port",
    "auth_protocol",
    "admin_user",
    "admin_password",
    "admin_tenant_name",
    "signing_dir",
    "hash_algorithms",
    "revocation_cache_time",
];

impl Mapper<'_> {
    pub(super) fn keystone(&mut self) {
        let strategy = self.take("DEFAULT", "auth_strategy");
        match strategy.text() {
            None => {
                self.carry(&strategy, "access.authentication", "none");
                let is_credential = |key: &str| ["auth_url", "username", "password"].contains(&key);
                let mut assigned = self.reader.assigned();
                if assigned.any(|each| each.group == GROUP && is_credential(&each.key)) {
                    self.left(
                        &strategy,
                        "[keystone_authtoken] has credentials, and Zaqar does not use them without auth_strategy = keystone: \
                         whoever reaches the service is believed what headers say; set access.authentication = \"keystone\" \
                         where clients send tokens",
                    );
                }
                self.keystone_unused();
            }
            Some("keystone") => {
                self.carry(&strategy, "access.authentication", "keystone");
                self.token_validation();
                self.trustee();
            }
            Some(_) => {
                self.left(
                    &strategy,
                    "Zaqar knows no other strategy than keystone, and does not start",
                );
                self.keystone_unused();
            }
        }
    }

    /// Without authentication the server does not ask Keystone.
    fn keystone_unused(&mut self) {
        for group in [
            GROUP.to_owned(),
            "trustee".to_owned(),
            self.reader.auth_group(GROUP),
        ] {
            let names: Vec<&'static str> = self
                .reader
                .options(&group)
                .map(|option| option.name)
                .collect();
            for name in names {
                self.taken.insert((group.clone(), name));
                // Its value is not looked at: Zaqar never does so either.
                let found = self
                    .reader
                    .assigned()
                    .filter(|each| {
                        normalized(&each.group) == normalized(&group) && each.key == name
                    })
                    .last();
                if let Some(found) = found {
                    let subject = format!("[{group}] {name}");
                    self.report.add(
                        Kind::NotNeeded,
                        subject,
                        Some(found.origin),
                        "auth_strategy is not keystone",
                    );
                }
            }
        }
    }

    fn token_validation(&mut self) {
        let section = self.reader.auth_group(GROUP);
        let pointer = self.take(GROUP, "auth_section");
        self.ignore(&pointer, format!("the credentials of [{section}] are read"));
        self.credentials(&section, false);
        self.public_url();
        for (name, path) in [
            ("interface", "keystone.interface"),
            ("region_name", "keystone.region"),
            ("service_type", "keystone.service_type"),
            ("cafile", "keystone.ca_file"),
            ("certfile", "keystone.cert_file"),
            ("keyfile", "keystone.key_file"),
        ] {
            self.carry_text(GROUP, name, path);
        }
        self.insecure(GROUP, "keystone.insecure");
        self.bounds();
        self.cache();
        self.service_tokens();
        self.decisions_of_others();
        self.dead_options(&section);
    }

    /// Credentials of Keystone's user, or of the trustee.
    fn credentials(&mut self, section: &str, is_trustee: bool) {
        let auth_type = self.take(section, "auth_type");
        match auth_type.text() {
            Some(plugin) if PLUGINS.contains(&plugin) => {
                self.ignore(&auth_type, "the keys that are set decide")
            }
            Some(plugin) => {
                let why = format!(
                    "the plugin '{plugin}' is not supported: {} are",
                    PLUGINS.join(", ")
                );
                self.left(&auth_type, why);
            }
            None if is_trustee => {}
            None => self.left(
                &auth_type,
                "without it Zaqar has no credentials; set the keys of [keystone]",
            ),
        }
        for (name, keystone, trustee) in CREDENTIALS {
            match if is_trustee { trustee } else { Some(keystone) } {
                Some(path) => self.carry_text(section, name, path),
                None => {
                    let taken = self.take(section, name);
                    self.ignore(
                        &taken,
                        "a trustee's token has no scope until it takes that of a trust",
                    );
                }
            }
        }
        for (name, keystone, trustee) in SECRETS {
            let taken = self.take(section, name);
            if let Some(text) = taken.text().map(str::to_owned) {
                self.secret(
                    &taken,
                    if is_trustee { trustee } else { keystone },
                    text,
                    None,
                );
            }
        }
        self.default_domains(section, is_trustee);
        for name in ["domain_id", "domain_name", "system_scope", "trust_id"] {
            let taken = self.take(section, name);
            if taken.text().is_some() {
                self.left(&taken, "the server's own token is for a project");
            }
        }
    }

    /// A default domain counts where the user's or the project's is not set.
    fn default_domains(&mut self, section: &str, is_trustee: bool) {
        for (default, user, user_path, trustee_path, project, project_path) in [
            (
                "default_domain_name",
                "user_domain_name",
                "keystone.user_domain",
                "trustee.user_domain",
                "project_domain_name",
                "keystone.project_domain",
            ),
            (
                "default_domain_id",
                "user_domain_id",
                "keystone.user_domain_id",
                "trustee.user_domain_id",
                "project_domain_id",
                "keystone.project_domain_id",
            ),
        ] {
            let taken = self.take(section, default);
            let Some(domain) = taken.text().map(str::to_owned) else {
                continue;
            };
            if self.take(section, user).text().is_none() {
                self.carry(
                    &taken,
                    if is_trustee { trustee_path } else { user_path },
                    domain.clone(),
                );
            }
            if !is_trustee && self.take(section, project).text().is_none() {
                self.carry(&taken, project_path, domain);
            }
        }
    }

    fn public_url(&mut self) {
        let taken = self.take(GROUP, "www_authenticate_uri");
        if let Some(url) = taken.text().map(str::to_owned) {
            return self.carry(&taken, "keystone.public_url", url);
        }
        // Older releases read it under this name.
        if let Some(found) = self.reader.text(GROUP, "auth_uri") {
            let taken = Taken {
                group: GROUP.to_owned(),
                name: "auth_uri",
                value: Value::Text(found.value.clone()),
                origin: found.origin,
            };
            self.change(
                &taken,
                "keystone.public_url",
                found.value,
                "the option is called www_authenticate_uri today, and only older releases read it under this name",
            );
        }
    }

    fn insecure(&mut self, group: &str, path: &'static str) {
        let taken = self.take(group, "insecure");
        match taken.is_true() {
            true => self.change(
                &taken,
                path,
                true,
                "Keystone's certificate is not checked: name its authority instead",
            ),
            false => self.carry(&taken, path, false),
        }
    }

    fn bounds(&mut self) {
        let taken = self.take(GROUP, "http_connect_timeout");
        match taken.int() {
            Some(secs) if secs > 0 => self.change(
                &taken,
                "keystone.timeout_secs",
                secs,
                "it limits the wait for an answer; without it Zaqar waits for ever",
            ),
            Some(_) => self.ignore(&taken, "it is no time"),
            None => {}
        }
        let taken = self.take(GROUP, "http_request_max_retries");
        match taken.int().filter(|_| taken.is_set()) {
            Some(retries) if (0..=MAX_RETRIES).contains(&retries) => {
                self.carry(&taken, "keystone.retries", retries)
            }
            Some(retries) => self.change(
                &taken,
                "keystone.retries",
                retries.clamp(0, MAX_RETRIES),
                &format!("it was {retries}, and {MAX_RETRIES} is the most here"),
            ),
            None => {}
        }
    }

    fn cache(&mut self) {
        let taken = self.take(GROUP, "token_cache_time");
        match taken.int().filter(|_| taken.is_set()) {
            Some(0) => self.change(
                &taken,
                "keystone.cache_secs",
                300,
                "it was 0, with which Zaqar believes a token until it expires, also when it is revoked",
            ),
            Some(secs) if secs < 0 => self.change(&taken, "keystone.cache_secs", 0, "0 is the word for no cache"),
            Some(secs) => self.carry(&taken, "keystone.cache_secs", secs),
            None => {}
        }
        let why = "tokens are cached in the process";
        let names: Vec<&'static str> = self
            .reader
            .options(GROUP)
            .map(|option| option.name)
            .filter(|name| name.starts_with("memcache") || *name == "cache")
            .collect();
        for name in names {
            let taken = self.take(GROUP, name);
            self.ignore(&taken, why);
        }
    }

    fn service_tokens(&mut self) {
        let taken = self.take(GROUP, "service_token_roles");
        if let Some(roles) = taken.list() {
            self.carry(&taken, "keystone.service_token_roles", roles);
        }
        let taken = self.take(GROUP, "service_token_roles_required");
        match taken.is_true() {
            true => self.ignore(&taken, "roles of service tokens are always required"),
            false => self.differs(
                &taken,
                "roles of service tokens are always required; without them every token would be one",
            ),
        }
    }

    fn decisions_of_others(&mut self) {
        let taken = self.take(GROUP, "delay_auth_decision");
        if taken.is_true() {
            self.differs(
                &taken,
                "a request without a good token is answered 401 at once",
            );
        }
        let taken = self.take(GROUP, "enforce_token_bind");
        match taken.text() {
            Some("permissive" | "disabled") | None => {
                self.ignore(&taken, "tokens have had no bindings for years")
            }
            Some(_) => self.differs(
                &taken,
                "a token that is bound to something is always refused",
            ),
        }
        for name in ["include_service_catalog", "auth_version"] {
            let taken = self.take(GROUP, name);
            self.ignore(
                &taken,
                "Keystone is asked by version 3, without its catalogue",
            );
        }
    }

    fn dead_options(&mut self, section: &str) {
        let url = self.take(section, "auth_url");
        if url.text().is_none() {
            self.left(
                &url,
                "the URL of Keystone is missing; set keystone.auth_url",
            );
        }
        for name in DEAD {
            let Some(found) = self.reader.text(GROUP, name) else {
                continue;
            };
            let subject = format!("[{GROUP}] {name}");
            let why = "no current release reads it";
            self.report
                .add(Kind::NotNeeded, subject, Some(found.origin), why);
        }
    }

    /// The trustee, where it is another user than Keystone's.
    fn trustee(&mut self) {
        let section = self.reader.auth_group("trustee");
        let pointer = self.take("trustee", "auth_section");
        let mut names: Vec<&'static str> = SECRETS.iter().map(|(name, _, _)| *name).collect();
        names.extend(
            CREDENTIALS
                .iter()
                .filter(|(_, _, trustee)| trustee.is_some())
                .map(|(name, _, _)| *name),
        );
        let own = self.reader.auth_group(GROUP);
        let is_same = section == own
            || names
                .iter()
                .all(|name| self.take(&section, name).value == self.take(&own, name).value);
        if is_same {
            self.ignore(&pointer, "trusts use the credentials of [keystone]");
            for name in names.into_iter().chain(["auth_type"]) {
                let taken = self.take(&section, name);
                if section != own {
                    self.ignore(&taken, "trusts use the credentials of [keystone]");
                }
            }
        } else {
            self.ignore(&pointer, format!("the credentials of [{section}] are read"));
            self.credentials(&section, true);
        }
        for (name, path) in [
            ("cafile", "trustee.ca_file"),
            ("certfile", "trustee.cert_file"),
            ("keyfile", "trustee.key_file"),
            ("insecure", "trustee.insecure"),
        ] {
            let taken = self.take("trustee", name);
            if taken.value == self.take(GROUP, name).value {
                self.ignore(&taken, "trusts are made over the connections of [keystone]");
            } else if name == "insecure" {
                self.insecure("trustee", path);
            } else {
                self.carry_text("trustee", name, path);
            }
        }
        for name in [
            "timeout",
            "collect_timing",
            "split_loggers",
            "tls_ciphers",
            "tls_min_version",
        ] {
            let taken = self.take("trustee", name);
            self.ignore(
                &taken,
                "the client of Keystone has limits and TLS settings of its own",
            );
        }
    }
}
