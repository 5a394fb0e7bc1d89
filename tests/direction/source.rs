//! Just enough of Rust's grammar to tell what a source names: comments and texts are left out, the paths of a `use`
//! are written out.

/// A part of a source that can belong to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    /// Any other character.
    Other(char),
}

/// A source without its comments and texts.
pub(crate) struct Source {
    tokens: Vec<Token>,
}

impl Source {
    pub(crate) fn read(text: &str) -> Self {
        let mut rest = text;
        let mut tokens = Vec::new();
        while let Some(first) = rest.chars().next() {
            let (token, length) = next(rest, first);
            tokens.extend(token);
            rest = &rest[length..];
        }
        Self { tokens }
    }

    /// Every identifier and keyword.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Word(word) => Some(word.as_str()),
            _ => None,
        })
    }

    /// Every path, those of a group in braces one by one.
    pub(crate) fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            at = self.path(at, &[], &mut paths);
        }
        paths
    }

    /// Reads one path, or steps over what is none. Returns where the next one may begin.
    fn path(&self, mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
        let mut path = before.to_vec();
        if self.tokens.get(at) == Some(&Token::Colons) {
            at += 1;
        }
        let Some(Token::Word(word)) = self.tokens.get(at) else {
            return at + 1;
        };
        path.push(word.clone());
        at += 1;
        while self.tokens.get(at) == Some(&Token::Colons) {
            at += 1;
            match self.tokens.get(at) {
                Some(Token::Word(word)) => path.push(word.clone()),
                Some(Token::Other('{')) => return self.group(at + 1, &path, paths),
                _ => break,
            }
            at += 1;
        }
        paths.push(path);
        at
    }

    /// Reads the paths of a group until its brace closes.
    fn group(&self, mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
        while let Some(token) = self.tokens.get(at) {
            match token {
                Token::Other('}') => return at + 1,
                _ => at = self.path(at, before, paths),
            }
        }
        at
    }
}

/// The token that a text begins with, if it is one, and how long it is.
fn next(text: &str, first: char) -> (Option<Token>, usize) {
    let end_of = |mark: &str| text.find(mark).map_or(text.len(), |at| at + mark.len());
    if text.starts_with("//") {
        return (None, end_of("\n"));
    }
    if text.starts_with("/*") {
        return (None, comment(text));
    }
    if let Some(length) = raw_text(text) {
        return (None, length);
    }
    match first {
        '"' => (None, quoted(text, '"').unwrap_or(text.len())),
        // A lifetime has no second quote.
        '\'' => (None, character(text).unwrap_or(1)),
        ':' if text.starts_with("::") => (Some(Token::Colons), 2),
        _ if first.is_alphanumeric() || first == '_' => {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let length = text.find(|c| !is_part(c)).unwrap_or(text.len());
            (Some(Token::Word(text[..length].to_owned())), length)
        }
        _ if first.is_whitespace() => (None, first.len_utf8()),
        _ => (Some(Token::Other(first)), first.len_utf8()),
    }
}

/// How long a comment is that may hold others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// How long a raw text is, if one begins here.
fn raw_text(text: &str) -> Option<usize> {
    let hashes = ["r", "br", "cr"]
        .into_iter()
        .find_map(|mark| text.strip_prefix(mark))?;
    let inside = hashes.trim_start_matches('#');
    let count = hashes.len() - inside.len();
    let inside = inside.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let begins = text.len() - inside.len();
    Some(begins + inside.find(&end).map_or(inside.len(), |at| at + end.len()))
}

/// How long what stands between two quotes is, with them.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    let closes = |(at, c): (usize, char)| {
        let closing = c == quote && !escaped && at > 0;
        escaped = c == '\\' && !escaped;
        closing.then_some(at + quote.len_utf8())
    };
    text.char_indices().find_map(closes)
}

/// How long a character in quotes is, if this is one and not a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.get(1..)?.chars().next()?;
    if inside == '\\' {
        return quoted(text, '\'');
    }
    let end = 1 + inside.len_utf8();
    text[end..].starts_with('\'').then_some(end + 1)
}
