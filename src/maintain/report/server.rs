//! Sequences near their end, settings worth a look, how much comes from the cache, and how many connections are left.

use crate::db::Error;
use crate::health::postgres::{Row, every_sequence};

use super::{Asking, Finding, Severity, Topic, float, whole};

pub(super) fn topics(asking: &mut Asking<'_>) -> Result<(), Error> {
    sequences(asking)?;
    asking.findings("setting", SETTINGS, setting)?;
    if let Some(rows) = asking.rows("cache-hit", CACHE)? {
        asking.add(Topic::of("cache-hit", rows.iter().filter_map(cache).collect()));
    }
    connections(asking)
}

/// The health check asks the same: a column of type integer is full long before its sequence is.
fn sequences(asking: &mut Asking<'_>) -> Result<(), Error> {
    let Some(rows) = every_sequence(|sql| asking.rows("sequence", sql))? else { return Ok(()) };
    let mut findings: Vec<Finding> = rows.iter().filter_map(sequence).collect();
    let hidden = rows.first().map_or(0, |row| whole(row, "hidden"));
    if hidden > 0 {
        let role = crate::db::quote_identifier(&asking.server.role);
        let evidence = format!(
            "{hidden} of {} may not be seen: needs GRANT pg_read_all_data TO {role}, or SELECT on them",
            whole(&rows[0], "total")
        );
        findings.push(Finding::new(Severity::Unknown, "sequences", evidence));
    }
    asking.add(Topic::of("sequence", findings));
    Ok(())
}

fn sequence(row: &Row) -> Option<Finding> {
    let percent = float(row, "percent");
    let severity = match percent {
        90.0.. => Severity::Critical,
        75.0.. => Severity::Warning,
        _ => return None,
    };
    let (sequence, used_by) = (row.text("sequence"), row.text("used_by"));
    let column = Some(used_by).filter(|used_by| *used_by != ".");
    let for_column = column.map_or(String::new(), |column| format!(", for {column},"));
    let (last, limit) = (row.text("last"), row.text("limit_"));
    let evidence = format!("it{for_column} is at {last} of {limit} ({percent} %)");
    let finding = Finding::new(severity, sequence, evidence);
    // How the column is to be widened depends on who else has its values: only a person knows.
    Some(match (limit, column) {
        ("9223372036854775807" | "-9223372036854775808", _) => finding,
        (_, None) => finding.fix(
            format!("-- ALTER SEQUENCE {sequence} NO MAXVALUE NO MINVALUE: it serves no column, and the limit is its own"),
            "nobody for longer than a moment",
        ),
        _ => finding.fix(
            format!("-- make the column and the sequence {sequence} bigint, without a limit of its own"),
            "everybody who reads or writes the table, while ALTER COLUMN … TYPE writes it anew; columns that refer to it as well",
        ),
    })
}

/// What is on hold for nobody's good, and what makes a server lose data. A limit of time is a note: not everybody wants one.
const SETTINGS: &str = "
    SELECT s.name, s.setting, w.severity, w.why, w.advice, s.context
    FROM pg_settings AS s JOIN (VALUES
        ('autovacuum', 'off', 'warning', 'nothing is vacuumed or analysed by itself', 'on'),
        ('track_counts', 'off', 'warning', 'autovacuum does not work without it', 'on'),
        ('fsync', 'off', 'critical', 'a crash of the machine destroys the database', 'on'),
        ('full_page_writes', 'off', 'critical', 'a crash of the machine can destroy pages', 'on'),
        ('zero_damaged_pages', 'on', 'critical', 'damaged pages are emptied silently', 'off'),
        ('ignore_checksum_failure', 'on', 'critical', 'damage is passed over', 'off'),
        ('enable_indexscan', 'off', 'warning', 'indexes are not used', 'on'),
        ('idle_in_transaction_session_timeout', '0', 'note', 'a forgotten transaction holds VACUUM back for ever', '30min'),
        ('lock_timeout', '0', 'note', 'a migration that waits makes everybody behind it wait', NULL),
        ('wal_compression', 'off', 'note', 'whole pages go into the WAL as they are; lz4 takes a third of an index away, if all replicas were built with it', NULL),
        ('track_io_timing', 'off', 'note', 'it is not measured how long reads take', 'on'),
        ('random_page_cost', '4', 'note', 'the default is for turning disks; on SSDs plans are better with 1.1', '1.1'),
        ('shared_buffers', '16384', 'note', 'the default of 128 MiB: a quarter of the memory is usual', NULL)
    ) AS w(name, bad, severity, why, advice) ON w.name = s.name AND w.bad = s.setting
    UNION ALL
    SELECT 'work_mem', pg_size_pretty(w.setting::int8 * 1024), 'note', format('with %s connections it may take %s, and more than once each',
        m.setting, pg_size_pretty(w.setting::int8 * 1024 * m.setting::int8)), NULL, w.context
    FROM pg_settings AS w, pg_settings AS m, pg_settings AS b
    WHERE w.name = 'work_mem' AND m.name = 'max_connections' AND b.name = 'shared_buffers'
        AND w.setting::int8 * 1024 * m.setting::int8 > 4 * b.setting::int8 * current_setting('block_size')::int8
        AND w.setting::int8 > 4096
    ORDER BY 3, 1";

