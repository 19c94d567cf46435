//! What the history says of each check: what was found in the runs before.

use std::collections::BTreeMap;

use crate::commands::Context;
use crate::health::{Answer, Inquiry, Outcome};

/// Runs of people, with `--only`, lie between those that count for a check.
const BETWEEN: u32 = 10;

/// What was found of each check, by its name, the last time first; and what was said of it the last time.
#[derive(Default)]
pub(super) struct Before {
    found: BTreeMap<String, Vec<Outcome>>,
    said: BTreeMap<String, Outcome>,
}

impl Before {
    /// Reads as far back as the most patient check needs, and tells each check what was found last.
    ///
    /// Nothing if the history cannot be used: then every check is said to be what it is found to be.
    pub(super) fn read(context: &Context, inquiries: &mut [Inquiry]) -> Option<Before> {
        let checks = || inquiries.iter().flat_map(|inquiry| &inquiry.checks);
        let runs = checks().map(|check| check.runs).max().unwrap_or(1);
        let last = context.history.with(|store| store.last_runs("health-check", runs + BETWEEN));
        let last = last
            .inspect_err(|error| {
                tracing::warn!("how checks stood before is not known: {}", error.in_full());
            })
            .ok()?;
        let mut before = Before::default();
        for (name, number) in last.iter().flatten() {
            let number = number.as_u64().and_then(Outcome::from_number);
            let Some(outcome) = number else { continue };
            if let Some(name) = name.strip_suffix(".found") {
                before.found.entry(name.to_owned()).or_default().push(outcome);
            } else if let Some(name) = name.strip_suffix(".status") {
                before.said.entry(name.to_owned()).or_insert(outcome);
            }
        }
        for check in inquiries.iter_mut().flat_map(|inquiry| &mut inquiry.checks) {
            check.before = before.of(&check.name).first().copied();
        }
        Some(before)
    }

    /// Returns what was found of a check.
    pub(super) fn of(&self, name: &str) -> &[Outcome] {
        self.found.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Is anything said now that was not said the last time?
    pub(super) fn is_news<'a>(&self, answers: impl IntoIterator<Item = &'a Answer>) -> bool {
        let said = |name: &str| self.said.get(name).copied().unwrap_or(Outcome::Ok);
        answers.into_iter().any(|answer| answer.reading.outcome != said(&answer.check.name))
    }
}
