//! The bytes of a queue are those of its live messages, whoever holds them, counted in steps.

use isimud_contract::{ErrorKind, Message, Precondition};

use crate::bench::{Bench, HOUR, MINUTE, minutes, needs};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;
use crate::steps::some_headers;

promises! {
    an_empty_queue_has_no_bytes,
    a_count_of_bytes_adds_up_bodies_and_headers,
    claimed_and_delayed_messages_have_bytes,
    deleted_and_popped_messages_have_no_bytes,
    expired_messages_have_no_bytes,
    purged_messages_have_no_bytes,
    bytes_are_of_one_queue,
    a_long_queue_is_counted_in_steps,
    a_store_that_cannot_browse_does_not_count_bytes,
}

/// What a store may count for a message beside its body and headers, in bytes.
const BESIDE: u64 = 64;

/// The bytes of a body, with its two quotation marks.
const BODY: u64 = 1_000;

/// Steps that a count of the trials' queues takes at the most: a store that begins again and again would never end.
const MAX_STEPS: usize = 100;

impl Bench {
    /// Goes on only where bytes can be counted.
    fn counts_bytes(&self) -> Step<()> {
        needs(self.capabilities().browse, "counts of bytes")
    }

    fn of_size(&self) -> Message {
        let text = "b".repeat(BODY as usize - 2);
        Message {
            body: format!("\"{text}\"").into(),
            ..self.message()
        }
    }

    fn several_of_size(&self, count: usize) -> Vec<Message> {
        (0..count).map(|_| self.of_size()).collect()
    }

    /// The bytes of the queue, and how many steps it took to count them.
    async fn bytes_in_steps(&self) -> Step<(u64, usize)> {
        self.counts_bytes()?;
        let (mut bytes, mut after) = (0, None);
        for steps in 1..=MAX_STEPS {
            let step = self.store().count_bytes(&self.queue, after).await?;
            bytes += step.bytes;
            match step.next {
                None => return Ok((bytes, steps)),
                next => after = next,
            }
        }
        panic!("the count does not come to its end");
    }

    /// Checks that the queue has the bytes of so many messages of [`BODY`] bytes.
    #[track_caller]
    fn assert_bytes(&self, bytes: u64, messages: u64) {
        let least = messages * BODY;
        let most = messages * (BODY + BESIDE);
        assert!((least..=most).contains(&bytes), "{bytes} of {messages}");
    }

    async fn has_bytes_of(&self, messages: u64) -> Step<()> {
        let (bytes, _) = self.bytes_in_steps().await?;
        self.assert_bytes(bytes, messages);
        Ok(())
    }
}

async fn an_empty_queue_has_no_bytes(bench: Bench) -> Outcome {
    assert_eq!(bench.bytes_in_steps().await?, (0, 1));
    Ok(())
}

async fn a_count_of_bytes_adds_up_bodies_and_headers(bench: Bench) -> Outcome {
    bench.counts_bytes()?;
    bench.post_all(bench.several_of_size(7)).await?;
    bench.has_bytes_of(7).await?;
    let plain = bench.message();
    let size = plain.size();
    bench.post_all(vec![plain]).await?;
    let (before, _) = bench.bytes_in_steps().await?;
    let headed = Message {
        headers: some_headers(),
        ..bench.message()
    };
    let more = headed.size() - size;
    assert!(more > 0, "it has headers");
    let body = headed.body.len() as u64;
    bench.post_all(vec![headed]).await?;
    let (after, _) = bench.bytes_in_steps().await?;
    let added = after - before;
    // Kept as they are, or as large as base64 makes them.
    let least = body + more * 3 / 4;
    assert!(
        (least - 3..=body + more + BESIDE).contains(&added),
        "{added}"
    );
    Ok(())
}

async fn claimed_and_delayed_messages_have_bytes(bench: Bench) -> Outcome {
    bench.counts_bytes()?;
    bench.post_all(bench.several_of_size(4)).await?;
    bench.take(2).await?;
    let delayed = Message {
        delay: MINUTE,
        ..bench.of_size()
    };
    bench.post_all(vec![delayed]).await?;
    bench.has_bytes_of(5).await?;
    Ok(())
}

async fn deleted_and_popped_messages_have_no_bytes(bench: Bench) -> Outcome {
    bench.counts_bytes()?;
    let messages = bench.several_of_size(6);
    let first = messages[0].id;
    bench.post_all(messages).await?;
    bench.delete(&[first], Precondition::None).await?;
    bench.has_bytes_of(5).await?;
    bench.pop(2).await?;
    bench.has_bytes_of(3).await?;
    Ok(())
}

async fn expired_messages_have_no_bytes(bench: Bench) -> Outcome {
    bench.counts_bytes()?;
    let short = Message {
        ttl: minutes(2),
        remaining_ttl: minutes(2),
        ..bench.of_size()
    };
    bench.post_all(vec![short, bench.of_size()]).await?;
    bench.advance(minutes(2)).await;
    bench.has_bytes_of(1).await?;
    bench.advance(HOUR).await;
    assert_eq!(bench.bytes_in_steps().await?.0, 0);
    Ok(())
}

async fn purged_messages_have_no_bytes(bench: Bench) -> Outcome {
    bench.counts_bytes()?;
    bench.post_all(bench.several_of_size(3)).await?;
    bench.purge().await?;
    assert_eq!(bench.bytes_in_steps().await?.0, 0);
    bench.post_all(bench.several_of_size(1)).await?;
    bench.has_bytes_of(1).await?;
    Ok(())
}

async fn bytes_are_of_one_queue(bench: Bench) -> Outcome {
    bench.counts_bytes()?;
    let other = bench.on("other");
    other.post_all(other.several_of_size(5)).await?;
    bench.post_all(bench.several_of_size(2)).await?;
    bench.has_bytes_of(2).await?;
    Ok(())
}

async fn a_long_queue_is_counted_in_steps(bench: Bench) -> Outcome {
    bench.counts_bytes()?;
    // Some of each kind, so that a step meets them all.
    for _ in 0..30 {
        bench.post_all(bench.several_of_size(100)).await?;
    }
    bench.take(10).await?;
    let (bytes, steps) = bench.bytes_in_steps().await?;
    bench.assert_bytes(bytes, 3_000);
    assert!(steps > 1, "all of it at once");
    Ok(())
}

async fn a_store_that_cannot_browse_does_not_count_bytes(bench: Bench) -> Outcome {
    needs(!bench.capabilities().browse, "to lack listings")?;
    let refused = bench.store().count_bytes(&bench.queue, None).await;
    let error = refused.expect_err("it does not know its messages");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    Ok(())
}
