//! Trust subscriptions: the real binary, a real Keystone, and receivers that ask Keystone whose token they were sent.

use std::io::BufReader;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::keystone::WORLD;
use crate::keystone::fixture::{list, text};
use crate::keystone::http::{Message, send};
use crate::keystone::world::{PASSWORD, SERVICE_PASSWORD, World, grant};
use crate::support::server::Server;

/// How long anything may take that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A receiver of notifications. Its threads end with the test program.
#[derive(Clone)]
struct Receiver {
    port: u16,
    seen: Arc<Mutex<Vec<Message>>>,
    /// The statuses of the next answers; 200 behind them.
    statuses: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    /// Starts one; where it redirects, that goes to `location`.
    fn start(location: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let receiver = Self {
            port: listener.local_addr().expect("its address").port(),
            seen: Arc::default(),
            statuses: Arc::default(),
        };
        let (serving, location) = (receiver.clone(), location.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serving, location) = (serving.clone(), location.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                    let mut stream = stream;
                    while let Ok(Some(request)) = Message::read(&mut reader, false) {
                        let mut statuses = serving.statuses.lock().expect("no panic");
                        let status = if statuses.is_empty() {
                            200
                        } else {
                            statuses.remove(0)
                        };
                        drop(statuses);
                        serving.seen().push(request);
                        let answer = Message {
                            start: format!("HTTP/1.1 {status} Status"),
                            headers: vec![("Location".to_owned(), location.clone())],
                            body: Vec::new(),
                        };
                        if answer.write(&mut stream, false).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        receiver
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Message>> {
        self.seen.lock().expect("no panic")
    }

    fn url(&self) -> String {
        format!("trust+http://127.0.0.1:{}/in", self.port)
    }

    /// Answers the next requests with these statuses.
    fn answer(&self, statuses: &[u16]) {
        *self.statuses.lock().expect("no panic") = statuses.to_vec();
    }

    /// Waits until so many came in all, and returns their tokens.
    fn tokens(&self, count: usize) -> Vec<String> {
        wait_until("notifications come", || self.seen().len() >= count);
        let seen = self.seen();
        assert_eq!(seen.len(), count);
        let token = |request: &Message| request.header("x-auth-token").unwrap_or("").to_owned();
        seen.iter().map(token).collect()
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(50));
    }
}

/// A server of the real binary that asks a Keystone.
struct Service {
    server: Server,
    folder: TempDir,
    queue: String,
}

impl Service {
    fn start(world: &World, queue: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = world.keystone.port;
        let config = format!(
            "[access]\nauthentication = \"keystone\"\n[log]\nlevel = \"trace\"\n[signed_url]\nsecret_key = \"s3cr3t\"\n\
             [notifications]\nallowed_networks = [\"127.0.0.0/8\"]\n\
             [keystone]\nauth_url = \"http://127.0.0.1:{port}\"\nusername = \"zaqar\"\nuser_domain_id = \"default\"\n\
             password = \"{SERVICE_PASSWORD}\"\nproject = \"service\"\nproject_domain_id = \"default\"\n\
             timeout_secs = 10\n{more}\n"
        );
        std::fs::write(folder.path().join("isimud.toml"), config).expect("a file");
        let server = Server::start("sqlite:test.db", folder.path());
        Self {
            server,
            folder,
            queue: queue.to_owned(),
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Message {
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (name, value) in [
            ("Host", "isimud"),
            ("Client-ID", "3381af92-2b9e-11e3-b191-71861300734c"),
            ("Content-Type", "application/json"),
        ] {
            headers.push((name.to_owned(), value.to_owned()));
        }
        let request = Message {
            start: format!("{method} {path} HTTP/1.1"),
            headers,
            body: body
                .map(|body| body.to_string().into_bytes())
                .unwrap_or_default(),
        };
        send(self.server.address.port(), &request).expect("an answer")
    }

    fn subscriptions(&self) -> String {
        format!("/v2/queues/{}/subscriptions", self.queue)
    }

    fn with(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Message {
        self.send(method, path, &[("X-Auth-Token", token)], body)
    }

    /// Subscribes a receiver, and returns the answer.
    fn subscribe(&self, token: &str, subscriber: &str, options: &Value) -> Message {
        let body = json!({"subscriber": subscriber, "ttl": 3600, "options": options});
        self.with(token, "POST", &self.subscriptions(), Some(&body))
    }

    /// Subscribes a receiver, and returns the path of the subscription.
    fn subscribed(&self, token: &str, subscriber: &str, options: &Value) -> String {
        let answer = self.subscribe(token, subscriber, options);
        assert_eq!(answer.status(), 201, "{}", answer.json());
        let id = text(&answer.json()["subscription_id"]);
        format!("{}/{id}", self.subscriptions())
    }

    fn change(&self, token: &str, path: &str, change: &Value) {
        let answer = self.with(token, "PATCH", path, Some(change));
        assert_eq!(answer.status(), 204, "{}", answer.json());
    }

    /// The trust of a subscription as a user sees it.
    fn trust(&self, token: &str, path: &str) -> Option<String> {
        let answer = self.with(token, "GET", path, None);
        assert_eq!(answer.status(), 200, "{}", answer.json());
        let options = answer.json()["options"].clone();
        assert_eq!(options.get("_trust"), None);
        let listed = self.with(token, "GET", &self.subscriptions(), None).json();
        let listed = list(&listed, "subscriptions");
        assert!(listed.iter().any(|one| one["options"] == options));
        options.get("trust_id").map(text)
    }

    fn post(&self, token: &str) {
        let body = json!({"messages": [{"body": {"n": 1}, "ttl": 3600}]});
        let path = format!("/v2/queues/{}/messages", self.queue);
        let answer = self.with(token, "POST", &path, Some(&body));
        assert_eq!(answer.status(), 201, "{}", answer.json());
    }

    fn has_queue(&self, token: &str) -> bool {
        let listed = self.with(token, "GET", "/v2/queues", None).json();
        let mut all = list(&listed, "queues").into_iter();
        all.any(|one| one["name"] == *self.queue)
    }

    /// Fails when a secret stands in the log, which has everything.
    fn assert_no_secret(&self, secrets: &[&str]) {
        let log = std::fs::read_to_string(self.folder.path().join("server.log")).expect("a log");
        assert!(log.contains("TRACE"), "everything is logged");
        for secret in secrets.iter().chain(&[SERVICE_PASSWORD]) {
            assert!(secret.len() > 8);
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{line:?}");
        }
    }
}

/// What Keystone says of a token; `None` where it is not valid.
fn validated(world: &World, token: &str) -> Option<Value> {
    let request = Message {
        start: "GET /v3/auth/tokens?nocatalog HTTP/1.1".to_owned(),
        headers: [
            ("Host", "keystone"),
            ("X-Auth-Token", &world.keystone.admin),
            ("X-Subject-Token", token),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        body: Vec::new(),
    };
    let answer = send(world.keystone.port, &request).expect("an answer");
    (answer.status() == 200).then(|| answer.json()["token"].clone())
}

/// A user of project `shop` with roles, and a token.
fn user(world: &World) -> (String, String, String) {
    let (name, id) = world.user("member");
    let token = world.token(&name);
    (name, id, token)
}

/// The ids of the trusts that a user has given.
fn trusts(world: &World, user: &str, token: &str) -> Vec<String> {
    let path = format!("/v3/OS-TRUST/trusts?trustor_user_id={user}");
    let answer = world.keystone.request("GET", &path, token, None);
    assert_eq!(answer.status(), 200, "{}", answer.json());
    list(&answer.json(), "trusts")
        .iter()
        .map(|trust| text(&trust["id"]))
        .collect()
}

/// Gives a trust by hand, and returns its id.
fn give(world: &World, trustor: &str, token: &str, trustee: &str, project: &str) -> String {
    let trust = json!({"trust": {"impersonation": true, "project_id": project, "roles": [{"name": "member"}],
        "trustee_user_id": trustee, "trustor_user_id": trustor, "allow_redelegation": true}});
    let answer = world
        .keystone
        .request("POST", "/v3/OS-TRUST/trusts", token, Some(&trust));
    assert_eq!(answer.status(), 201, "{}", answer.json());
    text(&answer.json()["trust"]["id"])
}

fn id_of(world: &World, name: &str) -> String {
    let users = world.keystone.get(&format!("/v3/users?name={name}"));
    text(&list(&users, "users").first().expect("the user")["id"])
}

#[test]
fn a_receiver_gets_a_token_of_the_user_who_subscribed_it() {
    let world = &*WORLD;
    let (name, id, _) = user(world);
    // A role in letters of both cases: names of roles are compared without case, and not sent so.
    let role = world
        .keystone
        .create("/v3/roles", "role", &json!({"name": "Auditor"}));
    let path = format!("/v3/projects/{}/users/{id}/roles/{role}", world.shop);
    world.keystone.change("PUT", &path, &Value::Null);
    let token = world.token(&name);
    let (_, _, other) = user(world);
    let service = Service::start(world, "orders", "");
    let elsewhere = Receiver::start("");
    let receiver = Receiver::start(&format!("http://127.0.0.1:{}/other", elsewhere.port));
    let options = json!({"_dead_letter_queue": "dead"});
    let subscription = service.subscribed(&token, &receiver.url(), &options);
    let trust = service.trust(&token, &subscription).expect("its trust");
    assert_eq!(
        service.trust(&other, &subscription),
        None,
        "another user does not see it"
    );
    assert_eq!(trusts(world, &id, &token), [trust.as_str()]);
    let path = format!("/v3/OS-TRUST/trusts/{trust}");
    let given = world.keystone.request("GET", &path, &token, None).json()["trust"].clone();
    assert_eq!(given["impersonation"], true);
    assert_eq!(given["project_id"], *world.shop);
    let mut roles: Vec<_> = list(&given, "roles")
        .iter()
        .map(|role| text(&role["name"]))
        .collect();
    roles.sort_unstable();
    assert_eq!(roles, ["Auditor", "member", "reader"]);
    assert!(given["expires_at"].is_string());

    // Once more is no other trust.
    let again = service.subscribed(&token, &receiver.url(), &json!({}));
    assert_eq!(again, subscription);
    assert_eq!(trusts(world, &id, &token).len(), 1);

    service.post(&token);
    service.post(&token);
    let tokens = receiver.tokens(2);
    assert_eq!(tokens[0], tokens[1], "one token for both");
    let said = validated(world, &tokens[0]).expect("a valid token");
    assert_eq!(said["user"]["id"], *id, "it acts as the user");
    assert_eq!(said["project"]["id"], *world.shop);
    assert_eq!(said["OS-TRUST:trust"]["id"], *trust);

    // A receiver that refuses it gets a new one, once.
    world.keystone.revoke(&tokens[1]);
    sleep(Duration::from_secs(1));
    receiver.answer(&[401]);
    service.post(&token);
    let tokens = receiver.tokens(4);
    assert_eq!(tokens[2], tokens[1]);
    assert_ne!(tokens[3], tokens[2]);
    assert!(validated(world, &tokens[3]).is_some());

    // It goes nowhere else: the notification is given up, and goes to the dead-letter queue.
    receiver.answer(&[307]);
    service.post(&token);
    let path = "/v2/queues/dead/messages?echo=true";
    let dead = || list(&service.with(&token, "GET", path, None).json(), "messages").len();
    wait_until("the notification is given up", || dead() == 1);
    assert!(elsewhere.seen().is_empty());

    // The trust goes with the subscription.
    let deleted = service.with(&token, "DELETE", &subscription, None);
    assert_eq!(deleted.status(), 204);
    wait_until("the trust is deleted", || {
        trusts(world, &id, &token).is_empty()
    });
    assert!(validated(world, &tokens[3]).is_none());
    let mut secrets: Vec<&str> = tokens.iter().map(String::as_str).collect();
    secrets.extend([token.as_str(), other.as_str(), PASSWORD]);
    service.assert_no_secret(&secrets);
}

#[test]
fn a_changed_subscription_has_a_trust_of_whoever_changed_it() {
    let world = &*WORLD;
    let (_, id, token) = user(world);
    let (_, other_id, other) = user(world);
    let service = Service::start(world, "changes", "");
    let receiver = Receiver::start("");
    let subscription = service.subscribed(&token, &receiver.url(), &json!({}));
    let first = service.trust(&token, &subscription).expect("a trust");

    // Other options of the same user need no other trust.
    service.change(
        &token,
        &subscription,
        &json!({"options": {"post_data": "{}"}}),
    );
    assert_eq!(service.trust(&token, &subscription).as_ref(), Some(&first));

    // A life needs one that ends with it, whether or not the client names the one that it has read.
    service.change(&token, &subscription, &json!({"ttl": 7200}));
    let second = service.trust(&token, &subscription).expect("a trust");
    assert_ne!(second, first);
    let change = json!({"ttl": 7200, "options": {"trust_id": second}});
    service.change(&token, &subscription, &change);
    let third = service.trust(&token, &subscription).expect("a trust");
    assert_ne!(third, second);
    wait_until("old trusts are deleted", || {
        trusts(world, &id, &token) == [third.as_str()]
    });

    // Another user of the project does not get a token of the first sent anywhere, or with anything; and gives none to a
    // receiver whom the first has chosen, without saying so.
    let post_data = json!({"post_data": "{\"x\": \"$zaqar_message$\"}"});
    for change in [json!({"options": post_data}), json!({"ttl": 7200})] {
        let answer = service.with(&other, "PATCH", &subscription, Some(&change));
        assert_eq!(answer.status(), 403, "{}", answer.json());
        assert_eq!(service.trust(&token, &subscription).as_ref(), Some(&third));
    }
    for change in [
        json!({"subscriber": receiver.url(), "options": post_data}),
        json!({"subscriber": format!("{}/b", receiver.url())}),
    ] {
        service.change(&other, &subscription, &change);
        assert_eq!(service.trust(&token, &subscription), None);
        assert!(service.trust(&other, &subscription).is_some());
        wait_until("the old trust is deleted", || {
            trusts(world, &id, &token).is_empty()
        });
    }
    service.post(&token);
    let said = validated(world, &receiver.tokens(1)[0]).expect("a valid token");
    assert_eq!(said["user"]["id"], *other_id);

    // Without a trust there is no trust to keep, and with one again there is a new one.
    let plain = format!("http://127.0.0.1:{}/plain", receiver.port);
    service.change(&token, &subscription, &json!({"subscriber": plain}));
    wait_until("the trust is deleted", || {
        trusts(world, &other_id, &other).is_empty()
    });
    assert_eq!(service.trust(&token, &subscription), None);
    service.change(
        &token,
        &subscription,
        &json!({"subscriber": receiver.url()}),
    );
    let last = service.trust(&token, &subscription).expect("a trust");

    // A change that is refused leaves no trust.
    let second = format!("{}/second", receiver.url());
    service.subscribed(&token, &second, &json!({}));
    let conflict = json!({"subscriber": second});
    let answer = service.with(&token, "PATCH", &subscription, Some(&conflict));
    assert_eq!(answer.status(), 409, "{}", answer.json());
    assert_eq!(service.trust(&token, &subscription), Some(last));
    wait_until("two are left", || trusts(world, &id, &token).len() == 2);

    // All of them go with the queue.
    let deleted = service.with(&token, "DELETE", "/v2/queues/changes", None);
    assert_eq!(deleted.status(), 204);
    wait_until("the trusts are deleted", || {
        trusts(world, &id, &token).is_empty()
    });
}

#[test]
fn a_trust_of_somebody_else_is_refused() {
    let world = &*WORLD;
    let (_, victim, victims_token) = user(world);
    let (_, id, token) = user(world);
    let service = Service::start(world, "stolen", "");
    let receiver = Receiver::start("");
    let zaqar = id_of(world, "zaqar");
    let other = world
        .keystone
        .create("/v3/projects", "project", &json!({"name": "elsewhere"}));
    grant(&world.keystone, &other, &id, "member");
    let in_other = json!({"project": {"id": other}});
    let name = world.keystone.get(&format!("/v3/users/{id}"))["user"]["name"].clone();
    let tokens_elsewhere = world
        .keystone
        .login(&text(&name), PASSWORD, Some(&in_other));
    let stolen = give(world, &victim, &victims_token, &zaqar, &world.shop);
    let for_another = give(world, &id, &token, &world.nova, &world.shop);
    let of_another = give(world, &id, &tokens_elsewhere, &zaqar, &other);
    for foreign in [
        &stolen,
        &for_another,
        &of_another,
        "0123456789abcdef0123456789abcdef",
        "../../users",
    ] {
        let answer = service.subscribe(&token, &receiver.url(), &json!({"trust_id": foreign}));
        assert_eq!(answer.status(), 400, "{foreign}: {}", answer.json());
        assert!(!service.has_queue(&token), "no queue is left behind");
    }
    let number = service.subscribe(&token, &receiver.url(), &json!({"trust_id": 1}));
    assert_eq!(number.status(), 400);
    let header = json!({"post_headers": {"X-Auth-Token": "mine"}});
    let answer = service.subscribe(&token, &receiver.url(), &header);
    assert_eq!(answer.status(), 400, "{}", answer.json());
    // A record that only the service writes is not taken from a client.
    let forged = json!({"_trust": {"id": stolen, "user_id": id, "created": false}});
    let subscription = service.subscribed(&token, &receiver.url(), &forged);
    assert_ne!(service.trust(&token, &subscription).as_ref(), Some(&stolen));
    let answer = service.with(
        &token,
        "PATCH",
        &subscription,
        Some(&json!({"options": {"trust_id": stolen}})),
    );
    assert_eq!(answer.status(), 400, "{}", answer.json());
    service.post(&token);
    let said = validated(world, &receiver.tokens(1)[0]).expect("a valid token");
    assert_eq!(said["user"]["id"], *id);
    service.with(&token, "DELETE", &subscription, None);

    // The caller's own is taken, used, and left to the caller.
    let own = give(world, &id, &token, &zaqar, &world.shop);
    let subscription = service.subscribed(&token, &receiver.url(), &json!({"trust_id": own}));
    assert_eq!(service.trust(&token, &subscription).as_ref(), Some(&own));
    service.post(&token);
    let said = validated(world, &receiver.tokens(2)[1]).expect("a valid token");
    assert_eq!(said["OS-TRUST:trust"]["id"], *own);
    service.with(&token, "DELETE", &subscription, None);
    sleep(Duration::from_secs(1));
    assert!(trusts(world, &id, &token).contains(&own));
}

#[test]
fn a_token_that_allows_less_does_not_get_more_by_a_trust() {
    let world = &*WORLD;
    let token = world.token("alice");
    let service = Service::start(world, "less", "");
    let receiver = Receiver::start("");
    let zaqar = id_of(world, "zaqar");
    let trust = give(world, &world.alice, &token, &zaqar, &world.shop);
    let named = json!({ "trust_id": trust });
    let rule = json!({"service": "messaging", "method": "POST", "path": "/v2/**"});
    let limited = world.credential_token(Some(&json!([rule])));
    let answer = service.subscribe(&limited, &receiver.url(), &named);
    assert_eq!(answer.status(), 400, "{}", answer.json());
    // With all roles of the user it is the user's own to name, and not to create.
    let credential = world.credential_token(None);
    let subscription = service.subscribed(&credential, &receiver.url(), &named);
    let change = json!({"options": {"post_data": "{}"}});
    service.change(&credential, &subscription, &change);
    let answer = service.with(
        &credential,
        "PATCH",
        &subscription,
        Some(&json!({"ttl": 600})),
    );
    assert_eq!(answer.status(), 403, "{}", answer.json());
    // A trust of more roles than the token has.
    let (_, id, _) = user(world);
    grant(&world.keystone, &world.shop, &id, "manager");
    let name = text(&world.keystone.get(&format!("/v3/users/{id}"))["user"]["name"]);
    let token = world.token(&name);
    let wide = json!({"trust": {"impersonation": true, "project_id": world.shop, "trustee_user_id": zaqar,
        "roles": [{"name": "manager"}], "trustor_user_id": id}});
    let answer = world
        .keystone
        .request("POST", "/v3/OS-TRUST/trusts", &token, Some(&wide));
    assert_eq!(answer.status(), 201, "{}", answer.json());
    let wide = json!({"trust_id": answer.json()["trust"]["id"]});
    let narrow = give(world, &id, &token, &world.nova, &world.shop);
    let password = json!({"user": {"id": world.nova, "password": PASSWORD}});
    let of_trust = world.keystone.token(&json!({
        "identity": {"methods": ["password"], "password": {"user": password["user"]}},
        "scope": {"OS-TRUST:trust": {"id": narrow}},
    }));
    let other = format!("{}/wide", receiver.url());
    let answer = service.subscribe(&of_trust, &other, &wide);
    assert_eq!(answer.status(), 400, "{}", answer.json());
    // The user's own subscription is not changed by it either, apart from what sends nothing.
    let subscription = service.subscribed(&token, &other, &wide);
    let answer = service.with(&of_trust, "PATCH", &subscription, Some(&change));
    assert_eq!(answer.status(), 400, "{}", answer.json());
}

#[test]
fn who_may_not_give_a_trust_is_told_why_and_nothing_is_created() {
    let world = &*WORLD;
    let (_, id, token) = user(world);
    let service = Service::start(world, "refused", "");
    let receiver = Receiver::start("");
    let credential = world.credential_token(None);
    // A trust that may be passed on: Keystone refuses its token in another way.
    let trust = give(world, &id, &token, &world.nova, &world.shop);
    let password = json!({"user": {"id": world.nova, "password": PASSWORD}});
    let of_trust = world.keystone.token(&json!({
        "identity": {"methods": ["password"], "password": password}, "scope": {"OS-TRUST:trust": {"id": trust}},
    }));
    for refused in [&credential, &of_trust] {
        let answer = service.subscribe(refused, &receiver.url(), &json!({}));
        println!("{} {}", answer.status(), answer.json());
        assert_eq!(answer.status(), 403, "{}", answer.json());
        let description = text(&answer.json()["description"]);
        assert!(
            description.starts_with("Keystone gives no trust"),
            "{description}"
        );
        assert!(!service.has_queue(&token), "no queue is left behind");
    }
    let share = json!({"paths": ["subscriptions"], "methods": ["POST"]});
    let signed = service
        .with(&token, "POST", "/v2/queues/refused/share", Some(&share))
        .json();
    let header = |key: &str| {
        list(&signed, key)
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(",")
    };
    let (paths, methods) = (header("paths"), header("methods"));
    let body = json!({"subscriber": receiver.url(), "ttl": 3600});
    let headers = [
        ("URL-Signature", &*text(&signed["signature"])),
        ("URL-Paths", &paths),
        ("URL-Methods", &methods),
        ("URL-Expires", &text(&signed["expires"])),
        ("X-Project-Id", &world.shop),
    ];
    let answer = service.send("POST", &service.subscriptions(), &headers, Some(&body));
    assert_eq!(answer.status(), 403, "{}", answer.json());
    assert!(!service.has_queue(&token));
    let plain = json!({"subscriber": "http://127.0.0.1:9/", "ttl": 3600});
    let answer = service.send("POST", &service.subscriptions(), &headers, Some(&plain));
    assert_eq!(
        answer.status(),
        201,
        "the signature is good: {}",
        answer.json()
    );

    // With named roles a user without them is refused, and others pass on no more.
    let narrow = Service::start(world, "narrow", "trust_roles = [\"reader\"]");
    let subscription = narrow.subscribed(&token, &receiver.url(), &json!({}));
    let path = format!(
        "/v3/OS-TRUST/trusts/{}",
        narrow.trust(&token, &subscription).expect("a trust")
    );
    let given = world.keystone.request("GET", &path, &token, None).json();
    let roles = list(&given["trust"], "roles");
    assert_eq!(roles.len(), 1);
    assert_eq!(roles[0]["name"], "reader");
    let wide = Service::start(world, "wide", "trust_roles = [\"manager\"]");
    let answer = wide.subscribe(&token, &receiver.url(), &json!({}));
    println!("{} {}", answer.status(), answer.json());
    assert_eq!(answer.status(), 403, "{}", answer.json());
    assert!(!wide.has_queue(&token));
}

#[test]
fn a_trust_that_is_gone_fails_for_good_and_an_outage_is_waited_for() {
    let mut world = World::start();
    let (name, id, token) = user(&world);
    let service = Service::start(&world, "outage", "");
    let receiver = Receiver::start("");
    let dead_letters = json!({"_dead_letter_queue": "dead", "_retry_policy": {
        "minimum_delay": 1, "maximum_delay": 11, "minimum_delay_retries": 60, "retries_with_no_delay": 1,
        "maximum_delay_retries": 5}});
    let subscription = service.subscribed(&token, &receiver.url(), &dead_letters);
    let trust = service.trust(&token, &subscription).expect("a trust");

    // No token was got yet; the message is posted while Keystone is down, by a token that is known.
    world.keystone.stop();
    service.post(&token);
    let log = || std::fs::read_to_string(service.folder.path().join("server.log")).expect("a log");
    wait_until("it is tried again", || {
        log().contains("a notification is retried")
    });
    // A new subscription needs Keystone.
    let answer = service.subscribe(&token, &format!("{}/new", receiver.url()), &json!({}));
    assert_eq!(answer.status(), 503, "{}", answer.json());
    assert!(answer.header("retry-after").is_some());
    assert!(receiver.seen().is_empty());
    world.keystone.start_again();
    let said = validated(&world, &receiver.tokens(1)[0]).expect("a valid token");
    assert_eq!(said["OS-TRUST:trust"]["id"], *trust);

    // The user takes the trust back. What the service has is refused by the receiver, and there is nothing new.
    let token = world.token(&name);
    let path = format!("/v3/OS-TRUST/trusts/{trust}");
    let taken = world.keystone.request("DELETE", &path, &token, None);
    assert_eq!(taken.status(), 204, "{}", taken.json());
    assert!(trusts(&world, &id, &token).is_empty());
    receiver.answer(&[401]);
    service.post(&token);
    let path = "/v2/queues/dead/messages?echo=true";
    let dead = || list(&service.with(&token, "GET", path, None).json(), "messages").len();
    wait_until("the notification is given up", || dead() == 1);
    assert_eq!(receiver.seen().len(), 2);
    let reason = "there is no token of its trust: Keystone refuses it";
    let log = log();
    let line = log.lines().find(|line| line.contains(reason));
    println!("{line:?}");
    assert!(line.is_some(), "the reason is told");
    // What goes to its end as ever is not held up by a trust that is gone.
    let deleted = service.with(&token, "DELETE", &subscription, None);
    assert_eq!(deleted.status(), 204);
}
