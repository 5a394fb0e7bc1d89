//! Whose credentials are used: the service user's, and those of the trustee (spec: zaqar-conf.md 2).
//!
//! Zaqar's client of Keystone takes names beside ids, and the id wins: a user's or a project's over its name, a domain's over
//! the name of a domain. A default domain takes the place of what is not set, each form for itself, and so the id of the
//! default domain wins over the name of the user's. The server takes one of them: what does not count there is left out.

use super::{Mapper, Taken};

const PLUGINS: [&str; 3] = ["password", "v3password", "v3applicationcredential"];

/// Options that show that somebody means to ask Keystone, under all their names.
pub(super) const CREDENTIALS: [&str; 8] = [
    "auth_url",
    "username",
    "user-name",
    "user_name",
    "user_id",
    "password",
    "application_credential_id",
    "application_credential_secret",
];

/// Options of a trustee: where they are those of the service user, it is the trustee.
pub(super) const OF_TRUSTEE: [&str; 11] = [
    "password",
    "application_credential_secret",
    "auth_url",
    "username",
    "user_id",
    "user_domain_name",
    "user_domain_id",
    "default_domain_name",
    "default_domain_id",
    "application_credential_id",
    "application_credential_name",
];

/// Somebody or something by id or by name in a domain: an option, and its key.
#[derive(Debug, Clone, Copy)]
struct Named {
    id: (&'static str, &'static str),
    name: (&'static str, &'static str),
    domain_id: (&'static str, &'static str),
    domain_name: (&'static str, &'static str),
}

/// The keys of a section of the configuration.
#[derive(Debug)]
pub(super) struct Keys {
    auth_url: &'static str,
    user: Named,
    /// A trustee has no project.
    project: Option<Named>,
    credential_id: &'static str,
    credential_name: &'static str,
    secrets: [(&'static str, &'static str); 2],
}

const USER: Named = Named {
    id: ("user_id", "keystone.user_id"),
    name: ("username", "keystone.username"),
    domain_id: ("user_domain_id", "keystone.user_domain_id"),
    domain_name: ("user_domain_name", "keystone.user_domain"),
};

const PROJECT: Named = Named {
    id: ("project_id", "keystone.project_id"),
    name: ("project_name", "keystone.project"),
    domain_id: ("project_domain_id", "keystone.project_domain_id"),
    domain_name: ("project_domain_name", "keystone.project_domain"),
};

/// The section `[keystone]`.
pub(super) const KEYSTONE: Keys = Keys {
    auth_url: "keystone.auth_url",
    user: USER,
    project: Some(PROJECT),
    credential_id: "keystone.application_credential_id",
    credential_name: "keystone.application_credential_name",
    secrets: [
        ("password", "keystone.password"),
        (
            "application_credential_secret",
            "keystone.application_credential_secret",
        ),
    ],
};

/// The section `[trustee]`.
pub(super) const TRUSTEE: Keys = Keys {
    auth_url: "trustee.auth_url",
    user: Named {
        id: ("user_id", "trustee.user_id"),
        name: ("username", "trustee.username"),
        domain_id: ("user_domain_id", "trustee.user_domain_id"),
        domain_name: ("user_domain_name", "trustee.user_domain"),
    },
    project: None,
    credential_id: "trustee.application_credential_id",
    credential_name: "trustee.application_credential_name",
    secrets: [
        ("password", "trustee.password"),
        (
            "application_credential_secret",
            "trustee.application_credential_secret",
        ),
    ],
};

/// The default domain of a group.
struct DefaultDomain {
    id: Taken,
    name: Taken,
}

impl Mapper<'_> {
    /// Credentials of a group.
    pub(super) fn credentials(&mut self, section: &str, keys: &Keys) {
        self.plugin(section, keys);
        self.carry_text(section, "auth_url", keys.auth_url);
        let credential = self.take(section, "application_credential_id");
        if credential.text().is_some() {
            self.credential_by_id(section, &credential, keys);
        } else {
            self.carry_text(section, "application_credential_name", keys.credential_name);
            self.user_and_project(section, keys);
        }
        for (name, path) in keys.secrets {
            let taken = self.take(section, name);
            if let Some(text) = taken.text().map(str::to_owned) {
                self.secret(&taken, path, text, None);
            }
        }
        for name in ["domain_id", "domain_name", "system_scope", "trust_id"] {
            let taken = self.take(section, name);
            if taken.text().is_some() {
                self.left(&taken, "the server's own token is for a project");
            }
        }
    }

    fn plugin(&mut self, section: &str, keys: &Keys) {
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
            None if keys.project.is_none() => {}
            None => self.left(
                &auth_type,
                "without it Zaqar has no credentials; set the keys of [keystone]",
            ),
        }
    }

    /// An application credential is one of a user in a project: neither is to be named.
    fn credential_by_id(&mut self, section: &str, credential: &Taken, keys: &Keys) {
        let id = credential.text().unwrap_or_default().to_owned();
        self.carry(credential, keys.credential_id, id);
        let named = [USER, PROJECT].into_iter();
        let options =
            named.flat_map(|named| [named.id, named.name, named.domain_id, named.domain_name]);
        for name in options
            .map(|(name, _)| name)
            .chain(["application_credential_name"])
        {
            let taken = self.take(section, name);
            self.beside(&taken, credential.name);
        }
    }

    fn user_and_project(&mut self, section: &str, keys: &Keys) {
        let default = DefaultDomain {
            id: self.take(section, "default_domain_id"),
            name: self.take(section, "default_domain_name"),
        };
        self.named(section, keys.user, &default);
        match keys.project {
            Some(project) => self.named(section, project, &default),
            None => {
                for (name, _) in [
                    PROJECT.id,
                    PROJECT.name,
                    PROJECT.domain_id,
                    PROJECT.domain_name,
                ] {
                    let taken = self.take(section, name);
                    self.ignore(
                        &taken,
                        "a trustee's token has no scope until it takes that of a trust",
                    );
                }
            }
        }
        let why = "the domains of user and project are set";
        for taken in [&default.id, &default.name] {
            if !self.report.has(&taken.subject()) && taken.text().is_some() {
                self.ignore(taken, why);
            }
        }
    }

    fn named(&mut self, section: &str, named: Named, default: &DefaultDomain) {
        let [id, name, domain_id, domain_name] =
            [named.id, named.name, named.domain_id, named.domain_name]
                .map(|(option, path)| (self.take(section, option), path));
        if let Some(text) = id.0.text().map(str::to_owned) {
            self.carry(&id.0, id.1, text);
            for (taken, _) in [&name, &domain_id, &domain_name] {
                self.beside(taken, id.0.name);
            }
            return;
        }
        if let Some(text) = name.0.text().map(str::to_owned) {
            self.carry(&name.0, name.1, text);
        }
        let ids = [&domain_id.0, &default.id];
        let names = [&domain_name.0, &default.name];
        let first = |each: [&Taken; 2]| each.into_iter().find(|it| it.text().is_some()).cloned();
        let (found, path) = match (first(ids), first(names)) {
            (Some(found), _) => (found, domain_id.1),
            (None, Some(found)) => (found, domain_name.1),
            (None, None) => return,
        };
        let text = found.text().unwrap_or_default().to_owned();
        self.carry(&found, path, text);
        if domain_name.0.name != found.name {
            self.beside(&domain_name.0, found.name);
        }
    }

    /// Says of an option that another one wins over it.
    fn beside(&mut self, taken: &Taken, winner: &str) {
        if taken.text().is_some() {
            self.ignore(taken, format!("it is not read beside {winner}"));
        }
    }
}
