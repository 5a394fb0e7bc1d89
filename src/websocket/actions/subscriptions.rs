//! Subscriptions: of receivers elsewhere, and of the socket itself.

use axum::http::StatusCode;
use isimud_contract::{ErrorKind, Subscription, SubscriptionId};
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::acks::AckTerms;
use super::super::gate;
use super::super::reply::{Refusal, Reply};
use super::super::subscribers::{Made, NewSubscription};
use super::Asked;
use crate::http::json;
use crate::http::problem::Problem;
use crate::http::subscriptions::{self, SubscriptionDocument};
use crate::messaging::Subscribed;

#[derive(Serialize)]
struct Listed {
    subscriptions: Vec<SubscriptionDocument>,
}

#[derive(Serialize)]
struct Created {
    subscription_id: String,
    message: String,
}

fn shown(asked: &Asked<'_>, one: Subscription) -> SubscriptionDocument {
    SubscriptionDocument::of_user(one, asked.scope.user())
}

pub(super) async fn list(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let (limit, marker) = (asked.integer("limit")?, asked.text("marker"));
    let messaging = &asked.app.messaging;
    let found = messaging
        .list_subscriptions(asked.scope.queue()?, limit, marker.as_deref())
        .await;
    let failure = "Subscriptions could not be listed.".to_owned();
    let found = found.map_err(|error| Refusal::of_error(error, failure))?;
    let subscriptions = found.into_iter().map(|one| shown(asked, one)).collect();
    Ok(Reply::of(StatusCode::OK, &Listed { subscriptions }))
}

pub(super) async fn create(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let members = ["subscriber", "ttl", "options"].into_iter();
    let members = members.filter_map(|name| {
        let value = json::parse_as(asked.body.get(name)?.get().as_bytes())?;
        Some((name.to_owned(), value))
    });
    let document: Map<String, Value> = members.collect();
    let wish = subscriptions::asked(&document)?;
    let failure = |error: isimud_contract::Error| {
        let failure = format!("Subscription {} could not be created.", queue.name);
        Refusal::of_error(error, failure)
    };
    let created = match &wish.subscriber {
        Some(_) => {
            let trustor = asked.socket.session.trustor();
            let subscribing = asked.app.messaging.subscribe(queue, wish, trustor.as_ref());
            let subscribed = subscribing.await;
            match subscribed.map_err(failure)? {
                Subscribed::Waiting(id) => Some(id),
                Subscribed::Again(_) | Subscribed::Already => None,
            }
        }
        None => {
            let options = wish.options.clone().unwrap_or_default();
            let ack = AckTerms::of(&options).map_err(Problem::request)?;
            if ack.is_some() && !gate::may(asked.socket, &asked.scope, "claim_create") {
                return Err(gate::not_authorized());
            }
            let hub = &asked.socket.hub;
            let wish = NewSubscription {
                asked: wish,
                ack,
                encoding: asked.encoding,
            };
            let made = hub.subscribe(asked.socket, queue, wish);
            match made.await.map_err(failure)? {
                Made::Subscribed(id) => Some(id),
                Made::Already => None,
                Made::TooMany => {
                    let most = hub.settings.limits.subscriptions;
                    let sentence = format!("A socket may have {most} subscriptions at most.");
                    return Err(Problem::request(sentence).into());
                }
            }
        }
    };
    Ok(match created {
        None => {
            let told = format!("Subscription {} not created.", queue.name);
            Reply::of(StatusCode::CONFLICT, &told)
        }
        Some(id) => {
            let created = Created {
                subscription_id: id.to_string(),
                message: format!("Subscription {} created.", queue.name),
            };
            Reply::of(StatusCode::CREATED, &created)
        }
    })
}

pub(super) async fn get(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let id = asked.text("subscription_id").unwrap_or_default();
    let found = subscriptions::find(asked.app, queue, &id).await;
    let found = found.map_err(|problem| {
        let error = match problem.status() {
            StatusCode::NOT_FOUND => {
                format!("Subscription {id} for queue {} does not exist.", queue.name)
            }
            StatusCode::SERVICE_UNAVAILABLE => format!("Cannot retrieve subscription {id}."),
            _ => return Refusal::from(problem),
        };
        Refusal::from(problem).because(error)
    })?;
    Ok(Reply::of(StatusCode::OK, &shown(asked, found)))
}

pub(super) async fn delete(asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let queue = asked.scope.queue()?;
    let id = asked.text("subscription_id").unwrap_or_default();
    if let Some(parsed) = SubscriptionId::parse(&id) {
        let deleted = asked.app.messaging.delete_subscription(queue, parsed).await;
        let failure = format!(
            "Subscription {id} for queue {} could not be deleted.",
            queue.name
        );
        deleted
            .or_else(|error| match error.kind() {
                ErrorKind::NotFound(_) => Ok(()),
                _ => Err(error),
            })
            .map_err(|error| Refusal::of_error(error, failure))?;
        asked.socket.hub.forget_of(queue, parsed);
    }
    let told = format!("Subscription {id} removed.");
    Ok(Reply::of(StatusCode::NO_CONTENT, &told))
}
