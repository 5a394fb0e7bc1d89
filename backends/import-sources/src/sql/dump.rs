//! Rows out of a dump: the `INSERT` statements of some tables, and nothing else of SQL.

use super::Cell;

/// The tables that are read, and their columns in the order in which Zaqar makes them.
pub(super) const TABLES: [(&str, &[&str]); 3] = [
    ("Queues", &["id", "project", "name", "metadata"]),
    ("Pools", &["name"]),
    ("Flavors", &["name"]),
];

type Fault = &'static str;

/// Calls `take` for every row of one of the tables. A sentence when the text cannot be understood.
pub(super) fn read(text: &[u8], mut take: impl FnMut(&str, Vec<Cell>)) -> Result<(), Fault> {
    // MySQL escapes with backslashes, SQLite does not; its dumps begin in one of two ways.
    let start = text.trim_ascii_start();
    let escapes = ![&b"PRAGMA"[..], b"BEGIN TRANSACTION"]
        .iter()
        .any(|head| start.starts_with(head));
    let mut reader = Reader {
        rest: text,
        escapes,
    };
    let mut statements = 0;
    loop {
        reader.skip_blank();
        if reader.rest.is_empty() {
            break;
        }
        statements += 1;
        if reader.word().eq_ignore_ascii_case(b"INSERT") {
            reader.insert(&mut take)?;
        }
        reader.skip_statement()?;
    }
    if statements < 2 {
        return Err("it is neither an SQLite file nor a dump");
    }
    Ok(())
}

struct Reader<'a> {
    rest: &'a [u8],
    escapes: bool,
}

impl<'a> Reader<'a> {
    /// Skips white space and comments.
    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let end: &[u8] = match self.rest {
                [b'-', b'-', ..] | [b'#', ..] => b"\n",
                [b'/', b'*', ..] => b"*/",
                _ => return,
            };
            let places = self.rest.windows(end.len());
            let length = places.take_while(|place| *place != end).count() + end.len();
            self.rest = self.rest.get(length..).unwrap_or_default();
        }
    }

    /// A bare word, which may be empty.
    fn word(&mut self) -> &'a [u8] {
        self.skip_blank();
        let is_part =
            |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'+');
        let length = self.rest.iter().take_while(is_part).count();
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        word
    }

    /// A name, bare or in one of the three kinds of quotes.
    fn name(&mut self) -> Result<String, Fault> {
        self.skip_blank();
        let bytes = match self.rest.first() {
            Some(quote @ (b'`' | b'"')) => self.quoted(*quote, false)?,
            _ => self.word().to_vec(),
        };
        String::from_utf8(bytes).map_err(|_| "a name is not UTF-8")
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.skip_blank();
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Something in quotes; a doubled quote is one.
    fn quoted(&mut self, quote: u8, escapes: bool) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let mut rest = self.rest.get(1..).unwrap_or_default();
        loop {
            let (byte, tail) = rest.split_first().ok_or("a text does not end")?;
            rest = tail;
            if *byte == quote {
                match rest.split_first() {
                    Some((next, tail)) if *next == quote => rest = tail,
                    _ => break,
                }
                bytes.push(quote);
            } else if escapes && *byte == b'\\' {
                let (escaped, tail) = rest.split_first().ok_or("a text does not end")?;
                rest = tail;
                bytes.push(match escaped {
                    b'0' => 0,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'Z' => 26,
                    other => *other,
                });
            } else {
                bytes.push(*byte);
            }
        }
        self.rest = rest;
        Ok(bytes)
    }

    /// Skips to behind the next semicolon that is in no text.
    fn skip_statement(&mut self) -> Result<(), Fault> {
        loop {
            self.skip_blank();
            match self.rest.first() {
                None => return Ok(()),
                Some(b';') => {
                    self.rest = &self.rest[1..];
                    return Ok(());
                }
                Some(quote @ (b'\'' | b'"' | b'`')) => {
                    self.quoted(*quote, self.escapes && *quote == b'\'')
                        .map(drop)?;
                }
                Some(_) => self.rest = &self.rest[1..],
            }
        }
    }

    /// `INTO table [(columns)] VALUES (…), (…)`.
    fn insert(&mut self, take: &mut impl FnMut(&str, Vec<Cell>)) -> Result<(), Fault> {
        if !self.word().eq_ignore_ascii_case(b"INTO") {
            return Ok(());
        }
        let table = self.name()?;
        let Some((table, wanted)) = TABLES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(&table))
        else {
            return Ok(());
        };
        let mut columns: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        if self.eat(b'(') {
            columns.clear();
            while !self.eat(b')') {
                columns.push(self.name()?);
                self.eat(b',');
                if self.rest.is_empty() {
                    return Err("a list of columns does not end");
                }
            }
        }
        if !self.word().eq_ignore_ascii_case(b"VALUES") {
            return Err("an INSERT has no VALUES");
        }
        while self.eat(b'(') {
            let mut row = self.row()?;
            let cells = wanted
                .iter()
                .map(|wanted| {
                    let place = columns
                        .iter()
                        .position(|name| name.eq_ignore_ascii_case(wanted));
                    place.and_then(|place| row.get_mut(place)?.take())
                })
                .collect();
            take(table, cells);
            self.eat(b',');
        }
        Ok(())
    }

    fn row(&mut self) -> Result<Vec<Cell>, Fault> {
        let mut row = Vec::new();
        while !self.eat(b')') {
            row.push(self.cell()?);
            if !self.eat(b',') && !self.rest.starts_with(b")") {
                return Err("a value is of a kind that no Zaqar writes");
            }
        }
        Ok(row)
    }

    fn cell(&mut self) -> Result<Cell, Fault> {
        self.skip_blank();
        if self.rest.starts_with(b"'") {
            return self.quoted(b'\'', self.escapes).map(Some);
        }
        let word = self.word();
        match word {
            word if word.eq_ignore_ascii_case(b"NULL") => Ok(None),
            [b'0', b'x' | b'X', digits @ ..] => hex(digits).map(Some),
            b"X" | b"x" if self.rest.starts_with(b"'") => {
                hex(&self.quoted(b'\'', false)?).map(Some)
            }
            // A character set in front of a text.
            [b'_', ..] => self.cell(),
            b"" => Err("a value is missing"),
            number => Ok(Some(number.to_vec())),
        }
    }
}

