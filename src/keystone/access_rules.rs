//! Decides whether the access rules of an application credential allow a request.
//!
//! The rules are pure: no I/O, no clock. A path pattern is compiled once, when the token document is read, and matched
//! without backtracking, so that a hostile pattern costs at most its length times the length of the path. Both are bounded,
//! and so are the patterns that one request is compared with.
//!
//! Source: `docs/compatibility/keystone.md` section 7.

use std::ops::Range;

/// The longest path that a rule may allow, in bytes. No route has half of it, with a base path in front.
const MAX_PATH_BYTES: usize = 1024;

/// The steps of patterns that a request is compared with, over all rules. A pattern that does not begin like the path ends
/// at its first step, so that thousands of rules fit; the rules behind that allow nothing.
const MAX_STEPS: usize = 4096;

/// The access rules of one application credential.
///
/// An empty list is not a list of rules: a credential whose rules are `[]` is not limited, so the token document is read
/// into no [`AccessRules`] at all (section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRules(Vec<AccessRule>);

/// One access rule: a service type, a method and a path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    service: String,
    method: String,
    path: PathPattern,
}

/// The request that rules are compared with.
#[derive(Debug, Clone, Copy)]
pub struct RequestTarget<'a> {
    /// The request method, in upper case.
    pub method: &'a str,
    /// The request path, percent-decoded, without its query.
    pub path: &'a [u8],
    /// The path prefix that a proxy in front removed, such as `/messaging`; empty where there is none.
    pub base_path: &'a str,
}

impl AccessRules {
    /// Collects rules. Returns `None` for an empty list, which limits nothing.
    pub fn new(rules: Vec<AccessRule>) -> Option<Self> {
        (!rules.is_empty()).then_some(Self(rules))
    }

    /// Reports whether one of the rules allows the request at a service of this type.
    ///
    /// The path is compared as it is and, where a proxy removes a prefix, also with that prefix in front: the reference
    /// sees the path with its mount point.
    pub fn allow(&self, service_type: &str, target: RequestTarget<'_>) -> bool {
        let prefix = target.base_path.trim_end_matches('/').as_bytes();
        if prefix.len() + target.path.len() > MAX_PATH_BYTES {
            return false;
        }
        let prefixed = (!prefix.is_empty()).then(|| [prefix, target.path].concat());
        let mut steps_left = MAX_STEPS;
        let rules = self.0.iter();
        let mut rules =
            rules.filter(|rule| rule.service == service_type && rule.method == target.method);
        rules.any(|rule| {
            let mut matches = |path: &[u8]| rule.path.matches(path, &mut steps_left);
            matches(target.path) || prefixed.as_deref().is_some_and(matches)
        })
    }

    /// Returns how many bytes the rules keep, approximately.
    pub(super) fn size(&self) -> usize {
        let size = |rule: &AccessRule| {
            size_of::<AccessRule>()
                + rule.service.len()
                + rule.method.len()
                + rule.path.literals.len()
                + rule.path.steps.len() * size_of::<Step>()
        };
        self.0.iter().map(size).sum()
    }
}

impl AccessRule {
    /// Creates a rule from the members of the token document.
    pub fn new(service: String, method: String, path: &str) -> Self {
        Self {
            service,
            method,
            path: PathPattern::compile(path),
        }
    }
}

/// A compiled path pattern.
///
/// `{name}` and `*` match one or more bytes without `/`, `**` matches anything, also nothing, and everything else matches
/// itself. The whole path must match.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PathPattern {
    /// The literal parts of the pattern, one after the other.
    literals: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A range of `literals` that must follow.
    Literal(Range<usize>),
    /// One or more bytes that are not `/`.
    Segment,
    /// Any bytes, also none.
    Anything,
}

impl PathPattern {
    /// Compiles a pattern. Every text is one: a brace without its partner matches itself.
    fn compile(pattern: &str) -> Self {
        let mut compiled = Self {
            literals: String::with_capacity(pattern.len()),
            steps: Vec::new(),
        };
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            let (step, length) = match first {
                '*' if rest.starts_with("**") => (Some(Step::Anything), 2),
                '*' => (Some(Step::Segment), 1),
                '{' => match rest.find('}') {
                    Some(end) => (Some(Step::Segment), end + 1),
                    None => (None, 1),
                },
                other => (None, other.len_utf8()),
            };
            match step {
                Some(step) => compiled.steps.push(step),
                None => compiled.push_literal(&rest[..length]),
            }
            rest = &rest[length..];
        }
        compiled
    }

    fn push_literal(&mut self, text: &str) {
        let start = self.literals.len();
        self.literals.push_str(text);
        match self.steps.last_mut() {
            Some(Step::Literal(range)) => range.end = self.literals.len(),
            _ => self.steps.push(Step::Literal(start..self.literals.len())),
        }
    }

    /// Reports whether the whole path matches.
    ///
    /// `reachable[i]` says that the steps so far can have consumed exactly the first `i` bytes of the path; each step
    /// derives the next row from the one before. Nothing matches when no steps are left.
    fn matches(&self, path: &[u8], steps_left: &mut usize) -> bool {
        let mut reachable = vec![false; path.len() + 1];
        reachable[0] = true;
        for step in &self.steps {
            if *steps_left == 0 || !reachable.contains(&true) {
                return false;
            }
            *steps_left -= 1;
            reachable = match step {
                Step::Literal(range) => {
                    after_literal(&reachable, path, &self.literals.as_bytes()[range.clone()])
                }
                Step::Segment => after_segment(&reachable, path),
                Step::Anything => after_anything(&reachable),
            };
        }
        reachable[path.len()]
    }
}

