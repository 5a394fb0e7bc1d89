//! The whole program with Keystone in front: a real server asks a real Keystone (spec: keystone.md 3, 4, 5).

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::keystone::WORLD;
use crate::keystone::proxy::{Fault, On, Proxy};
use crate::keystone::world::SERVICE_PASSWORD;
use crate::support::server::{Answer, Server, connect, free_address};

const CLIENT: &str = "3381af92-2b9e-11e3-b191-71861300734c";
const MESSAGE: &str = r#"{"messages": [{"ttl": 300, "body": 1}]}"#;

/// A server that asks Keystone by way of a proxy.
struct Cloud {
    server: Server,
    admin: SocketAddr,
    proxy: Proxy,
    _folder: TempDir,
}

impl Cloud {
    /// With further lines at the end of `[access]`, and at the end of the file.
    fn start_with(access: &str, lines: &str) -> Self {
        let proxy = Proxy::start(WORLD.keystone.port);
        let folder = tempfile::tempdir().expect("a folder");
        // The world creates the region in which the proxy is Keystone's endpoint.
        let section = WORLD.config(proxy.port, &json!({}));
        let config = format!(
            "[access]\nauthentication = \"keystone\"\n{access}[keystone]\nauth_url = \"{}\"\npublic_url = \"{}\"\nregion = \"{}\"\n\
             username = \"zaqar\"\nuser_domain_id = \"default\"\npassword_file = \"password\"\nproject = \"service\"\n\
             project_domain_id = \"default\"\ntimeout_secs = 10\n{lines}",
            section.auth_url, section.public_url, section.region
        );
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("password", SERVICE_PASSWORD).expect("a file");
        write("isimud.toml", &config).expect("a file");
        let admin = free_address();
        let flags = ["--admin-listen", &admin.to_string()];
        let server = Server::start_with("sqlite::memory:", folder.path(), &flags);
        Self {
            server,
            admin,
            proxy,
            _folder: folder,
        }
    }

    fn start(lines: &str) -> Self {
        Self::start_with("", lines)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        ask(self.server.address, method, path, headers, body)
    }

    /// With a client id and a token.
    fn with_token(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let headers = [("Client-ID", CLIENT), ("X-Auth-Token", token)];
        self.ask(method, path, &headers, body)
    }
}

fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = connect(address, Duration::from_secs(30)).expect("a connection");
    let request = format!("{head}\r\n{body}");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let answer = Answer::read(&mut BufReader::new(stream), method == "HEAD");
    answer.expect("an answer").expect("one")
}

#[test]
fn token_says_who_asks_and_headers_of_identity_do_not() {
    let cloud = Cloud::start("");
    let token = WORLD.token("alice");
    let post = cloud.with_token(&token, "POST", "/v2/queues/q/messages", MESSAGE);
    assert_eq!(post.status, 201, "{post}");
    // Whatever headers say, the queue is the one of the token's project, and the roles are the token's.
    for (name, value) in [
        ("X-Project-Id", "other"),
        ("X-Tenant-Id", "other"),
        ("X-Roles", "admin"),
        ("X_Roles", "admin"),
        ("X-User-Id", "admin"),
        ("X-Identity-Status", "Confirmed"),
        ("X-Is-Admin-Project", "True"),
        ("X-Service-Roles", "admin"),
    ] {
        let headers = [
            ("Client-ID", CLIENT),
            ("X-Auth-Token", &*token),
            (name, value),
            (name, "again"),
        ];
        let stats = cloud.ask("GET", "/v2/queues/q/stats", &headers, "");
        assert_eq!(stats.json()["messages"]["total"], 1, "{name}: {stats}");
        let health = cloud.ask("GET", "/v2/health", &headers, "");
        assert_eq!(health.status, 403, "{name}: {health}");
    }
    let admin = &WORLD.keystone.admin;
    assert_eq!(cloud.with_token(admin, "GET", "/v2/health", "").status, 200);
    let stats = cloud.with_token(admin, "GET", "/v2/queues/q/stats", "");
    assert_eq!(stats.json()["messages"]["total"], 0, "{stats}");
    let log = cloud.server.log();
    for secret in [&*token, &**admin, SERVICE_PASSWORD] {
        assert!(!log.contains(secret), "the log has a secret");
    }
}

