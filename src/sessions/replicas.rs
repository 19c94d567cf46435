//! How far replicas are behind, and how long a run waits for them: ten minutes in all, however many rules it has.
//!
//! A replica that is behind on purpose (`recovery_min_apply_delay`) cannot be told from one that is in trouble; the configuration names
//! it, and it is not looked at.

use std::time::{Duration, Instant};

use crate::db::{Connection, Error};
use crate::stop::Stop;

/// How often it is asked whether replicas are behind.
const LOOK: Duration = Duration::from_millis(250);
/// How long a run waits for them, before it gives up.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long it waits before it asks again.
const PAUSE: Duration = Duration::from_secs(1);

/// The replicas of one database's server.
#[derive(Debug)]
pub(crate) struct Replicas {
    limit: Duration,
    ignored: Vec<String>,
    /// How long they may be waited for yet.
    patience: Duration,
    /// When they were last seen not to be behind.
    seen: Option<Instant>,
    /// Was it said that this role does not see how far they are?
    is_warned: bool,
}

/// What became of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Good,
    Stopped,
    InVain,
}

impl Replicas {
    /// They may be `limit` behind, but for those with these names.
    pub(crate) fn new(limit: Duration, ignored: &[String]) -> Replicas {
        let ignored = ignored.to_vec();
        Replicas { limit, ignored, patience: PATIENCE, seen: None, is_warned: false }
    }

    /// Waits until none is too far behind, `what` being what waits.
    pub(super) fn wait(
        &mut self,
        connection: &mut Connection,
        what: &str,
        stop: &Stop,
    ) -> Result<Waited, Error> {
        if self.seen.is_some_and(|seen| seen.elapsed() < LOOK) {
            return Ok(Waited::Good);
        }
        loop {
            let began = Instant::now();
            let last = match self.last(connection) {
                Ok(last) => last,
                Err(_) if stop.reason().is_some() => return Ok(Waited::Stopped),
                Err(e) => return Err(Error::query("see how far replicas are behind", e)),
            };
            let Some((name, lag)) = last.filter(|(_, lag)| *lag > self.limit.as_secs_f64()) else {
                self.seen = Some(Instant::now());
                return Ok(Waited::Good);
            };
            if self.patience.is_zero() {
                tracing::error!(
                    "{what}: the replica `{name}` stays {lag:.0} s behind; if it is meant to: [sessions] ignore_replicas = [\"{name}\"]"
                );
                return Ok(Waited::InVain);
            }
            tracing::info!("{what}: waiting for the replica `{name}`, which is {lag:.0} s behind");
            if stop.sleep(PAUSE).is_err() {
                return Ok(Waited::Stopped);
            }
            self.patience = self.patience.saturating_sub(began.elapsed());
        }
    }

    /// Returns the name of the one that is furthest behind, and the seconds.
    fn last(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<(String, f64)>, postgres::Error> {
        // Whoever may not see more sees NULL.
        let sql = "SELECT state, coalesce(application_name, ''), coalesce(extract(epoch FROM replay_lag), 0)::float8 \
                   FROM pg_catalog.pg_stat_replication \
                   WHERE state IS NULL OR state = 'streaming' AND application_name <> ALL ($1) ORDER BY 3 DESC";
        let rows = connection.query(sql, &[&self.ignored])?;
        let (seen, unseen): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| row.get::<_, Option<String>>(0).is_some());
        if !unseen.is_empty() && !self.is_warned {
            self.is_warned = true;
            tracing::warn!(
                "this role does not see how far {} behind, and does not wait: GRANT pg_read_all_stats TO …",
                if unseen.len() == 1 {
                    "a replica is".to_owned()
                } else {
                    format!("{} replicas are", unseen.len())
                }
            );
        }
        Ok(seen.first().map(|row| (row.get(1), row.get(2))))
    }
}
