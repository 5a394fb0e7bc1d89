//! A queue's record says in which stores its messages are, and every store knows its queues.

use std::collections::BTreeSet;

use isimud_contract::{Metadata, Placement, QueueKey, QueueRecord, Segment, StoreId};
use serde_json::json;

use crate::bench::Bench;
use crate::outcome::{Abort, Outcome, Step, together};
use crate::pools::pool_name;
use crate::promise::promises;

promises! {
    a_queue_keeps_its_placement,
    an_existing_queue_keeps_its_placement,
    an_update_replaces_the_placement,
    an_outdated_update_leaves_the_placement,
    a_deleted_queue_tells_its_placement,
    a_listing_of_queues_shows_placements,
    a_store_knows_its_queues,
    a_store_knows_queues_of_every_kind,
    a_queue_is_in_all_its_stores,
    a_queue_with_two_segments_in_a_store_is_met_once,
    a_queue_that_moves_is_in_its_new_store,
    a_refused_change_moves_nothing,
    a_deleted_queue_is_in_no_store,
    strange_names_of_stores_are_told_apart,
    a_walk_meets_every_queue_once,
    a_walk_meets_those_that_stay_while_others_move,
    queues_that_are_made_at_once_are_all_met,
    placements_are_kept_across_a_restart,
}

fn store_id(name: &str) -> StoreId {
    match name {
        "" => StoreId::Default,
        name => StoreId::Pool(pool_name(name)),
    }
}

/// A place from the names of stores and numbers of parts; the default store has no name.
fn placement(segments: &[(&str, u32)]) -> Placement {
    let segments = segments.iter().map(|(name, generation)| Segment {
        after: 0,
        store_id: store_id(name),
        generation: *generation,
    });
    Placement::of(segments).expect("trials use places with segments")
}

impl Bench {
    /// Creates the queue in a place; it must be new.
    async fn create_at(&self, placement: &Placement) -> Step<QueueRecord> {
        let store = self.management()?;
        let nothing = Metadata::new();
        let created = store.create_queue(&self.queue, &nothing, placement).await?;
        assert!(created, "{:?} exists already", self.queue);
        self.found().await
    }

    /// Gives the queue another place.
    async fn move_to(&self, placement: &Placement) -> Step<()> {
        let record = self.found().await?;
        let store = self.management()?;
        let metadata = &record.metadata;
        let update = store.update_queue(&self.queue, metadata, placement, record.version);
        match update.await? {
            Some(_) => Ok(()),
            None => Err(Abort::Unexpected("an update is refused".into())),
        }
    }

    /// The queues of a store, walked by pages of so many.
    async fn walk(&self, store_id: &StoreId, limit: usize) -> Step<Vec<QueueKey>> {
        const FAR_TOO_MANY: usize = 10_000;
        let mut met: Vec<QueueKey> = Vec::new();
        while met.len() < FAR_TOO_MANY {
            let page = self.management()?.queues_in(store_id, met.last(), limit);
            let page = page.await?;
            assert!(page.len() <= limit);
            if page.is_empty() {
                return Ok(met);
            }
            met.extend(page);
        }
        Err(Abort::Unexpected("a walk that does not end".into()))
    }

    /// The names of the queues of a store, sorted.
    async fn names_in(&self, store: &str) -> Step<Vec<String>> {
        let met = self.walk(&store_id(store), 10).await?;
        let mut names: Vec<_> = met.iter().map(|queue| queue.name.to_string()).collect();
        names.sort();
        Ok(names)
    }
}

async fn a_queue_keeps_its_placement(bench: Bench) -> Outcome {
    for (number, segments) in [
        &[("", 0)][..],
        &[("", 3)],
        &[("fast", 0)],
        &[("a \"b\"\\{}%/'~ü🦀", 0)],
        &[("old", 0), ("", 0), ("old", 1), ("new", u32::MAX)],
    ]
    .iter()
    .enumerate()
    {
        let bench = bench.on(&format!("q{number}"));
        let record = bench.create_at(&placement(segments)).await?;
        assert_eq!(record.placement, placement(segments));
    }
    let plain = bench.on("plain").create(json!({})).await?;
    assert_eq!(plain.placement, Placement::default());
    Ok(())
}

async fn an_existing_queue_keeps_its_placement(bench: Bench) -> Outcome {
    let record = bench.create_at(&placement(&[("a", 0)])).await?;
    let (other, nothing) = (placement(&[("b", 0)]), Metadata::new());
    let again = bench.management()?;
    assert!(!again.create_queue(&bench.queue, &nothing, &other).await?);
    assert_eq!(bench.found().await?, record);
    assert!(bench.names_in("b").await?.is_empty());
    assert_eq!(bench.names_in("a").await?, ["queue"]);
    Ok(())
}

