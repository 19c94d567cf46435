//! The partitions of a table, as the catalogue has them, and what can be done with one: out of its table, back into it, and away.
//!
//! A partition that opsctl takes out says so in its comment first: whoever finds it knows what it is, and the next run takes it back.
//! Whether one may go is not known here.

use std::time::{Duration, Instant};

use postgres::Transaction;
use postgres::error::SqlState;
use serde::{Deserialize, Serialize};

use crate::archive::row::Column;
use crate::archive::source::Source;
use crate::archive::window::Window;
use crate::db::{DETACHING, Error};

/// How long DETACH waits for transactions that began to use the table after it was looked for them.
const TO_DETACH: &str = "SET lock_timeout = '60s'";
/// How long a statement waits that makes others wait meanwhile.
const SHORT: &str = "SET lock_timeout = '2s'";
/// How long it is tried to take a partition back; until then rows are missed.
const TO_TAKE_BACK: Duration = Duration::from_secs(600);
/// How long it is waited for transactions that use the table, before anything is done.
const TO_BEGIN: Duration = Duration::from_secs(30);
/// How often something is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// A partition of the table that is archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    oid: u32,
    /// As SQL wants it.
    pub(super) quoted: String,
    /// `schema.table`
    pub(crate) name: String,
    /// The times of its rows; `None` where they are open.
    pub(super) window: Option<Window>,
    bounds: Option<Bounds>,
    comment: Option<String>,
    /// Why it cannot go as a whole.
    pub(super) odd: Option<&'static str>,
}

/// The values that bound a partition, as the server writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bounds {
    from: String,
    to: String,
}

/// What the comment of a partition says that is on its way out.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    detached_from: String,
    bounds: Bounds,
    /// What it was commented with.
    comment: Option<String>,
    note: String,
}

