//! The grammar of a configuration file (spec: zaqar-conf.md 1).
//!
//! A file is a list of assignments in groups. This module keeps every one of them with its line, and decides nothing: which
//! of several assignments counts depends on the option, and is decided in [`super::reader`].

use std::fmt;
use std::path::{Path, PathBuf};

/// One `key = value` of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The group, as the lookup of options sees it: lower case, except `DEFAULT`.
    pub(super) group: String,
    /// The group as it is written.
    pub(super) written_group: String,
    /// The key, in the case in which it is written; keys of other cases are other keys.
    pub(super) key: String,
    /// The value: without the quotes around it, and continuation lines joined by line feeds.
    pub(super) value: String,
    /// The line of the key, from 1.
    pub(super) line: usize,
}

/// A file that was read.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) assignments: Vec<Assignment>,
}

/// A file that cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParseError {
    pub(super) path: PathBuf,
    /// From 1; 0 where the file as a whole is meant.
    pub(super) line: usize,
    pub(super) reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.reason),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.reason),
        }
    }
}

/// How the lookup of options sees the name of a group: without case, except that `DEFAULT` is written so.
pub(super) fn normalized(group: &str) -> String {
    match group {
        "DEFAULT" => group.to_owned(),
        _ => group.to_lowercase(),
    }
}

/// Whether Python's `str.strip` removes it.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is not UTF-8, or has a line that is neither a group, an assignment, a continuation of one
    /// nor a comment. The error names the line and does not show it, because a value may be a secret.
    pub(super) fn read(path: &Path) -> Result<Self, ParseError> {
        let whole = |reason: String| ParseError {
            path: path.to_owned(),
            line: 0,
            reason,
        };
        let bytes =
            std::fs::read(path).map_err(|error| whole(format!("cannot read it: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            ParseError {
                line: valid.iter().filter(|byte| **byte == b'\n').count() + 1,
                ..whole("it is not UTF-8 text".to_owned())
            }
        })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser {
            path,
            group: None,
            open: None,
            assignments: Vec::new(),
        };
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        for (index, line) in text.split('\n').enumerate() {
            parser.line(index + 1, line.trim_end_matches(is_space))?;
        }
        parser.close()?;
        Ok(Self {
            path: path.to_owned(),
            assignments: parser.assignments,
        })
    }
}

/// An assignment that a continuation may still lengthen.
struct Open {
    key: String,
    value: String,
    line: usize,
}

struct Parser<'a> {
    path: &'a Path,
    group: Option<String>,
    open: Option<Open>,
    assignments: Vec<Assignment>,
}

impl Parser<'_> {
    fn error(&self, line: usize, reason: impl Into<String>) -> ParseError {
        ParseError {
            path: self.path.to_owned(),
            line,
            reason: reason.into(),
        }
    }

    /// Reads a line, which has no white space at its end.
    fn line(&mut self, number: usize, line: &str) -> Result<(), ParseError> {
        if line.is_empty() {
            return self.close();
        }
        if line.starts_with([' ', '\t']) {
            let Some(open) = &mut self.open else {
                let reason =
                    "it starts with white space, and there is no value that it could continue";
                return Err(self.error(number, reason));
            };
            open.value.push('\n');
            open.value.push_str(line.trim_start_matches(is_space));
            return Ok(());
        }
        self.close()?;
        if line.starts_with('[') {
            self.group = Some(self.group_of(number, line)?);
        } else if !line.starts_with(['#', ';']) {
            self.open = Some(self.assignment(number, line)?);
        }
        Ok(())
    }

    fn group_of(&self, number: usize, line: &str) -> Result<String, ParseError> {
        let name = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .ok_or_else(|| {
                self.error(
                    number,
                    "a group has to end with ']', without a comment behind it",
                )
            })?;
        match name {
            "" => Err(self.error(number, "the group has no name")),
            name => Ok(name.to_owned()),
        }
    }

    fn assignment(&self, number: usize, line: &str) -> Result<Open, ParseError> {
        let Some(at) = line.find(['=', ':']) else {
            let reason = match line.starts_with('\u{feff}') {
                true => "the file starts with a byte order mark",
                false => "it is neither a group, a comment, nor 'key = value'",
            };
            return Err(self.error(number, reason));
        };
        let (key, value) = (line[..at].trim_matches(is_space), &line[at + 1..]);
        if key.is_empty() {
            return Err(self.error(number, "the key has no name"));
        }
        Ok(Open {
            key: key.to_owned(),
            value: without_quotes(value.trim_matches(is_space)).to_owned(),
            line: number,
        })
    }

    /// Ends the assignment that is open.
    fn close(&mut self) -> Result<(), ParseError> {
        let Some(Open { key, value, line }) = self.open.take() else {
            return Ok(());
        };
        let Some(group) = &self.group else {
            return Err(self.error(
                line,
                "it belongs to no group: '[DEFAULT]' or another has to come first",
            ));
        };
        self.assignments.push(Assignment {
            group: normalized(group),
            written_group: group.clone(),
            key,
            value,
            line,
        });
        Ok(())
    }
}

