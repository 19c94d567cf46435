//! Deletes what a plan found, in transactions so short that nobody waits for one.
//!
//! A table of which much is expired is walked page by page, one of which little is along the index on its time: `walk.rs`. Rows that
//! somebody has locked are passed over. Whatever ends it, what is committed is whole: what refers to a row goes in the same statement.
//! `transaction.rs` is one of them, `left.rs` counts at the end.

use std::time::{Duration, Instant};

use postgres::error::SqlState;

use crate::db::{Connection, Error};
use crate::sessions::batch::pause;
use crate::sessions::catalogue::Leaf;
use crate::sessions::expired::Expired;
use crate::sessions::plan::{Cleaning, Figures};
use crate::sessions::replicas::{Replicas, Waited};
use crate::sessions::walk::{Walk, Way};
use crate::sessions::{LOOK_TIMEOUT, is_passing};
use crate::stop::Stop;

mod left;
mod transaction;

use left::{Count, left};
use transaction::{Batch, carry_out};

/// How often something may be passed over because it cannot be deleted, before that is an error.
const SKIPS: u32 = 50;
/// A table is walked again if more than this is left, and more than a hundredth of what was deleted.
const MUCH: u64 = 1000;
const PASSES: u32 = 3;

/// How to go about it.
pub(crate) struct Manner<'a> {
    /// How long one transaction should take.
    pub(crate) batch: Duration,
    pub(crate) pause_percent: u32,
    pub(crate) replicas: &'a mut Replicas,
    pub(crate) stop: &'a Stop,
    /// Returns an error if another host may be at work.
    pub(crate) check: &'a mut dyn FnMut() -> Result<(), Error>,
}

/// What became of a rule.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Outcome {
    pub(crate) rule: String,
    pub(crate) table: String,
    pub(crate) deleted: u64,
    /// Rows of other tables that went, or now refer to nothing; without those that the database itself takes along.
    pub(crate) children: u64,
    /// Expired, and still there, if that is known; an estimate unless it came to its end.
    pub(crate) remaining: Option<u64>,
    /// Those of them that somebody has locked, or that cannot be deleted.
    pub(crate) skipped: Option<u64>,
    pub(crate) batches: u64,
    pub(crate) longest_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) deleted_per_second: f64,
    /// Room in the table's files that VACUUM makes usable again; the files stay as large as they are.
    pub(crate) reusable_bytes: u64,
    pub(crate) end: End,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum End {
    #[default]
    Complete,
    /// A signal or the deadline: there is more to do.
    Stopped,
    /// Replicas stayed too far behind: there is more to do.
    Lagging,
    /// Nothing went, although nobody has it locked.
    Kept,
    /// An error, which stands beside it: there is more to do.
    Failed,
}

/// Deletes what is expired. The outcome is also that of what was done before an error.
pub(crate) fn apply(
    connection: &mut Connection,
    cleaning: &Cleaning,
    manner: &mut Manner<'_>,
) -> (Outcome, Result<(), Error>) {
    let began = Instant::now();
    let mut work = Work {
        connection,
        cleaning,
        manner,
        outcome: Outcome {
            rule: cleaning.rule().name.clone(),
            table: cleaning.relation().name.to_string(),
            ..Outcome::default()
        },
        skips: 0,
        may_have_left: false,
    };
    let result = work.run();
    let mut outcome = work.outcome;
    if result.is_err() {
        outcome.end = End::Failed;
    }
    if [End::Stopped, End::Lagging, End::Failed].contains(&outcome.end) {
        outcome.remaining = Some(cleaning.figures().expired.saturating_sub(outcome.deleted));
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "it is a rate")]
    let rate = outcome.deleted as f64 / outcome.seconds.max(0.001);
    outcome.deleted_per_second = rate.round();
    outcome.reusable_bytes = reusable(cleaning, outcome.deleted);
    (outcome, result)
}

/// Estimates the room that deleted rows took.
fn reusable(cleaning: &Cleaning, deleted: u64) -> u64 {
    let bytes: u64 = cleaning.leaves().map(|(leaf, _)| leaf.bytes).sum();
    let share =
        u128::from(bytes) * u128::from(deleted) / u128::from(cleaning.figures().rows.max(1));
    u64::try_from(share).unwrap_or(bytes).min(bytes)
}

/// Is so little expired that the way along an index is the shorter one?
fn by_index(figures: &Figures, pages: u64) -> bool {
    figures.expired < pages
}

struct Work<'a, 'm> {
    connection: &'a mut Connection,
    cleaning: &'a Cleaning,
    manner: &'a mut Manner<'m>,
    outcome: Outcome,
    skips: u32,
    /// Was anything passed over, so that something may be left?
    may_have_left: bool,
}

