//! Which RabbitMQ queue a queue is, and where its messages are published.

use std::collections::HashMap;

use isimud_contract::{QueueKey, QueueName};
use lapin::types::ShortString;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The longest name and the longest routing key, in bytes (AMQP 0-9-1, `shortstr`).
const LONGEST: usize = 255;

/// A project is one part of a dotted name, whatever is in it.
const IN_A_PROJECT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Where the messages of a queue are, and how they get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// The RabbitMQ queue.
    pub(crate) queue: ShortString,
    /// Where posts are published.
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// The queue beside it, for messages that came without an id.
    pub(crate) companion: ShortString,
}

impl Address {
    /// Whether what is published there goes to the queue, and nowhere else.
    pub(crate) fn is_direct(&self) -> bool {
        self.exchange.as_str().is_empty() && self.routing_key == self.queue
    }
}

/// How names are made.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) prefix: String,
    all: Patterns,
    /// What differs for single queues.
    single: HashMap<String, Patterns>,
}

/// Texts with `{project}` and `{queue}` in them, and but for the name itself `{name}`.
#[derive(Debug, Clone, Default)]
struct Patterns {
    name: Option<String>,
    exchange: Option<String>,
    routing_key: Option<String>,
}

impl Patterns {
    fn get(&self, what: What) -> Option<&str> {
        match what {
            What::Name => self.name.as_deref(),
            What::Exchange => self.exchange.as_deref(),
            What::RoutingKey => self.routing_key.as_deref(),
        }
    }
}

/// What a pattern makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Name,
    Exchange,
    RoutingKey,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            all: Patterns::default(),
            single: HashMap::new(),
        }
    }

    /// Takes an option that is a pattern: `name`, `exchange` or `routing_key`, alone or with `.QUEUE`. Says whether it
    /// is one, and what is wrong with it.
    pub(crate) fn set(&mut self, option: &str, value: &str) -> Option<Result<(), &'static str>> {
        let (what, queue) = match option.split_once('.') {
            Some((what, queue)) => (what, Some(queue)),
            None => (option, None),
        };
        let what = match what {
            "name" => What::Name,
            "exchange" => What::Exchange,
            "routing_key" => What::RoutingKey,
            _ => return None,
        };
        Some(self.put(what, queue, value))
    }

    fn put(&mut self, what: What, queue: Option<&str>, value: &str) -> Result<(), &'static str> {
        check(what, value, queue.is_some())?;
        let patterns = match queue {
            Some(queue) => {
                QueueName::parse(queue).map_err(|_| "that is not the name of a queue")?;
                self.single.entry(queue.to_owned()).or_default()
            }
            None => &mut self.all,
        };
        let place = match what {
            What::Name => &mut patterns.name,
            What::Exchange => &mut patterns.exchange,
            What::RoutingKey => &mut patterns.routing_key,
        };
        *place = Some(value.to_owned());
        Ok(())
    }

    /// Whether a pattern takes the place of the names that this crate makes.
    pub(crate) fn are_given(&self) -> bool {
        self.all.name.is_some() || self.single.values().any(|p| p.name.is_some())
    }

    /// Where a queue is.
    pub(crate) fn of(&self, queue: &QueueKey) -> Address {
        let single = self.single.get(queue.name.as_str());
        let pattern = |what| {
            single
                .and_then(|patterns| patterns.get(what))
                .or_else(|| self.all.get(what))
        };
        let project = utf8_percent_encode(queue.project.as_str(), IN_A_PROJECT).to_string();
        let fill = |pattern: &str, name: &str| {
            pattern
                .replace("{name}", name)
                .replace("{project}", &project)
                .replace("{queue}", queue.name.as_str())
        };
        let name = match pattern(What::Name) {
            Some(pattern) => fill(pattern, ""),
            None => format!("{}{project}.{}", self.prefix, queue.name),
        };
        let name = fitting(name);
        // The default exchange knows every queue by its name.
        let exchange = pattern(What::Exchange).map_or_else(String::new, |it| fill(it, &name));
        let key = pattern(What::RoutingKey).map_or_else(|| name.clone(), |it| fill(it, &name));
        Address {
            companion: fitting(format!("{name}~adopted")).into(),
            queue: name.into(),
            exchange: fitting(exchange).into(),
            routing_key: fitting(key).into(),
        }
    }

    /// The queue by which the other servers reach the one of that id.
    pub(crate) fn control(&self, server: uuid::Uuid) -> ShortString {
        fitting(format!("{}~server.{}", self.prefix, server.as_hyphenated())).into()
    }
}

