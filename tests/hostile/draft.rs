//! Requests that follow the specification, endpoint by endpoint, in a form that can be spoilt piece by piece.

use fastrand::Rng;
use serde_json::{Value, json};

/// The media type that a patch of a queue needs.
const PATCH_TYPE: &str = "application/openstack-messaging-v2.0-json-patch";

/// Names of things that exist, so that requests come past the first check.
#[derive(Debug, Default, Clone)]
pub(crate) struct World {
    pub(crate) queue: String,
    pub(crate) messages: Vec<String>,
    pub(crate) claims: Vec<String>,
}

impl World {
    fn message(&self, rng: &mut Rng) -> String {
        rng.choice(&self.messages).cloned().unwrap_or_else(some_id)
    }

    fn claim(&self, rng: &mut Rng) -> String {
        rng.choice(&self.claims).cloned().unwrap_or_else(some_id)
    }
}

fn some_id() -> String {
    "c8cbd19a-842e-4794-8e25-3d5e2df00f2b".to_owned()
}

/// A request before it is written out. Everything is bytes: a spoilt request need not be text.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) method: String,
    pub(crate) path: Vec<u8>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) version: &'static str,
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Option<Vec<u8>>,
    /// The JSON that the body was written from.
    pub(crate) json: Value,
    /// Sent in chunks of these sizes instead of with its length.
    pub(crate) chunks: Option<Vec<usize>>,
    /// Says `Content-Length` or `Transfer-Encoding` by itself.
    pub(crate) states_length: bool,
    /// Nobody can tell where the request ends, or the server may close before it has read all: an answer is welcome
    /// but not due, and the connection is not used again.
    pub(crate) loose: bool,
    /// Written after the request, as a further one.
    pub(crate) tail: Vec<u8>,
}

