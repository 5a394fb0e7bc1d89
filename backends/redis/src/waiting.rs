//! Posts that wait: until the log of the server, and replicas, have them (`WAIT`, `WAITAOF`).
//!
//! Such a wait holds up the connection on which it is sent, and is about everything that was done there before. So posts
//! that wait have a connection of their own, and one wait stands for all of them that were answered before it was sent:
//! with a log that reaches the disk once a second, a second has room for as many posts as without.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind, Result};
use redis::{Cmd, Value};
use tokio::sync::Mutex;

use crate::config::Config;
use crate::error::strange;

/// What a post waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DurabilityWait {
    /// So many replicas have it.
    pub(crate) replicas: u32,
    /// It is in the log on the disk, with replicas on theirs.
    pub(crate) log: bool,
    /// How long it waits. A post may come behind an earlier wait, and both must fit into its time.
    connect_timeout: Duration,
}

impl DurabilityWait {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            replicas: config.wait_replicas,
            log: config.wait_log,
            connect_timeout: config.timeout * 2 / 5,
        }
    }

    pub(crate) fn any(&self) -> bool {
        self.log || self.replicas > 0
    }

    /// Whether a log that reaches the disk once a second is in time.
    pub(crate) fn has_a_second(&self) -> bool {
        self.connect_timeout > Duration::from_millis(1500)
    }

    pub(crate) fn command(&self) -> Cmd {
        let mut command = redis::cmd(if self.log { "WAITAOF" } else { "WAIT" });
        if self.log {
            command.arg(1);
        }
        let millis = self.connect_timeout.as_millis() as u64;
        command.arg(self.replicas).arg(millis);
        command
    }

    /// Whether everything that was to happen has, by the answer to the command.
    pub(crate) fn judge(&self, answer: &Value) -> Result<()> {
        let (on_disk, replicas) = match answer {
            Value::Int(replicas) => (true, *replicas),
            Value::Array(both) => match both[..] {
                [Value::Int(here), Value::Int(replicas)] => (here >= 1, replicas),
                _ => return Err(strange()),
            },
            _ => return Err(strange()),
        };
        let late = |what: &'static str| Err(Error::new(ErrorKind::Unavailable, what));
        if !on_disk {
            late("the message is not on the disk of Redis yet")
        } else if replicas < i64::from(self.replicas) {
            late("too few replicas have the message yet")
        } else {
            Ok(())
        }
    }
}

/// The posts of one connection, which wait together.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// How many were answered.
    answered: AtomicU64,
    /// How many of those a wait has stood for. Held by whoever waits for all.
    covered: Mutex<u64>,
}

impl Round {
    /// Waits, for a post that was answered, until a wait that began later has succeeded.
    pub(crate) async fn join(&self, wait: impl Future<Output = Result<()>>) -> Result<()> {
        let mine = self.answered.fetch_add(1, Ordering::SeqCst) + 1;
        let mut covered = self.covered.lock().await;
        if *covered >= mine {
            return Ok(());
        }
        let all = self.answered.load(Ordering::SeqCst);
        wait.await?;
        *covered = all;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn durability_wait(options: &str) -> DurabilityWait {
        DurabilityWait::of(&Config::parse(&format!("redis://h?{options}")).unwrap())
    }

    #[test]
    fn what_was_to_happen_must_have_happened() {
        let both = |here, replicas| Value::Array(vec![Value::Int(here), Value::Int(replicas)]);
        let log = durability_wait("wait_aof=1&wait_replicas=1");
        assert!(log.judge(&both(1, 1)).is_ok());
        for late in [both(0, 1), both(1, 0), both(0, 0)] {
            let refusal = log.judge(&late).unwrap_err();
            assert_eq!(refusal.kind(), ErrorKind::Unavailable);
        }
        assert!(
            durability_wait("wait_replicas=2")
                .judge(&Value::Int(2))
                .is_ok()
        );
        assert!(
            durability_wait("wait_replicas=2")
                .judge(&Value::Int(1))
                .is_err()
        );
        assert!(durability_wait("wait_aof=1").judge(&both(1, 0)).is_ok());
        assert!(!durability_wait("").any());
        assert!(!durability_wait("wait_aof=1").has_a_second());
        assert!(durability_wait("wait_aof=1&timeout_ms=5000").has_a_second());
    }

    #[tokio::test]
    async fn one_wait_stands_for_all_that_were_answered_before() {
        let round = Arc::new(Round::default());
        let durability_wait = Arc::new(AtomicUsize::new(0));
        let all: Vec<_> = (0..100)
            .map(|_| {
                let (round, durability_wait) = (Arc::clone(&round), Arc::clone(&durability_wait));
                tokio::spawn(async move {
                    let wait = async {
                        tokio::task::yield_now().await;
                        durability_wait.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    };
                    round.join(wait).await
                })
            })
            .collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
        assert!((1..=2).contains(&durability_wait.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_wait_that_failed_stands_for_nobody() {
        let round = Round::default();
        let refused = round.join(async { Err(strange()) }).await;
        assert!(refused.is_err());
        assert!(round.join(async { Err(strange()) }).await.is_err());
        assert!(round.join(async { Ok(()) }).await.is_ok());
    }
}
