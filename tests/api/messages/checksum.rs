//! Checksums (spec: messages.md 9).

use serde_json::json;

use super::{CLAIMS, MESSAGES, claim_id, each, post, post_bodies, reader};
use crate::api::store::Kept;
use crate::api::support::App;

const ON: &str = "[messages]\nchecksums = true\n";
const PLAIN: &str = "MD5:a73442f033abd3c787518065af0eb10e";

#[tokio::test]
async fn the_checksum_is_that_of_the_body_as_python_writes_it() {
    let app = App::with(ON);
    for (body, checksum) in [
        (
            r#"{"b": 1, "a": "é"}"#,
            "MD5:b9622a81c98224c56eb3afdd8f51b202",
        ),
        (
            r#"{"b":1,  "a":"\u00E9"}"#,
            "MD5:b9622a81c98224c56eb3afdd8f51b202",
        ),
        (r#""plain""#, PLAIN),
        ("[1, 2.50]", "MD5:9e8fb4c5836978cf8e0e368cf0837a0a"),
        ("[1,2.5]", "MD5:9e8fb4c5836978cf8e0e368cf0837a0a"),
    ] {
        let text = format!(r#"{{"messages": [{{"body": {body}}}]}}"#);
        let answer = app.post(MESSAGES, text).await;
        let document = answer.json();
        let path = document["resources"][0].as_str().unwrap();
        let message = app.get(path).await.json();
        assert_eq!(message["checksum"], checksum, "{body}");
    }
}

#[tokio::test]
async fn a_null_body_has_no_checksum() {
    let app = App::with(ON);
    let id = &post(&app, json!([{"body": null}])).await[0];
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &super::message(id, 3600, 0, "null"));
}

#[tokio::test]
async fn there_is_no_checksum_unless_the_service_stores_it() {
    let app = App::new();
    let id = &post_bodies(&app, ["plain"]).await[0];
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &super::message(id, 3600, 0, "\"plain\""));
}

#[tokio::test]
async fn a_checksum_is_shown_wherever_its_message_is() {
    let app = App::with(ON);
    let id = &post_bodies(&app, ["plain"]).await[0];
    // It is the last key of a message.
    let with_checksum = |message: String| {
        format!(
            "{}, \"checksum\": \"{PLAIN}\"}}",
            &message[..message.len() - 1]
        )
    };
    let free = with_checksum(super::message(id, 3600, 0, "\"plain\""));
    app.get(&format!("{MESSAGES}/{id}"))
        .await
        .assert_is(200, &free);
    app.get(&format!("{MESSAGES}?ids={id}"))
        .await
        .assert_is(200, &format!("{{\"messages\": [{free}]}}"));
    let listed = reader(&app).get(MESSAGES).await;
    let expected = format!("{{\"messages\": [{free}], \"links\": ");
    assert!(listed.text().starts_with(&expected), "{}", listed.text());

    let claimed = app.post(CLAIMS, ()).await;
    let claim = claim_id(&claimed);
    let held = with_checksum(super::held_message(id, &claim, 3600, 0, "\"plain\""));
    claimed.assert_is(201, &format!("{{\"messages\": [{held}]}}"));
    let path = format!("{CLAIMS}/{claim}");
    let expected =
        format!("{{\"age\": 0, \"ttl\": 300, \"messages\": [{held}], \"href\": \"{path}\"}}");
    app.get(&path).await.assert_is(200, &expected);

    app.delete(&path).await.assert_status(204);
    let popped = app.delete(&format!("{MESSAGES}?pop=1")).await;
    let claim = each(&popped, "claim_id")[0].as_str().unwrap().to_owned();
    popped.assert_is(
        200,
        &format!(
            "{{\"messages\": [{{\"id\": \"{id}\", \"age\": 0, \"ttl\": 3600, \"body\": \"plain\", \
             \"claim_id\": \"{claim}\", \"claim_count\": 0, \"checksum\": \"{PLAIN}\"}}]}}"
        ),
    );
}

#[tokio::test]
async fn a_stored_checksum_is_shown_after_they_are_turned_off() {
    let place = Kept::new();
    let before = {
        let app = App::open(&place.uri, "");
        post_bodies(&app, ["before"]).await.remove(0)
    };
    let during = {
        let app = App::open(&place.uri, ON);
        app.get(&format!("{MESSAGES}/{before}"))
            .await
            .assert_is(200, &super::message(&before, 3600, 0, "\"before\""));
        post_bodies(&app, ["plain"]).await.remove(0)
    };
    let app = App::open(&place.uri, "");
    let message = app.get(&format!("{MESSAGES}/{during}")).await.json();
    assert_eq!(message["checksum"], PLAIN);
}
