//! The database that a restore makes: built under a name of its own, and given its real name only when it is whole.
//!
//! A restore that ends early leaves nothing but a database named after its run, and the next run removes that one
//! when nobody is at work on it. What is replaced is renamed, in the same transaction, and never dropped here.

use std::time::Duration;

use anyhow::Context as _;
use postgres::Client;
use postgres::error::SqlState;

use crate::backup::restore::selection::Contents;
use crate::db::advisory_lock::AdvisoryLock;
use crate::db::{self, Connection, Target, quote_identifier};
use crate::exit::{Exit, Failure};
use crate::id::RunId;
use crate::stop::Stop;

/// What the name of an unfinished database begins with.
const UNFINISHED: &str = "opsctl_restore_";
/// The longest name that PostgreSQL keeps whole (`NAMEDATALEN` - 1).
const MAX_NAME: usize = 63;
/// How often others are asked to leave a database that is to be renamed.
const SWAP_ATTEMPTS: u32 = 10;

/// What may differ between the backup's database and the new one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Like {
    /// Leave owners as whoever restores.
    pub(crate) no_owner: bool,
    /// Leave privileges out.
    pub(crate) no_privileges: bool,
    /// Do without its tablespace, and where the server does not have its locale with locale C: content does not
    /// depend on how texts are sorted.
    pub(crate) any_locale: bool,
}

/// A database in the making, which nobody else may connect to. Dropping this drops the database.
pub(crate) struct Unfinished {
    admin: Connection,
    /// Tells others that somebody is at work on it.
    _lock: AdvisoryLock,
    name: String,
    finished: bool,
}

impl Unfinished {
    /// Creates an empty database on the server of `admin`, with encoding and locale of the one that was dumped.
    pub(crate) fn create(
        admin: &Target,
        run: &RunId,
        contents: &Contents,
        like: Like,
        stop: &Stop,
    ) -> anyhow::Result<Unfinished> {
        sweep(admin, stop)?;
        let name = format!("{UNFINISHED}{run}");
        let lock = AdvisoryLock::try_acquire(admin, &name, stop)?;
        let lock = lock.with_context(|| format!("another session is at work on `{name}`"))?;
        let mut connection = admin.connect("opsctl restore", stop)?;
        let id = quote_identifier(&name);
        let client = connection.client();
        if let Some(owner) = contents.database_owner().filter(|_| !like.no_owner) {
            check_role(client, &owner)?;
        }
        create_database(client, &id, &contents.database_options(), like)?;
        let mut unfinished = Unfinished { admin: connection, _lock: lock, name, finished: false };
        // Superusers and the owner, which is the role that restores, can still connect.
        let revoke = format!("REVOKE CONNECT, TEMPORARY ON DATABASE {id} FROM PUBLIC");
        execute(unfinished.admin.client(), &revoke)?;
        Ok(unfinished)
    }

    /// Returns where to connect to it.
    pub(crate) fn target(&self) -> Target {
        self.admin.target().with_database(&self.name)
    }

    /// Gives it owner, settings and privileges of the one that was dumped, and its real name.
    ///
    /// A database that has that name is renamed to the name that is returned, together with this one or not at all.
    pub(crate) fn finish(
        mut self,
        name: &str,
        contents: &Contents,
        like: Like,
        replace: Option<&RunId>,
        stop: &Stop,
    ) -> anyhow::Result<Option<String>> {
        tracing::info!("giving `{name}` its name");
        let id = quote_identifier(&self.name);
        let client = self.admin.client();
        execute(client, &format!("GRANT CONNECT, TEMPORARY ON DATABASE {id} TO PUBLIC"))?;
        for statement in contents.database_statements(&id, like) {
            execute(client, &statement)?;
        }
        let old = replace.map(|run| set_aside_name(name, run));
        let target = self.admin.target().clone();
        let mut swap = String::from("BEGIN; SET LOCAL statement_timeout = '30s';");
        let to = quote_identifier(name);
        if let Some(old) = &old {
            swap += &format!("ALTER DATABASE {to} RENAME TO {};", quote_identifier(old));
        }
        swap += &format!("ALTER DATABASE {id} RENAME TO {to}; COMMIT");
        let mut attempt = 1;
        loop {
            stop.check()?;
            let names = if old.is_some() { vec![name, &self.name] } else { vec![&*self.name] };
            let outcome = std::thread::scope(|scope| {
                // The server waits a few seconds for others to leave, holding the lock that keeps new ones out.
                let usher = scope.spawn(|| end_sessions(&target, &names, stop));
                let outcome = self.admin.client().batch_execute(&swap);
                if let Ok(Err(error)) = usher.join() {
                    tracing::debug!("{:#}", anyhow::Error::from(error));
                }
                outcome
            });
            match outcome {
                Ok(()) => break,
                Err(error) => {
                    self.admin.client().batch_execute("ROLLBACK").ok();
                    let in_use = error.code() == Some(&SqlState::OBJECT_IN_USE);
                    if !in_use || attempt == SWAP_ATTEMPTS {
                        let error = db::Error::query(format!("give `{name}` its name"), error);
                        return Err(error.into());
                    }
                }
            }
            attempt += 1;
            stop.sleep(Duration::from_millis(200))?;
        }
        self.finished = true;
        Ok(old)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Not the run's own token: that it was asked to stop is a reason to clean up.
        let admin = self.admin.target().with_database("postgres");
        if let Err(error) = drop_database(&admin, &self.name, &Stop::new()) {
            let name = &self.name;
            tracing::warn!("database `{name}` is left, the next restore removes it: {error:#}");
        }
    }
}

