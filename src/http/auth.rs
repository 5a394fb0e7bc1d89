//! What a request must bring before its method is even looked at, in the order of the specification (http.md 2).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use isimud_contract::{ClientId, ProjectId, QueueKey, QueueName};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::base_path::BasePath;
use super::caller::Scope;
use super::identity::Identity;
use super::policy::{Credentials, Policy, RuleId};
use super::problem::Problem;
use crate::keystone::{Caller, PROJECT_MISSING_DESCRIPTION, PROJECT_MISSING_TITLE};
use crate::signature::{Fit, Presented, Signer};

/// What a client id may be.
#[derive(Debug, Clone)]
pub enum ClientIds {
    /// A UUID, in any spelling.
    Uuid,
    /// Any text of so many characters; one that is a UUID is normalised.
    Text(RangeInclusive<usize>),
}

/// The headers that say who asks, and for what. They are found in one pass: looking each of them up by name would cost
/// a hash a name, on every request.
#[derive(Debug, Default)]
pub(crate) struct RequestHeaders<'a> {
    accept: Option<&'a HeaderValue>,
    media: Option<&'a HeaderValue>,
    has_length: bool,
    client: Option<&'a HeaderValue>,
    /// `X-Project-Id`, then its older names where they count.
    project: [Option<&'a HeaderValue>; 3],
    /// `X-Roles`, then its older name where that counts.
    roles: [Option<&'a HeaderValue>; 2],
    user: Option<&'a HeaderValue>,
    /// `URL-Signature` and what it signs: paths, methods, expiry.
    signed: [Option<&'a HeaderValue>; 4],
    /// One that says who asks stands twice: the client's and a proxy's, perhaps, and nobody can tell which is which.
    repeated: bool,
    /// Whom Keystone says the request is from.
    keystone: Option<&'a Keystone>,
}

impl<'a> RequestHeaders<'a> {
    /// Reads the headers of a request. Those of identity count as `identity` says, and not at all where Keystone has said
    /// who asks: then they are neither read nor missed.
    pub(crate) fn read(
        headers: &'a HeaderMap,
        identity: &Identity,
        keystone: Option<&'a Keystone>,
    ) -> Self {
        let mut headers_read = Self {
            keystone,
            ..Self::default()
        };
        let legacy = identity.knows_legacy_names() && keystone.is_none();
        let is_known = matches!(keystone, Some(Keystone::Caller(_)));
        for (name, value) in headers {
            let place = match name.as_str() {
                "x-project-id" | "x-roles" | "x-user-id" if is_known => continue,
                "accept" => &mut headers_read.accept,
                "content-type" => &mut headers_read.media,
                "client-id" => &mut headers_read.client,
                "x-project-id" => &mut headers_read.project[0],
                "x-tenant-id" if legacy => &mut headers_read.project[1],
                "x-tenant" if legacy => &mut headers_read.project[2],
                "x-roles" => &mut headers_read.roles[0],
                "x-role" if legacy => &mut headers_read.roles[1],
                "x-user-id" => &mut headers_read.user,
                "url-signature" => &mut headers_read.signed[0],
                "url-paths" => &mut headers_read.signed[1],
                "url-methods" => &mut headers_read.signed[2],
                "url-expires" => &mut headers_read.signed[3],
                "content-length" => {
                    headers_read.has_length = true;
                    continue;
                }
                _ => continue,
            };
            if place.is_some() && !matches!(name.as_str(), "accept" | "content-type") {
                headers_read.repeated = true;
            }
            place.get_or_insert(value);
        }
        headers_read
    }

    /// Whether one thing is said under two names and not the same: perhaps one is a proxy's, and the other its client's.
    fn is_contradictory(&self) -> bool {
        let differ = |headers_read: &[Option<&HeaderValue>]| {
            let mut headers_read = headers_read.iter().flatten();
            let first = headers_read.next();
            headers_read.any(|other| Some(other) != first)
        };
        differ(&self.project) || differ(&self.roles)
    }

    /// Whether, and how, the request stands on a signature rather than on who asks; refuses one whose signature does not allow
    /// it. Any signature, also an empty one, is one to check (quirk Q-SEC-2).
    pub(crate) fn check_signature(
        &mut self,
        signer: &Signer,
        method: &Method,
        path: &str,
    ) -> Result<Option<Fit>, Problem> {
        let [Some(signature), paths, methods, expires] = self.signed else {
            return Ok(None);
        };
        let project = self.project.into_iter().flatten().next().map(latin1);
        let header = |value: Option<&'a HeaderValue>| value.map(latin1).unwrap_or_default();
        let presented = Presented {
            signature: &latin1(signature),
            paths: &header(paths),
            methods: &header(methods),
            expires: &header(expires),
            project: project.as_deref(),
        };
        let fit = signer
            .judge(presented, method.as_str(), path)
            .filter(|_| !self.repeated && !self.is_contradictory())
            .ok_or_else(Problem::no_such_path)?;
        self.disown();
        Ok(Some(fit))
    }

    /// Forgets who asks, apart from the project: a signature vouches for nothing else.
    pub(crate) fn disown(&mut self) {
        (self.roles, self.user) = ([None; 2], None);
    }

    /// Refuses forms, and answers that are not JSON.
    pub(crate) fn check_media(&self) -> Result<(), Problem> {
        const FORM: &[u8] = b"application/x-www-form-urlencoded";
        if self.has_length
            && let Some(media) = self.media
            && media.as_bytes().eq_ignore_ascii_case(FORM)
        {
            let description = "Endpoint does not accept `application/x-www-form-urlencoded` content; currently \
                               supported media type is `application/json`; specify proper client-side media type \
                               with the \"Content-Type\" header.";
            return Err(bad_request("Invalid Content-Type", description));
        }
        if self.accept.is_none_or(accepts_json) {
            return Ok(());
        }
        let description = "The only media type of answers is `application/json`.";
        let status = StatusCode::NOT_ACCEPTABLE;
        Err(Problem::new(status, "406 Not Acceptable", description))
    }

    /// Who asks, and about what: the variables of `template`, the route's path, as the request's `path` has them. A
    /// variable at the end may be missing there.
    pub(crate) fn scope(
        &self,
        client_ids: &ClientIds,
        template: &str,
        path: &str,
    ) -> Result<Scope, Problem> {
        if self.repeated {
            let description = "A header that says who asks is given more than once.";
            return Err(bad_request("Invalid header value", description));
        }
        if self.is_contradictory() {
            let description = "Two headers say different things of who asks.";
            return Err(bad_request("Invalid header value", description));
        }
        let client = client(client_ids, self.client)?;
        let project = match self.caller() {
            Some(caller) => {
                let project = caller.project().ok_or_else(missing_project)?;
                ProjectId::parse(&project.id).ok()
            }
            None => {
                let project = project(self.project.into_iter().flatten().next())?;
                ProjectId::parse(&project).ok()
            }
        };
        let mut scope = Scope {
            client,
            project,
            queue: None,
            id: String::new(),
            signed: None,
            base: BasePath::default(),
        };
        for (variable, text) in template.split('/').zip(path.split('/')) {
            if variable == "{queue}" {
                let name = QueueName::parse(text).map_err(|_| invalid_queue())?;
                let project = scope.project.clone().ok_or_else(invalid_queue)?;
                scope.queue = Some(QueueKey::new(project, name));
            } else if variable == "{topic}" {
                let name = QueueName::parse(text).map_err(|_| invalid_topic())?;
                let project = scope.project.clone().ok_or_else(invalid_topic)?;
                scope.queue = Some(QueueKey::new(project, QueueName::of_topic(&name)));
            } else if variable.starts_with('{') {
                scope.id = percent_decode_str(text).decode_utf8_lossy().into_owned();
            }
        }
        Ok(scope)
    }

    /// What the headers say of who asks, where that counts; what they contradict each other in is refused.
    pub(crate) fn identity(&self) -> Result<SaidIdentity, Problem> {
        if self.repeated || self.is_contradictory() {
            let description = "Headers say different things of who asks.";
            return Err(bad_request("Invalid header value", description));
        }
        let text = |value: Option<&HeaderValue>| value.map(|value| latin1(value).into_owned());
        Ok(SaidIdentity {
            project: text(self.project.into_iter().flatten().next()),
            roles: text(self.roles[0].or(self.roles[1])).unwrap_or_default(),
            user: text(self.user).unwrap_or_default(),
        })
    }

    /// Whether it does not say who asks.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.client.is_none() || self.project == [None; 3] || self.keystone.is_some()
    }

    /// Whom a token has named.
    fn caller(&self) -> Option<&'a Caller> {
        match self.keystone {
            Some(Keystone::Caller(caller)) => Some(caller),
            _ => None,
        }
    }

    /// Whether a policy lets the asker pass.
    pub(crate) fn may(&self, policy: &Policy, rule: RuleId, project: &str) -> bool {
        if let Some(caller) = self.caller() {
            return policy.allows(rule, &Credentials::of_token(caller, project));
        }
        let roles = self.roles[0].or(self.roles[1]).map(latin1);
        let user = self.user.map(latin1);
        let (roles, user) = (roles.as_deref(), user.as_deref());
        let said = Credentials::of_headers(roles.unwrap_or(""), project, user.unwrap_or(""));
        policy.allows(rule, &said)
    }
}

