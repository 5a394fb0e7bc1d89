//! Trusts with a Keystone that answers as a real one does, counts, and fails when it is told to. The real one is in
//! `tests/keystone`.

use std::collections::BTreeMap;
use std::io;

use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use isimud_contract::ManualClock;
use tokio::net::TcpListener;

use super::*;
use crate::keystone::identity::tests::identity;
use crate::keystone::{KeystoneConfig, TrusteeConfig};

const ALICE: &str = "token-of-alice";
const CREDENTIAL: &str = "token-of-a-credential";
const HOUR: Duration = Duration::from_hours(1);

/// A Keystone.
struct Fake {
    url: String,
    state: Arc<Mutex<FakeState>>,
}

#[derive(Default)]
struct FakeState {
    /// Method, path, token and document of each request.
    seen: Vec<(String, String, Value)>,
    trusts: BTreeMap<String, Value>,
    password: String,
    tokens: usize,
    expires_at: String,
    /// So many trusts end at the same moment as another.
    conflicts: usize,
    /// What every request is answered.
    fault: Option<(u16, String)>,
    /// The connection is closed when a trust was created, in place of an answer.
    is_closing: bool,
}

fn error(status: u16, message: &str) -> (u16, Option<String>, String) {
    let document = json!({"error": {"code": status, "message": message, "title": "…"}});
    (status, None, document.to_string())
}

impl FakeState {
    fn answer(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: &Value,
    ) -> (u16, Option<String>, String) {
        let path = path
            .trim_start_matches("/v3")
            .trim_end_matches("?nocatalog");
        self.seen
            .push((format!("{method} {path}"), token.to_owned(), body.clone()));
        if let Some((status, body)) = &self.fault {
            return (*status, None, body.clone());
        }
        let is_trustee = token.starts_with("unscoped");
        match (method, path, path.strip_prefix("/OS-TRUST/trusts/")) {
            ("POST", "/auth/tokens", _) => self.log_in(body),
            ("GET", "/auth/tokens", _) if token == ALICE => {
                let roles = json!([{"id": "r1", "name": "Member"}, {"id": "r2", "name": "reader"}]);
                (200, None, json!({"token": {"roles": roles}}).to_string())
            }
            ("GET", "/auth/tokens", _) if token == CREDENTIAL => {
                (200, None, json!({"token": {"roles": []}}).to_string())
            }
            ("POST", "/OS-TRUST/trusts", _) if token == CREDENTIAL => {
                error(403, "No.\nNot with this.")
            }
            ("POST", "/OS-TRUST/trusts", _) if self.conflicts > 0 => {
                self.conflicts -= 1;
                error(
                    409,
                    "Conflict occurred attempting to store trust - Duplicate entry found.",
                )
            }
            ("POST", "/OS-TRUST/trusts", _) if token == ALICE => {
                let id = format!("trust{}", self.trusts.len());
                self.trusts.insert(id.clone(), body["trust"].clone());
                (201, None, json!({"trust": {"id": id}}).to_string())
            }
            ("GET", _, Some(id)) if is_trustee => match self.trusts.get(id) {
                Some(trust) => (200, None, json!({ "trust": trust }).to_string()),
                None => error(404, "Could not find trust."),
            },
            ("DELETE", _, Some(id)) if token.starts_with(id) => match self.trusts.remove(id) {
                Some(_) => (204, None, String::new()),
                None => error(404, "Could not find trust."),
            },
            _ => error(401, "The request you have made requires authentication."),
        }
    }

    fn log_in(&mut self, body: &Value) -> (u16, Option<String>, String) {
        let auth = &body["auth"];
        if auth["identity"]["password"]["user"]["password"] != self.password {
            return error(401, "The request you have made requires authentication.");
        }
        let scope = match auth["scope"]["OS-TRUST:trust"]["id"].as_str() {
            Some(id) if !self.trusts.contains_key(id) => {
                return error(404, "Could not find trust.");
            }
            Some(id) => id,
            None => "unscoped",
        };
        self.tokens += 1;
        let token = format!("{scope}-{}", self.tokens);
        let document = json!({"token": {"user": {"id": "zaqar"}, "expires_at": self.expires_at}});
        (201, Some(token), document.to_string())
    }
}

