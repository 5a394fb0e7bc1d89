//! Queues: each is created once, keeps its metadata as written, and is changed by one writer at a time.

use isimud_contract::{Kind, Metadata, Placement, QueueName, QueueRecord};
use serde_json::json;

use crate::bench::{Bench, queue};
use crate::outcome::{Abort, Outcome, Step, together};
use crate::promise::promises;

promises! {
    a_queue_is_created_once,
    an_existing_queue_keeps_its_metadata,
    an_unknown_queue_is_not_found,
    metadata_are_kept_as_written,
    large_metadata_are_kept,
    deeply_nested_metadata_are_kept,
    an_update_replaces_the_metadata,
    every_update_changes_the_version,
    an_outdated_update_changes_nothing,
    an_unknown_queue_is_not_updated,
    a_version_ends_with_its_queue,
    a_deleted_queue_is_gone,
    a_deleted_queue_is_created_afresh,
    queues_are_counted_by_project,
    a_queue_exists_in_its_own_project_alone,
    a_topic_and_a_queue_of_one_name_are_two,
    topics_are_counted_apart,
    what_the_service_keeps_is_not_counted,
    strange_names_are_told_apart,
    queues_and_messages_live_apart,
    creators_at_the_same_time_create_once,
    one_of_many_updates_of_a_version_wins,
}

/// Metadata from a JSON object.
pub(crate) fn metadata(object: serde_json::Value) -> Metadata {
    match object {
        serde_json::Value::Object(metadata) => metadata,
        other => panic!("metadata are an object, not {other}"),
    }
}

impl Bench {
    /// Creates the queue; it must be new.
    pub(crate) async fn create(&self, object: serde_json::Value) -> Step<QueueRecord> {
        let created = self
            .management()?
            .create_queue(&self.queue, &metadata(object), &Placement::default())
            .await?;
        assert!(created, "{:?} exists already", self.queue);
        self.found().await
    }

    /// The record of the queue, which must exist.
    pub(crate) async fn found(&self) -> Step<QueueRecord> {
        let found = self.management()?.find_queue(&self.queue).await?;
        found.ok_or_else(|| Abort::Unexpected(format!("there is no queue {:?}", self.queue)))
    }

    /// How many queues, or topics, the project has.
    pub(crate) async fn count(&self, kind: Kind) -> Step<u64> {
        let store = self.management()?;
        Ok(store.count_queues(&self.queue.project, kind).await?)
    }

    async fn is_missing(&self) -> Step<bool> {
        let found = self.management()?.find_queue(&self.queue).await?;
        Ok(found.is_none())
    }

    pub(crate) async fn update(
        &self,
        object: serde_json::Value,
        version: u64,
    ) -> Step<Option<u64>> {
        let store = self.management()?;
        let metadata = metadata(object);
        let placement = Placement::default();
        Ok(store
            .update_queue(&self.queue, &metadata, &placement, version)
            .await?)
    }
}

/// Equal as text, so the order of keys counts and `1` is not `1.0`.
#[track_caller]
fn assert_same(actual: &Metadata, expected: &serde_json::Value) {
    assert_eq!(json!(actual).to_string(), expected.to_string());
}

async fn a_queue_is_created_once(bench: Bench) -> Outcome {
    let store = bench.management()?;
    let nothing = Metadata::new();
    let placement = Placement::default();
    assert!(
        store
            .create_queue(&bench.queue, &nothing, &placement)
            .await?
    );
    assert!(
        !store
            .create_queue(&bench.queue, &nothing, &placement)
            .await?
    );
    assert_eq!(bench.found().await?.name, bench.queue.name);
    assert!(bench.found().await?.metadata.is_empty());
    Ok(())
}

/// Creating again changes nothing (quirk Q-QUE-11, which clients know).
async fn an_existing_queue_keeps_its_metadata(bench: Bench) -> Outcome {
    let record = bench.create(json!({"team": "billing"})).await?;
    let other = metadata(json!({"team": "infra"}));
    let store = bench.management()?;
    let placement = Placement::default();
    assert!(!store.create_queue(&bench.queue, &other, &placement).await?);
    assert_eq!(bench.found().await?, record);
    Ok(())
}

async fn an_unknown_queue_is_not_found(bench: Bench) -> Outcome {
    assert!(bench.is_missing().await?);
    bench.on("queue.too").create(json!({})).await?;
    assert!(bench.is_missing().await?);
    Ok(())
}

async fn metadata_are_kept_as_written(bench: Bench) -> Outcome {
    for (number, object) in [
        json!({}),
        json!({"z": 1, "a": 2, "m": 3, "_default_message_ttl": 60, "10": 0, "9": 0}),
        json!({"": "", "a.b": 1, "a\"b": 2, "$": 3, "\u{0}": "\u{0}", "ü🦀": "é e\u{301}"}),
        json!({"null": null, "yes": true, "no": false, "list": [1, [2, {"deep": []}]]}),
        json!({"z": {"z": {"b": 1, "a": 2}, "a": 1}}),
        json!({"one": 1, "float": 1.0, "small": 1e-7, "minus": -5, "zero": -0.0}),
        json!({"largest": u64::MAX, "least": i64::MIN, "beyond": 1e300}),
    ]
    .into_iter()
    .enumerate()
    {
        let bench = bench.on(&format!("queue-{number}"));
        let record = bench.create(object.clone()).await?;
        assert_same(&record.metadata, &object);
        let version = bench.update(object.clone(), record.version).await?;
        assert_same(&bench.found().await?.metadata, &object);
        assert!(version.is_some());
    }
    Ok(())
}

