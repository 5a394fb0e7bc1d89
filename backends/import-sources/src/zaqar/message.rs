//! A queue's messages in their order.

use isimud_contract::{
    Checksum, ClaimId, ClientId, ImportedClaim, Message, MessageId, QueueKey, Result, Timestamp,
};
use redis::Value;
use uuid::Uuid;

use super::{Zaqar, key, moment};
use crate::cipher::{Opened, Opener};
use crate::found::{Cursor, FoundMessage, FoundPage, Refusal};
use crate::json::{self, Text};
use crate::msgpack::{self, from_msgpack};
use crate::reply::{self, Fields};
use crate::source::Ask;

/// What a message's hash turned out to be.
enum Read {
    Gone,
    Expired,
    Live(Box<FoundMessage>),
    Refused(&'static str),
}

pub(super) async fn page(
    zaqar: &Zaqar,
    queue: &QueueKey,
    from: &Cursor,
    limit: usize,
) -> Result<FoundPage> {
    let least = if from.after.is_empty() {
        "-inf"
    } else {
        from.after.as_str()
    };
    let order = key(queue, ".messages");
    let mut question = Ask::Zrangebyscore.about(order.as_str());
    question.arg(least).arg("+inf").arg("WITHSCORES");
    question.arg("LIMIT").arg(from.same).arg(limit);
    let entries = match zaqar.source.ask(question).await {
        Ok(entries) => reply::array(entries)?,
        Err(error) => return Err(zaqar.source.explained(error, order.as_bytes()).await),
    };
    let mut page = FoundPage {
        reached: from.clone(),
        is_last: entries.len() < 2 * limit,
        ..FoundPage::default()
    };
    let mut ids = Vec::with_capacity(limit);
    let mut entries = entries.into_iter();
    while let (Some(id), Some(rank)) = (entries.next(), entries.next()) {
        page.reached.pass(reply::text(rank)?);
        ids.push(reply::bytes(id)?);
    }
    fill(zaqar, queue, &ids, &mut page).await?;
    Ok(page)
}

/// Reads messages of a queue by the ids that its order has.
pub(super) async fn by_id(zaqar: &Zaqar, queue: &QueueKey, ids: &[String]) -> Result<FoundPage> {
    let ids: Vec<Vec<u8>> = ids.iter().map(|id| id.as_bytes().to_vec()).collect();
    let mut page = FoundPage {
        is_last: true,
        ..FoundPage::default()
    };
    fill(zaqar, queue, &ids, &mut page).await?;
    Ok(page)
}

async fn fill(
    zaqar: &Zaqar,
    queue: &QueueKey,
    ids: &[Vec<u8>],
    page: &mut FoundPage,
) -> Result<()> {
    let questions: Vec<_> = ids
        .iter()
        .map(|id| Ask::Hgetall.about(id.as_slice()))
        .collect();
    let hashes = zaqar.source.ask_all(&questions).await?;
    let now = zaqar.source.now().await?;
    for (id, hash) in ids.iter().zip(hashes) {
        let Ok(id) = std::str::from_utf8(id) else {
            let what = format!("message {} of {queue}", id.escape_ascii());
            page.refused
                .push(Refusal::new(what, "its id is not a UUID in lower case"));
            continue;
        };
        match read(id, hash, &zaqar.openers, now) {
            Read::Gone => page.left.dangling += 1,
            Read::Expired => page.left.expired += 1,
            Read::Live(found) => page.messages.push(*found),
            Read::Refused(why) => {
                let what = format!("message {id} of {queue}");
                page.refused.push(Refusal::new(what, why).again(id));
            }
        }
    }
    claims(zaqar, now, &mut page.messages).await
}

impl Cursor {
    fn pass(&mut self, rank: String) {
        if self.after == rank {
            self.same += 1;
        } else {
            (self.after, self.same) = (rank, 1);
        }
    }
}

fn read(id: &str, hash: Value, openers: &[Opener], now: Timestamp) -> Read {
    let Ok(fields) = Fields::read(hash) else {
        return Read::Refused("its key is of another type");
    };
    if fields.is_empty() {
        return Read::Gone;
    }
    let (Some(expires), Some(body)) = (fields.integer("e"), fields.get("b")) else {
        return Read::Refused("what has its id is no message");
    };
    if moment(expires) <= now {
        return Read::Expired;
    }
    let Some(message) = MessageId::parse(id) else {
        return Read::Refused("its id is not a UUID in lower case");
    };
    let (Some(ttl), Some(created)) = (fields.integer("t"), fields.integer("cr")) else {
        return Read::Refused("it has no ttl, or no time of creation");
    };
    let is_encrypted = msgpack::is_bytes(body);
    let text = if is_encrypted {
        match decrypted(body, openers) {
            Ok(text) => text,
            Err(why) => return Read::Refused(why),
        }
    } else {
        match from_msgpack(body) {
            Some(text) => text,
            None => return Read::Refused("its body is not MessagePack"),
        }
    };
    let client = match fields.text("u").map(|text| (Uuid::try_parse(text), text)) {
        Some((Ok(id), _)) => ClientId::Uuid(id),
        Some((Err(_), text)) => ClientId::Text(text.into()),
        None => ClientId::Text("".into()),
    };
    let (body, as_text) = json::as_body(text.json);
    let mut found = Message::new(message, client, secs(ttl), body);
    found.age = now.since(moment(created));
    found.remaining_ttl = moment(expires).since(now);
    found.delay = moment(fields.integer("d").unwrap_or(created)).since(now);
    found.claim_count = fields
        .integer("c.c")
        .and_then(|count| count.try_into().ok())
        .unwrap_or(0);
    // Of an encrypted message it is the checksum of the ciphertext (quirk Q-SEC-4).
    if !is_encrypted && !text.altered && !as_text {
        found.checksum = fields.text("cs").and_then(checksum);
    }
    Read::Live(Box::new(FoundMessage {
        message: found,
        claim: claim(&fields, now),
        encrypted: is_encrypted,
        altered: text.altered,
        as_text,
    }))
}

fn decrypted(body: &[u8], openers: &[Opener]) -> std::result::Result<Text, &'static str> {
    let mut why = "none of the pass phrases opens its encrypted body";
    let Some(stored) = msgpack::bytes(body) else {
        return Err(why);
    };
    for opener in openers {
        match opener.open(stored) {
            Opened::Body(text) => return Ok(text),
            Opened::StrangePickle => {
                why = "its encrypted body is a pickle of more than a JSON value, which is not run";
            }
            Opened::WrongKey => {}
        }
    }
    Err(why)
}

