//! Notifications end to end: the real server, and receivers that it has to reach.

mod confirmation;
mod content;
mod hostile;
mod mails;
mod order;
mod receiver;
mod retries;
mod servers;

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::server::{self, Answer, Client, Server};

/// How long anything may take that is to happen at once, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A server with a configuration of its own, and a client of it.
struct Service {
    server: Option<Server>,
    client: Client,
    store: String,
    folder: TempDir,
}

impl Service {
    /// A service that may send to this machine, with what else its operator's file says of notifications.
    fn start(notifications: &str) -> Self {
        Self::with(&format!(
            "[notifications]\nallowed_networks = ['127.0.0.1']\n{notifications}"
        ))
    }

    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("isimud.toml"), config).expect("a configuration");
        let store = format!(
            "sqlite:{}/isimud.db?synchronous=normal",
            folder.path().display()
        );
        let server = Server::start(&store, folder.path());
        let client = Client::new(server.address, "p1");
        Self {
            server: Some(server),
            client,
            store,
            folder,
        }
    }

    /// Kills the server in the middle of what it does, and starts it again.
    fn kill_and_restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
        let server = Server::start(&self.store, self.folder.path());
        self.client = Client::new(server.address, "p1");
        self.server = Some(server);
    }

    /// Stops the server in good order, and starts it again.
    fn stop_and_restart(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        let server = Server::start(&self.store, self.folder.path());
        self.client = Client::new(server.address, "p1");
        self.server = Some(server);
    }

    #[track_caller]
    fn send(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let body = (!body.is_null()).then_some(body);
        self.client
            .send(method, path, body.as_ref())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    #[track_caller]
    fn expect(&mut self, status: u16, method: &str, path: &str, body: Value) -> Value {
        let answer = self.send(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {answer}");
        answer.json()
    }

    /// Subscribes to a queue or topic, given by its path, and returns the path of the subscription.
    #[track_caller]
    fn subscribe(&mut self, source: &str, subscriber: &str, options: Value) -> String {
        let path = format!("{source}/subscriptions");
        let document = json!({"subscriber": subscriber, "ttl": 3600, "options": options});
        let created = self.expect(201, "POST", &path, document);
        format!(
            "{path}/{}",
            created["subscription_id"].as_str().expect("an id")
        )
    }

    /// Posts bodies in one post, and returns the ids of the messages.
    #[track_caller]
    fn post(&mut self, source: &str, bodies: impl IntoIterator<Item = Value>) -> Vec<String> {
        let messages: Vec<Value> = bodies
            .into_iter()
            .map(|body| json!({"ttl": 3600, "body": body}))
            .collect();
        let posted = self.expect(
            201,
            "POST",
            &format!("{source}/messages"),
            json!({"messages": messages}),
        );
        let resources = posted["resources"].as_array().expect("resources").iter();
        let id = |href: &Value| {
            href.as_str()
                .and_then(|href| href.rsplit('/').next())
                .expect("a path")
                .to_owned()
        };
        resources.map(id).collect()
    }
}

/// Sends a PUT with headers of its own, as a receiver does that knows nothing but what it was sent.
fn signed_put(address: SocketAddr, path: &str, headers: &[(&str, String)], body: &Value) -> Answer {
    let body = body.to_string();
    let mut request = format!(
        "PUT {path} HTTP/1.1\r\nHost: localhost\r\nClient-ID: 3381af92-2b9e-11e3-b191-71861300734c\r\n\
         Content-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("\r\n{body}"));
    let mut connection = server::connect(address, TIMEOUT).expect("a connection");
    connection.write_all(request.as_bytes()).expect("a request");
    let answer = Answer::read(&mut BufReader::new(connection), false);
    answer.expect("an answer").expect("an answer")
}

impl Drop for Service {
    /// Says what the server said when something went wrong.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = server::log_in(self.folder.path());
            eprintln!("The server said:\n{}", server::last_lines(&log, 60));
        }
    }
}
