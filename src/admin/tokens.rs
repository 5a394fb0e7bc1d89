//! Tokens of operators: what each of them may do, and the file that lists them.
//!
//! ```toml
//! [[tokens]]
//! name = "alice"                      # what the audit lines call her
//! role = "operator"                   # viewer, reader, operator or admin: each may do what those before it may
//! sha256 = "1c0f…"                    # of the token; the token itself is nowhere
//! projects = ["shop"]                 # left out: every project
//! expires = "2027-01-31T00:00:00Z"    # left out: never
//! ```
//!
//! A token is 256 random bits, so a plain hash of it tells nothing, and guessing is hopeless at any rate.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aes_gcm::aead::Generate;
use aes_gcm::{Aes256Gcm, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use figment::Figment;
use figment::providers::{Format, Toml};
use isimud_contract::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::dates;

/// What every token begins with, so that it is known for one wherever it turns up.
const PREFIX: &str = "isimud_";

/// The largest file of tokens, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// What somebody may do on the admin listener. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees names and numbers.
    Viewer,
    /// Sees what messages and metadata say.
    Reader,
    /// Moves and bridges queues.
    Operator,
    /// Empties pools.
    Admin,
}

impl Role {
    /// All of them, by name, the least first.
    pub const ALL: [(&'static str, Self); 4] = [
        ("viewer", Self::Viewer),
        ("reader", Self::Reader),
        ("operator", Self::Operator),
        ("admin", Self::Admin),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, role)| *role == self);
        found.map_or("", |(name, _)| name)
    }
}

/// The SHA-256 of a token.
pub(super) type Hash = [u8; 32];

/// What is known of a token's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) role: Role,
    /// None for every project.
    pub(super) projects: Option<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Token {
    hash: Hash,
    owner: Owner,
    expires: Option<Timestamp>,
}

/// The tokens of a file.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<Token>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTokenFile {
    #[serde(default)]
    tokens: Vec<RawToken>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    name: String,
    role: Role,
    sha256: String,
    projects: Option<Vec<String>>,
    expires: Option<String>,
}

