//! A message that was claimed too often goes to another queue instead of to one more worker.

use isimud_contract::{
    Checksum, DeadLetter, ErrorKind, Lease, Message, Precondition, Resource, Stands,
};

use crate::bench::{Bench, HOUR, MINUTE, minutes};
use crate::outcome::{Abort, Outcome, Step, refused};
use crate::promise::promises;
use crate::steps::{client, ids, some_headers, sorted};

promises! {
    the_first_claims_deliver_and_the_next_one_moves,
    none_allowed_moves_at_the_first_claim,
    the_counter_is_shown,
    claims_without_the_policy_do_not_count,
    renewals_do_not_count,
    pops_neither_count_nor_move,
    a_claim_of_which_nothing_is_left_is_no_claim,
    moved_messages_do_not_use_up_the_limit,
    a_moved_message_keeps_what_it_is,
    a_moved_message_was_transferred_once_more,
    a_moved_message_leaves_its_queue,
    a_moved_message_is_free_at_once,
    moved_messages_go_to_the_end_in_their_order,
    a_dead_letter_keeps_its_remaining_ttl,
    a_dead_letter_gets_the_ttl_of_the_policy,
    messages_that_are_not_free_are_not_moved,
    every_claim_follows_its_own_policy,
    a_target_that_holds_the_message_already_blocks_nothing,
    a_queue_may_be_its_own_target,
    many_messages_over_the_limit_hide_nothing,
    an_undone_claim_does_not_count,
    an_undone_claim_without_the_policy_is_a_released_one,
}

/// Claims with the policy and releases, so that every message of the queue is delivered once more.
async fn deliver_once(bench: &Bench, target: &Bench, max_claims: u32) -> Step<()> {
    let lease = bench.strict_lease(max_claims, target);
    bench.take_on(&lease, 100).await?;
    bench.release(lease.id).await
}

/// Claims with a policy under which every message moves; nothing may be delivered.
async fn move_all(bench: &Bench, target: &Bench) -> Step<()> {
    let lease = bench.strict_lease(0, target);
    let claim = bench.claim_on(&lease, 100).await?;
    assert_eq!(claim, None);
    Ok(())
}

async fn the_first_claims_deliver_and_the_next_one_moves(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let posted = bench.post(2).await?;
    deliver_once(&bench, &dead, 2).await?;
    deliver_once(&bench, &dead, 2).await?;
    assert_eq!(bench.counts().await?, (2, 0));
    let third = bench.claim_on(&bench.strict_lease(2, &dead), 10).await?;
    assert_eq!(third, None);
    assert_eq!(bench.counts().await?, (0, 0));
    assert_eq!(sorted(dead.all().await?), posted);
    Ok(())
}

async fn none_allowed_moves_at_the_first_claim(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let posted = bench.post(1).await?;
    move_all(&bench, &dead).await?;
    assert_eq!(dead.all().await?, posted);
    Ok(())
}

async fn the_counter_is_shown(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let [id] = bench.posted().await?;
    for delivery in 1..=3 {
        let lease = bench.strict_lease(5, &dead);
        let claim = bench.take_on(&lease, 1).await?;
        assert_eq!(claim.messages[0].claim_count, delivery);
        assert_eq!(bench.get_one(id).await?.claim_count, delivery);
        bench.advance(lease.ttl).await;
    }
    Ok(())
}

async fn claims_without_the_policy_do_not_count(bench: Bench) -> Outcome {
    let [id] = bench.posted().await?;
    for _ in 0..3 {
        let claim = bench.take(1).await?;
        assert_eq!(claim.messages[0].claim_count, 0);
        bench.release(claim.id).await?;
    }
    assert_eq!(bench.get_one(id).await?.claim_count, 0);
    let lease = bench.strict_lease(1, &bench.on("dead"));
    assert_eq!(bench.take_on(&lease, 1).await?.messages[0].claim_count, 1);
    Ok(())
}

async fn renewals_do_not_count(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let [id] = bench.posted().await?;
    let lease = bench.strict_lease(1, &dead);
    bench.take_on(&lease, 1).await?;
    for _ in 0..3 {
        bench.renew(&lease).await?;
    }
    assert_eq!(ids(&bench.find(lease.id).await?.messages), [id]);
    assert_eq!(bench.get_one(id).await?.claim_count, 1);
    assert_eq!(dead.counts().await?, (0, 0));
    Ok(())
}

async fn pops_neither_count_nor_move(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let [id] = bench.posted().await?;
    deliver_once(&bench, &dead, 1).await?;
    assert_eq!(bench.pop(1).await?, [id]);
    assert_eq!(dead.counts().await?, (0, 0));
    Ok(())
}

