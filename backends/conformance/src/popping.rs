//! A pop delivers free messages once and for all.

use isimud_contract::{Message, Precondition};

use crate::bench::{Bench, MINUTE, minutes};
use crate::outcome::{Outcome, together};
use crate::promise::promises;
use crate::steps::sorted;

promises! {
    the_oldest_come_first,
    an_empty_queue_gives_nothing,
    a_popped_message_is_gone,
    a_popped_message_is_complete,
    held_messages_are_left_alone,
    delayed_messages_are_left_alone,
    expired_messages_are_left_out,
    a_released_message_is_popped_in_its_old_place,
    poppers_at_the_same_time_share_nothing,
}

async fn the_oldest_come_first(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    assert_eq!(bench.pop(2).await?, posted[..2]);
    assert_eq!(bench.pop(1).await?, posted[2..3]);
    assert_eq!(bench.pop(10).await?, posted[3..]);
    Ok(())
}

async fn an_empty_queue_gives_nothing(bench: Bench) -> Outcome {
    assert!(bench.pop(1).await?.is_empty());
    let posted = bench.post(1).await?;
    bench.delete(&posted, Precondition::None).await?;
    assert!(bench.pop(1).await?.is_empty());
    Ok(())
}

async fn a_popped_message_is_gone(bench: Bench) -> Outcome {
    let posted = bench.post(1).await?;
    assert_eq!(bench.pop(1).await?, posted);
    assert_eq!(bench.counts().await?, (0, 0));
    assert!(bench.pop(1).await?.is_empty());
    assert_eq!(bench.delete(&posted, Precondition::None).await?, 0);
    assert!(bench.get(&posted).await?.is_empty());
    assert!(bench.all().await?.is_empty());
    Ok(())
}

async fn a_popped_message_is_complete(bench: Bench) -> Outcome {
    let posted = Message {
        sealed: true,
        claim_count: 2,
        ..bench.living(minutes(30))
    };
    bench.post_one(posted.clone()).await?;
    bench.advance(minutes(10)).await;
    let popped = bench.store().pop(&bench.queue, 1).await?;
    assert_eq!(popped.len(), 1);
    assert_eq!(popped[0].id, posted.id);
    assert_eq!(popped[0].client, posted.client);
    assert_eq!(popped[0].body, posted.body);
    assert_eq!(popped[0].ttl, posted.ttl);
    assert!(popped[0].sealed);
    assert_eq!(popped[0].claim_count, 2);
    assert_eq!(popped[0].claim, None);
    bench.assert_span(popped[0].age, minutes(10));
    Ok(())
}

async fn held_messages_are_left_alone(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    let front = bench.take(1).await?;
    let middle = bench.take(2).await?;
    bench.release(front.id).await?;
    assert_eq!(bench.pop(5).await?, [&posted[..1], &posted[3..]].concat());
    assert_eq!(bench.find(middle.id).await?.messages.len(), 2);
    assert_eq!(bench.counts().await?, (0, 2));
    Ok(())
}

/// The reference pops a delayed message that stands behind a due one (quirk Q-CLM-1).
async fn delayed_messages_are_left_alone(bench: Bench) -> Outcome {
    let [first] = bench.posted().await?;
    let delayed = bench.post_one(bench.delayed(minutes(2))).await?;
    let [last] = bench.posted().await?;
    assert_eq!(sorted(bench.pop(5).await?), [first, last]);
    bench.advance(minutes(2)).await;
    assert_eq!(bench.pop(5).await?, [delayed]);
    Ok(())
}

async fn expired_messages_are_left_out(bench: Bench) -> Outcome {
    bench.post_one(bench.living(MINUTE)).await?;
    let lasting = bench.post(1).await?;
    bench.advance(MINUTE).await;
    assert_eq!(bench.pop(5).await?, lasting);
    Ok(())
}

async fn a_released_message_is_popped_in_its_old_place(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(4).await?;
    let claim = bench.take(2).await?;
    bench.release(claim.id).await?;
    assert_eq!(bench.pop(4).await?, posted);
    Ok(())
}

async fn poppers_at_the_same_time_share_nothing(bench: Bench) -> Outcome {
    let posted = bench.post(300).await?;
    let popped = together((0..8).map(|_| {
        let bench = bench.clone();
        async move {
            let mut popped = Vec::new();
            loop {
                let more = bench.pop(7).await?;
                if more.is_empty() {
                    return Ok(popped);
                }
                popped.extend(more);
            }
        }
    }))
    .await?;
    assert_eq!(sorted(popped.concat()), sorted(posted));
    Ok(())
}
