//! Messages (spec: messages.md).

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use isimud_contract::{
    ClaimId, ClientId, Error, ErrorKind, Message, MessageId, QueueKey, Resource,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::Payload;
use super::caller::{RawQuery, Target, by_kind, path_of};
use super::document::{self, Beside, MessageListPage, PoppedList};
use super::fields::{Fields, Object, present_integer};
use super::problem::{OrProblem, Problem};
use super::query::Link;
use super::queues::no_such_queue;
use super::under_way::{self, Taking};
use super::{AppState, headers, json};
use crate::catalogue::Listed;
use crate::messaging::{Deletion, Draft, Listing, PostRules};

/// Ids beyond which a `Location` no longer lists them; `resources` always does (quirk Q-MSG-9).
const LOCATED: usize = 100;

/// The body of a post.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PostMessages<'a> {
    #[serde(borrow)]
    #[schema(value_type = Vec<PostMessage<'a>>)]
    messages: Vec<Object<PostMessage<'a>>>,
}

/// A message of a post.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PostMessage<'a> {
    /// Seconds to live, 60 to 1209600.
    #[serde(default, deserialize_with = "present_integer")]
    ttl: Option<i64>,
    /// Seconds before it can be claimed, 0 to 900. Only queues with a default delay look at it.
    #[serde(default, deserialize_with = "present_integer")]
    delay: Option<i64>,
    /// Any JSON.
    #[serde(borrow)]
    #[schema(value_type = Value)]
    body: &'a RawValue,
    /// What is said beside the body, by names of one's own: at most 64, in 64 KiB. Bytes are `{"$binary": "base64"}`,
    /// moments `{"$timestamp": seconds}`. Native consumers see them as headers (AMQP) or attributes (SQS).
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    headers: Option<&'a RawValue>,
    /// The same by names that brokers know: `content_type`, `correlation_id`, `reply_to`, `type`, `priority` and more.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    properties: Option<&'a RawValue>,
}

/// The answer to a post.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Posted {
    /// The path of each message, in the order of the post.
    resources: Vec<String>,
}

/// Posts messages, all or none. The queue is created when it does not exist.
#[utoipa::path(post, path = "/v2/queues/{queue}/messages", tag = "messages", request_body = PostMessages<'_>,
    responses((status = 201, body = Posted), (status = 400, body = super::problem::ErrorDocument)))]
pub(crate) async fn post(
    State(app): State<AppState>,
    target: Target,
    payload: Payload,
) -> Result<Response, Problem> {
    const FAILURE: &str = "Messages could not be enqueued.";
    let rules = app
        .messaging
        .post_rules(&target.queue)
        .await
        .or_problem(FAILURE)?;
    let body = payload
        .required(rules.max_size, || too_large(&app, &rules))
        .await?;
    json::check(&body)?;
    let drafts = drafts(&body, &rules)?;
    let ids = app
        .messaging
        .post(&target.queue, &target.client, rules, drafts)
        .await
        .or_problem(FAILURE)?;
    Ok(posted(&target, &ids))
}

/// Refuses a post that has more bytes than the queue takes in one.
pub(crate) fn too_large(app: &AppState, rules: &PostRules) -> Problem {
    let service = app.messaging.limits().max_messages_post_size;
    Problem::request(match rules.queue_max_size {
        None => format!("Message collection size is too large. Max size {service}"),
        Some(queue) => format!(
            "Message collection size is too large. The max size for current queue is {queue}. It is calculated by max \
             size = min(max_messages_post_size_config: {service}, max_messages_post_size_queue: {queue})."
        ),
    })
}

fn posted(target: &Target, ids: &[MessageId]) -> Response {
    let collection = format!("{}/messages", path_of(&target.queue.name));
    let room = target.base.len() + collection.len() + 5 + 37 * ids.len().min(LOCATED);
    let mut location = String::with_capacity(room);
    location.push_str(&target.base);
    location.push_str(&collection);
    location.push_str("?ids=");
    for (at, id) in ids.iter().take(LOCATED).enumerate() {
        if at > 0 {
            location.push(',');
        }
        location.push_str(
            id.0.as_hyphenated()
                .encode_lower(&mut Uuid::encode_buffer()),
        );
    }
    json::created(&location, document::posted(&collection, ids))
}

