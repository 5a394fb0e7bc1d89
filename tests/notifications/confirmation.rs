//! Receivers that have to agree first (spec: subscriptions.md 6).

use std::sync::Arc;

use isimud_testing::certificates::Certificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::notifications::receiver::{Received, Receiver, Reply};
use crate::notifications::{Service, TIMEOUT};
use crate::support::server::Answer;

const ASKING: &str = "[notifications]\nallowed_networks = ['127.0.0.1']\nrequire_confirmation = true\n\
                      service_url = 'http://mq.example:8888/x'\n[signed_url]\nsecret_key = 'k'";

/// Answers a question as its receiver does: with what it was sent, and nothing else.
fn answer(service: &Service, question: &Received, agrees: bool) -> Answer {
    let question = question.json();
    let text = |key: &str| {
        question[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} in {question}"))
            .to_owned()
    };
    let body = if agrees {
        &question["SubscribeBody"]
    } else {
        &question["UnsubscribeBody"]
    };
    let headers: Vec<(&str, String)> = [
        "URL-Signature",
        "URL-Methods",
        "URL-Paths",
        "URL-Expires",
        "X-Project-ID",
    ]
    .map(|name| (name, text(name)))
    .to_vec();
    let address = service.server.as_ref().expect("a server").address;
    crate::notifications::signed_put(address, &text("URL-Paths"), &headers, body)
}

#[test]
fn a_receiver_is_asked_agrees_and_leaves() {
    for (collection, source) in [("queues", "/v2/queues/sq"), ("topics", "/v2/topics/sq")] {
        let receiver = Receiver::kind();
        let mut service = Service::with(ASKING);
        let path = service.subscribe(
            source,
            &receiver.url("/in"),
            json!({"post_headers": {"X-Own": "1"}}),
        );
        service.post(source, [json!("too early")]);
        let question = receiver.wait_for("/in", 1, TIMEOUT).remove(0);
        let document = question.json();
        assert_eq!(document["Message_Type"], "SubscriptionConfirmation");
        assert_eq!(
            document["Message"],
            "You have chosen to subscribe to the queue: sq"
        );
        assert_eq!(document["URL-Paths"], format!("{path}/confirm"));
        assert!(path.starts_with(&format!("/v2/{collection}/sq/")));
        assert_eq!(
            document["WSGISubscribeURL"],
            format!("http://mq.example:8888{path}/confirm")
        );
        assert_eq!(question.header("x-own"), "1");

        assert_eq!(answer(&service, &question, true).status, 204);
        assert_eq!(
            service.expect(200, "GET", &path, Value::Null)["confirmed"],
            true
        );
        service.post(source, [json!("in time")]);
        let got = receiver.wait_for("/in", 2, TIMEOUT);
        assert_eq!(got[1].json()["body"], "in time");

        // Another one stays, and shows when what was posted has been given out.
        service.subscribe(source, &receiver.url("/other"), json!({}));
        let asked = receiver.wait_for("/other", 1, TIMEOUT).remove(0);
        assert_eq!(answer(&service, &asked, true).status, 204);

        assert_eq!(answer(&service, &question, false).status, 204);
        let told = receiver.wait_for("/in", 3, TIMEOUT).remove(2);
        assert_eq!(told.json()["Message_Type"], "UnsubscribeConfirmation");
        service.post(source, [json!("too late")]);
        let other = receiver.wait_for("/other", 2, TIMEOUT);
        assert_eq!(other[1].json()["body"], "too late");
        // The signature it was told of lets it come back.
        assert_eq!(answer(&service, &told, true).status, 204);
        service.post(source, [json!("again")]);
        let got = receiver.wait_for("/in", 4, TIMEOUT);
        assert_eq!(got[3].json()["body"], "again");
    }
}

#[test]
fn a_question_is_asked_again_until_it_arrives_and_when_it_is_asked_for() {
    let receiver = Receiver::with(|_, before| match before {
        0 | 1 => Reply::Status(503, vec![]),
        _ => Reply::ok(),
    });
    let mut service = Service::with(ASKING);
    let subscription = service.subscribe("/v2/queues/sq", &receiver.url("/in"), json!({}));
    receiver.wait_for("/in", 3, TIMEOUT);
    assert_eq!(
        service.subscribe("/v2/queues/sq", &receiver.url("/in"), json!({})),
        subscription
    );
    receiver.wait_for("/in", 4, TIMEOUT);
    // Another address is another receiver.
    service.expect(
        204,
        "PATCH",
        &subscription,
        json!({"subscriber": receiver.url("/other")}),
    );
    let question = receiver.wait_for("/other", 1, TIMEOUT).remove(0);
    assert_eq!(question.json()["Message_Type"], "SubscriptionConfirmation");
}

#[test]
fn an_encrypted_body_is_opened_for_a_receiver_behind_tls() {
    let certificates = Certificates::create();
    let certificate = CertificateDer::from_pem_file(certificates.file("localhost"));
    let key = PrivateKeyDer::from_pem_file(certificates.file("localhost-key"));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_no_client_auth()
    .with_single_cert(
        vec![certificate.expect("a certificate")],
        key.expect("a key"),
    )
    .expect("a server");
    let config = Arc::new(config);
    let receiver = Receiver::at(
        "127.0.0.1:0",
        |_, _| Reply::ok(),
        move |stream| {
            let connection =
                rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            Box::new(rustls::StreamOwned::new(connection, stream))
        },
    );
    let file = certificates.file("ca");
    let mut service = Service::start(&format!("ca_file = '{}'", file.display()));
    service.expect(
        201,
        "PUT",
        "/v2/queues/sq",
        json!({"_enable_encrypt_messages": true}),
    );
    let port = receiver.address.port();
    service.subscribe(
        "/v2/queues/sq",
        &format!("https://localhost:{port}/in"),
        json!({}),
    );
    service.post("/v2/queues/sq", [json!({"secret": "ü"})]);
    let got = receiver.wait_for("/in", 1, TIMEOUT).remove(0);
    assert_eq!(got.json()["body"], json!({"secret": "ü"}));
}
