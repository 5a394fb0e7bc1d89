//! Somebody who only reads goes on where he is, whatever store the queue is in and whichever server he asks.

use std::time::{Duration, Instant};

use isimud_testing::redis::Servers;
use serde_json::{Value, json};

use crate::servers::Service;
use crate::support::server::{self, Client, Server};

const MESSAGES: &str = "/v2/queues/q/messages";

/// How long a move may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Reads what is new, page by page, and asks another server each time.
struct Observer {
    path: String,
    seen: Vec<i64>,
    pages: usize,
}

impl Observer {
    fn new(limit: usize) -> Self {
        Self {
            path: format!("{MESSAGES}?echo=true&include_claimed=true&limit={limit}"),
            seen: Vec::new(),
            pages: 0,
        }
    }

    /// Reads one page. Returns whether there was anything on it.
    fn look(&mut self, service: &Service) -> bool {
        self.pages += 1;
        let mut client = service.client(self.pages);
        let page = expect(200, &mut client, "GET", &self.path, None);
        let found = page["messages"].as_array().expect("messages");
        let bodies = found
            .iter()
            .map(|it| it["body"].as_i64().expect("a number"));
        self.seen.extend(bodies);
        // An empty page says where it began, if it says anything.
        if let Some(next) = page["links"][0]["href"].as_str() {
            next.clone_into(&mut self.path);
        }
        !found.is_empty()
    }

    fn catch_up(&mut self, service: &Service, last: i64) {
        let begun = Instant::now();
        while self.seen.last() != Some(&last) {
            self.look(service);
            assert!(
                begun.elapsed() < TIMEOUT,
                "{last} is not seen: {:?}",
                self.seen
            );
        }
    }
}

fn expect(
    status: u16,
    client: &mut Client,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Value {
    let answer = client.send(method, path, body).expect("an answer");
    assert_eq!(answer.status, status, "{method} {path}: {answer}");
    match status {
        204 => Value::Null,
        _ => answer.json(),
    }
}

fn post(client: &mut Client, bodies: impl Iterator<Item = i64>) {
    let message = |body| json!({"ttl": 3600, "body": body});
    let messages: Vec<Value> = bodies.map(message).collect();
    let body = json!({"messages": messages});
    expect(201, client, "POST", MESSAGES, Some(&body));
}

/// Moves the queue by one of the servers, and waits until its old messages are in the new store.
fn move_to(service: &Service, at: usize, pool: &str) {
    let mut admin = Client::operator(service.admins[at % 2]);
    let asked = json!({"project": "several", "queue": "q", "to": pool});
    let begun = Instant::now();
    loop {
        let answer = admin
            .send("POST", "/moves/queue", Some(&asked))
            .expect("an answer");
        if answer.status == 200 {
            break;
        }
        assert!(begun.elapsed() < TIMEOUT, "{answer}");
        std::thread::sleep(Duration::from_millis(200));
    }
    while service
        .store_ids_of(at, "q")
        .iter()
        .any(|home| home != pool)
    {
        assert!(begun.elapsed() < TIMEOUT, "it does not reach {pool}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_observer_sees_each_message_once_across_moves_restarts_and_servers() {
    let Some(mut service) = Service::start(Servers::single) else {
        return;
    };
    let far = Servers::plain().expect("another Redis server");
    let body = json!({"uri": far.uri("far:"), "weight": 0});
    let mut client = service.client(0);
    let mut operator = service.client(0).admin();
    expect(201, &mut operator, "PUT", "/v2/pools/far", Some(&body));
    post(&mut client, 0..10);
    let (mut behind, mut in_step) = (Observer::new(2), Observer::new(7));
    behind.look(&service);
    behind.look(&service);
    assert_eq!(behind.seen, [0, 1, 2, 3]);
    in_step.catch_up(&service, 9);
    // What is held stays in the old store until it is let go, and is then carried after its neighbours.
    let terms = json!({"ttl": 300, "grace": 300});
    let answer = client.send("POST", "/v2/queues/q/claims?limit=3", Some(&terms));
    let claim = answer
        .expect("an answer")
        .header("location")
        .expect("a claim")
        .to_owned();

    let mut posted = 10;
    for (at, pool) in ["far", "default", "far"].into_iter().enumerate() {
        if at == 0 {
            expect(204, &mut client, "DELETE", &claim, None);
        }
        move_to(&service, at, pool);
        behind.look(&service);
        post(&mut client, posted..posted + 3);
        posted += 3;
        in_step.catch_up(&service, posted - 1);
        if at == 1 {
            // One server is started anew, and knows nothing.
            let store = service.redis.uri("several:");
            let admin = server::free_address();
            let flags = ["--admin-listen", &admin.to_string()];
            let fresh = Server::start_with(&store, service.folder.path(), &flags);
            let old = std::mem::replace(&mut service.servers[1], fresh);
            service.admins[1] = admin;
            old.stop();
        }
    }
    behind.catch_up(&service, posted - 1);
    let all: Vec<i64> = (0..posted).collect();
    assert_eq!(in_step.seen, all, "in step");
    assert_eq!(behind.seen, all, "behind");
    // From the beginning there is the same to see, in the same order.
    let mut again = Observer::new(4);
    again.catch_up(&service, posted - 1);
    assert_eq!(again.seen, all);
}
