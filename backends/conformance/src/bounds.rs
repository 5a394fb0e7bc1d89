//! A queue with a bound has no more messages than that, and takes some again when some have gone.

use isimud_contract::{ErrorKind, Message};

use crate::bench::{Bench, HOUR, MINUTE, minutes, needs};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;

promises! {
    a_queue_takes_as_many_messages_as_its_bound,
    a_post_that_does_not_fit_stores_nothing,
    claimed_and_delayed_messages_count,
    deleted_messages_make_room,
    expired_messages_make_room,
    purged_messages_make_room,
    a_repeated_post_to_a_full_queue_is_the_same_post,
    an_id_twice_in_one_post_counts_once,
    posts_at_the_same_time_do_not_go_beyond_the_bound,
    a_bound_is_of_one_queue,
    a_store_that_cannot_browse_refuses_a_bound,
}

impl Bench {
    /// Whether the queue has room for these messages below a bound, and has them then.
    async fn fits(&self, messages: Vec<Message>, most: u64) -> Step<bool> {
        needs(self.capabilities().browse, "bounds of queues")?;
        match self.store().post_within(&self.queue, messages, most).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Full => {
                let sentence = error.sentence();
                assert!(sentence.contains(&most.to_string()), "{sentence}");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn a_queue_takes_as_many_messages_as_its_bound(bench: Bench) -> Outcome {
    for _ in 0..5 {
        assert!(bench.fits(vec![bench.message()], 5).await?);
    }
    assert!(!bench.fits(vec![bench.message()], 5).await?);
    assert_eq!(bench.counts().await?, (5, 0));
    assert!(
        bench.fits(vec![bench.message()], 6).await?,
        "a higher bound"
    );
    assert!(
        !bench.fits(vec![bench.message()], 2).await?,
        "a lower bound"
    );
    let nothing = Vec::new();
    assert!(bench.fits(nothing, 2).await?, "it adds nothing");
    assert_eq!(bench.counts().await?, (6, 0));
    Ok(())
}

async fn a_post_that_does_not_fit_stores_nothing(bench: Bench) -> Outcome {
    assert!(!bench.fits(bench.messages(4), 3).await?);
    assert!(bench.fits(bench.messages(2), 3).await?);
    assert!(!bench.fits(bench.messages(2), 3).await?);
    assert_eq!(bench.counts().await?, (2, 0));
    assert!(bench.fits(bench.messages(1), 3).await?);
    Ok(())
}

async fn claimed_and_delayed_messages_count(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "bounds of queues")?;
    bench.post(2).await?;
    bench.take(2).await?;
    bench.post_one(bench.delayed(MINUTE)).await?;
    assert!(!bench.fits(bench.messages(1), 3).await?);
    assert_eq!(bench.counts().await?, (1, 2));
    Ok(())
}

async fn deleted_messages_make_room(bench: Bench) -> Outcome {
    let messages = bench.messages(3);
    let first = messages[0].id;
    assert!(bench.fits(messages, 3).await?);
    assert!(!bench.fits(bench.messages(1), 3).await?);
    bench
        .delete(&[first], isimud_contract::Precondition::None)
        .await?;
    assert!(bench.fits(bench.messages(1), 3).await?);
    assert!(!bench.fits(bench.messages(1), 3).await?);
    bench.pop(2).await?;
    assert!(bench.fits(bench.messages(2), 3).await?);
    Ok(())
}

async fn expired_messages_make_room(bench: Bench) -> Outcome {
    let short = (0..3).map(|_| bench.living(minutes(2))).collect();
    assert!(bench.fits(short, 4).await?);
    assert!(bench.fits(bench.messages(1), 4).await?);
    assert!(!bench.fits(bench.messages(1), 4).await?);
    bench.advance(minutes(2)).await;
    assert!(bench.fits(bench.messages(3), 4).await?);
    assert!(!bench.fits(bench.messages(1), 4).await?);
    bench.advance(HOUR).await;
    assert!(bench.fits(bench.messages(4), 4).await?);
    Ok(())
}

async fn purged_messages_make_room(bench: Bench) -> Outcome {
    assert!(bench.fits(bench.messages(3), 3).await?);
    bench.purge().await?;
    assert!(bench.fits(bench.messages(3), 3).await?);
    assert!(!bench.fits(bench.messages(1), 3).await?);
    Ok(())
}

/// A server that lost the answer to a post sends it again.
async fn a_repeated_post_to_a_full_queue_is_the_same_post(bench: Bench) -> Outcome {
    let messages = bench.messages(3);
    for most in [3, 3, 2] {
        assert!(bench.fits(messages.clone(), most).await?);
    }
    let with_another = [messages, bench.messages(1)].concat();
    assert!(!bench.fits(with_another.clone(), 3).await?);
    assert!(bench.fits(with_another, 4).await?);
    assert_eq!(bench.counts().await?, (4, 0));
    Ok(())
}

async fn an_id_twice_in_one_post_counts_once(bench: Bench) -> Outcome {
    let message = bench.message();
    let twice = vec![message.clone(), message];
    assert!(bench.fits(twice, 1).await?);
    assert_eq!(bench.counts().await?, (1, 0));
    Ok(())
}

/// A store whose ledger is asked may refuse a few early, while others post.
async fn posts_at_the_same_time_do_not_go_beyond_the_bound(bench: Bench) -> Outcome {
    const MAX_MESSAGES: u64 = 10;
    needs(bench.capabilities().browse, "bounds of queues")?;
    let posting: Vec<_> = (0..30)
        .map(|_| {
            let poster = bench.clone();
            tokio::spawn(async move {
                let message = vec![poster.message()];
                poster
                    .fits(message, MAX_MESSAGES)
                    .await
                    .expect("a post is served")
            })
        })
        .collect();
    let mut stored = 0;
    for post in posting {
        stored += u64::from(post.await.expect("it comes to its end"));
    }
    assert!((1..=MAX_MESSAGES).contains(&stored), "{stored} were stored");
    assert_eq!(bench.counts().await?, (stored, 0));
    while bench.fits(bench.messages(1), MAX_MESSAGES).await? {
        stored += 1;
    }
    assert_eq!(stored, MAX_MESSAGES);
    assert_eq!(bench.counts().await?, (MAX_MESSAGES, 0));
    Ok(())
}

async fn a_bound_is_of_one_queue(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "bounds of queues")?;
    let other = bench.on("other");
    other.post(5).await?;
    assert!(bench.fits(bench.messages(2), 2).await?);
    assert!(!bench.fits(bench.messages(1), 2).await?);
    Ok(())
}

async fn a_store_that_cannot_browse_refuses_a_bound(bench: Bench) -> Outcome {
    needs(!bench.capabilities().browse, "to lack listings")?;
    let messages = bench.messages(1);
    let refused = bench.store().post_within(&bench.queue, messages, 9).await;
    let error = refused.expect_err("it cannot count");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(bench.claim(10).await?, None);
    Ok(())
}
