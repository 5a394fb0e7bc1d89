//! What a queue is called in SQS: at most 80 of `A-Z a-z 0-9 - _`, of which a FIFO queue spends five on its ending
//! (Amazon SQS Developer Guide, "Amazon SQS message quotas").
//!
//! Queues of our own are `PREFIX project _- queue`, with every character that SQS does not allow, and `_` itself,
//! written as `_` and a code, so that the name can be read back. Where that is too long it is `PREFIX readable _h hash`,
//! of which nothing can be read back; the queue's tags tell what it is. `h` is no code, so that the two
//! never meet.
//!
//! With a pattern, names are those of an existing deployment. Two queues, above all of two projects, must not
//! come out as one: see [`Pattern`].

use isimud_contract::{Error, ErrorKind, ProjectId, QueueKey, Result, globs_meet};
use sha2::{Digest, Sha256};

/// The longest name, the ending of FIFO queues included.
const MAX_NAME_LENGTH: usize = 80;

/// What the names of our own queues begin with, unless the pool says otherwise. No pattern of any pool makes such names by
/// chance: no client reaches another pool's queues with a name like that.
pub(crate) const PREFIX: &str = "isimud-";

/// What the names of FIFO queues end in.
const FIFO: &str = ".fifo";

/// Hexadecimal digits of a hash.
const HASH: usize = 32;

/// How queues are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Naming {
    /// They are ours, and begin with this.
    Own(String),
    /// They are called as somebody else calls them.
    Pattern(Pattern),
}

/// A queue's name in SQS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqsName {
    pub(crate) text: String,
    /// Project and queue cannot be read from it.
    pub(crate) hashed: bool,
}

/// A name with `{queue}` in it, and `{project}` where the pool serves more than one.
///
/// Only names that SQS allows as they are take part: queues of letters, digits, `-` and `_`, and projects of letters
/// and digits, which the pattern sets off by `-` or `_`, so that no two pairs give one text. Every other queue, and one
/// whose name looks like a hash, is called `readable _h hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
    /// The only project, where the pattern does not name any.
    project: Option<ProjectId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Project,
    Queue,
}

impl Naming {
    /// What the queue is called. `Unsupported` for a project that the pool is not for.
    pub(crate) fn name(&self, queue: &QueueKey, fifo: bool) -> Result<SqsName> {
        let ending = if fifo { FIFO } else { "" };
        let room = MAX_NAME_LENGTH - ending.len();
        let (begin, salt, plain) = match self {
            Self::Own(prefix) => (prefix.as_str(), String::new(), Some(own(prefix, queue))),
            // Two pools of one project must not have one queue for what neither of them can name.
            Self::Pattern(pattern) => ("", pattern.text() + "\0", pattern.fill(queue)?),
        };
        let plain = plain.filter(|name| name.len() <= room);
        let hashed = plain.is_none();
        let mut text = plain.unwrap_or_else(|| hash(begin, &salt, queue, room));
        text.push_str(ending);
        Ok(SqsName { text, hashed })
    }

    /// Whether queues of this pool could have the names of queues of another one beside it.
    pub(crate) fn meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(one), Self::Own(other)) => one.starts_with(other) || other.starts_with(one),
            (Self::Pattern(one), Self::Pattern(other)) => {
                globs_meet(&one.letters(), &other.letters())
            }
            (Self::Pattern(pattern), Self::Own(prefix))
            | (Self::Own(prefix), Self::Pattern(pattern)) => {
                let is_avoided = prefix.starts_with(PREFIX) && !pattern.start().starts_with(PREFIX);
                let own: Vec<_> = prefix.bytes().map(Some).chain([None]).collect();
                !is_avoided && globs_meet(&pattern.letters(), &own)
            }
        }
    }

    /// A name that no queue has, for asking whether anybody answers.
    pub(crate) fn nobody(&self) -> String {
        match self {
            Self::Own(prefix) => format!("{prefix}ping"),
            Self::Pattern(_) => "isimud-ping".into(),
        }
    }
}

/// Whether SQS takes the text as part of a name.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn own(prefix: &str, queue: &QueueKey) -> String {
    let (project, name) = (queue.project.as_str(), queue.name.as_str());
    format!("{prefix}{}_-{}", escaped(project), escaped(name))
}

