//! The history on a PostgreSQL server, for hosts whose disk does not outlive a run: the schema `opsctl` of a database.
//!
//! The run that writes holds an advisory lock in a session of its own as long as it lives. The session belongs to a
//! thread, so that a server that is frozen costs the run a few seconds and no more; one that was lost is opened once
//! more. What the tables hold, `store.rs` knows.

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::Error;
use super::store::{Tables, VERSION};
use super::value::{Row, Value};
use crate::db::{self, Connection, Target, advisory_lock};
use crate::stop::Stop;

/// How long the server may take to let a run in.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may say nothing at all. Its own limit for a statement, below, is shorter.
const SILENCE: Duration = Duration::from_secs(4);

/// A session may be idle for as long as a run takes, and its end is noticed soon.
const SET_UP: &str = "
    SET search_path = opsctl, pg_temp; SET statement_timeout = '2s'; SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '10s'; SET client_min_messages = error;
    SET default_transaction_isolation = 'read committed';
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'";
const TABLES: &str = "
    DO $$ BEGIN IF to_regnamespace('opsctl') IS NULL THEN CREATE SCHEMA opsctl; END IF; END $$;
    CREATE TABLE opsctl.version (number bigint NOT NULL);
    INSERT INTO opsctl.version VALUES (2);
    CREATE TABLE opsctl.run (
        id text COLLATE \"C\" PRIMARY KEY, host text NOT NULL, command text NOT NULL, dry_run boolean NOT NULL,
        begun_at timestamptz NOT NULL, ended_at timestamptz, exit bigint, error text
    );
    CREATE INDEX run_begun_at ON opsctl.run (begun_at);
    CREATE TABLE opsctl.part (
        run text COLLATE \"C\" NOT NULL REFERENCES opsctl.run ON DELETE CASCADE, database text COLLATE \"C\" NOT NULL,
        exit bigint, figures text NOT NULL, error text, PRIMARY KEY (run, database)
    );
    CREATE TABLE opsctl.incident (
        id text COLLATE \"C\" PRIMARY KEY, command text NOT NULL, database text NOT NULL, subject text NOT NULL,
        kind text NOT NULL, severity text NOT NULL, what text NOT NULL, since timestamptz NOT NULL,
        opened_at timestamptz NOT NULL, announced text, UNIQUE (command, database, subject, kind)
    );
    CREATE TABLE opsctl.message (
        id text COLLATE \"C\" PRIMARY KEY, channel text NOT NULL, body text NOT NULL, queued_at timestamptz NOT NULL,
        attempts bigint NOT NULL, claimed_at timestamptz, error text
    );
    CREATE TABLE opsctl.silence (
        id text COLLATE \"C\" PRIMARY KEY, begun_at timestamptz NOT NULL, until timestamptz NOT NULL,
        why text NOT NULL, who text NOT NULL
    )";

/// The history of a server, with or without a session at the moment.
pub(super) struct Server {
    target: Target,
    session: Option<Session>,
    /// The run that lives here.
    run: Option<String>,
    is_in_transaction: bool,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The thread that has the connection; it ends with this.
struct Session(Sender<Job>);

impl Server {
    /// Connects, and makes the schema if there is none.
    pub(super) fn open(target: &Target) -> Result<Server, Error> {
        let mut server = Server::new(target);
        server.set_up(true)?;
        Ok(server)
    }

    /// Connects, if there is a history in that database.
    pub(super) fn open_if_there(target: &Target) -> Result<Option<Server>, Error> {
        let mut server = Server::new(target);
        Ok(server.set_up(false)?.then_some(server))
    }

    fn new(target: &Target) -> Server {
        let target = target.impatient(PATIENCE);
        Server { target, session: None, run: None, is_in_transaction: false }
    }

    /// Checks the version of the tables; returns whether there are any.
    fn set_up(&mut self, may_create: bool) -> Result<bool, Error> {
        let version =
            self.ask("look for the history", move |connection| version(connection, may_create))?;
        match version {
            None => Ok(false),
            Some(VERSION) => Ok(true),
            Some(other) => Err(Error::Version(self.target.describe(), other)),
        }
    }

