//! Subscriptions (spec: subscriptions.md 1-6).

use std::borrow::Cow;

use axum::Extension;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use isimud_contract::{ErrorKind, Metadata, QueueKey, Subscription, SubscriptionId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::auth::{Keystone, RequestHeaders};
use super::body::{self, Payload};
use super::caller::{RawQuery, Target, path_of};
use super::problem::{OrProblem, Problem};
use super::query::Link;
use super::queues::LinkDocument;
use super::{AppState, json};
use crate::keystone::Trustor;
use crate::messaging::{Asked, Subscribed, is_falsy, show_trust};
use crate::signature::Fit;

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionDocument {
    id: String,
    /// The queue or the topic.
    source: String,
    /// Where notifications go.
    subscriber: String,
    /// Seconds to live.
    ttl: u64,
    /// Seconds since it was made, or its ttl last set.
    age: u64,
    #[schema(value_type = Object)]
    options: Metadata,
    /// Its receiver has agreed.
    confirmed: bool,
}

impl SubscriptionDocument {
    /// A subscription as the asker sees it: its trust is shown to the user whose it is.
    fn new(subscription: Subscription, keystone: Option<&Keystone>) -> Self {
        let user = match keystone {
            Some(Keystone::Caller(caller)) => Some(caller.user_id()),
            _ => None,
        };
        Self::of_user(subscription, user)
    }

    /// The same for the user of a token, if there is one.
    pub(crate) fn of_user(mut subscription: Subscription, user: Option<&str>) -> Self {
        show_trust(&mut subscription, user);
        Self {
            id: subscription.id.to_string(),
            source: subscription.source.name.shown().to_owned(),
            subscriber: subscription.subscriber,
            ttl: subscription.ttl.as_secs(),
            age: subscription.age.as_secs(),
            options: subscription.options,
            confirmed: subscription.confirmed,
        }
    }
}

/// The user who may give a trust for a subscription: the one whose token the request has.
fn trustor(keystone: Option<&Keystone>, headers: &HeaderMap) -> Option<Trustor> {
    match keystone {
        Some(Keystone::Caller(caller)) => Trustor::of_request(caller, headers),
        _ => None,
    }
}

/// A page of subscriptions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionList {
    subscriptions: Vec<SubscriptionDocument>,
    links: Vec<LinkDocument>,
}

/// What a subscriber asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(
    dead_code,
    reason = "describes a document that is read key by key, for the sake of its error sentences"
)]
pub(crate) struct SubscriptionRequest {
    /// A URI: `http`, `https`, `mailto`, `trust+http` or `trust+https`. A new subscription needs it.
    subscriber: Option<String>,
    /// Seconds to live, from 60; 3600 for a new one if absent.
    ttl: Option<i64>,
    /// `post_headers`, `post_data`, `from`, `subject`, `_retry_policy`, `_dead_letter_queue`, `_webhook_secret`.
    #[schema(value_type = Option<Object>)]
    options: Option<Metadata>,
}

/// The answer to a new subscription.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Created {
    subscription_id: String,
}

/// Whether the receiver wants notifications.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes a document of one key")]
pub(crate) struct Confirmation {
    confirmed: bool,
}

/// Subscribes a receiver to a queue, which is created when it does not exist.
#[utoipa::path(post, path = "/v2/queues/{queue}/subscriptions", tag = "subscriptions",
    request_body = SubscriptionRequest, responses((status = 201, body = Created),
    (status = 400, body = super::problem::ErrorDocument), (status = 403, body = super::problem::ErrorDocument),
    (status = 409, body = super::problem::ErrorDocument)))]
