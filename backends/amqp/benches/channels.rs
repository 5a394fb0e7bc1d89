//! What channels cost: publishing and getting over channels of one's own and over shared ones, with the bare client and
//! with the broker.
//!
//! `cargo bench -p isimud-amqp` starts a RabbitMQ of its own. `SECONDS=5` measures each case for longer than a second.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step ends the measurement, and says so at that line"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{
    ClientId, Clock, Message, MessageId, ProjectId, QueueKey, QueueName, SystemClock,
};
use isimud_lease::{Envelope, LeaseBroker};
use isimud_testing::rabbitmq::Node;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

/// The messages of a claim.
const CLAIM: usize = 10;

fn main() {
    let node = Node::start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for kind in ["classic", "quorum"] {
            Case::new(&node, kind).await.measure().await;
        }
    });
}

struct Case {
    kind: &'static str,
    connection: Connection,
    broker: Arc<AmqpBroker>,
    queue: QueueKey,
    /// What RabbitMQ calls it.
    name: String,
}

impl Case {
    async fn new(node: &Node, kind: &'static str) -> Self {
        let uri = format!(
            "{}?queue_type={kind}&prefix={kind}.&timeout_ms=20000&channels=64",
            node.uri()
        );
        let broker = AmqpBroker::open(Config::parse(&uri).unwrap(), Arc::new(SystemClock)).unwrap();
        let project = ProjectId::parse("p").unwrap();
        let case = Self {
            kind,
            connection: Connection::connect(&node.uri(), ConnectionProperties::default())
                .await
                .unwrap(),
            broker: Arc::new(broker),
            queue: QueueKey::new(project, QueueName::parse("q").unwrap()),
            name: format!("{kind}.p.q"),
        };
        case.broker
            .send(&case.queue, vec![envelope()])
            .await
            .unwrap();
        case
    }

    async fn channels(&self, count: usize) -> Vec<Channel> {
        let channels = join_all((0..count).map(|_| self.connection.create_channel())).await;
        let channels: Vec<Channel> = channels.into_iter().map(Result::unwrap).collect();
        for channel in &channels {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await
                .unwrap();
        }
        channels
    }

    async fn measure(&self) {
        for callers in [1, 8, 32, 64] {
            self.broker.purge(&self.queue).await.unwrap();
            let one = self.channels(1).await;
            let own = self.channels(callers).await;
            let shared = rate(callers, async |_| publish(&one[0], &self.name).await).await;
            let own = rate(callers, async |at| publish(&own[at], &self.name).await).await;
            let ours = rate(callers, async |_| {
                self.broker
                    .send(&self.queue, vec![envelope()])
                    .await
                    .unwrap();
                1
            });
            self.tell("publish 1", callers, [shared, own, ours.await]);
        }
        for callers in [1, 8, 32] {
            let one = self.channels(1).await;
            let own = self.channels(callers).await;
            let spread = self.channels(callers * CLAIM).await;
            self.fill().await;
            let shared = rate(callers, async |_| claim(&one, &self.name).await).await;
            self.fill().await;
            let owned = rate(callers, async |at| claim(&own[at..=at], &self.name).await).await;
            self.fill().await;
            let spread = rate(callers, async |at| {
                claim(&spread[at * CLAIM..(at + 1) * CLAIM], &self.name).await
            })
            .await;
            self.fill().await;
            let ours = rate(callers, async |_| {
                let got = self.broker.receive(&self.queue, CLAIM, HOUR).await.unwrap();
                let receipts: Vec<_> = got.iter().map(|it| it.receipt.clone()).collect();
                self.broker.ack(&self.queue, &receipts).await.unwrap();
                got.len() as u64
            });
            let ours = ours.await;
            self.tell("get 10, ack 10", callers, [shared, owned, ours]);
            println!(
                "{:8} {:>15}: {callers:2} at a time: {spread:6.0}/s with a channel for each message",
                self.kind, ""
            );
        }
    }

    fn tell(&self, what: &str, callers: usize, [shared, own, ours]: [f64; 3]) {
        println!(
            "{:8} {what:>15}: {callers:2} at a time: {shared:6.0}/s on one channel, {own:6.0}/s on one each, \
             {ours:6.0}/s by the broker",
            self.kind
        );
    }

    /// Fills the queue with as many messages as can be taken in the time.
    async fn fill(&self) {
        self.broker.purge(&self.queue).await.unwrap();
        for _ in 0..(seconds() * 30.0) as usize + 10 {
            let batch = (0..1000).map(|_| envelope()).collect();
            self.broker.send(&self.queue, batch).await.unwrap();
        }
    }
}

async fn publish(channel: &Channel, queue: &str) -> u64 {
    let options = BasicPublishOptions {
        mandatory: true,
        immediate: false,
    };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let body = [b'1'; 256];
    let sent = channel.basic_publish("".into(), queue.into(), options, &body, properties);
    assert!(sent.await.unwrap().await.unwrap().is_ack());
    1
}

/// Gets the messages of a claim, one after another on each channel, and settles them.
async fn claim(channels: &[Channel], queue: &str) -> u64 {
    let each = CLAIM / channels.len();
    let gets = channels.iter().flat_map(|channel| {
        (0..each).map(move |_| async move {
            let options = BasicGetOptions { no_ack: false };
            let got = channel.basic_get(queue.into(), options).await.unwrap()?;
            let ack = channel.basic_ack(got.delivery.delivery_tag, BasicAckOptions::default());
            ack.await.unwrap();
            Some(())
        })
    });
    join_all(gets).await.into_iter().flatten().count() as u64
}

/// How many a second, with so many callers at a time.
#[expect(clippy::future_not_send, reason = "it is awaited where it is called")]
async fn rate(callers: usize, call: impl AsyncFn(usize) -> u64) -> f64 {
    let over = AtomicBool::new(false);
    let count = AtomicU64::new(0);
    let begun = Instant::now();
    let calling = join_all((0..callers).map(|at| {
        let (over, count, call) = (&over, &count, &call);
        async move {
            while !over.load(Ordering::Relaxed) {
                count.fetch_add(call(at).await, Ordering::Relaxed);
            }
        }
    }));
    let watch = async {
        tokio::time::sleep(Duration::from_secs_f64(seconds())).await;
        over.store(true, Ordering::Relaxed);
    };
    futures_util::future::join(calling, watch).await;
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

fn seconds() -> f64 {
    let seconds = std::env::var("SECONDS").ok().and_then(|it| it.parse().ok());
    seconds.unwrap_or(1.0)
}

fn envelope() -> Envelope {
    let client = ClientId::Uuid(Uuid::nil());
    let body = vec![b'1'; 256];
    Envelope {
        message: Message::new(MessageId(Uuid::now_v7()), client, HOUR, body),
        posted: SystemClock.now(),
    }
}
