//! The actions: what each needs, and the request of the REST API that it stands for, by which it is judged.

use axum::http::Method;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::http::fields::Fields;
use crate::http::json;

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Authenticate,
    QueueList,
    QueueCreate,
    QueueGet,
    QueueDelete,
    QueueStats,
    QueuePurge,
    MessagePost,
    MessageList,
    MessageGet,
    MessageGetMany,
    MessageDelete,
    MessageDeleteMany,
    ClaimCreate,
    ClaimGet,
    ClaimUpdate,
    ClaimDelete,
    SubscriptionList,
    SubscriptionCreate,
    SubscriptionGet,
    SubscriptionDelete,
    /// The reference names it, and no more (quirk Q-WS-1).
    NotServed,
}

/// The type of a member of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Integer,
    Boolean,
    List,
    Object,
}

/// A member of a body: its name, its type, and whether it has to be there.
#[derive(Debug, Clone, Copy)]
struct Member(&'static str, Type, bool);

/// An action.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The method and the path of the REST API that it stands for: `{queue}`, `{id}`.
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// The policy that lets it pass.
    pub(super) rule: &'static str,
    /// The member that is the `{id}` of the path.
    id: &'static str,
    /// Whether a signature may stand for a token.
    pub(super) may_be_signed: bool,
    members: &'static [Member],
}

const QUEUE: Member = Member("queue_name", Type::Text, true);
const LIMIT: Member = Member("limit", Type::Integer, false);
const MARKER: Member = Member("marker", Type::Text, false);
const TTL: Member = Member("ttl", Type::Integer, false);
const GRACE: Member = Member("grace", Type::Integer, false);
const MESSAGE_ID: Member = Member("message_id", Type::Text, true);
const CLAIM_ID: Member = Member("claim_id", Type::Text, true);
const SUBSCRIPTION_ID: Member = Member("subscription_id", Type::Text, true);

const fn action(
    name: &'static str,
    kind: Kind,
    method: Method,
    path: &'static str,
    rule: &'static str,
    members: &'static [Member],
) -> Action {
    Action {
        name,
        kind,
        method,
        path,
        rule,
        id: "",
        may_be_signed: false,
        members,
    }
}

impl Action {
    const fn of(mut self, id: &'static str) -> Self {
        self.id = id;
        self
    }

    const fn signed(mut self) -> Self {
        self.may_be_signed = true;
        self
    }
}

const fn not_served(name: &'static str) -> Action {
    action(name, Kind::NotServed, Method::GET, "/", "", &[])
}

