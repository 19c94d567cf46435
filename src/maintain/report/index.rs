//! Indexes that nobody uses, that another one makes superfluous, and those that foreign keys lack.
//!
//! Nothing is proposed that cannot be undone by the statement beside it, and every reason to distrust it is said.

use crate::db::Error;
use crate::health::postgres::Row;
use crate::text::bytes;

use super::{Asking, Finding, Severity, float, whole};

/// Statistics younger than this say little, in days.
const SETTLED: f64 = 30.0;
const LARGE: u64 = 64 << 20;
const DROP_BLOCKS: &str = "nobody; it waits for older transactions";

pub(super) fn topics(asking: &mut Asking<'_>) -> Result<(), Error> {
    let is_standby = asking.server.is_standby;
    asking.findings("unused-index", UNUSED, |row| unused(row, is_standby))?;
    let nulls = if asking.server.version.major() >= 15 { "i.indnullsnotdistinct" } else { "false" };
    asking.findings("duplicate-index", &DUPLICATES.replace("NULLS_ALIKE", nulls), duplicate)?;
    asking.findings("foreign-key-without-index", FOREIGN_KEYS, foreign_key)
}

/// Partitions' indexes go with those of the whole. The definition is asked for only of what is listed.
const UNUSED: &str = "
    WITH unused AS (
        SELECT s.indexrelid, s.schemaname, s.indexrelname, CASE WHEN t.reltuples >= 0 THEN c.relpages::int8 * current_setting('block_size')::int8 END AS bytes,
            i.indexprs IS NOT NULL AS expression, i.indpred IS NOT NULL AS partial,
            EXISTS (SELECT FROM pg_constraint AS k WHERE k.contype = 'f' AND k.conrelid = i.indrelid
                AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey) AS for_key,
            count(*) OVER () AS total
        FROM pg_stat_user_indexes AS s JOIN pg_index AS i ON i.indexrelid = s.indexrelid JOIN pg_class AS c ON c.oid = i.indexrelid
            JOIN pg_class AS t ON t.oid = i.indrelid
        WHERE s.idx_scan = 0 AND NOT i.indisunique AND i.indisvalid AND NOT i.indisreplident AND NOT c.relispartition AND (c.relpages > 1 OR t.reltuples < 0)
            AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)
        ORDER BY c.relpages DESC, c.oid LIMIT 20
    )
    SELECT u.*, format('%I.%I', schemaname, indexrelname) AS quoted,
        extract(epoch FROM now() - d.stats_reset) / 86400 AS days, (SELECT count(*) FROM pg_stat_replication) AS replicas
    FROM unused AS u CROSS JOIN (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS d";

fn unused(row: &Row, is_standby: bool) -> Finding {
    let days = row.get("days").map(|_| float(row, "days"));
    let mut doubts: Vec<String> = Vec::new();
    match days {
        None => doubts.push("since when is counted is not known".to_owned()),
        Some(days) if days < SETTLED => doubts.push(format!("counted for {days:.0} days only")),
        Some(_) => {}
    }
    match whole(row, "replicas") {
        _ if is_standby => doubts.push("the primary counts apart".to_owned()),
        0 => {}
        n => doubts.push(format!("{n} replicas count apart")),
    }
    for (column, doubt) in [
        ("for_key", "a foreign key may need it when the other side is deleted from"),
        ("expression", "its expression has statistics that plans may use"),
        ("partial", "it is partial: what it is for may be rare"),
    ] {
        if row.is(column) {
            doubts.push(doubt.to_owned());
        }
    }
    let size = whole(row, "bytes");
    let is_sure = doubts.is_empty() && size >= LARGE;
    let doubts =
        if doubts.is_empty() { String::new() } else { format!("; but {}", doubts.join(", ")) };
    let evidence = format!("a candidate: no scan of {} was counted{doubts}", known(row));
    let name = format!("{}.{}", row.text("schemaname"), row.text("indexrelname"));
    let severity = if is_sure { Severity::Warning } else { Severity::Note };
    let sql = format!("DROP INDEX CONCURRENTLY {};", row.text("quoted"));
    Finding::new(severity, &name, evidence).fix(sql, DROP_BLOCKS)
}

/// `b` can go because of `a`: the same definition, or the first columns of it. Where either could go, the younger one does.
///
/// Expressions are compared as they are stored, less the place where they stood in their statement: printing them takes locks.
const DUPLICATES: &str = r"
    WITH x AS (
        SELECT i.indexrelid, i.indrelid, n.nspname, c.relname, c.relam,
            CASE WHEN t.reltuples >= 0 THEN c.relpages END AS relpages, i.indisunique AS uniq, NULLS_ALIKE AS nulls,
            i.indnatts = i.indnkeyatts AS plain, m.amname = 'btree' AS btree,
            array_to_string(i.indkey::int2[], ' ') || ' ' AS columns,
            array_to_string((i.indkey::int2[])[0:i.indnkeyatts - 1], ' ') || ' ' AS key,
            array_to_string(i.indclass::oid[], ' ') || ' ' AS classes, array_to_string(i.indcollation::oid[], ' ') || ' ' AS collations,
            array_to_string(i.indoption::int2[], ' ') || ' ' AS options,
            regexp_replace(coalesce(i.indexprs::text, ''), ':location -?\d+', '', 'g') AS expressions,
            regexp_replace(coalesce(i.indpred::text, ''), ':location -?\d+', '', 'g') AS predicate,
            i.indisreplident OR i.indisclustered OR c.relispartition
                OR EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid) AS stays
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
            JOIN pg_am AS m ON m.oid = c.relam JOIN pg_class AS t ON t.oid = i.indrelid
        WHERE i.indisvalid AND c.relkind = 'i' AND NOT i.indisexclusion AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
    ), pairs AS (
        SELECT DISTINCT ON (b.indexrelid) b.indexrelid, b.nspname, b.relname, b.relpages, a.relname AS other, a.columns = b.columns AS same
        FROM x AS b JOIN x AS a ON a.indrelid = b.indrelid AND a.indexrelid <> b.indexrelid AND a.relam = b.relam
            AND a.expressions = b.expressions AND a.predicate = b.predicate AND a.nulls = b.nulls
        WHERE NOT b.stays AND (
            (a.columns = b.columns AND a.key = b.key AND a.classes = b.classes AND a.collations = b.collations AND a.options = b.options
                AND (a.uniq OR NOT b.uniq)
                AND (a.stays OR (a.uniq AND NOT b.uniq) OR a.indexrelid < b.indexrelid))
            OR (b.btree AND b.plain AND a.plain AND NOT b.uniq AND a.columns <> b.columns AND b.expressions = ''
                AND starts_with(a.key, b.key) AND starts_with(a.classes, b.classes)
                AND starts_with(a.collations, b.collations) AND starts_with(a.options, b.options)))
        ORDER BY b.indexrelid, a.columns <> b.columns, a.indexrelid
    )
    SELECT nspname, relname, other, same, relpages::int8 * current_setting('block_size')::int8 AS bytes,
        format('%I.%I', nspname, relname) AS quoted, count(*) OVER () AS total
    FROM pairs ORDER BY relpages DESC NULLS LAST, indexrelid LIMIT 20";

