//! What Keystone may answer instead of deciding, and how many requests the service makes (spec: keystone.md 6, 9).

use std::sync::Arc;
use std::time::{Duration, Instant};

use isimud::keystone::{Authenticator, Fault as State};
use serde_json::json;

use crate::keystone::proxy::{Fault, On, Proxy};
use crate::keystone::request::{Request, with};
use crate::keystone::{WORLD, log};

fn answer(status: u16) -> Fault {
    Fault::Answer(status, Vec::new(), "{}".to_owned())
}

fn not_found() -> Fault {
    let body = json!({"error": {"code": 404, "message": "Failed to validate token", "title": "Not Found"}});
    Fault::Answer(404, Vec::new(), body.to_string())
}

/// Sends requests at once and returns their outcomes.
async fn at_once(service: &Arc<Authenticator>, requests: Vec<Request>) -> Vec<String> {
    let send = |request: Request| {
        let service = Arc::clone(service);
        tokio::spawn(async move { request.outcome(&service).await })
    };
    let sent: Vec<_> = requests.into_iter().map(send).collect();
    let mut outcomes = Vec::new();
    for one in sent {
        outcomes.push(one.await.expect("it ends"));
    }
    outcomes
}

#[tokio::test]
async fn what_is_no_decision_is_503_and_never_401() {
    let headers = vec![("Retry-After", "17")];
    let faults = [
        (answer(400), "503 5"),
        (answer(403), "503 5"),
        (answer(408), "503 5"),
        (
            Fault::Answer(429, headers.clone(), "{}".to_owned()),
            "503 17",
        ),
        (answer(500), "503 5"),
        (Fault::Answer(503, headers, "<html>".to_owned()), "503 17"),
        (answer(502), "503 5"),
        (answer(302), "503 5"),
        (answer(204), "503 5"),
        (answer(401), "503 5"),
        (
            Fault::Answer(404, Vec::new(), "<html>nginx</html>".to_owned()),
            "503 5",
        ),
        (
            Fault::Answer(200, Vec::new(), "<html>login</html>".to_owned()),
            "503 5",
        ),
        (Fault::WithoutExpiry, "503 5"),
        (Fault::Close, "503 5"),
        (not_found(), "401"),
    ];
    for (fault, expected) in faults {
        let proxy = Proxy::start(WORLD.keystone.port);
        let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
        let alice = with(&WORLD.token("alice"));
        proxy.always(On::Validation, fault.clone());
        assert_eq!(alice.outcome(&service).await, expected, "{fault:?}");
        proxy.heal();
        let later = alice.outcome(&service).await;
        // Only a 404 is remembered.
        let expected = if expected == "401" { "401" } else { "200" };
        assert_eq!(later, expected, "{fault:?}");
    }
    log::assert_no_secret();
}

#[tokio::test]
async fn a_login_that_fails_is_503_with_the_reason_for_the_operator() {
    for (fault, state) in [
        (answer(401), State::Credentials),
        (answer(403), State::Permission),
        (answer(500), State::Unreachable),
        (answer(301), State::Unreachable),
        (Fault::Close, State::Unreachable),
        (
            Fault::Answer(201, Vec::new(), "{}".to_owned()),
            State::Unreachable,
        ),
        (
            Fault::Answer(
                201,
                vec![("X-Subject-Token", "own-token-45c48cce")],
                "<html>".to_owned(),
            ),
            State::Unreachable,
        ),
        (
            Fault::Answer(
                201,
                vec![("X-Subject-Token", "own-token-45c48cce")],
                "{}".to_owned(),
            ),
            State::Unreachable,
        ),
    ] {
        log::keep_secret("own-token-45c48cce");
        let proxy = Proxy::start(WORLD.keystone.port);
        let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
        proxy.always(On::Login, fault.clone());
        let alice = with(&WORLD.token("alice"));
        assert_eq!(alice.outcome(&service).await, "503 5", "{fault:?}");
        let keystone = service.keystone();
        assert_eq!(keystone.fault, Some(state), "{fault:?}");
        assert!(!keystone.reason.is_empty());
        assert_eq!(proxy.validations(), 0);
    }
    log::assert_no_secret();
}

