//! Connections that are not plain: with certificates of the test's own authority.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{ErrorKind, SystemClock};
use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::nodes::{Node, Set};
use crate::{MINUTE, SLACK, Started, TIMEOUT, all_come, missing, open, run, send_one};

static OFFICE: LazyLock<Office> = LazyLock::new(Office::new);

/// A node that shows a certificate.
pub(crate) static NODE: Started = LazyLock::new(|| OFFICE.start("false", "verify_none"));

/// A node that wants to see one too.
pub(crate) static STRICT: Started = LazyLock::new(|| OFFICE.start("true", "verify_peer"));

/// Certificates and keys, in files.
struct Office {
    folder: TempDir,
}

/// Who signs.
type Authority = CertifiedIssuer<'static, KeyPair>;

impl Office {
    fn new() -> Self {
        let office = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let (one, another) = (authority("one"), authority("another"));
        office.write("ca", &one.pem());
        office.write("other-ca", &another.pem());
        office.issue(&one, "server", "127.0.0.1");
        office.issue(&one, "client", "client");
        office.issue(&another, "stranger", "client");
        office
    }

    fn issue(&self, authority: &Authority, whose: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::new([name.to_owned()]).unwrap();
        wanted.distinguished_name.push(DnType::CommonName, whose);
        let certificate = wanted.signed_by(&key, authority).unwrap();
        self.write(whose, &certificate.pem());
        self.write(&format!("{whose}-key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, must_show: &str, verify: &str) -> Result<Node, String> {
        let file = |name: &str| self.file(name).display().to_string();
        Node::start_with(Set {
            lines: vec![
                "listeners.ssl.1 = 127.0.0.1:{tls}".into(),
                format!("ssl_options.cacertfile = {}", file("ca")),
                format!("ssl_options.certfile = {}", file("server")),
                format!("ssl_options.keyfile = {}", file("server-key")),
                format!("ssl_options.verify = {verify}"),
                format!("ssl_options.fail_if_no_peer_cert = {must_show}"),
            ],
            ..Set::default()
        })
    }

    /// The option that names a file.
    fn option(&self, name: &str, file: &str) -> String {
        format!("&{name}={}", self.file(file).display())
    }
}

fn authority(name: &str) -> Authority {
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name.push(DnType::CommonName, name);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(wanted, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn trial<F>(name: &'static str, check: fn() -> F) -> Trial
where
    F: Future<Output = ()> + 'static,
{
    Trial::ignorable_test(name, move || match (&*NODE, &*STRICT) {
        (Ok(_), Ok(_)) => run(check()),
        (Err(why), _) | (_, Err(why)) => missing(why),
    })
}

fn uri(node: &Started, options: &str) -> String {
    let port = node.as_ref().unwrap().tls_port();
    format!("amqps://127.0.0.1:{port}?timeout_ms=1500{options}")
}

async fn works(uri: &str) {
    let broker = open(uri);
    let sent = send_one(&broker).await.unwrap();
    all_come(&broker, [sent].into(), MINUTE).await;
}

/// Nothing goes through, in time, and the sentence says why.
///
/// RabbitMQ judges a client's certificate after the client's side of the handshake, and closes the connection behind its
/// alert. Where the client has written something by then the system resets the connection, and the alert is lost: then
/// nobody can say why, and it is tried once more.
async fn is_refused(uri: &str, sentence: &str) {
    let broker = open(uri);
    let since = Instant::now();
    loop {
        let begun = Instant::now();
        let refusal = send_one(&broker).await.unwrap_err();
        assert!(begun.elapsed() < TIMEOUT + SLACK, "{:?}", begun.elapsed());
        assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        if refusal.sentence().starts_with(sentence) {
            return;
        }
        let said = refusal.to_string();
        let is_reset = said.contains("Connection reset") || said.contains("Broken pipe");
        assert!(is_reset && since.elapsed() < MINUTE, "{refusal:?}");
    }
}

pub(crate) async fn a_certificate_of_a_known_authority_is_trusted() {
    works(&uri(&NODE, &OFFICE.option("ca_file", "ca"))).await;
}

pub(crate) async fn a_certificate_of_nobody_known_is_not_trusted() {
    const UNTRUSTED: &str = "the certificate of RabbitMQ is not trusted";
    is_refused(&uri(&NODE, ""), UNTRUSTED).await;
    is_refused(
        &uri(&NODE, &OFFICE.option("ca_file", "other-ca")),
        UNTRUSTED,
    )
    .await;
    // The certificate is for an address, and not for the name.
    let trust = OFFICE.option("ca_file", "ca");
    let elsewhere = uri(&NODE, &trust).replace("127.0.0.1", "localhost");
    is_refused(&elsewhere, UNTRUSTED).await;
}

pub(crate) async fn a_client_shows_its_certificate() {
    let trust = OFFICE.option("ca_file", "ca");
    let papers = |whose: &str| {
        OFFICE.option("cert_file", whose) + &OFFICE.option("key_file", &format!("{whose}-key"))
    };
    let refused = "RabbitMQ refuses the TLS connection";
    is_refused(&uri(&STRICT, &trust), refused).await;
    is_refused(
        &uri(&STRICT, &format!("{trust}{}", papers("stranger"))),
        refused,
    )
    .await;
    works(&uri(&STRICT, &format!("{trust}{}", papers("client")))).await;
}

pub(crate) async fn tls_files_that_cannot_be_read_are_refused_at_once() {
    OFFICE.write("rubbish", "-----BEGIN CERTIFICATE-----\nnot even this\n");
    OFFICE.write("empty", "");
    for options in [
        OFFICE.option("ca_file", "missing"),
        OFFICE.option("ca_file", "rubbish"),
        OFFICE.option("ca_file", "empty"),
        OFFICE.option("cert_file", "client") + &OFFICE.option("key_file", "client"),
    ] {
        let config = Config::parse(&format!("amqps://127.0.0.1:1?{}", &options[1..])).unwrap();
        let refusal = AmqpBroker::open(config, std::sync::Arc::new(SystemClock)).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Invalid, "{options}: {refusal}");
    }
}
