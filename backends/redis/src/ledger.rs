//! The ledger: who holds a message of a broker that can only lease. Each method is one script.
//!
//! A queue of a scope has the keys of a queue of messages, for what has a row and is live, and five more (see the crate's
//! docs): so reading, listing, counting and claims are the same scripts, and what ends by itself is settled in the same
//! way. What is deleted or expired leaves a tombstone, an id and a moment, for as long as a copy may be alive.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use isimud_contract::{
    ByteCount, Claim, ClaimId, Delivery, Epoch, Error, ErrorKind, ImportedClaim, Lease, Ledger,
    Message, MessageId, MessageStore, Page, Precondition, Purpose, QueueKey, Receipt, Renewed,
    Resource, Result, Selection, Stats, Timestamp, UnknownIds, Verdict,
};
use redis::Value;
use uuid::Uuid;

use crate::call::{Call, Source};
use crate::error::strange;
use crate::keys::{Keys, ledger_tag};
use crate::scripts::scripts;
use crate::store::RedisStore;
use crate::sweep::SweepSchedule;
use crate::value::{Answer, Mark, NAMELESS, encode, millis, number, put_together, terms};

scripts! {
    RECORD: "common.lua" "ledger.lua" "ledger_record.lua";
    GRANT: "common.lua" "ledger.lua" "grant.lua";
    RENEW: "common.lua" "ledger.lua" "ledger_renew.lua";
    RELEASE: "common.lua" "ledger.lua" "ledger_release.lua";
    DELETE: "common.lua" "ledger.lua" "ledger_delete.lua";
    FORGET: "common.lua" "ledger.lua" "ledger_forget.lua";
    PURGE: "common.lua" "ledger.lua" "ledger_purge.lua";
}

/// The ledger of one scope. It lives as long as the store, and closes with it.
#[derive(Debug)]
struct RedisLedger {
    store: Arc<RedisStore>,
    scope: String,
    sweep_schedule: SweepSchedule,
}

impl RedisStore {
    /// The ledger of a pool whose broker can only lease, kept in this store. All ledgers of one scope are one, on all
    /// servers.
    pub fn ledger(self: &Arc<Self>, scope: &str) -> Arc<dyn Ledger> {
        Arc::new(RedisLedger {
            store: Arc::clone(self),
            scope: scope.to_owned(),
            sweep_schedule: SweepSchedule::default(),
        })
    }
}

impl RedisLedger {
    fn keys(&self, queue: &QueueKey) -> Keys {
        self.store.names.ledger(&self.scope, queue)
    }

    fn on(&self, source: &'static Source, keys: &Keys) -> Call {
        self.store.scripts.on(source, keys)
    }

    /// Sees to it that the queue is swept now and then.
    async fn enter(&self, queue: &QueueKey) {
        if self.sweep_schedule.is_news(queue) {
            let tag = ledger_tag(&self.scope, queue);
            crate::sweep::enter(&self.store, &self.sweep_schedule, queue, &tag).await;
        }
    }
}

