//! What starts opsctl at its times: a crontab, units of systemd, or `CronJob`s of Kubernetes, as text.
//!
//! Plain values in, text out. It installs nothing, and it looks at nothing: that a path or a user exists is not known here.

use std::time::Duration;

use crate::config::{Scheduled, Times, format_duration};

mod calendar;
mod crontab;
mod kubernetes;
mod systemd;

pub(crate) use crontab::{Crontab, crontab, shell_word};
pub(crate) use kubernetes::{Kubernetes, kubernetes};
pub(crate) use systemd::{Systemd, systemd};

/// One command that is to be started.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    /// Such as `restore-test`.
    pub(crate) name: String,
    /// As it is typed, such as `verify-backup --restore-test`.
    pub(crate) command: &'a str,
    /// What it is for; may have several lines.
    pub(crate) about: &'a str,
    pub(crate) times: &'a Times,
    /// When opsctl gives up; whoever started it should wait a little longer.
    pub(crate) timeout: Duration,
    /// All that stands behind the program, not quoted yet.
    pub(crate) arguments: Vec<String>,
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Printed {
    /// Without a folder.
    pub(crate) name: String,
    pub(crate) text: String,
}

impl<'a> Job<'a> {
    /// Says how a scheduled command is started. `timeout` takes the place of the one it has by nature, and `config` is a file
    /// that it would not find by itself.
    pub(crate) fn new(
        scheduled: &'a Scheduled,
        timeout: Duration,
        config: Option<&str>,
    ) -> Job<'a> {
        let Scheduled { command, times, row } = scheduled;
        let words = command.split_whitespace().chain(row.options.split_whitespace());
        let mut arguments: Vec<String> = words.map(str::to_owned).collect();
        arguments.extend(["--quiet", "--timeout"].map(str::to_owned));
        arguments.push(format_duration(timeout));
        if let Some(config) = config {
            arguments.extend(["--config".to_owned(), config.to_owned()]);
        }
        Job {
            name: row.key.replace('_', "-"),
            command,
            about: row.about,
            times,
            timeout,
            arguments,
        }
    }
}

/// Writes what a job is for as comments.
fn comment(about: &str) -> String {
    about.lines().map(|line| format!("# {}\n", line.trim())).collect()
}

#[cfg(test)]
mod testing {
    use super::*;

    fn scheduled(times: &str) -> Scheduled {
        Scheduled { times: Times::from(times), ..Scheduled::example() }
    }

    /// Returns two commands: a daily one, and one on two kinds of days with a configuration of its own.
    pub(super) fn jobs(look: impl Fn(&[Job<'_>])) {
        let daily = scheduled("0 2 * * *");
        let odd = scheduled("*/30 1-3 1,15 jan-mar mon-fri");
        let mut jobs = [
            Job::new(&daily, daily.row.timeout, None),
            Job::new(&odd, Duration::from_secs(90), Some("/srv/a 100% 'b'/opsctl.toml")),
        ];
        jobs[1].name = "odd".to_owned();
        look(&jobs);
    }
}
