//! Answers on their way to clients, and what becomes of those that nobody receives.
//!
//! A client may be gone before its answer is, and what was claimed for it would be held by nobody until the claim ends;
//! what was popped for it would be lost. So a call that takes messages goes on when its client leaves while it runs, and
//! what it took is given back: a claim is released, and popped messages are put back where they stood, as the same
//! messages. The same is done when the answer is there and cannot be sent.
//!
//! ```text
//! the client leaves                                          it is known     what it was to get
//! before its request is read                                 yes             is not taken
//! while the store is asked                                   yes             is given back
//! before the system has taken the whole answer               yes             is given back
//! after that: the answer is in buffers, or on the wire       no              the claim ends in time; pops are lost
//! ```
//!
//! A store that answers too late may have claimed what its client was told it cannot have (503): such a claim is released too.
//!
//! What hangs on an answer goes with it to the connection ([`OnTheWay`]), which knows what becomes of it: the bytes that it
//! counts for in its project's [budget](super::budget), and what has to be given back.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::Response;
use isimud_contract::{
    Claim, ClaimId, ErrorKind, Message, PAGE_BYTES, ProjectId, QueueKey, Result,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::AppState;
use super::budget::Spent;
use super::problem::Problem;
use crate::messaging::Terms;
use crate::messaging::limits::DEFAULT_PAGE;
use crate::notifications::budget::{self, Budget};
use crate::spell::Spell;

/// Answers of so many bytes and fewer are not counted: the system has room for one on each connection.
pub(crate) const SMALL: usize = 16 << 10;

/// What may be given back at once. What is beyond it stays as it is.
const MAX_RETURNS: usize = 1024;

/// The same of claims that may not be there at all. They are of stores that have just failed, which are to be spared.
const MAX_UNCERTAIN: usize = 64;

/// How long to wait before a store is asked again to take something back; it is asked once more after each.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// What was not received until now, and is being given back.
#[derive(Debug)]
pub struct GivenBack {
    running: AtomicUsize,
    uncertain: Arc<Semaphore>,
    failing: Spell,
}

impl Default for GivenBack {
    fn default() -> Self {
        Self {
            running: AtomicUsize::default(),
            uncertain: Arc::new(Semaphore::new(MAX_UNCERTAIN)),
            failing: Spell::default(),
        }
    }
}

impl GivenBack {
    /// Waits until nothing is being given back, but no longer than two seconds: the stores are about to be closed.
    pub(crate) async fn finish(&self) {
        const TIMEOUT: Duration = Duration::from_secs(2);
        const POLL_INTERVAL: Duration = Duration::from_millis(10);
        let begun = tokio::time::Instant::now();
        while self.running.load(Ordering::Relaxed) > 0 && begun.elapsed() < TIMEOUT {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Something that is being given back, or may be.
struct Running(AppState);

impl Running {
    fn begin(app: &AppState) -> Self {
        app.given_back.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(app))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.given_back.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What hangs on an answer until the system has taken it.
#[derive(Debug, Clone)]
pub(crate) struct OnTheWay(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    _spent: Option<Spent>,
    receipt: Option<Receipt>,
}

impl OnTheWay {
    /// The answer is sent.
    pub(crate) fn sent(self) {}

    /// The answer cannot be sent.
    pub(crate) fn lost(self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receipt) = inner.receipt.take() {
            receipt.give_back();
        }
    }
}

/// Messages that are being read and put into documents, in bytes: what they may have at the most is set apart before they
/// are read. A store reads as fast as it is asked, and all of it would be in memory before the first answer is counted.
#[derive(Debug)]
pub struct Reads(Budget);

/// How long a reading waits for others of its project.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

impl Reads {
    /// So many bytes, of which a project may have a quarter.
    pub fn new(bytes: usize) -> Self {
        Self(Budget::new(bytes))
    }
}

/// Sets room apart for the reading of so many messages, until what this returns is dropped. Waits for others of the project
/// to be done with theirs.
pub(crate) async fn read(
    app: &AppState,
    project: &ProjectId,
    limit: Option<i64>,
) -> Result<budget::Spent, Problem> {
    let limits = app.messaging.limits();
    let count = limit.map_or(Ok(DEFAULT_PAGE), usize::try_from);
    let count = count.unwrap_or(0).min(limits.max_messages_per_page);
    let page = usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX);
    let bytes = count
        .saturating_mul(limits.max_messages_post_size)
        .min(page);
    let taken = match app.reads.0.try_take(project, bytes) {
        Some(taken) => taken,
        None => {
            let taking = Box::pin(app.reads.0.take(project, bytes));
            let taken = tokio::time::timeout(READ_TIMEOUT, taking).await;
            taken.ok().flatten().ok_or_else(|| refused(app))?
        }
    };
    // Those before it may have used up what there is.
    check(app, project)?;
    Ok(taken)
}

/// Refuses a request whose answer may be large, when its project has too many answers under way already.
pub(crate) fn check(app: &AppState, project: &ProjectId) -> Result<(), Problem> {
    match app.answers.is_used_up(project) {
        true => Err(refused(app)),
        false => Ok(()),
    }
}

fn refused(app: &AppState) -> Problem {
    app.metrics.traffic().busy("answers");
    Problem::busy(
        "Too many answers are on their way to clients of this project that take them slowly.",
    )
}

/// Counts an answer for a project until it is sent; a small one is not.
pub(crate) fn count(
    app: &AppState,
    project: &ProjectId,
    mut response: Response,
) -> Result<Response, Problem> {
    let bytes = http_body::Body::size_hint(response.body()).lower();
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes > SMALL && response.extensions().get::<OnTheWay>().is_none() {
        let spent = app
            .answers
            .take(project, bytes)
            .ok_or_else(|| refused(app))?;
        hang(&mut response, Some(spent), None);
    }
    Ok(response)
}

fn hang(response: &mut Response, spent: Option<Spent>, receipt: Option<Receipt>) {
    let inner = Inner {
        _spent: spent,
        receipt,
    };
    let on_the_way = OnTheWay(Arc::new(Mutex::new(inner)));
    response.extensions_mut().insert(on_the_way);
}

/// Messages that were taken for a client.
#[derive(Debug)]
enum Taken {
    Claim(Claim),
    Popped(Vec<Message>),
}

impl Taken {
    fn messages(&self) -> &[Message] {
        match self {
            Self::Claim(claim) => &claim.messages,
            Self::Popped(messages) => messages,
        }
    }
}

/// A claim or a pop for a client.
pub(crate) struct Taking<'a> {
    pub(crate) app: &'a AppState,
    pub(crate) queue: &'a QueueKey,
}

impl Taking<'_> {
    /// Claims messages. What `answer` makes of them is what the client has to receive; `None` when there are none.
    pub(crate) async fn claim(
        self,
        terms: Terms,
        limit: Option<i64>,
        answer: impl FnOnce(&Claim) -> Response + Send,
    ) -> Result<Result<Option<Response>, Problem>> {
        let whom = self.whom();
        let from = Arc::clone(&whom);
        let call = async move {
            let Whom { app, queue } = &*from;
            let id = ClaimId(Uuid::now_v7());
            match app.messaging.claim(queue, id, terms, limit).await {
                Ok(claim) => Ok(claim.map(Taken::Claim)),
                Err(error) => {
                    if error.kind() == ErrorKind::Unavailable {
                        release_later(app, queue, id);
                    }
                    Err(error)
                }
            }
        };
        take(whom, Box::pin(call), |taken| match taken {
            Taken::Claim(claim) => Some(answer(claim)),
            Taken::Popped(_) => None,
        })
        .await
    }

    /// Pops messages, in the same way.
    pub(crate) async fn pop(
        self,
        count: i64,
        answer: impl FnOnce(&[Message]) -> Response + Send,
    ) -> Result<Result<Option<Response>, Problem>> {
        let whom = self.whom();
        let from = Arc::clone(&whom);
        let call = async move {
            let popped = from.app.messaging.pop(&from.queue, count).await?;
            Ok(Some(Taken::Popped(popped)))
        };
        take(whom, Box::pin(call), |taken| Some(answer(taken.messages()))).await
    }

    fn whom(&self) -> Arc<Whom> {
        Arc::new(Whom {
            app: Arc::clone(self.app),
            queue: self.queue.clone(),
        })
    }
}

/// What a call takes messages from: one for the call, what waits for it and what hangs on the answer.
struct Whom {
    app: AppState,
    queue: QueueKey,
}

async fn take(
    whom: Arc<Whom>,
    call: Call,
    answer: impl FnOnce(&Taken) -> Option<Response> + Send,
) -> Result<Result<Option<Response>, Problem>> {
    let kept = Kept {
        call: Some(call),
        has_begun: false,
        whom: Arc::clone(&whom),
    };
    let Some(taken) = kept.await? else {
        return Ok(Ok(None));
    };
    let app = &whom.app;
    let bytes: u64 = taken.messages().iter().map(Message::size).sum();
    let mut bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if matches!(taken, Taken::Popped(_)) {
        // They are kept beside their answer.
        bytes = bytes.saturating_mul(2);
    }
    let spent = match bytes > SMALL {
        true => app.answers.take(&whom.queue.project, bytes).map(Some),
        false => Some(None),
    };
    let Some(spent) = spent else {
        let refused = refused(app);
        Receipt::new(whom, taken).undone().give_back();
        return Ok(Err(refused));
    };
    let mut response = answer(&taken);
    if let Some(response) = &mut response {
        hang(response, spent, Some(Receipt::new(whom, taken)));
    }
    Ok(Ok(response))
}

/// A call that takes messages. When nobody waits for it any more, it goes on, and gives back what it takes.
struct Kept {
    call: Option<Call>,
    has_begun: bool,
    whom: Arc<Whom>,
}

type Call = Pin<Box<dyn Future<Output = Result<Option<Taken>>> + Send>>;

impl Future for Kept {
    type Output = Result<Option<Taken>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.has_begun = true;
        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };
        let taken = ready!(call.as_mut().poll(context));
        self.call = None;
        Poll::Ready(taken)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(call) = self.call.take().filter(|_| self.has_begun) else {
            return;
        };
        let whom = Arc::clone(&self.whom);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let running = Running::begin(&whom.app);
            runtime.spawn(async move {
                if let Ok(Some(taken)) = call.await {
                    Receipt::new(whom, taken).give_back_in(running);
                }
            });
        }
    }
}

