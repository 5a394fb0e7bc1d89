//! Whether the patterns of a pool can be used: none of them may let two queues be one.

use isimud_contract::{ProjectId, QueueKey, QueueName};

use super::pattern::Pattern;
use super::{Names, Patterns};

impl Names {
    /// Refuses what would let two queues be one; the error is the begin of a sentence.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        if self.prefix.starts_with("amq.") {
            return Err("names that begin with 'amq.' are RabbitMQ's own".into());
        }
        if self.prefix.len() > 100 {
            return Err("the prefix is longer than 100 bytes".into());
        }
        let given = || self.single.values().chain([&self.all]);
        if self.adopt && given().all(|patterns| patterns.name.is_none()) {
            return Err("'adopt' needs 'name', which says what the queues are called".into());
        }
        if self.project.is_some() && given().all(Patterns::is_empty) {
            return Err("'project' says whose queues 'name' names, and there is no 'name'".into());
        }
        let is_for_one = self.project.is_some();
        let told = |option: String| move |why: &str| format!("{why} (option '{option}')");
        if let Some(name) = &self.all.name {
            if !name.has_queue() {
                return Err(told("name".into())("a pattern of names has {queue} in it"));
            }
            name.check_name(is_for_one).map_err(told("name".into()))?;
        }
        self.check_route(&self.all, true)
            .map_err(told("routing_key".into()))?;
        for (queue, patterns) in &self.single {
            if let Some(name) = &patterns.name {
                let told = told(format!("name.{queue}"));
                name.check_name(is_for_one).map_err(told)?;
            }
            let told = told(format!("routing_key.{queue}"));
            self.check_route(patterns, false).map_err(told)?;
            self.check_single(queue)?;
        }
        Ok(())
    }

    /// What is published must reach the queue that was meant: exchange and routing key say which, and whose it is.
    fn check_route(
        &self,
        patterns: &Patterns,
        is_for_all: bool,
    ) -> std::result::Result<(), &'static str> {
        let exchange = patterns.exchange.as_ref().or(self.all.exchange.as_ref());
        let Some(key) = patterns
            .routing_key
            .as_ref()
            .or(self.all.routing_key.as_ref())
        else {
            // Then it is the queue's name.
            return Ok(());
        };
        let given = || exchange.into_iter().chain([key]);
        if given().any(Pattern::has_name) {
            return Ok(());
        }
        if self.project.is_none() && !given().any(Pattern::has_project) {
            return Err(
                "an exchange and a routing key without {project} would be those of all projects; accepted are {project} \
                 or {name} in one of them, or the option 'project', which says whose queues they are for",
            );
        }
        if is_for_all && !given().any(Pattern::has_queue) {
            return Err("exchange and routing key have no {queue} and no {name} in them");
        }
        given().try_for_each(Pattern::check_between)
    }

    /// A queue that has a name of its own must not have another's.
    fn check_single(&self, queue: &str) -> std::result::Result<(), String> {
        let project = match &self.project {
            Some(project) => project.clone(),
            None => ProjectId::parse("p").map_err(|error| error.to_string())?,
        };
        let name = QueueName::parse(queue).map_err(|error| error.to_string())?;
        let refused = |why: &str| format!("{why} (option 'name.{queue}')");
        let key = QueueKey::new(project, name);
        let address = self.of(&key).map_err(|error| refused(error.sentence()))?;
        let name = address.queue.as_str();
        let by_all = || self.reader(self.all.name.as_ref()?, name, None);
        // One of the same project gives way to it.
        let is_others = by_all().is_some_and(|found| found.project != key.project);
        if is_others || self.owner(&key, name).is_some() {
            return Err(refused("another queue has that name"));
        }
        Ok(())
    }
}
