//! The one clock: every decision takes `now` as an argument, and it comes from here.
//!
//! It does not sleep: waiting is [`crate::stop::Stop::sleep`], which an interruption ends.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A moment in UTC.
pub(crate) type Moment = DateTime<Utc>;

/// Returns the current time, in UTC and truncated to whole microseconds (PostgreSQL's resolution).
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn now() -> Moment {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

/// Adds up how long work of one kind took.
#[derive(Debug, Default)]
pub(crate) struct Spent(AtomicU64);

impl Spent {
    /// Does the work, and counts its time.
    pub(crate) fn on<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let nanoseconds = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
        done
    }

    /// Returns the time of all work so far.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
