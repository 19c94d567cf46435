//! Carries a plan out: several statements side by side, the most urgent first, never two on one table.
//!
//! Each worker has a session of its own. What somebody has locked is left for the next run. Whatever ends a run, the statements at work
//! are cancelled and an index that was not built to its end is removed.

use super::Server;
use super::guard::{Guard, Halt};
use super::need::approximate;
use super::past::{Past, Rates, Work};
use super::plan::{Class, Plan, Step};
use super::watch::Watch;
use crate::clock::Moment;
use crate::config::Maintain;
use crate::db::{Error, Target};
use crate::stop::{Reason, Stop};

mod session;
mod worker;

use worker::{Shared, State};

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
    let watch = Watch::open(&guard, manner.target)?;
    let n_workers = manner.jobs.min(waiting.len());
    let shared = Shared::new(manner, &guard, waiting, past);
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
    let State { waiting, done, past, working, spent, .. } = shared.into_state();
    let mut outcome = Outcome { done, halt: guard.halted(), rates: rates(past.rates, spent), past };
    let why = match &outcome.halt {
        Some(_) => "it was stopped before",
        None => "the run ended before",
    };
    outcome.done.extend(waiting.iter().map(|step| Done::left(step, why)));
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

impl Done {
    fn of(step: &Step, end: End, seconds: f64) -> Done {
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

    fn left(step: &Step, why: &str) -> Done {
        Done::of(step, End::Left(why.to_owned()), 0.0)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Done => f.write_str("done"),
            End::Locked => f.write_str("somebody has it locked"),
            End::Left(why) => write!(f, "left: {why}"),
            End::Cancelled => f.write_str("cancelled"),
            End::Failed(why) => write!(f, "FAILED: {why}"),
        }
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
