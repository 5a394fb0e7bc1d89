//! The expressions of oslo.policy: checks, `not`, `and`, `or`, parentheses, and the older form of lists.

use std::iter::{Peekable, repeat_n};
use std::vec;

use serde_json::Value;

use super::RuleId;
use crate::keystone::Caller;

/// The rule that says who is an administrator.
const ADMIN: &str = "context_is_admin";

/// What can be checked here.
const KINDS: &str = "a role, rule, project_id, user_id, domain_id, user_domain_id, project_domain_id, system_scope, \
                     is_admin or is_admin_project";

/// How deep an expression may be nested: it is read and checked by recursion.
const DEEPEST: usize = 100;

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Check {
    Allow,
    Deny,
    /// The role's name in lower case.
    Role(String),
    Rule(RuleId),
    Project(String),
    User(String),
    Token(TokenCheck),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Check {
    /// Compiles a rule as it is written: an expression, or a list of alternatives, each of them a check or a list of
    /// checks that must all hold. An error is a sentence about the rule.
    pub(super) fn compile(names: &[String], written: &Value) -> Result<Self, String> {
        match written {
            Value::String(text) if text.is_empty() => Ok(Self::Allow),
            Value::String(text) => Expression::new(names, text).compile(),
            Value::Array(alternatives) if alternatives.is_empty() => Ok(Self::Allow),
            Value::Array(alternatives) => {
                let written = alternatives.iter().filter(|one| !is_empty(one));
                let compiled: Result<_, _> =
                    written.map(|one| compile_listed(names, one)).collect();
                compiled.map(Self::Any)
            }
            _ => Err(
                "it is neither an expression nor a list; \"\" is what allows everyone".to_owned(),
            ),
        }
    }

    /// Collects the rules that it refers to.
    pub(super) fn rules(&self, into: &mut Vec<RuleId>) {
        match self {
            Self::Rule(rule) => into.push(*rule),
            Self::Not(inner) => inner.rules(into),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.rules(into)),
            _ => {}
        }
    }
}

/// Empty alternatives are left out, so that a list of nothing else allows nobody, as in oslo.policy.
fn is_empty(alternative: &Value) -> bool {
    alternative.as_str() == Some("") || alternative.as_array().is_some_and(Vec::is_empty)
}

fn compile_listed(names: &[String], alternative: &Value) -> Result<Check, String> {
    match alternative {
        Value::String(check) => compile_check(names, check),
        Value::Array(checks) if checks.iter().all(Value::is_string) => {
            let written = checks.iter().filter_map(Value::as_str);
            let compiled: Result<_, _> = written.map(|one| compile_check(names, one)).collect();
            compiled.map(Check::All)
        }
        _ => {
            Err("its list holds something that is neither a check nor a list of checks".to_owned())
        }
    }
}

/// A check of what a token alone says.
#[derive(Debug)]
pub(super) enum TokenCheck {
    /// The target is the project of the token, so `project_id:%(project_id)s` holds for every token that has one.
    OwnProject,
    AdminProject(bool),
    SystemScope,
    Domain(String),
    UserDomain(String),
    ProjectDomain(String),
}

impl TokenCheck {
    pub(super) fn holds(&self, caller: &Caller) -> bool {
        match self {
            Self::OwnProject => caller.project().is_some(),
            Self::AdminProject(wanted) => caller.is_admin_project() == *wanted,
            Self::SystemScope => caller.is_system_scoped(),
            Self::Domain(id) => caller.domain_id() == Some(id),
            Self::UserDomain(id) => *caller.identity().user.domain.id == **id,
            Self::ProjectDomain(id) => caller
                .project()
                .is_some_and(|project| *project.domain.id == **id),
        }
    }

    /// What it comes to where headers say who asks: the target is empty, nobody has a domain or a scope, and every project is
    /// the admin project, as in the reference.
    pub(super) fn holds_without_token(&self) -> bool {
        matches!(self, Self::AdminProject(true))
    }
}

/// Compiles a check such as `role:admin`. One that compares with a part of the target that no request has, such as
/// `user_id:%(user_id)s`, never holds.
fn compile_check(names: &[String], text: &str) -> Result<Check, String> {
    match text {
        "@" => return Ok(Check::Allow),
        "!" => return Ok(Check::Deny),
        _ => {}
    }
    let (kind, wanted) = match text.split_once(':') {
        Some((kind, wanted)) if !wanted.is_empty() => (kind, wanted),
        _ => {
            return Err(format!(
                "`{text}` is no check, which would be like `role:admin`"
            ));
        }
    };
    let rule = |name| RuleId::find(names, name).map(Check::Rule);
    match (kind, wanted) {
        ("rule", name) => {
            rule(name).ok_or_else(|| format!("it refers to \"{name}\", which does not exist"))
        }
        ("is_admin", "True") => Ok(rule(ADMIN).unwrap_or(Check::Deny)),
        ("is_admin", "False") => Ok(Check::Not(rule(ADMIN).unwrap_or(Check::Deny).into())),
        ("project_id" | "tenant", "%(project_id)s" | "%(tenant)s") => {
            Ok(Check::Token(TokenCheck::OwnProject))
        }
        (
            "role" | "project_id" | "tenant" | "user_id" | "user" | "domain_id" | "user_domain_id"
            | "project_domain_id",
            _,
        ) if wanted.contains("%(") => Ok(Check::Deny),
        ("is_admin_project", "True") => Ok(Check::Token(TokenCheck::AdminProject(true))),
        ("is_admin_project", "False") => Ok(Check::Token(TokenCheck::AdminProject(false))),
        ("system_scope", "all") => Ok(Check::Token(TokenCheck::SystemScope)),
        ("domain_id", id) => Ok(Check::Token(TokenCheck::Domain(id.to_owned()))),
        ("user_domain_id", id) => Ok(Check::Token(TokenCheck::UserDomain(id.to_owned()))),
        ("project_domain_id", id) => Ok(Check::Token(TokenCheck::ProjectDomain(id.to_owned()))),
        ("role", role) => Ok(Check::Role(role.to_lowercase())),
        ("project_id" | "tenant", project) => Ok(Check::Project(project.to_owned())),
        ("user_id" | "user", user) => Ok(Check::User(user.to_owned())),
        _ => Err(format!("`{text}` is no check of {KINDS}")),
    }
}

