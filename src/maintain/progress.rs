//! How far the statements of a run are, as the server says it.

use crate::db::{Connection, Error};

/// Returns one line about what the sessions of runs are at in this database; nothing if none is at anything that says so.
pub(super) fn look(connection: &mut Connection) -> Result<Option<String>, Error> {
    let sql = "SELECT pg_catalog.string_agg(pg_catalog.format('%s: %s %s', c.relname, p.phase, p.share), '; ' ORDER BY c.relname) \
        FROM (SELECT pid, relid, phase, CASE WHEN heap_blks_total > 0 \
                  THEN heap_blks_scanned * 100 / heap_blks_total || ' %' END AS share \
              FROM pg_catalog.pg_stat_progress_vacuum WHERE datname = pg_catalog.current_database() \
              UNION ALL \
              SELECT pid, coalesce(nullif(index_relid, 0), relid), phase, CASE WHEN blocks_total > 0 \
                  THEN blocks_done * 100 / blocks_total || ' %' END \
              FROM pg_catalog.pg_stat_progress_create_index WHERE datname = pg_catalog.current_database()) p \
        JOIN pg_catalog.pg_stat_activity a ON a.pid = p.pid AND a.application_name = $1 \
        JOIN pg_catalog.pg_class c ON c.oid = p.relid";
    let row = connection.query_one(sql, &[&super::APPLICATION]);
    let row = row.map_err(|e| Error::query("ask for the progress", e))?;
    Ok(row.get(0))
}
