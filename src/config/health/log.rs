//! `[[health.log]]`: a log file or a journal that is looked through for what happened in the last minutes.

use std::path::PathBuf;
use std::time::Duration;

use regex::{RegexSet, RegexSetBuilder};

use super::{CheckSettings, Reader};
use crate::config::section::At;
use crate::config::value::{self, format_duration};
use crate::health::kind;

/// How far back is looked, unless told otherwise, and at most.
const WINDOW: Duration = Duration::from_secs(15 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How large a pattern may become when it is compiled, in bytes.
const PATTERN_LIMIT: usize = 1 << 20;

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) name: String,
    pub(crate) settings: CheckSettings,
    pub(crate) source: LogSource,
    /// How far back is looked.
    pub(crate) window: Duration,
    /// What counts as an error beside what says so itself.
    pub(crate) patterns: RegexSet,
    pub(crate) often: Often,
}

/// Where lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogSource {
    /// A file, whose name may have one `*`.
    File(PathBuf),
    /// A unit, by the journal.
    Journal(String),
}

/// From which number on something happens too often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Often {
    /// In one minute.
    pub(crate) failed_logins: u32,
    /// In one minute, each of 401, 403 and 429.
    pub(crate) refused: u32,
    /// 404 in one minute.
    pub(crate) not_found: u32,
    /// Answers from 500 on, in percent of all in the window.
    pub(crate) server_errors: f64,
}

impl Often {
    /// Unless told otherwise.
    pub(crate) const USUAL: Often =
        Often { failed_logins: 10, refused: 10, not_found: 50, server_errors: 1.0 };
}

impl Log {
    pub(super) fn read(keys: &mut Reader<'_>, name: String, line: usize) -> Option<Log> {
        let path = keys.path("path");
        let unit = keys.text("journal");
        let is_there = |key: &str| keys.section.line_of(key).is_some();
        let stated = [is_there("path"), is_there("journal")];
        let source = match (path, unit) {
            (Some(path), None) => Some(LogSource::File(path)),
            (None, Some(unit)) => Some(LogSource::Journal(unit)),
            _ => None,
        };
        if stated[0] == stated[1] {
            keys.problem(line, "[[health.log]] needs `path` or `journal`, one of them");
        }
        let window = keys.section.parsed("window", |text| {
            let window = value::parse_duration(text)?;
            let fits = window <= LONGEST;
            if fits { Ok(window) } else { Err("is at most 1d".to_owned()) }
        });
        let window = keys.take("window", window, |window| format_duration(*window));
        let patterns = keys.section.strings("patterns", |text| {
            let built = RegexSetBuilder::new([text]).size_limit(PATTERN_LIMIT).build();
            built.map(|_| text.to_owned()).map_err(|error| one_line(&error))
        });
        let patterns = keys.take("patterns", patterns, |list| list.join(", ")).unwrap_or_default();
        // Each was built alone already; together they may be too large.
        let built = RegexSetBuilder::new(&patterns).size_limit(4 * PATTERN_LIMIT).build();
        let patterns = built.map_err(|_| {
            keys.problem(line, "`patterns` in [[health.log]] are too many or too large together");
        });
        let usual = Often::USUAL;
        let mut limit = |key: &str, usual| keys.number(key, 0..=1_000_000).unwrap_or(usual);
        let often = Often {
            failed_logins: limit("failed_logins", usual.failed_logins),
            refused: limit("refused", usual.refused),
            not_found: limit("not_found", usual.not_found),
            server_errors: percent(keys, "server_errors").unwrap_or(usual.server_errors),
        };
        let settings = keys.settings(kind::find("log")?);
        let window = window.unwrap_or(WINDOW);
        Some(Log { name, settings, source: source?, window, patterns: patterns.ok()?, often })
    }
}

fn percent(keys: &mut Reader<'_>, key: &str) -> Option<f64> {
    let found = keys.section.decimal(key);
    if let Some(At { value, line }) = &found
        && !(0.0..=100.0).contains(value)
    {
        keys.section.complain(key, *line, "is a percentage from 0 to 100");
    }
    keys.take(key, found, ToString::to_string)
}

/// Returns what is wrong with a pattern, without the picture of it.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    format!("is no regular expression: {last}")
}
