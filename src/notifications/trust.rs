//! Subscribers of `trust+http` and `trust+https`: they are sent a token of the user who subscribed them.
//!
//! What the service knows of the trust stands in the options of the subscription, below a key that only it writes:
//!
//! ```text
//! _trust   {"id": …, "user_id": whose it is, "created": whether the service created it}
//! ```
//!
//! A `trust_id` among the options says nothing: any client can write it. The API shows one in its place, to the owner.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use hyper::http::HeaderValue;
use isimud_contract::Metadata;
use serde::{Deserialize, Serialize};

const RECORD: &str = "_trust";

/// The trust of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrustRecord {
    /// The trust's id.
    pub(crate) id: String,
    /// The user who gave it, and who created the subscription or changed it last.
    pub(crate) user_id: String,
    /// Whether the service created it. One that a client named is the client's to delete.
    pub(crate) created: bool,
}

impl TrustRecord {
    /// Reads the trust of a subscription.
    pub(crate) fn read(options: &Metadata) -> Option<Self> {
        serde_json::from_value(options.get(RECORD)?.clone()).ok()
    }

    /// Notes it in the options of a subscription.
    pub(crate) fn write(&self, options: &mut Metadata) {
        // A structure of our own with text keys: it has no way to fail.
        let record = serde_json::to_value(self).unwrap_or_default();
        options.insert(RECORD.to_owned(), record);
    }
}

/// Takes what only the service writes out of options.
pub(crate) fn forget_trust(options: &mut Metadata) {
    options.remove(RECORD);
}

/// The address to which a subscriber with a trust is sent; `None` for a subscriber of another kind.
pub(crate) fn target_of_trust(subscriber: &str) -> Option<&str> {
    const SCHEME: &str = "trust+";
    let start = subscriber.get(..SCHEME.len())?;
    start
        .eq_ignore_ascii_case(SCHEME)
        .then(|| &subscriber[SCHEME.len()..])
}

/// Gets tokens of trusts.
#[async_trait]
pub trait TrustTokens: fmt::Debug + Send + Sync + 'static {
    /// Returns a token of a trust, and not the one that a receiver has refused.
    async fn token(
        &self,
        trust: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, NoTrustToken>;
}

/// There is no token of a trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoTrustToken {
    /// After which time there may be one; `None` where there never will be.
    pub after: Option<Duration>,
    /// Why not.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_target_is_the_address_without_its_first_word() {
        for (subscriber, target) in [
            ("trust+http://h/x", Some("http://h/x")),
            ("TRUST+HTTPS://h", Some("HTTPS://h")),
            ("http://h/trust+http", None),
            ("trust", None),
            ("trüst+http://h", None),
        ] {
            assert_eq!(target_of_trust(subscriber), target, "{subscriber}");
        }
    }

    #[test]
    fn a_trust_is_read_as_it_was_written_and_forgotten() {
        let options = json!({"a": 1, "trust_id": "foreign"});
        let mut options = options.as_object().expect("an object").clone();
        assert_eq!(TrustRecord::read(&options), None);
        let record = TrustRecord {
            id: "t".to_owned(),
            user_id: "u".to_owned(),
            created: true,
        };
        record.write(&mut options);
        assert_eq!(TrustRecord::read(&options), Some(record));
        forget_trust(&mut options);
        assert_eq!(json!(options), json!({"a": 1, "trust_id": "foreign"}));
    }
}
