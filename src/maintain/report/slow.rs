//! The statements that took most of the time, by `pg_stat_statements`, and what changed since the last report.

use crate::clock::Moment;
use crate::db::{Error, quote_identifier};
use crate::health::postgres::Row;
use crate::health::postgres::literals::without_literals;

use super::{Asking, Earlier, Finding, Severity, Topic, Wish, float, whole};

/// What is known of statements; nothing is listed where that is not known.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Slow {
    /// Since when they are counted, as the server has it.
    pub(crate) counted_since: Option<String>,
    /// How many statements were thrown away because there were too many different ones.
    pub(crate) thrown_away: Option<u64>,
    pub(crate) total: u64,
    pub(crate) listed: Vec<Statement>,
}

/// One statement, whatever its literals are. Times are in milliseconds.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Statement {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) calls: u64,
    pub(crate) rows: u64,
    pub(crate) total_ms: f64,
    pub(crate) mean_ms: f64,
    pub(crate) deviation_ms: f64,
    /// Its part of the time of all statements of the database, in percent.
    pub(crate) share: f64,
    pub(crate) since: Option<Since>,
}

/// What came to it since the last report that knew it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Since {
    pub(crate) at: Moment,
    pub(crate) calls: u64,
    pub(crate) total_ms: f64,
}

/// From these on a statement is worth a look: its part in percent, and its time for one call in milliseconds.
const SHARE: f64 = 20.0;
const MEAN: f64 = 100.0;
/// Longer statements are cut.
const LONGEST: usize = 400;

const EXTENSION: &str = "
    SELECT n.nspname AS schema, v.attname AS name FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
        JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname IN ('pg_stat_statements', 'pg_stat_statements_info')
        JOIN pg_attribute AS v ON v.attrelid = c.oid AND v.attnum > 0
    WHERE e.extname = 'pg_stat_statements'";

pub(super) fn slow(asking: &mut Asking<'_>, wish: Wish<'_>) -> Result<Slow, Error> {
    const NAME: &str = "slow-statement";
    let Some(columns) = asking.rows(NAME, EXTENSION)? else { return Ok(Slow::default()) };
    let Some(first) = columns.first() else {
        let evidence = "needs the extension pg_stat_statements in this database".to_owned();
        let finding = Finding::new(Severity::Unknown, "pg_stat_statements", evidence).fix(
            "CREATE EXTENSION pg_stat_statements;".to_owned(),
            "nobody; shared_preload_libraries must have it, too",
        );
        asking.add(Topic::of(NAME, vec![finding]));
        return Ok(Slow::default());
    };
    let schema = quote_identifier(first.text("schema"));
    let has = |name: &str| columns.iter().any(|row| row.text("name") == name);
    // Before version 1.8 of the extension it had another name, which a server that was upgraded may still have.
    let kind = if has("total_exec_time") { "exec_" } else { "" };
    let sql = format!(
        "SELECT queryid, left(query, 2000) AS query, calls, rows, total_{kind}time AS total_ms, mean_{kind}time AS mean_ms, \
             stddev_{kind}time AS deviation_ms, \
             100 * total_{kind}time / nullif(sum(total_{kind}time) OVER (), 0) AS share, count(*) OVER () AS total, \
             count(*) FILTER (WHERE queryid IS NULL) OVER () AS hidden \
         FROM {schema}.pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         ORDER BY queryid IS NULL, total_{kind}time DESC LIMIT 20"
    );
    let Some(rows) = asking.rows(NAME, &sql)? else { return Ok(Slow::default()) };
    let hidden = rows.first().map_or(0, |row| whole(row, "hidden"));
    let known = rows.iter().filter(|row| row.get("queryid").is_some());
    let listed: Vec<Statement> = known.map(|row| statement(row, wish.earlier)).collect();
    let mut findings: Vec<Finding> = listed.iter().filter_map(finding).collect();
    if hidden > 0 {
        let evidence = format!("{hidden} statements of others {}", asking.needs_monitor());
        findings.push(Finding::new(Severity::Unknown, "statements", evidence));
    }
    asking.add(Topic::of(NAME, findings));
    let mut slow = Slow {
        total: rows.first().map_or(0, |row| whole(row, "total")),
        listed,
        ..Slow::default()
    };
    if has("dealloc") {
        let sql = format!("SELECT dealloc, stats_reset FROM {schema}.pg_stat_statements_info");
        let rows = asking.rows(NAME, &sql)?.unwrap_or_default();
        if let Some(row) = rows.first() {
            slow.counted_since = row.get("stats_reset").map(str::to_owned);
            slow.thrown_away = Some(whole(row, "dealloc"));
        }
    }
    Ok(slow)
}

fn statement(row: &Row, earlier: &Earlier) -> Statement {
    let id = row.text("queryid").to_owned();
    let text: String = without_literals(row.text("query")).chars().take(LONGEST).collect();
    let (calls, total_ms) = (whole(row, "calls"), float(row, "total_ms"));
    let before = |what: &str| earlier.last(&format!("statements.{id}.{what}"));
    let since = before("calls").zip(before("total_ms"));
    let since = since.and_then(|((at, before_calls), (_, before_ms))| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was a count"
        )]
        let before_calls = before_calls as u64;
        // The counters were set back since.
        let calls = calls.checked_sub(before_calls)?;
        (total_ms >= before_ms).then_some(Since { at, calls, total_ms: total_ms - before_ms })
    });
    Statement {
        id,
        text,
        calls,
        rows: whole(row, "rows"),
        total_ms,
        mean_ms: float(row, "mean_ms"),
        deviation_ms: float(row, "deviation_ms"),
        share: float(row, "share"),
        since,
    }
}

fn finding(statement: &Statement) -> Option<Finding> {
    let Statement { share, mean_ms, calls, .. } = statement;
    if *share < SHARE || *mean_ms < MEAN {
        return None;
    }
    let evidence = format!(
        "{share:.0} % of the time, {mean_ms:.0} ms each, {calls} times: {}",
        statement.text
    );
    Some(Finding::new(Severity::Warning, &statement.id, evidence))
}

impl Slow {
    /// Returns the counters, for the next report.
    pub(super) fn notes(&self) -> serde_json::Map<String, serde_json::Value> {
        let note = |statement: &Statement| {
            let counters =
                serde_json::json!({ "calls": statement.calls, "total_ms": statement.total_ms });
            (statement.id.clone(), counters)
        };
        self.listed.iter().map(note).collect()
    }
}