    /// Has something done by the thread that has the connection; one is opened if there is none.
    fn ask<T: Send + 'static>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.target, self.run.as_deref())?,
        };
        let (sender, answer) = channel();
        let job = move |connection: &mut Connection| {
            sender.send(work(connection).map_err(|e| db::Error::query(what, e))).ok();
        };
        // A thread that has ended drops the job, and with it the sender.
        session.0.send(Box::new(job)).ok();
        match answer.recv_timeout(SILENCE) {
            Ok(Ok(done)) => {
                self.session = Some(session);
                Ok(done)
            }
            Ok(Err(error)) => {
                if !matches!(error, db::Error::Lost { .. }) {
                    self.session = Some(session);
                }
                Err(Error::Server(error))
            }
            Err(_) => Err(Error::Silent(self.target.describe())),
        }
    }

    /// Runs a statement; if the session turns out to be gone, in another one.
    fn run<T: Send + 'static>(
        &mut self,
        sql: &str,
        values: &[Value],
        work: fn(&mut Connection, &str, &[Value]) -> Result<T, postgres::Error>,
    ) -> Result<T, Error> {
        let sql = sql.replace('?', "$");
        let mut once = || {
            let (sql, values) = (sql.clone(), values.to_vec());
            self.ask("use the history", move |connection| work(connection, &sql, &values))
        };
        match once() {
            Err(Error::Server(db::Error::Lost { .. })) if !self.is_in_transaction => {
                let (sql, values) = (sql.clone(), values.to_vec());
                self.ask("use the history", move |connection| work(connection, &sql, &values))
            }
            result => result,
        }
    }
}

impl Session {
    /// Connects in a thread of its own, and takes the run's lock.
    fn open(target: &Target, run: Option<&str>) -> Result<Session, Error> {
        let (jobs, queue) = channel::<Job>();
        let (sender, opened) = channel();
        let place = target.describe();
        let (target, run) = (target.clone(), run.map(str::to_owned));
        let body = move || {
            let connect = || {
                let mut connection = target.connect("opsctl history", &Stop::new())?;
                let set_up = |connection: &mut Connection| {
                    connection.batch_execute(SET_UP)?;
                    run.as_deref().map_or(Ok(()), |run| take(connection, run))
                };
                set_up(&mut connection).map_err(|e| db::Error::query("set up the session", e))?;
                Ok(connection)
            };
            let mut connection = match connect() {
                Ok(connection) => connection,
                Err(error) => return drop(sender.send(Err(error))),
            };
            sender.send(Ok(())).ok();
            for job in queue {
                job(&mut connection);
            }
        };
        let spawned = std::thread::Builder::new().name("history".to_owned()).spawn(body);
        spawned.map_err(|e| Error::Io(place.clone().into(), e))?;
        // Each address of the server may take as long as the first.
        match opened.recv_timeout(SILENCE + PATIENCE) {
            Ok(opened) => opened.map(|()| Session(jobs)).map_err(Error::Server),
            Err(_) => Err(Error::Silent(place)),
        }
    }
}

impl Tables for Server {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error> {
        self.run(sql, values, |connection, sql, values| {
            connection.execute(sql, &parameters(values))
        })
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Error> {
        self.run(sql, values, |connection, sql, values| {
            connection.query(sql, &parameters(values))?.iter().map(Row::of_postgres).collect()
        })
    }

    fn begin(&mut self) -> Result<(), Error> {
        // Those who only read are not kept waiting.
        let sql = "BEGIN; LOCK TABLE incident IN SHARE ROW EXCLUSIVE MODE";
        let begun = self.run(sql, &[], |connection, sql, _| connection.batch_execute(sql));
        if begun.is_err() && self.session.is_some() {
            // It may have begun, and not have got the lock.
            self.ask("end a transaction", |connection| connection.batch_execute("ROLLBACK")).ok();
        }
        begun?;
        self.is_in_transaction = true;
        Ok(())
    }

    fn end(&mut self, is_good: bool) -> Result<(), Error> {
        self.is_in_transaction = false;
        if self.session.is_none() {
            // The transaction went with it.
            return if is_good { Err(Error::Silent(self.target.describe())) } else { Ok(()) };
        }
        let sql = if is_good { "COMMIT" } else { "ROLLBACK" };
        self.ask("end a transaction", move |connection| connection.batch_execute(sql))
    }