impl RedisLedger {
    /// Ends a claim, which counts as a delivery unless it is undone.
    async fn end_claim(
        &self,
        queue: &QueueKey,
        claim: ClaimId,
        is_undone: bool,
    ) -> Result<Vec<Receipt>> {
        let keys = self.keys(queue);
        let call = || {
            let call = self.on(&RELEASE, &keys).bytes(claim.0.as_bytes());
            Ok(call.number(usize::from(is_undone)))
        };
        read_receipts(Answer::new(self.store.scripts.settled(call).await?)?)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Ledger for RedisLedger {
    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }

    async fn record(
        &self,
        queue: &QueueKey,
        epoch: Option<Epoch>,
        now: Timestamp,
        posted: &[Message],
    ) -> Result<Epoch> {
        let keys = self.keys(queue);
        let known = epoch.map(|epoch| epoch.0.to_string()).unwrap_or_default();
        let call = || {
            let mut call = self.on(&RECORD, &keys).bytes(known.as_bytes()).moment(now);
            for message in posted {
                call = call.bytes(message.id.0.as_bytes()).bytes(&terms(message));
                call = call.bytes(&encode(message)?);
            }
            Ok(call)
        };
        let present = number(&self.store.scripts.settled(call).await?)?;
        let present = Epoch(present.unsigned_abs());
        if epoch == Some(present) && !posted.is_empty() {
            self.enter(queue).await;
        }
        Ok(present)
    }

    async fn grant(
        &self,
        queue: &QueueKey,
        purpose: Purpose<'_>,
        limit: usize,
        now: Timestamp,
        got: &[Delivery],
    ) -> Result<Vec<Verdict>> {
        if got.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys(queue);
        let call = |deadline: &str| {
            let call = self.on(&GRANT, &keys);
            grant(call, queue, purpose, limit, (now, deadline), got)
        };
        let mut answer = Answer::new(self.store.scripts.settled_by(call).await?)?;
        self.enter(queue).await;
        let now = answer.moment()?;
        got.iter()
            .map(|delivery| read_verdict(answer.value()?, delivery, now))
            .collect()
    }

    async fn renew(&self, queue: &QueueKey, lease: &Lease, now: Timestamp) -> Result<Renewed> {
        let keys = self.keys(queue);
        let call = || {
            let call = self.on(&RENEW, &keys).bytes(lease.id.0.as_bytes());
            let call = call.float(millis(lease.ttl)).float(millis(lease.grace));
            Ok(call.moment(now))
        };
        match self.store.scripts.settled(call).await? {
            Value::Int(_) => Err(Error::not_found(Resource::Claim)),
            answer => read_renewed(Answer::new(answer)?),
        }
    }

    async fn release(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>> {
        self.end_claim(queue, claim, false).await
    }

    async fn undo(&self, queue: &QueueKey, claim: ClaimId) -> Result<Vec<Receipt>> {
        self.end_claim(queue, claim, true).await
    }

    async fn delete(
        &self,
        queue: &QueueKey,
        ids: &[MessageId],
        precondition: Precondition,
        unknown_ids: UnknownIds,
    ) -> Result<(usize, Vec<Receipt>)> {
        let keys = self.keys(queue);
        let (word, claims): (&str, &[ClaimId]) = match &precondition {
            Precondition::None => ("any", &[]),
            Precondition::Unclaimed => ("free", &[]),
            Precondition::ClaimedBy(claims) => ("held", claims),
        };
        let call = || {
            let mut call = self.on(&DELETE, &keys).bytes(word.as_bytes());
            call = call.number(usize::from(unknown_ids == UnknownIds::Reject));
            call = call.number(claims.len());
            for claim in claims {
                call = call.bytes(claim.0.as_bytes());
            }
            Ok(call.ids(ids))
        };
        let refused = |kind, sentence: &'static str| Err(Error::new(kind, sentence));
        match self.store.scripts.settled(call).await? {
            Value::Int(-1) => refused(ErrorKind::Claimed, "a claim holds the message"),
            Value::Int(-2) => refused(ErrorKind::NotClaimed, "the message is not claimed"),
            Value::Int(-3) => Err(Error::not_found(Resource::Claim)),
            Value::Int(-4) => refused(ErrorKind::Unsupported, "the message may exist unclaimed"),
            answer => {
                let mut answer = Answer::new(answer)?;
                Ok((answer.count()?, read_receipts(answer)?))
            }
        }
    }

    async fn import_claim(
        &self,
        queue: &QueueKey,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        if ids.is_empty() {
            return Ok(0);
        }
        let scripts = &self.store.scripts;
        scripts.import_claim(&self.keys(queue), claim, ids).await
    }

    async fn find_claim(&self, queue: &QueueKey, claim: ClaimId) -> Result<Claim> {
        let scripts = &self.store.scripts;
        let found = scripts.find_claim(&self.keys(queue), claim).await?;
        found.ok_or_else(|| Error::not_found(Resource::Claim))
    }

    async fn get(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<Vec<Message>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.store.scripts.get(&self.keys(queue), ids).await
    }

    async fn list(&self, queue: &QueueKey, selection: Selection) -> Result<Page> {
        self.store.list_on(&self.keys(queue), selection).await
    }

    async fn stats(&self, queue: &QueueKey) -> Result<Stats> {
        self.store.stats_on(&self.keys(queue)).await
    }

    async fn count_bytes(&self, queue: &QueueKey, after: Option<u64>) -> Result<ByteCount> {
        let scripts = &self.store.scripts;
        scripts.count_bytes(&self.keys(queue), after).await
    }

    async fn forget(&self, queue: &QueueKey, ids: &[MessageId]) -> Result<usize> {
        if ids.is_empty() {
            return Ok(0);
        }
        let keys = self.keys(queue);
        let call = || Ok(self.on(&FORGET, &keys).ids(ids));
        let count = number(&self.store.scripts.settled(call).await?)?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    async fn purge(&self, queue: &QueueKey) -> Result<()> {
        let keys = self.keys(queue);
        let call = || Ok(self.on(&PURGE, &keys));
        self.store.scripts.settled(call).await.map(drop)
    }
}

/// The call of a judgement.
fn grant(
    call: Call,
    queue: &QueueKey,
    purpose: Purpose<'_>,
    limit: usize,
    (now, deadline): (Timestamp, &str),
    got: &[Delivery],
) -> Result<Call> {
    let (word, lease) = match purpose {
        Purpose::Claim(lease) => ("claim", Some(lease)),
        Purpose::More(lease) => ("more", Some(lease)),
        Purpose::Pop => ("pop", None),
    };
    let policy = lease.and_then(|lease| lease.dead_letter.as_ref());
    let most = policy.map(|policy| policy.max_claims.to_string());
    let itself = policy.is_some_and(|policy| policy.queue == *queue);
    let mut call = call.bytes(word.as_bytes());
    call = match lease {
        Some(lease) => call
            .bytes(lease.id.0.as_bytes())
            .float(millis(lease.ttl))
            .float(millis(lease.grace)),
        None => call.bytes(b"").bytes(b"").bytes(b""),
    };
    let mut nameless = [b'n'; NAMELESS];
    nameless[1..].copy_from_slice(Uuid::new_v4().as_bytes());
    call = call
        .bytes(most.unwrap_or_default().as_bytes())
        .number(usize::from(itself))
        .bytes(&nameless)
        .number(limit)
        .moment(now)
        .bytes(deadline.as_bytes());
    for delivery in got {
        let message = &delivery.message;
        let posted = (delivery.posted.0 as f64).to_be_bytes();
        let awaits = [u8::from(delivery.awaits_record)];
        call = call
            .bytes(message.id.0.as_bytes())
            .bytes(&[&terms(message)[..], &posted, &awaits].concat())
            .bytes(&encode(message)?)
            .bytes(&delivery.receipt.0);
    }
    Ok(call)
}

fn read_verdict(verdict: Value, delivery: &Delivery, now: Timestamp) -> Result<Verdict> {
    let mut verdict = Answer::new(verdict)?;
    let word = verdict.blob()?;
    Ok(match &word[..] {
        b"granted" => Verdict::Granted {
            message: read_judged(&mut verdict, delivery, now)?,
            longer: verdict.number()? == 1,
        },
        b"spent" => Verdict::DeliveryLimitExceeded(read_judged(&mut verdict, delivery, now)?),
        b"free" => Verdict::Free,
        b"held" => Verdict::Held(Duration::from_millis(verdict.number()?.unsigned_abs())),
        b"gone" => Verdict::Gone,
        _ => return Err(strange()),
    })
}

/// A message that was judged: the row's, or where it had none the delivery's as it is now.
fn read_judged(verdict: &mut Answer, delivery: &Delivery, now: Timestamp) -> Result<Message> {
    let value = verdict.blob()?;
    let mark = Mark::read(verdict.blob()?.into())?;
    let posted = &delivery.message;
    if !value.is_empty() {
        return put_together(posted.id, value.into(), mark, now);
    }
    Ok(Message {
        ttl: mark.ttl.map_or(posted.ttl, Duration::from_millis),
        age: now.since(delivery.posted.before(posted.age)),
        remaining_ttl: mark.ends.ok_or_else(strange)?.since(now),
        delay: Duration::ZERO,
        claim: mark.claim,
        claim_count: mark.count,
        ..posted.clone()
    })
}

fn read_renewed(mut answer: Answer) -> Result<Renewed> {
    let now = answer.moment()?;
    let count = answer.count()?;
    let mut renewed = Renewed::default();
    for _ in 0..count {
        renewed.receipts.push(Receipt(answer.blob()?.into()));
    }
    while answer.left() > 0 {
        let messages = answer.some(1, now)?;
        let receipt = answer.blob()?;
        let receipt = receipt.strip_prefix(b"r").map(<[u8]>::to_vec);
        let receipt = receipt.map(|bytes| Receipt(bytes.into()));
        let longer = messages
            .into_iter()
            .map(|message| (message, receipt.clone()));
        renewed.longer.extend(longer);
    }
    Ok(renewed)
}

fn read_receipts(mut answer: Answer) -> Result<Vec<Receipt>> {
    let mut receipts = Vec::with_capacity(answer.left());
    while answer.left() > 0 {
        receipts.push(Receipt(answer.blob()?.into()));
    }
    Ok(receipts)
}
