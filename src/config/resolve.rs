//! Merges flags, environment, file and defaults into the configuration, and remembers who said what.
//!
//! The order is flag, environment, file, default. Here are the merging itself and the plain settings;
//! `databases.rs` and `repositories.rs` have the rest. Files that the configuration names (a URL,
//! recipients, a profile) are read only for the databases and repositories that the run really uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file::{self, File};
use super::health::Health;
use super::schedule::{COMMANDS, GRACE, Row, STATUS, Schedule, Scheduled, When};
use super::section::{At, absolute};
use super::{
    Backup, Compression, Config, Error, Loaded, Overrides, Problem, SecretSource, Sessions, Source,
    WINDOWS, find, url, value,
};
use crate::environment::Environment;
use crate::secret::Secret;
use crate::window::Window;

/// Where the settings came from, by key; what is not there is a default.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    pub(super) settings: BTreeMap<String, Source>,
    /// The key of each database of the configuration: `database` or `databases.NAME`.
    pub(super) databases: Vec<String>,
    /// The key of each repository: `repository` or `repositories.NAME`.
    pub(super) repositories: Vec<String>,
}

/// What is merged, and what came out so far.
pub(super) struct Merge<'a> {
    pub(super) overrides: &'a Overrides,
    pub(super) environment: &'a Environment,
    pub(super) working_directory: &'a Path,
    pub(super) file: &'a File,
    pub(super) sources: Sources,
    pub(super) problems: Vec<Problem>,
}

/// Finds, reads, merges and checks.
pub(super) fn load(
    overrides: &Overrides,
    environment: &Environment,
    working_directory: &Path,
    host: &find::Host,
) -> Result<Loaded, Error> {
    let found = find::find(overrides, environment, working_directory, host)?;
    let file = found.as_ref().map(file::parse).transpose()?.unwrap_or_default();
    let mut merge = Merge {
        overrides,
        environment,
        working_directory,
        file: &file,
        sources: Sources::default(),
        problems: Vec::new(),
    };
    let databases = merge.databases();
    let config = Config {
        state_dir: merge.state_dir(host.uid),
        repositories: merge.repositories(),
        backup: merge.backup(),
        queries: file.queries.clone(),
        schedule: merge.schedule(),
        windows: merge.windows(),
        ping: merge.ping(),
        metrics: merge.metrics(),
        sessions: merge.sessions(),
        maintain: merge.maintain(),
        audits: merge.audits(databases.len()),
        databases,
        health: merge.health(),
        history_url: merge.history_url(),
        notify: merge.notify(),
        contacts: merge.contacts(),
    };
    let Merge { sources, problems, .. } = merge;
    Error::unless_empty(problems)?;
    Ok(Loaded { config, file: found.map(|found| found.path), sources })
}

