//! How long a token counts that is no longer good, and what 404s do (spec: keystone.md 9).

use std::time::Duration;

use isimud_contract::Clock;
use serde_json::{Value, json};

use crate::keystone::fixture::login;
use crate::keystone::proxy::{Fault, On, Proxy};
use crate::keystone::request::with;
use crate::keystone::world::PASSWORD;
use crate::keystone::{WORLD, log};

const SECOND: Duration = Duration::from_secs(1);

/// Keystone revokes a user's tokens by the second: one of the same second may be good or bad afterwards.
const A_SECOND_LATER: Duration = Duration::from_millis(1_100);

/// What makes a good token of a user bad.
type Undoing = fn(user: &str, token: &str);

const UNDOINGS: [(&str, Undoing); 5] = [
    ("revoked", |_, token| WORLD.keystone.revoke(token)),
    ("user disabled", |user, _| {
        let path = format!("/v3/users/{user}");
        WORLD
            .keystone
            .change("PATCH", &path, &json!({"user": {"enabled": false}}));
    }),
    ("role removed", |user, _| {
        let role = WORLD.keystone.role("reader");
        let path = format!("/v3/projects/{}/users/{user}/roles/{role}", WORLD.shop);
        WORLD.keystone.change("DELETE", &path, &Value::Null);
    }),
    ("password changed", |user, _| {
        let path = format!("/v3/users/{user}");
        WORLD.keystone.change(
            "PATCH",
            &path,
            &json!({"user": {"password": "another-pw-1f3870be"}}),
        );
    }),
    ("user deleted", |user, _| {
        WORLD
            .keystone
            .change("DELETE", &format!("/v3/users/{user}"), &Value::Null);
    }),
];

#[tokio::test]
async fn a_token_that_goes_bad_counts_until_the_cache_time_is_over_and_never_after() {
    for (what, undo) in UNDOINGS {
        let proxy = Proxy::start(WORLD.keystone.port);
        let (service, clock) = WORLD.authenticator(proxy.port, &json!({"negative_cache_secs": 0}));
        let (strict, _) = WORLD.authenticator(
            proxy.port,
            &json!({"cache_secs": 0, "negative_cache_secs": 0}),
        );
        let (user, id) = WORLD.user("reader");
        let request = with(&WORLD.token(&user));
        assert_eq!(request.outcome(&service).await, "200", "{what}");
        assert_eq!(request.outcome(&strict).await, "200", "{what}");
        let token = proxy.seen().last().expect("a validation").request.clone();
        tokio::time::sleep(A_SECOND_LATER).await;
        undo(&id, token.header("x-subject-token").expect("the token"));
        // Where nothing is cached Keystone says 404 at once, and each time.
        let asked = proxy.validations();
        for _ in 0..2 {
            assert_eq!(request.outcome(&strict).await, "401", "{what}");
        }
        assert_eq!(proxy.validations(), asked + 2, "{what}");
        clock.advance(59 * SECOND);
        assert_eq!(
            request.outcome(&service).await,
            "200",
            "{what}: within the cache time"
        );
        clock.advance(SECOND);
        assert_eq!(request.outcome(&service).await, "401", "{what}: after it");
    }
    log::assert_no_secret();
}

#[tokio::test]
async fn a_token_of_a_disabled_project_is_401() {
    let project = WORLD
        .keystone
        .create("/v3/projects", "project", &json!({"name": "closing"}));
    let (user, id) = WORLD.user("reader");
    crate::keystone::world::grant(&WORLD.keystone, &project, &id, "member");
    let scope = json!({"project": {"id": project}});
    let token = WORLD.keystone.login(&user, PASSWORD, Some(&scope));
    let (service, clock) = WORLD.authenticator(WORLD.keystone.port, &json!({}));
    assert_eq!(with(&token).outcome(&service).await, "200");
    let path = format!("/v3/projects/{project}");
    WORLD
        .keystone
        .change("PATCH", &path, &json!({"project": {"enabled": false}}));
    clock.advance(60 * SECOND);
    assert_eq!(with(&token).outcome(&service).await, "401");
}

#[tokio::test]
async fn a_token_expires_at_its_second_also_from_the_cache() {
    let short = WORLD.keystone.start_short();
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, clock) = WORLD.authenticator(proxy.port, &json!({}));
    let token = login(short.port, "alice", PASSWORD, Some(&WORLD.in_shop()));
    log::keep_secret(&token);
    let caller = with(&token).caller(&service).await;
    let left = caller.identity().expires_at.since(clock.wall());
    clock.advance(left - Duration::from_millis(1));
    assert_eq!(with(&token).outcome(&service).await, "200");
    clock.advance(Duration::from_millis(1));
    assert_eq!(with(&token).outcome(&service).await, "401");
    assert_eq!(proxy.validations(), 1, "no question is needed");
    tokio::time::sleep(left + SECOND).await;
    let (fresh, _) = WORLD.authenticator(proxy.port, &json!({}));
    assert_eq!(
        with(&token).outcome(&fresh).await,
        "401",
        "Keystone says the same"
    );
    log::assert_no_secret();
}

