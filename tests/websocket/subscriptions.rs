//! Messages that are pushed to the sockets that subscribed, through any server.

use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use isimud_testing::started;
use serde_json::{Value, json};

use crate::support::server::{Client, Server};
use crate::websocket::client::{BOTH, Encoding, Socket};
use crate::websocket::{Service, configure, messages};

fn subscribe(socket: &mut Socket, queue: &str) -> String {
    let created = socket.expect(201, "subscription_create", json!({"queue_name": queue}));
    created["subscription_id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

fn notification(queue: &str, body: &Value) -> Value {
    json!({"ttl": 300, "body": body, "Message_Type": "Notification", "queue_name": queue})
}

#[test]
fn what_is_posted_over_either_transport_is_pushed_as_a_bare_message() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        subscribe(&mut socket, "sq");
        let body = json!({"n": "é", "list": [1, -2, 0.5]});
        let posted = json!({ "messages": messages([body.clone()]) });
        let answer = service
            .http()
            .send("POST", "/v2/queues/sq/messages", Some(&posted));
        assert_eq!(answer.expect("an answer").status, 201);
        assert_eq!(socket.receive(), notification("sq", &body));
        let mut other = service.socket(Encoding::Text);
        let posted = json!({"queue_name": "sq", "messages": messages([json!(1), json!(2)])});
        other.expect(201, "message_post", posted);
        assert_eq!(socket.receive(), notification("sq", &json!(1)));
        assert_eq!(socket.receive(), notification("sq", &json!(2)));
        socket.expect(204, "queue_delete", json!({"queue_name": "sq"}));
    }
}

#[test]
fn a_socket_subscribes_to_a_queue_once_and_to_as_many_as_it_may() {
    let service = Service::start("[websocket]\nmax_subscriptions_per_socket = 2");
    let mut socket = service.socket(Encoding::Text);
    subscribe(&mut socket, "a");
    let told = socket.expect(409, "subscription_create", json!({"queue_name": "a"}));
    assert_eq!(told, "Subscription a not created.");
    let second = subscribe(&mut socket, "b");
    socket.expect(400, "subscription_create", json!({"queue_name": "c"}));
    let ended = json!({"queue_name": "b", "subscription_id": second});
    socket.expect(204, "subscription_delete", ended);
    subscribe(&mut socket, "c");
}

/// How many subscriptions a queue has.
fn count(client: &mut Client, queue: &str) -> usize {
    let answer = client.send("GET", &format!("/v2/queues/{queue}/subscriptions"), None);
    let listed = answer.expect("an answer").json();
    listed["subscriptions"].as_array().map_or(0, Vec::len)
}

#[test]
fn subscriptions_end_with_their_sockets_and_when_they_are_deleted_over_http() {
    let service = Service::start("");
    let (mut http, mut first) = (service.http(), service.socket(Encoding::Text));
    let mut second = service.socket(Encoding::Text);
    let id = subscribe(&mut first, "q");
    subscribe(&mut second, "q");
    assert_eq!(count(&mut http, "q"), 2);
    let path = format!("/v2/queues/q/subscriptions/{id}");
    let deleted = http.send("DELETE", &path, None).expect("an answer");
    assert_eq!(deleted.status, 204);
    let posted = json!({"queue_name": "q", "messages": messages([json!("x")])});
    second.expect(201, "message_post", posted);
    assert_eq!(second.receive(), notification("q", &json!("x")));
    // The first gets nothing any more.
    first.expect(200, "queue_list", json!({}));
    assert!(!first.has_pushed());
    second.stream.close(None).expect("it is closed");
    let begun = Instant::now();
    while count(&mut http, "q") > 0 {
        assert!(begun.elapsed() < crate::websocket::client::TIMEOUT);
        std::thread::yield_now();
    }
}

#[test]
fn encrypted_messages_are_opened_for_sockets() {
    let service = Service::start("[messages]\nencryption_keys = ['a key of my own']");
    let mut socket = service.socket(Encoding::Text);
    let sealed = json!({"queue_name": "q", "metadata": {"_enable_encrypt_messages": true}});
    socket.expect(201, "queue_create", sealed);
    subscribe(&mut socket, "q");
    let posted = json!({ "messages": messages([json!({"a": 1})]) });
    let answer = service
        .http()
        .send("POST", "/v2/queues/q/messages", Some(&posted));
    assert_eq!(answer.expect("an answer").status, 201);
    assert_eq!(socket.receive()["body"], json!({"a": 1}));
}

