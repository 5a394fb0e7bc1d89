//! Who may ask the admin listener, and from where.
//!
//! | what | is asked of |
//! |---|---|
//! | nothing | `/live`, `/ready` |
//! | a `Host` that is an address, `localhost` or one of `admin.hosts`; no page of another origin | everything else |
//! | a token of somebody | everything but `/metrics` (unless `admin.metrics_open` is false) and `/openapi.json` |
//!
//! A token comes in the header `Authorization` and nowhere else: nothing that a browser sends by itself lets anybody in, so
//! a page in an operator's browser cannot act for him. That a page is refused for its origin as well, and asked for
//! under a name of its own (DNS rebinding) too, keeps it from reading what needs no token.
//!
//! A good token is let in whatever others have tried at its address; who tries bad ones is told 429 after ten in a minute,
//! so that nobody fills the log. What is asked for in vain, and why, is for the log; see [`super::audit`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use isimud_contract::{Clock, ProjectId};

use super::local::Local;
use super::tokens::{Hash, Owner, Role, hash, is_equal};
use super::{Fault, Settings};
use crate::live::Live;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Bad tokens that an address may try in a minute before it is told to wait.
const MOST_FAILURES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses whose bad tokens are counted, at the most.
const MOST_ADDRESSES: usize = 10_000;

/// From which address a request comes, as the listener saw its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Lets requests through to the admin listener, or does not.
#[derive(Debug)]
pub struct Guard {
    settings: Live<Settings>,
    local: Mutex<Option<Local>>,
    clock: Arc<dyn Clock>,
    failures: Mutex<Failed>,
}

/// Who has shown bad tokens.
#[derive(Debug, Default)]
struct Failed {
    all: HashMap<IpAddr, Failures>,
    /// When those were last taken out that were long ago: that looks at each.
    tidied: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Instant,
    count: u32,
}

/// Who asks, and what he may do.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) peer: Option<IpAddr>,
    projects: Option<Vec<String>>,
}

impl Operator {
    /// Refuses who has a lesser role.
    pub(super) fn needs(&self, role: Role) -> Result<(), Fault> {
        if self.role >= role {
            return Ok(());
        }
        let (role, has) = (role.name(), self.role.name());
        Err(Fault::forbidden(format!(
            "This needs a token with the role {role}; this one has the role {has}."
        )))
    }

    /// Refuses a project that the token is not for.
    pub(super) fn needs_project(&self, project: &ProjectId) -> Result<(), Fault> {
        match self.sees(project) {
            true => Ok(()),
            false => Err(Fault::forbidden(format!(
                "This token is not for the project '{project}'."
            ))),
        }
    }

    /// Refuses a token that is not for every project.
    pub(super) fn needs_all_projects(&self) -> Result<(), Fault> {
        match &self.projects {
            None => Ok(()),
            Some(_) => Err(Fault::forbidden(
                "This concerns the queues of every project, and this token is for some.",
            )),
        }
    }

    /// Whether the token is for a project.
    pub(super) fn sees(&self, project: &ProjectId) -> bool {
        let projects = self.projects.as_ref();
        projects.is_none_or(|some| some.iter().any(|one| one == project.as_str()))
    }
}

