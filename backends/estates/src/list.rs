//! A Redis list that served as a queue.
//!
//! An element has no id, so it gets one made of the list's place, its text, and how many equal ones are older. Such an
//! id does not change when older elements are taken away, and equal elements can stand for each other: reading a list
//! again while it is used makes no doubles, and loses none.

use std::collections::HashMap;
use std::time::Duration;

use isimud_contract::{Error, Result};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::element::{ElementPage, FoundElement, Unwrap, body, id};
use crate::reply;
use crate::source::{Ask, Source};

/// The end from which a list's elements were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oldest {
    /// The tail, as with `LPUSH` and `BRPOP`: Celery, Sidekiq, Resque.
    #[default]
    Right,
    /// The head, as with `RPUSH` and `BLPOP`.
    Left,
}

/// A list, read from its oldest element on.
#[derive(Debug)]
pub struct List {
    source: Source,
    key: String,
    oldest: Oldest,
    unwrap: Unwrap,
    /// How many elements there were at first.
    length: u64,
    /// How many have been read.
    read: u64,
    /// The last that was read.
    last: Option<Vec<u8>>,
    /// How many of a text have been read.
    equal: HashMap<[u8; 16], u64>,
}

impl List {
    /// Connects, and counts the list's elements. `Invalid` when the key is no list; one that is not there is empty.
    pub async fn open(address: Address, key: &str, oldest: Oldest, unwrap: Unwrap) -> Result<Self> {
        let mut list = Self {
            source: Source::open(address).await?,
            key: key.to_owned(),
            oldest,
            unwrap,
            length: 0,
            read: 0,
            last: None,
            equal: HashMap::new(),
        };
        list.length = list.count_now().await?;
        Ok(list)
    }

    /// Where it is, without passwords.
    pub fn shown(&self) -> String {
        format!("{} {}", self.source.shown(), self.key)
    }

    /// How many elements there were at first.
    pub fn count(&self) -> u64 {
        self.length
    }

    /// Reads the next up to `limit` elements.
    pub async fn next(&mut self, limit: usize) -> Result<ElementPage> {
        let values = self.range(self.read, limit).await?;
        let mut page = ElementPage {
            is_last: values.len() < limit,
            ..ElementPage::default()
        };
        for value in values {
            page.elements.push(self.element(value));
        }
        page.reached = self.read.to_string();
        Ok(page)
    }

    fn element(&mut self, value: Vec<u8>) -> FoundElement {
        let mut text = [0; 16];
        text.copy_from_slice(&Sha256::digest(&value)[..16]);
        let older = self.equal.entry(text).or_default();
        let place = self.source.shown();
        let parts: [&[u8]; 5] = [
            b"list",
            place.as_bytes(),
            self.key.as_bytes(),
            &value,
            &older.to_be_bytes(),
        ];
        let id = id(&parts);
        *older += 1;
        self.read += 1;
        self.last = Some(value.clone());
        FoundElement {
            id,
            body: body(value, self.unwrap),
            age: Duration::ZERO,
        }
    }

    /// Whether nobody seems to have added or taken elements while it was read.
    pub async fn is_unchanged(&self) -> Result<bool> {
        if self.count_now().await? != self.length {
            return Ok(false);
        }
        let Some(last) = &self.last else {
            return Ok(true);
        };
        let there = self.range(self.read - 1, 1).await?;
        Ok(there.first() == Some(last))
    }

    async fn count_now(&self) -> Result<u64> {
        let question = Ask::Llen.about(self.key.as_str());
        let answer = self.source.ask_all(&[question]).await?.pop();
        let count = answer.and_then(|answer| reply::number(&answer).ok());
        count
            .and_then(|count| count.try_into().ok())
            .ok_or_else(|| Error::invalid("the key is not that of a list").with("key", &self.key))
    }

    /// Elements by their age, from the oldest, which is 0.
    async fn range(&self, from: u64, limit: usize) -> Result<Vec<Vec<u8>>> {
        let [first, last] = match self.oldest {
            Oldest::Left => [from.to_string(), (from + limit as u64 - 1).to_string()],
            Oldest::Right => [
                format!("-{}", from + limit as u64),
                format!("-{}", from + 1),
            ],
        };
        let question = Ask::Lrange
            .about(self.key.as_str())
            .arg(first)
            .arg(last)
            .to_owned();
        let answer = reply::array(self.source.ask(question).await?)?;
        let mut values = answer
            .into_iter()
            .map(reply::bytes)
            .collect::<Result<Vec<_>>>()?;
        if self.oldest == Oldest::Right {
            values.reverse();
        }
        Ok(values)
    }
}
