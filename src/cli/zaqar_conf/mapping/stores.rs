//! Where messages and queues are kept.

use super::super::reader::Fault;
use super::super::redis_uri::{Connection, masked};
use super::{Mapper, Taken};

const MESSAGE_REDIS: &str = "drivers:message_store:redis";
const MANAGEMENT_REDIS: &str = "drivers:management_store:redis";
const SQL: &str = "drivers:management_store:sqlalchemy";

/// What to do about a store that this server has no driver for.
const CHOOSE: &str = "there is no driver for it: choose a store with --store, and move or drain what is in the old one";

impl Mapper<'_> {
    pub(super) fn stores(&mut self) {
        let messages = self.take("drivers", "message_store");
        let management = self.take("drivers", "management_store");
        let connection = self.message_store(&messages);
        self.management_store(&management, connection.as_ref());
        for group in [MESSAGE_REDIS, MANAGEMENT_REDIS] {
            for name in ["max_reconnect_attempts", "reconnect_sleep"] {
                let taken = self.take(group, name);
                let why =
                    "a call is refused after timeout_ms of the store's URI, and clients try again";
                self.ignore(&taken, why);
            }
        }
        self.pooling();
    }

    /// The store of messages. Returns where Zaqar has it, if that is a Redis.
    fn message_store(&mut self, driver: &Taken) -> Option<Connection> {
        let uri = self.take(MESSAGE_REDIS, "uri");
        if driver.text() != Some("redis") {
            self.ignore(&uri, "the message store is another one");
            self.foreign_store(driver);
            return None;
        }
        let connection = self.connection(&uri)?;
        match self.decisions.store.clone() {
            Some(store) => self.chosen(driver, "store.uri", &store, "--store names it"),
            None => self.redis(&uri, "store.uri", &connection),
        }
        Some(connection)
    }

    /// A store that the operator has to choose: without a choice no server starts, rather than one with an empty store.
    fn foreign_store(&mut self, driver: &Taken) {
        match self.decisions.store.clone() {
            Some(store) => self.chosen(
                driver,
                "store.uri",
                &store,
                "--store names it; the old store is not read",
            ),
            None => {
                let why = "no driver for the message store of the files; set this before the server can start";
                self.document
                    .set("store.uri", "".into(), Self::comments(driver, Some(why)));
                self.left(driver, CHOOSE);
            }
        }
        if driver.text() == Some("swift") {
            self.report.note(
                "messages in Swift cannot be imported: let clients drain their queues before the switch",
            );
        }
    }

    fn management_store(&mut self, driver: &Taken, messages: Option<&Connection>) {
        let uri = self.take(MANAGEMENT_REDIS, "uri");
        let sql = self.take(SQL, "uri");
        if let Some(store) = self.decisions.management.clone() {
            self.chosen(driver, "management.uri", &store, "--management names it");
        }
        let other = "the management store is another one";
        let source = match driver.text() {
            Some("redis") => {
                self.ignore(&sql, other);
                self.redis_management(driver, &uri, messages)
            }
            Some("sqlalchemy") => {
                self.ignore(&uri, other);
                self.sql_management(driver, &sql)
            }
            _ => {
                self.ignore(&uri, other);
                self.ignore(&sql, other);
                let why = "there is no driver for it: queues are kept with the messages, or where \
                           --management says";
                self.left(driver, why);
                None
            }
        };
        if messages.is_some() {
            self.next_import(source);
        }
    }

    /// Queues in Redis. Returns what the import of data has to read beside the messages.
    fn redis_management(
        &mut self,
        driver: &Taken,
        uri: &Taken,
        messages: Option<&Connection>,
    ) -> Option<String> {
        let why = "management.uri is the store of queues, or empty for that of the messages";
        self.ignore(driver, why);
        let connection = self.connection(uri)?;
        if messages.is_some_and(|messages| connection.is_same_store(messages)) {
            self.ignore(uri, "queues are kept with the messages");
            return None;
        }
        match self.decisions.management.is_some() || self.decisions.store.is_some() {
            true => self.ignore(uri, "another store is chosen"),
            false => self.redis(uri, "management.uri", &connection),
        }
        uri.text().map(masked)
    }

    /// Queues in an SQL database, which only an import of data can read.
    fn sql_management(&mut self, driver: &Taken, sql: &Taken) -> Option<String> {
        let shown = sql.text().map(masked).unwrap_or_default();
        let why = format!(
            "queues are kept with the messages, or where --management says; import them from {shown}"
        );
        self.differs(driver, why);
        self.ignore(sql, "only the import of queues reads it");
        sql.text().map(|uri| match uri.strip_prefix("sqlite:///") {
            Some(path) => path.to_owned(),
            None => "DUMP.sql".to_owned(),
        })
    }

    /// The command that imports what the stores have.
    fn next_import(&mut self, management: Option<String>) {
        let from = self.take(MESSAGE_REDIS, "uri");
        let from = from.text().map(masked).unwrap_or_default();
        let management = management.map(|source| format!(" --management '{source}'"));
        let management = management.unwrap_or_default();
        let command = format!("isimud import zaqar --from '{from}'{management} --config CONFIG");
        self.next.push(command);
    }

    fn connection(&mut self, uri: &Taken) -> Option<Connection> {
        let text = uri.text().unwrap_or_default();
        match Connection::parse(text) {
            Ok(connection) => Some(connection),
            Err(reason) => {
                self.left(uri, format!("Zaqar refuses this URI, too: {reason}"));
                None
            }
        }
    }

    fn redis(&mut self, uri: &Taken, path: &'static str, connection: &Connection) {
        let translated = connection.translated();
        if let Err(reason) = (self.server.check_store)(&translated.uri) {
            self.left(uri, format!("the driver refuses it: {reason}"));
        }
        let why = (!translated.changes.is_empty()).then(|| translated.changes.join("; "));
        match (translated.has_secret, why) {
            (true, why) => self.secret(uri, path, translated.uri, why.as_deref()),
            (false, None) => self.carry(uri, path, translated.uri),
            (false, Some(why)) => self.change(uri, path, translated.uri, &why),
        }
    }

    fn chosen(&mut self, driver: &Taken, path: &'static str, uri: &str, why: &str) {
        if let Err(reason) = (self.server.check_store)(uri) {
            return self.faults.push(Fault {
                group: driver.group.clone(),
                option: driver.name.to_owned(),
                origin: driver.origin.clone(),
                reason: format!("{why}, and the server cannot use that URI: {reason}"),
            });
        }
        let has_secret = uri.contains('@') || uri.to_ascii_lowercase().contains("password=");
        match has_secret {
            true => self.secret(driver, path, uri, Some(why)),
            false => self.change(driver, path, uri, why),
        }
    }

    fn pooling(&mut self) {
        let pooling = self.take("DEFAULT", "pooling");
        let virtual_pool = self.take("pooling:catalog", "enable_virtual_pool");
        let takes_queues = !pooling.is_true() || virtual_pool.is_true();
        if pooling.is_true() {
            let why = "pools and flavors are always on; those that are registered are in the \
                       management store and are not read: register them again (PUT /v2/pools), or \
                       declare them in pooling.file";
            self.change(&pooling, "pooling.default_store", takes_queues, why);
            if virtual_pool.is_set() {
                self.row(
                    super::Kind::Carried,
                    &virtual_pool,
                    "pooling.default_store".to_owned(),
                );
            }
        } else {
            self.ignore(
                &pooling,
                "pools and flavors are always on, and mean nothing until one is registered",
            );
            self.ignore(&virtual_pool, "it means nothing without pooling");
        }
    }
}
