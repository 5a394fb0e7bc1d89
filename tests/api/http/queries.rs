//! Query strings and the links that repeat them (spec: http.md 5).

use serde_json::json;

use crate::api::support::{Answer, App};

/// A project with the queues q00 to q11.
async fn app_with_queues() -> App {
    let app = App::new();
    for at in 0..12 {
        app.put(&format!("/v2/queues/q{at:02}"), ())
            .await
            .assert_status(201);
    }
    app
}

fn names(answer: &Answer) -> usize {
    answer.assert_status(200);
    answer.json()["queues"].as_array().expect("queues").len()
}

#[tokio::test]
async fn a_page_holds_ten_unless_the_client_says_otherwise() {
    let app = app_with_queues().await;
    assert_eq!(names(&app.get("/v2/queues").await), 10);
    assert_eq!(names(&app.get("/v2/queues?limit=12").await), 12);
}

#[tokio::test]
async fn unknown_parameters_are_ignored() {
    let app = App::new();
    app.post_bodies("q", [json!(1)]).await;
    for path in [
        "/?x=1",
        "/v2/?x=1",
        "/v2/queues/q?x=1",
        "/v2/queues/q/stats?limit=0",
        "/v2/queues/q/messages?x=1&echo=true",
    ] {
        let status = app.get(path).await.status;
        assert!([200, 300].contains(&status), "{path}: {status}");
    }
    let answer = app.get("/v2/queues/q/messages?x=1&echo=true").await;
    let next = answer.next().expect("a link");
    assert!(!next.contains("x=1"), "{next}");
}

#[tokio::test]
async fn blank_values_count_as_absent() {
    let app = app_with_queues().await;
    for query in [
        "limit=",
        "limit",
        "limit=&detailed=",
        "detailed",
        "marker=",
        "name=",
        "with_count",
        "&",
        "&&=",
        "?",
    ] {
        let answer = app.get(&format!("/v2/queues?{query}")).await;
        assert_eq!(names(&answer), 10, "{query}");
        let document = answer.json();
        assert_eq!(
            document["queues"][0],
            json!({"name": "q00", "href": "/v2/queues/q00"})
        );
        assert_eq!(answer.next().as_deref(), Some("/v2/queues?marker=q09"));
    }
}

#[tokio::test]
async fn the_last_of_a_repeated_parameter_wins() {
    let app = app_with_queues().await;
    assert_eq!(names(&app.get("/v2/queues?limit=5&limit=3").await), 3);
    assert_eq!(
        names(&app.get("/v2/queues?limit=nonsense&limit=3").await),
        3
    );
    assert_eq!(names(&app.get("/v2/queues?limit=5&limit=").await), 5);
}

#[tokio::test]
async fn a_comma_splits_a_value_and_an_encoded_one_does_not() {
    let app = app_with_queues().await;
    assert_eq!(names(&app.get("/v2/queues?limit=5,2").await), 2);
    app.get("/v2/queues?limit=5%2C2").await.assert_refused(
        400,
        "Invalid parameter",
        "The \"limit\" parameter is invalid. The value must be an integer.",
    );
}

#[tokio::test]
async fn the_values_of_a_repeated_list_are_joined() {
    let app = App::new();
    let ids = app.post_bodies("q", [json!(1), json!(2), json!(3)]).await;
    let path = format!(
        "/v2/queues/q/messages?ids={},{}&ids={}",
        ids[0], ids[1], ids[2]
    );
    let found = app.get(&path).await.json();
    assert_eq!(found["messages"].as_array().expect("messages").len(), 3);
    let encoded = format!("/v2/queues/q/messages?ids={}%2C{}", ids[0], ids[1]);
    app.get(&encoded).await.assert_status(404);
}

#[tokio::test]
async fn query_integers_are_parsed_as_python_does() {
    let app = app_with_queues().await;
    for (written, count) in [
        ("5", 5),
        ("05", 5),
        ("%2B5", 5),
        ("+5", 5),
        ("%205%20", 5),
        ("1_1", 11),
    ] {
        let answer = app.get(&format!("/v2/queues?limit={written}")).await;
        assert_eq!(names(&answer), count, "{written}");
        assert_eq!(
            answer.next(),
            Some(format!("/v2/queues?limit={count}&marker=q{:02}", count - 1))
        );
    }
}

