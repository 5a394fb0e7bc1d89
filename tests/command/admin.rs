//! The operators' listener: metrics, liveness, readiness, the description of the API.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::process::{Running, exchange};
use crate::support::server::{self, Answer};

/// A server with an operators' face.
struct Watched {
    server: Running,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Watched {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let admin = server::free_address();
        let address = admin.to_string();
        let arguments = ["--store", "sqlite::memory:", "--admin-listen", &address];
        Self {
            server: Running::start(folder.path(), &arguments),
            admin,
            _folder: folder,
        }
    }

    fn look(&self, path: &str) -> Answer {
        exchange(
            self.admin,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        )
    }

    /// The value of a metric with these labels.
    fn metric(&self, name: &str) -> Option<f64> {
        let page = self.look("/metrics");
        let text = String::from_utf8(page.body).expect("text");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.server
            .client()
            .send(method, path, body)
            .expect("an answer")
    }
}

#[test]
fn messages_are_counted() {
    let watched = Watched::start();
    for name in ["posted", "claimed", "deleted"] {
        let count = watched.metric(&format!("isimud_messages_{name}_total"));
        assert_eq!(count, Some(0.0), "{name}");
    }
    let messages: Vec<Value> = (0..5).map(|body| json!({"body": body})).collect();
    let posted = watched.ask(
        "POST",
        "/v2/queues/q/messages",
        Some(&json!({"messages": messages})),
    );
    assert_eq!(posted.status, 201);
    watched.ask(
        "POST",
        "/v2/queues/q/messages",
        Some(&json!({"messages": []})),
    );
    let claimed = watched
        .ask("POST", "/v2/queues/q/claims?limit=2", None)
        .json();
    let held = claimed["messages"][0]["href"].as_str().expect("a message");
    assert_eq!(watched.ask("DELETE", held, None).status, 204);
    assert_eq!(
        watched
            .ask("DELETE", "/v2/queues/q/messages?pop=2", None)
            .status,
        200
    );
    for (name, expected) in [("posted", 5.0), ("claimed", 2.0), ("deleted", 3.0)] {
        let count = watched.metric(&format!("isimud_messages_{name}_total"));
        assert_eq!(count, Some(expected), "{name}");
    }
}

