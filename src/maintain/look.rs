//! What the catalogue and the statistics say, in one statement for all tables and one for the indexes that matter.
//!
//! Nothing here takes a lock on a table, so that a waiting ALTER TABLE holds nothing up: sizes are those of the catalogue, as of the last
//! VACUUM or ANALYZE.

use std::collections::BTreeMap;

use postgres::Row;

use super::Server;
use super::leftover::Invalid;
use super::need::{Counts, Settings};
use crate::clock::Moment;
use crate::db::{Connection, Error, quote_identifier};

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

/// A table, a materialized view, or a partitioned table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) name: Name,
    pub(crate) is_partitioned: bool,
    /// The partitioned table that it is directly a part of.
    pub(crate) parent: Option<u32>,
    pub(crate) bytes: u64,
    pub(crate) index_bytes: u64,
    /// Its own rows, and those of its TOAST table.
    pub(crate) main: Counts,
    pub(crate) toast: Option<Counts>,
    /// When it was last analysed, as far as the statistics go back.
    pub(crate) analyzed_at: Option<Moment>,
    /// Is anything known of its values?
    pub(crate) has_statistics: bool,
    /// How wide a row is on average, for large tables of which that is known.
    pub(crate) row_width: Option<f64>,
    /// May this role vacuum and analyse it?
    pub(crate) may: bool,
}

impl Table {
    /// Is there anything in it? Before the first VACUUM or ANALYZE the catalogue says that it is empty.
    pub(crate) fn has_rows(&self) -> bool {
        self.bytes > 0 || self.main.modified > 0 || self.main.inserted > 0
    }
}

/// An index that is large enough to matter.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) oid: u32,
    pub(crate) name: Name,
    pub(crate) table: u32,
    pub(crate) table_name: Name,
    pub(crate) bytes: u64,
    /// Entries, as of the last VACUUM or ANALYZE.
    pub(crate) entries: f64,
    /// How wide an entry's values are on average, for a btree of which all is known.
    pub(crate) width: Option<f64>,
    pub(crate) fillfactor: u32,
    /// Of a system catalogue, or of an exclusion constraint: REINDEX CONCURRENTLY refuses it.
    pub(crate) needs_lock: bool,
    pub(crate) may: bool,
    pub(crate) tablespace: u32,
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

/// From this size on it is worth to know how wide rows are.
const LARGE_PAGES: u32 = 8192;

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
    let rows = connection.query(&tables_sql(&server), &[]).map_err(failed)?;
    let tables = rows.iter().map(|row| table(row, block)).collect();
    let pages = i64::try_from(min_index_bytes / block).unwrap_or(i64::MAX);
    let rows = connection.query(&indexes_sql(&server), &[&pages]).map_err(failed)?;
    let indexes = rows.iter().map(|row| index(row, block)).collect();
    let invalid = invalid(connection, None)?;
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

