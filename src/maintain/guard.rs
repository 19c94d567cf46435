//! When a run has to stop: the application's own latency, replicas, WAL that is held back, the budget of WAL.
//!
//! A session of its own watches while others work. What it decides is pure; it stops them by a token that is theirs alone.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Maintain;
use crate::db::{Connection, Error, Target};
use crate::stop::{Reason, Stop};
use crate::sync::lock;

/// How often the probe is run.
const PAUSE: Duration = Duration::from_millis(200);
/// Every so many times replicas and WAL are looked at as well.
const SELDOM: u32 = 5;
/// How often the probe is run before anything is done, to know what is usual.
const FIRST: u32 = 15;
/// So many probes in a row are judged together: one that is slow says nothing.
const JUDGED: usize = 10;
/// Whoever waits no longer than this does not suffer, whatever the percentage.
const UNNOTICED: Duration = Duration::from_millis(20);
/// A probe that takes longer is given up, and counts as so long.
const LONGEST: Duration = Duration::from_secs(5);

/// What stops a run before its end.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "because", content = "what")]
pub(crate) enum Halt {
    /// The application or a replica suffers: what runs is cancelled.
    Suffering(String),
    /// The budget is used up: nothing more is begun.
    Budget(String),
}

/// What the probe takes.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    usual: Duration,
    last: VecDeque<Duration>,
}

impl Latency {
    /// Begins with what was measured before anything was done.
    pub(crate) fn new(mut before: Vec<Duration>) -> Latency {
        Latency { usual: median(&mut before), last: VecDeque::new() }
    }

    /// Adds a measurement, and says whether it is too slow: as a whole, for the last ones, in percent of what is usual.
    pub(crate) fn is_too_slow(&mut self, took: Duration, max_percent: u32) -> Option<String> {
        self.last.push_back(took);
        if self.last.len() <= JUDGED {
            return None;
        }
        self.last.pop_front();
        let now = median(&mut self.last.iter().copied().collect::<Vec<_>>());
        let limit = (self.usual * max_percent / 100).max(UNNOTICED);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        (now > limit).then(|| {
            format!(
                "the probe takes {:.1} ms, and {:.1} ms before anything was done",
                milliseconds(now),
                milliseconds(self.usual)
            )
        })
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// How replicas and WAL stand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) lag_seconds: f64,
    pub(crate) retained_wal: u64,
    /// Since the run began, by everybody.
    pub(crate) wal: u64,
}

/// Says what is over its limit.
pub(crate) fn judge(standing: &Standing, settings: &Maintain) -> Option<Halt> {
    let Standing { lag_seconds, retained_wal, wal } = *standing;
    let bytes = crate::text::bytes;
    if lag_seconds > settings.max_replica_lag.as_secs_f64() {
        return Some(Halt::Suffering(format!("a replica is {lag_seconds:.0} s behind")));
    }
    if retained_wal > settings.max_retained_wal {
        let held = bytes(retained_wal);
        return Some(Halt::Suffering(format!("a replication slot holds {held} of WAL back")));
    }
    (wal >= settings.max_wal)
        .then(|| Halt::Budget(format!("the server has written {} of WAL meanwhile", bytes(wal))))
}

/// What those who work and the one who watches share.
pub(crate) struct Guard {
    settings: Maintain,
    began: Instant,
    halt: Mutex<Option<Halt>>,
    wal: AtomicU64,
    /// Ends what runs: when the run is told to stop, and when somebody suffers.
    pub(crate) work: Stop,
}

impl Guard {
    pub(crate) fn new(settings: &Maintain) -> Guard {
        Guard {
            settings: settings.clone(),
            began: Instant::now(),
            halt: Mutex::default(),
            wal: AtomicU64::default(),
            work: Stop::new(),
        }
    }

    /// Returns why nothing more is to be begun, if so.
    pub(crate) fn halted(&self) -> Option<Halt> {
        lock(&self.halt).clone()
    }

    /// Says why a statement is not begun now: it would not end within the budget.
    pub(crate) fn refuses(&self, likely: Duration, wal: u64) -> Option<String> {
        if self.began.elapsed() + likely > self.settings.max_time {
            return Some("it is likely to take longer than is left of `max_time`".to_owned());
        }
        let used = self.wal.load(Ordering::SeqCst);
        (used.saturating_add(wal) > self.settings.max_wal).then(|| {
            "it is likely to write more WAL than is left of `max_wal_megabytes`".to_owned()
        })
    }

    fn stop(&self, halt: &Halt) {
        let (Halt::Suffering(what) | Halt::Budget(what)) = halt;
        let mut halted = lock(&self.halt);
        if halted.is_none() {
            tracing::warn!("stopping: {what}");
            *halted = Some(halt.clone());
        }
        drop(halted);
        if matches!(halt, Halt::Suffering(_)) {
            self.work.request(Reason::Deadline);
        }
    }

