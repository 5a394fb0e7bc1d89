//! Which RabbitMQ queue a queue is, and where its messages are published.
//!
//! Two queues are never one in RabbitMQ: patterns that would mix projects are refused (see `check` and `pattern`), and
//! where several patterns meet in one pool, a name is read back by each of them, and refused if it is another queue's
//! (`owner`).

mod check;
mod owner;
mod pattern;

use std::collections::HashMap;

use isimud_contract::{Error, ErrorKind, ProjectId, QueueKey, QueueName, Result};
use lapin::types::ShortString;
use sha2::{Digest, Sha256};

use self::pattern::{COMPANION, Pattern};

/// The longest name and the longest routing key, in bytes (AMQP 0-9-1, `shortstr`).
const MAX_NAME_BYTES: usize = 255;

/// What names begin with that are made here, unless the pool says otherwise. No pattern of any pool makes such names by
/// chance: no client reaches another pool's queues with a name like that.
pub(crate) const PREFIX: &str = "isimud.";

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
    /// Whether it is the deployment's own: taken as it is found, and never made or deleted.
    pub(crate) is_adopted: bool,
}

impl Address {
    /// Whether what is published there goes to the queue, and nowhere else.
    pub(crate) fn is_direct(&self) -> bool {
        self.exchange.as_str().is_empty() && self.routing_key == self.queue
    }
}

/// How names are made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Names {
    prefix: String,
    own: Pattern,
    /// Whose queues the patterns name; those of all projects if it is nobody.
    project: Option<ProjectId>,
    /// Whether queues are taken as they are found.
    adopt: bool,
    all: Patterns,
    /// What differs for single queues.
    single: HashMap<String, Patterns>,
}

/// Texts with `{project}` and `{queue}` in them, and but for the name itself `{name}`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Patterns {
    name: Option<Pattern>,
    exchange: Option<Pattern>,
    routing_key: Option<Pattern>,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            prefix: PREFIX.to_owned(),
            own: Pattern::own(PREFIX),
            project: None,
            adopt: false,
            all: Patterns::default(),
            single: HashMap::new(),
        }
    }

    pub(crate) fn begin_with(&mut self, prefix: String) {
        self.own = Pattern::own(&prefix);
        self.prefix = prefix;
    }

    #[cfg(test)]
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn adopt(&mut self, adopt: bool) {
        self.adopt = adopt;
    }

    /// Lets the patterns name the queues of this project alone.
    pub(crate) fn are_of(&mut self, project: ProjectId) {
        self.project = Some(project);
    }

    /// Takes an option that is a pattern: `name`, `exchange` or `routing_key`, alone or with `.QUEUE`. Says whether it
    /// is one, and what is wrong with it.
    pub(crate) fn set(
        &mut self,
        option: &str,
        value: &str,
    ) -> Option<std::result::Result<(), &'static str>> {
        let (what, queue) = match option.split_once('.') {
            Some((what, queue)) => (what, Some(queue)),
            None => (option, None),
        };
        if !["name", "exchange", "routing_key"].contains(&what) {
            return None;
        }
        Some(self.put(what, queue, value))
    }

    fn put(
        &mut self,
        what: &str,
        queue: Option<&str>,
        value: &str,
    ) -> std::result::Result<(), &'static str> {
        let mut pattern = Pattern::parse(value)?;
        let patterns = match queue {
            Some(queue) => {
                QueueName::parse(queue).map_err(|_| "that is not the name of a queue")?;
                pattern = pattern.of_queue(queue);
                self.single.entry(queue.to_owned()).or_default()
            }
            None => &mut self.all,
        };
        let place = match what {
            "name" => &mut patterns.name,
            "exchange" => &mut patterns.exchange,
            _ => &mut patterns.routing_key,
        };
        *place = Some(pattern);
        Ok(())
    }

    /// Where a queue is. `Unsupported` for one that has no place in this pool.
    pub(crate) fn of(&self, queue: &QueueKey) -> Result<Address> {
        let (single, all) = self.patterns(queue);
        if self.adopt && self.is_another_projects(queue) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this pool holds the queues of another project alone",
            ));
        }
        let pattern = |what: fn(&Patterns) -> &Option<Pattern>| {
            let single = single.and_then(|patterns| what(patterns).as_ref());
            single.or_else(|| all.and_then(|patterns| what(patterns).as_ref()))
        };
        let name = match pattern(|it| &it.name) {
            Some(pattern) => {
                let name = pattern.fill(queue, "");
                self.check_name(pattern, &name)?;
                // Names that are made here come first, then those of single queues.
                if self.owner(queue, &name).is_some() {
                    return Err(no_place(
                        "the RabbitMQ queue of that name is another queue's",
                    ));
                }
                name
            }
            None => self.own.fill(queue, ""),
        };
        let name = fitting(name);
        // A part of a queue is made here, and nobody has bound it to an exchange.
        let has_generation = queue.name.has_generation();
        let route = |what| pattern(what).filter(|_| !has_generation);
        // The default exchange knows every queue by its name.
        let exchange =
            route(|it| &it.exchange).map_or_else(String::new, |it| it.fill(queue, &name));
        let key =
            route(|it| &it.routing_key).map_or_else(|| name.clone(), |it| it.fill(queue, &name));
        Ok(Address {
            is_adopted: self.adopt && !has_generation,
            companion: fitting(format!("{name}{COMPANION}")).into(),
            queue: name.into(),
            exchange: fitting(exchange).into(),
            routing_key: fitting(key).into(),
        })
    }

    fn is_another_projects(&self, queue: &QueueKey) -> bool {
        let only = self.project.as_ref();
        only.is_some_and(|only| *only != queue.project)
    }

    /// The patterns of this queue, and those of all.
    fn patterns(&self, queue: &QueueKey) -> (Option<&Patterns>, Option<&Patterns>) {
        if self.is_another_projects(queue) {
            return (None, None);
        }
        (self.single.get(queue.name.as_str()), Some(&self.all))
    }

    fn name_pattern(&self, queue: &QueueKey) -> &Pattern {
        let (single, all) = self.patterns(queue);
        let given = single.and_then(|it| it.name.as_ref());
        given
            .or_else(|| all.and_then(|it| it.name.as_ref()))
            .unwrap_or(&self.own)
    }

    /// The queue by which the other servers reach the one of that id.
    pub(crate) fn control(&self, server: uuid::Uuid) -> ShortString {
        fitting(format!("{}~server.{}", self.prefix, server.as_hyphenated())).into()
    }
}

