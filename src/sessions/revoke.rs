//! Ends sessions in an incident: those of some accounts, of an address, of a time, or all.
//!
//! A plan counts first, and is confirmed by its number. Unlike a cleaning it waits for rows that somebody has locked: a session that is
//! in use is the one that matters. What the audit table is told is told in the same transaction.

use postgres::types::ToSql;

use crate::config::{Revocable, Revoke};
use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::audit::Trail;
use crate::sessions::catalogue::{self, Relation};
use crate::sessions::expired::quote_table;
use crate::sessions::{BATCH_TIMEOUT, LOCK_TIMEOUT, is_passing, limits, unsigned};
use crate::stop::Stop;

/// How many rows are revoked in one transaction.
const BATCH: i64 = 5000;
/// How often it is tried again without anything having changed.
const TRIES: u32 = 20;

/// Whose sessions: all conditions that are given hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cohort {
    /// Empty: of anybody.
    pub(crate) users: Vec<String>,
    /// Begun since this time of the server's clock, as text in UTC.
    pub(crate) since: Option<String>,
    /// From this network, such as `192.0.2.0/24`.
    pub(crate) network: Option<String>,
}

impl Cohort {
    /// Is it everybody?
    pub(crate) fn is_all(&self) -> bool {
        *self == Cohort::default()
    }
}

/// What would be revoked.
#[derive(Debug)]
pub(crate) struct Plan {
    cohort: Cohort,
    tables: Vec<Table>,
    accounts: Accounts,
    /// Rows of all tables together; this is the number that is confirmed.
    pub(crate) sessions: u64,
    /// Accounts that will have to choose a new password, if that is asked for.
    pub(crate) resets: Option<u64>,
}

#[derive(Debug)]
struct Table {
    revocable: Revocable,
    relation: Relation,
    /// Behind WHERE, for a table named `s`; the parameters are the cohort's.
    condition: String,
    count: u64,
}

/// The table of the accounts.
#[derive(Debug)]
struct Accounts {
    relation: Relation,
    id: String,
    password_reset: Option<String>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Outcome {
    pub(crate) revoked: u64,
    pub(crate) password_resets: u64,
}

/// `$1` to `$3`: the accounts, the time, the network.
const ANYBODY: &str = "$1::text[] IS NOT NULL AND coalesce($2::text, $3::text, '') IS NOT NULL";

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
    for column in [Some(&revoke.id), password_reset.as_ref()].into_iter().flatten() {
        if !relation.columns.contains_key(column) {
            return Ok(Err(format!("{} has no column `{column}`", relation.name)));
        }
    }
    let accounts = Accounts { relation, id: revoke.id.clone(), password_reset };
    let mut plan = Plan { cohort, tables: Vec::new(), accounts, sessions: 0, resets: None };
    for revocable in &revoke.from {
        match plan.table(connection, revocable)? {
            Ok(table) => {
                plan.sessions += table.count;
                plan.tables.push(table);
            }
            Err(reason) => return Ok(Err(reason)),
        }
    }
    if let Some(condition) = plan.resets() {
        let users = quote_table(&plan.accounts.relation.name);
        let sql = format!("SELECT count(*) FROM {users} AS s WHERE {condition}");
        let row = connection.query_one(&sql, &plan.cohort.parameters());
        let row = row.map_err(|e| Error::query("count the accounts", e))?;
        plan.resets = Some(unsigned(row.get(0)));
    }
    Ok(Ok(plan))
}

