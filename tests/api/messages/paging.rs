//! Paging: links and markers (spec: messages.md 3, http.md 5).

use serde_json::{Value, json};

use super::{MESSAGES, bodies, claim, create, each, post, post_bodies, queues, reader};
use crate::api::support::{Answer, App};

const EMPTY: &str = r#"{"messages": [], "links": []}"#;

/// Follows the link of a page.
async fn next(app: &App, page: &Answer) -> Answer {
    app.get(&page.next().expect("a link")).await
}

#[tokio::test]
async fn pages_follow_each_other_to_the_end() {
    let app = App::new();
    post_bodies(&app, 0..25).await;
    let reader = reader(&app);
    let first = reader.get(MESSAGES).await;
    let second = next(&reader, &first).await;
    let third = next(&reader, &second).await;
    for (page, expected) in [(&first, 0..10), (&second, 10..20), (&third, 20..25)] {
        assert_eq!(bodies(page), json!(expected.collect::<Vec<_>>()));
    }
    // Q-HTTP-9: the last page has a link, the empty one after it has none.
    next(&reader, &third).await.assert_is(200, EMPTY);
}

#[tokio::test]
async fn the_link_of_the_last_page_finds_what_is_posted_later() {
    let app = App::new();
    post_bodies(&app, [1, 2]).await;
    let reader = reader(&app);
    let last = reader.get(MESSAGES).await;
    next(&reader, &last).await.assert_is(200, EMPTY);
    post_bodies(&app, [3]).await;
    assert_eq!(bodies(&next(&reader, &last).await), json!([3]));
}

#[tokio::test]
async fn the_first_message_is_a_marker_like_any_other() {
    // Q-MSG-3
    let app = App::new();
    post_bodies(&app, 1..=3).await;
    let reader = reader(&app);
    let mut page = reader.get(&format!("{MESSAGES}?limit=1")).await;
    for body in 1..=3 {
        assert_eq!(bodies(&page), json!([body]));
        page = next(&reader, &page).await;
    }
    page.assert_is(200, EMPTY);
}

#[tokio::test]
async fn a_link_repeats_what_the_client_sent_in_a_fixed_order() {
    for (delay, query, expected) in [
        // Q-MSG-7: a queue that does not delay adds a parameter.
        (0, "", "include_delayed=true&marker="),
        (0, "?limit=5", "limit=5&include_delayed=true&marker="),
        (0, "?include_delayed=false", "include_delayed=true&marker="),
        (
            0,
            "?include_delayed=yes&include_claimed=1&echo=True&limit=+5",
            "limit=5&echo=true&include_claimed=true&include_delayed=true&marker=",
        ),
        (
            0,
            "?include_claimed=no&echo=off",
            "echo=false&include_claimed=false&include_delayed=true&marker=",
        ),
        (60, "", "marker="),
        (60, "?limit=7", "limit=7&marker="),
        (60, "?include_delayed=off", "include_delayed=false&marker="),
        (
            60,
            "?echo=0&include_delayed=t",
            "echo=false&include_delayed=true&marker=",
        ),
    ] {
        let app = App::new();
        create(&app, json!({"_default_message_delay": delay})).await;
        post(&app, json!([{"body": 1, "delay": 0}])).await;
        let page = reader(&app).get(&format!("{MESSAGES}{query}")).await;
        let link = page.next().expect("a link");
        let (before, marker) = link.rsplit_once("marker=").expect("a marker");
        assert_eq!(
            format!("{before}marker="),
            format!("{MESSAGES}?{expected}"),
            "{query}"
        );
        assert!(!marker.is_empty() && !marker.contains('&'), "{link}");
    }
}

#[tokio::test]
async fn the_marker_stands_first_once_the_client_has_sent_one() {
    let app = App::new();
    post_bodies(&app, 0..3).await;
    let reader = reader(&app);
    let first = reader.get(&format!("{MESSAGES}?limit=1")).await;
    let second = next(&reader, &first).await;
    let third = next(&reader, &second).await;
    for page in [&second, &third] {
        let link = page.next().expect("a link");
        let rest = link
            .strip_prefix("/v2/queues/fizbat/messages?marker=")
            .expect("the marker in front");
        let (marker, rest) = rest.split_once('&').expect("more parameters");
        assert!(!marker.is_empty());
        assert_eq!(rest, "limit=1&include_delayed=true");
    }
}

