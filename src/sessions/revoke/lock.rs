//! Locks accounts in an incident. A lock that lasts longer stays as it is.

use postgres::types::ToSql;

use crate::config::Revoke;
use crate::db::{Connection, Error, quote_identifier};
use crate::sessions::audit::Trail;
use crate::sessions::catalogue;
use crate::sessions::expired::quote_table;
use crate::sessions::revoke::cohort::is_one_of;
use crate::sessions::{BATCH_TIMEOUT, LOCK_TIMEOUT, is_passing, limits};
use crate::stop::Stop;

/// How often somebody else's lock on an account is waited for.
const TRIES: u32 = 10;

/// Locks accounts: a boolean becomes true, a time becomes that until when. Returns the ids of those that are there.
///
/// The inner error says why it cannot be done.
pub(crate) fn lock(
    connection: &mut Connection,
    revoke: &Revoke,
    (users, until): (&[String], &str),
    trail: Option<&Trail>,
    stop: &Stop,
) -> Result<Result<Vec<String>, String>, Error> {
    let Some(relation) = catalogue::find(connection, &revoke.users)? else {
        return Ok(Err(format!("there is no table {}", revoke.users)));
    };
    let Some(column) = &revoke.lock else {
        let message = "[sessions.revoke] has no `lock`: the column of the accounts that locks one";
        return Ok(Err(message.to_owned()));
    };
    let quoted = quote_identifier(column);
    let value = match relation.columns.get(column).map(String::as_str) {
        Some("boolean") => "$2::text IS NOT NULL".to_owned(),
        Some("timestamp with time zone") => format!("greatest(t.{quoted}, $2::text::timestamptz)"),
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
    let id = format!("t.{}", quote_identifier(&revoke.id));
    let mut sql = format!(
        "WITH u AS (UPDATE {} AS t SET {quoted} = {value} WHERE {} RETURNING {id} AS id)",
        quote_table(&relation.name),
        is_one_of(&id, relation.columns.get(&revoke.id))
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
    let mut tries = 0;
    loop {
        match transact(connection, &sql, &parameters) {
            Ok(ids) => return Ok(Ok(ids)),
            Err(error) if is_passing(&error) && tries < TRIES && stop.reason().is_none() => {
                tries += 1;
                tracing::info!("{}: waiting for somebody else's lock: {error}", relation.name);
            }
            Err(error) => return Err(Error::query("lock the accounts", error).or_stopped(stop)),
        }
    }
}

/// Carries the one transaction out, and returns the ids.
fn transact(
    connection: &mut Connection,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<String>, postgres::Error> {
    let mut transaction = connection.transaction()?;
    transaction.batch_execute(&limits(LOCK_TIMEOUT, BATCH_TIMEOUT))?;
    let rows = transaction.query(sql, parameters)?;
    transaction.commit()?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
