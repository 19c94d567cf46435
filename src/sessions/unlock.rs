//! Resets locks that have lapsed by the server's clock: the lock and its counter together, or the next slip locks again.
//!
//! Only ids leave this module, and the report has not more than [`MOST_IDS`] of them; the audit table has all.

use std::time::Duration;

use postgres::types::ToSql;

use crate::clock::Moment;
use crate::config::Lock;
use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::audit::Trail;
use crate::sessions::catalogue::{self, Relation};
use crate::sessions::expired::{Value, dated, is_over, quote_table, unit, values};
use crate::sessions::plan::{self, Refusal, RefusalKind, bad_condition, implausible};
use crate::sessions::{BATCH_TIMEOUT, LOCK_TIMEOUT, limits, unsigned};
use crate::stop::Stop;

/// How many ids the report may have.
const MOST_IDS: usize = 1000;
/// How many accounts are unlocked in one transaction.
const BATCH: i64 = 500;

/// A lock whose table was looked at.
#[derive(Debug)]
pub(crate) struct Unlocking {
    name: String,
    lock: Lock,
    relation: Relation,
    condition: Option<String>,
    /// The values of the condition's parameters.
    values: Vec<Value>,
    /// How many accounts it is about.
    pub(crate) lapsed: u64,
}

/// What became of an unlock.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Outcome {
    pub(crate) unlock: String,
    pub(crate) table: String,
    pub(crate) unlocked: u64,
    /// Of the first that were unlocked.
    pub(crate) ids: Vec<String>,
    /// Was it stopped before it came to its end?
    pub(crate) stopped: bool,
}

/// Looks at which locks have lapsed.
pub(crate) fn plan(
    connection: &mut Connection,
    name: &str,
    lock: Lock,
    (grace, condition): (Duration, Option<&str>),
    now: Moment,
) -> Result<Result<Unlocking, Refusal>, Error> {
    let refusal = |reason: String| {
        Err(Refusal { rule: name.to_owned(), reason, kind: RefusalKind::Configuration })
    };
    let refuse = |reason| Ok(refusal(reason));
    let Some(relation) = catalogue::find(connection, &lock.table)? else {
        return refuse(format!("there is no table {}", lock.table));
    };
    let columns = [&lock.column, &lock.id].into_iter();
    let columns = columns.chain(&lock.set_null).chain(&lock.set_zero).chain(&lock.set_false);
    for column in columns {
        if !relation.columns.contains_key(column) {
            return refuse(format!("{} has no column `{column}`", relation.name));
        }
    }
    let is = relation.columns.get(&lock.column).map_or("", String::as_str);
    if !plan::fits(&lock.time, is) {
        let (table, column, word) = (&relation.name, &lock.column, lock.time.word());
        return refuse(format!("{table}.{column} is {is}, which does not fit `{word}`"));
    }
    let values = values(&lock.time, plan::cutoff(now, grace));
    let mut unlocking = Unlocking {
        name: name.to_owned(),
        lock,
        relation,
        condition: condition.map(str::to_owned),
        values,
        lapsed: 0,
    };
    match unlocking.count(connection) {
        Ok((lapsed, range)) => {
            unlocking.lapsed = lapsed;
            let Some(reason) = implausible(&unlocking.lock.time, &range) else {
                return Ok(Ok(unlocking));
            };
            refuse(format!("{}.{}: {reason}", unlocking.table(), unlocking.lock.column))
        }
        Err(error) => bad_condition(&error).map(refusal).ok_or(error),
    }
}

impl Unlocking {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn table(&self) -> String {
        self.relation.name.to_string()
    }

    fn condition(&self) -> String {
        let column = format!("t.{}", quote_identifier(&self.lock.column));
        let (over, _) = is_over(&column, &self.lock.time);
        match &self.condition {
            Some(condition) => format!("{over} AND (\n{condition}\n)"),
            None => over,
        }
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(Value::as_sql).collect()
    }

