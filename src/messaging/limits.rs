//! The bounds of what clients may ask for, and the sentences that refuse what is outside them (spec: config.md 6).

use std::time::Duration;

use isimud_contract::{Error, Result};
use serde::{Deserialize, Serialize};

/// Seconds below which no time to live is accepted (fixed by the API).
pub const SHORTEST_TTL: i64 = 60;

/// What clients may ask for. Times are in seconds, sizes in bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The life of a message whose post and queue name none.
    pub default_message_ttl: i64,
    /// Shown for queues that set no delay; it delays nothing by itself.
    pub default_message_delay: i64,
    /// The length of a claim that names none.
    pub default_claim_ttl: i64,
    /// The grace of a claim that names none.
    pub default_claim_grace: i64,
    /// Queues in one page of a listing.
    pub max_queues_per_page: usize,
    /// Pools in one page of a listing.
    pub max_pools_per_page: usize,
    /// Flavors in one page of a listing.
    pub max_flavors_per_page: usize,
    /// Messages in one page of a listing, ids in one call.
    pub max_messages_per_page: usize,
    /// The life of a subscription that names none.
    pub default_subscription_ttl: i64,
    /// Subscriptions in one page of a listing.
    pub max_subscriptions_per_page: usize,
    /// Subscriptions of one queue.
    pub max_subscriptions_per_queue: usize,
    /// Messages in one claim or pop.
    pub max_messages_per_claim_or_pop: usize,
    /// Bytes of a queue's metadata document.
    pub max_queue_metadata: usize,
    /// Bytes of one post of messages.
    pub max_messages_post_size: usize,
    /// Connections of the API.
    pub max_connections: usize,
    /// Connections of the API from one address; 0 for no bound.
    pub max_connections_per_address: usize,
    /// Bytes of request bodies that have not arrived in whole, of all clients.
    pub max_request_bytes_under_way: usize,
    /// Bytes of large answers that have not been taken in whole, of all clients.
    pub max_answer_bytes_under_way: usize,
    /// Longest life of a message.
    pub max_message_ttl: i64,
    /// Longest delay of a message.
    pub max_message_delay: i64,
    /// Longest claim.
    pub max_claim_ttl: i64,
    /// Longest grace.
    pub max_claim_grace: i64,
}

/// Seconds above which no time in the configuration makes sense: a hundred years.
const LONGEST: i64 = 100 * 366 * 86_400;

/// What refuses the size of a page of things that are listed by name.
const LISTED: &str = "Limit must be at least 1 and no greater than";

/// How many things a page holds when the client does not say.
pub const DEFAULT_PAGE: usize = 10;

impl Limits {
    /// Refuses limits under which nothing could be asked for, or times that go backwards.
    pub(crate) fn check(&self) -> Result<()> {
        let times = [
            ("default_message_ttl", self.default_message_ttl, 1),
            ("default_message_delay", self.default_message_delay, 0),
            ("default_claim_ttl", self.default_claim_ttl, 1),
            ("default_claim_grace", self.default_claim_grace, 1),
            (
                "default_subscription_ttl",
                self.default_subscription_ttl,
                SHORTEST_TTL,
            ),
            ("max_message_ttl", self.max_message_ttl, SHORTEST_TTL),
            ("max_message_delay", self.max_message_delay, 0),
            ("max_claim_ttl", self.max_claim_ttl, SHORTEST_TTL),
            ("max_claim_grace", self.max_claim_grace, SHORTEST_TTL),
        ];
        for (key, secs, least) in times {
            if !(least..=LONGEST).contains(&secs) {
                let sentence = format!("limits.{key} must be {least} to {LONGEST} seconds");
                return Err(Error::invalid(sentence));
            }
        }
        let counts = [
            ("max_queues_per_page", self.max_queues_per_page),
            ("max_pools_per_page", self.max_pools_per_page),
            ("max_flavors_per_page", self.max_flavors_per_page),
            ("max_messages_per_page", self.max_messages_per_page),
            (
                "max_subscriptions_per_page",
                self.max_subscriptions_per_page,
            ),
            (
                "max_subscriptions_per_queue",
                self.max_subscriptions_per_queue,
            ),
            (
                "max_messages_per_claim_or_pop",
                self.max_messages_per_claim_or_pop,
            ),
            ("max_queue_metadata", self.max_queue_metadata),
            ("max_connections", self.max_connections),
            (
                "max_request_bytes_under_way",
                self.max_request_bytes_under_way,
            ),
            (
                "max_answer_bytes_under_way",
                self.max_answer_bytes_under_way,
            ),
            ("max_messages_post_size", self.max_messages_post_size),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((key, _)) => Err(Error::invalid(format!("limits.{key} must be at least 1"))),
            None => Ok(()),
        }
    }

