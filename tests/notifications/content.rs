//! What receivers are sent (spec: subscriptions.md 7).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::notifications::receiver::Receiver;
use crate::notifications::{Service, TIMEOUT};

const QUEUE: &str = "/v2/queues/n1";

#[test]
fn a_message_is_pushed_as_it_was_posted() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    let headers = json!({"X-Foo": "bar", "content-type": "text/x-own", "webhook-id": "forged", "Host": "forged"});
    let subscription = service.subscribe(
        QUEUE,
        &receiver.url("/in?x=1"),
        json!({"post_headers": headers}),
    );
    let ids = service.post(QUEUE, [json!({"hello": "wörld", "n": 1}), json!(2)]);
    let got = receiver.wait_for("/in?x=1", 2, TIMEOUT);
    assert_eq!(
        got[0].text(),
        r#"{"ttl": 3600, "body": {"hello":"w\u00f6rld","n":1}, "Message_Type": "Notification", "queue_name": "n1"}"#
    );
    assert_eq!(got[1].json()["body"], 2);
    let id = subscription.rsplit('/').next().expect("an id");
    for (request, message) in got.iter().zip(&ids) {
        assert_eq!(request.method, "POST");
        for (name, value) in [
            ("x-foo", "bar"),
            ("content-type", "text/x-own"),
            ("host", receiver.address.to_string().as_str()),
            ("accept", "*/*"),
            ("webhook-id", message),
            ("webhook-signature", ""),
            ("isimud-subscription-id", id),
            ("isimud-attempt", "1"),
        ] {
            assert_eq!(request.header(name), value, "{name}");
        }
        assert!(request.header("user-agent").starts_with("isimud/"));
    }
}

#[test]
fn a_frame_of_the_subscribers_own_holds_the_message() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    let frame =
        r#"{"workflow": "wf", "input": {"m": "$zaqar_message$"}, "bare": "$zaqar_message$ x"}"#;
    service.subscribe(QUEUE, &receiver.url("/in"), json!({"post_data": frame}));
    service.post(QUEUE, [json!("x")]);
    let got = receiver.wait_for("/in", 1, TIMEOUT).remove(0);
    assert_eq!(
        got.json(),
        json!({"workflow": "wf", "bare": "$zaqar_message$ x",
            "input": {"m": {"ttl": 3600, "body": "x", "Message_Type": "Notification", "queue_name": "n1"}}})
    );
}

#[test]
fn a_receiver_can_check_who_sent_it() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    let secret = [7_u8; 32];
    let encoded = format!("whsec_{}", STANDARD.encode(secret));
    service.subscribe(
        QUEUE,
        &receiver.url("/in"),
        json!({"_webhook_secret": encoded}),
    );
    service.post(QUEUE, [json!("signed")]);
    let got = receiver.wait_for("/in", 1, TIMEOUT).remove(0);
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("a key");
    mac.update(
        format!(
            "{}.{}.",
            got.header("webhook-id"),
            got.header("webhook-timestamp")
        )
        .as_bytes(),
    );
    mac.update(&got.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(got.header("webhook-signature"), expected);
}

#[test]
fn topics_notify_too() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    service.subscribe("/v2/topics/t1", &receiver.url("/topic"), json!({}));
    service.subscribe("/v2/queues/t1", &receiver.url("/queue"), json!({}));
    service.post("/v2/topics/t1", [json!("for the topic")]);
    service.post("/v2/queues/t1", [json!("for the queue")]);
    for (path, body) in [("/topic", "for the topic"), ("/queue", "for the queue")] {
        let got = receiver.wait_for(path, 1, TIMEOUT).remove(0);
        assert_eq!(
            (&got.json()["body"], &got.json()["queue_name"]),
            (&json!(body), &json!("t1"))
        );
    }
    assert_eq!((receiver.count("/topic"), receiver.count("/queue")), (1, 1));
}

#[test]
fn a_delayed_message_is_pushed_when_it_is_due() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    service.expect(201, "PUT", QUEUE, json!({"_default_message_delay": 3}));
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    let posted = std::time::Instant::now();
    let messages =
        json!({"messages": [{"ttl": 60, "body": "late"}, {"ttl": 60, "delay": 0, "body": "now"}]});
    service.expect(201, "POST", &format!("{QUEUE}/messages"), messages);
    let got = receiver.wait_for("/in", 2, TIMEOUT);
    assert_eq!(got[0].json()["body"], "now");
    assert_eq!(got[0].json().get("delay"), None);
    let late = json!({"ttl": 60, "body": "late", "delay": 3, "Message_Type": "Notification", "queue_name": "n1"});
    assert_eq!(got[1].json(), late);
    assert!(
        got[1].at.duration_since(posted).as_secs_f64() >= 3.0,
        "it was sent early"
    );
}

#[test]
fn an_encrypted_body_is_not_sent_in_clear() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    service.expect(201, "PUT", QUEUE, json!({"_enable_encrypt_messages": true}));
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    service.post(QUEUE, [json!("secret")]);
    let got = receiver.wait_for("/in", 1, TIMEOUT).remove(0);
    assert!(!got.text().contains("secret"));
    assert!(
        got.json()["body"]
            .as_str()
            .is_some_and(|body| body.starts_with("s1:")),
        "{}",
        got.text()
    );
}

#[test]
fn delete_subscription_stops_notifications() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    let leaving = service.subscribe(QUEUE, &receiver.url("/leaving"), json!({}));
    service.subscribe(QUEUE, &receiver.url("/staying"), json!({}));
    service.post(QUEUE, [json!(1)]);
    receiver.wait_for("/leaving", 1, TIMEOUT);
    service.expect(204, "DELETE", &leaving, Value::Null);
    service.post(QUEUE, [json!(2), json!(3)]);
    receiver.wait_for("/staying", 3, TIMEOUT);
    assert_eq!(receiver.count("/leaving"), 1);
    // What it was once told of goes to the address that it has now.
    let moved = service.subscribe(QUEUE, &receiver.url("/before"), json!({}));
    service.expect(
        204,
        "PATCH",
        &moved,
        json!({"subscriber": receiver.url("/after")}),
    );
    service.post(QUEUE, [json!(4)]);
    receiver.wait_for("/after", 1, TIMEOUT);
    assert_eq!(receiver.count("/before"), 0);
}

#[test]
fn what_is_posted_before_anybody_listens_is_not_pushed() {
    let receiver = Receiver::kind();
    let mut service = Service::start("");
    service.post(QUEUE, [json!("before")]);
    service.subscribe(QUEUE, &receiver.url("/in"), json!({}));
    service.post(QUEUE, [json!("after")]);
    assert_eq!(
        receiver.wait_for("/in", 1, TIMEOUT)[0].json()["body"],
        "after"
    );
}
