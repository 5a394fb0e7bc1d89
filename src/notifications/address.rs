//! Where notifications may go: to public addresses, and to those that the operator allows.
//!
//! A tenant chooses the address of a subscriber, and the service is inside the operator's network. So a name is
//! resolved once, what it resolves to is checked, and exactly that is connected to: a name that means something else a
//! moment later (rebinding) gains nothing. Redirects go through the same gate (quirk Q-SEC-6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Which addresses notifications may be sent to.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Allows these networks (`10.1.0.0/16`, `::1`) beside the public ones; or says which text is none.
    pub fn new(networks: &[String]) -> Result<Self, String> {
        let network = |text: &String| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>()
                .or_else(|_| address())
                .map_err(|_| text.clone())
        };
        let allowed = networks.iter().map(network).collect::<Result<_, _>>()?;
        Ok(Self { allowed })
    }

    /// Whether a notification may be sent to this address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed
            .iter()
            .any(|network| network.contains(&address))
            || is_public(address)
    }

    /// Whether a host, as a URI has it, is an address that is refused. A name is judged when it is resolved.
    pub(crate) fn refuses_host(&self, host: &str) -> bool {
        let is_loopback = host.eq_ignore_ascii_case("localhost")
            && !self.allows(IpAddr::V4(Ipv4Addr::LOCALHOST))
            && !self.allows(IpAddr::V6(Ipv6Addr::LOCALHOST));
        is_loopback || literal(host).is_some_and(|address| !self.allows(address))
    }
}

/// The address that a host of a URI is, if it is one.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

/// Whether an address is one of the public Internet: not in the registries of special purposes (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(a, 0 | 10 | 127 | 224..)
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 0 && matches!(c, 0 | 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 192 && b == 168)
        || (a == 198 && matches!(b, 18 | 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113);
    !is_special
}

/// Only global unicast is public, without the parts that lead into IPv4 (Teredo, 6to4) or nowhere.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_global = a & 0xE000 == 0x2000;
    let is_special =
        (a == 0x2001 && (b < 0x200 || b == 0xDB8)) || a == 0x2002 || (a == 0x3FFF && b < 0x1000);
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(policy: &AddressPolicy, address: &str) -> bool {
        policy.allows(address.parse().expect(address))
    }

    #[test]
    fn only_public_addresses_are_allowed_by_themselves() {
        let policy = AddressPolicy::default();
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "192.167.0.1",
            "100.128.0.1",
            "2600::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
        ] {
            assert!(allows(&policy, public), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!allows(&policy, private), "{private}");
        }
    }

    #[test]
    fn allowed_networks_permit_private_addresses() {
        let policy = AddressPolicy::new(&["10.1.0.0/16".into(), "::1".into(), "127.0.0.1".into()])
            .expect("networks");
        for allowed in [
            "10.1.2.3",
            "::1",
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "8.8.8.8",
        ] {
            assert!(allows(&policy, allowed), "{allowed}");
        }
        for refused in ["10.2.0.1", "127.0.0.2", "::2"] {
            assert!(!allows(&policy, refused), "{refused}");
        }
        assert_eq!(
            AddressPolicy::new(&["x/8".into()]).expect_err("no network"),
            "x/8"
        );
    }

    #[test]
    fn a_host_that_is_an_address_is_refused_before_it_is_asked() {
        let policy = AddressPolicy::default();
        for refused in [
            "127.0.0.1",
            "[::1]",
            "localhost",
            "LOCALHOST",
            "169.254.169.254",
        ] {
            assert!(policy.refuses_host(refused), "{refused}");
        }
        for open in ["example.com", "8.8.8.8", "[2600::1]"] {
            assert!(!policy.refuses_host(open), "{open}");
        }
        let local = AddressPolicy::new(&["127.0.0.0/8".into()]).expect("networks");
        assert!(!local.refuses_host("localhost"));
    }
}
