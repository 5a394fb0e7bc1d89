//! The names in a Zaqar's Redis, and the queues that they mean (spec: redis-layout.md 6 and 7).
//!
//! Keys are names glued with dots, and names may have dots, so a key alone does not say whose it is. The queues of a
//! management store are certain; what is left belongs to a project that is known, or else to the part in front of the
//! first dot, as Keystone's project ids have none.

use std::collections::{BTreeMap, BTreeSet};

use isimud_contract::{Metadata, QueueKey, Result};
use redis::Value;

use crate::found::{FoundQueue, Refusal, Survey, address};
use crate::reply;
use crate::source::{Ask, Source};

/// Keys asked for in one step of a walk.
const STEP: u64 = 2_000;

/// The names that one Redis has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Projects and queues of a management store.
    pub(crate) listed: BTreeSet<(String, String)>,
    /// Projects of a management store.
    pub(crate) projects: BTreeSet<String>,
    /// Members of a listing that are not its project's.
    pub(crate) strange: Vec<String>,
    /// What has a name that is not UTF-8, written with escapes.
    pub(crate) unreadable: BTreeSet<String>,
    /// `P.Q` of queues that have messages, or had some.
    pub(crate) with_messages: BTreeSet<String>,
    /// `P.Q` of queues that somebody subscribed to.
    pub(crate) with_subscriptions: BTreeSet<String>,
    pub(crate) pools: Vec<String>,
    pub(crate) flavors: Vec<String>,
}

impl Names {
    /// Walks over the server's sorted sets, whose number does not grow with that of the messages.
    pub(crate) async fn read(source: &Source) -> Result<Self> {
        let mut names = Self::default();
        for key in names.sorted_sets(source).await? {
            names.sort(source, key).await?;
        }
        Ok(names)
    }

    async fn sort(&mut self, source: &Source, key: String) -> Result<()> {
        if let Some(project) = key.strip_suffix(".queues_set") {
            let head = format!("{project}.");
            for member in self.members(source, &key, "").await? {
                match member.strip_prefix(&head) {
                    Some(queue) => self.listed.insert((project.to_owned(), queue.to_owned())),
                    None => {
                        self.strange.push(member);
                        continue;
                    }
                };
            }
            self.projects.insert(project.to_owned());
        } else if let Some(queue) = key.strip_suffix(".messages") {
            self.with_messages.insert(queue.to_owned());
        } else if let Some(queue) = key.strip_suffix(".subscriptions") {
            self.with_subscriptions.insert(queue.to_owned());
        } else if key == "msgset_index" {
            let members = self.members(source, &key, ".messages").await?;
            let queues = members
                .iter()
                .filter_map(|key| key.strip_suffix(".messages"));
            self.with_messages.extend(queues.map(str::to_owned));
        } else if key == "pools" || key == "flavors" {
            let tail = format!(".{key}");
            let members = self.members(source, &key, &tail).await?;
            let plain = |name: String| name.strip_suffix(&tail).map_or(name.clone(), str::to_owned);
            let of = if key == "pools" {
                &mut self.pools
            } else {
                &mut self.flavors
            };
            of.extend(members.into_iter().map(plain));
            of.sort_unstable();
        }
        Ok(())
    }

    /// The names of a source whose queues come from elsewhere.
    pub fn of_pools(pools: Vec<String>, flavors: Vec<String>) -> Self {
        Self {
            pools,
            flavors,
            ..Self::default()
        }
    }

    /// Whether it lists queues, as a management store does.
    pub fn lists_queues(&self) -> bool {
        !self.listed.is_empty()
    }

