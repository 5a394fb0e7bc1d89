//! Listeners, limits, log, and who may call from where.

use super::super::ini::normalized;
use super::super::reader::Origin;
use super::super::value::Value;
use super::{Mapper, Taken};

/// Seconds above which the server takes no time for one: a hundred years.
const LONGEST_SECS: i64 = 100 * 366 * 86_400;

const WSGI: &str = "drivers:transport:wsgi";
const WEBSOCKET: &str = "drivers:transport:websocket";

/// Options of `[transport]` with keys of the same names in `[limits]`, and the least and the most that the server takes.
const LIMITS: [(&str, &str, i64, i64); 17] = [
    (
        "default_message_ttl",
        "limits.default_message_ttl",
        1,
        LONGEST_SECS,
    ),
    (
        "default_message_delay",
        "limits.default_message_delay",
        0,
        LONGEST_SECS,
    ),
    (
        "default_claim_ttl",
        "limits.default_claim_ttl",
        1,
        LONGEST_SECS,
    ),
    (
        "default_claim_grace",
        "limits.default_claim_grace",
        1,
        LONGEST_SECS,
    ),
    (
        "default_subscription_ttl",
        "limits.default_subscription_ttl",
        60,
        LONGEST_SECS,
    ),
    (
        "max_queues_per_page",
        "limits.max_queues_per_page",
        1,
        i64::MAX,
    ),
    (
        "max_messages_per_page",
        "limits.max_messages_per_page",
        1,
        i64::MAX,
    ),
    (
        "max_subscriptions_per_page",
        "limits.max_subscriptions_per_page",
        1,
        i64::MAX,
    ),
    (
        "max_messages_per_claim_or_pop",
        "limits.max_messages_per_claim_or_pop",
        1,
        i64::MAX,
    ),
    (
        "max_pools_per_page",
        "limits.max_pools_per_page",
        1,
        i64::MAX,
    ),
    (
        "max_flavors_per_page",
        "limits.max_flavors_per_page",
        1,
        i64::MAX,
    ),
    (
        "max_queue_metadata",
        "limits.max_queue_metadata",
        1,
        i64::MAX,
    ),
    (
        "max_messages_post_size",
        "limits.max_messages_post_size",
        1,
        i64::MAX,
    ),
    (
        "max_message_ttl",
        "limits.max_message_ttl",
        60,
        LONGEST_SECS,
    ),
    (
        "max_message_delay",
        "limits.max_message_delay",
        0,
        LONGEST_SECS,
    ),
    ("max_claim_ttl", "limits.max_claim_ttl", 60, LONGEST_SECS),
    (
        "max_claim_grace",
        "limits.max_claim_grace",
        60,
        LONGEST_SECS,
    ),
];

