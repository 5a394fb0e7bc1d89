//! A listing shows what the selection asks for, oldest first, and fills its page with it.

use isimud_contract::{Message, Selection};

use crate::bench::{Bench, MINUTE, minutes};
use crate::outcome::Outcome;
use crate::promise::promises;
use crate::steps::{client, everything, first, ids};

promises! {
    an_empty_queue_lists_nothing,
    a_page_holds_at_most_its_limit,
    free_messages_alone_are_listed,
    held_messages_are_listed_on_demand,
    delayed_messages_are_listed_on_demand,
    each_switch_stands_alone,
    a_listed_message_names_its_claim,
    a_freed_message_is_listed_in_its_old_place,
    own_messages_are_left_out,
    own_messages_do_not_use_up_the_page,
    held_messages_do_not_use_up_the_page,
    delayed_messages_do_not_use_up_the_page,
    expired_messages_do_not_use_up_the_page,
    a_listing_shows_ages_and_remaining_ttls,
    a_listing_takes_nothing,
}

async fn an_empty_queue_lists_nothing(bench: Bench) -> Outcome {
    let page = bench.page(everything()).await?;
    assert!(page.messages.is_empty());
    assert_eq!(page.marker, None);
    Ok(())
}

async fn a_page_holds_at_most_its_limit(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    for limit in 1..=6 {
        let page = bench.page(first(limit)).await?;
        let expected = &posted[..limit.min(5)];
        assert_eq!(ids(&page.messages), expected, "limit {limit}");
    }
    Ok(())
}

async fn free_messages_alone_are_listed(bench: Bench) -> Outcome {
    bench.post(2).await?;
    bench.take(2).await?;
    bench.post_one(bench.delayed(MINUTE)).await?;
    let free = bench.post(1).await?;
    assert_eq!(bench.listed().await?, free);
    Ok(())
}

/// The reference's Redis driver fails on this without a marker (quirk Q-MSG-1).
async fn held_messages_are_listed_on_demand(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(4).await?;
    bench.take(2).await?;
    let selection = Selection {
        include_claimed: true,
        ..first(10)
    };
    assert_eq!(ids(&bench.page(selection).await?.messages), posted);
    assert_eq!(bench.listed().await?, posted[2..]);
    Ok(())
}

async fn delayed_messages_are_listed_on_demand(bench: Bench) -> Outcome {
    bench.ordered()?;
    let messages = vec![bench.message(), bench.delayed(minutes(10)), bench.message()];
    let posted = bench.post_all(messages).await?;
    let selection = Selection {
        include_delayed: true,
        ..first(10)
    };
    let page = bench.page(selection).await?;
    assert_eq!(ids(&page.messages), posted);
    bench.assert_span(page.messages[1].delay, minutes(10));
    assert_eq!(bench.listed().await?, [posted[0], posted[2]]);
    Ok(())
}

async fn each_switch_stands_alone(bench: Bench) -> Outcome {
    let held = bench.post(1).await?;
    bench.take(1).await?;
    let delayed = vec![bench.post_one(bench.delayed(MINUTE)).await?];
    for (include_claimed, include_delayed, expected) in [
        (false, false, Vec::new()),
        (true, false, held.clone()),
        (false, true, delayed.clone()),
        (true, true, [held, delayed].concat()),
    ] {
        let selection = Selection {
            include_claimed,
            include_delayed,
            ..first(10)
        };
        assert_eq!(ids(&bench.page(selection).await?.messages), expected);
    }
    Ok(())
}

async fn a_listed_message_names_its_claim(bench: Bench) -> Outcome {
    let [held] = bench.posted().await?;
    let claim = bench.take(1).await?;
    let [free] = bench.posted().await?;
    let page = bench.page(everything()).await?;
    let claims: Vec<_> = page.messages.iter().map(|m| (m.id, m.claim)).collect();
    assert_eq!(claims, [(held, Some(claim.id)), (free, None)]);
    Ok(())
}

async fn a_freed_message_is_listed_in_its_old_place(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    let claim = bench.take(3).await?;
    assert_eq!(bench.listed().await?, posted[3..]);
    bench.release(claim.id).await?;
    assert_eq!(bench.listed().await?, posted);
    Ok(())
}

async fn own_messages_are_left_out(bench: Bench) -> Outcome {
    let [own] = bench.posted().await?;
    let others = Message {
        client: client(2),
        ..bench.message()
    };
    let others = bench.post_one(others).await?;
    for (not_from, expected) in [
        (Some(client(1)), vec![others]),
        (Some(client(2)), vec![own]),
        (Some(client(3)), vec![own, others]),
        (None, vec![own, others]),
    ] {
        let selection = Selection {
            not_from,
            ..first(10)
        };
        assert_eq!(ids(&bench.page(selection).await?.messages), expected);
    }
    Ok(())
}

/// The reference shows an empty page instead, and its consumers stop (quirk Q-MSG-4).
async fn own_messages_do_not_use_up_the_page(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post(500).await?;
    let others = (0..3).map(|_| Message {
        client: client(2),
        ..bench.message()
    });
    let others = bench.post_all(others.collect()).await?;
    bench.post(500).await?;
    let selection = Selection {
        not_from: Some(client(1)),
        ..first(2)
    };
    let page = bench.page(selection.clone()).await?;
    assert_eq!(ids(&page.messages), others[..2]);
    let rest = Selection {
        after: page.marker,
        ..selection
    };
    assert_eq!(ids(&bench.page(rest).await?.messages), others[2..]);
    Ok(())
}

async fn held_messages_do_not_use_up_the_page(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post(500).await?;
    bench.take(500).await?;
    let free = bench.post(3).await?;
    assert_eq!(ids(&bench.page(first(2)).await?.messages), free[..2]);
    Ok(())
}

async fn delayed_messages_do_not_use_up_the_page(bench: Bench) -> Outcome {
    bench.ordered()?;
    let delayed = (0..500).map(|_| bench.delayed(MINUTE)).collect();
    bench.post_all(delayed).await?;
    let free = bench.post(3).await?;
    assert_eq!(ids(&bench.page(first(2)).await?.messages), free[..2]);
    Ok(())
}

async fn expired_messages_do_not_use_up_the_page(bench: Bench) -> Outcome {
    bench.ordered()?;
    let short = (0..500).map(|_| bench.living(MINUTE)).collect();
    bench.post_all(short).await?;
    let lasting = bench.post(3).await?;
    bench.advance(minutes(2)).await;
    assert_eq!(ids(&bench.page(first(2)).await?.messages), lasting[..2]);
    Ok(())
}

async fn a_listing_shows_ages_and_remaining_ttls(bench: Bench) -> Outcome {
    bench.post_one(bench.living(minutes(30))).await?;
    bench.advance(minutes(10)).await;
    let page = bench.page(first(1)).await?;
    assert_eq!(page.messages.len(), 1);
    assert_eq!(page.messages[0].ttl, minutes(30));
    bench.assert_span(page.messages[0].age, minutes(10));
    bench.assert_span(page.messages[0].remaining_ttl, minutes(20));
    Ok(())
}

async fn a_listing_takes_nothing(bench: Bench) -> Outcome {
    bench.post(3).await?;
    let before = bench.page(everything()).await?;
    assert_eq!(
        ids(&bench.page(everything()).await?.messages),
        ids(&before.messages)
    );
    assert_eq!(bench.counts().await?, (3, 0));
    assert_eq!(bench.take(3).await?.messages.len(), 3);
    Ok(())
}
