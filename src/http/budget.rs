//! Bytes that requests and answers may have under way at once, and how much of them one project may have.
//!
//! A client may send its body a byte a second, and read its answer as slowly. What is held for it meanwhile is counted:
//! the part of a body that is still to come when the request begins, and a large answer until the system has taken it.
//! Nobody is made to wait for the others: who would go beyond the bound is told to try again. A project has a share, so
//! that one whose clients do not read keeps no other from its answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use isimud_contract::ProjectId;
use prometheus_client::metrics::gauge::Gauge;

use crate::spell::Spell;

/// Which part of a budget one project may have: a quarter.
const SHARE: usize = 4;

/// Bytes that may be in memory at once.
#[derive(Debug)]
pub struct Budget {
    /// What is counted, for the log: "answers".
    of: &'static str,
    most: usize,
    used: AtomicUsize,
    projects: Mutex<HashMap<ProjectId, Arc<AtomicUsize>>>,
    gauge: Gauge<i64, AtomicI64>,
    spell: Spell,
}

impl Budget {
    /// A budget of so many bytes, of which a project may have a quarter. The gauge shows how many are in use.
    pub fn new(of: &'static str, bytes: usize, gauge: Gauge<i64, AtomicI64>) -> Self {
        Self {
            of,
            most: bytes,
            used: AtomicUsize::new(0),
            projects: Mutex::default(),
            gauge,
            spell: Spell::default(),
        }
    }

    /// Whether a project has so much that nothing is begun for it that may need more: seven eighths of what it may have.
    /// Costs nothing while little is in use.
    pub(crate) fn is_used_up(&self, project: &ProjectId) -> bool {
        let nearly = |most: usize| most - most / 8;
        let share = nearly(self.most / SHARE);
        let used = self.used.load(Ordering::Relaxed);
        let is_used_up = used >= share
            && (used >= nearly(self.most)
                || self.account(project).load(Ordering::Relaxed) >= share);
        if is_used_up {
            self.tell(project);
        }
        is_used_up
    }

    /// Takes bytes for a project; `None` when it would have more than its share, or all would have more than there is. What is
    /// larger than a share is taken when its project has nothing else.
    pub(crate) fn take(self: &Arc<Self>, project: &ProjectId, bytes: usize) -> Option<Spent> {
        let account = self.account(project);
        let fits = |before: usize, most: usize| before == 0 || before + bytes <= most;
        let theirs = account.fetch_add(bytes, Ordering::Relaxed);
        if fits(theirs, self.most / SHARE) {
            let all = self.used.fetch_add(bytes, Ordering::Relaxed);
            if fits(all, self.most) {
                self.gauge.inc_by(i64::try_from(bytes).unwrap_or(0));
                return Some(Spent {
                    budget: Arc::clone(self),
                    account,
                    bytes,
                });
            }
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        account.fetch_sub(bytes, Ordering::Relaxed);
        self.tell(project);
        None
    }

    fn account(&self, project: &ProjectId) -> Arc<AtomicUsize> {
        let mut all = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = all.get(project) {
            return Arc::clone(account);
        }
        if all.len() >= 1024 && all.len().is_power_of_two() {
            // Who has bytes has its account too.
            all.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let account = Arc::default();
        all.insert(project.clone(), Arc::clone(&account));
        account
    }

    fn tell(&self, project: &ProjectId) {
        if self.spell.note() {
            tracing::warn!(
                %project,
                bytes = self.used.load(Ordering::Relaxed),
                "{} are refused with 503: too many bytes of them are under way to slow clients",
                self.of
            );
        }
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Bytes that somebody has; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Spent {
    budget: Arc<Budget>,
    account: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.account.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        let bytes = i64::try_from(self.bytes).unwrap_or(0);
        self.budget.gauge.dec_by(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: usize) -> Arc<Budget> {
        Arc::new(Budget::new("answers", bytes, Gauge::default()))
    }

    fn project(name: &str) -> ProjectId {
        ProjectId::parse(name).expect("a project")
    }

    #[test]
    fn a_project_has_its_share_and_leaves_the_rest_to_others() {
        let budget = budget(400);
        let (greedy, other) = (project("greedy"), project("other"));
        let held = budget.take(&greedy, 60).expect("there is enough");
        assert!(budget.take(&greedy, 41).is_none());
        assert!(!budget.is_used_up(&greedy));
        let more = budget.take(&greedy, 40).expect("there is enough");
        assert!(budget.is_used_up(&greedy));
        assert!(!budget.is_used_up(&other));
        assert!(budget.take(&other, 100).is_some());
        drop((held, more));
        assert_eq!(budget.used(), 0);
        assert!(budget.take(&greedy, 100).is_some());
    }

    #[test]
    fn all_projects_together_have_no_more_than_there_is() {
        let budget = budget(400);
        let names = ["a", "b", "c", "d"];
        let held = names.map(|name| budget.take(&project(name), 100).expect("there is enough"));
        assert!(budget.is_used_up(&project("e")));
        assert!(budget.take(&project("e"), 1).is_none());
        drop(held);
        assert!(budget.take(&project("e"), 1).is_some());
    }

    #[test]
    fn what_is_larger_than_a_share_is_taken_by_a_project_that_has_nothing_else() {
        let budget = budget(400);
        let large = budget.take(&project("a"), 300).expect("it is alone");
        assert!(budget.take(&project("a"), 1).is_none());
        assert!(budget.take(&project("b"), 101).is_none());
        drop(large);
        assert!(budget.take(&project("b"), 500).is_some());
    }

    #[test]
    fn projects_that_have_nothing_are_forgotten() {
        let budget = budget(1 << 20);
        let held = budget.take(&project("held"), 7).expect("there is enough");
        for number in 0..5000 {
            drop(budget.take(&project(&format!("p{number}")), 1));
        }
        assert!(budget.projects.lock().expect("unpoisoned").len() <= 4096);
        assert_eq!(budget.account(&project("held")).load(Ordering::Relaxed), 7);
        drop(held);
    }
}
