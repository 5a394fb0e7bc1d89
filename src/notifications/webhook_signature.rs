//! What lets a receiver check who sent a notification: the headers of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks>).
//!
//! ```text
//! webhook-signature: v1,base64( HMAC-SHA256( secret, webhook-id "." webhook-timestamp "." body ) )
//! ```

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use isimud_contract::{MessageId, Timestamp};
use sha2::Sha256;

/// The option of a subscription that holds its secret.
pub(crate) const WEBHOOK_SECRET: &str = "_webhook_secret";

/// A secret that a subscriber and the service share.
pub(crate) struct Secret(Hmac<Sha256>);

impl Secret {
    /// Reads `whsec_` and 24 to 64 bytes in base64.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix("whsec_")?;
        let bytes = STANDARD
            .decode(encoded)
            .or_else(|_| STANDARD_NO_PAD.decode(encoded))
            .ok()?;
        let fits = (24..=64).contains(&bytes.len());
        Hmac::new_from_slice(&bytes).ok().filter(|_| fits).map(Self)
    }

    /// The value of `webhook-signature`.
    pub(crate) fn sign(&self, id: MessageId, moment: Timestamp, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{}.", moment.0.div_euclid(1000)).as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Made with Python's hmac and base64 alone.
    #[test]
    fn a_signature_is_what_the_standard_says() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let id = MessageId(Uuid::from_u128(1));
        let signature = secret.sign(id, Timestamp(1_614_265_330_999), br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,iCxWDzOB1td6pu5wFuJotaWTEKkcYodMae2NqIIaffg=");
    }

    #[test]
    fn secrets_have_a_form_and_a_length() {
        for bad in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
            "whsec_????",
        ] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
        let longest = format!("whsec_{}", STANDARD.encode([7; 64]));
        assert!(Secret::parse(&longest).is_some());
        let too_long = format!("whsec_{}", STANDARD.encode([7; 65]));
        assert!(Secret::parse(&too_long).is_none());
    }
}
