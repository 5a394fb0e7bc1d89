//! What RabbitMQ and its client say, as kinds (AMQP 0-9-1 reference, "Reply codes").

use isimud_contract::{Error, ErrorKind};
use lapin::ErrorKind as Told;

/// What a caller can do about an error of RabbitMQ.
pub(crate) fn from_lapin(error: lapin::Error) -> Error {
    let (kind, sentence) = judge(&error);
    Error::new(kind, sentence).caused_by(error)
}

/// The code with which the server closed a channel or a connection.
pub(crate) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        Told::ProtocolError(told) => Some(told.get_id()),
        _ => None,
    }
}

/// The code and the text with which the server closed a channel or a connection, where that is what an error comes from.
pub(crate) fn told(error: &Error) -> Option<(u16, &str)> {
    let source = std::error::Error::source(error)?;
    match source.downcast_ref::<lapin::Error>()?.kind() {
        Told::ProtocolError(told) => Some((told.get_id(), told.get_message().as_str())),
        _ => None,
    }
}

/// Whether RabbitMQ said that the queue is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    told(error).is_some_and(|(code, _)| code == 404)
}

fn judge(error: &lapin::Error) -> (ErrorKind, &'static str) {
    use ErrorKind::{Internal, Unavailable, Unsupported};
    if let Some(code) = code(error) {
        return match code {
            311 => (Unsupported, "the message is larger than RabbitMQ takes"),
            320 => (Unavailable, "RabbitMQ is being stopped"),
            // A login is refused with the same code as a right that is missing, but on a connection that is not open.
            403 => (Internal, "RabbitMQ does not let this user do this"),
            404 => (Unavailable, "RabbitMQ has lost the queue or the exchange"),
            405 => (
                Unsupported,
                "the RabbitMQ queue is another connection's alone",
            ),
            406 => (Unavailable, "RabbitMQ has closed the channel"),
            506 | 541 => (Unavailable, "RabbitMQ is out of resources, or failed"),
            530 => (
                Internal,
                "RabbitMQ does not let this user into the virtual host, or there is none",
            ),
            540 => (Unsupported, "this kind of RabbitMQ queue cannot be used"),
            _ => (Internal, "RabbitMQ does not understand this version"),
        };
    }
    let text = error.to_string();
    if text.contains("invalid peer certificate") {
        return (
            Unavailable,
            "the certificate of RabbitMQ is not trusted; 'ca_file' names whom to trust",
        );
    }
    if text.contains("received fatal alert") {
        return (
            Unavailable,
            "RabbitMQ refuses the TLS connection; 'cert_file' and 'key_file' are for a server that asks who is there",
        );
    }
    match error.kind() {
        Told::ChannelsLimitReached => (Unavailable, "RabbitMQ allows no more channels"),
        Told::InvalidProtocolVersion(_) | Told::ParsingError(_) | Told::SerialisationError(_) => {
            (Internal, "RabbitMQ does not understand this version")
        }
        _ => (Unavailable, "RabbitMQ cannot be reached"),
    }
}

/// An error of a connection that is being made.
pub(crate) fn while_connecting(error: lapin::Error) -> Error {
    match code(&error) {
        Some(403) => Error::new(
            ErrorKind::Unavailable,
            "RabbitMQ refuses the user or the password",
        )
        .caused_by(error),
        Some(530) => Error::new(
            ErrorKind::Unavailable,
            "RabbitMQ does not let this user into the virtual host, or there is none",
        )
        .caused_by(error),
        _ => from_lapin(error),
    }
}

fn unavailable(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, sentence)
}

/// The answer when nothing came back in time.
pub(crate) fn too_late() -> Error {
    unavailable("RabbitMQ does not answer in time")
}

/// The answer for a queue that has let others wait in vain.
pub(crate) fn stalled() -> Error {
    unavailable("the RabbitMQ queue does not answer")
}

/// The answer when a new connection opens no channel either.
pub(crate) fn no_channel() -> Error {
    unavailable("RabbitMQ opens no more channels for this server")
}

/// The answer after a close.
pub(crate) fn closed() -> Error {
    unavailable("the AMQP broker is closed")
}

/// The answer to a post while the server has an alarm.
pub(crate) fn blocked() -> Error {
    unavailable("RabbitMQ takes no messages now: it is out of memory or of disk space")
}

/// The answer to a post that the queue refused.
pub(crate) fn refused() -> Error {
    unavailable("the RabbitMQ queue takes no more messages now")
}

/// The answer to a post that reached no queue.
pub(crate) fn unroutable() -> Error {
    Error::new(
        ErrorKind::Internal,
        "RabbitMQ has no queue for what is published with this exchange and routing key",
    )
}

/// The answer to a claim of a server that holds as much as it may.
pub(crate) fn full() -> Error {
    unavailable("this server holds as many deliveries of RabbitMQ as 'max_held' allows")
}

/// The answer to an answer that no server gives.
pub(crate) fn strange() -> Error {
    Error::new(
        ErrorKind::Internal,
        "RabbitMQ answers what this version does not understand",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_failures_are_told_from_lasting_ones() {
        use lapin::protocol::AMQPError;
        for (code, kind) in [
            (311, ErrorKind::Unsupported),
            (320, ErrorKind::Unavailable),
            (403, ErrorKind::Internal),
            (404, ErrorKind::Unavailable),
            (541, ErrorKind::Unavailable),
            (540, ErrorKind::Unsupported),
        ] {
            let told = AMQPError::from_id(code, "why".into()).expect("a reply code");
            let error = lapin::Error::from(Told::ProtocolError(told));
            assert_eq!(from_lapin(error).kind(), kind, "{code}");
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(from_lapin(refused.into()).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_login_that_is_refused_may_be_mended() {
        let told = lapin::protocol::AMQPError::from_id(403, "no".into()).expect("a reply code");
        let error = while_connecting(Told::ProtocolError(told).into());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn who_is_not_trusted_is_told_from_who_is_away() {
        use rustls::{CertificateError, Error as Tls};
        let distrust = Tls::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = from_lapin(std::io::Error::other(distrust).into());
        assert!(error.sentence().contains("is not trusted"), "{error}");
    }
}
