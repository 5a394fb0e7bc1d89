//! Stands between the service and Keystone: records every request and passes it on, or answers something else.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::keystone::http::{Message, send};

/// Which requests a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum On {
    Any,
    /// `GET /v3/auth/tokens`.
    Validation,
    /// The validation of one token.
    ValidationOf(String),
    /// A validation with this service token.
    ValidationWith(String),
    /// `POST /v3/auth/tokens`.
    Login,
}

/// What becomes of a request instead of being passed on.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// An answer without asking Keystone: status, headers, body.
    Answer(u16, Vec<(&'static str, &'static str)>, String),
    /// Keystone's answer without the token's `expires_at`.
    WithoutExpiry,
    /// Keystone's answer with something in its body replaced.
    Replace(String, String),
    /// The connection closes without an answer.
    Close,
    /// Keystone's answer, so much later.
    Delay(Duration),
    /// No answer as long as the fault is there.
    Hang,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) request: Message,
    is_validation: bool,
    is_login: bool,
}

#[derive(Debug)]
struct Rule {
    on: On,
    fault: Fault,
    /// How often it still applies.
    left: usize,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    rules: Vec<Rule>,
    connections: usize,
    most_connections: usize,
}

/// The proxy. Its threads end with the test program.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Starts a proxy in front of a port.
    pub(crate) fn start(keystone: u16) -> Self {
        Self::serve(keystone, None)
    }

    /// Starts one that speaks TLS.
    pub(crate) fn start_tls(keystone: u16, config: ServerConfig) -> Self {
        Self::serve(keystone, Some(Arc::new(config)))
    }

    fn serve(keystone: u16, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Self {
            port: listener.local_addr().expect("its address").port(),
            state: Arc::default(),
        };
        let serving = proxy.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (proxy, tls) = (serving.clone(), tls.clone());
                thread::spawn(move || {
                    proxy.lock().connected();
                    // A client that goes away in the middle is the matter of the test.
                    drop(match tls {
                        None => proxy.converse(stream, keystone),
                        Some(config) => ServerConnection::new(config)
                            .map_err(io::Error::other)
                            .and_then(|tls| {
                                proxy.converse(StreamOwned::new(tls, stream), keystone)
                            }),
                    });
                    proxy.lock().connections -= 1;
                });
            }
        });
        proxy
    }

    /// The next `times` requests of a kind meet a fault.
    pub(crate) fn fault(&self, on: On, fault: Fault, times: usize) {
        let left = times;
        self.lock().rules.push(Rule { on, fault, left });
    }

    /// All requests of a kind meet a fault from now on.
    pub(crate) fn always(&self, on: On, fault: Fault) {
        self.fault(on, fault, usize::MAX);
    }

    /// Passes everything on from now on.
    pub(crate) fn heal(&self) {
        self.lock().rules.clear();
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// How many validations came.
    pub(crate) fn validations(&self) -> usize {
        self.lock()
            .seen
            .iter()
            .filter(|seen| seen.is_validation)
            .count()
    }

    /// How many requests for a token came.
    pub(crate) fn logins(&self) -> usize {
        self.lock().seen.iter().filter(|seen| seen.is_login).count()
    }

    /// How many connections were open at once, at the most.
    pub(crate) fn most_connections(&self) -> usize {
        self.lock().most_connections
    }

    /// The service token of the last validation.
    pub(crate) fn last_service_token(&self) -> String {
        let state = self.lock();
        let last = state.seen.iter().rev().find(|seen| seen.is_validation);
        last.and_then(|seen| seen.request.header("x-auth-token"))
            .expect("a validation")
            .to_owned()
    }

    fn converse(&self, stream: impl Read + Write, keystone: u16) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Message::read(&mut stream, false)? {
            let fault = self.lock().note(&request);
            let Some(answer) = self.answer(request, fault, keystone)? else {
                return Ok(());
            };
            answer.write(stream.get_mut(), false)?;
        }
        Ok(())
    }

    fn answer(
        &self,
        request: Message,
        fault: Option<Fault>,
        keystone: u16,
    ) -> io::Result<Option<Message>> {
        match fault {
            None => send(keystone, &request).map(Some),
            Some(Fault::Close) => Ok(None),
            Some(Fault::Answer(status, headers, body)) => Ok(Some(Message {
                start: format!("HTTP/1.1 {status} Fault"),
                headers: headers
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                body: body.into_bytes(),
            })),
            Some(Fault::WithoutExpiry) => {
                let fault = Fault::Replace("expires_at".into(), "expired_at".into());
                self.answer(request, Some(fault), keystone)
            }
            Some(Fault::Replace(from, to)) => {
                let mut answer = send(keystone, &request)?;
                let body = String::from_utf8_lossy(&answer.body).replace(&from, &to);
                answer.body = body.into_bytes();
                Ok(Some(answer))
            }
            Some(Fault::Delay(span)) => {
                thread::sleep(span);
                send(keystone, &request).map(Some)
            }
            Some(Fault::Hang) => {
                let hangs = |rule: &Rule| matches!(rule.fault, Fault::Hang);
                while self.lock().rules.iter().any(hangs) {
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(None)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn connected(&mut self) {
        self.connections += 1;
        self.most_connections = self.most_connections.max(self.connections);
    }

    /// Records a request and takes the first fault that is for it.
    fn note(&mut self, request: &Message) -> Option<Fault> {
        let path = request.start.split(' ').nth(1).unwrap_or_default();
        let is_tokens = path.starts_with("/v3/auth/tokens");
        let seen = Seen {
            is_validation: is_tokens && request.start.starts_with("GET "),
            is_login: is_tokens && request.start.starts_with("POST "),
            request: request.clone(),
        };
        let is_for = |rule: &&mut Rule| {
            let has = |name: &str, value: &str| request.header(name) == Some(value);
            rule.left > 0
                && match &rule.on {
                    On::Any => true,
                    On::Validation => seen.is_validation,
                    On::ValidationOf(token) => seen.is_validation && has("x-subject-token", token),
                    On::ValidationWith(token) => seen.is_validation && has("x-auth-token", token),
                    On::Login => seen.is_login,
                }
        };
        let fault = self.rules.iter_mut().find(is_for).map(|rule| {
            rule.left -= 1;
            rule.fault.clone()
        });
        self.seen.push(seen);
        fault
    }
}
