//! Positions in a listing, as clients send them back.
//!
//! A position is a number of arrival. Numbers are the queue's, whichever store has given them (see
//! [`Arrival`](isimud_contract::Arrival)): so a position means the same after the queue has moved, after a restart, and to
//! a server that has never seen the queue before.
//!
//! | what the client sends | where the listing begins |
//! |---|---|
//! | a number | behind that number, in every store that has messages of the queue |
//! | a message's id | behind that message, in whichever store; if it is gone, where it would be |
//! | a number and a tag (`117.9f3ac201`), which earlier versions gave | behind that number |
//! | anything else | nowhere: the page is empty |

use std::fmt;

use isimud_contract::{Marker, MessageId};

/// A position in the listing of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Behind a number of arrival.
    Behind(u64),
    /// Behind a message, wherever it is.
    Message(MessageId),
}

impl Position {
    /// Reads what a client sent back; `None` for what is no position.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(marker) = Marker::parse(text) {
            return Some(marker.into());
        }
        let (marker, tag) = text.split_once('.')?;
        let is_tag = tag.len() == 8 && tag.bytes().all(|b| b.is_ascii_hexdigit());
        Marker::parse(marker).filter(|_| is_tag).map(Self::from)
    }
}

impl From<Marker> for Position {
    fn from(marker: Marker) -> Self {
        match marker {
            Marker::Arrival(number) => Self::Behind(number),
            Marker::Message(id) => Self::Message(id),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind(number) => number.fmt(f),
            Self::Message(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let id = MessageId::parse("c8cbd19a-842e-4794-8e25-3d5e2df00f2b").expect("an id");
        for position in [Position::Behind(117), Position::Message(id)] {
            assert_eq!(Position::parse(&position.to_string()), Some(position));
        }
        assert_eq!(Position::Behind(117).to_string(), "117");
    }

    #[test]
    fn a_position_of_an_earlier_version_begins_at_its_number() {
        let parsed = Position::parse("117.9f3ac201");
        assert_eq!(parsed, Some(Position::Behind(117)));
    }

    #[test]
    fn invalid_texts_are_not_parsed_as_positions() {
        for text in [
            "",
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
