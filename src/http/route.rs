//! A route: its path, its methods, the policy of each; and the gate in front of every handler.
//!
//! The gate is part of each handler rather than a middleware: a layer would cost every request a boxed future and a
//! copy of the request more.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use isimud_contract::ProjectId;

use super::auth::{Keystone, RequestHeaders};
use super::policy::RuleId;
use super::problem::Problem;
use super::trace::traced;
use super::{AppState, json, under_way};
use crate::messaging::quotas::TooSoon;
use crate::telemetry::RouteMetrics;

/// Whether a path is one of the admin API: health, pools and flavors.
pub(crate) fn is_of_admin_api(path: &str) -> bool {
    let below = path.strip_prefix("/v2/").unwrap_or_default();
    ["health", "pools", "flavors"]
        .iter()
        .any(|name| below.starts_with(name))
}

/// Collects the methods of one path.
pub(crate) struct Route {
    path: &'static str,
    operations: Vec<Operation>,
    open: bool,
}

/// A method of a path, waiting for the application that it needs.
struct Operation {
    method: Method,
    rule: &'static str,
    mount: Box<dyn FnOnce(MethodRouter<AppState>, Gate) -> MethodRouter<AppState>>,
}

impl Route {
    pub(crate) fn new(path: &'static str) -> Self {
        Self {
            path,
            operations: Vec::new(),
            open: false,
        }
    }

    /// Whether it is there for administrators alone.
    pub(crate) fn is_of_admin_api(&self) -> bool {
        is_of_admin_api(self.path)
    }

    /// Asks for no client and no project.
    pub(crate) fn open(mut self) -> Self {
        self.open = true;
        self
    }

    pub(crate) fn get<T: 'static>(
        self,
        rule: &'static str,
        handler: impl Handler<T, AppState>,
    ) -> Self {
        self.on(Method::GET, MethodFilter::GET, rule, handler)
    }

    pub(crate) fn head<T: 'static>(
        self,
        rule: &'static str,
        handler: impl Handler<T, AppState>,
    ) -> Self {
        self.on(Method::HEAD, MethodFilter::HEAD, rule, handler)
    }

    pub(crate) fn put<T: 'static>(
        self,
        rule: &'static str,
        handler: impl Handler<T, AppState>,
    ) -> Self {
        self.on(Method::PUT, MethodFilter::PUT, rule, handler)
    }

    pub(crate) fn post<T: 'static>(
        self,
        rule: &'static str,
        handler: impl Handler<T, AppState>,
    ) -> Self {
        self.on(Method::POST, MethodFilter::POST, rule, handler)
    }

    pub(crate) fn patch<T: 'static>(
        self,
        rule: &'static str,
        handler: impl Handler<T, AppState>,
    ) -> Self {
        self.on(Method::PATCH, MethodFilter::PATCH, rule, handler)
    }

    pub(crate) fn delete<T: 'static>(
        self,
        rule: &'static str,
        handler: impl Handler<T, AppState>,
    ) -> Self {
        self.on(Method::DELETE, MethodFilter::DELETE, rule, handler)
    }

    /// `rule` is the name of a policy; "" stands for none.
    fn on<T: 'static>(
        mut self,
        method: Method,
        filter: MethodFilter,
        rule: &'static str,
        handler: impl Handler<T, AppState>,
    ) -> Self {
        let mount = Box::new(move |methods: MethodRouter<AppState>, gate: Gate| {
            attach(methods, Some(filter), gate, handler)
        });
        self.operations.push(Operation {
            method,
            rule,
            mount,
        });
        self
    }

    /// The path and its methods.
    #[cfg(test)]
    pub(crate) fn operations(&self) -> impl Iterator<Item = (&'static str, &Method)> {
        self.operations
            .iter()
            .map(|operation| (self.path, &operation.method))
    }

    /// Adds the path to a router. A path that ends in a variable also matches the empty text there (spec: http.md 1).
    pub(crate) fn mount(self, router: Router<AppState>, app: &AppState) -> Router<AppState> {
        let mut names: Vec<&str> = self
            .operations
            .iter()
            .map(|one| one.method.as_str())
            .collect();
        names.sort_unstable();
        let allow = format!("{}, OPTIONS", names.join(", "));
        let (path, open) = (self.path, self.open);
        let gate = |method: Option<Method>, rule: &str| {
            Gate(Arc::new(GateState {
                path,
                open,
                allow: HeaderValue::try_from(&allow).unwrap_or(HeaderValue::from_static("OPTIONS")),
                rule: (!rule.is_empty()).then(|| {
                    let found = app.policy.get().rule(rule);
                    found.unwrap_or_else(|| panic!("no policy is named {rule}"))
                }),
                metrics: app.metrics.route(path, method.as_ref()),
                method,
            }))
        };
        let methods = attach(
            MethodRouter::new(),
            None,
            gate(None, ""),
            unreachable_handler,
        );
        let methods = self
            .operations
            .into_iter()
            .fold(methods, |methods, operation| {
                let gate = gate(Some(operation.method), operation.rule);
                (operation.mount)(methods, gate)
            });
        match path.rsplit_once('/') {
            Some((parent, last)) if last.starts_with('{') => router
                .route(&format!("{parent}/"), methods.clone())
                .route(path, methods),
            _ => router.route(path, methods),
        }
    }
}

