//! Those who work: each takes the most urgent step whose table is free, and says what became of it.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::SqlState;

use super::session::Session;
use super::{Done, End, Manner};
use crate::db::{Connection, Error};
use crate::maintain::guard::Guard;
use crate::maintain::past::{Past, Work};
use crate::maintain::plan::{Act, Step};
use crate::maintain::{connect, look, reindex};
use crate::sync::lock;

/// What all of them share.
pub(super) struct Shared<'a> {
    manner: &'a Manner<'a>,
    guard: &'a Guard,
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

/// What is left, who is at work, and what became of the rest.
pub(super) struct State {
    pub(super) waiting: Vec<Step>,
    /// Tables at which somebody is at work.
    busy: BTreeSet<u32>,
    analyzed: BTreeSet<u32>,
    /// Indexes that were begun, and are not known to have come to their end.
    pub(super) working: Vec<Work>,
    pub(super) past: Past,
    pub(super) done: Vec<Done>,
    /// Bytes and seconds of VACUUM, ANALYZE and REINDEX.
    pub(super) spent: [(u64, f64); 3],
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        manner: &'a Manner<'a>,
        guard: &'a Guard,
        waiting: Vec<Step>,
        past: Past,
    ) -> Shared<'a> {
        let state = State {
            waiting,
            busy: BTreeSet::new(),
            analyzed: BTreeSet::new(),
            working: past.work.clone(),
            past,
            done: Vec::new(),
            spent: [(0, 0.0); 3],
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Shared { manner, guard, began: Instant::now(), state, changed }
    }

    /// Gives away what became of everything, when nobody works any more.
    pub(super) fn into_state(self) -> State {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes the most urgent step whose table nobody is at work on; none if there is nothing left to begin.
    fn next(&self) -> Option<(Step, u32)> {
        let mut state = self.state();
        loop {
            if self.guard.work.reason().is_some() || self.guard.halted().is_some() {
                return None;
            }
            let free = state.waiting.iter().position(|step| !state.busy.contains(&table(step)));
            if let Some(n) = free.filter(|_| self.guard.may_begin()) {
                let step = state.waiting.remove(n);
                let wal = if matches!(step.act(), Act::Reindex(_)) { step.bytes() } else { 0 };
                if let Some(why) = self.guard.refuses(step.likely(), wal) {
                    state.done.push(Done::left(&step, &why));
                    continue;
                }
                let table = table(&step);
                state.busy.insert(table);
                self.guard.begins();
                return Some((step, table));
            }
            if state.waiting.is_empty() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, Duration::from_millis(200));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Works until nothing is left.
    pub(super) fn work(&self) -> Result<(), Error> {
        let Manner { target, server, settings, .. } = self.manner;
        let connection = connect(target, settings.lock_timeout, &self.guard.work)?;
        let mut session = Session::of(connection, server)?;
        while let Some((step, table)) = self.next() {
            let began = Instant::now();
            let result = self.step(&mut session, &step);
            self.guard.ended();
            let seconds = began.elapsed().as_secs_f64();
            let mut lost = None;
            let done = match result {
                Ok(done) => Done { seconds, ..done },
                Err(error) if error.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    Done::of(&step, End::Locked, seconds)
                }
                Err(_) if self.guard.work.reason().is_some() => {
                    Done::of(&step, End::Cancelled, seconds)
                }
                Err(error) => {
                    let message = crate::db::one_line(&error) + hint(&error);
                    tracing::error!("{message}");
                    let is_lost = matches!(error, Error::Lost { .. } | Error::Unreachable { .. });
                    lost = is_lost.then_some(error);
                    Done::of(&step, End::Failed(message), seconds)
                }
            };
            tracing::info!("{}: {} in {seconds:.1} s", done.object, done.end);
            self.note(&step, table, done);
            if let Some(error) = lost {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Notes what became of a step, and lets the others go on.
    fn note(&self, step: &Step, table: u32, done: Done) {
        let mut state = self.state();
        if done.end == End::Done {
            let kind = match step.act() {
                Act::Vacuum { .. } => Some(0),
                Act::Analyze { .. } => Some(1),
                Act::Reindex(_) => Some(2),
                Act::Drop(_) => None,
            };
            if let Some(kind) = kind {
                state.spent[kind].0 += step.bytes();
                state.spent[kind].1 += done.seconds;
            }
            if let Act::Analyze { .. } | Act::Vacuum { analyze: true, .. } = step.act() {
                state.analyzed.insert(table);
            }
        }
        state.done.push(done);
        state.busy.remove(&table);
        drop(state);
        self.changed.notify_all();
    }

    fn step(&self, session: &mut Session, step: &Step) -> Result<Done, Error> {
        session.pace(self.guard.n_working(), self.guard.is_careful())?;
        let connection = &mut session.connection;
        match step.act() {
            Act::Vacuum { .. } | Act::Analyze { .. } => {
                let before = connection.passed_over();
                connection.batch_execute(step.sql()).map_err(|e| {
                    let verb = step.sql().split(' ').next().unwrap_or_default();
                    Error::query(format!("{verb} {}", step.object()), e)
                        .or_stopped(&self.guard.work)
                })?;
                let end = if connection.passed_over() == before { End::Done } else { End::Locked };
                Ok(Done::of(step, end, 0.0))
            }
            Act::Drop(invalid) => {
                let gone = reindex::drop_index(connection, invalid)?;
                Ok(Done::of(step, if gone { End::Done } else { End::Locked }, 0.0))
            }
            Act::Reindex(index) => self.reindex(connection, step, index),
        }
    }

    fn reindex(
        &self,
        connection: &mut Connection,
        step: &Step,
        index: &look::Index,
    ) -> Result<Done, Error> {
        let Manner { server, settings, .. } = self.manner;
        let (before, is_analyzed) = {
            let state = self.state();
            let before = state.past.best.get(&index.name.to_string()).copied();
            (before, state.analyzed.contains(&index.table))
        };
        let cleared = reindex::clear(connection, server, index, before, settings, is_analyzed)?;
        let cleared = match cleared {
            Ok(cleared) => cleared,
            Err(why) => return Ok(Done::left(step, &why)),
        };
        let began = self.manner.now + self.began.elapsed();
        let work = Work { table: index.table, index: index.oid, began };
        // One after the other, so that the last note has them all.
        let remembered = {
            let mut state = self.state();
            state.working.push(work.clone());
            (self.manner.remember)(&state.working)
        };
        if let Err(why) = remembered {
            self.forget(&work);
            let why = format!("nobody would know of it should the run be killed: {why}");
            return Ok(Done::left(step, &why));
        }
        match reindex::rebuild(connection, &cleared, server, settings, &self.guard.work) {
            Ok(rebuilt) => {
                self.forget(&work);
                if let Some(best) = rebuilt.best {
                    self.state().past.best.insert(index.name.to_string(), best);
                }
                let (bytes_before, bytes_after) = (Some(rebuilt.before), Some(rebuilt.after));
                Ok(Done { bytes_before, bytes_after, ..Done::of(step, End::Done, 0.0) })
            }
            Err(error) => {
                self.clean_up(&work, index);
                Err(error)
            }
        }
    }

    /// Removes what is left of an index that was not built to its end, or says that the next run does.
    fn clean_up(&self, work: &Work, index: &look::Index) {
        let Manner { target, server, settings, abort, .. } = self.manner;
        let past = self.state().past.clone();
        let left = "what was begun of it is left, the next run removes it";
        match reindex::clean_up(target, server, work, &past, settings, abort) {
            Ok(true) => self.forget(work),
            Ok(false) => tracing::warn!("{}: {left}", index.name),
            Err(error) => {
                tracing::warn!("{}: {left}: {}", index.name, crate::db::one_line(&error));
            }
        }
    }

    fn forget(&self, work: &Work) {
        self.state().working.retain(|other| other != work);
    }
}

/// Returns the table that a step is about.
fn table(step: &Step) -> u32 {
    match step.act() {
        Act::Vacuum { table, .. } | Act::Analyze { table, .. } => *table,
        Act::Drop(invalid) => invalid.table,
        Act::Reindex(index) => index.table,
    }
}

/// Says what to do where a function of an index does not find what it needs, as in autovacuum, vacuumdb and, since version 17, anybody's
/// maintenance.
fn hint(error: &Error) -> &'static str {
    match error.sqlstate() {
        Some(
            &SqlState::UNDEFINED_FUNCTION
            | &SqlState::UNDEFINED_TABLE
            | &SqlState::UNDEFINED_OBJECT,
        ) => {
            "; maintenance runs with `search_path = pg_catalog`: a function that an index uses needs its own (ALTER FUNCTION … SET search_path)"
        }
        _ => "",
    }
}
