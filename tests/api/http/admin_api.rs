//! The admin API, where an operator has switched it off.

use serde_json::Value;

use crate::api::support::App;

#[tokio::test]
async fn admin_api_that_is_off_is_not_there() {
    let (on, off) = (
        App::new().admin(),
        App::with("[access]\nadmin_api = false").admin(),
    );
    for path in [
        "/v2/health",
        "/v2/pools",
        "/v2/pools/p",
        "/v2/flavors",
        "/v2/flavors/f",
    ] {
        let missing = off.get("/v2/nothing").await;
        let answer = off.get(path).await;
        assert_eq!(
            (answer.status, answer.text()),
            (404, missing.text()),
            "{path}"
        );
        assert_ne!(on.get(path).await.text(), missing.text(), "{path}");
    }
    let relations = async |app: &App| match &app.get("/v2/").await.json()["resources"] {
        Value::Object(all) => all.len(),
        other => panic!("{other}"),
    };
    assert_eq!(relations(&off).await + 5, relations(&on).await);
    off.get("/v2/queues").await.assert_status(200);
}
