//! Every row of the specification's errors, in both encodings (spec: websocket.md 1 and 3).

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::websocket::client::{BOTH, CLIENT, Encoding};
use crate::websocket::{Service, messages};

#[test]
fn what_cannot_be_decoded_is_refused_and_shown_as_nothing() {
    let service = Service::start("");
    let nothing = json!({"action": null, "body": {}, "headers": {}, "api": "v2"});
    for (message, encoding, error) in [
        (
            Message::text("nope"),
            Encoding::Text,
            "Can't decode text (JSON) request. JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        ),
        (
            Message::binary(vec![0xc1]),
            Encoding::Binary,
            "Can't decode binary (MessagePack) request. FormatError: ",
        ),
        (
            Message::text("[1]"),
            Encoding::Text,
            "Unexpected body type. Expected dict or dict like.",
        ),
        (
            Message::binary(vec![0x91, 1]),
            Encoding::Binary,
            "Unexpected body type. Expected dict or dict like.",
        ),
    ] {
        let mut socket = service.socket(encoding);
        socket.stream.send(message).expect("it is sent");
        let answer = socket.answer();
        assert_eq!(
            (answer.status, &answer.body),
            (400, &json!({"error": error}))
        );
        assert_eq!(answer.whole["request"], nothing);
        socket.expect(200, "queue_list", json!({}));
    }
}

#[test]
fn requests_that_lack_something_are_refused_before_any_action() {
    let service = Service::start("");
    let headers = json!({"Client-ID": CLIENT, "X-Project-ID": "p1"});
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        for (request, error) in [
            (
                json!({"action": "nope", "headers": headers}),
                "nope is not a valid action",
            ),
            (json!({"headers": headers}), "None is not a valid action"),
            (json!({"action": "queue_list"}), "Schema validation failed."),
            (
                json!({"action": "queue_get", "headers": headers, "body": {}}),
                "Schema validation failed.",
            ),
            (
                json!({"action": "queue_list", "headers": headers, "body": {"limit": "1"}}),
                "Schema validation failed.",
            ),
            (
                json!({"action": "queue_list", "headers": {"X-Project-ID": "p1"}}),
                "Schema validation failed.",
            ),
            (
                json!({"action": "authenticate", "headers": {}}),
                "Schema validation failed.",
            ),
        ] {
            let answer = socket.exchange(&request);
            assert_eq!(answer.status, 400, "{request}");
            assert_eq!(answer.body, json!({"error": error}), "{request}");
        }
    }
}

#[test]
fn actions_that_the_reference_only_names_are_not_served() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        for action in ["get_home_doc", "ping_node", "pool_list", "flavor_delete"] {
            let error = format!("{action} is not served over WebSocket.");
            assert_eq!(
                socket.expect(501, action, json!({})),
                json!({"error": error})
            );
        }
        let headers = json!({"X-Project-ID": "p1", "X-Auth-Token": "secret"});
        let answer = socket.exchange(&json!({"action": "authenticate", "headers": headers}));
        assert_eq!(answer.status, 400);
        assert!(!answer.whole.to_string().contains("secret"));
    }
}

