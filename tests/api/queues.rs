//! Queues (spec: queues.md).

mod create;
mod delete;
mod lazy;
mod list;
mod patch;
mod purge;
mod reserved;
mod retry_policy;
mod show;
mod stats;

/// The reserved keys of a queue that sets none, as they end its document.
const RESERVED: &str = "\"_max_messages_post_size\": 262144, \"_default_message_ttl\": 3600, \
                        \"_default_message_delay\": 0, \"_dead_letter_queue\": null, \
                        \"_dead_letter_queue_messages_ttl\": null, \"_max_claim_count\": null, \
                        \"_enable_encrypt_messages\": false}";
