//! Pre-signed access to a queue (spec: signed-urls.md).

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use isimud_contract::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::body::{self, Payload};
use super::caller::{Target, path_of};
use super::problem::Problem;
use super::{AppState, json};
use crate::dates;
use crate::messaging::is_falsy;
use crate::signature::{Grant, METHODS, Signer, is_unambiguous};

/// The parts of a queue that can be shared.
const PATHS: [&str; 3] = ["messages", "claims", "subscriptions"];

/// The refusal of a grant whose signature would fit another grant too (see [`crate::signature`]).
const CANNOT_BE_SIGNED: &str = "Nothing can be signed for a project whose id contains a backslash.";

/// What to share.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(
    dead_code,
    reason = "describes a document that is read key by key, for the sake of its error sentences"
)]
pub(crate) struct ShareRequest {
    /// `messages`, `claims`, `subscriptions`; `messages` if absent.
    paths: Option<Vec<String>>,
    /// Of `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE` and `OPTIONS`; `GET` if absent.
    methods: Option<Vec<String>>,
    /// An ISO 8601 date in the future; a day from now if absent.
    expires: Option<String>,
}

/// What a bearer sends instead of a token, in the headers `URL-Paths`, `URL-Methods`, `X-Project-Id`, `URL-Expires` and
/// `URL-Signature`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Shared {
    paths: Vec<String>,
    methods: Vec<String>,
    project: String,
    /// In UTC, without a zone.
    expires: String,
    signature: String,
}

/// Signs access to parts of a queue: whoever has the signature needs no token for them until it expires.
#[utoipa::path(post, path = "/v2/queues/{queue}/share", tag = "queues", request_body = ShareRequest,
    responses((status = 200, body = Shared), (status = 400, body = super::problem::ErrorDocument)))]
pub(crate) async fn share(
    State(app): State<AppState>,
    target: Target,
    payload: Payload,
) -> Result<Response, Problem> {
    let most = app.messaging.limits().max_queue_metadata;
    let body = payload.required(most, body::too_large).await?;
    let Value::Object(document) = json::parse(&body)? else {
        return Err(Problem::unsupported_document());
    };
    let unknown = document
        .keys()
        .filter(|key| !["paths", "methods", "expires"].contains(&key.as_str()));
    if let Some(unknown) = set_of(unknown) {
        return Err(Problem::request(format!("Unknown keys: {unknown}")));
    }
    let mut paths =
        texts(document.get("paths"), "messages").ok_or_else(Problem::unsupported_document)?;
    if let Some(invalid) = set_of(paths.iter().filter(|path| !PATHS.contains(&path.as_str()))) {
        return Err(Problem::request(format!("Invalid paths: {invalid}")));
    }
    if !app.signer.can_sign() {
        return Err(Problem::request("The `key` can't be None"));
    }
    let mut methods = match document.get("methods") {
        Some(value) if !value.is_array() && !is_falsy(value) => {
            return Err(Problem::request("`methods` should be a list"));
        }
        methods => texts(methods, "GET").ok_or_else(Problem::unsupported_document)?,
    };
    let is_unknown = |method: &&String| !METHODS.contains(&method.as_str());
    if let Some(unknown) = set_of(methods.iter().filter(is_unknown)) {
        return Err(Problem::request(format!("Invalid methods: {unknown}")));
    }
    if !is_unambiguous(target.queue.project.as_str()) {
        return Err(Problem::request(CANNOT_BE_SIGNED));
    }
    let expires = expiry(document.get("expires"), &app.signer)?;
    paths = paths
        .iter()
        .map(|path| format!("{}/{path}", path_of(&target.queue.name)))
        .collect();
    paths.sort_unstable();
    methods.sort_unstable();
    let grant = Grant {
        paths,
        methods,
        project: target.queue.project.to_string(),
        expires,
    };
    let signature = app
        .signer
        .sign(&grant)
        .ok_or_else(|| Problem::request(CANNOT_BE_SIGNED))?;
    let shared = Shared {
        paths: grant.paths,
        methods: grant.methods,
        project: grant.project,
        expires: dates::zoneless(grant.expires),
        signature,
    };
    Ok(json::answer(StatusCode::OK, &shared))
}

/// An array of texts that can be signed, or `default` where nothing is given; `None` for anything else. A comma inside
/// a text could be read as two of them.
fn texts(value: Option<&Value>, default: &str) -> Option<Vec<String>> {
    match value {
        Some(value) if !is_falsy(value) => {
            let text = |item: &Value| {
                item.as_str()
                    .filter(|text| !text.contains(','))
                    .map(str::to_owned)
            };
            value.as_array()?.iter().map(text).collect()
        }
        _ => Some(vec![default.to_owned()]),
    }
}

/// Texts as Python shows a set of them, in order; `None` when there are none.
fn set_of<'a>(texts: impl Iterator<Item = &'a String>) -> Option<String> {
    let mut shown: Vec<String> = texts.map(|text| format!("'{text}'")).collect();
    shown.sort_unstable();
    shown.dedup();
    (!shown.is_empty()).then(|| format!("{{{}}}", shown.join(", ")))
}

fn expiry(value: Option<&Value>, signer: &Signer) -> Result<Timestamp, Problem> {
    let text = match value {
        None | Some(Value::Null) => return Ok(signer.usual_expiry()),
        Some(Value::String(text)) if super::query::python_integer(text).is_none() => text,
        Some(Value::String(text)) => return Err(no_date(text)),
        Some(Value::Bool(truth)) => return Err(no_date(if *truth { "True" } else { "False" })),
        Some(Value::Number(number)) if number.as_i64() == Some(0) => {
            return Err(Problem::request(
                "expected string or bytes-like object, got 'int'",
            ));
        }
        Some(Value::Number(number)) => return Err(no_date(&number.to_string())),
        Some(_) => return Err(Problem::unsupported_document()),
    };
    let expires = dates::parse(text)
        .ok_or_else(|| Problem::request(format!("Unable to parse date string '{text}'")))?;
    if expires <= signer.now() {
        return Err(Problem::request("`expires` is lower than the current time"));
    }
    Ok(expires)
}

fn no_date(shown: &str) -> Problem {
    Problem::request(format!(
        "`expires` should be date format, for example 2016-01-01T00:00:00, not integer value: {shown}"
    ))
}
