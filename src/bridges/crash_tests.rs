//! Bridging, cut off at every call, before and after the call's effect, and overtaken at every call.

mod simulation;

use std::sync::Arc;

use self::simulation::{Fault, FaultInjector, POISON, Simulation, StoreKind};
use super::leader_lease::BridgeError;

const MESSAGES: usize = 7;

/// Every pair of stores that behaves in its own way.
const PAIRS: [(StoreKind, StoreKind); 5] = [
    (StoreKind::Whole, StoreKind::Whole),
    (StoreKind::Whole, StoreKind::Leased),
    (StoreKind::Leased, StoreKind::Whole),
    (StoreKind::Leased, StoreKind::Leased),
    (StoreKind::Journaled, StoreKind::Journaled),
];

fn numbers() -> Vec<String> {
    (0..MESSAGES).map(|number| number.to_string()).collect()
}

async fn simulation((source, target): (StoreKind, StoreKind)) -> Simulation {
    let simulation = Simulation::new(source, target).await;
    simulation.post(numbers()).await;
    simulation
}

/// The calls of a server that nothing happens to.
async fn calls(pair: (StoreKind, StoreKind)) -> usize {
    let simulation = simulation(pair).await;
    let faults = FaultInjector::new(Fault::Never);
    simulation.server(&faults).run().await.expect("no fault");
    let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
    assert_eq!(met, numbers(), "{pair:?}");
    faults.calls()
}

#[tokio::test]
async fn a_bridge_that_is_cut_off_anywhere_brings_each_message_once_and_in_order() {
    for pair in PAIRS {
        let calls = calls(pair).await;
        assert!(calls > 15, "{calls} calls of {pair:?}");
        for at in 0..calls {
            for fault in [Fault::Before(at), Fault::After(at)] {
                let simulation = simulation(pair).await;
                let dies = simulation.server(&FaultInjector::new(fault));
                dies.run().await.expect_err("it dies");
                // Consumers are done with what they met, and their store knows nothing of it any more.
                let mut met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
                let next = simulation.server(&FaultInjector::new(Fault::Never));
                next.run().await.expect("it goes on");
                met.extend(Simulation::consume(&simulation.target, &simulation.rule.to).await);
                assert_eq!(met, numbers(), "{pair:?}, {fault:?}");
                let left = Simulation::consume(&simulation.source, &simulation.rule.from).await;
                assert_eq!(left, [""; 0], "{pair:?}, {fault:?}");
            }
        }
    }
}

/// There, and back: what both stores know of the messages now is that they were deleted.
async fn back_again(pair: (StoreKind, StoreKind)) -> Simulation {
    let simulation = simulation(pair).await;
    let never = || FaultInjector::new(Fault::Never);
    simulation.server(&never()).run().await.expect("there");
    simulation.server_back(&never()).run().await.expect("back");
    simulation
}

