//! What the catalogue and the statistics say, in one statement for all tables and one for the indexes that matter.
//!
//! Nothing here takes a lock on a table, so that a waiting ALTER TABLE holds nothing up: sizes are those of the catalogue, as of the last
//! VACUUM or ANALYZE.

use std::collections::BTreeMap;

use super::Server;
use super::leftover::Invalid;
use super::need::Settings;
use crate::db::{Connection, Error, quote_identifier};

mod indexes;
mod invalid;
mod tables;

pub(crate) use indexes::Index;
pub(super) use invalid::invalid;
pub(crate) use tables::Table;

/// A name with its schema, as the catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) struct Name {
    pub(crate) schema: String,
    pub(crate) name: String,
}

impl Name {
    /// Quotes it for SQL.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What a plan is made of.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) server: Server,
    pub(crate) settings: Settings,
    pub(crate) tables: Vec<Table>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) invalid: Vec<Invalid>,
    /// How old, in transactions, what VACUUM may not remove is, and because of whom; the oldest first.
    pub(crate) horizon: Vec<(u64, String)>,
}

/// Looks at a database.
pub(crate) fn look(
    connection: &mut Connection,
    server: Server,
    min_index_bytes: u64,
) -> Result<Look, Error> {
    let failed = |e| Error::query("read the catalogue", e);
    let settings = settings(connection)?;
    let row = connection.query_one("SELECT current_setting('block_size')::int8", &[]);
    let block = row.map_err(failed)?.get::<_, i64>(0).unsigned_abs();
    let rows = connection.query(&tables::sql(&server), &[]).map_err(failed)?;
    let tables = rows.iter().map(|row| tables::table(row, block)).collect();
    let pages = i64::try_from(min_index_bytes / block).unwrap_or(i64::MAX);
    let rows = connection.query(&indexes::sql(&server), &[&pages]).map_err(failed)?;
    let indexes = rows.iter().map(|row| indexes::index(row, block)).collect();
    let invalid = invalid(connection, &server, None)?;
    let rows = connection.simple_query(crate::health::postgres::HORIZON).map_err(failed)?;
    let horizon = rows.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => {
            Some((row.get("age")?.parse().ok()?, row.get("cause")?.to_owned()))
        }
        _ => None,
    });
    let horizon = horizon.collect();
    Ok(Look { server, settings, tables, indexes, invalid, horizon })
}

/// Reads the settings of autovacuum; those that a version does not know are off.
fn settings(connection: &mut Connection) -> Result<Settings, Error> {
    let sql = "SELECT name, setting FROM pg_settings WHERE name LIKE 'autovacuum%' OR name LIKE 'vacuum%age'";
    let rows = connection.query(sql, &[]);
    let rows = rows.map_err(|e| Error::query("read the settings of autovacuum", e))?;
    let values: BTreeMap<String, String> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(Settings::new(&values))
}

/// May the role maintain `c`? Since version 17 that can be granted.
fn may(server: &Server) -> &'static str {
    if server.version.major() >= 17 {
        "(pg_has_role(c.relowner, 'USAGE') OR has_table_privilege(c.oid, 'MAINTAIN') OR owner.is AND NOT c.relisshared)"
    } else {
        "(pg_has_role(c.relowner, 'USAGE') OR owner.is AND NOT c.relisshared)"
    }
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
