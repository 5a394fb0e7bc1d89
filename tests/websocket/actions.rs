//! Every action in both encodings (spec: websocket.md 3).

use serde_json::{Value, json};

use crate::websocket::client::{BOTH, CLIENT, Encoding, Socket};
use crate::websocket::{Service, messages};

#[test]
fn queues_are_created_listed_shown_and_deleted() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let listed = socket.expect(200, "queue_list", json!({}));
        assert_eq!(listed, json!({"queues": []}));
        let queue = json!({"queue_name": "wq", "metadata": {"a": "é", "n": -1}});
        let told = socket.expect(201, "queue_create", queue.clone());
        assert_eq!(told, "Queue wq created.");
        assert_eq!(
            socket.expect(204, "queue_create", queue),
            "Queue wq created."
        );
        socket.expect(201, "queue_create", json!({"queue_name": "x"}));
        let listed = socket.expect(200, "queue_list", json!({"limit": 1}));
        assert_eq!(listed, json!({"queues": [{"name": "wq"}]}));
        let asked = json!({"marker": "wq", "detailed": true});
        let listed = socket.expect(200, "queue_list", asked);
        assert_eq!(listed, json!({"queues": [{"name": "x", "metadata": {}}]}));
        let shown = socket.expect(200, "queue_get", json!({"queue_name": "wq"}));
        assert_eq!(shown, json!({"a": "é", "n": -1}));
        let shown = socket.expect(200, "queue_get", json!({"queue_name": "none"}));
        assert_eq!(shown, json!({}));
        for name in ["wq", "x", "none"] {
            let told = socket.expect(204, "queue_delete", json!({"queue_name": name}));
            assert_eq!(told, format!("Queue {name} removed."));
        }
    }
}

#[test]
fn statistics_have_ids_and_those_of_no_queue_are_zero() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let queue = json!({"queue_name": "sq"});
        let zero = json!({"messages": {"claimed": 0, "free": 0, "total": 0}});
        assert_eq!(socket.expect(404, "queue_get_stats", queue.clone()), zero);
        let ids = post(&mut socket, "sq", [json!(1), json!(2)]);
        let stats = socket.expect(200, "queue_get_stats", queue.clone());
        let messages = &stats["messages"];
        assert_eq!(messages["total"], 2);
        assert_eq!(messages["oldest"]["id"], ids[0].as_str());
        assert_eq!(messages["newest"]["id"], ids[1].as_str());
        assert!(messages["oldest"]["created"].is_string());
        let purged = json!({"queue_name": "sq", "resource_types": ["messages", "other"]});
        assert_eq!(socket.expect(204, "queue_purge", purged), json!({}));
        assert_eq!(socket.expect(200, "queue_get_stats", queue.clone()), zero);
        socket.expect(204, "queue_purge", queue.clone());
        socket.expect(204, "queue_delete", queue);
    }
}

#[track_caller]
fn post(socket: &mut Socket, queue: &str, bodies: impl IntoIterator<Item = Value>) -> Vec<String> {
    let body = json!({"queue_name": queue, "messages": messages(bodies)});
    let posted = socket.expect(201, "message_post", body);
    let ids = posted["message_ids"].as_array().expect("ids").iter();
    ids.map(|id| id.as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn messages_are_posted_listed_read_and_deleted() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let bodies = [json!({"é": [1.5, null]}), json!("b"), json!(3)];
        let ids = post(&mut socket, "mq", bodies.clone());
        let listed = socket.expect(200, "message_list", json!({"queue_name": "mq"}));
        assert_eq!(listed, json!({"messages": []}), "one's own are left out");
        let asked = json!({"queue_name": "mq", "echo": true, "limit": 2});
        let listed = socket.expect(200, "message_list", asked);
        let first = &listed["messages"][0];
        assert_eq!(first["body"], bodies[0]);
        assert_eq!(
            (&first["claim_id"], &first["ttl"]),
            (&Value::Null, &json!(300))
        );
        let members: Vec<&String> = first.as_object().expect("a message").keys().collect();
        assert_eq!(members, ["id", "claim_id", "ttl", "age", "body"]);
        assert_eq!(listed["messages"].as_array().map(Vec::len), Some(2));
        let one = json!({"queue_name": "mq", "message_id": ids[1]});
        let read = socket.expect(200, "message_get", one.clone());
        assert_eq!(read["messages"]["body"], "b");
        let several = json!({"queue_name": "mq", "message_ids": [ids[2], "zz", ids[0]]});
        let read = socket.expect(200, "message_get_many", several);
        assert_eq!(read["messages"][0]["body"], 3);
        assert_eq!(read["messages"][1]["id"], ids[0].as_str());
        let none = json!({"queue_name": "mq", "message_ids": ["zz"]});
        let read = socket.expect(200, "message_get_many", none);
        assert_eq!(read, json!({"messages": []}));
        assert_eq!(socket.expect(204, "message_delete", one), json!({}));
        let several = json!({"queue_name": "mq", "message_ids": [ids[0]]});
        assert_eq!(
            socket.expect(204, "message_delete_many", several),
            json!({})
        );
        let popped = json!({"queue_name": "mq", "pop": 5});
        let popped_now = socket.expect(200, "message_delete_many", popped.clone());
        assert_eq!(popped_now["messages"][0]["body"], 3);
        assert_eq!(popped_now["messages"][0]["claim_count"], 0);
        let popped_again = socket.expect(200, "message_delete_many", popped);
        assert_eq!(popped_again, json!({"messages": []}));
        socket.expect(204, "queue_delete", json!({"queue_name": "mq"}));
    }
}

