//! The names of keys. No project or queue can reach another's key, whatever characters it contains.

use isimud_contract::{ProjectId, QueueKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What a project's name keeps as it is. `/`, `{`, `}`, `%` and NUL are not among it.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// One letter a key, in the order of the scripts' KEYS: data, free, held, wait, time, mark, claim, rank.
const LETTERS: [&str; 8] = ["d", "f", "h", "w", "t", "m", "c", "r"];

/// The keys of a queue's messages, all in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    names: [String; 8],
}

impl Keys {
    /// All of them, as the scripts want them.
    pub(crate) fn all(&self) -> &[String] {
        &self.names
    }

    /// Those that a purge deletes. The rank stays, so that positions from before stay positions.
    pub(crate) fn purged(&self) -> &[String] {
        &self.names[..7]
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
        let tag = tag(queue);
        Keys {
            names: LETTERS.map(|letter| format!("{}{{{tag}}}{letter}", self.prefix)),
        }
    }

    /// The records of a project's queues, and their names in order.
    pub(crate) fn records(&self, project: &ProjectId) -> [String; 2] {
        let project = escaped(project);
        ["records", "names"].map(|what| format!("{}{{{project}}}{what}", self.prefix))
    }

    /// Where changes of records are published, as tags of their queues.
    pub(crate) fn changes(&self) -> String {
        format!("{}changes", self.prefix)
    }

    /// Which server sweeps.
    pub(crate) fn lease(&self) -> String {
        format!("{}sweep:lease", self.prefix)
    }

    /// Which queues to sweep, and when.
    pub(crate) fn agenda(&self) -> String {
        format!("{}sweep:agenda", self.prefix)
    }
}

fn escaped(project: &ProjectId) -> String {
    utf8_percent_encode(project.as_str(), PLAIN).to_string()
}

/// A queue as one text; [`parse_tag`] reads it again. A queue's name needs no escape.
pub(crate) fn tag(queue: &QueueKey) -> String {
    format!("{}/{}", escaped(&queue.project), queue.name.as_str())
}

/// Reads a queue's tag; `None` for anything else.
pub(crate) fn parse_tag(tag: &str) -> Option<QueueKey> {
    let (project, name) = tag.split_once('/')?;
    let project = percent_decode_str(project).decode_utf8().ok()?;
    Some(QueueKey::new(
        ProjectId::parse(&project).ok()?,
        isimud_contract::QueueName::parse(name).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use isimud_contract::QueueName;

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
        assert_eq!(keys.all()[0], "isimud:{demo/tasks}d");
        assert_eq!(keys.purged().len(), 7);
    }

    #[test]
    fn no_project_reaches_the_keys_of_another() {
        let names = Names::new("");
        let hostile = [
            "a", "a/b", "a}b", "{a}", "a{", "a%2Fb", "a\0", "ü", "{", "}",
        ];
        let mut seen = std::collections::HashSet::new();
        for project in hostile {
            for name in ["b", "b.d", "-"] {
                let queue = queue(project, name);
                let keys = names.queue(&queue);
                assert!(keys.all().iter().all(|key| seen.insert(key.clone())));
                assert!(keys.all()[0].matches(['{', '}']).count() == 2);
                assert_eq!(parse_tag(&tag(&queue)), Some(queue));
            }
            for key in names.records(&ProjectId::parse(project).unwrap()) {
                assert!(seen.insert(key));
            }
        }
    }
}
