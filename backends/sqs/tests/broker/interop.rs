//! boto3 on the same queue.

use std::collections::HashMap;
use std::process::{Child, Output};
use std::time::Duration;

use isimud_contract::{ClientId, MessageStore, Precondition};
use isimud_lease::LeaseBroker;
use isimud_testing::sqs::{Corner, Emulator};
use serde_json::Value;
use uuid::Uuid;

use crate::leased::{lease, numbered, store};
use crate::support::{MINUTE, eventually, make, message, numbers, open, queue, take_all};

/// Messages of each side, where both are at work at once.
const EACH: usize = 2500;

fn run(corner: &Corner, arguments: &[&str]) -> Vec<Value> {
    answer(start(corner, arguments).wait_with_output().unwrap())
}

fn start(corner: &Corner, arguments: &[&str]) -> Child {
    let name = format!("{}-p_-q", corner.login);
    let arguments = [&[name.as_str()], arguments].concat();
    let mut command = corner.python("backends/sqs/tests/broker/native.py", &arguments);
    command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

fn answer(output: Output) -> Vec<Value> {
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) async fn what_is_sent_here_boto3_reads(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    let mut sent = message(r#"{"event": "backup", "n": [1, 2]}"#);
    sent.message.client = ClientId::Uuid(Uuid::from_u128(5));
    broker.send(&q, vec![sent.clone()]).await.unwrap();
    let read = tokio::task::spawn_blocking({
        let corner = corner.clone();
        move || run(&corner, &["read"])
    });
    let read = read.await.unwrap();
    assert_eq!(read.len(), 1);
    // The body is bare: what json.loads makes of it is what was posted.
    assert_eq!(read[0]["body"], r#"{"event": "backup", "n": [1, 2]}"#);
    let stamp: Value = serde_json::from_str(read[0]["stamp"].as_str().unwrap()).unwrap();
    assert_eq!(stamp["id"], sent.message.id.to_string());
    assert_eq!(stamp["client"], sent.message.client.to_string());
    assert_eq!(stamp["ttl_ms"], 3_600_000);
    assert_eq!(stamp["posted_ms"], sent.posted.0);
    assert_eq!(take_all(&broker, &q).await, []);
}

pub(crate) async fn what_boto3_sends_is_read_here(corner: Corner) {
    let (broker, q) = (open(&corner, "&native_ttl_s=900"), queue("q"));
    broker.send(&q, numbers(0..1)).await.unwrap();
    take_all(&broker, &q).await;
    let sent = tokio::task::spawn_blocking({
        let corner = corner.clone();
        move || run(&corner, &["send", r#"{"a": 1}"#, "plain text", "17"])
    });
    let ids: HashMap<String, String> = sent
        .await
        .unwrap()
        .iter()
        .map(|line| {
            (
                line["body"].as_str().unwrap().into(),
                line["id"].as_str().unwrap().into(),
            )
        })
        .collect();
    let first = broker
        .receive(&q, 10, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(first.len(), 3);
    for delivery in &first {
        let body = std::str::from_utf8(&delivery.message.body).unwrap();
        let native = if body == "\"plain text\"" {
            "plain text"
        } else {
            body
        };
        assert_eq!(delivery.message.id.to_string(), ids[native]);
        assert_eq!(delivery.message.client, ClientId::Uuid(Uuid::nil()));
        assert_eq!(delivery.message.ttl, Duration::from_secs(900));
    }
    // The same names at the next delivery.
    corner.advance(Duration::from_secs(6));
    let mut second = broker.receive(&q, 10, MINUTE).await.unwrap();
    assert_eq!(second.len(), 3);
    for delivery in &first {
        let at = second
            .iter()
            .position(|again| again.message == delivery.message);
        let again = second.swap_remove(at.expect("the same message"));
        assert_eq!(again.posted, delivery.posted);
    }
}

async fn natively(corner: &Corner, arguments: &'static [&'static str]) -> Vec<Value> {
    let corner = corner.clone();
    let run = tokio::task::spawn_blocking(move || run(&corner, arguments));
    run.await.unwrap()
}

pub(crate) async fn an_id_that_a_native_chose_swallows_no_message(corner: Corner) {
    const SEND: [&[&str]; 2] = [
        &["send-as", "c8cbd19a-842e-4794-8e25-3d5e2df00f2b", "1"],
        &["send-as", "c8cbd19a-842e-4794-8e25-3d5e2df00f2b", "2"],
    ];
    let (store, q) = (store(&corner, ""), queue("q"));
    store.post(&q, vec![numbered(0)]).await.unwrap();
    assert_eq!(store.pop(&q, 1).await.unwrap().len(), 1);
    for (send, body) in SEND.into_iter().zip(["1", "2"]) {
        natively(&corner, send).await;
        let claim = store.claim(&q, &lease(), 5).await.unwrap().unwrap();
        assert_eq!(claim.messages[0].body, body);
        let precondition = Precondition::ClaimedBy(vec![claim.id]);
        let ids = [claim.messages[0].id];
        assert_eq!(store.delete(&q, &ids, precondition).await.unwrap(), 1);
    }
}

pub(crate) async fn statistics_count_what_natives_send_and_take(corner: Corner) {
    make(&corner, &format!("{}-p_-q", corner.login), &[]).await;
    let options = format!(
        "&name={}-p_-{{queue}}&project=p&counts_lag_s=1",
        corner.login
    );
    let (store, q) = (store(&corner, &options), queue("q"));
    natively(&corner, &["produce", "7"]).await;
    assert_eq!(store.stats(&q).await.unwrap().free, 7);
    // The queue keeps messages for four days.
    let brief = |number| {
        let mut message = numbered(number);
        message.ttl = std::time::Duration::from_secs(3600);
        message.remaining_ttl = message.ttl;
        message
    };
    store.post(&q, vec![brief(0), brief(1)]).await.unwrap();
    assert_eq!(store.stats(&q).await.unwrap().free, 9);
    assert_eq!(natively(&corner, &["read"]).await.len(), 9);
    eventually("what boto3 has taken is counted no more", async || {
        store.stats(&q).await.unwrap().free == 0
    })
    .await;
    assert!(store.backlog(&q).await.unwrap().is_empty());
}

/// boto3 produces and consumes beside the whole store, with the journal on.
pub(crate) async fn both_sides_at_once_process_each_message_exactly_once(_: Corner) {
    // So much in one queue slows a server down for everybody.
    let server = Emulator::start().unwrap();
    let corner = server.corner("BOTH".into());
    let (store, q) = (store(&corner, ""), queue("q"));
    store.post(&q, vec![numbered(0)]).await.unwrap();
    assert_eq!(store.pop(&q, 1).await.unwrap().len(), 1);
    let total = (2 * EACH).to_string();
    let sender = start(&corner, &["produce", &EACH.to_string()]);
    let reader = start(&corner, &["consume", &total]);
    let produce = async {
        for post in 0..EACH / 50 {
            let posted = (50 * post..50 * (post + 1)).map(numbered).collect();
            store.post(&q, posted).await.unwrap();
        }
    };
    let (mut taken, mut idle) = (Vec::new(), 0);
    let consume = async {
        while idle < 50 {
            let Some(claim) = store.claim(&q, &lease(), 20).await.unwrap() else {
                idle += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            idle = 0;
            let ids: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
            let precondition = Precondition::ClaimedBy(vec![claim.id]);
            assert_eq!(
                store.delete(&q, &ids, precondition).await.unwrap(),
                ids.len()
            );
            taken.extend(claim.messages.into_iter().map(|message| message.body));
        }
    };
    tokio::join!(produce, consume);
    answer(sender.wait_with_output().unwrap());
    let read = answer(reader.wait_with_output().unwrap());
    let here = taken
        .iter()
        .map(|body| String::from_utf8(body.to_vec()).unwrap())
        // A text that is no JSON is read as a JSON string.
        .map(|body| body.trim_matches('"').to_owned());
    let there = read
        .iter()
        .map(|line| line["body"].as_str().unwrap().to_owned());
    let mut counts: HashMap<String, usize> = HashMap::new();
    here.chain(there)
        .for_each(|body| *counts.entry(body).or_default() += 1);
    assert_eq!(counts.len(), 2 * EACH);
    assert!(counts.values().all(|count| *count == 1));
    println!("{} processed here, {} by boto3", taken.len(), read.len());
    for side in ["native-", ""] {
        let of_side = |body: &&String| body.starts_with("native-") != side.is_empty();
        assert_eq!(counts.keys().filter(of_side).count(), EACH);
    }
    assert!(!taken.is_empty() && !read.is_empty());
}
