//! What a server was told to do with data when memory or power runs out, and what that means for who was told 201. Seen
//! when it is connected to.

use isimud_contract::{Error, ErrorKind, Result};

use crate::connect::Wire;
use crate::node::{self, Change, Nodes};
use crate::waiting::DurabilityWait;

/// What is known; a managed server may keep it to itself.
#[derive(Debug, Default)]
pub(crate) struct Health {
    eviction: Option<String>,
    log: Option<String>,
    sync: Option<String>,
    snapshots: Option<String>,
    pub(crate) nodes: Nodes,
}

/// Where what was acknowledged is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// On the disk, before it is acknowledged.
    Always,
    /// On the disk a second later.
    EverySecond,
    /// With the kernel.
    Kernel,
    /// In a file that is written now and then.
    Snapshots,
    Nowhere,
    /// The server does not say.
    Unsaid,
}

impl Health {
    pub(crate) async fn of(wire: &mut Wire) -> Self {
        Self {
            eviction: setting(wire, "maxmemory-policy").await,
            log: setting(wire, "appendonly").await,
            sync: setting(wire, "appendfsync").await,
            snapshots: setting(wire, "save").await,
            nodes: nodes(wire).await,
        }
    }

    /// Whether every change is in a log on disk, so that it outlives the server's process.
    pub(crate) fn keeps_a_log(&self) -> bool {
        self.log.as_deref() == Some("yes")
    }

    fn kept(&self) -> Kept {
        let sync = self.sync.as_deref();
        match self.log.as_deref() {
            Some("yes") if sync == Some("always") => Kept::Always,
            Some("yes") if sync == Some("no") => Kept::Kernel,
            Some("yes") => Kept::EverySecond,
            Some(_) if self.snapshots.as_deref() == Some("") => Kept::Nowhere,
            Some(_) => Kept::Snapshots,
            None => Kept::Unsaid,
        }
    }

    /// Refuses a server that cannot do what posts are to wait for.
    pub(crate) fn fits(&self, durability_wait: &DurabilityWait) -> Result<()> {
        let refused = |why| Err(Error::new(ErrorKind::Internal, why));
        if !durability_wait.log {
            return Ok(());
        }
        for (major, minor) in self.nodes.values().filter_map(|node| node.version) {
            if (major, minor) < (7, 2) {
                return refused(format!(
                    "the option 'wait_aof' needs Redis 7.2 or newer, or Valkey, and this is Redis {major}.{minor}"
                ));
            }
        }
        match self.kept() {
            Kept::Snapshots | Kept::Nowhere => {
                refused("the option 'wait_aof' needs 'appendonly yes' in Redis".into())
            }
            Kept::Kernel => {
                refused("the option 'wait_aof' needs 'appendfsync everysec' or 'always'".into())
            }
            _ => Ok(()),
        }
    }

    /// Tells the operator what an acknowledged message survives, and what may lose it.
    pub(crate) fn tell(&self, durability_wait: &DurabilityWait) {
        if let Some(policy) = &self.eviction
            && policy != "noeviction"
        {
            tracing::warn!(
                policy,
                "Redis deletes messages when its memory is full; set maxmemory-policy to noeviction"
            );
        }
        match self.kept() {
            Kept::Nowhere => {
                tracing::warn!("Redis keeps nothing on disk: messages are gone when it stops");
            }
            Kept::Snapshots => tracing::warn!(
                "Redis keeps snapshots only: a crash loses the messages since the last; set appendonly to yes"
            ),
            Kept::Always => tracing::info!(
                "acknowledged messages, claims and deletions survive a killed Redis and a power cut (appendfsync always)"
            ),
            Kept::EverySecond if durability_wait.log => tracing::info!(
                "acknowledged messages survive a killed Redis and a power cut, for they wait for the log (wait_aof); \
                 claims and deletions of the last two seconds may not (appendfsync everysec)"
            ),
            Kept::EverySecond => tracing::info!(
                "acknowledged messages, claims and deletions survive a killed Redis unless its disk is held up, and a \
                 power cut but for those of the last two seconds (appendfsync everysec)"
            ),
            Kept::Kernel => tracing::warn!(
                "acknowledged messages survive a killed Redis, but a power cut loses what the kernel has not written \
                 yet (appendfsync no)"
            ),
            Kept::Unsaid => tracing::info!(
                "Redis does not show its settings to this user, so nothing can be said of what its messages survive"
            ),
        }
        if durability_wait.log
            && self.kept() == Kept::EverySecond
            && !durability_wait.has_a_second()
        {
            tracing::warn!(
                "with 'wait_aof' and 'appendfsync everysec' a post takes up to two seconds; set timeout_ms to 5000"
            );
        }
    }

    /// Tells the operator what may be lost by what became of a server.
    pub(crate) fn tell_of(&self, node: &str, change: Change, durability_wait: &DurabilityWait) {
        match (change, self.kept()) {
            (Change::TakenOver, _) if durability_wait.replicas > 0 => tracing::warn!(
                node,
                wait_replicas = durability_wait.replicas,
                "a replica has taken over from its Redis server: messages that were acknowledged had reached \
                 'wait_replicas' of them, but claims and deletions of the last moments may be undone"
            ),
            (Change::TakenOver, _) => tracing::warn!(
                node,
                "a replica has taken over from its Redis server: acknowledged messages, claims and deletions that had \
                 not reached it are lost, commonly those of the last moments; see 'wait_replicas'"
            ),
            (_, Kept::Always) => tracing::info!(
                node,
                "Redis was restarted, and has all that it had acknowledged (appendfsync always)"
            ),
            (_, Kept::EverySecond) if durability_wait.log => tracing::warn!(
                node,
                "Redis was restarted, and has all messages that it had acknowledged (wait_aof); claims and deletions \
                 of its last two seconds may be undone (appendfsync everysec)"
            ),
            (_, Kept::EverySecond) => tracing::warn!(
                node,
                "Redis was restarted: messages, claims and deletions that it acknowledged in its last two seconds may \
                 be lost (appendfsync everysec)"
            ),
            (_, Kept::Kernel) => tracing::warn!(
                node,
                "Redis was restarted: if the machine was too, what it acknowledged in its last half minute, or longer, \
                 may be lost (appendfsync no)"
            ),
            (_, Kept::Snapshots) => tracing::warn!(
                node,
                "Redis was restarted: what it acknowledged since its last snapshot is lost (appendonly no)"
            ),
            (_, Kept::Nowhere) => tracing::warn!(
                node,
                "Redis was restarted, and keeps nothing on disk: all that was in it is lost"
            ),
            (_, Kept::Unsaid) => tracing::warn!(
                node,
                "Redis was restarted, and does not show its settings: what it acknowledged shortly before may be lost"
            ),
        }
    }
}

/// Asks every server who it is; nothing where it does not say.
pub(crate) async fn nodes(wire: &mut Wire) -> Nodes {
    let answer = wire.send(&redis::cmd("INFO")).await;
    answer.map(node::read).unwrap_or_default()
}

async fn setting(wire: &mut Wire, name: &str) -> Option<String> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg(name);
    let answer = wire.send(&command).await.ok()?;
    let pair: Vec<String> = redis::from_redis_value(answer).ok()?;
    pair.into_iter().nth(1)
}
