//! Pre-signed access: what a signature says, and how it is made and checked (spec: signed-urls.md).
//!
//! A signature stands for a token: it lets its bearer use some methods on some paths of one project until a moment.
//! Paths are compared literally (quirk Q-SEC-5), codes in constant time. Changing the key ends every signature.
//!
//! What is signed is the reference's text, which joins its parts by a backslash and an `n` and quotes nothing: the parts
//! `GET` and `a\\nvictim` make the same text as `GET\\na` and `victim`. So a part with a backslash is neither signed nor let
//! in, and only methods that HTTP has are signed: of every text that is left there is one reading.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use isimud_contract::{Clock, Timestamp};
use sha2::Sha256;

use crate::dates;

/// How long a signature holds whose maker does not say.
const DEFAULT_TTL: Duration = Duration::from_hours(24);

/// The methods that can be signed, sorted.
pub(crate) const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// Makes and checks signatures with the key of the configuration.
#[derive(Clone)]
pub struct Signer {
    /// None when there is no key: then nothing is signed, and nothing that is signed is let in.
    mac: Option<Hmac<Sha256>>,
    clock: Arc<dyn Clock>,
}

/// What a signature allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Request paths; what is below them is allowed too. Sorted.
    pub(crate) paths: Vec<String>,
    /// Request methods, sorted.
    pub(crate) methods: Vec<String>,
    /// The project that it is for.
    pub(crate) project: String,
    /// The moment from which on it is worth nothing.
    pub(crate) expires: Timestamp,
}

/// What a request brings instead of a token: its headers, as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Presented<'a> {
    pub(crate) signature: &'a str,
    pub(crate) paths: &'a str,
    pub(crate) methods: &'a str,
    pub(crate) expires: &'a str,
    /// `None` for a request that names no project.
    pub(crate) project: Option<&'a str>,
}

/// How a request stands to the paths that were signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is for one of them.
    Exact,
    /// It is for something below one of them.
    Below,
}

impl Signer {
    /// A signer with a key, or, when that is empty, one that signs nothing.
    pub fn new(key: &str, clock: Arc<dyn Clock>) -> Self {
        let mac = (!key.is_empty())
            .then(|| Hmac::new_from_slice(key.as_bytes()).ok())
            .flatten();
        Self { mac, clock }
    }

    /// Whether there is a key to sign with.
    pub(crate) fn can_sign(&self) -> bool {
        self.mac.is_some()
    }

    /// The present moment, which expiries are compared with: other servers do so by their clocks.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// When a signature ends whose maker does not say.
    pub(crate) fn usual_expiry(&self) -> Timestamp {
        self.now().after(DEFAULT_TTL)
    }