#[test]
fn requests_without_a_good_token_get_the_documented_answers() {
    let cloud = Cloud::start("");
    let good = WORLD.token("alice");
    let unscoped = WORLD
        .keystone
        .login("alice", crate::keystone::world::PASSWORD, None);
    let client = ("Client-ID", CLIENT);
    let challenge = "Keystone uri=\"http://public.example:5000\"";
    let unauthorized = r#"{"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}"#;
    for path in [
        "/v2",
        "/v2/",
        "/v2/ping",
        "/v2/health",
        "/v2/queues/q/messages",
        "/nowhere",
    ] {
        for (name, value) in [
            ("X-Other", "x"),
            ("X-Auth-Token", ""),
            ("X-Auth-Token", "unknown"),
            ("Authorization", &*format!("Bearer {good}")),
            ("X-Service-Token", &*WORLD.service_token()),
        ] {
            let answer = cloud.ask("GET", path, &[client, (name, value)], "");
            assert_eq!(
                answer.to_string(),
                format!("401 {unauthorized}"),
                "{path} {name}"
            );
            assert_eq!(answer.header("www-authenticate"), Some(challenge));
            assert!(answer.header("x-openstack-request-id").is_some());
        }
    }
    let head = cloud.ask("HEAD", "/v2/ping", &[client], "");
    assert_eq!((head.status, head.body.len()), (401, 0));
    assert_eq!(cloud.ask("GET", "/", &[], "").status, 300);
    for headers in [&[][..], &[("X-Auth-Token", "unknown")]] {
        let options = cloud.ask("OPTIONS", "/v2/queues", headers, "");
        assert_eq!((options.status, options.body.len()), (200, 0), "{options}");
    }
    // A good token, and what is missing beside it.
    let no_client = cloud.ask("GET", "/v2/queues", &[("X-Auth-Token", &good)], "");
    assert_eq!(
        no_client.json()["title"],
        "Missing header value",
        "{no_client}"
    );
    let version = cloud.ask("GET", "/v2", &[("X-Auth-Token", &good)], "");
    assert_eq!(version.json()["version"]["status"], "CURRENT", "{version}");
    let older = cloud.ask(
        "GET",
        "/v2/queues",
        &[client, ("X-Storage-Token", &good)],
        "",
    );
    assert_eq!(older.status, 200);
    let missing = json!({"title": "Project-Id Missing", "description": "The header X-PROJECT-ID was missing"});
    for path in ["/v2/queues", "/v2/ping", "/v2/health"] {
        let headers = [
            client,
            ("X-Auth-Token", &*unscoped),
            ("X-Project-Id", "shop"),
        ];
        let answer = cloud.ask("GET", path, &headers, "");
        assert_eq!(
            (answer.status, answer.json()),
            (400, missing.clone()),
            "{path}"
        );
    }
}

#[test]
fn signed_request_needs_no_token_and_has_no_roles() {
    let cloud = Cloud::start("[signed_url]\nsecret_key = \"SIGNINGSECRET\"\n");
    let token = WORLD.token("alice");
    assert_eq!(
        cloud
            .with_token(&token, "POST", "/v2/queues/q/messages", MESSAGE)
            .status,
        201
    );
    let asked = r#"{"paths": ["messages"], "methods": ["GET"]}"#;
    let shared = cloud
        .with_token(&token, "POST", "/v2/queues/q/share", asked)
        .json();
    let text = |key: &str| match &shared[key] {
        Value::Array(all) => all
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(","),
        other => other.as_str().expect("a text").to_owned(),
    };
    let (signature, paths, methods, expires) = (
        text("signature"),
        text("paths"),
        text("methods"),
        text("expires"),
    );
    let headers = [
        ("Client-ID", "0381af92-2b9e-11e3-b191-71861300734c"),
        ("URL-Signature", &*signature),
        ("URL-Paths", &*paths),
        ("URL-Methods", &*methods),
        ("URL-Expires", &*expires),
        ("X-Project-Id", &*WORLD.shop),
        ("X-Roles", "admin"),
        ("X-Auth-Token", "whatever"),
    ];
    let listed = cloud.ask("GET", "/v2/queues/q/messages?echo=true", &headers, "");
    assert_eq!(listed.json()["messages"][0]["body"], 1, "{listed}");
    assert_eq!(
        cloud.ask("GET", "/v2/queues/q/stats", &headers, "").status,
        404
    );
    let other = headers.map(|(name, value)| match name {
        "X-Project-Id" => (name, "other"),
        _ => (name, value),
    });
    assert_eq!(
        cloud.ask("GET", "/v2/queues/q/messages", &other, "").status,
        404
    );
}

