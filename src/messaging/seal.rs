//! Message bodies encrypted at rest, for queues that ask for it (spec: messages.md 11).
//!
//! Zaqar's own form is AES-CBC without a MAC over text that is unpickled when it is read, so that whoever may post a
//! string may run code in the server (quirk Q-SEC-3). Here a body is bytes before and after: AES-256-GCM, and nothing
//! is ever evaluated. A sealed body is ASCII text:
//!
//! ```text
//! s1: base64( key id, 4 bytes | nonce, 12 | ciphertext | tag, 16 )
//! ```
//!
//! It is bound to its message's id and to nothing else, because a dead letter changes its queue. The key id finds
//! the key among several, which is what rotation needs: put the new key first, keep the old one behind it until the
//! last message sealed with it has gone. Nonces are random, so a key should be changed well before it has sealed
//! 2^32 bodies.

use std::fmt;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, Generate, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use isimud_contract::{Error, ErrorKind, MessageId, Result};
use sha2::{Digest, Sha256};

/// What every sealed body begins with. Another way of sealing gets another tag.
const TAG: &str = "s1:";
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;
/// Where the ciphertext begins.
const HEAD_BYTES: usize = KEY_ID_BYTES + NONCE_BYTES;
const MAC_BYTES: usize = 16;

/// How long the sealed form of a body is, in bytes.
pub(super) fn sealed_len(body: usize) -> usize {
    let sealed = HEAD_BYTES + body + MAC_BYTES;
    TAG.len() + (sealed * 4).div_ceil(3)
}

/// Seals and opens message bodies with keys from the configuration.
pub(crate) struct Sealer {
    /// The one that seals; it opens too.
    first: SealingKey,
    /// Those that only open.
    older: Vec<SealingKey>,
}

struct SealingKey {
    id: [u8; KEY_ID_BYTES],
    cipher: Aes256Gcm,
}

impl Sealer {
    /// Makes keys of the configured texts, of which the first seals and all open. `Invalid` when there is none, when
    /// one is blank, or when two are the same.
    ///
    /// A text is hashed, not stretched: it has to be long and random, as `openssl rand -base64 32` makes it.
    pub(crate) fn new(texts: &[String]) -> Result<Self> {
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Err(Error::invalid("an encryption key is blank"));
        }
        let mut keys = texts.iter().map(|text| SealingKey::new(text));
        let Some(first) = keys.next() else {
            return Err(Error::invalid("no encryption key is configured"));
        };
        let sealer = Self {
            first,
            older: keys.collect(),
        };
        let mut ids: Vec<_> = sealer.keys().map(|key| key.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid("two of the encryption keys are the same"));
        }
        Ok(sealer)
    }

    /// Seals the body of a message. The same body never looks the same twice. `Internal` when the system has no
    /// randomness.
    pub(crate) fn seal(&self, message: MessageId, body: &[u8]) -> Result<Bytes> {
        let nonce = Nonce::<U12>::try_generate().map_err(|error| {
            broken("a body could not be sealed for lack of random bytes").caused_by(error)
        })?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + body.len() + MAC_BYTES);
        sealed.extend_from_slice(&self.first.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(body);
        let mac = self
            .first
            .cipher
            .encrypt_inout_detached(
                &nonce,
                message.0.as_bytes(),
                (&mut sealed[HEAD_BYTES..]).into(),
            )
            .map_err(|_| broken("a body is too large to be sealed"))?;
        sealed.extend_from_slice(&mac);
        let mut text = String::with_capacity(TAG.len() + sealed.len().div_ceil(3) * 4);
        text.push_str(TAG);
        STANDARD_NO_PAD.encode_string(&sealed, &mut text);
        Ok(text.into())
    }

    /// Opens what `seal` made for the same message. Otherwise `Internal`, with a sentence that tells an operator
    /// whether a key is missing or the stored text was damaged; trying again mends neither.
    pub(crate) fn open(&self, message: MessageId, sealed: &[u8]) -> Result<Bytes> {
        let mut opened = sealed
            .strip_prefix(TAG.as_bytes())
            .and_then(|text| STANDARD_NO_PAD.decode(text).ok())
            .filter(|bytes| bytes.len() >= HEAD_BYTES + MAC_BYTES)
            .ok_or_else(|| {
                broken("the stored body is not a sealed one, or it was cut short")
                    .with("message", message)
            })?;
        let mac = opened.split_off(opened.len() - MAC_BYTES);
        let (head, body) = opened.split_at_mut(HEAD_BYTES);
        let (id, nonce) = head.split_at(KEY_ID_BYTES);
        let key = self
            .keys()
            .find(|key| key.id == id)
            .ok_or_else(|| unknown_key(id).with("message", message))?;
        key.decrypt(message, nonce, body, &mac)?;
        Ok(Bytes::from(opened).slice(HEAD_BYTES..))
    }

    fn keys(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.first).chain(&self.older)
    }
}

impl SealingKey {
    fn new(text: &str) -> Self {
        let key: Key<Aes256Gcm> = labelled("isimud message body key 1", text.as_bytes());
        let hash = labelled("isimud message body key id 1", &key);
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&hash[..KEY_ID_BYTES]);
        Self {
            id,
            cipher: Aes256Gcm::new(&key),
        }
    }

    /// Decrypts in place, after the code at the end has proved every bit of it.
    fn decrypt(&self, message: MessageId, nonce: &[u8], body: &mut [u8], mac: &[u8]) -> Result<()> {
        let (Ok(nonce), Ok(mac)) = (Nonce::<U12>::try_from(nonce), Tag::<U16>::try_from(mac))
        else {
            return Err(broken("a sealed body has parts of the wrong length"));
        };
        self.cipher
            .decrypt_inout_detached(&nonce, message.0.as_bytes(), body.into(), &mac)
            .map_err(|_| {
                broken("the sealed body was changed, or it belongs to another message")
                    .with("message", message)
            })
    }
}

