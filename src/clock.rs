//! The one clock: every decision takes `now` as an argument, and it comes from here.
//!
//! It does not sleep: waiting is [`crate::stop::Stop::sleep`], which an interruption ends.

use chrono::{DateTime, Utc};

/// A moment in UTC.
pub(crate) type Moment = DateTime<Utc>;

/// Returns the current time, in UTC and truncated to whole microseconds (PostgreSQL's resolution).
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn now() -> Moment {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
