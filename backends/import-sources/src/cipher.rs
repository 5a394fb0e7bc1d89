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

/// The number of its protocol, which follows.
const PROTOCOLS: std::ops::RangeInclusive<u8> = 2..=5;

/// What a pass phrase makes of a body.
#[derive(Debug)]
pub(crate) enum Opened {
    Body(Text),
    /// The phrase is right, and what was encrypted is a pickle of more than a JSON value.
    StrangePickle,
    /// It was not encrypted under this phrase.
    WrongKey,
}

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

    /// The body that was posted, as JSON text.
    pub(crate) fn open(&self, stored: &[u8]) -> Opened {
        let Ok(mut bytes) = STANDARD.decode(stored.trim_ascii()) else {
            return Opened::WrongKey;
        };
        let Some((vector, rest)) = bytes.split_first_chunk_mut::<16>() else {
            return Opened::WrongKey;
        };
        let decryptor = Decryptor::<Aes256>::new(&self.0.into(), &(*vector).into());
        let Ok(plain) = decryptor.decrypt_padded::<Pkcs7>(rest) else {
            return Opened::WrongKey;
        };
        match (plain, std::str::from_utf8(plain)) {
            ([PICKLE, protocol, ..], _) if PROTOCOLS.contains(protocol) => {
                from_pickle(plain).map_or(Opened::StrangePickle, Opened::Body)
            }
            (_, Ok(text)) => Opened::Body(Text {
                json: quoted(text),
                altered: false,
            }),
            _ => Opened::WrongKey,
        }
    }
}

#[cfg(test)]
mod tests {
    use aes::cipher::BlockModeEncrypt;

    use super::*;

    const TEXT: &[u8] = b"AkGC1N9VLlbN4ObBqO3dD+GKtMvTY5+z6siAD1e+mHE=";
    const OBJECT: &[u8] =
        b"TiTknS+f+XjFdhZritzr75Eas8RMBrUaOPujcYSiQBmOkAo0xCSXBjTDYGI6D8Mxr/8e48kjLiEVW/TElFbiPQ==";

    #[test]
    fn the_vectors_of_the_specification_open() {
        let opener = Opener::new("MyKey123");
        let json = |stored| match opener.open(stored) {
            Opened::Body(text) => text.json,
            other => panic!("{other:?}"),
        };
        assert_eq!(json(TEXT), "\"héllo\"");
        assert_eq!(json(OBJECT), r#"{"k": [1, 2.5, null, true, "x"]}"#);
    }

    #[test]
    fn a_wrong_pass_phrase_opens_nothing() {
        for phrase in ["AES256", "mykey123", ""] {
            let opener = Opener::new(phrase);
            for stored in [TEXT, OBJECT] {
                assert!(matches!(opener.open(stored), Opened::WrongKey));
            }
        }
    }

    #[test]
    fn broken_text_is_survived() {
        let opener = Opener::new("MyKey123");
        for end in 0..TEXT.len() {
            assert!(matches!(opener.open(&TEXT[..end]), Opened::WrongKey));
        }
        assert!(matches!(opener.open(b"not base64!"), Opened::WrongKey));
    }

    #[test]
    fn a_pickle_of_code_is_told_from_a_wrong_pass_phrase() {
        let opener = Opener::new("MyKey123");
        let plain = b"\x80\x02cbuiltins\nlen\n(S'abcdef'\ntR.";
        let mut bytes = vec![7; 16];
        let mut padded = plain.to_vec();
        padded.resize(48, 0);
        let vector: [u8; 16] = [7; 16];
        let sealed = cbc::Encryptor::<Aes256>::new(&opener.0.into(), &vector.into())
            .encrypt_padded::<Pkcs7>(&mut padded, plain.len())
            .expect("room for the padding");
        bytes.extend_from_slice(sealed);
        let stored = STANDARD.encode(bytes);
        assert!(matches!(
            opener.open(stored.as_bytes()),
            Opened::StrangePickle
        ));
        let other = Opener::new("other").open(stored.as_bytes());
        assert!(matches!(other, Opened::WrongKey));
    }
}
