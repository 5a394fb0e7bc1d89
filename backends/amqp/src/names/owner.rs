//! Whose a name is: which queue of a pool has it, and whether a queue of another pool could.

use isimud_contract::{QueueKey, QueueName, Result};

use super::pattern::{self, Pattern};
use super::{Names, PREFIX, Patterns, no_place};

impl Names {
    /// A client chooses the names of queues. None of them makes a name that is not the existing deployment's.
    pub(super) fn check_name(&self, pattern: &Pattern, name: &str) -> Result<()> {
        if name.starts_with("amq.") {
            return Err(no_place("names that begin with 'amq.' are RabbitMQ's own"));
        }
        if self
            .reserved(pattern)
            .any(|prefix| name.starts_with(prefix))
        {
            return Err(no_place(
                "names that begin like those of the queues that are made here are not for others",
            ));
        }
        Ok(())
    }

    /// Which other queue of this pool has that name: one whose name is made here, or that has a pattern of its own.
    pub(super) fn owner(&self, queue: &QueueKey, name: &str) -> Option<QueueKey> {
        let own = || {
            let (project, found) = self.own.read(name)?;
            let found = QueueKey::new(project?, found?);
            let has_own = self.project.is_none() || !self.adopt;
            (has_own && *self.name_pattern(&found) == self.own).then_some(found)
        };
        let single = |(only, patterns): (&String, &Patterns)| {
            let only = QueueName::parse(only).ok()?;
            self.reader(patterns.name.as_ref()?, name, Some(only))
        };
        let singles = self.single.iter().filter_map(single);
        own()
            .into_iter()
            .chain(singles)
            .find(|found| found != queue)
    }

    /// The queue whose name a pattern reads, if that queue goes by that pattern.
    pub(super) fn reader(
        &self,
        pattern: &Pattern,
        name: &str,
        only: Option<QueueName>,
    ) -> Option<QueueKey> {
        self.check_name(pattern, name).ok()?;
        let (project, found) = pattern.read(name)?;
        let found = QueueKey::new(project.or_else(|| self.project.clone())?, only.or(found)?);
        (self.name_pattern(&found) == pattern).then_some(found)
    }

    /// Whether queues of this pool could have the names of queues of another one beside it.
    pub(crate) fn meet(&self, other: &Self) -> bool {
        let theirs = other.possible();
        self.possible().iter().any(|ours| {
            theirs.iter().any(|theirs| {
                let are_apart = self.avoids(ours, theirs) || other.avoids(theirs, ours);
                !are_apart && pattern::meet(ours, theirs)
            })
        })
    }

    /// Whether a pattern never makes a name that begins like those of the other.
    fn avoids(&self, pattern: &Pattern, other: &Pattern) -> bool {
        let mut refused = self.reserved(pattern);
        *pattern != self.own && refused.any(|prefix| other.start().starts_with(prefix))
    }

    /// What the names of a pattern do not begin with, unless the pattern itself does.
    fn reserved<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = &'a str> {
        [self.prefix.as_str(), PREFIX]
            .into_iter()
            .filter(|prefix| !prefix.is_empty() && !pattern.start().starts_with(prefix))
    }

    /// The patterns of all names that there can be.
    fn possible(&self) -> Vec<&Pattern> {
        let given = self.single.values().chain([&self.all]);
        let mut possible: Vec<_> = given
            .filter_map(|patterns| patterns.name.as_ref())
            .collect();
        if self.all.name.is_none() || (self.project.is_some() && !self.adopt) {
            possible.push(&self.own);
        }
        possible
    }
}
