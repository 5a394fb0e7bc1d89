//! Requests of several entries, each of which has an outcome of its own.
//!
//! The client repeats a request that got no answer; what an answer says of single entries is for us. An entry that
//! failed by no fault of its own is sent again, with the others that did, until there is no time left.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::BatchResultErrorEntry;
use isimud_contract::{Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::batching::BatchSender;
use crate::error::{Fault, What, again, by_code, refused, strange, too_late};

/// The pause before what failed is sent again; each further one is twice as long.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// One of SQS's actions on up to ten entries.
#[async_trait]
pub(crate) trait Action: Debug + Send + Sync + 'static {
    /// One entry.
    type Item: Send + Sync + 'static;

    /// Whether it tells SQS to let go of a message: one that SQS has let go of already is done then.
    const IS_DELETE: bool;

    /// Whether entries must be accepted in their order, or not at all.
    fn in_order(&self) -> bool;

    /// What an entry counts against the size of a request.
    fn weight(&self, item: &Self::Item) -> usize;

    /// Makes one request. Entries come with the ids by which the answer names them.
    async fn call(&self, entries: &[(String, &Self::Item)]) -> Result<Answer, Fault>;

    /// Makes the queue that is not there. Whether that was right to try.
    async fn ensure_queue(&self) -> Result<bool>;
}

/// What SQS says of the entries.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Ids of those that were accepted.
    pub(crate) done: Vec<String>,
    pub(crate) failed: Vec<BatchResultErrorEntry>,
}

#[async_trait]
impl<A: Action> BatchSender for A {
    type Item = A::Item;

    fn weight(&self, item: &A::Item) -> usize {
        Action::weight(self, item)
    }

    async fn send_batch(&self, items: Vec<A::Item>, until: Instant) -> Vec<Result<()>> {
        let mut round = Round::new(items);
        let (mut pause, mut most) = (RETRY_DELAY, round.items.len());
        while !round.open.is_empty() {
            let entries = round.ask(most);
            match self.call(&entries).await {
                Ok(answer) => round.read(&answer, A::IS_DELETE),
                Err(fault) if is_one_of_many(&fault, A::IS_DELETE) && entries.len() > 1 => {
                    most = entries.len().div_ceil(2);
                    continue;
                }
                Err(fault) => round.fail(self, fault).await,
            }
            if self.in_order() && round.is_out_of_order() {
                // Sent again they would come after those that were sent after them.
                round.give_up();
            }
            if round.reason.is_some() && !round.open.is_empty() {
                if Instant::now() + pause >= until {
                    round.give_up();
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        round.outcomes()
    }
}

/// Whether a whole request may have been refused for a few of its entries.
fn is_one_of_many(fault: &Fault, is_delete: bool) -> bool {
    match fault.what {
        What::TooLong => true,
        What::Late | What::Refused => is_delete,
        _ => false,
    }
}

/// Entries that are to be done, in their order.
struct Round<T> {
    items: Vec<T>,
    /// Those that are not done.
    open: Vec<usize>,
    /// How many of them are in the request at hand.
    asked: usize,
    outcomes: Vec<Option<Result<()>>>,
    /// Why some of those asked for are still open.
    reason: Option<Error>,
}

impl<T> Round<T> {
    fn new(items: Vec<T>) -> Self {
        Self {
            open: (0..items.len()).collect(),
            asked: 0,
            outcomes: items.iter().map(|_| None).collect(),
            items,
            reason: None,
        }
    }

    /// The next entries, under the numbers by which the answer is to name them.
    fn ask(&mut self, most: usize) -> Vec<(String, &T)> {
        self.reason = None;
        self.asked = most.min(self.open.len());
        let asked = &self.open[..self.asked];
        asked
            .iter()
            .map(|at| (at.to_string(), &self.items[*at]))
            .collect()
    }

    fn settle(&mut self, at: usize, outcome: Result<()>) {
        if let Some(place) = self.open.iter().position(|open| *open == at) {
            self.open.remove(place);
            self.outcomes[at] = Some(outcome);
            self.asked = self.asked.saturating_sub(1);
        }
    }

    fn settle_all(&mut self, error: &Error) {
        for at in std::mem::take(&mut self.open) {
            self.outcomes[at] = Some(Err(again(error)));
        }
    }

    /// Takes an answer in. What the answer leaves out stays open, as does what failed by no fault of its own.
    fn read(&mut self, answer: &Answer, is_delete: bool) {
        for at in answer.done.iter().filter_map(|id| id.parse().ok()) {
            self.settle(at, Ok(()));
        }
        for entry in &answer.failed {
            let Ok(at) = entry.id.parse() else { continue };
            let (what, kind, _) = by_code(&entry.code, if entry.sender_fault { 400 } else { 500 });
            if is_delete && matches!(what, What::Late | What::Refused) {
                tracing::debug!(
                    code = entry.code,
                    told = entry.message,
                    "SQS has let go of a message"
                );
                self.settle(at, Ok(()));
            } else if entry.sender_fault && kind != ErrorKind::Unavailable {
                self.settle(at, Err(refused(&entry.code)));
            } else {
                self.reason = Some(refused(&entry.code));
            }
        }
        if self.asked > 0 && self.reason.is_none() {
            self.reason = Some(strange("an entry's outcome"));
        }
    }

    /// Takes in that the whole request failed.
    async fn fail<A: Action>(&mut self, action: &A, fault: Fault) {
        match fault.what {
            What::Missing | What::Late | What::Refused if A::IS_DELETE => {
                for at in std::mem::take(&mut self.open) {
                    self.outcomes[at] = Some(Ok(()));
                }
            }
            // Deleted by somebody else, or made a moment ago: SQS asks for a second's patience then.
            What::Missing => match action.ensure_queue().await {
                Ok(true) => self.reason = Some(fault.error),
                Ok(false) => self.settle_all(&fault.error),
                Err(error) => self.settle_all(&error),
            },
            _ => self.settle_all(&fault.error),
        }
    }

    /// Whether one was accepted that comes after one that is still open.
    fn is_out_of_order(&self) -> bool {
        let first = self.open.first().copied().unwrap_or(self.outcomes.len());
        let accepted = |outcome: &Option<Result<()>>| matches!(outcome, Some(Ok(())));
        self.outcomes[first..].iter().any(accepted)
    }

    /// Leaves what is open undone.
    fn give_up(&mut self) {
        let error = match self.reason.take() {
            Some(error) if error.kind() == ErrorKind::Unavailable => error,
            Some(error) => Error::new(ErrorKind::Unavailable, "SQS failed").caused_by(error),
            None => too_late(),
        };
        self.settle_all(&error);
    }

    fn outcomes(self) -> Vec<Result<()>> {
        let outcomes = self.outcomes.into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or_else(|| Err(too_late())))
            .collect()
    }
}
