//! What autovacuum left to be done in a database, and how it is done without anybody noticing.
//!
//! A session here waits only a moment for a lock, and ends its own statement when opsctl is gone. Nothing here takes a lock that keeps
//! reads or writes out for longer than that moment: what would is printed, and a person decides.

use std::time::Duration;

use crate::db::{Connection, Error, ServerVersion, Target};
use crate::stop::Stop;

pub(crate) mod apply;
pub(crate) mod bloat;
pub(crate) mod guard;
mod latency;
pub(crate) mod leftover;
pub(crate) mod look;
pub(crate) mod need;
pub(crate) mod past;
pub(crate) mod plan;
mod progress;
mod reindex;
pub(crate) mod report;
mod statement;
mod watch;

/// How sessions of a run call themselves.
pub(crate) const APPLICATION: &str = "opsctl/db-maintain";

/// What is known of a server before anything is asked.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) version: ServerVersion,
    pub(crate) is_standby: bool,
    pub(crate) role: String,
    /// May it see what other sessions do?
    pub(crate) may_monitor: bool,
    pub(crate) home: Home,
}

/// Whether the cores and disks that are seen here are those of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Here,
    /// They are, but this role may not see where the server has its files.
    HereSomewhere,
    /// It is on another host, or in a container with addresses of its own.
    Elsewhere,
}

impl Server {
    /// Does it have a defect that damages indexes when they are built beside their table's work?
    ///
    /// 14.0 to 14.3 leave rows out: <https://www.postgresql.org/docs/release/14.4/>.
    fn damages_indexes(&self) -> bool {
        (140_000..140_004).contains(&self.version.0)
    }
}

/// Connects, and makes sure that the session waits for nobody and does not outlive its run.
pub(crate) fn connect(
    target: &Target,
    lock_timeout: Duration,
    stop: &Stop,
) -> Result<Connection, Error> {
    let mut connection = target.connect(APPLICATION, stop)?;
    // The last is there since version 14, and not on every system.
    let settings = format!(
        "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET search_path = pg_catalog; SET jit = off; \
         SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '60s'; SET lock_timeout = {}; \
         SELECT set_config(name, '1s', false) FROM pg_settings WHERE name = 'client_connection_check_interval' \
         AND max_val <> '0' AND version() ~ 'linux'",
        lock_timeout.as_millis()
    );
    connection
        .batch_execute(&settings)
        .map_err(|e| Error::query("prepare the session", e).or_stopped(stop))?;
    Ok(connection)
}

/// Asks which server it is, and as whom.
pub(crate) fn server(connection: &mut Connection) -> Result<Server, Error> {
    let sql = "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), current_user::text, \
               pg_has_role('pg_read_all_stats', 'USAGE'), \
               inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', \
               pg_has_role('pg_read_all_settings', 'USAGE')";
    let row = connection.query_one(sql, &[]);
    let row = row.map_err(|e| Error::query("ask which server it is", e))?;
    Ok(Server {
        version: ServerVersion(row.get::<_, i32>(0).unsigned_abs()),
        is_standby: row.get(1),
        role: row.get(2),
        may_monitor: row.get(3),
        home: match (row.get(4), row.get(5)) {
            (true, true) => Home::Here,
            (true, false) => Home::HereSomewhere,
            (false, _) => Home::Elsewhere,
        },
    })
}