impl Mapper<'_> {
    pub(super) fn api(&mut self) {
        self.listeners();
        self.limits();
        self.client_ids();
        self.bodies();
        self.log();
        self.cors();
        let taken = self.take("DEFAULT", "admin_mode");
        self.carry(&taken, "access.admin_api", taken.is_true());
    }

    fn listeners(&mut self) {
        let transport = self.take("drivers", "transport");
        // Two processes of a deployment may share its files, and differ in one that only switches the transport.
        let named: Vec<(String, Origin)> = self
            .reader
            .assigned()
            .filter(|each| normalized(&each.group) == "drivers" && each.key == "transport")
            .map(|each| (each.value, each.origin))
            .collect();
        let is_websocket = transport.text() == Some("websocket")
            || named.iter().any(|(value, _)| value == "websocket");
        let is_websocket_alone =
            is_websocket && named.iter().all(|(value, _)| value == "websocket") && named.len() == 1;
        let (bind, port) = (self.take(WSGI, "bind"), self.take(WSGI, "port"));
        match bind.is_set() || port.is_set() {
            true => self.listen(&bind, &port, "server.listen"),
            false => self.report.note(
                "server.listen is 127.0.0.1:8888, as in Zaqar's own server; under uWSGI, Apache or gunicorn the real \
                 address is in their configuration",
            ),
        }
        let names = [
            "bind",
            "port",
            "external_port",
            "notification_bind",
            "notification_port",
        ];
        let [bind, port, external, notification_bind, notification_port] =
            names.map(|name| self.take(WEBSOCKET, name));
        if !is_websocket {
            for taken in [&bind, &port, &external] {
                self.ignore(taken, "the transport is wsgi");
            }
        } else {
            self.listen(&bind, &port, "websocket.listen");
            if let Some(port) = external.int() {
                self.carry(&external, "websocket.external_port", port);
            }
            match is_websocket_alone {
                true => self.differs(
                    &transport,
                    "one process serves both here: WebSocket, and HTTP at server.listen",
                ),
                false => self.ignore(&transport, "one process serves HTTP and WebSocket"),
            }
        }
        if !is_websocket {
            self.ignore(&transport, "HTTP is always served");
        }
        for taken in [&notification_bind, &notification_port] {
            self.ignore(
                taken,
                "notifications reach WebSocket clients within the process",
            );
        }
    }

    fn listen(&mut self, bind: &Taken, port: &Taken, path: &'static str) {
        let (Some(host), Some(number)) = (bind.text(), port.int()) else {
            return;
        };
        let address = match host.contains(':') {
            true => format!("[{host}]:{number}"),
            false => format!("{host}:{number}"),
        };
        let taken = if bind.is_set() { bind } else { port };
        self.carry(taken, path, address);
        if bind.is_set() && port.is_set() {
            self.row(super::Kind::Carried, port, path.to_owned());
        }
    }

    fn limits(&mut self) {
        for (name, path, least, most) in LIMITS {
            let taken = self.take("transport", name);
            let Some(number) = taken.int() else {
                if taken.is_set() {
                    self.ignore(&taken, "it has no value");
                }
                continue;
            };
            self.carry_within(&taken, path, number, &(least..=most));
        }
    }

    fn client_ids(&mut self) {
        self.carry_text("transport", "client_id_uuid_safe", "access.client_id");
        let least = self.take("transport", "min_length_client_id");
        let most = self.take("transport", "max_length_client_id");
        let (Some(shortest), Some(longest)) = (least.int(), most.int()) else {
            return;
        };
        if shortest > longest {
            self.left(
                &least,
                "it is above max_length_client_id: no client id would be right",
            );
        } else if shortest < 0 {
            self.change(
                &least,
                "access.min_client_id_length",
                0,
                "a length below 0 is 0",
            );
        } else {
            self.carry(&least, "access.min_client_id_length", shortest);
        }
        if longest < 0 {
            self.left(&most, "it is below 0: no client id would be right");
        } else if shortest <= longest {
            self.carry(&most, "access.max_client_id_length", longest);
        }
    }

    fn bodies(&mut self) {
        let taken = self.take("DEFAULT", "enable_checksum");
        self.carry(&taken, "messages.checksums", taken.is_true());
        let taken = self.take("transport", "message_delete_with_claim_id");
        self.carry(&taken, "messages.delete_with_claim_ids", taken.is_true());
        let taken = self.take("transport", "message_encryption_algorithms");
        match taken.text() {
            Some("RSA") => self.left(&taken, "messages are encrypted with AES-256 only"),
            _ => self.ignore(&taken, "it is AES-256 always"),
        }
        let taken = self.take("transport", "message_encryption_key");
        match &taken.value {
            Value::Text(key) if key == "AES256" => self.differs(
                &taken,
                "the key is the public default: who can read the store can read encrypted queues; \
                 put a key of your own in front of it in messages.encryption_keys",
            ),
            Value::Text(key) if key.trim().is_empty() || key.contains(['\n', '\r']) => {
                self.left(
                    &taken,
                    "an empty key, or one of several lines, cannot be used",
                );
            }
            Value::Text(key) => {
                let keys = vec![key.clone()];
                self.secret(&taken, "messages.encryption_keys", keys, None);
            }
            _ => {}
        }
    }

    fn log(&mut self) {
        let taken = self.take("DEFAULT", "debug");
        if taken.is_true() {
            self.carry(&taken, "log.level", "debug");
        } else {
            self.ignore(&taken, "log.level is \"info\"");
        }
        let taken = self.take("DEFAULT", "use_json");
        if taken.is_true() {
            self.carry(&taken, "log.format", "json");
        }
        let standard_error = "logs go to standard error, for the service manager to keep";
        for name in ["log_file", "log_dir", "log_config_append"] {
            let taken = self.take("DEFAULT", name);
            if taken.text().is_some() {
                self.differs(&taken, standard_error);
            }
        }
        for name in ["use_syslog", "use_journal"] {
            let taken = self.take("DEFAULT", name);
            if taken.is_true() {
                self.differs(&taken, standard_error);
            }
        }
    }

    fn cors(&mut self) {
        let origins = self.take("cors", "allowed_origin");
        let credentials = self.take("cors", "allow_credentials");
        let listed = origins.list().unwrap_or_default();
        if !listed.is_empty() {
            let has_all = listed.iter().any(|origin| origin == "*");
            self.carry(&origins, "cors.allowed_origins", listed);
            match has_all && credentials.is_true() {
                true => self.change(
                    &credentials,
                    "cors.allow_credentials",
                    false,
                    "with the origin \"*\" no browser accepts credentials, and the server refuses both together",
                ),
                false => self.carry(&credentials, "cors.allow_credentials", credentials.is_true()),
            }
        } else {
            self.ignore(&credentials, "no origin is allowed");
        }
        for (name, path) in [
            ("expose_headers", "cors.expose_headers"),
            ("allow_methods", "cors.allow_methods"),
            ("allow_headers", "cors.allow_headers"),
        ] {
            let taken = self.take("cors", name);
            if let Some(items) = taken.list() {
                self.carry(&taken, path, items);
            }
        }
        let taken = self.take("cors", "max_age");
        match taken.int() {
            Some(secs) if secs < 0 => {
                self.change(&taken, "cors.max_age_secs", 0, "a time below 0 is 0")
            }
            Some(secs) => self.carry(&taken, "cors.max_age_secs", secs),
            None => {}
        }
        let groups: Vec<_> = self
            .reader
            .assigned()
            .filter(|each| normalized(&each.group).starts_with("cors."))
            .collect();
        for each in groups {
            self.report.add(
                super::Kind::Left,
                format!("[{}] {}", each.group, each.key),
                Some(each.origin),
                "rules for single origins are not supported; all origins have those of [cors]",
            );
        }
    }
}