/// A value without the pair of quotes around it. A single quote that is all of it is a pair, too.
fn without_quotes(value: &str) -> &str {
    let quote = value
        .chars()
        .next()
        .filter(|first| ['"', '\''].contains(first));
    match quote {
        Some(quote) if value.ends_with(quote) => value.get(1..value.len() - 1).unwrap_or(""),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Group, key, value and line.
    type Parsed = (String, String, String, usize);

    fn parse(text: &str) -> Result<Vec<Parsed>, (usize, String)> {
        let file =
            File::parse(Path::new("z.conf"), text).map_err(|error| (error.line, error.reason))?;
        let each = |found: Assignment| (found.group, found.key, found.value, found.line);
        Ok(file.assignments.into_iter().map(each).collect())
    }

    fn values(text: &str) -> Vec<String> {
        let found = parse(&format!("[g]\n{text}")).expect("a file");
        found.into_iter().map(|(_, _, value, _)| value).collect()
    }

    #[test]
    fn equals_sign_or_colon_separates_whichever_comes_first() {
        assert_eq!(
            values("a = b:c\na: b=c\na=:b\na:=b"),
            ["b:c", "b=c", ":b", "=b"]
        );
    }

    #[test]
    fn quotes_around_the_whole_value_are_removed_once() {
        assert_eq!(
            values("a = \"b\"\na = 'b'\na = \"b'\na = ' b '\na = \"\na = \"\"b\"\""),
            ["b", "b", "\"b'", " b ", "", "\"b\""]
        );
    }

    #[test]
    fn continuation_lines_join_with_line_feeds_and_blank_lines_end_them() {
        assert_eq!(values("a = b\n  c\n\td = e\n\nf = g"), ["b\nc\nd = e", "g"]);
        assert_eq!(values("a = b\n   # no comment"), ["b\n# no comment"]);
        let error = parse("[g]\na = b\n\n  c").expect_err("nothing to continue");
        assert_eq!(error.0, 4);
        let error = parse("[g]\na = b\n# comment\n  c").expect_err("nothing to continue");
        assert_eq!(error.0, 4);
    }

    #[test]
    fn comments_start_lines_only() {
        assert_eq!(values("# a = b\n;a = b\na = b # c ; d"), ["b # c ; d"]);
    }

    #[test]
    fn group_names_lose_their_case_except_default() {
        let found = parse(
            "[Notification]\na=1\n[DEFAULT]\na=2\n[default]\na=3\n[Drivers:Message_Store:Redis]\na=4",
        );
        let groups: Vec<String> = found
            .expect("a file")
            .into_iter()
            .map(|each| each.0)
            .collect();
        assert_eq!(
            groups,
            [
                "notification",
                "DEFAULT",
                "default",
                "drivers:message_store:redis"
            ]
        );
    }

    #[test]
    fn line_ends_of_other_systems_are_line_ends() {
        assert_eq!(values("a = b\r\nc = d\re = f\r\n"), ["b", "d", "f"]);
    }

    #[test]
    fn unreadable_lines_are_refused_with_their_number() {
        for (text, line) in [
            ("a = b\n[g]", 1),
            ("[g]\nword", 2),
            ("[g]\n= b", 2),
            ("[g] # comment\na = b", 1),
            ("[]\na = b", 1),
            ("[g\na = b", 1),
            ("  a = b", 1),
            ("\u{feff}[g]\na = b", 1),
            ("\u{feff}# a = b\n[g]", 1),
        ] {
            assert_eq!(parse(text).map_err(|error| error.0), Err(line), "{text:?}");
        }
    }

    #[test]
    fn files_that_are_not_text_are_refused_with_the_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("z.conf");
        std::fs::write(&path, b"[g]\na = b\nc = \xff\n").expect("a file");
        assert_eq!(File::read(&path).expect_err("no text").line, 3);
        let error = File::read(&folder.path().join("none")).expect_err("no file");
        assert_eq!(error.line, 0);
    }
}
