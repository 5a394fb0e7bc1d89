//! The HTTP face: translates requests into calls of [`Messaging`] and its answers into documents.
//!
//! ```text
//! trace    the edge: plain paths, preflights; around each handler: request ids, counting, the log line
//! route    a handler's gate: headers (auth), then the method, then the policy
//! queues topics messages claims subscriptions share pools flavors health home   handlers with their documents,
//!          a file a resource
//! caller body query fields      extractors and parsers
//! document json                 documents on their way out
//! under_way budget              what answers and bodies hold until they are sent or read, and what nobody receives
//! problem  errors as documents  openapi  the description of all this
//! ```

pub mod auth;
mod base_path;
mod body;
pub mod budget;
pub(crate) mod caller;
pub(crate) mod claims;
pub mod cors;
pub(crate) mod document;
pub(crate) mod fields;
mod flavors;
mod headers;
mod health;
mod home;
pub mod identity;
pub(crate) mod json;
mod log_limit;
pub(crate) mod messages;
pub mod openapi;
pub mod policy;
mod pools;
pub(crate) mod problem;
mod query;
pub(crate) mod queues;
mod route;
mod share;
pub(crate) mod subscriptions;
mod topics;
mod trace;
pub(crate) mod under_way;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;

use self::auth::ClientIds;
pub use self::base_path::BasePath;
use self::budget::Budget;
use self::cors::Cors;
use self::identity::Identity;
pub use self::log_limit::LogLimit;
use self::policy::Policy;
use self::route::Route;
pub use self::trace::Api;
pub(crate) use self::under_way::OnTheWay;
pub use self::under_way::{GivenBack, Reads};
use crate::keystone::Authenticator;
use crate::live::Live;
use crate::messaging::Messaging;
use crate::signature::Signer;
use crate::telemetry::{Metrics, RouteMetrics};

/// What handlers and middleware share.
#[derive(Debug)]
pub struct App {
    /// The service.
    pub messaging: Arc<Messaging>,
    /// Who may do what.
    pub policy: Live<Policy>,
    /// What a client id may be.
    pub client_ids: ClientIds,
    /// Whose word counts about who asks.
    pub identity: Identity,
    /// Whether health, pools and flavors are served.
    pub admin_api: bool,
    /// Says whose tokens requests have, where Keystone is asked.
    pub keystone: Option<Arc<Authenticator>>,
    /// Counts requests that it refuses.
    pub refused: RouteMetrics,
    /// What links begin with, unless a proxy says something else.
    pub base_path: BasePath,
    /// Makes signatures that stand for a token, and checks them.
    pub signer: Signer,
    /// Calls from pages of other origins, if any may call.
    pub cors: Option<Cors>,
    /// Deletes of several messages must name their claims.
    pub delete_with_claim_ids: bool,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// Bytes of bodies that may be under way.
    pub bodies: Arc<Budget>,
    /// Bytes of answers that may be under way.
    pub answers: Arc<Budget>,
    /// Bytes that readings of messages may have before their answers are counted.
    pub reads: Reads,
    /// What is given back because nobody received it.
    pub given_back: GivenBack,
    /// From when on a request is slow.
    pub slow: Duration,
    /// How many failed requests are logged.
    pub failures: LogLimit,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is counted of requests that no route answers.
    pub unmatched: RouteMetrics,
}

/// The application as handlers see it.
pub(crate) type AppState = Arc<App>;

