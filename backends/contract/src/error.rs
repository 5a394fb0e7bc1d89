//! One error for every backend. Its kind says what a caller can do about it; everything else is for people.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The result of every call to a backend.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Under this name ([`Error::with`]) an `Unavailable` has a sentence that a client may be told: why it is to wait.
pub const REASON: &str = "reason";

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The thing does not exist.
    NotFound(Resource),
    /// Something of that name exists.
    AlreadyExists(Resource),
    /// A live claim holds the message.
    Claimed,
    /// No live claim holds the message.
    NotClaimed,
    /// Something has as much as it may have; the message says so and is meant for the client.
    Full,
    /// The thing is needed by another.
    InUse(Resource),
    /// The request is outside the rules; the message says which and is meant for the client.
    Invalid,
    /// The caller may not do this; the message says why and is meant for the client.
    Forbidden,
    /// The store cannot do this, now or later; the message says why and is meant for the client.
    Unsupported,
    /// The backend cannot answer now. Trying again is right.
    Unavailable,
    /// Something is broken that trying again will not mend.
    Internal,
}

/// What an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A queue.
    Queue,
    /// A message.
    Message,
    /// A claim.
    Claim,
    /// A key of a queue's metadata.
    MetadataKey,
    /// A pool.
    Pool,
    /// A flavor.
    Flavor,
    /// A subscription.
    Subscription,
}

/// An error: a kind, a sentence, what it happened to, and what caused it. One pointer wide.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    sentence: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a kind, with a sentence for people.
    pub fn new(kind: ErrorKind, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            sentence: sentence.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// Something does not exist.
    pub fn not_found(what: Resource) -> Self {
        let sentence = match what {
            Resource::Queue => "queue not found",
            Resource::Message => "message not found",
            Resource::Claim => "claim not found",
            Resource::MetadataKey => "metadata key not found",
            Resource::Pool => "pool not found",
            Resource::Flavor => "flavor not found",
            Resource::Subscription => "subscription not found",
        };
        Self::new(ErrorKind::NotFound(what), sentence)
    }

    /// The request is outside the rules; the sentence is shown to the client.
    pub fn invalid(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, sentence)
    }

    /// A queue has as many messages as it may; the sentence is shown to the client.
    pub fn full(most: u64) -> Self {
        let sentence = format!("This queue may have {most} messages, and has no room for these.");
        Self::new(ErrorKind::Full, sentence)
    }

    /// Adds what the error happened to.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What it happened to, as [`Error::with`] added it.
    pub fn about(&self, key: &str) -> Option<&str> {
        let mut context = self.0.context.iter();
        let (_, value) = context.find(|(known, _)| *known == key)?;
        Some(value)
    }

    /// The sentence alone, without context and cause.
    pub fn sentence(&self) -> &str {
        &self.0.sentence
    }
}

impl fmt::Display for Error {
    /// One line for an operator: sentence, context, causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.sentence)?;
        for (at, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{key}: {value}", if at == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_says_what_where_and_why() {
        let error = Error::new(ErrorKind::Unavailable, "the disk is full")
            .with("queue", "p/q")
            .with("operation", "post")
            .caused_by(std::io::Error::other("no space"));
        assert_eq!(
            error.to_string(),
            "the disk is full (queue: p/q, operation: post): no space"
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.about("operation"), Some("post"));
        assert_eq!(error.about("disk"), None);
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
