//! How far transaction numbers are from their end, and who holds back their clearing away.

use anyhow::Context as _;

use super::session::{Row, Server};
use super::{Question, count, span};
use crate::health::{Check, Outcome, Reading, Unit};

pub(super) const QUESTIONS: &[Question] = &[
    Question {
        kind: "xid-age",
        ask: |session, _| session.rows(XID),
        read: |c, _, rows| age(c, rows, "transaction numbers"),
    },
    Question {
        kind: "multixact-age",
        ask: |session, _| session.rows(MULTIXACT),
        read: |c, _, rows| age(c, rows, "multixact numbers"),
    },
    Question { kind: "xmin-horizon", ask: |session, _| session.rows(HORIZON), read: horizon },
    Question {
        kind: "prepared-transactions",
        ask: |session, _| session.rows(PREPARED),
        read: prepared,
    },
];

const XID: &str = "
    SELECT datname, age(datfrozenxid) AS age, current_setting('autovacuum_freeze_max_age') AS freeze
    FROM pg_database ORDER BY 2 DESC LIMIT 1";

const MULTIXACT: &str = "
    SELECT datname, mxid_age(datminmxid) AS age, current_setting('autovacuum_multixact_freeze_max_age') AS freeze
    FROM pg_database ORDER BY 2 DESC LIMIT 1";

fn age(check: &Check, rows: &[Row], what: &str) -> anyhow::Result<Reading> {
    let row = rows.first().context("there is no answer")?;
    let (age, freeze) = (row.number("age")?, row.number("freeze")?);
    let (database, percent) = (row.text("datname"), 100.0 * age / 2_147_483_647.0);
    let message = format!(
        "database `{database}` has used {} {what} since its last freeze ({percent:.0} % of all there are)",
        count(age)
    );
    // Without a vacuum that freezes, autovacuum starts one of its own from here on.
    Ok(check.judged(age, message).more("freeze_max_age", freeze, Unit::Count))
}

/// Whoever is oldest decides what VACUUM may remove: by a snapshot, or, without one, by what was written and not committed.
pub(crate) const HORIZON: &str = "
    SELECT age, cause FROM (
        SELECT greatest(age(backend_xmin), age(backend_xid)) AS age, format('%s pid %s of %s (%s), %s, in its transaction for %s',
            CASE backend_type WHEN 'walsender' THEN 'the standby behind' WHEN 'client backend' THEN 'session' ELSE backend_type END,
            pid, coalesce(usename, '?'), coalesce(nullif(application_name, ''), '?'), coalesce(state, '?'),
            coalesce(date_trunc('second', clock_timestamp() - xact_start)::text, '?')) AS cause
        FROM pg_stat_activity WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
        UNION ALL
        SELECT greatest(age(xmin), age(catalog_xmin)), format('replication slot `%s`, %s', slot_name, CASE WHEN active THEN 'active' ELSE 'inactive' END)
        FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
        UNION ALL
        SELECT age(transaction), format('prepared transaction `%s` of %s, prepared at %s', gid, owner, date_trunc('second', prepared))
        FROM pg_prepared_xacts
    ) AS held WHERE age IS NOT NULL ORDER BY age DESC LIMIT 5";

fn horizon(check: &Check, _: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let Some(oldest) = rows.first() else {
        return Ok(check.judged(0.0, "nobody holds VACUUM back"));
    };
    let age = oldest.number("age")?;
    let message =
        format!("VACUUM is held back by {} transactions: {}", count(age), oldest.text("cause"));
    let reading = check.judged(age, message);
    let line = |row: &Row| format!("{}: {}", row.text("age"), row.text("cause"));
    Ok(if reading.outcome == Outcome::Ok {
        reading
    } else {
        reading.details(rows.iter().map(line))
    })
}

const PREPARED: &str = "
    SELECT gid, owner, database, extract(epoch FROM clock_timestamp() - prepared) AS seconds
    FROM pg_prepared_xacts ORDER BY prepared LIMIT 10";

fn prepared(check: &Check, _: &Server, rows: &[Row]) -> anyhow::Result<Reading> {
    let Some(oldest) = rows.first() else {
        return Ok(check.judged(0.0, "there is no prepared transaction"));
    };
    let seconds = oldest.number("seconds")?;
    let name = |row: &Row| {
        format!("`{}` of {} in `{}`", row.text("gid"), row.text("owner"), row.text("database"))
    };
    let message =
        format!("the oldest prepared transaction, {}, is {} old", name(oldest), span(seconds));
    Ok(check.judged(seconds, message).details(rows.iter().skip(1).map(name)))
}
