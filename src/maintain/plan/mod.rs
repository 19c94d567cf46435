//! What is to be done in a database, in which order and why; and what is only said. Pure. Only this module makes a [`Plan`], and
//! `apply` takes nothing else.

use std::time::Duration;

use super::leftover::Invalid;
use super::look::{Index, Name};
use super::past::Past;
use crate::clock::Moment;
use crate::config::Maintain;

mod decide;
mod indexes;
mod parents;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use decide::plan;
pub(crate) use indexes::waste;

/// What one step does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Vacuum {
        table: u32,
        name: Name,
        analyze: bool,
        freeze: bool,
        toast_only: bool,
    },
    /// `only`: without its partitions.
    Analyze {
        table: u32,
        name: Name,
        only: bool,
    },
    Drop(Invalid),
    Reindex(Index),
}

/// The classes of urgency, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Class {
    Wraparound,
    Leftover,
    NeverAnalyzed,
    Rows,
    Partitions,
    Bloat,
}

/// One statement that will be run.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    act: Act,
    class: Class,
    /// Within its class.
    urgency: f64,
    reasons: Vec<String>,
    likely: Duration,
    bytes: u64,
    sql: String,
}

/// What is never done here, and the statement that would do it.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Advice {
    pub(crate) object: String,
    pub(crate) why: String,
    pub(crate) sql: String,
    /// Whom that would keep waiting.
    pub(crate) blocks: String,
}

/// What is done, and what is said.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    advice: Vec<Advice>,
    unknown: Vec<String>,
    /// What the next run is to know, as far as it is known before anything is done.
    past: Past,
    tables: usize,
    old: Vec<Old>,
}

/// From which ages on something is critical.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    pub(crate) xid: f64,
    pub(crate) multixact: f64,
}

/// A table of critical age, whether or not it can be frozen.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Old {
    pub(crate) object: String,
    pub(crate) xid_age: u64,
    pub(crate) multixact_age: u64,
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'w> {
    pub(crate) settings: &'w Maintain,
    pub(crate) reindex: bool,
    /// Only these tables, with or without their schema; all, if empty.
    pub(crate) only: &'w [String],
    pub(crate) now: Moment,
    pub(crate) critical: Ages,
}

impl Step {
    pub(crate) fn act(&self) -> &Act {
        &self.act
    }

    pub(crate) fn class(&self) -> Class {
        self.class
    }

    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Returns how long it is likely to take.
    pub(crate) fn likely(&self) -> Duration {
        self.likely
    }

    /// Returns how much it has to read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn sql(&self) -> &str {
        &self.sql
    }

    /// Returns what it is about.
    pub(crate) fn object(&self) -> &Name {
        match &self.act {
            Act::Vacuum { name, .. } | Act::Analyze { name, .. } => name,
            Act::Drop(invalid) => &invalid.name,
            Act::Reindex(index) => &index.name,
        }
    }

    /// Returns the lock that it takes, and whom that keeps waiting.
    pub(crate) fn lock(&self) -> &'static str {
        match self.act {
            Act::Vacuum { .. } | Act::Analyze { .. } => "SHARE UPDATE EXCLUSIVE",
            Act::Drop(_) | Act::Reindex(_) => {
                "SHARE UPDATE EXCLUSIVE, and waits for older transactions"
            }
        }
    }
}

impl Plan {
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn advice(&self) -> &[Advice] {
        &self.advice
    }

    /// Returns what could not be found out, and what that needs.
    pub(crate) fn unknown(&self) -> &[String] {
        &self.unknown
    }

    pub(crate) fn past(&self) -> &Past {
        &self.past
    }

    /// Returns the tables of critical age, the oldest first.
    pub(crate) fn old(&self) -> &[Old] {
        &self.old
    }

    /// Returns how many tables were looked at.
    pub(crate) fn tables(&self) -> usize {
        self.tables
    }

    /// Gives the steps away, to be carried out.
    pub(crate) fn into_steps(self) -> (Vec<Step>, Past) {
        (self.steps, self.past)
    }
}
