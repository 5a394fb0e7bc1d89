//! Why RabbitMQ has closed a publishing channel, and whose message it was about.
//!
//! Callers share the channel, and a message that is refused so costs all of them what was not confirmed yet. The one whose
//! message it was is told for good; the others are published again, on another channel.

use isimud_contract::{Error, ErrorKind};

use crate::error::told;
use crate::publisher::Target;

/// What RabbitMQ said when it closed the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closing {
    /// A message is larger than this node takes, in bytes.
    TooLarge { limit: usize },
    /// There is no exchange of this name, or the user may not write to it.
    Exchange(String),
    /// Something else, or nobody knows.
    Other,
}

impl Closing {
    /// Reads it from the error of a message that was not confirmed.
    pub(crate) fn of(error: &Error) -> Self {
        let Some((code, text)) = told(error) else {
            return Self::Other;
        };
        match code {
            406 => limit(text).map_or(Self::Other, |limit| Self::TooLarge { limit }),
            403 | 404 => {
                let name = text
                    .split_once("exchange '")
                    .and_then(|(_, it)| it.split_once('\''));
                name.map_or(Self::Other, |(name, _)| Self::Exchange(name.to_owned()))
            }
            _ => Self::Other,
        }
    }

    /// Whether it is about messages with that target.
    pub(crate) fn is_about(&self, target: &Target) -> bool {
        matches!(self, Self::Exchange(name) if name == target.exchange.as_str())
    }
}

/// The size that the node's `max_message_size` allows (RabbitMQ, `rabbit_channel`, `check_msg_size`).
fn limit(text: &str) -> Option<usize> {
    let (_, limit) = text.split_once("larger than configured max size ")?;
    let digits = limit.split(|it: char| !it.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The answer for a message that is larger than the node takes. Trying again would not help.
pub(crate) fn too_large(size: usize, limit: usize) -> Error {
    let sentence = format!(
        "a message of {size} bytes is too large: the RabbitMQ of this pool takes {limit} bytes"
    );
    Error::new(ErrorKind::Invalid, sentence)
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;
    use crate::error::from_lapin;

    fn closing(code: u16, text: &str) -> Closing {
        let told = AMQPError::from_id(code, text.into()).expect("a reply code");
        let error = lapin::ErrorKind::ProtocolError(told);
        Closing::of(&from_lapin(error.into()))
    }

    #[test]
    fn the_message_that_closed_a_channel_is_told_from_its_neighbours() {
        let text =
            "PRECONDITION_FAILED - message size 70000 is larger than configured max size 65536";
        assert_eq!(closing(406, text), Closing::TooLarge { limit: 65536 });
        let text = "NOT_FOUND - no exchange 'events' in vhost '/'";
        let missing = closing(404, text);
        assert_eq!(missing, Closing::Exchange("events".into()));
        let target = |exchange: &str| Target {
            exchange: exchange.into(),
            routing_key: "q".into(),
        };
        assert!(missing.is_about(&target("events")));
        assert!(!missing.is_about(&target("")));
        let text = "ACCESS_REFUSED - access to exchange 'amq.x' in vhost '/' refused for user 'u'";
        assert_eq!(closing(403, text), Closing::Exchange("amq.x".into()));
        assert_eq!(closing(406, "PRECONDITION_FAILED - else"), Closing::Other);
        let silent = Error::new(ErrorKind::Unavailable, "late");
        assert_eq!(Closing::of(&silent), Closing::Other);
    }
}
