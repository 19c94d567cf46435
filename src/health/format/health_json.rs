//! `application/health+json`, as the expired draft `draft-inadarei-api-health-check-06` (April 2022) has it.
//!
//! The draft knows no "unknown": what could not be found out fails here, with its reason.

use serde_json::{Map, Value as Json, json};

use super::Report;
use crate::health::{Answer, Outcome};

/// Returns the document; `details` says more than how things stand as a whole.
pub(crate) fn health_json(report: &Report, details: bool) -> Json {
    let mut document = json!({
        "status": status(report.outcome()),
        "releaseId": env!("CARGO_PKG_VERSION"),
        "description": "opsctl health-check",
    });
    if details {
        let mut checks: Map<String, Json> = Map::new();
        for answer in report.answers() {
            let instance =
                answer.check.name.split_once('/').map_or("host", |(_, instance)| instance);
            let key = format!("{instance}:{}", answer.check.kind.name);
            if let Some(list) = checks.entry(key).or_insert_with(|| json!([])).as_array_mut() {
                list.push(check(answer, report));
            }
        }
        document["notes"] = json!([report.counts()]);
        document["checks"] = Json::Object(checks);
    }
    document
}

fn check(answer: &Answer, report: &Report) -> Json {
    let tags = &answer.check.tags;
    let kind = match tags.first().map(String::as_str) {
        Some("postgres" | "redis" | "backup") => "datastore",
        Some("host") => "system",
        _ => "component",
    };
    let mut check = json!({
        "componentId": answer.check.name,
        "componentType": kind,
        "status": status(answer.reading.outcome),
        "time": report.at,
    });
    if let Some(value) = &answer.reading.value {
        check["observedValue"] = json!(value.number);
        check["observedUnit"] = json!(value.unit.name());
    }
    // The draft wants it left out where all is well.
    if answer.reading.outcome != Outcome::Ok {
        let message = &answer.reading.message;
        let unknown = answer.reading.outcome == Outcome::Unknown;
        check["output"] =
            json!(if unknown { format!("unknown: {message}") } else { message.clone() });
    }
    check
}

fn status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "pass",
        Outcome::Warning => "warn",
        Outcome::Unknown | Outcome::Critical => "fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::format::testing::report;

    #[test]
    fn what_fails_says_why_and_what_passes_is_silent() {
        let document = health_json(&report(), true);
        assert_eq!(document["status"], "fail");
        assert_eq!(document["checks"]["b:xid-age"][0]["output"], "unknown: not asked");
        let passing = &document["checks"]["a:xid-age"][0];
        assert_eq!(
            (&passing["status"], &passing["observedUnit"]),
            (&json!("pass"), &json!("count"))
        );
        assert!(passing.get("output").is_none());
        assert!(health_json(&report(), false).get("checks").is_none());
    }
}
