//! TLS towards Keystone: a private authority, a client certificate, or no check at all.
//!
//! Source: `docs/compatibility/keystone.md` section 12.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::settings::TlsSettings;
use crate::pem;

/// Reads the files and creates the client's configuration. Fails with a sentence that names the key and the file.
///
/// Where `ca_file` is set, only its authorities count, as in the reference.
pub(super) fn client_config(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match settings.insecure {
        true => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
        false => builder.with_root_certificates(roots(settings.ca_file.as_deref())?),
    };
    let Some((cert_file, key_file)) = &settings.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = pem::certificates(cert_file)
        .map_err(|why| unusable("keystone.cert_file", cert_file, &why))?;
    let key =
        pem::private_key(key_file).map_err(|why| unusable("keystone.key_file", key_file, &why))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable("keystone.cert_file", cert_file, &error))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(ca_file) = ca_file else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "cannot read a certificate authority of the machine");
        }
        roots.add_parsable_certificates(found.certs);
        return Ok(roots);
    };
    pem::trust(&mut roots, ca_file).map_err(|why| unusable("keystone.ca_file", ca_file, &why))?;
    Ok(roots)
}

fn unusable(key: &str, file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{key}: cannot use the file {}: {why}", file.display())
}

/// Accepts any certificate (`keystone.insecure`). Signatures are still checked, so that the handshake stays sound.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