impl Patterns {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.exchange.is_none() && self.routing_key.is_none()
    }
}

fn no_place(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, sentence)
}

/// The name, or what fits of it and the digest of the whole. No name that fits ends like that: `~` stands before a
/// number in the name of a part of a queue, and a digest has 64 digits.
fn fitting(name: String) -> String {
    if name.len() <= MAX_NAME_BYTES {
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
        let address = Names::new().of(&key(project, queue)).expect("a place");
        assert_eq!(address.routing_key, address.queue);
        assert!(address.companion.as_str().len() <= MAX_NAME_BYTES);
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
        assert!(names.iter().all(|name| name.len() <= MAX_NAME_BYTES));
    }

    /// Names by these options; the reason if they are refused.
    fn names(options: &[(&str, &str)]) -> Result<Names, String> {
        let mut names = Names::new();
        for (option, value) in options {
            match *option {
                "prefix" => names.begin_with((*value).to_owned()),
                "project" => names.are_of(ProjectId::parse(value).expect("a project")),
                "adopt" => names.adopt(true),
                option => names.set(option, value).expect("a pattern")?,
            }
        }
        names.check().map(|()| names)
    }

    fn queue_of(names: &Names, project: &str, queue: &str) -> Option<String> {
        let address = names.of(&key(project, queue)).ok()?;
        Some(address.queue.to_string())
    }

    #[test]
    fn a_later_generation_of_an_adopted_queue_is_made_here_and_bound_to_no_exchange() {
        let names = names(&[
            ("adopt", "true"),
            ("name", "{queue}"),
            ("exchange", "events"),
            ("project", "p"),
        ]);
        let names = names.expect("an estate");
        let whole = names.of(&key("p", "bills")).expect("a place");
        assert!(whole.is_adopted && !whole.is_direct());
        let part = names.of(&key("p", "bills~7")).expect("a place");
        assert_eq!(part.queue.as_str(), "bills~7");
        assert!(!part.is_adopted && part.is_direct());
    }

    #[test]
    fn existing_queues_keep_their_names() {
        let names = names(&[
            ("name", "{queue}"),
            ("exchange", "events"),
            ("routing_key", "to.{name}"),
            ("name.orders", "Legacy Orders"),
            ("exchange.orders", ""),
            ("routing_key.orders", "{name}"),
            ("project", "p"),
        ])
        .expect("an estate");
        let bills = names.of(&key("p", "bills")).expect("a place");
        assert_eq!(bills.queue.as_str(), "bills");
        assert_eq!(bills.exchange.as_str(), "events");
        assert_eq!(bills.routing_key.as_str(), "to.bills");
        let orders = names.of(&key("p", "orders")).expect("a place");
        assert_eq!(orders.queue.as_str(), "Legacy Orders");
        assert_eq!(orders.exchange.as_str(), "");
        assert_eq!(orders.routing_key.as_str(), "Legacy Orders");
        assert_eq!(orders.companion.as_str(), "Legacy Orders~adopted");
    }

    #[test]
    fn patterns_are_checked() {
        assert_eq!(Names::new().set("colour", "red"), None);
        let p = ("project", "p");
        for options in [
            &[("name", ""), p] as &[_],
            &[("name", "fixed"), p],
            &[("name", "{que}"), p],
            &[("name", "a}{queue}"), p],
            &[("name", "{name}{queue}"), p],
            &[("name", "{queue}{queue}"), p],
            &[("name", "amq.{queue}"), p],
            &[("name", "{queue}~adopted"), p],
            &[("name.a/b", "x"), p],
            &[("routing_key", "{x}"), p],
            &[("adopt", ""), p],
            &[p],
        ] {
            assert!(names(options).is_err(), "{options:?}");
        }
    }

    #[test]
    fn patterns_that_would_mix_projects_are_refused() {
        for options in [
            &[("name", "{queue}")] as &[_],
            &[("name", "{queue}"), ("adopt", "")],
            &[("name.orders", "Legacy Orders")],
            &[("name", "{project}{queue}")],
            &[("name", "{queue}{project}")],
            &[("name", "{project}x{queue}")],
            &[("name", "{project}.{project}.{queue}")],
            &[("exchange", "events"), ("routing_key", "to.{queue}")],
            &[("exchange", "events"), ("routing_key", "to")],
            &[("exchange.orders", "events"), ("routing_key.orders", "to")],
            &[("routing_key", "{project}{queue}")],
            // Two queues of one project would be one.
            &[("name.a", "x"), ("name.b", "x"), ("project", "p")],
            &[("name.a", "{project}-x"), ("name.b", "{project}-x")],
            // It would be the queue `p` of the project `x`.
            &[("name", "{queue}.{project}"), ("name.a", "{project}.x")],
            &[("name.orders", "isimud.other.orders"), ("project", "p")],
            &[
                ("exchange", "events"),
                ("routing_key", "to"),
                ("project", "p"),
            ],
        ] {
            assert!(names(options).is_err(), "{options:?}");
        }
        let told = names(&[("name", "{queue}"), ("adopt", "")]).expect_err("no project");
        assert!(
            told.contains("'{project}.{queue}'") && told.contains("'project'"),
            "{told}"
        );
        for options in [
            &[("name", "{project}.{queue}")] as &[_],
            &[("name", "x {queue}-{project}")],
            &[("name.orders", "{project} orders")],
            &[
                ("name", "{queue}"),
                ("name.a", "b"),
                ("name.b", "a"),
                ("project", "p"),
            ],
            &[("exchange", "events")],
            &[("exchange", "{project}"), ("routing_key", "{queue}")],
            &[
                ("exchange", "events"),
                ("routing_key", "{project}.{queue}.new"),
            ],
        ] {
            assert!(names(options).is_ok(), "{options:?}");
        }
    }

    #[test]
    fn the_names_of_one_project_are_not_those_of_others() {
        let mine = [
            ("name", "{queue}"),
            ("name.old", "Old One"),
            ("project", "p"),
        ];
        let made = names(&mine).expect("names");
        assert_eq!(queue_of(&made, "p", "orders").as_deref(), Some("orders"));
        assert_eq!(
            queue_of(&made, "q", "orders").as_deref(),
            Some("isimud.q.orders")
        );
        assert_eq!(queue_of(&made, "q", "old").as_deref(), Some("isimud.q.old"));
        // A queue with a name of its own comes before one that would have it by chance.
        let renamed = names(&[
            ("name", "{queue}"),
            ("name.orders", "bills"),
            ("project", "p"),
        ]);
        let renamed = renamed.expect("names");
        assert_eq!(queue_of(&renamed, "p", "orders").as_deref(), Some("bills"));
        assert_eq!(queue_of(&renamed, "p", "bills"), None);
        // A client chooses names, but not those of somebody else.
        assert_eq!(queue_of(&made, "p", "isimud.q.orders"), None);
        assert_eq!(queue_of(&made, "p", "amq.topic"), None);
        let adopted = names(&[&mine[..], &[("adopt", "")]].concat()).expect("names");
        assert_eq!(queue_of(&adopted, "p", "orders").as_deref(), Some("orders"));
        assert_eq!(queue_of(&adopted, "q", "orders"), None);
        assert_eq!(queue_of(&adopted, "p", "isimud.q.orders"), None);
        // A prefix that the existing deployment has itself is no obstacle, but where it gives another's name.
        let same = [("prefix", "x."), ("name", "x.{queue}"), ("project", "p")];
        let made = names(&same).expect("names");
        assert_eq!(queue_of(&made, "p", "orders").as_deref(), Some("x.orders"));
        assert_eq!(queue_of(&made, "p", "q.orders"), None);
        let adopted = names(&[&same[..], &[("adopt", "")]].concat()).expect("names");
        assert_eq!(
            queue_of(&adopted, "p", "q.orders").as_deref(),
            Some("x.q.orders")
        );
    }

    #[test]
    fn no_two_queues_have_one_name_by_any_pattern() {
        let projects = [
            "a", "a.b", "a-b", "a_b", "a%2Db", "a-", "-", "é", "a b", "x",
        ];
        let queues = [
            "a", "b", "a.b", "b-a", "-a", "a_", "_", "b.a-b", "x", "~a", "a~1",
        ];
        for options in [
            &[("name", "{project}.{queue}")] as &[_],
            &[("name", "{queue}.{project}")],
            &[("name", "{project}-{queue}")],
            &[("name", "{queue}_{project}-x")],
            &[("name", "a{project}a-a{queue}")],
            &[("name", "x{queue}/a-{project}")],
            &[
                ("name", "{queue}.{project}"),
                ("name.a", "{project}/x"),
                ("name.b", "b-{project}"),
            ],
            &[
                ("name", "{queue}"),
                ("name.a", "{queue}.x"),
                ("name.b", "a"),
                ("project", "a"),
            ],
        ] {
            let names = names(options).expect("names");
            let mut seen = std::collections::HashMap::new();
            for project in projects {
                for queue in queues {
                    let Some(name) = queue_of(&names, project, queue) else {
                        continue;
                    };
                    let other = seen.insert(name.clone(), (project, queue));
                    assert_eq!(other, None, "{options:?}: {name} is {project}/{queue}");
                }
            }
            assert!(
                seen.len() > projects.len() * queues.len() / 2,
                "{options:?}"
            );
        }
    }

    #[test]
    fn pools_whose_names_could_meet_are_told_from_those_that_keep_apart() {
        let p = ("project", "p");
        let adopt = ("adopt", "");
        for (one, other, meet) in [
            (&[] as &[_], &[] as &[_], true),
            (&[], &[("prefix", "x.")], false),
            (&[("prefix", "x.")], &[("prefix", "x.p.")], true),
            (&[], &[("name", "{queue}"), p, adopt], false),
            // Other projects' queues are made under the same prefix.
            (&[], &[("name", "{queue}"), p], true),
            (&[], &[("name", "{queue}"), p, ("prefix", "x.")], false),
            (&[("prefix", "y.")], &[("name", "{queue}"), p, adopt], true),
            (
                &[("prefix", "y.")],
                &[("name", "{queue}"), p, adopt, ("prefix", "y.")],
                false,
            ),
            (
                &[("name", "a-{queue}"), p, adopt],
                &[("name", "b-{queue}"), p, adopt],
                false,
            ),
            (
                &[("name", "a-{queue}"), p, adopt],
                &[("name", "{queue}-b"), p, adopt],
                true,
            ),
            (
                &[("name", "{queue}"), p, adopt],
                &[("name", "{project}/{queue}"), adopt],
                true,
            ),
            (
                &[("name", "/{queue}"), p, adopt],
                &[("name", "x{project}/{queue}"), adopt],
                false,
            ),
        ] {
            let [a, b] = [one, other].map(|options| names(options).expect("names"));
            assert_eq!(a.meet(&b), meet, "{one:?} {other:?}");
            assert_eq!(b.meet(&a), meet, "{other:?} {one:?}");
        }
    }
}
