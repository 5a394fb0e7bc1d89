//! Headers and properties: what natives say comes through other stores and back, and does nothing on the way.

use std::process::Stdio;

use isimud_contract::{HeaderMap, HeaderValue, Headers, Message, MessageStore, Property};
use serde_json::Value;

use crate::{HOUR, PYTHON, Setup, SystemClock, lease, message};

impl Setup {
    /// Runs the script of headers on a queue, and returns what it shows.
    fn headers(&self, queue: &str, what: &str) -> Vec<Value> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/headers.py");
        let port = self.node.port().to_string();
        let output = std::process::Command::new(PYTHON.as_ref().unwrap())
            .args([script, &port, queue, what])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Another queue of the existing deployment, of the same kind.
    fn beside(&self, suffix: &str) -> Self {
        let beside = Self {
            node: self.node,
            name: format!("{}.{suffix}", self.name),
            kind: self.kind,
            journal: self.journal,
            ledgers: std::sync::Arc::clone(&self.ledgers),
        };
        beside.declare();
        beside
    }
}

async fn take(store: &dyn MessageStore, setup: &Setup, count: usize) -> Vec<Message> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let claim = store.claim(&setup.queue(), &lease(), 20).await.unwrap();
        taken.extend(claim.expect("more messages").messages);
    }
    for message in &mut taken {
        message.claim = None;
    }
    taken
}

/// The way of a bridge: RabbitMQ, the embedded store, RabbitMQ.
pub(crate) async fn what_natives_say_beside_bodies_comes_through_other_stores(setup: Setup) {
    setup.declare();
    let target = setup.beside("copy");
    let sent = setup.headers(&setup.name, "publish");
    let (here, embedded) = (setup.open(), isimud_sqlite::Config::memory());
    let clock = std::sync::Arc::new(SystemClock);
    let embedded = isimud_sqlite::SqliteStore::open(embedded, clock).unwrap();
    let taken = take(&*here, &setup, sent.len()).await;
    let celery = taken[0].headers.as_ref().expect("headers").read();
    let task = HeaderValue::Text("proj.tasks.add".into());
    assert_eq!(celery.headers["task"], task);
    assert_eq!(
        celery.properties[&Property::Priority],
        HeaderValue::Integer(4)
    );
    let named = taken[1].headers.as_ref().expect("headers").read();
    let name = HeaderValue::Text("order 1".into());
    assert_eq!(named.properties[&Property::MessageId], name);

    embedded.post(&setup.queue(), taken.clone()).await.unwrap();
    let kept = take(&*embedded, &setup, sent.len()).await;
    for (kept, taken) in kept.iter().zip(&taken) {
        assert_eq!(kept.headers, taken.headers);
    }
    here.post(&target.queue(), kept).await.unwrap();
    // The API finds there what it found before.
    let back = take(&*target.open(), &target, sent.len()).await;
    for (back, taken) in back.iter().zip(&taken) {
        assert_eq!((&back.headers, &back.body), (&taken.headers, &taken.body));
    }
    let another = setup.beside("natives");
    here.post(&another.queue(), back).await.unwrap();
    let found = setup.headers(&another.name, "get");
    assert_eq!(found.len(), sent.len());
    for (found, sent) in found.iter().zip(&sent) {
        assert_eq!(found["body"], sent["body"]);
        // How often a message came back is what RabbitMQ says of it, and nobody has sent it.
        let mut headers = found["headers"].clone();
        if let Some(headers) = headers.as_object_mut() {
            headers.remove("x-delivery-count");
        }
        assert_eq!(headers, sent["headers"]);
        for (name, value) in sent["properties"].as_object().unwrap() {
            // What natives leave out the service may fill in.
            if !value.is_null() {
                assert_eq!(&found["properties"][name], value, "{name}");
            }
        }
    }
}

pub(crate) async fn headers_that_rabbitmq_acts_upon_do_nothing(setup: Setup) {
    setup.declare();
    let victim = setup.beside("victim");
    let store = setup.open();
    let others = HeaderValue::List(vec![HeaderValue::Text(victim.name.clone())]);
    let map = HeaderMap {
        properties: [(Property::UserId, HeaderValue::Text("root".into()))].into(),
        headers: [
            ("CC".to_owned(), others.clone()),
            ("BCC".to_owned(), others.clone()),
            ("x-death".to_owned(), others),
        ]
        .into(),
    };
    let posted = Message {
        headers: Headers::of(&map).unwrap(),
        ..message(1)
    };
    store
        .post(&setup.queue(), vec![posted.clone()])
        .await
        .unwrap();
    assert_eq!(setup.headers(&victim.name, "get"), Vec::<Value>::new());
    let taken = take(&*store, &setup, 1).await;
    assert_eq!(taken[0].headers, posted.headers);
    assert_eq!((taken[0].id, taken[0].ttl), (posted.id, HOUR));
}
