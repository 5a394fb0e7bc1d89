//! A route: its path, its methods, the policy of each; and the gate in front of it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::handler::Handler;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::auth::{admit, check_media, credentials};
use super::policy::RuleId;
use super::problem::Problem;
use super::trace::Matched;
use super::{AppState, json};

/// Collects the methods of one path.
pub(crate) struct Route {
    path: &'static str,
    methods: MethodRouter<AppState>,
    rules: Vec<(Method, Option<&'static str>)>,
    open: bool,
}

impl Route {
    pub(crate) fn new(path: &'static str) -> Self {
        Self {
            path,
            methods: MethodRouter::new(),
            rules: Vec::new(),
            open: false,
        }
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
        self.methods = self.methods.merge(on(filter, handler));
        self.rules
            .push((method, Some(rule).filter(|rule| !rule.is_empty())));
        self
    }

    /// The path and its methods.
    #[cfg(test)]
    pub(crate) fn operations(&self) -> impl Iterator<Item = (&'static str, &Method)> {
        self.rules.iter().map(|(method, _)| (self.path, method))
    }

    /// Adds the path to a router, behind its gate. A path that ends in a variable also matches the empty text there
    /// (spec: http.md 1).
    pub(crate) fn mount(self, router: Router<AppState>, app: &AppState) -> Router<AppState> {
        let mut names: Vec<&str> = self
            .rules
            .iter()
            .map(|(method, _)| method.as_str())
            .collect();
        names.sort_unstable();
        let allow = format!("{}, OPTIONS", names.join(", "));
        let rules = self.rules.into_iter().map(|(method, rule)| {
            let rule = rule.map(|name| {
                app.policy
                    .rule(name)
                    .unwrap_or_else(|| panic!("no policy is named {name}"))
            });
            (method, rule)
        });
        let gate = Gate(Arc::new(GateState {
            app: Arc::clone(app),
            path: self.path,
            allow: HeaderValue::try_from(allow)
                .unwrap_or_else(|_| HeaderValue::from_static("OPTIONS")),
            rules: rules.collect(),
            open: self.open,
        }));
        let methods = self.methods.layer(from_fn_with_state(gate, pass));
        match self.path.rsplit_once('/') {
            Some((parent, last)) if last.starts_with('{') => router
                .route(&format!("{parent}/"), methods.clone())
                .route(self.path, methods),
            _ => router.route(self.path, methods),
        }
    }
}

#[derive(Clone)]
struct Gate(Arc<GateState>);

struct GateState {
    app: AppState,
    path: &'static str,
    allow: HeaderValue,
    rules: Vec<(Method, Option<RuleId>)>,
    open: bool,
}

async fn pass(
    State(Gate(gate)): State<Gate>,
    path: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let mut response = match gate.check(&path, &mut request) {
        Ok(Passed::ToHandler) => next.run(request).await,
        Ok(Passed::Options) => gate.options(),
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(Matched(gate.path));
    response
}

/// Where a request goes that a gate lets through.
enum Passed {
    ToHandler,
    Options,
}

impl GateState {
    /// Lets a request through, or has the answer: headers first, then the method, then the policy.
    fn check(&self, path: &RawPathParams, request: &mut Request) -> Result<Passed, Problem> {
        let scope = if self.open {
            check_media(request.headers())?;
            None
        } else {
            let (ids, headers) = (&self.app.client_ids, request.headers());
            Some(admit(ids, headers, self.path, path)?)
        };
        let has_method = |(method, _): &&(Method, _)| method == request.method();
        let Some((_, rule)) = self.rules.iter().find(has_method) else {
            return match *request.method() {
                Method::OPTIONS => Ok(Passed::Options),
                _ => Err(Problem::no_such_method(&self.allow)),
            };
        };
        if let (Some(rule), Some(scope)) = (rule, &scope) {
            let caller = credentials(request.headers(), scope.project.as_str());
            if !self.app.policy.allows(*rule, &caller) {
                return Err(Problem::not_authorized());
            }
        }
        if let Some(scope) = scope {
            request.extensions_mut().insert(scope);
        }
        Ok(Passed::ToHandler)
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
