//! Whom a store on RabbitMQ is compared with: the bare client (confirmed publish; get and acknowledge) and RabbitMQ's own API
//! over HTTP.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step ends the measurement, and says so at that line"
)]

use std::net::SocketAddr;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// One of those who call at once, each with a channel or a connection of its own.
#[derive(Debug)]
pub(crate) enum Rival {
    Bare(Channel, String),
    Management(Mutex<TcpStream>, String),
}

/// So many with a channel each of one connection, on a durable queue.
pub(crate) async fn bare(uri: &str, kind: &str, queue: &str, callers: usize) -> Vec<Rival> {
    let options = ConnectionProperties::default();
    let connection = Connection::connect(uri, options).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let options = QueueDeclareOptions::durable();
    let declared = channel.queue_declare(queue.into(), options, arguments);
    declared.await.unwrap();
    let mut rivals = Vec::new();
    for _ in 0..callers {
        let channel = connection.create_channel().await.unwrap();
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await.unwrap();
        rivals.push(Rival::Bare(channel, queue.to_owned()));
    }
    rivals
}

/// So many with an HTTP connection each, on a queue that is there.
pub(crate) async fn management(address: SocketAddr, queue: &str, callers: usize) -> Vec<Rival> {
    let mut rivals = Vec::new();
    for _ in 0..callers {
        let stream = TcpStream::connect(address).await.unwrap();
        rivals.push(Rival::Management(Mutex::new(stream), queue.to_owned()));
    }
    rivals
}

impl Rival {
    /// Publishes a message and waits until RabbitMQ has it.
    pub(crate) async fn post(&self, body: &str) {
        match self {
            Self::Bare(channel, queue) => {
                let properties = BasicProperties::default().with_delivery_mode(2);
                let options = BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                };
                let (to, body) = (queue.as_str().into(), body.as_bytes());
                let sent = channel.basic_publish("".into(), to, options, body, properties);
                assert!(sent.await.unwrap().await.unwrap().is_ack());
            }
            Self::Management(stream, queue) => {
                let body = serde_json::json!({
                    "properties": {"delivery_mode": 2}, "routing_key": queue,
                    "payload": body, "payload_encoding": "string",
                });
                let path = "/api/exchanges/%2F/amq.default/publish";
                let answer = exchange(stream, path, &body.to_string()).await;
                assert!(answer.contains(r#""routed":true"#), "{answer}");
            }
        }
    }

    /// Takes a message for good; false when there was none.
    pub(crate) async fn take(&self) -> bool {
        match self {
            Self::Bare(channel, queue) => {
                let options = BasicGetOptions { no_ack: false };
                let got = channel.basic_get(queue.as_str().into(), options).await;
                let Some(got) = got.unwrap() else {
                    return false;
                };
                assert!(got.delivery.ack(BasicAckOptions::default()).await.unwrap());
                true
            }
            Self::Management(stream, queue) => {
                let body = r#"{"count":1,"ackmode":"ack_requeue_false","encoding":"auto"}"#;
                let path = format!("/api/queues/%2F/{queue}/get");
                exchange(stream, &path, body).await != "[]"
            }
        }
    }
}

/// A request on a connection that is kept until the server closes it, which it does after some hundreds and while it is
/// idle, and the body of its answer.
async fn exchange(stream: &Mutex<TcpStream>, path: &str, body: &str) -> String {
    let mut stream = stream.lock().await;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = stream.peer_addr().unwrap();
    let mut is_kept = stream.write_all(request.as_bytes()).await.is_ok();
    let mut answer = Vec::new();
    loop {
        let mut some = [0; 4096];
        let read = match is_kept {
            true => stream.read(&mut some).await.unwrap_or(0),
            false => 0,
        };
        if read == 0 {
            assert!(answer.is_empty(), "the connection was closed in an answer");
            *stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            is_kept = true;
            continue;
        }
        answer.extend_from_slice(&some[..read]);
        let text = std::str::from_utf8(&answer).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        let head = head.to_ascii_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length = length.lines().next().unwrap().trim();
        if body.len() == length.parse::<usize>().unwrap() {
            let body = body.to_owned();
            if head.contains("connection: close") {
                *stream = TcpStream::connect(address).await.unwrap();
            }
            return body;
        }
    }
}
