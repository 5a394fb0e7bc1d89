//! How a trial ends before its last line.

use std::fmt;
use std::future::Future;
use std::panic::{Location, resume_unwind};

use isimud_contract::{Error, ErrorKind};

/// What a trial answers: nothing, or where and why it stopped. A wrong answer of a store panics in an assertion.
pub(crate) type Outcome = Result<(), Stop>;

/// What a word of the bench answers.
pub(crate) type Word<T> = Result<T, Why>;

/// Why a trial cannot go on.
#[derive(Debug)]
pub(crate) enum Why {
    /// The store does not promise what the trial is about.
    Beyond(&'static str),
    /// The store refused a call that it should have served.
    Refused(Error),
    /// The store did something that no trial expects.
    Surprise(String),
}

impl From<Error> for Why {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Why a trial stopped, and at which of its lines.
pub(crate) struct Stop {
    pub(crate) why: Why,
    line: &'static Location<'static>,
}

impl From<Why> for Stop {
    #[track_caller]
    fn from(why: Why) -> Self {
        Self {
            why,
            line: Location::caller(),
        }
    }
}

impl From<Error> for Stop {
    #[track_caller]
    fn from(error: Error) -> Self {
        Why::from(error).into()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beyond(what) => write!(f, "the store does not promise {what}"),
            Self::Refused(error) => write!(f, "the store answered {error:?}"),
            Self::Surprise(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.why)
    }
}

/// Demands that a call was refused, and why.
pub(crate) fn refused<T>(answer: Result<T, impl Into<Why>>, expected: ErrorKind) -> Word<()> {
    match answer.map_err(Into::into) {
        Err(Why::Refused(error)) if error.kind() == expected => Ok(()),
        Err(Why::Refused(error)) => Err(Why::Surprise(format!(
            "expected a refusal as {expected:?}, got {error:?}"
        ))),
        Err(other) => Err(other),
        Ok(_) => Err(Why::Surprise(format!(
            "expected a refusal as {expected:?}, but the call was served"
        ))),
    }
}

/// Runs tasks at the same time and returns what they answered, in the order in which they were given.
pub(crate) async fn together<T, F>(tasks: impl IntoIterator<Item = F>) -> Word<Vec<T>>
where
    F: Future<Output = Word<T>> + Send + 'static,
    T: Send + 'static,
{
    let running: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut answers = Vec::with_capacity(running.len());
    for task in running {
        match task.await {
            Ok(answer) => answers.push(answer?),
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(failure) => return Err(Why::Surprise(failure.to_string())),
            },
        }
    }
    Ok(answers)
}
