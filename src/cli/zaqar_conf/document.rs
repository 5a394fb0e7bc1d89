//! The configuration that is written: only keys whose value is not the default, each with a comment that names the option
//! that it comes from (spec: zaqar-conf.md 4).

use std::fmt::Write;
use std::path::Path;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

/// Sections in the order in which they are written: that of the server's reference.
const SECTIONS: [&str; 19] = [
    "server",
    "websocket",
    "admin",
    "store",
    "management",
    "pooling",
    "bridging",
    "log",
    "access",
    "keystone",
    "trustee",
    "messages",
    "limits",
    "notifications",
    "notifications.mail",
    "notifications.mail.confirmation",
    "notifications.mail.unsubscription",
    "signed_url",
    "cors",
];

/// Defaults of keys that the server's reference may not have yet; where it has one, the reference decides.
pub(super) const PLANNED: &str = r#"
[keystone]
application_credential_name = ""

[trustee]
application_credential_id = ""
application_credential_name = ""
application_credential_secret = ""
application_credential_secret_file = ""
ca_file = ""
cert_file = ""
key_file = ""
insecure = false
"#;

/// Columns of a comment.
const WIDTH: usize = 118;

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Setting {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<String>),
}

impl From<bool> for Setting {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

impl From<i64> for Setting {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for Setting {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Setting {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<String>> for Setting {
    fn from(items: Vec<String>) -> Self {
        Self::List(items)
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

/// A text as a basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                out.push_str(&format!("\\u{:04X}", u32::from(control)))
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// Where secrets go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Secrets<'a> {
    /// Into the configuration itself.
    Inline,
    /// Into a file each in this folder; the configuration names the files.
    Folder(&'a Path),
    /// Nowhere: the configuration says which variable of the environment sets the key.
    Omitted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Plain(Setting),
    Secret(Setting),
}

#[derive(Debug)]
struct Entry {
    section: &'static str,
    key: &'static str,
    content: Content,
    comments: Vec<String>,
}

/// A configuration that is being put together.
#[derive(Debug)]
pub(super) struct Document {
    defaults: Figment,
    supported: Figment,
    entries: Vec<Entry>,
}

fn split(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

impl Document {
    /// Starts a configuration. `reference` has the server's keys and their defaults.
    pub(super) fn new(reference: &str) -> Self {
        Self {
            defaults: Figment::from(Toml::string(PLANNED)).merge(Toml::string(reference)),
            supported: Figment::from(Toml::string(reference)),
            entries: Vec::new(),
        }
    }

    /// The default of a key.
    pub(super) fn default_of(&self, path: &str) -> Option<Setting> {
        self.defaults.extract_inner(path).ok()
    }

    /// Reports whether the server has a key.
    pub(super) fn supports(&self, path: &str) -> bool {
        self.supported.find_value(path).is_ok()
    }

    /// Sets a key, unless the value is its default. Says whether it is written.
    pub(super) fn set(
        &mut self,
        path: &'static str,
        value: Setting,
        comments: Vec<String>,
    ) -> bool {
        let is_new = self.default_of(path).as_ref() != Some(&value);
        if is_new {
            self.put(path, Content::Plain(value), comments);
        }
        is_new
    }

    /// Sets a key whose value is a secret.
    pub(super) fn set_secret(&mut self, path: &'static str, value: Setting, comments: Vec<String>) {
        self.put(path, Content::Secret(value), comments);
    }

    fn put(&mut self, path: &'static str, content: Content, comments: Vec<String>) {
        let (section, key) = split(path);
        debug_assert!(SECTIONS.contains(&section), "{path}");
        debug_assert!(self.default_of(path).is_some(), "{path} is no key");
        self.entries
            .retain(|entry| (entry.section, entry.key) != (section, key));
        self.entries.push(Entry {
            section,
            key,
            content,
            comments,
        });
    }

    /// Secrets: the name of a file, and what is in it.
    pub(super) fn secrets(&self) -> impl Iterator<Item = (String, String)> {
        self.entries.iter().filter_map(|entry| {
            let Content::Secret(setting) = &entry.content else {
                return None;
            };
            let text = match setting {
                Setting::List(items) => items.join("\n"),
                Setting::Text(text) => text.clone(),
                other => other.to_string(),
            };
            Some((
                format!("{}.{}", entry.section, entry.key),
                format!("{text}\n"),
            ))
        })
    }

    /// The text of the configuration, below a head of comment lines.
    pub(super) fn render(&self, head: &[String], secrets: Secrets<'_>) -> String {
        let mut out = String::new();
        for line in head {
            comment(&mut out, line);
        }
        for section in SECTIONS {
            let mut entries = self
                .entries
                .iter()
                .filter(|entry| entry.section == section)
                .peekable();
            if entries.peek().is_some() {
                write_line(&mut out, &format!("\n[{section}]"));
            }
            for entry in entries {
                entry.render(&mut out, secrets);
            }
        }
        out
    }
}

impl Entry {
    fn render(&self, out: &mut String, secrets: Secrets<'_>) {
        for line in &self.comments {
            comment(out, line);
        }
        let Self { section, key, .. } = self;
        match (&self.content, secrets) {
            (Content::Plain(value), _) | (Content::Secret(value), Secrets::Inline) => {
                write_line(out, &format!("{key} = {value}"));
            }
            (Content::Secret(_), Secrets::Folder(folder)) => {
                let path = folder.join(format!("{section}.{key}"));
                write_line(
                    out,
                    &format!("{key}_file = {}", quoted(&path.to_string_lossy())),
                );
            }
            (Content::Secret(_), Secrets::Omitted) => {
                let variable = format!("ISIMUD__{section}__{key}")
                    .replace('.', "__")
                    .to_uppercase();
                comment(
                    out,
                    &format!(
                        "{key}: a secret, which was not written; set {variable} or {key}_file."
                    ),
                );
            }
        }
    }
}

fn write_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// Writes a comment, in lines of a readable width. No character can end it.
fn comment(out: &mut String, text: &str) {
    let clean: String = text
        .chars()
        .map(|found| if found.is_control() { ' ' } else { found })
        .collect();
    let mut line = String::from("#");
    for word in clean.split(' ') {
        if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
            write_line(out, &line);
            line = String::from("#");
        }
        // Writing to a text cannot fail.
        write!(line, " {word}").ok();
    }
    write_line(out, line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        Document::new(
            "[limits]\nmax_claim_ttl = 43200\n[cors]\nallow_methods = [\"GET\"]\nallowed_origins = []\n[log]\nlevel = \"info\"\n\
             [signed_url]\nsecret_key = \"\"\n",
        )
    }

    #[test]
    fn defaults_are_not_written() {
        let mut document = document();
        assert!(!document.set("limits.max_claim_ttl", 43200.into(), Vec::new()));
        assert!(!document.set(
            "cors.allow_methods",
            vec!["GET".to_owned()].into(),
            Vec::new()
        ));
        assert!(!document.set("trustee.ca_file", "".into(), Vec::new()));
        assert!(document.set("limits.max_claim_ttl", 60.into(), vec!["why".to_owned()]));
        assert_eq!(
            document.render(&[], Secrets::Inline),
            "\n[limits]\n# why\nmax_claim_ttl = 60\n"
        );
    }

    #[test]
    fn every_text_survives_being_written_and_read() {
        for text in [
            "",
            "a\"b\\c",
            "line\nfeed\r\ttab",
            "\u{0}\u{7f}\u{85}",
            "é#'''",
            "{0}",
        ] {
            let mut document = document();
            document.set("log.level", text.into(), vec![format!("comment {text}")]);
            document.set(
                "cors.allowed_origins",
                vec![text.to_owned()].into(),
                Vec::new(),
            );
            let read = Figment::from(Toml::string(
                &document.render(&[text.to_owned()], Secrets::Inline),
            ));
            assert_eq!(
                read.extract_inner::<String>("log.level").expect("a text"),
                text
            );
            assert_eq!(
                read.extract_inner::<Vec<String>>("cors.allowed_origins")
                    .expect("a list"),
                [text]
            );
        }
    }

    #[test]
    fn secrets_go_where_they_are_asked_to_go() {
        let mut document = document();
        document.set_secret("signed_url.secret_key", "hunter2".into(), Vec::new());
        let inline = document.render(&[], Secrets::Inline);
        assert!(inline.contains("secret_key = \"hunter2\""), "{inline}");
        let files = document.render(&[], Secrets::Folder(Path::new("/s")));
        assert!(
            files.contains("secret_key_file = \"/s/signed_url.secret_key\""),
            "{files}"
        );
        let omitted = document.render(&[], Secrets::Omitted);
        assert!(
            omitted.contains("ISIMUD__SIGNED_URL__SECRET_KEY"),
            "{omitted}"
        );
        assert!(!files.contains("hunter2") && !omitted.contains("hunter2"));
        let secrets: Vec<_> = document.secrets().collect();
        assert_eq!(
            secrets,
            [("signed_url.secret_key".to_owned(), "hunter2\n".to_owned())]
        );
    }

    #[test]
    fn long_comments_are_broken_into_lines() {
        let mut out = String::new();
        comment(&mut out, &"word ".repeat(60));
        assert!(out.lines().count() > 2);
        assert!(
            out.lines()
                .all(|line| line.starts_with("# ") && line.len() <= WIDTH),
            "{out}"
        );
    }
}
