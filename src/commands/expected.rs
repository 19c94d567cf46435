//! What is expected to run, by `[schedule]` and the rest of the configuration. Which of it did not, `history::due` says.

use std::time::Duration;

use crate::clock::Moment;
use crate::config::{Config, Scheduled};
use crate::history::Run;
use crate::history::due::{self, Standing, judge};

/// A scheduled command and a database that it is for.
#[derive(Clone)]
pub(super) struct Expected {
    pub(super) scheduled: Scheduled,
    pub(super) database: String,
    /// How long a run may take.
    timeout: Duration,
    grace: Duration,
}

/// Returns what is expected on these databases, in the order of the schedule.
pub(super) fn expected(config: &Config, databases: &[String]) -> Vec<Expected> {
    let mut expected = Vec::new();
    for scheduled in &config.schedule.commands {
        let concerned = databases.iter().filter(|name| concerns(config, scheduled.command, name));
        expected.extend(concerned.map(|database| Expected {
            scheduled: scheduled.clone(),
            database: database.clone(),
            timeout: timeout(config, scheduled),
            grace: config.schedule.grace,
        }));
    }
    expected
}

/// Returns the commands whose runs [`Expected::judge`] wants.
pub(super) fn commands(expected: &[Expected]) -> Vec<&'static str> {
    let commands = expected.iter().map(|expected| expected.scheduled.command);
    // It verifies the backup as well.
    let mut commands: Vec<_> = commands.chain(["verify-backup --restore-test"]).collect();
    commands.sort_unstable();
    commands.dedup();
    commands
}

/// Has a command, as the history has it, anything to do with a database?
pub(super) fn concerns(config: &Config, command: &str, database: &str) -> bool {
    match command {
        "cleanup-sessions" => config.sessions.concern(database),
        "archive-audit" => config.is_audited(database),
        _ => true,
    }
}

/// Returns how long a run may take that nobody watches.
pub(super) fn timeout(config: &Config, scheduled: &Scheduled) -> Duration {
    let stated = match scheduled.command {
        "backup" => config.backup.timeout,
        "health-check" => Some(config.health.timeout),
        _ => None,
    };
    stated.unwrap_or(scheduled.row.timeout)
}

impl Expected {
    /// Says how it stands, by the runs that are remembered; `max_age` takes the place of the schedule.
    pub(super) fn judge(&self, runs: &[Run], max_age: Option<Duration>, now: Moment) -> Standing {
        let expected = due::Expected {
            command: self.scheduled.command,
            database: &self.database,
            next: &|moment| self.scheduled.times.after(moment),
            timeout: self.timeout,
            grace: self.grace,
            max_age,
        };
        judge(&expected, runs, now)
    }
}
