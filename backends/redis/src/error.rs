//! What Redis and its client say, as kinds (Redis documentation, "Error replies" and "Redis Cluster specification").

use isimud_contract::{Error, ErrorKind, REASON};
use redis::{ErrorKind as Told, RedisError, ServerErrorKind as Server};

/// What is said of a server that has reached `maxmemory`.
const FULL: &str = "Redis is out of memory";

/// What a caller can do about an error of Redis.
pub(crate) fn from_redis(error: RedisError) -> Error {
    let (kind, sentence) = judge(&error);
    let known = Error::new(kind, sentence);
    let known = match sentence {
        FULL => known.with(
            REASON,
            "The store is full: nothing is taken until messages are deleted or expire.",
        ),
        _ => known,
    };
    known.caused_by(error)
}

fn judge(error: &RedisError) -> (ErrorKind, &'static str) {
    use ErrorKind::{Internal, Unavailable};
    if let Some(sentence) = distrust(error) {
        return (Unavailable, sentence);
    }
    match error.kind() {
        Told::Io => (Unavailable, "Redis cannot be reached"),
        Told::MasterNameNotFoundBySentinel
        | Told::NoValidReplicasFoundBySentinel
        | Told::EmptySentinelList => (Unavailable, "the sentinels name no master"),
        Told::ClusterConnectionNotFound => (Unavailable, "a node of the cluster cannot be reached"),
        Told::AuthenticationFailed => (Unavailable, "Redis refuses the user or the password"),
        Told::Server(Server::BusyLoading) => (Unavailable, "Redis is loading its data"),
        Told::Server(Server::ReadOnly) => (Unavailable, "the Redis server is a replica now"),
        Told::Server(Server::MasterDown) => (Unavailable, "the Redis replica has lost its master"),
        Told::Server(Server::ClusterDown | Server::TryAgain | Server::Moved | Server::Ask) => {
            (Unavailable, "the cluster is moving or incomplete")
        }
        Told::Server(Server::NoPerm) => (Internal, "the Redis user may not do this"),
        _ => by_code(error.code().unwrap_or_default(), error),
    }
}

/// Who does not trust whom, if that is why there is no connection. The client passes on what rustls says as a text, for
/// sentinels and clusters inside others.
fn distrust(error: &RedisError) -> Option<&'static str> {
    let text = error.to_string();
    if text.contains("invalid peer certificate") {
        Some("the certificate of Redis is not trusted; 'ca_file' names whom to trust")
    } else if text.contains("received fatal alert") {
        Some(
            "Redis refuses the TLS connection; 'cert_file' and 'key_file' are for a server that asks who is there",
        )
    } else {
        None
    }
}

fn by_code(code: &str, error: &RedisError) -> (ErrorKind, &'static str) {
    use ErrorKind::{Internal, Unavailable};
    // A script passes the reply of a command on, up to Redis 6.2 inside a sentence of its own.
    let says = |what: &str| code == what || error.to_string().contains(&format!("-{what} "));
    if says("OOM") {
        (Unavailable, FULL)
    } else if says("MISCONF") {
        (Unavailable, "Redis cannot write to its disk")
    } else if says("NOREPLICAS") {
        (Unavailable, "Redis has too few replicas")
    } else if says("BUSY") || says("UNKILLABLE") {
        (Unavailable, "a script holds Redis up")
    } else if says("NOAUTH") || says("WRONGPASS") {
        (Unavailable, "Redis refuses the user or the password")
    } else if says("READONLY") {
        (Unavailable, "the Redis server is a replica now")
    } else if error.is_timeout() || error.is_connection_dropped() || error.is_io_error() {
        (Unavailable, "Redis cannot be reached")
    } else if says("WRONGTYPE") {
        (
            Internal,
            "a Redis key of this store belongs to somebody else",
        )
    } else {
        (Internal, "Redis failed")
    }
}

/// Whether a connection must be made anew after this error.
pub(crate) fn breaks_the_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            Told::Server(Server::ReadOnly | Server::MasterDown)
        )
        || error.to_string().contains("READONLY")
}

/// The answer when nothing came back in time.
pub(crate) fn too_late() -> Error {
    Error::new(ErrorKind::Unavailable, "Redis does not answer in time")
}

/// The answer after a close.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the Redis store is closed")
}

/// The answer to an answer that no script of ours gives.
pub(crate) fn strange() -> Error {
    Error::new(
        ErrorKind::Internal,
        "Redis answers what this version does not understand",
    )
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    #[test]
    fn who_is_not_trusted_is_told_from_who_is_away() {
        use rustls::{AlertDescription, CertificateError, Error as Tls};
        for (error, sentence) in [
            (
                Tls::InvalidCertificate(CertificateError::UnknownIssuer),
                "the certificate of Redis is not trusted",
            ),
            (
                Tls::AlertReceived(AlertDescription::CertificateRequired),
                "Redis refuses the TLS connection",
            ),
            (Tls::General("whatever".into()), "Redis cannot be reached"),
        ] {
            let error = from_redis(std::io::Error::other(error).into());
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.sentence().starts_with(sentence), "{error}");
        }
    }

    #[test]
    fn passing_failures_are_told_from_lasting_ones() {
        for (code, kind) in [
            ("OOM", ErrorKind::Unavailable),
            ("MISCONF", ErrorKind::Unavailable),
            ("BUSY", ErrorKind::Unavailable),
            ("NOREPLICAS", ErrorKind::Unavailable),
            ("WRONGTYPE", ErrorKind::Internal),
            ("WHATEVER", ErrorKind::Internal),
        ] {
            let error = make_extension_error(code.into(), Some("in words".into()));
            assert_eq!(from_redis(error).kind(), kind, "{code}");
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(from_redis(refused.into()).kind(), ErrorKind::Unavailable);
    }
}
