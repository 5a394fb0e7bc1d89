//! A marker is a position. It stays one when its message is gone, and news come after it.

use isimud_contract::{Marker, MessageId, Page, Precondition, Selection};

use crate::bench::{Bench, MINUTE, minutes, needs};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;
use crate::steps::{after, everything, first, ids};

promises! {
    paging_covers_everything_once,
    a_full_last_page_is_followed_by_an_empty_one,
    a_page_says_where_it_ends,
    a_marker_outlives_its_message,
    a_marker_outlives_everything_before_it,
    a_marker_outlives_a_claim_on_its_message,
    a_marker_outlives_the_expiry_of_its_message,
    paging_while_deleting_misses_nothing,
    paging_while_others_post_and_delete_misses_nothing,
    a_marker_waits_for_news,
    a_marker_waits_for_news_in_an_emptied_queue,
    a_marker_from_before_a_purge_stands_before_everything,
    a_marker_from_an_earlier_queue_stands_before_everything,
    a_marker_beyond_every_message_is_harmless,
    a_message_id_is_a_marker,
    the_id_of_a_deleted_message_is_a_marker,
    the_id_of_a_deleted_first_message_stands_before_everything,
    a_message_id_waits_for_news_in_an_emptied_queue,
    the_id_of_another_queue_is_no_place_here,
}

/// The first two messages of the queue, and the marker behind them.
async fn first_two(bench: &Bench) -> Step<Page> {
    bench.page(first(2)).await
}

/// What a plain listing shows after a position.
async fn listed_after(bench: &Bench, marker: impl Into<Option<Marker>>) -> Step<Vec<MessageId>> {
    Ok(ids(&bench.page(after(marker)).await?.messages))
}

async fn paging_covers_everything_once(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(45).await?;
    for limit in [1, 7, 10, 45] {
        assert_eq!(bench.pages(first(limit)).await?, posted, "limit {limit}");
    }
    Ok(())
}

async fn a_full_last_page_is_followed_by_an_empty_one(bench: Bench) -> Outcome {
    bench.post(2).await?;
    let page = first_two(&bench).await?;
    assert_eq!(page.messages.len(), 2);
    let end = bench.page(after(page.marker)).await?;
    assert!(end.messages.is_empty());
    assert_eq!(end.marker, None);
    Ok(())
}

async fn a_page_says_where_it_ends(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    let page = first_two(&bench).await?;
    assert!(page.marker.is_some());
    assert_eq!(listed_after(&bench, page.marker).await?, posted[2..]);
    Ok(())
}

/// The reference starts at the head again (quirk Q-MSG-2).
async fn a_marker_outlives_its_message(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    let page = first_two(&bench).await?;
    bench.delete(&posted[1..2], Precondition::None).await?;
    assert_eq!(listed_after(&bench, page.marker).await?, posted[2..]);
    Ok(())
}

async fn a_marker_outlives_everything_before_it(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    let page = first_two(&bench).await?;
    bench.delete(&posted[..2], Precondition::None).await?;
    assert_eq!(listed_after(&bench, page.marker).await?, posted[2..]);
    Ok(())
}

async fn a_marker_outlives_a_claim_on_its_message(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(5).await?;
    let page = first_two(&bench).await?;
    bench.take(3).await?;
    assert_eq!(listed_after(&bench, page.marker).await?, posted[3..]);
    Ok(())
}

async fn a_marker_outlives_the_expiry_of_its_message(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench
        .post_all(vec![bench.living(MINUTE), bench.living(MINUTE)])
        .await?;
    let lasting = bench.post(2).await?;
    let page = first_two(&bench).await?;
    bench.advance(minutes(2)).await;
    assert_eq!(listed_after(&bench, page.marker).await?, lasting);
    Ok(())
}

async fn paging_while_deleting_misses_nothing(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(40).await?;
    let mut seen = Vec::new();
    let mut page = bench.page(first(7)).await?;
    while !page.messages.is_empty() {
        let shown = ids(&page.messages);
        bench.delete(&shown, Precondition::None).await?;
        seen.extend(shown);
        let selection = Selection {
            after: page.marker,
            ..first(7)
        };
        page = bench.page(selection).await?;
    }
    assert_eq!(seen, posted);
    Ok(())
}

/// Every message that is there all the time is seen once, whatever happens to the others.
async fn paging_while_others_post_and_delete_misses_nothing(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "listings")?;
    bench.ordered()?;
    let (mut staying, mut going) = (Vec::new(), Vec::new());
    for (at, id) in bench.post(400).await?.into_iter().enumerate() {
        if at % 2 == 0 {
            staying.push(id);
        } else {
            going.push(id);
        }
    }
    let others = bench.clone();
    let doomed = going.clone();
    let traffic = tokio::spawn(async move {
        for id in doomed {
            let deleted = others.delete(&[id], Precondition::None).await;
            assert_eq!(deleted.expect("a delete is served"), 1);
            others.post(1).await.expect("a post is served");
        }
    });
    let seen = bench.pages(first(5)).await?;
    traffic.await.expect("posts and deletes go through");
    let kept: Vec<_> = seen.into_iter().filter(|id| staying.contains(id)).collect();
    assert_eq!(kept, staying);
    Ok(())
}

