//! Where the messages of a queue are.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{InvalidName, PoolName, QueueKey};

/// A store that keeps messages: a pool, or the one that is there without registration.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreId {
    /// The store of the configuration.
    #[default]
    Default,
    /// A registered pool.
    Pool(PoolName),
}

impl fmt::Display for StoreId {
    /// The pool's name, or `default`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Pool(name) => name.fmt(f),
        }
    }
}

/// Some of a queue's messages, in one store, under a name of their own there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    /// The store.
    pub store_id: StoreId,
    /// The number that makes the name (see [`QueueName::generation`](crate::QueueName::generation)). Two segments of a
    /// queue in one store have different numbers; a new one takes the lowest that is not in use there.
    pub generation: u32,
    /// What is posted here gets a number of arrival above this one: it is beyond everything that older segments have
    /// given, or will.
    pub after: u64,
}

/// How many numbers of arrival are left free between those that the stores of a moving queue have given when it begins to
/// move, those that they may give yet, and those of the new store.
pub const GAP: u64 = 1 << 20;

/// Set in the number of a segment that older messages are carried to.
const SIDE: u32 = 1 << 29;

impl Segment {
    /// A segment whose numbers of arrival the store chooses by itself.
    pub fn new(store_id: StoreId, generation: u32) -> Self {
        Self {
            store_id,
            generation,
            after: 0,
        }
    }

    /// The segment beside this one, in the same store, that the messages of older segments are carried to while a queue
    /// moves. It belongs to this one alone: it is told from any other segment that the queue ever had in the store, so
    /// that what is old there is not taken for what was carried there.
    #[must_use]
    pub fn side(&self) -> Self {
        Self {
            store_id: self.store_id.clone(),
            generation: self.generation | SIDE,
            // What comes without a number: behind those of the old stores, before those of this segment.
            after: self.after.saturating_sub(GAP),
        }
    }

    /// Whether it is beside another one, in this sense.
    pub fn is_side(&self) -> bool {
        self.generation & SIDE != 0
    }

    /// Whether native clients may know it by its name, in a store that adopts their queues: the name is the queue's own.
    pub fn is_for_natives(&self) -> bool {
        self.generation == 0
    }

    /// Whether both have the same name in the same store, whatever numbers of arrival they begin with.
    pub fn is_same_as(&self, other: &Self) -> bool {
        (&self.store_id, self.generation) == (&other.store_id, other.generation)
    }

    /// What the segment of `queue` is called in its store.
    pub fn key(&self, queue: &QueueKey) -> QueueKey {
        queue.generation(self.generation)
    }
}

/// Where the messages of a queue are: in one place, and while the queue moves in several.
///
/// The segments are in order of age. Posts go to the last. Claims, pops and listings begin with the first, so that a
/// single producer's order holds; a segment leaves the list when it is empty and nobody posts to it any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placement {
    first: Segment,
    rest: Vec<Segment>,
    /// Segments that nobody reads or posts to any more, and that are not removed from their stores yet.
    left: Vec<LeftSegment>,
}

/// A segment that nobody reads or posts to any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeftSegment {
    /// What it was.
    pub segment: Segment,
    /// Whether it may be removed from its store at any moment. Until then a queue that comes back may take it again.
    pub is_going: bool,
}

impl LeftSegment {
    /// One that has just been left.
    pub fn new(segment: Segment) -> Self {
        Self {
            segment,
            is_going: false,
        }
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self::at(StoreId::Default)
    }
}

impl Placement {
    /// In one store, under the queue's own name.
    pub fn at(store_id: StoreId) -> Self {
        Self {
            first: Segment::new(store_id, 0),
            rest: Vec::new(),
            left: Vec::new(),
        }
    }

    /// The segments, oldest first. `None` when there are none.
    pub fn of(segments: impl IntoIterator<Item = Segment>) -> Option<Self> {
        let mut segments = segments.into_iter();
        Some(Self {
            first: segments.next()?,
            rest: segments.collect(),
            left: Vec::new(),
        })
    }

    /// The same place, which these segments have left: their names are not given to new ones as long as they are here.
    #[must_use]
    pub fn having_left(mut self, left: impl IntoIterator<Item = LeftSegment>) -> Self {
        self.left = left.into_iter().collect();
        self
    }

    /// Segments that the queue has left, and that are not removed from their stores yet.
    pub fn left(&self) -> &[LeftSegment] {
        &self.left
    }

    /// All that hold messages of the queue, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> + Clone {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// Where posts go.
    pub fn last(&self) -> &Segment {
        self.rest.last().unwrap_or(&self.first)
    }

