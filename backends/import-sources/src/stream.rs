//! A Redis stream.
//!
//! Entries keep their order, and their ids, which are times, become ages. A stream keeps what its consumers have
//! acknowledged; of one that served as a queue only the entries are wanted that a group has still to do.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

use isimud_contract::{Error, Result, Timestamp};

use crate::address::Address;
use crate::element::{ElementPage, Elements, FoundElement, Unwrap, body, id};
use crate::json::{base64, quoted};
use crate::reply::{self, strange};
use crate::source::{Ask, Source};

/// Entries of a group's list that are asked for at once.
const STEP: usize = 2_000;

/// Which entries of a stream to read, and what of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamSelection {
    /// Only what this group has not acknowledged.
    pub group: Option<String>,
    /// Only this field's value; otherwise all fields as an object.
    pub field: Option<String>,
    /// What is taken out of its wrapping.
    pub unwrap: Unwrap,
    /// Only entries after this one.
    pub after: Option<String>,
}

/// A stream, read from its oldest entry on.
#[derive(Debug)]
pub struct Stream {
    source: Source,
    key: String,
    selection: StreamSelection,
    length: u64,
    reached: EntryId,
    group: Option<Group>,
}

/// The id of an entry: milliseconds, and a number among those of the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct EntryId(u64, u64);

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (time, number) = text.split_once('-').unwrap_or((text, "0"));
        match (time.parse(), number.parse()) {
            (Ok(time), Ok(number)) => Ok(Self(time, number)),
            _ => Err(Error::invalid("that is not the id of a stream's entry").with("id", text)),
        }
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// How far a group has come.
#[derive(Debug)]
struct Group {
    delivered: EntryId,
    /// Delivered and not acknowledged.
    pending: HashSet<EntryId>,
}

impl Group {
    fn has_done(&self, entry: EntryId) -> bool {
        entry <= self.delivered && !self.pending.contains(&entry)
    }
}

impl Stream {
    /// Connects, counts the entries and asks how far the group has come. `Invalid` when the key is no stream, or there
    /// is none, or no such group.
    pub async fn open(address: Address, key: &str, selection: StreamSelection) -> Result<Self> {
        let reached = match &selection.after {
            Some(id) => id.parse()?,
            None => EntryId::default(),
        };
        let mut stream = Self {
            source: Source::open(address).await?,
            key: key.to_owned(),
            selection,
            length: 0,
            reached,
            group: None,
        };
        match stream.source.type_of(key.as_bytes()).await?.as_str() {
            "stream" => {}
            "none" => return Err(crate::missing(key)),
            other => {
                return Err(Error::invalid("the key is not that of a stream")
                    .with("key", key.as_bytes().escape_ascii())
                    .with("type", other));
            }
        }
        let length = stream.source.ask(Ask::Xlen.about(key)).await?;
        stream.length = reply::number(&length)?.try_into().unwrap_or(0);
        if let Some(name) = stream.selection.group.clone() {
            stream.group = Some(stream.find_group(&name).await?);
        }
        Ok(stream)
    }

    /// Reads entries that were left out before, by their ids. Those that are gone are left out again.
    pub async fn again(&mut self, ids: &[String]) -> Result<ElementPage> {
        let mut page = ElementPage {
            is_last: true,
            ..ElementPage::default()
        };
        for id in ids {
            let mut question = Ask::Xrange.about(self.key.as_str());
            question.arg(id).arg(id);
            let entries = reply::array(self.source.ask(question).await?)?;
            self.take(entries, &mut page).await?;
        }
        Ok(page)
    }

    async fn take(&mut self, entries: Vec<redis::Value>, page: &mut ElementPage) -> Result<()> {
        let now = self.source.now().await?;
        for entry in entries {
            let [name, fields] = reply::array(entry)?.try_into().map_err(|_| strange())?;
            let name: EntryId = reply::text(name)?.parse()?;
            self.reached = self.reached.max(name);
            if self
                .group
                .as_ref()
                .is_some_and(|group| group.has_done(name))
            {
                page.acknowledged += 1;
            } else {
                let fields = reply::Fields::read(fields)?.into_pairs();
                page.elements.push(self.element(name, fields, now));
            }
        }
        Ok(())
    }
    fn element(
        &self,
        name: EntryId,
        fields: Vec<(Vec<u8>, Vec<u8>)>,
        now: Timestamp,
    ) -> FoundElement {
        let (place, entry) = (self.source.shown(), name.to_string());
        let mut parts = vec![
            &b"stream"[..],
            place.as_bytes(),
            self.key.as_bytes(),
            entry.as_bytes(),
        ];
        parts.extend(
            fields
                .iter()
                .flat_map(|(name, value)| [name.as_slice(), value]),
        );
        let id = id(&parts);
        let added = Timestamp(name.0.try_into().unwrap_or(i64::MAX));
        FoundElement {
            name: format!("entry {entry}"),
            id,
            body: self.body(fields),
            age: now.since(added),
            delay: Duration::ZERO,
        }
    }

