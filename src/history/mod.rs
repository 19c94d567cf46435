//! The history: every run, what became of each database, and the runs that never came to their end; and what
//! notifications have to remember from run to run.
//!
//! It is written by every run, several at once, and must never stop one: what goes wrong with it is a warning, and a
//! broken file is set aside and begun anew. It decides nothing; `opsctl history` shows it. `store.rs` and `incidents.rs` say
//! what is remembered, `file.rs` and `server.rs` keep it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::clock::Moment;
use crate::db;
use crate::id::RunId;
use crate::sync::lock;

pub(crate) mod due;
mod file;
pub(crate) mod incidents;
mod server;
mod store;
#[cfg(test)]
mod suite;
mod value;

pub(crate) use store::{Figures, Store};

/// How long runs are remembered.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(400);
/// How long every run of what runs every few minutes is; then the first of each day is enough.
const KEPT_IN_FULL: chrono::TimeDelta = chrono::TimeDelta::days(14);

/// Where the history is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a file of the state directory.
    Directory(PathBuf),
    /// In a schema of this database.
    Server(Box<db::Target>),
}

/// Why the history cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{0}` cannot be used")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("`{0}` cannot be used")]
    Sqlite(PathBuf, #[source] rusqlite::Error),
    #[error("the server of the history cannot be used")]
    Server(#[source] db::Error),
    #[error("the history in {0} does not answer")]
    Silent(String),
    #[error("the history in {0} has version {1}, this opsctl knows {known}: a newer one wrote it", known = store::VERSION)]
    Version(String, i64),
    #[error("the history holds a value that opsctl did not write")]
    Value,
    #[error("the place of the history is not known")]
    NoPlace,
    #[error("the history failed before in this run")]
    GivenUp,
}

impl Error {
    /// Says it with all its causes.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text.replace('\n', " ")
    }
}

/// What a run says of itself when it begins.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) id: RunId,
    pub(crate) at: Moment,
    /// As it is typed, such as `backup prune`.
    pub(crate) command: String,
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
    state: Mutex<Writing>,
}

/// Something that is noted of a run.
type Note = Box<dyn Fn(&mut Store, &str) -> Result<(), Error> + Send>;

#[derive(Default)]
struct Writing {
    place: Option<Place>,
    store: Option<Store>,
    /// The run that was to be noted.
    run: Option<Begun>,
    /// What else was to be noted of it, for a history that is begun anew.
    notes: Vec<Note>,
    /// Did something fail? Then the run does not wait for it again, but at its end.
    has_failed: bool,
}

impl History {
    /// Says where the history is. Only the first call counts.
    pub(crate) fn locate(&self, place: Place) {
        lock(&self.state).place.get_or_insert(place);
    }

    /// Returns where the history is, if that was said.
    pub(crate) fn place(&self) -> Option<Place> {
        lock(&self.state).place.clone()
    }

    /// Notes that the run has begun. Only the first call counts.
    pub(crate) fn begin(&self, run: &Begun) {
        let mut state = lock(&self.state);
        if state.place.is_none() || state.run.is_some() {
            return;
        }
        state.run = Some(run.clone());
        if let Err(error) = state.open().or_else(|error| state.begin_anew(error)) {
            state.has_failed = true;
            tracing::warn!("this run will not be in the history: {}", error.in_full());
        }
    }

    /// Notes that the run is at work on a database.
    pub(crate) fn database_begun(&self, database: &str) {
        let database = database.to_owned();
        lock(&self.state).note(Box::new(move |store, run| store.part_begun(run, &database)));
    }

    /// Notes numbers of a database that a later run is to know should this one never come to its end.
    pub(crate) fn note_ahead(&self, database: &str, figures: &Figures) -> Result<(), Error> {
        let run = lock(&self.state).run.as_ref().map(|run| run.id.to_string());
        let run = run.ok_or(Error::NoPlace)?;
        let figures = serde_json::to_string(figures).unwrap_or_default();
        self.with(|store| store.part_noted(&run, database, &figures))
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
        let (database, error) = (database.to_owned(), outcome.err().map(str::to_owned));
        lock(&self.state).note(Box::new(move |store, run| {
            store.part_ended(run, &database, exit, &figures, error.as_deref())
        }));
    }

    /// Notes the end of the run. Whatever failed before, this is tried.
    pub(crate) fn end(&self, at: Moment, exit: u8, error: Option<&str>) {
        let mut state = lock(&self.state);
        state.has_failed = false;
        let error = error.map(str::to_owned);
        state.note(Box::new(move |store, run| store.run_ended(run, at, exit, error.as_deref())));
    }

