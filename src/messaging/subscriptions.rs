//! Subscriptions: who may be told of a queue's messages, for how long, and with whose consent.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Error, ErrorKind, Metadata, QueueKey, QueueName, Resource, Result, Subscription,
    SubscriptionChange, SubscriptionId, Timestamp,
};
use serde_json::Value;
use uuid::Uuid;

use super::Messaging;
use super::placement::as_invalid_request;
use super::settings::retry_policy;
use super::trusts::{self, TrustChange};
use crate::keystone::{Trustor, Trusts};
use crate::notifications::{
    AddressPolicy, DEAD_LETTER_QUEUE, Requirements, Secret, TrustRecord, WEBHOOK_SECRET,
    bare_host_of, forget_failures, forget_trust, is_mail, target_of_trust,
};
use crate::signature::is_unambiguous;

/// Seconds below which no subscription lives (fixed by the API).
const SHORTEST_TTL: i64 = 60;
/// Subscriptions that are read at once to count them.
const COUNTED_AT_ONCE: usize = 100;
/// The end of the year 9999.
const LAST_MOMENT: Timestamp = Timestamp(253_402_300_799_999);

/// What subscribers may be.
#[derive(Debug, Clone)]
pub struct Subscribers {
    /// Schemes of their addresses, in the order in which they are named to clients.
    pub types: Vec<String>,
    /// Which addresses notifications may be sent to.
    pub addresses: AddressPolicy,
    /// What a delivery needs, the agreement of its receiver too.
    pub requirements: Requirements,
    /// Creates the trusts of those that are sent a token; or why there are none.
    pub trusts: Result<Arc<Trusts>, &'static str>,
}

/// What a client asks of a subscription; values may be of any type still.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Asked {
    /// Where notifications go.
    pub subscriber: Option<Value>,
    /// Seconds to live.
    pub ttl: Option<Value>,
    /// All of its options.
    pub options: Option<Metadata>,
}

/// What became of a new subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// It is there, and its receiver has not agreed (yet).
    Waiting(SubscriptionId),
    /// The same of one that was there before: it is as it was.
    Again(SubscriptionId),
    /// There was one like it, and its receiver has agreed.
    Already,
}

impl Messaging {
    /// Subscribes a receiver to a queue or a topic, which is created when it does not exist. Where receivers have to
    /// agree it is asked, also when it was asked before. Where the receiver is sent a token, `trustor` is the user whose it
    /// is, and gives a trust. `Forbidden` when there is no such user, or Keystone refuses the trust; then nothing is created.
    pub async fn subscribe(
        &self,
        source: &QueueKey,
        asked: Asked,
        trustor: Option<&Trustor>,
    ) -> Result<Subscribed> {
        let default_ttl = self.limits().default_subscription_ttl;
        let change = self.check_subscription(asked, None)?;
        let subscriber = change.subscriber.unwrap_or_default();
        self.check_consent(source, &subscriber)?;
        let needs_trust = target_of_trust(&subscriber).is_some();
        if needs_trust {
            trusts::known(trustor)?;
        }
        let mut subscription = Subscription {
            id: SubscriptionId(Uuid::new_v4()),
            source: source.clone(),
            subscriber,
            ttl: change
                .ttl
                .unwrap_or(Duration::from_secs(default_ttl.unsigned_abs())),
            age: Duration::ZERO,
            options: change.options.unwrap_or_default(),
            confirmed: false,
        };
        self.check_room(source, &subscription.subscriber).await?;
        self.check_queue_quota(source).await?;
        // There is no trust to be lost when there is one like it.
        let found = match needs_trust {
            true => {
                self.find_subscriber(source, &subscription.subscriber)
                    .await?
            }
            false => None,
        };
        let found = match found {
            Some(found) => {
                if TrustRecord::read(&found.options).is_none() {
                    let options = subscription.options.clone();
                    self.repair_trust(&found, options, trustor).await?;
                }
                Some(found)
            }
            None => self.create_subscription(&mut subscription, trustor).await?,
        };
        let (id, subscribed) = match found {
            Some(found) if found.confirmed => return Ok(Subscribed::Already),
            Some(found) => (found.id, Subscribed::Again(found.id)),
            None => (subscription.id, Subscribed::Waiting(subscription.id)),
        };
        let Subscription {
            subscriber, ttl, ..
        } = &subscription;
        self.ask(source, id, subscriber, false, *ttl).await?;
        Ok(subscribed)
    }

