//! What lies in the database: broken pages, sequences that come to their end, indexes that are none, old extensions.

use anyhow::Context as _;

use super::session::{Row, Server};
use super::{Question, count};
use crate::health::{Check, Outcome, Reading};

pub(super) const QUESTIONS: &[Question] = &[
    Question { kind: "checksum-failures", sql: |_| CHECKSUMS.to_owned(), read: checksums },
    Question { kind: "sequences", sql: |_| SEQUENCES.to_owned(), read: sequences },
    Question {
        kind: "invalid-indexes",
        sql: |_| INDEXES.to_owned(),
        read: |check, _, rows| Ok(indexes(check, rows)),
    },
    Question {
        kind: "extensions",
        sql: |_| EXTENSIONS.to_owned(),
        read: |check, _, rows| Ok(extensions(check, rows)),
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

/// A column of type integer is full long before its sequence is; a cycling sequence is never full. What may not be read has
/// no value.
pub(crate) const SEQUENCES: &str = "
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
    ), used AS (
        SELECT l.*, has_sequence_privilege(l.seqrelid, 'SELECT, USAGE') AS seen, least(l.seqmax, l.most) AS top,
            greatest(l.seqmin, -l.most - 1) AS bottom,
            CASE WHEN has_sequence_privilege(l.seqrelid, 'SELECT, USAGE') THEN pg_sequence_last_value(l.seqrelid) END AS last
        FROM limits AS l
    ), judged AS (
        SELECT *, coalesce(CASE WHEN seqincrement > 0
            THEN 100.0 * (last::numeric - greatest(seqmin, 0)) / nullif(top::numeric - greatest(seqmin, 0), 0)
            ELSE 100.0 * (least(seqmax, 0) - last::numeric) / nullif(least(seqmax, 0)::numeric - bottom, 0) END, 0) AS percent
        FROM used
    )
    SELECT round(percent, 2) AS percent, last, seen, CASE WHEN seqincrement > 0 THEN top ELSE bottom END AS limit_,
        seqrelid::regclass AS sequence, format('%s.%s', rel::regclass, (SELECT attname FROM pg_attribute WHERE attrelid = rel AND attnum = col)) AS used_by,
        count(*) OVER () AS total, count(*) FILTER (WHERE NOT seen) OVER () AS hidden
    FROM judged ORDER BY percent DESC, seen LIMIT 10";

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
        let role = &server.role;
        let grant = if server.version.major() >= 14 {
            format!("GRANT pg_read_all_data TO \"{role}\", or SELECT on them")
        } else {
            format!("GRANT SELECT on them TO \"{role}\"")
        };
        let message = format!("role `{role}` may not see {hidden} of {total} sequences: {grant}");
        return Ok(Reading { outcome: Outcome::Unknown, message, ..reading });
    }
    Ok(reading)
}

/// One that is being built is not valid yet.
const INDEXES: &str = "
    SELECT i.indexrelid::regclass AS index, i.indrelid::regclass AS relation, i.indisunique OR i.indisprimary AS is_unique
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE NOT i.indisvalid AND c.relkind = 'i'
        AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid)
    ORDER BY 3 DESC, 1 LIMIT 50";

fn indexes(check: &Check, rows: &[Row]) -> Reading {
    #[expect(clippy::cast_precision_loss, reason = "there are fifty at most")]
    let number = rows.len() as f64;
    let line = |row: &Row| {
        let unique = if row.is("is_unique") { "unique " } else { "" };
        format!("{unique}index `{}` of `{}` is invalid", row.text("index"), row.text("relation"))
    };
    let Some(first) = rows.first() else {
        return check.judged(0.0, "every index is valid");
    };
    let others =
        if rows.len() > 1 { format!(", and {} more", rows.len() - 1) } else { String::new() };
    let reading = check.judged(number, format!("{}{others}", line(first)));
    // It does not keep out what it is there to keep out.
    let is_unique = if first.is("is_unique") { Outcome::Critical } else { Outcome::Ok };
    reading.at_least(is_unique).details(rows.iter().map(line))
}

const EXTENSIONS: &str = "
    SELECT e.extname, e.extversion, a.default_version
    FROM pg_extension AS e JOIN pg_available_extensions AS a ON a.name = e.extname
    WHERE a.default_version <> e.extversion ORDER BY 1 LIMIT 50";

fn extensions(check: &Check, rows: &[Row]) -> Reading {
    #[expect(clippy::cast_precision_loss, reason = "there are fifty at most")]
    let number = rows.len() as f64;
    let line = |row: &Row| {
        let (name, is) = (row.text("extname"), row.text("extversion"));
        format!("`{name}` is {is}, its files are of {}", row.text("default_version"))
    };
    let message = match rows.first() {
        None => "every extension is of the version of its files".to_owned(),
        Some(first) => format!("{}: ALTER EXTENSION … UPDATE", line(first)),
    };
    check.judged(number, message).details(rows.iter().map(line))
}
