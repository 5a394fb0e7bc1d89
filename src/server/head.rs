//! What the head of a request must say once and clearly: whom it is for, and where its body ends (RFC 9112, 3.2 and 6.1).
//!
//! A proxy in front and this server must not read two different things out of the same bytes. So what could be read in
//! two ways is refused before anybody looks at the request, and its connection ends with the answer. What hyper refuses
//! by itself (a length beside another one, a body whose last coding is not `chunked`) never comes here.

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};

use crate::notifications::HOP;

/// What is wrong with a request's head: the status and the sentence of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault(StatusCode, &'static str);

/// The answer to a request whose head is not clear; `None` for one that is.
pub(super) fn refuse<B>(request: &Request<B>) -> Option<Response<Body>> {
    let headers = request.headers();
    let checked = check_host(headers, request.version())
        .and_then(|()| check_coding(headers))
        .and_then(|()| check_hop(headers));
    let Fault(status, sentence) = checked.err()?;
    let title = match status {
        StatusCode::LOOP_DETECTED => "Loop detected",
        _ => "Bad request",
    };
    let document = format!(r#"{{"title": "{title}", "description": "{sentence}"}}"#);
    let is_head = *request.method() == Method::HEAD;
    let body = if is_head {
        Body::empty()
    } else {
        document.into()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [(CONTENT_TYPE, "application/json"), (CONNECTION, "close")] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// A notification is no request: one that came to the service itself could go round for ever.
fn check_hop(headers: &HeaderMap) -> Result<(), Fault> {
    match headers.contains_key(HOP) {
        false => Ok(()),
        true => Err(Fault(
            StatusCode::LOOP_DETECTED,
            "This is a notification, and notifications are not taken as requests.",
        )),
    }
}

/// A request of HTTP/1.1 names one host, one of HTTP/1.0 at most one.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Fault> {
    let fault = |sentence| Err(Fault(StatusCode::BAD_REQUEST, sentence));
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version >= Version::HTTP_11 => fault("The header Host is missing."),
        (Some(_), Some(_)) => fault("The header Host is given more than once."),
        (Some(host), None) if !is_host(host) => fault("The header Host names no host."),
        _ => Ok(()),
    }
}

/// Whether a value is a host, perhaps with a port, or nothing.
fn is_host(value: &HeaderValue) -> bool {
    value.is_empty()
        || Authority::try_from(value.as_bytes())
            .is_ok_and(|authority| !authority.as_str().contains('@'))
}

/// A body has one transfer coding, and that is `chunked`.
fn check_coding(headers: &HeaderMap) -> Result<(), Fault> {
    let mut chunked = 0;
    for value in headers.get_all(TRANSFER_ENCODING) {
        let codings = value.as_bytes().split(|byte| *byte == b',');
        for coding in codings.map(<[u8]>::trim_ascii) {
            if coding.eq_ignore_ascii_case(b"chunked") {
                chunked += 1;
            } else if !coding.is_empty() {
                let sentence = "The only transfer coding is chunked.";
                return Err(Fault(StatusCode::NOT_IMPLEMENTED, sentence));
            }
        }
    }
    if chunked > 1 {
        let sentence = "The transfer coding chunked is given more than once.";
        return Err(Fault(StatusCode::BAD_REQUEST, sentence));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(version: Version, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        refuse(&request).map(|answer| answer.status().as_u16())
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        for (version, hosts, status) in [
            (Version::HTTP_11, &[][..], Some(400)),
            (Version::HTTP_10, &[], None),
            (Version::HTTP_11, &["a.example"], None),
            (Version::HTTP_11, &["a.example:8888"], None),
            (Version::HTTP_11, &["[::1]:8888"], None),
            (Version::HTTP_11, &[""], None),
            (Version::HTTP_11, &["a", "a"], Some(400)),
            (Version::HTTP_10, &["a", "b"], Some(400)),
            (Version::HTTP_11, &["a b"], Some(400)),
            (Version::HTTP_11, &["user@a"], Some(400)),
            (Version::HTTP_11, &["a/b"], Some(400)),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            assert_eq!(judged(version, &headers), status, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn a_body_is_chunked_once_and_nothing_else() {
        for (codings, status) in [
            (&["chunked"][..], None),
            (&["Chunked"], None),
            (&["chunked, chunked"], Some(400)),
            (&["chunked", "chunked"], Some(400)),
            (&["gzip, chunked"], Some(501)),
            (&["gzip", "chunked"], Some(501)),
            (&["identity, chunked"], Some(501)),
            (&["xchunked, chunked"], Some(501)),
            (&["chunked;q=1, chunked"], Some(501)),
            (&[", chunked"], None),
        ] {
            let mut headers = vec![("host", "a")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            assert_eq!(judged(Version::HTTP_11, &headers), status, "{codings:?}");
        }
    }
}