    /// The signature of a grant, in hex; `None` when there is no key, or when the grant could be read as another one.
    pub(crate) fn sign(&self, grant: &Grant) -> Option<String> {
        let mut mac = self.mac.clone()?;
        let is_method = |method: &String| METHODS.contains(&method.as_str());
        let is_path = |path: &String| is_unambiguous(path) && !path.contains(',');
        if !grant.methods.iter().all(is_method)
            || !grant.paths.iter().all(is_path)
            || !is_unambiguous(&grant.project)
        {
            return None;
        }
        let text = text(&grant.paths, &grant.methods, &grant.project, grant.expires);
        mac.update(text.as_bytes());
        let code = mac.finalize().into_bytes();
        Some(code.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether a request for `path` by `method` is one that its signature allows, now; and if so, how.
    pub(crate) fn judge(&self, presented: Presented<'_>, method: &str, path: &str) -> Option<Fit> {
        let sorted = |list: &str| {
            let mut parts: Vec<String> = list.split(',').map(str::to_owned).collect();
            parts.sort_unstable();
            parts
        };
        let project = presented.project?;
        if ![presented.paths, presented.methods, project]
            .into_iter()
            .all(is_unambiguous)
        {
            return None;
        }
        let (paths, methods) = (sorted(presented.paths), sorted(presented.methods));
        let mut mac = self.mac.clone()?;
        let expires = dates::parse(presented.expires)?;
        let is_named = methods.iter().any(|named| named == method)
            && paths.iter().any(|signed| is_within(path, signed));
        mac.update(text(&paths, &methods, project, expires).as_bytes());
        let is_genuine =
            unhex(presented.signature).is_some_and(|code| mac.verify_slice(&code).is_ok());
        let fit = match paths.iter().any(|signed| signed == path) {
            true => Fit::Exact,
            false => Fit::Below,
        };
        (is_named && is_genuine && expires > self.now()).then_some(fit)
    }
}

impl fmt::Debug for Signer {
    /// Says whether there is a key, and nothing of what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("can_sign", &self.can_sign())
            .finish_non_exhaustive()
    }
}

/// What is signed. Between the parts stand a backslash and an `n`, as the reference has it, and no line feed.
fn text(paths: &[String], methods: &[String], project: &str, expires: Timestamp) -> String {
    format!(
        "{}\\n{}\\n{project}\\n{}",
        paths.join(","),
        methods.join(","),
        dates::zoneless(expires)
    )
}

/// Whether a part of what is signed cannot be taken for the end of one and the beginning of another.
pub(crate) fn is_unambiguous(part: &str) -> bool {
    !part.contains('\\')
}

/// Whether a request path is a signed one or below it.
fn is_within(path: &str, signed: &str) -> bool {
    path.strip_prefix(signed)
        .is_some_and(|rest| !signed.is_empty() && (rest.is_empty() || rest.starts_with('/')))
}

/// The bytes of a code in lower-case hex, which is the only spelling.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut code = [0; 32];
    if text.len() != 2 * code.len() {
        return None;
    }
    for (byte, pair) in code.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(code)
}

#[cfg(test)]
mod tests {
    use isimud_contract::ManualClock;

    use super::*;

    const VECTOR: &str = "0b7cebebfdf21d9f70d271c7bbff439683e6b8e23a551dd1690f692940b11110";

    fn signer() -> Signer {
        Signer::new("SPECSECRET", Arc::new(ManualClock::default()))
    }

