//! Carries a plan out: several statements side by side, the most urgent first, never two on one table.
//!
//! Each worker has a session of its own. What somebody has locked is left for the next run. Whatever ends a run, the statements at work
//! are cancelled and an index that was not built to its end is removed.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postgres::error::SqlState;

use super::guard::{Guard, Halt};
use super::need::approximate;
use super::past::{Past, Rates, Work};
use super::plan::{Act, Class, Plan, Step};
use super::{Server, look, reindex};
use crate::clock::Moment;
use crate::config::Maintain;
use crate::db::{Connection, Error, Target};
use crate::stop::{Reason, Stop};
use crate::sync::lock;

/// How to go about it.
pub(crate) struct Manner<'a> {
    pub(crate) target: &'a Target,
    pub(crate) server: &'a Server,
    pub(crate) settings: &'a Maintain,
    pub(crate) jobs: usize,
    /// When it began, by the clock of the run.
    pub(crate) now: Moment,
    pub(crate) stop: &'a Stop,
    /// Ends the cleaning up, too.
    pub(crate) abort: &'a Stop,
    /// Notes what is about to be built anew, so that the next run knows of it should this one be killed.
    pub(crate) remember: &'a (dyn Fn(&[Work]) -> Result<(), String> + Sync),
    /// Shows how far it is, if anybody looks.
    pub(crate) progress: Option<&'a (dyn Fn(String) + Sync)>,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Done {
    pub(crate) object: String,
    pub(crate) class: Class,
    pub(crate) sql: String,
    #[serde(flatten)]
    pub(crate) end: End,
    pub(crate) seconds: f64,
    /// Of an index that was built anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_after: Option<u64>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "end", content = "why")]
pub(crate) enum End {
    Done,
    /// Somebody has it locked.
    Locked,
    /// It was not done, or is not needed any more.
    Left(String),
    Cancelled,
    Failed(String),
}

/// What became of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) done: Vec<Done>,
    pub(crate) halt: Option<Halt>,
    /// What the next run is to know.
    pub(crate) past: Past,
    /// How fast it was, where it was long enough to say.
    pub(crate) rates: Rates,
}

struct Shared<'a> {
    manner: &'a Manner<'a>,
    guard: &'a Guard,
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: Vec<Step>,
    /// Tables at which somebody is at work.
    busy: BTreeSet<u32>,
    analyzed: BTreeSet<u32>,
    working: Vec<Work>,
    past: Past,
    done: Vec<Done>,
    /// Bytes and seconds of VACUUM, ANALYZE and REINDEX.
    spent: [(u64, f64); 3],
}

/// Carries a plan out.
pub(crate) fn apply(plan: Plan, manner: &Manner<'_>) -> Result<Outcome, Error> {
    let guard = Guard::new(manner.settings);
    // Whatever stops the run stops the work as well.
    let (work, stop) = (guard.work.clone(), manner.stop.clone());
    let _stopping = manner.stop.on_stop(move || {
        work.request(stop.reason().unwrap_or(Reason::Deadline));
    });
    let (waiting, past) = plan.into_steps();
    if waiting.is_empty() {
        let rates = past.rates;
        return Ok(Outcome { done: Vec::new(), halt: None, past, rates });
    }
    let watch = guard.watch(manner.target)?;
    let n_workers = manner.jobs.min(waiting.len());
    let working = past.work.clone();
    let state = State {
        waiting,
        busy: BTreeSet::new(),
        analyzed: BTreeSet::new(),
        working,
        past,
        done: Vec::new(),
        spent: [(0, 0.0); 3],
    };
    let shared = Shared {
        manner,
        guard: &guard,
        began: Instant::now(),
        state: Mutex::new(state),
        changed: Condvar::new(),
    };
    let is_over = Stop::new();
    let result = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..n_workers).map(|_| scope.spawn(|| shared.work())).collect();
        let waiter = scope.spawn(|| {
            let mut result = Ok(());
            for worker in workers {
                let ended = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(ended);
            }
            is_over.request(Reason::Deadline);
            result
        });
        let watched = watch.run(&is_over, manner.progress);
        if watched.is_err() {
            // Nobody works that nobody watches.
            guard.work.request(Reason::Deadline);
        }
        let worked = waiter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked.and(watched)
    });
    let State { waiting, done, past, working, spent, .. } =
        shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut outcome = Outcome { done, halt: guard.halted(), rates: rates(past.rates, spent), past };
    let why = match &outcome.halt {
        Some(_) => "it was stopped before",
        None => "the run ended before",
    };
    outcome.done.extend(waiting.into_iter().map(|step| left(&step, why)));
    outcome.past.work = working;
    match result {
        Err(_) if manner.stop.reason().is_some() || outcome.halt.is_some() => Ok(outcome),
        Err(error) => Err(error),
        Ok(()) => {
            settle(manner, &mut outcome);
            Ok(outcome)
        }
    }
}

fn left(step: &Step, why: &str) -> Done {
    done(step, End::Left(why.to_owned()), 0.0)
}

fn done(step: &Step, end: End, seconds: f64) -> Done {
    Done {
        object: step.object().to_string(),
        class: step.class(),
        sql: step.sql().to_owned(),
        end,
        seconds,
        bytes_before: None,
        bytes_after: None,
    }
}

/// Returns the rates with what was measured now; of less than a second nothing is learned.
fn rates(before: Rates, [vacuum, analyze, reindex]: [(u64, f64); 3]) -> Rates {
    let of = |(bytes, seconds): (u64, f64), before: f64| {
        if seconds < 1.0 { before } else { (approximate(bytes) / seconds).max(1.0) }
    };
    Rates {
        vacuum: of(vacuum, before.vacuum),
        analyze: of(analyze, before.analyze),
        reindex: of(reindex, before.reindex),
    }
}