impl Draft {
    fn new(method: &str, path: String, body: Value) -> Self {
        let mut draft = Self {
            method: method.to_owned(),
            path: path.into_bytes(),
            query: Vec::new(),
            version: "HTTP/1.1",
            headers: Vec::new(),
            body: (!body.is_null()).then(|| body.to_string().into_bytes()),
            json: body,
            chunks: None,
            states_length: true,
            loose: false,
            tail: Vec::new(),
        };
        draft.say("Host", "localhost");
        draft.say("Client-ID", "3381af92-2b9e-11e3-b191-71861300734c");
        draft.say("X-Project-Id", "hostile");
        draft
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    fn saying(mut self, name: &str, value: &str) -> Self {
        self.say(name, value);
        self
    }

    pub(crate) fn say(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let header = (name.as_bytes().to_vec(), value.as_ref().to_vec());
        self.headers.push(header);
    }

    /// Some request that the specification describes, with sensible values throughout.
    pub(crate) fn valid(rng: &mut Rng, world: &World) -> Self {
        let queue = format!("/v2/queues/{}", world.queue);
        match rng.u8(..12) {
            0 => general(rng),
            1 | 2 => about_queues(rng, &queue),
            3 | 4 => about_one_queue(rng, &queue),
            5 => Self::new("POST", queue + "/messages", posted(rng)),
            6..9 => about_messages(rng, &queue, world),
            _ => about_claims(rng, &queue, world),
        }
    }

    /// The bytes that go over the wire.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = self.method.clone().into_bytes();
        out.push(b' ');
        out.extend_from_slice(&self.path);
        for (at, (name, value)) in self.query.iter().enumerate() {
            let text = format!("{}{name}={value}", if at == 0 { '?' } else { '&' });
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(format!(" {}\r\n", self.version).as_bytes());
        for (name, value) in &self.headers {
            out.extend_from_slice(&[name, &b": "[..], value, &b"\r\n"[..]].concat());
        }
        let body = self.body.as_deref().unwrap_or_default();
        match &self.chunks {
            Some(sizes) => {
                if self.states_length {
                    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                }
                out.extend_from_slice(b"\r\n");
                out.extend(chunked(body, sizes));
            }
            None => {
                if self.states_length && self.body.is_some() {
                    out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
                }
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(body);
            }
        }
        out.extend_from_slice(&self.tail);
        out
    }
}

fn chunked(mut body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !body.is_empty() {
        let size = sizes.next().map_or(1, |size| (*size).clamp(1, body.len()));
        let (chunk, rest) = body.split_at(size);
        out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        body = rest;
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn general(rng: &mut Rng) -> Draft {
    let path = |path: &str| Draft::new("GET", path.to_owned(), Value::Null);
    match rng.u8(..6) {
        0 => path("/"),
        1 => path("/v2/"),
        2 => path("/v2/ping"),
        3 => Draft::new("HEAD", "/v2/ping".to_owned(), Value::Null),
        4 => path("/v2/health").saying("X-Roles", "admin, member"),
        _ => {
            let kind = [
                "pools",
                "flavors",
                "topics",
                "queues/q/subscriptions",
                "nothing",
            ];
            let kind = kind[rng.usize(..kind.len())];
            path(&format!("/v2/{kind}")).saying("X-Roles", "admin")
        }
    }
}

fn about_queues(rng: &mut Rng, queue: &str) -> Draft {
    match rng.u8(..4) {
        0 => Draft::new("GET", "/v2/queues".to_owned(), Value::Null)
            .with("marker", "q")
            .with("limit", rng.u8(1..=20))
            .with("detailed", rng.bool())
            .with("with_count", rng.bool())
            .with("name", "q")
            .with("team", "billing"),
        1 => Draft::new("PATCH", queue.to_owned(), operations()).saying("Content-Type", PATCH_TYPE),
        // Another name: the queue itself is to stay most of the time.
        2 => Draft::new("PUT", format!("{queue}-{}", rng.u8(..8)), metadata()),
        _ => Draft::new("DELETE", format!("{queue}-{}", rng.u8(..8)), Value::Null),
    }
}

fn about_one_queue(rng: &mut Rng, queue: &str) -> Draft {
    match rng.u8(..6) {
        0 => Draft::new("GET", queue.to_owned(), Value::Null),
        1 => Draft::new("GET", format!("{queue}/stats"), Value::Null),
        2 => Draft::new("PUT", queue.to_owned(), metadata()),
        3 => {
            let types = json!({"resource_types": ["messages", "subscriptions"]});
            Draft::new("POST", format!("{queue}-{}/purge", rng.u8(..8)), types)
        }
        4 => {
            let paths = json!({"paths": ["messages"], "methods": ["GET"], "expires": "2030-01-01T00:00:00"});
            Draft::new("POST", format!("{queue}/share"), paths)
        }
        _ => Draft::new("PATCH", queue.to_owned(), operations()).saying("Content-Type", PATCH_TYPE),
    }
}

fn about_messages(rng: &mut Rng, queue: &str, world: &World) -> Draft {
    let all = format!("{queue}/messages");
    let one = format!("{all}/{}", world.message(rng));
    let ids = format!("{},{}", world.message(rng), world.message(rng));
    match rng.u8(..7) {
        0 | 1 => Draft::new("GET", all, Value::Null)
            .with("marker", world.message(rng))
            .with("limit", rng.u8(1..=20))
            .with("echo", rng.bool())
            .with("include_claimed", rng.bool())
            .with("include_delayed", rng.bool()),
        2 => Draft::new("GET", all, Value::Null).with("ids", ids),
        3 => Draft::new("GET", one, Value::Null),
        4 => Draft::new("DELETE", one, Value::Null).with("claim_id", world.claim(rng)),
        5 => Draft::new("DELETE", all, Value::Null).with("ids", ids),
        _ => Draft::new("DELETE", all, Value::Null).with("pop", rng.u8(1..=20)),
    }
}

fn about_claims(rng: &mut Rng, queue: &str, world: &World) -> Draft {
    let one = format!("{queue}/claims/{}", world.claim(rng));
    let terms = json!({"ttl": rng.u16(60..=43200), "grace": rng.u16(60..=43200)});
    match rng.u8(..6) {
        0..3 => Draft::new("POST", format!("{queue}/claims"), terms).with("limit", rng.u8(1..=20)),
        3 => Draft::new("GET", one, Value::Null),
        4 => Draft::new("PATCH", one, terms),
        _ => Draft::new("DELETE", one, Value::Null),
    }
}

fn posted(rng: &mut Rng) -> Value {
    let body = json!({"event": "BackupStarted", "pct": 12.5, "parts": [1, null, true, "é😀"]});
    let message = json!({"ttl": rng.u32(60..=1_209_600), "delay": 20, "body": body});
    json!({ "messages": vec![message; rng.usize(1..4)] })
}

fn metadata() -> Value {
    json!({
        "_max_messages_post_size": 262_144,
        "_default_message_ttl": 3600,
        "_default_message_delay": 0,
        "_dead_letter_queue": "dead",
        "_dead_letter_queue_messages_ttl": 3600,
        "_max_claim_count": 100,
        "_enable_encrypt_messages": false,
        "_retry_policy": {"minimum_delay": 5, "maximum_delay": 30, "retry_backoff_function": "linear"},
        "team": "billing",
        "nested": {"a": [1, 2, {"b": null}]},
    })
}

fn operations() -> Value {
    json!([
        {"op": "add", "path": "/metadata/team", "value": "infra"},
        {"op": "replace", "path": "/metadata/_default_message_ttl", "value": 1800},
        {"op": "remove", "path": "/metadata/team"},
        {"op": "add", "path": "/metadata/a~1b~0c", "value": {"d": [1]}},
    ])
}
