//! Positions in a listing, as clients send them back.
//!
//! A store numbers its own arrivals, so a number is a position in one segment only. In the default store, under the
//! queue's own name, a position is the bare number; anywhere else it carries a tag of the segment: `117.9f3ac201`.
//!
//! | what the client sends | where the listing begins |
//! |---|---|
//! | a number, with the tag of a segment that the queue has | there, and then it goes on with the newer segments |
//! | a number of a segment that is gone | at the beginning: what was in that segment was listed, is gone, or has moved |
//! | a message's id | at that message, in whichever segment; if it is gone, where it would be |
//! | anything else | nowhere: the page is empty |

use std::fmt;

use isimud_contract::{Home, Marker, MessageId, Segment};

/// Tells one segment of a queue from another in a few characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(Option<u32>);

impl Tag {
    /// The tag of a segment: none for the default place, else a hash (FNV-1a) of its home and number.
    pub(super) fn of(segment: &Segment) -> Self {
        let home = match &segment.home {
            Home::Default if segment.part == 0 => return Self(None),
            Home::Default => "",
            Home::Pool(name) => name.as_str(),
        };
        let bytes = home.bytes().chain(segment.part.to_be_bytes());
        let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Self(Some(bytes.fold(0x811c_9dc5, hash)))
    }
}

/// A position in the listing of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// In one segment, by its store's marker.
    In(Tag, Marker),
    /// At a message, wherever it is.
    At(MessageId),
}

impl Position {
    /// Reads what a client sent back; `None` for what is no position.
    pub fn parse(text: &str) -> Option<Self> {
        match Marker::parse(text) {
            Some(Marker::Message(id)) => return Some(Self::At(id)),
            Some(marker) => return Some(Self::In(Tag(None), marker)),
            None => {}
        }
        let (marker, tag) = text.split_once('.')?;
        let is_tag = tag.len() == 8 && tag.bytes().all(|b| b.is_ascii_hexdigit());
        let tag = u32::from_str_radix(tag, 16).ok().filter(|_| is_tag)?;
        Some(Self::In(Tag(Some(tag)), Marker::parse(marker)?))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(Tag(None), marker) => marker.fmt(f),
            Self::In(Tag(Some(tag)), marker) => write!(f, "{marker}.{tag:08x}"),
            Self::At(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use isimud_contract::PoolName;

    use super::*;

    fn segment(pool: Option<&str>, part: u32) -> Segment {
        let pool = pool.map(|name| PoolName::parse(name).expect("a name"));
        Segment {
            home: pool.map_or(Home::Default, Home::Pool),
            part,
        }
    }

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let id = MessageId::parse("c8cbd19a-842e-4794-8e25-3d5e2df00f2b").expect("an id");
        let tags = [segment(None, 0), segment(None, 1), segment(Some("p"), 0)];
        let mut written: Vec<String> = Vec::new();
        for tag in tags.iter().map(Tag::of) {
            for marker in [Marker::Arrival(117), Marker::Message(id)] {
                let position = Position::In(tag, marker);
                let text = position.to_string();
                if text == id.to_string() {
                    // In the default place an id by itself says as much.
                    assert_eq!(Position::parse(&text), Some(Position::At(id)));
                } else {
                    assert_eq!(Position::parse(&text), Some(position), "{text}");
                }
                assert!(!written.contains(&text), "{text} twice");
                written.push(text);
            }
        }
        assert_eq!(written[0], "117");
    }

    #[test]
    fn other_texts_are_no_positions() {
        for text in [
            "x",
            "1.",
            "1.12",
            "1.+2345678",
            ".9f3ac201",
            "1.9f3ac201.2",
            "x.9f3ac201",
        ] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }
}
