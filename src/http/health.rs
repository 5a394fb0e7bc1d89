//! The health of every store (spec: http.md 14).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{AppState, json as documents};
use crate::messaging::{Check, DEFAULT};

/// Whether the stores do what clients ask of them, by a round trip through each. With pools there is a key for each of
/// them, and one for the default store.
///
/// 503, with the same document, when the pools are not known or no store answers.
#[utoipa::path(get, path = "/v2/health", tag = "service", responses((status = 200, body = Object),
    (status = 503, description = "nothing answers", body = Object)))]
pub(crate) async fn health(State(app): State<AppState>) -> Response {
    let health = app.messaging.health().await;
    let mut stores = health.pools.iter().map(|(_, check)| check);
    let answers = health.default.is_reachable() || stores.any(Check::is_reachable);
    let document = match health.pools.is_empty() && health.catalogue {
        true => document(&health.default),
        false => {
            let mut all = Map::new();
            all.insert("catalog_reachable".into(), json!(health.catalogue));
            all.insert(DEFAULT.into(), document(&health.default));
            let pools = health.pools.iter();
            all.extend(pools.map(|(name, check)| (name.clone(), document(check))));
            Value::Object(all)
        }
    };
    let status = match answers && health.catalogue {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    documents::answer(status, &document)
}

fn document(check: &Check) -> Value {
    let operations = check.operations.iter().map(|operation| {
        let status = json!({
            "succeeded": operation.failure.is_none(),
            "seconds": operation.took.as_secs_f64(),
            "ref": operation.failure.map(|reference| reference.to_string()),
        });
        (operation.name.to_owned(), status)
    });
    let operations: Map<String, Value> = operations.collect();
    json!({"storage_reachable": check.is_reachable(), "operation_status": operations})
}