async fn an_update_replaces_the_placement(bench: Bench) -> Outcome {
    let mut before = bench.create(json!({"n": 1})).await?;
    for segments in [
        &[("a", 0)][..],
        &[("a", 0), ("", 0)],
        &[("", 0)],
        &[("", 1)],
    ] {
        bench.move_to(&placement(segments)).await?;
        let after = bench.found().await?;
        assert_eq!(after.placement, placement(segments));
        assert_eq!(after.metadata, before.metadata);
        assert_ne!(after.version, before.version);
        before = after;
    }
    Ok(())
}

async fn an_outdated_update_leaves_the_placement(bench: Bench) -> Outcome {
    let first = bench.create_at(&placement(&[("a", 0)])).await?;
    bench.move_to(&placement(&[("b", 0)])).await?;
    let second = bench.found().await?;
    let store = bench.management()?;
    let (other, nothing) = (placement(&[("c", 0)]), Metadata::new());
    let late = store.update_queue(&bench.queue, &nothing, &other, first.version);
    assert_eq!(late.await?, None);
    assert_eq!(bench.found().await?, second);
    Ok(())
}

async fn a_deleted_queue_tells_its_placement(bench: Bench) -> Outcome {
    let record = bench.create_at(&placement(&[("a", 0), ("b", 7)])).await?;
    let store = bench.management()?;
    assert_eq!(store.delete_queue(&bench.queue).await?, Some(record));
    let afresh = bench.create(json!({})).await?;
    assert_eq!(afresh.placement, Placement::default());
    Ok(())
}

async fn a_listing_of_queues_shows_placements(bench: Bench) -> Outcome {
    let one = bench.on("one").create_at(&placement(&[("a", 0)])).await?;
    let two = bench.on("two").create_at(&Placement::default()).await?;
    let selection = isimud_contract::QueueSelection {
        limit: 10,
        ..Default::default()
    };
    let found = bench
        .management()?
        .list_queues(&bench.queue.project, &selection);
    assert_eq!(found.await?, [one, two]);
    Ok(())
}

async fn a_store_knows_its_queues(bench: Bench) -> Outcome {
    for store in ["", "a", "b"] {
        assert!(bench.names_in(store).await?.is_empty());
    }
    bench.on("a1").create_at(&placement(&[("a", 0)])).await?;
    bench.on("a2").create_at(&placement(&[("a", 5)])).await?;
    bench.on("b1").create_at(&placement(&[("b", 0)])).await?;
    bench.on("d1").create_at(&Placement::default()).await?;
    bench
        .at("other", "a3")
        .create_at(&placement(&[("a", 0)]))
        .await?;
    assert_eq!(bench.names_in("a").await?, ["a1", "a2", "a3"]);
    assert_eq!(bench.names_in("b").await?, ["b1"]);
    assert_eq!(bench.names_in("").await?, ["d1"]);
    Ok(())
}

async fn a_store_knows_queues_of_every_kind(bench: Bench) -> Outcome {
    let at = placement(&[("a", 0)]);
    for bench in [bench.on("q"), bench.topic("q"), bench.internal("q")] {
        bench.create_at(&at).await?;
    }
    assert_eq!(bench.names_in("a").await?, ["q", "~q", "~~q"]);
    Ok(())
}

async fn a_queue_is_in_all_its_stores(bench: Bench) -> Outcome {
    bench
        .create_at(&placement(&[("a", 0), ("", 0), ("b", 0)]))
        .await?;
    for store in ["a", "b", ""] {
        assert_eq!(bench.names_in(store).await?, ["queue"], "{store:?}");
    }
    assert!(bench.names_in("c").await?.is_empty());
    Ok(())
}

async fn a_queue_with_two_segments_in_a_store_is_met_once(bench: Bench) -> Outcome {
    bench
        .create_at(&placement(&[("a", 0), ("b", 0), ("a", 1)]))
        .await?;
    assert_eq!(bench.names_in("a").await?, ["queue"]);
    bench.move_to(&placement(&[("b", 0), ("a", 1)])).await?;
    assert_eq!(bench.names_in("a").await?, ["queue"]);
    Ok(())
}

async fn a_queue_that_moves_is_in_its_new_store(bench: Bench) -> Outcome {
    bench.create_at(&placement(&[("a", 0)])).await?;
    bench.move_to(&placement(&[("a", 0), ("", 0)])).await?;
    assert_eq!(bench.names_in("a").await?, ["queue"]);
    assert_eq!(bench.names_in("").await?, ["queue"]);
    bench.move_to(&placement(&[("", 0)])).await?;
    assert!(bench.names_in("a").await?.is_empty());
    assert_eq!(bench.names_in("").await?, ["queue"]);
    bench.move_to(&placement(&[("a", 0)])).await?;
    assert_eq!(bench.names_in("a").await?, ["queue"]);
    assert!(bench.names_in("").await?.is_empty());
    Ok(())
}