/// The most that the service takes is 64 KiB.
async fn large_metadata_are_kept(bench: Bench) -> Outcome {
    let numbers = (0..5000).map(|number| (format!("key {number}"), json!(number)));
    let object = serde_json::Value::Object(numbers.collect());
    let record = bench.create(object.clone()).await?;
    assert_same(&record.metadata, &object);
    Ok(())
}

/// The service takes a thousand levels.
async fn deeply_nested_metadata_are_kept(bench: Bench) -> Outcome {
    let nested = (0..900).fold(json!([]), |inside, _| json!([inside]));
    let record = bench.create(json!({ "nested": nested })).await?;
    let shown = record.metadata["nested"].to_string();
    assert_eq!(shown, "[".repeat(901) + &"]".repeat(901));
    Ok(())
}

async fn an_update_replaces_the_metadata(bench: Bench) -> Outcome {
    let record = bench.create(json!({"old": 1, "both": 1})).await?;
    let object = json!({"new": 2, "both": 2});
    let version = bench.update(object.clone(), record.version).await?;
    let updated = bench.found().await?;
    assert_same(&updated.metadata, &object);
    assert_eq!(Some(updated.version), version);
    Ok(())
}

async fn every_update_changes_the_version(bench: Bench) -> Outcome {
    let mut versions = vec![bench.create(json!({})).await?.version];
    for number in 0..5 {
        let version = bench.update(json!({"n": number % 2}), versions[versions.len() - 1]);
        let version = version.await?.unwrap_or_default();
        assert!(!versions.contains(&version), "{version} was used before");
        versions.push(version);
    }
    Ok(())
}

async fn an_outdated_update_changes_nothing(bench: Bench) -> Outcome {
    let first = bench.create(json!({"n": 1})).await?;
    bench.update(json!({"n": 2}), first.version).await?;
    let second = bench.found().await?;
    for version in [first.version, u64::MAX, second.version + 1] {
        assert_eq!(bench.update(json!({"n": 3}), version).await?, None);
    }
    assert_eq!(bench.found().await?, second);
    Ok(())
}

async fn an_unknown_queue_is_not_updated(bench: Bench) -> Outcome {
    for version in [0, 1] {
        assert_eq!(bench.update(json!({}), version).await?, None);
    }
    assert!(bench.is_missing().await?);
    Ok(())
}

/// A queue that is deleted and created again is another one, and an update of the first must not hit it.
async fn a_version_ends_with_its_queue(bench: Bench) -> Outcome {
    let first = bench.create(json!({"n": 1})).await?;
    bench.management()?.delete_queue(&bench.queue).await?;
    assert_eq!(bench.update(json!({"n": 2}), first.version).await?, None);
    let second = bench.create(json!({"n": 3})).await?;
    assert_eq!(bench.update(json!({"n": 2}), first.version).await?, None);
    assert_eq!(bench.found().await?, second);
    Ok(())
}

async fn a_deleted_queue_is_gone(bench: Bench) -> Outcome {
    let store = bench.management()?;
    assert_eq!(store.delete_queue(&bench.queue).await?, None);
    let record = bench.create(json!({"n": 1})).await?;
    bench.on("other").create(json!({})).await?;
    assert_eq!(store.delete_queue(&bench.queue).await?, Some(record));
    assert!(bench.is_missing().await?);
    assert_eq!(store.delete_queue(&bench.queue).await?, None);
    assert_eq!(bench.count(Kind::Queue).await?, 1);
    Ok(())
}

async fn a_deleted_queue_is_created_afresh(bench: Bench) -> Outcome {
    bench.create(json!({"old": true})).await?;
    bench.management()?.delete_queue(&bench.queue).await?;
    let record = bench.create(json!({})).await?;
    assert!(record.metadata.is_empty());
    Ok(())
}

async fn queues_are_counted_by_project(bench: Bench) -> Outcome {
    let (one, two) = (bench.at("one", "q"), bench.at("two", "q"));
    assert_eq!(one.count(Kind::Queue).await?, 0);
    for number in 0..25 {
        one.on(&format!("queue-{number}")).create(json!({})).await?;
    }
    two.create(json!({})).await?;
    assert_eq!(one.count(Kind::Queue).await?, 25);
    assert_eq!(two.count(Kind::Queue).await?, 1);
    assert_eq!(bench.count(Kind::Queue).await?, 0);
    Ok(())
}

