//! A trial's place in the node: a prefix of its own, brokers on it, and a native client beside them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{
    ClientId, Clock, Delivery, ManualClock, Message, MessageId, ProjectId, QueueKey, QueueName,
    Receipt, SystemClock,
};
use isimud_lease::{Envelope, LeaseBroker};
use isimud_testing::rabbitmq::Node;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use uuid::Uuid;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// How long a call may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// How long something that happens by itself may take.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Setup {
    node: String,
    /// The same as the user with the documented rights.
    limited: String,
    pub(crate) kind: &'static str,
    pub(crate) prefix: String,
}

impl Setup {
    pub(crate) fn new(node: &Node, kind: &'static str, number: u64) -> Self {
        Self {
            node: node.uri(),
            limited: node.limited_uri(),
            kind,
            prefix: format!("trial{number}."),
        }
    }

    /// A broker for queues of its own.
    pub(crate) fn open(&self) -> Arc<AmqpBroker> {
        self.open_with("")
    }

    pub(crate) fn open_with(&self, options: &str) -> Arc<AmqpBroker> {
        Arc::new(AmqpBroker::open(self.config(options), Arc::new(SystemClock)).unwrap())
    }

    fn config(&self, options: &str) -> Config {
        Config::parse(&self.uri(&self.limited, options)).unwrap()
    }

    fn uri(&self, node: &str, options: &str) -> String {
        let (kind, prefix) = (self.kind, &self.prefix);
        let timeout = TIMEOUT.as_millis();
        format!("{node}?queue_type={kind}&prefix={prefix}&timeout_ms={timeout}{options}")
    }

    /// A broker whose holds end by this clock.
    pub(crate) fn open_by(&self, clock: Arc<ManualClock>) -> Arc<AmqpBroker> {
        let config = self.config("&clock=service");
        Arc::new(AmqpBroker::open(config, clock).unwrap())
    }

    /// A broker that takes the queues of the existing deployment as they are: those that begin with the trial's prefix.
    pub(crate) fn adopting(&self, options: &str) -> Arc<AmqpBroker> {
        self.open_with(&self.adopted(options))
    }

    /// The same as a user who may do everything, and so is told of which kind a queue is.
    pub(crate) fn adopting_with_all_rights(&self) -> Arc<AmqpBroker> {
        let uri = self.uri(&self.node, &self.adopted(""));
        let config = Config::parse(&uri).unwrap();
        Arc::new(AmqpBroker::open(config, Arc::new(SystemClock)).unwrap())
    }

    fn adopted(&self, options: &str) -> String {
        let prefix = &self.prefix;
        format!("&adopt=true&project=p&name={prefix}{{queue}}&prefix=own.{prefix}{options}")
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// What RabbitMQ calls a queue of the trial's.
    pub(crate) fn name(&self, queue: &str) -> String {
        format!("{}p.{queue}", self.prefix)
    }

    pub(crate) async fn native(&self) -> Native {
        let options = ConnectionProperties::default();
        let connection = Connection::connect(&self.node, options).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        confirm.await.unwrap();
        Native {
            connection,
            channel,
        }
    }
}

/// A client that knows nothing of Isimud.
pub(crate) struct Native {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

impl Native {
    pub(crate) async fn declare(&self, queue: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions::durable();
        let declared = self.channel.queue_declare(queue.into(), options, arguments);
        declared.await.unwrap();
    }

    pub(crate) async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let published =
            self.channel
                .basic_publish("".into(), queue.into(), options, body, properties);
        let confirmed = published.await.unwrap().await.unwrap();
        assert_eq!(confirmed, Confirmation::Ack(None));
    }

    /// Takes a message away.
    pub(crate) async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        let options = BasicGetOptions { no_ack: true };
        self.channel.basic_get(queue.into(), options).await.unwrap()
    }

    /// How many are ready; `None` when there is no such queue.
    pub(crate) async fn ready(&self, queue: &str) -> Option<u32> {
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions::durable().passive();
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        declared.await.ok().map(|queue| queue.message_count())
    }
}

pub(crate) fn table(arguments: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub(crate) fn queue(name: &str) -> QueueKey {
    QueueKey::new(
        ProjectId::parse("p").unwrap(),
        QueueName::parse(name).unwrap(),
    )
}

pub(crate) fn envelope(body: impl Into<Bytes>) -> Envelope {
    let client = ClientId::Uuid(Uuid::from_u128(1));
    Envelope {
        message: Message::new(MessageId(Uuid::now_v7()), client, 10 * MINUTE, body),
        posted: SystemClock.now(),
    }
}

/// So many messages, whose bodies are their numbers.
pub(crate) fn numbered(count: usize) -> Vec<Envelope> {
    (0..count)
        .map(|number| envelope(number.to_string()))
        .collect()
}

pub(crate) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    let body = |it: &Delivery| String::from_utf8(it.message.body.to_vec()).unwrap();
    deliveries.iter().map(body).collect()
}

pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub(crate) fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|it| it.receipt.clone()).collect()
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<MessageId> {
    deliveries.iter().map(|it| it.message.id).collect()
}

/// Receives until there are so many.
pub(crate) async fn until_there(
    broker: &AmqpBroker,
    queue: &QueueKey,
    count: usize,
) -> Vec<Delivery> {
    let begun = Instant::now();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "only {} came", all.len());
        let some = broker.receive(queue, count - all.len(), MINUTE).await;
        all.extend(some.unwrap());
    }
    all
}

/// Asks until the answer is right.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