async fn a_claim_of_which_nothing_is_left_is_no_claim(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    bench.post(3).await?;
    let lease = bench.strict_lease(0, &dead);
    assert_eq!(bench.claim_on(&lease, 5).await?, None);
    for queue in [&bench, &dead] {
        let answer = queue.find(lease.id).await;
        refused(answer, ErrorKind::NotFound(Resource::Claim))?;
    }
    Ok(())
}

async fn moved_messages_do_not_use_up_the_limit(bench: Bench) -> Outcome {
    bench.ordered()?;
    let dead = bench.on("dead");
    let worn_out = bench.post(3).await?;
    deliver_once(&bench, &dead, 1).await?;
    let fresh = bench.post(3).await?;
    let claim = bench.take_on(&bench.strict_lease(1, &dead), 2).await?;
    assert_eq!(ids(&claim.messages), fresh[..2]);
    assert_eq!(bench.counts().await?, (1, 2));
    assert_eq!(dead.all().await?, worn_out);
    Ok(())
}

async fn a_moved_message_keeps_what_it_is(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let posted = Message {
        client: client(9),
        sealed: true,
        checksum: Some(Checksum(*b"0123456789abcdef")),
        ..bench.message()
    };
    bench.post_one(posted.clone()).await?;
    bench.advance(minutes(10)).await;
    move_all(&bench, &dead).await?;
    let moved = dead.get_one(posted.id).await?;
    assert_eq!(moved.client, posted.client);
    assert_eq!(moved.body, posted.body);
    assert_eq!(moved.checksum, posted.checksum);
    assert!(moved.sealed);
    bench.assert_span(moved.age, minutes(10));
    Ok(())
}

async fn a_moved_message_was_transferred_once_more(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let message = Message {
        transfers: 3,
        headers: some_headers(),
        ..bench.message()
    };
    bench.post_one(message.clone()).await?;
    move_all(&bench, &dead).await?;
    let taken = dead.take(1).await?;
    assert_eq!(ids(&taken.messages), [message.id]);
    assert_eq!(taken.messages[0].transfers, 4);
    assert_eq!(taken.messages[0].headers, message.headers);
    Ok(())
}

async fn a_moved_message_leaves_its_queue(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let posted = bench.post(1).await?;
    move_all(&bench, &dead).await?;
    assert!(bench.all().await?.is_empty());
    assert!(bench.get(&posted).await?.is_empty());
    assert_eq!(bench.delete(&posted, Precondition::None).await?, 0);
    assert_eq!(bench.counts().await?, (0, 0));
    assert_eq!(dead.counts().await?, (1, 0));
    Ok(())
}

/// In the reference it stays under a claim that nobody knows (quirk Q-CLM-7).
async fn a_moved_message_is_free_at_once(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let posted = bench.post(1).await?;
    move_all(&bench, &dead).await?;
    assert_eq!(dead.counts().await?, (1, 0));
    assert_eq!(dead.listed().await?, posted);
    assert_eq!(ids(&dead.take(1).await?.messages), posted);
    Ok(())
}

async fn moved_messages_go_to_the_end_in_their_order(bench: Bench) -> Outcome {
    bench.ordered()?;
    let dead = bench.on("dead");
    let moved = bench.post(3).await?;
    let there = dead.post(2).await?;
    move_all(&bench, &dead).await?;
    let news = dead.post(1).await?;
    let order = [there, moved, news].concat();
    assert_eq!(dead.all().await?, order);
    assert_eq!(ids(&dead.take(10).await?.messages), order);
    Ok(())
}

async fn a_dead_letter_keeps_its_remaining_ttl(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let id = bench.post_one(bench.living(minutes(10))).await?;
    bench.advance(minutes(6)).await;
    move_all(&bench, &dead).await?;
    let moved = dead.get_one(id).await?;
    assert_eq!(moved.ttl, minutes(10));
    bench.assert_span(moved.remaining_ttl, minutes(4));
    bench.advance(minutes(4)).await;
    assert_eq!(dead.counts().await?, (0, 0));
    Ok(())
}

/// In the reference the new ttl is shown and does nothing (quirk Q-CLM-7).
async fn a_dead_letter_gets_the_ttl_of_the_policy(bench: Bench) -> Outcome {
    for (own, new) in [(minutes(10), HOUR), (HOUR, minutes(10))] {
        let dead = bench.on("dead");
        let id = bench.post_one(bench.living(own)).await?;
        bench.advance(minutes(6)).await;
        let lease = Lease {
            dead_letter: Some(DeadLetter {
                queue: dead.queue.clone(),
                max_claims: 0,
                ttl: Some(new),
                stands: Stands::Last(0),
            }),
            ..bench.lease()
        };
        assert_eq!(bench.claim_on(&lease, 1).await?, None);
        let moved = dead.get_one(id).await?;
        assert_eq!(moved.ttl, new);
        bench.assert_span(moved.remaining_ttl, new);
        bench.assert_span(moved.age, minutes(6));
        bench.advance(new - MINUTE).await;
        assert_eq!(dead.counts().await?, (1, 0));
        bench.advance(MINUTE).await;
        assert_eq!(dead.counts().await?, (0, 0));
    }
    Ok(())
}