    /// The keys of sorted sets whose names could be Zaqar's, each once.
    async fn sorted_sets(&mut self, source: &Source) -> Result<BTreeSet<String>> {
        let mut keys = BTreeSet::new();
        let mut cursor = "0".to_owned();
        let mut knows_types = true;
        loop {
            let mut question = Ask::Scan.about(cursor.as_str());
            question.arg("COUNT").arg(STEP);
            if knows_types {
                question.arg("TYPE").arg("zset");
            }
            let (next, found) = match source.ask_all(&[question]).await?.pop() {
                // Before Redis 6 all names come.
                Some(Value::ServerError(_)) if knows_types => {
                    knows_types = false;
                    continue;
                }
                answer => reply::scanned(answer.unwrap_or(Value::Nil))?,
            };
            for key in found {
                let key = reply::bytes(key)?;
                if let Some(stem) = stem(&key) {
                    match String::from_utf8(key) {
                        Ok(key) => keys.insert(key),
                        Err(_) => self.unreadable.insert(stem),
                    };
                }
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        let names: Vec<String> = keys.into_iter().collect();
        let mut sets = BTreeSet::new();
        for names in names.chunks(500) {
            let questions: Vec<_> = names
                .iter()
                .map(|key| Ask::Zcard.about(key.as_str()))
                .collect();
            let answers = source.ask_all(&questions).await?;
            let pairs = names.iter().zip(answers);
            let is_set = |(key, answer): (&String, Value)| {
                matches!(answer, Value::Int(1..)).then(|| key.clone())
            };
            sets.extend(pairs.filter_map(is_set));
        }
        Ok(sets)
    }

    /// The members of an index, which may end with what is no part of their names.
    async fn members(&mut self, source: &Source, key: &str, tail: &str) -> Result<Vec<String>> {
        let mut members = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut question = Ask::Zscan.about(key);
            question.arg(cursor.as_str()).arg("COUNT").arg(STEP);
            let (next, found) = reply::scanned(source.ask(question).await?)?;
            for name in found.into_iter().step_by(2) {
                let name = reply::bytes(name)?;
                match String::from_utf8(name) {
                    Ok(name) => members.push(name),
                    Err(error) => {
                        let name = error.as_bytes();
                        let name = name.strip_suffix(tail.as_bytes()).unwrap_or(name);
                        self.unreadable
                            .insert(format!("queue {}", name.escape_ascii()));
                    }
                }
            }
            if next == "0" {
                return Ok(members);
            }
            cursor = next;
        }
    }
}

/// What a key is the index of, with escapes; `None` when it is no index of Zaqar's.
fn stem(key: &[u8]) -> Option<String> {
    if [&b"msgset_index"[..], b"pools", b"flavors"].contains(&key) {
        return Some(key.escape_ascii().to_string());
    }
    if let Some(project) = key.strip_suffix(b".queues_set") {
        return Some(format!("queues of project {}", project.escape_ascii()));
    }
    let tails = [&b".messages"[..], b".subscriptions"];
    let queue = tails.iter().find_map(|tail| key.strip_suffix(*tail))?;
    Some(format!("queue {}", queue.escape_ascii()))
}

/// Says which queues the names mean: those of the management store, whose metadata may come with them, and those that
/// only the message stores know.
pub fn survey(
    management: &Names,
    metadata: Vec<(String, String, Metadata)>,
    stores: &[Names],
) -> Survey {
    let mut drawing = Drawing {
        with_messages: joined(stores, |names| &names.with_messages),
        with_subscriptions: joined(stores, |names| &names.with_subscriptions),
        queues: BTreeMap::new(),
        refused: Vec::new(),
    };
    let unreadable = stores.iter().chain([management]);
    let unreadable: BTreeSet<&String> = unreadable.flat_map(|names| &names.unreadable).collect();
    for what in unreadable {
        drawing
            .refused
            .push(Refusal::new(what, "its name is not UTF-8"));
    }
    for member in &management.strange {
        let why = "it stands in the listing of a project that is not its own";
        let what = format!("queue {member}");
        drawing.refused.push(Refusal::new(what, why));
    }
    let mut listed: BTreeMap<_, _> = management
        .listed
        .iter()
        .map(|name| (name.clone(), None))
        .collect();
    for (project, queue, metadata) in metadata {
        listed.insert((project, queue), Some(metadata));
    }
    let mut projects = management.projects.clone();
    projects.extend(listed.keys().map(|(project, _)| project.clone()));
    let owners = drawing.listed(listed);
    drawing.unlisted(&owners, &projects);
    Survey {
        queues: drawing.queues.into_values().collect(),
        refused: drawing.refused,
        pools: management.pools.clone(),
        flavors: management.flavors.clone(),
    }
}

/// A survey that is being made.
struct Drawing<'a> {
    with_messages: BTreeSet<&'a str>,
    with_subscriptions: BTreeSet<&'a str>,
    queues: BTreeMap<QueueKey, FoundQueue>,
    refused: Vec<Refusal>,
}

impl Drawing<'_> {
    /// Adds the queues that a management store lists, and returns their keys with the number of queues that have them.
    fn listed(
        &mut self,
        listed: BTreeMap<(String, String), Option<Metadata>>,
    ) -> BTreeMap<String, u32> {
        let mut owners: BTreeMap<String, u32> = BTreeMap::new();
        for (project, queue) in listed.keys() {
            *owners.entry(format!("{project}.{queue}")).or_default() += 1;
        }
        for ((project, queue), metadata) in listed {
            let key = format!("{project}.{queue}");
            let shared = owners.get(&key).is_some_and(|count| *count > 1);
            if shared {
                let why = "another project's queue has the same keys: whose the messages are cannot be told";
                let what = format!("messages and subscriptions of {project}/{queue}");
                self.refused.push(Refusal::new(what, why));
            }
            self.add((&project, &queue), &key, !shared, metadata);
        }
        owners
    }

    /// Adds the queues that no management store lists.
    fn unlisted(&mut self, owners: &BTreeMap<String, u32>, projects: &BTreeSet<String>) {
        let keys: Vec<&str> = self
            .with_messages
            .union(&self.with_subscriptions)
            .copied()
            .collect();
        for key in keys {
            if owners.contains_key(key) {
                continue;
            }
            match split(key, projects) {
                Ok(name) => self.add(name, key, true, None),
                Err(why) => self.refused.push(Refusal::new(format!("queue {key}"), why)),
            }
        }
    }

    fn add(
        &mut self,
        (project, queue): (&str, &str),
        key: &str,
        is_owner: bool,
        metadata: Option<Metadata>,
    ) {
        match address(project, queue) {
            Ok(queue) => {
                let found = FoundQueue {
                    queue: queue.clone(),
                    has_messages: is_owner && self.with_messages.contains(key),
                    subscribed: is_owner && self.with_subscriptions.contains(key),
                    metadata,
                };
                self.queues.insert(queue, found);
            }
            Err(why) => {
                let what = format!("queue {project}/{queue}");
                self.refused.push(Refusal::new(what, why));
            }
        }
    }
}

