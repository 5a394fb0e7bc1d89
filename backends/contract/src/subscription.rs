//! A subscription: who is told of a queue's messages.

use std::time::Duration;

use crate::{Metadata, QueueKey, SubscriptionId};

/// A subscription, as it is handed to a store and as the store gives it back (spec: subscriptions.md 1).
///
/// It lives `ttl` from its creation or from the last change of its ttl, by the store's own clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Its name.
    pub id: SubscriptionId,
    /// The queue, or the topic, that it listens to.
    pub source: QueueKey,
    /// The address, exactly as given: what uniqueness compares.
    pub subscriber: String,
    /// How long it lives.
    pub ttl: Duration,
    /// How long ago it was made, or its ttl last set. Ignored at creation.
    pub age: Duration,
    /// What the subscriber asked for.
    pub options: Metadata,
    /// Its receiver has agreed.
    pub confirmed: bool,
}

/// What an update changes; `None` leaves a part as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscriptionChange {
    /// A new address. The subscription counts as not confirmed then, if it really is another (quirk Q-SUB-6).
    pub subscriber: Option<String>,
    /// A new life, from now on.
    pub ttl: Option<Duration>,
    /// New options in place of the old.
    pub options: Option<Metadata>,
    /// Nothing is changed unless the subscription still has this address: what was decided for one receiver is not given to
    /// another.
    pub expected_subscriber: Option<String>,
}