/// An expression that is being compiled. `not` binds closest, then `and`, then `or`.
struct Expression<'a> {
    names: &'a [String],
    tokens: Peekable<vec::IntoIter<&'a str>>,
    /// How deep it may still be nested.
    depth: usize,
}

impl<'a> Expression<'a> {
    /// Splits at spaces. Parentheses count at the ends of a word only; inside they belong to a check.
    fn new(names: &'a [String], text: &'a str) -> Self {
        let mut tokens = Vec::new();
        for word in text.split_whitespace() {
            let after = word.trim_start_matches('(');
            let check = after.trim_end_matches(')');
            tokens.extend(repeat_n("(", word.len() - after.len()));
            tokens.extend(Some(check).filter(|check| !check.is_empty()));
            tokens.extend(repeat_n(")", after.len() - check.len()));
        }
        Self {
            names,
            tokens: tokens.into_iter().peekable(),
            depth: DEEPEST,
        }
    }

    fn compile(mut self) -> Result<Check, String> {
        let check = self.any()?;
        match self.tokens.next() {
            None => Ok(check),
            Some(token) => Err(format!("`{token}` follows where only `and` or `or` could")),
        }
    }

    fn any(&mut self) -> Result<Check, String> {
        self.joined("or", Self::all, Check::Any)
    }

    fn all(&mut self) -> Result<Check, String> {
        self.joined("and", Self::one, Check::All)
    }

    fn joined(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Check, String>,
        join: fn(Vec<Check>) -> Check,
    ) -> Result<Check, String> {
        let first = part(self)?;
        if !self.skip(word) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.skip(word) {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn one(&mut self) -> Result<Check, String> {
        let deeper = self.depth.checked_sub(1);
        self.depth = deeper.ok_or_else(|| format!("it is nested deeper than {DEEPEST}"))?;
        let one = self.one_deeper();
        self.depth += 1;
        one
    }

    fn one_deeper(&mut self) -> Result<Check, String> {
        if self.skip("not") {
            return Ok(Check::Not(self.one()?.into()));
        }
        if self.skip("(") {
            let inner = self.any()?;
            if !self.skip(")") {
                return Err("a parenthesis is not closed".to_owned());
            }
            return Ok(inner);
        }
        match self.tokens.next() {
            None => Err("it ends where a check is missing".to_owned()),
            Some(token) => compile_check(self.names, token),
        }
    }

    fn skip(&mut self, word: &str) -> bool {
        self.tokens
            .next_if(|token| token.eq_ignore_ascii_case(word))
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Credentials, Policy};

    /// Whether an expression, written as YAML, lets them.
    fn holds(expression: &str, who: &Credentials<'_>) -> bool {
        let policy = Policy::parse(&format!("x: {expression}")).expect(expression);
        policy.allows(policy.rule("x").expect("just written"), who)
    }

    #[test]
    fn checks_compare_what_they_say() {
        let who = Credentials::of_headers("Member,Größe", "p1", "u1");
        for yes in [
            "''",
            "'@'",
            "role:member",
            "role:GRÖSSE or role:GRÖßE",
            "project_id:p1",
            "tenant:p1",
            "user_id:u1",
            "is_admin:False",
            "not role:admin",
            "[]",
            "[role:member]",
            "not (!)",
            "[[role:member, project_id:p1]]",
            "[[role:admin], [], role:member]",
            "rule:ping:get",
            "role:admin or not role:admin AND project_id:p1",
            "not user_id:%(user_id)s",
            "(role:a or role:member) and (role:b or (role:member))",
            "not not @ or !",
            "is_admin_project:True",
        ] {
            assert!(holds(yes, &who), "{yes}");
        }
        for no in [
            "'!'",
            "role:mem",
            "role:admin",
            "project_id:P1",
            "project_id:%(project_id)s",
            "is_admin_project:False",
            "system_scope:all",
            "domain_id:default",
            "user_domain_id:default",
            "project_domain_id:default",
            "[[]]",
            "is_admin:True",
            "[[role:member, role:admin]]",
            "role:%(role)s",
            "rule:pools:get",
            "role:member and (role:admin or !)",
            "not role:member or role:admin",
        ] {
            assert!(!holds(no, &who), "{no}");
        }
        let admin = Credentials::of_headers("admin", "p1", "u1");
        assert!(holds("is_admin:True", &admin));
        assert!(!holds("is_admin:False", &admin));
    }
}
