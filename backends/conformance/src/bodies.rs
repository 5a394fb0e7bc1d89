//! A body comes back as the bytes that were posted, whatever they mean.

use isimud_contract::{Message, PAGE_BYTES, Precondition};

use crate::bench::{Bench, needs};
use crate::outcome::{Outcome, Step};
use crate::promise::promises;
use crate::steps::{everything, first, ids, sorted};

promises! {
    come_back_from_a_listing_byte_for_byte,
    come_back_by_id_byte_for_byte,
    come_back_from_a_claim_byte_for_byte,
    come_back_from_a_pop_byte_for_byte,
    may_have_256_kibibytes,
    may_be_large_and_many_in_one_post,
    may_be_larger_than_any_claim_before,
    that_are_too_much_for_one_page_come_in_several,
    that_are_too_much_for_one_claim_stay_free,
    that_are_too_much_for_one_pop_stay,
    that_are_too_much_and_deleted_hide_nothing_behind_them,
}

/// What the service's largest post may carry (spec: config.md, `max_messages_post_size`).
const LARGEST: usize = 256 * 1024;

/// JSON texts that a store which parses, trims, normalises or ends text at a NUL would change.
const DELICATE: &[&str] = &[
    r#""""#,
    "null",
    "0",
    "-0",
    "1.0",
    "1e400",
    "123456789012345678901234567890.10",
    "true",
    "[]",
    "{}",
    r#"  {"z" : 1 ,"a":2,  "m":[ 1,2 ]}  "#,
    "\t{\r\n  \"indented\": true\n}\n",
    r#"{"same":1,"same":2}"#,
    r#"{"10":"b","9":"a"}"#,
    r#""NUL \u0000 in the middle""#,
    r#"{"\u0000":"\u0000"}"#,
    r#""every escape: \" \\ \/ \b \f \n \r \t \u001f""#,
    r#""half a pair: \ud83e""#,
    r#""an escaped crab: \ud83e\udd80, and \u00e9""#,
    "\"a crab: 🦀, é composed, e\u{301} decomposed, a mark \u{feff}, a right-to-left \u{202e} one\"",
    "\"\u{2028}\u{2029}\u{7f}\u{fffe}\u{10ffff}\"",
    r#""'; DROP TABLE messages; --""#,
    r#""%s ${x} {0} *3\r\n$1\r\n""#,
    r#"{"nested":{"nested":{"nested":[[[[{"deep":null}]]]]}}}"#,
];

async fn post_delicate(bench: &Bench) -> Step<Vec<Message>> {
    let messages: Vec<Message> = DELICATE
        .iter()
        .map(|body| Message {
            body: (*body).into(),
            ..bench.message()
        })
        .collect();
    bench.post_all(messages.clone()).await?;
    Ok(messages)
}

/// Compares bodies by id, so that a store without an order is held to them too.
fn assert_bodies(mut actual: Vec<Message>, mut expected: Vec<Message>) {
    actual.sort_by_key(|message| message.id);
    expected.sort_by_key(|message| message.id);
    assert_eq!(ids(&actual), ids(&expected));
    for (actual, expected) in actual.iter().zip(&expected) {
        assert_eq!(actual.body, expected.body);
    }
}

/// A body of exactly so many bytes, in which no part equals another.
fn large_body(size: usize) -> String {
    let mut body = String::with_capacity(size + 8);
    body.push('"');
    let mut number = 0_u32;
    while body.len() < size {
        body.push_str(&format!("{number:x} "));
        number += 1;
    }
    body.truncate(size - 1);
    body.push('"');
    body
}

fn large(bench: &Bench, size: usize) -> Message {
    Message {
        body: large_body(size).into(),
        ..bench.message()
    }
}

async fn come_back_from_a_listing_byte_for_byte(bench: Bench) -> Outcome {
    let posted = post_delicate(&bench).await?;
    assert_bodies(bench.page(everything()).await?.messages, posted);
    Ok(())
}

async fn come_back_by_id_byte_for_byte(bench: Bench) -> Outcome {
    let posted = post_delicate(&bench).await?;
    assert_bodies(bench.get(&ids(&posted)).await?, posted);
    Ok(())
}

async fn come_back_from_a_claim_byte_for_byte(bench: Bench) -> Outcome {
    let posted = post_delicate(&bench).await?;
    let claim = bench.take(DELICATE.len()).await?;
    assert_bodies(claim.messages, posted.clone());
    assert_bodies(bench.find(claim.id).await?.messages, posted);
    Ok(())
}

