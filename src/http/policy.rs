//! Who may do what: the part of oslo.policy that operators use (spec: policies.md).
//!
//! A rule is compiled once into a small tree. A check at request time walks that tree, splits the roles only when it
//! meets a role, and allocates nothing. What oslo.policy answers with a log line and "no" at request time (an unknown
//! kind of check, a rule that does not exist, an expression that makes no sense) is an error here when the file is
//! read: an operator learns of it before a client does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use expression::Check;

use crate::keystone::Caller;

mod expression;

/// The rules that hold without a file, by name.
const DEFAULTS: &[(&str, &str)] = &[
    ("context_is_admin", "role:admin"),
    (
        "admin_or_owner",
        "is_admin:True or project_id:%(project_id)s",
    ),
    ("queues:get_all", ""),
    ("queues:create", ""),
    ("queues:get", ""),
    ("queues:delete", ""),
    ("queues:update", ""),
    ("queues:stats", ""),
    ("queues:share", ""),
    ("queues:purge", ""),
    ("messages:get_all", ""),
    ("messages:create", ""),
    ("messages:get", ""),
    ("messages:delete", ""),
    ("messages:delete_all", ""),
    ("claims:create", ""),
    ("claims:get", ""),
    ("claims:delete", ""),
    ("claims:update", ""),
    ("subscription:get_all", ""),
    ("subscription:create", ""),
    ("subscription:get", ""),
    ("subscription:delete", ""),
    ("subscription:update", ""),
    ("subscription:confirm", ""),
    ("subscription:confirm_unsigned", "role:admin"),
    ("pools:get_all", "role:admin"),
    ("pools:create", "role:admin"),
    ("pools:get", "role:admin"),
    ("pools:delete", "role:admin"),
    ("pools:update", "role:admin"),
    ("flavors:get_all", ""),
    ("flavors:create", "role:admin"),
    ("flavors:get", ""),
    ("flavors:delete", "role:admin"),
    ("flavors:update", "role:admin"),
    ("ping:get", ""),
    ("health:get", "role:admin"),
    ("topics:get_all", ""),
    ("topics:create", ""),
    ("topics:get", ""),
    ("topics:delete", ""),
    ("topics:update", ""),
    ("topics:stats", ""),
    ("topics:purge", ""),
];

/// The largest file of policies.
const LARGEST_FILE: u64 = 1 << 20;

/// How many rules may refer to each other in a row: a check walks along them.
const LONGEST_CHAIN: usize = 50;

/// The rules of this service, compiled.
#[derive(Debug)]
pub struct Policy {
    /// A rule's place is its id. Those of [`DEFAULTS`] come first, in that order, so that they have the same ids in every
    /// policy.
    names: Vec<String>,
    checks: Vec<Check>,
}

/// A rule, found once when routes are built. Those that are there without a file are the same in every policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleId(usize);

