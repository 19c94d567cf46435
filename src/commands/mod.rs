//! The commands: each reads what it needs, plans, applies and reports. Thin; they do not import each other.
//!
//! To add one: a variant in `cli/mod.rs`, a module here named after it, an arm in [`dispatch`], a page in
//! `runbooks/`, a file in `tests/integration/`, a line in `crontab.example`. The compiler asks for the
//! first three, `tests/tidy.rs` for the rest.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use indicatif::ProgressBar;

use crate::cli::{Command, Format, Global, Selection};
use crate::clock::{Moment, Spent};
use crate::config::{self, Config, Loaded, Overrides};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::failure;
use crate::history::{self, Begun, History};
use crate::id::RunId;
use crate::notify::Observation;
use crate::ping::Pings;
use crate::stop::{self, Stop};
use crate::sync::lock;
use crate::window::{self, Opening, Window};

mod archive_audit;
mod backup;
mod cleanup_sessions;
mod config_command;
mod db_maintain;
mod demo;
mod doctor;
mod exclusive;
mod expected;
mod file;
mod generate;
mod health_check;
mod history_command;
mod init;
mod notify_command;
mod open;
mod restore;
mod runbook_command;
mod schedule_command;
mod setup_command;
mod silence;
mod status;
mod verify_backup;

/// What a run gives to its command.
pub(crate) struct Context {
    pub(crate) environment: Environment,
    pub(crate) run: RunId,
    pub(crate) now: Moment,
    /// Says when to stop working and begin to clean up.
    pub(crate) stop: Stop,
    /// Says when to stop cleaning up, too.
    pub(crate) abort: Stop,
    pub(crate) progress: ProgressBar,
    pub(crate) global: Global,
    pub(crate) history: History,
    /// How long the run was busy with its history, locks and metrics, and not with its work.
    pub(crate) overhead: Spent,
    /// What the history calls the run, and whether it is a dry run; nothing if it is not worth remembering.
    pub(crate) remembered: Option<(String, bool)>,
    /// What became of each database so far.
    pub(crate) outcomes: Mutex<BTreeMap<String, Outcome>>,
    /// Where metrics of them go, once that is known.
    pub(crate) metrics: OnceLock<config::Metrics>,
    pub(crate) pings: Pings,
    /// Who is told of them, once that is known.
    pub(crate) audience: OnceLock<Audience>,
    /// What the command observed by itself, see [`Context::observe`].
    pub(crate) observed: Mutex<Option<Vec<Observation>>>,
}

/// Who is told of a run, and of which databases.
#[derive(Debug)]
pub(crate) struct Audience {
    pub(crate) notify: config::Notify,
    /// Those that the run looks after.
    pub(crate) databases: Vec<String>,
}

/// What became of a database: the worst status, and the figures of its part of the report.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) figures: BTreeMap<String, serde_json::Number>,
    pub(crate) error: Option<String>,
}

/// What a command has to say at its end.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) exit: Exit,
    /// For people, with a line feed at its end.
    pub(crate) text: String,
    /// The fields of the JSON document.
    pub(crate) json: serde_json::Value,
    pub(crate) silence: Silence,
}

/// What a command says at its end.
#[derive(Debug)]
pub(crate) enum Said {
    Report(Report),
    /// `health-check` ends as monitoring plugins do.
    Answer(Answered),
}

/// An answer to a monitor.
#[derive(Debug)]
pub(crate) struct Answered {
    /// 0 to 3.
    pub(crate) status: u8,
    pub(crate) stdout: String,
    /// Why there is no real one.
    pub(crate) error: Option<String>,
}

/// May `--quiet` suppress a successful report?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    Allowed,
    /// No: the text is what was asked for.
    Refused,
}

