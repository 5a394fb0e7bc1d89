//! The names of things. A value of one of these types is valid; parsing is the only way to make one from text.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// The name or the id is outside its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name is outside its rules")
    }
}

impl std::error::Error for InvalidName {}

/// A tenant: 1 to 256 characters of any kind (spec: http.md 1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectId(Arc<str>);

impl ProjectId {
    /// Accepts any non-empty text of at most 256 characters.
    pub fn parse(text: &str) -> std::result::Result<Self, InvalidName> {
        if (1..=256).contains(&text.chars().count()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName)
        }
    }

    /// The id as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A queue's name inside its project: 1 to 64 of `a-z A-Z 0-9 _ - .` (spec: http.md 1), but neither `.` nor `..`.
///
/// The reference takes those two; but in a path they are steps, which clients and proxies take before a request is sent
/// on, so that a call about such a queue becomes one about another resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Accepts exactly the specified alphabet and length, apart from `.` and `..`; a trailing newline is refused (quirk
    /// Q-HTTP-4).
    pub fn parse(text: &str) -> std::result::Result<Self, InvalidName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let is_step = matches!(text, "." | "..");
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !is_step {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName)
        }
    }

    /// The queue that keeps a topic's messages: `~` and the topic's name. No client can name it as a queue, so that a
    /// topic and a queue of one name have nothing in common.
    #[must_use]
    pub fn of_topic(topic: &Self) -> Self {
        Self(format!("~{}", topic.0).into())
    }

    /// A queue that the service keeps for itself: `~~` and a name. No client can name it.
    #[must_use]
    pub fn internal(name: &Self) -> Self {
        Self(format!("~~{}", name.0).into())
    }

    /// Generation `number` of a queue whose messages are in several places (see [`Segment`](crate::Segment));
    /// generation 0 has the queue's own name, any other one that no client can write.
    #[must_use]
    pub fn generation(&self, number: u32) -> Self {
        match number {
            0 => self.clone(),
            number => Self(format!("{}~{number}", self.0).into()),
        }
    }

    /// Reads a name as a store keeps it, those included that only the service makes.
    pub fn parse_stored(text: &str) -> std::result::Result<Self, InvalidName> {
        let plain = text
            .strip_prefix("~~")
            .or_else(|| text.strip_prefix('~'))
            .unwrap_or(text);
        let plain = match plain.split_once('~') {
            None => plain,
            Some((plain, generation)) => {
                let canonical = generation.parse::<u32>().is_ok_and(|number| number > 0)
                    && !generation.starts_with(['0', '+']);
                if !canonical {
                    return Err(InvalidName);
                }
                plain
            }
        };
        Self::parse(plain)?;
        Ok(Self(text.into()))
    }

    /// Whether it names a later generation of a queue (see [`QueueName::generation`]), which only the service makes and
    /// knows.
    pub fn has_generation(&self) -> bool {
        self.shown().contains('~')
    }

    /// Whether it is a topic's (see [`QueueName::of_topic`]).
    pub fn is_topic(&self) -> bool {
        self.0.starts_with('~') && !self.0.starts_with("~~")
    }

    /// The name as the client wrote it: without what marks a topic.
    pub fn shown(&self) -> &str {
        self.0.trim_start_matches('~')
    }

    /// The name as stores keep it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name of 1 to 64 characters of any kind but control characters, for what operators name.
macro_rules! operators_name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Accepts 1 to 64 characters, none of them a control character.
            pub fn parse(text: &str) -> std::result::Result<Self, InvalidName> {
                let fits = (1..=64).contains(&text.chars().count());
                if fits && !text.chars().any(char::is_control) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName)
                }
            }

            /// The name as the operator wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

operators_name! {
    /// Names a pool. One name space for the whole service.
    PoolName
}

operators_name! {
    /// Names a flavor. One name space for the whole service, as pools refer to it without a project.
    FlavorName
}

/// A queue of a project: the address of every message operation. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    /// The tenant.
    pub project: ProjectId,
    /// The queue's name inside it.
    pub name: QueueName,
}

impl QueueKey {
    /// Joins a project and a queue name.
    pub fn new(project: ProjectId, name: QueueName) -> Self {
        Self { project, name }
    }

    /// Generation `number` of this queue, as [`QueueName::generation`].
    #[must_use]
    pub fn generation(&self, number: u32) -> Self {
        Self::new(self.project.clone(), self.name.generation(number))
    }
}