    /// Counts the locks that have lapsed; where times are numbers, also says from when to when all are. 0 is no lock.
    fn count(&self, connection: &mut Connection) -> Result<(u64, [Option<String>; 2]), Error> {
        let (table, condition) = (quote_table(&self.relation.name), self.condition());
        let column = format!("t.{}", quote_identifier(&self.lock.column));
        let dated = dated(&column, &self.lock.time);
        let sql = if unit(&self.lock.time).is_some() {
            format!(
                "SELECT count(*) FILTER (WHERE {condition}), min(nullif({dated}, 0))::text, max(nullif({dated}, 0))::text \
                 FROM {table} AS t"
            )
        } else {
            format!("SELECT count(*), NULL::text, NULL::text FROM {table} AS t WHERE {condition}")
        };
        let row = connection.query_one(&sql, &self.parameters());
        let what = || format!("count the lapsed locks of {}", self.name);
        let row = row.map_err(|e| Error::query(what(), e))?;
        Ok((unsigned(row.get(0)), [row.get(1), row.get(2)]))
    }

    /// Writes what is set.
    fn changes(&self) -> String {
        let lock = &self.lock;
        let set = |columns: &[String], value: &str| {
            columns.iter().map(|c| format!("{} = {value}", quote_identifier(c))).collect::<Vec<_>>()
        };
        let mut null = lock.set_null.clone();
        if !null.contains(&lock.column) {
            null.push(lock.column.clone());
        }
        let changes = [set(&null, "NULL"), set(&lock.set_zero, "0"), set(&lock.set_false, "false")];
        changes.concat().join(", ")
    }

    /// Unlocks, a few hundred accounts at a time. The outcome is also that of what was done before an error.
    pub(crate) fn apply(
        &self,
        connection: &mut Connection,
        trail: Option<&Trail>,
        stop: &Stop,
    ) -> (Outcome, Result<(), Error>) {
        let mut outcome =
            Outcome { unlock: self.name.clone(), table: self.table(), ..Outcome::default() };
        let result = self.unlock(connection, trail, stop, &mut outcome);
        (outcome, result)
    }

    fn unlock(
        &self,
        connection: &mut Connection,
        trail: Option<&Trail>,
        stop: &Stop,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let failed =
            |e| Error::query(format!("unlock accounts of {}", self.name), e).or_stopped(stop);
        for leaf in &self.relation.leaves {
            let table = quote_table(&leaf.name);
            let mut parameters = self.parameters();
            parameters.push(&BATCH);
            let id = quote_identifier(&self.lock.id);
            let mut sql = format!(
                "WITH d AS MATERIALIZED (SELECT t.ctid FROM ONLY {table} AS t WHERE {} LIMIT ${}::int8 FOR UPDATE SKIP LOCKED), \
                 u AS (UPDATE ONLY {table} AS t SET {} WHERE t.ctid = ANY (ARRAY(SELECT d.ctid FROM d)) RETURNING t.{id} AS id)",
                self.condition(),
                parameters.len(),
                self.changes()
            );
            let mut told = Vec::new();
            if let Some(trail) = trail {
                let detail = serde_json::json!({ "unlock": self.name, "table": self.table() });
                let first = parameters.len() + 1;
                let insert = trail.insert("u", "unlock", &detail, first, &mut told);
                sql.push_str(&format!(", a AS ({insert})"));
            }
            sql.push_str(" SELECT u.id::text FROM u");
            parameters.extend(told.iter().map(|text| text as &(dyn ToSql + Sync)));
            loop {
                if stop.reason().is_some() {
                    outcome.stopped = true;
                    return Ok(());
                }
                let mut transaction = connection.transaction().map_err(failed)?;
                transaction.batch_execute(&limits(LOCK_TIMEOUT, BATCH_TIMEOUT)).map_err(failed)?;
                let rows = transaction.query(&sql, &parameters).map_err(failed)?;
                transaction.commit().map_err(failed)?;
                outcome.unlocked += rows.len() as u64;
                let room = MOST_IDS.saturating_sub(outcome.ids.len());
                // An account without an id is unlocked all the same.
                let ids = rows.iter().filter_map(|row| row.get::<_, Option<String>>(0));
                outcome.ids.extend(ids.take(room));
                if unsigned(BATCH) > rows.len() as u64 {
                    break;
                }
            }
        }
        Ok(())
    }
}
