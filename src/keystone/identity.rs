//! The identity that a valid token proves: one typed value, from which every later check reads.
//!
//! With Keystone on, nothing else says who asks: headers such as `X-Roles` and `X-Project-Id` are not read, whatever their
//! spelling, so there is nothing to remove from a request.
//!
//! Source: `docs/compatibility/keystone.md` section 5.

use std::sync::Arc;

use isimud_contract::Timestamp;

use super::access_rules::AccessRules;

/// The role that administrators have: what an identity from a stale cache entry never has (section 9.4).
const ADMIN_ROLE: &str = "admin";

/// What Keystone said of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user that the token acts as. For a trust with impersonation that is the trustor, else the trustee.
    pub user: User,
    /// What the token is scoped to.
    pub scope: Scope,
    /// The names of the roles in lower case, implied ones included, in no fixed order.
    pub(super) roles: Vec<Box<str>>,
    /// Whether the token's project is the admin project. True when the token does not say, so it proves nothing alone.
    pub is_admin_project: bool,
    /// The application credential that the token was made with.
    pub application_credential: Option<ApplicationCredential>,
    /// The trust that the token was made with.
    pub trust: Option<Trust>,
    /// The moment from which on the token is worth nothing, by the clocks of all machines.
    pub expires_at: Timestamp,
    /// The id that appears in Keystone's audit log in place of the token.
    pub audit_id: Option<Box<str>>,
}

/// A user of Keystone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// The user's id.
    pub id: Box<str>,
    /// The user's name, unique in its domain.
    pub name: Box<str>,
    /// The user's domain.
    pub domain: Domain,
}

/// A domain of Keystone. Members that the token does not give are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domain {
    /// The domain's id.
    pub id: Box<str>,
    /// The domain's name.
    pub name: Box<str>,
}

/// A project of Keystone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// The project's id: the project that the API works in.
    pub id: Box<str>,
    /// The project's name, unique in its domain.
    pub name: Box<str>,
    /// The project's domain.
    pub domain: Domain,
}

/// What a token is scoped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One project: the only scope with which the API can be used.
    Project(Project),
    /// One domain.
    Domain(Domain),
    /// The whole system.
    System,
    /// Nothing; such a token has no roles.
    Unscoped,
}

/// The application credential that a token was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationCredential {
    /// The credential's id.
    pub id: Box<str>,
    /// The requests that it is limited to; `None` where it is not limited.
    pub access_rules: Option<AccessRules>,
}

/// The trust that a token was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The trust's id.
    pub id: Box<str>,
    /// Whether the trustee acts under the trustor's name.
    pub impersonation: bool,
    /// The id of the user who gave the trust.
    pub trustor_user_id: Box<str>,
    /// The id of the user who may act by it.
    pub trustee_user_id: Box<str>,
}

impl Identity {
    /// Returns the project that the token is scoped to.
    pub fn project(&self) -> Option<&Project> {
        match &self.scope {
            Scope::Project(project) => Some(project),
            _ => None,
        }
    }

    /// Reports whether the token has expired at this moment of the machine's clock. There is no leeway for clocks that
    /// differ, as in the reference (section 6.2).
    pub fn is_expired(&self, wall: Timestamp) -> bool {
        self.expires_at <= wall
    }

    /// Reports whether the token has a role; names are compared without case (section 3).
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|has| is_same_role(has, role))
    }

    /// Returns how many bytes the identity keeps, approximately.
    pub(super) fn size(&self) -> usize {
        let domain = |domain: &Domain| domain.id.len() + domain.name.len();
        let scope = match &self.scope {
            Scope::Project(project) => {
                project.id.len() + project.name.len() + domain(&project.domain)
            }
            Scope::Domain(one) => domain(one),
            Scope::System | Scope::Unscoped => 0,
        };
        let credential = self.application_credential.as_ref().map_or(0, |one| {
            one.id.len() + one.access_rules.as_ref().map_or(0, AccessRules::size)
        });
        let trust = self.trust.as_ref().map_or(0, |trust| {
            trust.id.len() + trust.trustor_user_id.len() + trust.trustee_user_id.len()
        });
        let roles = self.roles.iter().map(|role| role.len() + size_of_val(role));
        size_of::<Self>()
            + self.user.id.len()
            + self.user.name.len()
            + domain(&self.user.domain)
            + scope
            + roles.sum::<usize>()
            + credential
            + trust
            + self.audit_id.as_ref().map_or(0, |id| id.len())
    }
}