fn after_literal(before: &[bool], path: &[u8], literal: &[u8]) -> Vec<bool> {
    let mut after = vec![false; before.len()];
    for start in (0..before.len()).filter(|start| before[*start]) {
        if path[start..].starts_with(literal) {
            after[start + literal.len()] = true;
        }
    }
    after
}

fn after_segment(before: &[bool], path: &[u8]) -> Vec<bool> {
    let mut after = vec![false; before.len()];
    for end in 1..before.len() {
        after[end] = path[end - 1] != b'/' && (before[end - 1] || after[end - 1]);
    }
    after
}

fn after_anything(before: &[bool]) -> Vec<bool> {
    let mut seen = false;
    let seen_until = |reachable: &bool| {
        seen |= *reachable;
        seen
    };
    before.iter().map(seen_until).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::compile(pattern).matches(path.as_bytes(), &mut usize::MAX.clone())
    }

    #[test]
    fn patterns_match_the_paths_that_the_specification_says() {
        for (pattern, path, expected) in [
            ("/v2/queues", "/v2/queues", true),
            ("/v2/queues", "/v2/queues/", false),
            ("/v2/queues/", "/v2/queues", false),
            ("/v2/queues", "/v2/queuesx", false),
            ("/v2/queues/{name}", "/v2/queues/q", true),
            ("/v2/queues/{name}", "/v2/queues/", false),
            ("/v2/queues/{name}", "/v2/queues/q/messages", false),
            ("/v2/queues/*", "/v2/queues/q", true),
            ("/v2/queues/*", "/v2/queues/q/messages", false),
            ("/v2/queues/q*", "/v2/queues/q", false),
            ("/v2/queues/q*", "/v2/queues/q1", true),
            (
                "/v2/queues/*/messages/{id}",
                "/v2/queues/q/messages/1",
                true,
            ),
            ("/v2/**", "/v2/", true),
            ("/v2/**", "/v2", false),
            ("/v2**", "/v2", true),
            ("/v2/**", "/v2/queues/q/messages", true),
            ("/**/messages", "/v2/queues/q/messages", true),
            ("/**/messages", "/messages", false),
            ("**", "", true),
            ("***", "/a", true),
            ("***", "/", false),
            ("/v2/queues/a.b", "/v2/queues/a.b", true),
            // The reference lets a full stop match any character (quirk Q-KS-7).
            ("/v2/queues/a.b", "/v2/queues/aXb", false),
            ("/v2/queues/{open", "/v2/queues/{open", true),
            ("/v2/queues/{open", "/v2/queues/open", false),
            ("/v2/queues/}", "/v2/queues/}", true),
            ("/v2/{}/x", "/v2/y/x", true),
            ("/v2/(a|b)+[c]$", "/v2/(a|b)+[c]$", true),
            ("/v2/größe/*", "/v2/größe/ü", true),
            ("", "", true),
            ("", "/", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    fn target<'a>(method: &'a str, path: &'a str, base_path: &'a str) -> RequestTarget<'a> {
        RequestTarget {
            method,
            path: path.as_bytes(),
            base_path,
        }
    }

    fn rules(all: &[(&str, &str, &str)]) -> AccessRules {
        let rule = |(service, method, path): &(&str, &str, &str)| {
            AccessRule::new((*service).into(), (*method).into(), path)
        };
        AccessRules::new(all.iter().map(rule).collect()).expect("there are rules")
    }

    #[test]
    fn service_method_and_path_must_all_be_equal() {
        let rules = rules(&[
            ("messaging", "GET", "/v2/queues"),
            ("zaqar", "DELETE", "/v2/queues/*"),
            ("messaging", "POST", "/v2/queues/*/messages"),
        ]);
        for (method, path, allowed) in [
            ("GET", "/v2/queues", true),
            ("HEAD", "/v2/queues", false),
            ("get", "/v2/queues", false),
            ("PUT", "/v2/queues", false),
            ("POST", "/v2/queues/q/messages", true),
            // The catalogue's name of the service is not its type.
            ("DELETE", "/v2/queues/q", false),
        ] {
            let allows = rules.allow("messaging", target(method, path, ""));
            assert_eq!(allows, allowed, "{method} {path}");
        }
    }

    #[test]
    fn a_path_counts_with_and_without_the_base_path() {
        let rules = rules(&[
            ("messaging", "GET", "/v2/queues"),
            ("messaging", "PUT", "/messaging/v2/queues/*"),
        ]);
        for base_path in ["/messaging", "/messaging/"] {
            let allows = |method, path| rules.allow("messaging", target(method, path, base_path));
            assert!(allows("GET", "/v2/queues"));
            assert!(allows("PUT", "/v2/queues/q"));
            assert!(!allows("GET", "/v2/queues/q"));
        }
        assert!(!rules.allow("messaging", target("PUT", "/v2/queues/q", "")));
    }

    #[test]
    fn an_empty_list_limits_nothing() {
        assert_eq!(AccessRules::new(Vec::new()), None);
    }

    /// Matches by trying every way, as a regular expression with backtracking would.
    fn matches_by_search(pattern: &[char], path: &[char]) -> bool {
        let Some(first) = pattern.first() else {
            return path.is_empty();
        };
        let segment = |rest: &[char]| {
            let length = path.iter().take_while(|char| **char != '/').count();
            (1..=length).any(|taken| matches_by_search(rest, &path[taken..]))
        };
        match (first, pattern.get(1)) {
            ('*', Some('*')) => {
                (0..=path.len()).any(|taken| matches_by_search(&pattern[2..], &path[taken..]))
            }
            ('*', _) => segment(&pattern[1..]),
            ('{', _) if pattern.contains(&'}') => {
                let end = pattern.iter().position(|char| *char == '}').unwrap();
                segment(&pattern[end + 1..])
            }
            _ => path.first() == Some(first) && matches_by_search(&pattern[1..], &path[1..]),
        }
    }

    #[test]
    fn random_patterns_match_as_an_exhaustive_search_says() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut matched = 0;
        for _ in 0..60_000 {
            let pattern: Vec<char> = (0..random.usize(0..8))
                .map(|_| random.choice(['a', 'b', '/', '*', '*', '{', '}', '.']))
                .map(Option::unwrap)
                .collect();
            let path: Vec<char> = (0..random.usize(0..7))
                .map(|_| random.choice(['a', 'b', '/', '.', '}']).unwrap())
                .collect();
            let (text, request): (String, String) =
                (pattern.iter().collect(), path.iter().collect());
            let expected = matches_by_search(&pattern, &path);
            assert_eq!(matches(&text, &request), expected, "{text} {request}");
            matched += usize::from(expected);
        }
        assert!(matched > 500, "{matched} matches prove too little");
    }

    #[test]
    fn a_literal_pattern_matches_itself_alone() {
        let mut random = fastrand::Rng::with_seed(8);
        for _ in 0..10_000 {
            let literal: String = (0..random.usize(1..12))
                .map(|_| char::from(random.choice(*b"ab/.+?$^()[]|\\%").unwrap()))
                .collect();
            assert!(matches(&literal, &literal), "{literal}");
            let mut other: Vec<char> = literal.chars().collect();
            let at = random.usize(0..other.len());
            other[at] = 'X';
            let other: String = other.into_iter().collect();
            assert!(!matches(&literal, &other), "{literal} {other}");
        }
    }

    /// As many rules as wanted that each take as long as they can.
    fn hostile(count: usize) -> Vec<AccessRule> {
        let path = format!("/{}b", "*a".repeat(60));
        let rule = || AccessRule::new("messaging".into(), "GET".into(), &path);
        std::iter::repeat_with(rule).take(count).collect()
    }

    #[test]
    fn hostile_patterns_cost_a_bounded_number_of_steps() {
        let path = "/".to_owned() + &"a".repeat(MAX_PATH_BYTES - 1);
        let mut left = MAX_STEPS;
        for rule in &hostile(5000) {
            assert!(!rule.path.matches(path.as_bytes(), &mut left));
        }
        assert_eq!(left, 0);
        // A rule behind them is not looked at, as nobody has so many.
        let allowing = AccessRule::new("messaging".into(), "GET".into(), "/**");
        let allow = |rules: Vec<AccessRule>, path: &str| {
            let rules = AccessRules::new(rules).expect("there are rules");
            rules.allow("messaging", target("GET", path, ""))
        };
        assert!(!allow(
            [hostile(5000), vec![allowing.clone()]].concat(),
            &path
        ));
        assert!(allow([hostile(30), vec![allowing.clone()]].concat(), &path));
        // No route is as long as that.
        assert!(allow(vec![allowing.clone()], &path));
        assert!(!allow(vec![allowing], &(path + "a")));
    }

    #[test]
    fn thousands_of_plain_rules_are_all_looked_at() {
        let rule = |number: usize| {
            AccessRule::new(
                "messaging".into(),
                "GET".into(),
                &format!("/v2/queues/{number}/stats"),
            )
        };
        let rules = AccessRules::new((0..3000).map(rule).collect()).expect("there are rules");
        assert!(rules.allow("messaging", target("GET", "/v2/queues/2999/stats", "")));
        assert!(!rules.allow("messaging", target("GET", "/v2/queues/3000/stats", "")));
    }
}
