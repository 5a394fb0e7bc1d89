//! Whom the service believes about who asks, while it asks nobody else: the headers of identity, and from where they count.
//!
//! Without Keystone the project, the roles and the user of a request are what its headers say. That is right behind a
//! proxy which sets these headers itself and removes those of its clients, and nowhere else. So an operator names the
//! addresses of the proxies, or gives them a secret to show, and requests of anybody else are refused. docs/security.md lists
//! the headers that such a proxy has to remove.

use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use ipnet::IpNet;

/// The header in which a proxy shows its secret.
const SECRET: HeaderName = HeaderName::from_static("x-isimud-proxy-secret");

/// The shortest secret, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// From whom headers of identity count, and which ones.
#[derive(Clone, Default)]
pub struct Identity {
    legacy_names: bool,
    proxies: Option<Vec<IpNet>>,
    secret: Option<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("legacy_names", &self.legacy_names)
            .field("proxies", &self.proxies)
            .field("secret", &self.secret.as_ref().map(|_| "***"))
            .finish()
    }
}

impl Identity {
    /// `proxies` are addresses and networks, none for anywhere; `secret` is what a proxy has to show, "" for nothing. Says
    /// what is wrong with them.
    pub fn new(legacy_names: bool, proxies: &[String], secret: &str) -> Result<Self, String> {
        let network = |text: &String| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
                format!("access.trusted_proxies: '{text}' is neither an address nor a network")
            })
        };
        let networks = proxies.iter().map(network).collect::<Result<Vec<_>, _>>()?;
        let is_visible = |byte: u8| byte.is_ascii_graphic();
        if !secret.is_empty()
            && (secret.len() < MIN_SECRET_BYTES || !secret.bytes().all(is_visible))
        {
            return Err(format!(
                "access.proxy_secret must have at least {MIN_SECRET_BYTES} characters, all of them visible ones of ASCII"
            ));
        }
        Ok(Self {
            legacy_names,
            proxies: (!networks.is_empty()).then_some(networks),
            secret: (!secret.is_empty()).then(|| secret.to_owned()),
        })
    }

    /// Whether the older names count too: `X-Tenant-Id`, `X-Tenant`, `X-Role`.
    pub(crate) fn knows_legacy_names(&self) -> bool {
        self.legacy_names
    }

    /// Addresses of proxies, where some are named.
    pub(crate) fn proxies(&self) -> &[IpNet] {
        self.proxies.as_deref().unwrap_or_default()
    }

    /// Whether it makes a difference who sends a request.
    pub fn is_guarded(&self) -> bool {
        self.proxies.is_some() || self.secret.is_some()
    }

    /// Whether requests from an address may say who asks. That of a connection is unknown only where there is none.
    pub(crate) fn trusts(&self, peer: Option<IpAddr>) -> bool {
        let Some(proxies) = &self.proxies else {
            return true;
        };
        peer.is_some_and(|peer| {
            let peer = peer.to_canonical();
            proxies.iter().any(|network| network.contains(&peer))
        })
    }

    /// Whether a request shows the secret, if there is one to show: once, and nothing else.
    pub(crate) fn is_shown_secret(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else {
            return true;
        };
        let mut shown = headers.get_all(SECRET).iter();
        match (shown.next(), shown.next()) {
            (Some(shown), None) => is_equal(shown.as_bytes(), secret.as_bytes()),
            _ => false,
        }
    }
}

/// Compares without telling by the time it takes how much of the two is equal.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn identity(proxies: &[&str], secret: &str) -> Identity {
        let proxies: Vec<String> = proxies.iter().map(|&text| text.into()).collect();
        Identity::new(false, &proxies, secret).expect("it is right")
    }

    #[test]
    fn only_addresses_of_proxies_are_trusted_where_some_are_named() {
        let named = identity(&["10.1.0.0/16", "192.0.2.7", "::1"], "");
        for (peer, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::1", true),
            ("127.0.0.1", false),
        ] {
            let address = peer.parse().expect(peer);
            assert_eq!(named.trusts(Some(address)), trusted, "{peer}");
        }
        assert!(!named.trusts(None));
        assert!(identity(&[], "").trusts(None));
    }

    #[test]
    fn a_secret_is_shown_once_and_exactly() {
        let guarded = identity(&[], "0123456789abcdef");
        let headers = |values: &[&'static str]| {
            let values = values.iter().map(|&value| HeaderValue::from_static(value));
            values.map(|value| (SECRET, value)).collect::<HeaderMap>()
        };
        assert!(guarded.is_shown_secret(&headers(&["0123456789abcdef"])));
        for wrong in [
            &[][..],
            &[""],
            &["0123456789abcde"],
            &["0123456789abcdef0"],
            &["0123456789abcdeF"],
        ] {
            assert!(!guarded.is_shown_secret(&headers(wrong)), "{wrong:?}");
        }
        let mut twice = headers(&["0123456789abcdef"]);
        twice.append(SECRET, HeaderValue::from_static("0123456789abcdef"));
        assert!(!guarded.is_shown_secret(&twice));
        assert!(!format!("{guarded:?}").contains("0123"));
    }

    #[test]
    fn what_cannot_be_a_proxy_or_a_secret_is_named() {
        for (proxies, secret, named) in [
            (&["proxy.example"][..], "", "'proxy.example'"),
            (&["10.0.0.0/33"], "", "'10.0.0.0/33'"),
            (&[], "short", "access.proxy_secret"),
            (&[], "with spaces in it all", "access.proxy_secret"),
        ] {
            let proxies: Vec<String> = proxies.iter().map(|&text| text.into()).collect();
            let why = Identity::new(false, &proxies, secret).expect_err(named);
            assert!(why.contains(named) && !why.contains("short"), "{why}");
        }
    }
}
