//! What is remembered of runs, in statements that both places of the history understand.
//!
//! `SQLite` and PostgreSQL agree on all that is used here, but for the sign before a parameter. `incidents.rs` has the
//! statements for the rest; where the rows lie, and how a living run is known, `file.rs` and `server.rs` decide.

use std::collections::{BTreeMap, BTreeSet};

use super::file::SqliteFile;
use super::server::Server;
use super::value::{Row, Value};
use super::{Begun, Error, Part, Place, Run, State};
use crate::clock::Moment;

/// The version of the tables, in both places.
pub(super) const VERSION: i64 = 2;

/// Numbers by their names.
pub(crate) type Figures = BTreeMap<String, serde_json::Number>;

/// A place that holds the tables.
pub(super) trait Tables: Send {
    /// Runs a statement, with parameters `?1`, `?2`, …, and returns how many rows it changed.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error>;
    /// Runs a statement and returns its rows.
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, Error>;
    /// Begins a transaction; a second one waits until the first has ended.
    fn begin(&mut self) -> Result<(), Error>;
    /// Ends it, keeping what was done in it or not.
    fn end(&mut self, is_good: bool) -> Result<(), Error>;
    /// Lets others see that a run lives, until [`Tables::release`] or the end of the process.
    fn hold(&mut self, run: &str) -> Result<(), Error>;
    fn release(&mut self);
    /// Returns which of the runs are held by somebody.
    fn alive(&mut self, runs: &[String]) -> Result<BTreeSet<String>, Error>;
}

/// The history, opened.
pub(crate) struct Store {
    pub(super) tables: Box<dyn Tables>,
}

impl Store {
    /// Opens the history, and makes what is missing.
    pub(crate) fn open(place: &Place) -> Result<Store, Error> {
        let tables: Box<dyn Tables> = match place {
            Place::Directory(state_dir) => Box::new(SqliteFile::open(state_dir)?),
            Place::Server(target) => Box::new(Server::open(target)?),
        };
        Ok(Store { tables })
    }

    /// Opens the history, if there is one.
    pub(crate) fn open_if_there(place: &Place) -> Result<Option<Store>, Error> {
        let tables: Option<Box<dyn Tables>> = match place {
            Place::Directory(state_dir) => match SqliteFile::open_if_there(state_dir)? {
                Some(file) => Some(Box::new(file)),
                None => None,
            },
            Place::Server(target) => match Server::open_if_there(target)? {
                Some(server) => Some(Box::new(server)),
                None => None,
            },
        };
        Ok(tables.map(|tables| Store { tables }))
    }