    fn presented() -> Presented<'static> {
        Presented {
            signature: VECTOR,
            paths: "/v2/queues/shq/messages",
            methods: "GET",
            expires: "2035-01-01T00:00:00",
            project: Some("p1"),
        }
    }

    fn allowed(presented: Presented<'_>) -> bool {
        let path = "/v2/queues/shq/messages";
        signer().judge(presented, "GET", path) == Some(Fit::Exact)
    }

    #[test]
    fn the_specified_signature_is_made_and_known_again() {
        let grant = Grant {
            paths: vec!["/v2/queues/shq/messages".into()],
            methods: vec!["GET".into()],
            project: "p1".into(),
            expires: dates::parse("2035-01-01T00:00:00").expect("a date"),
        };
        assert_eq!(signer().sign(&grant).as_deref(), Some(VECTOR));
        assert!(allowed(presented()));
    }

    #[test]
    fn other_spellings_of_the_same_moment_are_the_same() {
        for expires in ["2035-01-01T00:00:00Z", "2035-01-01 01:00:00+01:00", "2035"] {
            assert!(
                allowed(Presented {
                    expires,
                    ..presented()
                }),
                "{expires}"
            );
        }
    }

    #[test]
    fn a_change_anywhere_is_noticed() {
        let changed = [
            Presented {
                project: Some("p2"),
                ..presented()
            },
            Presented {
                project: None,
                ..presented()
            },
            Presented {
                methods: "GET,POST",
                ..presented()
            },
            Presented {
                methods: "GET, GET",
                ..presented()
            },
            Presented {
                paths: "/v2/queues/shq/messages,/v2/queues/shq/messages",
                ..presented()
            },
            Presented {
                paths: "/v2/queues/shq",
                ..presented()
            },
            Presented {
                expires: "2035-01-01T00:00:01",
                ..presented()
            },
            Presented {
                expires: "never",
                ..presented()
            },
            Presented {
                signature: "",
                ..presented()
            },
            Presented {
                signature: &VECTOR[1..],
                ..presented()
            },
            Presented {
                signature: &VECTOR.to_uppercase(),
                ..presented()
            },
            Presented {
                signature: &VECTOR.replace('b', "c"),
                ..presented()
            },
        ];
        for (at, presented) in changed.into_iter().enumerate() {
            assert!(!allowed(presented), "{at}: {presented:?}");
        }
    }

    #[test]
    fn a_grant_that_reads_like_another_one_is_not_signed() {
        let plain = Grant {
            paths: vec!["/v2/queues/shq/messages".into()],
            methods: vec!["GET".into()],
            project: "p1".into(),
            expires: dates::parse("2035-01-01T00:00:00").expect("a date"),
        };
        let methods = |methods: &[&str]| Grant {
            methods: methods.iter().map(|&method| method.into()).collect(),
            ..plain.clone()
        };
        let project = |project: &str| Grant {
            project: project.into(),
            ..plain.clone()
        };
        let path = |path: &str| Grant {
            paths: vec![path.into()],
            ..plain.clone()
        };
        for grant in [
            project(r"a\nvictim"),
            project("a\\"),
            project(r"\"),
            methods(&["DELETE", r"GET\nvictim"]),
            methods(&["GET,PUT"]),
            methods(&["get"]),
            methods(&["TRACE"]),
            methods(&[""]),
            path(r"/v2/queues/shq/messages\nGET"),
            path("/v2/queues/shq/messages,/v2/queues/other/messages"),
        ] {
            assert_eq!(signer().sign(&grant), None, "{grant:?}");
        }
        assert!(signer().sign(&methods(&METHODS)).is_some());
        assert!(signer().sign(&project("a/b.c,d e:n")).is_some());
    }

    #[test]
    fn a_signature_of_one_project_opens_no_other() {
        // What was signed before for the project `a\nvictim` is the text of another grant as well.
        let mac = signer().mac.expect("a key");
        let code = mac
            .chain_update(r"/v2/queues/shq/messages\nDELETE,GET\na\nvictim\n2035-01-01T00:00:00")
            .finalize()
            .into_bytes();
        let code: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        for (methods, project) in [(r"DELETE,GET\na", "victim"), ("DELETE,GET", r"a\nvictim")] {
            let presented = Presented {
                signature: &code,
                methods,
                project: Some(project),
                ..presented()
            };
            let path = "/v2/queues/shq/messages";
            assert_eq!(signer().judge(presented, "DELETE", path), None, "{project}");
        }
    }

    #[test]
    fn a_signature_is_for_its_methods_and_paths_only() {
        let signer = signer();
        for path in [
            "/v2/queues/shq/messages",
            "/v2/queues/shq/messages/",
            "/v2/queues/shq/messages/1",
        ] {
            let fit = match path.ends_with("messages") {
                true => Fit::Exact,
                false => Fit::Below,
            };
            assert_eq!(signer.judge(presented(), "GET", path), Some(fit), "{path}");
            assert_eq!(signer.judge(presented(), "DELETE", path), None, "{path}");
        }
        for path in [
            "/v2/queues/shq/messagesX",
            "/v2/queues/shq",
            "/v2/queues/shq/claims",
            "/x/v2/queues/shq/messages",
            "/v2/queues/other/messages",
            "/",
        ] {
            assert_eq!(signer.judge(presented(), "GET", path), None, "{path}");
        }
        assert!(!is_within(
            "/v2/queues/aXb/messages",
            "/v2/queues/a.b/messages"
        ));
        assert!(!is_within("/v2/queues", ""));
    }

    #[test]
    fn an_expired_signature_is_refused() {
        let clock = Arc::new(ManualClock::new(
            dates::parse("2034-12-31T23:59:59").expect("a date"),
        ));
        let signer = Signer::new("SPECSECRET", Arc::clone(&clock) as _);
        let path = "/v2/queues/shq/messages";
        assert!(signer.judge(presented(), "GET", path).is_some());
        clock.advance(Duration::from_secs(1));
        assert_eq!(signer.judge(presented(), "GET", path), None);
    }

    #[test]
    fn without_a_key_nothing_is_signed_and_nothing_let_in() {
        let signer = Signer::new("", Arc::new(ManualClock::default()));
        assert!(!signer.can_sign());
        let path = "/v2/queues/shq/messages";
        assert_eq!(signer.judge(presented(), "GET", path), None);
    }
}