#[tokio::test]
async fn what_is_no_integer_is_refused() {
    let app = App::new();
    for (path, name) in [
        ("/v2/queues?limit=", "limit"),
        ("/v2/queues/q/messages?limit=", "limit"),
    ] {
        for value in [
            "x", "1.0", "1e1", "0x10", "1__1", "_1", "1_", "--1", "%C3%A9", "true",
        ] {
            let answer = app.get(&format!("{path}{value}")).await;
            answer.assert_refused(
                400,
                "Invalid parameter",
                &format!("The \"{name}\" parameter is invalid. The value must be an integer."),
            );
        }
    }
    app.delete("/v2/queues/q/messages?pop=x")
        .await
        .assert_refused(
            400,
            "Invalid parameter",
            "The \"pop\" parameter is invalid. The value must be an integer.",
        );
    app.post("/v2/queues/q/claims?limit=x", ())
        .await
        .assert_refused(
            400,
            "Invalid parameter",
            "The \"limit\" parameter is invalid. The value must be an integer.",
        );
}

#[tokio::test]
async fn booleans_have_fourteen_spellings() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await;
    for (spellings, detailed) in [
        (["true", "True", "t", "yes", "y", "1", "on"], true),
        (["false", "False", "f", "no", "n", "0", "off"], false),
    ] {
        for spelling in spellings {
            let answer = app.get(&format!("/v2/queues?detailed={spelling}")).await;
            answer.assert_status(200);
            let entry = &answer.json()["queues"][0];
            assert_eq!(entry.get("metadata").is_some(), detailed, "{spelling}");
            assert_eq!(
                answer.next(),
                Some(format!("/v2/queues?detailed={detailed}&marker=q"))
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_boolean_is_refused() {
    let app = App::new();
    for (path, name) in [
        ("/v2/queues?detailed=", "detailed"),
        ("/v2/queues?with_count=", "with_count"),
        ("/v2/queues/q/messages?echo=", "echo"),
        ("/v2/queues/q/messages?include_claimed=", "include_claimed"),
        ("/v2/queues/q/messages?include_delayed=", "include_delayed"),
    ] {
        for value in ["TRUE", "FALSE", "Yes", "2", "-1", "nonsense", "T", "tru"] {
            let answer = app.get(&format!("{path}{value}")).await;
            answer.assert_refused(
                400,
                "Invalid parameter",
                &format!(
                    "The \"{name}\" parameter is invalid. The value of the parameter must be \"true\" or \"false\"."
                ),
            );
        }
    }
}

#[tokio::test]
async fn a_limit_out_of_range_is_refused() {
    let app = App::new();
    let huge = "9".repeat(40);
    for limit in ["0", "-1", "21", "9223372036854775808", &huge] {
        app.get(&format!("/v2/queues?limit={limit}"))
            .await
            .assert_refused(
                400,
                "Invalid API request",
                "Limit must be at least 1 and no greater than 20.",
            );
        let sentence = "Limit must be at least 1 and may not be greater than 20.";
        app.get(&format!("/v2/queues/q/messages?limit={limit}"))
            .await
            .assert_refused(400, "Invalid API request", sentence);
        app.post(&format!("/v2/queues/q/claims?limit={limit}"), ())
            .await
            .assert_refused(400, "Invalid API request", sentence);
    }
}

#[tokio::test]
async fn the_limits_of_pages_can_be_set() {
    let app = App::with(
        "[limits]\nmax_queues_per_page = 3\nmax_messages_per_page = 4\nmax_messages_per_claim_or_pop = 5",
    );
    app.get("/v2/queues?limit=3").await.assert_status(200);
    app.get("/v2/queues?limit=4").await.assert_refused(
        400,
        "Invalid API request",
        "Limit must be at least 1 and no greater than 3.",
    );
    app.get("/v2/queues/q/messages?limit=5")
        .await
        .assert_refused(
            400,
            "Invalid API request",
            "Limit must be at least 1 and may not be greater than 4.",
        );
    app.delete("/v2/queues/q/messages?pop=6")
        .await
        .assert_refused(
            400,
            "Invalid API request",
            "Pop value must be at least 1 and may not be greater than 5.",
        );
}

#[tokio::test]
async fn a_configured_page_limit_below_ten_does_not_change_the_default_page() {
    let app = App::with("[limits]\nmax_queues_per_page = 3");
    for at in 0..11 {
        app.put(&format!("/v2/queues/q{at:02}"), ()).await;
    }
    assert_eq!(names(&app.get("/v2/queues").await), 10);
}

#[tokio::test]
async fn a_page_that_is_not_empty_has_a_link_even_when_it_is_the_last() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await;
    let answer = app.get("/v2/queues").await;
    let next = answer.next().expect("a link");
    assert_eq!(next, "/v2/queues?marker=q");
    app.get(&next)
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}

#[tokio::test]
async fn links_of_queues_repeat_what_the_client_sent_in_a_fixed_order() {
    let app = app_with_queues().await;
    for (query, next) in [
        ("limit=2", "limit=2&marker=q01"),
        ("limit=2&marker=q01", "marker=q03&limit=2"),
        ("marker=q01&limit=2", "marker=q03&limit=2"),
        (
            "with_count=true&limit=1",
            "limit=1&with_count=true&marker=q00",
        ),
        (
            "with_count=no&name=q&detailed=1&limit=1&marker=q04",
            "marker=q05&limit=1&detailed=true&name=q&with_count=false",
        ),
        ("limit=1&team=&x=", "limit=1&marker=q00"),
        ("marker=&limit=1", "limit=1&marker=q00"),
    ] {
        let answer = app.get(&format!("/v2/queues?{query}")).await;
        assert_eq!(answer.next(), Some(format!("/v2/queues?{next}")), "{query}");
    }
}

#[tokio::test]
async fn links_do_not_repeat_metadata_filters() {
    let app = App::new();
    app.put("/v2/queues/q", json!({"team": "billing"})).await;
    let answer = app.get("/v2/queues?team=billing&limit=1").await;
    assert_eq!(
        answer.next().as_deref(),
        Some("/v2/queues?limit=1&marker=q")
    );
}

#[tokio::test]
async fn links_of_messages_say_that_delayed_ones_are_included() {
    let app = App::new();
    app.post_bodies("q1", [json!(1), json!(2)]).await;
    for (query, front) in [
        (
            "limit=1&echo=true",
            "limit=1&echo=true&include_delayed=true&marker=",
        ),
        (
            "include_claimed=f&echo=on&limit=1",
            "limit=1&echo=true&include_claimed=false&include_delayed=true&marker=",
        ),
    ] {
        let answer = app.get(&format!("/v2/queues/q1/messages?{query}")).await;
        let next = answer.next().expect("a link");
        let marker = next.strip_prefix(&format!("/v2/queues/q1/messages?{front}"));
        assert!(marker.is_some_and(|marker| !marker.is_empty()), "{next}");
    }
}

#[tokio::test]
async fn a_new_marker_takes_the_place_of_the_one_that_the_client_sent() {
    let app = App::new();
    app.post_bodies("q1", [json!(1), json!(2), json!(3)]).await;
    let first = app.get("/v2/queues/q1/messages?echo=true&limit=1").await;
    let second = app.get(&first.next().expect("a link")).await;
    let next = second.next().expect("a link");
    let rest = next.strip_prefix("/v2/queues/q1/messages?marker=");
    let (_, rest) = rest
        .and_then(|rest| rest.split_once('&'))
        .expect("a marker in front");
    assert_eq!(rest, "limit=1&echo=true&include_delayed=true");
}

#[tokio::test]
async fn a_query_may_be_percent_encoded_anywhere() {
    let app = app_with_queues().await;
    assert_eq!(names(&app.get("/v2/queues?%6c%69mit=%33").await), 3);
    let answer = app.get("/v2/queues?m%61rker=q%305&limit=1").await;
    assert_eq!(answer.json()["queues"][0]["name"], "q06");
}

#[tokio::test]
async fn odd_bytes_in_a_query_harm_nobody() {
    let app = App::new();
    for query in [
        "%",
        "%zz=1",
        "limit=%31%",
        "a=%ff%fe",
        "%00=%00",
        "marker=%FF",
        "[]=1;&a",
    ] {
        let answer = app.get(&format!("/v2/queues?{query}")).await;
        assert!(
            [200, 400].contains(&answer.status),
            "{query}: {}",
            answer.status
        );
    }
}
