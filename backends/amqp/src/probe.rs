//! What kind of queue somebody else's is, asked without touching it.
//!
//! A `basic.get` on a stream costs the whole connection and everything that is held on it, and AMQP has no question for
//! the kind of a queue. But a declaration with a kind that does not exist is always refused, and RabbitMQ says what is
//! wrong with it: where there is a queue, which of its arguments differs and what it is; where there is none, that there
//! is no such kind. An argument that it names is repeated in the next declaration, until it names the kind. Whoever may not
//! declare the queue is told nothing of that.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

/// A kind of queue that nobody has.
pub(crate) const QUESTION: &str = "isimud-asks";

/// A queue has no more arguments than this.
pub(crate) const ROUNDS: usize = 20;

/// What RabbitMQ said.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// A queue that can be used.
    Usable,
    /// No queue.
    Missing,
    /// An argument of the queue.
    Argument(String, AMQPValue),
    /// A queue that cannot be used, and why.
    Unusable(&'static str),
    /// The user may not declare the queue, so RabbitMQ says nothing of it.
    Forbidden,
    /// Something else is the matter.
    Failed,
}

/// For how long a queue with these arguments keeps a message. It is among those that RabbitMQ names before the kind.
pub(crate) fn message_ttl(arguments: &FieldTable) -> Option<Duration> {
    match arguments.inner().get("x-message-ttl")? {
        AMQPValue::LongLongInt(ms) => u64::try_from(*ms).ok().map(Duration::from_millis),
        _ => None,
    }
}

/// Reads the refusal of a declaration.
pub(crate) fn read(refusal: &lapin::Error) -> Found {
    let lapin::ErrorKind::ProtocolError(told) = refusal.kind() else {
        return Found::Failed;
    };
    match told.get_id() {
        403 => Found::Forbidden,
        405 => Found::Unusable("the RabbitMQ queue is another connection's alone"),
        406 => read_text(told.get_message().as_str()),
        _ => Found::Failed,
    }
}

fn read_text(text: &str) -> Found {
    if text.contains("invalid arg 'x-queue-type'") {
        return Found::Missing;
    }
    let Some((_, rest)) = text.split_once("inequivalent arg '") else {
        return Found::Failed;
    };
    let name = rest.split('\'').next().unwrap_or_default();
    let current = rest.rsplit_once("but current is ").map_or("", |(_, it)| it);
    match (name, value(current)) {
        // Only queues that are no streams and no quorum queues may be so.
        ("durable" | "auto_delete" | "exclusive", _) => Found::Usable,
        ("x-queue-type", Some(AMQPValue::LongString(it))) if it.as_bytes() == b"stream" => {
            Found::Unusable("the RabbitMQ queue is a stream, from which nothing can be taken out")
        }
        ("x-queue-type", _) => Found::Usable,
        ("x-single-active-consumer", _) => Found::Unusable(
            "the RabbitMQ queue has a single active consumer, which nothing here can be",
        ),
        (name, Some(value)) => Found::Argument(name.to_owned(), value),
        // An argument of which no more is said. Streams have few, so this is none as far as anybody can tell.
        (_, None) => Found::Usable,
    }
}

/// Reads how RabbitMQ shows a value: `none`, `'text'`, or `the value 'text' of type 'kind'`.
fn value(shown: &str) -> Option<AMQPValue> {
    if let Some(text) = quoted(shown) {
        return Some(AMQPValue::LongString(text.into()));
    }
    let (text, kind) = shown.strip_prefix("the value ")?.split_once(" of type ")?;
    let (text, kind) = (quoted(text)?, quoted(kind)?);
    match kind {
        "longstr" => Some(AMQPValue::LongString(text.into())),
        "bool" => text.parse().ok().map(AMQPValue::Boolean),
        "float" | "double" => text.parse().ok().map(AMQPValue::Double),
        _ => text.parse().ok().map(AMQPValue::LongLongInt),
    }
}

fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('\'')?.strip_suffix('\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "PRECONDITION_FAILED - inequivalent arg";

    #[test]
    fn refusals_of_3_10_are_understood() {
        let usable = [
            "'x-queue-type' for queue 'c' in vhost '/': received the value 'isimud-asks' of type 'longstr' but current \
             is none",
            "'x-queue-type' for queue 'q' in vhost '/': received 'isimud-asks' but current is 'quorum'",
            "'durable' for queue 'nd' in vhost '/': received 'true' but current is 'false'",
        ];
        for text in usable {
            assert_eq!(
                read_text(&format!("{START} {text}")),
                Found::Usable,
                "{text}"
            );
        }
        let stream = "'x-queue-type' for queue 's' in vhost '/': received 'isimud-asks' but current is 'stream'";
        assert!(matches!(
            read_text(&format!("{START} {stream}")),
            Found::Unusable(_)
        ));
        let single = "'x-single-active-consumer' for queue 'sac' in vhost '/': received none but current is the value \
                      'true' of type 'bool'";
        assert!(matches!(
            read_text(&format!("{START} {single}")),
            Found::Unusable(_)
        ));
        let missing = "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'm' in vhost '/': \"unsupported\"";
        assert_eq!(read_text(missing), Found::Missing);
        assert_eq!(read_text("PRECONDITION_FAILED - whatever"), Found::Failed);
    }

    #[test]
    fn arguments_are_repeated_as_they_were_shown() {
        let says = |name: &str, shown: &str| {
            read_text(&format!(
                "{START} '{name}' for queue 'it's' in vhost '/': received none but current is {shown}"
            ))
        };
        let argument = |name: &str, value| Found::Argument(name.to_owned(), value);
        assert_eq!(
            says("x-max-length", "the value '10' of type 'signedint'"),
            argument("x-max-length", AMQPValue::LongLongInt(10))
        );
        assert_eq!(
            says(
                "x-dead-letter-exchange",
                "the value 'dlx' of type 'longstr'"
            ),
            argument(
                "x-dead-letter-exchange",
                AMQPValue::LongString("dlx".into())
            )
        );
        assert_eq!(
            says("x-overflow", "'reject-publish'"),
            argument("x-overflow", AMQPValue::LongString("reject-publish".into()))
        );
    }
}
