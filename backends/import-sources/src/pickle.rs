//! Python pickles of JSON values, read as data (spec: messages.md 11).
//!
//! Zaqar pickles a body that is no string before it encrypts it, and its reader runs whatever it finds (quirk
//! Q-SEC-3). Here the opcodes by which `None`, booleans, numbers, strings, lists and dicts are written are known, those
//! that import or call something are not, and an unknown one ends the reading. The text is built from the inside out,
//! so that nothing recurses.

use crate::json::{Text, float, quoted};

/// Containers inside each other, at the most: more than Python's own pickler follows.
const DEPTH: usize = 2_000;

/// Bytes of JSON that a pickle may come to: a few bytes of it can refer to a long string again and again.
const MOST_BYTES: usize = 64 << 20;

/// Bytes of an integer, at the most: about as many digits as Python itself reads and writes.
const LONGEST_INTEGER: usize = 1_800;

/// Something on the machine's stack.
enum Item {
    Mark,
    /// JSON text.
    Done(String),
    List(Vec<String>),
    /// Keys and values by turns.
    Dict(Vec<String>),
}

impl Item {
    fn into_text(self) -> Option<String> {
        match self {
            Self::Mark => None,
            Self::Done(text) => Some(text),
            Self::List(items) => Some(format!("[{}]", items.join(", "))),
            Self::Dict(members) => {
                let members: Vec<String> = members
                    .chunks_exact(2)
                    .map(|pair| pair.join(": "))
                    .collect();
                Some(format!("{{{}}}", members.join(", ")))
            }
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Item>,
    /// What can be referred to again; `None` for a container, which JSON never shares.
    memo: Vec<Option<String>>,
    altered: bool,
    /// Bytes of all the values so far.
    bytes: usize,
}

/// Reads a pickle of protocol 2 or newer as JSON text. `None` for anything but the pickle of one JSON value.
pub(crate) fn from_pickle(bytes: &[u8]) -> Option<Text> {
    let mut machine = Machine {
        rest: bytes,
        ..Machine::default()
    };
    while machine.step()? {}
    let value = machine.stack.pop()?;
    machine.stack.is_empty().then_some(())?;
    Some(Text {
        json: value.into_text()?,
        altered: machine.altered,
    })
}

impl<'a> Machine<'a> {
    /// Follows one opcode; `false` after the last.
    fn step(&mut self) -> Option<bool> {
        let [opcode] = self.take()?;
        match opcode {
            // The protocol, and the length of a frame: nothing depends on them.
            0x80 => self.take::<1>().map(drop)?,
            0x95 => self.take::<8>().map(drop)?,
            b'N' => self.push("null")?,
            0x88 => self.push("true")?,
            0x89 => self.push("false")?,
            b'K' | b'M' | b'J' | 0x8a | 0x8b => self.integer(opcode)?,
            b'G' => self.float()?,
            0x8c | b'X' | 0x8d => self.string(opcode)?,
            b']' => self.open(Item::List(Vec::new()))?,
            b'}' => self.open(Item::Dict(Vec::new()))?,
            b'(' => self.open(Item::Mark)?,
            b'a' | b's' => {
                let values = if opcode == b'a' { 1 } else { 2 };
                let first = self.stack.len().checked_sub(values)?;
                self.add(first, opcode == b's')?;
            }
            b'e' | b'u' => {
                let is_mark = |item: &Item| matches!(item, Item::Mark);
                let mark = self.stack.iter().rposition(is_mark)?;
                self.stack.remove(mark);
                self.add(mark, opcode == b'u')?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'q' | b'r' => {
                let place = self.place(opcode == b'r')?;
                self.remember(place)?;
            }
            b'h' | b'j' => {
                let place = self.place(opcode == b'j')?;
                let text = self.memo.get(place)?.clone()?;
                self.push(text)?;
            }
            b'.' => return Some(false),
            _ => return None,
        }
        Some(true)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn take_slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn push(&mut self, text: impl Into<String>) -> Option<()> {
        let text = text.into();
        self.bytes += text.len();
        (self.bytes <= MOST_BYTES).then(|| self.stack.push(Item::Done(text)))
    }

    fn open(&mut self, item: Item) -> Option<()> {
        // A container that is being filled has a mark above it.
        (self.stack.len() < 2 * DEPTH).then(|| self.stack.push(item))
    }

    fn integer(&mut self, opcode: u8) -> Option<()> {
        let text = match opcode {
            b'K' => self.take::<1>()?[0].to_string(),
            b'M' => u16::from_le_bytes(self.take()?).to_string(),
            b'J' => i32::from_le_bytes(self.take()?).to_string(),
            0x8a => {
                let length = self.take::<1>()?[0].into();
                decimal(self.take_slice(length)?)
            }
            _ => {
                let length = u32::from_le_bytes(self.take()?);
                let length = usize::try_from(length).ok()?;
                (length <= LONGEST_INTEGER).then_some(())?;
                decimal(self.take_slice(length)?)
            }
        };
        self.push(text)
    }

    fn float(&mut self) -> Option<()> {
        let text = float(f64::from_be_bytes(self.take()?));
        self.altered |= text.is_none();
        self.push(text.unwrap_or_else(|| "null".into()))
    }

    fn string(&mut self, opcode: u8) -> Option<()> {
        let length = match opcode {
            0x8c => self.take::<1>()?[0].into(),
            b'X' => u64::from(u32::from_le_bytes(self.take()?)),
            _ => u64::from_le_bytes(self.take()?),
        };
        let bytes = self.take_slice(usize::try_from(length).ok()?)?;
        self.push(quoted(std::str::from_utf8(bytes).ok()?))
    }

    fn place(&mut self, wide: bool) -> Option<usize> {
        if wide {
            usize::try_from(u32::from_le_bytes(self.take()?)).ok()
        } else {
            Some(self.take::<1>()?[0].into())
        }
    }

    fn remember(&mut self, place: usize) -> Option<()> {
        // Pickles number what they remember one after another.
        (place <= self.memo.len()).then_some(())?;
        let text = match self.stack.last()? {
            Item::Done(text) => Some(text.clone()),
            _ => None,
        };
        match self.memo.get_mut(place) {
            Some(old) => *old = text,
            None => self.memo.push(text),
        }
        Some(())
    }

    /// Adds everything from a place on the stack to the container below it.
    fn add(&mut self, first: usize, to_a_dict: bool) -> Option<()> {
        let mut texts = Vec::with_capacity(self.stack.len() - first);
        for item in self.stack.drain(first..) {
            texts.push(item.into_text()?);
        }
        match self.stack.last_mut()? {
            Item::List(items) if !to_a_dict => items.extend(texts),
            Item::Dict(members)
                if to_a_dict
                    && texts.len() % 2 == 0
                    && texts.iter().step_by(2).all(|key| key.starts_with('"')) =>
            {
                members.extend(texts);
            }
            _ => return None,
        }
        Some(())
    }
}

/// A little-endian number in two's complement, of any length, in decimal.
fn decimal(bytes: &[u8]) -> String {
    if let Some(small) = small(bytes) {
        return small.to_string();
    }
    let negative = bytes.last().is_some_and(|last| *last >= 0x80);
    let mut rest = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in &mut rest {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, over);
        }
    }
    let mut digits = Vec::new();
    while rest.iter().any(|byte| *byte != 0) {
        let mut remainder = 0;
        for byte in rest.iter_mut().rev() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 10).unwrap_or(0);
            remainder = value % 10;
        }
        digits.extend(char::from_digit(remainder, 10));
    }
    digits.extend(negative.then_some('-'));
    digits.into_iter().rev().collect()
}