impl Partition {
    /// Returns the partitions of a table, in the order of their times.
    pub(super) fn list(source: &mut Source) -> Result<Vec<Partition>, Error> {
        let stop = source.stop.clone();
        let failed = |e| Error::query("look at the partitions", e).or_stopped(&stop);
        let sql = "WITH p AS (
                SELECT c.oid, format('%I.%I', nspname, relname) AS quoted, nspname || '.' || relname AS name, relkind,
                    pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
                    regexp_match(pg_get_expr(relpartbound, c.oid), E'^FOR VALUES FROM \\\\(''([^'']*)''\\\\) TO \\\\(''([^'']*)''\\\\)$') AS bounds
                FROM pg_inherits i JOIN pg_class c ON c.oid = inhrelid JOIN pg_namespace n ON n.oid = relnamespace
                WHERE inhparent = $1 AND NOT inhdetachpending)
            SELECT oid, quoted, name, comment, bounds[1], bounds[2], relkind::text,
                extract(epoch FROM lower(b))::bigint, extract(epoch FROM upper(b))::bigint
            FROM p LEFT JOIN LATERAL (SELECT tstzrange(bounds[1]::timestamptz, bounds[2]::timestamptz) AS b) b
                ON isfinite(bounds[1]::timestamptz) AND isfinite(bounds[2]::timestamptz)
            ORDER BY lower(b), name";
        let rows = source.connection.query(sql, &[&source.oid]).map_err(failed)?;
        let partition = |row: &postgres::Row| {
            let bounds = match (row.get(4), row.get(5)) {
                (Some(from), Some(to)) => Some(Bounds { from, to }),
                _ => None,
            };
            let moment =
                |n: usize| chrono::DateTime::from_timestamp(row.get::<_, Option<i64>>(n)?, 0);
            let window = match (moment(7), moment(8)) {
                (Some(from), Some(to)) => Some(Window { from, to }),
                _ => None,
            };
            let odd = match row.get(6) {
                "r" => None,
                "p" => Some("it has partitions of its own"),
                _ => Some("it is on another server"),
            };
            let (oid, quoted, name) = (row.get(0), row.get(1), row.get(2));
            Partition { oid, quoted, name, window, bounds, comment: row.get(3), odd }
        };
        Ok(rows.iter().map(partition).collect())
    }

    /// Returns its columns, in its own order.
    pub(super) fn columns(
        &self,
        transaction: &mut Transaction<'_>,
    ) -> Result<Vec<Column>, postgres::Error> {
        super::columns(transaction, self.oid)
    }

    /// Names something that depends on it, and would keep it from being dropped.
    pub(super) fn dependent(&self, source: &mut Source) -> Result<Option<String>, Error> {
        let sql = "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend \
                   WHERE refclassid = 'pg_class'::regclass AND refobjid = $1 AND deptype = 'n' LIMIT 1";
        let row = source.connection.query_opt(sql, &[&self.oid]);
        let row = row.map_err(|e| {
            Error::query(format!("see what depends on {}", self.name), e).or_stopped(&source.stop)
        })?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Takes it out of its table. Queries of the table go on meanwhile; those that began before are waited for.
    ///
    /// `check` is asked before each statement; after its error nothing is done any more.
    pub(super) fn detach(
        &self,
        source: &mut Source,
        check: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(bounds) = self.bounds.clone() else { return Ok(()) };
        let mark = Mark {
            detached_from: source.quoted.clone(),
            bounds,
            comment: self.comment.clone(),
            note: "out of its table to be dropped, if its rows are as they were archived. If no opsctl is at work here, its next run \
                   takes it back"
                .to_owned(),
        };
        check()?;
        let text = format!("{DETACHING}{}", serde_json::to_string(&mark).unwrap_or_default());
        self.set_comment(source, Some(&text))?;
        check()?;
        let sql =
            format!("ALTER TABLE {} DETACH PARTITION {} CONCURRENTLY", source.quoted, self.quoted);
        execute(source, TO_DETACH, "prepare the session")?;
        execute(source, &sql, &format!("detach {}", self.name))?;
        check()
    }

    /// Makes it part of its table again, and comments it as before.
    ///
    /// It waits in short steps: whoever comes after a statement that waits for a lock waits for it, too.
    fn attach(&self, source: &mut Source) -> Result<(), Error> {
        let Some(bounds) = &self.bounds else { return Ok(()) };
        execute(source, SHORT, "prepare the session")?;
        let sql = format!(
            "ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})",
            source.quoted,
            self.quoted,
            literal(&bounds.from),
            literal(&bounds.to)
        );
        let began = Instant::now();
        loop {
            match execute(source, &sql, &format!("attach {} again", self.name)) {
                Err(error)
                    if error.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE)
                        && began.elapsed() < TO_TAKE_BACK =>
                {
                    if source.stop.sleep(PAUSE).is_err() {
                        return Err(error);
                    }
                }
                other => break other?,
            }
        }
        self.set_comment(source, self.comment.as_deref())
    }

    fn set_comment(&self, source: &mut Source, comment: Option<&str>) -> Result<(), Error> {
        let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
        let sql = format!("COMMENT ON TABLE {} IS {comment}", self.quoted);
        execute(source, &sql, &format!("comment {}", self.name))
    }

    /// Makes sure that nobody can change it until the end of the transaction, and that it is the one that it was.
    pub(super) fn lock(&self, transaction: &mut Transaction<'_>) -> Result<bool, postgres::Error> {
        let sql = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", self.quoted);
        transaction.batch_execute(&sql)?;
        let sql = "SELECT $1::text::regclass::oid = $2 AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = $2)";
        Ok(transaction.query_one(sql, &[&self.quoted, &self.oid])?.get(0))
    }

    /// Drops it, and nothing that depends on it: then it is an error.
    pub(super) fn drop(&self, transaction: &mut Transaction<'_>) -> Result<(), postgres::Error> {
        transaction.batch_execute(&format!("DROP TABLE {}", self.quoted))
    }
}

