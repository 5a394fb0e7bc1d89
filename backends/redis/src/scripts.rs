//! The atomic steps: one Lua file each, one function each. The head of each file says what goes in and what comes out.
//!
//! A script is called by its digest and sent once where the server does not know it yet. A queue that is not settled
//! makes a script answer nil: then it is called again, until the store's time is over.

use std::time::Duration;

use isimud_contract::{
    ByteCount, Claim, ClaimId, Error, ErrorKind, ImportedClaim, Lease, Message, MessageId,
    Precondition, Resource, Result, Stands, Timestamp,
};
use redis::Value;

use crate::call::{Call, Source};
use crate::config::Time;
use crate::deadline::{Deadline, ServerClock};
use crate::error::{strange, too_late};
use crate::keys::Keys;
use crate::reconnecting::ReconnectingConnection;
use crate::value::{Answer, encode, millis, number, terms};

/// Declares scripts, each of one or several files.
macro_rules! scripts {
    ($($visible:vis $name:ident: $($file:literal)+;)*) => {$(
        $visible static $name: ::std::sync::LazyLock<$crate::call::Source> = ::std::sync::LazyLock::new(|| {
            $crate::call::Source::new(concat!($(include_str!(concat!("scripts/", $file)), "\n"),+))
        });
    )*};
}
pub(crate) use scripts;

scripts! {
    POST: "common.lua" "post.lua";
    LIST: "common.lua" "list.lua";
    GET: "common.lua" "get.lua";
    DELETE: "common.lua" "delete.lua";
    POP: "common.lua" "pop.lua";
    CLAIM: "common.lua" "claim.lua";
    FIND_CLAIM: "common.lua" "find_claim.lua";
    RENEW_CLAIM: "common.lua" "renew_claim.lua";
    RELEASE_CLAIM: "common.lua" "release_claim.lua";
    IMPORT_CLAIM: "common.lua" "import_claim.lua";
    STATS: "common.lua" "stats.lua";
    COUNT_BYTES: "common.lua" "count_bytes.lua";
    SWEEP: "common.lua" "sweep.lua";
    DROP_QUEUE: "common.lua" "drop_queue.lua";
    LEDGER_LIST: "common.lua" "ledger.lua" "list.lua";
    LEDGER_GET: "common.lua" "ledger.lua" "get.lua";
    LEDGER_FIND_CLAIM: "common.lua" "ledger.lua" "find_claim.lua";
    LEDGER_IMPORT_CLAIM: "common.lua" "ledger.lua" "import_claim.lua";
    LEDGER_STATS: "common.lua" "ledger.lua" "stats.lua";
    LEDGER_COUNT_BYTES: "common.lua" "ledger.lua" "count_bytes.lua";
    LEDGER_SWEEP: "common.lua" "ledger.lua" "ledger_sweep.lua";
    LEASE: "lease.lua";
    SWEEP_SCHEDULE: "sweep_schedule.lua";
}

/// Messages of one kind (free, claimed, delayed) that one step of a count of bytes passes: about half a millisecond of the
/// server's time.
const COUNT_STEP: usize = 1_000;

/// Calls about one store's queues.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) link: ReconnectingConnection,
    /// Where posts wait for more than their answer, if they do.
    pub(crate) waiting: Option<ReconnectingConnection>,
    pub(crate) time: Time,
}

/// What a claim took, and what it could only set aside.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) messages: Vec<Message>,
    pub(crate) exceeded: Vec<Message>,
}

/// Where the messages go that were claimed too often.
#[derive(Debug)]
pub(crate) enum Target {
    /// There is no policy.
    None,
    /// Into a queue that the same script can reach.
    Near(Keys),
    /// Under a claim of this name, from which the caller moves them.
    Far(ClaimId, Duration),
}

/// How a part of a listing is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk<'a> {
    /// Messages to walk over.
    pub(crate) count: usize,
    /// How many of them are wanted.
    pub(crate) wanted: usize,
    /// Whose messages are left out, if it is not empty.
    pub(crate) own: &'a [u8],
    /// Which besides the free ones: `c` claimed, `d` delayed.
    pub(crate) which: &'a str,
}

/// Whether there is more behind a part of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    No,
    Perhaps,
    /// There is, and the part had no room for it in bytes.
    HadNoRoom,
}

/// A part of a listing.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) answer: Answer,
    pub(crate) now: Timestamp,
    /// The rank of the last message walked over.
    pub(crate) last: u64,
    pub(crate) more: More,
    /// The rank of the last message of the part.
    pub(crate) marker: u64,
}