    /// Opens the session of the probe and learns what is usual. Nothing may be at work yet.
    pub(crate) fn watch(&self, target: &Target) -> Result<Watch<'_>, Error> {
        let failed =
            |e| Error::query("run the probe (`probe` in [maintain])", e).or_stopped(&self.work);
        let mut connection = target.connect(super::APPLICATION, &self.work)?;
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
            connection.simple_query(&self.settings.probe).map_err(failed)?;
            before.push(began.elapsed());
            self.work.sleep(Duration::from_millis(20))?;
        }
        let mut watch = Watch { guard: self, connection, origin, latency: Latency::new(before) };
        watch.look()?;
        Ok(watch)
    }
}

/// The one who watches.
pub(crate) struct Watch<'g> {
    guard: &'g Guard,
    connection: Connection,
    /// Where the WAL was when the run began.
    origin: String,
    latency: Latency,
}

impl Watch<'_> {
    /// Watches until `is_over`, and shows the progress of what is at work.
    pub(crate) fn run(
        mut self,
        is_over: &Stop,
        progress: Option<&(dyn Fn(String) + Sync)>,
    ) -> Result<(), Error> {
        let stopped = |error: Error| {
            let is_wanted = self.guard.work.reason().is_some();
            if is_wanted { Ok(()) } else { Err(error) }
        };
        for round in 1.. {
            if is_over.sleep(PAUSE).is_err() || self.guard.work.reason().is_some() {
                break;
            }
            let asked = Instant::now();
            match self.connection.simple_query(&self.guard.settings.probe) {
                Ok(_) => {}
                Err(error) if error.code() == Some(&postgres::error::SqlState::QUERY_CANCELED) => {}
                Err(error) => return stopped(Error::query("run the probe", error)),
            }
            let took = asked.elapsed();
            let max = self.guard.settings.max_latency_percent;
            if let Some(what) = self.latency.is_too_slow(took, max) {
                self.guard.stop(&Halt::Suffering(what));
            }
            if round % SELDOM == 0 {
                if let Err(error) = self.look() {
                    return stopped(error);
                }
                if let Some(show) = progress
                    && let Ok(Some(text)) = super::progress::look(&mut self.connection)
                {
                    show(text);
                }
            }
        }
        Ok(())
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
        self.guard.wal.store(standing.wal, Ordering::SeqCst);
        if let Some(halt) = judge(&standing, &self.guard.settings) {
            self.guard.stop(&halt);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn latency_that_doubles_and_stays_so_is_too_slow() {
        let mut latency = Latency::new(vec![ms(30); 15]);
        let mut slow = |took| latency.is_too_slow(ms(took), 200);
        for _ in 0..JUDGED + 5 {
            assert_eq!(slow(59), None);
        }
        // One that is slow says nothing.
        assert_eq!(slow(5000), None);
        let found = (0..JUDGED).find_map(|_| slow(61)).unwrap();
        assert!(found.contains("takes 61.0 ms, and 30.0 ms before"), "{found}");
    }

    #[test]
    fn every_limit_stops_and_only_suffering_cancels() {
        let settings = Maintain::default();
        let of = |lag_seconds, retained_wal, wal| {
            judge(&Standing { lag_seconds, retained_wal, wal }, &settings)
        };
        assert_eq!(of(9.0, 4096 << 20, 16_383 << 20), None);
        assert!(matches!(of(11.0, 0, 0), Some(Halt::Suffering(_))));
        assert!(matches!(of(0.0, (4096 << 20) + 1, 0), Some(Halt::Suffering(_))));
        assert!(matches!(of(0.0, 0, 16_384 << 20), Some(Halt::Budget(_))));
        let guard = Guard::new(&settings);
        guard.stop(&Halt::Budget(String::new()));
        assert!(guard.work.reason().is_none() && guard.halted().is_some());
        guard.stop(&Halt::Suffering(String::new()));
        assert!(guard.work.reason().is_some());
        assert!(guard.refuses(settings.max_time, 0).is_some());
        assert_eq!(guard.refuses(Duration::ZERO, 0), None);
        assert!(guard.refuses(Duration::ZERO, (16_384 << 20) + 1).is_some());
    }

    proptest! {
        #[test]
        fn what_is_as_usual_never_stops(usual in 1u64..1000, times in prop::collection::vec(0.5..1.9f64, 0..60)) {
            let mut latency = Latency::new(vec![ms(usual); 15]);
            for factor in times {
                prop_assert_eq!(latency.is_too_slow(ms(usual).mul_f64(factor), 200), None);
            }
        }
    }
}
