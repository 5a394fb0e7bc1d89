//! Certificates and keys for tests of TLS.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// Certificates in files, each with its key in a file `NAME-key` beside it.
///
/// | file | issued by | for |
/// |---|---|---|
/// | `ca`, `other-ca` | themselves | (no keys) |
/// | `server` | `ca` | 127.0.0.1 |
/// | `localhost` | `ca` | localhost |
/// | `elsewhere` | `ca` | elsewhere.test |
/// | `client` | `ca` | client |
/// | `stranger` | `other-ca` | client |
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

/// An authority, which signs certificates.
type Authority = CertifiedIssuer<'static, KeyPair>;

impl Certificates {
    /// Issues all of them, in a folder that goes when this is dropped.
    pub fn create() -> Self {
        let certificates = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        let (one, another) = (authority("one"), authority("another"));
        certificates.write("ca", &one.pem());
        certificates.write("other-ca", &another.pem());
        certificates.issue(&one, "server", "127.0.0.1");
        certificates.issue(&one, "localhost", "localhost");
        certificates.issue(&one, "elsewhere", "elsewhere.test");
        certificates.issue(&one, "client", "client");
        certificates.issue(&another, "stranger", "client");
        certificates
    }

    fn issue(&self, authority: &Authority, name: &str, host: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut wanted = CertificateParams::new([host.to_owned()]).expect("a name of a host");
        wanted.distinguished_name.push(DnType::CommonName, name);
        wanted.use_authority_key_identifier_extension = true;
        let certificate = wanted.signed_by(&key, authority).expect("a certificate");
        self.write(name, &certificate.pem());
        self.write(&format!("{name}-key"), &key.serialize_pem());
    }

    /// Writes a file beside the others, for a test of what cannot be read.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("a file");
    }

    /// The path of a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The option of a store URI that names a file.
    pub fn option(&self, name: &str, file: &str) -> String {
        format!("&{name}={}", self.file(file).display())
    }

    /// The options of a client that shows a certificate.
    pub fn identity(&self, name: &str) -> String {
        self.option("cert_file", name) + &self.option("key_file", &format!("{name}-key"))
    }
}

fn authority(name: &str) -> Authority {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name.push(DnType::CommonName, name);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Python's clients accept no authority without it.
    wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(wanted, key).expect("an authority")
}