#[test]
fn policies_see_roles_domains_and_the_project_of_the_token() {
    let rules = "\"queues:create\": \"role:READER and user_domain_id:default\"\n\"queues:get\": \"project_id:%(project_id)s\"\n\
                 \"queues:get_all\": \"system_scope:all or domain_id:default\"\n\"queues:stats\": \"is_admin_project:False\"\n";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, rules).expect("a file");
    let cloud = Cloud::start_with(&format!("policy_file = {file:?}\n"), "");
    let (alice, admin) = (WORLD.token("alice"), WORLD.keystone.admin.clone());
    let status =
        |token: &str, method: &str, path: &str| cloud.with_token(token, method, path, "").status;
    // Member and admin bring the role reader with them.
    assert_eq!(status(&alice, "PUT", "/v2/queues/q"), 201);
    assert_eq!(status(&admin, "PUT", "/v2/queues/q"), 201);
    assert_eq!(status(&alice, "GET", "/v2/queues/q"), 200);
    assert_eq!(status(&alice, "GET", "/v2/queues"), 403);
    assert_eq!(status(&alice, "GET", "/v2/queues/q/stats"), 403);
}

#[test]
fn keystone_that_is_down_is_told_and_known_tokens_go_on() {
    let cloud = Cloud::start("");
    let (known, new) = (WORLD.token("alice"), WORLD.token("alice"));
    assert_eq!(
        cloud.with_token(&known, "GET", "/v2/queues", "").status,
        200
    );
    assert_eq!(ready(&cloud)["keystone"]["state"], "up");
    cloud.proxy.always(On::Any, Fault::Close);
    let begun = Instant::now();
    let refused = cloud.with_token(&new, "GET", "/v2/queues", "");
    assert_eq!(refused.status, 503, "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(11));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        refused.json()["error"]["message"],
        "The Keystone service is temporarily unavailable."
    );
    assert_eq!(
        cloud.with_token(&known, "GET", "/v2/queues", "").status,
        200
    );
    let state = ready(&cloud);
    assert_eq!(
        (&state["ready"], &state["keystone"]["state"]),
        (&json!(true), &json!("down")),
        "{state}"
    );
    let metrics = ask(cloud.admin, "GET", "/metrics", &[], "");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("isimud_keystone_up 0"), "{metrics}");
    assert!(
        metrics.contains("isimud_keystone_requests_total{outcome=\"unavailable\"} 1"),
        "{metrics}"
    );
    cloud.proxy.heal();
    let begun = Instant::now();
    while cloud.with_token(&new, "GET", "/v2/queues", "").status != 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{}",
            cloud.server.log()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn ready(cloud: &Cloud) -> Value {
    ask(cloud.admin, "GET", "/ready", &[], "").json()
}

#[test]
fn wrong_configuration_is_told_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    for (lines, told) in [
        ("", "keystone.auth_url"),
        ("auth_url = \"keystone:5000\"", "keystone.auth_url"),
        ("auth_url = \"http://127.0.0.1:9\"", "service user"),
    ] {
        let config = format!("[access]\nauthentication = \"keystone\"\n[keystone]\n{lines}\n");
        std::fs::write(folder.path().join("isimud.toml"), config).expect("a file");
        let said = check(folder.path());
        assert!(said.contains(told), "{lines}: {said}");
    }
}

fn check(folder: &Path) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_isimud"));
    let run = command
        .args(["--check", "--config", "isimud.toml"])
        .current_dir(folder)
        .output();
    String::from_utf8_lossy(&run.expect("the binary can be run").stderr).into_owned()
}
