//! The checksum of a message body: the MD5 of the body as Python's `json.dumps` writes it (spec: messages.md 9).
//!
//! Consumers compute the same sum over what they received, so every byte of that text counts. It is made from the
//! tokens of the posted text and not from parsed values: an integer keeps all its digits, a lone surrogate stays what
//! it is, and neither step recurses, so that nesting costs memory only. A `serde_json::Value` would turn a large
//! integer into a float and stop at 128 levels.

use std::collections::HashMap;
use std::ops::Range;
use std::str::Chars;

use isimud_contract::Checksum;
use md5::{Digest, Md5};

/// Computes the checksum of a body; `null` has none.
///
/// The body must be one JSON document, which whoever accepted it has made sure of. Of any other text the answer means
/// nothing, but it comes.
pub(crate) fn checksum(body: &str) -> Option<Checksum> {
    if body.trim_ascii() == "null" {
        return None;
    }
    let document = Document::read(body)?;
    let mut md5 = Md5::new();
    document.write(&mut |text| md5.update(text));
    Some(Checksum(md5.finalize().into()))
}

/// A JSON document as Python holds it: members in the order received, of equal keys the first place and the last
/// value.
struct Document {
    /// Every scalar and every key, written as Python writes it, one after another.
    text: String,
    nodes: Vec<Node>,
    root: usize,
}

enum Node {
    /// Part of the text.
    Scalar(Range<usize>),
    Group(Group),
}

/// An array or an object. Nodes name each other by number, so that neither reading nor dropping recurses.
#[derive(Default)]
struct Group {
    is_object: bool,
    /// Keys, which are empty in an array, and values.
    members: Vec<(Range<usize>, usize)>,
    /// An object's key whose value has not come yet.
    key: Option<Range<usize>>,
}

/// One thing to write.
enum Step<'a> {
    Text(&'a str),
    Node(usize),
}

impl Document {
    /// Reads a document that is known to be valid; `None` when there is nothing in it.
    fn read(body: &str) -> Option<Self> {
        let mut document = Self {
            text: String::with_capacity(body.len()),
            nodes: Vec::new(),
            root: 0,
        };
        let mut open: Vec<Group> = Vec::new();
        let mut rest = body.chars();
        loop {
            let token = rest.as_str();
            let node = match rest.next() {
                Some(',' | ':' | ' ' | '\t' | '\n' | '\r') => continue,
                Some(first @ ('{' | '[')) => {
                    open.push(Group {
                        is_object: first == '{',
                        ..Group::default()
                    });
                    continue;
                }
                Some('}' | ']') => Node::Group(document.settle(open.pop()?)),
                Some('"') => Node::Scalar(document.put_string(&mut rest)),
                Some(_) => Node::Scalar(document.put_bare(token, &mut rest)),
                None => break,
            };
            document.place(node, open.last_mut());
        }
        (!document.nodes.is_empty()).then_some(document)
    }

    /// Puts a node that is complete where it belongs. In an object keys and values alternate, so the separators of a
    /// valid document say nothing new.
    fn place(&mut self, node: Node, into: Option<&mut Group>) {
        let id = self.nodes.len();
        match (into, node) {
            (Some(group), Node::Scalar(range)) if group.is_object && group.key.is_none() => {
                group.key = Some(range);
            }
            (into, node) => {
                match into {
                    Some(group) => group.members.push((group.key.take().unwrap_or(0..0), id)),
                    None => self.root = id,
                }
                self.nodes.push(node);
            }
        }
    }

    /// Applies Python's rule for equal keys: the last value, at the place of the first.
    fn settle(&self, mut group: Group) -> Group {
        if group.is_object && group.members.len() > 1 {
            let mut places = HashMap::with_capacity(group.members.len());
            let mut settled: Vec<(Range<usize>, usize)> = Vec::with_capacity(group.members.len());
            for (key, value) in group.members {
                let place = *places
                    .entry(&self.text[key.clone()])
                    .or_insert(settled.len());
                match settled.get_mut(place) {
                    Some(earlier) => earlier.1 = value,
                    None => settled.push((key, value)),
                }
            }
            group.members = settled;
        }
        group
    }

    /// Rewrites a string, whose opening quote has been read, up to its closing one.
    fn put_string(&mut self, rest: &mut Chars<'_>) -> Range<usize> {
        let start = self.text.len();
        self.text.push('"');
        while let Some(char) = rest.next() {
            match char {
                '"' => break,
                '\\' => self.put_escaped(rest),
                _ => self.put_char(char),
            }
        }
        self.text.push('"');
        start..self.text.len()
    }

