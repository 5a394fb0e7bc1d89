//! What the authenticator decides about a request, and the answers that follow from it.
//!
//! Source: `docs/compatibility/keystone.md` sections 3 and 4.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};

use super::identity::Caller;

/// The title of the answer to a request whose token has no project.
pub const PROJECT_MISSING_TITLE: &str = "Project-Id Missing";
/// Its description.
pub const PROJECT_MISSING_DESCRIPTION: &str = "The header X-PROJECT-ID was missing";

const UNAUTHORIZED: &str = "{\"error\": {\"code\": 401, \"title\": \"Unauthorized\", \"message\": \"The request you have \
                            made requires authentication.\"}}";
const UNAVAILABLE: &str = "{\"error\": {\"code\": 503, \"title\": \"Service Unavailable\", \"message\": \"The Keystone \
                           service is temporarily unavailable.\"}}";

/// What is to become of a request.
#[derive(Debug, Clone)]
pub enum Decision {
    /// It needs no token: the path is exactly `/`, or the method is OPTIONS, for which no token is looked at.
    Anonymous,
    /// It has a `URL-Signature`, which alone decides; its token is not looked at.
    Signed,
    /// It goes on in the project of the token.
    Authenticated(Caller),
    /// Its token is good and has no project: the answer is 400, at the place where the server asks for the project, after
    /// it has asked for `Client-ID`.
    ProjectMissing(Caller),
    /// The answer is 401; the reason is never told.
    Refused(Refusal),
    /// Keystone made no decision: the answer is 503.
    Unavailable(Refusal),
}

/// The answer to a request that does not go on. HEAD has its headers and no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status: 401 or 503.
    pub status: StatusCode,
    /// The header beside `Content-Type: application/json`: `WWW-Authenticate` or `Retry-After`.
    pub header: (HeaderName, HeaderValue),
    /// The body.
    pub body: &'static str,
}

impl Refusal {
    /// The answer 401, with the place where clients get tokens.
    pub(super) fn unauthorized(challenge: &HeaderValue) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            header: (WWW_AUTHENTICATE, challenge.clone()),
            body: UNAUTHORIZED,
        }
    }

    /// The answer 503, after which a client may try again in so many seconds.
    pub(super) fn unavailable(retry_after: u64) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            header: (RETRY_AFTER, retry_after.into()),
            body: UNAVAILABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_the_specification() {
        let challenge = HeaderValue::from_static("Keystone uri=\"http://public.example:5000\"");
        let refusal = Refusal::unauthorized(&challenge);
        assert_eq!(refusal.body.len(), 114);
        assert_eq!(
            refusal.body,
            r#"{"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}"#
        );
        assert_eq!(refusal.header, (WWW_AUTHENTICATE, challenge));
        let refusal = Refusal::unavailable(7);
        assert_eq!(
            refusal.body,
            r#"{"error": {"code": 503, "title": "Service Unavailable", "message": "The Keystone service is temporarily unavailable."}}"#
        );
        assert_eq!(refusal.header, (RETRY_AFTER, HeaderValue::from_static("7")));
    }
}
