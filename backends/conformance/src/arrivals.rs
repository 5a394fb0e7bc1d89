//! A number of arrival is a place in the queue, which a message keeps wherever it is carried.

use std::slice::from_ref;

use isimud_contract::{
    Arrival, DeadLetter, Lease, Marker, Message, MessageId, Precondition, Stands,
};

use crate::bench::{Bench, needs};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;
use crate::steps::{after, everything, first, ids};

promises! {
    every_reading_tells_the_same_number,
    numbers_grow_from_post_to_post,
    numbers_begin_above_what_the_post_demands,
    a_message_is_listed_where_its_number_says,
    a_message_is_claimed_where_its_number_says,
    a_listing_begins_behind_any_number,
    a_number_that_is_taken_moves_the_message_to_the_end,
    a_post_with_a_number_may_be_repeated,
    an_expired_message_may_come_back_under_its_number,
    statistics_tell_the_last_number,
    a_purge_does_not_set_numbers_back,
    what_comes_back_to_a_queue_that_was_removed_keeps_its_number,
    what_moves_in_place_keeps_its_number,
    a_dead_letter_gets_a_number_of_its_new_queue,
}

impl Bench {
    /// The numbers of everything that is there, in the order of a listing.
    async fn numbers(&self) -> Step<Vec<u64>> {
        let page = self.page(everything()).await?;
        Ok(numbers(&page.messages))
    }

    fn numbered(&self, number: u64) -> Message {
        Message {
            arrival: Arrival::At(number),
            ..self.message()
        }
    }
}

fn numbers(messages: &[Message]) -> Vec<u64> {
    let number = |message: &Message| message.arrival.number();
    messages.iter().filter_map(number).collect()
}

/// A number far below those that a store gives by itself now.
const EARLY: u64 = 1_700_000_000_000;

async fn every_reading_tells_the_same_number(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(3).await?;
    let told = bench.numbers().await?;
    assert_eq!(told.len(), 3);
    assert_eq!(numbers(&bench.get(&posted).await?), told);
    let claim = bench.take(2).await?;
    assert_eq!(numbers(&claim.messages), told[..2]);
    assert_eq!(numbers(&bench.find(claim.id).await?.messages), told[..2]);
    let popped = bench.store().pop(&bench.queue, 1).await?;
    assert_eq!(numbers(&popped), told[2..]);
    Ok(())
}

async fn numbers_grow_from_post_to_post(bench: Bench) -> Outcome {
    bench.post(2).await?;
    bench.post(3).await?;
    let told = bench.numbers().await?;
    assert_eq!(told.len(), 5);
    assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
    Ok(())
}

async fn numbers_begin_above_what_the_post_demands(bench: Bench) -> Outcome {
    bench.post(1).await?;
    let [before] = bench.numbers().await?[..] else {
        panic!("one message is listed");
    };
    let above = before + 1_000_000;
    let message = Message {
        arrival: Arrival::After(above),
        ..bench.message()
    };
    bench.post_all(vec![message]).await?;
    bench.post(1).await?;
    let told = bench.numbers().await?;
    assert!(told[1] > above && told[2] > told[1], "{told:?}");
    Ok(())
}

async fn a_message_is_listed_where_its_number_says(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let messages = [20, 40, 30].map(|number| bench.numbered(EARLY + number));
    let [b, d, c] = messages.each_ref().map(|message| message.id);
    bench.post_all(messages.into()).await?;
    let a = bench.post_one(bench.numbered(EARLY + 10)).await?;
    let [last] = bench.posted().await?;
    assert_eq!(bench.all().await?, [a, b, c, d, last]);
    assert_eq!(bench.listed().await?, [a, b, c, d, last]);
    let told = bench.numbers().await?;
    assert_eq!(told[..4], [10, 20, 30, 40].map(|number| EARLY + number));
    assert!(told[4] > told[3], "{told:?}");
    Ok(())
}

/// A broker that leases delivers in an order of its own.
async fn a_message_is_claimed_where_its_number_says(bench: Bench) -> Outcome {
    bench.ordered()?;
    needs(!bench.capabilities().deduplicates, "an order of its own")?;
    let later = bench.post_one(bench.numbered(EARLY + 20)).await?;
    let claim = bench.take(1).await?;
    assert_eq!(ids(&claim.messages), [later]);
    let earlier = bench.post_one(bench.numbered(EARLY + 10)).await?;
    let [last] = bench.posted().await?;
    bench.release(claim.id).await?;
    let claim = bench.take(10).await?;
    assert_eq!(ids(&claim.messages), [earlier, later, last]);
    let before_it = bench.post_one(bench.numbered(EARLY + 5)).await?;
    assert_eq!(bench.pop(5).await?, [before_it]);
    Ok(())
}

async fn a_listing_begins_behind_any_number(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let messages = [20, 40].map(|number| bench.numbered(EARLY + number));
    let [a, b] = messages.each_ref().map(|message| message.id);
    bench.post_all(messages.into()).await?;
    let listed = async |number: u64| -> Step<Vec<MessageId>> {
        let page = bench.page(after(Marker::Arrival(number))).await?;
        Ok(ids(&page.messages))
    };
    for number in [0, 1, EARLY - 1_000_000_000, EARLY, EARLY + 19] {
        assert_eq!(listed(number).await?, [a, b], "{number}");
    }
    for number in [20, 30, 39] {
        assert_eq!(listed(EARLY + number).await?, [b], "{number}");
    }
    assert!(listed(EARLY + 40).await?.is_empty());
    let page = bench.page(first(1)).await?;
    assert_eq!(page.marker, Some(Marker::Arrival(EARLY + 20)));
    Ok(())
}

