//! Notifications, their mails, and the key that signs.

use super::{Kind, Mapper, Taken};

const GROUP: &str = "notification";
const NOTIFIER: &str = "zaqar.notification.notifier";

/// Stages of other pipelines, which are code of third parties.
const PIPELINES: [&str; 4] = [
    "queue_pipeline",
    "claim_pipeline",
    "subscription_pipeline",
    "topic_pipeline",
];

const TYPES: [&str; 5] = ["http", "https", "mailto", "trust+http", "trust+https"];

/// A mail of the service: the option, the keys of its two texts, and the texts' names there.
const TEMPLATES: [(&str, &str, &str); 2] = [
    (
        "subscription_confirmation_email_template",
        "notifications.mail.confirmation.subject",
        "notifications.mail.confirmation.body",
    ),
    (
        "unsubscribe_confirmation_email_template",
        "notifications.mail.unsubscription.subject",
        "notifications.mail.unsubscription.body",
    ),
];

impl Mapper<'_> {
    pub(super) fn notifications(&mut self) {
        let is_on = self.pipelines();
        let types = self.take("transport", "subscriber_types");
        if let Some(items) = types.list() {
            let unknown: Vec<&str> = items
                .iter()
                .map(String::as_str)
                .filter(|item| !TYPES.contains(item))
                .collect();
            if !unknown.is_empty() {
                let why = format!("no subscriber is of a type {}", unknown.join(", "));
                self.differs(&types, why);
            }
            self.carry(&types, "notifications.subscriber_types", items);
        }
        let confirm = self.take(GROUP, "require_confirmation");
        self.carry(
            &confirm,
            "notifications.require_confirmation",
            confirm.is_true(),
        );
        if is_on {
            self.what_differs(&confirm);
        }
        self.carry_text(
            GROUP,
            "external_confirmation_url",
            "notifications.external_confirmation_url",
        );
        let workers = self.take(GROUP, "max_notifier_workers");
        self.ignore(
            &workers,
            "no thread waits for a receiver; notifications.max_deliveries bounds them",
        );
        self.mail();
        self.templates();
        self.signing_key();
    }

    fn pipelines(&mut self) -> bool {
        let taken = self.take("storage", "message_pipeline");
        let stages = taken.list().unwrap_or_default();
        let is_on = stages.iter().any(|stage| stage == NOTIFIER);
        self.carry(&taken, "notifications.enabled", is_on);
        self.foreign_stages(&taken);
        for name in PIPELINES {
            let taken = self.take("storage", name);
            self.foreign_stages(&taken);
        }
        is_on
    }

    fn foreign_stages(&mut self, taken: &Taken) {
        let stages = taken.list().unwrap_or_default();
        let foreign: Vec<String> = stages
            .into_iter()
            .filter(|stage| stage != NOTIFIER)
            .collect();
        if !foreign.is_empty() {
            self.left(
                taken,
                format!(
                    "code of third parties cannot run here: {}",
                    foreign.join(", ")
                ),
            );
        } else if taken.name != "message_pipeline" {
            self.ignore(taken, "it is empty");
        }
    }

    /// What is safer here than there, and may surprise.
    fn what_differs(&mut self, confirm: &Taken) {
        self.report.add(
            Kind::Changed,
            "[storage] message_pipeline".to_owned(),
            None,
            "notifications go to public addresses only; name the networks of private receivers in \
             notifications.allowed_networks",
        );
        if !confirm.is_true() {
            self.differs(
                confirm,
                "receivers of mail have to agree first, unless notifications.mail.require_confirmation = false",
            );
        }
    }

    fn mail(&mut self) {
        let mode = self.take(GROUP, "smtp_mode");
        let is_server = mode.text() == Some("self_local");
        if is_server {
            self.carry(&mode, "notifications.mail.transport", "smtp");
        } else {
            self.carry(&mode, "notifications.mail.transport", "command");
        }
        let command = self.take(GROUP, "smtp_command");
        let names = [
            "smtp_host",
            "smtp_port",
            "smtp_user_name",
            "smtp_user_password",
        ];
        let [host, port, user, password] = names.map(|name| self.take(GROUP, name));
        if !is_server {
            if let Some(text) = command.text().map(str::to_owned) {
                self.carry(&command, "notifications.mail.command", text);
            }
            for taken in [&host, &port, &user, &password] {
                self.ignore(taken, "mails leave by a command (smtp_mode)");
            }
            return;
        }
        self.ignore(&command, "mails leave through a server (smtp_mode)");
        match host.text().map(str::to_owned) {
            Some(name) => self.carry(&host, "notifications.mail.smtp_host", name),
            None => self.left(
                &host,
                "mails are to leave through a server, and none is named",
            ),
        }
        if let Some(number) = port.int().filter(|port| *port != 0) {
            self.carry(&port, "notifications.mail.smtp_port", number);
        }
        if let Some(name) = user.text().map(str::to_owned) {
            self.carry(&user, "notifications.mail.smtp_user", name);
        }
        if let Some(text) = password.text().map(str::to_owned) {
            self.secret(&password, "notifications.mail.smtp_password", text, None);
        }
    }

    fn templates(&mut self) {
        let mut senders: Vec<(Taken, String)> = Vec::new();
        for (name, subject, body) in TEMPLATES {
            let taken = self.take(GROUP, name);
            if !taken.is_set() {
                continue;
            }
            for (key, path) in [("topic", subject), ("body", body)] {
                match taken.pair(key).map(str::to_owned) {
                    Some(text) => self.carry(&taken, path, text),
                    None => self.left(
                        &taken,
                        format!("it has no '{key}', without which Zaqar sends no such mail"),
                    ),
                }
            }
            match taken.pair("sender").map(str::to_owned) {
                Some(sender) => senders.push((taken.clone(), sender)),
                None => self.left(
                    &taken,
                    "it has no 'sender', without which Zaqar sends no such mail",
                ),
            }
            let has_cut = matches!(&taken.value, super::Value::Map(pairs)
                if pairs.iter().any(|(key, _)| !["topic", "body", "sender"].contains(&key.as_str())));
            if has_cut {
                let why =
                    "a comma ends a text there, and ended this one in Zaqar; write it anew here";
                self.differs(&taken, why);
            }
        }
        let mut senders = senders.into_iter();
        if let Some((taken, sender)) = senders.next() {
            self.carry(&taken, "notifications.mail.sender", sender.clone());
            for (other, name) in senders.filter(|(_, name)| *name != sender) {
                self.differs(
                    &other,
                    format!("all mails come from '{sender}', and not these from '{name}'"),
                );
            }
        }
    }

    fn signing_key(&mut self) {
        let taken = self.take("signed_url", "secret_key");
        match taken.text().map(str::to_owned) {
            Some(key) => self.secret(&taken, "signed_url.secret_key", key, None),
            None => self.differs(
                &taken,
                "without a key nothing is signed: there is no pre-signed access, and no receiver can agree",
            ),
        }
    }
}