impl Cohort {
    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![&self.users, &self.since, &self.network]
    }

    /// Writes the condition on a table with sessions, or says which column it has not.
    ///
    /// The table has the name `s` in it.
    fn condition(&self, revocable: &Revocable) -> Result<String, String> {
        let Revocable { table, user, ip, since, set_true, set_now } = revocable;
        let lacks = |key: &str| {
            format!(
                "[[sessions.revoke.from]] has no `{key}` for {table}: only --all can revoke there"
            )
        };
        let mut condition = ANYBODY.to_owned();
        if !self.users.is_empty() {
            let user = user.as_ref().ok_or_else(|| lacks("user"))?;
            condition.push_str(&format!(" AND s.{}::text = ANY ($1)", quote_identifier(user)));
        }
        if self.since.is_some() {
            let since = since.as_ref().ok_or_else(|| lacks("since"))?;
            condition
                .push_str(&format!(" AND s.{} >= $2::text::timestamptz", quote_identifier(since)));
        }
        if self.network.is_some() {
            let ip = quote_identifier(ip.as_ref().ok_or_else(|| lacks("ip"))?);
            // Only what looks like an address is read as one.
            condition.push_str(&format!(
                " AND CASE WHEN s.{ip}::text ~ '^[0-9a-fA-F:.]+(/[0-9]+)?$' THEN s.{ip}::text::inet <<= $3::text::inet END"
            ));
        }
        // What is revoked already is not revoked again.
        let is_true = set_true.iter().map(|c| format!("s.{} IS TRUE", quote_identifier(c)));
        let is_set = set_now.iter().map(|c| format!("s.{} IS NOT NULL", quote_identifier(c)));
        let already: Vec<String> = is_true.chain(is_set).collect();
        if !already.is_empty() {
            condition.push_str(&format!(" AND NOT ({})", already.join(" AND ")));
        }
        Ok(condition)
    }
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
        let Revocable { user, ip, since, set_true, set_now, .. } = revocable;
        let named = [user, ip, since].into_iter().flatten().chain(set_true).chain(set_now);
        for column in named {
            if !relation.columns.contains_key(column) {
                return Ok(Err(format!("{} has no column `{column}`", relation.name)));
            }
        }
        let condition = match self.cohort.condition(revocable) {
            Ok(condition) => condition,
            Err(reason) => return Ok(Err(reason)),
        };
        let sql =
            format!("SELECT count(*) FROM {} AS s WHERE {condition}", quote_table(&relation.name));
        let row = connection.query_one(&sql, &self.cohort.parameters());
        let row =
            row.map_err(|e| Error::query(format!("count the sessions of {}", relation.name), e))?;
        let count = unsigned(row.get(0));
        Ok(Ok(Table { revocable: revocable.clone(), relation, condition, count }))
    }

    /// Lists the tables, and how many of their rows would be revoked.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (String, u64)> {
        self.tables.iter().map(|table| (table.relation.name.to_string(), table.count))
    }

    /// Writes which accounts must choose a new password, if any; the parameters are the cohort's.
    fn resets(&self) -> Option<String> {
        let Accounts { id, password_reset, .. } = &self.accounts;
        let column = quote_identifier(password_reset.as_ref()?);
        let id = quote_identifier(id);
        let Cohort { users, since, network } = &self.cohort;
        let who = if self.cohort.is_all() {
            "true".to_owned()
        } else if since.is_none() && network.is_none() && !users.is_empty() {
            // Also those who have no session.
            format!("s.{id}::text = ANY ($1)")
        } else {
            let of = |table: &Table| {
                let user = quote_identifier(table.revocable.user.as_ref()?);
                let (name, condition) = (quote_table(&table.relation.name), &table.condition);
                let of = format!("SELECT s.{user}::text FROM {name} AS s WHERE {condition}");
                Some(format!("s.{id}::text IN ({of})"))
            };
            let of: Vec<_> = self.tables.iter().filter_map(of).collect();
            if of.is_empty() { "false".to_owned() } else { of.join(" OR ") }
        };
        Some(format!("{ANYBODY} AND s.{column} IS NOT TRUE AND ({who})"))
    }

    /// Makes accounts choose a new password, then revokes their sessions.
    pub(crate) fn apply(
        &self,
        connection: &mut Connection,
        trail: Option<&Trail>,
        stop: &Stop,
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        // First: by the sessions it is known whose they were.
        if let (Some(condition), Some(column)) = (self.resets(), &self.accounts.password_reset) {
            let sql = format!("UPDATE ONLY {{}} AS t SET {} = true", quote_identifier(column));
            let change = Change {
                relation: &self.accounts.relation,
                condition: &condition,
                sql: &sql,
                user: Some(&self.accounts.id),
                action: "force-password-reset",
            };
            outcome.password_resets = self.carry_out(connection, &change, trail, stop)?;
        }
        for table in &self.tables {
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
                condition: &table.condition,
                sql: &sql,
                user: user.as_ref(),
                action: "revoke",
            };
            outcome.revoked += self.carry_out(connection, &change, trail, stop)?;
        }
        Ok(outcome)
    }

    /// Changes all rows that a condition is true of, some thousands at a time.
    fn carry_out(
        &self,
        connection: &mut Connection,
        change: &Change<'_>,
        trail: Option<&Trail>,
        stop: &Stop,
    ) -> Result<u64, Error> {
        let name = &change.relation.name;
        let failed = |e| Error::query(format!("{} in {name}", change.action), e).or_stopped(stop);
        let mut sum = 0;
        for leaf in &change.relation.leaves {
            let table = quote_table(&leaf.name);
            let changed = change.sql.replacen("{}", &table, 1);
            let id = change
                .user
                .map_or("NULL::text".to_owned(), |c| format!("t.{}", quote_identifier(c)));
            let mut sql = format!(
                "WITH d AS MATERIALIZED (SELECT s.ctid FROM ONLY {table} AS s WHERE {} LIMIT $4::int8 FOR UPDATE OF s), \
                 u AS ({changed} WHERE t.ctid = ANY (ARRAY(SELECT d.ctid FROM d)) RETURNING {id} AS id)",
                change.condition
            );
            let mut told = Vec::new();
            if let Some(trail) = trail {
                let detail = serde_json::json!({ "table": name.to_string() });
                let insert = trail.insert("u", change.action, &detail, 5, &mut told);
                sql.push_str(&format!(", a AS ({insert})"));
            }
            sql.push_str(" SELECT count(*), (SELECT count(*) FROM d) FROM u");
            let mut parameters = self.cohort.parameters();
            parameters.push(&BATCH);
            parameters.extend(told.iter().map(|text| text as &(dyn ToSql + Sync)));
            let mut tries = 0;
            loop {
                stop.check()?;
                let (changed, chosen) = match transact(connection, &sql, &parameters) {
                    Ok(rows) => rows,
                    Err(error)
                        if is_passing(&error) && tries < TRIES && stop.reason().is_none() =>
                    {
                        tries += 1;
                        tracing::info!("{name}: waiting for somebody else's lock: {error}");
                        continue;
                    }
                    Err(error) => return Err(failed(error)),
                };
                sum += changed;
                match (changed, chosen) {
                    (_, 0) => break,
                    // Changed by others meanwhile, or kept by a trigger, which would keep it for ever.
                    (0, _) if tries >= TRIES => {
                        let source = "the rows stay as they are: is there a trigger?".into();
                        return Err(Error::Query {
                            what: format!("{} in {name}", change.action),
                            source,
                        });
                    }
                    (0, _) => tries += 1,
                    _ => tries = 0,
                }
            }
        }
        Ok(sum)
    }
}

