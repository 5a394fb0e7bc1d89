//! What clients were told, and what they may therefore rely on.
//!
//! The model knows calls by their beginnings and ends alone. What is uncertain (a call that failed, or was cut off,
//! may have had its effect or not) is left open in favour of the store; whatever is certain is demanded.

use std::collections::HashMap;
use std::time::Duration;

use isimud_contract::{Claim, ClaimId, MessageId, QueueKey, Timestamp};

/// A moment in the order of events: what ended at an earlier one than another began at, came before it.
pub(crate) type Tick = u64;

#[derive(Debug, Default)]
pub(crate) struct Model {
    tick: Tick,
    pub(crate) messages: HashMap<MessageId, Posted>,
    /// When a message surely was gone from a queue.
    gone: HashMap<(QueueKey, MessageId), Tick>,
    claims: HashMap<ClaimId, Held>,
    /// When something last began or ended that may end any claim of a queue.
    shaken: HashMap<QueueKey, Tick>,
    /// How many of each kind of call were answered well, to see that a run tries them all.
    pub(crate) served: HashMap<&'static str, usize>,
    pub(crate) failed: usize,
    /// A purge failed half way, or was cut off, and was not repeated.
    pub(crate) half_purged: bool,
}

#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) queue: QueueKey,
    /// The tick at which a post of it was confirmed.
    pub(crate) confirmed: Option<Tick>,
    /// It lives longer than any run.
    pub(crate) lasting: bool,
    /// Calls that may have removed it, or may yet.
    pub(crate) doubts: usize,
    /// It was delivered to somebody at the end.
    pub(crate) found: bool,
}

#[derive(Debug)]
struct Held {
    queue: QueueKey,
    messages: Vec<MessageId>,
    /// It surely runs until then, unless it is over.
    until: Timestamp,
    /// Something was begun that may end it.
    over: bool,
    /// Renewals under way. Those that were cut off stay.
    renewals: usize,
    /// Two renewals overlapped: which came last is not known.
    muddled: bool,
}