    /// Rewrites what follows a backslash. Half a surrogate pair stays half a pair, as in Python.
    fn put_escaped(&mut self, rest: &mut Chars<'_>) {
        match rest.next() {
            Some('u') => {
                let digits = rest.as_str().get(..4).unwrap_or_default();
                *rest = rest.as_str()[digits.len()..].chars();
                self.put_unit(u16::from_str_radix(digits, 16).unwrap_or_default());
            }
            Some('b') => self.put_char('\u{8}'),
            Some('f') => self.put_char('\u{c}'),
            Some('n') => self.put_char('\n'),
            Some('r') => self.put_char('\r'),
            Some('t') => self.put_char('\t'),
            Some(itself) => self.put_char(itself),
            None => {}
        }
    }

    fn put_char(&mut self, char: char) {
        for unit in char.encode_utf16(&mut [0; 2]) {
            self.put_unit(*unit);
        }
    }

    /// Writes one UTF-16 unit as `ensure_ascii` does: everything outside space to tilde is escaped, DEL too.
    fn put_unit(&mut self, unit: u16) {
        const HEX: [char; 16] = [
            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
        ];
        match u8::try_from(unit) {
            Ok(b'"') => self.text.push_str("\\\""),
            Ok(b'\\') => self.text.push_str("\\\\"),
            Ok(b'\n') => self.text.push_str("\\n"),
            Ok(b'\r') => self.text.push_str("\\r"),
            Ok(b'\t') => self.text.push_str("\\t"),
            Ok(8) => self.text.push_str("\\b"),
            Ok(12) => self.text.push_str("\\f"),
            Ok(plain @ b' '..=b'~') => self.text.push(plain.into()),
            _ => {
                self.text.push_str("\\u");
                let digits = [12, 8, 4, 0].map(|shift| HEX[usize::from((unit >> shift) & 15)]);
                self.text.extend(digits);
            }
        }
    }

    /// Rewrites the number or the word at the front of a text, and leaves what follows it.
    fn put_bare<'a>(&mut self, text: &'a str, rest: &mut Chars<'a>) -> Range<usize> {
        let start = self.text.len();
        let of_a_word = |char: char| char.is_ascii_alphanumeric() || "+-.".contains(char);
        let end = text.find(|char| !of_a_word(char)).unwrap_or(text.len());
        let word = &text[..end];
        let is_number = word.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        match word.parse() {
            Ok(float) if is_number && word.contains(['.', 'e', 'E']) => {
                self.text.push_str(&python_float(float));
            }
            _ if word == "-0" => self.text.push('0'),
            _ => self.text.push_str(word),
        }
        if end > 0 {
            *rest = text[end..].chars();
        }
        start..self.text.len()
    }

    /// Says the whole text, piece by piece.
    fn write(&self, say: &mut impl FnMut(&str)) {
        let mut steps = vec![Step::Node(self.root)];
        while let Some(step) = steps.pop() {
            match step {
                Step::Text(text) => say(text),
                Step::Node(id) => match &self.nodes[id] {
                    Node::Scalar(range) => say(&self.text[range.clone()]),
                    Node::Group(group) => {
                        say(if group.is_object { "{" } else { "[" });
                        self.plan(group, &mut steps);
                    }
                },
            }
        }
    }

    /// Stacks up what follows a group's opening bracket, the last thing first.
    fn plan<'a>(&'a self, group: &'a Group, steps: &mut Vec<Step<'a>>) {
        steps.push(Step::Text(if group.is_object { "}" } else { "]" }));
        for (at, (key, value)) in group.members.iter().enumerate().rev() {
            steps.push(Step::Node(*value));
            if group.is_object {
                steps.push(Step::Text(": "));
                steps.push(Step::Text(&self.text[key.clone()]));
            }
            if at > 0 {
                steps.push(Step::Text(", "));
            }
        }
    }
}

