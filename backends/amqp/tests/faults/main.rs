//! What happens when RabbitMQ is stopped, killed, held up, short of memory or out of patience, when the network fails in
//! the middle of anything, and when a server dies with what it holds.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step fails its trial, and says so at that line"
)]

mod cuts;
mod deaths;
mod endurance;
mod holder;
mod load;
mod sizes;
mod stalls;
mod stops;
mod tls;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isimud_amqp::{AmqpBroker, Config};
use isimud_contract::{
    ClientId, Clock, Delivery, ErrorKind, Message, MessageId, ProjectId, QueueKey, QueueName,
    Receipt, SystemClock,
};
use isimud_lease::{Envelope, LeaseBroker};
use isimud_testing::rabbitmq::{Node, Set};
use isimud_testing::trial;
use libtest_mimic::{Arguments, Trial};
use uuid::Uuid;

type Started = LazyLock<Result<Node, String>>;

/// A node that nobody harms.
static STEADY: Started = LazyLock::new(Node::start);

/// A node for those who harm it, one after another.
static MORTAL: Started = LazyLock::new(Node::start);
static TURN: Mutex<()> = Mutex::new(());

/// A node that gives up on a delivery after three seconds, where half an hour is usual.
static IMPATIENT: Started = LazyLock::new(|| {
    Node::start_with(Set {
        lines: vec!["consumer_timeout = 3000".into()],
        arguments: "-rabbit channel_tick_interval 500",
        ..Set::default()
    })
});

/// A node that allows few channels, so that what is used up is missed soon, and no large messages.
static NARROW: Started = LazyLock::new(|| {
    Node::start_with(Set {
        lines: vec!["channel_max = 20".into(), "max_message_size = 65536".into()],
        ..Set::default()
    })
});

static TRIALS: AtomicU64 = AtomicU64::new(0);

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1800);
/// How much longer than its time-out a call may take on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_millis(3000);

type Check = fn(Setup) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn main() -> ExitCode {
    isimud_conformance::show_logs();
    if let Ok(order) = std::env::var(holder::ORDER) {
        return holder::hold(&order);
    }
    macro_rules! trials {
        ($($node:ident: $($name:path),+ $(,)?;)+) => {
            vec![$($(trial_on(stringify!($name), &$node, |setup| Box::pin($name(setup))),)+)+]
        };
    }
    let mut trials = trials! {
        MORTAL:
            deaths::a_killed_node_is_unavailable_until_it_is_back,
            deaths::a_node_that_hangs_is_unavailable_in_time,
            deaths::concurrent_callers_get_everything_from_a_node_that_hangs,
            deaths::a_node_without_memory_takes_no_messages_and_gives_them,
            deaths::a_broker_opens_while_the_node_is_down,
            stops::nothing_acknowledged_is_lost_when_a_node_dies_under_load,
            stops::nothing_acknowledged_is_lost_when_a_node_is_stopped_under_load,
            stops::nothing_acknowledged_is_lost_when_the_application_stops_under_load,
            stops::nothing_acknowledged_is_lost_when_connections_are_closed_under_load,
            stalls::a_companion_that_never_answers_is_passed_by_and_not_taken_for_empty;
        STEADY:
            cuts::what_is_confirmed_is_there_wherever_a_publish_is_cut,
            cuts::nothing_is_lost_wherever_a_get_is_cut,
            cuts::nothing_is_lost_wherever_an_ack_is_cut,
            cuts::a_native_message_has_one_id_wherever_its_adoption_is_cut,
            cuts::a_silent_network_is_unavailable_in_time,
            stalls::a_queue_that_does_not_answer_disturbs_no_other,
            deaths::whoever_is_not_let_in_is_told,
            holder::a_killed_server_leaves_nothing_behind,
            holder::claims_of_a_killed_server_live_on_and_end_in_time;
        NARROW:
            endurance::refused_questions_use_nothing_up,
            sizes::a_message_that_the_node_does_not_take_is_refused_for_good_and_costs_nobody_else,
            sizes::of_several_messages_none_is_stored_where_one_is_too_large;
        IMPATIENT:
            deaths::visibility_ends_before_the_consumer_timeout_of_the_node,
            deaths::a_node_that_loses_patience_costs_a_channel;
    };
    macro_rules! tls_trials {
        ($($name:path),+ $(,)?) => { $(trials.push(tls::trial_on(stringify!($name), $name));)+ };
    }
    tls_trials! {
        tls::a_certificate_of_a_known_authority_is_trusted,
        tls::a_certificate_of_nobody_known_is_not_trusted,
        tls::a_client_shows_its_certificate,
        tls::tls_files_that_cannot_be_read_are_refused_at_once,
    }
    let status = libtest_mimic::run(&Arguments::from_args(), trials);
    // Statics are never dropped, and nodes are to end.
    for node in [
        &STEADY,
        &MORTAL,
        &NARROW,
        &IMPATIENT,
        &tls::NODE,
        &tls::STRICT,
    ] {
        if let Some(Ok(node)) = LazyLock::get(node) {
            node.end();
        }
    }
    status.exit_code()
}

