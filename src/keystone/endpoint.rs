//! Finds the URL of Keystone's version 3: by discovery, and in the catalogue.
//!
//! Source: `docs/compatibility/keystone.md` section 6.1.

use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use serde::Deserialize;
use serde_json::Value;

/// Reports whether a URL names version 3 itself, so that nothing has to be discovered.
pub(super) fn is_version_3(base: &Uri) -> bool {
    base.path().trim_end_matches('/').ends_with("/v3")
}

/// Reads a discovery document: the path of the v3 `self` link, at the scheme, host and port of `base`. The link itself may
/// name a host that only clients can reach.
pub(super) fn from_discovery(base: &Uri, body: &[u8]) -> Option<Uri> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(default)]
        id: String,
        #[serde(default)]
        links: Vec<Link>,
    }
    #[derive(Deserialize)]
    struct Link {
        #[serde(default)]
        rel: String,
        #[serde(default)]
        href: String,
    }
    let mut document: Value = serde_json::from_slice(body).ok()?;
    let versions: Vec<Version> = match document.get_mut("version").map(Value::take) {
        Some(version) => vec![serde_json::from_value(version).ok()?],
        None => {
            serde_json::from_value(document.get_mut("versions")?.get_mut("values")?.take()).ok()?
        }
    };
    let is_v3 = |version: &&Version| version.id == "v3" || version.id.starts_with("v3.");
    let version = versions.iter().find(is_v3)?;
    let link = version.links.iter().find(|link| link.rel == "self")?;
    let link: Uri = link.href.parse().ok()?;
    with_path(base, link.path().trim_end_matches('/'))
}

/// Guesses the URL of version 3 where nothing could be discovered: `base` with `/v3`, in place of an older version.
pub(super) fn guess(base: &Uri) -> Option<Uri> {
    let path = base.path().trim_end_matches('/');
    let path = path.strip_suffix("/v2.0").unwrap_or(path);
    match path.ends_with("/v3") {
        true => with_path(base, path),
        false => with_path(base, &format!("{path}/v3")),
    }
}

/// Returns the URL of a resource of version 3, such as `/auth/tokens`.
pub(super) fn resource(v3: &Uri, path_and_query: &str) -> Option<Uri> {
    let path = v3.path().trim_end_matches('/');
    with_path(v3, &format!("{path}{path_and_query}"))
}

/// Finds Keystone's own endpoint in the catalogue of a token document, by interface and, where one is set, by region.
pub(super) fn from_catalogue(
    catalogue: &Value,
    interface: &str,
    region: Option<&str>,
) -> Option<Uri> {
    let services = catalogue.as_array()?.iter();
    let identity = services.filter(|service| service["type"] == "identity");
    let mut endpoints = identity
        .flat_map(|service| service["endpoints"].as_array())
        .flatten();
    let endpoint = endpoints.find(|endpoint| {
        let is_of = |region: &str| endpoint["region_id"] == region || endpoint["region"] == region;
        endpoint["interface"] == interface && region.is_none_or(is_of)
    })?;
    let uri: Uri = endpoint["url"].as_str()?.parse().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}

fn with_path(base: &Uri, path_and_query: &str) -> Option<Uri> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect(text)
    }

    #[test]
    fn the_link_of_version_3_is_taken_at_the_host_that_was_asked() {
        let version = |id: &str, href: &str| json!({"id": id, "status": "stable", "links": [{"rel": "self", "href": href}]});
        let v2 = version("v2.0", "https://public.example/identity/v2.0/");
        let v3 = version("v3.14", "https://public.example/identity/v3/");
        let base = uri("http://10.0.0.1:5000/");
        for document in [
            json!({"versions": {"values": [v2, v3]}}),
            json!({"version": v3}),
        ] {
            let found = from_discovery(&base, document.to_string().as_bytes());
            assert_eq!(found, Some(uri("http://10.0.0.1:5000/identity/v3")));
        }
        for document in [
            json!({"versions": {"values": [v2]}}),
            json!({"versions": [v3]}),
            json!({"version": {"id": "v3"}}),
            json!({"version": null}),
            json!([]),
        ] {
            let found = from_discovery(&base, document.to_string().as_bytes());
            assert_eq!(found, None, "{document}");
        }
        assert_eq!(from_discovery(&base, b"<html>"), None);
    }

    #[test]
    fn a_guess_appends_the_version() {
        for (base, v3) in [
            ("http://h:5000", "http://h:5000/v3"),
            ("http://h:5000/", "http://h:5000/v3"),
            ("http://h/identity", "http://h/identity/v3"),
            ("http://h/identity/v2.0/", "http://h/identity/v3"),
            ("http://h/v3/", "http://h/v3"),
        ] {
            assert_eq!(guess(&uri(base)), Some(uri(v3)), "{base}");
            assert_eq!(is_version_3(&uri(base)), base.contains("/v3"), "{base}");
        }
        let tokens = resource(&uri("http://h/v3"), "/auth/tokens?nocatalog");
        assert_eq!(tokens, Some(uri("http://h/v3/auth/tokens?nocatalog")));
    }

    #[test]
    fn the_endpoint_is_found_by_type_interface_and_region() {
        let endpoint = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region": region, "region_id": region, "url": url});
        let catalogue = json!([
            {"type": "messaging", "endpoints": [endpoint("internal", "One", "http://wrong")]},
            {"type": "identity", "endpoints": [
                endpoint("public", "One", "http://public"),
                endpoint("internal", "One", "http://one/v3"),
                endpoint("internal", "Two", "http://two/v3"),
                endpoint("admin", "Two", "ldap://two"),
            ]},
        ]);
        let find = |interface, region| from_catalogue(&catalogue, interface, region);
        assert_eq!(find("internal", None), Some(uri("http://one/v3")));
        assert_eq!(find("internal", Some("Two")), Some(uri("http://two/v3")));
        assert_eq!(find("public", Some("Two")), None);
        assert_eq!(find("admin", None), None, "not http");
        assert_eq!(from_catalogue(&json!(null), "internal", None), None);
        assert_eq!(from_catalogue(&json!([]), "internal", None), None);
    }
}
