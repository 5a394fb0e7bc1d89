//! What clients do. Each scenario is a cycle of requests against a queue that is prepared outside the window.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;

use crate::Result;
use crate::drive::{Load, Outcome, Pool};
use crate::wire::Connection;
use crate::zaqar::{BATCH, Queue, request};

/// Messages in the younger queue that stands beside every measured one.
const NEIGHBOURS: u64 = BATCH as u64;

/// Messages in the queue that `list` and `get` read.
const SHELF: u64 = 1_000;

/// Messages on a page of `list`.
const PAGE: usize = 10;

/// Long enough for every window, short enough not to extend a message's life.
const CLAIM_TTL_SECS: u32 = 300;

/// A client's habit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    Post,
    Post10,
    #[value(name = "claim+delete")]
    ClaimDelete,
    #[value(name = "claim10+delete10")]
    Claim10Delete10,
    #[value(name = "claim10+bulk")]
    Claim10Bulk,
    List,
    Pop,
    Get,
}

impl Scenario {
    /// The heading of the scenario's table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Post => "post: one message",
            Self::Post10 => "post10: ten messages in one request",
            Self::ClaimDelete => "claim+delete: claim one message, delete it",
            Self::Claim10Delete10 => "claim10+delete10: claim ten messages, delete each",
            Self::Claim10Bulk => "claim10+bulk: claim ten messages, delete them in one request",
            Self::List => "list: a random page of ten of a thousand messages",
            Self::Pop => "pop: one message",
            Self::Get => "get: one message by id, of a thousand",
        }
    }

    /// What a cycle does to the number of messages in the queue.
    fn balance(self) -> i64 {
        match self {
            Self::Post => 1,
            Self::Post10 => 10,
            Self::ClaimDelete | Self::Pop => -1,
            Self::Claim10Delete10 | Self::Claim10Bulk => -10,
            Self::List | Self::Get => 0,
        }
    }
}

/// A scenario with its queue, ready to be played.
#[derive(Debug)]
pub(crate) struct Stage {
    act: Arc<Act>,
    neighbour: Queue,
    filled: u64,
    /// Cycles played, warm-up included.
    played: AtomicU64,
    /// Those of them that were refused.
    refused: Arc<AtomicU64>,
}

/// What the connections share while they play.
#[derive(Debug)]
struct Act {
    scenario: Scenario,
    queue: Queue,
    /// What a cycle may begin with; each takes one at random.
    openings: Vec<Vec<u8>>,
    /// Counts the pops that were refused, where that is no error.
    refused: Option<Arc<AtomicU64>>,
}

impl Stage {
    /// Fills a fresh queue with what the scenario needs. `stock` is for those that use messages up.
    ///
    /// The reference refuses pops that meet each other (`faltering`): these are counted as answered.
    pub(crate) async fn set(
        scenario: Scenario,
        pool: &mut Pool,
        stock: u64,
        faltering: bool,
    ) -> Result<Self> {
        let queue = Queue::fresh();
        let wanted = match scenario.balance() {
            1.. => BATCH as u64,
            0 => SHELF,
            _ => stock,
        };
        let filled = fill(pool, &queue, wanted).await?;
        let neighbour = neighbour(pool).await?;
        let openings = match scenario {
            Scenario::Post => vec![queue.post(1)],
            Scenario::Post10 => vec![queue.post(10)],
            Scenario::ClaimDelete => vec![queue.claim(1, CLAIM_TTL_SECS)],
            Scenario::Claim10Delete10 | Scenario::Claim10Bulk => {
                vec![queue.claim(10, CLAIM_TTL_SECS)]
            }
            Scenario::Pop => vec![queue.pop(1)],
            Scenario::List => walk(pool, &queue).await?.pages,
            Scenario::Get => walk(pool, &queue).await?.messages,
        };
        let refused = Arc::<AtomicU64>::default();
        let act = Act {
            scenario,
            queue,
            openings,
            refused: faltering.then(|| Arc::clone(&refused)),
        };
        Ok(Self {
            act: Arc::new(act),
            neighbour,
            filled,
            played: AtomicU64::new(0),
            refused,
        })
    }