impl Scripts {
    /// Calls until the queue is settled, each time at the present moment.
    pub(crate) async fn settled(
        &self,
        call: impl Fn() -> Result<Call> + Send + Sync,
    ) -> Result<Value> {
        self.link
            .in_time(async {
                loop {
                    match self.link.run(call()?).await? {
                        Value::Nil => {}
                        answer => return Ok(answer),
                    }
                }
            })
            .await
    }

    /// The same for a call that must not be carried out when nobody waits for it any more.
    pub(crate) async fn settled_by(
        &self,
        call: impl Fn(&str) -> Result<Call> + Send + Sync,
    ) -> Result<Value> {
        let link = &self.link;
        let run = |call| link.run(call);
        link.in_time(by(&link.clock, link.deadline(), &call, run))
            .await
    }

    /// A call about a queue.
    pub(crate) fn on(&self, source: &'static Source, keys: &Keys) -> Call {
        Call::on_queues(source, &self.time, std::iter::once(keys))
    }

    /// Posts messages; `false` where the queue would have more than `most` then.
    pub(crate) async fn post(
        &self,
        keys: &Keys,
        messages: &[Message],
        most: Option<u64>,
    ) -> Result<bool> {
        let bound = most.map(|most| most.to_string()).unwrap_or_default();
        let call = |deadline: &str| {
            let mut call = self.on(&POST, keys).bytes(bound.as_bytes());
            call = call.bytes(deadline.as_bytes());
            for message in messages {
                call.command
                    .arg(message.id.0.as_bytes())
                    .arg(&terms(message)[..])
                    .arg(encode(message)?);
            }
            Ok::<_, Error>(call)
        };
        let answer = match &self.waiting {
            None => self.settled_by(call).await?,
            Some(link) => {
                let run = |call| Box::pin(link.run_and_wait(call));
                link.in_time(by(&link.clock, link.deadline(), &call, run))
                    .await?
            }
        };
        Ok(answer != Value::Int(0))
    }

    pub(crate) async fn list(&self, keys: &Keys, after: &[u8], walk: Walk<'_>) -> Result<Part> {
        let call = || {
            let source = keys.pick(&LIST, &LEDGER_LIST);
            let call = self.on(source, keys).bytes(after).number(walk.count);
            let call = call.number(walk.wanted).bytes(walk.own);
            Ok(call.bytes(walk.which.as_bytes()))
        };
        let mut answer = Answer::new(self.settled(call).await?)?;
        Ok(Part {
            now: answer.moment()?,
            last: answer.count()? as u64,
            more: match answer.number()? {
                0 => More::No,
                1 => More::Perhaps,
                _ => More::HadNoRoom,
            },
            marker: answer.count()? as u64,
            answer,
        })
    }

    pub(crate) async fn get(&self, keys: &Keys, ids: &[MessageId]) -> Result<Vec<Message>> {
        let call = || Ok(self.on(keys.pick(&GET, &LEDGER_GET), keys).ids(ids));
        let mut answer = Answer::new(self.settled(call).await?)?;
        let now = answer.moment()?;
        answer.messages(now)
    }

    pub(crate) async fn delete(
        &self,
        keys: &Keys,
        ids: &[MessageId],
        precondition: &Precondition,
    ) -> Result<usize> {
        let (word, claims): (&str, &[ClaimId]) = match precondition {
            Precondition::None => ("any", &[]),
            Precondition::Unclaimed => ("free", &[]),
            Precondition::ClaimedBy(claims) => ("held", claims),
        };
        let call = || {
            let mut call = self.on(&DELETE, keys).bytes(word.as_bytes());
            call = call.number(claims.len());
            for claim in claims {
                call = call.bytes(claim.0.as_bytes());
            }
            Ok(call.ids(ids))
        };
        match number(&self.settled(call).await?)? {
            -1 => Err(Error::new(ErrorKind::Claimed, "a claim holds the message")),
            -2 => Err(Error::new(
                ErrorKind::NotClaimed,
                "the message is not claimed",
            )),
            -3 => Err(Error::not_found(Resource::Claim)),
            count => usize::try_from(count).map_err(|_| strange()),
        }
    }

    pub(crate) async fn pop(&self, keys: &Keys, limit: usize) -> Result<Vec<Message>> {
        let call = |deadline: &str| {
            let call = self.on(&POP, keys).number(limit);
            Ok(call.bytes(deadline.as_bytes()))
        };
        let mut answer = Answer::new(self.settled_by(call).await?)?;
        let now = answer.moment()?;
        answer.messages(now)
    }