fn hex(digits: &[u8]) -> Result<Vec<u8>, Fault> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs
        .collect::<Option<_>>()
        .ok_or("a value is no hexadecimal number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<String>, Fault> {
        let mut rows = Vec::new();
        read(text.as_bytes(), |table, cells| {
            let cells = cells.iter().map(|cell| match cell {
                Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                None => "-".into(),
            });
            rows.push(format!(
                "{table}: {}",
                cells.collect::<Vec<_>>().join(" | ")
            ));
        })?;
        Ok(rows)
    }

    #[test]
    fn what_mysqldump_writes_is_read() {
        let text = r#"-- MySQL dump 10.13; it's a dump
/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS `Queues`;
CREATE TABLE `Queues` (`id` int NOT NULL, `note` varchar(3) DEFAULT ';)');
INSERT INTO `Other` VALUES (1,'INSERT INTO `Queues` VALUES (1,2,3,4);');
INSERT INTO `Queues` VALUES (1,'p1','q.1',_binary '{\"a\": \"it\'s; \\\\u00e9\"}'),(2,'','x',0x7b7d),(3,'p','n',NULL);
INSERT INTO `Pools` (`uri`,`name`,`weight`) VALUES ('redis://h','one',10);
UNLOCK TABLES;
"#;
        assert_eq!(
            rows(text).expect("a dump"),
            [
                r#"Queues: 1 | p1 | q.1 | {"a": "it's; \\u00e9"}"#,
                "Queues: 2 |  | x | {}",
                "Queues: 3 | p | n | -",
                "Pools: one",
            ]
        );
    }

    #[test]
    fn what_sqlite_dumps_is_read() {
        let text = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n\
            INSERT INTO Queues VALUES(1,'p','it''s\\',X'7B2261223A20317D');\n\
            INSERT INTO \"Flavors\" VALUES('gold','p','[]');\nCOMMIT;\n";
        assert_eq!(
            rows(text).expect("a dump"),
            [r#"Queues: 1 | p | it's\ | {"a": 1}"#, "Flavors: gold"]
        );
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for text in [
            "",
            "hello",
            "INSERT INTO Queues VALUES (1,'p",
            "SELECT 1; INSERT INTO Queues VALUES (1, now(), 2, 3);",
            "SELECT 1; INSERT INTO Queues SELECT 1;",
        ] {
            assert!(rows(text).is_err(), "{text}");
        }
    }
}
