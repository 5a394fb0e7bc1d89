//! What a bridge is, as operators write it.

use std::collections::HashSet;

use isimud_contract::{ProjectId, QueueKey, QueueName};

/// From where to where: what tells one bridge from another.
pub(super) type Pair = (QueueKey, QueueKey);

/// A bridge that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The queue that is emptied.
    pub from: QueueKey,
    /// The queue that gets its messages.
    pub to: QueueKey,
    /// Messages a second, at the most.
    pub rate: Option<u32>,
    /// Where messages go that `to` refuses for good.
    pub dead_letter: Option<QueueKey>,
}

impl Rule {
    /// Reads what an operator wrote: queues as `PROJECT/QUEUE`. Says what is wrong with it.
    pub fn parse(
        from: &str,
        to: &str,
        rate: Option<u32>,
        dead_letter: Option<&str>,
    ) -> Result<Self, String> {
        Ok(Self {
            from: parse_queue(from)?,
            to: parse_queue(to)?,
            rate: rate.filter(|rate| *rate > 0),
            dead_letter: dead_letter
                .filter(|text| !text.is_empty())
                .map(parse_queue)
                .transpose()?,
        })
    }

    pub(super) fn pair(&self) -> Pair {
        (self.from.clone(), self.to.clone())
    }
}

/// Reads `PROJECT/QUEUE`. No queue's name has a `/`, and a project's may: the last one separates. A topic is `~` and its
/// name. Neither part may be left out, as no request may leave them out.
pub fn parse_queue(text: &str) -> Result<QueueKey, String> {
    let (project, queue) = text
        .rsplit_once('/')
        .ok_or_else(|| format!("'{text}' names no project; write PROJECT/QUEUE"))?;
    let project = ProjectId::parse(project)
        .map_err(|_| format!("'{text}' has no name of a project before the last '/'"))?;
    let name = match queue.strip_prefix('~') {
        Some(topic) => QueueName::parse(topic).map(|name| QueueName::of_topic(&name)),
        None => QueueName::parse(queue),
    };
    let name = name.map_err(|_| format!("'{text}' has no name of a queue behind the last '/'"))?;
    Ok(QueueKey::new(project, name))
}

/// Refuses bridges that cannot be together: one twice, and any that form a circle, in which messages would go round for
/// ever. Says which.
pub fn check_rules<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Result<(), String> {
    let rules: Vec<&Rule> = rules.into_iter().collect();
    let mut pairs = HashSet::new();
    for rule in &rules {
        let Rule { from, to, .. } = rule;
        if !pairs.insert(rule.pair()) {
            return Err(format!("there are two bridges from {from} to {to}"));
        }
        if leads_to(&rules, rule, from) {
            return Err(format!(
                "messages that leave {from} for {to} would come back to {from}"
            ));
        }
    }
    Ok(())
}

/// Whether what a bridge carries may come to a queue by this bridge and others.
fn leads_to(rules: &[&Rule], first: &Rule, goal: &QueueKey) -> bool {
    let ends = |rule: &Rule| std::iter::once(rule.to.clone()).chain(rule.dead_letter.clone());
    let mut reached: Vec<QueueKey> = ends(first).collect();
    let mut at = 0;
    while let Some(queue) = reached.get(at).cloned() {
        if queue == *goal {
            return true;
        }
        for rule in rules.iter().filter(|rule| rule.from == queue) {
            for end in ends(rule) {
                if !reached.contains(&end) {
                    reached.push(end);
                }
            }
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(from: &str, to: &str) -> Rule {
        Rule::parse(from, to, None, None).expect("a rule")
    }

    #[test]
    fn the_last_slash_separates_project_and_queue() {
        for (text, project, queue) in [
            ("shop/orders", "shop", "orders"),
            ("a/b/orders", "a/b", "orders"),
            ("a b%/q.1", "a b%", "q.1"),
            ("shop/~news", "shop", "~news"),
        ] {
            let key = parse_queue(text).expect(text);
            assert_eq!(
                (key.project.as_str(), key.name.as_str()),
                (project, queue),
                "{text}"
            );
        }
        for bad in [
            "",
            "orders",
            "/orders",
            "shop/",
            "shop/a b",
            "shop/~~moves",
            "shop/q~1",
        ] {
            parse_queue(bad).expect_err(bad);
        }
        let error = parse_queue("orders").expect_err("no project");
        assert!(error.contains("PROJECT/QUEUE"), "{error}");
    }

    #[test]
    fn empty_optional_bridge_settings_count_as_unset() {
        let rule = Rule::parse("p/a", "p/b", Some(0), Some("")).expect("a rule");
        assert_eq!((rule.rate, rule.dead_letter), (None, None));
    }

    #[test]
    fn duplicate_bridges_and_cycles_are_refused() {
        let check = |rules: &[Rule]| check_rules(rules);
        let (ab, bc, ca) = (rule("p/a", "p/b"), rule("p/b", "p/c"), rule("p/c", "p/a"));
        assert_eq!(check(&[ab.clone(), bc.clone()]), Ok(()));
        assert_eq!(check(&[ab.clone(), rule("p/a", "p/c")]), Ok(()));
        check(&[rule("p/a", "p/a")]).expect_err("to itself");
        check(&[ab.clone(), ab.clone()]).expect_err("twice");
        check(&[ab.clone(), bc.clone(), ca]).expect_err("a circle");
        let back = Rule::parse("p/b", "p/c", None, Some("p/a")).expect("a rule");
        check(&[ab, back]).expect_err("dead letters go round");
        // A circle elsewhere is told of, and does not hang the search.
        check(&[rule("p/x", "p/y"), rule("p/y", "p/z"), rule("p/z", "p/y")])
            .expect_err("a circle behind");
    }
}