    pub(crate) async fn claim(
        &self,
        keys: &Keys,
        lease: &Lease,
        limit: usize,
        target: &Target,
    ) -> Result<Taken> {
        let call = |deadline: &str| {
            let target_keys = match target {
                Target::Near(keys) => Some(keys),
                _ => None,
            };
            let both = std::iter::once(keys).chain(target_keys);
            let mut call = Call::on_queues(&CLAIM, &self.time, both)
                .bytes(lease.id.0.as_bytes())
                .float(millis(lease.ttl))
                .float(millis(lease.grace))
                .number(limit);
            let policy = lease.dead_letter.as_ref();
            let most = policy.map(|policy| policy.max_claims.to_string());
            let life = policy.and_then(|policy| policy.ttl).map(millis);
            call = call.bytes(most.unwrap_or_default().as_bytes());
            call = match life {
                Some(life) => call.float(life),
                None => call.bytes(b""),
            };
            let stands = match policy.map(|policy| policy.stands) {
                Some(Stands::InPlace) => "=".to_owned(),
                Some(Stands::Last(number)) => number.to_string(),
                None => String::new(),
            };
            call = call.bytes(stands.as_bytes()).bytes(deadline.as_bytes());
            if let Target::Far(claim, ttl) = target {
                call = call.bytes(claim.0.as_bytes()).float(millis(*ttl));
            }
            Ok(call)
        };
        let mut answer = Answer::new(self.settled_by(call).await?)?;
        let now = answer.moment()?;
        let count = answer.count()?;
        Ok(Taken {
            messages: answer.some(count, now)?,
            exceeded: answer.messages(now)?,
        })
    }

    /// A live claim: its ttl, its age, its messages.
    pub(crate) async fn find_claim(&self, keys: &Keys, claim: ClaimId) -> Result<Option<Claim>> {
        let call = || {
            Ok(self
                .on(keys.pick(&FIND_CLAIM, &LEDGER_FIND_CLAIM), keys)
                .bytes(claim.0.as_bytes()))
        };
        let mut answer = Answer::new(self.settled(call).await?)?;
        let now = answer.moment()?;
        if answer.left() == 0 {
            return Ok(None);
        }
        Ok(Some(Claim {
            id: claim,
            ttl: Duration::from_millis(answer.number()?.unsigned_abs()),
            age: now.since(answer.moment()?),
            messages: answer.messages(now)?,
        }))
    }

    pub(crate) async fn renew_claim(&self, keys: &Keys, lease: &Lease) -> Result<bool> {
        let call = || {
            let call = self.on(&RENEW_CLAIM, keys).bytes(lease.id.0.as_bytes());
            Ok(call.float(millis(lease.ttl)).float(millis(lease.grace)))
        };
        Ok(number(&self.settled(call).await?)? == 1)
    }

    /// Ends a claim, which counts as a delivery unless it is undone.
    pub(crate) async fn release_claim(
        &self,
        keys: &Keys,
        claim: ClaimId,
        is_undone: bool,
    ) -> Result<()> {
        let call = || {
            let call = self.on(&RELEASE_CLAIM, keys).bytes(claim.0.as_bytes());
            Ok(call.number(usize::from(is_undone)))
        };
        self.settled(call).await?;
        Ok(())
    }

    pub(crate) async fn import_claim(
        &self,
        keys: &Keys,
        claim: ImportedClaim,
        ids: &[MessageId],
    ) -> Result<usize> {
        let call = || {
            let call = self
                .on(keys.pick(&IMPORT_CLAIM, &LEDGER_IMPORT_CLAIM), keys)
                .bytes(claim.id.0.as_bytes());
            let call = call.float(millis(claim.ttl)).float(millis(claim.age));
            Ok(call.ids(ids))
        };
        let held = number(&self.settled(call).await?)?;
        usize::try_from(held).map_err(|_| strange())
    }

    pub(crate) async fn drop_queue(&self, keys: &Keys) -> Result<()> {
        self.plain(self.on(&DROP_QUEUE, keys)).await.map(drop)
    }

    pub(crate) async fn stats(&self, keys: &Keys) -> Result<Answer> {
        Answer::new(
            self.settled(|| Ok(self.on(keys.pick(&STATS, &LEDGER_STATS), keys)))
                .await?,
        )
    }

    /// One step of a count of bytes, behind a rank.
    pub(crate) async fn count_bytes(&self, keys: &Keys, after: Option<u64>) -> Result<ByteCount> {
        let after = after.map(|rank| rank.to_string()).unwrap_or_default();
        let call = || {
            let source = keys.pick(&COUNT_BYTES, &LEDGER_COUNT_BYTES);
            let call = self.on(source, keys).bytes(after.as_bytes());
            Ok(call.number(COUNT_STEP))
        };
        let mut answer = Answer::new(self.settled(call).await?)?;
        Ok(ByteCount {
            bytes: answer.count()? as u64,
            next: match answer.left() {
                0 => None,
                _ => Some(answer.count()? as u64),
            },
        })
    }