#[tokio::test]
async fn two_hundred_requests_with_one_new_token_make_one_validation() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
    let alice = with(&WORLD.token("alice"));
    let outcomes = at_once(&service, vec![alice; 200]).await;
    assert!(
        outcomes.iter().all(|outcome| outcome == "200"),
        "{outcomes:?}"
    );
    assert_eq!((proxy.validations(), proxy.logins()), (1, 1));
    let bad = at_once(&service, vec![with("unknown"); 200]).await;
    assert!(bad.iter().all(|outcome| outcome == "401"), "{bad:?}");
    assert_eq!(proxy.validations(), 2);
    log::assert_no_secret();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_validation_also_from_many_threads_and_while_the_answer_comes() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
    for asked in 1..6 {
        let alice = with(&WORLD.token("alice"));
        let outcomes = at_once(&service, vec![alice; 200]).await;
        assert!(
            outcomes.iter().all(|outcome| outcome == "200"),
            "{outcomes:?}"
        );
        assert_eq!(proxy.validations(), asked);
    }
}

#[tokio::test]
async fn a_refused_service_token_is_renewed_by_one_request_for_a_hundred_that_wait() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
    let alice = with(&WORLD.token("alice"));
    assert_eq!(alice.outcome(&service).await, "200");
    let stale = proxy.last_service_token();
    log::keep_secret(&stale);
    proxy.always(On::ValidationWith(stale.clone()), answer(401));
    let unknown = (0..100)
        .map(|number| with(&format!("unknown-{number}")))
        .collect();
    let outcomes = at_once(&service, unknown).await;
    assert!(
        outcomes.iter().all(|outcome| outcome == "401"),
        "{outcomes:?}"
    );
    assert_eq!(proxy.logins(), 2, "the first one, and one renewal");
    assert_ne!(proxy.last_service_token(), stale);
    log::assert_no_secret();
}

#[tokio::test]
async fn a_service_token_is_renewed_two_minutes_before_its_end() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, clock) = WORLD.authenticator(
        proxy.port,
        &json!({"cache_secs": 0, "negative_cache_secs": 0}),
    );
    for (advance, logins) in [(0, 1), (3_400, 1), (100, 2)] {
        clock.advance(Duration::from_secs(advance));
        assert_eq!(with("unknown").outcome(&service).await, "401");
        assert_eq!(proxy.logins(), logins, "after {advance} s more");
    }
    // A renewal that fails does not matter while the token works, and is not tried for each request.
    let (service, clock) = WORLD.authenticator(proxy.port, &json!({"negative_cache_secs": 0}));
    assert_eq!(with("unknown").outcome(&service).await, "401");
    clock.advance(Duration::from_secs(3_500));
    proxy.always(On::Login, answer(500));
    let before = proxy.logins();
    for _ in 0..5 {
        assert_eq!(with("unknown").outcome(&service).await, "401");
    }
    assert_eq!(proxy.logins(), before + 1);
}