/// The functions of the statistics are asked, and not their views, which add up the indexes of each table.
fn tables_sql(server: &Server) -> String {
    let frozen = match server.version.major() {
        18.. => "c.relallfrozen, t.relallfrozen",
        _ => "0, 0",
    };
    format!(
        "WITH owner AS (SELECT pg_has_role(datdba, 'USAGE') AS is FROM pg_database WHERE datname = current_database()), \
         indexed AS (SELECT i.indrelid, sum(x.relpages)::int8 AS pages FROM pg_index i \
             JOIN pg_class x ON x.oid = i.indexrelid GROUP BY 1) \
         SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', p.inhparent, \
             c.relpages, coalesce(indexed.pages, 0), c.reltuples::float8, c.reloptions, \
             CASE WHEN c.relfrozenxid <> '0' THEN age(c.relfrozenxid) ELSE 0 END, \
             CASE WHEN c.relminmxid <> '0' THEN mxid_age(c.relminmxid) ELSE 0 END, \
             pg_stat_get_dead_tuples(c.oid), pg_stat_get_ins_since_vacuum(c.oid), pg_stat_get_mod_since_analyze(c.oid), \
             t.oid, t.relpages, t.reltuples::float8, t.reloptions, age(t.relfrozenxid), mxid_age(t.relminmxid), \
             pg_stat_get_dead_tuples(t.oid), pg_stat_get_ins_since_vacuum(t.oid), \
             times.analyzed, \
             CASE WHEN times.analyzed IS NULL THEN EXISTS (SELECT FROM pg_stats s \
                 WHERE s.schemaname = n.nspname AND s.tablename = c.relname) ELSE true END, \
             CASE WHEN c.relpages >= {LARGE_PAGES} THEN (SELECT CASE WHEN count(*) = c.relnatts \
                 THEN sum(s.avg_width * (1 - s.null_frac))::float8 END \
                 FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited) END, \
             {may}, {frozen} \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN owner \
         LEFT JOIN pg_class t ON t.oid = c.reltoastrelid AND t.oid <> 0 \
         LEFT JOIN pg_inherits p ON p.inhrelid = c.oid AND c.relispartition \
         LEFT JOIN indexed ON indexed.indrelid = c.oid \
         CROSS JOIN LATERAL (SELECT greatest(pg_stat_get_last_analyze_time(c.oid), \
             pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed) times \
         WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'",
        may = may(server),
    )
}

fn table(row: &Row, block: u64) -> Table {
    let number = |n: usize| row.get::<_, Option<i64>>(n).unwrap_or_default();
    let pages = |n: usize| row.get::<_, Option<i32>>(n).unwrap_or_default();
    let main = Counts {
        options: row.get::<_, Option<Vec<String>>>(8).unwrap_or_default(),
        rows: row.get(7),
        xid_age: unsigned(row.get::<_, i32>(9).into()),
        multixact_age: unsigned(row.get::<_, i32>(10).into()),
        dead: unsigned(number(11)),
        inserted: unsigned(number(12)),
        modified: unsigned(number(13)),
        frozen_share: share(pages(26), pages(5)),
    };
    let toast = row.get::<_, Option<u32>>(14).map(|_| Counts {
        options: row.get::<_, Option<Vec<String>>>(17).unwrap_or_default(),
        rows: row.get::<_, Option<f64>>(16).unwrap_or_default(),
        xid_age: unsigned(pages(18).into()),
        multixact_age: unsigned(pages(19).into()),
        dead: unsigned(number(20)),
        inserted: unsigned(number(21)),
        modified: 0,
        frozen_share: share(pages(27), pages(15)),
    });
    Table {
        oid: row.get(0),
        name: Name { schema: row.get(1), name: row.get(2) },
        is_partitioned: row.get(3),
        parent: row.get(4),
        bytes: unsigned((pages(5) + pages(15)).into()) * block,
        index_bytes: unsigned(number(6)) * block,
        main,
        toast,
        analyzed_at: row.get(22),
        has_statistics: row.get(23),
        row_width: row.get(24),
        may: row.get(25),
    }
}

/// Returns how much of a table's pages are frozen.
fn share(frozen: i32, pages: i32) -> f64 {
    if pages > 0 { (f64::from(frozen) / f64::from(pages)).clamp(0.0, 1.0) } else { 0.0 }
}

