//! Registering a pool, and showing it.

use serde_json::{Value, json};

use crate::api::store;
use crate::api::support::App;

/// The sentence of a 400.
#[track_caller]
fn fault(answer: &crate::api::support::Answer) -> String {
    answer.assert_status(400);
    let document = answer.json();
    assert_eq!(document["title"], "Invalid request body", "{document}");
    document["description"]
        .as_str()
        .expect("a sentence")
        .to_owned()
}

/// Files of pools may be anywhere.
const ANY_FILE: &str = "[pooling]\nsqlite_folder = '/'";

#[tokio::test]
async fn a_pool_is_registered_and_shown() {
    let app = App::new().admin();
    let uri = store::fresh();
    let body = json!({"uri": uri, "weight": 10});
    let answer = app.put("/v2/pools/a%20b!", body).await;
    answer.assert_is(201, "");
    assert_eq!(answer.header("location"), Some("/v2/pools/a%20b%21"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let shown = format!(
        r#"{{"name": "a b!", "uri": "{}", "weight": 10, "flavor": null, "href": "/v2/pools/a b!"}}"#,
        store::shown(&uri)
    );
    app.get("/v2/pools/a%20b!").await.assert_is(200, &shown);
    let detailed = format!(
        r#"{{"name": "a b!", "uri": "{}", "weight": 10, "flavor": null, "options": {{}}, "href": "/v2/pools/a b!"}}"#,
        store::shown(&uri)
    );
    app.get("/v2/pools/a%20b!?detailed=true")
        .await
        .assert_is(200, &detailed);
}

#[tokio::test]
async fn a_pool_that_is_not_registered_is_not_found() {
    let app = App::new().admin();
    for path in ["/v2/pools/nope", "/v2/pools/nope?detailed=true"] {
        app.get(path)
            .await
            .assert_refused(404, "Not found", "Pool nope does not exist");
    }
    app.patch("/v2/pools/nope", json!({"weight": 1}))
        .await
        .assert_refused(404, "Not found", "Pool nope does not exist");
}

#[tokio::test]
async fn registering_again_updates_and_keeps_the_flavor() {
    let app = App::new().admin();
    let uri = app.pool("p", 10).await;
    app.flavor("f", &["p"]).await;
    let again = json!({"uri": uri, "weight": 20, "options": {}});
    app.put("/v2/pools/p", again).await.assert_is(201, "");
    let shown = app.get("/v2/pools/p?detailed=true").await.json();
    assert_eq!(shown["weight"], 20);
    assert_eq!(shown["flavor"], "f");
    app.put(
        "/v2/pools/p",
        json!({"uri": uri, "weight": 20, "flavor": ""}),
    )
    .await
    .assert_status(201);
    assert_eq!(app.get("/v2/pools/p").await.json()["flavor"], Value::Null);
}

#[tokio::test]
async fn options_that_are_not_named_again_are_unset() {
    let app = App::new().admin();
    let body = json!({"uri": "sqlite::memory:", "weight": 1, "options": {"cache_mib": 8}});
    app.put("/v2/pools/p", body).await.assert_status(201);
    let options = async || app.get("/v2/pools/p?detailed=true").await.json()["options"].clone();
    assert_eq!(options().await, json!({"cache_mib": 8}));
    let body = json!({"uri": "sqlite::memory:", "weight": 1});
    app.put("/v2/pools/p", body).await.assert_status(201);
    assert_eq!(options().await, json!({}));
}

#[tokio::test]
async fn what_is_no_json_is_said_to_be_none() {
    let app = App::new().admin();
    for body in ["", "{", "nonsense", "{\"uri\": NaN}"] {
        for method in ["PUT", "PATCH"] {
            let answer = app.send(method, "/v2/pools/p", body).await;
            answer.assert_refused(400, "Invalid request body", "JSON could not be parsed.");
        }
    }
    let answer = app.put("/v2/pools/p", ()).await;
    answer.assert_refused(400, "Invalid request body", "JSON could not be parsed.");
}

#[tokio::test]
async fn each_fault_has_a_sentence() {
    let app = App::new().admin();
    let uri = "sqlite::memory:";
    let long = "x".repeat(256);
    for (body, sentence) in [
        (json!([]), "A pool is described by a JSON object."),
        (json!({"weight": 1}), "`uri` is required."),
        (json!({"uri": uri}), "`weight` is required."),
        (
            json!({"uri": uri, "weight": 1, "x": 1}),
            "`x` is not a key of a pool; there are uri, weight, flavor, options.",
        ),
        (
            json!({"uri": 5, "weight": 1}),
            "`uri` must be a string of at most 255 characters.",
        ),
        (
            json!({"uri": long, "weight": 1}),
            "`uri` must be a string of at most 255 characters.",
        ),
        (
            json!({"uri": uri, "weight": -1}),
            "`weight` must be an integer from 0 to 4294967295.",
        ),
        (
            json!({"uri": uri, "weight": 4_294_967_296_u64}),
            "`weight` must be an integer from 0 to 4294967295.",
        ),
        (
            json!({"uri": uri, "weight": true}),
            "`weight` must be an integer from 0 to 4294967295.",
        ),
        (
            json!({"uri": uri, "weight": 1.0}),
            "`weight` must be an integer from 0 to 4294967295.",
        ),
        (
            json!({"uri": uri, "weight": "1"}),
            "`weight` must be an integer from 0 to 4294967295.",
        ),
        (
            json!({"uri": uri, "weight": 1, "flavor": null}),
            "`flavor` must be a string of at most 255 characters.",
        ),
        (
            json!({"uri": uri, "weight": 1, "flavor": "x".repeat(65)}),
            "A flavor's name has 1 to 64 characters, none of them a control character.",
        ),
        (
            json!({"uri": uri, "weight": 1, "options": []}),
            "`options` must be an object.",
        ),
        (
            json!({"uri": uri, "weight": 1, "options": {"readers": []}}),
            "the option 'readers' must be a string, a number or a boolean",
        ),
    ] {
        let answer = app.put("/v2/pools/p", &body).await;
        assert_eq!(fault(&answer), sentence, "{body}");
        app.get("/v2/pools/p").await.assert_status(404);
    }
    let path = format!("/v2/pools/{}", "x".repeat(65));
    let answer = app.put(&path, json!({"uri": uri, "weight": 1}));
    assert_eq!(
        fault(&answer.await),
        "A pool's name has 1 to 64 characters, none of them a control character."
    );
    let answer = app.put("/v2/pools/default", json!({"uri": uri, "weight": 1}));
    assert_eq!(
        fault(&answer.await),
        "The name `default` is that of the store of the configuration."
    );
}

#[tokio::test]
async fn pool_weights_0_and_u32_max_are_accepted() {
    let app = App::new().admin();
    for weight in [0_u32, u32::MAX] {
        let name = format!("p{weight}");
        app.pool(&name, weight).await;
        let shown = app.get(&format!("/v2/pools/{name}")).await.json();
        assert_eq!(shown["weight"], weight);
    }
}

#[tokio::test]
async fn a_driver_must_know_the_uri_and_leaves_out_options_that_it_does_not_know() {
    let app = App::new().admin();
    let put = async |uri: &str, options: Value| {
        let body = json!({"uri": uri, "weight": 1, "options": options});
        fault(&app.put("/v2/pools/p", body).await)
    };
    let sentence = put("kafka://h", json!({})).await;
    for scheme in ["'kafka:'", "sqlite:", "redis:", "rediss:"] {
        assert!(sentence.contains(scheme), "{sentence}");
    }
    for (uri, options) in [
        ("sqlite::memory:?speed=1", json!({})),
        ("redis://h?speed=1", json!({})),
        ("sqlite::memory:?speed=1", json!({"speed": 1})),
    ] {
        let sentence = put(uri, options).await;
        assert!(sentence.contains("'speed'"), "{sentence}");
    }
    // As the reference does: among others its own options, and whatever lies deeper.
    let options = json!({"max_reconnect_attempts": 3, "reconnect_sleep": 0.5, "socket_timeout": 1,
        "max_retry_sleep": 1, "speed": 1, "deep": {"password": "geheim", "list": [1]}, "readers": 2});
    let body = json!({"uri": "sqlite::memory:", "weight": 1, "options": options});
    app.put("/v2/pools/p", body).await.assert_status(201);
    let shown = app.get("/v2/pools/p?detailed=true").await.json()["options"].clone();
    assert_eq!(shown["deep"], json!({"password": "***", "list": [1]}));
    assert_eq!(shown["reconnect_sleep"], 0.5);
    app.post_bodies("q", [json!(1)]).await;
}

#[tokio::test]
async fn a_pool_must_be_reachable() {
    let app = App::with(ANY_FILE).admin();
    for uri in ["redis://127.0.0.1:1", "sqlite:/proc/nowhere/a.db"] {
        let answer = app
            .put("/v2/pools/p", json!({"uri": uri, "weight": 1}))
            .await;
        assert_eq!(fault(&answer), format!("cannot connect to {uri}"));
        app.get("/v2/pools/p").await.assert_status(404);
    }
}

#[tokio::test]
async fn two_pools_cannot_be_in_one_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = App::with(ANY_FILE).admin();
    let uri = format!("sqlite:{}/a.db", folder.path().display());
    app.put("/v2/pools/a", json!({"uri": uri, "weight": 1}))
        .await
        .assert_status(201);
    let taken = "The database URI is in use by another pool.";
    for same in [uri.clone(), format!("{uri}?readers=3")] {
        app.put("/v2/pools/b", json!({"uri": same, "weight": 1}))
            .await
            .assert_refused(409, "Resource conflict", taken);
    }
    app.pool("b", 1).await;
    app.patch("/v2/pools/b", json!({"uri": uri}))
        .await
        .assert_refused(409, "Resource conflict", taken);
    // Its own place is nobody else's.
    app.put(
        "/v2/pools/a",
        json!({"uri": uri, "weight": 2, "options": {"readers": 4}}),
    )
    .await
    .assert_status(201);
}

#[tokio::test]
async fn a_pool_cannot_be_where_the_default_store_is() {
    let store = store::Kept::new();
    let app = App::open(&store.uri, "").admin();
    app.put("/v2/pools/a", json!({"uri": store.uri, "weight": 1}))
        .await
        .assert_refused(
            409,
            "Resource conflict",
            "The database URI is that of the default store.",
        );
}

#[tokio::test]
async fn pools_of_one_flavor_can_do_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = App::with(ANY_FILE).admin();
    let (file, memory) = (
        format!("sqlite:{}/a.db", folder.path().display()),
        "sqlite::memory:",
    );
    let pool = |uri: &str| json!({"uri": uri, "weight": 1, "flavor": "durable"});
    app.put("/v2/pools/a", pool(&file)).await.assert_status(201);
    let mismatch = "The pool being added does not support the minimum set of capabilities";
    app.put("/v2/pools/b", pool(memory)).await.assert_refused(
        400,
        "Unable to create pool",
        mismatch,
    );
    app.put("/v2/pools/b", json!({"uri": memory, "weight": 1}))
        .await
        .assert_status(201);
    app.patch("/v2/pools/b", json!({"flavor": "durable"}))
        .await
        .assert_refused(400, "Unable to create pool", mismatch);
    let description =
        "Flavor durable could not be created, error:Pools a and b differ in capabilities";
    app.put("/v2/flavors/durable", json!({"pool_list": ["a", "b"]}))
        .await
        .assert_refused(400, "Unable to create", description);
    assert_eq!(app.get("/v2/pools/b").await.json()["flavor"], Value::Null);
}

