//! What the command line says.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use isimud_import_sources::{Oldest, Unwrap};

/// Take over what another service left.
#[derive(Debug, Args)]
pub struct Import {
    #[command(subcommand)]
    pub(super) from: From,
}

#[derive(Debug, Subcommand)]
pub(super) enum From {
    /// A Zaqar on Redis: queues, metadata, messages and claims.
    Zaqar(Zaqar),
    /// A Redis list that served as a queue (Celery, Sidekiq, Resque, BullMQ, or made by hand).
    RedisList(List),
    /// A Redis stream.
    RedisStream(Stream),
}

/// What every import has.
#[derive(Debug, Args)]
pub(super) struct Shared {
    /// Where messages go, as for `isimud serve` [default: sqlite:data/isimud.db].
    #[arg(long, value_name = "URI")]
    pub(super) store: Option<String>,
    /// Where queues go [default: with the messages].
    #[arg(long, value_name = "URI")]
    pub(super) store_management: Option<String>,
    /// The server's configuration file.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A file that remembers how far the import came; a later one with the same file goes on from there.
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
    /// A file for the names of everything that is left out, as JSON lines; the report names ten of a kind.
    #[arg(long, value_name = "FILE")]
    pub(super) left_out: Option<PathBuf>,
    /// Read everything, write nothing, and say what would be done.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Zaqar {
    /// The message store, as Zaqar's configuration names it; once for each pool.
    #[arg(long, value_name = "URI", required = true)]
    pub(super) from: Vec<String>,
    /// The management store: a Redis URI, an SQLite file, or an SQL dump [default: the first --from].
    #[arg(long, value_name = "URI|FILE")]
    pub(super) management: Option<String>,
    /// A file with Zaqar's message_encryption_key; several keys on lines of their own [default: the keys of this
    /// server's configuration, and Zaqar's default].
    #[arg(long, value_name = "FILE")]
    pub(super) encryption_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) shared: Shared,
}

/// What an import of plain Redis data has.
#[derive(Debug, Args)]
pub(super) struct Plain {
    /// The Redis: redis://host, rediss://user:password@host/1, with master=NAME or cluster=true.
    #[arg(long, value_name = "URI")]
    pub(super) from: String,
    /// The key.
    #[arg(long, value_name = "KEY")]
    pub(super) key: String,
    /// The queue that the messages go to; it is made if it does not exist.
    #[arg(long, value_name = "NAME")]
    pub(super) queue: String,
    /// The project of the queue.
    #[arg(long, value_name = "ID", default_value = "default")]
    pub(super) project: String,
    /// Seconds that the messages live from now on [default: limits.default_message_ttl].
    #[arg(long, value_name = "SECONDS")]
    pub(super) ttl: Option<i64>,
    /// Decode what is wrapped in the elements.
    #[arg(long, value_enum, default_value = "nothing")]
    pub(super) unwrap: Wrapping,
    #[command(flatten)]
    pub(super) shared: Shared,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// The end from which elements were taken: right for LPUSH and BRPOP, left for RPUSH and BLPOP.
    #[arg(long, value_enum, default_value = "right")]
    pub(super) oldest: End,
    /// With --unwrap celery: take the tasks that workers hold, too. Right when none of them runs any more.
    #[arg(long)]
    pub(super) unacked: bool,
    #[command(flatten)]
    pub(super) plain: Plain,
}

#[derive(Debug, Args)]
pub(super) struct Stream {
    /// Only entries that this consumer group has not acknowledged.
    #[arg(long, value_name = "NAME")]
    pub(super) group: Option<String>,
    /// Take this field's value as the body, not all fields as an object.
    #[arg(long, value_name = "NAME")]
    pub(super) field: Option<String>,
    #[command(flatten)]
    pub(super) plain: Plain,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Wrapping {
    Nothing,
    /// The base64 body of a Celery message.
    Celery,
    /// The jobs whose numbers BullMQ keeps in its lists; the key is PREFIX:QUEUE:wait.
    #[value(name = "bullmq")]
    BullMq,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum End {
    Left,
    Right,
}

impl From {
    fn shared(&self) -> &Shared {
        match self {
            Self::Zaqar(flags) => &flags.shared,
            Self::RedisList(flags) => &flags.plain.shared,
            Self::RedisStream(flags) => &flags.plain.shared,
        }
    }
}

impl Import {
    pub(super) fn shared(&self) -> &Shared {
        self.from.shared()
    }
}

impl std::convert::From<Wrapping> for Unwrap {
    fn from(wrapping: Wrapping) -> Self {
        match wrapping {
            Wrapping::Nothing => Self::Nothing,
            Wrapping::Celery => Self::Celery,
            Wrapping::BullMq => Self::BullMq,
        }
    }
}

impl std::convert::From<End> for Oldest {
    fn from(end: End) -> Self {
        match end {
            End::Left => Self::Left,
            End::Right => Self::Right,
        }
    }
}