fn trial_on(name: &'static str, node: &'static Started, check: Check) -> Trial {
    Trial::ignorable_test(name, move || {
        let _turn = std::ptr::eq(node, &raw const MORTAL)
            .then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
        let node = node.as_ref().map_err(Clone::clone);
        trial::run(node, |node| check(Setup::on(node)))
    })
}

/// A trial's place in a node.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) node: &'static Node,
    pub(crate) prefix: String,
}

impl Setup {
    fn on(node: &'static Node) -> Self {
        let number = TRIALS.fetch_add(1, Ordering::Relaxed);
        Self {
            node,
            prefix: format!("trial{number}."),
        }
    }

    /// The address of a broker that is to wait no longer than [`TIMEOUT`].
    pub(crate) fn uri(&self, port: u16, options: &str) -> String {
        let prefix = &self.prefix;
        let timeout = TIMEOUT.as_millis();
        format!(
            "amqp://127.0.0.1:{port}?prefix={prefix}&timeout_ms={timeout}&heartbeat_s=2{options}"
        )
    }

    pub(crate) fn open(&self) -> Arc<AmqpBroker> {
        open(&self.uri(self.node.port(), ""))
    }
}

pub(crate) fn open(uri: &str) -> Arc<AmqpBroker> {
    let config = Config::parse(uri).unwrap();
    Arc::new(AmqpBroker::open(config, Arc::new(SystemClock)).unwrap())
}

pub(crate) fn queue(name: &str) -> QueueKey {
    QueueKey::new(
        ProjectId::parse("p").unwrap(),
        QueueName::parse(name).unwrap(),
    )
}

pub(crate) fn message(body: &str) -> Message {
    let client = ClientId::Uuid(Uuid::nil());
    let body = body.to_owned();
    Message::new(MessageId(Uuid::now_v7()), client, 100 * MINUTE, body)
}

pub(crate) fn envelope() -> Envelope {
    Envelope {
        message: message("{}"),
        posted: SystemClock.now(),
    }
}

pub(crate) fn receipts(deliveries: &[Delivery]) -> Vec<Receipt> {
    deliveries.iter().map(|it| it.receipt.clone()).collect()
}

pub(crate) async fn send_one(broker: &AmqpBroker) -> isimud_contract::Result<MessageId> {
    let envelope = envelope();
    let id = envelope.message.id;
    broker.send(&queue("q"), vec![envelope]).await.map(|()| id)
}

/// Sends until that works again.
pub(crate) async fn recovered(broker: &AmqpBroker) -> MessageId {
    let begun = Instant::now();
    loop {
        match send_one(broker).await {
            Ok(id) => return id,
            Err(error) if begun.elapsed() > 2 * MINUTE => panic!("it never works again: {error}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every call is refused, each within the time-out.
pub(crate) async fn assert_unavailable(broker: &AmqpBroker) {
    let q = queue("q");
    for _ in 0..3 {
        let begun = Instant::now();
        let refusals = [
            send_one(broker).await.err(),
            broker.receive(&q, 1, MINUTE).await.err(),
            broker.depth(&q).await.err(),
            broker.ping().await.err(),
        ];
        let took = begun.elapsed();
        assert!(took < 4 * (TIMEOUT + SLACK), "{took:?}");
        for refusal in refusals {
            let refusal = refusal.unwrap();
            assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        }
    }
}

/// Receives until each of these has come, and settles them. Others may come too, and some twice.
pub(crate) async fn all_come(
    broker: &AmqpBroker,
    mut wanted: std::collections::HashSet<MessageId>,
    patience: Duration,
) -> Vec<MessageId> {
    let begun = Instant::now();
    let mut came = Vec::new();
    while !wanted.is_empty() {
        assert!(begun.elapsed() < patience, "{} never came", wanted.len());
        if let Ok(got) = broker.receive(&queue("q"), 100, MINUTE).await {
            for delivery in &got {
                wanted.remove(&delivery.message.id);
                came.push(delivery.message.id);
            }
            broker.ack(&queue("q"), &receipts(&got)).await.ok();
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    came
}