#[tokio::test]
async fn a_404_is_remembered_for_five_seconds() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, clock) = WORLD.authenticator(proxy.port, &json!({}));
    for _ in 0..3 {
        assert_eq!(with("unknown").outcome(&service).await, "401");
    }
    assert_eq!(proxy.validations(), 1);
    clock.advance(5 * SECOND);
    assert_eq!(with("unknown").outcome(&service).await, "401");
    assert_eq!(proxy.validations(), 2);
}

#[tokio::test]
async fn cache_time_zero_asks_keystone_for_every_request() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({"cache_secs": 0}));
    let alice = with(&WORLD.token("alice"));
    for asked in 1..4 {
        assert_eq!(alice.outcome(&service).await, "200");
        assert_eq!(proxy.validations(), asked);
    }
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({"cache_entries": 2}));
    let tokens: Vec<_> = (0..3).map(|_| with(&WORLD.token("alice"))).collect();
    for token in &tokens {
        assert_eq!(token.outcome(&service).await, "200");
    }
    let entries = |name| {
        let all = service.metrics();
        all.iter()
            .find(|sample| sample.name == name)
            .expect(name)
            .value
    };
    assert_eq!(
        entries("keystone_cache_entries"),
        isimud::keystone::Value::Gauge(2)
    );
    assert_eq!(
        entries("keystone_cache_evictions"),
        isimud::keystone::Value::Counter(1)
    );
    assert_eq!(tokens[2].outcome(&service).await, "200");
    assert_eq!(proxy.validations(), 3);
    assert_eq!(tokens[0].outcome(&service).await, "200");
    assert_eq!(proxy.validations(), 4, "the oldest one was dropped");
}

#[tokio::test]
async fn wrong_and_changed_passwords_of_the_service_user_are_503_and_are_told_once() {
    let alice = with(&WORLD.token("alice"));
    let change = |id: &str, password: &str| {
        log::keep_secret(password);
        let path = format!("/v3/users/{id}");
        let keystone = &WORLD.keystone;
        keystone.change("PATCH", &path, &json!({"user": {"password": password}}));
    };
    let (name, id) = WORLD.service_user("service");
    let more = json!({"username": name, "cache_secs": 0});
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, clock) = WORLD.authenticator(proxy.port, &more);
    assert_eq!(alice.outcome(&service).await, "200");
    tokio::time::sleep(A_SECOND_LATER).await;
    change(&id, "changed-pw-c157a790");
    // A Keystone may go on with a token of a former password for a while: this one does not.
    let former = proxy.last_service_token();
    let refusal = Fault::Answer(401, Vec::new(), "{}".to_owned());
    proxy.always(On::ValidationWith(former), refusal);
    for _ in 0..3 {
        assert_eq!(alice.outcome(&service).await, "503 5");
        clock.advance(2 * SECOND);
    }
    assert_eq!(
        service.keystone().fault,
        Some(isimud::keystone::Fault::Credentials)
    );
    let line = format!("Keystone refuses the credentials of the service user {name}");
    assert_eq!(log::count(&line), 1);
    change(&id, crate::keystone::world::SERVICE_PASSWORD);
    tokio::time::sleep(A_SECOND_LATER).await;
    clock.advance(6 * SECOND);
    assert_eq!(alice.outcome(&service).await, "200");
    assert_eq!(service.keystone().fault, None);
    let (wrong, _) = WORLD.authenticator(
        WORLD.keystone.port,
        &json!({"password": "wrong-pw-8277e091"}),
    );
    log::keep_secret("wrong-pw-8277e091");
    let error = wrong.check().await.expect_err("it is wrong");
    assert!(!error.contains("wrong-pw"), "{error}");
    let outcome = alice.outcome(&wrong).await;
    assert!(outcome.starts_with("503 "), "{outcome}");
    let shown = format!("{wrong:?}");
    assert!(!shown.contains("wrong-pw"), "{shown}");
    log::assert_no_secret();
}

#[tokio::test]
async fn a_token_that_goes_bad_during_use_is_refused_within_the_bound_in_real_time() {
    let settings = WORLD
        .config(WORLD.keystone.port, &json!({"cache_secs": 2}))
        .resolve()
        .expect("it is right");
    let clock = std::sync::Arc::new(isimud_contract::SystemClock);
    let service = isimud::keystone::Authenticator::new(&settings, clock).expect("it can be made");
    let (user, _) = WORLD.user("reader");
    let token = WORLD.token(&user);
    let request = with(&token);
    assert_eq!(request.outcome(&service).await, "200");
    WORLD.keystone.revoke(&token);
    let start = std::time::Instant::now();
    while request.outcome(&service).await == "200" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(start.elapsed() < 3 * SECOND, "it counts for too long");
    }
}
