//! What RabbitMQ has refused of late.
//!
//! A question that RabbitMQ refuses costs the channel on which it was asked, and a line in RabbitMQ's log. So one that was
//! refused is not asked again for a moment, and for longer where it is refused again and again: a client that waits for
//! work at a queue that does not exist yet costs a question every few seconds, however often he asks.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isimud_contract::{Error, ErrorKind};
use lapin::types::ShortString;
use tokio::time::Instant;

/// For how long the first refusal is believed, and for how long at the most. A queue that somebody else makes is found
/// when that is over.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(4);

/// How many names are remembered. Beyond that those are forgotten that may be asked for again, or all.
const CAPACITY: usize = 10_000;

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is nothing of that name.
    Missing,
    /// It is there and cannot be used: the kind of error and its sentence.
    Unusable(ErrorKind, String),
}

impl Refused {
    /// What is worth remembering of an error: that is, not one that may be over at the next call.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let lasts = error.kind() != ErrorKind::Unavailable;
        lasts.then(|| Self::Unusable(error.kind(), error.sentence().to_owned()))
    }
}

/// Refusals, by the name of what was asked for.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<ShortString, Refusal>>);

#[derive(Debug)]
struct Refusal {
    refused: Refused,
    until: Instant,
    /// For how long it was believed this time.
    believed: Duration,
}

impl Refusals {
    /// What was refused of that name, if it is too early to ask again.
    pub(crate) fn get(&self, name: &ShortString) -> Option<Refused> {
        let all = self.all();
        let refusal = all.get(name).filter(|it| Instant::now() < it.until);
        refusal.map(|it| it.refused.clone())
    }

    /// Notes a refusal. The same one again is believed for twice as long.
    pub(crate) fn put(&self, name: &ShortString, refused: Refused) {
        let now = Instant::now();
        let mut all = self.all();
        let before = all.get(name).filter(|it| it.refused == refused);
        // One that is long over is none any more.
        let before = before.filter(|it| now < it.until + 2 * MAX_DELAY);
        let believed = before.map_or(FIRST_DELAY, |it| (2 * it.believed).min(MAX_DELAY));
        if all.len() >= CAPACITY && !all.contains_key(name) {
            all.retain(|_, it| now < it.until);
            if all.len() >= CAPACITY {
                all.clear();
            }
        }
        let refusal = Refusal {
            refused,
            until: now + believed,
            believed,
        };
        all.insert(name.clone(), refusal);
    }

    /// Believes nothing of a name any more: it was made, or found.
    pub(crate) fn forget(&self, name: &ShortString) {
        self.all().remove(name);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ShortString, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn believed(refusals: &Refusals, name: &ShortString) -> Duration {
        refusals.all()[name].believed
    }

    #[test]
    fn what_is_refused_again_and_again_is_asked_for_less_and_less_often() {
        let (refusals, name) = (Refusals::default(), ShortString::from("q"));
        assert_eq!(refusals.get(&name), None);
        for span in [
            FIRST_DELAY,
            2 * FIRST_DELAY,
            4 * FIRST_DELAY,
            MAX_DELAY,
            MAX_DELAY,
        ] {
            refusals.put(&name, Refused::Missing);
            assert_eq!(refusals.get(&name), Some(Refused::Missing));
            assert_eq!(believed(&refusals, &name), span);
        }
        let other = Refused::Unusable(ErrorKind::Unsupported, "a stream".into());
        refusals.put(&name, other.clone());
        assert_eq!(refusals.get(&name), Some(other));
        assert_eq!(believed(&refusals, &name), FIRST_DELAY);
        refusals.forget(&name);
        assert_eq!(refusals.get(&name), None);
    }

    #[test]
    fn any_number_of_names_takes_a_bounded_room() {
        let refusals = Refusals::default();
        for number in 0..3 * CAPACITY {
            refusals.put(&number.to_string().into(), Refused::Missing);
        }
        let last = (3 * CAPACITY - 1).to_string().into();
        assert_eq!(refusals.get(&last), Some(Refused::Missing));
        assert!(refusals.all().len() <= CAPACITY);
    }
}
