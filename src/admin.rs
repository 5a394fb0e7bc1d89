//! The operators' face: metrics, liveness, readiness, the description of the API.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::catalogue::DEFAULT;
use crate::http::{App, openapi};

/// How long a store may take to show that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything that the admin listener serves.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/openapi.json", get(description))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    check(&app).await;
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, media)], app.metrics.page()).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let up = check(&app).await;
    let status = if up {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let document = json!({"ready": up, "stores": {"default": if up { "up" } else { "down" }}});
    (
        status,
        [(CONTENT_TYPE, "application/json")],
        format!("{document}\n"),
    )
        .into_response()
}

/// Asks the store for a sign of life.
async fn check(app: &App) -> bool {
    let up = matches!(
        tokio::time::timeout(PATIENCE, app.messaging.ping()).await,
        Ok(Ok(()))
    );
    app.metrics.backends_up(&[(DEFAULT.to_owned(), up)]);
    up
}

async fn description() -> Response {
    match openapi::document().to_pretty_json() {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