impl Fake {
    async fn start(clock: &ManualClock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v3", listener.local_addr().expect("its address"));
        let state = Arc::new(Mutex::new(FakeState {
            password: "pw".to_owned(),
            expires_at: dates::iso8601(clock.wall().after(HOUR)),
            ..FakeState::default()
        }));
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, state }
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().expect("no test has panicked")
    }

    /// How many requests of a kind came.
    fn count(&self, wanted: &str) -> usize {
        let state = self.state();
        state
            .seen
            .iter()
            .filter(|(request, ..)| request == wanted)
            .count()
    }

    fn trusts(&self, clock: &Arc<ManualClock>, roles: &[&str]) -> Arc<Trusts> {
        let config = KeystoneConfig {
            auth_url: self.url.clone(),
            username: "zaqar".to_owned(),
            user_domain_id: "default".to_owned(),
            password: crate::notifications::Password("pw".to_owned()),
            project: "service".to_owned(),
            project_domain_id: "default".to_owned(),
            trust_roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..KeystoneConfig::default()
        };
        let settings = config.resolve().expect("right settings");
        let trustee = TrusteeConfig::default()
            .resolve(&settings)
            .expect("a trustee");
        let shared = || Arc::clone(clock) as Arc<dyn Clock>;
        let authenticator = Authenticator::new(&settings, shared()).expect("an authenticator");
        let mut trusts = Trusts::new(&authenticator, &settings, trustee, shared());
        trusts.deletion_pause = Duration::from_millis(1);
        Arc::new(trusts)
    }
}