/// Puts a role's name into the form that names are compared in.
pub(super) fn lower(role: &str) -> Box<str> {
    role.chars().flat_map(char::to_lowercase).collect()
}

fn is_same_role(lowered: &str, role: &str) -> bool {
    lowered
        .chars()
        .eq(role.chars().flat_map(char::to_lowercase))
}

/// Who asks: what policies, the API and the log read about a request with a valid token.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The identity of the user's token.
    pub(super) identity: Arc<Identity>,
    /// The identity of the service token, where the request has a valid one with a service role.
    pub(super) service: Option<Arc<Identity>>,
    /// Whether Keystone could not be asked and one of the tokens comes from a stale cache entry.
    pub(super) is_stale: bool,
}

impl Caller {
    /// Returns the identity of the user's token. For roles ask the caller, who knows whether the identity is stale.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the identity of the service that passes the user's token on.
    pub fn service(&self) -> Option<&Identity> {
        self.service.as_deref()
    }

    /// Reports whether Keystone could not be asked and the identity is one within `keystone.stale_grace_secs`.
    pub fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Returns the names of the user's roles, in lower case. A stale identity has no role `admin` (section 9.4).
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let roles = self.identity.roles.iter().map(AsRef::as_ref);
        roles.filter(|role| !self.is_stale || *role != ADMIN_ROLE)
    }

    /// Reports whether the user has a role; names are compared without case. A stale identity has no role `admin`.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|has| is_same_role(has, role))
    }

    /// Returns the id of the user, for policies (`user_id:…`).
    pub fn user_id(&self) -> &str {
        &self.identity.user.id
    }

    /// Returns the project that the request works in, whatever its headers say; `None` for a token of another scope.
    pub fn project(&self) -> Option<&Project> {
        self.identity.project()
    }

    /// Returns the id of the domain that the token is scoped to, for policies (`domain_id:…`).
    pub fn domain_id(&self) -> Option<&str> {
        match &self.identity.scope {
            Scope::Domain(domain) => Some(&domain.id),
            _ => None,
        }
    }

    /// Reports whether the token is scoped to the whole system, for policies (`system_scope:all`).
    pub fn is_system_scoped(&self) -> bool {
        self.identity.scope == Scope::System
    }

    /// Reports whether the token's project is the admin project, for policies (`is_admin_project:True`). True when the
    /// token does not say.
    pub fn is_admin_project(&self) -> bool {
        self.identity.is_admin_project
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An identity of project `shop` that expires at a moment.
    pub(in super::super) fn identity(roles: &[&str], expires_at: Timestamp) -> Identity {
        Identity {
            user: User {
                id: "632d".into(),
                name: "alice".into(),
                domain: Domain::default(),
            },
            scope: Scope::Project(Project {
                id: "858a".into(),
                name: "shop".into(),
                domain: Domain::default(),
            }),
            roles: roles.iter().map(|role| lower(role)).collect(),
            is_admin_project: true,
            application_credential: None,
            trust: None,
            expires_at,
            audit_id: None,
        }
    }

    #[test]
    fn roles_are_compared_without_case() {
        let identity = identity(&["Member", "GRÖSSE"], Timestamp(0));
        for role in ["member", "MEMBER", "grösse", "Grösse"] {
            assert!(identity.has_role(role), "{role}");
        }
        assert!(!identity.has_role("mem") && !identity.has_role(""));
    }

    #[test]
    fn a_stale_identity_has_every_role_but_admin() {
        let identity = Arc::new(identity(&["ADMIN", "member"], Timestamp(0)));
        let caller = |is_stale| Caller {
            identity: Arc::clone(&identity),
            service: None,
            is_stale,
        };
        assert!(caller(false).has_role("admin") && caller(false).has_role("member"));
        assert!(!caller(true).has_role("Admin") && caller(true).has_role("Member"));
        assert_eq!(caller(true).roles().collect::<Vec<_>>(), ["member"]);
    }

    #[test]
    fn a_token_expires_at_the_moment_that_it_says() {
        let identity = identity(&[], Timestamp(1_000));
        assert!(!identity.is_expired(Timestamp(999)));
        assert!(identity.is_expired(Timestamp(1_000)));
    }
}