impl fmt::Debug for Sealer {
    /// Says how many keys there are, and nothing of what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("keys", &self.keys().count())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a text for one purpose: another label gives another hash.
fn labelled(label: &str, text: &[u8]) -> Key<Aes256Gcm> {
    Sha256::new()
        .chain_update(label)
        .chain_update([0])
        .chain_update(text)
        .finalize()
}

fn broken(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Internal, sentence)
}

/// Whether a body could not be opened because its key is not configured: with it, it could be.
pub(crate) fn is_key_missing(error: &Error) -> bool {
    error.about("key").is_some()
}

fn unknown_key(id: &[u8]) -> Error {
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    broken("the body was sealed with a key that is not configured").with("key", id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(texts: &[&str]) -> Sealer {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        Sealer::new(&texts).expect("usable keys")
    }

    fn message(text: &str) -> MessageId {
        MessageId::parse(text).expect("a message id")
    }

    fn some_message() -> MessageId {
        message("c8cbd19a-842e-4794-8e25-3d5e2df00f2b")
    }

    #[test]
    fn a_sealed_body_opens_to_the_original() {
        let sealer = sealer(&["a long and random text"]);
        for body in [
            Vec::new(),
            b"null".to_vec(),
            r#"{"event": "Sicherung läuft"}"#.into(),
            vec![b'x'; 256 * 1024],
        ] {
            let sealed = sealer.seal(some_message(), &body).unwrap();
            assert!(sealed.starts_with(TAG.as_bytes()) && sealed.is_ascii());
            assert_eq!(sealer.open(some_message(), &sealed).unwrap(), body);
        }
    }

    #[test]
    fn the_same_body_never_looks_the_same_twice() {
        let sealer = sealer(&["key"]);
        let seal = || sealer.seal(some_message(), b"same").unwrap();
        let all: std::collections::HashSet<_> = (0..100).map(|_| seal()).collect();
        assert_eq!(all.len(), 100);
    }

    #[test]
    fn a_body_opens_for_its_own_message_only() {
        let sealer = sealer(&["key"]);
        let sealed = sealer.seal(some_message(), b"body").unwrap();
        let other = message("85e838e7-c831-4172-b5d4-3a4d8fd42c9a");
        let error = sealer.open(other, &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(
            error.to_string(),
            "the sealed body was changed, or it belongs to another message \
             (message: 85e838e7-c831-4172-b5d4-3a4d8fd42c9a)"
        );
    }

    #[test]
    fn a_change_anywhere_is_noticed() {
        let sealer = sealer(&["key"]);
        let sealed = sealer.seal(some_message(), b"a body").unwrap();
        for at in 0..sealed.len() {
            for flip in [1, 4, 32] {
                let mut changed = sealed.to_vec();
                changed[at] ^= flip;
                let error = sealer.open(some_message(), &changed).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Internal, "{at}");
            }
        }
    }

    #[test]
    fn a_shorter_or_a_longer_text_does_not_open() {
        let sealer = sealer(&["key"]);
        let sealed = sealer.seal(some_message(), b"a body").unwrap();
        for end in 0..sealed.len() {
            assert!(sealer.open(some_message(), &sealed[..end]).is_err());
        }
        for more in ["A", "AAAA", "=", "\n"] {
            let longer = [&sealed[..], more.as_bytes()].concat();
            assert!(sealer.open(some_message(), &longer).is_err());
        }
        assert!(sealer.open(some_message(), br#"{"plain": true}"#).is_err());
    }

    #[test]
    fn a_rotated_key_still_opens_older_messages() {
        let old = sealer(&["old"]);
        let sealed = old.seal(some_message(), b"body").unwrap();
        let both = sealer(&["new", "old"]);
        assert_eq!(both.open(some_message(), &sealed).unwrap(), "body");
        let newer = both.seal(some_message(), b"body").unwrap();
        let new = sealer(&["new"]);
        assert_eq!(new.open(some_message(), &newer).unwrap(), "body");
        let error = new.open(some_message(), &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(
            error.sentence(),
            "the body was sealed with a key that is not configured"
        );
    }

    #[test]
    fn unusable_keys_are_refused() {
        for texts in [vec![], vec![" "], vec!["a", ""], vec!["a", "b", "a"]] {
            let texts: Vec<_> = texts.into_iter().map(str::to_owned).collect();
            assert!(Sealer::new(&texts).is_err(), "{texts:?}");
        }
    }

    #[test]
    fn debugging_shows_no_key() {
        assert_eq!(
            format!("{:?}", sealer(&["secret", "older"])),
            "Sealer { keys: 2, .. }"
        );
    }

    /// A body that another implementation of the same cipher sealed: a change of the format or of how keys are made
    /// cannot pass unseen.
    #[test]
    fn what_was_stored_once_still_opens() {
        let stored =
            b"s1:MeOM3QECAwQFBgcICQoLDHRztl4D3y0T6Kll8+pihEgBep9rTCkl7PGFF3iQKEtkWVvgTA2W/0vMsw";
        let opened = sealer(&["MyKey123"]).open(some_message(), stored).unwrap();
        assert_eq!(opened, r#"{"event": "BackupStarted"}"#);
    }
}