    /// Does all of `work` or nothing; no other run is at it at the same time.
    pub(crate) fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.tables.begin()?;
        let result = work(self);
        let ended = self.tables.end(result.is_ok());
        result.and_then(|done| ended.map(|()| done))
    }

    /// Notes that a run has begun, and forgets what is older than `oldest`, and of the health checks that are older than `full`
    /// all but the first of each day: the day stands in the id.
    pub(super) fn run_begun(
        &mut self,
        run: &Begun,
        oldest: Moment,
        full: Moment,
    ) -> Result<(), Error> {
        // First: a run that is in the history is never without it.
        self.tables.hold(run.id.as_str())?;
        let values = [
            run.id.as_str().into(),
            super::host().as_str().into(),
            run.command.as_str().into(),
            run.dry_run.into(),
            run.at.into(),
        ];
        let sql =
            "INSERT INTO run (id, host, command, dry_run, begun_at) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.tables.execute(sql, &values)?;
        for sql in [
            "DELETE FROM run WHERE begun_at < ?1",
            "DELETE FROM incident WHERE opened_at < ?1",
            "DELETE FROM silence WHERE until < ?1",
        ] {
            self.tables.execute(sql, &[oldest.into()])?;
        }
        let sql = "DELETE FROM run WHERE command = 'health-check' AND begun_at < ?1 AND id NOT IN \
            (SELECT min(id) FROM run WHERE command = 'health-check' AND begun_at < ?1 GROUP BY substr(id, 1, 8))";
        self.tables.execute(sql, &[full.into()])?;
        Ok(())
    }

    /// Returns the figures of the last runs of a command on this host that have ended, the last first.
    pub(crate) fn last_runs(&mut self, command: &str, most: u32) -> Result<Vec<Figures>, Error> {
        let sql = "SELECT id FROM run WHERE command = ?1 AND host = ?2 AND ended_at IS NOT NULL \
            ORDER BY begun_at DESC, id DESC LIMIT ?3";
        let host = super::host();
        let rows = self
            .tables
            .query(sql, &[command.into(), host.as_str().into(), i64::from(most).into()])?;
        let mut last = Vec::new();
        for mut row in rows {
            let id = row.text()?;
            let sql = "SELECT run, database, exit, figures, error FROM part WHERE run = ?1";
            let mut figures = Figures::new();
            for mut row in self.tables.query(sql, &[id.as_str().into()])? {
                row.text()?;
                figures.append(&mut part(row)?.figures);
            }
            last.push(figures);
        }
        Ok(last)
    }

    /// Notes that a run is at work on a database.
    pub(super) fn part_begun(&mut self, run: &str, database: &str) -> Result<(), Error> {
        let sql = "INSERT INTO part (run, database, figures) VALUES (?1, ?2, '{}') ON CONFLICT DO NOTHING";
        self.tables.execute(sql, &[run.into(), database.into()]).map(drop)
    }

    /// Notes numbers of a database that a run is still at work on.
    pub(super) fn part_noted(
        &mut self,
        run: &str,
        database: &str,
        figures: &str,
    ) -> Result<(), Error> {
        let sql = "UPDATE part SET figures = ?3 WHERE run = ?1 AND database = ?2";
        match self.tables.execute(sql, &[run.into(), database.into(), figures.into()])? {
            1 => Ok(()),
            _ => Err(Error::Value),
        }
    }

    /// Notes what became of a database, or of a part of it.
    pub(super) fn part_ended(
        &mut self,
        run: &str,
        database: &str,
        exit: u8,
        figures: &str,
        error: Option<&str>,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO part (run, database, exit, figures, error) VALUES (?1, ?2, ?3, ?4, ?5) \
            ON CONFLICT (run, database) DO UPDATE SET \
            exit = CASE WHEN part.exit > excluded.exit THEN part.exit ELSE excluded.exit END, \
            figures = CASE WHEN excluded.figures = '{}' THEN part.figures ELSE excluded.figures END, error = coalesce(excluded.error, part.error)";
        let values = [run.into(), database.into(), exit.into(), figures.into(), error.into()];
        self.tables.execute(sql, &values).map(drop)
    }

    /// Notes the end of a run.
    pub(super) fn run_ended(
        &mut self,
        run: &str,
        at: Moment,
        exit: u8,
        error: Option<&str>,
    ) -> Result<(), Error> {
        let sql = "UPDATE run SET ended_at = ?2, exit = ?3, error = ?4 WHERE id = ?1";
        self.tables.execute(sql, &[run.into(), at.into(), exit.into(), error.into()])?;
        self.tables.release();
        Ok(())
    }

    /// Returns the runs that began at or after `since`, oldest first: of these commands and the very first of all, or, if none
    /// are named, of every command.
    pub(crate) fn runs(&mut self, since: Moment, commands: &[&str]) -> Result<Vec<Run>, Error> {
        let mut condition = "run.begun_at >= ?1".to_owned();
        if !commands.is_empty() {
            let names: Vec<_> = (2..commands.len() + 2).map(|n| format!("?{n}")).collect();
            let names = names.join(", ");
            condition.push_str(&format!(
                " AND (run.command IN ({names}) OR run.begun_at = (SELECT min(begun_at) FROM run))"
            ));
        }
        let values = commands.iter().map(|command| Value::from(*command));
        let values: Vec<Value> = [since.into()].into_iter().chain(values).collect();
        self.runs_where(&condition, &values)
    }

    /// Returns of the runs of a command since then that have ended the first of each hour of each host, oldest first: the hour
    /// stands in the id. For what is looked at over days, all of them would be too much.
    pub(crate) fn hourly_runs(&mut self, since: Moment, command: &str) -> Result<Vec<Run>, Error> {
        let condition = "run.id IN (SELECT min(id) FROM run WHERE begun_at >= ?1 AND command = ?2 \
            AND ended_at IS NOT NULL GROUP BY host, substr(id, 1, 11))";
        self.runs_where(condition, &[since.into(), command.into()])
    }

    fn runs_where(&mut self, condition: &str, values: &[Value]) -> Result<Vec<Run>, Error> {
        // Before the runs themselves: one that ends in between is then seen to have ended, not taken for killed.
        let open = self.tables.query("SELECT id FROM run WHERE ended_at IS NULL", &[])?;
        let open = open.into_iter().map(|mut row| row.text()).collect::<Result<Vec<_>, _>>()?;
        let alive = if open.is_empty() { BTreeSet::new() } else { self.tables.alive(&open)? };
        let sql = format!(
            "SELECT id, host, command, dry_run, begun_at, ended_at, exit, error FROM run \
            WHERE {condition} ORDER BY begun_at, id"
        );
        let rows = self.tables.query(&sql, values)?;
        let mut runs = rows.into_iter().map(run).collect::<Result<Vec<Run>, Error>>()?;
        let sql = format!(
            "SELECT run, database, exit, figures, error FROM part \
            WHERE run IN (SELECT id FROM run WHERE {condition}) ORDER BY run, database"
        );
        let mut parts: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        for mut row in self.tables.query(&sql, values)? {
            parts.entry(row.text()?).or_default().push(part(row)?);
        }
        for run in &mut runs {
            run.databases = parts.remove(&run.id).unwrap_or_default();
            run.state = match run.ended_at {
                Some(_) => State::Ended,
                None if open.contains(&run.id) && !alive.contains(&run.id) => State::Killed,
                None => State::Running,
            };
        }
        Ok(runs)
    }
}

fn run(mut row: Row) -> Result<Run, Error> {
    Ok(Run {
        id: row.text()?,
        host: row.text()?,
        command: row.text()?,
        dry_run: row.flag()?,
        begun_at: row.moment()?,
        ended_at: row.maybe_moment()?,
        state: State::Ended,
        exit: row.maybe_number()?,
        error: row.maybe_text()?,
        databases: Vec::new(),
    })
}

fn part(mut row: Row) -> Result<Part, Error> {
    Ok(Part {
        database: row.text()?,
        exit: row.maybe_number()?,
        figures: serde_json::from_str(&row.text()?).unwrap_or_default(),
        error: row.maybe_text()?,
    })
}
