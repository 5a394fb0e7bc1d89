//! Types of options, and what a text means as one of them (spec: zaqar-conf.md 1).
//!
//! Every conversion is the one of oslo.config 10.7, with its oddities: a boolean is compared without trimming it, an empty
//! number is none, elements of a list keep their quotes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::ini::is_space;

/// The type of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// One of these, as written.
    Choice(&'static [&'static str]),
    /// One of these, in any case.
    AnyCase(&'static [&'static str]),
    Bool,
    /// A whole number within these bounds.
    Int(i64, i64),
    Float,
    /// A number that is not negative.
    NotNegative,
    /// A name or an address of a host.
    Host,
    /// Texts with commas between them.
    List,
    /// Some of these, with commas between them.
    Choices(&'static [&'static str]),
    /// `key:value` with commas between them.
    Map,
    /// A text for each assignment; all of them count, in all files.
    Multi,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// There is none.
    Unset,
    Text(String),
    Bool(bool),
    Int(i64),
    Float(f64),
    List(Vec<String>),
    Map(Vec<(String, String)>),
}

const TRUE: [&str; 4] = ["true", "1", "on", "yes"];
const FALSE: [&str; 4] = ["false", "0", "off", "no"];

/// Removes white space at both ends, as the reader does.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

impl Kind {
    /// What a text means. `Multi` is converted by the caller, a text for each assignment.
    ///
    /// # Errors
    ///
    /// Says what is expected, and never repeats the text, which may be a secret.
    pub(super) fn convert(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::Choice(choices) => match choices.contains(&text) {
                true => Ok(Value::Text(text.to_owned())),
                false => Err(one_of(choices)),
            },
            Self::AnyCase(choices) => match choices
                .iter()
                .any(|choice| choice.eq_ignore_ascii_case(text))
            {
                true => Ok(Value::Text(text.to_owned())),
                false => Err(one_of(choices)),
            },
            Self::Bool => boolean(text),
            Self::Int(least, most) => integer(text, least, most),
            Self::Float => float(text),
            Self::NotNegative => match float(text)? {
                Value::Float(number) if number < 0.0 => Err("it has to be 0 or more".to_owned()),
                value => Ok(value),
            },
            Self::Host => host(text),
            Self::List => Ok(Value::List(list(text))),
            Self::Choices(choices) => match list(text) {
                items if items.iter().all(|item| choices.contains(&item.as_str())) => {
                    Ok(Value::List(items))
                }
                _ => Err(format!("only these can be in it: {}", choices.join(", "))),
            },
            Self::Map => map(text).map(Value::Map),
            Self::Multi => Ok(Value::List(vec![text.to_owned()])),
        }
    }
}

fn one_of(choices: &[&str]) -> String {
    format!("it has to be one of: {}", choices.join(", "))
}

fn boolean(text: &str) -> Result<Value, String> {
    let lower = text.to_lowercase();
    if TRUE.contains(&lower.as_str()) {
        Ok(Value::Bool(true))
    } else if FALSE.contains(&lower.as_str()) {
        Ok(Value::Bool(false))
    } else {
        Err("it has to be true, yes, on, 1, false, no, off or 0".to_owned())
    }
}

/// Digits without the underscores that Python allows between two of them.
fn digits(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |index: Option<usize>| {
        index
            .and_then(|index| bytes.get(index))
            .is_some_and(u8::is_ascii_digit)
    };
    let sound = (0..bytes.len())
        .filter(|index| bytes[*index] == b'_')
        .all(|index| is_digit(index.checked_sub(1)) && is_digit(Some(index + 1)));
    sound.then(|| text.replace('_', ""))
}

fn integer(text: &str, least: i64, most: i64) -> Result<Value, String> {
    let text = strip(text);
    if text.is_empty() {
        return Ok(Value::Unset);
    }
    let number = digits(text).and_then(|text| text.parse::<i64>().ok());
    let number = number.ok_or("it has to be a whole number")?;
    match (least..=most).contains(&number) {
        true => Ok(Value::Int(number)),
        false if most == i64::MAX => Err(format!("it has to be {least} or more")),
        false => Err(format!("it has to be {least} to {most}")),
    }
}

fn float(text: &str) -> Result<Value, String> {
    let text = strip(text);
    if text.is_empty() {
        return Ok(Value::Unset);
    }
    let number = digits(text).and_then(|text| text.parse().ok());
    number
        .map(Value::Float)
        .ok_or_else(|| "it has to be a number".to_owned())
}

