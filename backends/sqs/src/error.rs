//! What SQS and its client say, as kinds (Amazon SQS API Reference, "Common Errors" and the errors of each action).

use std::error::Error as StdError;

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use isimud_contract::{Error, ErrorKind, Resource};

/// A call that failed: what the driver can do about it, and what its caller can.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: What,
    pub(crate) error: Error,
}

/// What the driver itself answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// There is no such queue.
    Missing,
    /// There is such a queue, with other attributes.
    Taken,
    /// The batch is larger than the server takes.
    TooLong,
    /// The receipt names nothing that is in flight any more.
    Late,
    /// The request is none that the server understands, or not for what it names.
    Refused,
    /// The credentials are no longer, or not yet, those that AWS knows.
    Rejected,
    /// Nothing that the driver has an answer to.
    Other,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

impl Fault {
    /// An error that the driver has no answer to.
    pub(crate) fn other(error: Error) -> Self {
        let what = What::Other;
        Self { what, error }
    }
}

/// What became of a call.
pub(crate) fn from_sdk<E>(error: SdkError<E>) -> Fault
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    // The client's own texts say next to nothing without what is behind them.
    let told = Told::of(&error);
    let (what, kind, sentence) = match &error {
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            by_code(error.code().unwrap_or_default(), status)
        }
        SdkError::TimeoutError(_) => away("SQS does not answer in time"),
        SdkError::ResponseError(context) if context.raw().status().is_client_error() => (
            What::Other,
            ErrorKind::Internal,
            "the answer is not one of SQS; is 'endpoint' right?",
        ),
        SdkError::ResponseError(_) => away("SQS failed"),
        error if lacks_credentials(error) => (
            What::Rejected,
            ErrorKind::Unavailable,
            "no AWS credentials are to be had: see the log, and 'profile'",
        ),
        _ if told.0.contains("invalid peer certificate") => {
            away("the certificate of SQS is not trusted; 'ca_file' names whom to trust")
        }
        _ => away("SQS cannot be reached"),
    };
    let error = Error::new(kind, sentence).caused_by(told);
    Fault { what, error }
}

fn away(sentence: &'static str) -> (What, ErrorKind, &'static str) {
    (What::Other, ErrorKind::Unavailable, sentence)
}

/// The whole chain of what the client says, in one line.
#[derive(Debug)]
struct Told(String);

impl Told {
    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut said: Vec<String> = chain(error).map(|error| error.to_string()).collect();
        // The library's own wrappers repeat what they wrap.
        said.dedup();
        Self(said.join(": "))
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Told {}

/// An error and its causes.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        (*error).source()
    })
}

fn lacks_credentials<E: StdError + 'static>(error: &SdkError<E>) -> bool {
    chain(error).any(|error| error.is::<aws_credential_types::provider::error::CredentialsError>())
}

/// What an error code means. The same codes stand in answers to whole calls and to entries of a batch; those of the
/// older protocol have a prefix, and servers differ in which they send.
pub(crate) fn by_code(code: &str, status: u16) -> (What, ErrorKind, &'static str) {
    use ErrorKind::{Internal, Invalid, Unavailable};
    match code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code) {
        "NonExistentQueue" | "QueueDoesNotExist" => (
            What::Missing,
            ErrorKind::NotFound(Resource::Queue),
            "SQS has no such queue",
        ),
        "QueueDeletedRecently" => away(RESTING),
        "QueueNameExists" | "QueueAlreadyExists" => (
            What::Taken,
            Internal,
            "SQS has a queue of that name with other attributes",
        ),
        "BatchRequestTooLong" => (What::TooLong, Invalid, "the messages are too large for SQS"),
        "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidIdFormat" => {
            (What::Late, Internal, "the receipt names nothing any more")
        }
        "OverLimit" => away("too many messages of the queue are in flight"),
        "InvalidMessageContents" => (What::Other, Invalid, "SQS does not take that message"),
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => (
            What::Rejected,
            Unavailable,
            "the AWS credentials have expired",
        ),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => (
            What::Rejected,
            Unavailable,
            "AWS refuses the credentials, or this machine's clock",
        ),
        "AccessDenied" | "AccessDeniedException" | "InvalidSecurity" | "OptInRequired" => (
            What::Other,
            Internal,
            "the AWS identity of this service may not do that",
        ),
        "KmsThrottled" | "KMS.ThrottlingException" => away(BUSY),
        code if code.starts_with("Kms") || code.starts_with("KMS.") => {
            let sentence = "the key that encrypts the queue cannot be used";
            (What::Other, Internal, sentence)
        }
        code if code.contains("Throttl")
            || code.starts_with("TooManyRequests")
            || matches!(code, "RequestLimitExceeded" | "SlowDown") =>
        {
            away(BUSY)
        }
        "InternalFailure" | "InternalError" | "ServiceUnavailable" => away("SQS failed"),
        _ if status == 429 => away(BUSY),
        _ if status >= 500 => away("SQS failed"),
        _ => (What::Refused, Internal, "SQS refuses the request"),
    }
}

const BUSY: &str = "SQS asks for fewer requests";
const RESTING: &str = "SQS makes no queue of a name that was deleted less than a minute ago";

/// The answer to a send within the minute after a deletion.
pub(crate) fn resting() -> Error {
    Error::new(ErrorKind::Unavailable, RESTING)
}

/// The answer when an entry of a batch was refused again and again.
pub(crate) fn refused(code: &str) -> Error {
    let (_, kind, sentence) = by_code(code, 400);
    Error::new(kind, sentence).with("code", code)
}

/// The answer when nothing came back in time.
pub(crate) fn too_late() -> Error {
    Error::new(ErrorKind::Unavailable, "SQS does not answer in time")
}

/// The answer after a close.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the SQS store is closed")
}

/// The answer to an answer that lacks what every answer of SQS has.
pub(crate) fn strange(what: &'static str) -> Error {
    Error::new(
        ErrorKind::Internal,
        "SQS answers what this version does not understand",
    )
    .with("missing", what)
}

/// The same error for one more of those that it happened to.
pub(crate) fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.sentence().to_owned());
    match error.source() {
        Some(cause) => copy.with("cause", cause),
        None => copy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_the_same_in_both_spellings() {
        for (code, what, kind) in [
            (
                "QueueDoesNotExist",
                What::Missing,
                ErrorKind::NotFound(Resource::Queue),
            ),
            (
                "AWS.SimpleQueueService.NonExistentQueue",
                What::Missing,
                ErrorKind::NotFound(Resource::Queue),
            ),
            ("RequestThrottled", What::Other, ErrorKind::Unavailable),
            ("ThrottlingException", What::Other, ErrorKind::Unavailable),
            (
                "ExpiredTokenException",
                What::Rejected,
                ErrorKind::Unavailable,
            ),
            ("AccessDeniedException", What::Other, ErrorKind::Internal),
            (
                "KMS.ThrottlingException",
                What::Other,
                ErrorKind::Unavailable,
            ),
            ("KmsThrottled", What::Other, ErrorKind::Unavailable),
            (
                "AWS.SimpleQueueService.QueueDeletedRecently",
                What::Other,
                ErrorKind::Unavailable,
            ),
            ("InvalidParameterValue", What::Refused, ErrorKind::Internal),
        ] {
            let (found, told, _) = by_code(code, 400);
            assert_eq!((found, told), (what, kind), "{code}");
        }
        assert_eq!(by_code("Whatever", 500).1, ErrorKind::Unavailable);
        assert_eq!(by_code("", 429).1, ErrorKind::Unavailable);
    }
}
