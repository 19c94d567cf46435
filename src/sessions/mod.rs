//! Sessions, tokens and locks whose time is over: which rows that are, and how they go without anybody noticing.
//!
//! `rule` says what is expired, `preset` knows the tables of frameworks, `expired` writes the condition, `batch` and `walk` decide
//! what one transaction takes: they do no I/O. `plan` looks at the database and refuses what is not sure; only it makes a
//! [`plan::Cleaning`], and `apply` takes nothing else; it waits for `replicas`. `unlock` resets locks that have lapsed, `revoke` ends
//! sessions in an incident, `audit` tells a table of both, `sample` shows a few rows, `catalogue` reads the server's.
//!
//! The time is the server's, taken once. Nothing is vacuumed here, and no table of a framework is guessed at.

use std::time::Duration;

use postgres::error::SqlState;

use crate::db::{Connection, Error, Target};
use crate::stop::Stop;

pub(crate) mod apply;
pub(crate) mod audit;
mod batch;
pub(crate) mod catalogue;
pub(crate) mod expired;
pub(crate) mod plan;
pub(crate) mod preset;
pub(crate) mod replicas;
pub(crate) mod revoke;
pub(crate) mod rule;
pub(crate) mod sample;
pub(crate) mod unlock;
mod walk;

/// How long a statement may wait for a lock of somebody else.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one transaction may take at all; batches aim far below it.
const BATCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one look at a whole table may take, before estimates have to do.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a look may wait for a lock: somebody may be altering the table.
const LOOK_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects, and fixes what the text of values depends on. To count goes at the pace of one process: others have to work, too.
///
/// What row-level security hides from this role is an error, and not as if it were not there. No look waits for long for a lock.
pub(crate) fn connect(target: &Target, stop: &Stop) -> Result<Connection, Error> {
    let mut connection = target.connect("opsctl cleanup-sessions", stop)?;
    let settings = format!(
        "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET row_security = off; \
         SET lock_timeout = {}; SET statement_timeout = 0; SET max_parallel_workers_per_gather = 0; \
         SET plan_cache_mode = force_custom_plan; SET jit = off; SET idle_in_transaction_session_timeout = '60s'",
        LOOK_LOCK_TIMEOUT.as_millis()
    );
    connection
        .batch_execute(&settings)
        .map_err(|e| Error::query("prepare the session", e).or_stopped(stop))?;
    Ok(connection)
}

/// Says how long the transaction that has begun may wait and take.
fn limits(wait: Duration, time: Duration) -> String {
    format!(
        "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}",
        wait.as_millis(),
        time.as_millis().max(1)
    )
}

/// May the same succeed a moment later, or with fewer rows?
fn is_passing(error: &postgres::Error) -> bool {
    let Some(code) = error.code() else { return false };
    [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        // Somebody referred to a row between the look and the deletion.
        SqlState::FOREIGN_KEY_VIOLATION,
    ]
    .contains(code)
}

/// Returns a count of the server as our own.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
