//! Certificates and private keys in files (PEM), with a reason where a file cannot be used. Whoever reads a file says which
//! one it is, and what for.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is said of a file without a key that can be read.
const NO_KEY: &str = "it has no private key in PEM (one with a pass phrase cannot be used)";

/// Reads all certificates of a file. Fails with the reason when there is none, or one that cannot be read.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let each = CertificateDer::pem_file_iter(file).map_err(reason)?;
    let all: Vec<_> = each.collect::<Result<_, _>>().map_err(reason)?;
    match all.is_empty() {
        true => Err("it has no certificate in PEM".to_owned()),
        false => Ok(all),
    }
}

/// Reads a file of certificate authorities into those that are trusted. Fails with the reason, as [`certificates`] does.
pub fn trust(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Reads the first private key of a file. Fails with the reason; a key with a pass phrase cannot be read.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        Error::NoItemsFound => NO_KEY.to_owned(),
        // In an older form the headers of a pass phrase stand where base64 should.
        Error::Base64Decode(why) => format!("{NO_KEY}: {why}"),
        other => reason(other),
    })
}

fn reason(error: Error) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}