#[tokio::test]
async fn the_file_of_a_pool_is_below_the_folder_that_is_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let (allowed, other) = (folder.path().join("allowed"), folder.path().join("other"));
    for folder in [&allowed, &other] {
        std::fs::create_dir(folder).expect("a folder");
    }
    std::os::unix::fs::symlink(&other, allowed.join("away")).expect("a link");
    std::os::unix::fs::symlink(other.join("no.db"), allowed.join("dangling.db")).expect("a link");
    let app = App::with(&format!(
        "[pooling]\nsqlite_folder = '{}'",
        allowed.display()
    ))
    .admin();
    let put = async |name: &str, path: String| {
        let body = json!({"uri": format!("sqlite:{path}"), "weight": 1});
        app.put(&format!("/v2/pools/{name}"), body).await
    };
    let inside = allowed.display();
    for path in [
        format!("{}/a.db", other.display()),
        format!("{inside}/../other/a.db"),
        format!("{inside}/deeper/../../other/a.db"),
        format!("{inside}/away/a.db"),
        format!("{inside}/dangling.db"),
        format!("{inside}-too/a.db"),
        format!("//{}/a.db", other.display()),
        "a.db".to_owned(),
        "../a.db".to_owned(),
    ] {
        let answer = put("p", path.clone()).await;
        answer.assert_status(400);
        assert!(fault(&answer).contains("pooling.sqlite_folder"), "{path}");
    }
    assert_eq!(std::fs::read_dir(&other).expect("a folder").count(), 0);
    for (name, path) in [
        ("a", format!("{inside}/a.db")),
        ("b", format!("{inside}/deeper/b.db")),
        ("c", format!("//{inside}/x/../c.db")),
        ("d", ":memory:".to_owned()),
    ] {
        put(name, path).await.assert_status(201);
    }
    let elsewhere = json!({"uri": format!("sqlite:{}/a.db", other.display())});
    app.patch("/v2/pools/a", elsewhere).await.assert_status(400);
}