impl Guard {
    pub(crate) fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            settings: Live::new(settings),
            local: Mutex::default(),
            clock,
            failures: Mutex::default(),
        }
    }

    /// What it lets through from now on.
    pub(crate) fn set(&self, settings: Settings) {
        self.settings.set(settings);
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.get()
    }

    /// What commands of this machine show from now on.
    pub(super) fn set_local(&self, local: Option<Local>) {
        *self.local.lock().unwrap_or_else(PoisonError::into_inner) = local;
    }

    /// Takes the token for commands of this machine back.
    pub(crate) fn take_back(&self) {
        self.set_local(None);
    }

    /// Refuses requests that a page of somebody else makes a browser send.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let host = text(headers, &HOST).unwrap_or_default();
        if !is_own(host, &self.settings().hosts) {
            let sentence = "The admin listener does not answer to this Host: ask for an address or localhost, or add the \
                            name to admin.hosts.";
            return Err(Fault::new(StatusCode::MISDIRECTED_REQUEST, sentence));
        }
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            return Err(Fault::forbidden("A page of another site asks for this."));
        }
        let origins = headers.get_all(ORIGIN).iter();
        let is_own = |origin: &HeaderValue| {
            let origin = origin.to_str().unwrap_or_default();
            ["http://", "https://"].iter().any(|scheme| {
                let of = origin.strip_prefix(scheme);
                of.is_some_and(|of| of.eq_ignore_ascii_case(host))
            })
        };
        match origins.into_iter().all(is_own) {
            true => Ok(()),
            false => Err(Fault::forbidden("A page of another origin asks for this.")),
        }
    }

    /// Who asks.
    fn identify(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Operator, Fault> {
        let mut said = headers.get_all(AUTHORIZATION).iter();
        let said = match (said.next(), said.next()) {
            (None, _) => None,
            (Some(said), None) => Some(said.to_str().ok().and_then(bearer)),
            _ => Some(None),
        };
        let Some(token) = said else {
            return Err(Fault::new(StatusCode::UNAUTHORIZED, NEEDS_TOKEN));
        };
        let owner = token.and_then(|token| self.owner(&hash(token), peer));
        let Owner {
            name,
            role,
            projects,
        } = owner.ok_or_else(|| self.refuse(peer))?;
        Ok(Operator {
            name,
            role,
            peer,
            projects,
        })
    }

    fn owner(&self, hash: &Hash, peer: Option<IpAddr>) -> Option<Owner> {
        let listed = self.settings();
        if let Some(owner) = listed.tokens.owner(hash, self.clock.wall()) {
            return Some(owner.clone());
        }
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let is_here = peer.is_some_and(|peer| peer.to_canonical().is_loopback());
        let is_local = is_here && local.as_ref().is_some_and(|one| is_equal(&one.hash, hash));
        is_local.then(|| Owner {
            name: "local".to_owned(),
            role: Role::Admin,
            projects: None,
        })
    }

    /// What is told to who shows a token that is nobody's.
    fn refuse(&self, peer: Option<IpAddr>) -> Fault {
        match peer.is_some_and(|peer| self.has_failed_often(peer, Instant::now())) {
            true => Fault::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many tokens that are nobody's came from this address; wait a minute.",
            ),
            false => {
                tracing::warn!(
                    peer = peer.map(tracing::field::display),
                    "the admin listener was shown a token that is nobody's, or has expired"
                );
                Fault::new(
                    StatusCode::UNAUTHORIZED,
                    "This token is nobody's, or has expired.",
                )
            }
        }
    }

    /// Counts a failure of an address, and says whether it has had its share of them.
    fn has_failed_often(&self, peer: IpAddr, now: Instant) -> bool {
        let mut failed = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Failed { all, tidied } = &mut *failed;
        let is_recent = |one: &Failures| now.saturating_duration_since(one.since) < MINUTE;
        let peer = network(peer);
        if all.len() >= MOST_ADDRESSES && !all.contains_key(&peer) {
            if tidied.is_none_or(|at| now.saturating_duration_since(at) >= MINUTE / 4) {
                all.retain(|_, one| is_recent(one));
                *tidied = Some(now);
            }
            if all.len() >= MOST_ADDRESSES {
                return true;
            }
        }
        let none = Failures {
            since: now,
            count: 0,
        };
        let one = all.entry(peer).or_insert(none);
        if !is_recent(one) {
            *one = none;
        }
        one.count = one.count.saturating_add(1);
        one.count > MOST_FAILURES
    }
}

const NEEDS_TOKEN: &str = "This needs a token: 'Authorization: Bearer …'. The file admin.tokens_file lists them, 'isimud \
                           token new' makes one, and commands on the machine of the service find one by themselves.";

/// What counts as one address: of IPv6 it is a network, as anybody has one.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() & !u128::from(u64::MAX)).into()),
        four => four,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn bearer(said: &str) -> Option<&str> {
    let (scheme, token) = said.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whether a `Host` cannot be a name that leads here by somebody else's DNS server: an address, the machine's name for
/// itself, or one that the operator has listed.
fn is_own(host: &str, listed: &[String]) -> bool {
    let parts = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']'),
        None => Some(host.split_at(host.find(':').unwrap_or(host.len()))),
    };
    let Some((name, port)) = parts else {
        return false;
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || listed.iter().any(|one| name.eq_ignore_ascii_case(one))
}

