//! The names of keys. No project or queue can reach another's key, whatever characters it contains.

use isimud_contract::{ProjectId, QueueKey, QueueName, StoreId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a project's name keeps as it is. `/`, `{`, `}`, `%` and NUL are not among it.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// One letter a key, in the order of the scripts' KEYS: data, free, held, wait, time, mark, claim, rank.
const LETTERS: [char; 8] = ['d', 'f', 'h', 'w', 't', 'm', 'c', 'r'];

/// The same of a queue of a ledger, but in place of the rank: meta, terms, deleted, expired, old, transfers.
const LEDGER_LETTERS: [char; 13] = [
    'd', 'f', 'h', 'w', 't', 'm', 'c', 'e', 'k', 'x', 'o', 'l', 'n',
];

/// The keys of a queue's messages, or of its ledger, all in one slot.
///
/// Every call makes them, so they stand in one text: one allocation, and no formatting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    text: String,
    /// Bytes of each name.
    length: usize,
    is_ledger: bool,
}

impl Keys {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.text.len() / self.length
    }

    /// All of them, as the scripts want them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        (0..self.count()).map(|at| &self.text[at * self.length..(at + 1) * self.length])
    }

    /// What there is for a queue of messages and for one of a ledger.
    pub(crate) fn pick<T>(&self, messages: T, ledger: T) -> T {
        if self.is_ledger { ledger } else { messages }
    }

    /// Those that a purge deletes. The rank stays, so that positions from before stay positions.
    pub(crate) fn purged(&self) -> impl Iterator<Item = &str> {
        self.all().take(LETTERS.len() - 1)
    }

    /// Bytes of all names together.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }
}

