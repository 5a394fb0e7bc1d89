//! Bridges, for operators.
//!
//! | request | what it does | needs |
//! |---|---|---|
//! | `GET /bridges` | how each bridge of this server goes, as far as the token is for its projects | viewer |
//! | `POST /bridges {"from": "P/Q", "to": "P/Q", "rate"?, "dead_letter"?}` | has one run, for fifteen seconds more; says how it goes | operator |
//! | `DELETE /bridges {"from": "P/Q", "to": "P/Q"}` | ends it | operator |

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use isimud_contract::Error;
use serde::Deserialize;
use serde_json::{Value, json};

use super::change::Change;
use super::guard::Operator;
use super::tokens::Role;
use super::{Fault, answer, audit};
use crate::bridges::{Bridges, Rule, Status};

pub(super) fn router() -> Router<Arc<Bridges>> {
    Router::new().route("/bridges", get(all).post(ask).delete(end))
}

type Told = (State<Arc<Bridges>>, Extension<Operator>, Change<Bridge>);

/// A bridge that is wanted, or is not wanted any more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bridge {
    from: String,
    to: String,
    /// Messages a second, at the most; 0 for as fast as the stores are.
    rate: Option<u32>,
    dead_letter: Option<String>,
}

impl Bridge {
    /// What is asked for, if this operator may.
    fn checked(&self, operator: &Operator) -> Result<Rule, Fault> {
        operator.needs(Role::Operator)?;
        let dead_letter = self.dead_letter.as_deref();
        let rule =
            Rule::parse(&self.from, &self.to, self.rate, dead_letter).map_err(Error::invalid)?;
        for queue in queues(&rule) {
            operator.needs_project(&queue.project)?;
        }
        Ok(rule)
    }

    fn subject(&self) -> String {
        let mut subject = format!("bridge {} to {}", self.from, self.to);
        if let Some(queue) = &self.dead_letter {
            subject.push_str(&format!(", what it refuses to {queue}"));
        }
        subject
    }
}

fn queues(rule: &Rule) -> impl Iterator<Item = &isimud_contract::QueueKey> {
    [&rule.from, &rule.to].into_iter().chain(&rule.dead_letter)
}

async fn all(
    State(bridges): State<Arc<Bridges>>,
    Extension(operator): Extension<Operator>,
) -> Response {
    let statuses = bridges.statuses();
    let seen = statuses
        .iter()
        .filter(|(rule, _)| queues(rule).all(|queue| operator.sees(&queue.project)));
    let all: Vec<Value> = seen.map(|(rule, status)| shown(rule, status)).collect();
    answer(
        operator
            .needs(Role::Viewer)
            .map(|()| json!({"bridges": all})),
    )
}

async fn ask(told: Told) -> Response {
    audit::to_its_end(begin(told)).await
}

/// A command asks again every second: what it says once more changes nothing, and is not told again.
async fn begin((State(bridges), Extension(operator), Change(asked)): Told) -> Response {
    let mut is_news = true;
    let done = async {
        let rule = asked.checked(&operator)?;
        is_news = !bridges.is_running(&rule);
        let status = bridges.request(rule.clone()).await?;
        Ok(shown(&rule, &status))
    }
    .await;
    let is_busy = |fault: &Fault| fault.status == StatusCode::SERVICE_UNAVAILABLE;
    if is_news && !done.as_ref().is_err_and(is_busy) {
        audit::tell(&operator, "begin a bridge", &asked.subject(), &done);
    }
    answer(done)
}

async fn end(told: Told) -> Response {
    audit::to_its_end(finish(told)).await
}

async fn finish((State(bridges), Extension(operator), Change(asked)): Told) -> Response {
    let done = async {
        let rule = asked.checked(&operator)?;
        let status = bridges.end(&rule).await?;
        Ok(shown(&rule, &status.unwrap_or_default()))
    }
    .await;
    audit::tell(&operator, "end a bridge", &asked.subject(), &done);
    answer(done)
}

fn shown(rule: &Rule, status: &Status) -> Value {
    json!({
        "from": rule.from.to_string(),
        "to": rule.to.to_string(),
        "state": status.state.name(),
        "crossed": status.transferred,
        "dead_lettered": status.dead_lettered,
        "waiting": status.lag.map(|lag| lag.waiting()),
        "oldest_age_secs": status.lag.map(|lag| lag.oldest.as_secs_f64()),
        "done": status.is_done,
        "error": status.error,
    })
}