fn setting(row: &Row) -> Finding {
    let severity = match row.text("severity") {
        "critical" => Severity::Critical,
        "warning" => Severity::Warning,
        _ => Severity::Note,
    };
    let name = row.text("name");
    let evidence = format!("{}: {}", row.text("setting"), row.text("why"));
    let finding = Finding::new(severity, name, evidence);
    let Some(advice) = row.get("advice") else { return finding };
    let (then, blocks) = if row.text("context") == "postmaster" {
        ("-- and start the server anew", "everybody, while the server starts")
    } else {
        ("SELECT pg_reload_conf();", "nobody")
    };
    finding.fix(format!("ALTER SYSTEM SET {name} = '{advice}'; {then}"), blocks)
}

const CACHE: &str = "
    SELECT blks_hit + blks_read AS blocks, round(100.0 * blks_hit / nullif(blks_hit + blks_read, 0), 2) AS percent, stats_reset AS since
    FROM pg_stat_database WHERE datname = current_database()";

/// With fewer pages than these the share says nothing.
const MANY_PAGES: f64 = 100_000.0;

fn cache(row: &Row) -> Option<Finding> {
    let (blocks, percent) = (float(row, "blocks"), float(row, "percent"));
    if blocks < MANY_PAGES || percent >= 95.0 {
        return None;
    }
    let severity = if percent < 80.0 { Severity::Warning } else { Severity::Note };
    let since = row.get("since").unwrap_or("the beginning");
    let evidence =
        format!("{percent} % of the pages came from the server's own cache since {since}");
    Some(Finding::new(severity, "shared_buffers", evidence))
}

/// How many there are is seen by everybody; what they do is not.
const CONNECTIONS: &str = "
    SELECT (SELECT sum(numbackends) FROM pg_stat_database) AS used,
        current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4 AS most,
        (SELECT count(*) FROM pg_stat_activity WHERE state = 'active') AS active,
        (SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%') AS waiting";

fn connections(asking: &mut Asking<'_>) -> Result<(), Error> {
    let Some(rows) = asking.rows("connections", CONNECTIONS)? else { return Ok(()) };
    let may_monitor = asking.server.may_monitor;
    let needs = asking.needs_monitor();
    let found = rows.iter().flat_map(|row| {
        let (used, most) = (float(row, "used"), float(row, "most"));
        let percent = 100.0 * used / most.max(1.0);
        let severity = match percent {
            95.0.. => Some(Severity::Critical),
            80.0.. => Some(Severity::Warning),
            _ => None,
        };
        let states = if may_monitor {
            format!(
                "; {} active, {} idle in a transaction",
                row.text("active"),
                row.text("waiting")
            )
        } else {
            String::new()
        };
        let full = severity.map(|severity| {
            let evidence = format!("{used} of {most} are used ({percent:.0} %){states}");
            Finding::new(severity, "max_connections", evidence)
        });
        let unknown = (!may_monitor)
            .then(|| Finding::new(Severity::Unknown, "sessions", format!("what they do {needs}")));
        full.into_iter().chain(unknown)
    });
    let found = found.collect();
    asking.add(Topic::of("connections", found));
    Ok(())
}
