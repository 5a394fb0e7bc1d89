//! Who may do what (spec: policies.md).

use serde_json::json;
use tempfile::TempDir;

use crate::api::support::App;

const ID: &str = "c8cbd19a-842e-4794-8e25-3d5e2df00f2b";

/// A service with an operator's policies, and the folder that they are in.
fn app_with(policies: &str) -> (App, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("policy.yaml");
    std::fs::write(&path, policies).expect("a policy file");
    let app = App::with(&format!(
        "[access]\nlegacy_identity_headers = true\npolicy_file = '{}'\n[signed_url]\nsecret_key = 'k'",
        path.display()
    ));
    (app, folder)
}

/// Every operation that is served: its rule, its method, its path.
const OPERATIONS: &[(&str, &str, &str)] = &[
    ("queues:get_all", "GET", "/v2/queues"),
    ("queues:create", "PUT", "/v2/queues/q"),
    ("queues:get", "GET", "/v2/queues/q"),
    ("queues:delete", "DELETE", "/v2/queues/other"),
    ("queues:update", "PATCH", "/v2/queues/q"),
    ("queues:stats", "GET", "/v2/queues/q/stats"),
    ("queues:purge", "POST", "/v2/queues/q/purge"),
    ("messages:get_all", "GET", "/v2/queues/q/messages"),
    ("messages:get_all", "GET", "/v2/queues/q/messages?ids=1"),
    ("messages:create", "POST", "/v2/queues/q/messages"),
    ("messages:get", "GET", "/v2/queues/q/messages/ID"),
    ("messages:delete", "DELETE", "/v2/queues/q/messages/ID"),
    (
        "messages:delete_all",
        "DELETE",
        "/v2/queues/q/messages?ids=1",
    ),
    (
        "messages:delete_all",
        "DELETE",
        "/v2/queues/q/messages?pop=1",
    ),
    ("claims:create", "POST", "/v2/queues/q/claims"),
    ("claims:get", "GET", "/v2/queues/q/claims/ID"),
    ("claims:delete", "DELETE", "/v2/queues/q/claims/ID"),
    ("claims:update", "PATCH", "/v2/queues/q/claims/ID"),
    ("queues:share", "POST", "/v2/queues/q/share"),
    ("subscription:get_all", "GET", "/v2/queues/q/subscriptions"),
    ("subscription:create", "POST", "/v2/queues/q/subscriptions"),
    ("subscription:get", "GET", "/v2/queues/q/subscriptions/ID"),
    (
        "subscription:update",
        "PATCH",
        "/v2/queues/q/subscriptions/ID",
    ),
    (
        "subscription:delete",
        "DELETE",
        "/v2/queues/q/subscriptions/ID",
    ),
    (
        "subscription:confirm",
        "PUT",
        "/v2/queues/q/subscriptions/ID/confirm",
    ),
    ("topics:get_all", "GET", "/v2/topics"),
    ("topics:create", "PUT", "/v2/topics/t"),
    ("topics:get", "GET", "/v2/topics/t"),
    ("topics:delete", "DELETE", "/v2/topics/other"),
    ("topics:update", "PATCH", "/v2/topics/t"),
    ("topics:stats", "GET", "/v2/topics/t/stats"),
    ("topics:purge", "POST", "/v2/topics/t/purge"),
    ("messages:get_all", "GET", "/v2/topics/t/messages"),
    ("messages:create", "POST", "/v2/topics/t/messages"),
    ("messages:get", "GET", "/v2/topics/t/messages/ID"),
    ("messages:delete", "DELETE", "/v2/topics/t/messages/ID"),
    (
        "messages:delete_all",
        "DELETE",
        "/v2/topics/t/messages?pop=1",
    ),
    ("subscription:get_all", "GET", "/v2/topics/t/subscriptions"),
    ("subscription:create", "POST", "/v2/topics/t/subscriptions"),
    ("subscription:get", "GET", "/v2/topics/t/subscriptions/ID"),
    (
        "subscription:update",
        "PATCH",
        "/v2/topics/t/subscriptions/ID",
    ),
    (
        "subscription:delete",
        "DELETE",
        "/v2/topics/t/subscriptions/ID",
    ),
    (
        "subscription:confirm",
        "PUT",
        "/v2/topics/t/subscriptions/ID/confirm",
    ),
    ("ping:get", "GET", "/v2/ping"),
    ("ping:get", "HEAD", "/v2/ping"),
    ("flavors:get_all", "GET", "/v2/flavors"),
    ("flavors:get", "GET", "/v2/flavors/f"),
];