    fn hold(&mut self, run: &str) -> Result<(), Error> {
        self.run = Some(run.to_owned());
        let run = run.to_owned();
        self.ask("take the lock of the run", move |connection| take(connection, &run))
    }

    fn release(&mut self) {
        // The lock stays with the session, which says nothing any more: the run has ended.
        self.run = None;
    }

    fn alive(&mut self, runs: &[String]) -> Result<BTreeSet<String>, Error> {
        let sql = "SELECT (classid::int8 << 32) | objid::int8 FROM pg_catalog.pg_locks \
            WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND database = \
            (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
        let mut held = BTreeSet::new();
        for mut row in self.query(sql, &[])? {
            held.insert(row.number::<i64>()?);
        }
        let is_held = |run: &&String| held.contains(&number(run));
        Ok(runs.iter().filter(is_held).cloned().collect())
    }
}

fn parameters(values: &[Value]) -> Vec<&(dyn postgres::types::ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn postgres::types::ToSql + Sync)).collect()
}

fn number(run: &str) -> i64 {
    advisory_lock::number(&format!("run {run}"))
}

fn take(connection: &mut Connection, run: &str) -> Result<(), postgres::Error> {
    let sql = "SELECT pg_catalog.pg_try_advisory_lock($1)";
    connection.execute(sql, &[&number(run)]).map(drop)
}

/// Returns the version of the tables, making them first if there are none and that is wanted.
fn version(connection: &mut Connection, may_create: bool) -> Result<Option<i64>, postgres::Error> {
    // Not to_regclass: while a session waits for an advisory lock, it does not hear that its answer is out of date.
    const IS_THERE: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = 'opsctl' AND c.relname = 'version')";
    if !connection.query_one(IS_THERE, &[])?.try_get::<_, bool>(0)? {
        if !may_create {
            return Ok(None);
        }
        let mut transaction = connection.transaction()?;
        let lock = "SELECT pg_catalog.pg_advisory_xact_lock($1)";
        transaction.execute(lock, &[&advisory_lock::number("history")])?;
        // Another run may have been first.
        if !transaction.query_one(IS_THERE, &[])?.try_get::<_, bool>(0)? {
            transaction.batch_execute(TABLES)?;
        }
        transaction.commit()?;
    }
    let row = connection.query_one("SELECT number FROM opsctl.version", &[])?;
    row.try_get(0).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::db::testing::{self, eventually};
    use crate::history::Place;
    use crate::history::store::Store;
    use crate::history::suite;

    suite::conformance!(suite::Guarded::on_a_server());

    fn target() -> Target {
        let server = testing::server();
        server.target(&server.create_database())
    }

    #[test]
    fn a_database_without_history_is_left_as_it_is() {
        let target = target();
        let place = Place::Server(Box::new(target.clone()));
        assert!(Store::open_if_there(&place).unwrap().is_none());
        let mut connection = target.connect("test", &Stop::new()).unwrap();
        let sql = "SELECT count(*) FROM pg_namespace WHERE nspname = 'opsctl'";
        assert_eq!(connection.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
    }

    #[test]
    fn many_may_make_the_schema_at_once() {
        let target = target();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Server::open(&target).unwrap());
            }
        });
        let mut connection = target.connect("test", &Stop::new()).unwrap();
        connection.batch_execute("UPDATE opsctl.version SET number = 3").unwrap();
        assert!(matches!(Server::open(&target), Err(Error::Version(_, 3))));
    }

    #[test]
    fn a_session_that_was_lost_is_opened_again_with_its_lock() {
        let server = testing::server();
        let target = target();
        let place = Place::Server(Box::new(target.clone()));
        let mut store = Store::open(&place).unwrap();
        suite::begin(&mut store, "20261121T020000Z-000001");
        server.end_sessions(target.database_name());
        store.part_begun("20261121T020000Z-000001", "ip2a").unwrap();
        let runs = Store::open(&place).unwrap().runs(Moment::default(), &[]).unwrap();
        assert_eq!(runs[0].state, crate::history::State::Running);
        assert_eq!(runs[0].databases.len(), 1);
        drop(store);
        eventually(|| {
            let runs = Store::open(&place).unwrap().runs(Moment::default(), &[]).unwrap();
            runs[0].state == crate::history::State::Killed
        });
    }
}