fn joined(stores: &[Names], of: fn(&Names) -> &BTreeSet<String>) -> BTreeSet<&str> {
    let names = stores.iter().flat_map(|names| of(names).iter());
    names.map(String::as_str).collect()
}

/// Takes apart a key that no management store has.
fn split<'a>(
    key: &'a str,
    projects: &BTreeSet<String>,
) -> std::result::Result<(&'a str, &'a str), &'static str> {
    let dots = key.match_indices('.').map(|(at, _)| at);
    let known: Vec<usize> = dots.filter(|at| projects.contains(&key[..*at])).collect();
    let at = match known.as_slice() {
        [at] => *at,
        [] => key.find('.').ok_or("it belongs to no project")?,
        _ => return Err("more than one project could have it, and no project lists it"),
    };
    Ok((&key[..at], &key[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listed: &[(&str, &str)], with_messages: &[&str]) -> Names {
        Names {
            listed: listed
                .iter()
                .map(|(p, q)| ((*p).into(), (*q).into()))
                .collect(),
            projects: listed.iter().map(|(p, _)| (*p).into()).collect(),
            with_messages: with_messages.iter().map(|key| (*key).into()).collect(),
            ..Names::default()
        }
    }

    fn found(survey: &Survey) -> Vec<(String, bool)> {
        let queues = survey.queues.iter();
        queues
            .map(|found| (found.queue.to_string(), found.has_messages))
            .collect()
    }

    #[test]
    fn queues_keep_their_dots() {
        let names = names(&[("p", "a.b"), ("p", "a")], &["p.a.b"]);
        let survey = survey(&names, vec![], std::slice::from_ref(&names));
        assert_eq!(
            found(&survey),
            [("p/a".into(), false), ("p/a.b".into(), true)]
        );
        assert!(survey.refused.is_empty());
    }

    #[test]
    fn two_tenants_with_the_same_keys_are_told_of_and_get_no_messages() {
        let names = names(&[("a", "b.c"), ("a.b", "c")], &["a.b.c"]);
        let survey = survey(&names, vec![], std::slice::from_ref(&names));
        assert_eq!(
            found(&survey),
            [("a/b.c".into(), false), ("a.b/c".into(), false)]
        );
        assert_eq!(survey.refused.len(), 2);
    }

    #[test]
    fn messages_without_a_queue_are_found_a_project() {
        let management = names(&[("p.1", "q"), ("x", "q"), ("x.y", "q")], &[]);
        let store = names(&[], &["p.1.dead", "other.dead.letters", "x.y.dead", "lone"]);
        let survey = survey(&management, vec![], &[store]);
        let queues = found(&survey);
        assert!(queues.contains(&("p.1/dead".into(), true)), "{queues:?}");
        assert!(queues.contains(&("other/dead.letters".into(), true)));
        let refused: Vec<_> = survey
            .refused
            .iter()
            .map(|refused| refused.what.as_str())
            .collect();
        assert_eq!(refused, ["queue lone", "queue x.y.dead"]);
    }

    #[test]
    fn names_that_are_not_utf8_are_refused_once() {
        let mut management = names(&[("p", "q")], &[]);
        management.unreadable.insert("queue p.\\xff".into());
        let store = management.clone();
        let survey = survey(&management, vec![], &[store]);
        assert_eq!(
            survey.refused,
            [Refusal::new("queue p.\\xff", "its name is not UTF-8")]
        );
        for (key, expected) in [
            (&b"p.\xff.messages"[..], Some("queue p.\\xff")),
            (b"\xff.queues_set", Some("queues of project \\xff")),
            (b"p.q.subscriptions", Some("queue p.q")),
            (b"pools", Some("pools")),
            (b"p.q.claims", None),
        ] {
            assert_eq!(stem(key).as_deref(), expected);
        }
    }

    #[test]
    fn names_that_no_queue_can_have_are_refused() {
        let names = names(&[("p", "a b"), ("", "q"), ("p", "fine")], &["p.a b"]);
        let survey = survey(&names, vec![], std::slice::from_ref(&names));
        assert_eq!(found(&survey), [("p/fine".into(), false)]);
        assert_eq!(survey.refused.len(), 2);
    }
}
