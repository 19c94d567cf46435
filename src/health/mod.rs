//! Checks: named questions to the system, each answered by ok, warning, critical or unknown.
//!
//! `kind/` has every kind of check there is, with its defaults; `check.rs` one check as it is configured; `run.rs` asks all of
//! them at once and waits for none too long; `format/` writes the answers down. What is asked, and what an answer means, is
//! in the folders named after what they ask: `postgres/`, `network/`. `incident/` gathers evidence and judges nothing;
//! `endpoint/` answers over HTTP. Nothing is changed anywhere by a check, and nothing is repaired.

pub(crate) mod archive;
pub(crate) mod check;
pub(crate) mod endpoint;
pub(crate) mod format;
pub(crate) mod host;
pub(crate) mod incident;
pub(crate) mod kind;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod network;
pub(crate) mod operations;
pub(crate) mod postgres;
pub(crate) mod run;
pub(crate) mod select;
pub(crate) mod service;
pub(crate) mod steady;

pub(crate) use check::{Answer, Check, Inquiry};
pub(crate) use kind::{Kind, Unit};
pub(crate) use limits::Limits;

/// How things stand, in the order of badness: what is not known may be bad, so it is worse than a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Ok,
    Warning,
    Unknown,
    Critical,
}

impl Outcome {
    /// All of them, worst first.
    pub(crate) const WORST_FIRST: [Outcome; 4] =
        [Outcome::Critical, Outcome::Unknown, Outcome::Warning, Outcome::Ok];

    /// Returns the number that monitoring plugins end with (Monitoring Plugins Development Guidelines).
    pub(crate) fn number(self) -> u8 {
        match self {
            Outcome::Ok => 0,
            Outcome::Warning => 1,
            Outcome::Critical => 2,
            Outcome::Unknown => 3,
        }
    }

    /// Reads what [`Outcome::number`] wrote.
    pub(crate) fn from_number(number: u64) -> Option<Outcome> {
        Outcome::WORST_FIRST.into_iter().find(|outcome| u64::from(outcome.number()) == number)
    }

    /// Returns its name as it is written in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warning => "warning",
            Outcome::Unknown => "unknown",
            Outcome::Critical => "critical",
        }
    }

    /// Returns the worst of several; ok if there are none.
    pub(crate) fn worst(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
        outcomes.into_iter().max().unwrap_or(Outcome::Ok)
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) outcome: Outcome,
    /// One line for people.
    pub(crate) message: String,
    /// What was measured and compared with the limits.
    pub(crate) value: Option<Value>,
    /// What else was measured, by its name.
    pub(crate) more: Vec<(String, Value)>,
    /// One line each: which sessions, which tables.
    pub(crate) details: Vec<String>,
    /// The check whose failure made this one impossible: that one is the news.
    pub(crate) because_of: Option<String>,
}

impl Reading {
    /// Makes a reading without figures.
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Reading {
        Reading {
            outcome,
            message: message.into(),
            value: None,
            more: Vec::new(),
            details: Vec::new(),
            because_of: None,
        }
    }

    /// Adds something else that was measured, without limits.
    pub(crate) fn more(mut self, name: &str, number: f64, unit: Unit) -> Reading {
        self.more.push((name.to_owned(), Value::new(number, unit)));
        self
    }

    /// Adds lines that say more.
    pub(crate) fn details(mut self, lines: impl IntoIterator<Item = String>) -> Reading {
        self.details.extend(lines);
        self
    }

    /// Makes it at least as bad as that.
    pub(crate) fn at_least(mut self, outcome: Outcome) -> Reading {
        self.outcome = self.outcome.max(outcome);
        self
    }
}

/// A number that was measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) number: f64,
    pub(crate) unit: Unit,
    /// What it was compared with.
    pub(crate) limits: Limits,
    /// The least and the most that it can be.
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Value {
    /// Makes a value that is compared with nothing.
    pub(crate) fn new(number: f64, unit: Unit) -> Value {
        Value { number, unit, limits: Limits::NONE, min: None, max: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_worse_than_a_warning() {
        let worst = |outcomes: &[Outcome]| Outcome::worst(outcomes.iter().copied());
        assert_eq!(worst(&[Outcome::Warning, Outcome::Unknown, Outcome::Ok]), Outcome::Unknown);
        assert_eq!(worst(&[Outcome::Critical, Outcome::Unknown]), Outcome::Critical);
        assert_eq!(worst(&[]), Outcome::Ok);
        for outcome in Outcome::WORST_FIRST {
            assert_eq!(Outcome::from_number(outcome.number().into()), Some(outcome));
        }
    }
}