/// Returns the state directory of a user, if nothing is said of one.
pub(super) fn default_state_dir(environment: &Environment, uid: u32) -> Option<PathBuf> {
    if uid == 0 {
        return Some(PathBuf::from("/var/lib/opsctl"));
    }
    let state = environment.get("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|path| path.is_absolute());
    let state = state.or_else(|| Some(environment.home()?.join(".local/state")));
    state.map(|state| state.join("opsctl"))
}

impl Merge<'_> {
    fn state_dir(&mut self, uid: u32) -> PathBuf {
        let flag = self.overrides.state_dir.as_ref().map(|path| self.working_directory.join(path));
        let working_directory = self.working_directory;
        let stated = self.setting(
            ["state_dir", "--state-dir", "OPSCTL_STATE_DIR"],
            flag,
            |text| absolute(text, working_directory),
            self.file.state_dir.as_ref(),
        );
        if let Some(path) = stated {
            return path;
        }
        let state = default_state_dir(self.environment, uid);
        if state.is_none() {
            let message =
                "without HOME there is no place for the state: set `state_dir` or OPSCTL_STATE_DIR";
            self.problem(Source::Default, message);
        }
        state.unwrap_or_default()
    }

    fn sessions(&mut self) -> Sessions {
        let entry = &self.file.sessions;
        for (key, line) in &entry.lines {
            self.note(key, self.file.source(*line));
        }
        entry.sessions.clone()
    }

    fn health(&mut self) -> Health {
        let health = self.file.health.clone();
        for stated in &health.stated {
            self.note(stated.key.clone(), self.file.source(stated.line));
        }
        health
    }

    fn history_url(&mut self) -> Option<SecretSource> {
        let file = &self.file.history;
        let names = ["history.url", "", "OPSCTL_HISTORY_URL"];
        let parse = |text: &str| url::check(text).map(|()| Secret::new(text));
        if let Some(url) = self.setting(names, None, parse, file.url.as_ref()) {
            return Some(SecretSource::Stated(url));
        }
        let path = self.setting(
            ["history.url_file", "", ""],
            None,
            |_| Err(String::new()),
            file.url_file.as_ref(),
        );
        path.map(SecretSource::File)
    }

    fn schedule(&mut self) -> Schedule {
        let file = &self.file.schedule;
        let stated = |n: usize| file.commands.get(n).and_then(Option::as_ref);
        let commands = COMMANDS.iter().enumerate();
        let commands = commands.filter_map(|(n, row)| self.scheduled(row, stated(n))).collect();
        let status = self.scheduled(STATUS, file.status.as_ref());
        let key = ["schedule.grace", "", ""];
        let grace = self.setting(key, None, value::parse_duration, file.grace.as_ref());
        Schedule { commands, status, grace: grace.unwrap_or(GRACE) }
    }

    fn scheduled(&mut self, row: &'static Row, stated: Option<&At<When>>) -> Option<Scheduled> {
        let key = format!("schedule.{}", row.key);
        let when = self.setting([&key, "", ""], None, str::parse, stated);
        // Nobody waits for a cleaning that has nothing to clean.
        let sessions = &self.file.sessions.sessions;
        let cleans = !sessions.rules.is_empty() || !sessions.unlocks.is_empty();
        if row.command == "cleanup-sessions" && !cleans {
            return None;
        }
        // It changes the database, and only for those who asked for it.
        if row.command == "db-maintain" && !self.file.maintain.maintain.stated {
            return None;
        }
        if row.command == "archive-audit" && self.file.audits.is_empty() {
            return None;
        }
        match when.or_else(|| row.default.parse().ok())? {
            When::At(times) => Some(Scheduled { command: row.command, times, row }),
            When::Off => None,
        }
    }

    fn windows(&mut self) -> BTreeMap<String, Option<Window>> {
        let stated = &self.file.windows;
        let defaults = WINDOWS.into_iter().map(|(name, default)| (name, default.parse().ok()));
        let mut windows: BTreeMap<String, Option<Window>> =
            defaults.map(|(name, window)| (name.to_owned(), window)).collect();
        for (name, At { value: window, line }) in stated {
            self.note(format!("windows.{name}"), self.file.source(*line));
            windows.insert(name.clone(), window.clone());
        }
        windows
    }

    fn backup(&mut self) -> Backup {
        let (flags, file) = (self.overrides, &self.file.backup);
        if let Some(jobs) = flags.jobs.filter(|jobs| !(1..=64).contains(jobs)) {
            self.problem(
                Source::flag("--jobs"),
                format!("{jobs} is not a whole number from 1 to 64"),
            );
        }
        let mut backup = Backup {
            compression: self
                .setting(
                    ["backup.compression", "--compression", "OPSCTL_COMPRESSION"],
                    flags.compression,
                    str::parse,
                    file.compression.as_ref(),
                )
                .unwrap_or(Compression::Auto),
            jobs: self.setting(
                ["backup.jobs", "--jobs", "OPSCTL_JOBS"],
                flags.jobs,
                |text| value::parse_number(text, 1, 64),
                file.jobs.as_ref(),
            ),
            exclude_table_data: self.list(
                ["backup.exclude_table_data", "--exclude-table-data"],
                &flags.exclude_table_data,
                file.exclude_table_data.as_ref(),
            ),
            exclude_schema: self.list(
                ["backup.exclude_schema", "--exclude-schema"],
                &flags.exclude_schema,
                file.exclude_schema.as_ref(),
            ),
            schema_only: self.boolean(
                ["backup.schema_only", "--schema-only", "OPSCTL_SCHEMA_ONLY"],
                flags.schema_only,
                file.schema_only.as_ref(),
            ),
            role_passwords: self.boolean(
                ["backup.role_passwords", "--role-passwords", "OPSCTL_ROLE_PASSWORDS"],
                flags.role_passwords,
                file.role_passwords.as_ref(),
            ),
            fail_on_shrink: self.boolean(
                ["backup.fail_on_shrink", "--fail-on-shrink", "OPSCTL_FAIL_ON_SHRINK"],
                flags.fail_on_shrink,
                file.fail_on_shrink.as_ref(),
            ),
            shrink_percent: self
                .setting(
                    ["backup.shrink_percent", "", "OPSCTL_SHRINK_PERCENT"],
                    None,
                    |text| value::parse_number(text, 1, 99),
                    file.shrink_percent.as_ref(),
                )
                .unwrap_or(50),
            timeout: self.setting(
                ["backup.timeout", "--timeout", "OPSCTL_TIMEOUT"],
                flags.timeout,
                value::parse_duration,
                file.timeout.as_ref(),
            ),
        };
        self.settle_schema_only(&mut backup);
        backup
    }

    /// A stronger `schema_only` leaves out the rows of all tables; a weaker one contradicts.
    fn settle_schema_only(&mut self, backup: &mut Backup) {
        if !backup.schema_only || backup.exclude_table_data.is_empty() {
            return;
        }
        let schema_only = self.source("backup.schema_only");
        let excluded = self.source("backup.exclude_table_data");
        if schema_only.strength() > excluded.strength() {
            backup.exclude_table_data.clear();
            self.sources.settings.remove("backup.exclude_table_data");
        } else {
            let message =
                format!("leaves out what `schema_only` ({schema_only}) leaves out already");
            self.problem(excluded, message);
        }
    }

    /// Returns a setting's value from the strongest source that has one. `names` are its key, its flag
    /// and its variable.
    pub(super) fn setting<T: Clone>(
        &mut self,
        names: [&str; 3],
        flag: Option<T>,
        parse: impl Fn(&str) -> Result<T, String>,
        file: Option<&At<T>>,
    ) -> Option<T> {
        let [key, name, variable] = names;
        if let Some(value) = flag {
            self.note(key, Source::flag(name));
            return Some(value);
        }
        if let Some(text) = self.environment.get(variable) {
            return self.variable(key, variable, text, parse);
        }
        let at = file?;
        self.note(key, self.file.source(at.line));
        Some(at.value.clone())
    }

    /// Returns a URL for requests, all of which is a secret: from the variable, the file, or a file that the file names.
    /// `names` are its key and its variable.
    pub(super) fn secret_url(
        &mut self,
        [key, variable]: [&str; 2],
        url: Option<&At<Secret>>,
        url_file: Option<&At<PathBuf>>,
        parse: fn(&str) -> Result<Secret, String>,
    ) -> Option<Secret> {
        let (None, Some(path)) = (self.environment.get(variable), url_file) else {
            return self.setting([key, "", variable], None, parse, url);
        };
        let source = self.file.source(path.line);
        self.note(key, source.clone());
        let text = self.read(&path.value, source.clone())?;
        let complain = |complaint| {
            self.problem(source, format!("the content of `{}` {complaint}", path.value.display()));
        };
        parse(&text).map_err(complain).ok()
    }

    /// Reads a variable's text; what is wrong with it becomes a problem.
    pub(super) fn variable<T>(
        &mut self,
        key: &str,
        variable: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let source = Source::environment(variable);
        match parse(text) {
            Ok(value) => {
                self.note(key, source);
                Some(value)
            }
            Err(complaint) => {
                self.problem(source, complaint);
                None
            }
        }
    }

    fn boolean(&mut self, names: [&str; 3], flag: Option<bool>, file: Option<&At<bool>>) -> bool {
        self.setting(names, flag, value::parse_bool, file).unwrap_or(false)
    }

    fn list(
        &mut self,
        [key, name]: [&str; 2],
        flag: &[String],
        file: Option<&At<Vec<String>>>,
    ) -> Vec<String> {
        let flag = (!flag.is_empty()).then(|| flag.to_vec());
        self.setting([key, name, ""], flag, |_| Err(String::new()), file).unwrap_or_default()
    }

    /// Reads a file that the configuration names at `source`.
    pub(super) fn read(&mut self, path: &Path, source: Source) -> Option<String> {
        match find::read_text(path) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problems.push(find::failed(source, path, &error));
                None
            }
        }
    }

    /// Remembers where a setting came from.
    pub(super) fn note(&mut self, key: impl Into<String>, source: Source) {
        self.sources.settings.insert(key.into(), source);
    }

    /// Remembers a problem.
    pub(super) fn problem(&mut self, source: Source, message: impl AsRef<str>) {
        self.problems.push(Problem::new(source, message));
    }

    /// Returns where a setting came from.
    pub(super) fn source(&self, key: &str) -> Source {
        self.sources.of(key)
    }
}

impl Sources {
    /// Returns where a setting came from.
    pub(super) fn of(&self, key: &str) -> Source {
        self.settings.get(key).cloned().unwrap_or(Source::Default)
    }
}