/// Carries a command out.
pub(crate) fn dispatch(context: &Context, command: Command) -> anyhow::Result<Said> {
    // A monitor is answered in any case, in its own way.
    let is_answer = matches!(command, Command::HealthCheck(_));
    if context.global.window.is_some() && command.is_about_opsctl() && !is_answer {
        let message = format!("`{}` needs no maintenance window", command.name());
        return Err(Failure::new(Exit::Usage, message).hint("Leave out --window.").into());
    }
    let report = match command {
        Command::Backup(args) => backup::run(context, &args),
        Command::VerifyBackup(args) => verify_backup::run(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::CleanupSessions(args) => cleanup_sessions::run(context, &args),
        Command::DbMaintain(args) => db_maintain::run(context, &args),
        Command::ArchiveAudit(args) => archive_audit::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::HealthCheck(args) => return Ok(Said::Answer(health_check::run(context, &args))),
        Command::History(args) => history_command::run(context, &args),
        Command::Silence(args) => silence::run(context, &args),
        Command::Notify(args) => notify_command::run(context, &args),
        Command::Schedule(args) => schedule_command::run(context, &args),
        Command::Init(args) => init::run(context, &args),
        Command::Setup(args) => setup_command::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Runbook(args) => runbook_command::run(context, &args),
        Command::Config(args) => config_command::run(context, &args),
        Command::Demo(args) => demo::run(context, &args),
        Command::Generate(args) => generate::run(&args),
    };
    report.map(Said::Report)
}

/// Ends a run whose command line says nothing that could be carried out; `answer` is how `health-check` was to answer.
pub(crate) fn refuse(
    context: &Context,
    failure: Failure,
    answer: Option<Format>,
) -> anyhow::Result<Said> {
    // It says where the history is. What is wrong with it does not matter any more.
    context.read(&Selection::default(), Overrides::default()).ok();
    match answer {
        Some(format) => Ok(Said::Answer(health_check::failed(format, &failure.into()))),
        None => Err(failure.into()),
    }
}

impl Context {
    /// Reads the configuration, with what the command line says on top, and keeps to the maintenance window, if one is named.
    pub(crate) fn load(
        &self,
        selection: &Selection,
        overrides: Overrides,
    ) -> anyhow::Result<Loaded> {
        let loaded = self.read(selection, overrides)?;
        if let Some(name) = &self.global.window {
            self.keep_to_window(&loaded.config, name)?;
        }
        Ok(loaded)
    }

    /// Refuses to work while a window is closed, and stops in time before it closes.
    fn keep_to_window(&self, config: &Config, name: &str) -> Result<(), Failure> {
        let named = |known: &str| name == config::ANY_WINDOW || name == known;
        let windows = config.windows.iter().filter(|(known, _)| named(known));
        let windows: Vec<&Window> = windows.filter_map(|(_, window)| window.as_ref()).collect();
        if windows.is_empty() {
            let on = config.windows.iter().filter(|(_, window)| window.is_some());
            let known: Vec<&str> = on.map(|(known, _)| known.as_str()).collect();
            let failure = Failure::new(Exit::Configuration, format!("there is no window `{name}`"));
            return Err(failure.hint(format!("[windows] has: {}.", known.join(", "))));
        }
        match window::opening(windows.iter().copied(), self.now) {
            Opening::Open { until } => {
                // Cleaning up is over by then, too.
                let left = (until - self.now).to_std().unwrap_or_default();
                self.set_deadline(Some(left.saturating_sub(stop::GRACE)));
                Ok(())
            }
            Opening::Closed { next } => {
                let shown: Vec<String> = windows.iter().map(ToString::to_string).collect();
                let when = next.map_or("not in the next months".to_owned(), |next| {
                    next.format("%Y-%m-%d %H:%M UTC").to_string()
                });
                let message = format!(
                    "the window `{name}` ({}) is closed: it opens {when}",
                    shown.join("; ")
                );
                let hint =
                    format!("Run it again then ({when}), or without --window if it may work now.");
                Err(Failure::new(Exit::Locked, message).hint(hint))
            }
        }
    }

    /// Reads the configuration, with what the command line says on top.
    pub(crate) fn read(
        &self,
        selection: &Selection,
        overrides: Overrides,
    ) -> Result<Loaded, config::Error> {
        let overrides = Overrides {
            config: self.global.config.clone(),
            state_dir: self.global.state_dir.clone(),
            databases: selection.database.clone(),
            repository: selection.repository.clone(),
            timeout: self.global.timeout,
            ..overrides
        };
        let working_directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
        let loaded = config::load(&overrides, &self.environment, &working_directory);
        // Also a run that never knew what to do is remembered, where it would be without a file.
        let place = if let Ok(loaded) = &loaded {
            Some(open::history(self, &loaded.config))
        } else {
            let url = config::history_url(&self.environment);
            let dir = config::state_dir(&overrides, &self.environment, &working_directory);
            dir.map(|dir| open::history_at(self, url.as_ref(), &dir))
        };
        match &loaded {
            Ok(Loaded { config, .. }) => {
                self.metrics.set(config.metrics.clone()).ok();
                self.pings.configure(&config.ping);
                let names = config.databases.iter().filter_map(|database| {
                    let label = database.label().map(str::to_owned);
                    label.or_else(|| open::database_name(self, database).ok())
                });
                let command = self.remembered.as_ref().map_or("", |(command, _)| command.as_str());
                let concerned = |name: &String| expected::concerns(config, command, name);
                let databases = names.filter(concerned).collect();
                self.audience.set(Audience { notify: config.notify.clone(), databases }).ok();
            }
            Err(_) => self.pings.configure(&config::ping(&self.environment)),
        }
        match place {
            Some(Ok(place)) => self.history.locate(place),
            Some(Err(error)) => {
                let why = failure::one_line(&error);
                tracing::warn!("the history cannot be used, nor what depends on it: {why}");
            }
            None => {}
        }
        if let Some((command, dry_run)) = &self.remembered {
            let (id, command) = (self.run.clone(), command.clone());
            let run = Begun { id, at: self.now, command, dry_run: *dry_run };
            self.overhead.on(|| self.history.begin(&run));
        }
        loaded
    }

    /// Does the work on one database, and notes in the history what became of it; `says` has its part of the report.
    pub(crate) fn note<T>(
        &self,
        database: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
        says: impl FnOnce(&T) -> (Exit, serde_json::Value),
    ) -> anyhow::Result<T> {
        self.overhead.on(|| self.history.database_begun(database));
        let result = work();
        let (exit, figures, error) = match &result {
            Ok(done) => {
                let (exit, report) = says(done);
                let figures = history::figures(&report);
                let end = || self.history.database_ended(database, exit.number(), Ok(&figures));
                self.overhead.on(end);
                let error = (exit != Exit::Done).then(|| complaint(&report)).flatten();
                (exit, figures, error)
            }
            Err(error) => {
                let stopped = self.stop.reason().map(failure::exit_of_stop);
                let exit = stopped.unwrap_or_else(|| failure::exit(error));
                let error = failure::one_line(error);
                let end = || self.history.database_ended(database, exit.number(), Err(&error));
                self.overhead.on(end);
                (exit, BTreeMap::new(), Some(error))
            }
        };
        let mut outcomes = lock(&self.outcomes);
        let before = outcomes.get(database);
        let error = error.or_else(|| before.and_then(|outcome| outcome.error.clone()));
        let exit = before.map_or(exit, |outcome| outcome.exit.max(exit));
        let outcome = Outcome { exit, figures, error };
        outcomes.insert(database.to_owned(), outcome);
        result
    }

    /// Says what notifications are to be made of, in place of what became of the databases: one observation for each check,
    /// or none at all.
    pub(crate) fn observe(&self, observations: impl IntoIterator<Item = Observation>) {
        lock(&self.observed).get_or_insert_default().extend(observations);
    }

    /// Says who types this: behind sudo, who typed that.
    pub(crate) fn who(&self) -> String {
        let names = ["SUDO_USER", "LOGNAME", "USER"];
        let name = names.iter().find_map(|name| self.environment.get(name)).unwrap_or("somebody");
        format!("{}@{}", name.replace(char::is_control, " "), history::host())
    }

    /// Lets the deadline run, if there is one.
    pub(crate) fn set_deadline(&self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            stop::set_deadline(&self.stop, &self.abort, timeout);
        }
    }
}

