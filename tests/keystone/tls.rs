//! Keystone over https: a private authority, a client certificate, and no check at all (spec: keystone.md 12).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};

use crate::keystone::proxy::Proxy;
use crate::keystone::request::with;
use crate::keystone::{WORLD, log};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("an authority")
}

fn certificate(authority: &Authority) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = CertificateParams::new(names).expect("names");
    (
        params.signed_by(&key, authority).expect("a certificate"),
        key,
    )
}

fn server(authority: &Authority, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der().clone()).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let (certificate, key) = certificate(authority);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![certificate.der().clone()];
    builder.with_single_cert(chain, key).expect("a certificate")
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

async fn outcome(port: u16, more: Value) -> String {
    let mut all = json!({"auth_url": format!("https://localhost:{port}"), "region": "Nowhere"});
    let members = all.as_object_mut().expect("an object");
    members.extend(more.as_object().expect("an object").clone());
    let (service, _) = WORLD.authenticator(WORLD.keystone.port, &all);
    with(&WORLD.token("alice")).outcome(&service).await
}

#[tokio::test]
async fn certificates_are_checked_by_the_private_authority_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, other) = (authority(), authority());
    let ca = write(folder.path(), "ca.pem", &ours.pem());
    let wrong = write(folder.path(), "wrong.pem", &other.pem());
    let proxy = Proxy::start_tls(WORLD.keystone.port, server(&ours, None));
    assert_eq!(outcome(proxy.port, json!({"ca_file": ca})).await, "200");
    assert_eq!(
        outcome(proxy.port, json!({"ca_file": wrong})).await,
        "503 5"
    );
    assert_eq!(
        outcome(proxy.port, json!({})).await,
        "503 5",
        "the machine does not know it"
    );
    assert_eq!(outcome(proxy.port, json!({"insecure": true})).await, "200");
    assert_eq!(proxy.logins(), 2);
    log::assert_no_secret();
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority();
    let ca = write(folder.path(), "ca.pem", &ours.pem());
    let (certificate, key) = certificate(&ours);
    let cert = write(folder.path(), "cert.pem", &certificate.pem());
    let key = write(folder.path(), "key.pem", &key.serialize_pem());
    let proxy = Proxy::start_tls(WORLD.keystone.port, server(&ours, Some(&ours)));
    assert_eq!(outcome(proxy.port, json!({"ca_file": ca})).await, "503 5");
    let shown = json!({"ca_file": ca, "cert_file": cert, "key_file": key});
    assert_eq!(outcome(proxy.port, shown).await, "200");
    log::assert_no_secret();
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = write(folder.path(), "empty.pem", "");
    let refusal = |more: Value| {
        let mut section = json!({
            "auth_url": "https://keystone", "username": "zaqar", "user_domain": "Default", "password": "p",
            "project_id": "service",
        });
        let members = section.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        let config: isimud::keystone::KeystoneConfig =
            serde_json::from_value(section).expect("a section");
        let clock = Arc::new(isimud_contract::SystemClock);
        let made =
            isimud::keystone::Authenticator::new(&config.resolve().expect("it is right"), clock);
        made.expect_err("it cannot be made")
    };
    let missing = folder.path().join("missing.pem");
    for (more, key) in [
        (
            json!({"ca_file": missing}),
            "keystone.ca_file: cannot use the file",
        ),
        (
            json!({"ca_file": empty}),
            "keystone.ca_file: cannot use the file",
        ),
        (
            json!({"cert_file": missing, "key_file": empty}),
            "keystone.cert_file: cannot use the file",
        ),
    ] {
        let refusal = refusal(more);
        assert!(
            refusal.starts_with(key) && refusal.contains(".pem"),
            "{refusal}"
        );
    }
}