impl Work<'_, '_> {
    fn run(&mut self) -> Result<(), Error> {
        let cleaning = self.cleaning;
        for pass in 1..=PASSES {
            let before = self.outcome.deleted;
            let mut walked_pages = false;
            self.may_have_left = false;
            for (leaf, indexed) in cleaning.leaves() {
                let pages: u64 = cleaning.leaves().map(|(leaf, _)| leaf.pages).sum();
                let along = indexed && by_index(cleaning.figures(), pages);
                walked_pages |= !along;
                self.outcome.end = self.walk(leaf, along)?;
                if self.outcome.end != End::Complete {
                    return Ok(());
                }
            }
            // What deletes straight leaves nothing, unless a trigger keeps it.
            let Figures { expired, estimated, .. } = cleaning.figures();
            if !self.may_have_left && !estimated && self.outcome.deleted >= *expired {
                (self.outcome.remaining, self.outcome.skipped) = (Some(0), Some(0));
                break;
            }
            let remaining = self.left(walked_pages, Count::All)?;
            (self.outcome.remaining, self.outcome.skipped) = (remaining, remaining);
            let Some(remaining) = remaining else {
                tracing::warn!(
                    "{}: what is left could not be counted in {} s",
                    self.outcome.rule,
                    LOOK_TIMEOUT.as_secs()
                );
                break;
            };
            let went = self.outcome.deleted - before;
            if self.outcome.deleted == 0 && remaining > 0 {
                // Is it free, and does not go? Once more, for somebody may have let it go just now.
                let is_free = self.left(walked_pages, Count::Free)?.is_some_and(|n| n > 0);
                if is_free && pass == 1 {
                    continue;
                }
                self.outcome.end = if is_free { End::Kept } else { End::Complete };
                break;
            }
            if remaining <= MUCH || remaining <= went / 100 || went == 0 || pass == PASSES {
                break;
            }
        }
        Ok(())
    }

    fn left(&mut self, walked_pages: bool, which: Count) -> Result<Option<u64>, Error> {
        left(self.connection, self.cleaning, (walked_pages, which), self.manner.stop)
    }

    /// Walks through one table that holds rows.
    fn walk(&mut self, leaf: &Leaf, along: bool) -> Result<End, Error> {
        let expired = Expired::new(self.cleaning.rule(), &leaf.name);
        let locks = self.cleaning.rule().via.is_some();
        let mut walk = Walk::new(self.manner.batch, leaf.pages, along, locks);
        while !walk.is_over() {
            if self.manner.stop.reason().is_some() {
                return Ok(End::Stopped);
            }
            (self.manner.check)()?;
            let began = Instant::now();
            let result = carry_out(self.connection, self.cleaning, leaf, &expired, &walk);
            let elapsed = began.elapsed();
            match result {
                Ok(batch) => {
                    self.count(&batch, elapsed);
                    self.may_have_left |= !matches!(walk.way(), Way::Straight { .. });
                    if !walk.went(batch.chosen, batch.last.as_deref(), elapsed) {
                        return Ok(End::Complete);
                    }
                }
                Err(_) if self.manner.stop.reason().is_some() => return Ok(End::Stopped),
                Err(error) if is_passing(&error) => {
                    let rule = &self.outcome.rule;
                    tracing::debug!("{rule}: {:?} is tried another way: {error}", walk.way());
                    let locked = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
                    if walk.failed(locked) {
                        self.may_have_left = true;
                        self.skips += 1;
                        if self.skips > SKIPS {
                            return Err(self.failed(error));
                        }
                    }
                }
                Err(error) => return Err(self.failed(error)),
            }
            if let Some(end) = self.rest(elapsed)? {
                return Ok(end);
            }
        }
        Ok(End::Complete)
    }

    fn failed(&self, error: postgres::Error) -> Error {
        let what = format!("delete expired rows of {}", self.outcome.table);
        Error::query(what, error).or_stopped(self.manner.stop)
    }

    fn count(&mut self, batch: &Batch, elapsed: Duration) {
        let outcome = &mut self.outcome;
        outcome.deleted += batch.deleted;
        outcome.children += batch.children;
        outcome.batches += 1;
        outcome.longest_seconds = outcome.longest_seconds.max(elapsed.as_secs_f64());
        tracing::debug!(
            "{}: {} of {} rows in {elapsed:.1?}",
            outcome.table,
            batch.deleted,
            batch.chosen
        );
    }

    /// Rests after a batch, and as long as replicas are behind.
    fn rest(&mut self, elapsed: Duration) -> Result<Option<End>, Error> {
        let stop = self.manner.stop;
        if stop.sleep(pause(elapsed, self.manner.pause_percent)).is_err() {
            return Ok(Some(End::Stopped));
        }
        let waited = self.manner.replicas.wait(self.connection, &self.outcome.rule, stop)?;
        Ok(match waited {
            Waited::Good => None,
            Waited::Stopped => Some(End::Stopped),
            Waited::InVain => Some(End::Lagging),
        })
    }
}
