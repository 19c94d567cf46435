//! The history: every run, what became of each database, and the runs that never came to their end.
//!
//! It is written by every run, several at once, and must never stop one: what goes wrong with it is a warning, and a
//! broken file is set aside and begun anew. It decides nothing; `opsctl history` shows it. `file.rs` keeps it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use crate::clock::Moment;
use crate::id::RunId;
use crate::sync::lock;

pub(crate) mod due;
mod file;

use file::Open;
pub(crate) use file::{Error, read};

/// How long runs are remembered.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(400);

/// What a run says of itself when it begins.
#[derive(Clone, Debug)]
pub(crate) struct Begun<'a> {
    pub(crate) id: &'a RunId,
    pub(crate) at: Moment,
    /// As it is typed, such as `backup prune`.
    pub(crate) command: &'a str,
    /// Does it only say what it would do?
    pub(crate) dry_run: bool,
}

/// A run as it is remembered.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[expect(clippy::struct_field_names, reason = "`dry_run` is what it is called when it is typed")]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) command: String,
    pub(crate) dry_run: bool,
    pub(crate) begun_at: Moment,
    pub(crate) ended_at: Option<Moment>,
    pub(crate) state: State,
    /// The status it ended with.
    pub(crate) exit: Option<u8>,
    pub(crate) error: Option<String>,
    /// In the order of their names.
    pub(crate) databases: Vec<Part>,
}

/// What became of one database in a run.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Part {
    pub(crate) database: String,
    /// The status that it alone would have had; none if the run never came so far.
    pub(crate) exit: Option<u8>,
    /// The numbers of its part of the report, by their paths in it, such as `totals.rows`.
    pub(crate) figures: BTreeMap<String, serde_json::Number>,
    pub(crate) error: Option<String>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ended,
    /// It is at work.
    Running,
    /// Its process is gone, and it never said how it ended: it was killed, or the machine stopped.
    Killed,
}

/// The history as a run writes it.
#[derive(Default)]
pub(crate) struct History {
    open: Mutex<Option<Open>>,
}

impl History {
    /// Notes that the run has begun, in the file of `state_dir`. Only the first call counts.
    pub(crate) fn begin(&self, state_dir: &Path, run: &Begun<'_>) {
        let mut open = lock(&self.open);
        if open.is_none() {
            match Open::begin(state_dir, run, run.at - KEPT) {
                Ok(begun) => *open = Some(begun),
                Err(error) => tracing::warn!("this run will not be in the history: {error:#}"),
            }
        }
    }

    /// Notes that the run is at work on a database.
    pub(crate) fn database_begun(&self, database: &str) {
        self.write(|open| open.part_begun(database));
    }

    /// Notes what became of a database: the numbers of its part of the report, see [`figures`], or an error.
    ///
    /// If that is said more than once, the worst status stays.
    pub(crate) fn database_ended(
        &self,
        database: &str,
        exit: u8,
        outcome: Result<&BTreeMap<String, serde_json::Number>, &str>,
    ) {
        let figures = outcome.map(|figures| serde_json::to_string(figures).unwrap_or_default());
        let figures = figures.unwrap_or_else(|_| "{}".to_owned());
        self.write(|open| open.part_ended(database, exit, &figures, outcome.err()));
    }

    /// Notes the end of the run.
    pub(crate) fn end(&self, at: Moment, exit: u8, error: Option<&str>) {
        self.write(|open| open.end(at, exit, error));
        *lock(&self.open) = None;
    }

    fn write(&self, work: impl FnOnce(&Open) -> Result<(), Error>) {
        if let Some(open) = &*lock(&self.open)
            && let Err(error) = work(open)
        {
            tracing::warn!("the history could not be written: {error:#}");
        }
    }
}

/// Returns the numbers in a report, by their paths; lists are left out.
pub(crate) fn figures(report: &serde_json::Value) -> BTreeMap<String, serde_json::Number> {
    fn collect(
        value: &serde_json::Value,
        path: &str,
        found: &mut BTreeMap<String, serde_json::Number>,
    ) {
        match value {
            serde_json::Value::Number(number) => {
                found.insert(path.to_owned(), number.clone());
            }
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    collect(value, &format!("{path}{dot}{name}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    collect(report, "", &mut found);
    found.remove("exit");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_report_are_its_numbers() {
        let report = serde_json::json!({
            "database": "ip2a", "exit": 0, "seconds": 1.5, "totals": { "rows": 7 }, "repositories": [{ "stored_bytes": 1 }],
        });
        let found = figures(&report);
        let found: Vec<_> = found.iter().map(|(path, number)| format!("{path}={number}")).collect();
        assert_eq!(found, ["seconds=1.5", "totals.rows=7"]);
    }
}
