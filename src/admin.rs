//! The operators' face: metrics, liveness, readiness, the description of the API, moves of queues, bridges.

mod bridges;
mod moves;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use isimud_contract::Condition;
use serde_json::{Map, Value, json};

use crate::bridging::Bridges;
use crate::http::{App, openapi};
use crate::messaging::StoreHealth;

/// Everything that the admin listener serves.
pub(crate) fn router(app: Arc<App>, bridges: Arc<Bridges>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/openapi.json", get(description))
        .merge(moves::router())
        .with_state(app)
        .merge(bridges::router().with_state(bridges))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    check(&app).await;
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, media)], app.metrics.page()).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let stores = check(&app).await;
    let up = stores
        .first()
        .is_some_and(|store| store.condition.is_some());
    let status = if up {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = |condition: Option<Condition>| match condition {
        Some(Condition { is_full: true, .. }) => "full",
        Some(_) => "up",
        None => "down",
    };
    let stores = stores
        .into_iter()
        .map(|store| (store.name, word(store.condition).into()));
    let stores: Map<String, Value> = stores.collect();
    let document = json!({"ready": up, "stores": stores});
    (
        status,
        [(CONTENT_TYPE, "application/json")],
        format!("{document}\n"),
    )
        .into_response()
}

/// Asks every store for a sign of life. The first is the default one, without which the server is not ready; a pool that
/// is down is no reason to send its clients elsewhere, as every server finds it so. Nor is a store that is full: it has
/// room again when its messages are claimed and deleted, and for that its clients must reach it.
async fn check(app: &App) -> Vec<StoreHealth> {
    let stores = app.messaging.stores().await;
    app.metrics.stores(&stores);
    stores
}

async fn description() -> Response {
    match openapi::document().to_pretty_json() {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