async fn a_refused_change_moves_nothing(bench: Bench) -> Outcome {
    let record = bench.create_at(&placement(&[("a", 0)])).await?;
    let store = bench.management()?;
    let (other, nothing) = (placement(&[("b", 0)]), Metadata::new());
    let late = store.update_queue(&bench.queue, &nothing, &other, record.version + 1);
    assert_eq!(late.await?, None);
    let unknown = bench.on("unknown");
    let update = store.update_queue(&unknown.queue, &nothing, &other, 1);
    assert_eq!(update.await?, None);
    assert_eq!(bench.names_in("a").await?, ["queue"]);
    assert!(bench.names_in("b").await?.is_empty());
    Ok(())
}

async fn a_deleted_queue_is_in_no_store(bench: Bench) -> Outcome {
    let store = bench.management()?;
    bench.create_at(&placement(&[("a", 0), ("", 0)])).await?;
    bench.on("stays").create_at(&placement(&[("a", 0)])).await?;
    store.delete_queue(&bench.queue).await?;
    assert_eq!(bench.names_in("a").await?, ["stays"]);
    assert!(bench.names_in("").await?.is_empty());
    bench.create_at(&placement(&[("", 0)])).await?;
    assert_eq!(bench.names_in("").await?, ["queue"]);
    assert_eq!(bench.names_in("a").await?, ["stays"]);
    Ok(())
}

async fn strange_names_of_stores_are_told_apart(bench: Bench) -> Outcome {
    let stores = [
        "", "a", "A", "a ", "a/", "a/b", "a0", "%", "%61", "*", "{a}", "é", "e\u{301}", "~", "🦀",
        "default", "null",
    ];
    for (number, store) in stores.iter().enumerate() {
        let bench = bench.on(&format!("q{number}"));
        bench.create_at(&placement(&[(store, 0)])).await?;
    }
    for (number, store) in stores.iter().enumerate() {
        let names = bench.names_in(store).await?;
        assert_eq!(names, [format!("q{number}")], "in {store:?}");
    }
    Ok(())
}

/// Projects whose names are in each other's way, and more queues than any page.
async fn a_walk_meets_every_queue_once(bench: Bench) -> Outcome {
    let at = placement(&[("a", 0)]);
    let projects = ["p", "p/", "p/q", "p0", "p\0", "%", "ü", "{p}", "P"];
    let mut expected = BTreeSet::new();
    for project in projects {
        for name in ["-", "0", "q", "q.1", "z"] {
            let bench = bench.at(project, name);
            bench.create_at(&at).await?;
            expected.insert(bench.queue);
        }
        bench.at(project, "elsewhere").create(json!({})).await?;
    }
    for limit in [1, 7, 45, 1_000] {
        let met = bench.walk(&store_id("a"), limit).await?;
        assert_eq!(met.len(), expected.len(), "by {limit}");
        assert_eq!(BTreeSet::from_iter(met), expected);
    }
    Ok(())
}

async fn a_walk_meets_those_that_stay_while_others_move(bench: Bench) -> Outcome {
    let (here, there) = (placement(&[("here", 0)]), placement(&[("there", 0)]));
    let mut stay = BTreeSet::new();
    for number in 0..250 {
        let bench = bench.on(&format!("q{number:03}"));
        bench.create_at(&here).await?;
        if number % 5 == 4 {
            stay.insert(bench.queue);
        }
    }
    let mut met = Vec::new();
    let mut at = 0;
    loop {
        let store = bench.management()?;
        let page = store.queues_in(&store_id("here"), met.last(), 3).await?;
        if page.is_empty() {
            break;
        }
        met.extend(page);
        // Others leave, before and behind the walk.
        for number in [at, 249 - at] {
            let other = bench.on(&format!("q{number:03}"));
            if number % 5 != 4 {
                other.move_to(&there).await?;
            }
        }
        at = (at + 1) % 250;
    }
    let staying: Vec<_> = met.iter().filter(|queue| stay.contains(queue)).collect();
    assert_eq!(staying.len(), stay.len(), "one was missed or met twice");
    assert_eq!(met.len(), BTreeSet::from_iter(&met).len());
    Ok(())
}

async fn queues_that_are_made_at_once_are_all_met(bench: Bench) -> Outcome {
    let made = together((0..8).map(|part| {
        let bench = bench.clone();
        async move {
            for number in 0..25 {
                let bench = bench.on(&format!("q{part}-{number}"));
                bench.create_at(&placement(&[("a", 0)])).await?;
                // Whoever reads at the same time takes nothing away.
                bench.walk(&store_id("a"), 100).await?;
            }
            Ok(())
        }
    }));
    made.await?;
    assert_eq!(bench.walk(&store_id("a"), 1_000).await?.len(), 200);
    Ok(())
}

async fn placements_are_kept_across_a_restart(bench: Bench) -> Outcome {
    let moving = placement(&[("a", 0), ("", 2)]);
    let before = bench.create_at(&moving).await?;
    let bench = bench.reopen().await?;
    assert_eq!(bench.found().await?, before);
    assert_eq!(bench.names_in("a").await?, ["queue"]);
    assert_eq!(bench.names_in("").await?, ["queue"]);
    Ok(())
}
