//! The operators' face: metrics, liveness, readiness, the description of the API, moves of queues, bridges.
//!
//! ```text
//! guard    who may ask: hosts, origins, tokens      tokens   the file of tokens, and roles
//! local    the token for commands of this machine   change   documents that ask for a change
//! audit    who changed what                         moves bridges   handlers, a file a resource
//! ```
//!
//! `/live` and `/ready` answer everybody, `/metrics` and `/openapi.json` everybody who is no page of somebody else; the rest is
//! for who shows a token. Where `admin.probes_only` is set the rest is not served at all.

mod audit;
mod bridges;
mod change;
pub(crate) mod guard;
pub mod local;
mod moves;
pub mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use isimud_contract::{Condition, Error, ErrorKind};
use serde_json::{Map, Value, json};

pub use self::guard::Guard;
use self::tokens::Tokens;
use crate::bridges::Bridges;
use crate::http::{App, openapi};
use crate::messaging::StoreHealth;

/// What is asked of those who ask the admin listener.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who has a token.
    pub tokens: Tokens,
    /// What is doubtful about the file that lists them.
    pub warning: Option<String>,
    /// Names under which the listener may be asked for, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Whether metrics need no token.
    pub metrics_open: bool,
    /// Whether there is nothing but metrics, liveness, readiness and the description of the API.
    pub probes_only: bool,
    /// Whether commands of this machine get a token by themselves.
    pub local_token: bool,
}

/// Why an operator is not served.
#[derive(Debug)]
struct Fault {
    status: StatusCode,
    sentence: String,
}

impl Fault {
    fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self { status, sentence }
    }

    fn forbidden(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, sentence)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound(_) => StatusCode::NOT_FOUND,
            ErrorKind::Invalid | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        document(self.status, &json!({"error": self.sentence}))
    }
}

/// A document, or why there is none.
fn answer(answer: Result<Value, Fault>) -> Response {
    match answer {
        Ok(found) => document(StatusCode::OK, &found),
        Err(fault) => fault.into_response(),
    }
}

fn document(status: StatusCode, document: &Value) -> Response {
    let text = format!("{document}\n");
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

/// Everything that the admin listener serves at an address.
pub(crate) fn router(
    app: Arc<App>,
    bridges: Arc<Bridges>,
    guard: &Arc<Guard>,
    address: Option<SocketAddr>,
) -> Router {
    let settings = guard.settings();
    let state = || Arc::clone(guard);
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&app))
        .route_layer(from_fn_with_state(state(), guard::known_for_metrics));
    let described = Router::new().route("/openapi.json", get(description));
    let mut careful = metrics.merge(described);
    if !settings.probes_only {
        let moves = moves::router().with_state(Arc::clone(&app));
        let bridges = bridges::router().with_state(bridges);
        let known = from_fn_with_state(state(), guard::known);
        careful = careful.merge(moves.merge(bridges).route_layer(known));
        if let Some(address) = address.filter(|_| settings.local_token) {
            lay_token(guard, address);
        }
    }
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .with_state(app)
        .merge(careful.route_layer(from_fn_with_state(state(), guard::no_foreign_pages)))
        .layer(map_response(harmless))
}

/// Gives commands of this machine a token.
fn lay_token(guard: &Guard, address: SocketAddr) {
    match local::Local::lay(address) {
        Ok(local) => guard.set_local(Some(local)),
        Err(why) => tracing::warn!(
            why,
            "commands of this machine find no token; give them one of admin.tokens_file (ISIMUD_ADMIN_TOKEN)"
        ),
    }
}

/// Has no browser make anything else of an answer than what it is.
async fn harmless(mut answer: Response) -> Response {
    const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let headers = answer.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (REFERRER_POLICY, "no-referrer"),
        (RESOURCE_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
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
    let mut ready = json!({"ready": up, "stores": stores});
    if let Some(keystone) = &app.keystone {
        // No reason to send clients elsewhere: every server finds it so, and tokens that are known still count.
        let state = keystone.keystone();
        ready["keystone"] = match (state.fault, state.since) {
            (Some(_), _) => json!({"state": "down", "reason": &*state.reason}),
            (None, Some(_)) => json!({"state": "up"}),
            (None, None) => json!({"state": "unknown"}),
        };
    }
    document(status, &ready)
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
