//! What a request must bring before its method is even looked at, in the order of the specification (http.md 2).

use std::borrow::Cow;
use std::ops::RangeInclusive;

use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use isimud_contract::{ClientId, ProjectId, QueueKey, QueueName};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::caller::Scope;
use super::policy::Credentials;
use super::problem::Problem;

/// What a client id may be.
#[derive(Debug, Clone)]
pub enum ClientIds {
    /// A UUID, in any spelling.
    Uuid,
    /// Any text of so many characters; one that is a UUID is normalised.
    Text(RangeInclusive<usize>),
}

/// Checks the headers of every request but those for `/`, and reads whom and what it is about. `template` is the
/// route's path; a variable at its end may be missing from the request's.
pub(crate) fn admit(
    client_ids: &ClientIds,
    template: &str,
    request: &Request,
) -> Result<Scope, Problem> {
    let headers = request.headers();
    check_media(headers)?;
    let client = client(client_ids, headers)?;
    let project = project(headers)?;
    // The length of a project id is looked at only where a queue is named, and a longer one names nothing.
    let project = ProjectId::parse(&project).map_err(|_| invalid_queue())?;
    let mut scope = Scope {
        client,
        project,
        queue: None,
        id: String::new(),
    };
    for (variable, text) in template.split('/').zip(request.uri().path().split('/')) {
        match variable {
            "{queue}" => {
                let name = QueueName::parse(text).map_err(|_| invalid_queue())?;
                scope.queue = Some(QueueKey::new(scope.project.clone(), name));
            }
            _ if variable.starts_with('{') => {
                scope.id = percent_decode_str(text).decode_utf8_lossy().into_owned();
            }
            _ => {}
        }
    }
    Ok(scope)
}

fn invalid_queue() -> Problem {
    let description = "The format of the submitted queue name or project id is not valid.";
    Problem::new(
        StatusCode::BAD_REQUEST,
        "Invalid queue identification",
        description,
    )
}

/// Refuses forms, and answers that are not JSON.
pub(crate) fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(media) = headers.get(CONTENT_TYPE)
        && media
            .as_bytes()
            .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
        && headers.contains_key(CONTENT_LENGTH)
    {
        let description = "Endpoint does not accept `application/x-www-form-urlencoded` content; currently supported \
                           media type is `application/json`; specify proper client-side media type with the \
                           \"Content-Type\" header.";
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Invalid Content-Type",
            description,
        ));
    }
    match headers.get(ACCEPT) {
        None => Ok(()),
        Some(accept) if accepts_json(accept) => Ok(()),
        Some(_) => {
            let description = "The only media type of answers is `application/json`.";
            Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "406 Not Acceptable",
                description,
            ))
        }
    }
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

fn client(rule: &ClientIds, headers: &HeaderMap) -> Result<ClientId, Problem> {
    let Some(value) = headers.get("client-id") else {
        let description = "The \"Client-Id\" header is required.";
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Missing header value",
            description,
        ));
    };
    let text = latin1(value);
    if let Some(id) = python_uuid(&text) {
        return Ok(ClientId::Uuid(id));
    }
    match rule {
        ClientIds::Text(lengths) if lengths.contains(&text.chars().count()) => {
            Ok(ClientId::Text((&*text).into()))
        }
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Wrong UUID value",
            "Malformed hexadecimal UUID.",
        )),
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

fn project(headers: &HeaderMap) -> Result<Cow<'_, str>, Problem> {
    let named = ["x-project-id", "x-tenant-id", "x-tenant"]
        .into_iter()
        .find_map(|name| headers.get(name));
    let Some(project) = named else {
        let description = "The header X-PROJECT-ID was missing";
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Project-Id Missing",
            description,
        ));
    };
    if project.is_empty() {
        let description = "X-PROJECT-ID cannot be an empty string. Specify the right header X-PROJECT-ID and retry.";
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Empty project header not allowed",
            description,
        ));
    }
    Ok(latin1(project))
}

/// Who asks, for the policy.
pub(crate) fn credentials<'a>(headers: &'a HeaderMap, project: &'a str) -> Credentials<'a> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Credentials {
        roles: text("x-roles").or_else(|| text("x-role")).unwrap_or(""),
        project,
        user: text("x-user-id").unwrap_or(""),
    }
}

/// A header's value, each byte a character: two different values never become the same text.
fn latin1(value: &HeaderValue) -> Cow<'_, str> {
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
