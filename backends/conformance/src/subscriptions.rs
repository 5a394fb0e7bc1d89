//! A queue has one subscription a subscriber, for as long as it lives; what has expired is not there for anybody.

use std::time::Duration;

use isimud_contract::{ErrorKind, Resource, Subscription, SubscriptionChange, SubscriptionId};
use serde_json::json;
use uuid::Uuid;

use crate::bench::{Bench, HOUR, MILLISECOND, MINUTE, minutes};
use crate::management::metadata;
use crate::outcome::{Abort, Outcome, Step, refused, together};
use crate::promise::promises;

promises! {
    an_unknown_subscription_is_not_found,
    a_subscription_is_kept_as_written,
    a_subscriber_is_subscribed_once,
    an_id_names_one_subscription,
    subscribers_are_compared_as_given,
    one_of_many_creators_wins,
    a_subscription_belongs_to_its_queue,
    a_topic_has_subscriptions_of_its_own,
    an_update_changes_what_it_names,
    a_change_for_another_address_changes_nothing,
    another_address_is_not_confirmed,
    the_same_address_stays_confirmed,
    an_update_keeps_subscribers_apart,
    an_address_that_was_left_is_free,
    an_unknown_subscription_is_not_changed,
    a_confirmation_is_noted,
    an_unknown_subscription_is_not_confirmed,
    a_deleted_subscription_is_gone,
    subscriptions_are_listed_by_id_page_by_page,
    all_subscriptions_of_a_queue_are_removed,
    a_subscription_lives_for_its_ttl,
    a_subscription_ends_at_its_moment,
    an_expired_subscription_is_nowhere,
    an_expired_subscriber_may_come_back,
    a_new_ttl_of_a_subscription_counts_from_now,
    only_a_new_ttl_restarts_a_subscription,
    a_listing_goes_past_many_that_expired,
    subscriptions_are_kept,
}

/// An id that ranks by its number.
fn id(number: u128) -> SubscriptionId {
    SubscriptionId(Uuid::from_u128(
        0x4000_8000_0000_0000_0000 + (number << 100),
    ))
}

fn missing() -> ErrorKind {
    ErrorKind::NotFound(Resource::Subscription)
}

fn taken() -> ErrorKind {
    ErrorKind::AlreadyExists(Resource::Subscription)
}

impl Bench {
    /// A subscription to be: an hour, not confirmed.
    fn subscription(&self, number: u128, subscriber: &str) -> Subscription {
        Subscription {
            id: id(number),
            source: self.queue.clone(),
            subscriber: subscriber.into(),
            ttl: HOUR,
            age: Duration::ZERO,
            options: metadata(json!({"z": 1, "a": {"number": number as u64}})),
            confirmed: false,
        }
    }

    /// Stores a subscription; it must be new.
    pub(crate) async fn subscribe(&self, number: u128, subscriber: &str) -> Step<Subscription> {
        self.subscribe_as(self.subscription(number, subscriber))
            .await
    }

    async fn subscribe_as(&self, new: Subscription) -> Step<Subscription> {
        match self.management()?.create_subscription(&new).await? {
            None => Ok(new),
            Some(present) => Err(Abort::Unexpected(format!("there is {present:?} already"))),
        }
    }

    async fn subscribed(&self, number: u128) -> Step<Option<Subscription>> {
        let store = self.management()?;
        Ok(store.find_subscription(&self.queue, id(number)).await?)
    }

    /// Checks that a subscription is as it should be, its age up to what the clock may have moved.
    async fn assert_subscribed(&self, expected: &Subscription) -> Step<()> {
        let store = self.management()?;
        let found = store.find_subscription(&self.queue, expected.id).await?;
        let found = found.ok_or_else(|| Abort::Unexpected(format!("{} is gone", expected.id)))?;
        self.assert_same(&found, expected);
        Ok(())
    }

    #[track_caller]
    fn assert_same(&self, found: &Subscription, expected: &Subscription) {
        self.assert_span(found.age, expected.age);
        let found = Subscription {
            age: expected.age,
            ..found.clone()
        };
        assert_eq!(&found, expected);
        assert_eq!(
            json!(found.options).to_string(),
            json!(expected.options).to_string()
        );
    }

