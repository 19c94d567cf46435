//! A lock in the database itself, so that two hosts do not do the same to it at once.
//!
//! It is a session's advisory lock: the server releases it when the session ends, however that comes
//! about. It works on a hot standby, where it excludes only the users of that standby; primary and
//! standby have separate lock tables. It does not work through a pooler that gives each transaction
//! another session.
//!
//! A server takes a moment to notice that the session of a killed run is gone. So whoever finds the lock taken waits that
//! moment, and says so with a second lock, a shared one. A holder that is alive does not give the lock up while somebody
//! waits: of two runs that begin at the same time one is refused, however short the other one is.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::connection::Connection;
use super::error::{Error, source};
use super::target::Target;
use crate::stop::Stop;

/// How long the session of a run that is gone may still hold its lock, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// A held lock. Dropping it releases it, once nobody waits for it any more: after two seconds at most.
#[derive(Debug)]
pub(crate) struct AdvisoryLock {
    session: Connection,
    key: i64,
    /// The lock of those who wait.
    waiting: i64,
}

impl AdvisoryLock {
    /// Takes the lock `key` in the target's database, or returns `None` if another session has it and is alive.
    ///
    /// All who use the same key on the same database exclude each other. It takes a connection of its
    /// own, which stays open.
    pub(crate) fn acquire(
        target: &Target,
        key: &str,
        stop: &Stop,
    ) -> Result<Option<AdvisoryLock>, Error> {
        AdvisoryLock::take(target, key, PATIENCE, stop)
    }

    /// As [`AdvisoryLock::acquire`], but does not wait for the session of a run that may be gone.
    pub(crate) fn try_acquire(
        target: &Target,
        key: &str,
        stop: &Stop,
    ) -> Result<Option<AdvisoryLock>, Error> {
        AdvisoryLock::take(target, key, Duration::ZERO, stop)
    }

    fn take(
        target: &Target,
        key: &str,
        patience: Duration,
        stop: &Stop,
    ) -> Result<Option<AdvisoryLock>, Error> {
        let mut session = target.connect("opsctl lock", stop)?;
        let failed =
            |e| Error::query(format!("take the advisory lock `{key}`"), e).or_stopped(stop);
        // Since version 14 the server may be told to end idle sessions, and this one is nothing else.
        let stay = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
                    WHERE name = 'idle_session_timeout'";
        session.batch_execute(stay).map_err(failed)?;
        let (number, waiting) = (number(key), number(&format!("{key} is waited for")));
        // First: a holder that does not see it has released the lock already when it is asked for.
        session
            .execute("SELECT pg_catalog.pg_advisory_lock_shared($1)", &[&waiting])
            .map_err(failed)?;
        let began = Instant::now();
        loop {
            let row = session.query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[&number]);
            if row.and_then(|row| row.try_get(0)).map_err(failed)? {
                break;
            }
            if began.elapsed() >= patience {
                return Ok(None);
            }
            stop.sleep(PAUSE).map_err(|_| Error::Stopped)?;
        }
        session
            .execute("SELECT pg_catalog.pg_advisory_unlock_shared($1)", &[&waiting])
            .map_err(failed)?;
        Ok(Some(AdvisoryLock { session, key: number, waiting }))
    }

    /// Returns an error if the session that holds the lock is gone, and the lock with it.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        let what = "check the advisory lock";
        let sql = "SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted \
                   AND pid = pg_catalog.pg_backend_pid() AND objsubid = 1 \
                   AND (classid::int8 << 32) | objid::int8 = $1";
        // Whatever keeps the session from answering: nobody knows any more who has the lock.
        let lost = |e| Error::Lost { what: what.to_owned(), source: source(e) };
        let rows = self.session.query(sql, &[&self.key]).map_err(lost)?;
        if rows.is_empty() {
            let source = "the session does not have it any more".into();
            return Err(Error::Lost { what: what.to_owned(), source });
        }
        Ok(())
    }

    /// Says who holds the lock `key`: process number, application, where from, since when.
    ///
    /// `None` if nobody does, which may be true the moment after [`AdvisoryLock::acquire`] failed.
    pub(crate) fn holder(target: &Target, key: &str, stop: &Stop) -> Result<Option<String>, Error> {
        let mut session = target.connect("opsctl lock", stop)?;
        let failed = |e| {
            Error::query(format!("see who holds the advisory lock `{key}`"), e).or_stopped(stop)
        };
        let sql = "SELECT pg_catalog.format('process %s%s%s%s', l.pid, \
                       ' (' || nullif(a.application_name, '') || ')', \
                       ' from ' || coalesce(pg_catalog.host(a.client_addr), \
                           CASE WHEN a.client_port = -1 THEN 'a local socket' END), \
                       ' since ' || pg_catalog.to_char(a.backend_start AT TIME ZONE 'UTC', \
                           'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')) \
                   FROM pg_catalog.pg_locks l \
                   LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
                   AND (l.classid::int8 << 32) | l.objid::int8 = $1 \
                   AND l.database = (SELECT oid FROM pg_catalog.pg_database \
                                     WHERE datname = pg_catalog.current_database())";
        let row = session.query_opt(sql, &[&number(key)]).map_err(failed)?;
        row.map(|row| row.try_get(0)).transpose().map_err(failed)
    }
}