/// Takes back what a run that was killed had taken out; returns the names.
///
/// Only what has the owner of the table counts: others may write comments, too.
pub(super) fn take_back(source: &mut Source) -> Result<Vec<String>, Error> {
    let mut taken = Vec::new();
    for (partition, state) in left(source)? {
        if state == State::Halfway {
            tracing::warn!(
                "{} is halfway out of its table: waiting for transactions",
                partition.name
            );
            let patience = format!("SET lock_timeout = {}", TO_TAKE_BACK.as_millis());
            execute(source, &patience, "prepare the session")?;
            let sql = format!(
                "ALTER TABLE {} DETACH PARTITION {} FINALIZE",
                source.quoted, partition.quoted
            );
            execute(source, &sql, &format!("detach {} entirely", partition.name))?;
        }
        if state == State::In {
            partition.set_comment(source, partition.comment.as_deref())?;
        } else {
            partition.attach(source)?;
        }
        taken.push(partition.name);
    }
    Ok(taken)
}

/// Names the partitions that a run which was killed had to do with.
pub(super) fn out(source: &mut Source) -> Result<Vec<String>, Error> {
    if source.connection.server_version()?.major() < 14 {
        return Ok(Vec::new());
    }
    Ok(left(source)?.into_iter().map(|(partition, _)| partition.name).collect())
}

/// Waits until those transactions have ended that use the table or the partition now, as DETACH would do when it cannot go back any more;
/// returns who does not end.
pub(super) fn wait_for_users(
    source: &mut Source,
    partition: &Partition,
) -> Result<Option<String>, Error> {
    let stop = source.stop.clone();
    let failed = |e| Error::query("see who uses the table", e).or_stopped(&stop);
    // Whoever has a lock on it, and whoever has a snapshot that is older than all of them.
    let sql = "SELECT virtualtransaction, coalesce(pid::text, 'prepared') FROM pg_locks
        WHERE relation IN ($1, $2) AND granted AND pid IS DISTINCT FROM pg_backend_pid()
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION SELECT l.virtualtransaction, l.pid::text FROM pg_stat_activity a JOIN pg_locks l USING (pid)
        WHERE l.locktype = 'virtualxid' AND l.granted AND a.backend_xmin IS NOT NULL AND a.datname = current_database()
            AND a.backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let mut users: Option<Vec<(String, String)>> = None;
    let began = Instant::now();
    loop {
        let rows = source.connection.query(sql, &[&source.oid, &partition.oid]).map_err(failed)?;
        let now: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let left: Vec<(String, String)> = match users {
            None => now,
            Some(before) => before.into_iter().filter(|user| now.contains(user)).collect(),
        };
        let Some((_, pid)) = left.first() else { return Ok(None) };
        if began.elapsed() > TO_BEGIN {
            return Ok(Some(pid.clone()));
        }
        users = Some(left);
        stop.sleep(PAUSE).map_err(|_| Error::Stopped)?;
    }
}

/// Where a partition is that a run which was killed had to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    In,
    Halfway,
    Out,
}

/// Returns what a run that was killed had to do with.
fn left(source: &mut Source) -> Result<Vec<(Partition, State)>, Error> {
    let stop = source.stop.clone();
    let failed = |e| Error::query("look for partitions that were left", e).or_stopped(&stop);
    let sql = "SELECT c.oid, format('%I.%I', nspname, c.relname), nspname || '.' || c.relname, description, inhdetachpending
        FROM pg_description d JOIN pg_class c ON c.oid = objoid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_class t ON t.oid = $1 AND t.relowner = c.relowner LEFT JOIN pg_inherits ON inhrelid = c.oid
        WHERE d.classoid = 'pg_class'::regclass AND objsubid = 0 AND c.relkind = 'r' AND starts_with(description, $2)
            AND (inhparent IS NULL OR inhparent = t.oid)
        ORDER BY 3";
    let rows = source.connection.query(sql, &[&source.oid, &DETACHING]).map_err(failed)?;
    let mut left = Vec::new();
    for row in rows {
        let description: &str = row.get(3);
        let mark = description.strip_prefix(DETACHING).map(serde_json::from_str::<Mark>);
        let Some(Ok(mark)) = mark else { continue };
        if mark.detached_from != source.quoted {
            continue;
        }
        let state = match row.get::<_, Option<bool>>(4) {
            Some(false) => State::In,
            Some(true) => State::Halfway,
            None => State::Out,
        };
        let (bounds, comment) = (Some(mark.bounds), mark.comment);
        let (oid, quoted, name) = (row.get(0), row.get(1), row.get(2));
        let partition = Partition { oid, quoted, name, window: None, bounds, comment, odd: None };
        left.push((partition, state));
    }
    Ok(left)
}

