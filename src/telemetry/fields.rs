//! The fields of a log line in text.
//!
//! Names in a line come from clients: projects, queues, hosts of subscribers. None of them may look like another field,
//! like the end of the line or like the beginning of a new one. So a value is written bare only if it is one plain word;
//! any other stands in quotes, with escapes.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Writes fields as `name=value`, with a space between them, and the message without its name.
#[derive(Debug)]
pub(super) struct QuotedFields;

impl<'writer> FormatFields<'writer> for QuotedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line {
            writer,
            is_empty: true,
            written: Ok(()),
        };
        fields.record(&mut line);
        line.written
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    written: fmt::Result,
}

impl Line<'_> {
    fn add(&mut self, field: &Field, value: &str, is_text: bool) -> fmt::Result {
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if field.name() == "message" {
            return without_controls(&mut self.writer, value);
        }
        let name = field.name();
        if self.writer.has_ansi_escapes() {
            write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?;
        } else {
            write!(self.writer, "{name}=")?;
        }
        if is_text || !is_word(value) {
            write!(self.writer, "{value:?}")
        } else {
            self.writer.write_str(value)
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.written = self.written.and_then(|()| self.add(field, value, true));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.written = self.written.and_then(|()| self.add(field, &value, false));
    }
}

/// Whether a value can stand alone: nothing in it is a space, a quote, an equals sign or a character that is not seen.
fn is_word(value: &str) -> bool {
    let is_plain =
        |symbol: char| symbol.is_alphanumeric() || "-_.,:;/@+*~()[]{}<>#&?!|$%^".contains(symbol);
    !value.is_empty() && value.chars().all(is_plain)
}

/// A sentence, in which names may stand too: it stays on its line.
fn without_controls(writer: &mut Writer<'_>, sentence: &str) -> fmt::Result {
    sentence.chars().try_for_each(|symbol| {
        if symbol.is_control()
            || matches!(symbol, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
        {
            write!(writer, "{}", symbol.escape_default())
        } else {
            writer.write_char(symbol)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line that is logged.
    fn line(log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_target(false)
            .fmt_fields(QuotedFields)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = kept.0.lock().expect("one thread").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_value_that_is_one_word_stands_bare_and_a_text_in_quotes() {
        let text = line(|| {
            tracing::info!(queue = %"demo/orders", path = "/v2/ping", status = 503, ms = 1.5, "request failed");
        });
        let expected = "request failed queue=demo/orders path=\"/v2/ping\" status=503 ms=1.5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_name_is_neither_another_field_nor_another_line() {
        for (name, shown) in [
            ("p level=ERROR", "\"p level=ERROR\""),
            ("p\nERROR stopped", "\"p\\nERROR stopped\""),
            ("\u{1b}[31mred", "\"\\u{1b}[31mred\""),
            ("a=b", "\"a=b\""),
            ("\"p\" x=\"y\"", "\"\\\"p\\\" x=\\\"y\\\"\""),
            ("p\\", "\"p\\\\\""),
            ("p\u{2028}q", "\"p\\u{2028}q\""),
            ("", "\"\""),
        ] {
            let text = line(|| tracing::info!(queue = %name, "known"));
            assert_eq!(text, format!("known queue={shown}\n"));
            let text = line(|| tracing::info!(queue = name, "known"));
            assert_eq!(text, format!("known queue={shown}\n"));
        }
    }

    #[test]
    fn a_sentence_stays_on_its_line() {
        let name = "a\r\nERROR b\u{1b}[2J";
        let text = line(|| tracing::info!("bridge {name} stalled"));
        assert_eq!(text, "bridge a\\r\\nERROR b\\u{1b}[2J stalled\n");
    }
}