    /// Subscribes a socket to a queue, which is created when it does not exist. It has agreed, as it asks itself. `life` is
    /// how long the subscription lives unless it is renewed; less where the client asks for less. Returns its id and for how
    /// long the client wants it; `None` when the socket listens to the queue already.
    pub async fn subscribe_socket(
        &self,
        source: &QueueKey,
        subscriber: String,
        asked: Asked,
        life: Duration,
    ) -> Result<Option<(SubscriptionId, Duration)>> {
        let default_ttl = self.limits().default_subscription_ttl;
        let change = self.check_subscription(asked, None)?;
        let wanted = change
            .ttl
            .unwrap_or(Duration::from_secs(default_ttl.unsigned_abs()));
        self.check_room(source, &subscriber).await?;
        self.check_queue_quota(source).await?;
        let known = self.lookup_or_create(source, None).await;
        known.map_err(as_invalid_request)?;
        let subscription = Subscription {
            id: SubscriptionId(Uuid::new_v4()),
            source: source.clone(),
            subscriber,
            ttl: wanted.min(life),
            age: Duration::ZERO,
            options: change.options.unwrap_or_default(),
            confirmed: true,
        };
        let found = self.management.create_subscription(&subscription).await?;
        self.forget(source);
        Ok(match found {
            Some(_) => None,
            None => Some((subscription.id, wanted)),
        })
    }