pub(crate) async fn create(
    State(app): State<AppState>,
    target: Target,
    keystone: Option<Extension<Keystone>>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, Problem> {
    const MISSING: &str = "Missing parameter subscriber in body.";
    let Some(Value::Object(document)) = document(&app, payload).await? else {
        return Err(Problem::request(MISSING));
    };
    let has_subscriber = document
        .get("subscriber")
        .is_some_and(|subscriber| subscriber.as_str().is_some_and(|text| !text.is_empty()));
    if !has_subscriber {
        return Err(Problem::request(MISSING));
    }
    let mut asked = asked(&document)?;
    if document.get("ttl") == Some(&Value::Null) {
        asked.ttl = Some(Value::Null);
    }
    let trustor = trustor(keystone.as_deref(), &headers);
    let subscribed = app
        .messaging
        .subscribe(&target.queue, asked, trustor.as_ref())
        .await
        .or_problem("Subscription could not be created.")?;
    let location = format!("{}/subscriptions", target.link());
    Ok(match subscribed {
        Subscribed::Waiting(id) | Subscribed::Again(id) => {
            let created = Created {
                subscription_id: id.to_string(),
            };
            json::created(&location, json::to_vec(&created))
        }
        Subscribed::Already => ([(LOCATION, location)], conflict("")).into_response(),
    })
}

/// The reference's two sentences differ in a space (quirk Q-SUB-11).
fn conflict(space: &str) -> Problem {
    let description = format!(
        "Such subscription already exists.{space}Subscriptions are unique by project + queue + subscriber URI."
    );
    Problem::new(StatusCode::CONFLICT, "Resource conflict", description)
}

/// The document of a request; `None` where there is none.
async fn document(app: &AppState, payload: Payload) -> Result<Option<Value>, Problem> {
    let most = app.messaging.limits().max_queue_metadata;
    let body = payload.read(most, body::too_large).await?;
    body.filter(|body| !body.is_empty())
        .map(|body| json::parse(&body))
        .transpose()
}

/// The fields that have a meaning, with what is null left out.
pub(crate) fn asked(document: &Map<String, Value>) -> Result<Asked, Problem> {
    let given = |key: &str| document.get(key).filter(|value| !value.is_null());
    let options = match given("options") {
        None => None,
        Some(Value::Object(options)) => Some(options.clone()),
        Some(value) if is_falsy(value) => Some(Metadata::new()),
        Some(_) => return Err(Problem::request("Options must be a dict.")),
    };
    Ok(Asked {
        subscriber: given("subscriber").cloned(),
        ttl: given("ttl").cloned(),
        options,
    })
}

/// Lists a queue's subscriptions by id.
#[utoipa::path(get, path = "/v2/queues/{queue}/subscriptions", tag = "subscriptions", params(
    ("marker" = Option<String>, Query, description = "the last subscription of the page before"),
    ("limit" = Option<i64>, Query, description = "1 to 20 subscriptions; 10 if absent"),
), responses((status = 200, body = SubscriptionList)))]
pub(crate) async fn list(
    State(app): State<AppState>,
    target: Target,
    keystone: Option<Extension<Keystone>>,
    query: RawQuery,
) -> Result<Response, Problem> {
    let query = query.read();
    let (limit, marker) = (
        query.integer("limit")?,
        query.text("marker").map(Cow::into_owned),
    );
    let found = app
        .messaging
        .list_subscriptions(&target.queue, limit, marker.as_deref())
        .await
        .or_problem("Subscriptions could not be listed.")?;
    let path = format!("{}/subscriptions", path_of(&target.queue.name));
    let link = Link::new(marker.is_some()).with("limit", limit);
    let links = found
        .last()
        .map(|last| LinkDocument::next(link.href(&path, last.id)));
    let document = SubscriptionList {
        subscriptions: found
            .into_iter()
            .map(|one| SubscriptionDocument::new(one, keystone.as_deref()))
            .collect(),
        links: links.unwrap_or_default(),
    };
    Ok(json::answer(StatusCode::OK, &document))
}

/// Shows a subscription.
#[utoipa::path(get, path = "/v2/queues/{queue}/subscriptions/{subscription}", tag = "subscriptions",
    responses((status = 200, body = SubscriptionDocument), (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn show(
    State(app): State<AppState>,
    target: Target,
    keystone: Option<Extension<Keystone>>,
) -> Result<Response, Problem> {
    let found = find(&app, &target.queue, &target.id).await?;
    Ok(json::answer(
        StatusCode::OK,
        &SubscriptionDocument::new(found, keystone.as_deref()),
    ))
}

/// Reads a subscription.
pub(crate) async fn find(
    app: &AppState,
    source: &QueueKey,
    id: &str,
) -> Result<Subscription, Problem> {
    let found = match SubscriptionId::parse(id) {
        None => Ok(None),
        Some(id) => app.messaging.find_subscription(source, id).await,
    };
    found
        .or_problem("Subscription could not be retrieved.")?
        .ok_or_else(|| Problem::not_found(missing(id)))
}

fn missing(id: &str) -> String {
    format!("Subscription {id} does not exist")
}

/// Changes a subscription: its address, its life from now on, or all of its options.
#[utoipa::path(patch, path = "/v2/queues/{queue}/subscriptions/{subscription}", tag = "subscriptions",
    request_body = SubscriptionRequest, responses((status = 204), (status = 400, body = super::problem::ErrorDocument),
    (status = 403, body = super::problem::ErrorDocument), (status = 404, body = super::problem::ErrorDocument),
    (status = 409, body = super::problem::ErrorDocument)))]
