//! Connections to PostgreSQL as libpq's users expect them.
//!
//! The `postgres` crate reads no `.pgpass`, no service files and no `PG*` variables, and verifies no
//! certificates. This module does, so that whatever works with `psql` works here: [`Target`] is where
//! to connect and as whom, [`Connection`] is a session that a [`crate::stop::Stop`] interrupts,
//! [`ChildEnvironment`] hands the same parameters to `pg_dump` without showing a password to anybody,
//! [`programs`] finds client programs that fit the server, and [`advisory_lock`] keeps two hosts from
//! doing the same at once.
//!
//! It knows no configuration file and no command, prepares no statements of its own beyond what
//! connecting needs, and never retries: whether trying again is right only the caller knows.

pub(crate) mod advisory_lock;
mod child_environment;
mod connection;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod parameters;
mod password_file;
pub(crate) mod programs;
mod target;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod throwaway;
mod tls;

pub(crate) use child_environment::ChildEnvironment;
pub(crate) use connection::{Connection, ServerVersion};
pub(crate) use error::{Error, one_line};
pub(crate) use target::Target;

/// What the comment of a partition begins with that `archive-audit` is taking out of its table, for `doctor` to find.
pub(crate) const DETACHING: &str = "opsctl archive-audit: ";

/// Quotes a name for SQL.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
