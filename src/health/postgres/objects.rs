//! What lies in the database: broken pages, sequences that come to their end, indexes that are none, old extensions.

use anyhow::Context as _;

use super::session::{Row, Server};
use super::{Question, count};
use crate::health::{Check, Outcome, Reading};

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        kind: "checksum-failures",
        ask: |session, _| session.rows(CHECKSUMS),
        read: checksums,
    },
    Question {
        kind: "sequences",
        ask: |session, _| {
            every_sequence(|sql| session.rows(sql).map(Some)).map(Option::unwrap_or_default)
        },
        read: sequences,
    },
    Question {
        kind: "invalid-indexes",
        ask: |session, _| session.rows(INDEXES),
        read: |check, _, rows| indexes(check, rows),
    },
    Question {
        kind: "extensions",
        ask: |session, _| session.rows(EXTENSIONS),
        read: |check, _, rows| extensions(check, rows),
    },
];

/// Also of the relations that all databases share.
const CHECKSUMS: &str = "
    SELECT coalesce(sum(checksum_failures), 0) AS failures, max(checksum_last_failure) AS last,
        string_agg(format('%s (%s)', coalesce(datname, 'shared relations'), checksum_failures), ', ')
            FILTER (WHERE checksum_failures > 0) AS wher,
        current_setting('data_checksums') AS checksums
    FROM pg_stat_database";

fn checksums(check: &Check, _: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let row = rows.first().context("there is no answer")?;
    let failures = row.number("failures")?;
    let message = match (failures > 0.0, row.text("checksums")) {
        (true, _) => format!(
            "{} pages with a wrong checksum were read, the last at {}, in {}",
            count(failures),
            row.text("last"),
            row.text("wher")
        ),
        (false, "on") => "no page with a wrong checksum was read".to_owned(),
        (false, _) => "the cluster has no checksums: damage is not noticed".to_owned(),
    };
    Ok(check.judged(failures, message))
}

/// So many sequences are read in one transaction: each is locked until its end, and the server's room for locks is everybody's.
const AT_ONCE: u32 = 1000;
/// So many are named, those that are nearest to their end.
const NAMED: usize = 10;

/// Asks for all sequences, some after the others, and returns those that are nearest to their end; nothing if `rows` has none.
pub(crate) fn every_sequence<E>(
    mut rows: impl FnMut(&str) -> Result<Option<Vec<Row>>, E>,
) -> Result<Option<Vec<Row>>, E> {
    let mut nearest: Vec<Row> = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let Some(mut found) = rows(&sequences_sql(&after))? else { return Ok(None) };
        let last = found.first().filter(|row| row.is("more"));
        let last = last.map(|row| row.text("last_one").to_owned());
        nearest.append(&mut found);
        let percent = |row: &Row| row.number("percent").unwrap_or(f64::INFINITY);
        nearest.sort_by(|a, b| percent(b).total_cmp(&percent(a)));
        nearest.truncate(NAMED);
        let Some(last) = last else { return Ok(Some(nearest)) };
        after = last;
    }
}

