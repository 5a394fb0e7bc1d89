//! A server runs for a year: what its calls use up is given back, or it is told nobody.
//!
//! The node allows 20 channels of a connection where 2,047 are usual, so that a hundred calls show what a hundred thousand
//! would. `AMQP_ENDURANCE=50` does fifty times as many.

use std::fs;
use std::time::{Duration, Instant};

use isimud_amqp::AmqpBroker;
use isimud_contract::{ProjectId, QueueKey, QueueName};
use isimud_lease::LeaseBroker;
use isimud_testing::rabbitmq::Node;

use crate::{MINUTE, Setup, envelope, receipts};

/// How many calls of a kind.
const CALLS: usize = 100;

/// How long an idle server must cost nothing, and how long RabbitMQ may write about what was before.
const IDLE: Duration = Duration::from_secs(3);
const MAX_SETTLING_TIME: Duration = Duration::from_secs(30);

fn times() -> usize {
    let given = std::env::var("AMQP_ENDURANCE").ok();
    given.and_then(|it| it.parse().ok()).unwrap_or(1)
}

fn queue(project: &str, name: String) -> QueueKey {
    QueueKey::new(
        ProjectId::parse(project).unwrap(),
        QueueName::parse(&name).unwrap(),
    )
}

/// The lines that RabbitMQ has written about what went wrong.
fn complaints(node: &Node) -> Vec<String> {
    let files = fs::read_dir(node.folder().join("log")).unwrap();
    let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines
        .filter(|line| line.contains("[error]") || line.contains("[warning]"))
        .collect()
}

fn channels(node: &Node) -> usize {
    let listed = node.control(&["-q", "list_channels", "pid"]).unwrap();
    listed.lines().filter(|line| line.starts_with('<')).count()
}

async fn post_and_take(broker: &AmqpBroker, queue: &QueueKey) {
    broker.send(queue, vec![envelope()]).await.unwrap();
    let got = broker.receive(queue, 1, MINUTE).await.unwrap();
    assert_eq!(got.len(), 1);
    broker.ack(queue, &receipts(&got)).await.unwrap();
}

pub(crate) async fn refused_questions_use_nothing_up(setup: Setup) {
    let broker = crate::open(&setup.uri(setup.node.port(), "&queue_type=classic&timeout_ms=10000"));
    let other = queue("other", "q".into());
    post_and_take(&broker, &other).await;
    let (open, said) = (channels(setup.node), complaints(setup.node));
    let begun = Instant::now();
    let calls = CALLS * times();
    for number in 0..calls {
        // Made, used and empty.
        post_and_take(&broker, &queue("p", format!("made{number}"))).await;
    }
    eprintln!("{calls} new queues: {:?}", begun.elapsed());
    for number in 0..2 * calls {
        // Of every twenty nineteen are not there, and are asked for again and again.
        let name = match number % 20 {
            0 => format!("made{}", number / 2),
            missing => format!("missing{missing}"),
        };
        let got = broker.receive(&queue("p", name), 1, MINUTE).await;
        assert!(got.unwrap().is_empty());
    }
    eprintln!("{calls} claims: {:?}", begun.elapsed());
    for number in 0..2 * calls {
        // What a look at the service's health does.
        broker.ping().await.unwrap();
        if number % 20 == 0 {
            let health = queue("health", format!("h{number}"));
            post_and_take(&broker, &health).await;
            assert_eq!(broker.depth(&health).await.unwrap().ready, 0);
            broker.drop_queue(&health).await.unwrap();
        }
    }
    eprintln!("{calls} pings: {:?}", begun.elapsed());
    for number in 0..calls {
        let made = queue("p", format!("made{number}"));
        broker.drop_queue(&made).await.unwrap();
        // Once more, and what else is done with what is not there.
        broker.drop_queue(&made).await.unwrap();
        if number % 20 == 0 {
            broker.purge(&made).await.unwrap();
            assert_eq!(broker.depth(&made).await.unwrap().ready, 0);
        }
    }
    eprintln!("{calls} deletes: {:?}", begun.elapsed());
    post_and_take(&broker, &other).await;
    post_and_take(&broker, &queue("another", "q".into())).await;
    let more = complaints(setup.node).split_off(said.len());
    // Of what is not there RabbitMQ is asked a few times, and now and then while it is asked for; no more.
    let names = 19 + calls / 20;
    let again = usize::try_from(begun.elapsed().as_secs()).unwrap() / 4 + 4;
    assert!(
        more.len() <= 2 * names * again,
        "{} lines, such as {:?}",
        more.len(),
        &more[..4]
    );
    eprintln!("{} lines of complaint, {names} names", more.len());
    // Idle, it costs nothing: after a while, for RabbitMQ writes its log late, there are three seconds without a line.
    let idle_since = Instant::now();
    loop {
        let lines = complaints(setup.node).len();
        tokio::time::sleep(IDLE).await;
        let more = complaints(setup.node).split_off(lines);
        if more.is_empty() {
            break;
        }
        assert!(
            idle_since.elapsed() < MAX_SETTLING_TIME,
            "idle, it is complained of: {more:?}"
        );
    }
    let now = channels(setup.node);
    assert!(
        now <= open + 4,
        "{now} channels are open, there were {open}"
    );
}
