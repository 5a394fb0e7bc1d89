//! The vocabulary of trials.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud_contract::{
    ClientId, Clock, Delivery, Message, MessageId, ProjectId, QueueKey, QueueName, Receipt,
    SystemClock,
};
use isimud_lease::{Envelope, LeaseBroker};
use isimud_sqs::{Config, SqsBroker};
use isimud_testing::sqs::Corner;
use uuid::Uuid;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// How a broker of a corner is opened, by way of a port.
pub(crate) fn config(corner: &Corner, port: u16, options: &str) -> Config {
    let config = Config::parse(&corner.uri(port, options)).unwrap();
    config.with_login(&corner.login, "secret")
}

pub(crate) fn open(corner: &Corner, options: &str) -> SqsBroker {
    open_by(corner, corner.port, options)
}

/// A broker behind a proxy.
pub(crate) fn open_by(corner: &Corner, port: u16, options: &str) -> SqsBroker {
    SqsBroker::open(config(corner, port, options), Arc::new(SystemClock)).unwrap()
}

pub(crate) fn queue(name: &str) -> QueueKey {
    QueueKey::new(
        ProjectId::parse("p").unwrap(),
        QueueName::parse_stored(name).unwrap(),
    )
}

pub(crate) fn message(body: &str) -> Envelope {
    let client = ClientId::Uuid(Uuid::from_u128(7));
    let id = MessageId(Uuid::now_v7());
    Envelope {
        message: Message::new(id, client, Duration::from_secs(3600), body.to_owned()),
        posted: SystemClock.now(),
    }
}

/// Messages with the numbers as bodies.
pub(crate) fn numbers(range: std::ops::Range<usize>) -> Vec<Envelope> {
    range.map(|number| message(&number.to_string())).collect()
}

pub(crate) fn bodies(got: &[Delivery]) -> Vec<String> {
    let body = |delivery: &Delivery| String::from_utf8(delivery.message.body.to_vec()).unwrap();
    got.iter().map(body).collect()
}

pub(crate) fn receipts(got: &[Delivery]) -> Vec<Receipt> {
    got.iter()
        .map(|delivery| delivery.receipt.clone())
        .collect()
}

/// Receives and settles until nothing comes any more.
pub(crate) async fn take_all(broker: &SqsBroker, queue: &QueueKey) -> Vec<Delivery> {
    let mut taken = Vec::new();
    loop {
        let got = broker.receive(queue, 100, MINUTE).await.unwrap();
        if got.is_empty() {
            return taken;
        }
        broker.ack(queue, &receipts(&got)).await.unwrap();
        taken.extend(got);
    }
}

/// Asks again until it is so.
pub(crate) async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The bare client of SQS.
pub(crate) fn bare(corner: &Corner) -> aws_sdk_sqs::Client {
    use aws_sdk_sqs::config::{BehaviorVersion, Builder, Credentials, Region};
    use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let config = Builder::new()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(format!("http://127.0.0.1:{}", corner.port))
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(
            &corner.login,
            "secret",
            None,
            None,
            "test",
        ))
        .http_client(http)
        .build();
    aws_sdk_sqs::Client::from_conf(config)
}

/// Queues that this corner has, by their names without its prefix.
pub(crate) async fn names(corner: &Corner) -> Vec<String> {
    let prefix = format!("{}-", corner.login);
    let answer = bare(corner)
        .list_queues()
        .queue_name_prefix(&prefix)
        .send()
        .await
        .unwrap();
    let name = |url: &String| url.rsplit_once(&prefix).unwrap().1.to_owned();
    answer.queue_urls().iter().map(name).collect()
}

/// Makes a queue as somebody else would.
pub(crate) async fn make(corner: &Corner, name: &str, attributes: &[(&str, &str)]) -> String {
    let mut call = bare(corner).create_queue().queue_name(name);
    for (key, value) in attributes {
        call = call.attributes((*key).into(), *value);
    }
    call.send().await.unwrap().queue_url.unwrap()
}