static ACTIONS: [Action; 34] = [
    action(
        "authenticate",
        Kind::Authenticate,
        Method::POST,
        "/",
        "",
        &[],
    ),
    action(
        "queue_list",
        Kind::QueueList,
        Method::GET,
        "/v2/queues",
        "queues:get_all",
        &[MARKER, LIMIT, Member("detailed", Type::Boolean, false)],
    ),
    action(
        "queue_create",
        Kind::QueueCreate,
        Method::PUT,
        "/v2/queues/{queue}",
        "queues:create",
        &[QUEUE],
    ),
    action(
        "queue_get",
        Kind::QueueGet,
        Method::GET,
        "/v2/queues/{queue}",
        "queues:get",
        &[QUEUE],
    ),
    action(
        "queue_delete",
        Kind::QueueDelete,
        Method::DELETE,
        "/v2/queues/{queue}",
        "queues:delete",
        &[QUEUE],
    ),
    action(
        "queue_get_stats",
        Kind::QueueStats,
        Method::GET,
        "/v2/queues/{queue}/stats",
        "queues:stats",
        &[QUEUE],
    ),
    action(
        "queue_purge",
        Kind::QueuePurge,
        Method::POST,
        "/v2/queues/{queue}/purge",
        "queues:purge",
        &[QUEUE, Member("resource_types", Type::List, false)],
    ),
    action(
        "message_post",
        Kind::MessagePost,
        Method::POST,
        "/v2/queues/{queue}/messages",
        "messages:create",
        &[QUEUE, Member("messages", Type::List, true)],
    )
    .signed(),
    action(
        "message_list",
        Kind::MessageList,
        Method::GET,
        "/v2/queues/{queue}/messages",
        "messages:get_all",
        &[
            QUEUE,
            MARKER,
            LIMIT,
            Member("echo", Type::Boolean, false),
            Member("include_claimed", Type::Boolean, false),
            Member("include_delayed", Type::Boolean, false),
        ],
    )
    .signed(),
    action(
        "message_get",
        Kind::MessageGet,
        Method::GET,
        "/v2/queues/{queue}/messages/{id}",
        "messages:get",
        &[QUEUE, MESSAGE_ID],
    )
    .of("message_id")
    .signed(),
    action(
        "message_get_many",
        Kind::MessageGetMany,
        Method::GET,
        "/v2/queues/{queue}/messages",
        "messages:get_all",
        &[QUEUE, Member("message_ids", Type::List, true)],
    )
    .signed(),
    action(
        "message_delete",
        Kind::MessageDelete,
        Method::DELETE,
        "/v2/queues/{queue}/messages/{id}",
        "messages:delete",
        &[QUEUE, MESSAGE_ID, Member("claim_id", Type::Text, false)],
    )
    .of("message_id")
    .signed(),
    action(
        "message_delete_many",
        Kind::MessageDeleteMany,
        Method::DELETE,
        "/v2/queues/{queue}/messages",
        "messages:delete_all",
        &[
            QUEUE,
            Member("message_ids", Type::List, false),
            Member("claim_ids", Type::List, false),
            Member("pop", Type::Integer, false),
        ],
    )
    .signed(),
    action(
        "claim_create",
        Kind::ClaimCreate,
        Method::POST,
        "/v2/queues/{queue}/claims",
        "claims:create",
        &[QUEUE, LIMIT, TTL, GRACE],
    ),
    action(
        "claim_get",
        Kind::ClaimGet,
        Method::GET,
        "/v2/queues/{queue}/claims/{id}",
        "claims:get",
        &[QUEUE, CLAIM_ID],
    )
    .of("claim_id"),
    action(
        "claim_update",
        Kind::ClaimUpdate,
        Method::PATCH,
        "/v2/queues/{queue}/claims/{id}",
        "claims:update",
        &[QUEUE, CLAIM_ID, TTL, GRACE],
    )
    .of("claim_id"),
    action(
        "claim_delete",
        Kind::ClaimDelete,
        Method::DELETE,
        "/v2/queues/{queue}/claims/{id}",
        "claims:delete",
        &[QUEUE, CLAIM_ID],
    )
    .of("claim_id"),
    action(
        "subscription_list",
        Kind::SubscriptionList,
        Method::GET,
        "/v2/queues/{queue}/subscriptions",
        "subscription:get_all",
        &[QUEUE, LIMIT, MARKER],
    ),
    action(
        "subscription_create",
        Kind::SubscriptionCreate,
        Method::POST,
        "/v2/queues/{queue}/subscriptions",
        "subscription:create",
        &[
            QUEUE,
            Member("subscriber", Type::Text, false),
            TTL,
            Member("options", Type::Object, false),
        ],
    ),
    action(
        "subscription_get",
        Kind::SubscriptionGet,
        Method::GET,
        "/v2/queues/{queue}/subscriptions/{id}",
        "subscription:get",
        &[QUEUE, SUBSCRIPTION_ID],
    )
    .of("subscription_id"),
    action(
        "subscription_delete",
        Kind::SubscriptionDelete,
        Method::DELETE,
        "/v2/queues/{queue}/subscriptions/{id}",
        "subscription:delete",
        &[QUEUE, SUBSCRIPTION_ID],
    )
    .of("subscription_id"),
    not_served("get_home_doc"),
    not_served("check_node_health"),
    not_served("ping_node"),
    not_served("pool_list"),
    not_served("pool_create"),
    not_served("pool_get"),
    not_served("pool_update"),
    not_served("pool_delete"),
    not_served("flavor_list"),
    not_served("flavor_create"),
    not_served("flavor_get"),
    not_served("flavor_update"),
    not_served("flavor_delete"),
];

