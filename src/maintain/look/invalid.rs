//! Indexes that are not valid, what else is defined like them, and who is at work on them.

use postgres::Row;

use super::Name;
use crate::db::{Connection, Error};
use crate::maintain::Server;
use crate::maintain::leftover::Invalid;

/// Two indexes are the same if all of this is. Texts of expressions are compared as the server prints them.
const SAME: &str = "NULLS_ALIKE AND v.indrelid = i.indrelid AND v.indexrelid <> i.indexrelid AND v.indisvalid \
    AND v.indkey::text = i.indkey::text AND v.indnkeyatts = i.indnkeyatts AND v.indclass::text = i.indclass::text \
    AND v.indcollation::text = i.indcollation::text AND v.indoption::text = i.indoption::text \
    AND v.indisunique = i.indisunique AND vx.relam = x.relam \
    AND pg_get_expr(v.indexprs, v.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indexprs, i.indrelid) \
    AND pg_get_expr(v.indpred, v.indrelid) IS NOT DISTINCT FROM pg_get_expr(i.indpred, i.indrelid)";

/// Lists the invalid indexes, of one table or of all, and who is at work on them.
pub(in crate::maintain) fn invalid(
    connection: &mut Connection,
    server: &Server,
    table: Option<u32>,
) -> Result<Vec<Invalid>, Error> {
    let nulls_alike = if server.version.major() >= 15 {
        "v.indnullsnotdistinct = i.indnullsnotdistinct"
    } else {
        "true"
    };
    let same = SAME.replace("NULLS_ALIKE", nulls_alike);
    let sql = format!(
        "SELECT x.oid, xn.nspname::text, x.relname::text, c.oid, \
             ARRAY(SELECT v.indexrelid FROM pg_index v JOIN pg_class vx ON vx.oid = v.indexrelid WHERE {same}), \
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