async fn a_marker_waits_for_news(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post(3).await?;
    let end = bench.page(first(10)).await?.marker;
    assert!(listed_after(&bench, end).await?.is_empty());
    let news = bench.post(2).await?;
    assert_eq!(listed_after(&bench, end).await?, news);
    Ok(())
}

/// An arrival number is never used again, even when no message is left that has one.
async fn a_marker_waits_for_news_in_an_emptied_queue(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(3).await?;
    let end = bench.page(first(10)).await?.marker;
    bench.delete(&posted, Precondition::None).await?;
    assert!(listed_after(&bench, end).await?.is_empty());
    let news = bench.post(2).await?;
    assert_eq!(listed_after(&bench, end).await?, news);
    Ok(())
}

async fn a_marker_from_before_a_purge_stands_before_everything(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post(10).await?;
    let end = bench.page(first(10)).await?.marker;
    bench.purge().await?;
    let posted = bench.post(3).await?;
    assert_eq!(listed_after(&bench, end).await?, posted);
    Ok(())
}

async fn a_marker_from_an_earlier_queue_stands_before_everything(bench: Bench) -> Outcome {
    bench.ordered()?;
    bench.post(10).await?;
    let end = bench.page(first(10)).await?.marker;
    bench.drop_queue().await?;
    let posted = bench.post(3).await?;
    assert_eq!(listed_after(&bench, end).await?, posted);
    Ok(())
}

/// A client may send any number. Nobody says what it means, but it must not be an error.
async fn a_marker_beyond_every_message_is_harmless(bench: Bench) -> Outcome {
    let posted = bench.post(1).await?;
    for number in [u64::MAX, u64::MAX / 2 + 1, i64::MAX as u64] {
        let listed = listed_after(&bench, Marker::Arrival(number)).await?;
        assert!(listed.is_empty() || listed == posted);
    }
    assert_eq!(listed_after(&bench, Marker::Arrival(0)).await?, posted);
    Ok(())
}

/// The client library openstacksdk pages by the id of the last message that it saw.
async fn a_message_id_is_a_marker(bench: Bench) -> Outcome {
    bench.ordered()?;
    let posted = bench.post(4).await?;
    for (at, id) in posted.iter().enumerate() {
        let rest = listed_after(&bench, Marker::Message(*id)).await?;
        assert_eq!(rest, posted[at + 1..]);
    }
    Ok(())
}

async fn the_id_of_a_deleted_message_is_a_marker(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [a, b, c, d] = bench.posted().await?;
    bench.delete(&[c], Precondition::None).await?;
    assert_eq!(listed_after(&bench, Marker::Message(c)).await?, [d]);
    bench.delete(&[b], Precondition::None).await?;
    assert_eq!(listed_after(&bench, Marker::Message(c)).await?, [d]);
    assert_eq!(listed_after(&bench, Marker::Message(b)).await?, [d]);
    assert_eq!(bench.listed().await?, [a, d]);
    Ok(())
}

async fn the_id_of_a_deleted_first_message_stands_before_everything(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [a, b, c] = bench.posted().await?;
    bench.delete(&[a], Precondition::None).await?;
    assert_eq!(listed_after(&bench, Marker::Message(a)).await?, [b, c]);
    Ok(())
}

async fn a_message_id_waits_for_news_in_an_emptied_queue(bench: Bench) -> Outcome {
    bench.ordered()?;
    let [a, b] = bench.posted().await?;
    bench.delete(&[a, b], Precondition::None).await?;
    assert!(listed_after(&bench, Marker::Message(b)).await?.is_empty());
    let news = bench.post(2).await?;
    assert_eq!(listed_after(&bench, Marker::Message(b)).await?, news);
    Ok(())
}

/// Here it is the id of a message that is not there: it stands where it would have been minted.
async fn the_id_of_another_queue_is_no_place_here(bench: Bench) -> Outcome {
    bench.ordered()?;
    let elsewhere = bench.on("elsewhere");
    let [early] = elsewhere.posted().await?;
    let [a] = bench.posted().await?;
    let [between] = elsewhere.posted().await?;
    let [b] = bench.posted().await?;
    elsewhere.post(3).await?;
    assert_eq!(listed_after(&bench, Marker::Message(early)).await?, [a, b]);
    assert_eq!(listed_after(&bench, Marker::Message(between)).await?, [b]);
    let all = Selection {
        after: Some(Marker::Message(between)),
        ..everything()
    };
    assert_eq!(ids(&bench.page(all).await?.messages), [b]);
    Ok(())
}
