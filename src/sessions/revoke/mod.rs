//! Ends sessions in an incident: those of some accounts, of an address, of a time, or all.
//!
//! A plan counts first, and is confirmed by its number. `cohort.rs` says whose they are, `change.rs` carries it out: unlike a cleaning it
//! waits for rows that somebody has locked, because a session that is in use is the one that matters. `lock.rs` locks accounts. What the
//! audit table is told is told in the same transaction.

use crate::config::{Revocable, Revoke};
use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::audit::Trail;
use crate::sessions::catalogue::{self, Relation};
use crate::sessions::expired::quote_table;
use crate::sessions::{preset, unsigned};
use crate::stop::Stop;

mod change;
mod cohort;
mod lock;

pub(crate) use cohort::Cohort;
pub(crate) use lock::lock;

use change::Change;
use cohort::{ANYBODY, Condition, is_one_of, must_be};

/// What `set_now` may set.
const TIMES: [&str; 2] = ["timestamp with time zone", "timestamp without time zone"];

/// What would be revoked.
#[derive(Debug)]
pub(crate) struct Plan {
    cohort: Cohort,
    pub(crate) tables: Vec<Table>,
    accounts: Accounts,
    /// Rows of all tables together; this is the number that is confirmed.
    pub(crate) sessions: u64,
    /// Accounts that will have to choose a new password, if that is asked for.
    pub(crate) resets: Option<u64>,
}

/// A table with sessions.
#[derive(Debug)]
pub(crate) struct Table {
    revocable: Revocable,
    relation: Relation,
    condition: Condition,
    /// How many of its rows would be revoked.
    pub(crate) sessions: u64,
    /// Where an address is asked for: rows that have none that can be read, and stay.
    pub(crate) unreadable: u64,
}

impl Table {
    pub(crate) fn name(&self) -> String {
        self.relation.name.to_string()
    }
}

/// The table of the accounts.
#[derive(Debug)]
struct Accounts {
    relation: Relation,
    id: String,
    password_reset: Option<String>,
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) revoked: u64,
    pub(crate) password_resets: u64,
    /// Why it is not all: the first thing that went wrong.
    pub(crate) failure: Option<Error>,
}

/// Looks at what would be revoked. The inner error says why it cannot be.
pub(crate) fn plan(
    connection: &mut Connection,
    revoke: &Revoke,
    cohort: Cohort,
    force_password_reset: bool,
) -> Result<Result<Plan, String>, Error> {
    if revoke.from.is_empty() {
        return Ok(Err("[[sessions.revoke.from]] names no table with sessions".to_owned()));
    }
    let Some(relation) = catalogue::find(connection, &revoke.users)? else {
        return Ok(Err(format!("there is no table {}", revoke.users)));
    };
    let password_reset = revoke.password_reset.clone().filter(|_| force_password_reset);
    if force_password_reset && password_reset.is_none() {
        let message = "[sessions.revoke] has no `password_reset`: the column that makes somebody choose a new password";
        return Ok(Err(message.to_owned()));
    }
    let named = [(Some(&revoke.id), &[][..]), (password_reset.as_ref(), &["boolean"][..])];
    for (column, types) in named {
        let Some(column) = column else { continue };
        if let Err(reason) = must_be(&relation.name.to_string(), &relation.columns, column, types) {
            return Ok(Err(reason));
        }
    }
    let accounts = Accounts { relation, id: revoke.id.clone(), password_reset };
    let mut plan = Plan { cohort, tables: Vec::new(), accounts, sessions: 0, resets: None };
    for revocable in &revoke.from {
        match plan.table(connection, revocable)? {
            Ok(table) => {
                plan.sessions += table.sessions;
                plan.tables.push(table);
            }
            Err(reason) => return Ok(Err(reason)),
        }
    }
    if let Some(condition) = plan.resets() {
        let resets = plan.count(connection, &plan.accounts.relation, &condition)?;
        plan.resets = Some(resets);
    }
    Ok(Ok(plan))
}

impl Plan {
    fn table(
        &self,
        connection: &mut Connection,
        revocable: &Revocable,
    ) -> Result<Result<Table, String>, Error> {
        let Some(relation) = catalogue::find(connection, &revocable.table)? else {
            return Ok(Err(format!("there is no table {}", revocable.table)));
        };
        if let Some(reason) = preset::left_alone(&relation.name, &relation.columns) {
            return Ok(Err(format!("{} is left alone: {reason}", relation.name)));
        }
        let Revocable { user, ip, since, set_true, set_now, .. } = revocable;
        let name = relation.name.to_string();
        let any = [user, ip, since].into_iter().flatten().map(|column| (column, &[][..]));
        let booleans = set_true.iter().map(|column| (column, &["boolean"][..]));
        let times = set_now.iter().map(|column| (column, &TIMES[..]));
        for (column, types) in any.chain(booleans).chain(times) {
            if let Err(reason) = must_be(&name, &relation.columns, column, types) {
                return Ok(Err(reason));
            }
        }
        let condition = match self.cohort.condition(revocable, &relation.columns) {
            Ok(condition) => condition,
            Err(reason) => return Ok(Err(reason)),
        };
        let sessions = self.count(connection, &relation, &condition.meant)?;
        let unreadable = match &condition.unreadable {
            Some(condition) => self.count(connection, &relation, condition)?,
            None => 0,
        };
        let revocable = revocable.clone();
        Ok(Ok(Table { revocable, relation, condition, sessions, unreadable }))
    }

