//! `[schedule]`: when each command is expected to run, as cron says it, in the time zone of the host.
//!
//! It starts nothing: cron, systemd or Kubernetes do. `opsctl status` compares it with what ran.

use std::str::FromStr;
use std::time::Duration;

use crate::clock::Moment;

/// When commands are expected to run.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// In the order of the file's documentation; those that are off are not in it.
    pub(crate) commands: Vec<Scheduled>,
    /// How much later than its time a run may come to its end.
    pub(crate) grace: Duration,
}

/// A command that is expected to run.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    /// As the history has it.
    pub(crate) command: &'static str,
    pub(crate) times: Times,
}

/// The commands that can be scheduled: their keys, what the history calls them, and when they run unless told otherwise.
pub(super) const COMMANDS: [(&str, &str, &str); 3] = [
    ("backup", "backup", "0 2 * * *"),
    ("verify_backup", "verify-backup", "0 5 * * *"),
    ("restore_test", "verify-backup --restore-test", "0 7 * * 6"),
];
/// How late a run may be unless told otherwise.
pub(super) const GRACE: Duration = Duration::from_secs(4 * 3600);

/// Times as a line of a crontab says them.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    text: String,
    cron: Box<croner::Cron>,
}

/// What a key of the section says.
#[derive(Clone, Debug)]
pub(super) enum When {
    Off,
    At(Times),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        if text == "off" {
            return Ok(When::Off);
        }
        let fields = text.split_whitespace().count();
        // With six fields croner would read seconds, which no crontab has.
        if fields != 5 {
            return Err(format!(
                "`{text}` is not `off` and not the five fields of a crontab's line"
            ));
        }
        let cron = croner::Cron::from_str(text).map_err(|error| format!("`{text}`: {error}"))?;
        Ok(When::At(Times { text: text.to_owned(), cron: Box::new(cron) }))
    }
}

impl Times {
    /// Returns the first time after a moment; none if there is none in the years that can be looked through.
    pub(crate) fn after(&self, moment: Moment) -> Option<Moment> {
        let local = moment.with_timezone(&chrono::Local);
        let next = self.cron.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&chrono::Utc))
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            When::Off => f.write_str("off"),
            When::At(times) => times.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_a_crontab() {
        for (_, _, default) in COMMANDS {
            assert!(matches!(default.parse(), Ok(When::At(_))), "{default}");
        }
        assert!(matches!("off".parse(), Ok(When::Off)));
        for wrong in ["", "0 2 * *", "0 0 2 * * *", "61 2 * * *", "daily", "0 2 * * x"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
        let Ok(When::At(hourly)) = "5 * * * *".parse() else { panic!() };
        let at: Moment = "2026-11-21T02:05:00Z".parse().unwrap();
        assert_eq!(hourly.after(at).unwrap() - at, chrono::TimeDelta::hours(1));
    }
}
