//! Posting: what is refused, with which words, and that nothing of it stays (spec: messages.md 2, http.md 4).

use serde_json::{Value, json};

use super::{
    INVALID_BODY, INVALID_REQUEST, MESSAGES, UNPARSABLE, UNSUPPORTED, create, listed, post_bodies,
    queues, refused,
};
use crate::api::support::App;

/// Posts each text, and has it refused with the same words.
async fn all_refused(app: &App, texts: &[&str], title: &str, description: &str) {
    for text in texts {
        let answer = app.post(MESSAGES, *text).await;
        refused(text, &answer, 400, title, description);
    }
}

#[tokio::test]
async fn a_post_without_a_body_is_refused() {
    let app = App::new();
    let answer = app.post(MESSAGES, ()).await;
    answer.assert_refused(400, INVALID_BODY, "Request body can not be empty");
}

#[tokio::test]
async fn what_is_not_a_json_document_is_refused() {
    let app = App::new();
    let texts = [
        "",
        " ",
        "nonsense",
        "{",
        r#"{"messages": [{"body": 1}]"#,
        r#"{"messages": [{"body": 1},]}"#,
        r#"{"messages": [{"body": 1}]} x"#,
        r#"{"messages": [{"body": 1}]}{}"#,
        r#"{'messages': [{'body': 1}]}"#,
        r#"{"messages": [{"body": "\x"}]}"#,
        "{\"messages\": [{\"body\": \"\n\"}]}",
        r#"{"messages": [{"body": 01}]}"#,
        r#""text""#,
        "5",
        "true",
        "null",
        "\u{feff}{\"messages\": [{\"body\": 1}]}",
    ];
    all_refused(&app, &texts, INVALID_BODY, UNPARSABLE).await;
}

#[tokio::test]
async fn a_post_that_is_not_utf_8_is_refused() {
    let app = App::new();
    let utf_16: Vec<u8> =
        r#"{"messages": [{"body": 1}]}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin_1 = b"{\"messages\": [{\"body\": \"\xe9\"}]}".to_vec();
    for bytes in [utf_16, latin_1] {
        let answer = app.post(MESSAGES, bytes).await;
        answer.assert_refused(400, INVALID_BODY, UNPARSABLE);
    }
}

#[tokio::test]
async fn numbers_that_json_does_not_have_are_refused() {
    // Q-HTTP-3
    let app = App::new();
    for number in ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"] {
        let text = format!(r#"{{"messages": [{{"body": [{number}]}}]}}"#);
        all_refused(&app, &[&text], INVALID_BODY, UNPARSABLE).await;
    }
}

#[tokio::test]
async fn integers_beyond_64_bits_are_refused_wherever_they_stand() {
    let app = App::new();
    let texts = [
        r#"{"messages": [{"body": 9223372036854775808}]}"#,
        r#"{"messages": [{"body": {"deep": [-9223372036854775809]}}]}"#,
        r#"{"messages": [{"body": 1, "ttl": 99999999999999999999}]}"#,
        r#"{"messages": [{"body": 1}], "other": 18446744073709551616}"#,
    ];
    let description = "JSON contains integer that is too large.";
    all_refused(&app, &texts, INVALID_BODY, description).await;
}

#[tokio::test]
async fn half_a_character_is_refused() {
    // Q-HTTP-2
    let app = App::new();
    let texts = [
        r#"{"messages": [{"body": "\ud800"}]}"#,
        r#"{"messages": [{"body": {"\udc00": 1}}]}"#,
        r#"{"messages": [{"body": "\ud800\ud800"}]}"#,
    ];
    all_refused(&app, &texts, INVALID_BODY, UNPARSABLE).await;
}

#[tokio::test]
async fn nesting_without_end_is_refused() {
    // Q-HTTP-2
    let app = App::new();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"messages": [{{"body": {deep}}}]}}"#);
    let answer = app.post(MESSAGES, text).await;
    answer.assert_refused(400, INVALID_BODY, UNPARSABLE);
}

#[tokio::test]
async fn a_document_without_messages_is_refused() {
    let app = App::new();
    let texts = [
        "{}",
        r#"{"message": [{"body": 1}]}"#,
        r#"{"Messages": [{"body": 1}]}"#,
        "[]",
        r#"[{"ttl": 60, "body": 1}]"#,
    ];
    let description = "No messages were found in the request body.";
    all_refused(&app, &texts, INVALID_REQUEST, description).await;
}