#[test]
fn one_post_reaches_every_one_of_many_sockets() {
    const SOCKETS: usize = 300;
    let service = Service::start("[log]\nlevel = 'warn'");
    let mut sockets: Vec<_> = (0..SOCKETS)
        .map(|_| service.socket(Encoding::Text))
        .collect();
    for socket in &mut sockets {
        subscribe(socket, "q");
    }
    let posted = json!({"queue_name": "q", "messages": messages([json!("all")])});
    let mut poster = service.socket(Encoding::Text);
    let begun = Instant::now();
    poster.expect(201, "message_post", posted);
    for socket in &mut sockets {
        assert_eq!(socket.receive()["body"], "all");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

fn subscribe_with_acks(socket: &mut Socket, queue: &str, limit: u64) {
    let options = json!({"_ack": {"limit": limit, "ttl": 300, "grace": 60}});
    let asked = json!({"queue_name": queue, "options": options});
    socket.expect(201, "subscription_create", asked);
}

fn delete(socket: &mut Socket, queue: &str, pushed: &Value) {
    let held = json!({"queue_name": queue, "message_id": pushed["message_id"],
        "claim_id": pushed["claim_id"]});
    socket.expect(204, "message_delete", held);
}

#[test]
fn with_acks_what_a_socket_does_not_delete_is_sent_to_another_when_it_is_gone() {
    let service = Service::start("");
    for encoding in BOTH {
        let mut poster = service.socket(Encoding::Text);
        let bodies = (0..4).map(|number| json!(number));
        let posted = json!({"queue_name": "aq", "messages": messages(bodies)});
        let mut first = service.socket(encoding);
        subscribe_with_acks(&mut first, "aq", 2);
        poster.expect(201, "message_post", posted);
        let held = [first.receive(), first.receive()];
        assert_eq!([&held[0]["body"], &held[1]["body"]], [&json!(0), &json!(1)]);
        assert_eq!(held[0]["Message_Type"], "Notification");
        // It has as many as it may have: the next comes when one is deleted.
        first.expect(200, "queue_list", json!({}));
        assert!(!first.has_pushed());
        delete(&mut first, "aq", &held[0]);
        assert_eq!(first.receive()["body"], 2);
        // Its socket is gone, and what it had is another's: nothing is lost.
        drop(first);
        let mut second = service.socket(encoding);
        subscribe_with_acks(&mut second, "aq", 5);
        let mut bodies = Vec::new();
        while bodies.len() < 3 {
            let pushed = second.receive();
            bodies.push(pushed["body"].as_u64().expect("a number"));
            delete(&mut second, "aq", &pushed);
        }
        bodies.sort_unstable();
        assert_eq!(bodies, [1, 2, 3]);
        let empty = json!({"messages": {"claimed": 0, "free": 0, "total": 0}});
        assert_eq!(
            second.expect(200, "queue_get_stats", json!({"queue_name": "aq"})),
            empty
        );
    }
}

#[test]
fn terms_of_acks_are_checked_like_those_of_claims() {
    let service = Service::start("");
    let mut socket = service.socket(Encoding::Text);
    for ack in [
        json!(1),
        json!({"limit": 1000}),
        json!({"ttl": 1}),
        json!({"ttl": "x"}),
    ] {
        let asked = json!({"queue_name": "q", "options": {"_ack": ack}});
        socket.expect(400, "subscription_create", asked);
    }
}

/// The longest time from a post through one server to a socket on another.
const WITHIN: Duration = Duration::from_secs(1);

#[test]
fn a_post_through_one_server_reaches_a_socket_on_another_within_a_second() {
    let Some(redis) = started("Redis", Servers::single()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "");
    let store = redis.uri("sockets:");
    let servers = [(); 2].map(|()| Server::start(&store, folder.path()));
    for encoding in BOTH {
        let mut socket = Socket::open(servers[1].address, encoding);
        subscribe(&mut socket, "q");
        let mut client = Client::new(servers[0].address, "p1");
        // The first server hears of the subscription in a moment; until then its posts are not pushed.
        let mut post = |body: &Value| {
            let posted = json!({ "messages": messages([body.clone()]) });
            let answer = client.send("POST", "/v2/queues/q/messages", Some(&posted));
            assert_eq!(answer.expect("an answer").status, 201);
        };
        socket
            .stream
            .get_ref()
            .set_read_timeout(Some(WITHIN))
            .expect("a socket");
        let begun = Instant::now();
        loop {
            post(&json!("is anybody there"));
            if socket.stream.read().is_ok() {
                break;
            }
            assert!(begun.elapsed() < crate::websocket::client::TIMEOUT);
        }
        let mut longest = Duration::ZERO;
        for number in 0..30 {
            post(&json!(number));
            let posted = Instant::now();
            while socket.receive()["body"] != json!(number) {}
            longest = longest.max(posted.elapsed());
        }
        assert!(longest < WITHIN, "{longest:?}");
        socket.stream.close(None).expect("it is closed");
    }
}

#[test]
fn a_server_that_dies_takes_its_sockets_along_and_their_clients_go_on_at_another() {
    let Some(redis) = started("Redis", Servers::single()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    configure(folder.path(), "");
    let store = redis.uri("dying:");
    let [first, second] = [(); 2].map(|()| Server::start(&store, folder.path()));
    let mut socket = Socket::open(first.address, Encoding::Text);
    subscribe(&mut socket, "q");
    first.kill();
    while socket.stream.read().is_ok() {}
    let mut socket = Socket::open(second.address, Encoding::Text);
    subscribe(&mut socket, "q");
    for number in 0..20 {
        let posted = json!({"queue_name": "q", "messages": messages([json!(number)])});
        let mut poster = Socket::open(second.address, Encoding::Text);
        poster.expect(201, "message_post", posted);
        assert_eq!(socket.receive()["body"], number);
    }
    second.stop();
}
