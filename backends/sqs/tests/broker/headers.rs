//! What is said beside bodies, with boto3 on the other side.

use isimud_contract::{HeaderMap, HeaderValue, Headers, Property, QueueKey};
use isimud_lease::{Envelope, LeaseBroker};
use isimud_testing::sqs::Corner;
use serde_json::Value;

use crate::support::{message, numbers, open, queue, take_all};

/// Runs the script of attributes on a queue, and returns what it shows, by body.
async fn native(corner: &Corner, queue: &QueueKey, what: &'static str) -> Vec<Value> {
    let name = format!("{}-p_-{}", corner.login, queue.name);
    let corner = corner.clone();
    let run = move || {
        let mut command = corner.python("backends/sqs/tests/broker/headers.py", &[&name, what]);
        let output = command.stderr(std::process::Stdio::inherit()).output();
        let output = output.unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let mut shown: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        shown.sort_by_key(|one| one["body"].to_string());
        shown
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub(crate) async fn attributes_of_natives_go_on_as_they_came(corner: Corner) {
    let (broker, from, to) = (open(&corner, ""), queue("q"), queue("copy"));
    // Both queues have to be there before a native can use them.
    for q in [&from, &to] {
        broker.send(q, numbers(0..1)).await.unwrap();
        take_all(&broker, q).await;
    }
    let sent = native(&corner, &from, "send").await;
    let mut taken = take_all(&broker, &from).await;
    taken.sort_by_key(|delivery| delivery.message.body.clone());
    assert_eq!(taken.len(), sent.len());
    let with = taken.iter().find_map(|it| it.message.headers.as_ref());
    let map = with.expect("headers").read();
    let text = |text: &str| HeaderValue::Text(text.into());
    assert_eq!(map.headers["task"], text("proj.tasks.add"));
    assert_eq!(map.headers["retries"], HeaderValue::Integer(3));
    assert_eq!(map.headers["share"], HeaderValue::Float(1.5));
    assert_eq!(
        map.headers["reply_to"],
        text("an attribute of the application")
    );
    assert_eq!(map.properties.get(&Property::ReplyTo), None);
    let envelopes = taken.into_iter().map(|delivery| Envelope {
        message: delivery.message,
        posted: delivery.posted,
    });
    broker.send(&to, envelopes.collect()).await.unwrap();
    let found = native(&corner, &to, "read").await;
    assert_eq!(found.len(), sent.len());
    let attributes =
        |all: &[Value]| -> Vec<Value> { all.iter().map(|one| one["attributes"].clone()).collect() };
    // One of ten has to make room for the service's own.
    let (mut expected, found) = (attributes(&sent), attributes(&found));
    for one in &mut expected {
        if one.as_object().unwrap().len() == 10 {
            one.as_object_mut().unwrap().remove("task");
        }
    }
    assert_eq!(found, expected);
}

pub(crate) async fn what_is_more_than_sqs_takes_comes_back_whole(corner: Corner) {
    let (broker, q) = (open(&corner, ""), queue("q"));
    let text = |text: &str| HeaderValue::Text(text.into());
    let mut map = HeaderMap {
        properties: [
            (Property::CorrelationId, text("c")),
            (Property::Priority, HeaderValue::Integer(3)),
        ]
        .into(),
        headers: (0..30).map(|at| (format!("h{at}"), text("x"))).collect(),
    };
    map.headers
        .insert("nested".into(), HeaderValue::List(vec![HeaderValue::Null]));
    let headers = Headers::of(&map).unwrap();
    let mut envelope = message("1");
    envelope.message.headers.clone_from(&headers);
    broker.send(&q, vec![envelope.clone()]).await.unwrap();
    let taken = take_all(&broker, &q).await;
    assert_eq!(taken[0].message.headers, headers);
    broker.send(&q, vec![envelope]).await.unwrap();
    let found = native(&corner, &q, "read").await;
    let attributes = found[0]["attributes"].as_object().unwrap();
    assert_eq!(attributes.len(), 9);
    assert_eq!(attributes["correlation_id"][1], "c");
}
