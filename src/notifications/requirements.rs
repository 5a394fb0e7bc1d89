//! What a delivery needs, checked when the subscription is made: what could never be sent is refused then, and so is what
//! would make the service a weapon.

use hyper::http::{HeaderName, HeaderValue};
use isimud_contract::Metadata;
use serde_json::Value;

use super::mail::{Senders, is_mail, recipients};
use super::{Settings, text};

/// What subscriptions may ask of deliveries; by default as little as possible.
#[derive(Debug, Clone, Default)]
pub struct Requirements {
    max_placeholders: usize,
    max_notification_bytes: usize,
    max_recipients: usize,
    senders: Senders,
    always: bool,
    for_mail: bool,
}

impl Requirements {
    /// What the settings allow.
    pub fn new(settings: &Settings) -> Self {
        Self {
            max_placeholders: settings.max_placeholders,
            max_notification_bytes: settings.max_notification_bytes,
            max_recipients: settings.mail.max_recipients,
            senders: Senders::new(&settings.mail),
            always: settings.require_confirmation,
            for_mail: settings.mail.require_confirmation,
        }
    }

    /// Whether a receiver has to agree before it is sent anything else.
    pub(crate) fn requires_confirmation(&self, subscriber: &str) -> bool {
        self.always || self.for_mail && is_mail(subscriber)
    }

    /// Whether every receiver has to agree.
    pub(crate) fn always_requires_confirmation(&self) -> bool {
        self.always
    }

    /// Refuses a receiver that nothing could be sent to. One that has to agree cannot agree for others.
    pub(crate) fn check_subscriber(&self, subscriber: &str) -> Result<(), String> {
        if !is_mail(subscriber) {
            return Ok(());
        }
        let count = recipients(subscriber)
            .map_err(|why| format!("The subscriber cannot be sent to: {why}."))?
            .iter()
            .count();
        let most = if self.requires_confirmation(subscriber) {
            1
        } else {
            self.max_recipients
        };
        if count > most {
            return Err(format!(
                "A subscriber may name {most} receivers of mail at most, and names {count}."
            ));
        }
        Ok(())
    }

    /// Refuses options with which nothing could be sent to a subscriber, or more than anybody should be; says which.
    pub(crate) fn check(&self, subscriber: &str, options: &Metadata) -> Result<(), String> {
        self.check_template(options)?;
        check_headers(options)?;
        if is_mail(subscriber) {
            let from = match options.get("from") {
                None | Some(Value::Null) => None,
                Some(Value::String(from)) => Some(from.as_str()),
                Some(_) => return Err("from must be a string.".to_owned()),
            };
            self.senders
                .sender(from)
                .map_err(|why| format!("The mails cannot be sent: {why}."))?;
        }
        Ok(())
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

fn check_headers(options: &Metadata) -> Result<(), String> {
    let wanted = match options.get("post_headers") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(wanted)) => wanted,
        Some(_) => return Err("post_headers must be a dict.".to_owned()),
    };
    for (name, value) in wanted {
        let Ok(name) = HeaderName::try_from(name) else {
            return Err("post_headers has a name that no header can have.".to_owned());
        };
        if is_reserved(name.as_str()) {
            return Err(format!(
                "post_headers must not have {name}: it would say who asks, in the service's name."
            ));
        }
        let value = value.as_str().map(HeaderValue::from_str);
        if !matches!(value, Some(Ok(_))) {
            return Err(format!(
                "post_headers: the value of {name} must be a string that a header can have."
            ));
        }
    }
    Ok(())
}

/// Whether a header says who asks, or by which way: services behind the operator's proxies believe such headers, and
/// notifications come from inside. Some servers take `_` for `-`.
pub(crate) fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "client-id",
        "forwarded",
        "openstack-system-scope",
        "x-auth-token",
        "x-identity-status",
        "x-is-admin-project",
        "x-real-ip",
        "x-subject-token",
    ];
    const STARTS: [&str; 11] = [
        "isimud-",
        "proxy-",
        "url-",
        "x-domain",
        "x-forwarded-",
        "x-isimud-",
        "x-project",
        "x-role",
        "x-service",
        "x-tenant",
        "x-user",
    ];
    let name = name.to_ascii_lowercase().replace('_', "-");
    NAMES.contains(&name.as_str()) || STARTS.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requirements() -> Requirements {
        Requirements {
            max_placeholders: 2,
            max_notification_bytes: 1000,
            max_recipients: 2,
            senders: Senders::default(),
            always: false,
            for_mail: false,
        }
    }

    fn check(options: Value) -> Result<(), String> {
        requirements().check("http://h/", options.as_object().expect("an object"))
    }

    #[test]
    fn headers_that_say_who_asks_are_not_settable() {
        for name in [
            "X-Project-Id",
            "x-tenant-id",
            "X-Tenant",
            "X-Role",
            "X-Roles",
            "X-User-Id",
            "X-Service-Token",
            "X-Auth-Token",
            "Client-ID",
            "URL-Signature",
            "X-Forwarded-For",
            "Proxy-Authorization",
            "X_Project_Id",
            "X-Isimud-Proxy-Secret",
            "Isimud-Hop",
        ] {
            assert!(
                check(json!({"post_headers": {name: "v"}})).is_err(),
                "{name}"
            );
        }
        for name in [
            "X-Foo",
            "Content-Type",
            "Authorization",
            "Host",
            "webhook-id",
            "Url",
        ] {
            assert_eq!(
                check(json!({"post_headers": {name: "v"}})),
                Ok(()),
                "{name}"
            );
        }
    }

    #[test]
    fn what_could_never_be_sent_is_refused() {
        for options in [
            json!({"post_headers": []}),
            json!({"post_headers": {"a b": "v"}}),
            json!({"post_headers": {"X-A": 1}}),
            json!({"post_headers": {"X-A": "a\nb"}}),
            json!({"post_data": {}}),
            json!({"post_data": "\"$zaqar_message$\"".repeat(3)}),
            json!({"post_data": "x".repeat(1001)}),
        ] {
            assert!(check(options.clone()).is_err(), "{options}");
        }
        for options in [
            json!({}),
            json!({"post_headers": null, "post_data": null, "other": [1]}),
            json!({"post_data": "\"$zaqar_message$\"".repeat(2)}),
        ] {
            assert_eq!(check(options.clone()), Ok(()), "{options}");
        }
    }

    #[test]
    fn few_receivers_of_mail_and_one_where_they_agree() {
        let mut requirements = requirements();
        assert!(requirements.check_subscriber("mailto:a@x.y,b@x.y").is_ok());
        assert!(
            requirements
                .check_subscriber("mailto:a@x.y,b@x.y,c@x.y")
                .is_err()
        );
        assert!(requirements.check_subscriber("mailto:nobody").is_err());
        assert!(requirements.check_subscriber("mailto:").is_err());
        assert!(requirements.check_subscriber("http:").is_ok());
        requirements.for_mail = true;
        assert!(requirements.check_subscriber("mailto://a@x.y").is_ok());
        assert!(requirements.check_subscriber("mailto:a@x.y,b@x.y").is_err());
        assert!(
            requirements.requires_confirmation("MAILTO:a@x.y")
                && !requirements.requires_confirmation("http://h/")
        );
    }
}
