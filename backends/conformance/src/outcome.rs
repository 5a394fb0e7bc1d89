//! How a trial ends before its last line.

use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};

use isimud_contract::{Error, ErrorKind};

/// What a trial answers: nothing, or where and why it stopped. A wrong answer of a store panics in an assertion.
pub(crate) type Outcome = Result<(), Stop>;

/// What a word of the bench answers.
pub(crate) type Step<T> = Result<T, Abort>;

/// Why a trial cannot go on.
#[derive(Debug)]
pub(crate) enum Abort {
    /// The store does not promise what the trial is about.
    Unsupported(&'static str),
    /// The store refused a call that it should have served.
    Refused(Error),
    /// The store did something that no trial expects.
    Unexpected(String),
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Why a trial stopped, and at which of its lines.
pub(crate) struct Stop {
    pub(crate) why: Abort,
    line: &'static Location<'static>,
}

impl From<Abort> for Stop {
    #[track_caller]
    fn from(why: Abort) -> Self {
        Self {
            why,
            line: Location::caller(),
        }
    }
}

impl From<Error> for Stop {
    #[track_caller]
    fn from(error: Error) -> Self {
        Abort::from(error).into()
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => write!(f, "the store does not promise {what}"),
            Self::Refused(error) => write!(f, "the store answered {error:?}"),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.why)
    }
}

/// Demands that a call was refused, and why.
pub(crate) fn refused<T>(answer: Result<T, impl Into<Abort>>, expected: ErrorKind) -> Step<()> {
    match answer.map_err(Into::into) {
        Err(Abort::Refused(error)) if error.kind() == expected => Ok(()),
        Err(Abort::Refused(error)) => Err(Abort::Unexpected(format!(
            "expected a refusal as {expected:?}, got {error:?}"
        ))),
        Err(other) => Err(other),
        Ok(_) => Err(Abort::Unexpected(format!(
            "expected a refusal as {expected:?}, but the call was served"
        ))),
    }
}

/// Runs tasks at the same time and returns what they answered, in the order in which they were given.
pub(crate) async fn together<T, F>(tasks: impl IntoIterator<Item = F>) -> Step<Vec<T>>
where
    F: Future<Output = Step<T>> + Send + 'static,
    T: Send + 'static,
{
    let running: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut answers = Vec::with_capacity(running.len());
    for task in running {
        match task.await {
            Ok(answer) => answers.push(answer?),
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(failure) => return Err(Abort::Unexpected(failure.to_string())),
            },
        }
    }
    Ok(answers)
}
