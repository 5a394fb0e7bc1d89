//! Notifications with a token: what becomes of it where receivers, or Keystone, are not as they should be.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Mutex;

use async_trait::async_trait;
use figment::Figment;
use figment::providers::{Format, Toml};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use isimud_contract::{QueueKey, QueueName, SubscriptionId, SystemClock};
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::notifications::{AddressPolicy, connect};

/// Gives the tokens `1`, `2`, …, or what it is told to.
#[derive(Debug, Default)]
struct Tokens {
    given: Mutex<Vec<Option<String>>>,
    refusal: Option<NoTrustToken>,
}

#[async_trait]
impl TrustTokens for Tokens {
    async fn token(
        &self,
        trust: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, NoTrustToken> {
        assert_eq!(trust, "t1");
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let refused = refused.map(|token| token.to_str().expect("a text").to_owned());
        let mut given = self.given.lock().expect("no test has panicked");
        given.push(refused);
        Ok(HeaderValue::from(given.len()))
    }
}

/// A receiver that answers with these statuses, and notes the tokens that came.
async fn receiver(statuses: &[u16]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!(
        "trust+http://{}/in",
        listener.local_addr().expect("an address")
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noted, statuses) = (
        Arc::clone(&seen),
        Mutex::new(VecDeque::from(statuses.to_vec())),
    );
    let statuses = Arc::new(statuses);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (noted, statuses) = (Arc::clone(&noted), Arc::clone(&statuses));
            let service = service_fn(move |request: Request<Incoming>| {
                let token = request.headers().get("x-auth-token");
                let token = token.map_or("none", |token| token.to_str().expect("a text"));
                noted.lock().expect("no panic").push(token.to_owned());
                let status = statuses
                    .lock()
                    .expect("no panic")
                    .pop_front()
                    .unwrap_or(200);
                let response = Response::builder()
                    .status(status)
                    .header("Location", "/other");
                async move {
                    response
                        .body(Full::<Bytes>::default())
                        .map_err(|_| -> Infallible { unreachable!() })
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    (url, seen)
}

fn sender(tokens: Option<Arc<Tokens>>) -> Sender {
    let defaults = Figment::from(Toml::string(crate::config::DEFAULTS));
    let settings: Settings = defaults
        .extract_inner("notifications")
        .expect("the defaults");
    let timeout = Duration::from_secs(30);
    let addresses = AddressPolicy::new(&["127.0.0.0/8".to_owned()]).expect("a network");
    let connector = connect::connector(addresses, connect::Own::default(), timeout, "");
    Sender {
        webhooks: Webhooks::new(
            connector.expect("a connector"),
            timeout,
            Arc::new(SystemClock),
        ),
        mailer: Mailer::new(&settings.mail, timeout).expect("a mailer"),
        signer: Signer::new("", Arc::new(SystemClock)),
        limits: ConcurrencyLimits::new(&settings),
        sending: Budget::new(1 << 20),
        trust_tokens: tokens.map(|tokens| tokens as _),
        clear_token: Once::new(),
        settings,
    }
}

async fn push(sender: &Sender, subscriber: &str, options: Value) -> Outcome {
    let options = options.as_object().expect("an object").clone();
    let subscription = Subscription {
        id: SubscriptionId(Uuid::nil()),
        source: QueueKey::new(
            ProjectId::parse("p").expect("a project"),
            QueueName::parse("q").expect("a name"),
        ),
        subscriber: subscriber.to_owned(),
        ttl: Duration::from_secs(60),
        age: Duration::ZERO,
        options,
        confirmed: false,
    };
    let push = Push {
        subscription: &subscription,
        target: target_of_trust(subscriber).expect("a trust subscriber"),
        id: MessageId(Uuid::nil()),
        attempt: 1,
        body: Bytes::from_static(b"{}"),
    };
    sender.push_with_token(&push, true).await
}

fn with_trust() -> Value {
    json!({"trust_id": "t2", "_trust": {"id": "t1", "user_id": "u", "created": true}})
}

fn refused(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused(why) => why,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_receiver_gets_a_token_and_a_new_one_when_it_refuses_the_first() {
    for (statuses, seen, is_delivered) in [
        (&[200][..], &["1"][..], true),
        (&[401, 200], &["1", "2"], true),
        (&[401, 401, 200], &["1", "2"], false),
        (&[403, 200], &["1"], false),
    ] {
        let (url, came) = receiver(statuses).await;
        let tokens = Arc::new(Tokens::default());
        let outcome = push(&sender(Some(Arc::clone(&tokens))), &url, with_trust()).await;
        assert_eq!(
            outcome == Outcome::Delivered,
            is_delivered,
            "{statuses:?}: {outcome:?}"
        );
        if !is_delivered {
            refused(&outcome);
        }
        assert_eq!(*came.lock().expect("no panic"), seen, "{statuses:?}");
        let given = tokens.given.lock().expect("no panic");
        let expected = [None, Some("1".to_owned())];
        assert_eq!(*given, expected[..seen.len()]);
    }
}

#[tokio::test]
async fn no_redirect_is_followed_with_a_token() {
    for status in [301, 302, 307, 308] {
        let (url, came) = receiver(&[status]).await;
        let outcome = push(&sender(Some(Arc::default())), &url, with_trust()).await;
        assert!(refused(&outcome).contains("not redirected"), "{outcome:?}");
        assert_eq!(came.lock().expect("no panic").len(), 1);
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let (url, came) = receiver(&[]).await;
    let refusal = |after| {
        let why = "the trust is gone".to_owned();
        let refusal = Some(NoTrustToken { after, why });
        Some(Arc::new(Tokens {
            refusal,
            ..Tokens::default()
        }))
    };
    let gone = push(&sender(refusal(None)), &url, with_trust()).await;
    assert!(refused(&gone).contains("the trust is gone"));
    let after = Some(Duration::from_secs(7));
    let down = push(&sender(refusal(after)), &url, with_trust()).await;
    assert!(
        matches!(&down, Outcome::Failed { after: Some(_), .. }),
        "{down:?}"
    );
    refused(&push(&sender(None), &url, with_trust()).await);
    // A trust that a client wrote among the options counts for nothing.
    let unknown = push(
        &sender(Some(Arc::default())),
        &url,
        json!({"trust_id": "t1"}),
    )
    .await;
    assert!(refused(&unknown).contains("not known"));
    assert!(came.lock().expect("no panic").is_empty());
}
