//! Subscriptions that fail for days are switched off, where everybody can see it: in their options.
//!
//! ```text
//! _failing_since   seconds since 1970: nothing was delivered since
//! _switched_off    why; nothing is tried any more, and what comes is handled like what is given up
//! ```
//!
//! The service writes both, once for each change, and removes them when something is delivered. An owner who replaces the
//! options of a subscription (PATCH) begins anew.

use std::time::Duration;

use isimud_contract::{ErrorKind, Metadata, Result, Subscription, SubscriptionChange};
use serde_json::Value;

use super::Deliveries;

const FAILING_SINCE: &str = "_failing_since";
const SWITCHED_OFF: &str = "_switched_off";

/// Whether a subscription is switched off.
pub(crate) fn is_off(subscription: &Subscription) -> bool {
    subscription.options.contains_key(SWITCHED_OFF)
}

/// Whether something is noted that is no longer so when a notification was delivered.
pub(crate) fn is_noted(subscription: &Subscription) -> bool {
    subscription.options.contains_key(FAILING_SINCE) || is_off(subscription)
}

/// Takes what only the service writes out of the options that a client sends.
pub(crate) fn forget_failures(options: &mut Metadata) {
    options.remove(FAILING_SINCE);
    options.remove(SWITCHED_OFF);
}

impl Deliveries {
    /// Notes that a notification was given up, and switches the subscription off if it was so for too long.
    pub(crate) async fn note_failure(&self, subscription: &Subscription, why: &str) -> Result<()> {
        let timeout = Duration::from_secs(self.sender.settings.switch_off_after_secs);
        if timeout.is_zero() || is_off(subscription) {
            return Ok(());
        }
        let now = self.clock.now().0.div_euclid(1000);
        let since = subscription
            .options
            .get(FAILING_SINCE)
            .and_then(Value::as_i64);
        let mut options = subscription.options.clone();
        match since {
            None => drop(options.insert(FAILING_SINCE.to_owned(), now.into())),
            Some(since) if now.saturating_sub(since).unsigned_abs() >= timeout.as_secs() => {
                tracing::warn!(subscription = %subscription.id, queue = %subscription.source, why, "subscription switched off: no delivery succeeded for too long");
                let text: String = why.chars().take(200).collect();
                options.insert(SWITCHED_OFF.to_owned(), text.into());
            }
            Some(_) => return Ok(()),
        }
        self.replace_options(subscription, options).await
    }

    /// Notes that a notification was delivered.
    pub(crate) async fn note_success(&self, subscription: &Subscription) -> Result<()> {
        if !is_noted(subscription) {
            return Ok(());
        }
        let mut options = subscription.options.clone();
        forget_failures(&mut options);
        self.replace_options(subscription, options).await
    }

    /// Replaces the options, unless their owner did so meanwhile.
    async fn replace_options(&self, read: &Subscription, options: Metadata) -> Result<()> {
        let found = self
            .management
            .find_subscription(&read.source, read.id)
            .await?;
        if found.is_none_or(|found| found.options != read.options) {
            return Ok(());
        }
        let change = SubscriptionChange {
            options: Some(options),
            // A trust among the options is for that receiver.
            expected_subscriber: Some(read.subscriber.clone()),
            ..SubscriptionChange::default()
        };
        let changing = self
            .management
            .update_subscription(&read.source, read.id, &change);
        match changing.await {
            Err(error) if matches!(error.kind(), ErrorKind::InUse(_) | ErrorKind::NotFound(_)) => {
                Ok(())
            }
            changed => changed,
        }
    }
}
