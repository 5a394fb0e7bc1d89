//! What SQS bills.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use isimud_lease::LeaseBroker;
use isimud_sqs::SqsBroker;
use isimud_testing::sqs::Corner;

use crate::support::{MINUTE, numbers, open, queue, receipts, take_all};

/// Messages that are counted for.
const MANY: usize = 1000;
/// Clients at once.
const CLIENTS: usize = 64;

pub(crate) async fn requests_for_a_thousand_messages(corner: Corner) {
    let count = |action: &str| corner.requests().get(action).copied().unwrap_or(0);
    let (broker, q) = (open(&corner, ""), queue("q"));
    broker.send(&q, numbers(0..1)).await.unwrap();
    take_all(&broker, &q).await;
    let setting_up = count("GetQueueUrl") + count("CreateQueue") + count("GetQueueAttributes");
    assert_eq!(setting_up, 3);
    for size in [1, 5, 10, 20] {
        let actions = ["SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch"];
        let before = actions.map(count);
        in_turn(&broker, size).await;
        let [posts, claims, deletes] = [0, 1, 2].map(|at| count(actions[at]) - before[at]);
        println!("{posts:>5} for posts, {claims} for claims, {deletes} for deletes of {size}");
        // Ten a request, and none for nothing.
        let expected = (MANY / size * size.div_ceil(10)) as u64;
        assert_eq!([posts, claims, deletes], [expected; 3]);
    }
    for linger in [0, 20] {
        let broker = open(&corner, &format!("&linger_ms={linger}"));
        let before = count("SendMessageBatch");
        post_at_once(&broker).await;
        let posts = count("SendMessageBatch") - before;
        let before = count("DeleteMessageBatch");
        delete_at_once(&broker).await;
        let deletes = count("DeleteMessageBatch") - before;
        println!(
            "{posts:>5} for posts, {deletes} for deletes of 1, {CLIENTS} at once, linger_ms={linger}"
        );
        // How many meet in one request is chance; with a linger few do not.
        let most = if linger == 0 { 500 } else { 180 };
        assert!(posts <= most && deletes <= most);
    }
    let before = count("ReceiveMessage");
    assert_eq!(broker.receive(&q, 20, MINUTE).await.unwrap(), []);
    assert_eq!(count("ReceiveMessage") - before, 1);
}

/// What the driver's page says that an identity needs: the names of actions, as a policy has them.
fn documented_actions() -> BTreeSet<String> {
    let page = include_str!("../../README.md");
    let begin = page.find("```json\n").unwrap() + "```json\n".len();
    let policy = &page[begin..begin + page[begin..].find("```").unwrap()];
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements
        .iter()
        .flat_map(|it| it["Action"].as_array().unwrap());
    let name = |action: &serde_json::Value| action.as_str().unwrap().replace("sqs:", "");
    actions.map(name).collect()
}

/// The driver makes, uses, empties and deletes queues with no other action than the documented ones, and with all of them.
pub(crate) async fn the_documented_actions_are_those_that_are_used(corner: Corner) {
    let broker = open(&corner, "&remove=delete");
    // Names that are too long are hashed, and such queues have tags.
    for name in ["q", &"x".repeat(64)] {
        let q = queue(name);
        broker.ping().await.unwrap();
        broker.send(&q, numbers(0..4)).await.unwrap();
        let got = broker.receive(&q, 3, MINUTE).await.unwrap();
        let [first, second, third] = [0, 1, 2].map(|at| receipts(&got[at..=at]));
        broker.extend(&q, &first, 2 * MINUTE).await.unwrap();
        broker.release(&q, &second).await.unwrap();
        broker.ack(&q, &third).await.unwrap();
        broker.depth(&q).await.unwrap();
        broker.purge(&q).await.unwrap();
        broker.drop_queue(&q).await.unwrap();
    }
    let mut used: BTreeSet<String> = corner
        .requests()
        .into_keys()
        .map(|action| action.replace("Batch", ""))
        .collect();
    // Tags come with the request that makes a queue.
    used.insert("TagQueue".into());
    assert_eq!(used, documented_actions());
}

/// Posts, claims and deletes of one size, one after another.
async fn in_turn(broker: &SqsBroker, size: usize) {
    let q = queue("q");
    for at in (0..MANY).step_by(size) {
        broker.send(&q, numbers(at..at + size)).await.unwrap();
    }
    for _ in (0..MANY).step_by(size) {
        let got = broker.receive(&q, size, MINUTE).await.unwrap();
        assert_eq!(got.len(), size);
        broker.ack(&q, &receipts(&got)).await.unwrap();
    }
}

async fn post_at_once(broker: &SqsBroker) {
    let clients = (0..CLIENTS).map(|client| async move {
        for number in (client..MANY).step_by(CLIENTS) {
            let one = numbers(number..number + 1);
            broker.send(&queue("q"), one).await.unwrap();
        }
    });
    join_all(clients).await;
}

async fn delete_at_once(broker: &SqsBroker) {
    let q = queue("q");
    let mut got = Vec::new();
    while got.len() < MANY {
        got.extend(broker.receive(&q, 200, 10 * MINUTE).await.unwrap());
    }
    for some in got.chunks(CLIENTS) {
        let acks = some
            .iter()
            .map(|one| broker.ack(&q, std::slice::from_ref(&one.receipt)));
        for outcome in join_all(acks).await {
            outcome.unwrap();
        }
    }
}
