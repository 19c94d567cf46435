//! The commands: each reads what it needs, plans, applies and reports. Thin; they do not import each other.
//!
//! To add one: a variant in `cli.rs`, a module here named after it, an arm in [`dispatch`], a page in
//! `runbooks/`, a file in `tests/integration/`, a line in `crontab.example`. The compiler asks for the
//! first three, `tests/tidy.rs` for the rest.

use std::time::Duration;

use indicatif::ProgressBar;

use crate::cli::{Command, Global, Selection};
use crate::clock::Moment;
use crate::config::{self, Loaded, Overrides};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::id::RunId;
use crate::stop::Stop;

mod backup;
mod config_command;
mod demo;
mod open;
mod restore;
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

/// May `--quiet` suppress a successful report?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    Allowed,
    /// No: the text is what was asked for.
    Refused,
}

/// Carries a command out.
pub(crate) fn dispatch(context: &Context, command: Command) -> anyhow::Result<Report> {
    match command {
        Command::Backup(args) => backup::run(context, &args),
        Command::VerifyBackup(args) => verify_backup::run(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Config(args) => config_command::run(context, &args),
        Command::Demo(args) => demo::run(context, &args),
    }
}

impl Context {
    /// Reads the configuration, with what the command line says on top.
    pub(crate) fn load(
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
        config::load(&overrides, &self.environment, &working_directory)
    }

    /// Lets the deadline run, if there is one.
    pub(crate) fn set_deadline(&self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            crate::stop::set_deadline(&self.stop, &self.abort, timeout);
        }
    }
}

/// Returns how many things to do at once, if nothing else is said.
pub(crate) fn default_jobs(wanted: Option<u32>) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    wanted.map_or(processors.min(8), |n| usize::try_from(n).unwrap_or(1))
}
