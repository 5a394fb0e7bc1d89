//! Passwords: never shown, and kept when a client sends back what it was shown.

use isimud_contract::{Error, Metadata, Result};
use serde_json::Value;

/// What is shown in the place of a password.
const MASK: &str = "***";

/// Whether an option's value is not for showing.
fn is_secret(option: &str) -> bool {
    ["password", "secret", "token"]
        .iter()
        .any(|word| option.contains(word))
}

/// A URI as it may be shown: without the passwords in it.
pub fn shown(uri: &str) -> String {
    let (address, query) = split_query(uri);
    let mut shown = match address.split_once(':') {
        Some(("sqlite", _)) | None => address.to_owned(),
        Some((scheme, rest)) => {
            let (slashes, rest) = match rest.strip_prefix("//") {
                Some(rest) => ("//", rest),
                None => ("", rest),
            };
            let (who, place) = rest.rsplit_once('@').unwrap_or(("", rest));
            match who.split_once(':') {
                Some((user, _)) => format!("{scheme}:{slashes}{user}:{MASK}@{place}"),
                // Without slashes nobody can tell what it is.
                None if slashes.is_empty() && !who.is_empty() => format!("{scheme}:{MASK}@{place}"),
                None => address.to_owned(),
            }
        }
    };
    for (at, option) in query
        .split('&')
        .filter(|option| !option.is_empty())
        .enumerate()
    {
        shown.push(if at == 0 { '?' } else { '&' });
        match option.split_once('=') {
            Some((key, _)) if is_secret(key) => {
                shown.push_str(key);
                shown.push('=');
                shown.push_str(MASK);
            }
            _ => shown.push_str(option),
        }
    }
    shown
}

/// A URI's address and its query. A question mark in a password does not begin a query.
fn split_query(uri: &str) -> (&str, &str) {
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let hosts = rest.split_once('/').map_or(rest, |(hosts, _)| hosts);
    let is_host = |host: &str| {
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        host.starts_with('[') || port.bytes().all(|byte| byte.is_ascii_digit())
    };
    if rest.contains('@') || hosts.split(',').all(is_host) {
        return (address, query);
    }
    // It begins like a password, which ends at the last of these, if anywhere.
    match uri.rfind('@') {
        Some(at) => match uri[at..].find('?') {
            Some(end) => (&uri[..at + end], &uri[at + end + 1..]),
            None => (uri, ""),
        },
        None => (address, query),
    }
}

/// The options of a pool as they may be shown.
pub(crate) fn shown_options(options: &Metadata) -> Metadata {
    // What lies deeper is of no driver here, and a password all the same.
    fn deeper(value: &Value) -> Value {
        match value {
            Value::Object(members) => Value::Object(shown_options(members)),
            Value::Array(all) => all.iter().map(deeper).collect(),
            other => other.clone(),
        }
    }
    let shown = |(key, value): (&String, &Value)| match is_secret(key) {
        true => (key.clone(), MASK.into()),
        false => (key.clone(), deeper(value)),
    };
    options.iter().map(shown).collect()
}

/// Puts the passwords of `old` where `new` has masks. They belong to one user at one address: `Invalid` where that is
/// another, so that nobody who may not read a password can have it sent elsewhere.
pub(crate) fn restored(new: &str, old: Option<&str>) -> Result<String> {
    let (address, query) = split(new);
    let (old_address, old_query) = split(old.unwrap_or_default());
    let is_masked = |text: &str| text.contains(&format!(":{MASK}@"));
    let masks_option = query.iter().any(|option| is_masked_option(option));
    if !is_masked(address) && !masks_option {
        return Ok(new.to_owned());
    }
    let same_place = match is_masked(address) {
        true => shown(old_address) == address,
        false => shown(old_address) == shown(address),
    };
    if !same_place {
        return Err(unknown());
    }
    let mut restored = match is_masked(address) {
        true => old_address.to_owned(),
        false => address.to_owned(),
    };
    for (at, option) in query.iter().enumerate() {
        restored.push(if at == 0 { '?' } else { '&' });
        if !is_masked_option(option) {
            restored.push_str(option);
            continue;
        }
        let name = option.trim_end_matches(MASK);
        let known = old_query.iter().find(|old| old.starts_with(name));
        restored.push_str(known.ok_or_else(unknown)?);
    }
    Ok(restored)
}

