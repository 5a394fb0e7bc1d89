//! Connections that are not plain: with certificates of the test's own authority.

use std::sync::LazyLock;
use std::time::Instant;

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{ErrorKind, SystemClock};
use isimud_testing::certificates::Certificates;
use isimud_testing::rabbitmq::{Node, Set};
use isimud_testing::trial;
use libtest_mimic::Trial;

use crate::{MINUTE, SLACK, Started, TIMEOUT, all_come, open, send_one};

static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(Certificates::create);

/// A node that shows a certificate.
pub(crate) static NODE: Started =
    LazyLock::new(|| Node::start_with(Set::tls(&CERTIFICATES, false)));

/// A node that wants to see one too.
pub(crate) static STRICT: Started =
    LazyLock::new(|| Node::start_with(Set::tls(&CERTIFICATES, true)));

pub(crate) fn trial_on<F>(name: &'static str, check: fn() -> F) -> Trial
where
    F: Future<Output = ()> + 'static,
{
    Trial::ignorable_test(name, move || {
        let nodes = NODE.as_ref().and(STRICT.as_ref());
        trial::run(nodes.map_err(Clone::clone), |_| check())
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
    works(&uri(&NODE, &CERTIFICATES.option("ca_file", "ca"))).await;
}

pub(crate) async fn a_certificate_of_nobody_known_is_not_trusted() {
    const UNTRUSTED: &str = "the certificate of RabbitMQ is not trusted";
    is_refused(&uri(&NODE, ""), UNTRUSTED).await;
    is_refused(
        &uri(&NODE, &CERTIFICATES.option("ca_file", "other-ca")),
        UNTRUSTED,
    )
    .await;
    // The certificate is for an address, and not for the name.
    let trust = CERTIFICATES.option("ca_file", "ca");
    let elsewhere = uri(&NODE, &trust).replace("127.0.0.1", "localhost");
    is_refused(&elsewhere, UNTRUSTED).await;
}

pub(crate) async fn a_client_shows_its_certificate() {
    let trust = CERTIFICATES.option("ca_file", "ca");
    let refused = "RabbitMQ refuses the TLS connection";
    is_refused(&uri(&STRICT, &trust), refused).await;
    is_refused(
        &uri(
            &STRICT,
            &format!("{trust}{}", CERTIFICATES.identity("stranger")),
        ),
        refused,
    )
    .await;
    works(&uri(
        &STRICT,
        &format!("{trust}{}", CERTIFICATES.identity("client")),
    ))
    .await;
}

pub(crate) async fn tls_files_that_cannot_be_read_are_refused_at_once() {
    CERTIFICATES.write("rubbish", "-----BEGIN CERTIFICATE-----\nnot even this\n");
    CERTIFICATES.write("empty", "");
    for options in [
        CERTIFICATES.option("ca_file", "missing"),
        CERTIFICATES.option("ca_file", "rubbish"),
        CERTIFICATES.option("ca_file", "empty"),
        CERTIFICATES.option("cert_file", "client") + &CERTIFICATES.option("key_file", "client"),
    ] {
        let config = Config::parse(&format!("amqps://127.0.0.1:1?{}", &options[1..])).unwrap();
        let refusal = AmqpBroker::open(config, std::sync::Arc::new(SystemClock)).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Invalid, "{options}: {refusal}");
    }
}
