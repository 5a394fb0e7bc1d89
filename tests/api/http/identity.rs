//! Whose word counts about who asks, where nobody else is asked.

use std::net::IpAddr;

use serde_json::json;

use crate::api::support::App;

const SECRET: &str = "0123456789abcdef";

fn peer(address: &str) -> IpAddr {
    address.parse().expect(address)
}

#[tokio::test]
async fn older_names_of_headers_mean_nothing_unless_they_are_switched_on() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await;
    for name in ["X-Tenant-Id", "X-Tenant"] {
        app.without("X-Project-Id")
            .header(name, "480924")
            .get("/v2/queues")
            .await
            .assert_refused(
                400,
                "Project-Id Missing",
                "The header X-PROJECT-ID was missing",
            );
        let both = app.header(name, "other").get("/v2/queues").await;
        assert_eq!(both.json()["queues"][0]["name"], "q");
    }
    app.header("X-Role", "admin")
        .get("/v2/pools")
        .await
        .assert_status(403);
    app.header("X-Roles", "")
        .header("X-Role", "admin")
        .get("/v2/pools")
        .await
        .assert_status(403);
}

#[tokio::test]
async fn switched_on_older_names_count_and_two_that_differ_are_refused() {
    let app = App::with("[access]\nlegacy_identity_headers = true");
    app.project("tenant").put("/v2/queues/q", ()).await;
    let bare = app.without("X-Project-Id");
    let project = |names: &[(&str, &str)]| {
        names
            .iter()
            .fold(bare.clone(), |app, (name, value)| app.header(name, value))
    };
    for names in [
        &[("X-Tenant-Id", "tenant")][..],
        &[("X-Tenant", "tenant")],
        &[("X-Project-Id", "tenant"), ("X-Tenant", "tenant")],
        &[("X-Tenant-Id", "tenant"), ("X-Tenant", "tenant")],
    ] {
        let queues = project(names).get("/v2/queues").await.json();
        assert_eq!(queues["queues"][0]["name"], "q", "{names:?}");
    }
    let refused = (
        "Invalid header value",
        "Two headers say different things of who asks.",
    );
    for names in [
        &[("X-Tenant-Id", "tenant"), ("X-Tenant", "other")][..],
        &[("X-Project-Id", "tenant"), ("X-Tenant-Id", "other")],
        &[("X-Project-Id", "tenant"), ("X-Tenant", "")],
    ] {
        let answer = project(names).get("/v2/queues").await;
        answer.assert_refused(400, refused.0, refused.1);
    }
    app.header("X-Role", "admin")
        .get("/v2/pools")
        .await
        .assert_status(200);
    for roles in ["", "member"] {
        app.header("X-Roles", roles)
            .header("X-Role", "admin")
            .get("/v2/pools")
            .await
            .assert_refused(400, refused.0, refused.1);
    }
}

#[tokio::test]
async fn where_proxies_are_named_nobody_else_says_who_asks() {
    let app = App::with("[access]\ntrusted_proxies = ['10.1.0.0/16', '::1']");
    let (trusted, other) = (
        app.connected_from(peer("10.1.2.3")),
        app.connected_from(peer("10.2.0.1")),
    );
    trusted.put("/v2/queues/q", ()).await.assert_status(201);
    app.connected_from(peer("::1"))
        .admin()
        .get("/v2/pools")
        .await
        .assert_status(200);
    for (method, path) in [
        ("GET", "/v2/"),
        ("GET", "/v2/ping"),
        ("GET", "/v2/queues/q"),
        ("DELETE", "/v2/queues/q"),
        ("GET", "/v2/pools"),
        ("TRACE", "/v2/queues"),
    ] {
        let answer = other.admin().send(method, path, ()).await;
        answer.assert_refused(
            403,
            "Not authorized",
            "This service takes requests from its proxies only.",
        );
    }
    other.get("/").await.assert_status(300);
    other.get("/v2/nothing").await.assert_status(404);
    trusted.get("/v2/queues/q").await.assert_status(200);
}

#[tokio::test]
async fn where_there_is_a_secret_only_who_shows_it_says_who_asks() {
    let app = App::with(&format!("[access]\nproxy_secret = '{SECRET}'"));
    let shown = app.header("X-Isimud-Proxy-Secret", SECRET);
    shown.put("/v2/queues/q", ()).await.assert_status(201);
    app.get("/v2/queues/q").await.assert_status(403);
    for wrong in ["", "0123456789abcdeF", "0123456789abcdef "] {
        app.header("X-Isimud-Proxy-Secret", wrong)
            .admin()
            .get("/v2/pools")
            .await
            .assert_status(403);
    }
    let both = App::with(&format!(
        "[access]\nproxy_secret = '{SECRET}'\ntrusted_proxies = ['10.1.0.0/16']"
    ));
    let (near, far) = (
        both.connected_from(peer("10.1.0.1")),
        both.connected_from(peer("10.2.0.1")),
    );
    near.get("/v2/ping").await.assert_status(403);
    let secret = "X-Isimud-Proxy-Secret";
    far.header(secret, SECRET)
        .get("/v2/ping")
        .await
        .assert_status(403);
    near.header(secret, SECRET)
        .get("/v2/ping")
        .await
        .assert_status(204);
}

#[tokio::test]
async fn a_signature_counts_wherever_it_comes_from_and_brings_no_roles() {
    let app = App::with(
        "[access]\ntrusted_proxies = ['10.1.0.0/16']\n[signed_url]\nsecret_key = 'SPECSECRET'",
    );
    let (trusted, other) = (
        app.connected_from(peer("10.1.2.3")),
        app.connected_from(peer("10.2.0.1")),
    );
    let shared = trusted
        .post("/v2/queues/q/share", json!({"methods": ["GET"]}))
        .await
        .json();
    let text = |key: &str| shared[key].as_str().expect(key).to_owned();
    let bearer = other
        .header("URL-Signature", text("signature"))
        .header("URL-Expires", text("expires"))
        .header("URL-Methods", "GET")
        .header("URL-Paths", "/v2/queues/q/messages")
        .admin();
    bearer.get("/v2/queues/q/messages").await.assert_status(200);
    bearer.get("/v2/pools").await.assert_status(404);
    bearer
        .header("X-Project-Id", "other")
        .get("/v2/queues/q/messages")
        .await
        .assert_status(404);
}