/// The same for options beside the URI; `moved` says that the address is another now.
pub(crate) fn restored_options(
    mut new: Metadata,
    old: Option<&Metadata>,
    moved: bool,
) -> Result<Metadata> {
    for (key, value) in &mut new {
        if is_secret(key) && value == MASK {
            let known = old.filter(|_| !moved).and_then(|old| old.get(key));
            *value = known.ok_or_else(unknown)?.clone();
        }
    }
    Ok(new)
}

/// Whether two URIs are of one user at one address.
pub(crate) fn is_same_location(one: &str, other: &str) -> bool {
    shown(split(one).0) == shown(split(other).0)
}

fn split(uri: &str) -> (&str, Vec<&str>) {
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let options = query.split('&').filter(|option| !option.is_empty());
    (address, options.collect())
}

fn is_masked_option(option: &str) -> bool {
    let value = option
        .split_once('=')
        .map(|(key, value)| (is_secret(key), value));
    value == Some((true, MASK))
}

fn unknown() -> Error {
    Error::invalid(
        "`***` stands for a password that is not known for this address; give the password itself.",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (uri, safe) in [
            (
                "sqlite:data/isimud.db?readers=2",
                "sqlite:data/isimud.db?readers=2",
            ),
            (
                "redis://:geheim@h:1/2?timeout_ms=5",
                "redis://:***@h:1/2?timeout_ms=5",
            ),
            ("rediss://me:a@b:c@h1,h2", "rediss://me:***@h1,h2"),
            ("redis:me:geheim@h:1/2", "redis:me:***@h:1/2"),
            ("redis:geheim@h", "redis:***@h"),
            (
                "redis://me:ge?heim@h/1?timeout_ms=5",
                "redis://me:***@h/1?timeout_ms=5",
            ),
            (
                "redis://me:ge/heim@h?password=x",
                "redis://me:***@h?password=***",
            ),
            ("redis://h:1/2?name=a@b&x=1", "redis://h:1/2?name=a@b&x=1"),
            ("sqlite:/a:b@c.db?readers=2", "sqlite:/a:b@c.db?readers=2"),
            (
                "redis://h?master=m&sentinel_password=x",
                "redis://h?master=m&sentinel_password=***",
            ),
        ] {
            assert_eq!(shown(uri), safe);
        }
    }

    #[test]
    fn what_was_shown_can_be_sent_back() {
        let old = "redis://me:pw@h:1?master=m&sentinel_password=x&timeout_ms=5";
        for (new, restored_to) in [
            (shown(old), old.to_owned()),
            (
                "redis://me:***@h:1?timeout_ms=9&sentinel_password=***".into(),
                "redis://me:pw@h:1?timeout_ms=9&sentinel_password=x".into(),
            ),
            (
                "redis://me:new@h:1?sentinel_password=***".into(),
                "redis://me:new@h:1?sentinel_password=x".into(),
            ),
            ("redis://other:p@k".into(), "redis://other:p@k".into()),
        ] {
            assert_eq!(restored(&new, Some(old)).expect(&new), restored_to);
        }
    }

    #[test]
    fn a_password_goes_nowhere_else() {
        let old = "redis://me:pw@h:1?sentinel_password=x";
        for new in [
            "redis://me:***@elsewhere:1",
            "redis://you:***@h:1",
            "redis://elsewhere?sentinel_password=***",
            "redis://me:***@h:1?other_secret=***",
        ] {
            assert!(restored(new, Some(old)).is_err(), "{new}");
        }
        assert!(restored("redis://me:***@h:1", None).is_err());
        let options = |document: Value| document.as_object().cloned().expect("an object");
        let (masked, known) = (
            options(json!({"sentinel_password": "***", "a": 1})),
            options(json!({"sentinel_password": "pw"})),
        );
        let kept = restored_options(masked.clone(), Some(&known), false).expect("kept");
        assert_eq!(
            Value::Object(kept),
            json!({"sentinel_password": "pw", "a": 1})
        );
        assert!(restored_options(masked.clone(), Some(&known), true).is_err());
        assert!(restored_options(masked, None, false).is_err());
        assert_eq!(
            Value::Object(shown_options(&known)),
            json!({"sentinel_password": "***"})
        );
    }
}