/// The text in the alphabet of SQS: `_` begins a code. `__` is `_`, `_d` is `.`, `_t` is `~`, and `_xHH` any other byte.
pub(crate) fn escaped(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'_' => name.push_str("__"),
            b'.' => name.push_str("_d"),
            b'~' => name.push_str("_t"),
            b'-' => name.push('-'),
            b if b.is_ascii_alphanumeric() => name.push(char::from(b)),
            b => name.push_str(&format!("_x{b:02x}")),
        }
    }
    name
}

fn hash(begin: &str, salt: &str, queue: &QueueKey, room: usize) -> String {
    let (project, name) = (queue.project.as_str(), queue.name.as_str());
    let digest = Sha256::digest(format!("{salt}{project}\0{name}"));
    let readable = format!("{project}-{name}");
    let readable = readable
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(room.saturating_sub(begin.len() + 2 + HASH));
    let mut text: String = begin.chars().chain(readable).collect();
    text.push_str("_h");
    for byte in &digest[..HASH / 2] {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Whether a name could be one that [`hash`] gives.
fn looks_hashed(text: &str) -> bool {
    text.rsplit_once("_h")
        .is_some_and(|(_, end)| end.len() == HASH && end.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl Pattern {
    /// Reads a pattern; the error is a sentence's begin.
    pub(crate) fn parse(text: &str, project: Option<ProjectId>) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let (word, after) = after.split_once('}').ok_or("a '{' in 'name' has no '}'")?;
            parts.push(match word {
                "queue" => Part::Queue,
                "project" => Part::Project,
                _ => return Err("'name' knows '{queue}' and '{project}' alone"),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        let pattern = Self { parts, project };
        pattern.check()?;
        Ok(pattern)
    }

    fn check(&self) -> Result<(), &'static str> {
        let place = |wanted: &Part| {
            let mut found = self
                .parts
                .iter()
                .enumerate()
                .filter(|(_, part)| *part == wanted);
            (found.next().map(|(at, _)| at), found.next().is_some())
        };
        let texts = |parts: &[Part]| -> String {
            let text = |part: &Part| match part {
                Part::Text(text) => text.clone(),
                _ => String::new(),
            };
            parts.iter().map(text).collect()
        };
        if !is_plain(&texts(&self.parts)) {
            return Err(
                "'name' has a character that SQS does not allow ('.fifo' is added by 'fifo=true')",
            );
        }
        let (Some(queue), false) = place(&Part::Queue) else {
            return Err("'name' needs '{queue}' once");
        };
        match (place(&Part::Project), &self.project) {
            ((_, true), _) => Err("'name' has '{project}' twice"),
            ((Some(_), _), Some(_)) => Err("'project' is for a 'name' without '{project}'"),
            ((None, _), None) => {
                Err("a 'name' without '{project}' needs 'project', or projects would share queues:")
            }
            ((None, _), Some(_)) => Ok(()),
            ((Some(project), _), None) => {
                let between = &self.parts[queue.min(project)..=queue.max(project)];
                if texts(between).contains(['-', '_']) {
                    Ok(())
                } else {
                    Err("'name' needs a '-' or '_' between '{project}' and '{queue}'")
                }
            }
        }
    }

    /// The name, or none if the queue's has no place in it.
    fn fill(&self, queue: &QueueKey) -> Result<Option<String>> {
        let (project, name) = (queue.project.as_str(), queue.name.as_str());
        if self
            .project
            .as_ref()
            .is_some_and(|only| *only != queue.project)
        {
            let sentence = "this pool holds the queues of another project alone";
            return Err(Error::new(ErrorKind::Unsupported, sentence));
        }
        let shown = self.project.is_some() || project.bytes().all(|b| b.is_ascii_alphanumeric());
        let text: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Project => project,
                Part::Queue => name,
            })
            .collect();
        let is_ours = text.starts_with(PREFIX) && !self.start().starts_with(PREFIX);
        Ok((shown && is_plain(name) && !looks_hashed(&text) && !is_ours).then_some(text))
    }

    /// The pattern as it was written.
    fn text(&self) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Project => "{project}".to_owned(),
            Part::Queue => "{queue}".to_owned(),
        };
        self.parts.iter().map(text).collect()
    }

    /// What every name begins with.
    fn start(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The names that it makes, byte by byte; `None` is anything.
    fn letters(&self) -> Vec<Option<u8>> {
        let letters = |part: &Part| match part {
            Part::Text(text) => text.bytes().map(Some).collect(),
            _ => vec![None],
        };
        self.parts.iter().flat_map(letters).collect()
    }
}

/// Tags for people, on a queue whose name does not tell what it is: at most 256 characters each.
pub(crate) fn tags(queue: &QueueKey) -> [(&'static str, String); 2] {
    let value = |text: &str| escaped(text).chars().take(256).collect();
    [
        ("isimud:project", value(queue.project.as_str())),
        ("isimud:queue", value(queue.name.as_str())),
    ]
}

#[cfg(test)]
mod tests {
    use isimud_contract::QueueName;

    use super::*;

    fn key(project: &str, name: &str) -> QueueKey {
        QueueKey::new(
            ProjectId::parse(project).unwrap(),
            QueueName::parse_stored(name).unwrap(),
        )
    }

    fn own_name(project: &str, name: &str, fifo: bool) -> SqsName {
        Naming::Own("isimud-".into())
            .name(&key(project, name), fifo)
            .unwrap()
    }

    /// Reads an escaped text back.
    fn unescaped(text: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'_' => match rest.next()? {
                    b'_' => b'_',
                    b'd' => b'.',
                    b't' => b'~',
                    b'x' => {
                        let digits = [rest.next()?, rest.next()?];
                        u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                    }
                    _ => return None,
                },
                byte => byte,
            });
        }
        String::from_utf8(bytes).ok()
    }

    /// Splits one of our names at the first `_-` that begins a code.
    fn read_back(name: &str) -> Option<(String, String)> {
        let name = name.strip_prefix("isimud-")?;
        let mut at = 0;
        while at < name.len() {
            match &name.as_bytes()[at..] {
                [b'_', b'-', ..] => {
                    return Some((unescaped(&name[..at])?, unescaped(&name[at + 2..])?));
                }
                [b'_', ..] => at += 2,
                _ => at += 1,
            }
        }
        None
    }

    fn fits(name: &str) {
        let plain = name.strip_suffix(FIFO).unwrap_or(name);
        assert!(name.len() <= MAX_NAME_LENGTH && is_plain(plain), "{name}");
    }

    #[test]
    fn short_names_can_be_read_back() {
        for (project, queue) in [
            ("p", "orders"),
            ("c8cbd19a842e47948e253d5e2df00f2b", "my_queue.v2"),
            ("a_-b", "c"),
            ("a", "-b-c"),
            ("a_", "-c"),
            ("é/ü", "~topic~3"),
            ("p", "~~internal"),
        ] {
            let name = own_name(project, queue, false);
            assert!(!name.hashed);
            fits(&name.text);
            let read = read_back(&name.text).expect(&name.text);
            assert_eq!(
                read,
                (project.to_owned(), queue.to_owned()),
                "{}",
                name.text
            );
            let fifo = own_name(project, queue, true);
            assert_eq!(fifo.text, format!("{}.fifo", name.text));
        }
    }

    #[test]
    fn long_names_are_hashed_and_never_the_same() {
        let mut seen = std::collections::HashSet::new();
        for (project, queue) in [
            ("c8cbd19a842e47948e253d5e2df00f2b", "x".repeat(64)),
            ("c8cbd19a842e47948e253d5e2df00f2b", "x".repeat(63) + "y"),
            ("d8cbd19a842e47948e253d5e2df00f2b", "x".repeat(64)),
            (&"ä".repeat(256), "q".into()),
            (&"p".repeat(256), "q~1".into()),
        ] {
            for fifo in [false, true] {
                let name = own_name(project, &queue, fifo);
                assert!(name.hashed);
                fits(&name.text);
                assert_eq!(read_back(&name.text), None);
                assert!(seen.insert(name.text));
            }
            for (_, value) in tags(&key(project, &queue)) {
                assert!(value.len() <= 256 && is_plain(&value));
            }
        }
    }

    fn pattern(text: &str, project: Option<&str>) -> Result<Naming, &'static str> {
        let project = project.map(|project| ProjectId::parse(project).unwrap());
        Pattern::parse(text, project).map(Naming::Pattern)
    }

    #[test]
    fn existing_queues_keep_their_names() {
        let one = pattern("prod-{queue}-v2", Some("p")).unwrap();
        let name = |naming: &Naming, project, queue| naming.name(&key(project, queue), true);
        assert_eq!(
            name(&one, "p", "my_orders").unwrap().text,
            "prod-my_orders-v2.fifo"
        );
        assert_eq!(
            name(&one, "other", "q").unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        let many = pattern("{project}_{queue}", None).unwrap();
        assert_eq!(name(&many, "abc", "d").unwrap().text, "abc_d.fifo");
        for (project, queue) in [("a-b", "c"), ("a", "b.c"), ("a", "~b"), ("a", "b~1")] {
            let name = name(&many, project, queue).unwrap();
            assert!(name.hashed, "{name:?}");
            fits(&name.text);
        }
    }

    #[test]
    fn no_two_existing_queues_have_one_name() {
        let many = pattern("{project}-{queue}", None).unwrap();
        let name = |project, queue: &str| many.name(&key(project, queue), false).unwrap();
        assert_ne!(name("a-b", "c").text, name("a", "b-c").text);
        // Who knows how names are hashed cannot take another's.
        let victim = name("a-b", "c").text;
        let thief = victim.strip_prefix("a-").unwrap();
        assert_ne!(name("a", thief).text, victim);
    }

    #[test]
    fn no_client_reaches_the_queues_that_are_made_here_by_a_name() {
        let estate = pattern("{queue}", Some("p")).unwrap();
        let name = |naming: &Naming, queue| naming.name(&key("p", queue), false).unwrap();
        let victim = own_name("victim", "orders", false).text;
        assert!(victim.starts_with(PREFIX), "{victim}");
        assert!(name(&estate, &victim).hashed);
        assert_eq!(name(&estate, "orders").text, "orders");
        let named = pattern("isimud-{queue}", Some("p")).unwrap();
        assert_eq!(name(&named, "orders").text, "isimud-orders");
    }

    #[test]
    fn pools_whose_names_could_meet_are_told_from_those_that_keep_apart() {
        let own = |prefix: &str| Naming::Own(prefix.into());
        let estate = |text| pattern(text, Some("p")).unwrap();
        for (one, other, meet) in [
            (own("a-"), own("a-"), true),
            (own("a-"), own("a-b"), true),
            (own("a-"), own("b-"), false),
            (own(PREFIX), estate("{queue}"), false),
            (own("a-"), estate("{queue}"), true),
            (own(PREFIX), estate("isimud-{queue}"), true),
            (estate("a-{queue}"), estate("b-{queue}"), false),
            (estate("a-{queue}"), estate("{queue}-b"), true),
        ] {
            assert_eq!(one.meet(&other), meet, "{one:?} {other:?}");
            assert_eq!(other.meet(&one), meet, "{other:?} {one:?}");
        }
    }

    #[test]
    fn patterns_that_would_mix_projects_are_refused() {
        for (text, project) in [
            ("fixed", Some("p")),
            ("{queue}", None),
            ("{project}", None),
            ("{project}{queue}", None),
            ("{project}x{queue}", None),
            ("{project}-{queue}", Some("p")),
            ("{queue}-{queue}", Some("p")),
            ("{project}-{project}-{queue}", None),
            ("{queue}.fifo", Some("p")),
            ("{queue", Some("p")),
            ("{tenant}-{queue}", None),
        ] {
            assert!(pattern(text, project).is_err(), "{text}");
        }
    }

    #[test]
    fn pools_of_one_project_share_no_queue_that_neither_pattern_can_name() {
        let name = |pattern: &str, queue: &str| {
            let project = ProjectId::parse("p").unwrap();
            let pattern = Pattern::parse(pattern, Some(project)).unwrap();
            let named = Naming::Pattern(pattern).name(&key("p", queue), false);
            named.unwrap()
        };
        for queue in ["orders~1", "with.point"] {
            let (prod, test) = (name("prod-{queue}", queue), name("test-{queue}", queue));
            assert!(prod.hashed && test.hashed);
            assert_ne!(prod.text, test.text, "{queue}");
            assert_eq!(prod, name("prod-{queue}", queue));
        }
    }
}
