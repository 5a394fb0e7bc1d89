//! The decision table (spec: keystone.md 3), access rules (7) and service tokens (8).

use hyper::Method;
use isimud::keystone::Scope;
use isimud_contract::Clock;
use serde_json::{Value, json};

use crate::keystone::fixture::{self, login};
use crate::keystone::proxy::Proxy;
use crate::keystone::request::{request, with};
use crate::keystone::world::{PASSWORD, grant};
use crate::keystone::{WORLD, log};

fn none() -> Value {
    json!({})
}

#[tokio::test]
async fn no_token_is_401_without_asking_keystone() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &none());
    for request in [
        request(),
        with(""),
        with("  "),
        request().header("X-Service-Token", &WORLD.service_token()),
        request().header("Authorization", &format!("Bearer {}", WORLD.token("alice"))),
        request().to(Method::HEAD, "/v2"),
        request().to(Method::GET, "/v2/ping"),
        request().to(Method::GET, "/v2/health"),
        request().to(Method::GET, "/nowhere"),
        with("two, tokens"),
        with("one").header("X-Auth-Token", "two"),
    ] {
        assert_eq!(request.outcome(&service).await, "401", "{request:?}");
    }
    assert_eq!(proxy.seen().len(), 0);
    log::assert_no_secret();
}

#[tokio::test]
async fn the_root_options_and_signed_requests_need_no_token_and_look_at_none() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &none());
    for (request, expected) in [
        (request().to(Method::GET, "/"), "anonymous"),
        (with("bad").to(Method::GET, "/"), "anonymous"),
        (with("bad").to(Method::OPTIONS, "/v2/queues"), "anonymous"),
        (with("bad").header("URL-Signature", "0123"), "signed"),
        (with("bad").header("URL-Signature", ""), "signed"),
    ] {
        assert_eq!(request.outcome(&service).await, expected, "{request:?}");
    }
    assert_eq!(proxy.seen().len(), 0);
}

#[tokio::test]
async fn a_project_scoped_token_goes_on_as_its_project_whatever_the_headers_say() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &none());
    let token = WORLD.token("alice");
    let mut forged = with(&token);
    for name in [
        "X-Project-Id",
        "X-Tenant-Id",
        "X_Project_Id",
        "X-Roles",
        "X_Roles",
        "X-Role",
        "X-User-Id",
    ] {
        forged = forged.header(name, "admin");
    }
    for name in [
        "X-Is-Admin-Project",
        "X-Identity-Status",
        "X-Service-Roles",
        "OpenStack-System-Scope",
    ] {
        forged = forged.header(name, "all");
    }
    for request in [
        with(&token),
        forged,
        request().header("X-Storage-Token", &token),
    ] {
        let caller = request.caller(&service).await;
        let project = caller.project().expect("a project");
        assert_eq!(
            (&*project.id, &*project.name),
            (WORLD.shop.as_str(), "shop")
        );
        assert_eq!(&*project.domain.id, "default");
        assert_eq!(caller.user_id(), WORLD.alice);
        assert_eq!(&*caller.identity().user.name, "alice");
        assert_eq!(&*caller.identity().user.domain.name, "Default");
        let mut roles: Vec<_> = caller.roles().collect();
        roles.sort_unstable();
        assert_eq!(roles, ["member", "reader"]);
        assert!(!caller.has_role("admin") && caller.has_role("Member"));
        assert!(!caller.is_system_scoped() && caller.service().is_none());
        assert!(caller.identity().audit_id.is_some());
    }
    assert_eq!(proxy.validations(), 1, "it is cached");
    log::assert_no_secret();
}

#[tokio::test]
async fn keystone_is_asked_as_the_specification_says() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &none());
    let token = WORLD.token("alice");
    with(&token).caller(&service).await;
    let seen = proxy.seen();
    let starts: Vec<_> = seen
        .iter()
        .map(|seen| seen.request.start.as_str())
        .collect();
    assert_eq!(
        starts,
        [
            "GET / HTTP/1.1",
            "POST /v3/auth/tokens HTTP/1.1",
            "GET /v3/auth/tokens?nocatalog HTTP/1.1"
        ]
    );
    let validation = &seen[2].request;
    assert_eq!(validation.header("x-subject-token"), Some(token.as_str()));
    assert_eq!(
        validation.header("openstack-identity-access-rules"),
        Some("1")
    );
    assert_eq!(validation.header("accept"), Some("application/json"));
    assert!(
        validation
            .header("x-auth-token")
            .is_some_and(|own| own != token)
    );
    assert_eq!(seen[0].request.header("x-auth-token"), None);
}

