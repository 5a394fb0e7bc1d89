//! What one socket, and one project, may have.

use std::time::Instant;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::websocket::client::{BOTH, Encoding, shake_hands};
use crate::websocket::{Service, messages};

#[test]
fn sockets_beyond_the_bounds_of_the_server_and_of_a_project_are_refused() {
    let service = Service::start("[websocket]\nmax_sockets = 3\nmax_sockets_per_project = 2");
    let mut sockets: Vec<_> = (0..3).map(|_| service.socket(Encoding::Text)).collect();
    assert_eq!(
        shake_hands(service.server.address, "/", &[]).map(drop),
        Err(503)
    );
    for socket in &mut sockets[..2] {
        socket.expect(200, "queue_list", json!({}));
    }
    sockets[2].expect(429, "queue_list", json!({}));
    sockets[2].project = "p2".into();
    sockets[2].expect(200, "queue_list", json!({}));
    // A place is free again when its socket is closed.
    let mut first = sockets.remove(0);
    first.stream.close(None).expect("it is closed");
    while first.stream.read().is_ok() {}
    let begun = Instant::now();
    while shake_hands(service.server.address, "/", &[]).is_err() {
        assert!(begun.elapsed() < crate::websocket::client::TIMEOUT);
        std::thread::yield_now();
    }
}

#[test]
fn a_message_that_is_too_large_ends_its_socket() {
    let service = Service::start("[websocket]\nmax_message_bytes = 2000");
    for encoding in BOTH {
        let mut socket = service.socket(encoding);
        let body = json!({"queue_name": "q", "messages": messages([json!("x".repeat(3000))])});
        let request = socket.request("message_post", &body);
        socket.send(&request);
        assert_eq!(socket.closed().0, 1009);
    }
}

#[test]
fn a_client_that_sends_faster_than_it_may_is_read_slower_and_loses_nothing() {
    let service = Service::start("[websocket]\nmax_messages_per_second = 50");
    let mut socket = service.socket(Encoding::Text);
    let begun = Instant::now();
    for _ in 0..150 {
        let request = socket.request("queue_list", &json!({}));
        socket.send(&request);
    }
    for _ in 0..150 {
        assert_eq!(socket.answer().status, 200);
    }
    // The first second's worth comes at once.
    assert!(begun.elapsed().as_millis() >= 1900, "{:?}", begun.elapsed());
}

#[test]
fn a_socket_that_takes_nothing_of_what_is_pushed_is_closed_with_a_reason_and_others_are_not() {
    let service = Service::start(
        "[websocket]\nmax_unsent = 20\nmax_unsent_bytes = 100000\nsend_timeout_secs = 1",
    );
    let mut slow = service.socket(Encoding::Text);
    let mut sound = service.socket(Encoding::Text);
    for socket in [&mut slow, &mut sound] {
        socket.expect(201, "subscription_create", json!({"queue_name": "q"}));
    }
    let mut poster = service.socket(Encoding::Text);
    let body = "x".repeat(50_000);
    for _ in 0..200 {
        let posted = json!({"queue_name": "q", "messages": messages([json!(body)])});
        poster.expect(201, "message_post", posted);
        assert_eq!(sound.receive()["body"], body.as_str());
    }
    // What was on its way arrives, and the reason behind it, if the client reads on soon enough.
    assert!(matches!(slow.ended(), None | Some(4008)));
    sound.expect(200, "queue_list", json!({}));
}

#[test]
fn sockets_that_ask_for_nothing_and_those_that_are_silent_are_closed() {
    let service = Service::start("[websocket]\nidle_secs = 1\nping_secs = 1");
    let mut idle = service.socket(Encoding::Text);
    let mut subscribed = service.socket(Encoding::Text);
    subscribed.expect(201, "subscription_create", json!({"queue_name": "q"}));
    assert_eq!(idle.closed().0, 4009);
    // Nobody has read this one meanwhile, so that no ping of it was answered.
    let begun = Instant::now();
    while begun.elapsed().as_millis() < 2500 {
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    assert!(matches!(subscribed.ended(), None | Some(4010)));
}

#[test]
fn pings_of_clients_are_answered_and_a_close_is_returned() {
    let service = Service::start("");
    let mut socket = service.socket(Encoding::Text);
    socket
        .stream
        .send(Message::Ping("here".into()))
        .expect("it is sent");
    assert_eq!(
        socket.stream.read().expect("a pong"),
        Message::Pong("here".into())
    );
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    let frame = CloseFrame {
        code: 3001.into(),
        reason: "enough".into(),
    };
    socket.stream.close(Some(frame)).expect("it is sent");
    assert_eq!(socket.closed().0, 3001);
}