    async fn change(&self, number: u128, change: SubscriptionChange) -> Step<()> {
        let store = self.management()?;
        let update = store.update_subscription(&self.queue, id(number), &change);
        Ok(update.await?)
    }

    async fn readdress(&self, number: u128, subscriber: &str) -> Step<()> {
        let subscriber = Some(subscriber.to_owned());
        let change = SubscriptionChange {
            subscriber,
            ..SubscriptionChange::default()
        };
        self.change(number, change).await
    }

    async fn confirm(&self, number: u128, confirmed: bool) -> Step<Subscription> {
        let store = self.management()?;
        let confirm = store.confirm_subscription(&self.queue, id(number), confirmed);
        Ok(confirm.await?)
    }

    pub(crate) async fn unsubscribe(&self, number: u128) -> Step<bool> {
        let store = self.management()?;
        Ok(store.delete_subscription(&self.queue, id(number)).await?)
    }

    /// The ids that a listing shows.
    async fn subscriptions(
        &self,
        after: Option<SubscriptionId>,
        limit: usize,
    ) -> Step<Vec<SubscriptionId>> {
        let store = self.management()?;
        let found = store.list_subscriptions(&self.queue, after, limit).await?;
        assert!(found.iter().all(|one| one.source == self.queue));
        Ok(found.iter().map(|one| one.id).collect())
    }
}

async fn an_unknown_subscription_is_not_found(bench: Bench) -> Outcome {
    assert_eq!(bench.subscribed(1).await?, None);
    assert!(bench.subscriptions(None, 10).await?.is_empty());
    bench.subscribe(2, "http://a").await?;
    assert_eq!(bench.subscribed(1).await?, None);
    Ok(())
}