    /// Counts the rows that a condition is true of.
    fn count(
        &self,
        connection: &mut Connection,
        relation: &Relation,
        condition: &str,
    ) -> Result<u64, Error> {
        let table = quote_table(&relation.name);
        let sql = format!("SELECT count(*) FROM {table} AS s WHERE {condition}");
        let row = connection.query_one(&sql, &self.cohort.parameters());
        let failed = |e| Error::query(format!("count the rows of {}", relation.name), e);
        Ok(unsigned(row.map_err(failed)?.get(0)))
    }

    /// Writes which accounts must choose a new password, if any; the parameters are the cohort's.
    fn resets(&self) -> Option<String> {
        let Accounts { relation, id, password_reset } = &self.accounts;
        let column = quote_identifier(password_reset.as_ref()?);
        let kind = relation.columns.get(id);
        let id = format!("s.{}", quote_identifier(id));
        let who = if self.cohort.is_all() {
            "true".to_owned()
        } else if self.cohort.is_of_sessions() {
            let of = |table: &Table| {
                let user = quote_identifier(table.revocable.user.as_ref()?);
                let name = quote_table(&table.relation.name);
                // Also of those whose sessions are revoked already.
                let condition = &table.condition.of_cohort;
                let of = format!("SELECT s.{user}::text FROM {name} AS s WHERE {condition}");
                Some(format!("{id}::text IN ({of})"))
            };
            let of: Vec<_> = self.tables.iter().filter_map(of).collect();
            if of.is_empty() { "false".to_owned() } else { of.join(" OR ") }
        } else {
            // Also those who have no session.
            is_one_of(&id, kind)
        };
        Some(format!("{ANYBODY} AND s.{column} IS NOT TRUE AND ({who})"))
    }

    /// Are those who are meant known by sessions alone that are deleted?
    fn forgets(&self) -> bool {
        let deletes = |table: &Table| {
            table.revocable.set_true.is_empty() && table.revocable.set_now.is_empty()
        };
        self.cohort.is_of_sessions() && self.tables.iter().any(deletes)
    }

    /// Makes accounts choose a new password, then revokes their sessions.
    ///
    /// What cannot be done in one table does not keep it from the others.
    pub(crate) fn apply(
        &self,
        connection: &mut Connection,
        trail: Option<&Trail>,
        stop: &Stop,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let with = (&self.cohort, trail);
        // First: where sessions are deleted nobody knows behind it whose they were.
        if let (Some(condition), Some(column)) = (self.resets(), &self.accounts.password_reset) {
            let change = Change {
                relation: &self.accounts.relation,
                condition: &condition,
                sql: &format!("UPDATE ONLY {{}} AS t SET {} = true", quote_identifier(column)),
                user: Some(&self.accounts.id),
                action: "force-password-reset",
            };
            let done = change.carry_out(connection, with, stop, &mut outcome.password_resets);
            outcome.failure = done.err();
            if outcome.failure.is_some() && self.forgets() {
                return outcome;
            }
        }
        for table in &self.tables {
            if matches!(outcome.failure, Some(Error::Stopped | Error::Lost { .. })) {
                break;
            }
            let Revocable { set_true, set_now, user, .. } = &table.revocable;
            let set = |columns: &[String], value: &str| {
                let set = |c: &String| format!("{} = {value}", quote_identifier(c));
                columns.iter().map(set).collect::<Vec<_>>()
            };
            let changes =
                [set(set_true, "true"), set(set_now, "pg_catalog.clock_timestamp()")].concat();
            let sql = if changes.is_empty() {
                "DELETE FROM ONLY {} AS t".to_owned()
            } else {
                format!("UPDATE ONLY {{}} AS t SET {}", changes.join(", "))
            };
            let change = Change {
                relation: &table.relation,
                condition: &table.condition.meant,
                sql: &sql,
                user: user.as_ref(),
                action: "revoke",
            };
            let done = change.carry_out(connection, with, stop, &mut outcome.revoked);
            outcome.failure = outcome.failure.or(done.err());
        }
        outcome
    }
}
