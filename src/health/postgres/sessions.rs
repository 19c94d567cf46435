//! What sessions do: how many there are, who is idle in a transaction, what runs long, who waits for whom.

use anyhow::Context as _;

use super::literals::without_literals;
use super::session::{Row, Server};
use super::{Question, span};
use crate::health::{Check, Outcome, Reading, Unit};

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        kind: "connections",
        ask: |session, _| session.rows(CONNECTIONS),
        read: connections,
    },
    Question { kind: "idle-in-transaction", ask: |session, _| session.rows(IDLE), read: idle },
    Question { kind: "longest-query", ask: |session, _| session.rows(LONGEST), read: longest },
    Question {
        kind: "lock-waits",
        ask: |session, server| session.rows(&lock_waits_sql(server)),
        read: lock_waits,
    },
];

/// `reserved_connections` is there from 16 on.
const CONNECTIONS: &str = "
    WITH used AS (SELECT usename, application_name, state FROM pg_stat_activity WHERE backend_type = 'client backend')
    SELECT (SELECT count(*) FROM used) AS used,
        current_setting('max_connections')::int AS most,
        current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,
        (SELECT string_agg(line, E'\\n') FROM (
            SELECT format('%s of %s by %s, %s', count(*), coalesce(usename, '?'), coalesce(nullif(application_name, ''), '?'), coalesce(state, '?')) AS line
            FROM used GROUP BY usename, application_name, state ORDER BY count(*) DESC LIMIT 5
        ) AS most_of_them) AS most_of_them";

fn connections(check: &Check, _: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let row = rows.first().context("there is no answer")?;
    let (used, most, reserved) =
        (row.number("used")?, row.number("most")?, row.number("reserved")?);
    let room = (most - reserved).max(1.0);
    let percent = 100.0 * used / room;
    let message = format!("{used} of {room} connections are used ({percent:.0} %)");
    let reading = check.judged(percent, message).more("used", used, Unit::Count).more(
        "room",
        room,
        Unit::Count,
    );
    let lines = row.text("most_of_them").lines().map(str::to_owned);
    Ok(if reading.outcome == Outcome::Ok { reading } else { reading.details(lines) })
}

/// What a backup of opsctl holds is seen by `xmin-horizon`; that it takes long is no news.
const IDLE: &str = "
    SELECT pid, usename, application_name, extract(epoch FROM clock_timestamp() - state_change) AS seconds, query
    FROM pg_stat_activity
    WHERE state LIKE 'idle in transaction%' AND datname = current_database() AND application_name NOT LIKE 'opsctl%'
    ORDER BY state_change LIMIT 10";

fn idle(check: &Check, _: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let Some(oldest) = rows.first() else {
        return Ok(check.judged(0.0, "no session is idle in a transaction"));
    };
    let seconds = oldest.number("seconds")?;
    let message = format!("{} has been idle in a transaction for {}", who(oldest), span(seconds));
    Ok(check.judged(seconds, message).details(lines(rows)?))
}

const LONGEST: &str = "
    SELECT pid, usename, application_name, extract(epoch FROM clock_timestamp() - query_start) AS seconds, query
    FROM pg_stat_activity
    WHERE state = 'active' AND datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        AND application_name NOT LIKE 'opsctl%'
    ORDER BY query_start LIMIT 10";

fn longest(check: &Check, _: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let Some(oldest) = rows.first() else {
        return Ok(check.judged(0.0, "no query is running"));
    };
    let seconds = oldest.number("seconds")?;
    let message =
        format!("the longest query has been running for {}: {}", span(seconds), who(oldest));
    let reading = check.judged(seconds, message);
    Ok(if reading.outcome == Outcome::Ok { reading } else { reading.details(lines(rows)?) })
}

/// Since when a lock is waited for is known from 14 on, but not in the first moment; before, since when the query runs.
///
/// Who waits may wait for somebody who waits: the blocker is who stands at the head of that queue and waits for nobody, of
/// several the one whose transaction is the oldest.
fn lock_waits_sql(server: &Server) -> String {
    let since = if server.version.major() >= 14 {
        "coalesce((SELECT min(waitstart) FROM pg_locks AS l WHERE l.pid = a.pid AND NOT l.granted), clock_timestamp())"
    } else {
        "a.query_start"
    };
    format!(
        "WITH RECURSIVE waiting AS MATERIALIZED (
            SELECT a.pid, a.usename, a.application_name, a.query, pg_blocking_pids(a.pid) AS blockers,
                greatest(extract(epoch FROM clock_timestamp() - {since}), 0) AS seconds, count(*) OVER () AS total
            FROM pg_stat_activity AS a
            WHERE a.wait_event_type = 'Lock' AND a.datname = current_database()
            ORDER BY a.query_start LIMIT 50
        ), behind (waiter, blocker) AS (
            SELECT pid, unnest(blockers) FROM waiting
            UNION
            SELECT b.waiter, unnest(w.blockers) FROM behind AS b JOIN waiting AS w ON w.pid = b.blocker
        )
        SELECT w.pid, w.usename, w.application_name, w.query, w.seconds, w.total,
            b.blocker, b.usename AS blocker_user, b.application_name AS blocker_application,
            b.state AS blocker_state, b.query AS blocker_query,
            extract(epoch FROM clock_timestamp() - b.xact_start) AS blocker_seconds
        FROM waiting AS w LEFT JOIN LATERAL (
            SELECT h.blocker, a.* FROM behind AS h LEFT JOIN pg_stat_activity AS a ON a.pid = h.blocker
            WHERE h.waiter = w.pid AND h.blocker NOT IN (SELECT pid FROM waiting)
            ORDER BY a.xact_start LIMIT 1
        ) AS b ON true
        ORDER BY w.seconds DESC LIMIT 10"
    )
}

fn lock_waits(check: &Check, _: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let Some(first) = rows.first() else {
        return Ok(check.judged(0.0, "nobody waits for a lock"));
    };
    let seconds = first.number("seconds")?;
    let blocker = match first.get("blocker") {
        // A prepared transaction has no process.
        Some("0") => "a blocker that is no session: see prepared-transactions".to_owned(),
        None => "a blocker that has gone in the meantime".to_owned(),
        Some(pid) => format!(
            "pid {pid} of {} ({}), {}, in its transaction for {}: {}",
            or_unknown(first.text("blocker_user")),
            or_unknown(first.text("blocker_application")),
            or_unknown(first.text("blocker_state")),
            span(first.number("blocker_seconds")?),
            shortened(first.text("blocker_query")),
        ),
    };
    let message =
        format!("{} has waited for a lock for {}, behind {blocker}", who(first), span(seconds));
    let waiting = first.number("total")?;
    Ok(check.judged(seconds, message).more("waiting", waiting, Unit::Count).details(lines(rows)?))
}

/// Names a session.
fn who(row: &Row) -> String {
    let (user, application) =
        (or_unknown(row.text("usename")), or_unknown(row.text("application_name")));
    format!("pid {} of {user} ({application})", row.text("pid"))
}

fn or_unknown(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

/// Says of each session for how long it has been at what.
fn lines(rows: &[Row]) -> anyhow::Result<Vec<String>> {
    let line = |row: &Row| {
        let time = span(row.number("seconds")?);
        Ok(format!("{}, {time}: {}", who(row), shortened(row.text("query"))))
    };
    rows.iter().map(line).collect()
}

/// Returns a statement without its literals, and not too long.
fn shortened(query: &str) -> String {
    let query = without_literals(query);
    let cut = query.char_indices().nth(200).map(|(at, _)| at);
    cut.map_or(query.clone(), |at| format!("{}…", &query[..at]))
}
