//! The trusts of subscriptions: who may have one, and what becomes of it when the subscription changes or goes.
//!
//! ```text
//! created       after everything else is checked and before the queue is: what Keystone refuses leaves nothing behind
//! changed       a new trust where the old one would end too early, or would let one user act as another
//! deleted       the trust that the service created is deleted afterwards, without anybody waiting for it
//! expired       its trust expires at the same moment
//! ```
//!
//! A trust lets a receiver act as the user who gave it. So a subscription with the trust of one user is never changed by
//! another as it is: a change by another user gives it a trust of that user, who must name the receiver for it. And what was
//! decided for one receiver is written for that one alone.

use std::sync::Arc;
use std::time::Duration;

use isimud_contract::{
    Error, ErrorKind, Metadata, QueueKey, REASON, Result, Subscription, SubscriptionChange,
};
use serde_json::Value;

use super::Messaging;
use crate::keystone::{TrustError, Trustor, Trusts};
use crate::notifications::{TrustRecord, forget_failures, forget_trust, target_of_trust};

/// The option by which a client names a trust, and sees that of its own subscription.
const TRUST_ID: &str = "trust_id";

/// Why a user gives no trust to a receiver that somebody else has chosen.
const UNNAMED: &str = "Another user has chosen the receiver of this subscription, who would get tokens of yours. Name it as the \
                       subscriber of the change, too, if that is what you want.";

/// Subscriptions that are read at once.
const PAGE_SIZE: usize = 100;

/// The trust of a subscription after a change.
#[derive(Debug, Default)]
pub(super) struct TrustChange {
    /// What is to be deleted when the change was made.
    old: Option<TrustRecord>,
    /// What is to be deleted when the change was refused.
    new: Option<TrustRecord>,
}

/// Shows the trust of a subscription to the user whose it is, and to nobody else.
pub(crate) fn show_trust(subscription: &mut Subscription, user: Option<&str>) {
    let record = TrustRecord::read(&subscription.options);
    forget_trust(&mut subscription.options);
    if target_of_trust(&subscription.subscriber).is_none() {
        return;
    }
    subscription.options.remove(TRUST_ID);
    if let Some(record) = record
        && user == Some(&*record.user_id)
    {
        let options = &mut subscription.options;
        options.insert(TRUST_ID.to_owned(), record.id.into());
    }
}

impl Messaging {
    /// Gives a new subscription its trust: a new one, or the one that its options name.
    pub(super) async fn add_trust(
        &self,
        options: &mut Metadata,
        life: Duration,
        trustor: Option<&Trustor>,
    ) -> Result<TrustRecord> {
        let (trusts, trustor) = (self.trusts()?, known(trustor)?);
        let record = match named(options.remove(TRUST_ID))? {
            Some(id) => named_trust(trusts, id, trustor).await?,
            None => new_trust(trusts, life, trustor).await?,
        };
        record.write(options);
        Ok(record)
    }

    /// Gives a subscription its trust that has none, such as one that was imported, with the options of the user whose trust it
    /// is: what somebody else has chosen is not sent with it. It may have another address meanwhile.
    pub(super) async fn repair_trust(
        &self,
        found: &Subscription,
        mut options: Metadata,
        trustor: Option<&Trustor>,
    ) -> Result<()> {
        let life = found.ttl.saturating_sub(found.age);
        let new = self.add_trust(&mut options, life, trustor).await?;
        let change = SubscriptionChange {
            options: Some(options),
            expected_subscriber: Some(found.subscriber.clone()),
            ..SubscriptionChange::default()
        };
        let changing = self
            .management
            .update_subscription(&found.source, found.id, &change);
        let changed = changing.await;
        let (old, new) = (None, Some(new));
        self.settle_trust(TrustChange { old, new }, &changed);
        self.forget(&found.source);
        changed
    }

    /// Has a change of a subscription leave it with the trust that it needs, or with none.
    pub(super) async fn change_trust(
        &self,
        current: &Subscription,
        change: &mut SubscriptionChange,
        trustor: Option<&Trustor>,
    ) -> Result<TrustChange> {
        let receiver = change.subscriber.as_deref().unwrap_or(&current.subscriber);
        let is_trust = target_of_trust(receiver).is_some();
        let old = TrustRecord::read(&current.options);
        if !is_trust && old.is_none() {
            return Ok(TrustChange::default());
        }
        let is_moved = receiver != current.subscriber;
        let mut options = match change.options.take() {
            Some(options) => options,
            None => {
                let mut options = current.options.clone();
                // That is of the old trust, and the client has not named it now.
                options.remove(TRUST_ID);
                options
            }
        };
        forget_trust(&mut options);
        if !is_trust {
            change.options = Some(options);
            return Ok(TrustChange { old, new: None });
        }
        let (trusts, trustor) = (self.trusts()?, known(trustor)?);
        let named = named(options.remove(TRUST_ID))?;
        let is_named = |old: &TrustRecord| named.as_ref().is_none_or(|named| *named == old.id);
        let kept = old.as_ref().filter(|old| {
            old.user_id == trustor.user_id() && change.ttl.is_none() && !is_moved && is_named(old)
        });
        if let Some(kept) = kept {
            // It may allow more than this token, which then must not say what is sent with it.
            if trustor.is_delegated() {
                trusts.check(&kept.id, trustor).await.map_err(as_error)?;
            }
            kept.write(&mut options);
            change.options = Some(options);
            change.expected_subscriber = Some(current.subscriber.clone());
            return Ok(TrustChange::default());
        }
        let is_own = old
            .as_ref()
            .is_some_and(|old| old.user_id == trustor.user_id());
        if change.subscriber.is_none() && !is_own {
            return Err(Error::new(ErrorKind::Forbidden, UNNAMED));
        }
        let life = change
            .ttl
            .unwrap_or_else(|| current.ttl.saturating_sub(current.age));
        // The id of a trust that the service created comes back from a client that has read it: it names no other.
        let is_shown = |id: &String| old.as_ref().is_some_and(|old| old.created && old.id == *id);
        let new = match named.filter(|id| !is_shown(id)) {
            Some(id) => named_trust(trusts, id, trustor).await?,
            None => new_trust(trusts, life, trustor).await?,
        };
        // What failed may have failed for want of this trust.
        forget_failures(&mut options);
        new.write(&mut options);
        change.options = Some(options);
        if change.subscriber.is_none() {
            change.expected_subscriber = Some(current.subscriber.clone());
        }
        Ok(TrustChange {
            old: old.filter(|old| old.id != new.id),
            new: Some(new),
        })
    }

