//! What a delivery needs, checked when the subscription is made: what could never be sent is refused then.

use isimud_contract::Metadata;
use serde_json::Value;

use super::{Settings, text};

/// What subscriptions may ask of deliveries; by default as little as can be.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    max_placeholders: usize,
    max_notification_bytes: usize,
}

impl Needs {
    /// What the settings allow.
    pub fn new(settings: &Settings) -> Self {
        Self {
            max_placeholders: settings.max_placeholders,
            max_notification_bytes: settings.max_notification_bytes,
        }
    }

    /// Refuses options with which nothing could be sent, or more than anybody should be; says which.
    pub(crate) fn check(&self, options: &Metadata) -> Result<(), String> {
        self.check_template(options)
    }

    fn check_template(&self, options: &Metadata) -> Result<(), String> {
        match options.get("post_data") {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::String(_)) => {}
            Some(_) => return Err("post_data must be a string.".to_owned()),
        }
        let places = text::frame(options).map_or(0, text::places);
        if places > self.max_placeholders {
            return Err(format!(
                "post_data may have \"$zaqar_message$\" {} times at most, and has it {places} times.",
                self.max_placeholders
            ));
        }
        let bytes = text::frame(options).map_or(0, str::len);
        if bytes > self.max_notification_bytes {
            return Err(format!(
                "post_data may have {} bytes at most.",
                self.max_notification_bytes
            ));
        }
        Ok(())
    }
}
