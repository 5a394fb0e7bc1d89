//! What belongs to one queue of one project does not exist for any other, whatever characters the names are made of.

use isimud_contract::{ErrorKind, MessageId, Precondition, Resource};

use crate::bench::Bench;
use crate::outcome::{Outcome, Step, refused};
use crate::promise::promises;
use crate::steps::ids;

promises! {
    a_message_exists_in_its_own_queue_alone,
    a_message_exists_in_its_own_project_alone,
    one_id_in_two_queues_is_two_messages,
    a_claim_in_one_queue_holds_nothing_in_another,
    strange_names_do_not_collide,
    strange_names_are_purged_alone,
    glued_names_do_not_collide,
    names_of_a_stores_own_keys_are_harmless,
    the_longest_names_are_told_apart,
}

/// Names that fall together where a store trims, folds, normalises, compares as numbers, ends text at a NUL, glues
/// with a separator or takes a name for a pattern.
const PROJECTS: &[&str] = &[
    "a", "A", "a ", " a", "a.", "a.b", "a:b", "a/b", "a\0", "a\0b", "a\n", "\u{e1}", "a\u{301}",
    "🦀", "%", "_", "*", "?", "[a]", "{a}", "a*", "a%", "'", "\"", "\\", "1", "01", "1.0", "1e0",
    "null", "0x61", "$a",
];
const QUEUES: &[&str] = &["b", "B", "b.c", "...", "-", "_", "__", "1", "01", "null"];

fn every_queue(bench: &Bench) -> Vec<Bench> {
    let mut queues = Vec::new();
    for project in PROJECTS {
        queues.extend(QUEUES.iter().map(|queue| bench.at(project, queue)));
    }
    queues
}

/// Checks that another queue can do nothing with a message: neither read, nor list, nor delete, nor take it.
async fn assert_hidden(elsewhere: &Bench, id: MessageId) -> Step<()> {
    assert!(elsewhere.get(&[id]).await?.is_empty());
    assert!(elsewhere.all().await?.is_empty());
    assert_eq!(elsewhere.delete(&[id], Precondition::None).await?, 0);
    assert_eq!(elsewhere.counts().await?, (0, 0));
    assert!(elsewhere.pop(1).await?.is_empty());
    assert!(elsewhere.claim(1).await?.is_none());
    Ok(())
}

/// The reference reads and deletes any message of anybody by its id (quirk Q-SEC-1).
async fn a_message_exists_in_its_own_queue_alone(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    assert_hidden(&bench.on("elsewhere"), id).await?;
    assert_eq!(bench.all().await?, [id]);
    Ok(())
}

async fn a_message_exists_in_its_own_project_alone(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let stranger = bench.at("stranger", bench.queue.name.as_str());
    assert_hidden(&stranger, id).await?;
    assert_eq!(bench.all().await?, [id]);
    Ok(())
}

async fn one_id_in_two_queues_is_two_messages(bench: Bench) -> Outcome {
    let message = bench.message();
    let stranger = bench.at("stranger", bench.queue.name.as_str());
    let queues = [bench.on("other"), stranger, bench];
    for queue in &queues {
        queue.post_one(message.clone()).await?;
    }
    let [other, stranger, bench] = queues;
    assert_eq!(other.delete(&[message.id], Precondition::None).await?, 1);
    bench.take(1).await?;
    assert_eq!(other.counts().await?, (0, 0));
    assert_eq!(stranger.counts().await?, (1, 0));
    assert_eq!(bench.counts().await?, (0, 1));
    assert_eq!(stranger.get_one(message.id).await?.claim, None);
    Ok(())
}