/// Lets through what comes from no page of somebody else.
pub(super) async fn no_foreign_pages(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match guard.check_origin(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.into_response(),
    }
}

/// Lets through who shows a token, and says who that is.
pub(super) async fn known(
    State(guard): State<Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    match guard.identify(request.headers(), peer) {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(fault) => {
            let mut answer = fault.into_response();
            let (name, value) = match answer.status() {
                StatusCode::TOO_MANY_REQUESTS => (RETRY_AFTER, "60"),
                _ => (WWW_AUTHENTICATE, "Bearer realm=\"isimud admin\""),
            };
            let headers = answer.headers_mut();
            headers.insert(name, HeaderValue::from_static(value));
            answer
        }
    }
}

/// The same for metrics, where they are not for everybody.
pub(super) async fn known_for_metrics(
    state: State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    match state.0.settings().metrics_open {
        true => next.run(request).await,
        false => known(state, request, next).await,
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::Timestamp;

    use super::*;

    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp(1_800_000_000_000)
        }

        fn wall(&self) -> Timestamp {
            self.now()
        }
    }

    fn guard() -> Guard {
        let settings = Settings {
            hosts: vec!["admin.example".to_owned()],
            ..Settings::default()
        };
        Guard::new(settings, Arc::new(Still))
    }

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |&(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        all.iter().map(header).collect()
    }

    fn status(all: &[(&'static str, &'static str)]) -> Option<u16> {
        let checked = guard().check_origin(&headers(all));
        checked.err().map(|fault| fault.status.as_u16())
    }

    #[test]
    fn only_addresses_and_listed_names_are_asked_for() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8889",
            "[::1]:8889",
            "10.0.0.7",
            "localhost:1",
            "LOCALHOST.",
            "Admin.Example:80",
        ] {
            assert_eq!(status(&[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[evil.example]",
            "127.0.0.1@evil.example",
            "127.0.0.1:8889.evil.example",
            "[::1].evil.example",
            "[::1]evil.example:80",
            "127.0.0.1:99999",
        ] {
            assert_eq!(status(&[("host", host)]), Some(421), "{host}");
        }
    }

    #[test]
    fn pages_of_others_are_refused() {
        let host = ("host", "127.0.0.1:8889");
        for own in [
            &[host][..],
            &[host, ("origin", "http://127.0.0.1:8889")],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
        ] {
            assert_eq!(status(own), None, "{own:?}");
        }
        for foreign in [
            &[host, ("origin", "http://evil.example")][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://127.0.0.1:8888")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site")],
            &[
                host,
                ("sec-fetch-site", "cross-site"),
                ("origin", "http://127.0.0.1:8889"),
            ],
        ] {
            assert_eq!(status(foreign), Some(403), "{foreign:?}");
        }
    }

    #[test]
    fn bad_tokens_are_counted_an_address_and_a_minute() {
        let (guard, start) = (guard(), Instant::now());
        let address = |text: &str| text.parse().expect("an address");
        for _ in 0..MOST_FAILURES {
            assert!(!guard.has_failed_often(address("2001:db8::1"), start));
        }
        assert!(guard.has_failed_often(address("2001:db8::2"), start));
        assert!(!guard.has_failed_often(address("192.0.2.1"), start));
        assert!(!guard.has_failed_often(address("2001:db8::1"), start + MINUTE));
    }

    #[test]
    fn addresses_whose_failures_are_counted_are_not_without_number() {
        let (guard, start) = (guard(), Instant::now());
        for number in 0..20_000_u32 {
            guard.has_failed_often(IpAddr::V4(number.into()), start);
        }
        let count = || guard.failures.lock().expect("it is whole").all.len();
        assert_eq!(count(), MOST_ADDRESSES);
        guard.has_failed_often(IpAddr::V4(99_999.into()), start + MINUTE);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_token_comes_once_and_as_a_bearer() {
        let guard = guard();
        for said in [
            &[][..],
            &[("authorization", "Basic YTpi")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer isimud_x")],
        ] {
            let refused = guard.identify(&headers(said), None).expect_err("nobody");
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{said:?}");
        }
    }
}