/// Everything that is served, a line a path.
fn routes() -> Vec<Route> {
    vec![
        Route::new("/").open().get("", home::versions),
        Route::new("/v2").open().get("", home::show_version),
        Route::new("/v2/").get("", home::home),
        Route::new("/v2/ping")
            .get("ping:get", home::ping)
            .head("ping:get", home::ping_head),
        Route::new("/v2/queues").get("queues:get_all", queues::list),
        Route::new("/v2/queues/{queue}")
            .put("queues:create", queues::create)
            .get("queues:get", queues::show)
            .patch("queues:update", queues::update)
            .delete("queues:delete", queues::delete),
        Route::new("/v2/queues/{queue}/stats").get("queues:stats", queues::stats),
        Route::new("/v2/queues/{queue}/purge").post("queues:purge", queues::purge),
        Route::new("/v2/queues/{queue}/share").post("queues:share", share::share),
        Route::new("/v2/queues/{queue}/messages")
            .post("messages:create", messages::post)
            .get("messages:get_all", messages::list)
            .delete("messages:delete_all", messages::delete_several),
        Route::new("/v2/queues/{queue}/messages/{message}")
            .get("messages:get", messages::get)
            .delete("messages:delete", messages::delete),
        Route::new("/v2/queues/{queue}/claims").post("claims:create", claims::create),
        Route::new("/v2/queues/{queue}/claims/{claim}")
            .get("claims:get", claims::show)
            .patch("claims:update", claims::update)
            .delete("claims:delete", claims::delete),
        Route::new("/v2/pools").get("pools:get_all", pools::list),
        Route::new("/v2/pools/{pool}")
            .put("pools:create", pools::create)
            .get("pools:get", pools::show)
            .patch("pools:update", pools::update)
            .delete("pools:delete", pools::delete),
        Route::new("/v2/flavors").get("flavors:get_all", flavors::list),
        Route::new("/v2/flavors/{flavor}")
            .put("flavors:create", flavors::create)
            .get("flavors:get", flavors::show)
            .patch("flavors:update", flavors::update)
            .delete("flavors:delete", flavors::delete),
        Route::new("/v2/health").get("health:get", health::health),
        Route::new("/v2/queues/{queue}/subscriptions")
            .post("subscription:create", subscriptions::create)
            .get("subscription:get_all", subscriptions::list),
        Route::new("/v2/queues/{queue}/subscriptions/{subscription}")
            .get("subscription:get", subscriptions::show)
            .patch("subscription:update", subscriptions::update)
            .delete("subscription:delete", subscriptions::delete),
        Route::new("/v2/queues/{queue}/subscriptions/{subscription}/confirm")
            .put("subscription:confirm", subscriptions::confirm),
        Route::new("/v2/topics").get("topics:get_all", topics::list),
        Route::new("/v2/topics/{topic}")
            .put("topics:create", queues::create)
            .get("topics:get", queues::show)
            .patch("topics:update", queues::update)
            .delete("topics:delete", queues::delete),
        Route::new("/v2/topics/{topic}/stats").get("topics:stats", queues::stats),
        Route::new("/v2/topics/{topic}/purge").post("topics:purge", queues::purge),
        Route::new("/v2/topics/{topic}/messages")
            .post("messages:create", messages::post)
            .get("messages:get_all", messages::list)
            .delete("messages:delete_all", messages::delete_several),
        Route::new("/v2/topics/{topic}/messages/{message}")
            .get("messages:get", messages::get)
            .delete("messages:delete", messages::delete),
        Route::new("/v2/topics/{topic}/subscriptions")
            .post("subscription:create", subscriptions::create)
            .get("subscription:get_all", subscriptions::list),
        Route::new("/v2/topics/{topic}/subscriptions/{subscription}")
            .get("subscription:get", subscriptions::show)
            .patch("subscription:update", subscriptions::update)
            .delete("subscription:delete", subscriptions::delete),
        Route::new("/v2/topics/{topic}/subscriptions/{subscription}/confirm")
            .put("subscription:confirm", subscriptions::confirm),
    ]
}

/// Puts the API together.
pub fn api(app: App) -> Api {
    let app = Arc::new(app);
    let router = routes()
        .into_iter()
        .filter(|route| app.admin_api || !route.is_of_admin_api())
        .fold(Router::new(), |router, route| route.mount(router, &app));
    Api {
        router: router
            .fallback(trace::unmatched)
            .with_state(Arc::clone(&app)),
        is_trusted: app.identity.trusts(None),
        is_proxy: false,
        app,
    }
}
