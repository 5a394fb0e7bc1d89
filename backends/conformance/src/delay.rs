//! A delayed message is there, but is not delivered before it is due.

use isimud_contract::{Message, Precondition};

use crate::bench::{Bench, MILLISECOND, minutes};
use crate::outcome::Outcome;
use crate::promise::promises;
use crate::steps::{ids, sorted};

promises! {
    a_delayed_message_is_due_to_the_millisecond,
    a_delayed_message_is_not_claimed,
    a_delayed_message_is_not_popped,
    a_delayed_message_is_not_listed_unless_asked_for,
    a_delayed_message_counts_as_free,
    a_delayed_message_is_deleted_like_a_free_one,
    a_delayed_message_at_the_head_blocks_nothing,
    a_due_message_is_delivered_in_its_old_place,
    messages_become_due_one_by_one,
    many_messages_that_are_due_at_once_come_oldest_first,
    a_claim_does_not_delay_again,
}

async fn a_delayed_message_is_due_to_the_millisecond(bench: Bench) -> Outcome {
    bench.to_the_millisecond()?;
    let id = bench.post_one(bench.delayed(minutes(2))).await?;
    bench.advance(minutes(2) - MILLISECOND).await;
    assert!(bench.claim(1).await?.is_none());
    assert!(bench.listed().await?.is_empty());
    assert_eq!(bench.get_one(id).await?.delay, MILLISECOND);
    bench.advance(MILLISECOND).await;
    assert_eq!(bench.listed().await?, [id]);
    assert_eq!(ids(&bench.take(1).await?.messages), [id]);
    Ok(())
}

async fn a_delayed_message_is_not_claimed(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.delayed(minutes(2))).await?;
    bench.advance(minutes(1)).await;
    assert!(bench.claim(1).await?.is_none());
    bench.advance(minutes(1)).await;
    assert_eq!(ids(&bench.take(1).await?.messages), [id]);
    Ok(())
}

async fn a_delayed_message_is_not_popped(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.delayed(minutes(2))).await?;
    bench.advance(minutes(1)).await;
    assert!(bench.pop(1).await?.is_empty());
    bench.advance(minutes(1)).await;
    assert_eq!(bench.pop(1).await?, [id]);
    Ok(())
}

async fn a_delayed_message_is_not_listed_unless_asked_for(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.delayed(minutes(2))).await?;
    assert!(bench.listed().await?.is_empty());
    assert_eq!(bench.all().await?, [id]);
    bench.advance(minutes(2)).await;
    assert_eq!(bench.listed().await?, [id]);
    Ok(())
}

async fn a_delayed_message_counts_as_free(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.delayed(minutes(2))).await?;
    assert_eq!(bench.counts().await?, (1, 0));
    bench.exact()?;
    let stats = bench.stats().await?;
    assert_eq!(stats.oldest.map(|edge| edge.id), Some(id));
    assert_eq!(stats.newest.map(|edge| edge.id), Some(id));
    Ok(())
}

async fn a_delayed_message_is_deleted_like_a_free_one(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.delayed(minutes(2))).await?;
    assert_eq!(bench.delete(&[id], Precondition::Unclaimed).await?, 1);
    bench.advance(minutes(2)).await;
    assert!(bench.claim(1).await?.is_none());
    assert_eq!(bench.counts().await?, (0, 0));
    Ok(())
}

async fn a_delayed_message_at_the_head_blocks_nothing(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post_one(bench.delayed(minutes(10))).await?;
    let posted = bench.post(3).await?;
    assert_eq!(bench.listed().await?, posted);
    assert_eq!(ids(&bench.take(1).await?.messages), posted[..1]);
    assert_eq!(bench.pop(1).await?, posted[1..2]);
    Ok(())
}

async fn a_due_message_is_delivered_in_its_old_place(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [first] = bench.posted().await?;
    let delayed = bench.post_one(bench.delayed(minutes(2))).await?;
    let [last] = bench.posted().await?;
    bench.advance(minutes(2)).await;
    let order = [first, delayed, last];
    assert_eq!(bench.listed().await?, order);
    assert_eq!(ids(&bench.take(3).await?.messages), order);
    Ok(())
}

async fn messages_become_due_one_by_one(bench: Bench) -> Outcome {
    let messages = [6, 2, 4].map(|delay| bench.delayed(minutes(delay)));
    let [late, early, middle] = messages.each_ref().map(|message| message.id);
    bench.post_all(messages.into()).await?;
    for due in [early, middle, late] {
        bench.advance(minutes(2)).await;
        assert_eq!(ids(&bench.take(3).await?.messages), [due]);
    }
    Ok(())
}

/// The oldest become due last, and by then all of them are due.
async fn many_messages_that_are_due_at_once_come_oldest_first(bench: Bench) -> Outcome {
    bench.ordered()?;
    let delays = (1..=12).rev().flat_map(|delay| [minutes(delay); 100]);
    let messages = delays.map(|delay| bench.delayed(delay)).collect();
    let posted = bench.post_all(messages).await?;
    bench.advance(minutes(12)).await;
    assert_eq!(ids(&bench.take(20).await?.messages), posted[..20]);
    assert_eq!(bench.pop(20).await?, posted[20..40]);
    Ok(())
}

async fn a_claim_does_not_delay_again(bench: Bench) -> Outcome {
    let message = Message {
        delay: minutes(2),
        ..bench.message()
    };
    bench.post_one(message).await?;
    let [free] = bench.posted().await?;
    bench.advance(minutes(2)).await;
    let claim = bench.take(2).await?;
    bench.release(claim.id).await?;
    let again = bench.take(2).await?;
    assert_eq!(sorted(ids(&again.messages)), sorted(ids(&claim.messages)));
    assert!(ids(&again.messages).contains(&free));
    Ok(())
}
