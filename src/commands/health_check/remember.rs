//! What stays of a run: the history's figures, and a file of metrics.

use std::collections::BTreeMap;

use serde_json::Number;

use crate::commands::Context;
use crate::health::format::{self, Report};
use crate::health::{Answer, Outcome};
use crate::metrics;

/// What the history calls that which is about no database.
const NO_DATABASE: &str = "-";

/// Notes what became of each check, as figures of its database; and all of it for `node_exporter`, if that is all there is.
pub(super) fn note(context: &Context, report: &Report, is_whole: bool) {
    let mut parts: BTreeMap<&str, Vec<&Answer>> = BTreeMap::new();
    for answer in report.answers() {
        parts
            .entry(answer.check.database.as_deref().unwrap_or(NO_DATABASE))
            .or_default()
            .push(answer);
    }
    for (database, answers) in parts {
        let worst = Outcome::worst(answers.iter().map(|answer| answer.reading.outcome));
        let figures = answers.iter().flat_map(|answer| figures(answer)).collect();
        context.history.database_ended(database, worst.number(), Ok(&figures));
    }
    if let Some(dir) = context.textfile_dir.get().filter(|_| is_whole) {
        let text = format::prometheus(report);
        if let Err(error) = metrics::replace(dir, "opsctl_health-check.prom", &text) {
            tracing::warn!("the metrics could not be written into `{}`: {error}", dir.display());
        }
    }
}

/// Returns the figures of one check: `NAME.status`, `NAME.found` and `NAME.value`.
fn figures(answer: &Answer) -> Vec<(String, Number)> {
    let name = &answer.check.name;
    let value = answer.reading.value.as_ref().and_then(|value| Number::from_f64(value.number));
    let mut figures = vec![
        (format!("{name}.status"), answer.reading.outcome.number().into()),
        (format!("{name}.found"), answer.found.number().into()),
    ];
    figures.extend(value.map(|value| (format!("{name}.value"), value)));
    figures
}