impl RuleId {
    fn find(names: &[String], name: &str) -> Option<Self> {
        names.iter().position(|other| other == name).map(Self)
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials<'a> {
    source: Source<'a>,
    /// The project that the request acts in.
    project: &'a str,
    /// The user, empty when there is none.
    user: &'a str,
}

/// Who says so.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// Headers: names of roles with commas between them, as `X-Roles` has them. Spaces around a name do not count.
    Headers(&'a str),
    /// Keystone.
    Token(&'a Caller),
}

impl<'a> Credentials<'a> {
    /// Those that headers name.
    pub(crate) fn of_headers(roles: &'a str, project: &'a str, user: &'a str) -> Self {
        Self {
            source: Source::Headers(roles),
            project,
            user,
        }
    }

    /// Those of a token's owner, who acts in a project.
    pub(crate) fn of_token(caller: &'a Caller, project: &'a str) -> Self {
        Self {
            source: Source::Token(caller),
            project,
            user: caller.user_id(),
        }
    }
}

/// A policy file cannot be used; the sentence says which rule is wrong, and why.
#[derive(Debug)]
pub struct PolicyError(String);

impl PolicyError {
    fn rule(name: &str, reason: impl fmt::Display) -> Self {
        Self(format!("policy rule \"{name}\": {reason}"))
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PolicyError {}

impl Default for Policy {
    fn default() -> Self {
        Self::compile(BTreeMap::new()).expect("the rules compiled in are sound")
    }
}

/// The names of the rules of operations, such as `queues:create`.
pub fn operations() -> Vec<&'static str> {
    let names = DEFAULTS.iter().map(|(name, _)| *name);
    names.filter(|name| name.contains(':')).collect()
}

/// Whether a text could be a file of policies; says which rule could not be, and why.
pub fn check(text: &str) -> Result<(), PolicyError> {
    Policy::parse(text).map(drop)
}

impl Policy {
    /// Reads an operator's file and lays it over the default rules. Names without a colon are rules for other rules to
    /// refer to; a name with one must be that of an operation.
    pub(crate) fn load(path: &Path) -> Result<Self, PolicyError> {
        let unusable = |reason: &dyn fmt::Display| {
            PolicyError(format!("policy file {}: {reason}", path.display()))
        };
        let size = std::fs::metadata(path).map_err(|error| unusable(&error))?;
        if size.len() > LARGEST_FILE {
            return Err(unusable(&format!("it has more than {LARGEST_FILE} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
        Self::parse(&text).map_err(|error| unusable(&error))
    }

    /// Lays the rules of a YAML text over the default rules. JSON is YAML, and a text without any rule is fine.
    fn parse(text: &str) -> Result<Self, PolicyError> {
        let options = serde_saphyr::options! { with_snippet: false };
        let written: Option<BTreeMap<String, Value>> =
            serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| PolicyError(error.to_string()))?;
        Self::compile(written.unwrap_or_default())
    }

    /// Compiles rules, laid over the default ones.
    fn compile(mut written: BTreeMap<String, Value>) -> Result<Self, PolicyError> {
        let default = |(name, expression): &(&str, &str)| {
            let value = written.remove(*name);
            ((*name).to_owned(), value.unwrap_or((*expression).into()))
        };
        let mut rules: Vec<(String, Value)> = DEFAULTS.iter().map(default).collect();
        if let Some(name) = written.keys().find(|name| name.contains(':')) {
            return Err(PolicyError::rule(name, no_operation(name)));
        }
        rules.extend(written);
        let names: Vec<String> = rules.iter().map(|(name, _)| name.clone()).collect();
        let checks = rules
            .iter()
            .map(|(name, value)| {
                Check::compile(&names, value).map_err(|reason| PolicyError::rule(name, reason))
            })
            .collect::<Result<_, _>>()?;
        let policy = Self { names, checks };
        policy.refuse_cycles()?;
        Ok(policy)
    }

    /// Finds a rule by name.
    pub(crate) fn rule(&self, name: &str) -> Option<RuleId> {
        RuleId::find(&self.names, name)
    }

    /// Whether a rule of this policy lets them.
    pub(crate) fn allows(&self, rule: RuleId, who: &Credentials<'_>) -> bool {
        self.checks
            .get(rule.0)
            .is_some_and(|check| self.holds(check, who))
    }

    fn holds(&self, check: &Check, who: &Credentials<'_>) -> bool {
        match check {
            Check::Allow => true,
            Check::Deny => false,
            Check::Role(role) => who.has_role(role),
            Check::Rule(rule) => self.allows(*rule, who),
            Check::Project(project) => who.project == project,
            Check::User(user) => who.user == user,
            Check::Token(check) => match who.source {
                Source::Headers(_) => check.holds_without_token(),
                Source::Token(caller) => check.holds(caller),
            },
            Check::Not(inner) => !self.holds(inner, who),
            Check::All(parts) => parts.iter().all(|part| self.holds(part, who)),
            Check::Any(parts) => parts.iter().any(|part| self.holds(part, who)),
        }
    }

    fn refuse_cycles(&self) -> Result<(), PolicyError> {
        let mut sound = vec![false; self.checks.len()];
        (0..self.checks.len()).try_for_each(|rule| self.follow(rule, &mut Vec::new(), &mut sound))
    }

    /// Follows a rule to the end of everything it refers to. `path` are the rules that led to it.
    fn follow(
        &self,
        rule: usize,
        path: &mut Vec<usize>,
        sound: &mut [bool],
    ) -> Result<(), PolicyError> {
        if path.contains(&rule) {
            let reason = match path.last() {
                Some(last) if *last != rule => {
                    format!("it refers to itself by way of \"{}\"", self.names[*last])
                }
                _ => "it refers to itself".to_owned(),
            };
            return Err(PolicyError::rule(&self.names[rule], reason));
        }
        if path.len() > LONGEST_CHAIN {
            let reason = format!("more than {LONGEST_CHAIN} rules refer to each other in a row");
            return Err(PolicyError::rule(&self.names[rule], reason));
        }
        if !sound[rule] {
            path.push(rule);
            let mut referred = Vec::new();
            self.checks[rule].rules(&mut referred);
            for next in referred {
                self.follow(next.0, path, sound)?;
            }
            path.pop();
            sound[rule] = true;
        }
        Ok(())
    }
}

impl Credentials<'_> {
    /// Whether they have a role, given in lower case.
    fn has_role(&self, wanted: &str) -> bool {
        match self.source {
            Source::Headers(roles) => roles.split(',').any(|role| {
                let lower = role.trim().chars().flat_map(char::to_lowercase);
                lower.eq(wanted.chars())
            }),
            Source::Token(caller) => caller.has_role(wanted),
        }
    }
}

/// What is wrong with a name that no operation has, and which it may have been meant to be.
fn no_operation(name: &str) -> String {
    let common = |other: &str| {
        let same = name.chars().zip(other.chars());
        same.take_while(|(one, other)| one == other).count()
    };
    let names = DEFAULTS.iter().map(|(name, _)| *name);
    let nearest = names
        .filter(|other| other.contains(':'))
        .max_by_key(|other| common(other));
    let nearest = nearest.unwrap_or_default();
    format!("no operation has this name; the nearest is \"{nearest}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Credentials<'_> = Credentials {
        source: Source::Headers(""),
        project: "p1",
        user: "",
    };

    fn with_roles(roles: &str) -> Credentials<'_> {
        Credentials::of_headers(roles, "p1", "")
    }

    fn allows(policy: &Policy, rule: &str, who: &Credentials<'_>) -> bool {
        policy.allows(policy.rule(rule).expect(rule), who)
    }

    fn refusal(yaml: &str) -> String {
        Policy::parse(yaml).expect_err(yaml).to_string()
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let policy = Policy::default();
        let admin = with_roles("member, ADMIN ,reader");
        for (name, expression) in DEFAULTS {
            assert_eq!(
                allows(&policy, name, &NOBODY),
                expression.is_empty(),
                "{name}"
            );
            assert!(allows(&policy, name, &admin), "{name}");
        }
        // Those of the specification, and one of our own for what the reference leaves open (quirk Q-SEC-6).
        assert_eq!(DEFAULTS.len(), 44 + 1);
        assert_eq!(policy.rule("queues:creat"), None);
    }

    #[test]
    fn a_file_is_laid_over_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        let yaml = r#"
# Only services may create queues, and support reads what they do.
"service": "role:service or rule:context_is_admin"
"context_is_admin": "role:cloud_admin"
"queues:create": "rule:service"
"queues:stats": [["rule:service"], ["role:support", "project_id:p1"]]
"#;
        std::fs::write(&path, yaml).unwrap();
        let policy = Policy::load(&path).unwrap();
        assert!(!allows(&policy, "queues:create", &NOBODY));
        assert!(!allows(&policy, "queues:create", &with_roles("admin")));
        assert!(allows(&policy, "queues:create", &with_roles("service")));
        assert!(allows(&policy, "queues:create", &with_roles("cloud_admin")));
        assert!(allows(&policy, "queues:stats", &with_roles("support")));
        assert!(allows(&policy, "queues:get", &NOBODY));
        assert!(!allows(&policy, "pools:create", &NOBODY));
    }

    #[test]
    fn json_and_an_empty_file_are_policies_too() {
        let json = Policy::parse(r#"{"ping:get": "!", "claims:get": []}"#).unwrap();
        assert!(!allows(&json, "ping:get", &with_roles("admin")));
        assert!(allows(&json, "claims:get", &NOBODY));
        for empty in ["", "# nothing\n", "{}", "---\n"] {
            let policy = Policy::parse(empty).expect(empty);
            assert!(allows(&policy, "ping:get", &NOBODY));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_rule() {
        for (yaml, reason) in [
            (
                "x: rule:y",
                r#"policy rule "x": it refers to "y", which does not exist"#,
            ),
            ("x: rule:x", r#"policy rule "x": it refers to itself"#),
            (
                "x: is_admin:True or (role:a",
                r#"policy rule "x": a parenthesis is not closed"#,
            ),
            (
                "x: role:a role:b",
                r#"policy rule "x": `role:b` follows where only `and` or `or` could"#,
            ),
            (
                "x: role:a )",
                r#"policy rule "x": `)` follows where only `and` or `or` could"#,
            ),
            (
                "x: role:a and",
                r#"policy rule "x": it ends where a check is missing"#,
            ),
            (
                "x: ' '",
                r#"policy rule "x": it ends where a check is missing"#,
            ),
            (
                "x: admin",
                r#"policy rule "x": `admin` is no check, which would be like `role:admin`"#,
            ),
            (
                "x: 'role:'",
                r#"policy rule "x": `role:` is no check, which would be like `role:admin`"#,
            ),
            (
                "x:",
                r#"policy rule "x": it is neither an expression nor a list; "" is what allows everyone"#,
            ),
            (
                "x: [[[role:a]]]",
                r#"policy rule "x": its list holds something that is neither a check nor a list of checks"#,
            ),
        ] {
            assert_eq!(refusal(yaml), reason);
        }
        assert!(
            refusal("x: system_scope:project")
                .starts_with(r#"policy rule "x": `system_scope:project` is no check of a role"#)
        );
        assert!(
            refusal("{a: rule:b, b: not rule:c, c: 'rule:a'}")
                .contains(r#""a": it refers to itself by way of "c""#)
        );
        assert!(refusal("context_is_admin: is_admin:True").contains("refers to itself"));
        for not_rules in ["[role:a]", "text", "x: 'a", "x: '@'\nx: '!'"] {
            assert!(!refusal(not_rules).is_empty());
        }
        assert_eq!(
            refusal("'queues:creat': role:admin"),
            r#"policy rule "queues:creat": no operation has this name; the nearest is "queues:create""#
        );
        let missing = Policy::load(Path::new("no/such/file")).unwrap_err();
        assert!(
            missing
                .to_string()
                .starts_with("policy file no/such/file: ")
        );
    }

    #[test]
    fn an_operation_has_the_same_rule_in_every_policy() {
        let usual = Policy::default();
        let other = Policy::parse("{a_rule: role:a, zz: role:z, 'ping:get': rule:a_rule}").unwrap();
        for (name, _) in DEFAULTS {
            assert_eq!(usual.rule(name), other.rule(name), "{name}");
        }
        assert!(!allows(&other, "ping:get", &NOBODY));
        assert!(allows(&other, "ping:get", &with_roles("a")));
    }

    #[test]
    fn what_is_nested_without_end_is_refused_with_a_sentence() {
        let many = 100_000;
        let chain: Vec<String> = (0..200)
            .map(|rule| format!("r{rule}: rule:r{}", rule + 1))
            .collect();
        for bomb in [
            format!("x: '{}role:a{}'", "(".repeat(many), ")".repeat(many)),
            format!("x: '{}role:a'", "not ".repeat(many)),
            format!("x: '{}role:a'", "( not ".repeat(many)),
            format!("x: {}{}", "[".repeat(many), "]".repeat(many)),
            format!("{}1{}", "{a: ".repeat(many), "}".repeat(many)),
            format!("x: '{}", "(".repeat(many)),
            format!("{}\nr200: role:a", chain.join("\n")),
        ] {
            let refused = Policy::parse(&bomb)
                .expect_err("it is nested without end")
                .to_string();
            assert!(
                !refused.is_empty() && refused.len() < 1000,
                "{} bytes",
                refused.len()
            );
        }
        let deep = format!("x: '{}role:a{}'", "(not (".repeat(20), "))".repeat(20));
        Policy::parse(&deep).expect("it is nested within reason");
    }
}