#[tokio::test]
async fn unknown_tokens_are_401_and_asked_for_each_time_where_404s_are_not_kept() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &json!({"negative_cache_secs": 0}));
    let fernet = WORLD.token("alice");
    let cut = &fernet[..fernet.len() - 9];
    for (asked, token) in ["unknown", "unknown", cut, "a\\b", "gAAAAAB"]
        .iter()
        .enumerate()
    {
        assert_eq!(with(token).outcome(&service).await, "401", "{token}");
        assert_eq!(proxy.validations(), asked + 1);
    }
    log::assert_no_secret();
}

#[tokio::test]
async fn tokens_of_other_scopes_lack_a_project_also_for_administrators() {
    let (service, _) = WORLD.authenticator(WORLD.keystone.port, &none());
    let admin = |scope: Option<Value>| {
        WORLD
            .keystone
            .login("admin", fixture::ADMIN_PASSWORD, scope.as_ref())
    };
    let user = WORLD.keystone.get("/v3/users?name=admin");
    let id = fixture::text(&user["users"][0]["id"]);
    let role = WORLD.keystone.role("admin");
    let path = format!("/v3/domains/default/users/{id}/roles/{role}");
    WORLD.keystone.change("PUT", &path, &Value::Null);
    let unscoped = WORLD
        .keystone
        .login("alice", PASSWORD, Some(&json!("unscoped")));
    let domain = admin(Some(json!({"domain": {"id": "default"}})));
    let system = admin(Some(json!({"system": {"all": true}})));
    for token in [&unscoped, &domain, &system] {
        log::keep_secret(token);
        for request in [with(token), with(token).header("X-Project-Id", &WORLD.shop)] {
            let health = request.clone().to(Method::GET, "/v2/health");
            assert_eq!(request.outcome(&service).await, "400");
            assert_eq!(health.outcome(&service).await, "400");
        }
    }
    let of = async |token| match with(token).send(&service).await {
        isimud::keystone::Decision::ProjectMissing(caller) => caller,
        other => panic!("{other:?}"),
    };
    let system = of(&system).await;
    assert!(system.is_system_scoped() && system.has_role("admin"));
    let domain = of(&domain).await;
    assert_eq!(domain.domain_id(), Some("default"));
    let unscoped = of(&unscoped).await;
    assert_eq!(unscoped.identity().scope, Scope::Unscoped);
    assert_eq!(unscoped.roles().count(), 0);
    log::assert_no_secret();
}

#[tokio::test]
async fn a_trust_acts_in_its_project_as_trustor_or_as_trustee() {
    let (service, _) = WORLD.authenticator(WORLD.keystone.port, &none());
    let (trustee, trustee_id) = WORLD.user("reader");
    for impersonation in [true, false] {
        let trust = json!({
            "impersonation": impersonation, "project_id": WORLD.shop, "roles": [{"name": "member"}],
            "trustee_user_id": trustee_id, "trustor_user_id": WORLD.alice,
        });
        let body = json!({ "trust": trust });
        let token = WORLD.token("alice");
        let made = WORLD
            .keystone
            .request("POST", "/v3/OS-TRUST/trusts", &token, Some(&body));
        assert_eq!(made.status(), 201, "{}", made.json());
        let trust = fixture::text(&made.json()["trust"]["id"]);
        let scope = json!({"OS-TRUST:trust": {"id": trust}});
        let token = WORLD.keystone.login(&trustee, PASSWORD, Some(&scope));
        let caller = with(&token).caller(&service).await;
        let user = if impersonation {
            &WORLD.alice
        } else {
            &trustee_id
        };
        assert_eq!(caller.user_id(), user);
        assert_eq!(&*caller.project().expect("a project").id, WORLD.shop);
        assert!(caller.has_role("member"));
        let of_token = caller.identity().trust.as_ref().expect("a trust");
        assert_eq!(
            (&*of_token.id, of_token.impersonation),
            (trust.as_str(), impersonation)
        );
        assert_eq!(&*of_token.trustor_user_id, WORLD.alice);
        assert_eq!(&*of_token.trustee_user_id, trustee_id);
    }
}

