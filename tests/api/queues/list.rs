//! Listing queues (spec: queues.md 2).

use serde_json::{Value, json};

use super::RESERVED;
use crate::api::support::{Answer, App};

const NO_QUEUES: &str = r#"{"queues": [], "links": []}"#;

fn names(answer: &Answer) -> Vec<String> {
    answer.assert_status(200);
    let document = answer.json();
    let queues = document["queues"].as_array().expect("queues");
    let name = |queue: &Value| queue["name"].as_str().map(str::to_owned);
    queues.iter().filter_map(name).collect()
}

async fn app_with(queues: &[(&str, Value)]) -> App {
    let app = App::new();
    for (name, metadata) in queues {
        app.put(&format!("/v2/queues/{name}"), metadata)
            .await
            .assert_status(201);
    }
    app
}

#[tokio::test]
async fn a_project_without_queues_has_an_empty_list() {
    let app = App::new();
    app.project("other").put("/v2/queues/q", ()).await;
    for query in [
        "",
        "?detailed=true",
        "?with_count=true",
        "?marker=x&limit=1",
    ] {
        app.get(&format!("/v2/queues{query}"))
            .await
            .assert_is(200, NO_QUEUES);
    }
}

#[tokio::test]
async fn an_entry_has_a_name_and_a_reference() {
    let app = app_with(&[("fizbat", json!({"team": "billing"}))]).await;
    app.get("/v2/queues").await.assert_is(
        200,
        "{\"queues\": [{\"name\": \"fizbat\", \"href\": \"/v2/queues/fizbat\"}], \"links\": [{\"rel\": \"next\", \
         \"href\": \"/v2/queues?marker=fizbat\"}]}",
    );
}

#[tokio::test]
async fn a_detailed_list_with_a_count_is_this_document() {
    let metadata = json!({"_default_message_ttl": 1800, "team": "billing"});
    let app = app_with(&[("fizbat", metadata)]).await;
    app.get("/v2/queues?detailed=true&with_count=true")
        .await
        .assert_is(
            200,
            "{\"queues\": [{\"name\": \"fizbat\", \"metadata\": {\"_default_message_ttl\": 1800, \"team\": \
             \"billing\", \"_max_messages_post_size\": 262144, \"_default_message_delay\": 0, \
             \"_dead_letter_queue\": null, \"_dead_letter_queue_messages_ttl\": null, \"_max_claim_count\": null, \
             \"_enable_encrypt_messages\": false}, \"href\": \"/v2/queues/fizbat\"}], \"links\": [{\"rel\": \
             \"next\", \"href\": \"/v2/queues?detailed=true&with_count=true&marker=fizbat\"}], \"count\": 1}",
        );
}

#[tokio::test]
async fn details_include_the_reserved_keys() {
    let app = app_with(&[("a", json!({})), ("b", json!({"x": 1}))]).await;
    let answer = app.get("/v2/queues?detailed=true").await;
    let expected = format!(
        "{{\"queues\": [{{\"name\": \"a\", \"metadata\": {{{RESERVED}, \"href\": \"/v2/queues/a\"}}, {{\"name\": \
         \"b\", \"metadata\": {{\"x\": 1, {RESERVED}, \"href\": \"/v2/queues/b\"}}], "
    );
    assert!(answer.text().starts_with(&expected), "{}", answer.text());
}

#[tokio::test]
async fn queues_are_sorted_by_the_bytes_of_their_names() {
    let app = App::new();
    for name in [
        "b", "a", "B", "_a", "-a", ".a", "1", "a.b", "a-b", "ab", "10", "2",
    ] {
        app.put(&format!("/v2/queues/{name}"), ()).await;
    }
    assert_eq!(
        names(&app.get("/v2/queues?limit=20").await),
        [
            "-a", ".a", "1", "10", "2", "B", "_a", "a", "a-b", "a.b", "ab", "b"
        ]
    );
}

#[tokio::test]
async fn links_lead_through_all_queues_and_each_comes_once() {
    let app = App::new();
    let mut expected: Vec<String> = (0..25).map(|at| format!("svc.{at:02}.x")).collect();
    expected.push("svc".to_owned());
    for name in &expected {
        app.put(&format!("/v2/queues/{name}"), ()).await;
    }
    expected.sort();
    for limit in [1, 7, 13, 20] {
        let mut next = Some(format!("/v2/queues?limit={limit}"));
        let mut found = Vec::new();
        while let Some(path) = next {
            let page = app.get(&path).await;
            found.extend(names(&page));
            next = page.next();
        }
        assert_eq!(found, expected, "{limit}");
    }
}

#[tokio::test]
async fn a_page_begins_after_its_marker_whether_that_exists_or_not() {
    let queues = ["q00", "q01", "q02", "q04"].map(|name| (name, json!({})));
    let app = app_with(&queues).await;
    for (marker, first) in [
        ("q00", Some("q01")),
        ("q01", Some("q02")),
        ("q03", Some("q04")),
        ("a", Some("q00")),
        ("q", Some("q00")),
        ("q00a", Some("q01")),
        ("q04", None),
        ("z", None),
        ("%C3%A9", None),
    ] {
        let page = app
            .get(&format!("/v2/queues?limit=1&marker={marker}"))
            .await;
        assert_eq!(names(&page).first().map(String::as_str), first, "{marker}");
    }
}