#[test]
fn requests_are_counted_by_route_method_and_status() {
    let watched = Watched::start();
    for _ in 0..3 {
        watched.ask("GET", "/v2/queues/some-queue", None);
    }
    watched.ask("GET", "/v2/queues?limit=0", None);
    watched.ask("POST", "/v2/queues", None);
    watched.ask("GET", "/v2/nope", None);
    watched.ask("FOO", "/v2/queues", None);
    watched.ask("BAR", "/v2/queues", None);
    for (labels, count) in [
        (
            r#"route="/v2/queues/{queue}",method="GET",status="200""#,
            3.0,
        ),
        (r#"route="/v2/queues",method="GET",status="400""#, 1.0),
        (r#"route="/v2/queues",method="other",status="405""#, 1.0),
        (r#"route="unmatched",method="other",status="404""#, 1.0),
        (r#"route="unmatched",method="other",status="400""#, 2.0),
    ] {
        let found = watched.metric(&format!("isimud_http_requests_total{{{labels}}}"));
        assert_eq!(found, Some(count), "{labels}");
    }
    let latency = r#"isimud_http_request_duration_seconds_count{route="/v2/queues/{queue}"}"#;
    assert_eq!(watched.metric(latency), Some(3.0));
    let page = String::from_utf8(watched.look("/metrics").body).expect("text");
    assert!(
        !page.contains("some-queue"),
        "a name that clients choose is a label"
    );
}

#[test]
fn calls_of_the_store_are_counted_by_outcome() {
    let watched = Watched::start();
    let post = json!({"messages": [{"body": 1}]});
    watched.ask("POST", "/v2/queues/q/messages", Some(&post));
    let claim = "/v2/queues/q/claims/c8cbd19a-842e-4794-8e25-3d5e2df00f2b";
    assert_eq!(watched.ask("GET", claim, None).status, 404);
    for (labels, count) in [
        (r#"pool="default",operation="post",outcome="ok""#, 1.0),
        (
            r#"pool="default",operation="find_claim",outcome="refused""#,
            1.0,
        ),
    ] {
        let found = watched.metric(&format!("isimud_store_operations_total{{{labels}}}"));
        assert_eq!(found, Some(count), "{labels}");
    }
    let latency =
        r#"isimud_store_operation_duration_seconds_count{pool="default",operation="post"}"#;
    assert_eq!(watched.metric(latency), Some(1.0));
}

#[test]
fn posts_below_a_bound_of_bytes_cost_the_store_one_call_each() {
    const POSTS: u32 = 50;
    let watched = Watched::start();
    let calls = |operation: &str| {
        let labels = format!(r#"pool="default",operation="{operation}",outcome="ok""#);
        let found = watched.metric(&format!("isimud_store_operations_total{{{labels}}}"));
        found.unwrap_or(0.0)
    };
    let post = json!({"messages": [{"body": 1}]});
    for _ in 0..POSTS {
        watched.ask("POST", "/v2/queues/unbounded/messages", Some(&post));
    }
    assert_eq!(calls("post"), f64::from(POSTS));
    assert_eq!(calls("count_bytes"), 0.0, "for a queue without a bound");
    let bound = json!({"_max_bytes": 1_000_000});
    watched.ask("PUT", "/v2/queues/bounded", Some(&bound));
    let begun = Instant::now();
    for _ in 0..POSTS {
        let posted = watched.ask("POST", "/v2/queues/bounded/messages", Some(&post));
        assert_eq!(posted.status, 201, "{posted}");
    }
    assert_eq!(calls("post"), f64::from(2 * POSTS));
    // One in the background, and one more every ten seconds.
    let is_counted = || calls("count_bytes") > 0.0;
    while !is_counted() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never counted");
        thread::sleep(Duration::from_millis(20));
    }
    let counts = calls("count_bytes");
    let most = 1.0 + begun.elapsed().as_secs_f64() / 10.0;
    assert!(counts <= most, "{counts} counts");
    assert_eq!(calls("stats"), 0.0);
}

#[test]
fn the_page_is_open_metrics() {
    let watched = Watched::start();
    let page = watched.look("/metrics");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = String::from_utf8(page.body).expect("text");
    assert!(text.ends_with("# EOF\n"), "{text}");
    for family in [
        "# TYPE isimud_http_requests counter",
        "# TYPE isimud_http_request_duration_seconds histogram",
        "# TYPE isimud_store_operations counter",
        "# TYPE isimud_store_operation_duration_seconds histogram",
        "# TYPE isimud_messages_posted counter",
        "# TYPE isimud_messages_claimed counter",
        "# TYPE isimud_messages_deleted counter",
        "# TYPE isimud_backend_up gauge",
    ] {
        assert!(text.contains(family), "{family} is not in\n{text}");
    }
    let up = r#"isimud_backend_up{pool="default"}"#;
    assert_eq!(watched.metric(up), Some(1.0));
}

#[test]
fn the_server_is_alive_and_ready() {
    let watched = Watched::start();
    let live = watched.look("/live");
    assert_eq!((live.status, live.body.as_slice()), (200, &b"live\n"[..]));
    let ready = watched.look("/ready");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.header("content-type"), Some("application/json"));
    assert_eq!(
        ready.json(),
        json!({"ready": true, "stores": {"default": "up"}})
    );
}

#[test]
fn the_api_is_described() {
    let watched = Watched::start();
    let answer = watched.look("/openapi.json");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let document = answer.json();
    let version = document["openapi"].as_str().expect("a version");
    assert!(version.starts_with("3.1"), "{version}");
    for (path, methods) in [
        ("/", vec!["get"]),
        ("/v2/", vec!["get"]),
        ("/v2/ping", vec!["get", "head"]),
        ("/v2/queues", vec!["get"]),
        ("/v2/queues/{queue}", vec!["get", "put", "patch", "delete"]),
        ("/v2/queues/{queue}/stats", vec!["get"]),
        ("/v2/queues/{queue}/purge", vec!["post"]),
        ("/v2/queues/{queue}/messages", vec!["get", "post", "delete"]),
        (
            "/v2/queues/{queue}/messages/{message}",
            vec!["get", "delete"],
        ),
        ("/v2/queues/{queue}/claims", vec!["post"]),
        (
            "/v2/queues/{queue}/claims/{claim}",
            vec!["get", "patch", "delete"],
        ),
    ] {
        for method in methods {
            assert!(
                document["paths"][path][method].is_object(),
                "{method} {path}"
            );
        }
    }
}

#[test]
fn each_face_serves_its_own_and_nothing_of_the_other() {
    let watched = Watched::start();
    for path in ["/metrics", "/live", "/ready", "/openapi.json"] {
        assert_eq!(watched.ask("GET", path, None).status, 404, "{path}");
    }
    for path in ["/", "/v2/", "/v2/queues"] {
        assert_eq!(watched.look(path).status, 404, "{path}");
    }
}

#[test]
fn without_an_address_there_is_no_operators_face() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Running::start(folder.path(), &["--store", "sqlite::memory:"]);
    let answer = server.client().send("GET", "/metrics", None);
    assert_eq!(answer.expect("an answer").status, 404);
}

#[test]
fn api_and_admin_listener_stop_together() {
    let mut watched = Watched::start();
    watched.server.signal("TERM");
    assert_eq!(watched.server.ended().code(), Some(0));
}