fn small(bytes: &[u8]) -> Option<i128> {
    let fill = match bytes.last() {
        Some(last) if *last >= 0x80 => 0xff,
        _ => 0,
    };
    let mut wide = [fill; 16];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits
            .chunks(2)
            .map(|pair| (pair[0] << 4 | pair[1]) as u8)
            .collect()
    }

    #[test]
    fn a_small_pickle_does_not_become_gigabytes() {
        let text = vec![b'x'; 1 << 20];
        let length = u32::try_from(text.len()).expect("a length").to_le_bytes();
        let begin = [&b"\x80\x04](X"[..], &length, &text, b"\x94"].concat();
        let again = |times: usize| [&begin[..], &b"h\0".repeat(times), b"e."].concat();
        assert!(from_pickle(&again(20)).is_some());
        assert!(from_pickle(&again(5_000)).is_none());
        let digits = 1_u32 << 20;
        let integer = vec![0x7f; digits as usize];
        let integer = [&b"\x80\x04\x8b"[..], &digits.to_le_bytes(), &integer, b"."].concat();
        assert!(from_pickle(&integer).is_none());
    }

    #[test]
    fn what_python_pickles_is_read() {
        for (pickle, json) in PYTHON {
            let text = from_pickle(&hex(pickle)).unwrap_or_else(|| panic!("{json}"));
            assert_eq!((text.json.as_str(), text.altered), (*json, false));
        }
    }

    #[test]
    fn numbers_that_json_has_not_are_null() {
        let text = from_pickle(b"\x80\x04G\x7f\xf8\0\0\0\0\0\0.").expect("NaN");
        assert_eq!((text.json.as_str(), text.altered), ("null", true));
    }

    #[test]
    fn nothing_is_run() {
        for pickle in [
            // `cbuiltins\nlen\n(S'abcdef'\ntR.`, the example of quirk Q-SEC-3, behind a protocol mark.
            &b"\x80\x02cbuiltins\nlen\n(S'abcdef'\ntR."[..],
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
            b"\x80\x04)\x81}b.",
            b"\x80\x04P0\n.",
        ] {
            assert!(from_pickle(pickle).is_none());
        }
    }

    #[test]
    fn broken_pickles_are_survived() {
        for (pickle, _) in PYTHON {
            let bytes = hex(pickle);
            for end in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
                assert!(from_pickle(&bytes[..end]).is_none());
            }
        }
        for pickle in [
            &b"\x80\x04h\0."[..],
            b"\x80\x04}K\x01K\x02s.",
            b"\x80\x04]\x94h\0a.",
            b"\x80\x04(.",
            b"\x80\x04K.",
            b"\x80\x04e.",
        ] {
            assert!(from_pickle(pickle).is_none());
        }
        assert!(from_pickle(&[&b"\x80\x04"[..], &[b']'; 100_000]].concat()).is_none());
    }

    #[test]
    fn large_numbers_keep_every_digit() {
        let big = "340282366920938463463374607431768211456";
        let two_to_the_128 = [&[0; 16][..], &[1]].concat();
        assert_eq!(decimal(&two_to_the_128), big);
        let minus = [&[0; 16][..], &[0xff]].concat();
        assert_eq!(decimal(&minus), format!("-{big}"));
        assert_eq!(decimal(&[]), "0");
        assert_eq!(decimal(&[0xff]), "-1");
    }

    /// Written by `pickle.dumps(value).hex()` of Python 3.11, with `protocol=2` and `protocol=5` where it says so.
    const PYTHON: &[(&str, &str)] = include!("pickle_samples.in");
}