async fn a_number_that_is_taken_moves_the_message_to_the_end(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let one = bench.post_one(bench.numbered(EARLY)).await?;
    let [two] = bench.posted().await?;
    let three = bench.post_one(bench.numbered(EARLY)).await?;
    assert_eq!(bench.all().await?, [one, two, three]);
    let told = bench.numbers().await?;
    assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
    Ok(())
}

async fn a_post_with_a_number_may_be_repeated(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let messages = vec![bench.numbered(EARLY), bench.numbered(EARLY + 1)];
    let posted = bench.post_all(messages.clone()).await?;
    let [last] = bench.posted().await?;
    bench.post_all(messages).await?;
    assert_eq!(bench.all().await?, [&posted[..], from_ref(&last)].concat());
    assert_eq!(bench.numbers().await?[..2], [EARLY, EARLY + 1]);
    Ok(())
}

async fn an_expired_message_may_come_back_under_its_number(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let message = Message {
        arrival: Arrival::At(EARLY),
        ..bench.living(crate::bench::MINUTE)
    };
    bench.post_one(message.clone()).await?;
    bench.advance(crate::bench::minutes(2)).await;
    let [last] = bench.posted().await?;
    bench.post_one(message.clone()).await?;
    assert_eq!(bench.all().await?, [message.id, last]);
    assert_eq!(bench.numbers().await?[0], EARLY);
    Ok(())
}

async fn statistics_tell_the_last_number(bench: Bench) -> Outcome {
    bench.exact()?;
    let posted = bench.post(3).await?;
    let told = bench.numbers().await?;
    assert_eq!(bench.stats().await?.last_arrival, told[2]);
    bench.delete(&posted, Precondition::None).await?;
    assert_eq!(bench.stats().await?.last_arrival, told[2]);
    bench.post_one(bench.numbered(told[2] + 500)).await?;
    assert_eq!(bench.stats().await?.last_arrival, told[2] + 500);
    Ok(())
}

async fn a_purge_does_not_set_numbers_back(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let ahead = Message {
        arrival: Arrival::After(EARLY * 2),
        ..bench.message()
    };
    bench.post_one(ahead).await?;
    let before = bench.numbers().await?;
    bench.purge().await?;
    bench.post(1).await?;
    let told = bench.numbers().await?;
    assert!(told[0] > before[0], "{told:?} after {before:?}");
    Ok(())
}

/// A queue that moves comes back to parts that it has left.
async fn what_comes_back_to_a_queue_that_was_removed_keeps_its_number(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let messages = [20, 40].map(|number| bench.numbered(EARLY + number));
    bench.post_all(messages.to_vec()).await?;
    bench.drop_queue().await?;
    let again = messages.map(|message| Message {
        transfers: message.transfers + 2,
        ..message
    });
    let [a, c] = again.each_ref().map(|message| message.id);
    bench.post_all(again.into()).await?;
    let b = bench.post_one(bench.numbered(EARLY + 30)).await?;
    assert_eq!(bench.all().await?, [a, b, c]);
    let told = bench.numbers().await?;
    assert_eq!(told, [20, 30, 40].map(|number| EARLY + number));
    Ok(())
}

/// Messages that their queue's carrier moves from one part of the queue to another one beside it.
async fn what_moves_in_place_keeps_its_number(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let part = bench.on("part");
    let messages = [10, 30].map(|number| bench.numbered(EARLY + number));
    let [a, c] = messages.each_ref().map(|message| message.id);
    bench.post_all(messages.into()).await?;
    let b = part.post_one(part.numbered(EARLY + 20)).await?;
    let lease = bench.moving(&part, Stands::InPlace);
    assert_eq!(bench.claim_on(&lease, 10).await?, None);
    assert_eq!(part.all().await?, [a, b, c]);
    assert_eq!(part.numbers().await?, [10, 20, 30].map(|n| EARLY + n));
    Ok(())
}

async fn a_dead_letter_gets_a_number_of_its_new_queue(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    let dead = bench.on("dead");
    let a = bench.post_one(bench.numbered(EARLY)).await?;
    let [first] = dead.posted().await?;
    let there = dead.numbers().await?[0];
    let lease = bench.moving(&dead, Stands::Last(there + 1_000));
    assert_eq!(bench.claim_on(&lease, 10).await?, None);
    assert_eq!(dead.all().await?, [first, a]);
    let told = dead.numbers().await?;
    assert!(told[1] > there + 1_000, "{told:?}");
    Ok(())
}

impl Bench {
    /// A claim that delivers nothing, and moves everything instead.
    fn moving(&self, to: &Self, stands: Stands) -> Lease {
        Lease {
            dead_letter: Some(DeadLetter {
                queue: to.queue.clone(),
                max_claims: 0,
                ttl: None,
                stands,
            }),
            ..self.lease()
        }
    }
}
