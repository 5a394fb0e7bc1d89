//! Notifications: what was posted to a queue or a topic goes to its subscribers (spec: subscriptions.md 6 and 7).
//!
//! ```text
//! post -> outbox            beside the message, before the client has its answer
//!         outbox -> shard_lease   one server at a time works on a shard of the outbox, by a lease that it renews
//!                   -> fan_out    copies each entry to the delivery queue of each subscription that is to have it
//!                      -> delivery_queue   one subscription: in order, with retries, until delivered or given up
//!                         -> sender        one attempt: webhook (over connect, address), mail
//! entry    what is stored on the way    retry   when to try again
//! text     what is sent                 webhook_signature   how it is signed
//! budget   bytes in memory at once      attempt_markers     attempts that may have ended the process
//! resolve  names of hosts               rate    how many a second
//! mailboxes   for sockets of other servers: what was posted here goes to the server that a socket is connected to
//! switch   off, after days of failures
//! trust    a token of the user who subscribed, for subscribers of trust+http and trust+https
//! requirements   what is refused when a subscription is created, as it could never be sent
//! ```
//!
//! All of it is kept in internal queues of the service's own store: the shards of the outbox (`~~outbox.N`), a delivery
//! queue for each subscription that has something to get (`~~deliveries.ID`, and `~~retries.ID` for what is to be tried
//! again later), and for each shard the list of those delivery queues (`~~pending.N`). An entry leaves one queue after
//! it is in the next, and the last one after the receiver has answered. So a server that dies loses nothing: another
//! one, or itself when it is back, takes over its shards when the lease ends (at once when it was stopped in good
//! order) and goes on. A receiver may get a notification twice then; `webhook-id` tells it.
//!
//! **Order.** A subscription's notifications are sent one after the other, in the order of the posts, the next when the
//! one before was answered. One that fails is retried at once, as often as its policy says, before anything behind it.
//! When its back-off begins it goes to the retries, and those behind it go on; so order is lost for what is in
//! back-off, and for nothing else. At most 32 wait in back-off: then the queue waits for them, so that a dead receiver
//! costs little and keeps its order nearly whole.
//!
//! The road not taken: claims on the outbox and on every delivery queue. They cost a write for every delivery, and two
//! servers that claim from one queue cannot keep its order.

mod address;
mod attempt_markers;
pub(crate) mod budget;
mod connect;
mod delivery_queue;
mod entry;
mod fan_out;
mod mail;
mod mailboxes;
mod outbox;
mod rate;
mod requirements;
mod resolve;
mod retry;
mod sender;
mod shard_lease;
mod switch;
mod text;
mod trust;
mod webhook;
mod webhook_signature;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use isimud_contract::{
    Clock, Error, ManagementStore, Message, MessageId, MessageStore, QueueKey, Result,
};
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

pub use self::address::AddressPolicy;
pub(crate) use self::entry::{Entry, What};
pub(crate) use self::mail::is_mail;
pub use self::mail::{MailSettings, Password};
pub(crate) use self::mailboxes::LocalSockets;
pub use self::mailboxes::{Mailboxes, SocketSubscriber};
pub use self::outbox::Outbox;
pub use self::requirements::Requirements;
pub(crate) use self::switch::forget_failures;
pub(crate) use self::text::message as document_of_message;
pub use self::trust::{NoTrustToken, TrustTokens};
pub(crate) use self::trust::{TrustRecord, forget_trust, target_of_trust};
pub(crate) use self::webhook::HOP;
pub(crate) use self::webhook_signature::{Secret, WEBHOOK_SECRET};

use self::budget::Budget;
use self::connect::Own;
use self::mail::Mailer;
use self::sender::{ConcurrencyLimits, Sender};
use self::webhook::Webhooks;
use crate::signature::Signer;

/// The option of a subscription that names the queue for what is given up.
pub(crate) const DEAD_LETTER_QUEUE: &str = "_dead_letter_queue";