/// Carries one transaction out; returns how many rows were changed, and how many were to be.
fn transact(
    connection: &mut Connection,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(u64, u64), postgres::Error> {
    let mut transaction = connection.transaction()?;
    transaction.batch_execute(&limits(LOCK_TIMEOUT, BATCH_TIMEOUT))?;
    let row = transaction.query_one(sql, parameters)?;
    transaction.commit()?;
    Ok((unsigned(row.get(0)), unsigned(row.get(1))))
}

/// One change to one table.
struct Change<'a> {
    relation: &'a Relation,
    /// For a table named `s`.
    condition: &'a str,
    /// With `{}` where the table's name goes.
    sql: &'a str,
    /// The column with the account's id.
    user: Option<&'a String>,
    action: &'a str,
}

/// Locks accounts: a boolean becomes true, a time becomes that until when. Returns the ids of those that are there.
///
/// The inner error says why it cannot be done.
pub(crate) fn lock(
    connection: &mut Connection,
    revoke: &Revoke,
    users: &[String],
    until: &str,
    trail: Option<&Trail>,
) -> Result<Result<Vec<String>, String>, Error> {
    let Some(relation) = catalogue::find(connection, &revoke.users)? else {
        return Ok(Err(format!("there is no table {}", revoke.users)));
    };
    let Some(column) = &revoke.lock else {
        let message = "[sessions.revoke] has no `lock`: the column of the accounts that locks one";
        return Ok(Err(message.to_owned()));
    };
    let value = match relation.columns.get(column).map(String::as_str) {
        Some("boolean") => "$2::text IS NOT NULL",
        Some("timestamp with time zone") => "$2::text::timestamptz",
        Some(other) => {
            let message = format!(
                "{}.{column} is {other}: `lock` must be a boolean or a timestamp with time zone",
                relation.name
            );
            return Ok(Err(message));
        }
        None => return Ok(Err(format!("{} has no column `{column}`", relation.name))),
    };
    if !relation.columns.contains_key(&revoke.id) {
        return Ok(Err(format!("{} has no column `{}`", relation.name, revoke.id)));
    }
    let id = quote_identifier(&revoke.id);
    let mut sql = format!(
        "WITH u AS (UPDATE {} AS t SET {} = {value} WHERE t.{id}::text = ANY ($1) RETURNING t.{id} AS id)",
        quote_table(&relation.name),
        quote_identifier(column)
    );
    let mut told = Vec::new();
    if let Some(trail) = trail {
        let detail = serde_json::json!({ "table": relation.name.to_string(), "until": until });
        let insert = trail.insert("u", "lock", &detail, 3, &mut told);
        sql.push_str(&format!(", a AS ({insert})"));
    }
    sql.push_str(" SELECT u.id::text FROM u");
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&users, &until];
    parameters.extend(told.iter().map(|text| text as &(dyn ToSql + Sync)));
    let failed = |e| Error::query("lock the accounts", e);
    let mut transaction = connection.transaction().map_err(failed)?;
    transaction.batch_execute(&limits(LOCK_TIMEOUT, BATCH_TIMEOUT)).map_err(failed)?;
    let rows = transaction.query(&sql, &parameters).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(Ok(rows.iter().map(|row| row.get(0)).collect()))
}