/// Writes a float as Python's `repr` does: the shortest text that reads back as the same float; of two that are as
/// short the nearer one, and at the same distance the one that ends in an even digit. Only that last rule is missing
/// in what `{:?}` writes.
fn python_float(float: f64) -> String {
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let shortest = format!("{float:?}");
    let digits = shortest.split('e').next().unwrap_or_default();
    let places = digits.split_once('.').map_or(0, |(_, places)| places.len());
    let nearest = if shortest.contains('e') {
        format!("{float:.places$e}")
    } else {
        format!("{float:.places$}")
    };
    let text = if nearest.parse() == Ok(float) {
        nearest
    } else {
        shortest
    };
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies and what `json.dumps(json.loads(body))` of Python 3.11 makes of them.
    const PYTHON: &[(&str, &str)] = &[
        (r#"{"b": 1, "a": "é"}"#, r#"{"b": 1, "a": "\u00e9"}"#),
        (r#""plain""#, r#""plain""#),
        ("[1, 2.50]", "[1, 2.5]"),
        (
            " {\"b\":1,\n\"a\":[ ] ,\t\"c\":{ }}\r\n",
            r#"{"b": 1, "a": [], "c": {}}"#,
        ),
        ("[true,false,null]", "[true, false, null]"),
        (r#""""#, r#""""#),
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "-0.0"),
        ("1.0", "1.0"),
        ("1E2", "100.0"),
        ("1e15", "1000000000000000.0"),
        ("1e16", "1e+16"),
        ("123456789012345680.0", "1.2345678901234568e+17"),
        ("1e22", "1e+22"),
        ("1e-4", "0.0001"),
        ("1e-5", "1e-05"),
        ("1.5e-7", "1.5e-07"),
        ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ("5e-324", "5e-324"),
        ("0.1", "0.1"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("1e400", "Infinity"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551616", "18446744073709551616"),
        ("1e23", "1e+23"),
        ("5.684341886080802e-14", "5.684341886080802e-14"),
        ("-1.25E+2", "-125.0"),
        ("109136625368132.625", "109136625368132.62"),
        ("1125899906842624.75", "1125899906842624.8"),
        (r#""\"\\\/\b\f\n\r\t""#, r#""\"\\/\b\f\n\r\t""#),
        (
            r#""\u0000\u0001\u001f\u0020\u007e\u007f\u0080""#,
            r#""\u0000\u0001\u001f ~\u007f\u0080""#,
        ),
        ("\"\u{7f}\"", r#""\u007f""#),
        (r#""\u00E9\u00e9é""#, r#""\u00e9\u00e9\u00e9""#),
        (r#""\uD83D\uDE00""#, r#""\ud83d\ude00""#),
        (r#""\ud800""#, r#""\ud800""#),
        (r#""\udc00\ud800""#, r#""\udc00\ud800""#),
        (r#""\ud83d\ud83d\ude00""#, r#""\ud83d\ud83d\ude00""#),
        ("\"\\u2028\u{feff}\u{ffff}\"", r#""\u2028\ufeff\uffff""#),
        (r#""\u0041\u0022\u005c\u002f\u000a""#, r#""A\"\\/\n""#),
        (r#""Ü漢😀""#, r#""\u00dc\u6f22\ud83d\ude00""#),
        (r#"{"a":1,"b":2,"a":3}"#, r#"{"a": 3, "b": 2}"#),
        (
            r#"{"a":1,"\u0061":{"x":[1,2]},"b":[]}"#,
            r#"{"a": {"x": [1, 2]}, "b": []}"#,
        ),
        (
            r#"{"k":{"d":1,"d":2},"k":[{"e":1}]}"#,
            r#"{"k": [{"e": 1}]}"#,
        ),
        ("[[[[[[1]]]],{}]]", "[[[[[[1]]]], {}]]"),
        (r#"[1,-1,1.5,"x",[],{}]"#, r#"[1, -1, 1.5, "x", [], {}]"#),
        (
            r#"{"é":"ü","\ud83d\ude00":1,"😀":2}"#,
            r#"{"\u00e9": "\u00fc", "\ud83d\ude00": 2}"#,
        ),
        (r#"["a,b:c]}","{[",":"]"#, r#"["a,b:c]}", "{[", ":"]"#),
        ("[0.1e1,1E0,0e5,-0e0]", "[1.0, 1.0, 0.0, -0.0]"),
    ];

    fn text(body: &str) -> String {
        let mut text = String::new();
        if let Some(document) = Document::read(body) {
            document.write(&mut |piece| text.push_str(piece));
        }
        text
    }

    #[test]
    fn the_text_is_the_one_that_python_writes() {
        for (body, expected) in PYTHON {
            assert_eq!(text(body), *expected, "{body}");
        }
    }

    #[test]
    fn the_specification_has_these_sums() {
        let sum = |body| checksum(body).expect(body).to_string();
        assert_eq!(
            sum(r#"{"b": 1, "a": "é"}"#),
            "MD5:b9622a81c98224c56eb3afdd8f51b202"
        );
        assert_eq!(sum(r#""plain""#), "MD5:a73442f033abd3c787518065af0eb10e");
        assert_eq!(sum("[1, 2.50]"), "MD5:9e8fb4c5836978cf8e0e368cf0837a0a");
    }

    #[test]
    fn a_null_body_has_no_checksum() {
        assert_eq!(checksum("null"), None);
        assert_eq!(checksum(" null\n"), None);
        assert!(checksum("[null]").is_some());
        assert!(checksum(r#""null""#).is_some());
    }

    #[test]
    fn nesting_and_repeated_keys_have_no_limit() {
        let depth = 100_000;
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(text(&deep), deep);
        let keys = format!("{{{}}}", vec![r#""k":0"#; depth].join(","));
        assert_eq!(text(&keys), r#"{"k": 0}"#);
    }

    #[test]
    fn text_that_is_not_json_is_survived() {
        for (body, _) in PYTHON {
            for (end, _) in body.char_indices() {
                text(&body[..end]);
                text(&body[end..]);
            }
        }
        for body in ["]", "{[]}", "}{", r#""\u12é""#, r#""\"#, r#""\u"#, "{:}"] {
            text(body);
        }
    }
}
