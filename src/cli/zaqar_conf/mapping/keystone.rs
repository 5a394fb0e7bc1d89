//! Who asks: Keystone, and the trustee of trust subscriptions (spec: zaqar-conf.md 2).

use std::ops::RangeInclusive;

use super::super::ini::normalized;
use super::super::reader::PLACEHOLDER;
use super::super::value::Value;
use super::credentials::{self, CREDENTIALS};
use super::{Kind, Mapper, Taken, beyond, clamped};

const GROUP: &str = "keystone_authtoken";

/// What the server accepts: seconds for an answer, retries, seconds for which a token is remembered.
const TIMEOUT_SECS: RangeInclusive<i64> = 1..=10;
const RETRIES: RangeInclusive<i64> = 0..=3;
const CACHE_SECS: RangeInclusive<i64> = 0..=86_400;

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
                if self.has_credentials() {
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

    /// Whether the files have credentials, whatever their group is called.
    fn has_credentials(&self) -> bool {
        let section = normalized(&self.reader.auth_group(GROUP));
        self.reader.assigned().any(|each| {
            let group = normalized(&each.group);
            (group == GROUP || group == section)
                && CREDENTIALS.contains(&each.key.as_str())
                && each.value != PLACEHOLDER
        })
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
        self.credentials(&section, &credentials::KEYSTONE);
        self.public_url();
        for (name, path) in [
            ("interface", "keystone.interface"),
            ("region_name", "keystone.region"),
            ("service_type", "keystone.service_type"),
            ("cafile", "keystone.ca_file"),
        ] {
            self.carry_text(GROUP, name, path);
        }
        self.client_certificate();
        self.insecure(GROUP, "keystone.insecure");
        self.bounds();
        self.cache();
        self.service_tokens();
        self.decisions_of_others();
        self.dead_options(&section);
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

    /// A certificate without a key is read for its key, too; a key without a certificate is not read.
    fn client_certificate(&mut self) {
        let [certificate, key] = ["certfile", "keyfile"].map(|name| self.take(GROUP, name));
        let Some(file) = certificate.text().map(str::to_owned) else {
            return self.ignore(&key, "it is not read without certfile");
        };
        self.carry(&certificate, "keystone.cert_file", file.clone());
        match key.text().map(str::to_owned) {
            Some(own) => self.carry(&key, "keystone.key_file", own),
            None => self.carry(&certificate, "keystone.key_file", file),
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
            Some(secs) if secs > 0 => {
                let why = "it limits the wait for an answer; without it Zaqar waits for ever";
                let why = match beyond(secs, &TIMEOUT_SECS) {
                    Some(beyond) => format!("{beyond}; {why}"),
                    None => why.to_owned(),
                };
                let secs = clamped(secs, &TIMEOUT_SECS);
                self.change(&taken, "keystone.timeout_secs", secs, &why);
            }
            Some(_) => self.ignore(&taken, "it is no time"),
            None => {}
        }
        let taken = self.take(GROUP, "http_request_max_retries");
        if let Some(retries) = taken.int().filter(|_| taken.is_set()) {
            self.carry_within(&taken, "keystone.retries", retries, &RETRIES);
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
            Some(secs) => self.carry_within(&taken, "keystone.cache_secs", secs, &CACHE_SECS),
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
        let roles = taken.list().unwrap_or_default();
        let roles: Vec<String> = roles.into_iter().filter(|role| !role.is_empty()).collect();
        match roles.is_empty() {
            true => self.differs(
                &taken,
                "no role is named, and a service token needs one here: keystone.service_token_roles has its default, service",
            ),
            false => self.carry(&taken, "keystone.service_token_roles", roles),
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
        let names = credentials::OF_TRUSTEE;
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
            self.credentials(&section, &credentials::TRUSTEE);
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