fn duplicate(row: &Row) -> Finding {
    let other = row.text("other");
    let (severity, what) = if row.is("same") {
        (Severity::Warning, "has the same definition")
    } else {
        (Severity::Note, "begins with the same columns, and is larger")
    };
    let evidence = format!("`{other}` {what}: {} could go", known(row));
    let name = format!("{}.{}", row.text("nspname"), row.text("relname"));
    let sql = format!("DROP INDEX CONCURRENTLY {};", row.text("quoted"));
    Finding::new(severity, &name, evidence).fix(sql, DROP_BLOCKS)
}

/// The first columns of the index are those of the key, in any order; a partial index does not help.
const FOREIGN_KEYS: &str = "
    SELECT n.nspname, c.relname, k.conname, c.relkind = 'p' AS partitioned,
        CASE WHEN c.reltuples >= 0 AND c.relkind <> 'p' THEN c.relpages::int8 * current_setting('block_size')::int8 END AS bytes,
        format('%I.%I', n.nspname, c.relname) AS quoted,
        (SELECT string_agg(format('%I', a.attname), ', ' ORDER BY p.ord) FROM unnest(k.conkey) WITH ORDINALITY AS p(num, ord)
            JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = p.num) AS columns,
        count(*) OVER () AS total
    FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND NOT EXISTS (
        SELECT FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_am AS m ON m.oid = x.relam
        WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'
            AND i.indnkeyatts >= cardinality(k.conkey)
            AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
            AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] <@ k.conkey)
    ORDER BY c.relpages DESC, k.oid LIMIT 20";

fn foreign_key(row: &Row) -> Finding {
    let size = whole(row, "bytes");
    let severity = if size >= LARGE { Severity::Warning } else { Severity::Note };
    let evidence = format!(
        "no index begins with ({}): whoever deletes on the other side reads all {} of this table",
        row.text("columns"),
        known(row)
    );
    let name = format!("{}.{}.{}", row.text("nspname"), row.text("relname"), row.text("conname"));
    let (concurrently, blocks) = if row.is("partitioned") {
        ("", "everybody who writes to the table, until it is built")
    } else {
        (" CONCURRENTLY", "nobody; it waits for older transactions, and needs room")
    };
    let sql =
        format!("CREATE INDEX{concurrently} ON {} ({});", row.text("quoted"), row.text("columns"));
    Finding::new(severity, &name, evidence).fix(sql, blocks)
}

/// Returns the size of what a row is about. Before the first VACUUM or ANALYZE the catalogue knows none.
fn known(row: &Row) -> String {
    row.get("bytes").map_or("an unknown size".to_owned(), |_| bytes(whole(row, "bytes")))
}
