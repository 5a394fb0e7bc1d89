//! Reserved metadata: the keys of a queue that the service itself reads (spec: queues.md 1).

use std::borrow::Cow;
use std::time::Duration;

use isimud_contract::{Error, Kind, Metadata, QueueName, Result, Timestamp};
use serde_json::{Value, json};

use super::limits::{Limits, SHORTEST_TTL};
use crate::notifications::SocketSubscriber;

/// What a queue's metadata mean for its messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The life of messages posted without one.
    pub(crate) default_ttl: Option<Duration>,
    /// The delay of messages posted without one. A queue without it delays nothing (quirk Q-MSG-6).
    pub(crate) delay: Option<Duration>,
    /// The queue's own cap on the size of a post, in bytes.
    pub(crate) max_post_size: Option<usize>,
    /// How many messages it may have.
    pub(crate) max_messages: Option<u64>,
    /// How many bytes its messages may have.
    pub(crate) max_bytes: Option<u64>,
    /// Where over-claimed messages go.
    pub(crate) dead_letter: Option<DeadLetterSettings>,
    /// Bodies are encrypted at rest.
    pub(crate) encrypt: bool,
    /// When the notifications of subscriptions are retried that do not say.
    pub(crate) retry_policy: Option<Value>,
    /// Who may listen to the queue; what [`Settings::read`] cannot know.
    pub(crate) listeners: Listeners,
}

/// Who may listen to a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listeners {
    /// Until when somebody may to whom notifications are sent; `None` for nobody.
    pub(crate) until: Option<Timestamp>,
    /// Sockets, and until when each of them may.
    pub(crate) sockets: Vec<(SocketSubscriber, Timestamp)>,
}

/// The dead-letter policy as the metadata state it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetterSettings {
    pub(crate) queue: QueueName,
    pub(crate) max_claims: u32,
    pub(crate) ttl: Option<Duration>,
}

impl Settings {
    /// Reads what validated metadata say. A value of a wrong type counts as unset.
    pub(crate) fn read(metadata: &Metadata) -> Self {
        let integer = |key: &str| metadata.get(key).and_then(Value::as_i64);
        let secs = |key: &str| {
            integer(key)
                .filter(|secs| *secs > 0)
                .map(|secs| Duration::from_secs(secs.unsigned_abs()))
        };
        let bound = |key: &str| {
            integer(key)
                .and_then(|most| u64::try_from(most).ok())
                .filter(|most| *most > 0)
        };
        let target = metadata.get("_dead_letter_queue").and_then(Value::as_str);
        let dead_letter = integer("_max_claim_count")
            .zip(target.and_then(|name| QueueName::parse(name).ok()))
            .map(|(count, queue)| DeadLetterSettings {
                queue,
                max_claims: u32::try_from(count.max(0)).unwrap_or(u32::MAX),
                ttl: secs("_dead_letter_queue_messages_ttl"),
            });
        Self {
            default_ttl: secs("_default_message_ttl"),
            delay: secs("_default_message_delay"),
            max_post_size: integer("_max_messages_post_size")
                .and_then(|size| usize::try_from(size).ok()),
            max_messages: bound("_max_messages"),
            max_bytes: bound("_max_bytes"),
            dead_letter,
            encrypt: metadata.get("_enable_encrypt_messages") == Some(&Value::Bool(true)),
            retry_policy: metadata.get("_retry_policy").cloned(),
            listeners: Listeners::default(),
        }
    }
}

/// The flavor that metadata name. What is no name is one that no flavor has.
pub(crate) fn flavor(metadata: &Metadata) -> Option<Cow<'_, str>> {
    match metadata.get("_flavor") {
        None => None,
        Some(Value::String(name)) if !name.is_empty() => Some(name.into()),
        Some(value) if is_falsy(value) => None,
        Some(value) => Some(value.to_string().into()),
    }
}

/// The keys that every queue is shown to have, and what is shown when they are unset. A topic has the first three.
pub(crate) fn reserved(limits: &Limits, kind: Kind) -> Vec<(&'static str, Value)> {
    let mut reserved = vec![
        (
            "_max_messages_post_size",
            json!(limits.max_messages_post_size),
        ),
        ("_default_message_ttl", json!(limits.default_message_ttl)),
        (
            "_default_message_delay",
            json!(limits.default_message_delay),
        ),
        ("_dead_letter_queue", Value::Null),
        ("_dead_letter_queue_messages_ttl", Value::Null),
        ("_max_claim_count", Value::Null),
        ("_enable_encrypt_messages", json!(false)),
    ];
    if kind == Kind::Topic {
        reserved.truncate(3);
    }
    reserved
}

/// Fills in the reserved keys that are unset, after those that are there.
pub(crate) fn with_reserved(mut metadata: Metadata, limits: &Limits, kind: Kind) -> Metadata {
    for (key, default) in reserved(limits, kind) {
        match metadata.get_mut(key) {
            Some(value) if is_falsy(value) => *value = default,
            Some(_) => {}
            None => {
                metadata.insert(key.to_owned(), default);
            }
        }
    }
    metadata
}

