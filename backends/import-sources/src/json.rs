//! Values as JSON text, in the form in which Zaqar shows them (spec: http.md 8: UTF-8, `", "` and `": "`).
//!
//! What JSON cannot say is replaced and remembered: NaN and the infinities by `null`, as JSON writers elsewhere have it
//! (Zaqar wrote them bare, and no strict reader took them: quirk Q-HTTP-3); bytes by their base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isimud_contract::{Metadata, body_of_text, read_metadata};

/// JSON text that is being written.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) json: String,
    /// Something was replaced.
    pub(crate) altered: bool,
}

/// Whether the API takes a text as a body, as it is.
pub(crate) fn is_body(text: &str) -> bool {
    // A string of the text is longer than that.
    body_of_text(text).len() == text.len()
}

/// A text as metadata or options. `None` for what is no object, and for what the API refuses: to read it would recurse as
/// deep as it is nested, and clients could not read the answers that it is in.
pub(crate) fn metadata(text: &str) -> Option<Metadata> {
    is_body(text).then(|| read_metadata(text).ok())?
}

/// A text as a body, and whether it became a string of itself because the API would not take it as JSON.
pub(crate) fn as_body(text: String) -> (String, bool) {
    if is_body(&text) {
        return (text, false);
    }
    (quoted(&text), true)
}

/// Writes a string with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes bytes as a string of base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    quoted(&STANDARD.encode(bytes))
}

/// Writes a float; `None` for what JSON has no number for.
pub(crate) fn float(number: f64) -> Option<String> {
    number.is_finite().then(|| format!("{number:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_objects_that_the_api_takes() {
        let deep = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(metadata("{\"a\": [1]}").is_some());
        assert!(metadata(&deep(500)).is_some());
        for text in ["[]", "{", "{\"a\": 1e400}", &deep(100_000)] {
            assert!(metadata(text).is_none());
        }
    }
}