impl Tokens {
    /// Reads a file of tokens. Says what is wrong with it, and never what a hash is.
    pub fn load(path: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let size = std::fs::metadata(path)
            .map_err(|error| wrong(&error))?
            .len();
        if size > LARGEST_FILE {
            return Err(wrong(&format!("it has more than {LARGEST_FILE} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        Self::parse(&text).map_err(|why| wrong(&why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: RawTokenFile = Figment::from(Toml::string(text))
            .extract()
            .map_err(|error| sentence(&error.kind))?;
        let mut tokens: Vec<Token> = Vec::with_capacity(written.tokens.len());
        for one in written.tokens {
            let token = one.resolve()?;
            let is_other = |other: &Token| other.owner.name != token.owner.name;
            if !tokens.iter().all(is_other) {
                return Err(format!("the token '{}' is there twice", token.owner.name));
            }
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// What an operator should hear of a file of tokens: that others than its owner may write it, and so make themselves
    /// operators, or may read whose tokens there are. `None` where there is nothing, or no file.
    pub fn warning(path: &Path) -> Option<String> {
        let mode = std::fs::metadata(path).ok()?.mode();
        let (what, so) = match (mode & 0o022, mode & 0o004) {
            (0, 0) => return None,
            (0, _) => ("read", "it tells everybody whose tokens there are"),
            _ => ("write", "whoever does is an operator"),
        };
        Some(format!(
            "others than its owner may {what} {} (mode {:03o}): {so}",
            path.display(),
            mode & 0o777
        ))
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody has one that counts at this moment.
    pub fn is_some_valid(&self, now: Timestamp) -> bool {
        let is_valid = |token: &Token| token.expires.is_none_or(|expires| now < expires);
        self.0.iter().any(is_valid)
    }

    /// Whose token has this hash, if it counts at this moment. Takes as long whichever it is.
    pub(super) fn owner(&self, hash: &Hash, now: Timestamp) -> Option<&Owner> {
        let mut found = None;
        for token in &self.0 {
            if is_equal(&token.hash, hash) && token.expires.is_none_or(|expires| now < expires) {
                found = Some(&token.owner);
            }
        }
        found
    }
}

impl RawToken {
    fn resolve(self) -> Result<Token, String> {
        let Self { name, .. } = self;
        check_name(&name)?;
        let hash = parse_hash(&self.sha256)
            .ok_or_else(|| format!("the sha256 of the token '{name}' is not 64 hex digits"))?;
        if self.projects.as_ref().is_some_and(Vec::is_empty) {
            let why = "has no project; leave 'projects' out for every project";
            return Err(format!("the token '{name}' {why}"));
        }
        let expires = match self.expires {
            Some(text) => Some(dates::parse(&text).ok_or_else(|| {
                format!("the token '{name}' expires at no date (2027-01-31T00:00:00Z): '{text}'")
            })?),
            None => None,
        };
        let (role, projects) = (self.role, self.projects);
        Ok(Token {
            hash,
            expires,
            owner: Owner {
                name,
                role,
                projects,
            },
        })
    }
}

/// What is wrong with a file, without a word of what is in it: a hash may be there, or a token that somebody has taken for one.
fn sentence(kind: &figment::error::Kind) -> String {
    use figment::error::Kind;
    match kind {
        Kind::Message(said) => {
            // The parser tells the line, and then shows it.
            let first = said.lines().next().unwrap_or_default();
            match first.starts_with("TOML parse error") {
                true => first.to_owned(),
                false => "it is not as a file of tokens is written".to_owned(),
            }
        }
        Kind::InvalidType(_, expected) => format!("a value is not of its type: {expected}"),
        Kind::InvalidValue(_, expected) => format!("a value is none that can be: {expected}"),
        other => other.to_string(),
    }
}

/// Refuses names that would not be plain in a log line.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    Err("the name of a token has 1 to 64 letters, digits, '-', '_', '.' and '@'".to_owned())
}

fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// What stands for a token.
pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// Compares without telling by the time it takes how much of the two is equal.
pub(super) fn is_equal(one: &Hash, other: &Hash) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0
}

/// A token that nobody has had. Fails where there are no random bytes.
pub(super) fn random() -> Result<String, String> {
    let bytes = Key::<Aes256Gcm>::try_generate()
        .map_err(|error| format!("there are no random bytes for a token: {error}"))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Makes a token and lists it in a file, which is made, for its owner only, where it does not exist. `show` gets the token: it
/// is shown this once. Where that fails the file is as it was, as nobody has the token. Refuses a name that the file has
/// already.
pub fn issue(
    file: &Path,
    name: &str,
    role: Role,
    projects: &[String],
    expires: Option<Timestamp>,
    show: impl FnOnce(&str) -> std::io::Result<()>,
) -> Result<(), String> {
    check_name(name)?;
    let before = match file.try_exists() {
        Ok(false) => Tokens::default(),
        _ => Tokens::load(file)?,
    };
    if before.0.iter().any(|token| token.owner.name == name) {
        return Err(format!(
            "{}: there is a token '{name}' already; take its lines out to replace it",
            file.display()
        ));
    }
    let token = random()?;
    let digits: String = hash(&token)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let role = role.name();
    let mut lines =
        format!("\n[[tokens]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{digits}\"\n");
    if !projects.is_empty() {
        // A string of JSON without escapes beyond ASCII is one of TOML.
        let projects = serde_json::to_string(projects).map_err(|error| error.to_string())?;
        lines.push_str(&format!("projects = {projects}\n"));
    }
    if let Some(expires) = expires {
        lines.push_str(&format!("expires = \"{}\"\n", dates::iso8601(expires)));
    }
    // Whatever goes in must come out as it was meant, also behind what is there.
    let wrong = |error: std::io::Error| format!("{}: {error}", file.display());
    let there = match file.try_exists() {
        Ok(false) => String::new(),
        _ => std::fs::read_to_string(file).map_err(wrong)?,
    };
    Tokens::parse(&format!("{there}{lines}")).map_err(|error| {
        format!(
            "{}: no token can be put behind what is there: {error}",
            file.display()
        )
    })?;
    let mut options = File::options();
    let mut opened = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(file)
        .map_err(wrong)?;
    opened.write_all(lines.as_bytes()).map_err(wrong)?;
    opened.sync_all().map_err(wrong)?;
    show(&token).map_err(|error| {
        let taken_out = opened
            .set_len(there.len() as u64)
            .and_then(|()| opened.sync_all());
        match taken_out {
            Ok(()) => format!("the token cannot be shown, and is not in the file: {error}"),
            Err(why) => format!(
                "the token cannot be shown ({error}); take the lines of '{name}' out of {}, which failed here: {why}",
                file.display()
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn entry(more: &str) -> String {
        let digits = "ab".repeat(32);
        format!("[[tokens]]\nname = \"a\"\nrole = \"viewer\"\nsha256 = \"{digits}\"\n{more}")
    }

    #[test]
    fn a_token_is_known_again_and_only_its_hash_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        let projects = ["shop".to_owned(), "a \"b\" \\".to_owned()];
        let mut shown = Vec::new();
        let mut show = |token: &str| {
            shown.push(token.to_owned());
            Ok(())
        };
        issue(&file, "alice", Role::Operator, &projects, None, &mut show).expect("a token");
        issue(&file, "bob", Role::Admin, &[], Some(NOW), &mut show).expect("a token");
        let [first, second] = shown.try_into().expect("two tokens");
        assert!(
            first.starts_with(PREFIX) && first.len() == PREFIX.len() + 43,
            "{first}"
        );
        let text = std::fs::read_to_string(&file).expect("the file");
        assert!(!text.contains(&first) && !text.contains(&second), "{text}");
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().expect("the file"));
        assert_eq!(mode & 0o777, 0o600);
        let tokens = Tokens::load(&file).expect("it can be read");
        let before = Timestamp(NOW.0 - 1000);
        let alice = tokens.owner(&hash(&first), before).expect("alice");
        assert_eq!((alice.name.as_str(), alice.role), ("alice", Role::Operator));
        assert_eq!(alice.projects.as_deref(), Some(&projects[..]));
        let bob = tokens.owner(&hash(&second), before).expect("bob");
        assert_eq!((bob.name.as_str(), &bob.projects), ("bob", &None));
        assert_eq!(tokens.owner(&hash(&second), NOW), None, "it has expired");
        assert_eq!(tokens.owner(&hash("isimud_other"), before), None);
        issue(&file, "bob", Role::Admin, &[], None, |_| Ok(())).expect_err("the name is taken");
    }

    #[test]
    fn a_token_that_cannot_be_shown_is_not_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        let full = |_: &str| Err(std::io::Error::other("no space"));
        let why = issue(&file, "alice", Role::Viewer, &[], None, full).expect_err("nobody saw it");
        assert!(why.contains("no space"), "{why}");
        assert!(Tokens::load(&file).expect("it can be read").is_empty());
        issue(&file, "bob", Role::Viewer, &[], None, |_| Ok(())).expect("a token");
        let before = std::fs::read_to_string(&file).expect("the file");
        issue(&file, "alice", Role::Viewer, &[], None, full).expect_err("nobody saw it");
        assert_eq!(std::fs::read_to_string(&file).expect("the file"), before);
    }

    #[test]
    fn no_token_is_put_behind_what_would_make_it_no_file_of_tokens() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        // A list that is closed cannot go on.
        let written = "tokens = []\n";
        std::fs::write(&file, written).expect("a file");
        let show = |_: &str| unreachable!("it is not made");
        let why =
            issue(&file, "alice", Role::Viewer, &[], None, show).expect_err("it would be lost");
        assert!(
            why.contains("no token can be put behind what is there"),
            "{why}"
        );
        assert_eq!(std::fs::read_to_string(&file).expect("the file"), written);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named_and_no_hash_is_shown() {
        for (text, named) in [
            (entry("colour = \"red\""), "colour"),
            (entry("projects = []"), "projects"),
            (entry("expires = \"soon\""), "'soon'"),
            (entry(&entry("")), "twice"),
            (entry("").replace("viewer", "god"), "god"),
            (entry("").replace("\"a\"", "\"a b\""), "name of a token"),
            (entry("").replace("abab", "ab"), "64 hex digits"),
            ("tokens = 3".to_owned(), "not of its type"),
            ("[[tokens]]\nsha256 = isimud_abababab".to_owned(), "line 2"),
        ] {
            let why = Tokens::parse(&text).expect_err(named);
            assert!(why.contains(named) && !why.contains("abab"), "{why}");
        }
        assert!(Tokens::parse("").expect("nothing is fine").is_empty());
    }
}
