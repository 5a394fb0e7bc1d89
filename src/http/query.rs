//! Query strings by the reference's rules (spec: http.md 5): blank values count as absent, a comma splits, an encoded
//! comma does not, the last of several wins for a scalar, lists are joined.

use std::borrow::Cow;
use std::fmt::Display;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::document::Beside;
use super::problem::Problem;

/// What stands unencoded in a link.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The parameters of a request: names decoded, values not yet, blank ones left out.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Query<'a> {
    pub(crate) fn new(query: Option<&'a str>) -> Self {
        let pairs = query.unwrap_or("").split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (!value.is_empty()).then(|| (decode(name), value))
        });
        Self(pairs.collect())
    }

    /// Every value of a parameter.
    fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(other, _)| other == name);
        named.map(|(_, value)| *value)
    }

    /// The values of a list.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<String>> {
        let mut values = self.all(name).peekable();
        values.peek()?;
        let parts = values.flat_map(|value| value.split(','));
        let parts = parts.filter(|part| !part.is_empty());
        Some(parts.map(|part| decode(part).into_owned()).collect())
    }

    /// The value of a scalar.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let last = self.all(name).next_back()?.rsplit(',').next()?;
        (!last.is_empty()).then(|| decode(last))
    }

    /// The value of an integer, in what spelling Python takes: a sign, spaces around, underscores between digits.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        python_integer(&text).map(Some).ok_or_else(|| {
            Problem::parameter(format!(
                "The \"{name}\" parameter is invalid. The value must be an integer."
            ))
        })
    }

    /// The value of a boolean.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match &*text {
            "true" | "True" | "t" | "yes" | "y" | "1" | "on" => Ok(Some(true)),
            "false" | "False" | "f" | "no" | "n" | "0" | "off" => Ok(Some(false)),
            _ => Err(Problem::parameter(format!(
                "The \"{name}\" parameter is invalid. The value of the parameter must be \"true\" or \"false\"."
            ))),
        }
    }

    /// Whether the client asks for headers and properties of messages.
    pub(crate) fn beside(&self) -> Result<Beside, Problem> {
        Ok(match self.boolean("headers")? {
            Some(true) => Beside::Told,
            _ => Beside::Untold,
        })
    }

    /// The parameters that none of `known` names, each once, the last value of each, commas included. Looks for no more
    /// when there are more than `most`.
    pub(crate) fn others(&self, known: &[&str], most: usize) -> Vec<(String, String)> {
        let mut others: Vec<(String, String)> = Vec::new();
        for (name, value) in self.0.iter().filter(|(name, _)| !known.contains(&&**name)) {
            if others.len() > most {
                break;
            }
            let value = decode(value).into_owned();
            match others.iter_mut().find(|(other, _)| other == name) {
                Some((_, last)) => *last = value,
                None => others.push((name.to_string(), value)),
            }
        }
        others
    }
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// What Python's `int()` makes of a text.
pub(crate) fn python_integer(text: &str) -> Option<i64> {
    let digits = text.trim();
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    let well_formed = unsigned
        .split('_')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if !well_formed {
        return None;
    }
    let number = digits.replace('_', "");
    // A number beyond 64 bits is an integer all the same; no limit lets it through.
    Some(number.parse().unwrap_or(if number.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    }))
}

/// The parameters of a link to the next page: those that the client sent, in a fixed order, with the new marker.
#[derive(Debug)]
pub(crate) struct Link {
    parameters: Vec<(&'static str, String)>,
    had_marker: bool,
}

impl Link {
    /// Begins a link. The new marker stands first if the client sent one, else last.
    pub(crate) fn new(had_marker: bool) -> Self {
        Self {
            parameters: Vec::new(),
            had_marker,
        }
    }

    /// Adds a parameter if it is there.
    pub(crate) fn with(mut self, name: &'static str, value: Option<impl Display>) -> Self {
        self.parameters
            .extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// The reference to the next page.
    pub(crate) fn href(mut self, path: &str, marker: impl Display) -> String {
        let marker = ("marker", marker.to_string());
        if self.had_marker {
            self.parameters.insert(0, marker);
        } else {
            self.parameters.push(marker);
        }
        let mut href = path.to_owned();
        for (at, (name, value)) in self.parameters.iter().enumerate() {
            href.push(if at == 0 { '?' } else { '&' });
            href.push_str(name);
            href.push('=');
            href.extend(utf8_percent_encode(value, UNRESERVED));
        }
        href
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query<'_> {
        Query::new(Some(text))
    }

    #[test]
    fn scalars_take_the_last_value_and_blanks_are_absent() {
        assert_eq!(query("limit=1&limit=2").text("limit").as_deref(), Some("2"));
        assert_eq!(query("limit=1,3").text("limit").as_deref(), Some("3"));
        assert_eq!(query("limit=&x=1").text("limit"), None);
        assert_eq!(query("limit").text("limit"), None);
        assert_eq!(
            query("marker=a%2Cb+c").text("marker").as_deref(),
            Some("a,b c")
        );
    }

    #[test]
    fn lists_are_split_and_joined() {
        assert_eq!(
            query("ids=a,b&ids=c").list("ids"),
            Some(vec!["a".into(), "b".into(), "c".into()])
        );
        assert_eq!(query("ids=,").list("ids"), Some(vec![]));
        assert_eq!(query("ids=").list("ids"), None);
        assert_eq!(query("ids=a%2Cb").list("ids"), Some(vec!["a,b".into()]));
    }

    #[test]
    fn integers_are_read_as_python_reads_them() {
        for (text, number) in [
            ("%2B5", 5),
            ("%205%20", 5),
            ("1_0", 10),
            ("-3", -3),
            ("99999999999999999999", i64::MAX),
        ] {
            assert_eq!(
                query(&format!("limit={text}"))
                    .integer("limit")
                    .expect(text),
                Some(number)
            );
        }
        for bad in ["x", "1__0", "_1", "1.0", "0x1", "--1"] {
            assert!(
                query(&format!("limit={bad}")).integer("limit").is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn booleans_have_their_spellings() {
        assert_eq!(
            query("echo=True").boolean("echo").expect("true"),
            Some(true)
        );
        assert_eq!(
            query("echo=off").boolean("echo").expect("false"),
            Some(false)
        );
        assert!(query("echo=TRUE").boolean("echo").is_err());
    }

    #[test]
    fn links_keep_the_order_of_the_specification() {
        let first = Link::new(false)
            .with("limit", Some(2))
            .with("echo", None::<bool>);
        assert_eq!(
            first.href("/v2/queues", "q01"),
            "/v2/queues?limit=2&marker=q01"
        );
        let second = Link::new(true)
            .with("limit", Some(2))
            .with("name", Some("a b!"));
        assert_eq!(
            second.href("/v2/queues", "q03"),
            "/v2/queues?marker=q03&limit=2&name=a%20b%21"
        );
    }
}
