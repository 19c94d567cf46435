//! The table whose rows are archived, as the server shows it: in one snapshot, with settings that fix the text of every value.
//!
//! It only reads. A policy of row-level security that hides rows is an error, not a smaller archive.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::Context as _;
use chrono::NaiveDate;

use crate::archive::line::fingerprint;
use crate::archive::row::{Column, Row};
use crate::archive::window::Window;
use crate::clock::Moment;
use crate::config::AuditTable;
use crate::db::{Connection, Error, Target};
use crate::exit::{Exit, Failure};
use crate::stop::Stop;

/// What the text of values depends on.
const SETTINGS: [(&str, &str); 6] = [
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("lc_monetary", "C"),
];

/// A table in a snapshot, or in a session that may delete from it.
pub(crate) struct Source {
    pub(super) connection: Connection,
    pub(super) stop: Stop,
    pub(super) oid: u32,
    /// As SQL wants it.
    pub(super) quoted: String,
    pub(crate) facts: Facts,
}

/// What a manifest says of a table.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) database: String,
    pub(crate) system_identifier: String,
    /// `schema.table`
    pub(crate) table: String,
    pub(crate) comment: Option<String>,
    pub(crate) columns: Vec<Column>,
    pub(crate) time_column: String,
    pub(crate) key: Vec<String>,
    pub(crate) wal_position: String,
}

/// The keys of some rows, without their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) rows: u64,
    /// The sum of their fingerprints, modulo 2^128.
    pub(crate) sum: u128,
}

impl Keys {
    pub(crate) fn add(&mut self, fingerprint: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(fingerprint);
    }
}

impl Source {
    /// Begins a snapshot, and makes sure that the table is as the configuration has it.
    pub(crate) fn open(target: &Target, audit: &AuditTable, stop: &Stop) -> anyhow::Result<Source> {
        // What is set ends with the snapshot: behind a pooler the session is somebody else's afterwards.
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;";
        let begin = format!("{begin} {}", Source::set_settings("SET LOCAL"));
        Source::open_with(target, audit, stop, &begin)
    }

    /// The same without a snapshot: every statement sees what is there when it begins.
    pub(super) fn open_to_write(
        target: &Target,
        audit: &AuditTable,
        stop: &Stop,
    ) -> anyhow::Result<Source> {
        Source::open_with(target, audit, stop, &Source::set_settings("SET"))
    }

    fn open_with(
        target: &Target,
        audit: &AuditTable,
        stop: &Stop,
        begin: &str,
    ) -> anyhow::Result<Source> {
        let mut connection = target.connect("opsctl archive-audit", stop)?;
        let failed =
            |e| Error::query(format!("look at the table {}", audit.table), e).or_stopped(stop);
        let name = match &audit.table.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&audit.table.name)),
            None => quote(&audit.table.name),
        };
        let sql = "SELECT c.oid, n.nspname::text, c.relname::text, pg_catalog.obj_description(c.oid, 'pg_class'), \
                   pg_catalog.current_database()::text FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p')";
        let Some(row) = connection.query_opt(sql, &[&name]).map_err(failed)? else {
            return Err(misfit(audit, "there is no such table"));
        };
        let (oid, schema, table): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        let (comment, database) = (row.get(3), row.get(4));
        connection
            .batch_execute(begin)
            .map_err(|e| Error::query("prepare the session", e).or_stopped(stop))?;
        let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
                   (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text";
        let row = connection.query_one(sql, &[]).map_err(failed)?;
        let (system_identifier, wal_position) = (row.get(0), row.get(1));
        let sql = "SELECT attname::text, format_type(atttypid, atttypmod), \
                   atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) \
                   FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let rows = connection.query(sql, &[&oid]).map_err(failed)?;
        let is_time = rows.iter().find(|row| row.get::<_, &str>(0) == audit.time_column);
        match is_time.map(|row| row.get(2)) {
            Some(true) => {}
            Some(false) => {
                let what = format!("`{}` is no timestamp and no date", audit.time_column);
                return Err(misfit(audit, &what));
            }
            None => {
                return Err(misfit(audit, &format!("it has no column `{}`", audit.time_column)));
            }
        }
        let column = |row: &postgres::Row| Column { name: row.get(0), type_name: row.get(1) };
        let columns = rows.iter().map(column).collect();
        let key = key(&mut connection, oid, audit).map_err(failed)?;
        let key = key.ok_or_else(|| {
            let what = if audit.key.is_empty() {
                "it has no primary key: name `key`".to_owned()
            } else {
                format!("no unique index is of {}", audit.key.join(", "))
            };
            misfit(audit, &what)
        })?;
        let facts = Facts {
            database,
            system_identifier,
            table: format!("{schema}.{table}"),
            comment,
            columns,
            time_column: audit.time_column.clone(),
            key,
            wal_position,
        };
        let quoted = format!("{}.{}", quote(&schema), quote(&table));
        Ok(Source { connection, stop: stop.clone(), oid, quoted, facts })
    }

    /// Returns the settings, for the manifest.
    pub(crate) fn settings() -> BTreeMap<String, String> {
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Returns the statements that make a session write values as the manifest says, or a transaction if each is a SET LOCAL.
    pub(super) fn set_settings(set: &str) -> String {
        let settings: String =
            SETTINGS.iter().map(|(name, value)| format!("{set} {name} = '{value}'; ")).collect();
        format!(
            "{settings} {set} search_path = pg_catalog; {set} row_security = off; {set} statement_timeout = 0; \
             {set} idle_in_transaction_session_timeout = 0; {set} lock_timeout = '30s';"
        )
    }

    /// Returns the day of the oldest row before `cutoff`. Rows from before the year 1 and without a time do not count.
    pub(crate) fn oldest(&mut self, cutoff: Moment) -> anyhow::Result<Option<Moment>> {
        let time = quote(&self.facts.time_column);
        let sql = format!(
            "SELECT to_char(min({time}), 'YYYY-MM-DD') FROM {} WHERE {time} >= '0001-01-01' AND {time} < {}",
            self.quoted,
            literal(cutoff)
        );
        let row = self.connection.query_one(&sql, &[]);
        let row =
            row.map_err(|e| Error::query("look for the oldest row", e).or_stopped(&self.stop))?;
        let Some(day) = row.get::<_, Option<String>>(0) else { return Ok(None) };
        let day = NaiveDate::parse_from_str(&day, "%Y-%m-%d").context("the oldest row's day")?;
        Ok(Some(day.and_time(chrono::NaiveTime::MIN).and_utc()))
    }

    /// Adds up the keys of a window's rows.
    pub(crate) fn keys(&mut self, window: Window) -> anyhow::Result<Keys> {
        let columns: Vec<String> = self.facts.key.iter().map(|name| quote(name)).collect();
        let sql = format!(
            "COPY (SELECT {} FROM {} WHERE {}) TO STDOUT",
            columns.join(", "),
            self.quoted,
            self.within(window)
        );
        let mut keys = Keys::default();
        self.copy(&sql, |row| {
            keys.add(fingerprint(row.values()));
            Ok(())
        })?;
        Ok(keys)
    }

    /// Is there any row of a window?
    pub(super) fn has_rows(&mut self, window: Window) -> Result<bool, Error> {
        let sql =
            format!("SELECT EXISTS (SELECT FROM {} WHERE {})", self.quoted, self.within(window));
        let row = self.connection.query_one(&sql, &[]);
        let row = row.map_err(|e| Error::query("look for rows", e).or_stopped(&self.stop))?;
        Ok(row.get(0))
    }

    /// Gives every row of a window to `take`, in the order of time and key.
    pub(crate) fn rows(
        &mut self,
        window: Window,
        take: impl FnMut(&Row) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let columns: Vec<String> = self.facts.columns.iter().map(|c| quote(&c.name)).collect();
        let order = std::iter::once(&self.facts.time_column).chain(&self.facts.key);
        let order: Vec<String> = order.map(|name| quote(name)).collect();
        let sql = format!(
            "COPY (SELECT {} FROM {} WHERE {} ORDER BY {}) TO STDOUT",
            columns.join(", "),
            self.quoted,
            self.within(window),
            order.join(", ")
        );
        self.copy(&sql, take)
    }

    fn copy(
        &mut self,
        sql: &str,
        mut take: impl FnMut(&Row) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let what = format!("read the rows of {}", self.facts.table);
        let reader = self.connection.copy_out(sql);
        let reader = reader.map_err(|e| Error::query(&*what, e).or_stopped(&self.stop))?;
        copy(reader, &what, &self.stop, &mut |row| take(row))
    }

    fn within(&self, window: Window) -> String {
        within(&self.facts.time_column, window)
    }
}

