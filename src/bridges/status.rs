//! The state and the counters of a bridge, for operators.

use std::fmt;
use std::time::Duration;

use super::Rule;

/// What a bridge is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// It has not found out yet who has it.
    #[default]
    Starting,
    /// Another server has it.
    Elsewhere,
    /// This server has it, and messages are transferred.
    Running,
    /// This server has it, and there is nothing that could be transferred now.
    Idle,
    /// Something does not answer; it goes on by itself.
    Stalled,
    /// The target refuses a message for good, and there is no dead-letter queue.
    Stopped,
}

impl State {
    /// Its name for operators.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Elsewhere => "elsewhere",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Stalled => "held up",
            Self::Stopped => "stopped",
        }
    }
}

/// What has not been transferred yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// Messages in the source that nobody holds, delayed ones too.
    pub free: u64,
    /// Messages that claims hold, the bridge's own too.
    pub claimed: u64,
    /// How old the oldest of them is. Of a source that cannot tell: how old the last batch was when it was taken.
    pub oldest: Duration,
}

impl Lag {
    /// All of them.
    pub fn waiting(&self) -> u64 {
        self.free + self.claimed
    }
}

/// The state and the counters of a bridge.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Messages that this server has brought to the target since the bridge runs here.
    pub transferred: u64,
    /// Messages that went to the dead-letter queue instead.
    pub dead_lettered: u64,
    /// What it had before it when that was last looked at.
    pub lag: Option<Lag>,
    /// Nothing free was left in the source when that was last looked at, and nothing is on its way.
    pub is_done: bool,
    /// Why it is held up or stopped.
    pub error: Option<String>,
}

/// Counts what bridges do. A server reports only the bridges that it runs.
pub trait BridgeObserver: fmt::Debug + Send + Sync + 'static {
    /// So many messages have reached the target.
    fn transferred(&self, rule: &Rule, count: usize);
    /// So many messages went to the dead-letter queue.
    fn dead_lettered(&self, rule: &Rule, count: usize);
    /// What waits.
    fn lag(&self, rule: &Rule, lag: Lag);
    /// Whether messages can be transferred.
    fn up(&self, rule: &Rule, up: bool);
    /// This server has the bridge no more.
    fn left(&self, rule: &Rule);
}
