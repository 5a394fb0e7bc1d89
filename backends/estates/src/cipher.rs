//! Zaqar's encrypted bodies (spec: messages.md 11): base64 of a random vector and AES-256-CBC, keyed by a hash of a
//! pass phrase. There is no code that proves a decryption right; a wrong pass phrase shows in the padding, or else in
//! what stands in front of it.

use aes::Aes256;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::Decryptor;
use sha2::{Digest, Sha256};

use crate::json::{Text, quoted};
use crate::pickle::from_pickle;

/// What a binary pickle begins with. No UTF-8 text does.
const PICKLE: u8 = 0x80;

/// Opens bodies that were encrypted under a pass phrase.
pub(crate) struct Opener([u8; 32]);

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(***)")
    }
}

impl Opener {
    pub(crate) fn new(pass_phrase: &str) -> Self {
        Self(Sha256::digest(pass_phrase).into())
    }

    /// The body that was posted, as JSON text; `None` when it was not encrypted under this pass phrase.
    pub(crate) fn open(&self, stored: &[u8]) -> Option<Text> {
        let mut bytes = STANDARD.decode(stored.trim_ascii()).ok()?;
        let (vector, rest) = bytes.split_first_chunk_mut::<16>()?;
        let plain = Decryptor::<Aes256>::new(&self.0.into(), &(*vector).into())
            .decrypt_padded::<Pkcs7>(rest)
            .ok()?;
        if plain.first() == Some(&PICKLE) {
            return from_pickle(plain);
        }
        Some(Text {
            json: quoted(std::str::from_utf8(plain).ok()?),
            altered: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"AkGC1N9VLlbN4ObBqO3dD+GKtMvTY5+z6siAD1e+mHE=";
    const OBJECT: &[u8] =
        b"TiTknS+f+XjFdhZritzr75Eas8RMBrUaOPujcYSiQBmOkAo0xCSXBjTDYGI6D8Mxr/8e48kjLiEVW/TElFbiPQ==";

    #[test]
    fn the_vectors_of_the_specification_open() {
        let opener = Opener::new("MyKey123");
        assert_eq!(opener.open(TEXT).expect("a text").json, "\"héllo\"");
        assert_eq!(
            opener.open(OBJECT).expect("an object").json,
            r#"{"k": [1, 2.5, null, true, "x"]}"#
        );
    }

    #[test]
    fn a_wrong_pass_phrase_opens_nothing() {
        for phrase in ["AES256", "mykey123", ""] {
            let opener = Opener::new(phrase);
            assert!(opener.open(TEXT).is_none() && opener.open(OBJECT).is_none());
        }
    }

    #[test]
    fn broken_text_is_survived() {
        let opener = Opener::new("MyKey123");
        for end in 0..TEXT.len() {
            assert!(opener.open(&TEXT[..end]).is_none());
        }
        assert!(opener.open(b"not base64!").is_none());
    }
}