/// An address, or a name whose last label is not a number. A name loses the dot at its end.
fn host(text: &str) -> Result<Value, String> {
    let refused = || "it has to be a host name or an address".to_owned();
    if text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() {
        return Ok(Value::Text(text.to_owned()));
    }
    if text.is_empty() || text.chars().count() > 253 {
        return Err(refused());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let has_letter = last
        .bytes()
        .any(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    match has_letter && name.split('.').all(is_label) {
        true => Ok(Value::Text(name.to_owned())),
        false => Err(refused()),
    }
}

fn list(text: &str) -> Vec<String> {
    match strip(text).trim_end_matches(',') {
        "" => Vec::new(),
        text => text.split(',').map(|each| strip(each).to_owned()).collect(),
    }
}

/// Pairs, split at commas and then at the first colon. What has no colon belongs to the pair behind it.
fn map(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = strip(text);
    let mut found: Vec<(String, String)> = Vec::new();
    if text.is_empty() {
        return Ok(found);
    }
    let mut pending = String::new();
    for part in text.split(',') {
        pending.push_str(part);
        let Some((key, value)) = pending.split_once(':') else {
            pending.push(',');
            continue;
        };
        let (key, value) = (strip(key).to_owned(), strip(value).to_owned());
        if key.is_empty() {
            return Err("a pair has no name before its colon".to_owned());
        }
        if found.iter().any(|(other, _)| *other == key) {
            return Err(format!("'{key}' is in it twice"));
        }
        found.push((key, value));
        pending.clear();
    }
    match pending.is_empty() {
        true => Ok(found),
        false => Err("it has to be NAME:VALUE pairs with commas between them".to_owned()),
    }
}

impl Value {
    /// The text that takes the place of a reference to this value: what Python's `str` makes of it.
    pub(super) fn interpolated(&self) -> String {
        match self {
            Self::Unset => String::new(),
            Self::Text(text) => text.clone(),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => python_float(*number),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| python_repr(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Map(pairs) => {
                let pairs: Vec<String> = pairs
                    .iter()
                    .map(|(key, value)| format!("{}: {}", python_repr(key), python_repr(value)))
                    .collect();
                format!("{{{}}}", pairs.join(", "))
            }
        }
    }
}

fn python_float(number: f64) -> String {
    let magnitude = number.abs();
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{number:?}")
}

fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            found if found == quote => {
                out.push('\\');
                out.push(quote);
            }
            found if found.is_ascii_control() => {
                out.push_str(&format!("\\x{:02x}", u32::from(found)))
            }
            found => out.push(found),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_have_eight_words_in_any_case() {
        for text in ["true", "Yes", "ON", "1"] {
            assert_eq!(Kind::Bool.convert(text), Ok(Value::Bool(true)), "{text}");
        }
        for text in ["false", "No", "OFF", "0"] {
            assert_eq!(Kind::Bool.convert(text), Ok(Value::Bool(false)), "{text}");
        }
        for text in ["", " true", "y", "t", "enabled", "2"] {
            assert!(Kind::Bool.convert(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_empty_number_is_none() {
        let number = Kind::Int(i64::MIN, i64::MAX);
        assert_eq!(number.convert(" "), Ok(Value::Unset));
        assert_eq!(number.convert(" 1_000 "), Ok(Value::Int(1000)));
        assert_eq!(number.convert("+7"), Ok(Value::Int(7)));
        for text in [
            "1__0",
            "_1",
            "1_",
            "0x10",
            "1.0",
            "1,000",
            "<SERVICE DEFAULT>",
        ] {
            assert!(number.convert(text).is_err(), "{text}");
        }
        assert!(Kind::Int(0, 65535).convert("65536").is_err());
    }

    #[test]
    fn lists_split_at_commas_and_keep_quotes_of_elements() {
        assert_eq!(list("a, b ,c,"), ["a", "b", "c"]);
        assert_eq!(list("\"a\", [b]"), ["\"a\"", "[b]"]);
        assert_eq!(list("a,,b"), ["a", "", "b"]);
        assert_eq!(list(" ,, "), Vec::<String>::new());
    }

    #[test]
    fn maps_end_a_value_at_every_comma() {
        let pairs = map("topic:Hello, body:a, b:c").expect("pairs");
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(pairs, [("topic", "Hello"), ("body", "a"), ("b", "c")]);
        assert_eq!(map("a, b:c").expect("pairs")[0].0, "a, b");
        for text in ["a:b,a:c", ":b", "a:b,c", "a"] {
            assert!(map(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for text in [
            "127.0.0.1",
            "::",
            "fd00::1",
            "mq",
            "mq.example",
            "0x7f",
            "1.a",
        ] {
            assert!(Kind::Host.convert(text).is_ok(), "{text}");
        }
        assert_eq!(
            Kind::Host.convert("mq.example."),
            Ok(Value::Text("mq.example".into()))
        );
        for text in [
            "",
            "256.1.1.1",
            "1.2.3",
            "a_b",
            "-a",
            "a..b",
            "[::1]",
            "a:80",
        ] {
            assert!(Kind::Host.convert(text).is_err(), "{text}");
        }
    }
}