pub(crate) async fn update(
    State(app): State<AppState>,
    target: Target,
    keystone: Option<Extension<Keystone>>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, Problem> {
    let document = document(&app, payload)
        .await?
        .filter(|document| !is_falsy(document));
    let document = match document {
        None => return Err(Problem::request("No subscription to create.")),
        Some(Value::Object(document)) => document,
        Some(Value::Array(_)) => return Err(Problem::request("Subscriptions must be a dict.")),
        Some(_) => return Err(Problem::unsupported_document()),
    };
    let asked = asked(&document)?;
    let asks_too_much = ["queue", "project", "subscription_id"]
        .iter()
        .any(|key| document.contains_key(*key));
    if asked == Asked::default() || asks_too_much {
        return Err(unable("update", "updated", &target.id));
    }
    let trustor = trustor(keystone.as_deref(), &headers);
    let changed = app.messaging.update_subscription(
        &target.queue,
        SubscriptionId::parse(&target.id),
        asked,
        trustor.as_ref(),
    );
    match changed.await {
        Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists(_)) => {
            return Err(conflict(" "));
        }
        changed => {
            changed.or_missing("Subscription could not be updated.", || missing(&target.id))?
        }
    }
    let location = path(&target);
    Ok((StatusCode::NO_CONTENT, [(LOCATION, location)]).into_response())
}

fn path(target: &Target) -> String {
    format!("{}/subscriptions/{}", target.link(), target.id)
}

fn unable(title: &str, done: &str, id: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!("Unable to {title} subscription"),
        format!("Subscription {id} could not be {done}."),
    )
}

/// Deletes a subscription. It need not exist.
#[utoipa::path(delete, path = "/v2/queues/{queue}/subscriptions/{subscription}", tag = "subscriptions",
    responses((status = 204)))]
pub(crate) async fn delete(
    State(app): State<AppState>,
    target: Target,
) -> Result<StatusCode, Problem> {
    if let Some(id) = SubscriptionId::parse(&target.id) {
        app.messaging
            .delete_subscription(&target.queue, id)
            .await
            .or_problem("Subscription could not be deleted.")?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Says for the receiver whether it wants notifications. Where the service asks receivers, `true` needs the signature
/// that it sent to the receiver.
#[utoipa::path(put, path = "/v2/queues/{queue}/subscriptions/{subscription}/confirm", tag = "subscriptions",
    request_body = Confirmation, responses((status = 204), (status = 400, body = super::problem::ErrorDocument),
    (status = 403, body = super::problem::ErrorDocument), (status = 404, body = super::problem::ErrorDocument)))]
pub(crate) async fn confirm(
    State(app): State<AppState>,
    target: Target,
    keystone: Option<Extension<Keystone>>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, Problem> {
    let confirmed = match document(&app, payload).await? {
        Some(Value::Array(_)) => return Err(unable("confirm", "confirmed", &target.id)),
        Some(document) => document.get("confirmed").and_then(Value::as_bool),
        None => None,
    };
    let confirmed =
        confirmed.ok_or_else(|| Problem::request("The 'confirmed' should be boolean."))?;
    const FAILURE: &str = "Subscription could not be confirmed.";
    let id = SubscriptionId::parse(&target.id);
    if confirmed && target.signed != Some(Fit::Exact) {
        let asks = app.messaging.asks_receiver(&target.queue, id);
        if asks.await.or_problem(FAILURE)? {
            let keystone = keystone.as_deref();
            may_confirm_unsigned(&app, &target, &headers, keystone)?;
        }
    }
    app.messaging
        .confirm_subscription(&target.queue, id, confirmed)
        .await
        .or_missing(FAILURE, || missing(&target.id))?;
    let location = format!("{}/confirm", path(&target));
    Ok((StatusCode::NO_CONTENT, [(LOCATION, location)]).into_response())
}

/// A tenant must not agree in its receiver's place (quirk Q-SEC-6): a signature that the tenant can make for itself,
/// for all subscriptions of a queue, does not count either.
fn may_confirm_unsigned(
    app: &AppState,
    target: &Target,
    headers: &HeaderMap,
    keystone: Option<&Keystone>,
) -> Result<(), Problem> {
    let mut said = RequestHeaders::read(headers, &app.identity, keystone);
    if target.signed.is_some() {
        said.disown();
    }
    let policy = app.policy.get();
    let rule = policy.rule("subscription:confirm_unsigned");
    match rule {
        Some(rule) if said.may(&policy, rule, target.queue.project.as_str()) => Ok(()),
        _ => Err(Problem::not_authorized()),
    }
}