/// How notifications are sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Send notifications at all.
    pub enabled: bool,
    /// Schemes that subscribers may have.
    pub subscriber_types: Vec<String>,
    /// A receiver has to agree first.
    pub require_confirmation: bool,
    /// The page behind the links of confirmation mails.
    pub external_confirmation_url: String,
    /// Where this service is, for receivers that are to answer; empty to leave it out.
    pub service_url: String,
    /// Networks that are allowed beside the public addresses.
    pub allowed_networks: Vec<String>,
    /// A file of certificate authorities to trust beside those of the machine.
    pub ca_file: String,
    /// Seconds that a connection may take.
    pub connect_timeout_secs: u64,
    /// Seconds that an attempt may take in all.
    pub timeout_secs: u64,
    /// Attempts at once.
    pub max_deliveries: usize,
    /// Attempts at once to one host.
    pub max_deliveries_per_host: usize,
    /// Attempts at once of one project.
    pub max_deliveries_per_project: usize,
    /// Attempts a second to one host; 0 for no bound.
    pub max_per_second_per_host: u32,
    /// Attempts a second of one project; 0 for no bound.
    pub max_per_second_per_project: u32,
    /// Seconds after which a subscription is switched off of which nothing was delivered since; 0 for never.
    pub switch_off_after_secs: u64,
    /// Bytes of one notification as it is sent.
    pub max_notification_bytes: usize,
    /// Places for the message in a template.
    pub max_placeholders: usize,
    /// Bytes of notifications in memory at once: those that are sent, and as many again of those that are read.
    pub max_bytes_under_way: usize,
    /// Mails.
    pub mail: MailSettings,
}

impl Settings {
    /// Refuses settings with which nothing could be sent; says which.
    pub(crate) fn check(&self) -> Result<(), String> {
        AddressPolicy::new(&self.allowed_networks)
            .map_err(|text| format!("notifications.allowed_networks: '{text}' is not a network in CIDR notation, such as 10.0.0.0/8"))?;
        for (key, number) in [
            ("connect_timeout_secs", self.connect_timeout_secs),
            ("timeout_secs", self.timeout_secs),
            ("max_deliveries", self.max_deliveries as u64),
            (
                "max_deliveries_per_project",
                self.max_deliveries_per_project as u64,
            ),
            ("mail.max_recipients", self.mail.max_recipients as u64),
            ("max_placeholders", self.max_placeholders as u64),
            (
                "max_deliveries_per_host",
                self.max_deliveries_per_host as u64,
            ),
        ] {
            if !(1..=100_000).contains(&number) {
                return Err(format!("notifications.{key} must be 1 to 100000"));
            }
        }
        for (key, bytes) in [
            ("max_notification_bytes", self.max_notification_bytes),
            ("max_bytes_under_way", self.max_bytes_under_way),
        ] {
            if !((1 << 20)..=(1 << 36)).contains(&bytes) {
                return Err(format!(
                    "notifications.{key} must be 1048576 to 68719476736"
                ));
            }
        }
        match self.enabled {
            true => self.mail.check(),
            false => Ok(()),
        }
    }

    /// Reads the files of certificates, where notifications are sent. Fails with a sentence that names the key and the file
    /// that cannot be used.
    pub(crate) fn check_files(&self) -> Result<(), String> {
        if !self.enabled {
            return Ok(());
        }
        connect::trust(&mut RootCertStore::empty(), &self.ca_file)
            .and_then(|()| self.mail.check_files())
            .map_err(|why| format!("notifications.{why}"))
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It will not be delivered, however often it is tried.
    Refused(String),
    /// It may be delivered another time, not before so long when the receiver says so.
    Failed {
        why: String,
        after: Option<Duration>,
    },
}

/// What deliveries need of the rest of the service.
#[async_trait]
pub trait DeliveryContext: fmt::Debug + Send + Sync + 'static {
    /// The retry policy of a queue, if it has one.
    async fn retry_policy(&self, source: &QueueKey) -> Result<Option<Value>>;
    /// Opens the sealed body of a message.
    fn open(&self, message: MessageId, sealed: &Bytes) -> Result<Bytes>;
    /// Puts what was given up into a dead-letter queue, which is created when it does not exist. Nobody is notified.
    async fn dead_letter(&self, queue: &QueueKey, message: Message) -> Result<()>;
    /// Nobody listens to a queue any more.
    fn forget(&self, source: &QueueKey);
}

/// Counts what becomes of notifications.
pub trait NotificationObserver: fmt::Debug + Send + Sync + 'static {
    /// One is finished, in this way: `delivered`, `given_up`, `dead_lettered`, `expired`, `dropped`,
    /// `switched_off`.
    fn finished(&self, how: &'static str);
    /// An attempt failed and will be made again.
    fn retried(&self);
}

