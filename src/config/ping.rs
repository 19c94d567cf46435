//! `[ping]`: which monitor, such as healthchecks.io, is told that a run begins and how it ended. Nothing is sent here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::resolve::Merge;
use super::section::{At, Section};
use super::value;
use crate::secret::Secret;

/// The commands that a monitor can be told of, as a check of it is named.
pub(crate) const COMMANDS: &[&str] = &[
    "backup",
    "backup-prune",
    "verify-backup",
    "verify-backup-restore-test",
    "restore",
    "cleanup-sessions",
    "db-maintain",
    "archive-audit",
    "health-check",
];

/// Whom to tell of runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ping {
    /// Where `{command}` stands in it, the command's name takes its place.
    pub(crate) url: Option<Secret>,
    /// Those that go before `url`, by the names in [`COMMANDS`].
    pub(crate) commands: BTreeMap<&'static str, Secret>,
    /// Is the monitor told what the run says, or only how it ended?
    pub(crate) with_report: bool,
}

/// What the file says.
#[derive(Clone, Debug, Default)]
pub(super) struct PingEntry {
    pub(super) url: Option<At<Secret>>,
    pub(super) url_file: Option<At<PathBuf>>,
    pub(super) commands: BTreeMap<&'static str, At<Secret>>,
    pub(super) with_report: Option<At<bool>>,
}

impl PingEntry {
    /// Reads the section; `commands` is the one below it.
    pub(super) fn read(section: &Section<'_>, commands: Option<&Section<'_>>) -> PingEntry {
        if let (Some(_), Some(line)) = (section.line_of("url"), section.line_of("url_file")) {
            section.complain("url_file", line, "`url` is there as well: keep one of them");
        }
        let own = |section: &Section<'_>| {
            let url = |name: &&'static str| Some((*name, section.parsed(name, value::parse_http)?));
            COMMANDS.iter().filter_map(url).collect()
        };
        PingEntry {
            url: section.parsed("url", value::parse_http),
            url_file: section.path("url_file"),
            commands: commands.map(own).unwrap_or_default(),
            with_report: section.parsed("body", |text| match text {
                "report" => Ok(true),
                "none" => Ok(false),
                _ => Err(format!("{} is not report or none", value::quote(text))),
            }),
        }
    }
}

impl Merge<'_> {
    /// Puts together whom to tell. A variable is for the one line of a crontab that it stands before, and so for its command.
    pub(super) fn ping(&mut self) -> Ping {
        let entry = &self.file.ping;
        let names = ["ping.url", VARIABLE];
        let url =
            self.secret_url(names, entry.url.as_ref(), entry.url_file.as_ref(), value::parse_http);
        let mut commands = BTreeMap::new();
        if self.environment.get(VARIABLE).is_none() {
            for (name, url) in &entry.commands {
                self.note(format!("ping.commands.{name}"), self.file.source(url.line));
                commands.insert(*name, url.value.clone());
            }
        }
        let names = ["ping.body", "", ""];
        let with_report = self.setting(names, None, value::parse_bool, entry.with_report.as_ref());
        Ping { url, commands, with_report: with_report.unwrap_or(true) }
    }
}

/// The variable with the URL.
pub(super) const VARIABLE: &str = "OPSCTL_PING_URL";
