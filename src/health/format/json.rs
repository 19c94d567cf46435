//! The report as JSON, version 1: `docs/health-check.schema.json` is its schema.

use serde_json::{Value as Json, json as object};

use super::Report;
use crate::health::{Answer, Value};

/// Raised when a field is removed or changes its meaning; fields may be added at any time.
pub(crate) const VERSION: u32 = 1;

/// Returns the document.
pub(crate) fn json(report: &Report) -> Json {
    let mut counts = serde_json::Map::new();
    for outcome in crate::health::Outcome::WORST_FIRST {
        counts.insert(outcome.name().to_owned(), report.count(outcome).into());
    }
    object!({
        "version": VERSION,
        "command": "health-check",
        "run": report.run,
        "host": report.host,
        "at": report.at,
        "seconds": report.seconds,
        "profile": report.profile.name(),
        "exit": report.outcome().number(),
        "status": report.outcome(),
        "counts": counts,
        "checks": report.answers().iter().map(check).collect::<Vec<_>>(),
    })
}

fn check(answer: &Answer) -> Json {
    let Answer { check, reading, seconds, found } = answer;
    let more: serde_json::Map<String, Json> =
        reading.more.iter().map(|(name, more)| (name.clone(), value(more))).collect();
    object!({
        "name": check.name,
        "kind": check.kind.name,
        "database": check.database,
        "tags": check.tags,
        "status": reading.outcome,
        "found": found,
        "message": reading.message,
        "value": reading.value.as_ref().map(value),
        "more": more,
        "details": reading.details,
        "because_of": reading.because_of,
        "seconds": seconds,
    })
}

/// A number that is none, or without end, is null.
fn value(value: &Value) -> Json {
    object!({
        "number": value.number,
        "unit": value.unit.name(),
        "warning": value.limits.warning,
        "critical": value.limits.critical,
        "bad": value.limits.bad.name(),
        "min": value.min,
        "max": value.max,
    })
}
