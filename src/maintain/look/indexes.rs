//! Indexes that are large enough to matter, and how wide their entries are.

use postgres::Row;

use super::{Name, may, unsigned};
use crate::maintain::Server;

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

/// Values of expressions have their statistics under the index's own name.
pub(super) fn sql(server: &Server) -> String {
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

pub(super) fn index(row: &Row, block: u64) -> Index {
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