/// Those that need the role of an administrator.
const FOR_ADMINS: &[(&str, &str, &str)] = &[
    ("pools:get_all", "GET", "/v2/pools"),
    ("pools:create", "PUT", "/v2/pools/p"),
    ("pools:get", "GET", "/v2/pools/p"),
    ("pools:update", "PATCH", "/v2/pools/p"),
    ("pools:delete", "DELETE", "/v2/pools/p"),
    ("flavors:create", "PUT", "/v2/flavors/f"),
    ("flavors:update", "PATCH", "/v2/flavors/f"),
    ("flavors:delete", "DELETE", "/v2/flavors/f"),
    ("health:get", "GET", "/v2/health"),
];

#[tokio::test]
async fn what_operators_do_needs_their_role() {
    let app = App::new();
    for (rule, method, path) in FOR_ADMINS {
        for asking in [&app, &app.header("X-Roles", "member, administrator")] {
            let answer = asking.send(method, path, ()).await;
            assert_eq!(answer.status, 403, "{rule} {method} {path}");
        }
        for role in ["admin", "member, ADMIN"] {
            let answer = app.header("X-Roles", role).send(method, path, ()).await;
            assert_ne!(answer.status, 403, "{rule} {method} {path}");
        }
        let (denying, _folder) = app_with(&format!("\"{rule}\": \"!\""));
        let answer = denying.admin().send(method, path, ()).await;
        assert_eq!(answer.status, 403, "{rule} {method} {path}");
    }
}

/// Does an operation with a body that is right for it, and returns its status.
async fn status(app: &App, method: &str, path: &str) -> u16 {
    let path = path.replace("ID", ID);
    let answer = match (method, path.as_str()) {
        ("PATCH", "/v2/queues/q" | "/v2/topics/t") => app.patch(&path, "[]").await,
        ("POST", "/v2/queues/q/share") => app.post(&path, "{}").await,
        ("POST", path) if path.ends_with("/subscriptions") => {
            let subscription = json!({"subscriber": "http://receiver.example/"});
            app.post(path, subscription).await
        }
        ("PUT", path) if path.ends_with("/confirm") => {
            app.put(path, json!({"confirmed": true})).await
        }
        ("PATCH", _) => app.patch(&path, json!({"ttl": 60})).await,
        ("POST", "/v2/queues/q/messages" | "/v2/topics/t/messages") => {
            app.post(&path, json!({"messages": [{"body": 1}]})).await
        }
        _ => app.send(method, &path, ()).await,
    };
    answer.status
}

#[tokio::test]
async fn without_a_file_nothing_needs_a_role() {
    let app = App::with("[signed_url]\nsecret_key = 'k'");
    app.put("/v2/queues/q", ()).await.assert_status(201);
    app.put("/v2/topics/t", ()).await.assert_status(201);
    for (rule, method, path) in OPERATIONS {
        let status = status(&app, method, path).await;
        assert!(
            status < 400 || status == 404,
            "{rule} {method} {path}: {status}"
        );
    }
}

#[tokio::test]
async fn each_operation_has_its_own_rule() {
    let app = App::new();
    app.put("/v2/queues/q", ()).await;
    let rules: std::collections::BTreeSet<_> = OPERATIONS.iter().map(|one| one.0).collect();
    for denied in rules {
        let (app, _folder) = app_with(&format!("\"{denied}\": \"!\""));
        app.put("/v2/queues/q", ()).await;
        app.put("/v2/topics/t", ()).await;
        for (rule, method, path) in OPERATIONS {
            let status = status(&app, method, path).await;
            assert_eq!(
                status == 403,
                *rule == denied,
                "{denied}: {method} {path} {status}"
            );
        }
    }
}

