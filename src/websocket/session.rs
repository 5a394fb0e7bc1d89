//! Who is at the other end of a socket, and for how long that holds.
//!
//! A token is asked about with each request, through the authenticator's cache, so that a revoked one ends its socket within
//! the same time as it ends requests; and every half of the time that the cache remembers answers for while messages are
//! pushed. While Keystone cannot be asked, and
//! the cache does not answer for it any more, requests are answered 503 and nothing is pushed; the socket stays, because to
//! have all clients connect again would help nobody.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::auth::SaidIdentity;
use crate::keystone::{Authenticator, Caller, Proof, Tokens, Trustor};
use crate::signature::Signer;

/// The shortest time between two proofs that nobody asked for.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time until a token is looked at: its end may be further away than a clock can tell.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Whom the handshake names.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshake {
    /// Whether it comes from where the headers of identity count.
    pub(super) is_trusted: bool,
    /// What they say, where they count.
    pub(super) said: SaidIdentity,
    /// What clients see in front of `/v2`.
    pub(super) base_path: String,
}

/// A token that was proven.
#[derive(Debug, Clone)]
struct Proven {
    tokens: Tokens,
    caller: Caller,
    at: Instant,
    /// When nobody could say whether it is still good.
    doubted: Option<(Instant, Duration)>,
}

/// How a session stands.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// No token was proven.
    Unknown,
    /// This is the caller.
    Known(Caller),
    /// It cannot be said now; a client may try again after so many seconds.
    Doubtful(u64),
    /// It was good and is not any more.
    Ended,
}

/// What a socket knows of its client.
#[derive(Debug, Default)]
pub(super) struct Session(Mutex<Option<Proven>>);

impl Session {
    fn get(&self) -> Option<Proven> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes what is known now of a token, unless there is another one meanwhile.
    fn renew(&self, before: Instant, proven: Proven) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|known| known.at == before) {
            *known = Some(proven);
        }
    }

    /// Takes tokens for those of the client, if they are good. What was proven before stays otherwise.
    pub(super) async fn authenticate(&self, keystone: &Authenticator, tokens: Tokens) -> Proof {
        let proof = keystone.prove(&tokens).await;
        if let Proof::Caller(caller) = &proof {
            let proven = Proven {
                tokens,
                caller: caller.clone(),
                at: Instant::now(),
                doubted: None,
            };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(proven);
        }
        proof
    }

    /// Who may give a trust: the user whose token was proven.
    pub(super) fn trustor(&self) -> Option<Trustor> {
        let proven = self.get()?;
        Trustor::of_tokens(&proven.caller, &proven.tokens)
    }

    /// Whether a token was proven, whatever became of it.
    pub(super) fn is_known(&self) -> bool {
        self.get().is_some()
    }

    /// Whether nobody can say now whether the client is who it was.
    pub(super) fn is_doubtful(&self) -> bool {
        self.get().is_some_and(|proven| proven.doubted.is_some())
    }

    /// How the session stands now: asks again where the proof is too old. May be dropped at any time.
    pub(super) async fn standing(&self, keystone: &Authenticator, signer: &Signer) -> Standing {
        let Some(proven) = self.get() else {
            return Standing::Unknown;
        };
        if life_left(&proven.caller, signer).is_zero() {
            return Standing::Ended;
        }
        if let Some((at, wait)) = proven.doubted
            && at.elapsed() < wait
        {
            return Standing::Doubtful(wait.as_secs().max(1));
        }
        // The authenticator remembers answers. To remember them here as well would let a revoked token live twice as long.
        let began = Instant::now();
        match keystone.prove(&proven.tokens).await {
            Proof::Caller(caller) => {
                let renewed = Proven {
                    caller: caller.clone(),
                    at: began,
                    tokens: proven.tokens,
                    doubted: None,
                };
                self.renew(proven.at, renewed);
                Standing::Known(caller)
            }
            // The client may have authenticated anew meanwhile.
            Proof::Refused => match self.get() {
                Some(now) if now.at != proven.at => Standing::Known(now.caller),
                _ => Standing::Ended,
            },
            Proof::Undecided(retry_after) => {
                let wait = Duration::from_secs(retry_after).max(SHORTEST_INTERVAL);
                let doubted = Proven {
                    doubted: Some((Instant::now(), wait)),
                    ..proven
                };
                let before = doubted.at;
                self.renew(before, doubted);
                Standing::Doubtful(retry_after)
            }
        }
    }

    /// When to look again: at the end of the token, and, while the socket is used for more than requests, when the proof is
    /// too old. `None` where nothing was proven.
    pub(super) fn next_look(
        &self,
        keystone: &Authenticator,
        signer: &Signer,
        now: Instant,
        is_used: bool,
    ) -> Option<Instant> {
        let proven = self.get()?;
        let end = now + life_left(&proven.caller, signer).min(LONGEST_WAIT);
        if !is_used {
            return Some(end);
        }
        let again = match proven.doubted {
            Some((at, wait)) => at + wait,
            // The proof may have been as old as that already when it was taken.
            None => proven.at + (keystone.cached_for() / 2).max(SHORTEST_INTERVAL),
        };
        Some(again.min(end))
    }
}

/// How long the token of a caller is good. Where a service passes it on, it is the service's that counts.
fn life_left(caller: &Caller, signer: &Signer) -> Duration {
    let identity = caller.service().unwrap_or_else(|| caller.identity());
    let left = identity.expires_at.0.saturating_sub(signer.now().0);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