    /// One step; whether the queue is settled, and when something ends next.
    pub(crate) async fn sweep(&self, keys: &Keys) -> Result<(bool, Option<Timestamp>)> {
        let run = self
            .link
            .run(self.on(keys.pick(&SWEEP, &LEDGER_SWEEP), keys));
        let mut answer = Answer::new(self.link.in_time(run).await?)?;
        let settled = answer.number()? == 1;
        let next = (answer.left() > 0).then(|| answer.moment()).transpose()?;
        Ok((settled, next))
    }

    /// Whether the lease of the sweep is this server's for so long.
    pub(crate) async fn lease(&self, key: String, who: &str, span: Duration) -> Result<bool> {
        let call = Call::new(&LEASE, &[&[key]])
            .bytes(who.as_bytes())
            .number(span.as_millis() as usize);
        self.plain(call).await.map(|answer| answer == 1)
    }

    /// Puts a queue's next sweep off, or strikes it off, unless its score has changed.
    pub(crate) async fn put_off(
        &self,
        key: String,
        tag: &str,
        old: i64,
        new: Option<i64>,
    ) -> Result<()> {
        let new = new.map(|new| new.to_string()).unwrap_or_default();
        let call = Call::new(&SWEEP_SCHEDULE, &[&[key]])
            .bytes(tag.as_bytes())
            .bytes(old.to_string().as_bytes())
            .bytes(new.as_bytes());
        self.plain(call).await.map(drop)
    }

    /// Runs a script that answers with a number.
    pub(crate) async fn plain(&self, call: Call) -> Result<i64> {
        number(&self.answer(call).await?)
    }

    /// Runs a script that needs no settled queue.
    pub(crate) async fn answer(&self, call: Call) -> Result<Value> {
        // Boxed, for callers are many futures deep and none of them is in a hurry.
        Box::pin(self.link.in_time(self.link.run(call))).await
    }
}

/// Calls until the queue is settled, each time with the deadline by the server's clock.
async fn by<F: Future<Output = Result<Value>>>(
    clock: &ServerClock,
    deadline: Deadline,
    call: &(impl Fn(&str) -> Result<Call> + Sync),
    run: impl Fn(Call) -> F,
) -> Result<Value> {
    loop {
        match run(call(&deadline.of(clock))?).await? {
            Value::Nil => {}
            // It is too late, or the server's clock was thought to be behind what it is.
            Value::BulkString(moment) => {
                clock.advance(number(&Value::BulkString(moment))?);
                if deadline.is_over() {
                    return Err(too_late());
                }
            }
            answer => return Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Calls a server whose clock shows this, whatever it was thought to show.
    async fn call(clock: &ServerClock, shows: i64, takes: Duration) -> (Result<Value>, usize) {
        let calls = Mutex::new(0);
        let make = |deadline: &str| Ok(Call::new::<&str>(&LEASE, &[]).bytes(deadline.as_bytes()));
        let run = |call: Call| async {
            *calls.lock().unwrap() += 1;
            tokio::time::advance(takes).await;
            let call = call;
            let arguments: Vec<_> = call.command.args_iter().collect();
            let Some(redis::Arg::Simple(deadline)) = arguments.last() else {
                panic!("a call says until when it may be carried out");
            };
            let deadline: i64 = std::str::from_utf8(deadline).unwrap().parse().unwrap();
            Ok(match deadline < shows {
                true => Value::BulkString(shows.to_string().into_bytes()),
                false => Value::Int(1),
            })
        };
        let deadline = Deadline::after(Duration::from_secs(2));
        let answer = by(clock, deadline, &make, run).await;
        (answer, calls.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_clock_was_set_forward_is_asked_once_more() {
        let clock = ServerClock::unknown();
        clock.set(0);
        let (answer, calls) = call(&clock, 3_600_000, Duration::from_millis(1)).await;
        assert_eq!((answer.unwrap(), calls), (Value::Int(1), 2));
        let (answer, calls) = call(&clock, 3_600_000, Duration::from_millis(1)).await;
        assert_eq!((answer.unwrap(), calls), (Value::Int(1), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_comes_too_late_is_not_made_again() {
        let clock = ServerClock::unknown();
        clock.set(0);
        let (answer, calls) = call(&clock, 3_600_000, Duration::from_secs(2)).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(calls, 1);
    }
}