    /// Does something else with the history, which is opened if it is not open; nothing more after it has failed.
    pub(crate) fn with<T>(
        &self,
        work: impl Fn(&mut Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut state = lock(&self.state);
        if state.has_failed {
            return Err(Error::GivenUp);
        }
        if state.store.is_none() {
            let opened = state.open().or_else(|error| state.begin_anew(error));
            opened.inspect_err(|_| state.has_failed = true)?;
        }
        let result = state.attempt(work);
        // What does not answer is not asked again, because each time takes seconds.
        state.has_failed = matches!(result, Err(Error::Silent(_)));
        result
    }

    /// Reads from the history, if there is one.
    pub(crate) fn read<T: Default>(
        &self,
        work: impl Fn(&mut Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut state = lock(&self.state);
        let place = state.place.clone().ok_or(Error::NoPlace)?;
        let read = || Store::open_if_there(&place)?.as_mut().map_or(Ok(T::default()), &work);
        read().or_else(|error| {
            state.begin_anew(error)?;
            read()
        })
    }
}

impl Writing {
    /// Opens the history, and notes what there is to be noted of the run.
    fn open(&mut self) -> Result<(), Error> {
        let mut store = Store::open(self.place.as_ref().ok_or(Error::NoPlace)?)?;
        if let Some(run) = &self.run {
            store.run_begun(run, run.at - KEPT, run.at - KEPT_IN_FULL)?;
            self.notes.iter().try_for_each(|note| note(&mut store, run.id.as_str()))?;
        }
        self.store = Some(store);
        Ok(())
    }

    /// After this error: sets a broken file aside and opens a new one; returns the error if it is about something else.
    fn begin_anew(&mut self, error: Error) -> Result<(), Error> {
        match &self.place {
            Some(Place::Directory(dir)) if file::is_broken(&error) => {
                self.store = None;
                file::set_aside(dir, &error)?;
                self.open()
            }
            _ => Err(error),
        }
    }

    /// Does something with the open history: once more if it had to be begun anew.
    fn attempt<T>(&mut self, work: impl Fn(&mut Store) -> Result<T, Error>) -> Result<T, Error> {
        let error = match self.store.as_mut().map(&work) {
            Some(Err(error)) => error,
            Some(Ok(done)) => return Ok(done),
            None => return Err(Error::GivenUp),
        };
        self.begin_anew(error)?;
        self.store.as_mut().map_or(Err(Error::GivenUp), work)
    }

    fn note(&mut self, note: Note) {
        let Some(run) = self.run.as_ref().map(|run| run.id.to_string()) else { return };
        if self.store.is_some()
            && !self.has_failed
            && let Err(error) = self.attempt(|store| note(store, &run))
        {
            self.has_failed = true;
            tracing::warn!("the history could not be written: {}", error.in_full());
        }
        self.notes.push(note);
    }
}

/// Returns the name of this host.
pub(crate) fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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
    #[expect(clippy::disallowed_methods, reason = "a test breaks the file")]
    fn wherever_the_file_is_broken_a_run_is_remembered_and_what_is_asked_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Directory(dir.path().to_owned());
        let begun = |n: u32| Begun {
            id: RunId::parse(&format!("20261121T02{:02}{:02}Z-{n:06x}", n / 60, n % 60)).unwrap(),
            at: Moment::default() + chrono::TimeDelta::days(20_000),
            command: "backup".to_owned(),
            dry_run: false,
        };
        let error = "all of it is broken ".repeat(20);
        let mut store = Store::open(&place).unwrap();
        for n in 0..100 {
            let run = begun(n);
            store.run_begun(&run, Moment::default(), Moment::default()).unwrap();
            store.run_ended(run.id.as_str(), run.at, 1, Some(&error)).unwrap();
        }
        drop(store);
        let path = file::path(dir.path());
        let good = std::fs::read(&path).unwrap();
        let page = 4096;
        assert!(good.len() > 10 * page, "{}", good.len());
        let mut n_anew = 0;
        for start in (0..good.len()).step_by(page) {
            let mut broken = good.clone();
            broken[start..start + page].fill(0xa5);
            std::fs::write(&path, broken).unwrap();
            let history = History::default();
            history.locate(place.clone());
            history.begin(&begun(200));
            history.database_begun("ip2a");
            history.end(begun(201).at, 0, None);
            let runs = history.read(|store| store.runs(Moment::default(), &[])).unwrap();
            let own = runs.iter().find(|run| run.id == begun(200).id.as_str()).unwrap();
            assert_eq!((own.state, own.databases.len()), (State::Ended, 1));
            assert!(runs.len() == 101 || runs.len() == 1);
            n_anew += usize::from(runs.len() == 1);
            drop(history);
            for suffix in ["-wal", "-shm"] {
                std::fs::remove_file(format!("{}{suffix}", path.display())).ok();
            }
        }
        assert!(n_anew > 10, "{n_anew}");
    }

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