    /// Deletes the trust that is not needed after a change, or after a change that was refused. Where it is not known
    /// whether the change was made both stay, until they expire.
    pub(super) fn settle_trust(&self, change: TrustChange, changed: &Result<()>) {
        match changed {
            Ok(()) => self.delete_trusts(change.old),
            Err(error) if error.kind() != ErrorKind::Unavailable => self.delete_trusts(change.new),
            Err(_) => {}
        }
    }

    /// Deletes trusts that the service created, in its own time.
    pub(super) fn delete_trusts(&self, records: impl IntoIterator<Item = TrustRecord>) {
        let created = records.into_iter().filter(|record| record.created);
        if let Ok(trusts) = &self.subscribers.trusts {
            trusts.delete_soon(created.map(|record| record.id).collect());
        }
    }

    /// The trusts of all subscriptions of a queue.
    pub(super) async fn trusts_of(&self, source: &QueueKey) -> Result<Vec<TrustRecord>> {
        let mut found = Vec::new();
        if self.subscribers.trusts.is_err() {
            return Ok(found);
        }
        let mut after = None;
        loop {
            let reading = self.management.list_subscriptions(source, after, PAGE_SIZE);
            let page = reading.await?;
            let records = page.iter().map(|one| TrustRecord::read(&one.options));
            found.extend(records.flatten());
            match page.last() {
                Some(last) if page.len() == PAGE_SIZE => after = Some(last.id),
                _ => return Ok(found),
            }
        }
    }

    /// Finds the subscription of a queue for a subscriber.
    pub(super) async fn find_subscriber(
        &self,
        source: &QueueKey,
        subscriber: &str,
    ) -> Result<Option<Subscription>> {
        let mut after = None;
        loop {
            let reading = self.management.list_subscriptions(source, after, PAGE_SIZE);
            let page = reading.await?;
            let last = page.last().map(|last| last.id);
            let is_last = page.len() < PAGE_SIZE;
            let found = page.into_iter().find(|one| one.subscriber == subscriber);
            if found.is_some() || is_last {
                return Ok(found);
            }
            after = last;
        }
    }

    fn trusts(&self) -> Result<&Arc<Trusts>> {
        let trusts = self.subscribers.trusts.as_ref();
        trusts.map_err(|why| {
            Error::invalid(format!(
                "A subscriber needs a trust of Keystone, and {why}."
            ))
        })
    }
}

/// The user who asks: a trust is somebody's.
pub(super) fn known(trustor: Option<&Trustor>) -> Result<&Trustor> {
    trustor.ok_or_else(|| {
        let sentence =
            "A subscription with a trust needs a token of its user; a signature is nobody's.";
        Error::new(ErrorKind::Forbidden, sentence)
    })
}

/// Reads the id of a trust that a client names; null names none.
fn named(value: Option<Value>) -> Result<Option<String>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(_) => Err(Error::invalid("trust_id must be a string.")),
    }
}

async fn new_trust(trusts: &Trusts, life: Duration, trustor: &Trustor) -> Result<TrustRecord> {
    let created = trusts.create(trustor, life).await;
    Ok(TrustRecord {
        id: created.map_err(as_error)?,
        user_id: trustor.user_id().to_owned(),
        created: true,
    })
}

async fn named_trust(trusts: &Trusts, id: String, trustor: &Trustor) -> Result<TrustRecord> {
    trusts.check(&id, trustor).await.map_err(as_error)?;
    Ok(TrustRecord {
        id,
        user_id: trustor.user_id().to_owned(),
        created: false,
    })
}

fn as_error(error: TrustError) -> Error {
    match error {
        TrustError::Refused(why) => {
            let sentence = format!("Keystone gives no trust for the subscription: {why}");
            Error::new(ErrorKind::Forbidden, sentence)
        }
        TrustError::Foreign => Error::invalid(
            "The trust must be one that you have given this service's trustee in this project, and allow no more than your \
             token.",
        ),
        TrustError::Unavailable { why, .. } => {
            let sentence = format!("Keystone cannot be asked about a trust: {why}");
            Error::new(ErrorKind::Unavailable, sentence)
                .with(REASON, "The Keystone service is temporarily unavailable.")
        }
    }
}