#[tokio::test]
async fn a_bridge_there_and_back_and_there_again_brings_each_message_once_and_in_order() {
    for pair in PAIRS {
        let simulation = back_again(pair).await;
        let faults = FaultInjector::new(Fault::Never);
        simulation.server(&faults).run().await.expect("there again");
        let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
        assert_eq!(met, numbers(), "{pair:?}");
        for at in 0..faults.calls() {
            for fault in [Fault::Before(at), Fault::After(at)] {
                let simulation = back_again(pair).await;
                let dies = simulation.server(&FaultInjector::new(fault));
                dies.run().await.expect_err("it dies");
                let mut met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
                let next = simulation.server(&FaultInjector::new(Fault::Never));
                next.run().await.expect("it goes on");
                met.extend(Simulation::consume(&simulation.target, &simulation.rule.to).await);
                assert_eq!(met, numbers(), "{pair:?}, {fault:?}");
                let left = Simulation::consume(&simulation.source, &simulation.rule.from).await;
                assert_eq!(left, [""; 0], "{pair:?}, {fault:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_is_overtaken_and_goes_on_doubles_nothing() {
    for pair in PAIRS {
        for at in 0..calls(pair).await {
            let simulation = simulation(pair).await;
            let faults = FaultInjector::new(Fault::Late(at));
            let late = simulation.server(&faults);
            let late = tokio::spawn(async move { late.run().await });
            faults.stands.notified().await;
            let next = simulation.server(&FaultInjector::new(Fault::Never));
            next.run().await.expect("it goes on");
            let mut met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
            faults.goes_on.notify_one();
            drop(late.await.expect("no panic"));
            let last = simulation.server(&FaultInjector::new(Fault::Never));
            last.run().await.expect("it goes on");
            met.extend(Simulation::consume(&simulation.target, &simulation.rule.to).await);
            assert_eq!(met, numbers(), "{pair:?}, late at {at}");
        }
    }
}

fn refusing(simulation: &mut Simulation) {
    simulation.largest = Some(100);
}

fn large() -> String {
    format!("\"{}\"", "x".repeat(200))
}

#[tokio::test]
async fn without_a_dead_letter_queue_it_stops_at_what_is_refused() {
    for refused in [large(), POISON.into()] {
        let mut simulation = Simulation::new(StoreKind::Whole, StoreKind::Leased).await;
        refusing(&mut simulation);
        let before = ["1", "2", "3", "4"].map(String::from);
        let all = before.iter().cloned().chain([refused, "6".into()]);
        simulation.post(all).await;
        let server = simulation.server(&FaultInjector::new(Fault::Never));
        for _ in 0..2 {
            let halt = server.run().await.expect_err("it is refused");
            assert!(matches!(halt, BridgeError::Rejected(_)), "{halt:?}");
        }
        let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
        assert_eq!(met, before);
        // Nobody holds what stayed, and it goes on when that is gone.
        let popped = simulation
            .source
            .pop(&simulation.rule.from, 1)
            .await
            .expect("a pop");
        assert_eq!(popped.len(), 1);
        server.run().await.expect("nothing is refused");
        let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
        assert_eq!(met, ["6"]);
    }
}

#[tokio::test]
async fn what_is_refused_goes_to_the_dead_letter_queue() {
    let mut simulation = Simulation::new(StoreKind::Whole, StoreKind::Leased).await;
    refusing(&mut simulation);
    simulation.rule.dead_letter = super::parse_queue("p/refused").ok();
    let dead = simulation.rule.dead_letter.clone().expect("a queue");
    let all = ["1", POISON, "3", &large(), "5", "6", "7", "8"].map(String::from);
    simulation.post(all).await;
    let server = simulation.server(&FaultInjector::new(Fault::Never));
    server.run().await.expect("it goes on");
    let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
    assert_eq!(met, ["1", "3", "5", "6", "7", "8"]);
    let met = Simulation::consume(&simulation.source, &dead).await;
    assert_eq!(met, [POISON.to_owned(), large()]);
    let left = Simulation::consume(&simulation.source, &simulation.rule.from).await;
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn a_bridge_that_cannot_account_for_every_message_leaves_them_in_the_source() {
    let mut simulation = simulation((StoreKind::Whole, StoreKind::Whole)).await;
    simulation.forgets = true;
    let server = simulation.server(&FaultInjector::new(Fault::Never));
    let halt = server.run().await.expect_err("one is missing");
    let BridgeError::Failed(error) = halt else {
        panic!("{halt:?}");
    };
    assert_eq!(
        error.kind(),
        isimud_contract::ErrorKind::Internal,
        "{error}"
    );
    let stats = simulation
        .source
        .stats(&simulation.rule.from)
        .await
        .expect("counts");
    assert_eq!(stats.free + stats.claimed, MESSAGES as u64);
    simulation.forgets = false;
    let server = simulation.server(&FaultInjector::new(Fault::Never));
    server.run().await.expect("it goes on");
    let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
    assert_eq!(met, numbers());
}

#[tokio::test]
async fn what_others_hold_or_have_deleted_does_not_cross() {
    use isimud_contract::{ClaimId, Lease, Precondition};
    let simulation = simulation((StoreKind::Whole, StoreKind::Whole)).await;
    let from = &simulation.rule.from;
    let lease = Lease {
        id: ClaimId(uuid::Uuid::now_v7()),
        ttl: std::time::Duration::from_secs(600),
        grace: std::time::Duration::ZERO,
        dead_letter: None,
    };
    let claim = simulation
        .source
        .claim(from, &lease, 2)
        .await
        .expect("a claim");
    let held: Vec<_> = claim.expect("messages").messages;
    let server = simulation.server(&FaultInjector::new(Fault::Never));
    server.run().await.expect("no fault");
    let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
    assert_eq!(met, numbers()[2..]);
    let precondition = Precondition::ClaimedBy(vec![lease.id]);
    let deleted = simulation
        .source
        .delete(from, &[held[0].id], precondition)
        .await;
    assert_eq!(deleted.expect("a delete"), 1);
    simulation
        .source
        .release_claim(from, lease.id)
        .await
        .expect("a release");
    server.run().await.expect("no fault");
    let met = Simulation::consume(&simulation.target, &simulation.rule.to).await;
    assert_eq!(met, ["1"]);
}

#[tokio::test]
async fn a_target_that_encrypts_does_so_with_what_comes_over_a_bridge() {
    let encrypting = serde_json::json!({"_enable_encrypt_messages": true});
    for (from_is_sealed, to_is_sealed) in [(true, false), (false, true), (true, true)] {
        let mut simulation = Simulation::new(StoreKind::Whole, StoreKind::Whole).await;
        for (queue, is_sealed) in [("p/c", from_is_sealed), ("p/d", to_is_sealed)] {
            let queue = super::parse_queue(queue).expect("a queue");
            let metadata = is_sealed.then(|| encrypting.as_object().cloned());
            simulation
                .make(&queue, metadata.flatten().unwrap_or_default())
                .await;
        }
        simulation.rule = super::Rule::parse("p/c", "p/d", None, None).expect("a rule");
        let server = simulation.server(&FaultInjector::new(Fault::Never));
        let (messaging, client) = (
            &server.messaging,
            isimud_contract::ClientId::Uuid(uuid::Uuid::nil()),
        );
        let draft = crate::messaging::Draft {
            ttl: None,
            delay: None,
            body: "\"secret\"".into(),
            headers: None,
        };
        let (from, to) = (&simulation.rule.from, &simulation.rule.to);
        let rules = messaging.post_rules(from).await.expect("rules");
        let posted = messaging.post(from, &client, rules, vec![draft]).await;
        let ids = posted.expect("a post");
        let kept = simulation.source.get(from, &ids).await.expect("an answer");
        assert_eq!(kept[0].sealed, from_is_sealed);
        server.run().await.expect("no fault");
        let kept = simulation.source.get(to, &ids).await.expect("an answer");
        assert_eq!(kept[0].sealed, to_is_sealed);
        assert_eq!(&*kept[0].body == b"\"secret\"", !to_is_sealed);
        let read = messaging.get(to, &ids).await.expect("an answer");
        assert_eq!(&*read[0].body, b"\"secret\"");
    }
}

#[tokio::test]
async fn a_message_keeps_its_id_its_age_and_the_life_that_it_has_left() {
    use std::time::Duration;
    let simulation = simulation((StoreKind::Whole, StoreKind::Whole)).await;
    simulation.clock.advance(Duration::from_secs(600));
    let (from, to) = (&simulation.rule.from, &simulation.rule.to);
    let everything = isimud_contract::Selection {
        after: None,
        limit: 100,
        not_from: None,
        include_claimed: true,
        include_delayed: true,
    };
    let mut before = simulation
        .source
        .list(from, everything.clone())
        .await
        .expect("a page");
    let server = simulation.server(&FaultInjector::new(Fault::Never));
    server.run().await.expect("no fault");
    let after = simulation
        .target
        .list(to, everything)
        .await
        .expect("a page");
    for (message, arrived) in before.messages.iter_mut().zip(&after.messages) {
        // To the staging queue, and from there. The target is another queue, with numbers of its own.
        message.transfers = 2;
        message.arrival = arrived.arrival;
    }
    assert_eq!(after.messages, before.messages);
    let message = &after.messages[0];
    assert_eq!(message.age, Duration::from_secs(600));
    assert_eq!(message.remaining_ttl, Duration::from_secs(3_000));
    drop(Arc::clone(&simulation.clock));
}