/// Creates a database, whose name is quoted for SQL.
fn create_database(client: &mut Client, id: &str, options: &str, like: Like) -> anyhow::Result<()> {
    if !like.any_locale {
        return execute(client, &format!("CREATE DATABASE {id} {options}"));
    }
    let options = options.split(" TABLESPACE = ").next().unwrap_or_default();
    if let Err(error) = client.batch_execute(&format!("CREATE DATABASE {id} {options}")) {
        let error = db::Error::query("create a database with the locale of the dump", error);
        tracing::warn!("{:#}; it is restored with locale C", anyhow::Error::from(error));
        let encoding = options.split("ENCODING = ").nth(1).and_then(|o| o.split(' ').next());
        let encoding = encoding.unwrap_or("'UTF8'");
        let options = format!("TEMPLATE template0 ENCODING {encoding} LOCALE 'C'");
        execute(client, &format!("CREATE DATABASE {id} {options}"))?;
    }
    Ok(())
}

/// Makes sure of the owner now: it is handed over at the end, and hours of work would be lost then.
fn check_role(client: &mut Client, owner: &str) -> anyhow::Result<()> {
    let sql = "SELECT FROM pg_catalog.pg_roles WHERE rolname = $1";
    let found = client.query_opt(sql, &[&owner]);
    if found.map_err(|e| db::Error::query("look for the owner", e))?.is_some() {
        return Ok(());
    }
    let message =
        format!("the owner of the database, role `{owner}`, does not exist on the server");
    Err(Failure::new(Exit::Failed, message)
        .hint("Create the missing roles with --globals, or leave owners out with --no-owner.")
        .into())
}

/// What stands in the place of the restored database.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Present {
    pub(crate) bytes: u64,
    /// Who is connected: user, application, and where from.
    pub(crate) sessions: Vec<String>,
}

/// Looks whether there is a database of this name.
pub(crate) fn present(admin: &Target, name: &str, stop: &Stop) -> anyhow::Result<Option<Present>> {
    let mut connection = admin.connect("opsctl restore", stop)?;
    let sql =
        "SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = $1";
    let failed = |e| db::Error::query(format!("look at database `{name}`"), e);
    let client = connection.client();
    let Some(row) = client.query_opt(sql, &[&name]).map_err(failed)? else { return Ok(None) };
    let bytes = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
    let sql = "SELECT pg_catalog.format('%s%s from %s', usename, \
                 ' (' || nullif(application_name, '') || ')', \
                 coalesce(pg_catalog.host(client_addr), 'a local socket')) \
               FROM pg_catalog.pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' \
               AND pid <> pg_catalog.pg_backend_pid() ORDER BY 1";
    let sessions = client.query(sql, &[&name]).map_err(failed)?;
    Ok(Some(Present { bytes, sessions: sessions.iter().map(|row| row.get(0)).collect() }))
}

/// Returns how much room there is where the server keeps its data; `None` if that is not on this machine, or not told.
pub(crate) fn free_bytes(admin: &Target, stop: &Stop) -> anyhow::Result<Option<u64>> {
    // By TCP it may be another machine, or another file system of this one.
    if !admin.host_label().starts_with('/') {
        return Ok(None);
    }
    let sql = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'";
    let mut connection = admin.connect("opsctl restore", stop)?;
    let row = connection.client().query_opt(sql, &[]);
    let row = row.map_err(|e| db::Error::query("ask where the data is", e))?;
    let figures = row.and_then(|row| rustix::fs::statvfs(row.get::<_, &str>(0)).ok());
    Ok(figures.map(|figures| figures.f_bavail.saturating_mul(figures.f_frsize)))
}

