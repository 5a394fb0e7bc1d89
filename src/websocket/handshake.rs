//! The handshake: whether a request may become a socket (RFC 6455, 4.2).
//!
//! Browsers let any page open a socket to anywhere, and say only where the page is from. So a request with an `Origin` is
//! refused unless that is the service's own, or one of the list. Other clients need not send one; some send the address that
//! they connect to, which is the service's own.

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Characters of a key: 16 bytes in base64.
const KEY_CHARS: usize = 24;

/// Whose pages may open sockets, beside the service's own.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: Vec<String>,
    all: bool,
    external_port: Option<u16>,
}

impl Origins {
    /// Takes origins (`https://shop.example`, `http://localhost:3000`), or `*` for all. `external_port` is the port under
    /// which clients find the listener; 0 for the one in their requests. Says which of them is no origin.
    pub fn new(allowed: Vec<String>, external_port: u16) -> Result<Self, String> {
        let is_origin = |text: &String| {
            let host = text.split_once("://").map(|(_, host)| host);
            text == "*" || host.is_some_and(|host| host.parse::<Authority>().is_ok())
        };
        if let Some(wrong) = allowed.iter().find(|text| !is_origin(text)) {
            return Err(format!(
                "'{wrong}' is no origin such as https://shop.example"
            ));
        }
        Ok(Self {
            all: allowed.iter().any(|one| one == "*"),
            allowed: allowed.iter().map(|one| one.to_ascii_lowercase()).collect(),
            external_port: (external_port != 0).then_some(external_port),
        })
    }

    /// Whether the headers of a handshake come from a page that may, or from no page.
    fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return true;
        };
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        if origins.next().is_some() {
            return false;
        }
        let origin = origin.to_ascii_lowercase();
        self.all || self.allowed.contains(&origin) || self.is_own(&origin, headers)
    }

    /// Whether an origin is the host that the request is for.
    fn is_own(&self, origin: &str, headers: &HeaderMap) -> bool {
        let Some((scheme, place)) = origin.split_once("://") else {
            return false;
        };
        let usual = match scheme {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            _ => return false,
        };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.map(str::to_ascii_lowercase);
        let parsed = |text: &str| text.parse::<Authority>().ok();
        let (Some(host), Some(place)) = (host.as_deref().and_then(parsed), parsed(place)) else {
            return false;
        };
        let port = place.port_u16().unwrap_or(usual);
        host.host() == place.host()
            && (port == host.port_u16().unwrap_or(usual) || Some(port) == self.external_port)
    }
}

/// Whether a request asks to become a socket.
pub(super) fn is_asked_for<B>(request: &Request<B>) -> bool {
    *request.method() == Method::GET && has_token(request.headers(), &UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter();
    let mut tokens = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tokens.any(|one| one.trim().eq_ignore_ascii_case(token))
}

/// A request that cannot become a socket.
#[derive(Debug)]
pub(super) struct Refused {
    /// Why, for the metrics.
    pub(super) reason: &'static str,
    status: StatusCode,
    sentence: String,
}

impl Refused {
    pub(super) fn new(
        reason: &'static str,
        status: StatusCode,
        sentence: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            status,
            sentence: sentence.into(),
        }
    }

    /// What the client is told.
    pub(super) fn answer(&self) -> Response<Body> {
        let title = self.status.canonical_reason().unwrap_or_default();
        let document = format!(
            r#"{{"title": "{title}", "description": "{}"}}"#,
            self.sentence
        );
        let mut answer = Response::new(Body::from(document));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade, close"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        answer
    }
}

/// Checks a handshake, and returns the answer that completes it.
pub(super) fn accept<B>(
    request: &Request<B>,
    origins: &Origins,
) -> Result<Response<Body>, Refused> {
    let headers = request.headers();
    if !is_asked_for(request) || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refused::new(
            "no_upgrade",
            StatusCode::UPGRADE_REQUIRED,
            "This is an endpoint of WebSocket.",
        ));
    }
    let is_known = |version: &HeaderValue| version == "13";
    if !headers.get(SEC_WEBSOCKET_VERSION).is_some_and(is_known) {
        return Err(Refused::new(
            "version",
            StatusCode::UPGRADE_REQUIRED,
            "The version of WebSocket has to be 13.",
        ));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let Some(key) = key.filter(|key| key.len() == KEY_CHARS) else {
        return Err(Refused::new(
            "key",
            StatusCode::BAD_REQUEST,
            "The header Sec-WebSocket-Key is missing, or is none.",
        ));
    };
    if !origins.allow(headers) {
        return Err(Refused::new(
            "origin",
            StatusCode::FORBIDDEN,
            "Pages of this origin may not open sockets (websocket.allowed_origins).",
        ));
    }
    let accepted = derive_accept_key(key.as_bytes());
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accepted) = HeaderValue::try_from(accepted) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: [(&str, &str); 5] = [
        ("host", "mq.example:9000"),
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn a_sound_handshake_is_answered_with_the_key_of_the_standard() {
        let answer = accept(&request(&SOUND), &Origins::default()).expect("it is sound");
        assert_eq!(answer.status(), 101);
        let accepted = &answer.headers()["sec-websocket-accept"];
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_handshake_that_lacks_something_is_refused() {
        for (missing, status) in [
            ("upgrade", 426),
            ("connection", 426),
            ("sec-websocket-version", 426),
            ("sec-websocket-key", 400),
        ] {
            let headers = SOUND.iter().filter(|(name, _)| *name != missing);
            let headers: Vec<_> = headers.copied().collect();
            let refused = accept(&request(&headers), &Origins::default());
            let refused = refused.expect_err(missing);
            assert_eq!(refused.answer().status(), status, "{missing}");
        }
    }

    #[test]
    fn pages_of_the_service_and_of_the_list_may_and_others_may_not() {
        let listed = |origins: &[&str], port| {
            let origins = origins.iter().map(|&one| one.to_owned()).collect();
            Origins::new(origins, port).expect("origins")
        };
        for (origins, host, origin, allowed) in [
            (
                listed(&[], 0),
                "mq.example:9000",
                "http://mq.example:9000",
                true,
            ),
            (listed(&[], 0), "mq.example", "https://MQ.example", true),
            (
                listed(&[], 0),
                "mq.example:9000",
                "http://mq.example",
                false,
            ),
            (
                listed(&[], 443),
                "mq.example:9000",
                "https://mq.example",
                true,
            ),
            (listed(&[], 0), "mq.example", "https://evil.example", false),
            (listed(&[], 0), "mq.example", "null", false),
            (listed(&[], 0), "mq.example", "file://", false),
            (
                listed(&["https://shop.example"], 0),
                "mq.example",
                "https://shop.example",
                true,
            ),
            (
                listed(&["https://shop.example"], 0),
                "mq.example",
                "https://shop.example.evil",
                false,
            ),
            (listed(&["*"], 0), "mq.example", "null", true),
        ] {
            let headers = request(&[("host", host), ("origin", origin)]);
            assert_eq!(origins.allow(headers.headers()), allowed, "{host} {origin}");
        }
        let twice = request(&[
            ("host", "a"),
            ("origin", "http://a"),
            ("origin", "http://b"),
        ]);
        assert!(!listed(&[], 0).allow(twice.headers()));
        assert!(Origins::new(vec!["shop.example".to_owned()], 0).is_err());
    }
}