impl Facts {
    /// Returns where the columns of the key are among all columns.
    pub(crate) fn key_positions(&self) -> Vec<usize> {
        positions(&self.columns, &self.key)
    }
}

/// Returns the condition that a row is of a window.
pub(super) fn within(time_column: &str, window: Window) -> String {
    let time = quote(time_column);
    format!("{time} >= {} AND {time} < {}", literal(window.from), literal(window.to))
}

/// Gives every row of a COPY to `take`.
pub(super) fn copy(
    mut reader: impl BufRead,
    what: &str,
    stop: &Stop,
    take: &mut dyn FnMut(&mut Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut line, mut row) = (Vec::new(), Row::default());
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line);
        if length.map_err(|e| Error::copy(what, e).or_stopped(stop))? == 0 {
            return Ok(());
        }
        row.read(&line)?;
        take(&mut row)?;
    }
}

/// Returns where columns of these names are.
pub(crate) fn positions(columns: &[Column], names: &[String]) -> Vec<usize> {
    let position = |name: &String| columns.iter().position(|column| column.name == *name);
    names.iter().filter_map(position).collect()
}

/// Finds the key: that of the configuration if a unique index has it, else the primary key.
fn key(
    connection: &mut Connection,
    oid: u32,
    audit: &AuditTable,
) -> Result<Option<Vec<String>>, postgres::Error> {
    let sql = "SELECT indisprimary, array(SELECT attname::text FROM unnest(indkey[0:indnkeyatts - 1]) WITH ORDINALITY k(n, i) \
               JOIN pg_attribute ON attrelid = indrelid AND attnum = k.n ORDER BY i) \
               FROM pg_index WHERE indrelid = $1 AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL";
    for row in connection.query(sql, &[&oid])? {
        let (is_primary, columns): (bool, Vec<String>) = (row.get(0), row.get(1));
        let is_wanted =
            columns.len() == audit.key.len() && audit.key.iter().all(|k| columns.contains(k));
        if is_wanted {
            return Ok(Some(audit.key.clone()));
        }
        if is_primary && audit.key.is_empty() {
            return Ok(Some(columns));
        }
    }
    Ok(None)
}

fn misfit(audit: &AuditTable, what: &str) -> anyhow::Error {
    Failure::new(Exit::Configuration, format!("[[audit]] of {}: {what}", audit.table)).into()
}

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes a moment as every type of time reads it.
fn literal(moment: Moment) -> String {
    moment.format("'%Y-%m-%d %H:%M:%S+00'").to_string()
}
