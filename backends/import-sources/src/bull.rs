//! A queue of BullMQ (or Bull). Its lists and sorted sets hold numbers; a job is a hash of its own, `PREFIX:QUEUE:NUMBER`.
//!
//! | there | here |
//! |---|---|
//! | `wait`, `paused`, `prioritized` | messages, in this order |
//! | `delayed` | messages with what is left of their delay |
//! | `active` | held by workers: told, and left there |
//! | `waiting-children` | waiting for other jobs: told, and left there |
//! | `completed`, `failed` | not looked at |
//! | a job | `{"id": …, "name": …, "data": …, "opts": …}`; `timestamp` is its age |

use std::time::Duration;

use isimud_contract::{Error, Result, Timestamp};

use crate::address::Address;
use crate::element::{ElementPage, Elements, FoundElement, id};
use crate::found::Refusal;
use crate::json::{as_body, base64, is_body, quoted};
use crate::list::{self, Oldest};
use crate::reply;
use crate::source::{Ask, Source};

/// A delayed job's score is its time in milliseconds, times this.
const SCORE: f64 = 4096.0;

/// Where the numbers of jobs are, and what becomes of the jobs.
const PARTS: [(&str, Fate); 6] = [
    ("wait", Fate::Taken),
    ("paused", Fate::Taken),
    ("prioritized", Fate::Taken),
    ("delayed", Fate::Delayed),
    ("active", Fate::Left("a worker holds it")),
    (
        "waiting-children",
        Fate::Left("it waits for other jobs, which no message can"),
    ),
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Taken,
    Delayed,
    Left(&'static str),
}

/// The jobs of one list or sorted set of a queue.
#[derive(Debug)]
pub struct Jobs {
    source: Source,
    /// `PREFIX:QUEUE`.
    base: String,
    part: &'static str,
    fate: Fate,
    is_list: bool,
    length: u64,
    read: u64,
}

impl Jobs {
    /// Connects, and finds the parts of the queue that a key is of, and what has the name of one and is none. `Invalid`
    /// when the key itself has no such name, or is of another type.
    pub async fn open(address: Address, key: &str) -> Result<(Vec<Self>, Vec<Refusal>)> {
        let Some((base, named)) = base(key) else {
            let sentence = "the key of BullMQ's waiting jobs ends with ':wait'";
            return Err(Error::invalid(sentence).with("key", key.as_bytes().escape_ascii()));
        };
        let source = Source::open(address).await?;
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        for (part, fate) in PARTS {
            let key = format!("{base}:{part}");
            let is_list = match source.type_of(key.as_bytes()).await?.as_str() {
                "none" => continue,
                "list" => true,
                "zset" => false,
                other if part != named => {
                    let what = format!("key {} ({other})", key.as_bytes().escape_ascii());
                    let why = "it has the name of a part of the queue, and is none";
                    refused.push(Refusal::new(what, why));
                    continue;
                }
                other => {
                    let sentence = "the key is not that of a part of BullMQ's queue";
                    return Err(Error::invalid(sentence)
                        .with("key", key.as_bytes().escape_ascii())
                        .with("type", other));
                }
            };
            let mut jobs = Self {
                source: source.clone(),
                base: base.to_owned(),
                part,
                fate,
                is_list,
                length: 0,
                read: 0,
            };
            jobs.length = jobs.count_now().await?;
            found.push(jobs);
        }
        Ok((found, refused))
    }

    fn key(&self) -> String {
        format!("{}:{}", self.base, self.part)
    }

    async fn count_now(&self) -> Result<u64> {
        let count = if self.is_list { Ask::Llen } else { Ask::Zcard };
        let answer = self.source.ask(count.about(self.key())).await?;
        Ok(reply::number(&answer)?.try_into().unwrap_or(0))
    }

    /// The numbers of jobs, with the times at which they are due.
    async fn numbers(&self, limit: usize) -> Result<Vec<(Vec<u8>, Option<Timestamp>)>> {
        let key = self.key();
        if self.is_list {
            let found = list::range(&self.source, &key, Oldest::Right, self.read, limit).await?;
            return Ok(found.into_iter().map(|number| (number, None)).collect());
        }
        let mut question = Ask::Zrange.about(key.as_str());
        question.arg(self.read).arg(self.read + limit as u64 - 1);
        question.arg("WITHSCORES");
        let mut answer = reply::array(self.source.ask(question).await?)?.into_iter();
        let mut numbers = Vec::new();
        while let (Some(number), Some(score)) = (answer.next(), answer.next()) {
            let due = match self.fate {
                Fate::Delayed => moment(&reply::bytes(score)?),
                _ => None,
            };
            numbers.push((reply::bytes(number)?, due));
        }
        Ok(numbers)
    }

    fn named(&self, number: &[u8]) -> String {
        format!("job {} of {}", number.escape_ascii(), self.key())
    }
}

impl Elements for Jobs {
    fn shown(&self) -> String {
        format!("{} {}", self.source.shown(), self.key())
    }

    fn count(&self) -> u64 {
        self.length
    }

    async fn next(&mut self, limit: usize) -> Result<ElementPage> {
        let numbers = self.numbers(limit).await?;
        let mut page = ElementPage {
            is_last: numbers.len() < limit,
            ..ElementPage::default()
        };
        self.read += numbers.len() as u64;
        let questions: Vec<_> = numbers
            .iter()
            .map(|(number, _)| {
                let key = [self.base.as_bytes(), b":", number].concat();
                let mut question = Ask::Hmget.about(key);
                question.arg(&["name", "data", "opts", "timestamp"]);
                question
            })
            .collect();
        let answers = self.source.ask_all(&questions).await?;
        let now = self.source.now().await?;
        for ((number, due), answer) in numbers.into_iter().zip(answers) {
            // Older versions keep a mark in the list, by which workers are woken.
            if number.starts_with(b"0:") {
                page.acknowledged += 1;
                continue;
            }
            if let Fate::Left(why) = self.fate {
                page.refused.push(Refusal::new(self.named(&number), why));
                continue;
            }
            match job(answer) {
                Ok(job) => page.elements.push(FoundElement {
                    name: self.named(&number),
                    id: job.id(&self.source.shown(), &self.base, &number),
                    age: job.made.map_or(Duration::ZERO, |made| now.since(made)),
                    delay: due.map_or(Duration::ZERO, |due| due.since(now)),
                    body: job.body(&number),
                }),
                Err(why) => page.refused.push(Refusal::new(self.named(&number), why)),
            }
        }
        Ok(page)
    }

    async fn is_unchanged(&self) -> Result<bool> {
        Ok(self.read == self.length && self.count_now().await? == self.length)
    }
}

/// What a job's own key says.
#[derive(Debug, Default)]
struct Job {
    name: Vec<u8>,
    data: Vec<u8>,
    opts: Vec<u8>,
    made: Option<Timestamp>,
}

fn job(answer: redis::Value) -> std::result::Result<Job, &'static str> {
    let fields = reply::array(answer).map_err(|_| "its key is of another type")?;
    let mut fields = fields.into_iter().map(|field| reply::optional(field).ok());
    let mut next = || fields.next().flatten().flatten();
    let (name, data, opts, made) = (next(), next(), next(), next());
    let data = data.ok_or("there is no such job, or it has no data")?;
    let made = made.and_then(|text| reply::integer(&text)).map(Timestamp);
    Ok(Job {
        name: name.unwrap_or_default(),
        data,
        opts: opts.unwrap_or_default(),
        made,
    })
}