/// Reads the messages of a post. The usual form takes one pass; any other is gone through key by key, to say what is
/// wrong with it, or to find that nothing is (a key twice, say: the last counts).
pub(crate) fn drafts(body: &Bytes, rules: &PostRules) -> Result<Vec<Draft>, Problem> {
    if let Some(Object(post)) = json::parse_as::<Object<PostMessages<'_>>>(body)
        && !post.messages.is_empty()
    {
        let draft = |Object(message): &Object<PostMessage<'_>>| {
            Ok(Draft {
                ttl: message.ttl,
                delay: message.delay,
                body: body.slice_ref(message.body.get().as_bytes()),
                headers: headers::read(message.headers, message.properties)?,
            })
        };
        return post.messages.iter().map(draft).collect();
    }
    let fields = Fields::read_or_array(body, "messages")?;
    let messages = fields
        .get("messages")
        .ok_or_else(|| Problem::request("No messages were found in the request body."))?;
    let messages: Vec<&RawValue> =
        json::parse_as(messages.get().as_bytes()).ok_or_else(Problem::unsupported_document)?;
    if messages.is_empty() {
        return Err(Problem::request("No messages to enqueu."));
    }
    let draft = |message: &RawValue| {
        let fields: BTreeMap<String, &RawValue> =
            json::parse_as(message.get().as_bytes()).ok_or_else(Problem::unsupported_document)?;
        let fields = Fields::from(fields);
        let text = fields
            .get("body")
            .ok_or_else(|| Problem::body("Missing \"body\" field."))?;
        let present = |name| fields.get(name).filter(|value| value.get() != "null");
        let delay = if rules.delays() {
            fields.integer("delay")?
        } else {
            None
        };
        Ok(Draft {
            ttl: fields.integer("ttl")?,
            delay,
            body: Bytes::copy_from_slice(text.get().as_bytes()),
            headers: headers::read(present("headers"), present("properties"))?,
        })
    };
    messages.into_iter().map(draft).collect()
}

/// Lists messages, or, with `ids`, reads those.
#[utoipa::path(get, path = "/v2/queues/{queue}/messages", tag = "messages", params(
    ("marker" = Option<String>, Query, description = "from the link to the next page"),
    ("limit" = Option<i64>, Query, description = "1 to 20 messages; 10 if absent"),
    ("echo" = Option<bool>, Query, description = "include messages of this Client-ID"),
    ("include_claimed" = Option<bool>, Query, description = "include messages that are claimed now"),
    ("include_delayed" = Option<bool>, Query, description = "include messages still in their delay"),
    ("ids" = Option<String>, Query, description = "read these messages, separated by commas, and nothing else"),
    ("headers" = Option<bool>, Query, description = "tell headers and properties of messages"),
), responses((status = 200, body = MessageListPage), (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    target: Target,
    query: RawQuery,
) -> Result<Response, Problem> {
    let read = query.read();
    let beside = read.beside()?;
    if let Some(ids) = read.list("ids") {
        return get_several(&app, &target.queue, &ids, beside).await;
    }
    let mut listing = Listing {
        marker: read.text("marker").map(Cow::into_owned),
        limit: read.integer("limit")?,
        echo: false,
        include_claimed: false,
        include_delayed: read.boolean("include_delayed")?,
    };
    let (echo, include_claimed) = (read.boolean("echo")?, read.boolean("include_claimed")?);
    (listing.echo, listing.include_claimed) =
        (echo.unwrap_or(false), include_claimed.unwrap_or(false));
    settle_delayed(&app, &target.queue, &mut listing).await?;
    let link = Link::new(listing.marker.is_some())
        .with("limit", listing.limit)
        .with("echo", echo)
        .with("include_claimed", include_claimed)
        .with("include_delayed", listing.include_delayed)
        .with("headers", (beside == Beside::Told).then_some(true));
    let page = page(&app, &target.queue, &target.client, listing).await?;
    let next = page
        .next
        .map(|marker| link.href(&format!("{}/messages", path_of(&target.queue.name)), marker));
    Ok(json::text(
        StatusCode::OK,
        document::page(&target.queue, &page.messages, beside, next.as_deref()),
    ))
}

const NOT_LISTED: &str = "Messages could not be listed.";
const NOT_RETRIEVED: &str = "Message could not be retrieved.";

/// Has a listing include delayed messages in a queue that delays none: then nobody has to be asked (quirk Q-MSG-7).
pub(crate) async fn settle_delayed(
    app: &AppState,
    queue: &QueueKey,
    listing: &mut Listing,
) -> Result<(), Problem> {
    if listing.include_delayed != Some(true)
        && !app.messaging.delays(queue).await.or_problem(NOT_LISTED)?
    {
        listing.include_delayed = Some(true);
    }
    Ok(())
}

/// Reads a page of messages, when there is room for it among what is read for the project.
pub(crate) async fn page(
    app: &AppState,
    queue: &QueueKey,
    client: &ClientId,
    listing: Listing,
) -> Result<Listed, Problem> {
    let _reading = under_way::read(app, &queue.project, listing.limit).await?;
    let listed = app.messaging.list(queue, client, listing).await;
    listed.or_problem(NOT_LISTED)
}

/// Reads messages by id, without those that do not exist: in the order asked, and no more than a page has.
pub(crate) async fn several(
    app: &AppState,
    queue: &QueueKey,
    asked: &[String],
) -> Result<Vec<Message>, Problem> {
    let bounds = |most| format!("Limit must be at least 1 and may not be greater than {most}.");
    app.messaging
        .check_ids(asked.len(), bounds)
        .or_problem(NOT_RETRIEVED)?;
    let ids: Vec<MessageId> = asked.iter().filter_map(|id| MessageId::parse(id)).collect();
    let count = i64::try_from(ids.len()).ok();
    let _reading = under_way::read(app, &queue.project, count).await?;
    match ids.is_empty() {
        true => Ok(Vec::new()),
        false => app
            .messaging
            .get(queue, &ids)
            .await
            .or_problem(NOT_RETRIEVED),
    }
}

async fn get_several(
    app: &AppState,
    queue: &QueueKey,
    asked: &[String],
    beside: Beside,
) -> Result<Response, Problem> {
    let messages = several(app, queue, asked).await?;
    if messages.is_empty() {
        let quoted: Vec<String> = asked.iter().map(|id| python_text(id)).collect();
        return Err(Problem::not_found(format!(
            "No messages with IDs: [{}] found in the {} {} for project {}.",
            quoted.join(", "),
            by_kind(queue, "queue", "topic"),
            queue.name.shown(),
            queue.project
        )));
    }
    Ok(json::text(
        StatusCode::OK,
        document::messages(queue, &messages, beside),
    ))
}

/// A text as Python shows it in a list.
fn python_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut shown = String::from(quote);
    for symbol in text.chars() {
        match symbol {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\\' => shown.push_str("\\\\"),
            _ if symbol == quote => shown.extend(['\\', quote]),
            _ if symbol.is_ascii_control() => shown.push_str(&format!("\\x{:02x}", symbol as u32)),
            _ => shown.push(symbol),
        }
    }
    shown.push(quote);
    shown
}

