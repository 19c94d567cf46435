//! A session that reads and waits for nobody, and what it knows of its server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use postgres::SimpleQueryMessage;

use super::{APPLICATION, LOCK_TIMEOUT};
use crate::clock::Moment;
use crate::db::{self, Connection, ServerVersion, Target};
use crate::stop::Stop;

/// What is known of a server before anything is asked.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) version: ServerVersion,
    pub(super) is_standby: bool,
    pub(super) role: String,
    /// May it see what other sessions do?
    pub(super) may_monitor: bool,
    /// How far its clock is ahead of this host's, in seconds; it may be half a round trip wrong.
    pub(super) skew: f64,
    /// When it was asked.
    pub(super) now: Moment,
}

/// A row by the names of its columns, as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row(pub(super) BTreeMap<String, String>);

impl Row {
    /// Takes the rows out of what the server answered.
    pub(crate) fn all(messages: Vec<SimpleQueryMessage>) -> Vec<Row> {
        let row = |message: SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                let columns = row.columns().iter().enumerate();
                let cells = columns.filter_map(|(n, column)| {
                    Some((column.name().to_owned(), row.try_get(n).ok()??.to_owned()))
                });
                Some(Row(cells.collect()))
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    /// Returns a value; nothing if it is NULL.
    pub(crate) fn get(&self, column: &str) -> Option<&str> {
        self.0.get(column).map(String::as_str)
    }

    /// Returns a value, empty if it is NULL.
    pub(crate) fn text(&self, column: &str) -> &str {
        self.get(column).unwrap_or_default()
    }

    /// Returns a number; NULL is 0.
    pub(crate) fn number(&self, column: &str) -> anyhow::Result<f64> {
        let Some(text) = self.get(column) else { return Ok(0.0) };
        text.parse().with_context(|| format!("`{text}` in column `{column}` is not a number"))
    }

    pub(crate) fn is(&self, column: &str) -> bool {
        matches!(self.text(column), "t" | "true")
    }
}

/// Nothing that is set in it outlives a statement: behind a pooler the next one may be somebody else's.
pub(super) struct Session {
    connection: Connection,
    /// What is asked for, for errors.
    what: &'static str,
    /// How long a statement may take.
    limit: Duration,
}

/// Connects, and learns what has to be known.
pub(super) fn open(
    target: &Target,
    limit: Duration,
    stop: &Stop,
) -> anyhow::Result<(Session, Server)> {
    let connection = target.connect(APPLICATION, stop)?;
    let mut session = Session { connection, what: "which server it is", limit };
    let sql = "SELECT current_setting('server_version_num') AS version, pg_is_in_recovery() AS standby, current_user AS role, \
        pg_has_role('pg_read_all_stats', 'USAGE') AS monitors, extract(epoch FROM clock_timestamp()) AS clock";
    let before = crate::clock::now();
    let rows = session.rows(sql)?;
    let round_trip = crate::clock::now() - before;
    let row = rows.first().context("the server did not say which it is")?;
    let here = (before + round_trip / 2).timestamp_micros();
    #[expect(clippy::cast_precision_loss, reason = "microseconds fit for the next two centuries")]
    let here = here as f64 / 1e6;
    let version = row.text("version").parse().context("the server's version is not a number")?;
    let server = Server {
        version: ServerVersion(version),
        is_standby: row.is("standby"),
        role: row.text("role").to_owned(),
        may_monitor: row.is("monitors"),
        skew: row.number("clock")? - here,
        now: before,
    };
    Ok((session, server))
}

impl Session {
    /// Says what is asked for next, and how long each statement may take.
    pub(super) fn about(&mut self, what: &'static str, limit: Duration) -> &mut Session {
        (self.what, self.limit) = (what, limit);
        self
    }

    /// Runs one statement in a transaction of its own that reads only, and returns its rows, in one round trip.
    pub(super) fn rows(&mut self, sql: &str) -> Result<Vec<Row>, db::Error> {
        let messages = self.connection.simple_query(&format!(
            "SET LOCAL transaction_read_only = on; SET LOCAL search_path = pg_catalog; \
            SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; {sql}",
            LOCK_TIMEOUT.as_millis(),
            self.limit.as_millis(),
        ));
        let what = || format!("ask for {}", self.what);
        messages.map(Row::all).map_err(|e| db::Error::query(what(), e))
    }
}
