//! Live messages are read by id, whoever holds them.

use isimud_contract::{Message, MessageId, Precondition};

use crate::bench::{Bench, HOUR, MINUTE, minutes};
use crate::outcome::Outcome;
use crate::promise::promises;
use crate::steps::ids;

promises! {
    messages_come_in_the_order_asked,
    an_id_asked_for_twice_is_answered_twice,
    unknown_ids_are_left_out,
    no_ids_give_no_messages,
    a_thousand_ids_are_read_at_once,
    a_held_message_is_read_and_names_its_claim,
    a_freed_message_names_no_claim,
    a_delayed_message_is_read_and_says_how_long,
    a_deleted_message_is_not_read,
    an_expired_message_is_not_read,
    a_message_says_how_old_it_is_and_how_long_it_lives,
}

async fn messages_come_in_the_order_asked(bench: Bench) -> Outcome {
    let mut asked = bench.post(10).await?;
    asked.reverse();
    asked.swap(2, 7);
    assert_eq!(ids(&bench.get(&asked).await?), asked);
    Ok(())
}

async fn an_id_asked_for_twice_is_answered_twice(bench: Bench) -> Outcome {
    let [a, b] = bench.posted().await?;
    let asked = [b, a, b, b];
    assert_eq!(ids(&bench.get(&asked).await?), asked);
    Ok(())
}

async fn unknown_ids_are_left_out(bench: Bench) -> Outcome {
    let [a, b] = bench.posted().await?;
    let [unknown, other] = [bench.mint(), bench.mint()].map(MessageId);
    let found = bench.get(&[unknown, b, other, a, unknown]).await?;
    assert_eq!(ids(&found), [b, a]);
    assert!(bench.get(&[unknown]).await?.is_empty());
    Ok(())
}

async fn no_ids_give_no_messages(bench: Bench) -> Outcome {
    bench.post(1).await?;
    assert!(bench.get(&[]).await?.is_empty());
    Ok(())
}

async fn a_thousand_ids_are_read_at_once(bench: Bench) -> Outcome {
    let posted = bench.post(1000).await?;
    assert_eq!(ids(&bench.get(&posted).await?), posted);
    Ok(())
}

async fn a_held_message_is_read_and_names_its_claim(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let claim = bench.take(1).await?;
    assert_eq!(bench.get_one(id).await?.claim, Some(claim.id));
    Ok(())
}

/// The reference keeps showing the claim that has ended (spec: messages.md 1).
async fn a_freed_message_names_no_claim(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    let released = bench.take(1).await?;
    bench.release(released.id).await?;
    assert_eq!(bench.get_one(id).await?.claim, None);
    let expired = bench.take(1).await?;
    bench.advance(expired.ttl).await;
    assert_eq!(bench.get_one(id).await?.claim, None);
    Ok(())
}

async fn a_delayed_message_is_read_and_says_how_long(bench: Bench) -> Outcome {
    let id = bench.post_one(bench.delayed(minutes(10))).await?;
    bench.assert_span(bench.get_one(id).await?.delay, minutes(10));
    bench.advance(minutes(4)).await;
    bench.assert_span(bench.get_one(id).await?.delay, minutes(6));
    bench.advance(minutes(6)).await;
    assert!(bench.get_one(id).await?.delay.is_zero());
    Ok(())
}

async fn a_deleted_message_is_not_read(bench: Bench) -> Outcome {
    let [a, b] = bench.posted().await?;
    bench.delete(&[a], Precondition::None).await?;
    assert_eq!(ids(&bench.get(&[a, b]).await?), [b]);
    Ok(())
}

/// The reference shows it as long as it has not been removed (quirk Q-MSG-8).
async fn an_expired_message_is_not_read(bench: Bench) -> Outcome {
    let short = bench.post_one(bench.living(MINUTE)).await?;
    let [lasting] = bench.posted().await?;
    bench.advance(MINUTE).await;
    assert_eq!(ids(&bench.get(&[short, lasting]).await?), [lasting]);
    Ok(())
}

async fn a_message_says_how_old_it_is_and_how_long_it_lives(bench: Bench) -> Outcome {
    let message = Message {
        delay: minutes(2),
        ..bench.living(2 * HOUR)
    };
    let id = bench.post_one(message).await?;
    bench.advance(minutes(30)).await;
    let message = bench.get_one(id).await?;
    assert_eq!(message.ttl, 2 * HOUR);
    bench.assert_span(message.age, minutes(30));
    bench.assert_span(message.remaining_ttl, minutes(90));
    Ok(())
}