/// Reads a message.
#[utoipa::path(get, path = "/v2/queues/{queue}/messages/{message}", tag = "messages", params(
    ("headers" = Option<bool>, Query, description = "tell headers and properties of the message"),
), responses((status = 200, body = document::MessageDocument), (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn get(
    State(app): State<AppState>,
    target: Target,
    query: RawQuery,
) -> Result<Response, Problem> {
    let beside = query.read().beside()?;
    let Target { queue, id, .. } = target;
    let message = one(&app, &queue, &id).await?;
    Ok(json::text(
        StatusCode::OK,
        document::message(&queue, &message, beside),
    ))
}

/// Reads a message; says whether it is the message that is missing, or its queue.
pub(crate) async fn one(app: &AppState, queue: &QueueKey, id: &str) -> Result<Message, Problem> {
    let found = match MessageId::parse(id) {
        Some(id) => app.messaging.get(queue, &[id]).await,
        None => Ok(Vec::new()),
    };
    if let Some(message) = found.or_problem(NOT_RETRIEVED)?.pop() {
        return Ok(message);
    }
    let exists = app.messaging.queue_exists(queue).await;
    Err(Problem::not_found(if exists.or_problem(NOT_RETRIEVED)? {
        format!(
            "Message {id} does not exist in {} {} for project {}",
            by_kind(queue, "queue", "topic"),
            queue.name.shown(),
            queue.project
        )
    } else {
        no_such_queue(queue)
    }))
}

/// Deletes a message; a claimed one only with its claim.
#[utoipa::path(delete, path = "/v2/queues/{queue}/messages/{message}", tag = "messages", params(
    ("claim_id" = Option<String>, Query, description = "the claim that holds the message"),
), responses((status = 204), (status = 400, body = super::problem::ErrorDocument),
    (status = 403, body = super::problem::ErrorDocument)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    target: Target,
    query: RawQuery,
) -> Result<StatusCode, Problem> {
    let claim = query.read().text("claim_id").map(Cow::into_owned);
    delete_one(&app, &target.queue, &target.id, claim.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a message, a claimed one only with the claim that is named.
pub(crate) async fn delete_one(
    app: &AppState,
    queue: &QueueKey,
    id: &str,
    claim: Option<&str>,
) -> Result<(), Problem> {
    let asked = claim.map(any_claim);
    let is_no_claim = asked == Some(None);
    // A message that is not there is deleted, whatever the claim is called (spec: messages.md 6).
    let claim = asked.map(Option::unwrap_or_default);
    let refused = |error: Error| match error.kind() {
        ErrorKind::Claimed | ErrorKind::NotClaimed if is_no_claim => {
            cannot_delete(NO_SUCH_CLAIM, StatusCode::BAD_REQUEST)
        }
        _ => delete_refused(error),
    };
    if let Some(id) = MessageId::parse(id) {
        app.messaging
            .delete(queue, Deletion::One(id, claim))
            .await
            .map_err(refused)?;
    }
    Ok(())
}

pub(crate) const NO_SUCH_CLAIM: &str = "The specified claim does not exist or has expired.";
pub(crate) const NOT_CLAIMED: &str =
    "A claim was specified, but the message is not currently claimed.";
pub(crate) const CLAIMED: &str =
    "This message is claimed; it cannot be deleted without a valid claim ID.";

fn cannot_delete(description: &'static str, status: StatusCode) -> Problem {
    Problem::new(status, "Unable to delete", description)
}

/// A claim id in any spelling of a UUID. Only the canonical spelling names a claim.
fn any_claim(text: &str) -> Option<ClaimId> {
    let unnamed = || Uuid::try_parse(text).ok().map(|_| ClaimId::default());
    ClaimId::parse(text).or_else(unnamed)
}

/// Deleting with a dead claim is 400, unlike reading one (spec: messages.md 6).
fn delete_refused(error: Error) -> Problem {
    match error.kind() {
        ErrorKind::Claimed => cannot_delete(CLAIMED, StatusCode::FORBIDDEN),
        ErrorKind::NotClaimed => cannot_delete(NOT_CLAIMED, StatusCode::BAD_REQUEST),
        ErrorKind::NotFound(Resource::Claim) => {
            cannot_delete(NO_SUCH_CLAIM, StatusCode::BAD_REQUEST)
        }
        _ => Problem::from_error(error, "Message could not be deleted."),
    }
}

/// Deletes several messages by id, or pops some off the head.
#[utoipa::path(delete, path = "/v2/queues/{queue}/messages", tag = "messages", params(
    ("ids" = Option<String>, Query, description = "delete these messages, separated by commas"),
    ("claim_ids" = Option<String>, Query, description = "the claims that hold them, where the service asks for it"),
    ("pop" = Option<i64>, Query, description = "delete and return 1 to 20 messages from the head"),
    ("headers" = Option<bool>, Query, description = "tell headers and properties of messages that are popped"),
), responses((status = 200, body = PoppedList), (status = 204), (status = 400, body = super::problem::ErrorDocument)))]
pub(crate) async fn delete_several(
    State(app): State<AppState>,
    target: Target,
    query: RawQuery,
) -> Result<Response, Problem> {
    let query = query.read();
    let (ids, pop) = (query.list("ids"), query.integer("pop")?);
    match (ids, pop) {
        (Some(_), Some(_)) => Err(Problem::request(
            "pop and id params cannot be present together in the delete request.",
        )),
        (None, None) => Err(Problem::request(
            "The request should have either \"ids\" or \"pop\" parameter in the request, to be able to delete.",
        )),
        (None, Some(count)) => {
            let beside = query.beside()?;
            let queue = &target.queue;
            under_way::check(&app, &queue.project)?;
            let answer = |popped: &[Message]| {
                json::text(
                    StatusCode::OK,
                    document::popped(ClaimId(Uuid::new_v4()), popped, beside),
                )
            };
            let popped = Taking { app: &app, queue }
                .pop(count, answer)
                .await
                .or_problem("Messages could not be popped.")??;
            Ok(popped.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response()))
        }
        (Some(ids), None) => {
            delete_ids(&app, &target.queue, &ids, query.list("claim_ids")).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
    }
}

