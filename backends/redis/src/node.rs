//! What a server says of itself (`INFO`), and what became of it since it was asked last.

use std::collections::BTreeMap;

use redis::{Value, from_redis_value};

/// Every server that answers, by its address in the cluster; the only one has none.
pub(crate) type Nodes = BTreeMap<String, Node>;

/// A server as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it is compatible with; a Valkey says the Redis version of its birth.
    pub(crate) version: Option<(u32, u32)>,
    /// Another one each time it is started.
    run: String,
    /// Names the history of its data. A replica that takes over begins another, and remembers whose it was.
    history: String,
    earlier_history: String,
}

/// What became of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was started anew, with what was on its disk.
    Restarted,
    /// One of its replicas is in its place, with what had reached it.
    TakenOver,
}

impl Node {
    fn read(text: &str) -> Self {
        let mut node = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim_end();
            match name {
                "redis_version" => node.version = version(value),
                "run_id" => value.clone_into(&mut node.run),
                "master_replid" => value.clone_into(&mut node.history),
                "master_replid2" => value.clone_into(&mut node.earlier_history),
                _ => {}
            }
        }
        node
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    let mut part = || parts.next()?.parse().ok();
    Some((part()?, part()?))
}

/// Reads the answer to `INFO`; nothing of what cannot be read.
pub(crate) fn read(answer: Value) -> Nodes {
    let one = |address: Value, text: Value| -> Option<(String, Node)> {
        let text: String = from_redis_value(text).ok()?;
        Some((from_redis_value(address).ok()?, Node::read(&text)))
    };
    let nodes = match answer {
        Value::Map(each) => each.into_iter().filter_map(|(a, t)| one(a, t)).collect(),
        text => one(Value::SimpleString(String::new()), text)
            .into_iter()
            .collect::<Nodes>(),
    };
    let known = |node: &Node| !node.run.is_empty();
    nodes.into_iter().filter(|(_, node)| known(node)).collect()
}

/// What became of the servers between two looks at them, each with the address where it was seen.
pub(crate) fn changes(before: &Nodes, now: &Nodes) -> Vec<(String, Change)> {
    let same = |node: &Node| before.values().any(|other| other.run == node.run);
    let heir = |node: &Node| {
        before
            .values()
            .any(|other| other.history == node.earlier_history)
    };
    let changes = now.iter().filter_map(|(address, node)| {
        let change = if heir(node) && !before.values().any(|other| other.history == node.history) {
            Change::TakenOver
        } else if same(node) || !before.contains_key(address) {
            return None;
        } else {
            Change::Restarted
        };
        Some((address.clone(), change))
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "0000000000000000000000000000000000000000";

    fn info(run: &str, history: &str, earlier: &str) -> Value {
        let text = format!(
            "# Server\r\nredis_version:7.2.4\r\nrun_id:{run}\r\n# Replication\r\nmaster_replid:{history}\r\n\
             master_replid2:{earlier}\r\n"
        );
        Value::BulkString(text.into_bytes())
    }

    fn cluster(nodes: &[(&str, Value)]) -> Nodes {
        let each = nodes.iter().map(|(address, text)| {
            let address = Value::SimpleString((*address).to_owned());
            (address, text.clone())
        });
        read(Value::Map(each.collect()))
    }

    #[test]
    fn a_server_says_who_it_is() {
        let nodes = read(info("a", "h", NONE));
        assert_eq!(nodes[""].version, Some((7, 2)));
        assert_eq!(changes(&nodes, &nodes), []);
        assert_eq!(read(Value::Nil), Nodes::new());
        assert_eq!(read(Value::BulkString(b"nothing".into())), Nodes::new());
    }

    #[test]
    fn a_restart_is_told_from_a_failover() {
        let before = read(info("a", "h", NONE));
        let restarted = read(info("b", "i", NONE));
        let expected = [(String::new(), Change::Restarted)];
        assert_eq!(changes(&before, &restarted), expected);
        let heir = read(info("c", "i", "h"));
        let expected = [(String::new(), Change::TakenOver)];
        assert_eq!(changes(&before, &heir), expected);
        assert_eq!(changes(&heir, &heir), []);
        assert_eq!(changes(&Nodes::new(), &heir), []);
    }

    #[test]
    fn each_node_of_a_cluster_has_its_own_story() {
        let before = cluster(&[("a:1", info("a", "h", NONE)), ("b:1", info("b", "k", NONE))]);
        let now = cluster(&[
            ("a:1", info("z", "y", NONE)),
            ("c:1", info("c", "l", "k")),
            ("d:1", info("d", "m", NONE)),
        ]);
        let expected = [
            ("a:1".to_owned(), Change::Restarted),
            ("c:1".to_owned(), Change::TakenOver),
        ];
        assert_eq!(changes(&before, &now), expected);
    }
}