async fn a_subscription_is_kept_as_written(bench: Bench) -> Outcome {
    let long = "x".repeat(5_000);
    for (number, (subscriber, ttl, options, confirmed)) in [
        ("http://h/p?q=ü🦀", HOUR, json!({}), false),
        (
            "",
            MINUTE,
            json!({"z": 1, "a": [null, 1.5, "\n"], "": {}}),
            true,
        ),
        (
            "mailto:a@b\0c",
            minutes(1) + MILLISECOND,
            json!({"n": u64::MAX}),
            false,
        ),
        (
            &long,
            Duration::from_secs(250_000_000_000),
            json!({"x": long}),
            true,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let new = Subscription {
            ttl,
            options: metadata(options),
            confirmed,
            ..bench.subscription(number as u128, subscriber)
        };
        let new = bench.subscribe_as(new).await?;
        bench.assert_subscribed(&new).await?;
    }
    let strange = Subscription {
        age: minutes(30),
        ..bench.subscription(9, "its age is ignored")
    };
    let new = bench.subscribe_as(strange).await?;
    let age = Duration::ZERO;
    bench
        .assert_subscribed(&Subscription { age, ..new })
        .await?;
    Ok(())
}

/// The one that is there stays as it is, and is returned.
async fn a_subscriber_is_subscribed_once(bench: Bench) -> Outcome {
    let first = bench.subscribe(1, "http://a").await?;
    let second = Subscription {
        ttl: minutes(2),
        options: metadata(json!({})),
        confirmed: true,
        ..bench.subscription(2, "http://a")
    };
    let store = bench.management()?;
    let present = store.create_subscription(&second).await?;
    let present = present.ok_or_else(|| Abort::Unexpected("there are two".into()))?;
    bench.assert_same(&present, &first);
    bench.assert_subscribed(&first).await?;
    assert_eq!(bench.subscriptions(None, 10).await?, [first.id]);
    Ok(())
}

async fn an_id_names_one_subscription(bench: Bench) -> Outcome {
    let first = bench.subscribe(1, "http://a").await?;
    let again = bench.subscribe(1, "http://b").await;
    refused(again, taken())?;
    bench.assert_subscribed(&first).await?;
    assert_eq!(bench.subscriptions(None, 10).await?, [first.id]);
    Ok(())
}

async fn subscribers_are_compared_as_given(bench: Bench) -> Outcome {
    let given = [
        "http://a",
        "HTTP://a",
        "http://A",
        "http://a/",
        "http://a ",
        " http://a",
        "http://a%20",
        "http://é",
        "http://e\u{301}",
        "http://a\0",
        "",
    ];
    for (number, subscriber) in given.iter().enumerate() {
        bench.subscribe(number as u128, subscriber).await?;
    }
    assert_eq!(bench.subscriptions(None, 100).await?.len(), given.len());
    Ok(())
}

async fn one_of_many_creators_wins(bench: Bench) -> Outcome {
    let created = together((0..8).map(|number| {
        let bench = bench.clone();
        async move {
            let new = bench.subscription(number, "http://a");
            let present = bench.management()?.create_subscription(&new).await?;
            Ok(present.map_or(new.id, |present| present.id))
        }
    }));
    let created = created.await?;
    assert!(created.iter().all(|id| *id == created[0]), "{created:?}");
    assert_eq!(bench.subscriptions(None, 10).await?, [created[0]]);
    Ok(())
}

async fn a_subscription_belongs_to_its_queue(bench: Bench) -> Outcome {
    let mine = bench.subscribe(1, "http://a").await?;
    for other in [
        bench.on("queue.too"),
        bench.at("stranger", "queue"),
        bench.at("project/queue", "queue"),
    ] {
        assert_eq!(other.subscribed(1).await?, None);
        refused(other.readdress(1, "http://b").await, missing())?;
        refused(other.confirm(1, true).await, missing())?;
        assert!(!other.unsubscribe(1).await?);
        let theirs = other.subscribe(2, "http://a").await?;
        other.assert_subscribed(&theirs).await?;
        let store = other.management()?;
        store.remove_subscriptions(&other.queue).await?;
        assert!(other.subscriptions(None, 10).await?.is_empty());
    }
    bench.assert_subscribed(&mine).await?;
    assert_eq!(bench.subscriptions(None, 10).await?, [mine.id]);
    Ok(())
}

async fn a_topic_has_subscriptions_of_its_own(bench: Bench) -> Outcome {
    let topic = bench.topic("queue");
    let queues = bench.subscribe(1, "http://a").await?;
    let topics = topic.subscribe(2, "http://a").await?;
    bench.assert_subscribed(&queues).await?;
    topic.assert_subscribed(&topics).await?;
    assert_eq!(topic.subscriptions(None, 10).await?, [topics.id]);
    Ok(())
}

async fn an_update_changes_what_it_names(bench: Bench) -> Outcome {
    let neighbour = bench.subscribe(2, "http://other").await?;
    let mut expected = bench.subscribe(1, "http://a").await?;
    bench.change(1, SubscriptionChange::default()).await?;
    bench.assert_subscribed(&expected).await?;

    expected.subscriber = "http://b".into();
    bench.readdress(1, "http://b").await?;
    bench.assert_subscribed(&expected).await?;

    expected.options = metadata(json!({"new": [1]}));
    let change = SubscriptionChange {
        options: Some(expected.options.clone()),
        ..SubscriptionChange::default()
    };
    bench.change(1, change).await?;
    bench.assert_subscribed(&expected).await?;

    expected.options = metadata(json!({}));
    expected.ttl = minutes(5);
    expected.subscriber = "http://c".into();
    let change = SubscriptionChange {
        subscriber: Some(expected.subscriber.clone()),
        ttl: Some(expected.ttl),
        options: Some(expected.options.clone()),
        ..SubscriptionChange::default()
    };
    bench.change(1, change).await?;
    bench.assert_subscribed(&expected).await?;
    bench.assert_subscribed(&neighbour).await?;
    Ok(())
}

async fn a_change_for_another_address_changes_nothing(bench: Bench) -> Outcome {
    let mut expected = bench.subscribe(1, "http://a").await?;
    bench.readdress(1, "http://b").await?;
    let change = |subscriber: &str| SubscriptionChange {
        options: Some(metadata(json!({"of": "a"}))),
        expected_subscriber: Some(subscriber.to_owned()),
        ..SubscriptionChange::default()
    };
    let changed = ErrorKind::InUse(Resource::Subscription);
    refused(bench.change(1, change("http://a")).await, changed)?;
    expected.subscriber = "http://b".into();
    bench.assert_subscribed(&expected).await?;

    bench.change(1, change("http://b")).await?;
    expected.options = metadata(json!({"of": "a"}));
    bench.assert_subscribed(&expected).await?;
    Ok(())
}

/// In the reference it is, so that confirmation can be bypassed (quirk Q-SUB-6).
async fn another_address_is_not_confirmed(bench: Bench) -> Outcome {
    bench.subscribe(1, "http://a").await?;
    assert!(bench.confirm(1, true).await?.confirmed);
    bench.readdress(1, "http://b").await?;
    let found = bench.subscribed(1).await?.map(|found| found.confirmed);
    assert_eq!(found, Some(false));
    Ok(())
}

async fn the_same_address_stays_confirmed(bench: Bench) -> Outcome {
    bench.subscribe(1, "http://a").await?;
    bench.confirm(1, true).await?;
    let change = SubscriptionChange {
        subscriber: Some("http://a".into()),
        ttl: Some(minutes(5)),
        options: Some(metadata(json!({}))),
        ..SubscriptionChange::default()
    };
    bench.change(1, change).await?;
    let found = bench.subscribed(1).await?.map(|found| found.confirmed);
    assert_eq!(found, Some(true));
    Ok(())
}

async fn an_update_keeps_subscribers_apart(bench: Bench) -> Outcome {
    let first = bench.subscribe(1, "http://a").await?;
    let second = bench.subscribe(2, "http://b").await?;
    let change = SubscriptionChange {
        subscriber: Some("http://a".into()),
        ttl: Some(minutes(5)),
        options: Some(metadata(json!({}))),
        ..SubscriptionChange::default()
    };
    refused(bench.change(2, change).await, taken())?;
    bench.assert_subscribed(&first).await?;
    bench.assert_subscribed(&second).await?;
    Ok(())
}

async fn an_address_that_was_left_is_free(bench: Bench) -> Outcome {
    bench.subscribe(1, "http://a").await?;
    bench.readdress(1, "http://b").await?;
    bench.subscribe(2, "http://a").await?;
    let again = bench.subscription(3, "http://b");
    let present = bench.management()?.create_subscription(&again).await?;
    assert_eq!(present.map(|present| present.id), Some(id(1)));
    assert_eq!(bench.subscriptions(None, 10).await?, [id(1), id(2)]);
    Ok(())
}

async fn an_unknown_subscription_is_not_changed(bench: Bench) -> Outcome {
    bench.subscribe(2, "http://b").await?;
    refused(bench.readdress(1, "http://a").await, missing())?;
    let nothing = SubscriptionChange::default();
    refused(bench.change(1, nothing).await, missing())?;
    assert_eq!(bench.subscriptions(None, 10).await?, [id(2)]);
    bench.subscribe(3, "http://a").await?;
    Ok(())
}

async fn a_confirmation_is_noted(bench: Bench) -> Outcome {
    let mut expected = bench.subscribe(1, "http://a").await?;
    let neighbour = bench.subscribe(2, "http://b").await?;
    for confirmed in [true, true, false, false, true] {
        expected.confirmed = confirmed;
        let answer = bench.confirm(1, confirmed).await?;
        bench.assert_same(&answer, &expected);
        bench.assert_subscribed(&expected).await?;
    }
    bench.assert_subscribed(&neighbour).await?;
    Ok(())
}

async fn an_unknown_subscription_is_not_confirmed(bench: Bench) -> Outcome {
    refused(bench.confirm(1, true).await, missing())?;
    bench.subscribe(1, "http://a").await?;
    assert!(bench.unsubscribe(1).await?);
    refused(bench.confirm(1, true).await, missing())?;
    assert!(bench.subscriptions(None, 10).await?.is_empty());
    Ok(())
}

async fn a_deleted_subscription_is_gone(bench: Bench) -> Outcome {
    assert!(!bench.unsubscribe(1).await?);
    bench.subscribe(1, "http://a").await?;
    let other = bench.subscribe(2, "http://b").await?;
    assert!(bench.unsubscribe(1).await?);
    assert_eq!(bench.subscribed(1).await?, None);
    assert_eq!(bench.subscriptions(None, 10).await?, [other.id]);
    assert!(!bench.unsubscribe(1).await?);
    bench.subscribe(3, "http://a").await?;
    bench.assert_subscribed(&other).await?;
    Ok(())
}

async fn subscriptions_are_listed_by_id_page_by_page(bench: Bench) -> Outcome {
    let mut expected = Vec::new();
    for at in 0..25 {
        let number = at * 7 % 25;
        let subscriber = format!("http://{at}");
        let new = bench.subscribe(number, &subscriber).await?;
        expected.push(new);
    }
    expected.sort_by_key(|one| one.id);
    let store = bench.management()?;
    let found = store.list_subscriptions(&bench.queue, None, 100).await?;
    assert_eq!(found.len(), 25);
    for (found, expected) in found.iter().zip(&expected) {
        bench.assert_same(found, expected);
    }
    let all: Vec<_> = expected.iter().map(|one| one.id).collect();
    for limit in [1, 7, 25] {
        let mut seen = Vec::new();
        while seen.len() <= all.len() {
            let page = bench.subscriptions(seen.last().copied(), limit).await?;
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            seen.extend(page);
        }
        assert_eq!(seen, all, "by {limit}");
    }
    assert!(bench.unsubscribe(10).await?);
    assert_eq!(bench.subscriptions(Some(id(10)), 2).await?, all[11..13]);
    let last = SubscriptionId(Uuid::max());
    assert!(bench.subscriptions(Some(last), 2).await?.is_empty());
    let first = SubscriptionId(Uuid::nil());
    assert_eq!(bench.subscriptions(Some(first), 1).await?, [all[0]]);
    Ok(())
}

async fn all_subscriptions_of_a_queue_are_removed(bench: Bench) -> Outcome {
    let store = bench.management()?;
    store.remove_subscriptions(&bench.queue).await?;
    for number in 0..5 {
        bench.subscribe(number, &format!("http://{number}")).await?;
    }
    let other = bench.on("other");
    let kept = other.subscribe(1, "http://1").await?;
    store.remove_subscriptions(&bench.queue).await?;
    assert!(bench.subscriptions(None, 10).await?.is_empty());
    assert_eq!(bench.subscribed(1).await?, None);
    other.assert_subscribed(&kept).await?;
    bench.subscribe(1, "http://1").await?;
    Ok(())
}

async fn a_subscription_lives_for_its_ttl(bench: Bench) -> Outcome {
    let new = bench.subscribe(1, "http://a").await?;
    bench.advance(minutes(59)).await;
    let age = minutes(59);
    bench
        .assert_subscribed(&Subscription { age, ..new })
        .await?;
    bench.advance(minutes(2)).await;
    assert_eq!(bench.subscribed(1).await?, None);
    Ok(())
}

async fn a_subscription_ends_at_its_moment(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    bench.subscribe(1, "http://a").await?;
    bench.advance(HOUR - MILLISECOND).await;
    assert_eq!(bench.subscriptions(None, 10).await?, [id(1)]);
    bench.advance(MILLISECOND).await;
    assert!(bench.subscriptions(None, 10).await?.is_empty());
    assert_eq!(bench.subscribed(1).await?, None);
    Ok(())
}

async fn an_expired_subscription_is_nowhere(bench: Bench) -> Outcome {
    let short = Subscription {
        ttl: minutes(2),
        ..bench.subscription(1, "http://a")
    };
    bench.subscribe_as(short).await?;
    bench.subscribe(2, "http://b").await?;
    bench.advance(minutes(3)).await;
    refused(bench.readdress(1, "http://c").await, missing())?;
    refused(bench.confirm(1, true).await, missing())?;
    assert!(!bench.unsubscribe(1).await?);
    assert_eq!(bench.subscribed(1).await?, None);
    assert_eq!(bench.subscriptions(None, 10).await?, [id(2)]);
    Ok(())
}

async fn an_expired_subscriber_may_come_back(bench: Bench) -> Outcome {
    for (number, subscriber) in [(1, "http://a"), (2, "http://b"), (3, "http://c")] {
        let short = Subscription {
            ttl: minutes(2),
            confirmed: true,
            ..bench.subscription(number, subscriber)
        };
        bench.subscribe_as(short).await?;
    }
    let stays = bench.subscribe(4, "http://d").await?;
    bench.advance(minutes(3)).await;
    let back = bench.subscribe(5, "http://a").await?;
    bench.assert_subscribed(&back).await?;
    bench.readdress(4, "http://b").await?;
    let same_id = bench.subscribe(3, "http://e").await?;
    bench.assert_subscribed(&same_id).await?;
    let expected = [id(3), stays.id, back.id];
    assert_eq!(bench.subscriptions(None, 10).await?, expected);
    Ok(())
}

async fn a_new_ttl_of_a_subscription_counts_from_now(bench: Bench) -> Outcome {
    let new = bench.subscribe(1, "http://a").await?;
    bench.advance(minutes(50)).await;
    let ttl = minutes(20);
    let change = SubscriptionChange {
        ttl: Some(ttl),
        ..SubscriptionChange::default()
    };
    bench.change(1, change).await?;
    bench
        .assert_subscribed(&Subscription { ttl, ..new.clone() })
        .await?;
    bench.advance(minutes(19)).await;
    let age = minutes(19);
    bench
        .assert_subscribed(&Subscription { ttl, age, ..new })
        .await?;
    bench.advance(minutes(2)).await;
    assert_eq!(bench.subscribed(1).await?, None);
    Ok(())
}

async fn only_a_new_ttl_restarts_a_subscription(bench: Bench) -> Outcome {
    bench.subscribe(1, "http://a").await?;
    bench.advance(minutes(50)).await;
    let change = SubscriptionChange {
        subscriber: Some("http://b".into()),
        options: Some(metadata(json!({}))),
        ttl: None,
        ..SubscriptionChange::default()
    };
    bench.change(1, change).await?;
    let confirmed = bench.confirm(1, true).await?;
    bench.assert_span(confirmed.age, minutes(50));
    bench.advance(minutes(11)).await;
    assert_eq!(bench.subscribed(1).await?, None);
    Ok(())
}

async fn a_listing_goes_past_many_that_expired(bench: Bench) -> Outcome {
    let many = together((0..8).map(|part| {
        let bench = bench.clone();
        async move {
            for number in (part..1_600).step_by(8) {
                let short = Subscription {
                    ttl: minutes(2),
                    ..bench.subscription(number, &format!("http://{number}"))
                };
                bench.subscribe_as(short).await?;
            }
            Ok(())
        }
    }));
    many.await?;
    let last = bench.subscribe(2_000, "http://last").await?;
    bench.advance(minutes(3)).await;
    assert_eq!(bench.subscriptions(None, 1).await?, [last.id]);
    let back = bench.subscribe(3, "http://3").await?;
    assert_eq!(bench.subscriptions(None, 10).await?, [back.id, last.id]);
    Ok(())
}

async fn subscriptions_are_kept(bench: Bench) -> Outcome {
    let kept = bench.subscribe(1, "http://a").await?;
    let kept = Subscription {
        confirmed: true,
        ..kept
    };
    bench.confirm(1, true).await?;
    let short = Subscription {
        ttl: minutes(2),
        ..bench.subscription(2, "http://b")
    };
    bench.subscribe_as(short).await?;
    let closed = bench.close().await?;
    closed.advance(minutes(30)).await;
    let bench = closed.open_again().await?;
    let age = minutes(30);
    bench
        .assert_subscribed(&Subscription { age, ..kept })
        .await?;
    assert_eq!(bench.subscriptions(None, 10).await?, [id(1)]);
    Ok(())
}
