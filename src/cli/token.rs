//! Tokens for operators.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use isimud::admin::tokens::{self, Role};
use isimud_contract::{Clock, SystemClock};

use super::Failure;

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token, list it in a file (admin.tokens_file), and print it: nothing else has it. A running service reads the
    /// file again on SIGHUP.
    New(New),
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Whose it is: what the audit lines say.
    #[arg(long)]
    name: String,
    /// What it is good for; each role may do what those before it may.
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(|(name, _)| name)))]
    role: String,
    /// A project that it is for; again for each [default: every project].
    #[arg(long, value_name = "PROJECT")]
    project: Vec<String>,
    /// Days after which it is good for nothing [default: never].
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
    /// The file of tokens; it is made, for its owner only, where it does not exist.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn token(Token::New(new): Token) -> Result<(), Failure> {
    let found = Role::ALL.iter().find(|(name, _)| *name == new.role);
    let (_, role) = *found.ok_or("unknown role: expected viewer, reader, operator or admin")?;
    let day = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
    let expires = new.days.map(|days| SystemClock.wall().after(day(days)));
    let show = |token: &str| crate::output::line(token);
    tokens::issue(&new.file, &new.name, role, &new.project, expires, show)?;
    Ok(())
}
