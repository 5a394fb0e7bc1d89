//! What a server was told to do with data when memory or power runs out. Seen when it is connected to.

use crate::connect::Wire;

/// What is known; a managed server may keep it to itself.
#[derive(Debug, Default)]
pub(crate) struct Health {
    eviction: Option<String>,
    log: Option<String>,
    snapshots: Option<String>,
}

impl Health {
    pub(crate) async fn of(wire: &mut Wire) -> Self {
        Self {
            eviction: setting(wire, "maxmemory-policy").await,
            log: setting(wire, "appendonly").await,
            snapshots: setting(wire, "save").await,
        }
    }

    /// Whether every change is in a log on disk, so that it outlives the server's process.
    pub(crate) fn keeps_a_log(&self) -> bool {
        self.log.as_deref() == Some("yes")
    }
}

async fn setting(wire: &mut Wire, name: &str) -> Option<String> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(name);
    let answer = wire.send(&command).await.ok()?;
    let pair: Vec<String> = redis::from_redis_value(answer).ok()?;
    pair.into_iter().nth(1)
}

/// Tells the operator what may lose messages.
pub(crate) fn warn(health: &Health) {
    if let Some(policy) = &health.eviction
        && policy != "noeviction"
    {
        tracing::warn!(
            policy,
            "Redis deletes messages when its memory is full; set maxmemory-policy to noeviction"
        );
    }
    if health.log.as_deref() == Some("no") {
        if health.snapshots.as_deref().is_some_and(str::is_empty) {
            tracing::warn!("Redis keeps nothing on disk: messages are gone when it stops");
        } else {
            tracing::warn!(
                "Redis keeps snapshots only: a crash loses the messages since the last; set appendonly to yes"
            );
        }
    }
}