/// What headers say of who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct SaidIdentity {
    pub(crate) project: Option<String>,
    /// Names with commas between them.
    pub(crate) roles: String,
    pub(crate) user: String,
}

/// What Keystone, where it is asked, has to do with a request.
#[derive(Debug, Clone)]
pub(crate) enum Keystone {
    /// The token of the request is that of this caller. No header says who asks.
    Caller(Caller),
    /// A signature stands for the token: it vouches for the project that a header names, and for nothing else.
    Signed,
    /// It needs no token.
    Anonymous,
}

pub(crate) fn missing_project() -> Problem {
    bad_request(PROJECT_MISSING_TITLE, PROJECT_MISSING_DESCRIPTION)
}

fn bad_request(title: &'static str, description: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, title, description)
}

pub(crate) fn invalid_queue() -> Problem {
    let description = "The format of the submitted queue name or project id is not valid.";
    bad_request("Invalid queue identification", description)
}

fn invalid_topic() -> Problem {
    let description = "The format of the submitted topic name or project id is not valid.";
    bad_request("Invalid topic identification", description)
}

/// Whether an `Accept` header allows JSON: the most specific range that matches must not have quality 0.
fn accepts_json(accept: &HeaderValue) -> bool {
    let Ok(text) = accept.to_str() else {
        return false;
    };
    if text.is_empty() || text == "*/*" || text == "application/json" {
        return true;
    }
    let mut best: Option<(u8, bool)> = None;
    for range in text.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let precedence = match parts.next().unwrap_or("").to_ascii_lowercase().as_str() {
            "application/json" => 3,
            "application/*" => 2,
            "*/*" => 1,
            _ => continue,
        };
        let quality =
            parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let wanted =
            quality.is_none_or(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0));
        if best.is_none_or(|(other, _)| precedence > other) {
            best = Some((precedence, wanted));
        }
    }
    best.is_some_and(|(_, wanted)| wanted)
}