impl Job {
    fn id(&self, place: &str, base: &str, number: &[u8]) -> isimud_contract::MessageId {
        let made = self.made.unwrap_or(Timestamp(0)).0.to_be_bytes();
        id(&[
            b"bullmq",
            place.as_bytes(),
            base.as_bytes(),
            number,
            &made,
            &self.data,
        ])
    }

    fn body(&self, number: &[u8]) -> String {
        let mut members = vec![
            format!("\"id\": {}", quoted(&String::from_utf8_lossy(number))),
            format!("\"name\": {}", quoted(&String::from_utf8_lossy(&self.name))),
            format!("\"data\": {}", value(&self.data)),
        ];
        if !self.opts.is_empty() {
            members.push(format!("\"opts\": {}", value(&self.opts)));
        }
        let whole = format!("{{{}}}", members.join(", "));
        // Data of the deepest nesting that is allowed are one too deep in here.
        as_body(whole).0
    }
}

/// A field as JSON: what the API takes as it is, other text as a string, other bytes as base64.
fn value(stored: &[u8]) -> String {
    match std::str::from_utf8(stored) {
        Ok(text) if is_body(text) => text.to_owned(),
        Ok(text) => quoted(text),
        Err(_) => format!("{{\"base64\": {}}}", base64(stored)),
    }
}