async fn messages_that_are_not_free_are_not_moved(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let [held] = bench.posted().await?;
    let claim = bench.take(1).await?;
    let delayed = bench.post_one(bench.delayed(minutes(2))).await?;
    let [free] = bench.posted().await?;
    move_all(&bench, &dead).await?;
    assert_eq!(dead.all().await?, [free]);
    assert_eq!(bench.all().await?, [held, delayed]);
    assert_eq!(ids(&bench.find(claim.id).await?.messages), [held]);
    Ok(())
}

/// The policy travels with each claim, so a changed one holds from the next claim on.
async fn every_claim_follows_its_own_policy(bench: Bench) -> Outcome {
    let (first, second) = (bench.on("dead"), bench.on("dead.too"));
    let [id] = bench.posted().await?;
    deliver_once(&bench, &first, 2).await?;
    deliver_once(&bench, &first, 2).await?;
    deliver_once(&bench, &second, 3).await?;
    let lease = bench.strict_lease(3, &second);
    assert_eq!(bench.claim_on(&lease, 1).await?, None);
    assert_eq!(first.counts().await?, (0, 0));
    assert_eq!(second.all().await?, [id]);
    Ok(())
}

/// A post whose answer was lost may be repeated after its message has moved, and then the copy moves too.
async fn a_target_that_holds_the_message_already_blocks_nothing(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let message = bench.message();
    bench.post_one(message.clone()).await?;
    move_all(&bench, &dead).await?;
    bench.post_one(message.clone()).await?;
    bench.post(1).await?;
    move_all(&bench, &dead).await?;
    assert_eq!(bench.counts().await?, (0, 0));
    assert_eq!(dead.counts().await?, (2, 0));
    assert_eq!(dead.get_one(message.id).await?.body, message.body);
    Ok(())
}

/// Nothing stops a client from writing that into the metadata. The claim must come back, and lose nothing.
async fn a_queue_may_be_its_own_target(bench: Bench) -> Outcome {
    let posted = bench.post(3).await?;
    for _ in 0..3 {
        let lease = bench.strict_lease(1, &bench);
        bench.claim_on(&lease, 2).await?;
        bench.advance(lease.ttl).await;
    }
    assert_eq!(bench.counts().await?, (3, 0));
    assert_eq!(sorted(bench.all().await?), posted);
    Ok(())
}

/// One call may stop after a bounded number of moves, but the next one goes on.
async fn many_messages_over_the_limit_hide_nothing(bench: Bench) -> Outcome {
    bench.ordered()?;
    let dead = bench.on("dead");
    let worn_out = (0..2000).map(|_| Message {
        claim_count: 1,
        ..bench.message()
    });
    let worn_out = bench.post_all(worn_out.collect()).await?;
    let fresh = bench.post(1).await?;
    for _ in 0..=worn_out.len() {
        let lease = bench.strict_lease(1, &dead);
        if let Some(claim) = bench.claim_on(&lease, 20).await? {
            assert_eq!(ids(&claim.messages), fresh);
            assert_eq!(dead.all().await?, worn_out);
            return Ok(());
        }
    }
    Err(Abort::Unexpected("the fresh message is never delivered".into()).into())
}

async fn an_undone_claim_does_not_count(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    let posted = bench.post(2).await?;
    deliver_once(&bench, &dead, 2).await?;
    for _ in 0..3 {
        let lease = bench.strict_lease(2, &dead);
        bench.take_on(&lease, 100).await?;
        bench.undo(lease.id, true).await?;
        bench.undo(lease.id, true).await?;
        assert_eq!(bench.counts().await?, (2, 0));
    }
    let claim = bench.take_on(&bench.strict_lease(2, &dead), 10).await?;
    assert_eq!(sorted(ids(&claim.messages)), sorted(posted));
    let counts = claim.messages.iter().map(|message| message.claim_count);
    assert_eq!(counts.collect::<Vec<_>>(), [2, 2]);
    bench.release(claim.id).await?;
    assert_eq!(
        bench.claim_on(&bench.strict_lease(2, &dead), 10).await?,
        None
    );
    Ok(())
}

async fn an_undone_claim_without_the_policy_is_a_released_one(bench: Bench) -> Outcome {
    let dead = bench.on("dead");
    bench.post(1).await?;
    deliver_once(&bench, &dead, 5).await?;
    let claim = bench.take(1).await?;
    bench.undo(claim.id, false).await?;
    let claim = bench.take_on(&bench.strict_lease(5, &dead), 1).await?;
    assert_eq!(claim.messages[0].claim_count, 2);
    Ok(())
}
