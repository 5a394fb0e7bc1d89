//! Requests to the authenticator, and what it decides about them, in short.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use isimud::keystone::{Authenticator, Caller, Decision, RequestParts};

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: Method,
    path: String,
    base_path: String,
    headers: HeaderMap,
}

/// `GET /v2/queues` without a token.
pub(crate) fn request() -> Request {
    Request {
        method: Method::GET,
        path: "/v2/queues".to_owned(),
        base_path: String::new(),
        headers: HeaderMap::new(),
    }
}

/// `GET /v2/queues` with a token.
pub(crate) fn with(token: &str) -> Request {
    request().header("X-Auth-Token", token)
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        self.headers
            .append(name, HeaderValue::from_str(value).expect("a value"));
        self
    }

    pub(crate) fn service(self, token: &str) -> Self {
        self.header("X-Service-Token", token)
    }

    pub(crate) fn to(mut self, method: Method, path: &str) -> Self {
        (self.method, self.path) = (method, path.to_owned());
        self
    }

    pub(crate) fn below(mut self, base_path: &str) -> Self {
        self.base_path = base_path.to_owned();
        self
    }

    pub(crate) async fn send(&self, to: &Authenticator) -> Decision {
        let parts = RequestParts {
            method: &self.method,
            path: &self.path,
            headers: &self.headers,
            base_path: &self.base_path,
        };
        to.authenticate(parts).await
    }

    /// Sends it; it must go on.
    pub(crate) async fn caller(&self, to: &Authenticator) -> Caller {
        match self.send(to).await {
            Decision::Authenticated(caller) => caller,
            other => panic!("{}", outcome(&other)),
        }
    }

    /// Sends it and says what became of it: 200 where it goes on.
    pub(crate) async fn outcome(&self, to: &Authenticator) -> Outcome {
        outcome(&self.send(to).await)
    }
}

/// What becomes of a request: a status and the header of the answer, or a word.
pub(crate) type Outcome = String;

pub(crate) fn outcome(decision: &Decision) -> Outcome {
    match decision {
        Decision::Anonymous => "anonymous".to_owned(),
        Decision::Signed => "signed".to_owned(),
        Decision::Authenticated(_) => "200".to_owned(),
        Decision::ProjectMissing(_) => "400".to_owned(),
        Decision::Refused(refusal) => {
            assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
            let (name, value) = &refusal.header;
            assert_eq!(name, "www-authenticate");
            assert_eq!(value, "Keystone uri=\"http://public.example:5000\"");
            "401".to_owned()
        }
        Decision::Unavailable(refusal) => {
            assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
            let (name, value) = &refusal.header;
            assert_eq!(name, "retry-after");
            format!("503 {}", value.to_str().expect("a number"))
        }
    }
}
