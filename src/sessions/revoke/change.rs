//! Changes all rows that a condition is true of, some thousands at a time, and tells the audit table in the same transaction.
//!
//! First all that nobody has locked, so that one row keeps no other; then what is left is waited for, within a limit.

use postgres::types::ToSql;

use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::audit::Trail;
use crate::sessions::catalogue::{Leaf, Relation};
use crate::sessions::expired::quote_table;
use crate::sessions::revoke::cohort::Cohort;
use crate::sessions::{LOCK_TIMEOUT, LOOK_TIMEOUT, is_passing, limits, unsigned};
use crate::stop::Stop;

/// How many rows are changed in one transaction.
const BATCH: i64 = 5000;
/// How often locks of others are waited for, and rows that stay as they are are tried, in one table.
const TRIES: u32 = 10;

/// One change to one table.
pub(super) struct Change<'a> {
    pub(super) relation: &'a Relation,
    /// For a table named `s`; the parameters are the cohort's.
    pub(super) condition: &'a str,
    /// With `{}` where the table's name goes.
    pub(super) sql: &'a str,
    /// The column with the account's id.
    pub(super) user: Option<&'a String>,
    pub(super) action: &'a str,
}

impl Change<'_> {
    /// Carries it out, and adds the rows that were changed to `sum`: also those before an error.
    ///
    /// It comes to its end while others add rows, too: they are none of those that were to be changed. What is in the way in one
    /// partition does not keep it from the others.
    pub(super) fn carry_out(
        &self,
        connection: &mut Connection,
        with: (&Cohort, Option<&Trail>),
        stop: &Stop,
        sum: &mut u64,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        for leaf in &self.relation.leaves {
            let done = self.change(connection, leaf, with, stop, sum);
            result = result.and(done);
            if matches!(result, Err(Error::Stopped | Error::Lost { .. })) {
                break;
            }
        }
        result
    }

    /// Changes one table that holds rows.
    fn change(
        &self,
        connection: &mut Connection,
        leaf: &Leaf,
        (cohort, trail): (&Cohort, Option<&Trail>),
        stop: &Stop,
        sum: &mut u64,
    ) -> Result<(), Error> {
        let name = &leaf.name;
        let what = format!("{} in {name}", self.action);
        let (mut waits, mut tries) = (false, 0);
        loop {
            stop.check()?;
            let mut told = Vec::new();
            let sql = self.statement(leaf, waits, trail, &mut told);
            let mut parameters = cohort.parameters();
            parameters.push(&BATCH);
            parameters.extend(told.iter().map(|text| text as &(dyn ToSql + Sync)));
            match transact(connection, &sql, &parameters) {
                Ok((changed, chosen)) => {
                    *sum += changed;
                    let is_full = changed >= unsigned(BATCH);
                    if waits && !is_full && chosen == changed {
                        return Ok(());
                    }
                    // Changed by others meanwhile, or kept by a trigger, which would keep it for ever.
                    tries += u32::from(waits && chosen >= 2 * changed);
                    if tries > TRIES {
                        let kept = chosen - changed;
                        let source = format!("{kept} stay as they are: is there a trigger?").into();
                        return Err(Error::Query { what, source });
                    }
                    waits |= !is_full;
                }
                Err(error) if is_passing(&error) && tries < TRIES && stop.reason().is_none() => {
                    tries += 1;
                    tracing::info!("{name}: waiting for somebody else's lock: {error}");
                    // Another row may be free meanwhile.
                    waits = false;
                }
                Err(error) => return Err(Error::query(what, error).or_stopped(stop)),
            }
        }
    }

    /// Writes the statement that changes one batch; it returns how many were changed, and how many were to be.
    fn statement(
        &self,
        leaf: &Leaf,
        waits: bool,
        trail: Option<&Trail>,
        told: &mut Vec<String>,
    ) -> String {
        let table = quote_table(&leaf.name);
        let changed = self.sql.replacen("{}", &table, 1);
        let id =
            self.user.map_or("NULL::text".to_owned(), |c| format!("t.{}", quote_identifier(c)));
        let locked = if waits { "" } else { " SKIP LOCKED" };
        let mut sql = format!(
            "WITH d AS MATERIALIZED (SELECT s.ctid FROM ONLY {table} AS s WHERE {} LIMIT $4::int8 FOR UPDATE OF s{locked}), \
             u AS ({changed} WHERE t.ctid = ANY (ARRAY(SELECT d.ctid FROM d)) RETURNING {id} AS id)",
            self.condition
        );
        if let Some(trail) = trail {
            let detail = serde_json::json!({ "table": self.relation.name.to_string() });
            let insert = trail.insert("u", self.action, &detail, 5, told);
            sql.push_str(&format!(", a AS ({insert})"));
        }
        sql + " SELECT count(*), (SELECT count(*) FROM d) FROM u"
    }
}

/// Carries one transaction out; returns how many rows were changed, and how many were to be.
fn transact(
    connection: &mut Connection,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(u64, u64), postgres::Error> {
    let mut transaction = connection.transaction()?;
    // To find the rows a table may have to be read.
    transaction.batch_execute(&limits(LOCK_TIMEOUT, LOOK_TIMEOUT))?;
    let row = transaction.query_one(sql, parameters)?;
    transaction.commit()?;
    Ok((unsigned(row.get(0)), unsigned(row.get(1))))
}