    /// Has the subscription of a socket live so long from now on. Returns `false` when it is gone.
    pub async fn renew_socket_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        life: Duration,
    ) -> Result<bool> {
        let change = SubscriptionChange {
            ttl: Some(life),
            ..SubscriptionChange::default()
        };
        let renewed = self
            .management
            .update_subscription(source, id, &change)
            .await;
        self.forget(source);
        match renewed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound(Resource::Subscription) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores a subscription, with the trust that it needs. Returns the one that is there already.
    async fn create_subscription(
        &self,
        subscription: &mut Subscription,
        trustor: Option<&Trustor>,
    ) -> Result<Option<Subscription>> {
        let trust = match target_of_trust(&subscription.subscriber) {
            None => None,
            Some(_) => {
                let (options, life) = (&mut subscription.options, subscription.ttl);
                Some(self.add_trust(options, life, trustor).await?)
            }
        };
        let source = &subscription.source;
        if let Err(error) = self.lookup_or_create(source, None).await {
            self.delete_trusts(trust);
            return Err(as_invalid_request(error));
        }
        // Where the store does not say whether it has it, the trust stays: it would be needed.
        let found = self.management.create_subscription(subscription).await?;
        self.forget(source);
        if found.is_some() {
            self.delete_trusts(trust);
        }
        Ok(found)
    }

    /// Whether the agreement of a subscription's receiver counts with a signature only. Where nothing can be signed anybody
    /// may agree for a receiver, if it is not one of mail.
    pub async fn asks_receiver(
        &self,
        source: &QueueKey,
        id: Option<SubscriptionId>,
    ) -> Result<bool> {
        let requirements = &self.subscribers.requirements;
        if requirements.always_requires_confirmation() && self.signer.can_sign() {
            return Ok(true);
        }
        let Some(id) = id else { return Ok(false) };
        let found = self.management.find_subscription(source, id).await?;
        Ok(found.is_some_and(|found| {
            is_mail(&found.subscriber) && requirements.requires_confirmation(&found.subscriber)
        }))
    }

    /// Refuses a receiver that has to agree and never could: nothing is signed for its project.
    fn check_consent(&self, source: &QueueKey, subscriber: &str) -> Result<()> {
        let is_asked = self
            .subscribers
            .requirements
            .requires_confirmation(subscriber)
            && self.signer.can_sign();
        if is_asked && !is_unambiguous(source.project.as_str()) {
            return Err(Error::invalid(
                "Receivers have to agree, and nothing can be signed for a project whose id contains a backslash.",
            ));
        }
        Ok(())
    }

    /// Refuses one more subscriber of a queue that has as many as it may. Two at the same time may both be let in.
    async fn check_room(&self, source: &QueueKey, subscriber: &str) -> Result<()> {
        let most = self.limits().max_subscriptions_per_queue;
        let (mut after, mut count) = (None, 0);
        while count < most {
            let page = self
                .management
                .list_subscriptions(source, after, COUNTED_AT_ONCE)
                .await?;
            count += page.len();
            if page.len() < COUNTED_AT_ONCE && count < most
                || page.iter().any(|one| one.subscriber == subscriber)
            {
                return Ok(());
            }
            after = page.last().map(|last| last.id);
        }
        Err(Error::invalid(format!(
            "A queue may have {most} subscriptions at most."
        )))
    }

    /// Has a receiver asked for its consent, or told that it gets nothing any more.
    async fn ask(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
        subscriber: &str,
        leaving: bool,
        life: Duration,
    ) -> Result<()> {
        if !self
            .subscribers
            .requirements
            .requires_confirmation(subscriber)
        {
            return Ok(());
        }
        let Some(outbox) = self.outbox.as_ref().filter(|_| self.signer.can_sign()) else {
            let reason = "signed_url.secret_key is not set, or notifications are off";
            tracing::error!(%source, subscription = %id, reason, "cannot send a confirmation request");
            return Ok(());
        };
        outbox
            .request_confirmation(source, id, leaving, self.signer.now().after(life))
            .await
    }

    /// Lists a queue's subscriptions by id.
    pub async fn list_subscriptions(
        &self,
        source: &QueueKey,
        limit: Option<i64>,
        marker: Option<&str>,
    ) -> Result<Vec<Subscription>> {
        let limit = self.limits().subscription_page(limit)?;
        let after = match marker.map(SubscriptionId::parse) {
            Some(None) => return Ok(Vec::new()),
            Some(marker) => marker,
            None => None,
        };
        self.management
            .list_subscriptions(source, after, limit)
            .await
    }

    /// Reads a subscription; `None` when the queue has none of that id.
    pub async fn find_subscription(
        &self,
        source: &QueueKey,
        id: SubscriptionId,
    ) -> Result<Option<Subscription>> {
        self.management.find_subscription(source, id).await
    }

    /// Changes a subscription. With another address it is another receiver, who has to agree for itself (quirk
    /// Q-SUB-6), and with another address or life it needs another trust, where it has one. `NotFound`, also for the id that
    /// no subscription can have; `AlreadyExists`; `Forbidden` as for a new one.
    pub async fn update_subscription(
        &self,
        source: &QueueKey,
        id: Option<SubscriptionId>,
        asked: Asked,
        trustor: Option<&Trustor>,
    ) -> Result<()> {
        // Options are checked against the address that they are for, and a trust against the one before.
        let has_trusts = self.subscribers.trusts.is_ok();
        let is_read = has_trusts || asked.subscriber.is_none() && asked.options.is_some();
        let current = match id.filter(|_| is_read) {
            Some(id) => self.management.find_subscription(source, id).await?,
            None => None,
        };
        let receiver = current.as_ref().map(|found| found.subscriber.as_str());
        let mut change = self.check_subscription(asked, receiver)?;
        if let Some(subscriber) = &change.subscriber {
            self.check_consent(source, subscriber)?;
        }
        let id = id.ok_or_else(|| Error::not_found(Resource::Subscription))?;
        let trust = match &current {
            Some(current) if has_trusts => self.change_trust(current, &mut change, trustor).await?,
            _ => TrustChange::default(),
        };
        let changed = self
            .management
            .update_subscription(source, id, &change)
            .await;
        self.settle_trust(trust, &changed);
        changed?;
        self.forget(source);
        let Some(subscriber) = change.subscriber else {
            return Ok(());
        };
        if !self
            .subscribers
            .requirements
            .requires_confirmation(&subscriber)
        {
            return Ok(());
        }
        match self.management.find_subscription(source, id).await? {
            Some(found) if !found.confirmed => {
                self.ask(source, id, &subscriber, false, found.ttl).await
            }
            _ => Ok(()),
        }
    }

    /// Deletes a subscription, and the trust that it has. It need not exist.
    pub async fn delete_subscription(&self, source: &QueueKey, id: SubscriptionId) -> Result<()> {
        let found = match self.subscribers.trusts {
            Ok(_) => self.management.find_subscription(source, id).await?,
            Err(_) => None,
        };
        self.management.delete_subscription(source, id).await?;
        self.forget(source);
        self.delete_trusts(found.and_then(|found| TrustRecord::read(&found.options)));
        Ok(())
    }

    /// Notes whether a receiver agrees. `NotFound`, also for the id that no subscription can have.
    pub async fn confirm_subscription(
        &self,
        source: &QueueKey,
        id: Option<SubscriptionId>,
        confirmed: bool,
    ) -> Result<()> {
        let id = id.ok_or_else(|| Error::not_found(Resource::Subscription))?;
        self.management
            .confirm_subscription(source, id, confirmed)
            .await?;
        self.forget(source);
        if confirmed {
            return Ok(());
        }
        let Some(found) = self.management.find_subscription(source, id).await? else {
            return Ok(());
        };
        let secs = self.limits().default_subscription_ttl.unsigned_abs();
        let life = Duration::from_secs(secs);
        self.ask(source, id, &found.subscriber, true, life).await
    }

    /// Deletes every subscription of a queue, and the trusts that they have.
    pub async fn purge_subscriptions(&self, source: &QueueKey) -> Result<()> {
        let trusts = self.trusts_of(source).await?;
        self.management.remove_subscriptions(source).await?;
        self.forget(source);
        self.delete_trusts(trusts);
        Ok(())
    }

    /// Checks what is asked, in the order of the reference: address, options, life.
    fn check_subscription(
        &self,
        mut asked: Asked,
        current: Option<&str>,
    ) -> Result<SubscriptionChange> {
        let subscriber = asked
            .subscriber
            .map(|value| self.check_subscriber(&value))
            .transpose()?;
        if let Some(options) = &mut asked.options {
            check_options(options)?;
            let receiver = subscriber.as_deref().or(current).unwrap_or("");
            let requirements = &self.subscribers.requirements;
            requirements
                .check(receiver, options)
                .map_err(Error::invalid)?;
            forget_failures(options);
            forget_trust(options);
        }
        let ttl = asked.ttl.map(|value| self.check_life(&value)).transpose()?;
        Ok(SubscriptionChange {
            subscriber,
            ttl,
            options: asked.options,
            expected_subscriber: None,
        })
    }

    fn check_subscriber(&self, value: &Value) -> Result<String> {
        let types = &self.subscribers.types;
        let subscriber = value.as_str().unwrap_or("");
        let scheme = subscriber
            .split_once(':')
            .map_or("", |(scheme, _)| scheme)
            .to_ascii_lowercase();
        if !types.contains(&scheme) {
            let named: Vec<String> = types.iter().map(|name| format!("'{name}'")).collect();
            return Err(Error::invalid(format!(
                "The subscriber type of subscription must be supported in the list [{}].",
                named.join(", ")
            )));
        }
        if target_of_trust(subscriber).is_some()
            && let Err(why) = self.subscribers.trusts
        {
            return Err(Error::invalid(format!(
                "A subscriber of type {scheme} needs a trust of Keystone, and {why}."
            )));
        }
        if bare_host_of(subscriber)
            .is_some_and(|host| self.subscribers.addresses.refuses_host(host))
        {
            return Err(Error::invalid(
                "The address of the subscriber is not one that notifications may be sent to.",
            ));
        }
        self.subscribers
            .requirements
            .check_subscriber(subscriber)
            .map_err(Error::invalid)?;
        Ok(subscriber.to_owned())
    }

    fn check_life(&self, value: &Value) -> Result<Duration> {
        // A boolean is an integer to the reference, and below any bound.
        let secs = match value {
            Value::Bool(truth) => Some(i64::from(*truth)),
            value => value.as_i64(),
        };
        let secs = secs.ok_or_else(|| Error::invalid("TTL must be an integer."))?;
        if secs < SHORTEST_TTL {
            return Err(Error::invalid(format!(
                "The TTL for a subscription must be at least {SHORTEST_TTL} seconds long."
            )));
        }
        let life = Duration::from_secs(secs.unsigned_abs());
        if self.signer.now().after(life) > LAST_MOMENT {
            return Err(Error::invalid(
                "The TTL seconds for a subscription plus current time must be less than 9999-12-31 23:59:59.999999.",
            ));
        }
        Ok(life)
    }
}

/// Checks the options that the service itself reads.
fn check_options(options: &Metadata) -> Result<()> {
    retry_policy(options.get("_retry_policy"))?;
    let is_queue = |value: &Value| {
        value
            .as_str()
            .is_some_and(|name| QueueName::parse(name).is_ok())
    };
    if options
        .get(DEAD_LETTER_QUEUE)
        .is_some_and(|value| !value.is_null() && !is_queue(value))
    {
        return Err(Error::invalid(format!(
            "{DEAD_LETTER_QUEUE} must be the name of a queue."
        )));
    }
    let is_secret = |value: &Value| value.as_str().and_then(Secret::parse).is_some();
    if options
        .get(WEBHOOK_SECRET)
        .is_some_and(|value| !value.is_null() && !is_secret(value))
    {
        return Err(Error::invalid(format!(
            "{WEBHOOK_SECRET} must be 'whsec_' and 24 to 64 bytes in base64."
        )));
    }
    Ok(())
}
