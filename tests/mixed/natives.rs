//! Producers and consumers that know nothing of Isimud: lapin for RabbitMQ, boto3 for SQS.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isimud_testing::sqs::Corner;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

/// A queue of a broker, as its native clients know it.
#[derive(Debug, Clone)]
pub(crate) enum Native {
    Rabbit { uri: String, name: String },
    Sqs { corner: Corner, name: String },
}

/// What a native consumer found: the number in the body, and the one beside it.
pub(crate) type Found = (u64, Option<u64>);

impl Native {
    /// Makes the queue: in RabbitMQ of this kind.
    pub(crate) fn make(&self, kind: &str) {
        match self {
            Self::Rabbit { uri, name } => in_rabbit(uri, async |channel| {
                let mut arguments = FieldTable::default();
                let kind = AMQPValue::LongString(kind.into());
                arguments.insert("x-queue-type".into(), kind);
                let options = QueueDeclareOptions::durable();
                let made = channel.queue_declare(name.as_str().into(), options, arguments);
                made.await.expect("a queue");
            }),
            Self::Sqs { corner, name } => run(corner, &[name, "make"]),
        }
    }

    /// Publishes numbers in order, each with itself beside the body, and pauses after each ten.
    pub(crate) fn produce(&self, first: u64, count: u64, pause: Duration) {
        match self {
            Self::Rabbit { uri, name } => in_rabbit(uri, async |channel| {
                let confirm = ConfirmSelectOptions::default();
                channel.confirm_select(confirm).await.expect("confirms");
                for number in first..first + count {
                    publish(&channel, name, number).await;
                    if number % 10 == 9 {
                        tokio::time::sleep(pause).await;
                    }
                }
            }),
            Self::Sqs { corner, name } => {
                let pause = pause.as_millis().to_string();
                let (first, count) = (first.to_string(), count.to_string());
                run(corner, &[name, "produce", &first, &count, &pause]);
            }
        }
    }

    /// Takes up to so many messages, until it is `over`, and pauses after each ten.
    pub(crate) fn consume(
        &self,
        limit: u64,
        pause: Duration,
        over: &AtomicBool,
        mut found: impl FnMut(Found) + Send,
    ) {
        match self {
            Self::Rabbit { uri, name } => in_rabbit(uri, async |channel| {
                let mut taken = 0;
                while taken < limit && !over.load(Ordering::Relaxed) {
                    match take(&channel, name).await {
                        Some(one) => {
                            found(one);
                            taken += 1;
                            if taken % 10 == 0 {
                                tokio::time::sleep(pause).await;
                            }
                        }
                        None => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            }),
            Self::Sqs { corner, name } => {
                let (limit, pause) = (limit.to_string(), pause.as_millis().to_string());
                let mut command = corner.python("tests/mixed/sqs.py", &[]);
                command.args([name, "consume", &limit, &pause]);
                let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn().expect("Python can be run");
                let output = child.stdout.take().expect("its output");
                std::thread::scope(|scope| {
                    let reader = scope.spawn(|| {
                        for line in BufReader::new(output).lines() {
                            found(read(&line.expect("a line")));
                        }
                    });
                    wait(&mut child, || over.load(Ordering::Relaxed));
                    reader.join().expect("what it found is read");
                });
            }
        }
    }
}

async fn publish(channel: &Channel, queue: &str, number: u64) {
    let mut headers = FieldTable::default();
    let value = i64::try_from(number).expect("a number");
    headers.insert("number".into(), AMQPValue::LongLongInt(value));
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_headers(headers);
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let body = number.to_string();
    let published = channel.basic_publish(
        "".into(),
        queue.into(),
        options,
        body.as_bytes(),
        properties,
    );
    let confirmed = published
        .await
        .expect("a publish")
        .await
        .expect("a confirm");
    assert!(
        matches!(confirmed, Confirmation::Ack(None)),
        "{number}: {confirmed:?}"
    );
}

async fn take(channel: &Channel, queue: &str) -> Option<Found> {
    let got = channel.basic_get(queue.into(), BasicGetOptions::default());
    let delivery = got.await.expect("an answer")?.delivery;
    let text = String::from_utf8_lossy(&delivery.data).into_owned();
    let body = text.parse().expect("a number");
    let headers = delivery.properties.headers().as_ref();
    let beside = headers.and_then(|headers| match headers.inner().get("number")? {
        AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortInt(number) => u64::try_from(*number).ok(),
        AMQPValue::ShortShortInt(number) => u64::try_from(*number).ok(),
        other => panic!("{body}: {other:?}"),
    });
    let acknowledged = delivery.acker.ack(BasicAckOptions::default());
    acknowledged.await.expect("it is acknowledged");
    Some((body, beside))
}

/// Does something on a channel of its own.
fn in_rabbit(uri: &str, work: impl AsyncFnOnce(Channel)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let connected = Connection::connect(uri, ConnectionProperties::default());
        let connection = connected.await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        work(channel.clone()).await;
        let closed = connection.close(200, "done".into()).await;
        closed.expect("it closes");
        drop(channel);
    });
}

/// A line of the script's.
fn read(line: &str) -> Found {
    let mut words = line.split(' ').map(|word| word.parse().ok());
    let body = words.next().flatten().expect("a number");
    (body, words.next().flatten())
}

fn run(corner: &Corner, arguments: &[&str]) {
    let mut command = corner.python("tests/mixed/sqs.py", arguments);
    let status = command.stdin(Stdio::null()).status();
    assert!(
        status.expect("Python can be run").success(),
        "{arguments:?}"
    );
}

/// Waits until the script has ended, and tells it to when it is time.
fn wait(child: &mut Child, over: impl Fn() -> bool) {
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return assert!(status.success(), "the native consumer ended with {status}");
        }
        if over() {
            drop(child.stdin.take());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
