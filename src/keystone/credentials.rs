//! Who the service is for Keystone, and the request that proves it.
//!
//! Source: `docs/compatibility/keystone.md` section 6.1.

use serde_json::{Value, json};

use crate::notifications::Password;

/// What the service proves to be somebody with. Never shows a secret.
#[derive(Debug, Clone)]
pub(super) enum Credentials {
    /// A user with a password, in a project; without one the token is unscoped.
    Password {
        user: UserRef,
        password: Password,
        project: Option<ProjectRef>,
    },
    /// An application credential, which has its user and its project.
    ApplicationCredential { id: String, secret: Password },
}

/// Names a user.
#[derive(Debug, Clone)]
pub(super) enum UserRef {
    Id(String),
    Name(String, DomainRef),
}

/// Names a project.
#[derive(Debug, Clone)]
pub(super) enum ProjectRef {
    Id(String),
    Name(String, DomainRef),
}

/// Names a domain.
#[derive(Debug, Clone)]
pub(super) enum DomainRef {
    Id(String),
    Name(String),
}

impl Credentials {
    /// Returns the body of `POST /v3/auth/tokens`. It has the secret in it: it must not be logged.
    pub(super) fn request(&self) -> Value {
        match self {
            Self::Password {
                user,
                password,
                project,
            } => {
                let mut user = user.document();
                user["password"] = password.0.as_str().into();
                let identity = json!({"methods": ["password"], "password": {"user": user}});
                match project {
                    Some(project) => {
                        let scope = json!({"project": project.document()});
                        json!({"auth": {"identity": identity, "scope": scope}})
                    }
                    None => json!({"auth": {"identity": identity}}),
                }
            }
            Self::ApplicationCredential { id, secret } => {
                let credential = json!({"id": id, "secret": secret.0});
                let methods = ["application_credential"];
                json!({"auth": {"identity": {"methods": methods, "application_credential": credential}}})
            }
        }
    }

    /// Names the user for a log line.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Password {
                user: UserRef::Id(name) | UserRef::Name(name, _),
                ..
            }
            | Self::ApplicationCredential { id: name, .. } => name,
        }
    }
}

impl UserRef {
    fn document(&self) -> Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name, domain) => json!({"name": name, "domain": domain.document()}),
        }
    }
}

impl ProjectRef {
    fn document(&self) -> Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name, domain) => json!({"name": name, "domain": domain.document()}),
        }
    }
}

impl DomainRef {
    fn document(&self) -> Value {
        match self {
            Self::Id(id) => json!({"id": id}),
            Self::Name(name) => json!({"name": name}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_specification() {
        let default = || DomainRef::Id("default".to_owned());
        let password = Credentials::Password {
            user: UserRef::Name("zaqar".to_owned(), default()),
            password: Password("pw".to_owned()),
            project: Some(ProjectRef::Name("service".to_owned(), default())),
        };
        let user = json!({"name": "zaqar", "domain": {"id": "default"}, "password": "pw"});
        let identity = json!({"methods": ["password"], "password": {"user": user}});
        let scope = json!({"project": {"name": "service", "domain": {"id": "default"}}});
        let expected = json!({"auth": {"identity": identity, "scope": scope}});
        assert_eq!(password.request(), expected);

        let by_ids = Credentials::Password {
            user: UserRef::Id("u".to_owned()),
            password: Password("pw".to_owned()),
            project: Some(ProjectRef::Id("p".to_owned())),
        };
        let request = by_ids.request();
        assert_eq!(request["auth"]["identity"]["password"]["user"]["id"], "u");
        assert_eq!(request["auth"]["scope"], json!({"project": {"id": "p"}}));

        let credential = Credentials::ApplicationCredential {
            id: "c".to_owned(),
            secret: Password("s".to_owned()),
        };
        let request = credential.request();
        let expected = json!({"auth": {"identity": {"methods": ["application_credential"],
            "application_credential": {"id": "c", "secret": "s"}}}});
        assert_eq!(request, expected);
        for credentials in [password, by_ids, credential] {
            let shown = format!("{credentials:?}");
            assert!(!shown.contains("pw") && !shown.contains("\"s\""), "{shown}");
        }
    }
}