fn client(rule: &ClientIds, header: Option<&HeaderValue>) -> Result<ClientId, Problem> {
    let missing = "The \"Client-Id\" header is required.";
    let header = header.ok_or_else(|| bad_request("Missing header value", missing))?;
    client_id(rule, &latin1(header))
        .ok_or_else(|| bad_request("Wrong UUID value", "Malformed hexadecimal UUID."))
}

/// Reads what a client calls itself; `None` for what is none by the rule.
pub(crate) fn client_id(rule: &ClientIds, text: &str) -> Option<ClientId> {
    if let Some(id) = python_uuid(text) {
        return Some(ClientId::Uuid(id));
    }
    match rule {
        ClientIds::Text(lengths) if lengths.contains(&text.chars().count()) => {
            Some(ClientId::Text(text.into()))
        }
        _ => None,
    }
}

/// A UUID in every spelling that Python's parser takes: braces, `urn:uuid:`, hyphens anywhere or nowhere.
fn python_uuid(text: &str) -> Option<Uuid> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Some(id);
    }
    let digits = text.replace("urn:", "").replace("uuid:", "");
    let digits = digits.trim_matches(['{', '}']).replace('-', "");
    (digits.len() == 32).then(|| Uuid::try_parse(&digits).ok())?
}

fn project(header: Option<&HeaderValue>) -> Result<Cow<'_, str>, Problem> {
    let header = header.ok_or_else(missing_project)?;
    if header.is_empty() {
        return Err(empty_project());
    }
    Ok(latin1(header))
}

pub(crate) fn empty_project() -> Problem {
    let description =
        "X-PROJECT-ID cannot be an empty string. Specify the right header X-PROJECT-ID and retry.";
    bad_request("Empty project header not allowed", description)
}

/// The project of a request: that of its token, or what a header names, whether or not it counts.
pub(crate) fn project_of(request: &Request, identity: &Identity) -> Option<HeaderValue> {
    if let Some(Keystone::Caller(caller)) = request.extensions().get() {
        return HeaderValue::from_str(&caller.project()?.id).ok();
    }
    let headers = request.headers();
    let older = match identity.knows_legacy_names() {
        true => &["x-tenant-id", "x-tenant"][..],
        false => &[],
    };
    let mut names = std::iter::once(&"x-project-id").chain(older);
    // There are few of them: to go through costs less than a hash.
    let found = names.find_map(|name| headers.iter().find(|(it, _)| it.as_str() == *name));
    found.map(|(_, value)| value.clone())
}

/// A header's value, each byte a character: two different values never become the same text.
pub(crate) fn latin1(value: &HeaderValue) -> Cow<'_, str> {
    match value.to_str() {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(
            value
                .as_bytes()
                .iter()
                .map(|byte| char::from(*byte))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_allow_json_or_not() {
        for (accept, allowed) in [
            ("", true),
            ("*/*", true),
            ("application/*", true),
            ("application/json; charset=utf-8", true),
            ("text/html, application/json;q=0.1", true),
            ("text/html", false),
            ("application/json;q=0", false),
            ("application/json;q=0, */*", false),
            ("application/json-home", false),
            ("nonsense", false),
        ] {
            assert_eq!(
                accepts_json(&HeaderValue::from_static(accept)),
                allowed,
                "{accept}"
            );
        }
    }

    #[test]
    fn uuids_are_read_in_every_spelling_of_python() {
        let id = "c8cbd19a-842e-4794-8e25-3d5e2df00f2b";
        let plain = id.replace('-', "");
        for text in [
            id,
            &plain,
            &id.to_uppercase(),
            &format!("{{{id}}}"),
            &format!("urn:uuid:{id}"),
        ] {
            assert_eq!(
                python_uuid(text).map(|id| id.to_string()).as_deref(),
                Some(id),
                "{text}"
            );
        }
        for text in [
            "",
            "abc",
            &plain[1..],
            "zzcbd19a-842e-4794-8e25-3d5e2df00f2b",
        ] {
            assert_eq!(python_uuid(text), None, "{text}");
        }
    }
}