#[tokio::test]
async fn versions_and_home_have_no_rule() {
    let rules: Vec<String> = OPERATIONS
        .iter()
        .map(|(rule, ..)| format!("\"{rule}\": \"!\""))
        .collect();
    let mut rules = rules;
    rules.sort();
    rules.dedup();
    let (app, _folder) = app_with(&rules.join("\n"));
    app.get("/").await.assert_status(300);
    app.get("/v2/").await.assert_status(200);
    app.get("/v2/queues").await.assert_status(403);
}

#[tokio::test]
async fn an_operation_without_the_right_role_is_403() {
    let (app, _folder) = app_with("\"queues:create\": \"role:admin\"");
    let answer = app.put("/v2/queues/q", ()).await;
    answer.assert_refused(
        403,
        "Not authorized",
        "You are not authorized to complete this action.",
    );
    assert_eq!(answer.header("vary"), Some("Accept"));
    app.get("/v2/queues")
        .await
        .assert_is(200, r#"{"queues": [], "links": []}"#);
}

#[tokio::test]
async fn roles_come_from_a_header_in_any_case_and_with_spaces() {
    let (app, _folder) = app_with("\"queues:create\": \"role:admin\"");
    for (at, roles) in [
        "admin",
        "ADMIN",
        "member,admin",
        " member , Admin ,reader",
        "admin,",
    ]
    .into_iter()
    .enumerate()
    {
        for header in ["X-Roles", "X-Role"] {
            let app = app.header(header, roles);
            app.put(&format!("/v2/queues/{header}{at}"), ())
                .await
                .assert_status(201);
        }
    }
    for roles in [
        "",
        "member",
        "administrator",
        "not-admin",
        "admin member",
        "admin;member",
    ] {
        for header in ["X-Roles", "X-Role"] {
            let app = app.header(header, roles);
            app.put("/v2/queues/q", ()).await.assert_status(403);
        }
    }
}

#[tokio::test]
async fn rules_that_a_file_does_not_name_keep_their_defaults() {
    let (app, _folder) = app_with("\"queues:create\": \"role:admin\"");
    app.post_bodies("q", [json!(1)]).await;
    app.get("/v2/queues/q").await.assert_status(200);
    app.delete("/v2/queues/q").await.assert_status(204);
}

#[tokio::test]
async fn rules_can_name_projects_users_and_other_rules() {
    let (app, _folder) = app_with(
        "\"service\": \"role:service\"\n\
         \"queues:create\": \"rule:service or project_id:p1 or user_id:u1\"\n\
         \"queues:delete\": \"not role:reader and (project_id:p1 or rule:context_is_admin)\"\n\
         \"queues:get\": [[\"role:a\", \"role:b\"], [\"user_id:u1\"]]\n",
    );
    let p1 = app.project("p1");
    for (app, method, allowed) in [
        (app.clone(), "PUT", false),
        (app.header("X-Roles", "service"), "PUT", true),
        (p1.clone(), "PUT", true),
        (app.header("X-User-Id", "u1"), "PUT", true),
        (app.header("X-User-Id", "u2"), "PUT", false),
        (p1.clone(), "DELETE", true),
        (p1.header("X-Roles", "reader"), "DELETE", false),
        (app.header("X-Roles", "admin"), "DELETE", true),
        (app.header("X-Roles", "a"), "GET", false),
        (app.header("X-Roles", "a,b"), "GET", true),
        (app.header("X-User-Id", "u1"), "GET", true),
    ] {
        let answer = app.send(method, "/v2/queues/q", ()).await;
        assert_eq!(answer.status != 403, allowed, "{method}: {answer:?}");
    }
}

#[tokio::test]
async fn the_policy_comes_after_headers_and_method_and_before_the_handler() {
    let (app, _folder) = app_with("\"queues:create\": \"!\"\n\"queues:get_all\": \"!\"");
    app.without("Client-ID")
        .put("/v2/queues/q", ())
        .await
        .assert_status(400);
    app.put("/v2/queues/a:b", ()).await.assert_status(400);
    app.post("/v2/queues", ()).await.assert_status(405);
    app.put("/v2/queues/q", "{ not JSON")
        .await
        .assert_status(403);
    app.get("/v2/queues?limit=0").await.assert_status(403);
}