impl Model {
    pub(crate) fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    pub(crate) fn doubt<'a>(&mut self, ids: impl IntoIterator<Item = &'a MessageId>) {
        for id in ids {
            if let Some(message) = self.messages.get_mut(id) {
                message.doubts += 1;
            }
        }
    }

    /// The call turned out to have had no effect.
    pub(crate) fn trust<'a>(&mut self, ids: impl IntoIterator<Item = &'a MessageId>) {
        for id in ids {
            if let Some(message) = self.messages.get_mut(id) {
                message.doubts -= 1;
            }
        }
    }

    /// Messages are gone from a queue, for every call that begins after this. (But one whose post is not confirmed may
    /// be posted again by it, as a new message if its life is over by then.)
    pub(crate) fn is_gone<'a>(
        &mut self,
        queue: &QueueKey,
        ids: impl IntoIterator<Item = &'a MessageId>,
    ) {
        let tick = self.tick();
        for id in ids {
            let posted = self.messages.get(id);
            if posted.is_some_and(|posted| !posted.lasting && posted.confirmed.is_none()) {
                continue;
            }
            self.gone.entry((queue.clone(), *id)).or_insert(tick);
        }
    }

    /// **Never back after a delete**: what a call that began at `begun` shows was not gone before.
    pub(crate) fn check_shown(&self, what: &str, queue: &QueueKey, ids: &[MessageId], begun: Tick) {
        for id in ids {
            let gone = self.gone.get(&(queue.clone(), *id));
            assert!(
                gone.is_none_or(|gone| *gone > begun),
                "{what} at {begun} shows {id} in {queue}, which was gone at {gone:?}"
            );
        }
    }

    /// A claim was answered that began at `begun`. `began` and `now` are the ledger's time at its beginning and end.
    pub(crate) fn claimed(
        &mut self,
        queue: &QueueKey,
        claim: &Claim,
        (begun, began): (Tick, Timestamp),
        now: Timestamp,
    ) {
        let messages: Vec<_> = claim.messages.iter().map(|message| message.id).collect();
        // An answer may come so late that the claim is over.
        let runs = now < began.after(claim.ttl);
        for (other, held) in &self.claims {
            let sure = runs && !held.over && now < held.until && held.queue == *queue;
            let shared = held.messages.iter().find(|id| messages.contains(id));
            assert!(
                !(sure && shared.is_some()),
                "{shared:?} is in two live claims: {other} until {:?}, and {} since {began:?} or later",
                held.until,
                claim.id
            );
        }
        let held = Held {
            queue: queue.clone(),
            messages,
            until: began.after(claim.ttl),
            over: self.shaken.get(queue).is_some_and(|tick| *tick > begun),
            renewals: 0,
            muddled: false,
        };
        self.claims.insert(claim.id, held);
    }

    /// A delete of these was answered: so many were there. Of those that were not, a message from another queue may
    /// arrive yet, as a dead letter.
    pub(crate) fn deleted(&mut self, queue: &QueueKey, ids: &[MessageId], count: usize) {
        let messages = &self.messages;
        let of_it = |id: &&MessageId| messages.get(id).is_some_and(|m| m.queue == *queue);
        let all = count == ids.len();
        let gone: Vec<_> = ids.iter().filter(|id| all || of_it(id)).copied().collect();
        self.is_gone(queue, &gone);
    }

    /// Something begins that may end a claim.
    pub(crate) fn may_end(&mut self, claim: ClaimId) {
        if let Some(held) = self.claims.get_mut(&claim) {
            held.over = true;
        }
    }

    /// Something begins that may end a queue's claims.
    pub(crate) fn may_end_all(&mut self, queue: &QueueKey) {
        let tick = self.tick();
        self.shaken.insert(queue.clone(), tick);
        for held in self.claims.values_mut() {
            held.over |= held.queue == *queue;
        }
    }

    /// A renewal begins: until its answer the claim may run on the old terms or on the new ones.
    pub(crate) fn may_renew(&mut self, claim: ClaimId, now: Timestamp, ttl: Duration) {
        if let Some(held) = self.claims.get_mut(&claim) {
            held.until = held.until.min(now.after(ttl));
            held.muddled |= held.renewals > 0;
            held.renewals += 1;
        }
    }

    /// A renewal has an answer; with the terms that it began when it succeeded.
    pub(crate) fn renewed(&mut self, claim: ClaimId, terms: Option<(Timestamp, Duration)>) {
        if let Some(held) = self.claims.get_mut(&claim) {
            held.renewals -= 1;
            match terms {
                Some((began, ttl)) if !held.muddled => held.until = began.after(ttl),
                _ => {}
            }
            held.muddled &= held.renewals > 0;
        }
    }

    /// Whether a claim surely runs.
    pub(crate) fn runs(&self, claim: ClaimId, now: Timestamp) -> bool {
        let held = self.claims.get(&claim);
        held.is_some_and(|held| !held.over && now < held.until)
    }

    /// What a claim surely holds, and is not gone by any other way.
    pub(crate) fn surely_holds(&self, claim: ClaimId) -> Vec<MessageId> {
        let Some(held) = self.claims.get(&claim) else {
            return Vec::new();
        };
        let sure = |id: &&MessageId| self.messages.get(id).is_some_and(|m| m.doubts == 0);
        held.messages.iter().filter(sure).copied().collect()
    }

    /// A claim that was granted, any of them.
    pub(crate) fn some_claim(&self, choice: usize) -> Option<(ClaimId, QueueKey, Vec<MessageId>)> {
        let mut ids: Vec<_> = self.claims.keys().copied().collect();
        ids.sort_unstable();
        // The latest are the most interesting.
        let recent = &ids[ids.len().saturating_sub(8)..];
        let id = recent.get(choice % recent.len().max(1))?;
        let held = self.claims.get(id)?;
        Some((*id, held.queue.clone(), held.messages.clone()))
    }

    /// Messages that a queue was surely given.
    pub(crate) fn confirmed(&self, queue: &QueueKey) -> Vec<MessageId> {
        let of_it = self.messages.iter();
        let of_it = of_it.filter(|(_, m)| m.queue == *queue && m.confirmed.is_some());
        let mut ids: Vec<_> = of_it.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// **Never lost**: what was confirmed and surely not removed was found at the end.
    pub(crate) fn check_found(&self) {
        let lost: Vec<_> = self
            .messages
            .iter()
            .filter(|(_, m)| m.confirmed.is_some() && m.lasting && m.doubts == 0 && !m.found)
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    }

    pub(crate) fn serve(&mut self, what: &'static str) {
        *self.served.entry(what).or_default() += 1;
    }
}
