//! Lists of pools.

use serde_json::json;

use crate::api::store;
use crate::api::support::App;

#[tokio::test]
async fn without_pools_the_list_is_empty() {
    let answer = App::new().admin().get("/v2/pools").await;
    answer.assert_is(200, r#"{"links": [], "pools": []}"#);
    assert_eq!(answer.header("content-location"), Some("/v2/pools"));
}

#[tokio::test]
async fn pools_are_listed_by_name_with_a_link_to_the_next() {
    let app = App::new().admin();
    let mut uris = Vec::new();
    for name in ["b", "c", "a%20b!"] {
        uris.push(app.pool(name, 10).await);
    }
    let answer = app.get("/v2/pools?limit=1").await;
    let page = format!(
        r#"{{"links": [{{"rel": "next", "href": "/v2/pools?limit=1&marker=a%20b%21"}}], "pools": [{{"name": "a b!", "uri": "{}", "weight": 10, "flavor": null, "href": "/v2/pools/a b!"}}]}}"#,
        store::shown(&uris[2])
    );
    answer.assert_is(200, &page);
    assert_eq!(answer.header("content-location"), Some("/v2/pools?limit=1"));
    let mut names = Vec::new();
    let mut next = Some("/v2/pools?limit=2&detailed=true".to_owned());
    while let Some(path) = next {
        let answer = app.get(&path).await;
        for pool in answer.json()["pools"].as_array().expect("pools") {
            assert_eq!(pool["options"], json!({}));
            names.push(pool["name"].as_str().expect("a name").to_owned());
        }
        next = answer.next();
    }
    assert_eq!(names, ["a b!", "b", "c"]);
    let links = [
        (
            "/v2/pools?detailed=true&limit=2",
            "/v2/pools?limit=2&detailed=true&marker=b",
        ),
        ("/v2/pools?limit=2&marker=a", "/v2/pools?marker=b&limit=2"),
        (
            "/v2/pools?marker=bb&detailed=false",
            "/v2/pools?marker=c&detailed=false",
        ),
    ];
    for (path, next) in links {
        assert_eq!(app.get(path).await.next().as_deref(), Some(next), "{path}");
    }
}

#[tokio::test]
async fn a_page_has_one_to_twenty_pools_and_ten_if_nothing_is_said() {
    let app = App::new().admin();
    for at in 0..12 {
        app.pool(&format!("p{at:02}"), 1).await;
    }
    let count = async |path: &str| {
        let page = app.get(path).await.json();
        page["pools"].as_array().expect("pools").len()
    };
    assert_eq!(count("/v2/pools").await, 10);
    assert_eq!(count("/v2/pools?limit=20").await, 12);
    for limit in ["0", "21", "-1"] {
        app.get(&format!("/v2/pools?limit={limit}"))
            .await
            .assert_refused(
                400,
                "Invalid API request",
                "Limit must be at least 1 and no greater than 20.",
            );
    }
    app.get("/v2/pools?limit=x").await.assert_status(400);
    app.get("/v2/pools?detailed=maybe").await.assert_status(400);
    app.get("/v2/pools/p00?detailed=maybe")
        .await
        .assert_status(400);
}
