//! Servers with certificates.

use std::sync::Arc;

use isimud_contract::{ErrorKind, SystemClock};
use isimud_lease::LeaseBroker;
use isimud_sqs::{Config, SqsBroker};
use isimud_testing::certificates::Certificates;
use isimud_testing::sqs::{Corner, Emulator};

use crate::support::{numbers, queue, take_all};

/// A server with a certificate.
struct Secured {
    server: Emulator,
    certificates: Certificates,
}

impl Secured {
    fn start() -> Self {
        let certificates = Certificates::create();
        let files = ["localhost", "localhost-key"].map(|name| certificates.file(name));
        let files = files.map(|file| file.display().to_string());
        let server = Emulator::start_with(&[&files[0], &files[1]]).unwrap();
        Self {
            server,
            certificates,
        }
    }

    fn open(&self, options: &str) -> SqsBroker {
        let uri = format!(
            "sqs://us-east-1?timeout_ms=5000&endpoint=https://localhost:{}{options}",
            self.server.port
        );
        let config = Config::parse(&uri).unwrap().with_login("TLS", "secret");
        SqsBroker::open(config, Arc::new(SystemClock)).unwrap()
    }
}

pub(crate) async fn a_certificate_of_a_known_authority_is_trusted(_: Corner) {
    let secured = Secured::start();
    let option = secured.certificates.option("ca_file", "ca");
    let (broker, q) = (secured.open(&option), queue("q"));
    broker.send(&q, numbers(0..3)).await.unwrap();
    assert_eq!(take_all(&broker, &q).await.len(), 3);
}

pub(crate) async fn a_certificate_of_nobody_known_is_not_trusted(_: Corner) {
    let secured = Secured::start();
    let error = secured.open("").ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.sentence().contains("'ca_file'"), "{error}");
}

pub(crate) async fn tls_files_that_cannot_be_read_are_refused_at_once(_: Corner) {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let damaged = folder.path().join("damaged.pem");
    std::fs::write(
        &damaged,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for path in [folder.path().join("missing.pem"), empty, damaged] {
        let uri = format!("sqs://us-east-1?ca_file={}", path.display());
        let config = Config::parse(&uri).unwrap();
        let error = SqsBroker::open(config, Arc::new(SystemClock)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}