#[tokio::test]
async fn five_failures_in_a_row_open_the_breaker_for_a_second() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, clock) = WORLD.authenticator(proxy.port, &json!({}));
    let cached = with(&WORLD.token("alice"));
    assert_eq!(cached.outcome(&service).await, "200");
    proxy.always(
        On::Validation,
        Fault::Answer(503, vec![("Retry-After", "9")], String::new()),
    );
    let asked = |after: usize| assert_eq!(proxy.validations(), after);
    for number in 0..8 {
        assert_eq!(
            with(&format!("unknown-{number}")).outcome(&service).await,
            "503 9"
        );
    }
    asked(1 + 5);
    assert_eq!(cached.outcome(&service).await, "200", "cached tokens go on");
    clock.advance(Duration::from_secs(1));
    let probes = (0..20)
        .map(|number| with(&format!("unknown-{number}")))
        .collect();
    let outcomes = at_once(&service, probes).await;
    assert!(
        outcomes.iter().all(|outcome| outcome == "503 9"),
        "{outcomes:?}"
    );
    asked(1 + 5 + 1);
    proxy.heal();
    assert_eq!(
        with("unknown-0").outcome(&service).await,
        "503 9",
        "it is still open"
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(with("unknown-0").outcome(&service).await, "401");
    assert_eq!(with("unknown-1").outcome(&service).await, "401");
    // A request that Keystone cannot read opens nothing: a client could cut off all others.
    proxy.always(On::ValidationOf("hostile".to_owned()), answer(400));
    for _ in 0..10 {
        assert_eq!(with("hostile").outcome(&service).await, "503 5");
    }
    assert_eq!(with("unknown-2").outcome(&service).await, "401");
    log::assert_no_secret();
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_once_more_and_a_late_answer_is_not() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
    let (hasty, _) = WORLD.authenticator(proxy.port, &json!({"timeout_secs": 2}));
    hasty.check().await.expect("Keystone can be asked");
    proxy.fault(On::Validation, Fault::Close, 1);
    assert_eq!(with(&WORLD.token("alice")).outcome(&service).await, "200");
    assert_eq!(proxy.validations(), 2);
    let alice = with(&WORLD.token("alice"));
    proxy.fault(On::Validation, Fault::Delay(Duration::from_secs(4)), 1);
    let start = Instant::now();
    assert_eq!(alice.outcome(&hasty).await, "503 5");
    let took = start.elapsed();
    assert!(took < Duration::from_millis(3_500), "{took:?}");
    assert_eq!(proxy.validations(), 3);
    let (never, _) = WORLD.authenticator(proxy.port, &json!({"retries": 0}));
    never.check().await.expect("Keystone can be asked");
    proxy.fault(On::Validation, Fault::Close, 1);
    assert_eq!(with(&WORLD.token("alice")).outcome(&never).await, "503 5");
    assert_eq!(proxy.validations(), 4);
}

#[tokio::test]
async fn a_keystone_that_hangs_is_answered_within_eleven_seconds_and_harms_nobody_else() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({"timeout_secs": 5}));
    let (slow, cached) = (WORLD.token("alice"), with(&WORLD.token("alice")));
    assert_eq!(cached.outcome(&service).await, "200");
    proxy.always(On::ValidationOf(slow.clone()), Fault::Hang);
    let start = Instant::now();
    let hanging = {
        let service = Arc::clone(&service);
        tokio::spawn(async move { with(&slow).outcome(&service).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Others are not delayed, neither cached ones nor those that Keystone has to be asked for.
    let other = Instant::now();
    assert_eq!(cached.outcome(&service).await, "200");
    assert!(
        other.elapsed() < Duration::from_millis(50),
        "{:?}",
        other.elapsed()
    );
    assert_eq!(with(&WORLD.token("alice")).outcome(&service).await, "200");
    assert!(!hanging.is_finished());
    assert_eq!(hanging.await.expect("it ends"), "503 5");
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(4_900) && took < Duration::from_secs(6),
        "{took:?}"
    );
    proxy.heal();

    // Everything hangs: discovery, login and validation. All of it is ten seconds at the most.
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({"timeout_secs": 10}));
    proxy.always(On::Any, Fault::Hang);
    let start = Instant::now();
    let many = (0..50)
        .map(|number| with(&format!("unknown-{number}")))
        .collect();
    let outcomes = at_once(&service, many).await;
    assert!(
        outcomes.iter().all(|outcome| outcome == "503 5"),
        "{outcomes:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(11),
        "{:?}",
        start.elapsed()
    );
    proxy.heal();
    log::assert_no_secret();
}

#[tokio::test]
async fn many_unknown_tokens_have_half_of_the_connections_and_hold_up_no_known_one() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, clock) = WORLD.authenticator(proxy.port, &json!({}));
    let alice = with(&WORLD.token("alice"));
    assert_eq!(alice.outcome(&service).await, "200");
    clock.advance(Duration::from_secs(61));
    proxy.always(On::Validation, Fault::Delay(Duration::from_millis(100)));
    let many = (0..200)
        .map(|number| with(&format!("unknown-{number}")))
        .collect();
    let are_asked = async || {
        while proxy.validations() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let outcome = alice.outcome(&service).await;
        (outcome, proxy.validations())
    };
    let (outcomes, (outcome, asked)) = tokio::join!(at_once(&service, many), are_asked());
    assert!(
        outcomes.iter().all(|outcome| outcome == "401"),
        "{outcomes:?}"
    );
    assert_eq!(outcome, "200");
    assert!(asked < 150, "it had to wait for {asked} others");
    assert_eq!(proxy.validations(), 202);
    let most = proxy.most_connections();
    assert!((10..=18).contains(&most), "{most} connections");
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_keep_the_answer_from_the_cache() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
    service.check().await.expect("Keystone can be asked");
    proxy.fault(On::Validation, Fault::Delay(Duration::from_millis(500)), 1);
    let alice = with(&WORLD.token("alice"));
    let impatient = tokio::time::timeout(Duration::from_millis(100), alice.send(&service)).await;
    assert!(impatient.is_err());
    assert_eq!(alice.outcome(&service).await, "200");
    assert_eq!(proxy.validations(), 1);
}