/// Releases a claim that may have been made by a store which then answered too late: after a while, in which the store may
/// still be about to make it, and once more. A service that stops meanwhile does not wait for this.
fn release_later(app: &AppState, queue: &QueueKey, claim: ClaimId) {
    let (Ok(runtime), Ok(permit)) = (
        tokio::runtime::Handle::try_current(),
        Arc::clone(&app.given_back.uncertain).try_acquire_owned(),
    ) else {
        return;
    };
    let (app, queue) = (Arc::downgrade(app), queue.clone());
    runtime.spawn(async move {
        let _permit = permit;
        for pause in RETRY_DELAYS {
            tokio::time::sleep(pause).await;
            let Some(app) = app.upgrade() else {
                return;
            };
            // Nobody has heard of it: it is no delivery.
            if let Err(error) = app.messaging.undo_claim(&queue, claim).await {
                tracing::debug!(%error, %queue, "cannot release a claim that may have been created");
            }
        }
    });
}

/// What has to be given back if an answer is not received.
struct Receipt {
    whom: Arc<Whom>,
    what: Return,
}

enum Return {
    Claim(ClaimId),
    /// One that was never going to be answered: it is no delivery.
    Undone(ClaimId),
    Popped(Vec<Message>),
}

impl Return {
    fn operation(&self) -> &'static str {
        match self {
            Self::Claim(_) | Self::Undone(_) => "claim",
            Self::Popped(_) => "pop",
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("queue", &self.whom.queue)
            .field("operation", &self.what.operation())
            .finish_non_exhaustive()
    }
}

