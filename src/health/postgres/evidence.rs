//! What a server can tell of itself at the start of an incident: its views as they are, one row a line.
//!
//! Nothing is judged here. Each view is asked for by itself, with the limits of any other question, so that a server that
//! struggles loses no more than what it cannot answer.

use anyhow::Context as _;
use serde_json::Value as Json;

use super::literals::without_literals;
use super::session::{self, Session};
use crate::db::Target;
use crate::secret::redact;
use crate::stop::Stop;

/// How long one view may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// A view to be kept.
struct View {
    name: &'static str,
    /// The majors that have it.
    majors: std::ops::RangeInclusive<u32>,
    sql: &'static str,
}

const EVER: std::ops::RangeInclusive<u32> = 0..=u32::MAX;

/// In the order of their worth: the first may be all that is answered.
const VIEWS: &[View] = &[
    View { name: "activity", majors: EVER, sql: "SELECT * FROM pg_stat_activity ORDER BY xact_start LIMIT 2000" },
    View {
        name: "blocked",
        majors: EVER,
        sql: "SELECT pid, pg_blocking_pids(pid) AS blocked_by, usename, application_name, state, xact_start, query
            FROM pg_stat_activity WHERE wait_event_type = 'Lock' LIMIT 500",
    },
    View {
        name: "locks",
        majors: EVER,
        sql: "SELECT l.*, c.relname FROM pg_locks AS l LEFT JOIN pg_class AS c
            ON c.oid = l.relation AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            ORDER BY l.granted, l.pid LIMIT 5000",
    },
    View {
        name: "server",
        majors: EVER,
        sql: "SELECT version(), pg_postmaster_start_time() AS started_at, pg_conf_load_time() AS configured_at,
            pg_is_in_recovery() AS is_standby, clock_timestamp() AS now",
    },
    View { name: "replication", majors: EVER, sql: "SELECT * FROM pg_stat_replication LIMIT 200" },
    View { name: "receiver", majors: EVER, sql: "SELECT * FROM pg_stat_wal_receiver" },
    View { name: "slots", majors: EVER, sql: "SELECT * FROM pg_replication_slots LIMIT 200" },
    View { name: "archiver", majors: EVER, sql: "SELECT * FROM pg_stat_archiver" },
    View { name: "prepared", majors: EVER, sql: "SELECT * FROM pg_prepared_xacts LIMIT 200" },
    View { name: "databases", majors: EVER, sql: "SELECT s.*, age(d.datfrozenxid), mxid_age(d.datminmxid) FROM pg_stat_database AS s LEFT JOIN pg_database AS d ON d.oid = s.datid LIMIT 500" },
    View {
        name: "settings",
        majors: EVER,
        sql: "SELECT name, setting, unit, source, sourcefile, sourceline, pending_restart FROM pg_settings
            WHERE source NOT IN ('default', 'override') OR pending_restart ORDER BY name",
    },
    View { name: "vacuum", majors: EVER, sql: "SELECT * FROM pg_stat_progress_vacuum LIMIT 200" },
    View { name: "index_builds", majors: EVER, sql: "SELECT * FROM pg_stat_progress_create_index LIMIT 200" },
    View { name: "copies", majors: 14..=u32::MAX, sql: "SELECT * FROM pg_stat_progress_copy LIMIT 200" },
    View { name: "bgwriter", majors: EVER, sql: "SELECT * FROM pg_stat_bgwriter" },
    View { name: "checkpointer", majors: 17..=u32::MAX, sql: "SELECT * FROM pg_stat_checkpointer" },
    View { name: "wal", majors: 14..=u32::MAX, sql: "SELECT * FROM pg_stat_wal" },
    View { name: "io", majors: 16..=u32::MAX, sql: "SELECT * FROM pg_stat_io WHERE reads > 0 OR writes > 0 OR extends > 0" },
    View {
        name: "tables",
        majors: EVER,
        sql: "SELECT s.*, c.relpages, c.reltuples, age(c.relfrozenxid), c.reloptions FROM pg_stat_user_tables AS s
            JOIN pg_class AS c ON c.oid = s.relid ORDER BY c.relpages DESC LIMIT 500",
    },
    View {
        name: "indexes",
        majors: EVER,
        sql: "SELECT s.*, c.relpages, i.indisvalid, i.indisunique FROM pg_stat_user_indexes AS s
            JOIN pg_class AS c ON c.oid = s.indexrelid JOIN pg_index AS i ON i.indexrelid = s.indexrelid
            ORDER BY c.relpages DESC LIMIT 500",
    },
    View { name: "extensions", majors: EVER, sql: "SELECT extname, extversion, extnamespace::regnamespace FROM pg_extension ORDER BY 1" },
];

/// The time of execution has had another name before `pg_stat_statements` 1.8.
const STATEMENTS: &str = "SELECT * FROM SCHEMA.pg_stat_statements AS s
    ORDER BY coalesce(to_jsonb(s) ->> 'total_exec_time', to_jsonb(s) ->> 'total_time')::float8 DESC LIMIT 100";