#[tokio::test]
async fn an_array_that_names_messages_is_no_document() {
    // Q-HTTP-2
    let app = App::new();
    all_refused(&app, &[r#"["messages"]"#], INVALID_BODY, UNSUPPORTED).await;
}

#[tokio::test]
async fn messages_that_are_no_array_are_refused() {
    let app = App::new();
    let texts = [
        r#"{"messages": {"body": 1}}"#,
        r#"{"messages": "text"}"#,
        r#"{"messages": 5}"#,
        r#"{"messages": true}"#,
        r#"{"messages": null}"#,
    ];
    all_refused(&app, &texts, INVALID_BODY, UNSUPPORTED).await;
}

#[tokio::test]
async fn no_messages_at_all_are_refused() {
    let app = App::new();
    let description = "No messages to enqueu.";
    let texts = [r#"{"messages": []}"#];
    all_refused(&app, &texts, INVALID_REQUEST, description).await;
}

#[tokio::test]
async fn a_message_that_is_no_object_is_refused() {
    // Q-HTTP-2
    let app = App::new();
    let texts = [
        r#"{"messages": ["text"]}"#,
        r#"{"messages": [5]}"#,
        r#"{"messages": [null]}"#,
        r#"{"messages": [["body"]]}"#,
        r#"{"messages": [{"body": 1}, 2]}"#,
    ];
    all_refused(&app, &texts, INVALID_BODY, UNSUPPORTED).await;
}

#[tokio::test]
async fn an_array_is_no_object_whatever_its_elements_are() {
    let app = App::new();
    let texts = [
        r#"{"messages": [[60, 0, "body"]]}"#,
        r#"{"messages": [[null, null, "body"]]}"#,
    ];
    all_refused(&app, &texts, INVALID_BODY, UNSUPPORTED).await;
    let texts = [r#"[[{"ttl": 60, "body": 1}]]"#, r#"[[[60, 0, "body"]]]"#];
    let description = "No messages were found in the request body.";
    all_refused(&app, &texts, INVALID_REQUEST, description).await;
}

#[tokio::test]
async fn a_message_without_a_body_is_refused() {
    let app = App::new();
    let texts = [
        r#"{"messages": [{}]}"#,
        r#"{"messages": [{"ttl": 60}]}"#,
        r#"{"messages": [{"body": 1}, {"Body": 1}]}"#,
    ];
    let description = r#"Missing "body" field."#;
    all_refused(&app, &texts, INVALID_BODY, description).await;
}

/// What is not an integer.
fn no_integers() -> [Value; 7] {
    [
        json!("60"),
        json!(60.0),
        json!(60.5),
        json!(true),
        Value::Null,
        json!([60]),
        json!({}),
    ]
}

#[tokio::test]
async fn a_ttl_that_is_no_integer_is_refused() {
    let app = App::new();
    for ttl in no_integers() {
        let text = json!({"messages": [{"body": 1}, {"body": 2, "ttl": ttl}]}).to_string();
        let description = r#"The value of the "ttl" field must be a int."#;
        all_refused(&app, &[&text], INVALID_BODY, description).await;
    }
}

#[tokio::test]
async fn a_ttl_out_of_bounds_is_refused() {
    let app = App::new();
    for ttl in [59, 0, -60, 1_209_601, i64::MAX, i64::MIN] {
        let text = json!({"messages": [{"body": 1}, {"body": 2, "ttl": ttl}]}).to_string();
        let description = "The TTL for a message may not exceed 1209600 seconds, and must be at least 60 seconds long.";
        all_refused(&app, &[&text], INVALID_REQUEST, description).await;
    }
}

#[tokio::test]
async fn the_longest_ttl_can_be_configured() {
    let app = App::with("[limits]\nmax_message_ttl = 7200\n");
    let post = |ttl: i64| json!({"messages": [{"body": 1, "ttl": ttl}]}).to_string();
    app.post(MESSAGES, post(7200)).await.assert_status(201);
    let description =
        "The TTL for a message may not exceed 7200 seconds, and must be at least 60 seconds long.";
    all_refused(&app, &[&post(7201)], INVALID_REQUEST, description).await;
}

#[tokio::test]
async fn a_delay_that_is_no_integer_is_refused_in_a_queue_that_delays() {
    let app = App::new();
    create(&app, json!({"_default_message_delay": 10})).await;
    for delay in no_integers() {
        let text = json!({"messages": [{"body": 1, "delay": delay}]}).to_string();
        let description = r#"The value of the "delay" field must be a int."#;
        all_refused(&app, &[&text], INVALID_BODY, description).await;
    }
}

#[tokio::test]
async fn a_delay_out_of_bounds_is_refused_in_a_queue_that_delays() {
    let app = App::new();
    create(&app, json!({"_default_message_delay": 10})).await;
    for delay in [-1, 901, i64::MAX, i64::MIN] {
        let text = json!({"messages": [{"body": 1, "delay": delay}]}).to_string();
        let description = "The Delay TTL for a message may not exceed 900 seconds,and must be at least 0 seconds long.";
        all_refused(&app, &[&text], INVALID_REQUEST, description).await;
    }
}

#[tokio::test]
async fn a_refused_post_leaves_nothing_behind() {
    let app = App::new();
    let texts = [
        "{",
        "{}",
        r#"{"messages": [{"body": 1}, {"body": 2}, {"ttl": 60}]}"#,
        r#"{"messages": [{"body": 1}, {"body": 2, "ttl": 59}]}"#,
    ];
    for text in texts {
        app.post(MESSAGES, text).await.assert_status(400);
    }
    // Q-QUE-10: not even a queue.
    assert_eq!(queues(&app).await, [""; 0]);

    post_bodies(&app, ["before"]).await;
    for text in texts {
        app.post(MESSAGES, text).await.assert_status(400);
    }
    assert_eq!(listed(&app).await, json!(["before"]));
}