#[tokio::test]
async fn a_bound_token_and_one_with_an_odd_expiry_are_refused() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({}));
    let replace = |from: &str, to: &str| Fault::Replace(from.to_owned(), to.to_owned());
    proxy.fault(
        On::Validation,
        replace(
            "\"methods\"",
            "\"bind\": {\"kerberos\": \"a@B\"}, \"methods\"",
        ),
        1,
    );
    assert_eq!(with(&WORLD.token("alice")).outcome(&service).await, "401");
    // Keystone says that it is valid, and that it has expired: its clock differs.
    proxy.fault(
        On::Validation,
        replace("\"expires_at\": \"2", "\"expires_at\": \"1"),
        1,
    );
    assert_eq!(with(&WORLD.token("alice")).outcome(&service).await, "401");
}

#[tokio::test]
async fn stale_answers_serve_while_keystone_is_down_without_administrators_and_never_after_a_404() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let more = json!({"stale_grace_secs": 120, "cache_secs": 10, "negative_cache_secs": 0});
    let (service, clock) = WORLD.authenticator(proxy.port, &more);
    let (without, without_clock) = WORLD.authenticator(proxy.port, &json!({"cache_secs": 10}));
    let (admin, _) = WORLD.user("admin");
    let admin = with(&WORLD.token(&admin));
    let revoked_token = WORLD.token("alice");
    let revoked = with(&revoked_token);
    for service in [&service, &without] {
        assert!(admin.caller(service).await.has_role("admin"));
        assert_eq!(revoked.outcome(service).await, "200");
    }
    let forward = Duration::from_secs(10);
    clock.advance(forward);
    without_clock.advance(forward);
    WORLD.keystone.revoke(&revoked_token);
    assert_eq!(revoked.outcome(&service).await, "401");
    proxy.always(On::Any, answer(503));
    assert_eq!(revoked.outcome(&service).await, "503 5", "a 404 is final");
    let caller = admin.caller(&service).await;
    assert!(caller.is_stale() && !caller.has_role("admin") && caller.has_role("member"));
    assert_eq!(
        admin.outcome(&without).await,
        "503 5",
        "there is no grace by default"
    );
    assert_eq!(
        with(&WORLD.token("alice")).outcome(&service).await,
        "503 5",
        "new ones are not let in"
    );
    clock.advance(Duration::from_secs(119));
    assert_eq!(admin.outcome(&service).await, "200");
    clock.advance(Duration::from_secs(1));
    assert_eq!(admin.outcome(&service).await, "503 5");
    let stale = service
        .metrics()
        .into_iter()
        .find(|sample| sample.label == Some(("source", "stale")));
    assert_eq!(
        stale.expect("the metric").value,
        isimud::keystone::Value::Counter(2)
    );
    proxy.heal();
    clock.advance(Duration::from_secs(1));
    assert!(admin.caller(&service).await.has_role("admin"));
    log::assert_no_secret();
}

#[tokio::test]
async fn a_clock_that_differs_is_warned_of_once() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({"negative_cache_secs": 0}));
    service.check().await.expect("Keystone can be asked");
    let body = json!({"error": {"code": 404}}).to_string();
    proxy.always(
        On::Validation,
        Fault::Answer(404, vec![("Date", "Thu, 01 Jan 2026 00:00:00 GMT")], body),
    );
    let before = log::count("Keystone's clock differs");
    for _ in 0..3 {
        assert_eq!(with("unknown").outcome(&service).await, "401");
    }
    assert_eq!(log::count("Keystone's clock differs"), before + 1);
}
