//! The session that watches while others work: it runs the probe, and looks at replicas and WAL.

use std::time::{Duration, Instant};

use super::guard::{Guard, Halt, Standing};
use super::latency::{Latency, Pace};
use super::progress;
use crate::db::{Connection, Error, Target};
use crate::stop::Stop;

/// How often the probe is run.
const PAUSE: Duration = Duration::from_millis(200);
/// Every so many times replicas and WAL are looked at as well.
const SELDOM: u32 = 5;
/// How often the probe is run before anything is done, and with which pauses, to know what is usual.
const FIRST: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// A probe that takes longer is given up, and counts as so long.
const LONGEST: Duration = Duration::from_secs(5);

/// The one who watches.
pub(super) struct Watch<'g> {
    guard: &'g Guard,
    connection: Connection,
    /// Where the WAL was when the run began.
    origin: String,
    latency: Latency,
}

impl<'g> Watch<'g> {
    /// Opens the session and learns what is usual. Nothing may be at work yet.
    pub(super) fn open(guard: &'g Guard, target: &Target) -> Result<Watch<'g>, Error> {
        let failed =
            |e| Error::query("run the probe (`probe` in [maintain])", e).or_stopped(&guard.work);
        let mut connection = target.connect(super::APPLICATION, &guard.work)?;
        let settings = format!(
            "SET default_transaction_read_only = on; SET lock_timeout = 0; SET statement_timeout = {}",
            LONGEST.as_millis()
        );
        connection.batch_execute(&settings).map_err(failed)?;
        let sql = "SELECT pg_catalog.pg_current_wal_lsn()::text";
        let origin = connection.query_one(sql, &[]).map_err(failed)?.get(0);
        let mut before = Vec::new();
        for _ in 0..FIRST {
            let began = Instant::now();
            connection.simple_query(&guard.settings.probe).map_err(failed)?;
            before.push(began.elapsed());
            guard.work.sleep(FIRST_PAUSE)?;
        }
        let mut watch = Watch { guard, connection, origin, latency: Latency::new(before) };
        watch.look()?;
        Ok(watch)
    }

    /// Watches until `is_over`, and shows the progress of what is at work.
    pub(super) fn run(
        mut self,
        is_over: &Stop,
        show: Option<&(dyn Fn(String) + Sync)>,
    ) -> Result<(), Error> {
        for round in 1.. {
            if is_over.sleep(PAUSE).is_err() || self.guard.work.reason().is_some() {
                break;
            }
            let looked = self.round(round % SELDOM == 0, show);
            // That what it waited for was cancelled is what was wanted.
            if looked.is_err() && self.guard.work.reason().is_none() {
                return looked;
            }
        }
        Ok(())
    }

    fn round(
        &mut self,
        is_thorough: bool,
        show: Option<&(dyn Fn(String) + Sync)>,
    ) -> Result<(), Error> {
        let took = self.probe()?;
        let max = self.guard.settings.max_latency_percent;
        match self.latency.judge(took, max, self.guard.n_working() > 0) {
            Pace::Usual => self.guard.go_on(),
            Pace::Wait(what) => self.guard.wait(&what),
            Pace::End(what) => self.guard.stop(&Halt::Suffering(what)),
        }
        if !is_thorough {
            return Ok(());
        }
        self.look()?;
        if let Some(show) = show
            && let Ok(Some(text)) = progress::look(&mut self.connection)
        {
            show(text);
        }
        Ok(())
    }

    fn probe(&mut self) -> Result<Duration, Error> {
        let asked = Instant::now();
        match self.connection.simple_query(&self.guard.settings.probe) {
            Ok(_) => Ok(asked.elapsed()),
            Err(error) if error.code() == Some(&postgres::error::SqlState::QUERY_CANCELED) => {
                Ok(asked.elapsed())
            }
            Err(error) => Err(Error::query("run the probe", error)),
        }
    }

    fn look(&mut self) -> Result<(), Error> {
        let sql = "SELECT (SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 \
                       FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'), \
                   (SELECT coalesce(max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)), 0)::int8 \
                       FROM pg_catalog.pg_replication_slots), \
                   pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), $1::text::pg_lsn)::int8";
        let row = self.connection.query_one(sql, &[&self.origin]);
        let row = row.map_err(|e| Error::query("look at replicas and WAL", e))?;
        let bytes = |n: usize| u64::try_from(row.get::<_, i64>(n)).unwrap_or_default();
        let standing = Standing { lag_seconds: row.get(0), retained_wal: bytes(1), wal: bytes(2) };
        self.guard.note(&standing);
        Ok(())
    }
}