async fn answer(
    state: Arc<Mutex<FakeState>>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let token = head.headers.get("x-auth-token").map(HeaderValue::to_str);
    let token = token.and_then(Result::ok).unwrap_or_default();
    let path = head.uri.path_and_query().expect("a path").as_str();
    let mut state = state.lock().expect("no test has panicked");
    let (status, token, text) = state.answer(head.method.as_str(), path, token, &body);
    if state.is_closing && status == 201 && path.starts_with("/v3/OS-TRUST") {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let mut response = Response::builder().status(status);
    if let Some(token) = token {
        response = response.header("X-Subject-Token", token);
    }
    Ok(response.body(Full::from(text)).expect("an answer"))
}

fn trustor(token: &'static str) -> Trustor {
    let identity = identity(&["member", "reader"], Timestamp(i64::MAX));
    let caller = Caller {
        identity: Arc::new(identity),
        service: None,
        is_stale: false,
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-auth-token", HeaderValue::from_static(token));
    Trustor::of_request(&caller, &headers).expect("a user with a token")
}

async fn world(roles: &[&str]) -> (Fake, Arc<Trusts>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let fake = Fake::start(&clock).await;
    let trusts = fake.trusts(&clock, roles);
    (fake, trusts, clock)
}

fn text(token: &HeaderValue) -> &str {
    assert!(token.is_sensitive());
    token.to_str().expect("a text")
}

#[tokio::test]
async fn a_trust_is_created_with_the_users_token_and_roles() {
    let (fake, trusts, _) = world(&[]).await;
    assert_eq!(
        trusts.create(&trustor(ALICE), HOUR).await.as_deref(),
        Ok("trust0")
    );
    assert_eq!(
        trusts.create(&trustor(ALICE), HOUR).await.as_deref(),
        Ok("trust1")
    );
    let expected = json!({
        "impersonation": true, "project_id": "858a",
        "roles": [{"id": "r1"}, {"id": "r2"}], "trustee_user_id": "zaqar", "trustor_user_id": "632d",
    });
    let mut trust = fake.state().trusts["trust0"].clone();
    let members = trust.as_object_mut().expect("an object");
    let expires_at = members.remove("expires_at");
    let expires_at = expires_at.as_ref().and_then(Value::as_str).expect("an end");
    assert!(
        expires_at.starts_with("2026-01-01T01:00:00.000") && expires_at.len() == 27,
        "{expires_at}"
    );
    assert_eq!(trust, expected);
    assert_eq!(
        fake.count("POST /auth/tokens"),
        1,
        "the trustee's id is learned once"
    );
    let state = fake.state();
    let (_, _, login) = state.seen.first().expect("a login");
    assert_eq!(login["auth"].get("scope"), None);
}

#[tokio::test]
async fn a_trust_that_ends_with_another_is_asked_for_again() {
    let (fake, trusts, _) = world(&[]).await;
    fake.state().conflicts = MAX_ATTEMPTS - 1;
    assert!(trusts.create(&trustor(ALICE), HOUR).await.is_ok());
    assert_eq!(fake.count("POST /OS-TRUST/trusts"), MAX_ATTEMPTS);
    fake.state().conflicts = MAX_ATTEMPTS;
    let created = trusts.create(&trustor(ALICE), HOUR).await;
    assert!(
        matches!(created, Err(TrustError::Unavailable { .. })),
        "{created:?}"
    );
}

#[tokio::test]
async fn named_roles_are_the_roles_of_a_trust() {
    let (fake, trusts, _) = world(&["Member"]).await;
    trusts.create(&trustor(ALICE), HOUR).await.expect("a trust");
    assert_eq!(
        fake.state().trusts["trust0"]["roles"],
        json!([{"name": "Member"}])
    );
    assert_eq!(fake.count("GET /auth/tokens"), 0);
}

#[tokio::test]
async fn a_refused_trust_has_keystones_reason_and_an_outage_is_no_refusal() {
    let (fake, trusts, _) = world(&[]).await;
    let refused = trusts.create(&trustor(CREDENTIAL), HOUR).await;
    assert_eq!(
        refused,
        Err(TrustError::Refused("No. Not with this.".to_owned()))
    );
    for (status, body) in [
        (503, "{}"),
        (403, "<html>a proxy</html>"),
        (429, ""),
        (500, ""),
        (404, "{}"),
    ] {
        fake.state().fault = Some((status, body.to_owned()));
        let result = trusts.create(&trustor(ALICE), HOUR).await;
        assert!(
            matches!(result, Err(TrustError::Unavailable { .. })),
            "{status}: {result:?}"
        );
    }
}

#[tokio::test]
async fn only_a_trust_of_the_caller_for_this_service_may_be_named() {
    let (fake, trusts, _) = world(&[]).await;
    let own = json!({"trustor_user_id": "632d", "project_id": "858a", "trustee_user_id": "zaqar",
        "impersonation": true, "roles": [{"name": "Member"}]});
    fake.state().trusts.insert("own".to_owned(), own.clone());
    for (id, key) in [
        ("user", "trustor_user_id"),
        ("project", "project_id"),
        ("trustee", "trustee_user_id"),
    ] {
        let mut foreign = own.clone();
        foreign[key] = "other".into();
        fake.state().trusts.insert(id.to_owned(), foreign);
    }
    let mut wide = own.clone();
    wide["roles"] = json!([{"name": "member"}, {"name": "admin"}]);
    fake.state().trusts.insert("wide".to_owned(), wide);
    // Its tokens would be the trustee's.
    let mut trustees = own.clone();
    trustees["impersonation"] = false.into();
    fake.state().trusts.insert("trustees".to_owned(), trustees);
    assert_eq!(trusts.check("own", &trustor(ALICE)).await, Ok(()));
    for id in [
        "wide",
        "trustees",
        "user",
        "project",
        "trustee",
        "missing",
        "",
        "../users",
        "own?x",
        &"a".repeat(65),
    ] {
        let checked = trusts.check(id, &trustor(ALICE)).await;
        assert_eq!(checked, Err(TrustError::Foreign), "{id}");
    }
    let asked = |(request, ..): &&(String, String, Value)| request.starts_with("GET /OS-TRUST");
    assert_eq!(
        fake.state().seen.iter().filter(asked).count(),
        7,
        "no odd id is sent"
    );
}

#[tokio::test]
async fn a_check_renews_a_stale_token_of_the_trustee_once() {
    let (fake, trusts, _) = world(&[]).await;
    let own = json!({"trustor_user_id": "632d", "project_id": "858a", "trustee_user_id": "zaqar",
        "impersonation": true, "roles": [{"name": "Member"}]});
    fake.state().trusts.insert("own".to_owned(), own);
    trusts
        .create(&trustor(ALICE), HOUR)
        .await
        .expect("the trustee is known");
    let refused = r#"{"error": {"code": 401, "message": "No."}}"#.to_owned();
    fake.state().fault = Some((401, refused));
    let checked = trusts.check("own", &trustor(ALICE)).await;
    assert!(
        matches!(checked, Err(TrustError::Unavailable { .. })),
        "{checked:?}"
    );
    assert_eq!(
        fake.count("POST /auth/tokens"),
        2,
        "the first, and one renewal"
    );
}

#[tokio::test]
async fn a_token_is_kept_until_a_minute_before_its_end() {
    let (fake, trusts, clock) = world(&[]).await;
    for id in ["a", "b"] {
        fake.state().trusts.insert(id.to_owned(), json!({}));
    }
    let all = (0..100).map(|_| trusts.token("a", None));
    for token in futures_util::future::join_all(all).await {
        assert_eq!(text(&token.expect("a token")), "a-1");
    }
    assert_eq!(
        fake.count("POST /auth/tokens"),
        1,
        "one request for a hundred callers"
    );
    assert_eq!(
        text(&trusts.token("b", None).await.expect("a token")),
        "b-2"
    );
    clock.advance(HOUR - RENEW_BEFORE - Duration::from_millis(1));
    let old = trusts.token("a", None).await.expect("a token");
    assert_eq!(text(&old), "a-1");
    clock.advance(Duration::from_millis(1));
    fake.state().expires_at = dates::iso8601(clock.wall().after(HOUR));
    let new = trusts.token("a", None).await.expect("a token");
    assert_eq!(text(&new), "a-3");
    // The one that is refused is not given again; the one that came meanwhile is.
    let given = trusts.token("a", Some(&old)).await.expect("a token");
    assert_eq!(text(&given), "a-3");
    let renewed = trusts.token("a", Some(&new)).await.expect("a token");
    assert_eq!(text(&renewed), "a-4");
}

#[tokio::test]
async fn a_refused_trust_costs_one_request_a_minute() {
    let (fake, trusts, clock) = world(&[]).await;
    for _ in 0..100 {
        let token = trusts.token("gone", None).await;
        assert!(matches!(token, Err(TrustError::Refused(_))), "{token:?}");
    }
    assert_eq!(fake.count("POST /auth/tokens"), 1);
    clock.advance(REFUSAL_TTL);
    assert!(trusts.token("gone", None).await.is_err());
    assert_eq!(fake.count("POST /auth/tokens"), 2);
}

#[tokio::test]
async fn a_receiver_that_refuses_every_token_gets_one_new_a_minute() {
    let (fake, trusts, clock) = world(&[]).await;
    fake.state().trusts.insert("a".to_owned(), json!({}));
    let mut token = trusts.token("a", None).await.expect("a token");
    token = trusts.token("a", Some(&token)).await.expect("a new token");
    assert_eq!(text(&token), "a-2");
    for _ in 0..100 {
        let refused = trusts.token("a", Some(&token)).await;
        assert!(
            matches!(refused, Err(TrustError::Refused(_))),
            "{refused:?}"
        );
        // Others may be content with it.
        assert_eq!(trusts.token("a", None).await.as_ref(), Ok(&token));
    }
    clock.advance(REFUSAL_TTL);
    token = trusts.token("a", Some(&token)).await.expect("a new token");
    assert_eq!(text(&token), "a-3");
    assert_eq!(fake.count("POST /auth/tokens"), 3);
}

#[tokio::test]
async fn a_trust_is_asked_for_once_where_the_answer_is_lost() {
    let (fake, trusts, _) = world(&[]).await;
    fake.state().is_closing = true;
    let created = trusts.create(&trustor(ALICE), HOUR).await;
    assert!(
        matches!(created, Err(TrustError::Unavailable { .. })),
        "{created:?}"
    );
    assert_eq!(fake.count("POST /OS-TRUST/trusts"), 1);
}

#[tokio::test]
async fn a_trust_that_is_gone_is_refused_and_a_wrong_password_is_not_its_fault() {
    let (fake, trusts, clock) = world(&[]).await;
    let token = trusts.token("gone", None).await;
    assert_eq!(
        token,
        Err(TrustError::Refused("Could not find trust.".to_owned()))
    );
    fake.state().trusts.insert("a".to_owned(), json!({}));
    fake.state().password = "changed".to_owned();
    for _ in 0..3 {
        let token = trusts.token("a", None).await;
        assert!(
            matches!(token, Err(TrustError::Unavailable { .. })),
            "{token:?}"
        );
    }
    assert_eq!(
        fake.count("POST /auth/tokens"),
        3,
        "nothing is tried for a moment"
    );
    fake.state().password = "pw".to_owned();
    clock.advance(RETRY_DELAY);
    assert!(trusts.token("a", None).await.is_ok());
    let outcome = TrustTokens::token(&*trusts, "gone", None).await;
    assert_eq!(outcome.expect_err("no token").after, None);
}

#[tokio::test]
async fn a_keystone_that_is_down_is_left_alone_for_a_second() {
    let (fake, trusts, clock) = world(&[]).await;
    fake.state().trusts.insert("a".to_owned(), json!({}));
    fake.state().fault = Some((503, String::new()));
    for _ in 0..20 {
        let token = TrustTokens::token(&*trusts, "a", None).await;
        let after = token.expect_err("no token").after;
        assert_eq!(after, Some(Duration::from_secs(DEFAULT_RETRY_AFTER)));
    }
    assert_eq!(fake.count("POST /auth/tokens"), 5, "the breaker opens");
    fake.state().fault = None;
    clock.advance(Duration::from_secs(1));
    assert!(trusts.token("a", None).await.is_ok());
}

#[tokio::test]
async fn trusts_are_deleted_by_their_own_tokens() {
    let (fake, trusts, _) = world(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(trusts.create(&trustor(ALICE), HOUR).await.expect("a trust"));
    }
    ids.push("gone".to_owned());
    trusts.token("trust0", None).await.expect("a token");
    trusts.delete_soon(ids);
    while !trusts.deletions().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.state().trusts.len(), 0);
    {
        let state = fake.state();
        let deletions = state
            .seen
            .iter()
            .filter(|(request, ..)| request.starts_with("DELETE"));
        for (request, token, _) in deletions {
            let id = request.rsplit('/').next().expect("an id");
            assert!(token.starts_with(&format!("{id}-")), "{request} {token}");
        }
    }
    assert!(
        trusts.token("trust0", None).await.is_err(),
        "its token is forgotten"
    );
}

#[tokio::test]
async fn a_trust_is_deleted_after_an_outage_of_keystone() {
    let (fake, trusts, clock) = world(&[]).await;
    let id = trusts.create(&trustor(ALICE), HOUR).await.expect("a trust");
    let asked = fake.state().seen.len();
    fake.state().fault = Some((500, String::new()));
    trusts.delete_soon(vec![id.clone()]);
    while fake.state().seen.len() == asked {
        tokio::task::yield_now().await;
    }
    fake.state().fault = None;
    while !trusts.deletions().is_empty() {
        // What keeps requests back after a failure waits for the clock.
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!fake.state().trusts.contains_key(&id));
}

#[tokio::test]
async fn a_trust_that_cannot_be_deleted_holds_nothing_up() {
    let (fake, trusts, _) = world(&[]).await;
    let id = trusts.create(&trustor(ALICE), HOUR).await.expect("a trust");
    fake.state().fault = Some((500, String::new()));
    trusts.delete_soon(vec![id.clone(), id.clone()]);
    while !trusts.deletions().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(fake.state().trusts.contains_key(&id));
}

#[test]
fn nothing_shows_a_token() {
    let trustor = trustor(ALICE);
    let shown = format!("{trustor:?}");
    assert!(!shown.contains(ALICE) && shown.contains("632d"), "{shown}");
}