/// Makes the keys of one store.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    /// The prefix must have no brace, which would take the place of the hash tag (see `config`).
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The keys of a queue: `PREFIX{PROJECT/QUEUE}LETTER`.
    pub(crate) fn queue(&self, queue: &QueueKey) -> Keys {
        self.keys(None, queue, &LETTERS)
    }

    /// The keys of a queue in the ledger of a scope: `PREFIX{SCOPE/PROJECT/QUEUE}LETTER`.
    pub(crate) fn ledger(&self, scope: &str, queue: &QueueKey) -> Keys {
        self.keys(Some(scope), queue, &LEDGER_LETTERS)
    }

    fn keys(&self, scope: Option<&str>, queue: &QueueKey, letters: &[char]) -> Keys {
        // What a name takes, unless there is something to escape in it.
        const BESIDES: usize = "{//}d".len();
        let names = queue.project.as_str().len() + queue.name.as_str().len();
        let room = self.prefix.len() + scope.map_or(0, str::len) + names + BESIDES;

        let mut text = String::with_capacity(letters.len() * room);
        text.push_str(&self.prefix);
        text.push('{');
        if let Some(scope) = scope {
            text.extend(utf8_percent_encode(scope, PLAIN));
            text.push('/');
        }
        text.extend(utf8_percent_encode(queue.project.as_str(), PLAIN));
        text.push('/');
        text.push_str(queue.name.as_str());
        text.push('}');
        let start = text.len();
        for (at, letter) in letters.iter().enumerate() {
            if at > 0 {
                text.extend_from_within(..start);
            }
            text.push(*letter);
        }
        Keys {
            length: start + 1,
            text,
            is_ledger: scope.is_some(),
        }
    }

    /// The keys that an entry of the sweep schedule is about.
    pub(crate) fn by_tag(&self, text: &str) -> Option<Keys> {
        if let Some(queue) = parse_tag(text) {
            return Some(self.queue(&queue));
        }
        let (scope, queue) = text.split_once('/')?;
        let scope = percent_decode_str(scope).decode_utf8().ok()?;
        Some(self.ledger(&scope, &parse_tag(queue)?))
    }

    /// The records of a project's queues, and their names in order.
    pub(crate) fn records(&self, project: &ProjectId) -> [String; 2] {
        let project = escaped(project.as_str());
        ["records", "names"].map(|what| format!("{}{{{project}}}{what}", self.prefix))
    }

    /// Which queues have messages in which store, and which entries are to be looked at again.
    pub(crate) fn placement_index(&self) -> [String; 2] {
        ["index", "entered"].map(|what| format!("{}{{:homes}}{what}", self.prefix))
    }

    /// Pools, their names in order, the projects of flavors, and the flavors of each project in order.
    pub(crate) fn pools(&self) -> [String; 4] {
        ["pools", "names", "flavors", "owners"]
            .map(|what| format!("{}{{:pools}}{what}", self.prefix))
    }

    /// The keys of a queue's subscriptions, in the slot of its messages: about, whose, order, ends.
    pub(crate) fn subscriptions(&self, queue: &QueueKey) -> [String; 4] {
        let tag = tag(queue);
        ["s", "u", "i", "e"].map(|letter| format!("{}{{{tag}}}{letter}", self.prefix))
    }

    /// Where changes are published: the tags of queues whose record or subscriptions have changed.
    pub(crate) fn changes(&self) -> String {
        format!("{}changes", self.prefix)
    }

    /// A key that nobody has.
    pub(crate) fn nobody(&self) -> String {
        format!("{}{{:nobody}}", self.prefix)
    }

    /// Which server sweeps.
    pub(crate) fn lease(&self) -> String {
        format!("{}sweep:lease", self.prefix)
    }

    /// Which queues to sweep, and when.
    pub(crate) fn sweep_schedule(&self) -> String {
        format!("{}sweep:agenda", self.prefix)
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A queue as one text; [`parse_tag`] reads it again. A queue's name needs no escape.
pub(crate) fn tag(queue: &QueueKey) -> String {
    format!(
        "{}/{}",
        escaped(queue.project.as_str()),
        queue.name.as_str()
    )
}

/// A queue of a ledger as one text. No queue's own tag is like it, for it has a `/` more.
pub(crate) fn ledger_tag(scope: &str, queue: &QueueKey) -> String {
    format!("{}/{}", escaped(scope), tag(queue))
}

/// What the index of stores has of a store: every entry starts like this, and none of another store does.
pub(crate) fn store_prefix(store_id: &StoreId) -> String {
    match store_id {
        StoreId::Default => "/".to_owned(),
        StoreId::Pool(name) => format!("{}/", escaped(name.as_str())),
    }
}

/// A project's flavor as one text. No project's texts are among those of another.
pub(crate) fn owned(project: &ProjectId, flavor: &str) -> String {
    format!("{}/{flavor}", escaped(project.as_str()))
}

/// The flavors of a project behind a name, as ZRANGE BYLEX wants them.
pub(crate) fn owned_range(project: &ProjectId, after: &str) -> (String, String) {
    // `0` stands behind `/`.
    let start = format!("({}", owned(project, after));
    (start, format!("({}0", escaped(project.as_str())))
}

/// Reads an entry of the index of stores: the store as [`store_prefix`] writes it, and the queue.
pub(crate) fn parse_entry(entry: &str) -> Option<(&str, QueueKey)> {
    let (store_id, tag) = entry.split_at(entry.find('/')? + 1);
    Some((store_id, parse_tag(tag)?))
}

/// Reads a queue's tag; `None` for anything else.
pub(crate) fn parse_tag(tag: &str) -> Option<QueueKey> {
    let (project, name) = tag.split_once('/')?;
    let project = percent_decode_str(project).decode_utf8().ok()?;
    Some(QueueKey::new(
        ProjectId::parse(&project).ok()?,
        QueueName::parse_stored(name).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use isimud_contract::PoolName;

    use super::*;

    fn queue(project: &str, name: &str) -> QueueKey {
        QueueKey::new(
            ProjectId::parse(project).unwrap(),
            QueueName::parse(name).unwrap(),
        )
    }

    #[test]
    fn a_key_says_whose_it_is() {
        let keys = Names::new("isimud:").queue(&queue("demo", "tasks"));
        let all: Vec<_> = keys.all().collect();
        assert_eq!(all[0], "isimud:{demo/tasks}d");
        assert_eq!(all[7], "isimud:{demo/tasks}r");
        assert_eq!(keys.purged().collect::<Vec<_>>(), all[..7]);
        assert_eq!(keys.bytes(), 8 * all[0].len());
    }

    #[test]
    fn an_entry_names_one_store_and_one_queue() {
        let pool = |name| StoreId::Pool(PoolName::parse(name).unwrap());
        let placement_index = [
            StoreId::Default,
            pool("a"),
            pool("a/b"),
            pool("%"),
            pool("~ü"),
        ];
        for store_id in &placement_index {
            let queue = queue("p/q", "q");
            let entry = store_prefix(store_id) + &tag(&queue);
            assert_eq!(parse_entry(&entry), Some((&*store_prefix(store_id), queue)));
            let starts = placement_index
                .iter()
                .filter(|store_id| entry.starts_with(&store_prefix(store_id)));
            assert_eq!(starts.count(), 1, "{entry}");
        }
        assert_eq!(parse_entry("a"), None);
    }

    #[test]
    fn no_project_reaches_the_keys_of_another() {
        let names = Names::new("");
        let hostile = [
            "a", "homes", ":homes", "pools", "a/b", "a}b", "{a}", "a{", "a%2Fb", "a\0", "ü", "{",
            "}",
        ];
        let mut seen = std::collections::HashSet::new();
        for key in names.placement_index().into_iter().chain(names.pools()) {
            assert!(seen.insert(key));
        }
        for project in hostile {
            for name in ["b", "b.d", "-"] {
                let queue = queue(project, name);
                let keys = names.queue(&queue);
                for scope in hostile {
                    let keys = names.ledger(scope, &queue);
                    let prefix = format!("{{{}}}", ledger_tag(scope, &queue));
                    assert!(keys.all().all(|key| key.starts_with(&prefix)));
                    assert!(keys.all().all(|key| key.matches(['{', '}']).count() == 2));
                    assert!(keys.all().all(|key| seen.insert(key.to_owned())));
                    let tag = ledger_tag(scope, &queue);
                    assert_eq!(names.by_tag(&tag), Some(keys));
                }
                assert_eq!(names.by_tag(&tag(&queue)), Some(keys.clone()));
                let prefix = format!("{{{}}}", tag(&queue));
                assert!(keys.all().all(|key| key.starts_with(&prefix)));
                assert!(keys.all().all(|key| key.matches(['{', '}']).count() == 2));
                let subscriptions = names.subscriptions(&queue);
                let subscriptions = subscriptions.iter().map(String::as_str);
                let mut all = keys.all().chain(subscriptions);
                assert!(all.all(|key| seen.insert(key.to_owned())));
                assert_eq!(parse_tag(&tag(&queue)), Some(queue));
            }
            for key in names.records(&ProjectId::parse(project).unwrap()) {
                assert!(seen.insert(key));
            }
        }
    }
}