async fn a_claim_in_one_queue_holds_nothing_in_another(bench: Bench) -> Outcome {
    let elsewhere = bench.on("elsewhere");
    let [theirs] = elsewhere.posted().await?;
    let [ours] = bench.posted().await?;
    let claim = bench.take(5).await?;
    assert_eq!(ids(&claim.messages), [ours]);
    assert_eq!(elsewhere.counts().await?, (1, 0));
    let answer = elsewhere.settle(&[theirs], claim.id).await;
    refused(answer, ErrorKind::NotClaimed)?;
    let answer = elsewhere.find(claim.id).await;
    refused(answer, ErrorKind::NotFound(Resource::Claim))?;
    Ok(())
}

async fn strange_names_do_not_collide(bench: Bench) -> Outcome {
    let queues = every_queue(&bench);
    let mut posted = Vec::new();
    for queue in &queues {
        posted.extend(queue.post(1).await?);
    }
    for (queue, id) in std::iter::zip(&queues, posted) {
        assert_eq!(queue.all().await?, [id], "{:?}", queue.queue);
        let claim = queue.take(5).await?;
        assert_eq!(ids(&claim.messages), [id], "{:?}", queue.queue);
    }
    Ok(())
}

async fn strange_names_are_purged_alone(bench: Bench) -> Outcome {
    let queues = every_queue(&bench);
    for queue in &queues {
        queue.post(1).await?;
    }
    for purged in queues.iter().step_by(2) {
        purged.purge().await?;
    }
    for (at, queue) in queues.iter().enumerate() {
        let expected = ((at % 2) as u64, 0);
        assert_eq!(queue.counts().await?, expected, "{:?}", queue.queue);
    }
    Ok(())
}

/// These pairs were one queue in the reference (quirk Q-SEC-8).
async fn glued_names_do_not_collide(bench: Bench) -> Outcome {
    for (one, other) in [
        (("a", "b.c"), ("a.b", "c")),
        (("a", "b-c"), ("a-b", "c")),
        (("a", "b_c"), ("a_b", "c")),
        (("a.", "b"), ("a", ".b")),
        (("a:", "b"), ("a", "b")),
        (("a/", "b"), ("a", "b")),
        (("a\0", "b"), ("a", "b")),
        (("{a}", "b"), ("a", "b")),
    ] {
        let (one, other) = (bench.at(one.0, one.1), bench.at(other.0, other.1));
        let (first, second) = (one.post(1).await?, other.post(1).await?);
        assert_eq!(one.all().await?, first, "{:?}", one.queue);
        assert_eq!(other.all().await?, second, "{:?}", other.queue);
        one.drop_queue().await?;
        assert_eq!(other.counts().await?, (1, 0), "{:?}", other.queue);
        other.drop_queue().await?;
    }
    Ok(())
}

async fn names_of_a_stores_own_keys_are_harmless(bench: Bench) -> Outcome {
    let [plain] = bench.posted().await?;
    let mut others = Vec::new();
    for suffix in [
        "messages", "claims", "metadata", "index", "counter", "free", "ids", "0",
    ] {
        for glue in [".", "_", "-"] {
            let name = format!("{}{glue}{suffix}", bench.queue.name);
            others.push(bench.on(&name));
        }
    }
    others.extend(["queues", "queues_set", "sqlite_master", "messages"].map(|name| bench.on(name)));
    for other in &others {
        let posted = other.post(1).await?;
        other.take(1).await?;
        assert_eq!(other.all().await?, posted, "{:?}", other.queue);
    }
    for other in &others {
        other.drop_queue().await?;
    }
    assert_eq!(bench.all().await?, [plain]);
    Ok(())
}

async fn the_longest_names_are_told_apart(bench: Bench) -> Outcome {
    let project = "🦀".repeat(255);
    let queue = "q".repeat(63);
    let mut posted = Vec::new();
    for (last_of_project, last_of_queue) in [("x", "x"), ("x", "y"), ("y", "x"), ("y", "y")] {
        let bench = bench.at(
            &format!("{project}{last_of_project}"),
            &format!("{queue}{last_of_queue}"),
        );
        posted.push((bench.post(1).await?, bench));
    }
    for (ids, queue) in posted {
        assert_eq!(queue.all().await?, ids);
    }
    Ok(())
}
