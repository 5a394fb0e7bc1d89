//! A client over WebSocket, in either encoding. MessagePack is read and written by another library than the server's.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::{Error, HandshakeError, Message, WebSocket};

use crate::support::server::connect;

/// How long anything may take that is to happen at once, on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
pub(crate) const CLIENT: &str = "3381af92-2b9e-11e3-b191-71861300734c";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Text,
    Binary,
}

pub(crate) const BOTH: [Encoding; 2] = [Encoding::Text, Encoding::Binary];

/// An answer: its status, its document, and all of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u64,
    pub(crate) body: Value,
    pub(crate) whole: Value,
}

/// A socket of project `p1`.
pub(crate) struct Socket {
    pub(crate) stream: WebSocket<TcpStream>,
    pub(crate) encoding: Encoding,
    pub(crate) project: String,
    /// What was pushed while an answer was waited for.
    pushed: VecDeque<Value>,
}

/// Makes a handshake with further headers; `Err` has the status of an answer that is none.
pub(crate) fn shake_hands(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(WebSocket<TcpStream>, Response), u16> {
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .expect("a request");
    for (name, value) in headers {
        let value = value.parse().expect("a header");
        request.headers_mut().insert(*name, value);
    }
    let stream = connect(address, TIMEOUT).expect("a connection");
    match tokio_tungstenite::tungstenite::client(request, stream) {
        Ok(connected) => Ok(connected),
        Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
        Err(error) => panic!("the handshake fails: {error}"),
    }
}

impl Socket {
    pub(crate) fn open(address: SocketAddr, encoding: Encoding) -> Self {
        let (stream, _) = shake_hands(address, "/", &[]).expect("a socket");
        Self::over(stream, encoding)
    }

    pub(crate) fn over(stream: WebSocket<TcpStream>, encoding: Encoding) -> Self {
        Self {
            stream,
            encoding,
            project: "p1".to_owned(),
            pushed: VecDeque::new(),
        }
    }

    /// Sends a document and waits for nothing.
    pub(crate) fn send(&mut self, document: &Value) {
        let message = match self.encoding {
            Encoding::Text => Message::text(document.to_string()),
            Encoding::Binary => {
                let mut packed = Vec::new();
                rmpv::encode::write_value(&mut packed, &to_msgpack(document)).expect("memory");
                Message::binary(packed)
            }
        };
        self.stream.send(message).expect("it is sent");
    }

    /// The next message that is pushed.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Value {
        if let Some(pushed) = self.pushed.pop_front() {
            return pushed;
        }
        let document = self.read();
        assert!(document.get("request").is_none(), "{document}");
        document
    }

    /// Whether something was pushed that nobody has received.
    pub(crate) fn has_pushed(&self) -> bool {
        !self.pushed.is_empty()
    }

    /// The next document.
    #[track_caller]
    fn read(&mut self) -> Value {
        loop {
            match self.stream.read().expect("a message") {
                Message::Text(text) => {
                    assert_eq!(self.encoding, Encoding::Text, "{text}");
                    assert!(text.is_ascii(), "{text}");
                    return serde_json::from_str(&text).expect("JSON");
                }
                Message::Binary(bytes) => {
                    assert_eq!(self.encoding, Encoding::Binary);
                    let value = rmpv::decode::read_value(&mut &bytes[..]).expect("MessagePack");
                    return from_msgpack(value);
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("no document comes, but {other:?}"),
            }
        }
    }

    /// The code and the reason with which the server closes the socket.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            match self.stream.read() {
                Ok(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Ok(_) => {}
                Err(error) => panic!("it ends without a reason: {error}"),
            }
        }
    }

    /// Reads to the end: the code with which the server closed the socket; none where the connection was over before the
    /// client came to read of it.
    pub(crate) fn ended(&mut self) -> Option<u16> {
        loop {
            match self.stream.read() {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    pub(crate) fn request(&self, action: &str, body: &Value) -> Value {
        let headers = json!({"Client-ID": CLIENT, "X-Project-ID": self.project});
        json!({"action": action, "body": body, "headers": headers})
    }

    /// Asks and waits for the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, action: &str, body: Value) -> Answer {
        let request = self.request(action, &body);
        let answer = self.exchange(&request);
        assert_eq!(answer.whole["request"]["action"], action);
        assert_eq!(answer.whole["request"]["body"], body);
        assert_eq!(answer.whole["request"]["api"], "v2");
        answer
    }

    #[track_caller]
    pub(crate) fn exchange(&mut self, request: &Value) -> Answer {
        self.send(request);
        self.answer()
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let whole = loop {
            let document = self.read();
            match document.get("request") {
                Some(_) => break document,
                None => self.pushed.push_back(document),
            }
        };
        Answer {
            status: whole["headers"]["status"].as_u64().expect("a status"),
            body: whole["body"].clone(),
            whole,
        }
    }

    /// Asks for what has to succeed in this way, and returns the document.
    #[track_caller]
    pub(crate) fn expect(&mut self, status: u64, action: &str, body: Value) -> Value {
        let answer = self.ask(action, body);
        assert_eq!(answer.status, status, "{action}: {}", answer.whole);
        answer.body
    }
}

fn to_msgpack(value: &Value) -> rmpv::Value {
    match value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().expect("a number").into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => rmpv::Value::Array(items.iter().map(to_msgpack).collect()),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| (key.as_str().into(), to_msgpack(value));
            rmpv::Value::Map(members.iter().map(member).collect())
        }
    }
}

fn from_msgpack(value: rmpv::Value) -> Value {
    match value {
        rmpv::Value::Nil => Value::Null,
        rmpv::Value::Boolean(truth) => truth.into(),
        rmpv::Value::Integer(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, number) => number.into(),
        },
        rmpv::Value::F32(number) => number.into(),
        rmpv::Value::F64(number) => number.into(),
        rmpv::Value::String(text) => text.as_str().expect("UTF-8").into(),
        rmpv::Value::Array(items) => items.into_iter().map(from_msgpack).collect(),
        rmpv::Value::Map(members) => {
            let member = |(key, value): (rmpv::Value, rmpv::Value)| {
                let key = key.as_str().expect("a text").to_owned();
                (key, from_msgpack(value))
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        other => panic!("{other} is nothing that JSON has"),
    }
}
