//! The API behind a proxy that serves it under a path: what leads clients to it leads through the proxy.

use serde_json::{Value, json};

use crate::api::store;
use crate::api::support::App;

/// The links with which clients find the service: those of the document of versions and of the home document.
async fn entrances(app: &App, base: &str) -> Vec<String> {
    let versions = app.get(&format!("{base}/")).await.json();
    let mut found = vec![text(&versions["versions"][0]["links"][0]["href"])];
    let home = app.get(&format!("{base}/v2/")).await.json();
    let relations = home["resources"].as_object().expect("resources").values();
    found.extend(relations.map(|relation| match &relation["href-template"] {
        Value::Null => text(&relation["href"]),
        template => text(template),
    }));
    found
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Creates one of everything, and returns what `Location` and `Content-Location` say.
async fn locations(app: &App, base: &str) -> Vec<String> {
    let messages = json!({"messages": [{"ttl": 300, "body": 1}, {"ttl": 300, "body": 2}]});
    let subscriber = json!({"subscriber": "http://y.example/", "ttl": 300});
    let mut found = Vec::new();
    for (method, rest, body) in [
        ("PUT", "/queues/q", json!({})),
        ("PUT", "/topics/t", json!({})),
        ("POST", "/queues/q/messages", messages.clone()),
        ("POST", "/topics/t/messages", messages),
        ("POST", "/queues/q/subscriptions", subscriber),
        ("POST", "/queues/q/claims?limit=1", json!({"ttl": 60})),
        (
            "PUT",
            "/pools/pool",
            json!({"uri": store::fresh(), "weight": 1}),
        ),
        ("PUT", "/flavors/flavor", json!({"pool_list": ["pool"]})),
        ("GET", "/pools", Value::Null),
    ] {
        let path = format!("{base}/v2{rest}");
        let answer = match body {
            Value::Null => app.send(method, &path, ()).await,
            body => app.send(method, &path, body).await,
        };
        assert!(
            answer.status < 300,
            "{method} {rest}: {} {}",
            answer.status,
            answer.text()
        );
        let location = answer
            .header("location")
            .or(answer.header("content-location"));
        found.push(location.expect("a location").to_owned());
    }
    found
}

fn all_begin_with(start: &str, found: &[String]) {
    let astray: Vec<_> = found
        .iter()
        .filter(|link| !link.starts_with(start))
        .collect();
    assert!(astray.is_empty(), "{astray:?}");
}

/// The links to next pages, as python-zaqarclient follows them: behind the URL of the service.
async fn assert_next_pages(app: &App, base: &str) {
    for number in 0..2 {
        let subscriber = json!({"subscriber": format!("http://y.example/{number}"), "ttl": 300});
        let path = format!("{base}/v2/queues/q/subscriptions");
        let answer = app.send("POST", &path, subscriber).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    for list in ["messages?echo=true&limit=1", "subscriptions?limit=1"] {
        let first = app.get(&format!("{base}/v2/queues/q/{list}")).await;
        let next = first.next().expect("a next page");
        assert!(next.starts_with("/v2/"), "{next}");
        app.get(&format!("{base}{next}")).await.assert_status(200);
    }
}

#[tokio::test]
async fn clients_are_led_through_the_base_path_whether_requests_have_it_or_not() {
    for base in ["", "/messaging"] {
        let app = App::with("[server]\nbase_path = '/messaging/'").admin();
        all_begin_with("/messaging/v2/", &entrances(&app, base).await);
        let found = locations(&app, base).await;
        all_begin_with("/messaging/v2/", &found);
        // They lead to what they name.
        for location in [&found[0], &found[1], &found[2], &found[5]] {
            assert_eq!(app.get(location).await.status, 200, "{location}");
            assert_eq!(
                app.get(&location["/messaging".len()..]).await.status,
                200,
                "{location}"
            );
        }
        assert_next_pages(&app, base).await;
    }
}

#[tokio::test]
async fn trusted_proxy_says_the_base_path_and_nobody_else_does() {
    let app = App::with("[access]\ntrusted_proxies = ['10.1.0.0/16']");
    let proxied = app.connected_from([10, 1, 2, 3].into());
    let proxied = proxied.header("X-Forwarded-Prefix", "/messaging").admin();
    all_begin_with("/messaging/v2/", &entrances(&proxied, "").await);
    all_begin_with("/messaging/v2/", &locations(&proxied, "").await);
    // The document of versions is open to everybody, and so is a lie about the path.
    let seen =
        async |app: &App| text(&app.get("/").await.json()["versions"][0]["links"][0]["href"]);
    let anybody = app.connected_from([192, 0, 2, 1].into());
    assert_eq!(
        seen(&anybody.header("X-Forwarded-Prefix", "/evil")).await,
        "/v2/"
    );
    for prefix in ["//evil.example", "/a\"b", "https://evil.example", "evil"] {
        assert_eq!(
            seen(&proxied.header("X-Forwarded-Prefix", prefix)).await,
            "/v2/",
            "{prefix}"
        );
    }
    // Where no proxy is named, none is trusted with this.
    assert_eq!(
        seen(&App::new().header("X-Forwarded-Prefix", "/evil")).await,
        "/v2/"
    );
}