/// Names a message for as long as it lives, in whatever store it is.
///
/// The server mints ids (UUID version 7), and imported messages keep the id that they had, of any version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// Reads the canonical form only: ids are compared byte for byte, so an upper-case copy names nothing.
    pub fn parse(text: &str) -> Option<Self> {
        parse_canonical(text).map(Self)
    }
}

/// Names a claim for as long as it runs. A claim id is used for one claim only; the default names none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClaimId(pub Uuid);

impl ClaimId {
    /// Reads the canonical form only, as for messages.
    pub fn parse(text: &str) -> Option<Self> {
        parse_canonical(text).map(Self)
    }
}

/// Names a subscription. The server mints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub Uuid);

impl SubscriptionId {
    /// Reads the canonical form only, as for messages.
    pub fn parse(text: &str) -> Option<Self> {
        parse_canonical(text).map(Self)
    }
}

/// Who posted a message: what the `Client-ID` header said. Listings without `echo` leave out the asker's own messages.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ClientId {
    /// A UUID in any of its spellings, normalised.
    Uuid(Uuid),
    /// Any other text, where configuration allows it.
    Text(Arc<str>),
}

/// A UUID in lower-case hyphenated form, and in no other.
fn parse_canonical(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse_ascii(text.as_bytes()).ok()?;
    let mut canonical = [0; uuid::fmt::Hyphenated::LENGTH];
    (id.as_hyphenated().encode_lower(&mut canonical) == text).then_some(id)
}

macro_rules! shown_as_text {
    ($($type:ty: $me:ident => $text:expr;)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $me = self;
                fmt::Display::fmt(&$text, f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

shown_as_text! {
    ProjectId: id => id.0;
    QueueName: name => name.0;
    QueueKey: key => format_args!("{}/{}", key.project, key.name);
    MessageId: id => id.0.as_hyphenated();
    ClaimId: id => id.0.as_hyphenated();
    SubscriptionId: id => id.0.as_hyphenated();
    PoolName: name => name.0;
    FlavorName: name => name.0;
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(id) => fmt::Display::fmt(id, f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_names_have_one_alphabet_and_one_length() {
        let longest = "x".repeat(64);
        for good in ["a", "A-b_c.9", longest.as_str()] {
            assert_eq!(QueueName::parse(good).expect(good).as_str(), good);
        }
        let too_long = "x".repeat(65);
        for bad in ["", "a b", "a\n", "a/b", "ä", too_long.as_str()] {
            assert_eq!(QueueName::parse(bad), Err(InvalidName), "{bad:?}");
        }
    }

    #[test]
    fn what_the_service_names_no_client_can_name() {
        let q = QueueName::parse("q.1").expect("a name");
        let long = QueueName::parse(&"x".repeat(64)).expect("a name");
        for name in [
            QueueName::of_topic(&q),
            QueueName::internal(&q),
            q.generation(1),
            QueueName::of_topic(&long).generation(u32::MAX),
        ] {
            assert_eq!(QueueName::parse(name.as_str()), Err(InvalidName), "{name}");
            assert_eq!(QueueName::parse_stored(name.as_str()), Ok(name));
        }
        assert_eq!(q.generation(0), q);
        assert_eq!(QueueName::of_topic(&q).shown(), "q.1");
        for bad in [
            "", "~", "~~", "~~~a", "a~", "a~0", "a~01", "a~+1", "a~1~1", "a~x",
        ] {
            assert_eq!(QueueName::parse_stored(bad), Err(InvalidName), "{bad:?}");
        }
    }

    #[test]
    fn operators_may_use_any_printable_character() {
        assert!(PoolName::parse("a b!/%ä").is_ok());
        for bad in ["", "a\n", "\0", "ä".repeat(65).as_str()] {
            assert!(PoolName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn project_ids_are_counted_in_characters() {
        assert!(ProjectId::parse(&"ä".repeat(256)).is_ok());
        assert!(ProjectId::parse(&"ä".repeat(257)).is_err());
        assert!(ProjectId::parse("").is_err());
    }

    #[test]
    fn ids_are_read_in_canonical_form_only() {
        let canonical = "c8cbd19a-842e-4794-8e25-3d5e2df00f2b";
        assert_eq!(
            MessageId::parse(canonical).expect("canonical").to_string(),
            canonical
        );
        for other in [
            &canonical.to_uppercase(),
            &canonical.replace('-', ""),
            &format!("{{{canonical}}}"),
            "abc",
            "",
        ] {
            assert_eq!(MessageId::parse(other), None, "{other:?}");
        }
    }
}