    /// A message's time to live.
    pub(crate) fn message_ttl(&self, secs: i64) -> Result<Duration> {
        let max = self.max_message_ttl;
        within(secs, SHORTEST_TTL, max).ok_or_else(|| {
            Error::invalid(format!(
                "The TTL for a message may not exceed {max} seconds, and must be at least {SHORTEST_TTL} seconds long."
            ))
        })
    }

    /// A message's delay.
    pub(crate) fn message_delay(&self, secs: i64) -> Result<Duration> {
        let max = self.max_message_delay;
        within(secs, 0, max).ok_or_else(|| {
            Error::invalid(format!(
                "The Delay TTL for a message may not exceed {max} seconds,and must be at least 0 seconds long."
            ))
        })
    }

    /// A claim's time to live.
    pub(crate) fn claim_ttl(&self, secs: i64) -> Result<Duration> {
        let max = self.max_claim_ttl;
        within(secs, SHORTEST_TTL, max).ok_or_else(|| {
            Error::invalid(format!(
                "The TTL for a claim may not exceed {max} seconds, and must be at least {SHORTEST_TTL} seconds long."
            ))
        })
    }

    /// A claim's grace.
    pub(crate) fn claim_grace(&self, secs: i64) -> Result<Duration> {
        let max = self.max_claim_grace;
        within(secs, SHORTEST_TTL, max).ok_or_else(|| {
            Error::invalid(format!(
                "The grace for a claim may not exceed {max} seconds, and must be at least {SHORTEST_TTL} seconds long."
            ))
        })
    }

    /// How many queues to list.
    pub(crate) fn queue_page(&self, asked: Option<i64>) -> Result<usize> {
        page(asked, self.max_queues_per_page, LISTED)
    }

    /// How many pools to list.
    pub(crate) fn pool_page(&self, asked: Option<i64>) -> Result<usize> {
        page(asked, self.max_pools_per_page, LISTED)
    }

    /// How many flavors to list.
    pub(crate) fn flavor_page(&self, asked: Option<i64>) -> Result<usize> {
        page(asked, self.max_flavors_per_page, LISTED)
    }

    /// How many messages to list.
    pub(crate) fn message_page(&self, asked: Option<i64>) -> Result<usize> {
        page(
            asked,
            self.max_messages_per_page,
            "Limit must be at least 1 and may not be greater than",
        )
    }

    /// How many subscriptions to list.
    pub(crate) fn subscription_page(&self, asked: Option<i64>) -> Result<usize> {
        page(
            asked,
            self.max_subscriptions_per_page,
            "Limit must be at least 1 and may not be greater than",
        )
    }

    /// How many messages to claim.
    pub(crate) fn claim_page(&self, asked: Option<i64>) -> Result<usize> {
        page(
            asked,
            self.max_messages_per_claim_or_pop,
            "Limit must be at least 1 and may not be greater than",
        )
    }

    /// How many messages to pop.
    pub(crate) fn pop_count(&self, asked: i64) -> Result<usize> {
        page(
            Some(asked),
            self.max_messages_per_claim_or_pop,
            "Pop value must be at least 1 and may not be greater than",
        )
    }
}

fn within(secs: i64, least: i64, most: i64) -> Option<Duration> {
    (least..=most)
        .contains(&secs)
        .then(|| Duration::from_secs(secs.unsigned_abs()))
}

fn page(asked: Option<i64>, most: usize, sentence: &str) -> Result<usize> {
    let Some(asked) = asked else {
        return Ok(DEFAULT_PAGE);
    };
    usize::try_from(asked)
        .ok()
        .filter(|asked| (1..=most).contains(asked))
        .ok_or_else(|| Error::invalid(format!("{sentence} {most}.")))
}