/// A column of type integer is full long before its sequence is; a cycling sequence is never full. What may not be read has
/// no value. Asked are those behind a number; `total` and `hidden` are of all.
fn sequences_sql(after: &str) -> String {
    format!("
    WITH uses AS (
        SELECT refobjid AS rel, refobjsubid AS col, objid AS seq FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i') AND refobjsubid > 0
        UNION
        SELECT a.adrelid, a.adnum, d.refobjid FROM pg_depend AS d JOIN pg_attrdef AS a ON a.oid = d.objid
        WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
    ), limits AS (
        SELECT s.seqrelid, s.seqincrement, s.seqstart, s.seqmin, s.seqmax, u.rel, u.col,
            CASE t.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 ELSE 9223372036854775807 END AS most
        FROM pg_sequence AS s LEFT JOIN uses AS u ON u.seq = s.seqrelid
            LEFT JOIN pg_attribute AS t ON t.attrelid = u.rel AND t.attnum = u.col
        WHERE NOT s.seqcycle AND NOT pg_is_other_temp_schema((SELECT relnamespace FROM pg_class WHERE oid = s.seqrelid))
    ), asked AS (
        SELECT *, has_sequence_privilege(seqrelid, 'SELECT, USAGE') AS seen, least(seqmax, most) AS top, greatest(seqmin, -most - 1) AS bottom
        FROM limits WHERE seqrelid > {after} ORDER BY seqrelid FETCH FIRST {AT_ONCE} ROWS WITH TIES
    ), used AS (
        SELECT *, CASE WHEN seen THEN pg_sequence_last_value(seqrelid) END AS last FROM asked
    ), judged AS (
        SELECT *, coalesce(CASE WHEN seqincrement > 0
            THEN 100.0 * (last::numeric - greatest(seqmin, 0)) / nullif(top::numeric - greatest(seqmin, 0), 0)
            ELSE 100.0 * (least(seqmax, 0) - last::numeric) / nullif(least(seqmax, 0)::numeric - bottom, 0) END, 0) AS percent
        FROM used
    )
    SELECT round(percent, 2) AS percent, last, seen, CASE WHEN seqincrement > 0 THEN top ELSE bottom END AS limit_,
        seqrelid::regclass AS sequence, format('%s.%s', rel::regclass, (SELECT attname FROM pg_attribute WHERE attrelid = rel AND attnum = col)) AS used_by,
        (SELECT count(DISTINCT seqrelid) FROM limits) AS total,
        (SELECT count(DISTINCT seqrelid) FROM limits WHERE NOT has_sequence_privilege(seqrelid, 'SELECT, USAGE')) AS hidden,
        max(seqrelid) OVER () AS last_one, count(*) OVER () >= {AT_ONCE} AS more
    FROM judged ORDER BY percent DESC, seen LIMIT {NAMED}")
}

fn sequences(check: &Check, server: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let Some(worst) = rows.first() else {
        return Ok(check.judged(0.0, "there is no sequence"));
    };
    let line = |row: &Row| {
        let used_by = match row.text("used_by") {
            "." => String::new(),
            column => format!(", for {column},"),
        };
        let (last, limit) = (row.text("last"), row.text("limit_"));
        format!(
            "`{}`{used_by} is at {last} of {limit} ({} %)",
            row.text("sequence"),
            row.text("percent")
        )
    };
    let (percent, total, hidden) =
        (worst.number("percent")?, worst.number("total")?, worst.number("hidden")?);
    let message = if worst.get("last").is_some() {
        line(worst)
    } else {
        format!("none of {total} sequences has been used")
    };
    let reading = check.judged(percent, message);
    let near = rows.iter().filter(|row| row.number("percent").is_ok_and(|percent| percent > 50.0));
    let reading = reading.details(near.map(line));
    if hidden > 0.0 && reading.outcome < Outcome::Unknown {
        let (role, grantee) = (&server.role, crate::db::quote_identifier(&server.role));
        let grant = if server.version.major() >= 14 {
            format!("GRANT pg_read_all_data TO {grantee}, or SELECT on them")
        } else {
            format!("GRANT SELECT on them TO {grantee}")
        };
        let message =
            format!("role `{role}` may not see {hidden} of {total} sequences: needs {grant}");
        return Ok(Reading { outcome: Outcome::Unknown, message, ..reading });
    }
    Ok(reading)
}

/// One that is being built is not valid yet. REINDEX makes all indexes of a table first, and those of its long values, and then
/// builds one after the other, so none of a table counts while something is built for it.
const INDEXES: &str = "
    WITH tables AS (
        SELECT t.oid AS relation, t.oid AS owner FROM pg_class AS t WHERE t.relkind IN ('r', 'm')
        UNION ALL SELECT t.reltoastrelid, t.oid FROM pg_class AS t WHERE t.reltoastrelid <> 0
    ), building AS (
        SELECT t.owner FROM pg_stat_progress_create_index AS p JOIN tables AS t ON t.relation = p.relid
        WHERE p.datname = current_database()
    )
    SELECT i.indexrelid::regclass AS index, i.indrelid::regclass AS relation, i.indisunique AS is_unique, count(*) OVER () AS total
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid AND c.relkind = 'i'
        AND NOT EXISTS (SELECT FROM tables AS t JOIN building AS b ON b.owner = t.owner WHERE t.relation = i.indrelid)
    ORDER BY 3 DESC, 1 LIMIT 50";

fn indexes(check: &Check, rows: &[Row]) -> anyhow::Result<Reading> {
    let line = |row: &Row| {
        let unique = if row.is("is_unique") { "unique " } else { "" };
        format!("{unique}index `{}` of `{}` is invalid", row.text("index"), row.text("relation"))
    };
    let Some(first) = rows.first() else {
        return Ok(check.judged(0.0, "every index is valid"));
    };
    let total = first.number("total")?;
    let others = if total > 1.0 { format!(", and {} more", total - 1.0) } else { String::new() };
    let reading = check.judged(total, format!("{}{others}", line(first)));
    // It does not keep out what it is there to keep out.
    let is_unique = if first.is("is_unique") { Outcome::Critical } else { Outcome::Ok };
    Ok(reading.at_least(is_unique).details(rows.iter().map(line)))
}

const EXTENSIONS: &str = "
    SELECT e.extname, e.extversion, a.default_version, count(*) OVER () AS total
    FROM pg_extension AS e LEFT JOIN pg_available_extensions AS a ON a.name = e.extname
    WHERE a.default_version IS DISTINCT FROM e.extversion ORDER BY 1 LIMIT 50";

fn extensions(check: &Check, rows: &[Row]) -> anyhow::Result<Reading> {
    let line = |row: &Row| {
        let (name, is) = (row.text("extname"), row.text("extversion"));
        match row.get("default_version") {
            Some(version) => {
                format!("`{name}` is {is}, its files are of {version}: ALTER EXTENSION … UPDATE")
            }
            None => format!("`{name}` is {is}, and its files are missing: install its package"),
        }
    };
    let Some(first) = rows.first() else {
        return Ok(check.judged(0.0, "every extension is of the version of its files"));
    };
    Ok(check.judged(first.number("total")?, line(first)).details(rows.iter().map(line)))
}