/// What a pattern may be: a name that tells queues of one pool apart, unless it is for one queue alone.
fn check(what: What, pattern: &str, single: bool) -> Result<(), &'static str> {
    let rest = pattern
        .replace("{project}", "")
        .replace("{queue}", "")
        .replace("{name}", "");
    if rest.contains(['{', '}']) {
        return Err("a pattern knows {project}, {queue} and {name}, and no other brace");
    }
    if what != What::Name {
        return Ok(());
    }
    if pattern.is_empty() || pattern.contains("{name}") {
        return Err("a pattern of names is not empty, and has no {name} in it");
    }
    if !single && !pattern.contains("{queue}") {
        return Err("a pattern of names has {queue} in it");
    }
    if pattern.starts_with("amq.") {
        return Err("names that begin with 'amq.' are RabbitMQ's own");
    }
    Ok(())
}

/// The name, or what fits of it and the digest of the whole. No name that fits ends like that: `~` stands before a
/// number in the name of a part of a queue, and a digest has 64 digits.
fn fitting(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let mut end = 180;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let digest = Sha256::digest(name.as_bytes());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}~{digits}", &name[..end])
}

#[cfg(test)]
mod tests {
    use isimud_contract::ProjectId;

    use super::*;

    fn key(project: &str, queue: &str) -> QueueKey {
        let project = ProjectId::parse(project).expect("a project");
        QueueKey::new(project, QueueName::parse_stored(queue).expect("a name"))
    }

    fn name(project: &str, queue: &str) -> String {
        let address = Names::new("isimud.").of(&key(project, queue));
        assert_eq!(address.routing_key, address.queue);
        assert!(address.companion.as_str().len() <= LONGEST);
        address.queue.to_string()
    }

    #[test]
    fn a_name_says_whose_it_is() {
        assert_eq!(name("p1", "orders"), "isimud.p1.orders");
        assert_eq!(name("a.b/ä", "c.d"), "isimud.a%2Eb%2F%C3%A4.c.d");
        assert_eq!(name("p", "~topic"), "isimud.p.~topic");
    }

    #[test]
    fn two_queues_never_share_a_name() {
        let long = "ä".repeat(256);
        let names = [
            name("a", "b.c"),
            name("a.b", "c"),
            name("a%2Eb", "c"),
            name(&long, "q"),
            name(&long, "r"),
            name(&long, "q~1"),
            name(&long[2..], "q"),
        ];
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert!(names.iter().all(|name| name.len() <= LONGEST));
    }

    #[test]
    fn an_estate_keeps_its_names() {
        let mut names = Names::new("isimud.");
        for (option, value) in [
            ("name", "{queue}"),
            ("exchange", "events"),
            ("routing_key", "to.{name}"),
            ("name.orders", "Legacy Orders"),
            ("exchange.orders", ""),
            ("routing_key.orders", "{name}"),
        ] {
            assert_eq!(names.set(option, value), Some(Ok(())));
        }
        let bills = names.of(&key("p", "bills"));
        assert_eq!(bills.queue.as_str(), "bills");
        assert_eq!(bills.exchange.as_str(), "events");
        assert_eq!(bills.routing_key.as_str(), "to.bills");
        let orders = names.of(&key("p", "orders"));
        assert_eq!(orders.queue.as_str(), "Legacy Orders");
        assert_eq!(orders.exchange.as_str(), "");
        assert_eq!(orders.routing_key.as_str(), "Legacy Orders");
        assert_eq!(orders.companion.as_str(), "Legacy Orders~adopted");
    }

    #[test]
    fn patterns_are_checked() {
        let mut names = Names::new("isimud.");
        assert_eq!(names.set("colour", "red"), None);
        for (option, value) in [
            ("name", ""),
            ("name", "fixed"),
            ("name", "{que}"),
            ("name", "{name}{queue}"),
            ("name", "amq.{queue}"),
            ("name.a/b", "x"),
            ("routing_key", "{x}"),
        ] {
            let told = names.set(option, value);
            assert!(matches!(told, Some(Err(_))), "{option}={value}");
        }
    }
}