#[tokio::test]
async fn roles_are_those_of_keystone() {
    let (service, _) = WORLD.authenticator(WORLD.keystone.port, &none());
    for (role, has_admin) in [("admin", true), ("service", false), ("reader", false)] {
        let (name, _) = WORLD.user(role);
        let caller = with(&WORLD.token(&name)).caller(&service).await;
        assert!(caller.has_role(role), "{role}");
        assert_eq!(caller.has_role("admin"), has_admin, "{role}");
        assert_eq!(
            caller.has_role("member"),
            has_admin,
            "implied roles come with it"
        );
    }
}

#[tokio::test]
async fn an_application_credential_without_rules_acts_as_its_user() {
    let (service, _) = WORLD.authenticator(WORLD.keystone.port, &none());
    for rules in [None, Some(json!([]))] {
        let token = WORLD.credential_token(rules.as_ref());
        let caller = with(&token).caller(&service).await;
        assert_eq!(caller.user_id(), WORLD.alice);
        let credential = caller.identity().application_credential.as_ref();
        assert_eq!(credential.expect("a credential").access_rules, None);
        let put = with(&token).to(Method::PUT, "/v2/queues/q");
        assert_eq!(put.outcome(&service).await, "200");
    }
}

#[tokio::test]
async fn access_rules_limit_an_application_credential_unless_a_service_passes_it_on() {
    let (service, _) = WORLD.authenticator(WORLD.keystone.port, &none());
    let rule = |service: &str, method: &str, path: &str| json!({"service": service, "method": method, "path": path});
    let rules = json!([
        rule("messaging", "GET", "/v2/queues"),
        rule("messaging", "PUT", "/v2/queues/*"),
        rule("messaging", "POST", "/messaging/v2/queues/{name}/messages"),
        rule("messaging", "DELETE", "/v2/a.b/**"),
        rule("zaqar", "PATCH", "/v2/queues/*"),
    ]);
    let token = WORLD.credential_token(Some(&rules));
    for (method, path, base_path, expected) in [
        (Method::GET, "/v2/queues", "", "200"),
        (Method::HEAD, "/v2/queues", "", "401"),
        (Method::GET, "/v2/queues/", "", "401"),
        (Method::GET, "/v2/queues/q", "", "401"),
        (Method::PUT, "/v2/queues/q", "", "200"),
        (Method::PUT, "/v2/queues/%71%20", "", "200"),
        (Method::PUT, "/v2/queues/q%2Fx", "", "401"),
        (Method::PATCH, "/v2/queues/q", "", "401"),
        (Method::POST, "/v2/queues/q/messages", "", "401"),
        (Method::POST, "/v2/queues/q/messages", "/messaging", "200"),
        (Method::DELETE, "/v2/a.b/", "", "200"),
        (Method::DELETE, "/v2/aXb/", "", "401"),
        (Method::GET, "/v2", "", "401"),
        (Method::GET, "/", "", "anonymous"),
    ] {
        let request = with(&token).to(method, path).below(base_path);
        assert_eq!(request.outcome(&service).await, expected, "{request:?}");
    }
    let passed_on = with(&token)
        .service(&WORLD.service_token())
        .to(Method::PATCH, "/v2/anything");
    assert_eq!(passed_on.outcome(&service).await, "200");
    let (other, _) = WORLD.authenticator(WORLD.keystone.port, &json!({"service_type": "zaqar"}));
    let patch = with(&token).to(Method::PATCH, "/v2/queues/q");
    assert_eq!(patch.outcome(&other).await, "200");
    assert_eq!(with(&token).outcome(&other).await, "401");
    log::assert_no_secret();
}

