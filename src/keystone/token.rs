//! Reads the token document that Keystone answers a validation with.
//!
//! Source: `docs/compatibility/keystone.md` sections 5 and 6.2.

use serde::Deserialize;

use super::access_rules::{AccessRule, AccessRules};
use super::identity::{
    ApplicationCredential, Domain, Identity, Project, Scope, Trust, User, lower,
};
use crate::dates;

/// Why a token document proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is not the document of a token, so Keystone has not decided anything.
    NotAToken(&'static str),
    /// The token is bound to something that cannot be checked here: it must be refused.
    Bound,
    /// The document is so large that a few of the kind would push everybody else's out of the cache.
    TooLarge,
}

/// What is kept of one token at most, in bytes: the roles and access rules of a few hundred are some 40 KiB.
const MAX_IDENTITY_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
struct Envelope {
    token: Document,
}

#[derive(Deserialize)]
struct Document {
    user: Option<UserDocument>,
    project: Option<ProjectDocument>,
    domain: Option<DomainDocument>,
    system: Option<SystemDocument>,
    #[serde(default)]
    roles: Vec<RoleDocument>,
    is_admin_project: Option<bool>,
    application_credential: Option<CredentialDocument>,
    #[serde(rename = "OS-TRUST:trust")]
    trust: Option<TrustDocument>,
    #[serde(default)]
    audit_ids: Vec<Box<str>>,
    expires_at: Option<Box<str>>,
    #[serde(default)]
    bind: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct DomainDocument {
    #[serde(default)]
    id: Option<Box<str>>,
    #[serde(default)]
    name: Option<Box<str>>,
}

#[derive(Deserialize)]
struct UserDocument {
    id: Box<str>,
    name: Option<Box<str>>,
    domain: Option<DomainDocument>,
}

#[derive(Deserialize)]
struct ProjectDocument {
    id: Box<str>,
    name: Option<Box<str>>,
    domain: Option<DomainDocument>,
}

#[derive(Deserialize)]
struct SystemDocument {
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
struct RoleDocument {
    name: Box<str>,
}

#[derive(Deserialize)]
struct CredentialDocument {
    id: Box<str>,
    access_rules: Option<Vec<RuleDocument>>,
}

#[derive(Deserialize)]
struct RuleDocument {
    service: String,
    method: String,
    path: String,
}

#[derive(Deserialize)]
struct TrustDocument {
    id: Box<str>,
    #[serde(default)]
    impersonation: bool,
    trustor_user: Reference,
    trustee_user: Reference,
}

#[derive(Deserialize)]
struct Reference {
    id: Box<str>,
}

/// Reads the body of a 200 answer. Never repeats the body in an error.
pub(super) fn parse(body: &[u8]) -> Result<Identity, Unusable> {
    let Envelope { token } = serde_json::from_slice(body)
        .map_err(|_| Unusable::NotAToken("its answer is not the JSON document of a token"))?;
    if !token.bind.is_empty() {
        return Err(Unusable::Bound);
    }
    let expires_at = token.expires_at.as_deref().and_then(dates::parse);
    let expires_at = expires_at.ok_or(Unusable::NotAToken("its token has no expires_at"))?;
    let user = token
        .user
        .ok_or(Unusable::NotAToken("its token has no user"))?;
    let scope = scope(token.project, token.domain, token.system);
    let identity = Identity {
        user: User {
            id: user.id,
            name: user.name.unwrap_or_default(),
            domain: user.domain.map(Domain::from).unwrap_or_default(),
        },
        scope,
        roles: token.roles.iter().map(|role| lower(&role.name)).collect(),
        is_admin_project: token.is_admin_project.unwrap_or(true),
        application_credential: token.application_credential.map(Into::into),
        trust: token.trust.map(Into::into),
        expires_at,
        audit_id: token.audit_ids.into_iter().next(),
    };
    match identity.size() <= MAX_IDENTITY_BYTES {
        true => Ok(identity),
        false => Err(Unusable::TooLarge),
    }
}

fn scope(
    project: Option<ProjectDocument>,
    domain: Option<DomainDocument>,
    system: Option<SystemDocument>,
) -> Scope {
    match (project, domain, system) {
        (Some(project), ..) => Scope::Project(Project {
            id: project.id,
            name: project.name.unwrap_or_default(),
            domain: project.domain.map(Domain::from).unwrap_or_default(),
        }),
        (None, Some(domain), _) => Scope::Domain(domain.into()),
        (None, None, Some(SystemDocument { all: true })) => Scope::System,
        _ => Scope::Unscoped,
    }
}

impl From<DomainDocument> for Domain {
    fn from(document: DomainDocument) -> Self {
        Self {
            id: document.id.unwrap_or_default(),
            name: document.name.unwrap_or_default(),
        }
    }
}

impl From<CredentialDocument> for ApplicationCredential {
    fn from(document: CredentialDocument) -> Self {
        let rules = document.access_rules.unwrap_or_default();
        let compile = |rule: RuleDocument| AccessRule::new(rule.service, rule.method, &rule.path);
        Self {
            id: document.id,
            access_rules: AccessRules::new(rules.into_iter().map(compile).collect()),
        }
    }
}

impl From<TrustDocument> for Trust {
    fn from(document: TrustDocument) -> Self {
        Self {
            id: document.id,
            impersonation: document.impersonation,
            trustor_user_id: document.trustor_user.id,
            trustee_user_id: document.trustee_user.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::keystone::access_rules::RequestTarget;

    fn document(more: Value) -> Value {
        let mut token = json!({
            "methods": ["password"],
            "user": {"id": "u", "name": "alice", "domain": {"id": "default", "name": "Default"},
                     "password_expires_at": null},
            "audit_ids": ["65PPSsQoSVKUUdVFYF8s4Q", "parent"],
            "issued_at": "2026-11-28T11:42:57.000000Z",
            "expires_at": "2026-11-28T12:42:57.000000Z",
        });
        let members = token.as_object_mut().unwrap();
        for (key, value) in more.as_object().unwrap() {
            match value.is_null() && key != "application_credential" {
                true => drop(members.remove(key)),
                false => drop(members.insert(key.clone(), value.clone())),
            }
        }
        json!({ "token": token })
    }

    fn read(more: Value) -> Result<Identity, Unusable> {
        parse(document(more).to_string().as_bytes())
    }

    fn project() -> Value {
        json!({"id": "p", "name": "shop", "domain": {"id": "default", "name": "Default"}})
    }

    #[test]
    fn a_project_scoped_token_becomes_an_identity() {
        let roles = json!([{"id": "1", "name": "Reader"}, {"id": "2", "name": "member"}]);
        let identity = read(json!({"project": project(), "is_domain": false, "roles": roles}));
        let identity = identity.expect("a token");
        let default = Domain {
            id: "default".into(),
            name: "Default".into(),
        };
        assert_eq!(&*identity.user.id, "u");
        assert_eq!(&*identity.user.name, "alice");
        assert_eq!(identity.user.domain, default);
        let project = identity.project().expect("it has a project");
        assert_eq!((&*project.id, &*project.name), ("p", "shop"));
        assert_eq!(project.domain, default);
        assert!(identity.has_role("reader") && identity.has_role("MEMBER"));
        assert!(
            identity.is_admin_project,
            "true when the token does not say"
        );
        assert_eq!(dates::iso8601(identity.expires_at), "2026-11-28T12:42:57Z");
        assert_eq!(identity.audit_id.as_deref(), Some("65PPSsQoSVKUUdVFYF8s4Q"));
        assert_eq!(
            (identity.application_credential, identity.trust),
            (None, None)
        );
    }

    #[test]
    fn every_scope_is_read() {
        let domain = json!({"id": "d", "name": "D"});
        let scope = |more| read(more).expect("a token").scope;
        assert!(
            matches!(scope(json!({"domain": domain})), Scope::Domain(domain) if &*domain.id == "d")
        );
        assert_eq!(scope(json!({"system": {"all": true}})), Scope::System);
        assert_eq!(scope(json!({"system": {"all": false}})), Scope::Unscoped);
        assert_eq!(scope(json!({})), Scope::Unscoped);
    }

    #[test]
    fn is_admin_project_is_what_the_token_says() {
        let identity = read(json!({"project": project(), "is_admin_project": false}));
        assert!(!identity.expect("a token").is_admin_project);
    }

    #[test]
    fn a_trust_is_read() {
        let trust = json!({"id": "t", "impersonation": true, "trustor_user": {"id": "a"}, "trustee_user": {"id": "z"}});
        let identity = read(json!({"project": project(), "OS-TRUST:trust": trust}));
        let trust = identity.expect("a token").trust.expect("it has a trust");
        assert!(trust.impersonation);
        assert_eq!(
            (&*trust.id, &*trust.trustor_user_id, &*trust.trustee_user_id),
            ("t", "a", "z")
        );
    }

    #[test]
    fn an_application_credential_is_limited_by_rules_and_not_by_an_empty_list() {
        let credential = |rules: Value| {
            let credential =
                json!({"id": "c", "name": "n", "restricted": true, "access_rules": rules});
            let identity =
                read(json!({"project": project(), "application_credential": credential}));
            identity
                .expect("a token")
                .application_credential
                .expect("it has a credential")
        };
        assert_eq!(&*credential(json!(null)).id, "c");
        assert_eq!(credential(json!(null)).access_rules, None);
        assert_eq!(credential(json!([])).access_rules, None);
        let rule =
            json!({"id": "r", "service": "messaging", "method": "GET", "path": "/v2/queues"});
        let rules = credential(json!([rule])).access_rules.expect("rules");
        let target = |method| RequestTarget {
            method,
            path: b"/v2/queues",
            base_path: "",
        };
        assert!(rules.allow("messaging", target("GET")));
        assert!(!rules.allow("messaging", target("PUT")));
    }

    #[test]
    fn a_document_that_would_fill_the_cache_is_refused() {
        let token = |rules: usize| {
            let path = format!("/v2/queues/{}", "*a".repeat(50));
            let rule = json!({"id": "r", "service": "messaging", "method": "GET", "path": path});
            let credential = json!({"id": "c", "name": "n", "access_rules": vec![rule; rules]});
            read(json!({"project": project(), "application_credential": credential}))
        };
        assert!(token(10).is_ok());
        assert_eq!(token(650), Err(Unusable::TooLarge));
    }

    #[test]
    fn a_document_that_decides_nothing_is_unusable() {
        for body in [
            "",
            "garbage",
            "[]",
            "{}",
            r#"{"token": null}"#,
            r#"{"token": []}"#,
            r#"{"token": {"expires_at": 7}}"#,
        ] {
            let unusable = parse(body.as_bytes()).expect_err(body);
            assert!(matches!(unusable, Unusable::NotAToken(_)), "{body}");
        }
        for more in [
            json!({"expires_at": null}),
            json!({"expires_at": "tomorrow"}),
            json!({"user": null}),
        ] {
            let unusable = read(more.clone()).expect_err("it is no token");
            assert!(matches!(unusable, Unusable::NotAToken(_)), "{more}");
        }
    }

    #[test]
    fn a_bound_token_is_refused_and_an_empty_bind_is_none() {
        assert_eq!(
            read(json!({"bind": {"kerberos": "alice@REALM"}})),
            Err(Unusable::Bound)
        );
        assert!(read(json!({"bind": {}})).is_ok());
    }
}