    /// The only segment, when the queue is not migrating.
    pub fn only(&self) -> Option<&Segment> {
        self.rest.is_empty().then_some(&self.first)
    }

    /// Every store that has a segment, each once.
    pub fn store_ids(&self) -> Vec<&StoreId> {
        let mut store_ids: Vec<&StoreId> =
            self.segments().map(|segment| &segment.store_id).collect();
        store_ids.sort_unstable();
        store_ids.dedup();
        store_ids
    }

    /// The lowest number that none of these segments has in a store, nor the one beside it.
    pub fn free_generation<'a>(
        segments: impl IntoIterator<Item = &'a Segment> + Clone,
        store_id: &StoreId,
    ) -> u32 {
        let used = |generation: &u32| {
            let mut all = segments.clone().into_iter();
            all.any(|segment| {
                segment.store_id == *store_id && segment.generation & !SIDE == *generation
            })
        };
        (0..)
            .find(|generation| !used(generation))
            .unwrap_or_default()
    }

    /// The text that stores keep: nothing for the default place, else JSON such as
    /// `[["fast",0],[null,1,1767225600000],["old",0,0,true]]`, where the last one has been left and is going.
    pub fn to_text(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let store_id = |segment: &Segment| match &segment.store_id {
            StoreId::Default => Value::Null,
            StoreId::Pool(name) => name.as_str().into(),
        };
        let held = self.segments().map(|segment| match segment.after {
            0 => json!([store_id(segment), segment.generation]),
            after => json!([store_id(segment), segment.generation, after]),
        });
        let left = self.left.iter();
        let left = left.map(|left| {
            let segment = &left.segment;
            json!([
                store_id(segment),
                segment.generation,
                segment.after,
                left.is_going
            ])
        });
        held.chain(left).collect::<Value>().to_string()
    }

    /// Reads what [`Placement::to_text`] wrote.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let written: Vec<Written> = serde_json::from_str(text).map_err(|_| InvalidName)?;
        let (mut held, mut left) = (Vec::new(), Vec::new());
        for written in written {
            let (store_id, generation, after, going) = match written {
                Written::Plain(store_id, generation) => (store_id, generation, 0, None),
                Written::Numbered(store_id, generation, after) => {
                    (store_id, generation, after, None)
                }
                Written::Left(store_id, generation, after, going) => {
                    (store_id, generation, after, Some(going))
                }
            };
            let store_id = match store_id {
                None => StoreId::Default,
                Some(name) => StoreId::Pool(PoolName::parse(&name)?),
            };
            let segment = Segment {
                store_id,
                generation,
                after,
            };
            match going {
                None => held.push(segment),
                Some(is_going) => left.push(LeftSegment { segment, is_going }),
            }
        }
        let placement = Self::of(held).ok_or(InvalidName)?;
        Ok(placement.having_left(left))
    }
}

/// A segment as it is written: with its `after` where it has one, and where it has been left, whether it is going.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Plain(Option<String>, u32),
    Numbered(Option<String>, u32, u64),
    Left(Option<String>, u32, u64, bool),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> StoreId {
        StoreId::Pool(PoolName::parse(name).expect("a name"))
    }

    #[test]
    fn a_placement_is_read_as_it_was_written() {
        let moving = Placement::of([
            Segment::new(StoreId::Default, 2),
            Segment {
                after: 1_767_225_600_000,
                ..Segment::new(pool("a \"b\"\\"), 0)
            },
        ]);
        let moving = moving.expect("segments");
        let going = LeftSegment {
            is_going: true,
            ..LeftSegment::new(Segment::new(pool("old"), 0))
        };
        let left = [
            going.clone(),
            LeftSegment::new(Segment::new(StoreId::Default, 0)),
        ];
        for placement in [
            Placement::default(),
            Placement::at(pool("fast")),
            Placement::default().having_left(left.clone()),
            moving.clone(),
            moving.having_left(left),
        ] {
            assert_eq!(Placement::parse(&placement.to_text()), Ok(placement));
        }
        assert_eq!(Placement::default().to_text(), "");
        assert_eq!(Placement::at(pool("fast")).to_text(), r#"[["fast",0]]"#);
        let moved = Placement::default().having_left([going]);
        assert_eq!(moved.to_text(), r#"[[null,0],["old",0,0,true]]"#);
        assert_eq!(moved.only(), Some(&Segment::default()));
        for bad in [
            "[]",
            r#"[["old",0,0,true]]"#,
            "x",
            r#"[["",0]]"#,
            r#"[["a"]]"#,
            r#"[["a",0,-1]]"#,
        ] {
            assert_eq!(Placement::parse(bad), Err(InvalidName), "{bad}");
        }
    }
}
