//! Keys that mean nothing where what they are for is off. A start and a check warn of them: who has set them expects them to
//! count.

use serde::Serialize;
use serde_json::Value;

use crate::keystone::{KeystoneConfig, TrusteeConfig};

/// Warns of keys of Keystone where nobody asks it: the operator may have forgotten the key that says so.
pub(super) fn without_keystone(
    keystone: &KeystoneConfig,
    trustee: &TrusteeConfig,
) -> Option<String> {
    let mut keys = set("keystone", keystone);
    keys.extend(set("trustee", trustee));
    (!keys.is_empty()).then(|| {
        format!(
            "{} set, and access.authentication is \"none\": Keystone is not asked, and headers say who asks; set \
             access.authentication = \"keystone\", or take the keys of Keystone away",
            are(&keys)
        )
    })
}

/// Warns of a trustee that has a password or a domain and no name.
pub(super) fn without_trustee(trustee: &TrusteeConfig) -> Option<String> {
    let of_user = TrusteeConfig {
        // It counts for the service user, too.
        auth_url: String::new(),
        ..trustee.clone()
    };
    let keys = set("trustee", &of_user);
    (!keys.is_empty() && !trustee.has_user()).then(|| {
        format!(
            "{} set, and neither trustee.username nor trustee.user_id: they do not count, as nobody says whose they are",
            are(&keys)
        )
    })
}

fn are(keys: &[String]) -> String {
    let verb = if keys.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", keys.join(", "))
}

/// The keys of a section whose values are not the defaults, in their order. No value is shown.
fn set<T: Serialize + Default>(section: &str, written: &T) -> Vec<String> {
    let (written, defaults) = (members(written), members(&T::default()));
    let changed = written
        .into_iter()
        .filter(|(key, value)| defaults.get(key) != Some(value));
    changed.map(|(key, _)| format!("{section}.{key}")).collect()
}

fn members(section: &impl Serialize) -> serde_json::Map<String, Value> {
    match serde_json::to_value(section) {
        Ok(Value::Object(members)) => members,
        // A section is a structure, and its paths were texts before.
        _ => serde_json::Map::new(),
    }
}