/// What Python takes for false.
pub(crate) fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.is_empty(),
    }
}

/// Checks the reserved keys, in the order of the specification; the first fault is reported.
pub(crate) fn validate(metadata: &Metadata, limits: &Limits) -> Result<()> {
    let bounded = |key: &str, least: i64, most: i64, sentence: String| match integer(metadata, key)?
    {
        Some(number) if !(least..=most).contains(&number) => Err(Error::invalid(sentence)),
        _ => Ok(()),
    };
    let (ttl, size, delay) = (
        limits.max_message_ttl,
        limits.max_messages_post_size,
        limits.max_message_delay,
    );
    bounded(
        "_default_message_ttl",
        SHORTEST_TTL,
        ttl,
        format!(
            "_default_message_ttl can not exceed {ttl} seconds, and must be at least {SHORTEST_TTL} seconds long."
        ),
    )?;
    bounded(
        "_max_messages_post_size",
        1,
        i64::try_from(size).unwrap_or(i64::MAX),
        format!(
            "_max_messages_post_size can not exceed {size},  and must be at least greater than 0."
        ),
    )?;
    integer(metadata, "_max_claim_count")?;
    bounded(
        "_dead_letter_queue_messages_ttl",
        SHORTEST_TTL,
        ttl,
        format!(
            "The TTL for a message may not exceed {ttl} seconds, and must be at least {SHORTEST_TTL} seconds long."
        ),
    )?;
    bounded(
        "_default_message_delay",
        0,
        delay,
        format!("The TTL can not exceed {delay} seconds, and must be at least 0 seconds long."),
    )?;
    dead_letter_queue(metadata.get("_dead_letter_queue"))?;
    for key in ["_max_messages", "_max_bytes"] {
        bounded(key, 1, i64::MAX, format!("{key} must be at least 1."))?;
    }
    match metadata.get("_enable_encrypt_messages") {
        Some(value) if !is_falsy(value) && !value.is_boolean() => {
            Err(Error::invalid("_enable_encrypt_messages must be boolean."))
        }
        _ => retry_policy(metadata.get("_retry_policy")),
    }
}

/// A key that must be an integer. `null` means unset; a boolean is no integer (quirk Q-HTTP-5).
fn integer(metadata: &Metadata, key: &str) -> Result<Option<i64>> {
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("{key} must be integer."))),
    }
}

/// The reference does not look at it, and every claim that should move a message fails later (quirk Q-HTTP-2). Here a text
/// that cannot be the name of a queue is refused when it is written; metadata that were imported with one have no policy.
fn dead_letter_queue(value: Option<&Value>) -> Result<()> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(name)) if name.is_empty() || QueueName::parse(name).is_ok() => Ok(()),
        Some(_) => Err(Error::invalid(
            "_dead_letter_queue must be the name of a queue.",
        )),
    }
}

/// The retry policy of notifications (spec: queues.md 1.1).
pub(crate) fn retry_policy(policy: Option<&Value>) -> Result<()> {
    let policy = match policy {
        None => return Ok(()),
        Some(value) if is_falsy(value) => return Ok(()),
        Some(Value::Object(policy)) => policy,
        Some(_) => return Err(Error::invalid("retry_policy must be a dict.")),
    };
    let integer = |key: &str, default: i64| match policy.get(key) {
        None => Ok(default),
        Some(value) => value
            .as_i64()
            .ok_or_else(|| Error::invalid(format!("Retry policy: {key} must be a integer."))),
    };
    integer("retries_with_no_delay", 3)?;
    integer("minimum_delay_retries", 3)?;
    let minimum = integer("minimum_delay", 5)?;
    let maximum = integer("maximum_delay", 30)?;
    integer("maximum_delay_retries", 3)?;
    match policy.get("retry_backoff_function") {
        None => {}
        Some(Value::String(name))
            if ["linear", "arithmetic", "geometric", "exponential"].contains(&name.as_str()) => {}
        Some(value) if is_falsy(value) => {}
        Some(Value::String(_)) => return Err(Error::invalid("invalid retry_backoff_function.")),
        Some(_) => return Err(Error::invalid("retry_backoff_function must be a string.")),
    }
    if policy
        .get("ignore_subscription_override")
        .is_some_and(|value| !is_falsy(value) && !value.is_boolean())
    {
        return Err(Error::invalid(
            "ignore_subscription_override must be a boolean.",
        ));
    }
    if maximum < minimum {
        return Err(Error::invalid(
            "minimum_delay must less than maximum_delay.",
        ));
    }
    if maximum.saturating_sub(minimum) < 10 {
        return Err(Error::invalid("invalid minimum_delay and maximum_delay."));
    }
    Ok(())
}
