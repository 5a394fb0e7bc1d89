//! A message ends to the millisecond, for every caller at once, whether or not anybody has removed it.

use std::time::Duration;

use isimud_contract::{Message, Precondition};

use crate::bench::{Bench, HOUR, MILLISECOND, MINUTE, minutes};
use crate::outcome::Outcome;
use crate::promise::promises;
use crate::steps::{first, ids};

promises! {
    a_message_lives_to_the_millisecond,
    an_ended_message_is_not_listed,
    an_ended_message_is_not_claimed,
    an_ended_message_is_not_popped,
    an_ended_message_is_not_counted,
    an_ended_message_is_not_deleted,
    the_remaining_ttl_counts_and_not_the_ttl,
    messages_end_one_by_one,
    a_message_may_end_before_it_is_due,
    a_ttl_of_two_weeks_is_kept,
    an_ended_message_may_be_posted_again,
    ended_messages_in_front_hide_nothing,
    ten_thousand_ended_messages_in_front_block_nothing,
}

async fn a_message_lives_to_the_millisecond(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    let id = bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE - MILLISECOND).await;
    assert_eq!(bench.listed().await?, [id]);
    assert_eq!(bench.get_one(id).await?.remaining_ttl, MILLISECOND);
    assert_eq!(bench.counts().await?, (1, 0));
    bench.advance(MILLISECOND).await;
    assert!(bench.listed().await?.is_empty());
    assert!(bench.get(&[id]).await?.is_empty());
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

// Each of these asks once, so that no other call can have removed the message before.

async fn an_ended_message_is_not_listed(bench: Bench) -> Outcome {
    bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE).await;
    assert!(bench.all().await?.is_empty());
    Ok(())
}

async fn an_ended_message_is_not_claimed(bench: Bench) -> Outcome {
    bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE).await;
    assert!(bench.claim(1).await?.is_none());
    Ok(())
}

async fn an_ended_message_is_not_popped(bench: Bench) -> Outcome {
    bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE).await;
    assert!(bench.pop(1).await?.is_empty());
    Ok(())
}

async fn an_ended_message_is_not_counted(bench: Bench) -> Outcome {
    bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE).await;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn an_ended_message_is_not_deleted(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.living(MINUTE)).await?;
    bench.advance(MINUTE).await;
    assert_eq!(bench.delete(&[id], Precondition::None).await?, 0);
    Ok(())
}

async fn the_remaining_ttl_counts_and_not_the_ttl(bench: Bench) -> Outcome {
    let message = Message {
        remaining_ttl: minutes(10),
        ..bench.living(HOUR)
    };
    bench.post_one(message).await?;
    bench.advance(minutes(9)).await;
    assert_eq!(bench.counts().await?, (1, 0));
    bench.advance(MINUTE).await;
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn messages_end_one_by_one(bench: Bench) -> Outcome {
    bench.ordered()?;
    let lives = [4, 1, 5, 3, 2];
    let messages = lives.map(|life| bench.living(minutes(2 * life)));
    let posted = bench.post_all(messages.into()).await?;
    for ended in 1..=5 {
        bench.advance(minutes(2)).await;
        let alive = std::iter::zip(&posted, lives)
            .filter_map(|(id, life)| (life > ended).then_some(*id))
            .collect::<Vec<_>>();
        assert_eq!(bench.all().await?, alive, "after {ended} lives");
    }
    Ok(())
}

/// The life runs from the post, not from the end of the delay (spec: messages.md 10).
async fn a_message_may_end_before_it_is_due(bench: Bench) -> Outcome {
    let message = Message {
        delay: minutes(10),
        ..bench.living(minutes(5))
    };
    let id = bench.post_one(message).await?;
    assert_eq!(bench.all().await?, [id]);
    bench.advance(minutes(5)).await;
    assert!(bench.all().await?.is_empty());
    bench.advance(minutes(5)).await;
    assert!(bench.claim(1).await?.is_none());
    Ok(())
}

/// The longest life that the service allows by default.
async fn a_ttl_of_two_weeks_is_kept(bench: Bench) -> Outcome {
    let two_weeks = Duration::from_secs(1_209_600);
    let id = bench.post_one(bench.living(two_weeks)).await?;
    bench.advance(two_weeks - HOUR).await;
    bench.assert_span(bench.get_one(id).await?.remaining_ttl, HOUR);
    bench.advance(HOUR).await;
    assert!(bench.get(&[id]).await?.is_empty());
    Ok(())
}

/// What has ended is gone, so its id is not one that the queue already has.
async fn an_ended_message_may_be_posted_again(bench: Bench) -> Outcome {
    let message = bench.living(MINUTE);
    bench.post_one(message.clone()).await?;
    bench.advance(MINUTE).await;
    let again = Message {
        body: "\"again\"".into(),
        ..message
    };
    bench.post_one(again.clone()).await?;
    assert_eq!(bench.get_one(again.id).await?.body, again.body);
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

async fn ended_messages_in_front_hide_nothing(bench: Bench) -> Outcome {
    bench.ordered()?;
    let short = (0..5).map(|_| bench.living(MINUTE)).collect();
    bench.post_all(short).await?;
    let lasting = bench.post(3).await?;
    bench.advance(MINUTE).await;
    assert_eq!(ids(&bench.page(first(1)).await?.messages), lasting[..1]);
    assert_eq!(ids(&bench.take(1).await?.messages), lasting[..1]);
    assert_eq!(bench.pop(1).await?, lasting[1..2]);
    assert_eq!(bench.counts().await?, (1, 1));
    Ok(())
}

/// The reference is stuck for good from about 8,000 on (quirk Q-CLM-5).
async fn ten_thousand_ended_messages_in_front_block_nothing(bench: Bench) -> Outcome {
    bench.ordered()?;
    for _ in 0..10 {
        let short = (0..1000).map(|_| bench.living(MINUTE)).collect();
        bench.post_all(short).await?;
    }
    let lasting = bench.post(3).await?;
    bench.advance(MINUTE).await;
    assert_eq!(ids(&bench.take_behind(1).await?.messages), lasting[..1]);
    assert_eq!(bench.pop_behind(1).await?, lasting[1..2]);
    assert_eq!(bench.listed().await?, lasting[2..]);
    assert_eq!(bench.counts().await?, (1, 1));
    Ok(())
}
