//! What the history says of each check: what was found in the runs before.

use std::collections::BTreeMap;

use crate::commands::Context;
use crate::health::{Inquiry, Outcome};

/// Runs of people, with `--only`, lie between those that count for a check.
const BETWEEN: u32 = 10;

/// What was found of each check, by its name, the last time first.
#[derive(Default)]
pub(super) struct Before(BTreeMap<String, Vec<Outcome>>);

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
            if let (Some(name), Some(outcome)) = (name.strip_suffix(".found"), number) {
                before.0.entry(name.to_owned()).or_default().push(outcome);
            }
        }
        for check in inquiries.iter_mut().flat_map(|inquiry| &mut inquiry.checks) {
            check.before = before.of(&check.name).first().copied();
        }
        Some(before)
    }

    /// Returns what was found of a check.
    pub(super) fn of(&self, name: &str) -> &[Outcome] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}