    /// The one field's value, or all fields as an object. An entry without the one field is an object as well, so that
    /// nothing is lost.
    fn body(&self, mut fields: Vec<(Vec<u8>, Vec<u8>)>) -> String {
        if let Some(wanted) = &self.selection.field {
            let place = fields
                .iter()
                .position(|(name, _)| name == wanted.as_bytes());
            if let Some(place) = place {
                return body(fields.swap_remove(place).1, self.selection.unwrap);
            }
        }
        object(fields)
    }

    async fn find_group(&self, wanted: &str) -> Result<Group> {
        let answer = self
            .source
            .ask(Ask::XinfoGroups.about(self.key.as_str()))
            .await?;
        for group in reply::array(answer)? {
            let (mut name, mut delivered) = (None, None);
            let mut parts = reply::array(group)?.into_iter();
            while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
                match reply::bytes(label)?.as_slice() {
                    b"name" => name = Some(reply::bytes(value)?),
                    b"last-delivered-id" => delivered = Some(reply::text(value)?),
                    // Numbers, more of them with every version.
                    _ => {}
                }
            }
            if name.as_deref() == Some(wanted.as_bytes()) {
                let delivered = delivered.ok_or_else(strange)?.parse()?;
                let pending = self.pending(wanted).await?;
                return Ok(Group { delivered, pending });
            }
        }
        Err(Error::invalid("the stream has no such group").with("group", wanted))
    }

    async fn pending(&self, group: &str) -> Result<HashSet<EntryId>> {
        let mut pending = HashSet::new();
        let mut from = EntryId::default();
        loop {
            let mut question = Ask::Xpending.about(self.key.as_str());
            question.arg(group).arg(from.to_string()).arg("+").arg(STEP);
            let found = reply::array(self.source.ask(question).await?)?;
            let is_last = found.len() < STEP;
            for entry in found {
                let name = reply::array(entry)?
                    .into_iter()
                    .next()
                    .ok_or_else(strange)?;
                from = reply::text(name)?.parse()?;
                pending.insert(from);
            }
            if is_last {
                return Ok(pending);
            }
            from.1 = from.1.saturating_add(1);
        }
    }
}

impl Elements for Stream {
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
        let from = self.reached;
        // The entry after the last one, without the exclusive ranges that older servers do not know.
        let from = match (from.1.checked_add(1), from) {
            (Some(number), EntryId(time, _)) => EntryId(time, number),
            (None, EntryId(time, _)) => EntryId(time.saturating_add(1), 0),
        };
        let mut question = Ask::Xrange.about(self.key.as_str());
        question
            .arg(from.to_string())
            .arg("+")
            .arg("COUNT")
            .arg(limit);
        let entries = reply::array(self.source.ask(question).await?)?;
        let mut page = ElementPage {
            is_last: entries.len() < limit,
            ..ElementPage::default()
        };
        self.take(entries, &mut page).await?;
        page.reached = self.reached.to_string();
        Ok(page)
    }

    /// Entries come at the end, where reading meets them, and go without leaving a gap to miss others by.
    async fn is_unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

/// Fields as an object of texts, in their order; of a field that is there several times, an array.
fn object(fields: Vec<(Vec<u8>, Vec<u8>)>) -> String {
    let mut members: Vec<(Vec<u8>, Vec<String>)> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let value = match String::from_utf8(value) {
            Ok(text) => quoted(&text),
            Err(error) => format!("{{\"base64\": {}}}", base64(error.as_bytes())),
        };
        match members.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => values.push(value),
            None => members.push((name, vec![value])),
        }
    }
    let members: Vec<String> = members
        .into_iter()
        .map(|(name, values)| {
            let name = quoted(&String::from_utf8_lossy(&name));
            match values.as_slice() {
                [value] => format!("{name}: {value}"),
                values => format!("{name}: [{}]", values.join(", ")),
            }
        })
        .collect();
    format!("{{{}}}", members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_an_object() {
        let pairs = |pairs: &[(&str, &[u8])]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()));
            pairs.collect::<Vec<_>>()
        };
        assert_eq!(object(pairs(&[])), "{}");
        assert_eq!(
            object(pairs(&[("b", b"1"), ("a", b"\xff"), ("b", b"{\"x\":1}")])),
            r#"{"b": ["1", "{\"x\":1}"], "a": {"base64": "/w=="}}"#
        );
    }

    #[test]
    fn a_group_has_done_what_was_delivered_and_is_not_pending() {
        let group = Group {
            delivered: EntryId(5, 1),
            pending: HashSet::from([EntryId(3, 0)]),
        };
        for (id, done) in [("2", true), ("3-0", false), ("5-1", true), ("5-2", false)] {
            assert_eq!(group.has_done(id.parse().expect("an id")), done, "{id}");
        }
        assert!("x-1".parse::<EntryId>().is_err());
    }
}