impl Action {
    /// Finds an action by its name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }

    /// Whether a body has what the action needs, in the right types. What else it has does not count.
    pub(super) fn takes(&self, body: &Fields<'_>) -> bool {
        self.members
            .iter()
            .all(|Member(name, kind, is_required)| match body.get(name) {
                Some(value) => kind.is_that_of(value),
                None => !is_required,
            })
    }

    /// The path of the request that it stands for.
    pub(super) fn path_of(&self, queue: &str, body: &Fields<'_>) -> String {
        let id = body.get(self.id).and_then(text);
        let path = self.path.replace("{queue}", queue);
        path.replace("{id}", id.as_deref().unwrap_or_default())
    }

    /// Whether it is about a queue.
    pub(super) fn has_queue(&self) -> bool {
        self.path.contains("{queue}")
    }
}

impl Type {
    fn is_that_of(self, value: &RawValue) -> bool {
        let text = value.get();
        match self {
            Self::Text => text.starts_with('"'),
            Self::Boolean => matches!(text, "true" | "false"),
            Self::List => text.starts_with('['),
            Self::Object => text.starts_with('{'),
            Self::Integer => {
                let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'-';
                text.bytes().all(is_digit)
            }
        }
    }
}

/// The text that a member is, if it is one.
pub(super) fn text(value: &RawValue) -> Option<String> {
    json::parse_as(value.get().as_bytes())
}

/// The texts of a list; what is no text stands as it is written, and names nothing.
pub(super) fn texts(value: &RawValue) -> Vec<String> {
    let items: Vec<Value> = json::parse_as(value.get().as_bytes()).unwrap_or_default();
    let texts = items.into_iter().map(|item| match item {
        Value::String(text) => text,
        other => other.to_string(),
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::policy::Policy;

    #[test]
    fn every_action_has_a_name_of_its_own_and_a_policy_that_there_is() {
        let policy = Policy::default();
        for action in &ACTIONS {
            let found = Action::find(action.name).expect(action.name);
            assert_eq!(found.path, action.path, "{} is there twice", action.name);
            assert!(
                action.rule.is_empty() || policy.rule(action.rule).is_some(),
                "{}",
                action.rule
            );
            assert_eq!(
                action.has_queue(),
                action.members.iter().any(|it| it.0 == "queue_name")
            );
        }
    }

    #[test]
    fn bodies_are_judged_by_the_types_of_their_members() {
        let takes = |name: &str, body: &str| {
            let fields = Fields::read(body.as_bytes()).expect("an object");
            Action::find(name).expect("an action").takes(&fields)
        };
        for (name, body, expected) in [
            ("queue_list", "{}", true),
            ("queue_list", r#"{"limit": 5, "other": null}"#, true),
            ("queue_list", r#"{"limit": "5"}"#, false),
            ("queue_list", r#"{"limit": 5.0}"#, false),
            ("queue_list", r#"{"limit": true}"#, false),
            ("queue_list", r#"{"detailed": 1}"#, false),
            ("queue_get", "{}", false),
            ("queue_get", r#"{"queue_name": 1}"#, false),
            ("queue_get", r#"{"queue_name": "q"}"#, true),
            (
                "message_post",
                r#"{"queue_name": "q", "messages": {}}"#,
                false,
            ),
            (
                "message_post",
                r#"{"queue_name": "q", "messages": []}"#,
                true,
            ),
            (
                "subscription_create",
                r#"{"queue_name": "q", "options": []}"#,
                false,
            ),
        ] {
            assert_eq!(takes(name, body), expected, "{name} {body}");
        }
    }
}
