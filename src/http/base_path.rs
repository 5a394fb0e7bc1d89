//! The path under which clients find the API, where a proxy serves it under one.
//!
//! What leads a client to the API is a path that begins with what the proxy puts in front: `server.base_path`, or what a
//! trusted proxy says in `X-Forwarded-Prefix`. That is the link in the document of versions, which openstacksdk follows, the
//! home document, and `Location`. Links inside of other documents begin with `/v2/`, as in the reference: python-zaqarclient
//! and gophercloud put them behind the URL at which they have found the service, and a prefix would stand there twice.
//!
//! A request may come with the prefix or without, as proxies cut it off or do not. Where a proxy ends TLS, or has another
//! name than the server, nothing more is needed: paths name neither scheme nor host.

use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::Uri;
use axum::http::header::{HeaderMap, HeaderName};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The longest base path, in bytes.
const MAX_BYTES: usize = 256;

/// What stands in front of `/v2` for clients: nothing, or a path without a slash at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(Option<Arc<str>>);

impl BasePath {
    /// Reads a path such as `/messaging`; "" and `/` are nothing. `None` where a link could not begin with it: it has to
    /// begin with a slash, and each of its segments has letters, digits, `-`, `.`, `_` and `~`, and is no `.` or `..`.
    pub fn parse(text: &str) -> Option<Self> {
        let path = text.trim_end_matches('/');
        if path.is_empty() {
            return Some(Self::default());
        }
        let is_segment = |segment: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain)
        };
        let segments = path.strip_prefix('/')?;
        let is_path = path.len() <= MAX_BYTES && segments.split('/').all(is_segment);
        is_path.then(|| Self(Some(path.into())))
    }

    /// What a proxy says; the first of several proxies is the one that clients see.
    fn forwarded(headers: &HeaderMap) -> Option<Self> {
        let said = headers.get(FORWARDED_PREFIX)?.to_str().ok()?;
        Self::parse(said.split(',').next()?.trim())
    }

    /// Whether a path is that of the whole API, with the base path or without. `is_proxy` as for `apply`.
    pub(crate) fn is_root(&self, path: &str, headers: &HeaderMap, is_proxy: bool) -> bool {
        let forwarded = match is_proxy {
            true => Self::forwarded(headers),
            false => None,
        };
        let base = forwarded.as_ref().unwrap_or(self);
        let rest = path.strip_prefix(&**base).unwrap_or(path);
        rest.is_empty() || path == "/" || rest == "/"
    }

    /// Takes the base path off a request, and notes which one clients see. `is_proxy` says that the
    /// request is from a trusted proxy.
    pub(super) fn apply(&self, request: &mut Request, is_proxy: bool) {
        let forwarded = match is_proxy {
            true => Self::forwarded(request.headers()),
            false => None,
        };
        let base = forwarded.as_ref().unwrap_or(self);
        if base.is_empty() {
            return;
        }
        if let Some(rest) = request.uri().path().strip_prefix(&**base)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            // A client that joins URLs badly puts a second slash between the two.
            let path = format!("/{}", rest.trim_start_matches('/'));
            let with_query = match request.uri().query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            if let Ok(path_and_query) = PathAndQuery::try_from(with_query) {
                *request.uri_mut() = Uri::from(path_and_query);
            }
        }
        request.extensions_mut().insert(base.clone());
    }
}

impl Deref for BasePath {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl<S: Sync> FromRequestParts<S> for BasePath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn base_path_is_a_path_of_plain_segments() {
        for (text, read) in [
            ("", ""),
            ("/", ""),
            ("/messaging", "/messaging"),
            ("/messaging/", "/messaging"),
            ("/a/b-c_d.e~f", "/a/b-c_d.e~f"),
        ] {
            assert_eq!(BasePath::parse(text).as_deref(), Some(read), "{text}");
        }
        let long = format!("/{}", "x".repeat(MAX_BYTES));
        for text in [
            "messaging",
            "//a",
            "/a//b",
            "/..",
            "/a/./b",
            "/a b",
            "/a\"b",
            "/a?b",
            "/%61",
            "https://h/a",
            &long,
        ] {
            assert_eq!(BasePath::parse(text), None, "{text}");
        }
    }

    #[test]
    fn request_loses_the_base_path_and_links_get_it() {
        let configured = BasePath::parse("/mq").expect("a path");
        for (path, header, is_proxy, inside, links) in [
            (
                "/v2/queues?limit=1",
                None,
                false,
                "/v2/queues?limit=1",
                "/mq",
            ),
            (
                "/mq/v2/queues?limit=1",
                None,
                false,
                "/v2/queues?limit=1",
                "/mq",
            ),
            ("/mq", None, false, "/", "/mq"),
            ("/mq//v2/queues", None, false, "/v2/queues", "/mq"),
            ("/mq//", None, false, "/", "/mq"),
            ("/mqx/v2", None, false, "/mqx/v2", "/mq"),
            ("/v2/", Some("/other/"), true, "/v2/", "/other"),
            ("/other/v2/", Some("/other, /inner"), true, "/v2/", "/other"),
            ("/v2/", Some("/"), true, "/v2/", ""),
            ("/v2/", Some("/other"), false, "/v2/", "/mq"),
            ("/v2/", Some("/o\"ther"), true, "/v2/", "/mq"),
        ] {
            let mut request = Request::builder().uri(path);
            if let Some(header) = header {
                request = request.header(FORWARDED_PREFIX, header);
            }
            let mut request = request.body(Body::empty()).expect("a request");
            configured.apply(&mut request, is_proxy);
            assert_eq!(request.uri().to_string(), inside, "{path} {header:?}");
            let found = request.extensions().get::<BasePath>().cloned();
            assert_eq!(&*found.unwrap_or_default(), links, "{path} {header:?}");
        }
    }
}