async fn come_back_from_a_pop_byte_for_byte(bench: Bench) -> Outcome {
    let posted = post_delicate(&bench).await?;
    let popped = bench.store().pop(&bench.queue, DELICATE.len()).await?;
    assert_bodies(popped, posted);
    Ok(())
}

async fn may_have_256_kibibytes(bench: Bench) -> Outcome {
    let message = large(&bench, LARGEST);
    bench.post_one(message.clone()).await?;
    let claimed = bench.take(1).await?.messages;
    assert_eq!(claimed.len(), 1);
    assert!(claimed[0].body == message.body, "the body has changed");
    Ok(())
}

async fn may_be_large_and_many_in_one_post(bench: Bench) -> Outcome {
    let messages: Vec<_> = (0..16).map(|_| large(&bench, LARGEST)).collect();
    bench.post_all(messages.clone()).await?;
    let claimed = bench.take(messages.len()).await?.messages;
    assert_eq!(claimed.len(), messages.len());
    for message in claimed {
        assert!(message.body == messages[0].body, "the body has changed");
    }
    Ok(())
}

/// A store that keeps its buffers must not give back the rest of an earlier, larger body.
async fn may_be_larger_than_any_claim_before(bench: Bench) -> Outcome {
    for size in [2, LARGEST, 1000, LARGEST / 2, 3] {
        let message = large(&bench, size);
        bench.post_one(message.clone()).await?;
        let popped = bench.store().pop(&bench.queue, 1).await?;
        assert_eq!(popped.len(), 1);
        assert!(popped[0].body == message.body, "{size} bytes have changed");
    }
    Ok(())
}

/// Posts more than one answer may have.
async fn post_too_much(bench: &Bench) -> Step<Vec<Message>> {
    let body = large(bench, LARGEST).body;
    let message = || Message {
        body: body.clone(),
        ..bench.message()
    };
    let posted: Vec<_> = (0..40).map(|_| message()).collect();
    for some in posted.chunks(8) {
        bench.post_all(some.to_vec()).await?;
    }
    Ok(posted)
}

fn assert_is_one_answer(messages: &[Message]) {
    let bytes: u64 = messages.iter().map(Message::size).sum();
    assert!(bytes <= PAGE_BYTES, "{bytes} bytes in one answer");
}

async fn that_are_too_much_for_one_page_come_in_several(bench: Bench) -> Outcome {
    let posted = post_too_much(&bench).await?;
    let mut selection = first(posted.len());
    let page = bench.page(selection.clone()).await?;
    assert_is_one_answer(&page.messages);
    let mut listed = ids(&page.messages);
    assert!(listed.len() < posted.len() && page.is_cut);
    selection.after = page.marker;
    listed.extend(bench.pages(selection).await?);
    assert_eq!(listed, ids(&posted));
    let page = bench.page(everything()).await?;
    assert_is_one_answer(&page.messages);
    Ok(())
}

async fn that_are_too_much_for_one_claim_stay_free(bench: Bench) -> Outcome {
    let posted = post_too_much(&bench).await?;
    let mut taken = Vec::new();
    while let Some(claim) = bench.claim(posted.len()).await? {
        assert_is_one_answer(&claim.messages);
        assert_eq!(
            bench.find(claim.id).await?.messages.len(),
            claim.messages.len()
        );
        taken.extend(ids(&claim.messages));
    }
    assert_eq!(sorted(taken), sorted(ids(&posted)));
    Ok(())
}

async fn that_are_too_much_for_one_pop_stay(bench: Bench) -> Outcome {
    let posted = post_too_much(&bench).await?;
    let mut taken = Vec::new();
    loop {
        let popped = bench.store().pop(&bench.queue, posted.len()).await?;
        if popped.is_empty() {
            break;
        }
        assert_is_one_answer(&popped);
        taken.extend(ids(&popped));
    }
    assert_eq!(sorted(taken), sorted(ids(&posted)));
    Ok(())
}

/// A broker has them still: nobody has taken them from there.
async fn that_are_too_much_and_deleted_hide_nothing_behind_them(bench: Bench) -> Outcome {
    needs(bench.capabilities().browse, "to delete what is free")?;
    let posted = post_too_much(&bench).await?;
    let behind = bench.post_one(bench.message()).await?;
    let posted = ids(&posted);
    let deleted = bench
        .store()
        .delete(&bench.queue, &posted, Precondition::None);
    deleted.await?;
    let claim = bench.claim(5).await?.expect("a message is free");
    assert_eq!(ids(&claim.messages), [behind]);
    Ok(())
}
