//! The report in the text format of Prometheus, for a scrape and for `node_exporter`'s textfile collector (so: no timestamps).

use std::fmt::Write as _;

use super::Report;
use crate::health::{Answer, Outcome};

/// Writes the metrics; names and labels are documented in `docs/health-check.md`.
pub(crate) fn prometheus(report: &Report) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        if !samples.is_empty() {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
        }
        for (labels, number) in samples {
            writeln!(text, "{name}{labels} {number}").ok();
        }
    };
    let each = |number: &dyn Fn(&Answer) -> Option<f64>| {
        let sample = |answer| Some((labels(answer, &[]), number(answer)?));
        report.answers().iter().filter_map(sample).collect::<Vec<_>>()
    };
    let status = |outcome: Outcome| f64::from(outcome.number());
    let is = "0 ok, 1 warning, 2 critical, 3 unknown.";
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
    let at = report.at.timestamp() as f64;
    family(
        "opsctl_health_status",
        &format!("The worst of all checks: {is}"),
        vec![(String::new(), status(report.outcome()))],
    );
    family(
        "opsctl_health_timestamp_seconds",
        "When the checks were asked.",
        vec![(String::new(), at)],
    );
    family(
        "opsctl_health_duration_seconds",
        "How long all checks took.",
        vec![(String::new(), report.seconds)],
    );
    family(
        "opsctl_check_status",
        &format!("How a check stands: {is}"),
        each(&|a| Some(status(a.reading.outcome))),
    );
    family(
        "opsctl_check_duration_seconds",
        "How long after its beginning a check was answered.",
        each(&|a| Some(a.seconds)),
    );
    let value = |answer: &Answer| answer.reading.value.as_ref().map(|value| value.number);
    family(
        "opsctl_check_value",
        "What a check measured, in the unit that its label says.",
        each(&value),
    );
    let more = report.answers().iter().flat_map(|answer| {
        let figure = |(name, value): &(String, crate::health::Value)| {
            (labels(answer, &[("figure", name), ("unit", value.unit.name())]), value.number)
        };
        answer.reading.more.iter().map(figure).collect::<Vec<_>>()
    });
    family("opsctl_check_figure", "What else a check measured.", more.collect());
    text
}

fn labels(answer: &Answer, more: &[(&str, &str)]) -> String {
    let check = &answer.check;
    let mut labels = vec![("check", check.name.as_str()), ("kind", check.kind.name)];
    labels.extend(check.database.as_deref().map(|database| ("database", database)));
    if more.is_empty() {
        labels.push(("unit", check.kind.unit.name()));
    }
    labels.extend(more);
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<_> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::format::testing::report;

    #[test]
    fn every_family_has_its_help_once_and_no_timestamp() {
        let text = prometheus(&report());
        assert!(text.ends_with('\n'));
        for family in [
            "opsctl_health_status",
            "opsctl_check_status",
            "opsctl_check_value",
            "opsctl_check_figure",
        ] {
            assert_eq!(text.matches(&format!("# HELP {family} ")).count(), 1, "{text}");
        }
        let status = "\nopsctl_check_status{check=\"connect/b\",kind=\"connect\",database=\"b\",unit=\"seconds\"} 2\n";
        assert!(text.contains(status), "{text}");
        let figure = "figure=\"left\",unit=\"count\"} 3\n";
        assert!(text.contains(figure), "{text}");
    }
}