    /// How many requests were refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Plays until the time is up or the stock is used up.
    pub(crate) async fn play(&self, pool: &mut Pool, time: Duration) -> Result<Outcome> {
        let cycles = match self.act.scenario.balance() {
            0.. => u64::MAX,
            taken => self.filled / taken.unsigned_abs() - self.played.load(Ordering::Relaxed),
        };
        if cycles == 0 {
            return Err("the stock was used up before the window began: raise --stock".into());
        }
        let outcome = pool.drive(&self.act, cycles, time).await?;
        self.played.fetch_add(outcome.cycles, Ordering::Relaxed);
        Ok(outcome)
    }

    /// Removes the queue; a server that `keeps` messages is first asked whether it counts the right number of them.
    pub(crate) async fn clear(self, pool: &mut Pool, keeps: bool) -> Result<()> {
        let queue = &self.act.queue;
        if keeps && self.refused() == 0 {
            let played = self.played.load(Ordering::Relaxed).cast_signed();
            let total = self
                .filled
                .saturating_add_signed(played * self.act.scenario.balance());
            pool.first()
                .exchange(&queue.stats())
                .await?
                .counted(total)?;
        }
        for queue in [queue, &self.neighbour] {
            pool.first().exchange(&queue.remove()).await?.done()?;
        }
        Ok(())
    }
}

impl Load for Act {
    async fn cycle(&self, connection: &mut Connection) -> Result<()> {
        let opening = &self.openings[fastrand::usize(..self.openings.len())];
        let answer = connection.exchange(opening).await?;
        if let (Scenario::Pop, Some(refused), 503) = (self.scenario, &self.refused, answer.status) {
            refused.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        match self.scenario {
            Scenario::Post => drop(answer.posted(1)?),
            Scenario::Post10 => drop(answer.posted(10)?),
            Scenario::List => answer.shown(PAGE)?,
            Scenario::Pop | Scenario::Get => answer.shown(1)?,
            Scenario::ClaimDelete | Scenario::Claim10Delete10 => {
                let claimed = answer.claimed(self.scenario.balance().unsigned_abs() as usize)?;
                for id in claimed.ids {
                    let delete = self.queue.delete_claimed(&id, &claimed.claim);
                    connection.exchange(&delete).await?.done()?;
                }
            }
            Scenario::Claim10Bulk => {
                let delete = self.queue.delete_all(&answer.claimed(10)?.ids);
                connection.exchange(&delete).await?.done()?;
            }
        }
        Ok(())
    }
}

/// Posts at least `count` messages, in whole batches; returns how many.
pub(crate) async fn fill(pool: &mut Pool, queue: &Queue, count: u64) -> Result<u64> {
    let batches = count.div_ceil(BATCH as u64);
    let fill = Fill(queue.post(BATCH));
    pool.drive_all(&Arc::new(fill), batches).await?;
    Ok(batches * BATCH as u64)
}

/// Makes a queue younger than those that are there. A store that keeps all queues in one tree would otherwise append
/// at its end, which is cheaper than what a service of many queues sees.
pub(crate) async fn neighbour(pool: &mut Pool) -> Result<Queue> {
    let queue = Queue::fresh();
    fill(pool, &queue, NEIGHBOURS).await?;
    Ok(queue)
}

/// The post of one batch.
#[derive(Debug)]
struct Fill(Vec<u8>);

impl Load for Fill {
    async fn cycle(&self, connection: &mut Connection) -> Result<()> {
        connection.exchange(&self.0).await?.posted(BATCH)?;
        Ok(())
    }
}

/// The requests for every page and for every message of a queue.
#[derive(Debug, Default)]
struct Walk {
    pages: Vec<Vec<u8>>,
    messages: Vec<Vec<u8>>,
}

/// Follows the `next` links of a queue of [`SHELF`] messages, as a client would.
async fn walk(pool: &mut Pool, queue: &Queue) -> Result<Walk> {
    let mut walk = Walk::default();
    let mut page = queue.list();
    for _ in 0..SHELF as usize / PAGE {
        let answer = pool.first().exchange(&page).await?;
        answer.shown(PAGE)?;
        walk.messages.extend(answer.ids().map(|id| queue.get(id)));
        let next = answer.next_link().ok_or("a page has no next link")?;
        let next = request("GET", next, None);
        walk.pages.push(std::mem::replace(&mut page, next));
    }
    Ok(walk)
}
