//! Bridges, for operators.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /bridges` | how each bridge of this server goes |
//! | `POST /bridges?from=P/Q&to=P/Q[&rate=N][&dead_letter=P/Q]` | has one run, for fifteen seconds more; says how it goes |
//! | `DELETE /bridges?from=P/Q&to=P/Q` | ends it |

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use isimud_contract::{Error, Result};
use serde_json::{Value, json};

use super::moves::{answer, rate, value};
use crate::bridging::{Bridges, Rule, Status};

pub(super) fn router() -> Router<Arc<Bridges>> {
    Router::new().route("/bridges", get(all).post(ask).delete(end))
}

type Asked = (State<Arc<Bridges>>, RawQuery);

async fn all(State(bridges): State<Arc<Bridges>>) -> Response {
    let statuses = bridges.statuses();
    let all: Vec<Value> = statuses
        .iter()
        .map(|(rule, status)| shown(rule, status))
        .collect();
    answer(Ok(json!({"bridges": all})))
}

async fn ask((State(bridges), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            let rule = rule(&query)?;
            let status = bridges.ask(rule.clone()).await?;
            Ok(shown(&rule, &status))
        }
        .await,
    )
}

async fn end((State(bridges), RawQuery(query)): Asked) -> Response {
    answer(
        async {
            let rule = rule(&query)?;
            let status = bridges.end(&rule).await?;
            Ok(shown(&rule, &status.unwrap_or_default()))
        }
        .await,
    )
}

fn rule(query: &Option<String>) -> Result<Rule> {
    let text = |name| value(query, name).unwrap_or_default();
    let dead_letter = value(query, "dead_letter");
    Rule::parse(
        &text("from"),
        &text("to"),
        rate(query)?,
        dead_letter.as_deref(),
    )
    .map_err(Error::invalid)
}

fn shown(rule: &Rule, status: &Status) -> Value {
    json!({
        "from": rule.from.to_string(),
        "to": rule.to.to_string(),
        "state": status.state.name(),
        "crossed": status.crossed,
        "dead_lettered": status.dead_lettered,
        "waiting": status.lag.map(|lag| lag.waiting()),
        "oldest_age_secs": status.lag.map(|lag| lag.oldest.as_secs_f64()),
        "done": status.is_done,
        "error": status.error,
    })
}
