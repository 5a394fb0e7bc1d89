//! Listing: which messages are shown, and how (spec: messages.md 1 and 3).

use serde_json::json;

use super::{
    INVALID_PARAMETER, INVALID_REQUEST, MESSAGES, PAGE_LIMIT, bodies, claim, create, each,
    held_message, listed, message, post, post_bodies, queues, reader, refused,
};
use crate::api::support::{App, CLIENT, OTHER_CLIENT};

const EMPTY: &str = r#"{"messages": [], "links": []}"#;

#[tokio::test]
async fn a_listing_is_the_messages_and_the_link_to_the_next_page() {
    let app = App::new();
    let body = json!([{"ttl": 300, "body": {"event": "BackupStarted"}}, {"body": 2}]);
    let id = &post(&app, body).await[0];
    let answer = app.get(&format!("{MESSAGES}?echo=true&limit=1")).await;
    let link = answer.next().expect("a link");
    let message = message(id, 300, 0, r#"{"event":"BackupStarted"}"#);
    answer.assert_is(
        200,
        &format!(
            "{{\"messages\": [{message}], \"links\": [{{\"rel\": \"next\", \"href\": \"{link}\"}}]}}"
        ),
    );
    let (before, marker) = link.rsplit_once('=').expect("a marker");
    assert_eq!(
        before,
        "/v2/queues/fizbat/messages?limit=1&echo=true&include_delayed=true&marker"
    );
    assert!(!marker.is_empty());
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_age_of_a_message_is_in_whole_seconds() {
    let app = App::new();
    let first = post_bodies(&app, [1]).await.remove(0);
    app.advance(7);
    let second = post_bodies(&app, [2]).await.remove(0);
    app.advance(35);
    let answer = reader(&app).get(MESSAGES).await;
    let (first, second) = (
        message(&first, 3600, 42, "1"),
        message(&second, 3600, 35, "2"),
    );
    let expected = format!("{{\"messages\": [{first}, {second}], \"links\": ");
    assert!(answer.text().starts_with(&expected), "{}", answer.text());
}

#[tokio::test]
async fn a_queue_without_messages_lists_nothing() {
    let app = App::new();
    reader(&app).get(MESSAGES).await.assert_is(200, EMPTY);
    // A listing creates no queue.
    assert_eq!(queues(&app).await, [""; 0]);
    create(&app, json!({})).await;
    let answer = reader(&app).get(MESSAGES).await;
    answer.assert_is(200, EMPTY);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_client_does_not_see_its_own_messages() {
    let app = App::new();
    post_bodies(&app, ["own"]).await;
    post_bodies(&reader(&app), ["other's"]).await;
    assert_eq!(bodies(&app.get(MESSAGES).await), json!(["other's"]));
    let answer = app.get(&format!("{MESSAGES}?echo=false")).await;
    assert_eq!(bodies(&answer), json!(["other's"]));
    assert_eq!(bodies(&reader(&app).get(MESSAGES).await), json!(["own"]));
}

#[tokio::test]
async fn a_client_sees_its_own_messages_with_echo() {
    let app = App::new();
    post_bodies(&app, ["own"]).await;
    post_bodies(&reader(&app), ["other's"]).await;
    let answer = app.get(&format!("{MESSAGES}?echo=true")).await;
    assert_eq!(bodies(&answer), json!(["own", "other's"]));
}

#[tokio::test]
async fn a_client_is_the_same_in_every_spelling_of_its_id() {
    let app = App::new();
    post_bodies(&app, ["own"]).await;
    for spelling in [
        CLIENT.to_uppercase(),
        CLIENT.replace('-', ""),
        format!("{{{CLIENT}}}"),
        format!("urn:uuid:{CLIENT}"),
    ] {
        app.client(&spelling)
            .get(MESSAGES)
            .await
            .assert_is(200, EMPTY);
    }
}

#[tokio::test]
async fn clients_with_ids_of_any_text_are_told_apart() {
    // Q-MSG-11
    let app = App::with("[access]\nclient_id = \"off\"\n").client("worker-number-1");
    post_bodies(&app, ["first"]).await;
    app.get(MESSAGES).await.assert_is(200, EMPTY);
    let other = app.client("worker-number-2");
    assert_eq!(bodies(&other.get(MESSAGES).await), json!(["first"]));
}

#[tokio::test]
async fn claimed_messages_are_listed_only_when_asked_for() {
    let app = App::new();
    let ids = post_bodies(&app, [1, 2]).await;
    let claim = claim(&app, 1).await;
    assert_eq!(listed(&app).await, json!([2]));
    let answer = reader(&app)
        .get(&format!("{MESSAGES}?include_claimed=false"))
        .await;
    assert_eq!(bodies(&answer), json!([2]));

    // Q-MSG-1: without a marker, too.
    let answer = reader(&app)
        .get(&format!("{MESSAGES}?include_claimed=true"))
        .await;
    let (first, second) = (
        held_message(&ids[0], &claim, 3600, 0, "1"),
        message(&ids[1], 3600, 0, "2"),
    );
    let link = answer.next().expect("a link");
    answer.assert_is(
        200,
        &format!(
            "{{\"messages\": [{first}, {second}], \"links\": [{{\"rel\": \"next\", \"href\": \"{link}\"}}]}}"
        ),
    );
}

#[tokio::test]
async fn a_message_whose_claim_has_ended_is_listed_as_free() {
    let app = App::new();
    let ids = post_bodies(&app, [1]).await;
    claim(&app, 1).await;
    app.advance(300);
    let answer = reader(&app).get(MESSAGES).await;
    let free = message(&ids[0], 3600, 300, "1");
    assert!(answer.text().contains(&free), "{}", answer.text());
}

#[tokio::test]
async fn a_page_is_filled_past_what_it_leaves_out() {
    // Q-MSG-4: own, claimed and delayed messages in front.
    let app = App::new();
    create(&app, json!({"_default_message_delay": 900})).await;
    let delayed: Vec<_> = (0..15)
        .map(|_| json!({"body": "delayed", "ttl": 3600}))
        .collect();
    post(&reader(&app), json!(delayed)).await;
    let at_once = |body: &str, count| {
        let message = json!({"body": body, "delay": 0, "ttl": 3600});
        json!(vec![message; count])
    };
    post(&reader(&app), at_once("claimed", 15)).await;
    claim(&app, 15).await;
    post(&app, at_once("own", 15)).await;
    post(&reader(&app), at_once("wanted", 2)).await;
    let answer = app.get(&format!("{MESSAGES}?limit=2")).await;
    assert_eq!(bodies(&answer), json!(["wanted", "wanted"]));
}

#[tokio::test]
async fn a_page_holds_as_many_messages_as_its_limit() {
    let app = App::new();
    post_bodies(&app, 0..25).await;
    for (query, count) in [
        ("", 10),
        ("?limit=", 10),
        ("?limit", 10),
        ("?limit=1", 1),
        ("?limit=20", 20),
        ("?limit=%2B5", 5),
        ("?limit=+5+", 5),
        ("?limit=1_1", 11),
        ("?limit=1,2", 2),
        ("?limit=1&limit=3", 3),
    ] {
        let answer = reader(&app).get(&format!("{MESSAGES}{query}")).await;
        assert_eq!(
            bodies(&answer),
            json!((0..count).collect::<Vec<_>>()),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_limit_out_of_bounds_is_refused() {
    let app = App::new();
    for limit in ["0", "21", "-1", "99999999999999999999"] {
        let answer = app.get(&format!("{MESSAGES}?limit={limit}")).await;
        refused(limit, &answer, 400, INVALID_REQUEST, PAGE_LIMIT);
    }
}

#[tokio::test]
async fn a_limit_that_is_no_integer_is_refused() {
    let app = App::new();
    for limit in ["x", "1.0", "0x1", "1__0", "ten"] {
        let answer = app.get(&format!("{MESSAGES}?limit={limit}")).await;
        let description = r#"The "limit" parameter is invalid. The value must be an integer."#;
        refused(limit, &answer, 400, INVALID_PARAMETER, description);
    }
}

#[tokio::test]
async fn the_largest_limit_can_be_configured() {
    let app = App::with("[limits]\nmax_messages_per_page = 30\n");
    post_bodies(&app, 0..35).await;
    let answer = reader(&app).get(&format!("{MESSAGES}?limit=30")).await;
    assert_eq!(bodies(&answer), json!((0..30).collect::<Vec<_>>()));
    let description = "Limit must be at least 1 and may not be greater than 30.";
    let answer = app.get(&format!("{MESSAGES}?limit=31")).await;
    answer.assert_refused(400, INVALID_REQUEST, description);
}

#[tokio::test]
async fn booleans_have_many_spellings() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    for (spellings, seen) in [
        (["true", "True", "t", "yes", "y", "1", "on"], json!([1])),
        (["false", "False", "f", "no", "n", "0", "off"], json!([])),
    ] {
        for spelling in spellings {
            let answer = app.get(&format!("{MESSAGES}?echo={spelling}")).await;
            assert_eq!(bodies(&answer), seen, "{spelling}");
        }
    }
}

#[tokio::test]
async fn what_is_no_boolean_is_refused() {
    let app = App::new();
    for name in ["echo", "include_claimed", "include_delayed"] {
        for value in ["TRUE", "2", "maybe", "truee"] {
            let case = format!("{name}={value}");
            let answer = app.get(&format!("{MESSAGES}?{case}")).await;
            let description = format!(
                "The \"{name}\" parameter is invalid. The value of the parameter must be \"true\" or \"false\"."
            );
            refused(&case, &answer, 400, INVALID_PARAMETER, &description);
        }
    }
}

#[tokio::test]
async fn unknown_and_blank_parameters_are_ignored() {
    let app = App::new();
    post_bodies(&app, [1]).await;
    let query = "pop=5&claim_id=x&echo=&include_claimed=&marker=&colour=red";
    let answer = reader(&app).get(&format!("{MESSAGES}?{query}")).await;
    assert_eq!(bodies(&answer), json!([1]));
    let next = answer.next().expect("a link");
    assert!(
        next.starts_with("/v2/queues/fizbat/messages?include_delayed=true&marker="),
        "{next}"
    );
}

#[tokio::test]
async fn a_queue_with_a_dot_has_its_whole_name_in_every_path() {
    let app = App::new();
    app.post_bodies("a.b-c_d", [json!(1)]).await;
    let answer = app
        .client(OTHER_CLIENT)
        .get("/v2/queues/a.b-c_d/messages")
        .await;
    let href = &each(&answer, "href")[0];
    let prefix = "/v2/queues/a.b-c_d/messages";
    assert!(href.as_str().unwrap().starts_with(&format!("{prefix}/")));
    assert!(answer.next().unwrap().starts_with(&format!("{prefix}?")));
}