/// Returns why no partition of the table can go as a whole.
pub(super) fn why_not(source: &mut Source) -> Result<Option<String>, Error> {
    let stop = source.stop.clone();
    if source.connection.server_version()?.major() < 14 {
        return Ok(Some(
            "this server cannot detach partitions while the table is used: that takes PostgreSQL 14".to_owned(),
        ));
    }
    let failed = |e| Error::query("see whether partitions can go", e).or_stopped(&stop);
    let sql = format!(
        "SELECT relkind = 'p', coalesce(partstrat = 'r' AND partnatts = 1 AND partattrs[0] = attnum, false),
            coalesce(partdefid, 0)::bigint, pg_has_role(relowner, 'USAGE'),
            (SELECT string_agg(DISTINCT conrelid::regclass::text, ', ') FROM pg_constraint WHERE contype = 'f' AND confrelid = c.oid),
            (SELECT string_agg(inhrelid::regclass::text, ', ') FROM pg_inherits JOIN pg_class p ON p.oid = inhrelid
             WHERE inhparent = c.oid AND NOT pg_has_role(p.relowner, 'USAGE')),
            (SELECT string_agg(DISTINCT confrelid::regclass::text, ', ') FROM pg_constraint WHERE contype = 'f' AND conrelid = c.oid)
         FROM pg_class c LEFT JOIN pg_partitioned_table ON partrelid = c.oid
            LEFT JOIN pg_attribute ON attrelid = c.oid AND attname = {}
         WHERE c.oid = $1",
        literal(&source.facts.time_column)
    );
    let row = source.connection.query_one(&sql, &[&source.oid]).map_err(failed)?;
    let time = &source.facts.time_column;
    let reason = if !row.get::<_, bool>(0) {
        Some("it has no partitions, and `partitions` is \"drop\"".to_owned())
    } else if !row.get::<_, bool>(1) {
        Some(format!(
            "it is not partitioned by ranges of `{time}` alone, so its partitions are not of times"
        ))
    } else if row.get::<_, i64>(2) != 0 {
        Some("it has a default partition, with which PostgreSQL detaches none while the table is used".to_owned())
    } else if !row.get::<_, bool>(3) {
        Some(
            "this role is not its owner. Right way: connect as a role that is, for deletions"
                .to_owned(),
        )
    } else if let Some(others) = row.get::<_, Option<String>>(5) {
        Some(format!("this role is not the owner of {others}"))
    } else {
        let referring: Option<String> = row.get(4);
        let referred: Option<String> = row.get(6);
        let referring = referring.map(|tables| format!("rows of {tables} refer to it"));
        referring.or_else(|| {
            referred.map(|tables| {
                format!(
                    "its rows refer to {tables}, which nobody could read while a partition is dropped. Right ways: drop the foreign key, or \
                     let rows go one by one (`partitions` = \"keep\")"
                )
            })
        })
    };
    Ok(reason)
}

fn execute(source: &mut Source, sql: &str, what: &str) -> Result<(), Error> {
    let done = source.connection.batch_execute(sql);
    done.map_err(|e| Error::query(what.to_owned(), e).or_stopped(&source.stop))
}

/// Writes a string as every session reads it, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
