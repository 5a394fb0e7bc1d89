//! A Redis list that served as a queue.
//!
//! An element has no id, so it gets one made of the list's place, its text, and how many equal ones are older. Such an
//! id does not change when older elements are taken away, and equal elements can stand for each other: reading a list
//! again while it is used makes no doubles, and loses none.
//!
//! Celery (kombu) keeps one queue in several lists, one for each priority that is not 0, which lies in the name behind
//! two control characters. They belong to the queue, however its elements are unwrapped; the most urgent comes first.

use std::collections::HashMap;
use std::time::Duration;

use isimud_contract::{Error, Result};
use sha2::{Digest, Sha256};

use crate::address::Address;
use crate::bull;
use crate::element::{ElementPage, Elements, FoundElement, Unwrap, body, id};
use crate::found::Refusal;
use crate::reply;
use crate::source::{Ask, Source};

/// What stands between the name of kombu's list and its priority.
const PRIORITY: &str = "\u{6}\u{16}";

/// The end from which a list's elements were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oldest {
    /// The tail, as with `LPUSH` and `BRPOP`: Celery, Sidekiq, Resque.
    #[default]
    Right,
    /// The head, as with `RPUSH` and `BLPOP`.
    Left,
}

/// The lists of one queue.
#[derive(Debug)]
pub struct Lists {
    /// The lists, the most urgent first.
    pub lists: Vec<List>,
    /// What has the name of one of them, and is none.
    pub refused: Vec<Refusal>,
    source: Source,
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

impl Lists {
    /// Connects, and finds a queue's lists: the key, and kombu's of other priorities. `Invalid` when the key is no
    /// list, or one of BullMQ's, whose elements are not its jobs. There may be no list at all.
    pub async fn open(address: Address, key: &str, oldest: Oldest, unwrap: Unwrap) -> Result<Self> {
        let source = Source::open(address).await?;
        let keys: Vec<String> = std::iter::once(key.to_owned())
            .chain((1..=255).map(|priority: u8| format!("{key}{PRIORITY}{priority}")))
            .collect();
        let mut lists = Self {
            lists: Vec::new(),
            refused: Vec::new(),
            source: source.clone(),
        };
        let questions: Vec<_> = keys
            .iter()
            .map(|key| Ask::Type.about(key.as_str()))
            .collect();
        let types = source.ask_all(&questions).await?;
        for (at, (key, found)) in keys.into_iter().zip(types).enumerate() {
            match reply::text(found)?.as_str() {
                "none" => {}
                "list" => {
                    let mut list = List {
                        source: source.clone(),
                        key,
                        oldest,
                        unwrap,
                        length: 0,
                        read: 0,
                        last: None,
                        equal: HashMap::new(),
                    };
                    list.length = list.count_now().await?;
                    lists.lists.push(list);
                }
                other if at == 0 => {
                    return Err(Error::invalid("the key is not that of a list")
                        .with("key", key.as_bytes().escape_ascii())
                        .with("type", other));
                }
                other => {
                    let what = format!("key {} ({other})", key.as_bytes().escape_ascii());
                    let why = "it has the name of a list of the queue, and is none";
                    lists.refused.push(Refusal::new(what, why));
                }
            }
        }
        if let Some(list) = lists.lists.first() {
            let oldest = list.range(0, 1).await?;
            bull::refuse_numbers(&source, key, oldest.first()).await?;
        }
        Ok(lists)
    }

    /// The tasks of this queue that Celery's workers hold.
    pub fn held(&self, key: &str) -> crate::Held {
        crate::Held::new(self.source.clone(), key)
    }

    /// Where they are, without passwords.
    pub fn shown(&self, key: &str) -> String {
        format!("{} {}", self.source.shown(), key.as_bytes().escape_ascii())
    }
}

impl Elements for List {
    fn shown(&self) -> String {
        format!(
            "{} {}",
            self.source.shown(),
            self.key.as_bytes().escape_ascii()
        )
    }

    fn count(&self) -> u64 {
        self.length
    }

    async fn next(&mut self, limit: usize) -> Result<ElementPage> {
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

    async fn is_unchanged(&self) -> Result<bool> {
        if self.read != self.length || self.count_now().await? != self.length {
            return Ok(false);
        }
        let Some(last) = &self.last else {
            return Ok(true);
        };
        let there = self.range(self.read - 1, 1).await?;
        Ok(there.first() == Some(last))
    }
}

impl List {
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
            name: format!(
                "element {} of {}, the oldest being 1",
                self.read,
                self.key.as_bytes().escape_ascii()
            ),
            id,
            body: body(value, self.unwrap),
            age: Duration::ZERO,
            delay: Duration::ZERO,
        }
    }

    async fn count_now(&self) -> Result<u64> {
        let question = Ask::Llen.about(self.key.as_str());
        match self.source.ask(question).await {
            Ok(count) => Ok(reply::number(&count)?.try_into().unwrap_or(0)),
            Err(error) => Err(self.source.explained(error, self.key.as_bytes()).await),
        }
    }

    /// Elements by their age, from the oldest, which is 0.
    async fn range(&self, from: u64, limit: usize) -> Result<Vec<Vec<u8>>> {
        range(&self.source, &self.key, self.oldest, from, limit).await
    }
}

/// Elements of a list by their age, from the oldest, which is 0.
pub(crate) async fn range(
    source: &Source,
    key: &str,
    oldest: Oldest,
    from: u64,
    limit: usize,
) -> Result<Vec<Vec<u8>>> {
    let [first, last] = match oldest {
        Oldest::Left => [from.to_string(), (from + limit as u64 - 1).to_string()],
        Oldest::Right => [
            format!("-{}", from + limit as u64),
            format!("-{}", from + 1),
        ],
    };
    let question = Ask::Lrange.about(key).arg(first).arg(last).to_owned();
    let answer = match source.ask(question).await {
        Ok(answer) => reply::array(answer)?,
        Err(error) => return Err(source.explained(error, key.as_bytes()).await),
    };
    let mut values = answer
        .into_iter()
        .map(reply::bytes)
        .collect::<Result<Vec<_>>>()?;
    if oldest == Oldest::Right {
        values.reverse();
    }
    Ok(values)
}
