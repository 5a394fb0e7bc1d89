//! A promise of the contract, and how a store is held to it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use isimud_contract::Result;
use libtest_mimic::{Completion, Failed, Trial};

use crate::harness::{Fixture, Harness, Start};
use crate::outcome::{Abort, Outcome};

/// No trial needs so long: a call that never comes back ends here, as a failure.
const PROMISE_TIMEOUT: Duration = Duration::from_secs(300);

/// One promise, named like the function that tries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    pub(crate) check: fn(Arc<dyn Fixture>) -> BoxFuture<'static, Outcome>,
}

/// Lists the trials of a file as its `PROMISES`. A trial that is left out is dead code, which the compiler reports.
/// They are tried on a `Bench`, or on whatever `on` names.
macro_rules! promises {
    ($($name:ident,)+) => {
        $crate::promise::promises! { on $crate::bench::Bench; $($name,)+ }
    };
    (on $bench:ty; $($name:ident,)+) => {
        pub(crate) const PROMISES: &[$crate::promise::Promise] = &[$(
            $crate::promise::Promise {
                module: module_path!(),
                name: stringify!($name),
                check: |fixture| {
                    Box::pin(async move { $name(<$bench>::open(fixture).await?).await })
                },
            },
        )+];
    };
}
pub(crate) use promises;

impl Promise {
    /// The trial of this promise on one set-up, by the name `family::promise`.
    pub(crate) fn trial(self, harness: &Arc<dyn Harness>, must_be_up: bool) -> Trial {
        let family = self
            .module
            .split_once("::")
            .map_or(self.module, |(_, family)| family);
        let name = format!("{family}::{}", self.name);
        let kind = harness.name().to_owned();
        let harness = Arc::clone(harness);
        Trial::ignorable_test(name, move || self.run(harness.as_ref(), must_be_up)).with_kind(kind)
    }

    fn run(self, harness: &dyn Harness, must_be_up: bool) -> Result<Completion, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match harness.start().await? {
                Start::Ready(fixture) => self.try_on(fixture.into()).await,
                Start::BackendDown(what) if must_be_up => {
                    Err(format!("the backend is not up: {what}").into())
                }
                Start::BackendDown(what) => Ok(Completion::ignored_with(format!(
                    "the backend is not up: {what}"
                ))),
            }
        })
    }

    async fn try_on(self, fixture: Arc<dyn Fixture>) -> Result<Completion, Failed> {
        match tokio::time::timeout(PROMISE_TIMEOUT, (self.check)(fixture)).await {
            Ok(Ok(())) => Ok(Completion::Completed),
            Ok(Err(stop)) if matches!(stop.why, Abort::Unsupported(_)) => {
                Ok(Completion::ignored_with(stop.why))
            }
            Ok(Err(stop)) => Err(stop.into()),
            Err(_) => Err(format!("nothing happened any more after {PROMISE_TIMEOUT:?}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    #[derive(Debug)]
    struct Down;

    #[async_trait]
    impl Harness for Down {
        fn name(&self) -> &str {
            "down"
        }

        async fn start(&self) -> Result<Start> {
            Ok(Start::BackendDown("nothing listens on port 1".into()))
        }
    }

    #[test]
    fn a_backend_that_is_down_is_ignored_unless_it_must_be_up() {
        let promise = Promise {
            module: module_path!(),
            name: "never_tried",
            check: |_| Box::pin(async { panic!("there is no store to try") }),
        };
        let Ok(Completion::Ignored { reason }) = promise.run(&Down, false) else {
            panic!("a backend that may be down is ignored");
        };
        assert!(reason.is_some_and(|text| text.contains("port 1")));
        let failure = promise.run(&Down, true).err();
        let text = failure.as_ref().and_then(Failed::message);
        assert!(text.is_some_and(|text| text.contains("port 1")));
    }
}