impl Receipt {
    fn new(whom: Arc<Whom>, taken: Taken) -> Self {
        let what = match taken {
            Taken::Claim(claim) => Return::Claim(claim.id),
            Taken::Popped(messages) => Return::Popped(messages),
        };
        Self { whom, what }
    }

    /// The same, for an answer that the service itself refuses.
    fn undone(mut self) -> Self {
        if let Return::Claim(claim) = self.what {
            self.what = Return::Undone(claim);
        }
        self
    }

    /// Gives it back, in its own time.
    fn give_back(self) {
        let running = Running::begin(&self.whom.app);
        self.give_back_in(running);
    }

    /// The same, as a part of something that is counted already.
    fn give_back_in(self, running: Running) {
        if matches!(&self.what, Return::Popped(messages) if messages.is_empty()) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.whom.app.given_back.running.load(Ordering::Relaxed) > MAX_RETURNS {
            return self.tell(false);
        }
        runtime.spawn(async move {
            let mut given = self.try_once().await;
            for pause in RETRY_DELAYS {
                if given.is_ok() {
                    break;
                }
                tokio::time::sleep(pause).await;
                given = self.try_once().await;
            }
            self.tell(given.is_ok());
            drop(running);
        });
    }

    async fn try_once(&self) -> Result<()> {
        let Whom { app, queue } = &*self.whom;
        let messaging = &app.messaging;
        match &self.what {
            Return::Claim(claim) => messaging.release_claim(queue, *claim).await,
            Return::Undone(claim) => messaging.undo_claim(queue, *claim).await,
            Return::Popped(messages) => messaging.put_back(queue, messages.clone()).await,
        }
    }

    fn tell(&self, is_given_back: bool) {
        let operation = self.what.operation();
        let Whom { app, queue } = &*self.whom;
        let outcome = if is_given_back { "returned" } else { "kept" };
        app.metrics.traffic().unreceived(operation, outcome);
        tracing::debug!(%queue, operation, outcome, "a client was gone before its answer was sent");
        if !is_given_back && app.given_back.failing.note() {
            tracing::warn!(%queue, operation, "what a client did not receive could not be given back: a claim ends in its time, what was popped is lost");
        }
    }
}