/// The end of the log, where the server writes one itself and the role may read it.
const LOG: &str = "SELECT regexp_split_to_table(pg_read_file(pg_current_logfile(),
        greatest(0, (pg_stat_file(pg_current_logfile())).size - 262144), 262144), E'\\n') AS line";

/// Asks for everything, and gives each piece by its name, or why there is none.
pub(crate) fn gather(
    target: &Target,
    with_literals: bool,
    stop: &Stop,
    give: &dyn Fn(&str, anyhow::Result<String>),
) -> anyhow::Result<()> {
    let (mut session, server) = session::open(&target.impatient(PATIENCE), PATIENCE, stop)?;
    for view in VIEWS.iter().filter(|view| view.majors.contains(&server.version.major())) {
        stop.check()?;
        give(view.name, lines(session.about(view.name, PATIENCE), view.sql, with_literals));
    }
    give("statements", statements(session.about("statements", PATIENCE), with_literals));
    let log = lines(session.about("log", PATIENCE), LOG, true).and_then(|text| {
        anyhow::ensure!(!text.is_empty(), "the server writes no log file of its own");
        Ok(if with_literals { text } else { without_data(&text) })
    });
    give("log", log);
    Ok(())
}

fn statements(session: &mut Session, with_literals: bool) -> anyhow::Result<String> {
    let sql = "SELECT quote_ident(n.nspname) AS schema FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace \
        WHERE e.extname = 'pg_stat_statements'";
    let rows = session.rows(sql)?;
    let row = rows
        .first()
        .context("the extension pg_stat_statements is not installed in this database")?;
    lines(session, &STATEMENTS.replace("SCHEMA", row.text("schema")), with_literals)
}

/// Runs a statement and returns its rows as JSON, one a line.
fn lines(session: &mut Session, sql: &str, with_literals: bool) -> anyhow::Result<String> {
    let rows = session.rows(&format!("SELECT row_to_json(r) AS row FROM ({sql}) AS r"))?;
    let mut text = String::new();
    for row in rows {
        let mut row: Json = serde_json::from_str(row.text("row")).context("a row is not JSON")?;
        clean(&mut row, with_literals);
        text.push_str(&format!("{row}\n"));
    }
    Ok(text)
}

/// Takes secrets out of all texts of a row, and literals out of its query.
fn clean(row: &mut Json, with_literals: bool) {
    let Some(fields) = row.as_object_mut() else { return };
    for (name, value) in fields {
        if let Json::String(text) = value {
            let kept = if name == "query" && !with_literals {
                without_literals(text)
            } else {
                text.clone()
            };
            *text = redact(&kept);
        }
    }
}

/// Leaves of the lines of a log what is no data of somebody: no statements, no details, nothing quoted behind a colon.
fn without_data(log: &str) -> String {
    let mut kept = String::new();
    for line in log.lines() {
        let row: Json = serde_json::from_str(line).unwrap_or_default();
        let text = row["line"].as_str().unwrap_or_default();
        let is_news = ["ERROR:", "FATAL:", "PANIC:", "WARNING:", "LOG:"]
            .iter()
            .any(|level| text.contains(level));
        // LOG has statements as well, where they are logged.
        let has_statement =
            ["statement:", "execute ", "parameters:"].iter().any(|word| text.contains(word));
        if is_news && !has_statement && !text.starts_with('\t') {
            let end = text.find(": \"").map_or(text.len(), |at| at + 2);
            kept.push_str(&format!("{}\n", serde_json::json!({ "line": &text[..end] })));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_is_left_in_queries_and_logs() {
        let mut row = serde_json::json!({ "query": "SELECT 'hush'", "setting": "host=a password=geheim", "pid": 7 });
        clean(&mut row, false);
        assert_eq!(
            row,
            serde_json::json!({ "query": "SELECT ?", "setting": "host=a password=***", "pid": 7 })
        );
        let mut row = serde_json::json!({ "query": "SELECT 'hush'" });
        clean(&mut row, true);
        assert_eq!(row["query"], "SELECT 'hush'");

        let lines = [
            "2026-11-21 02:15:00 UTC [7] ERROR:  invalid input syntax for type integer: \"hush\"",
            "2026-11-21 02:15:00 UTC [7] STATEMENT:  SELECT 'hush'",
            "\thush' FROM t",
            "2026-11-21 02:15:00 UTC [7] LOG:  duration: 1.0 ms  statement: SELECT 'hush'",
            "2026-11-21 02:15:00 UTC [7] ERROR:  relation \"members\" does not exist at character 15",
        ];
        let log: String =
            lines.iter().map(|line| format!("{}\n", serde_json::json!({ "line": line }))).collect();
        let kept = without_data(&log);
        assert!(
            !kept.contains("hush") && kept.lines().count() == 2 && kept.contains("members"),
            "{kept}"
        );
    }
}