async fn a_queue_exists_in_its_own_project_alone(bench: Bench) -> Outcome {
    let record = bench.create(json!({"secret": 1})).await?;
    let stranger = bench.at("stranger", bench.queue.name.as_str());
    assert!(stranger.is_missing().await?);
    assert_eq!(stranger.update(json!({}), record.version).await?, None);
    let store = bench.management()?;
    assert_eq!(store.delete_queue(&stranger.queue).await?, None);
    assert_eq!(bench.found().await?, record);
    Ok(())
}

async fn a_topic_and_a_queue_of_one_name_are_two(bench: Bench) -> Outcome {
    let topic = bench.topic("queue");
    let queue = bench.create(json!({"kind": "queue"})).await?;
    assert!(topic.is_missing().await?);
    let record = topic.create(json!({"kind": "topic"})).await?;
    assert_eq!(record.name, QueueName::of_topic(&bench.queue.name));
    assert_eq!(topic.update(json!({}), queue.version).await?, None);
    assert_eq!(bench.found().await?, queue);
    let store = bench.management()?;
    assert_eq!(store.delete_queue(&bench.queue).await?, Some(queue));
    assert_eq!(topic.found().await?, record);
    Ok(())
}

async fn topics_are_counted_apart(bench: Bench) -> Outcome {
    for number in 0..5 {
        bench.on(&format!("q{number}")).create(json!({})).await?;
    }
    assert_eq!(bench.count(Kind::Topic).await?, 0);
    for number in 0..3 {
        bench.topic(&format!("t{number}")).create(json!({})).await?;
    }
    assert_eq!(bench.count(Kind::Queue).await?, 5);
    assert_eq!(bench.count(Kind::Topic).await?, 3);
    Ok(())
}

async fn what_the_service_keeps_is_not_counted(bench: Bench) -> Outcome {
    let internal = bench.internal("retries");
    let record = internal.create(json!({"n": 1})).await?;
    assert_eq!(internal.found().await?, record);
    assert_eq!(bench.count(Kind::Queue).await?, 0);
    assert_eq!(bench.count(Kind::Topic).await?, 0);
    Ok(())
}

/// In the reference the first two pairs are one queue (quirk Q-SEC-8).
async fn strange_names_are_told_apart(bench: Bench) -> Outcome {
    let names = [
        ("a", "b.c"),
        ("a.b", "c"),
        ("a", "queues_set"),
        ("a", "b"),
        ("A", "b"),
        ("a", "B"),
        ("a ", "b"),
        ("a\0", "b"),
        ("a:", "b"),
        ("{a}", "b"),
        ("%", "b"),
        ("*", "b"),
        ("\u{e1}", "b"),
        ("a\u{301}", "b"),
        ("1", "1"),
        ("01", "1"),
        ("1", "01"),
    ];
    let store = bench.management()?;
    for (number, (project, name)) in names.iter().enumerate() {
        let bench = bench.at(project, name);
        bench.create(json!({"number": number})).await?;
    }
    for (number, (project, name)) in names.iter().enumerate() {
        let key = queue(project, name);
        let found = bench.at(project, name).found().await?;
        assert_same(&found.metadata, &json!({"number": number}));
        assert_eq!(found.name, QueueName::clone(&key.name));
        assert!(store.delete_queue(&key).await?.is_some());
    }
    Ok(())
}

/// Messages need no record, and a record holds no messages: the service keeps the two in step.
async fn queues_and_messages_live_apart(bench: Bench) -> Outcome {
    bench.post(2).await?;
    assert!(bench.is_missing().await?);
    bench.create(json!({})).await?;
    assert_eq!(bench.counts().await?, (2, 0));
    bench.purge().await?;
    assert!(!bench.is_missing().await?);
    bench.post(2).await?;
    bench.management()?.delete_queue(&bench.queue).await?;
    assert_eq!(bench.counts().await?, (2, 0));
    Ok(())
}

async fn creators_at_the_same_time_create_once(bench: Bench) -> Outcome {
    let created = together((0..8).map(|number| {
        let bench = bench.clone();
        async move {
            let metadata = metadata(json!({"creator": number}));
            let store = bench.management()?;
            let placement = Placement::default();
            let created = store
                .create_queue(&bench.queue, &metadata, &placement)
                .await?;
            Ok(created.then_some(number))
        }
    }))
    .await?;
    let creators: Vec<_> = created.into_iter().flatten().collect();
    assert_eq!(creators.len(), 1);
    let found = bench.found().await?.metadata;
    assert_same(&found, &json!({"creator": creators[0]}));
    Ok(())
}

async fn one_of_many_updates_of_a_version_wins(bench: Bench) -> Outcome {
    let version = bench.create(json!({})).await?.version;
    let updates = together((0..8).map(|number| {
        let bench = bench.clone();
        async move { Ok((number, bench.update(json!({"n": number}), version).await?)) }
    }))
    .await?;
    let winners: Vec<_> = updates.iter().filter(|(_, new)| new.is_some()).collect();
    assert_eq!(winners.len(), 1);
    assert_same(&bench.found().await?.metadata, &json!({"n": winners[0].0}));
    Ok(())
}