/// Deletes several messages by id; where the service asks for it they have to be held by these claims.
pub(crate) async fn delete_ids(
    app: &AppState,
    queue: &QueueKey,
    asked: &[String],
    claims: Option<Vec<String>>,
) -> Result<(), Problem> {
    const FAILURE: &str = "Messages could not be deleted.";
    let bounds =
        |most| format!("ids parameter should have at least 1 and not greater than {most} values.");
    let ids = asked.iter().filter_map(|id| MessageId::parse(id)).collect();
    let deletion = match (app.delete_with_claim_ids, claims) {
        (false, _) => Deletion::Several(ids),
        (true, Some(claims)) => Deletion::SeveralHeld(
            ids,
            claims.iter().filter_map(|id| ClaimId::parse(id)).collect(),
        ),
        (true, None) => {
            return Err(Problem::request(
                "The request should have both \"ids\" and \"claim_ids\" parameter in the request when \
                 message_delete_with_claim_id is True.",
            ));
        }
    };
    app.messaging
        .check_ids(asked.len(), bounds)
        .or_problem(FAILURE)?;
    app.messaging
        .delete(queue, deletion)
        .await
        .map_err(|error| match error.kind() {
            // With several messages every mismatch is the same refusal (quirk Q-MSG-10).
            ErrorKind::Claimed | ErrorKind::NotClaimed | ErrorKind::NotFound(Resource::Claim) => {
                cannot_delete(CLAIMED, StatusCode::FORBIDDEN)
            }
            _ => Problem::from_error(error, FAILURE),
        })
}