/// What deliveries are made of.
#[derive(Debug)]
pub struct Parts {
    /// Where cannot acquire the shard of the outbox, retrying.
    pub outbox: Arc<Outbox>,
    /// Who subscribes to what.
    pub management: Arc<dyn ManagementStore>,
    /// How to send.
    pub settings: Settings,
    /// Signs confirmation requests.
    pub signer: Signer,
    /// Gets the tokens of trust subscriptions; none where there are no trusts.
    pub trust_tokens: Option<Arc<dyn TrustTokens>>,
    /// The time in the headers of notifications.
    pub clock: Arc<dyn Clock>,
    /// Hears what becomes of them.
    pub observer: Arc<dyn NotificationObserver>,
    /// Bytes that a message may have.
    pub largest_message: usize,
}

/// Sends what the outbox holds, for as long as it runs.
#[derive(Debug)]
pub struct Deliveries {
    outbox: Arc<Outbox>,
    management: Arc<dyn ManagementStore>,
    context: Arc<dyn DeliveryContext>,
    sender: Sender,
    observer: Arc<dyn NotificationObserver>,
    requirements: Requirements,
    clock: Arc<dyn Clock>,
    /// This server's listeners.
    own: Own,
    /// Bytes that an entry may have.
    largest_entry: usize,
    /// Bytes that are read from delivery queues and not sent yet.
    reading: Budget,
    /// Bytes that are read from the outbox and not in delivery queues yet.
    fanning: Budget,
}

impl Deliveries {
    /// Prepares to send; nothing is sent yet. `Invalid` when the settings cannot be used.
    pub fn new(parts: Parts, context: Arc<dyn DeliveryContext>) -> Result<Self> {
        let settings = parts.settings;
        let wrong = |why: String| Error::invalid(format!("notifications: {why}"));
        let timeout = Duration::from_secs(settings.timeout_secs);
        let addresses = AddressPolicy::new(&settings.allowed_networks).map_err(wrong)?;
        let connecting = Duration::from_secs(settings.connect_timeout_secs);
        let own = Own::default();
        let connector =
            connect::connector(addresses, Own::clone(&own), connecting, &settings.ca_file)
                .map_err(wrong)?;
        // A body that is sealed is longer, and every entry says what it is.
        let largest_entry = parts.largest_message / 3 * 4 + (4 << 10);
        let bytes = settings.max_bytes_under_way;
        Ok(Self {
            largest_entry,
            requirements: Requirements::new(&settings),
            clock: Arc::clone(&parts.clock),
            own,
            reading: Budget::new(bytes),
            fanning: Budget::with_share(bytes, bytes),
            outbox: parts.outbox,
            management: parts.management,
            context,
            sender: Sender {
                webhooks: Webhooks::new(connector, timeout, parts.clock),
                mailer: Mailer::new(&settings.mail, timeout).map_err(wrong)?,
                signer: parts.signer,
                limits: ConcurrencyLimits::new(&settings),
                sending: Budget::new(bytes),
                trust_tokens: parts.trust_tokens,
                clear_token: Once::new(),
                settings,
            },
            observer: parts.observer,
        })
    }

    /// Sends until told to stop; then finishes the attempts that run, and lets other servers go on.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) {
        shard_lease::run(self, stop).await;
    }

    fn store(&self) -> &Arc<dyn MessageStore> {
        self.outbox.store()
    }

    /// Says where this server listens: notifications never go there.
    pub fn never_to(&self, own: Vec<SocketAddr>) {
        // They do not change while a server runs.
        drop(self.own.set(own));
    }

    /// Whether a subscriber gets nothing as long as it has not agreed.
    fn awaits_confirmation(&self, subscriber: &str) -> bool {
        self.requirements.requires_confirmation(subscriber)
    }
}

/// The host, and the port where it is given, of an address of HTTP.
pub(crate) fn host_of(subscriber: &str) -> Option<&str> {
    let (scheme, rest) = subscriber.split_once("://")?;
    if scheme.eq_ignore_ascii_case("mailto") {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, place)| place),
    )
}

/// The host without its port.
pub(crate) fn bare_host_of(subscriber: &str) -> Option<&str> {
    let place = host_of(subscriber)?;
    if place.starts_with('[') {
        return place.find(']').map(|end| &place[..=end]);
    }
    Some(place.rsplit_once(':').map_or(place, |(host, _)| host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_addresses() {
        for (subscriber, host, bare) in [
            ("http://h/x", "h", "h"),
            ("HTTPS://me:p@h:81?x#y", "h:81", "h"),
            ("http://[::1]:80/", "[::1]:80", "[::1]"),
            ("http://h", "h", "h"),
        ] {
            assert_eq!(host_of(subscriber), Some(host));
            assert_eq!(bare_host_of(subscriber), Some(bare));
        }
        assert_eq!(host_of("mailto:a@b"), None);
        assert_eq!(host_of("http:"), None);
    }
}