/// Values of expressions have their statistics under the index's own name.
fn indexes_sql(server: &Server) -> String {
    format!(
        "WITH owner AS (SELECT pg_has_role(datdba, 'USAGE') AS is FROM pg_database WHERE datname = current_database()) \
         SELECT x.oid, xn.nspname::text, x.relname::text, c.oid, n.nspname::text, c.relname::text, \
             x.relpages::int8, x.reltuples::float8, \
             CASE WHEN m.amname = 'btree' THEN (SELECT CASE WHEN count(*) = count(s.avg_width) \
                 THEN sum(s.avg_width * (1 - s.null_frac))::float8 END \
                 FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, ord) \
                 LEFT JOIN pg_attribute a ON a.attrelid = CASE WHEN k.num = 0 THEN x.oid ELSE c.oid END \
                     AND a.attnum = CASE WHEN k.num = 0 THEN k.ord ELSE k.num END \
                 LEFT JOIN pg_stats s ON NOT s.inherited AND s.attname = a.attname \
                     AND s.schemaname = CASE WHEN k.num = 0 THEN xn.nspname ELSE n.nspname END \
                     AND s.tablename = CASE WHEN k.num = 0 THEN x.relname ELSE c.relname END) END, \
             coalesce((SELECT option_value::int4 FROM pg_options_to_table(x.reloptions) WHERE option_name = 'fillfactor'), 90), \
             i.indisexclusion OR n.nspname = 'pg_catalog', {may}, x.reltablespace \
         FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace \
         JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = x.relam \
         CROSS JOIN owner \
         WHERE i.indisvalid AND x.relkind = 'i' AND x.relpersistence <> 't' AND x.relpages >= $1::int8 AND m.amname <> 'brin' \
         AND n.nspname <> 'pg_toast'",
        may = may(server),
    )
}

fn index(row: &Row, block: u64) -> Index {
    Index {
        oid: row.get(0),
        name: Name { schema: row.get(1), name: row.get(2) },
        table: row.get(3),
        table_name: Name { schema: row.get(4), name: row.get(5) },
        bytes: unsigned(row.get(6)) * block,
        entries: row.get(7),
        width: row.get(8),
        fillfactor: row.get::<_, i32>(9).unsigned_abs(),
        needs_lock: row.get(10),
        may: row.get(11),
        tablespace: row.get(12),
    }
}

/// Two indexes are the same if all of this is. Texts of expressions are compared as the server prints them.
const SAME: &str = "v.indrelid = i.indrelid AND v.indexrelid <> i.indexrelid AND v.indisvalid \
    AND v.indkey::text = i.indkey::text AND v.indnkeyatts = i.indnkeyatts AND v.indclass::text = i.indclass::text \
    AND v.indcollation::text = i.indcollation::text AND v.indoption::text = i.indoption::text \
    AND v.indisunique = i.indisunique AND vx.relam = x.relam \
    AND pg_get_expr(v.indexprs, v.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indexprs, i.indrelid) \
    AND pg_get_expr(v.indpred, v.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid)";

/// Lists the invalid indexes, of one table or of all, and who is at work on them.
pub(crate) fn invalid(
    connection: &mut Connection,
    table: Option<u32>,
) -> Result<Vec<Invalid>, Error> {
    let sql = format!(
        "SELECT x.oid, xn.nspname::text, x.relname::text, c.oid, \
             ARRAY(SELECT v.indexrelid FROM pg_index v JOIN pg_class vx ON vx.oid = v.indexrelid WHERE {SAME}), \
             EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid), i.indisreplident, i.indisclustered, \
             EXISTS (SELECT FROM pg_stat_progress_create_index g WHERE g.datname = current_database() \
                 AND (g.relid IS NULL OR g.relid = c.oid OR g.index_relid = x.oid)) \
             OR EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation IN (x.oid, c.oid) \
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND l.pid <> pg_backend_pid() \
                 AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')), \
             pg_has_role(x.relowner, 'USAGE') \
         FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace xn ON xn.oid = x.relnamespace \
         JOIN pg_class c ON c.oid = i.indrelid \
         WHERE NOT i.indisvalid AND x.relkind = 'i' AND ($1::oid IS NULL OR i.indrelid = $1) ORDER BY x.oid"
    );
    let rows = connection.query(&sql, &[&table]);
    let rows = rows.map_err(|e| Error::query("look for invalid indexes", e))?;
    let invalid = |row: &Row| Invalid {
        oid: row.get(0),
        name: Name { schema: row.get(1), name: row.get(2) },
        table: row.get(3),
        same: row.get(4),
        is_of_constraint: row.get(5),
        is_identity: row.get::<_, bool>(6) || row.get::<_, bool>(7),
        is_in_use: row.get(8),
        may: row.get(9),
    };
    Ok(rows.iter().map(invalid).collect())
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
