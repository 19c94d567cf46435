//! The answers of a run, written for people and for programs. Pure: what is written is returned.

use super::kind::Profile;
use super::{Answer, Outcome, Unit};
use crate::clock::Moment;

mod health_json;
mod human;
mod json;
mod junit;
mod nagios;
mod prometheus;
#[cfg(test)]
pub(super) mod testing;

pub(crate) use health_json::health_json;
pub(crate) use human::human;
pub(crate) use json::{VERSION, json};
pub(crate) use junit::junit;
pub(crate) use nagios::{nagios, nagios_failure};
pub(crate) use prometheus::prometheus;

/// A run's answers.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Worst first, otherwise in the order in which they were asked.
    answers: Vec<Answer>,
    pub(crate) run: String,
    pub(crate) host: String,
    pub(crate) at: Moment,
    /// How long all of it took.
    pub(crate) seconds: f64,
    pub(crate) profile: Profile,
}

impl Report {
    pub(crate) fn new(
        mut answers: Vec<Answer>,
        run: String,
        at: Moment,
        seconds: f64,
        profile: Profile,
    ) -> Report {
        answers.sort_by_key(|answer| std::cmp::Reverse(answer.reading.outcome));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Report { answers, run, host, at, seconds, profile }
    }

    /// Returns the worst of all outcomes.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::worst(self.answers.iter().map(|answer| answer.reading.outcome))
    }

    /// Returns the answers, worst first.
    pub(crate) fn answers(&self) -> &[Answer] {
        &self.answers
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.answers.iter().filter(|answer| answer.reading.outcome == outcome).count()
    }

    /// Says how many are what: `1 critical, 2 warning, 15 ok`.
    fn counts(&self) -> String {
        let counted = Outcome::WORST_FIRST.map(|outcome| (self.count(outcome), outcome.name()));
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        let counted: Vec<_> = counted.map(|(count, name)| format!("{count} {name}")).collect();
        if counted.is_empty() { "nothing was asked".to_owned() } else { counted.join(", ") }
    }
}

/// Writes a number as programs read it: bytes and counts whole, never with an exponent.
fn plain(number: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes | Unit::Count => format!("{number:.0}"),
        Unit::Percent | Unit::Days => trimmed(&format!("{number:.2}")),
        Unit::Seconds => trimmed(&format!("{number:.6}")),
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_without_exponent() {
        assert_eq!(plain(1e18, Unit::Bytes), "1000000000000000000");
        assert_eq!(plain(0.000_000_1, Unit::Seconds), "0");
        assert_eq!(plain(0.0125, Unit::Seconds), "0.0125");
        assert_eq!(plain(30.0, Unit::Days), "30");
        assert_eq!(plain(99.999, Unit::Percent), "100");
    }
}