#[test]
fn what_one_transport_stores_the_other_reads() {
    let service = Service::start("");
    let mut socket = service.socket(Encoding::Binary);
    post(&mut socket, "q", [json!({"a": [true, -5, "é"]})]);
    let mut http = service.http();
    let answer = http.send("GET", "/v2/queues/q/messages?echo=true", None);
    let listed = answer.expect("an answer").json();
    assert_eq!(listed["messages"][0]["body"], json!({"a": [true, -5, "é"]}));
}

#[test]
fn claims_are_created_shown_renewed_and_released() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let asked = json!({"queue_name": "cq", "ttl": 100, "grace": 60, "limit": 1});
        let nothing = socket.expect(204, "claim_create", asked.clone());
        assert!(nothing["claim_id"].is_string(), "{nothing}");
        let ids = post(&mut socket, "cq", [json!("a"), json!("b")]);
        let claimed = socket.expect(201, "claim_create", asked);
        let claim = claimed["claim_id"].as_str().expect("a claim").to_owned();
        let message = &claimed["messages"][0];
        assert_eq!(message["id"], ids[0].as_str());
        assert_eq!(message["claim_id"], claim.as_str());
        assert_eq!(message["body"], "a");
        let named = json!({"queue_name": "cq", "claim_id": claim});
        let shown = socket.expect(200, "claim_get", named.clone());
        assert_eq!((&shown["ttl"], &shown["age"]), (&json!(100), &json!(0)));
        assert_eq!(shown["messages"][0]["claim_id"], claim.as_str());
        let renewed = json!({"queue_name": "cq", "claim_id": claim, "ttl": 200, "grace": 60});
        let told = socket.expect(204, "claim_update", renewed);
        assert_eq!(told, format!("Claim {claim} updated."));
        let held = json!({"queue_name": "cq", "message_id": ids[0], "claim_id": claim});
        socket.expect(204, "message_delete", held);
        let told = socket.expect(204, "claim_delete", named.clone());
        assert_eq!(told, format!("Claim {claim} deleted."));
        socket.expect(404, "claim_get", named);
        socket.expect(204, "queue_delete", json!({"queue_name": "cq"}));
    }
}

#[test]
fn subscriptions_of_receivers_elsewhere_are_created_listed_shown_and_deleted() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let asked = json!({"queue_name": "nq", "subscriber": "http://receiver.example/x", "ttl": 600,
            "options": {"post_headers": {"a": "b"}}});
        let created = socket.expect(201, "subscription_create", asked.clone());
        assert_eq!(created["message"], "Subscription nq created.");
        let id = created["subscription_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let told = socket.expect(409, "subscription_create", asked);
        assert_eq!(told, "Subscription nq not created.");
        let named = json!({"queue_name": "nq", "subscription_id": id});
        let shown = socket.expect(200, "subscription_get", named.clone());
        assert_eq!(shown["subscriber"], "http://receiver.example/x");
        assert_eq!(shown["source"], "nq");
        let listed = socket.expect(200, "subscription_list", json!({"queue_name": "nq"}));
        assert_eq!(listed["subscriptions"][0]["id"], id.as_str());
        let told = socket.expect(204, "subscription_delete", named.clone());
        assert_eq!(told, format!("Subscription {id} removed."));
        socket.expect(404, "subscription_get", named);
        socket.expect(204, "queue_delete", json!({"queue_name": "nq"}));
    }
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        for number in 0..100 {
            let action = ["queue_list", "queue_get", "nope"][number % 3];
            let body = json!({"queue_name": "q", "number": number});
            let request = socket.request(action, &body);
            socket.send(&request);
        }
        for number in 0..100 {
            let answer = socket.answer();
            assert_eq!(answer.whole["request"]["body"]["number"], number);
        }
    }
}

#[test]
fn an_answer_is_written_as_the_reference_writes_it() {
    use tokio_tungstenite::tungstenite::Message;
    let service = Service::start("");
    let mut socket = service.socket(Encoding::Text);
    let request = format!(
        r#"{{"action":"queue_get","headers":{{"Client-ID":"{CLIENT}","X-Project-ID":"p1"}},"body":{{"queue_name":"q","x":"é"}}}}"#
    );
    socket
        .stream
        .send(Message::text(request))
        .expect("it is sent");
    let answer = socket.stream.read().expect("an answer").into_text();
    let expected = format!(
        r#"{{"request": {{"action": "queue_get", "body": {{"queue_name": "q", "x": "\u00e9"}}, "headers": {{"Client-ID": "{CLIENT}", "X-Project-ID": "p1"}}, "api": "v2"}}, "body": {{}}, "headers": {{"status": 200}}}}"#
    );
    assert_eq!(answer.expect("text").as_str(), expected);
}
