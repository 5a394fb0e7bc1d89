//! The processor time of a message, beside that of the bare client library doing the same.
//!
//! `cargo bench -p isimud-sqs` starts the test server, and each contestant in turn sends, receives and deletes messages
//! of 256 bytes in tens; five rounds, of which the median counts. Only this process is measured: the server's time is
//! its own. The bare client sends nothing but bodies, and reads nothing but bodies; the second one carries one attribute
//! of the length that the driver's has, and reads when the message was sent, as the driver must. The last line is the
//! whole store: the driver with a ledger in SQLite and the journal.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails the run, and says so at that line"
)]

#[path = "../tests/broker/support.rs"]
#[allow(dead_code, reason = "a part of the trials' words")]
mod support;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message as Native, MessageAttributeValue,
    MessageSystemAttributeName as System, SendMessageBatchRequestEntry,
};
use isimud_contract::{ClaimId, Clock, Lease, MessageStore, Precondition, QueueKey, SystemClock};
use isimud_lease::{Envelope, Journal, LeaseBroker, Leased};
use isimud_sqlite::SqliteStore;
use isimud_sqs::SqsBroker;
use isimud_testing::sqs::{Corner, Emulator};
use support::{MINUTE, bare, make, message, open, queue, receipts};
use uuid::Uuid;

/// Messages of one round.
const MANY: usize = 1500;
const ROUNDS: usize = 5;
/// As long as the driver's own, give or take a digit.
const ATTRIBUTE: &str = r#"{"id":"019f6f1e-1a2b-7c3d-8e4f-5a6b7c8d9e0f","client":"00000000-0000-0000-0000-000000000007","posted_ms":1767225600000,"ttl_ms":3600000}"#;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn run() {
    let server = Emulator::start().unwrap();
    let corner = server.corner("BENCH".into());
    let contestants = [
        Contestant::bare(&corner, None).await,
        Contestant::bare(&corner, Some(ATTRIBUTE)).await,
        Contestant::Driver(open(&corner, ""), queue("driver")),
        Contestant::store(&corner),
    ];
    // Queues are made, connections opened and caches filled before anything counts.
    for contestant in &contestants {
        contestant.round(batches(100)).await;
    }
    let mut spans = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for (contestant, spans) in contestants.iter().zip(&mut spans) {
            let batches = batches(MANY);
            let before = spent();
            contestant.round(batches).await;
            spans.push((spent() - before).as_secs_f64() * 1e6 / MANY as f64);
        }
    }
    let medians: Vec<f64> = spans.iter_mut().map(|spans| median(spans)).collect();
    let names = [
        "the bare client",
        "the bare client with an attribute",
        "the driver",
        "the driver, a ledger and the journal",
    ];
    for (name, median) in names.iter().zip(&medians) {
        let ratio = median / medians[0];
        println!("{median:>6.0} us a message, {ratio:.2} times the bare client: {name}");
    }
}

fn batches(messages: usize) -> Vec<Vec<Envelope>> {
    let body = format!("\"{}\"", "x".repeat(254));
    let ten = |_| (0..10).map(|_| message(&body)).collect();
    (0..messages / 10).map(ten).collect()
}

fn median(spans: &mut [f64]) -> f64 {
    spans.sort_by(f64::total_cmp);
    spans[spans.len() / 2]
}

/// The processor time of this process, all of its threads: in nanoseconds where the scheduler tells them.
fn spent() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |thread: std::io::Result<std::fs::DirEntry>| -> u64 {
        let path = thread.unwrap().path().join("schedstat");
        let text = std::fs::read_to_string(path).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    Duration::from_nanos(threads.map(of).sum())
}

enum Contestant {
    Bare {
        client: Client,
        url: String,
        attribute: Option<&'static str>,
    },
    Driver(SqsBroker, QueueKey),
    Store(Leased<SqsBroker>, QueueKey),
}

impl Contestant {
    async fn bare(corner: &Corner, attribute: Option<&'static str>) -> Self {
        let name = format!("{}-bare-{}", corner.login, attribute.is_some());
        Self::Bare {
            client: bare(corner),
            url: make(corner, &name, &[]).await,
            attribute,
        }
    }

    fn store(corner: &Corner) -> Self {
        let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
        let ledgers = SqliteStore::open(isimud_sqlite::Config::memory(), clock()).unwrap();
        let ledger = ledgers.ledger("pool");
        let store = Leased::new(open(corner, ""), ledger, clock(), Journal::On);
        Self::Store(store, queue("store"))
    }

    async fn round(&self, batches: Vec<Vec<Envelope>>) {
        match self {
            Self::Bare {
                client,
                url,
                attribute,
            } => {
                for batch in batches {
                    send_bare(client, url, &batch, *attribute).await;
                    let got = receive_bare(client, url, attribute.is_some()).await;
                    assert_eq!(got.len(), 10);
                    delete_bare(client, url, &got).await;
                }
            }
            Self::Driver(broker, queue) => {
                for batch in batches {
                    broker.send(queue, batch).await.unwrap();
                    let got = broker.receive(queue, 10, MINUTE).await.unwrap();
                    assert_eq!(got.len(), 10);
                    broker.ack(queue, &receipts(&got)).await.unwrap();
                }
            }
            Self::Store(store, queue) => {
                for batch in batches {
                    through_the_store(store, queue, batch).await;
                }
            }
        }
    }
}

async fn through_the_store(store: &Leased<SqsBroker>, queue: &QueueKey, batch: Vec<Envelope>) {
    let messages = batch.into_iter().map(|one| one.message).collect();
    store.post(queue, messages).await.unwrap();
    let lease = Lease {
        id: ClaimId(Uuid::new_v4()),
        ttl: MINUTE,
        grace: MINUTE,
        dead_letter: None,
    };
    let claim = store.claim(queue, &lease, 10).await.unwrap().unwrap();
    let ids: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 10);
    let precondition = Precondition::ClaimedBy(vec![claim.id]);
    assert_eq!(store.delete(queue, &ids, precondition).await.unwrap(), 10);
}

async fn send_bare(client: &Client, url: &str, batch: &[Envelope], attribute: Option<&str>) {
    let entry = |(at, one): (usize, &Envelope)| {
        let body = String::from_utf8(one.message.body.to_vec()).unwrap();
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(at.to_string())
            .message_body(body);
        if let Some(text) = attribute {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(text);
            entry = entry.message_attributes("isimud", value.build().unwrap());
        }
        entry.build().unwrap()
    };
    let entries = batch.iter().enumerate().map(entry).collect();
    let call = client.send_message_batch().queue_url(url);
    let answer = call.set_entries(Some(entries)).send().await.unwrap();
    assert_eq!(answer.successful.len(), batch.len());
}

async fn receive_bare(client: &Client, url: &str, attributes: bool) -> Vec<Native> {
    let mut call = client
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(10)
        .visibility_timeout(60);
    if attributes {
        call = call
            .message_attribute_names("isimud")
            .message_system_attribute_names(System::SentTimestamp);
    }
    call.send().await.unwrap().messages.unwrap_or_default()
}

async fn delete_bare(client: &Client, url: &str, got: &[Native]) {
    let entry = |(at, one): (usize, &Native)| {
        DeleteMessageBatchRequestEntry::builder()
            .id(at.to_string())
            .receipt_handle(one.receipt_handle().unwrap())
            .build()
            .unwrap()
    };
    let entries = got.iter().enumerate().map(entry).collect();
    let call = client.delete_message_batch().queue_url(url);
    let answer = call.set_entries(Some(entries)).send().await.unwrap();
    assert_eq!(answer.successful.len(), got.len());
}
