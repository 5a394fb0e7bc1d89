//! Passwords are not shown, and are kept when what was shown is sent back.

use serde_json::json;

use crate::api::store;
use crate::api::support::App;

#[tokio::test]
async fn a_password_is_masked_and_kept() {
    let Some(redis) = store::redis() else {
        return;
    };
    let set = redis.get(0).command("CONFIG SET requirepass geheim");
    set.expect("a password");
    let open = redis.uri("secret:");
    let uri = open.replace("redis://", "redis://:geheim@");
    let masked = open.replace("redis://", "redis://:***@");
    let app = App::new().admin();
    let put = async |uri: &str| {
        let body = json!({"uri": uri, "weight": 1});
        app.put("/v2/pools/p", body).await
    };
    let wrong = open.replace("redis://", "redis://:falsch@");
    let refused = put(&wrong).await;
    refused.assert_status(400);
    assert!(!refused.text().contains("falsch"), "{}", refused.text());
    put(&uri).await.assert_status(201);
    for path in ["/v2/pools/p", "/v2/pools/p?detailed=true", "/v2/pools"] {
        let answer = app.get(path).await;
        assert!(answer.text().contains(&masked), "{}", answer.text());
        assert!(!answer.text().contains("geheim"), "{}", answer.text());
    }
    app.post_bodies("q", [json!(1)]).await;

    // What was shown is sent back, with another time-out.
    let tuned = masked.replace("timeout_ms=5000", "timeout_ms=4000");
    let answer = app.patch("/v2/pools/p", json!({"uri": tuned})).await;
    answer.assert_status(200);
    assert_eq!(answer.json()["uri"], tuned.as_str());
    put(&tuned).await.assert_status(201);
    assert_eq!(
        app.get("/v2/queues/q/stats").await.json()["messages"]["total"],
        1
    );

    // Nobody has the password sent elsewhere.
    let elsewhere = masked.replace("127.0.0.1", "localhost");
    let unknown =
        "`***` stands for a password that is not known for this address; give the password itself.";
    app.patch("/v2/pools/p", json!({"uri": elsewhere}))
        .await
        .assert_refused(400, "Invalid request body", unknown);
    app.put("/v2/pools/other", json!({"uri": masked, "weight": 1}))
        .await
        .assert_refused(400, "Invalid request body", unknown);
}