/// Is there nothing in a database that a restore could meet?
pub(crate) fn is_empty(target: &Target, stop: &Stop) -> anyhow::Result<bool> {
    const SQL: &str = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class c \
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
          WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384) \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid >= 16384) \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid >= 16384 AND n.nspname !~ '^pg_') \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)";
    let mut connection = target.connect("opsctl restore", stop)?;
    let row = connection.client().query_one(SQL, &[]);
    Ok(row.map_err(|e| db::Error::query("see whether the database is empty", e))?.get(0))
}

/// Removes a database and whatever keeps it from being removed.
pub(crate) fn drop_database(admin: &Target, name: &str, stop: &Stop) -> anyhow::Result<()> {
    let mut connection = admin.connect("opsctl restore", stop)?;
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_subscription s \
               JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = $1)";
    let subscribed = connection.client().query_one(sql, &[&name]);
    if subscribed.is_ok_and(|row| row.get(0)) {
        leave_subscriptions(&admin.with_database(name), stop)?;
    }
    let id = quote_identifier(name);
    execute(connection.client(), &format!("DROP DATABASE IF EXISTS {id} WITH (FORCE)"))
}

/// Forgets the subscriptions of a restored database, without a word to the publisher: it is not theirs.
fn leave_subscriptions(target: &Target, stop: &Stop) -> anyhow::Result<()> {
    let mut connection = target.connect("opsctl restore", stop)?;
    let client = connection.client();
    let sql = "SELECT pg_catalog.format('%I', subname) FROM pg_catalog.pg_subscription s \
               JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
               WHERE d.datname = pg_catalog.current_database()";
    let rows = client.query(sql, &[]);
    for row in rows.map_err(|e| db::Error::query("list the subscriptions", e))? {
        let name: String = row.get(0);
        for statement in [
            format!("ALTER SUBSCRIPTION {name} DISABLE"),
            format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {name}"),
        ] {
            execute(client, &statement)?;
        }
    }
    Ok(())
}

/// Removes what restores left that were killed.
fn sweep(admin: &Target, stop: &Stop) -> anyhow::Result<()> {
    let mut connection = admin.connect("opsctl restore", stop)?;
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname::text, $1)";
    let rows = connection.client().query(sql, &[&UNFINISHED]);
    for row in rows.map_err(|e| db::Error::query("list the databases", e))? {
        let name: String = row.get(0);
        // Whatever else has such a name is somebody's.
        if name.strip_prefix(UNFINISHED).and_then(RunId::parse).is_none() {
            continue;
        }
        if let Some(_lock) = AdvisoryLock::try_acquire(admin, &name, stop)? {
            tracing::info!("removing `{name}`, which a restore left that did not end");
            drop_database(admin, &name, stop)?;
        }
    }
    Ok(())
}

/// Asks all others to leave the databases, again and again for a moment: applications connect anew at once.
fn end_sessions(admin: &Target, names: &[&str], stop: &Stop) -> Result<(), db::Error> {
    const SQL: &str = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
        WHERE datname = ANY ($1) AND pid <> pg_catalog.pg_backend_pid()";
    let mut connection = admin.connect("opsctl restore", stop)?;
    for _ in 0..8 {
        let ended = connection.client().query(SQL, &[&names]);
        ended.map_err(|e| db::Error::query("end the sessions of others", e))?;
        stop.sleep(Duration::from_millis(100))?;
    }
    Ok(())
}

/// Returns the name under which a replaced database is kept.
fn set_aside_name(name: &str, run: &RunId) -> String {
    let suffix = format!("_before_{run}");
    let mut end = name.len().min(MAX_NAME - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

fn execute(client: &mut Client, statement: &str) -> anyhow::Result<()> {
    let done = client.batch_execute(statement);
    let words: Vec<_> = statement.split_whitespace().take(3).collect();
    let what = || format!("execute `{} …`", words.join(" "));
    done.map_err(|error| match db::Error::query(what(), error) {
        refused @ db::Error::Refused { .. } => anyhow::Error::from(refused)
            .context(Failure::new(Exit::Database, "the role may not do that").hint(
                "A restore needs a role that may create databases, and one that is a superuser or a member of the \
                 owner to hand it over (--no-owner does not).",
            )),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_replaced_databases_fit() {
        let run = RunId::parse("20261121T021500Z-4f3a9c").unwrap();
        assert_eq!(set_aside_name("ip2a", &run), "ip2a_before_20261121T021500Z-4f3a9c");
        let long = set_aside_name(&"ü".repeat(40), &run);
        assert!(
            long.len() <= MAX_NAME && long.ends_with("_before_20261121T021500Z-4f3a9c"),
            "{long}"
        );
    }
}
