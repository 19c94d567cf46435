//! One check as it is configured, and the inquiry that answers one or several of them.

use std::time::Duration;

use super::{Kind, Limits, Outcome, Reading, Value};
use crate::config::CheckSettings;
use crate::stop::Stop;

/// A named question.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) kind: &'static Kind,
    /// `KIND/INSTANCE`, or the kind alone if there is only one.
    pub(crate) name: String,
    /// The database it is about, as the history calls it.
    pub(crate) database: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) timeout: Duration,
    pub(crate) limits: Limits,
    /// How many runs in a row it must be bad before that is said.
    pub(crate) runs: u32,
    /// How often it is asked again within a run before it is called bad.
    pub(crate) retries: u32,
    /// What was found of it the last time, if that is known.
    pub(crate) before: Option<Outcome>,
}

impl Check {
    /// Makes a check of a kind, of what the configuration says of it.
    pub(crate) fn new(kind: &'static Kind, instance: &str, settings: &CheckSettings) -> Check {
        let slash = if instance.is_empty() { "" } else { "/" };
        let tags = kind.tags.iter().map(|tag| (*tag).to_owned());
        Check {
            kind,
            name: format!("{}{slash}{instance}", kind.name),
            database: None,
            tags: tags.chain(settings.tags.iter().cloned()).collect(),
            timeout: settings.timeout.unwrap_or(kind.timeout),
            limits: Limits {
                warning: settings.warning.or(kind.limits.warning),
                critical: settings.critical.or(kind.limits.critical),
                bad: kind.limits.bad,
            },
            runs: settings.runs.unwrap_or(kind.runs),
            retries: settings.retries.unwrap_or(kind.retries),
            before: None,
        }
    }

    /// Makes a check of a database.
    pub(crate) fn of_database(
        kind: &'static Kind,
        database: &str,
        settings: &CheckSettings,
    ) -> Check {
        let database = database.to_owned();
        Check { database: Some(database.clone()), ..Check::new(kind, &database, settings) }
    }

    /// Compares a number with the limits, and says it.
    pub(crate) fn judged(&self, number: f64, message: impl Into<String>) -> Reading {
        let outcome = self.limits.judge(number, self.before);
        let value = Value { limits: self.limits, ..Value::new(number, self.kind.unit) };
        Reading { value: Some(value), ..Reading::new(outcome, message) }
    }

    /// Says that it could not be asked.
    pub(crate) fn failed(&self, why: &anyhow::Error) -> Reading {
        Reading::new(self.kind.failing, one_line(why))
    }
}

/// Takes what was found out about one check.
pub(crate) type Give<'a> = dyn Fn(&Check, anyhow::Result<Reading>) + 'a;

/// Asks for the checks, gives what it finds as soon as it is found, and ends when it is told to stop.
pub(crate) type Ask = dyn Fn(&[Check], &Stop, &Give<'_>) -> anyhow::Result<()> + Send + Sync;

/// One conversation that answers one or several checks.
pub(crate) struct Inquiry {
    pub(crate) checks: Vec<Check>,
    /// How long it may take as a whole: as long as the most patient of its checks, unless set otherwise.
    pub(crate) timeout: Duration,
    pub(crate) ask: Box<Ask>,
}

impl Inquiry {
    /// Makes an inquiry for several checks. If it fails, all that it has not answered have failed.
    pub(crate) fn new(
        checks: Vec<Check>,
        ask: impl Fn(&[Check], &Stop, &Give<'_>) -> anyhow::Result<()> + Send + Sync + 'static,
    ) -> Inquiry {
        let timeout = checks.iter().map(|check| check.timeout).max().unwrap_or_default();
        Inquiry { checks, timeout, ask: Box::new(ask) }
    }

    /// Makes an inquiry for one check.
    pub(crate) fn single(
        check: Check,
        ask: impl Fn(&Check, &Stop) -> anyhow::Result<Reading> + Send + Sync + 'static,
    ) -> Inquiry {
        Inquiry::new(vec![check], move |checks, stop, give| {
            for check in checks {
                give(check, ask(check, stop));
            }
            Ok(())
        })
    }
}

/// A check and what it found.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) check: Check,
    pub(crate) reading: Reading,
    /// How long after the inquiry began it was known.
    pub(crate) seconds: f64,
    /// What it would be if it were not required to last for some runs first.
    pub(crate) found: Outcome,
}

/// Joins an error and its causes to one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some libraries repeat their source in their own message.
        if !line.ends_with(&text) {
            let joint = if line.is_empty() { "" } else { ": " };
            line.push_str(joint);
            line.push_str(&text);
        }
    }
    line
}
