//! Messages (spec: messages.md), a file a topic; and the words that tests of messages and claims share.

mod checksum;
mod delay;
mod delete;
mod delete_several;
mod expiry;
mod get;
mod headers;
mod isolation;
mod list;
mod paging;
mod pop;
mod post;
mod post_refused;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::support::{Answer, App, OTHER_CLIENT};

/// The queue of most tests.
pub(crate) const QUEUE: &str = "/v2/queues/fizbat";
/// Its messages.
pub(crate) const MESSAGES: &str = "/v2/queues/fizbat/messages";
/// Its claims.
pub(crate) const CLAIMS: &str = "/v2/queues/fizbat/claims";

pub(crate) const INVALID_BODY: &str = "Invalid request body";
pub(crate) const INVALID_REQUEST: &str = "Invalid API request";
pub(crate) const INVALID_PARAMETER: &str = "Invalid parameter";
pub(crate) const UNPARSABLE: &str = "Request body could not be parsed.";
pub(crate) const UNSUPPORTED: &str = "Document type not supported.";
pub(crate) const PAGE_LIMIT: &str = "Limit must be at least 1 and may not be greater than 20.";

/// Posts messages to the queue and returns their ids.
pub(crate) async fn post(app: &App, messages: Value) -> Vec<String> {
    let answer = app.post(MESSAGES, json!({"messages": messages})).await;
    answer.assert_status(201);
    let document = answer.json();
    let resources = document["resources"].as_array().expect("resources");
    resources.iter().map(last_segment).collect()
}

fn last_segment(href: &Value) -> String {
    let href = href.as_str().expect("a path");
    href.rsplit('/').next().expect("a segment").to_owned()
}

/// Posts messages with these bodies, to live for an hour, and returns their ids.
pub(crate) async fn post_bodies(
    app: &App,
    bodies: impl IntoIterator<Item = impl Into<Value>>,
) -> Vec<String> {
    let bodies = bodies.into_iter().map(Into::into);
    app.post_bodies("fizbat", bodies.collect::<Vec<Value>>())
        .await
}

/// The queue as another client sees it, who lists what this one posted.
pub(crate) fn reader(app: &App) -> App {
    app.client(OTHER_CLIENT)
}

/// One field of each message of a document, in order.
pub(crate) fn each(answer: &Answer, field: &str) -> Value {
    let document = answer.json();
    let messages = document["messages"].as_array().expect("messages");
    messages
        .iter()
        .map(|message| message[field].clone())
        .collect()
}

/// The bodies of a document's messages, in order.
pub(crate) fn bodies(answer: &Answer) -> Value {
    each(answer, "body")
}

/// What another client can list in one page.
pub(crate) async fn listed(app: &App) -> Value {
    bodies(&reader(app).get(&format!("{MESSAGES}?limit=20")).await)
}

/// A message of the queue as a document has it.
pub(crate) fn message(id: &str, ttl: u64, age: u64, body: &str) -> String {
    format!(
        "{{\"id\": \"{id}\", \"href\": \"{MESSAGES}/{id}\", \"ttl\": {ttl}, \"age\": {age}, \"body\": {body}}}"
    )
}

/// The same while a claim holds it.
pub(crate) fn held_message(id: &str, claim: &str, ttl: u64, age: u64, body: &str) -> String {
    format!(
        "{{\"id\": \"{id}\", \"href\": \"{MESSAGES}/{id}?claim_id={claim}\", \"ttl\": {ttl}, \"age\": {age}, \
         \"body\": {body}}}"
    )
}

/// The id of a claim that was created.
#[track_caller]
pub(crate) fn claim_id(answer: &Answer) -> String {
    answer.assert_status(201);
    let location = answer.header("location").expect("a location");
    location.rsplit('/').next().expect("a segment").to_owned()
}

/// Claims up to so many messages for five minutes, with a minute's grace, and returns the claim's id.
pub(crate) async fn claim(app: &App, limit: usize) -> String {
    let path = format!("{CLAIMS}?limit={limit}");
    claim_id(&app.post(&path, ()).await)
}

/// An id that names nothing.
pub(crate) fn unknown_id() -> String {
    Uuid::new_v4().to_string()
}

/// How many messages are claimed, free, and there at all.
pub(crate) async fn counts(app: &App, queue: &str) -> [u64; 3] {
    let answer = app.get(&format!("/v2/queues/{queue}/stats")).await;
    answer.assert_status(200);
    let document = answer.json();
    ["claimed", "free", "total"].map(|key| document["messages"][key].as_u64().expect(key))
}

/// The names of the project's queues.
pub(crate) async fn queues(app: &App) -> Vec<String> {
    let document = app.get("/v2/queues").await.json();
    let queues = document["queues"].as_array().expect("queues");
    let name = |queue: &Value| queue["name"].as_str().map(str::to_owned);
    queues.iter().filter_map(name).collect()
}

/// Creates the queue with metadata.
pub(crate) async fn create(app: &App, metadata: Value) {
    app.put(QUEUE, metadata).await.assert_status(201);
}

/// That a row of a table was refused, with the whole document.
#[track_caller]
pub(crate) fn refused(case: &str, answer: &Answer, status: u16, title: &str, description: &str) {
    let (title, description) = (Value::from(title), Value::from(description));
    let document = format!("{{\"title\": {title}, \"description\": {description}}}");
    assert_eq!(
        (case, answer.status, answer.text()),
        (case, status, &*document)
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{case}"
    );
}

/// That a row of a table was answered with nothing, and no header that speaks of something.
#[track_caller]
pub(crate) fn no_content(case: &str, answer: &Answer) {
    assert_eq!((case, answer.status, answer.text()), (case, 204, ""));
    // The length is left to the connection, which sends none.
    for header in ["content-type", "location"] {
        assert_eq!(answer.header(header), None, "{header}: {case}");
    }
}