/// The mark of a request whose headers of identity count for nothing (see [`super::identity`]).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Untrusted;

/// What stands in front of one handler.
#[derive(Clone)]
struct Gate(Arc<GateState>);

struct GateState {
    path: &'static str,
    open: bool,
    /// The method that the handler is for; none for the one that answers all others.
    method: Option<Method>,
    rule: Option<RuleId>,
    allow: HeaderValue,
    metrics: RouteMetrics,
}

/// Puts a handler behind its gate and adds it to a path's methods; without a filter it answers all others.
fn attach<T: 'static>(
    methods: MethodRouter<AppState>,
    filter: Option<MethodFilter>,
    gate: Gate,
    handler: impl Handler<T, AppState>,
) -> MethodRouter<AppState> {
    let guarded = move |State(app): State<AppState>, request: Request| async move {
        let Gate(gate) = gate;
        let answer = async |mut request: Request| match gate.check(&app, &mut request) {
            Ok(Passed::ToHandler) => handler.call(request, Arc::clone(&app)).await,
            Ok(Passed::Reads(project)) => {
                let response = handler.call(request, Arc::clone(&app)).await;
                under_way::count(&app, &project, response).unwrap_or_else(Problem::into_response)
            }
            Ok(Passed::Options) => gate.options(),
            Ok(Passed::AnonymousOptions) => Response::new(Body::empty()),
            Err(problem) => problem.into_response(),
        };
        traced(&app, &gate.metrics, request, answer).await
    };
    match filter {
        Some(filter) => methods.on(filter, guarded),
        None => methods.fallback(guarded),
    }
}

/// Stands behind the gate that no request passes.
async fn unreachable_handler() -> Problem {
    Problem::no_such_path()
}

/// Where a request goes that a gate lets through.
enum Passed {
    ToHandler,
    /// The same; the answer is what the project has, and may be large.
    Reads(ProjectId),
    Options,
    /// A question that says too little of the asker for an answer (spec: http.md 2).
    AnonymousOptions,
}

impl GateState {
    /// Lets a request through, or has the answer: headers first, then the method, then the policy.
    fn check(&self, app: &AppState, request: &mut Request) -> Result<Passed, Problem> {
        let keystone = request.extensions().get::<Keystone>();
        let mut said = RequestHeaders::read(request.headers(), &app.identity, keystone);
        let signed = said.check_signature(&app.signer, request.method(), request.uri().path())?;
        said.check_media()?;
        if *request.method() == Method::OPTIONS && !self.open && said.is_anonymous() {
            return Ok(Passed::AnonymousOptions);
        }
        // A signature vouches for what it allows, wherever it comes from, and so does a token.
        if !self.open
            && signed.is_none()
            && keystone.is_none()
            && request.extensions().get::<Untrusted>().is_some()
        {
            return Err(Problem::untrusted());
        }
        let scope = match self.open {
            true => None,
            false => Some(said.scope(&app.client_ids, self.path, request.uri().path())?),
        };
        if let Some(project) = scope.as_ref().and_then(|scope| scope.project.as_ref())
            && let Err(TooSoon(wait)) = app.messaging.admit(project)
        {
            return Err(Problem::too_soon(wait));
        }
        if self.method.as_ref() != Some(request.method()) {
            return match *request.method() {
                Method::OPTIONS => Ok(Passed::Options),
                _ => Err(Problem::no_such_method(&self.allow)),
            };
        }
        if let (Some(rule), Some(scope)) = (self.rule, &scope)
            && let project = scope.project.as_ref().map_or("", ProjectId::as_str)
            && !said.may(&app.policy.get(), rule, project)
        {
            return Err(Problem::not_authorized());
        }
        let Some(mut scope) = scope else {
            return Ok(Passed::ToHandler);
        };
        let reads = match &scope.project {
            Some(project) if *request.method() == Method::GET => Some(project.clone()),
            _ => None,
        };
        scope.signed = signed;
        scope.base = request.extensions().get().cloned().unwrap_or_default();
        request.extensions_mut().insert(scope);
        let Some(project) = reads else {
            return Ok(Passed::ToHandler);
        };
        under_way::check(app, &project)?;
        Ok(Passed::Reads(project))
    }

    /// The answer to `OPTIONS`.
    fn options(&self) -> Response {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(ALLOW, self.allow.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(json::MEDIA_TYPE));
        response
    }
}