#[tokio::test]
async fn deleting_messages_does_not_disturb_paging() {
    // Q-MSG-2: the last of the first page, the first of the next one, all before.
    let app = App::new();
    let ids = post_bodies(&app, 0..10).await;
    let reader = reader(&app);
    let page = reader.get(&format!("{MESSAGES}?limit=4")).await;
    for id in &ids[..5] {
        app.delete(&format!("{MESSAGES}/{id}"))
            .await
            .assert_status(204);
    }
    assert_eq!(bodies(&next(&reader, &page).await), json!([5, 6, 7, 8]));
}

#[tokio::test]
async fn expired_messages_do_not_disturb_paging() {
    let app = App::new();
    let messages: Vec<Value> = (0..3)
        .map(|body| json!({"body": body, "ttl": 60}))
        .collect();
    post(&app, json!(messages)).await;
    post_bodies(&app, 3..6).await;
    let reader = reader(&app);
    let page = reader.get(&format!("{MESSAGES}?limit=3")).await;
    app.advance(60);
    assert_eq!(bodies(&next(&reader, &page).await), json!([3, 4, 5]));
}

#[tokio::test]
async fn claimed_messages_do_not_disturb_paging() {
    let app = App::new();
    post_bodies(&app, 0..6).await;
    let reader = reader(&app);
    let page = reader.get(&format!("{MESSAGES}?limit=3")).await;
    claim(&app, 4).await;
    assert_eq!(bodies(&next(&reader, &page).await), json!([4, 5]));
}

#[tokio::test]
async fn the_id_of_a_message_can_be_the_marker() {
    let app = App::new();
    let ids = post_bodies(&app, 0..6).await;
    let reader = reader(&app);
    for (at, id) in ids.iter().enumerate() {
        let path = format!("{MESSAGES}?limit=2&marker={id}");
        let expected: Vec<usize> = (at + 1..6).take(2).collect();
        assert_eq!(bodies(&reader.get(&path).await), json!(expected));
    }
}

#[tokio::test]
async fn the_id_of_a_deleted_message_can_be_the_marker() {
    let app = App::new();
    let ids = post_bodies(&app, 0..6).await;
    app.delete(&format!("{MESSAGES}/{}", ids[2]))
        .await
        .assert_status(204);
    let path = format!("{MESSAGES}?marker={}", ids[2]);
    assert_eq!(bodies(&reader(&app).get(&path).await), json!([3, 4, 5]));
}

#[tokio::test]
async fn paging_by_id_comes_to_an_end_while_messages_are_deleted() {
    // As openstacksdk pages: by the id of the last message, until a page is empty.
    let app = App::new();
    post_bodies(&app, 0..10).await;
    let reader = reader(&app);
    let (mut seen, mut marker) = (Vec::new(), String::new());
    loop {
        let page = reader
            .get(&format!("{MESSAGES}?limit=3&marker={marker}"))
            .await;
        let (ids, found) = (each(&page, "id"), bodies(&page));
        let Some(last) = ids.as_array().and_then(|ids| ids.last()) else {
            break;
        };
        marker = last.as_str().unwrap().to_owned();
        seen.extend(found.as_array().unwrap().clone());
        app.delete(&format!("{MESSAGES}/{marker}"))
            .await
            .assert_status(204);
    }
    assert_eq!(json!(seen), json!((0..10).collect::<Vec<_>>()));
}

#[tokio::test]
async fn a_marker_that_is_not_understood_gives_an_empty_page() {
    let app = App::new();
    let ids = post_bodies(&app, [1]).await;
    for marker in [
        "nonsense",
        "-1",
        "1.5",
        "99999999999999999999999999",
        "%20",
        "%C3%A9",
        &ids[0].to_uppercase(),
        &ids[0].replace('-', ""),
    ] {
        let answer = reader(&app)
            .get(&format!("{MESSAGES}?marker={marker}"))
            .await;
        assert_eq!((marker, answer.status, answer.text()), (marker, 200, EMPTY));
    }
}

#[tokio::test]
async fn a_marker_of_another_queue_shows_nothing_of_that_queue() {
    let app = App::new();
    let theirs = app.post_bodies("other", [json!("other's")]).await;
    post_bodies(&app, ["own"]).await;
    let page = reader(&app).get("/v2/queues/other/messages").await;
    let link = page.next().expect("a link");
    let (_, marker) = link.rsplit_once('=').expect("a marker");
    for marker in [marker, &theirs[0]] {
        let answer = reader(&app)
            .get(&format!("{MESSAGES}?marker={marker}"))
            .await;
        answer.assert_status(200);
        assert!(!answer.text().contains("other's"), "{}", answer.text());
    }
    assert_eq!(queues(&app).await, ["fizbat", "other"]);
}
