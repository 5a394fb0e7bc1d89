//! Bytes that all notifications share, and how much of them one project may have.
//!
//! What a tenant stores is small, and may be multiplied when it is used: by the subscriptions of a queue, by a template
//! that holds the message many times. So whoever is about to have bytes in memory asks for them first, and waits until
//! others have given theirs back. A project has a share, so that one that hangs keeps no other from its turn.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use isimud_contract::ProjectId;
use quick_cache::DefaultHashBuilder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of a budget, in bytes.
const UNIT: usize = 1 << 10;
/// Which part of a budget one project may have: a quarter.
const SHARE: usize = 4;

/// A bound for each of many: projects, or hosts. Those of which nobody has anything any more are forgotten.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    each: usize,
    known: Mutex<HashMap<K, Weak<Semaphore>, DefaultHashBuilder>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// So many permits for each.
    pub(crate) fn new(each: usize) -> Self {
        Self {
            each,
            known: Mutex::default(),
        }
    }

    /// The permits of one.
    pub(crate) fn of(&self, key: &K) -> Arc<Semaphore> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(key).and_then(Weak::upgrade) {
            return known;
        }
        if all.len() >= 1024 && all.len().is_power_of_two() {
            all.retain(|_, permits| permits.strong_count() > 0);
        }
        let permits = Arc::new(Semaphore::new(self.each));
        all.insert(key.clone(), Arc::downgrade(&permits));
        permits
    }
}

/// Bytes that may be in memory at once.
#[derive(Debug)]
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    shares: Shares<ProjectId>,
}

/// Bytes that somebody has; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Spent {
    units: usize,
    of_project: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of so many bytes, of which a project may have a quarter.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::with_share(bytes, bytes / SHARE)
    }

    /// The same with another share.
    pub(crate) fn with_share(bytes: usize, share: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(units(bytes))),
            shares: Shares::new(units(share.min(bytes))),
        }
    }

    /// The most bytes that a project may have at once.
    pub(crate) fn share(&self) -> usize {
        self.shares.each * UNIT
    }

    /// Waits for bytes. Who asks for more than its share gets the share, when nobody else of the project has any of it.
    /// `None` when the service ends.
    pub(crate) async fn take(&self, project: &ProjectId, bytes: usize) -> Option<Spent> {
        let (units, count) = self.count(bytes);
        let of_project = self
            .shares
            .of(project)
            .acquire_many_owned(count)
            .await
            .ok()?;
        let of_all = Arc::clone(&self.all).acquire_many_owned(count).await.ok()?;
        Some(Spent {
            units,
            of_project,
            of_all,
        })
    }

    /// The same for those who need not wait; `None` for the others.
    pub(crate) fn try_take(&self, project: &ProjectId, bytes: usize) -> Option<Spent> {
        let (units, count) = self.count(bytes);
        let of_project = self.shares.of(project);
        let of_project = of_project.try_acquire_many_owned(count).ok()?;
        let of_all = Arc::clone(&self.all).try_acquire_many_owned(count).ok()?;
        Some(Spent {
            units,
            of_project,
            of_all,
        })
    }

    /// The units of so many bytes, and how many permits that are.
    fn count(&self, bytes: usize) -> (usize, u32) {
        let units = units(bytes).min(self.shares.each);
        (units, u32::try_from(units).unwrap_or(u32::MAX))
    }
}

impl Spent {
    /// Gives back what is above so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let over = self.units.saturating_sub(units(bytes));
        self.units -= over;
        // What is split off goes back when it is dropped.
        drop(self.of_project.split(over));
        drop(self.of_all.split(over));
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const NOT_YET: Duration = Duration::from_millis(20);

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).expect("a project")
    }

    #[tokio::test]
    async fn a_project_has_its_share_and_leaves_the_rest_to_others() {
        let budget = Budget::new(64 << 10);
        let (greedy, other) = (project("greedy"), project("other"));
        // More than the share is the share.
        let held = budget.take(&greedy, 1 << 30).await.expect("bytes");
        assert!(budget.try_take(&greedy, 1).is_none());
        assert!(timeout(NOT_YET, budget.take(&greedy, 1)).await.is_err());
        let theirs = timeout(NOT_YET, budget.take(&other, 16 << 10)).await;
        assert!(theirs.is_ok(), "another project has its own share");
        drop(held);
        assert!(timeout(NOT_YET, budget.take(&greedy, 1)).await.is_ok());
    }

    #[tokio::test]
    async fn all_projects_together_have_no_more_than_there_is() {
        let budget = Budget::new(64 << 10);
        let mut held = Vec::new();
        for name in ["a", "b", "c", "d"] {
            held.push(budget.take(&project(name), 16 << 10).await);
        }
        let fifth = project("e");
        assert!(timeout(NOT_YET, budget.take(&fifth, 1)).await.is_err());
        if let Some(Some(spent)) = held.last_mut() {
            spent.shrink_to(1 << 10);
        }
        assert!(
            timeout(NOT_YET, budget.take(&fifth, 15 << 10))
                .await
                .is_ok()
        );
    }

    #[test]
    fn projects_that_ask_for_nothing_are_forgotten() {
        let shares = Shares::new(1);
        for number in 0..5000 {
            shares.of(&project(&format!("p{number}")));
        }
        assert!(shares.known.lock().expect("unpoisoned").len() <= 4096);
    }
}