#[tokio::test]
async fn a_service_token_must_be_good_and_have_a_service_role() {
    let proxy = Proxy::start(WORLD.keystone.port);
    let (service, _) = WORLD.authenticator(proxy.port, &none());
    let (alice, nova) = (WORLD.token("alice"), WORLD.service_token());
    let caller = with(&alice).service(&nova).caller(&service).await;
    assert_eq!(caller.user_id(), WORLD.alice);
    let identity = caller.service().expect("a service");
    assert_eq!(&*identity.user.id, WORLD.nova);
    assert!(identity.has_role("service") && !caller.has_role("service"));
    assert_eq!(proxy.validations(), 2);
    for bad in ["unknown", &alice, "not a token"] {
        assert_eq!(with(&alice).service(bad).outcome(&service).await, "401");
    }
    assert_eq!(with(&alice).service("").outcome(&service).await, "200");
    assert_eq!(
        with("unknown").service(&nova).outcome(&service).await,
        "401"
    );
    let (other, _) = WORLD.authenticator(
        proxy.port,
        &json!({"service_token_roles": ["MEMBER", "nobody"]}),
    );
    assert_eq!(with(&alice).service(&alice).outcome(&other).await, "200");
    assert_eq!(with(&alice).service(&nova).outcome(&other).await, "401");
    log::assert_no_secret();
}

#[tokio::test]
async fn an_expired_token_is_good_with_a_service_token_and_with_nothing_else() {
    let short = WORLD.keystone.start_short();
    let nova = WORLD.service_token();
    let (service, clock) = WORLD.authenticator(WORLD.keystone.port, &none());
    service.check().await.expect("Keystone can be asked");
    let alice = login(short.port, "alice", PASSWORD, Some(&WORLD.in_shop()));
    log::keep_secret(&alice);
    let caller = with(&alice).caller(&service).await;
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let left = caller.identity().expires_at.since(clock.wall());
    clock.advance(left);
    assert_eq!(
        with(&alice).outcome(&service).await,
        "401",
        "although it is cached"
    );
    let (fresh, _) = WORLD.authenticator(WORLD.keystone.port, &none());
    for service in [&service, &fresh] {
        for _ in 0..2 {
            assert_eq!(with(&alice).outcome(service).await, "401");
            assert_eq!(with(&alice).service(&nova).outcome(service).await, "200");
            assert_eq!(
                with(&alice).service("unknown").outcome(service).await,
                "401"
            );
        }
    }
    log::assert_no_secret();
}

#[tokio::test]
async fn the_service_may_be_an_application_credential_or_named_by_ids() {
    let (id, secret) = WORLD.service_credential();
    let credential = json!({
        "username": "", "password": "", "application_credential_id": id, "application_credential_secret": secret,
    });
    let ids = WORLD.keystone.get("/v3/users?name=zaqar");
    let user = fixture::text(&ids["users"][0]["id"]);
    let ids = WORLD.keystone.get("/v3/projects?name=service");
    let project = fixture::text(&ids["projects"][0]["id"]);
    let by_ids = json!({"username": "", "user_id": user, "project": "", "project_id": project});
    let by_names = json!({
        "user_domain_id": "", "user_domain": "Default", "project_domain_id": "", "project_domain": "Default",
    });
    let versioned = json!({"auth_url": format!("http://127.0.0.1:{}/v3/", WORLD.keystone.port)});
    let nowhere = json!({"region": "Nowhere"});
    let public = json!({"interface": "public", "region": "RegionOne"});
    for more in [credential, by_ids, by_names, versioned, nowhere, public] {
        let (service, _) = WORLD.authenticator(WORLD.keystone.port, &more);
        service.check().await.expect("Keystone can be asked");
        assert_eq!(
            with(&WORLD.token("alice")).outcome(&service).await,
            "200",
            "{more}"
        );
    }
    log::assert_no_secret();
}

#[tokio::test]
async fn a_service_user_without_a_role_that_may_validate_is_503_and_never_401() {
    let (name, id) = WORLD.service_user("reader");
    let (service, _) = WORLD.authenticator(WORLD.keystone.port, &json!({"username": name}));
    let alice = with(&WORLD.token("alice"));
    assert_eq!(alice.outcome(&service).await, "503 5");
    assert_eq!(
        service.keystone().fault,
        Some(isimud::keystone::Fault::Permission)
    );
    assert_eq!(
        log::count(&format!(
            "does not let the service user {name} validate tokens"
        )),
        1
    );
    let projects = WORLD.keystone.get("/v3/projects?name=service");
    grant(
        &WORLD.keystone,
        &fixture::text(&projects["projects"][0]["id"]),
        &id,
        "admin",
    );
}