#[tokio::test]
async fn a_marker_that_was_deleted_keeps_its_place() {
    let queues = ["a", "b", "c"].map(|name| (name, json!({})));
    let app = app_with(&queues).await;
    let next = app.get("/v2/queues?limit=2").await.next().expect("a link");
    app.delete("/v2/queues/b").await;
    assert_eq!(names(&app.get(&next).await), ["c"]);
}

#[tokio::test]
async fn the_name_filter_takes_names_that_contain_a_text() {
    let queues = ["orders", "orders.eu", "reorders", "Orders", "o.d", "oXd"];
    let app = app_with(&queues.map(|name| (name, json!({})))).await;
    for (filter, found) in [
        ("orders", vec!["orders", "orders.eu", "reorders"]),
        ("rders", vec!["Orders", "orders", "orders.eu", "reorders"]),
        ("o.d", vec!["o.d"]),
        (".", vec!["o.d", "orders.eu"]),
        ("%25", vec![]),
        ("_", vec![]),
        ("^o", vec![]),
        ("*", vec![]),
        ("o.*", vec![]),
        ("'", vec![]),
    ] {
        let page = app.get(&format!("/v2/queues?name={filter}")).await;
        assert_eq!(names(&page), found, "{filter}");
    }
}

#[tokio::test]
async fn the_name_filter_holds_for_the_whole_listing() {
    let app = App::new();
    for at in 0..30 {
        let kind = if at % 10 == 9 { "wanted" } else { "other" };
        app.put(&format!("/v2/queues/q{at:02}.{kind}"), ()).await;
    }
    let first = app.get("/v2/queues?name=wanted&limit=2").await;
    assert_eq!(names(&first), ["q09.wanted", "q19.wanted"]);
    let next = first.next().expect("a link");
    assert_eq!(next, "/v2/queues?limit=2&name=wanted&marker=q19.wanted");
    assert_eq!(names(&app.get(&next).await), ["q29.wanted"]);
}

#[tokio::test]
async fn other_parameters_filter_by_metadata() {
    let app = app_with(&[
        ("a", json!({"team": "billing", "size": 5})),
        ("b", json!({"team": "infra", "size": "5"})),
        (
            "c",
            json!({"team": "billing", "size": 6, "odd key": "x y", "a,b": 1}),
        ),
        ("d", json!({"team": ["billing"], "size": 5.5})),
        ("e", json!({})),
    ])
    .await;
    for (query, found) in [
        ("team=billing", vec!["a", "c"]),
        ("team=Billing", vec![]),
        ("team=bill", vec![]),
        ("size=5", vec!["a"]),
        ("size=6", vec!["c"]),
        ("size=5.5", vec![]),
        ("size=five", vec![]),
        ("team=billing&size=6", vec!["c"]),
        ("team=infra&size=6", vec![]),
        ("odd%20key=x+y", vec!["c"]),
        ("nothing=1", vec![]),
        ("team=", vec!["a", "b", "c", "d", "e"]),
        ("name=a&team=billing", vec!["a"]),
    ] {
        let page = app.get(&format!("/v2/queues?{query}")).await;
        assert_eq!(names(&page), found, "{query}");
    }
}

#[tokio::test]
async fn a_metadata_filter_with_a_comma_or_twice_is_no_failure() {
    let app = app_with(&[("a", json!({"tags": "x,y"})), ("b", json!({"tags": "x"}))]).await;
    for query in [
        "tags=x,y",
        "tags=x,1",
        "tags=1,2",
        "tags=x&tags=y",
        "tags=1&tags=2",
    ] {
        app.get(&format!("/v2/queues?{query}"))
            .await
            .assert_status(200);
    }
}

#[tokio::test]
async fn metadata_filters_hold_for_the_whole_listing() {
    let app = App::new();
    for at in 0..30 {
        app.put(&format!("/v2/queues/q{at:02}"), json!({"third": at % 10}))
            .await;
    }
    let first = app.get("/v2/queues?third=3&limit=2").await;
    assert_eq!(names(&first), ["q03", "q13"]);
    assert_eq!(
        first.next().as_deref(),
        Some("/v2/queues?limit=2&marker=q13")
    );
}

#[tokio::test]
async fn the_count_is_of_all_queues_of_the_project() {
    let queues = ["a", "b", "c"].map(|name| (name, json!({})));
    let app = app_with(&queues).await;
    app.project("other").put("/v2/queues/d", ()).await;
    for query in [
        "with_count=true",
        "with_count=true&limit=1",
        "with_count=true&marker=b",
        "with_count=true&name=a",
        "with_count=true&marker=z",
        "with_count=true&team=none",
    ] {
        let document = app.get(&format!("/v2/queues?{query}")).await.json();
        assert_eq!(document["count"], 3, "{query}");
    }
    for query in ["", "with_count=false", "with_count="] {
        let document = app.get(&format!("/v2/queues?{query}")).await.json();
        assert_eq!(document.get("count"), None, "{query}");
    }
}

#[tokio::test]
async fn a_changed_queue_is_listed_as_it_is_now() {
    let app = app_with(&[("a", json!({"v": 1}))]).await;
    app.patch(
        "/v2/queues/a",
        json!([{"op": "replace", "path": "/metadata/v", "value": 2}]),
    )
    .await
    .assert_status(200);
    let document = app.get("/v2/queues?detailed=true").await.json();
    assert_eq!(document["queues"][0]["metadata"]["v"], 2);
    assert_eq!(names(&app.get("/v2/queues?v=2").await), ["a"]);
    assert!(names(&app.get("/v2/queues?v=1").await).is_empty());
}