/// Does what every VACUUM left out for the last: the database's own age. That it fails changes nothing.
fn settle(manner: &Manner<'_>, outcome: &mut Outcome) {
    let has_vacuumed = |done: &Done| done.end == End::Done && done.sql.starts_with("VACUUM");
    if manner.server.version.major() < 16 || !outcome.done.iter().any(has_vacuumed) {
        return;
    }
    let settle = || -> Result<(), Error> {
        let mut connection =
            super::connect(manner.target, manner.settings.lock_timeout, manner.stop)?;
        let result = connection.batch_execute("VACUUM (ONLY_DATABASE_STATS)");
        result.map_err(|e| Error::query("settle the age of the database", e))
    };
    if let Err(error) = settle() {
        tracing::warn!("the age of the database stays as it was: {}", crate::db::one_line(&error));
    }
}

impl Shared<'_> {
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
            if let Some(n) = free {
                let step = state.waiting.remove(n);
                let wal = if matches!(step.act(), Act::Reindex(_)) { step.bytes() } else { 0 };
                if let Some(why) = self.guard.refuses(step.likely(), wal) {
                    state.done.push(left(&step, &why));
                    continue;
                }
                let table = table(&step);
                state.busy.insert(table);
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
    fn work(&self) -> Result<(), Error> {
        let lock_timeout = self.manner.settings.lock_timeout;
        let mut connection = super::connect(self.manner.target, lock_timeout, &self.guard.work)?;
        while let Some((step, table)) = self.next() {
            let began = Instant::now();
            let result = self.step(&mut connection, &step);
            let seconds = began.elapsed().as_secs_f64();
            let is_lost = matches!(result, Err(Error::Lost { .. } | Error::Unreachable { .. }));
            let is_stopped = self.guard.work.reason().is_some();
            let mut lost = None;
            let done = match result {
                Ok(ended) => Done { seconds, ..ended },
                Err(error) if error.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    done(&step, End::Locked, seconds)
                }
                Err(_) if is_stopped => done(&step, End::Cancelled, seconds),
                Err(error) => {
                    let message = crate::db::one_line(&error);
                    tracing::error!("{message}");
                    lost = is_lost.then_some(error);
                    done(&step, End::Failed(message), seconds)
                }
            };
            tracing::info!("{}: {} in {seconds:.1} s", done.object, word(&done.end));
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
                    state.spent[kind].1 += seconds;
                }
                if let Act::Analyze { .. } | Act::Vacuum { analyze: true, .. } = step.act() {
                    state.analyzed.insert(table);
                }
            }
            state.done.push(done);
            state.busy.remove(&table);
            drop(state);
            self.changed.notify_all();
            if let Some(error) = lost {
                return Err(error);
            }
        }
        Ok(())
    }

    fn step(&self, connection: &mut Connection, step: &Step) -> Result<Done, Error> {
        match step.act() {
            Act::Vacuum { .. } | Act::Analyze { .. } => {
                let before = connection.passed_over();
                connection.batch_execute(step.sql()).map_err(|e| {
                    let verb = step.sql().split(' ').next().unwrap_or_default();
                    Error::query(format!("{verb} {}", step.object()), e)
                        .or_stopped(&self.guard.work)
                })?;
                let end = if connection.passed_over() == before { End::Done } else { End::Locked };
                Ok(done(step, end, 0.0))
            }
            Act::Drop(invalid) => {
                let gone = reindex::drop_index(connection, invalid)?;
                Ok(done(step, if gone { End::Done } else { End::Locked }, 0.0))
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
        let Manner { target, server, settings, abort, .. } = self.manner;
        let (before, is_analyzed) = {
            let state = self.state();
            let before = state.past.best.get(&index.name.to_string()).copied();
            (before, state.analyzed.contains(&index.table))
        };
        let cleared = reindex::clear(connection, server, index, before, settings, is_analyzed)?;
        let cleared = match cleared {
            Ok(cleared) => cleared,
            Err(why) => return Ok(done(step, End::Left(why), 0.0)),
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
            self.state().working.retain(|other| *other != work);
            let why = format!("nobody would know of it should the run be killed: {why}");
            return Ok(done(step, End::Left(why), 0.0));
        }
        let result = reindex::rebuild(connection, &cleared, server, settings, &self.guard.work);
        match result {
            Ok(rebuilt) => {
                let mut state = self.state();
                state.working.retain(|other| *other != work);
                if let Some(best) = rebuilt.best {
                    state.past.best.insert(index.name.to_string(), best);
                }
                let (bytes_before, bytes_after) = (Some(rebuilt.before), Some(rebuilt.after));
                Ok(Done { bytes_before, bytes_after, ..done(step, End::Done, 0.0) })
            }
            Err(error) => {
                let past = self.state().past.clone();
                match reindex::clean_up(target, &work, &past, settings, abort) {
                    Ok(true) => self.state().working.retain(|other| *other != work),
                    Ok(false) => tracing::warn!(
                        "{}: what was begun of it is left: the next run removes it",
                        index.name
                    ),
                    Err(other) => tracing::warn!(
                        "{}: what was begun of it is left, the next run removes it: {}",
                        index.name,
                        crate::db::one_line(&other)
                    ),
                }
                Err(error)
            }
        }
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

fn word(end: &End) -> String {
    match end {
        End::Done => "done".to_owned(),
        End::Locked => "somebody has it locked; the next run tries it again".to_owned(),
        End::Left(why) => format!("left: {why}"),
        End::Cancelled => "cancelled".to_owned(),
        End::Failed(why) => format!("failed: {why}"),
    }
}