impl Drop for AdvisoryLock {
    fn drop(&mut self) {
        let sql = "SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 \
                   AND (classid::int8 << 32) | objid::int8 = $1 AND database = (SELECT oid \
                       FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
        let began = Instant::now();
        // A session that is gone has nothing to give up.
        while let Ok(rows) = self.session.query(sql, &[&self.waiting])
            && !rows.is_empty()
            && began.elapsed() < 2 * PATIENCE
        {
            // Nobody ends this sleep: to be refused takes the others no longer than this.
            Stop::new().sleep(PAUSE).ok();
        }
    }
}

/// Turns a name into PostgreSQL's 64-bit key.
pub(crate) fn number(key: &str) -> i64 {
    let hash = Sha256::digest(format!("opsctl:{key}"));
    hash.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::testing;

    #[test]
    fn numbers_do_not_change() {
        // Another version of opsctl on another host must take the same lock.
        assert_eq!(number("backup"), -5_823_012_268_789_779_281);
    }

    #[test]
    fn one_holds_it_at_a_time() {
        let server = testing::server();
        let target = server.target(&server.create_database());
        let stop = Stop::new();
        assert_eq!(AdvisoryLock::holder(&target, "k", &stop).unwrap(), None);
        let mut held = AdvisoryLock::try_acquire(&target, "k", &stop).unwrap().unwrap();
        assert!(AdvisoryLock::try_acquire(&target, "k", &stop).unwrap().is_none());
        held.check().unwrap();
        let holder = AdvisoryLock::holder(&target, "k", &stop).unwrap().unwrap();
        let start = "(opsctl lock) from a local socket since 20";
        assert!(holder.starts_with("process ") && holder.contains(start), "{holder}");
        // Another key and another database are other locks.
        assert!(AdvisoryLock::try_acquire(&target, "l", &stop).unwrap().is_some());
        let elsewhere = target.with_database("postgres");
        assert!(AdvisoryLock::try_acquire(&elsewhere, "k", &stop).unwrap().is_some());
        drop(held);
        testing::eventually(|| AdvisoryLock::try_acquire(&target, "k", &stop).unwrap().is_some());
    }

    #[test]
    fn a_living_holder_gives_it_to_nobody_who_waits() {
        let server = testing::server();
        let target = server.target(&server.create_database());
        let held = AdvisoryLock::acquire(&target, "k", &Stop::new()).unwrap().unwrap();
        let (other, key) = (target.clone(), number("k is waited for"));
        let other = std::thread::spawn(move || {
            AdvisoryLock::acquire(&other, "k", &Stop::new()).unwrap().is_some()
        });
        let mut session = target.connect("test", &Stop::new()).unwrap();
        let sql = "SELECT FROM pg_locks WHERE (classid::int8 << 32) | objid::int8 = $1";
        testing::eventually(|| !session.query(sql, &[&key]).unwrap().is_empty());
        drop(held);
        assert!(!other.join().unwrap(), "it ran after the other, and not instead of it");
        assert!(AdvisoryLock::acquire(&target, "k", &Stop::new()).unwrap().is_some());
    }

    #[test]
    fn a_lost_session_is_noticed() {
        let server = testing::server();
        let target = server.target(&server.create_database());
        let mut held = AdvisoryLock::acquire(&target, "k", &Stop::new()).unwrap().unwrap();
        server.end_sessions(target.database_name());
        assert!(matches!(held.check(), Err(Error::Lost { .. })));
        let again = || AdvisoryLock::acquire(&target, "k", &Stop::new()).unwrap().is_some();
        testing::eventually(again);
    }
}