#[test]
fn refusals_of_actions_have_the_sentences_of_the_specification() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let posted = json!({"queue_name": "wq", "messages": messages([json!(1), json!(2)])});
        let posted = socket.expect(201, "message_post", posted);
        let (first, second) = (&posted["message_ids"][0], &posted["message_ids"][1]);
        let first = first.as_str().expect("an id");
        let claim = json!({"queue_name": "wq", "limit": 1});
        let claim = socket.expect(201, "claim_create", claim)["claim_id"].clone();
        let unknown = "00000000-0000-0000-0000-000000000001";
        let cases = [
            (
                "message_delete",
                json!({"queue_name": "wq", "message_id": first}),
                403,
                format!("Message {first} is claimed"),
                json!("This message is claimed; it cannot be deleted without a valid claim ID."),
            ),
            (
                "message_delete",
                json!({"queue_name": "wq", "message_id": first, "claim_id": "zz"}),
                400,
                "Claim zz does not exist in queue wq for project p1".into(),
                json!("The specified claim does not exist or has expired."),
            ),
            (
                "message_delete",
                json!({"queue_name": "wq", "message_id": second, "claim_id": claim}),
                400,
                format!(
                    "Message {} is no longer claimed",
                    second.as_str().expect("an id")
                ),
                json!("A claim was specified, but the message is not currently claimed."),
            ),
            (
                "message_get",
                json!({"queue_name": "wq", "message_id": "zz"}),
                404,
                "Message zz does not exist in queue wq for project p1".into(),
                Value::Null,
            ),
            (
                "message_list",
                json!({"queue_name": "nope"}),
                404,
                "Queue nope does not exist for project p1".into(),
                Value::Null,
            ),
            (
                "claim_get",
                json!({"queue_name": "wq", "claim_id": "zz"}),
                404,
                "Claim zz does not exist in queue wq for project p1".into(),
                json!("Claim zz does not exist."),
            ),
            (
                "claim_update",
                json!({"queue_name": "wq", "claim_id": unknown, "ttl": 100}),
                404,
                format!("Claim {unknown} does not exist in queue wq for project p1"),
                json!(format!("Claim {unknown} does not exist.")),
            ),
            (
                "subscription_get",
                json!({"queue_name": "sq", "subscription_id": "zz"}),
                404,
                "Subscription zz does not exist".into(),
                json!("Subscription zz for queue sq does not exist."),
            ),
            (
                "message_post",
                json!({"queue_name": "wq", "messages": [{"ttl": "x", "body": 1}]}),
                400,
                "Bad request. The value of the \"ttl\" field must be a int.".into(),
                Value::Null,
            ),
            (
                "message_post",
                json!({"queue_name": "wq", "messages": []}),
                400,
                "No messages to enqueu.".into(),
                Value::Null,
            ),
            (
                "queue_list",
                json!({"limit": 1000}),
                400,
                "Limit must be at least 1 and no greater than 20.".into(),
                Value::Null,
            ),
            (
                "queue_get",
                json!({"queue_name": "a b"}),
                400,
                "The format of the submitted queue name or project id is not valid.".into(),
                Value::Null,
            ),
        ];
        for (action, body, status, exception, error) in cases {
            let refused = socket.expect(status, action, body);
            assert_eq!(
                refused,
                json!({"exception": exception, "error": error}),
                "{action}"
            );
        }
        for action in ["message_post", "message_list"] {
            let mut request = socket.request(action, &json!({"queue_name": "wq", "messages": []}));
            request["headers"]["Client-ID"] = "me".into();
            let answer = socket.exchange(&request);
            let exception = "badly formed hexadecimal UUID string";
            assert_eq!(
                (answer.status, &answer.body["exception"]),
                (400, &json!(exception))
            );
        }
        let mut request = socket.request("claim_create", &json!({"queue_name": "wq"}));
        request["headers"]["Client-ID"] = "me".into();
        assert_eq!(
            socket.exchange(&request).status,
            201,
            "only posts and lists look at it"
        );
        socket.expect(204, "queue_delete", json!({"queue_name": "wq"}));
    }
}

#[test]
fn a_post_that_is_too_large_is_refused_and_one_that_fits_is_not() {
    let service = Service::start("[limits]\nmax_messages_post_size = 1000");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let body = |bytes: usize| {
            let text = "x".repeat(bytes);
            json!({"queue_name": "q", "messages": messages([json!(text)])})
        };
        let refused = socket.expect(400, "message_post", body(1000));
        let exception = "Message collection size is too large. Max size 1000";
        assert_eq!(refused["exception"], exception);
        socket.expect(201, "message_post", body(900));
    }
}