/// When a delayed job is due.
fn moment(score: &[u8]) -> Option<Timestamp> {
    let score: f64 = std::str::from_utf8(score).ok()?.parse().ok()?;
    let millis = (score / SCORE).floor();
    // Beyond it no number of milliseconds is exact, and no delay is meant.
    if !(0.0..9e15).contains(&millis) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was just found to be in the range"
    )]
    Some(Timestamp(millis as i64))
}

/// A key of a queue's part without that.
fn base(key: &str) -> Option<(&str, &str)> {
    let (base, part) = key.rsplit_once(':')?;
    PARTS
        .iter()
        .any(|(known, _)| *known == part)
        .then_some((base, part))
}

/// Refuses a list whose elements are numbers of BullMQ's jobs: the numbers alone are of no use to anybody.
pub(crate) async fn refuse_numbers(
    source: &Source,
    key: &str,
    element: Option<&Vec<u8>>,
) -> Result<()> {
    let (Some((base, _)), Some(number)) = (base(key), element) else {
        return Ok(());
    };
    let job = [base.as_bytes(), b":", number].concat();
    let question = Ask::Hget.about(job).arg("data").to_owned();
    let answer = source.ask_all(&[question]).await?.pop();
    if let Some(Ok(Some(_))) = answer.map(reply::optional) {
        let sentence = "the elements of this list are the numbers of BullMQ's jobs, and not the jobs: say --unwrap bullmq";
        return Err(Error::invalid(sentence).with("key", key.as_bytes().escape_ascii()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_becomes_one_object_that_the_api_takes() {
        let job = Job {
            name: b"send".to_vec(),
            data: br#"{"to":1.10}"#.to_vec(),
            opts: br#"{"attempts":3}"#.to_vec(),
            made: None,
        };
        assert_eq!(
            job.body(b"7"),
            r#"{"id": "7", "name": "send", "data": {"to":1.10}, "opts": {"attempts":3}}"#
        );
        for data in [&b"1e400"[..], b"\xff", b"{", &[b'['; 3000]] {
            let job = Job {
                data: data.to_vec(),
                ..Job::default()
            };
            assert!(is_body(&job.body(b"7")), "{}", data.escape_ascii());
        }
    }

    #[test]
    fn a_delayed_jobs_time_is_in_its_score() {
        let due = 1_700_000_000_123_i64;
        let score = (due * 4096 + 7).to_string();
        assert_eq!(moment(score.as_bytes()), Some(Timestamp(due)));
        for odd in [&b"-1"[..], b"inf", b"nan", b"x", b"1e300"] {
            assert_eq!(moment(odd), None);
        }
    }

    #[test]
    fn a_part_of_a_queue_is_known_by_its_name() {
        assert_eq!(base("bull:mail:wait"), Some(("bull:mail", "wait")));
        assert_eq!(base("bull:mail"), None);
        assert_eq!(base("wait"), None);
    }
}
