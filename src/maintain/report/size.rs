//! Sizes of databases, tables and indexes, the largest first, and how they grow.

use crate::clock::Moment;
use crate::db::Error;
use crate::health::postgres::Row;
use crate::text::counted;

use super::growth::{self, Growth};
use super::{Asking, Finding, LISTED, Severity, Topic, Wish, whole};

/// The largest of a kind.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Sizes {
    pub(crate) total: u64,
    /// Of all of them, in bytes; what may not be seen is not in it.
    pub(crate) bytes: u64,
    pub(crate) listed: Vec<Size>,
}

/// How large something is, and was.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Size {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) growth: Option<Growth>,
    /// What earlier reports saw, and this one; oldest first.
    pub(crate) history: Vec<(Moment, f64)>,
}

/// More points than these do not fit into a picture.
const POINTS: usize = 60;

/// A database that a role may not connect to has no size for it.
const DATABASES: &str = "
    SELECT datname AS name, size AS bytes, count(*) OVER () AS total, sum(size) OVER () AS sum,
        count(*) FILTER (WHERE size IS NULL) OVER () AS hidden
    FROM (SELECT datname, CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
        THEN pg_database_size(oid) END AS size FROM pg_database WHERE datallowconn) AS d
    ORDER BY datname <> current_database(), size DESC NULLS LAST LIMIT 20";

/// With its TOAST table, and without its indexes. Before the first VACUUM or ANALYZE the catalogue knows no size.
const TABLES: &str = "
    SELECT format('%s.%s', n.nspname, c.relname) AS name, pages * current_setting('block_size')::int8 AS bytes,
        count(*) OVER () AS total, sum(pages) OVER () * current_setting('block_size')::int8 AS sum,
        count(*) FILTER (WHERE pages IS NULL) OVER () AS hidden
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
        CROSS JOIN LATERAL (SELECT CASE WHEN c.reltuples >= 0 THEN c.relpages::int8 + coalesce(t.relpages, 0) END AS pages) AS p
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    ORDER BY pages DESC NULLS LAST, c.oid LIMIT 20";

const INDEXES: &str = "
    SELECT format('%s.%s', n.nspname, c.relname) AS name, pages * current_setting('block_size')::int8 AS bytes,
        count(*) OVER () AS total, sum(pages) OVER () * current_setting('block_size')::int8 AS sum
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_index AS i ON i.indexrelid = c.oid
        JOIN pg_class AS t ON t.oid = i.indrelid CROSS JOIN LATERAL (SELECT CASE WHEN t.reltuples >= 0 THEN c.relpages::int8 END AS pages) AS p
    WHERE c.relkind = 'i' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    ORDER BY pages DESC NULLS LAST, c.oid LIMIT 20";

pub(super) fn databases(asking: &mut Asking<'_>, wish: Wish<'_>) -> Result<Sizes, Error> {
    let rows = asking.rows("database-sizes", DATABASES)?.unwrap_or_default();
    let hidden = rows.first().map_or(0, |row| whole(row, "hidden"));
    if hidden > 0 {
        let evidence = format!("the size of {hidden} of them {}", asking.needs_monitor());
        let finding = Finding::new(Severity::Unknown, "other databases", evidence);
        asking.add(Topic::of("database-sizes", vec![finding]));
    }
    Ok(sizes(&rows, "database", wish))
}

pub(super) fn tables(asking: &mut Asking<'_>, wish: Wish<'_>) -> Result<Sizes, Error> {
    let rows = asking.rows("table-sizes", TABLES)?.unwrap_or_default();
    let hidden = rows.first().map_or(0, |row| whole(row, "hidden"));
    if hidden > 0 {
        let evidence =
            format!("the size of {} and of their indexes needs ANALYZE", counted(hidden, "table"));
        let finding = Finding::new(Severity::Unknown, "never vacuumed or analysed", evidence);
        let finding = finding.fix("ANALYZE;".to_owned(), "nobody who reads or writes");
        asking.add(Topic::of("table-sizes", vec![finding]));
    }
    Ok(sizes(&rows, "table", wish))
}

pub(super) fn indexes(asking: &mut Asking<'_>, wish: Wish<'_>) -> Result<Sizes, Error> {
    Ok(sizes(&asking.rows("index-sizes", INDEXES)?.unwrap_or_default(), "index", wish))
}

fn sizes(rows: &[Row], kind: &str, wish: Wish<'_>) -> Sizes {
    let Some(first) = rows.first() else { return Sizes::default() };
    let (total, bytes) = (whole(first, "total"), whole(first, "sum"));
    let known = rows.iter().filter(|row| row.get("bytes").is_some()).take(LISTED);
    let size = |row: &Row| {
        let (name, bytes) = (row.text("name").to_owned(), whole(row, "bytes"));
        let mut history = wish.earlier.figures(&format!("sizes.{kind}.{name}"));
        history.push((wish.now, crate::maintain::need::approximate(bytes)));
        let growth = growth::growth(&history);
        let history = history.split_off(history.len().saturating_sub(POINTS));
        Size { name, bytes, growth, history }
    };
    Sizes { total, bytes, listed: known.map(size).collect() }
}