/// Returns the first error or finding in a database's part of a report, on one line.
fn complaint(report: &serde_json::Value) -> Option<String> {
    let found = match report {
        serde_json::Value::Object(fields) => {
            let first = fields.get("findings").and_then(|findings| findings.get(0)?.get("what"));
            let said = fields.get("error").or(first).and_then(serde_json::Value::as_str);
            said.map(str::to_owned).or_else(|| fields.values().find_map(complaint))
        }
        serde_json::Value::Array(items) => items.iter().find_map(complaint),
        _ => None,
    };
    found.map(|text| crate::secret::redact(&text.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// Returns how many things to do at once, if nothing else is said.
pub(crate) fn default_jobs(wanted: Option<u32>) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    wanted.map_or(processors.min(8), |n| usize::try_from(n).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_or_finding_is_the_complaint() {
        let report = serde_json::json!({
            "database": "ip2a", "repositories": [
                { "repository": "a", "exit": 0 },
                { "repository": "b", "exit": 13, "error": "no room\n at https://u:p@h/" },
            ],
        });
        assert_eq!(complaint(&report).as_deref(), Some("no room at https://u:***@h/"));
        let report = serde_json::json!({ "backups": [{ "findings": [{ "what": "cut off" }, { "what": "x" }] }] });
        assert_eq!(complaint(&report).as_deref(), Some("cut off"));
        assert_eq!(complaint(&serde_json::json!({ "findings": [], "error": null })), None);
    }
}