/// The claim that a message says it has, running until the message says.
fn claim(fields: &Fields, now: Timestamp) -> Option<ImportedClaim> {
    let id = fields.text("c").and_then(ClaimId::parse)?;
    let left = moment(fields.integer("c.e")?).since(now);
    (!left.is_zero()).then_some(ImportedClaim {
        id,
        ttl: left,
        age: std::time::Duration::ZERO,
    })
}

/// Looks up the claims' own times. One that is gone, while its messages still name it, runs as they say.
async fn claims(zaqar: &Zaqar, now: Timestamp, messages: &mut [FoundMessage]) -> Result<()> {
    let mut ids: Vec<ClaimId> = messages
        .iter()
        .filter_map(|found| Some(found.claim?.id))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let questions: Vec<_> = ids
        .iter()
        .map(|id| {
            Ask::Hmget
                .about(id.to_string())
                .arg("t")
                .arg("e")
                .to_owned()
        })
        .collect();
    let answers = zaqar.source.ask_all(&questions).await?;
    for (id, answer) in ids.into_iter().zip(answers) {
        let Some((ttl, expires)) = terms(answer) else {
            continue;
        };
        let expires = moment(expires);
        if expires <= now {
            continue;
        }
        let claims = messages.iter_mut().filter_map(|found| found.claim.as_mut());
        for claim in claims.filter(|claim| claim.id == id) {
            let ttl = secs(ttl).max(expires.since(now));
            (claim.ttl, claim.age) = (ttl, ttl.saturating_sub(expires.since(now)));
        }
    }
    Ok(())
}

fn terms(answer: Value) -> Option<(i64, i64)> {
    let [ttl, expires] = reply::array(answer).ok()?.try_into().ok()?;
    Some((reply::number(&ttl).ok()?, reply::number(&expires).ok()?))
}

pub(super) fn secs(secs: i64) -> std::time::Duration {
    std::time::Duration::from_secs(secs.try_into().unwrap_or(0))
}

fn checksum(text: &str) -> Option<Checksum> {
    let digits = text.strip_prefix("MD5:")?;
    let number = u128::from_str_radix(digits, 16).ok()?;
    (digits.len() == 32).then(|| Checksum(number.to_be_bytes()))
}
