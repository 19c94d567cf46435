//! Keeps two runs from doing the same to a database: a lock of this host, in a file, and one of all hosts, in the database.
//!
//! Whoever comes second is told of the first and ends with status 11; nobody waits. Commands that only read take none. With
//! the locks the work begins, and the monitor is told.

use crate::backup::repository::database_prefix;
use crate::commands::Context;
use crate::config::Config;
use crate::db::advisory_lock::AdvisoryLock;
use crate::db::{self, Target};
use crate::exit::{Exit, Failure};
use crate::lock::FileLock;

/// Both locks, until this is dropped.
#[must_use]
pub(super) struct Exclusive {
    _file: FileLock,
    in_database: Option<AdvisoryLock>,
}

impl Exclusive {
    /// Takes the locks of `command` on `database`; without a server to ask, only that of this host.
    ///
    /// `server` is where the lock is taken, and the key it has there: all who use the same key on the same database of the
    /// server exclude each other.
    pub(super) fn acquire(
        context: &Context,
        config: &Config,
        (command, database): (&str, &str),
        server: Option<(&Target, &str)>,
    ) -> anyhow::Result<Exclusive> {
        let name = format!("{command}-{}", database_prefix(database).trim_end_matches('/'));
        let holder = format!("run {} of process {}", context.run, std::process::id());
        let file = || FileLock::acquire(&config.state_dir, &name, &holder);
        let file = context.overhead.on(file)?;
        let Some((target, key)) = server else {
            context.pings.start();
            return Ok(Exclusive { _file: file, in_database: None });
        };
        let in_database = || AdvisoryLock::acquire(target, key, &context.stop);
        if let Some(lock) = context.overhead.on(in_database)? {
            context.pings.start();
            return Ok(Exclusive { _file: file, in_database: Some(lock) });
        }
        let by = AdvisoryLock::holder(target, key, &context.stop)?;
        let by = by.map_or(String::new(), |by| format!(" ({by})"));
        let message = format!("another host runs `opsctl {command}` on `{database}`{by}");
        Err(Failure::new(Exit::Locked, message).into())
    }

    /// Returns an error if the lock in the database is lost, and another host may be at work.
    pub(super) fn check(&mut self) -> Result<(), db::Error> {
        self.in_database.as_mut().map_or(Ok(()), AdvisoryLock::check)
    }
}
