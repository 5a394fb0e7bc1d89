//! Calls from pages of other origins (spec: http.md 10).

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

/// Which origins may call, and with what.
#[derive(Debug, Clone)]
pub struct Cors {
    /// Origins, or `*` for all.
    pub allowed_origins: Vec<String>,
    /// Let pages send credentials.
    pub allow_credentials: bool,
    /// Response headers that pages may read, separated by commas.
    pub expose_headers: String,
    /// Seconds that a browser may remember a preflight.
    pub max_age: String,
    /// Methods that pages may use.
    pub allow_methods: Vec<String>,
    /// Request headers that pages may send.
    pub allow_headers: Vec<String>,
}

impl Cors {
    /// The request's origin, if it may call.
    fn origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let allowed =
            |candidate: &String| candidate == "*" || candidate.as_bytes() == origin.as_bytes();
        self.allowed_origins.iter().any(allowed).then_some(origin)
    }

    /// Whether a request is a browser's question before the real one.
    pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The headers of the answer to a preflight; none when the call would not be allowed.
    pub(crate) fn preflight(&self, headers: &HeaderMap) -> HeaderMap {
        self.allowed_preflight(headers).unwrap_or_default()
    }

    fn allowed_preflight(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        let origin = self.origin(headers)?;
        let method = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        self.allow_methods
            .iter()
            .find(|allowed| allowed.as_bytes() == method.as_bytes())?;
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let names = asked.map_or(Ok(""), HeaderValue::to_str).ok()?;
        let known = |name: &str| {
            self.allow_headers
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(name))
        };
        if !names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .all(known)
        {
            return None;
        }
        let mut answer = HeaderMap::new();
        self.allow(&mut answer, origin);
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        answer.extend(asked.map(|asked| (ACCESS_CONTROL_ALLOW_HEADERS, asked.clone())));
        answer.extend(
            HeaderValue::try_from(&self.max_age)
                .ok()
                .map(|age| (ACCESS_CONTROL_MAX_AGE, age)),
        );
        answer.insert(VARY, HeaderValue::from_static("Origin"));
        Some(answer)
    }

    /// Marks the answer to a call from an allowed origin.
    pub(crate) fn mark(&self, request: &HeaderMap, response: &mut HeaderMap) {
        let Some(origin) = self.origin(request) else {
            return;
        };
        self.allow(response, origin);
        if let Ok(exposed) = HeaderValue::try_from(&self.expose_headers) {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        response.append(VARY, HeaderValue::from_static("Origin"));
    }

    fn allow(&self, response: &mut HeaderMap, origin: &HeaderValue) {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.allow_credentials {
            response.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}
