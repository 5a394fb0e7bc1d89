//! Flavors (spec: pools-flavors.md 3).

use serde_json::{Value, json};

use crate::api::support::App;

/// Pools `pa`, `pb` and `pc`.
async fn with_pools() -> App {
    let app = App::new().admin();
    for pool in ["pa", "pb", "pc"] {
        app.pool(pool, 1).await;
    }
    app
}

/// What the pools of these tests can do, as it is shown.
async fn capabilities(app: &App) -> String {
    app.flavor("any", &["pc"]).await;
    let shown = app.get("/v2/flavors/any").await.json()["capabilities"].clone();
    app.delete("/v2/flavors/any").await.assert_status(204);
    let names: Vec<&str> = shown
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for name in ["CLAIMS", "AOD", "HIGH_THROUGHPUT"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(names.contains(&"FIFO"), crate::api::store::is_ordered());
    format!("[\"{}\"]", names.join("\", \""))
}

#[tokio::test]
async fn a_flavor_is_made_and_shown() {
    let app = with_pools().await;
    let capabilities = capabilities(&app).await;
    let answer = app
        .put("/v2/flavors/f%201", json!({"pool_list": ["pb"]}))
        .await;
    answer.assert_is(201, "");
    assert_eq!(answer.header("location"), Some("/v2/flavors/f%201"));
    app.get("/v2/flavors/f%201").await.assert_is(
        200,
        &format!(
            r#"{{"name": "f 1", "capabilities": {capabilities}, "pool_list": ["pb"], "href": "/v2/flavors/f 1"}}"#
        ),
    );
    assert_eq!(app.get("/v2/pools/pb").await.json()["flavor"], "f 1");
}

#[tokio::test]
async fn making_it_again_adds_pools_and_takes_them_from_others() {
    let app = with_pools().await;
    app.flavor("f", &["pa"]).await;
    app.flavor("g", &["pb", "pc"]).await;
    app.flavor("f", &["pb"]).await;
    let pools = async |name: &str| {
        app.get(&format!("/v2/flavors/{name}")).await.json()["pool_list"].clone()
    };
    assert_eq!(pools("f").await, json!(["pa", "pb"]));
    assert_eq!(pools("g").await, json!(["pc"]));
    let body = json!({"pool_list": ["pc"], "capabilities": {"FIFO": true}});
    app.put("/v2/flavors/f", body).await.assert_status(201);
    assert_eq!(pools("f").await, json!(["pa", "pb", "pc"]));
    assert_eq!(pools("g").await, Value::Null, "no pool is left");
}

#[tokio::test]
async fn each_fault_of_a_new_flavor_has_its_answer() {
    let app = with_pools().await;
    for body in ["", "{", "x"] {
        app.put("/v2/flavors/f1", body).await.assert_refused(
            400,
            "Invalid request body",
            "JSON could not be parsed.",
        );
    }
    for (body, title, description) in [
        (
            json!({}),
            "Invalid request body",
            "`pool_list` is required.",
        ),
        (
            json!([]),
            "Invalid request body",
            "A flavor is described by a JSON object.",
        ),
        (
            json!({"pool_list": "pa"}),
            "Invalid request body",
            "`pool_list` must be an array of names of pools.",
        ),
        (
            json!({"pool_list": ["pa"], "x": 1}),
            "Invalid request body",
            "`x` is not a key of a flavor; there are pool_list, capabilities.",
        ),
        (
            json!({"pool_list": ["pa"], "capabilities": []}),
            "Invalid request body",
            "`capabilities` must be an object.",
        ),
        (json!({"pool_list": []}), "Unable to create", "Bad Request"),
        (
            json!({"pool_list": ["pa", "nope"]}),
            "Unable to create",
            "Flavor f1 could not be created, error:Pool nope does not exist",
        ),
        (
            json!({"pool_list": [5]}),
            "Unable to create",
            "Flavor f1 could not be created, error:Pool 5 does not exist",
        ),
    ] {
        let answer = app.put("/v2/flavors/f1", &body).await;
        answer.assert_refused(400, title, description);
        let located = description == "Bad Request";
        assert_eq!(answer.header("location").is_some(), located, "{body}");
    }
    app.get("/v2/flavors/f1")
        .await
        .assert_refused(404, "Not found", "Flavor f1 does not exist");
    assert_eq!(app.get("/v2/pools/pa").await.json()["flavor"], Value::Null);
    let long = format!("/v2/flavors/{}", "x".repeat(65));
    app.put(&long, json!({"pool_list": ["pa"]}))
        .await
        .assert_refused(
            400,
            "Invalid request body",
            "A flavor's name has 1 to 64 characters, none of them a control character.",
        );
}

#[tokio::test]
async fn a_change_names_exactly_the_pools_to_come() {
    let app = with_pools().await;
    let capabilities = capabilities(&app).await;
    app.flavor("f", &["pa", "pb"]).await;
    app.patch("/v2/flavors/f", json!({"pool_list": ["pc", "pb"], "x": 1}))
        .await
        .assert_is(
            200,
            &format!(
                r#"{{"name": "f", "capabilities": {capabilities}, "pool_list": ["pc", "pb"], "href": "/v2/flavors/f"}}"#
            ),
        );
    assert_eq!(
        app.get("/v2/flavors/f").await.json()["pool_list"],
        json!(["pb", "pc"])
    );
    assert_eq!(app.get("/v2/pools/pa").await.json()["flavor"], Value::Null);
}

#[tokio::test]
async fn each_fault_of_a_change_has_its_answer() {
    let app = with_pools().await;
    app.flavor("f", &["pa"]).await;
    let before = app.get("/v2/flavors/f").await.json();
    for (body, title, description) in [
        (
            json!({}),
            "Invalid request body",
            "`pool_list` needs to be specified",
        ),
        (
            json!([]),
            "Invalid request body",
            "`pool_list` needs to be specified",
        ),
        (
            json!({"capabilities": {}}),
            "Invalid request body",
            "`pool_list` needs to be specified",
        ),
        (
            json!({"pool_list": 1}),
            "Invalid request body",
            "`pool_list` must be an array of names of pools.",
        ),
        (json!({"pool_list": []}), "Unable to create", "Bad Request"),
        (
            json!({"pool_list": ["pb", "nope"]}),
            "updatefail",
            "Flavor f cant be updated, error:Pool nope does not exist",
        ),
    ] {
        app.patch("/v2/flavors/f", &body)
            .await
            .assert_refused(400, title, description);
        assert_eq!(app.get("/v2/flavors/f").await.json(), before, "{body}");
    }
    app.patch("/v2/flavors/nope", json!({"pool_list": ["pb"]}))
        .await
        .assert_refused(404, "Not found", "Flavor nope does not exist");
}

#[tokio::test]
async fn a_flavor_is_its_projects_alone() {
    let app = with_pools().await;
    app.flavor("f", &["pa"]).await;
    let other = app.project("other");
    other
        .get("/v2/flavors/f")
        .await
        .assert_refused(404, "Not found", "Flavor f does not exist");
    other
        .get("/v2/flavors")
        .await
        .assert_is(200, r#"{"links": [], "flavors": []}"#);
    let body = json!({"pool_list": ["pb"]});
    other.put("/v2/flavors/f", &body).await.assert_refused(
        409,
        "Resource conflict",
        "Flavor f belongs to another project.",
    );
    other.patch("/v2/flavors/f", &body).await.assert_status(404);
    other.delete("/v2/flavors/f").await.assert_status(204);
    assert_eq!(
        app.get("/v2/flavors/f").await.json()["pool_list"],
        json!(["pa"])
    );
}

#[tokio::test]
async fn flavors_are_listed_by_name_with_a_link_to_the_next() {
    let app = with_pools().await;
    app.get("/v2/flavors")
        .await
        .assert_is(200, r#"{"links": [], "flavors": []}"#);
    let capabilities = capabilities(&app).await;
    for (name, pool) in [("f2", "pc"), ("f1", "pb")] {
        app.flavor(name, &[pool]).await;
    }
    app.get("/v2/flavors?limit=1&detailed=true").await.assert_is(
        200,
        &format!(
            r#"{{"links": [{{"rel": "next", "href": "/v2/flavors?limit=1&marker=f1&detailed=true"}}], "flavors": [{{"name": "f1", "href": "/v2/flavors/f1", "pool_list": ["pb"], "capabilities": {capabilities}}}]}}"#
        ),
    );
    let answer = app.get("/v2/flavors?marker=f1&limit=5").await;
    answer.assert_is(
        200,
        r#"{"links": [{"rel": "next", "href": "/v2/flavors?marker=f2&limit=5"}], "flavors": [{"name": "f2", "href": "/v2/flavors/f2", "pool_list": ["pc"]}]}"#,
    );
    assert_eq!(answer.header("content-location"), None);
    for limit in ["0", "21"] {
        app.get(&format!("/v2/flavors?limit={limit}"))
            .await
            .assert_refused(
                400,
                "Invalid API request",
                "Limit must be at least 1 and no greater than 20.",
            );
    }
}

#[tokio::test]
async fn reading_needs_no_role() {
    let app = with_pools().await;
    app.flavor("f", &["pa"]).await;
    let reader = app.without("X-Roles");
    reader.get("/v2/flavors").await.assert_status(200);
    reader.get("/v2/flavors/f").await.assert_status(200);
}

#[tokio::test]
async fn a_flavor_is_deleted_and_one_that_is_not_there_too() {
    let app = with_pools().await;
    app.flavor("f", &["pa"]).await;
    app.put("/v2/queues/q", json!({"_flavor": "f"}))
        .await
        .assert_status(201);
    let home = app.home_of("q").await;
    for _ in 0..2 {
        app.delete("/v2/flavors/f").await.assert_is(204, "");
    }
    app.get("/v2/flavors/f").await.assert_status(404);
    assert_eq!(app.get("/v2/pools/pa").await.json()["flavor"], Value::Null);
    // Its queues stay where they are, whatever else is changed of them.
    let operation = json!({"op": "add", "path": "/metadata/x", "value": 1});
    app.patch("/v2/queues/q", json!([operation]))
        .await
        .assert_status(200);
    assert_eq!(app.home_of("q").await, home);
}
