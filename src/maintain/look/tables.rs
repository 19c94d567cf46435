//! Tables, their TOAST tables and what the statistics say of both: one statement for all of them.

use postgres::Row;

use super::{Name, may, unsigned};
use crate::clock::Moment;
use crate::maintain::Server;
use crate::maintain::need::Counts;

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

/// From this size on it is worth to know how wide rows are.
const LARGE_PAGES: u32 = 8192;

/// The functions of the statistics are asked, and not their views, which add up the indexes of each table.
pub(super) fn sql(server: &Server) -> String {
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

pub(super) fn table(row: &Row, block: u64) -> Table {
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
